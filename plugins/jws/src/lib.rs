//! What plugins share that verify tokens themselves (`provider.verify`): [`Jws`] splits a compact JWS (RFC 7515
//! section 7.1) and checks its signature, [`KeyStore`] holds keys that were fetched.
//!
//! The plugin pins the algorithm. Nothing here takes it from the token, and each kind of key fits one algorithm, so
//! a key cannot be used for another (RFC 8725 section 3.1). Claims are for the host to check.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use countersign_plugin_sdk::serde_json::{self, Value};
use countersign_plugin_sdk::{Object, PluginError};
use data_encoding::{BASE64URL, BASE64URL_NOPAD};

mod keys;

pub use keys::{KeyStore, Lookup};

/// A key, with the one algorithm that it is for.
pub enum Key {
    /// HMAC with SHA-256 (RFC 7518 section 3.2).
    Hs256(Box<hmac::Key>),
    /// ECDSA on P-256 with SHA-256: SubjectPublicKeyInfo in DER, or an uncompressed point.
    Es256(Vec<u8>),
    /// ECDSA on P-384 with SHA-384: the same.
    Es384(Vec<u8>),
}

impl Key {
    /// From a secret.
    ///
    /// # Errors
    /// When it is shorter than the hash: 32 bytes (RFC 7518 section 3.2).
    pub fn hs256(secret: &[u8]) -> Result<Self, PluginError> {
        if secret.len() < 32 {
            return Err(PluginError::new("the secret has fewer than 32 bytes"));
        }
        Ok(Self::Hs256(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret))))
    }

    /// From the PEM text of a `PUBLIC KEY` (RFC 7468 section 13), for ES256 or ES384. Whether the curve is the
    /// algorithm's shows at the first signature, which is then bad.
    #[must_use]
    pub fn ecdsa_pem(algorithm: &str, text: &str) -> Option<Self> {
        let block = pem::parse(text).ok().filter(|b| b.tag() == "PUBLIC KEY")?;
        Self::ecdsa(algorithm, block.into_contents())
    }

    /// From a JWK (RFC 7518 section 6.2) for ES256. `None`: it is of another kind.
    #[must_use]
    pub fn es256_jwk(jwk: &Value) -> Option<Self> {
        let is = |name: &str, value: &str| jwk.get(name).and_then(Value::as_str) == Some(value);
        let fits = |name: &str, value: &str| jwk.get(name).is_none() || is(name, value);
        if !(is("kty", "EC") && is("crv", "P-256") && fits("use", "sig") && fits("alg", "ES256")) {
            return None;
        }
        let number = |name: &str| {
            let bytes = BASE64URL_NOPAD.decode(jwk.get(name)?.as_str()?.as_bytes()).ok()?;
            (bytes.len() == 32).then_some(bytes)
        };
        Some(Self::Es256([vec![4], number("x")?, number("y")?].concat()))
    }

    fn ecdsa(algorithm: &str, bytes: Vec<u8>) -> Option<Self> {
        match algorithm {
            "ES256" => Some(Self::Es256(bytes)),
            "ES384" => Some(Self::Es384(bytes)),
            _ => None,
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            // In constant time.
            Self::Hs256(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Es256(key) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature).is_ok()
            }
            Self::Es384(key) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key).verify(message, signature).is_ok()
            }
        }
    }
}

/// How the parts of a token are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Without `=`, as RFC 7515 section 2 demands.
    Forbidden,
    /// With `=` or without. The signature covers the text as it is.
    Allowed,
}

/// Why a token gives no claims: the code of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwsFault {
    /// The signature is not the key's.
    BadSignature,
    /// The payload is no JSON object.
    Malformed,
}

impl JwsFault {
    /// The code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::BadSignature => "bad_signature",
            Self::Malformed => "malformed",
        }
    }
}

/// A token that was split and nothing more: its header is not to be believed before [`verify`](Self::verify).
pub struct Jws<'a> {
    header: Object,
    signed: &'a str,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// `None` when the text is none.
    #[must_use]
    pub fn split(token: &'a str, padding: Padding) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let decode = |part: &str| match padding {
            Padding::Allowed if part.ends_with('=') => BASE64URL.decode(part.as_bytes()).ok(),
            _ => BASE64URL_NOPAD.decode(part.as_bytes()).ok(),
        };
        let header = serde_json::from_slice(&decode(header)?).ok()?;
        Some(Self { header, signed, payload: decode(payload)?, signature: decode(signature)? })
    }

    /// A text of the header.
    #[must_use]
    pub fn unverified_header(&self, name: &str) -> Option<&str> {
        self.header.get(name).and_then(Value::as_str)
    }

    /// Whether the header demands extensions (RFC 7515 section 4.1.11). None is known here.
    #[must_use]
    pub fn is_critical(&self) -> bool {
        self.header.contains_key("crit")
    }

    /// Checks the signature; gives header and claims, both covered by it.
    ///
    /// # Errors
    /// When it is not genuine. Nothing else of the token is to be used then.
    pub fn verify(&self, key: &Key) -> Result<(Object, Object), JwsFault> {
        if !key.verifies(self.signed.as_bytes(), &self.signature) {
            return Err(JwsFault::BadSignature);
        }
        let claims = serde_json::from_slice(&self.payload).map_err(|_| JwsFault::Malformed)?;
        Ok((self.header.clone(), claims))
    }
}

#[cfg(test)]
mod tests;
