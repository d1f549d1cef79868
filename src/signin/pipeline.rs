//! The walk: one sign-in from the request to its outcome, top to bottom.
//!
//! Reads come first, writes last: no transaction is open while a script or a plugin runs. Nothing comes
//! back up the path, but for one thing: when two first sign-ins meet, the slower one goes back to the
//! resolving of the user, once.

mod carry_out;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tracing::Instrument;

use carry_out::{Carried, Terms, log_fault, report};

use super::assessment::assess;
use super::decision::{Decided, decide};
use super::error::SignInError;
use super::facts::{ProviderFacts, RequestFacts, UpstreamFacts};
use super::history::{ContextPrint, Pseudonyms};
use super::identity::{MappedIdentity, MappingError, MappingInput};
use super::nonce::NonceIssuer;
use super::ports::{
    AfterDecision, ClaimMapper, DecisionLog, Directory, Enricher, GeoLookup, KeySource, Observer, Outcomes,
    ReplayGuard, RiskRules, SignalSource, TenantCounts, TokenVerifier, Users,
};
use super::provider::{EnrichFailure, NoncePolicy, Provider, Tenant, identity_issuer};
use super::record::AssessmentRecord;
use super::replay::{FreshToken, spend};
use super::request::SignInRequest;
use super::rules::PolicySettings;
use super::signals::{SignalWorld, gather, request_facts, upstream_facts};
use super::token::{MAX_TOKEN_BYTES, TokenShapeError, UnverifiedToken};
use super::trace::{Checked, Ending};
use super::user::{ResolveError, ResolvedUser, User, resolve};
use super::verify::{Expected, VerifiedToken, admit, check_algorithm, verify};
use crate::clock::{Clock, UnixTime};
use crate::ids::{TenantId, UserId};
use crate::mfa::MfaMethod;
use crate::mfa::delivery::CodeChannels;
use crate::people::devices::DeviceProof;
use crate::secret::Entropy;
use crate::session::issue::{IssuedTokens, TokenIssuer};

/// How long an identity that was refused waits to be linked.
pub const LINK_OFFER_TTL: Duration = Duration::from_secs(600);

/// What a sign-in gives, besides a refusal. Not printable: it holds tokens.
pub enum Outcome {
    /// Local tokens.
    SignedIn {
        /// The tokens.
        tokens: IssuedTokens,
        /// The user.
        user: Box<User>,
        /// Score and level.
        assessment: AssessmentRecord,
    },
    /// A challenge.
    Challenged {
        /// `chg_….secret`, for the client.
        challenge_token: String,
        /// How long it lives.
        expires_in: Duration,
        /// Methods that the user can use now, best first.
        methods: Vec<MfaMethod>,
        /// The weightiest reason.
        reason: Arc<str>,
        /// The user.
        user: UserId,
        /// Score and level.
        assessment: AssessmentRecord,
    },
}

/// The sign-in path with everything it needs of the world.
pub struct Pipeline {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Tenants and providers.
    pub directory: Arc<dyn Directory>,
    /// Provider keys.
    pub keys: Arc<dyn KeySource>,
    /// Verifiers of tokens that are no JWS of ours to read.
    pub verifiers: Arc<dyn TokenVerifier>,
    /// What was used once.
    pub replays: Arc<dyn ReplayGuard>,
    /// Plugins that add claims.
    pub enricher: Arc<dyn Enricher>,
    /// Mapping scripts.
    pub mapper: Arc<dyn ClaimMapper>,
    /// Users.
    pub users: Arc<dyn Users>,
    /// Places.
    pub geo: Arc<dyn GeoLookup>,
    /// Plugins that add signals.
    pub signals: Arc<dyn SignalSource>,
    /// What is common in a tenant.
    pub counts: Arc<dyn TenantCounts>,
    /// Risk scripts.
    pub rules: Arc<dyn RiskRules>,
    /// Writes.
    pub outcomes: Arc<dyn Outcomes>,
    /// Who is told how it ended.
    pub observer: Arc<dyn Observer>,
    /// Channels that send codes.
    pub channels: Arc<dyn CodeChannels>,
    /// Frozen decisions.
    pub decisions: Arc<dyn DecisionLog>,
    /// Who looks at decisions afterwards.
    pub after: Arc<dyn AfterDecision>,
    /// Local tokens.
    pub issuer: Arc<TokenIssuer>,
    /// Server-issued nonces.
    pub nonces: NonceIssuer,
    /// Keyed hashes.
    pub pseudonyms: Pseudonyms,
}

/// What is known when a walk ends early, for the log and the record.
#[derive(Default)]
struct Trail {
    tenant: Option<TenantId>,
    provider: Option<Arc<str>>,
    verified: bool,
    user: Option<UserId>,
    subject_changed: Option<UserId>,
    context: ContextPrint,
    assessment: Option<AssessmentRecord>,
    recorded: bool,
    test_mode: bool,
}

/// What steps 1 to 6 give. The identity goes into step 7 and comes back once when two sign-ins meet.
struct Prepared {
    tenant: Arc<Tenant>,
    identity: Option<MappedIdentity>,
    claims: Arc<Map<String, Value>>,
    upstream: UpstreamFacts,
    request_facts: RequestFacts,
    settings: Arc<PolicySettings>,
}

/// A refused sign-in.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub error: SignInError,
    /// All checks of the token, in order; empty unless the provider is in test mode.
    pub checks: Vec<Checked>,
}

/// A sign-in as it would go.
#[derive(Debug)]
pub struct Preview {
    /// The tenant, when it is known.
    pub tenant: Option<TenantId>,
    /// The provider, when it is known.
    pub provider: Option<Arc<str>>,
    /// All checks of the token, in order.
    pub checks: Vec<Checked>,
    /// The decision, with all that led to it, or the refusal.
    pub result: Result<Decided, SignInError>,
}

impl Pipeline {
    /// Runs one sign-in. Whatever comes of it leaves one log line, one count, and, once the token is
    /// verified, one record.
    ///
    /// # Errors
    /// The refusal; its text is meant for the client.
    pub async fn sign_in(&self, request: SignInRequest) -> Result<Outcome, SignInError> {
        self.sign_in_explained(request).await.map_err(|refusal| refusal.error)
    }

    /// The same; the refusal of a provider in test mode brings the list of checks.
    ///
    /// # Errors
    /// As [`Self::sign_in`].
    pub async fn sign_in_explained(&self, request: SignInRequest) -> Result<Outcome, Refusal> {
        let started = std::time::Instant::now();
        let mut trail = Trail::default();
        let span = tracing::info_span!("signin", request.id = %request.id);
        let result = self.walk(&request, &mut trail).instrument(span).await;
        if let Err(error) = &result {
            self.record_refusal(&trail, error, request.id).await;
        }
        report(&result, &trail, request.id, started.elapsed());
        match result {
            Ok(outcome) => Ok(outcome),
            Err(error) => {
                let checks = if trail.test_mode || self.names_one_in_test_mode(&request) {
                    self.examine(&request, &Ending { verified: trail.verified, error: Some(&error) }).await
                } else {
                    Vec::new()
                };
                Err(Refusal { error, checks })
            }
        }
    }

    /// Whether the request names a provider in test mode: a token whose form is refused never gets as far as
    /// its provider.
    fn names_one_in_test_mode(&self, request: &SignInRequest) -> bool {
        let (Some(name), Ok(tenant)) = (&request.provider, self.resolve_tenant(request)) else { return false };
        self.directory.providers(&tenant.id).iter().any(|p| p.test_mode && *p.name == **name)
    }

    /// Walks up to the decision and writes nothing: `peek` tells whether something was used before, without
    /// remembering it. Leaves no log line, no count and no record.
    pub async fn preview(&self, request: &SignInRequest, peek: &dyn ReplayGuard) -> Preview {
        let mut trail = Trail::default();
        let result = async {
            let now = self.clock.now();
            let mut prepared = self.prepare(request, now, peek, &mut trail).await?;
            let identity = prepared.identity.take().ok_or(SignInError::Conflict)?;
            self.judge(identity, &prepared, request, now, &mut trail).await
        };
        let result = result.await;
        let ending = Ending { verified: trail.verified, error: result.as_ref().err() };
        let checks = self.examine(request, &ending).await;
        Preview { tenant: trail.tenant, provider: trail.provider, checks, result }
    }

    async fn walk(&self, request: &SignInRequest, trail: &mut Trail) -> Result<Outcome, SignInError> {
        let now = self.clock.now();
        let mut prepared = self.prepare(request, now, &*self.replays, trail).await?;
        for _ in 0..2 {
            let Some(identity) = prepared.identity.take() else { break };
            let decided = match self.judge(identity, &prepared, request, now, trail).await {
                Err(SignInError::Resolve(ResolveError::AccountExists { may_link: Some(offered), .. })) => {
                    let (user, identity) = *offered;
                    return Err(self.offer_link(user, identity, now).await?);
                }
                judged => judged?,
            };
            let terms = Terms { binding: &request.binding, limits: &prepared.tenant.sessions };
            match self.carry_out(decided, terms, now, trail).await? {
                Carried::Outcome(outcome) => return Ok(*outcome),
                Carried::Conflict(resolved) => prepared.identity = Some(resolved.into_identity()),
            }
        }
        Err(SignInError::Conflict)
    }

    /// Steps 1 to 6 alone: the identity that a token proves, for a user who is signed in already. The
    /// token is spent by it.
    ///
    /// # Errors
    /// As [`Self::sign_in`] up to the mapping.
    pub async fn prove_identity(&self, request: &SignInRequest) -> Result<MappedIdentity, SignInError> {
        let mut trail = Trail::default();
        let span = tracing::info_span!("prove_identity", request.id = %request.id);
        let proved = self.prepare(request, self.clock.now(), &*self.replays, &mut trail).instrument(span).await;
        if let Err(error) = &proved {
            self.record_refusal(&trail, error, request.id).await;
            error.log_cause();
        }
        proved?.identity.ok_or(SignInError::Conflict)
    }

    /// Steps 1 to 6.
    async fn prepare(
        &self,
        request: &SignInRequest,
        now: UnixTime,
        replays: &dyn ReplayGuard,
        trail: &mut Trail,
    ) -> Result<Prepared, SignInError> {
        let tenant = self.resolve_tenant(request)?;
        trail.tenant = Some(tenant.id.clone());
        let (provider, token) = self.receive(&tenant, request)?;
        trail.provider = Some(Arc::clone(&provider.name));
        trail.test_mode = provider.test_mode;
        let token = self.verify(token, &provider, request, now, replays).await?;
        trail.verified = true;
        let token = spend(token, replays).instrument(tracing::debug_span!("signin.replay")).await?;
        let request_facts = request_facts(&request.client, &*self.geo, now);
        trail.context = ContextPrint::of(&request_facts, tenant.id.as_str(), &self.pseudonyms);
        let (claims, upstream) = self.enrich(&token).await?;
        let identity = self.map(token, &claims, &upstream, &request_facts)?;
        let settings = self.rules.settings(&tenant.id);
        Ok(Prepared { tenant, identity: Some(identity), claims, upstream, request_facts, settings })
    }

    /// Steps 7 to 10.
    async fn judge(
        &self,
        identity: MappedIdentity,
        prepared: &Prepared,
        request: &SignInRequest,
        now: UnixTime,
        trail: &mut Trail,
    ) -> Result<Decided, SignInError> {
        let device = trail.context.device.zip(request.device_secret_hash);
        let device = device.map(|(device, secret_hash)| DeviceProof { device, secret_hash });
        let resolved = self.resolve_user(identity, request, now, trail).await?.recognise(device);
        let signals = gather(
            resolved,
            Arc::clone(&prepared.claims),
            prepared.request_facts.clone(),
            prepared.upstream.clone(),
            trail.context.clone(),
            &prepared.settings,
            SignalWorld { plugins: &*self.signals, counts: &*self.counts, channels: &*self.channels },
        )
        .instrument(tracing::debug_span!("signin.signals"))
        .await;
        let assessed = tracing::debug_span!("signin.assess").in_scope(|| assess(signals, &*self.rules));
        trail.assessment = Some(assessed.assessment().record());
        log_fault(assessed.assessment(), &assessed.facts().tenant);
        Ok(decide(assessed))
    }

    /// Step 2, first half.
    pub(super) fn resolve_tenant(&self, request: &SignInRequest) -> Result<Arc<Tenant>, SignInError> {
        self.directory
            .find_tenant(request.tenant_header.as_deref(), request.host.as_deref())
            .ok_or(SignInError::UnknownTenant)
    }

    /// Step 1 and the second half of step 2. A token of another format than ours is let through to the
    /// verifier of the provider that the request names, and to no other.
    pub(super) fn receive(
        &self,
        tenant: &Tenant,
        request: &SignInRequest,
    ) -> Result<(Arc<Provider>, Received), SignInError> {
        if request.id_token.is_empty() {
            return Err(SignInError::MissingToken);
        }
        if request.id_token.len() > MAX_TOKEN_BYTES {
            return Err(TokenShapeError::TooLong.into());
        }
        let foreign = || Received::Foreign(request.id_token.as_str().into());
        match UnverifiedToken::parse(&request.id_token) {
            Ok(token) => {
                let provider = self.resolve_provider(tenant, request, &token)?;
                let is_foreign = self.verifiers.verifies(&provider);
                Ok((provider, if is_foreign { foreign() } else { Received::Jws(Box::new(token)) }))
            }
            Err(shape) => {
                let named = |p: &Arc<Provider>| request.provider.as_deref() == Some(&*p.name);
                let provider = self.directory.providers(&tenant.id).into_iter().find(named);
                let provider = provider.filter(|p| self.verifiers.verifies(p)).ok_or(shape)?;
                Ok((provider, foreign()))
            }
        }
    }

    /// Step 2, second half. What the token says of itself only chooses among configured providers.
    pub(super) fn resolve_provider(
        &self,
        tenant: &Tenant,
        request: &SignInRequest,
        token: &UnverifiedToken,
    ) -> Result<Arc<Provider>, SignInError> {
        let mut providers = self.directory.providers(&tenant.id);
        if let Some(client) = &request.binding.client {
            providers.retain(|p| client.may_use(&p.name));
        }
        if let Some(name) = &request.provider {
            let named = |p: &Arc<Provider>| *p.name == **name;
            let absent = || match self.directory.disabled_providers(&tenant.id).iter().any(named) {
                true => SignInError::ProviderDisabled,
                false => SignInError::UnknownProvider,
            };
            return providers.into_iter().find(named).ok_or_else(absent);
        }
        let issuer = token.unverified_issuer().unwrap_or_default();
        let audiences = token.unverified_audiences();
        let fits = |p: &Arc<Provider>| p.issuer.may_match(issuer) && audiences.iter().any(|a| p.knows_client(a));
        let mut fitting = providers.into_iter().filter(fits);
        match (fitting.next(), fitting.count()) {
            (Some(provider), 0) => Ok(provider),
            (None, _) if self.directory.disabled_providers(&tenant.id).iter().any(fits) => {
                Err(SignInError::ProviderDisabled)
            }
            (None, _) => Err(SignInError::NoProviderFits),
            (Some(_), more) => Err(SignInError::AmbiguousProvider { fitting: more + 1 }),
        }
    }

    /// Steps 3 and 4.
    async fn verify(
        &self,
        token: Received,
        provider: &Arc<Provider>,
        request: &SignInRequest,
        now: UnixTime,
        replays: &dyn ReplayGuard,
    ) -> Result<VerifiedToken, SignInError> {
        let expected = Expected::of(request);
        let verified = match token {
            Received::Jws(token) => {
                check_algorithm(token.algorithm(), provider)?;
                let key = self
                    .keys
                    .find_key(provider, token.unverified_kid(), token.algorithm())
                    .instrument(tracing::debug_span!("signin.key"))
                    .await?;
                tracing::debug_span!("signin.verify")
                    .in_scope(|| verify(*token, &key, Arc::clone(provider), &expected, now))?
            }
            Received::Foreign(unverified) => {
                let asked = self.verifiers.verify(provider, &unverified, now);
                let foreign = asked.instrument(tracing::debug_span!("signin.verify")).await?;
                admit(foreign, Arc::clone(provider), &expected, now)?
            }
        };
        if let (NoncePolicy::ServerIssued, Some(nonce)) = (provider.nonce, &request.nonce) {
            self.nonces.spend(&provider.tenant, nonce, now, replays).await??;
        }
        Ok(verified)
    }

    /// Step 6, first half: plugins may add claims under `x.<plugin>`, and never replace one.
    async fn enrich(&self, token: &FreshToken) -> Result<(Arc<Map<String, Value>>, UpstreamFacts), SignInError> {
        let enrichment = self
            .enricher
            .enrich(token.provider(), token.claims())
            .instrument(tracing::debug_span!("signin.enrich"))
            .await;
        if let Some((_, code)) = enrichment.rejected {
            return Err(SignInError::EnrichRejected { code });
        }
        if !enrichment.missing.is_empty() && token.provider().enrich_failure == EnrichFailure::Deny {
            return Err(SignInError::EnrichUnavailable);
        }
        let upstream = upstream_facts(token, enrichment.missing);
        if enrichment.added.is_empty() {
            return Ok((Arc::clone(token.claims()), upstream));
        }
        let mut claims = Map::clone(token.claims());
        let added = enrichment.added.into_iter().map(|(plugin, extra)| (plugin, Value::Object(extra)));
        claims.insert("x".to_owned(), Value::Object(added.collect()));
        Ok((Arc::new(claims), upstream))
    }

    /// Step 6, second half.
    fn map(
        &self,
        token: FreshToken,
        claims: &Arc<Map<String, Value>>,
        upstream: &UpstreamFacts,
        request: &RequestFacts,
    ) -> Result<MappedIdentity, SignInError> {
        let provider = Arc::clone(token.provider());
        let input = MappingInput {
            tenant: provider.tenant.clone(),
            provider: ProviderFacts { id: Arc::clone(&provider.name), issuer: identity_issuer(token.issuer()) },
            claims: Arc::clone(claims),
            upstream: upstream.clone(),
            request: request.clone(),
        };
        let output = tracing::debug_span!("signin.map").in_scope(|| self.mapper.map(&provider, Arc::new(input)));
        Ok(MappedIdentity::check(token, output.map_err(MappingError::Fault)?)?)
    }

    /// Step 7.
    async fn resolve_user(
        &self,
        identity: MappedIdentity,
        request: &SignInRequest,
        now: UnixTime,
        trail: &mut Trail,
    ) -> Result<ResolvedUser, SignInError> {
        let new_id = UserId::generate(now, &*self.entropy);
        let resolved = resolve(identity, &*self.users, new_id, request.name_hint.as_deref())
            .instrument(tracing::debug_span!("signin.resolve"))
            .await;
        match resolved {
            Ok(resolved) => {
                trail.user = Some(resolved.known().user.id);
                Ok(resolved)
            }
            Err((_, error)) => {
                if let ResolveError::Disabled(user) | ResolveError::Locked(user) | ResolveError::Pending(user) =
                    &error
                {
                    trail.user = Some(*user);
                }
                if let ResolveError::AccountExists { subject_changed, .. } = &error {
                    trail.subject_changed = *subject_changed;
                }
                Err(error.into())
            }
        }
    }
}

/// A token that passed step 1.
pub(super) enum Received {
    /// A compact JWS.
    Jws(Box<UnverifiedToken>),
    /// Whatever the provider's verifier reads.
    Foreign(Arc<str>),
}
