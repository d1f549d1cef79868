//! A node follows what is activated: it asks the store every two seconds, verifies and tries what is
//! new, swaps it in, and says how far it has come. What cannot be used leaves the old bundle in force.
//!
//! It also writes what shadows counted, and takes back a fresh activation whose scripts keep failing.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::active::{Active, InForce, Slot};
use super::shadow::Shadows;
use super::{PolicyHost, case_facts, run_assess};
use crate::admin::audit::{Actor, Author};
use crate::clock::{Clock, UnixTime};
use crate::ids::{EventId, TenantId};
use crate::policy::bundle::Bundle;
use crate::policy::ports::{NewActivation, PolicyStore};
use crate::policy::{Activation, NodeState, Scope, before};
use crate::secret::Entropy;
use crate::signin::ports::StoreError;

/// How often the store is asked.
const EVERY: Duration = Duration::from_secs(2);
/// How often this node says that it lives.
const ALIVE: Duration = Duration::from_secs(15);
/// How long after an activation failures take it back.
const FRESH: Duration = Duration::from_secs(600);

/// Follows the store's activations.
pub struct Follower {
    /// The policies of this node.
    pub host: Arc<PolicyHost>,
    /// The rows.
    pub store: Arc<dyn PolicyStore>,
    /// Candidates.
    pub shadows: Arc<Shadows>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Identifiers.
    pub entropy: Arc<dyn Entropy>,
    /// This process: random.
    pub node: String,
    /// Where verified bundles are kept for a start when the store has lost one.
    pub cache: PathBuf,
}

/// What a round found out, for the next one.
#[derive(Default)]
pub struct Progress {
    seq: i64,
    error: Option<String>,
    told: Option<(i64, Option<String>, UnixTime)>,
    faults: HashMap<i64, VecDeque<(UnixTime, u64)>>,
}

impl Follower {
    /// Follows until the task is dropped.
    pub async fn run(self, mut progress: Progress) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.round(&mut progress).await;
        }
    }

    /// One look at the store.
    pub async fn round(&self, progress: &mut Progress) {
        let done = async {
            self.follow(progress).await?;
            self.follow_shadows().await?;
            self.flush().await?;
            self.break_failing(progress).await?;
            self.acknowledge(progress).await
        };
        if let Err(error) = done.await {
            tracing::warn!(error = %error.0, "the store could not be asked for policies; those in force stay");
        }
    }

    async fn follow(&self, progress: &mut Progress) -> Result<(), StoreError> {
        let in_force = self.store.in_force().await?;
        let seq = in_force.iter().map(|a| a.seq).max().unwrap_or(0);
        if seq == progress.seq && progress.error.is_none() {
            return Ok(());
        }
        let held = self.host.active.load_full();
        let first = progress.seq == 0;
        let mut next = Active::default();
        let mut error = None;
        for activation in in_force {
            let old = match &activation.scope {
                Scope::All => held.all.clone(),
                Scope::Tenant(tenant) => held.tenants.get(tenant).cloned(),
            };
            let taken = match old {
                Some(old) if old.seq == activation.seq => Some(old),
                old => match self.take(&activation, first).await {
                    Ok(taken) => taken,
                    Err(why) => {
                        tracing::error!(
                            policy.id = activation.bundle, scope = %activation.scope, error = why,
                            "an activated bundle cannot be used here; the one before stays in force"
                        );
                        error = Some(why);
                        old
                    }
                },
            };
            match (activation.scope, taken) {
                (_, None) => {}
                (Scope::All, taken) => next.all = taken,
                (Scope::Tenant(tenant), Some(taken)) => {
                    next.tenants.insert(tenant, taken);
                }
            }
        }
        next.shrink();
        self.host.active.store(Arc::new(next));
        metrics::gauge!("countersign_policy_reload_failed").set(if error.is_some() { 1.0 } else { 0.0 });
        if seq != progress.seq {
            tracing::info!(policy.seq = seq, "activations followed");
        }
        (progress.seq, progress.error) = (seq, error);
        Ok(())
    }

    /// Fetches, verifies and tries. At the start only the first bundle for all is compiled: with
    /// thousands of tenants each is compiled when it is first used.
    async fn take(&self, activation: &Activation, lazily: bool) -> Result<Option<Arc<InForce>>, String> {
        let Some(id) = &activation.bundle else { return Ok(None) };
        let slot = Slot::new(Arc::new(self.fetch(id).await?));
        if !lazily || activation.scope == Scope::All {
            let (tried, scope) = (Arc::clone(&slot), activation.scope.clone());
            let ran = tokio::task::spawn_blocking(move || try_out(&tried, &scope)).await;
            ran.unwrap_or_else(|e| Err(e.to_string()))?;
        }
        Ok(Some(Arc::new(InForce { slot, seq: activation.seq, since: activation.at, faults: 0.into() })))
    }

    async fn fetch(&self, id: &str) -> Result<Bundle, String> {
        let why = match self.store.find_bundle(id).await {
            Ok(Some((bundle, _))) => {
                if let Err(error) = keep(&self.cache, &bundle) {
                    tracing::warn!(error = %error, "a bundle could not be kept on disk");
                }
                return Ok(bundle);
            }
            Ok(None) => format!("{id} is not in the store"),
            Err(error) => error.0.to_string(),
        };
        kept(&self.cache, id).inspect(|_| tracing::warn!(policy.id = id, error = why, "taken from disk")).ok_or(why)
    }

    async fn follow_shadows(&self) -> Result<(), StoreError> {
        let wanted = self.store.shadows(None).await?;
        let held = self.shadows.candidates();
        let find = |tenant: &TenantId, id: &str| {
            held.get(tenant).into_iter().flatten().find(|slot| slot.bundle.id() == id).cloned()
        };
        let same = wanted.len() == held.values().map(Vec::len).sum::<usize>()
            && wanted.iter().all(|s| find(&s.tenant, &s.bundle).is_some());
        if same {
            return Ok(());
        }
        let mut next: HashMap<TenantId, Vec<Arc<Slot>>> = HashMap::new();
        for shadow in wanted {
            let slot = match find(&shadow.tenant, &shadow.bundle) {
                Some(slot) => slot,
                None => match self.fetch(&shadow.bundle).await {
                    Ok(bundle) => Slot::new(Arc::new(bundle)),
                    Err(why) => {
                        tracing::warn!(policy.id = shadow.bundle, error = why, "a candidate cannot be had");
                        continue;
                    }
                },
            };
            next.entry(shadow.tenant).or_default().push(slot);
        }
        self.shadows.set(next);
        Ok(())
    }

    async fn flush(&self) -> Result<(), StoreError> {
        let (counts, differences) = self.shadows.take();
        if counts.is_empty() {
            return Ok(());
        }
        self.store.add_shadow(counts, differences).await
    }

    /// An activation of the last ten minutes whose scripts fail again and again is taken back.
    async fn break_failing(&self, progress: &mut Progress) -> Result<(), StoreError> {
        let now = self.clock.now();
        let active = self.host.active.load_full();
        let own = active.tenants.iter().map(|(tenant, a)| (Scope::Tenant(tenant.clone()), a));
        let fresh: Vec<_> = own
            .chain(active.all.iter().map(|a| (Scope::All, a)))
            .filter(|(_, a)| now.since(a.since) <= FRESH)
            .collect();
        progress.faults.retain(|seq, _| fresh.iter().any(|(_, a)| a.seq == *seq));
        for (scope, a) in fresh {
            let Ok(snapshot) = a.slot.get() else { continue };
            let breaker = snapshot.settings.breaker;
            let seen = progress.faults.entry(a.seq).or_default();
            seen.push_back((now, a.faults.load(Relaxed)));
            while seen.front().is_some_and(|(at, _)| now.since(*at) > breaker.window) {
                seen.pop_front();
            }
            let (first, last) = (seen.front().map_or(0, |f| f.1), seen.back().map_or(0, |l| l.1));
            // Before the window there was nothing: what an activation began with is 0.
            let first = if now.since(a.since) <= breaker.window { 0 } else { first };
            if last - first < breaker.errors {
                continue;
            }
            let in_force = self.store.in_force().await?;
            if !in_force.iter().any(|c| c.scope == scope && c.seq == a.seq) {
                continue;
            }
            let Some(bundle) = before(&self.store.activations(Some(&scope), 1000).await?) else { continue };
            tracing::error!(policy.id = %snapshot.id, scope = %scope, errors = last - first, "taken back: its scripts fail");
            metrics::counter!("countersign_policy_breaker_total").increment(1);
            self.store
                .activate(NewActivation {
                    author: Author {
                        event: EventId::generate(now, &*self.entropy),
                        at: now,
                        actor: Actor::System,
                        tenant: scope.tenant().cloned(),
                        request: None,
                    },
                    scope,
                    bundle,
                    goes_back: true,
                    note: format!("{} errors of its scripts within {} s", last - first, breaker.window.as_secs()),
                })
                .await?;
        }
        Ok(())
    }

    async fn acknowledge(&self, progress: &mut Progress) -> Result<(), StoreError> {
        let now = self.clock.now();
        let (seq, error) = (progress.seq, progress.error.clone());
        if let Some((told_seq, told_error, at)) = &progress.told
            && (*told_seq, told_error) == (seq, &error)
            && now.since(*at) < ALIVE
        {
            return Ok(());
        }
        progress.told = Some((seq, error.clone(), now));
        self.store.acknowledge(NodeState { node: self.node.clone(), seq, error, seen_at: now }).await
    }
}

/// Compiles, and runs every tenant's entry once.
fn try_out(slot: &Slot, scope: &Scope) -> Result<(), String> {
    let snapshot = slot.get().map_err(|error| error.to_string())?;
    let tenant = match scope {
        Scope::Tenant(tenant) => tenant.clone(),
        Scope::All => TenantId::parse(TenantId::DEFAULT).map_err(|e| e.to_string())?,
    };
    let run = run_assess(&snapshot, Arc::new(case_facts::ordinary(&tenant)));
    run.fault.map_or(Ok(()), |fault| Err(fault.to_string()))
}

fn keep(dir: &Path, bundle: &Bundle) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let path = dir.join(format!("{}.json", bundle.id()));
    if path.exists() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer(&mut file, bundle.files())?;
    file.persist(path)?;
    Ok(())
}

/// A kept bundle, when its content is what its name says.
fn kept(dir: &Path, id: &str) -> Option<Bundle> {
    let plain = id.starts_with("pol_") && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let text = plain.then(|| std::fs::read_to_string(dir.join(format!("{id}.json"))).ok())??;
    let bundle = Bundle::new(serde_json::from_str(&text).ok()?).ok()?;
    (bundle.id() == id).then_some(bundle)
}
