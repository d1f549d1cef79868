//! What sessions need of the store.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Grant, NewRefresh};
use crate::admin::audit::{Author, Change};
use crate::clock::UnixTime;
use crate::ids::{EventId, KeyId, RefreshId, SessionId, TenantId, UserId};
use crate::signin::ports::{InForce, StoreError};
use crate::signin::security_events::ToldEvents;
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
    /// The tenant's enabled providers: a session that came through another one is not touched. And its clients.
    pub in_force: Arc<InForce>,
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
    /// How long the access token lives that comes with it: the session does not end before.
    pub access_ttl: std::time::Duration,
    /// The registered client that asks. It must be the session's.
    pub client: Option<Arc<str>>,
    /// The thumbprint of the key that the request proved to hold.
    pub jkt: Option<Arc<str>>,
    /// The identifier of the record, should the token have been used before.
    pub event: EventId,
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
    /// tenant or client.
    Invalid,
    /// The client may not ask for the session's audience any more. Nothing was changed.
    AudienceTaken,
    /// The session is bound to a key that the request did not prove to hold. Nothing was changed.
    KeyNotProved,
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
    /// The living session of an unused refresh token whose secret fits, and when the token ends. Changes
    /// nothing.
    async fn find_by_refresh(
        &self,
        tenant: &TenantId,
        id: RefreshId,
        secret_hash: [u8; 32],
        now: UnixTime,
    ) -> Result<Option<(SessionUser, UnixTime)>, StoreError>;
    /// Ends the session of a refresh token whose secret fits, used or not. `false` when there is none.
    async fn end_session_of(
        &self,
        tenant: &TenantId,
        id: RefreshId,
        secret_hash: [u8; 32],
        now: UnixTime,
    ) -> Result<bool, StoreError>;
    /// The living sessions of a user, newest first.
    async fn list_sessions(&self, user: UserId, now: UnixTime) -> Result<Vec<ListedSession>, StoreError>;
    /// Ends a session of this user. `false` when it is not one, or had ended.
    async fn end_session_of_user(&self, user: UserId, id: SessionId, now: UnixTime) -> Result<bool, StoreError>;
    /// Ends all sessions of a user but one, and gives how many.
    async fn end_sessions_of_user(
        &self,
        user: UserId,
        but: Option<SessionId>,
        now: UnixTime,
    ) -> Result<u64, StoreError>;
    /// Ends the sessions that a provider's logout names, and gives how many.
    async fn end_upstream_sessions(&self, ended: UpstreamEnd, now: UnixTime) -> Result<u64, StoreError>;
    /// Carries out what a provider told, and writes an audit record of it the first time that the token comes, in
    /// one transaction. An identity is taken away only when the user has another one of the `enabled` providers.
    async fn carry_out(
        &self,
        told: ToldEvents,
        enabled: Vec<Arc<str>>,
        author: Author,
    ) -> Result<CarriedOut, StoreError>;
}

/// What came of a provider's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarriedOut {
    /// Sessions that were ended.
    pub sessions: u64,
    /// Whether the token came for the first time.
    pub is_first: bool,
}

/// A living session as its user sees it.
#[derive(Debug, Clone)]
pub struct ListedSession {
    /// The session.
    pub session: StoredSession,
    /// When it was last refreshed, if ever.
    pub refreshed_at: Option<UnixTime>,
    /// When it ends, if nothing is refreshed.
    pub idle_at: Option<UnixTime>,
    /// The country of its sign-in, ISO 3166-1 alpha-2, when it is known.
    pub country: Option<String>,
}

/// What a provider says has ended (OpenID Connect Back-Channel Logout 1.0).
#[derive(Debug, Clone)]
pub struct UpstreamEnd {
    /// The tenant.
    pub tenant: TenantId,
    /// The provider.
    pub provider: Arc<str>,
    /// The issuer.
    pub issuer: Arc<str>,
    /// The subject; with a session, the session must be of this subject.
    pub subject: Option<Arc<str>>,
    /// The digest of one session of the provider; absent: all of the subject.
    pub session: Option<[u8; 32]>,
    /// Sessions that began later go on.
    pub begun_until: Option<UnixTime>,
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
    /// From when on it signs.
    pub active_from: UnixTime,
}

/// A key takes over by hand.
#[derive(Debug, Clone)]
pub struct KeyReplacement {
    /// The key that signs last now.
    pub newest: Option<KeyId>,
    /// What follows.
    pub by: Successor,
    /// Keys that go with all they signed.
    pub removed: Vec<KeyId>,
}

/// The key that takes over.
#[derive(Debug, Clone)]
pub enum Successor {
    /// A new one.
    New(StoredSigningKey),
    /// The newest one, which waits, from this time on.
    Waiting(KeyId, UnixTime),
}

impl Successor {
    /// Which key it is.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        match self {
            Self::New(key) => key.id,
            Self::Waiting(id, _) => *id,
        }
    }
}

/// Signing keys in the store.
#[async_trait]
pub trait SigningKeys: Send + Sync {
    /// All of them, by the time from which they sign; of several at one time, in the order in which they came.
    async fn load(&self) -> Result<Vec<StoredSigningKey>, StoreError>;
    /// Adds a key, if the one that signs last is still `newest`: of several nodes one wins. `false` for
    /// the others.
    async fn add_after(&self, newest: Option<KeyId>, key: StoredSigningKey) -> Result<bool, StoreError>;
    /// Replaces the key that signs and writes its audit record, all at once, if the key that signs last is
    /// still the newest that the change was judged by. `false` when it is not.
    async fn replace(
        &self,
        replacement: KeyReplacement,
        author: Author,
        change: Change,
    ) -> Result<bool, StoreError>;
    /// Removes keys: what they signed is not accepted any more.
    async fn remove(&self, keys: Vec<KeyId>) -> Result<(), StoreError>;
}

/// Local tokens cannot be signed or checked now.
#[derive(Debug, thiserror::Error)]
#[error("local tokens cannot be signed now")]
pub struct KeyRingError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
