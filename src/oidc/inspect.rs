//! A look at a provider's discovery document and keys, for whoever sets it up: fetched anew through the one
//! client, nothing kept.

use serde_json::{Map, Value};

use super::cache::KeyFetchError;
use super::client::{Fetched, Fetcher};
use super::discovery;
use super::schedule::time_to_live;
use crate::clock::UnixTime;
use crate::signin::key::{KeySet, UnusableKey};
use crate::signin::provider::{Provider, SignatureAlgorithm};

/// What was found.
#[derive(Debug)]
pub struct Inspection {
    /// The discovery document's URL and what came of it; `None` when `jwks_uri` is configured.
    pub discovery: Option<(String, Result<DocumentFound, KeyFetchError>)>,
    /// The key set; `None` when its URL could not be learnt.
    pub keys: Option<Result<KeysFound, KeyFetchError>>,
}

/// A discovery document whose issuer is the configured one.
#[derive(Debug)]
pub struct DocumentFound {
    /// Where it says the keys are.
    pub jwks_uri: String,
    /// `id_token_signing_alg_values_supported`.
    pub algorithms: Vec<String>,
    /// The time by the endpoint's clock, when it told it.
    pub date: Option<UnixTime>,
}

/// A key set.
#[derive(Debug)]
pub struct KeysFound {
    /// Where.
    pub uri: String,
    /// Each usable key: its `kid` and its kind with the size.
    pub usable: Vec<(Option<String>, String)>,
    /// The others, by position.
    pub left_out: Vec<(usize, UnusableKey)>,
    /// The pinned algorithms that no key fits.
    pub unserved: Vec<SignatureAlgorithm>,
    /// What the endpoint says of its freshness, and how long the server will keep it, in seconds.
    pub max_age_s: Option<u64>,
    /// How long the server will keep it.
    pub kept_s: u64,
    /// The time by the endpoint's clock, when it told it.
    pub date: Option<UnixTime>,
}

/// Looks.
pub async fn inspect(fetcher: &Fetcher, provider: &Provider) -> Inspection {
    let (discovery, uri) = match &provider.jwks_uri {
        Some(uri) => (None, Some(uri.clone())),
        None => {
            let url = discovery::document_url(&provider.issuer);
            let found = document(fetcher, &url, provider).await;
            let uri = found.as_ref().ok().map(|d| d.jwks_uri.clone());
            (Some((url, found)), uri)
        }
    };
    let keys = match uri {
        Some(uri) => Some(key_set(fetcher, uri, provider).await),
        None => None,
    };
    Inspection { discovery, keys }
}

async fn document(fetcher: &Fetcher, url: &str, provider: &Provider) -> Result<DocumentFound, KeyFetchError> {
    let fetched = fetcher.get_json(url).await.map_err(KeyFetchError::Discovery)?;
    let jwks_uri = discovery::read_keys_uri(&provider.issuer, &fetched.object)?;
    let listed = fetched.object.get("id_token_signing_alg_values_supported").and_then(Value::as_array);
    let algorithms = listed.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(DocumentFound { jwks_uri, algorithms, date: date(&fetched) })
}

async fn key_set(fetcher: &Fetcher, uri: String, provider: &Provider) -> Result<KeysFound, KeyFetchError> {
    let fetched = fetcher.get_json(&uri).await.map_err(KeyFetchError::Keys)?;
    let (set, left_out) = KeySet::parse(&fetched.body)?;
    let listed = fetched.object.get("keys").and_then(Value::as_array);
    let usable = listed
        .into_iter()
        .flatten()
        .enumerate()
        .filter(|(position, _)| !left_out.iter().any(|(out, _)| out == position))
        .filter_map(|(_, key)| key.as_object())
        .map(|key| (text(key, "kid").map(str::to_owned), kind(key)))
        .collect();
    let unserved = provider.algorithms.iter().copied().filter(|a| set.fitting(*a) == 0).collect();
    Ok(KeysFound {
        usable,
        left_out,
        unserved,
        max_age_s: fetched.max_age.map(|d| d.as_secs()),
        kept_s: time_to_live(fetched.max_age).as_secs(),
        date: date(&fetched),
        uri,
    })
}

fn text<'a>(key: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    key.get(name).and_then(Value::as_str)
}

fn kind(key: &Map<String, Value>) -> String {
    match (text(key, "kty"), text(key, "crv")) {
        (Some("RSA"), _) => {
            let modulus = text(key, "n").and_then(|n| data_encoding::BASE64URL_NOPAD.decode(n.as_bytes()).ok());
            let bits = modulus.map_or(0, |bytes| {
                let first = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
                (bytes.len() - first) * 8 - bytes.get(first).map_or(0, |b| b.leading_zeros() as usize)
            });
            format!("RSA {bits}")
        }
        (_, Some(curve)) => curve.to_owned(),
        (kty, None) => kty.unwrap_or("unknown").to_owned(),
    }
}

/// The header `Date` (RFC 9110 section 6.6.1).
fn date(fetched: &Fetched) -> Option<UnixTime> {
    let at = jiff::fmt::rfc2822::parse(fetched.date.as_deref()?).ok()?;
    Some(UnixTime::from_secs(at.timestamp().as_second()))
}
