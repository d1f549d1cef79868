//! What belongs to a person: identities, invitations, passwords, devices.

mod administration;
mod devices;
mod identities;
mod invitations;
mod issuer_names;
mod passwords;
mod races;
mod remapping;

use serde_json::{Value, json};

use crate::support::issuer::TokenBuilder;
use crate::support::service::{Answer, Service, Setup};

/// The issuer of the second provider's tokens. Its keys are those of the test issuer.
const SECOND: &str = "https://second.example";

/// A server with a second provider, `second`.
async fn with_second(lines: &str) -> Service {
    let service = Service::start().await;
    let setup = second(&service, lines);
    service.restart(setup).await
}

fn second(service: &Service, lines: &str) -> Setup {
    let keys_of = &service.issuer.url;
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

/// A token of the second provider.
fn of_second(service: &Service, subject: &str) -> TokenBuilder {
    service.issuer.token().claim("iss", SECOND).subject(subject)
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
