//! The development issuer: one RSA key, made at start, and ID tokens on demand.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Map, Value, json};
use url::{Host, Url};

use crate::clock::Clock;
use crate::secret::{Entropy, SystemEntropy, sha256};

/// `aud` of a token that names no other: the client id of the provider `dev`.
pub const DEFAULT_AUDIENCE: &str = "dev-client";

const LIFETIME: Duration = Duration::from_secs(600);

/// Why the issuer cannot do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DevError {
    /// The issuer is not on loopback.
    #[error(
        "the development issuer needs an http:// URL on a loopback address, such as http://127.0.0.1:8080/dev/issuer"
    )]
    NotLoopback,
    /// A key could not be made.
    #[error("the development issuer's key could not be made")]
    NoKey,
    /// A signature could not be made.
    #[error("the token could not be signed")]
    NotSigned,
    /// The claims make no token.
    #[error("{0}")]
    Claims(&'static str),
}

/// What a development token says.
#[derive(Debug, Clone, Default)]
pub struct DevClaims {
    /// The user at the provider; 1 to 255 bytes.
    pub sub: String,
    /// An address; counts as verified unless `extra` says otherwise.
    pub email: Option<String>,
    /// A name for people.
    pub name: Option<String>,
    /// Further claims. They replace every other one, `iss`, `aud`, `iat` and `exp` too, so that refusals can
    /// be tried; a `null` removes the claim.
    pub extra: Map<String, Value>,
}

/// An OpenID provider for development. Whoever reaches it can be anybody.
pub struct DevIssuer {
    issuer: String,
    clock: Arc<dyn Clock>,
    pair: RsaKeyPair,
    random: SystemRandom,
    encoded_header: String,
    jwks: Value,
}

impl std::fmt::Debug for DevIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevIssuer").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl DevIssuer {
    /// Makes an RS256 key for the issuer at this URL, e.g. `http://127.0.0.1:8080/dev/issuer`.
    ///
    /// # Errors
    /// When the URL is not on loopback, or the key cannot be made.
    pub fn new(issuer: String, clock: Arc<dyn Clock>) -> Result<Self, DevError> {
        check_loopback(&issuer)?;
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| DevError::NoKey)?;
        let public = pair.public_key();
        let n = BASE64URL_NOPAD.encode(public.modulus().big_endian_without_leading_zero());
        let e = BASE64URL_NOPAD.encode(public.exponent().big_endian_without_leading_zero());
        let fingerprint = HEXLOWER.encode(&sha256(n.as_bytes()));
        let kid = format!("dev-{}", fingerprint.get(..16).unwrap_or(&fingerprint));
        let header = json!({"alg": "RS256", "kid": kid, "typ": "JWT"});
        let encoded_header = BASE64URL_NOPAD.encode(header.to_string().as_bytes());
        let jwks = json!({"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": e}]});
        Ok(Self { issuer, clock, pair, random: SystemRandom::new(), encoded_header, jwks })
    }

    /// Signs an ID token: issued now, good for ten minutes, with a random `jti`.
    ///
    /// # Errors
    /// When `sub` is empty or too long.
    pub fn mint(&self, claims: DevClaims) -> Result<String, DevError> {
        let DevClaims { sub, email, name, extra } = claims;
        if sub.is_empty() || sub.len() > 255 {
            return Err(DevError::Claims("a token needs a \"sub\" of 1 to 255 bytes"));
        }
        let now = self.clock.now();
        let mut jti = [0; 16];
        SystemEntropy.fill(&mut jti);
        let mut all = Map::new();
        let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
        put("iss", self.issuer.as_str().into());
        put("sub", sub.into());
        put("aud", DEFAULT_AUDIENCE.into());
        put("iat", now.as_secs().into());
        put("exp", now.plus(LIFETIME).as_secs().into());
        put("jti", BASE64URL_NOPAD.encode(&jti).into());
        if let Some(email) = email {
            put("email", email.into());
            put("email_verified", true.into());
        }
        if let Some(name) = name {
            put("name", name.into());
        }
        for (name, value) in extra {
            match value {
                Value::Null => drop(all.remove(&name)),
                value => drop(all.insert(name, value)),
            }
        }
        self.sign(&Value::Object(all))
    }

    fn sign(&self, claims: &Value) -> Result<String, DevError> {
        let payload = BASE64URL_NOPAD.encode(claims.to_string().as_bytes());
        let message = format!("{}.{payload}", self.encoded_header);
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &self.random, message.as_bytes(), &mut signature)
            .map_err(|_| DevError::NotSigned)?;
        Ok(format!("{message}.{}", BASE64URL_NOPAD.encode(&signature)))
    }

    /// The discovery document: what this issuer really has, and no endpoint that it lacks.
    pub(super) fn discovery(&self) -> Value {
        let issuer = self.issuer.strip_suffix('/').unwrap_or(&self.issuer);
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{issuer}/jwks.json"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        })
    }

    pub(super) fn jwks(&self) -> &Value {
        &self.jwks
    }
}

fn check_loopback(issuer: &str) -> Result<(), DevError> {
    let url = Url::parse(issuer).map_err(|_| DevError::NotLoopback)?;
    if url.scheme() == "http" && is_loopback(url.host()) { Ok(()) } else { Err(DevError::NotLoopback) }
}

/// Loopback by address, or the name `localhost`.
pub(super) fn is_loopback(host: Option<Host<&str>>) -> bool {
    match host {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
