//! What people need of the store.

use std::sync::Arc;

use async_trait::async_trait;

use super::identities::LinkedIdentity;
use super::invitations::{Invitation, NewInvitation};
use crate::clock::UnixTime;
use crate::ids::{InvitationId, LinkId, SessionId, TenantId, UserId};
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
    async fn invite(&self, invitation: NewInvitation) -> Result<InviteResult, StoreError>;
    /// Those of a tenant, newest first, older than `before`.
    async fn invitations(
        &self,
        tenant: &TenantId,
        before: Option<InvitationId>,
        limit: u32,
    ) -> Result<Vec<Invitation>, StoreError>;
    /// Takes an open invitation back, with its pending user. `false` when there is none.
    async fn revoke_invitation(&self, tenant: &TenantId, id: InvitationId) -> Result<bool, StoreError>;
}
