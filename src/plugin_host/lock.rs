//! `plugins.lock`: which files are loaded, what they may see and how long they may take.
//!
//! ```toml
//! [[plugin]]
//! id = "countersign.ip_list"          # as the plugin says itself
//! version = "0.1.0"                   # the same
//! sha256 = "…"                        # 64 hex digits, of the file
//! file = "lib/libcountersign_plugin_ip_list.so"   # relative to this file
//! isolation = "in_process"            # the default; or "process", a process of its own
//! memory_mib = 512                    # of that process, for data
//! hooks = ["signal.signals"]          # see `hook`
//! bind = ["google", "acme/okta"]      # provider.* only: providers, of every tenant or of one; ["*"] for all
//! method = "email"                    # mfa.* only: what it delivers, or "sms", or "push" with both mfa.*, or a name
//! #                                     of its own with a dot, "acme.voice"; then also
//! strength = "strong"                 #   how much that proves, "weak" by default
//! address = "phone_number"            #   or "email", verified; without it the plugin knows where to reach the user
//! tenants = ["acme"]                  # mfa.* only: whose users may use it; those of every tenant by default
//! deadline_ms = 250                   # for one call, waiting included
//! max_in_flight = 8                   # calls at once; 32 by default when the plugin says it waits for I/O
//! max_queued = 64                     # calls that wait for one of those
//! grants = { facts = ["request.ip"], claims = ["sub"] }   # what it gets to see; nothing by default
//! #   events = ["sign_in", "security_event"]: what event.observe is told of; sign_in by default
//! #   http = ["api.example.com"], networks = ["10.0.0.0/8"], secrets = ["name"], kv_kib = 64   # and to use
//! config = { lists = { office = ["192.0.2.0/24"] } }      # given to the plugin as JSON; no secrets here
//! ```

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;

use super::error::PluginLoadError;
use super::hook::Hook;
use super::load;
use super::lock_grants::RawGrants;
use super::lock_mfa::{Offer, RawMfa};
pub use super::manifest::lock_entry;
use super::services::{ServiceGrants, printable};
use super::view::Grants;

pub(super) const DEFAULT_DEADLINE_MS: u64 = 250;
const DEFAULT_MAX_QUEUED: u64 = 64;

const DEFAULT_MEMORY_MIB: u64 = 512;

/// Where a plugin runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    InProcess,
    Process { memory_bytes: u64 },
}

impl Isolation {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::InProcess => "in_process",
            Self::Process { .. } => "process",
        }
    }
}

/// A checked entry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) version: String,
    pub(super) sha256: [u8; 32],
    pub(super) file: PathBuf,
    pub(super) hooks: Vec<Hook>,
    pub(super) bind: Vec<Bind>,
    pub(super) isolation: Isolation,
    /// What an MFA plugin delivers.
    pub(super) mfa: Option<Offer>,
    pub(super) grants: Grants,
    pub(super) services: ServiceGrants,
    pub(super) config_json: String,
    pub(super) deadline: Duration,
    pub(super) max_in_flight: Option<usize>,
    pub(super) max_queued: usize,
}

/// Which providers an `enrich` hook is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bind {
    Every,
    Named { tenant: Option<String>, provider: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLock {
    #[serde(default)]
    plugin: Vec<Spanned<RawPlugin>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlugin {
    id: Spanned<String>,
    version: Spanned<String>,
    sha256: Spanned<String>,
    file: Spanned<PathBuf>,
    isolation: Option<Spanned<String>>,
    memory_mib: Option<Spanned<u64>>,
    method: Option<Spanned<String>>,
    strength: Option<Spanned<String>>,
    address: Option<Spanned<String>>,
    tenants: Option<Spanned<Vec<Spanned<String>>>>,
    hooks: Spanned<Vec<Spanned<String>>>,
    bind: Option<Spanned<Vec<Spanned<String>>>>,
    grants: Option<RawGrants>,
    config: Option<Spanned<toml::Table>>,
    deadline_ms: Option<Spanned<u64>>,
    max_in_flight: Option<Spanned<u64>>,
    max_queued: Option<Spanned<u64>>,
}

/// A plugin that a lock file names.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its identifier.
    pub id: String,
    /// Its version.
    pub version: String,
    /// The hash in the lock.
    pub sha256: String,
    /// Its file.
    pub file: PathBuf,
    /// What it is asked for.
    pub hooks: Vec<String>,
    /// What it delivers, when it has the hooks `mfa.*`.
    pub mfa_method: Option<String>,
    /// Where it runs.
    pub isolation: String,
    /// Why its file would not be loaded now.
    pub trouble: Option<String>,
}

/// What a lock file names, and whether the files are the locked ones. Runs nothing of them.
///
/// # Errors
/// When the lock cannot be read or says something unusable.
pub fn lock_list(lock: &Path) -> Result<Vec<Listed>, PluginLoadError> {
    let entries = parse(lock, &load::read_lock_text(lock)?)?;
    let listed = entries.into_iter().map(|entry| {
        let trouble = match load::read_checked(&entry.file) {
            Err(error) => Some(error.to_string()),
            Ok((_, found)) if found == entry.sha256 => None,
            Ok((_, found)) => {
                let (found, locked) = (HEXLOWER.encode(&found), HEXLOWER.encode(&entry.sha256));
                Some(format!("its sha256 is {found}, but the lock says {locked}"))
            }
        };
        Listed {
            id: entry.id,
            version: entry.version,
            sha256: HEXLOWER.encode(&entry.sha256),
            file: entry.file,
            hooks: entry.hooks.iter().map(|h| h.name().to_owned()).collect(),
            mfa_method: entry.mfa.as_ref().map(Offer::method),
            isolation: entry.isolation.name().to_owned(),
            trouble,
        }
    });
    Ok(listed.collect())
}

/// Reads and checks the text of a lock file; touches no plugin file.
pub(super) fn parse(lock: &Path, text: &str) -> Result<Vec<Entry>, PluginLoadError> {
    let at = Place { lock, text };
    let raw: RawLock =
        toml::from_str(text).map_err(|e| at.error(e.span().unwrap_or_default(), e.message().to_owned()))?;
    let mut seen = BTreeSet::new();
    let mut entries = Vec::with_capacity(raw.plugin.len());
    for plugin in raw.plugin {
        let span = plugin.get_ref().id.span();
        let entry = at.check(plugin)?;
        if !seen.insert(entry.id.clone()) {
            return Err(at.error(span, format!("plugin {} stands here twice; strike one", entry.id)));
        }
        entries.push(entry);
    }
    Ok(entries)
}

pub(super) struct Place<'a> {
    lock: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    pub(super) fn error(&self, span: Range<usize>, what: String) -> PluginLoadError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let what = printable(what.as_bytes(), what.len());
        PluginLoadError::Lock { lock: self.lock.to_owned(), line: before.matches('\n').count() + 1, what }
    }

    fn check(&self, entry: Spanned<RawPlugin>) -> Result<Entry, PluginLoadError> {
        let entry_span = entry.span();
        let raw = entry.into_inner();
        if !is_plugin_id(raw.id.get_ref()) {
            let what =
                format!("id \"{}\" is not 1 to 64 of a-z 0-9 . _ - beginning with a letter", raw.id.get_ref());
            return Err(self.error(raw.id.span(), what));
        }
        let version = raw.version.into_inner();
        let sha256 = self.hash(&raw.sha256)?;
        let isolation = self.isolation(raw.isolation, raw.memory_mib)?;
        let hooks = self.hooks(raw.hooks)?;
        let bound = hooks.iter().copied().find(|h| h.is_bound());
        let bind = self.bind(raw.bind, bound, &raw.id.span())?;
        let (method, strength, address, tenants) = (raw.method, raw.strength, raw.address, raw.tenants);
        let mfa = RawMfa { method, strength, address, tenants }.read(self, &hooks, &raw.id.span())?;
        let raw_grants = raw.grants.unwrap_or_default();
        if hooks.contains(&Hook::Enrich) && raw_grants.claims.is_none() {
            let what = "the hook provider.enrich needs grants.claims: name the claims that the plugin may see, \
                        or [] for none, or [\"*\"] for all";
            return Err(self.error(entry_span, what.to_owned()));
        }
        if let Some(events) = raw_grants.events.as_ref().filter(|_| !hooks.contains(&Hook::Observe)) {
            let what = "grants.events is for the hook event.observe; strike it, or name the hook";
            return Err(self.error(events.span(), what.to_owned()));
        }
        let in_flight = raw.max_in_flight.map(|v| self.number("max_in_flight", v, 1, 64)).transpose()?;
        let queued = raw.max_queued.map(|v| self.number("max_queued", v, 0, 4096)).transpose()?;
        let deadline = raw.deadline_ms.map(|v| self.number("deadline_ms", v, 1, 30_000)).transpose()?;
        let config_json = match raw.config {
            Some(config) => {
                let span = config.span();
                table_to_json(config.into_inner()).map_err(|what| self.error(span, what))?.to_string()
            }
            None => "{}".to_owned(),
        };
        let directory = self.lock.parent().unwrap_or(Path::new(""));
        Ok(Entry {
            id: raw.id.into_inner(),
            version,
            sha256,
            file: directory.join(raw.file.into_inner()),
            hooks,
            bind,
            isolation,
            mfa,
            services: raw_grants.services(self)?,
            grants: raw_grants.view(self)?,
            config_json,
            deadline: Duration::from_millis(deadline.unwrap_or(DEFAULT_DEADLINE_MS)),
            max_in_flight: in_flight.and_then(|n| usize::try_from(n).ok()),
            max_queued: usize::try_from(queued.unwrap_or(DEFAULT_MAX_QUEUED)).unwrap_or(0),
        })
    }

    fn hash(&self, text: &Spanned<String>) -> Result<[u8; 32], PluginLoadError> {
        let bytes = HEXLOWER.decode(text.get_ref().as_bytes()).ok();
        bytes
            .and_then(|b| b.try_into().ok())
            .ok_or_else(|| self.error(text.span(), "sha256 is not 64 lower-case hex digits".to_owned()))
    }

    fn isolation(
        &self,
        isolation: Option<Spanned<String>>,
        memory_mib: Option<Spanned<u64>>,
    ) -> Result<Isolation, PluginLoadError> {
        match isolation.as_ref().map(|i| i.get_ref().as_str()) {
            Some("process") => {
                let memory_mib = memory_mib.map(|m| self.number("memory_mib", m, 16, 65_536)).transpose()?;
                Ok(Isolation::Process { memory_bytes: memory_mib.unwrap_or(DEFAULT_MEMORY_MIB) << 20 })
            }
            None | Some("in_process") => {
                match memory_mib {
                    Some(memory) => Err(self
                        .error(memory.span(), "memory_mib is for isolation = \"process\"; strike it".to_owned())),
                    None => Ok(Isolation::InProcess),
                }
            }
            Some(other) => {
                let what = format!("isolation \"{other}\" is not offered; \"in_process\" and \"process\" are");
                Err(self.error(isolation.map(|i| i.span()).unwrap_or_default(), what))
            }
        }
    }

    pub(super) fn number(
        &self,
        key: &str,
        value: Spanned<u64>,
        least: u64,
        most: u64,
    ) -> Result<u64, PluginLoadError> {
        let span = value.span();
        let value = value.into_inner();
        if (least..=most).contains(&value) {
            return Ok(value);
        }
        Err(self.error(span, format!("{key} = {value} is not from {least} to {most}")))
    }

    fn hooks(&self, names: Spanned<Vec<Spanned<String>>>) -> Result<Vec<Hook>, PluginLoadError> {
        let span = names.span();
        let mut hooks = Vec::new();
        for name in names.into_inner() {
            let Some(hook) = Hook::find(name.get_ref()) else {
                let known: Vec<&str> = Hook::ALL.iter().map(|h| h.name()).collect();
                let what = format!("hook \"{}\" is none; there are {}", name.get_ref(), known.join(", "));
                return Err(self.error(name.span(), what));
            };
            if !hooks.contains(&hook) {
                hooks.push(hook);
            }
        }
        if hooks.is_empty() {
            let what = "hooks is empty: name what the plugin is asked for, such as \"signal.signals\"";
            return Err(self.error(span, what.to_owned()));
        }
        if hooks.contains(&Hook::MfaVerify) && !hooks.contains(&Hook::MfaBegin) {
            return Err(self.error(span, "the hook mfa.verify goes with mfa.begin; name both".to_owned()));
        }
        Ok(hooks)
    }

    fn bind(
        &self,
        bind: Option<Spanned<Vec<Spanned<String>>>>,
        bound: Option<Hook>,
        id: &Range<usize>,
    ) -> Result<Vec<Bind>, PluginLoadError> {
        match (bind, bound) {
            (Some(bind), None) => {
                Err(self.error(bind.span(), "bind is for the hooks provider.* only; strike it".to_owned()))
            }
            (None, None) => Ok(Vec::new()),
            (Some(bind), Some(_)) if !bind.get_ref().is_empty() => bind
                .into_inner()
                .into_iter()
                .map(|one| {
                    Bind::parse(one.get_ref()).ok_or_else(|| {
                        let what = "bind names a provider, as \"google\", \"acme/google\" or \"*\"";
                        self.error(one.span(), what.to_owned())
                    })
                })
                .collect(),
            (other, Some(hook)) => {
                let what =
                    format!("the hook {} needs bind: the names of providers, or [\"*\"] for all", hook.name());
                Err(self.error(other.map_or(id.clone(), |b| b.span()), what))
            }
        }
    }
}

impl Bind {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Every);
        }
        let (tenant, provider) = match text.split_once('/') {
            Some((tenant, provider)) => (Some(tenant), provider),
            None => (None, text),
        };
        if provider.is_empty() || tenant.is_some_and(str::is_empty) {
            return None;
        }
        Some(Self::Named { tenant: tenant.map(str::to_owned), provider: provider.to_owned() })
    }
}

pub(super) fn is_plugin_id(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 64
        && bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
}

fn table_to_json(table: toml::Table) -> Result<Value, String> {
    let members = table.into_iter().map(|(key, value)| Ok((key, value_to_json(value)?)));
    members.collect::<Result<Map<_, _>, _>>().map(Value::Object)
}

fn value_to_json(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(n) => Value::Number(n.into()),
        toml::Value::Float(n) => match serde_json::Number::from_f64(n) {
            Some(n) => Value::Number(n),
            None => return Err(format!("config holds {n}, which JSON cannot say")),
        },
        toml::Value::Boolean(yes) => Value::Bool(yes),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(items) => Value::Array(items.into_iter().map(value_to_json).collect::<Result<_, _>>()?),
        toml::Value::Table(table) => table_to_json(table)?,
    })
}
