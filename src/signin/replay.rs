//! Step 5: a token that was seen valid once is spent, until it expires plus the provider's leeway.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::ports::{ReplayGuard, StoreError};
use super::provider::{Provider, ReplayPolicy, identity_issuer};
use super::user::IdentityKey;
use super::verify::VerifiedToken;
use crate::clock::UnixTime;
use crate::secret::sha256;

/// Why a verified token is not fresh.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It was used before.
    #[error("the ID token was used before; this provider's tokens are good for one sign-in")]
    Replayed,
    /// Nobody can tell.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A verified token that this sign-in is the first to use. Only [`spend`] can build one.
#[derive(Debug)]
pub struct FreshToken(VerifiedToken);

/// Marks the token as used, durably, before anything else happens with it.
///
/// # Errors
/// When it was used before, or the store cannot tell.
pub async fn spend(token: VerifiedToken, guard: &dyn ReplayGuard) -> Result<FreshToken, ReplayError> {
    let provider = token.provider();
    if provider.replay == ReplayPolicy::SingleUse {
        let until = token.expires_at().plus(provider.clock_leeway);
        if !guard.remember(replay_key(&token), until, token.verified_at()).await? {
            return Err(ReplayError::Replayed);
        }
    }
    Ok(FreshToken(token))
}

/// (tenant, issuer, `jti`), or the digest of what was signed when there is no `jti`. Not the provider: a tenant may
/// have two that accept the same token.
fn replay_key(token: &VerifiedToken) -> [u8; 32] {
    let provider = token.provider();
    let (kind, id): (&str, &[u8]) = match token.jti() {
        Some(jti) => ("jti", jti.as_bytes()),
        None => ("digest", token.digest()),
    };
    let mut input = Vec::with_capacity(256);
    for part in [kind.as_bytes(), provider.tenant.as_str().as_bytes(), token.issuer().as_bytes(), id] {
        input.extend_from_slice(&(part.len() as u64).to_be_bytes());
        input.extend_from_slice(part);
    }
    sha256(&input)
}

impl FreshToken {
    /// The provider.
    #[must_use]
    pub fn provider(&self) -> &Arc<Provider> {
        self.0.provider()
    }

    /// The identity: never anything but provider, issuer (see [`identity_issuer`]) and subject.
    #[must_use]
    pub fn identity_key(&self) -> IdentityKey {
        let provider = self.provider();
        IdentityKey {
            tenant: provider.tenant.clone(),
            provider: Arc::clone(&provider.name),
            issuer: identity_issuer(self.issuer()),
            subject: Arc::clone(self.subject()),
        }
    }

    /// `iss`.
    #[must_use]
    pub fn issuer(&self) -> &Arc<str> {
        self.0.issuer()
    }

    /// `sub`.
    #[must_use]
    pub fn subject(&self) -> &Arc<str> {
        self.0.subject()
    }

    /// The application.
    #[must_use]
    pub fn client_id(&self) -> &Arc<str> {
        self.0.client_id()
    }

    /// All claims.
    #[must_use]
    pub fn claims(&self) -> &Arc<Map<String, Value>> {
        self.0.claims()
    }

    /// `iat`.
    #[must_use]
    pub fn issued_at(&self) -> UnixTime {
        self.0.issued_at()
    }

    /// `auth_time`.
    #[must_use]
    pub fn auth_time(&self) -> Option<UnixTime> {
        self.0.auth_time()
    }

    /// The moment of the sign-in.
    #[must_use]
    pub fn verified_at(&self) -> UnixTime {
        self.0.verified_at()
    }
}
