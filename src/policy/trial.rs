//! What stays of a trial: who tried which bundle in which way, and counts of what came of it. No facts, and nobody
//! who signed in. A trial runs scripts with somebody's facts, so it is written down though it changes nothing.

use serde_json::{Value, json};

use super::check::{CaseSummary, CheckReport};
use super::explain::Explanation;
use super::replay::ReplayReport;
use super::service::{PolicyError, PolicyService};
use crate::admin::audit::{Author, Change};

/// What a trial leaves in the audit log.
pub(super) trait Outcome {
    /// `policy.` and the word of the trial.
    const ACTION: &'static str;
    /// Counts alone.
    fn counts(&self) -> Value;
}

impl Outcome for CheckReport {
    const ACTION: &'static str = "policy.check";

    fn counts(&self) -> Value {
        let runs: usize = self.scripts.iter().map(|script| script.ran).sum();
        let faults: usize = self.scripts.iter().flat_map(|script| &script.faults).map(|fault| fault.times).sum();
        json!({"passed": self.passed(), "scripts": self.scripts.len(), "runs": runs, "faults": faults})
    }
}

impl Outcome for CaseSummary {
    const ACTION: &'static str = "policy.test";

    fn counts(&self) -> Value {
        json!({"cases": self.cases, "failed": self.failed.len()})
    }
}

impl Outcome for Explanation {
    const ACTION: &'static str = "policy.simulate";

    fn counts(&self) -> Value {
        json!({"runs": 1, "faults": usize::from(self.decision.trace.failure.is_some())})
    }
}

impl Outcome for ReplayReport {
    const ACTION: &'static str = "policy.replay";

    fn counts(&self) -> Value {
        let moved = |before: usize, after: usize| if before == after { 0 } else { self.changes[before][after] };
        let changed: u64 = (0..3).map(|before| (0..3).map(|after| moved(before, after)).sum::<u64>()).sum();
        json!({
            "beside": self.active, "recorded": self.recorded, "sign_ins": self.total, "changed": changed,
            "faults": self.faults[1],
        })
    }
}

impl PolicyService {
    /// Writes a trial down, also one that failed on the way. Without the record there is no report.
    pub(super) async fn note<T: Outcome>(
        &self,
        bundle: &str,
        author: Author,
        ran: Result<T, PolicyError>,
    ) -> Result<T, PolicyError> {
        let counts = match &ran {
            Ok(outcome) => outcome.counts(),
            // Nothing was run.
            Err(PolicyError::UnknownBundle(_) | PolicyError::Store(_)) => return ran,
            Err(_) => json!({"ended_early": true}),
        };
        self.audit.record(author, Change::between(T::ACTION, bundle, &Value::Null, &counts)).await?;
        ran
    }
}
