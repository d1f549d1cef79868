//! Local passwords: their state in answers, own change, and what an expired one means.

use std::time::Duration;

use countersign::admin::access::Role;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::sign_in;
use crate::mfa::{code, enrol_with};
use crate::support::service::{Answer, JsonBody, Service, Setup};

const DAY: u64 = 86_400;
const FIRST: &str = "a first password";
const SECOND: &str = "a second password";

fn policy(lines: &str) -> String {
    format!("contract = 1\n[password]\nmax_age_days = 90\nwarn_days = 14\ngrace_days = 7\n{lines}\n")
}

async fn with_policy(lines: &str) -> (TempDir, Service, String) {
    let dir = TempDir::new().unwrap();
    let service = Service::start_with(Setup::with_policies(dir.path(), &[("policy.toml", &policy(lines))])).await;
    let key = service.admin_key(Role::Editor, Some("default")).await;
    (dir, service, key)
}

async fn put(service: &Service, path: &str, bearer: &str, body: Value) -> Answer {
    service.send(service.http().put(service.url(path)).bearer_auth(bearer).json(&body)).await
}

async fn set(service: &Service, key: &str, user: &Value, password: &str, must_change: bool) -> Answer {
    let path = format!("/admin/users/{}/password", user.as_str().unwrap());
    put(service, &path, key, json!({"password": password, "must_change": must_change})).await
}

async fn change(service: &Service, access: &str, old: &str, new: &str) -> Answer {
    put(service, "/auth/me/password", access, json!({"old_password": old, "new_password": new})).await
}

fn fields(body: &Value) -> [Value; 3] {
    ["must_change_password", "password_expires_in", "password_warning"].map(|name| body[name].clone())
}

#[tokio::test]
async fn answers_tell_how_near_the_end_of_a_local_password_is_and_nothing_without_one() {
    let (_dir, service, key) = with_policy("").await;
    let (_, body) = sign_in(&service, service.issuer.token()).await;
    assert_eq!(fields(&body), [Value::Null, Value::Null, Value::Null]);
    assert_eq!(set(&service, &key, &body["user_id"], FIRST, false).await.status, 200);
    let steps: [(u64, [Value; 3]); 4] = [
        (0, [json!(false), json!(90), Value::Null]),
        (76, [json!(false), json!(14), json!("expiring")]),
        (14, [json!(false), json!(0), json!("expired_grace")]),
        (7, [json!(true), json!(0), json!("expired")]),
    ];
    for (days, expected) in steps {
        service.clock.advance(Duration::from_secs(days * DAY));
        let (access, body) = sign_in(&service, service.issuer.token()).await;
        assert_eq!(fields(&body), expected);
        assert_eq!(fields(&body["user"]), expected);
        let me = service.get_with("/auth/me", &access).await;
        assert_eq!(fields(&me.body["data"]), expected);
        let refreshed = service.post("/auth/refresh", json!({"refresh_token": body["refresh_token"]})).await;
        assert_eq!(fields(refreshed.signed_in()), expected);
    }
}

#[tokio::test]
async fn an_answered_challenge_tells_it_and_a_waiting_one_does_not() {
    let dir = TempDir::new().unwrap();
    let files = [("policy.toml", &*policy("")), ("risk/_default.rhai", crate::mfa::DEMAND)];
    let service = Service::start_with(Setup::with_policies(dir.path(), &files)).await;
    let key = service.admin_key(Role::Editor, Some("default")).await;
    let (access, body) = sign_in(&service, service.issuer.token()).await;
    let secret = enrol_with(&service, &access).await;
    assert_eq!(set(&service, &key, &body["user_id"], FIRST, true).await.status, 200);
    service.clock.advance(Duration::from_secs(60));
    let challenged = service.sign_in(&service.issuer.token().sign()).await;
    assert_eq!(fields(challenged.challenged()), [Value::Null, Value::Null, Value::Null]);
    let token = &challenged.body["challenge_token"];
    let done = crate::mfa::verify(&service, token, &code(&service, &secret, 0)).await;
    let expected = [json!(true), json!(90), Value::Null];
    assert_eq!((fields(done.signed_in()), fields(&done.body["user"])), (expected.clone(), expected));
}

#[tokio::test]
async fn a_changed_password_ends_the_open_challenges() {
    let dir = TempDir::new().unwrap();
    let files = [("policy.toml", &*policy("")), ("risk/_default.rhai", crate::mfa::DEMAND)];
    let service = Service::start_with(Setup::with_policies(dir.path(), &files)).await;
    let key = service.admin_key(Role::Editor, Some("default")).await;
    let (access, body) = sign_in(&service, service.issuer.token()).await;
    let secret = enrol_with(&service, &access).await;
    service.clock.advance(Duration::from_secs(60));
    let open = crate::mfa::challenge(&service).await;
    assert_eq!(set(&service, &key, &body["user_id"], FIRST, false).await.status, 200);
    crate::mfa::verify(&service, &open, &code(&service, &secret, 0)).await.expect(400, "challenge_expired");

    let (first, second) = (crate::mfa::challenge(&service).await, crate::mfa::challenge(&service).await);
    let done = crate::mfa::verify(&service, &first, &code(&service, &secret, 0)).await;
    let access = done.signed_in()["access_token"].as_str().unwrap();
    assert_eq!(change(&service, access, FIRST, SECOND).await.status, 200);
    service.clock.advance(Duration::from_secs(60));
    crate::mfa::verify(&service, &second, &code(&service, &secret, 0)).await.expect(400, "challenge_expired");
}

#[tokio::test]
async fn the_token_endpoint_tells_it_in_both_grants() {
    let dir = TempDir::new().unwrap();
    let setup = Setup::with_policies(dir.path(), &[("policy.toml", &policy(""))]);
    let service = Service::start_with(Setup { more_config: crate::oauth::setup().more_config, ..setup }).await;
    let key = service.admin_key(Role::Editor, Some("default")).await;
    let ask = async |grant: &[(&str, &str)]| {
        let answer = crate::oauth::form(&service, "/oauth/token", &[&[("client_id", "app")], grant].concat()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.body
    };
    let exchange = async || {
        let token = service.issuer.token().sign();
        let (grant, kind) =
            ("urn:ietf:params:oauth:grant-type:token-exchange", "urn:ietf:params:oauth:token-type:id_token");
        ask(&[("grant_type", grant), ("subject_token", &token), ("subject_token_type", kind)]).await
    };
    let before = exchange().await;
    assert_eq!(fields(&before), [Value::Null, Value::Null, Value::Null]);
    let me = service.get_with("/auth/me", before["access_token"].as_str().unwrap()).await;
    assert_eq!(set(&service, &key, &me.body["data"]["id"], FIRST, false).await.status, 200);
    let exchanged = exchange().await;
    assert_eq!(fields(&exchanged), [json!(false), json!(90), Value::Null]);
    service.clock.advance(Duration::from_secs(80 * DAY));
    let exchanged = exchange().await;
    let refresh = exchanged["refresh_token"].as_str().unwrap();
    let refreshed = ask(&[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await;
    assert_eq!(fields(&refreshed), [json!(false), json!(10), json!("expiring")]);
}

#[tokio::test]
async fn an_expired_password_denies_or_challenges_where_the_tenant_says_so() {
    let (_dir, service, key) = with_policy("expired = \"deny\"").await;
    let (_, body) = sign_in(&service, service.issuer.token()).await;
    set(&service, &key, &body["user_id"], FIRST, false).await;
    service.clock.advance(Duration::from_secs(96 * DAY));
    sign_in(&service, service.issuer.token()).await;
    service.clock.advance(Duration::from_secs(DAY));
    let denied = service.sign_in(&service.issuer.token().sign()).await;
    assert!(denied.expect(403, "sign_in_denied").text.contains("password_expired"), "{}", denied.text);

    let (_dir, service, key) = with_policy("expired = \"challenge\"").await;
    let (access, body) = sign_in(&service, service.issuer.token()).await;
    let secret = enrol_with(&service, &access).await;
    set(&service, &key, &body["user_id"], FIRST, false).await;
    service.clock.advance(Duration::from_secs(97 * DAY));
    let challenged = service.sign_in(&service.issuer.token().sign()).await;
    assert_eq!(challenged.challenged()["mfa_check_reason"], "password_expired");
    let answer = json!({"challenge_token": challenged.body["challenge_token"], "code": code(&service, &secret, 0)});
    let done = service.post("/auth/mfa/verify-challenge", answer).await;
    assert_eq!(fields(done.signed_in())[2], "expired");
    let access = done.body["access_token"].as_str().unwrap();
    assert_eq!(change(&service, access, FIRST, SECOND).await.status, 200);
    let (_, body) = sign_in(&service, service.issuer.token()).await;
    assert_eq!(fields(&body), [json!(false), json!(90), Value::Null]);
}

#[tokio::test]
async fn a_user_changes_the_own_password_with_the_old_one_and_other_sessions_end() {
    let (_dir, service, key) = with_policy("history = 2").await;
    let (access, body) = sign_in(&service, service.issuer.token()).await;
    change(&service, &access, FIRST, SECOND).await.expect(409, "no_local_password");
    assert_eq!(set(&service, &key, &body["user_id"], FIRST, true).await.status, 200);
    service.get_with("/auth/me", &access).await.expect(401, "session_ended");
    let (access, body) = sign_in(&service, service.issuer.token()).await;
    assert_eq!(body["must_change_password"], true);
    let (other, _) = sign_in(&service, service.issuer.token()).await;
    change(&service, &access, "not the old one", SECOND).await.expect(400, "invalid_password");
    change(&service, &access, FIRST, "short").await.expect(400, "password_unacceptable");
    change(&service, &access, FIRST, FIRST).await.expect(400, "password_unacceptable");
    assert_eq!(change(&service, &access, FIRST, SECOND).await.status, 200);
    service.get_with("/auth/me", &other).await.expect(401, "session_ended");
    let me = service.get_with("/auth/me", &access).await;
    assert_eq!(me.body["data"]["must_change_password"], false);
    change(&service, &access, FIRST, "a third password").await.expect(400, "invalid_password");
    change(&service, &access, SECOND, FIRST).await.expect(400, "password_unacceptable");
    assert_eq!(change(&service, &access, SECOND, "a third password").await.status, 200);
    assert_eq!(change(&service, &access, "a third password", FIRST).await.status, 200, "two are remembered");
}

#[tokio::test]
async fn thirty_guesses_at_once_share_ten_attempts() {
    let (_dir, service, key) = with_policy("").await;
    let (_, body) = sign_in(&service, service.issuer.token()).await;
    set(&service, &key, &body["user_id"], FIRST, false).await;
    let (access, _) = sign_in(&service, service.issuer.token()).await;
    let guesses = (0..30).map(|n| {
        let (service, access) = (&service, &access);
        async move { change(service, access, &format!("guess {n}"), SECOND).await }
    });
    let answers = futures_util::future::join_all(guesses).await;
    let looked_at = answers.iter().filter(|a| a.error() != "password_locked").count();
    assert_eq!(looked_at, 10);
    let locked = change(&service, &access, FIRST, SECOND).await;
    let wait: u64 = locked.expect(429, "password_locked").headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=900).contains(&wait), "{wait}");
    service.clock.advance(Duration::from_secs(wait));
    assert_eq!(change(&service, &access, FIRST, SECOND).await.status, 200);
}

#[tokio::test]
async fn administrators_set_and_remove_passwords_within_role_and_tenant_and_leave_a_record() {
    let (_dir, service, key) = with_policy("").await;
    let (access, body) = sign_in(&service, service.issuer.token()).await;
    let user = &body["user_id"];
    let viewer = service.admin_key(Role::Viewer, Some("default")).await;
    let foreign = service.admin_key(Role::Admin, Some("other")).await;
    set(&service, &viewer, user, FIRST, true).await.expect(403, "admin_role_insufficient");
    set(&service, &foreign, user, FIRST, true).await.expect(404, "unknown_user");
    set(&service, &access, user, FIRST, true).await.expect(401, "invalid_admin_key");
    set(&service, &key, &json!("usr_nobody"), FIRST, true).await.expect(404, "unknown_user");
    set(&service, &key, user, "short", true).await.expect(400, "password_unacceptable");
    let path = format!("/admin/users/{}/password", user.as_str().unwrap());
    service.delete_with(&path, &key).await.expect(409, "no_local_password");
    assert_eq!(set(&service, &key, user, FIRST, true).await.status, 200);
    assert_eq!(service.delete_with(&path, &key).await.status, 200);
    let (_, body) = sign_in(&service, service.issuer.token()).await;
    assert_eq!(fields(&body), [Value::Null, Value::Null, Value::Null]);
    let log = service.get_with(&format!("/admin/audit?target={}", user.as_str().unwrap()), &viewer).await;
    // Within one millisecond the order of two records is chance.
    let items = log.body["items"].as_array().unwrap();
    let mut actions: Vec<&str> = items.iter().map(|r| r["action"].as_str().unwrap()).collect();
    actions.sort_unstable();
    assert_eq!(actions, ["user.password_remove", "user.password_set"]);
    assert!(!log.text.contains(FIRST) && !log.text.contains("argon2"));
}
