//! The identities of a user: listed, linked while signed in, unlinked without being stranded.
//!
//! An identity is linked by one of two proofs. A token of the provider, verified and spent on the same path
//! as a sign-in. Or a link token: a sign-in with this identity was refused because its address is another
//! account's, and that account redeems it. A link token names one identity (tenant, provider, issuer,
//! subject) and one user, is good once, and lives for ten minutes; so a proof of one identity never links
//! another one (CVE-2026-9087). Both need a fresh session of the account.

use std::str::FromStr;
use std::sync::Arc;

use super::is_fresh;
use super::ports::{Identities, LinkResult, MigrationResult, Redemption, UnlinkResult};
use crate::admin::audit::Author;
use crate::clock::{Clock, UnixTime};
use crate::codes::ErrorCode;
use crate::ids::{IdentityId, LinkId, TenantId, UserId};
use crate::secret::sha256;
use crate::session::ports::SessionUser;
use crate::signin::identity::MappedIdentity;
use crate::signin::ports::{Directory, StoreError};
use crate::signin::provider::identity_issuer;
use crate::signin::user::IdentityKey;

/// An identity of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedIdentity {
    /// What it is.
    pub key: IdentityKey,
    /// Since when it is the user's.
    pub linked_at: UnixTime,
}

impl LinkedIdentity {
    /// Its identifier.
    #[must_use]
    pub fn id(&self) -> IdentityId {
        identity_id(&self.key)
    }
}

/// The identifier of an identity: the same for the same key, and telling nothing of it.
#[must_use]
pub fn identity_id(key: &IdentityKey) -> IdentityId {
    let mut text = Vec::new();
    for part in [key.tenant.as_str(), &*key.provider, &*key.issuer, &*key.subject] {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part.as_bytes());
    }
    let mut id = [0; 16];
    id.copy_from_slice(&sha256(&text)[..16]);
    IdentityId::from_bytes(id)
}

/// Why identities stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The session is not fresh.
    #[error("this needs a session that began within the last 10 minutes; sign in again")]
    NotFresh,
    /// No such identity of this user.
    #[error("you have no identity with this id")]
    Unknown,
    /// It is another user's.
    #[error("this identity is linked to another account")]
    Taken,
    /// It is the last one.
    #[error("without this identity you could not sign in any more; link another one first")]
    Last,
    /// The link token opens nothing here.
    #[error("the link token is not known, has expired, or is for another account")]
    InvalidLinkToken,
    /// The user may not sign in any more.
    #[error("the session of this access token has ended")]
    UserInactive,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl IdentityError {
    /// The stable word of the contract.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFresh => ErrorCode::FreshSessionNeeded,
            Self::Unknown => ErrorCode::UnknownIdentity,
            Self::Taken => ErrorCode::IdentityTaken,
            Self::Last => ErrorCode::LastIdentity,
            Self::InvalidLinkToken => ErrorCode::InvalidLinkToken,
            Self::UserInactive => ErrorCode::SessionEnded,
            Self::Store(_) => ErrorCode::StoreUnavailable,
        }
    }
}

/// Links and unlinks identities of signed-in users.
pub struct IdentityService {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The store.
    pub identities: Arc<dyn Identities>,
    /// Which providers are enabled.
    pub directory: Arc<dyn Directory>,
}

impl IdentityService {
    /// The user's identities, oldest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self, who: &SessionUser) -> Result<Vec<LinkedIdentity>, StoreError> {
        self.identities.identities(who.user.id).await
    }

    /// Whether this session may change identities: to be asked before a token is spent for it.
    ///
    /// # Errors
    /// [`IdentityError::NotFresh`].
    pub fn check_fresh(&self, who: &SessionUser) -> Result<(), IdentityError> {
        if is_fresh(&who.session, self.clock.now()) { Ok(()) } else { Err(IdentityError::NotFresh) }
    }

    /// Links what a token proved.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn link(&self, who: &SessionUser, proved: &MappedIdentity) -> Result<LinkedIdentity, IdentityError> {
        self.check_fresh(who)?;
        let key = proved.token().identity_key();
        if key.tenant != who.user.tenant {
            return Err(IdentityError::Taken);
        }
        self.linked(who, self.identities.link(who.user.id, key, self.clock.now()).await?)
    }

    /// Links what a link token names.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn redeem(&self, who: &SessionUser, link_token: &str) -> Result<LinkedIdentity, IdentityError> {
        self.check_fresh(who)?;
        let (offer, secret_hash) = parse(link_token).ok_or(IdentityError::InvalidLinkToken)?;
        let (tenant, user, now) = (who.user.tenant.clone(), who.user.id, self.clock.now());
        let redemption = Redemption { tenant, offer, secret_hash, user, now };
        self.linked(who, self.identities.redeem(redemption).await?)
    }

    fn linked(&self, who: &SessionUser, result: LinkResult) -> Result<LinkedIdentity, IdentityError> {
        match result {
            LinkResult::Linked(key) => {
                tracing::info!(user.id = %who.user.id, provider.name = %key.provider, "an identity was linked");
                Ok(LinkedIdentity { key, linked_at: self.clock.now() })
            }
            LinkResult::Taken => Err(IdentityError::Taken),
            LinkResult::NoOffer => Err(IdentityError::InvalidLinkToken),
            LinkResult::UserInactive => Err(IdentityError::UserInactive),
        }
    }

    /// Takes an identity from the user, and ends the other sessions that came through its provider.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn unlink(&self, who: &SessionUser, id: IdentityId) -> Result<(), IdentityError> {
        self.check_fresh(who)?;
        let identities = self.identities.identities(who.user.id).await?;
        let found = identities.into_iter().find(|i| i.id() == id).ok_or(IdentityError::Unknown)?;
        let providers = self.directory.providers(&who.user.tenant);
        let enabled = providers.iter().map(|p| Arc::clone(&p.name)).collect();
        let (user, keep, now) = (who.user.id, who.session.id, self.clock.now());
        let provider = Arc::clone(&found.key.provider);
        match self.identities.unlink(user, found.key, enabled, keep, now).await? {
            UnlinkResult::Unlinked => {
                tracing::info!(user.id = %user, provider.name = %provider, "an identity was unlinked");
                Ok(())
            }
            UnlinkResult::Unknown => Err(IdentityError::Unknown),
            UnlinkResult::Last => Err(IdentityError::Last),
        }
    }
}

/// A subject that a provider changed, such as Apple's `transfer_sub`.
#[derive(Debug)]
pub struct SubjectMigration {
    /// The tenant.
    pub tenant: TenantId,
    /// Whose identity.
    pub user: UserId,
    /// The provider's name.
    pub provider: Arc<str>,
    /// The subject so far.
    pub old_subject: Arc<str>,
    /// The subject from now on.
    pub new_subject: Arc<str>,
    /// The issuer from now on; absent: as it is.
    pub new_issuer: Option<Arc<str>>,
}

impl IdentityService {
    /// Gives an identity another subject, on an administrator's word.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn migrate(&self, migration: SubjectMigration, author: Author) -> Result<(), IdentityError> {
        let SubjectMigration { tenant, user, provider, old_subject, new_subject, new_issuer } = migration;
        let identities = self.identities.identities(user).await?;
        let is_meant = |i: &LinkedIdentity| {
            i.key.tenant == tenant && i.key.provider == provider && i.key.subject == old_subject
        };
        let old = identities.into_iter().find(is_meant).ok_or(IdentityError::Unknown)?.key;
        let issuer = new_issuer.map_or_else(|| Arc::clone(&old.issuer), |issuer| identity_issuer(&issuer));
        let new = IdentityKey { issuer, subject: new_subject, ..old.clone() };
        match self.identities.migrate(user, old, new, author).await? {
            MigrationResult::Migrated => Ok(()),
            MigrationResult::Unknown => Err(IdentityError::Unknown),
            MigrationResult::Taken => Err(IdentityError::Taken),
        }
    }
}

fn parse(link_token: &str) -> Option<(LinkId, [u8; 32])> {
    let (id, secret) = link_token.split_once('.')?;
    let secret = data_encoding::BASE64URL_NOPAD.decode(secret.as_bytes()).ok()?;
    Some((LinkId::from_str(id).ok()?, sha256(&secret)))
}
