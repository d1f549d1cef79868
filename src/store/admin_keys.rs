//! Admin keys.

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::rows::{bytes, tenant};
use super::{Store, audit, failed, unreadable};
use crate::admin::access::{Role, Scope};
use crate::admin::audit::{Author, Change};
use crate::admin::keys::{AdminKey, StoredAdminKey};
use crate::admin::page::{Page, Paged};
use crate::admin::ports::AdminKeys;
use crate::clock::UnixTime;
use crate::ids::{AdminKeyId, TenantId};
use crate::signin::ports::StoreError;

const COLUMNS: &str =
    "SELECT id, tenant, role, note, created_at, expires_at, revoked_at, last_used_at, secret_hash FROM admin_keys";

#[async_trait]
impl AdminKeys for Store {
    async fn find(&self, id: AdminKeyId) -> Result<Option<StoredAdminKey>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(COLUMNS);
        query.push(" WHERE id = ").push_bind(id.as_bytes().to_vec());
        let row = query.build().fetch_optional(&self.pool).await.map_err(failed)?;
        let read = |row: &SqliteRow| Ok(StoredAdminKey { key: read(row)?, secret_hash: bytes(row.try_get(8)?)? });
        row.as_ref().map(read).transpose().map_err(failed)
    }

    async fn touch(&self, id: AdminKeyId, now: UnixTime) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE admin_keys SET last_used_at = ?2 WHERE id = ?1")
                    .bind(id.as_bytes().to_vec())
                    .bind(now.as_millis())
                    .execute(connection)
                    .await
                    .map(|_| ())
            })
        })
        .await
    }

    async fn add(&self, key: StoredAdminKey, author: Author) -> Result<(), StoreError> {
        self.write(move |connection| Box::pin(add(connection, key, author))).await
    }

    async fn list(&self, tenant: Option<&TenantId>, page: &Page) -> Result<Paged<AdminKey>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(COLUMNS);
        query.push(" WHERE true");
        if let Some(tenant) = tenant {
            query.push(" AND tenant = ").push_bind(tenant.as_str().to_owned());
        }
        if let Some(after) = page.after() {
            query.push(" AND id < ").push_bind(after.to_vec());
        }
        query.push(" ORDER BY id DESC LIMIT ").push_bind(page.rows_to_read());
        let rows = query.build().fetch_all(&self.pool).await.map_err(failed)?;
        let keys: Vec<AdminKey> = rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)?;
        Ok(page.cut(keys, |key| key.id.as_bytes().to_vec()))
    }

    async fn revoke(&self, tenant: Option<&TenantId>, id: AdminKeyId, author: Author) -> Result<bool, StoreError> {
        let tenant = tenant.cloned();
        self.write(move |connection| Box::pin(revoke(connection, tenant, id, author))).await
    }
}

async fn add(connection: &mut SqliteConnection, new: StoredAdminKey, author: Author) -> Result<(), sqlx::Error> {
    let StoredAdminKey { key, secret_hash } = new;
    let tenant = match &key.scope {
        Scope::Tenant(tenant) => Some(tenant.as_str().to_owned()),
        Scope::All => None,
    };
    sqlx::query(
        "INSERT INTO admin_keys (id, secret_hash, tenant, role, note, created_at, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .bind(key.id.as_bytes().to_vec())
    .bind(secret_hash.to_vec())
    .bind(tenant)
    .bind(key.role.as_str())
    .bind(key.note.as_str())
    .bind(key.created_at.as_millis())
    .bind(key.expires_at.map(UnixTime::as_millis))
    .execute(&mut *connection)
    .await?;
    let change = Change::between("admin_key.create", key.id.to_string(), &Value::Null, &key.audited());
    audit::record(connection, &author, &change).await
}

async fn revoke(
    connection: &mut SqliteConnection,
    tenant: Option<TenantId>,
    id: AdminKeyId,
    author: Author,
) -> Result<bool, sqlx::Error> {
    let revoked = sqlx::query(
        "UPDATE admin_keys SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL AND (?3 IS NULL OR tenant = ?3)",
    )
    .bind(id.as_bytes().to_vec())
    .bind(author.at.as_millis())
    .bind(tenant.as_ref().map(|t| t.as_str().to_owned()))
    .execute(&mut *connection)
    .await?;
    if revoked.rows_affected() != 1 {
        return Ok(false);
    }
    let (before, after) = (json!({"revoked": false}), json!({"revoked": true}));
    let change = Change::between("admin_key.revoke", id.to_string(), &before, &after);
    audit::record(connection, &author, &change).await?;
    Ok(true)
}

fn read(row: &SqliteRow) -> Result<AdminKey, sqlx::Error> {
    let time = |at: usize| row.try_get::<Option<i64>, _>(at).map(|t| t.map(UnixTime::from_millis));
    Ok(AdminKey {
        id: AdminKeyId::from_bytes(bytes(row.try_get(0)?)?),
        scope: row.try_get::<Option<&str>, _>(1)?.map(tenant).transpose()?.map_or(Scope::All, Scope::Tenant),
        role: Role::find(row.try_get(2)?).ok_or_else(|| unreadable("a role"))?,
        note: row.try_get(3)?,
        created_at: UnixTime::from_millis(row.try_get(4)?),
        expires_at: time(5)?,
        revoked_at: time(6)?,
        last_used_at: time(7)?,
    })
}
