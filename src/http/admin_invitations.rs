//! Invitations, by administrators.

use std::sync::Arc;
use std::time::Duration;

use poem::Request;
use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};

use super::admin::{AdminAuth, admin_refusals, page};
use super::body::Body;
use super::dto::MessageResponse;
use super::problem::Problem;
use super::reply::Reply;
use super::sign_in::present;
use super::text::Text;
use super::{State, Tag};
use crate::admin::access::{Resource, Verb};
use crate::clock::UnixTime;
use crate::codes::ErrorCode as E;
use crate::people::invitations::{Invitation, InviteRequest, Invitee};

pub(super) struct AdminInvitationsApi(pub Arc<State>);

admin_refusals!(ListInvitationsRefusals, InvalidCursor);
admin_refusals!(InviteRefusals, UnknownProvider, AlreadyInvited, AccountExists, BodyTooLarge, UnsupportedMediaType);
admin_refusals!(RevokeInvitationRefusals, UnknownInvitation);

/// How long an invitation lives when nobody says otherwise.
const DEFAULT_TTL_S: u64 = 14 * 86_400;

/// Whom to let in: `email`, or `provider` and `subject`.
#[derive(Object)]
#[oai(rename = "dto.InviteRequest", skip_serializing_if_is_none)]
pub struct InviteBody {
    /// The address. A provider that is trusted for it must bring it verified.
    pub email: Option<Text>,
    /// With `email`: only through this provider. With `subject`: its provider.
    pub provider: Option<Text>,
    /// `sub` of the identity.
    pub subject: Option<Text>,
    /// `iss` of the identity. Absent: the provider's own.
    pub issuer: Option<Text>,
    /// For administrators, at most 256 bytes.
    pub note: Option<Text>,
    /// Seconds until it ends, 60 to 7776000 (90 days); 14 days when absent.
    pub expires_in: Option<u64>,
}

/// An invitation.
#[derive(Debug, Object)]
#[oai(rename = "dto.Invitation", skip_serializing_if_is_none)]
pub struct InvitationInfo {
    /// The identifier, `inv_…`.
    pub id: String,
    /// The user that it was made with, `usr_…`: pending until it is accepted.
    pub user_id: String,
    /// `open`, `accepted` or `expired`.
    pub state: String,
    /// The address.
    pub email: Option<String>,
    /// The provider's name.
    pub provider: Option<String>,
    /// `iss` of the identity.
    pub issuer: Option<String>,
    /// `sub` of the identity.
    pub subject: Option<String>,
    /// What the administrator wrote down.
    pub note: String,
    /// When it was made, RFC 3339 in UTC.
    pub created_at: String,
    /// When it ends or ended.
    pub expires_at: String,
    /// When it was accepted.
    pub accepted_at: Option<String>,
}

impl InvitationInfo {
    fn of(invitation: Invitation, now: UnixTime) -> Self {
        let state = match invitation.accepted_at {
            Some(_) => "accepted",
            None if now < invitation.expires_at => "open",
            None => "expired",
        };
        let (email, provider, issuer, subject) = match invitation.invitee {
            Invitee::Email { address, provider } => (Some(address), provider, None, None),
            Invitee::Identity { provider, issuer, subject } => (None, Some(provider), Some(issuer), Some(subject)),
        };
        let text = |t: Option<Arc<str>>| t.map(|t| t.to_string());
        Self {
            id: invitation.id.to_string(),
            user_id: invitation.user.to_string(),
            state: state.to_owned(),
            email,
            provider: text(provider),
            issuer: text(issuer),
            subject: text(subject),
            note: invitation.note,
            created_at: invitation.created_at.to_rfc3339(),
            expires_at: invitation.expires_at.to_rfc3339(),
            accepted_at: invitation.accepted_at.map(UnixTime::to_rfc3339),
        }
    }
}

/// Invitations, newest first.
#[derive(Debug, Object)]
#[oai(rename = "dto.InvitationPage", skip_serializing_if_is_none)]
pub struct InvitationPage {
    /// The invitations.
    pub items: Vec<InvitationInfo>,
    /// Pass it as `cursor` for the next page. Absent: these were the last.
    pub next_cursor: Option<String>,
}

#[OpenApi]
impl AdminInvitationsApi {
    /// Invitations
    ///
    /// Open, accepted and expired ones of the tenant, newest first.
    #[oai(
        path = "/admin/invitations",
        method = "get",
        tag = "Tag::Administration",
        operation_id = "listInvitations"
    )]
    async fn list(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Rows, 1 to 200; 50 when absent.
        limit: Query<Option<u32>>,
        /// The last page's `next_cursor`.
        cursor: Query<Option<String>>,
    ) -> Reply<InvitationPage, ListInvitationsRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Read, Resource::Users).await?;
            let page = page("invitations", limit.0, cursor.0)?;
            let listed = state.invitations.list(&leave.tenant, &page).await;
            let now = state.clock.now();
            let listed = listed.map_err(|error| state.refused(E::StoreUnavailable, &error))?;
            let listed = listed.map(|invitation| InvitationInfo::of(invitation, now));
            Ok(InvitationPage { items: listed.items, next_cursor: listed.next_cursor })
        };
        answer.await.into()
    }

    /// Invite somebody
    ///
    /// Makes a pending user, and lets in once whoever signs in with this identity, or with this address verified by a
    /// provider that is trusted for it, at a provider with `provisioning = "invite"`. Nothing is sent to anybody.
    #[oai(
        path = "/admin/invitations",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "createInvitation"
    )]
    async fn invite(
        &self,
        request: &Request,
        auth: AdminAuth,
        body: Body<InviteBody>,
    ) -> Reply<InvitationInfo, InviteRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Change, Resource::Users).await?;
            let wanted = InviteRequest {
                tenant: leave.tenant,
                email: present(body.0.email),
                provider: present(body.0.provider),
                subject: present(body.0.subject),
                issuer: present(body.0.issuer),
                note: present(body.0.note),
                ttl: Duration::from_secs(body.0.expires_in.unwrap_or(DEFAULT_TTL_S)),
            };
            let invited = state.invitations.invite(wanted, state.author(&leave.permit)).await;
            let invited = invited.map_err(|error| state.refused(error.code(), &error))?;
            Ok(InvitationInfo::of(invited, state.clock.now()))
        };
        answer.await.into()
    }

    /// Take an invitation back
    ///
    /// An open or expired one; its pending user goes with it. An accepted one is a user: disable that.
    #[oai(
        path = "/admin/invitations/:invitation_id",
        method = "delete",
        tag = "Tag::Administration",
        operation_id = "revokeInvitation"
    )]
    async fn revoke(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// The invitation, `inv_…`.
        invitation_id: Path<String>,
    ) -> Reply<MessageResponse, RevokeInvitationRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Change, Resource::Users).await?;
            let id = invitation_id
                .0
                .parse()
                .map_err(|error: crate::ids::InvalidId| Problem::new(E::UnknownInvitation, error.to_string()))?;
            let revoked = state.invitations.revoke(&leave.tenant, id, state.author(&leave.permit)).await;
            revoked.map_err(|error| state.refused(error.code(), &error))?;
            Ok(MessageResponse::new("the invitation is taken back", state.clock.now()))
        };
        answer.await.into()
    }
}
