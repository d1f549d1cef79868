//! When signing keys come and go. The rows of the store decide, so that all nodes on it agree: a node that
//! wants a new key adds it behind the newest row it knows, and only one can.
//!
//! A new key is published before it signs, so that whoever checks tokens has it by then; an old one stays
//! until everything it signed has expired.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::keys::{BadKey, KeyRing, SigningAlgorithm, make};
use super::ports::{KeyReplacement, KeyRingError, SigningKeys, StoredSigningKey, Successor};
use crate::admin::audit::{Author, Change};
use crate::clock::{Clock, UnixTime};
use crate::ids::{EventId, KeyId};
use crate::secret::Entropy;
use crate::signin::ports::StoreError;
use crate::vault::Vault;

/// How long before it signs a key is published, at least: twice what the key set may be cached for.
pub const PUBLISHED_BEFORE: Duration = Duration::from_secs(600);
/// The longest time that a scheduled key is published before it signs.
const PUBLISHED_EARLY: Duration = Duration::from_secs(24 * 3600);
/// How long a key is kept after another one took over: the greatest `access_ttl` that configuration allows,
/// and some minutes for clocks that differ.
pub const KEPT_AFTER: Duration = Duration::from_secs(24 * 3600 + 300);

/// How a key is replaced by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotate {
    /// The next key signs in [`PUBLISHED_BEFORE`].
    Soon,
    /// The next key signs at once: whoever cached the key set must fetch it again.
    Now,
    /// The next key signs at once, and what any other key signed is refused from now on.
    Compromised,
}

impl Rotate {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Soon => "soon",
            Self::Now => "now",
            Self::Compromised => "compromised",
        }
    }
}

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Published; signs later.
    Next,
    /// Signs.
    Active,
    /// Signs no more; what it signed is accepted.
    Previous,
}

impl KeyState {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Previous => "previous",
        }
    }
}

/// A key as an administrator sees it.
#[derive(Debug, Clone)]
pub struct KeyInfo {
    /// Its identifier and `kid`.
    pub id: KeyId,
    /// `EdDSA`, `ES256` or `RS256`.
    pub algorithm: String,
    /// What it does.
    pub state: KeyState,
    /// When it was made.
    pub created_at: UnixTime,
    /// From when on it signs.
    pub active_from: UnixTime,
}

/// Looks after the keys of one node.
pub struct KeyKeeper {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The store.
    pub store: Arc<dyn SigningKeys>,
    /// Seals keys.
    pub vault: Vault,
    /// The keys in use.
    pub ring: Arc<KeyRing>,
    /// What new keys are for.
    pub algorithm: SigningAlgorithm,
    /// How often a new key takes over; absent: by hand only.
    pub every: Option<Duration>,
}

impl KeyKeeper {
    /// One look at the store: learns of keys of other nodes, makes the next one when it is due, and removes
    /// those whose tokens have all expired.
    ///
    /// # Errors
    /// When the store does not answer, or a key does not open.
    pub async fn look(&self) -> Result<(), KeyRingError> {
        let now = self.clock.now();
        let mut rows = self.rows().await?;
        if let (Some(newest), Some(every)) = (rows.last(), self.every)
            && let Some(at) = next_start(newest.active_from, every, now)
        {
            self.add(Some(newest.id), at, now).await?;
            rows = self.rows().await?;
        }
        let gone = outlived(&rows, now);
        if !gone.is_empty() {
            rows.retain(|row| !gone.contains(&row.id));
            self.store.remove(gone).await.map_err(stored)?;
        }
        self.learn(&rows)
    }

    /// Makes a key of the configured algorithm follow, when the newest one is of another: for a start after a
    /// change of configuration.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub async fn follow_configuration(&self) -> Result<(), KeyRingError> {
        let now = self.clock.now();
        let rows = self.rows().await?;
        if let Some(newest) = rows.last()
            && newest.algorithm != self.algorithm.name()
        {
            self.add(Some(newest.id), now.plus(PUBLISHED_BEFORE).max(newest.active_from), now).await?;
        }
        self.look().await
    }

    /// All keys, by the time from which they sign.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self) -> Result<Vec<KeyInfo>, KeyRingError> {
        Ok(described(&self.rows().await?, self.clock.now()))
    }

    /// Replaces the key that signs, and leaves an audit record. A key that waits already is taken. Gives the one
    /// that will sign.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub async fn rotate(&self, how: Rotate, author: &Author) -> Result<KeyInfo, KeyRingError> {
        let now = self.clock.now();
        let at = if how == Rotate::Soon { now.plus(PUBLISHED_BEFORE) } else { now };
        loop {
            let before = self.rows().await?;
            let newest = before.last().map(|row| row.id);
            let waiting = before.last().filter(|row| row.active_from > now && how != Rotate::Compromised);
            let by = match waiting {
                Some(next) => Successor::Waiting(next.id, at.min(next.active_from)),
                None => Successor::New(self.make(at, now).await?),
            };
            let compromised = how == Rotate::Compromised;
            let removed = if compromised { before.iter().map(|row| row.id).collect() } else { Vec::new() };
            let id = by.id();
            let change = audited(&before, how, id, &removed, now);
            // A record of its own at each try: another node may undo the one before.
            let author = Author { event: EventId::generate(now, &*self.entropy), ..author.clone() };
            let replacement = KeyReplacement { newest, by, removed };
            if !self.store.replace(replacement, author, change).await.map_err(stored)? {
                continue; // another node was faster: its key is the newest now
            }
            let rows = self.rows().await?;
            self.learn(&rows)?;
            // Absent only when another node declared it compromised in the meantime.
            if let Some(info) = described(&rows, now).into_iter().find(|info| info.id == id) {
                tracing::info!(key.id = %id, key.state = info.state.as_str(), "a signing key was rotated");
                return Ok(info);
            }
        }
    }

    async fn rows(&self) -> Result<Vec<StoredSigningKey>, KeyRingError> {
        self.store.load().await.map_err(stored)
    }

    fn learn(&self, rows: &[StoredSigningKey]) -> Result<(), KeyRingError> {
        if self.ring.replace(rows, &self.vault).map_err(unusable)? {
            tracing::info!(keys = rows.len(), "the signing keys changed");
        }
        Ok(())
    }

    /// `None` when another node added one behind `newest` first.
    async fn add(&self, newest: Option<KeyId>, at: UnixTime, now: UnixTime) -> Result<Option<KeyId>, KeyRingError> {
        let key = self.make(at, now).await?;
        let id = key.id;
        Ok(self.store.add_after(newest, key).await.map_err(stored)?.then_some(id))
    }

    /// An RSA key takes some 100 ms to make, so it is made beside the tasks that serve requests.
    async fn make(&self, at: UnixTime, now: UnixTime) -> Result<StoredSigningKey, KeyRingError> {
        let (algorithm, vault, entropy) = (self.algorithm, self.vault.clone(), Arc::clone(&self.entropy));
        let made = tokio::task::spawn_blocking(move || make(algorithm, at, &vault, now, &*entropy)).await;
        made.map_err(|e| KeyRingError(Box::new(e)))?.map_err(unusable)
    }
}

/// What the audit log holds of a rotation.
fn audited(rows: &[StoredSigningKey], how: Rotate, by: KeyId, removed: &[KeyId], now: UnixTime) -> Change {
    let active = described(rows, now).into_iter().find(|info| info.state == KeyState::Active);
    let before = json!({"signs": active.map(|info| info.id.to_string())});
    let mut after = json!({"signs": by.to_string(), "how": how.as_str()});
    if !removed.is_empty() {
        after["removed"] = removed.iter().map(ToString::to_string).collect();
    }
    Change::between("signing_key.rotate", by.to_string(), &before, &after)
}

fn stored(error: StoreError) -> KeyRingError {
    KeyRingError(Box::new(error))
}

fn unusable(error: BadKey) -> KeyRingError {
    KeyRingError(Box::new(error))
}

/// From when on the next key signs, if it is time to publish it.
fn next_start(newest_from: UnixTime, every: Duration, now: UnixTime) -> Option<UnixTime> {
    let due = newest_from.plus(every);
    let publish = due.minus(PUBLISHED_EARLY.min(every / 2));
    (publish <= now).then(|| due.max(now.plus(PUBLISHED_BEFORE)))
}

/// Keys that another one followed so long ago that nothing they signed is valid.
fn outlived(rows: &[StoredSigningKey], now: UnixTime) -> Vec<KeyId> {
    let followed = rows.iter().zip(rows.iter().skip(1));
    followed.filter(|(_, by)| by.active_from.plus(KEPT_AFTER) <= now).map(|(key, _)| key.id).collect()
}

fn described(rows: &[StoredSigningKey], now: UnixTime) -> Vec<KeyInfo> {
    let active = rows.iter().rposition(|row| row.active_from <= now).unwrap_or(0);
    let state = |position: usize| match position.cmp(&active) {
        std::cmp::Ordering::Less => KeyState::Previous,
        std::cmp::Ordering::Equal => KeyState::Active,
        std::cmp::Ordering::Greater => KeyState::Next,
    };
    let info = |(position, row): (usize, &StoredSigningKey)| KeyInfo {
        id: row.id,
        algorithm: row.algorithm.clone(),
        state: state(position),
        created_at: row.created_at,
        active_from: row.active_from,
    };
    rows.iter().enumerate().map(info).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_next_key_is_due_a_day_or_half_the_period_before_it_signs_and_never_signs_unpublished() {
        let from = UnixTime::from_secs(1_780_000_000);
        let quarter = 90 * 24 * HOUR;
        assert_eq!(next_start(from, quarter, from.plus(89 * 24 * HOUR - HOUR)), None);
        assert_eq!(next_start(from, quarter, from.plus(89 * 24 * HOUR)), Some(from.plus(quarter)));
        assert_eq!(next_start(from, HOUR, from.plus(HOUR / 2)), Some(from.plus(HOUR)));
        let late = from.plus(quarter * 3);
        assert_eq!(next_start(from, quarter, late), Some(late.plus(PUBLISHED_BEFORE)));
    }
}
