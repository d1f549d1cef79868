//! Step 1, the token's shape: a compact JWS (RFC 7515 section 7.1) that nobody has verified yet.
//!
//! Nothing here looks at a key. Everything that a header could use to steer a verifier is refused
//! before one is touched (RFC 8725 section 3).

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};

use super::json::{StrictJsonError, parse_object};
use super::provider::SignatureAlgorithm;

/// The greatest size of an ID token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Header members that would let a token choose its own key or its own rules.
const REFUSED_HEADERS: [&str; 8] = ["crit", "b64", "zip", "cty", "jwk", "jku", "x5u", "x5c"];

/// Why a text is not an ID token, whoever signed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenShapeError {
    /// It is too long.
    #[error("the ID token is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// It is an encrypted token (JWE, five parts).
    #[error("the ID token is encrypted; only signed tokens of three parts are accepted")]
    Encrypted,
    /// It has another number of parts.
    #[error("an ID token has three parts divided by dots; this one has {parts}")]
    Parts {
        /// How many it has.
        parts: usize,
    },
    /// A part is not base64url without padding.
    #[error("the {part} of the ID token is not base64url without padding")]
    Encoding {
        /// Which part.
        part: &'static str,
    },
    /// A part is not a JSON object, or names a member twice.
    #[error("the {part} of the ID token cannot be read: {cause}")]
    Json {
        /// Which part.
        part: &'static str,
        /// Why.
        cause: StrictJsonError,
    },
    /// The header has a member that is not accepted.
    #[error("the ID token's header has \"{member}\", which is not accepted")]
    RefusedHeader {
        /// Its name.
        member: &'static str,
    },
    /// `alg` is absent, `none`, symmetric or not known.
    #[error("the ID token's alg is not one of the asymmetric algorithms that are accepted")]
    Algorithm,
    /// `typ` tells that this is another kind of token.
    #[error("the ID token's typ says that it is another kind of token")]
    Type,
    /// `kid` is no text or too long.
    #[error("the ID token's kid is not a text of at most 256 bytes")]
    KeyId,
}

impl TokenShapeError {
    /// Whether the header's members are at fault, and not the form of the token.
    #[must_use]
    pub const fn is_of_header(&self) -> bool {
        matches!(self, Self::RefusedHeader { .. } | Self::Algorithm | Self::Type | Self::KeyId)
    }
}

/// A compact JWS of the right shape. Nothing in it may be believed.
pub struct UnverifiedToken {
    raw: Arc<str>,
    signing_input_len: usize,
    algorithm: SignatureAlgorithm,
    kid: Option<String>,
    claims: Map<String, Value>,
}

impl std::fmt::Debug for UnverifiedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnverifiedToken").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl UnverifiedToken {
    /// Checks size and shape.
    ///
    /// # Errors
    /// The first thing that is wrong; nothing of the content is repeated.
    pub fn parse(raw: &str) -> Result<Self, TokenShapeError> {
        Self::parse_typed(raw, &["JWT"], false)
    }

    /// The same for a logout token (OpenID Connect Back-Channel Logout 1.0 section 2.4), whose type is
    /// recommended and not required.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_logout(raw: &str) -> Result<Self, TokenShapeError> {
        Self::parse_typed(raw, &["logout+jwt", "application/logout+jwt", "JWT"], false)
    }

    /// The same for a security event token (RFC 8417 section 2.3), whose type must be there.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_security_event(raw: &str) -> Result<Self, TokenShapeError> {
        Self::parse_typed(raw, &["secevent+jwt", "application/secevent+jwt"], true)
    }

    fn parse_typed(raw: &str, types: &[&str], type_needed: bool) -> Result<Self, TokenShapeError> {
        if raw.len() > MAX_TOKEN_BYTES {
            return Err(TokenShapeError::TooLong);
        }
        let parts: Vec<&str> = raw.split('.').collect();
        let [header, payload, signature] = parts[..] else {
            return Err(match parts.len() {
                5 => TokenShapeError::Encrypted,
                parts => TokenShapeError::Parts { parts },
            });
        };
        let header = decode_object(header, "header")?;
        if let Some(member) = REFUSED_HEADERS.into_iter().find(|m| header.contains_key(*m)) {
            return Err(TokenShapeError::RefusedHeader { member });
        }
        let algorithm = header
            .get("alg")
            .and_then(Value::as_str)
            .and_then(SignatureAlgorithm::find)
            .ok_or(TokenShapeError::Algorithm)?;
        match header.get("typ") {
            None if !type_needed => {}
            Some(Value::String(typ)) if types.iter().any(|t| typ.eq_ignore_ascii_case(t)) => {}
            _ => return Err(TokenShapeError::Type),
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) if kid.len() <= 256 => Some(kid.clone()),
            Some(_) => return Err(TokenShapeError::KeyId),
        };
        let claims = decode_object(payload, "payload")?;
        if signature.is_empty() || BASE64URL_NOPAD.decode(signature.as_bytes()).is_err() {
            return Err(TokenShapeError::Encoding { part: "signature" });
        }
        let signing_input_len = raw.len() - signature.len() - 1;
        Ok(Self { raw: raw.into(), signing_input_len, algorithm, kid, claims })
    }

    /// `alg` of the header.
    #[must_use]
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// `kid` of the header.
    #[must_use]
    pub fn unverified_kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// `iss`, when it is a text.
    #[must_use]
    pub fn unverified_issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// Takes one slash off the end of `iss`. What the signature covers stays as it came.
    pub(super) fn strip_issuer_slash(&mut self) {
        let stripped = self.unverified_issuer().and_then(|issuer| issuer.strip_suffix('/')).map(Value::from);
        if let Some(issuer) = stripped {
            self.claims.insert("iss".to_owned(), issuer);
        }
    }

    /// `aud`, a text or a list of texts; empty when it is anything else.
    #[must_use]
    pub fn unverified_audiences(&self) -> Vec<&str> {
        audiences(&self.claims).unwrap_or_default()
    }

    /// What the signature covers (RFC 7515 section 5.1).
    pub(super) fn signing_input(&self) -> &[u8] {
        &self.raw.as_bytes()[..self.signing_input_len]
    }

    /// The claims; to be believed only when the signature was checked.
    #[must_use]
    pub(super) fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// The signature, still in base64url.
    pub(super) fn signature(&self) -> &str {
        &self.raw[self.signing_input_len + 1..]
    }

    pub(super) fn into_claims(self) -> Map<String, Value> {
        self.claims
    }
}

/// `aud` as RFC 7519 section 4.1.3 allows it: a text, or a list of texts with at least one.
pub(super) fn audiences(claims: &Map<String, Value>) -> Option<Vec<&str>> {
    match claims.get("aud")? {
        Value::String(one) => Some(vec![one]),
        Value::Array(many) if !many.is_empty() => many.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

fn decode_object(part: &str, name: &'static str) -> Result<Map<String, Value>, TokenShapeError> {
    let bytes = BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| TokenShapeError::Encoding { part: name })?;
    parse_object(&bytes).map_err(|cause| TokenShapeError::Json { part: name, cause })
}
