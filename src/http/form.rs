//! Form bodies of the OAuth endpoints (RFC 6749 appendix B), read as strictly as JSON ones: at most 64 KiB,
//! `application/x-www-form-urlencoded` only, UTF-8, no broken escape, no parameter twice. A parameter without a
//! value counts as absent (RFC 6749 section 3.2); one that is not known is passed over.

use poem::{Request, RequestBody, Result};
use poem_openapi::payload::{ParsePayload, Payload};
use poem_openapi::registry::{MetaSchemaRef, Registry};
use poem_openapi::types::{ParseFromJSON, Type};
use serde_json::{Map, Value};

use super::body::{read_bytes, request_body};
use super::oauth_error::{in_oauth_form, refusal};
use super::problem::Problem;
use crate::codes::ErrorCode;

/// The media type.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// A form that must be there.
pub struct Form<T>(pub T);

fn malformed(what: impl std::fmt::Display) -> Problem {
    refusal(ErrorCode::InvalidRequest, format!("the form cannot be read: {what}"))
}

fn is_form(content_type: &str) -> bool {
    content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM)
}

/// The parameters of a form. Errors name what is wrong, never what was sent.
fn parse(body: &[u8]) -> Result<Map<String, Value>, &'static str> {
    let mut parameters = Map::new();
    for pair in body.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
        let at = pair.iter().position(|b| *b == b'=');
        let (name, value) = at.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
        let (name, value) = (decode(name)?, decode(value)?);
        if value.is_empty() {
            continue;
        }
        if parameters.insert(name, Value::String(value)).is_some() {
            return Err("a parameter is there twice");
        }
    }
    Ok(parameters)
}

/// One name or value, also of the halves of a client's Basic credentials.
pub(super) fn decode(text: &[u8]) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16));
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                let (high, low) = high.zip(low).ok_or("it has a broken escape")?;
                u8::try_from(high * 16 + low).map_err(|_| "it has a broken escape")?
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8")
}

impl<T: Type> Payload for Form<T> {
    const CONTENT_TYPE: &'static str = FORM;

    fn check_content_type(content_type: &str) -> bool {
        is_form(content_type)
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

request_body!((T: ParseFromJSON) Form<T>, true, FORM => T);

impl<T: ParseFromJSON> ParsePayload for Form<T> {
    const IS_REQUIRED: bool = true;

    async fn from_request(request: &Request, body: &mut RequestBody) -> Result<Self> {
        let bytes = read_bytes(request, body).await.map_err(|problem| match problem.code {
            ErrorCode::MalformedRequest => refusal(ErrorCode::InvalidRequest, problem.message),
            _ => in_oauth_form(problem),
        })?;
        let bytes = bytes.ok_or_else(|| malformed("it is empty"))?;
        if !request.content_type().is_some_and(is_form) {
            let text = format!("the body must have the content type {FORM}");
            return Err(refusal(ErrorCode::UnsupportedMediaType, text).into());
        }
        let parameters = parse(&bytes).map_err(malformed)?;
        let parsed = T::parse_from_json(Some(Value::Object(parameters)));
        Ok(Self(parsed.map_err(|error| malformed(error.into_message()))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_exactly_or_not_at_all() {
        let read = |text: &[u8]| parse(text).map(|m| Value::Object(m).to_string());
        assert_eq!(read(b"a=1&b=x+y%2Bz&&c=&d").as_deref(), Ok(r#"{"a":"1","b":"x y+z"}"#));
        assert_eq!(read("a=%C3%A9".as_bytes()).as_deref(), Ok(r#"{"a":"é"}"#));
        for broken in [&b"a=1&a=2"[..], b"a=%", b"a=%4", b"a=%zz", b"a=%ff", b"%ff=a", b"a=\xff", b"a=%+1"] {
            assert!(read(broken).is_err(), "{}", String::from_utf8_lossy(broken));
        }
    }
}
