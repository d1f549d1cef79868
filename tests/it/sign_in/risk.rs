//! The tenant's rules decide how much is asked, and never ask for less than the shipped default.

use std::fmt::Write as _;

use serde_json::json;
use tempfile::TempDir;

use crate::mfa::enrol;
use crate::support::service::{Service, Setup};

const RISK: &str = "risk/_default.rhai";

async fn with_rules(script: &str) -> (TempDir, Service) {
    with_files(&[(RISK, script)]).await
}

async fn with_files(files: &[(&str, &str)]) -> (TempDir, Service) {
    let dir = TempDir::new().unwrap();
    let service = Service::start_with(Setup::with_policies(dir.path(), files)).await;
    (dir, service)
}

#[tokio::test]
async fn keycloak_49824_a_new_device_alone_is_low_and_scores_with_its_reason() {
    let service = Service::start().await;
    service.sign_in_from(&service.issuer.token().sign(), "one/1", "device-1").await.signed_in();
    let answer = service.sign_in_from(&service.issuer.token().sign(), "two/1", "device-2").await;
    assert_eq!(answer.signed_in()["risk_assessment"]["score"], 25);
    let same = service.sign_in_from(&service.issuer.token().sign(), "one/1", "device-1").await;
    assert_eq!(same.signed_in()["risk_assessment"]["score"], 0);
}

#[tokio::test]
async fn a_rule_that_asks_for_more_than_the_user_has_is_a_denial() {
    let (_dir, service) = with_rules(r#"fn assess(s, risk) { risk.add(45, "new_device"); }"#).await;
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    answer.expect(403, "sign_in_denied");
    assert!(answer.text.contains("new_device"), "{}", answer.text);
}

#[tokio::test]
async fn a_rule_may_deny_and_the_reason_is_told() {
    let (_dir, service) = with_rules(r#"fn assess(s, risk) { risk.deny("anonymizer_network"); }"#).await;
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    answer.expect(403, "sign_in_denied");
    assert!(answer.text.contains("anonymizer_network"), "{}", answer.text);
}

#[tokio::test]
async fn authentik_6169_scripts_that_fail_never_let_anybody_through_without_a_factor() {
    for script in [
        "fn assess(s, risk) { throw \"boom\"; }",
        "fn assess(s, risk) { loop {} }",
        "fn assess(s, risk) { let x = 1 / 0; }",
        "fn assess(s, risk) { s.history.known_devise }",
        "fn assess(s, risk) { risk.ad(1, \"new_device\"); }",
        "fn assess(s, risk) { risk.add(1, \"no_such_reason\"); }",
        "fn assess(s, risk) { risk.add(0.0 / 0.0, \"new_device\"); }",
        "fn assess(s, risk) { risk.add(1000, \"new_device\"); }",
        "fn assess(s, risk) { assess(s, risk); }",
        "fn assess(s, risk) { let a = []; loop { a.push(\"xxxxxxxxxxxxxxxx\"); } }",
        "fn assess(s, risk) { let m = #{}; let i = 0; loop { m[i.to_string()] = \"x\"; i += 1; } }",
    ] {
        // A script that fails on ordinary facts may be refused at load; one that fails later must not weaken.
        let guarded = script.replace(
            "fn assess(s, risk) {",
            "fn assess(s, risk) { if s.user.is_new && s.client.id != \"app-web\" { return; } ",
        );
        let dir = TempDir::new().unwrap();
        let setup = Setup::with_policies(dir.path(), &[(RISK, &guarded)]);
        let Ok(service) = tokio::spawn(Service::start_with(setup)).await else {
            continue;
        };
        let answer = service.sign_in(&service.issuer.token().sign()).await;
        answer.expect(403, "sign_in_denied");
        assert!(answer.text.contains("policy_error"), "{script}: {}", answer.text);
        assert!(!answer.text.contains("boom") && !answer.text.contains(".rhai"), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_failing_script_asks_an_enrolled_user_for_the_factor() {
    let dir = TempDir::new().unwrap();
    let service = Service::start().await;
    enrol(&service).await;
    let script = r#"fn assess(s, risk) { if s.history.sign_ins_total > 0 { throw "later"; } }"#;
    let service = service.restart(Setup::with_policies(dir.path(), &[(RISK, script)])).await;
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    assert_eq!(answer.challenged()["mfa_check_reason"], "policy_error");
    assert_eq!(answer.body["risk_level"], "medium");
}

#[tokio::test]
async fn a_mapping_that_fails_provisions_nobody() {
    let (_dir, service) = with_files(&[(
        "mapping/acme.rhai",
        "fn map(s, out) { out.name(s.claims.str(\"name\")); if s.claims.has(\"boom\") { throw \"x\"; } }",
    )])
    .await;
    service
        .sign_in(&service.issuer.token().claim("boom", true).claim("name", "A").sign())
        .await
        .expect(403, "mapping_failed");
    let rejecting = with_files(&[(
        "mapping/acme.rhai",
        "fn map(s, out) { if s.claims.str(\"hd\") == \"evil\" { out.reject(\"wrong_domain\"); } }",
    )])
    .await;
    let service = rejecting.1;
    let answer = service.sign_in(&service.issuer.token().claim("hd", "evil").sign()).await;
    answer.expect(403, "identity_rejected");
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
}

#[tokio::test]
async fn a_mapping_grants_only_groups_of_the_providers_list() {
    let dir = TempDir::new().unwrap();
    let mapping = r#"fn map(s, out) { out.group("staff"); out.group("admins"); }"#;
    let rules = r#"fn assess(s, risk) { if "admins" in s.user.groups { risk.deny("privileged_user"); } if "staff" in s.user.groups { risk.add(7, "new_device"); } }"#;
    let mut setup = Setup::with_policies(dir.path(), &[("mapping/acme.rhai", mapping), (RISK, rules)]);
    setup.provider = "allowed_groups = [\"staff\"]".to_owned();
    let service = Service::start_with(setup).await;
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    assert_eq!(answer.signed_in()["risk_assessment"]["score"], 7);
}

#[tokio::test]
async fn facts_of_one_user_never_show_in_anothers_run() {
    let rules = r#"fn assess(s, risk) { let n = s.claims.int("n"); risk.add(n, "new_device"); }"#;
    let (_dir, service) = with_rules(rules).await;
    let tokens: Vec<String> = (0..29)
        .map(|n| {
            let mut subject = String::new();
            write!(subject, "user-{n}").unwrap();
            service.issuer.token().subject(&subject).claim("n", n).sign()
        })
        .collect();
    let answers = futures_util::future::join_all(tokens.iter().map(|t| service.sign_in(t))).await;
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.signed_in()["risk_assessment"]["score"], json!(n));
    }
}

#[tokio::test]
async fn a_policy_may_cap_the_session_and_give_no_refresh_token() {
    let (_dir, service) = with_rules(
        r#"fn assess(s, risk) { risk.cap_session(600, "new_network"); risk.no_refresh("new_network"); }"#,
    )
    .await;
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    let body = answer.signed_in();
    assert_eq!(body["expires_in"], 600);
    assert!(body.get("refresh_token").is_none());
    service.clock.advance(std::time::Duration::from_secs(600));
    let me = service.get_with("/auth/me", body["access_token"].as_str().unwrap()).await;
    me.expect(401, "access_token_expired");
}

#[tokio::test]
async fn zitadel_12357_logto_9561_upstream_mfa_that_the_provider_is_trusted_for_meets_medium_and_never_high() {
    let dir = TempDir::new().unwrap();
    let rules = r#"fn assess(s, risk) { risk.add(s.claims.int("n"), "new_device"); }"#;
    let mut setup = Setup::with_policies(dir.path(), &[(RISK, rules)]);
    setup.provider = "trust_amr = [\"mfa\", \"hwk\"]".to_owned();
    let service = Service::start_with(setup).await;
    let token = |n: i64, amr: &str| service.issuer.token().claim("n", n).claim("amr", json!([amr])).sign();
    service.sign_in(&token(45, "hwk")).await.signed_in();
    service.sign_in(&token(45, "pwd")).await.expect(403, "sign_in_denied");
    service.sign_in(&token(75, "mfa")).await.expect(403, "sign_in_denied");
}
