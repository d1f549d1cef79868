//! Tokens come out.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::issuer::{TestIssuer, TestKey};
use crate::support::service::{Service, Setup};

/// The claims of a token of ours, after its signature was checked against the published keys.
async fn local_claims(service: &Service, token: &str) -> (Value, Value) {
    let keys = service.send(service.http().get(service.url("/.well-known/jwks.json"))).await.body;
    let header = jsonwebtoken::decode_header(token).unwrap();
    let kid = header.kid.clone().unwrap();
    let jwk = keys["keys"].as_array().unwrap().iter().find(|k| k["kid"] == *kid).expect("the key is published");
    let key = jsonwebtoken::DecodingKey::from_jwk(&serde_json::from_value(jwk.clone()).unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(header.alg);
    validation.validate_exp = false;
    validation.validate_aud = false;
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap().claims;
    (serde_json::to_value(&header).unwrap(), claims)
}

#[tokio::test]
async fn a_valid_id_token_gives_local_tokens_and_the_user() {
    let service = Service::start().await;
    let token = service.issuer.token().claim("email", "ada@example.com").claim("email_verified", true).sign();
    let answer = service.sign_in(&token).await;
    let body = answer.signed_in();
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 1800);
    assert_eq!(body["risk_level"], "low");
    assert_eq!(body["risk_assessment"]["score"], 0);
    assert_eq!(body["user"]["email"], "ada@example.com");
    assert_eq!(body["user"]["status"], "active");
    assert_eq!(body["user"]["id"], body["user_id"]);
    assert!(body["user_id"].as_str().unwrap().starts_with("usr_"));
    assert!(body["refresh_token"].as_str().unwrap().starts_with("rft_"));
    assert_eq!(answer.headers["cache-control"], "no-store");
    let me = service.get_with("/auth/me", body["access_token"].as_str().unwrap()).await;
    assert_eq!((me.status, &me.body["data"]), (200, &body["user"]));
}

#[tokio::test]
async fn access_tokens_follow_rfc_9068() {
    let service = Service::start().await;
    let answer = service.sign_in(&service.issuer.token().claim("amr", json!(["pwd"])).sign()).await;
    let body = answer.signed_in();
    let (header, claims) = local_claims(&service, body["access_token"].as_str().unwrap()).await;
    assert_eq!((&header["typ"], &header["alg"]), (&json!("at+jwt"), &json!("EdDSA")));
    assert_eq!(claims["iss"], "http://127.0.0.1:8080");
    assert_eq!(claims["aud"], "http://127.0.0.1:8080");
    assert_eq!(claims["sub"], body["user_id"]);
    assert_eq!(claims["client_id"], TestIssuer::CLIENT);
    assert_eq!(claims["tenant_id"], "default");
    assert_eq!(claims["amr"], json!(["pwd"]));
    let (iat, exp) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    assert_eq!((iat, exp - iat), (service.clock.now_s(), 1800));
    assert!(claims["sid"].as_str().unwrap().starts_with("ses_"));
    assert!(claims["jti"].is_string() && claims["auth_time"].is_i64());
}

#[tokio::test]
async fn each_accepted_algorithm_signs_in() {
    let service = Service::start().await;
    let (p256, p384, ed) = (TestKey::new_p256(), TestKey::new_p384(), TestKey::new_ed25519());
    let (p256, p384, ed) = (Arc::new(p256), Arc::new(p384), Arc::new(ed));
    let rsa = crate::support::issuer::shared_rsa();
    service.issuer.rotate_to(vec![
        ("rsa-1", Arc::clone(&rsa)),
        ("p256", Arc::clone(&p256)),
        ("p384", Arc::clone(&p384)),
        ("ed", Arc::clone(&ed)),
    ]);
    for (alg, kid, key) in [
        ("RS256", "rsa-1", &rsa),
        ("PS256", "rsa-1", &rsa),
        ("ES256", "p256", &p256),
        ("ES384", "p384", &p384),
        ("EdDSA", "ed", &ed),
    ] {
        let token = service.issuer.token().key(alg, kid, key).subject(alg).sign();
        service.sign_in(&token).await.signed_in();
    }
}

#[tokio::test]
async fn the_same_subject_is_the_same_user_and_another_subject_is_not() {
    let service = Service::start().await;
    let first = service.sign_in(&service.issuer.token().sign()).await;
    let again = service.sign_in(&service.issuer.token().sign()).await;
    let other = service.sign_in(&service.issuer.token().subject("subject-2").sign()).await;
    assert_eq!(first.signed_in()["user_id"], again.signed_in()["user_id"]);
    assert_ne!(first.body["user_id"], other.signed_in()["user_id"]);
}

#[tokio::test]
async fn the_provider_is_found_by_issuer_and_audience_when_none_is_named() {
    let service = Service::start().await;
    let token = service.issuer.token().sign();
    service.post("/auth/id-token/signin", json!({"id_token": token, "provider": ""})).await.signed_in();
    let foreign = service.issuer.token().claim("aud", "somebody-else").sign();
    service.post("/auth/id-token/signin", json!({"id_token": foreign})).await.expect(401, "no_provider_fits");
    service
        .post("/auth/id-token/signin", json!({"id_token": token, "provider": "nobody"}))
        .await
        .expect(404, "unknown_provider");
}

#[tokio::test]
async fn two_providers_that_accept_a_token_are_not_chosen_by_chance() {
    let clock_setup = |issuer: &str| {
        format!(
            "[[providers]]\ntenant = \"default\"\nname = \"twin\"\nissuer = {issuer:?}\nclient_ids = [\"app-web\"]\n"
        )
    };
    let service = Service::start().await;
    let setup = Setup { more_config: clock_setup(&service.issuer.url), ..Setup::default() };
    let service = service.restart(setup).await;
    let token = service.issuer.token().sign();
    service.post("/auth/id-token/signin", json!({"id_token": token})).await.expect(400, "ambiguous_provider");
    service.sign_in(&token).await.signed_in();
}

#[tokio::test]
async fn what_the_provider_tells_anew_replaces_and_what_it_leaves_out_stays() {
    let service = Service::start().await;
    let told = |t: crate::support::issuer::TokenBuilder| {
        t.claim("email", "old@example.com").claim("email_verified", true).claim("preferred_username", "ada")
    };
    service.sign_in(&told(service.issuer.token()).sign()).await.signed_in();
    let silent = service.sign_in(&service.issuer.token().sign()).await;
    assert_eq!(silent.signed_in()["user"]["email"], "old@example.com");
    assert_eq!(silent.body["user"]["username"], "ada");
    let moved = service.issuer.token().claim("email", "new@example.com").claim("email_verified", false).sign();
    assert_eq!(service.sign_in(&moved).await.signed_in()["user"]["email"], "new@example.com");
}

#[tokio::test]
async fn a_restart_keeps_users_sessions_and_keys() {
    let service = Service::start().await;
    let body = service.sign_in(&service.issuer.token().sign()).await.signed_in().clone();
    let service = service.restart(Setup::default()).await;
    let me = service.get_with("/auth/me", body["access_token"].as_str().unwrap()).await;
    assert_eq!(me.body["data"]["id"], body["user_id"]);
    let refreshed = service.post("/auth/refresh", json!({"refresh_token": body["refresh_token"]})).await;
    assert_eq!(refreshed.signed_in()["user_id"], body["user_id"]);
}
