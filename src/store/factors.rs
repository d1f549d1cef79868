//! Enrolled factors, and those that wait for confirmation.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::rows::bytes;
use super::{Store, backup_codes, failed, unreadable};
use crate::admin::audit::Author;
use crate::clock::UnixTime;
use crate::ids::{FactorId, UserId};
use crate::mfa::backup::CodeHash;
use crate::mfa::ports::{Factors, StoredFactor};
use crate::mfa::{CHALLENGE_ATTEMPTS, Factor, MfaMethod};
use crate::signin::ports::StoreError;

/// A factor in the columns `id, method, sealed_secret, enrolled_at, last_used_at, last_step`.
pub(super) fn read_stored(row: &SqliteRow) -> Result<StoredFactor, sqlx::Error> {
    let factor = Factor {
        id: FactorId::from_bytes(bytes(row.try_get(0)?)?),
        method: MfaMethod::find(row.try_get(1)?).ok_or_else(|| unreadable("an MFA method"))?,
        enrolled_at: UnixTime::from_millis(row.try_get(3)?),
        last_used_at: row.try_get::<Option<i64>, _>(4)?.map(UnixTime::from_millis),
    };
    Ok(StoredFactor { factor, sealed_secret: row.try_get(2)?, last_step: row.try_get(5)? })
}

#[async_trait]
impl Factors for Store {
    async fn factors(&self, user: UserId) -> Result<Vec<Factor>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, method, sealed_secret, enrolled_at, last_used_at, last_step FROM factors \
             WHERE user_id = ?1 AND confirmed = 1 ORDER BY id",
        )
        .bind(user.as_bytes().to_vec())
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        rows.iter()
            .map(|row| read_stored(row).map(|stored| stored.factor))
            .collect::<Result<_, _>>()
            .map_err(failed)
    }

    async fn put_pending(&self, user: UserId, factor: StoredFactor) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("DELETE FROM factors WHERE user_id = ?1 AND confirmed = 0")
                    .bind(user.as_bytes().to_vec())
                    .execute(&mut *connection)
                    .await?;
                sqlx::query(
                    "INSERT INTO factors (user_id, id, method, sealed_secret, enrolled_at, confirmed, attempts) \
                     VALUES (?1, ?2, ?3, ?4, ?5, 0, 0)",
                )
                .bind(user.as_bytes().to_vec())
                .bind(factor.factor.id.as_bytes().to_vec())
                .bind(factor.factor.method.as_str())
                .bind(factor.sealed_secret)
                .bind(factor.factor.enrolled_at.as_millis())
                .execute(connection)
                .await
                .map(|_| ())
            })
        })
        .await
    }

    async fn begin_confirmation(
        &self,
        user: UserId,
        factor: FactorId,
        _now: UnixTime,
    ) -> Result<Option<StoredFactor>, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let counted = sqlx::query(
                    "UPDATE factors SET attempts = attempts + 1 \
                     WHERE user_id = ?1 AND id = ?2 AND confirmed = 0 AND attempts < ?3",
                )
                .bind(user.as_bytes().to_vec())
                .bind(factor.as_bytes().to_vec())
                .bind(CHALLENGE_ATTEMPTS)
                .execute(&mut *connection)
                .await?;
                if counted.rows_affected() != 1 {
                    return Ok(None);
                }
                let row = sqlx::query(
                    "SELECT id, method, sealed_secret, enrolled_at, last_used_at, last_step FROM factors \
                     WHERE user_id = ?1 AND id = ?2",
                )
                .bind(user.as_bytes().to_vec())
                .bind(factor.as_bytes().to_vec())
                .fetch_one(connection)
                .await?;
                read_stored(&row).map(Some)
            })
        })
        .await
    }

    async fn put_backup_codes(
        &self,
        user: UserId,
        set: StoredFactor,
        hashes: Vec<CodeHash>,
        author: Author,
    ) -> Result<bool, StoreError> {
        self.write(move |connection| {
            Box::pin(async move { backup_codes::put(connection, user, set, hashes, author).await })
        })
        .await
    }

    async fn backup_codes_left(&self, user: UserId) -> Result<u32, StoreError> {
        let row = sqlx::query("SELECT count(*) FROM backup_codes WHERE user_id = ?1")
            .bind(user.as_bytes().to_vec())
            .fetch_one(&self.pool)
            .await;
        row.and_then(|row| row.try_get(0)).map_err(failed)
    }

    async fn confirm(&self, user: UserId, factor: FactorId, step: i64, now: UnixTime) -> Result<bool, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let confirmed = sqlx::query(
                    "UPDATE factors SET confirmed = 1, last_step = ?3, enrolled_at = ?4 \
                     WHERE user_id = ?1 AND id = ?2 AND confirmed = 0",
                )
                .bind(user.as_bytes().to_vec())
                .bind(factor.as_bytes().to_vec())
                .bind(step)
                .bind(now.as_millis())
                .execute(connection)
                .await?;
                Ok(confirmed.rows_affected() == 1)
            })
        })
        .await
    }
}
