//! Proofs that the sender of a request holds a key (DPoP, RFC 9449 section 4.3).
//!
//! A proof is good once, for one method and address, for [`WINDOW`] around the time it was made. Nonces of the
//! server (section 8) are not asked for.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value, json};
use url::Url;

use crate::clock::{Clock, UnixTime};
use crate::secret::{same, sha256};
use crate::signin::json::parse_object;
use crate::signin::key::VerificationKey;
use crate::signin::ports::{ReplayGuard, StoreError};
use crate::signin::provider::SignatureAlgorithm;

/// How far `iat` may be from now, to either side.
pub const WINDOW: Duration = Duration::from_secs(60);
const MAX_PROOF_BYTES: usize = 8 * 1024;
const MAX_JTI_BYTES: usize = 256;

/// Why a proof proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum DpopError {
    /// It is not one, or says something else than it must. The text tells what.
    #[error("the DPoP proof {0}")]
    Proof(&'static str),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The request that a proof must be for.
#[derive(Debug, Clone, Copy)]
pub struct ProofOf<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path, below the base path.
    pub path: &'a str,
    /// The access token that it brings; none at the token endpoint.
    pub access_token: Option<&'a str>,
}

/// Checks proofs.
pub struct DpopCheck {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What was used once.
    pub replays: Arc<dyn ReplayGuard>,
    /// Addresses under which this server is reached, as configuration says; never as a request does.
    pub bases: Vec<String>,
}

impl DpopCheck {
    /// The thumbprint (RFC 7638) of the key that the sender of this request holds. The proof is spent.
    ///
    /// # Errors
    /// The first check of RFC 9449 section 4.3 that fails.
    pub async fn check(&self, proof: &str, of: ProofOf<'_>) -> Result<Arc<str>, DpopError> {
        let now = self.clock.now();
        let Proof { jkt, claims } = open(proof)?;
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        if text("htm") != Some(of.method) {
            return Err(DpopError::Proof("is for another method (htm)"));
        }
        let address = text("htu").and_then(plain_address).ok_or(DpopError::Proof("has no address (htu)"))?;
        if !self.bases.iter().any(|base| plain_address(&format!("{base}{}", of.path)).as_ref() == Some(&address)) {
            return Err(DpopError::Proof("is for another address (htu)"));
        }
        let made_at = claims.get("iat").and_then(Value::as_i64).ok_or(DpopError::Proof("has no time (iat)"))?;
        let made_at = UnixTime::from_secs(made_at);
        if made_at.plus(WINDOW) < now || made_at > now.plus(WINDOW) {
            return Err(DpopError::Proof("was not made within the last 60 s (iat)"));
        }
        match (of.access_token, text("ath")) {
            (None, _) => {}
            (Some(token), Some(ath)) => {
                let hash = BASE64URL_NOPAD.encode(&sha256(token.as_bytes()));
                if !same(hash.as_bytes(), ath.as_bytes()) {
                    return Err(DpopError::Proof("is for another access token (ath)"));
                }
            }
            (Some(_), None) => return Err(DpopError::Proof("names no access token (ath)")),
        }
        let jti = text("jti").filter(|jti| (1..=MAX_JTI_BYTES).contains(&jti.len()));
        let jti = jti.ok_or(DpopError::Proof("has no identifier (jti)"))?;
        let spent = sha256(format!("dpop {jkt} {jti}").as_bytes());
        // One millisecond more than it could be used again.
        let until = made_at.plus(WINDOW + Duration::from_millis(1));
        if !self.replays.remember(spent, until, now).await? {
            return Err(DpopError::Proof("was used before (jti)"));
        }
        Ok(jkt.into())
    }
}

struct Proof {
    jkt: String,
    claims: Map<String, Value>,
}

/// Form, header and signature.
fn open(proof: &str) -> Result<Proof, DpopError> {
    const FORM: DpopError = DpopError::Proof("is not a compact JWS");
    if proof.len() > MAX_PROOF_BYTES {
        return Err(DpopError::Proof("is longer than 8 KiB"));
    }
    let (input, signature) = proof.rsplit_once('.').ok_or(FORM)?;
    let (header, payload) = input.split_once('.').ok_or(FORM)?;
    let object = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).ok().and_then(|b| parse_object(&b).ok());
    let (header, claims) = (object(header).ok_or(FORM)?, object(payload).ok_or(FORM)?);
    if header.get("typ").and_then(Value::as_str) != Some("dpop+jwt") {
        return Err(DpopError::Proof("has not the type dpop+jwt (typ)"));
    }
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(DpopError::Proof("has a header member that is not accepted"));
    }
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(SignatureAlgorithm::find);
    let algorithm =
        algorithm.ok_or(DpopError::Proof("is not signed with an accepted asymmetric algorithm (alg)"))?;
    let jwk = header.get("jwk").and_then(Value::as_object).ok_or(DpopError::Proof("holds no public key (jwk)"))?;
    let key =
        VerificationKey::from_jwk(jwk).map_err(|_| DpopError::Proof("holds a key that is not usable (jwk)"))?;
    if !key.verifies(algorithm, input.as_bytes(), signature) {
        return Err(DpopError::Proof("is not signed by its key"));
    }
    let jkt = thumbprint(jwk).ok_or(DpopError::Proof("holds a key that is not usable (jwk)"))?;
    Ok(Proof { jkt, claims })
}

/// RFC 7638: the digest of the members that make the key, in the order of their names.
#[must_use]
pub fn thumbprint(jwk: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| jwk.get(name)?.as_str();
    let canonical = match text("kty")? {
        "RSA" => json!({"e": text("e")?, "kty": "RSA", "n": text("n")?}),
        "EC" => json!({"crv": text("crv")?, "kty": "EC", "x": text("x")?, "y": text("y")?}),
        "OKP" => json!({"crv": text("crv")?, "kty": "OKP", "x": text("x")?}),
        _ => return None,
    };
    Some(BASE64URL_NOPAD.encode(&sha256(canonical.to_string().as_bytes())))
}

/// Without query and fragment, normalised as RFC 3986 sections 6.2.2 and 6.2.3 say.
fn plain_address(text: &str) -> Option<Url> {
    let mut url = Url::parse(text).ok()?;
    url.set_query(None);
    url.set_fragment(None);
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638_and_rfc_8037() {
        let okp =
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "x", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        assert_eq!(
            thumbprint(okp.as_object().unwrap()).as_deref(),
            Some("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
            "RFC 8037 appendix A.3"
        );
        assert_eq!(thumbprint(json!({"kty": "oct", "k": "AAAA"}).as_object().unwrap()), None);
    }

    #[test]
    fn addresses_are_compared_without_query_case_of_the_host_and_default_port() {
        let plain = |text| plain_address(text).unwrap();
        assert_eq!(
            plain("HTTPS://ID.example.com:443/oauth/token?x=1#y"),
            plain("https://id.example.com/oauth/token")
        );
        assert_ne!(plain("https://id.example.com/oauth/token/"), plain("https://id.example.com/oauth/token"));
        assert_ne!(plain("http://id.example.com/oauth/token"), plain("https://id.example.com/oauth/token"));
    }
}
