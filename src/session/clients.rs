//! Applications that may use the OAuth endpoints, and how they prove who they are (RFC 6749 section 2).

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

    /// All of them.
    pub const ALL: [Self; 4] = [Self::Web, Self::Spa, Self::Native, Self::Machine];

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

impl ClientGrant {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::TokenExchange, Self::RefreshToken];

    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenExchange => "token-exchange",
            Self::RefreshToken => "refresh_token",
        }
    }
}

/// A registered application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// Its `client_id`, unique in the tenant.
    pub id: Arc<str>,
    /// Which of those that had this `client_id` one after the other, as the store counts them; 0: the one of the
    /// file.
    pub generation: i64,
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

/// Whether this secret is the client's: a confidential client must bring one of its own, a public one must bring
/// none. The comparison takes the same time for a client that is not there.
#[must_use]
pub fn proves(client: Option<&Client>, secret: Option<&str>) -> bool {
    let given = sha256(secret.unwrap_or_default().as_bytes());
    let nobody = [[0; 32]];
    let hashes = client.map_or(&nobody[..], |c| &c.secret_hashes);
    let fits = hashes.iter().fold(false, |found, hash| found | same(hash, &given));
    let Some(client) = client else { return false };
    match secret {
        Some(_) => client.kind.is_confidential() && fits,
        None => !client.kind.is_confidential(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confidential_client_brings_its_secret_and_a_public_one_none() {
        let client = |kind, secrets: &[&str]| Client {
            tenant: TenantId::parse("default").unwrap(),
            id: "it".into(),
            generation: 0,
            kind,
            secret_hashes: secrets.iter().map(|s| sha256(s.as_bytes())).collect(),
            grants: Vec::new(),
            providers: Vec::new(),
            audiences: Vec::new(),
        };
        let (web, app) = (client(ClientKind::Web, &["old", "new"]), client(ClientKind::Native, &[]));
        for (client, secret, expected) in [
            (Some(&web), Some("old"), true),
            (Some(&web), Some("new"), true),
            (Some(&web), None, false),
            (Some(&web), Some(""), false),
            (Some(&web), Some("ol"), false),
            (Some(&app), None, true),
            (Some(&app), Some(""), false),
            (Some(&app), Some("old"), false),
            (None, None, false),
            (None, Some("old"), false),
        ] {
            assert_eq!(proves(client, secret), expected, "{secret:?}");
        }
    }
}
