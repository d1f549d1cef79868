//! Sessions that a provider's word may end.

use serde_json::{Value, json};

use super::issuer::TokenBuilder;
use super::service::Service;

/// Signs in, and gives the answer with its tokens.
pub async fn signed_in(service: &Service, token: &TokenBuilder) -> Value {
    service.sign_in(&token.sign()).await.signed_in().clone()
}

/// As a subject of the test issuer.
pub async fn signed_in_as(service: &Service, subject: &str) -> Value {
    signed_in(service, &service.issuer.token().subject(subject)).await
}

/// Whether the session of such an answer goes on; one that has ended refuses both of its tokens.
pub async fn lives(service: &Service, body: &Value) -> bool {
    let answer = service.get_with("/auth/me", body["access_token"].as_str().unwrap()).await;
    if answer.status != 200 {
        answer.expect(401, "session_ended");
        let refresh = service.post("/auth/refresh", json!({"refresh_token": body["refresh_token"]})).await;
        refresh.expect(400, "invalid_refresh_token");
    }
    answer.status == 200
}
