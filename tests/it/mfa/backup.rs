//! Backup codes.

use std::time::Duration;

use serde_json::{Value, json};

use super::{DEMAND, challenge, code, enrolled, verify};
use crate::admin::Role;
use crate::support::service::{Answer, Service, Setup};

async fn answer(service: &Service, challenge: &Value, code: &str) -> Answer {
    let body = json!({"challenge_token": challenge, "code": code, "mfa_method": "backup_code"});
    service.post("/auth/mfa/verify-challenge", body).await
}

async fn renew(service: &Service, access: &str) -> Answer {
    service.post_with("/auth/me/mfa/backup-codes", access, json!({})).await
}

/// New codes, of a session that passed a factor.
async fn codes(service: &Service, access: &str) -> Vec<String> {
    let made = renew(service, access).await;
    assert_eq!((made.status, &made.headers["cache-control"]), (200, &"no-store".parse().unwrap()), "{}", made.text);
    made.body["codes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap().to_owned()).collect()
}

async fn left(service: &Service, access: &str) -> Option<u64> {
    let listed = service.get_with("/auth/me/mfa", access).await;
    let factors = listed.body["factors"].as_array().unwrap_or_else(|| panic!("{}", listed.text));
    let set = factors.iter().find(|factor| factor["mfa_method"] == "backup_code")?;
    assert!(
        factors.iter().all(|factor| factor["mfa_method"] == "backup_code" || factor.get("codes_left").is_none())
    );
    Some(set["codes_left"].as_u64().unwrap())
}

/// A challenged user with ten codes, and an access token that passed a factor.
async fn with_codes() -> (tempfile::TempDir, Service, Vec<String>, String) {
    let (dir, service, secret) = enrolled().await;
    let challenge = challenge(&service).await;
    let done = verify(&service, &challenge, &code(&service, &secret, 0)).await;
    let access = done.signed_in()["access_token"].as_str().unwrap().to_owned();
    let codes = codes(&service, &access).await;
    (dir, service, codes, access)
}

#[tokio::test]
async fn each_code_is_good_once_as_the_last_of_the_methods_and_the_set_goes_with_the_last_one() {
    let (_dir, service, codes, access) = with_codes().await;
    assert_eq!((codes.len(), left(&service, &access).await), (10, Some(10)));
    let challenged = service.sign_in(&service.issuer.token().sign()).await;
    let body = challenged.challenged();
    assert_eq!(body["required_mfa_methods"], json!(["totp", "backup_code"]));
    let done = answer(&service, &body["challenge_token"], &codes[0].to_uppercase().replace('-', " ")).await;
    let claims = done.signed_in()["access_token"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims = data_encoding::BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&claims).unwrap()["amr"], json!(["otp", "mfa"]));
    assert_eq!(left(&service, &access).await, Some(9));

    let again = challenge(&service).await;
    answer(&service, &again, &codes[0]).await.expect(400, "invalid_mfa_code");
    answer(&service, &again, &codes[1]).await.signed_in();
    for (used, code) in codes[2..].iter().enumerate() {
        assert_eq!(left(&service, &access).await, Some(8 - used as u64));
        let challenge = challenge(&service).await;
        answer(&service, &challenge, code).await.signed_in();
    }
    assert_eq!(left(&service, &access).await, None);
    let challenged = service.sign_in(&service.issuer.token().sign()).await;
    let body = challenged.challenged();
    assert_eq!(body["required_mfa_methods"], json!(["totp"]));
    answer(&service, &body["challenge_token"], &codes[9]).await.expect(400, "mfa_method_not_allowed");
}

#[tokio::test]
async fn one_code_at_two_nodes_at_once_opens_one_session() {
    let (dir, first, codes, access) = with_codes().await;
    let second = first.second_node(Setup::with_policies(dir.path(), &[("risk/_default.rhai", DEMAND)])).await;
    for code in &codes[..4] {
        let (one, two) = (challenge(&first).await, challenge(&second).await);
        let (a, b) = tokio::join!(answer(&first, &one, code), answer(&second, &two, code));
        let mut statuses = [a.status, b.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 400], "{} {}", a.text, b.text);
        let refused = if a.status == 400 { &a } else { &b };
        refused.expect(400, "invalid_mfa_code");
    }
    assert_eq!(left(&first, &access).await, Some(6));
}

#[tokio::test]
async fn two_methods_at_once_answer_one_challenge_once() {
    let (_dir, service, secret) = enrolled().await;
    let first = challenge(&service).await;
    let done = verify(&service, &first, &code(&service, &secret, 0)).await;
    let access = done.signed_in()["access_token"].as_str().unwrap().to_owned();
    let codes = codes(&service, &access).await;
    for code_of_set in &codes[..4] {
        service.clock.advance(Duration::from_secs(60));
        let challenge = challenge(&service).await;
        let app = code(&service, &secret, 0);
        let before = left(&service, &access).await.unwrap();
        let (a, b) = tokio::join!(verify(&service, &challenge, &app), answer(&service, &challenge, code_of_set));
        let (won, lost) = if a.status == 200 { (&a, &b) } else { (&b, &a) };
        won.signed_in();
        lost.expect(400, "challenge_used");
        // Whoever lost spent nothing.
        let spent = u64::from(b.status == 200);
        assert_eq!(left(&service, &access).await, Some(before - spent));
    }
}

#[tokio::test]
async fn codes_need_another_factor_and_a_session_that_passed_one() {
    let service = Service::start().await;
    let signed_in = service.sign_in(&service.issuer.token().sign()).await;
    let access = signed_in.signed_in()["access_token"].as_str().unwrap().to_owned();
    renew(&service, &access).await.expect(403, "enrolment_not_allowed");
    super::enrol_with(&service, &access).await;
    // The session that enrolled did not pass it.
    renew(&service, &access).await.expect(403, "enrolment_not_allowed");
    assert_eq!(left(&service, &access).await, None);
}

#[tokio::test]
async fn new_codes_replace_the_old_ones_and_the_audit_log_says_so() {
    let (_dir, service, old, access) = with_codes().await;
    let fresh = codes(&service, &access).await;
    assert!(fresh.iter().all(|code| !old.contains(code)));
    assert_eq!(left(&service, &access).await, Some(10));
    service.clock.advance(Duration::from_secs(601));
    renew(&service, &access).await.expect(403, "fresh_session_needed");
    let challenge = challenge(&service).await;
    answer(&service, &challenge, &old[0]).await.expect(400, "invalid_mfa_code");
    answer(&service, &challenge, &fresh[0]).await.signed_in();
    let viewer = service.admin_key(Role::Viewer, Some("default")).await;
    let log = service.get_with("/admin/audit?action=user.backup_codes", &viewer).await;
    let items = log.body["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{}", log.text);
    assert_eq!(items[0]["actor"], items[0]["target"], "the user's own doing");
    let member = |before: Value, after: u64| json!({"before": before, "after": after});
    let told = json!({"made": member(Value::Null, 10), "replaced": member(Value::Null, 10)});
    assert_eq!(items[0]["difference"], told, "ten for ten others");
    let told = json!({
        "left": member(json!(0), 10),
        "made": member(Value::Null, 10),
        "replaced": member(Value::Null, 0),
    });
    assert_eq!(items[1]["difference"], told);
}

#[tokio::test]
async fn wrong_backup_codes_share_the_limits_of_all_methods() {
    let (_dir, service, codes, _) = with_codes().await;
    for _ in 0..2 {
        let challenge = challenge(&service).await;
        for guess in ["", "000000", "0000-0000-0000", "0000-0000-0001", &"x".repeat(60)] {
            answer(&service, &challenge, guess).await.expect(400, "invalid_mfa_code");
        }
        let dead = answer(&service, &challenge, &codes[0]).await;
        assert!(matches!(dead.error(), "challenge_expired" | "mfa_locked"), "{}", dead.text);
    }
    let third = challenge(&service).await;
    answer(&service, &third, &codes[0]).await.expect(429, "mfa_locked");
    verify(&service, &third, "000000").await.expect(429, "mfa_locked");
}

#[tokio::test]
async fn an_administrator_sees_how_many_are_left_and_a_reset_takes_them() {
    let (_dir, service, codes, access) = with_codes().await;
    let admin = service.admin_key(Role::Admin, Some("default")).await;
    let me = service.get_with("/auth/me", &access).await.body["data"]["id"].as_str().unwrap().to_owned();
    let listed = service.get_with(&format!("/admin/users/{me}/mfa"), &admin).await;
    let set = listed.body["factors"].as_array().unwrap().iter().find(|f| f["mfa_method"] == "backup_code").cloned();
    assert_eq!(set.unwrap()["codes_left"], 10, "{}", listed.text);
    let export = service.post_with(&format!("/admin/users/{me}/export"), &admin, json!({})).await;
    let exported =
        export.body["factors"].as_array().unwrap().iter().find(|f| f["mfa_method"] == "backup_code").cloned();
    assert_eq!(exported.unwrap()["codes_left"], 10, "{}", export.text);
    let challenge = challenge(&service).await;
    let reset = service.delete_with(&format!("/admin/users/{me}/mfa"), &admin).await;
    assert_eq!(reset.status, 200, "{}", reset.text);
    assert_eq!(left(&service, &access).await, None);
    answer(&service, &challenge, &codes[0]).await.expect(400, "invalid_mfa_code");
}

#[tokio::test]
async fn a_rule_that_asks_for_a_strong_factor_does_not_take_a_backup_code() {
    let (dir, service, _, _) = with_codes().await;
    let strong = r#"fn assess(s, risk) { risk.require_strength("strong", "new_device"); }"#;
    let service = service.restart(Setup::with_policies(dir.path(), &[("risk/_default.rhai", strong)])).await;
    let challenged = service.sign_in(&service.issuer.token().sign()).await;
    assert_eq!(challenged.challenged()["required_mfa_methods"], json!(["totp"]));
}
