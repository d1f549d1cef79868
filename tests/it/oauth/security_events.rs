//! Providers tell of security events (RFC 8417, RFC 8935; events of RISC and CAEP).

use std::time::Duration;

use countersign::admin::access::Role;
use serde_json::{Value, json};

use crate::support::issuer::TokenBuilder;
use crate::support::service::{Answer, Service};
use crate::support::sessions::{lives, signed_in, signed_in_as};

const PATH: &str = "/auth/security-events";
pub const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const DISABLED: &str = "https://schemas.openid.net/secevent/risc/event-type/account-disabled";
const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";

fn subject(service: &Service, subject: &str) -> Value {
    json!({"format": "iss_sub", "iss": service.issuer.url, "sub": subject})
}

/// A token that would be accepted, about the subject of `TestIssuer::token`, without `sub` and `exp`.
pub fn event(service: &Service, kind: &str) -> TokenBuilder {
    let token = service.issuer.token().header("typ", "secevent+jwt").without("sub").without("exp");
    token.claim("sub_id", subject(service, "subject-1")).claim("events", json!({kind: {}}))
}

pub async fn push(service: &Service, token: &str) -> Answer {
    let request = service.http().post(service.url(PATH)).header("content-type", "application/secevent+jwt");
    service.send(request.body(token.to_owned())).await
}

pub async fn taken(service: &Service, token: &str) {
    let answer = push(service, token).await;
    assert_eq!((answer.status, answer.text.as_str()), (202, ""));
}

#[tokio::test]
async fn a_revoked_session_or_a_disabled_account_ends_the_sessions_of_its_subject_alone() {
    let service = Service::start().await;
    let other = signed_in_as(&service, "subject-2").await;
    for kind in [REVOKED, DISABLED] {
        let (one, two) = (signed_in_as(&service, "subject-1").await, signed_in_as(&service, "subject-1").await);
        taken(&service, &event(&service, kind).sign()).await;
        assert!(!lives(&service, &one).await && !lives(&service, &two).await, "{kind}");
    }
    assert!(lives(&service, &other).await);
}

#[tokio::test]
async fn a_token_that_comes_again_or_late_ends_what_began_before_it_and_nothing_else() {
    let service = Service::start().await;
    let before = signed_in_as(&service, "subject-1").await;
    let token = event(&service, REVOKED).sign();
    service.clock.advance(Duration::from_secs(600));
    let after = signed_in_as(&service, "subject-1").await;
    for _ in 0..2 {
        taken(&service, &token).await;
        assert!(!lives(&service, &before).await && lives(&service, &after).await);
    }
    service.clock.advance(Duration::from_secs(86_400));
    let refused = push(&service, &token).await;
    assert_eq!(refused.expect(400, "invalid_request").body["reason"], "id_token_claim_invalid");
}

#[tokio::test]
async fn a_subject_in_the_event_or_inside_a_complex_one_is_found() {
    let service = Service::start().await;
    let named = subject(&service, "subject-1");
    let old = json!({"subject_type": "iss-sub", "iss": service.issuer.url, "sub": "subject-1"});
    for token in [
        event(&service, REVOKED).without("sub_id").claim("events", json!({REVOKED: {"subject": named}})),
        event(&service, REVOKED).without("sub_id").claim("events", json!({REVOKED: {"subject": old}})),
        event(&service, REVOKED).claim("sub_id", json!({"format": "complex", "user": named, "session": {}})),
    ] {
        let body = signed_in_as(&service, "subject-1").await;
        taken(&service, &token.sign()).await;
        assert!(!lives(&service, &body).await);
    }
}

/// Google, "Protect user accounts with Cross-Account Protection": `https://accounts.google.com/`.
#[tokio::test]
async fn an_issuer_with_a_slash_at_its_end_is_the_one_without_in_events_alone() {
    let service = Service::start().await;
    let slashed = format!("{}/", service.issuer.url);
    let named = |issuer: &str| json!({"subject_type": "iss-sub", "iss": issuer, "sub": "subject-1"});
    for (speaker, subject) in
        [(&slashed, &slashed), (&service.issuer.url, &slashed), (&slashed, &service.issuer.url)]
    {
        let body = signed_in_as(&service, "subject-1").await;
        let events = json!({REVOKED: {"subject": named(subject)}});
        let token =
            event(&service, REVOKED).without("sub_id").claim("iss", speaker.as_str()).claim("events", events);
        taken(&service, &token.sign()).await;
        assert!(!lives(&service, &body).await, "{speaker} {subject}");
    }
    let body = signed_in_as(&service, "subject-1").await;
    for other in [format!("{slashed}/"), format!("{slashed}x")] {
        let refused = push(&service, &event(&service, REVOKED).claim("iss", other.as_str()).sign()).await;
        assert_eq!(refused.expect(400, "invalid_request").body["reason"], "no_provider_fits");
        taken(&service, &event(&service, REVOKED).claim("sub_id", named(&other)).sign()).await;
    }
    assert!(lives(&service, &body).await);
    let id_token = service.issuer.token().claim("iss", slashed.as_str()).sign();
    assert_eq!(service.sign_in(&id_token).await.status, 401);
}

#[tokio::test]
async fn what_names_nobody_or_only_informs_is_taken_and_ends_nothing() {
    let service = Service::start().await;
    let email = service.issuer.token().claim("email", "ada@example.com").claim("email_verified", true);
    let body = signed_in(&service, &email.subject("subject-1")).await;
    let good = || event(&service, REVOKED);
    let foreign = json!({"format": "iss_sub", "iss": "https://other.example", "sub": "subject-1"});
    for token in [
        event(&service, VERIFICATION),
        event(&service, "https://example.com/event"),
        good().claim("sub_id", json!({"format": "email", "email": "ada@example.com"})),
        good().claim("sub_id", json!({"format": "opaque", "id": "subject-1"})),
        good().claim("sub_id", foreign),
        good().claim("sub_id", subject(&service, "nobody")),
        good().claim("sub_id", subject(&service, "")),
        good().claim("sub_id", "subject-1"),
        good().without("sub_id"),
        good().without("sub_id").claim("sub", "subject-1"),
    ] {
        taken(&service, &token.sign()).await;
        assert!(lives(&service, &body).await);
    }
}

#[tokio::test]
async fn what_is_no_security_event_token_of_a_provider_is_refused_in_the_words_of_the_rfc() {
    let service = Service::start().await;
    let body = signed_in_as(&service, "subject-1").await;
    let now = service.clock.now_s();
    let good = || event(&service, REVOKED);
    let mut changed = good().sign();
    changed.replace_range(changed.len() - 4.., "AAAA");
    for (token, reason, err) in [
        ("x".to_owned(), "malformed_id_token", "invalid_request"),
        (changed, "id_token_signature_invalid", "invalid_key"),
        (good().header("kid", "unknown").sign(), "unknown_key", "invalid_key"),
        (service.issuer.token().sign(), "id_token_type_refused", "invalid_request"),
        (good().without_header("typ").sign(), "id_token_type_refused", "invalid_request"),
        (good().header("typ", "logout+jwt").sign(), "id_token_type_refused", "invalid_request"),
        (good().without("events").sign(), "id_token_claim_invalid", "invalid_request"),
        (good().claim("events", json!({})).sign(), "id_token_claim_invalid", "invalid_request"),
        (good().claim("events", json!({REVOKED: true})).sign(), "id_token_claim_invalid", "invalid_request"),
        (good().without("jti").sign(), "id_token_claim_invalid", "invalid_request"),
        (good().without("iat").sign(), "id_token_claim_invalid", "invalid_request"),
        (good().claim("exp", now - 3_600).sign(), "id_token_expired", "invalid_request"),
        (good().claim("iat", now + 3_600).sign(), "id_token_not_yet_valid", "invalid_request"),
        (good().claim("iss", "https://other.example").sign(), "no_provider_fits", "invalid_issuer"),
        (good().claim("aud", "another-app").sign(), "no_provider_fits", "invalid_issuer"),
        (good().header("alg", "none").sign(), "id_token_algorithm_not_allowed", "invalid_request"),
    ] {
        let refused = push(&service, &token).await;
        refused.expect(400, "invalid_request");
        assert_eq!(
            (&refused.body["reason"], &refused.body["err"]),
            (&json!(reason), &json!(err)),
            "{}",
            refused.text
        );
        assert!(refused.body["description"].is_string());
    }
    let elsewhere = service.http().post(service.url(PATH)).header("x-tenant-id", "other");
    let elsewhere = elsewhere.header("content-type", "application/secevent+jwt").body(good().sign());
    service.send(elsewhere).await.expect(400, "invalid_request");
    let json = service.http().post(service.url(PATH)).header("content-type", "application/jwt").body(good().sign());
    service.send(json).await.expect(415, "unsupported_media_type");
    push(&service, "").await.expect(400, "invalid_request");
    push(&service, &"x".repeat(70_000)).await.expect(413, "body_too_large");
    assert!(lives(&service, &body).await);
    service
        .sign_in(&good().claim("sub", "subject-1").claim("exp", now + 300).sign())
        .await
        .expect(401, "id_token_type_refused");
}

/// The audit records of what providers told, newest first.
pub async fn recorded(service: &Service) -> Vec<Value> {
    let viewer = service.admin_key(Role::Viewer, Some("default")).await;
    let found = service.get_with("/admin/audit?action=identity.security_event", &viewer).await;
    assert_eq!(found.status, 200, "{}", found.text);
    found.body["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn each_event_leaves_one_audit_record_without_personal_data() {
    let service = Service::start().await;
    let body = signed_in_as(&service, "subject-1").await;
    signed_in_as(&service, "subject-1").await;
    let token = event(&service, REVOKED).claim("jti", "the-jti").sign();
    for _ in 0..3 {
        taken(&service, &token).await;
    }
    service.clock.advance(Duration::from_secs(1));
    let email = json!({"format": "email", "email": "ada@example.com"});
    taken(&service, &event(&service, "https://example.com/event").claim("sub_id", email).sign()).await;
    let records = recorded(&service).await;
    assert_eq!(records.len(), 2, "a token that comes again is recorded once: {records:?}");
    let (unknown, ended) = (&records[0], &records[1]);
    assert_eq!((&ended["target"], &ended["actor"]), (&body["user_id"], &json!("system")));
    let after = |record: &Value, member: &str| record["difference"][member]["after"].clone();
    assert_eq!(after(ended, "sessions_ended"), 2);
    assert_eq!(after(ended, "types"), json!([REVOKED]));
    assert_eq!(after(ended, "provider"), "acme");
    assert_eq!(after(ended, "issuer"), json!(service.issuer.url));
    assert_eq!(after(ended, "token").as_str().unwrap().len(), 64);
    assert_eq!((&unknown["target"], after(unknown, "sessions_ended")), (&json!("acme"), json!(0)));
    let text = json!(records).to_string();
    for secret in ["the-jti", "subject-1", "ada@example.com"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}
