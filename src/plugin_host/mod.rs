//! Native plugins: loads the libraries that `plugins.lock` names and asks them during a sign-in.
//!
//! | file | what it does |
//! |---|---|
//! | [`lock`], `manifest` | reads `plugins.lock`; writes an entry for a new plugin |
//! | `load` | checks a file, keeps a private copy of it, has it started |
//! | `instance` | the border: handshake, calls, callbacks; all `unsafe` of the server |
//! | `plugin`, `pool` | one plugin's permits, deadline, stuck calls and threads |
//! | `view` | what a plugin gets to see, as JSON |
//! | `hooks` | the ports that the core asks |
//!
//! A plugin shares the process: a crash is the host's crash, and a hung call costs a thread until it
//! returns. What is here bounds mistakes, not malice: a lock entry is a decision to trust.
//!
//! Deliberately absent: unloading. A library with a thread-local destructor stays mapped anyway, and one
//! with a `pthread_key` destructor takes the process with it when a thread ends later. So a mapping is
//! leaked on purpose, that of a refused library too.

mod error;
mod hooks;
mod instance;
mod load;
pub mod lock;
mod manifest;
mod plugin;
mod pool;
mod view;

use std::path::Path;
use std::sync::Arc;

pub use error::{HandshakeFault, PluginLoadError};
pub use lock::lock_entry;

/// The loaded plugins. Implements the ports [`Enricher`](crate::signin::ports::Enricher) and
/// [`SignalSource`](crate::signin::ports::SignalSource).
#[derive(Default)]
pub struct PluginHost {
    plugins: Vec<Arc<plugin::Plugin>>,
}

/// A loaded plugin, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginInfo {
    /// Its identifier.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Who made it, as it says itself.
    pub vendor: String,
    /// SHA-256 of the file, in lower-case hex.
    pub sha256: String,
    /// The hooks that it is asked for: `provider.enrich`, `signal.signals`.
    pub hooks: Vec<String>,
}

impl PluginHost {
    /// Without a lock file nothing is loaded.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads the lock file (TOML), checks every file, loads every plugin and makes its instance.
    /// Blocks; a plugin has 10 s to start. All or nothing: one bad plugin fails the whole.
    ///
    /// `store` is a private directory (mode 0700, made if absent) for copies named by their hash. The
    /// copies are what is loaded, so a file may be replaced while the server runs.
    ///
    /// # Errors
    /// The first thing that is wrong, with file and line or with file and hash.
    pub fn load(lock: &Path, store: &Path) -> Result<Self, PluginLoadError> {
        let entries = lock::read(lock)?;
        if entries.is_empty() {
            return Ok(Self::none());
        }
        let store = load::prepare_store(store)?;
        let mut plugins = Vec::with_capacity(entries.len());
        for entry in entries {
            let plugin = load::load(entry, &store)?;
            let info = plugin.info();
            tracing::info!(
                plugin.id = %info.id,
                plugin.version = %info.version,
                plugin.sha256 = %info.sha256,
                "plugin loaded"
            );
            plugins.push(Arc::new(plugin));
        }
        Ok(Self { plugins })
    }

    /// What is loaded, in the order of the lock file.
    #[must_use]
    pub fn describe(&self) -> Vec<PluginInfo> {
        self.plugins.iter().map(|p| p.info().clone()).collect()
    }
}
