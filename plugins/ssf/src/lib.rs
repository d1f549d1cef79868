//! Makes facts of what providers tell of accounts: events of RISC and CAEP, which the host has verified and by which it
//! has ended sessions. See `README.md`.
//!
//! The store holds one value for each subject and kind of event, so that two nodes that hear of one subject at once
//! overwrite nothing of each other, and one mark for each subject of which anything is known, so that a sign-in of
//! anybody else costs one look. Subjects stand there as digests.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use countersign_plugin_sdk::serde_json::{self, Map, Value, json};
use countersign_plugin_sdk::{
    Call, Config, Event, Host, Observer, Outcome, Plugin, PluginError, SecurityEvent, Signal, SignalInput,
    ToldEvent, export,
};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
const OAUTH: &str = "https://schemas.openid.net/secevent/oauth/event-type/";
const DEFAULT_REMEMBER_S: u32 = 7 * 86_400;
/// The longest that the host keeps a value.
const LONGEST_S: u32 = 30 * 86_400;
const VALUE_LIMIT_CHARS: usize = 32;

/// A kind of event that is remembered.
struct Kind {
    /// As rules see it.
    word: &'static str,
    /// Its types.
    types: &'static [(&'static str, &'static str)],
    /// When an event of the kind, or of another type, says that all is well again.
    recovers: fn(&ToldEvent) -> bool,
}

const fn kind(word: &'static str, types: &'static [(&'static str, &'static str)]) -> Kind {
    Kind { word, types, recovers: |_| false }
}

fn says(event: &ToldEvent, member: &str, word: &str) -> bool {
    event.details.get(member).and_then(Value::as_str).is_some_and(|said| said.eq_ignore_ascii_case(word))
}

/// RISC 1.0 section 2, CAEP 1.0 section 3.
static KINDS: &[Kind] = &[
    kind("account_credential_change_required", &[(RISC, "account-credential-change-required")]),
    Kind {
        recovers: |event| event.kind.ends_with("/account-enabled"),
        ..kind("account_disabled", &[(RISC, "account-disabled"), (RISC, "account-enabled")])
    },
    kind("account_purged", &[(RISC, "account-purged")]),
    Kind {
        recovers: |event| says(event, "change_direction", "increase"),
        ..kind("assurance_level_change", &[(CAEP, "assurance-level-change")])
    },
    kind("credential_change", &[(CAEP, "credential-change")]),
    kind("credential_compromise", &[(RISC, "credential-compromise")]),
    Kind {
        recovers: |event| says(event, "current_status", "compliant"),
        ..kind("device_compliance_change", &[(CAEP, "device-compliance-change")])
    },
    kind("identifier_changed", &[(RISC, "identifier-changed")]),
    kind("identifier_recycled", &[(RISC, "identifier-recycled")]),
    kind("recovery_activated", &[(RISC, "recovery-activated")]),
    kind("recovery_information_changed", &[(RISC, "recovery-information-changed")]),
    Kind {
        recovers: |event| says(event, "current_level", "low"),
        ..kind("risk_level_change", &[(CAEP, "risk-level-change")])
    },
    kind("session_revoked", &[(CAEP, "session-revoked"), (RISC, "sessions-revoked")]),
    kind("token_claims_change", &[(CAEP, "token-claims-change")]),
    kind("token_revoked", &[(OAUTH, "token-revoked"), (OAUTH, "tokens-revoked")]),
];

fn find_kind(event: &ToldEvent) -> Option<&'static Kind> {
    let is = |(family, name): &(&str, &str)| event.kind.strip_prefix(family) == Some(name);
    KINDS.iter().find(|kind| kind.types.iter().any(is))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default = "default_remember_s")]
    remember_s: u32,
    #[serde(default)]
    events: BTreeMap<String, u32>,
}

fn default_remember_s() -> u32 {
    DEFAULT_REMEMBER_S
}

/// What is kept of the last event of a kind.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// When the provider told it, in seconds since 1970.
    at: i64,
    /// Whether it is a fact; else all is well again.
    stands: bool,
    /// The present state, such as `HIGH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

struct Ssf {
    /// By word; those that are not remembered are left out.
    remembered: BTreeMap<&'static str, u32>,
    longest_s: u32,
}

impl Plugin for Ssf {
    fn create(_host: &Host, config: Config) -> Result<Self, PluginError> {
        let settings: Settings =
            serde_json::from_value(Value::Object(config)).map_err(|e| PluginError::new(format!("config: {e}")))?;
        let mut remembered: BTreeMap<_, _> = KINDS.iter().map(|kind| (kind.word, settings.remember_s)).collect();
        for (word, remember_s) in settings.events {
            let known = || KINDS.iter().map(|kind| kind.word).collect::<Vec<_>>().join(", ");
            let Some(kind) = KINDS.iter().find(|kind| kind.word == word) else {
                return Err(PluginError::new(format!("config.events.{word} is no event; there are {}", known())));
            };
            remembered.insert(kind.word, remember_s);
        }
        if let Some((word, _)) = remembered.iter().find(|(_, s)| **s > LONGEST_S) {
            return Err(PluginError::new(format!("config: {word} is remembered for {LONGEST_S} s at most")));
        }
        remembered.retain(|_, s| *s > 0);
        let Some(longest_s) = remembered.values().copied().max() else {
            return Err(PluginError::new("config: nothing is remembered"));
        };
        Ok(Self { remembered, longest_s })
    }
}

/// A subject, as the store knows it.
fn mark(tenant: &str, provider: &str, issuer: &str, subject: &str) -> String {
    let mut input = Vec::with_capacity(256);
    for part in [tenant, provider, issuer, subject] {
        input.extend_from_slice(&(part.len() as u64).to_be_bytes());
        input.extend_from_slice(part.as_bytes());
    }
    BASE64URL_NOPAD.encode(digest(&SHA256, &input).as_ref())
}

fn key(mark: &str, word: &str) -> String {
    format!("{mark}:{word}")
}

fn read(call: &Call<'_>, key: &str) -> Result<Option<Kept>, PluginError> {
    // What cannot be read was written by no version of this plugin.
    Ok(call.kv_get(key)?.and_then(|kept| serde_json::from_slice(&kept).ok()))
}

impl Ssf {
    fn remember(&self, call: &Call<'_>, event: &SecurityEvent) -> Result<(), PluginError> {
        let now = call.host().now_unix_ms()?.div_euclid(1_000);
        for told in &event.events {
            let (Some(kind), Some(subject)) = (find_kind(told), &told.subject) else { continue };
            let Some(remember_s) = self.remembered.get(kind.word) else { continue };
            let left = i64::from(*remember_s).min(event.time_unix_s + i64::from(*remember_s) - now);
            let Ok(left) = u32::try_from(left) else { continue };
            if left == 0 {
                continue;
            }
            let mark = mark(&event.tenant, &event.provider, &event.issuer, subject);
            let key = key(&mark, kind.word);
            let states = ["current_level", "current_status"].into_iter();
            let value = states.filter_map(|name| told.details.get(name)?.as_str()).next();
            let new = Kept {
                at: event.time_unix_s,
                stands: !(kind.recovers)(told),
                value: value.map(|v| v.chars().take(VALUE_LIMIT_CHARS).collect()),
            };
            // A token may come late or again; of two in one second the worse one counts.
            if read(call, &key)?.is_some_and(|old| (old.at, old.stands) > (new.at, new.stands)) {
                continue;
            }
            let kept = serde_json::to_vec(&new).map_err(|e| PluginError::new(e.to_string()))?;
            call.kv_set(&key, &kept, left)?;
            // Last, so that it never ends before what it leads to.
            call.kv_set(&mark, b"1", self.longest_s)?;
        }
        Ok(())
    }

    fn recall(&self, call: &Call<'_>, mark: &str, now: i64) -> Result<Value, PluginError> {
        let mut facts = Vec::new();
        if call.kv_get(mark)?.is_some() {
            for (word, remember_s) in &self.remembered {
                let Some(kept) = read(call, &key(mark, word))? else { continue };
                // Its clock may be ahead of ours.
                let age = (now - kept.at).max(0);
                if kept.stands && age < i64::from(*remember_s) {
                    facts.push((age, *word, kept.value));
                }
            }
        }
        facts.sort_unstable();
        let recent: Vec<&str> = facts.iter().map(|(_, word, _)| *word).collect();
        let ages: Map<String, Value> =
            facts.iter().map(|(age, word, _)| ((*word).to_owned(), json!(age))).collect();
        let values = facts.iter().filter_map(|(_, word, value)| Some(((*word).to_owned(), json!(value.as_ref()?))));
        Ok(json!({ "recent": recent, "age_s": ages, "value": values.collect::<Map<_, _>>() }))
    }
}

impl Observer for Ssf {
    fn observe(&self, _call: &Call<'_>, _event: Event) -> Outcome {
        Outcome::Declined
    }

    fn security_event(&self, call: &Call<'_>, event: SecurityEvent) -> Outcome {
        self.remember(call, &event).map(|()| json!({})).into()
    }
}

impl Signal for Ssf {
    fn signals(&self, call: &Call<'_>, input: SignalInput) -> Outcome {
        let subject = input.claims.get("sub").and_then(Value::as_str);
        let (Some(subject), Some(issuer)) = (subject, &input.provider.issuer) else {
            return Outcome::Invalid("there is no subject; grant the claim sub".to_owned());
        };
        let mark = mark(&input.tenant, &input.provider.id, issuer, subject);
        self.recall(call, &mark, input.request.time_unix_s).into()
    }
}

export!(
    Ssf: [signal, event],
    id = "countersign.ssf",
    vendor = "Countersign",
    requests = { events = ["security_event"], claims = ["sub"], kv_kib = 4096 }
);

#[cfg(test)]
mod tests;
