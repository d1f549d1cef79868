//! Step 4: signature first, then every claim check of OpenID Connect Core section 3.1.3.7.
//!
//! The one choke point: every way into the server that takes an ID token comes through [`verify`], which
//! runs the table of `checks.rs` to the first that fails. The trace for developers runs the same table to
//! its end. Plain functions of token, key, provider and time; no I/O.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::checks::{CHECKS, FIRST_OF_CLAIMS, Found, Input};
use super::key::VerificationKey;
use super::ports::ForeignClaims;
use super::provider::{Provider, SignatureAlgorithm};
use super::request::SignInRequest;
use super::token::UnverifiedToken;
use crate::clock::UnixTime;
use crate::secret::sha256;

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
    /// The key that signed is for tokens of another issuer.
    #[error("the ID token's issuer {seen} is not {allowed}, for which alone its key is published")]
    IssuerOfKey {
        /// The token's, shortened.
        seen: String,
        /// The key's, shortened.
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

impl<'a> Expected<'a> {
    /// Of a request.
    #[must_use]
    pub fn of(request: &'a SignInRequest) -> Self {
        Self { nonce: request.nonce.as_deref(), access_token: request.access_token.as_deref() }
    }
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
    let (claims, hashed_by) = (token.claims(), Some(token.algorithm()));
    let input =
        Input { claims, token: Some(&token), key: Some(key), hashed_by, provider: &provider, expected, now };
    let mut found = Found::default();
    for row in &CHECKS {
        (row.run)(&input, &mut found)?;
    }
    let read = Read::of(found)?;
    let digest = sha256(token.signing_input());
    Ok(read.into_token(provider, token.into_claims(), digest, now))
}

/// Checks the claims of a token whose signature a verifier of the provider checked: every check of
/// [`verify`] but algorithm and signature.
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
    let input = input_of(&foreign, &provider, expected, now);
    let mut found = Found::default();
    for row in &CHECKS[FIRST_OF_CLAIMS..] {
        (row.run)(&input, &mut found)?;
    }
    let read = Read::of(found)?;
    Ok(read.into_token(provider, foreign.claims, digest, now))
}

/// What the rows of claims look at when a verifier of the provider read the token.
pub(super) fn input_of<'a>(
    foreign: &'a ForeignClaims,
    provider: &'a Provider,
    expected: &'a Expected<'a>,
    now: UnixTime,
) -> Input<'a> {
    let hashed_by = match foreign.alg.get(2..) {
        Some("256") => Some(SignatureAlgorithm::Rs256),
        Some("384") => Some(SignatureAlgorithm::Rs384),
        Some("512") => Some(SignatureAlgorithm::Rs512),
        _ => None,
    };
    Input { claims: &foreign.claims, token: None, key: None, hashed_by, provider, expected, now }
}

/// What the table read of the claims, on its own feet.
struct Read {
    issuer: Arc<str>,
    subject: Arc<str>,
    client_id: Arc<str>,
    issued_at: UnixTime,
    expires_at: UnixTime,
    auth_time: Option<UnixTime>,
    jti: Option<String>,
}

impl Read {
    /// A table that left one of these unread would be a defect; it refuses.
    fn of(found: Found<'_>) -> Result<Self, VerifyError> {
        let unread = |claim| VerifyError::Claim { claim, problem: "unread" };
        Ok(Self {
            issuer: found.issuer.ok_or(unread("iss"))?.into(),
            client_id: found.client_id.ok_or(unread("aud"))?.into(),
            subject: found.subject.ok_or(unread("sub"))?.into(),
            issued_at: found.issued_at.ok_or(unread("iat"))?,
            expires_at: found.expires_at.ok_or(unread("exp"))?,
            auth_time: found.auth_time,
            jti: found.jti.map(str::to_owned),
        })
    }

    fn into_token(
        self,
        provider: Arc<Provider>,
        claims: Map<String, Value>,
        digest: [u8; 32],
        verified_at: UnixTime,
    ) -> VerifiedToken {
        let Self { issuer, subject, client_id, issued_at, expires_at, auth_time, jti } = self;
        let claims = Arc::new(claims);
        VerifiedToken {
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
            verified_at,
        }
    }
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
