//! A challenge that can be answered in two ways: by a code to an address, or to a number.

use std::path::PathBuf;
use std::time::Duration;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::mfa_webhook::{KEY, Receiver, webhook};
use super::plugin_ports::{DEMAND, challenge, channel, lines, send};
use crate::support::plugins::Bench;
use crate::support::service::{Service, Setup};

pub struct Running {
    pub service: Service,
    /// Messages by e-mail.
    pub outbox: PathBuf,
    /// What went to the endpoint.
    pub receiver: Receiver,
    pub kept: (Bench, TempDir),
}

impl Running {
    /// The code that was sent last.
    fn code(&self, method: &str) -> Value {
        match method {
            "email" => lines(&self.outbox).last().unwrap()["code"].clone(),
            _ => {
                let body = self.receiver.received().last().unwrap().body.clone();
                serde_json::from_str::<Value>(&body).unwrap()["data"]["code"].clone()
            }
        }
    }
}

/// As [`with_second`], with text messages and a script of the tokens.
async fn with_two_channels(token: &str) -> Running {
    let script = format!("{DEMAND}\nfn token(s, d, token) {{ {token} }}");
    with_second("sms", &["mfa.begin"], "", &script).await
}

/// A user with a verified address and a verified number, a channel by e-mail, and another method by the endpoint, with
/// more lines for the lock.
pub async fn with_second(method: &str, hooks: &[&str], lock: &str, script: &str) -> Running {
    let (bench, receiver) = (Bench::new(), Receiver::default());
    bench.secret("mfa_webhook", &format!("whsec_{}", BASE64.encode(KEY)));
    let (email, outbox) = channel(&bench, &["mfa.begin"], "");
    let second = webhook(&bench, &receiver.clone().start().await, method, hooks).with(lock);
    let bench = bench.lock(&email).lock(&second);
    let policies = TempDir::new().unwrap();
    let mut setup = Setup::with_policies(policies.path(), &[("risk/default.rhai", script)]);
    setup.plugins_lock = Some(bench.write());
    let service = Service::start_with(setup).await;
    let token = service.issuer.token().claim("email", "ada@example.com").claim("email_verified", true);
    let token = token.claim("phone_number", "+46701234567").claim("phone_number_verified", true);
    service.sign_in(&token.sign()).await.signed_in();
    Running { service, outbox, receiver, kept: (bench, policies) }
}

#[tokio::test]
async fn of_two_methods_the_tokens_are_those_of_the_one_that_was_used() {
    for (script, by_method) in [
        ("token.claim(\"how\", d.factors_used);", true),
        ("token.claim(\"how\", d.reasons);", false),
        ("if \"sms\" in d.factors_used { token.claim(\"how\", [\"sms\"]); }", true),
    ] {
        let running = with_two_channels(script).await;
        let service = &running.service;
        let mut told = Vec::new();
        for method in ["sms", "email"] {
            let challenged = challenge(service).await;
            let body = challenged.challenged();
            assert_eq!(body["required_mfa_methods"], json!(["email", "sms"]));
            let sent = send(service, &body["challenge_token"], method).await;
            assert_eq!(sent.status, 200, "{}", sent.text);
            let code = running.code(method);
            let answer = json!({"challenge_token": body["challenge_token"], "mfa_method": method, "code": code});
            let passed = service.post("/auth/mfa/verify-challenge", answer).await;
            let access = passed.signed_in()["access_token"].as_str().unwrap().to_owned();
            let claims = BASE64URL_NOPAD.decode(access.split('.').nth(1).unwrap().as_bytes()).unwrap();
            told.push(serde_json::from_slice::<Value>(&claims).unwrap()["how"].clone());
            service.clock.advance(Duration::from_secs(60));
        }
        let expected = match (by_method, script.starts_with("if")) {
            (true, true) => [json!(["sms"]), Value::Null],
            (true, false) => [json!(["sms"]), json!(["email"])],
            (false, _) => [json!(["new_device"]), json!(["new_device"])],
        };
        assert_eq!(told, expected, "{script}");
    }
}

#[tokio::test]
async fn a_script_that_fails_for_one_of_two_methods_opens_no_challenge() {
    let script = "if \"sms\" in d.factors_used { throw \"no\"; }";
    let running = with_two_channels(script).await;
    let answer = challenge(&running.service).await;
    answer.expect(403, "sign_in_denied");
    assert!(answer.text.contains("policy_error"), "{}", answer.text);
}
