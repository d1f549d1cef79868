//! Step 10: tokens, challenge or denial. A total function of the assessment; no I/O.

use std::sync::Arc;

use super::assessment::{AssessedSignIn, Assessment};
use super::facts::{ChannelFacts, Facts, LinkMethod};
use super::identity::UserKind;
use super::rules::{Level, LevelAction, Unenrolled};
use crate::ids::FactorId;
use crate::mfa::{Factor, MfaMethod, Strength};
use crate::people::passwords::{ExpiredPassword, PasswordWarning, status};
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

/// Decides. Deny before what cannot be met before MFA before tokens. Channels to addresses that the user had
/// verified before this sign-in are for a user without a factor that would do, if the tenant's `unenrolled`
/// rule is `known_channel`.
#[must_use]
pub fn decide(assessed: AssessedSignIn) -> Decided {
    let factors = &assessed.resolved().known().factors;
    let decision = by_facts(assessed.assessment(), assessed.facts(), factors);
    Decided { assessed, decision }
}

fn by_facts(assessment: &Assessment, facts: &Facts, factors: &[Factor]) -> Decision {
    let who = Who {
        kind: facts.user.kind,
        trusted_upstream_mfa: facts.upstream.trusted_mfa,
        auth_time_age_s: facts.upstream.auth_time_age_s,
        on_trusted_device: facts.history.trusted_device,
        factors,
        channels: &facts.user.channels,
    };
    let policy = &assessment.settings.password;
    let password = facts.user.password.map(|state| status(state, policy, facts.request.time));
    let expired = password.is_some_and(|p| p.warning == Some(PasswordWarning::Expired));
    let floor = floor(facts.user.link_method, expired.then_some(policy.expired));
    outcome(assessment, &floor, &who)
}

/// The reason of a challenge that confirms a link.
pub const LINK_CONFIRMATION: &str = "link_confirmation";
/// The reason of what an expired local password brings about.
pub const PASSWORD_EXPIRED: &str = "password_expired";

/// What a user can bring against a demand.
struct Who<'a> {
    kind: UserKind,
    trusted_upstream_mfa: bool,
    auth_time_age_s: Option<i64>,
    on_trusted_device: bool,
    factors: &'a [Factor],
    channels: &'a [ChannelFacts],
}

/// What is asked for whatever the rules say. Nothing but a factor of the user meets it.
#[derive(Debug, Clone, Default)]
struct Floor {
    /// No sign-in, for this reason.
    deny: Option<Arc<str>>,
    /// A second factor, of at least this strength, for this reason.
    factor: Option<(Option<Strength>, Arc<str>)>,
}

/// An identity that is not linked yet gives tokens only for a strong factor of the user that it would join.
fn floor(link_method: LinkMethod, expired_password: Option<ExpiredPassword>) -> Floor {
    let link = match link_method {
        LinkMethod::ConfirmedByFactor => Some((Some(Strength::Strong), LINK_CONFIRMATION.into())),
        LinkMethod::Existing
        | LinkMethod::LinkedByVerifiedEmail
        | LinkMethod::Invited
        | LinkMethod::Provisioned => None,
    };
    match expired_password {
        None | Some(ExpiredPassword::Warn) => Floor { deny: None, factor: link },
        Some(ExpiredPassword::Challenge) => {
            Floor { deny: None, factor: link.or_else(|| Some((None, PASSWORD_EXPIRED.into()))) }
        }
        Some(ExpiredPassword::Deny) => Floor { deny: Some(PASSWORD_EXPIRED.into()), factor: link },
    }
}

fn outcome(assessment: &Assessment, floor: &Floor, who: &Who<'_>) -> Decision {
    let (demand, settings) = (&assessment.demand, &assessment.settings);
    if let Some(reason) = demand.deny.as_ref().or(floor.deny.as_ref()) {
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
    if !by_level && demand.mfa.is_none() && floor.factor.is_none() {
        return Decision::Issue { caps: demand.caps };
    }
    let reason = match (&floor.factor, &demand.mfa) {
        (Some((_, code)), _) => Arc::clone(code),
        (None, Some(code)) if !by_level => Arc::clone(code),
        _ => level_reason(),
    };
    if who.kind == UserKind::Service {
        return Decision::Deny(Denial::ServiceUser { reason });
    }
    let upstream_is_enough = who.trusted_upstream_mfa
        && floor.factor.is_none()
        && demand.upstream_may_satisfy
        && action != LevelAction::StrongMfa
        && assessment.level <= Level::Medium;
    // A trusted device meets what the level alone asks for, and never what a rule or a fault does.
    let device_is_enough = who.on_trusted_device
        && settings.trusted_devices
        && floor.factor.is_none()
        && assessment.level == Level::Medium
        && action == LevelAction::Mfa
        && (&demand.mfa, &demand.methods, demand.strength) == (&None, &None, None)
        && assessment.fault.is_none();
    if upstream_is_enough || device_is_enough {
        return Decision::Issue { caps: demand.caps };
    }
    let level_strength = (action == LevelAction::StrongMfa).then_some(Strength::Strong);
    let floor_strength = floor.factor.as_ref().and_then(|(strength, _)| *strength);
    let strength = demand.strength.max(level_strength).max(floor_strength);
    let mut methods = usable(who.factors, demand.methods.as_deref(), strength);
    if methods.is_empty() && settings.unenrolled == Unenrolled::KnownChannel {
        methods = that_do(who.channels.iter().map(|c| (c.method, c.strength)), demand.methods.as_deref(), strength);
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
    // Backup codes stand in for a factor that is out of reach; alone they are none.
    let alone = factors.iter().all(|f| f.method == MfaMethod::BackupCode);
    let can = MfaMethod::SUPPORTED.into_iter().filter(|m| !alone && enrolled(m));
    that_do(can.map(|m| (m, m.strength())), named, strength)
}

fn that_do(
    methods: impl Iterator<Item = (MfaMethod, Strength)>,
    named: Option<&[MfaMethod]>,
    strength: Option<Strength>,
) -> Vec<MfaMethod> {
    methods
        .filter(|(method, _)| named.is_none_or(|list| list.contains(method)))
        .filter(|(_, proves)| strength.is_none_or(|needed| *proves >= needed))
        .map(|(method, _)| method)
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

/// The decision on facts of an earlier sign-in, with the factors and channels that the user had then.
#[must_use]
pub fn decide_again(assessment: &Assessment, facts: &Facts) -> Decision {
    let at = facts.request.time;
    let factors: Vec<Factor> = facts
        .user
        .mfa_methods
        .iter()
        .map(|f| Factor {
            id: FactorId::from_bytes([0; 16]),
            method: f.method,
            enrolled_at: at,
            last_used_at: None,
        })
        .collect();
    by_facts(assessment, facts, &factors)
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

/// Methods that would do for this assessment, whether the user has them or not; the last resort is not among them.
#[must_use]
pub fn recommended_methods(level: Level) -> Vec<MfaMethod> {
    let supported = MfaMethod::SUPPORTED.into_iter();
    supported.filter(|method| level != Level::Low && *method != MfaMethod::BackupCode).collect()
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

    #[test]
    fn backup_codes_come_last_and_never_stand_alone() {
        let code = Factor { method: MfaMethod::BackupCode, ..totp().remove(0) };
        assert_eq!(usable(std::slice::from_ref(&code), None, None), []);
        let both = [code, totp().remove(0)];
        assert_eq!(usable(&both, None, None), [MfaMethod::Totp, MfaMethod::BackupCode]);
        assert_eq!(usable(&both, Some(&[MfaMethod::BackupCode]), None), [MfaMethod::BackupCode]);
        assert_eq!(usable(&both, None, Some(Strength::Strong)), [MfaMethod::Totp]);
        assert_eq!(recommended_methods(Level::Medium), [MfaMethod::Totp]);
        assert_eq!(recommended_methods(Level::Low), []);
    }

    fn person(upstream: bool, age: Option<i64>, factors: &[Factor]) -> Who<'_> {
        Who {
            kind: UserKind::Person,
            trusted_upstream_mfa: upstream,
            auth_time_age_s: age,
            on_trusted_device: false,
            factors,
            channels: &[],
        }
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
            let row = format!("{effects:?} upstream={upstream} own={own}");
            let factors = if own { totp() } else { Vec::new() };
            let who = person(upstream, Some(300), &factors);
            let got = outcome(&assessment(PolicySettings::default(), effects), &Floor::default(), &who);
            assert_eq!(word(&got), expected, "{row}");
        }
    }

    #[test]
    fn an_identity_that_is_not_linked_yet_gives_no_tokens_without_a_strong_factor() {
        let floor = floor(LinkMethod::ConfirmedByFactor, None);
        let factors = totp();
        let on_device = |factors| Who { on_trusted_device: true, ..person(true, Some(0), factors) };
        for effects in [vec![], vec![Effect::Add(30)], vec![Effect::RequireMfa(None)], vec![Effect::Add(60)]] {
            let a = assessment(PolicySettings { trusted_devices: true, ..PolicySettings::default() }, effects);
            assert_eq!(word(&outcome(&a, &floor, &on_device(&factors))), "challenge");
            assert_eq!(word(&outcome(&a, &floor, &on_device(&[]))), "no factor");
        }
        let denied = assessment(PolicySettings::default(), vec![Effect::Deny]);
        assert_eq!(word(&outcome(&denied, &floor, &on_device(&factors))), "deny");
    }

    #[test]
    fn an_expired_password_never_asks_for_less_than_the_rules() {
        let add = |points| assessment(PolicySettings::default(), vec![Effect::Add(points)]);
        for (expired, points, own, expected) in [
            (ExpiredPassword::Warn, 0, false, "issue"),
            (ExpiredPassword::Challenge, 0, true, "challenge"),
            (ExpiredPassword::Challenge, 0, false, "no factor"),
            (ExpiredPassword::Deny, 0, true, "deny"),
            (ExpiredPassword::Warn, 30, true, "challenge"),
        ] {
            let floor = floor(LinkMethod::Existing, Some(expired));
            let factors = if own { totp() } else { Vec::new() };
            let upstream = expired != ExpiredPassword::Warn;
            assert_eq!(word(&outcome(&add(points), &floor, &person(upstream, Some(0), &factors))), expected);
        }
    }

    #[test]
    fn a_trusted_device_meets_what_medium_risk_alone_asks_for() {
        let factors = totp();
        let on_device = Who { on_trusted_device: true, ..person(false, Some(0), &factors) };
        let strong = LevelAction::StrongMfa;
        for (trusts, medium_action, effects, expected) in [
            (true, LevelAction::Mfa, vec![Effect::Add(30)], "issue"),
            (false, LevelAction::Mfa, vec![Effect::Add(30)], "challenge"),
            (true, strong, vec![Effect::Add(30)], "challenge"),
            (true, LevelAction::Mfa, vec![Effect::Add(60)], "challenge"),
            (true, LevelAction::Mfa, vec![Effect::Add(30), Effect::RequireMfa(None)], "challenge"),
            (true, LevelAction::Mfa, vec![Effect::RequireMfa(None)], "challenge"),
            (true, LevelAction::Mfa, vec![Effect::Add(30), Effect::RequireStrength(Strength::Strong)], "challenge"),
            (true, LevelAction::Mfa, vec![Effect::Add(30), Effect::Deny], "deny"),
        ] {
            let seen = format!("{trusts} {medium_action:?} {effects:?}");
            let settings = PolicySettings { trusted_devices: trusts, medium_action, ..PolicySettings::default() };
            let got = outcome(&assessment(settings, effects), &Floor::default(), &on_device);
            assert_eq!(word(&got), expected, "{seen}");
        }
    }

    #[test]
    fn a_step_up_is_asked_when_the_provider_does_not_tell_the_time() {
        let a = assessment(PolicySettings::default(), vec![Effect::UpstreamStepUp { max_age_s: 600 }]);
        assert_eq!(word(&outcome(&a, &Floor::default(), &person(true, None, &totp()))), "step up");
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
            assert_eq!(word(&outcome(&a, &Floor::default(), &person(false, Some(0), &[]))), expected);
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
            let got = outcome(&assessment(PolicySettings::default(), effects), &Floor::default(), &who);
            assert_eq!(word(&got), expected, "{shown}");
        }
    }

    #[test]
    fn a_known_channel_serves_a_user_without_a_factor_when_the_tenant_says_so() {
        let email = [ChannelFacts { method: MfaMethod::Email, strength: Strength::Weak }];
        for (unenrolled, effects, factors, expected) in [
            (Unenrolled::KnownChannel, vec![Effect::RequireMfa(None)], vec![], Some(MfaMethod::Email)),
            (Unenrolled::KnownChannel, vec![Effect::RequireMfa(None)], totp(), Some(MfaMethod::Totp)),
            (Unenrolled::KnownChannel, vec![Effect::RequireMfa(Some(vec![MfaMethod::Totp]))], vec![], None),
            (Unenrolled::Deny, vec![Effect::RequireMfa(None)], vec![], None),
            (Unenrolled::UpstreamStepUp, vec![Effect::RequireMfa(None)], vec![], None),
        ] {
            let a = assessment(PolicySettings { unenrolled, ..PolicySettings::default() }, effects);
            let who = Who { channels: &email, ..person(false, Some(0), &factors) };
            let methods = match outcome(&a, &Floor::default(), &who) {
                Decision::Challenge { methods, .. } => methods,
                _ => Vec::new(),
            };
            assert_eq!(methods, Vec::from_iter(expected), "{unenrolled:?}");
        }
    }

    #[test]
    fn a_channel_proves_as_much_as_its_facts_say() {
        let own = MfaMethod::find("acme.voice").unwrap();
        for (strength, demanded, asked) in [
            (Strength::Weak, Strength::Strong, false),
            (Strength::Strong, Strength::Strong, true),
            (Strength::Strong, Strength::PhishingResistant, false),
        ] {
            let settings = PolicySettings { unenrolled: Unenrolled::KnownChannel, ..PolicySettings::default() };
            let a = assessment(settings, vec![Effect::RequireStrength(demanded)]);
            let who = Who { channels: &[ChannelFacts { method: own, strength }], ..person(false, Some(0), &[]) };
            let decision = outcome(&a, &Floor::default(), &who);
            assert_eq!(decision.action() == "mfa", asked, "{strength:?} for {demanded:?}");
        }
    }
}
