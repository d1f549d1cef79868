//! Joins core and edges: the only file, besides the commands, that names all of them.

mod audit;
mod development;
pub mod keys;
pub mod likelihood;
pub mod offline;
mod plugins;
mod recorder;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use poem::endpoint::BoxEndpoint;
use tokio::net::TcpListener;

use self::keys::Opened;
use self::likelihood::CountKeeper;
use crate::admin::directory::DirectoryService;
use crate::admin::failures::FailedKeys;
use crate::admin::keys::KeyCheck;
use crate::clock::{Clock, SystemClock};
use crate::config::{LiveDirectory, MasterKeyFile, Settings};
use crate::dev::{self};
use crate::geo::GeoDatabases;
use crate::hashing::{Argon2Hasher, Cost};
use crate::http::{self, Administration, Readiness, State, serve};
use crate::mfa::delivery::CodeSender;
use crate::mfa::enrol::Enrolment;
use crate::mfa::verify::ChallengeVerifier;
use crate::oidc::{KeyCache, KeyFiles, Probe};
use crate::people::devices::DeviceService;
use crate::people::identities::IdentityService;
use crate::people::invitations::InvitationService;
use crate::people::passwords::PasswordService;
use crate::plugin_host::{self, PluginHost, PluginKeys};
use crate::policy::ports::PolicyStore;
use crate::policy::service::PolicyService;
use crate::scripts::follow::{Follower, Progress};
use crate::scripts::lab::Lab;
use crate::scripts::shadow::Shadows;
use crate::scripts::watch::{WatchGuard, watch};
use crate::scripts::{PolicyHost, bundle};
use crate::secret::{Entropy, SystemEntropy};
use crate::session::bearer::BearerCheck;
use crate::session::dpop::DpopCheck;
use crate::session::issue::TokenIssuer;
use crate::session::refresh::SessionService;
use crate::session::rotation::KeyKeeper;
use crate::session::upstream::UpstreamEvents;
use crate::signin::history::Pseudonyms;
use crate::signin::networks::Networks;
use crate::signin::nonce::NonceIssuer;
use crate::signin::pipeline::Pipeline;
use crate::signin::ports::{AfterDecision, DecisionLog, Directory, GeoLookup, StoreError};
use crate::store::Store;
use crate::store::decisions::DecisionRecords;
use crate::store::policies::OpenedDecisions;
use audit::{Auditor, Parts};

/// The user that `serve --dev` makes, and its subject at the development issuer.
pub const DEV_USER: &str = "ada";

/// Why the server does not start. The text tells what to mend.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Configuration.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The store.
    #[error("store: {0}")]
    Store(#[from] crate::store::OpenError),
    /// Policies.
    #[error("policies: {0}")]
    Policies(#[from] crate::scripts::LoadError),
    /// Plugins.
    #[error("plugins: {0}")]
    Plugins(#[from] plugin_host::PluginLoadError),
    /// GeoIP databases.
    #[error("geoip: {0}")]
    Geo(#[from] crate::geo::GeoError),
    /// The client for outbound fetches.
    #[error("outbound fetches: {0}")]
    Fetch(#[from] crate::oidc::FetchSetupError),
    /// Signing keys.
    #[error("signing keys: {0}; is [secrets] master_key_file the one that this store was made with?", .source)]
    Keys {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The development issuer.
    #[error("development issuer: {0}")]
    Dev(#[from] dev::DevError),
    /// The store, after it was opened.
    #[error("store: {0}")]
    Read(#[from] StoreError),
    /// No folder for copies of plugins.
    #[error("a temporary folder could not be made: {0}")]
    Scratch(#[source] std::io::Error),
    /// A thread.
    #[error("no thread could be started: {0}")]
    Thread(std::io::Error),
    /// Metrics were set up before.
    #[error("metrics: {0}")]
    Metrics(String),
}

/// The store and all that can be done with policies, for commands that work beside a running server.
///
/// # Errors
/// When the master key or the store cannot be opened.
pub async fn open_policies(settings: &Settings) -> Result<(Arc<Store>, PolicyService, MasterKeyFile), StartError> {
    let Opened { store, vault, master_key } = keys::open(settings, false, &SystemEntropy).await?;
    let pseudonyms = Pseudonyms::new(store.kept_key(&vault, keys::PSEUDONYMS).await?);
    let records = Arc::new(DecisionRecords::new(vault, pseudonyms, settings.keep_records));
    let service = policy_service(settings, &store, records, Arc::new(SystemClock));
    Ok((store, service, master_key))
}

fn policy_service(
    settings: &Settings,
    store: &Arc<Store>,
    records: Arc<DecisionRecords>,
    clock: Arc<dyn Clock>,
) -> PolicyService {
    let dir = settings.policies_dir.clone();
    PolicyService {
        clock,
        store: Arc::<Store>::clone(store),
        audit: Arc::<Store>::clone(store),
        decisions: Arc::new(OpenedDecisions { store: Arc::clone(store), records }),
        lab: Arc::new(Lab),
        folder: Arc::new(move || bundle::read_folder(&dir).map_err(|error| error.to_string())),
        signers: Arc::clone(&settings.policy_signers),
    }
}

/// A server that is ready to listen.
pub struct App {
    endpoint: BoxEndpoint<'static>,
    store: Arc<Store>,
    policies: Arc<PolicyHost>,
    plugins: Arc<PluginHost>,
    keeper: Arc<KeyKeeper>,
    counts: Arc<CountKeeper>,
    watch: (Option<WatchGuard>, Option<plugin_host::WatchGuard>),
    /// What looks for changes beside the requests: keys, the directory, counts of sign-ins, policies.
    running: (AbortOnDrop, AbortOnDrop, AbortOnDrop, AbortOnDrop, Option<(String, AbortOnDrop)>),
    _master_key: MasterKeyFile,
}

/// What differs in development.
pub struct Development {
    /// Where the server is reached: the development issuer stands below it.
    pub address: SocketAddr,
}

impl App {
    /// Opens the store, loads policies and plugins, and joins them. With `development`, adds the loopback
    /// issuer, its user, the development headers and the watch on the policies folder.
    ///
    /// # Errors
    /// The first part that cannot start, and how to mend it.
    pub async fn start(settings: Settings, development: Option<Development>) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Self::start_with(settings, development, clock, Arc::new(SystemEntropy)).await
    }

    /// The same with time and randomness passed in.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(
        settings: Settings,
        development: Option<Development>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StartError> {
        for provider in settings.providers.iter().filter(|p| p.test_mode && development.is_none()) {
            tracing::warn!(
                tenant.id = %provider.tenant,
                provider.name = %provider.name,
                "test_mode is on: refusals of this provider list every check to whoever sends a token; turn it off for production"
            );
        }
        let policies = Arc::new(PolicyHost::load(&settings.policies_dir)?);
        let Opened { store, vault, master_key } = keys::open(&settings, true, &*entropy).await?;
        let pseudonyms = Pseudonyms::new(store.kept_key(&vault, keys::PSEUDONYMS).await?);
        let nonces = NonceIssuer::new(store.kept_key(&vault, keys::NONCES).await?);
        let keeper = keys::keeper(&settings, &store, &vault, &clock, &entropy).await?;
        let ring = Arc::clone(&keeper.ring);
        let plugins = match &settings.plugins_lock {
            Some(lock) => {
                let services = plugins::services(&settings, &store, &clock, &entropy);
                Arc::new(PluginHost::load(lock, &private_plugin_store(&settings), services)?)
            }
            None => Arc::new(PluginHost::none()),
        };
        let plugin_watch = settings.plugins_lock.as_ref().and_then(|_| plugins::watch(&plugins));
        let geo = GeoDatabases::open(settings.geoip_city.as_deref(), settings.geoip_asn.as_deref())?;
        let fetcher = offline::fetcher(&settings)?;
        let live = Arc::new(settings.directory());
        let directory: Arc<dyn Directory> = Arc::<LiveDirectory>::clone(&live);
        let managed = Arc::new(DirectoryService { store: Arc::<Store>::clone(&store), rules: live });
        managed.refresh().await.map_err(StartError::Read)?;
        let key_files = KeyFiles::new(settings.keys_cache_dir.clone(), vault.derive("provider keys on disk"));
        let provider_keys = KeyCache::with_files(fetcher.clone(), Arc::clone(&clock), key_files);
        let enabled: Vec<_> =
            managed.tenants().iter().flat_map(|entry| directory.providers(&entry.tenant.id)).collect();
        provider_keys.restore(&enabled).await;
        let provider_keys = Arc::new(provider_keys);
        let issuer = Arc::new(TokenIssuer { settings: settings.tokens.clone(), ring });
        let records = Arc::new(DecisionRecords::new(vault.clone(), pseudonyms.clone(), settings.keep_records));
        let counts = CountKeeper::new(Arc::clone(&store), Arc::clone(&clock));
        let shadows = Shadows::start().map_err(StartError::Thread)?;
        let geo: Arc<dyn GeoLookup> = Arc::new(geo);
        let auditor = Auditor::new(Parts {
            settings: settings.clone(),
            store: Arc::clone(&store),
            geo: Arc::clone(&geo),
            activated: development.is_none(),
        });
        let pipeline = Arc::new(Pipeline {
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            directory: Arc::clone(&directory),
            keys: Arc::new(PluginKeys::new(
                Arc::clone(&plugins),
                Arc::<KeyCache>::clone(&provider_keys),
                Arc::clone(&clock),
            )),
            verifiers: Arc::<PluginHost>::clone(&plugins),
            replays: Arc::<Store>::clone(&store),
            enricher: Arc::<PluginHost>::clone(&plugins),
            mapper: Arc::<PolicyHost>::clone(&policies),
            users: Arc::<Store>::clone(&store),
            geo,
            signals: Arc::<PluginHost>::clone(&plugins),
            observer: Arc::<PluginHost>::clone(&plugins),
            channels: Arc::<PluginHost>::clone(&plugins),
            counts: Arc::<CountKeeper>::clone(&counts),
            rules: Arc::<PolicyHost>::clone(&policies),
            outcomes: Arc::<Store>::clone(&store),
            decisions: Arc::clone(&records) as Arc<dyn DecisionLog>,
            after: Arc::clone(&shadows) as Arc<dyn AfterDecision>,
            issuer: Arc::clone(&issuer),
            nonces,
            pseudonyms: pseudonyms.clone(),
        });
        // In development the folder is what counts, whatever was activated.
        let follow_policies = match development {
            Some(_) => None,
            None => {
                let mut node = [0; 8];
                entropy.fill(&mut node);
                let node = format!("nod_{}", data_encoding::HEXLOWER.encode(&node));
                let follower = Follower {
                    host: Arc::clone(&policies),
                    store: Arc::<Store>::clone(&store),
                    shadows,
                    clock: Arc::clone(&clock),
                    entropy: Arc::clone(&entropy),
                    node: node.clone(),
                    cache: private_folder(&settings).join("policy-bundles"),
                    signers: Arc::clone(&settings.policy_signers),
                };
                let mut progress = Progress::default();
                follower.round(&mut progress).await;
                Some((node, AbortOnDrop(tokio::spawn(follower.run(progress)))))
            }
        };
        let (extra, assume, watch) = match development {
            Some(development) => {
                let base = format!("http://{}/dev/issuer", development.address);
                let parts = development::start(base, &store, &vault, &pseudonyms, &clock, &*entropy).await?;
                let guard = match watch(Arc::clone(&policies)) {
                    Ok(guard) => Some(guard),
                    Err(error) => {
                        tracing::warn!(error = %error, "the policies folder is not watched; restart to see a change");
                        None
                    }
                };
                (Some(parts.0), Some(parts.1), guard)
            }
            None => (None, None, None),
        };
        let metrics = recorder::recorder()?;
        let rendered = metrics.clone();
        let state = Arc::new(State {
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            pipeline,
            challenges: ChallengeVerifier {
                clock: Arc::clone(&clock),
                entropy: Arc::clone(&entropy),
                directory: Arc::clone(&directory),
                challenges: Arc::<Store>::clone(&store),
                deliveries: Arc::<Store>::clone(&store),
                channels: Arc::<PluginHost>::clone(&plugins),
                observer: Arc::<PluginHost>::clone(&plugins),
                issuer: Arc::clone(&issuer),
                vault: vault.clone(),
                pseudonyms: pseudonyms.clone(),
            },
            codes: CodeSender {
                directory: Arc::clone(&directory),
                clock: Arc::clone(&clock),
                entropy: Arc::clone(&entropy),
                deliveries: Arc::<Store>::clone(&store),
                channels: Arc::<PluginHost>::clone(&plugins),
                vault: vault.clone(),
                pseudonyms: pseudonyms.clone(),
            },
            sessions: SessionService {
                clock: Arc::clone(&clock),
                entropy: Arc::clone(&entropy),
                directory: Arc::clone(&directory),
                sessions: Arc::<Store>::clone(&store),
                issuer: Arc::clone(&issuer),
                vault: vault.clone(),
            },
            upstream: UpstreamEvents {
                clock: Arc::clone(&clock),
                entropy: Arc::clone(&entropy),
                directory: Arc::clone(&directory),
                sessions: Arc::<Store>::clone(&store),
                observer: Arc::<PluginHost>::clone(&plugins),
            },
            bearer: BearerCheck {
                clock: Arc::clone(&clock),
                issuer,
                directory: Arc::clone(&directory),
                sessions: Arc::<Store>::clone(&store),
                dpop: Arc::new(DpopCheck {
                    clock: Arc::clone(&clock),
                    replays: Arc::<Store>::clone(&store),
                    bases: settings.server.addresses(),
                }),
            },
            policies: policy_service(&settings, &store, records, Arc::clone(&clock)),
            admin: Administration {
                keys: KeyCheck {
                    clock: Arc::clone(&clock),
                    entropy: Arc::clone(&entropy),
                    keys: Arc::<Store>::clone(&store),
                    failed: FailedKeys::default(),
                },
                audit: Arc::<Store>::clone(&store),
                directory: Arc::clone(&managed),
                users: Arc::<Store>::clone(&store),
                sign_ins: Arc::<Store>::clone(&store),
                probe: Arc::new(Probe { fetcher, keys: provider_keys }),
                audits: Arc::new(auditor),
                plugins: Arc::<PluginHost>::clone(&plugins),
            },
            enrolment: Enrolment {
                clock: Arc::clone(&clock),
                entropy: Arc::clone(&entropy),
                factors: Arc::<Store>::clone(&store),
                vault,
                issuer_name: "Countersign".to_owned(),
            },
            identities: IdentityService {
                clock: Arc::clone(&clock),
                identities: Arc::<Store>::clone(&store),
                directory: Arc::clone(&directory),
            },
            invitations: InvitationService {
                clock: Arc::clone(&clock),
                entropy: Arc::clone(&entropy),
                invitations: Arc::<Store>::clone(&store),
                directory,
            },
            passwords: PasswordService {
                clock: Arc::clone(&clock),
                passwords: Arc::<Store>::clone(&store),
                hasher: Arc::new(Argon2Hasher::new(Cost::RECOMMENDED, hashes_at_once(), Arc::clone(&entropy))),
                rules: Arc::<PolicyHost>::clone(&policies),
            },
            devices: DeviceService {
                clock: Arc::clone(&clock),
                entropy: Arc::clone(&entropy),
                devices: Arc::<Store>::clone(&store),
                pseudonyms: pseudonyms.clone(),
                rules: Arc::<PolicyHost>::clone(&policies),
            },
            ready: Arc::new(StoreReadiness(Arc::clone(&store))),
            keys: Arc::clone(&keeper),
            render_metrics: Box::new(move || rendered.render()),
            networks: Networks::new(settings.network_limit.clone()),
            trusted_proxies: settings.server.trusted_proxies.clone(),
            assume,
        });
        let server = &settings.server;
        let endpoint = http::endpoint(state, &server.base_path, &server.cors_origins, extra);
        let look = AbortOnDrop(tokio::spawn(keys::look_always(Arc::clone(&keeper))));
        let follow = AbortOnDrop(tokio::spawn(follow_directory(managed)));
        let count = AbortOnDrop(tokio::spawn(Arc::clone(&counts).run()));
        let keep_up = AbortOnDrop(tokio::spawn(recorder::keep_up(metrics)));
        Ok(Self {
            endpoint,
            store,
            policies,
            plugins,
            keeper,
            watch: (watch, plugin_watch),
            counts,
            running: (look, follow, count, keep_up, follow_policies),
            _master_key: master_key,
        })
    }

    /// The store, for commands and tests.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The signing keys.
    #[must_use]
    pub fn keys(&self) -> &Arc<KeyKeeper> {
        &self.keeper
    }

    /// The policies in force.
    #[must_use]
    pub fn policies(&self) -> &Arc<PolicyHost> {
        &self.policies
    }

    /// What is common in each tenant.
    #[must_use]
    pub fn counts(&self) -> &Arc<CountKeeper> {
        &self.counts
    }

    /// The plugins.
    #[must_use]
    pub fn plugins(&self) -> &Arc<PluginHost> {
        &self.plugins
    }

    /// Serves until `stop` resolves; then requests finish, and the store is closed.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        serve::serve(listener, self.endpoint, stop).await;
        let (look, follow, count, keep_up, node) = self.running;
        let node = node.map(|(node, _running)| node);
        drop((self.watch, look, follow, count, keep_up));
        if let Some(node) = node
            && let Err(error) = self.store.leave(&node).await
        {
            tracing::warn!(error = %error.0, "other servers may wait for this one at the next activation");
        }
        self.store.close().await;
    }
}

/// Half of the processors, so that passwords never take all of them.
fn hashes_at_once() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get() / 2).max(1)
}

/// How often a node looks whether another one changed tenants or providers.
const DIRECTORY_POLL: Duration = Duration::from_millis(400);

/// Keeps tenants and providers as the store has them. Without the store they stay as they were: nothing
/// can be signed in or refreshed then either.
async fn follow_directory(directory: Arc<DirectoryService>) {
    let mut tick = tokio::time::interval(DIRECTORY_POLL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tick.tick().await;
        match directory.refresh().await {
            Ok(changed) => {
                failing = false;
                if changed {
                    tracing::info!("tenants and providers were changed");
                }
            }
            Err(error) if !failing => {
                failing = true;
                tracing::error!(error = %error, "the store does not tell of changed tenants and providers");
            }
            Err(_) => {}
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct StoreReadiness(Arc<Store>);

#[async_trait]
impl Readiness for StoreReadiness {
    async fn check(&self) -> Result<(), StoreError> {
        self.0.ping().await
    }
}

/// Plugin copies stand beside the master key: a folder that nobody else writes to.
fn private_plugin_store(settings: &Settings) -> PathBuf {
    private_folder(settings).join("plugins")
}

fn private_folder(settings: &Settings) -> &Path {
    settings.master_key_file.parent().unwrap_or(Path::new("."))
}

/// Whether only this machine reaches the address.
#[must_use]
pub fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().is_loopback()
}
