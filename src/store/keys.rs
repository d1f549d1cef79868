//! Signing keys, sealed.

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};

use super::rows::bytes;
use super::{Store, audit, failed};
use crate::admin::audit::{Author, Change};
use crate::clock::UnixTime;
use crate::ids::KeyId;
use crate::session::ports::{KeyReplacement, SigningKeys, StoredSigningKey, Successor};
use crate::signin::ports::StoreError;

#[async_trait]
impl SigningKeys for Store {
    async fn load(&self) -> Result<Vec<StoredSigningKey>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, algorithm, sealed, created_at, active_from FROM signing_keys ORDER BY active_from, seq",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<StoredSigningKey, sqlx::Error> {
            Ok(StoredSigningKey {
                id: KeyId::from_bytes(bytes(row.try_get(0)?)?),
                algorithm: row.try_get(1)?,
                sealed: row.try_get(2)?,
                created_at: UnixTime::from_millis(row.try_get(3)?),
                active_from: UnixTime::from_millis(row.try_get(4)?),
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
    }

    async fn add_after(&self, newest: Option<KeyId>, key: StoredSigningKey) -> Result<bool, StoreError> {
        self.write(move |connection| Box::pin(add_after(connection, newest, key))).await
    }

    async fn replace(
        &self,
        replacement: KeyReplacement,
        author: Author,
        change: Change,
    ) -> Result<bool, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let KeyReplacement { newest, by, removed } = replacement;
                let replaced = match by {
                    Successor::New(key) => add_after(&mut *connection, newest, key).await?,
                    Successor::Waiting(key, at) => {
                        let moved = sqlx::query(
                            "UPDATE signing_keys SET active_from = ?2 WHERE id = ?1 AND ?1 = \
                             (SELECT id FROM signing_keys ORDER BY active_from DESC, seq DESC LIMIT 1)",
                        )
                        .bind(key.as_bytes().to_vec())
                        .bind(at.as_millis())
                        .execute(&mut *connection)
                        .await?;
                        moved.rows_affected() == 1
                    }
                };
                if !replaced {
                    return Ok(false);
                }
                remove(&mut *connection, &removed).await?;
                audit::record(connection, &author, &change).await?;
                Ok(true)
            })
        })
        .await
    }

    async fn remove(&self, keys: Vec<KeyId>) -> Result<(), StoreError> {
        self.write(move |connection| Box::pin(async move { remove(connection, &keys).await })).await
    }
}

async fn add_after(
    connection: &mut SqliteConnection,
    newest: Option<KeyId>,
    key: StoredSigningKey,
) -> Result<bool, sqlx::Error> {
    let added = sqlx::query(
        "INSERT INTO signing_keys (id, algorithm, sealed, created_at, active_from, seq) \
         SELECT ?1, ?2, ?3, ?4, ?5, (SELECT coalesce(max(seq), 0) + 1 FROM signing_keys) \
         WHERE (SELECT id FROM signing_keys ORDER BY active_from DESC, seq DESC LIMIT 1) IS ?6",
    )
    .bind(key.id.as_bytes().to_vec())
    .bind(key.algorithm)
    .bind(key.sealed)
    .bind(key.created_at.as_millis())
    .bind(key.active_from.as_millis())
    .bind(newest.map(|id| id.as_bytes().to_vec()))
    .execute(connection)
    .await?;
    Ok(added.rows_affected() == 1)
}

async fn remove(connection: &mut SqliteConnection, keys: &[KeyId]) -> Result<(), sqlx::Error> {
    for key in keys {
        sqlx::query("DELETE FROM signing_keys WHERE id = ?1")
            .bind(key.as_bytes().to_vec())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
