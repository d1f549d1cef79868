//! Local passwords: hashes, their state, and the count of wrong attempts.

use async_trait::async_trait;
use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::rows::{ProfileRow, from_json};
use super::{Store, audit, challenges, failed};
use crate::admin::audit::{Author, Change};
use crate::clock::UnixTime;
use crate::ids::{SessionId, TenantId, UserId};
use crate::people::passwords::{PASSWORD_ATTEMPTS, PASSWORD_WINDOW};
use crate::people::ports::{ChangeStart, NewPassword, Passwords, StoredPassword};
use crate::signin::identity::Profile;
use crate::signin::ports::StoreError;

#[async_trait]
impl Passwords for Store {
    async fn begin_change(&self, user: UserId, now: UnixTime) -> Result<ChangeStart, StoreError> {
        self.write(move |connection| Box::pin(begin(connection, user, now))).await
    }

    async fn finish_change(
        &self,
        user: UserId,
        old: String,
        new: NewPassword,
        keep: SessionId,
    ) -> Result<bool, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let held = sqlx::query("SELECT 1 FROM passwords WHERE user_id = ?1 AND hash = ?2")
                    .bind(user.as_bytes().to_vec())
                    .bind(old)
                    .fetch_optional(&mut *connection)
                    .await?;
                if held.is_none() {
                    return Ok(false);
                }
                put(&mut *connection, user, &new).await?;
                sqlx::query("DELETE FROM password_attempts WHERE id = (SELECT max(id) FROM password_attempts WHERE user_id = ?1)")
                    .bind(user.as_bytes().to_vec())
                    .execute(&mut *connection)
                    .await?;
                end_sessions(connection, user, Some(keep), new.state.changed_at).await?;
                Ok(true)
            })
        })
        .await
    }

    async fn find_password(
        &self,
        tenant: &TenantId,
        user: UserId,
    ) -> Result<Option<(Profile, Option<StoredPassword>)>, StoreError> {
        let row = sqlx::query(
            "SELECT p.hash, p.former, u.profile FROM users u LEFT JOIN passwords p ON p.user_id = u.id \
             WHERE u.id = ?1 AND u.tenant = ?2 AND u.status <> 'deleted'",
        )
        .bind(user.as_bytes().to_vec())
        .bind(tenant.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let read = || {
            let profile: ProfileRow = from_json(row.try_get(2)?)?;
            let password = match row.try_get::<Option<&str>, _>(0)? {
                Some(_) => Some(read(&row)?),
                None => None,
            };
            Ok((profile.into(), password))
        };
        read().map(Some).map_err(failed)
    }

    async fn set_password(
        &self,
        tenant: &TenantId,
        user: UserId,
        new: NewPassword,
        author: Author,
    ) -> Result<bool, StoreError> {
        let tenant = tenant.clone();
        self.write(move |connection| {
            Box::pin(async move {
                let Some(before) = audited(connection, &tenant, user).await? else { return Ok(false) };
                put(&mut *connection, user, &new).await?;
                end_sessions(&mut *connection, user, None, new.state.changed_at).await?;
                let after = json!({
                    "changed_at": new.state.changed_at.to_rfc3339(),
                    "must_change": new.state.must_change,
                });
                let change = Change::between("user.password_set", user.to_string(), &before, &after);
                audit::record(connection, &author, &change).await?;
                Ok(true)
            })
        })
        .await
    }

    async fn remove_password(&self, tenant: &TenantId, user: UserId, author: Author) -> Result<bool, StoreError> {
        let tenant = tenant.clone();
        self.write(move |connection| {
            Box::pin(async move {
                let Some(before) = audited(connection, &tenant, user).await? else { return Ok(false) };
                let removed = sqlx::query("DELETE FROM passwords WHERE user_id = ?1")
                    .bind(user.as_bytes().to_vec())
                    .execute(&mut *connection)
                    .await?;
                if removed.rows_affected() == 0 {
                    return Ok(false);
                }
                let gone = serde_json::Value::Null;
                let change = Change::between("user.password_remove", user.to_string(), &before, &gone);
                audit::record(connection, &author, &change).await?;
                Ok(true)
            })
        })
        .await
    }
}

fn read(row: &SqliteRow) -> Result<StoredPassword, sqlx::Error> {
    Ok(StoredPassword { hash: row.try_get(0)?, former: from_json(row.try_get(1)?)? })
}

async fn begin(connection: &mut SqliteConnection, user: UserId, now: UnixTime) -> Result<ChangeStart, sqlx::Error> {
    let row = sqlx::query("SELECT hash, former FROM passwords WHERE user_id = ?1")
        .bind(user.as_bytes().to_vec())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(ChangeStart::NoPassword) };
    let recent = sqlx::query("SELECT count(*), min(at) FROM password_attempts WHERE user_id = ?1 AND at > ?2")
        .bind(user.as_bytes().to_vec())
        .bind(now.minus(PASSWORD_WINDOW).as_millis())
        .fetch_one(&mut *connection)
        .await?;
    if recent.try_get::<i64, _>(0)? >= i64::from(PASSWORD_ATTEMPTS) {
        let ends = UnixTime::from_millis(recent.try_get::<Option<i64>, _>(1)?.unwrap_or(0)).plus(PASSWORD_WINDOW);
        return Ok(ChangeStart::Locked { retry_after_s: ends.since(now).as_millis().div_ceil(1000).max(1) as u64 });
    }
    sqlx::query("INSERT INTO password_attempts (user_id, at) VALUES (?1, ?2)")
        .bind(user.as_bytes().to_vec())
        .bind(now.as_millis())
        .execute(connection)
        .await?;
    Ok(ChangeStart::Open(read(&row)?))
}

async fn put(connection: &mut SqliteConnection, user: UserId, new: &NewPassword) -> Result<(), sqlx::Error> {
    let former = serde_json::to_string(&new.former).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
    sqlx::query(
        "INSERT INTO passwords (user_id, hash, former, changed_at, must_change) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, former = excluded.former, \
         changed_at = excluded.changed_at, must_change = excluded.must_change",
    )
    .bind(user.as_bytes().to_vec())
    .bind(&new.hash)
    .bind(former)
    .bind(new.state.changed_at.as_millis())
    .bind(new.state.must_change)
    .execute(connection)
    .await
    .map(|_| ())
}

/// What the audit log holds of a user's password: never a hash. `None`: there is no such user.
async fn audited(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    user: UserId,
) -> Result<Option<serde_json::Value>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT p.changed_at, p.must_change FROM users u LEFT JOIN passwords p ON p.user_id = u.id \
         WHERE u.id = ?1 AND u.tenant = ?2 AND u.status <> 'deleted'",
    )
    .bind(user.as_bytes().to_vec())
    .bind(tenant.as_str())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(match row.try_get::<Option<i64>, _>(0)? {
        Some(at) => json!({
            "changed_at": UnixTime::from_millis(at).to_rfc3339(),
            "must_change": row.try_get::<bool, _>(1)?,
        }),
        None => serde_json::Value::Null,
    }))
}

async fn end_sessions(
    connection: &mut SqliteConnection,
    user: UserId,
    keep: Option<SessionId>,
    now: UnixTime,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE sessions SET ended_at = ?2 WHERE user_id = ?1 AND ended_at IS NULL AND (?3 IS NULL OR id <> ?3)",
    )
    .bind(user.as_bytes().to_vec())
    .bind(now.as_millis())
    .bind(keep.map(|id| id.as_bytes().to_vec()))
    .execute(&mut *connection)
    .await?;
    challenges::end_open(connection, user, None, None).await
}
