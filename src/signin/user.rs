//! Step 7: whose sign-in this is, and what would have to change. Reads only; step 11 writes.
//!
//! An identity is (tenant, provider, issuer, subject). An address never finds a user unless both sides
//! verified it, the provider is trusted for it, and the provider's configuration says so.

use std::sync::Arc;

use super::facts::LinkMethod;
use super::history::History;
use super::identity::{MappedIdentity, Profile, is_in};
use super::ports::{StoreError, Users};
use super::provider::{Attribute, Linking, Provider, Provisioning, Remap, RemapRules};
use crate::clock::UnixTime;
use crate::ids::{InvitationId, TenantId, UserId};
use crate::mfa::{Factor, MfaMethod, Strength};
use crate::people::devices::{DeviceProof, TrustedDevice};
use crate::people::passwords::PasswordState;

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
    /// Not yet: invited, and never signed in.
    Pending,
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
            Self::Pending => "pending",
            Self::Deleted => "deleted",
        }
    }

    /// The status of a word.
    #[must_use]
    pub fn find(word: &str) -> Option<Self> {
        [Self::Active, Self::Disabled, Self::Locked, Self::Pending, Self::Deleted]
            .into_iter()
            .find(|s| s.as_str() == word)
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
    /// The state of its local password, when it has one.
    pub password: Option<PasswordState>,
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
    /// Devices that the user trusts, ended ones too.
    pub trusted_devices: Vec<TrustedDevice>,
}

impl KnownUser {
    /// One that never signed in.
    #[must_use]
    pub fn new(user: User) -> Self {
        Self { user, factors: Vec::new(), history: History::default(), trusted_devices: Vec::new() }
    }
}

/// An open invitation and the pending user that it was made for.
#[derive(Debug, Clone)]
pub struct Invited {
    /// The invitation.
    pub id: InvitationId,
    /// The user.
    pub user: User,
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
    /// The invited user becomes active, and the identity is its.
    Accept {
        /// The invitation: spent by this.
        invitation: InvitationId,
        /// The user as it will be.
        user: Box<User>,
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
    /// Nobody has it, and the provider creates users of some domains only.
    #[error("no user has this identity, and this provider creates users of certain verified domains only")]
    OutsideDomains,
    /// Nobody has it, and nobody invited it.
    #[error("no user has this identity, and there is no open invitation for it")]
    NotInvited,
    /// Another user holds the address.
    #[error("another account has this e-mail address; sign in to it as before")]
    AccountExists {
        /// The user that may link this identity, and the identity.
        may_link: Option<Box<(UserId, IdentityKey)>>,
        /// That user, when the provider says by another subject that this is somebody else.
        subject_changed: Option<UserId>,
    },
    /// The user is disabled.
    #[error("this account is disabled")]
    Disabled(UserId),
    /// The user is locked.
    #[error("this account is locked")]
    Locked(UserId),
    /// The user was invited and did not come in by the invitation.
    #[error("this account waits for its invitation to be accepted")]
    Pending(UserId),
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
    on_trusted_device: bool,
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
        Ok((known, change, link_method)) => {
            let on_trusted_device = false;
            Ok(ResolvedUser { identity, known, change, link_method, on_trusted_device })
        }
        Err(error) => Err((identity, error)),
    }
}

type Plan = (KnownUser, PlannedChange, LinkMethod);

async fn plan(
    identity: &MappedIdentity,
    users: &dyn Users,
    new_id: UserId,
    name_hint: Option<&str>,
) -> Result<Plan, ResolveError> {
    let token = identity.token();
    let (key, now) = (token.identity_key(), token.verified_at());
    if let Some(known) = users.find_by_identity(&key, now).await? {
        return returning(identity, users, known).await;
    }
    let planned = newcomer(identity, users, new_id, name_hint).await;
    if let Err(ResolveError::AccountExists { .. } | ResolveError::NotInvited) = &planned
        && let Some(known) = users.find_by_identity(&key, now).await?
    {
        // Another first sign-in of this very identity was faster: the address or invitation is its own.
        return returning(identity, users, known).await;
    }
    planned
}

/// Somebody who has the identity.
async fn returning(
    identity: &MappedIdentity,
    users: &dyn Users,
    mut known: KnownUser,
) -> Result<Plan, ResolveError> {
    check_status(&known.user)?;
    let provider = identity.token().provider();
    let (stored, mut told) = (&known.user.profile, identity.profile().clone());
    let mut profile = refreshed(stored, &told, &provider.remap);
    let is_news = profile.email_verified && (profile.email != stored.email || !stored.email_verified);
    if is_news && let Some(address) = &profile.email {
        // Somebody else holds it: the sign-in goes on, the address stays as it was.
        let holder = users.find_verified_holder(&provider.tenant, address).await?;
        if holder.is_some_and(|holder| holder != known.user.id) {
            told.email = None;
            profile = refreshed(stored, &told, &provider.remap);
        }
    }
    if profile == *stored {
        return Ok((known, PlannedChange::None, LinkMethod::Existing));
    }
    known.user.profile = profile.clone();
    let change = PlannedChange::Update { user: known.user.id, profile };
    Ok((known, change, LinkMethod::Existing))
}

/// By the provider's rule of domains. An address that is not verified is anybody's.
fn may_be_created(provider: &Provider, told: &Profile) -> bool {
    let verified = told.email.as_deref().filter(|_| told.email_verified);
    provider.provisioning_domains.is_empty()
        || verified.is_some_and(|address| is_in(address, &provider.provisioning_domains))
}

/// Somebody whose identity nobody has.
async fn newcomer(
    identity: &MappedIdentity,
    users: &dyn Users,
    new_id: UserId,
    name_hint: Option<&str>,
) -> Result<Plan, ResolveError> {
    let token = identity.token();
    let (key, now) = (token.identity_key(), token.verified_at());
    let provider = token.provider();
    if let Some(address) = &identity.profile().email
        && let Some(holder) = users.find_by_verified_email(&provider.tenant, address, now).await?
    {
        // The provider itself says that this is somebody else: an address may get a new owner, a subject never.
        let user = holder.user.id;
        let is_verified = identity.profile().email_verified;
        let is_somebody_else = is_verified && users.has_other_subject(user, &key).await?;
        let subject_changed = is_somebody_else.then_some(user);
        return join(holder, key, provider.linking, is_verified && !is_somebody_else).map_err(
            |error| match error {
                ResolveError::AccountExists { may_link, .. } => {
                    ResolveError::AccountExists { may_link, subject_changed }
                }
                other => other,
            },
        );
    }
    match provider.provisioning {
        Provisioning::Refuse => Err(ResolveError::NotProvisioned),
        Provisioning::Invite => {
            let profile = identity.profile();
            let verified = profile.email.as_deref().filter(|_| profile.email_verified);
            let invited = users.find_invitation(&key, verified, now).await?.ok_or(ResolveError::NotInvited)?;
            let told = refreshed(&invited.user.profile, profile, &provider.remap);
            let user = User { status: UserStatus::Active, profile: told, ..invited.user };
            let known = KnownUser::new(user.clone());
            let change = PlannedChange::Accept { invitation: invited.id, user: Box::new(user), identity: key };
            Ok((known, change, LinkMethod::Invited))
        }
        Provisioning::Create if !may_be_created(provider, identity.profile()) => Err(ResolveError::OutsideDomains),
        Provisioning::Create => {
            let mut profile = refreshed(&Profile::default(), identity.profile(), &provider.remap);
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
                password: None,
            };
            let known = KnownUser::new(user.clone());
            Ok((known, PlannedChange::Create { user: Box::new(user), identity: key }, LinkMethod::Provisioned))
        }
    }
}

/// A new identity with the address of an existing user. `proved_by_address`: both sides verified it, and
/// nothing speaks against their being one person.
fn join(
    holder: KnownUser,
    identity: IdentityKey,
    linking: Linking,
    proved_by_address: bool,
) -> Result<Plan, ResolveError> {
    let user = holder.user.id;
    match linking {
        Linking::VerifiedEmail if proved_by_address => {
            check_status(&holder.user)?;
            Ok((holder, PlannedChange::Link { user, identity }, LinkMethod::LinkedByVerifiedEmail))
        }
        Linking::Confirm if holder.user.status == UserStatus::Active => {
            let usable = |f: &Factor| MfaMethod::SUPPORTED.contains(&f.method);
            let can_confirm = |f: &Factor| usable(f) && f.method.strength() >= Strength::Strong;
            if proved_by_address && holder.factors.iter().any(can_confirm) {
                Ok((holder, PlannedChange::Link { user, identity }, LinkMethod::ConfirmedByFactor))
            } else {
                let may_link = Some(Box::new((user, identity)));
                Err(ResolveError::AccountExists { may_link, subject_changed: None })
            }
        }
        Linking::Never | Linking::VerifiedEmail | Linking::Confirm => {
            Err(ResolveError::AccountExists { may_link: None, subject_changed: None })
        }
    }
}

fn check_status(user: &User) -> Result<(), ResolveError> {
    match user.status {
        UserStatus::Active => Ok(()),
        UserStatus::Disabled | UserStatus::Deleted => Err(ResolveError::Disabled(user.id)),
        UserStatus::Locked => Err(ResolveError::Locked(user.id)),
        UserStatus::Pending => Err(ResolveError::Pending(user.id)),
    }
}

/// The profile after this sign-in, attribute by attribute as the provider's rule says. What the mapping
/// leaves out stays; groups and roles are those of the mapping, so that what was taken away upstream goes
/// here too. An address and its verification go together, so that a new address never inherits the old
/// one's mark (CVE-2023-0105).
fn refreshed(stored: &Profile, told: &Profile, rules: &RemapRules) -> Profile {
    let takes = |attribute, has: bool| match rules.of(attribute) {
        Remap::Always => true,
        Remap::Once => !has,
        Remap::Never => false,
    };
    let text = |attribute, stored: &Option<String>, told: &Option<String>| match told {
        Some(told) if takes(attribute, stored.is_some()) => Some(told.clone()),
        _ => stored.clone(),
    };
    let list = |attribute, stored: &Vec<String>, told: &Vec<String>| {
        if takes(attribute, !stored.is_empty()) { told.clone() } else { stored.clone() }
    };
    let takes_email = told.email.is_some() && takes(Attribute::Email, stored.email.is_some());
    let takes_phone = told.phone.is_some() && takes(Attribute::Phone, stored.phone.is_some());
    let mut attributes = stored.attributes.clone();
    for (name, value) in &told.attributes {
        if takes(Attribute::Attributes, stored.attributes.contains_key(name)) {
            attributes.insert(name.clone(), value.clone());
        }
    }
    Profile {
        kind: told.kind,
        email: text(Attribute::Email, &stored.email, &told.email),
        email_verified: if takes_email { told.email_verified } else { stored.email_verified },
        name: text(Attribute::Name, &stored.name, &told.name),
        username: text(Attribute::Username, &stored.username, &told.username),
        phone: text(Attribute::Phone, &stored.phone, &told.phone),
        phone_verified: if takes_phone { told.phone_verified } else { stored.phone_verified },
        locale: text(Attribute::Locale, &stored.locale, &told.locale),
        attributes,
        groups: list(Attribute::Groups, &stored.groups, &told.groups),
        roles: list(Attribute::Roles, &stored.roles, &told.roles),
    }
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

    /// Takes note of what the sign-in shows of its device.
    #[must_use]
    pub fn recognise(mut self, proof: Option<DeviceProof>) -> Self {
        let now = self.identity.token().verified_at();
        self.on_trusted_device = proof.is_some_and(|proof| proof.is_among(&self.known.trusted_devices, now));
        self
    }

    /// Whether the device is one that the user trusts, by identifier and secret.
    #[must_use]
    pub fn is_on_trusted_device(&self) -> bool {
        self.on_trusted_device
    }

    /// Back to step 7, after another sign-in was faster.
    #[must_use]
    pub fn into_identity(self) -> MappedIdentity {
        self.identity
    }
}
