//! Apple's issuer has two names in tokens; a person is one user under both.

use std::time::Duration;

use serde_json::{Value, json};

use crate::admin::Role;
use crate::oauth::form;
use crate::support::issuer::TokenBuilder;
use crate::support::service::{JsonBody, Service, Setup};
use crate::support::sessions::lives;

const NAMES: [&str; 2] = ["https://appleid.apple.com", "https://account.apple.com"];
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

async fn start(lines: &str) -> Service {
    let service = Service::start().await;
    let more_config = config(&service, lines);
    service.restart(Setup { more_config, ..Setup::default() }).await
}

fn config(service: &Service, lines: &str) -> String {
    format!(
        "[[providers]]\nname = \"apple\"\npreset = \"apple\"\njwks_uri = \"{}/jwks\"\nclient_ids = [\"ios\"]\n{lines}\n",
        service.issuer.url
    )
}

/// Of `subject-1`, unless something else is said.
fn token(service: &Service, issuer: &str) -> TokenBuilder {
    service.issuer.token().claim("iss", issuer).claim("aud", "ios")
}

async fn sign_in(service: &Service, issuer: &str) -> Value {
    let body = json!({"id_token": token(service, issuer).sign(), "provider": "apple"});
    service.post("/auth/id-token/signin", body).await.signed_in().clone()
}

#[tokio::test]
async fn a_person_under_both_names_is_one_user_with_one_identity() {
    for names in [NAMES, [NAMES[1], NAMES[0]]] {
        let service = start("").await;
        let first = sign_in(&service, names[0]).await;
        let second = sign_in(&service, names[1]).await;
        assert_eq!(first["user_id"], second["user_id"]);
        let shown = service.get_with("/auth/me/identities", first["access_token"].as_str().unwrap()).await;
        let issuers: Vec<&Value> =
            shown.body["identities"].as_array().unwrap().iter().map(|i| &i["issuer"]).collect();
        assert_eq!(issuers, [NAMES[0]], "{}", shown.text);
        // Other issuers keep their own subjects.
        let other = service.sign_in(&service.issuer.token().sign()).await;
        assert_ne!(other.signed_in()["user_id"], first["user_id"]);
    }
}

#[tokio::test]
async fn first_sign_ins_under_both_names_at_once_make_one_user() {
    let service = start("").await;
    let sign_ins = (0..20).map(|i| sign_in(&service, NAMES[i % 2]));
    let users: std::collections::HashSet<String> =
        futures_util::future::join_all(sign_ins).await.iter().map(|body| body["user_id"].to_string()).collect();
    assert_eq!(users.len(), 1);
}

#[tokio::test]
async fn what_the_provider_tells_under_one_name_ends_what_came_under_the_other() {
    let service = start("").await;
    for (came, told) in [(NAMES[0], NAMES[1]), (NAMES[1], NAMES[0]), (NAMES[1], NAMES[1])] {
        let body = sign_in(&service, came).await;
        let events = json!({"type": "consent-revoked", "sub": "subject-1", "event_time": 0}).to_string();
        let notice =
            token(&service, told).without_header("typ").without("sub").without("exp").claim("events", events);
        let request = service.http().post(service.url("/auth/security-events"));
        let answer = service.send(request.json(&json!({"payload": notice.sign()}))).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        assert!(!lives(&service, &body).await, "a notice");

        service.clock.advance(Duration::from_secs(120));
        for claims in [("sub", "subject-1"), ("sid", "sid-1")] {
            let with_sid = token(&service, came).claim("sid", "sid-1").sign();
            let body = json!({"id_token": with_sid, "provider": "apple"});
            let body = service.post("/auth/id-token/signin", body).await.signed_in().clone();
            let ended = token(&service, told).header("typ", "logout+jwt").claim("events", json!({EVENT: {}}));
            let ended = ended.without("sub").claim(claims.0, claims.1).sign();
            let answer = form(&service, "/auth/backchannel-logout", &[("logout_token", &ended)]).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            assert!(!lives(&service, &body).await, "a logout by {}", claims.0);
        }
    }
}

#[tokio::test]
async fn an_invitation_under_one_name_lets_the_person_in_under_the_other() {
    let service = start("provisioning = \"invite\"").await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    let invite = json!({"provider": "apple", "issuer": NAMES[1], "subject": "subject-1"});
    let invited = service.post_with("/admin/invitations", &editor, invite).await;
    assert_eq!((invited.status, &invited.body["issuer"]), (200, &json!(NAMES[0])), "{}", invited.text);
    let body = sign_in(&service, NAMES[0]).await;
    assert_eq!(body["user_id"], invited.body["user_id"]);
    assert_eq!(sign_in(&service, NAMES[1]).await["user_id"], body["user_id"]);
}

#[tokio::test]
async fn mapping_and_rules_see_one_name_whichever_the_token_has() {
    let policies = tempfile::TempDir::new().unwrap();
    let files = [
        (
            "mapping/apple.rhai",
            "fn map(s, out) { if s.provider.issuer != \"https://appleid.apple.com\" { out.reject(\"mapping\"); } }",
        ),
        (
            "risk/default.rhai",
            "fn assess(s, risk) { if s.provider.issuer != \"https://appleid.apple.com\" { risk.deny(\"rules\"); } }",
        ),
    ];
    let service = Service::start().await;
    let more_config = config(&service, "");
    let setup = Setup { more_config, ..Setup::with_policies(policies.path(), &files) };
    let service = service.restart(setup).await;
    for name in NAMES {
        sign_in(&service, name).await;
    }
}
