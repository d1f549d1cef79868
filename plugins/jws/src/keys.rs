//! Keys by id, fetched when a token names one that is not held.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_plugin_sdk::PluginError;

use crate::Key;

/// How much longer a key is used while its source is out of reach, in seconds.
const STALE_IF_ERROR_S: i64 = 3600;
/// Keys that are held. Publishers have two or three.
const HELD_AT_MOST: usize = 32;
/// Look-ups for ids that are not held in [`COOL_DOWN_S`]: invented ids cause so many requests and no more.
const ASKED_AT_MOST: u32 = 6;
const COOL_DOWN_S: i64 = 10;

/// What the source said.
pub enum Lookup {
    /// These keys, good for so many seconds.
    Found {
        /// By key id.
        keys: Vec<(String, Key)>,
        /// In seconds; 60 at least, a day at most.
        ttl_s: u64,
    },
    /// There is no such key.
    Unknown,
}

struct Held {
    key: Arc<Key>,
    until_s: i64,
}

#[derive(Default)]
struct State {
    held: HashMap<String, Held>,
    since_s: i64,
    asked: u32,
}

/// Keys of one publisher. Time comes with each call.
#[derive(Default)]
pub struct KeyStore {
    /// Whoever holds it asks.
    flight: Mutex<()>,
    state: Mutex<State>,
}

impl KeyStore {
    /// The key of this id; `None` when the publisher has none. One caller at a time runs `fetch`, which must be
    /// bounded in time (a request of the host is); the others wait for what it brings.
    ///
    /// # Errors
    /// When the key is not held and cannot be had now.
    pub fn find(
        &self,
        kid: &str,
        now_s: i64,
        fetch: impl FnOnce() -> Result<Lookup, PluginError>,
    ) -> Result<Option<Arc<Key>>, PluginError> {
        if let Some(key) = self.held(kid, now_s) {
            return Ok(Some(key));
        }
        let _flight = self.flight.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever came before may have brought it.
        if let Some(key) = self.held(kid, now_s) {
            return Ok(Some(key));
        }
        let stale = self.held(kid, now_s - STALE_IF_ERROR_S);
        if !self.may_ask(now_s) {
            return stale.map(Some).ok_or_else(|| PluginError::new("too many unknown key ids were asked for"));
        }
        match fetch() {
            Ok(Lookup::Found { keys, ttl_s }) => {
                let until_s = now_s + i64::try_from(ttl_s.clamp(60, 86_400)).unwrap_or(60);
                self.keep(keys, until_s);
                Ok(self.held(kid, now_s))
            }
            Ok(Lookup::Unknown) => {
                self.state().held.remove(kid);
                Ok(None)
            }
            Err(error) => stale.map(Some).ok_or(error),
        }
    }

    fn held(&self, kid: &str, now_s: i64) -> Option<Arc<Key>> {
        self.state().held.get(kid).filter(|h| now_s < h.until_s).map(|h| Arc::clone(&h.key))
    }

    fn may_ask(&self, now_s: i64) -> bool {
        let mut state = self.state();
        if !(0..COOL_DOWN_S).contains(&(now_s - state.since_s)) {
            (state.since_s, state.asked) = (now_s, 0);
        }
        state.asked += 1;
        state.asked <= ASKED_AT_MOST
    }

    fn keep(&self, keys: Vec<(String, Key)>, until_s: i64) {
        let mut state = self.state();
        for (kid, key) in keys {
            if state.held.len() >= HELD_AT_MOST && !state.held.contains_key(&kid) {
                let oldest = state.held.iter().min_by_key(|(_, h)| h.until_s).map(|(kid, _)| kid.clone());
                oldest.and_then(|kid| state.held.remove(&kid));
            }
            state.held.insert(kid, Held { key: Arc::new(key), until_s });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
