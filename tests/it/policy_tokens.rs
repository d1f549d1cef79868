//! `fn token(s, d, token)`: what a tenant's script adds to access tokens, and what it cannot.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mfa::enrol;
use crate::support::service::{Service, Setup};

async fn with(token: &str) -> (TempDir, Service) {
    let script = format!(
        "fn assess(s, risk) {{ if s.history.sign_ins_total == 1 {{ risk.require_mfa(\"new_device\"); }} }}\n\
         fn token(s, d, token) {{ {token} }}"
    );
    let dir = TempDir::new().unwrap();
    let service = Service::start_with(Setup::with_policies(dir.path(), &[("risk/default.rhai", &script)])).await;
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
    ] {
        let (_dir, service) = with(token).await;
        let answer = service.sign_in(&service.issuer.token().sign()).await;
        answer.expect(403, "sign_in_denied");
        assert!(answer.text.contains("policy_error"), "{token}: {}", answer.text);
    }
}
