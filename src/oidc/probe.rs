//! Asking a provider of itself, for an administrator: through the client and cache of the sign-in path.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::cache::KeyCache;
use super::client::Fetcher;
use crate::admin::probe::{ProbeError, ProviderProbe};
use crate::signin::provider::Provider;

/// The client and the cache.
pub struct Probe {
    /// Fetches within fixed limits.
    pub fetcher: Fetcher,
    /// Key sets.
    pub keys: Arc<KeyCache>,
}

#[async_trait]
impl ProviderProbe for Probe {
    async fn discovery(&self, issuer: &str) -> Result<Map<String, Value>, ProbeError> {
        if issuer.contains(['?', '#']) {
            return Err(ProbeError::Unfit("an issuer has neither query nor fragment".to_owned()));
        }
        let url = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
        let fetched = self.fetcher.get_json(&url).await;
        fetched.map(|f| f.object).map_err(|error| ProbeError::Unavailable(error.to_string()))
    }

    async fn count_keys(&self, provider: &Provider) -> Result<usize, ProbeError> {
        let counted = self.keys.prefetch(provider).await;
        counted.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            ProbeError::Unavailable(cause.unwrap_or_else(|| error.to_string()))
        })
    }
}
