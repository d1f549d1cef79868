//! Which plugin was entered last, should the process die in it.
//!
//! A crash in native code takes the process along, so what is written here must be there before the call: in pages
//! of a file that the process shares with the system, which outlive the process. At the next start the
//! places that were not cleared name the suspects; two deaths in five minutes keep a plugin from being
//! loaded. A process that is killed from outside in the middle of a call looks the same.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::hook::Hook;
use super::instance::SharedPages;
use crate::clock::UnixTime;

/// So many deaths …
const DEATHS: usize = 2;
/// … within so long keep a plugin out.
const WINDOW: Duration = Duration::from_secs(300);
const PLACES: usize = 256;
const PLACE_BYTES: usize = 160;
const RUNNING: &str = "running-";
const DEATHS_FILE: &str = "deaths";

/// The places of this process.
pub(super) struct Marker {
    /// Locked as long as the process lives.
    _file: File,
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
        let deaths = gather(store, now)?;
        let mut file = tempfile::Builder::new().prefix(RUNNING).tempfile_in(store)?;
        file.write_all(&[0; PLACES * PLACE_BYTES])?;
        let (file, _) = file.keep().map_err(|e| e.error)?;
        file.lock()?;
        let places = SharedPages::map(&file, PLACES * PLACE_BYTES)?;
        let free = (0..PLACES).rev().collect();
        Ok((Arc::new(Self { _file: file, places, free: Mutex::new(free) }), deaths))
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

/// Moves what dead processes left into the list of deaths, and gives the list.
fn gather(store: &Path, now: UnixTime) -> io::Result<Vec<Death>> {
    let list = store.join(DEATHS_FILE);
    let known = match fs::read_to_string(&list) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let mut deaths: Vec<Death> = known.lines().filter_map(Death::parse).collect();
    deaths.retain(|d| d.at <= now && now.since(d.at) < WINDOW);
    for entry in fs::read_dir(store)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(RUNNING) {
            continue;
        }
        let mut file = File::open(entry.path())?;
        match file.try_lock() {
            Ok(()) => {}
            // That process lives.
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut places = Vec::new();
        file.read_to_end(&mut places)?;
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
    fn a_process_that_lives_is_no_dead_one() {
        let store = tempfile::tempdir().unwrap();
        let (marker, _) = Marker::open(store.path(), at(1)).unwrap();
        let _inside = marker.enter(&Label::new("a", "abc"), None);
        assert!(Marker::open(store.path(), at(2)).unwrap().1.is_empty());
    }
}
