//! The one table of refusals: HTTP status, number and meaning of every [`ErrorCode`], and the JSON form
//! in which they leave. `openapi/errors.md` is generated from it.

use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::Object;
use poem_openapi::types::ToJSON;

use super::dto::TokenCheck;
use super::oauth_error::{OAuthDetails, OAuthErrorBody};
use crate::clock::{Clock, SystemClock};
use crate::codes::ErrorCode;
use crate::ids::RequestId;
use crate::signin::error::OfferedLink;

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// HTTP status × 1000 + a number that never changes its meaning.
    pub number: u32,
    /// What it means, and what a client should do.
    pub meaning: &'static str,
}

impl Row {
    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        u16::try_from(self.number / 1000)
            .ok()
            .and_then(|s| StatusCode::from_u16(s).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// The row of a code.
#[must_use]
pub const fn row(code: ErrorCode) -> Row {
    use ErrorCode as E;
    let (number, meaning) = match code {
        E::MalformedRequest => (
            400_001,
            "The body is not JSON, names a member twice, or a member has the wrong type. The message tells which.",
        ),
        E::RefreshTokenReused => (
            400_002,
            "The refresh token was exchanged before, so it may be in two hands. Its session has been ended: sign in again.",
        ),
        E::MissingIdToken => (400_003, "The request has no `id_token`."),
        E::MalformedIdToken => (
            400_004,
            "The ID token is not a compact JWS of three base64url parts with JSON objects, or is too long.",
        ),
        E::AmbiguousProvider => {
            (400_005, "Several providers accept the ID token's issuer and audience: name one in `provider`.")
        }
        E::InvalidRefreshToken => (
            400_006,
            "The refresh token is not known, has expired, its session has ended, or its client may not ask for the session's audience any more: sign in again.",
        ),
        E::InvalidMfaCode => (
            400_007,
            "The code is wrong, too old, or was used before. Ask for another one; the session of the user is not touched.",
        ),
        E::MfaPending => (
            400_200,
            "The user has not confirmed on the device yet: ask again after `Retry-After`. It does not count as a wrong code.",
        ),
        E::ChallengeExpired => {
            (400_008, "The challenge has expired or had five wrong codes: sign in again for a new one.")
        }
        E::ChallengeUsed => (400_009, "The challenge was answered before: sign in again for a new one."),
        E::InvalidChallenge => {
            (400_010, "The challenge token is not known, or belongs to another tenant or device.")
        }
        E::MfaMethodNotAllowed => {
            (400_011, "The challenge takes other methods; they stood in `required_mfa_methods`.")
        }
        E::UnknownFactor => {
            (400_012, "No factor with this id waits for confirmation, or it had five wrong codes: begin again.")
        }
        E::MissingAccessToken => (401_001, "The operation needs an access token in `Authorization: Bearer …`."),
        E::InvalidAccessToken => (401_002, "The access token was not issued here, or for another tenant."),
        E::IdTokenExpired => (401_003, "The ID token's `exp` has passed: get a new one from the provider."),
        E::AccessTokenExpired => (401_004, "The access token has expired: refresh it."),
        E::SessionEnded => (401_005, "The session of this access token has ended: sign in again."),
        E::IdTokenSignatureInvalid => (401_006, "The signature is not valid for the provider's key."),
        E::IdTokenAlgorithmNotAllowed => {
            (401_007, "The `alg` is `none`, symmetric, not known, or not one that is pinned for this provider.")
        }
        E::IdTokenHeaderRefused => (
            401_008,
            "The token's header holds a member that is not accepted: `crit`, `b64`, `zip`, `cty`, `jwk`, `jku`, `x5u` or `x5c`.",
        ),
        E::IdTokenTypeRefused => {
            (401_009, "The `typ` says that this is another kind of token, such as an access or logout token.")
        }
        E::IdTokenEncrypted => (401_010, "The token is encrypted (five parts)."),
        E::IdTokenClaimInvalid => (
            401_011,
            "A claim is absent or malformed; the message names it. Times must be whole numbers of seconds.",
        ),
        E::IdTokenIssuerMismatch => (401_012, "The `iss` is not the configured issuer of this provider."),
        E::IdTokenTenantNotAllowed => (401_013, "The `tid` is not one of the provider's allowed tenants."),
        E::IdTokenAudienceMismatch => (
            401_014,
            "The `aud` is not one of this provider's client ids: the token was issued to another application.",
        ),
        E::IdTokenAzpMismatch => (401_015, "The `azp` is not a client id or authorized party of this provider."),
        E::IdTokenNotYetValid => {
            (401_016, "`nbf`, `iat` or `auth_time` lies in the future by more than the allowed leeway.")
        }
        E::IdTokenTooOld => (401_017, "The token was issued longer ago than this provider's tokens may be old."),
        E::IdTokenNonceMismatch => {
            (401_018, "The nonce is absent, does not match, or was not issued here; the message tells which.")
        }
        E::IdTokenAtHashMismatch => {
            (401_019, "The `access_token` of the request does not fit the token's `at_hash`.")
        }
        E::IdTokenReplayed => (401_020, "The ID token was used before: get a new one from the provider."),
        E::NoProviderFits => (401_021, "No provider was named, and none accepts the token's issuer and audience."),
        E::UnknownKey => (401_022, "The provider publishes no key with the token's `kid`."),
        E::KeyIdMissing => (401_023, "The token names no key, and not exactly one of the provider's keys fits."),
        E::KeyUnfit => (401_024, "The key that the token names does not fit its algorithm."),
        E::KeyAmbiguous => (
            401_110,
            "The provider publishes several keys with the token's `kid`, so which one signed is not certain.",
        ),
        E::SignInDenied => (
            403_001,
            "The tenant's policy denies this sign-in, or asks for a factor that the user does not have; the message holds the reason code.",
        ),
        E::UserNotProvisioned => {
            (403_002, "Nobody has this identity, and this provider does not create users, or not such a one.")
        }
        E::AccountDisabled => (403_003, "The account is disabled."),
        E::AccountLocked => (403_004, "The account is locked."),
        E::IdentityRejected => (
            403_005,
            "The provider's mapping or a plugin refuses this identity; the message holds the reason code.",
        ),
        E::MappingFailed => (
            403_006,
            "The provider's mapping script failed or gave an unusable value. An administrator finds the cause in the log.",
        ),
        E::EnrolmentNotAllowed => (
            403_007,
            "This session may not enrol a factor: sign in at low risk, or with a factor that the user has. Backup codes need such a factor.",
        ),
        E::AccountPending => {
            (403_160, "The account was invited and waits for its first sign-in by the invitation.")
        }
        E::FreshSessionNeeded => (
            403_161,
            "This needs a session that began within the last 10 minutes: sign in again. Refreshing does not make one fresh.",
        ),
        E::InvalidLinkToken => (
            400_160,
            "The link token is not known, has expired, was used, or is for another account than the one that is signed in.",
        ),
        E::UnknownIdentity => (404_160, "The user has no identity with this id."),
        E::IdentityTaken => (409_160, "The identity is linked to another account."),
        E::UnknownInvitation => (404_161, "There is no open invitation with this id."),
        E::AlreadyInvited => {
            (409_162, "An invitation for the same address or identity is open: take it back first.")
        }
        E::InvalidPassword => (400_161, "The old password is wrong. The session of the user is not touched."),
        E::PasswordUnacceptable => {
            (400_162, "The new password is not what the tenant asks for; the message tells why.")
        }
        E::NoLocalPassword => (409_163, "The user has no local password; an administrator sets the first one."),
        E::PasswordLocked => {
            (429_160, "Too many wrong passwords of this user; `Retry-After` tells when one is looked at again.")
        }
        E::PasswordCheckBusy => {
            (503_160, "Too many passwords are being checked; `Retry-After` tells when to try again.")
        }
        E::UnknownDevice => (404_162, "The user has no device with this id, or it is not trusted."),
        E::DeviceTrustNotAllowed => (
            403_162,
            "This session may not trust this device: the message tells whether the policy, the missing factor, the age of the session or the device stands against it.",
        ),
        E::LastIdentity => (
            409_161,
            "Without this identity the user could not sign in any more: link another one of an enabled provider first.",
        ),
        E::NotFound => (404_001, "There is nothing at this address."),
        E::UnknownTenant => (404_002, "No tenant is served under this header or host."),
        E::UnknownProvider => (404_003, "No provider with this name is enabled."),
        E::UnknownClient => (404_120, "No client of this tenant has this `client_id`."),
        E::MethodNotAllowed => (405_001, "The address takes other methods."),
        E::AccountExists => (
            409_001,
            "Another account holds this e-mail address: sign in as before. With a `link_token` beside it, that account can link this identity.",
        ),
        E::SignInConflict => {
            (409_002, "Another sign-in of the same identity was being written: try again with a new ID token.")
        }
        E::BodyTooLarge => (413_001, "The body is larger than 64 KiB, or one with a policy bundle than 1 MiB."),
        E::UnsupportedMediaType => (
            415_001,
            "The body must be of the media type that the document names: `application/json`, or a form at the OAuth endpoints.",
        ),
        E::MfaLocked => (429_001, "Too many wrong codes of this user; `Retry-After` tells when to try again."),
        E::TooManyRequests => (
            429_002,
            "Too many sign-ins, refreshes or answers came from this network (an IPv4 address, or a /64 of IPv6); `Retry-After` tells when to try again.",
        ),
        E::InvalidRequest => (
            400_120,
            "The request of an OAuth endpoint is not well formed, or its subject token is not accepted; `reason` and the message tell why.",
        ),
        E::InvalidGrant => (
            400_121,
            "The refresh token is not good for this client, and `reason` tells why: sign in again. After `refresh_token_reused` its session has been ended.",
        ),
        E::UnauthorizedClient => (400_122, "The client may not use this grant, this provider, or this token."),
        E::UnsupportedGrantType => {
            (400_123, "The `grant_type` is neither RFC 8693 token exchange nor `refresh_token`.")
        }
        E::InvalidTarget => (400_124, "The audience or resource is not one that the client may ask for."),
        E::InvalidScope => (400_125, "A `scope` was asked for; access tokens have none here."),
        E::InvalidDpopProof => (
            400_126,
            "The header `DPoP` is there twice, or its proof is malformed, too old, used before, or for another request or key (RFC 9449).",
        ),
        E::InvalidClient => {
            (401_120, "The client is not known in this tenant, or did not prove who it is in the way of its kind.")
        }
        E::DpopProofRequired => (
            401_121,
            "The access token is bound to a key: send it as `Authorization: DPoP …` with a proof in the header `DPoP` (RFC 9449 section 7).",
        ),
        E::MfaRequired => (
            403_120,
            "A second factor is needed first: answer the challenge in this body at `POST /auth/mfa/verify-challenge`, which gives the tokens.",
        ),
        E::InvalidCursor => (400_140, "The cursor is not one that this list gave: begin without one."),
        E::MissingAdminKey => (401_140, "The operation needs an admin key in `Authorization: Bearer csk_…`."),
        E::InvalidAdminKey => (401_141, "The admin key is not known, was revoked, or has expired."),
        E::TooManyAdminKeys => (
            429_140,
            "Too many wrong admin keys came from this address; `Retry-After` tells when one is looked at again.",
        ),
        E::AdminRoleInsufficient => {
            (403_140, "The admin key's role may not do this; the message names the one that may.")
        }
        E::AdminScopeInsufficient => {
            (403_141, "The admin key is for one tenant, and the operation is about another or about the server.")
        }
        E::InvalidSettings => {
            (400_141, "The settings break a rule of the configuration; the message tells all that is wrong.")
        }
        E::ProviderDisabled => (
            403_142,
            "The provider is disabled or gone. Sign-ins, sessions and challenges through it open nothing until it is enabled again.",
        ),
        E::ManagedByConfig => (409_140, "The configuration file says what this is: change it there."),
        E::AlreadyExists => (409_141, "There is one of this name already."),
        E::TenantNotEmpty => (409_142, "The tenant has users, providers or clients: remove them first."),
        E::UnknownUser => (404_141, "No user of the tenant has this identifier, or it is erased."),
        E::UnknownSignIn => (404_142, "No recorded sign-in of the tenant has this identifier."),
        E::UnknownSession => {
            (404_143, "No session of the tenant, or of the user that asks, lives under this identifier.")
        }
        E::PolicyUnusable => {
            (400_180, "The files make no bundle, or a script does not compile; the message has the place.")
        }
        E::PolicySignatureRefused => {
            (400_181, "The bundle's signature is missing where the configuration asks for one, or it is wrong.")
        }
        E::UnknownPolicy => (404_180, "No bundle with this identifier is one that the tenant can have."),
        E::UnknownDecision => (404_181, "No decision is kept under this identifier: it is another's, or too old."),
        E::PolicyNotPassed => {
            (409_180, "The bundle does not pass the check, its cases or the coverage of reasons.")
        }
        E::PolicyNothingBefore => (409_181, "Nothing was activated here, so there is nothing to go back to."),
        E::UnknownAdminKey => (404_140, "No living admin key has this identifier in the key's scope."),
        E::InternalError => {
            (500_001, "A defect of the server, not of the request. It is in the log under the request id.")
        }
        E::ProviderUnavailable => (
            503_001,
            "The provider's keys, or a plugin that it needs, cannot be had now; `Retry-After` tells when to try again.",
        ),
        E::IdTokenRejected => {
            (401_200, "The provider's own verifier, a plugin, refuses the ID token; the message holds its reason.")
        }
        E::TooManyMessages => (
            429_200,
            "Too many codes were sent for this challenge or to this user; `Retry-After` tells when to try again.",
        ),
        E::ChannelUnavailable => {
            (503_200, "The code cannot be sent or checked now; `Retry-After` tells when to try again.")
        }
        E::StoreUnavailable => (503_002, "The store does not answer now; `Retry-After` tells when to try again."),
        E::RequestTimeout => {
            (503_003, "The request was not finished in time; `Retry-After` tells when to try again.")
        }
    };
    Row { number, meaning }
}

/// The body of every refusal.
#[derive(Debug, Clone, Object)]
#[oai(rename = "dto.Error", skip_serializing_if_is_none)]
pub struct ErrorBody {
    /// HTTP status × 1000 + a number that never changes its meaning.
    pub code: u32,
    /// The stable word for it.
    pub error: String,
    /// For people: what was seen and what is allowed. May change.
    pub message: String,
    /// When, RFC 3339 in UTC.
    pub timestamp: String,
    /// The request, for support and logs.
    pub request_id: String,
    /// Of a provider with `test_mode` alone, and never without it: all checks of the ID token in order.
    #[oai(skip_serializing_if_is_none)]
    pub checks: Option<Vec<TokenCheck>>,
    /// Only beside `account_exists`, at a provider that links after confirmation: hand it in at
    /// `POST /auth/me/identities` with a fresh session of the existing account, within 10 minutes, once.
    pub link_token: Option<String>,
}

/// A refusal on its way out.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Which one.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// Seconds until another try makes sense.
    pub retry_after_s: Option<u64>,
    /// The methods that the address takes, for 405.
    pub allow: Option<HeaderValue>,
    /// The checks of an ID token, in test mode.
    pub checks: Option<Box<[TokenCheck]>>,
    /// What links the refused identity; see [`ErrorBody::link_token`].
    pub link_token: Option<Box<OfferedLink>>,
    /// What an OAuth endpoint adds; its body has the form of RFC 6749 section 5.2 as well.
    pub oauth: Option<Box<OAuthDetails>>,
}

impl Problem {
    /// With this message.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let retry_after_s = match code {
            ErrorCode::ProviderUnavailable | ErrorCode::ChannelUnavailable => Some(5),
            ErrorCode::StoreUnavailable | ErrorCode::RequestTimeout => Some(1),
            _ => None,
        };
        Self {
            code,
            message: message.into(),
            retry_after_s,
            allow: None,
            checks: None,
            oauth: None,
            link_token: None,
        }
    }

    /// With a time to wait.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds.max(1));
        self
    }

    /// Writes it out.
    #[must_use]
    pub fn into_response_for(self, request_id: RequestId) -> Response {
        let row = row(self.code);
        let timestamp = SystemClock.now().to_rfc3339();
        let (error, request_id) = (self.code.as_str().to_owned(), request_id.to_string());
        let body = match self.oauth {
            Some(details) => OAuthErrorBody::new(row.number, error, self.message, timestamp, request_id, *details)
                .to_json_string(),
            None => {
                let link_token = self.link_token.map(|link| link.0);
                let (message, checks) = (self.message, self.checks.map(Vec::from));
                ErrorBody { code: row.number, error, message, timestamp, request_id, checks, link_token }
                    .to_json_string()
            }
        };
        let mut response = Response::builder()
            .status(row.status())
            .content_type("application/json")
            .header(header::CACHE_CONTROL, "no-store")
            .body(body);
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, allow);
        }
        if row.status() == StatusCode::UNAUTHORIZED {
            let challenge = match self.code {
                ErrorCode::InvalidClient => "Basic realm=\"oauth\"",
                ErrorCode::DpopProofRequired => "DPoP error=\"invalid_dpop_proof\"",
                _ => "Bearer",
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Problem {}

impl poem::error::ResponseError for Problem {
    fn status(&self) -> StatusCode {
        row(self.code).status()
    }

    fn as_response(&self) -> Response {
        super::reply::carry(self.clone())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        super::reply::carry(self)
    }
}

/// `openapi/errors.md`.
#[must_use]
pub fn error_table() -> String {
    let mut codes: Vec<ErrorCode> = ErrorCode::ALL.to_vec();
    codes.sort_by_key(|c| row(*c).number);
    let mut text = String::from(
        "# Errors\n\nGenerated from the code by `countersign openapi`; do not edit.\n\n\
         Every refusal has the form `dto.Error`. A number and its word never change their meaning; new ones \
         may come. The message is for people and may change.\n\n\
         | HTTP | code | error | meaning |\n|---|---|---|---|\n",
    );
    for code in codes {
        let row = row(code);
        text.push_str(&format!(
            "| {} | {} | `{}` | {} |\n",
            row.status().as_u16(),
            row.number,
            code.as_str(),
            row.meaning
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_are_unique_and_begin_with_their_status() {
        let numbers: HashSet<u32> = ErrorCode::ALL.iter().map(|c| row(*c).number).collect();
        assert_eq!(numbers.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            let status = row(*code).status();
            assert!(status.is_client_error() || status.is_server_error(), "{code:?}");
            assert_eq!(u32::from(status.as_u16()), row(*code).number / 1000);
        }
    }

    #[test]
    fn the_numbers_of_the_contract_stand() {
        assert_eq!(row(ErrorCode::IdTokenExpired).number, 401_003);
        assert_eq!(row(ErrorCode::RefreshTokenReused).number, 400_002);
    }
}
