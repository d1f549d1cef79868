//! Sessions and refresh tokens.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqliteExecutor};

use super::rows::{GrantRow, ProfileRow, bytes, from_json, tenant};
use super::{Store, failed, unreadable};
use crate::clock::UnixTime;
use crate::ids::{RefreshId, SessionId, TenantId, UserId};
use crate::people::passwords::PasswordState;
use crate::secret::same;
use crate::session::ports::{Rotation, RotationResult, SessionUser, Sessions, StoredSession};
use crate::session::{NewRefresh, NewSession};
use crate::signin::ports::StoreError;
use crate::signin::user::{User, UserStatus};

#[async_trait]
impl Sessions for Store {
    async fn find_session(&self, id: SessionId, now: UnixTime) -> Result<Option<SessionUser>, StoreError> {
        find_living(&self.pool, id, now).await.map_err(failed)
    }

    async fn rotate(&self, rotation: Rotation) -> Result<RotationResult, StoreError> {
        self.write(move |connection| Box::pin(rotate(connection, rotation))).await
    }

    async fn end_session(&self, id: SessionId, now: UnixTime) -> Result<bool, StoreError> {
        self.write(move |connection| Box::pin(end(connection, id, now))).await
    }

    async fn end_session_of(
        &self,
        tenant: &TenantId,
        id: RefreshId,
        secret_hash: [u8; 32],
        now: UnixTime,
    ) -> Result<bool, StoreError> {
        let tenant = tenant.clone();
        self.write(move |connection| {
            Box::pin(async move {
                let Some(token) = find_token(connection, id, &secret_hash).await? else { return Ok(false) };
                match find_living(&mut *connection, token.session, now).await? {
                    Some(living) if living.session.grant.tenant == tenant => {
                        end(connection, token.session, now).await
                    }
                    _ => Ok(false),
                }
            })
        })
        .await
    }
}

pub(super) async fn insert(connection: &mut SqliteConnection, session: &NewSession) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO sessions (id, user_id, \"grant\", created_at, ends_at, device) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(session.id.as_bytes().to_vec())
    .bind(session.grant.user.as_bytes().to_vec())
    .bind(GrantRow::from(&session.grant).to_json()?)
    .bind(session.created_at.as_millis())
    .bind(session.ends_at.map(UnixTime::as_millis))
    .bind(session.device.map(|d| d.to_vec()))
    .execute(&mut *connection)
    .await?;
    match &session.refresh {
        Some(refresh) => insert_refresh(connection, session.id, refresh).await,
        None => Ok(()),
    }
}

async fn insert_refresh(
    connection: &mut SqliteConnection,
    session: SessionId,
    refresh: &NewRefresh,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO refresh_tokens (id, session_id, secret_hash, expires_at) VALUES (?1, ?2, ?3, ?4)")
        .bind(refresh.id.as_bytes().to_vec())
        .bind(session.as_bytes().to_vec())
        .bind(refresh.secret_hash.to_vec())
        .bind(refresh.expires_at.as_millis())
        .execute(connection)
        .await
        .map(|_| ())
}

async fn find_living(
    executor: impl SqliteExecutor<'_>,
    id: SessionId,
    now: UnixTime,
) -> Result<Option<SessionUser>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT s.id, s.\"grant\", s.created_at, s.ends_at, u.id, u.tenant, u.status, u.profile, u.created_at, \
         (SELECT json_array(p.changed_at, p.must_change) FROM passwords p WHERE p.user_id = u.id) \
         FROM sessions s JOIN users u ON u.id = s.user_id \
         WHERE s.id = ?1 AND s.ended_at IS NULL AND (s.ends_at IS NULL OR s.ends_at > ?2)",
    )
    .bind(id.as_bytes().to_vec())
    .bind(now.as_millis())
    .fetch_optional(executor)
    .await?;
    row.as_ref().map(read_living).transpose()
}

fn read_living(row: &SqliteRow) -> Result<SessionUser, sqlx::Error> {
    let session = StoredSession {
        id: SessionId::from_bytes(bytes(row.try_get(0)?)?),
        grant: GrantRow::read(row.try_get(1)?)?,
        created_at: UnixTime::from_millis(row.try_get(2)?),
        ends_at: row.try_get::<Option<i64>, _>(3)?.map(UnixTime::from_millis),
    };
    Ok(SessionUser { session, user: read_user(row, 4)? })
}

/// A user in the columns `id, tenant, status, profile, created_at, [changed_at, must_change]` from this one on;
/// the last is the state of its password, or NULL.
pub(super) fn read_user(row: &SqliteRow, from: usize) -> Result<User, sqlx::Error> {
    let profile: ProfileRow = from_json(row.try_get(from + 3)?)?;
    Ok(User {
        id: UserId::from_bytes(bytes(row.try_get(from)?)?),
        tenant: tenant(row.try_get(from + 1)?)?,
        status: UserStatus::find(row.try_get(from + 2)?).ok_or_else(|| unreadable("a user status"))?,
        profile: profile.into(),
        created_at: UnixTime::from_millis(row.try_get(from + 4)?),
        password: read_password(row.try_get(from + 5)?)?,
    })
}

pub(super) fn read_password(stored: Option<&str>) -> Result<Option<PasswordState>, sqlx::Error> {
    let Some(stored) = stored else { return Ok(None) };
    let (changed_at, must_change): (i64, u8) = from_json(stored)?;
    Ok(Some(PasswordState { changed_at: UnixTime::from_millis(changed_at), must_change: must_change != 0 }))
}

async fn end(connection: &mut SqliteConnection, id: SessionId, now: UnixTime) -> Result<bool, sqlx::Error> {
    let ended = sqlx::query("UPDATE sessions SET ended_at = ?2 WHERE id = ?1 AND ended_at IS NULL")
        .bind(id.as_bytes().to_vec())
        .bind(now.as_millis())
        .execute(connection)
        .await?;
    Ok(ended.rows_affected() == 1)
}

struct Token {
    session: SessionId,
    expires_at: UnixTime,
    used_at: Option<UnixTime>,
    successor: Option<RefreshId>,
    sealed: Option<Vec<u8>>,
}

/// A token whose secret fits, compared in constant time.
async fn find_token(
    connection: &mut SqliteConnection,
    id: RefreshId,
    secret_hash: &[u8; 32],
) -> Result<Option<Token>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT session_id, secret_hash, expires_at, used_at, successor, sealed FROM refresh_tokens WHERE id = ?1",
    )
    .bind(id.as_bytes().to_vec())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if !same(row.try_get(1)?, secret_hash) {
        return Ok(None);
    }
    let successor: Option<Vec<u8>> = row.try_get(4)?;
    Ok(Some(Token {
        session: SessionId::from_bytes(bytes(row.try_get(0)?)?),
        expires_at: UnixTime::from_millis(row.try_get(2)?),
        used_at: row.try_get::<Option<i64>, _>(3)?.map(UnixTime::from_millis),
        successor: successor.map(|s| bytes(&s).map(RefreshId::from_bytes)).transpose()?,
        sealed: row.try_get(5)?,
    }))
}

async fn rotate(connection: &mut SqliteConnection, rotation: Rotation) -> Result<RotationResult, sqlx::Error> {
    let now = rotation.now;
    let Some(token) = find_token(connection, rotation.id, &rotation.secret_hash).await? else {
        return Ok(RotationResult::Invalid);
    };
    let Some(living) = find_living(&mut *connection, token.session, now).await? else {
        return Ok(RotationResult::Invalid);
    };
    if living.session.grant.tenant != rotation.tenant {
        return Ok(RotationResult::Invalid);
    }
    if !rotation.enabled_providers.contains(&living.session.grant.provider) {
        return Ok(RotationResult::ProviderDisabled);
    }
    if living.user.status != UserStatus::Active {
        end(connection, token.session, now).await?;
        return Ok(RotationResult::UserInactive);
    }
    let Some(used_at) = token.used_at else {
        if token.expires_at <= now {
            return Ok(RotationResult::Invalid);
        }
        return exchange(connection, rotation, living).await;
    };
    if now < used_at.plus(rotation.grace)
        && let (Some(successor), Some(sealed_successor)) = (token.successor, token.sealed)
        && is_unused(connection, successor).await?
    {
        return Ok(RotationResult::Repeated { session: Box::new(living), successor, sealed_successor });
    }
    let (session, user) = (token.session, living.user.id);
    end(connection, session, now).await?;
    Ok(RotationResult::Reused { session, user })
}

async fn exchange(
    connection: &mut SqliteConnection,
    rotation: Rotation,
    living: SessionUser,
) -> Result<RotationResult, sqlx::Error> {
    let Rotation { id, mut successor, sealed_successor, now, .. } = rotation;
    let session = &living.session;
    let ends = [session.grant.caps.refresh.map(|cap| now.plus(cap)), session.ends_at];
    successor.expires_at = ends.into_iter().flatten().fold(successor.expires_at, Ord::min);
    insert_refresh(connection, session.id, &successor).await?;
    sqlx::query("UPDATE refresh_tokens SET used_at = ?2, successor = ?3, sealed = ?4 WHERE id = ?1")
        .bind(id.as_bytes().to_vec())
        .bind(now.as_millis())
        .bind(successor.id.as_bytes().to_vec())
        .bind(sealed_successor)
        .execute(connection)
        .await?;
    Ok(RotationResult::Rotated(Box::new(living)))
}

async fn is_unused(connection: &mut SqliteConnection, id: RefreshId) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT 1 FROM refresh_tokens WHERE id = ?1 AND used_at IS NULL")
        .bind(id.as_bytes().to_vec())
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}
