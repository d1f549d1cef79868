//! Refusals of the OAuth endpoints: the form of RFC 6749 section 5.2 beside the members of every refusal.
//! `error` is the word of the RFC; the finer word stands in `reason`.

use poem_openapi::Object;

use super::dto;
use super::problem::{Problem, row};
use crate::codes::ErrorCode;

/// What an OAuth endpoint adds to a refusal.
#[derive(Debug, Clone, Default)]
pub struct OAuthDetails {
    /// The refusal behind it, when it is finer.
    pub reason: Option<ErrorCode>,
    /// The challenge of `mfa_required`.
    pub challenge: Option<ChallengeDetails>,
    /// Whether the members of RFC 8935 section 2.3 are there too.
    pub event: bool,
}

/// A challenge inside a refusal. Holds a secret.
#[derive(Clone)]
pub struct ChallengeDetails {
    challenge_token: String,
    expires_in: u64,
    required_mfa_methods: Vec<String>,
    mfa_check_reason: String,
}

impl std::fmt::Debug for ChallengeDetails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChallengeDetails").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

impl ChallengeDetails {
    /// The challenge of a sign-in's answer, when it is one.
    #[must_use]
    pub fn of(answer: dto::LoginResponse) -> Option<Self> {
        Some(Self {
            challenge_token: answer.challenge_token?,
            expires_in: answer.expires_in?,
            required_mfa_methods: answer.required_mfa_methods?,
            mfa_check_reason: answer.mfa_check_reason?,
        })
    }
}

/// The body of a refusal of an OAuth endpoint (RFC 6749 section 5.2, RFC 8693 section 2.2.2).
#[derive(Object)]
#[oai(rename = "dto.OAuthError", skip_serializing_if_is_none)]
pub struct OAuthErrorBody {
    /// HTTP status × 1000 + a number that never changes its meaning.
    pub code: u32,
    /// The word of the RFC, such as `invalid_grant`.
    pub error: String,
    /// For people: what was seen and what is allowed. May change.
    pub error_description: Option<String>,
    /// The same text.
    pub message: String,
    /// The finer word, one of the table of errors, such as `id_token_expired`.
    pub reason: Option<String>,
    /// Of a security event token: the word of RFC 8935, such as `invalid_key`.
    pub err: Option<String>,
    /// Of a security event token: the same text as `message`.
    pub description: Option<String>,
    /// When, RFC 3339 in UTC.
    pub timestamp: String,
    /// The request, for support and logs.
    pub request_id: String,
    /// `mfa_required`: opens `POST /auth/mfa/verify-challenge` and nothing else.
    pub challenge_token: Option<String>,
    /// `mfa_required`: seconds until the challenge expires.
    pub expires_in: Option<u64>,
    /// `mfa_required`: methods that this user can use now, best first.
    pub required_mfa_methods: Option<Vec<String>>,
    /// `mfa_required`: the weightiest reason, such as `new_device`.
    pub mfa_check_reason: Option<String>,
}

impl OAuthErrorBody {
    /// Of a problem with its details.
    #[must_use]
    pub fn new(
        code: u32,
        error: String,
        message: String,
        timestamp: String,
        request_id: String,
        details: OAuthDetails,
    ) -> Self {
        let challenge = details.challenge;
        Self {
            code,
            error,
            err: details.event.then(|| event_word(details.reason).to_owned()),
            description: details.event.then(|| message.clone()),
            error_description: Some(described(&message)),
            message,
            reason: details.reason.map(|code| code.as_str().to_owned()),
            timestamp,
            request_id,
            expires_in: challenge.as_ref().map(|c| c.expires_in),
            required_mfa_methods: challenge.as_ref().map(|c| c.required_mfa_methods.clone()),
            mfa_check_reason: challenge.as_ref().map(|c| c.mfa_check_reason.clone()),
            challenge_token: challenge.map(|c| c.challenge_token),
        }
    }
}

/// The word of RFC 8935 section 2.4 for a refusal.
fn event_word(reason: Option<ErrorCode>) -> &'static str {
    match reason {
        Some(ErrorCode::UnknownKey | ErrorCode::IdTokenSignatureInvalid) => "invalid_key",
        Some(ErrorCode::IdTokenIssuerMismatch | ErrorCode::NoProviderFits) => "invalid_issuer",
        Some(ErrorCode::IdTokenAudienceMismatch) => "invalid_audience",
        _ => "invalid_request",
    }
}

/// `error_description` is ASCII without `"` and `\` (RFC 6749 section 5.2).
fn described(message: &str) -> String {
    let fits = |c: char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
    message.chars().map(|c| if fits(c) { c } else { '\'' }).collect()
}

/// A refusal of an OAuth endpoint.
#[must_use]
pub fn refusal(code: ErrorCode, message: impl Into<String>) -> Problem {
    in_oauth_form(Problem::new(code, message))
}

/// The same problem in the form of the OAuth endpoints.
#[must_use]
pub fn in_oauth_form(mut problem: Problem) -> Problem {
    problem.oauth.get_or_insert_default();
    problem
}

/// The same problem in the form of RFC 8935 as well.
#[must_use]
pub fn in_event_form(mut problem: Problem) -> Problem {
    problem.oauth.get_or_insert_default().event = true;
    problem
}

/// A problem of the sign-in path or of a refresh under the word `word` of the RFC; trouble of the server and
/// what has a word of its own keep theirs.
#[must_use]
pub fn under(word: ErrorCode, mut problem: Problem) -> Problem {
    let status = row(problem.code).status();
    if !matches!(problem.code, ErrorCode::InvalidDpopProof | ErrorCode::UnknownTenant)
        && status.is_client_error()
        && !matches!(status.as_u16(), 413 | 415 | 429)
    {
        let reason = std::mem::replace(&mut problem.code, word);
        problem.oauth.get_or_insert_default().reason = Some(reason);
    }
    in_oauth_form(problem)
}
