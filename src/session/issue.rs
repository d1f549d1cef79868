//! Makes sessions and their tokens. Writes nothing: the caller commits, then answers.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::keys::KeyRing;
use super::ports::KeyRingError;
use super::{Caps, Grant, NewRefresh, NewSession};
use crate::clock::UnixTime;
use crate::ids::{RefreshId, SessionId};
use crate::secret::{Entropy, Secret};
use crate::signin::history::Pseudonym;
use crate::signin::identity::Profile;

const REFRESH_SECRET_BYTES: usize = 32;

/// Settings of local tokens.
#[derive(Debug, Clone)]
pub struct TokenSettings {
    /// `iss` of local tokens, and their audience.
    pub issuer: String,
    /// How long an access token lives.
    pub access_ttl: Duration,
    /// How long a refresh token lives.
    pub refresh_ttl: Duration,
    /// How long a repeated refresh gets the same successor.
    pub refresh_grace: Duration,
}

/// What a client gets.
#[derive(Clone)]
pub struct IssuedTokens {
    /// An RFC 9068 access token.
    pub access_token: String,
    /// `rft_….secret`; absent when the policy gives none.
    pub refresh_token: Option<String>,
    /// How long the access token lives.
    pub expires_in: Duration,
    /// Whether they are bound to a key: then they are no bearer tokens.
    pub bound: bool,
}

impl IssuedTokens {
    /// How the access token is to be sent (RFC 6749 section 7.1, RFC 9449 section 5).
    #[must_use]
    pub const fn token_type(&self) -> &'static str {
        if self.bound { "DPoP" } else { "Bearer" }
    }
}

impl std::fmt::Debug for IssuedTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedTokens").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// What tokens say of the user besides the grant: as the store has it now.
#[derive(Clone, Copy)]
pub struct Holder<'a> {
    /// `groups` (RFC 9068 section 2.2.3.1).
    pub groups: &'a [String],
    /// `roles`.
    pub roles: &'a [String],
}

impl<'a> From<&'a Profile> for Holder<'a> {
    fn from(profile: &'a Profile) -> Self {
        Self { groups: &profile.groups, roles: &profile.roles }
    }
}

/// The claims of RFC 9068 section 2.2, and `sid`, `tenant_id`.
#[derive(Serialize)]
struct AccessClaims<'a> {
    iss: &'a str,
    sub: String,
    aud: &'a str,
    exp: i64,
    iat: i64,
    jti: String,
    sid: String,
    client_id: &'a str,
    tenant_id: &'a str,
    auth_time: i64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    amr: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    acr: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    roles: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation<'a>>,
    #[serde(flatten)]
    added: &'a Map<String, Value>,
}

/// The key that a token is bound to (RFC 7800 section 3.1, RFC 9449 section 6.1).
#[derive(Serialize)]
struct Confirmation<'a> {
    jkt: &'a str,
}

/// Makes local tokens.
pub struct TokenIssuer {
    /// Settings.
    pub settings: TokenSettings,
    /// Keys.
    pub ring: Arc<KeyRing>,
}

impl TokenIssuer {
    /// A new session for what a sign-in earned, with its first tokens.
    ///
    /// # Errors
    /// When no key can sign.
    pub fn issue(
        &self,
        grant: Grant,
        holder: Holder<'_>,
        device: Option<Pseudonym>,
        now: UnixTime,
        entropy: &dyn Entropy,
    ) -> Result<(NewSession, IssuedTokens), KeyRingError> {
        let id = SessionId::generate(now, entropy);
        let ends_at = grant.caps.session.map(|cap| now.plus(cap));
        let (refresh, refresh_token) = if grant.caps.no_refresh {
            (None, None)
        } else {
            let (new, secret) = self.new_refresh(grant.caps, ends_at, now, entropy);
            let token = refresh_token(new.id, &secret);
            (Some(new), Some(token))
        };
        let (access_token, expires_in) = self.access_token(&grant, holder, id, ends_at, now, entropy)?;
        let idle_at = refresh.as_ref().map_or(now, |r| r.expires_at).max(now.plus(expires_in));
        let bound = grant.jkt.is_some();
        let session = NewSession { id, grant, created_at: now, ends_at, idle_at, refresh, device };
        Ok((session, IssuedTokens { access_token, refresh_token, expires_in, bound }))
    }

    /// A refresh token to be written, and its secret.
    pub(super) fn new_refresh(
        &self,
        caps: Caps,
        ends_at: Option<UnixTime>,
        now: UnixTime,
        entropy: &dyn Entropy,
    ) -> (NewRefresh, Secret) {
        let secret = Secret::random(REFRESH_SECRET_BYTES, entropy);
        let ttl = caps.refresh.map_or(self.settings.refresh_ttl, |cap| cap.min(self.settings.refresh_ttl));
        let expires_at = ends_at.map_or(now.plus(ttl), |end| end.min(now.plus(ttl)));
        (NewRefresh { id: RefreshId::generate(now, entropy), secret_hash: secret.hash(), expires_at }, secret)
    }

    /// An access token of a session, and how long it lives: never longer than the session.
    pub(super) fn access_token(
        &self,
        grant: &Grant,
        holder: Holder<'_>,
        session: SessionId,
        ends_at: Option<UnixTime>,
        now: UnixTime,
        entropy: &dyn Entropy,
    ) -> Result<(String, Duration), KeyRingError> {
        let ttl = ends_at.map_or(self.settings.access_ttl, |end| end.since(now).min(self.settings.access_ttl));
        let mut jti = [0u8; 16];
        entropy.fill(&mut jti);
        let claims = AccessClaims {
            iss: &self.settings.issuer,
            sub: grant.user.to_string(),
            aud: grant.audience.as_deref().unwrap_or(&self.settings.issuer),
            exp: now.plus(ttl).as_secs(),
            iat: now.as_secs(),
            jti: data_encoding::BASE64URL_NOPAD.encode(&jti),
            sid: session.to_string(),
            client_id: &grant.client_id,
            tenant_id: grant.tenant.as_str(),
            auth_time: grant.auth_time.as_secs(),
            amr: &grant.amr,
            acr: grant.acr.as_deref(),
            groups: holder.groups,
            roles: holder.roles,
            cnf: grant.jkt.as_deref().map(|jkt| Confirmation { jkt }),
            added: &grant.claims,
        };
        let token = self
            .ring
            .active(now)
            .and_then(|key| key.sign(&claims))
            .ok_or_else(|| KeyRingError("signing failed".into()))?;
        Ok((token, ttl))
    }
}

/// The token as a client holds it.
pub(super) fn refresh_token(id: RefreshId, secret: &Secret) -> String {
    format!("{id}.{}", secret.to_base64url())
}
