//! Native plugins: loads the libraries that `plugins.lock` names and asks them during a sign-in.
//!
//! | file | what it does |
//! |---|---|
//! | [`lock`], `lock_grants`, `lock_mfa`, `manifest` | reads `plugins.lock`; writes an entry for a new plugin |
//! | `load`, `reload` | checks a file, keeps a private copy of it, has it started; exchanges what changed |
//! | `instance`, `host_side` | the border: handshake, calls, callbacks; all `unsafe` of the server |
//! | `plugin`, `in_flight`, `pool`, `marker` | one plugin's permits, deadline, stuck calls and threads; who was inside |
//! | `process`, [`child`], `wire`, `confine` | a plugin in a process of its own, from both ends |
//! | `services` | what plugins may ask of the host |
//! | [`check`], `sample`, `schema`, [`template`] | the commands for plugins: try, measure, begin one |
//! | `hook`, `view` | the operations; what a plugin gets to see, as JSON |
//! | `hooks`, `keys`, `pem`, `events` | the ports that the core asks |
//!
//! A plugin in this process shares it: a crash is the host's crash, and a hung call costs a thread until it
//! returns. What is here bounds mistakes, not malice: a lock entry is a decision to trust.
//!
//! Deliberately absent: unloading. A library with a thread-local destructor stays mapped anyway, and one
//! with a `pthread_key` destructor takes the process with it when a thread ends later. So a mapping is
//! leaked on purpose, that of a refused library too.

pub mod check;
pub mod child;
mod confine;
mod error;
mod events;
mod hook;
mod hooks;
mod host_side;
mod in_flight;
mod instance;
mod keys;
mod load;
pub mod lock;
mod lock_grants;
mod lock_mfa;
#[cfg(test)]
mod lock_tests;
mod manifest;
mod marker;
mod pem;
mod plugin;
mod pool;
mod process;
mod reload;
mod sample;
mod schema;
#[cfg(test)]
mod schema_tests;
mod services;
pub mod template;
mod view;
mod wire;

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::admin::plugins::{PluginState, Plugins};

pub use error::{HandshakeFault, PluginLoadError};
pub use keys::PluginKeys;
pub use lock::lock_entry;
pub use reload::{Reloaded, WatchGuard, watch};
pub use services::{FetchFault, FetchGrants, KvUnavailable, PluginHttp, PluginKv, Services};

/// The loaded plugins. Implements the ports of the core: [`Enricher`](crate::signin::ports::Enricher),
/// [`SignalSource`](crate::signin::ports::SignalSource),
/// [`TokenVerifier`](crate::signin::ports::TokenVerifier), [`Observer`](crate::signin::ports::Observer) and
/// [`CodeChannels`](crate::mfa::delivery::CodeChannels).
pub struct PluginHost {
    plugins: Arc<ArcSwap<Vec<Arc<plugin::Plugin>>>>,
    events: events::Events,
    origin: Option<reload::Origin>,
}

/// A loaded plugin, for lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginInfo {
    /// Its identifier.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Who made it, as it says itself.
    pub vendor: String,
    /// SHA-256 of the file, in lower-case hex.
    pub sha256: String,
    /// The hooks that it is asked for, such as `provider.enrich`.
    pub hooks: Vec<String>,
    /// What it delivers, when it has the hooks `mfa.*`: a word of `required_mfa_methods`.
    pub mfa_method: Option<String>,
    /// `in_process` or `process`.
    pub isolation: String,
    /// Its process, when it has one of its own that runs.
    pub pid: Option<u32>,
    /// How often that process died since it last ran for a minute.
    pub process_deaths: u32,
    /// Calls that run now.
    pub in_flight: usize,
    /// Calls that should have returned.
    pub stuck: usize,
    /// Why it is not asked now: kept out, stuck, or being started again.
    pub trouble: Option<String>,
}

impl PluginHost {
    /// Without a lock file nothing is loaded.
    #[must_use]
    pub fn none() -> Self {
        Self::with(Vec::new(), None)
    }

    fn with(plugins: Vec<Arc<plugin::Plugin>>, origin: Option<reload::Origin>) -> Self {
        let plugins = Arc::new(ArcSwap::from_pointee(plugins));
        let events = events::Events::new(&plugins);
        Self { plugins, events, origin }
    }

    /// Reads the lock file (TOML), checks every file, loads every plugin and makes its instance.
    /// Blocks; a plugin has 10 s to start. All or nothing: one bad plugin fails the whole.
    ///
    /// `store` is a private directory (mode 0700, made if absent) for copies named by their hash. The
    /// copies are what is loaded, so a file may be replaced while the server runs.
    ///
    /// A plugin in which the process died twice within five minutes is not loaded but kept out: it is
    /// listed with the operation that it died in, and counts as out of reach.
    ///
    /// # Errors
    /// The first thing that is wrong, with file and line or with file and hash.
    pub fn load(lock: &Path, store: &Path, services: Services) -> Result<Self, PluginLoadError> {
        let (origin, plugins) = reload::Origin::open(lock, store, services)?;
        Ok(Self::with(plugins, Some(origin)))
    }

    fn states(&self) -> Vec<PluginState> {
        let state = |info: PluginInfo| PluginState {
            id: info.id,
            version: info.version,
            vendor: info.vendor,
            sha256: info.sha256,
            hooks: info.hooks,
            mfa_method: info.mfa_method,
            isolation: info.isolation,
            process_deaths: info.process_deaths,
            in_flight: info.in_flight,
            stuck: info.stuck,
            trouble: info.trouble,
        };
        self.describe().into_iter().map(state).collect()
    }

    fn plugins(&self) -> Arc<Vec<Arc<plugin::Plugin>>> {
        self.plugins.load_full()
    }

    /// What is loaded, in the order of the lock file.
    #[must_use]
    pub fn describe(&self) -> Vec<PluginInfo> {
        self.plugins().iter().map(|p| p.info()).collect()
    }
}

impl Plugins for PluginHost {
    fn list(&self) -> Vec<PluginState> {
        self.states()
    }
}
