//! `[[clients]]`: the applications that may use the OAuth endpoints.

use std::sync::Arc;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde_json::{Map, Value, json};

use super::layers::{Layers, Table};
use super::problem::Findings;
use super::values;
use crate::session::clients::{Client, ClientGrant, ClientKind};
use crate::signin::provider::Tenant;

/// The settings of a client in the words of its table, without its secrets.
pub(super) fn written(client: &Client) -> Map<String, Value> {
    let grants: Vec<_> = client.grants.iter().map(|grant| grant.as_str()).collect();
    let Client { kind, providers, audiences, .. } = client;
    let members = [
        ("kind", json!(kind.as_str())),
        ("providers", json!(providers)),
        ("audiences", json!(audiences)),
        ("grants", json!(grants)),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// All clients. Their providers may be those of the administration API, so they are not looked up here.
pub(super) fn read_all(layers: &Layers, tenants: &[Arc<Tenant>], findings: &mut Findings) -> Vec<Arc<Client>> {
    let mut clients: Vec<Arc<Client>> = Vec::new();
    for table in layers.tables("clients") {
        let Some(client) = read(&table, tenants, findings) else { continue };
        if clients.iter().any(|c| c.tenant == client.tenant && c.id == client.id) {
            let (id, tenant) = (&client.id, &client.tenant);
            findings.add(&table.at, format!("client \"{id}\" of tenant \"{tenant}\" is there already"));
        }
        clients.push(Arc::new(client));
    }
    clients
}

pub(super) fn read(table: &Table<'_>, tenants: &[Arc<Tenant>], findings: &mut Findings) -> Option<Client> {
    let tenant = table.text("tenant")?;
    let known = tenants.iter().find(|t| t.id.as_str() == tenant.value).map(|t| t.id.clone());
    let unknown = || format!("client of an unknown tenant \"{}\"", tenant.value);
    let tenant = findings.take(&tenant.at, known.ok_or_else(unknown));
    let Some(id) = table.text("id") else {
        findings.add(&table.at, "id is missing in [[clients]]; write one such as id = \"shop-web\"");
        return None;
    };
    let id = findings.take(&id.at, values::name("id", &id.value));
    let kind = table.text("kind")?;
    let kind = findings.take(
        &kind.at,
        values::choice("kind", &kind.value, &ClientKind::ALL.map(|kind| (kind.as_str(), kind)), &[]),
    )?;
    let secret_hashes = secret_hashes(table, kind, findings);
    let grants = table.list("grants");
    let mut allowed = Vec::with_capacity(grants.value.len());
    for word in &grants.value {
        allowed.push(findings.take(
            &grants.at,
            values::choice("grants", word, &ClientGrant::ALL.map(|grant| (grant.as_str(), grant)), &[]),
        )?);
    }
    let tenant = tenant?;
    let names = table.list("providers");
    for name in &names.value {
        findings.take(&names.at, values::name("providers", name));
    }
    if names.value.is_empty() && allowed.contains(&ClientGrant::TokenExchange) {
        let message = "providers is empty: the client could exchange no token; name its providers, or take \"token-exchange\" out of grants";
        findings.add(&names.at, message);
    }
    let audiences = table.list("audiences");
    if let Some(odd) = audiences.value.iter().find(|a| a.is_empty() || a.trim() != a.as_str() || a.len() > 512) {
        findings.add(&audiences.at, format!("audiences holds \"{odd}\", which is empty, padded or too long"));
    }
    Some(Client {
        tenant,
        id: id?.into(),
        generation: 0,
        kind,
        secret_hashes: secret_hashes?,
        grants: allowed,
        providers: names.value.iter().map(|n| n.as_str().into()).collect(),
        audiences: audiences.value.iter().map(|a| a.as_str().into()).collect(),
    })
}

/// Never shows what was written: it may be the secret itself.
fn secret_hashes(table: &Table<'_>, kind: ClientKind, findings: &mut Findings) -> Option<Vec<[u8; 32]>> {
    let written = table.list("secret_hash");
    let decoded: Option<Vec<[u8; 32]>> =
        written.value.iter().map(|hex| HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?.try_into().ok()).collect();
    let Some(hashes) = decoded else {
        findings.add(
            &written.at,
            "secret_hash is not SHA-256 in hex, 64 characters; the example file shows how to make it",
        );
        return None;
    };
    match (kind.is_confidential(), hashes.is_empty()) {
        (true, true) => {
            findings.add(&written.at, "secret_hash is missing: a client of kind web or machine has a secret");
            None
        }
        (false, false) => {
            findings.add(
                &written.at,
                "secret_hash does nothing for kind spa or native: such a client cannot keep a secret; take it out",
            );
            None
        }
        _ => Some(hashes),
    }
}
