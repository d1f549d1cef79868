//! Requests of plugins: other methods, headers and bodies than a key fetch, through the same client and the
//! same address rules, to granted host names only.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response};
use url::{Host, Url};

use super::client::{FetchError, Fetcher, next_url, parse_url};

const MAX_BODY_BYTES: usize = 512 * 1024;
const MAX_REDIRECTS: usize = 2;
const MAX_HEADERS: usize = 32;
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// What belongs to the connection, and to this client.
const REFUSED_HEADERS: [&str; 10] = [
    "host",
    "content-length",
    "connection",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
    "accept-encoding",
];

/// A request that somebody else made up.
#[derive(Debug, Clone)]
pub struct OutboundRequest {
    /// `GET`, `POST`, `PUT`, `PATCH` or `DELETE`.
    pub method: String,
    /// An absolute URL.
    pub url: String,
    /// Header fields.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Option<String>,
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct OutboundResponse {
    /// The status.
    pub status: u16,
    /// Header fields that are text, names in lower case; of repeated ones the first.
    pub headers: BTreeMap<String, String>,
    /// The body, UTF-8.
    pub body: String,
}

impl Fetcher {
    /// Sends one request. A redirect of a `GET` is followed at most twice, each time only where
    /// `may_visit` lets it; of other methods it is the answer.
    ///
    /// # Errors
    /// When the request makes no sense or is not allowed, or no whole answer of at most 512 KiB of UTF-8
    /// comes in time.
    pub async fn send(
        &self,
        request: OutboundRequest,
        may_visit: &(dyn Fn(&str) -> bool + Sync),
        limit: Duration,
    ) -> Result<OutboundResponse, FetchError> {
        let sent = tokio::time::timeout(limit, self.send_and_follow(request, may_visit)).await;
        sent.unwrap_or(Err(FetchError::Timeout { after: limit }))
    }

    async fn send_and_follow(
        &self,
        request: OutboundRequest,
        may_visit: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<OutboundResponse, FetchError> {
        let method = match request.method.as_str() {
            "GET" => Method::GET,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "PATCH" => Method::PATCH,
            "DELETE" => Method::DELETE,
            _ => return Err(FetchError::Request("has a method that is not offered")),
        };
        let headers = read_headers(&request.headers)?;
        let mut url = parse_url(&request.url)?;
        let mut redirects = 0;
        loop {
            check_host(&url, may_visit)?;
            let (client, _) = self.client_for(&url)?;
            let mut building = client.request(method.clone(), url.clone()).headers(headers.clone());
            if let Some(body) = &request.body {
                building = building.body(body.clone());
            }
            let response = building.send().await.map_err(|error| self.describe(error))?;
            if !response.status().is_redirection() || method != Method::GET {
                return read(response).await;
            }
            redirects += 1;
            if redirects > MAX_REDIRECTS {
                return Err(FetchError::TooManyRedirects);
            }
            url = next_url(&url, response.headers()).map_err(|error| FetchError::Redirect(error.into()))?;
        }
    }
}

fn check_host(url: &Url, may_visit: &(dyn Fn(&str) -> bool + Sync)) -> Result<(), FetchError> {
    let granted = match url.host() {
        Some(Host::Domain(name)) => may_visit(name),
        Some(Host::Ipv4(ip)) => may_visit(&ip.to_string()),
        Some(Host::Ipv6(_)) | None => false,
    };
    if granted { Ok(()) } else { Err(FetchError::NotGranted) }
}

fn read_headers(given: &BTreeMap<String, String>) -> Result<HeaderMap, FetchError> {
    let wrong = FetchError::Request("has header fields that cannot be sent");
    let size: usize = given.iter().map(|(name, value)| name.len() + value.len()).sum();
    if given.len() > MAX_HEADERS || size > MAX_HEADER_BYTES {
        return Err(wrong);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let name = HeaderName::from_bytes(name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) else { return Err(wrong) };
        if REFUSED_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("proxy-") {
            return Err(wrong);
        }
        headers.insert(name, value);
    }
    Ok(headers)
}

async fn read(mut response: Response) -> Result<OutboundResponse, FetchError> {
    if response.headers().get_all(CONTENT_ENCODING).iter().any(|e| e.as_bytes() != b"identity") {
        return Err(FetchError::Encoded);
    }
    let status = response.status().as_u16();
    let mut headers = BTreeMap::new();
    for (name, value) in response.headers() {
        if let (Ok(value), true) = (value.to_str(), name.as_str() != "set-cookie") {
            headers.entry(name.as_str().to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| FetchError::Broken(e.without_url()))? {
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    let body = String::from_utf8(body).map_err(|_| FetchError::Encoded)?;
    Ok(OutboundResponse { status, headers, body })
}
