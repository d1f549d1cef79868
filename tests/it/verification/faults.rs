//! A provider that breaks in every way, over real sockets: whoever's keys are known signs in all the same, nobody
//! waits longer than the limit of a fetch, and other providers notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;
use tokio::sync::watch;

use crate::support::issuer::{TestKey, TokenBuilder, shared_rsa};
use crate::support::service::{Answer, Service, Setup};
use crate::support::wire::{DISCOVERY, KEYS, Wire, WireIssuer};

/// More than the 3 s that a fetch may take, with room for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

async fn through_wire(service: &Service, token: &TokenBuilder) -> Answer {
    let body = json!({"id_token": token.sign(), "provider": "wire"});
    let answer = service.post("/auth/id-token/signin", body);
    tokio::time::timeout(PATIENCE, answer).await.expect("an answer within the time limit")
}

async fn wire() -> (WireIssuer, Service) {
    let issuer = WireIssuer::start().await;
    let service = Service::start_with(issuer.setup()).await;
    (issuer, service)
}

/// Ways for an endpoint to be broken.
fn faults() -> Vec<(&'static str, Wire)> {
    let kind = "Content-Type: application/json\r\n";
    let good = json!({"keys": [shared_rsa().jwk("rsa-1")]}).to_string();
    let gzip = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    let (head, zeros) = (format!("HTTP/1.1 200 OK\r\n{gzip}\r\n"), vec![0x1f; 64 * 1024]);
    let truncated = format!("HTTP/1.1 200 OK\r\n{kind}Content-Length: {}\r\n\r\n{}", good.len(), &good[..100]);
    let endless = format!("HTTP/1.1 200 OK\r\n{kind}\r\n{{\"keys\":[");
    vec![
        ("status 500", Wire::answer(500, kind, good.as_bytes())),
        ("status 404", Wire::answer(404, kind, b"{}")),
        ("cut off in the middle", Wire::Bytes(truncated.into_bytes())),
        ("a page for people", Wire::answer(200, "Content-Type: text/html\r\n", b"<html>Sign in</html>")),
        ("JSON that is no key set", Wire::answer(200, kind, b"{\"error\":\"later\"}")),
        ("a bomb of gzip", Wire::Endless(head.into_bytes(), zeros)),
        ("a small answer in gzip", Wire::answer(200, gzip, &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3])),
        ("an answer without end", Wire::Endless(endless.into_bytes(), b"{\"kty\":\"RSA\"},".repeat(1000))),
        ("not even HTTP", Wire::Bytes(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec())),
        ("an answer of nothing", Wire::Bytes(Vec::new())),
        ("silence", Wire::Silence),
    ]
}

#[tokio::test]
async fn without_keys_every_fault_is_503_with_a_time_to_wait_and_other_providers_are_not_slowed() {
    let (issuer, service) = wire().await;
    for (name, fault) in faults() {
        for endpoint in [KEYS, DISCOVERY] {
            service.clock.advance(Duration::from_secs(61));
            issuer.set(endpoint, fault.clone());
            let token = issuer.token(&service);
            let order = AtomicUsize::new(0);
            let healthy = service.issuer.token().sign();
            let (broken, other) = tokio::join!(
                async {
                    let answer = through_wire(&service, &token).await;
                    (answer, order.fetch_add(1, Ordering::SeqCst))
                },
                async {
                    let answer = service.sign_in(&healthy).await;
                    (answer, order.fetch_add(1, Ordering::SeqCst))
                }
            );
            assert_eq!((broken.0.status, broken.0.error()), (503, "provider_unavailable"), "{name} at {endpoint}");
            let wait: u64 = broken.0.headers["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=60).contains(&wait), "{name}: Retry-After {wait}");
            assert_eq!(other.0.status, 200, "{name} at {endpoint}: {}", other.0.text);
            if name == "silence" {
                assert!(other.1 < broken.1, "the healthy provider waited for the silent one");
            }
            // Whoever comes within the pause is told at once, and nothing is fetched for it.
            let before = issuer.fetches();
            through_wire(&service, &token).await.expect(503, "provider_unavailable");
            assert_eq!(issuer.fetches(), before, "{name}: fetched again within the pause");
            issuer.set(KEYS, WireIssuer::good_keys());
            issuer.set(DISCOVERY, Wire::json(&json!({"issuer": issuer.url, "jwks_uri": issuer.path(KEYS)})));
        }
    }
    service.clock.advance(Duration::from_secs(61));
    through_wire(&service, &issuer.token(&service)).await.signed_in();
}

#[tokio::test]
async fn with_known_keys_no_fault_of_the_endpoint_fails_a_sign_in() {
    for (name, fault) in faults() {
        // A world for each: after a failure keys are renewed while nobody waits, and that would meet the next fault.
        let (issuer, service) = wire().await;
        through_wire(&service, &issuer.token(&service)).await.signed_in();
        issuer.set(KEYS, fault);
        // An hour is the set's time when its endpoint says nothing: due after 48 minutes, overdue after 60.
        for minutes in [50, 15, 600] {
            service.clock.advance(Duration::from_secs(minutes * 60));
            let answer = through_wire(&service, &issuer.token(&service)).await;
            assert_eq!(answer.status, 200, "{name}, {minutes} minutes later: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn an_issuer_that_is_out_of_reach_for_ten_minutes_stops_nobody() {
    let (issuer, service) = wire().await;
    let headers = "Content-Type: application/json\r\nCache-Control: max-age=0\r\n";
    let keys = json!({"keys": [shared_rsa().jwk("rsa-1")]}).to_string();
    issuer.set(KEYS, Wire::answer(200, headers, keys.as_bytes()));
    through_wire(&service, &issuer.token(&service)).await.signed_in();
    let token = issuer.token(&service);
    drop(issuer);
    for _ in 0..20 {
        service.clock.advance(Duration::from_secs(30));
        let now = service.clock.now_s();
        let token = token.clone().claim("iat", now).claim("exp", now + 300).claim("jti", format!("t{now}"));
        through_wire(&service, &token).await.signed_in();
    }
    // A key that nobody knows cannot be looked for now: that is no fault of the token.
    let now = service.clock.now_s();
    let stranger = token.header("kid", "rsa-9").claim("iat", now).claim("exp", now + 300);
    through_wire(&service, &stranger).await.expect(503, "provider_unavailable");
}

#[tokio::test]
async fn a_slow_endpoint_holds_up_only_those_who_have_no_key_yet_and_they_share_one_fetch() {
    let (issuer, service) = wire().await;
    let (open, gate) = watch::channel(false);
    let Wire::Bytes(keys) = WireIssuer::good_keys() else { unreachable!("plain bytes") };
    issuer.set(KEYS, Wire::Gated(gate, keys));
    let waiting = async {
        let tokens: Vec<_> = (0..20).map(|_| issuer.token(&service)).collect();
        futures_util::future::join_all(tokens.iter().map(|token| through_wire(&service, token))).await
    };
    let others = async {
        for _ in 0..10 {
            service.sign_in(&service.issuer.token().sign()).await.signed_in();
        }
        open.send(true).unwrap();
    };
    let (waited, ()) = tokio::join!(waiting, others);
    for answer in waited {
        answer.signed_in();
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn oidcproxy_net_242_keys_that_rotate_in_the_middle_of_load_fail_nobody() {
    let (issuer, service) = wire().await;
    let next = Arc::new(TestKey::new_rsa());
    through_wire(&service, &issuer.token(&service)).await.signed_in();
    service.clock.advance(Duration::from_secs(60));
    let done = AtomicUsize::new(0);
    let sign_ins = stream::iter(0..300).map(|n| {
        let (issuer, service, next, done) = (&issuer, &service, &next, &done);
        async move {
            if done.fetch_add(1, Ordering::SeqCst) == 100 {
                issuer.set(KEYS, Wire::json(&json!({"keys": [shared_rsa().jwk("rsa-1"), next.jwk("rsa-2")]})));
            }
            // From then on the provider signs with either key.
            let token = issuer.token(service).subject(&format!("s{n}"));
            let token = if n > 120 && n % 2 == 0 { token.key("RS256", "rsa-2", next) } else { token };
            through_wire(service, &token).await
        }
    });
    let answers: Vec<Answer> = sign_ins.buffer_unordered(16).collect().await;
    for answer in &answers {
        answer.signed_in();
    }
    assert_eq!(issuer.fetches(), 2, "one at the start, one for the new key");
}

#[tokio::test]
async fn ten_thousand_tokens_with_random_key_ids_cause_a_handful_of_fetches() {
    let (issuer, service) = wire().await;
    through_wire(&service, &issuer.token(&service)).await.signed_in();
    let sent = stream::iter(0..10_000).map(|n| {
        let (issuer, service) = (&issuer, &service);
        async move {
            if n % 200 == 199 {
                service.clock.advance(Duration::from_secs(1));
            }
            let token = issuer.token(service).header("kid", format!("random-{n}")).with_signature(&[7; 256]);
            let body = json!({"id_token": token, "provider": "wire"});
            service.post("/auth/id-token/signin", body).await.expect(401, "unknown_key");
        }
    });
    sent.buffer_unordered(32).collect::<Vec<()>>().await;
    // Fifty seconds went by on the server's clock, and ten must lie between two fetches.
    assert!((2..=6).contains(&issuer.fetches()), "{} fetches", issuer.fetches());
    through_wire(&service, &issuer.token(&service)).await.signed_in();
}

#[tokio::test]
async fn two_servers_on_one_store_accept_a_token_once_together() {
    let one = Service::start().await;
    let two = one.beside(Setup::default()).await;
    for n in 0..20 {
        let token = one.issuer.token();
        let token = if n % 2 == 0 { token } else { token.without("jti").claim("n", n) }.sign();
        let (first, second) = if n % 3 == 0 { (&two, &one) } else { (&one, &two) };
        let answers = tokio::join!(first.sign_in(&token), second.sign_in(&token), first.sign_in(&token));
        let answers = [answers.0, answers.1, answers.2];
        assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1, "token {n}");
        assert_eq!(answers.iter().filter(|a| a.error() == "id_token_replayed").count(), 2, "token {n}");
    }
}

#[tokio::test]
async fn a_nonce_that_one_server_issued_is_good_once_at_the_other() {
    let setup = || Setup::provider("nonce = \"server_issued\"");
    let one = Service::start_with(setup()).await;
    let two = one.beside(setup()).await;
    let issued = one.post("/auth/id-token/nonce", json!({})).await.body["nonce"].as_str().unwrap().to_owned();
    let send = async |service: &Service| {
        let token = service.issuer.token().claim("nonce", issued.as_str()).sign();
        let body = json!({"id_token": token, "provider": "acme", "nonce": issued});
        service.post("/auth/id-token/signin", body).await
    };
    send(&two).await.signed_in();
    send(&one).await.expect(401, "id_token_nonce_mismatch");
    send(&two).await.expect(401, "id_token_nonce_mismatch");
}
