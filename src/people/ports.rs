//! What people need of the store.

use std::sync::Arc;

use async_trait::async_trait;

use super::devices::{StoredDevice, TrustedDevice};
use super::identities::LinkedIdentity;
use super::invitations::{Invitation, NewInvitation};
use super::passwords::PasswordState;
use crate::admin::audit::Author;
use crate::admin::page::{Page, Paged};
use crate::clock::UnixTime;
use crate::ids::{InvitationId, LinkId, SessionId, TenantId, UserId};
use crate::secret::Secret;
use crate::signin::history::Pseudonym;
use crate::signin::identity::Profile;
use crate::signin::ports::StoreError;
use crate::signin::user::IdentityKey;

/// How linking ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkResult {
    /// The identity is the user's, from now or from before.
    Linked(IdentityKey),
    /// It is another user's.
    Taken,
    /// There is no such offer for this user, or it has ended.
    NoOffer,
    /// The user may not sign in any more.
    UserInactive,
}

/// How unlinking ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnlinkResult {
    /// It is gone, and so are the other sessions of its provider.
    Unlinked,
    /// The user does not have it.
    Unknown,
    /// None would be left that the user can sign in with.
    Last,
}

/// How a migration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationResult {
    /// The identity has the new subject.
    Migrated,
    /// The user has no such identity.
    Unknown,
    /// The new subject is somebody's already.
    Taken,
}

/// A link offer that a client hands in.
#[derive(Debug)]
pub struct Redemption {
    /// The tenant of the request.
    pub tenant: TenantId,
    /// The offer.
    pub offer: LinkId,
    /// SHA-256 of the secret that the client sent.
    pub secret_hash: [u8; 32],
    /// Who is signed in.
    pub user: UserId,
    /// The moment.
    pub now: UnixTime,
}

/// Identities in the store.
#[async_trait]
pub trait Identities: Send + Sync {
    /// Those of a user, oldest first.
    async fn identities(&self, user: UserId) -> Result<Vec<LinkedIdentity>, StoreError>;
    /// Links a proved identity.
    async fn link(&self, user: UserId, identity: IdentityKey, now: UnixTime) -> Result<LinkResult, StoreError>;
    /// Links what an offer names, when it is for this user, and ends the offer. An offer of another
    /// tenant or user, or with another secret (compared in constant time), is none, and stays.
    async fn redeem(&self, redemption: Redemption) -> Result<LinkResult, StoreError>;
    /// Takes an identity from its user, unless no identity of an `enabled` provider would be left, and ends
    /// the sessions that came through its provider, but for `keep`: all or nothing.
    async fn unlink(
        &self,
        user: UserId,
        identity: IdentityKey,
        enabled: Vec<Arc<str>>,
        keep: SessionId,
        now: UnixTime,
    ) -> Result<UnlinkResult, StoreError>;
    /// Gives the user's identity another subject or issuer.
    async fn migrate(
        &self,
        user: UserId,
        old: IdentityKey,
        new: IdentityKey,
        author: Author,
    ) -> Result<MigrationResult, StoreError>;
}

/// How making an invitation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteResult {
    /// It is open.
    Invited,
    /// One for the same address or identity is open already.
    AlreadyInvited,
    /// A user has the address, verified, or the identity.
    AccountExists,
}

/// Invitations in the store.
#[async_trait]
pub trait Invitations: Send + Sync {
    /// Makes an invitation and its pending user. Expired ones for the same go.
    async fn invite(&self, invitation: NewInvitation, author: Author) -> Result<InviteResult, StoreError>;
    /// Those of a tenant, newest first.
    async fn invitations(&self, tenant: &TenantId, page: &Page) -> Result<Paged<Invitation>, StoreError>;
    /// Takes an invitation back that is not accepted, with its pending user. `false` when there is none.
    async fn revoke_invitation(
        &self,
        tenant: &TenantId,
        id: InvitationId,
        author: Author,
    ) -> Result<bool, StoreError>;
}

/// A password could not be hashed or compared now.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Too many wait already.
    #[error("too many passwords are being hashed")]
    Busy,
    /// A stored hash cannot be read, or the hasher ended.
    #[error("a password cannot be hashed or compared")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Argon2id (RFC 9106), a few at once and never on a worker that answers requests.
#[async_trait]
pub trait PasswordHasher: Send + Sync {
    /// The hash with its parameters and a new salt, as a PHC string.
    async fn hash(&self, password: Secret) -> Result<String, HashError>;
    /// The place of the first hash that the password fits, compared in constant time.
    async fn matching(&self, password: Secret, hashes: Vec<String>) -> Result<Option<usize>, HashError>;
}

/// A local password as it is stored.
#[derive(Debug, Clone, Default)]
pub struct StoredPassword {
    /// PHC string.
    pub hash: String,
    /// Those before it, newest first.
    pub former: Vec<String>,
}

/// A local password to be written.
#[derive(Debug, Clone)]
pub struct NewPassword {
    /// PHC string.
    pub hash: String,
    /// Those before it that may not come again, newest first.
    pub former: Vec<String>,
    /// Its state.
    pub state: PasswordState,
}

/// Whether the old password may be looked at.
#[derive(Debug)]
pub enum ChangeStart {
    /// Yes. The attempt is counted as wrong until [`Passwords::finish_change`].
    Open(StoredPassword),
    /// There is none.
    NoPassword,
    /// Too many attempts within the window.
    Locked {
        /// Seconds until the oldest of them is out of it.
        retry_after_s: u64,
    },
}

/// Local passwords in the store.
#[async_trait]
pub trait Passwords: Send + Sync {
    /// Counts an attempt and reads the password, in one transaction.
    async fn begin_change(&self, user: UserId, now: UnixTime) -> Result<ChangeStart, StoreError>;
    /// Puts a new one in place of `old`, takes the counted attempt back, and ends the user's sessions but
    /// for `keep`: all or nothing. `false` when the stored one is no longer `old`.
    async fn finish_change(
        &self,
        user: UserId,
        old: String,
        new: NewPassword,
        keep: SessionId,
    ) -> Result<bool, StoreError>;
    /// A user of the tenant that is not erased: who it is, and its password. `None`: there is no such user.
    async fn find_password(
        &self,
        tenant: &TenantId,
        user: UserId,
    ) -> Result<Option<(Profile, Option<StoredPassword>)>, StoreError>;
    /// Sets a user's password and ends its sessions. `false` when there is no such user.
    async fn set_password(
        &self,
        tenant: &TenantId,
        user: UserId,
        new: NewPassword,
        author: Author,
    ) -> Result<bool, StoreError>;
    /// Takes a user's password away. `false` when there is none.
    async fn remove_password(&self, tenant: &TenantId, user: UserId, author: Author) -> Result<bool, StoreError>;
}

/// Devices in the store.
#[async_trait]
pub trait Devices: Send + Sync {
    /// Devices that signed in successfully within the history, latest first, with their trust.
    async fn devices(&self, user: UserId, session: SessionId) -> Result<Vec<StoredDevice>, StoreError>;
    /// Trusts the device that a session was begun on, in place of an earlier trust. `false` when the session
    /// was begun on another one.
    async fn trust(&self, user: UserId, session: SessionId, trust: TrustedDevice) -> Result<bool, StoreError>;
    /// Ends the trust in a device. `false` when there was none.
    async fn end_trust(&self, user: UserId, device: Pseudonym) -> Result<bool, StoreError>;
    /// Forgets a device: its trust, its place in the history, and its sessions but for `keep`.
    async fn forget(
        &self,
        user: UserId,
        device: Pseudonym,
        keep: SessionId,
        now: UnixTime,
    ) -> Result<(), StoreError>;
}
