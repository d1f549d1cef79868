//! Step 12: what is kept of a sign-in. No token, no claim, no address.

use std::sync::Arc;

use super::history::{ContextPrint, PastEnd};
use super::rules::Level;
use crate::clock::UnixTime;
use crate::ids::{EventId, RequestId, SessionId, TenantId, UserId};

/// One row of history, and what `explain` shows.
#[derive(Debug, Clone)]
pub struct SignInRecord {
    /// Its identifier.
    pub id: EventId,
    /// The moment of the sign-in.
    pub at: UnixTime,
    /// The tenant.
    pub tenant: TenantId,
    /// The provider.
    pub provider: Arc<str>,
    /// The user, when one was found or created.
    pub user: Option<UserId>,
    /// How it ended.
    pub end: PastEnd,
    /// The stable code of a denial or refusal.
    pub code: Option<Arc<str>>,
    /// Where and with what.
    pub context: ContextPrint,
    /// The assessment, when the path came so far.
    pub assessment: Option<AssessmentRecord>,
    /// The session that came of it.
    pub session: Option<SessionId>,
}

/// What is kept of an assessment.
#[derive(Debug, Clone)]
pub struct AssessmentRecord {
    /// 0 to 100.
    pub score: i64,
    /// Its level.
    pub level: Level,
    /// The policy files that decided.
    pub policy: Arc<str>,
    /// Reasons with their points; they add up to the score.
    pub reasons: Vec<(Arc<str>, i64)>,
    /// Where the tenant's script failed, if it did.
    pub fault: Option<String>,
}

/// The provider says by another subject that somebody else has the verified address of a user now. Holds
/// neither address nor subject.
#[derive(Debug, Clone)]
pub struct SubjectChanged {
    /// Its identifier.
    pub event: EventId,
    /// When.
    pub at: UnixTime,
    /// The tenant.
    pub tenant: TenantId,
    /// The user whose address it is here.
    pub user: UserId,
    /// The provider.
    pub provider: Arc<str>,
    /// The record of the refused sign-in.
    pub sign_in: EventId,
    /// The request.
    pub request: RequestId,
}
