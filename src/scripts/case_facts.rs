//! The facts of a test case: an ordinary sign-in, with what the case sets.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use toml::Value;

use crate::clock::UnixTime;
use crate::ids::{TenantId, UserId};
use crate::mfa::MfaMethod;
use crate::signin::facts::{
    DeviceMatch, FactorFacts, Facts, GeoQuality, HistoryFacts, LinkMethod, Location, NetworkKind, ProviderFacts,
    RequestFacts, Travel, UpstreamFacts, UserFacts,
};
use crate::signin::identity::UserKind;
use crate::signin::likelihood::{Likelihood, MOST_POINTS};

/// A returning user at home, on a known device, at noon.
pub(super) fn ordinary(tenant: &TenantId) -> Facts {
    let time = UnixTime::from_secs(1_780_315_200);
    Facts {
        tenant: tenant.clone(),
        client_id: "app-web".into(),
        provider: ProviderFacts { id: "acme".into(), issuer: "https://idp.example".into() },
        upstream: UpstreamFacts {
            amr: vec!["pwd".to_owned()],
            auth_time_age_s: Some(30),
            token_age_s: 5,
            ..UpstreamFacts::default()
        },
        claims: Arc::new(Map::from_iter([
            ("iss".to_owned(), "https://idp.example".into()),
            ("sub".to_owned(), "subject-1".into()),
            ("email".to_owned(), "ada@example.com".into()),
            ("email_verified".to_owned(), true.into()),
        ])),
        request: RequestFacts {
            ip: "203.0.113.7".parse().ok(),
            location: Location {
                country: Some("SE".into()),
                city: Some("Stockholm".into()),
                asn: Some(64500),
                asn_name: Some("Example Net".into()),
                local_hour: Some(12),
                network_kind: NetworkKind::Residential,
                quality: GeoQuality::Ok,
                ..Location::default()
            },
            user_agent: Some("Mozilla/5.0".into()),
            browser: Some("Firefox".into()),
            os: Some("Linux".into()),
            device_kind: Some("pc".into()),
            device_id: Some("device-1".into()),
            language: Some("sv-SE".into()),
            time,
        },
        user: UserFacts {
            id: UserId::from_bytes([7; 16]),
            is_new: false,
            age_days: 400,
            status: "active",
            kind: UserKind::Person,
            email_verified: true,
            groups: Vec::new(),
            privileged: false,
            password: None,
            mfa_methods: vec![FactorFacts {
                method: MfaMethod::Totp,
                strength: MfaMethod::Totp.strength(),
                enrolled_age_days: 300,
                last_used_age_days: Some(3),
            }],
            channels: Vec::new(),
            link_method: LinkMethod::Existing,
        },
        history: HistoryFacts {
            sign_ins_total: 120,
            sign_ins_30d: 20,
            device: DeviceMatch::Match,
            known_country: Some(true),
            known_asn: Some(true),
            known_prefix: Some(true),
            km_from_last: Some(0.0),
            hours_since_last: Some(20.0),
            implied_speed_kmh: Some(0.0),
            travel: Travel::None,
            ..HistoryFacts::default()
        },
        plugin_signals: BTreeMap::new(),
    }
}

/// `false` is the way TOML writes "not known": it has no null.
fn unknown(value: &Value) -> bool {
    value.as_str() == Some("unknown")
}

/// Sets one fact by the path that scripts read it by. The text `"unknown"` makes a fact `()`.
pub(super) fn set(facts: &mut Facts, path: &str, value: &Value) -> Result<(), String> {
    let wrong = || format!("\"{path}\" cannot be {value}");
    let int = || value.as_integer().ok_or_else(wrong);
    let boolean = || value.as_bool().ok_or_else(wrong);
    let maybe_int = || if unknown(value) { Ok(None) } else { int().map(Some) };
    let maybe_bool = || if unknown(value) { Ok(None) } else { boolean().map(Some) };
    let maybe_float = || match value {
        v if unknown(v) => Ok(None),
        Value::Float(f) => Ok(Some(*f)),
        #[expect(clippy::cast_precision_loss, reason = "a case's kilometres and hours are small")]
        Value::Integer(i) => Ok(Some(*i as f64)),
        _ => Err(wrong()),
    };
    let maybe_text = || match value {
        v if unknown(v) => Ok(None),
        Value::String(text) => Ok(Some(Arc::<str>::from(text.as_str()))),
        _ => Err(wrong()),
    };
    let words = || -> Result<Vec<String>, String> {
        let list = value.as_array().ok_or_else(wrong)?;
        list.iter().map(|w| w.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
    };
    let h = &mut facts.history;
    let r = &mut facts.request;
    let u = &mut facts.user;
    match path {
        "tenant.id" => facts.tenant = value.as_str().and_then(|t| TenantId::parse(t).ok()).ok_or_else(wrong)?,
        "client.id" => facts.client_id = maybe_text()?.ok_or_else(wrong)?,
        "provider.id" => facts.provider.id = maybe_text()?.ok_or_else(wrong)?,
        "provider.issuer" => facts.provider.issuer = maybe_text()?.ok_or_else(wrong)?,
        "upstream.amr" => facts.upstream.amr = words()?,
        "upstream.acr" => facts.upstream.acr = maybe_text()?.map(|t| t.to_string()),
        "upstream.auth_time_age_s" => facts.upstream.auth_time_age_s = maybe_int()?,
        "upstream.token_age_s" => facts.upstream.token_age_s = int()?,
        "upstream.trusted_mfa" => facts.upstream.trusted_mfa = boolean()?,
        "upstream.enrich_missing" => facts.upstream.enrich_missing = words()?,
        "request.ip" => r.ip = maybe_text()?.map(|t| t.parse().map_err(|_| wrong())).transpose()?,
        "request.country" => r.location.country = maybe_text()?,
        "request.region" => r.location.region = maybe_text()?,
        "request.city" => r.location.city = maybe_text()?,
        "request.asn" => r.location.asn = maybe_int()?,
        "request.asn_name" => r.location.asn_name = maybe_text()?,
        "request.user_agent" => r.user_agent = maybe_text()?,
        "request.browser" => r.browser = maybe_text()?,
        "request.os" => r.os = maybe_text()?,
        "request.device_kind" => r.device_kind = maybe_text()?,
        "request.device_id" => r.device_id = maybe_text()?,
        "request.language" => r.language = maybe_text()?,
        "request.time_unix_s" => r.time = UnixTime::from_secs(int()?),
        "request.local_hour" => r.location.local_hour = maybe_int()?,
        "request.network_kind" => r.location.network_kind = network_kind(value).ok_or_else(wrong)?,
        "request.geo" => r.location.quality = geo(value).ok_or_else(wrong)?,
        "user.is_new" => u.is_new = boolean()?,
        "user.age_days" => u.age_days = int()?,
        "user.kind" => u.kind = value.as_str().and_then(UserKind::find).ok_or_else(wrong)?,
        "user.email_verified" => u.email_verified = boolean()?,
        "user.groups" => u.groups = words()?,
        "user.privileged" => u.privileged = boolean()?,
        "user.link_method" => u.link_method = link_method(value).ok_or_else(wrong)?,
        "user.mfa_methods" => u.mfa_methods = factors(&words()?).ok_or_else(wrong)?,
        "history.sign_ins_total" => h.sign_ins_total = int()?,
        "history.sign_ins_30d" => h.sign_ins_30d = int()?,
        "history.failed_attempts_1h" => h.failed_attempts_1h = int()?,
        "history.failed_attempts_24h" => h.failed_attempts_24h = int()?,
        "history.denied_30d" => h.denied_30d = int()?,
        "history.mfa_failed_24h" => h.mfa_failed_24h = int()?,
        "history.device" => h.device = device(value).ok_or_else(wrong)?,
        "history.trusted_device" => h.trusted_device = boolean()?,
        "history.known_country" => h.known_country = maybe_bool()?,
        "history.known_asn" => h.known_asn = maybe_bool()?,
        "history.known_prefix" => h.known_prefix = maybe_bool()?,
        "history.km_from_last" => h.km_from_last = maybe_float()?,
        "history.hours_since_last" => h.hours_since_last = maybe_float()?,
        "history.implied_speed_kmh" => h.implied_speed_kmh = maybe_float()?,
        "history.travel" => h.travel = travel(value).ok_or_else(wrong)?,
        "signals.likelihood" => {
            #[expect(clippy::cast_possible_truncation, reason = "a float becomes an integer by saturation")]
            let of = |value: f64| Likelihood::of_milli((value.clamp(-100.0, 100.0) * 1000.0).round() as i64);
            h.likelihood = maybe_float()?.map(of);
        }
        "signals.likelihood_points" => {
            h.likelihood = maybe_int()?.map(|points| Likelihood {
                points: points.clamp(0, MOST_POINTS),
                ..h.likelihood.clone().unwrap_or_else(|| Likelihood::of_milli(0))
            });
        }
        _ => return set_open(facts, path, value),
    }
    Ok(())
}

/// `claims.NAME` and `signals.plugin.ID`: names that only the tenant knows.
fn set_open(facts: &mut Facts, path: &str, value: &Value) -> Result<(), String> {
    let json = serde_json::to_value(value).map_err(|e| format!("\"{path}\": {e}"))?;
    if let Some(name) = path.strip_prefix("claims.") {
        Arc::make_mut(&mut facts.claims).insert(name.to_owned(), json);
        return Ok(());
    }
    if let Some(id) = path.strip_prefix("signals.plugin.") {
        let told = if unknown(value) { None } else { Some(json) };
        if told.as_ref().is_some_and(|t| !t.is_object()) {
            return Err(format!("\"{path}\" is a table, or \"unknown\""));
        }
        facts.plugin_signals.insert(id.to_owned(), told);
        return Ok(());
    }
    Err(format!("there is no fact \"{path}\" that a case can set"))
}

fn by_word<T: Copy>(value: &Value, all: &[T], word: impl Fn(T) -> &'static str) -> Option<T> {
    let wanted = value.as_str()?;
    all.iter().copied().find(|item| word(*item) == wanted)
}

fn network_kind(value: &Value) -> Option<NetworkKind> {
    use NetworkKind as K;
    let all = [K::Residential, K::Mobile, K::Business, K::Hosting, K::Anonymizer, K::Private, K::Unknown];
    by_word(value, &all, K::as_str)
}

fn geo(value: &Value) -> Option<GeoQuality> {
    use GeoQuality as G;
    by_word(value, &[G::Ok, G::Missing, G::Private, G::Coarse], G::as_str)
}

fn device(value: &Value) -> Option<DeviceMatch> {
    use DeviceMatch as D;
    by_word(value, &[D::Match, D::Partial, D::New, D::First, D::Unknown], D::as_str)
}

fn travel(value: &Value) -> Option<Travel> {
    use Travel as T;
    by_word(value, &[T::None, T::Plausible, T::Fast, T::Impossible, T::Unknown], T::as_str)
}

fn link_method(value: &Value) -> Option<LinkMethod> {
    use LinkMethod as L;
    by_word(
        value,
        &[L::Existing, L::LinkedByVerifiedEmail, L::ConfirmedByFactor, L::Invited, L::Provisioned],
        L::as_str,
    )
}

/// Factors by their words: `["totp"]`.
fn factors(words: &[String]) -> Option<Vec<FactorFacts>> {
    words
        .iter()
        .map(|word| {
            let method = MfaMethod::ALL.into_iter().find(|m| m.as_str() == word)?;
            Some(FactorFacts {
                method,
                strength: method.strength(),
                enrolled_age_days: 100,
                last_used_age_days: None,
            })
        })
        .collect()
}

/// Claims of a mapping case.
pub(super) fn claims(table: &toml::Table) -> Result<Arc<Map<String, Json>>, String> {
    match serde_json::to_value(table) {
        Ok(Json::Object(map)) => Ok(Arc::new(map)),
        _ => Err("claims is a table".to_owned()),
    }
}
