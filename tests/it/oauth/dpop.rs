//! Tokens that are bound to a key (RFC 9449).

use std::sync::Arc;
use std::time::Duration;

use countersign::session::dpop::thumbprint;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::{API, EXCHANGE, ID_TOKEN, claims, encoded, form, setup, text};
use crate::support::issuer::TestKey;
use crate::support::service::{Answer, JsonBody, Service};

const BASE: &str = "http://127.0.0.1:8080";

/// A proof in the making: state only what differs.
struct Proof {
    key: Arc<TestKey>,
    header: Value,
    claims: Value,
}

impl Proof {
    fn by(key: &Arc<TestKey>, service: &Service, method: &str, path: &str) -> Self {
        static SERIAL: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let jti = format!("proof-{}", SERIAL.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
        let claims =
            json!({"jti": jti, "htm": method, "htu": format!("{BASE}{path}"), "iat": service.clock.now_s()});
        let mut jwk = key.jwk("any");
        jwk.as_object_mut().unwrap().remove("use");
        Self { key: Arc::clone(key), header: json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk}), claims }
    }

    fn of(mut self, access_token: &str) -> Self {
        self.claims["ath"] = BASE64URL_NOPAD.encode(&countersign::secret::sha256(access_token.as_bytes())).into();
        self
    }

    fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims[name] = value.into();
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.claims.as_object_mut().unwrap().remove(name);
        self
    }

    fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header[name] = value.into();
        self
    }

    fn sign(&self) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let input = format!("{}.{}", part(&self.header), part(&self.claims));
        let signature = self.key.sign("ES256", input.as_bytes());
        format!("{input}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}

fn new_key() -> Arc<TestKey> {
    Arc::new(TestKey::new_p256())
}

fn jkt(key: &TestKey) -> String {
    thumbprint(key.jwk("any").as_object().unwrap()).unwrap()
}

async fn post_token(service: &Service, fields: &[(&str, &str)], proofs: &[String]) -> Answer {
    let mut request = service.http().post(service.url("/oauth/token"));
    for proof in proofs {
        request = request.header("DPoP", proof);
    }
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(encoded(fields));
    service.send(request).await
}

async fn exchange(service: &Service, proof: &str) -> Answer {
    let token = service.issuer.token().sign();
    let fields = [
        ("client_id", "app"),
        ("grant_type", EXCHANGE),
        ("subject_token", token.as_str()),
        ("subject_token_type", ID_TOKEN),
    ];
    post_token(service, &fields, &[proof.to_owned()]).await
}

async fn refresh(service: &Service, token: &str, proofs: &[String]) -> Answer {
    post_token(service, &[("client_id", "app"), ("grant_type", "refresh_token"), ("refresh_token", token)], proofs)
        .await
}

async fn me(service: &Service, scheme: &str, access: &str, proof: Option<String>) -> Answer {
    let mut request =
        service.http().get(service.url("/auth/me")).header("authorization", format!("{scheme} {access}"));
    if let Some(proof) = proof {
        request = request.header("dpop", proof);
    }
    service.send(request).await
}

#[tokio::test]
async fn tokens_that_were_got_with_a_proof_open_nothing_without_one_of_the_same_key() {
    let service = Service::start_with(setup()).await;
    let (key, thief) = (new_key(), new_key());
    let tokens = exchange(&service, &Proof::by(&key, &service, "POST", "/oauth/token").sign()).await;
    assert_eq!((tokens.status, &tokens.body["token_type"]), (200, &json!("DPoP")), "{}", tokens.text);
    let access = text(&tokens, "access_token");
    assert_eq!(claims(access)["cnf"]["jkt"], jkt(&key));

    let at_me = |key| Proof::by(key, &service, "GET", "/auth/me");
    assert_eq!(me(&service, "DPoP", access, Some(at_me(&key).of(access).sign())).await.status, 200);
    for (scheme, proof) in [
        ("Bearer", None),
        ("Bearer", Some(at_me(&key).of(access).sign())),
        ("DPoP", None),
        ("DPoP", Some(at_me(&thief).of(access).sign())),
        ("DPoP", Some(at_me(&key).sign())),
        ("DPoP", Some(at_me(&key).of("another token").sign())),
        ("DPoP", Some(Proof::by(&key, &service, "POST", "/auth/me").of(access).sign())),
        ("DPoP", Some(Proof::by(&key, &service, "GET", "/auth/me/mfa").of(access).sign())),
    ] {
        let refused = me(&service, scheme, access, proof).await;
        refused.expect(401, "dpop_proof_required");
        assert_eq!(refused.headers["www-authenticate"], "DPoP error=\"invalid_dpop_proof\"");
    }
    let known = form(&service, "/oauth/introspect", &[&API[..], &[("token", access)]].concat()).await;
    assert_eq!((&known.body["token_type"], &known.body["cnf"]["jkt"]), (&json!("DPoP"), &json!(jkt(&key))));
}

#[tokio::test]
async fn a_refresh_of_bound_tokens_needs_the_key_and_a_wrong_one_ends_nothing() {
    let service = Service::start_with(setup()).await;
    let key = new_key();
    let proof = |key| Proof::by(key, &service, "POST", "/oauth/token").sign();
    let tokens = exchange(&service, &proof(&key)).await;
    let token = text(&tokens, "refresh_token");
    refresh(&service, token, &[]).await.expect(400, "invalid_dpop_proof");
    let another = new_key();
    refresh(&service, token, &[proof(&another)]).await.expect(400, "invalid_dpop_proof");
    refresh(&service, token, &[proof(&key), proof(&key)]).await.expect(400, "invalid_dpop_proof");
    let again = refresh(&service, token, &[proof(&key)]).await;
    assert_eq!((again.status, &again.body["token_type"]), (200, &json!("DPoP")), "{}", again.text);
    assert_eq!(claims(text(&again, "access_token"))["cnf"]["jkt"], jkt(&key));
}

#[tokio::test]
async fn a_proof_that_is_malformed_late_early_foreign_or_used_gives_no_tokens() {
    let service = Service::start_with(setup()).await;
    let key = new_key();
    let proof = || Proof::by(&key, &service, "POST", "/oauth/token");
    let now = service.clock.now_s();
    let private = {
        let mut jwk = key.jwk("any");
        jwk["d"] = "AAAA".into();
        jwk
    };
    let mut changed = proof().sign();
    changed.replace_range(changed.len() - 4.., "AAAA");
    let once = proof().sign();
    let fine = exchange(&service, &once).await;
    assert_eq!(fine.status, 200, "{}", fine.text);
    for bad in [
        once,
        changed,
        String::new(),
        "x".to_owned(),
        "a.b.c".to_owned(),
        proof().header("typ", "JWT").sign(),
        proof().header("alg", "none").sign(),
        proof().header("alg", "HS256").sign(),
        proof().header("alg", "RS256").sign(),
        proof().header("jwk", private).sign(),
        proof().header("jwk", Value::Null).sign(),
        proof().header("jwk", new_key().jwk("other")).sign(),
        proof().header("crit", json!(["x"])).sign(),
        proof().claim("htm", "post").sign(),
        proof().claim("htm", "GET").sign(),
        proof().claim("htu", "http://127.0.0.1:8080/oauth/revoke").sign(),
        proof().claim("htu", "https://127.0.0.1:8080/oauth/token").sign(),
        proof().claim("htu", service.url("/oauth/token")).sign(),
        proof().claim("htu", "/oauth/token").sign(),
        proof().claim("iat", now - 61).sign(),
        proof().claim("iat", now + 61).sign(),
        proof().claim("iat", now.to_string()).sign(),
        proof().claim("jti", "").sign(),
        proof().claim("jti", "j".repeat(300)).sign(),
        proof().without("jti").sign(),
        proof().without("iat").sign(),
        proof().without("htm").sign(),
        proof().without("htu").sign(),
        "a".repeat(9000),
    ] {
        let answer = exchange(&service, &bad).await;
        answer.expect(400, "invalid_dpop_proof");
    }
    assert_eq!(exchange(&service, &proof().claim("iat", now - 60).sign()).await.status, 200);
    let with_query = proof().claim("htu", "HTTP://127.0.0.1:8080/oauth/token?x=1#y").sign();
    assert_eq!(exchange(&service, &with_query).await.status, 200);
}

#[tokio::test]
async fn of_many_requests_with_one_proof_one_gets_tokens() {
    let service = Service::start_with(setup()).await;
    let proof = Proof::by(&new_key(), &service, "POST", "/oauth/token").sign();
    let answers = futures_util::future::join_all((0..20).map(|_| exchange(&service, &proof))).await;
    assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1);
}

#[tokio::test]
async fn the_json_endpoints_bind_as_well_and_a_bearer_token_is_not_taken_for_a_bound_one() {
    let service = Service::start_with(setup()).await;
    let key = new_key();
    let post = |path: &str, body: Value, proof: Option<String>| {
        let request = service.http().post(service.url(path)).json(&body);
        let request = if let Some(proof) = proof { request.header("DPoP", proof) } else { request };
        service.send(request)
    };
    let sign_in = json!({"id_token": service.issuer.token().sign(), "provider": "acme"});
    let path = "/auth/id-token/signin";
    let bad = Proof::by(&key, &service, "POST", "/auth/refresh").sign();
    post(path, sign_in.clone(), Some(bad)).await.expect(400, "invalid_dpop_proof");
    let bound = post(path, sign_in, Some(Proof::by(&key, &service, "POST", path).sign())).await;
    assert_eq!(bound.signed_in()["token_type"], "DPoP");
    let again = json!({"refresh_token": bound.body["refresh_token"]});
    post("/auth/refresh", again.clone(), None).await.expect(400, "invalid_dpop_proof");
    let proof = Proof::by(&key, &service, "POST", "/auth/refresh").sign();
    let refreshed = post("/auth/refresh", again, Some(proof)).await;
    assert_eq!(refreshed.signed_in()["token_type"], "DPoP");

    let plain = service.sign_in(&service.issuer.token().sign()).await;
    assert_eq!(plain.signed_in()["token_type"], "Bearer");
    let access = text(&plain, "access_token");
    let proof = Proof::by(&key, &service, "GET", "/auth/me").of(access).sign();
    me(&service, "DPoP", access, Some(proof)).await.expect(401, "invalid_access_token");
    service.clock.advance(Duration::from_secs(1));
    assert_eq!(me(&service, "Bearer", access, None).await.status, 200);
}
