use countersign_plugin_sdk::abi::{CS_DECLINED, CS_REJECT, CS_UNAVAILABLE};
use countersign_plugin_sdk::testkit::{FakeHost, Refused, TestPlugin};

use super::*;

const NOW_S: i64 = 1_767_225_600;

fn plugin(more: Value) -> TestPlugin<Firebase> {
    let mut config = json!({ "projects": ["shop", "shop-staging"] });
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    FakeHost::new().at_unix_ms(NOW_S * 1000).create(config).unwrap()
}

fn enrich(plugin: &TestPlugin<Firebase>, issuer: &str, claims: Value) -> Result<Value, Refused> {
    plugin.enrich(&json!({
        "tenant": "default", "provider": { "id": "firebase", "issuer": issuer }, "claims": claims, "deadline_ms": 250
    }))
}

fn claims(method: &str, age_s: i64) -> Value {
    json!({ "auth_time": NOW_S - age_s, "firebase": { "sign_in_provider": method, "identities": {} } })
}

#[test]
fn how_and_when_the_user_signed_in_is_added() {
    let added = enrich(&plugin(json!({})), "https://securetoken.google.com/shop", claims("google.com", 90));
    assert_eq!(
        added.unwrap(),
        json!({
            "project": "shop", "sign_in_provider": "google.com", "tenant": null, "second_factor": null,
            "auth_time": NOW_S - 90, "auth_age_s": 90
        })
    );
}

#[test]
fn what_the_configuration_does_not_allow_is_refused_with_its_reason() {
    let shop = "https://securetoken.google.com/shop";
    let mut of_tenant = claims("password", 0);
    of_tenant["firebase"]["tenant"] = "t-1".into();
    let strict = json!({ "sign_in_providers": ["phone"], "max_auth_age_s": 3600 });
    let tenants = json!({ "tenants": ["t-2"] });
    for (config, issuer, claims, code) in [
        (json!({}), "https://securetoken.google.com/other", claims("phone", 0), "firebase_project_not_allowed"),
        (json!({}), "https://securetoken.google.com/shop/", claims("phone", 0), "firebase_project_not_allowed"),
        (json!({}), "https://evil.example/shop", claims("phone", 0), "firebase_project_not_allowed"),
        (json!({}), shop, claims("anonymous", 0), "sign_in_provider_not_allowed"),
        (strict.clone(), shop, claims("password", 0), "sign_in_provider_not_allowed"),
        (strict, shop, claims("phone", 3601), "auth_too_old"),
        (json!({}), shop, claims("phone", -61), "auth_time_in_future"),
        (json!({}), shop, of_tenant.clone(), "firebase_tenant_not_allowed"),
        (tenants.clone(), shop, of_tenant, "firebase_tenant_not_allowed"),
        (tenants, shop, claims("password", 0), "firebase_tenant_not_allowed"),
        (json!({}), shop, json!({ "auth_time": NOW_S }), "sign_in_provider_missing"),
        (json!({}), shop, json!({ "firebase": { "sign_in_provider": "phone" } }), "auth_time_missing"),
    ] {
        let refused = enrich(&plugin(config), issuer, claims).unwrap_err();
        assert_eq!(refused, Refused { status: CS_REJECT, code: Some(code.to_owned()) });
    }
}

#[test]
fn certificates_are_given_by_key_id_for_as_long_as_they_say() {
    let answer = json!([{
        "request": { "method": "GET", "url": CERTIFICATES_URL },
        "response": {
            "status": 200, "headers": { "cache-control": "public, max-age=21600, must-revalidate", "age": "600" },
            "body": json!({ "k-1": "one", "k-2": "two" }).to_string()
        }
    }]);
    let locate = |host: FakeHost, kid: &str| {
        let plugin: TestPlugin<Firebase> = host.create(json!({ "projects": ["shop"] })).unwrap();
        plugin.locate_keys(&json!({
            "tenant": "default", "provider": { "id": "firebase" }, "kid": kid, "alg": "RS256", "deadline_ms": 5000
        }))
    };
    let recorded = || FakeHost::new().recording(&answer.to_string());
    assert_eq!(
        locate(recorded(), "k-2").unwrap(),
        json!({ "pem": { "k-1": "one", "k-2": "two" }, "ttl_s": 21_000 })
    );
    assert_eq!(locate(recorded(), "k-3").unwrap_err().status, CS_DECLINED);
    for (status, body) in [(503, "{}"), (200, "[]"), (200, r#"{"k-1": 1}"#)] {
        let host = FakeHost::new().answers("GET", CERTIFICATES_URL, status, body);
        assert_eq!(locate(host, "k-1").unwrap_err().status, CS_UNAVAILABLE, "{status} {body}");
    }
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    for (config, why) in [
        (json!({}), "projects"),
        (json!({ "projects": [] }), "projects"),
        (json!({ "projects": ["shop/x"] }), "projects"),
        (json!({ "projects": ["shop"], "max_auth_age_s": 0 }), "max_auth_age_s"),
        (json!({ "projects": ["shop"], "anonymous": true }), "unknown field"),
    ] {
        let error = FakeHost::new().create::<Firebase>(config).err().unwrap();
        assert!(error.contains(why), "{error}");
    }
}
