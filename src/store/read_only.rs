//! The store for commands that only look: nothing is made, migrated or written.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{ConnectOptions, SqliteConnection};
use tokio::sync::mpsc;

use super::open::{OpenError, StoreOptions, migrations, refuse_newer};
use super::{Store, failed, reader};
use crate::clock::UnixTime;
use crate::signin::ports::{ReplayGuard, StoreError};

impl Store {
    /// Opens a store that exists and whose schema is this build's. Every write fails.
    ///
    /// # Errors
    /// When the address is of another kind, the file is absent, or its schema is another.
    pub async fn open_read_only(options: &StoreOptions) -> Result<Arc<Self>, OpenError> {
        let file = options.url.strip_prefix("sqlite://").filter(|p| !p.is_empty()).ok_or(OpenError::Address)?;
        let path = file.to_owned();
        if !Path::new(file).exists() {
            return Err(OpenError::Absent { path });
        }
        let connect = SqliteConnectOptions::new()
            .filename(file)
            .read_only(true)
            .busy_timeout(Duration::from_secs(5))
            .foreign_keys(false)
            .pragma("query_only", "true")
            .disable_statement_logging();
        let database = |source| OpenError::Database { path: path.clone(), source };
        let mut reading = connect.connect().await.map_err(database)?;
        refuse_newer(&path, &mut reading).await?;
        if let Some(missing) = missing_migration(&mut reading).await {
            return Err(OpenError::Behind { path, missing });
        }
        let pool = SqlitePoolOptions::new()
            .min_connections(0)
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(connect);
        // A queue without a reader: whoever would write finds it closed.
        let (writes, _) = mpsc::channel(1);
        let (lookups, wanted) = mpsc::channel(16);
        let tasks = vec![tokio::spawn(async {}), tokio::spawn(reader::run(reading, wanted))];
        Ok(Arc::new(Self { writes, lookups, pool, tasks: tasks.into() }))
    }

    async fn was_used(&self, key: [u8; 32], now: UnixTime) -> Result<bool, StoreError> {
        sqlx::query("SELECT 1 FROM replays WHERE key = ?1 AND expires_at > ?2")
            .bind(key.to_vec())
            .bind(now.as_millis())
            .fetch_optional(&self.pool)
            .await
            .map(|row| row.is_some())
            .map_err(failed)
    }
}

/// The first migration of this build that the file lacks.
async fn missing_migration(connection: &mut SqliteConnection) -> Option<i64> {
    let applied: Vec<i64> = sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success")
        .fetch_all(connection)
        .await
        .unwrap_or_default();
    migrations().iter().map(|m| m.version).find(|version| !applied.contains(version))
}

/// Tells whether something was used before, and remembers nothing.
pub struct Peek(pub Arc<Store>);

#[async_trait]
impl ReplayGuard for Peek {
    async fn remember(&self, key: [u8; 32], _until: UnixTime, now: UnixTime) -> Result<bool, StoreError> {
        self.0.was_used(key, now).await.map(|used| !used)
    }
}
