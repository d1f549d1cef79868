//! JSON request bodies: at most 64 KiB unless an operation says more, read in bounded time, `application/json` only, and no member
//! named twice, at any depth.

use std::marker::PhantomData;
use std::time::Duration;

use poem::http::header;
use poem::{Request, RequestBody, Result};
use poem_openapi::payload::{ParsePayload, Payload};
use poem_openapi::registry::{MetaSchemaRef, Registry};
use poem_openapi::types::{ParseFromJSON, Type};
use serde_json::Value;

use super::problem::Problem;
use crate::codes::ErrorCode;
use crate::signin::json;

/// The greatest size of a body, but for a [`LateBody`].
pub const BODY_LIMIT_BYTES: usize = 64 * 1024;
/// How long a client may take to send its body.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The media type of every body. poem-openapi's own adds a parameter that generators trip over.
pub const JSON: &str = "application/json";

/// A JSON body that must be there.
pub struct Body<T>(pub T);

/// A JSON body that may be absent.
pub struct OptionalBody<T>(pub Option<T>);

/// A JSON body that must be there and is not read yet: one that may be large is read once it is known who sends it.
pub struct LateBody<T>(RequestBody, PhantomData<fn() -> T>);

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(JSON)
}

fn malformed(what: impl std::fmt::Display) -> Problem {
    Problem::new(ErrorCode::MalformedRequest, format!("the request body cannot be read: {what}"))
}

/// The body's bytes; `None` when there is no body at all.
pub(super) async fn read_bytes(request: &Request, body: &mut RequestBody) -> Result<Option<Vec<u8>>, Problem> {
    read_bytes_within(BODY_LIMIT_BYTES, request, body).await
}

async fn read_bytes_within(
    limit_bytes: usize,
    request: &Request,
    body: &mut RequestBody,
) -> Result<Option<Vec<u8>>, Problem> {
    let too_large =
        || Problem::new(ErrorCode::BodyTooLarge, format!("the body is larger than {limit_bytes} bytes"));
    let is_plain = |coding: &poem::http::HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !request.headers().get_all(header::CONTENT_ENCODING).iter().all(is_plain) {
        let text = "the body must not be compressed: no Content-Encoding is taken";
        return Err(Problem::new(ErrorCode::UnsupportedMediaType, text));
    }
    let announced =
        request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit_bytes as u64) {
        return Err(too_large());
    }
    let taken = body.take().map_err(malformed)?;
    if taken.is_empty() {
        return Ok(None);
    }
    let read = tokio::time::timeout(BODY_TIME, taken.into_bytes_limit(limit_bytes)).await;
    let bytes = match read {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(poem::error::ReadBodyError::PayloadTooLarge)) => return Err(too_large()),
        Ok(Err(_)) => return Err(malformed("the connection broke off")),
        Err(_) => return Err(malformed("it was not sent within 10 s")),
    };
    Ok(Some(Vec::from(bytes)).filter(|bytes| !bytes.is_empty()))
}

/// The body's value; `None` when there is no body at all.
async fn read(limit_bytes: usize, request: &Request, body: &mut RequestBody) -> Result<Option<Value>, Problem> {
    let Some(bytes) = read_bytes_within(limit_bytes, request, body).await? else { return Ok(None) };
    match request.content_type() {
        Some(content_type) if is_json(content_type) => json::parse(&bytes).map(Some).map_err(malformed),
        _ => Err(Problem::new(
            ErrorCode::UnsupportedMediaType,
            "the body must have the content type application/json",
        )),
    }
}

fn parse<T: ParseFromJSON>(value: Value) -> Result<T, Problem> {
    if !value.is_object() {
        return Err(malformed("it is not a JSON object"));
    }
    T::parse_from_json(Some(value)).map_err(|error| malformed(without_value(error.message())))
}

/// What poem-openapi says of a value of another type, without the value: it may be a token or a code.
fn without_value(message: &str) -> String {
    let Some((expected, found)) = message.split_once(", found ") else { return message.to_owned() };
    let kind = match found.as_bytes().first() {
        Some(b'"') => "a text",
        Some(b'[') => "a list",
        Some(b'{') => "an object",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null or nothing",
        _ => "a number",
    };
    let place = found.rfind(" (occurred while parsing ").map_or("", |at| &found[at..]);
    format!("{expected}, found {kind}.{place}")
}

/// Hands a payload over to poem-openapi as the body of a request: which content types it may have, and the schema of
/// each.
macro_rules! request_body {
    (($($generics:tt)*) $body:ty, $required:literal, $($content_type:expr => $schema:ty),+) => {
        impl<'a, $($generics)*> poem_openapi::ApiExtractor<'a> for $body {
            const TYPES: &'static [poem_openapi::ApiExtractorType] =
                &[poem_openapi::ApiExtractorType::RequestObject];

            type ParamType = ();
            type ParamRawType = ();

            fn register(registry: &mut poem_openapi::registry::Registry) {
                $(<$schema as poem_openapi::types::Type>::register(registry);)+
            }

            fn request_meta() -> Option<poem_openapi::registry::MetaRequest> {
                let content = vec![$(poem_openapi::registry::MetaMediaType {
                    content_type: $content_type,
                    schema: <$schema as poem_openapi::types::Type>::schema_ref(),
                }),+];
                Some(poem_openapi::registry::MetaRequest { description: None, content, required: $required })
            }

            async fn from_request(
                request: &'a poem::Request,
                body: &mut poem::RequestBody,
                _options: poem_openapi::ExtractParamOptions<Self::ParamType>,
            ) -> poem::Result<Self> {
                <Self as poem_openapi::payload::ParsePayload>::from_request(request, body).await
            }
        }
    };
}
pub(super) use request_body;

macro_rules! json_payload {
    ($name:ident, $required:literal) => {
        impl<T: Type> Payload for $name<T> {
            const CONTENT_TYPE: &'static str = JSON;

            fn check_content_type(content_type: &str) -> bool {
                is_json(content_type)
            }

            fn schema_ref() -> MetaSchemaRef {
                T::schema_ref()
            }

            fn register(registry: &mut Registry) {
                T::register(registry);
            }
        }

        request_body!((T: ParseFromJSON) $name<T>, $required, JSON => T);
    };
}

json_payload!(Body, true);
json_payload!(OptionalBody, false);
json_payload!(LateBody, true);

impl<T: ParseFromJSON> ParsePayload for Body<T> {
    const IS_REQUIRED: bool = true;

    async fn from_request(request: &Request, body: &mut RequestBody) -> Result<Self> {
        Ok(Self(needed(BODY_LIMIT_BYTES, request, body).await?))
    }
}

impl<T: ParseFromJSON> ParsePayload for OptionalBody<T> {
    const IS_REQUIRED: bool = false;

    async fn from_request(request: &Request, body: &mut RequestBody) -> Result<Self> {
        Ok(Self(read(BODY_LIMIT_BYTES, request, body).await?.map(parse).transpose()?))
    }
}

async fn needed<T: ParseFromJSON>(
    limit_bytes: usize,
    request: &Request,
    body: &mut RequestBody,
) -> Result<T, Problem> {
    parse(read(limit_bytes, request, body).await?.ok_or_else(|| malformed("it is empty"))?)
}

impl<T: ParseFromJSON> ParsePayload for LateBody<T> {
    const IS_REQUIRED: bool = true;

    async fn from_request(_: &Request, body: &mut RequestBody) -> Result<Self> {
        Ok(Self(std::mem::take(body), PhantomData))
    }
}

impl<T: ParseFromJSON> LateBody<T> {
    /// Reads it, up to a limit of the operation's own.
    ///
    /// # Errors
    /// As a [`Body`] is refused.
    pub async fn read(mut self, limit_bytes: usize, request: &Request) -> Result<T, Problem> {
        needed(limit_bytes, request, &mut self.0).await
    }
}
