//! Which plugin was entered last, should the process die in it.
//!
//! A crash in native code takes the process along, so what is written here must be there before the call: in pages
//! of a file that the process shares with the system, which outlive the process. At the next start the
//! places that were not cleared name the suspects; two deaths in five minutes keep a plugin from being
//! loaded. A process that is killed from outside in the middle of a call looks the same.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::hook::Hook;
use super::instance::SharedPages;
use super::load;
use crate::clock::UnixTime;

/// So many deaths …
const DEATHS: usize = 2;
/// … within so long keep a plugin out.
const WINDOW: Duration = Duration::from_secs(300);
const PLACES: usize = 256;
const PLACE_BYTES: usize = 160;
const RUNNING: &str = "running-";
const DEATHS_FILE: &str = "deaths";
const TURN_FILE: &str = "starting";
/// More than the deaths of five minutes take.
const DEATHS_LIMIT_BYTES: u64 = 256 << 10;

/// The places of this process.
pub(super) struct Marker {
    /// Locked as long as the process lives.
    _file: File,
    path: PathBuf,
    places: SharedPages,
    free: Mutex<Vec<usize>>,
}

/// A death that an earlier process left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Death {
    pub(super) at: UnixTime,
    pub(super) plugin: String,
    pub(super) sha256: String,
    pub(super) op: String,
}

impl Death {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let at = UnixTime::from_millis(words.next()?.parse().ok()?);
        let (plugin, sha256, op) = (words.next()?, words.next()?, words.next()?);
        Some(Self { at, plugin: plugin.to_owned(), sha256: sha256.to_owned(), op: op.to_owned() })
    }

    fn line(&self) -> String {
        format!("{} {} {} {}\n", self.at.as_millis(), self.plugin, self.sha256, self.op)
    }
}

impl Marker {
    /// Reads what dead processes left in the private directory, and takes places there.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub(super) fn open(store: &Path, now: UnixTime) -> io::Result<(Arc<Self>, Vec<Death>)> {
        // One server at a time: two that start at once would count a death twice.
        let turn = File::options().create(true).truncate(false).write(true).open(store.join(TURN_FILE))?;
        turn.lock()?;
        let deaths = gather(store, now)?;
        let mut file = tempfile::Builder::new().prefix(RUNNING).tempfile_in(store)?;
        file.write_all(&[0; PLACES * PLACE_BYTES])?;
        let (file, path) = file.keep().map_err(|e| e.error)?;
        file.lock()?;
        let places = SharedPages::map(&file, PLACES * PLACE_BYTES)?;
        let free = (0..PLACES).rev().collect();
        Ok((Arc::new(Self { _file: file, path, places, free: Mutex::new(free) }), deaths))
    }

    /// The process ends in an orderly way: what is inside of plugins now is no suspect.
    pub(super) fn forget(&self) {
        let _ = fs::remove_file(&self.path);
    }

    /// Marks that the plugin is entered, until the guard goes.
    pub(super) fn enter(self: &Arc<Self>, label: &Label, op: Option<Hook>) -> Inside {
        let place = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(place) = place {
            self.places.write(place * PLACE_BYTES, &label.0[op.map_or(0, |op| op as usize + 1)]);
        }
        Inside { marker: Arc::clone(self), place }
    }
}

/// What is written for a plugin, made once.
pub(super) struct Label(Vec<Vec<u8>>);

impl Label {
    pub(super) fn new(plugin: &str, sha256: &str) -> Self {
        let ops = std::iter::once("start").chain(Hook::ALL.iter().map(|h| h.name()));
        Self(ops.map(|op| format!("{plugin} {sha256} {op}\n").into_bytes()).collect())
    }
}

/// A call is inside of a plugin.
pub(super) struct Inside {
    marker: Arc<Marker>,
    place: Option<usize>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        self.marker.places.write(place * PLACE_BYTES, &[0]);
        self.marker.free.lock().unwrap_or_else(PoisonError::into_inner).push(place);
    }
}

/// The death that keeps a plugin out, if there were enough of them.
pub(super) fn verdict<'d>(deaths: &'d [Death], plugin: &str, sha256: &str, now: UnixTime) -> Option<&'d Death> {
    let mut recent = deaths
        .iter()
        .filter(|d| d.plugin == plugin && d.sha256 == sha256 && d.at <= now && now.since(d.at) < WINDOW);
    recent.by_ref().nth(DEATHS - 1)?;
    deaths.iter().rev().find(|d| d.plugin == plugin && d.sha256 == sha256)
}

/// Moves what dead processes left into the list of deaths, and gives the list. What cannot be read there is passed
/// over: a broken list must not keep a server from starting.
fn gather(store: &Path, now: UnixTime) -> io::Result<Vec<Death>> {
    let list = store.join(DEATHS_FILE);
    let known = open_plain(&list).and_then(|file| read_start(&file, DEATHS_LIMIT_BYTES)).unwrap_or_default();
    let mut deaths: Vec<Death> = String::from_utf8_lossy(&known).lines().filter_map(Death::parse).collect();
    deaths.retain(|d| d.at <= now && now.since(d.at) < WINDOW);
    for entry in fs::read_dir(store)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(RUNNING) {
            continue;
        }
        // Held until its name is gone.
        let file = match open_plain(&entry.path()) {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!(path = %entry.path().display(), error = %error, "the marks of a server cannot be read");
                continue;
            }
        };
        match file.try_lock() {
            Ok(()) => {}
            // That process lives.
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let places = read_start(&file, (PLACES * PLACE_BYTES) as u64)?;
        let mut suspects: Vec<Death> = places.chunks(PLACE_BYTES).filter_map(|place| suspect(place, now)).collect();
        // Many calls of one plugin were inside: one death.
        suspects.sort_by(|a, b| a.plugin.cmp(&b.plugin));
        suspects.dedup_by(|a, b| a.plugin == b.plugin);
        deaths.append(&mut suspects);
        fs::remove_file(entry.path())?;
    }
    let mut new = tempfile::NamedTempFile::new_in(store)?;
    deaths.iter().try_for_each(|d| new.write_all(d.line().as_bytes()))?;
    new.persist(&list).map_err(|e| e.error)?;
    Ok(deaths)
}

fn open_plain(path: &Path) -> io::Result<File> {
    let file = load::open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file")) }
}

fn read_start(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn suspect(place: &[u8], now: UnixTime) -> Option<Death> {
    let end = place.iter().position(|b| *b == b'\n')?;
    if place[0] == 0 {
        return None;
    }
    let text = std::str::from_utf8(&place[..end]).ok()?;
    Death::parse(&format!("{} {text}", now.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> UnixTime {
        UnixTime::from_secs(s)
    }

    /// A process that dies inside of a plugin: nothing is cleared, and the lock goes.
    fn die(store: &Path, s: i64, inside: &[(&str, Hook)]) -> Vec<Death> {
        let (marker, deaths) = Marker::open(store, at(s)).unwrap();
        for (plugin, op) in inside {
            std::mem::forget(marker.enter(&Label::new(plugin, "abc"), Some(*op)));
        }
        marker._file.unlock().unwrap();
        deaths
    }

    #[test]
    fn two_deaths_in_five_minutes_keep_a_plugin_out_and_name_it() {
        let store = tempfile::tempdir().unwrap();
        let dir = store.path();
        assert!(die(dir, 100, &[("a", Hook::Signals), ("a", Hook::Signals)]).is_empty());
        let once = die(dir, 200, &[("a", Hook::Enrich), ("b", Hook::Enrich)]);
        assert_eq!(once.len(), 1, "many calls of one plugin are one death");
        assert_eq!(verdict(&once, "a", "abc", at(200)), None);
        let (_, twice) = Marker::open(dir, at(210)).unwrap();
        let named = verdict(&twice, "a", "abc", at(210)).unwrap();
        assert_eq!((named.op.as_str(), named.plugin.as_str()), ("provider.enrich", "a"));
        assert_eq!(verdict(&twice, "b", "abc", at(210)), None);
        assert_eq!(verdict(&twice, "a", "another file", at(210)), None, "a new version begins anew");
    }

    #[test]
    fn deaths_are_forgotten_after_five_minutes_and_calls_that_return_are_none() {
        let store = tempfile::tempdir().unwrap();
        let dir = store.path();
        die(dir, 100, &[("a", Hook::Signals)]);
        die(dir, 150, &[("a", Hook::Signals)]);
        let (_, later) = Marker::open(dir, at(1000)).unwrap();
        assert_eq!(verdict(&later, "a", "abc", at(1000)), None);
        let (marker, _) = Marker::open(dir, at(2000)).unwrap();
        drop(marker.enter(&Label::new("a", "abc"), Some(Hook::Signals)));
        marker._file.unlock().unwrap();
        assert!(Marker::open(dir, at(2001)).unwrap().1.is_empty());
    }

    #[test]
    fn servers_that_start_at_once_in_one_directory_keep_their_marks() {
        let store = tempfile::tempdir().unwrap();
        let open = || {
            std::thread::scope(|scope| {
                let starts: Vec<_> =
                    (0..16).map(|_| scope.spawn(|| Marker::open(store.path(), at(1)).unwrap().0)).collect();
                starts.into_iter().map(|start| start.join().unwrap()).collect::<Vec<_>>()
            })
        };
        die(store.path(), 1, &[("a", Hook::Signals)]);
        let markers = open();
        assert!(markers.iter().all(|marker| marker.path.exists()));
        assert_eq!(Marker::open(store.path(), at(1)).unwrap().1.len(), 1, "a death is one death");
    }

    #[test]
    fn a_server_that_ends_in_order_leaves_no_suspect() {
        let store = tempfile::tempdir().unwrap();
        for s in [1, 2, 3] {
            let (marker, deaths) = Marker::open(store.path(), at(s)).unwrap();
            assert!(deaths.is_empty());
            std::mem::forget(marker.enter(&Label::new("a", "abc"), Some(Hook::Signals)));
            marker.forget();
            marker._file.unlock().unwrap();
        }
    }

    #[test]
    fn what_is_broken_in_the_directory_keeps_no_server_from_starting() {
        let store = tempfile::tempdir().unwrap();
        let dir = store.path();
        die(dir, 100, &[("a", Hook::Signals)]);
        for (name, bytes) in [
            ("running-short", &b"a"[..]),
            ("running-empty", b""),
            ("running-noise", &[0xff; 5000]),
            ("running-cut", b"a abc signal.signals"),
        ] {
            fs::write(dir.join(name), bytes).unwrap();
        }
        fs::create_dir(dir.join("running-directory")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.join("running-link")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(dir.join("running-pipe")).status().unwrap();
        assert!(made.success());
        let (_, deaths) = Marker::open(dir, at(110)).unwrap();
        assert_eq!(deaths.len(), 1, "what can be read is: {deaths:?}");
        for noise in [&b"\xff\xfe"[..], b"1 2\n3", b"99999999999999999999 a b c\n"] {
            let list = [noise, b"\n110000 a abc signal.signals\n"].concat();
            fs::write(dir.join(DEATHS_FILE), list).unwrap();
            assert_eq!(Marker::open(dir, at(110)).unwrap().1.len(), 1);
        }
        fs::remove_file(dir.join(DEATHS_FILE)).unwrap();
        fs::create_dir(dir.join(DEATHS_FILE)).unwrap();
        assert!(Marker::open(dir, at(110)).is_err(), "what happens from now on could not be kept");
    }

    #[test]
    fn a_process_that_lives_is_no_dead_one() {
        let store = tempfile::tempdir().unwrap();
        let (marker, _) = Marker::open(store.path(), at(1)).unwrap();
        let _inside = marker.enter(&Label::new("a", "abc"), None);
        assert!(Marker::open(store.path(), at(2)).unwrap().1.is_empty());
    }
}
