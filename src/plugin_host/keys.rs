//! Keys that plugins locate, for providers without a usable key set of their own: `provider.locate_keys`.
//!
//! The host keeps what it gets, checks type and size of every key, and asks for one key id only once at a
//! time. A key is used for its time to live, and for an hour longer while the plugin fails, and not when another
//! plugin, or this one with another file or configuration, has taken its place: that may be the mend of a wrong key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::PluginHost;
use super::hook::Hook;
use super::pem;
use super::plugin::{Answer, Plugin};
use super::view::keys_input;
use crate::clock::{Clock, UnixTime};
use crate::signin::key::{KeySet, VerificationKey};
use crate::signin::ports::{KeyError, KeySource};
use crate::signin::provider::{Provider, SignatureAlgorithm};

const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(86_400);
const STALE_IF_ERROR: Duration = Duration::from_secs(3600);
/// Look-ups for ids that are not held, by provider and [`COOL_DOWN`]: invented ids cause so many.
const ASKED_AT_MOST: u32 = 6;
const COOL_DOWN: Duration = Duration::from_secs(10);
/// Sets that are held of one provider.
const HELD_AT_MOST: usize = 64;
/// PEM texts of one answer.
const PEMS_AT_MOST: usize = 100;

/// Asks plugins for the providers that are bound to one, and the other source for the rest.
pub struct PluginKeys {
    host: Arc<PluginHost>,
    others: Arc<dyn KeySource>,
    clock: Arc<dyn Clock>,
    providers: Mutex<HashMap<(String, String), Arc<Located>>>,
}

/// What is held for one provider.
#[derive(Default)]
struct Located {
    sets: Mutex<HashMap<String, Held>>,
    /// Whoever holds it asks.
    flight: tokio::sync::Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    since: UnixTime,
    times: u32,
}

#[derive(Clone)]
struct Held {
    keys: Arc<KeySet>,
    until: UnixTime,
    by: Weak<Plugin>,
}

#[derive(Debug, thiserror::Error)]
#[error("the plugin that locates the provider's keys gave none")]
struct NoAnswer;

impl PluginKeys {
    /// In front of another source.
    #[must_use]
    pub fn new(host: Arc<PluginHost>, others: Arc<dyn KeySource>, clock: Arc<dyn Clock>) -> Self {
        Self { host, others, clock, providers: Mutex::default() }
    }

    fn located(&self, provider: &Provider) -> Arc<Located> {
        let name = (provider.tenant.to_string(), provider.name.to_string());
        let mut providers = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(providers.entry(name).or_default())
    }
}

impl Located {
    /// What this plugin gave for the id.
    fn held(&self, kid: &str, by: &Arc<Plugin>) -> Option<Held> {
        let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.get(kid).filter(|held| std::ptr::eq(held.by.as_ptr(), Arc::as_ptr(by))).cloned()
    }

    fn keep(&self, kid: &str, held: Held) {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        while sets.len() >= HELD_AT_MOST && !sets.contains_key(kid) {
            let Some(oldest) = sets.iter().min_by_key(|(_, h)| h.until).map(|(kid, _)| kid.clone()) else { break };
            sets.remove(&oldest);
        }
        sets.insert(kid.to_owned(), held);
    }
}

#[async_trait]
impl KeySource for PluginKeys {
    async fn find_key(
        &self,
        provider: &Provider,
        unverified_kid: Option<&str>,
        algorithm: SignatureAlgorithm,
    ) -> Result<Arc<VerificationKey>, KeyError> {
        let plugins = self.host.plugins();
        let Some(plugin) = plugins.iter().find(|p| p.has(Hook::LocateKeys) && p.is_bound_to(provider)) else {
            return self.others.find_key(provider, unverified_kid, algorithm).await;
        };
        let (located, kid) = (self.located(provider), unverified_kid.unwrap_or_default());
        let fresh = |now| located.held(kid, plugin).filter(|h| now < h.until);
        if let Some(held) = fresh(self.clock.now()) {
            return held.keys.choose(unverified_kid, algorithm);
        }
        let mut asked = located.flight.lock().await;
        let now = self.clock.now();
        // Whoever came before may have brought it.
        if let Some(held) = fresh(now) {
            return held.keys.choose(unverified_kid, algorithm);
        }
        let stale = located.held(kid, plugin).filter(|h| now < h.until.plus(STALE_IF_ERROR));
        if now.since(asked.since) >= COOL_DOWN || now < asked.since {
            *asked = Asked { since: now, times: 0 };
        }
        if asked.times >= ASKED_AT_MOST && stale.is_none() {
            return Err(unavailable(now, &asked));
        }
        asked.times += 1;
        match ask(plugin, provider, unverified_kid, algorithm, now).await {
            Ok(Some(held)) => {
                located.keep(kid, held.clone());
                held.keys.choose(unverified_kid, algorithm)
            }
            Ok(None) => Err(KeyError::UnknownKey),
            Err(NoAnswer) => match stale {
                Some(held) => held.keys.choose(unverified_kid, algorithm),
                None => Err(unavailable(now, &asked)),
            },
        }
    }
}

fn unavailable(now: UnixTime, asked: &Asked) -> KeyError {
    let left = asked.since.plus(COOL_DOWN).since(now).as_secs();
    KeyError::Unavailable { retry_after_s: left.max(1), source: Box::new(NoAnswer) }
}

/// The keys for this id; `None` when the provider has none.
async fn ask(
    plugin: &Arc<Plugin>,
    provider: &Provider,
    kid: Option<&str>,
    algorithm: SignatureAlgorithm,
    now: UnixTime,
) -> Result<Option<Held>, NoAnswer> {
    let input = keys_input(provider, kid, algorithm.name(), plugin.deadline());
    let answer = match plugin.ask(Hook::LocateKeys, input).await {
        Answer::Object(answer) => answer,
        Answer::Declined | Answer::Rejected(_) => return Ok(None),
        Answer::Failed(_) => return Err(NoAnswer),
    };
    let mut keys: Vec<Value> = Vec::new();
    if let Some(set) = answer.get("jwks").and_then(|j| j.get("keys")).and_then(Value::as_array) {
        keys.extend(set.iter().cloned());
    }
    let pems = answer.get("pem").and_then(Value::as_object).map_or(0, Map::len);
    if pems > PEMS_AT_MOST {
        tracing::error!(plugin.id = plugin.id(), pems, "located keys are too many");
        return Err(NoAnswer);
    }
    for (kid, text) in answer.get("pem").and_then(Value::as_object).into_iter().flatten() {
        let read = text.as_str().map_or(Err(pem::PemError::Label), |text| pem::to_jwk(kid, text, now));
        match read {
            Ok(jwk) => keys.push(jwk),
            Err(error) => tracing::warn!(plugin.id = plugin.id(), error = %error, "left a located key out"),
        }
    }
    let document = json!({ "keys": keys }).to_string();
    let (keys, skipped) = KeySet::parse(document.as_bytes()).map_err(|error| {
        tracing::error!(plugin.id = plugin.id(), error = %error, "located keys are no key set");
        NoAnswer
    })?;
    for (position, why) in &skipped {
        tracing::warn!(plugin.id = plugin.id(), position, %why, "left a located key out");
    }
    let ttl = answer.get("ttl_s").and_then(Value::as_u64).map_or(SHORTEST, Duration::from_secs);
    Ok(Some(Held {
        keys: Arc::new(keys),
        until: now.plus(ttl.clamp(SHORTEST, LONGEST)),
        by: Arc::downgrade(plugin),
    }))
}
