use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
};
use countersign_plugin_sdk::abi::{CS_DECLINED, CS_INVALID, CS_REJECT, CS_UNAVAILABLE};
use countersign_plugin_sdk::serde_json::json;
use countersign_plugin_sdk::testkit::{FakeHost, Refused, TestPlugin};
use data_encoding::{BASE64, BASE64URL};

use super::*;

const ALB: &str = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/web/50dc6c495c0c9188";
const AVA: &str = "arn:aws:ec2:eu-central-1:123456789012:verified-access-instance/vai-0123456789abcdef0";
const KID: &str = "f3d1c2b4-0000-4000-8000-000000000001";
const NOW_S: i64 = 1_767_225_600;

fn pair(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    EcdsaKeyPair::generate(algorithm).unwrap()
}

fn pem(pair: &EcdsaKeyPair) -> String {
    let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(der.as_ref()))
}

fn sign(pair: &EcdsaKeyPair, header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| BASE64URL.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL.encode(signature.as_ref()))
}

fn alb_header() -> Value {
    json!({
        "typ": "JWT", "kid": KID, "alg": "ES256", "iss": "https://idp.example", "client": "web-1",
        "signer": ALB, "exp": NOW_S + 120
    })
}

fn alb_url() -> String {
    format!("https://public-keys.auth.elb.eu-central-1.amazonaws.com/{KID}")
}

fn alb(host: &FakeHost) -> TestPlugin<HeaderToken> {
    host.create(json!({ "kind": "aws_alb", "region": "eu-central-1", "signer": ALB })).unwrap()
}

fn verify(plugin: &TestPlugin<HeaderToken>, token: &str) -> Result<Value, Refused> {
    plugin.verify(&json!({
        "tenant": "default", "provider": { "id": "alb" }, "client_ids": ["web-1"], "token": token,
        "time_unix_s": NOW_S, "deadline_ms": 5000
    }))
}

#[test]
fn an_alb_token_is_for_the_client_of_its_header_and_its_key_is_fetched_once() {
    let pair = pair(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let host = FakeHost::new().answers("GET", &alb_url(), 200, &pem(&pair));
    let plugin = alb(&host);
    let claims = json!({ "sub": "s-1", "email": "ada@example.com", "aud": "another", "nonce": "n", "exp": 1 });
    let token = sign(&pair, &alb_header(), &claims);
    assert!(token.contains('='), "as the load balancer pads it");
    for _ in 0..3 {
        assert_eq!(
            verify(&plugin, &token).unwrap(),
            json!({ "alg": "ES256", "claims": {
                "sub": "s-1", "email": "ada@example.com", "iss": "https://idp.example", "aud": "web-1",
                "exp": NOW_S + 120, "iat": NOW_S
            }})
        );
    }
    assert_eq!(host.requests().len(), 1);
}

#[test]
fn a_token_of_another_load_balancer_is_refused_before_any_request() {
    let pair = pair(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let host = FakeHost::new().answers("GET", &alb_url(), 200, &pem(&pair));
    let plugin = alb(&host);
    for signer in [json!(AVA), json!(format!("{ALB}x")), Value::Null] {
        let mut header = alb_header();
        header["signer"] = signer;
        let refused = verify(&plugin, &sign(&pair, &header, &json!({ "sub": "s-1" }))).unwrap_err();
        assert_eq!(refused, Refused { status: CS_REJECT, code: Some("wrong_signer".to_owned()) });
    }
    assert!(host.requests().is_empty());
}

#[test]
fn what_is_not_genuine_is_rejected_and_what_is_not_mine_is_declined() {
    let genuine = pair(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let host = FakeHost::new().answers("GET", &alb_url(), 200, &pem(&genuine));
    let plugin = alb(&host);
    let claims = json!({ "sub": "s-1" });
    let status = |token: &str| verify(&plugin, token).unwrap_err().status;
    let with = |name: &str, value: Value| {
        let mut header = alb_header();
        header[name] = value;
        sign(&genuine, &header, &claims)
    };
    assert_eq!(status(&sign(&pair(&ECDSA_P256_SHA256_FIXED_SIGNING), &alb_header(), &claims)), CS_REJECT);
    assert_eq!(status(&sign(&genuine, &alb_header(), &json!({ "iss": "https://other.example" }))), CS_REJECT);
    for (name, value) in [
        ("crit", json!(["x"])),
        ("kid", json!("../../secrets")),
        ("kid", json!("")),
        ("kid", Value::Null),
        ("exp", json!("soon")),
        ("exp", json!(i64::MIN)),
        ("iss", Value::Null),
        ("client", Value::Null),
    ] {
        assert_eq!(status(&with(name, value.clone())), CS_REJECT, "{name} {value}");
    }
    for other in ["", "opaque", "a.b.c", &with("alg", json!("HS256")), &with("alg", json!("none"))] {
        assert_eq!(status(other), CS_DECLINED, "{other}");
    }
}

#[test]
fn an_absent_key_is_a_refusal_and_a_source_out_of_reach_is_none() {
    let pair = pair(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let token = sign(&pair, &alb_header(), &json!({ "sub": "s-1" }));
    for (status, body, expected) in [
        (404, "", CS_REJECT),
        (403, "AccessDenied", CS_REJECT),
        (500, "", CS_UNAVAILABLE),
        (200, "no key", CS_UNAVAILABLE),
    ] {
        let host = FakeHost::new().answers("GET", &alb_url(), status, body);
        assert_eq!(verify(&alb(&host), &token).unwrap_err().status, expected, "{status} {body}");
    }
}

#[test]
fn a_verified_access_token_is_for_its_instance_and_signed_with_es384() {
    let genuine = pair(&ECDSA_P384_SHA384_FIXED_SIGNING);
    let url = format!("https://public-keys.prod.verified-access.eu-central-1.amazonaws.com/{KID}");
    let host = FakeHost::new().answers("GET", &url, 200, &pem(&genuine));
    let plugin: TestPlugin<HeaderToken> =
        host.create(json!({ "kind": "aws_verified_access", "region": "eu-central-1", "signer": AVA })).unwrap();
    let mut header = json!({
        "kid": KID, "alg": "ES384", "iss": "https://idp.example", "signer": AVA, "exp": NOW_S + 120
    });
    let claims = json!({ "sub": "s-1", "aud": "anything" });
    let verified = verify(&plugin, &sign(&genuine, &header, &claims)).unwrap();
    assert_eq!(verified["alg"], "ES384");
    assert_eq!(verified["claims"]["aud"], AVA);
    header["alg"] = "ES256".into();
    let small = pair(&ECDSA_P256_SHA256_FIXED_SIGNING);
    assert_eq!(verify(&plugin, &sign(&small, &header, &claims)).unwrap_err().status, CS_DECLINED);
}

fn locate(plugin: &TestPlugin<HeaderToken>, kid: &str) -> Result<Value, Refused> {
    plugin.locate_keys(&json!({
        "tenant": "default", "provider": { "id": "access" }, "kid": kid, "alg": "RS256", "deadline_ms": 5000
    }))
}

#[test]
fn keys_of_cloudflare_and_google_are_found_where_discovery_does_not_look() {
    let set = json!({ "keys": [{ "kid": "k-1", "kty": "RSA" }], "public_certs": [{ "kid": "k-1" }] }).to_string();
    for (config, url) in [
        (
            json!({ "kind": "cloudflare_access", "team": "acme" }),
            "https://acme.cloudflareaccess.com/cdn-cgi/access/certs",
        ),
        (json!({ "kind": "google_iap" }), "https://www.gstatic.com/iap/verify/public_key-jwk"),
    ] {
        let host = FakeHost::new().answers("GET", url, 200, &set).answers("GET", url, 200, &set);
        let host = host.answers("GET", url, 500, "").answers("GET", url, 200, "{}");
        let plugin = host.create(config).unwrap();
        let located = locate(&plugin, "k-1").unwrap();
        assert_eq!(located, json!({ "jwks": { "keys": [{ "kid": "k-1", "kty": "RSA" }] }, "ttl_s": 3600 }));
        assert_eq!(locate(&plugin, "k-2").unwrap_err().status, CS_DECLINED);
        assert_eq!(locate(&plugin, "k-1").unwrap_err().status, CS_UNAVAILABLE);
        assert_eq!(locate(&plugin, "k-1").unwrap_err().status, CS_UNAVAILABLE);
        assert_eq!(verify(&plugin, "a.b.c").unwrap_err().status, CS_INVALID, "the wrong hook is said, not guessed");
    }
    assert_eq!(locate(&alb(&FakeHost::new()), "k-1").unwrap_err().status, CS_INVALID);
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    for (config, why) in [
        (json!({}), "kind"),
        (json!({ "kind": "azure" }), "unknown variant"),
        (json!({ "kind": "google_iap", "team": "acme" }), "unknown field"),
        (json!({ "kind": "cloudflare_access" }), "team"),
        (json!({ "kind": "cloudflare_access", "team": "acme.example/x?" }), "team"),
        (json!({ "kind": "aws_alb", "signer": ALB }), "region"),
        (json!({ "kind": "aws_alb", "region": "eu-central-1" }), "signer"),
        (json!({ "kind": "aws_alb", "region": "eu-central-1", "signer": "web" }), "ARN"),
    ] {
        let error = FakeHost::new().create::<HeaderToken>(config).err().unwrap();
        assert!(error.contains(why), "{error}");
    }
}
