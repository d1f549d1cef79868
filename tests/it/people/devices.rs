//! Known and trusted devices.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mfa::{code, enrol_with};
use crate::support::service::{Answer, JsonBody, Service, Setup};
use countersign::secret::Secret;

const POLICY: &str = "contract = 1\ntrusted_devices = true\n";
/// Every sign-in after the first is of medium risk.
const MEDIUM: &str = r#"fn assess(s, risk) { if s.history.sign_ins_total > 0 { risk.add(40, "new_device"); } }"#;

async fn start(policy: &str, rule: &str) -> (TempDir, Service, Secret) {
    let dir = TempDir::new().unwrap();
    let files = [("policy.toml", policy), ("risk/_default.rhai", rule)];
    let service = Service::start_with(Setup::with_policies(dir.path(), &files)).await;
    let first = from_phone(&service, None).await;
    let secret = enrol_with(&service, first.signed_in()["access_token"].as_str().unwrap()).await;
    service.clock.advance(Duration::from_secs(60));
    (dir, service, secret)
}

async fn from(service: &Service, device_id: &str, device_secret: Option<&str>) -> Answer {
    let token = service.issuer.token().sign();
    let body = json!({"id_token": token, "provider": "acme", "device_id": device_id, "device_secret": device_secret.unwrap_or("")});
    let request = service.http().post(service.url("/auth/id-token/signin"));
    service.send(request.header("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0").json(&body)).await
}

async fn from_phone(service: &Service, device_secret: Option<&str>) -> Answer {
    from(service, "phone", device_secret).await
}

/// Answers the challenge of a sign-in from this device; gives the access token.
async fn pass(service: &Service, secret: &Secret, device_id: &str) -> String {
    let challenged = from(service, device_id, None).await;
    let challenge = challenged.challenged()["challenge_token"].clone();
    let answer = json!({"challenge_token": challenge, "code": code(service, secret, 0), "device_id": device_id});
    let done = service.post("/auth/mfa/verify-challenge", answer).await;
    service.clock.advance(Duration::from_secs(60));
    done.signed_in()["access_token"].as_str().unwrap().to_owned()
}

async fn trust(service: &Service, access: &str, device_id: &str) -> Answer {
    service.post_with("/auth/me/devices/trust", access, json!({"device_id": device_id})).await
}

async fn devices(service: &Service, access: &str) -> Vec<Value> {
    service.get_with("/auth/me/devices", access).await.body["devices"].as_array().unwrap().clone()
}

#[tokio::test]
async fn logto_9238_breeze_2788_a_trusted_device_stands_for_the_second_factor_at_medium_risk_for_thirty_days() {
    let (_dir, service, secret) = start(POLICY, MEDIUM).await;
    let access = pass(&service, &secret, "phone").await;
    let trusted = trust(&service, &access, "phone").await;
    assert_eq!(trusted.status, 200, "{}", trusted.text);
    let device_secret = trusted.body["device_secret"].as_str().unwrap();
    let answer = from_phone(&service, Some(device_secret)).await;
    assert_eq!(answer.signed_in()["risk_level"], "medium", "the level is what it was");
    from_phone(&service, None).await.challenged();
    from_phone(&service, Some("c2VjcmV0")).await.challenged();
    from_phone(&service, Some("not base64url!")).await.challenged();
    from(&service, "laptop", Some(device_secret)).await.challenged();
    service.clock.advance(Duration::from_secs(30 * 86_400));
    from_phone(&service, Some(device_secret)).await.challenged();
}

#[tokio::test]
async fn a_trusted_device_never_lowers_high_risk_nor_what_a_rule_asks_for() {
    for (what, more) in [
        ("high risk", "risk.add(30, \"new_country\");"),
        ("a rule that asks for a factor", "risk.require_mfa(\"new_country\");"),
        ("a strength", "risk.require_strength(\"strong\", \"new_country\");"),
        ("a script that fails", "let x = 1 / 0;"),
    ] {
        let dir = TempDir::new().unwrap();
        let rule = format!(
            "fn assess(s, risk) {{ if s.history.sign_ins_total > 0 {{ risk.add(40, \"new_device\"); \
             if s.history.sign_ins_total > 2 {{ {more} }} }} }}"
        );
        let files = [("policy.toml", POLICY), ("risk/_default.rhai", rule.as_str())];
        let service = Service::start_with(Setup::with_policies(dir.path(), &files)).await;
        let first = from_phone(&service, None).await;
        let secret = enrol_with(&service, first.signed_in()["access_token"].as_str().unwrap()).await;
        service.clock.advance(Duration::from_secs(60));
        let access = pass(&service, &secret, "phone").await;
        let trusted = trust(&service, &access, "phone").await;
        let device_secret = trusted.body["device_secret"].as_str().unwrap();
        from_phone(&service, Some(device_secret)).await.signed_in();
        let answer = from_phone(&service, Some(device_secret)).await;
        assert_eq!(answer.body["requires_mfa"], true, "{what}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_device_is_trusted_only_after_a_second_factor_on_it_a_moment_ago_where_the_policy_says_so() {
    let (_dir, service, secret) = start(POLICY, MEDIUM).await;
    let access = pass(&service, &secret, "phone").await;
    trust(&service, &access, "laptop").await.expect(403, "device_trust_not_allowed");
    trust(&service, &access, "").await.expect(400, "malformed_request");
    let device_secret = trust(&service, &access, "phone").await.body["device_secret"].as_str().unwrap().to_owned();
    let by_trust = from_phone(&service, Some(&device_secret)).await;
    let by_trust = by_trust.signed_in()["access_token"].as_str().unwrap();
    trust(&service, by_trust, "phone").await.expect(403, "device_trust_not_allowed");
    service.clock.advance(Duration::from_secs(601));
    trust(&service, &access, "phone").await.expect(403, "device_trust_not_allowed");

    let (_dir, service, secret) = start("contract = 1\n", MEDIUM).await;
    let access = pass(&service, &secret, "phone").await;
    trust(&service, &access, "phone").await.expect(403, "device_trust_not_allowed");
}

#[tokio::test]
async fn a_policy_that_stops_trusting_devices_stops_at_once() {
    let (dir, service, secret) = start(POLICY, MEDIUM).await;
    let access = pass(&service, &secret, "phone").await;
    let device_secret = trust(&service, &access, "phone").await.body["device_secret"].as_str().unwrap().to_owned();
    from_phone(&service, Some(&device_secret)).await.signed_in();
    let files = [("policy.toml", "contract = 1\n"), ("risk/_default.rhai", MEDIUM)];
    let service = service.restart(Setup::with_policies(dir.path(), &files)).await;
    from_phone(&service, Some(&device_secret)).await.challenged();
}

#[tokio::test]
async fn a_user_sees_devices_ends_a_trust_and_forgets_one() {
    let (_dir, service, secret) = start(POLICY, MEDIUM).await;
    let laptop = pass(&service, &secret, "laptop").await;
    let phone = pass(&service, &secret, "phone").await;
    let device_secret = trust(&service, &phone, "phone").await.body["device_secret"].as_str().unwrap().to_owned();
    let listed = devices(&service, &phone).await;
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!((&listed[0]["current"], listed[0]["trusted_until_at"].is_string()), (&json!(true), true));
    assert_eq!((&listed[1]["current"], listed[1].get("trusted_until_at")), (&json!(false), None));
    let ids: Vec<String> = listed.iter().map(|d| d["id"].as_str().unwrap().to_owned()).collect();
    let path = |id: &str| format!("/auth/me/devices/{id}");
    service.delete_with(&path("dev_x"), &phone).await.expect(404, "unknown_device");
    let end = format!("{}/trust", path(&ids[0]));
    assert_eq!(service.delete_with(&end, &laptop).await.status, 200, "from any session of the user");
    service.delete_with(&end, &laptop).await.expect(404, "unknown_device");
    from_phone(&service, Some(&device_secret)).await.challenged();
    assert_eq!(service.delete_with(&path(&ids[1]), &phone).await.status, 200);
    service.get_with("/auth/me", &laptop).await.expect(401, "session_ended");
    assert_eq!(devices(&service, &phone).await.len(), 1);
    service.delete_with(&path(&ids[1]), &phone).await.expect(404, "unknown_device");
}

#[tokio::test]
async fn a_device_of_one_user_is_nothing_to_another() {
    let (_dir, service, secret) = start(POLICY, MEDIUM).await;
    let ada = pass(&service, &secret, "phone").await;
    let device_secret = trust(&service, &ada, "phone").await.body["device_secret"].as_str().unwrap().to_owned();
    let id = devices(&service, &ada).await[0]["id"].as_str().unwrap().to_owned();
    let eve = service.issuer.token().subject("eve").sign();
    let body = json!({"id_token": eve, "provider": "acme", "device_id": "phone", "device_secret": device_secret});
    let eve = service.post("/auth/id-token/signin", body).await;
    let eve = eve.signed_in()["access_token"].as_str().unwrap().to_owned();
    service.delete_with(&format!("/auth/me/devices/{id}"), &eve).await.expect(404, "unknown_device");
    let again = service.issuer.token().subject("eve").sign();
    let body = json!({"id_token": again, "provider": "acme", "device_id": "phone", "device_secret": device_secret});
    service.post("/auth/id-token/signin", body).await.expect(403, "sign_in_denied");
    from_phone(&service, Some(&device_secret)).await.signed_in();
}
