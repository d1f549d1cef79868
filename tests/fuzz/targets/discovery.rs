//! A discovery document gives a `jwks_uri` exactly when it is the configured issuer's own.
#![no_main]

use countersign_fuzz::oidc::{document_url, read_keys_uri};
use countersign_fuzz::oracle::{check_message, strict_object};
use countersign_fuzz::signin::json::parse_object;
use countersign_fuzz::signin::provider::IssuerRule;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const PERSONAL: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

fuzz_target!(|body: &[u8]| {
    let document = match (parse_object(body), strict_object(body)) {
        (Ok(document), Some(expected)) => {
            assert_eq!(document, expected);
            document
        }
        (Err(error), None) => return check_message(&error.to_string(), &String::from_utf8_lossy(body)),
        (strict, _) => panic!("read as JSON: {}, and should not be", strict.is_ok()),
    };
    let seen = document.get("issuer").and_then(Value::as_str);
    let uri = document.get("jwks_uri").and_then(Value::as_str);
    for (rule, asked, accepted) in rules() {
        assert_eq!(document_url(&rule), asked);
        let expected = uri.filter(|_| seen.is_some_and(|seen| accepted.contains(&seen)));
        match read_keys_uri(&rule, &document) {
            Ok(given) => assert_eq!(Some(given.as_str()), expected),
            Err(message) => {
                assert_eq!(expected, None, "{message}");
                // The refused issuer is shown, shortened: an administrator needs it.
                check_message(&message, "");
            }
        }
    }
});

/// A rule, where it has the document asked for, and the only issuers that document may name.
fn rules() -> [(IssuerRule, &'static str, &'static [&'static str]); 4] {
    let exact = |issuers: &[&str]| IssuerRule::Exact(issuers.iter().map(|i| (*i).to_owned()).collect());
    let template = |tenant: &str| IssuerRule::PerTenant {
        prefix: "https://m.example/".to_owned(),
        suffix: "/v2.0".to_owned(),
        allowed_tenant_ids: vec![tenant.to_owned()],
    };
    [
        (
            exact(&["https://a.example"]),
            "https://a.example/.well-known/openid-configuration",
            &["https://a.example"],
        ),
        (
            exact(&["https://a.example/x/", "https://b.example"]),
            "https://a.example/x/.well-known/openid-configuration",
            &["https://a.example/x/", "https://b.example"],
        ),
        (
            template("t-1"),
            "https://m.example/organizations/v2.0/.well-known/openid-configuration",
            &["https://m.example/{tenantid}/v2.0", "https://m.example/organizations/v2.0"],
        ),
        (
            template(PERSONAL),
            "https://m.example/common/v2.0/.well-known/openid-configuration",
            &["https://m.example/{tenantid}/v2.0", "https://m.example/common/v2.0"],
        ),
    ]
}
