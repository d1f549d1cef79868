//! A node follows what is activated: it asks the store every two seconds, verifies and tries what is
//! new, says that it is ready, and swaps it in when all nodes are ([`crate::policy::switch`]). What cannot be used
//! leaves the old bundle in force.
//!
//! It also writes what shadows counted, and takes back a fresh activation whose scripts keep failing.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::active::{Active, InForce, Slot};
use super::shadow::Shadows;
use super::{PolicyHost, case_facts, kept, run_assess, run_map};
use crate::admin::audit::{Actor, Author};
use crate::clock::{Clock, UnixTime};
use crate::ids::{EventId, TenantId};
use crate::policy::bundle::Bundle;
use crate::policy::ports::{NewActivation, PolicyStore};
use crate::policy::signature::Signers;
use crate::policy::switch::{Switch, due};
use crate::policy::{Activation, NodeState, Scope, below};
use crate::secret::Entropy;
use crate::signin::identity::MappingInput;
use crate::signin::ports::StoreError;

/// How often the store is asked.
const EVERY: Duration = Duration::from_secs(2);
/// How often while others are waited for: for about so long two nodes may decide by different bundles.
const PENDING: Duration = Duration::from_millis(200);
/// How long something that this node cannot use keeps the rest of what is new from it. Longer than the others wait for
/// this node: when nothing has come into force by then, none of them can use it either.
const STUCK: Duration = Duration::from_secs(20);
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
    /// Whose signatures count, and for whom one is needed.
    pub signers: Arc<Signers>,
}

/// What a round found out, for the next one.
#[derive(Default)]
pub struct Progress {
    started: bool,
    /// What is in force here.
    seq: i64,
    /// Why something of that is not.
    error: Option<String>,
    /// Up to which activation this node could change at once.
    ready: i64,
    /// Why not further.
    unready: Option<String>,
    /// What it is ready for, by the number of the activation.
    prepared: HashMap<i64, Arc<InForce>>,
    /// Since when there is something newer than what is in force.
    waits: Option<(i64, UnixTime)>,
    told: Option<(NodeState, UnixTime)>,
    faults: HashMap<i64, VecDeque<(UnixTime, u64)>>,
}

impl Progress {
    /// Whether something is about to come into force.
    fn is_pending(&self) -> bool {
        self.waits.is_some()
    }
}

impl Follower {
    /// Follows until the task is dropped.
    pub async fn run(self, mut progress: Progress) {
        loop {
            tokio::time::sleep(if progress.is_pending() { PENDING } else { EVERY }).await;
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

    /// Gets ready for what is new, and changes to it when all others are ready as well.
    async fn follow(&self, progress: &mut Progress) -> Result<(), StoreError> {
        let (newest, switched) = self.store.marks().await?;
        self.adopt(switched, progress).await?;
        if newest <= switched {
            (progress.ready, progress.unready, progress.waits) = (switched, None, None);
            progress.prepared.clear();
            return Ok(());
        }
        let now = self.clock.now();
        let since = match progress.waits {
            // A clock that was set back must not make anybody wait for it.
            Some((seq, since)) if seq == switched && since <= now => since,
            _ => now,
        };
        progress.waits = Some((switched, since));
        let waited = now.since(since);
        self.prepare(newest, switched, waited, progress).await?;
        self.acknowledge(progress).await?;
        let nodes = self.store.nodes().await?;
        let Some((seq, laggards)) = due(&self.node, &nodes, switched, waited, now) else { return Ok(()) };
        for late in &laggards {
            tracing::error!(
                node = late.node,
                policy.seq = seq,
                ready = late.ready,
                error = late.error,
                "a server is not ready for new policies, and is not waited for any longer"
            );
        }
        self.store.switch(Switch { seq, at: now, node: self.node.clone(), laggards }).await?;
        let (newest, switched) = self.store.marks().await?;
        self.adopt(switched, progress).await?;
        if newest <= switched {
            progress.waits = None;
        }
        Ok(())
    }

    /// Fetches, verifies and tries what is not in force yet.
    async fn prepare(
        &self,
        newest: i64,
        switched: i64,
        waited: Duration,
        progress: &mut Progress,
    ) -> Result<(), StoreError> {
        let pending = self.store.in_force_at(newest).await?;
        let pending: Vec<_> = pending.into_iter().filter(|activation| activation.seq > switched).collect();
        progress.prepared.retain(|seq, _| pending.iter().any(|activation| activation.seq == *seq));
        let mut unready = None;
        for activation in &pending {
            if progress.prepared.contains_key(&activation.seq) {
                continue;
            }
            match self.take(activation, false).await {
                Ok(Some(taken)) => {
                    progress.prepared.insert(activation.seq, taken);
                }
                Ok(None) => {}
                Err(why) => {
                    let (id, scope) = (&activation.bundle, &activation.scope);
                    if progress.unready.as_ref() != Some(&why) {
                        tracing::error!(policy.id = id, scope = %scope, error = why, "an activated bundle cannot be used here");
                    }
                    unready = Some(why);
                }
            }
        }
        if unready.is_none() || waited >= STUCK {
            progress.ready = newest;
        }
        progress.unready = unready;
        Ok(())
    }

    /// Changes to what is in force in the store. What was prepared is only swapped in.
    async fn adopt(&self, switched: i64, progress: &mut Progress) -> Result<(), StoreError> {
        if progress.started && switched == progress.seq && progress.error.is_none() {
            return Ok(());
        }
        let in_force = self.store.in_force_at(switched).await?;
        let held = self.host.active.load_full();
        let mut next = Active::default();
        let mut error = None;
        for activation in in_force {
            let old = match &activation.scope {
                Scope::All => held.all.clone(),
                Scope::Tenant(tenant) => held.tenants.get(tenant).cloned(),
            };
            let ready = progress.prepared.get(&activation.seq).cloned();
            let taken = match ready.or_else(|| old.clone().filter(|old| old.seq == activation.seq)) {
                Some(ready) => Some(ready),
                None => match self.take(&activation, !progress.started).await {
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
        if switched != progress.seq {
            tracing::info!(policy.seq = switched, "activations followed");
        }
        (progress.started, progress.seq, progress.error) = (true, switched, error);
        progress.ready = progress.ready.max(switched);
        progress.prepared.retain(|seq, _| *seq > switched);
        Ok(())
    }

    /// Fetches, verifies and tries. At the start only the first bundle for all is compiled: with
    /// thousands of tenants each is compiled when it is first used.
    async fn take(&self, activation: &Activation, lazily: bool) -> Result<Option<Arc<InForce>>, String> {
        let Some(id) = &activation.bundle else { return Ok(None) };
        let slot = Slot::new(Arc::new(self.fetch(id, &activation.scope).await?));
        if !lazily || activation.scope == Scope::All {
            let (tried, scope) = (Arc::clone(&slot), activation.scope.clone());
            let ran = tokio::task::spawn_blocking(move || try_out(&tried, &scope)).await;
            ran.unwrap_or_else(|e| Err(e.to_string()))?;
        }
        Ok(Some(Arc::new(InForce { slot, seq: activation.seq, since: activation.at, faults: 0.into() })))
    }

    /// A bundle that a scope may run: from the store, else from this node's disk.
    async fn fetch(&self, id: &str, scope: &Scope) -> Result<Bundle, String> {
        let why = match self.store.find_bundle(id).await {
            Ok(Some((bundle, info))) => {
                self.signers.check(scope, &bundle, info.signature.as_deref()).map_err(|e| format!("{id}: {e}"))?;
                if let Err(error) = kept::keep(&self.cache, &bundle, info.signature.as_deref()) {
                    tracing::warn!(error = %error, "a bundle could not be kept on disk");
                }
                return Ok(bundle);
            }
            Ok(None) => format!("{id} is not in the store"),
            Err(error) => error.0.to_string(),
        };
        let (bundle, signature) = kept::find(&self.cache, id).ok_or_else(|| why.clone())?;
        self.signers.check(scope, &bundle, signature.as_deref()).map_err(|e| format!("{id}: {e}"))?;
        tracing::warn!(policy.id = id, error = why, "taken from disk");
        Ok(bundle)
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
                None => match self.fetch(&shadow.bundle, &Scope::Tenant(shadow.tenant.clone())).await {
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
            let Some((bundle, passed_over)) = self.way_back(&scope).await? else { continue };
            let note = format!("{} errors of its scripts within {} s", last - first, breaker.window.as_secs());
            let note = passed_over.iter().fold(note, |note, id| format!("{note}; passed over {id}"));
            tracing::error!(policy.id = %snapshot.id, scope = %scope, errors = last - first, "taken back: its scripts fail");
            metrics::counter!("countersign_policy_breaker_total").increment(1);
            metrics::counter!("countersign_policy_breaker_passed_over_total").increment(passed_over.len() as u64);
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
                    after: Some(a.seq),
                    note,
                })
                .await?;
        }
        Ok(())
    }

    /// The nearest bundle under the one in force that a node may run for a scope, and those above it that none may: they
    /// lost their signature, or are gone. At the bottom is the folder, which is the operator's own.
    async fn way_back(&self, scope: &Scope) -> Result<Option<(Option<String>, Vec<String>)>, StoreError> {
        let mut passed_over = Vec::new();
        for bundle in below(&self.store.activations(Some(scope), 1000).await?) {
            let Some(id) = &bundle else { return Ok(Some((bundle, passed_over))) };
            match self.fetch(id, scope).await {
                Ok(_) => return Ok(Some((bundle, passed_over))),
                Err(why) => tracing::error!(policy.id = id, scope = %scope, error = why, "not gone back to"),
            }
            passed_over.push(id.clone());
        }
        Ok(None)
    }

    async fn acknowledge(&self, progress: &mut Progress) -> Result<(), StoreError> {
        let seen_at = self.clock.now();
        let error = progress.error.clone().or_else(|| progress.unready.clone());
        let state = NodeState { node: self.node.clone(), seq: progress.seq, ready: progress.ready, error, seen_at };
        if let Some((told, at)) = &progress.told
            && (told.seq, told.ready, &told.error) == (state.seq, state.ready, &state.error)
            && seen_at.since(*at) < ALIVE
        {
            return Ok(());
        }
        self.store.acknowledge(state.clone()).await?;
        progress.told = Some((state, seen_at));
        Ok(())
    }
}

/// Compiles, and runs every entry once on an ordinary sign-in.
fn try_out(slot: &Slot, scope: &Scope) -> Result<(), String> {
    let snapshot = slot.get().map_err(|error| error.to_string())?;
    let tenant = match scope {
        Scope::Tenant(tenant) => tenant.clone(),
        Scope::All => TenantId::parse(TenantId::DEFAULT).map_err(|e| e.to_string())?,
    };
    let facts = case_facts::ordinary(&tenant);
    let input = Arc::new(MappingInput {
        tenant,
        provider: facts.provider.clone(),
        claims: Arc::clone(&facts.claims),
        upstream: facts.upstream.clone(),
        request: facts.request.clone(),
    });
    for name in snapshot.mapping.keys() {
        run_map(&snapshot, std::slice::from_ref(name), Arc::clone(&input)).map_err(|fault| fault.to_string())?;
    }
    let run = run_assess(&snapshot, Arc::new(facts));
    run.fault.map_or(Ok(()), |fault| Err(fault.to_string()))
}
