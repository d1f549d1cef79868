//! The shapes of the contract. Core types are turned into these here and nowhere else. What holds a token,
//! a secret or a code is not printable.

use poem_openapi::{Enum, Object};

use super::text::Text;
use crate::clock::UnixTime;
use crate::mfa::{Factor, MfaMethod};
use crate::people::passwords::{self as people, PasswordStatus};
use crate::session::issue::IssuedTokens;
use crate::signin::decision::recommended_methods;
use crate::signin::pipeline::Outcome;
use crate::signin::record::AssessmentRecord;
use crate::signin::rules::Level;
use crate::signin::trace::{Checked, Status};
use crate::signin::user::User;

/// What an application sends to sign a user in.
#[derive(Default, Object)]
#[oai(rename = "dto.IDTokenSignInRequest", skip_serializing_if_is_none)]
pub struct SignInRequest {
    /// The ID token that the provider issued. Without it the answer is 400 `missing_id_token`.
    pub id_token: Option<Text>,
    /// The provider's name in the tenant. Absent: found by the token's `iss` and `aud`.
    pub provider: Option<Text>,
    /// The raw nonce of the sign-in at the provider. The token may hold it raw, or its SHA-256 in hex or
    /// base64url.
    pub nonce: Option<Text>,
    /// The provider's access token; checked against `at_hash`.
    pub access_token: Option<Text>,
    /// A stable identifier of the device or installation, at most 256 bytes. A challenge that comes
    /// of this sign-in must be answered with the same one.
    pub device_id: Option<Text>,
    /// What `POST /auth/me/devices/trust` gave for this `device_id`, while the device is trusted.
    pub device_secret: Option<Text>,
    /// What the provider told the application beside the token.
    pub profile: Option<ProfileHint>,
}

/// A first-sign-in hint, such as Apple's. Stored once, for a new user only, and marked as unverified.
#[derive(Default, Object)]
#[oai(rename = "dto.ProfileHint", skip_serializing_if_is_none)]
pub struct ProfileHint {
    /// The display name, at most 256 bytes of UTF-8.
    pub name: Option<Text>,
}

/// A nonce for one sign-in at a provider with `nonce = "server_issued"`.
#[derive(Object)]
#[oai(rename = "dto.NonceResponse")]
pub struct NonceResponse {
    /// Pass it to the provider, raw or hashed as its SDK wants, and raw in the sign-in request.
    pub nonce: String,
    /// Seconds until it expires.
    pub expires_in: u64,
}

/// The published risk vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "dto.RiskLevel", rename_all = "snake_case")]
pub enum RiskLevel {
    /// Nothing speaks against the sign-in.
    Low,
    /// A second factor is asked for.
    Medium,
    /// A strong second factor is asked for.
    High,
}

impl From<Level> for RiskLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Low => Self::Low,
            Level::Medium => Self::Medium,
            Level::High => Self::High,
        }
    }
}

/// How near the end of a local password is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "dto.PasswordWarning", rename_all = "snake_case")]
pub enum PasswordWarning {
    /// It ends soon.
    Expiring,
    /// It has ended, and still works for some days.
    ExpiredGrace,
    /// It has ended.
    Expired,
}

/// The risk of one sign-in.
#[derive(Debug, Clone, Object)]
#[oai(rename = "dto.RiskAssessmentInfo", skip_serializing_if_is_none)]
pub struct RiskAssessmentInfo {
    /// The level.
    pub level: Option<RiskLevel>,
    /// Methods that would meet this level, best first.
    pub recommended_mfa_methods: Option<Vec<String>>,
    /// Whether this sign-in needs a second factor.
    pub require_mfa: Option<bool>,
    /// 0 to 100.
    #[oai(validator(minimum(value = "0"), maximum(value = "100")))]
    pub score: Option<i64>,
}

/// A user, as its owner may see it.
#[derive(Debug, Clone, Object)]
#[oai(rename = "dto.UserInfo", skip_serializing_if_is_none)]
pub struct UserInfo {
    /// When the user was created, RFC 3339 in UTC.
    pub created_at: Option<String>,
    /// The e-mail address.
    pub email: Option<String>,
    /// The identifier, `usr_…`.
    pub id: Option<String>,
    /// The local password must be changed. Absent without a local password.
    pub must_change_password: Option<bool>,
    /// Days until the local password ends. Absent without a local password.
    pub password_expires_in: Option<i64>,
    /// How near that is. Absent without a local password.
    pub password_warning: Option<PasswordWarning>,
    /// The phone number.
    pub phone: Option<String>,
    /// `active`, `disabled` or `locked`.
    pub status: Option<String>,
    /// The user name.
    pub username: Option<String>,
}

impl From<&User> for UserInfo {
    fn from(user: &User) -> Self {
        Self {
            created_at: Some(user.created_at.to_rfc3339()),
            email: user.profile.email.clone(),
            id: Some(user.id.to_string()),
            must_change_password: None,
            password_expires_in: None,
            password_warning: None,
            phone: user.profile.phone.clone(),
            status: Some(user.status.as_str().to_owned()),
            username: user.profile.username.clone(),
        }
    }
}

/// Tokens, or a challenge: one flat object. `requires_mfa` tells which.
#[derive(Clone, Default, Object)]
#[oai(rename = "dto.LoginResponse", skip_serializing_if_is_none)]
pub struct LoginResponse {
    /// Signed in: an RFC 9068 access token.
    pub access_token: Option<String>,
    /// Challenged: opens `POST /auth/mfa/verify-challenge` and nothing else.
    pub challenge_token: Option<String>,
    /// Seconds until the access token, or the challenge, expires.
    pub expires_in: Option<u64>,
    /// Challenged: the weightiest reason, such as `new_device`.
    pub mfa_check_reason: Option<String>,
    /// The local password must be changed. Absent without a local password.
    pub must_change_password: Option<bool>,
    /// Days until the local password ends. Absent without a local password.
    pub password_expires_in: Option<i64>,
    /// How near that is. Absent without a local password.
    pub password_warning: Option<PasswordWarning>,
    /// Signed in: good for one `POST /auth/refresh`. Absent when the policy gives none.
    pub refresh_token: Option<String>,
    /// Challenged: methods that this user can use now, best first.
    pub required_mfa_methods: Option<Vec<String>>,
    /// Whether a second factor is needed before there are tokens.
    pub requires_mfa: Option<bool>,
    /// Score and level of this sign-in.
    pub risk_assessment: Option<RiskAssessmentInfo>,
    /// The level of this sign-in.
    pub risk_level: Option<RiskLevel>,
    /// Signed in: `Bearer`, or `DPoP` when the sign-in brought a proof of a key.
    pub token_type: Option<String>,
    /// Signed in: the user.
    pub user: Option<UserInfo>,
    /// The user's identifier.
    pub user_id: Option<String>,
}

fn words(methods: &[MfaMethod]) -> Vec<String> {
    methods.iter().map(ToString::to_string).collect()
}

fn risk(assessment: &AssessmentRecord, require_mfa: bool) -> RiskAssessmentInfo {
    RiskAssessmentInfo {
        level: Some(assessment.level.into()),
        recommended_mfa_methods: Some(words(&recommended_methods(assessment.level))),
        require_mfa: Some(require_mfa),
        score: Some(assessment.score),
    }
}

impl From<people::PasswordWarning> for PasswordWarning {
    fn from(warning: people::PasswordWarning) -> Self {
        match warning {
            people::PasswordWarning::Expiring => Self::Expiring,
            people::PasswordWarning::ExpiredGrace => Self::ExpiredGrace,
            people::PasswordWarning::Expired => Self::Expired,
        }
    }
}

impl UserInfo {
    /// With the state of the local password, when there is one.
    #[must_use]
    pub fn with_password(mut self, password: Option<PasswordStatus>) -> Self {
        if let Some(status) = password {
            self.must_change_password = Some(status.must_change);
            self.password_expires_in = status.expires_in_days;
            self.password_warning = status.warning.map(Into::into);
        }
        self
    }
}

impl LoginResponse {
    /// With the state of the user's local password, when there is one: here and in the user.
    #[must_use]
    pub fn with_password(mut self, password: Option<PasswordStatus>) -> Self {
        if let Some(status) = password {
            self.must_change_password = Some(status.must_change);
            self.password_expires_in = status.expires_in_days;
            self.password_warning = status.warning.map(Into::into);
        }
        self.user = self.user.map(|user| user.with_password(password));
        self
    }

    /// Tokens for a user.
    #[must_use]
    pub fn signed_in(tokens: IssuedTokens, user: &User, level: Level) -> Self {
        Self {
            token_type: Some(tokens.token_type().to_owned()),
            access_token: Some(tokens.access_token),
            expires_in: Some(tokens.expires_in.as_secs()),
            refresh_token: tokens.refresh_token,
            requires_mfa: Some(false),
            risk_level: Some(level.into()),
            user: Some(user.into()),
            user_id: Some(user.id.to_string()),
            ..Self::default()
        }
    }

    /// Tokens for a user, with the assessment of this very sign-in.
    #[must_use]
    pub fn assessed(tokens: IssuedTokens, user: &User, assessment: &AssessmentRecord, require_mfa: bool) -> Self {
        let risk_assessment = Some(risk(assessment, require_mfa));
        Self { risk_assessment, ..Self::signed_in(tokens, user, assessment.level) }
    }
}

impl From<Outcome> for LoginResponse {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::SignedIn { tokens, user, assessment } => Self::assessed(tokens, &user, &assessment, false),
            Outcome::Challenged { challenge_token, expires_in, methods, reason, user, assessment } => Self {
                challenge_token: Some(challenge_token),
                expires_in: Some(expires_in.as_secs()),
                mfa_check_reason: Some(reason.to_string()),
                required_mfa_methods: Some(words(&methods)),
                requires_mfa: Some(true),
                risk_assessment: Some(risk(&assessment, true)),
                risk_level: Some(assessment.level.into()),
                user_id: Some(user.to_string()),
                ..Self::default()
            },
        }
    }
}

/// An answer to a challenge.
#[derive(Object)]
#[oai(rename = "dto.VerifyChallengeRequest", skip_serializing_if_is_none)]
pub struct VerifyChallengeRequest {
    /// As it came from the sign-in.
    pub challenge_token: Text,
    /// The code. Of a push, and of a plugin's own method that asks the user: empty, and asked again while the answer is `mfa_pending`.
    pub code: Text,
    /// One of the challenge's `required_mfa_methods`.
    #[oai(default = "default_method")]
    pub mfa_method: Text,
    /// The `device_id` of the sign-in, when it had one.
    pub device_id: Option<Text>,
}

fn default_method() -> Text {
    Text(MfaMethod::Totp.to_string())
}

/// The wish for a code.
#[derive(Object)]
#[oai(rename = "dto.SendCodeRequest", skip_serializing_if_is_none)]
pub struct SendCodeRequest {
    /// As it came from the sign-in.
    pub challenge_token: Text,
    /// `email`, `sms`, `push` or the name of a plugin's own, one of the challenge's `required_mfa_methods`.
    pub mfa_method: Text,
    /// The `device_id` of the sign-in, when it had one.
    pub device_id: Option<Text>,
}

/// A code is on its way.
#[derive(Debug, Object)]
#[oai(rename = "dto.SendCodeResponse")]
pub struct SendCodeResponse {
    /// How it travels.
    pub mfa_method: String,
    /// The address, shortened so that its owner recognises it.
    pub destination: String,
    /// How long the code is good, in seconds.
    pub expires_in: u64,
}

/// A refresh token to exchange.
#[derive(Object)]
#[oai(rename = "dto.RefreshRequest")]
pub struct RefreshRequest {
    /// As it came with the last tokens.
    pub refresh_token: Text,
}

/// What session to end; without a body it is the one of the bearer token.
#[derive(Object)]
#[oai(rename = "dto.LogoutRequest", skip_serializing_if_is_none)]
pub struct LogoutRequest {
    /// A refresh token of the session.
    pub refresh_token: Option<Text>,
}

/// Done, and there is nothing to tell.
#[derive(Debug, Object)]
#[oai(rename = "dto.MessageResponse")]
pub struct MessageResponse {
    /// 0: success.
    pub code: u32,
    /// For people.
    pub message: String,
    /// When, RFC 3339 in UTC.
    pub timestamp: String,
}

impl MessageResponse {
    /// With this text.
    #[must_use]
    pub fn new(message: &str, now: UnixTime) -> Self {
        Self { code: 0, message: message.to_owned(), timestamp: now.to_rfc3339() }
    }
}

/// The signed-in user.
#[derive(Debug, Object)]
#[oai(rename = "dto.UserInfoResponse", skip_serializing_if_is_none)]
pub struct UserInfoResponse {
    /// 0: success.
    pub code: u32,
    /// For people.
    pub message: String,
    /// When, RFC 3339 in UTC.
    pub timestamp: String,
    /// The user.
    pub data: UserInfo,
    /// Groups that the provider's mapping granted. Absent: none.
    pub groups: Option<Vec<String>>,
    /// Roles that the provider's mapping granted. Absent: none.
    pub roles: Option<Vec<String>>,
}

/// A factor of the signed-in user.
#[derive(Debug, Object)]
#[oai(rename = "dto.MFAFactor", skip_serializing_if_is_none)]
pub struct FactorInfo {
    /// The identifier, `fac_…`.
    pub id: String,
    /// `totp` or `backup_code`.
    pub mfa_method: String,
    /// When it was enrolled, RFC 3339 in UTC.
    pub enrolled_at: String,
    /// When it last passed.
    pub last_used_at: Option<String>,
    /// Of backup codes: how many are left. A set goes with its last code.
    pub codes_left: Option<u32>,
}

impl FactorInfo {
    /// Of the factors of a user that has so many backup codes.
    pub fn listed(factors: &[Factor], backup_codes_left: u32) -> Vec<Self> {
        let info = |factor: &Factor| Self {
            codes_left: (factor.method == MfaMethod::BackupCode).then_some(backup_codes_left),
            ..Self::from(factor)
        };
        factors.iter().map(info).collect()
    }
}

impl From<&Factor> for FactorInfo {
    fn from(factor: &Factor) -> Self {
        Self {
            codes_left: None,
            id: factor.id.to_string(),
            mfa_method: factor.method.to_string(),
            enrolled_at: factor.enrolled_at.to_rfc3339(),
            last_used_at: factor.last_used_at.map(UnixTime::to_rfc3339),
        }
    }
}

/// Factors of the signed-in user.
#[derive(Debug, Object)]
#[oai(rename = "dto.MFAFactorsResponse")]
pub struct FactorsResponse {
    /// Confirmed ones.
    pub factors: Vec<FactorInfo>,
}

/// A new factor. The secret is shown this once.
#[derive(Object)]
#[oai(rename = "dto.TOTPEnrolment")]
pub struct TotpEnrolment {
    /// Name it when you confirm.
    pub factor_id: String,
    /// The secret in base32, to type into an authenticator app.
    pub secret: String,
    /// The same for a QR code.
    pub otpauth_uri: String,
}

/// New backup codes. They are shown this once, and earlier ones are not good any more.
#[derive(Object)]
#[oai(rename = "dto.BackupCodes")]
pub struct BackupCodes {
    /// Ten codes, each good once: 60 random bits as `xxxx-xxxx-xxxx`. Capitals, hyphens and spaces do not matter.
    pub codes: Vec<String>,
}

/// The proof that the app has the secret.
#[derive(Object)]
#[oai(rename = "dto.ConfirmTOTPRequest")]
pub struct ConfirmTotpRequest {
    /// As it came with the secret.
    pub factor_id: Text,
    /// A code of the app.
    pub code: Text,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "dto.CheckStatus", rename_all = "snake_case")]
pub enum CheckStatus {
    /// It holds.
    Passed,
    /// It would hold, but no valid signature covers what was looked at: anybody could have written it.
    Unproven,
    /// It does not hold.
    Failed,
    /// It was not run, since a check that it needs failed.
    Skipped,
    /// Neither the provider's rules nor the request ask for it.
    NotApplicable,
}

impl From<Status> for CheckStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Passed => Self::Passed,
            Status::Unproven => Self::Unproven,
            Status::Failed => Self::Failed,
            Status::Skipped => Self::Skipped,
            Status::NotApplicable => Self::NotApplicable,
        }
    }
}

/// One check of an ID token. Holds no token, nonce, address or name.
#[derive(Debug, Clone, Object)]
#[oai(rename = "dto.TokenCheck", skip_serializing_if_is_none)]
pub struct TokenCheck {
    /// The stable word of the check: `shape`, `header`, `provider`, `alg`, `key`, `signature`, `iss`, `tid`,
    /// `aud`, `azp`, `exp`, `iat`, `nbf`, `auth_time`, `age`, `nonce`, `at_hash`, `sub`, `jti`,
    /// `issued_nonce`, `replay`.
    pub check: String,
    /// How it ended.
    pub status: CheckStatus,
    /// What would be right, for people.
    pub expected: String,
    /// What was there, for people; shortened.
    pub seen: String,
    /// The stable word of the refusal, when it failed.
    pub error: Option<String>,
    /// The text of the refusal, when it failed.
    pub message: Option<String>,
}

impl From<Checked> for TokenCheck {
    fn from(checked: Checked) -> Self {
        let (error, message) = match checked.refusal {
            Some((code, text)) => (Some(code.as_str().to_owned()), Some(text)),
            None => (None, None),
        };
        Self {
            check: checked.check.as_str().to_owned(),
            status: checked.status.into(),
            expected: checked.expected,
            seen: checked.seen,
            error,
            message,
        }
    }
}
