//! Roles and scopes. What no row of [`least_role`] allows is refused.

use std::fmt;

use super::audit::{Actor, Author};
use crate::clock::UnixTime;
use crate::codes::ErrorCode;
use crate::ids::{AdminKeyId, EventId, RequestId, TenantId};
use crate::secret::Entropy;

/// What an admin key may do. Each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Viewer,
    /// Change what sign-ins meet: providers, OAuth clients, users, policies.
    Editor,
    /// Change what holds the server together: tenants, keys, plugins; erase users.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Editor, Self::Admin];

    /// The word of the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
        }
    }

    /// The role of a word.
    #[must_use]
    pub fn find(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where an admin key may act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// In this tenant.
    Tenant(TenantId),
    /// In every tenant, and on the server itself.
    All,
}

impl Scope {
    /// Whether everything of `other` lies within.
    #[must_use]
    pub fn holds(&self, other: &Self) -> bool {
        matches!(self, Self::All) || self == other
    }
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Looks, and changes nothing.
    Read,
    /// Tries something out, at the cost of work or a request to elsewhere, and changes nothing.
    Try,
    /// Changes something.
    Change,
    /// Destroys something for good.
    Erase,
}

/// What an operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Tenants.
    Tenants,
    /// Providers.
    Providers,
    /// OAuth clients.
    Clients,
    /// Users, their identities, factors and sessions.
    Users,
    /// Records of sign-ins.
    SignIns,
    /// Policies.
    Policies,
    /// Plugins.
    Plugins,
    /// Keys that sign local tokens.
    SigningKeys,
    /// Admin keys.
    AdminKeys,
    /// The audit log.
    Audit,
}

/// The least role for a verb on a resource.
#[must_use]
pub const fn least_role(verb: Verb, resource: Resource) -> Role {
    use Resource as R;
    match (verb, resource) {
        (_, R::AdminKeys) | (Verb::Erase, _) => Role::Admin,
        (Verb::Read, _) => Role::Viewer,
        (Verb::Change, R::Tenants | R::SigningKeys | R::Plugins | R::Audit) => Role::Admin,
        (Verb::Try, _) | (Verb::Change, R::Providers | R::Clients | R::Users | R::SignIns | R::Policies) => {
            Role::Editor
        }
    }
}

/// What an operation acts on.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// One tenant.
    Tenant(&'a TenantId),
    /// All tenants at once, or the server itself.
    Server,
}

/// Why a key does not open an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The role is too low.
    #[error("this needs an admin key with the role {needed}; this one has {held}")]
    Role {
        /// The least role.
        needed: Role,
        /// The key's.
        held: Role,
    },
    /// Another tenant, or all of them.
    #[error("this admin key is for one tenant, and this is not within it")]
    Scope,
}

impl AccessError {
    /// The stable word of the contract.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Role { .. } => ErrorCode::AdminRoleInsufficient,
            Self::Scope => ErrorCode::AdminScopeInsufficient,
        }
    }
}

/// A living admin key in the hand of somebody. Only [`super::keys::KeyCheck`] makes one.
#[derive(Debug, Clone)]
pub struct Caller {
    key: AdminKeyId,
    role: Role,
    scope: Scope,
    request: RequestId,
}

impl Caller {
    pub(super) fn new(key: AdminKeyId, role: Role, scope: Scope, request: RequestId) -> Self {
        Self { key, role, scope, request }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> AdminKeyId {
        self.key
    }

    /// Its role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Where it may act.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The one check of role and scope.
    ///
    /// # Errors
    /// When the role is too low, or the place lies outside the scope. Scope is told first, so that a key
    /// of one tenant learns nothing of another.
    pub fn permit(&self, verb: Verb, resource: Resource, place: Place<'_>) -> Result<Permit, AccessError> {
        let tenant = match (&self.scope, place) {
            (Scope::All, Place::Server) => None,
            (Scope::All, Place::Tenant(tenant)) => Some(tenant.clone()),
            (Scope::Tenant(own), Place::Tenant(tenant)) if own == tenant => Some(tenant.clone()),
            (Scope::Tenant(_), _) => return Err(AccessError::Scope),
        };
        let needed = least_role(verb, resource);
        if self.role < needed {
            return Err(AccessError::Role { needed, held: self.role });
        }
        Ok(Permit { key: self.key, tenant, request: self.request })
    }
}

/// Leave for one operation. Only [`Caller::permit`] makes one.
#[derive(Debug, Clone)]
pub struct Permit {
    key: AdminKeyId,
    tenant: Option<TenantId>,
    request: RequestId,
}

impl Permit {
    /// The tenant; `None` for the server itself.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    /// Whoever makes one change under this permit.
    #[must_use]
    pub fn author(&self, now: UnixTime, entropy: &dyn Entropy) -> Author {
        Author {
            event: EventId::generate(now, entropy),
            at: now,
            actor: Actor::AdminKey(self.key),
            tenant: self.tenant.clone(),
            request: Some(self.request),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SystemEntropy;

    fn caller(role: Role, scope: Scope) -> Caller {
        let now = UnixTime::from_secs(1);
        let key = AdminKeyId::generate(now, &SystemEntropy);
        Caller::new(key, role, scope, RequestId::generate(now, &SystemEntropy))
    }

    #[test]
    fn a_key_of_one_tenant_opens_neither_another_nor_the_server() {
        let (own, other) = (TenantId::parse("own").unwrap(), TenantId::parse("other").unwrap());
        let caller = caller(Role::Admin, Scope::Tenant(own.clone()));
        assert!(caller.permit(Verb::Change, Resource::Users, Place::Tenant(&own)).is_ok());
        for place in [Place::Tenant(&other), Place::Server] {
            let refused = caller.permit(Verb::Read, Resource::Audit, place).unwrap_err();
            assert_eq!(refused, AccessError::Scope);
        }
    }

    #[test]
    fn a_viewer_changes_nothing_and_an_editor_neither_keys_nor_tenants_nor_plugins() {
        use Resource as R;
        let all = [
            R::Tenants,
            R::Providers,
            R::Clients,
            R::Users,
            R::SignIns,
            R::Policies,
            R::Plugins,
            R::SigningKeys,
            R::AdminKeys,
            R::Audit,
        ];
        for resource in all {
            for verb in [Verb::Try, Verb::Change, Verb::Erase] {
                assert!(least_role(verb, resource) > Role::Viewer, "{verb:?} {resource:?}");
            }
            assert_eq!(least_role(Verb::Erase, resource), Role::Admin);
        }
        for resource in [R::Tenants, R::SigningKeys, R::AdminKeys, R::Plugins] {
            assert_eq!(least_role(Verb::Change, resource), Role::Admin, "{resource:?}");
        }
        assert_eq!(least_role(Verb::Read, R::AdminKeys), Role::Admin);
    }
}
