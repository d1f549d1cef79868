//! Step 7: whose sign-in this is, and what would have to change. Reads only; step 11 writes.
//!
//! An identity is (tenant, provider, issuer, subject). An address never finds a user unless both sides
//! verified it, the provider is trusted for it, and the provider's configuration says so.

use std::sync::Arc;

use super::facts::LinkMethod;
use super::history::History;
use super::identity::{MappedIdentity, Profile};
use super::ports::{StoreError, Users};
use super::provider::{Linking, Provisioning};
use crate::clock::UnixTime;
use crate::ids::{TenantId, UserId};
use crate::mfa::Factor;

/// What finds a user: never an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdentityKey {
    /// The tenant.
    pub tenant: TenantId,
    /// The provider's name.
    pub provider: Arc<str>,
    /// The verified issuer.
    pub issuer: Arc<str>,
    /// The verified subject.
    pub subject: Arc<str>,
}

/// Whether a user may sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserStatus {
    /// Yes.
    Active,
    /// No, until an administrator says so.
    Disabled,
    /// No, after too many failures or by an administrator.
    Locked,
    /// No, and nothing is left of it but its identifier.
    Deleted,
}

impl UserStatus {
    /// The word of the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Locked => "locked",
            Self::Deleted => "deleted",
        }
    }

    /// The status of a word.
    #[must_use]
    pub fn find(word: &str) -> Option<Self> {
        [Self::Active, Self::Disabled, Self::Locked, Self::Deleted].into_iter().find(|s| s.as_str() == word)
    }
}

/// A local user.
#[derive(Debug, Clone)]
pub struct User {
    /// Its identifier.
    pub id: UserId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Whether it may sign in.
    pub status: UserStatus,
    /// Who it is.
    pub profile: Profile,
    /// When it was created.
    pub created_at: UnixTime,
}

/// A user as the sign-in path reads it, at one moment.
#[derive(Debug, Clone)]
pub struct KnownUser {
    /// The user.
    pub user: User,
    /// Enrolled factors.
    pub factors: Vec<Factor>,
    /// Earlier sign-ins.
    pub history: History,
}

/// What step 11 writes about users.
#[derive(Debug, Clone)]
pub enum PlannedChange {
    /// Nothing.
    None,
    /// The provider knows better: the user's profile becomes this.
    Update {
        /// Whose.
        user: UserId,
        /// The whole new profile.
        profile: Profile,
    },
    /// The identity becomes the user's.
    Link {
        /// Whose.
        user: UserId,
        /// The identity.
        identity: IdentityKey,
    },
    /// A new user with this identity.
    Create {
        /// The user.
        user: Box<User>,
        /// The identity.
        identity: IdentityKey,
    },
}

/// Why no user came of an identity.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Nobody has it, and the provider may not create users.
    #[error("no user has this identity, and this provider does not create users")]
    NotProvisioned,
    /// Another user holds the address.
    #[error("another account has this e-mail address; sign in to it as before")]
    AccountExists,
    /// The user is disabled.
    #[error("this account is disabled")]
    Disabled(UserId),
    /// The user is locked.
    #[error("this account is locked")]
    Locked(UserId),
    /// Nobody can tell.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A mapped identity with its user. Only [`resolve`] can build one.
#[derive(Debug)]
pub struct ResolvedUser {
    identity: MappedIdentity,
    known: KnownUser,
    change: PlannedChange,
    link_method: LinkMethod,
}

/// Finds, links or plans the user. `new_id` is used when one is created, and so is `name_hint` when the
/// mapping told no name; it is marked as the client's word.
///
/// # Errors
/// When the provider's rules give no user, or the user may not sign in. On an error the identity comes
/// back, for the record.
pub async fn resolve(
    identity: MappedIdentity,
    users: &dyn Users,
    new_id: UserId,
    name_hint: Option<&str>,
) -> Result<ResolvedUser, (MappedIdentity, ResolveError)> {
    match plan(&identity, users, new_id, name_hint).await {
        Ok((known, change, link_method)) => Ok(ResolvedUser { identity, known, change, link_method }),
        Err(error) => Err((identity, error)),
    }
}

async fn plan(
    identity: &MappedIdentity,
    users: &dyn Users,
    new_id: UserId,
    name_hint: Option<&str>,
) -> Result<(KnownUser, PlannedChange, LinkMethod), ResolveError> {
    let token = identity.token();
    let provider = token.provider();
    let now = token.verified_at();
    let key = IdentityKey {
        tenant: provider.tenant.clone(),
        provider: Arc::clone(&provider.name),
        issuer: Arc::clone(token.issuer()),
        subject: Arc::clone(token.subject()),
    };
    if let Some(mut known) = users.find_by_identity(&key, now).await? {
        check_status(&known.user)?;
        let mut told = identity.profile().clone();
        let news =
            told.email_verified && (told.email != known.user.profile.email || !known.user.profile.email_verified);
        if news && let Some(address) = &told.email {
            // Somebody else holds it: the sign-in goes on, the address stays as it was.
            let holder = users.find_verified_holder(&provider.tenant, address).await?;
            if holder.is_some_and(|holder| holder != known.user.id) {
                told.email = None;
            }
        }
        let change = refreshed(&known.user, &told);
        if let PlannedChange::Update { profile, .. } = &change {
            known.user.profile = profile.clone();
        }
        return Ok((known, change, LinkMethod::Existing));
    }
    if let Some(address) = &identity.profile().email
        && let Some(holder) = users.find_by_verified_email(&provider.tenant, address, now).await?
    {
        if provider.linking == Linking::VerifiedEmail && identity.profile().email_verified {
            check_status(&holder.user)?;
            // The provider itself says that this is somebody else: an address may get a new owner, a subject never.
            if users.has_other_subject(holder.user.id, &key).await? {
                tracing::warn!(
                    user.id = %holder.user.id,
                    provider.name = &*key.provider,
                    "the address of a user came under another subject of the same provider; not linked"
                );
                return Err(ResolveError::AccountExists);
            }
            let change = PlannedChange::Link { user: holder.user.id, identity: key };
            return Ok((holder, change, LinkMethod::LinkedByVerifiedEmail));
        }
        return Err(ResolveError::AccountExists);
    }
    match provider.provisioning {
        Provisioning::Refuse => Err(ResolveError::NotProvisioned),
        Provisioning::Create => {
            let mut profile = identity.profile().clone();
            if let (None, Some(hint)) = (&profile.name, name_hint) {
                profile.name = Some(hint.to_owned());
                profile.attributes.insert("name_source".to_owned(), "client".into());
            }
            let user = User {
                id: new_id,
                tenant: provider.tenant.clone(),
                status: UserStatus::Active,
                profile,
                created_at: now,
            };
            let known = KnownUser { user: user.clone(), factors: Vec::new(), history: History::default() };
            Ok((known, PlannedChange::Create { user: Box::new(user), identity: key }, LinkMethod::Provisioned))
        }
    }
}

fn check_status(user: &User) -> Result<(), ResolveError> {
    match user.status {
        UserStatus::Active => Ok(()),
        UserStatus::Disabled | UserStatus::Deleted => Err(ResolveError::Disabled(user.id)),
        UserStatus::Locked => Err(ResolveError::Locked(user.id)),
    }
}

/// The profile after this sign-in: what the provider tells replaces what is stored, what it leaves out
/// stays. An address and its verification go together, so that a new address never inherits the old
/// one's mark.
fn refreshed(user: &User, told: &Profile) -> PlannedChange {
    let stored = &user.profile;
    let (email, email_verified) = match &told.email {
        Some(address) => (Some(address.clone()), told.email_verified),
        None => (stored.email.clone(), stored.email_verified),
    };
    let (phone, phone_verified) = match &told.phone {
        Some(number) => (Some(number.clone()), told.phone_verified),
        None => (stored.phone.clone(), stored.phone_verified),
    };
    let mut attributes = stored.attributes.clone();
    attributes.extend(told.attributes.clone());
    let profile = Profile {
        kind: told.kind,
        email,
        email_verified,
        name: told.name.clone().or_else(|| stored.name.clone()),
        username: told.username.clone().or_else(|| stored.username.clone()),
        phone,
        phone_verified,
        locale: told.locale.clone().or_else(|| stored.locale.clone()),
        attributes,
        groups: told.groups.clone(),
    };
    if profile == *stored { PlannedChange::None } else { PlannedChange::Update { user: user.id, profile } }
}

impl ResolvedUser {
    /// The mapped identity.
    #[must_use]
    pub fn identity(&self) -> &MappedIdentity {
        &self.identity
    }

    /// The user as it will be after step 11, with factors and history.
    #[must_use]
    pub fn known(&self) -> &KnownUser {
        &self.known
    }

    /// What step 11 writes.
    #[must_use]
    pub fn change(&self) -> &PlannedChange {
        &self.change
    }

    /// How the identity came to the user.
    #[must_use]
    pub fn link_method(&self) -> LinkMethod {
        self.link_method
    }

    /// Back to step 7, after another sign-in was faster.
    #[must_use]
    pub fn into_identity(self) -> MappedIdentity {
        self.identity
    }
}
