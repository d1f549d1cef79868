//! Tenants, providers and clients as the sign-in path asks for them: those of the file, and those of the
//! administration API by the very same rules. A snapshot, swapped whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use data_encoding::HEXLOWER;
use serde_json::{Map, Value};

use super::layers::Layers;
use super::problem::{ConfigError, Findings};
use super::values::{self, Upstream};
use super::{Settings, clients, providers, session_count, session_duration};
use crate::admin::clients::{ClientEntry, StoredClient};
use crate::admin::directory::{
    DirectoryRules, ManagedBy, ProviderEntry, StoredDirectory, StoredProvider, TenantEntry, TenantTerms,
    WrittenTenant,
};
use crate::ids::TenantId;
use crate::session::SessionLimits;
use crate::session::clients::{Client, ClientKind};
use crate::signin::ports::{Directory, InForce};
use crate::signin::provider::{Provider, Tenant};

/// A provider of the file.
#[derive(Debug, Clone)]
pub struct FileProvider {
    /// Checked.
    pub provider: Arc<Provider>,
    /// As the file and the environment say.
    pub enabled: bool,
    /// As they are written there.
    pub written: Map<String, Value>,
}

/// The directory of the running server.
#[derive(Debug)]
pub struct LiveDirectory {
    tenants: Vec<Arc<Tenant>>,
    providers: Vec<FileProvider>,
    clients: Vec<Arc<Client>>,
    upstream: Upstream,
    now: ArcSwap<Snapshot>,
}

/// Everything at one version of the store.
#[derive(Debug, Default)]
struct Snapshot {
    version: i64,
    by_id: BTreeMap<String, TenantEntry>,
    by_host: HashMap<String, Arc<Tenant>>,
    of_tenant: HashMap<TenantId, OfTenant>,
}

/// What belongs to one tenant.
#[derive(Debug, Default)]
struct OfTenant {
    providers: BTreeMap<Arc<str>, ProviderEntry>,
    clients: BTreeMap<Arc<str>, ClientEntry>,
    enabled: Vec<Arc<Provider>>,
    disabled: Vec<Arc<Provider>>,
    in_force: Arc<InForce>,
}

impl LiveDirectory {
    /// Of the file alone, until the store's part is installed.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let directory = Self {
            tenants: settings.tenants.clone(),
            providers: settings.file_providers.clone(),
            clients: settings.clients.clone(),
            upstream: Upstream { allow_insecure: settings.server.allow_insecure_issuers },
            now: ArcSwap::default(),
        };
        directory.install(StoredDirectory::default());
        directory
    }

    fn judge(
        &self,
        tenant: &Arc<Tenant>,
        name: &str,
        settings: &Map<String, Value>,
        mut findings: Findings,
    ) -> Result<providers::Read, Vec<String>> {
        let layers = read_table("providers", &[("tenant", tenant.id.as_str()), ("name", name)], settings)?;
        let tenants = std::slice::from_ref(tenant);
        let tables = layers.tables("providers");
        let read = tables.first().and_then(|table| providers::read(table, tenants, self.upstream, &mut findings));
        complete(read, findings)
    }

    fn known_tenant(&self, id: &TenantId) -> Result<Arc<Tenant>, Vec<String>> {
        let entry = self.now.load().by_id.get(id.as_str()).map(|e| Arc::clone(&e.tenant));
        entry.ok_or_else(|| vec!["no tenant has this name".to_owned()])
    }

    fn file_entry(&self, file: &FileProvider, off: &HashSet<(TenantId, String)>) -> ProviderEntry {
        let provider = &file.provider;
        let switched_off = off.contains(&(provider.tenant.clone(), provider.name.to_string()));
        ProviderEntry {
            tenant: provider.tenant.clone(),
            name: Arc::clone(&provider.name),
            managed_by: ManagedBy::Config,
            settings: file.written.clone(),
            enabled: file.enabled && !switched_off,
            provider: Some(Arc::clone(provider)),
            switched_off,
            problems: Vec::new(),
            times: None,
        }
    }

    fn api_entry(&self, tenant: &Arc<Tenant>, stored: StoredProvider) -> ProviderEntry {
        let before = self.now.load();
        let before = before.of_tenant.get(&tenant.id).and_then(|of| of.providers.get(stored.name.as_str()));
        let same = before.filter(|e| {
            let one = e.provider.as_ref().is_none_or(|provider| provider.generation == stored.generation);
            e.managed_by == ManagedBy::Api && e.settings == stored.settings && one
        });
        let (provider, enabled, problems) = match same {
            Some(entry) => (entry.provider.clone(), entry.enabled, entry.problems.clone()),
            None => match self.judge(tenant, &stored.name, &stored.settings, Findings::of_kept()) {
                Ok(read) => {
                    let provider = Provider { generation: stored.generation, ..read.provider };
                    (Some(Arc::new(provider)), read.enabled, Vec::new())
                }
                Err(problems) => (None, false, problems),
            },
        };
        ProviderEntry {
            tenant: stored.tenant,
            name: stored.name.into(),
            managed_by: ManagedBy::Api,
            settings: stored.settings,
            provider,
            enabled,
            switched_off: false,
            problems,
            times: Some(stored.times),
        }
    }
}

/// A JSON table as one table of a section of the file, with what the address tells.
fn read_table(section: &str, told: &[(&str, &str)], settings: &Map<String, Value>) -> Result<Layers, Vec<String>> {
    let mut all = settings.clone();
    for &(key, value) in told {
        if all.insert(key.to_owned(), value.into()).is_some_and(|given| given != value) {
            return Err(vec![format!("{key} is told by the address; take it out")]);
        }
    }
    all.retain(|_, value| !value.is_null());
    let document = Map::from_iter([(section.to_owned(), Value::Array(vec![all.into()]))]);
    let text = toml::to_string(&document).map_err(|error| vec![format!("the settings cannot be read: {error}")])?;
    Layers::read(Path::new("settings"), &text, std::iter::empty()).map_err(messages)
}

fn complete<T>(read: Option<T>, mut findings: Findings) -> Result<T, Vec<String>> {
    findings.check().map_err(messages)?;
    read.ok_or_else(|| vec!["the settings are not complete".to_owned()])
}

fn messages(error: ConfigError) -> Vec<String> {
    match error {
        ConfigError::Invalid(findings) => findings.into_iter().map(|f| f.message).collect(),
        other => vec![other.to_string()],
    }
}

/// What a client's settings may not say: the server makes its secrets.
const SECRET_HASH: &str = "secret_hash";

fn judge_client(
    tenant: &Arc<Tenant>,
    id: &str,
    settings: &Map<String, Value>,
    secret_hashes: &[[u8; 32]],
) -> Result<Client, Vec<String>> {
    let mut all = settings.clone();
    let hashes: Vec<_> = secret_hashes.iter().map(|hash| HEXLOWER.encode(hash)).collect();
    if all.insert(SECRET_HASH.to_owned(), hashes.into()).is_some() {
        return Err(vec!["secret_hash is not taken here: the server makes the secret; take it out".to_owned()]);
    }
    let layers = read_table("clients", &[("tenant", tenant.id.as_str()), ("id", id)], &all)?;
    let mut findings = Findings::default();
    let tables = layers.tables("clients");
    let read = tables.first().and_then(|table| clients::read(table, std::slice::from_ref(tenant), &mut findings));
    complete(read, findings)
}

fn file_client(client: &Arc<Client>) -> ClientEntry {
    ClientEntry {
        tenant: client.tenant.clone(),
        id: Arc::clone(&client.id),
        managed_by: ManagedBy::Config,
        settings: clients::written(client),
        secret_hashes: client.secret_hashes.clone(),
        client: Some(Arc::clone(client)),
        problems: Vec::new(),
        times: None,
    }
}

fn api_client(tenant: &Arc<Tenant>, stored: StoredClient) -> ClientEntry {
    let StoredClient { id, settings, secret_hashes, generation, times, .. } = stored;
    let (client, problems) = match judge_client(tenant, &id, &settings, &secret_hashes) {
        Ok(client) => (Some(Arc::new(Client { generation, ..client })), Vec::new()),
        Err(problems) => (None, problems),
    };
    let (tenant, id, times) = (tenant.id.clone(), id.into(), Some(times));
    ClientEntry { tenant, id, managed_by: ManagedBy::Api, settings, secret_hashes, client, problems, times }
}

impl DirectoryRules for LiveDirectory {
    fn version(&self) -> i64 {
        self.now.load().version
    }

    fn install(&self, stored: StoredDirectory) {
        let mut snapshot = Snapshot { version: stored.version, ..Snapshot::default() };
        let of_file = |tenant: &Arc<Tenant>| TenantEntry {
            tenant: Arc::clone(tenant),
            managed_by: ManagedBy::Config,
            times: None,
        };
        let of_api = stored.tenants.into_iter().map(|t| TenantEntry {
            tenant: Arc::new(Tenant { id: t.id, hosts: t.terms.hosts, sessions: t.terms.sessions }),
            managed_by: ManagedBy::Api,
            times: Some(t.times),
        });
        for entry in self.tenants.iter().map(of_file).chain(of_api) {
            snapshot.add_tenant(entry);
        }
        let off: HashSet<_> = stored.switched_off.into_iter().collect();
        for file in &self.providers {
            snapshot.add_provider(self.file_entry(file, &off));
        }
        for provider in stored.providers {
            let Some(tenant) = snapshot.by_id.get(provider.tenant.as_str()).map(|e| Arc::clone(&e.tenant)) else {
                tracing::error!(tenant.id = %provider.tenant, provider.name = provider.name, "a provider of a tenant that is gone is not served");
                continue;
            };
            snapshot.add_provider(self.api_entry(&tenant, provider));
        }
        for client in &self.clients {
            snapshot.add_client(file_client(client));
        }
        for client in stored.clients {
            let Some(tenant) = snapshot.by_id.get(client.tenant.as_str()).map(|e| Arc::clone(&e.tenant)) else {
                tracing::error!(tenant.id = %client.tenant, client.id = client.id, "a client of a tenant that is gone is not served");
                continue;
            };
            snapshot.add_client(api_client(&tenant, client));
        }
        for of_tenant in snapshot.of_tenant.values_mut() {
            of_tenant.sort();
        }
        self.now.store(Arc::new(snapshot));
    }

    fn tenant_entries(&self) -> Vec<TenantEntry> {
        self.now.load().by_id.values().cloned().collect()
    }

    fn provider_entries(&self, tenant: &TenantId) -> Vec<ProviderEntry> {
        let now = self.now.load();
        now.of_tenant.get(tenant).map(|of| of.providers.values().cloned().collect()).unwrap_or_default()
    }

    fn client_entries(&self, tenant: &TenantId) -> Vec<ClientEntry> {
        let now = self.now.load();
        now.of_tenant.get(tenant).map(|of| of.clients.values().cloned().collect()).unwrap_or_default()
    }

    fn client_kind(&self, settings: &Map<String, Value>) -> Option<ClientKind> {
        let layers = read_table("clients", &[], settings).ok()?;
        let kind = layers.tables("clients").first()?.text("kind")?.value;
        ClientKind::ALL.into_iter().find(|known| known.as_str() == kind)
    }

    fn check_client(
        &self,
        tenant: &TenantId,
        id: &str,
        settings: &Map<String, Value>,
        secret_hashes: &[[u8; 32]],
    ) -> Result<Client, Vec<String>> {
        judge_client(&self.known_tenant(tenant)?, id, settings, secret_hashes)
    }

    fn check_tenant(&self, id: &TenantId, written: &WrittenTenant) -> Result<TenantTerms, Vec<String>> {
        let now = self.now.load();
        let mut problems = Vec::new();
        let mut fine: Vec<String> = Vec::with_capacity(written.hosts.len());
        for host in &written.hosts {
            match values::host(host) {
                Err(problem) => problems.push(problem),
                Ok(host) => match now.by_host.get(&host) {
                    Some(holder) if holder.id != *id => {
                        problems.push(format!("host \"{host}\" is named already by another tenant"));
                    }
                    _ if fine.contains(&host) => problems.push(format!("host \"{host}\" is named twice")),
                    _ => fine.push(host),
                },
            }
        }
        let mut duration = |name: &str, text: &Option<String>| {
            let read = session_duration(name, text.as_deref()?);
            read.map_err(|problem| problems.push(problem)).ok()
        };
        let idle = duration("session_idle", &written.session_idle);
        let absolute = duration("session_ttl", &written.session_ttl);
        let per_user = written
            .max_sessions
            .and_then(|number| session_count(number).map_err(|problem| problems.push(problem)).ok());
        let sessions = SessionLimits { idle, absolute, per_user };
        if problems.is_empty() { Ok(TenantTerms { hosts: fine, sessions }) } else { Err(problems) }
    }

    fn check_provider(
        &self,
        tenant: &TenantId,
        name: &str,
        settings: &Map<String, Value>,
    ) -> Result<Provider, Vec<String>> {
        self.judge(&self.known_tenant(tenant)?, name, settings, Findings::default()).map(|read| read.provider)
    }
}

impl Snapshot {
    /// Who comes first holds the name and the hosts: the file before the store.
    fn add_tenant(&mut self, entry: TenantEntry) {
        let tenant = &entry.tenant;
        if self.by_id.contains_key(tenant.id.as_str()) {
            tracing::error!(tenant.id = %tenant.id, "a tenant of the store is not served: the file has one of its name");
            return;
        }
        for host in &tenant.hosts {
            let holder = self.by_host.entry(host.to_ascii_lowercase()).or_insert_with(|| Arc::clone(tenant));
            if holder.id != tenant.id {
                tracing::error!(tenant.id = %tenant.id, holder.id = %holder.id, "a host is named by two tenants; the first keeps it");
            }
        }
        self.by_id.insert(tenant.id.as_str().to_owned(), entry);
    }

    fn add_provider(&mut self, entry: ProviderEntry) {
        let of_tenant = self.of_tenant.entry(entry.tenant.clone()).or_default();
        if of_tenant.providers.contains_key(&entry.name) {
            tracing::error!(tenant.id = %entry.tenant, provider.name = %entry.name, "a provider of the store is not served: the file has one of its name");
            return;
        }
        if !entry.problems.is_empty() {
            tracing::error!(tenant.id = %entry.tenant, provider.name = %entry.name, problems = entry.problems.join("; "), "a provider of the store is not served");
        }
        of_tenant.providers.insert(Arc::clone(&entry.name), entry);
    }

    fn add_client(&mut self, entry: ClientEntry) {
        let of_tenant = self.of_tenant.entry(entry.tenant.clone()).or_default();
        if of_tenant.clients.contains_key(&entry.id) {
            tracing::error!(tenant.id = %entry.tenant, client.id = %entry.id, "a client of the store is not served: the file has one of its client_id");
            return;
        }
        if !entry.problems.is_empty() {
            tracing::error!(tenant.id = %entry.tenant, client.id = %entry.id, problems = entry.problems.join("; "), "a client of the store is not served");
        }
        of_tenant.clients.insert(Arc::clone(&entry.id), entry);
    }
}

impl OfTenant {
    fn sort(&mut self) {
        for entry in self.providers.values() {
            let Some(provider) = entry.provider.clone() else { continue };
            if entry.enabled { &mut self.enabled } else { &mut self.disabled }.push(provider);
        }
        let clients = self.clients.values().filter_map(|entry| entry.client.as_ref());
        self.in_force = Arc::new(InForce {
            providers: self.enabled.iter().map(|p| (Arc::clone(&p.name), p.generation)).collect(),
            clients: clients.map(|c| (Arc::clone(&c.id), Arc::clone(c))).collect(),
        });
    }
}

impl Directory for LiveDirectory {
    /// A header decides alone: when it names no tenant, neither host nor default is tried.
    fn find_tenant(&self, header: Option<&str>, host: Option<&str>) -> Option<Arc<Tenant>> {
        let now = self.now.load();
        let by_id = |id: &str| now.by_id.get(id).map(|entry| Arc::clone(&entry.tenant));
        if let Some(header) = header {
            return by_id(header);
        }
        let by_host = host.and_then(|h| {
            let plain = h.trim_start_matches('[').trim_end_matches(']');
            now.by_host.get(&plain.strip_suffix('.').unwrap_or(plain).to_ascii_lowercase()).cloned()
        });
        by_host.or_else(|| by_id(TenantId::DEFAULT))
    }

    fn providers(&self, tenant: &TenantId) -> Vec<Arc<Provider>> {
        self.now.load().of_tenant.get(tenant).map(|of| of.enabled.clone()).unwrap_or_default()
    }

    fn disabled_providers(&self, tenant: &TenantId) -> Vec<Arc<Provider>> {
        self.now.load().of_tenant.get(tenant).map(|of| of.disabled.clone()).unwrap_or_default()
    }

    fn in_force(&self, tenant: &TenantId) -> Arc<InForce> {
        self.now.load().of_tenant.get(tenant).map(|of| Arc::clone(&of.in_force)).unwrap_or_default()
    }

    fn find_client(&self, tenant: &TenantId, id: &str) -> Option<Arc<Client>> {
        self.now.load().of_tenant.get(tenant)?.clients.get(id)?.client.clone()
    }
}
