//! Another master key: everything that is sealed is sealed anew, in one transaction, so that after a crash
//! it is all under the one key or all under the other.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::decisions::sealer_of;
use super::{Store, Trouble, failed, trouble, unreadable};
use crate::mfa::delivery::CODE_PURPOSE;
use crate::mfa::verify::TOTP_PURPOSE;
use crate::secret::Secret;
use crate::session::keys::KEY_PURPOSE;
use crate::session::refresh::SUCCESSOR_PURPOSE;
use crate::signin::ports::StoreError;
use crate::vault::{Sealer, Vault};

const KEPT_PURPOSE: &str = "kept key";

/// Where sealed values are: table, column, the column of the context, the purpose.
const SEALED: [(&str, &str, &str, &str); 5] = [
    ("signing_keys", "sealed", "id", KEY_PURPOSE),
    ("factors", "sealed_secret", "id", TOTP_PURPOSE),
    ("refresh_tokens", "sealed", "successor", SUCCESSOR_PURPOSE),
    ("mfa_deliveries", "sealed_code", "challenge", CODE_PURPOSE),
    ("kept_keys", "sealed", "name", KEPT_PURPOSE),
];

impl Store {
    /// Whether this is the master key that the store was made with; an empty store takes any.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn opens_with(&self, vault: &Vault) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT id, sealed FROM signing_keys LIMIT 1").fetch_optional(&self.pool).await;
        let Some(row) = row.map_err(failed)? else { return Ok(true) };
        let (id, sealed): (Vec<u8>, Vec<u8>) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        Ok(vault.open(KEY_PURPOSE, &id, &sealed).is_ok())
    }

    /// A key of 32 bytes that stays the same whatever master key seals the store: else every device that is
    /// known would be a new one.
    ///
    /// # Errors
    /// When the store does not answer, or the key does not open.
    pub async fn kept_key(&self, vault: &Vault, name: &str) -> Result<Secret, StoreError> {
        let row = sqlx::query("SELECT sealed FROM kept_keys WHERE name = ?1").bind(name).fetch_optional(&self.pool);
        let Some(row) = row.await.map_err(failed)? else { return Ok(vault.derive(name)) };
        let sealed: Vec<u8> = row.try_get(0).map_err(failed)?;
        let opened = vault.open(KEPT_PURPOSE, name.as_bytes(), &sealed);
        opened.map_err(|_| trouble(Trouble::Row("a kept key does not open with this master key")))
    }

    /// Seals everything under `new` instead of `old`, and keeps the keys that were derived from `old` under
    /// these names. Gives how many values there were. Nobody else may use the store meanwhile: what a server
    /// still seals under `old` would be lost.
    ///
    /// # Errors
    /// When the store does not answer, or a value does not open with `old`: then nothing was changed.
    pub async fn reseal(
        &self,
        old: Vault,
        new: Vault,
        derived: &'static [&'static str],
    ) -> Result<u64, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let mut count = 0;
                for (table, column, context, purpose) in SEALED {
                    count += reseal_column(connection, (table, column, context, purpose), &old, &new).await?;
                }
                count += reseal_decisions(connection, &old, &new).await?;
                for name in derived {
                    let sealed = new.seal(KEPT_PURPOSE, name.as_bytes(), &old.derive(name));
                    sqlx::query(
                        "INSERT INTO kept_keys (name, sealed) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING",
                    )
                    .bind(*name)
                    .bind(sealed)
                    .execute(&mut *connection)
                    .await?;
                }
                Ok(count)
            })
        })
        .await
    }
}

async fn reseal_column(
    connection: &mut SqliteConnection,
    (table, column, context, purpose): (&str, &str, &str, &str),
    old: &Vault,
    new: &Vault,
) -> Result<u64, sqlx::Error> {
    // The names are constants of this file.
    let select = format!("SELECT CAST({context} AS BLOB), {column} FROM {table} WHERE {column} IS NOT NULL");
    let update = format!("UPDATE {table} SET {column} = ?2 WHERE CAST({context} AS BLOB) = ?1 AND {column} = ?3");
    let rows = sqlx::query(AssertSqlSafe(select)).fetch_all(&mut *connection).await?;
    for row in &rows {
        let (context, sealed): (Vec<u8>, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
        let plain = old.open(purpose, &context, &sealed);
        let plain = plain.map_err(|_| unreadable("a sealed value does not open with the present master key"))?;
        sqlx::query(AssertSqlSafe(update.as_str()))
            .bind(&context)
            .bind(new.seal(purpose, &context, &plain))
            .bind(&sealed)
            .execute(&mut *connection)
            .await?;
    }
    Ok(rows.len() as u64)
}

/// Records of decisions: there may be millions, so they are read a thousand at a time.
async fn reseal_decisions(connection: &mut SqliteConnection, old: &Vault, new: &Vault) -> Result<u64, sqlx::Error> {
    let mut sealers: HashMap<String, (Sealer, Sealer)> = HashMap::new();
    let (mut last, mut count) = (i64::MIN, 0);
    loop {
        let rows =
            sqlx::query("SELECT seq, tenant, id, sealed FROM decisions WHERE seq > ?1 ORDER BY seq LIMIT 1000")
                .bind(last)
                .fetch_all(&mut *connection)
                .await?;
        let Some(newest) = rows.last() else { return Ok(count) };
        last = newest.try_get(0)?;
        for row in &rows {
            let (tenant, id): (String, Vec<u8>) = (row.try_get(1)?, row.try_get(2)?);
            let mut sealed: Vec<u8> = row.try_get(3)?;
            let pair = |tenant: &String| (sealer_of(old, tenant), sealer_of(new, tenant));
            let (before, after) = sealers.entry(tenant).or_insert_with_key(pair);
            let plain = before.open(&id, &mut sealed);
            let plain =
                plain.map_err(|_| unreadable("a decision record does not open with the present master key"))?;
            sqlx::query("UPDATE decisions SET sealed = ?2 WHERE seq = ?1")
                .bind(row.try_get::<i64, _>(0)?)
                .bind(after.seal(&id, plain.to_vec()))
                .execute(&mut *connection)
                .await?;
            count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    #[tokio::test]
    async fn every_column_that_is_named_sealed_is_sealed_anew() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("s.db").display());
        let store = Store::open(&StoreOptions { url }).await.unwrap();
        let rows = sqlx::query(
            "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c \
             WHERE m.type = 'table' AND c.name LIKE '%sealed%'",
        )
        .fetch_all(&store.pool)
        .await
        .unwrap();
        for row in rows {
            let (table, column): (String, String) = (row.get(0), row.get(1));
            let known = table == "decisions" || SEALED.iter().any(|(t, c, ..)| *t == table && *c == column);
            assert!(known, "{table}.{column} would not open after a change of the master key");
        }
    }
}
