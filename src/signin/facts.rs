//! The facts of one sign-in, frozen before the rules run.
//!
//! Units are in the names; `None` means "not known", which is never the same as "no risk". Scripts read
//! these by the same names; plugins get them as JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::identity::UserKind;
use super::likelihood::Likelihood;
use crate::clock::UnixTime;
use crate::ids::{TenantId, UserId};
use crate::mfa::{MfaMethod, Strength};
use crate::people::passwords::PasswordState;

/// Everything that the rules may look at.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The tenant.
    pub tenant: TenantId,
    /// The application: the audience of the ID token.
    pub client_id: Arc<str>,
    /// The provider.
    pub provider: ProviderFacts,
    /// What the provider says of how the user signed in there.
    pub upstream: UpstreamFacts,
    /// Verified claims, and those that plugins added under `x.<plugin>`.
    pub claims: Arc<Map<String, Value>>,
    /// The request.
    pub request: RequestFacts,
    /// The local user.
    pub user: UserFacts,
    /// What is known of earlier sign-ins.
    pub history: HistoryFacts,
    /// Answers of signal plugins by plugin id; `None` for one that failed.
    pub plugin_signals: BTreeMap<String, Option<Value>>,
}

/// The plugin that keeps what providers told of accounts (`plugins/ssf`).
const TOLD_BY: &str = "countersign.ssf";

impl Facts {
    /// Whether the provider lately told an event of one of these kinds of the account. `None`: the plugin that keeps
    /// them did not say; without the plugin nobody tells, and it is `Some(false)`.
    #[must_use]
    pub fn was_told(&self, kinds: &[&str]) -> Option<bool> {
        let Some(answer) = self.plugin_signals.get(TOLD_BY) else { return Some(false) };
        let recent = answer.as_ref()?.get("recent")?.as_array()?;
        Some(recent.iter().any(|told| told.as_str().is_some_and(|told| kinds.contains(&told))))
    }

    /// `credential-compromise` of RISC.
    #[must_use]
    pub fn credential_compromise(&self) -> Option<bool> {
        self.was_told(&["credential_compromise"])
    }

    /// Sessions or tokens there were revoked.
    #[must_use]
    pub fn session_revoked_recently(&self) -> Option<bool> {
        self.was_told(&["session_revoked", "token_revoked"])
    }
}

/// The provider, as rules see it.
#[derive(Debug, Clone)]
pub struct ProviderFacts {
    /// Its name in the tenant.
    pub id: Arc<str>,
    /// The verified issuer of this token, by the name that identities are kept under.
    pub issuer: Arc<str>,
}

/// The sign-in at the provider.
#[derive(Debug, Clone, Default)]
pub struct UpstreamFacts {
    /// Authentication methods (RFC 8176).
    pub amr: Vec<String>,
    /// Authentication context class.
    pub acr: Option<String>,
    /// Seconds since the user signed in at the provider.
    pub auth_time_age_s: Option<i64>,
    /// Seconds since the token was issued.
    pub token_age_s: i64,
    /// Whether the provider's `trust_amr` names one of the methods.
    pub trusted_mfa: bool,
    /// Plugins that should have enriched the claims and were out of reach.
    pub enrich_missing: Vec<String>,
}

/// Where and with what the request was made.
#[derive(Debug, Clone, Default)]
pub struct RequestFacts {
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// What the address tells.
    pub location: Location,
    /// The `User-Agent`, cut at 512 bytes.
    pub user_agent: Option<Arc<str>>,
    /// Browser family.
    pub browser: Option<Arc<str>>,
    /// Operating system family.
    pub os: Option<Arc<str>>,
    /// `pc`, `smartphone`, `mobilephone`, `tablet`, `crawler`, `appliance` or `misc`.
    pub device_kind: Option<Arc<str>>,
    /// The device identifier that the application sent.
    pub device_id: Option<Arc<str>>,
    /// The first `Accept-Language`.
    pub language: Option<Arc<str>>,
    /// When the request came.
    pub time: UnixTime,
}

impl RequestFacts {
    /// The network of the address: /24 for IPv4, /48 for IPv6.
    #[must_use]
    pub fn ip_prefix(&self) -> Option<String> {
        let ip = self.ip?;
        let length = if ip.is_ipv4() { 24 } else { 48 };
        ipnet::IpNet::new(ip, length).ok().map(|net| net.trunc().to_string())
    }
}

/// What kind of network an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkKind {
    /// A home.
    Residential,
    /// A mobile carrier.
    Mobile,
    /// A company.
    Business,
    /// A data centre.
    Hosting,
    /// A VPN, proxy or Tor exit.
    Anonymizer,
    /// Loopback or a private range.
    Private,
    /// Nothing is known.
    #[default]
    Unknown,
}

impl NetworkKind {
    /// The word that rules use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Residential => "residential",
            Self::Mobile => "mobile",
            Self::Business => "business",
            Self::Hosting => "hosting",
            Self::Anonymizer => "anonymizer",
            Self::Private => "private",
            Self::Unknown => "unknown",
        }
    }
}

/// How good a location is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GeoQuality {
    /// Coordinates with an accuracy of at most 200 km.
    Ok,
    /// The address is in no database, or there is no database.
    #[default]
    Missing,
    /// The address is private.
    Private,
    /// Only the country, or an accuracy beyond 200 km.
    Coarse,
}

impl GeoQuality {
    /// The word that rules use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Private => "private",
            Self::Coarse => "coarse",
        }
    }
}

/// A point on the earth, in degrees, and how far off it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Kilometres around it.
    pub accuracy_km: f64,
}

/// What an address tells of the place.
#[derive(Debug, Clone, Default)]
pub struct Location {
    /// ISO 3166-1 alpha-2.
    pub country: Option<Arc<str>>,
    /// First subdivision, ISO 3166-2 without the country.
    pub region: Option<Arc<str>>,
    /// City name in English.
    pub city: Option<Arc<str>>,
    /// Autonomous system number.
    pub asn: Option<i64>,
    /// Its holder.
    pub asn_name: Option<Arc<str>>,
    /// Coordinates.
    pub point: Option<Point>,
    /// Hour of the day there, 0 to 23.
    pub local_hour: Option<i64>,
    /// The kind of network.
    pub network_kind: NetworkKind,
    /// How good this is.
    pub quality: GeoQuality,
}

/// How the identity came to belong to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkMethod {
    /// It already did.
    Existing,
    /// Linked in this sign-in by an address verified on both sides.
    LinkedByVerifiedEmail,
    /// To be linked when the user's own factor has confirmed it.
    ConfirmedByFactor,
    /// The user was invited and comes in by this sign-in.
    Invited,
    /// The user is created in this sign-in.
    Provisioned,
}

impl LinkMethod {
    /// The word that rules use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Existing => "existing",
            Self::LinkedByVerifiedEmail => "linked_by_verified_email",
            Self::ConfirmedByFactor => "confirmed_by_factor",
            Self::Invited => "invited",
            Self::Provisioned => "provisioned",
        }
    }
}

/// A factor, as rules see it.
#[derive(Debug, Clone)]
pub struct FactorFacts {
    /// What it is.
    pub method: MfaMethod,
    /// How much it proves.
    pub strength: Strength,
    /// Whole days since enrolment.
    pub enrolled_age_days: i64,
    /// Whole days since its last use.
    pub last_used_age_days: Option<i64>,
}

/// A channel that reaches the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelFacts {
    /// What it is.
    pub method: MfaMethod,
    /// How much it proves.
    pub strength: Strength,
}

/// The local user, as rules see it.
#[derive(Debug, Clone)]
pub struct UserFacts {
    /// Its identifier.
    pub id: UserId,
    /// Created in this sign-in.
    pub is_new: bool,
    /// Whole days since creation.
    pub age_days: i64,
    /// `active`, …
    pub status: &'static str,
    /// A person or a workload.
    pub kind: UserKind,
    /// The address is verified.
    pub email_verified: bool,
    /// Groups.
    pub groups: Vec<String>,
    /// One of the groups is marked privileged by the tenant.
    pub privileged: bool,
    /// The state of the local password, when there is one.
    pub password: Option<PasswordState>,
    /// Usable factors.
    pub mfa_methods: Vec<FactorFacts>,
    /// Channels to addresses that were verified before this sign-in.
    pub channels: Vec<ChannelFacts>,
    /// How the identity came to the user.
    pub link_method: LinkMethod,
}

/// How well the device is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceMatch {
    /// Identifier and agent were seen together.
    Match,
    /// One of them was seen.
    Partial,
    /// Neither was seen.
    New,
    /// There is no earlier sign-in.
    First,
    /// The request tells neither.
    #[default]
    Unknown,
}

impl DeviceMatch {
    /// The word that rules use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Partial => "partial",
            Self::New => "new",
            Self::First => "first",
            Self::Unknown => "unknown",
        }
    }
}

/// How the distance to the last sign-in fits the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Travel {
    /// The same place.
    None,
    /// Slower than an airliner.
    Plausible,
    /// About as fast as an airliner.
    Fast,
    /// Faster than 900 km/h over more than 300 km.
    Impossible,
    /// One end is not known well enough.
    #[default]
    Unknown,
}

impl Travel {
    /// The word that rules use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Plausible => "plausible",
            Self::Fast => "fast",
            Self::Impossible => "impossible",
            Self::Unknown => "unknown",
        }
    }
}

/// The last successful sign-in.
#[derive(Debug, Clone)]
pub struct LastSignIn {
    /// When.
    pub time: UnixTime,
    /// From where.
    pub country: Option<Arc<str>>,
    /// Through which network.
    pub asn: Option<i64>,
    /// With which provider.
    pub provider_id: Arc<str>,
    /// Factors that were passed.
    pub factors: Vec<String>,
    /// Its level: `low`, `medium` or `high`.
    pub level: Arc<str>,
}

/// Counts and comparisons over the user's earlier sign-ins, at most 180 days back.
#[derive(Debug, Clone, Default)]
pub struct HistoryFacts {
    /// Successful ones.
    pub sign_ins_total: i64,
    /// Successful ones in 30 days.
    pub sign_ins_30d: i64,
    /// Refused or wrong-code attempts in an hour.
    pub failed_attempts_1h: i64,
    /// The same in 24 hours.
    pub failed_attempts_24h: i64,
    /// Denials in 30 days.
    pub denied_30d: i64,
    /// Wrong codes in 24 hours.
    pub mfa_failed_24h: i64,
    /// The device.
    pub device: DeviceMatch,
    /// Whether it is one that the user trusts, by identifier and secret.
    pub trusted_device: bool,
    /// Whether the country was seen before.
    pub known_country: Option<bool>,
    /// Whether the network was seen before.
    pub known_asn: Option<bool>,
    /// Whether the address range was seen before.
    pub known_prefix: Option<bool>,
    /// Kilometres from the last sign-in, less both accuracies.
    pub km_from_last: Option<f64>,
    /// Hours since the last sign-in, at least 0.1.
    pub hours_since_last: Option<f64>,
    /// The speed that both imply.
    pub implied_speed_kmh: Option<f64>,
    /// The verdict on it.
    pub travel: Travel,
    /// The last successful one.
    pub last_sign_in: Option<LastSignIn>,
    /// How unusual the surroundings are for this user, when the tenant has that signal.
    pub likelihood: Option<Likelihood>,
}
