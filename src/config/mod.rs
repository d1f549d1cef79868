//! `countersign.toml` and the environment, checked into [`Settings`] that hold only valid values.
//!
//! The file is read first on its own, so that errors know their line; then variables
//! `COUNTERSIGN_<SECTION>__<KEY>` replace single keys. Paths are relative to the working directory.

mod directory;
mod duration;
mod file;
mod locate;
mod master_key;
mod presets;
mod provider;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

pub use directory::StaticDirectory;
pub use master_key::master_key;

use crate::session::issue::TokenSettings;
use crate::session::keys::SigningAlgorithm;
use crate::signin::provider::{Provider, Tenant};
use locate::Place;

/// What is wrong, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct ConfigError {
    /// `countersign.toml:41`, or a variable, or a file.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

impl ConfigError {
    pub(crate) fn new(place: impl ToString, message: impl Into<String>) -> Self {
        Self { place: place.to_string(), message: message.into() }
    }
}

/// `[server]`.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// `iss` of local tokens.
    pub public_url: String,
    /// The API is served below it as well as at `/`; empty, or begins with `/` and does not end with it.
    pub base_path: String,
    /// Proxies whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `http://` issuers on loopback are accepted.
    pub allow_insecure_issuers: bool,
    /// Origins that browsers may call from.
    pub cors_origins: Vec<String>,
}

/// A whole, valid configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[server]`.
    pub server: ServerSettings,
    /// `[store] url`.
    pub store_url: String,
    /// `[secrets] master_key_file`.
    pub master_key_file: PathBuf,
    /// `[tokens]`.
    pub tokens: TokenSettings,
    /// `[tokens] signing_algorithm`.
    pub signing_algorithm: SigningAlgorithm,
    /// `[policies] dir`.
    pub policies_dir: PathBuf,
    /// `[plugins] lock`.
    pub plugins_lock: Option<PathBuf>,
    /// `[geoip] city`.
    pub geoip_city: Option<PathBuf>,
    /// `[geoip] asn`.
    pub geoip_asn: Option<PathBuf>,
    /// `[[tenants]]`; at least one.
    pub tenants: Vec<Arc<Tenant>>,
    /// `[[providers]]` that are enabled.
    pub providers: Vec<Arc<Provider>>,
}

/// Reads a configuration file, and the variables that replace its keys.
///
/// # Errors
/// The first thing that is wrong, with file and line or the name of the variable.
pub fn load(file: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Settings, ConfigError> {
    let shown = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        let hint = "copy countersign.example.toml, or try `serve --dev`";
        ConfigError::new(&shown, format!("cannot be read ({error}); {hint}"))
    })?;
    let places = Place::new(shown, &text);
    let parsed = file::read(&text, env, &places)?;
    file::check(parsed, &places)
}

/// The settings of `serve --dev` without a file: data below `root`/data, policies in `root`/policies, and
/// the development issuer as provider `dev`.
///
/// # Errors
/// When the address is not loopback.
pub fn dev_settings(root: &Path, listen: Option<SocketAddr>) -> Result<Settings, ConfigError> {
    let listen = listen.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080));
    if !listen.ip().is_loopback() {
        let message =
            format!("development listens on loopback only, such as 127.0.0.1:8080; {listen} is reached by others");
        return Err(ConfigError::new("--dev", message));
    }
    let path = |name: &str| toml::Value::from(root.join(name).display().to_string());
    let text = format!(
        "[server]\nlisten = \"{listen}\"\npublic_url = \"http://{listen}\"\nallow_insecure_issuers = true\n\
         [store]\nurl = {}\n[secrets]\nmaster_key_file = {}\n[policies]\ndir = {}\n[[tenants]]\nid = \"default\"\n\
         [[providers]]\ntenant = \"default\"\nname = \"dev\"\nissuer = \"http://{listen}/dev/issuer\"\n\
         client_ids = [\"dev-client\"]\n",
        toml::Value::from(format!("sqlite://{}", root.join("data/countersign.db").display())),
        path("data/master.key"),
        path("policies"),
    );
    let places = Place::new("--dev".to_owned(), &text);
    file::check(file::read(&text, std::iter::empty(), &places)?, &places)
}
