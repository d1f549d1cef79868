//! MFA methods that plugins bring under names of their own.

use std::sync::atomic::Ordering;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::plugin_ports::{challenge, lines, send};
use super::two_channels::{Running, with_second};
use crate::support::service::Answer;

/// A user with a verified address and number, a channel by e-mail, and one with a name of its own.
async fn start(hooks: &[&str], lock: &str, demand: &str) -> Running {
    let script = format!(
        "fn assess(s, risk) {{ if s.history.sign_ins_total > 0 {{ {demand} }} }}\n\
         fn token(s, d, token) {{ token.claim(\"how\", d.factors_used); }}"
    );
    with_second("acme.voice", hooks, lock, &script).await
}

impl Running {
    fn received(&self) -> Vec<Value> {
        self.receiver.received().iter().map(|r| serde_json::from_str(&r.body).unwrap()).collect()
    }

    fn will_answer(&self, answer: Value) {
        self.receiver.answers.lock().unwrap().push_back(answer.to_string());
    }

    async fn verify(&self, challenge: &Value, method: &str, code: &str) -> Answer {
        let body = json!({"challenge_token": challenge, "mfa_method": method, "code": code});
        self.service.post("/auth/mfa/verify-challenge", body).await
    }
}

fn claims_of(answer: &Answer) -> Value {
    let access = answer.signed_in()["access_token"].as_str().unwrap().to_owned();
    let claims = BASE64URL_NOPAD.decode(access.split('.').nth(1).unwrap().as_bytes()).unwrap();
    serde_json::from_slice(&claims).unwrap()
}

#[tokio::test]
async fn a_code_by_a_method_with_a_name_of_its_own_gives_tokens_that_say_so() {
    let lock = "address = \"phone_number\"";
    let running = start(&["mfa.begin"], lock, "risk.require_mfa(\"new_device\");").await;
    let challenged = challenge(&running.service).await;
    let body = challenged.challenged();
    assert_eq!(body["required_mfa_methods"], json!(["email", "acme.voice"]), "weak unless the lock says otherwise");
    let token = &body["challenge_token"];
    running.verify(token, "acme.voice", "000000").await.expect(400, "invalid_mfa_code");
    let sent = send(&running.service, token, "acme.voice").await;
    assert_eq!(sent.status, 200, "{}", sent.text);
    assert_eq!((&sent.body["mfa_method"], &sent.body["destination"]), (&json!("acme.voice"), &json!("…67")));
    let message = running.received().remove(0);
    let data = &message["data"];
    assert_eq!((&message["type"], &data["method"]), (&json!("mfa.code"), &json!("acme.voice")));
    assert_eq!(data["destination"], "+46701234567");
    assert!(lines(&running.outbox).is_empty(), "nothing went by e-mail");
    let code = data["code"].as_str().unwrap();
    running.verify(token, "email", code).await.expect(400, "invalid_mfa_code");
    running.verify(token, "acme.other", code).await.expect(400, "mfa_method_not_allowed");
    let claims = claims_of(&running.verify(token, "acme.voice", code).await);
    assert_eq!(claims["how"], json!(["acme.voice"]));
    let amr: Vec<&str> = claims["amr"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(amr.contains(&"mca") && amr.contains(&"mfa"), "{amr:?}");
}

#[tokio::test]
async fn a_strong_one_is_asked_where_a_rule_wants_strength_and_waits_without_counting() {
    let both = ["mfa.begin", "mfa.verify"];
    let running = start(&both, "strength = \"strong\"", "risk.require_strength(\"strong\", \"new_device\");").await;
    let challenged = challenge(&running.service).await;
    let body = challenged.challenged();
    assert_eq!(body["required_mfa_methods"], json!(["acme.voice"]));
    let token = &body["challenge_token"];
    running.will_answer(json!({"reference": "p-1"}));
    let sent = send(&running.service, token, "acme.voice").await;
    assert_eq!((sent.status, &sent.body["destination"]), (200, &json!("")), "{}", sent.text);
    for _ in 0..7 {
        running.will_answer(json!({"status": "pending"}));
        running.verify(token, "acme.voice", "").await.expect(400, "mfa_pending");
        running.verify(token, "acme.voice", "").await.expect(400, "mfa_pending");
        running.service.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(running.received().len(), 8, "the service is asked once a second");
    running.will_answer(json!({"status": "approved"}));
    running.verify(token, "acme.voice", "").await.signed_in();
    let question = running.received().remove(0);
    assert_eq!((question["data"].get("code"), question["data"].get("destination")), (None, None));
}

#[tokio::test]
async fn rules_name_it_and_other_tenants_do_not_see_it() {
    let demand = "risk.require_mfa(\"new_device\", [\"acme.voice\", \"totp\"]);";
    let running = start(&["mfa.begin"], "tenants = [\"default\"]", demand).await;
    let challenged = challenge(&running.service).await;
    assert_eq!(challenged.challenged()["required_mfa_methods"], json!(["acme.voice"]));

    let key = running.service.admin_key(crate::admin::Role::Viewer, None).await;
    let listed = running.service.get_with("/admin/plugins", &key).await;
    let methods: Vec<&Value> = listed.body["items"].as_array().unwrap().iter().map(|p| &p["mfa_method"]).collect();
    assert_eq!(methods, ["email", "acme.voice"]);

    let running = start(&["mfa.begin"], "tenants = [\"another\"]", demand).await;
    challenge(&running.service).await.expect(403, "sign_in_denied");

    let running = start(&["mfa.begin"], "tenants = [\"another\"]", "risk.require_mfa(\"new_device\");").await;
    let token = challenge(&running.service).await.challenged()["challenge_token"].clone();
    send(&running.service, &token, "acme.voice").await.expect(400, "mfa_method_not_allowed");
}

#[tokio::test]
async fn a_confirmation_that_comes_after_the_last_attempt_is_too_late() {
    let both = ["mfa.begin", "mfa.verify"];
    let demand = "risk.require_mfa(\"new_device\");";
    // Wrong codes while the device is asked: of the same challenge, and of two others of the user.
    for (others, code) in [(0, (400, "challenge_expired")), (2, (429, "mfa_locked"))] {
        let running = start(&both, "strength = \"strong\"", demand).await;
        let mut tokens = Vec::new();
        for _ in 0..=others {
            tokens.push(challenge(&running.service).await.challenged()["challenge_token"].clone());
        }
        let token = &tokens[0];
        assert_eq!(send(&running.service, token, "acme.voice").await.status, 200);
        running.receiver.holds.store(true, Ordering::SeqCst);
        running.will_answer(json!({"status": "approved"}));
        let guesses = async {
            while running.received().len() < 2 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for guessed in tokens.iter().skip(usize::from(others > 0)) {
                for _ in 0..5 {
                    running.verify(guessed, "email", "000000").await.expect(400, "invalid_mfa_code");
                }
            }
            running.receiver.holds.store(false, Ordering::SeqCst);
        };
        let (confirmed, ()) = tokio::join!(running.verify(token, "acme.voice", ""), guesses);
        confirmed.expect(code.0, code.1);
    }
}

#[tokio::test]
async fn a_confirmation_is_no_wrong_attempt_afterwards() {
    let both = ["mfa.begin", "mfa.verify"];
    let running = start(&both, "strength = \"strong\"", "risk.require_mfa(\"new_device\");").await;
    // More than would lock the user if each stayed counted, with four wrong ones before each.
    for _ in 0..2 {
        let token = challenge(&running.service).await.challenged()["challenge_token"].clone();
        assert_eq!(send(&running.service, &token, "acme.voice").await.status, 200);
        for _ in 0..4 {
            running.verify(&token, "email", "000000").await.expect(400, "invalid_mfa_code");
        }
        running.will_answer(json!({"status": "approved"}));
        running.verify(&token, "acme.voice", "").await.signed_in();
        running.verify(&token, "acme.voice", "").await.expect(400, "challenge_used");
    }
    let token = challenge(&running.service).await.challenged()["challenge_token"].clone();
    running.verify(&token, "email", "000000").await.expect(400, "invalid_mfa_code");
    running.verify(&token, "email", "000000").await.expect(400, "invalid_mfa_code");
    running.verify(&token, "email", "000000").await.expect(429, "mfa_locked");
}

#[tokio::test]
async fn a_method_that_was_made_weaker_does_not_answer_what_was_asked_of_the_strong_one() {
    let demand = "risk.require_strength(\"strong\", \"new_device\");";
    let running = start(&["mfa.begin"], "strength = \"strong\"", demand).await;
    let service = &running.service;
    let token = challenge(service).await.challenged()["challenge_token"].clone();
    let code = async || {
        assert_eq!(send(service, &token, "acme.voice").await.status, 200);
        running.received().pop().unwrap()["data"]["code"].as_str().unwrap().to_owned()
    };
    let relock = |from: &str, to: &str| {
        let lock = running.kept.0.write();
        let text = std::fs::read_to_string(&lock).unwrap();
        assert!(text.contains(from));
        std::fs::write(&lock, text.replace(from, to)).unwrap();
        service.plugins().reload().unwrap().expect("another lock");
    };
    let sent = code().await;
    relock("strength = \"strong\"", "strength = \"weak\"");
    running.verify(&token, "acme.voice", &sent).await.expect(400, "mfa_method_not_allowed");
    service.clock.advance(Duration::from_secs(20));
    let messages = running.received().len();
    send(service, &token, "acme.voice").await.expect(400, "mfa_method_not_allowed");
    assert_eq!(running.received().len(), messages, "nothing goes out by it");
    challenge(service).await.expect(403, "sign_in_denied");
    relock("strength = \"strong\"", "strength = \"strong\" # again");
    service.clock.advance(Duration::from_secs(20));
    let sent = code().await;
    running.verify(&token, "acme.voice", &sent).await.signed_in();
}
