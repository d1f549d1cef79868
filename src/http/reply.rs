//! Answers of operations: one shape for success, and the list of refusals that the document names.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use poem::http::{HeaderName, HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{MetaHeader, MetaMediaType, MetaResponse, MetaResponses, Registry};
use poem_openapi::types::{ToJSON, Type};

use super::body::JSON;
use super::oauth_error::OAuthErrorBody;
use super::problem::{ErrorBody, Problem, row};
use crate::codes::ErrorCode;

/// The refusals of one operation.
pub trait Refusals: Send {
    /// All that it can answer; checked against real answers by the tests.
    const CODES: &'static [ErrorCode];
    /// Whether its refusals have the form of RFC 6749 section 5.2 as well.
    const OAUTH: bool = false;
}

/// A success, or one of the refusals of `R`.
pub struct Reply<T, R> {
    result: Result<T, Problem>,
    refusals: PhantomData<R>,
}

impl<T, R> From<Result<T, Problem>> for Reply<T, R> {
    fn from(result: Result<T, Problem>) -> Self {
        Self { result, refusals: PhantomData }
    }
}

impl<T: ToJSON, R: Refusals> IntoResponse for Reply<T, R> {
    fn into_response(self) -> Response {
        match self.result {
            // Every answer may hold tokens or say something of a person: none is stored on the way.
            Ok(value) => Response::builder()
                .content_type(JSON)
                .header(header::CACHE_CONTROL, "no-store")
                .body(value.to_json_string()),
            Err(problem) => problem.into_response(),
        }
    }
}

impl<T: ToJSON, R: Refusals> ApiResponse for Reply<T, R> {
    fn meta() -> MetaResponses {
        let success = MetaResponse {
            description: "Success.",
            status: Some(200),
            status_range: None,
            content: vec![MetaMediaType { content_type: JSON, schema: T::schema_ref() }],
            headers: vec![],
        };
        MetaResponses { responses: std::iter::once(success).chain(refusals_meta(R::CODES, R::OAUTH)).collect() }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
        if R::OAUTH {
            OAuthErrorBody::register(registry);
        } else {
            ErrorBody::register(registry);
        }
    }
}

/// One response for each status, whose description lists its codes; `spec.rs` makes an example of each.
pub(super) fn refusals_meta(codes: &[ErrorCode], oauth: bool) -> Vec<MetaResponse> {
    let mut by_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
    for code in codes {
        by_status.entry(row(*code).status().as_u16()).or_default().push(*code);
    }
    by_status
        .into_iter()
        .map(|(status, codes)| {
            let lines: Vec<String> = codes
                .iter()
                .map(|c| format!("- `{}` ({}): {}", c.as_str(), row(*c).number, row(*c).meaning))
                .collect();
            // The registry wants a static text. Built once for each operation in the life of the process.
            let description: &'static str = Box::leak(lines.join("\n").into_boxed_str());
            let mut headers = Vec::new();
            if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
                headers.push(header_meta(
                    header::RETRY_AFTER,
                    "Seconds until another try makes sense.",
                    u64::schema_ref(),
                ));
            }
            MetaResponse {
                description,
                status: Some(status),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: JSON,
                    schema: if oauth { OAuthErrorBody::schema_ref() } else { ErrorBody::schema_ref() },
                }],
                headers,
            }
        })
        .collect()
}

fn header_meta(name: HeaderName, description: &str, schema: poem_openapi::registry::MetaSchemaRef) -> MetaHeader {
    MetaHeader {
        name: name.to_string(),
        description: Some(description.to_owned()),
        required: true,
        deprecated: false,
        schema,
    }
}

/// A problem leaves as its status and itself; the outermost layer, which knows the request's identifier,
/// writes the body.
pub fn carry(problem: Problem) -> Response {
    let mut response = Response::builder().status(row(problem.code).status()).finish();
    response.extensions_mut().insert(problem);
    response
}

/// The header that every answer carries.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A header value of ASCII text that we made ourselves.
pub fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
