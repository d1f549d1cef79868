//! Two things at once, whichever comes first: what was ended stays ended.

use std::time::Duration;

use countersign::admin::access::Role;
use serde_json::{Value, json};

use super::{of_second, sign_in, through_second, with_second};
use crate::mfa;
use crate::oauth::form;
use crate::support::service::Service;

const ROUNDS: usize = 8;

/// Nothing that such an answer gave opens anything, if it gave anything.
async fn opens_nothing(service: &Service, body: &Value) {
    let Some(access) = body["access_token"].as_str() else { return };
    let me = service.get_with("/auth/me", access).await;
    assert!(matches!(me.error(), "session_ended"), "{}", me.text);
    let refreshed = service.post("/auth/refresh", json!({"refresh_token": body["refresh_token"]})).await;
    refreshed.expect(400, "invalid_refresh_token");
}

#[tokio::test]
async fn a_sign_in_through_an_identity_that_is_being_unlinked_opens_nothing_of_the_account() {
    let service = with_second("").await;
    let (access, body) = sign_in(&service, service.issuer.token()).await;
    for round in 0..ROUNDS {
        let subject = format!("b-{round}");
        let link = json!({"id_token": of_second(&service, &subject).sign(), "provider": "second"});
        assert_eq!(service.post_with("/auth/me/identities", &access, link).await.status, 200);
        let listed = service.get_with("/auth/me/identities", &access).await;
        let identities = listed.body["identities"].as_array().unwrap();
        let linked = identities.iter().find(|i| i["provider"] == "second").unwrap();
        let path = format!("/auth/me/identities/{}", linked["id"].as_str().unwrap());
        let (unlinked, through) = tokio::join!(
            service.delete_with(&path, &access),
            through_second(&service, service.issuer.token().subject(&subject))
        );
        assert_eq!(unlinked.status, 200, "{}", unlinked.text);
        if through.signed_in()["user_id"] == body["user_id"] {
            opens_nothing(&service, &through.body).await;
        }
    }
}

#[tokio::test]
async fn a_refresh_beside_a_logout_leaves_nothing_open() {
    let service = Service::start().await;
    for _ in 0..ROUNDS {
        let (access, body) = sign_in(&service, service.issuer.token()).await;
        let refresh = json!({"refresh_token": body["refresh_token"]});
        let (refreshed, logged_out) = tokio::join!(
            service.post("/auth/refresh", refresh),
            service.post_with("/auth/logout", &access, json!({}))
        );
        assert_eq!(logged_out.status, 200, "{}", logged_out.text);
        opens_nothing(&service, &refreshed.body).await;
        opens_nothing(&service, &body).await;
    }
}

#[tokio::test]
async fn an_exchange_beside_a_disabling_leaves_nothing_open() {
    let service = Service::start_with(crate::oauth::setup()).await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    let (_, body) = sign_in(&service, service.issuer.token()).await;
    let path = format!("/admin/users/{}/status", body["user_id"].as_str().unwrap());
    let grant = "urn:ietf:params:oauth:grant-type:token-exchange";
    let kind = "urn:ietf:params:oauth:token-type:id_token";
    for _ in 0..ROUNDS {
        let token = service.issuer.token().sign();
        let fields =
            [("client_id", "app"), ("grant_type", grant), ("subject_token", &token), ("subject_token_type", kind)];
        let (exchanged, disabled) = tokio::join!(
            form(&service, "/oauth/token", &fields),
            service.put_with(&path, &editor, json!({"status": "disabled", "end_sessions": true}))
        );
        assert_eq!(disabled.status, 200, "{}", disabled.text);
        assert!(exchanged.status == 200 || exchanged.body["reason"] == "account_disabled", "{}", exchanged.text);
        assert_eq!(service.put_with(&path, &editor, json!({"status": "active"})).await.status, 200);
        if let Some(access) = exchanged.body["access_token"].as_str() {
            service.get_with("/auth/me", access).await.expect(401, "session_ended");
        }
    }
}

#[tokio::test]
async fn an_answer_beside_an_erasure_opens_nothing_and_leaves_nothing() {
    for _ in 0..3 {
        let (_dir, service, secret) = mfa::enrolled().await;
        let admin = service.admin_key(Role::Admin, Some("default")).await;
        let challenged = service.sign_in(&service.issuer.token().sign()).await;
        let user = challenged.challenged()["user_id"].as_str().unwrap().to_owned();
        let token = &challenged.body["challenge_token"];
        let path = format!("/admin/users/{user}");
        let right = mfa::code(&service, &secret, 0);
        let (done, wrong, erased) = tokio::join!(
            mfa::verify(&service, token, &right),
            mfa::verify(&service, token, "000000"),
            service.delete_with(&path, &admin)
        );
        assert_eq!(erased.status, 200, "{}", erased.text);
        assert_eq!(wrong.status, 400, "{}", wrong.text);
        opens_nothing(&service, &done.body).await;
        service.clock.advance(Duration::from_secs(60));
        let listed = service.get_with(&format!("/admin/sign-ins?user={user}"), &admin).await;
        assert_eq!(listed.body["items"], json!([]), "{}", listed.text);
        let again = service.sign_in(&service.issuer.token().sign()).await;
        assert_ne!(again.signed_in()["user_id"], json!(user));
    }
}
