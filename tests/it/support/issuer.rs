//! An issuer over HTTP: discovery, a key set that can be changed, and tokens of any kind, valid unless a
//! test says what differs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RsaKeyPair,
};
use countersign::http::serve::serve;
use data_encoding::BASE64URL_NOPAD;
use poem::endpoint::make_sync;
use poem::http::StatusCode;
use poem::{EndpointExt, Response, Route};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::clock::TestClock;

/// A key of the test issuer.
pub enum TestKey {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

impl TestKey {
    pub fn new_rsa() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        Self::Rsa(RsaKeyPair::from_pkcs8(der.as_ref()).unwrap())
    }

    pub fn new_p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub fn new_p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub fn new_ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    pub fn jwk(&self, kid: &str) -> Value {
        let mut jwk = match self {
            Self::Rsa(pair) => {
                let public = pair.public_key();
                json!({
                    "kty": "RSA",
                    "n": b64(public.modulus().big_endian_without_leading_zero()),
                    "e": b64(public.exponent().big_endian_without_leading_zero()),
                })
            }
            Self::P256(pair) => point(pair, "P-256", 32),
            Self::P384(pair) => point(pair, "P-384", 48),
            Self::Ed25519(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key())}),
        };
        jwk["kid"] = kid.into();
        jwk["use"] = "sig".into();
        jwk
    }

    pub fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let padding: &'static dyn signature::RsaEncoding = match alg {
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut out).unwrap();
                out
            }
            Self::P256(pair) | Self::P384(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

fn point(pair: &EcdsaKeyPair, curve: &str, size: usize) -> Value {
    let bytes = pair.public_key().as_ref();
    json!({"kty": "EC", "crv": curve, "x": b64(&bytes[1..=size]), "y": b64(&bytes[1 + size..])})
}

/// One RSA key for all tests: making one takes long.
pub fn shared_rsa() -> Arc<TestKey> {
    static KEY: OnceLock<Arc<TestKey>> = OnceLock::new();
    Arc::clone(KEY.get_or_init(|| Arc::new(TestKey::new_rsa())))
}

/// What the issuer serves, changeable while it runs.
pub struct Served {
    pub keys: Vec<(String, Arc<TestKey>)>,
    pub extra_jwks: Vec<Value>,
    pub fail: bool,
    pub document_issuer: Option<String>,
}

/// A running issuer; clones are the same one.
#[derive(Clone)]
pub struct TestIssuer {
    pub url: String,
    pub served: Arc<Mutex<Served>>,
    pub fetches: Arc<AtomicUsize>,
    clock: TestClock,
}

impl TestIssuer {
    pub const CLIENT: &'static str = "app-web";

    /// Starts one with the shared RSA key as `rsa-1`.
    pub async fn start(clock: TestClock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::new(Mutex::new(Served {
            keys: vec![("rsa-1".to_owned(), shared_rsa())],
            extra_jwks: Vec::new(),
            fail: false,
            document_issuer: None,
        }));
        let fetches = Arc::new(AtomicUsize::new(0));
        let document = {
            let (url, served) = (url.clone(), Arc::clone(&served));
            make_sync(move |_| {
                let served = served.lock().unwrap();
                let issuer = served.document_issuer.clone().unwrap_or_else(|| url.clone());
                let algorithms = ["none", "HS256", "RS256"];
                let document = json!({
                    "issuer": issuer,
                    "jwks_uri": format!("{url}/jwks"),
                    "id_token_signing_alg_values_supported": algorithms,
                });
                answer(served.fail, document)
            })
        };
        let jwks = {
            let (served, fetches) = (Arc::clone(&served), Arc::clone(&fetches));
            make_sync(move |_| {
                fetches.fetch_add(1, Ordering::SeqCst);
                let served = served.lock().unwrap();
                let mut keys: Vec<Value> = served.keys.iter().map(|(kid, key)| key.jwk(kid)).collect();
                keys.extend(served.extra_jwks.clone());
                answer(served.fail, json!({"keys": keys}))
            })
        };
        let routes = Route::new().at("/.well-known/openid-configuration", document).at("/jwks", jwks);
        tokio::spawn(serve(listener, routes.boxed(), std::future::pending()));
        Self { url, served, fetches, clock }
    }

    /// Puts these keys in place of the present ones.
    pub fn rotate_to(&self, keys: Vec<(&str, Arc<TestKey>)>) {
        self.served.lock().unwrap().keys = keys.into_iter().map(|(kid, key)| (kid.to_owned(), key)).collect();
    }

    /// A token that would be accepted.
    pub fn token(&self) -> TokenBuilder {
        let now = self.clock.now_s();
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        let claims = json!({
            "iss": self.url,
            "aud": Self::CLIENT,
            "sub": "subject-1",
            "iat": now,
            "exp": now + 300,
            "jti": format!("jti-{}", SERIAL.fetch_add(1, Ordering::SeqCst)),
        });
        TokenBuilder {
            header: json!({"alg": "RS256", "kid": "rsa-1", "typ": "JWT"}).as_object().unwrap().clone(),
            claims: claims.as_object().unwrap().clone(),
            raw_header: None,
            raw_claims: None,
            key: shared_rsa(),
        }
    }
}

fn answer(fail: bool, body: Value) -> Response {
    if fail {
        return Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR).finish();
    }
    Response::builder().content_type("application/json").body(body.to_string())
}

/// A token in the making: state only what differs.
#[derive(Clone)]
pub struct TokenBuilder {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    raw_header: Option<String>,
    raw_claims: Option<String>,
    key: Arc<TestKey>,
}

impl TokenBuilder {
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    pub fn subject(self, subject: &str) -> Self {
        self.claim("sub", subject)
    }

    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    pub fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    pub fn raw_claims(mut self, text: impl Into<String>) -> Self {
        self.raw_claims = Some(text.into());
        self
    }

    pub fn raw_header(mut self, text: impl Into<String>) -> Self {
        self.raw_header = Some(text.into());
        self
    }

    pub fn key(mut self, alg: &str, kid: &str, key: &Arc<TestKey>) -> Self {
        self.key = Arc::clone(key);
        self.header("alg", alg).header("kid", kid)
    }

    /// What the signature covers.
    pub fn signing_input(&self) -> String {
        let header = self.raw_header.clone().unwrap_or_else(|| Value::Object(self.header.clone()).to_string());
        let claims = self.raw_claims.clone().unwrap_or_else(|| Value::Object(self.claims.clone()).to_string());
        format!("{}.{}", b64(header), b64(claims))
    }

    pub fn sign(&self) -> String {
        let input = self.signing_input();
        let alg = self.header.get("alg").and_then(Value::as_str).unwrap_or("RS256");
        let signature = self.key.sign(alg, input.as_bytes());
        format!("{input}.{}", b64(signature))
    }

    /// With this signature instead of one by the key.
    pub fn with_signature(&self, signature: &[u8]) -> String {
        format!("{}.{}", self.signing_input(), b64(signature))
    }
}
