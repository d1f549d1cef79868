//! `plugins.lock`: which files are loaded, what they may see and how long they may take.
//!
//! ```toml
//! [[plugin]]
//! id = "countersign.ip_list"          # as the plugin says itself
//! version = "0.1.0"                   # the same
//! sha256 = "…"                        # 64 hex digits, of the file
//! file = "lib/libcountersign_plugin_ip_list.so"   # relative to this file
//! isolation = "in_process"            # the default, and the only one so far
//! hooks = ["signal.signals"]          # or "provider.enrich"
//! bind = ["google", "acme/okta"]      # enrich only: providers, of every tenant or of one; ["*"] for all
//! deadline_ms = 250                   # for one call, waiting included
//! max_in_flight = 8                   # calls at once; 32 by default when the plugin says it waits for I/O
//! max_queued = 64                     # calls that wait for one of those
//! grants = { facts = ["request.ip"], claims = ["sub"] }   # what it gets to see; nothing by default
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
use super::hooks::Hook;
use super::load;
pub use super::manifest::lock_entry;
use super::view::{ClaimGrant, FactGrant, Grants};

pub(super) const DEFAULT_DEADLINE_MS: u64 = 250;
const DEFAULT_MAX_QUEUED: u64 = 64;

/// A checked entry.
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) version: String,
    pub(super) sha256: [u8; 32],
    pub(super) file: PathBuf,
    pub(super) hooks: Vec<Hook>,
    pub(super) bind: Vec<Bind>,
    pub(super) grants: Grants,
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
    hooks: Spanned<Vec<Spanned<String>>>,
    bind: Option<Spanned<Vec<Spanned<String>>>>,
    grants: Option<RawGrants>,
    config: Option<Spanned<toml::Table>>,
    deadline_ms: Option<Spanned<u64>>,
    max_in_flight: Option<Spanned<u64>>,
    max_queued: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawGrants {
    facts: Vec<Spanned<String>>,
    claims: Option<Vec<String>>,
}

/// Reads and checks the lock file; touches no plugin file.
pub(super) fn read(lock: &Path) -> Result<Vec<Entry>, PluginLoadError> {
    let text = load::read_lock_text(lock)?;
    parse(lock, &text)
}

fn parse(lock: &Path, text: &str) -> Result<Vec<Entry>, PluginLoadError> {
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

struct Place<'a> {
    lock: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    fn error(&self, span: Range<usize>, what: String) -> PluginLoadError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
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
        if let Some(isolation) = raw.isolation
            && isolation.get_ref() != "in_process"
        {
            let what = format!("isolation \"{}\" is not offered; \"in_process\" is", isolation.get_ref());
            return Err(self.error(isolation.span(), what));
        }
        let hooks = self.hooks(raw.hooks)?;
        let enriches = hooks.contains(&Hook::Enrich);
        let bind = self.bind(raw.bind, enriches, &raw.id.span())?;
        let raw_grants = raw.grants.unwrap_or_default();
        if enriches && raw_grants.claims.is_none() {
            let what = "the hook provider.enrich needs grants.claims: name the claims that the plugin may see, \
                        or [] for none, or [\"*\"] for all";
            return Err(self.error(entry_span, what.to_owned()));
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
            grants: self.grants(raw_grants)?,
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

    fn number(&self, key: &str, value: Spanned<u64>, least: u64, most: u64) -> Result<u64, PluginLoadError> {
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
            let Some(hook) = Hook::ALL.into_iter().find(|h| h.name() == name.get_ref()) else {
                let what = format!(
                    "hook \"{}\" is not one that this version asks; \"provider.enrich\" and \"signal.signals\" are",
                    name.get_ref()
                );
                return Err(self.error(name.span(), what));
            };
            if !hooks.contains(&hook) {
                hooks.push(hook);
            }
        }
        if hooks.is_empty() {
            let what = "hooks is empty: name \"provider.enrich\" or \"signal.signals\"";
            return Err(self.error(span, what.to_owned()));
        }
        Ok(hooks)
    }

    fn bind(
        &self,
        bind: Option<Spanned<Vec<Spanned<String>>>>,
        enriches: bool,
        id: &Range<usize>,
    ) -> Result<Vec<Bind>, PluginLoadError> {
        match bind {
            Some(bind) if !enriches => {
                Err(self.error(bind.span(), "bind is for the hook provider.enrich only; strike it".to_owned()))
            }
            None if !enriches => Ok(Vec::new()),
            Some(bind) if !bind.get_ref().is_empty() => bind
                .into_inner()
                .into_iter()
                .map(|one| {
                    Bind::parse(one.get_ref()).ok_or_else(|| {
                        let what = "bind names a provider, as \"google\", \"acme/google\" or \"*\"";
                        self.error(one.span(), what.to_owned())
                    })
                })
                .collect(),
            other => {
                let what = "the hook provider.enrich needs bind: the names of providers, or [\"*\"] for all";
                Err(self.error(other.map_or(id.clone(), |b| b.span()), what.to_owned()))
            }
        }
    }

    fn grants(&self, raw: RawGrants) -> Result<Grants, PluginLoadError> {
        let mut facts = BTreeSet::new();
        for name in raw.facts {
            let Some(fact) = FactGrant::find(name.get_ref()) else {
                let known: Vec<&str> = FactGrant::ALL.iter().map(|f| f.name()).collect();
                let what = format!("\"{}\" is no fact to grant; there are {}", name.get_ref(), known.join(", "));
                return Err(self.error(name.span(), what));
            };
            facts.insert(fact);
        }
        let names = raw.claims.unwrap_or_default();
        let claims = if names.iter().any(|n| n == "*") {
            ClaimGrant::All
        } else {
            ClaimGrant::Named(names.into_iter().collect())
        };
        Ok(Grants { facts, claims })
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

fn is_plugin_id(text: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[[plugin]]\nid = \"a.b\"\nversion = \"1\"\nfile = \"a.so\"\n";

    fn with(rest: &str) -> Result<Vec<Entry>, String> {
        let sha = "0".repeat(64);
        let text = format!("{HEAD}sha256 = \"{sha}\"\n{rest}");
        parse(Path::new("dir/plugins.lock"), &text).map_err(|e| e.to_string())
    }

    #[test]
    fn a_short_entry_gets_careful_defaults() {
        let entry = with("hooks = [\"signal.signals\"]").unwrap().remove(0);
        assert_eq!(entry.file, Path::new("dir/a.so"));
        assert_eq!(entry.config_json, "{}");
        assert_eq!((entry.deadline, entry.max_queued), (Duration::from_millis(250), 64));
        assert!(entry.grants.facts.is_empty());
        assert_eq!(entry.grants.claims, ClaimGrant::Named(BTreeSet::new()));
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_line() {
        let signals = "hooks = [\"signal.signals\"]\n";
        let enrich = "hooks = [\"provider.enrich\"]\n";
        for (rest, line, part) in [
            (format!("{signals}hokks = 1"), 7, "hokks"),
            (format!("{signals}isolation = \"process\""), 7, "\"in_process\""),
            ("hooks = [\"event.observe\"]".to_owned(), 6, "event.observe"),
            ("hooks = []".to_owned(), 6, "hooks is empty"),
            (format!("{signals}bind = [\"google\"]"), 7, "strike it"),
            (format!("{signals}deadline_ms = 0"), 7, "from 1 to 30000"),
            (format!("{signals}max_in_flight = 65"), 7, "from 1 to 64"),
            (format!("{signals}grants = {{ facts = [\"request.cookies\"] }}"), 7, "request.cookies"),
            (format!("{signals}grants = {{ secrets = [] }}"), 7, "secrets"),
            (format!("{signals}config = {{ x = nan }}"), 7, "JSON cannot say"),
            (format!("{enrich}grants = {{ claims = [] }}"), 2, "needs bind"),
            (format!("{enrich}bind = [\"/x\"]\ngrants = {{ claims = [] }}"), 7, "bind names a provider"),
            (format!("{enrich}bind = [\"*\"]"), 1, "grants.claims"),
            (format!("{signals}config = {{"), 7, ""),
        ] {
            let error = with(&rest).err().unwrap_or_else(|| panic!("{rest} was accepted"));
            assert!(error.starts_with(&format!("dir/plugins.lock:{line}: ")), "{rest}: {error}");
            assert!(error.contains(part), "{rest}: {error}");
        }
    }

    #[test]
    fn an_id_a_hash_and_a_second_entry_are_checked() {
        let hooks = "hooks = [\"signal.signals\"]";
        let sha = "0".repeat(64);
        let parse = |text: String| parse(Path::new("p"), &text).err().map(|e| e.to_string()).unwrap_or_default();
        let upper = format!("{HEAD}sha256 = \"{}\"\n{hooks}", "A".repeat(64));
        assert!(parse(upper).contains("p:5: sha256 is not 64"));
        for id in ["", "A", "1a", "a/b", "a b", &"a".repeat(65)] {
            let text = HEAD.replace("a.b", id);
            assert!(parse(format!("{text}sha256 = \"{sha}\"\n{hooks}")).starts_with("p:2: id "), "{id}");
        }
        let one = format!("{HEAD}sha256 = \"{sha}\"\n{hooks}\n");
        assert_eq!(parse(format!("{one}{one}")), "p:8: plugin a.b stands here twice; strike one");
    }

    #[test]
    fn config_reaches_the_plugin_as_json() {
        let rest =
            "hooks = [\"signal.signals\"]\nconfig = { a = [1, 2.5, true], t = 1979-05-27, s = { x = \"y\" } }";
        let json: Value = serde_json::from_str(&with(rest).unwrap()[0].config_json).unwrap();
        assert_eq!(json, serde_json::json!({ "a": [1, 2.5, true], "t": "1979-05-27", "s": { "x": "y" } }));
    }
}
