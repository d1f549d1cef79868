//! The one HTTP client that leaves this server, with every limit built in.
//!
//! It gets JSON objects; what plugins ask for beyond that stands in `request`. The address rule is asked three times over: for an address that
//! stands in the URL, for every address that the name resolves to at the moment of connecting (so that a
//! second answer of a name server cannot differ from the checked one), and again for each redirect.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT, AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION,
};
use reqwest::{Client, Response, redirect};
use serde_json::{Map, Value};
use url::{Host, Url};

use super::address::{AddressRule, RefusedAddress};
use super::schedule::freshness;
use crate::signin::json::{StrictJsonError, parse_object};

/// The greatest answer that is read. A real key set has a few KiB.
const MAX_BODY_BYTES: usize = 512 * 1024;
const MAX_URL_BYTES: usize = 2048;
const MAX_REDIRECTS: usize = 2;
const MAX_CONNECT_TIME: Duration = Duration::from_secs(2);

/// What fetches may do.
#[derive(Debug, Clone)]
pub struct FetchSettings {
    /// Allows `http://`, and then to loopback addresses only; also `https://` to loopback.
    pub allow_insecure_issuers: bool,
    /// Networks that are reached although they are not public, over `https://`.
    pub granted_networks: Vec<IpNet>,
    /// For a whole fetch: names, connections, redirects and body.
    pub timeout: Duration,
}

impl Default for FetchSettings {
    fn default() -> Self {
        Self { allow_insecure_issuers: false, granted_networks: Vec::new(), timeout: Duration::from_secs(3) }
    }
}

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the HTTPS client cannot be set up; are the system's CA certificates installed?")]
pub struct FetchSetupError(#[source] reqwest::Error);

/// Why a fetch gave nothing. The texts name no path, query or address.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL cannot be used.
    #[error("the URL {0}")]
    Url(&'static str),
    /// `http://` where `https://` is needed.
    #[error(
        "the URL begins with http://; https:// is needed (http:// only to loopback, with allow_insecure_issuers)"
    )]
    Insecure,
    /// The URL or its name leads to an address that is not reached.
    #[error("the host is not reached; grant its network if that is meant")]
    Address(#[from] RefusedAddress),
    /// The name has no address.
    #[error("the host name does not resolve")]
    Resolve(#[source] std::io::Error),
    /// No connection, or no TLS.
    #[error("no connection could be made")]
    Connect(#[source] reqwest::Error),
    /// It took too long.
    #[error("there was no whole answer within {} ms", after.as_millis())]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// Redirected too often.
    #[error("the endpoint redirects more than {MAX_REDIRECTS} times")]
    TooManyRedirects,
    /// A redirect to where this client does not go.
    #[error("the endpoint redirects to where this server does not go")]
    Redirect(#[source] Box<FetchError>),
    /// The request cannot be sent.
    #[error("the request {0}")]
    Request(&'static str),
    /// The host is not one of those that were granted by name.
    #[error("the host is not granted")]
    NotGranted,
    /// Another status than 200.
    #[error("the endpoint answered with status {0}; 200 is needed")]
    Status(u16),
    /// The answer is compressed although that was not asked for.
    #[error("the answer is encoded; only plain answers are read")]
    Encoded,
    /// The answer is too large.
    #[error("the answer is larger than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    /// The connection broke in the middle of the answer.
    #[error("the answer broke off")]
    Broken(#[source] reqwest::Error),
    /// The answer is no JSON object.
    #[error("the answer ({content_type}) is not the expected JSON: {cause}")]
    NotJson {
        /// What the endpoint calls it.
        content_type: String,
        /// What is wrong.
        cause: StrictJsonError,
    },
}

/// A fetched JSON object.
#[derive(Debug)]
pub struct Fetched {
    /// Its members.
    pub object: Map<String, Value>,
    /// The bytes it was read from.
    pub body: Vec<u8>,
    /// How long it is fresh, when the endpoint says so (`Cache-Control: max-age` less `Age`).
    pub max_age: Option<Duration>,
}

/// Gets JSON objects over HTTPS within fixed limits.
#[derive(Debug, Clone)]
pub struct Fetcher {
    /// For `https://`: public and granted addresses.
    secure: (Client, Arc<AddressRule>),
    /// For `http://`: loopback alone.
    plain: Option<(Client, Arc<AddressRule>)>,
    timeout: Duration,
}

impl Fetcher {
    /// Sets the client up.
    ///
    /// # Errors
    /// When TLS cannot be set up on this machine.
    pub fn new(settings: FetchSettings) -> Result<Self, FetchSetupError> {
        let FetchSettings { allow_insecure_issuers, granted_networks, timeout } = settings;
        let client = |rule: AddressRule| {
            let rule = Arc::new(rule);
            let client = Client::builder()
                .dns_resolver(CheckingResolver(Arc::clone(&rule)))
                .redirect(redirect::Policy::none())
                .retry(reqwest::retry::never())
                .no_proxy()
                .referer(false)
                .connect_timeout(timeout.min(MAX_CONNECT_TIME))
                .timeout(timeout)
                // Fetches are rare; a kept connection would only outlive the check of its address.
                .pool_max_idle_per_host(0)
                .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(FetchSetupError)?;
            Ok((client, rule))
        };
        let secure = client(AddressRule::public(granted_networks, allow_insecure_issuers))?;
        let plain = allow_insecure_issuers.then(|| client(AddressRule::only_loopback())).transpose()?;
        Ok(Self { secure, plain, timeout })
    }

    /// Gets the JSON object at this URL. At most two redirects are followed, never from `https` to `http`.
    ///
    /// # Errors
    /// When the URL is not allowed, or no JSON object comes within the limits of time and size. A member
    /// that is named twice makes the answer no JSON object.
    pub async fn get_json(&self, url: &str) -> Result<Fetched, FetchError> {
        let after = self.timeout;
        tokio::time::timeout(after, self.follow(url)).await.unwrap_or(Err(FetchError::Timeout { after }))
    }

    async fn follow(&self, url: &str) -> Result<Fetched, FetchError> {
        let mut url = parse_url(url)?;
        let mut redirects = 0;
        loop {
            let step = match self.request(&url).await {
                Err(error) if redirects > 0 && error.is_refusal() => {
                    return Err(FetchError::Redirect(error.into()));
                }
                other => other?,
            };
            if !step.status().is_redirection() {
                return read(step, self.timeout).await;
            }
            redirects += 1;
            if redirects > MAX_REDIRECTS {
                return Err(FetchError::TooManyRedirects);
            }
            url = next_url(&url, step.headers()).map_err(|error| FetchError::Redirect(error.into()))?;
        }
    }

    async fn request(&self, url: &Url) -> Result<Response, FetchError> {
        let (client, _) = self.client_for(url)?;
        let request = client.get(url.clone()).header(ACCEPT, "application/json");
        request.send().await.map_err(|error| self.describe(error))
    }

    /// The client for this URL, after the address that may stand in it was checked.
    pub(super) fn client_for(&self, url: &Url) -> Result<&(Client, Arc<AddressRule>), FetchError> {
        let chosen = match url.scheme() {
            "https" => &self.secure,
            _ => self.plain.as_ref().ok_or(FetchError::Insecure)?,
        };
        let (_, rule) = chosen;
        // A resolver is not asked for an address that stands in the URL.
        match url.host() {
            Some(Host::Ipv4(ip)) => rule.check(IpAddr::V4(ip))?,
            Some(Host::Ipv6(ip)) => rule.check(IpAddr::V6(ip))?,
            Some(Host::Domain(_)) => {}
            None => return Err(FetchError::Url("has no host")),
        }
        Ok(chosen)
    }

    pub(super) fn describe(&self, error: reqwest::Error) -> FetchError {
        let error = error.without_url();
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(refused) = inner.downcast_ref::<RefusedAddress>() {
                return FetchError::Address(*refused);
            }
            if let Some(Unresolved(kind)) = inner.downcast_ref::<Unresolved>() {
                return FetchError::Resolve((*kind).into());
            }
            cause = inner.source();
        }
        if error.is_timeout() { FetchError::Timeout { after: self.timeout } } else { FetchError::Connect(error) }
    }
}

impl FetchError {
    /// The rules of this client refused, not the network.
    const fn is_refusal(&self) -> bool {
        matches!(self, Self::Url(_) | Self::Insecure | Self::Address(_))
    }
}

pub(super) fn parse_url(text: &str) -> Result<Url, FetchError> {
    if text.len() > MAX_URL_BYTES {
        return Err(FetchError::Url("is longer than 2048 bytes"));
    }
    check_parts(Url::parse(text).map_err(|_| FetchError::Url("is not an absolute URL"))?)
}

pub(super) fn next_url(from: &Url, headers: &HeaderMap) -> Result<Url, FetchError> {
    let location = text(headers, &LOCATION).filter(|l| l.len() <= MAX_URL_BYTES);
    let location = location.ok_or(FetchError::Url("is absent or too long"))?;
    let to = check_parts(from.join(location).map_err(|_| FetchError::Url("cannot be read"))?)?;
    if from.scheme() == "https" && to.scheme() != "https" { Err(FetchError::Insecure) } else { Ok(to) }
}

fn check_parts(mut url: Url) -> Result<Url, FetchError> {
    if !matches!(url.scheme(), "https" | "http") {
        return Err(FetchError::Url("does not begin with https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(FetchError::Url("holds a user name or password; remove it"));
    }
    url.set_fragment(None);
    Ok(url)
}

async fn read(mut response: Response, timeout: Duration) -> Result<Fetched, FetchError> {
    if response.status().as_u16() != 200 {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let encoded = response.headers().get_all(CONTENT_ENCODING).iter().any(|e| e.as_bytes() != b"identity");
    if encoded {
        return Err(FetchError::Encoded);
    }
    let too_large = |n: usize| n > MAX_BODY_BYTES;
    if response.content_length().is_some_and(|n| too_large(usize::try_from(n).unwrap_or(usize::MAX))) {
        return Err(FetchError::TooLarge);
    }
    let max_age = freshness(text(response.headers(), &CACHE_CONTROL), text(response.headers(), &AGE));
    let content_type = text(response.headers(), &CONTENT_TYPE).unwrap_or("of no type");
    let content_type: String = content_type.chars().take(60).collect();
    let mut body = Vec::new();
    let broken = |error: reqwest::Error| match error.is_timeout() {
        true => FetchError::Timeout { after: timeout },
        false => FetchError::Broken(error.without_url()),
    };
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if too_large(body.len() + chunk.len()) {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    let object = parse_object(&body).map_err(|cause| FetchError::NotJson { content_type, cause })?;
    Ok(Fetched { object, body, max_age })
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// Resolves a name and refuses it when any of its addresses is refused.
struct CheckingResolver(Arc<AddressRule>);

#[derive(Debug, thiserror::Error)]
#[error("the host name does not resolve")]
struct Unresolved(std::io::ErrorKind);

impl Resolve for CheckingResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rule = Arc::clone(&self.0);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|e| Unresolved(e.kind()))?;
            let found: Vec<SocketAddr> = found.collect();
            for address in &found {
                rule.check(address.ip())?;
            }
            if found.is_empty() {
                return Err(Unresolved(std::io::ErrorKind::NotFound).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
