//! Provider keys: a JWK Set (RFC 7517) read once into keys that are ready to verify.
//!
//! A key that is malformed, symmetric, private, too small or meant for another use is left out; the
//! others stay usable. The algorithm of a token must fit the key's type, curve and `alg`.

use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::json::{StrictJsonError, parse_object};
use super::ports::KeyError;
use super::provider::SignatureAlgorithm;
use crate::secret::sha256;

/// The most keys that are read of one set.
const MAX_KEYS: usize = 100;

/// Stands in a key's `issuer` for the upstream tenant.
const TENANT_ID: &str = "{tenantid}";

/// Members of private and symmetric keys (RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1). One of them alone already
/// tells that the provider gave away what it should keep.
const NOT_PUBLIC: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The primes that tell a key of the generator with CVE-2017-15361 from others: 1 of 2^27 moduli fits by chance.
const FINGERPRINT_PRIMES: [u32; 17] = [11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyType {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl KeyType {
    const fn fits(self, algorithm: SignatureAlgorithm) -> bool {
        use SignatureAlgorithm as A;
        match self {
            Self::Rsa => matches!(algorithm, A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512),
            Self::P256 => matches!(algorithm, A::Es256),
            Self::P384 => matches!(algorithm, A::Es384),
            Self::Ed25519 => matches!(algorithm, A::EdDsa),
        }
    }
}

/// A public key of a provider, parsed and checked.
pub struct VerificationKey {
    kid: Option<String>,
    /// SHA-256 of its numbers: the same key twice is one key.
    numbers: [u8; 32],
    key_type: KeyType,
    only: Option<SignatureAlgorithm>,
    issuer: Option<Box<str>>,
    key: DecodingKey,
}

impl std::fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerificationKey")
            .field("kid", &self.kid)
            .field("key_type", &self.key_type)
            .field("only", &self.only)
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl VerificationKey {
    /// Whether tokens of this algorithm can be checked with it.
    #[must_use]
    pub fn fits(&self, algorithm: SignatureAlgorithm) -> bool {
        self.key_type.fits(algorithm) && self.only.is_none_or(|only| only == algorithm)
    }

    /// The same numbers for the same use under the same name.
    fn is_same(&self, other: &Self) -> bool {
        (self.numbers, self.key_type, self.only) == (other.numbers, other.key_type, other.only)
            && (&self.kid, &self.issuer) == (&other.kid, &other.issuer)
    }

    /// The issuer whose tokens alone it is for: the member `issuer` that Microsoft adds to its keys, with
    /// `{tenantid}` where the token's `tid` stands. `None`: every issuer of the provider.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Whether it is for tokens with these claims. A template is for none that lacks a `tid`.
    #[must_use]
    pub fn is_for(&self, issuer: &str, tid: Option<&str>) -> bool {
        match (self.issuer(), tid) {
            (None, _) => true,
            (Some(template), Some(tid)) => template.replace(TENANT_ID, tid) == issuer,
            (Some(exact), None) => exact == issuer && !exact.contains(TENANT_ID),
        }
    }

    /// Whether the signature is this key's over the message. `false` also when the algorithm does not fit.
    #[must_use]
    pub fn verifies(&self, algorithm: SignatureAlgorithm, message: &[u8], signature: &str) -> bool {
        self.fits(algorithm)
            && jsonwebtoken::crypto::verify(signature, message, &self.key, algorithm.to_jsonwebtoken())
                .unwrap_or(false)
    }

    /// Reads one public key (RFC 7517 section 4). Certificates (`x5c`, `x5t`, `x5u`) are passed over: the numbers
    /// of the key are what counts, and no chain is trusted for an issuer.
    ///
    /// # Errors
    /// When it is malformed, not public, too small, or for something else.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, UnusableKey> {
        let text = |name: &'static str| match jwk.get(name) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s.as_str())),
            Some(_) => Err(UnusableKey::Malformed(name)),
        };
        if NOT_PUBLIC.iter().any(|member| jwk.contains_key(*member)) {
            return Err(UnusableKey::NotPublic);
        }
        if text("use")?.is_some_and(|u| u != "sig") {
            return Err(UnusableKey::OtherUse);
        }
        if let Some(operations) = jwk.get("key_ops") {
            let operations = operations.as_array().ok_or(UnusableKey::Malformed("key_ops"))?;
            if (1..operations.len()).any(|i| operations[..i].contains(&operations[i])) {
                return Err(UnusableKey::Malformed("key_ops"));
            }
            if !operations.iter().any(|o| o == "verify") {
                return Err(UnusableKey::OtherUse);
            }
        }
        let only = match text("alg")? {
            None => None,
            Some(name) => Some(SignatureAlgorithm::find(name).ok_or(UnusableKey::OtherUse)?),
        };
        let needed = |name: &'static str| text(name)?.ok_or(UnusableKey::Malformed(name));
        let (key_type, key, numbers) = match (needed("kty")?, text("crv")?) {
            ("RSA", _) => {
                let (n, e) = read_rsa(needed("n")?, needed("e")?)?;
                (KeyType::Rsa, DecodingKey::from_rsa_raw_components(&n, &e), [n, e].concat())
            }
            ("EC", Some(curve @ ("P-256" | "P-384"))) => {
                let (key_type, size) = if curve == "P-256" { (KeyType::P256, 32) } else { (KeyType::P384, 48) };
                let (x, y) = (needed("x")?, needed("y")?);
                let point = [read_coordinate(x, size, "x")?, read_coordinate(y, size, "y")?].concat();
                check_point(key_type, &point)?;
                let key = DecodingKey::from_ec_components(x, y).map_err(|_| UnusableKey::Malformed("x"))?;
                (key_type, key, point)
            }
            ("OKP", Some("Ed25519")) => {
                let x = needed("x")?;
                let numbers = read_coordinate(x, 32, "x")?;
                let key = DecodingKey::from_ed_components(x).map_err(|_| UnusableKey::Malformed("x"))?;
                (KeyType::Ed25519, key, numbers)
            }
            _ => return Err(UnusableKey::Unsupported),
        };
        if only.is_some_and(|only| !key_type.fits(only)) {
            return Err(UnusableKey::Malformed("alg"));
        }
        let kid = text("kid")?.map(str::to_owned);
        let issuer = text("issuer")?.map(Box::from);
        Ok(Self { kid, numbers: sha256(&numbers), key_type, only, issuer, key })
    }
}

fn decode(text: &str, name: &'static str) -> Result<Vec<u8>, UnusableKey> {
    BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| UnusableKey::Malformed(name))
}

/// A coordinate is as long as its curve says, leading zeros included (RFC 7518 section 6.2.1.2, RFC 8037
/// section 2).
fn read_coordinate(text: &str, size: usize, name: &'static str) -> Result<Vec<u8>, UnusableKey> {
    let bytes = decode(text, name)?;
    if bytes.len() == size { Ok(bytes) } else { Err(UnusableKey::Malformed(name)) }
}

/// The point lies on its curve.
fn check_point(key_type: KeyType, point: &[u8]) -> Result<(), UnusableKey> {
    let algorithm = match key_type {
        KeyType::P384 => &ECDSA_P384_SHA384_FIXED,
        _ => &ECDSA_P256_SHA256_FIXED,
    };
    let uncompressed = [&[4], point].concat();
    ParsedPublicKey::new(algorithm, uncompressed).map(drop).map_err(|_| UnusableKey::Malformed("x"))
}

/// Modulus and exponent without leading zeros: an odd modulus of 2048 to 8192 bits, and an odd exponent of
/// at least 3 and less than 2^33, the most that is computed with here (RFC 7518 section 3.3, RFC 8017
/// section 3.1).
fn read_rsa(n: &str, e: &str) -> Result<(Vec<u8>, Vec<u8>), UnusableKey> {
    let modulus = significant(decode(n, "n")?);
    let bits = bit_length(&modulus);
    if !(2048..=8192).contains(&bits) {
        return Err(UnusableKey::Size { bits });
    }
    let odd = |number: &[u8]| number.last().is_some_and(|b| b & 1 == 1);
    if !odd(&modulus) {
        return Err(UnusableKey::Malformed("n"));
    }
    if is_of_the_faulty_generator(&modulus) {
        return Err(UnusableKey::Factorable);
    }
    let exponent = significant(decode(e, "e")?);
    if !odd(&exponent) || !(2..=33).contains(&bit_length(&exponent)) {
        return Err(UnusableKey::Malformed("e"));
    }
    Ok((modulus, exponent))
}

/// Some providers write a leading zero byte; RFC 7518 section 6.3.1.1 says not to.
fn significant(number: Vec<u8>) -> Vec<u8> {
    let at = number.iter().position(|&b| b != 0).unwrap_or(number.len());
    number[at..].to_vec()
}

fn bit_length(significant: &[u8]) -> usize {
    significant.len() * 8 - significant.first().map_or(0, |b| b.leading_zeros() as usize)
}

/// Whether the modulus is a power of 65537 modulo each of the primes: then it was made by the generator that
/// CVE-2017-15361 is about, and can be factored.
fn is_of_the_faulty_generator(modulus: &[u8]) -> bool {
    FINGERPRINT_PRIMES.iter().all(|&prime| {
        let rest = modulus.iter().fold(0, |rest, &byte| (rest * 256 + u32::from(byte)) % prime);
        std::iter::successors(Some(1), |power| Some(power * 65_537 % prime))
            .take(prime as usize)
            .any(|power| power == rest)
    })
}

/// Why one key of a set is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableKey {
    /// It is no object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// A member is absent or of another form than RFC 7518 section 6 says.
    #[error("its \"{0}\" is absent or malformed")]
    Malformed(&'static str),
    /// It is private or symmetric.
    #[error("it is a private or symmetric key")]
    NotPublic,
    /// It is not for signatures, or for an algorithm that is not accepted.
    #[error("it is for another use")]
    OtherUse,
    /// The set has it already.
    #[error("it is in the set twice")]
    Repeated,
    /// Its type or curve is not supported.
    #[error("its type or curve is not supported")]
    Unsupported,
    /// Its modulus was made by a generator whose keys can be factored (CVE-2017-15361).
    #[error("its modulus was made by a generator whose keys can be factored")]
    Factorable,
    /// Its RSA modulus is too small or too large.
    #[error("its modulus has {bits} bits; 2048 to 8192 are accepted")]
    Size {
        /// The size found.
        bits: usize,
    },
}

/// The usable keys of one provider.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Arc<VerificationKey>>,
}

impl KeySet {
    /// Reads a JWK Set document. Returns the set, and why each left-out key was left out, by position.
    ///
    /// # Errors
    /// When the document is not a JSON object with a list `keys` of at most 100.
    pub fn parse(document: &[u8]) -> Result<(Self, Vec<(usize, UnusableKey)>), KeySetError> {
        let object = parse_object(document)?;
        let list = object.get("keys").and_then(Value::as_array).ok_or(KeySetError::NoKeys)?;
        if list.len() > MAX_KEYS {
            return Err(KeySetError::TooMany { keys: list.len() });
        }
        let (mut keys, mut skipped) = (Vec::<Arc<VerificationKey>>::new(), Vec::new());
        for (position, entry) in list.iter().enumerate() {
            match entry.as_object().ok_or(UnusableKey::NotAnObject).and_then(VerificationKey::from_jwk) {
                Ok(key) if keys.iter().any(|known| known.is_same(&key)) => {
                    skipped.push((position, UnusableKey::Repeated));
                }
                Ok(key) => keys.push(Arc::new(key)),
                Err(why) => skipped.push((position, why)),
            }
        }
        Ok((Self { keys }, skipped))
    }

    /// How many keys are usable.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// How many keys fit tokens of this algorithm.
    #[must_use]
    pub fn fitting(&self, algorithm: SignatureAlgorithm) -> usize {
        self.keys.iter().filter(|key| key.fits(algorithm)).count()
    }

    /// Whether no key is usable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key for a header that says this.
    ///
    /// With a `kid`: the key that carries it and fits; of several with one `kid`, the only one that
    /// fits. Without: the only key that fits. Two different keys that fit are never tried in turn: which
    /// key signed must be certain before anything is computed.
    ///
    /// # Errors
    /// When no key, or more than one, answers.
    pub fn choose(
        &self,
        unverified_kid: Option<&str>,
        algorithm: SignatureAlgorithm,
    ) -> Result<Arc<VerificationKey>, KeyError> {
        let named = |key: &&Arc<VerificationKey>| unverified_kid.is_none_or(|kid| key.kid.as_deref() == Some(kid));
        let mut fitting = self.keys.iter().filter(named).filter(|key| key.fits(algorithm));
        match (fitting.next(), fitting.count(), unverified_kid) {
            (Some(key), 0, _) => Ok(Arc::clone(key)),
            (None, _, Some(_)) if self.keys.iter().any(|k| named(&k)) => Err(KeyError::Unfit { algorithm }),
            (None, _, Some(_)) => Err(KeyError::UnknownKey),
            (Some(_), more, Some(_)) => Err(KeyError::Ambiguous { fitting: more + 1 }),
            (None, _, None) => Err(KeyError::NoKeyId { fitting: 0 }),
            (Some(_), more, None) => Err(KeyError::NoKeyId { fitting: more + 1 }),
        }
    }
}

/// Why a document is no key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It cannot be read.
    #[error("the key set cannot be read: {0}")]
    Json(#[from] StrictJsonError),
    /// It has no list of keys.
    #[error("the document has no list \"keys\"")]
    NoKeys,
    /// It has more keys than are read.
    #[error("the key set has {keys} keys; at most 100 are read")]
    TooMany {
        /// How many.
        keys: usize,
    },
}
