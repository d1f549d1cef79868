//! Candidates beside the active bundle: they run after the answer, on a thread of their own, on the same
//! frozen facts. What they do is counted, and never seen by a user.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::active::Slot;
use super::run_assess;
use crate::ids::{EventId, TenantId};
use crate::policy::{ShadowCounts, ShadowDifference};
use crate::signin::assessment::combine;
use crate::signin::decision::decide_again;
use crate::signin::facts::Facts;
use crate::signin::ports::AfterDecision;

/// Decisions that may wait. More are dropped and counted: shadows never slow anybody.
const WAITING: usize = 1024;
/// Differences between two writes; more are counted and not kept.
const DIFFERENCES: usize = 2000;

type Candidates = HashMap<TenantId, Vec<Arc<Slot>>>;

struct Job {
    id: EventId,
    facts: Arc<Facts>,
    action: &'static str,
    candidates: Vec<Arc<Slot>>,
}

#[derive(Default)]
struct Tally {
    counts: HashMap<(TenantId, String), ShadowCounts>,
    differences: Vec<ShadowDifference>,
}

/// Runs candidates.
pub struct Shadows {
    candidates: ArcSwap<Candidates>,
    jobs: SyncSender<Job>,
    tally: Arc<Mutex<Tally>>,
}

impl Shadows {
    /// Starts the thread; it ends when this is dropped.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start() -> std::io::Result<Arc<Self>> {
        let (jobs, received) = sync_channel(WAITING);
        let tally = Arc::new(Mutex::new(Tally::default()));
        let theirs = Arc::clone(&tally);
        std::thread::Builder::new().name("shadows".to_owned()).spawn(move || run(&received, &theirs))?;
        Ok(Arc::new(Self { candidates: ArcSwap::default(), jobs, tally }))
    }

    pub(super) fn set(&self, candidates: Candidates) {
        self.candidates.store(Arc::new(candidates));
    }

    pub(super) fn candidates(&self) -> Arc<Candidates> {
        self.candidates.load_full()
    }

    /// What was counted since the last call.
    pub(super) fn take(&self) -> (Vec<(TenantId, String, ShadowCounts)>, Vec<ShadowDifference>) {
        let tally = std::mem::take(&mut *self.tally.lock().unwrap_or_else(PoisonError::into_inner));
        let counts = tally.counts.into_iter().map(|((tenant, bundle), counts)| (tenant, bundle, counts));
        (counts.collect(), tally.differences)
    }
}

impl AfterDecision for Shadows {
    fn decided(&self, id: EventId, facts: &Arc<Facts>, action: &'static str) {
        let all = self.candidates.load();
        let Some(candidates) = all.get(&facts.tenant) else { return };
        let job = Job { id, facts: Arc::clone(facts), action, candidates: candidates.clone() };
        if let Err(TrySendError::Full(_)) = self.jobs.try_send(job) {
            metrics::counter!("countersign_policy_shadow_dropped_total").increment(1);
        }
    }
}

fn run(jobs: &Receiver<Job>, tally: &Mutex<Tally>) {
    while let Ok(job) = jobs.recv() {
        for candidate in &job.candidates {
            let Ok(snapshot) = candidate.get() else { continue };
            let run = run_assess(&snapshot, Arc::clone(&job.facts));
            let cost = run.cost;
            let assessment = combine(run);
            let action = decide_again(&assessment, &job.facts).action();
            let tenant = job.facts.tenant.clone();
            let bundle = snapshot.id.to_string();
            metrics::histogram!("countersign_policy_shadow_seconds").record(cost.micros as f64 / 1e6);
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            let counts = tally.counts.entry((tenant.clone(), bundle.clone())).or_default();
            counts.evaluated += 1;
            counts.micros += cost.micros;
            counts.faults += u64::from(assessment.fault.is_some());
            if action != job.action {
                counts.differed += 1;
                if tally.differences.len() < DIFFERENCES {
                    let (sign_in, decided, candidate) = (job.id, job.action, action);
                    tally.differences.push(ShadowDifference { tenant, bundle, sign_in, decided, candidate });
                }
            }
        }
    }
}
