//! Providers tell that their sessions have ended (OpenID Connect Back-Channel Logout 1.0).

use serde_json::{Value, json};

use super::form;
use crate::support::issuer::TokenBuilder;
use crate::support::service::{Answer, Service};
use crate::support::sessions::{lives, signed_in};

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// A logout token that would be accepted, for the subject of `TestIssuer::token`.
fn logout(service: &Service) -> TokenBuilder {
    service.issuer.token().header("typ", "logout+jwt").claim("events", json!({EVENT: {}}))
}

async fn tell(service: &Service, token: &str) -> Answer {
    form(service, "/auth/backchannel-logout", &[("logout_token", token)]).await
}

async fn sign_in(service: &Service, sid: Option<&str>, subject: &str) -> Value {
    let token = service.issuer.token().subject(subject);
    let token = if let Some(sid) = sid { token.claim("sid", sid) } else { token };
    signed_in(service, &token).await
}

#[tokio::test]
async fn a_session_of_the_provider_ends_the_sessions_that_came_from_it() {
    let service = Service::start().await;
    let one = sign_in(&service, Some("sid-1"), "subject-1").await;
    let same = sign_in(&service, Some("sid-1"), "subject-1").await;
    let other = sign_in(&service, Some("sid-2"), "subject-1").await;
    let without = sign_in(&service, None, "subject-1").await;
    let told = tell(&service, &logout(&service).without("sub").claim("sid", "sid-1").sign()).await;
    assert_eq!(told.status, 200, "{}", told.text);
    for (body, expected) in [(&one, false), (&same, false), (&other, true), (&without, true)] {
        assert_eq!(lives(&service, body).await, expected);
    }
    // A session of somebody else is not ended by naming it.
    let foreign = logout(&service).subject("subject-2").claim("sid", "sid-2").sign();
    assert_eq!(tell(&service, &foreign).await.status, 200);
    assert!(lives(&service, &other).await);
    assert_eq!(tell(&service, &logout(&service).claim("sid", "sid-2").sign()).await.status, 200);
    assert!(!lives(&service, &other).await);
}

#[tokio::test]
async fn a_subject_ends_all_its_sessions_from_this_provider_and_of_no_other_user() {
    let service = Service::start().await;
    let one = sign_in(&service, Some("sid-1"), "subject-1").await;
    let two = sign_in(&service, None, "subject-1").await;
    let other = sign_in(&service, Some("sid-3"), "subject-2").await;
    assert_eq!(tell(&service, &logout(&service).sign()).await.status, 200);
    assert!(!lives(&service, &one).await && !lives(&service, &two).await);
    assert!(lives(&service, &other).await);
    assert_eq!(tell(&service, &logout(&service).subject("nobody").sign()).await.status, 200);
    let fresh = sign_in(&service, None, "subject-1").await;
    assert!(lives(&service, &fresh).await);
}

#[tokio::test]
async fn what_is_no_logout_token_of_a_provider_ends_nothing() {
    let service = Service::start().await;
    let body = sign_in(&service, Some("sid-1"), "subject-1").await;
    let now = service.clock.now_s();
    let good = || logout(&service);
    let mut changed = good().sign();
    changed.replace_range(changed.len() - 4.., "AAAA");
    for (token, reason) in [
        ("x".to_owned(), "malformed_id_token"),
        (changed, "id_token_signature_invalid"),
        (service.issuer.token().sign(), "id_token_claim_invalid"),
        (good().header("typ", "at+jwt").sign(), "id_token_type_refused"),
        (good().claim("nonce", "n").sign(), "id_token_claim_invalid"),
        (good().claim("events", json!({})).sign(), "id_token_claim_invalid"),
        (good().claim("events", json!({EVENT: true})).sign(), "id_token_claim_invalid"),
        (good().claim("events", json!([EVENT])).sign(), "id_token_claim_invalid"),
        (good().without("sub").sign(), "id_token_claim_invalid"),
        (good().without("jti").sign(), "id_token_claim_invalid"),
        (good().without("iat").sign(), "id_token_claim_invalid"),
        (good().without("exp").sign(), "id_token_claim_invalid"),
        (good().claim("sid", 5).sign(), "id_token_claim_invalid"),
        (good().claim("exp", now - 3600).sign(), "id_token_expired"),
        (good().claim("iat", now - 3600).claim("exp", now + 3600).sign(), "id_token_too_old"),
        (good().claim("iat", now + 3600).claim("exp", now + 7200).sign(), "id_token_not_yet_valid"),
        (good().claim("iss", "https://other.example").sign(), "no_provider_fits"),
        (good().claim("aud", "another-app").sign(), "no_provider_fits"),
        (good().header("kid", "unknown").sign(), "unknown_key"),
        (good().header("alg", "none").sign(), "id_token_algorithm_not_allowed"),
    ] {
        let refused = tell(&service, &token).await;
        assert_eq!(refused.expect(400, "invalid_request").body["reason"], reason, "{}", refused.text);
    }
    form(&service, "/auth/backchannel-logout", &[]).await.expect(400, "invalid_request");
    let elsewhere = service.http().post(service.url("/auth/backchannel-logout")).header("x-tenant-id", "other");
    let elsewhere = elsewhere.header("content-type", "application/x-www-form-urlencoded");
    let elsewhere = elsewhere.body(super::encoded(&[("logout_token", &good().sign())]));
    service.send(elsewhere).await.expect(400, "invalid_request");
    assert!(lives(&service, &body).await);
}

#[tokio::test]
async fn a_logout_token_is_good_once_and_never_an_id_token() {
    let service = Service::start().await;
    let token = logout(&service).sign();
    service.sign_in(&token).await.expect(401, "id_token_type_refused");
    assert_eq!(tell(&service, &token).await.status, 200);
    let body = sign_in(&service, None, "subject-1").await;
    let again = tell(&service, &token).await;
    assert_eq!(again.expect(400, "invalid_request").body["reason"], "id_token_replayed");
    assert!(lives(&service, &body).await);
}
