//! Users as administrators see and change them.

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, SqliteExecutor};

use super::rows::{GrantRow, bytes};
use super::sessions::read_user;
use super::{Store, admin_sign_ins, audit, challenges, erase, export, failed};
use crate::admin::audit::{Author, Change};
use crate::admin::page::{Page, Paged};
use crate::admin::users::{LinkedIdentity, SessionFilter, UserAdmin, UserExport, UserFilter, UserQuery};
use crate::clock::UnixTime;
use crate::ids::{SessionId, TenantId, UserId};
use crate::mfa::ports::Factors;
use crate::session::ports::StoredSession;
use crate::signin::ports::StoreError;
use crate::signin::user::{User, UserStatus};

const USER: &str = "SELECT u.id, u.tenant, u.status, u.profile, u.created_at, \
                    (SELECT json_array(p.changed_at, p.must_change) FROM passwords p WHERE p.user_id = u.id) \
                    FROM users u";
/// Greater than every text that begins with the text before it.
const BEYOND: char = char::MAX;

#[async_trait]
impl UserAdmin for Store {
    async fn list_users(&self, filter: &UserFilter, page: &Page) -> Result<Paged<User>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(USER);
        query.push(" WHERE u.tenant = ").push_bind(filter.tenant.as_str().to_owned());
        match &filter.query {
            Some(UserQuery::Ids(least, greatest)) => {
                query.push(" AND u.id >= ").push_bind(least.as_bytes().to_vec());
                query.push(" AND u.id <= ").push_bind(greatest.as_bytes().to_vec());
            }
            Some(UserQuery::Prefix(text)) => push_prefix(&mut query, &filter.tenant, text),
            Some(UserQuery::Nobody) => return Ok(page.cut(Vec::new(), |_| Vec::new())),
            None => {}
        }
        match filter.status {
            Some(status) => query.push(" AND u.status = ").push_bind(status.as_str()),
            None => query.push(" AND u.status <> 'deleted'"),
        };
        if let Some(after) = page.after() {
            query.push(" AND u.id < ").push_bind(after.to_vec());
        }
        query.push(" ORDER BY u.id DESC LIMIT ").push_bind(page.rows_to_read());
        let rows = query.build().fetch_all(&self.pool).await.map_err(failed)?;
        let users: Vec<User> =
            rows.iter().map(|row| read_user(row, 0)).collect::<Result<_, _>>().map_err(failed)?;
        Ok(page.cut(users, |user| user.id.as_bytes().to_vec()))
    }

    async fn find_user(&self, tenant: &TenantId, user: UserId) -> Result<Option<User>, StoreError> {
        find(&self.pool, tenant, user).await.map_err(failed)
    }

    async fn identities(&self, tenant: &TenantId, user: UserId) -> Result<Vec<LinkedIdentity>, StoreError> {
        identities(&self.pool, tenant, user).await.map_err(failed)
    }

    async fn list_sessions(&self, filter: &SessionFilter, page: &Page) -> Result<Paged<StoredSession>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(
            "SELECT s.id, s.\"grant\", s.created_at, s.ends_at FROM sessions s JOIN users u ON u.id = s.user_id \
             WHERE s.ended_at IS NULL AND u.tenant = ",
        );
        query.push_bind(filter.tenant.as_str().to_owned());
        query.push(" AND (s.ends_at IS NULL OR s.ends_at > ").push_bind(filter.now.as_millis()).push(")");
        query.push(" AND (s.idle_at IS NULL OR s.idle_at > ").push_bind(filter.now.as_millis()).push(")");
        if let Some(user) = filter.user {
            query.push(" AND s.user_id = ").push_bind(user.as_bytes().to_vec());
        }
        if let Some(after) = page.after() {
            query.push(" AND s.id < ").push_bind(after.to_vec());
        }
        query.push(" ORDER BY s.id DESC LIMIT ").push_bind(page.rows_to_read());
        let rows = query.build().fetch_all(&self.pool).await.map_err(failed)?;
        let sessions: Vec<StoredSession> =
            rows.iter().map(read_session).collect::<Result<_, _>>().map_err(failed)?;
        Ok(page.cut(sessions, |session| session.id.as_bytes().to_vec()))
    }

    async fn set_status(
        &self,
        tenant: &TenantId,
        user: UserId,
        status: UserStatus,
        end_sessions: bool,
        author: Author,
    ) -> Result<Option<User>, StoreError> {
        let tenant = tenant.clone();
        self.write(move |c| Box::pin(set_status(c, tenant, user, status, end_sessions, author))).await
    }

    async fn end_session(&self, tenant: &TenantId, session: SessionId, author: Author) -> Result<bool, StoreError> {
        let tenant = tenant.clone();
        self.write(move |c| Box::pin(end_session(c, tenant, session, author))).await
    }

    async fn end_sessions(
        &self,
        tenant: &TenantId,
        user: UserId,
        author: Author,
    ) -> Result<Option<u64>, StoreError> {
        let tenant = tenant.clone();
        self.write(move |c| Box::pin(end_sessions(c, tenant, user, author))).await
    }

    async fn reset_mfa(&self, tenant: &TenantId, user: UserId, author: Author) -> Result<Option<u64>, StoreError> {
        let tenant = tenant.clone();
        self.write(move |c| Box::pin(reset_mfa(c, tenant, user, author))).await
    }

    async fn erase(&self, tenant: &TenantId, user: UserId, author: Author) -> Result<bool, StoreError> {
        let tenant = tenant.clone();
        self.write(move |c| Box::pin(erase_user(c, tenant, user, author))).await
    }

    async fn export(
        &self,
        tenant: &TenantId,
        user: UserId,
        author: Author,
    ) -> Result<Option<UserExport>, StoreError> {
        let Some(found) = self.find_user(tenant, user).await? else { return Ok(None) };
        let export = UserExport {
            identities: self.identities(tenant, user).await?,
            factors: self.factors(user).await?,
            backup_codes_left: self.backup_codes_left(user).await?,
            sessions: sessions_of(&self.pool, user, author.at).await.map_err(failed)?,
            sign_ins: admin_sign_ins::of_user(&self.pool, tenant, user).await.map_err(failed)?,
            records: export::kept_of(&self.pool, user).await.map_err(failed)?,
            user: found,
        };
        let change = Change { action: "user.export", target: user.to_string(), difference: json!({}) };
        self.write(move |c| Box::pin(async move { audit::record(c, &author, &change).await })).await?;
        Ok(Some(export))
    }
}

fn push_prefix(query: &mut QueryBuilder<Sqlite>, tenant: &TenantId, text: &str) {
    let mut part = |lead: &'static str, column: &'static str, begin: String| {
        query.push(lead).push_bind(tenant.as_str().to_owned());
        query.push(" AND ").push(column).push(" >= ").push_bind(begin.clone());
        query.push(" AND ").push(column).push(" < ").push_bind(format!("{begin}{BEYOND}"));
    };
    let (address, name) = (text.to_lowercase(), text.to_ascii_lowercase());
    part(" AND u.id IN (SELECT id FROM users WHERE tenant = ", "email_key", address);
    part(" UNION ALL SELECT id FROM users WHERE tenant = ", "lower(profile ->> 'username')", name);
    query.push(")");
}

async fn find(
    executor: impl SqliteExecutor<'_>,
    tenant: &TenantId,
    user: UserId,
) -> Result<Option<User>, sqlx::Error> {
    let mut query = QueryBuilder::<Sqlite>::new(USER);
    query.push(" WHERE u.id = ").push_bind(user.as_bytes().to_vec());
    query.push(" AND u.tenant = ").push_bind(tenant.as_str().to_owned());
    let row = query.build().fetch_optional(executor).await?;
    row.as_ref().map(|row| read_user(row, 0)).transpose()
}

async fn identities(
    executor: impl SqliteExecutor<'_>,
    tenant: &TenantId,
    user: UserId,
) -> Result<Vec<LinkedIdentity>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT provider, issuer, subject, created_at FROM identities WHERE user_id = ?1 AND tenant = ?2 \
         ORDER BY created_at, provider",
    )
    .bind(user.as_bytes().to_vec())
    .bind(tenant.as_str())
    .fetch_all(executor)
    .await?;
    let read = |row: &SqliteRow| {
        Ok(LinkedIdentity {
            provider: row.try_get(0)?,
            issuer: row.try_get(1)?,
            subject: row.try_get(2)?,
            created_at: UnixTime::from_millis(row.try_get(3)?),
        })
    };
    rows.iter().map(read).collect()
}

async fn sessions_of(
    executor: impl SqliteExecutor<'_>,
    user: UserId,
    now: UnixTime,
) -> Result<Vec<StoredSession>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, \"grant\", created_at, ends_at FROM sessions \
         WHERE user_id = ?1 AND ended_at IS NULL AND (ends_at IS NULL OR ends_at > ?2) \
         AND (idle_at IS NULL OR idle_at > ?2) ORDER BY id DESC",
    )
    .bind(user.as_bytes().to_vec())
    .bind(now.as_millis())
    .fetch_all(executor)
    .await?;
    rows.iter().map(read_session).collect()
}

fn read_session(row: &SqliteRow) -> Result<StoredSession, sqlx::Error> {
    Ok(StoredSession {
        id: SessionId::from_bytes(bytes(row.try_get(0)?)?),
        grant: GrantRow::read(row.try_get(1)?)?,
        created_at: UnixTime::from_millis(row.try_get(2)?),
        ends_at: row.try_get::<Option<i64>, _>(3)?.map(UnixTime::from_millis),
    })
}

/// A user that is there, for a change.
async fn find_present(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    user: UserId,
) -> Result<Option<User>, sqlx::Error> {
    Ok(find(connection, tenant, user).await?.filter(|user| user.status != UserStatus::Deleted))
}

async fn set_status(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    user: UserId,
    status: UserStatus,
    end: bool,
    author: Author,
) -> Result<Option<User>, sqlx::Error> {
    let Some(mut found) = find_present(connection, &tenant, user).await? else { return Ok(None) };
    sqlx::query("UPDATE users SET status = ?2 WHERE id = ?1")
        .bind(user.as_bytes().to_vec())
        .bind(status.as_str())
        .execute(&mut *connection)
        .await?;
    if status != UserStatus::Active {
        // Else it could be answered after the user is let in again.
        challenges::end_open(connection, user, None, None).await?;
    }
    let ended = if end { end_all(connection, user, author.at).await? } else { 0 };
    let before = json!({"status": found.status.as_str()});
    let mut after = json!({"status": status.as_str()});
    if ended > 0 {
        after["ended_sessions"] = ended.into();
    }
    audit::record(connection, &author, &Change::between("user.status", user.to_string(), &before, &after)).await?;
    found.status = status;
    Ok(Some(found))
}

async fn end_all(connection: &mut SqliteConnection, user: UserId, at: UnixTime) -> Result<u64, sqlx::Error> {
    let ended = sqlx::query("UPDATE sessions SET ended_at = ?2 WHERE user_id = ?1 AND ended_at IS NULL")
        .bind(user.as_bytes().to_vec())
        .bind(at.as_millis())
        .execute(&mut *connection)
        .await?;
    challenges::end_open(connection, user, None, None).await?;
    Ok(ended.rows_affected())
}

async fn end_session(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    session: SessionId,
    author: Author,
) -> Result<bool, sqlx::Error> {
    let ended = sqlx::query(
        "UPDATE sessions SET ended_at = ?2 WHERE id = ?1 AND ended_at IS NULL \
         AND (ends_at IS NULL OR ends_at > ?2) AND (idle_at IS NULL OR idle_at > ?2) \
         AND EXISTS (SELECT 1 FROM users u WHERE u.id = user_id AND u.tenant = ?3)",
    )
    .bind(session.as_bytes().to_vec())
    .bind(author.at.as_millis())
    .bind(tenant.as_str())
    .execute(&mut *connection)
    .await?;
    if ended.rows_affected() != 1 {
        return Ok(false);
    }
    let (before, after) = (json!({"ended": false}), json!({"ended": true}));
    let change = Change::between("session.end", session.to_string(), &before, &after);
    audit::record(connection, &author, &change).await?;
    Ok(true)
}

async fn end_sessions(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    user: UserId,
    author: Author,
) -> Result<Option<u64>, sqlx::Error> {
    if find_present(connection, &tenant, user).await?.is_none() {
        return Ok(None);
    }
    let ended = end_all(connection, user, author.at).await?;
    let change = Change::between("user.end_sessions", user.to_string(), &Value::Null, &json!({"ended": ended}));
    audit::record(connection, &author, &change).await?;
    Ok(Some(ended))
}

async fn reset_mfa(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    user: UserId,
    author: Author,
) -> Result<Option<u64>, sqlx::Error> {
    if find_present(connection, &tenant, user).await?.is_none() {
        return Ok(None);
    }
    let mut removed = 0;
    for statement in [
        "DELETE FROM mfa_attempts WHERE user_id = ?1",
        "DELETE FROM mfa_locks WHERE user_id = ?1",
        "DELETE FROM backup_codes WHERE user_id = ?1",
        "DELETE FROM factors WHERE user_id = ?1",
    ] {
        let done = sqlx::query(statement).bind(user.as_bytes().to_vec()).execute(&mut *connection).await?;
        removed = done.rows_affected();
    }
    let change =
        Change::between("user.reset_mfa", user.to_string(), &json!({"factors": removed}), &json!({"factors": 0}));
    audit::record(connection, &author, &change).await?;
    Ok(Some(removed))
}

async fn erase_user(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    user: UserId,
    author: Author,
) -> Result<bool, sqlx::Error> {
    let Some(found) = find_present(connection, &tenant, user).await? else { return Ok(false) };
    erase::erase(connection, user).await?;
    let (before, after) = (json!({"status": found.status.as_str()}), json!({"status": "deleted"}));
    audit::record(connection, &author, &Change::between("user.erase", user.to_string(), &before, &after)).await?;
    Ok(true)
}
