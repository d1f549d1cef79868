//! Messages with codes, and the small values of plugins.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};

use super::challenges::find_open;
use super::{Store, failed};
use crate::clock::UnixTime;
use crate::ids::{ChallengeId, UserId};
use crate::mfa::MfaMethod;
use crate::mfa::delivery::{
    Delivery, MESSAGE_PAUSE, MESSAGE_WINDOW, MESSAGES_PER_CHALLENGE, MESSAGES_PER_USER, POLL_PAUSE,
};
use crate::mfa::ports::{AttemptRequest, Deliveries, DeliveryStart, NewDelivery, OpenAttempt, PollStart};
use crate::signin::ports::StoreError;

#[async_trait]
impl Deliveries for Store {
    async fn begin_delivery(&self, request: AttemptRequest, new: NewDelivery) -> Result<DeliveryStart, StoreError> {
        self.write(move |connection| Box::pin(begin(connection, request, new))).await
    }

    async fn begin_poll(&self, request: AttemptRequest) -> Result<PollStart, StoreError> {
        let mut reading = self.pool.acquire().await.map_err(failed)?;
        let start = look(&mut reading, &request).await.map_err(failed)?;
        drop(reading);
        if !matches!(start, PollStart::Open(_)) {
            return Ok(start);
        }
        self.write(move |connection| Box::pin(poll(connection, request))).await
    }

    async fn set_reference(
        &self,
        challenge: ChallengeId,
        method: MfaMethod,
        delivery_id: &str,
        reference: &str,
    ) -> Result<(), StoreError> {
        let (delivery_id, reference) = (delivery_id.to_owned(), reference.to_owned());
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE mfa_deliveries SET reference = ?4 \
                     WHERE challenge = ?1 AND method = ?2 AND delivery_id = ?3",
                )
                .bind(challenge.as_bytes().to_vec())
                .bind(method.as_str())
                .bind(delivery_id)
                .bind(reference)
                .execute(connection)
                .await
                .map(|_| ())
            })
        })
        .await
    }

    async fn find_delivery(
        &self,
        challenge: ChallengeId,
        method: MfaMethod,
    ) -> Result<Option<Delivery>, StoreError> {
        let row = sqlx::query(
            "SELECT delivery_id, sealed_code, reference FROM mfa_deliveries WHERE challenge = ?1 AND method = ?2",
        )
        .bind(challenge.as_bytes().to_vec())
        .bind(method.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        let read = |row: sqlx::sqlite::SqliteRow| {
            Ok(Delivery { delivery_id: row.try_get(0)?, sealed_code: row.try_get(1)?, reference: row.try_get(2)? })
        };
        row.map(read).transpose().map_err(failed)
    }
}

async fn begin(
    connection: &mut SqliteConnection,
    request: AttemptRequest,
    new: NewDelivery,
) -> Result<DeliveryStart, sqlx::Error> {
    let (challenge, user) = match find_open(connection, &request).await? {
        Ok(open) => open,
        Err(refused) => return Ok(DeliveryStart::Refused(refused)),
    };
    if !challenge.methods.contains(&request.method) {
        return Ok(DeliveryStart::NotAllowed { allowed: challenge.methods });
    }
    if let Some(wait) = wait(connection, &request, user.id).await? {
        return Ok(DeliveryStart::TooMany { retry_after_s: wait.as_secs().max(1) });
    }
    sqlx::query(
        "INSERT INTO mfa_deliveries (challenge, method, user_id, delivery_id, sealed_code, messages, sent_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6) ON CONFLICT (challenge, method) DO UPDATE SET \
         delivery_id = excluded.delivery_id, sealed_code = excluded.sealed_code, reference = NULL, \
         messages = messages + 1, sent_at = excluded.sent_at",
    )
    .bind(challenge.id.as_bytes().to_vec())
    .bind(request.method.as_str())
    .bind(user.id.as_bytes().to_vec())
    .bind(new.delivery_id)
    .bind(new.sealed_code)
    .bind(request.now.as_millis())
    .execute(connection)
    .await?;
    Ok(DeliveryStart::Open(Box::new((challenge, user))))
}

async fn poll(connection: &mut SqliteConnection, request: AttemptRequest) -> Result<PollStart, sqlx::Error> {
    // Once more: of many at once one may ask.
    let start = look(connection, &request).await?;
    if matches!(start, PollStart::Open(_)) {
        sqlx::query("UPDATE mfa_deliveries SET polled_at = ?3 WHERE challenge = ?1 AND method = ?2")
            .bind(request.challenge.as_bytes().to_vec())
            .bind(request.method.as_str())
            .bind(request.now.as_millis())
            .execute(connection)
            .await?;
    }
    Ok(start)
}

/// Whether the channel may be asked now. Changes nothing.
async fn look(connection: &mut SqliteConnection, request: &AttemptRequest) -> Result<PollStart, sqlx::Error> {
    let (challenge, user) = match find_open(connection, request).await? {
        Ok(open) => open,
        Err(refused) => return Ok(PollStart::Refused(refused)),
    };
    let row = sqlx::query(
        "SELECT polled_at FROM mfa_deliveries WHERE challenge = ?1 AND method = ?2 AND sealed_code IS NULL",
    )
    .bind(challenge.id.as_bytes().to_vec())
    .bind(request.method.as_str())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(PollStart::NoMessage) };
    let last = row.try_get::<Option<i64>, _>(0)?.map(UnixTime::from_millis);
    let left = last.map(|last| last.plus(POLL_PAUSE).since(request.now)).unwrap_or_default();
    if !left.is_zero() {
        // Not what is left: the clock of the server that asked may run ahead of this one's.
        return Ok(PollStart::Wait { retry_after_s: POLL_PAUSE.as_secs() });
    }
    let attempt = OpenAttempt { challenge, user, factors: Vec::new(), backup_codes: Vec::new() };
    Ok(PollStart::Open(Box::new(attempt)))
}

/// How long another message has to wait; `None` when it may go.
async fn wait(
    connection: &mut SqliteConnection,
    request: &AttemptRequest,
    user: UserId,
) -> Result<Option<Duration>, sqlx::Error> {
    let now = request.now;
    let row = sqlx::query(
        "SELECT coalesce(sum(messages), 0), min(sent_at), \
         coalesce(sum(CASE WHEN challenge = ?2 THEN messages END), 0), \
         max(CASE WHEN challenge = ?2 THEN sent_at END) \
         FROM mfa_deliveries WHERE user_id = ?1 AND sent_at > ?3",
    )
    .bind(user.as_bytes().to_vec())
    .bind(request.challenge.as_bytes().to_vec())
    .bind(now.minus(MESSAGE_WINDOW).as_millis())
    .fetch_one(connection)
    .await?;
    let (of_user, of_challenge): (i64, i64) = (row.try_get(0)?, row.try_get(2)?);
    let first = row.try_get::<Option<i64>, _>(1)?.map_or(now, UnixTime::from_millis);
    if of_user >= i64::from(MESSAGES_PER_USER) || of_challenge >= i64::from(MESSAGES_PER_CHALLENGE) {
        return Ok(Some(first.plus(MESSAGE_WINDOW).since(now)));
    }
    let last = row.try_get::<Option<i64>, _>(3)?.map(UnixTime::from_millis);
    let left = last.map(|last| last.plus(MESSAGE_PAUSE).since(now)).unwrap_or_default();
    Ok((!left.is_zero()).then_some(left))
}

/// What a value counts besides itself and its key, so that a plugin cannot fill the disk with empty ones. The triggers of
/// `plugin_values` count so too.
pub const VALUE_COST_BYTES: i64 = 32;

/// What a plugin holds, but for this key.
async fn held(connection: &mut SqliteConnection, plugin: &str, key: &[u8]) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT coalesce((SELECT bytes FROM plugin_usage WHERE plugin = ?1), 0) \
         - coalesce((SELECT length(key) + length(value) + ?3 FROM plugin_values WHERE plugin = ?1 AND key = ?2), 0)",
    )
    .bind(plugin)
    .bind(key)
    .bind(VALUE_COST_BYTES)
    .fetch_one(connection)
    .await
}

impl Store {
    /// A plugin's value, unless it has expired.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn plugin_value(
        &self,
        plugin: &str,
        key: &[u8],
        now: UnixTime,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT value FROM plugin_values WHERE plugin = ?1 AND key = ?2 AND expires_at > ?3")
            .bind(plugin)
            .bind(key)
            .bind(now.as_millis())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed)?;
        row.map(|row| row.try_get(0)).transpose().map_err(failed)
    }

    /// Keeps a plugin's value until then, or removes it. `false`: with it the plugin would hold more than
    /// `limit_bytes` of keys and values, 32 bytes more for each, and it was not kept.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn set_plugin_value(
        &self,
        plugin: &str,
        key: &[u8],
        value: Option<(Vec<u8>, UnixTime)>,
        limit_bytes: u64,
        now: UnixTime,
    ) -> Result<bool, StoreError> {
        let (plugin, key) = (plugin.to_owned(), key.to_vec());
        let limit = i64::try_from(limit_bytes).unwrap_or(i64::MAX);
        self.write(move |connection| {
            Box::pin(async move {
                let Some((value, expires_at)) = value else {
                    let query = sqlx::query("DELETE FROM plugin_values WHERE plugin = ?1 AND key = ?2");
                    return query.bind(plugin).bind(key).execute(connection).await.map(|_| true);
                };
                let size = i64::try_from(key.len() + value.len()).unwrap_or(i64::MAX).saturating_add(VALUE_COST_BYTES);
                if held(connection, &plugin, &key).await?.saturating_add(size) > limit {
                    // What has expired counts until it is swept.
                    let query = sqlx::query("DELETE FROM plugin_values WHERE plugin = ?1 AND expires_at <= ?2");
                    query.bind(&plugin).bind(now.as_millis()).execute(&mut *connection).await?;
                    if held(connection, &plugin, &key).await?.saturating_add(size) > limit {
                        return Ok(false);
                    }
                }
                sqlx::query(
                    "INSERT INTO plugin_values (plugin, key, value, expires_at) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT (plugin, key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at",
                )
                .bind(plugin)
                .bind(key)
                .bind(value)
                .bind(expires_at.as_millis())
                .execute(connection)
                .await
                .map(|_| true)
            })
        })
        .await
    }
}
