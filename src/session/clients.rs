//! Applications that may use the OAuth endpoints, and how they prove who they are (RFC 6749 section 2).

use std::collections::HashMap;
use std::sync::Arc;

use crate::ids::TenantId;
use crate::secret::{same, sha256};

/// What kind of application it is: whether it can keep a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKind {
    /// Runs on a server for users.
    Web,
    /// Runs in a browser.
    Spa,
    /// Runs on a user's device.
    Native,
    /// Runs on a server without users.
    Machine,
}

impl ClientKind {
    /// Whether it has a secret (RFC 6749 section 2.1).
    #[must_use]
    pub const fn is_confidential(self) -> bool {
        matches!(self, Self::Web | Self::Machine)
    }

    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Spa => "spa",
            Self::Native => "native",
            Self::Machine => "machine",
        }
    }
}

/// What a client may do at the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientGrant {
    /// RFC 8693.
    TokenExchange,
    /// RFC 6749 section 6.
    RefreshToken,
}

/// A registered application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// Its `client_id`, unique in the tenant.
    pub id: Arc<str>,
    /// What kind of application it is.
    pub kind: ClientKind,
    /// SHA-256 of its secrets; two while one follows the other, none for a public client.
    pub secret_hashes: Vec<[u8; 32]>,
    /// What it may do at the token endpoint.
    pub grants: Vec<ClientGrant>,
    /// The providers whose ID tokens it may exchange.
    pub providers: Vec<Arc<str>>,
    /// The audiences that it may ask for.
    pub audiences: Vec<Arc<str>>,
}

impl Client {
    /// Whether it may exchange ID tokens of this provider.
    #[must_use]
    pub fn may_use(&self, provider: &str) -> bool {
        self.providers.iter().any(|p| **p == *provider)
    }

    /// Whether it may do this at the token endpoint.
    #[must_use]
    pub fn may(&self, grant: ClientGrant) -> bool {
        self.grants.contains(&grant)
    }
}

/// All registered clients.
#[derive(Debug, Default)]
pub struct Clients(HashMap<(TenantId, Arc<str>), Arc<Client>>);

impl Clients {
    /// Of these.
    #[must_use]
    pub fn new(clients: &[Arc<Client>]) -> Self {
        Self(clients.iter().map(|c| ((c.tenant.clone(), Arc::clone(&c.id)), Arc::clone(c))).collect())
    }

    /// The client of the tenant with this identifier, if the secret is one of its own: a confidential client
    /// must bring one, a public one must not. The comparison takes the same time for a client that is not
    /// there.
    #[must_use]
    pub fn authenticate(&self, tenant: &TenantId, id: &str, secret: Option<&str>) -> Option<Arc<Client>> {
        let client = self.0.get(&(tenant.clone(), Arc::from(id)));
        let given = sha256(secret.unwrap_or_default().as_bytes());
        let nobody = [[0; 32]];
        let hashes = client.map_or(&nobody[..], |c| &c.secret_hashes);
        let fits = hashes.iter().fold(false, |found, hash| found | same(hash, &given));
        let client = client?;
        let proved = match secret {
            Some(_) => client.kind.is_confidential() && fits,
            None => !client.kind.is_confidential(),
        };
        proved.then(|| Arc::clone(client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confidential_client_brings_its_secret_a_public_one_none_and_each_only_in_its_tenant() {
        let client = |id: &str, kind, secrets: &[&str]| {
            Arc::new(Client {
                tenant: TenantId::parse("default").unwrap(),
                id: id.into(),
                kind,
                secret_hashes: secrets.iter().map(|s| sha256(s.as_bytes())).collect(),
                grants: Vec::new(),
                providers: Vec::new(),
                audiences: Vec::new(),
            })
        };
        let web = client("web", ClientKind::Web, &["old", "new"]);
        let clients = Clients::new(&[web, client("app", ClientKind::Native, &[])]);
        let tenant = TenantId::parse("default").unwrap();
        let other = TenantId::parse("other").unwrap();
        let fits = |tenant, id, secret| clients.authenticate(tenant, id, secret).is_some();
        assert!(fits(&tenant, "web", Some("old")) && fits(&tenant, "web", Some("new")));
        assert!(fits(&tenant, "app", None));
        for (tenant, id, secret) in [
            (&tenant, "web", None),
            (&tenant, "web", Some("")),
            (&tenant, "web", Some("ol")),
            (&tenant, "app", Some("")),
            (&tenant, "app", Some("old")),
            (&tenant, "nobody", None),
            (&tenant, "nobody", Some("old")),
            (&other, "web", Some("old")),
            (&other, "app", None),
        ] {
            assert!(!fits(tenant, id, secret), "{id} {secret:?}");
        }
    }
}
