//! Apple's server-to-server notices ("Processing changes for Sign in with Apple accounts").

use std::time::Duration;

use serde_json::{Value, json};

use super::security_events::{push, recorded};
use crate::support::issuer::TokenBuilder;
use crate::support::service::{Answer, JsonBody, Service, Setup};
use crate::support::sessions::{lives, signed_in, signed_in_as};

const SECOND: &str = "https://second.example";

/// `acme` is configured like Apple; `second` has the same keys.
async fn start() -> Service {
    let service = Service::start().await;
    let more_config = format!(
        "[[providers]]\nname = \"second\"\nissuer = {SECOND:?}\njwks_uri = \"{}/jwks\"\nclient_ids = [\"app-web\"]\n\
         linking = \"verified_email\"\n",
        service.issuer.url
    );
    service.restart(Setup { more_config, ..Setup::provider("notices = \"apple\"") }).await
}

/// The payload of a notice that would be accepted, about the subject of `TestIssuer::token`.
fn notice(service: &Service, kind: &str) -> TokenBuilder {
    let events = json!({
        "type": kind, "sub": "subject-1", "email": "x@privaterelay.appleid.com", "is_private_email": "true",
        "event_time": service.clock.now_s() * 1000,
    });
    let token = service.issuer.token().without_header("typ").without("sub").without("exp");
    token.claim("events", events.to_string())
}

async fn tell(service: &Service, payload: &str) -> Answer {
    let request = service.http().post(service.url("/auth/security-events")).json(&json!({"payload": payload}));
    service.send(request).await
}

async fn taken(service: &Service, payload: &str) {
    let answer = tell(service, payload).await;
    assert_eq!((answer.status, answer.text.as_str()), (202, ""));
}

fn after(record: &Value, member: &str) -> Value {
    record["difference"][member]["after"].clone()
}

#[tokio::test]
async fn better_auth_6973_apples_notices_end_sessions_take_the_identity_away_and_leave_a_record() {
    let service = start().await;
    let mail = |token: TokenBuilder| token.claim("email", "ada@example.com").claim("email_verified", true);
    let other = signed_in_as(&service, "subject-2").await;
    let first = signed_in(&service, &mail(service.issuer.token())).await;
    taken(&service, &notice(&service, "consent-revoked").sign()).await;
    assert!(!lives(&service, &first).await && lives(&service, &other).await);

    // The last identity stays: the user could not come back, and no one else has the subject.
    service.clock.advance(Duration::from_secs(120));
    let again = signed_in(&service, &service.issuer.token()).await;
    assert_eq!(again["user_id"], first["user_id"]);
    taken(&service, &notice(&service, "account-delete").sign()).await;
    assert!(!lives(&service, &again).await);

    service.clock.advance(Duration::from_secs(120));
    let token = mail(service.issuer.token().claim("iss", SECOND).subject("s-2")).sign();
    let through = service.post("/auth/id-token/signin", json!({"id_token": token, "provider": "second"})).await;
    let linked = through.signed_in().clone();
    assert_eq!(linked["user_id"], first["user_id"]);
    taken(&service, &notice(&service, "account-deleted").sign()).await;
    assert!(lives(&service, &linked).await, "a session of another provider goes on");
    let access = linked["access_token"].as_str().unwrap();
    let identities = service.get_with("/auth/me/identities", access).await;
    let providers: Vec<&Value> =
        identities.body["identities"].as_array().unwrap().iter().map(|i| &i["provider"]).collect();
    assert_eq!(providers, ["second"], "{}", identities.text);

    let records = recorded(&service).await;
    let told: Vec<(Value, Value, Value)> =
        records.iter().map(|r| (after(r, "types"), after(r, "sessions_ended"), after(r, "identity"))).collect();
    let expected = [
        (json!(["apple:account-delete"]), json!(0), json!("taken_away")),
        (json!(["apple:account-delete"]), json!(1), json!("kept_as_the_last_one")),
        (json!(["apple:consent-revoked"]), json!(1), Value::Null),
    ];
    assert_eq!(told, expected);
    assert!(records.iter().all(|r| r["target"] == first["user_id"]));
    assert!(!json!(records).to_string().contains("privaterelay"));
}

#[tokio::test]
async fn a_notice_under_one_name_of_the_issuer_reaches_identities_under_the_other() {
    let service = start().await;
    let (url, other) = (service.issuer.url.clone(), format!("{}/account", service.issuer.url));
    let more_config = format!(
        "[[providers]]\nname = \"apple\"\nissuer = [{url:?}, {other:?}]\njwks_uri = \"{url}/jwks\"\n\
         client_ids = [\"ios\"]\nnotices = \"apple\"\n"
    );
    let service = service.restart(Setup { more_config, ..Setup::default() }).await;
    let token = service.issuer.token().claim("iss", other.as_str()).claim("aud", "ios").sign();
    let through = service.post("/auth/id-token/signin", json!({"id_token": token, "provider": "apple"})).await;
    let body = through.signed_in().clone();
    taken(&service, &notice(&service, "consent-revoked").claim("iss", url.as_str()).claim("aud", "ios").sign())
        .await;
    assert!(!lives(&service, &body).await);
    assert_eq!(recorded(&service).await[0]["target"], body["user_id"]);
}

#[tokio::test]
async fn a_notice_of_a_relayed_address_is_recorded_and_ends_nothing() {
    let service = start().await;
    let body = signed_in_as(&service, "subject-1").await;
    for kind in ["email-disabled", "email-enabled"] {
        let payload = notice(&service, kind).sign();
        taken(&service, &payload).await;
        taken(&service, &payload).await;
        service.clock.advance(Duration::from_secs(1));
    }
    assert!(lives(&service, &body).await);
    let types: Vec<Value> = recorded(&service).await.iter().map(|r| after(r, "types")).collect();
    assert_eq!(types, [json!(["apple:email-enabled"]), json!(["apple:email-disabled"])]);
}

#[tokio::test]
async fn a_notice_that_comes_again_ends_nothing_that_began_later_and_an_old_one_is_refused() {
    let service = start().await;
    let payload = notice(&service, "account-delete").sign();
    service.clock.advance(Duration::from_secs(600));
    let later = signed_in_as(&service, "subject-1").await;
    for _ in 0..2 {
        taken(&service, &payload).await;
        assert!(lives(&service, &later).await);
    }
    service.clock.advance(Duration::from_secs(86_400));
    let refused = tell(&service, &payload).await;
    assert_eq!(refused.expect(400, "invalid_request").body["reason"], "id_token_claim_invalid");
}

#[tokio::test]
async fn what_is_no_notice_of_such_a_provider_is_refused() {
    let service = start().await;
    let body = signed_in_as(&service, "subject-1").await;
    let good = || notice(&service, "consent-revoked");
    let mut changed = good().sign();
    changed.replace_range(changed.len() - 4.., "AAAA");
    let events = |text: &str| good().claim("events", text).sign();
    for (payload, reason) in [
        ("x".to_owned(), "malformed_id_token"),
        (changed, "id_token_signature_invalid"),
        (service.issuer.token().sign(), "id_token_claim_invalid"),
        (good().header("typ", "secevent+jwt").sign(), "id_token_type_refused"),
        (
            good().claim("events", json!({"type": "consent-revoked", "sub": "subject-1"})).sign(),
            "id_token_claim_invalid",
        ),
        (events("[]"), "id_token_claim_invalid"),
        (events(r#"{"type":"consent-revoked"}"#), "id_token_claim_invalid"),
        (events(r#"{"type":"consent-revoked","sub":7}"#), "id_token_claim_invalid"),
        (events(r#"{"type":"other","sub":"subject-1"}"#), "id_token_claim_invalid"),
        (events(r#"{"type":"other","type":"consent-revoked","sub":"subject-1"}"#), "id_token_claim_invalid"),
        (good().without("jti").sign(), "id_token_claim_invalid"),
        (good().without("iat").sign(), "id_token_claim_invalid"),
        (good().claim("exp", service.clock.now_s() - 3_600).sign(), "id_token_expired"),
        (good().claim("aud", "another-app").sign(), "no_provider_fits"),
        (good().claim("iss", SECOND).sign(), "no_provider_fits"),
    ] {
        let refused = tell(&service, &payload).await;
        assert_eq!(refused.expect(400, "invalid_request").body["reason"], reason, "{}", refused.text);
    }
    // One form is not taken for the other.
    push(&service, &good().sign()).await.expect(400, "invalid_request");
    for wrong in [json!({}), json!({"payload": 7}), json!([]), json!({"payload": null})] {
        let request = service.http().post(service.url("/auth/security-events")).json(&wrong);
        service.send(request).await.expect(400, "invalid_request");
    }
    service
        .sign_in(&good().claim("exp", service.clock.now_s() + 300).sign())
        .await
        .expect(401, "id_token_claim_invalid");
    assert!(lives(&service, &body).await);
}
