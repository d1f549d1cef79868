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
        let rows = sqlx::query("SELECT id, algorithm, sealed, created_at FROM signing_keys ORDER BY id")
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<StoredSigningKey, sqlx::Error> {
            Ok(StoredSigningKey {
                id: KeyId::from_bytes(bytes(row.try_get(0)?)?),
                algorithm: row.try_get(1)?,
                sealed: row.try_get(2)?,
                created_at: UnixTime::from_millis(row.try_get(3)?),
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
    }

    async fn add_first(&self, key: StoredSigningKey) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO signing_keys (id, algorithm, sealed, created_at) SELECT ?1, ?2, ?3, ?4 \
                     WHERE NOT EXISTS (SELECT 1 FROM signing_keys WHERE algorithm = ?2)",
                )
                .bind(key.id.as_bytes().to_vec())
                .bind(key.algorithm)
                .bind(key.sealed)
                .bind(key.created_at.as_millis())
                .execute(connection)
                .await
                .map(|_| ())
            })
        })
        .await
    }
}
