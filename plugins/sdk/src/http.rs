//! Requests through the host.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::outcome::PluginError;

/// One request. The host allows `https://` to granted hosts only, follows at most two redirects among
/// them, sends no cookies, and gives up after 3 s or when the call has no time left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// `GET`, `POST`, `PUT`, `PATCH`, `DELETE`.
    pub method: String,
    /// An absolute `https://` URL.
    pub url: String,
    /// Header fields; `Host`, `Content-Length` and those of the connection are the host's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The body, text. At most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

impl HttpRequest {
    /// A `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self { method: "GET".to_owned(), url: url.into(), headers: BTreeMap::new(), body: None }
    }

    /// A `POST` of JSON.
    pub fn post_json(url: impl Into<String>, body: &Value) -> Self {
        let headers = BTreeMap::from([("content-type".to_owned(), "application/json".to_owned())]);
        Self { method: "POST".to_owned(), url: url.into(), headers, body: Some(body.to_string()) }
    }

    /// A `POST` of a form, already encoded.
    pub fn post_form(url: impl Into<String>, body: impl Into<String>) -> Self {
        let headers = BTreeMap::from([("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())]);
        Self { method: "POST".to_owned(), url: url.into(), headers, body: Some(body.into()) }
    }

    /// With a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.insert(name.to_ascii_lowercase(), value.into());
        self
    }
}

/// An answer, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpResponse {
    /// The status.
    pub status: u16,
    /// Header fields, names in lower case; of repeated ones the first.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body as text, at most 512 KiB; bytes that are not UTF-8 are refused by the host.
    #[serde(default)]
    pub body: String,
}

impl HttpResponse {
    /// The body as JSON, when the status is 2xx.
    ///
    /// # Errors
    /// When the status is another one, or the body is no such JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, PluginError> {
        if !(200..300).contains(&self.status) {
            return Err(PluginError::new(format!("the endpoint answered with status {}", self.status)));
        }
        serde_json::from_str(&self.body)
            .map_err(|e| PluginError::new(format!("the endpoint's answer does not fit: {:?}", e.classify())))
    }

    /// How long the answer is fresh, in seconds, by `Cache-Control: max-age` less `Age`.
    #[must_use]
    pub fn max_age_s(&self) -> Option<u64> {
        let directives = self.headers.get("cache-control")?;
        let max_age = directives.split(',').find_map(|d| d.trim().strip_prefix("max-age=")?.parse::<u64>().ok())?;
        let age = self.headers.get("age").and_then(|a| a.trim().parse().ok()).unwrap_or(0);
        Some(max_age.saturating_sub(age))
    }
}
