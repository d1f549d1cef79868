//! What the core needs of the world. The edges implement these; the core imports no edge.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::assessment::AssessedSignIn;
use super::decision::Decision;
use super::facts::{Facts, Location};
use super::identity::{MappingInput, MappingOutput};
use super::key::VerificationKey;
use super::likelihood::Commonness;
use super::provider::{Provider, SignatureAlgorithm, Tenant};
use super::record::{SignInRecord, SubjectChanged};
use super::rules::{PolicyFault, PolicySettings, RuleRun, ShapedTokens, TokenInput};
use super::security_events::ToldEvents;
use super::user::{IdentityKey, Invited, KnownUser, PlannedChange};
use crate::clock::UnixTime;
use crate::ids::{EventId, LinkId, TenantId, UserId};
use crate::mfa::NewChallenge;
use crate::session::clients::Client;
use crate::session::{Grant, NewSession};

/// A tenant's enabled providers and its registered clients, by name, each with its generation: one that was
/// deleted and made again under its name is another. See [`Provider::generation`].
#[derive(Debug, Default)]
pub struct InForce {
    /// The enabled providers.
    pub providers: HashMap<Arc<str>, i64>,
    /// The registered clients.
    pub clients: HashMap<Arc<str>, Arc<Client>>,
}

impl InForce {
    /// Whether the provider that a session or challenge came through is there and enabled.
    #[must_use]
    pub fn lets_provider_in(&self, grant: &Grant) -> bool {
        self.providers.get(&grant.provider) == Some(&grant.provider_generation)
    }

    /// Whether the registered client that a session or challenge belongs to, if it belongs to one, is there, and may
    /// still ask for what it was given.
    #[must_use]
    pub fn lets_client_in(&self, grant: &Grant) -> bool {
        self.has_client(grant) && self.lets_audience(grant)
    }

    /// Whether the registered client of a session or challenge, if it belongs to one, is there, and may still use the
    /// provider that it came through.
    #[must_use]
    pub fn has_client(&self, grant: &Grant) -> bool {
        grant.client.is_none() || self.client_of(grant).is_some_and(|client| client.may_use(&grant.provider))
    }

    /// Whether every audience that access tokens of a session or challenge may have is this server, or one that its
    /// client may ask for now.
    #[must_use]
    pub fn lets_audience(&self, grant: &Grant) -> bool {
        let by_factor = grant.shape_by_factor.values().filter_map(|shape| shape.audience.as_ref());
        let own = self.client_of(grant).map_or(&[][..], |client| &client.audiences);
        grant.audience.iter().chain(by_factor).all(|audience| own.contains(audience))
    }

    fn client_of(&self, grant: &Grant) -> Option<&Arc<Client>> {
        let client = self.clients.get(grant.client.as_ref()?)?;
        (client.generation == grant.client_generation).then_some(client)
    }
}

/// Tenants and providers as they stand now.
pub trait Directory: Send + Sync {
    /// The tenant that a header names, else the one of the host, else the default one.
    fn find_tenant(&self, header: Option<&str>, host: Option<&str>) -> Option<Arc<Tenant>>;
    /// The enabled providers of a tenant.
    fn providers(&self, tenant: &TenantId) -> Vec<Arc<Provider>>;
    /// Those that are there and disabled, to say so.
    fn disabled_providers(&self, tenant: &TenantId) -> Vec<Arc<Provider>>;
    /// The enabled ones, and the registered clients. What came through another one, a session or a challenge,
    /// opens nothing as long as that is so.
    fn in_force(&self, tenant: &TenantId) -> Arc<InForce>;
    /// The registered client of a tenant with this `client_id`.
    fn find_client(&self, tenant: &TenantId, id: &str) -> Option<Arc<Client>>;
}

/// Why no key came for a token.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The provider publishes no key with this id, and was asked again.
    #[error("the provider publishes no key with the id that the token names")]
    UnknownKey,
    /// The token names no key and more than one, or none, would fit.
    #[error("the token names no key, and {fitting} of the provider's keys fit its algorithm; exactly one must")]
    NoKeyId {
        /// How many fit.
        fitting: usize,
    },
    /// The named key is of another type, curve, size or use than the algorithm needs.
    #[error("the key that the token names does not fit the algorithm {algorithm}")]
    Unfit {
        /// The token's algorithm.
        algorithm: SignatureAlgorithm,
    },
    /// The provider publishes several keys under the id that the token names.
    #[error(
        "the provider publishes {fitting} different keys under the id that the token names; ids must be unique"
    )]
    Ambiguous {
        /// How many fit.
        fitting: usize,
    },
    /// No key set could be had within the limits.
    #[error("the provider's keys cannot be had now")]
    Unavailable {
        /// Seconds until another try makes sense.
        retry_after_s: u64,
        /// What went wrong, for the log.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Keys that providers sign with.
#[async_trait]
pub trait KeySource: Send + Sync {
    /// The key for a token whose header says this. The header is not verified yet: it only chooses
    /// among keys that the provider publishes.
    async fn find_key(
        &self,
        provider: &Provider,
        unverified_kid: Option<&str>,
        algorithm: SignatureAlgorithm,
    ) -> Result<Arc<VerificationKey>, KeyError>;
}

/// What a verifier outside of the core vouches for.
#[derive(Debug)]
pub struct ForeignClaims {
    /// The algorithm that the signature was checked with, such as `HS256`.
    pub alg: String,
    /// The claims that the signature covers.
    pub claims: Map<String, Value>,
}

/// Why a verifier outside of the core gave no claims.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    /// The token is not genuine, or of no format that the provider's verifiers know.
    #[error("the provider's verifier refuses the ID token: {code}")]
    Rejected {
        /// The verifier's reason, of `a-z 0-9 _`.
        code: String,
    },
    /// No verifier answered.
    #[error("the provider's verifier cannot be asked now")]
    Unavailable,
}

/// Verifiers of tokens that the core cannot read. They answer for the signature alone.
#[async_trait]
pub trait TokenVerifier: Send + Sync {
    /// Whether this provider's tokens are theirs.
    fn verifies(&self, provider: &Provider) -> bool;
    /// Checks the signature of a token, which may be any text.
    async fn verify(
        &self,
        provider: &Provider,
        unverified: &str,
        now: UnixTime,
    ) -> Result<ForeignClaims, ForeignError>;
}

/// Is told how sign-ins and answers to challenges ended, once that is durable, and what providers told of accounts.
#[async_trait]
pub trait Observer: Send + Sync {
    /// Whether nobody would hear; lets the path skip the work.
    fn is_idle(&self) -> bool;
    /// Takes note. Never waits.
    fn observe(&self, record: SignInRecord);
    /// Passes on what a provider told of an account. `false`: not all who listen have taken it.
    async fn hear(&self, told: &ToldEvents) -> bool;
}

/// The store is out of reach, full or broken. The cause goes to the log.
#[derive(Debug, thiserror::Error)]
#[error("the store did not answer")]
pub struct StoreError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Remembers what was used once.
#[async_trait]
pub trait ReplayGuard: Send + Sync {
    /// Remembers the key until then, durably. `true` for exactly one caller, on all nodes; a key whose
    /// time has passed at `now` counts as never seen.
    async fn remember(&self, key: [u8; 32], until: UnixTime, now: UnixTime) -> Result<bool, StoreError>;
}

/// Maps verified claims to local words: fast, without I/O.
pub trait ClaimMapper: Send + Sync {
    /// Runs the provider's mapping.
    ///
    /// # Errors
    /// When the script fails, runs too long, or gives nonsense.
    fn map(&self, provider: &Provider, input: Arc<MappingInput>) -> Result<MappingOutput, PolicyFault>;
}

/// The tenant's risk rules: fast, without I/O. A failing script is a fault inside the run.
pub trait RiskRules: Send + Sync {
    /// Runs `assess` on frozen facts.
    fn assess(&self, facts: Arc<Facts>) -> RuleRun;
    /// What the tenant's script adds to local tokens; nothing for a script without such a function.
    ///
    /// # Errors
    /// When the script fails. There are no tokens then.
    fn shape_tokens(&self, facts: &Arc<Facts>, input: TokenInput) -> Result<ShapedTokens, PolicyFault>;
    /// The tenant's settings.
    fn settings(&self, tenant: &TenantId) -> Arc<PolicySettings>;
}

/// What `enrich` plugins add to the claims of a provider.
#[derive(Debug, Default)]
pub struct Enrichment {
    /// Added claims by plugin id.
    pub added: BTreeMap<String, Map<String, Value>>,
    /// Plugins that were out of reach or ran too long.
    pub missing: Vec<String>,
    /// A plugin that refused the identity, with its reason.
    pub rejected: Option<(String, String)>,
}

/// Plugins that add to verified claims.
#[async_trait]
pub trait Enricher: Send + Sync {
    /// Asks every plugin bound to the provider. Never fails: what is missing is named.
    async fn enrich(&self, provider: &Provider, claims: &Arc<Map<String, Value>>) -> Enrichment;
}

/// Plugins that add risk signals.
#[async_trait]
pub trait SignalSource: Send + Sync {
    /// Whether any plugin would answer; lets the path skip the work.
    fn is_empty(&self) -> bool;
    /// Asks all of them side by side; `None` for one that failed or ran too long.
    async fn signals(&self, facts: &Arc<Facts>) -> BTreeMap<String, Option<Value>>;
}

/// How common surroundings are among a tenant's sign-ins.
pub trait TenantCounts: Send + Sync {
    /// The counts of a moment ago; `None` while they are not read yet. Fast, without I/O.
    fn find(&self, tenant: &TenantId) -> Option<Arc<Commonness>>;
}

/// Where an address is.
pub trait GeoLookup: Send + Sync {
    /// What the databases know of it, at this time of the day.
    fn locate(&self, ip: IpAddr, now: UnixTime) -> Location;
}

/// Users, as the sign-in path reads them.
#[async_trait]
pub trait Users: Send + Sync {
    /// The user that owns the identity, with factors and history.
    async fn find_by_identity(&self, key: &IdentityKey, now: UnixTime) -> Result<Option<KnownUser>, StoreError>;
    /// The user that holds this address verified (compared in lower case), with factors and history.
    async fn find_by_verified_email(
        &self,
        tenant: &TenantId,
        address: &str,
        now: UnixTime,
    ) -> Result<Option<KnownUser>, StoreError>;
    /// Who holds this address verified.
    async fn find_verified_holder(&self, tenant: &TenantId, address: &str) -> Result<Option<UserId>, StoreError>;
    /// The open invitation of this identity, else of this address; the caller has checked that the
    /// provider is trusted for it.
    async fn find_invitation(
        &self,
        key: &IdentityKey,
        verified_email: Option<&str>,
        now: UnixTime,
    ) -> Result<Option<Invited>, StoreError>;
    /// Whether the user has an identity of the same provider or issuer under another subject.
    async fn has_other_subject(&self, user: UserId, key: &IdentityKey) -> Result<bool, StoreError>;
}

/// What a decision gives, besides the record.
#[derive(Debug)]
pub enum NewOutcome {
    /// A session with its first refresh token.
    Session(NewSession),
    /// A challenge.
    Challenge(NewChallenge),
    /// Nothing: a denial.
    Denial,
}

/// Frozen facts and their trace, which only their store can open.
#[derive(Debug)]
pub struct SealedDecision {
    /// The sealed bytes.
    pub bytes: Vec<u8>,
    /// When they are removed.
    pub expires_at: UnixTime,
}

/// Freezes decisions, so that they can be explained, and decided again by other rules.
pub trait DecisionLog: Send + Sync {
    /// The sealed record of a decision; `None` when none is kept. Fast, without I/O: it is written with
    /// the sign-in's own commit.
    fn freeze(&self, id: EventId, assessed: &AssessedSignIn, decision: &Decision) -> Option<SealedDecision>;
}

/// Looks at decisions after they are carried out.
pub trait AfterDecision: Send + Sync {
    /// Told once the decision is durable. Never waits.
    fn decided(&self, id: EventId, facts: &Arc<Facts>, action: &'static str);
}

/// One sign-in's writes: all or nothing.
#[derive(Debug)]
pub struct SignInCommit {
    /// The planned change to users and identities.
    pub change: PlannedChange,
    /// The identity by which a user who was there came in: it must be this user's still.
    pub came_by: Option<IdentityKey>,
    /// Session or challenge.
    pub outcome: NewOutcome,
    /// What history will show.
    pub record: SignInRecord,
    /// What `explain` will show.
    pub sealed: Option<SealedDecision>,
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitResult {
    /// It is durable.
    Done,
    /// Another sign-in created this identity or took this verified address first, the identity was unlinked, or
    /// the user is no longer active; nothing was written.
    Conflict,
}

/// An identity that was refused because its address is another user's, and may be linked by that user.
#[derive(Debug, Clone)]
pub struct NewLinkOffer {
    /// Its identifier.
    pub id: LinkId,
    /// SHA-256 of the secret that the client holds.
    pub secret_hash: [u8; 32],
    /// The verified identity: the only one that the offer links.
    pub identity: IdentityKey,
    /// The only user that it links it to.
    pub user: UserId,
    /// When it ends.
    pub expires_at: UnixTime,
}

/// Writes of the sign-in path.
#[async_trait]
pub trait Outcomes: Send + Sync {
    /// Writes the commit, durably, together with those of other waiting sign-ins.
    async fn commit(&self, commit: SignInCommit) -> Result<CommitResult, StoreError>;
    /// Keeps a link offer, durably.
    async fn offer_link(&self, offer: NewLinkOffer) -> Result<(), StoreError>;
    /// Tells administrators, at most once a day for one user and provider.
    async fn note_changed_subject(&self, noted: SubjectChanged) -> Result<(), StoreError>;
    /// Writes the record of a refusal after verification. Not awaited; dropped and counted when the
    /// store cannot keep up.
    fn record_refusal(&self, record: SignInRecord);
}
