//! The development issuer over HTTP.

use std::sync::Arc;

use poem::endpoint::make;
use poem::http::{HeaderMap, StatusCode, header};
use poem::{Endpoint, Request, Response, Route, get, post};
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use super::issuer::{DevClaims, DevIssuer, is_loopback};
use crate::signin::json::parse_object;

const MAX_BODY_BYTES: usize = 16 * 1024;

/// Claims that are numbers although a form writes them as text.
const TIMES: [&str; 4] = ["exp", "iat", "nbf", "auth_time"];

impl DevIssuer {
    /// The routes, to be mounted under `/dev`:
    ///
    /// | route | gives |
    /// |---|---|
    /// | `GET /issuer/.well-known/openid-configuration` | the discovery document |
    /// | `GET /issuer/jwks.json` | the public key |
    /// | `POST /token` | an ID token as plain text, for the claims of a form or of a JSON object |
    ///
    /// ```text
    /// curl -d sub=alice -d email=alice@example.com -d groups=staff -d groups=admins http://127.0.0.1:8080/dev/token
    /// ```
    ///
    /// In a form, a name that comes twice makes a list; `true`, `false`, lists and objects are read as JSON, and
    /// so are numbers in `exp`, `iat`, `nbf` and `auth_time`; everything else is text.
    #[must_use]
    pub fn routes(self: Arc<Self>) -> Route {
        let (keys, token) = (Arc::clone(&self), Arc::clone(&self));
        let discovery = self;
        Route::new()
            .at("/issuer/.well-known/openid-configuration", get(guarded(move |_| json(&discovery.discovery()))))
            .at("/issuer/jwks.json", get(guarded(move |_| json(keys.jwks()))))
            .at("/token", post(guarded(move |asked| token.answer(asked))))
    }

    fn answer(&self, asked: Asked) -> Response {
        match read_claims(&asked).and_then(|claims| self.mint(claims).map_err(|e| e.to_string())) {
            Ok(token) => plain(StatusCode::OK, token),
            Err(problem) => plain(StatusCode::BAD_REQUEST, problem),
        }
    }
}

/// What a request holds, read whole.
struct Asked {
    content_type: String,
    body: Vec<u8>,
}

fn guarded(answer: impl Fn(Asked) -> Response + Send + Sync + 'static) -> impl Endpoint<Output = Response> {
    let answer = Arc::new(answer);
    make(move |mut request: Request| {
        let answer = Arc::clone(&answer);
        async move {
            if !is_from_here(request.headers()) {
                let problem = "the development issuer answers only loopback hosts and pages served from them";
                return Ok::<_, poem::Error>(plain(StatusCode::FORBIDDEN, problem.to_owned()));
            }
            let content_type = request.content_type().unwrap_or_default().to_owned();
            match request.take_body().into_bytes_limit(MAX_BODY_BYTES).await {
                Ok(body) => Ok(answer(Asked { content_type, body: body.to_vec() })),
                Err(_) => {
                    Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {MAX_BODY_BYTES} bytes are read")))
                }
            }
        }
    })
}

/// `Host` names this machine, and so does `Origin` if there is one: neither a page of another site nor a
/// foreign name that resolves to loopback gets tokens.
#[must_use]
pub fn is_from_here(headers: &HeaderMap) -> bool {
    let local = |url: &str| Url::parse(url).is_ok_and(|url| is_loopback(url.host()));
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    text(header::HOST).is_some_and(|host| local(&format!("http://{host}/")))
        && text(header::ORIGIN).is_none_or(local)
}

fn read_claims(asked: &Asked) -> Result<DevClaims, String> {
    let mut extra = match asked.content_type.split(';').next().unwrap_or_default().trim() {
        "application/json" => parse_object(&asked.body).map_err(|e| format!("the body cannot be read: {e}"))?,
        "application/x-www-form-urlencoded" => form(&asked.body),
        _ => return Err("send a form or a JSON object with at least \"sub\"".to_owned()),
    };
    let mut take = |name: &str| match extra.remove(name) {
        Some(Value::String(text)) => Some(text),
        Some(other) => {
            extra.insert(name.to_owned(), other);
            None
        }
        None => None,
    };
    let (sub, email, name) = (take("sub").unwrap_or_default(), take("email"), take("name"));
    Ok(DevClaims { sub, email, name, extra })
}

fn form(body: &[u8]) -> Map<String, Value> {
    let mut claims = Map::new();
    for (name, text) in form_urlencoded::parse(body) {
        let value = form_value(&name, &text);
        match claims.get_mut(&*name) {
            None => drop(claims.insert(name.into_owned(), value)),
            Some(Value::Array(list)) => list.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    claims
}

fn form_value(name: &str, text: &str) -> Value {
    match serde_json::from_str::<Value>(text) {
        Ok(value @ (Value::Bool(_) | Value::Array(_) | Value::Object(_))) => value,
        Ok(value @ Value::Number(_)) if TIMES.contains(&name) => value,
        _ => Value::String(text.to_owned()),
    }
}

fn json(value: &Value) -> Response {
    Response::builder().content_type("application/json").body(value.to_string())
}

fn plain(status: StatusCode, text: String) -> Response {
    Response::builder()
        .status(status)
        .content_type("text/plain; charset=utf-8")
        .header(header::CACHE_CONTROL, "no-store")
        .body(text)
}
