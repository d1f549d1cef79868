//! Facts as they are kept with a decision. What is as in most sign-ins is left out.
//!
//! Addresses, agents and device identifiers are not there: a stand-in is, which is the same for the same
//! value and tells nothing of it. An address stands as one of `fd00::/8` (RFC 4193), so that it is still
//! one to scripts, and two of one range still share theirs. Claims that bind a token are left out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::clock::UnixTime;
use crate::ids::{TenantId, UserId};
use crate::mfa::{MfaMethod, Strength};
use crate::people::passwords::PasswordState;
use crate::policy::explain::Trace;
use crate::signin::facts::{
    ChannelFacts, DeviceMatch, FactorFacts, Facts, GeoQuality, HistoryFacts, LastSignIn, LinkMethod, Location,
    NetworkKind, ProviderFacts, RequestFacts, Travel, UpstreamFacts, UserFacts,
};
use crate::signin::history::{ContextPrint, Pseudonym, Pseudonyms};
use crate::signin::identity::UserKind;
use crate::signin::likelihood::{Feature, Likelihood, Share};
use crate::signin::user::UserStatus;

const TOKEN_CLAIMS: [&str; 6] = ["nonce", "jti", "sid", "at_hash", "c_hash", "s_hash"];

type Text = Option<Arc<str>>;

#[derive(Serialize, Deserialize)]
pub(super) struct FrozenDecision {
    pub facts: FrozenFacts,
    pub trace: Trace,
}

macro_rules! frozen {
    ($name:ident { $($field:ident: $type:ty,)* }) => {
        #[derive(Serialize, Deserialize, Default, PartialEq)]
        #[serde(default)]
        pub(super) struct $name {
            $(#[serde(skip_serializing_if = "is_default")] $field: $type,)*
        }
    };
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

frozen!(FrozenFacts {
    client: Text,
    provider: Text,
    issuer: Text,
    claims: Option<Map<String, Value>>,
    upstream: FrozenUpstream,
    request: FrozenRequest,
    user: FrozenUser,
    history: FrozenHistory,
    plugins: BTreeMap<String, Option<Value>>,
});

frozen!(FrozenUpstream {
    amr: Vec<String>,
    acr: Option<String>,
    auth_time_age_s: Option<i64>,
    token_age_s: i64,
    trusted_mfa: bool,
    enrich_missing: Vec<String>,
});

frozen!(FrozenRequest {
    ip: Option<IpAddr>,
    user_agent: Text,
    device_id: Text,
    browser: Text,
    os: Text,
    device_kind: Text,
    language: Text,
    time_ms: i64,
    country: Text,
    region: Text,
    city: Text,
    asn: Option<i64>,
    asn_name: Text,
    local_hour: Option<i64>,
    network: u8,
    geo: u8,
});

frozen!(FrozenUser {
    id: String,
    is_new: bool,
    age_days: i64,
    status: String,
    service: bool,
    email_verified: bool,
    groups: Vec<String>,
    privileged: bool,
    factors: Vec<(String, i64, Option<i64>)>,
    link: u8,
    password: Option<(i64, bool)>,
    channels: Vec<String>,
});

frozen!(FrozenHistory {
    total: i64,
    in_30d: i64,
    failed_1h: i64,
    failed_24h: i64,
    denied_30d: i64,
    mfa_failed_24h: i64,
    device: u8,
    known_country: Option<bool>,
    known_asn: Option<bool>,
    known_prefix: Option<bool>,
    km: Option<f64>,
    hours: Option<f64>,
    kmh: Option<f64>,
    travel: u8,
    last: Option<(i64, Text, Option<i64>, Arc<str>, Vec<String>, Arc<str>)>,
    trusted_device: bool,
    likelihood: Option<FrozenLikelihood>,
});

/// Thousandths, points, sign-ins compared with; of each feature thousandths and sign-ins with the same value.
type FrozenLikelihood = (i64, i64, u32, Vec<(i64, u32)>);

const NETWORKS: [NetworkKind; 7] = [
    NetworkKind::Unknown,
    NetworkKind::Residential,
    NetworkKind::Mobile,
    NetworkKind::Business,
    NetworkKind::Hosting,
    NetworkKind::Anonymizer,
    NetworkKind::Private,
];
const GEO: [GeoQuality; 4] = [GeoQuality::Missing, GeoQuality::Ok, GeoQuality::Private, GeoQuality::Coarse];
const LINKS: [LinkMethod; 5] = [
    LinkMethod::Existing,
    LinkMethod::LinkedByVerifiedEmail,
    LinkMethod::Provisioned,
    LinkMethod::ConfirmedByFactor,
    LinkMethod::Invited,
];
const DEVICES: [DeviceMatch; 5] =
    [DeviceMatch::Unknown, DeviceMatch::Match, DeviceMatch::Partial, DeviceMatch::New, DeviceMatch::First];
const TRAVELS: [Travel; 5] = [Travel::Unknown, Travel::None, Travel::Plausible, Travel::Fast, Travel::Impossible];

/// A number never changes its word: new ones are added at the end.
fn number<T: PartialEq>(all: &[T], one: &T) -> u8 {
    all.iter().position(|o| o == one).and_then(|n| u8::try_from(n).ok()).unwrap_or(0)
}

fn word<T: Copy>(all: &[T], number: u8) -> T {
    all.get(usize::from(number)).copied().unwrap_or(all[0])
}

/// `email`; with its strength where the method alone does not tell: `acme.voice:strong`.
pub(super) fn channel_word(channel: &ChannelFacts) -> String {
    let ChannelFacts { method, strength } = channel;
    if *strength == method.strength() { method.to_string() } else { format!("{method}:{}", strength.as_str()) }
}

pub(super) fn find_channel(word: &str) -> Option<ChannelFacts> {
    let (method, strength) =
        word.split_once(':').map_or((word, None), |(method, strength)| (method, Some(strength)));
    let method = MfaMethod::find(method)?;
    let strength = strength.map_or(Some(method.strength()), Strength::find)?;
    Some(ChannelFacts { method, strength })
}

fn stand_in(pseudonym: Pseudonym) -> Arc<str> {
    format!("withheld:{}", data_encoding::HEXLOWER.encode(&pseudonym)).into()
}

fn ip_stand_in(prefix: Option<Pseudonym>, ip: Pseudonym) -> IpAddr {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&prefix.unwrap_or_default()[..5]);
    octets[8..].copy_from_slice(&ip);
    Ipv6Addr::from(octets).into()
}

fn thaw_likelihood((milli, points, sign_ins, shares): FrozenLikelihood) -> Likelihood {
    let shares = Feature::ALL.into_iter().zip(shares);
    let shares = shares.map(|(feature, (milli, seen))| Share { feature, milli, seen }).collect();
    Likelihood { milli, points, sign_ins, shares }
}

impl FrozenFacts {
    /// `context` is the print of the same request.
    pub fn of(facts: &Facts, context: &ContextPrint, pseudonyms: &Pseudonyms) -> Self {
        let tenant = facts.tenant.as_str();
        let Facts { upstream: u, request: r, user, history: h, .. } = facts;
        let kept = facts.claims.iter().filter(|(name, _)| !TOKEN_CLAIMS.contains(&name.as_str()));
        let place = &r.location;
        Self {
            client: Some(Arc::clone(&facts.client_id)),
            provider: Some(Arc::clone(&facts.provider.id)),
            issuer: Some(Arc::clone(&facts.provider.issuer)),
            claims: Some(kept.map(|(name, value)| (name.clone(), value.clone())).collect()),
            upstream: FrozenUpstream {
                amr: u.amr.clone(),
                acr: u.acr.clone(),
                auth_time_age_s: u.auth_time_age_s,
                token_age_s: u.token_age_s,
                trusted_mfa: u.trusted_mfa,
                enrich_missing: u.enrich_missing.clone(),
            },
            request: FrozenRequest {
                ip: r.ip.map(|ip| ip_stand_in(context.prefix, pseudonyms.of(tenant, "ip", &ip.to_string()))),
                user_agent: r.user_agent.as_deref().map(|a| stand_in(pseudonyms.of(tenant, "user agent", a))),
                device_id: context.device.map(stand_in),
                browser: r.browser.clone(),
                os: r.os.clone(),
                device_kind: r.device_kind.clone(),
                language: r.language.clone(),
                time_ms: r.time.as_millis(),
                country: place.country.clone(),
                region: place.region.clone(),
                city: place.city.clone(),
                asn: place.asn,
                asn_name: place.asn_name.clone(),
                local_hour: place.local_hour,
                network: number(&NETWORKS, &place.network_kind),
                geo: number(&GEO, &place.quality),
            },
            user: FrozenUser {
                id: user.id.to_string(),
                is_new: user.is_new,
                age_days: user.age_days,
                status: if user.status == UserStatus::Active.as_str() { String::new() } else { user.status.into() },
                service: user.kind == UserKind::Service,
                email_verified: user.email_verified,
                groups: user.groups.clone(),
                privileged: user.privileged,
                factors: user
                    .mfa_methods
                    .iter()
                    .map(|f| (f.method.to_string(), f.enrolled_age_days, f.last_used_age_days))
                    .collect(),
                link: number(&LINKS, &user.link_method),
                password: user.password.map(|p| (p.changed_at.as_millis(), p.must_change)),
                channels: user.channels.iter().map(channel_word).collect(),
            },
            history: FrozenHistory {
                total: h.sign_ins_total,
                in_30d: h.sign_ins_30d,
                failed_1h: h.failed_attempts_1h,
                failed_24h: h.failed_attempts_24h,
                denied_30d: h.denied_30d,
                mfa_failed_24h: h.mfa_failed_24h,
                device: number(&DEVICES, &h.device),
                known_country: h.known_country,
                known_asn: h.known_asn,
                known_prefix: h.known_prefix,
                km: h.km_from_last,
                hours: h.hours_since_last,
                kmh: h.implied_speed_kmh,
                travel: number(&TRAVELS, &h.travel),
                last: h.last_sign_in.as_ref().map(|l| {
                    let (provider, level) = (Arc::clone(&l.provider_id), Arc::clone(&l.level));
                    (l.time.as_millis(), l.country.clone(), l.asn, provider, l.factors.clone(), level)
                }),
                trusted_device: h.trusted_device,
                likelihood: h
                    .likelihood
                    .as_ref()
                    .map(|l| (l.milli, l.points, l.sign_ins, l.shares.iter().map(|s| (s.milli, s.seen)).collect())),
            },
            plugins: facts.plugin_signals.clone(),
        }
    }

    /// The facts again; `None` for a row that is not what we wrote.
    pub fn thaw(self, tenant: TenantId) -> Option<Facts> {
        let Self { upstream: u, request: r, user, history: h, .. } = self;
        let factors = user.factors.into_iter().filter_map(|(kind, enrolled_age_days, last_used_age_days)| {
            let method = MfaMethod::find(&kind)?;
            Some(FactorFacts { method, strength: method.strength(), enrolled_age_days, last_used_age_days })
        });
        Some(Facts {
            tenant,
            client_id: self.client.unwrap_or_default(),
            provider: ProviderFacts {
                id: self.provider.unwrap_or_default(),
                issuer: self.issuer.unwrap_or_default(),
            },
            upstream: UpstreamFacts {
                amr: u.amr,
                acr: u.acr,
                auth_time_age_s: u.auth_time_age_s,
                token_age_s: u.token_age_s,
                trusted_mfa: u.trusted_mfa,
                enrich_missing: u.enrich_missing,
            },
            claims: Arc::new(self.claims.unwrap_or_default()),
            request: RequestFacts {
                ip: r.ip,
                location: Location {
                    country: r.country,
                    region: r.region,
                    city: r.city,
                    asn: r.asn,
                    asn_name: r.asn_name,
                    point: None,
                    local_hour: r.local_hour,
                    network_kind: word(&NETWORKS, r.network),
                    quality: word(&GEO, r.geo),
                },
                user_agent: r.user_agent,
                browser: r.browser,
                os: r.os,
                device_kind: r.device_kind,
                device_id: r.device_id,
                language: r.language,
                time: UnixTime::from_millis(r.time_ms),
            },
            user: UserFacts {
                id: user.id.parse::<UserId>().ok()?,
                is_new: user.is_new,
                age_days: user.age_days,
                status: UserStatus::find(&user.status).unwrap_or(UserStatus::Active).as_str(),
                kind: if user.service { UserKind::Service } else { UserKind::Person },
                email_verified: user.email_verified,
                groups: user.groups,
                privileged: user.privileged,
                mfa_methods: factors.collect(),
                channels: user.channels.iter().filter_map(|word| find_channel(word)).collect(),
                link_method: word(&LINKS, user.link),
                password: user
                    .password
                    .map(|(at, must_change)| PasswordState { changed_at: UnixTime::from_millis(at), must_change }),
            },
            history: HistoryFacts {
                sign_ins_total: h.total,
                sign_ins_30d: h.in_30d,
                failed_attempts_1h: h.failed_1h,
                failed_attempts_24h: h.failed_24h,
                denied_30d: h.denied_30d,
                mfa_failed_24h: h.mfa_failed_24h,
                device: word(&DEVICES, h.device),
                trusted_device: h.trusted_device,
                known_country: h.known_country,
                known_asn: h.known_asn,
                known_prefix: h.known_prefix,
                km_from_last: h.km,
                hours_since_last: h.hours,
                implied_speed_kmh: h.kmh,
                travel: word(&TRAVELS, h.travel),
                last_sign_in: h.last.map(|(at, country, asn, provider_id, factors, level)| LastSignIn {
                    time: UnixTime::from_millis(at),
                    country,
                    asn,
                    provider_id,
                    factors,
                    level,
                }),
                likelihood: h.likelihood.map(thaw_likelihood),
            },
            plugin_signals: self.plugins,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_keeps_its_strength() {
        for (word, strength, text) in [
            ("email", Strength::Weak, "email"),
            ("push", Strength::Strong, "push"),
            ("acme.voice", Strength::Weak, "acme.voice"),
            ("acme.voice", Strength::Strong, "acme.voice:strong"),
        ] {
            let channel = ChannelFacts { method: MfaMethod::find(word).unwrap(), strength };
            assert_eq!(channel_word(&channel), text);
            assert_eq!(find_channel(text), Some(channel));
        }
        assert_eq!(find_channel("acme.voice:mighty"), None);
    }
}
