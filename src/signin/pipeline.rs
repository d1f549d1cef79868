//! The walk: one sign-in from the request to its outcome, top to bottom.
//!
//! Reads come first, writes last: no transaction is open while a script or a plugin runs. Nothing comes
//! back up the path, but for one thing: when two first sign-ins meet, the slower one goes back to the
//! resolving of the user, once.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tracing::Instrument;

use super::assessment::{AssessedSignIn, Assessment, POLICY_ERROR, assess};
use super::decision::{Decided, Decision, Denial, decide};
use super::error::{OfferedLink, SignInError};
use super::facts::{LinkMethod, ProviderFacts, RequestFacts, UpstreamFacts};
use super::history::{ContextPrint, PastEnd, Pseudonyms};
use super::identity::{MappedIdentity, MappingError, MappingInput};
use super::logout::upstream_session;
use super::nonce::NonceIssuer;
use super::ports::{
    AfterDecision, ClaimMapper, CommitResult, DecisionLog, Directory, Enricher, GeoLookup, KeySource, NewLinkOffer,
    NewOutcome, Observer, Outcomes, ReplayGuard, RiskRules, SignInCommit, SignalSource, TokenVerifier, Users,
};
use super::provider::{EnrichFailure, NoncePolicy, Provider, Tenant};
use super::record::{AssessmentRecord, SignInRecord};
use super::replay::{FreshToken, spend};
use super::request::{SignInRequest, TokenBinding};
use super::rules::{PolicyFault, PolicySettings, TokenInput};
use super::signals::{gather, request_facts, upstream_facts};
use super::token::{MAX_TOKEN_BYTES, TokenShapeError, UnverifiedToken};
use super::trace::{Checked, Ending};
use super::user::{IdentityKey, PlannedChange, ResolveError, ResolvedUser, User, resolve};
use super::verify::{Expected, VerifiedToken, admit, check_algorithm, verify};
use crate::clock::{Clock, UnixTime};
use crate::codes::ErrorCode;
use crate::ids::{ChallengeId, EventId, LinkId, TenantId, UserId};
use crate::mfa::delivery::CodeChannels;
use crate::mfa::{CHALLENGE_TTL, MfaMethod, NewChallenge};
use crate::people::devices::DeviceProof;
use crate::secret::{Entropy, Secret};
use crate::session::issue::{Holder, IssuedTokens, TokenIssuer};
use crate::session::{Caps, Grant, SessionLimits};

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
            self.record_refusal(&trail, error);
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
            let decided = self.judge(identity, &prepared, request, now, trail).await?;
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
            self.record_refusal(&trail, error);
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
            &*self.signals,
        )
        .instrument(tracing::debug_span!("signin.signals"))
        .await;
        let assessed = tracing::debug_span!("signin.assess").in_scope(|| assess(signals, &*self.rules));
        trail.assessment = Some(assessed.assessment().record());
        log_fault(assessed.assessment(), &assessed.facts().tenant);
        let channels = self.known_channels(&assessed);
        Ok(decide(assessed, &channels))
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

    /// Channels to addresses that this user had verified before this sign-in.
    fn known_channels(&self, assessed: &AssessedSignIn) -> Vec<MfaMethod> {
        if assessed.resolved().link_method() == LinkMethod::Provisioned {
            return Vec::new();
        }
        self.channels.usable(&assessed.resolved().known().user.profile)
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
            provider: ProviderFacts { id: Arc::clone(&provider.name), issuer: Arc::clone(token.issuer()) },
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
            Err((_, error)) => match error {
                ResolveError::AccountExists { may_link: Some(offered) } => {
                    let (user, identity) = *offered;
                    Err(self.offer_link(user, identity, now).await?)
                }
                ResolveError::Disabled(user) | ResolveError::Locked(user) | ResolveError::Pending(user) => {
                    trail.user = Some(user);
                    Err(error.into())
                }
                error => Err(error.into()),
            },
        }
    }

    /// The refusal of an identity that its address's holder may link: bound to both, good once, short-lived.
    async fn offer_link(
        &self,
        user: UserId,
        identity: IdentityKey,
        now: UnixTime,
    ) -> Result<SignInError, SignInError> {
        let (id, secret) = (LinkId::generate(now, &*self.entropy), Secret::random(32, &*self.entropy));
        let expires_at = now.plus(LINK_OFFER_TTL);
        let offer = NewLinkOffer { id, secret_hash: secret.hash(), identity, user, expires_at };
        self.outcomes.offer_link(offer).await?;
        Ok(SignInError::LinkOffered(OfferedLink(format!("{id}.{}", secret.to_base64url()))))
    }

    /// Steps 11 and 12: the planned change, the outcome and the record in one transaction.
    async fn carry_out(
        &self,
        decided: Decided,
        terms: Terms<'_>,
        now: UnixTime,
        trail: &mut Trail,
    ) -> Result<Carried, SignInError> {
        let assessed = decided.assessed();
        let (known, assessment) = (assessed.resolved().known(), assessed.assessment().record());
        let mut change = assessed.resolved().change().clone();
        let mut record = SignInRecord {
            id: EventId::generate(now, &*self.entropy),
            at: now,
            tenant: known.user.tenant.clone(),
            provider: Arc::clone(&assessed.facts().provider.id),
            user: Some(known.user.id),
            end: PastEnd::Denied,
            code: None,
            context: assessed.context().clone(),
            assessment: Some(assessment.clone()),
            session: None,
        };
        let (decision, claims) = self.shape_tokens(&decided);
        let (outcome, answer) = match &decision {
            Decision::Issue { caps } => {
                let grant = self.grant(&decided, *caps, claims, terms, now);
                let device = assessed.context().device;
                let holder = Holder::from(&known.user.profile);
                let (session, tokens) = self.issuer.issue(grant, holder, device, now, &*self.entropy)?;
                (record.end, record.session) = (PastEnd::SignedIn, Some(session.id));
                let user = Box::new(known.user.clone());
                (NewOutcome::Session(session), Ok(Outcome::SignedIn { tokens, user, assessment }))
            }
            Decision::Challenge { methods, reason, caps } => {
                let grant = self.grant(&decided, *caps, claims, terms, now);
                let (mut challenge, challenge_token) = self.challenge(&decided, methods, grant, now);
                if assessed.resolved().link_method() == LinkMethod::ConfirmedByFactor
                    && let PlannedChange::Link { identity, .. } =
                        std::mem::replace(&mut change, PlannedChange::None)
                {
                    challenge.link = Some(Box::new(identity));
                }
                record.end = PastEnd::Challenged;
                let answer = Outcome::Challenged {
                    challenge_token,
                    expires_in: CHALLENGE_TTL,
                    methods: methods.clone(),
                    reason: Arc::clone(reason),
                    user: known.user.id,
                    assessment,
                };
                (NewOutcome::Challenge(challenge), Ok(answer))
            }
            Decision::Deny(denial) => {
                if assessed.resolved().link_method() == LinkMethod::ConfirmedByFactor {
                    change = PlannedChange::None;
                }
                record.code = Some(ErrorCode::SignInDenied.as_str().into());
                (NewOutcome::Denial, Err(denial.clone()))
            }
        };
        let observed = (!self.observer.is_idle()).then(|| record.clone());
        let sealed = self.decisions.freeze(record.id, assessed, &decision);
        let id = record.id;
        let commit = SignInCommit { change, outcome, record, sealed };
        let result = self.outcomes.commit(commit).instrument(tracing::debug_span!("signin.commit")).await?;
        if result == CommitResult::Conflict {
            return Ok(Carried::Conflict(Box::new(decided.into_assessed().into_resolved())));
        }
        trail.recorded = true;
        if let Some(record) = observed {
            self.observer.observe(record);
        }
        self.after.decided(id, decided.assessed().facts(), decision.action());
        Ok(Carried::Outcome(Box::new(answer?)))
    }

    /// What the tenant's script adds to the tokens. If it fails there are none.
    fn shape_tokens(&self, decided: &Decided) -> (Decision, Map<String, Value>) {
        let second_factor = match decided.decision() {
            Decision::Deny(_) => return (decided.decision().clone(), Map::new()),
            other => matches!(other, Decision::Challenge { .. }),
        };
        let (facts, assessment) = (decided.assessed().facts(), decided.assessed().assessment());
        let reasons = assessment.reasons.iter().map(|(code, _)| Arc::clone(code)).collect();
        let input = TokenInput { level: assessment.level, score: assessment.score, reasons, second_factor };
        match self.rules.token_claims(facts, input) {
            Ok(claims) => (decided.decision().clone(), claims),
            Err(fault) => {
                log_policy_fault(&fault, &assessment.policy, &facts.tenant);
                (Decision::Deny(Denial::Policy { reason: POLICY_ERROR.into() }), Map::new())
            }
        }
    }

    fn grant(
        &self,
        decided: &Decided,
        caps: Caps,
        claims: Map<String, Value>,
        terms: Terms<'_>,
        now: UnixTime,
    ) -> Grant {
        let assessed = decided.assessed();
        let (facts, token) = (assessed.facts(), assessed.resolved().identity().token());
        let Terms { binding, limits } = terms;
        let client = binding.client.as_ref().map(|c| Arc::clone(&c.id));
        let sid = token.claims().get("sid").and_then(Value::as_str);
        Grant {
            tenant: facts.tenant.clone(),
            user: assessed.resolved().known().user.id,
            provider: Arc::clone(&facts.provider.id),
            client_id: client.clone().unwrap_or_else(|| Arc::clone(&facts.client_id)),
            auth_time: token.auth_time().unwrap_or(now),
            amr: facts.upstream.amr.clone(),
            acr: facts.upstream.acr.clone(),
            level: assessed.assessment().level,
            caps: caps.within(limits),
            local_mfa: false,
            client,
            audience: binding.audience.clone(),
            jkt: binding.jkt.clone(),
            upstream_sid: sid.map(|sid| upstream_session(&facts.tenant, &facts.provider.id, token.issuer(), sid)),
            claims,
        }
    }

    fn challenge(
        &self,
        decided: &Decided,
        methods: &[MfaMethod],
        grant: Grant,
        now: UnixTime,
    ) -> (NewChallenge, String) {
        let assessed = decided.assessed();
        let id = ChallengeId::generate(now, &*self.entropy);
        let secret = Secret::random(32, &*self.entropy);
        let challenge_token = format!("{id}.{}", secret.to_base64url());
        let challenge = NewChallenge {
            id,
            secret_hash: secret.hash(),
            tenant: assessed.facts().tenant.clone(),
            user: assessed.resolved().known().user.id,
            created_at: now,
            expires_at: now.plus(CHALLENGE_TTL),
            methods: methods.to_vec(),
            grant,
            context: assessed.context().clone(),
            assessment: assessed.assessment().record(),
            link: None,
        };
        (challenge, challenge_token)
    }

    /// Refusals of tokens that nobody signed are counted and logged only: else anybody could fill the
    /// store.
    fn record_refusal(&self, trail: &Trail, error: &SignInError) {
        let (Some(tenant), Some(provider), true, false) =
            (&trail.tenant, &trail.provider, trail.verified, trail.recorded)
        else {
            return;
        };
        let now = self.clock.now();
        let record = SignInRecord {
            id: EventId::generate(now, &*self.entropy),
            at: now,
            tenant: tenant.clone(),
            provider: Arc::clone(provider),
            user: trail.user,
            end: PastEnd::Refused,
            code: Some(error.code().as_str().into()),
            context: trail.context.clone(),
            assessment: trail.assessment.clone(),
            session: None,
        };
        if !self.observer.is_idle() {
            self.observer.observe(record.clone());
        }
        self.outcomes.record_refusal(record);
    }
}

/// A token that passed step 1.
pub(super) enum Received {
    /// A compact JWS.
    Jws(Box<UnverifiedToken>),
    /// Whatever the provider's verifier reads.
    Foreign(Arc<str>),
}

/// What a sign-in's session has to be, whatever the rules say.
#[derive(Clone, Copy)]
struct Terms<'a> {
    binding: &'a TokenBinding,
    limits: &'a SessionLimits,
}

enum Carried {
    Outcome(Box<Outcome>),
    Conflict(Box<ResolvedUser>),
}

fn log_fault(assessment: &Assessment, tenant: &TenantId) {
    if let Some(fault) = &assessment.fault {
        log_policy_fault(fault, &assessment.policy, tenant);
    }
}

fn log_policy_fault(fault: &PolicyFault, policy: &str, tenant: &TenantId) {
    metrics::counter!("countersign_policy_errors_total", "tenant" => tenant.to_string()).increment(1);
    tracing::error!(
        tenant.id = %tenant,
        policy.id = policy,
        policy.file = %fault.file,
        policy.line = fault.line,
        policy.column = fault.column,
        error = %fault.message,
        "a risk script failed; the failure policy applies"
    );
}

/// The one log line and the counts of a sign-in.
fn report(result: &Result<Outcome, SignInError>, trail: &Trail, request: crate::ids::RequestId, elapsed: Duration) {
    let (outcome, code) = match result {
        Ok(Outcome::SignedIn { .. }) => ("signed_in", None),
        Ok(Outcome::Challenged { .. }) => ("challenged", None),
        Err(SignInError::Denied(_)) => ("denied", Some(ErrorCode::SignInDenied.as_str())),
        Err(error) => ("refused", Some(error.code().as_str())),
    };
    let provider = trail.provider.as_deref().unwrap_or("");
    metrics::counter!("countersign_sign_ins_total", "outcome" => outcome, "code" => code.unwrap_or(""), "provider" => provider.to_owned())
        .increment(1);
    metrics::histogram!("countersign_sign_in_seconds", "outcome" => outcome).record(elapsed.as_secs_f64());
    if let Err(error) = result {
        error.log_cause();
    }
    let assessment = trail.assessment.as_ref();
    tracing::info!(
        request.id = %request,
        tenant.id = trail.tenant.as_ref().map(TenantId::as_str),
        provider.name = provider,
        user.id = trail.user.map(tracing::field::display),
        outcome,
        code,
        score = assessment.map(|a| a.score),
        level = assessment.map(|a| a.level.as_str()),
        elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        "sign-in"
    );
}
