//! Asking a provider of itself, for an administrator.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::audit::Change;
use crate::codes::ErrorCode;
use crate::signin::audit::{Case, Verdict};
use crate::signin::ports::StoreError;
use crate::signin::provider::{Provider, SignatureAlgorithm};

/// Why nothing came of it. The texts are meant for an administrator.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The issuer or its document is not fit.
    #[error("{0}")]
    Unfit(String),
    /// Out of reach, or beyond the limits of fetches.
    #[error("the provider cannot be asked: {0}")]
    Unavailable(String),
}

impl ProbeError {
    /// The stable word of the contract.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Unfit(_) => ErrorCode::InvalidSettings,
            Self::Unavailable(_) => ErrorCode::ProviderUnavailable,
        }
    }
}

/// Asks providers, within the limits of all outbound fetches.
#[async_trait]
pub trait ProviderProbe: Send + Sync {
    /// The discovery document of an issuer (OpenID Connect Discovery 1.0 section 4). Not checked yet.
    async fn discovery(&self, issuer: &str) -> Result<Map<String, Value>, ProbeError>;
    /// How many usable keys a provider publishes; asks only when none are held.
    async fn count_keys(&self, provider: &Provider) -> Result<usize, ProbeError>;
}

/// Attacks a provider's configuration with forged tokens, and writes nothing.
#[async_trait]
pub trait ProviderAudit: Send + Sync {
    /// Runs all attacks, as [`crate::signin::audit`] tells. The first case is the control.
    ///
    /// # Errors
    /// When the policies in force cannot be had.
    async fn audit(&self, provider: Arc<Provider>) -> Result<Vec<Case>, StoreError>;
}

/// What stays of an audit: counts alone.
#[must_use]
pub fn audited(provider: &str, cases: &[Case]) -> Change {
    let count = |fits: fn(&Verdict) -> bool| cases.iter().skip(1).filter(|case| fits(&case.verdict)).count();
    let after = json!({
        "withstood": count(|v| matches!(v, Verdict::Withstood { .. })),
        "not_applicable": count(|v| matches!(v, Verdict::NotApplicable { .. })),
        "succeeded": count(|v| matches!(v, Verdict::Succeeded { .. })),
        "control_passed": cases.first().is_some_and(|case| matches!(case.verdict, Verdict::Withstood { .. })),
    });
    Change::between("provider.audit", provider, &Value::Null, &after)
}

/// A provider that could be made.
#[derive(Debug)]
pub struct Proposal {
    /// A name.
    pub name: String,
    /// Settings, disabled.
    pub settings: Map<String, Value>,
    /// What is left to do.
    pub notes: Vec<String>,
}

/// Settings for what a discovery document says of its issuer.
///
/// # Errors
/// When the document's `issuer` is not, byte for byte, the one that was asked (section 4.3), or it names
/// no algorithm that can be used here.
pub fn propose(issuer: &str, document: &Map<String, Value>) -> Result<Proposal, ProbeError> {
    let seen = document.get("issuer").and_then(Value::as_str);
    if seen != Some(issuer) {
        let seen: String = seen.unwrap_or("nobody").chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(ProbeError::Unfit(format!(
            "the document at this issuer says that its issuer is {seen}; write the issuer exactly so"
        )));
    }
    if document.get("jwks_uri").and_then(Value::as_str).is_none() {
        return Err(ProbeError::Unfit("the document names no jwks_uri".to_owned()));
    }
    let named = document.get("id_token_signing_alg_values_supported").and_then(Value::as_array);
    let named: Vec<&str> = named.into_iter().flatten().filter_map(Value::as_str).collect();
    let mut algorithms: Vec<&str> = Vec::new();
    for found in named.iter().filter_map(|name| SignatureAlgorithm::find(name)) {
        if !algorithms.contains(&found.name()) {
            algorithms.push(found.name());
        }
    }
    if algorithms.is_empty() {
        return Err(ProbeError::Unfit(format!(
            "none of its {} algorithms for ID tokens can be used here; asymmetric ones are needed",
            named.len()
        )));
    }
    let mut notes =
        vec!["set client_ids to your application's client ids at the provider, then enable it".to_owned()];
    if algorithms.len() > 1 {
        notes.push("pin algorithms to the one that the provider really signs with".to_owned());
    }
    let known = |member: &str, value: &str| {
        let list = document.get(member).and_then(Value::as_array);
        list.into_iter().flatten().any(|v| v == value)
    };
    if !known("claims_supported", "email_verified") {
        notes.push(
            "it does not say that it sends email_verified: then every address counts as unverified".to_owned(),
        );
    }
    let settings = Map::from_iter([
        ("enabled".to_owned(), false.into()),
        ("issuer".to_owned(), issuer.into()),
        ("client_ids".to_owned(), json!([])),
        ("algorithms".to_owned(), json!(algorithms)),
    ]);
    Ok(Proposal { name: name_of(issuer), settings, notes })
}

/// `https://login.example.com/x` → `login-example-com`.
fn name_of(issuer: &str) -> String {
    let host = issuer.split("://").nth(1).unwrap_or(issuer);
    let host = host.split(['/', ':', '?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    let name: String = host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(64).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "provider".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_proposal_is_disabled_and_keeps_only_algorithms_that_can_be_used() {
        let issuer = "https://login.example.com/realm";
        let said = json!({
            "issuer": issuer,
            "jwks_uri": "https://login.example.com/keys",
            "id_token_signing_alg_values_supported": ["none", "HS256", "RS256", "ES256", "RS256"],
        });
        let proposal = propose(issuer, &document(said)).unwrap();
        assert_eq!(proposal.name, "login-example-com");
        assert_eq!(proposal.settings["algorithms"], json!(["RS256", "ES256"]));
        assert_eq!((&proposal.settings["enabled"], &proposal.settings["client_ids"]), (&json!(false), &json!([])));
        assert_eq!(proposal.notes.len(), 3);
    }

    #[test]
    fn a_document_of_another_issuer_or_with_symmetric_algorithms_alone_is_refused() {
        let issuer = "https://a.example";
        let algorithms = "id_token_signing_alg_values_supported";
        for said in [
            json!({"issuer": "https://a.example/", "jwks_uri": "x", algorithms: ["RS256"]}),
            json!({"jwks_uri": "x", algorithms: ["RS256"]}),
            json!({"issuer": issuer, algorithms: ["RS256"]}),
            json!({"issuer": issuer, "jwks_uri": "x", algorithms: ["HS256", "none"]}),
            json!({"issuer": issuer, "jwks_uri": "x"}),
        ] {
            assert!(propose(issuer, &document(said.clone())).is_err(), "{said}");
        }
    }
}
