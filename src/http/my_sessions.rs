//! The signed-in user's sessions.

use std::str::FromStr;
use std::sync::Arc;

use poem::Request;
use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};

use super::me::{MeRefusals, bearer_refusals};
use super::problem::Problem;
use super::reply::Reply;
use super::{BearerAuth, State, Tag, dto};
use crate::clock::UnixTime;
use crate::codes::ErrorCode as E;
use crate::ids::SessionId;
use crate::session::ports::ListedSession;

pub(super) struct MySessionsApi(pub Arc<State>);

bearer_refusals!(EndSessionRefusals, UnknownSession);
bearer_refusals!(EndAllRefusals, MalformedRequest);

/// A living session of the signed-in user.
#[derive(Debug, Object)]
#[oai(rename = "dto.Session", skip_serializing_if_is_none)]
pub struct SessionInfo {
    /// The identifier, `ses_…`; `sid` of its access tokens.
    pub id: String,
    /// Whether it is the one that asks.
    pub current: bool,
    /// When the user signed in, RFC 3339 in UTC.
    pub created_at: String,
    /// When it was last refreshed, RFC 3339 in UTC.
    pub refreshed_at: Option<String>,
    /// When it ends unless it is refreshed, RFC 3339 in UTC.
    pub idle_at: Option<String>,
    /// When it ends in any case, RFC 3339 in UTC.
    pub ends_at: Option<String>,
    /// The provider that the user signed in with.
    pub provider: String,
    /// The application.
    pub client_id: String,
    /// How the user proved who they are (RFC 8176).
    pub amr: Vec<String>,
    /// The country of the sign-in, ISO 3166-1 alpha-2, when it is known.
    pub country: Option<String>,
}

impl SessionInfo {
    fn new(listed: ListedSession, current: SessionId) -> Self {
        let ListedSession { session, refreshed_at, idle_at, country } = listed;
        Self {
            id: session.id.to_string(),
            current: session.id == current,
            created_at: session.created_at.to_rfc3339(),
            refreshed_at: refreshed_at.map(UnixTime::to_rfc3339),
            idle_at: idle_at.map(UnixTime::to_rfc3339),
            ends_at: session.ends_at.map(UnixTime::to_rfc3339),
            provider: session.grant.provider.to_string(),
            client_id: session.grant.client_id.to_string(),
            amr: session.grant.amr,
            country,
        }
    }
}

/// Living sessions of the signed-in user.
#[derive(Debug, Object)]
#[oai(rename = "dto.SessionsResponse")]
pub struct SessionsResponse {
    /// Newest first.
    pub sessions: Vec<SessionInfo>,
}

#[OpenApi]
impl MySessionsApi {
    /// The user's sessions
    ///
    /// Living ones, newest first; `current` marks the one that asks.
    #[oai(path = "/auth/me/sessions", method = "get", tag = "Tag::Me", operation_id = "listMySessions")]
    async fn list(&self, request: &Request, auth: BearerAuth) -> Reply<SessionsResponse, MeRefusals> {
        let answer = async {
            let living = self.0.signed_in(request, Some(&auth)).await?;
            let listed = self.0.sessions.list(living.user.id).await;
            let listed = listed.map_err(|error| self.0.refused(E::StoreUnavailable, &error))?;
            let current = living.session.id;
            Ok(SessionsResponse { sessions: listed.into_iter().map(|s| SessionInfo::new(s, current)).collect() })
        };
        answer.await.into()
    }

    /// End one of the user's sessions
    ///
    /// Its refresh token and access tokens open nothing from then on.
    #[oai(
        path = "/auth/me/sessions/:session_id",
        method = "delete",
        tag = "Tag::Me",
        operation_id = "endMySession"
    )]
    async fn end(
        &self,
        request: &Request,
        auth: BearerAuth,
        /// The session, `ses_…`.
        session_id: Path<String>,
    ) -> Reply<dto::MessageResponse, EndSessionRefusals> {
        let answer = async {
            let living = self.0.signed_in(request, Some(&auth)).await?;
            let unknown = || Problem::new(E::UnknownSession, "the user has no living session with this id");
            let id = SessionId::from_str(&session_id.0).map_err(|_| unknown())?;
            let ended = self.0.sessions.end_one(living.user.id, id).await;
            if !ended.map_err(|error| self.0.refused(E::StoreUnavailable, &error))? {
                return Err(unknown());
            }
            Ok(dto::MessageResponse::new("the session has ended", self.0.clock.now()))
        };
        answer.await.into()
    }

    /// End all of the user's sessions
    ///
    /// With `keep_current`, all but the one that asks.
    #[oai(path = "/auth/me/sessions", method = "delete", tag = "Tag::Me", operation_id = "endMySessions")]
    async fn end_all(
        &self,
        request: &Request,
        auth: BearerAuth,
        /// Whether the session that asks goes on.
        #[oai(default)]
        keep_current: Query<bool>,
    ) -> Reply<dto::MessageResponse, EndAllRefusals> {
        let answer = async {
            let living = self.0.signed_in(request, Some(&auth)).await?;
            let but = keep_current.0.then_some(living.session.id);
            let ended = self.0.sessions.end_all(living.user.id, but).await;
            let ended = ended.map_err(|error| self.0.refused(E::StoreUnavailable, &error))?;
            Ok(dto::MessageResponse::new(&format!("{ended} sessions have ended"), self.0.clock.now()))
        };
        answer.await.into()
    }
}
