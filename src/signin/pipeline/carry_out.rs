//! Steps 11 and 12: the decision is carried out and recorded, and every end leaves one log line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tracing::Instrument;

use super::{LINK_OFFER_TTL, Outcome, Pipeline, Trail};
use crate::clock::UnixTime;
use crate::codes::ErrorCode;
use crate::ids::{ChallengeId, EventId, LinkId, RequestId, TenantId, UserId};
use crate::mfa::{CHALLENGE_TTL, MfaMethod, NewChallenge};
use crate::secret::Secret;
use crate::session::issue::Holder;
use crate::session::{Caps, Grant, SessionLimits, TokenShape};
use crate::signin::assessment::{Assessment, POLICY_ERROR};
use crate::signin::decision::{Decided, Decision, Denial};
use crate::signin::error::{OfferedLink, SignInError};
use crate::signin::facts::LinkMethod;
use crate::signin::history::PastEnd;
use crate::signin::logout::upstream_session;
use crate::signin::ports::{CommitResult, NewLinkOffer, NewOutcome, SignInCommit};
use crate::signin::provider::identity_issuer;
use crate::signin::record::{SignInRecord, SubjectChanged};
use crate::signin::request::TokenBinding;
use crate::signin::rules::{Audiences, PolicyFault, ShapedTokens, TokenInput};
use crate::signin::user::{IdentityKey, PlannedChange, ResolvedUser};

/// What the tenant's script makes of the tokens.
#[derive(Default)]
struct Shaped {
    always: TokenShape,
    by_factor: BTreeMap<MfaMethod, TokenShape>,
}

impl Shaped {
    /// What is the same with every factor is kept once.
    fn of_factors(mut by_factor: BTreeMap<MfaMethod, TokenShape>) -> Self {
        match by_factor.pop_first() {
            Some((_, always)) if by_factor.values().all(|other| *other == always) => {
                Self { always, by_factor: BTreeMap::new() }
            }
            Some((method, shape)) => {
                by_factor.insert(method, shape);
                Self { always: TokenShape::default(), by_factor }
            }
            None => Self::default(),
        }
    }
}

impl Pipeline {
    /// The refusal of an identity that its address's holder may link: bound to both, good once, short-lived.
    pub(super) async fn offer_link(
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
    pub(super) async fn carry_out(
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
        let (decision, shaped) = self.shape_tokens(&decided, terms.binding);
        let (outcome, answer) = match &decision {
            Decision::Issue { caps } => {
                let grant = self.grant(&decided, *caps, shaped, terms, now);
                let device = assessed.context().device;
                let holder = Holder::from(&known.user.profile);
                let (session, tokens) = self.issuer.issue(grant, holder, device, now, &*self.entropy)?;
                (record.end, record.session) = (PastEnd::SignedIn, Some(session.id));
                let user = Box::new(known.user.clone());
                (NewOutcome::Session(session), Ok(Outcome::SignedIn { tokens, user, assessment }))
            }
            Decision::Challenge { methods, reason, caps } => {
                let grant = self.grant(&decided, *caps, shaped, terms, now);
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
        let returning = assessed.resolved().link_method() == LinkMethod::Existing;
        let came_by = returning.then(|| assessed.resolved().identity().token().identity_key());
        let commit = SignInCommit { change, came_by, outcome, record, sealed };
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

    /// What the tenant's script makes of the tokens. If it fails there are none.
    fn shape_tokens(&self, decided: &Decided, binding: &TokenBinding) -> (Decision, Shaped) {
        let decision = decided.decision();
        let shaped = match decision {
            Decision::Deny(_) => Ok(Shaped::default()),
            Decision::Issue { .. } => self
                .shape_with(decided, binding, None)
                .map(|shaped| Shaped { always: shaped.shape, ..Shaped::default() }),
            Decision::Challenge { methods, .. } => self.shape_for_each(decided, binding, methods),
        };
        match shaped {
            Ok(shaped) => (decision.clone(), shaped),
            Err(fault) => {
                log_policy_fault(
                    &fault,
                    &decided.assessed().assessment().policy,
                    &decided.assessed().facts().tenant,
                );
                (Decision::Deny(Denial::Policy { reason: POLICY_ERROR.into() }), Shaped::default())
            }
        }
    }

    /// Scripts are pure: one that did not ask which factor was passed says the same for all of them.
    fn shape_for_each(
        &self,
        decided: &Decided,
        binding: &TokenBinding,
        methods: &[MfaMethod],
    ) -> Result<Shaped, PolicyFault> {
        let mut by_factor = BTreeMap::new();
        for &method in methods {
            let ShapedTokens { shape, asked_for_factor } = self.shape_with(decided, binding, Some(method))?;
            if !asked_for_factor {
                return Ok(Shaped { always: shape, by_factor: BTreeMap::new() });
            }
            by_factor.insert(method, shape);
        }
        Ok(Shaped::of_factors(by_factor))
    }

    fn shape_with(
        &self,
        decided: &Decided,
        binding: &TokenBinding,
        factor: Option<MfaMethod>,
    ) -> Result<ShapedTokens, PolicyFault> {
        let (facts, assessment) = (decided.assessed().facts(), decided.assessed().assessment());
        let reasons = assessment.reasons.iter().map(|(code, _)| Arc::clone(code)).collect();
        let audiences = Audiences::These(self.audiences(binding));
        let input = TokenInput { level: assessment.level, score: assessment.score, reasons, factor, audiences };
        let mut shaped = self.rules.shape_tokens(facts, input)?;
        shaped.shape.audience = shaped.shape.audience.filter(|audience| **audience != *self.issuer.settings.issuer);
        Ok(shaped)
    }

    /// One that was asked for stays. Else it is this server's, or may become one that the client is registered for.
    fn audiences(&self, binding: &TokenBinding) -> Vec<Arc<str>> {
        if let Some(asked) = &binding.audience {
            return vec![Arc::clone(asked)];
        }
        let own = Arc::from(self.issuer.settings.issuer.as_str());
        let registered = binding.client.iter().flat_map(|client| client.audiences.iter().cloned());
        std::iter::once(own).chain(registered).collect()
    }

    fn grant(&self, decided: &Decided, caps: Caps, shaped: Shaped, terms: Terms<'_>, now: UnixTime) -> Grant {
        let assessed = decided.assessed();
        let (facts, token) = (assessed.facts(), assessed.resolved().identity().token());
        let Terms { binding, limits } = terms;
        let client = binding.client.as_deref();
        let sid = token.claims().get("sid").and_then(Value::as_str);
        Grant {
            tenant: facts.tenant.clone(),
            user: assessed.resolved().known().user.id,
            provider: Arc::clone(&facts.provider.id),
            provider_generation: token.provider().generation,
            client_id: Arc::clone(client.map_or(&facts.client_id, |client| &client.id)),
            auth_time: token.auth_time().unwrap_or(now),
            amr: facts.upstream.amr.clone(),
            acr: facts.upstream.acr.clone(),
            level: assessed.assessment().level,
            caps: caps.within(limits),
            local_mfa: false,
            client: client.map(|client| Arc::clone(&client.id)),
            client_generation: client.map_or(0, |client| client.generation),
            audience: shaped.always.audience.or_else(|| binding.audience.clone()),
            jkt: binding.jkt.clone(),
            upstream_sid: sid.map(|sid| {
                upstream_session(&facts.tenant, &facts.provider.id, &identity_issuer(token.issuer()), sid)
            }),
            claims: shaped.always.claims,
            shape_by_factor: shaped.by_factor,
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
        let channels = assessed.facts().user.channels.iter();
        let own = channels.filter(|c| matches!(c.method, MfaMethod::Own(_)) && methods.contains(&c.method));
        let challenge = NewChallenge {
            id,
            secret_hash: secret.hash(),
            tenant: assessed.facts().tenant.clone(),
            user: assessed.resolved().known().user.id,
            created_at: now,
            expires_at: now.plus(CHALLENGE_TTL),
            methods: methods.to_vec(),
            own: own.copied().collect(),
            grant,
            context: assessed.context().clone(),
            assessment: assessed.assessment().record(),
            link: None,
        };
        (challenge, challenge_token)
    }

    /// Refusals of tokens that nobody signed are counted and logged only: else anybody could fill the
    /// store.
    pub(super) async fn record_refusal(&self, trail: &Trail, error: &SignInError, request: RequestId) {
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
        // The record first: the event leads to it.
        self.outcomes.record_refusal(record.clone());
        if let Some(user) = trail.subject_changed {
            self.note_changed_subject(&record, user, request).await;
        }
    }

    /// The sign-in stays refused whether or not this could be written.
    async fn note_changed_subject(&self, refused: &SignInRecord, user: UserId, request: RequestId) {
        tracing::warn!(
            user.id = %user,
            provider.name = &*refused.provider,
            "the address of a user came under another subject of the same provider; not linked by it"
        );
        let noted = SubjectChanged {
            event: EventId::generate(refused.at, &*self.entropy),
            at: refused.at,
            tenant: refused.tenant.clone(),
            user,
            provider: Arc::clone(&refused.provider),
            sign_in: refused.id,
            request,
        };
        if let Err(error) = self.outcomes.note_changed_subject(noted).await {
            tracing::error!(error = %error, "a changed subject could not be written to the audit log");
        }
    }
}

/// What a sign-in's session has to be, whatever the rules say.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) binding: &'a TokenBinding,
    pub(super) limits: &'a SessionLimits,
}

/// How carrying out ended.
pub(super) enum Carried {
    Outcome(Box<Outcome>),
    Conflict(Box<ResolvedUser>),
}

pub(super) fn log_fault(assessment: &Assessment, tenant: &TenantId) {
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
pub(super) fn report(result: &Result<Outcome, SignInError>, trail: &Trail, request: RequestId, elapsed: Duration) {
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

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn shapes_are_kept_by_factor_only_where_they_differ() {
        let claims = |how: &str| {
            let claims = Map::from_iter([("how".to_owned(), json!(how))]);
            TokenShape { claims, audience: None }
        };
        let all = |email: &str, sms: &str| {
            BTreeMap::from([(MfaMethod::Email, claims(email)), (MfaMethod::Sms, claims(sms))])
        };
        let same = Shaped::of_factors(all("code", "code"));
        assert_eq!((same.always, same.by_factor.len()), (claims("code"), 0));
        let other = Shaped::of_factors(all("email", "sms"));
        assert_eq!((other.always, other.by_factor), (TokenShape::default(), all("email", "sms")));
        let one = Shaped::of_factors(BTreeMap::from([(MfaMethod::Totp, claims("totp"))]));
        assert_eq!((one.always, one.by_factor.len()), (claims("totp"), 0));
    }
}
