//! Challenges and enrolment.

mod backup;
mod ended;

use std::time::Duration;

use countersign::clock::UnixTime;
use countersign::mfa::totp::code_at;
use countersign::secret::Secret;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::service::{Answer, JsonBody, Service, Setup};

pub const DEMAND: &str =
    r#"fn assess(s, risk) { if s.history.sign_ins_total > 0 { risk.require_mfa("new_device"); } }"#;

/// Signs in once and enrols an authenticator; gives its secret.
pub async fn enrol(service: &Service) -> Secret {
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    let access = answer.signed_in()["access_token"].as_str().unwrap().to_owned();
    enrol_with(service, &access).await
}

pub async fn enrol_with(service: &Service, access: &str) -> Secret {
    let begun = service.post_with("/auth/me/mfa/totp", access, json!({})).await;
    assert_eq!(begun.status, 200, "{}", begun.text);
    let secret = data_encoding::BASE32_NOPAD.decode(begun.body["secret"].as_str().unwrap().as_bytes()).unwrap();
    let secret = Secret::new(secret);
    let confirm = json!({"factor_id": begun.body["factor_id"], "code": code(service, &secret, 0)});
    let confirmed = service.post_with("/auth/me/mfa/totp/confirm", access, confirm).await;
    assert_eq!(confirmed.status, 200, "{}", confirmed.text);
    secret
}

pub fn code(service: &Service, secret: &Secret, shift_s: i64) -> String {
    code_at(secret, UnixTime::from_secs(service.clock.now_s() + shift_s)).unwrap()
}

pub async fn verify(service: &Service, challenge: &Value, code: &str) -> Answer {
    service.post("/auth/mfa/verify-challenge", json!({"challenge_token": challenge, "code": code})).await
}

/// A server whose second sign-in of a user is challenged, with one enrolled user.
pub async fn enrolled() -> (TempDir, Service, Secret) {
    let dir = TempDir::new().unwrap();
    let service = Service::start_with(Setup::with_policies(dir.path(), &[("risk/_default.rhai", DEMAND)])).await;
    let secret = enrol(&service).await;
    service.clock.advance(Duration::from_secs(60));
    (dir, service, secret)
}

pub async fn challenge(service: &Service) -> Value {
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    answer.challenged()["challenge_token"].clone()
}

#[tokio::test]
async fn a_challenge_is_answered_with_a_code_and_gives_tokens() {
    let (_dir, service, secret) = enrolled().await;
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    let body = answer.challenged();
    assert_eq!(body["required_mfa_methods"], json!(["totp"]));
    assert_eq!((&body["mfa_check_reason"], &body["expires_in"]), (&json!("new_device"), &json!(300)));
    let done = verify(&service, &body["challenge_token"], &code(&service, &secret, 0)).await;
    assert_eq!(done.signed_in()["user_id"], body["user_id"]);
    let me = service.get_with("/auth/me", done.body["access_token"].as_str().unwrap()).await;
    assert_eq!(me.status, 200);
    let claims = done.body["access_token"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims: Value =
        serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap()).unwrap();
    assert_eq!(claims["amr"], json!(["otp", "mfa"]));
}

#[tokio::test]
async fn a_challenge_and_a_code_are_good_once() {
    let (_dir, service, secret) = enrolled().await;
    let (one, two) = (challenge(&service).await, challenge(&service).await);
    let now = code(&service, &secret, 0);
    verify(&service, &one, &now).await.signed_in();
    verify(&service, &one, &code(&service, &secret, 30)).await.expect(400, "challenge_used");
    verify(&service, &two, &now).await.expect(400, "invalid_mfa_code");
    verify(&service, &two, &code(&service, &secret, 30)).await.signed_in();
}

#[tokio::test]
async fn ghsa_xg6x_h9c9_2m83_a_challenge_opens_nothing_else() {
    let (_dir, service, _) = enrolled().await;
    let token = challenge(&service).await;
    let token = token.as_str().unwrap();
    service.get_with("/auth/me", token).await.expect(401, "invalid_access_token");
    service.post("/auth/refresh", json!({"refresh_token": token})).await.expect(400, "invalid_refresh_token");
    service.post_with("/auth/me/mfa/totp", token, json!({})).await.expect(401, "invalid_access_token");
    service.sign_in(token).await.expect(400, "malformed_id_token");
}

#[tokio::test]
async fn five_wrong_codes_kill_a_challenge_and_ten_lock_the_user() {
    let (_dir, service, secret) = enrolled().await;
    let first = challenge(&service).await;
    for _ in 0..5 {
        verify(&service, &first, "000000").await.expect(400, "invalid_mfa_code");
    }
    verify(&service, &first, &code(&service, &secret, 0)).await.expect(400, "challenge_expired");
    let second = challenge(&service).await;
    for _ in 0..5 {
        verify(&service, &second, "000000").await.expect(400, "invalid_mfa_code");
    }
    let third = challenge(&service).await;
    let locked = verify(&service, &third, &code(&service, &secret, 0)).await;
    locked.expect(429, "mfa_locked");
    let wait: u64 = locked.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=900).contains(&wait), "{wait}");
    service.clock.advance(Duration::from_secs(901));
    let fourth = challenge(&service).await;
    verify(&service, &fourth, &code(&service, &secret, 0)).await.signed_in();
}

#[tokio::test]
async fn authquake_many_guesses_at_once_do_not_pass_the_limit_together() {
    let (_dir, service, _) = enrolled().await;
    let mut challenges = Vec::new();
    for _ in 0..11 {
        challenges.push(challenge(&service).await);
    }
    let guesses = (0..1000).map(|n| verify(&service, &challenges[n % 11], "000000"));
    let answers: Vec<Answer> = futures_util::stream::iter(guesses).buffer_unordered(100).collect().await;
    let looked_at = answers.iter().filter(|a| a.error() == "invalid_mfa_code").count();
    assert!(looked_at <= 10, "{looked_at} codes were looked at");
    assert!(answers.iter().any(|a| a.error() == "mfa_locked"));
}

#[tokio::test]
async fn a_challenge_ends_after_five_minutes_and_with_its_user() {
    let (_dir, service, secret) = enrolled().await;
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    let token = answer.challenged()["challenge_token"].clone();
    let user = answer.body["user_id"].as_str().unwrap().parse().unwrap();
    service.store.set_user_status(user, countersign::signin::user::UserStatus::Disabled).await.unwrap();
    verify(&service, &token, &code(&service, &secret, 0)).await.expect(400, "invalid_challenge");
    service.store.set_user_status(user, countersign::signin::user::UserStatus::Active).await.unwrap();
    service.clock.advance(Duration::from_secs(300));
    verify(&service, &token, &code(&service, &secret, 0)).await.expect(400, "challenge_expired");
}

#[tokio::test]
async fn a_challenge_is_bound_to_device_tenant_and_method() {
    let (_dir, service, secret) = enrolled().await;
    let answer = service.sign_in_from(&service.issuer.token().sign(), "agent/1", "device-1").await;
    let token = answer.challenged()["challenge_token"].clone();
    let now = code(&service, &secret, 0);
    let with = |device: Option<&str>, method: &str| json!({"challenge_token": token, "code": now, "device_id": device, "mfa_method": method});
    let path = "/auth/mfa/verify-challenge";
    service.post(path, with(None, "totp")).await.expect(400, "invalid_challenge");
    service.post(path, with(Some("device-2"), "totp")).await.expect(400, "invalid_challenge");
    service.post(path, with(Some("device-1"), "carrier-pigeon")).await.expect(400, "mfa_method_not_allowed");
    service.post(path, with(Some("device-1"), "sms")).await.expect(400, "mfa_method_not_allowed");
    let elsewhere =
        service.http().post(service.url(path)).header("x-tenant-id", "other").json(&with(Some("device-1"), "totp"));
    service.send(elsewhere).await.expect(400, "invalid_challenge");
    service.post(path, with(Some("device-1"), "totp")).await.signed_in();
}

#[tokio::test]
async fn made_up_challenge_tokens_are_not_known() {
    let (_dir, service, secret) = enrolled().await;
    let real = challenge(&service).await;
    let (id, _) = real.as_str().unwrap().split_once('.').unwrap();
    for token in
        ["", "x", "chg_0.x", id, &format!("{id}."), &format!("{id}.AAAA"), "usr_00000000000000000000000000.AAAA"]
    {
        verify(&service, &json!(token), &code(&service, &secret, 0)).await.expect(400, "invalid_challenge");
    }
}

#[tokio::test]
async fn a_second_factor_is_enrolled_only_from_a_session_that_passed_the_first() {
    let (_dir, service, secret) = enrolled().await;
    let before = service.issuer.token();
    let token = challenge(&service).await;
    let strong = verify(&service, &token, &code(&service, &secret, 0)).await.signed_in()["access_token"].clone();
    drop(before);
    let listed = service.get_with("/auth/me/mfa", strong.as_str().unwrap()).await;
    assert_eq!(listed.body["factors"].as_array().unwrap().len(), 1);
    service.clock.advance(Duration::from_secs(60));
    enrol_with(&service, strong.as_str().unwrap()).await;
    let listed = service.get_with("/auth/me/mfa", strong.as_str().unwrap()).await;
    assert_eq!(listed.body["factors"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_weak_session_of_an_enrolled_user_enrols_nothing() {
    let service = Service::start().await;
    enrol(&service).await;
    let weak = service.sign_in(&service.issuer.token().sign()).await.signed_in()["access_token"].clone();
    let answer = service.post_with("/auth/me/mfa/totp", weak.as_str().unwrap(), json!({})).await;
    answer.expect(403, "enrolment_not_allowed");
}

#[tokio::test]
async fn an_old_session_enrols_nothing_however_often_it_is_refreshed() {
    let service = Service::start().await;
    let begun = service.sign_in(&service.issuer.token().sign()).await.signed_in().clone();
    service.clock.advance(Duration::from_secs(601));
    let refreshed =
        service.post("/auth/refresh", json!({"refresh_token": begun["refresh_token"]})).await.signed_in().clone();
    let access = refreshed["access_token"].as_str().unwrap();
    service.post_with("/auth/me/mfa/totp", access, json!({})).await.expect(403, "fresh_session_needed");
    let again = service.sign_in(&service.issuer.token().sign()).await.signed_in().clone();
    enrol_with(&service, again["access_token"].as_str().unwrap()).await;
}

#[tokio::test]
async fn an_unconfirmed_factor_is_none_and_dies_of_five_wrong_codes() {
    let service = Service::start().await;
    let access = service.sign_in(&service.issuer.token().sign()).await.signed_in()["access_token"].clone();
    let access = access.as_str().unwrap();
    let begun = service.post_with("/auth/me/mfa/totp", access, json!({})).await;
    assert_eq!(service.get_with("/auth/me/mfa", access).await.body["factors"], json!([]));
    let confirm = json!({"factor_id": begun.body["factor_id"], "code": "000000"});
    for _ in 0..5 {
        service
            .post_with("/auth/me/mfa/totp/confirm", access, confirm.clone())
            .await
            .expect(400, "invalid_mfa_code");
    }
    service.post_with("/auth/me/mfa/totp/confirm", access, confirm).await.expect(400, "unknown_factor");
}
