//! Known and trusted devices. Known ones are what the history tells; only a trust has a row.

use async_trait::async_trait;
use sqlx::Row;

use super::rows::bytes;
use super::{Store, failed};
use crate::clock::UnixTime;
use crate::ids::{SessionId, UserId};
use crate::people::devices::{StoredDevice, TrustedDevice};
use crate::people::ports::Devices;
use crate::signin::history::Pseudonym;
use crate::signin::ports::StoreError;

#[async_trait]
impl Devices for Store {
    async fn devices(&self, user: UserId, session: SessionId) -> Result<Vec<StoredDevice>, StoreError> {
        // Ends 0 and 1 are the successful ones.
        let rows = sqlx::query(
            "WITH seen AS (
                 SELECT device, min(at) AS first_at, max(at) AS last_at, max(id) AS last_id FROM sign_ins
                 WHERE user_id = ?1 AND device IS NOT NULL AND \"end\" <= 1 GROUP BY device
             ), here AS (SELECT device FROM sessions WHERE id = ?2)
             SELECT s.device, NULL, s.first_at, s.last_at,
                 (SELECT country FROM sign_ins l WHERE l.user_id = ?1 AND l.id = s.last_id), NULL FROM seen s
             UNION ALL
             SELECT NULL, t.device, NULL, NULL, NULL, t.expires_at FROM trusted_devices t WHERE t.user_id = ?1
             UNION ALL
             SELECT NULL, h.device, NULL, NULL, NULL, -1 FROM here h WHERE h.device IS NOT NULL",
        )
        .bind(user.as_bytes().to_vec())
        .bind(session.as_bytes().to_vec())
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let mut devices: Vec<StoredDevice> = Vec::new();
        for row in &rows {
            merge(&mut devices, row).map_err(failed)?;
        }
        devices.sort_by_key(|d| std::cmp::Reverse(d.seen.map(|(_, last)| last)));
        Ok(devices)
    }

    async fn trust(&self, user: UserId, session: SessionId, trust: TrustedDevice) -> Result<bool, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let written = sqlx::query(
                    "INSERT INTO trusted_devices (user_id, device, secret_hash, created_at, expires_at) \
                     SELECT user_id, device, ?4, ?5, ?6 FROM sessions \
                     WHERE id = ?2 AND user_id = ?1 AND device = ?3 AND ended_at IS NULL \
                     ON CONFLICT (user_id, device) DO UPDATE SET secret_hash = excluded.secret_hash, \
                     created_at = excluded.created_at, expires_at = excluded.expires_at",
                )
                .bind(user.as_bytes().to_vec())
                .bind(session.as_bytes().to_vec())
                .bind(trust.device.to_vec())
                .bind(trust.secret_hash.to_vec())
                .bind(trust.created_at.as_millis())
                .bind(trust.expires_at.as_millis())
                .execute(connection)
                .await?;
                Ok(written.rows_affected() == 1)
            })
        })
        .await
    }

    async fn end_trust(&self, user: UserId, device: Pseudonym) -> Result<bool, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let removed = sqlx::query("DELETE FROM trusted_devices WHERE user_id = ?1 AND device = ?2")
                    .bind(user.as_bytes().to_vec())
                    .bind(device.to_vec())
                    .execute(connection)
                    .await?;
                Ok(removed.rows_affected() == 1)
            })
        })
        .await
    }

    async fn forget(
        &self,
        user: UserId,
        device: Pseudonym,
        keep: SessionId,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("DELETE FROM trusted_devices WHERE user_id = ?1 AND device = ?2")
                    .bind(user.as_bytes().to_vec())
                    .bind(device.to_vec())
                    .execute(&mut *connection)
                    .await?;
                sqlx::query("UPDATE sign_ins SET device = NULL, agent = NULL WHERE user_id = ?1 AND device = ?2")
                    .bind(user.as_bytes().to_vec())
                    .bind(i64::from_be_bytes(device))
                    .execute(&mut *connection)
                    .await?;
                sqlx::query(
                    "UPDATE sessions SET ended_at = ?4 \
                     WHERE user_id = ?1 AND device = ?2 AND id <> ?3 AND ended_at IS NULL",
                )
                .bind(user.as_bytes().to_vec())
                .bind(device.to_vec())
                .bind(keep.as_bytes().to_vec())
                .bind(now.as_millis())
                .execute(connection)
                .await
                .map(|_| ())
            })
        })
        .await
    }
}

/// Adds what one row tells of its device: `[number, bytes, first, last, country, trusted until or -1]`.
fn merge(devices: &mut Vec<StoredDevice>, row: &sqlx::sqlite::SqliteRow) -> Result<(), sqlx::Error> {
    let device: Pseudonym = match row.try_get::<Option<i64>, _>(0)? {
        Some(number) => number.to_be_bytes(),
        None => bytes(row.try_get(1)?)?,
    };
    let place = devices.iter().position(|d| d.device == device).unwrap_or_else(|| {
        let nothing = StoredDevice { device, seen: None, country: None, trusted_until: None, is_current: false };
        devices.push(nothing);
        devices.len() - 1
    });
    let known = &mut devices[place];
    if let (Some(first), Some(last)) = (row.try_get::<Option<i64>, _>(2)?, row.try_get::<Option<i64>, _>(3)?) {
        known.seen = Some((UnixTime::from_millis(first), UnixTime::from_millis(last)));
        known.country = row.try_get::<Option<&str>, _>(4)?.map(Into::into);
    }
    match row.try_get::<Option<i64>, _>(5)? {
        Some(-1) => known.is_current = true,
        Some(until) => known.trusted_until = Some(UnixTime::from_millis(until)),
        None => {}
    }
    Ok(())
}
