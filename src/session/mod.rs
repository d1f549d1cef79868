//! Local tokens: signing keys, RFC 9068 access tokens, refresh-token families.

pub mod bearer;
pub mod clients;
pub mod dpop;
pub mod issue;
pub mod keys;
pub mod ports;
pub mod refresh;
pub mod rotation;
pub mod upstream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::UnixTime;
use crate::ids::{RefreshId, SessionId, TenantId, UserId};
use crate::mfa::MfaMethod;
use crate::signin::history::Pseudonym;
use crate::signin::rules::Level;

/// What a sign-in earned: all that its tokens say of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// The tenant.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// The provider.
    pub provider: Arc<str>,
    /// Which one of this name; see [`crate::signin::provider::Provider::generation`].
    pub provider_generation: i64,
    /// The application: the audience of the ID token.
    pub client_id: Arc<str>,
    /// When the user proved who they are.
    pub auth_time: UnixTime,
    /// How: the provider's methods, then local ones (RFC 8176).
    pub amr: Vec<String>,
    /// The provider's context class.
    pub acr: Option<String>,
    /// The risk level of the sign-in.
    pub level: Level,
    /// What the policy limits.
    pub caps: Caps,
    /// Whether a local second factor passed.
    pub local_mfa: bool,
    /// The registered client that the session belongs to: only it may refresh.
    pub client: Option<Arc<str>>,
    /// Which one of this name; see [`clients::Client::generation`]. 0 without a client.
    pub client_generation: i64,
    /// The audience of its access tokens, when it is not this server.
    pub audience: Option<Arc<str>>,
    /// The thumbprint (RFC 7638) of the key that the tokens are bound to (RFC 9449).
    pub jkt: Option<Arc<str>>,
    /// The digest of the provider's own session; see [`crate::signin::logout::upstream_session`].
    pub upstream_sid: Option<[u8; 32]>,
    /// What the policy adds to access tokens.
    pub claims: Map<String, Value>,
    /// What it makes of them instead, by the factor that a challenge is passed with; empty when that is always
    /// the same.
    pub shape_by_factor: BTreeMap<MfaMethod, TokenShape>,
}

/// What a policy makes of access tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenShape {
    /// Claims that it adds.
    pub claims: Map<String, Value>,
    /// The audience that it narrows them to; absent: the one that they have anyway.
    pub audience: Option<Arc<str>>,
}

/// Claims that no policy sets: those of RFC 7519, RFC 9068 and OpenID Connect, and the server's own.
pub const RESERVED_CLAIMS: &[&str] = &[
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "sid",
    "client_id",
    "tenant_id",
    "auth_time",
    "amr",
    "acr",
    "azp",
    "nonce",
    "at_hash",
    "c_hash",
    "s_hash",
    "scope",
    "act",
    "may_act",
    "cnf",
    "typ",
    "alg",
    "kid",
];

impl Grant {
    /// Adds a local factor that passed.
    pub fn add_factor(&mut self, method: MfaMethod) {
        for value in [method.amr(), "mfa"] {
            if !self.amr.iter().any(|a| a == value) {
                self.amr.push(value.to_owned());
            }
        }
        self.local_mfa = true;
        if let Some(shape) = std::mem::take(&mut self.shape_by_factor).remove(&method) {
            self.claims = shape.claims;
            self.audience = shape.audience.or(self.audience.take());
        }
    }

    /// Whether a local second factor passed.
    #[must_use]
    pub fn passed_mfa(&self) -> bool {
        self.local_mfa
    }
}

/// Limits that a policy put on a session; the smallest of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caps {
    /// The session ends after this time.
    pub session: Option<Duration>,
    /// A refresh token ends after this time.
    pub refresh: Option<Duration>,
    /// There is no refresh token.
    pub no_refresh: bool,
    /// The user has at most so many sessions: a further one ends the oldest.
    pub sessions: Option<u32>,
}

impl Caps {
    /// With a tenant's limits as well: the smaller of each.
    #[must_use]
    pub fn within(self, limits: &SessionLimits) -> Self {
        let least = |a: Option<Duration>, b: Option<Duration>| a.into_iter().chain(b).min();
        Self {
            session: least(self.session, limits.absolute),
            refresh: least(self.refresh, limits.idle),
            no_refresh: self.no_refresh,
            sessions: self.sessions.into_iter().chain(limits.per_user).min(),
        }
    }
}

/// A tenant's limits of sessions; absent ones do not limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// A session that is not refreshed for so long ends.
    pub idle: Option<Duration>,
    /// A session ends after so long, whatever is refreshed.
    pub absolute: Option<Duration>,
    /// A user has at most so many sessions.
    pub per_user: Option<u32>,
}

/// A refresh token to be written: only its hash.
#[derive(Debug, Clone)]
pub struct NewRefresh {
    /// Its identifier: the readable half of the token.
    pub id: RefreshId,
    /// SHA-256 of the secret half.
    pub secret_hash: [u8; 32],
    /// When it ends.
    pub expires_at: UnixTime,
}

/// A session to be written.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Its identifier; `sid` of its access tokens.
    pub id: SessionId,
    /// What it is worth.
    pub grant: Grant,
    /// When it began.
    pub created_at: UnixTime,
    /// When it ends, whatever is refreshed.
    pub ends_at: Option<UnixTime>,
    /// When it ends, if nothing is refreshed.
    pub idle_at: UnixTime,
    /// The first of its refresh tokens.
    pub refresh: Option<NewRefresh>,
    /// The device it was begun on.
    pub device: Option<Pseudonym>,
}
