//! Security events of providers, pushed (RFC 8935).

use std::sync::Arc;

use poem::http::{StatusCode, header};
use poem::{IntoResponse, Request, RequestBody, Response, Result};
use poem_openapi::payload::{ParsePayload, Payload};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaResponse, MetaResponses, MetaSchemaRef, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ApiResponse, ExtractParamOptions, OpenApi};

use super::body::read_bytes;
use super::oauth_error::{OAuthErrorBody, in_event_form, under};
use super::problem::Problem;
use super::reply::{Refusals, refusals_meta};
use super::{State, Tag};
use crate::codes::ErrorCode as E;

/// RFC 8417 section 7.2.
const SECURITY_EVENT: &str = "application/secevent+jwt";

/// A security event token.
struct SecurityEventToken(String);

impl Payload for SecurityEventToken {
    const CONTENT_TYPE: &'static str = SECURITY_EVENT;

    fn check_content_type(content_type: &str) -> bool {
        content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(SECURITY_EVENT)
    }

    fn schema_ref() -> MetaSchemaRef {
        String::schema_ref()
    }

    fn register(_registry: &mut Registry) {}
}

impl ParsePayload for SecurityEventToken {
    const IS_REQUIRED: bool = true;

    async fn from_request(request: &Request, body: &mut RequestBody) -> Result<Self> {
        let problem = |code, message: String| in_event_form(Problem::new(code, message));
        let bytes = read_bytes(request, body).await.map_err(|refused| match refused.code {
            E::MalformedRequest => problem(E::InvalidRequest, refused.message),
            _ => in_event_form(refused),
        })?;
        if !request.content_type().is_some_and(Self::check_content_type) {
            let text = format!("the body must have the content type {SECURITY_EVENT}");
            return Err(problem(E::UnsupportedMediaType, text).into());
        }
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        text.map(Self).ok_or_else(|| problem(E::InvalidRequest, "the body is no token".to_owned()).into())
    }
}

impl<'a> ApiExtractor<'a> for SecurityEventToken {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(_registry: &mut Registry) {}

    fn request_meta() -> Option<MetaRequest> {
        let content = vec![MetaMediaType { content_type: SECURITY_EVENT, schema: Self::schema_ref() }];
        Some(MetaRequest { description: None, content, required: true })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<Self::ParamType>,
    ) -> Result<Self> {
        <Self as ParsePayload>::from_request(request, body).await
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
    /// what began before it was issued, so it may come twice. The tenant is the one of the host.
    #[oai(
        path = "/auth/security-events",
        method = "post",
        tag = "Tag::Session",
        operation_id = "pushSecurityEvent"
    )]
    async fn push(&self, request: &Request, body: SecurityEventToken) -> Taken {
        Taken(self.run(request, &body.0).await.map_err(in_event_form))
    }
}

impl SecurityEventsApi {
    async fn run(&self, request: &Request, raw: &str) -> Result<(), Problem> {
        let state = &self.0;
        let tenant = state.tenant(request)?;
        let told = state.pipeline.verify_security_events(&tenant.id, raw).await.map_err(|error| {
            error.log_cause();
            under(E::InvalidRequest, super::sign_in::problem(&error))
        })?;
        for events in told {
            let mut sessions = 0;
            for end in events.ends {
                let count = state.sessions.end_upstream(end).await;
                sessions += count.map_err(|error| state.refused(E::StoreUnavailable, &error))?;
            }
            let provider = events.provider;
            tracing::info!(tenant.id = %tenant.id, provider.name = %provider, sessions, "security event");
        }
        metrics::counter!("countersign_security_events_total").increment(1);
        Ok(())
    }
}
