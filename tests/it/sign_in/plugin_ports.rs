//! Plugins as verifiers, key sources, channels for codes and observers, through the front door.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::issuer::{TestIssuer, shared_rsa};
use crate::support::plugins::{Bench, Entry, HS256_ISSUER};
use crate::support::service::{Answer, Service, Setup};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub const DEMAND: &str =
    r#"fn assess(s, risk) { if s.history.sign_ins_total > 0 { risk.require_mfa("new_device"); } }"#;

struct Running {
    service: Service,
    bench: Bench,
    policies: TempDir,
}

async fn start(bench: Bench, entry: &Entry, files: &[(&str, &str)]) -> Running {
    let bench = bench.lock(entry);
    let policies = TempDir::new().unwrap();
    let mut setup = Setup::with_policies(policies.path(), files);
    setup.plugins_lock = Some(bench.write());
    Running { service: Service::start_with(setup).await, bench, policies }
}

fn provider_hook(entry: Entry, hook: &str) -> Entry {
    entry.hooks(&[hook]).with("bind = [\"acme\"]\ndeadline_ms = 5000")
}

fn claims(service: &Service) -> Value {
    let now = service.clock.now_s();
    json!({"iss": service.issuer.url, "aud": TestIssuer::CLIENT, "sub": "s-1", "iat": now, "exp": now + 300})
}

fn hs256(claims: &Value, secret: &str) -> String {
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", encode(&json!({"alg": "HS256", "typ": "JWT"})), encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

#[tokio::test]
async fn a_verifier_answers_for_the_signature_and_the_server_for_the_claims() {
    let bench = Bench::new();
    bench.secret("legacy", SECRET);
    let entry = bench.rust(HS256_ISSUER, "countersign.hs256_issuer").with("config = { secret = \"legacy\" }");
    let entry = provider_hook(entry, "provider.verify").with("grants = { secrets = [\"legacy\"] }");
    let running = start(bench, &entry, &[]).await;
    let service = &running.service;
    let good = claims(service);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        hs256(&claims, SECRET)
    };
    let late = service.clock.now_s() - 3600;
    for (token, error) in [
        (hs256(&good, "another secret of thirty-two bytes"), "id_token_rejected"),
        (service.issuer.token().sign(), "id_token_rejected"),
        ("opaque".to_owned(), "id_token_rejected"),
        ("x".repeat(17_000), "malformed_id_token"),
        (with("aud", "other".into()), "id_token_audience_mismatch"),
        (with("iss", "https://other.example".into()), "id_token_issuer_mismatch"),
        (with("exp", late.into()), "id_token_expired"),
        (with("iat", late.into()), "id_token_too_old"),
        (with("exp", Value::Null), "id_token_claim_invalid"),
    ] {
        let answer = service.sign_in(&token).await;
        assert_eq!(answer.error(), error, "{}", answer.text);
    }
    service.sign_in(&hs256(&good, SECRET)).await.signed_in();
    service.sign_in(&hs256(&good, SECRET)).await.expect(401, "id_token_replayed");
    let mut form = good.clone();
    form["note"] = "another token".into();
    service.sign_in(&hs256(&form, SECRET)).await.signed_in();
    // Nobody but the named provider gets a token that is none of ours.
    let unnamed = service.post("/auth/id-token/signin", json!({"id_token": "opaque"})).await;
    unnamed.expect(400, "malformed_id_token");
}

#[tokio::test]
async fn a_verifier_out_of_reach_or_out_of_its_mind_lets_nobody_in() {
    for (mode, status, error) in [
        ("unavailable", 503, "provider_unavailable"),
        ("panic", 503, "provider_unavailable"),
        ("garbage", 503, "provider_unavailable"),
        ("silent", 503, "provider_unavailable"),
        ("reject", 401, "id_token_rejected"),
        ("decline", 401, "id_token_rejected"),
    ] {
        let bench = Bench::new();
        let entry = provider_hook(bench.misbehaving(&format!("verify = \"{mode}\"")), "provider.verify");
        let running = start(bench, &entry, &[]).await;
        let token = claims(&running.service).to_string();
        running.service.sign_in(&token).await.expect(status, error);
    }
    let bench = Bench::new();
    let entry = provider_hook(bench.misbehaving("verify = \"ok\""), "provider.verify");
    let running = start(bench, &entry, &[]).await;
    let spaced = claims(&running.service).to_string();
    running.service.sign_in(&spaced).await.signed_in();
    // Another text of the same claims is the same token.
    running.service.sign_in(&spaced.replace(',', ", ")).await.expect(401, "id_token_replayed");
}

#[tokio::test]
async fn located_keys_verify_tokens_as_jwks_and_as_pem() {
    let jwk = shared_rsa().jwk("rsa-1");
    let der = spki(&jwk);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&der));
    let jwks = json!({"jwks": {"keys": [jwk]}, "ttl_s": 600});
    let pem = json!({"pem": {"rsa-1": pem}, "ttl_s": 600});
    for keys in [jwks, pem] {
        let bench = Bench::new();
        let outbox = bench.path("outbox");
        let keys: toml::Value = toml::Value::try_from(&keys).unwrap();
        let entry = bench.misbehaving(&format!("keys = {keys}, outbox = {:?}", outbox.display().to_string()));
        let running = start(bench, &provider_hook(entry, "provider.locate_keys"), &[]).await;
        let service = &running.service;
        for _ in 0..3 {
            service.sign_in(&service.issuer.token().sign()).await.signed_in();
        }
        assert_eq!(lines(&outbox), [json!({"kid": "rsa-1", "alg": "RS256"})], "asked once, then held");
        let forged = service.issuer.token().with_signature(&[7; 256]);
        service.sign_in(&forged).await.expect(401, "id_token_signature_invalid");
        assert_eq!(service.issuer.fetches.load(std::sync::atomic::Ordering::SeqCst), 0, "the issuer is not asked");
        let stranger = service.issuer.token().header("kid", "unknown").sign();
        service.sign_in(&stranger).await.expect(401, "unknown_key");
        service.clock.advance(Duration::from_secs(601));
        service.sign_in(&service.issuer.token().sign()).await.signed_in();
        assert_eq!(lines(&outbox).len(), 3, "asked again for the unknown one and after the time to live");
    }
}

#[tokio::test]
async fn keys_that_another_plugin_located_are_not_used() {
    let keys = |jwk: Value| toml::Value::try_from(json!({"jwks": {"keys": [jwk]}, "ttl_s": 86_400})).unwrap();
    let (right, wrong) = (keys(shared_rsa().jwk("rsa-1")), keys(shared_rsa().jwk("rsa-2")));
    let bench = Bench::new();
    let entry = provider_hook(bench.misbehaving(&format!("keys = {right}")), "provider.locate_keys");
    let mut running = start(bench, &entry, &[]).await;
    running.service.sign_in(&running.service.issuer.token().sign()).await.signed_in();
    let next = running.bench.misbehaving(&format!("keys = {wrong}"));
    running.bench.relock(&provider_hook(next, "provider.locate_keys"));
    let plugins = std::sync::Arc::clone(running.service.plugins());
    tokio::task::spawn_blocking(move || plugins.reload()).await.unwrap().unwrap();
    running.service.sign_in(&running.service.issuer.token().sign()).await.expect(401, "unknown_key");
}

#[tokio::test]
async fn a_small_located_key_is_no_key_and_an_absent_one_is_503() {
    let mut small = shared_rsa().jwk("rsa-1");
    small["n"] = BASE64URL_NOPAD.encode(&[0xff; 128]).into();
    let keys: toml::Value = toml::Value::try_from(json!({"jwks": {"keys": [small]}, "ttl_s": 600})).unwrap();
    let bench = Bench::new();
    let entry = provider_hook(bench.misbehaving(&format!("keys = {keys}")), "provider.locate_keys");
    let running = start(bench, &entry, &[]).await;
    running.service.sign_in(&running.service.issuer.token().sign()).await.expect(401, "unknown_key");
    let bench = Bench::new();
    let entry = provider_hook(bench.misbehaving("locate_keys = \"unavailable\""), "provider.locate_keys");
    let running = start(bench, &entry, &[]).await;
    running.service.sign_in(&running.service.issuer.token().sign()).await.expect(503, "provider_unavailable");
}

/// SubjectPublicKeyInfo of an RSA key.
pub fn spki(jwk: &Value) -> Vec<u8> {
    let number = |name: &str| {
        let mut bytes = BASE64URL_NOPAD.decode(jwk[name].as_str().unwrap().as_bytes()).unwrap();
        if bytes[0] & 0x80 != 0 {
            bytes.insert(0, 0);
        }
        der(0x02, &bytes)
    };
    let key = der(0x30, &[number("n"), number("e")].concat());
    let oid = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    der(0x30, &[der(0x30, &oid), der(0x03, &[&[0][..], &key].concat())].concat())
}

pub fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        Ok(length) => out.extend([0x81, length]),
        Err(_) => out.extend([0x82, (length >> 8) as u8, (length & 0xff) as u8]),
    }
    out.extend_from_slice(content);
    out
}

pub fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn with_email(bench: Bench, entry: &Entry) -> Running {
    let running = start(bench, entry, &[("risk/_default.rhai", DEMAND)]).await;
    let token = running.service.issuer.token().claim("email", "ada@example.com").claim("email_verified", true);
    running.service.sign_in(&token.sign()).await.signed_in();
    running
}

pub async fn challenge(service: &Service) -> Answer {
    service.sign_in(&service.issuer.token().sign()).await
}

pub async fn send(service: &Service, challenge: &Value, method: &str) -> Answer {
    let body = json!({"challenge_token": challenge, "mfa_method": method});
    service.post("/auth/mfa/challenge", body).await
}

pub async fn verify(service: &Service, challenge: &Value, code: &str) -> Answer {
    let body = json!({"challenge_token": challenge, "mfa_method": "email", "code": code});
    service.post("/auth/mfa/verify-challenge", body).await
}

pub fn channel(bench: &Bench, hooks: &[&str], config: &str) -> (Entry, PathBuf) {
    let outbox = bench.path("outbox");
    let entry = bench.misbehaving(&format!("outbox = {:?}{config}", outbox.display().to_string()));
    (entry.hooks(hooks).with("method = \"email\"\ndeadline_ms = 5000"), outbox)
}

#[tokio::test]
async fn a_code_goes_to_the_address_that_was_verified_before_and_gives_tokens_once() {
    let bench = Bench::new();
    let (entry, outbox) = channel(&bench, &["mfa.begin"], "");
    let running = with_email(bench, &entry).await;
    let challenged = challenge(&running.service).await;
    let body = challenged.challenged();
    assert_eq!(body["required_mfa_methods"], json!(["email"]));
    let token = &body["challenge_token"];
    verify(&running.service, token, "000000").await.expect(400, "invalid_mfa_code");
    let sent = send(&running.service, token, "email").await;
    assert_eq!(sent.status, 200, "{}", sent.text);
    assert_eq!(sent.body["destination"], "a…@example.com");
    let message = lines(&outbox).remove(0);
    assert_eq!((&message["destination"], &message["method"]), (&json!("ada@example.com"), &json!("email")));
    let code = message["code"].as_str().unwrap();
    let wrong = if code == "123456" { "654321" } else { "123456" };
    verify(&running.service, token, wrong).await.expect(400, "invalid_mfa_code");
    send(&running.service, token, "email").await.expect(429, "too_many_messages");
    verify(&running.service, token, code).await.signed_in();
    verify(&running.service, token, code).await.expect(400, "challenge_used");
    send(&running.service, token, "email").await.expect(400, "challenge_used");
}

#[tokio::test]
async fn the_script_of_the_tokens_is_told_of_the_channel_that_was_used() {
    let bench = Bench::new();
    let (entry, outbox) = channel(&bench, &["mfa.begin"], "");
    let script = format!("{DEMAND}\nfn token(s, d, token) {{ token.claim(\"factors\", d.factors_used); }}");
    let running = start(bench, &entry, &[("risk/default.rhai", &script)]).await;
    let token = running.service.issuer.token().claim("email", "ada@example.com").claim("email_verified", true);
    running.service.sign_in(&token.sign()).await.signed_in();
    let token = challenge(&running.service).await.challenged()["challenge_token"].clone();
    send(&running.service, &token, "email").await;
    let passed = verify(&running.service, &token, lines(&outbox)[0]["code"].as_str().unwrap()).await;
    let access = passed.signed_in()["access_token"].as_str().unwrap().to_owned();
    let claims = BASE64URL_NOPAD.decode(access.split('.').nth(1).unwrap().as_bytes()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&claims).unwrap()["factors"], json!(["email"]));
}

#[tokio::test]
async fn messages_are_limited_and_a_new_code_takes_the_place_of_the_old_one() {
    let bench = Bench::new();
    let (entry, outbox) = channel(&bench, &["mfa.begin"], "");
    let running = with_email(bench, &entry).await;
    let token = challenge(&running.service).await.challenged()["challenge_token"].clone();
    for _ in 0..3 {
        assert_eq!(send(&running.service, &token, "email").await.status, 200);
        running.service.clock.advance(Duration::from_secs(21));
    }
    send(&running.service, &token, "email").await.expect(429, "too_many_messages");
    let messages = lines(&outbox);
    let codes: Vec<&str> = messages.iter().map(|m| m["code"].as_str().unwrap()).collect();
    if codes[0] != codes[2] {
        verify(&running.service, &token, codes[0]).await.expect(400, "invalid_mfa_code");
    }
    verify(&running.service, &token, codes[2]).await.signed_in();
    send(&running.service, &json!("chg_x.y"), "email").await.expect(400, "invalid_challenge");
    let other = challenge(&running.service).await.challenged()["challenge_token"].clone();
    send(&running.service, &other, "sms").await.expect(400, "mfa_method_not_allowed");
    send(&running.service, &other, "carrier_pigeon").await.expect(400, "mfa_method_not_allowed");
    running.service.clock.advance(Duration::from_secs(301));
    send(&running.service, &other, "email").await.expect(400, "challenge_expired");
}

#[tokio::test]
async fn a_channel_that_judges_codes_itself_is_asked_and_counted() {
    let bench = Bench::new();
    let (entry, outbox) = channel(&bench, &["mfa.begin", "mfa.verify"], "");
    let running = with_email(bench, &entry).await;
    let token = challenge(&running.service).await.challenged()["challenge_token"].clone();
    assert_eq!(send(&running.service, &token, "email").await.status, 200);
    assert_eq!(lines(&outbox)[0]["code"], Value::Null, "the server makes no code");
    for _ in 0..3 {
        verify(&running.service, &token, "bad").await.expect(400, "invalid_mfa_code");
    }
    verify(&running.service, &token, "good").await.signed_in();
    let token = challenge(&running.service).await.challenged()["challenge_token"].clone();
    assert_eq!(send(&running.service, &token, "email").await.status, 200);
    for _ in 0..5 {
        verify(&running.service, &token, "bad").await.expect(400, "invalid_mfa_code");
    }
    verify(&running.service, &token, "good").await.expect(400, "challenge_expired");
}

#[tokio::test]
async fn without_a_channel_or_a_verified_address_there_is_no_challenge() {
    let policies = TempDir::new().unwrap();
    let setup = Setup::with_policies(policies.path(), &[("risk/_default.rhai", DEMAND)]);
    let service = Service::start_with(setup).await;
    let token = service.issuer.token().claim("email", "ada@example.com").claim("email_verified", true);
    service.sign_in(&token.sign()).await.signed_in();
    service.sign_in(&service.issuer.token().sign()).await.expect(403, "sign_in_denied");
    let bench = Bench::new();
    let (entry, _) = channel(&bench, &["mfa.begin"], "");
    let running = start(bench, &entry, &[("risk/_default.rhai", DEMAND)]).await;
    let unverified = running.service.issuer.token().claim("email", "ada@example.com").sign();
    running.service.sign_in(&unverified).await.signed_in();
    challenge(&running.service).await.expect(403, "sign_in_denied");
    let bench = Bench::new();
    let (entry, _) = channel(&bench, &["mfa.begin"], ", mfa = \"unavailable\"");
    let running = with_email(bench, &entry).await;
    let token = challenge(&running.service).await.challenged()["challenge_token"].clone();
    send(&running.service, &token, "email").await.expect(503, "channel_unavailable");
}

#[tokio::test]
async fn observers_hear_of_every_end_at_least_once_and_after_failures_again() {
    let bench = Bench::new();
    let outbox = bench.path("outbox");
    let config = format!("outbox = {:?}, observe = \"fail_thrice\"", outbox.display().to_string());
    let entry = bench.misbehaving(&config).hooks(&["event.observe"]).with("deadline_ms = 5000");
    let rules = r#"fn assess(s, risk) { if s.history.sign_ins_total > 0 { risk.deny("new_network"); } }"#;
    let running = start(bench, &entry, &[("risk/_default.rhai", rules)]).await;
    let service = &running.service;
    let token = service.issuer.token().sign();
    service.sign_in(&token).await.signed_in();
    service.sign_in(&service.issuer.token().sign()).await.expect(403, "sign_in_denied");
    service.sign_in(&token).await.expect(401, "id_token_replayed");
    let until = Instant::now() + Duration::from_secs(60);
    let settled = loop {
        let settled: Vec<Value> = lines(&outbox).into_iter().filter(|e| e["settled"] == true).collect();
        if settled.len() == 3 {
            break settled;
        }
        assert!(Instant::now() < until, "{:?}", lines(&outbox));
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let outcomes: Vec<&str> = settled.iter().map(|e| e["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["signed_in", "denied", "refused"]);
    assert_eq!((&settled[0]["attempt"], &settled[1]["attempt"]), (&json!(4), &json!(1)));
    assert_eq!((&settled[2]["code"], &settled[2]["user"]), (&json!("id_token_replayed"), &Value::Null));
    assert_eq!(settled[1]["code"], "sign_in_denied");
    assert_eq!(lines(&outbox).len(), 6, "three failures of the first, then one each");
    drop(running.bench);
}

#[tokio::test]
async fn a_replay_knows_the_channels_that_the_user_had() {
    let bench = Bench::new();
    let (entry, _outbox) = channel(&bench, &["mfa.begin"], "");
    let running = with_email(bench, &entry).await;
    challenge(&running.service).await.challenged();
    let policies = running.policies.path().join("policies");
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["policy", "replay", "--json", "--since", "4000d", "--candidate"])
        .arg(&policies)
        .arg("--config")
        .arg(running.service.dir.path().join("countersign.toml"))
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"));
    for side in ["before", "after"] {
        assert_eq!(report[side], json!({"allow": 1, "mfa": 1, "deny": 0}), "{report}");
    }
}
