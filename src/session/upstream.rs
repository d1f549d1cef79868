//! Carries out what a provider told of an account, and passes it on to those that listen.
//!
//! Sessions end first, durably; then listeners hear of it. When one of them has not taken it, the whole is refused,
//! so that the provider sends it once more (RFC 8935 section 2.4): it ends nothing twice, and what a listener heard
//! twice is the same event with the same identifier.

use std::sync::Arc;

use super::ports::{CarriedOut, Sessions};
use crate::admin::audit::{Actor, Author};
use crate::clock::Clock;
use crate::ids::{EventId, RequestId};
use crate::secret::Entropy;
use crate::signin::ports::{Directory, Observer, StoreError};
use crate::signin::security_events::ToldEvents;

/// Why an event must come again.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The store did not answer; nothing was done.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody who listens is out of reach; the sessions have ended.
    #[error("a plugin that has to hear of the event is out of reach; send it again")]
    NotHeard,
}

/// What providers tell of accounts, at work.
pub struct UpstreamEvents {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Which providers are enabled.
    pub directory: Arc<dyn Directory>,
    /// The store.
    pub sessions: Arc<dyn Sessions>,
    /// Who listens.
    pub observer: Arc<dyn Observer>,
}

impl UpstreamEvents {
    /// Takes what a verified token told.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn take(&self, told: ToldEvents, request: RequestId) -> Result<CarriedOut, UpstreamError> {
        let now = self.clock.now();
        let author = Author {
            event: EventId::generate(now, &*self.entropy),
            at: now,
            actor: Actor::System,
            tenant: Some(told.tenant.clone()),
            request: Some(request),
        };
        let enabled = self.directory.providers(&told.tenant).iter().map(|p| Arc::clone(&p.name)).collect();
        let carried = self.sessions.carry_out(told.clone(), enabled, author).await?;
        let (tenant, provider, sessions) = (&told.tenant, &told.provider, carried.sessions);
        tracing::info!(tenant.id = %tenant, provider.name = %provider, sessions, "security event");
        if self.observer.hear(&told).await { Ok(carried) } else { Err(UpstreamError::NotHeard) }
    }
}
