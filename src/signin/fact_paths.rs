//! Facts by the paths that scripts read them by: which were read, and what they were.

use serde_json::{Value, json};

use super::facts::{DeviceMatch, Facts, HistoryFacts};
use super::likelihood::Likelihood;

/// One fact.
pub struct FactPath {
    /// As a script writes it, without `s.`.
    pub name: &'static str,
    /// What it is; `null` is "not known".
    pub read: fn(&Facts) -> Value,
}

impl std::fmt::Debug for FactPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Facts that are kept as something that only compares: of these a replay sees a stand-in.
pub const WITHHELD: [&str; 4] = ["request.ip", "request.ip_prefix", "request.user_agent", "request.device_id"];

/// Facts whose parts have names of the tenant's own.
pub const CLAIMS: &str = "claims";
/// See [`CLAIMS`].
pub const PLUGIN_SIGNALS: &str = "signals.plugin";

macro_rules! paths {
    ($($name:literal => |$f:ident| $value:expr,)*) => {
        /// Every fact, at most 128: a run notes what it reads in two words.
        pub const PATHS: &[FactPath] = &[$(FactPath { name: $name, read: |$f| $value },)*];
    };
}

paths! {
    "contract" => |_f| json!(1),
    "tenant.id" => |f| json!(f.tenant.as_str()),
    "tenant.first_sign_in" => |_f| Value::Null,
    "client.id" => |f| json!(&*f.client_id),
    "provider.id" => |f| json!(&*f.provider.id),
    "provider.issuer" => |f| json!(&*f.provider.issuer),
    "claims" => |_f| json!("…"),
    "upstream.amr" => |f| json!(f.upstream.amr),
    "upstream.acr" => |f| json!(f.upstream.acr),
    "upstream.auth_time_age_s" => |f| json!(f.upstream.auth_time_age_s),
    "upstream.token_age_s" => |f| json!(f.upstream.token_age_s),
    "upstream.trusted_mfa" => |f| json!(f.upstream.trusted_mfa),
    "upstream.enrich_missing" => |f| json!(f.upstream.enrich_missing),
    "request.ip" => |_f| json!("withheld"),
    "request.ip_prefix" => |_f| json!("withheld"),
    "request.country" => |f| json!(f.request.location.country),
    "request.region" => |f| json!(f.request.location.region),
    "request.city" => |f| json!(f.request.location.city),
    "request.asn" => |f| json!(f.request.location.asn),
    "request.asn_name" => |f| json!(f.request.location.asn_name),
    "request.user_agent" => |_f| json!("withheld"),
    "request.browser" => |f| json!(f.request.browser),
    "request.os" => |f| json!(f.request.os),
    "request.device_kind" => |f| json!(f.request.device_kind),
    "request.device_id" => |_f| json!("withheld"),
    "request.language" => |f| json!(f.request.language),
    "request.time_unix_s" => |f| json!(f.request.time.as_secs()),
    "request.local_hour" => |f| json!(f.request.location.local_hour),
    "request.network_kind" => |f| json!(f.request.location.network_kind.as_str()),
    "request.geo" => |f| json!(f.request.location.quality.as_str()),
    "user.id" => |f| json!(f.user.id.to_string()),
    "user.is_new" => |f| json!(f.user.is_new),
    "user.age_days" => |f| json!(f.user.age_days),
    "user.status" => |f| json!(f.user.status),
    "user.kind" => |f| json!(f.user.kind.as_str()),
    "user.email_verified" => |f| json!(f.user.email_verified),
    "user.groups" => |f| json!(f.user.groups),
    "user.privileged" => |f| json!(f.user.privileged),
    "user.link_method" => |f| json!(f.user.link_method.as_str()),
    "user.has_password" => |f| json!(f.user.password.is_some()),
    "user.mfa_methods" => |f| json!(f.user.mfa_methods.iter().map(|m| m.method.as_str()).collect::<Vec<_>>()),
    "history.sign_ins_total" => |f| json!(f.history.sign_ins_total),
    "history.sign_ins_30d" => |f| json!(f.history.sign_ins_30d),
    "history.failed_attempts_1h" => |f| json!(f.history.failed_attempts_1h),
    "history.failed_attempts_24h" => |f| json!(f.history.failed_attempts_24h),
    "history.denied_30d" => |f| json!(f.history.denied_30d),
    "history.mfa_failed_24h" => |f| json!(f.history.mfa_failed_24h),
    "history.device" => |f| json!(f.history.device.as_str()),
    "history.trusted_device" => |f| json!(f.history.trusted_device),
    "history.known_device" => |f| json!(known_device(&f.history)),
    "history.known_country" => |f| json!(f.history.known_country),
    "history.known_asn" => |f| json!(f.history.known_asn),
    "history.known_prefix" => |f| json!(f.history.known_prefix),
    "history.km_from_last" => |f| json!(f.history.km_from_last),
    "history.hours_since_last" => |f| json!(f.history.hours_since_last),
    "history.implied_speed_kmh" => |f| json!(f.history.implied_speed_kmh),
    "history.travel" => |f| json!(f.history.travel.as_str()),
    "history.last_sign_in" => |f| json!(f.history.last_sign_in.as_ref().map(|last| json!({
        "time_unix_s": last.time.as_secs(), "country": last.country, "level": last.level,
    }))),
    "signals.plugin" => |_f| json!("…"),
    "signals.likelihood" => |f| json!(f.history.likelihood.as_ref().map(Likelihood::value)),
    "signals.likelihood_points" => |f| json!(f.history.likelihood.as_ref().map(|l| l.points)),
    "signals.credential_compromise" => |f| json!(f.credential_compromise()),
    "signals.session_revoked_recently" => |f| json!(f.session_revoked_recently()),
    "signals.ip_reputation" => |_f| Value::Null,
}

const _: () = assert!(PATHS.len() <= 128);

/// Whether the device is known; `None` when that cannot be told.
#[must_use]
pub fn known_device(history: &HistoryFacts) -> Option<bool> {
    match history.device {
        DeviceMatch::Match => Some(true),
        DeviceMatch::Partial | DeviceMatch::New => Some(false),
        DeviceMatch::First | DeviceMatch::Unknown => None,
    }
}

/// The place of a path in [`PATHS`].
#[must_use]
pub fn position(name: &str) -> Option<usize> {
    PATHS.iter().position(|path| path.name == name)
}

/// What a rule had read of the facts when it asked for something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Because {
    /// Bit n stands for `PATHS[n]`.
    pub facts: u128,
    /// Claims (`claims.NAME`) and plugins (`signals.plugin.ID`) by name.
    pub named: Vec<String>,
}

impl Because {
    /// The paths, in the order of [`PATHS`], then the named ones. A constant of the server is no cause.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let is_cause = |name: &str| ![CLAIMS, PLUGIN_SIGNALS, "contract"].contains(&name);
        let fixed = PATHS.iter().enumerate().filter(move |(n, p)| self.facts >> n & 1 == 1 && is_cause(p.name));
        fixed.map(|(_, path)| path.name).chain(self.named.iter().map(String::as_str))
    }
}

/// What a fact was, by the path that [`Because::paths`] gives; `null` for what is not known.
#[must_use]
pub fn value_of(facts: &Facts, path: &str) -> Value {
    if let Some(name) = path.strip_prefix("claims.") {
        return shorten(facts.claims.get(name).cloned().unwrap_or_default());
    }
    if let Some(id) = path.strip_prefix("signals.plugin.") {
        return shorten(facts.plugin_signals.get(id).cloned().flatten().unwrap_or_default());
    }
    position(path).map_or(Value::Null, |n| (PATHS[n].read)(facts))
}

/// A claim may be long; a trace is for reading.
fn shorten(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= 200 {
        return value;
    }
    Value::String(text.chars().take(200).collect::<String>() + "…")
}
