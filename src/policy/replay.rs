//! What a candidate would have decided of sign-ins that really happened.
//!
//! Facts are as they were: a sign-in that the candidate would have stopped still counts in the history
//! of the ones after it. Addresses, agents and device identifiers are stand-ins that only compare; a
//! candidate that reads one is counted, because it may decide otherwise on the real one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Label;
use super::explain::StoredDecision;
use super::ports::PreparedBundle;
use crate::ids::{EventId, UserId};
use crate::signin::assessment::{Assessment, combine};
use crate::signin::decision::decide_again;
use crate::signin::fact_paths::{WITHHELD, position};

const ACTIONS: [&str; 3] = ["allow", "mfa", "deny"];
/// Examples of each change that are kept.
const EXAMPLES: usize = 5;

/// The people's words on sign-ins, ready to be asked.
#[derive(Debug, Default)]
pub struct Disputes {
    sign_ins: HashSet<EventId>,
    users: HashSet<UserId>,
}

impl Disputes {
    /// A sign-in is disputed when the user or an administrator says so; its user is one whose account
    /// was in other hands.
    #[must_use]
    pub fn of(labels: &[Label]) -> Self {
        let disputed = || labels.iter().filter(|label| label.disputed);
        Self {
            sign_ins: disputed().map(|label| label.sign_in).collect(),
            users: disputed().map(|label| label.user).collect(),
        }
    }
}

/// Counts of a replay. Parts that were counted apart can be joined.
#[derive(Debug, Default)]
pub struct Comparison {
    total: u64,
    /// `[before][after]`.
    changes: [[u64; 3]; 3],
    faults: [u64; 2],
    withheld: u64,
    newly_asked: HashMap<UserId, u64>,
    newly_asked_of_disputed_users: u64,
    disputed: [u64; 2],
    causes: BTreeMap<Arc<str>, i64>,
    examples: BTreeMap<(usize, usize), Vec<EventId>>,
    micros: Vec<u32>,
    slowest: Option<(u64, EventId)>,
}

fn withheld_bits() -> u128 {
    WITHHELD.iter().filter_map(|path| position(path)).fold(0, |bits, n| bits | 1 << n)
}

fn index(action: &str) -> usize {
    ACTIONS.iter().position(|a| *a == action).unwrap_or(2)
}

impl Comparison {
    /// Runs both bundles on the facts of one sign-in.
    pub fn add(
        &mut self,
        decision: &StoredDecision,
        active: &dyn PreparedBundle,
        candidate: &dyn PreparedBundle,
        disputes: &Disputes,
    ) {
        let facts = Arc::new(decision.facts.clone());
        let run = |bundle: &dyn PreparedBundle| {
            let assessment = combine(bundle.assess(Arc::clone(&facts)));
            let action = index(decide_again(&assessment, &facts).action());
            (assessment, action)
        };
        let (was, before) = run(active);
        let (is, after) = run(candidate);
        self.total += 1;
        self.changes[before][after] += 1;
        self.faults[0] += u64::from(was.fault.is_some());
        self.faults[1] += u64::from(is.fault.is_some());
        self.withheld += u64::from(is.cost.read & withheld_bits() != 0);
        self.micros.push(u32::try_from(is.cost.micros).unwrap_or(u32::MAX));
        if self.slowest.is_none_or(|(us, _)| is.cost.micros > us) {
            self.slowest = Some((is.cost.micros, decision.id));
        }
        if disputes.sign_ins.contains(&decision.id) {
            self.disputed[0] += u64::from(before != 0);
            self.disputed[1] += u64::from(after != 0);
        }
        if before == after {
            return;
        }
        let examples = self.examples.entry((before, after)).or_default();
        if examples.len() < EXAMPLES {
            examples.push(decision.id);
        }
        self.note_causes(&was, &is);
        if before == 0 && after == 1 {
            *self.newly_asked.entry(facts.user.id).or_default() += 1;
            self.newly_asked_of_disputed_users += u64::from(disputes.users.contains(&facts.user.id));
        }
    }

    /// A cause is a reason that only one of them gives, or with other points.
    fn note_causes(&mut self, was: &Assessment, is: &Assessment) {
        let has = |all: &Assessment, one: &(Arc<str>, i64)| all.reasons.contains(one);
        for reason in is.reasons.iter().filter(|r| !has(was, r)) {
            *self.causes.entry(Arc::clone(&reason.0)).or_default() += 1;
        }
        for reason in was.reasons.iter().filter(|r| !is.reasons.iter().any(|i| i.0 == r.0)) {
            *self.causes.entry(Arc::clone(&reason.0)).or_default() -= 1;
        }
    }

    /// Joins another part.
    pub fn join(&mut self, other: Self) {
        self.total += other.total;
        for (mine, theirs) in self.changes.iter_mut().flatten().zip(other.changes.into_iter().flatten()) {
            *mine += theirs;
        }
        for (mine, theirs) in [(&mut self.faults, other.faults), (&mut self.disputed, other.disputed)] {
            mine.iter_mut().zip(theirs).for_each(|(m, t)| *m += t);
        }
        self.withheld += other.withheld;
        self.newly_asked_of_disputed_users += other.newly_asked_of_disputed_users;
        for (user, times) in other.newly_asked {
            *self.newly_asked.entry(user).or_default() += times;
        }
        for (code, times) in other.causes {
            *self.causes.entry(code).or_default() += times;
        }
        for (change, ids) in other.examples {
            let mine = self.examples.entry(change).or_default();
            mine.extend(ids);
            mine.sort_unstable();
            mine.truncate(EXAMPLES);
        }
        self.micros.extend(other.micros);
        self.slowest = self.slowest.max(other.slowest);
    }

    /// The report. `recorded`: how many sign-ins there are, looked at or not.
    #[must_use]
    pub fn report(mut self, active: &str, candidate: &str, recorded: u64) -> ReplayReport {
        self.micros.sort_unstable();
        let p99 = self.micros.get(self.micros.len() * 99 / 100).copied().unwrap_or(0);
        let mut causes: Vec<(Arc<str>, i64)> = self.causes.into_iter().filter(|(_, n)| *n != 0).collect();
        causes.sort_by_key(|(_, n)| -n.abs());
        let side = |of: &dyn Fn(usize) -> u64| [of(0), of(1), of(2)];
        let changes = self.changes;
        ReplayReport {
            active: active.to_owned(),
            candidate: candidate.to_owned(),
            total: self.total,
            recorded,
            before: side(&|n| changes[n].iter().sum()),
            after: side(&|n| changes.iter().map(|row| row[n]).sum()),
            changes,
            faults: self.faults,
            withheld: self.withheld,
            newly_asked: changes[0][1],
            newly_asked_users: self.newly_asked.len() as u64,
            often_asked_users: self.newly_asked.values().filter(|n| **n > 5).count() as u64,
            newly_asked_of_disputed_users: self.newly_asked_of_disputed_users,
            disputed_stopped: self.disputed,
            causes,
            examples: self.examples.into_iter().map(|((b, a), ids)| (ACTIONS[b], ACTIONS[a], ids)).collect(),
            p99_us: p99.into(),
            slowest: self.slowest,
        }
    }
}

/// How a candidate compares.
#[derive(Debug, Clone)]
pub struct ReplayReport {
    /// The bundle in force.
    pub active: String,
    /// The candidate.
    pub candidate: String,
    /// Sign-ins that were looked at.
    pub total: u64,
    /// Sign-ins that there are. More than were looked at: time was up, and the newest are left out.
    pub recorded: u64,
    /// Allowed, asked for a factor, denied, by the active bundle.
    pub before: [u64; 3],
    /// The same by the candidate.
    pub after: [u64; 3],
    /// `[before][after]`.
    pub changes: [[u64; 3]; 3],
    /// Script errors of the active bundle and of the candidate.
    pub faults: [u64; 2],
    /// Sign-ins where the candidate read a fact of which only a stand-in is kept.
    pub withheld: u64,
    /// Sign-ins that went through and would be asked for a factor.
    pub newly_asked: u64,
    /// Their users.
    pub newly_asked_users: u64,
    /// Users who would be asked more than 5 times.
    pub often_asked_users: u64,
    /// Of the newly asked: those of users who disputed a sign-in.
    pub newly_asked_of_disputed_users: u64,
    /// Disputed sign-ins that were stopped or challenged, and would be.
    pub disputed_stopped: [u64; 2],
    /// Reasons behind the changes, most frequent first; negative: given no more.
    pub causes: Vec<(Arc<str>, i64)>,
    /// Examples: before, after, sign-ins.
    pub examples: Vec<(&'static str, &'static str, Vec<EventId>)>,
    /// 99 of 100 runs of the candidate took at most so many microseconds.
    pub p99_us: u64,
    /// The longest run of the candidate.
    pub slowest: Option<(u64, EventId)>,
}

impl ReplayReport {
    /// Whether every sign-in would have been decided the same.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.before == self.after && self.changes.iter().enumerate().all(|(n, row)| row[n] == self.before[n])
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let side = |counts: [u64; 3]| json!({"allow": counts[0], "mfa": counts[1], "deny": counts[2]});
        let examples = self.examples.iter().map(|(before, after, ids)| {
            json!({"before": before, "after": after, "sign_ins": ids.iter().map(ToString::to_string).collect::<Vec<_>>()})
        });
        let causes = self.causes.iter().map(|(code, n)| json!({"reason": code, "sign_ins": n}));
        json!({
            "active": self.active,
            "candidate": self.candidate,
            "sign_ins": self.total,
            "recorded": self.recorded,
            "complete": self.total == self.recorded,
            "before": side(self.before),
            "after": side(self.after),
            "script_errors": {"active": self.faults[0], "candidate": self.faults[1]},
            "read_withheld_facts": self.withheld,
            "newly_asked": {
                "sign_ins": self.newly_asked,
                "users": self.newly_asked_users,
                "users_more_than_5_times": self.often_asked_users,
                "of_users_who_disputed": self.newly_asked_of_disputed_users,
            },
            "disputed_stopped": {"before": self.disputed_stopped[0], "after": self.disputed_stopped[1]},
            "causes": causes.collect::<Vec<_>>(),
            "examples": examples.collect::<Vec<_>>(),
            "p99_us": self.p99_us,
            "slowest": self.slowest.map(|(us, id)| json!({"us": us, "sign_in": id.to_string()})),
        })
    }
}

impl fmt::Display for ReplayReport {
    #[expect(clippy::cast_precision_loss, reason = "a share is shown with two digits")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |n: u64| 100.0 * n as f64 / (self.total.max(1)) as f64;
        writeln!(
            f,
            "{} sign-ins, {} script errors, p99 {:.3} ms      active {} vs candidate {}",
            self.total,
            self.faults[1],
            self.p99_us as f64 / 1000.0,
            self.active,
            self.candidate
        )?;
        for (n, name) in [(1, "MFA "), (2, "deny")] {
            let (before, after) = (self.before[n], self.after[n]);
            let difference = i128::from(after) - i128::from(before);
            writeln!(f, "  {name}  {:.2} % -> {:.2} %   ({difference:+} sign-ins)", share(before), share(after))?;
        }
        if self.newly_asked > 0 {
            let others = self.newly_asked - self.newly_asked_of_disputed_users;
            writeln!(
                f,
                "  newly asked for a factor: {} sign-ins of {} users, {} of them more than 5 times",
                self.newly_asked, self.newly_asked_users, self.often_asked_users
            )?;
            writeln!(
                f,
                "  of the {}: {others} were never disputed; {} came from users who disputed a sign-in",
                self.newly_asked, self.newly_asked_of_disputed_users
            )?;
        }
        let [before, after] = self.disputed_stopped;
        if before > 0 || after > 0 {
            writeln!(f, "  disputed sign-ins that are stopped or challenged: {before} -> {after}")?;
        }
        if !self.causes.is_empty() {
            let shown: Vec<String> = self.causes.iter().take(5).map(|(c, n)| format!("{c} {n:+}")).collect();
            writeln!(f, "  biggest causes: {}", shown.join(", "))?;
        }
        for (before, after, ids) in &self.examples {
            let shown: Vec<String> = ids.iter().take(3).map(ToString::to_string).collect();
            writeln!(f, "  {before} -> {after}, for example: {}", shown.join(" "))?;
        }
        if self.withheld > 0 {
            writeln!(
                f,
                "  {} sign-ins: the candidate read an address, agent or device, of which only a stand-in is kept",
                self.withheld
            )?;
        }
        if let Some((us, id)) = self.slowest {
            writeln!(f, "  slowest run of the candidate: {us} µs at {id}")?;
        }
        if self.total < self.recorded {
            let (total, recorded) = (self.total, self.recorded);
            writeln!(f, "  Time was up: these are the oldest {total} of {recorded} sign-ins.")?;
        }
        writeln!(f, "  Facts are as they were; histories are not simulated anew.")
    }
}
