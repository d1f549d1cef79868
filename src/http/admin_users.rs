//! Users.

use std::sync::Arc;

use poem::Request;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};

use super::admin::{AdminAuth, InTenant, admin_refusals, page, read};
use super::admin_people::{
    AdminUser, AdminUserPage, IdentitiesResponse, IdentityInfo, SessionInfo, SessionsResponse, SetStatusRequest,
    SettableStatus, UserExportInfo,
};
use super::body::Body;
use super::dto::{FactorsResponse, MessageResponse};
use super::problem::Problem;
use super::reply::Reply;
use super::{State, Tag};
use crate::admin::access::{Resource, Verb};
use crate::admin::page::MAX_LIMIT;
use crate::admin::users::{SessionFilter, UserFilter, UserQuery};
use crate::codes::ErrorCode as E;
use crate::ids::{TenantId, UserId};
use crate::signin::user::{User, UserStatus};

pub(super) struct AdminUsersApi(pub Arc<State>);

admin_refusals!(ListUsersRefusals, InvalidCursor);
admin_refusals!(UserRefusals, UnknownUser);
admin_refusals!(SetStatusRefusals, UnknownUser, BodyTooLarge, UnsupportedMediaType);

fn unknown() -> Problem {
    Problem::new(E::UnknownUser, "no user of this tenant has this identifier")
}

impl AdminUsersApi {
    async fn leave(&self, request: &Request, auth: &AdminAuth, verb: Verb) -> Result<InTenant, Problem> {
        self.0.in_tenant(request, auth, verb, Resource::Users).await
    }

    async fn find(&self, tenant: &TenantId, user: &str) -> Result<User, Problem> {
        let id: UserId = user.parse().map_err(|_| unknown())?;
        let found = self.0.admin.users.find_user(tenant, id).await;
        found.map_err(|error| self.0.refused(E::StoreUnavailable, &error))?.ok_or_else(unknown)
    }
}

#[OpenApi]
impl AdminUsersApi {
    /// Users of the tenant
    ///
    /// Newest first, without the deleted unless their status is asked for.
    #[oai(path = "/admin/users", method = "get", tag = "Tag::Administration", operation_id = "listUsers")]
    async fn list(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// The beginning of an identifier, an e-mail address or a user name.
        q: Query<Option<String>>,
        /// `active`, `pending`, `disabled`, `locked` or `deleted`.
        status: Query<Option<String>>,
        /// Rows, 1 to 200; 50 when absent.
        limit: Query<Option<u32>>,
        /// The last page's `next_cursor`.
        cursor: Query<Option<String>>,
    ) -> Reply<AdminUserPage, ListUsersRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = self.leave(request, &auth, Verb::Read).await?;
            let filter = UserFilter {
                tenant: leave.tenant,
                status: read("status", status.0, UserStatus::find)?,
                query: q.0.filter(|text| !text.is_empty()).map(|text| UserQuery::parse(&text)),
            };
            let page = page("users", limit.0, cursor.0)?;
            let listed = state.admin.users.list_users(&filter, &page).await;
            let listed = listed.map_err(|error| state.refused(E::StoreUnavailable, &error))?;
            let listed = listed.map(|user| AdminUser::from(&user));
            Ok(AdminUserPage { items: listed.items, next_cursor: listed.next_cursor })
        };
        answer.await.into()
    }

    /// A user
    #[oai(path = "/admin/users/:user_id", method = "get", tag = "Tag::Administration", operation_id = "getUser")]
    async fn get(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its identifier, `usr_…`.
        user_id: Path<String>,
    ) -> Reply<AdminUser, UserRefusals> {
        let answer = async {
            let leave = self.leave(request, &auth, Verb::Read).await?;
            let user = self.find(&leave.tenant, &user_id.0).await?;
            Ok(AdminUser::from(&user))
        };
        answer.await.into()
    }

    /// Say whether a user may sign in
    ///
    /// An `active` user signs in. A `disabled` or `locked` one is refused at sign-in and with its access tokens (403
    /// `account_disabled`, `account_locked`), its challenges are not known any more, and a refresh is refused and
    /// ends the session. The sessions of a disabled user are ended at once, those of a locked one are not;
    /// `end_sessions` says otherwise.
    #[oai(
        path = "/admin/users/:user_id/status",
        method = "put",
        tag = "Tag::Administration",
        operation_id = "setUserStatus"
    )]
    async fn set_status(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its identifier, `usr_…`.
        user_id: Path<String>,
        body: Body<SetStatusRequest>,
    ) -> Reply<AdminUser, SetStatusRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = self.leave(request, &auth, Verb::Change).await?;
            let id: UserId = user_id.0.parse().map_err(|_| unknown())?;
            let disabled = matches!(body.0.status, SettableStatus::Disabled);
            let end = body.0.end_sessions.unwrap_or(disabled);
            let author = state.author(&leave.permit);
            let set = state.admin.users.set_status(&leave.tenant, id, body.0.status.into(), end, author).await;
            let user = set.map_err(|error| state.refused(E::StoreUnavailable, &error))?.ok_or_else(unknown)?;
            Ok(AdminUser::from(&user))
        };
        answer.await.into()
    }

    /// A user's identities
    #[oai(
        path = "/admin/users/:user_id/identities",
        method = "get",
        tag = "Tag::Administration",
        operation_id = "listUserIdentities"
    )]
    async fn identities(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its identifier, `usr_…`.
        user_id: Path<String>,
    ) -> Reply<IdentitiesResponse, UserRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = self.leave(request, &auth, Verb::Read).await?;
            let user = self.find(&leave.tenant, &user_id.0).await?;
            let listed = state.admin.users.identities(&leave.tenant, user.id).await;
            let listed = listed.map_err(|error| state.refused(E::StoreUnavailable, &error))?;
            Ok(IdentitiesResponse { identities: listed.iter().map(IdentityInfo::from).collect() })
        };
        answer.await.into()
    }

    /// A user's living sessions
    ///
    /// The newest 200; `GET /admin/sessions` pages through more.
    #[oai(
        path = "/admin/users/:user_id/sessions",
        method = "get",
        tag = "Tag::Administration",
        operation_id = "listUserSessions"
    )]
    async fn sessions(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its identifier, `usr_…`.
        user_id: Path<String>,
    ) -> Reply<SessionsResponse, UserRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = self.leave(request, &auth, Verb::Read).await?;
            let user = self.find(&leave.tenant, &user_id.0).await?;
            let filter = SessionFilter { tenant: leave.tenant, user: Some(user.id), now: state.clock.now() };
            let page = page("sessions", Some(MAX_LIMIT), None)?;
            let listed = state.admin.users.list_sessions(&filter, &page).await;
            let listed = listed.map_err(|error| state.refused(E::StoreUnavailable, &error))?;
            Ok(SessionsResponse { sessions: listed.items.iter().map(SessionInfo::from).collect() })
        };
        answer.await.into()
    }

    /// End all sessions of a user
    #[oai(
        path = "/admin/users/:user_id/sessions",
        method = "delete",
        tag = "Tag::Administration",
        operation_id = "endUserSessions"
    )]
    async fn end_sessions(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its identifier, `usr_…`.
        user_id: Path<String>,
    ) -> Reply<MessageResponse, UserRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = self.leave(request, &auth, Verb::Change).await?;
            let id: UserId = user_id.0.parse().map_err(|_| unknown())?;
            let ended = state.admin.users.end_sessions(&leave.tenant, id, state.author(&leave.permit)).await;
            let ended = ended.map_err(|error| state.refused(E::StoreUnavailable, &error))?.ok_or_else(unknown)?;
            Ok(MessageResponse::new(&format!("{ended} sessions have ended"), state.clock.now()))
        };
        answer.await.into()
    }

    /// A user's MFA factors
    #[oai(
        path = "/admin/users/:user_id/mfa",
        method = "get",
        tag = "Tag::Administration",
        operation_id = "listUserFactors"
    )]
    async fn factors(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its identifier, `usr_…`.
        user_id: Path<String>,
    ) -> Reply<FactorsResponse, UserRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = self.leave(request, &auth, Verb::Read).await?;
            let user = self.find(&leave.tenant, &user_id.0).await?;
            state.factors_of(user.id).await
        };
        answer.await.into()
    }

    /// Reset a user's MFA
    ///
    /// Removes all factors, and lifts a lock after too many wrong codes. The next sign-in that needs a factor
    /// follows the tenant's rule for users without one.
    #[oai(
        path = "/admin/users/:user_id/mfa",
        method = "delete",
        tag = "Tag::Administration",
        operation_id = "resetUserMfa"
    )]
    async fn reset_mfa(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its identifier, `usr_…`.
        user_id: Path<String>,
    ) -> Reply<MessageResponse, UserRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = self.leave(request, &auth, Verb::Change).await?;
            let id: UserId = user_id.0.parse().map_err(|_| unknown())?;
            let removed = state.admin.users.reset_mfa(&leave.tenant, id, state.author(&leave.permit)).await;
            let removed =
                removed.map_err(|error| state.refused(E::StoreUnavailable, &error))?.ok_or_else(unknown)?;
            Ok(MessageResponse::new(&format!("{removed} factors are removed"), state.clock.now()))
        };
        answer.await.into()
    }

    /// Everything that is kept of a user
    ///
    /// Profile, identities, factors without secrets, living sessions and the newest 10 000 sign-ins: what
    /// article 15 of the GDPR asks for. Leaves an audit record.
    #[oai(
        path = "/admin/users/:user_id/export",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "exportUser"
    )]
    async fn export(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its identifier, `usr_…`.
        user_id: Path<String>,
    ) -> Reply<UserExportInfo, UserRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = self.leave(request, &auth, Verb::Change).await?;
            let id: UserId = user_id.0.parse().map_err(|_| unknown())?;
            let export = state.admin.users.export(&leave.tenant, id, state.author(&leave.permit)).await;
            let export = export.map_err(|error| state.refused(E::StoreUnavailable, &error))?.ok_or_else(unknown)?;
            Ok(UserExportInfo::from(&export))
        };
        answer.await.into()
    }

    /// Erase a user for good
    ///
    /// Profile, identities, factors, sessions and sign-ins go; of the user stays its identifier with the status
    /// `deleted`, and what the audit log says of it, which is nothing personal. Whoever signs in with one of its
    /// identities afterwards is somebody new. Needs the role `admin`.
    #[oai(
        path = "/admin/users/:user_id",
        method = "delete",
        tag = "Tag::Administration",
        operation_id = "eraseUser"
    )]
    async fn erase(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its identifier, `usr_…`.
        user_id: Path<String>,
    ) -> Reply<MessageResponse, UserRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = self.leave(request, &auth, Verb::Erase).await?;
            let id: UserId = user_id.0.parse().map_err(|_| unknown())?;
            let erased = state.admin.users.erase(&leave.tenant, id, state.author(&leave.permit)).await;
            if !erased.map_err(|error| state.refused(E::StoreUnavailable, &error))? {
                return Err(unknown());
            }
            Ok(MessageResponse::new("the user is erased", state.clock.now()))
        };
        answer.await.into()
    }
}
