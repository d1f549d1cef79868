//! Tokens of load balancers, LINE and Firebase: keys and secrets come over the server, into the process of the plugin.

use std::sync::atomic::Ordering;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::KeyPair;
use data_encoding::{BASE64, BASE64URL, BASE64URL_NOPAD};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{APART, die, start};
use crate::sign_in::located_pem::certificate_pem;
use crate::sign_in::plugin_ports::spki;
use crate::sign_in::provider_plugins::{CHANNEL_SECRET, KID, Publisher, SIGNER, entry, signing_input};
use crate::support::clock::TestClock;
use crate::support::issuer::{TestIssuer, TestKey, shared_rsa};
use crate::support::plugins::{Bench, FIREBASE, HEADER_TOKEN, LINE};
use crate::support::service::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_load_balancer_signs_in() {
    let key = TestKey::new_p256();
    let TestKey::P256(pair) = &key else { unreachable!("it was made above") };
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(public.as_ref()));
    let publisher = Publisher::start(pem).await;
    let bench = Bench::new();
    let config = format!("kind = \"aws_alb\", signer = \"{SIGNER}\", keys_url = \"{}\"", publisher.url);
    let entry = entry(&bench, HEADER_TOKEN, "countersign.header_token", &["provider.verify"], "", &config);
    let (program, _bench) = start(bench, &entry.with(APART), Setup::default()).await;
    let token = |subject: &str, key: &TestKey| {
        let header = json!({
            "typ": "JWT", "kid": KID, "alg": "ES256", "iss": program.issuer.url, "client": TestIssuer::CLIENT,
            "signer": SIGNER, "exp": TestClock::real().now_s() + 110
        });
        let claims = json!({ "sub": subject, "email": "ada@example.com", "iss": program.issuer.url });
        let input = signing_input(&BASE64URL, &header, &claims);
        let signature = key.sign("ES256", input.as_bytes());
        format!("{input}.{}", BASE64URL.encode(&signature))
    };
    program.sign_in(&token("s-1", &TestKey::new_p256())).await.expect(401, "id_token_rejected");
    let good = token("s-1", &key);
    program.sign_in(&good).await.signed_in();
    program.sign_in(&good).await.expect(401, "id_token_replayed");
    assert_eq!(publisher.fetches.load(Ordering::SeqCst), 1, "the key is held");
    // The next process begins without it.
    die(&program, 1).await;
    program.sign_in(&token("s-2", &key)).await.signed_in();
    assert_eq!(publisher.fetches.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn line_signs_in_by_channel_secret_and_by_published_key() {
    let key = std::sync::Arc::new(TestKey::new_p256());
    let publisher = Publisher::start(json!({ "keys": [key.jwk("line-1")] }).to_string()).await;
    let bench = Bench::new();
    bench.secret("line_channel_secret", CHANNEL_SECRET);
    let config = format!(
        "keys_url = \"{}\", channels = {{ {} = {{ secret = \"line_channel_secret\", native = true }} }}",
        publisher.url,
        TestIssuer::CLIENT
    );
    let grants = ", secrets = [\"line_channel_secret\"]";
    let entry = entry(&bench, LINE, "countersign.line", &["provider.verify"], grants, &config);
    let (program, _bench) = start(bench, &entry.with(APART), Setup::default()).await;
    let web = |subject: &str, secret: &str| {
        let now = TestClock::real().now_s();
        let claims = json!({
            "iss": program.issuer.url, "aud": TestIssuer::CLIENT, "sub": subject, "iat": now, "exp": now + 300
        });
        let input = signing_input(&BASE64URL_NOPAD, &json!({ "alg": "HS256", "typ": "JWT" }), &claims);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), input.as_bytes());
        format!("{input}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
    };
    let guess = web("U1", "another secret of thirty-two bytes");
    program.sign_in(&guess).await.expect(401, "id_token_rejected");
    program.sign_in(&web("U1", CHANNEL_SECRET)).await.signed_in();
    program.sign_in(&program.issuer.token().key("ES256", "line-1", &key).sign()).await.signed_in();
    // The next process reads the secret again.
    die(&program, 1).await;
    program.sign_in(&web("U2", CHANNEL_SECRET)).await.signed_in();
    assert!(!program.log().contains(CHANNEL_SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn firebase_signs_in_by_certificate_and_adds_claims() {
    let certificates = json!({ "fb-1": certificate_pem(&spki(&shared_rsa().jwk("fb-1"))) });
    let publisher = Publisher::start(certificates.to_string()).await;
    let bench = Bench::new();
    let config =
        format!("projects = [\"shop\"], sign_in_providers = [\"phone\"], certificates_url = \"{}\"", publisher.url);
    let grants = ", claims = [\"auth_time\", \"firebase\"]";
    let hooks = ["provider.locate_keys", "provider.enrich"];
    let entry = entry(&bench, FIREBASE, "firebase", &hooks, grants, &config);
    let policies = TempDir::new().unwrap();
    let rules = r#"fn assess(s, risk) {
        if s.claims.path("x.firebase.sign_in_provider") == "phone" { risk.add(7, "new_network"); }
    }"#;
    let mut setup = Setup::with_policies(policies.path(), &[("risk/_default.rhai", rules)]);
    setup.more_config = "[[providers]]\ntenant = \"default\"\nname = \"firebase\"\npreset = \"firebase\"\n\
        issuer = \"https://securetoken.google.com/shop\"\nclient_ids = [\"shop\"]\n"
        .to_owned();
    let (program, _bench) = start(bench, &entry.with(APART), setup).await;
    let token = |method: &str| {
        let token = program.issuer.token().key("RS256", "fb-1", &shared_rsa());
        let token = token.claim("iss", "https://securetoken.google.com/shop").claim("aud", "shop");
        let signed_in_by: Value = json!({ "sign_in_provider": method });
        token.claim("auth_time", TestClock::real().now_s() - 60).claim("firebase", signed_in_by)
    };
    let answer = program.sign_in_by("firebase", &token("phone").sign()).await;
    assert_eq!(answer.signed_in()["risk_assessment"]["score"], 7);
    program.sign_in_by("firebase", &token("password").sign()).await.expect(403, "identity_rejected");
    let forged = token("phone").with_signature(&[7; 256]);
    program.sign_in_by("firebase", &forged).await.expect(401, "id_token_signature_invalid");
    die(&program, 1).await;
    program.sign_in_by("firebase", &token("phone").sign()).await.signed_in();
    assert_eq!(publisher.fetches.load(Ordering::SeqCst), 1, "the server holds located keys, whoever dies");
}
