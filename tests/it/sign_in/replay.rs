//! A token is good for one sign-in.

use std::time::Duration;

use crate::support::service::{Service, Setup};

#[tokio::test]
async fn a_token_is_good_once_with_and_without_jti() {
    let service = Service::start().await;
    for token in [service.issuer.token().sign(), service.issuer.token().without("jti").sign()] {
        service.sign_in(&token).await.signed_in();
        service.sign_in(&token).await.expect(401, "id_token_replayed");
    }
}

#[tokio::test]
async fn another_token_with_the_same_jti_is_a_replay_too() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().claim("jti", "one").sign()).await.signed_in();
    service.clock.advance(Duration::from_secs(1));
    service.sign_in(&service.issuer.token().claim("jti", "one").sign()).await.expect(401, "id_token_replayed");
}

#[tokio::test]
async fn leeway_counts_for_replay_too() {
    let service = Service::start().await;
    let token = service.issuer.token().claim("exp", service.clock.now_s() + 10).sign();
    service.sign_in(&token).await.signed_in();
    service.clock.advance(Duration::from_secs(69));
    service.sign_in(&token).await.expect(401, "id_token_replayed");
    service.clock.advance(Duration::from_secs(1));
    service.sign_in(&token).await.expect(401, "id_token_expired");
}

#[tokio::test]
async fn a_restart_does_not_forget() {
    let service = Service::start().await;
    let token = service.issuer.token().sign();
    service.sign_in(&token).await.signed_in();
    let service = service.restart(Setup::default()).await;
    service.sign_in(&token).await.expect(401, "id_token_replayed");
}

#[tokio::test]
async fn fifty_at_once_with_one_token_give_one_session() {
    let service = Service::start().await;
    let token = service.issuer.token().sign();
    let answers = futures_util::future::join_all((0..50).map(|_| service.sign_in(&token))).await;
    assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1);
    assert_eq!(answers.iter().filter(|a| a.error() == "id_token_replayed").count(), 49);
}

#[tokio::test]
async fn a_token_that_was_refused_for_its_audience_is_not_spent() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().claim("jti", "x").claim("aud", "other").sign()).await;
    service.sign_in(&service.issuer.token().claim("jti", "x").sign()).await.signed_in();
}

#[tokio::test]
async fn a_provider_may_allow_repeats() {
    let service = Service::start_with(Setup::provider("replay = \"allow\"")).await;
    let token = service.issuer.token().sign();
    service.sign_in(&token).await.signed_in();
    service.sign_in(&token).await.signed_in();
}
