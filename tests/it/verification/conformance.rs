//! The relying-party cases of the OpenID Foundation's conformance suite that concern an ID token, its keys and
//! their discovery. Each test has the name of the suite's module, or of the former suite (`rp_…`) where the
//! present one has none.
//!
//! Not here, because nothing of the kind reaches this server: authorization requests and responses, `c_hash`
//! (nobody hands over a code), user info, refreshed ID tokens, registration, WebFinger and logout.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::hmac;
use countersign::secret::sha256;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::support::issuer::{TestKey, TokenBuilder, shared_rsa};
use crate::support::service::{Answer, Service, Setup};

const ACCESS_TOKEN: &str = "provider-access-token";

async fn refused(change: impl Fn(TokenBuilder) -> TokenBuilder, error: &str) {
    let service = Service::start().await;
    service.sign_in(&change(service.issuer.token()).sign()).await.expect(401, error);
}

async fn with(service: &Service, token: &TokenBuilder, more: &Value) -> Answer {
    let mut body = json!({"id_token": token.sign(), "provider": "acme"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service.post("/auth/id-token/signin", body).await
}

/// The left half of SHA-256, as `at_hash` of a token signed with RS256.
fn at_hash(access_token: &str) -> String {
    BASE64URL_NOPAD.encode(&sha256(access_token.as_bytes())[..16])
}

#[tokio::test]
async fn oidcc_client_test() {
    let service = Service::start().await;
    let token = service.issuer.token().claim("nonce", "n").claim("at_hash", at_hash(ACCESS_TOKEN));
    with(&service, &token, &json!({"nonce": "n", "access_token": ACCESS_TOKEN})).await.signed_in();
}

#[tokio::test]
async fn oidcc_client_test_idtoken_sig_none() {
    let service = Service::start().await;
    let token = service.issuer.token().header("alg", "none").without_header("kid");
    // The suite's token ends with a dot; so does nothing that this server takes for a token.
    service.sign_in(&token.with_signature(b"")).await.expect(401, "id_token_algorithm_not_allowed");
    service.sign_in(&token.sign()).await.expect(401, "id_token_algorithm_not_allowed");
}

#[tokio::test]
async fn oidcc_client_test_idtoken_sig_rs256() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().key("RS256", "rsa-1", &shared_rsa()).sign()).await.signed_in();
}

#[tokio::test]
async fn rp_id_token_sig_es256() {
    let service = Service::start().await;
    let key = Arc::new(TestKey::new_p256());
    service.issuer.rotate_to(vec![("ec-1", Arc::clone(&key))]);
    service.sign_in(&service.issuer.token().key("ES256", "ec-1", &key).sign()).await.signed_in();
}

/// The suite lets a client that has a secret accept this. No secret of a provider's client is ever a key here.
#[tokio::test]
async fn rp_id_token_sig_hs256() {
    let service = Service::start().await;
    let token = service.issuer.token().header("alg", "HS256");
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"client secret of at least thirty-two bytes");
    let tag = hmac::sign(&key, token.signing_input().as_bytes());
    service.sign_in(&token.with_signature(tag.as_ref())).await.expect(401, "id_token_algorithm_not_allowed");
}

/// The suite lets a client that registered for it accept this. Encrypted ID tokens are told as such.
#[tokio::test]
async fn rp_id_token_sig_enc() {
    let service = Service::start().await;
    let header = BASE64URL_NOPAD.encode(br#"{"alg":"RSA-OAEP","enc":"A128GCM","cty":"JWT"}"#);
    let inner = BASE64URL_NOPAD.encode(service.issuer.token().sign().as_bytes());
    service.sign_in(&format!("{header}.AAAA.AAAA.{inner}.AAAA")).await.expect(401, "id_token_encrypted");
}

#[tokio::test]
async fn oidcc_client_test_ignores_unparseable_key_in_jwks() {
    let service = Service::start().await;
    service.issuer.served.lock().unwrap().extra_jwks = vec![
        json!({"kty": "UNKNOWN", "kid": "u", "use": "sig", "z": "AAAA"}),
        json!({"kty": "EC", "crv": "P-256K", "kid": "k", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": 7}),
        json!({"kty": "AKP", "alg": "ML-DSA-44", "kid": "pq", "pub": "AAAA"}),
    ];
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
}

#[tokio::test]
async fn oidcc_client_test_invalid_athash() {
    let service = Service::start().await;
    let token = service.issuer.token().claim("at_hash", at_hash("another access token"));
    let more = json!({"access_token": ACCESS_TOKEN});
    with(&service, &token, &more).await.expect(401, "id_token_at_hash_mismatch");
}

#[tokio::test]
async fn oidcc_client_test_missing_athash() {
    let service = Service::start().await;
    let more = json!({"access_token": ACCESS_TOKEN});
    with(&service, &service.issuer.token(), &more).await.expect(401, "id_token_at_hash_mismatch");
}

#[tokio::test]
async fn oidcc_client_test_invalid_aud() {
    refused(|t| t.claim("aud", "https://example.org/another-client"), "id_token_audience_mismatch").await;
}

#[tokio::test]
async fn oidcc_client_test_missing_aud() {
    refused(|t| t.without("aud"), "id_token_claim_invalid").await;
}

#[tokio::test]
async fn oidcc_client_test_invalid_iss() {
    refused(|t| t.claim("iss", "https://example.org/another-issuer/"), "id_token_issuer_mismatch").await;
}

#[tokio::test]
async fn oidcc_client_test_missing_iat() {
    refused(|t| t.without("iat"), "id_token_claim_invalid").await;
}

#[tokio::test]
async fn oidcc_client_test_missing_sub() {
    refused(|t| t.without("sub"), "id_token_claim_invalid").await;
}

fn one_bit_off(token: &str) -> String {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let mut signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    *signature.last_mut().unwrap() ^= 0x5a;
    format!("{input}.{}", BASE64URL_NOPAD.encode(&signature))
}

#[tokio::test]
async fn oidcc_client_test_invalid_sig_rs256() {
    let service = Service::start().await;
    let token = one_bit_off(&service.issuer.token().sign());
    service.sign_in(&token).await.expect(401, "id_token_signature_invalid");
}

#[tokio::test]
async fn oidcc_client_test_invalid_sig_es256() {
    let service = Service::start().await;
    let key = Arc::new(TestKey::new_p256());
    service.issuer.rotate_to(vec![("ec-1", Arc::clone(&key))]);
    let token = one_bit_off(&service.issuer.token().key("ES256", "ec-1", &key).sign());
    service.sign_in(&token).await.expect(401, "id_token_signature_invalid");
}

#[tokio::test]
async fn oidcc_client_test_invalid_sig_hs256() {
    let service = Service::start().await;
    let token = service.issuer.token().header("alg", "HS256").with_signature(&[0x5a; 32]);
    service.sign_in(&token).await.expect(401, "id_token_algorithm_not_allowed");
}

#[tokio::test]
async fn oidcc_client_test_kid_absent_single_jwks() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().without_header("kid").sign()).await.signed_in();
}

/// Of the two answers that the suite allows, this server gives the refusal: trying keys is guessing.
#[tokio::test]
async fn oidcc_client_test_kid_absent_multiple_jwks() {
    let service = Service::start().await;
    service.issuer.rotate_to(vec![("rsa-1", shared_rsa()), ("rsa-2", Arc::new(TestKey::new_rsa()))]);
    let token = service.issuer.token().without_header("kid").sign();
    service.sign_in(&token).await.expect(401, "key_id_missing");
}

#[tokio::test]
async fn oidcc_client_test_nonce_unless_code_flow() {
    let service = Service::start_with(Setup::provider("nonce = \"required\"")).await;
    let token = || service.issuer.token().claim("nonce", "n-0S6_WzA2Mj");
    with(&service, &token(), &json!({"nonce": "n-0S6_WzA2Mj"})).await.signed_in();
    with(&service, &token(), &json!({})).await.expect(401, "id_token_nonce_mismatch");
}

#[tokio::test]
async fn oidcc_client_test_nonce_invalid() {
    let service = Service::start().await;
    let token = service.issuer.token().claim("nonce", "n-0S6_WzA2MjINVALID");
    with(&service, &token, &json!({"nonce": "n-0S6_WzA2Mj"})).await.expect(401, "id_token_nonce_mismatch");
}

#[tokio::test]
async fn oidcc_client_test_scope_userinfo_claims() {
    let service = Service::start().await;
    let token = service.issuer.token();
    let token = token.claim("email", "user@example.com").claim("email_verified", true);
    let token = token.claim("preferred_username", "demo").claim("phone_number", "+1 555 5550000");
    let body = service.sign_in(&token.sign()).await.signed_in().clone();
    assert_eq!((&body["user"]["email"], &body["user"]["username"]), (&json!("user@example.com"), &json!("demo")));
    assert_eq!(body["user"]["phone"], "+1 555 5550000");
}

#[tokio::test]
async fn oidcc_client_test_discovery_openid_config() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    assert_eq!(service.issuer.fetches.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn oidcc_client_test_discovery_issuer_mismatch() {
    let service = Service::start().await;
    service.issuer.served.lock().unwrap().document_issuer = Some(format!("{}/other", service.issuer.url));
    service.sign_in(&service.issuer.token().sign()).await.expect(503, "provider_unavailable");
}

#[tokio::test]
async fn oidcc_client_test_signing_key_rotation() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    service.clock.advance(Duration::from_secs(30));
    let next = Arc::new(TestKey::new_rsa());
    service.issuer.rotate_to(vec![("rsa-2", Arc::clone(&next))]);
    service.sign_in(&service.issuer.token().key("RS256", "rsa-2", &next).sign()).await.signed_in();
    service.sign_in(&service.issuer.token().sign()).await.expect(401, "unknown_key");
}

/// The keys change between the sign-in's fetch of them and its token: the first request after it must find the new one.
#[tokio::test]
async fn oidcc_client_test_signing_key_rotation_just_before_signing() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().header("kid", "not-yet").sign()).await.expect(401, "unknown_key");
    let next = Arc::new(TestKey::new_rsa());
    service.issuer.rotate_to(vec![("rsa-2", Arc::clone(&next))]);
    service.clock.advance(Duration::from_secs(10));
    service.sign_in(&service.issuer.token().key("RS256", "rsa-2", &next).sign()).await.signed_in();
}
