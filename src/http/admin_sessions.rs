//! Sessions and sign-ins of a tenant.

use std::sync::Arc;
use std::time::Duration;

use poem::Request;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::types::ParseFromParameter;

use super::admin::{AdminAuth, admin_refusals, page, read, read_time};
use super::admin_people::{
    OutcomeCount, OutcomeWord, ProviderStats, SessionInfo, SessionPage, SignInInfo, SignInPage,
};
use super::admin_tenants::refused;
use super::dto::MessageResponse;
use super::problem::Problem;
use super::reply::Reply;
use super::{State, Tag};
use crate::admin::access::{Resource, Verb};
use crate::admin::users::{SessionFilter, SignInFilter};
use crate::codes::ErrorCode as E;
use crate::ids::{EventId, SessionId};
use crate::signin::rules::Level;

pub(super) struct AdminSessionsApi(pub Arc<State>);

admin_refusals!(ListRefusals, InvalidCursor);
admin_refusals!(EndSessionRefusals, UnknownSession);
admin_refusals!(GetSignInRefusals, UnknownSignIn);
admin_refusals!(StatsRefusals, UnknownProvider);

/// The longest time that statistics look back.
const MAX_HOURS: u32 = 30 * 24;

#[OpenApi]
impl AdminSessionsApi {
    /// Living sessions of the tenant
    ///
    /// Newest first.
    #[oai(path = "/admin/sessions", method = "get", tag = "Tag::Administration", operation_id = "listSessions")]
    async fn sessions(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Of this user, `usr_…`.
        user: Query<Option<String>>,
        /// Rows, 1 to 200; 50 when absent.
        limit: Query<Option<u32>>,
        /// The last page's `next_cursor`.
        cursor: Query<Option<String>>,
    ) -> Reply<SessionPage, ListRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Read, Resource::Users).await?;
            let user = read("user", user.0, |text| text.parse().ok())?;
            let filter = SessionFilter { tenant: leave.tenant, user, now: state.clock.now() };
            let page = page("sessions", limit.0, cursor.0)?;
            let listed = state.admin.users.list_sessions(&filter, &page).await;
            let listed = listed.map_err(|error| state.refused(E::StoreUnavailable, &error))?;
            let listed = listed.map(|session| SessionInfo::from(&session));
            Ok(SessionPage { items: listed.items, next_cursor: listed.next_cursor })
        };
        answer.await.into()
    }

    /// End a session
    ///
    /// Its refresh token opens nothing any more, and its access tokens are refused here at once.
    #[oai(
        path = "/admin/sessions/:session_id",
        method = "delete",
        tag = "Tag::Administration",
        operation_id = "endSession"
    )]
    async fn end(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its identifier, `ses_…`.
        session_id: Path<String>,
    ) -> Reply<MessageResponse, EndSessionRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Change, Resource::Users).await?;
            let unknown =
                || Problem::new(E::UnknownSession, "no session of this tenant lives under this identifier");
            let id: SessionId = session_id.0.parse().map_err(|_| unknown())?;
            let ended = state.admin.users.end_session(&leave.tenant, id, state.author(&leave.permit)).await;
            if !ended.map_err(|error| state.refused(E::StoreUnavailable, &error))? {
                return Err(unknown());
            }
            Ok(MessageResponse::new("the session has ended", state.clock.now()))
        };
        answer.await.into()
    }

    /// Sign-ins of the tenant
    ///
    /// Newest first. Recorded is every sign-in whose token was verified, whatever came of it, and every answer to
    /// a challenge.
    #[oai(path = "/admin/sign-ins", method = "get", tag = "Tag::Administration", operation_id = "listSignIns")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn sign_ins(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Of this user, `usr_…`.
        user: Query<Option<String>>,
        /// Through this provider.
        provider: Query<Option<String>>,
        /// `signed_in`, `mfa_passed`, `challenged`, `mfa_failed`, `denied` or `refused`.
        outcome: Query<Option<String>>,
        /// `low`, `medium` or `high`.
        risk_level: Query<Option<String>>,
        /// Not before this moment, RFC 3339.
        from: Query<Option<String>>,
        /// Before this moment, RFC 3339.
        until: Query<Option<String>>,
        /// Rows, 1 to 200; 50 when absent.
        limit: Query<Option<u32>>,
        /// The last page's `next_cursor`.
        cursor: Query<Option<String>>,
    ) -> Reply<SignInPage, ListRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Read, Resource::SignIns).await?;
            let outcome = read("outcome", outcome.0, |text| OutcomeWord::parse_from_parameter(text).ok())?;
            let filter = SignInFilter {
                tenant: leave.tenant,
                user: read("user", user.0, |text| text.parse().ok())?,
                provider: provider.0.filter(|text| !text.is_empty()),
                end: outcome.map(Into::into),
                level: read("risk_level", risk_level.0, Level::find)?,
                from: read("from", from.0, read_time)?,
                until: read("until", until.0, read_time)?,
            };
            let page = page("sign_ins", limit.0, cursor.0)?;
            let listed = state.admin.sign_ins.list_sign_ins(&filter, &page).await;
            let listed = listed.map_err(|error| state.refused(E::StoreUnavailable, &error))?;
            let listed = listed.map(|record| SignInInfo::from(&record));
            Ok(SignInPage { items: listed.items, next_cursor: listed.next_cursor })
        };
        answer.await.into()
    }

    /// A sign-in
    #[oai(
        path = "/admin/sign-ins/:sign_in_id",
        method = "get",
        tag = "Tag::Administration",
        operation_id = "getSignIn"
    )]
    async fn sign_in(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its identifier, `evt_…`.
        sign_in_id: Path<String>,
    ) -> Reply<SignInInfo, GetSignInRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Read, Resource::SignIns).await?;
            let unknown = || Problem::new(E::UnknownSignIn, "no sign-in of this tenant has this identifier");
            let id: EventId = sign_in_id.0.parse().map_err(|_| unknown())?;
            let found = state.admin.sign_ins.find_sign_in(&leave.tenant, id).await;
            let found = found.map_err(|error| state.refused(E::StoreUnavailable, &error))?.ok_or_else(unknown)?;
            Ok(SignInInfo::from(&found))
        };
        answer.await.into()
    }

    /// How the sign-ins through a provider end
    #[oai(
        path = "/admin/providers/:name/stats",
        method = "get",
        tag = "Tag::Administration",
        operation_id = "getProviderStats"
    )]
    async fn stats(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its name.
        name: Path<String>,
        /// How far to look back, 1 to 720; 24 when absent.
        hours: Query<Option<u32>>,
    ) -> Reply<ProviderStats, StatsRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Read, Resource::SignIns).await?;
            let found = state.admin.directory.provider(&leave.tenant, &name.0);
            found.map_err(|error| refused(state, &error))?;
            let hours = hours.0.unwrap_or(24);
            if !(1..=MAX_HOURS).contains(&hours) {
                return Err(Problem::new(E::MalformedRequest, format!("hours must be from 1 to {MAX_HOURS}")));
            }
            let from = state.clock.now().minus(Duration::from_secs(u64::from(hours) * 3600));
            let counted = state.admin.sign_ins.count_ends(&leave.tenant, &name.0, from).await;
            let counted = counted.map_err(|error| state.refused(E::StoreUnavailable, &error))?;
            let total = counted.iter().map(|c| c.count).sum();
            let outcomes = counted
                .into_iter()
                .map(|c| OutcomeCount { outcome: c.end.into(), error: c.code, count: c.count })
                .collect();
            Ok(ProviderStats { from: from.to_rfc3339(), total, outcomes })
        };
        answer.await.into()
    }
}
