//! Security events of providers, pushed (RFC 8935), and Apple's server-to-server notices.

use std::sync::Arc;

use poem::http::{StatusCode, header};
use poem::{IntoResponse, Request, RequestBody, Response, Result};
use poem_openapi::payload::{ParsePayload, Payload};
use poem_openapi::registry::{MetaResponse, MetaResponses, MetaSchemaRef, Registry};
use poem_openapi::types::{ParseFromJSON, Type};
use poem_openapi::{ApiResponse, Object, OpenApi};

use super::body::{JSON, read_bytes, request_body};
use super::oauth_error::{OAuthErrorBody, in_event_form, under};
use super::problem::Problem;
use super::reply::{Refusals, refusals_meta};
use super::{State, Tag};
use crate::codes::ErrorCode as E;
use crate::ids::RequestId;
use crate::session::upstream::UpstreamError;
use crate::signin::json;

/// RFC 8417 section 7.2.
const SECURITY_EVENT: &str = "application/secevent+jwt";

/// What a provider pushes.
enum Pushed {
    /// A security event token.
    Token(String),
    /// A notice of Apple.
    Notice(AppleNotice),
}

/// A server-to-server notice as Apple posts it.
#[derive(Debug, Object)]
#[oai(rename = "dto.AppleNotice")]
struct AppleNotice {
    /// A token signed by Apple, whose claim `events` is a text.
    payload: String,
}

impl Payload for Pushed {
    const CONTENT_TYPE: &'static str = SECURITY_EVENT;

    fn check_content_type(content_type: &str) -> bool {
        [SECURITY_EVENT, JSON].iter().any(|known| is(content_type, known))
    }

    fn schema_ref() -> MetaSchemaRef {
        String::schema_ref()
    }

    fn register(_registry: &mut Registry) {}
}

request_body!(() Pushed, true, SECURITY_EVENT => String, JSON => AppleNotice);

fn is(content_type: &str, known: &str) -> bool {
    content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(known)
}

impl ParsePayload for Pushed {
    const IS_REQUIRED: bool = true;

    async fn from_request(request: &Request, body: &mut RequestBody) -> Result<Self> {
        let problem = |code, message: String| in_event_form(Problem::new(code, message));
        let bytes = read_bytes(request, body).await.map_err(|refused| match refused.code {
            E::MalformedRequest => problem(E::InvalidRequest, refused.message),
            _ => in_event_form(refused),
        })?;
        let content_type = request.content_type().unwrap_or_default();
        if !Self::check_content_type(content_type) {
            let text = format!("the body must have the content type {SECURITY_EVENT}; of Apple's notices, {JSON}");
            return Err(problem(E::UnsupportedMediaType, text).into());
        }
        let malformed = |what: &str| problem(E::InvalidRequest, what.to_owned());
        let bytes = bytes.ok_or_else(|| malformed("the body is empty"))?;
        if is(content_type, JSON) {
            let what = "the body is no JSON object with a text \"payload\"";
            let value = json::parse(&bytes).map_err(|_| malformed(what))?;
            let notice = AppleNotice::parse_from_json(Some(value)).map_err(|_| malformed(what))?;
            return Ok(Self::Notice(notice));
        }
        String::from_utf8(bytes).map(Self::Token).map_err(|_| malformed("the body is no token").into())
    }
}

/// Taken, with nothing to say (RFC 8935 section 2.2); or a refusal (section 2.3).
struct Taken(Result<(), Problem>);

struct EventRefusals;
impl Refusals for EventRefusals {
    const OAUTH: bool = true;
    const CODES: &'static [E] = &[
        E::InvalidRequest,
        E::ProviderUnavailable,
        E::UnknownTenant,
        E::BodyTooLarge,
        E::UnsupportedMediaType,
        E::StoreUnavailable,
        E::RequestTimeout,
    ];
}

impl IntoResponse for Taken {
    fn into_response(self) -> Response {
        match self.0 {
            Ok(()) => {
                Response::builder().status(StatusCode::ACCEPTED).header(header::CACHE_CONTROL, "no-store").finish()
            }
            Err(problem) => problem.into_response(),
        }
    }
}

impl ApiResponse for Taken {
    fn meta() -> MetaResponses {
        let taken = MetaResponse {
            description: "Taken.",
            status: Some(202),
            status_range: None,
            content: vec![],
            headers: vec![],
        };
        let refusals = refusals_meta(EventRefusals::CODES, EventRefusals::OAUTH);
        MetaResponses { responses: std::iter::once(taken).chain(refusals).collect() }
    }

    fn register(registry: &mut Registry) {
        OAuthErrorBody::register(registry);
    }
}

pub(super) struct SecurityEventsApi(pub Arc<State>);

#[OpenApi]
impl SecurityEventsApi {
    /// Take a provider's word of a security event
    ///
    /// A security event token (RFC 8417), pushed as RFC 8935 says: register this address at the provider. It is
    /// checked like an ID token, and must name one of the provider's client ids as audience. `session-revoked`,
    /// `sessions-revoked`, `account-disabled`, `account-purged`, `account-credential-change-required`,
    /// `credential-compromise`, `token-revoked` and `tokens-revoked` end the sessions that came from the subject
    /// (`iss_sub`; an address or number names nobody). Other events are taken and end nothing. A token ends
    /// what began before it was issued, so it may come twice. The tenant is the one of the host. Plugins that listen
    /// hear of it; when one is out of reach the answer is 503, and the token should come again.
    ///
    /// With the content type `application/json` it takes a server-to-server notice of Apple, of a provider with
    /// `notices = "apple"`: `consent-revoked` ends the sessions that came from the subject; `account-delete` also takes
    /// the identity from the user, unless it is the last one that the user could sign in with.
    #[oai(
        path = "/auth/security-events",
        method = "post",
        tag = "Tag::Session",
        operation_id = "pushSecurityEvent"
    )]
    async fn push(&self, request: &Request, body: Pushed) -> Taken {
        Taken(self.run(request, body).await.map_err(in_event_form))
    }
}

impl SecurityEventsApi {
    async fn run(&self, request: &Request, pushed: Pushed) -> Result<(), Problem> {
        let state = &self.0;
        let tenant = state.tenant(request)?;
        let id = request.data::<RequestId>().copied().unwrap_or_else(|| RequestId::from_bytes([0; 16]));
        let verified = match &pushed {
            Pushed::Token(raw) => state.pipeline.verify_security_events(&tenant.id, raw).await,
            Pushed::Notice(notice) => state.pipeline.verify_apple_notice(&tenant.id, &notice.payload).await,
        };
        let told = verified.map_err(|error| {
            error.log_cause();
            under(E::InvalidRequest, super::sign_in::problem(&error))
        })?;
        for events in told {
            state.upstream.take(events, id).await.map_err(|error| match error {
                UpstreamError::Store(error) => state.refused(E::StoreUnavailable, &error),
                UpstreamError::NotHeard => Problem::new(E::ProviderUnavailable, error.to_string()),
            })?;
        }
        metrics::counter!("countersign_security_events_total").increment(1);
        Ok(())
    }
}
