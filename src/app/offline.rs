//! The sign-in path without a server, for commands that look at a token or a provider. Nothing is written: the
//! store is opened for reading alone, and copies of plugins go to a folder that is removed at the end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::likelihood::CountKeeper;
use super::{StartError, keys};
use crate::admin::audit::{Author, Change};
use crate::admin::directory::{DirectoryRules, DirectoryStore};
use crate::clock::{Clock, SystemClock, UnixTime};
use crate::config::{LiveDirectory, Settings, master_key};
use crate::geo::GeoDatabases;
use crate::ids::{EventId, KeyId, TenantId};
use crate::oidc::{FetchSettings, FetchSetupError, Fetcher, KeyCache};
use crate::plugin_host::{PluginHost, PluginKeys, Services};
use crate::scripts::PolicyHost;
use crate::secret::{Entropy, Secret, SystemEntropy};
use crate::session::issue::TokenIssuer;
use crate::session::keys::{KeyRing, SigningAlgorithm};
use crate::session::ports::{KeyReplacement, SigningKeys, StoredSigningKey};
use crate::signin::assessment::AssessedSignIn;
use crate::signin::audit::Stage;
use crate::signin::decision::Decision;
use crate::signin::facts::Facts;
use crate::signin::history::Pseudonyms;
use crate::signin::likelihood::Commonness;
use crate::signin::nonce::NonceIssuer;
use crate::signin::pipeline::{Pipeline, Preview};
use crate::signin::ports::{
    AfterDecision, DecisionLog, Directory, GeoLookup, KeySource, Outcomes, ReplayGuard, SealedDecision, StoreError,
    TenantCounts, Users,
};
use crate::signin::provider::Provider;
use crate::signin::request::SignInRequest;
use crate::store::{OpenError, Peek, Store, StoreOptions};
use crate::vault::Vault;

/// The path with the real store, keys and plugins behind it, for reading.
pub struct Offline {
    pipeline: Pipeline,
    directory: Arc<LiveDirectory>,
    store: Arc<Store>,
    peek: Peek,
    _copies: Option<tempfile::TempDir>,
}

impl Offline {
    /// Opens what the server would open; `at` is the moment to walk at, the present one by default. The
    /// policies are those that are activated in the store, or the folder's alone, as in development.
    ///
    /// # Errors
    /// The first part that cannot be opened, and how to mend it.
    pub async fn open(settings: &Settings, at: Option<UnixTime>, activated: bool) -> Result<Self, StartError> {
        let vault = Vault::new(master_key(&settings.master_key_file, false, &SystemEntropy)?);
        let store = Store::open_read_only(&StoreOptions { url: settings.store_url.clone() }).await?;
        let policies = PolicyHost::load(&settings.policies_dir)?;
        if activated {
            policies.take_over(&*store).await?;
        }
        let directory = Arc::new(directory_with(settings, &store).await?);
        let (plugins, copies) = load_plugins(settings, Some(&store))?;
        let plugins = Arc::new(plugins);
        let cache = Arc::new(KeyCache::new(fetcher(settings)?, Arc::new(SystemClock)));
        let counts = CountKeeper::new(Arc::clone(&store), Arc::new(SystemClock));
        directory.tenant_entries().iter().for_each(|entry| drop(counts.find(&entry.tenant.id)));
        counts.refresh().await?;
        let world = World {
            directory: Arc::<LiveDirectory>::clone(&directory),
            keys: Arc::new(PluginKeys::new(Arc::clone(&plugins), cache, Arc::new(SystemClock))),
            plugins,
            geo: databases(settings)?,
            users: Arc::<Store>::clone(&store),
            counts,
            outcomes: Arc::<Store>::clone(&store),
            nonces: NonceIssuer::new(store.kept_key(&vault, keys::NONCES).await?),
            pseudonyms: Pseudonyms::new(store.kept_key(&vault, keys::PSEUDONYMS).await?),
        };
        let clock: Arc<dyn Clock> = match at {
            Some(moment) => Arc::new(Standing(moment)),
            None => Arc::new(SystemClock),
        };
        let pipeline = pipeline(settings, clock, policies, world).await?;
        Ok(Self { pipeline, directory, peek: Peek(Arc::clone(&store)), store, _copies: copies })
    }

    /// Tenants and providers, as the server has them.
    #[must_use]
    pub fn directory(&self) -> &LiveDirectory {
        &self.directory
    }

    /// Walks one sign-in up to its decision.
    pub async fn preview(&self, request: &SignInRequest) -> Preview {
        self.pipeline.preview(request, &self.peek).await
    }

    /// Lets go of the store.
    pub async fn close(self) {
        self.store.close().await;
    }
}

/// What differs between walks without a server.
pub struct World {
    /// Tenants and providers.
    pub directory: Arc<dyn Directory>,
    /// Provider keys.
    pub keys: Arc<dyn KeySource>,
    /// Plugins.
    pub plugins: Arc<PluginHost>,
    /// Places.
    pub geo: Arc<dyn GeoLookup>,
    /// Users.
    pub users: Arc<dyn Users>,
    /// What is common in a tenant.
    pub counts: Arc<dyn TenantCounts>,
    /// Writes; a preview never comes to them.
    pub outcomes: Arc<dyn Outcomes>,
    /// Server-issued nonces.
    pub nonces: NonceIssuer,
    /// Keyed hashes.
    pub pseudonyms: Pseudonyms,
}

/// The real path around a world. It signs nothing, so its signing key is a throw-away one.
///
/// # Errors
/// When no key can be made.
pub async fn pipeline(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    policies: PolicyHost,
    world: World,
) -> Result<Pipeline, StartError> {
    let policies = Arc::new(policies);
    let scratch = Vault::new(Secret::random(Vault::MASTER_KEY_BYTES, &SystemEntropy));
    let ring =
        KeyRing::load(&Scratch::default(), &scratch, SigningAlgorithm::EdDsa, clock.now(), &SystemEntropy).await;
    let ring = ring.map_err(|e| StartError::Keys { source: e.0 })?;
    Ok(Pipeline {
        clock,
        entropy: Arc::new(SystemEntropy),
        directory: world.directory,
        keys: world.keys,
        replays: Arc::new(Nobody),
        verifiers: Arc::<PluginHost>::clone(&world.plugins),
        enricher: Arc::<PluginHost>::clone(&world.plugins),
        mapper: Arc::<PolicyHost>::clone(&policies),
        users: world.users,
        counts: world.counts,
        geo: world.geo,
        signals: Arc::<PluginHost>::clone(&world.plugins),
        // Nobody is told: a preview is no sign-in.
        observer: Arc::new(PluginHost::none()),
        channels: world.plugins,
        rules: policies,
        outcomes: world.outcomes,
        decisions: Arc::new(Nobody),
        after: Arc::new(Nobody),
        issuer: Arc::new(TokenIssuer { settings: settings.tokens.clone(), ring: Arc::new(ring) }),
        nonces: world.nonces,
        pseudonyms: world.pseudonyms,
    })
}

/// The path for an audit of a provider: its rules, mapping and policies, a stage instead of the store, and no
/// plugin, since a plugin could write.
///
/// # Errors
/// When policies or databases do not load, or the store that holds the activated policies does not open.
pub async fn audited(settings: &Settings, provider: &Provider, activated: bool) -> Result<Pipeline, StartError> {
    let policies = PolicyHost::load(&settings.policies_dir)?;
    if activated {
        match Store::open_read_only(&StoreOptions { url: settings.store_url.clone() }).await {
            Ok(store) => {
                let taken = policies.take_over(&*store).await;
                store.close().await;
                taken?;
            }
            // Before the first start there is nothing but the folder.
            Err(OpenError::Absent { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    staged(settings, provider, policies, databases(settings)?).await
}

/// The same with policies and databases that are loaded.
///
/// # Errors
/// When TLS cannot be set up on this machine.
pub async fn staged(
    settings: &Settings,
    provider: &Provider,
    policies: PolicyHost,
    geo: Arc<dyn GeoLookup>,
) -> Result<Pipeline, StartError> {
    let now = SystemClock.now();
    let vault = Vault::new(Secret::random(Vault::MASTER_KEY_BYTES, &SystemEntropy));
    let stage = Arc::new(Stage::new(provider, now));
    let world = World {
        directory: Arc::new(settings.directory()),
        keys: Arc::new(KeyCache::new(fetcher(settings)?, Arc::new(SystemClock))),
        plugins: Arc::new(PluginHost::none()),
        geo,
        users: Arc::<Stage>::clone(&stage),
        counts: Arc::new(Nobody),
        outcomes: stage,
        nonces: NonceIssuer::new(vault.derive(keys::NONCES)),
        pseudonyms: Pseudonyms::new(vault.derive(keys::PSEUDONYMS)),
    };
    pipeline(settings, Arc::new(Standing(now)), policies, world).await
}

fn databases(settings: &Settings) -> Result<Arc<dyn GeoLookup>, StartError> {
    let geo = GeoDatabases::open(settings.geoip_city.as_deref(), settings.geoip_asn.as_deref())?;
    Ok(Arc::new(geo))
}

/// Tenants and providers of the file, and those that administrators made and switched off.
///
/// # Errors
/// When the store cannot be read.
pub async fn directory_with(settings: &Settings, store: &Store) -> Result<LiveDirectory, StartError> {
    let directory = settings.directory();
    directory.install(DirectoryStore::load(store).await.map_err(StartError::Read)?);
    Ok(directory)
}

/// The same for a command that needs no store: before the first start there is the file alone.
///
/// # Errors
/// When the store is there and cannot be read.
pub async fn directory(settings: &Settings) -> Result<LiveDirectory, StartError> {
    match Store::open_read_only(&StoreOptions { url: settings.store_url.clone() }).await {
        Ok(store) => {
            let directory = directory_with(settings, &store).await;
            store.close().await;
            directory
        }
        Err(OpenError::Absent { .. }) => Ok(settings.directory()),
        Err(error) => Err(error.into()),
    }
}

/// The client for outbound fetches, as the server has it.
///
/// # Errors
/// When TLS cannot be set up on this machine.
pub fn fetcher(settings: &Settings) -> Result<Fetcher, FetchSetupError> {
    Fetcher::new(FetchSettings {
        allow_insecure_issuers: settings.server.allow_insecure_issuers,
        granted_networks: settings.granted_networks.clone(),
        timeout: Duration::from_secs(3),
    })
}

/// The plugins, from copies in a folder that goes away with the second value. They keep nothing: the host's
/// store of values is out of reach for them.
///
/// # Errors
/// The first plugin that is not what the lock file says.
pub fn load_plugins(
    settings: &Settings,
    store: Option<&Arc<Store>>,
) -> Result<(PluginHost, Option<tempfile::TempDir>), StartError> {
    let Some(lock) = &settings.plugins_lock else { return Ok((PluginHost::none(), None)) };
    let copies = tempfile::tempdir().map_err(StartError::Scratch)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let services = match store {
        Some(store) => super::plugins::services(settings, store, &clock, &entropy),
        None => Services { secrets_dir: settings.plugins_secrets_dir.clone(), ..Services::default() },
    };
    let plugins = PluginHost::load(lock, &copies.path().join("plugins"), Services { kv: None, ..services })?;
    Ok((plugins, Some(copies)))
}

/// A clock that stands.
pub struct Standing(pub UnixTime);

impl Clock for Standing {
    fn now(&self) -> UnixTime {
        self.0
    }
}

/// Remembers nothing: a walk that would spend a token here ends in a refusal.
struct Nobody;

#[async_trait]
impl ReplayGuard for Nobody {
    async fn remember(&self, _: [u8; 32], _: UnixTime, _: UnixTime) -> Result<bool, StoreError> {
        Ok(false)
    }
}

/// A preview keeps no decision.
impl DecisionLog for Nobody {
    fn freeze(&self, _: EventId, _: &AssessedSignIn, _: &Decision) -> Option<SealedDecision> {
        None
    }
}

impl TenantCounts for Nobody {
    fn find(&self, _: &TenantId) -> Option<Arc<Commonness>> {
        None
    }
}

impl AfterDecision for Nobody {
    fn decided(&self, _: EventId, _: &Arc<Facts>, _: &'static str) {}
}

/// Holds the throw-away signing key.
#[derive(Default)]
struct Scratch(Mutex<Vec<StoredSigningKey>>);

#[async_trait]
impl SigningKeys for Scratch {
    async fn load(&self) -> Result<Vec<StoredSigningKey>, StoreError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn add_after(&self, _: Option<KeyId>, key: StoredSigningKey) -> Result<bool, StoreError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        Ok(true)
    }

    async fn replace(&self, _: KeyReplacement, _: Author, _: Change) -> Result<bool, StoreError> {
        Err(StoreError("the throw-away key of a command is not rotated".into()))
    }

    async fn remove(&self, _: Vec<KeyId>) -> Result<(), StoreError> {
        Ok(())
    }
}
