//! Where a provider says its keys are: OpenID Connect Discovery 1.0, sections 4.1 to 4.3.

use serde_json::{Map, Value};

use crate::signin::provider::IssuerRule;

/// Microsoft's tenant of personal accounts, the same for everybody.
const PERSONAL_ACCOUNTS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// Why a discovery document is not the provider's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// `issuer` is absent or of somebody else.
    #[error("the discovery document's issuer is {seen}; configured is {configured}")]
    Issuer {
        /// The document's, shortened.
        seen: String,
        /// The configured one.
        configured: String,
    },
    /// `jwks_uri` is absent or no text.
    #[error("the discovery document has no text \"jwks_uri\"")]
    NoKeysUri,
}

/// The URL of the discovery document.
///
/// The path is appended after the issuer's own path, whose last slash is dropped first (section 4.1). Of
/// several exact issuers the first is asked. An issuer with `{tenantid}` is asked in the name of
/// `organizations`, which publishes keys of work accounts alone; `common`, with the keys of personal
/// accounts too, is asked only when their tenant is in the allow-list, so that a key of personal accounts
/// cannot sign for a company.
pub(super) fn document_url(rule: &IssuerRule) -> String {
    let issuer = match rule {
        IssuerRule::Exact(_) => rule.shown(),
        IssuerRule::PerTenant { prefix, suffix, .. } => format!("{prefix}{}{suffix}", shared_tenant(rule)),
    };
    format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(&issuer))
}

/// Takes `jwks_uri` from the document, if the document is the provider's own (section 4.3).
///
/// Its `issuer` must equal, byte for byte, one of the configured exact issuers: each of them is accepted
/// in tokens as well, and a provider that renames itself answers at the old place under its new name. For
/// an issuer with `{tenantid}` it must be that literal template, as Microsoft writes it, or the issuer that
/// was asked.
///
/// # Errors
/// When the issuer is another, or `jwks_uri` is absent.
pub(super) fn read_keys_uri(rule: &IssuerRule, document: &Map<String, Value>) -> Result<String, DiscoveryError> {
    let seen = document.get("issuer").and_then(Value::as_str);
    let accepted = seen.is_some_and(|seen| match rule {
        IssuerRule::Exact(issuers) => issuers.iter().any(|i| i == seen),
        IssuerRule::PerTenant { prefix, suffix, .. } => {
            seen == rule.shown() || seen == format!("{prefix}{}{suffix}", shared_tenant(rule))
        }
    });
    if !accepted {
        let seen = seen.map_or_else(|| "absent".to_owned(), shorten);
        return Err(DiscoveryError::Issuer { seen, configured: rule.shown() });
    }
    document.get("jwks_uri").and_then(Value::as_str).map(str::to_owned).ok_or(DiscoveryError::NoKeysUri)
}

fn shared_tenant(rule: &IssuerRule) -> &'static str {
    match rule {
        IssuerRule::PerTenant { allowed_tenant_ids, .. }
            if allowed_tenant_ids.iter().any(|t| t == PERSONAL_ACCOUNTS) =>
        {
            "common"
        }
        _ => "organizations",
    }
}

fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn exact(issuer: &str) -> IssuerRule {
        IssuerRule::Exact(vec![issuer.to_owned()])
    }

    fn microsoft(tenants: &[&str]) -> IssuerRule {
        IssuerRule::PerTenant {
            prefix: "https://login.example.com/".into(),
            suffix: "/v2.0".into(),
            allowed_tenant_ids: tenants.iter().map(|t| (*t).to_owned()).collect(),
        }
    }

    fn read(rule: &IssuerRule, document: Value) -> Result<String, DiscoveryError> {
        read_keys_uri(rule, document.as_object().expect("an object"))
    }

    #[test]
    fn the_path_is_appended_after_the_issuers_path() {
        for (issuer, url) in [
            ("https://a.example", "https://a.example/.well-known/openid-configuration"),
            ("https://a.example/", "https://a.example/.well-known/openid-configuration"),
            ("https://a.example/realms/x", "https://a.example/realms/x/.well-known/openid-configuration"),
            ("https://a.example/realms/x/", "https://a.example/realms/x/.well-known/openid-configuration"),
        ] {
            assert_eq!(document_url(&exact(issuer)), url);
        }
    }

    #[test]
    fn an_issuer_that_differs_in_one_byte_is_refused() {
        let rule = exact("https://a.example/x");
        let keys = "https://a.example/keys";
        assert_eq!(read(&rule, json!({"issuer": "https://a.example/x", "jwks_uri": keys})), Ok(keys.to_owned()));
        for issuer in [
            json!("https://a.example/x/"),
            json!("https://A.example/x"),
            json!("http://a.example/x"),
            json!(null),
            json!(1),
        ] {
            assert!(
                matches!(
                    read(&rule, json!({"issuer": issuer, "jwks_uri": keys})),
                    Err(DiscoveryError::Issuer { .. })
                ),
                "{issuer}"
            );
        }
        assert!(read(&rule, json!({"jwks_uri": keys})).is_err());
    }

    #[test]
    fn a_document_without_a_keys_uri_is_refused() {
        let rule = exact("https://a.example");
        for document in
            [json!({"issuer": "https://a.example"}), json!({"issuer": "https://a.example", "jwks_uri": 7})]
        {
            assert_eq!(read(&rule, document), Err(DiscoveryError::NoKeysUri));
        }
    }

    #[test]
    fn a_tenant_template_accepts_its_literal_form_and_the_one_that_was_asked() {
        let rule = microsoft(&["11111111-1111-1111-1111-111111111111"]);
        assert_eq!(
            document_url(&rule),
            "https://login.example.com/organizations/v2.0/.well-known/openid-configuration"
        );
        let keys = "https://login.example.com/keys";
        for issuer in ["https://login.example.com/{tenantid}/v2.0", "https://login.example.com/organizations/v2.0"]
        {
            assert_eq!(read(&rule, json!({"issuer": issuer, "jwks_uri": keys})), Ok(keys.to_owned()));
        }
        for issuer in [
            "https://login.example.com/11111111-1111-1111-1111-111111111111/v2.0",
            "https://login.example.com/common/v2.0",
            "https://login.example.org/{tenantid}/v2.0",
        ] {
            assert!(read(&rule, json!({"issuer": issuer, "jwks_uri": keys})).is_err(), "{issuer}");
        }
    }

    #[test]
    fn keys_of_personal_accounts_are_asked_for_only_when_they_are_let_in() {
        let url = document_url(&microsoft(&[PERSONAL_ACCOUNTS]));
        assert_eq!(url, "https://login.example.com/common/v2.0/.well-known/openid-configuration");
    }

    #[test]
    fn an_error_shows_a_shortened_issuer_without_control_characters() {
        let rule = exact("https://a.example");
        let hostile = format!("x\n\u{1b}[2J{}", "y".repeat(10_000));
        let error = read(&rule, json!({"issuer": hostile})).expect_err("another issuer").to_string();
        assert!(error.len() < 250 && !error.chars().any(char::is_control), "{error}");
    }
}
