//! Admin keys: `csk_….secret`, shown once; the store has a hash.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::access::{Caller, Role, Scope};
use super::audit::Author;
use super::failures::FailedKeys;
use super::page::{Page, Paged};
use super::ports::AdminKeys;
use crate::clock::{Clock, UnixTime};
use crate::codes::ErrorCode;
use crate::ids::{AdminKeyId, RequestId, TenantId};
use crate::secret::{Entropy, Secret, same, sha256};
use crate::signin::ports::StoreError;

const SECRET_BYTES: usize = 32;
/// How exactly the last use of a key is known.
const USE_GRAIN: Duration = Duration::from_secs(3600);
/// The greatest length of a note, in bytes.
pub const MAX_NOTE_BYTES: usize = 200;

/// An admin key without its secret.
#[derive(Debug, Clone)]
pub struct AdminKey {
    /// Its identifier: the part before the dot.
    pub id: AdminKeyId,
    /// What it may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// What it is for, in its maker's words.
    pub note: String,
    /// When it was made.
    pub created_at: UnixTime,
    /// When it ends by itself.
    pub expires_at: Option<UnixTime>,
    /// When it was revoked.
    pub revoked_at: Option<UnixTime>,
    /// When it was last used, to the hour.
    pub last_used_at: Option<UnixTime>,
}

impl AdminKey {
    /// What the audit log holds of a new key.
    #[must_use]
    pub fn audited(&self) -> Value {
        let tenant = match &self.scope {
            Scope::Tenant(tenant) => Some(tenant.as_str()),
            Scope::All => None,
        };
        json!({
            "role": self.role.as_str(),
            "tenant": tenant,
            "note": self.note,
            "expires_at": self.expires_at.map(UnixTime::to_rfc3339),
        })
    }
}

/// An admin key as it is stored.
#[derive(Debug, Clone)]
pub struct StoredAdminKey {
    /// The key.
    pub key: AdminKey,
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
}

/// What a new key shall be.
#[derive(Debug, Clone)]
pub struct NewAdminKey {
    /// What it may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// What it is for; at most [`MAX_NOTE_BYTES`].
    pub note: String,
    /// How long it lives; `None` for until it is revoked.
    pub lifetime: Option<Duration>,
}

/// Why a key is refused. All causes look alike from outside but for its absence.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error("this needs an admin key in the header \"Authorization: Bearer csk_…\"")]
    Missing,
    /// Unknown, revoked or expired, or its secret differs.
    #[error("the admin key is not known, was revoked, or has expired")]
    Invalid,
    /// Too many were wrong.
    #[error("too many wrong admin keys came from this address; the next is looked at in {retry_after_s} s")]
    TooMany {
        /// Seconds until then.
        retry_after_s: u64,
    },
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl KeyError {
    /// The stable word of the contract.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Missing => ErrorCode::MissingAdminKey,
            Self::Invalid => ErrorCode::InvalidAdminKey,
            Self::TooMany { .. } => ErrorCode::TooManyAdminKeys,
            Self::Store(_) => ErrorCode::StoreUnavailable,
        }
    }
}

/// Makes, checks and revokes admin keys.
pub struct KeyCheck {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The store.
    pub keys: Arc<dyn AdminKeys>,
    /// Keys that failed of late.
    pub failed: FailedKeys,
}

impl KeyCheck {
    /// The caller that holds a key. Whoever failed too often is held off before the key is looked at, so
    /// that nothing tells whether it was the right one; requests that are under way together count afterwards.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub async fn check(
        &self,
        token: &str,
        address: Option<IpAddr>,
        request: RequestId,
    ) -> Result<Caller, KeyError> {
        let now = self.clock.now();
        let (id, secret_hash) = parse(token).ok_or(KeyError::Invalid)?;
        if let Some(wait) = self.failed.wait(id, address, now) {
            metrics::counter!("countersign_admin_keys_held_off_total").increment(1);
            let retry_after_s = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
            return Err(KeyError::TooMany { retry_after_s });
        }
        let opens = |stored: &StoredAdminKey| {
            let StoredAdminKey { key, secret_hash: hash } = stored;
            let lives = key.revoked_at.is_none() && key.expires_at.is_none_or(|end| now < end);
            same(&secret_hash, hash) && lives
        };
        let Some(StoredAdminKey { key, .. }) = self.keys.find(id).await?.filter(opens) else {
            self.failed.add(id, address, now);
            metrics::counter!("countersign_admin_key_failures_total").increment(1);
            // Once for each time that the allowance is used up: whoever is held off is not looked at.
            if self.failed.wait(id, address, now).is_some() {
                tracing::warn!(admin_key.id = %id, "too many wrong admin keys: this key, or its client's network, is held off");
            }
            return Err(KeyError::Invalid);
        };
        if key.last_used_at.is_none_or(|at| now.since(at) >= USE_GRAIN) {
            self.keys.touch(id, now).await?;
        }
        Ok(Caller::new(id, key.role, key.scope, request))
    }

    /// Makes a key. The text is shown this once: the store has a hash of it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn create(&self, new: NewAdminKey, author: Author) -> Result<(AdminKey, Secret), StoreError> {
        let now = self.clock.now();
        let secret = Secret::random(SECRET_BYTES, &*self.entropy);
        let key = AdminKey {
            id: AdminKeyId::generate(now, &*self.entropy),
            role: new.role,
            scope: new.scope,
            note: new.note,
            created_at: now,
            expires_at: new.lifetime.map(|lifetime| now.plus(lifetime)),
            revoked_at: None,
            last_used_at: None,
        };
        let shown = Secret::new(format!("{}.{}", key.id, secret.to_base64url()).into_bytes());
        self.keys.add(StoredAdminKey { key: key.clone(), secret_hash: secret.hash() }, author).await?;
        Ok((key, shown))
    }

    /// Keys of one tenant, or all of them; newest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self, tenant: Option<&TenantId>, page: &Page) -> Result<Paged<AdminKey>, StoreError> {
        self.keys.list(tenant, page).await
    }

    /// Revokes a key. `false` when there is none that lives.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn revoke(
        &self,
        tenant: Option<&TenantId>,
        id: AdminKeyId,
        author: Author,
    ) -> Result<bool, StoreError> {
        self.keys.revoke(tenant, id, author).await
    }
}

fn parse(token: &str) -> Option<(AdminKeyId, [u8; 32])> {
    let (id, secret) = token.split_once('.')?;
    let secret = BASE64URL_NOPAD.decode(secret.as_bytes()).ok().filter(|s| s.len() == SECRET_BYTES)?;
    Some((AdminKeyId::from_str(id).ok()?, sha256(&secret)))
}
