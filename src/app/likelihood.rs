//! Keeps what is common in each tenant, for the likelihood signal, in memory: read from the store once a
//! minute for tenants that sign-ins asked for, so that the path has neither a statement nor a write for it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::ids::TenantId;
use crate::signin::likelihood::Commonness;
use crate::signin::ports::{StoreError, TenantCounts};
use crate::store::Store;
use crate::store::commonness::CommonnessMark;

/// How often tenants with new sign-ins are counted anew.
const ROUND: Duration = Duration::from_secs(60);
/// After each tenant, so many times as long as its counting took is left to others.
const REST: u32 = 20;
/// Rounds in which no sign-in asked, until a tenant's counts are let go.
const IDLE_ROUNDS: u32 = 30;
/// Distinct values over all tenants, about 60 MB.
const MOST_COUNTERS: usize = 2_000_000;

struct Entry {
    mark: CommonnessMark,
    counts: Arc<Commonness>,
    asked: AtomicBool,
    idle: u32,
}

/// See the module.
pub struct CountKeeper {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    kept: ArcSwap<HashMap<TenantId, Arc<Entry>>>,
    wanted: Mutex<HashSet<TenantId>>,
    wake: Notify,
}

impl TenantCounts for CountKeeper {
    fn find(&self, tenant: &TenantId) -> Option<Arc<Commonness>> {
        if let Some(entry) = self.kept.load().get(tenant) {
            if !entry.asked.load(Relaxed) {
                entry.asked.store(true, Relaxed);
            }
            return Some(Arc::clone(&entry.counts));
        }
        if self.wanted.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant.clone()) {
            self.wake.notify_one();
        }
        None
    }
}

impl CountKeeper {
    /// Keeps nothing yet.
    #[must_use]
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (kept, wanted) = (ArcSwap::default(), Mutex::default());
        Arc::new(Self { store, clock, kept, wanted, wake: Notify::new() })
    }

    /// Runs until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut tick = tokio::time::interval(ROUND);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let whole = tokio::select! {
                _ = tick.tick() => true,
                () = self.wake.notified() => false,
            };
            let done = if whole { self.round(REST).await } else { self.read_wanted(REST).await };
            if let Err(error) = done {
                tracing::error!(error = %error, "the store does not tell what is common in a tenant; older counts are used");
            }
        }
    }

    /// Counts what changed, at once.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        self.round(0).await
    }

    async fn round(&self, rest: u32) -> Result<(), StoreError> {
        self.read_wanted(rest).await?;
        for (tenant, entry) in self.kept.load_full().iter() {
            let idle = if entry.asked.swap(false, Relaxed) { 0 } else { entry.idle + 1 };
            if idle > IDLE_ROUNDS {
                self.change(|kept| _ = kept.remove(tenant));
            } else if idle == 0 && self.store.commonness_mark(tenant).await? != entry.mark {
                self.read(tenant, rest).await?;
            } else if idle > 0 {
                let (mark, counts) = (entry.mark.clone(), Arc::clone(&entry.counts));
                self.keep(tenant, Entry { mark, counts, asked: AtomicBool::new(false), idle });
            }
        }
        Ok(())
    }

    async fn read_wanted(&self, rest: u32) -> Result<(), StoreError> {
        let wanted = std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        for tenant in wanted {
            self.read(&tenant, rest).await?;
        }
        Ok(())
    }

    async fn read(&self, tenant: &TenantId, rest: u32) -> Result<(), StoreError> {
        let started = tokio::time::Instant::now();
        let mark = self.store.commonness_mark(tenant).await?;
        let mut counts = self.store.commonness(tenant, self.clock.now()).await?;
        let kept = self.kept.load_full();
        let others: usize = kept.iter().filter(|(t, _)| *t != tenant).map(|(_, e)| e.counts.counters()).sum();
        if others + counts.counters() > MOST_COUNTERS {
            tracing::warn!(tenant.id = %tenant, "no room for what is common in this tenant: it goes without the likelihood signal");
            counts = Commonness::default();
        }
        self.keep(tenant, Entry { mark, counts: Arc::new(counts), asked: AtomicBool::new(false), idle: 0 });
        tokio::time::sleep(started.elapsed() * rest).await;
        Ok(())
    }

    fn keep(&self, tenant: &TenantId, entry: Entry) {
        self.change(|kept| _ = kept.insert(tenant.clone(), Arc::new(entry)));
    }

    /// One task changes the map, so that nothing is lost between reading and storing it.
    fn change(&self, change: impl FnOnce(&mut HashMap<TenantId, Arc<Entry>>)) {
        let mut kept = HashMap::clone(&self.kept.load());
        change(&mut kept);
        self.kept.store(Arc::new(kept));
    }
}
