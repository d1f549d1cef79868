//! Throw-away keys and tokens of any kind.

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RsaEncoding, RsaKeyPair,
};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value, json};

use crate::clock::UnixTime;
use crate::secret::Entropy;
use crate::signin::key::{KeySet, VerificationKey};
use crate::signin::nonce::NonceIssuer;
use crate::signin::ports::{KeyError, KeySource};
use crate::signin::provider::{IssuerRule, NoncePolicy, Provider, SignatureAlgorithm};

/// The key that stands in for the provider's.
pub(super) const KID: &str = "audit-1";
/// A published key of another type.
pub(super) const OTHER_KID: &str = "audit-2";

pub(super) enum Signer {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

impl Signer {
    pub(super) fn generate(algorithm: SignatureAlgorithm) -> Option<Self> {
        use SignatureAlgorithm as A;
        Some(match algorithm {
            A::Es256 => Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?),
            A::Es384 => Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).ok()?),
            A::EdDsa => Self::Ed25519(Ed25519KeyPair::generate().ok()?),
            _ => Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).ok()?),
        })
    }

    /// The public half as the bytes that careless verifiers took for an HMAC secret.
    pub(super) fn public_bytes(&self) -> Vec<u8> {
        match self {
            Self::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Self::P256(pair) | Self::P384(pair) => pair.public_key().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    pub(super) fn jwk(&self, kid: &str) -> Value {
        let point = |pair: &EcdsaKeyPair, curve: &str| {
            let bytes = pair.public_key().as_ref().get(1..).unwrap_or_default().to_vec();
            let (x, y) = bytes.split_at(bytes.len() / 2);
            json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)})
        };
        let mut jwk = match self {
            Self::Rsa(pair) => {
                let public = pair.public_key();
                json!({
                    "kty": "RSA",
                    "n": b64(public.modulus().big_endian_without_leading_zero()),
                    "e": b64(public.exponent().big_endian_without_leading_zero()),
                })
            }
            Self::P256(pair) => point(pair, "P-256"),
            Self::P384(pair) => point(pair, "P-384"),
            Self::Ed25519(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key())}),
        };
        jwk["kid"] = kid.into();
        jwk["use"] = "sig".into();
        jwk
    }

    fn sign(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Vec<u8> {
        use SignatureAlgorithm as A;
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let padding: &'static dyn RsaEncoding = match algorithm {
                    A::Rs384 => &signature::RSA_PKCS1_SHA384,
                    A::Rs512 => &signature::RSA_PKCS1_SHA512,
                    A::Ps256 => &signature::RSA_PSS_SHA256,
                    A::Ps384 => &signature::RSA_PSS_SHA384,
                    A::Ps512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut out = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(padding, &random, message, &mut out);
                if signed.is_ok() { out } else { Vec::new() }
            }
            Self::P256(pair) | Self::P384(pair) => {
                pair.sign(&random, message).map(|s| s.as_ref().to_vec()).unwrap_or_default()
            }
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// The provider under attack, with the keys that stand in for it.
pub(super) struct Forge<'a> {
    pub provider: &'a Arc<Provider>,
    pub now: UnixTime,
    pub algorithm: SignatureAlgorithm,
    pub genuine: Signer,
    /// Of a type that the pinned algorithm does not fit.
    pub other: Signer,
    pub other_algorithm: SignatureAlgorithm,
    /// Nobody publishes it.
    pub foreign: Signer,
    /// What the request brings.
    pub nonce: Option<String>,
    serial: String,
}

impl<'a> Forge<'a> {
    pub(super) fn new(
        provider: &'a Arc<Provider>,
        now: UnixTime,
        nonces: &NonceIssuer,
        entropy: &dyn Entropy,
    ) -> Option<Self> {
        let algorithm = *provider.algorithms.first()?;
        let other_algorithm = match algorithm {
            SignatureAlgorithm::Es256 => SignatureAlgorithm::EdDsa,
            _ => SignatureAlgorithm::Es256,
        };
        let nonce = match provider.nonce {
            NoncePolicy::Forbidden => None,
            NoncePolicy::ServerIssued => Some(nonces.issue(&provider.tenant, now, entropy)),
            NoncePolicy::Optional | NoncePolicy::Required => Some("nonce-of-the-audit".to_owned()),
        };
        let mut serial = [0; 12];
        entropy.fill(&mut serial);
        Some(Self {
            provider,
            now,
            algorithm,
            genuine: Signer::generate(algorithm)?,
            other: Signer::generate(other_algorithm)?,
            other_algorithm,
            foreign: Signer::generate(algorithm)?,
            nonce,
            serial: b64(serial),
        })
    }

    /// The keys as the provider would publish them.
    pub(super) fn published(&self) -> Published {
        let set = json!({"keys": [self.genuine.jwk(KID), self.other.jwk(OTHER_KID)]});
        Published(KeySet::parse(set.to_string().as_bytes()).ok().map(|(set, _)| set))
    }

    /// `iss` and `tid` of a genuine token.
    pub(super) fn issuer(&self) -> (String, Option<String>) {
        match &self.provider.issuer {
            IssuerRule::Exact(issuers) => (issuers.first().cloned().unwrap_or_default(), None),
            IssuerRule::PerTenant { prefix, suffix, allowed_tenant_ids } => {
                let tid = allowed_tenant_ids.first().cloned().unwrap_or_default();
                (format!("{prefix}{tid}{suffix}"), Some(tid))
            }
        }
    }

    pub(super) fn seconds(&self, from_now: i64) -> Value {
        (self.now.as_secs() + from_now).into()
    }

    /// A token that passes every check.
    pub(super) fn token(&self) -> Forged<'_> {
        let (issuer, tid) = self.issuer();
        let mut claims = json!({
            "iss": issuer,
            "aud": self.provider.client_ids.first(),
            "sub": format!("audit-{}", self.serial),
            "iat": self.seconds(-1),
            "exp": self.seconds(300),
            "jti": format!("audit-{}", self.serial),
        });
        if let Some(tid) = tid {
            claims["tid"] = tid.into();
        }
        if let Some(nonce) = &self.nonce {
            claims["nonce"] = nonce.as_str().into();
        }
        let header = json!({"alg": self.algorithm.name(), "kid": KID, "typ": "JWT"});
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        Forged { forge: self, header: object(header), claims: object(claims), signer: &self.genuine, raw: None }
    }
}

/// A token in the making.
pub(super) struct Forged<'a> {
    pub forge: &'a Forge<'a>,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    signer: &'a Signer,
    raw: Option<(String, String)>,
}

impl<'a> Forged<'a> {
    pub(super) fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    pub(super) fn by(mut self, signer: &'a Signer) -> Self {
        self.signer = signer;
        self
    }

    /// With a member put once more before the others, as text.
    pub(super) fn twice_in_header(mut self, member: &str) -> Self {
        let header = Value::Object(self.header.clone()).to_string().replacen('{', &format!("{{{member},"), 1);
        self.raw = Some((header, Value::Object(self.claims.clone()).to_string()));
        self
    }

    pub(super) fn twice_in_claims(mut self, member: &str) -> Self {
        let claims = Value::Object(self.claims.clone()).to_string().replacen('{', &format!("{{{member},"), 1);
        self.raw = Some((Value::Object(self.header.clone()).to_string(), claims));
        self
    }

    /// What a signature covers.
    pub(super) fn input(&self) -> String {
        match &self.raw {
            Some((header, claims)) => format!("{}.{}", b64(header), b64(claims)),
            None => {
                let (header, claims) = (Value::Object(self.header.clone()), Value::Object(self.claims.clone()));
                format!("{}.{}", b64(header.to_string()), b64(claims.to_string()))
            }
        }
    }

    pub(super) fn signature(&self) -> Vec<u8> {
        let named = self.header.get("alg").and_then(Value::as_str).and_then(SignatureAlgorithm::find);
        self.signer.sign(named.unwrap_or(self.forge.algorithm), self.input().as_bytes())
    }

    pub(super) fn sign(&self) -> String {
        self.with_signature(&self.signature())
    }

    pub(super) fn with_signature(&self, signature: &[u8]) -> String {
        format!("{}.{}", self.input(), b64(signature))
    }
}

/// The published keys. What could not be parsed is no key.
pub(super) struct Published(Option<KeySet>);

#[async_trait]
impl KeySource for Published {
    async fn find_key(
        &self,
        _: &Provider,
        unverified_kid: Option<&str>,
        algorithm: SignatureAlgorithm,
    ) -> Result<Arc<VerificationKey>, KeyError> {
        self.0.as_ref().ok_or(KeyError::UnknownKey)?.choose(unverified_kid, algorithm)
    }
}
