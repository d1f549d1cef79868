//! What the host sends. Members that the lock file does not grant are absent: `None` or empty.

use std::net::IpAddr;

use serde::Deserialize;

use crate::Object;

/// Input of `signal.signals`.
#[derive(Debug, Clone, Deserialize)]
pub struct SignalInput {
    /// The tenant.
    pub tenant: String,
    /// The application: the audience of the ID token.
    pub client_id: String,
    /// The provider.
    pub provider: ProviderRef,
    /// The request.
    pub request: Request,
    /// Grant `upstream`.
    #[serde(default)]
    pub upstream: Option<Object>,
    /// Grant `user`, and `id` and `groups` in it by `user.id` and `user.groups`.
    #[serde(default)]
    pub user: Option<Object>,
    /// Grant `history`.
    #[serde(default)]
    pub history: Option<Object>,
    /// The claims that the lock file names.
    #[serde(default)]
    pub claims: Object,
    /// Milliseconds that this call may take, as of when it was sent.
    pub deadline_ms: i64,
}

/// Input of `provider.enrich`.
#[derive(Debug, Clone, Deserialize)]
pub struct EnrichInput {
    /// The tenant.
    pub tenant: String,
    /// The provider.
    pub provider: ProviderRef,
    /// The verified claims that the lock file names.
    #[serde(default)]
    pub claims: Object,
    /// Milliseconds that this call may take, as of when it was sent.
    pub deadline_ms: i64,
}

/// The provider.
#[derive(Debug, Clone, Deserialize)]
pub struct ProviderRef {
    /// Its name in the tenant.
    pub id: String,
    /// The verified issuer of the token.
    #[serde(default)]
    pub issuer: Option<String>,
}

/// The request.
#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    /// When it came, in seconds since 1970.
    pub time_unix_s: i64,
    /// Grant `request.ip`.
    #[serde(default)]
    pub ip: Option<IpAddr>,
    /// Grant `request.ip`: /24 or /48.
    #[serde(default)]
    pub ip_prefix: Option<String>,
    /// Grant `request.location`.
    #[serde(default)]
    pub location: Option<Location>,
    /// Grant `request.agent`, as are the next four.
    #[serde(default)]
    pub user_agent: Option<String>,
    /// Browser family.
    #[serde(default)]
    pub browser: Option<String>,
    /// Operating system family.
    #[serde(default)]
    pub os: Option<String>,
    /// `pc`, `smartphone`, …
    #[serde(default)]
    pub device_kind: Option<String>,
    /// The first `Accept-Language`.
    #[serde(default)]
    pub language: Option<String>,
    /// Grant `request.device_id`.
    #[serde(default)]
    pub device_id: Option<String>,
}

/// What the client's address tells of the place.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Location {
    /// ISO 3166-1 alpha-2.
    #[serde(default)]
    pub country: Option<String>,
    /// First subdivision.
    #[serde(default)]
    pub region: Option<String>,
    /// City.
    #[serde(default)]
    pub city: Option<String>,
    /// Autonomous system number.
    #[serde(default)]
    pub asn: Option<i64>,
    /// Its holder.
    #[serde(default)]
    pub asn_name: Option<String>,
    /// Hour of the day there.
    #[serde(default)]
    pub local_hour: Option<i64>,
    /// `residential`, `hosting`, …; `unknown` when nothing is known.
    #[serde(default)]
    pub network_kind: String,
    /// `ok`, `missing`, `private` or `coarse`.
    #[serde(default)]
    pub quality: String,
}

/// Input of `provider.locate_keys`: nothing in it is verified yet.
#[derive(Debug, Clone, Deserialize)]
pub struct KeyRequest {
    /// The tenant.
    pub tenant: String,
    /// The provider, with the issuer that is configured.
    pub provider: ProviderRef,
    /// `kid` of the header.
    #[serde(default)]
    pub kid: Option<String>,
    /// `alg` of the header, one that is pinned for the provider.
    pub alg: String,
    /// Milliseconds that this call may take, as of when it was sent.
    pub deadline_ms: i64,
}

/// Input of `provider.verify`: nothing in it is verified yet.
#[derive(Clone, Deserialize)]
pub struct VerifyRequest {
    /// The tenant.
    pub tenant: String,
    /// The provider, with the issuer that is configured.
    pub provider: ProviderRef,
    /// The client ids that are configured. The host compares `aud` with them.
    pub client_ids: Vec<String>,
    /// The token as the application sent it, at most 16 KiB.
    pub token: String,
    /// The time of the request, in seconds since 1970.
    pub time_unix_s: i64,
    /// Milliseconds that this call may take, as of when it was sent.
    pub deadline_ms: i64,
}

/// Input of `mfa.begin`.
#[derive(Clone, Deserialize)]
pub struct MfaBegin {
    /// The tenant.
    pub tenant: String,
    /// The user.
    pub user: UserRef,
    /// `email`, `sms`, `push`, or the name of the plugin's own that the lock gives, such as `acme.voice`.
    pub method: String,
    /// The verified address or number; empty for a push and a method without `address` in the lock: the plugin knows
    /// where to reach the user.
    #[serde(default)]
    pub destination: String,
    /// One for each message that is to be sent: an idempotency key.
    pub delivery_id: String,
    /// The code to deliver; absent when this plugin verifies codes itself.
    #[serde(default)]
    pub code: Option<String>,
    /// How long the code is good, in seconds.
    pub expires_in_s: u64,
    /// Milliseconds that this call may take, as of when it was sent.
    pub deadline_ms: i64,
}

/// Input of `mfa.verify`.
#[derive(Clone, Deserialize)]
pub struct MfaVerify {
    /// The tenant.
    pub tenant: String,
    /// The user.
    pub user: UserRef,
    /// As in [`MfaBegin`].
    pub method: String,
    /// As in [`MfaBegin`].
    pub delivery_id: String,
    /// `reference` of the answer to `mfa.begin`.
    #[serde(default)]
    pub reference: Option<String>,
    /// What the user typed, at most 64 characters; may be empty for a push.
    pub code: String,
    /// Milliseconds that this call may take, as of when it was sent.
    pub deadline_ms: i64,
}

/// The user of a challenge.
#[derive(Debug, Clone, Deserialize)]
pub struct UserRef {
    /// `usr_…`.
    pub id: String,
    /// BCP 47 language, for the text of a message.
    #[serde(default)]
    pub locale: Option<String>,
}

/// Input of `event.observe`: how a sign-in or an answer to a challenge ended.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// The same for each attempt to deliver this event.
    pub id: String,
    /// When, in seconds since 1970.
    pub time_unix_s: i64,
    /// The tenant.
    pub tenant: String,
    /// The provider's name.
    pub provider: String,
    /// `usr_…`, when one was found or created.
    #[serde(default)]
    pub user: Option<String>,
    /// `signed_in`, `challenged`, `denied`, `refused`, `mfa_passed` or `mfa_failed`.
    pub outcome: String,
    /// The stable code of a denial or refusal.
    #[serde(default)]
    pub code: Option<String>,
    /// 0 to 100.
    #[serde(default)]
    pub score: Option<i64>,
    /// `low`, `medium` or `high`.
    #[serde(default)]
    pub level: Option<String>,
    /// Reasons with their points.
    #[serde(default)]
    pub reasons: Vec<Reason>,
    /// From 1; more than 1 when an earlier attempt failed.
    #[serde(default)]
    pub attempt: u32,
}

/// Input of `event.observe`, of a security event: what a provider told of an account, in a token whose signature,
/// issuer and audience the host has checked. The sessions that it ends have ended.
#[derive(Debug, Clone, Deserialize)]
pub struct SecurityEvent {
    /// `jti` of the token: the same each time that it comes.
    pub id: String,
    /// When the provider told it, in seconds since 1970.
    pub time_unix_s: i64,
    /// The tenant.
    pub tenant: String,
    /// The provider's name.
    pub provider: String,
    /// The verified issuer.
    pub issuer: String,
    /// At least one.
    pub events: Vec<ToldEvent>,
    /// Milliseconds that this call may take, as of when it was sent.
    pub deadline_ms: i64,
}

/// One event of a [`SecurityEvent`].
#[derive(Debug, Clone, Deserialize)]
pub struct ToldEvent {
    /// Its type: a URI of RISC, CAEP or anybody, or `apple:` and a type of Apple's notices.
    #[serde(rename = "type")]
    pub kind: String,
    /// The subject, when one of that issuer is named.
    #[serde(default)]
    pub subject: Option<String>,
    /// The members of the event.
    #[serde(default)]
    pub details: Object,
}

/// One reason of an assessment.
#[derive(Debug, Clone, Deserialize)]
pub struct Reason {
    /// The reason's code.
    pub code: String,
    /// Its points.
    pub points: i64,
}
