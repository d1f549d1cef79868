//! What came in, before anything of it is believed.

use std::net::IpAddr;
use std::sync::Arc;

use super::facts::Location;
use crate::ids::RequestId;
use crate::session::clients::Client;

/// One request to sign in. Not printable: it holds tokens.
#[derive(Clone)]
pub struct SignInRequest {
    /// The request's identifier.
    pub id: RequestId,
    /// `X-Tenant-ID`.
    pub tenant_header: Option<String>,
    /// The host of the request, without the port.
    pub host: Option<String>,
    /// The provider's name; absent: found by `iss` and `aud`.
    pub provider: Option<String>,
    /// The ID token.
    pub id_token: String,
    /// The raw nonce.
    pub nonce: Option<String>,
    /// The provider's access token, for `at_hash`.
    pub access_token: Option<String>,
    /// SHA-256 of the secret of a trusted device.
    pub device_secret_hash: Option<[u8; 32]>,
    /// A name that the provider told the application once (Apple), for a new user only.
    pub name_hint: Option<String>,
    /// The client.
    pub client: ClientContext,
    /// What the tokens shall be bound to.
    pub binding: TokenBinding,
}

/// What the tokens of a sign-in shall be bound to.
#[derive(Debug, Clone, Default)]
pub struct TokenBinding {
    /// The registered application that asks, authenticated. Only its providers are looked at.
    pub client: Option<Arc<Client>>,
    /// Their audience, one of the application's; absent: this server.
    pub audience: Option<Arc<str>>,
    /// The thumbprint (RFC 7638) of the key that the request proved to hold.
    pub jkt: Option<Arc<str>>,
}

/// The client, as far as the request tells.
#[derive(Debug, Clone, Default)]
pub struct ClientContext {
    /// Its address, through trusted proxies only.
    pub ip: Option<IpAddr>,
    /// `User-Agent`, cut at 512 bytes.
    pub user_agent: Option<Arc<str>>,
    /// The first `Accept-Language`.
    pub language: Option<Arc<str>>,
    /// The device identifier that the application sent.
    pub device_id: Option<Arc<str>>,
    /// A place to believe instead of the address's own; only in development.
    pub assumed_location: Option<Location>,
}
