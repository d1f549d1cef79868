//! Step 10: tokens, challenge or denial. A total function of the assessment; no I/O.

use std::sync::Arc;

use super::assessment::{AssessedSignIn, Assessment};
use super::facts::Facts;
use super::identity::UserKind;
use super::rules::{Level, LevelAction, Unenrolled};
use crate::ids::FactorId;
use crate::mfa::{Factor, MfaMethod, Strength};
use crate::session::Caps;

/// What the sign-in gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Tokens, within these limits.
    Issue {
        /// Limits.
        caps: Caps,
    },
    /// A challenge.
    Challenge {
        /// Methods that this user can use now, best first. Never empty.
        methods: Vec<MfaMethod>,
        /// The weightiest reason.
        reason: Arc<str>,
        /// Limits of the session that follows.
        caps: Caps,
    },
    /// No sign-in.
    Deny(Denial),
}

/// Why a sign-in is denied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// A rule said so.
    #[error("the sign-in is denied by policy ({reason})")]
    Policy {
        /// The reason code.
        reason: Arc<str>,
    },
    /// A second factor is needed, and the user has none that would do.
    #[error("this sign-in needs a second factor ({reason}), and the account has none that would do")]
    NoFactor {
        /// The reason code.
        reason: Arc<str>,
    },
    /// A second factor is needed, and a workload has none.
    #[error(
        "this sign-in needs a second factor ({reason}), and a service user cannot have one; exempt services in the rule, or do not let it ask"
    )]
    ServiceUser {
        /// The reason code.
        reason: Arc<str>,
    },
    /// A fresh sign-in at the provider is needed.
    #[error("sign in at the provider again ({reason}); the sign-in there may be at most {max_age_s} s old")]
    UpstreamStepUp {
        /// The reason code.
        reason: Arc<str>,
        /// `max_age` for the authorization request (OpenID Connect Core section 3.1.2.1).
        max_age_s: i64,
    },
}

/// An assessed sign-in with its decision. Only [`decide`] can build one.
#[derive(Debug)]
pub struct Decided {
    assessed: AssessedSignIn,
    decision: Decision,
}

impl Decided {
    /// The assessed sign-in.
    #[must_use]
    pub fn assessed(&self) -> &AssessedSignIn {
        &self.assessed
    }

    /// The decision.
    #[must_use]
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    pub(super) fn into_assessed(self) -> AssessedSignIn {
        self.assessed
    }
}

/// Decides. Deny before what cannot be met before MFA before tokens. `channels` are those to addresses
/// that the user had verified before this sign-in: for a user without a factor that would do, if the
/// tenant's `unenrolled` rule is `known_channel`.
#[must_use]
pub fn decide(assessed: AssessedSignIn, channels: &[MfaMethod]) -> Decided {
    let upstream = &assessed.facts().upstream;
    let who = Who {
        kind: assessed.facts().user.kind,
        trusted_upstream_mfa: upstream.trusted_mfa,
        auth_time_age_s: upstream.auth_time_age_s,
        factors: &assessed.resolved().known().factors,
        channels,
    };
    let decision = outcome(assessed.assessment(), &who);
    Decided { assessed, decision }
}

/// What a user can bring against a demand.
struct Who<'a> {
    kind: UserKind,
    trusted_upstream_mfa: bool,
    auth_time_age_s: Option<i64>,
    factors: &'a [Factor],
    channels: &'a [MfaMethod],
}

fn outcome(assessment: &Assessment, who: &Who<'_>) -> Decision {
    let (demand, settings) = (&assessment.demand, &assessment.settings);
    if let Some(reason) = &demand.deny {
        return Decision::Deny(Denial::Policy { reason: Arc::clone(reason) });
    }
    let action = match assessment.level {
        Level::Low => LevelAction::Allow,
        Level::Medium => settings.medium_action,
        Level::High => settings.high_action,
    };
    let level_reason = || assessment.weightiest_reason().cloned().unwrap_or_else(|| "risk_level".into());
    if action == LevelAction::Deny {
        return Decision::Deny(Denial::Policy { reason: level_reason() });
    }
    if let Some((max_age_s, reason)) = &demand.step_up
        && who.auth_time_age_s.is_none_or(|age| age > *max_age_s)
    {
        return Decision::Deny(Denial::UpstreamStepUp { reason: Arc::clone(reason), max_age_s: *max_age_s });
    }
    let by_level = action != LevelAction::Allow;
    if !by_level && demand.mfa.is_none() {
        return Decision::Issue { caps: demand.caps };
    }
    let reason = match &demand.mfa {
        Some(code) if !by_level => Arc::clone(code),
        _ => level_reason(),
    };
    if who.kind == UserKind::Service {
        return Decision::Deny(Denial::ServiceUser { reason });
    }
    let upstream_is_enough = who.trusted_upstream_mfa
        && demand.upstream_may_satisfy
        && action != LevelAction::StrongMfa
        && assessment.level <= Level::Medium;
    if upstream_is_enough {
        return Decision::Issue { caps: demand.caps };
    }
    let level_strength = (action == LevelAction::StrongMfa).then_some(Strength::Strong);
    let strength = demand.strength.max(level_strength);
    let mut methods = usable(who.factors, demand.methods.as_deref(), strength);
    if methods.is_empty() && settings.unenrolled == Unenrolled::KnownChannel {
        methods = that_do(who.channels.iter().copied(), demand.methods.as_deref(), strength);
    }
    if methods.is_empty() {
        return Decision::Deny(match settings.unenrolled {
            Unenrolled::UpstreamStepUp => Denial::UpstreamStepUp { reason, max_age_s: 0 },
            Unenrolled::KnownChannel | Unenrolled::Deny => Denial::NoFactor { reason },
        });
    }
    Decision::Challenge { methods, reason, caps: demand.caps }
}

fn usable(factors: &[Factor], named: Option<&[MfaMethod]>, strength: Option<Strength>) -> Vec<MfaMethod> {
    let enrolled = |method: &MfaMethod| factors.iter().any(|f| f.method == *method);
    that_do(MfaMethod::SUPPORTED.into_iter().filter(enrolled), named, strength)
}

fn that_do(
    methods: impl Iterator<Item = MfaMethod>,
    named: Option<&[MfaMethod]>,
    strength: Option<Strength>,
) -> Vec<MfaMethod> {
    methods
        .filter(|m| named.is_none_or(|list| list.contains(m)))
        .filter(|m| strength.is_none_or(|s| m.strength() >= s))
        .collect()
}

/// What an assessment asks of a user without MFA at the provider and with every factor: `allow`, `mfa`,
/// `strong_mfa` or `deny`.
#[must_use]
pub fn demanded_action(assessment: &Assessment) -> &'static str {
    let by_level = match assessment.level {
        Level::Low => LevelAction::Allow,
        Level::Medium => assessment.settings.medium_action,
        Level::High => assessment.settings.high_action,
    };
    let demand = &assessment.demand;
    if demand.deny.is_some() || by_level == LevelAction::Deny {
        "deny"
    } else if by_level == LevelAction::StrongMfa || demand.strength >= Some(Strength::Strong) {
        "strong_mfa"
    } else if by_level == LevelAction::Mfa || demand.mfa.is_some() {
        "mfa"
    } else {
        "allow"
    }
}

/// The decision on facts of an earlier sign-in, with the factors that the user had then. Channels to known
/// addresses are not among the facts: a user who has nothing else counts as one without a factor.
#[must_use]
pub fn decide_again(assessment: &Assessment, facts: &Facts) -> Decision {
    let at = facts.request.time;
    let factors: Vec<Factor> = facts
        .user
        .mfa_methods
        .iter()
        .filter_map(|f| MfaMethod::find(f.kind))
        .map(|method| Factor { id: FactorId::from_bytes([0; 16]), method, enrolled_at: at, last_used_at: None })
        .collect();
    let who = Who {
        kind: facts.user.kind,
        trusted_upstream_mfa: facts.upstream.trusted_mfa,
        auth_time_age_s: facts.upstream.auth_time_age_s,
        factors: &factors,
        channels: &[],
    };
    outcome(assessment, &who)
}

impl Decision {
    /// `allow`, `mfa` or `deny`.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Issue { .. } => "allow",
            Self::Challenge { .. } => "mfa",
            Self::Deny(_) => "deny",
        }
    }
}

/// Methods that would do for this assessment, whether the user has them or not.
#[must_use]
pub fn recommended_methods(level: Level) -> Vec<MfaMethod> {
    if level == Level::Low { Vec::new() } else { MfaMethod::SUPPORTED.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixTime;
    use crate::signin::assessment::combine;
    use crate::signin::rules::{Effect, PolicySettings, RuleOutput, RuleRun, Step};

    fn assessment(settings: PolicySettings, effects: Vec<Effect>) -> Assessment {
        let steps = effects
            .into_iter()
            .map(|effect| Step { code: "r".into(), effect, line: None, detail: None, because: Default::default() })
            .collect();
        combine(RuleRun {
            policy: "p".into(),
            file: "f".into(),
            settings: Arc::new(settings),
            output: RuleOutput { steps, ..RuleOutput::default() },
            fault: None,
            cost: Default::default(),
        })
    }

    fn totp() -> Vec<Factor> {
        vec![Factor {
            id: FactorId::from_bytes([1; 16]),
            method: MfaMethod::Totp,
            enrolled_at: UnixTime::default(),
            last_used_at: None,
        }]
    }

    fn person(upstream: bool, age: Option<i64>, factors: &[Factor]) -> Who<'_> {
        Who { kind: UserKind::Person, trusted_upstream_mfa: upstream, auth_time_age_s: age, factors, channels: &[] }
    }

    fn word(decision: &Decision) -> &'static str {
        match decision {
            Decision::Issue { .. } => "issue",
            Decision::Challenge { .. } => "challenge",
            Decision::Deny(Denial::Policy { .. }) => "deny",
            Decision::Deny(Denial::NoFactor { .. }) => "no factor",
            Decision::Deny(Denial::ServiceUser { .. }) => "service",
            Decision::Deny(Denial::UpstreamStepUp { .. }) => "step up",
        }
    }

    /// (what the rules asked, upstream MFA, own factor) → decision
    #[test]
    fn the_decision_table() {
        let add = Effect::Add;
        let table: Vec<(Vec<Effect>, bool, bool, &str)> = vec![
            (vec![], false, false, "issue"),
            (vec![add(29)], false, false, "issue"),
            (vec![add(30)], false, true, "challenge"),
            (vec![add(30)], false, false, "no factor"),
            (vec![add(30)], true, false, "issue"),
            (vec![add(60)], true, true, "challenge"),
            (vec![add(60)], true, false, "no factor"),
            (vec![Effect::RequireMfa(None)], false, true, "challenge"),
            (vec![Effect::RequireMfa(None)], true, true, "issue"),
            (vec![Effect::RequireMfa(None), add(60)], true, true, "challenge"),
            (vec![Effect::RequireMfa(Some(vec![MfaMethod::Totp]))], true, true, "challenge"),
            (vec![Effect::RequireMfa(Some(vec![MfaMethod::Webauthn]))], true, true, "no factor"),
            (vec![Effect::RequireStrength(Strength::PhishingResistant)], true, true, "no factor"),
            (vec![Effect::RequireStrength(Strength::Strong)], true, true, "challenge"),
            (vec![Effect::Deny, Effect::RequireMfa(None)], true, true, "deny"),
            (vec![Effect::UpstreamStepUp { max_age_s: 60 }], true, true, "step up"),
            (vec![Effect::UpstreamStepUp { max_age_s: 600 }], true, true, "issue"),
        ];
        for (effects, upstream, own, expected) in table {
            let shown = format!("{effects:?} upstream={upstream} own={own}");
            let factors = if own { totp() } else { Vec::new() };
            let got =
                outcome(&assessment(PolicySettings::default(), effects), &person(upstream, Some(300), &factors));
            assert_eq!(word(&got), expected, "{shown}");
        }
    }

    #[test]
    fn a_step_up_is_asked_when_the_provider_does_not_tell_the_time() {
        let a = assessment(PolicySettings::default(), vec![Effect::UpstreamStepUp { max_age_s: 600 }]);
        assert_eq!(word(&outcome(&a, &person(true, None, &totp()))), "step up");
    }

    #[test]
    fn the_rule_for_users_without_a_factor_never_gives_tokens() {
        for (unenrolled, expected) in [
            (Unenrolled::KnownChannel, "no factor"),
            (Unenrolled::Deny, "no factor"),
            (Unenrolled::UpstreamStepUp, "step up"),
        ] {
            let settings = PolicySettings { unenrolled, ..PolicySettings::default() };
            let a = assessment(settings, vec![Effect::Add(45)]);
            assert_eq!(word(&outcome(&a, &person(false, Some(0), &[]))), expected);
        }
    }

    #[test]
    fn a_workload_is_let_in_without_a_demand_and_meets_none() {
        for (effects, expected) in [
            (vec![], "issue"),
            (vec![Effect::Add(29)], "issue"),
            (vec![Effect::Add(30)], "service"),
            (vec![Effect::Add(60)], "service"),
            (vec![Effect::RequireMfa(None)], "service"),
            (vec![Effect::RequireStrength(Strength::PhishingResistant)], "service"),
            (vec![Effect::Deny], "deny"),
            (vec![Effect::UpstreamStepUp { max_age_s: 60 }], "step up"),
        ] {
            let shown = format!("{effects:?}");
            let factors = totp();
            let who = Who { kind: UserKind::Service, ..person(true, Some(300), &factors) };
            let got = outcome(&assessment(PolicySettings::default(), effects), &who);
            assert_eq!(word(&got), expected, "{shown}");
        }
    }

    #[test]
    fn a_known_channel_serves_a_user_without_a_factor_when_the_tenant_says_so() {
        let email = [MfaMethod::Email];
        for (unenrolled, effects, factors, expected) in [
            (Unenrolled::KnownChannel, vec![Effect::RequireMfa(None)], vec![], Some(MfaMethod::Email)),
            (Unenrolled::KnownChannel, vec![Effect::RequireMfa(None)], totp(), Some(MfaMethod::Totp)),
            (Unenrolled::KnownChannel, vec![Effect::RequireMfa(Some(vec![MfaMethod::Totp]))], vec![], None),
            (Unenrolled::Deny, vec![Effect::RequireMfa(None)], vec![], None),
            (Unenrolled::UpstreamStepUp, vec![Effect::RequireMfa(None)], vec![], None),
        ] {
            let a = assessment(PolicySettings { unenrolled, ..PolicySettings::default() }, effects);
            let who = Who { channels: &email, ..person(false, Some(0), &factors) };
            let methods = match outcome(&a, &who) {
                Decision::Challenge { methods, .. } => methods,
                _ => Vec::new(),
            };
            assert_eq!(methods, Vec::from_iter(expected), "{unenrolled:?}");
        }
    }
}
