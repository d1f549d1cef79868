//! Tenants and the providers they trust: only valid values, built by the configuration.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::TenantId;
use crate::session::SessionLimits;

/// One customer of this server: its users, keys, policies and providers are its own.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its name.
    pub id: TenantId,
    /// Host names that select it.
    pub hosts: Vec<String>,
    /// Limits of its users' sessions.
    pub sessions: SessionLimits,
}

/// A signature algorithm that a provider may use: asymmetric ones only (RFC 8725 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519 (RFC 8037).
    EdDsa,
}

impl SignatureAlgorithm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The `alg` value of RFC 7518 section 3.1 and RFC 8037 section 3.1.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this `alg` value; `None` for every other one, `none` and `HS256` among them.
    /// `Ed25519` is the name of RFC 9864 for what `EdDSA` means here.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        if name == "Ed25519" {
            return Some(Self::EdDsa);
        }
        Self::ALL.into_iter().find(|a| a.name() == name)
    }

    /// The twin in `jsonwebtoken`.
    #[must_use]
    pub const fn to_jsonwebtoken(self) -> jsonwebtoken::Algorithm {
        use jsonwebtoken::Algorithm as J;
        match self {
            Self::Rs256 => J::RS256,
            Self::Rs384 => J::RS384,
            Self::Rs512 => J::RS512,
            Self::Ps256 => J::PS256,
            Self::Ps384 => J::PS384,
            Self::Ps512 => J::PS512,
            Self::Es256 => J::ES256,
            Self::Es384 => J::ES384,
            Self::EdDsa => J::EdDSA,
        }
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which `iss` values a provider's tokens may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerRule {
    /// One of these, compared byte by byte. The first is the one discovery is asked of.
    Exact(Vec<String>),
    /// `prefix` + the token's verified `tid` + `suffix`, where `tid` is in the allow-list.
    PerTenant {
        /// What stands before `{tenantid}`.
        prefix: String,
        /// What stands after it.
        suffix: String,
        /// The upstream tenants that are let in.
        allowed_tenant_ids: Vec<String>,
    },
}

impl IssuerRule {
    /// Whether a token with this issuer may be meant for the provider. Says nothing of trust.
    #[must_use]
    pub fn may_match(&self, unverified_issuer: &str) -> bool {
        match self {
            Self::Exact(issuers) => issuers.iter().any(|i| i == unverified_issuer),
            Self::PerTenant { prefix, suffix, allowed_tenant_ids } => unverified_issuer
                .strip_prefix(prefix.as_str())
                .and_then(|rest| rest.strip_suffix(suffix.as_str()))
                .is_some_and(|tid| allowed_tenant_ids.iter().any(|a| a == tid)),
        }
    }

    /// The issuer as it is configured, template included.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Exact(issuers) => issuers.first().cloned().unwrap_or_default(),
            Self::PerTenant { prefix, suffix, .. } => format!("{prefix}{{tenantid}}{suffix}"),
        }
    }
}

/// Further names of issuers, each with the one that identities are kept under. Apple's tokens carry either name, and a
/// `sub` is the user within the developer's team under both. What a configuration lists besides may be issuers that give
/// one subject to different people, so there each name keeps its own identities.
const OTHER_NAMES: [(&str, &str); 1] = [("https://account.apple.com", "https://appleid.apple.com")];

/// The name that identities of a verified issuer are kept under: the same for all names of one issuer.
#[must_use]
pub fn identity_issuer(verified: &Arc<str>) -> Arc<str> {
    let kept_under = OTHER_NAMES.iter().find(|(other, _)| **other == **verified);
    kept_under.map_or_else(|| Arc::clone(verified), |(_, name)| Arc::from(*name))
}

/// What is asked of the `nonce` claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoncePolicy {
    /// Compared when the request brings one; a nonce that only the token carries is passed over, since
    /// some client libraries add one of their own.
    Optional,
    /// The request must bring it.
    Required,
    /// It must be one that this server issued and nobody used yet.
    ServerIssued,
    /// Neither the request nor the token may have one.
    Forbidden,
}

/// Whether the same ID token may be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayPolicy {
    /// Once, until it expires.
    SingleUse,
    /// As often as it is valid.
    Allow,
}

/// When the provider's word on an e-mail address is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmailTrust {
    /// Never: every address counts as unverified.
    Never,
    /// When `email_verified` is true.
    Claim,
    /// When `email_verified` is true and the address is in one of these domains (lower case).
    Domains(Vec<String>),
}

/// What happens when a new identity brings the verified address of an existing user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linking {
    /// Refused with `account_exists`.
    Never,
    /// Linked when the address is verified on both sides.
    VerifiedEmail,
    /// Linked when the existing account is proved: by its strong factor when the address is verified on
    /// both sides, else by a fresh session of it that redeems the link token of the refusal.
    Confirm,
}

/// What happens to an identity that nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provisioning {
    /// A user is created.
    Create,
    /// Only an invited one is let in, once; others are refused with `user_not_provisioned`.
    Invite,
    /// Refused with `user_not_provisioned`.
    Refuse,
}

/// What of a user the mapping tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// The address, and whether it is verified.
    Email,
    /// The display name.
    Name,
    /// The user name.
    Username,
    /// The phone number, and whether it is verified.
    Phone,
    /// The language.
    Locale,
    /// Everything else, name by name.
    Attributes,
    /// Groups.
    Groups,
    /// Roles.
    Roles,
}

impl Attribute {
    /// All of them, by the word of the configuration.
    pub const ALL: [(&'static str, Self); 8] = [
        ("email", Self::Email),
        ("name", Self::Name),
        ("username", Self::Username),
        ("phone", Self::Phone),
        ("locale", Self::Locale),
        ("attributes", Self::Attributes),
        ("groups", Self::Groups),
        ("roles", Self::Roles),
    ];
}

/// When what a provider tells is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remap {
    /// At every sign-in. What the mapping leaves out stays.
    Always,
    /// While the user has none.
    Once,
    /// Not at all.
    Never,
}

/// The rule of each attribute; [`Remap::Always`] for one that is in no list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemapRules {
    /// Those with [`Remap::Once`].
    pub once: Vec<Attribute>,
    /// Those with [`Remap::Never`].
    pub never: Vec<Attribute>,
}

impl RemapRules {
    /// The rule of this one.
    #[must_use]
    pub fn of(&self, attribute: Attribute) -> Remap {
        if self.never.contains(&attribute) {
            Remap::Never
        } else if self.once.contains(&attribute) {
            Remap::Once
        } else {
            Remap::Always
        }
    }
}

/// What a plugin that cannot be reached means for the provider it enriches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnrichFailure {
    /// The sign-in is refused for now.
    Deny,
    /// The sign-in goes on; rules see the plugin in `s.upstream.enrich_missing`.
    Continue,
}

/// Which notices of a form of its own a provider sends, beside security event tokens (RFC 8417).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notices {
    /// None.
    None,
    /// Apple's server-to-server notices.
    Apple,
}

/// An OpenID provider as one tenant trusts it.
#[derive(Debug, Clone)]
pub struct Provider {
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// Its name in the tenant.
    pub name: Arc<str>,
    /// Which of those that had this name one after the other, as the store counts them; 0: the one of the file.
    pub generation: i64,
    /// Accepted issuers.
    pub issuer: IssuerRule,
    /// Accepted audiences: the application's client ids at the provider. Never empty.
    pub client_ids: Vec<String>,
    /// Further `azp` values that are fine.
    pub authorized_parties: Vec<String>,
    /// Pinned algorithms. Never empty.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// The rule for `nonce`.
    pub nonce: NoncePolicy,
    /// The rule for using a token twice.
    pub replay: ReplayPolicy,
    /// The greatest age by `iat`.
    pub max_token_age: Duration,
    /// Allowed difference of the two clocks; at most 300 s.
    pub clock_leeway: Duration,
    /// The rule for e-mail addresses.
    pub email_trust: EmailTrust,
    /// The rule for linking.
    pub linking: Linking,
    /// The rule for new identities.
    pub provisioning: Provisioning,
    /// With [`Provisioning::Create`]: a user is created only with a verified address in one of these domains (lower
    /// case); empty: with any or none.
    pub provisioning_domains: Vec<String>,
    /// `amr` values that count as MFA at the provider.
    pub trust_amr: Vec<String>,
    /// The names of the mapping scripts to try, most specific first.
    pub mapping: Vec<String>,
    /// When what the mapping tells is stored.
    pub remap: RemapRules,
    /// Groups that the mapping may grant.
    pub allowed_groups: Vec<String>,
    /// Roles that the mapping may grant.
    pub allowed_roles: Vec<String>,
    /// Roles that everybody who comes through it has, beside what the mapping grants.
    pub default_roles: Vec<String>,
    /// What an `enrich` plugin out of reach means.
    pub enrich_failure: EnrichFailure,
    /// Where keys are when the provider has no discovery document.
    pub jwks_uri: Option<String>,
    /// Notices of a form of its own.
    pub notices: Notices,
    /// Refusals list all checks of the token, for whoever sets the provider up.
    pub test_mode: bool,
}

impl Provider {
    /// Whether this audience is one of the configured client ids.
    #[must_use]
    pub fn knows_client(&self, client_id: &str) -> bool {
        self.client_ids.iter().any(|c| c == client_id)
    }
}
