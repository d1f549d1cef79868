//! Opening: the address, the file, the settings of each connection, the schema.

use std::fmt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Row, SqliteConnection, SqlitePool};

/// Where the store is.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// `sqlite://path`, relative to the working directory or absolute.
    pub url: String,
}

/// Why the store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is of another kind.
    #[error("the address must be sqlite://PATH; PostgreSQL is not supported by this build yet")]
    Address,
    /// The file or its folder cannot be made.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The database does not open.
    #[error("{path}: {source}")]
    Database {
        /// Which.
        path: String,
        /// Why.
        source: sqlx::Error,
    },
    /// There is no file, and none was to be made.
    #[error("{path}: there is no store yet; start the server or run `countersign migrate`")]
    Absent {
        /// Which.
        path: String,
    },
    /// The schema is older than this build.
    #[error("{path}: the schema lacks version {missing}; run `countersign migrate`")]
    Behind {
        /// Which.
        path: String,
        /// The first version that is missing.
        missing: i64,
    },
    /// The schema is newer than this build.
    #[error(
        "{path}: a newer build has used it, its schema has version {version} and this build's {known}; run the newer \
         build, or restore a backup from before it"
    )]
    Ahead {
        /// Which.
        path: String,
        /// The last version that was applied.
        version: i64,
        /// The last version of this build.
        known: i64,
    },
    /// The schema is not one that this build can use.
    #[error("{path}: the schema cannot be brought up to date: {source}")]
    Migrate {
        /// Which.
        path: String,
        /// Why.
        source: MigrateError,
    },
}

/// What a migration found and did.
#[derive(Debug, Clone)]
pub struct MigrationReport {
    /// Versions that were applied now.
    pub applied: i64,
    /// The version of the schema.
    pub version: i64,
}

impl fmt::Display for MigrationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "schema version {}, {} applied now", self.version, self.applied)
    }
}

pub(super) struct Opened {
    pub options: SqliteConnectOptions,
    pub writer: SqliteConnection,
    pub reader: SqliteConnection,
    pub pool: SqlitePool,
    pub report: MigrationReport,
}

pub(super) fn migrations() -> Migrator {
    let migration = |(version, name, sql): &(i64, &'static str, &'static str)| {
        let sql = sqlx::SqlSafeStr::into_sql_str(*sql);
        Migration::new(*version, (*name).into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(MIGRATIONS.iter().map(migration).collect())
}

/// In order. A file that was released is never changed.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "start", include_str!("migrations/sqlite/0001_start.sql")),
    (10, "admin", include_str!("migrations/sqlite/0010_admin.sql")),
    (11, "directory", include_str!("migrations/sqlite/0011_directory.sql")),
    (12, "admin_lookups", include_str!("migrations/sqlite/0012_admin_lookups.sql")),
    (20, "sessions", include_str!("migrations/sqlite/0020_sessions.sql")),
    (30, "people", include_str!("migrations/sqlite/0030_people.sql")),
    (31, "passwords_devices", include_str!("migrations/sqlite/0031_passwords_devices.sql")),
    (40, "decisions", include_str!("migrations/sqlite/0040_decisions.sql")),
    (41, "policies", include_str!("migrations/sqlite/0041_policies.sql")),
    (50, "identities by user", include_str!("migrations/sqlite/0050_identities_by_user.sql")),
    (60, "plugins", include_str!("migrations/sqlite/0060_plugins.sql")),
    (73, "open challenges", include_str!("migrations/sqlite/0073_open_challenges.sql")),
    (85, "goes back", include_str!("migrations/sqlite/0085_goes_back.sql")),
    (95, "tenant limits", include_str!("migrations/sqlite/0095_tenant_limits.sql")),
    (110, "clients", include_str!("migrations/sqlite/0110_clients.sql")),
    (111, "backup codes", include_str!("migrations/sqlite/0111_backup_codes.sql")),
    (112, "signing key order", include_str!("migrations/sqlite/0112_signing_key_order.sql")),
    (120, "policy switches", include_str!("migrations/sqlite/0120_policy_switches.sql")),
    (121, "disputed sign-ins", include_str!("migrations/sqlite/0121_disputed_sign_ins.sql")),
    (130, "plugin usage", include_str!("migrations/sqlite/0130_plugin_usage.sql")),
    (140, "audit order", include_str!("migrations/sqlite/0140_audit_order.sql")),
    (141, "push polls", include_str!("migrations/sqlite/0141_push_polls.sql")),
    (142, "apple issuer", include_str!("migrations/sqlite/0142_apple_issuer.sql")),
];

pub(super) async fn open(options: &StoreOptions) -> Result<Opened, OpenError> {
    let file = options.url.strip_prefix("sqlite://").filter(|p| !p.is_empty()).ok_or(OpenError::Address)?;
    let path = PathBuf::from(file);
    create(&path)?;
    let shown = path.display().to_string();
    let connect = SqliteConnectOptions::new()
        .filename(&path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        .foreign_keys(false)
        .pragma("wal_autocheckpoint", "4000")
        .pragma("journal_size_limit", "67108864")
        .pragma("temp_store", "memory")
        .disable_statement_logging();
    let database = |source| OpenError::Database { path: shown.clone(), source };
    let mut writer = connect.connect().await.map_err(database)?;
    refuse_newer(&shown, &mut writer).await?;
    let before = version(&mut writer).await;
    migrations()
        .run_direct(None, &mut writer, false)
        .await
        .map_err(|source| OpenError::Migrate { path: shown.clone(), source })?;
    let after = version(&mut writer).await;
    let reading = connect.clone().pragma("query_only", "true");
    let reader = reading.connect().await.map_err(database)?;
    let pool = SqlitePoolOptions::new()
        .min_connections(0)
        .max_connections(3)
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy_with(reading);
    let report = MigrationReport { applied: after.1 - before.1, version: after.0 };
    Ok(Opened { options: connect, writer, reader, pool, report })
}

/// # Errors
/// [`OpenError::Ahead`] when a build with later migrations than this one's has used the file.
pub(super) async fn refuse_newer(path: &str, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let (version, _) = version(connection).await;
    let known = MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or_default();
    if version > known { Err(OpenError::Ahead { path: path.to_owned(), version, known }) } else { Ok(()) }
}

/// The version of the schema and the number of its migrations; 0 for an empty file.
async fn version(connection: &mut SqliteConnection) -> (i64, i64) {
    let sql = "SELECT coalesce(max(version), 0), count(*) FROM _sqlx_migrations";
    let row = sqlx::query(sql).fetch_one(connection).await;
    row.and_then(|r| Ok((r.try_get(0)?, r.try_get(1)?))).unwrap_or((0, 0))
}

/// Makes the folder (0700) and the file (0600): what they hold is nobody else's.
fn create(path: &Path) -> Result<(), OpenError> {
    let failed = |path: &Path, source| OpenError::File { path: path.display().to_string(), source };
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed(dir, e))?;
    }
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(|_| ())
        .map_err(|e| failed(path, e))
}
