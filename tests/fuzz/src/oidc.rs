//! The one pure file of the room that fetches.

#[path = "../../../src/oidc/discovery.rs"]
mod discovery;

use serde_json::{Map, Value};

use crate::signin::provider::IssuerRule;

/// `jwks_uri` of a document, or the text of the refusal.
pub fn read_keys_uri(rule: &IssuerRule, document: &Map<String, Value>) -> Result<String, String> {
    discovery::read_keys_uri(rule, document).map_err(|e| e.to_string())
}

/// Where the document is asked for.
pub fn document_url(rule: &IssuerRule) -> String {
    discovery::document_url(rule)
}
