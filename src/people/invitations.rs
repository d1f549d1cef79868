//! Invitations: the only way in at a provider with `provisioning = "invite"`.
//!
//! An invitation is for an address, which a provider that is trusted for it must then bring verified, or
//! for one identity of one provider. It is made with a pending user, is good once, and ends by itself.

use std::sync::Arc;
use std::time::Duration;

use super::ports::{Invitations, InviteResult};
use crate::admin::audit::Author;
use crate::admin::page::{Page, Paged};
use crate::clock::{Clock, UnixTime};
use crate::codes::ErrorCode;
use crate::ids::{InvitationId, TenantId, UserId};
use crate::secret::Entropy;
use crate::signin::identity::{Profile, is_email};
use crate::signin::ports::{Directory, StoreError};
use crate::signin::provider::{IssuerRule, identity_issuer};

/// The shortest and the longest life of an invitation.
pub const INVITATION_TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(90 * 86_400);

/// Whom an invitation lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invitee {
    /// Whoever brings this address, verified by a provider that is trusted for it.
    Email {
        /// The address, as it was written.
        address: String,
        /// Only through this provider.
        provider: Option<Arc<str>>,
    },
    /// One identity.
    Identity {
        /// The provider.
        provider: Arc<str>,
        /// `iss`.
        issuer: Arc<str>,
        /// `sub`.
        subject: Arc<str>,
    },
}

/// An invitation as it is stored.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// Its identifier.
    pub id: InvitationId,
    /// The user that it was made with: pending until it is accepted.
    pub user: UserId,
    /// For whom.
    pub invitee: Invitee,
    /// What the administrator wrote down.
    pub note: String,
    /// When it was made.
    pub created_at: UnixTime,
    /// When it ends.
    pub expires_at: UnixTime,
    /// When it was accepted.
    pub accepted_at: Option<UnixTime>,
}

/// An invitation to be made, with its pending user.
#[derive(Debug, Clone)]
pub struct NewInvitation {
    /// The tenant.
    pub tenant: TenantId,
    /// The invitation.
    pub invitation: Invitation,
    /// What the pending user is called until it comes.
    pub profile: Profile,
}

/// What an administrator asks for.
#[derive(Debug, Clone)]
pub struct InviteRequest {
    /// The tenant.
    pub tenant: TenantId,
    /// The address.
    pub email: Option<String>,
    /// The provider's name.
    pub provider: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// `iss`; absent: the provider's own.
    pub issuer: Option<String>,
    /// A note of at most 256 bytes.
    pub note: Option<String>,
    /// How long it lives.
    pub ttl: Duration,
}

/// Why nobody was invited.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// The request does not say whom.
    #[error("{0}")]
    Request(&'static str),
    /// No such provider in this tenant.
    #[error("no provider with this name is enabled")]
    UnknownProvider,
    /// There is one already.
    #[error("an invitation for the same address or identity is open")]
    AlreadyInvited,
    /// There is a user already.
    #[error("a user has this address or identity")]
    AccountExists,
    /// No such open invitation.
    #[error("there is no open invitation with this id")]
    Unknown,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl InviteError {
    /// The stable word of the contract.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Request(_) => ErrorCode::MalformedRequest,
            Self::UnknownProvider => ErrorCode::UnknownProvider,
            Self::AlreadyInvited => ErrorCode::AlreadyInvited,
            Self::AccountExists => ErrorCode::AccountExists,
            Self::Unknown => ErrorCode::UnknownInvitation,
            Self::Store(_) => ErrorCode::StoreUnavailable,
        }
    }
}

/// Makes invitations and takes them back.
pub struct InvitationService {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The store.
    pub invitations: Arc<dyn Invitations>,
    /// Providers.
    pub directory: Arc<dyn Directory>,
}

impl InvitationService {
    /// Makes an invitation and its pending user.
    ///
    /// # Errors
    /// See [`InviteError`].
    pub async fn invite(&self, request: InviteRequest, author: Author) -> Result<Invitation, InviteError> {
        let invitee = self.invitee(&request)?;
        let note = request.note.unwrap_or_default();
        if note.len() > 256 || note.chars().any(char::is_control) {
            return Err(InviteError::Request("note has at most 256 bytes and no control characters"));
        }
        if !INVITATION_TTL.contains(&request.ttl) {
            return Err(InviteError::Request("an invitation lives from 60 s to 90 days"));
        }
        let email = match &invitee {
            Invitee::Email { address, .. } => Some(address.clone()),
            Invitee::Identity { .. } => None,
        };
        let now = self.clock.now();
        let invitation = Invitation {
            id: InvitationId::generate(now, &*self.entropy),
            user: UserId::generate(now, &*self.entropy),
            invitee,
            note,
            created_at: now,
            expires_at: now.plus(request.ttl),
            accepted_at: None,
        };
        let profile = Profile { email, ..Profile::default() };
        let made = NewInvitation { tenant: request.tenant, invitation: invitation.clone(), profile };
        match self.invitations.invite(made, author).await? {
            InviteResult::Invited => Ok(invitation),
            InviteResult::AlreadyInvited => Err(InviteError::AlreadyInvited),
            InviteResult::AccountExists => Err(InviteError::AccountExists),
        }
    }

    fn invitee(&self, request: &InviteRequest) -> Result<Invitee, InviteError> {
        let providers = self.directory.providers(&request.tenant);
        let provider = match &request.provider {
            Some(name) => Some(providers.iter().find(|p| *p.name == **name).ok_or(InviteError::UnknownProvider)?),
            None => None,
        };
        match (&request.email, &request.subject, provider) {
            (Some(address), None, provider) if is_email(address) && request.issuer.is_none() => {
                Ok(Invitee::Email { address: address.clone(), provider: provider.map(|p| Arc::clone(&p.name)) })
            }
            (Some(_), None, _) => {
                Err(InviteError::Request("email is not an address, or issuer stands without subject"))
            }
            (None, Some(subject), Some(provider)) if (1..=255).contains(&subject.len()) => {
                let issuer = match (&request.issuer, &provider.issuer) {
                    (Some(issuer), rule) if rule.may_match(issuer) => issuer.as_str(),
                    (Some(_), _) => return Err(InviteError::Request("issuer is not one of this provider")),
                    (None, IssuerRule::Exact(issuers)) => issuers.first().map_or("", String::as_str),
                    (None, IssuerRule::PerTenant { .. }) => {
                        return Err(InviteError::Request(
                            "this provider has an issuer for each tenant: name it in issuer",
                        ));
                    }
                };
                let (issuer, subject) = (identity_issuer(&issuer.into()), subject.as_str().into());
                Ok(Invitee::Identity { provider: Arc::clone(&provider.name), issuer, subject })
            }
            _ => Err(InviteError::Request("name an email, or a provider and a subject of at most 255 bytes")),
        }
    }

    /// Invitations of a tenant, newest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self, tenant: &TenantId, page: &Page) -> Result<Paged<Invitation>, StoreError> {
        self.invitations.invitations(tenant, page).await
    }

    /// Takes an invitation back that is not accepted.
    ///
    /// # Errors
    /// See [`InviteError`].
    pub async fn revoke(&self, tenant: &TenantId, id: InvitationId, author: Author) -> Result<(), InviteError> {
        let revoked = self.invitations.revoke_invitation(tenant, id, author).await?;
        if revoked { Ok(()) } else { Err(InviteError::Unknown) }
    }
}
