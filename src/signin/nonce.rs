//! Nonces that this server issues: single use, and nothing is stored until one is used.
//!
//! A nonce is `expiry ‖ random ‖ HMAC-SHA-256(key, tenant ‖ expiry ‖ random)` in base64url. Using it
//! spends its digest in the replay guard, so that one captured with its token opens nothing.

use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;

use super::ports::{ReplayGuard, StoreError};
use super::verify::{NonceProblem, VerifyError};
use crate::clock::UnixTime;
use crate::ids::TenantId;
use crate::secret::{Entropy, Secret, sha256};

/// How long an issued nonce may be used.
pub const NONCE_TTL: Duration = Duration::from_secs(600);

/// Issues nonces and takes them back.
#[derive(Debug, Clone)]
pub struct NonceIssuer {
    key: Secret,
}

impl NonceIssuer {
    /// With a key of this server.
    #[must_use]
    pub fn new(key: Secret) -> Self {
        Self { key }
    }

    /// A new nonce for a tenant.
    #[must_use]
    pub fn issue(&self, tenant: &TenantId, now: UnixTime, entropy: &dyn Entropy) -> String {
        let mut bytes = [0u8; 24];
        bytes[..8].copy_from_slice(&now.plus(NONCE_TTL).as_millis().to_be_bytes());
        entropy.fill(&mut bytes[8..]);
        let tag = self.tag(tenant, &bytes);
        BASE64URL_NOPAD.encode(&[&bytes[..], tag.as_ref()].concat())
    }

    /// Takes a nonce back: genuine, of this tenant, not expired, and not used before.
    ///
    /// # Errors
    /// When it is not, or the store cannot tell.
    pub async fn spend(
        &self,
        tenant: &TenantId,
        nonce: &str,
        now: UnixTime,
        guard: &dyn ReplayGuard,
    ) -> Result<Result<(), VerifyError>, StoreError> {
        let refused = Ok(Err(VerifyError::Nonce(NonceProblem::NotOurs)));
        let Ok(bytes) = BASE64URL_NOPAD.decode(nonce.as_bytes()) else { return refused };
        let Some((body, tag)) = bytes.split_at_checked(24) else { return refused };
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.expose());
        if hmac::verify(&key, &Self::message(tenant, body), tag).is_err() {
            return refused;
        }
        let expires = UnixTime::from_millis(i64::from_be_bytes(body[..8].try_into().unwrap_or_default()));
        if now >= expires {
            return refused;
        }
        if guard.remember(sha256(&bytes), expires, now).await? { Ok(Ok(())) } else { refused }
    }

    fn tag(&self, tenant: &TenantId, body: &[u8]) -> hmac::Tag {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.expose());
        hmac::sign(&key, &Self::message(tenant, body))
    }

    fn message(tenant: &TenantId, body: &[u8]) -> Vec<u8> {
        [body, tenant.as_str().as_bytes()].concat()
    }
}
