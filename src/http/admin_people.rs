//! Shapes of users, sessions and sign-ins for administrators: what clients never see stands here.

use std::collections::BTreeMap;

use poem_openapi::types::Any;
use poem_openapi::{Enum, Object};
use serde_json::{Map, Value};

use super::dto::{FactorInfo, RiskLevel};
use crate::admin::users::{LinkedIdentity, UserExport};
use crate::clock::UnixTime;
use crate::session::ports::StoredSession;
use crate::signin::history::PastEnd;
use crate::signin::record::SignInRecord;
use crate::signin::user::{User, UserStatus};

/// A user as an administrator sees it.
#[derive(Debug, Object)]
#[oai(rename = "dto.AdminUser", skip_serializing_if_is_none)]
pub struct AdminUser {
    /// The identifier, `usr_…`.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// `active`, `pending`, `disabled`, `locked` or `deleted`.
    pub status: String,
    /// The e-mail address.
    pub email: Option<String>,
    /// Whether a provider that is trusted for it verified the address.
    pub email_verified: bool,
    /// The user name.
    pub username: Option<String>,
    /// The display name.
    pub name: Option<String>,
    /// The phone number.
    pub phone: Option<String>,
    /// Whether the provider verified the number.
    pub phone_verified: bool,
    /// The language, BCP 47.
    pub locale: Option<String>,
    /// Groups that the mapping granted.
    pub groups: Vec<String>,
    /// What else the mapping told.
    pub attributes: Any<Map<String, Value>>,
    /// When it was created, RFC 3339 in UTC.
    pub created_at: String,
}

impl From<&User> for AdminUser {
    fn from(user: &User) -> Self {
        let profile = user.profile.clone();
        Self {
            id: user.id.to_string(),
            tenant: user.tenant.to_string(),
            status: user.status.as_str().to_owned(),
            email: profile.email,
            email_verified: profile.email_verified,
            username: profile.username,
            name: profile.name,
            phone: profile.phone,
            phone_verified: profile.phone_verified,
            locale: profile.locale,
            groups: profile.groups,
            attributes: Any(profile.attributes.into_iter().collect()),
            created_at: user.created_at.to_rfc3339(),
        }
    }
}

/// Users, newest first.
#[derive(Debug, Object)]
#[oai(rename = "dto.AdminUserPage", skip_serializing_if_is_none)]
pub struct AdminUserPage {
    /// The users.
    pub items: Vec<AdminUser>,
    /// Pass it as `cursor` for the next page. Absent: these were the last.
    pub next_cursor: Option<String>,
}

/// A status that an administrator can set.
#[derive(Debug, Clone, Copy, Enum)]
#[oai(rename = "dto.SettableStatus", rename_all = "lowercase")]
pub enum SettableStatus {
    /// May sign in.
    Active,
    /// May not.
    Disabled,
    /// May not for now.
    Locked,
}

impl From<SettableStatus> for UserStatus {
    fn from(status: SettableStatus) -> Self {
        match status {
            SettableStatus::Active => Self::Active,
            SettableStatus::Disabled => Self::Disabled,
            SettableStatus::Locked => Self::Locked,
        }
    }
}

/// What a user's status becomes.
#[derive(Object)]
#[oai(rename = "dto.SetUserStatusRequest", skip_serializing_if_is_none)]
pub struct SetStatusRequest {
    /// The status.
    pub status: SettableStatus,
    /// Whether its sessions are ended at once. Absent: those of a disabled user are.
    pub end_sessions: Option<bool>,
}

/// An identity of a user.
#[derive(Debug, Object)]
#[oai(rename = "dto.AdminIdentity")]
pub struct IdentityInfo {
    /// The provider's name.
    pub provider: String,
    /// The verified issuer.
    pub issuer: String,
    /// The verified subject.
    pub subject: String,
    /// When it became the user's, RFC 3339 in UTC.
    pub created_at: String,
}

impl From<&LinkedIdentity> for IdentityInfo {
    fn from(identity: &LinkedIdentity) -> Self {
        Self {
            provider: identity.provider.clone(),
            issuer: identity.issuer.clone(),
            subject: identity.subject.clone(),
            created_at: identity.created_at.to_rfc3339(),
        }
    }
}

/// Identities of a user.
#[derive(Debug, Object)]
#[oai(rename = "dto.AdminIdentitiesResponse")]
pub struct IdentitiesResponse {
    /// The identities.
    pub identities: Vec<IdentityInfo>,
}

/// A living session.
#[derive(Debug, Object)]
#[oai(rename = "dto.AdminSession", skip_serializing_if_is_none)]
pub struct SessionInfo {
    /// The identifier, `ses_…`.
    pub id: String,
    /// The user.
    pub user_id: String,
    /// The provider that it came through.
    pub provider: String,
    /// The client at the provider.
    pub client_id: String,
    /// The level of its sign-in.
    pub risk_level: RiskLevel,
    /// How the user proved itself (RFC 8176).
    pub amr: Vec<String>,
    /// When the user did, RFC 3339 in UTC.
    #[oai(rename = "authenticated_at")]
    pub auth_time: String,
    /// When it began.
    pub created_at: String,
    /// When it ends, whatever is refreshed. Absent: when it is not refreshed any more.
    pub ends_at: Option<String>,
}

impl From<&StoredSession> for SessionInfo {
    fn from(session: &StoredSession) -> Self {
        let grant = &session.grant;
        Self {
            id: session.id.to_string(),
            user_id: grant.user.to_string(),
            provider: grant.provider.to_string(),
            client_id: grant.client_id.to_string(),
            risk_level: grant.level.into(),
            amr: grant.amr.clone(),
            auth_time: grant.auth_time.to_rfc3339(),
            created_at: session.created_at.to_rfc3339(),
            ends_at: session.ends_at.map(UnixTime::to_rfc3339),
        }
    }
}

/// Living sessions of a user.
#[derive(Debug, Object)]
#[oai(rename = "dto.AdminSessionsResponse")]
pub struct SessionsResponse {
    /// The sessions, newest first.
    pub sessions: Vec<SessionInfo>,
}

/// Living sessions, newest first.
#[derive(Debug, Object)]
#[oai(rename = "dto.AdminSessionPage", skip_serializing_if_is_none)]
pub struct SessionPage {
    /// The sessions.
    pub items: Vec<SessionInfo>,
    /// Pass it as `cursor` for the next page. Absent: these were the last.
    pub next_cursor: Option<String>,
}

/// How a sign-in ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "dto.SignInOutcome", rename_all = "snake_case")]
pub enum OutcomeWord {
    /// Tokens without a local second factor.
    SignedIn,
    /// Tokens after a second factor.
    MfaPassed,
    /// A challenge; how it ended is a record of its own.
    Challenged,
    /// A wrong code.
    MfaFailed,
    /// A denial by the rules.
    Denied,
    /// A refusal for another cause.
    Refused,
}

impl From<PastEnd> for OutcomeWord {
    fn from(end: PastEnd) -> Self {
        match end {
            PastEnd::SignedIn => Self::SignedIn,
            PastEnd::MfaPassed => Self::MfaPassed,
            PastEnd::Challenged => Self::Challenged,
            PastEnd::MfaFailed => Self::MfaFailed,
            PastEnd::Denied => Self::Denied,
            PastEnd::Refused => Self::Refused,
        }
    }
}

impl From<OutcomeWord> for PastEnd {
    fn from(word: OutcomeWord) -> Self {
        match word {
            OutcomeWord::SignedIn => Self::SignedIn,
            OutcomeWord::MfaPassed => Self::MfaPassed,
            OutcomeWord::Challenged => Self::Challenged,
            OutcomeWord::MfaFailed => Self::MfaFailed,
            OutcomeWord::Denied => Self::Denied,
            OutcomeWord::Refused => Self::Refused,
        }
    }
}

/// A reason of an assessment.
#[derive(Debug, Object)]
#[oai(rename = "dto.ReasonPoints")]
pub struct ReasonPoints {
    /// The code.
    pub reason: String,
    /// Its points.
    pub points: i64,
}

/// A sign-in that was recorded: its token was verified, whatever came of it.
#[derive(Debug, Object)]
#[oai(rename = "dto.SignInRecord", skip_serializing_if_is_none)]
pub struct SignInInfo {
    /// The identifier, `evt_…`.
    pub id: String,
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// The tenant.
    pub tenant: String,
    /// The provider.
    pub provider: String,
    /// The user, when one was found or created.
    pub user_id: Option<String>,
    /// How it ended.
    pub outcome: OutcomeWord,
    /// The code of a denial or refusal.
    pub error: Option<String>,
    /// 0 to 100, when it was assessed.
    pub score: Option<i64>,
    /// The level.
    pub risk_level: Option<RiskLevel>,
    /// Why; the points add up to the score.
    pub reasons: Vec<ReasonPoints>,
    /// The policy that decided.
    pub policy: Option<String>,
    /// Where the tenant's script failed, if it did.
    pub policy_fault: Option<String>,
    /// The country, ISO 3166-1 alpha-2, when it is known.
    pub country: Option<String>,
    /// The autonomous system, when it is known.
    pub asn: Option<i64>,
    /// The session that came of it.
    pub session_id: Option<String>,
}

impl From<&SignInRecord> for SignInInfo {
    fn from(record: &SignInRecord) -> Self {
        let assessment = record.assessment.as_ref();
        let reasons = assessment.map_or(&[][..], |a| &a.reasons);
        Self {
            id: record.id.to_string(),
            at: record.at.to_rfc3339(),
            tenant: record.tenant.to_string(),
            provider: record.provider.to_string(),
            user_id: record.user.map(|u| u.to_string()),
            outcome: record.end.into(),
            error: record.code.as_ref().map(ToString::to_string),
            score: assessment.map(|a| a.score),
            risk_level: assessment.map(|a| a.level.into()),
            reasons: reasons
                .iter()
                .map(|(reason, points)| ReasonPoints { reason: reason.to_string(), points: *points })
                .collect(),
            policy: assessment.map(|a| a.policy.to_string()),
            policy_fault: assessment.and_then(|a| a.fault.clone()),
            country: record.context.country.as_ref().map(ToString::to_string),
            asn: record.context.asn,
            session_id: record.session.map(|s| s.to_string()),
        }
    }
}

/// Sign-ins, newest first.
#[derive(Debug, Object)]
#[oai(rename = "dto.SignInPage", skip_serializing_if_is_none)]
pub struct SignInPage {
    /// The sign-ins.
    pub items: Vec<SignInInfo>,
    /// Pass it as `cursor` for the next page. Absent: these were the last.
    pub next_cursor: Option<String>,
}

/// Everything that is kept of a user.
#[derive(Debug, Object)]
#[oai(rename = "dto.UserExport")]
pub struct UserExportInfo {
    /// The user.
    pub user: AdminUser,
    /// Its identities.
    pub identities: Vec<IdentityInfo>,
    /// Its factors, without their secrets.
    pub factors: Vec<FactorInfo>,
    /// Its living sessions.
    pub sessions: Vec<SessionInfo>,
    /// Its sign-ins, newest first, at most 10 000.
    pub sign_ins: Vec<SignInInfo>,
    /// Whatever else is kept, by its kind: `passwords` (when it changed, not its hash), `trusted_devices`,
    /// `invitations`, `link_offers`, `sign_in_labels`, `challenges`, `mfa_attempts`, `mfa_deliveries`,
    /// `mfa_locks`, `password_attempts`. Times are RFC 3339 in UTC. A kind without rows is absent.
    pub records: Any<BTreeMap<String, Vec<Value>>>,
}

impl From<&UserExport> for UserExportInfo {
    fn from(export: &UserExport) -> Self {
        Self {
            user: (&export.user).into(),
            identities: export.identities.iter().map(Into::into).collect(),
            factors: FactorInfo::listed(&export.factors, export.backup_codes_left),
            sessions: export.sessions.iter().map(Into::into).collect(),
            sign_ins: export.sign_ins.iter().map(Into::into).collect(),
            records: Any(export.records.clone()),
        }
    }
}

/// How many sign-ins ended in one way.
#[derive(Debug, Object)]
#[oai(rename = "dto.OutcomeCount", skip_serializing_if_is_none)]
pub struct OutcomeCount {
    /// How.
    pub outcome: OutcomeWord,
    /// The code of a denial or refusal.
    pub error: Option<String>,
    /// How many.
    pub count: u64,
}

/// Sign-ins through one provider.
#[derive(Debug, Object)]
#[oai(rename = "dto.ProviderStats")]
pub struct ProviderStats {
    /// From this moment on, RFC 3339 in UTC.
    #[oai(rename = "counted_from_at")]
    pub from: String,
    /// All of them.
    pub total: u64,
    /// By outcome and code.
    pub outcomes: Vec<OutcomeCount>,
}
