//! What sessions need of the store.

use async_trait::async_trait;

use super::{Grant, NewRefresh};
use crate::clock::UnixTime;
use crate::ids::{KeyId, RefreshId, SessionId, TenantId, UserId};
use crate::signin::ports::{EnabledNames, StoreError};
use crate::signin::user::User;

/// A session that has not ended.
#[derive(Debug, Clone)]
pub struct StoredSession {
    /// Its identifier.
    pub id: SessionId,
    /// What it is worth.
    pub grant: Grant,
    /// When it began.
    pub created_at: UnixTime,
    /// When it ends, whatever is refreshed.
    pub ends_at: Option<UnixTime>,
}

/// A living session and its user, whatever the user's status.
#[derive(Debug, Clone)]
pub struct SessionUser {
    /// The session.
    pub session: StoredSession,
    /// Its user.
    pub user: User,
}

/// A refresh token to be exchanged for its successor.
#[derive(Debug)]
pub struct Rotation {
    /// The tenant of the request.
    pub tenant: TenantId,
    /// The tenant's enabled providers: a session that came through another one is not touched.
    pub enabled_providers: EnabledNames,
    /// The presented token.
    pub id: RefreshId,
    /// SHA-256 of its secret half.
    pub secret_hash: [u8; 32],
    /// The successor. Its `expires_at` is what configuration allows; the store keeps the smaller of
    /// it, the session's refresh cap and the session's end.
    pub successor: NewRefresh,
    /// The successor's secret, sealed, so that a repeat inside the grace gets the same one.
    pub sealed_successor: Vec<u8>,
    /// How long a repeat is forgiven.
    pub grace: std::time::Duration,
    /// The moment.
    pub now: UnixTime,
}

/// What became of a rotation.
#[derive(Debug)]
pub enum RotationResult {
    /// The successor is in force.
    Rotated(Box<SessionUser>),
    /// The token was exchanged a moment ago: this is the successor it got.
    Repeated {
        /// The session.
        session: Box<SessionUser>,
        /// The successor's identifier.
        successor: RefreshId,
        /// Its sealed secret.
        sealed_successor: Vec<u8>,
    },
    /// The token was exchanged before. The whole session is ended now.
    Reused {
        /// The session.
        session: SessionId,
        /// Its user.
        user: UserId,
    },
    /// There is no such token, its secret differs, it or its session has ended, or it is of another
    /// tenant.
    Invalid,
    /// The session came through a provider that is not enabled now. Nothing is changed.
    ProviderDisabled,
    /// The user may not sign in; the session is ended.
    UserInactive,
}

/// Sessions in the store.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// A session that has not ended, with its user.
    async fn find_session(&self, id: SessionId, now: UnixTime) -> Result<Option<SessionUser>, StoreError>;
    /// Exchanges a refresh token, in one transaction. A wrong secret changes nothing.
    async fn rotate(&self, rotation: Rotation) -> Result<RotationResult, StoreError>;
    /// Ends a session. `false` when it had ended.
    async fn end_session(&self, id: SessionId, now: UnixTime) -> Result<bool, StoreError>;
    /// Ends the session of a refresh token whose secret fits. `false` when there is none.
    async fn end_session_of(
        &self,
        tenant: &TenantId,
        id: RefreshId,
        secret_hash: [u8; 32],
        now: UnixTime,
    ) -> Result<bool, StoreError>;
}

/// A signing key as it is stored.
#[derive(Debug, Clone)]
pub struct StoredSigningKey {
    /// Its identifier.
    pub id: KeyId,
    /// `EdDSA`, `ES256` or `RS256`.
    pub algorithm: String,
    /// The PKCS #8 document, sealed.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: UnixTime,
}

/// Signing keys in the store.
#[async_trait]
pub trait SigningKeys: Send + Sync {
    /// All of them, oldest first.
    async fn load(&self) -> Result<Vec<StoredSigningKey>, StoreError>;
    /// Adds a key, unless one of this algorithm is there already; then nothing happens.
    async fn add_first(&self, key: StoredSigningKey) -> Result<(), StoreError>;
}

/// Local tokens cannot be signed or checked now.
#[derive(Debug, thiserror::Error)]
#[error("local tokens cannot be signed now")]
pub struct KeyRingError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
