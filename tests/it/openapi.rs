//! The document is exact, and the committed one is current.

use countersign::codes::ErrorCode;
use countersign::http::{openapi_document, problem, spec};
use serde_json::Value;

const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi");

#[test]
fn the_committed_documents_are_what_the_code_says() {
    let document = openapi_document();
    for (name, text) in [
        ("openapi.json", spec::to_json(&document)),
        ("openapi.yaml", spec::to_yaml(&document)),
        ("errors.md", problem::error_table()),
    ] {
        let committed = std::fs::read_to_string(format!("{DIR}/{name}")).unwrap_or_default();
        assert!(
            committed == text,
            "openapi/{name} is not current: run `cargo run -- openapi` and review the change"
        );
    }
}

#[test]
fn auth0_java_279_workos_python_126_the_published_names_and_fields_stand() {
    let document = openapi_document();
    let schemas = &document["components"]["schemas"];
    let fields = |name: &str| -> Vec<String> {
        let mut names: Vec<String> = schemas[name]["properties"]
            .as_object()
            .unwrap_or_else(|| panic!("no {name}"))
            .keys()
            .cloned()
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        fields("dto.LoginResponse"),
        [
            "access_token",
            "challenge_token",
            "expires_in",
            "mfa_check_reason",
            "must_change_password",
            "password_expires_in",
            "password_warning",
            "refresh_token",
            "required_mfa_methods",
            "requires_mfa",
            "risk_assessment",
            "risk_level",
            "token_type",
            "user",
            "user_id",
        ]
    );
    assert_eq!(fields("dto.RiskAssessmentInfo"), ["level", "recommended_mfa_methods", "require_mfa", "score"]);
    assert_eq!(
        fields("dto.UserInfo"),
        [
            "created_at",
            "email",
            "id",
            "must_change_password",
            "password_expires_in",
            "password_warning",
            "phone",
            "status",
            "username",
        ]
    );
    for name in ["dto.LoginResponse", "dto.RiskAssessmentInfo", "dto.UserInfo", "dto.IDTokenSignInRequest"] {
        assert!(schemas[name].get("required").is_none(), "{name}: all fields are optional");
    }
    assert_eq!(schemas["dto.RiskAssessmentInfo"]["properties"]["score"]["type"], "integer");
    let levels = &schemas["dto.RiskLevel"]["enum"];
    assert_eq!(levels, &serde_json::json!(["low", "medium", "high"]));
}

#[test]
fn the_document_describes_every_key_of_a_provider() {
    let document = openapi_document();
    let described = document["components"]["schemas"]["dto.ProviderSettings"]["properties"].as_object().unwrap();
    let mut described: Vec<&str> = described.keys().map(String::as_str).collect();
    described.sort_unstable();
    // Tenant and name are told by the address.
    let mut keys = countersign::config::provider_keys();
    keys.retain(|key| !matches!(*key, "tenant" | "name"));
    keys.sort_unstable();
    assert_eq!(described, keys, "describe new keys in src/http/provider_settings.rs");
}

#[test]
fn the_document_describes_every_key_of_a_client() {
    let document = openapi_document();
    let described = document["components"]["schemas"]["dto.ClientSettings"]["properties"].as_object().unwrap();
    let mut described: Vec<&str> = described.keys().map(String::as_str).collect();
    described.sort_unstable();
    // Tenant and id are told by the address, and the server makes the secret.
    let mut keys = countersign::config::client_keys();
    keys.retain(|key| !matches!(*key, "tenant" | "id" | "secret_hash"));
    keys.sort_unstable();
    assert_eq!(described, keys, "describe new keys in src/http/provider_settings.rs");
}

#[test]
fn every_operation_has_id_texts_tag_examples_and_every_status_it_lists() {
    let document = openapi_document();
    let mut ids = std::collections::HashSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let place = format!("{method} {path}");
            let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{place} has no id"));
            assert!(ids.insert(id.to_owned()), "{id} twice");
            assert!(operation["summary"].is_string(), "{place} has no summary");
            assert!(!operation["tags"].as_array().unwrap().is_empty(), "{place} has no tag");
            if let Some(body) = operation.get("requestBody") {
                let mut media = body["content"].as_object().unwrap().values();
                assert!(media.all(|m| m.get("example").is_some()), "{place}: no example of the body");
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                let Some(media) = response.pointer("/content/application~1json") else { continue };
                let examples = media.get("examples").and_then(Value::as_object);
                assert!(examples.is_some_and(|e| !e.is_empty()), "{place} {status} has no example");
            }
        }
    }
    let text = document.to_string();
    assert!(!text.contains("charset=utf-8"), "generators trip over media type parameters");
    assert!(document.get("webhooks").is_none());
    assert_eq!(document["openapi"], "3.0.3");
}

#[test]
fn every_refusal_stands_in_the_table_and_all_but_the_general_ones_in_an_operation() {
    let table = problem::error_table();
    let document = openapi_document().to_string();
    let general = [ErrorCode::NotFound, ErrorCode::MethodNotAllowed, ErrorCode::InternalError];
    for code in ErrorCode::ALL {
        assert!(table.contains(&format!("`{}`", code.as_str())));
        assert!(general.contains(code) || document.contains(&format!("`{}`", code.as_str())), "{code:?}");
    }
}
