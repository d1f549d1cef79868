//! Loading by the lock file, and loading again while the server works: what the lock names unchanged goes
//! on, what is new is started first, and then all is exchanged at once. Calls that run on the old one end
//! there; it is destroyed after the last of them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;

use super::PluginHost;
use super::error::PluginLoadError;
use super::load::{self, Ground, Traits};
use super::lock::{self, Entry};
use super::marker::{self, Death, Marker};
use super::plugin::{Plugin, Runner};
use super::services::Services;
use crate::secret::sha256;

/// How long the calls of an exchanged plugin may take before somebody is told.
const DRAIN: Duration = Duration::from_secs(30);
/// Mappings that were left behind, after which a restart is advised.
const RETIRED_ADVICE: usize = 20;
/// How often the lock file is looked at.
const POLL: Duration = Duration::from_secs(1);

/// Where plugins come from.
pub(super) struct Origin {
    lock: PathBuf,
    store: PathBuf,
    services: Services,
    marker: Arc<Marker>,
    deaths: Vec<Death>,
    retired: AtomicUsize,
    /// One at a time.
    reading: Mutex<Read>,
}

/// Locks that were read, by their hash.
struct Read {
    used: [u8; 32],
    /// One that failed after something of a plugin had run.
    refused: Option<[u8; 32]>,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Plugins that were started.
    pub started: Vec<String>,
    /// Plugins that were exchanged or taken out.
    pub retired: Vec<String>,
    /// Plugins that go on.
    pub kept: usize,
}

impl Origin {
    pub(super) fn open(
        lock: &Path,
        store: &Path,
        services: Services,
    ) -> Result<(Self, Vec<Arc<Plugin>>), PluginLoadError> {
        let text = load::read_lock_text(lock)?;
        let entries = lock::parse(lock, &text)?;
        let store = load::prepare_store(store)?;
        let now = services.clock.now();
        let (marker, deaths) = Marker::open(&store, now).map_err(|source| PluginLoadError::Io {
            path: store.clone(),
            what: "the marks of running plugins cannot be kept",
            source,
        })?;
        let reading = Mutex::new(Read { used: sha256(text.as_bytes()), refused: None });
        let retired = AtomicUsize::new(0);
        let origin = Self { lock: lock.to_owned(), store, services, marker, deaths, retired, reading };
        let plugins = entries.into_iter().map(|entry| origin.start(entry)).collect::<Result<_, _>>()?;
        Ok((origin, plugins))
    }

    /// Whether it died inside of this plugin often enough to keep it out.
    fn verdict(&self, entry: &Entry) -> Option<&Death> {
        let now = self.services.clock.now();
        marker::verdict(&self.deaths, &entry.id, &HEXLOWER.encode(&entry.sha256), now)
    }

    fn start(&self, entry: Entry) -> Result<Arc<Plugin>, PluginLoadError> {
        let sha256 = HEXLOWER.encode(&entry.sha256);
        if let Some(death) = self.verdict(&entry) {
            tracing::error!(
                plugin.id = %entry.id,
                plugin.sha256 = %sha256,
                op = %death.op,
                "the server died twice within five minutes with calls inside of this plugin: it is kept out"
            );
            let why = format!("kept out: the server died twice within five minutes inside of its {}", death.op);
            return Ok(Arc::new(Plugin::new(entry, Runner::Nowhere(why), Traits::default())));
        }
        let ground = Ground { store: &self.store, services: &self.services, marker: &self.marker };
        let plugin = load::load(entry, &ground)?;
        tracing::info!(
            plugin.id = %plugin.id(),
            plugin.version = %plugin.entry.version,
            plugin.sha256 = %sha256,
            isolation = plugin.entry.isolation.name(),
            "plugin loaded"
        );
        Ok(Arc::new(plugin))
    }
}

impl PluginHost {
    /// Reads the lock file again and exchanges what changed; `None` when nothing did. Blocks. All or
    /// nothing: with an error everything stays as it is.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn reload(&self) -> Result<Option<Reloaded>, PluginLoadError> {
        let Some(origin) = &self.origin else { return Ok(None) };
        let mut read = origin.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let result = load::read_lock_text(&origin.lock).and_then(|text| self.exchange(origin, &mut read, &text));
        count(&result);
        result
    }

    /// The same for the watch, which remembers what it saw before. A text is used when it was the same twice: an
    /// editor that writes it in place must not have half of the plugins taken out. One that failed after something
    /// of a plugin had run is not tried again: each attempt may leave a library mapped, and a thread that hangs.
    fn reload_settled(&self, seen: &mut Option<[u8; 32]>) -> Result<Option<Reloaded>, PluginLoadError> {
        let Some(origin) = &self.origin else { return Ok(None) };
        let mut read = origin.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let text = load::read_lock_text(&origin.lock).inspect_err(|_| *seen = None)?;
        let hash = sha256(text.as_bytes());
        if seen.replace(hash) != Some(hash) || read.refused == Some(hash) {
            return Ok(None);
        }
        let result = self.exchange(origin, &mut read, &text);
        count(&result);
        result
    }

    fn exchange(&self, origin: &Origin, read: &mut Read, text: &str) -> Result<Option<Reloaded>, PluginLoadError> {
        let hash = sha256(text.as_bytes());
        if hash == read.used {
            return Ok(None);
        }
        let entries = lock::parse(&origin.lock, text)?;
        let old = self.plugins();
        let is_new = |entry: &&Entry| !old.iter().any(|p| p.entry == **entry);
        // Whatever is wrong with files is found before anything of one of them runs.
        for entry in entries.iter().filter(is_new).filter(|entry| origin.verdict(entry).is_none()) {
            load::check(entry)?;
        }
        let mut next = Vec::with_capacity(entries.len());
        let mut started = Vec::new();
        for entry in entries {
            match old.iter().find(|p| p.entry == entry) {
                Some(same) => next.push(Arc::clone(same)),
                None => {
                    let plugin = origin.start(entry).inspect_err(|_| read.refused = Some(hash))?;
                    started.push(plugin.id().to_owned());
                    next.push(plugin);
                }
            }
        }
        let goes_on = |p: &&Arc<Plugin>| next.iter().any(|n| Arc::ptr_eq(n, p));
        let gone: Vec<Arc<Plugin>> = old.iter().filter(|p| !goes_on(p)).map(Arc::clone).collect();
        drop(old);
        self.plugins.store(Arc::new(next));
        *read = Read { used: hash, refused: None };
        let retired: Vec<String> = gone.iter().map(|p| p.id().to_owned()).collect();
        let kept = self.plugins().len() - started.len();
        origin.retire(gone);
        tracing::info!(started = started.join(" "), retired = retired.join(" "), kept, "plugins exchanged");
        Ok(Some(Reloaded { started, retired, kept }))
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.marker.forget();
    }
}

fn count(result: &Result<Option<Reloaded>, PluginLoadError>) {
    let outcome = match result {
        Ok(None) => return,
        Ok(Some(_)) => "ok",
        Err(_) => "refused",
    };
    metrics::counter!("countersign_plugin_reloads_total", "outcome" => outcome).increment(1);
}

impl Origin {
    fn retire(&self, gone: Vec<Arc<Plugin>>) {
        for plugin in &gone {
            // Its calls set it no more; those of its successor do.
            metrics::gauge!("countersign_plugin_stuck_calls", "plugin" => plugin.id().to_owned()).set(0.0);
        }
        let mapped = gone.iter().filter(|p| p.is_mapped()).count();
        let retired = self.retired.fetch_add(mapped, Ordering::Relaxed) + mapped;
        metrics::gauge!("countersign_plugin_retired_mappings").set(u32::try_from(retired).unwrap_or(u32::MAX));
        if retired / RETIRED_ADVICE > (retired - mapped) / RETIRED_ADVICE {
            tracing::warn!(retired, "many exchanged plugins are still mapped; restart when it suits");
        }
        let busy: Vec<Arc<Plugin>> = gone.into_iter().filter(|p| p.is_busy()).collect();
        if busy.is_empty() {
            return;
        }
        let drain = move || {
            let until = Instant::now() + DRAIN;
            while Instant::now() < until && busy.iter().any(|p| p.is_busy()) {
                std::thread::sleep(Duration::from_millis(50));
            }
            for plugin in busy.iter().filter(|p| p.is_busy()) {
                tracing::warn!(plugin.id = plugin.id(), "calls of an exchanged plugin did not end within 30 s");
            }
        };
        let _ = std::thread::Builder::new().name("plugin drain".to_owned()).spawn(drain);
    }
}

/// Watching ends when it is dropped.
pub struct WatchGuard {
    _stop: Sender<()>,
}

/// Looks at the lock file every second, and loads again when its text changed and stayed as it is for that long. A
/// lock that cannot be used is logged once, and the plugins go on as they are.
///
/// # Errors
/// When no thread can be started.
pub fn watch(host: &Arc<PluginHost>) -> std::io::Result<WatchGuard> {
    let (stop, stopped) = channel::<()>();
    let weak = Arc::downgrade(host);
    std::thread::Builder::new().name("plugins".to_owned()).spawn(move || {
        let (mut told, mut seen) = (None, None);
        while stopped.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
            let Some(host) = Weak::upgrade(&weak) else { return };
            let error = host.reload_settled(&mut seen).err().map(|error| error.to_string());
            if let Some(error) = error.as_ref().filter(|e| told.as_ref() != Some(*e)) {
                tracing::error!(error, "plugins not reloaded; the old ones go on");
            }
            told = error;
        }
    })?;
    Ok(WatchGuard { _stop: stop })
}
