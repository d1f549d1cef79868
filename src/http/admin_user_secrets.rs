//! What administrators set of a user beside its status: the local password, and the subject of an identity.

use std::sync::Arc;

use poem::Request;
use poem_openapi::param::Path;
use poem_openapi::{Object, OpenApi};

use super::admin::{AdminAuth, admin_refusals};
use super::body::Body;
use super::dto::MessageResponse;
use super::me_password::{refused, secret};
use super::problem::Problem;
use super::reply::Reply;
use super::sign_in::present;
use super::text::Text;
use super::{State, Tag};
use crate::admin::access::{Resource, Verb};
use crate::codes::ErrorCode as E;
use crate::ids::UserId;
use crate::people::identities::SubjectMigration;

pub(super) struct AdminUserSecretsApi(pub Arc<State>);

admin_refusals!(
    SetPasswordRefusals,
    UnknownUser,
    PasswordUnacceptable,
    PasswordCheckBusy,
    BodyTooLarge,
    UnsupportedMediaType
);
admin_refusals!(RemovePasswordRefusals, UnknownUser, NoLocalPassword);
admin_refusals!(MigrateRefusals, UnknownUser, UnknownIdentity, IdentityTaken, BodyTooLarge, UnsupportedMediaType);

/// A local password to set.
#[derive(Object)]
#[oai(rename = "dto.SetPasswordRequest", skip_serializing_if_is_none)]
pub struct SetPasswordBody {
    /// At least as many characters as the tenant asks for, and at most 256 bytes.
    pub password: Text,
    /// Whether the user must change it at the next chance; `true` when absent.
    pub must_change: Option<bool>,
}

/// An identity of the user, and its new subject.
#[derive(Object)]
#[oai(rename = "dto.MigrateIdentityRequest", skip_serializing_if_is_none)]
pub struct MigrateIdentityBody {
    /// The provider's name.
    pub provider: Text,
    /// The subject so far.
    pub old_subject: Text,
    /// The subject from now on.
    pub new_subject: Text,
    /// `iss` from now on. Absent: as it is.
    pub new_issuer: Option<Text>,
}

#[OpenApi]
impl AdminUserSecretsApi {
    /// Set a user's local password
    ///
    /// The user's sessions end. The password is checked against the tenant's policy and the user's last ones.
    #[oai(
        path = "/admin/users/:user_id/password",
        method = "put",
        tag = "Tag::Administration",
        operation_id = "setUserPassword"
    )]
    async fn set_password(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// The user, `usr_…`.
        user_id: Path<String>,
        body: Body<SetPasswordBody>,
    ) -> Reply<MessageResponse, SetPasswordRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Change, Resource::Users).await?;
            let (user, must_change) = (parse(&user_id.0)?, body.0.must_change.unwrap_or(true));
            let (new, author) = (secret(body.0.password), state.author(&leave.permit));
            let set = state.passwords.set(&leave.tenant, user, new, must_change, author).await;
            set.map_err(|error| refused(state, &error))?;
            Ok(MessageResponse::new("the password is set", state.clock.now()))
        };
        answer.await.into()
    }

    /// Take a user's local password away
    ///
    /// The user goes on signing in through providers.
    #[oai(
        path = "/admin/users/:user_id/password",
        method = "delete",
        tag = "Tag::Administration",
        operation_id = "removeUserPassword"
    )]
    async fn remove_password(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// The user, `usr_…`.
        user_id: Path<String>,
    ) -> Reply<MessageResponse, RemovePasswordRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Change, Resource::Users).await?;
            let author = state.author(&leave.permit);
            let removed = state.passwords.remove(&leave.tenant, parse(&user_id.0)?, author).await;
            removed.map_err(|error| refused(state, &error))?;
            Ok(MessageResponse::new("the password is removed", state.clock.now()))
        };
        answer.await.into()
    }

    /// Give an identity its new subject
    ///
    /// For a provider that changes its subjects, as Apple does when an application moves to another team
    /// (`transfer_sub`). The identity goes on being the user's, under the new subject alone.
    #[oai(
        path = "/admin/users/:user_id/identities/migrate",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "migrateUserIdentity"
    )]
    async fn migrate(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// The user, `usr_…`.
        user_id: Path<String>,
        body: Body<MigrateIdentityBody>,
    ) -> Reply<MessageResponse, MigrateRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Change, Resource::Users).await?;
            let body = body.0;
            let migration = SubjectMigration {
                tenant: leave.tenant,
                user: parse(&user_id.0)?,
                provider: body.provider.0.into(),
                old_subject: body.old_subject.0.into(),
                new_subject: new_subject(body.new_subject)?,
                new_issuer: present(body.new_issuer).map(Into::into),
            };
            let migrated = state.identities.migrate(migration, state.author(&leave.permit)).await;
            migrated.map_err(|error| state.refused(error.code(), &error))?;
            Ok(MessageResponse::new("the identity has its new subject", state.clock.now()))
        };
        answer.await.into()
    }
}

fn parse(id: &str) -> Result<UserId, Problem> {
    id.parse().map_err(|_| Problem::new(E::UnknownUser, "there is no user with this id"))
}

/// OpenID Connect Core section 2: at most 255 characters.
fn new_subject(text: Text) -> Result<Arc<str>, Problem> {
    if (1..=255).contains(&text.0.len()) {
        Ok(text.0.into())
    } else {
        Err(Problem::new(E::MalformedRequest, "new_subject has 1 to 255 bytes"))
    }
}
