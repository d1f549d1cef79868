//! Signing keys, sealed.

use async_trait::async_trait;
use sqlx::Row;

use super::rows::bytes;
use super::{Store, failed};
use crate::clock::UnixTime;
use crate::ids::KeyId;
use crate::session::ports::{SigningKeys, StoredSigningKey};
use crate::signin::ports::StoreError;

#[async_trait]
impl SigningKeys for Store {
    async fn load(&self) -> Result<Vec<StoredSigningKey>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, algorithm, sealed, created_at, active_from FROM signing_keys ORDER BY active_from, id",
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
        self.write(move |connection| {
            Box::pin(async move {
                let added = sqlx::query(
                    "INSERT INTO signing_keys (id, algorithm, sealed, created_at, active_from) \
                     SELECT ?1, ?2, ?3, ?4, ?5 \
                     WHERE (SELECT id FROM signing_keys ORDER BY active_from DESC, id DESC LIMIT 1) IS ?6",
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
            })
        })
        .await
    }

    async fn set_active_from(&self, key: KeyId, at: UnixTime) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE signing_keys SET active_from = ?2 WHERE id = ?1")
                    .bind(key.as_bytes().to_vec())
                    .bind(at.as_millis())
                    .execute(connection)
                    .await
                    .map(|_| ())
            })
        })
        .await
    }

    async fn remove(&self, keys: Vec<KeyId>) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                for key in keys {
                    sqlx::query("DELETE FROM signing_keys WHERE id = ?1")
                        .bind(key.as_bytes().to_vec())
                        .execute(&mut *connection)
                        .await?;
                }
                Ok(())
            })
        })
        .await
    }
}
