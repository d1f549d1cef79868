//! Tenants, providers and clients of the administration API.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection, SqliteExecutor};

use super::rows::{bytes, from_json, tenant};
use super::{Store, audit, failed};
use crate::admin::audit::{Author, Change};
use crate::admin::clients::{StoredClient, WrittenClient, audited_client};
use crate::admin::directory::{
    Applied, DirectoryChange, DirectoryStore, StoredDirectory, StoredProvider, StoredTenant, TenantTerms, Times,
    audited_tenant,
};
use crate::clock::UnixTime;
use crate::ids::TenantId;
use crate::session::SessionLimits;
use crate::signin::ports::StoreError;

#[async_trait]
impl DirectoryStore for Store {
    async fn version(&self) -> Result<i64, StoreError> {
        version(&self.pool).await.map_err(failed)
    }

    async fn load(&self) -> Result<StoredDirectory, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        load(&mut connection).await.map_err(failed)
    }

    async fn apply(&self, version: i64, change: DirectoryChange, author: Author) -> Result<Applied, StoreError> {
        self.write(move |connection| Box::pin(apply(connection, version, change, author))).await
    }
}

async fn version(executor: impl SqliteExecutor<'_>) -> Result<i64, sqlx::Error> {
    sqlx::query("SELECT version FROM directory_version").fetch_one(executor).await?.try_get(0)
}

/// In one read transaction, so that all tables are of one version.
async fn load(connection: &mut SqliteConnection) -> Result<StoredDirectory, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let version = version(&mut *transaction).await?;
    let tenants = sqlx::query(
        "SELECT id, created_at, updated_at, hosts, session_idle_s, session_ttl_s, max_sessions FROM tenants \
         ORDER BY id",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let providers = sqlx::query(
        "SELECT tenant, name, settings, created_at, updated_at, generation FROM providers ORDER BY tenant, name",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let clients = sqlx::query(
        "SELECT tenant, id, settings, created_at, updated_at, generation, secret_hashes FROM clients \
         ORDER BY tenant, id",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let off = sqlx::query("SELECT tenant, name FROM providers_off").fetch_all(&mut *transaction).await?;
    transaction.rollback().await?;
    let read_tenant = |row: &SqliteRow| -> Result<StoredTenant, sqlx::Error> {
        Ok(StoredTenant { id: tenant(row.try_get(0)?)?, terms: terms(row, 3)?, times: times(row, 1)? })
    };
    let read_provider = |row: &SqliteRow| -> Result<StoredProvider, sqlx::Error> {
        Ok(StoredProvider {
            tenant: tenant(row.try_get(0)?)?,
            name: row.try_get(1)?,
            settings: from_json(row.try_get(2)?)?,
            generation: row.try_get(5)?,
            times: times(row, 3)?,
        })
    };
    let read_client = |row: &SqliteRow| -> Result<StoredClient, sqlx::Error> {
        Ok(StoredClient {
            tenant: tenant(row.try_get(0)?)?,
            id: row.try_get(1)?,
            settings: from_json(row.try_get(2)?)?,
            secret_hashes: secret_hashes(row.try_get(6)?)?,
            generation: row.try_get(5)?,
            times: times(row, 3)?,
        })
    };
    let read_off = |row: &SqliteRow| -> Result<(TenantId, String), sqlx::Error> {
        Ok((tenant(row.try_get(0)?)?, row.try_get(1)?))
    };
    Ok(StoredDirectory {
        version,
        tenants: tenants.iter().map(read_tenant).collect::<Result<_, _>>()?,
        providers: providers.iter().map(read_provider).collect::<Result<_, _>>()?,
        switched_off: off.iter().map(read_off).collect::<Result<_, _>>()?,
        clients: clients.iter().map(read_client).collect::<Result<_, _>>()?,
    })
}

fn times(row: &SqliteRow, from: usize) -> Result<Times, sqlx::Error> {
    Ok(Times {
        created_at: UnixTime::from_millis(row.try_get(from)?),
        updated_at: UnixTime::from_millis(row.try_get(from + 1)?),
    })
}

fn terms(row: &SqliteRow, from: usize) -> Result<TenantTerms, sqlx::Error> {
    let duration = |column: usize| -> Result<Option<Duration>, sqlx::Error> {
        let seconds: Option<i64> = row.try_get(column)?;
        Ok(seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs))
    };
    let sessions = SessionLimits {
        idle: duration(from + 1)?,
        absolute: duration(from + 2)?,
        per_user: row.try_get(from + 3)?,
    };
    Ok(TenantTerms { hosts: from_json(row.try_get(from)?)?, sessions })
}

async fn apply(
    connection: &mut SqliteConnection,
    judged_by: i64,
    change: DirectoryChange,
    author: Author,
) -> Result<Applied, sqlx::Error> {
    if version(&mut *connection).await? != judged_by {
        return Ok(Applied::Outdated);
    }
    let audited = match change {
        DirectoryChange::PutTenant { id, terms } => put_tenant(connection, &id, &terms, &author).await?,
        DirectoryChange::DeleteTenant(id) => match delete_tenant(connection, &id).await? {
            Some(audited) => audited,
            None => return Ok(Applied::HasUsers),
        },
        DirectoryChange::PutProvider { tenant, name, settings } => {
            put_provider(connection, &tenant, &name, &settings, &author, judged_by + 1).await?
        }
        DirectoryChange::DeleteProvider { tenant, name } => {
            let before = find_provider(connection, &tenant, &name).await?;
            sqlx::query("DELETE FROM providers WHERE tenant = ?1 AND name = ?2")
                .bind(tenant.as_str())
                .bind(name.as_str())
                .execute(&mut *connection)
                .await?;
            Change::between("provider.delete", name, &before, &Value::Null)
        }
        DirectoryChange::Switch { tenant, name, off } => {
            switch(connection, &tenant, &name, off, author.at).await?;
            let action = if off { "provider.disable" } else { "provider.enable" };
            Change::between(action, name, &json!({"enabled": off}), &json!({"enabled": !off}))
        }
        DirectoryChange::PutClient { tenant, id, written } => {
            put_client(connection, &tenant, &id, written, &author, judged_by + 1).await?
        }
        DirectoryChange::DeleteClient { tenant, id } => {
            let before = find_client(connection, &tenant, &id).await?;
            sqlx::query("DELETE FROM clients WHERE tenant = ?1 AND id = ?2")
                .bind(tenant.as_str())
                .bind(id.as_str())
                .execute(&mut *connection)
                .await?;
            Change::between("client.delete", id, &before, &Value::Null)
        }
    };
    sqlx::query("UPDATE directory_version SET version = version + 1").execute(&mut *connection).await?;
    audit::record(connection, &author, &audited).await?;
    Ok(Applied::Done)
}

async fn put_tenant(
    connection: &mut SqliteConnection,
    id: &TenantId,
    new: &TenantTerms,
    author: &Author,
) -> Result<Change, sqlx::Error> {
    let row = sqlx::query("SELECT hosts, session_idle_s, session_ttl_s, max_sessions FROM tenants WHERE id = ?1")
        .bind(id.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let before = row.map(|row| terms(&row, 0)).transpose()?;
    let seconds = |limit: Option<Duration>| limit.and_then(|duration| i64::try_from(duration.as_secs()).ok());
    sqlx::query(
        "INSERT INTO tenants (id, hosts, created_at, updated_at, session_idle_s, session_ttl_s, max_sessions) \
         VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6) \
         ON CONFLICT (id) DO UPDATE SET hosts = excluded.hosts, updated_at = excluded.updated_at, \
         session_idle_s = excluded.session_idle_s, session_ttl_s = excluded.session_ttl_s, \
         max_sessions = excluded.max_sessions",
    )
    .bind(id.as_str())
    .bind(json!(new.hosts).to_string())
    .bind(author.at.as_millis())
    .bind(seconds(new.sessions.idle))
    .bind(seconds(new.sessions.absolute))
    .bind(new.sessions.per_user)
    .execute(connection)
    .await?;
    let action = if before.is_some() { "tenant.update" } else { "tenant.create" };
    let before = before.map_or(Value::Null, |terms| audited_tenant(&terms));
    Ok(Change::between(action, id.as_str(), &before, &audited_tenant(new)))
}

/// `None` when it has users.
async fn delete_tenant(connection: &mut SqliteConnection, id: &TenantId) -> Result<Option<Change>, sqlx::Error> {
    let row = sqlx::query("SELECT 1 FROM users WHERE tenant = ?1 AND status <> 'deleted' LIMIT 1")
        .bind(id.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    if row.is_some() {
        return Ok(None);
    }
    sqlx::query("DELETE FROM tenants WHERE id = ?1").bind(id.as_str()).execute(connection).await?;
    Ok(Some(Change::between("tenant.delete", id.as_str(), &json!({"exists": true}), &json!({"exists": false}))))
}

async fn find_provider(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    name: &str,
) -> Result<Value, sqlx::Error> {
    let row = sqlx::query("SELECT settings FROM providers WHERE tenant = ?1 AND name = ?2")
        .bind(tenant.as_str())
        .bind(name)
        .fetch_optional(connection)
        .await?;
    row.map_or(Ok(Value::Null), |row| from_json(row.try_get(0)?))
}

/// The generation of a new one is the version of the directory that it comes with: versions never come again.
async fn put_provider(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    name: &str,
    settings: &Map<String, Value>,
    author: &Author,
    generation: i64,
) -> Result<Change, sqlx::Error> {
    let before = find_provider(connection, tenant, name).await?;
    let after = Value::Object(settings.clone());
    sqlx::query(
        "INSERT INTO providers (tenant, name, settings, created_at, updated_at, generation) \
         VALUES (?1, ?2, ?3, ?4, ?4, ?5) \
         ON CONFLICT (tenant, name) DO UPDATE SET settings = excluded.settings, updated_at = excluded.updated_at",
    )
    .bind(tenant.as_str())
    .bind(name)
    .bind(after.to_string())
    .bind(author.at.as_millis())
    .bind(generation)
    .execute(connection)
    .await?;
    let action = if before.is_null() { "provider.create" } else { "provider.update" };
    Ok(Change::between(action, name, &before, &after))
}

/// What the audit log holds of a client before a change.
async fn find_client(connection: &mut SqliteConnection, tenant: &TenantId, id: &str) -> Result<Value, sqlx::Error> {
    let row = sqlx::query("SELECT settings, secret_hashes FROM clients WHERE tenant = ?1 AND id = ?2")
        .bind(tenant.as_str())
        .bind(id)
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(Value::Null) };
    Ok(audited_client(&from_json(row.try_get(0)?)?, secret_hashes(row.try_get(1)?)?.len()))
}

async fn put_client(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    id: &str,
    written: WrittenClient,
    author: &Author,
    generation: i64,
) -> Result<Change, sqlx::Error> {
    let WrittenClient { settings, secret_hashes, action } = written;
    let before = find_client(connection, tenant, id).await?;
    let after = audited_client(&settings, secret_hashes.len());
    sqlx::query(
        "INSERT INTO clients (tenant, id, settings, secret_hashes, created_at, updated_at, generation) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6) \
         ON CONFLICT (tenant, id) DO UPDATE SET settings = excluded.settings, \
         secret_hashes = excluded.secret_hashes, updated_at = excluded.updated_at",
    )
    .bind(tenant.as_str())
    .bind(id)
    .bind(Value::Object(settings).to_string())
    .bind(secret_hashes.concat())
    .bind(author.at.as_millis())
    .bind(generation)
    .execute(connection)
    .await?;
    Ok(Change::between(action, id, &before, &after))
}

/// Hashes stand one after the other, 32 bytes each.
fn secret_hashes(stored: &[u8]) -> Result<Vec<[u8; 32]>, sqlx::Error> {
    stored.chunks(32).map(bytes).collect()
}

async fn switch(
    connection: &mut SqliteConnection,
    tenant: &TenantId,
    name: &str,
    off: bool,
    at: UnixTime,
) -> Result<(), sqlx::Error> {
    let query = if off {
        sqlx::query("INSERT INTO providers_off (tenant, name, at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")
    } else {
        sqlx::query("DELETE FROM providers_off WHERE tenant = ?1 AND name = ?2 AND ?3 > 0")
    };
    query.bind(tenant.as_str()).bind(name).bind(at.as_millis()).execute(connection).await.map(|_| ())
}
