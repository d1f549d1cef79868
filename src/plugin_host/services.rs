//! What plugins may ask of the host: requests, a small store, secrets, time, randomness and counters. The
//! lock file grants it by name; what is not granted is refused here, for both kinds of isolation.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_plugin_sdk::abi::{
    CS_DECLINED, CS_INTERNAL, CS_INVALID, CS_LOG_DEBUG, CS_LOG_ERROR, CS_LOG_INFO, CS_LOG_TRACE, CS_LOG_WARN,
    CS_OK, CS_REJECT, CS_TIMEOUT, CS_UNAVAILABLE, CsStatus,
};
use countersign_plugin_sdk::{HttpRequest, HttpResponse};
use ipnet::IpNet;
use serde_json::Value;

use super::load;
use crate::clock::{Clock, SystemClock};
use crate::secret::{Entropy, SystemEntropy};

/// The longest that one request of a plugin may take.
pub(super) const FETCH_LIMIT: Duration = Duration::from_secs(3);
/// The longest that a plugin waits for its store.
const STORE_LIMIT: Duration = Duration::from_secs(3);
const REQUEST_BODY_LIMIT_BYTES: usize = 256 << 10;
const SECRET_LIMIT_BYTES: u64 = 64 << 10;
const KEY_LIMIT_BYTES: usize = 128;
const VALUE_LIMIT_BYTES: usize = 64 << 10;
const TTL_LIMIT_S: u32 = 30 * 86_400;
/// Series of counters that one plugin may open.
const SERIES_LIMIT: usize = 100;
/// The most that a service takes.
pub(super) const INPUT_LIMIT_BYTES: usize = 1 << 20;
/// The most of a log line's message, and of its fields.
pub(super) const LOG_LIMIT_BYTES: usize = 2048;
/// Log lines of one plugin in a second, in and outside of calls.
const LOG_LINES_PER_SECOND: u32 = 200;

/// Where a plugin's requests may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchGrants {
    /// Host names, in lower case.
    pub hosts: Vec<String>,
    /// Networks that are reached although they are not public.
    pub networks: Vec<IpNet>,
}

/// Why a request gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchFault {
    /// The request makes no sense.
    Invalid,
    /// It leads where this plugin may not go.
    NotGranted,
    /// The endpoint is out of reach, or its answer is not usable.
    Unavailable,
    /// It took too long.
    Timeout,
}

/// Requests to the outside, through the same address rules as those of the host itself. Blocks.
pub trait PluginHttp: Send + Sync {
    /// One request; redirects are followed among granted hosts only.
    ///
    /// # Errors
    /// See [`FetchFault`].
    fn fetch(
        &self,
        grants: &FetchGrants,
        request: HttpRequest,
        limit: Duration,
    ) -> Result<HttpResponse, FetchFault>;
}

/// The store is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvUnavailable;

/// Small values of plugins, shared by the nodes of one store. Blocks, for `limit` at most.
pub trait PluginKv: Send + Sync {
    /// The value, unless it has expired.
    ///
    /// # Errors
    /// When the store does not answer.
    fn get(&self, plugin: &str, key: &[u8], limit: Duration) -> Result<Option<Vec<u8>>, KvUnavailable>;
    /// Keeps the value; `None` removes the key. `false`: the plugin would hold more than `limit_bytes`.
    ///
    /// # Errors
    /// When the store does not answer.
    fn set(
        &self,
        plugin: &str,
        key: &[u8],
        value: Option<(&[u8], Duration)>,
        limit_bytes: u64,
        limit: Duration,
    ) -> Result<bool, KvUnavailable>;
}

/// The services of this server, before grants.
#[derive(Clone)]
pub struct Services {
    /// Requests; absent: none are offered.
    pub http: Option<Arc<dyn PluginHttp>>,
    /// The store; absent: none is offered.
    pub kv: Option<Arc<dyn PluginKv>>,
    /// A directory with one file for each secret.
    pub secrets_dir: Option<PathBuf>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The program that `isolation = "process"` starts; it must be this one.
    pub program: PathBuf,
}

impl Default for Services {
    fn default() -> Self {
        // The very file that runs, also after the name was given to a newer one.
        let linux = Path::new("/proc/self/exe");
        let program = if linux.exists() { linux.to_owned() } else { std::env::current_exe().unwrap_or_default() };
        Self {
            http: None,
            kv: None,
            secrets_dir: None,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            program,
        }
    }
}

/// What the lock file grants of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ServiceGrants {
    pub(super) fetch: FetchGrants,
    pub(super) secrets: BTreeSet<String>,
    pub(super) kv_bytes: u64,
}

/// A service that takes bytes and gives bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Fetch = 1,
    KvGet = 2,
    KvSet = 3,
    Secret = 4,
}

impl Service {
    pub(super) fn find(number: u8) -> Option<Self> {
        [Self::Fetch, Self::KvGet, Self::KvSet, Self::Secret].into_iter().find(|s| *s as u8 == number)
    }
}

/// What stands behind the callbacks of a plugin: the grants in this process, or the wire to them.
pub(super) trait HostServices: Send + Sync {
    /// Whether the service is granted at all.
    fn offers(&self, service: Service) -> bool;
    /// Asks. `KvSet` takes what [`pack_kv_set`] makes; the others a text.
    fn ask(&self, service: Service, input: &[u8], deadline: Instant) -> (CsStatus, Vec<u8>);
    fn now_unix_ms(&self) -> i64;
    fn random(&self, buffer: &mut [u8]);
    fn count(&self, metric: &str, value: f64, labels_json: &str);
    fn log(&self, level: u32, message: &str, fields: &str);
}

/// Input of [`Service::KvSet`].
pub(super) fn pack_kv_set(key: &[u8], value: &[u8], ttl_s: u32) -> Option<Vec<u8>> {
    let key_len = u32::try_from(key.len()).ok()?;
    Some([&ttl_s.to_le_bytes()[..], &key_len.to_le_bytes(), key, value].concat())
}

fn unpack_kv_set(input: &[u8]) -> Option<(&[u8], &[u8], u32)> {
    let (ttl, rest) = input.split_first_chunk::<4>()?;
    let (key_len, rest) = rest.split_first_chunk::<4>()?;
    let (key, value) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*key_len)).ok()?)?;
    Some((key, value, u32::from_le_bytes(*ttl)))
}

/// At most `limit` bytes, without control characters: a plugin cannot forge log lines.
pub(super) fn printable(bytes: &[u8], limit: usize) -> String {
    let cut = String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]);
    cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The services as one plugin may use them.
pub(super) struct Granted {
    plugin: String,
    grants: ServiceGrants,
    services: Services,
    series: Mutex<BTreeSet<String>>,
    lines: Mutex<Lines>,
}

/// Log lines since a time.
struct Lines {
    since: Instant,
    told: u32,
    left_out: u64,
}

impl Lines {
    /// Whether another line may be told now, and how many were left out before it.
    fn next(&mut self, now: Instant) -> Option<u64> {
        let left_out = if now.duration_since(self.since) >= Duration::from_secs(1) {
            std::mem::replace(self, Self { since: now, told: 0, left_out: 0 }).left_out
        } else {
            0
        };
        if self.told >= LOG_LINES_PER_SECOND {
            self.left_out += 1;
            return None;
        }
        self.told += 1;
        Some(left_out)
    }
}

impl Granted {
    pub(super) fn new(plugin: &str, grants: ServiceGrants, services: Services) -> Self {
        let lines = Mutex::new(Lines { since: Instant::now(), told: 0, left_out: 0 });
        Self { plugin: plugin.to_owned(), grants, services, series: Mutex::default(), lines }
    }

    fn fetch(&self, input: &[u8], left: Duration) -> (CsStatus, Vec<u8>) {
        let Some(http) = &self.services.http else { return (CS_REJECT, Vec::new()) };
        let Ok(request) = serde_json::from_slice::<HttpRequest>(input) else { return (CS_INVALID, Vec::new()) };
        if request.body.as_ref().is_some_and(|b| b.len() > REQUEST_BODY_LIMIT_BYTES) {
            return (CS_INVALID, Vec::new());
        }
        let begun = Instant::now();
        let answer = http.fetch(&self.grants.fetch, request, left.min(FETCH_LIMIT));
        let (status, outcome, answer) = match answer {
            Ok(response) => (CS_OK, "ok", serde_json::to_vec(&response).unwrap_or_default()),
            Err(FetchFault::Invalid) => (CS_INVALID, "invalid", Vec::new()),
            Err(FetchFault::NotGranted) => (CS_REJECT, "not_granted", Vec::new()),
            Err(FetchFault::Unavailable) => (CS_UNAVAILABLE, "unavailable", Vec::new()),
            Err(FetchFault::Timeout) => (CS_TIMEOUT, "timeout", Vec::new()),
        };
        let id = self.plugin.clone();
        metrics::counter!("countersign_plugin_fetches_total", "plugin" => id.clone(), "outcome" => outcome)
            .increment(1);
        metrics::counter!("countersign_plugin_fetched_bytes_total", "plugin" => id.clone())
            .increment(answer.len() as u64);
        metrics::histogram!("countersign_plugin_fetch_seconds", "plugin" => id)
            .record(begun.elapsed().as_secs_f64());
        (status, answer)
    }

    fn kv_get(&self, key: &[u8], left: Duration) -> (CsStatus, Vec<u8>) {
        let Some(kv) = &self.services.kv else { return (CS_REJECT, Vec::new()) };
        if !(1..=KEY_LIMIT_BYTES).contains(&key.len()) {
            return (CS_INVALID, Vec::new());
        }
        match kv.get(&self.plugin, key, left.min(STORE_LIMIT)) {
            Ok(Some(value)) => (CS_OK, value),
            Ok(None) => (CS_DECLINED, Vec::new()),
            Err(KvUnavailable) => (CS_UNAVAILABLE, Vec::new()),
        }
    }

    fn kv_set(&self, input: &[u8], left: Duration) -> CsStatus {
        let Some(kv) = &self.services.kv else { return CS_REJECT };
        let Some((key, value, ttl_s)) = unpack_kv_set(input) else { return CS_INVALID };
        if !(1..=KEY_LIMIT_BYTES).contains(&key.len()) || value.len() > VALUE_LIMIT_BYTES {
            return CS_INVALID;
        }
        if !value.is_empty() && !(1..=TTL_LIMIT_S).contains(&ttl_s) {
            return CS_INVALID;
        }
        let value = (!value.is_empty()).then(|| (value, Duration::from_secs(ttl_s.into())));
        match kv.set(&self.plugin, key, value, self.grants.kv_bytes, left.min(STORE_LIMIT)) {
            Ok(true) => CS_OK,
            Ok(false) => CS_REJECT,
            Err(KvUnavailable) => CS_UNAVAILABLE,
        }
    }

    fn secret(&self, name: &[u8]) -> (CsStatus, Vec<u8>) {
        let granted = std::str::from_utf8(name).ok().filter(|n| self.grants.secrets.contains(*n));
        let (Some(name), Some(dir)) = (granted, &self.services.secrets_dir) else { return (CS_REJECT, Vec::new()) };
        match load::read_private(&dir.join(name), SECRET_LIMIT_BYTES) {
            Ok(Some(mut secret)) => {
                // Editors and `echo` leave one at the end.
                if secret.last() == Some(&b'\n') {
                    secret.pop();
                }
                (CS_OK, secret)
            }
            Ok(None) => (CS_DECLINED, Vec::new()),
            Err(error) => {
                tracing::error!(plugin.id = %self.plugin, error = %error, "a secret of a plugin cannot be read");
                (CS_INTERNAL, Vec::new())
            }
        }
    }
}

impl HostServices for Granted {
    fn offers(&self, service: Service) -> bool {
        match service {
            Service::Fetch => self.services.http.is_some() && !self.grants.fetch.hosts.is_empty(),
            Service::KvGet | Service::KvSet => self.services.kv.is_some() && self.grants.kv_bytes > 0,
            Service::Secret => true,
        }
    }

    fn ask(&self, service: Service, input: &[u8], deadline: Instant) -> (CsStatus, Vec<u8>) {
        if !self.offers(service) {
            return (CS_REJECT, Vec::new());
        }
        // Nobody waits for the call any more: what it would change is not expected.
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return (CS_TIMEOUT, Vec::new());
        }
        match service {
            Service::Fetch => self.fetch(input, left),
            Service::KvGet => self.kv_get(input, left),
            Service::KvSet => (self.kv_set(input, left), Vec::new()),
            Service::Secret => self.secret(input),
        }
    }

    fn now_unix_ms(&self) -> i64 {
        self.services.clock.now().as_millis()
    }

    fn random(&self, buffer: &mut [u8]) {
        self.services.entropy.fill(buffer);
    }

    fn count(&self, metric: &str, value: f64, labels_json: &str) {
        let word = |text: &str, most: usize| {
            (1..=most).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if !word(metric, 48) || !value.is_finite() || value < 0.0 {
            return;
        }
        let mut labels = vec![("plugin".to_owned(), self.plugin.clone()), ("metric".to_owned(), metric.to_owned())];
        let told: Value = serde_json::from_str(labels_json).unwrap_or_default();
        for (name, value) in told.as_object().into_iter().flatten().take(4) {
            let Some(value) = value.as_str().filter(|v| v.len() <= 64) else { continue };
            // A name that the exporter would have to change could become one that is there, or `__name__`.
            let is_name = word(name, 32) && name.starts_with(|c: char| c.is_ascii_lowercase());
            if is_name && name != "plugin" && name != "metric" {
                labels.push((name.clone(), value.to_owned()));
            }
        }
        let series = format!("{labels:?}");
        let mut known = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(&series) {
            if known.len() >= SERIES_LIMIT {
                return;
            }
            known.insert(series);
        }
        drop(known);
        // Whole numbers: a counter of this exporter holds no others.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be finite and not negative"
        )]
        metrics::counter!("countersign_plugin_custom_total", &labels).increment(value.min(1e15) as u64);
    }

    fn log(&self, level: u32, message: &str, fields: &str) {
        let plugin = self.plugin.as_str();
        let next = self.lines.lock().unwrap_or_else(PoisonError::into_inner).next(Instant::now());
        let Some(left_out) = next else { return };
        if left_out > 0 {
            tracing::warn!(plugin.id = plugin, left_out, "a plugin says too much; lines were left out");
        }
        match level {
            CS_LOG_ERROR => tracing::error!(plugin.id = plugin, message, fields, "plugin says"),
            CS_LOG_WARN => tracing::warn!(plugin.id = plugin, message, fields, "plugin says"),
            CS_LOG_INFO => tracing::info!(plugin.id = plugin, message, fields, "plugin says"),
            CS_LOG_DEBUG => tracing::debug!(plugin.id = plugin, message, fields, "plugin says"),
            CS_LOG_TRACE => tracing::trace!(plugin.id = plugin, message, fields, "plugin says"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_cannot_forge_log_lines_or_flood_them() {
        assert_eq!(printable(b"a\nlevel=error\x1b[31m \xff", 64), "a level=error [31m \u{fffd}");
        assert_eq!(printable(&[b'x'; 5000], LOG_LIMIT_BYTES).len(), LOG_LIMIT_BYTES);
        let begun = Instant::now();
        let mut lines = Lines { since: begun, told: 0, left_out: 0 };
        let told = (0..1000).filter(|_| lines.next(begun).is_some()).count();
        assert_eq!(told, usize::try_from(LOG_LINES_PER_SECOND).unwrap());
        let later = begun + Duration::from_secs(1);
        assert_eq!((lines.next(later), lines.next(later)), (Some(800), Some(0)));
    }
}
