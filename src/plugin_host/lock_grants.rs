//! `grants` of a lock entry: what a plugin gets to see, and what it gets to use.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::Deserialize;
use toml::Spanned;

use super::error::PluginLoadError;
use super::lock::Place;
use super::services::{FetchGrants, ServiceGrants};
use super::view::{ClaimGrant, EventKind, FactGrant, Grants};

const KV_LIMIT_KIB: u64 = 16 << 10;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawGrants {
    pub(super) facts: Vec<Spanned<String>>,
    pub(super) claims: Option<Vec<String>>,
    pub(super) events: Option<Spanned<Vec<Spanned<String>>>>,
    http: Vec<Spanned<String>>,
    networks: Vec<Spanned<String>>,
    secrets: Vec<Spanned<String>>,
    kv_kib: Option<Spanned<u64>>,
}

impl RawGrants {
    /// What it gets to see.
    pub(super) fn view(&self, at: &Place<'_>) -> Result<Grants, PluginLoadError> {
        let mut facts = BTreeSet::new();
        for name in &self.facts {
            let Some(fact) = FactGrant::find(name.get_ref()) else {
                let known: Vec<&str> = FactGrant::ALL.iter().map(|f| f.name()).collect();
                let what = format!("\"{}\" is no fact to grant; there are {}", name.get_ref(), known.join(", "));
                return Err(at.error(name.span(), what));
            };
            facts.insert(fact);
        }
        let names = self.claims.clone().unwrap_or_default();
        let claims = if names.iter().any(|n| n == "*") {
            ClaimGrant::All
        } else {
            ClaimGrant::Named(names.into_iter().collect())
        };
        Ok(Grants { facts, claims, events: self.events(at)? })
    }

    /// What it gets to hear of; how sign-ins ended, when the lock does not say.
    fn events(&self, at: &Place<'_>) -> Result<BTreeSet<EventKind>, PluginLoadError> {
        let Some(names) = &self.events else { return Ok([EventKind::SignIn].into()) };
        let known = || EventKind::ALL.map(EventKind::name).join(", ");
        if names.get_ref().is_empty() {
            let what = format!("events is empty: name what event.observe is told of, of {}", known());
            return Err(at.error(names.span(), what));
        }
        let find = |name: &Spanned<String>| {
            let what = || format!("\"{}\" is no event; there are {}", name.get_ref(), known());
            EventKind::find(name.get_ref()).ok_or_else(|| at.error(name.span(), what()))
        };
        names.get_ref().iter().map(find).collect()
    }

    /// What it gets to use.
    pub(super) fn services(&self, at: &Place<'_>) -> Result<ServiceGrants, PluginLoadError> {
        let mut fetch = FetchGrants::default();
        for host in &self.http {
            if !is_host_name(host.get_ref()) {
                let what = format!(
                    "http grants \"{}\", which is no host name in lower case, such as \"api.example.com\"",
                    host.get_ref()
                );
                return Err(at.error(host.span(), what));
            }
            fetch.hosts.push(host.get_ref().clone());
        }
        for network in &self.networks {
            let parsed: Result<IpNet, _> = network.get_ref().parse();
            let what = || format!("\"{}\" is no network, such as \"10.0.0.0/8\"", network.get_ref());
            fetch.networks.push(parsed.map_err(|_| at.error(network.span(), what()))?);
        }
        let mut secrets = BTreeSet::new();
        for name in &self.secrets {
            if !is_secret_name(name.get_ref()) {
                let what = format!("\"{}\" is no name of a secret: 1 to 64 of a-z 0-9 _ -", name.get_ref());
                return Err(at.error(name.span(), what));
            }
            secrets.insert(name.get_ref().clone());
        }
        let kv_kib = match &self.kv_kib {
            Some(kib) => at.number("kv_kib", Spanned::new(kib.span(), *kib.get_ref()), 1, KV_LIMIT_KIB)?,
            None => 0,
        };
        Ok(ServiceGrants { fetch, secrets, kv_bytes: kv_kib << 10 })
    }
}

/// A DNS name or an IPv4 address, in lower case, without a port.
fn is_host_name(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

pub(super) fn is_secret_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}
