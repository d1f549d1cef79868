//! "This was not me": nothing is learned from such a sign-in, nor from the second factor that finished it.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mfa::{enrol_with, verify};
use crate::support::service::{Service, Setup};

const RULES: &str = r#"fn assess(s, risk) {
    if s.history.device == "new" { risk.add(25, "new_device"); risk.require_mfa("new_device"); }
    if s.history.device == "partial" { risk.add(10, "browser_changed"); }
}"#;

async fn score(service: &Service, device: &str) -> Value {
    let answer = service.sign_in_from(&service.issuer.token().sign(), &format!("{device}/1"), device).await;
    answer.body["risk_assessment"]["score"].clone()
}

async fn label(service: &Service, access: &str, sign_in: &Value, verdict: &str) {
    let path = format!("/auth/me/sign-ins/{}/label", sign_in["id"].as_str().unwrap());
    let answer = service.post_with(&path, access, json!({"verdict": verdict})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn a_disputed_device_stays_new_although_its_challenge_was_passed() {
    let dir = TempDir::new().unwrap();
    let service = Service::start_with(Setup::with_policies(dir.path(), &[("risk/_default.rhai", RULES)])).await;
    let home = service.sign_in_from(&service.issuer.token().sign(), "home/1", "home").await;
    let access = home.signed_in()["access_token"].as_str().unwrap().to_owned();
    let secret = enrol_with(&service, &access).await;
    service.clock.advance(Duration::from_secs(60));

    let answer = service.sign_in_from(&service.issuer.token().sign(), "away/1", "away").await;
    let challenge = answer.challenged()["challenge_token"].clone();
    let code = crate::mfa::code(&service, &secret, 0);
    let body = json!({"challenge_token": challenge, "code": code, "device_id": "away"});
    service.post("/auth/mfa/verify-challenge", body).await.signed_in();
    service.clock.advance(Duration::from_secs(60));
    assert_eq!(score(&service, "away").await, 0, "it is known by its second factor");
    // Another device whose challenge stays open.
    let open = service.sign_in_from(&service.issuer.token().sign(), "third/1", "third").await;
    verify(&service, &open.challenged()["challenge_token"], "000000").await;

    let mine = service.get_with("/auth/me/sign-ins", &access).await.body;
    let items = mine["items"].as_array().unwrap();
    let challenged: Vec<&Value> = items.iter().filter(|item| item["end"] == "challenged").collect();
    assert_eq!(challenged.len(), 2, "{mine:#}");
    let first = challenged[1];
    label(&service, &access, first, "bad").await;
    // The sign-in after the challenge was not disputed: the device is still known by it, of one day, and that was no
    // first sign-in.
    let later = items.iter().find(|item| item["end"] == "signed_in").unwrap();
    label(&service, &access, later, "bad").await;
    service.clock.advance(Duration::from_secs(60));
    assert_eq!(score(&service, "away").await, 25, "nothing was learned from it");
    assert_eq!(score(&service, "home").await, 0);
    // Taken back: it was the user after all.
    label(&service, &access, first, "good").await;
    assert_eq!(score(&service, "away").await, 0);
}
