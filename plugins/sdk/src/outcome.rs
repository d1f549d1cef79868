//! How an operation ended, without status numbers.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::Object;

/// The answer of an operation. "Cannot say", "out of reach" and "refused" are three different answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The answer.
    Ok(Object),
    /// Nothing to say about this one; not a failure.
    Declined,
    /// Verified bad, with a code of `a-z 0-9 _`, at most 48. Only `enrich` may refuse an identity.
    Reject(String),
    /// Something that this plugin needs is out of reach. The message goes to the host's log.
    Unavailable(String),
    /// No time left.
    Timeout,
    /// The input is not usable. The message goes to the host's log.
    Invalid(String),
    /// Bytes as they are, checked by nobody on this side; made for testing the host.
    #[doc(hidden)]
    Bytes(Vec<u8>),
}

impl Outcome {
    /// `Ok` with anything that serialises as a JSON object; anything else is `Invalid`.
    pub fn json(value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(Value::Object(object)) => Self::Ok(object),
            Ok(_) => Self::Invalid("the answer is not a JSON object".to_owned()),
            Err(error) => Self::Invalid(format!("the answer is not JSON: {error}")),
        }
    }
}

impl<T: Serialize> From<Result<T, PluginError>> for Outcome {
    fn from(result: Result<T, PluginError>) -> Self {
        match result {
            Ok(value) => Self::json(value),
            Err(error) => Self::Unavailable(error.message),
        }
    }
}

/// The answer of `provider.locate_keys`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Keys {
    /// A JWK Set (RFC 7517).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks: Option<Value>,
    /// Public keys or certificates in PEM by key id.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub pem: std::collections::BTreeMap<String, String>,
    /// How long they may be used, in seconds. The host keeps them for 1 minute at least, a day at most.
    pub ttl_s: u64,
}

/// The answer of `provider.verify`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verified {
    /// The algorithm that the signature was checked with, such as `HS256`. The host needs it for `at_hash`.
    pub alg: String,
    /// What the signature vouches for: `iss`, `sub`, `aud`, `exp` and `iat` at least.
    pub claims: Object,
}

/// Why a plugin could not do its work. The message goes to the host's log: no secrets, no personal data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginError {
    message: String,
}

impl PluginError {
    /// With this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PluginError {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_objects_are_answers() {
        assert!(matches!(Outcome::json(json!({"a": 1})), Outcome::Ok(_)));
        for value in [json!(null), json!([1]), json!("text"), json!(1)] {
            assert!(matches!(Outcome::json(value), Outcome::Invalid(_)));
        }
    }

    #[test]
    fn an_error_means_out_of_reach_and_never_refused() {
        let failed: Result<Value, PluginError> = Err(PluginError::new("the list could not be read"));
        assert_eq!(Outcome::from(failed), Outcome::Unavailable("the list could not be read".to_owned()));
    }
}
