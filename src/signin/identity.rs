//! Step 6, second half: what a mapping script said, checked field by field into a [`MappedIdentity`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::facts::{ProviderFacts, RequestFacts, UpstreamFacts};
use super::provider::{EmailTrust, Provider};
use super::replay::FreshToken;
use super::rules::PolicyFault;
use crate::ids::TenantId;

/// What `map(s, out)` may look at: no user, no history.
#[derive(Debug, Clone)]
pub struct MappingInput {
    /// The tenant.
    pub tenant: TenantId,
    /// The provider.
    pub provider: ProviderFacts,
    /// Verified claims, and those of `enrich` plugins under `x.<plugin>`.
    pub claims: Arc<Map<String, Value>>,
    /// The sign-in at the provider.
    pub upstream: UpstreamFacts,
    /// The request.
    pub request: RequestFacts,
}

/// What a user is. A service user is a workload, such as a build job or a pod, that signs in with the token
/// of its platform: nobody sits there, so it has no second factor and no address is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UserKind {
    /// Somebody.
    #[default]
    Person,
    /// A workload.
    Service,
}

impl UserKind {
    /// The word that rules use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Service => "service",
        }
    }

    /// The kind of a word.
    #[must_use]
    pub fn find(word: &str) -> Option<Self> {
        [Self::Person, Self::Service].into_iter().find(|k| k.as_str() == word)
    }
}

/// What `map` put into `out`, not yet checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MappingOutput {
    /// `out.service()`: this is a workload.
    pub kind: UserKind,
    /// `out.subject(v)`: must equal the verified `sub`.
    pub subject: Option<String>,
    /// `out.email(v, verified)`.
    pub email: Option<(String, bool)>,
    /// `out.name(v)`.
    pub name: Option<String>,
    /// `out.username(v)`.
    pub username: Option<String>,
    /// `out.phone(v, verified)`.
    pub phone: Option<(String, bool)>,
    /// `out.locale(v)`.
    pub locale: Option<String>,
    /// `out.attribute("k", v)`.
    pub attributes: BTreeMap<String, Value>,
    /// `out.group("g")`.
    pub groups: Vec<String>,
    /// `out.role("r")`.
    pub roles: Vec<String>,
    /// `out.reject("code")`.
    pub reject: Option<String>,
}

/// Why no identity came of a mapping.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// The script failed; the fault goes to the log, not to the client.
    #[error("the mapping of this provider failed")]
    Fault(#[source] PolicyFault),
    /// The script refused this identity.
    #[error("the mapping of this provider refuses this identity: {code}")]
    Rejected {
        /// The script's reason.
        code: String,
    },
    /// A value that the script gave cannot be stored.
    #[error("the mapping of this provider gave an unusable {field}")]
    Field {
        /// Which value.
        field: &'static str,
    },
}

/// A person or a workload as the provider describes it, in local words.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// A person or a workload.
    pub kind: UserKind,
    /// Shape-checked address.
    pub email: Option<String>,
    /// Verified by a provider that is trusted for it.
    pub email_verified: bool,
    /// Display name.
    pub name: Option<String>,
    /// Preferred user name.
    pub username: Option<String>,
    /// Phone number.
    pub phone: Option<String>,
    /// Verified by the provider.
    pub phone_verified: bool,
    /// BCP 47 language.
    pub locale: Option<String>,
    /// Anything else.
    pub attributes: BTreeMap<String, Value>,
    /// Groups, all within the provider's allow-list.
    pub groups: Vec<String>,
    /// Roles, all within the provider's allow-list.
    pub roles: Vec<String>,
}

/// A fresh token with its checked mapping. Only this module can build it.
#[derive(Debug)]
pub struct MappedIdentity {
    token: FreshToken,
    profile: Profile,
}

impl MappedIdentity {
    /// Checks what the script gave.
    ///
    /// # Errors
    /// When the script rejected, or gave a value that cannot be stored.
    pub fn check(token: FreshToken, output: MappingOutput) -> Result<Self, MappingError> {
        if let Some(code) = output.reject {
            return Err(MappingError::Rejected { code });
        }
        let provider = token.provider();
        if output.subject.is_some_and(|s| *s != **token.subject()) {
            return Err(MappingError::Field { field: "subject" });
        }
        let (email, claimed_verified) = match output.email {
            Some((address, verified)) => (Some(check_email(address)?), verified),
            None => (None, false),
        };
        // An address that a workload's token carries is of whoever runs it: it verifies and links nothing.
        let is_person = output.kind == UserKind::Person;
        let email_verified = is_person && email.as_deref().is_some_and(|a| trusts(provider, a, claimed_verified));
        let (phone, phone_verified) = match output.phone {
            Some((number, verified)) => (Some(check_text(number, 32, "phone")?), verified),
            None => (None, false),
        };
        let attributes = check_attributes(output.attributes)?;
        let groups = within(output.groups, &provider.allowed_groups);
        let mut roles = within(output.roles, &provider.allowed_roles);
        roles.extend_from_slice(&provider.default_roles);
        let roles = in_order(roles);
        let profile = Profile {
            kind: output.kind,
            email,
            email_verified,
            name: output.name.map(|v| check_text(v, 256, "name")).transpose()?,
            username: output.username.map(|v| check_text(v, 128, "username")).transpose()?,
            phone,
            phone_verified,
            locale: output.locale.map(|v| check_text(v, 35, "locale")).transpose()?,
            attributes,
            groups,
            roles,
        };
        Ok(Self { token, profile })
    }

    /// The verified token.
    #[must_use]
    pub fn token(&self) -> &FreshToken {
        &self.token
    }

    /// The person or workload.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }
}

/// What the allow-list has of them, each once and in order.
fn within(told: Vec<String>, allowed: &[String]) -> Vec<String> {
    in_order(told.into_iter().filter(|name| allowed.contains(name)).collect())
}

fn in_order(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names
}

/// Whether an address is in one of these domains, which are in lower case.
pub(super) fn is_in(address: &str, domains: &[String]) -> bool {
    let domain = address.rsplit_once('@').map(|(_, domain)| domain.to_ascii_lowercase());
    domain.is_some_and(|domain| domains.contains(&domain))
}

fn trusts(provider: &Provider, address: &str, claimed_verified: bool) -> bool {
    match &provider.email_trust {
        EmailTrust::Never => false,
        EmailTrust::Claim => claimed_verified,
        EmailTrust::Domains(domains) => claimed_verified && is_in(address, domains),
    }
}

fn check_email(address: String) -> Result<String, MappingError> {
    if is_email(&address) { Ok(address) } else { Err(MappingError::Field { field: "email" }) }
}

/// Only the shape: one `@` between two texts, no space or control character, 254 bytes at most
/// (RFC 5321 section 4.5.3.1.3). Whether it exists, nobody can tell from here.
#[must_use]
pub fn is_email(address: &str) -> bool {
    address.len() <= 254
        && address
            .split_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'))
        && !address.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn check_text(text: String, most: usize, field: &'static str) -> Result<String, MappingError> {
    if text.is_empty() || text.len() > most || text.chars().any(char::is_control) {
        return Err(MappingError::Field { field });
    }
    Ok(text)
}

fn check_attributes(attributes: BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>, MappingError> {
    let unusable = MappingError::Field { field: "attribute" };
    if attributes.len() > 64 || attributes.keys().any(|k| k.is_empty() || k.len() > 64) {
        return Err(unusable);
    }
    let size: usize = attributes.values().map(|v| v.to_string().len()).sum();
    if size > 8192 { Err(unusable) } else { Ok(attributes) }
}
