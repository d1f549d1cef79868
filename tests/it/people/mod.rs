//! What belongs to a person: identities, invitations, passwords, devices.

mod identities;
mod invitations;
mod remapping;

use serde_json::{Value, json};

use crate::support::issuer::TokenBuilder;
use crate::support::service::{Answer, Service, Setup};

/// A server with a second provider of the same issuer, `second`.
async fn with_second(lines: &str) -> Service {
    let service = Service::start().await;
    let setup = second(&service, lines);
    service.restart(setup).await
}

fn second(service: &Service, lines: &str) -> Setup {
    let issuer = &service.issuer.url;
    let more_config = format!(
        "[[providers]]\ntenant = \"default\"\nname = \"second\"\nissuer = {issuer:?}\nclient_ids = [\"app-web\"]\n{lines}\n"
    );
    Setup { more_config, ..Setup::default() }
}

fn mail(token: TokenBuilder, address: &str, verified: bool) -> TokenBuilder {
    token.claim("email", address).claim("email_verified", verified)
}

async fn through_second(service: &Service, token: TokenBuilder) -> Answer {
    service.post("/auth/id-token/signin", json!({"id_token": token.sign(), "provider": "second"})).await
}

async fn sign_in(service: &Service, token: TokenBuilder) -> (String, Value) {
    let body = service.sign_in(&token.sign()).await.signed_in().clone();
    (body["access_token"].as_str().unwrap().to_owned(), body)
}

/// The claims of an access token.
fn claims(access: &Value) -> Value {
    let part = access.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
}
