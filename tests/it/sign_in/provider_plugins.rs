//! The shipped plugins for providers, through the front door, with keys that a server on loopback publishes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::KeyPair;
use countersign::http::serve::serve;
use data_encoding::{BASE64, BASE64URL, BASE64URL_NOPAD, Encoding};
use poem::endpoint::make_sync;
use poem::http::StatusCode;
use poem::{EndpointExt, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::located_pem::certificate_pem;
use super::plugin_ports::spki;
use crate::support::issuer::{TestIssuer, TestKey, shared_rsa};
use crate::support::plugins::{Bench, Entry, FIREBASE, HEADER_TOKEN, LINE};
use crate::support::service::{Service, Setup};

pub const KID: &str = "f3d1c2b4-0000-4000-8000-000000000001";
pub const SIGNER: &str =
    "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/app/web/50dc6c495c0c9188";
pub const CHANNEL_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Answers with one text whatever is asked, until it is told to fail.
pub struct Publisher {
    pub url: String,
    body: Arc<Mutex<Option<String>>>,
    pub fetches: Arc<AtomicUsize>,
}

impl Publisher {
    pub async fn start(body: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (body, fetches) = (Arc::new(Mutex::new(Some(body))), Arc::new(AtomicUsize::new(0)));
        let endpoint = {
            let (body, fetches) = (Arc::clone(&body), Arc::clone(&fetches));
            make_sync(move |_| {
                fetches.fetch_add(1, Ordering::SeqCst);
                match &*body.lock().unwrap() {
                    Some(body) => Response::builder().body(body.clone()),
                    None => Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).finish(),
                }
            })
        };
        tokio::spawn(serve(listener, endpoint.boxed(), std::future::pending()));
        Self { url, body, fetches }
    }

    fn fail(&self) {
        *self.body.lock().unwrap() = None;
    }
}

pub fn entry(bench: &Bench, library: &str, id: &str, hooks: &[&str], grants: &str, config: &str) -> Entry {
    let entry = bench.rust(library, id).hooks(hooks).with("deadline_ms = 10000\nbind = [\"acme\", \"firebase\"]");
    entry.with(&format!("grants = {{ http = [\"127.0.0.1\"]{grants} }}\nconfig = {{ {config} }}"))
}

async fn start(bench: Bench, entry: &Entry, more_config: &str) -> (Service, Bench) {
    let bench = bench.lock(entry);
    let lock = Some(bench.write());
    let setup = Setup { plugins_lock: lock, more_config: more_config.to_owned(), ..Setup::default() };
    (Service::start_with(setup).await, bench)
}

pub fn signing_input(encoding: &Encoding, header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| encoding.encode(value.to_string().as_bytes());
    format!("{}.{}", encode(header), encode(claims))
}

#[tokio::test]
async fn a_token_of_a_load_balancer_signs_in_with_its_padding_and_only_for_its_own_client() {
    let key = TestKey::new_p256();
    let TestKey::P256(pair) = &key else { unreachable!("it was made above") };
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(public.as_ref()));
    let publisher = Publisher::start(pem).await;
    let bench = Bench::new();
    let config = format!("kind = \"aws_alb\", signer = \"{SIGNER}\", keys_url = \"{}\"", publisher.url);
    let entry = entry(&bench, HEADER_TOKEN, "countersign.header_token", &["provider.verify"], "", &config);
    let (service, _bench) = start(bench, &entry, "").await;
    let now = service.clock.now_s();
    let header = json!({
        "typ": "JWT", "kid": KID, "alg": "ES256", "iss": service.issuer.url, "client": TestIssuer::CLIENT,
        "signer": SIGNER, "exp": now + 110
    });
    let with = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        header
    };
    let sign = |header: &Value, key: &TestKey| {
        let claims = json!({ "sub": "s-1", "email": "ada@example.com", "iss": service.issuer.url });
        let input = signing_input(&BASE64URL, header, &claims);
        let signature = key.sign("ES256", input.as_bytes());
        format!("{input}.{}", BASE64URL.encode(&signature))
    };
    for (token, error) in [
        (sign(&header, &TestKey::new_p256()), "id_token_rejected"),
        (sign(&with("signer", json!("arn:aws:another")), &key), "id_token_rejected"),
        (sign(&with("client", json!("another")), &key), "id_token_audience_mismatch"),
        (sign(&with("exp", json!(now - 120)), &key), "id_token_expired"),
        (sign(&with("iss", json!("https://other.example")), &key), "id_token_rejected"),
        (service.issuer.token().sign(), "id_token_rejected"),
    ] {
        let answer = service.sign_in(&token).await;
        assert_eq!(answer.error(), error, "{}", answer.text);
    }
    let token = sign(&header, &key);
    assert!(token.contains('='), "as the load balancer pads it");
    service.sign_in(&token).await.signed_in();
    service.sign_in(&token).await.expect(401, "id_token_replayed");
    assert_eq!(publisher.fetches.load(Ordering::SeqCst), 1, "the key is held");
}

#[tokio::test]
async fn keys_of_google_iap_are_located_and_the_server_verifies() {
    let key = Arc::new(TestKey::new_p256());
    let publisher = Publisher::start(json!({ "keys": [key.jwk("iap-1")] }).to_string()).await;
    let bench = Bench::new();
    let config = format!("kind = \"google_iap\", keys_url = \"{}\"", publisher.url);
    let entry = entry(&bench, HEADER_TOKEN, "countersign.header_token", &["provider.locate_keys"], "", &config);
    let (service, _bench) = start(bench, &entry, "").await;
    let token = |kid: &str, key: &Arc<TestKey>| service.issuer.token().key("ES256", kid, key).sign();
    service.sign_in(&token("iap-1", &key)).await.signed_in();
    service.sign_in(&token("iap-2", &key)).await.expect(401, "unknown_key");
    service
        .sign_in(&token("iap-1", &Arc::new(TestKey::new_p256())))
        .await
        .expect(401, "id_token_signature_invalid");
    assert_eq!(service.issuer.fetches.load(Ordering::SeqCst), 0, "discovery is not asked");
}

#[tokio::test]
async fn a_token_of_cloudflare_access_signs_in_with_every_request_by_the_keys_of_its_team() {
    let (key, next) = (Arc::new(TestKey::new_rsa()), Arc::new(TestKey::new_rsa()));
    let mut keys = [key.jwk("cf-1"), next.jwk("cf-2")];
    for key in &mut keys {
        key["alg"] = json!("RS256");
    }
    // As it publishes them: the present and the next key, and the same again as certificates.
    let public = json!({ "keys": keys, "public_cert": { "kid": "cf-1", "cert": "-" }, "public_certs": [] });
    let publisher = Publisher::start(public.to_string()).await;
    let bench = Bench::new();
    let config = format!("kind = \"cloudflare_access\", keys_url = \"{}\"", publisher.url);
    let entry = entry(&bench, HEADER_TOKEN, "countersign.header_token", &["provider.locate_keys"], "", &config);
    let bench = bench.lock(&entry);
    let lines = "replay = \"allow\"\nmax_token_age = \"24h\"";
    let setup = Setup { plugins_lock: Some(bench.write()), ..Setup::provider(lines) };
    let service = Service::start_with(setup).await;
    let now = service.clock.now_s();
    // An application token as its documentation shows it; a service token has an empty subject.
    let token = |kid: &str, key: &Arc<TestKey>| {
        let token = service.issuer.token().key("RS256", kid, key).without_header("typ").without("jti");
        token
            .claim("aud", json!([TestIssuer::CLIENT]))
            .claim("email", "ada@example.com")
            .claim("iat", now - 3_600)
            .claim("nbf", now - 3_600)
            .claim("exp", now + 82_800)
            .claim("type", "app")
            .claim("identity_nonce", "6ei69kawdKzMIAPF")
            .claim("sub", "7335d417-61da-459d-899c-0a01c76a2f94")
            .claim("country", "US")
    };
    let good = token("cf-1", &key).sign();
    let first = service.sign_in(&good).await.signed_in()["user_id"].clone();
    assert_eq!(service.sign_in(&good).await.signed_in()["user_id"], first, "one token comes with every request");
    service.sign_in(&token("cf-2", &next).sign()).await.signed_in();
    for (token, error) in [
        (token("cf-1", &key).claim("aud", json!(["another-application"])), "id_token_audience_mismatch"),
        (token("cf-1", &key).claim("sub", ""), "id_token_claim_invalid"),
        (token("cf-1", &key).claim("exp", now - 600), "id_token_expired"),
        (token("cf-1", &key).claim("iat", now - 90_000), "id_token_too_old"),
        (token("cf-1", &next), "id_token_signature_invalid"),
        (token("cf-3", &key), "unknown_key"),
        (token("cf-1", &key).claim("iss", "https://another.cloudflareaccess.com"), "id_token_issuer_mismatch"),
    ] {
        let answer = service.sign_in(&token.sign()).await;
        assert_eq!((answer.status, answer.error()), (401, error), "{}", answer.text);
    }
    assert_eq!(service.issuer.fetches.load(Ordering::SeqCst), 0, "discovery is not asked");
}

#[tokio::test]
async fn a_user_context_of_aws_verified_access_signs_in_for_its_own_instance_alone() {
    const INSTANCE: &str = "arn:aws:ec2:eu-central-1:123456789012:verified-access-instance/vai-0ce000b78b7571abb";
    let key = TestKey::new_p384();
    let TestKey::P384(pair) = &key else { unreachable!("it was made above") };
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(public.as_ref()));
    let publisher = Publisher::start(pem).await;
    let bench = Bench::new();
    let config =
        format!("kind = \"aws_verified_access\", signer = \"{INSTANCE}\", keys_url = \"{}\"", publisher.url);
    let entry = entry(&bench, HEADER_TOKEN, "countersign.header_token", &["provider.verify"], "", &config);
    let bench = bench.lock(&entry);
    // The token names no client: whom it is for is the instance that signed it.
    let provider = "[[providers]]\ntenant = \"default\"\nname = \"firebase\"\nissuer = \"https://idp.example\"\n";
    let more_config = format!("{provider}client_ids = [\"{INSTANCE}\"]\n");
    let setup = Setup { plugins_lock: Some(bench.write()), more_config, ..Setup::default() };
    let service = Service::start_with(setup).await;
    let now = service.clock.now_s();
    let header = json!({
        "alg": "ES384", "kid": KID, "signer": INSTANCE, "iss": "https://idp.example", "exp": now + 110
    });
    let with = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        header
    };
    let claims = json!({
        "sub": "00u2fj5t8LKX", "email": "ada@example.com", "email_verified": true, "preferred_username": "ada",
        "nonce": "of another token", "additional_user_context": { "aud": "another", "exp": now - 9_999 }
    });
    let sign = |header: &Value, claims: &Value, key: &TestKey| {
        let input = signing_input(&BASE64URL, header, claims);
        format!("{input}.{}", BASE64URL.encode(&key.sign("ES384", input.as_bytes())))
    };
    let sign_in = async |token: &str| {
        service.post("/auth/id-token/signin", json!({ "id_token": token, "provider": "firebase" })).await
    };
    let mut nobody = claims.clone();
    nobody.as_object_mut().unwrap().remove("sub");
    let mut foreign = claims.clone();
    foreign["iss"] = json!("https://other.example");
    for (token, error) in [
        (sign(&header, &claims, &TestKey::new_p384()), "id_token_rejected"),
        (sign(&with("signer", json!(SIGNER)), &claims, &key), "id_token_rejected"),
        (sign(&with("alg", json!("ES256")), &claims, &key), "id_token_rejected"),
        (sign(&with("exp", json!(now - 120)), &claims, &key), "id_token_expired"),
        (sign(&with("iss", json!("https://other.example")), &claims, &key), "id_token_issuer_mismatch"),
        (sign(&header, &foreign, &key), "id_token_rejected"),
        (sign(&header, &nobody, &key), "id_token_claim_invalid"),
        (service.issuer.token().sign(), "id_token_rejected"),
    ] {
        let answer = sign_in(&token).await;
        assert_eq!((answer.status, answer.error()), (401, error), "{}", answer.text);
    }
    let token = sign(&header, &claims, &key);
    sign_in(&token).await.signed_in();
    sign_in(&token).await.expect(401, "id_token_replayed");
    assert_eq!(publisher.fetches.load(Ordering::SeqCst), 1, "the key is held");
}

#[tokio::test]
async fn line_signs_in_by_channel_secret_and_by_published_key_and_is_503_without_keys() {
    let key = Arc::new(TestKey::new_p256());
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
    let (service, _bench) = start(bench, &entry, "").await;
    let now = service.clock.now_s();
    let web = |audience: &str, secret: &str| {
        let claims =
            json!({ "iss": service.issuer.url, "aud": audience, "sub": "U1", "iat": now, "exp": now + 300 });
        let input = signing_input(&BASE64URL_NOPAD, &json!({ "alg": "HS256", "typ": "JWT" }), &claims);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), input.as_bytes());
        format!("{input}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
    };
    service.sign_in(&web(TestIssuer::CLIENT, CHANNEL_SECRET)).await.signed_in();
    service.sign_in(&web("another", CHANNEL_SECRET)).await.expect(401, "id_token_rejected");
    let guess = web(TestIssuer::CLIENT, "another secret of thirty-two bytes");
    service.sign_in(&guess).await.expect(401, "id_token_rejected");
    let native = |kid: &str| service.issuer.token().key("ES256", kid, &key);
    service.sign_in(&native("line-1").sign()).await.signed_in();
    service.sign_in(&native("line-1").claim("aud", "another").sign()).await.expect(401, "id_token_rejected");
    let stale = native("line-1").claim("exp", now - 300).claim("iat", now - 600).sign();
    service.sign_in(&stale).await.expect(401, "id_token_expired");
    publisher.fail();
    service.sign_in(&native("line-1").sign()).await.signed_in();
    service.sign_in(&native("line-2").sign()).await.expect(503, "provider_unavailable");
}

#[tokio::test]
async fn firebase_signs_in_by_certificate_and_says_how_and_refuses_what_is_not_allowed() {
    let certificates = json!({ "fb-1": certificate_pem(&spki(&shared_rsa().jwk("fb-1"))) });
    let publisher = Publisher::start(certificates.to_string()).await;
    let bench = Bench::new();
    let config =
        format!("projects = [\"shop\"], sign_in_providers = [\"phone\"], certificates_url = \"{}\"", publisher.url);
    let grants = ", claims = [\"auth_time\", \"firebase\"]";
    let hooks = ["provider.locate_keys", "provider.enrich"];
    let entry = entry(&bench, FIREBASE, "firebase", &hooks, grants, &config);
    let provider = "[[providers]]\ntenant = \"default\"\nname = \"firebase\"\npreset = \"firebase\"\n\
        issuer = \"https://securetoken.google.com/shop\"\nclient_ids = [\"shop\"]\n";
    let policies = tempfile::TempDir::new().unwrap();
    let rules = r#"fn assess(s, risk) {
        if s.claims.path("x.firebase.sign_in_provider") == "phone" { risk.add(7, "new_network"); }
    }"#;
    let bench = bench.lock(&entry);
    let mut setup = Setup::with_policies(policies.path(), &[("risk/_default.rhai", rules)]);
    setup.plugins_lock = Some(bench.write());
    setup.more_config = provider.to_owned();
    let service = Service::start_with(setup).await;
    let now = service.clock.now_s();
    let token = |method: &str| {
        let token = service.issuer.token().key("RS256", "fb-1", &shared_rsa());
        let token = token.claim("iss", "https://securetoken.google.com/shop").claim("aud", "shop");
        token.claim("auth_time", now - 60).claim("firebase", json!({ "sign_in_provider": method }))
    };
    let sign_in = async |token: String| {
        service.post("/auth/id-token/signin", json!({ "id_token": token, "provider": "firebase" })).await
    };
    let answer = sign_in(token("phone").sign()).await;
    assert_eq!(answer.signed_in()["risk_assessment"]["score"], 7);
    sign_in(token("password").sign()).await.expect(403, "identity_rejected");
    sign_in(token("phone").without("auth_time").sign()).await.expect(403, "identity_rejected");
    sign_in(token("phone").header("kid", "fb-2").sign()).await.expect(401, "unknown_key");
    sign_in(token("phone").with_signature(&[7; 256])).await.expect(401, "id_token_signature_invalid");
}
