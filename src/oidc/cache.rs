//! The key sets of all providers, held in memory and renewed in the background.
//!
//! - A key that is held is found without a lock and without waiting.
//! - Each provider has at most one fetch under way; all who need it wait for that one.
//! - A set is renewed in the background when four fifths of its time are over. Overdue, it is served only
//!   while its endpoint fails, for a day at most.
//! - A key id that is not in the set asks for a new one, but not within 10 s of the last fetch: tokens with
//!   invented ids cause a handful of fetches, and a rotated key is found within seconds.
//! - A failing endpoint is left alone for 1, 2, 4, … 60 s.
//!
//! With [`KeyFiles`] every fetched set is written to disk, and read again before a provider is first asked.
//!
//! A provider whose issuer or `jwks_uri` was changed starts anew: nothing held under the old one counts.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard};

use super::client::{FetchError, Fetcher};
use super::discovery::{self, DiscoveryError};
use super::disk::{Binding, KeyFileError, KeyFiles, public_part};
use super::schedule::{Lifetime, MAX_BACK_OFF, UNKNOWN_KEY_COOL_DOWN, back_off};
use crate::clock::{Clock, UnixTime};
use crate::ids::TenantId;
use crate::signin::key::{KeySet, KeySetError, VerificationKey};
use crate::signin::ports::{KeyError, KeySource};
use crate::signin::provider::{IssuerRule, Provider, SignatureAlgorithm};

/// How many configurations of one provider are held: requests that began before a change still end.
const HELD_CONFIGURATIONS: usize = 2;

/// Why a provider's key set could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyFetchError {
    /// No discovery document.
    #[error("the discovery document could not be fetched")]
    Discovery(#[source] FetchError),
    /// The discovery document is not the provider's.
    #[error(transparent)]
    Document(#[from] DiscoveryError),
    /// No key set.
    #[error("the key set could not be fetched")]
    Keys(#[source] FetchError),
    /// What came is no key set.
    #[error(transparent)]
    Set(#[from] KeySetError),
    /// The fetch was ended with the server.
    #[error("the fetch was cut off")]
    CutOff,
}

/// Key sets of providers over HTTP.
pub struct KeyCache {
    outside: Arc<Outside>,
    hasher: RandomState,
    /// By the hash of tenant and name, so that a look-up builds no key.
    entries: ArcSwap<HashMap<u64, Vec<Arc<Entry>>>>,
}

impl std::fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyCache").field("providers", &self.entries.load().len()).finish_non_exhaustive()
    }
}

struct Outside {
    fetcher: Fetcher,
    clock: Arc<dyn Clock>,
    files: Option<Arc<KeyFiles>>,
}

/// One provider as it is configured, and what is held for it.
struct Entry {
    tenant: TenantId,
    name: Arc<str>,
    issuer: IssuerRule,
    jwks_uri: Option<String>,
    held: ArcSwapOption<Held>,
    trouble: ArcSwapOption<Trouble>,
    /// Set when the disk was looked at.
    restored: OnceCell<()>,
    /// Whoever holds it fetches.
    flight: Arc<Mutex<Flight>>,
}

struct Held {
    keys: KeySet,
    life: Lifetime,
}

/// The failures since the last success.
struct Trouble {
    failures: u32,
    since: UnixTime,
    error: Arc<KeyFetchError>,
}

/// What only fetches need.
#[derive(Default)]
struct Flight {
    /// `jwks_uri` of the discovery document, and how long it counts.
    discovered: Option<(String, Lifetime)>,
}

impl KeyCache {
    /// An empty cache, in memory alone.
    #[must_use]
    pub fn new(fetcher: Fetcher, clock: Arc<dyn Clock>) -> Self {
        Self::of(Outside { fetcher, clock, files: None })
    }

    /// A cache that keeps its sets on disk as well.
    #[must_use]
    pub fn with_files(fetcher: Fetcher, clock: Arc<dyn Clock>, files: KeyFiles) -> Self {
        Self::of(Outside { fetcher, clock, files: Some(Arc::new(files)) })
    }

    fn of(outside: Outside) -> Self {
        let outside = Arc::new(outside);
        Self { outside, hasher: RandomState::new(), entries: ArcSwap::default() }
    }

    /// Reads the sets of these providers from disk, as would be done at their first sign-ins: for the start
    /// of the server, so that what is wrong with a file stands in the log then.
    pub async fn restore(&self, providers: &[Arc<Provider>]) {
        for provider in providers {
            self.restore_entry(&self.entry(provider)).await;
        }
    }

    /// Once for each entry, before its first fetch: what is on disk is never newer than what was fetched.
    async fn restore_entry(&self, entry: &Arc<Entry>) {
        let Some(files) = &self.outside.files else { return };
        let now = self.outside.clock.now();
        let look = || async {
            let (files, binding) = (Arc::clone(files), entry.binding());
            let read = tokio::task::spawn_blocking(move || files.read(&binding, now)).await;
            entry.take_restored(read.unwrap_or(Ok(None)), now);
        };
        entry.restored.get_or_init(look).await;
    }

    /// Fetches the provider's keys if none are held, and tells how many are usable: for the start of the
    /// server, so that the first sign-in need not wait, and for a test of a provider's configuration.
    ///
    /// # Errors
    /// When no key set can be had, with the pause until another try makes sense.
    pub async fn prefetch(&self, provider: &Provider) -> Result<usize, KeyError> {
        let entry = self.entry(provider);
        self.restore_entry(&entry).await;
        let seen = entry.held.load().as_ref().map(|h| h.life.fetched_at());
        let now = self.outside.clock.now();
        if entry.held(now).is_none_or(|h| h.life.is_overdue(now)) {
            self.renew(&entry, seen).await;
        }
        let now = self.outside.clock.now();
        entry.held(now).map(|h| h.keys.len()).ok_or_else(|| entry.unavailable(now))
    }

    fn entry(&self, provider: &Provider) -> Arc<Entry> {
        let slot = self.hasher.hash_one((&provider.tenant, &provider.name));
        let find = |map: &HashMap<u64, Vec<Arc<Entry>>>| {
            map.get(&slot).and_then(|list| list.iter().find(|e| e.is_of(provider)).map(Arc::clone))
        };
        if let Some(entry) = find(&self.entries.load()) {
            return entry;
        }
        let new = Arc::new(Entry::new(provider));
        self.entries.rcu(|old| {
            if find(old).is_some() {
                return Arc::clone(old);
            }
            let mut map = HashMap::clone(old);
            let list = map.entry(slot).or_default();
            // Another provider in this slot has the same hash by chance; it is not an older form of this one.
            let mine = |e: &Arc<Entry>| e.tenant == new.tenant && e.name == new.name;
            while list.iter().filter(|e| mine(e)).count() >= HELD_CONFIGURATIONS {
                let Some(oldest) = list.iter().position(mine) else { break };
                list.remove(oldest);
            }
            list.push(Arc::clone(&new));
            Arc::new(map)
        });
        find(&self.entries.load()).unwrap_or(new)
    }

    /// Waits for the one fetch of this entry: the one under way, else a new one unless it is too early.
    async fn renew(&self, entry: &Arc<Entry>, seen: Option<UnixTime>) {
        let flight = Arc::clone(&entry.flight).lock_owned().await;
        let now = self.outside.clock.now();
        let newer = entry.held.load().as_ref().map(|h| h.life.fetched_at()) != seen;
        if newer || !entry.may_fetch(now) {
            return;
        }
        // A task of its own: when the request that began it goes away, the fetch ends all the same.
        let task = tokio::spawn(fetch_into(Arc::clone(&self.outside), Arc::clone(entry), flight));
        if task.await.is_err() {
            entry.note_failure(now, KeyFetchError::CutOff);
        }
    }

    /// Begins a fetch that nobody waits for, unless one is under way or it is too early.
    fn renew_in_background(&self, entry: &Arc<Entry>, now: UnixTime) {
        if entry.back_off_left(now).is_some() {
            return;
        }
        let Ok(flight) = Arc::clone(&entry.flight).try_lock_owned() else { return };
        if entry.held.load().as_ref().is_some_and(|h| h.life.is_due(now)) {
            tokio::spawn(fetch_into(Arc::clone(&self.outside), Arc::clone(entry), flight));
        }
    }
}

#[async_trait]
impl KeySource for KeyCache {
    async fn find_key(
        &self,
        provider: &Provider,
        unverified_kid: Option<&str>,
        algorithm: SignatureAlgorithm,
    ) -> Result<Arc<VerificationKey>, KeyError> {
        let entry = self.entry(provider);
        let now = self.outside.clock.now();
        let mut held = entry.held.load_full();
        if held.is_none() {
            self.restore_entry(&entry).await;
            held = entry.held.load_full();
        }
        let seen = held.as_ref().map(|h| h.life.fetched_at());
        if let Some(held) = held.filter(|h| !h.life.is_dead(now)) {
            let failing = entry.trouble.load().is_some();
            if !held.life.is_overdue(now) || failing {
                if held.life.is_due(now) {
                    self.renew_in_background(&entry, now);
                }
                match held.keys.choose(unverified_kid, algorithm) {
                    Err(error) if is_worth_asking(&error) => {}
                    known => return known,
                }
            }
        }
        self.renew(&entry, seen).await;
        entry.answer(unverified_kid, algorithm, self.outside.clock.now())
    }
}

/// A newer set may have the key.
const fn is_worth_asking(error: &KeyError) -> bool {
    matches!(error, KeyError::UnknownKey | KeyError::NoKeyId { fitting: 0 })
}

impl Entry {
    fn new(provider: &Provider) -> Self {
        Self {
            tenant: provider.tenant.clone(),
            name: Arc::clone(&provider.name),
            issuer: provider.issuer.clone(),
            jwks_uri: provider.jwks_uri.clone(),
            held: ArcSwapOption::empty(),
            trouble: ArcSwapOption::empty(),
            restored: OnceCell::new(),
            flight: Arc::default(),
        }
    }

    fn binding(&self) -> Binding {
        Binding::new(&self.tenant, &self.name, &self.issuer, self.jwks_uri.as_ref())
    }

    fn take_restored(&self, read: Result<Option<(KeySet, Lifetime)>, KeyFileError>, now: UnixTime) {
        let (tenant, provider) = (self.tenant.as_str(), &*self.name);
        match read {
            Ok(None) => {}
            Ok(Some((keys, life))) => {
                let (count, age_s) = (keys.len(), now.since(life.fetched_at()).as_secs());
                tracing::info!(
                    tenant.id = tenant,
                    provider.name = provider,
                    keys = count,
                    age_s,
                    "took the provider's keys from disk"
                );
                self.held.store(Some(Arc::new(Held { keys, life })));
            }
            Err(error) => tracing::warn!(
                tenant.id = tenant,
                provider.name = provider,
                error = &error as &(dyn std::error::Error + 'static),
                "passed over the provider's keys on disk"
            ),
        }
    }

    fn is_of(&self, provider: &Provider) -> bool {
        self.tenant == provider.tenant
            && self.name == provider.name
            && self.issuer == provider.issuer
            && self.jwks_uri == provider.jwks_uri
    }

    /// The answer after everything was tried.
    fn answer(
        &self,
        unverified_kid: Option<&str>,
        algorithm: SignatureAlgorithm,
        now: UnixTime,
    ) -> Result<Arc<VerificationKey>, KeyError> {
        let held = self.held(now).ok_or_else(|| self.unavailable(now))?;
        match held.keys.choose(unverified_kid, algorithm) {
            // Whether the key is really unknown cannot be told while the endpoint fails.
            Err(error) if is_worth_asking(&error) && self.trouble.load().is_some() => Err(self.unavailable(now)),
            answer => answer,
        }
    }

    /// The held set, unless it counts no more.
    fn held(&self, now: UnixTime) -> Option<Arc<Held>> {
        self.held.load_full().filter(|h| !h.life.is_dead(now))
    }

    fn unavailable(&self, now: UnixTime) -> KeyError {
        match self.trouble.load_full() {
            Some(trouble) => trouble.as_unavailable(now),
            None => KeyError::Unavailable { retry_after_s: 1, source: KeyFetchError::CutOff.into() },
        }
    }

    /// Neither within the pause after failures nor right after a success.
    fn may_fetch(&self, now: UnixTime) -> bool {
        if self.trouble.load().is_some() {
            return self.back_off_left(now).is_none();
        }
        let held = self.held.load();
        let Some(held) = held.as_ref() else { return true };
        let age = now.since(held.life.fetched_at());
        held.life.is_overdue(now) || age >= UNKNOWN_KEY_COOL_DOWN || now < held.life.fetched_at()
    }

    /// What is left of the pause after failures.
    fn back_off_left(&self, now: UnixTime) -> Option<Duration> {
        self.trouble.load().as_ref().and_then(|t| t.pause_left(now))
    }

    fn note_failure(&self, now: UnixTime, error: KeyFetchError) {
        let failures = self.trouble.load().as_ref().map_or(0, |t| t.failures).saturating_add(1);
        self.trouble.store(Some(Arc::new(Trouble { failures, since: now, error: Arc::new(error) })));
    }
}

impl Trouble {
    fn pause_left(&self, now: UnixTime) -> Option<Duration> {
        let left = self.since.plus(back_off(self.failures)).since(now);
        // More than the longest pause: the clock was set back.
        (!left.is_zero() && left <= MAX_BACK_OFF).then_some(left)
    }

    fn as_unavailable(&self, now: UnixTime) -> KeyError {
        let left = self.pause_left(now).unwrap_or_default();
        let retry_after_s = u64::try_from(left.as_millis().div_ceil(1000)).unwrap_or(1).max(1);
        KeyError::Unavailable { retry_after_s, source: Box::new(Arc::clone(&self.error)) }
    }
}

/// Fetches once, and stores what came. `flight` is let go at the end, after the result is stored.
async fn fetch_into(outside: Arc<Outside>, entry: Arc<Entry>, mut flight: OwnedMutexGuard<Flight>) {
    let began = Instant::now();
    let result = fetch(&outside.fetcher, &entry, &mut flight, outside.clock.now()).await;
    let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (tenant, provider) = (entry.tenant.as_str(), &*entry.name);
    let labels = [("tenant", tenant.to_owned()), ("provider", provider.to_owned())];
    metrics::counter!("countersign_key_fetches_total", &labels).increment(1);
    match result {
        Ok(Fresh { held, skipped, keys_uri, public }) => {
            let (keys, skipped) = (held.keys.len(), skipped as u64);
            metrics::counter!("countersign_keys_skipped_total", &labels).increment(skipped);
            let ttl_s = held.life.ttl().as_secs();
            if held.keys.is_empty() {
                tracing::warn!(
                    tenant.id = tenant,
                    provider.name = provider,
                    keys,
                    skipped,
                    ttl_s,
                    elapsed_ms,
                    "the provider publishes no usable key; none of its tokens can be verified"
                );
            } else {
                tracing::info!(
                    tenant.id = tenant,
                    provider.name = provider,
                    keys,
                    skipped,
                    ttl_s,
                    elapsed_ms,
                    "fetched the provider's keys"
                );
            }
            let life = held.life;
            entry.held.store(Some(Arc::new(held)));
            entry.trouble.store(None);
            if let Some(files) = &outside.files {
                keep(Arc::clone(files), &entry, keys_uri, life, public).await;
            }
        }
        Err(error) => {
            metrics::counter!("countersign_key_fetch_failures_total", &labels).increment(1);
            flight.discovered = None;
            let held = entry.held.load().is_some();
            tracing::warn!(
                tenant.id = tenant,
                provider.name = provider,
                held,
                elapsed_ms,
                error = &error as &(dyn std::error::Error + 'static),
                "could not fetch the provider's keys"
            );
            // From now on, not from the beginning: those who waited meanwhile must find the pause.
            entry.note_failure(outside.clock.now(), error);
        }
    }
}

/// Writes the set down. That it cannot be written is no trouble of a sign-in.
async fn keep(files: Arc<KeyFiles>, entry: &Entry, keys_uri: String, life: Lifetime, public: Value) {
    let binding = entry.binding();
    let written = tokio::task::spawn_blocking(move || files.write(&binding, &keys_uri, life, public)).await;
    if let Ok(Err(error)) = written {
        let (tenant, provider) = (entry.tenant.as_str(), &*entry.name);
        tracing::warn!(tenant.id = tenant, provider.name = provider, %error, "could not keep the provider's keys on disk");
    }
}

/// What one fetch gave.
struct Fresh {
    held: Held,
    skipped: usize,
    keys_uri: String,
    /// The usable keys, for the disk.
    public: Value,
}

async fn fetch(
    fetcher: &Fetcher,
    entry: &Entry,
    flight: &mut Flight,
    now: UnixTime,
) -> Result<Fresh, KeyFetchError> {
    let uri = match (&entry.jwks_uri, &flight.discovered) {
        (Some(configured), _) => configured.clone(),
        (None, Some((uri, life))) if !life.is_due(now) => uri.clone(),
        (None, _) => {
            let url = discovery::document_url(&entry.issuer);
            let document = fetcher.get_json(&url).await.map_err(KeyFetchError::Discovery)?;
            let uri = discovery::read_keys_uri(&entry.issuer, &document.object)?;
            flight.discovered = Some((uri.clone(), Lifetime::new(now, document.max_age)));
            uri
        }
    };
    let fetched = fetcher.get_json(&uri).await.map_err(KeyFetchError::Keys)?;
    let (keys, skipped) = KeySet::parse(&fetched.body)?;
    for (position, why) in &skipped {
        tracing::debug!(tenant.id = entry.tenant.as_str(), provider.name = &*entry.name, position, %why, "left a key out");
    }
    let left_out: Vec<usize> = skipped.iter().map(|(position, _)| *position).collect();
    let public = public_part(&fetched.object, &left_out);
    let held = Held { keys, life: Lifetime::new(now, fetched.max_age) };
    Ok(Fresh { held, skipped: skipped.len(), keys_uri: uri, public })
}
