//! Sessions and refresh tokens.

use std::sync::Arc;

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqliteExecutor, SqlitePool};

use super::batch::insert_records;
use super::rows::{GrantRow, ProfileRow, bytes, from_json, tenant};
use super::{Store, challenges, failed, unreadable, upstream};
use crate::admin::audit::Author;
use crate::clock::UnixTime;
use crate::codes::ErrorCode;
use crate::ids::{RefreshId, SessionId, TenantId, UserId};
use crate::people::passwords::PasswordState;
use crate::secret::same;
use crate::session::ports::{
    CarriedOut, ListedSession, Rotation, RotationResult, SessionUser, Sessions, StoredSession, UpstreamEnd,
};
use crate::session::{NewRefresh, NewSession};
use crate::signin::history::{ContextPrint, PastEnd};
use crate::signin::ports::StoreError;
use crate::signin::record::SignInRecord;
use crate::signin::security_events::ToldEvents;
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

    async fn find_by_refresh(
        &self,
        tenant: &TenantId,
        id: RefreshId,
        secret_hash: [u8; 32],
        now: UnixTime,
    ) -> Result<Option<(SessionUser, UnixTime)>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        let token = find_token(&mut connection, id, &secret_hash).await.map_err(failed)?;
        let Some(token) = token.filter(|t| t.used_at.is_none() && t.expires_at > now) else { return Ok(None) };
        let living = find_living(&mut *connection, token.session, now).await.map_err(failed)?;
        Ok(living.filter(|l| l.session.grant.tenant == *tenant).map(|living| (living, token.expires_at)))
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

    async fn list_sessions(&self, user: UserId, now: UnixTime) -> Result<Vec<ListedSession>, StoreError> {
        list(&self.pool, user, now).await.map_err(failed)
    }

    async fn end_session_of_user(&self, user: UserId, id: SessionId, now: UnixTime) -> Result<bool, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let ended = sqlx::query(
                    "UPDATE sessions SET ended_at = ?3 WHERE id = ?1 AND user_id = ?2 AND ended_at IS NULL \
                     AND (ends_at IS NULL OR ends_at > ?3) AND (idle_at IS NULL OR idle_at > ?3)",
                )
                .bind(id.as_bytes().to_vec())
                .bind(user.as_bytes().to_vec())
                .bind(now.as_millis())
                .execute(connection)
                .await?;
                Ok(ended.rows_affected() == 1)
            })
        })
        .await
    }

    async fn end_sessions_of_user(
        &self,
        user: UserId,
        but: Option<SessionId>,
        now: UnixTime,
    ) -> Result<u64, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let ended = sqlx::query(
                    "UPDATE sessions SET ended_at = ?3 WHERE ended_at IS NULL AND id IS NOT ?2 AND user_id = ?1 \
                     AND id IN (SELECT session_id FROM sign_ins WHERE user_id = ?1 AND session_id IS NOT NULL)",
                )
                .bind(user.as_bytes().to_vec())
                .bind(but.map(|id| id.as_bytes().to_vec()))
                .bind(now.as_millis())
                .execute(&mut *connection)
                .await?;
                challenges::end_open(connection, user, None, None).await?;
                Ok(ended.rows_affected())
            })
        })
        .await
    }

    async fn end_upstream_sessions(&self, ended: UpstreamEnd, now: UnixTime) -> Result<u64, StoreError> {
        self.write(move |connection| Box::pin(async move { end_upstream(connection, &ended, now).await })).await
    }

    async fn carry_out(
        &self,
        told: ToldEvents,
        enabled: Vec<Arc<str>>,
        author: Author,
    ) -> Result<CarriedOut, StoreError> {
        self.write(move |connection| Box::pin(upstream::carry_out(connection, told, enabled, author))).await
    }
}

/// Ends the oldest sessions of each user that has more than its limit. The new ones are recorded already.
pub(super) async fn keep_within(
    connection: &mut SqliteConnection,
    limits: &[(UserId, u32)],
    now: UnixTime,
) -> Result<(), sqlx::Error> {
    if limits.is_empty() {
        return Ok(());
    }
    let limits: Vec<(String, u32)> =
        limits.iter().map(|(user, n)| (HEXLOWER.encode(user.as_bytes()), *n)).collect();
    sqlx::query(
        "UPDATE sessions SET ended_at = ?2 WHERE id IN ( \
             SELECT id FROM ( \
                 SELECT s.id, l.most, row_number() OVER (PARTITION BY s.user_id ORDER BY s.id DESC) AS place \
                 FROM (SELECT unhex(value ->> 0) AS user, min(value ->> 1) AS most FROM jsonb_each(?1) GROUP BY 1) l \
                 JOIN sessions s ON s.user_id = l.user AND s.id IN \
                     (SELECT session_id FROM sign_ins i WHERE i.user_id = l.user AND i.session_id IS NOT NULL) \
                 WHERE s.ended_at IS NULL AND (s.ends_at IS NULL OR s.ends_at > ?2) \
                     AND (s.idle_at IS NULL OR s.idle_at > ?2)) \
             WHERE place > most)",
    )
    .bind(serde_json::to_string(&limits).map_err(|e| sqlx::Error::Encode(Box::new(e)))?)
    .bind(now.as_millis())
    .execute(connection)
    .await
    .map(|_| ())
}

async fn list(pool: &SqlitePool, user: UserId, now: UnixTime) -> Result<Vec<ListedSession>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT s.id, s.\"grant\", s.created_at, s.ends_at, s.refreshed_at, s.idle_at, i.country \
         FROM sign_ins i JOIN sessions s ON s.id = i.session_id \
         WHERE i.user_id = ?1 AND i.\"end\" <= 1 AND s.user_id = ?1 AND s.ended_at IS NULL \
         AND (s.ends_at IS NULL OR s.ends_at > ?2) AND (s.idle_at IS NULL OR s.idle_at > ?2) \
         ORDER BY s.id DESC LIMIT 1000",
    )
    .bind(user.as_bytes().to_vec())
    .bind(now.as_millis())
    .fetch_all(pool)
    .await?;
    let time = |row: &SqliteRow, column: usize| -> Result<Option<UnixTime>, sqlx::Error> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(UnixTime::from_millis))
    };
    rows.iter()
        .map(|row| {
            let session = read_session(row)?;
            let (refreshed_at, idle_at) = (time(row, 4)?, time(row, 5)?);
            Ok(ListedSession { session, refreshed_at, idle_at, country: row.try_get(6)? })
        })
        .collect()
}

/// By the provider's session, which must be of the subject when one is named; else all that came from the
/// subject's identity at this provider.
pub(super) async fn end_upstream(
    connection: &mut SqliteConnection,
    ended: &UpstreamEnd,
    now: UnixTime,
) -> Result<u64, sqlx::Error> {
    let user: Option<UserId> = match &ended.subject {
        None => None,
        Some(subject) => {
            let row = sqlx::query(
                "SELECT user_id FROM identities WHERE tenant = ?1 AND provider = ?2 AND issuer = ?3 AND subject = ?4",
            )
            .bind(ended.tenant.as_str())
            .bind(&*ended.provider)
            .bind(&*ended.issuer)
            .bind(&**subject)
            .fetch_optional(&mut *connection)
            .await?;
            let Some(row) = row else { return Ok(0) };
            Some(UserId::from_bytes(bytes(row.try_get(0)?)?))
        }
    };
    match (&ended.session, user) {
        (Some(session), _) => challenges::end_upstream(connection, session, user).await?,
        (None, Some(user)) => {
            challenges::end_open(connection, user, Some(&*ended.provider), ended.begun_until).await?;
        }
        (None, None) => return Ok(0),
    }
    let user = user.map(|user| user.as_bytes().to_vec());
    let query = match &ended.session {
        Some(session) => sqlx::query(
            "UPDATE sessions SET ended_at = ?3 WHERE ended_at IS NULL AND upstream_sid = ?1 \
             AND (?2 IS NULL OR user_id = ?2) AND (?4 IS NULL OR created_at <= ?4)",
        )
        .bind(session.to_vec())
        .bind(user),
        None => sqlx::query(
            "UPDATE sessions SET ended_at = ?3 WHERE ended_at IS NULL AND user_id = ?2 \
             AND \"grant\" ->> 'provider' = ?1 \
             AND (?4 IS NULL OR created_at <= ?4) \
             AND id IN (SELECT session_id FROM sign_ins WHERE user_id = ?2 AND session_id IS NOT NULL)",
        )
        .bind(ended.provider.to_string())
        .bind(user),
    };
    let query = query.bind(now.as_millis()).bind(ended.begun_until.map(UnixTime::as_millis));
    Ok(query.execute(connection).await?.rows_affected())
}

pub(super) async fn insert(connection: &mut SqliteConnection, session: &NewSession) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO sessions (id, user_id, \"grant\", created_at, ends_at, device, idle_at, upstream_sid) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(session.id.as_bytes().to_vec())
    .bind(session.grant.user.as_bytes().to_vec())
    .bind(GrantRow::from(&session.grant).to_json()?)
    .bind(session.created_at.as_millis())
    .bind(session.ends_at.map(UnixTime::as_millis))
    .bind(session.device.map(|d| d.to_vec()))
    .bind(session.idle_at.as_millis())
    .bind(session.grant.upstream_sid.map(|sid| sid.to_vec()))
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
         WHERE s.id = ?1 AND s.ended_at IS NULL AND (s.ends_at IS NULL OR s.ends_at > ?2) \
         AND (s.idle_at IS NULL OR s.idle_at > ?2)",
    )
    .bind(id.as_bytes().to_vec())
    .bind(now.as_millis())
    .fetch_optional(executor)
    .await?;
    row.as_ref().map(read_living).transpose()
}

fn read_living(row: &SqliteRow) -> Result<SessionUser, sqlx::Error> {
    Ok(SessionUser { session: read_session(row)?, user: read_user(row, 4)? })
}

/// A session in the first columns `id, grant, created_at, ends_at`.
fn read_session(row: &SqliteRow) -> Result<StoredSession, sqlx::Error> {
    Ok(StoredSession {
        id: SessionId::from_bytes(bytes(row.try_get(0)?)?),
        grant: GrantRow::read(row.try_get(1)?)?,
        created_at: UnixTime::from_millis(row.try_get(2)?),
        ends_at: row.try_get::<Option<i64>, _>(3)?.map(UnixTime::from_millis),
    })
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
    let grant = &living.session.grant;
    let own = grant.client == rotation.client && rotation.in_force.has_client(grant);
    if grant.tenant != rotation.tenant || !own {
        return Ok(RotationResult::Invalid);
    }
    if !rotation.in_force.lets_audience(grant) {
        return Ok(RotationResult::AudienceTaken);
    }
    if grant.jkt.is_some() && grant.jkt != rotation.jkt {
        return Ok(RotationResult::KeyNotProved);
    }
    if !rotation.in_force.lets_provider_in(grant) {
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
    end(&mut *connection, session, now).await?;
    let reuse = SignInRecord {
        id: rotation.event,
        at: now,
        tenant: rotation.tenant,
        provider: living.session.grant.provider,
        user: Some(user),
        end: PastEnd::Refused,
        code: Some(ErrorCode::RefreshTokenReused.as_str().into()),
        context: ContextPrint::default(),
        assessment: None,
        session: Some(session),
    };
    insert_records(connection, std::slice::from_ref(&reuse)).await?;
    Ok(RotationResult::Reused { session, user })
}

async fn exchange(
    connection: &mut SqliteConnection,
    rotation: Rotation,
    living: SessionUser,
) -> Result<RotationResult, sqlx::Error> {
    let Rotation { id, mut successor, sealed_successor, now, access_ttl, .. } = rotation;
    let session = &living.session;
    let ends = [session.grant.caps.refresh.map(|cap| now.plus(cap)), session.ends_at];
    successor.expires_at = ends.into_iter().flatten().fold(successor.expires_at, Ord::min);
    insert_refresh(connection, session.id, &successor).await?;
    sqlx::query("UPDATE sessions SET refreshed_at = ?2, idle_at = ?3 WHERE id = ?1")
        .bind(session.id.as_bytes().to_vec())
        .bind(now.as_millis())
        .bind(successor.expires_at.max(now.plus(access_ttl)).as_millis())
        .execute(&mut *connection)
        .await?;
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
