//! The configuration: `countersign.toml`, the environment over it, and nothing but valid values out of
//! both. `countersign.example.toml` shows every key with its default.
//!
//! - Every key is also a variable: `COUNTERSIGN_SERVER__LISTEN`; in an array of tables with its place
//!   in the file, `COUNTERSIGN_PROVIDERS__0__CLIENT_IDS`. A variable wins over the file. Lists are
//!   written as in the file, or with commas.
//! - Paths that are not absolute start at the current directory, not at the file's.
//! - All that is wrong is told at once, each with file and line or the name of the variable.
//! - A key that this build would not obey is refused when it is given; nothing is read as something
//!   weaker.
//!
//! Absent on purpose: opening the store, the databases or the plugin list; whoever uses them does.

mod clients;
mod directory;
mod keys;
mod layers;
mod limits;
mod master_key;
mod presets;
mod problem;
mod providers;
mod values;

#[cfg(test)]
mod directory_tests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use ipnet::IpNet;

pub use self::directory::{FileProvider, LiveDirectory};
pub use self::master_key::{MasterKeyFile, master_key};
pub use self::problem::{ConfigError, Finding};

use self::layers::{Layers, Table};
use self::problem::Findings;
use self::values::{Bounds, Upstream};
use crate::ids::TenantId;
use crate::policy::signature::{KEY_BYTES, Required, Signers};
use crate::session::SessionLimits;
use crate::session::clients::Client;
use crate::session::issue::TokenSettings;
use crate::session::keys::SigningAlgorithm;
use crate::signin::networks::NetworkLimit;
use crate::signin::provider::{Provider, Tenant};

/// Everything that is configured, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where and how the server answers.
    pub server: ServerSettings,
    /// `sqlite://FILE`.
    pub store_url: String,
    /// Where the master key is; see [`master_key()`].
    pub master_key_file: PathBuf,
    /// Local tokens; their issuer is [`ServerSettings::public_url`].
    pub tokens: TokenSettings,
    /// What signs local tokens.
    pub signing_algorithm: SigningAlgorithm,
    /// How often a new signing key takes over; absent: by command only.
    pub rotate_signing_key_every: Option<Duration>,
    /// How often one network may sign in.
    pub network_limit: NetworkLimit,
    /// Where the rhai scripts are.
    pub policies_dir: PathBuf,
    /// Whose signatures of bundles count, and for whom one is needed.
    pub policy_signers: Arc<Signers>,
    /// How long frozen decisions are kept; zero keeps none.
    pub keep_records: Duration,
    /// The list of plugins; absent: no plugin is loaded.
    pub plugins_lock: Option<PathBuf>,
    /// A directory with one file for each secret that plugins are granted.
    pub plugins_secrets_dir: Option<PathBuf>,
    /// The database of places; absent: places are unknown.
    pub geoip_city: Option<PathBuf>,
    /// The database of networks; absent: networks are unknown.
    pub geoip_asn: Option<PathBuf>,
    /// Networks that outbound fetches may reach although they are not public.
    pub granted_networks: Vec<IpNet>,
    /// Where providers' public keys are kept between starts.
    pub keys_cache_dir: PathBuf,
    /// The tenants, never none.
    pub tenants: Vec<Arc<Tenant>>,
    /// The enabled providers.
    pub providers: Vec<Arc<Provider>>,
    /// The applications that may use the OAuth endpoints.
    pub clients: Vec<Arc<Client>>,
    /// All providers of the file, as they are written there.
    pub file_providers: Vec<FileProvider>,
}

impl Settings {
    /// The tenants and providers as a directory, without what the store adds.
    #[must_use]
    pub fn directory(&self) -> LiveDirectory {
        LiveDirectory::new(self)
    }
}

/// Where and how the server answers.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// `iss` of local tokens: without a slash at its end.
    pub public_url: String,
    /// Empty, or a path such as `/identity/api/v1` at which the API is served as well as at `/`.
    pub base_path: String,
    /// Networks whose `Forwarded` and `X-Forwarded-For` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether providers on loopback may be asked over `http`.
    pub allow_insecure_issuers: bool,
    /// Origins of web pages that may call the API, as browsers send them.
    pub cors_origins: Vec<String>,
}

impl ServerSettings {
    /// The addresses below which the API is served.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let mut addresses = vec![self.public_url.clone()];
        if !self.base_path.is_empty() {
            addresses.push(format!("{}{}", self.public_url, self.base_path));
        }
        addresses
    }
}

/// The keys of a table of `[[providers]]`.
#[must_use]
pub fn provider_keys() -> Vec<&'static str> {
    keys_of("providers")
}

/// The keys of a table of `[[clients]]`.
#[must_use]
pub fn client_keys() -> Vec<&'static str> {
    keys_of("clients")
}

fn keys_of(section: &str) -> Vec<&'static str> {
    keys::find_section(section).map(|s| s.keys.iter().map(|key| key.name).collect()).unwrap_or_default()
}

/// A duration as the configuration writes them, such as `90d`, from `least` to `most`.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn duration(name: &str, text: &str, least: &'static str, most: &'static str) -> Result<Duration, String> {
    values::duration(name, text, &Bounds { least, most })
}

/// Reads a configuration file and the variables over it. Variables that do not begin with
/// `COUNTERSIGN_` are left alone.
///
/// # Errors
/// When the file cannot be read, and all that is wrong in it and in the variables.
pub fn load(file: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Settings, ConfigError> {
    let source = std::fs::read_to_string(file)
        .map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
    parse(file, &source, env)
}

/// SHA-256 of `dev-web-secret-for-this-machine-only`, the secret of the development client `dev-web`.
const DEV_SECRET_HASH: &str = "7c2742a82462f848f460a0dd3cb335eccb4d3bb6017a7c80598ba831a5d8cded";

/// The settings of `serve --dev` without a file: all data in `root/data`, scripts in `root/policies`,
/// one tenant, the development issuer of this very server as provider `dev`, and no limit of sign-ins, since
/// all come from one network. `listen` is
/// 127.0.0.1:8080 when it is not given.
///
/// # Errors
/// When the address is not loopback, or has no port yet: the issuer's name contains it.
pub fn dev_settings(root: &Path, listen: Option<SocketAddr>) -> Result<Settings, ConfigError> {
    let listen = listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
    let refuse = |reason| Err(ConfigError::DevListen { listen, reason });
    if !listen.ip().is_loopback() {
        return refuse("its issuer signs for anybody, so it stays on this machine; use 127.0.0.1");
    }
    if listen.port() == 0 {
        return refuse("the issuer's name holds the port; bind first and give the port that came of it");
    }
    let source = format!(
        r#"
        [server]
        listen = "{listen}"
        public_url = "http://{listen}"
        allow_insecure_issuers = true
        [limits]
        sign_ins_per_minute = 0
        [[tenants]]
        id = "default"
        [[providers]]
        name = "dev"
        issuer = "http://{listen}/dev/issuer"
        client_ids = ["dev-client"]
        test_mode = true
        [[clients]]
        id = "dev-app"
        kind = "native"
        providers = ["dev"]
        audiences = ["https://api.example.com"]
        [[clients]]
        id = "dev-web"
        kind = "web"
        secret_hash = "{DEV_SECRET_HASH}"
        providers = ["dev"]
        "#
    );
    let mut settings = parse(Path::new("--dev"), &source, std::iter::empty())?;
    let database = root.join("data/countersign.db");
    let database = database.to_str().filter(|p| !p.contains(['?', '#', '%']));
    let database = database.ok_or_else(|| ConfigError::DevRoot { root: root.to_owned() })?;
    settings.store_url = format!("sqlite://{database}");
    settings.master_key_file = root.join("data/master.key");
    settings.policies_dir = root.join("policies");
    settings.keys_cache_dir = root.join("data/provider-keys");
    Ok(settings)
}

fn parse(file: &Path, source: &str, env: impl Iterator<Item = (String, String)>) -> Result<Settings, ConfigError> {
    let layers = Layers::read(file, source, env)?;
    let mut findings = Findings::default();
    let settings = settings(&layers, &mut findings);
    findings.check()?;
    settings.ok_or_else(|| {
        findings.add(layers.file(), "the configuration is not complete");
        findings.check().err().unwrap_or(ConfigError::Invalid(Vec::new()))
    })
}

/// `None` only when something was found; goes on after a finding, so that all are told.
fn settings(layers: &Layers, findings: &mut Findings) -> Option<Settings> {
    let server = server(&layers.table("server"), findings);
    let tenants = tenants(layers, findings);
    let allow_insecure = layers.table("server").flag("allow_insecure_issuers");
    let file_providers = providers(layers, &tenants, Upstream { allow_insecure }, findings);
    let providers = file_providers.iter().filter(|p| p.enabled).map(|p| Arc::clone(&p.provider)).collect();
    let clients = clients::read_all(layers, &tenants, findings);
    let store = layers.table("store").text("url")?;
    let store_url = findings.take(&store.at, values::store_url(&store.value));
    let tokens = tokens(&layers.table("tokens"), findings);
    let master_key_file = path(&layers.table("secrets"), "master_key_file", findings);
    let network_limit = limits::read(&layers.table("limits"), findings);
    let policies_dir = path(&layers.table("policies"), "dir", findings);
    let policy_signers = signers(&layers.table("policies"), findings);
    let keep_records = keep_records(&layers.table("records"), findings);
    let plugins_lock = path(&layers.table("plugins"), "lock", findings);
    let plugins_secrets_dir = path(&layers.table("plugins"), "secrets_dir", findings);
    let geoip_city = path(&layers.table("geoip"), "city", findings);
    let geoip_asn = path(&layers.table("geoip"), "asn", findings);
    let granted_networks = networks(&layers.table("network"), "granted", values::granted_network, findings);
    let keys_cache = layers.table("keys_cache");
    let keys_cache_dir = match keys_cache.text("dir") {
        Some(_) => path(&keys_cache, "dir", findings),
        None => master_key_file.as_deref().map(|file| file.with_file_name("provider-keys")),
    };
    let server = server?;
    let (mut tokens, signing_algorithm, rotate_signing_key_every) = tokens?;
    tokens.issuer.clone_from(&server.public_url);
    Some(Settings {
        server,
        store_url: store_url?,
        master_key_file: master_key_file?,
        tokens,
        signing_algorithm,
        rotate_signing_key_every,
        network_limit: network_limit?,
        policies_dir: policies_dir?,
        policy_signers: Arc::new(policy_signers?),
        keep_records: keep_records?,
        plugins_lock,
        plugins_secrets_dir,
        geoip_city,
        geoip_asn,
        granted_networks,
        keys_cache_dir: keys_cache_dir?,
        tenants,
        providers,
        file_providers,
        clients,
    })
}

/// A tenant of the administration API may be among them, so they are not looked up here.
fn signers(table: &Table<'_>, findings: &mut Findings) -> Option<Signers> {
    let written = table.list("signing_keys");
    let decode = |key: &String| BASE64.decode(key.as_bytes()).ok()?.try_into().ok();
    let keys: Option<Vec<[u8; KEY_BYTES]>> = written.value.iter().map(decode).collect();
    if keys.is_none() {
        let message = "signing_keys holds something that is no Ed25519 public key in base64, 44 characters; \
                       `countersign policy sign --key FILE --public-key` prints it";
        findings.add(&written.at, message);
    }
    let needed = table.list("require_signature");
    if !needed.value.is_empty() && written.value.is_empty() {
        findings.add(&needed.at, "require_signature needs signing_keys: nothing could be activated");
    }
    let tenant = |id: &String| findings.take(&needed.at, TenantId::parse(id).map_err(|error| error.to_string()));
    let required = match needed.value.iter().any(|id| id == "*") {
        true => Required::All,
        false => Required::Tenants(needed.value.iter().map(tenant).collect::<Option<_>>()?),
    };
    Some(Signers { keys: keys?, required })
}

fn server(table: &Table<'_>, findings: &mut Findings) -> Option<ServerSettings> {
    let listen = table.text("listen")?;
    let listen = findings.take(&listen.at, values::listen(&listen.value));
    let public_url = if let Some(w) = table.text("public_url") {
        findings.take(&w.at, values::public_url(&w.value))
    } else {
        findings.add(
            &table.at,
            "public_url is missing in [server]; write the address that clients use: \"https://id.example.com\"",
        );
        None
    };
    let base_path = table.text("base_path")?;
    let base_path = findings.take(&base_path.at, values::base_path(&base_path.value));
    let trusted_proxies = networks(table, "trusted_proxies", values::trusted_proxy, findings);
    let origins = table.list("cors_origins");
    let cors_origins: Vec<_> =
        origins.value.iter().filter_map(|o| findings.take(&origins.at, values::cors_origin(o))).collect();
    Some(ServerSettings {
        listen: listen?,
        public_url: public_url?,
        base_path: base_path?,
        trusted_proxies,
        allow_insecure_issuers: table.flag("allow_insecure_issuers"),
        cors_origins,
    })
}

fn tokens(
    table: &Table<'_>,
    findings: &mut Findings,
) -> Option<(TokenSettings, SigningAlgorithm, Option<Duration>)> {
    let rotate = table.text("rotate_signing_key_every")?;
    let rotate = match rotate.value.as_str() {
        "never" => Some(None),
        text => {
            let bounds = Bounds { least: "1h", most: "400d" };
            findings.take(&rotate.at, values::duration("rotate_signing_key_every", text, &bounds)).map(Some)
        }
    };
    let mut duration = |name, least, most| {
        let w = table.text(name)?;
        findings.take(&w.at, values::duration(name, &w.value, &Bounds { least, most }))
    };
    let access_ttl = duration("access_ttl", "1m", "24h");
    let refresh_ttl = duration("refresh_ttl", "1m", "400d");
    let refresh_grace = duration("refresh_grace", "0s", "60s");
    let w = table.text("signing_algorithm")?;
    let known = [SigningAlgorithm::EdDsa, SigningAlgorithm::Es256, SigningAlgorithm::Rs256].map(|a| (a.name(), a));
    let algorithm = findings.take(&w.at, values::choice("signing_algorithm", &w.value, &known, &[]));
    let (access_ttl, refresh_ttl) = (access_ttl?, refresh_ttl?);
    if refresh_ttl < access_ttl {
        let at = table.text("refresh_ttl")?.at;
        findings.add(&at, "refresh_ttl is shorter than access_ttl; it must be at least as long");
    }
    let settings = TokenSettings { issuer: String::new(), access_ttl, refresh_ttl, refresh_grace: refresh_grace? };
    Some((settings, algorithm?, rotate?))
}

fn networks(
    table: &Table<'_>,
    name: &str,
    read: fn(&str) -> Result<IpNet, String>,
    findings: &mut Findings,
) -> Vec<IpNet> {
    let written = table.list(name);
    written.value.iter().filter_map(|text| findings.take(&written.at, read(text))).collect()
}

fn keep_records(table: &Table<'_>, findings: &mut Findings) -> Option<Duration> {
    let w = table.text("keep")?;
    findings.take(&w.at, values::duration("keep", &w.value, &Bounds { least: "0d", most: "400d" }))
}

fn path(table: &Table<'_>, name: &str, findings: &mut Findings) -> Option<PathBuf> {
    let w = table.text(name)?;
    if w.value.is_empty() {
        findings.add(&w.at, format!("{name} is empty; name a file or directory, or leave the key out"));
        return None;
    }
    Some(PathBuf::from(w.value))
}

/// The tenants; one named `default` when there is no table.
fn tenants(layers: &Layers, findings: &mut Findings) -> Vec<Arc<Tenant>> {
    let tables = layers.tables("tenants");
    let mut tenants: Vec<Arc<Tenant>> = Vec::with_capacity(tables.len().max(1));
    let mut hosts_seen: HashMap<String, TenantId> = HashMap::new();
    for table in &tables {
        let Some(id) = table.text("id") else {
            findings.add(&table.at, "id is missing in [[tenants]]; write one such as id = \"default\"");
            continue;
        };
        let parsed = TenantId::parse(&id.value).map_err(|e| format!("id = \"{}\": {e}", id.value));
        let Some(tenant_id) = findings.take(&id.at, parsed) else { continue };
        if tenants.iter().any(|t| t.id == tenant_id) {
            findings.add(&id.at, format!("tenant \"{tenant_id}\" is there already; give each its own id"));
            continue;
        }
        let written = table.list("hosts");
        let mut hosts = Vec::with_capacity(written.value.len());
        for host in &written.value {
            let Some(host) = findings.take(&written.at, values::host(host)) else { continue };
            match hosts_seen.insert(host.clone(), tenant_id.clone()) {
                Some(other) => {
                    findings.add(&written.at, format!("host \"{host}\" is named already by tenant \"{other}\""))
                }
                None => hosts.push(host),
            }
        }
        let sessions = session_limits(table, findings);
        tenants.push(Arc::new(Tenant { id: tenant_id, hosts, sessions }));
    }
    if tables.is_empty()
        && let Ok(id) = TenantId::parse(TenantId::DEFAULT)
    {
        tenants.push(Arc::new(Tenant { id, hosts: Vec::new(), sessions: SessionLimits::default() }));
    }
    tenants
}

fn session_limits(table: &Table<'_>, findings: &mut Findings) -> SessionLimits {
    let mut duration = |name: &str| {
        let w = table.text(name)?;
        findings.take(&w.at, session_duration(name, &w.value))
    };
    let (idle, absolute) = (duration("session_idle"), duration("session_ttl"));
    let per_user = table.number("max_sessions").and_then(|w| findings.take(&w.at, session_count(w.value)));
    SessionLimits { idle, absolute, per_user }
}

fn session_duration(name: &str, text: &str) -> Result<Duration, String> {
    values::duration(name, text, &Bounds { least: "1m", most: "400d" })
}

fn session_count(number: i64) -> Result<u32, String> {
    let fine = u32::try_from(number).ok().filter(|n| (1..=1000).contains(n));
    fine.ok_or_else(|| format!("max_sessions = {number} is out of bounds; it must be from 1 to 1000"))
}

/// All providers. A disabled one is checked as well, but for its client ids.
fn providers(
    layers: &Layers,
    tenants: &[Arc<Tenant>],
    upstream: Upstream,
    findings: &mut Findings,
) -> Vec<FileProvider> {
    let mut names: HashMap<(TenantId, Arc<str>), String> = HashMap::new();
    let mut providers = Vec::new();
    for table in layers.tables("providers") {
        let Some(read) = providers::read(&table, tenants, upstream, findings) else { continue };
        let key = (read.provider.tenant.clone(), Arc::clone(&read.provider.name));
        if let Some(first) = names.insert(key, read.at.clone()) {
            let (name, tenant) = (&read.provider.name, &read.provider.tenant);
            findings.add(
                &read.at,
                format!(
                    "provider \"{name}\" of tenant \"{tenant}\" is there already at {first}; give each its own name"
                ),
            );
        }
        let (provider, enabled) = (Arc::new(read.provider), read.enabled);
        providers.push(FileProvider { provider, enabled, written: table.written_members() });
    }
    providers
}
