//! Step 9: score, level and demand from what the rules asked for.
//!
//! The score is a sum of named points, and the names are kept with it: they always add up. Every
//! combination goes upwards: a later effect never takes back an earlier one.

use std::sync::Arc;
use std::time::Duration;

use super::facts::Facts;
use super::history::ContextPrint;
use super::ports::RiskRules;
use super::record::AssessmentRecord;
use super::rules::{Effect, Level, OnError, PolicyFault, PolicySettings, RuleOutput, RuleRun, RunCost};
use super::signals::Signals;
use super::user::ResolvedUser;
use crate::mfa::{MfaMethod, Strength};
use crate::session::Caps;

/// The reason of everything that a failing policy brings about.
pub const POLICY_ERROR: &str = "policy_error";
/// The reason that makes the points add up when the sum leaves 0 to 100.
pub const SCORE_LIMIT: &str = "score_limit";

/// What a sign-in must meet, all effects together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Demand {
    /// No sign-in, for this reason.
    pub deny: Option<Arc<str>>,
    /// A second factor, for this reason.
    pub mfa: Option<Arc<str>>,
    /// Only these methods, when any were named.
    pub methods: Option<Vec<MfaMethod>>,
    /// At least this strength.
    pub strength: Option<Strength>,
    /// A fresh sign-in at the provider: the greatest age in seconds, and the reason.
    pub step_up: Option<(i64, Arc<str>)>,
    /// Limits of the session.
    pub caps: Caps,
    /// Whether MFA at the provider may stand for the second factor.
    pub upstream_may_satisfy: bool,
}

/// A score with its reasons, and what follows from it.
#[derive(Debug, Clone)]
pub struct Assessment {
    /// 0 to 100; the sum of the points.
    pub score: i64,
    /// Its level.
    pub level: Level,
    /// Reasons and points, in the order in which they came up.
    pub reasons: Vec<(Arc<str>, i64)>,
    /// What must be met.
    pub demand: Demand,
    /// The tenant's settings.
    pub settings: Arc<PolicySettings>,
    /// The policy files.
    pub policy: Arc<str>,
    /// The script that ran.
    pub file: Arc<str>,
    /// What it asked for, step by step.
    pub output: RuleOutput,
    /// The script's failure.
    pub fault: Option<PolicyFault>,
    /// What it took.
    pub cost: RunCost,
}

impl Assessment {
    /// The reason with the most points, else the first reason of all.
    #[must_use]
    pub fn weightiest_reason(&self) -> Option<&Arc<str>> {
        let mut best: Option<&(Arc<str>, i64)> = None;
        for reason in self.reasons.iter().filter(|r| &*r.0 != SCORE_LIMIT) {
            if best.is_none_or(|b| reason.1 > b.1) {
                best = Some(reason);
            }
        }
        best.map(|(code, _)| code)
    }

    /// What is kept of it.
    #[must_use]
    pub fn record(&self) -> AssessmentRecord {
        AssessmentRecord {
            score: self.score,
            level: self.level,
            policy: Arc::clone(&self.policy),
            reasons: self.reasons.clone(),
            fault: self.fault.as_ref().map(ToString::to_string),
        }
    }
}

/// A sign-in with its assessment. Only [`assess`] can build one.
#[derive(Debug)]
pub struct AssessedSignIn {
    resolved: ResolvedUser,
    facts: Arc<Facts>,
    context: ContextPrint,
    assessment: Assessment,
}

impl AssessedSignIn {
    /// The user.
    #[must_use]
    pub fn resolved(&self) -> &ResolvedUser {
        &self.resolved
    }

    /// The facts it was assessed by.
    #[must_use]
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// The stored form of where and with what.
    #[must_use]
    pub fn context(&self) -> &ContextPrint {
        &self.context
    }

    /// The assessment.
    #[must_use]
    pub fn assessment(&self) -> &Assessment {
        &self.assessment
    }

    pub(super) fn into_resolved(self) -> ResolvedUser {
        self.resolved
    }
}

/// Runs the tenant's rules on the frozen facts.
#[must_use]
pub fn assess(signals: Signals, rules: &dyn RiskRules) -> AssessedSignIn {
    let run = rules.assess(Arc::clone(signals.facts()));
    let (resolved, facts, context) = signals.into_parts();
    AssessedSignIn { resolved, facts, context, assessment: combine(run) }
}

/// Combines the effects of one run.
#[must_use]
pub fn combine(run: RuleRun) -> Assessment {
    let settings = run.settings;
    let mut reasons: Vec<(Arc<str>, i64)> = Vec::new();
    let mut demand = Demand { upstream_may_satisfy: true, ..Demand::default() };
    let mut floor: Option<(Level, Arc<str>)> = None;
    for step in &run.output.steps {
        let points = apply(&step.effect, &step.code, &mut demand, &mut floor);
        note(&mut reasons, Arc::clone(&step.code), points);
    }
    if run.fault.is_some() {
        apply_fault(&settings, &mut demand, &mut floor);
        note(&mut reasons, POLICY_ERROR.into(), 0);
    }
    let mut score: i64 = reasons.iter().map(|(_, points)| points).sum();
    let limited = score.clamp(0, 100);
    if limited != score {
        reasons.push((SCORE_LIMIT.into(), limited - score));
        score = limited;
    }
    if let Some((level, code)) = floor {
        let from = threshold(&settings, level);
        if score < from {
            match reasons.iter_mut().find(|(c, _)| *c == code) {
                Some((_, points)) => *points += from - score,
                None => reasons.push((code, from - score)),
            }
            score = from;
        }
    }
    let level = level_of(&settings, score);
    let RuleRun { policy, file, output, fault, cost, .. } = run;
    Assessment { score, level, reasons, demand, settings, policy, file, output, fault, cost }
}

/// Several hits of one code count once: the largest.
fn note(reasons: &mut Vec<(Arc<str>, i64)>, code: Arc<str>, points: i64) {
    match reasons.iter_mut().find(|(c, _)| *c == code) {
        Some((_, held)) if *held == 0 || points > *held => *held = if points == 0 { *held } else { points },
        Some(_) => {}
        None => reasons.push((code, points)),
    }
}

fn apply(effect: &Effect, code: &Arc<str>, demand: &mut Demand, floor: &mut Option<(Level, Arc<str>)>) -> i64 {
    match effect {
        Effect::Add(points) => return (*points).clamp(-100, 100),
        Effect::AtLeast(level) => raise(floor, *level, code),
        Effect::RequireMfa(methods) => {
            demand.mfa.get_or_insert_with(|| Arc::clone(code));
            if let Some(named) = methods {
                demand.upstream_may_satisfy = false;
                demand.methods = Some(match demand.methods.take() {
                    None => named.clone(),
                    Some(held) => held.into_iter().filter(|m| named.contains(m)).collect(),
                });
            }
        }
        Effect::RequireStrength(strength) => {
            demand.mfa.get_or_insert_with(|| Arc::clone(code));
            demand.upstream_may_satisfy = false;
            demand.strength = demand.strength.max(Some(*strength));
        }
        Effect::UpstreamStepUp { max_age_s } => {
            if demand.step_up.as_ref().is_none_or(|(held, _)| max_age_s < held) {
                demand.step_up = Some((*max_age_s, Arc::clone(code)));
            }
        }
        Effect::Deny => {
            demand.deny.get_or_insert_with(|| Arc::clone(code));
        }
        Effect::CapSession(cap) => demand.caps.session = smaller(demand.caps.session, *cap),
        Effect::CapRefresh(cap) => demand.caps.refresh = smaller(demand.caps.refresh, *cap),
        Effect::NoRefresh => demand.caps.no_refresh = true,
        Effect::Review | Effect::NotifyUser => {}
    }
    0
}

/// A failing script raises: at least medium, and a second factor that MFA at the provider does not
/// stand for, or denial.
fn apply_fault(settings: &PolicySettings, demand: &mut Demand, floor: &mut Option<(Level, Arc<str>)>) {
    let code: Arc<str> = POLICY_ERROR.into();
    match settings.on_error {
        OnError::Deny => {
            demand.deny.get_or_insert(code);
        }
        OnError::DefaultThenMfa | OnError::Mfa => {
            raise(floor, Level::Medium, &code);
            demand.mfa.get_or_insert(code);
            demand.upstream_may_satisfy = false;
        }
    }
}

fn raise(floor: &mut Option<(Level, Arc<str>)>, level: Level, code: &Arc<str>) {
    if floor.as_ref().is_none_or(|(held, _)| level > *held) {
        *floor = Some((level, Arc::clone(code)));
    }
}

fn smaller(held: Option<Duration>, cap: Duration) -> Option<Duration> {
    Some(held.map_or(cap, |h| h.min(cap)))
}

const fn threshold(settings: &PolicySettings, level: Level) -> i64 {
    match level {
        Level::Low => 0,
        Level::Medium => settings.medium_from,
        Level::High => settings.high_from,
    }
}

const fn level_of(settings: &PolicySettings, score: i64) -> Level {
    if score >= settings.high_from {
        Level::High
    } else if score >= settings.medium_from {
        Level::Medium
    } else {
        Level::Low
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signin::fact_paths::Because;
    use crate::signin::rules::{RuleOutput, Step};

    fn run(effects: Vec<(&str, Effect)>) -> RuleRun {
        let steps = effects
            .into_iter()
            .map(|(code, effect)| Step {
                code: code.into(),
                effect,
                line: None,
                detail: None,
                because: Because::default(),
            })
            .collect();
        RuleRun {
            policy: "pol_test".into(),
            file: "risk/_default.rhai".into(),
            settings: Arc::new(PolicySettings::default()),
            output: RuleOutput { steps, ..RuleOutput::default() },
            fault: None,
            cost: RunCost::default(),
        }
    }

    fn effect() -> impl Strategy<Value = Effect> {
        prop_oneof![
            (-150i64..150).prop_map(Effect::Add),
            prop_oneof![Just(Level::Low), Just(Level::Medium), Just(Level::High)].prop_map(Effect::AtLeast),
            Just(Effect::RequireMfa(None)),
            Just(Effect::RequireMfa(Some(vec![MfaMethod::Totp]))),
            Just(Effect::RequireStrength(Strength::Strong)),
            Just(Effect::Deny),
            Just(Effect::NoRefresh),
            (1u64..9999).prop_map(|s| Effect::CapSession(Duration::from_secs(s))),
        ]
    }

    proptest! {
        #[test]
        fn the_points_shown_add_up_to_the_score_shown(
            effects in prop::collection::vec(("[a-e]", effect()), 0..12),
            failed in any::<bool>(),
        ) {
            let mut run = run(effects.iter().map(|(c, e)| (c.as_str(), e.clone())).collect());
            if failed {
                run.fault = Some(PolicyFault { file: "x".into(), line: 1, column: 1, message: "m".into() });
            }
            let a = combine(run);
            prop_assert_eq!(a.reasons.iter().map(|(_, p)| p).sum::<i64>(), a.score);
            prop_assert!((0..=100).contains(&a.score));
            prop_assert_eq!(a.level, level_of(&a.settings, a.score));
            prop_assert!(!failed || a.demand.mfa.is_some());
        }

        #[test]
        fn one_more_effect_that_demands_never_lowers_the_demand(
            effects in prop::collection::vec(("[a-e]", effect()), 0..8),
            more in effect(),
        ) {
            let named = |list: &[(String, Effect)]| list.iter().map(|(c, e)| (c.clone(), e.clone())).collect::<Vec<_>>();
            let before = combine(run(named(&effects).iter().map(|(c, e)| (c.as_str(), e.clone())).collect()));
            let mut longer = named(&effects);
            longer.push(("zz".to_owned(), more.clone()));
            let after = combine(run(longer.iter().map(|(c, e)| (c.as_str(), e.clone())).collect()));
            if !matches!(more, Effect::Add(points) if points < 0) {
                prop_assert!(after.level >= before.level);
            }
            prop_assert!(before.demand.mfa.is_none() || after.demand.mfa.is_some());
            prop_assert!(before.demand.deny.is_none() || after.demand.deny.is_some());
            prop_assert!(after.demand.strength >= before.demand.strength);
        }
    }

    #[test]
    fn a_code_counts_once_with_its_largest_points() {
        let a = combine(run(vec![("x", Effect::Add(10)), ("x", Effect::Add(25)), ("x", Effect::Add(5))]));
        assert_eq!((a.score, a.reasons.len()), (25, 1));
    }

    #[test]
    fn a_floor_cannot_be_undercut_and_shows_its_points() {
        let a = combine(run(vec![("calm", Effect::Add(-50)), ("leak", Effect::AtLeast(Level::High))]));
        assert_eq!((a.score, a.level), (60, Level::High));
        assert_eq!(&**a.weightiest_reason().unwrap(), "leak");
    }

    #[test]
    fn a_failing_policy_asks_for_more_not_less() {
        let mut failing = run(vec![]);
        failing.fault = Some(PolicyFault { file: "x".into(), line: 1, column: 2, message: "boom".into() });
        let a = combine(failing);
        assert_eq!(a.level, Level::Medium);
        assert_eq!(a.demand.mfa.as_deref(), Some(POLICY_ERROR));
        assert!(!a.demand.upstream_may_satisfy);
    }
}
