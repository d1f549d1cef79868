//! The made-up world of an audit: one provider, one victim, a memory for used tokens.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::clock::UnixTime;
use crate::ids::{FactorId, TenantId, UserId};
use crate::mfa::{Factor, MfaMethod};
use crate::session::SessionLimits;
use crate::session::clients::Client;
use crate::signin::identity::{Profile, UserKind};
use crate::signin::ports::{
    CommitResult, Directory, InForce, NewLinkOffer, Outcomes, ReplayGuard, SignInCommit, StoreError, Users,
};
use crate::signin::provider::{Provider, Tenant};
use crate::signin::record::{SignInRecord, SubjectChanged};
use crate::signin::user::{IdentityKey, Invited, KnownUser, User, UserStatus};

/// A tenant with one user, the victim, who holds a verified address and a second factor. Nothing can be
/// written to it.
pub struct Stage {
    victim: User,
}

impl Stage {
    /// The victim's identifier.
    pub const VICTIM: UserId = UserId::from_bytes([0xee; 16]);
    /// The victim's address. `.invalid` is nobody's (RFC 2606 section 2).
    pub const ADDRESS: &str = "victim@audit.invalid";

    /// For the tenant of a provider.
    #[must_use]
    pub fn new(provider: &Provider, now: UnixTime) -> Self {
        let profile = Profile {
            email: Some(Self::ADDRESS.to_owned()),
            email_verified: true,
            name: None,
            username: None,
            phone: None,
            phone_verified: false,
            locale: None,
            attributes: BTreeMap::new(),
            groups: Vec::new(),
            roles: Vec::new(),
            kind: UserKind::Person,
        };
        let tenant = provider.tenant.clone();
        let status = UserStatus::Active;
        let victim = User { id: Self::VICTIM, tenant, status, profile, created_at: now, password: None };
        Self { victim }
    }

    fn holds(&self, tenant: &TenantId, address: &str) -> bool {
        *tenant == self.victim.tenant && address.eq_ignore_ascii_case(Self::ADDRESS)
    }
}

#[async_trait]
impl Users for Stage {
    async fn find_by_identity(&self, _: &IdentityKey, _: UnixTime) -> Result<Option<KnownUser>, StoreError> {
        Ok(None)
    }

    async fn find_by_verified_email(
        &self,
        tenant: &TenantId,
        address: &str,
        _: UnixTime,
    ) -> Result<Option<KnownUser>, StoreError> {
        let known = || {
            let mut known = KnownUser::new(self.victim.clone());
            let id = FactorId::from_bytes([0xee; 16]);
            let enrolled_at = self.victim.created_at;
            known.factors.push(Factor { id, method: MfaMethod::Totp, enrolled_at, last_used_at: None });
            known
        };
        Ok(self.holds(tenant, address).then(known))
    }

    async fn find_verified_holder(&self, tenant: &TenantId, address: &str) -> Result<Option<UserId>, StoreError> {
        Ok(self.holds(tenant, address).then_some(Self::VICTIM))
    }

    async fn find_invitation(
        &self,
        _: &IdentityKey,
        _: Option<&str>,
        _: UnixTime,
    ) -> Result<Option<Invited>, StoreError> {
        Ok(None)
    }

    async fn has_other_subject(&self, _: UserId, _: &IdentityKey) -> Result<bool, StoreError> {
        Ok(false)
    }
}

#[async_trait]
impl Outcomes for Stage {
    async fn commit(&self, _: SignInCommit) -> Result<CommitResult, StoreError> {
        Err(StoreError("an audit writes nothing".into()))
    }

    async fn offer_link(&self, _: NewLinkOffer) -> Result<(), StoreError> {
        Err(StoreError("an audit writes nothing".into()))
    }

    async fn note_changed_subject(&self, _: SubjectChanged) -> Result<(), StoreError> {
        Ok(())
    }

    fn record_refusal(&self, _: SignInRecord) {}
}

/// The tenant with the attacked provider alone, or without it.
pub(super) struct OneProvider {
    tenant: Arc<Tenant>,
    enabled: Vec<Arc<Provider>>,
    disabled: Vec<Arc<Provider>>,
}

impl OneProvider {
    pub(super) fn new(provider: &Arc<Provider>, enabled: bool) -> Self {
        let tenant =
            Arc::new(Tenant { id: provider.tenant.clone(), hosts: Vec::new(), sessions: SessionLimits::default() });
        let (one, none) = (vec![Arc::clone(provider)], Vec::new());
        let (enabled, disabled) = if enabled { (one, none) } else { (none, one) };
        Self { tenant, enabled, disabled }
    }
}

impl Directory for OneProvider {
    fn find_tenant(&self, header: Option<&str>, _: Option<&str>) -> Option<Arc<Tenant>> {
        (header == Some(self.tenant.id.as_str())).then(|| Arc::clone(&self.tenant))
    }

    fn providers(&self, tenant: &TenantId) -> Vec<Arc<Provider>> {
        if *tenant == self.tenant.id { self.enabled.clone() } else { Vec::new() }
    }

    fn disabled_providers(&self, tenant: &TenantId) -> Vec<Arc<Provider>> {
        if *tenant == self.tenant.id { self.disabled.clone() } else { Vec::new() }
    }

    fn in_force(&self, tenant: &TenantId) -> Arc<InForce> {
        let providers = self.providers(tenant).iter().map(|p| (Arc::clone(&p.name), p.generation)).collect();
        Arc::new(InForce { providers, ..InForce::default() })
    }

    fn find_client(&self, _: &TenantId, _: &str) -> Option<Arc<Client>> {
        None
    }
}

/// Remembers what was used, for one attack.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashSet<[u8; 32]>>);

#[async_trait]
impl ReplayGuard for Memory {
    async fn remember(&self, key: [u8; 32], _: UnixTime, _: UnixTime) -> Result<bool, StoreError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key))
    }
}
