//! What is active for whom. Bundles are compiled when they are first used; beyond a number of compiled
//! ones the least recently used goes, and is compiled again when its tenant comes back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;

use super::LoadError;
use super::load::Snapshot;
use crate::clock::UnixTime;
use crate::ids::TenantId;
use crate::policy::bundle::Bundle;

/// The most compiled bundles.
const COMPILED: u64 = 1000;

static USES: AtomicU64 = AtomicU64::new(0);

/// A bundle, compiled when it is needed.
pub(super) struct Slot {
    pub bundle: Arc<Bundle>,
    compiled: ArcSwapOption<Snapshot>,
    used: AtomicU64,
}

impl Slot {
    pub fn new(bundle: Arc<Bundle>) -> Arc<Self> {
        Arc::new(Self { bundle, compiled: ArcSwapOption::empty(), used: AtomicU64::new(0) })
    }

    /// The compiled bundle.
    pub fn get(&self) -> Result<Arc<Snapshot>, LoadError> {
        if let Some(snapshot) = self.compiled.load_full() {
            self.used.store(USES.fetch_add(1, Relaxed), Relaxed);
            return Ok(snapshot);
        }
        let snapshot = Arc::new(Snapshot::build(&self.bundle)?);
        self.compiled.store(Some(Arc::clone(&snapshot)));
        self.used.store(USES.fetch_add(1, Relaxed), Relaxed);
        Ok(snapshot)
    }

    fn is_compiled(&self) -> bool {
        self.compiled.load().is_some()
    }
}

/// A bundle that is active for a tenant or for all.
pub(super) struct InForce {
    pub slot: Arc<Slot>,
    /// The activation.
    pub seq: i64,
    pub since: UnixTime,
    /// Runs that ended in a fault.
    pub faults: AtomicU64,
}

/// All activations that this node follows.
#[derive(Default)]
pub(super) struct Active {
    pub all: Option<Arc<InForce>>,
    pub tenants: HashMap<TenantId, Arc<InForce>>,
}

impl Active {
    pub fn in_force(&self, tenant: &TenantId) -> Option<&Arc<InForce>> {
        self.tenants.get(tenant).or(self.all.as_ref())
    }

    pub fn of(&self, tenant: &TenantId) -> Option<&Arc<Slot>> {
        self.in_force(tenant).map(|active| &active.slot)
    }

    pub fn note_fault(&self, tenant: &TenantId) {
        if let Some(active) = self.in_force(tenant) {
            active.faults.fetch_add(1, Relaxed);
        }
    }

    /// Lets go of compiled bundles beyond the limit, least recently used first.
    pub fn shrink(&self) {
        let mut compiled: Vec<&Arc<Slot>> =
            self.tenants.values().map(|active| &active.slot).filter(|slot| slot.is_compiled()).collect();
        let beyond = compiled.len().saturating_sub(usize::try_from(COMPILED).unwrap_or(usize::MAX));
        if beyond == 0 {
            return;
        }
        compiled.sort_unstable_by_key(|slot| slot.used.load(Relaxed));
        compiled.iter().take(beyond).for_each(|slot| slot.compiled.store(None));
    }
}
