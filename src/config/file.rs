//! The shape of the file, the environment over it, and the checks of all but providers.

use std::path::PathBuf;
use std::sync::Arc;

use figment::Figment;
use figment::providers::Serialized;
use ipnet::IpNet;
use serde::Deserialize;
use toml::{Table, Value};

use super::locate::{Place, nearest, unknown_key};
use super::{ConfigError, ServerSettings, Settings, duration, provider};
use crate::ids::TenantId;
use crate::session::issue::TokenSettings;
use crate::session::keys::SigningAlgorithm;
use crate::signin::provider::Tenant;

const PREFIX: &str = "COUNTERSIGN_";

/// Every section and its keys.
pub(super) const KEYS: &[(&str, &[&str])] = &[
    ("server", &["listen", "public_url", "base_path", "trusted_proxies", "allow_insecure_issuers", "cors_origins"]),
    ("store", &["url"]),
    ("secrets", &["master_key_file"]),
    ("tokens", &["access_ttl", "refresh_ttl", "refresh_grace", "signing_algorithm", "rotate_signing_key_every"]),
    ("policies", &["dir"]),
    ("plugins", &["lock"]),
    ("geoip", &["city", "asn"]),
];

/// Tables that may stand several times, and their keys.
pub(super) const LISTS: &[(&str, &[&str])] = &[("tenants", &["id", "hosts"]), ("providers", provider::KEYS)];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct File {
    server: Server,
    store: Store,
    secrets: Secrets,
    tokens: Tokens,
    policies: Policies,
    plugins: Plugins,
    geoip: Geoip,
    tenants: Vec<TenantTable>,
    pub providers: Vec<provider::ProviderTable>,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Server {
    listen: String,
    public_url: Option<String>,
    base_path: String,
    trusted_proxies: Vec<String>,
    allow_insecure_issuers: bool,
    cors_origins: Vec<String>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            public_url: None,
            base_path: String::new(),
            trusted_proxies: Vec::new(),
            allow_insecure_issuers: false,
            cors_origins: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Store {
    url: String,
}

impl Default for Store {
    fn default() -> Self {
        Self { url: "sqlite://data/countersign.db".to_owned() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Secrets {
    master_key_file: PathBuf,
}

impl Default for Secrets {
    fn default() -> Self {
        Self { master_key_file: "data/master.key".into() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Tokens {
    access_ttl: String,
    refresh_ttl: String,
    refresh_grace: String,
    signing_algorithm: String,
    rotate_signing_key_every: Option<String>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            access_ttl: "30m".to_owned(),
            refresh_ttl: "30d".to_owned(),
            refresh_grace: "10s".to_owned(),
            signing_algorithm: "EdDSA".to_owned(),
            rotate_signing_key_every: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Policies {
    dir: PathBuf,
}

impl Default for Policies {
    fn default() -> Self {
        Self { dir: "policies".into() }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Plugins {
    lock: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Geoip {
    city: Option<PathBuf>,
    asn: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct TenantTable {
    id: String,
    #[serde(default)]
    hosts: Vec<String>,
}

/// Reads the text, then lets variables replace keys.
pub(super) fn read(
    text: &str,
    env: impl Iterator<Item = (String, String)>,
    places: &Place,
) -> Result<File, ConfigError> {
    let positioned = |error: &toml::de::Error| {
        let place = places.of_byte(text, error.span().map_or(0, |s| s.start));
        ConfigError::new(place, error.message().trim().to_owned())
    };
    let table: Table = text.parse().map_err(|e| positioned(&e))?;
    check_keys(&table, places)?;
    toml::from_str::<File>(text).map_err(|e| positioned(&e))?;
    let variables: Vec<(String, String)> = env.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    let mut merged = Figment::from(Serialized::defaults(&table));
    for (name, value) in &variables {
        let (section, key) = check_variable(name)?;
        merged = merged.merge((format!("{section}.{key}"), variable_value(value)));
    }
    merged.extract().map_err(|error| {
        let place = match &variables[..] {
            [] => "configuration".to_owned(),
            list => list.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(", "),
        };
        ConfigError::new(place, error.to_string())
    })
}

/// A variable's value as TOML would read it, else as a text.
fn variable_value(text: &str) -> Value {
    let parsed = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn check_keys(table: &Table, places: &Place) -> Result<(), ConfigError> {
    let sections: Vec<&str> = KEYS.iter().chain(LISTS).map(|(name, _)| *name).collect();
    for (name, value) in table {
        let known = KEYS.iter().chain(LISTS).find(|(section, _)| section == name);
        let Some((section, keys)) = known else {
            let hint = nearest(name, &sections).unwrap_or_default();
            let message = format!("unknown section [{name}]; nearest is [{hint}]");
            return Err(ConfigError::new(places.of_key(name, 0, ""), message));
        };
        let (tables, shown): (Vec<&Table>, String) = match value {
            Value::Table(one) => (vec![one], format!("[{section}]")),
            Value::Array(many) => (many.iter().filter_map(Value::as_table).collect(), format!("[[{section}]]")),
            _ => (Vec::new(), String::new()),
        };
        for (index, one) in tables.into_iter().enumerate() {
            if let Some(unknown) = one.keys().find(|key| !keys.contains(&key.as_str())) {
                return Err(places.error(section, index, unknown, unknown_key(unknown, &shown, keys)));
            }
        }
    }
    Ok(())
}

/// `COUNTERSIGN_TOKENS__ACCESS_TTL` → `tokens`, `access_ttl`.
fn check_variable(name: &str) -> Result<(&'static str, &'static str), ConfigError> {
    let wanted = name[PREFIX.len()..].to_ascii_lowercase();
    let known: Vec<(String, (&'static str, &'static str))> = KEYS
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(move |key| (format!("{section}__{key}"), (*section, *key))))
        .collect();
    if let Some((_, found)) = known.iter().find(|(form, _)| *form == wanted) {
        return Ok(*found);
    }
    let forms: Vec<&str> = known.iter().map(|(form, _)| form.as_str()).collect();
    let near = nearest(&wanted, &forms).unwrap_or_default().to_ascii_uppercase();
    Err(ConfigError::new(name, format!("no key has this variable; nearest is {PREFIX}{near}")))
}

/// Turns the file into settings.
pub(super) fn check(file: File, places: &Place) -> Result<Settings, ConfigError> {
    let server = check_server(&file.server, places)?;
    let tokens = check_tokens(&file.tokens, &server.public_url, places)?;
    let algorithm = &file.tokens.signing_algorithm;
    let signing_algorithm = SigningAlgorithm::find(algorithm).ok_or_else(|| {
        let message = format!("signing_algorithm is EdDSA, ES256 or RS256, not \"{algorithm}\"");
        places.error("tokens", 0, "signing_algorithm", message)
    })?;
    if !file.store.url.starts_with("sqlite://") {
        let message = "the store's url must be sqlite://PATH; PostgreSQL is not supported by this build yet";
        return Err(places.error("store", 0, "url", message));
    }
    let tenants = check_tenants(&file.tenants, places)?;
    let providers = provider::check_all(file.providers, &tenants, server.allow_insecure_issuers, places)?;
    Ok(Settings {
        server,
        store_url: file.store.url,
        master_key_file: file.secrets.master_key_file,
        tokens,
        signing_algorithm,
        policies_dir: file.policies.dir,
        plugins_lock: file.plugins.lock,
        geoip_city: file.geoip.city,
        geoip_asn: file.geoip.asn,
        tenants,
        providers,
    })
}

fn check_server(server: &Server, places: &Place) -> Result<ServerSettings, ConfigError> {
    let bad = |key: &str, message: String| places.error("server", 0, key, message);
    let listen = server.listen.parse().map_err(|_| {
        bad("listen", format!("listen is an address and a port, such as 127.0.0.1:8080, not \"{}\"", server.listen))
    })?;
    let public_url = server.public_url.clone().unwrap_or_else(|| format!("http://{}", server.listen));
    if !is_https_or_loopback(&public_url) || public_url.ends_with('/') {
        let message = "public_url is https://HOST without a slash at the end; http is accepted on loopback only";
        return Err(bad("public_url", message.to_owned()));
    }
    let base = &server.base_path;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    if !base.is_empty()
        && (!base.starts_with('/') || base.ends_with('/') || base.contains("//") || !base.chars().all(plain))
    {
        return Err(bad("base_path", "base_path is empty, or like \"/identity/api/v1\"".to_owned()));
    }
    let proxies = server.trusted_proxies.iter().map(|text| {
        let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
        net.ok_or_else(|| {
            bad("trusted_proxies", format!("\"{text}\" is not an address or CIDR such as 10.0.0.0/8"))
        })
    });
    for origin in &server.cors_origins {
        let fine = url::Url::parse(origin).is_ok_and(|u| u.origin().ascii_serialization() == *origin);
        if !fine {
            let message = format!("\"{origin}\" is not an origin such as https://app.example.com");
            return Err(bad("cors_origins", message));
        }
    }
    Ok(ServerSettings {
        listen,
        public_url,
        base_path: base.clone(),
        trusted_proxies: proxies.collect::<Result<_, _>>()?,
        allow_insecure_issuers: server.allow_insecure_issuers,
        cors_origins: server.cors_origins.clone(),
    })
}

/// `https`, or `http` to this machine.
pub(super) fn is_https_or_loopback(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    match url.scheme() {
        "https" => url.host().is_some(),
        "http" => is_loopback(&url),
        _ => false,
    }
}

pub(super) fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn check_tokens(tokens: &Tokens, issuer: &str, places: &Place) -> Result<TokenSettings, ConfigError> {
    let within = |key: &str, text: &str, least_s: u64, most_s: u64, range: &str| {
        let parsed = duration::parse(text).filter(|d| (least_s..=most_s).contains(&d.as_secs()));
        parsed.ok_or_else(|| {
            let message = format!("{key} is a duration such as 90d, 30m or 10s, {range}; not \"{text}\"");
            places.error("tokens", 0, key, message)
        })
    };
    if tokens.rotate_signing_key_every.is_some() {
        let message = "rotation of signing keys is not supported by this build yet; leave the key out";
        return Err(places.error("tokens", 0, "rotate_signing_key_every", message));
    }
    Ok(TokenSettings {
        issuer: issuer.to_owned(),
        access_ttl: within("access_ttl", &tokens.access_ttl, 60, 86_400, "from 1m to 24h")?,
        refresh_ttl: within("refresh_ttl", &tokens.refresh_ttl, 60, 86_400 * 365, "from 1m to 365d")?,
        refresh_grace: within("refresh_grace", &tokens.refresh_grace, 0, 60, "from 0s to 60s")?,
    })
}

fn check_tenants(tables: &[TenantTable], places: &Place) -> Result<Vec<Arc<Tenant>>, ConfigError> {
    let mut tenants: Vec<Arc<Tenant>> = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let bad = |key: &str, message: String| places.error("tenants", index, key, message);
        let id = TenantId::parse(&table.id).map_err(|e| bad("id", e.to_string()))?;
        if tenants.iter().any(|t| t.id == id) {
            return Err(bad("id", format!("tenant \"{id}\" stands twice")));
        }
        let hosts: Vec<String> = table.hosts.iter().map(|h| h.to_ascii_lowercase()).collect();
        if let Some(taken) = hosts.iter().find(|h| tenants.iter().any(|t| t.hosts.contains(h))) {
            return Err(bad("hosts", format!("host \"{taken}\" belongs to another tenant already")));
        }
        tenants.push(Arc::new(Tenant { id, hosts }));
    }
    if tenants.is_empty() {
        return Err(places.error(
            "tenants",
            0,
            "id",
            "at least one tenant is needed: [[tenants]] id = \"default\"",
        ));
    }
    Ok(tenants)
}
