//! Signing keys through the administration API.

use std::time::Duration;

use serde_json::{Value, json};

use super::Role;
use crate::support::service::{Answer, Service};

async fn rotate(service: &Service, key: &str, how: &str) -> Answer {
    service.post_with("/admin/keys/rotate", key, json!({"how": how})).await
}

/// Identifiers and states, by the time from which they sign.
async fn listed(service: &Service, key: &str) -> Vec<(String, String)> {
    let list = service.get_with("/admin/keys", key).await;
    assert_eq!(list.status, 200, "{}", list.text);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list.body["items"].as_array().unwrap().iter().map(|k| (text(&k["id"]), text(&k["state"]))).collect()
}

async fn published(service: &Service) -> usize {
    let set = service.send(service.http().get(service.url("/.well-known/jwks.json"))).await;
    set.body["keys"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_rotation_publishes_the_next_key_before_it_signs_and_now_lets_that_one_sign_at_once() {
    let service = Service::start().await;
    let root = service.admin_key(Role::Admin, None).await;
    let first = listed(&service, &root).await;
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].1, "active");
    service.clock.advance(Duration::from_secs(1));

    let next = rotate(&service, &root, "soon").await;
    assert_eq!((next.status, &next.body["state"]), (200, &json!("next")), "{}", next.text);
    assert_eq!(published(&service).await, 2);
    let sooner = rotate(&service, &root, "now").await;
    assert_eq!((&sooner.body["id"], &sooner.body["state"]), (&next.body["id"], &json!("active")));
    let states: Vec<String> = listed(&service, &root).await.into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, ["previous", "active"]);

    let log = service.get_with("/admin/audit?action=signing_key.rotate&everywhere=true", &root).await;
    let records = log.body["items"].as_array().unwrap();
    assert_eq!(records.len(), 2, "{}", log.text);
    assert_eq!(records[0]["actor"], root.split_once('.').unwrap().0);
    assert_eq!(records[0]["difference"]["signs"]["before"], json!(first[0].0));
    assert_eq!(records[0]["difference"]["signs"]["after"], sooner.body["id"]);
}

#[tokio::test]
async fn after_a_leak_tokens_of_all_other_keys_are_refused_and_a_refresh_gives_new_ones() {
    let service = Service::start().await;
    let root = service.admin_key(Role::Admin, None).await;
    let body = service.sign_in(&service.issuer.token().sign()).await.signed_in().clone();
    let access = body["access_token"].as_str().unwrap();
    let waiting = rotate(&service, &root, "soon").await;
    let answer = rotate(&service, &root, "compromised").await;
    assert_ne!(answer.body["id"], waiting.body["id"], "a key that waited may have leaked as well");
    assert_eq!(listed(&service, &root).await.len(), 1);
    service.get_with("/auth/me", access).await.expect(401, "invalid_access_token");
    let refreshed = service.post("/auth/refresh", json!({"refresh_token": body["refresh_token"]})).await;
    let access = refreshed.signed_in()["access_token"].as_str().unwrap();
    assert_eq!(service.get_with("/auth/me", access).await.status, 200);
}

#[tokio::test]
async fn only_an_admin_of_all_tenants_rotates_and_nonsense_changes_nothing() {
    let service = Service::start().await;
    let root = service.admin_key(Role::Admin, None).await;
    let before = listed(&service, &root).await;
    let own = service.admin_key(Role::Admin, Some("default")).await;
    service.get_with("/admin/keys", &own).await.expect(403, "admin_scope_insufficient");
    rotate(&service, &own, "compromised").await.expect(403, "admin_scope_insufficient");
    let editor = service.admin_key(Role::Editor, None).await;
    rotate(&service, &editor, "now").await.expect(403, "admin_role_insufficient");
    for body in [json!({}), json!({"how": "later"}), json!({"how": null}), json!({"how": ["now"]})] {
        service.post_with("/admin/keys/rotate", &root, body).await.expect(400, "malformed_request");
    }
    assert_eq!(listed(&service, &root).await, before);
}

#[tokio::test]
async fn rotations_at_once_leave_one_key_that_signs() {
    let service = Service::start().await;
    let root = service.admin_key(Role::Admin, None).await;
    service.clock.advance(Duration::from_secs(1));
    let answers = futures_util::future::join_all((0..8).map(|_| rotate(&service, &root, "now"))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    service.clock.advance(Duration::from_secs(1));
    let active = listed(&service, &root).await.into_iter().filter(|(_, state)| state == "active").count();
    assert_eq!(active, 1);
}
