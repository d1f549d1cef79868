//! What plugins may ask of the host, from the edges that have it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_plugin_sdk::{HttpRequest, HttpResponse};
use ipnet::IpNet;
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::config::Settings;
use crate::oidc::{FetchError, FetchSettings, Fetcher, OutboundRequest};
use crate::plugin_host::{
    self, FetchFault, FetchGrants, KvUnavailable, PluginHost, PluginHttp, PluginKv, Services, WatchGuard,
};
use crate::secret::Entropy;
use crate::store::Store;

/// Must be called within the runtime: plugins' threads wait on it.
pub(super) fn services(
    settings: &Settings,
    store: &Arc<Store>,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> Services {
    let runtime = Handle::current();
    Services {
        http: Some(Arc::new(GuardedHttp {
            runtime: runtime.clone(),
            allow_insecure: settings.server.allow_insecure_issuers,
            fetchers: Mutex::default(),
        })),
        kv: Some(Arc::new(StoreKv { runtime, store: Arc::clone(store), clock: Arc::clone(clock) })),
        secrets_dir: settings.plugins_secrets_dir.clone(),
        clock: Arc::clone(clock),
        entropy: Arc::clone(entropy),
        ..Services::default()
    }
}

/// Watches the lock file for the life of the server.
pub(super) fn watch(plugins: &Arc<PluginHost>) -> Option<WatchGuard> {
    let watched = plugin_host::watch(plugins);
    watched.inspect_err(|error| tracing::warn!(error = %error, "plugins.lock is not watched; send SIGHUP")).ok()
}

/// Requests through the client that fetches keys; one for each set of granted networks.
struct GuardedHttp {
    runtime: Handle,
    allow_insecure: bool,
    fetchers: Mutex<HashMap<Vec<IpNet>, Fetcher>>,
}

impl GuardedHttp {
    fn fetcher(&self, networks: &[IpNet]) -> Option<Fetcher> {
        let mut fetchers = self.fetchers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fetcher) = fetchers.get(networks) {
            return Some(fetcher.clone());
        }
        let settings = FetchSettings {
            allow_insecure_issuers: self.allow_insecure,
            granted_networks: networks.to_vec(),
            ..FetchSettings::default()
        };
        let fetcher =
            Fetcher::new(settings).inspect_err(|e| tracing::error!(error = %e, "plugins cannot fetch")).ok()?;
        fetchers.insert(networks.to_vec(), fetcher.clone());
        Some(fetcher)
    }
}

impl PluginHttp for GuardedHttp {
    fn fetch(
        &self,
        grants: &FetchGrants,
        request: HttpRequest,
        limit: Duration,
    ) -> Result<HttpResponse, FetchFault> {
        let fetcher = self.fetcher(&grants.networks).ok_or(FetchFault::Unavailable)?;
        let HttpRequest { method, url, headers, body } = request;
        let request = OutboundRequest { method, url, headers, body };
        let may_visit = |host: &str| grants.hosts.iter().any(|granted| granted == host);
        match self.runtime.block_on(fetcher.send(request, &may_visit, limit)) {
            Ok(answer) => Ok(HttpResponse { status: answer.status, headers: answer.headers, body: answer.body }),
            Err(error) => {
                tracing::debug!(error = &error as &(dyn std::error::Error + 'static), "a plugin's request failed");
                Err(match error {
                    FetchError::Request(_) | FetchError::Url(_) => FetchFault::Invalid,
                    FetchError::NotGranted
                    | FetchError::Insecure
                    | FetchError::Address(_)
                    | FetchError::Redirect(_) => FetchFault::NotGranted,
                    FetchError::Timeout { .. } => FetchFault::Timeout,
                    _ => FetchFault::Unavailable,
                })
            }
        }
    }
}

/// Small values, in the store of the server.
struct StoreKv {
    runtime: Handle,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
}

impl PluginKv for StoreKv {
    fn get(&self, plugin: &str, key: &[u8], limit: Duration) -> Result<Option<Vec<u8>>, KvUnavailable> {
        let asked = self.store.plugin_value(plugin, key, self.clock.now());
        let answer = self.runtime.block_on(async { tokio::time::timeout(limit, asked).await });
        answer.ok().and_then(Result::ok).ok_or(KvUnavailable)
    }

    fn set(
        &self,
        plugin: &str,
        key: &[u8],
        value: Option<(&[u8], Duration)>,
        limit_bytes: u64,
        limit: Duration,
    ) -> Result<bool, KvUnavailable> {
        let now = self.clock.now();
        let value = value.map(|(value, ttl)| (value.to_vec(), now.plus(ttl)));
        let asked = self.store.set_plugin_value(plugin, key, value, limit_bytes, now);
        let answer = self.runtime.block_on(async { tokio::time::timeout(limit, asked).await });
        answer.ok().and_then(Result::ok).ok_or(KvUnavailable)
    }
}
