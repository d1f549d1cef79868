//! Writes the lock entry of a plugin from what it says of itself.

use std::path::Path;

use data_encoding::HEXLOWER;
use serde::Deserialize;

use super::error::PluginLoadError;
use super::hook::Hook;
use super::lock::DEFAULT_DEADLINE_MS;
use super::{instance, load};

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
}

/// The entry to paste into `plugins.lock` for a file: what the plugin says of itself and what it asks for.
///
/// Loads the library into **this** process, from a private copy: its constructors and its entry function
/// run, `create` does not. So it is for the command line, where a crash is a message and the operator has
/// named the file, and not for the server. The library stays mapped until the process ends.
///
/// # Errors
/// When the file could be changed by others, is no library, or is no plugin for this host.
pub fn lock_entry(file: &Path) -> Result<String, PluginLoadError> {
    let io = |what| move |source| PluginLoadError::Io { path: file.to_owned(), what, source };
    let file = std::path::absolute(file).map_err(io("the path cannot be made absolute"))?;
    let (bytes, sha256) = load::read_checked(&file)?;
    let store = tempfile::tempdir().map_err(io("no private directory for a copy can be made"))?;
    let copy = load::keep_copy(store.path(), &bytes, &sha256)?;
    let refused = |id: &str, fault| PluginLoadError::Refused {
        id: id.to_owned(),
        file: file.clone(),
        sha256: HEXLOWER.encode(&sha256),
        fault: Box::new(fault),
    };
    let opened = instance::open(&copy).map_err(|fault| refused("?", fault))?;
    let manifest = opened.manifest().map_err(|fault| refused(&opened.id, fault))?;
    let manifest = Manifest::parse(manifest.as_deref());
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let list = |items: &[String]| items.iter().map(|i| quote(i)).collect::<Vec<_>>().join(", ");
    let mut lines = vec![
        "[[plugin]]".to_owned(),
        format!("id = {}", quote(&opened.id)),
        format!("version = {}", quote(&opened.version)),
        format!("sha256 = {}", quote(&HEXLOWER.encode(&sha256))),
        format!("file = {}", quote(&file.to_string_lossy())),
        "isolation = \"in_process\"".to_owned(),
    ];
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
