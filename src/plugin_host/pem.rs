//! Public keys and certificates in PEM (RFC 7468) as JWKs, so that one reader judges every key.

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{Decode, Header, Reader, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use crate::clock::UnixTime;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Why a PEM text is no usable key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PemError {
    #[error("it is not one PEM block of a certificate or public key")]
    Label,
    #[error("its DER cannot be read")]
    Der,
    #[error("its certificate is not valid at this time")]
    Expired,
    #[error("its algorithm is not supported")]
    Unsupported,
}

/// The JWK of the first block: `CERTIFICATE` (within its validity; nobody checks who signed it: the plugin
/// vouches for the source) or `PUBLIC KEY`.
pub(super) fn to_jwk(kid: &str, text: &str, now: UnixTime) -> Result<Value, PemError> {
    let block = pem::parse(text).map_err(|_| PemError::Label)?;
    let info = match block.tag() {
        "CERTIFICATE" => {
            let certificate = Certificate::from_der(block.contents()).map_err(|_| PemError::Der)?;
            let tbs = certificate.tbs_certificate();
            let seconds = |time: &x509_cert::time::Time| time.to_unix_duration().as_secs();
            let now = u64::try_from(now.as_secs()).unwrap_or(0);
            let validity = tbs.validity();
            if now < seconds(&validity.not_before) || now > seconds(&validity.not_after) {
                return Err(PemError::Expired);
            }
            tbs.subject_public_key_info().clone()
        }
        "PUBLIC KEY" => SubjectPublicKeyInfoOwned::from_der(block.contents()).map_err(|_| PemError::Der)?,
        _ => return Err(PemError::Label),
    };
    let key = info.subject_public_key.as_bytes().ok_or(PemError::Der)?;
    let curve = || info.algorithm.parameters.as_ref().and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
    let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    match info.algorithm.oid {
        RSA => {
            let (n, e) = rsa_components(key).ok_or(PemError::Der)?;
            Ok(json!({ "kty": "RSA", "kid": kid, "n": encode(&n), "e": encode(&e) }))
        }
        EC => {
            let (crv, size) = match curve() {
                Some(P256) => ("P-256", 32),
                Some(P384) => ("P-384", 48),
                _ => return Err(PemError::Unsupported),
            };
            // Uncompressed (SEC 1 section 2.3.3).
            let Some((4, point)) = key.split_first().map(|(first, rest)| (*first, rest)) else {
                return Err(PemError::Unsupported);
            };
            let (x, y) = point.split_at_checked(size).filter(|(_, y)| y.len() == size).ok_or(PemError::Der)?;
            Ok(json!({ "kty": "EC", "crv": crv, "kid": kid, "x": encode(x), "y": encode(y) }))
        }
        ED25519 => Ok(json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": encode(key) })),
        _ => Err(PemError::Unsupported),
    }
}

/// RSAPublicKey of RFC 8017 appendix A.1.1: modulus and exponent, without leading zeros.
fn rsa_components(key: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut reader = SliceReader::new(key).ok()?;
    Header::decode(&mut reader).ok()?;
    let (n, e) = (UintRef::decode(&mut reader).ok()?, UintRef::decode(&mut reader).ok()?);
    reader.is_finished().then(|| (n.as_bytes().to_vec(), e.as_bytes().to_vec()))
}
