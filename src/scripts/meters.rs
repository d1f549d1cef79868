//! What the scripts of each tenant take, for `/metrics`: time and operations of every run of `map`, `assess` and
//! `token`, as distributions, and how many failed.
//!
//! A run finds its counters without a lock and allocates nothing. Tenants can be made by anybody with an admin key
//! for all of them, so only so many have a label of their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use metrics::{Counter, Histogram};

use crate::ids::TenantId;
use crate::signin::rules::RunCost;

/// How many tenants have a label of their own; the rest are counted together under [`OTHERS`].
const OWN_LABELS: usize = 200;
/// No tenant can be called that.
const OTHERS: &str = "(others)";

/// The entries of scripts, as labels.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry {
    Map,
    Assess,
    Token,
}

impl Entry {
    const ALL: [Self; 3] = [Self::Map, Self::Assess, Self::Token];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Assess => "assess",
            Self::Token => "token",
        }
    }
}

/// The counters of all tenants.
#[derive(Default)]
pub(super) struct Meters {
    known: ArcSwap<HashMap<TenantId, Arc<OfTenant>>>,
    others: OnceLock<OfTenant>,
    adding: Mutex<()>,
}

struct OfTenant([OfEntry; 3]);

struct OfEntry {
    seconds: Histogram,
    operations: Histogram,
    failures: Counter,
}

impl Meters {
    /// Counts one run.
    pub fn note(&self, tenant: &TenantId, entry: Entry, cost: RunCost, failed: bool) {
        let known = self.known.load();
        match known.get(tenant) {
            Some(of_tenant) => of_tenant.note(entry, cost, failed),
            None if known.len() < OWN_LABELS => self.add(tenant).note(entry, cost, failed),
            None => self.others.get_or_init(|| OfTenant::new(OTHERS)).note(entry, cost, failed),
        }
    }

    #[cold]
    fn add(&self, tenant: &TenantId) -> Arc<OfTenant> {
        let _one_at_a_time = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known.load_full();
        if let Some(there) = known.get(tenant) {
            return Arc::clone(there);
        }
        let made = Arc::new(OfTenant::new(tenant.as_str()));
        let mut more = HashMap::clone(&known);
        more.insert(tenant.clone(), Arc::clone(&made));
        self.known.store(Arc::new(more));
        made
    }
}

impl OfTenant {
    fn new(tenant: &str) -> Self {
        Self(Entry::ALL.map(|entry| {
            let labels = [("tenant", tenant.to_owned()), ("script", entry.name().to_owned())];
            OfEntry {
                seconds: metrics::histogram!("countersign_script_seconds", &labels),
                operations: metrics::histogram!("countersign_script_operations", &labels),
                failures: metrics::counter!("countersign_script_failures_total", &labels),
            }
        }))
    }

    fn note(&self, entry: Entry, cost: RunCost, failed: bool) {
        let of_entry = &self.0[entry as usize];
        of_entry.seconds.record(cost.micros as f64 / 1e6);
        of_entry.operations.record(cost.operations as f64);
        if failed {
            of_entry.failures.increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_tenants_have_a_label_of_their_own() {
        let meters = Meters::default();
        for n in 0..OWN_LABELS + 50 {
            let tenant = TenantId::parse(&format!("tenant-{n}")).unwrap();
            for entry in Entry::ALL {
                meters.note(&tenant, entry, RunCost::default(), true);
            }
        }
        assert_eq!(meters.known.load().len(), OWN_LABELS);
        assert!(meters.others.get().is_some());
    }
}
