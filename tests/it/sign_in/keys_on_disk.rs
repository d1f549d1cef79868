//! A node that starts while a provider is down.

use std::time::Duration;

use crate::support::service::{Service, Setup};

async fn signed_in_once() -> Service {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    service.issuer.served.lock().unwrap().fail = true;
    service
}

#[tokio::test]
async fn a_server_that_starts_while_the_issuer_is_down_signs_its_users_in() {
    let service = signed_in_once().await.restart(Setup::default()).await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    service.clock.advance(Duration::from_secs(5 * 3600));
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
}

#[tokio::test]
async fn keys_on_disk_end_after_a_day_without_the_issuer() {
    let service = signed_in_once().await.restart(Setup::default()).await;
    service.clock.advance(Duration::from_secs(26 * 3600));
    service.sign_in(&service.issuer.token().sign()).await.expect(503, "provider_unavailable");
}

#[tokio::test]
async fn keys_on_disk_are_not_used_for_a_provider_that_is_configured_otherwise() {
    let service = signed_in_once().await;
    let lines = format!("jwks_uri = \"{}/jwks\"\n", service.issuer.url);
    let service = service.restart(Setup::provider(&lines)).await;
    service.sign_in(&service.issuer.token().sign()).await.expect(503, "provider_unavailable");
}

#[tokio::test]
async fn garbage_on_disk_does_not_stop_the_start_and_is_no_key() {
    let service = signed_in_once().await;
    let folder = service.dir.path().join("keys/provider-keys");
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    std::fs::write(&files[0], "{\"keys\": []}").unwrap();
    let service = service.restart(Setup::default()).await;
    service.sign_in(&service.issuer.token().sign()).await.expect(503, "provider_unavailable");
    service.issuer.served.lock().unwrap().fail = false;
    service.clock.advance(Duration::from_secs(5));
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
}
