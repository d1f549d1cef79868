//! Tenants and providers of the file, as the core finds them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ids::TenantId;
use crate::signin::ports::Directory;
use crate::signin::provider::{Provider, Tenant};

/// Fixed for the life of the process.
pub struct StaticDirectory {
    by_id: HashMap<TenantId, Arc<Tenant>>,
    by_host: HashMap<String, Arc<Tenant>>,
    providers: HashMap<TenantId, Vec<Arc<Provider>>>,
}

impl StaticDirectory {
    /// Of these.
    #[must_use]
    pub fn new(tenants: Vec<Arc<Tenant>>, providers: Vec<Arc<Provider>>) -> Self {
        let mut by_tenant: HashMap<TenantId, Vec<Arc<Provider>>> = HashMap::new();
        for provider in providers {
            by_tenant.entry(provider.tenant.clone()).or_default().push(provider);
        }
        let hosts = tenants.iter().flat_map(|t| t.hosts.iter().map(move |h| (h.clone(), Arc::clone(t))));
        Self {
            by_host: hosts.collect(),
            by_id: tenants.iter().map(|t| (t.id.clone(), Arc::clone(t))).collect(),
            providers: by_tenant,
        }
    }
}

impl Directory for StaticDirectory {
    fn find_tenant(&self, header: Option<&str>, host: Option<&str>) -> Option<Arc<Tenant>> {
        if let Some(name) = header {
            return self.by_id.get(&TenantId::parse(name).ok()?).cloned();
        }
        if let Some(tenant) = host.and_then(|host| self.by_host.get(host)) {
            return Some(Arc::clone(tenant));
        }
        self.by_id.get(&TenantId::parse(TenantId::DEFAULT).ok()?).cloned()
    }

    fn providers(&self, tenant: &TenantId) -> Vec<Arc<Provider>> {
        self.providers.get(tenant).cloned().unwrap_or_default()
    }
}
