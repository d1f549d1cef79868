//! From a file to a running instance: look at the file, hash it, compare, copy, and only then load.
//!
//! The hash is taken of the very bytes that are copied, and the copy is what is loaded; a library's
//! constructors run when it is loaded, so nothing may be loaded before the hash was compared.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use data_encoding::HEXLOWER;

use super::error::{HandshakeFault, PluginLoadError};
use super::instance::{self, Instance, Opened};
use super::lock::{Entry, Isolation};
use super::manifest::Manifest;
use super::marker::{Label, Marker};
use super::plugin::{Plugin, Runner};
use super::pool::Pool;
use super::process::{Process, Spec};
use super::services::{Granted, HostServices, Service, Services};
use super::wire::Start;
use crate::secret::sha256;

/// The most that a plugin's file may have.
const FILE_LIMIT_BYTES: u64 = 256 << 20;
const START_LIMIT: Duration = Duration::from_secs(10);
const GROUP_AND_WORLD_WRITABLE: u32 = 0o022;

/// Opens without waiting: a pipe in the place of a file would keep the server until somebody writes to it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)
}

fn io_error(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> PluginLoadError {
    let path = path.to_owned();
    move |source| PluginLoadError::Io { path, what, source }
}

fn others_can_write(of: &Metadata) -> bool {
    of.mode() & GROUP_AND_WORLD_WRITABLE != 0
}

/// The text of the lock file, which others must not be able to change, nor to put another in its place. It may be a
/// symbolic link.
pub(super) fn read_lock_text(lock: &Path) -> Result<String, PluginLoadError> {
    let mut file = open(lock).map_err(io_error(lock, "the plugin lock cannot be opened"))?;
    let metadata = file.metadata().map_err(io_error(lock, "the plugin lock cannot be looked at"))?;
    if !metadata.is_file() || others_can_write(&metadata) {
        let what = "the plugin lock must be a file that neither group nor others can write; chmod go-w";
        return Err(PluginLoadError::Unsafe { path: lock.to_owned(), what });
    }
    let place = fs::canonicalize(lock).map_err(io_error(lock, "the plugin lock cannot be found"))?;
    let directory = place.parent().unwrap_or(Path::new("/"));
    let around =
        fs::metadata(directory).map_err(io_error(directory, "the lock's directory cannot be looked at"))?;
    if others_can_write(&around) {
        let what = "group or others can write the directory of the plugin lock; chmod go-w";
        return Err(PluginLoadError::Unsafe { path: directory.to_owned(), what });
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(io_error(lock, "the plugin lock cannot be read"))?;
    Ok(text)
}

/// The bytes of a file that others cannot change, and their SHA-256. Opened once.
pub(super) fn read_checked(file: &Path) -> Result<(Vec<u8>, [u8; 32]), PluginLoadError> {
    let refuse = |what| Err(PluginLoadError::Unsafe { path: file.to_owned(), what });
    let seen = fs::symlink_metadata(file).map_err(io_error(file, "the plugin cannot be found"))?;
    if seen.file_type().is_symlink() {
        return refuse("a plugin must not be a symbolic link; name the file itself");
    }
    if !seen.is_file() {
        return refuse("a plugin must be a regular file");
    }
    let opened = open(file).map_err(io_error(file, "the plugin cannot be opened"))?;
    let metadata = opened.metadata().map_err(io_error(file, "the plugin cannot be looked at"))?;
    // Between the look and the opening someone may have put something else there.
    if (metadata.dev(), metadata.ino()) != (seen.dev(), seen.ino()) {
        return refuse("the plugin was exchanged while it was opened; try again");
    }
    if others_can_write(&metadata) {
        return refuse("group or others can write this plugin; chmod go-w");
    }
    if metadata.len() > FILE_LIMIT_BYTES {
        return refuse("a plugin has at most 256 MiB; strip debug information");
    }
    let directory = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let around =
        fs::metadata(directory).map_err(io_error(directory, "the plugin's directory cannot be looked at"))?;
    if others_can_write(&around) {
        let what = "group or others can write this plugin directory; chmod go-w";
        return Err(PluginLoadError::Unsafe { path: directory.to_owned(), what });
    }
    let mut bytes = Vec::new();
    let mut limited = opened.take(FILE_LIMIT_BYTES + 1);
    limited.read_to_end(&mut bytes).map_err(io_error(file, "the plugin cannot be read"))?;
    if bytes.len() as u64 > FILE_LIMIT_BYTES {
        return refuse("the plugin grew while it was read");
    }
    let hash = sha256(&bytes);
    Ok((bytes, hash))
}

/// The private directory for copies: made with mode 0700, or found with it.
pub(super) fn prepare_store(store: &Path) -> Result<PathBuf, PluginLoadError> {
    match DirBuilder::new().mode(0o700).create(store) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(io_error(store, "the private directory for plugins cannot be made")(e)),
    }
    let found =
        fs::symlink_metadata(store).map_err(io_error(store, "the private directory cannot be looked at"))?;
    if !found.is_dir() || found.mode() & 0o077 != 0 {
        let what = "the private directory for plugins must be a directory, not a link, with mode 0700; chmod 700";
        return Err(PluginLoadError::Unsafe { path: store.to_owned(), what });
    }
    // The loader searches for a name without a slash, and ours must mean this file.
    fs::canonicalize(store).map_err(io_error(store, "the private directory has no absolute path"))
}

/// Writes the private copy, named by its hash. One that is there already is replaced whole, never
/// written into: it may be mapped.
pub(super) fn keep_copy(store: &Path, bytes: &[u8], hash: &[u8; 32]) -> Result<PathBuf, PluginLoadError> {
    write_copy(copy_path(store, hash), store, bytes)
}

/// The same for a library that is loaded into this process. The loader gives the mapping that it has for a path, with
/// what an instance may have left in the library's variables; so each time after the first has a path of its own.
fn keep_own_copy(store: &Path, bytes: &[u8], hash: &[u8; 32]) -> Result<PathBuf, PluginLoadError> {
    static LOADED: Mutex<BTreeMap<PathBuf, u32>> = Mutex::new(BTreeMap::new());
    let plain = copy_path(store, hash);
    let times = {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let times = loaded.entry(plain.clone()).or_default();
        *times += 1;
        *times
    };
    let own = if times == 1 { plain } else { plain.with_extension(format!("{times}.so")) };
    write_copy(own, store, bytes)
}

fn copy_path(store: &Path, hash: &[u8; 32]) -> PathBuf {
    store.join(format!("{}.so", HEXLOWER.encode(hash)))
}

fn write_copy(copy: PathBuf, store: &Path, bytes: &[u8]) -> Result<PathBuf, PluginLoadError> {
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(store)?;
        file.write_all(bytes)?;
        file.as_file().set_permissions(Permissions::from_mode(0o500))?;
        file.persist(&copy).map_err(|e| e.error)
    };
    write().map_err(io_error(&copy, "the private copy of a plugin cannot be written"))?;
    Ok(copy)
}

/// What a start needs besides the entry.
pub(super) struct Ground<'a> {
    pub(super) store: &'a Path,
    pub(super) services: &'a Services,
    pub(super) marker: &'a Arc<Marker>,
}

/// Checks, copies and starts one plugin.
pub(super) fn load(entry: Entry, ground: &Ground<'_>) -> Result<Plugin, PluginLoadError> {
    let copy = check_and_copy(&entry, ground.store)?;
    start(&entry, copy, ground).map(|(runner, traits)| Plugin::new(entry.clone(), runner, traits)).map_err(
        |fault| PluginLoadError::Refused {
            id: entry.id.clone(),
            file: entry.file.clone(),
            sha256: HEXLOWER.encode(&entry.sha256),
            fault: Box::new(fault),
        },
    )
}

/// Loads a plugin into this process for a command, which ends with it.
pub(super) fn load_for_command(entry: Entry, services: &Services) -> Result<Plugin, PluginLoadError> {
    let directory = tempfile::tempdir();
    let store = directory.map_err(io_error(&entry.file, "no private directory for a copy can be made"))?;
    let marker = Marker::open(store.path(), services.clock.now());
    let (marker, _) = marker.map_err(io_error(store.path(), "the private directory cannot be used"))?;
    load(entry, &Ground { store: store.path(), services, marker: &marker })
}

/// Whether the file is the one that the lock names.
pub(super) fn check(entry: &Entry) -> Result<(), PluginLoadError> {
    read_locked(entry).map(drop)
}

/// The private copy of the file that the lock names.
fn check_and_copy(entry: &Entry, store: &Path) -> Result<PathBuf, PluginLoadError> {
    let bytes = read_locked(entry)?;
    match entry.isolation {
        Isolation::InProcess => keep_own_copy(store, &bytes, &entry.sha256),
        Isolation::Process { .. } => keep_copy(store, &bytes, &entry.sha256),
    }
}

/// The bytes of the file that the lock names.
fn read_locked(entry: &Entry) -> Result<Vec<u8>, PluginLoadError> {
    let (bytes, found) = read_checked(&entry.file)?;
    if found != entry.sha256 {
        return Err(PluginLoadError::WrongHash {
            id: entry.id.clone(),
            file: entry.file.clone(),
            locked: HEXLOWER.encode(&entry.sha256),
            found: HEXLOWER.encode(&found),
        });
    }
    Ok(bytes)
}

/// What a plugin says of itself beyond its name.
#[derive(Debug, Clone, Default)]
pub(super) struct Traits {
    pub(super) vendor: String,
    pub(super) is_thread_safe: bool,
    pub(super) may_block: bool,
}

fn start(entry: &Entry, copy: PathBuf, ground: &Ground<'_>) -> Result<(Runner, Traits), HandshakeFault> {
    let services = Arc::new(Granted::new(&entry.id, entry.services.clone(), ground.services.clone()));
    match entry.isolation {
        Isolation::InProcess => {
            let label = Arc::new(Label::new(&entry.id, &HEXLOWER.encode(&entry.sha256)));
            let (instance, traits) = start_here(entry, copy, services, ground.marker, &label)?;
            let pool = Pool::new(&entry.id, entry.max_in_flight.unwrap_or(64));
            let marker = Arc::clone(ground.marker);
            Ok((Runner::Here { instance: Arc::new(instance), pool, marker, label }, traits))
        }
        Isolation::Process { memory_bytes } => {
            let start = Start {
                copy: copy.to_string_lossy().into_owned(),
                identity: Some((entry.id.clone(), entry.version.clone())),
                describe_only: false,
                config_json: entry.config_json.clone(),
                hooks: entry.hooks.iter().map(|h| h.name().to_owned()).collect(),
                threads: entry.max_in_flight.unwrap_or(64),
                memory_bytes,
                offers_fetch: services.offers(Service::Fetch),
                offers_kv: services.offers(Service::KvGet),
            };
            let program = ground.services.program.clone();
            let spec = Spec { program, plugin: entry.id.clone(), start, start_limit: START_LIMIT };
            let (process, started) = Process::start(spec, services)?;
            if Manifest::parse(started.manifest.as_deref()).requests.network {
                return Err(HandshakeFault::NeedsNetwork);
            }
            let traits = Traits {
                vendor: started.vendor,
                is_thread_safe: started.is_thread_safe,
                may_block: started.may_block,
            };
            Ok((Runner::Apart(process), traits))
        }
    }
}

/// Gives the plugin a thread of its own, on which it is loaded, made and, when nobody uses it any more,
/// destroyed. A plugin that hangs while it starts keeps that thread and nothing else.
fn start_here(
    entry: &Entry,
    copy: PathBuf,
    services: Arc<Granted>,
    marker: &Arc<Marker>,
    label: &Arc<Label>,
) -> Result<(Instance, Traits), HandshakeFault> {
    let (id, version) = (entry.id.clone(), entry.version.clone());
    let (config_json, hooks) = (entry.config_json.clone(), entry.hooks.clone());
    let (marker, label) = (Arc::clone(marker), Arc::clone(label));
    let (tell, told) = mpsc::channel();
    let keep = move || {
        let inside = marker.enter(&label, None);
        let made = instance::open(&copy).and_then(|opened| {
            check_identity(&opened, &id, &version)?;
            opened.selftest()?;
            let (instance, ending) = opened.create(&config_json, &hooks, services)?;
            let (is_thread_safe, may_block) = (opened.is_thread_safe(), opened.may_block());
            Ok((instance, Traits { vendor: opened.vendor, is_thread_safe, may_block }, ending))
        });
        drop(inside);
        match made {
            Ok((instance, traits, ending)) => {
                // When nobody waits any more, what was sent is dropped, and the instance with it.
                let _ = tell.send(Ok((instance, traits)));
                ending.wait();
            }
            Err(fault) => {
                let _ = tell.send(Err(fault));
            }
        }
    };
    let name = format!("plugin {}", entry.id);
    std::thread::Builder::new().name(name).spawn(keep).map_err(HandshakeFault::NoThread)?;
    told.recv_timeout(START_LIMIT).unwrap_or(Err(HandshakeFault::TooSlow(START_LIMIT.as_secs())))
}

/// A file that only its owner can read, such as a secret; `None` when there is none.
pub(super) fn read_private(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, PluginLoadError> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path, "the secret cannot be opened")(error)),
    };
    let metadata = file.metadata().map_err(io_error(path, "the secret cannot be looked at"))?;
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 || metadata.len() > limit {
        let what = "a secret must be a file that only its owner can read, of at most 64 KiB; chmod 600";
        return Err(PluginLoadError::Unsafe { path: path.to_owned(), what });
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(io_error(path, "the secret cannot be read"))?;
    Ok(Some(bytes))
}

pub(super) fn check_identity(opened: &Opened, id: &str, version: &str) -> Result<(), HandshakeFault> {
    for (what, found, locked) in [("id", &opened.id, id), ("version", &opened.version, version)] {
        if found != locked {
            return Err(HandshakeFault::NotTheLocked { what, found: found.clone(), locked: locked.to_owned() });
        }
    }
    Ok(())
}
