//! Whoever ends the sessions of a user ends the open challenges as well.

use std::time::Duration;

use serde_json::{Value, json};

use super::{DEMAND, challenge, code, enrol, enrolled, verify};
use crate::oauth::form;
use crate::oauth::security_events::{REVOKED, event, taken};
use crate::support::service::{Service, Setup};
use countersign::admin::access::Role;

async fn user_of(service: &Service, admin: &str) -> String {
    let users = service.get_with("/admin/users", admin).await;
    users.body["items"][0]["id"].as_str().unwrap().to_owned()
}

/// A right code at the challenge, by a server that has just been told to end it.
async fn answers_with(service: &Service, open: &Value, right: &str, error: &str) {
    verify(service, open, right).await.expect(400, error);
    assert_eq!(verify(service, open, "000000").await.status, 400);
}

#[tokio::test]
async fn a_back_channel_logout_ends_the_open_challenges_of_its_subject_or_session_and_no_others() {
    let event = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    for by_session in [false, true] {
        let (_dir, service, secret) = enrolled().await;
        let named = service.sign_in(&service.issuer.token().claim("sid", "sid-1").sign()).await;
        let named = named.challenged()["challenge_token"].clone();
        let other = challenge(&service).await;
        let token = service.issuer.token().header("typ", "logout+jwt").claim("events", event.clone());
        let token = if by_session { token.without("sub").claim("sid", "sid-1") } else { token };
        let told = form(&service, "/auth/backchannel-logout", &[("logout_token", &token.sign())]).await;
        assert_eq!(told.status, 200, "{}", told.text);
        answers_with(&service, &named, &code(&service, &secret, 0), "challenge_expired").await;
        let left = verify(&service, &other, &code(&service, &secret, 0)).await;
        if by_session {
            left.signed_in();
        } else {
            left.expect(400, "challenge_expired");
        }
    }
}

#[tokio::test]
async fn a_security_event_ends_the_challenges_that_began_before_it_alone() {
    let (_dir, service, secret) = enrolled().await;
    let before = challenge(&service).await;
    let token = event(&service, REVOKED).sign();
    service.clock.advance(Duration::from_secs(240));
    let later = challenge(&service).await;
    for _ in 0..2 {
        taken(&service, &token).await;
        answers_with(&service, &before, &code(&service, &secret, 0), "challenge_expired").await;
    }
    verify(&service, &later, &code(&service, &secret, 0)).await.signed_in();
}

#[tokio::test]
async fn disabling_and_enabling_a_user_leaves_no_challenge_open() {
    let (_dir, service, secret) = enrolled().await;
    let admin = service.admin_key(Role::Admin, Some("default")).await;
    let path = format!("/admin/users/{}/status", user_of(&service, &admin).await);
    for status in ["disabled", "locked"] {
        let open = challenge(&service).await;
        service.put_with(&path, &admin, json!({"status": status})).await;
        verify(&service, &open, &code(&service, &secret, 0)).await.expect(400, "invalid_challenge");
        assert_eq!(service.put_with(&path, &admin, json!({"status": "active"})).await.status, 200);
        answers_with(&service, &open, &code(&service, &secret, 0), "challenge_expired").await;
    }
}

#[tokio::test]
async fn a_logout_of_all_by_user_or_administrator_ends_open_challenges() {
    let dir = tempfile::TempDir::new().unwrap();
    let service = Service::start_with(Setup::with_policies(dir.path(), &[("risk/_default.rhai", DEMAND)])).await;
    let secret = enrol(&service).await;
    service.clock.advance(Duration::from_secs(60));
    let first = challenge(&service).await;
    let body = verify(&service, &first, &code(&service, &secret, 0)).await.signed_in().clone();
    service.clock.advance(Duration::from_secs(60));
    let open = challenge(&service).await;
    let access = body["access_token"].as_str().unwrap();
    assert_eq!(service.delete_with("/auth/me/sessions", access).await.status, 200);
    answers_with(&service, &open, &code(&service, &secret, 0), "challenge_expired").await;

    let admin = service.admin_key(Role::Admin, Some("default")).await;
    let open = challenge(&service).await;
    let path = format!("/admin/users/{}/sessions", user_of(&service, &admin).await);
    assert_eq!(service.delete_with(&path, &admin).await.status, 200);
    answers_with(&service, &open, &code(&service, &secret, 0), "challenge_expired").await;
}

#[tokio::test]
async fn an_erased_user_has_no_challenge_left() {
    let (_dir, service, secret) = enrolled().await;
    let admin = service.admin_key(Role::Admin, Some("default")).await;
    let open = challenge(&service).await;
    let path = format!("/admin/users/{}", user_of(&service, &admin).await);
    assert_eq!(service.delete_with(&path, &admin).await.status, 200);
    answers_with(&service, &open, &code(&service, &secret, 0), "invalid_challenge").await;
}
