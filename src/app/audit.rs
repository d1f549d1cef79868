//! The audit of a provider within a running server: a path of its own around a made-up world, with the policies
//! that are in force. The server's own path, its counters and its store are not touched.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::{StartError, offline};
use crate::admin::probe::ProviderAudit;
use crate::config::Settings;
use crate::scripts::PolicyHost;
use crate::signin::audit::{Case, audit};
use crate::signin::ports::{GeoLookup, StoreError};
use crate::signin::provider::Provider;
use crate::store::Store;

/// Runs one audit at a time: each compiles the policies and makes keys.
pub(super) struct Auditor {
    parts: Arc<Parts>,
    one: Semaphore,
}

/// What an audit is made of.
pub(super) struct Parts {
    pub settings: Settings,
    pub store: Arc<Store>,
    pub geo: Arc<dyn GeoLookup>,
    /// Whether activated policies are in force, and not the folder alone.
    pub activated: bool,
}

impl Auditor {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), one: Semaphore::new(1) }
    }
}

#[async_trait]
impl ProviderAudit for Auditor {
    async fn audit(&self, provider: Arc<Provider>) -> Result<Vec<Case>, StoreError> {
        let _one_at_a_time = self.one.acquire().await.map_err(|e| StoreError(Box::new(e)))?;
        let parts = Arc::clone(&self.parts);
        // Work for a processor, which keeps no other request waiting.
        let worked = tokio::task::spawn_blocking(move || Handle::current().block_on(parts.run(&provider))).await;
        worked.map_err(|e| StoreError(Box::new(e)))?.map_err(|e| StoreError(Box::new(e)))
    }
}

impl Parts {
    async fn run(&self, provider: &Arc<Provider>) -> Result<Vec<Case>, StartError> {
        let policies = PolicyHost::load(&self.settings.policies_dir)?.uncounted();
        if self.activated {
            policies.take_over(&*self.store).await?;
        }
        let pipeline = offline::staged(&self.settings, provider, policies, Arc::clone(&self.geo)).await?;
        Ok(audit(pipeline, provider).await)
    }
}
