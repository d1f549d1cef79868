//! Writes the lock entry of a plugin from what it says of itself.

use std::path::Path;

use data_encoding::HEXLOWER;
use serde::Deserialize;

use super::check::{Described, Trial, describe_file};
use super::error::PluginLoadError;
use super::hook::Hook;
use super::lock::DEFAULT_DEADLINE_MS;
use super::services::Services;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Manifest {
    pub(super) hooks: Vec<String>,
    pub(super) requests: Requests,
}

impl Manifest {
    /// What a plugin says of itself; empty when it says nothing that can be read.
    pub(super) fn parse(text: Option<&str>) -> Self {
        text.and_then(|m| serde_json::from_str(m).ok()).unwrap_or_default()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Requests {
    facts: Vec<String>,
    claims: Vec<String>,
    events: Vec<String>,
    http: Vec<String>,
    pub(super) secrets: Vec<String>,
    kv_kib: u64,
    /// It opens connections itself, and not through the host.
    pub(super) network: bool,
}

/// The entry to paste into `plugins.lock` for a file: what the plugin says of itself and what it asks for.
///
/// Loads the library into a process of its own, from a private copy: its constructors and its entry function
/// run, `create` does not.
///
/// # Errors
/// When the file could be changed by others, is no library, or is no plugin for this host.
pub fn lock_entry(file: &Path, services: Services) -> Result<String, PluginLoadError> {
    let Described { file, sha256, started, .. } = describe_file(&Trial { file, config_json: "{}", services })?;
    let manifest = Manifest::parse(started.manifest.as_deref());
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let list = |items: &[String]| items.iter().map(|i| quote(i)).collect::<Vec<_>>().join(", ");
    let mut lines = vec![
        "[[plugin]]".to_owned(),
        format!("id = {}", quote(&started.id)),
        format!("version = {}", quote(&started.version)),
        format!("sha256 = {}", quote(&HEXLOWER.encode(&sha256))),
        format!("file = {}", quote(&file.to_string_lossy())),
        "isolation = \"in_process\"".to_owned(),
    ];
    if manifest.requests.network {
        lines.push("# It opens connections itself: a process of its own has no network.".to_owned());
    }
    if manifest.hooks.is_empty() {
        lines.push("# The plugin has no manifest: name its hooks.".to_owned());
    }
    lines.push(format!("hooks = [{}]", list(&manifest.hooks)));
    let hooks: Vec<Hook> = manifest.hooks.iter().filter_map(|name| Hook::find(name)).collect();
    if hooks.iter().any(|h| h.is_bound()) {
        lines.push("bind = []          # name the providers it is asked for, or \"*\"".to_owned());
    }
    if hooks.iter().any(|h| h.is_mfa()) {
        lines.push(
            "method = \"\"        # what it delivers: \"email\", \"sms\", with both hooks \"push\", or \"acme.voice\", a name of its own"
                .to_owned(),
        );
    }
    lines.push(format!("deadline_ms = {DEFAULT_DEADLINE_MS}"));
    lines.push("# It asks to see and use these; strike what you do not grant.".to_owned());
    let requests = &manifest.requests;
    let mut grants = format!("facts = [{}], claims = [{}]", list(&requests.facts), list(&requests.claims));
    let lists = [("events", &requests.events), ("http", &requests.http), ("secrets", &requests.secrets)];
    for (name, items) in lists {
        if !items.is_empty() {
            grants.push_str(&format!(", {name} = [{}]", list(items)));
        }
    }
    if requests.kv_kib > 0 {
        grants.push_str(&format!(", kv_kib = {}", requests.kv_kib));
    }
    lines.push(format!("grants = {{ {grants} }}"));
    lines.push("config = {}".to_owned());
    lines.push(String::new());
    Ok(lines.join("\n"))
}
