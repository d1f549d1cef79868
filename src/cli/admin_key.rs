//! `countersign admin-key`: works on the store itself, whether or not a server runs on it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::{ConfigFile, FINDINGS, FINE, Failure, UNREACHABLE, USAGE, runtime};
use crate::admin::access::{Role, Scope};
use crate::admin::audit::Author;
use crate::admin::failures::FailedKeys;
use crate::admin::keys::{AdminKey, KeyCheck, MAX_NOTE_BYTES, NewAdminKey};
use crate::admin::page::{MAX_LIMIT, Page};
use crate::clock::{Clock, SystemClock, UnixTime};
use crate::config;
use crate::ids::{AdminKeyId, TenantId};
use crate::secret::SystemEntropy;
use crate::signin::ports::StoreError;
use crate::store::{Store, StoreOptions};

#[derive(Subcommand)]
pub(super) enum AdminKeys {
    /// Make a key and show it, this once.
    #[command(
        after_help = "Example:\n  countersign admin-key create --role admin --all-tenants --note bootstrap\n  countersign admin-key create --role viewer --tenant acme --note dashboard --expires 90d"
    )]
    Create(Create),
    /// List keys, without their secrets.
    #[command(after_help = "Example:\n  countersign admin-key list --json")]
    List(List),
    /// Revoke a key at once, on every node.
    #[command(after_help = "Example:\n  countersign admin-key revoke csk_034xz6kz5xe7f8g9h0jkmnpqrs")]
    Revoke(Revoke),
}

/// Which store.
#[derive(clap::Args)]
struct Place {
    #[command(flatten)]
    config: ConfigFile,
    /// The store of `serve --dev` in this directory.
    #[arg(long, conflicts_with = "config")]
    dev: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct Create {
    #[command(flatten)]
    place: Place,
    /// viewer, editor or admin.
    #[arg(long, value_parser = role)]
    role: Role,
    /// The one tenant that it is for.
    #[arg(long, value_name = "ID", required_unless_present = "all_tenants")]
    tenant: Option<String>,
    /// For all tenants and the server itself.
    #[arg(long, conflicts_with = "tenant")]
    all_tenants: bool,
    /// What it is for.
    #[arg(long, default_value = "")]
    note: String,
    /// How long it lives: 90d, 12h; until it is revoked when not given.
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    expires: Option<Duration>,
}

#[derive(clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    place: Place,
    /// The key's identifier: the part before the dot.
    id: String,
}

fn role(word: &str) -> Result<Role, String> {
    Role::find(word).ok_or_else(|| "write viewer, editor or admin".to_owned())
}

fn lifetime(text: &str) -> Result<Duration, String> {
    config::duration("expires", text, "1m", "3650d")
}

impl AdminKeys {
    pub(super) fn run(self) -> Result<u8, Failure> {
        runtime()?.block_on(async {
            match self {
                Self::Create(command) => command.run().await,
                Self::List(command) => command.run().await,
                Self::Revoke(command) => command.run().await,
            }
        })
    }
}

impl Place {
    fn settings(&self) -> Result<config::Settings, Failure> {
        if self.dev { Ok(config::dev_settings(Path::new("."), None)?) } else { self.config.load() }
    }

    async fn open(&self) -> Result<Open, Failure> {
        let settings = self.settings()?;
        let store = Store::open(&StoreOptions { url: settings.store_url.clone() }).await?;
        let clock = Arc::new(SystemClock);
        let keys = KeyCheck {
            clock,
            entropy: Arc::new(SystemEntropy),
            keys: Arc::<Store>::clone(&store),
            failed: FailedKeys::default(),
        };
        Ok(Open { store, keys })
    }
}

struct Open {
    store: Arc<Store>,
    keys: KeyCheck,
}

impl Open {
    async fn close(self) {
        self.store.close().await;
    }
}

fn author(tenant: Option<TenantId>) -> Author {
    Author::command_line(tenant, SystemClock.now(), &SystemEntropy)
}

fn unreachable(error: &StoreError) -> Failure {
    Failure::new(UNREACHABLE, error.to_string())
}

impl Create {
    async fn run(self) -> Result<u8, Failure> {
        if self.note.len() > MAX_NOTE_BYTES || self.note.chars().any(char::is_control) {
            let text = format!("--note must be at most {MAX_NOTE_BYTES} bytes without control characters");
            return Err(Failure::new(USAGE, text));
        }
        let tenant = self.tenant.as_deref().map(TenantId::parse).transpose();
        let tenant = tenant.map_err(|error| Failure::new(USAGE, format!("--tenant: {error}")))?;
        let open = self.place.open().await?;
        let scope = tenant.clone().map_or(Scope::All, Scope::Tenant);
        let new = NewAdminKey { role: self.role, scope, note: self.note, lifetime: self.expires };
        let made = open.keys.create(new, author(tenant)).await;
        open.close().await;
        let (info, key) = made.map_err(|error| unreachable(&error))?;
        let key = String::from_utf8_lossy(key.expose()).into_owned();
        if self.place.json {
            let mut value = shown(&info);
            value["key"] = key.into();
            println!("{value:#}");
        } else {
            println!("{key}");
            eprintln!("The key is shown this once. Send it as: Authorization: Bearer {}.…", info.id);
        }
        Ok(FINE)
    }
}

impl List {
    async fn run(self) -> Result<u8, Failure> {
        let open = self.place.open().await?;
        let listed = all(&open.keys).await;
        open.close().await;
        let keys = listed.map_err(|error| unreachable(&error))?;
        if self.place.json {
            println!("{:#}", serde_json::Value::Array(keys.iter().map(shown).collect()));
            return Ok(FINE);
        }
        if keys.is_empty() {
            println!("no admin keys; make one with: countersign admin-key create --role admin --all-tenants");
        }
        let now = SystemClock.now();
        for key in &keys {
            let tenant = tenant_of(key).unwrap_or("(all tenants)");
            println!("{}  {:<6}  {:<14}  {:<8}  {}", key.id, key.role.as_str(), tenant, state(key, now), key.note);
        }
        Ok(FINE)
    }
}

impl Revoke {
    async fn run(self) -> Result<u8, Failure> {
        // A whole key may be pasted: what stands behind the dot is not looked at, and not shown.
        let id = self.id.split('.').next().unwrap_or_default();
        let id: AdminKeyId = id.parse().map_err(|_| Failure::new(USAGE, "write the identifier, csk_…"))?;
        let open = self.place.open().await?;
        let revoked = open.keys.revoke(None, id, author(None)).await;
        open.close().await;
        if revoked.map_err(|error| unreachable(&error))? {
            println!("{id} is revoked");
            Ok(FINE)
        } else {
            Err(Failure::new(FINDINGS, format!("no living admin key has the identifier {id}")))
        }
    }
}

async fn all(keys: &KeyCheck) -> Result<Vec<AdminKey>, StoreError> {
    let mut found = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = Page::parse("admin_keys", Some(MAX_LIMIT), cursor.as_deref())
            .map_err(|error| StoreError(Box::new(error)))?;
        let listed = keys.list(None, &page).await?;
        found.extend(listed.items);
        cursor = listed.next_cursor;
        if cursor.is_none() {
            return Ok(found);
        }
    }
}

fn tenant_of(key: &AdminKey) -> Option<&str> {
    match &key.scope {
        Scope::Tenant(tenant) => Some(tenant.as_str()),
        Scope::All => None,
    }
}

fn state(key: &AdminKey, now: UnixTime) -> &'static str {
    match (key.revoked_at, key.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now => "expired",
        _ => "living",
    }
}

fn shown(key: &AdminKey) -> serde_json::Value {
    let time = |at: Option<UnixTime>| at.map(UnixTime::to_rfc3339);
    json!({
        "id": key.id.to_string(),
        "role": key.role.as_str(),
        "tenant": tenant_of(key),
        "note": key.note,
        "created_at": key.created_at.to_rfc3339(),
        "expires_at": time(key.expires_at),
        "revoked_at": time(key.revoked_at),
        "last_used_at": time(key.last_used_at),
    })
}
