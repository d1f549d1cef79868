//! Whose sign-in it is: never by address alone.

use countersign::signin::user::UserStatus;
use serde_json::json;

use crate::support::issuer::TokenBuilder;
use crate::support::service::{Answer, JsonBody, Service, Setup};

/// The issuer of the second provider's tokens. Its keys are those of the test issuer.
const SECOND: &str = "https://second.example";

fn second_provider(keys_of: &str, lines: &str) -> Setup {
    let more_config = format!(
        "[[providers]]\ntenant = \"default\"\nname = \"second\"\nissuer = {SECOND:?}\njwks_uri = \"{keys_of}/jwks\"\n\
         client_ids = [\"app-web\"]\n{lines}\n"
    );
    Setup { more_config, ..Setup::default() }
}

fn mail(token: TokenBuilder, address: &str, verified: bool) -> TokenBuilder {
    token.claim("email", address).claim("email_verified", verified)
}

async fn through_second(service: &Service, token: TokenBuilder) -> Answer {
    let token = token.claim("iss", SECOND).sign();
    service.post("/auth/id-token/signin", json!({"id_token": token, "provider": "second"})).await
}

async fn with_second(lines: &str) -> Service {
    let service = Service::start().await;
    let setup = second_provider(&service.issuer.url, lines);
    service.restart(setup).await
}

#[tokio::test]
async fn fusionauth_2424_an_address_of_another_account_is_a_conflict_by_default() {
    let service = with_second("").await;
    let owner = service.sign_in(&mail(service.issuer.token(), "ada@example.com", true).sign()).await;
    owner.signed_in();
    for verified in [true, false] {
        let token = mail(service.issuer.token().subject("attacker"), "ADA@example.com", verified);
        through_second(&service, token).await.expect(409, "account_exists");
    }
}

#[tokio::test]
async fn the_same_subject_at_another_provider_is_another_user() {
    let service = with_second("").await;
    let first = service.sign_in(&service.issuer.token().sign()).await;
    let second = through_second(&service, service.issuer.token()).await;
    assert_ne!(first.signed_in()["user_id"], second.signed_in()["user_id"]);
}

#[tokio::test]
async fn two_subjects_with_one_unverified_address_are_two_users() {
    let service = Service::start().await;
    let one = service.sign_in(&mail(service.issuer.token(), "x@example.com", false).sign()).await;
    let two = service.sign_in(&mail(service.issuer.token().subject("two"), "x@example.com", false).sign()).await;
    assert_ne!(one.signed_in()["user_id"], two.signed_in()["user_id"]);
}

#[tokio::test]
async fn mas_2089_linking_needs_the_address_verified_on_both_sides() {
    let service = with_second("linking = \"verified_email\"").await;
    let owner = service.sign_in(&mail(service.issuer.token(), "ada@example.com", true).sign()).await;
    let unverified = mail(service.issuer.token().subject("b"), "ada@example.com", false);
    through_second(&service, unverified).await.expect(409, "account_exists");
    let linked = through_second(&service, mail(service.issuer.token().subject("b"), "Ada@Example.com", true)).await;
    assert_eq!(linked.signed_in()["user_id"], owner.signed_in()["user_id"]);
    let again = through_second(&service, service.issuer.token().subject("b")).await;
    assert_eq!(again.signed_in()["user_id"], owner.body["user_id"]);
}

#[tokio::test]
async fn an_address_that_only_the_local_side_has_unverified_links_nobody() {
    let service = with_second("linking = \"verified_email\"").await;
    let pretender = service.sign_in(&mail(service.issuer.token(), "ada@example.com", false).sign()).await;
    let real = through_second(&service, mail(service.issuer.token().subject("b"), "ada@example.com", true)).await;
    assert_ne!(pretender.signed_in()["user_id"], real.signed_in()["user_id"]);
}

#[tokio::test]
async fn klangk_166_manyfold_5088_a_provider_that_is_not_trusted_for_addresses_links_nobody() {
    let service = with_second("linking = \"verified_email\"\nemail_trust = \"never\"").await;
    service.sign_in(&mail(service.issuer.token(), "ada@example.com", true).sign()).await.signed_in();
    let token = mail(service.issuer.token().subject("b"), "ada@example.com", true);
    through_second(&service, token).await.expect(409, "account_exists");
    let domains = with_second("linking = \"verified_email\"\nemail_trust = [\"corp.example\"]").await;
    domains.sign_in(&mail(domains.issuer.token(), "ada@example.com", true).sign()).await.signed_in();
    let token = mail(domains.issuer.token().subject("b"), "ada@example.com", true);
    through_second(&domains, token).await.expect(409, "account_exists");
}

#[tokio::test]
async fn a_changed_address_never_inherits_the_verified_mark() {
    let service = with_second("linking = \"verified_email\"").await;
    service.sign_in(&mail(service.issuer.token(), "ada@example.com", true).sign()).await.signed_in();
    service.sign_in(&mail(service.issuer.token(), "victim@example.com", false).sign()).await.signed_in();
    let victim =
        through_second(&service, mail(service.issuer.token().subject("v"), "victim@example.com", true)).await;
    let attacker = service.sign_in(&service.issuer.token().sign()).await;
    assert_ne!(victim.signed_in()["user_id"], attacker.signed_in()["user_id"]);
}

#[tokio::test]
async fn authentik_20975_an_address_that_somebody_else_holds_does_not_stop_a_known_user() {
    let service = Service::start().await;
    service.sign_in(&mail(service.issuer.token(), "ada@example.com", true).sign()).await.signed_in();
    service.sign_in(&mail(service.issuer.token().subject("b"), "b@example.com", true).sign()).await.signed_in();
    let b = service.sign_in(&mail(service.issuer.token().subject("b"), "ada@example.com", true).sign()).await;
    assert_eq!(b.signed_in()["user"]["email"], "b@example.com");
}

#[tokio::test]
async fn a_provider_that_does_not_provision_refuses_strangers_and_lets_known_users_in() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let service = service.restart(Setup::provider("provisioning = \"refuse\"")).await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    service.sign_in(&service.issuer.token().subject("new").sign()).await.expect(403, "user_not_provisioned");
}

#[tokio::test]
async fn thirty_first_sign_ins_at_once_make_one_user() {
    let service = Service::start().await;
    let tokens: Vec<String> = (0..30).map(|_| service.issuer.token().sign()).collect();
    let answers = futures_util::future::join_all(tokens.iter().map(|t| service.sign_in(t))).await;
    let users: std::collections::HashSet<String> =
        answers.iter().map(|a| a.signed_in()["user_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(users.len(), 1);
}

#[tokio::test]
async fn thirty_first_sign_ins_at_once_with_a_verified_address_make_one_user() {
    let service = Service::start().await;
    let tokens: Vec<String> =
        (0..30).map(|_| mail(service.issuer.token(), "ada@example.com", true).sign()).collect();
    let answers = futures_util::future::join_all(tokens.iter().map(|t| service.sign_in(t))).await;
    let users: std::collections::HashSet<String> =
        answers.iter().map(|a| a.signed_in()["user_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(users.len(), 1);
}

#[tokio::test]
async fn a_disabled_or_locked_user_is_refused_on_every_path() {
    let service = Service::start().await;
    let body = service.sign_in(&service.issuer.token().sign()).await.signed_in().clone();
    let user = body["user_id"].as_str().unwrap().parse().unwrap();
    for (status, error) in [(UserStatus::Disabled, "account_disabled"), (UserStatus::Locked, "account_locked")] {
        service.store.set_user_status(user, status).await.unwrap();
        service.sign_in(&service.issuer.token().sign()).await.expect(403, error);
        service.get_with("/auth/me", body["access_token"].as_str().unwrap()).await.expect(403, error);
    }
    let refresh = json!({"refresh_token": body["refresh_token"]});
    service.post("/auth/refresh", refresh.clone()).await.expect(400, "invalid_refresh_token");
    service.store.set_user_status(user, UserStatus::Active).await.unwrap();
    service.post("/auth/refresh", refresh).await.expect(400, "invalid_refresh_token");
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
}

#[tokio::test]
async fn a_user_of_one_tenant_is_nobody_in_another() {
    let service = Service::start().await;
    let body = service.sign_in(&service.issuer.token().sign()).await.signed_in().clone();
    let access = body["access_token"].as_str().unwrap();
    let me = service.http().get(service.url("/auth/me")).bearer_auth(access);
    service.send(me.header("x-tenant-id", "other")).await.expect(401, "invalid_access_token");
    let refresh =
        service.http().post(service.url("/auth/refresh")).json(&json!({"refresh_token": body["refresh_token"]}));
    service.send(refresh.header("host", "other.example")).await.expect(400, "invalid_refresh_token");
    let signin = service.http().post(service.url("/auth/id-token/signin"));
    let signin = signin.json(&json!({"id_token": service.issuer.token().sign(), "provider": "acme"}));
    service.send(signin.header("x-tenant-id", "other")).await.expect(404, "unknown_provider");
    let unknown = service.http().get(service.url("/auth/me")).bearer_auth(access).header("x-tenant-id", "nobody");
    service.send(unknown).await.expect(404, "unknown_tenant");
    service.get_with("/auth/me", access).await;
}
