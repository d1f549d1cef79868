//! What is activated, taken over once, for commands that only look: nothing is kept on disk or acknowledged.

use std::sync::Arc;

use super::active::{Active, InForce, Slot};
use super::{LoadError, PolicyHost};
use crate::policy::Scope;
use crate::policy::ports::PolicyStore;

impl PolicyHost {
    /// Puts the store's activations in force here.
    ///
    /// # Errors
    /// When the store does not answer, or an activated bundle is not there or does not compile.
    pub async fn take_over(&self, store: &dyn PolicyStore) -> Result<(), LoadError> {
        let unusable = |what: &str, why: String| LoadError::new(what, 0, 0, why);
        let mut active = Active::default();
        let in_force = store.in_force().await.map_err(|e| unusable("activations", e.0.to_string()))?;
        for activation in in_force {
            let Some(id) = &activation.bundle else { continue };
            let found = store.find_bundle(id).await.map_err(|e| unusable(id, e.0.to_string()))?;
            let (bundle, _) = found.ok_or_else(|| unusable(id, "is activated and not in the store".to_owned()))?;
            let slot = Slot::new(Arc::new(bundle));
            let taken =
                Some(Arc::new(InForce { slot, seq: activation.seq, since: activation.at, faults: 0.into() }));
            match activation.scope {
                Scope::All => active.all = taken,
                Scope::Tenant(tenant) => active.tenants.extend(taken.map(|taken| (tenant, taken))),
            }
        }
        self.active.store(Arc::new(active));
        Ok(())
    }
}
