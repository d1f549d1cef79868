//! Refresh, logout and bearer tokens.

mod keys;
mod lifetimes;
mod machine;

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::service::{Answer, Service};

async fn signed_in(service: &Service) -> Value {
    service.sign_in(&service.issuer.token().sign()).await.signed_in().clone()
}

async fn refresh(service: &Service, token: &Value) -> Answer {
    service.post("/auth/refresh", json!({"refresh_token": token})).await
}

#[tokio::test]
async fn a_refresh_token_is_exchanged_for_a_new_pair() {
    let service = Service::start().await;
    let first = signed_in(&service).await;
    service.clock.advance(Duration::from_secs(60));
    let second = refresh(&service, &first["refresh_token"]).await;
    let body = second.signed_in();
    assert_ne!(body["refresh_token"], first["refresh_token"]);
    assert_ne!(body["access_token"], first["access_token"]);
    assert_eq!(service.get_with("/auth/me", body["access_token"].as_str().unwrap()).await.status, 200);
    refresh(&service, &body["refresh_token"]).await.signed_in();
}

#[tokio::test]
async fn a_repeat_inside_the_grace_gets_the_same_successor() {
    let service = Service::start().await;
    let first = signed_in(&service).await;
    let one = refresh(&service, &first["refresh_token"]).await;
    service.clock.advance(Duration::from_secs(9));
    let two = refresh(&service, &first["refresh_token"]).await;
    assert_eq!(one.signed_in()["refresh_token"], two.signed_in()["refresh_token"]);
}

#[tokio::test]
async fn a_reuse_after_the_grace_ends_the_session() {
    let service = Service::start().await;
    let first = signed_in(&service).await;
    let second = refresh(&service, &first["refresh_token"]).await.signed_in().clone();
    service.clock.advance(Duration::from_secs(11));
    let reused = refresh(&service, &first["refresh_token"]).await;
    assert_eq!(reused.expect(400, "refresh_token_reused").body["code"], 400_002);
    refresh(&service, &second["refresh_token"]).await.expect(400, "invalid_refresh_token");
    service.get_with("/auth/me", second["access_token"].as_str().unwrap()).await.expect(401, "session_ended");
}

#[tokio::test]
async fn nocturne_326_engram_389_a_hundred_refreshes_at_once_leave_one_living_successor() {
    let service = Service::start().await;
    let first = signed_in(&service).await;
    let answers =
        futures_util::future::join_all((0..100).map(|_| refresh(&service, &first["refresh_token"]))).await;
    let successors: HashSet<String> =
        answers.iter().map(|a| a.signed_in()["refresh_token"].as_str().unwrap().to_owned()).collect();
    assert_eq!(successors.len(), 1);
    refresh(&service, &json!(successors.iter().next().unwrap())).await.signed_in();
}

#[tokio::test]
async fn made_up_refresh_tokens_are_invalid_and_change_nothing() {
    let service = Service::start().await;
    let body = signed_in(&service).await;
    let real = body["refresh_token"].as_str().unwrap();
    let (id, secret) = real.split_once('.').unwrap();
    for token in
        ["", "x", id, &format!("{id}."), &format!("{id}.AAAA"), &format!("{id}.{secret}A"), &format!("{real}.x")]
    {
        refresh(&service, &json!(token)).await.expect(400, "invalid_refresh_token");
    }
    refresh(&service, &json!(real)).await.signed_in();
}

#[tokio::test]
async fn refresh_tokens_end_with_their_time() {
    let service = Service::start().await;
    let body = signed_in(&service).await;
    service.clock.advance(Duration::from_secs(30 * 86_400));
    refresh(&service, &body["refresh_token"]).await.expect(400, "invalid_refresh_token");
}

#[tokio::test]
async fn logout_ends_the_session_by_bearer_or_refresh_token() {
    let service = Service::start().await;
    let one = signed_in(&service).await;
    let access = one["access_token"].as_str().unwrap();
    let out = service.send(service.http().post(service.url("/auth/logout")).bearer_auth(access)).await;
    assert_eq!((out.status, &out.body["code"]), (200, &json!(0)));
    service.get_with("/auth/me", access).await.expect(401, "session_ended");
    refresh(&service, &one["refresh_token"]).await.expect(400, "invalid_refresh_token");

    let two = signed_in(&service).await;
    let out = service.post("/auth/logout", json!({"refresh_token": two["refresh_token"]})).await;
    assert_eq!(out.status, 200);
    service.get_with("/auth/me", two["access_token"].as_str().unwrap()).await.expect(401, "session_ended");
    let again = service.post("/auth/logout", json!({"refresh_token": two["refresh_token"]})).await;
    assert_eq!(again.status, 200);
    service.post("/auth/logout", json!({})).await.expect(401, "missing_access_token");
    service.send(service.http().post(service.url("/auth/logout"))).await.expect(401, "missing_access_token");
}

#[tokio::test]
async fn bearer_tokens_of_somebody_else_are_refused() {
    let service = Service::start().await;
    let body = signed_in(&service).await;
    let access = body["access_token"].as_str().unwrap();
    let (input, _) = access.rsplit_once('.').unwrap();
    let none = data_encoding::BASE64URL_NOPAD.encode(br#"{"alg":"none","typ":"at+jwt"}"#);
    let payload = access.split('.').nth(1).unwrap();
    let id_token = service.issuer.token().sign();
    for token in [
        "x",
        &format!("{input}.AAAA"),
        &format!("{none}.{payload}."),
        &id_token,
        body["refresh_token"].as_str().unwrap(),
    ] {
        service.get_with("/auth/me", token).await.expect(401, "invalid_access_token");
    }
    let bare = service.http().get(service.url("/auth/me"));
    service.send(bare).await.expect(401, "missing_access_token");
    let basic = service.http().get(service.url("/auth/me")).basic_auth("a", Some("b"));
    service.send(basic).await.expect(401, "missing_access_token");
    service.clock.advance(Duration::from_secs(1800));
    service.get_with("/auth/me", access).await.expect(401, "access_token_expired");
}
