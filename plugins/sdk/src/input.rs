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
