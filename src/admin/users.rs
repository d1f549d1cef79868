//! Users, their identities, factors, sessions and sign-ins, as an administrator sees and changes them.
//! Every look-up names the tenant: a user of another one is nobody.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;

use super::audit::Author;
use super::page::{Page, Paged};
use crate::clock::UnixTime;
use crate::ids::{EventId, SessionId, TenantId, UserId};
use crate::mfa::Factor;
use crate::session::ports::StoredSession;
use crate::signin::history::PastEnd;
use crate::signin::ports::StoreError;
use crate::signin::record::SignInRecord;
use crate::signin::rules::Level;
use crate::signin::user::{User, UserStatus};

/// What a search text asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserQuery {
    /// Identifiers from this one to that one: those that begin with a text.
    Ids(UserId, UserId),
    /// An e-mail address or a user name that begins so, in any case.
    Prefix(String),
    /// Nobody can be meant.
    Nobody,
}

impl UserQuery {
    /// Reads a search text: what begins with `usr_` is an identifier or the beginning of one.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let Some(begun) = text.strip_prefix(UserId::PREFIX) else { return Self::Prefix(text.to_owned()) };
        // 16 bytes are 26 symbols, the last of which ends in two zero bits.
        let Some(missing) = 26usize.checked_sub(begun.len()) else { return Self::Nobody };
        let least = format!("{text}{}", "0".repeat(missing));
        let mut greatest = format!("{text}{}", "z".repeat(missing));
        if missing > 0 {
            greatest.pop();
            greatest.push('w');
        }
        match (least.parse(), greatest.parse()) {
            (Ok(least), Ok(greatest)) => Self::Ids(least, greatest),
            _ => Self::Nobody,
        }
    }
}

/// Which users to list.
#[derive(Debug, Clone)]
pub struct UserFilter {
    /// Of this tenant.
    pub tenant: TenantId,
    /// With this status; without one, all but the deleted.
    pub status: Option<UserStatus>,
    /// That this fits.
    pub query: Option<UserQuery>,
}

/// An identity of a user.
#[derive(Debug, Clone)]
pub struct LinkedIdentity {
    /// The provider's name.
    pub provider: String,
    /// The verified issuer.
    pub issuer: String,
    /// The verified subject.
    pub subject: String,
    /// When it became the user's.
    pub created_at: UnixTime,
}

/// Which sessions to list.
#[derive(Debug, Clone)]
pub struct SessionFilter {
    /// Of this tenant.
    pub tenant: TenantId,
    /// Of this user.
    pub user: Option<UserId>,
    /// Those that live at this moment.
    pub now: UnixTime,
}

/// Everything that is kept of a user, without secrets.
#[derive(Debug)]
pub struct UserExport {
    /// The user.
    pub user: User,
    /// Its identities.
    pub identities: Vec<LinkedIdentity>,
    /// Its factors.
    pub factors: Vec<Factor>,
    /// How many backup codes it has.
    pub backup_codes_left: u32,
    /// Its living sessions.
    pub sessions: Vec<StoredSession>,
    /// Its sign-ins, newest first, at most [`EXPORTED_SIGN_INS`].
    pub sign_ins: Vec<SignInRecord>,
    /// Whatever else is kept, by its kind: what the password is like, trusted devices, invitations, offers of
    /// links, labels of sign-ins, open challenges, tries that failed.
    pub records: BTreeMap<String, Vec<Value>>,
}

/// The most sign-ins of an export.
pub const EXPORTED_SIGN_INS: u32 = 10_000;

/// Users in the store.
#[async_trait]
pub trait UserAdmin: Send + Sync {
    /// Users, newest first.
    async fn list_users(&self, filter: &UserFilter, page: &Page) -> Result<Paged<User>, StoreError>;
    /// A user, a deleted one too.
    async fn find_user(&self, tenant: &TenantId, user: UserId) -> Result<Option<User>, StoreError>;
    /// A user's identities.
    async fn identities(&self, tenant: &TenantId, user: UserId) -> Result<Vec<LinkedIdentity>, StoreError>;
    /// Living sessions, newest first.
    async fn list_sessions(&self, filter: &SessionFilter, page: &Page) -> Result<Paged<StoredSession>, StoreError>;
    /// Sets whether a user may sign in, and ends its sessions if that is asked. `None` when there is no such
    /// user, or it is deleted.
    async fn set_status(
        &self,
        tenant: &TenantId,
        user: UserId,
        status: UserStatus,
        end_sessions: bool,
        author: Author,
    ) -> Result<Option<User>, StoreError>;
    /// Ends a session. `false` when none of the tenant lives under this identifier.
    async fn end_session(&self, tenant: &TenantId, session: SessionId, author: Author) -> Result<bool, StoreError>;
    /// Ends all sessions of a user, and tells how many. `None` when there is no such user.
    async fn end_sessions(
        &self,
        tenant: &TenantId,
        user: UserId,
        author: Author,
    ) -> Result<Option<u64>, StoreError>;
    /// Removes all factors of a user and what counts against it, and tells how many factors. `None` when
    /// there is no such user.
    async fn reset_mfa(&self, tenant: &TenantId, user: UserId, author: Author) -> Result<Option<u64>, StoreError>;
    /// Erases a user: whatever names it goes, but for an empty row with its identifier, so that what the
    /// audit log says of it still has an end. `false` when there is no such user, or it is deleted.
    async fn erase(&self, tenant: &TenantId, user: UserId, author: Author) -> Result<bool, StoreError>;
    /// Everything that is kept of a user; leaves an audit record. `None` when there is no such user.
    async fn export(
        &self,
        tenant: &TenantId,
        user: UserId,
        author: Author,
    ) -> Result<Option<UserExport>, StoreError>;
}

/// Which sign-ins to list; what is `None` does not matter.
#[derive(Debug, Clone)]
pub struct SignInFilter {
    /// Of this tenant.
    pub tenant: TenantId,
    /// Of this user.
    pub user: Option<UserId>,
    /// Through this provider.
    pub provider: Option<String>,
    /// That ended so.
    pub end: Option<PastEnd>,
    /// With this level.
    pub level: Option<Level>,
    /// Not before.
    pub from: Option<UnixTime>,
    /// Before.
    pub until: Option<UnixTime>,
}

/// How many sign-ins ended in one way.
#[derive(Debug, Clone)]
pub struct EndCount {
    /// The way.
    pub end: PastEnd,
    /// The code of a denial or refusal.
    pub code: Option<String>,
    /// How many.
    pub count: u64,
}

/// Records of sign-ins in the store.
#[async_trait]
pub trait SignInLog: Send + Sync {
    /// Records, newest first.
    async fn list_sign_ins(&self, filter: &SignInFilter, page: &Page) -> Result<Paged<SignInRecord>, StoreError>;
    /// One record.
    async fn find_sign_in(&self, tenant: &TenantId, id: EventId) -> Result<Option<SignInRecord>, StoreError>;
    /// Counts of one provider's records from a moment on.
    async fn count_ends(
        &self,
        tenant: &TenantId,
        provider: &str,
        from: UnixTime,
    ) -> Result<Vec<EndCount>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SystemEntropy;

    #[test]
    fn a_beginning_of_an_identifier_finds_it_and_nonsense_finds_nobody() {
        let id = UserId::generate(UnixTime::from_secs(1_780_000_000), &SystemEntropy);
        let text = id.to_string();
        for length in 4..=text.len() {
            let UserQuery::Ids(least, greatest) = UserQuery::parse(&text[..length]) else { panic!("{length}") };
            assert!(least <= id && id <= greatest, "{length}");
            assert_eq!(least == greatest, length == text.len());
        }
        for nonsense in ["usr_!", "usr_U", &format!("{text}0")] {
            assert_eq!(UserQuery::parse(nonsense), UserQuery::Nobody, "{nonsense}");
        }
        assert_eq!(UserQuery::parse("Ada@"), UserQuery::Prefix("Ada@".to_owned()));
    }
}
