//! What is out of reach, and what goes on all the same.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use crate::support::issuer::{TestKey, shared_rsa};
use crate::support::service::{Service, Setup};

#[tokio::test]
async fn without_keys_the_answer_is_503_with_a_time_to_wait() {
    let service = Service::start().await;
    service.issuer.served.lock().unwrap().fail = true;
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    answer.expect(503, "provider_unavailable");
    assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
}

#[tokio::test]
async fn with_known_keys_an_outage_of_the_provider_stops_nobody() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    service.issuer.served.lock().unwrap().fail = true;
    for _ in 0..4 {
        service.clock.advance(Duration::from_secs(1800));
        service.sign_in(&service.issuer.token().sign()).await.signed_in();
    }
}

#[tokio::test]
async fn a_rotated_key_is_found_without_waiting() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let next = Arc::new(TestKey::new_rsa());
    service.issuer.rotate_to(vec![("rsa-1", shared_rsa()), ("rsa-2", Arc::clone(&next))]);
    service.clock.advance(Duration::from_secs(60));
    service.sign_in(&service.issuer.token().key("RS256", "rsa-2", &next).sign()).await.signed_in();
}

#[tokio::test]
async fn go_oidc_482_jwtk_8_tokens_with_random_key_ids_cause_a_handful_of_fetches() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let before = service.issuer.fetches.load(Ordering::SeqCst);
    for n in 0..200 {
        let token = service.issuer.token().header("kid", format!("random-{n}")).sign();
        service.sign_in(&token).await.expect(401, "unknown_key");
    }
    let fetched = service.issuer.fetches.load(Ordering::SeqCst) - before;
    assert!(fetched <= 5, "{fetched} fetches");
}

#[tokio::test]
async fn a_discovery_document_of_another_issuer_is_not_believed() {
    let service = Service::start().await;
    service.issuer.served.lock().unwrap().document_issuer = Some("https://evil.example".to_owned());
    service.sign_in(&service.issuer.token().sign()).await.expect(503, "provider_unavailable");
}

#[tokio::test]
async fn one_provider_that_does_not_answer_does_not_slow_another() {
    // A listener that accepts and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let more_config = format!(
        "[[providers]]\ntenant = \"default\"\nname = \"silent\"\nissuer = {url:?}\nclient_ids = [\"app-web\"]\n"
    );
    let service = Service::start_with(Setup { more_config, ..Setup::default() }).await;
    let stuck = service.issuer.token().claim("iss", url.as_str()).sign();
    let body = json!({"id_token": stuck, "provider": "silent"});
    let (hung, ours) = tokio::join!(service.post("/auth/id-token/signin", body), async {
        let answer = service.sign_in(&service.issuer.token().sign()).await;
        answer.signed_in();
        std::time::Instant::now()
    });
    let hung_at = std::time::Instant::now();
    hung.expect(503, "provider_unavailable");
    assert!(ours < hung_at, "the healthy provider answered first");
}
