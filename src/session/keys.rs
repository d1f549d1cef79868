//! The keys that sign local tokens: made once, sealed at rest, parsed once, published as a JWK Set.

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{rand, rsa};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::ports::{KeyRingError, SigningKeys, StoredSigningKey};
use crate::clock::UnixTime;
use crate::ids::KeyId;
use crate::secret::{Entropy, Secret};
use crate::vault::Vault;

/// What signing keys are sealed for; the context is the key's identifier.
pub const KEY_PURPOSE: &str = "signing key";

/// What signs local tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// RSA of 2048 bits, PKCS #1 v1.5 with SHA-256. About fifty times the work of Ed25519.
    Rs256,
}

impl SigningAlgorithm {
    /// The `alg` value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    /// The algorithm of an `alg` value.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        [Self::EdDsa, Self::Es256, Self::Rs256].into_iter().find(|a| a.name() == name)
    }

    const fn to_jsonwebtoken(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
        }
    }
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// One signing key, parsed.
pub struct SigningKey {
    id: KeyId,
    algorithm: SigningAlgorithm,
    pair: Pair,
    public: jsonwebtoken::DecodingKey,
    jwk: Value,
    /// The JOSE header of its access tokens, encoded.
    encoded_header: String,
    active_from: UnixTime,
}

/// A key that is not usable.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    /// The algorithm is not known.
    #[error("signing key {0} is for an algorithm that is not known")]
    Algorithm(KeyId),
    /// The master key differs, or the stored key was changed.
    #[error("signing key {0} does not open with this master key")]
    Sealed(KeyId),
    /// The document is no key.
    #[error("signing key {0} cannot be parsed")]
    Malformed(KeyId),
    /// A new one could not be made.
    #[error("a signing key could not be made")]
    NotMade,
}

impl SigningKey {
    fn open(stored: &StoredSigningKey, vault: &Vault) -> Result<Self, BadKey> {
        let id = stored.id;
        let algorithm = SigningAlgorithm::find(&stored.algorithm).ok_or(BadKey::Algorithm(id))?;
        let plain = vault.open(KEY_PURPOSE, id.as_bytes(), &stored.sealed).map_err(|_| BadKey::Sealed(id))?;
        Self::parse(stored, algorithm, plain.expose()).ok_or(BadKey::Malformed(id))
    }

    fn parse(stored: &StoredSigningKey, algorithm: SigningAlgorithm, pkcs8: &[u8]) -> Option<Self> {
        let (id, active_from) = (stored.id, stored.active_from);
        let b64 = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let (pair, mut jwk) = match algorithm {
            SigningAlgorithm::EdDsa => {
                let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
                let x = b64(pair.public_key().as_ref());
                (Pair::Ed25519(pair), json!({"kty": "OKP", "crv": "Ed25519", "x": x}))
            }
            SigningAlgorithm::Es256 => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok()?;
                let point = pair.public_key().as_ref().to_vec();
                let (x, y) = point.get(1..65)?.split_at(32);
                let jwk = json!({"kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y)});
                (Pair::P256(pair), jwk)
            }
            SigningAlgorithm::Rs256 => {
                let pair = RsaKeyPair::from_pkcs8(pkcs8).ok()?;
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                let jwk = json!({
                    "kty": "RSA",
                    "n": b64(n.big_endian_without_leading_zero()),
                    "e": b64(e.big_endian_without_leading_zero()),
                });
                (Pair::Rsa(pair), jwk)
            }
        };
        jwk["kid"] = id.to_string().into();
        jwk["use"] = "sig".into();
        jwk["alg"] = algorithm.name().into();
        let parsed: jsonwebtoken::jwk::Jwk = serde_json::from_value(jwk.clone()).ok()?;
        let public = jsonwebtoken::DecodingKey::from_jwk(&parsed).ok()?;
        let header = json!({"alg": algorithm.name(), "kid": id.to_string(), "typ": "at+jwt"});
        let encoded_header = b64(header.to_string().as_bytes());
        Some(Self { id, algorithm, pair, public, jwk, encoded_header, active_from })
    }

    fn signature(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = rand::SystemRandom::new();
        match &self.pair {
            Pair::Ed25519(pair) => Some(pair.sign(message).as_ref().to_vec()),
            Pair::P256(pair) => pair.sign(&random, message).ok().map(|s| s.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                Some(signature)
            }
        }
    }

    /// Its identifier.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn algorithm(&self) -> jsonwebtoken::Algorithm {
        self.algorithm.to_jsonwebtoken()
    }

    pub(super) fn public(&self) -> &jsonwebtoken::DecodingKey {
        &self.public
    }

    /// A compact JWS (RFC 7515 section 3.1) of the claims with `typ` `at+jwt`.
    pub(super) fn sign(&self, claims: &impl serde::Serialize) -> Option<String> {
        let mut token = String::with_capacity(900);
        token.push_str(&self.encoded_header);
        token.push('.');
        BASE64URL_NOPAD.encode_append(&serde_json::to_vec(claims).ok()?, &mut token);
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        BASE64URL_NOPAD.encode_append(&signature, &mut token);
        Some(token)
    }
}

/// A new key, sealed.
pub(super) fn make(
    algorithm: SigningAlgorithm,
    active_from: UnixTime,
    vault: &Vault,
    now: UnixTime,
    entropy: &dyn Entropy,
) -> Result<StoredSigningKey, BadKey> {
    let id = KeyId::generate(now, entropy);
    let document = generate(algorithm).ok_or(BadKey::NotMade)?;
    let sealed = vault.seal(KEY_PURPOSE, id.as_bytes(), &document);
    Ok(StoredSigningKey { id, algorithm: algorithm.name().to_owned(), sealed, created_at: now, active_from })
}

fn generate(algorithm: SigningAlgorithm) -> Option<Secret> {
    let random = rand::SystemRandom::new();
    let document = match algorithm {
        SigningAlgorithm::EdDsa => Ed25519KeyPair::generate_pkcs8(&random).ok()?.as_ref().to_vec(),
        SigningAlgorithm::Es256 => {
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).ok()?.as_ref().to_vec()
        }
        SigningAlgorithm::Rs256 => {
            let pair: rsa::KeyPair = RsaKeyPair::generate(KeySize::Rsa2048).ok()?;
            let der: Pkcs8V1Der<'_> = pair.as_der().ok()?;
            der.as_ref().to_vec()
        }
    };
    Some(Secret::new(document))
}

/// All keys of this server. The one that became active last signs; all are published and accepted. Read
/// without a lock, replaced whole.
pub struct KeyRing {
    /// By the time from which they sign.
    keys: ArcSwap<Vec<Arc<SigningKey>>>,
}

impl KeyRing {
    /// Loads the keys, and makes the first one when there is none.
    ///
    /// # Errors
    /// When the store does not answer, or a stored key does not open with this master key.
    pub async fn load(
        store: &dyn SigningKeys,
        vault: &Vault,
        algorithm: SigningAlgorithm,
        now: UnixTime,
        entropy: &dyn Entropy,
    ) -> Result<Self, KeyRingError> {
        let stored = |e: crate::signin::ports::StoreError| KeyRingError(Box::new(e));
        let mut rows = store.load().await.map_err(stored)?;
        if rows.is_empty() {
            let key = make(algorithm, now, vault, now, entropy).map_err(|e| KeyRingError(Box::new(e)))?;
            store.add_after(None, key).await.map_err(stored)?;
            rows = store.load().await.map_err(stored)?;
        }
        let ring = Self { keys: ArcSwap::default() };
        ring.replace(&rows, vault).map_err(|e| KeyRingError(Box::new(e)))?;
        Ok(ring)
    }

    /// How many keys the store holds, when all of them open with this master key. Makes none.
    ///
    /// # Errors
    /// When the store does not answer, or a stored key does not open.
    pub async fn inspect(store: &dyn SigningKeys, vault: &Vault) -> Result<usize, KeyRingError> {
        let rows = store.load().await.map_err(|e| KeyRingError(Box::new(e)))?;
        for row in &rows {
            SigningKey::open(row, vault).map_err(|e| KeyRingError(Box::new(e)))?;
        }
        Ok(rows.len())
    }

    /// Takes these in place of the present ones, which are not opened again. `false` when they are the same.
    pub(super) fn replace(&self, rows: &[StoredSigningKey], vault: &Vault) -> Result<bool, BadKey> {
        let present = self.keys.load();
        if present.iter().map(|k| (k.id, k.active_from)).eq(rows.iter().map(|r| (r.id, r.active_from))) {
            return Ok(false);
        }
        let known = |row: &StoredSigningKey| {
            present.iter().find(|k| k.id == row.id && k.active_from == row.active_from).cloned()
        };
        let open = |row: &StoredSigningKey| match known(row) {
            Some(key) => Ok(key),
            None => SigningKey::open(row, vault).map(Arc::new),
        };
        let keys = rows.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        self.keys.store(Arc::new(keys));
        Ok(true)
    }

    /// The key that signs now.
    #[must_use]
    pub fn active(&self, now: UnixTime) -> Option<Arc<SigningKey>> {
        let keys = self.keys.load();
        keys.iter().rev().find(|k| k.active_from <= now).or(keys.first()).cloned()
    }

    /// The key with this `kid`.
    #[must_use]
    pub fn find(&self, kid: &str) -> Option<Arc<SigningKey>> {
        let id: KeyId = kid.parse().ok()?;
        self.keys.load().iter().find(|k| k.id == id).cloned()
    }

    /// The public halves as a JWK Set (RFC 7517 section 5).
    #[must_use]
    pub fn jwk_set(&self) -> Value {
        json!({"keys": self.keys.load().iter().map(|k| k.jwk.clone()).collect::<Vec<_>>()})
    }
}
