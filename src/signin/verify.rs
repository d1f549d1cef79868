//! Step 4: signature first, then every claim check of OpenID Connect Core section 3.1.3.7.
//!
//! The one choke point: every way into the server that takes an ID token comes through [`verify`].
//! Plain functions of token, key, provider and time; no I/O.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Map, Value};

use super::key::VerificationKey;
use super::ports::ForeignClaims;
use super::provider::{IssuerRule, NoncePolicy, Provider, SignatureAlgorithm};
use super::token::{UnverifiedToken, audiences};
use crate::clock::UnixTime;
use crate::secret::{same, sha256};

/// 9999-12-31T23:59:59Z: a later NumericDate is absurd.
const LAST_SECOND: i64 = 253_402_300_799;

/// Why an ID token is refused. The texts go to the client: they hold what a developer needs to mend
/// the cause, shortened, and never the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The provider's tokens use other algorithms.
    #[error("the ID token is signed with {seen}; this provider's tokens use {allowed}")]
    AlgorithmNotAllowed {
        /// The token's.
        seen: &'static str,
        /// The pinned ones.
        allowed: String,
    },
    /// The signature is not the provider's.
    #[error("the ID token's signature is not valid for the provider's key")]
    BadSignature,
    /// A claim that must be there is absent or of the wrong type.
    #[error("the ID token's \"{claim}\" is {problem}")]
    Claim {
        /// Its name.
        claim: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// `iss` is of somebody else.
    #[error("the ID token's issuer {seen} is not this provider's issuer {allowed}")]
    Issuer {
        /// The token's, shortened.
        seen: String,
        /// The configured one.
        allowed: String,
    },
    /// `tid` is not in the allow-list.
    #[error("the ID token's tid is not one of this provider's {allowed} allowed tenants")]
    UpstreamTenant {
        /// How many are allowed.
        allowed: usize,
    },
    /// `aud` is another application.
    #[error("audience {seen} is not one of this provider's {allowed} client ids")]
    Audience {
        /// The token's, shortened.
        seen: String,
        /// How many are configured.
        allowed: usize,
    },
    /// `azp` is another application, or absent beside an audience that is not ours.
    #[error("authorized party {seen} is not one of this provider's client ids or authorized parties")]
    AuthorizedParty {
        /// The token's, shortened.
        seen: String,
    },
    /// `exp` has passed.
    #[error("the ID token expired {late_s} s ago")]
    Expired {
        /// Seconds since `exp`.
        late_s: i64,
    },
    /// `nbf` or `iat` lies ahead.
    #[error("the ID token's \"{claim}\" lies {early_s} s in the future; {leeway_s} s are allowed")]
    NotYetValid {
        /// Which claim.
        claim: &'static str,
        /// How far ahead.
        early_s: i64,
        /// The leeway.
        leeway_s: u64,
    },
    /// `iat` is too long ago.
    #[error("the ID token was issued {age_s} s ago; this provider's tokens may be at most {allowed_s} s old")]
    TooOld {
        /// Its age.
        age_s: i64,
        /// The greatest age.
        allowed_s: u64,
    },
    /// The nonce rule is not met.
    #[error("{0}")]
    Nonce(NonceProblem),
    /// `at_hash` does not fit the access token that the request brought.
    #[error("the ID token's at_hash {0} the access token that came with it")]
    AccessTokenHash(&'static str),
}

/// What is wrong with the nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NonceProblem {
    /// The request must bring one.
    #[error("this provider needs the nonce of the sign-in in the request")]
    RequestLacksIt,
    /// The token must carry one.
    #[error("the ID token carries no nonce, and the request brings one")]
    TokenLacksIt,
    /// They differ.
    #[error("the ID token's nonce is neither the request's nonce nor its SHA-256 in hex or base64url")]
    Differs,
    /// There must be none.
    #[error("this provider's sign-ins use no nonce, and one was given")]
    Forbidden,
    /// It is not one of this server's, or is spent.
    #[error("the nonce was not issued by this server, has expired, or was used before")]
    NotOurs,
}

/// What the request brought for comparison.
#[derive(Default)]
pub struct Expected<'a> {
    /// The raw nonce.
    pub nonce: Option<&'a str>,
    /// The provider's access token, for `at_hash`.
    pub access_token: Option<&'a str>,
}

/// An ID token that passed every check. Only [`verify`] and [`admit`] can build one.
pub struct VerifiedToken {
    provider: Arc<Provider>,
    issuer: Arc<str>,
    subject: Arc<str>,
    client_id: Arc<str>,
    claims: Arc<Map<String, Value>>,
    issued_at: UnixTime,
    expires_at: UnixTime,
    auth_time: Option<UnixTime>,
    jti: Option<String>,
    digest: [u8; 32],
    verified_at: UnixTime,
}

impl std::fmt::Debug for VerifiedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifiedToken").field("provider", &self.provider.name).finish_non_exhaustive()
    }
}

impl VerifiedToken {
    /// The provider whose token it is.
    #[must_use]
    pub fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }

    /// `iss`.
    #[must_use]
    pub fn issuer(&self) -> &Arc<str> {
        &self.issuer
    }

    /// `sub`.
    #[must_use]
    pub fn subject(&self) -> &Arc<str> {
        &self.subject
    }

    /// The configured client id that `aud` names.
    #[must_use]
    pub fn client_id(&self) -> &Arc<str> {
        &self.client_id
    }

    /// All claims.
    #[must_use]
    pub fn claims(&self) -> &Arc<Map<String, Value>> {
        &self.claims
    }

    /// `iat`.
    #[must_use]
    pub fn issued_at(&self) -> UnixTime {
        self.issued_at
    }

    /// `exp`.
    #[must_use]
    pub fn expires_at(&self) -> UnixTime {
        self.expires_at
    }

    /// `auth_time`.
    #[must_use]
    pub fn auth_time(&self) -> Option<UnixTime> {
        self.auth_time
    }

    /// `jti`.
    #[must_use]
    pub fn jti(&self) -> Option<&str> {
        self.jti.as_deref()
    }

    /// SHA-256 of header and payload as they were signed. Not of the signature: an ECDSA signature has
    /// a second valid form.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// When it was verified: later steps use the same moment.
    #[must_use]
    pub fn verified_at(&self) -> UnixTime {
        self.verified_at
    }
}

/// Checks signature, then claims, of a compact JWS ID token.
///
/// `now` is the moment of the request; the provider's leeway applies to `exp`, `nbf`, `iat` and
/// `auth_time` and must equal the one that the replay guard remembers by, else a token could be used
/// again in between. Whether a server-issued nonce is genuine is checked by the caller; here it only
/// has to match.
///
/// # Errors
/// The first failing check, in the order of OpenID Connect Core section 3.1.3.7. Nothing about the
/// claims may be believed when the signature failed (RFC 8725 section 3.1).
pub fn verify(
    token: UnverifiedToken,
    key: &VerificationKey,
    provider: Arc<Provider>,
    expected: &Expected<'_>,
    now: UnixTime,
) -> Result<VerifiedToken, VerifyError> {
    let algorithm = token.algorithm();
    check_algorithm(algorithm, &provider)?;
    if !key.verifies(algorithm, token.signing_input(), token.signature()) {
        return Err(VerifyError::BadSignature);
    }
    let digest = sha256(token.signing_input());
    check_claims(token.into_claims(), Some(algorithm), digest, provider, expected, now)
}

/// Checks the claims of a token whose signature a verifier of the provider checked: every check of
/// [`verify`] but that one.
///
/// The digest for the replay guard is that of the claims, with members in order: the format is not
/// known here, and may have several texts for one token.
///
/// # Errors
/// As [`verify`].
pub fn admit(
    foreign: ForeignClaims,
    provider: Arc<Provider>,
    expected: &Expected<'_>,
    now: UnixTime,
) -> Result<VerifiedToken, VerifyError> {
    let digest = sha256(canonical(&Value::Object(foreign.claims.clone())).as_bytes());
    let hash = match foreign.alg.get(2..) {
        Some("256") => Some(SignatureAlgorithm::Rs256),
        Some("384") => Some(SignatureAlgorithm::Rs384),
        Some("512") => Some(SignatureAlgorithm::Rs512),
        _ => None,
    };
    check_claims(foreign.claims, hash, digest, provider, expected, now)
}

/// JSON without space, members sorted by name.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let sorted: std::collections::BTreeMap<&String, String> =
                members.iter().map(|(name, value)| (name, canonical(value))).collect();
            let members: Vec<String> =
                sorted.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// `hashed_by` names the hash of `at_hash`, by any algorithm that uses it.
fn check_claims(
    claims: Map<String, Value>,
    hashed_by: Option<SignatureAlgorithm>,
    digest: [u8; 32],
    provider: Arc<Provider>,
    expected: &Expected<'_>,
    now: UnixTime,
) -> Result<VerifiedToken, VerifyError> {
    let issuer: Arc<str> = check_issuer(&claims, &provider.issuer)?.into();
    let client_id: Arc<str> = check_audience(&claims, &provider)?.into();
    let leeway = provider.clock_leeway;
    let expires_at = date(&claims, "exp")?.ok_or(VerifyError::Claim { claim: "exp", problem: "absent" })?;
    if now >= expires_at.plus(leeway) {
        return Err(VerifyError::Expired { late_s: now.as_secs() - expires_at.as_secs() });
    }
    let issued_at = date(&claims, "iat")?.ok_or(VerifyError::Claim { claim: "iat", problem: "absent" })?;
    let auth_time = date(&claims, "auth_time")?;
    for (claim, at) in [("nbf", date(&claims, "nbf")?), ("iat", Some(issued_at)), ("auth_time", auth_time)] {
        check_not_ahead(claim, at, now, leeway)?;
    }
    let age = now.since(issued_at);
    if age > provider.max_token_age + leeway {
        return Err(VerifyError::TooOld {
            age_s: now.as_secs() - issued_at.as_secs(),
            allowed_s: provider.max_token_age.as_secs(),
        });
    }
    check_nonce(&claims, provider.nonce, expected.nonce)?;
    if let Some(access_token) = expected.access_token {
        check_access_token_hash(&claims, hashed_by, access_token)?;
    }
    let subject: Arc<str> = check_subject(&claims)?.into();
    let jti = optional_text(&claims, "jti", 256)?.map(str::to_owned);
    let claims = Arc::new(claims);
    Ok(VerifiedToken {
        provider,
        issuer,
        subject,
        client_id,
        claims,
        issued_at,
        expires_at,
        auth_time,
        jti,
        digest,
        verified_at: now,
    })
}

/// Whether the provider's tokens may use this algorithm. Asked before a key is looked for as well.
///
/// # Errors
/// When it is not one of the pinned ones.
pub fn check_algorithm(algorithm: SignatureAlgorithm, provider: &Provider) -> Result<(), VerifyError> {
    if provider.algorithms.contains(&algorithm) {
        return Ok(());
    }
    let allowed: Vec<&str> = provider.algorithms.iter().map(|a| a.name()).collect();
    Err(VerifyError::AlgorithmNotAllowed { seen: algorithm.name(), allowed: allowed.join(", ") })
}

pub(super) fn check_issuer<'a>(claims: &'a Map<String, Value>, rule: &IssuerRule) -> Result<&'a str, VerifyError> {
    let seen = needed_text(claims, "iss", 1024)?;
    let other = || VerifyError::Issuer { seen: shortened(seen), allowed: rule.shown() };
    match rule {
        IssuerRule::Exact(issuers) => {
            if issuers.iter().any(|i| i == seen) {
                Ok(seen)
            } else {
                Err(other())
            }
        }
        IssuerRule::PerTenant { prefix, suffix, allowed_tenant_ids } => {
            let tid = needed_text(claims, "tid", 256)?;
            if format!("{prefix}{tid}{suffix}") != seen {
                return Err(other());
            }
            if allowed_tenant_ids.iter().any(|a| a == tid) {
                Ok(seen)
            } else {
                Err(VerifyError::UpstreamTenant { allowed: allowed_tenant_ids.len() })
            }
        }
    }
}

/// Steps 3 to 5 of OpenID Connect Core section 3.1.3.7: one audience is ours; further ones are ours
/// too, or an authorized party that we know vouches for them; an `azp` is always one that we know.
pub(super) fn check_audience<'a>(
    claims: &'a Map<String, Value>,
    provider: &Provider,
) -> Result<&'a str, VerifyError> {
    let seen = audiences(claims)
        .ok_or(VerifyError::Claim { claim: "aud", problem: "absent, or neither a text nor a list of texts" })?;
    let Some(ours) = seen.iter().copied().find(|a| provider.knows_client(a)) else {
        return Err(VerifyError::Audience {
            seen: shortened(&seen.join(", ")),
            allowed: provider.client_ids.len(),
        });
    };
    let party = optional_text(claims, "azp", 1024)?;
    let known = |p: &str| provider.knows_client(p) || provider.authorized_parties.iter().any(|a| a == p);
    match party {
        Some(p) if !known(p) => Err(VerifyError::AuthorizedParty { seen: shortened(p) }),
        None if !seen.iter().all(|a| provider.knows_client(a)) => {
            Err(VerifyError::AuthorizedParty { seen: "(none)".to_owned() })
        }
        _ => Ok(ours),
    }
}

pub(super) fn check_not_ahead(
    claim: &'static str,
    at: Option<UnixTime>,
    now: UnixTime,
    leeway: Duration,
) -> Result<(), VerifyError> {
    match at {
        Some(at) if at > now.plus(leeway) => Err(VerifyError::NotYetValid {
            claim,
            early_s: at.as_secs() - now.as_secs(),
            leeway_s: leeway.as_secs(),
        }),
        _ => Ok(()),
    }
}

fn check_nonce(
    claims: &Map<String, Value>,
    policy: NoncePolicy,
    requested: Option<&str>,
) -> Result<(), VerifyError> {
    let carried = optional_text(claims, "nonce", 1024)?;
    let problem = match (policy, requested, carried) {
        (NoncePolicy::Forbidden, None, None) | (NoncePolicy::Optional, None, _) => return Ok(()),
        (NoncePolicy::Forbidden, ..) => NonceProblem::Forbidden,
        (_, None, _) => NonceProblem::RequestLacksIt,
        (_, Some(_), None) => NonceProblem::TokenLacksIt,
        (_, Some(raw), Some(carried)) => {
            if nonce_matches(raw, carried) {
                return Ok(());
            }
            NonceProblem::Differs
        }
    };
    Err(VerifyError::Nonce(problem))
}

/// The token may carry the nonce itself, or its SHA-256 in hex (Apple and Google SDKs) or base64url.
fn nonce_matches(raw: &str, carried: &str) -> bool {
    let hash = sha256(raw.as_bytes());
    let forms = [raw.to_owned(), HEXLOWER.encode(&hash), BASE64URL_NOPAD.encode(&hash)];
    forms.iter().fold(false, |found, form| found | same(form.as_bytes(), carried.as_bytes()))
}

/// OpenID Connect Core section 3.1.3.6: the left half of the hash that the signature algorithm names.
fn check_access_token_hash(
    claims: &Map<String, Value>,
    hashed_by: Option<SignatureAlgorithm>,
    access_token: &str,
) -> Result<(), VerifyError> {
    use SignatureAlgorithm as A;
    use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
    let Some(carried) = optional_text(claims, "at_hash", 128)? else {
        return Err(VerifyError::AccessTokenHash("is absent, so it does not cover"));
    };
    let hash = match hashed_by.ok_or(VerifyError::AccessTokenHash("is of an unknown kind, so it does not cover"))? {
        A::Rs256 | A::Ps256 | A::Es256 => &SHA256,
        A::Rs384 | A::Ps384 | A::Es384 => &SHA384,
        A::Rs512 | A::Ps512 | A::EdDsa => &SHA512,
    };
    let full = digest(hash, access_token.as_bytes());
    let half = &full.as_ref()[..full.as_ref().len() / 2];
    if same(BASE64URL_NOPAD.encode(half).as_bytes(), carried.as_bytes()) {
        Ok(())
    } else {
        Err(VerifyError::AccessTokenHash("does not fit"))
    }
}

/// `sub` is at most 255 ASCII characters (OpenID Connect Core section 2).
fn check_subject(claims: &Map<String, Value>) -> Result<&str, VerifyError> {
    let subject = needed_text(claims, "sub", 255)?;
    if subject.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        Ok(subject)
    } else {
        Err(VerifyError::Claim { claim: "sub", problem: "not printable ASCII" })
    }
}

pub(super) fn needed_text<'a>(
    claims: &'a Map<String, Value>,
    claim: &'static str,
    most: usize,
) -> Result<&'a str, VerifyError> {
    optional_text(claims, claim, most)?.ok_or(VerifyError::Claim { claim, problem: "absent" })
}

pub(super) fn optional_text<'a>(
    claims: &'a Map<String, Value>,
    claim: &'static str,
    most: usize,
) -> Result<Option<&'a str>, VerifyError> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Err(VerifyError::Claim { claim, problem: "empty" }),
        Some(Value::String(text)) if text.len() > most => Err(VerifyError::Claim { claim, problem: "too long" }),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(VerifyError::Claim { claim, problem: "not a text" }),
    }
}

/// A NumericDate (RFC 7519 section 2), whole seconds only: a text, a fraction, a negative or an absurd
/// number is refused rather than taken for absent.
pub(super) fn date(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<UnixTime>, VerifyError> {
    match claims.get(claim) {
        None => Ok(None),
        Some(value) => match value.as_i64() {
            Some(s) if (0..=LAST_SECOND).contains(&s) => Ok(Some(UnixTime::from_secs(s))),
            Some(_) => Err(VerifyError::Claim { claim, problem: "not a time between 1970 and 9999" }),
            None => Err(VerifyError::Claim { claim, problem: "not a whole number of seconds" }),
        },
    }
}

/// A claim as an error message may show it: at most 64 characters, control characters escaped.
fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().count() > 64 {
        shown.push('…');
    }
    shown
}
