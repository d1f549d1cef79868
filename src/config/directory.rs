//! Tenants and providers of the configuration, as the sign-in path asks for them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ids::TenantId;
use crate::signin::ports::Directory;
use crate::signin::provider::{Provider, Tenant};

/// A directory that never changes.
#[derive(Debug, Default)]
pub struct StaticDirectory {
    by_id: HashMap<String, Arc<Tenant>>,
    by_host: HashMap<String, Arc<Tenant>>,
    providers: HashMap<TenantId, Vec<Arc<Provider>>>,
}

impl StaticDirectory {
    /// Of these tenants and enabled providers.
    #[must_use]
    pub fn new(tenants: &[Arc<Tenant>], providers: &[Arc<Provider>]) -> Self {
        let mut directory = Self::default();
        for tenant in tenants {
            directory.by_id.insert(tenant.id.as_str().to_owned(), Arc::clone(tenant));
            for host in &tenant.hosts {
                directory.by_host.insert(host.to_ascii_lowercase(), Arc::clone(tenant));
            }
        }
        for provider in providers {
            directory.providers.entry(provider.tenant.clone()).or_default().push(Arc::clone(provider));
        }
        directory
    }
}

impl Directory for StaticDirectory {
    /// A header decides alone: when it names no tenant, neither host nor default is tried.
    fn find_tenant(&self, header: Option<&str>, host: Option<&str>) -> Option<Arc<Tenant>> {
        if let Some(header) = header {
            return self.by_id.get(header).cloned();
        }
        let by_host = host.and_then(|h| {
            let plain = h.trim_start_matches('[').trim_end_matches(']');
            self.by_host.get(&plain.strip_suffix('.').unwrap_or(plain).to_ascii_lowercase())
        });
        by_host.or_else(|| self.by_id.get(TenantId::DEFAULT)).cloned()
    }

    fn providers(&self, tenant: &TenantId) -> Vec<Arc<Provider>> {
        self.providers.get(tenant).cloned().unwrap_or_default()
    }
}
