//! `fn token(s, d, token)`: what a tenant's script adds to access tokens, and what it cannot.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mfa::enrol;
use crate::oauth::{APP, SHOP, exchange_as, refresh_as};
use crate::support::service::{Service, Setup};

async fn with(token: &str) -> (TempDir, Service) {
    on(token, Setup::default()).await
}

/// With the clients of the OAuth tests: `shop` has the audience `https://api.example`, `app` has none.
async fn with_clients(token: &str) -> (TempDir, Service) {
    on(token, crate::oauth::setup()).await
}

async fn on(token: &str, setup: Setup) -> (TempDir, Service) {
    let script = format!(
        "fn assess(s, risk) {{ if s.history.sign_ins_total == 1 {{ risk.require_mfa(\"new_device\"); }} }}\n\
         fn token(s, d, token) {{ {token} }}"
    );
    let dir = TempDir::new().unwrap();
    let policies = Setup::with_policies(dir.path(), &[("risk/default.rhai", &script)]).policies;
    let service = Service::start_with(Setup { policies, ..setup }).await;
    (dir, service)
}

fn claims(token: &Value) -> Value {
    let part = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_script_adds_claims_that_stay_through_refresh_and_second_factor() {
    let (_dir, service) = with(
        "token.claim(\"plan\", \"gold\"); token.claim(\"level\", d.level); token.claim(\"roles\", [\"a\", \"b\"]); \
         token.claim(\"none\", ()); token.claim(\"factors\", d.factors_used); token.claim(\"country\", s.request.country);",
    )
    .await;
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    let body = answer.signed_in();
    let told = claims(&body["access_token"]);
    assert_eq!(
        (&told["plan"], &told["level"], &told["roles"]),
        (&"gold".into(), &"low".into(), &json!(["a", "b"]))
    );
    assert_eq!(told["factors"], json!([]));
    assert!(told.get("none").is_none() && told.get("country").is_none());
    let refreshed = service.post("/auth/refresh", json!({"refresh_token": body["refresh_token"]})).await;
    assert_eq!(claims(&refreshed.signed_in()["access_token"])["plan"], "gold");
    // The claims of the token are the server's own: the bearer check takes it.
    assert_eq!(service.get_with("/auth/me", body["access_token"].as_str().unwrap()).await.status, 200);
}

#[tokio::test]
async fn after_a_second_factor_the_script_knows_of_it() {
    let (_dir, service) = with("token.claim(\"factors\", d.factors_used);").await;
    let secret = enrol(&service).await;
    service.clock.advance(std::time::Duration::from_secs(60));
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    let challenge = answer.challenged()["challenge_token"].clone();
    let code = crate::mfa::code(&service, &secret, 0);
    let passed =
        service.post("/auth/mfa/verify-challenge", json!({"challenge_token": challenge, "code": code})).await;
    assert_eq!(claims(&passed.signed_in()["access_token"])["factors"], json!(["totp"]));
}

#[tokio::test]
async fn a_token_script_that_fails_or_reaches_too_far_gives_no_token() {
    for token in [
        "token.claim(\"sub\", \"root\");",
        "token.claim(\"iss\", \"https://elsewhere.example\");",
        "token.claim(\"exp\", 9999999999);",
        "token.claim(\"amr\", [\"mfa\"]);",
        "token.claim(\"tenant_id\", \"other\");",
        "token.claim(\"scope\", \"admin\");",
        "token.claim(\"cnf\", \"x\");",
        "token.claim(\"Not A Name\", 1);",
        "for i in 0..17 { token.claim(`c${i}`, i); }",
        "let x = \"\"; x.pad(3000, 'x'); token.claim(\"x\", x);",
        "token.claim(\"x\", #{ a: 1 });",
        "throw \"no\";",
        "loop {}",
        "d.level = \"low\"; token.claim(\"x\", 1);",
        "token.audience(\"https://elsewhere.example\");",
        "token.audience(\"https://api.example\");",
        "token.audience(\"\");",
        "token.audience([d.audiences[0], \"https://elsewhere.example\"]);",
        "token.audience(d.audiences[0] + \"/\");",
        "token.audience(d.audiences[0] + \" https://elsewhere.example\");",
        "token.audience(d.audiences[0].to_upper());",
        "d.audiences.push(\"https://elsewhere.example\"); token.audience(\"https://elsewhere.example\");",
        "d.audiences = [\"https://elsewhere.example\"]; token.audience(\"https://elsewhere.example\");",
        "token.audience(());",
        "token.audience(7);",
        "token.claim(\"aud\", d.audiences[0]);",
        "token.scope_remove(\"\");",
        "token.scope_remove(\"read write\");",
        "token.scope_remove(\"r\u{e9}ad\");",
        "token.scope_remove(\"re\\\"ad\");",
        "token.scope_remove(());",
        "let x = \"\"; x.pad(129, 'x'); token.scope_remove(x);",
        "token.scope_add(\"admin\");",
    ] {
        let (_dir, service) = with(token).await;
        let answer = service.sign_in(&service.issuer.token().sign()).await;
        answer.expect(403, "sign_in_denied");
        assert!(answer.text.contains("policy_error"), "{token}: {}", answer.text);
    }
}

const API: &str = "https://api.example";
/// The audience of tokens that nobody narrowed.
const SERVER: &str = "http://127.0.0.1:8080";

#[tokio::test]
async fn a_script_narrows_tokens_to_an_audience_of_the_registered_client_and_they_stay_so() {
    let (_dir, service) = with_clients(
        "if \"https://api.example\" in d.audiences { token.audience(\"https://api.example\"); } \
         token.scope_remove(\"orders:write\");",
    )
    .await;
    let narrowed = exchange_as(&service, &SHOP, &service.issuer.token().sign(), &[]).await;
    assert_eq!(narrowed.status, 200, "{}", narrowed.text);
    let told = claims(&narrowed.body["access_token"]);
    assert_eq!((&told["aud"], told.get("scope")), (&json!(API), None));
    // What is for the API alone opens nothing here.
    let access = narrowed.body["access_token"].as_str().unwrap();
    service.get_with("/auth/me", access).await.expect(401, "invalid_access_token");
    let refreshed = refresh_as(&service, &SHOP, narrowed.body["refresh_token"].as_str().unwrap()).await;
    assert_eq!(claims(&refreshed.body["access_token"])["aud"], API);
    // A client without that audience, and the JSON endpoint, which has no client at all.
    let token = |who: &str| service.issuer.token().subject(who).sign();
    let other = exchange_as(&service, &APP, &token("second"), &[]).await;
    let own = claims(&other.body["access_token"])["aud"].clone();
    assert_eq!(own, claims(&other.body["access_token"])["iss"]);
    let plain = service.sign_in(&token("third")).await;
    assert_eq!(claims(&plain.signed_in()["access_token"])["aud"], own);
}

#[tokio::test]
async fn an_audience_that_was_asked_for_cannot_be_changed_nor_one_be_added() {
    for (script, asked) in [
        // The first of all audiences is this server, which was not asked for.
        (format!("token.audience(\"{SERVER}\");"), true),
        (format!("token.audience(\"{API}\"); token.audience(\"{SERVER}\");"), false),
        ("token.audience(\"https://other.example\");".to_owned(), true),
    ] {
        let (_dir, service) = with_clients(&script).await;
        let more = [("audience", API)];
        let more = if asked { &more[..] } else { &[] };
        let answer = exchange_as(&service, &SHOP, &service.issuer.token().sign(), more).await;
        assert_eq!(answer.expect(400, "invalid_request").body["reason"], "sign_in_denied", "{script}");
        assert!(answer.text.contains("policy_error"), "{script}: {}", answer.text);
    }
    let script =
        "token.claim(\"can\", d.audiences); token.audience(d.audiences[0]); token.audience(d.audiences[0]);";
    let (_dir, service) = with_clients(script).await;
    let asked = exchange_as(&service, &SHOP, &service.issuer.token().sign(), &[("audience", API)]).await;
    let told = claims(&asked.body["access_token"]);
    assert_eq!((&told["aud"], &told["can"]), (&json!(API), &json!([API])));
    let plain = exchange_as(&service, &SHOP, &service.issuer.token().subject("second").sign(), &[]).await;
    let told = claims(&plain.body["access_token"]);
    assert_eq!((&told["aud"], &told["can"]), (&told["iss"], &json!([told["iss"], API])));
}
