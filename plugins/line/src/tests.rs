use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use countersign_plugin_sdk::abi::{CS_DECLINED, CS_REJECT, CS_UNAVAILABLE};
use countersign_plugin_sdk::serde_json::json;
use countersign_plugin_sdk::testkit::{FakeHost, Refused, TestPlugin};
use data_encoding::BASE64URL_NOPAD;

use super::*;

const WEB: &str = "0123456789abcdef0123456789abcdef";
const BOTH: &str = "fedcba9876543210fedcba9876543210";

struct Published(EcdsaKeyPair);

impl Published {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn set(&self) -> String {
        let point = self.0.public_key().as_ref();
        let number = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let jwk = json!({
            "kid": "k-1", "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
            "x": number(&point[1..33]), "y": number(&point[33..])
        });
        json!({ "keys": [{ "kid": "rsa", "kty": "RSA" }, jwk] }).to_string()
    }

    fn token(&self, kid: &str, claims: &Value) -> String {
        let signed = signing_input(&json!({ "alg": "ES256", "kid": kid }), claims);
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }
}

fn signing_input(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}", encode(header), encode(claims))
}

fn hs256(header: &Value, claims: &Value, secret: &str) -> String {
    let signed = signing_input(header, claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

fn host() -> FakeHost {
    FakeHost::new().secret("web", WEB).secret("both", BOTH)
}

fn plugin(host: &FakeHost) -> TestPlugin<Line> {
    let channels =
        json!({ "1": { "secret": "web" }, "2": { "secret": "both", "native": true }, "3": { "native": true } });
    host.create(json!({ "channels": channels })).unwrap()
}

fn verify(plugin: &TestPlugin<Line>, token: &str) -> Result<Value, Refused> {
    plugin.verify(&json!({
        "tenant": "default", "provider": { "id": "line" }, "client_ids": ["1", "2", "3"], "token": token,
        "time_unix_s": 1_767_225_600, "deadline_ms": 5000
    }))
}

fn claims(audience: impl Into<Value>) -> Value {
    json!({ "sub": "U1", "aud": audience.into() })
}

#[test]
fn web_login_is_checked_with_the_secret_of_its_own_channel() {
    let plugin = plugin(&host());
    let header = json!({ "alg": "HS256", "typ": "JWT" });
    for (secret, channel) in [(WEB, "1"), (BOTH, "2")] {
        let verified = verify(&plugin, &hs256(&header, &claims(channel), secret)).unwrap();
        assert_eq!(verified, json!({ "alg": "HS256", "claims": claims(channel) }));
    }
    let code = |token: &str| verify(&plugin, token).unwrap_err().code.unwrap();
    assert_eq!(code(&hs256(&header, &claims("2"), WEB)), "wrong_channel");
    assert_eq!(code(&hs256(&header, &claims("3"), WEB)), "wrong_channel");
    assert_eq!(code(&hs256(&header, &claims(json!(["1"])), WEB)), "wrong_channel");
    assert_eq!(code(&hs256(&header, &claims("1"), "a secret of nobody, thirty-two bytes")), "bad_signature");
    assert_eq!(code(&hs256(&json!({ "alg": "HS256", "crit": ["b64"] }), &claims("1"), WEB)), "critical_header");
}

#[test]
fn native_login_is_checked_with_a_published_key_that_is_fetched_once() {
    let published = Published::new();
    let host = host().answers("GET", KEYS_URL, 200, &published.set());
    let plugin = plugin(&host);
    for channel in ["2", "3", "2"] {
        let verified = verify(&plugin, &published.token("k-1", &claims(channel))).unwrap();
        assert_eq!(verified, json!({ "alg": "ES256", "claims": claims(channel) }));
    }
    assert_eq!(host.requests().len(), 1);
    let web_only = verify(&plugin, &published.token("k-1", &claims("1"))).unwrap_err();
    assert_eq!(web_only, Refused { status: CS_REJECT, code: Some("wrong_channel".to_owned()) });
    let forged = verify(&plugin, &Published::new().token("k-1", &claims("2"))).unwrap_err();
    assert_eq!(forged, Refused { status: CS_REJECT, code: Some("bad_signature".to_owned()) });
}

#[test]
fn a_published_key_is_never_taken_for_a_secret() {
    let published = Published::new();
    let plugin = plugin(&host().answers("GET", KEYS_URL, 200, &published.set()));
    verify(&plugin, &published.token("k-1", &claims("2"))).unwrap();
    let point = BASE64URL_NOPAD.encode(published.0.public_key().as_ref());
    for secret in [point.as_str(), &published.set()] {
        let token = hs256(&json!({ "alg": "HS256", "kid": "k-1" }), &claims("2"), secret);
        assert_eq!(verify(&plugin, &token).unwrap_err().status, CS_REJECT);
    }
}

#[test]
fn an_unknown_key_is_refused_keys_out_of_reach_are_no_refusal_and_other_tokens_are_not_mine() {
    let published = Published::new();
    let host = host().answers("GET", KEYS_URL, 500, "").answers("GET", KEYS_URL, 200, &published.set());
    let plugin = plugin(&host);
    let token = published.token("k-2", &claims("2"));
    assert_eq!(verify(&plugin, &token).unwrap_err().status, CS_UNAVAILABLE);
    assert_eq!(verify(&plugin, &token).unwrap_err().code.unwrap(), "unknown_key");
    for other in ["", "opaque", "a.b.c", &hs256(&json!({ "alg": "none" }), &claims("1"), WEB)] {
        assert_eq!(verify(&plugin, other).unwrap_err().status, CS_DECLINED, "{other}");
    }
}

#[test]
fn a_configuration_that_lets_nothing_in_is_refused() {
    for (config, why) in [
        (json!({}), "channels"),
        (json!({ "channels": {} }), "no channel"),
        (json!({ "channels": { "1": {} } }), "neither"),
        (json!({ "channels": { "1": { "secret": "absent" } } }), "not granted"),
        (json!({ "channels": { "1": { "secret": "short" } } }), "32 bytes"),
        (json!({ "channels": { "1": { "native": true, "x": 1 } } }), "unknown field"),
    ] {
        let error = host().secret("short", "short").create::<Line>(config).err().unwrap();
        assert!(error.contains(why), "{error}");
    }
}
