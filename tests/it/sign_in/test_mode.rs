//! Refusals of a provider in test mode list every check; those of others never do.

use serde_json::{Value, json};

use crate::support::issuer::TestIssuer;
use crate::support::plugins::Bench;
use crate::support::service::{Answer, Service, Setup};

const ORDER: [&str; 21] = [
    "shape",
    "header",
    "provider",
    "alg",
    "key",
    "signature",
    "iss",
    "tid",
    "aud",
    "azp",
    "exp",
    "iat",
    "nbf",
    "auth_time",
    "age",
    "nonce",
    "at_hash",
    "sub",
    "jti",
    "issued_nonce",
    "replay",
];

async fn in_test_mode(more: &str) -> Service {
    Service::start_with(Setup::provider(&format!("test_mode = true\n{more}"))).await
}

fn check<'a>(answer: &'a Answer, name: &str) -> &'a Value {
    let checks = answer.body["checks"].as_array().unwrap_or_else(|| panic!("no checks in {}", answer.text));
    checks.iter().find(|c| c["check"] == name).unwrap_or_else(|| panic!("no {name} in {}", answer.text))
}

fn statuses(answer: &Answer, status: &str) -> Vec<String> {
    let checks = answer.body["checks"].as_array().unwrap();
    checks.iter().filter(|c| c["status"] == status).map(|c| c["check"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_refusal_lists_every_check_in_order_with_what_was_expected_and_seen() {
    let service = in_test_mode("").await;
    let now = service.clock.now_s();
    let token = service.issuer.token().claim("exp", now - 400).claim("iat", now - 700).claim("aud", "app-other");
    let answer = service.sign_in(&token.sign()).await;
    answer.expect(401, "id_token_audience_mismatch");
    let names: Vec<&str> =
        answer.body["checks"].as_array().unwrap().iter().map(|c| c["check"].as_str().unwrap()).collect();
    assert_eq!(names, ORDER);
    assert_eq!(statuses(&answer, "failed"), ["aud", "exp", "age"]);
    assert_eq!(check(&answer, "aud")["error"], "id_token_audience_mismatch");
    assert_eq!(check(&answer, "aud")["expected"], "one of 2 client ids");
    assert_eq!(check(&answer, "aud")["seen"], "app-other");
    assert_eq!(check(&answer, "exp")["seen"], "400 s ago");
    assert_eq!(check(&answer, "exp")["message"], "the ID token expired 400 s ago");
    assert_eq!(statuses(&answer, "skipped"), ["azp", "replay"]);
    assert_eq!(statuses(&answer, "unproven"), Vec::<String>::new());
}

#[tokio::test]
async fn claims_under_a_wrong_signature_are_never_shown_as_passed() {
    let service = in_test_mode("").await;
    let answer = service.sign_in(&service.issuer.token().with_signature(&[7; 256])).await;
    answer.expect(401, "id_token_signature_invalid");
    assert_eq!(statuses(&answer, "passed"), ["shape", "header", "provider", "alg", "key"]);
    assert_eq!(statuses(&answer, "failed"), ["signature"]);
    assert_eq!(statuses(&answer, "unproven"), ["iss", "aud", "azp", "exp", "iat", "age", "sub", "jti"]);
    // And neither when the key is not known.
    let unknown = service.sign_in(&service.issuer.token().header("kid", "another").sign()).await;
    unknown.expect(401, "unknown_key");
    assert_eq!(statuses(&unknown, "failed"), ["key"]);
    assert_eq!(check(&unknown, "signature")["status"], "skipped");
    assert!(statuses(&unknown, "unproven").contains(&"iss".to_owned()));
    assert_eq!(statuses(&unknown, "passed"), ["shape", "header", "provider", "alg"]);
}

#[tokio::test]
async fn a_header_that_is_refused_leaves_everything_else_unlooked_at() {
    let service = in_test_mode("").await;
    let token = service.issuer.token().header("typ", "at+jwt").sign();
    let answer = service.sign_in(&token).await;
    answer.expect(401, "id_token_type_refused");
    assert_eq!(statuses(&answer, "passed"), ["shape"]);
    assert_eq!(statuses(&answer, "failed"), ["header"]);
    assert_eq!(statuses(&answer, "skipped"), ORDER[2..]);
    let answer = service.sign_in("no.token").await;
    answer.expect(400, "malformed_id_token");
    assert_eq!(statuses(&answer, "failed"), ["shape"]);
    // A request that names no provider names nobody whose test mode it could be.
    let answer = service.post("/auth/id-token/signin", json!({"id_token": token})).await;
    assert!(answer.expect(401, "id_token_type_refused").body.get("checks").is_none());
}

#[tokio::test]
async fn a_replay_and_a_foreign_nonce_are_shown_at_the_end() {
    let service = in_test_mode("").await;
    let token = service.issuer.token().sign();
    service.sign_in(&token).await.signed_in();
    let answer = service.sign_in(&token).await;
    answer.expect(401, "id_token_replayed");
    assert_eq!(statuses(&answer, "failed"), ["replay"]);
    assert_eq!(check(&answer, "signature")["status"], "passed");

    let service = service.restart(Setup::provider("test_mode = true\nnonce = \"server_issued\"")).await;
    let token = service.issuer.token().claim("nonce", "made-up").sign();
    let body = json!({"id_token": token, "provider": "acme", "nonce": "made-up"});
    let answer = service.post("/auth/id-token/signin", body).await;
    answer.expect(401, "id_token_nonce_mismatch");
    assert_eq!(statuses(&answer, "failed"), ["issued_nonce"]);
    assert_eq!(check(&answer, "replay")["status"], "skipped");
    assert_eq!(check(&answer, "nonce")["status"], "passed");
    assert!(!answer.text.contains("made-up"), "{}", answer.text);
}

#[tokio::test]
async fn the_list_shows_no_personal_claim_and_nothing_secret() {
    let service = in_test_mode("").await;
    let secrets =
        ["sub-4711", "ada@example.com", "nonce-4711", "given-4711", "access-4711", "Lovelace", "jti-4711"];
    let token = service
        .issuer
        .token()
        .subject(secrets[0])
        .claim("email", secrets[1])
        .claim("nonce", secrets[2])
        .claim("name", secrets[5])
        .claim("jti", secrets[6])
        .claim("at_hash", "hash-4711")
        .sign();
    let body = json!({"id_token": token, "provider": "acme", "nonce": secrets[3], "access_token": secrets[4]});
    let answer = service.post("/auth/id-token/signin", body).await;
    answer.expect(401, "id_token_nonce_mismatch");
    assert_eq!(statuses(&answer, "failed"), ["nonce", "at_hash"]);
    for secret in secrets.iter().chain(&["hash-4711", token.rsplit('.').next().unwrap()]) {
        assert!(!answer.text.contains(secret), "{secret} in {}", answer.text);
    }
}

#[tokio::test]
async fn without_test_mode_no_refusal_has_a_list() {
    let service = Service::start().await;
    let answer = service.sign_in(&service.issuer.token().claim("aud", "another").sign()).await;
    answer.expect(401, "id_token_audience_mismatch");
    assert!(answer.body.get("checks").is_none());
    // A sign-in that succeeds has none in test mode either.
    let service = service.restart(Setup::provider("test_mode = true")).await;
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    assert!(answer.signed_in().get("checks").is_none());
}

/// The trace is no second verifier: whatever is wrong with a token, the first check that it shows as failed is
/// the refusal that was answered.
#[tokio::test]
async fn the_first_failed_check_is_the_refusal_that_was_answered() {
    let service = in_test_mode("nonce = \"required\"").await;
    let now = service.clock.now_s();
    let (none, far) = (Value::Null, json!(now + 4000));
    let wrong: [(&str, Value); 24] = [
        ("iss", json!("https://other.example")),
        ("iss", json!(["https://other.example"])),
        ("aud", json!("other-app")),
        ("aud", json!([])),
        ("aud", json!(["app-web", "other-app"])),
        ("azp", json!("other-app")),
        ("azp", json!(1)),
        ("exp", json!(now - 600)),
        ("exp", json!("soon")),
        ("exp", none.clone()),
        ("iat", far.clone()),
        ("iat", json!(now - 4000)),
        ("iat", json!(-1)),
        ("nbf", far.clone()),
        ("nbf", json!(1.5)),
        ("auth_time", far),
        ("auth_time", json!("then")),
        ("nonce", json!("another")),
        ("nonce", json!("")),
        ("at_hash", json!("another")),
        ("sub", json!("")),
        ("sub", json!("s".repeat(300))),
        ("jti", json!(7)),
        ("jti", json!("j".repeat(300))),
    ];
    for (i, (first, value)) in wrong.iter().enumerate() {
        for (second, other) in wrong.iter().skip(i) {
            let token = service.issuer.token().claim("nonce", "n-1").claim("at_hash", "unlike");
            let token = token.claim(second, other.clone()).claim(first, value.clone()).sign();
            let body = json!({"id_token": token, "provider": "acme", "nonce": "n-1", "access_token": "opaque"});
            let answer = service.post("/auth/id-token/signin", body).await;
            let checks =
                answer.body["checks"].as_array().unwrap_or_else(|| panic!("{first} {second}: {}", answer.text));
            let failed = checks.iter().find(|c| c["status"] == "failed").unwrap();
            assert_eq!(failed["error"], answer.body["error"], "{first} {second}: {}", answer.text);
            assert_eq!(failed["message"], answer.body["message"], "{first} {second}");
            assert_eq!(check(&answer, "replay")["status"], "skipped");
        }
    }
}

/// A server in test mode whose tokens are JSON that a plugin believes.
async fn with_verifier(config: &str) -> (Service, Bench) {
    let bench = Bench::new();
    let entry = bench.misbehaving(config).hooks(&["provider.verify"]);
    let bench = bench.lock(&entry.with("bind = [\"acme\"]\ndeadline_ms = 5000"));
    let setup = Setup { plugins_lock: Some(bench.write()), ..Setup::provider("test_mode = true") };
    (Service::start_with(setup).await, bench)
}

#[tokio::test]
async fn the_claims_that_a_verifier_read_are_listed_one_by_one() {
    let (service, _bench) = with_verifier("verify = \"ok\"").await;
    let now = service.clock.now_s();
    let good = json!({
        "iss": service.issuer.url, "aud": TestIssuer::CLIENT, "sub": "sub-4711", "iat": now, "exp": now + 300
    });
    service.sign_in(&good.to_string()).await.signed_in();
    let replayed = service.sign_in(&good.to_string()).await;
    replayed.expect(401, "id_token_replayed");
    assert_eq!(statuses(&replayed, "failed"), ["replay"]);
    assert_eq!(
        statuses(&replayed, "passed"),
        ["provider", "signature", "iss", "aud", "azp", "exp", "iat", "age", "sub"]
    );
    assert_eq!(statuses(&replayed, "skipped"), Vec::<String>::new());
    for (claim, value, failed) in [
        ("iss", json!("https://other.example"), &["iss"][..]),
        ("aud", json!("app-other"), &["aud"]),
        ("azp", json!("app-other"), &["azp"]),
        ("exp", json!(now - 400), &["exp"]),
        ("exp", Value::Null, &["exp"]),
        ("iat", json!(now - 4000), &["age"]),
        ("nbf", json!(now + 4000), &["nbf"]),
        ("sub", json!(""), &["sub"]),
        ("jti", json!(7), &["jti"]),
    ] {
        let mut claims = good.clone();
        claims[claim] = value.clone();
        let answer = service.sign_in(&claims.to_string()).await;
        assert_eq!(statuses(&answer, "failed"), failed, "{claim} = {value}: {}", answer.text);
        let row = check(&answer, failed[0]);
        assert_eq!((&row["error"], &row["message"]), (&answer.body["error"], &answer.body["message"]));
        assert_eq!(check(&answer, "signature")["status"], "passed");
        assert_eq!(check(&answer, "replay")["status"], "skipped");
        assert!(!answer.text.contains("sub-4711"), "{}", answer.text);
        let names: Vec<&Value> = answer.body["checks"].as_array().unwrap().iter().map(|c| &c["check"]).collect();
        assert_eq!(names, ORDER);
    }
}

#[tokio::test]
async fn a_token_that_the_verifier_refuses_leaves_its_claims_unlooked_at() {
    for (mode, status, error) in
        [("reject", 401, "id_token_rejected"), ("unavailable", 503, "provider_unavailable")]
    {
        let (service, _bench) = with_verifier(&format!("verify = \"{mode}\"")).await;
        let answer = service.sign_in("{\"sub\": \"s-1\"}").await;
        answer.expect(status, error);
        assert_eq!(statuses(&answer, "failed"), ["signature"]);
        assert_eq!(check(&answer, "signature")["message"], answer.body["message"]);
        assert_eq!(statuses(&answer, "passed"), ["provider"]);
        assert_eq!(statuses(&answer, "skipped"), ORDER[6..]);
    }
}
