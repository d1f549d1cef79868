//! Codes that go to the endpoint of a tenant over HTTP and come back as the answer to a challenge.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use countersign::http::serve::serve;
use data_encoding::BASE64;
use poem::http::StatusCode;
use poem::{Endpoint, EndpointExt, IntoResponse, Request, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::plugin_ports::{challenge, send, verify};
use crate::support::plugins::{Bench, Entry, MFA_WEBHOOK};
use crate::support::service::{Answer, Service, Setup};

pub const KEY: &[u8] = b"a key of thirty-two bytes, random";

#[derive(Clone)]
pub struct Received {
    pub id: String,
    pub idempotency_key: String,
    time: String,
    signatures: String,
    pub body: String,
}

/// The endpoint of a tenant: answers as it is told, then with 202.
#[derive(Clone, Default)]
pub struct Receiver {
    received: Arc<Mutex<Vec<Received>>>,
    pub statuses: Arc<Mutex<VecDeque<u16>>>,
    /// Bodies of answers; empty ones when there is none left.
    pub answers: Arc<Mutex<VecDeque<String>>>,
    /// Whether answers are held back.
    pub holds: Arc<AtomicBool>,
}

impl Endpoint for Receiver {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let header = |name: &str| request.header(name).unwrap_or_default().to_owned();
        let (id, idempotency_key) = (header("webhook-id"), header("idempotency-key"));
        let (time, signatures) = (header("webhook-timestamp"), header("webhook-signature"));
        let body = request.take_body().into_string().await?;
        self.received.lock().unwrap().push(Received { id, idempotency_key, time, signatures, body });
        while self.holds.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let status = StatusCode::from_u16(self.statuses.lock().unwrap().pop_front().unwrap_or(202)).unwrap();
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or_default();
        Ok(answer.with_status(status).into_response())
    }
}

impl Receiver {
    pub async fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/codes", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, self.boxed(), std::future::pending()));
        url
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

pub fn is_signed(message: &Received) -> bool {
    let signed = format!("{}.{}.{}", message.id, message.time, message.body);
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY);
    message.signatures.split(' ').all(|signature| {
        let tag = BASE64.decode(signature.strip_prefix("v1,").unwrap().as_bytes()).unwrap();
        hmac::verify(&key, signed.as_bytes(), &tag).is_ok()
    })
}

/// The plugin, sending codes of this method to a receiver.
pub fn webhook(bench: &Bench, url: &str, method: &str, hooks: &[&str]) -> Entry {
    let entry = bench.rust(MFA_WEBHOOK, "countersign.mfa_webhook").hooks(hooks);
    let entry = entry.with(&format!("method = \"{method}\"\ndeadline_ms = 10000"));
    let entry = entry.with("grants = { http = [\"127.0.0.1\"], secrets = [\"mfa_webhook\"] }");
    entry.with(&format!(
        "config = {{ endpoints = {{ default = {{ url = \"{url}\", secrets = [\"mfa_webhook\"] }} }} }}"
    ))
}

async fn start(receiver: &Receiver) -> (Service, Bench, TempDir) {
    start_for(receiver, "email", &["mfa.begin"]).await
}

async fn start_for(receiver: &Receiver, method: &str, hooks: &[&str]) -> (Service, Bench, TempDir) {
    let url = receiver.clone().start().await;
    let bench = Bench::new();
    bench.secret("mfa_webhook", &format!("whsec_{}", BASE64.encode(KEY)));
    let entry = webhook(&bench, &url, method, hooks);
    let bench = bench.lock(&entry);
    let policies = TempDir::new().unwrap();
    let service = Service::start_with(setup(&bench, &policies)).await;
    let token = service.issuer.token().claim("email", "ada@example.com").claim("email_verified", true);
    service.sign_in(&token.sign()).await.signed_in();
    (service, bench, policies)
}

fn setup(bench: &Bench, policies: &TempDir) -> Setup {
    let rules = r#"fn assess(s, risk) { if s.history.sign_ins_total > 0 { risk.require_mfa("new_device"); } }"#;
    let mut setup = Setup::with_policies(policies.path(), &[("risk/_default.rhai", rules)]);
    setup.plugins_lock = Some(bench.write());
    setup
}

async fn open_challenge(service: &Service) -> Value {
    challenge(service).await.challenged()["challenge_token"].clone()
}

#[tokio::test]
async fn a_code_reaches_the_endpoint_signed_and_finishes_the_sign_in() {
    let receiver = Receiver::default();
    receiver.statuses.lock().unwrap().extend([503, 409]);
    let (service, _bench, _policies) = start(&receiver).await;
    let token = open_challenge(&service).await;
    let sent = send(&service, &token, "email").await;
    assert_eq!(sent.status, 200, "{}", sent.text);
    let received = receiver.received();
    assert_eq!(received.len(), 3, "tried until it was taken");
    assert!(received.iter().all(is_signed));
    assert!(received.iter().all(|r| r.id == received[0].id && r.idempotency_key == r.id));
    assert!(received.iter().all(|r| r.body == received[0].body));
    let body: Value = serde_json::from_str(&received[0].body).unwrap();
    assert_eq!(body["data"]["destination"], "ada@example.com");
    let code = body["data"]["code"].as_str().unwrap();
    verify(&service, &token, if code == "123456" { "654321" } else { "123456" })
        .await
        .expect(400, "invalid_mfa_code");
    verify(&service, &token, code).await.signed_in();
}

#[tokio::test]
async fn another_message_has_another_identifier() {
    let receiver = Receiver::default();
    let (service, _bench, _policies) = start(&receiver).await;
    let token = open_challenge(&service).await;
    assert_eq!(send(&service, &token, "email").await.status, 200);
    service.clock.advance(Duration::from_secs(21));
    assert_eq!(send(&service, &token, "email").await.status, 200);
    let received = receiver.received();
    assert_eq!(received.len(), 2);
    assert_ne!(received[0].id, received[1].id);
}

#[tokio::test]
async fn what_the_endpoint_answers_is_told_apart() {
    for (statuses, status, error, requests) in [
        (vec![422], 400, "mfa_method_not_allowed", 1),
        (vec![410], 400, "mfa_method_not_allowed", 1),
        (vec![401], 503, "channel_unavailable", 1),
        (vec![302], 503, "channel_unavailable", 1),
        (vec![500, 500, 500, 500], 503, "channel_unavailable", 3),
    ] {
        let receiver = Receiver::default();
        receiver.statuses.lock().unwrap().extend(&statuses);
        let (service, _bench, _policies) = start(&receiver).await;
        let token = open_challenge(&service).await;
        send(&service, &token, "email").await.expect(status, error);
        assert_eq!(receiver.received().len(), requests, "{statuses:?}");
        let guess = json!({"challenge_token": token, "mfa_method": "email", "code": "000000"});
        let answer = service.post("/auth/mfa/verify-challenge", guess).await;
        assert_ne!(answer.status, 200, "a code that nobody got opens nothing");
    }
}

async fn confirm(service: &Service, challenge: &Value, code: &str) -> Answer {
    let body = json!({"challenge_token": challenge, "mfa_method": "push", "code": code});
    service.post("/auth/mfa/verify-challenge", body).await
}

#[tokio::test]
async fn a_push_is_waited_for_without_counting_and_gives_tokens_when_the_user_confirms() {
    let receiver = Receiver::default();
    let (service, _bench, _policies) = start_for(&receiver, "push", &["mfa.begin", "mfa.verify"]).await;
    let challenged = challenge(&service).await;
    assert_eq!(challenged.challenged()["required_mfa_methods"], json!(["push"]));
    let token = challenged.body["challenge_token"].clone();
    confirm(&service, &token, "").await.expect(400, "invalid_mfa_code");
    let status = |status: &str| receiver.answers.lock().unwrap().push_back(json!({"status": status}).to_string());
    receiver.answers.lock().unwrap().push_back(json!({"reference": "p-1"}).to_string());
    let sent = send(&service, &token, "push").await;
    assert_eq!((sent.status, &sent.body["destination"]), (200, &json!("")), "{}", sent.text);
    // More often than wrong codes are forgiven, for a challenge and for a user.
    for _ in 0..12 {
        status("pending");
        let pending = confirm(&service, &token, "").await;
        assert_eq!(pending.expect(400, "mfa_pending").headers["retry-after"], "1");
        service.clock.advance(Duration::from_secs(1));
    }
    // A code that is not right yet is a guess.
    status("pending");
    confirm(&service, &token, "42").await.expect(400, "invalid_mfa_code");
    status("denied");
    confirm(&service, &token, "").await.expect(400, "invalid_mfa_code");
    service.clock.advance(Duration::from_secs(1));
    confirm(&service, &token, "").await.expect(503, "channel_unavailable");
    service.clock.advance(Duration::from_secs(1));
    status("approved");
    confirm(&service, &token, "").await.signed_in();
    confirm(&service, &token, "").await.expect(400, "challenge_used");
    let received = receiver.received();
    assert!(received.iter().all(is_signed));
    let push: Value = serde_json::from_str(&received[0].body).unwrap();
    assert_eq!((&push["type"], push["data"].get("code")), (&json!("mfa.push"), None));
    let asked: Value = serde_json::from_str(&received[1].body).unwrap();
    assert_eq!((&asked["type"], &asked["data"]["reference"]), (&json!("mfa.push_status"), &json!("p-1")));
    assert_eq!(asked["data"]["delivery_id"], received[0].id);
    assert_eq!(
        service.sign_in(&service.issuer.token().sign()).await.challenged()["mfa_check_reason"],
        "new_device"
    );
}

#[tokio::test]
async fn refused_pushes_end_the_challenge_and_a_user_without_a_device_is_asked_for_none() {
    let receiver = Receiver::default();
    let (service, _bench, _policies) = start_for(&receiver, "push", &["mfa.begin", "mfa.verify"]).await;
    let token = open_challenge(&service).await;
    receiver.statuses.lock().unwrap().push_back(422);
    send(&service, &token, "push").await.expect(400, "mfa_method_not_allowed");
    for _ in 0..5 {
        receiver.answers.lock().unwrap().push_back(json!({"status": "denied"}).to_string());
        confirm(&service, &token, "").await.expect(400, "invalid_mfa_code");
        service.clock.advance(Duration::from_secs(1));
    }
    confirm(&service, &token, "").await.expect(400, "challenge_expired");
}

#[tokio::test]
async fn a_push_is_looked_at_once_a_second_whoever_asks_and_no_look_is_a_wrong_code() {
    let receiver = Receiver::default();
    let (service, bench, policies) = start_for(&receiver, "push", &["mfa.begin", "mfa.verify"]).await;
    let other = service.second_node(setup(&bench, &policies)).await;
    let token = open_challenge(&service).await;
    let answer = |answer: Value| receiver.answers.lock().unwrap().push_back(answer.to_string());
    answer(json!({"reference": "p-1"}));
    assert_eq!(send(&service, &token, "push").await.status, 200);
    let asked = || receiver.received().len() - 1;
    for second in 1..=3 {
        answer(json!({"status": "pending"}));
        let nodes = (0..30).map(|i| confirm(if i % 2 == 0 { &service } else { &other }, &token, ""));
        for pending in futures_util::future::join_all(nodes).await {
            assert_eq!(pending.expect(400, "mfa_pending").headers["retry-after"], "1");
        }
        assert_eq!(asked(), second);
        service.clock.advance(Duration::from_millis(999));
        confirm(&other, &token, "").await.expect(400, "mfa_pending");
        assert_eq!(asked(), second, "not yet");
        service.clock.advance(Duration::from_millis(1));
    }
    // Who does not hold the challenge learns nothing of it.
    let torn = json!(format!("{}x", token.as_str().unwrap()));
    confirm(&service, &torn, "").await.expect(400, "invalid_challenge");
    answer(json!({"status": "approved"}));
    confirm(&other, &token, "").await.signed_in();
    confirm(&service, &token, "").await.expect(400, "challenge_used");
}

#[tokio::test]
async fn a_clock_that_runs_behind_makes_nobody_wait_longer_for_the_next_look() {
    let receiver = Receiver::default();
    let (service, _bench, _policies) = start_for(&receiver, "push", &["mfa.begin", "mfa.verify"]).await;
    let token = open_challenge(&service).await;
    assert_eq!(send(&service, &token, "push").await.status, 200);
    receiver.answers.lock().unwrap().push_back(json!({"status": "pending"}).to_string());
    confirm(&service, &token, "").await.expect(400, "mfa_pending");
    service.clock.set_back(Duration::from_secs(60));
    assert_eq!(confirm(&service, &token, "").await.expect(400, "mfa_pending").headers["retry-after"], "1");
    service.clock.advance(Duration::from_secs(61));
    receiver.answers.lock().unwrap().push_back(json!({"status": "approved"}).to_string());
    confirm(&service, &token, "").await.signed_in();
}
