//! What a plugin gets to see: a few harmless facts, and the rest by grant.
//!
//! Never there, but for `provider.verify`: the ID token, the access token, secrets of factors, addresses of earlier sign-ins.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::clock::UnixTime;
use crate::signin::facts::{Facts, HistoryFacts, Location, RequestFacts, UpstreamFacts, UserFacts};
use crate::signin::provider::Provider;
use crate::signin::security_events::ToldEvents;

/// A group of facts that the lock file can grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FactGrant {
    RequestIp,
    RequestLocation,
    RequestAgent,
    RequestDeviceId,
    Upstream,
    User,
    UserId,
    UserGroups,
    History,
}

impl FactGrant {
    pub(super) const ALL: [Self; 9] = [
        Self::RequestIp,
        Self::RequestLocation,
        Self::RequestAgent,
        Self::RequestDeviceId,
        Self::Upstream,
        Self::User,
        Self::UserId,
        Self::UserGroups,
        Self::History,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::RequestIp => "request.ip",
            Self::RequestLocation => "request.location",
            Self::RequestAgent => "request.agent",
            Self::RequestDeviceId => "request.device_id",
            Self::Upstream => "upstream",
            Self::User => "user",
            Self::UserId => "user.id",
            Self::UserGroups => "user.groups",
            Self::History => "history",
        }
    }

    pub(super) fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.name() == name)
    }
}

/// What `event.observe` is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EventKind {
    /// How sign-ins and answers to challenges ended.
    SignIn,
    /// What providers told of accounts.
    SecurityEvent,
}

impl EventKind {
    pub(super) const ALL: [Self; 2] = [Self::SignIn, Self::SecurityEvent];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::SignIn => "sign_in",
            Self::SecurityEvent => "security_event",
        }
    }

    pub(super) fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }
}

/// Which claims a plugin sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClaimGrant {
    /// All but those that bind the token and tell nothing of the person.
    All,
    Named(BTreeSet<String>),
}

/// What a plugin may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grants {
    pub(super) facts: BTreeSet<FactGrant>,
    pub(super) claims: ClaimGrant,
    pub(super) events: BTreeSet<EventKind>,
}

const TOKEN_CLAIMS: [&str; 7] = ["nonce", "jti", "sid", "at_hash", "c_hash", "s_hash", "x"];

impl Grants {
    fn give(&self, fact: FactGrant) -> bool {
        self.facts.contains(&fact)
    }

    fn claims(&self, claims: &Map<String, Value>) -> Value {
        let granted = |name: &str| match &self.claims {
            ClaimGrant::All => !TOKEN_CLAIMS.contains(&name),
            ClaimGrant::Named(names) => names.contains(name),
        };
        let given = claims.iter().filter(|(name, _)| granted(name));
        Value::Object(given.map(|(name, value)| (name.clone(), value.clone())).collect())
    }
}

/// Input of `provider.enrich`.
pub(super) fn enrich_input(
    provider: &Provider,
    claims: &Map<String, Value>,
    grants: &Grants,
    deadline: Duration,
) -> Vec<u8> {
    let input = json!({
        "tenant": provider.tenant.as_str(),
        "provider": { "id": &*provider.name, "issuer": claims.get("iss").and_then(Value::as_str) },
        "claims": grants.claims(claims),
        "deadline_ms": millis(deadline),
    });
    input.to_string().into_bytes()
}

/// Input of `provider.locate_keys`.
pub(super) fn keys_input(provider: &Provider, kid: Option<&str>, alg: &str, deadline: Duration) -> Vec<u8> {
    let input = json!({
        "tenant": provider.tenant.as_str(),
        "provider": { "id": &*provider.name, "issuer": provider.issuer.shown() },
        "kid": kid,
        "alg": alg,
        "deadline_ms": millis(deadline),
    });
    input.to_string().into_bytes()
}

/// Input of `provider.verify`. The token is shown: that is the operation.
pub(super) fn verify_input(provider: &Provider, token: &str, now: UnixTime, deadline: Duration) -> Vec<u8> {
    let input = json!({
        "tenant": provider.tenant.as_str(),
        "provider": { "id": &*provider.name, "issuer": provider.issuer.shown() },
        "client_ids": provider.client_ids,
        "token": token,
        "time_unix_s": now.as_secs(),
        "deadline_ms": millis(deadline),
    });
    input.to_string().into_bytes()
}

/// Input of `signal.signals`.
pub(super) fn signals_input(facts: &Facts, grants: &Grants, deadline: Duration) -> Vec<u8> {
    let mut input = Map::new();
    let mut set = |name: &str, value: Value| input.insert(name.to_owned(), value);
    set("tenant", facts.tenant.as_str().into());
    set("client_id", (*facts.client_id).into());
    set("provider", json!({ "id": &*facts.provider.id, "issuer": &*facts.provider.issuer }));
    set("request", request(&facts.request, grants));
    set("claims", grants.claims(&facts.claims));
    set("deadline_ms", millis(deadline).into());
    if grants.give(FactGrant::Upstream) {
        set("upstream", upstream(&facts.upstream));
    }
    if let Some(user) = user(&facts.user, grants) {
        set("user", user);
    }
    if grants.give(FactGrant::History) {
        set("history", history(&facts.history));
    }
    Value::Object(input).to_string().into_bytes()
}

/// Input of `event.observe`, of a security event.
pub(super) fn security_event_input(told: &ToldEvents, deadline: Duration) -> Vec<u8> {
    let events = told.events.iter().map(
        |event| json!({ "type": &event.kind, "subject": event.subject.as_deref(), "details": &event.details }),
    );
    let input = json!({
        "kind": EventKind::SecurityEvent.name(),
        "id": &told.jti,
        "time_unix_s": told.issued_at.as_secs(),
        "tenant": told.tenant.as_str(),
        "provider": &*told.provider,
        "issuer": &*told.issuer,
        "events": events.collect::<Vec<_>>(),
        "deadline_ms": millis(deadline),
    });
    input.to_string().into_bytes()
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn request(request: &RequestFacts, grants: &Grants) -> Value {
    let mut out = Map::new();
    let mut set = |name: &str, value: Value| out.insert(name.to_owned(), value);
    set("time_unix_s", request.time.as_secs().into());
    if grants.give(FactGrant::RequestIp) {
        set("ip", request.ip.map(|ip| ip.to_string()).into());
        set("ip_prefix", request.ip_prefix().into());
    }
    if grants.give(FactGrant::RequestLocation) {
        set("location", location(&request.location));
    }
    if grants.give(FactGrant::RequestAgent) {
        set("user_agent", request.user_agent.as_deref().into());
        set("browser", request.browser.as_deref().into());
        set("os", request.os.as_deref().into());
        set("device_kind", request.device_kind.as_deref().into());
        set("language", request.language.as_deref().into());
    }
    if grants.give(FactGrant::RequestDeviceId) {
        set("device_id", request.device_id.as_deref().into());
    }
    Value::Object(out)
}

fn location(location: &Location) -> Value {
    json!({
        "country": location.country.as_deref(),
        "region": location.region.as_deref(),
        "city": location.city.as_deref(),
        "asn": location.asn,
        "asn_name": location.asn_name.as_deref(),
        "local_hour": location.local_hour,
        "network_kind": location.network_kind.as_str(),
        "quality": location.quality.as_str(),
    })
}

fn upstream(upstream: &UpstreamFacts) -> Value {
    json!({
        "amr": upstream.amr,
        "acr": upstream.acr,
        "auth_time_age_s": upstream.auth_time_age_s,
        "token_age_s": upstream.token_age_s,
        "trusted_mfa": upstream.trusted_mfa,
        "enrich_missing": upstream.enrich_missing,
    })
}

fn user(user: &UserFacts, grants: &Grants) -> Option<Value> {
    let mut out = Map::new();
    if grants.give(FactGrant::User) {
        let methods = user.mfa_methods.iter().map(|m| {
            json!({
                "kind": m.method.as_str(),
                "strength": m.strength.as_str(),
                "enrolled_age_days": m.enrolled_age_days,
                "last_used_age_days": m.last_used_age_days,
            })
        });
        let facts = [
            ("is_new", user.is_new.into()),
            ("age_days", user.age_days.into()),
            ("status", user.status.into()),
            ("kind", user.kind.as_str().into()),
            ("email_verified", user.email_verified.into()),
            ("privileged", user.privileged.into()),
            ("link_method", user.link_method.as_str().into()),
            ("mfa_methods", methods.collect()),
        ];
        out.extend(facts.map(|(name, value): (&str, Value)| (name.to_owned(), value)));
    }
    if grants.give(FactGrant::UserId) {
        out.insert("id".to_owned(), user.id.to_string().into());
    }
    if grants.give(FactGrant::UserGroups) {
        out.insert("groups".to_owned(), user.groups.clone().into());
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

fn history(history: &HistoryFacts) -> Value {
    let last = history.last_sign_in.as_ref().map(|last| {
        json!({
            "time_unix_s": last.time.as_secs(),
            "country": last.country.as_deref(),
            "asn": last.asn,
            "provider_id": &*last.provider_id,
            "factors": last.factors,
            "level": &*last.level,
        })
    });
    json!({
        "sign_ins_total": history.sign_ins_total,
        "sign_ins_30d": history.sign_ins_30d,
        "failed_attempts_1h": history.failed_attempts_1h,
        "failed_attempts_24h": history.failed_attempts_24h,
        "denied_30d": history.denied_30d,
        "mfa_failed_24h": history.mfa_failed_24h,
        "device": history.device.as_str(),
        "trusted_device": history.trusted_device,
        "known_country": history.known_country,
        "known_asn": history.known_asn,
        "known_prefix": history.known_prefix,
        "km_from_last": history.km_from_last,
        "hours_since_last": history.hours_since_last,
        "implied_speed_kmh": history.implied_speed_kmh,
        "travel": history.travel.as_str(),
        "last_sign_in": last,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::ids::{TenantId, UserId};
    use crate::mfa::{MfaMethod, Strength};
    use crate::signin::facts::{FactorFacts, LastSignIn, LinkMethod, ProviderFacts};

    pub(in crate::plugin_host) fn facts() -> Facts {
        let claims = json!({ "sub": "the-sub", "email": "the-email", "nonce": "the-nonce", "x": { "a": "the-x" } });
        let Value::Object(claims) = claims else { unreachable!() };
        Facts {
            tenant: TenantId::parse("default").unwrap(),
            client_id: "app".into(),
            provider: ProviderFacts { id: "google".into(), issuer: "https://issuer.example".into() },
            upstream: UpstreamFacts { acr: Some("the-acr".to_owned()), ..UpstreamFacts::default() },
            claims: Arc::new(claims),
            request: RequestFacts {
                ip: Some("192.0.2.7".parse().unwrap()),
                location: Location { city: Some("the-city".into()), ..Location::default() },
                user_agent: Some("the-agent".into()),
                browser: Some("the-browser".into()),
                os: Some("the-os".into()),
                device_kind: Some("the-kind".into()),
                device_id: Some("the-device".into()),
                language: Some("the-language".into()),
                time: UnixTime::from_secs(7),
            },
            user: UserFacts {
                id: UserId::from_bytes([1; 16]),
                is_new: false,
                age_days: 3,
                status: "the-status",
                kind: crate::signin::identity::UserKind::Person,
                email_verified: true,
                groups: vec!["the-group".to_owned()],
                privileged: false,
                password: None,
                channels: Vec::new(),
                mfa_methods: vec![FactorFacts {
                    method: MfaMethod::Totp,
                    strength: Strength::Strong,
                    enrolled_age_days: 1,
                    last_used_age_days: None,
                }],
                link_method: LinkMethod::Existing,
            },
            history: HistoryFacts {
                last_sign_in: Some(LastSignIn {
                    time: UnixTime::from_secs(1),
                    country: Some("the-country".into()),
                    asn: None,
                    provider_id: "google".into(),
                    factors: Vec::new(),
                    level: "low".into(),
                }),
                ..HistoryFacts::default()
            },
            plugin_signals: BTreeMap::new(),
        }
    }

    fn shown(facts_granted: &[FactGrant], claims: ClaimGrant) -> String {
        let grants = Grants { facts: facts_granted.iter().copied().collect(), claims, events: BTreeSet::new() };
        String::from_utf8(signals_input(&facts(), &grants, Duration::from_millis(250))).unwrap()
    }

    #[test]
    fn without_grants_nothing_of_the_person_is_shown() {
        let expected = json!({
            "tenant": "default",
            "client_id": "app",
            "provider": { "id": "google", "issuer": "https://issuer.example" },
            "request": { "time_unix_s": 7 },
            "claims": {},
            "deadline_ms": 250,
        });
        let shown = shown(&[], ClaimGrant::Named(BTreeSet::new()));
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), expected);
    }

    #[test]
    fn each_grant_shows_its_own_facts_and_no_others() {
        let secrets: [(FactGrant, &[&str]); 9] = [
            (FactGrant::RequestIp, &["192.0.2.7", "192.0.2.0/24"]),
            (FactGrant::RequestLocation, &["the-city"]),
            (FactGrant::RequestAgent, &["the-agent", "the-browser", "the-os", "the-kind", "the-language"]),
            (FactGrant::RequestDeviceId, &["the-device"]),
            (FactGrant::Upstream, &["the-acr"]),
            (FactGrant::User, &["the-status", "totp"]),
            (FactGrant::UserId, &["usr_"]),
            (FactGrant::UserGroups, &["the-group"]),
            (FactGrant::History, &["the-country"]),
        ];
        for (granted, _) in secrets {
            let shown = shown(&[granted], ClaimGrant::Named(BTreeSet::new()));
            for (of, words) in secrets {
                for word in words {
                    assert_eq!(shown.contains(word), of == granted, "{word} with {}", granted.name());
                }
            }
        }
    }

    #[test]
    fn all_claims_are_those_of_the_person_and_not_those_of_the_token() {
        let all = shown(&[], ClaimGrant::All);
        assert!(all.contains("the-sub") && all.contains("the-email"));
        assert!(!all.contains("the-nonce") && !all.contains("the-x"));
        let named = shown(&[], ClaimGrant::Named(["nonce".to_owned()].into()));
        assert!(named.contains("the-nonce") && !named.contains("the-sub"));
    }
}
