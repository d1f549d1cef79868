//! `s`: frozen facts behind typed getters. A name that is not registered is an error with its place, and
//! what is not known is `()`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use rhai::{Dynamic, ImmutableString};
use serde_json::Value;

use super::calls::Calls;
use super::claims::{self, Claims};
use crate::signin::fact_paths::{Because, known_device, position};
use crate::signin::facts::{
    FactorFacts, Facts, HistoryFacts, LastSignIn, ProviderFacts, RequestFacts, UpstreamFacts, UserFacts,
};
use crate::signin::identity::MappingInput;
use crate::signin::likelihood::Likelihood;

/// The most claims and plugins that a step can name as its cause.
const NAMED: usize = 16;

/// The facts of one run, and which of them it has read. One thread runs a script, so that the bits need
/// no order; they are atomic because the engine's values are `Sync`.
pub(super) struct Seen {
    facts: Arc<Facts>,
    first_sign_in: ImmutableString,
    since: [AtomicU64; 2],
    ever: [AtomicU64; 2],
    named: Mutex<Vec<String>>,
}

impl Seen {
    /// Nothing is read yet. `first_sign_in` is that of policy.toml.
    pub fn new(facts: Arc<Facts>, first_sign_in: ImmutableString) -> Arc<Self> {
        Arc::new(Self {
            facts,
            first_sign_in,
            since: Default::default(),
            ever: Default::default(),
            named: Mutex::default(),
        })
    }

    fn note(&self, position: usize) {
        let word = &self.since[position / 64 % 2];
        word.store(word.load(Relaxed) | 1 << (position % 64), Relaxed);
    }

    /// A claim or plugin, whose names are the tenant's own.
    pub fn note_named(&self, folder: &str, name: &str) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() < NAMED && name.len() <= 64 {
            named.push(format!("{folder}.{name}"));
        }
    }

    /// What was read since the last call.
    pub fn take(&self) -> Because {
        let mut words = [0; 2];
        for ((word, since), ever) in words.iter_mut().zip(&self.since).zip(&self.ever) {
            *word = since.load(Relaxed);
            since.store(0, Relaxed);
            ever.store(ever.load(Relaxed) | *word, Relaxed);
        }
        let named = std::mem::take(&mut *self.named.lock().unwrap_or_else(PoisonError::into_inner));
        Because { facts: u128::from(words[0]) | u128::from(words[1]) << 64, named }
    }

    /// All that was read, whether something came of it or not.
    pub fn ever(&self) -> u128 {
        let since = self.take().facts;
        since | u128::from(self.ever[0].load(Relaxed)) | u128::from(self.ever[1].load(Relaxed)) << 64
    }
}

/// The root of what `assess` sees.
#[derive(Clone)]
pub(super) struct RiskFacts(pub Arc<Seen>);

/// The root of what `map` sees: no user, no history, no signals.
#[derive(Clone)]
pub(super) struct MapFacts(pub Arc<MappingInput>);

/// Where the parts that both entries see come from.
#[derive(Clone)]
enum Source {
    Risk(Arc<Seen>),
    Map(Arc<MappingInput>),
}

impl Source {
    fn provider(&self) -> &ProviderFacts {
        match self {
            Self::Risk(f) => &f.facts.provider,
            Self::Map(m) => &m.provider,
        }
    }

    fn upstream(&self) -> &UpstreamFacts {
        match self {
            Self::Risk(f) => &f.facts.upstream,
            Self::Map(m) => &m.upstream,
        }
    }

    fn request(&self) -> &RequestFacts {
        match self {
            Self::Risk(f) => &f.facts.request,
            Self::Map(m) => &m.request,
        }
    }
}

#[derive(Clone)]
struct Tenant {
    id: ImmutableString,
    first_sign_in: Dynamic,
    seen: Option<Arc<Seen>>,
}
#[derive(Clone)]
struct Client(Arc<Seen>);
#[derive(Clone)]
struct Provider(Source);
#[derive(Clone)]
struct Upstream(Source);
#[derive(Clone)]
struct Request(Source);
#[derive(Clone)]
struct User(Arc<Seen>);
#[derive(Clone)]
struct History(Arc<Seen>);
#[derive(Clone)]
struct Signals(Arc<Seen>);
#[derive(Clone)]
struct PluginSignals(Arc<Seen>);

/// Whatever a script reads facts from.
trait Notes {
    fn note(&self, position: usize);
}

macro_rules! notes {
    ($($name:ident),*) => {
        $(impl Notes for $name {
            fn note(&self, position: usize) {
                self.0.note(position);
            }
        })*
    };
}

notes!(RiskFacts, Client, User, History, Signals, Provider, Upstream, Request);

impl Notes for Source {
    fn note(&self, position: usize) {
        if let Self::Risk(seen) = self {
            seen.note(position);
        }
    }
}

impl Notes for MapFacts {
    fn note(&self, _: usize) {}
}

impl Notes for Tenant {
    fn note(&self, position: usize) {
        if let Some(seen) = &self.seen {
            seen.note(position);
        }
    }
}

fn text(value: Option<&Arc<str>>) -> Dynamic {
    value.map_or(Dynamic::UNIT, |v| Dynamic::from(ImmutableString::from(&**v)))
}

fn known<T: Into<Dynamic>>(value: Option<T>) -> Dynamic {
    value.map_or(Dynamic::UNIT, Into::into)
}

fn words(list: &[String]) -> Dynamic {
    Dynamic::from_array(list.iter().map(|w| Dynamic::from(ImmutableString::from(w.as_str()))).collect())
}

/// Getters that give a `Dynamic`, and note what is read: `title.name` is the fact's path.
macro_rules! getters {
    ($calls:expr, $type:ty, $title:literal, { $($name:literal => |$v:ident| $body:expr,)* }) => {
        $calls.of::<$type>($title);
        $(
            let path = position(concat!($title, ".", $name));
            $calls.fact(concat!($title, ".", $name), move |$v: &mut $type| -> Dynamic {
                if let Some(position) = path {
                    $v.note(position);
                }
                $body
            });
        )*
    };
}

pub(super) fn register(calls: &mut Calls<'_>) {
    claims::register(calls);
    register_roots(calls);
    register_shared(calls);
    register_request(calls);
    register_user(calls);
    register_history(calls);
    getters!(calls, Signals, "signals", {
        "plugin" => |s| Dynamic::from(PluginSignals(Arc::clone(&s.0))),
        "likelihood" => |s| known(s.0.facts.history.likelihood.as_ref().map(Likelihood::value)),
        "likelihood_points" => |s| known(s.0.facts.history.likelihood.as_ref().map(|l| l.points)),
        "credential_compromise" => |s| known(s.0.facts.credential_compromise()),
        "session_revoked_recently" => |s| known(s.0.facts.session_revoked_recently()),
        "ip_reputation" => |_s| Dynamic::UNIT,
    });
    calls.of::<PluginSignals>("plugin signals").index(
        "plugin.index$get$(id: String) -> ?",
        "The map of a plugin, or () when it failed.",
        |signals: &mut PluginSignals, id: &str| -> Dynamic {
            signals.0.note_named("signals.plugin", id);
            let told = signals.0.facts.plugin_signals.get(id).and_then(Option::as_ref);
            told.and_then(|value: &Value| claims::to_dynamic(value, rhai::Position::NONE).ok())
                .unwrap_or(Dynamic::UNIT)
        },
    );
}

fn register_roots(calls: &mut Calls<'_>) {
    getters!(calls, RiskFacts, "facts", {
        "contract" => |_s| 1_i64.into(),
        "tenant" => |s| Dynamic::from(Tenant {
            id: s.0.facts.tenant.as_str().into(),
            first_sign_in: s.0.first_sign_in.clone().into(),
            seen: Some(Arc::clone(&s.0)),
        }),
        "client" => |s| Dynamic::from(Client(Arc::clone(&s.0))),
        "provider" => |s| Dynamic::from(Provider(Source::Risk(Arc::clone(&s.0)))),
        "claims" => |s| Dynamic::from(Claims::of(&s.0.facts.claims, Some(&s.0))),
        "upstream" => |s| Dynamic::from(Upstream(Source::Risk(Arc::clone(&s.0)))),
        "request" => |s| Dynamic::from(Request(Source::Risk(Arc::clone(&s.0)))),
        "user" => |s| Dynamic::from(User(Arc::clone(&s.0))),
        "history" => |s| Dynamic::from(History(Arc::clone(&s.0))),
        "signals" => |s| Dynamic::from(Signals(Arc::clone(&s.0))),
    });
    getters!(calls, MapFacts, "mapping facts", {
        "contract" => |_s| 1_i64.into(),
        "tenant" => |s| Dynamic::from(Tenant { id: s.0.tenant.as_str().into(), first_sign_in: Dynamic::UNIT, seen: None }),
        "provider" => |s| Dynamic::from(Provider(Source::Map(Arc::clone(&s.0)))),
        "claims" => |s| Dynamic::from(Claims::of(&s.0.claims, None)),
        "upstream" => |s| Dynamic::from(Upstream(Source::Map(Arc::clone(&s.0)))),
        "request" => |s| Dynamic::from(Request(Source::Map(Arc::clone(&s.0)))),
    });
}

fn register_shared(calls: &mut Calls<'_>) {
    getters!(calls, Tenant, "tenant", {
        "id" => |t| t.id.clone().into(),
        "first_sign_in" => |t| t.first_sign_in.clone(),
    });
    getters!(calls, Client, "client", {
        "id" => |c| text(Some(&c.0.facts.client_id)),
    });
    getters!(calls, Provider, "provider", {
        "id" => |p| text(Some(&p.0.provider().id)),
        "issuer" => |p| text(Some(&p.0.provider().issuer)),
    });
    getters!(calls, Upstream, "upstream", {
        "amr" => |u| words(&u.0.upstream().amr),
        "acr" => |u| known(u.0.upstream().acr.clone()),
        "auth_time_age_s" => |u| known(u.0.upstream().auth_time_age_s),
        "token_age_s" => |u| u.0.upstream().token_age_s.into(),
        "trusted_mfa" => |u| u.0.upstream().trusted_mfa.into(),
        "enrich_missing" => |u| words(&u.0.upstream().enrich_missing),
    });
}

fn register_request(calls: &mut Calls<'_>) {
    getters!(calls, Request, "request", {
        "ip" => |r| known(r.0.request().ip.map(|ip| ip.to_string())),
        "ip_prefix" => |r| known(r.0.request().ip_prefix()),
        "country" => |r| text(r.0.request().location.country.as_ref()),
        "region" => |r| text(r.0.request().location.region.as_ref()),
        "city" => |r| text(r.0.request().location.city.as_ref()),
        "asn" => |r| known(r.0.request().location.asn),
        "asn_name" => |r| text(r.0.request().location.asn_name.as_ref()),
        "user_agent" => |r| text(r.0.request().user_agent.as_ref()),
        "browser" => |r| text(r.0.request().browser.as_ref()),
        "os" => |r| text(r.0.request().os.as_ref()),
        "device_kind" => |r| text(r.0.request().device_kind.as_ref()),
        "device_id" => |r| text(r.0.request().device_id.as_ref()),
        "language" => |r| text(r.0.request().language.as_ref()),
        "time_unix_s" => |r| r.0.request().time.as_secs().into(),
        "local_hour" => |r| known(r.0.request().location.local_hour),
        "network_kind" => |r| r.0.request().location.network_kind.as_str().into(),
        "geo" => |r| r.0.request().location.quality.as_str().into(),
    });
}

fn register_user(calls: &mut Calls<'_>) {
    fn user(u: &User) -> &UserFacts {
        &u.0.facts.user
    }
    getters!(calls, User, "user", {
        "id" => |u| user(u).id.to_string().into(),
        "is_new" => |u| user(u).is_new.into(),
        "age_days" => |u| user(u).age_days.into(),
        "status" => |u| user(u).status.into(),
        "kind" => |u| user(u).kind.as_str().into(),
        "email_verified" => |u| user(u).email_verified.into(),
        "groups" => |u| words(&user(u).groups),
        "privileged" => |u| user(u).privileged.into(),
        "link_method" => |u| user(u).link_method.as_str().into(),
        "has_password" => |u| user(u).password.is_some().into(),
        "mfa_methods" => |u| Dynamic::from_array(user(u).mfa_methods.iter().map(factor).collect()),
    });
}

fn register_history(calls: &mut Calls<'_>) {
    fn history(h: &History) -> &HistoryFacts {
        &h.0.facts.history
    }
    getters!(calls, History, "history", {
        "sign_ins_total" => |h| history(h).sign_ins_total.into(),
        "sign_ins_30d" => |h| history(h).sign_ins_30d.into(),
        "failed_attempts_1h" => |h| history(h).failed_attempts_1h.into(),
        "failed_attempts_24h" => |h| history(h).failed_attempts_24h.into(),
        "denied_30d" => |h| history(h).denied_30d.into(),
        "mfa_failed_24h" => |h| history(h).mfa_failed_24h.into(),
        "device" => |h| history(h).device.as_str().into(),
        "trusted_device" => |h| history(h).trusted_device.into(),
        "known_device" => |h| known(known_device(history(h))),
        "known_country" => |h| known(history(h).known_country),
        "known_asn" => |h| known(history(h).known_asn),
        "known_prefix" => |h| known(history(h).known_prefix),
        "km_from_last" => |h| known(history(h).km_from_last),
        "hours_since_last" => |h| known(history(h).hours_since_last),
        "implied_speed_kmh" => |h| known(history(h).implied_speed_kmh),
        "travel" => |h| history(h).travel.as_str().into(),
        "last_sign_in" => |h| history(h).last_sign_in.as_ref().map_or(Dynamic::UNIT, last_sign_in),
    });
}

/// The members of facts that are maps: name and kind of JSON, with `?` where it may be `()`.
pub(super) const MEMBERS: &[(&str, &[(&str, &str)])] = &[
    (
        "history.last_sign_in",
        &[
            ("asn", "integer?"),
            ("country", "string?"),
            ("factors", "array"),
            ("level", "string"),
            ("provider_id", "string"),
            ("time_unix_s", "integer"),
        ],
    ),
    (
        "user.mfa_methods",
        &[
            ("enrolled_age_days", "integer"),
            ("kind", "string"),
            ("last_used_age_days", "integer?"),
            ("strength", "string"),
        ],
    ),
];

pub(super) fn factor(factor: &FactorFacts) -> Dynamic {
    let mut map = rhai::Map::new();
    map.insert("kind".into(), factor.method.as_str().into());
    map.insert("strength".into(), factor.strength.as_str().into());
    map.insert("enrolled_age_days".into(), factor.enrolled_age_days.into());
    map.insert("last_used_age_days".into(), known(factor.last_used_age_days));
    map.into()
}

pub(super) fn last_sign_in(last: &LastSignIn) -> Dynamic {
    let mut map = rhai::Map::new();
    map.insert("time_unix_s".into(), last.time.as_secs().into());
    map.insert("country".into(), text(last.country.as_ref()));
    map.insert("asn".into(), known(last.asn));
    map.insert("provider_id".into(), text(Some(&last.provider_id)));
    map.insert("factors".into(), words(&last.factors));
    map.insert("level".into(), text(Some(&last.level)));
    map.into()
}
