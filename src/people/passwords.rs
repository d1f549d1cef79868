//! The state of a local password: how old it is, what is asked of a new one, and its change.
//!
//! Nobody signs in here with a password; applications that keep one for a user keep its state here, and every
//! sign-in and refresh tells how near its end is. What an expired one means for a sign-in through a provider
//! is the tenant's choice ([`ExpiredPassword`]).
//!
//! An attempt is counted before the old password is looked at, as with codes of a second factor.

use std::sync::Arc;
use std::time::Duration;

use super::ports::{ChangeStart, HashError, NewPassword, PasswordHasher, Passwords, StoredPassword};
use crate::admin::audit::Author;
use crate::clock::{Clock, UnixTime};
use crate::codes::ErrorCode;
use crate::ids::{TenantId, UserId};
use crate::secret::Secret;
use crate::session::ports::SessionUser;
use crate::signin::identity::Profile;
use crate::signin::ports::{RiskRules, StoreError};

/// Wrong old passwords of one user within [`PASSWORD_WINDOW`] after which none is looked at.
pub const PASSWORD_ATTEMPTS: u32 = 10;
/// The window of [`PASSWORD_ATTEMPTS`].
pub const PASSWORD_WINDOW: Duration = Duration::from_secs(900);
/// The longest password in bytes: longer ones would only cost time.
pub const MAX_PASSWORD_BYTES: usize = 256;

const DAY_MS: i64 = 86_400_000;

/// What an expired password means for a sign-in through a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiredPassword {
    /// The answer says so.
    Warn,
    /// A second factor of the user is asked for.
    Challenge,
    /// The sign-in is denied.
    Deny,
}

/// What a tenant asks of local passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordPolicy {
    /// The fewest characters of a new one.
    pub min_length: u32,
    /// Days until one expires; `None` for never.
    pub max_age_days: Option<u32>,
    /// Days before that in which it counts as expiring.
    pub warn_days: u32,
    /// Days after that in which it counts as in grace.
    pub grace_days: u32,
    /// How many of the last ones, the present one included, may not come again.
    pub history: u32,
    /// What an expired one means.
    pub expired: ExpiredPassword,
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self {
            min_length: 12,
            max_age_days: None,
            warn_days: 14,
            grace_days: 0,
            history: 5,
            expired: ExpiredPassword::Warn,
        }
    }
}

/// What is stored of a local password beside its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordState {
    /// When it was set.
    pub changed_at: UnixTime,
    /// Whether it must be changed at the next chance.
    pub must_change: bool,
}

/// How near the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordWarning {
    /// It ends within the days of warning.
    Expiring,
    /// It has ended, within the days of grace.
    ExpiredGrace,
    /// It has ended, and so has the grace.
    Expired,
}

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordStatus {
    /// It must be changed.
    pub must_change: bool,
    /// Whole days until it ends, rounded up; 0 once it has; `None` when it never does.
    pub expires_in_days: Option<i64>,
    /// How near that is.
    pub warning: Option<PasswordWarning>,
}

/// Compares a password's age with the policy.
#[must_use]
pub fn status(state: PasswordState, policy: &PasswordPolicy, now: UnixTime) -> PasswordStatus {
    let Some(max_age) = policy.max_age_days else {
        return PasswordStatus { must_change: state.must_change, expires_in_days: None, warning: None };
    };
    let left_ms = state.changed_at.as_millis() + i64::from(max_age) * DAY_MS - now.as_millis();
    let warning = if left_ms > i64::from(policy.warn_days) * DAY_MS {
        None
    } else if left_ms > 0 {
        Some(PasswordWarning::Expiring)
    } else if left_ms > -i64::from(policy.grace_days) * DAY_MS {
        Some(PasswordWarning::ExpiredGrace)
    } else {
        Some(PasswordWarning::Expired)
    };
    PasswordStatus {
        must_change: state.must_change || warning == Some(PasswordWarning::Expired),
        expires_in_days: Some((left_ms.max(0) + DAY_MS - 1) / DAY_MS),
        warning,
    }
}

/// Why a password is not changed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// There is none.
    #[error("this account has no local password")]
    NoPassword,
    /// The old one is another.
    #[error("the old password is wrong")]
    Wrong,
    /// The new one is not what the tenant asks for.
    #[error("the new password {0}")]
    Unacceptable(String),
    /// Too many wrong ones.
    #[error("too many wrong passwords; try again in {retry_after_s} s")]
    Locked {
        /// Seconds until one is looked at again.
        retry_after_s: u64,
    },
    /// Too many at once.
    #[error("too many passwords are being checked; try again")]
    Busy,
    /// There is no such user.
    #[error("there is no user with this id")]
    UnknownUser,
    /// Somebody else changed it at the same moment.
    #[error("the password was changed at the same moment; try again")]
    Changed,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<HashError> for PasswordError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy => Self::Busy,
            HashError::Failed(cause) => Self::Store(StoreError(cause)),
        }
    }
}

impl PasswordError {
    /// The stable word of the contract.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::NoPassword => ErrorCode::NoLocalPassword,
            Self::Wrong | Self::Changed => ErrorCode::InvalidPassword,
            Self::Unacceptable(_) => ErrorCode::PasswordUnacceptable,
            Self::Locked { .. } => ErrorCode::PasswordLocked,
            Self::Busy => ErrorCode::PasswordCheckBusy,
            Self::UnknownUser => ErrorCode::UnknownUser,
            Self::Store(_) => ErrorCode::StoreUnavailable,
        }
    }
}

/// Changes local passwords.
pub struct PasswordService {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The store.
    pub passwords: Arc<dyn Passwords>,
    /// Argon2id, away from the workers that answer requests.
    pub hasher: Arc<dyn PasswordHasher>,
    /// The tenants' settings.
    pub rules: Arc<dyn RiskRules>,
}

impl PasswordService {
    /// What a client is told of a user's password; `None` without one.
    #[must_use]
    pub fn status(&self, tenant: &TenantId, state: Option<PasswordState>) -> Option<PasswordStatus> {
        let state = state?;
        Some(status(state, &self.rules.settings(tenant).password, self.clock.now()))
    }

    /// Changes the user's own password, for which the old one is needed. Other sessions of the user end.
    ///
    /// # Errors
    /// See [`PasswordError`]. A wrong old password stays counted.
    pub async fn change(&self, who: &SessionUser, old: Secret, new: Secret) -> Result<(), PasswordError> {
        let now = self.clock.now();
        let user = &who.user;
        let policy = self.rules.settings(&user.tenant).password;
        check_new(&new, &policy, &user.profile)?;
        let stored = match self.passwords.begin_change(user.id, now).await? {
            ChangeStart::Open(stored) => stored,
            ChangeStart::NoPassword => return Err(PasswordError::NoPassword),
            ChangeStart::Locked { retry_after_s } => return Err(PasswordError::Locked { retry_after_s }),
        };
        if self.hasher.matching(old, vec![stored.hash.clone()]).await?.is_none() {
            return Err(PasswordError::Wrong);
        }
        let new = self.prepare(new, &policy, &stored, now, false).await?;
        if !self.passwords.finish_change(user.id, stored.hash, new, who.session.id).await? {
            return Err(PasswordError::Changed);
        }
        tracing::info!(user.id = %user.id, "a password was changed by its user");
        Ok(())
    }

    /// Sets a user's password by an administrator. All sessions of the user end.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub async fn set(
        &self,
        tenant: &TenantId,
        user: UserId,
        new: Secret,
        must_change: bool,
        author: Author,
    ) -> Result<(), PasswordError> {
        let now = self.clock.now();
        let policy = self.rules.settings(tenant).password;
        let (profile, stored) =
            self.passwords.find_password(tenant, user).await?.ok_or(PasswordError::UnknownUser)?;
        check_new(&new, &policy, &profile)?;
        let stored = stored.unwrap_or_default();
        let new = self.prepare(new, &policy, &stored, now, must_change).await?;
        if self.passwords.set_password(tenant, user, new, author).await? {
            Ok(())
        } else {
            Err(PasswordError::UnknownUser)
        }
    }

    /// Takes a user's password away.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub async fn remove(&self, tenant: &TenantId, user: UserId, author: Author) -> Result<(), PasswordError> {
        self.passwords.find_password(tenant, user).await?.ok_or(PasswordError::UnknownUser)?;
        if self.passwords.remove_password(tenant, user, author).await? {
            Ok(())
        } else {
            Err(PasswordError::NoPassword)
        }
    }

    /// Refuses what came before, and hashes.
    async fn prepare(
        &self,
        new: Secret,
        policy: &PasswordPolicy,
        stored: &StoredPassword,
        now: UnixTime,
        must_change: bool,
    ) -> Result<NewPassword, PasswordError> {
        let present = Some(&stored.hash).filter(|hash| !hash.is_empty());
        let former: Vec<String> =
            present.into_iter().chain(&stored.former).take(policy.history as usize).cloned().collect();
        if !former.is_empty() && self.hasher.matching(new.clone(), former.clone()).await?.is_some() {
            let text = format!("was used before; the last {} may not come again", policy.history);
            return Err(PasswordError::Unacceptable(text));
        }
        let hash = self.hasher.hash(new).await?;
        Ok(NewPassword { hash, former, state: PasswordState { changed_at: now, must_change } })
    }
}

/// Length counts in characters (NIST SP 800-63B section 3.1.1.2); no composition is asked for.
fn check_new(new: &Secret, policy: &PasswordPolicy, profile: &Profile) -> Result<(), PasswordError> {
    let unacceptable = |text: String| Err(PasswordError::Unacceptable(text));
    let Ok(text) = std::str::from_utf8(new.expose()) else { return unacceptable("is not a text".to_owned()) };
    let least = policy.min_length;
    if text.chars().count() < least as usize {
        return unacceptable(format!("has fewer than {least} characters"));
    }
    if text.len() > MAX_PASSWORD_BYTES {
        return unacceptable(format!("has more than {MAX_PASSWORD_BYTES} bytes"));
    }
    let mut chars = text.chars();
    let first = chars.next();
    if chars.all(|c| Some(c) == first) {
        return unacceptable("is one character over and over".to_owned());
    }
    let lower = text.to_lowercase();
    let known = [&profile.email, &profile.username, &profile.name, &profile.phone];
    if known.into_iter().flatten().any(|word| word.to_lowercase() == lower) {
        return unacceptable("is a name, address or number of the account".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> PasswordPolicy {
        PasswordPolicy { max_age_days: Some(90), warn_days: 14, grace_days: 7, ..PasswordPolicy::default() }
    }

    fn after(days_ms: i64) -> PasswordStatus {
        let state = PasswordState { changed_at: UnixTime::from_millis(1_000), must_change: false };
        status(state, &policy(), UnixTime::from_millis(1_000 + days_ms))
    }

    #[test]
    fn the_end_of_a_password_comes_near_in_steps() {
        use PasswordWarning::{Expired, ExpiredGrace, Expiring};
        for (at_ms, days, warning, must_change) in [
            (0, 90, None, false),
            (1, 90, None, false),
            (76 * DAY_MS - 1, 15, None, false),
            (76 * DAY_MS, 14, Some(Expiring), false),
            (90 * DAY_MS - 1, 1, Some(Expiring), false),
            (90 * DAY_MS, 0, Some(ExpiredGrace), false),
            (97 * DAY_MS - 1, 0, Some(ExpiredGrace), false),
            (97 * DAY_MS, 0, Some(Expired), true),
            (10_000 * DAY_MS, 0, Some(Expired), true),
        ] {
            let expected = PasswordStatus { must_change, expires_in_days: Some(days), warning };
            assert_eq!(after(at_ms), expected, "{at_ms}");
        }
    }

    #[test]
    fn a_password_without_a_greatest_age_never_ends_and_may_still_have_to_be_changed() {
        let state = PasswordState { changed_at: UnixTime::default(), must_change: true };
        let told = status(state, &PasswordPolicy::default(), UnixTime::from_secs(4_000_000_000));
        assert_eq!(told, PasswordStatus { must_change: true, expires_in_days: None, warning: None });
    }

    #[test]
    fn a_new_password_is_long_enough_and_not_what_everybody_knows_of_the_account() {
        let profile = Profile { email: Some("Countess.Ada@example.com".to_owned()), ..Profile::default() };
        let check = |text: &str| check_new(&Secret::new(text.as_bytes().to_vec()), &policy(), &profile).is_ok();
        for fine in ["correct horse", "ålänningarna", &"long ".repeat(40)] {
            assert!(check(fine), "{fine}");
        }
        for bad in ["", "elevenchars", "aaaaaaaaaaaaaaaa", "COUNTESS.ADA@example.com", &"x y".repeat(100)] {
            assert!(!check(bad), "{bad}");
        }
    }
}
