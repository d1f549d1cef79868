//! Tokens that must not come in. Each row is a thing that happened to somebody.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::support::issuer::{TestIssuer, TestKey, TokenBuilder, shared_rsa};
use crate::support::service::{Service, Setup};

type Change = fn(TokenBuilder, i64) -> TokenBuilder;

#[tokio::test]
async fn each_broken_claim_is_refused_with_its_own_code() {
    let rows: Vec<(&str, Change, &str)> = vec![
        ("another audience", |t, _| t.claim("aud", "com.example.other"), "id_token_audience_mismatch"),
        ("audience list without ours", |t, _| t.claim("aud", json!(["x", "y"])), "id_token_audience_mismatch"),
        ("empty audience list", |t, _| t.claim("aud", json!([])), "id_token_claim_invalid"),
        ("audience number", |t, _| t.claim("aud", 7), "id_token_claim_invalid"),
        ("audience list with a number", |t, _| t.claim("aud", json!(["app-web", 7])), "id_token_claim_invalid"),
        ("no audience", |t, _| t.without("aud"), "id_token_claim_invalid"),
        (
            "a foreign audience beside ours",
            |t, _| t.claim("aud", json!(["app-web", "evil"])),
            "id_token_azp_mismatch",
        ),
        ("azp of another client", |t, _| t.claim("azp", "evil"), "id_token_azp_mismatch"),
        ("azp of another type", |t, _| t.claim("azp", json!(["app-web"])), "id_token_claim_invalid"),
        ("another issuer", |t, _| t.claim("iss", "https://evil.example"), "id_token_issuer_mismatch"),
        ("issuer with a slash more", |t, _| t.claim("iss", "http://127.0.0.1/"), "id_token_issuer_mismatch"),
        ("issuer list", |t, _| t.claim("iss", json!(["https://evil.example"])), "id_token_claim_invalid"),
        ("no issuer", |t, _| t.without("iss"), "id_token_claim_invalid"),
        ("expired", |t, now| t.claim("exp", now - 61), "id_token_expired"),
        ("no exp", |t, _| t.without("exp"), "id_token_claim_invalid"),
        ("exp null", |t, _| t.claim("exp", Value::Null), "id_token_claim_invalid"),
        ("exp text", |t, now| t.claim("exp", (now + 300).to_string()), "id_token_claim_invalid"),
        ("exp float", |t, now| t.claim("exp", now as f64 + 300.5), "id_token_claim_invalid"),
        ("exp negative", |t, _| t.claim("exp", -1), "id_token_claim_invalid"),
        ("exp huge", |t, _| t.claim("exp", 99_999_999_999_999_i64), "id_token_claim_invalid"),
        ("exp beyond 64 bits", |t, _| t.claim("exp", u64::MAX), "id_token_claim_invalid"),
        ("nbf ahead", |t, now| t.claim("nbf", now + 61), "id_token_not_yet_valid"),
        ("nbf text", |t, now| t.claim("nbf", now.to_string()), "id_token_claim_invalid"),
        ("iat ahead", |t, now| t.claim("iat", now + 61), "id_token_not_yet_valid"),
        ("iat text", |t, now| t.claim("iat", now.to_string()), "id_token_claim_invalid"),
        ("no iat", |t, _| t.without("iat"), "id_token_claim_invalid"),
        ("issued too long ago", |t, now| t.claim("iat", now - 661), "id_token_too_old"),
        ("auth_time ahead", |t, now| t.claim("auth_time", now + 61), "id_token_not_yet_valid"),
        ("auth_time text", |t, now| t.claim("auth_time", now.to_string()), "id_token_claim_invalid"),
        ("no subject", |t, _| t.without("sub"), "id_token_claim_invalid"),
        ("empty subject", |t, _| t.subject(""), "id_token_claim_invalid"),
        ("subject number", |t, _| t.claim("sub", 1), "id_token_claim_invalid"),
        ("subject too long", |t, _| t.subject(&"x".repeat(256)), "id_token_claim_invalid"),
        ("subject with a control character", |t, _| t.subject("a\u{0}b"), "id_token_claim_invalid"),
        ("jti of another type", |t, _| t.claim("jti", 5), "id_token_claim_invalid"),
    ];
    let service = Service::start().await;
    for (name, change, error) in rows {
        let token = change(service.issuer.token(), service.clock.now_s()).sign();
        let answer = service.sign_in(&token).await;
        assert_eq!((answer.status, answer.error()), (401, error), "{name}: {}", answer.text);
        assert!(!answer.text.contains(&token), "{name}: the token stands in the answer");
    }
}

#[tokio::test]
async fn times_are_accepted_to_the_last_second_of_the_leeway() {
    let service = Service::start().await;
    let now = service.clock.now_s();
    for token in [
        service.issuer.token().claim("exp", now - 59),
        service.issuer.token().claim("nbf", now + 60),
        service.issuer.token().claim("iat", now + 60),
        service.issuer.token().claim("iat", now - 660),
    ] {
        service.sign_in(&token.sign()).await.signed_in();
    }
}

#[tokio::test]
async fn the_classic_attacks_on_the_header_are_refused_without_a_fetch() {
    let rows: Vec<(&str, Change, &str)> = vec![
        ("alg none", |t, _| t.header("alg", "none"), "id_token_algorithm_not_allowed"),
        ("alg None", |t, _| t.header("alg", "None"), "id_token_algorithm_not_allowed"),
        ("alg HS256", |t, _| t.header("alg", "HS256"), "id_token_algorithm_not_allowed"),
        ("alg ES256K", |t, _| t.header("alg", "ES256K"), "id_token_algorithm_not_allowed"),
        ("no alg", |t, _| t.without_header("alg"), "id_token_algorithm_not_allowed"),
        ("alg list", |t, _| t.header("alg", json!(["RS256"])), "id_token_algorithm_not_allowed"),
        ("alg not pinned", |t, _| t.header("alg", "RS512"), "id_token_algorithm_not_allowed"),
        ("jwk", |t, _| t.header("jwk", shared_rsa().jwk("mine")), "id_token_header_refused"),
        ("jku", |t, _| t.header("jku", "https://evil.example/jwks"), "id_token_header_refused"),
        ("x5u", |t, _| t.header("x5u", "https://evil.example/x5u"), "id_token_header_refused"),
        ("x5c", |t, _| t.header("x5c", json!(["MIIB"])), "id_token_header_refused"),
        ("crit", |t, _| t.header("crit", json!(["exp"])), "id_token_header_refused"),
        ("b64", |t, _| t.header("b64", false), "id_token_header_refused"),
        ("zip", |t, _| t.header("zip", "DEF"), "id_token_header_refused"),
        ("cty", |t, _| t.header("cty", "JWT"), "id_token_header_refused"),
        ("an access token", |t, _| t.header("typ", "at+jwt"), "id_token_type_refused"),
        ("a logout token", |t, _| t.header("typ", "logout+jwt"), "id_token_type_refused"),
        ("typ number", |t, _| t.header("typ", 1), "id_token_type_refused"),
    ];
    let service = Service::start().await;
    for (name, change, error) in rows {
        let token = change(service.issuer.token(), 0).sign();
        let answer = service.sign_in(&token).await;
        assert_eq!((answer.status, answer.error()), (401, error), "{name}: {}", answer.text);
    }
    assert_eq!(service.issuer.fetches.load(Ordering::SeqCst), 0, "none of them made the server fetch keys");
}

#[tokio::test]
async fn a_token_signed_with_the_public_key_as_a_shared_secret_is_refused() {
    let service = Service::start().await;
    let token = service.issuer.token().header("alg", "HS256");
    let public = shared_rsa().jwk("rsa-1").to_string();
    let key = hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes());
    let tag = hmac::sign(&key, token.signing_input().as_bytes());
    let answer = service.sign_in(&token.with_signature(tag.as_ref())).await;
    answer.expect(401, "id_token_algorithm_not_allowed");
}

#[tokio::test]
async fn a_signature_that_is_not_the_providers_is_refused_before_claims_are_looked_at() {
    let service = Service::start().await;
    let foreign = Arc::new(TestKey::new_rsa());
    let expired = service.issuer.token().claim("exp", 1).claim("aud", "other");
    service
        .sign_in(&expired.clone().key("RS256", "rsa-1", &foreign).sign())
        .await
        .expect(401, "id_token_signature_invalid");
    let good = service.issuer.token().sign();
    let (input, signature) = good.rsplit_once('.').unwrap();
    let mut bytes = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    bytes[10] ^= 1;
    let flipped = format!("{input}.{}", BASE64URL_NOPAD.encode(&bytes));
    service.sign_in(&flipped).await.expect(401, "id_token_signature_invalid");
    bytes.truncate(8);
    let short = format!("{input}.{}", BASE64URL_NOPAD.encode(&bytes));
    service.sign_in(&short).await.expect(401, "id_token_signature_invalid");
    service.sign_in(&good).await.signed_in();
}

#[tokio::test]
async fn texts_that_are_no_compact_jws_are_malformed() {
    let service = Service::start().await;
    let good = service.issuer.token().sign();
    let (head, tail) = good.split_once('.').unwrap();
    let parts: Vec<&str> = good.split('.').collect();
    let raw = |t: TokenBuilder| t.sign();
    let malformed = [
        "x".to_owned(),
        "..".to_owned(),
        format!("{head}."),
        format!("{head}=.{tail}"),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}.{}.x", parts[0], parts[1], parts[2]),
        format!("{}.{}.{}=", parts[0], parts[1], parts[2]),
        format!(" {good}"),
        format!("{good}\n"),
        "é.é.é".to_owned(),
        "A".repeat(20_000),
        format!("{head}.{}.{}", BASE64URL_NOPAD.encode(b"[]"), parts[2]),
        raw(service.issuer.token().raw_header("{}{}")),
        raw(service.issuer.token().raw_header("{\"alg\":\"RS256\",\"alg\":\"none\"}")),
        raw(service.issuer.token().raw_claims("{\"sub\":\"a\",\"sub\":\"b\"}")),
        raw(service.issuer.token().raw_claims("{\"a\":{\"b\":1,\"b\":2}}")),
        raw(service.issuer.token().raw_claims("[".repeat(5000))),
        raw(service.issuer.token().header("kid", 5)),
        raw(service.issuer.token().header("kid", "k".repeat(300))),
    ];
    for token in malformed {
        let answer = service.sign_in(&token).await;
        let start: String = token.chars().take(40).collect();
        assert_eq!((answer.status, answer.error()), (400, "malformed_id_token"), "{start}: {}", answer.text);
    }
    service.sign_in("a.b.c.d.e").await.expect(401, "id_token_encrypted");
    service.sign_in("").await.expect(400, "missing_id_token");
    service.post("/auth/id-token/signin", json!({})).await.expect(400, "missing_id_token");
    service.post("/auth/id-token/signin", json!({"id_token": null})).await.expect(400, "missing_id_token");
}

#[tokio::test]
async fn a_token_of_a_foreign_issuer_under_our_providers_name_is_refused() {
    let service = Service::start().await;
    let foreign = TestIssuer::start(service.clock.clone()).await;
    let key = Arc::new(TestKey::new_rsa());
    foreign.rotate_to(vec![("evil", Arc::clone(&key))]);
    let token = foreign.token().key("RS256", "evil", &key).claim("email", "victim@example.com").sign();
    service.sign_in(&token).await.expect(401, "unknown_key");
    assert_eq!(foreign.fetches.load(Ordering::SeqCst), 0, "the token's own issuer was asked for keys");
}

#[tokio::test]
async fn keys_are_chosen_by_kid_and_must_fit_the_algorithm() {
    let service = Service::start().await;
    let (p256, ed) = (Arc::new(TestKey::new_p256()), Arc::new(TestKey::new_ed25519()));
    service.issuer.rotate_to(vec![("rsa-1", shared_rsa()), ("p256", Arc::clone(&p256)), ("ed", Arc::clone(&ed))]);
    let token = || service.issuer.token();
    service.sign_in(&token().key("RS256", "p256", &shared_rsa()).sign()).await.expect(401, "key_unfit");
    service.sign_in(&token().header("kid", "nobody").sign()).await.expect(401, "unknown_key");
    // One RSA key, one P-256 key: each algorithm has exactly one that fits.
    service.sign_in(&token().without_header("kid").sign()).await.signed_in();
    service.sign_in(&token().key("ES256", "x", &p256).without_header("kid").sign()).await.signed_in();
}

#[tokio::test]
async fn a_missing_kid_is_refused_when_two_keys_fit() {
    let service = Service::start().await;
    let second = Arc::new(TestKey::new_rsa());
    service.issuer.rotate_to(vec![("rsa-1", shared_rsa()), ("rsa-2", second)]);
    service.sign_in(&service.issuer.token().without_header("kid").sign()).await.expect(401, "key_id_missing");
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
}

#[tokio::test]
async fn unusable_keys_of_a_set_do_not_spoil_the_others() {
    let service = Service::start().await;
    let mut private = shared_rsa().jwk("private");
    private["d"] = "AQAB".into();
    let mut half_private = shared_rsa().jwk("half-private");
    half_private["p"] = "AQAB".into();
    let mut encryption = shared_rsa().jwk("enc");
    encryption["use"] = "enc".into();
    service.issuer.served.lock().unwrap().extra_jwks = vec![
        json!("nonsense"),
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "oct"}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "short"}),
        json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "tiny"}),
        private,
        half_private,
        encryption,
    ];
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    for kid in ["oct", "short", "tiny", "private", "half-private", "enc"] {
        let token = service.issuer.token().header("kid", kid).sign();
        assert_eq!(service.sign_in(&token).await.error(), "unknown_key", "{kid}");
    }
}

#[tokio::test]
async fn supabase_auth_412_kratos_3476_the_nonce_is_compared_raw_and_hashed() {
    let service = Service::start_with(Setup::provider("nonce = \"required\"")).await;
    let raw = "n-0S6_WzA2Mj";
    let hash = countersign::secret::sha256(raw.as_bytes());
    let (hex, url) = (data_encoding::HEXLOWER.encode(&hash), BASE64URL_NOPAD.encode(&hash));
    let send = async |carried: Option<&str>, given: Option<&str>| {
        let token = carried.map_or(service.issuer.token(), |c| service.issuer.token().claim("nonce", c)).sign();
        let body = json!({"id_token": token, "provider": "acme", "nonce": given});
        service.post("/auth/id-token/signin", body).await
    };
    for carried in [raw, &hex, &url] {
        send(Some(carried), Some(raw)).await.signed_in();
    }
    for (carried, given) in [
        (Some(raw), None),
        (None, Some(raw)),
        (Some("other"), Some(raw)),
        (Some(raw), Some(hex.as_str())),
        (None, None),
    ] {
        send(carried, given).await.expect(401, "id_token_nonce_mismatch");
    }
}

#[tokio::test]
async fn an_optional_nonce_counts_once_the_request_brings_one() {
    let service = Service::start().await;
    let with = |token: String, nonce: &str| json!({"id_token": token, "provider": "acme", "nonce": nonce});
    service.sign_in(&service.issuer.token().claim("nonce", "sdk-made").sign()).await.signed_in();
    let plain = service.issuer.token().sign();
    service.post("/auth/id-token/signin", with(plain, "mine")).await.expect(401, "id_token_nonce_mismatch");
    let forbidden = Service::start_with(Setup::provider("nonce = \"forbidden\"")).await;
    let token = forbidden.issuer.token().claim("nonce", "x").sign();
    forbidden.sign_in(&token).await.expect(401, "id_token_nonce_mismatch");
    forbidden.sign_in(&forbidden.issuer.token().sign()).await.signed_in();
}

#[tokio::test]
async fn a_server_issued_nonce_opens_one_sign_in() {
    let service = Service::start_with(Setup::provider("nonce = \"server_issued\"")).await;
    let issue = async || {
        let answer = service.post("/auth/id-token/nonce", json!({})).await;
        answer.body["nonce"].as_str().unwrap().to_owned()
    };
    let send = async |nonce: &str| {
        let token = service.issuer.token().claim("nonce", nonce).sign();
        service.post("/auth/id-token/signin", json!({"id_token": token, "provider": "acme", "nonce": nonce})).await
    };
    let nonce = issue().await;
    send(&nonce).await.signed_in();
    send(&nonce).await.expect(401, "id_token_nonce_mismatch");
    send("made-up").await.expect(401, "id_token_nonce_mismatch");
    let stale = issue().await;
    service.clock.advance(Duration::from_secs(601));
    send(&stale).await.expect(401, "id_token_nonce_mismatch");
    service.sign_in(&service.issuer.token().sign()).await.expect(401, "id_token_nonce_mismatch");
}

#[tokio::test]
async fn an_access_token_must_fit_at_hash() {
    let service = Service::start().await;
    let access = "provider-access-token";
    let hash = countersign::secret::sha256(access.as_bytes());
    let at_hash = BASE64URL_NOPAD.encode(&hash[..16]);
    let send = async |claim: Option<&str>, given: &str| {
        let token = claim.map_or(service.issuer.token(), |c| service.issuer.token().claim("at_hash", c)).sign();
        let body = json!({"id_token": token, "provider": "acme", "access_token": given});
        service.post("/auth/id-token/signin", body).await
    };
    send(Some(&at_hash), access).await.signed_in();
    send(Some(&at_hash), "another").await.expect(401, "id_token_at_hash_mismatch");
    send(None, access).await.expect(401, "id_token_at_hash_mismatch");
}

#[tokio::test]
async fn an_authorized_party_of_the_configuration_is_fine() {
    let service = Service::start_with(Setup::provider("authorized_parties = [\"android\"]")).await;
    let token = service.issuer.token().claim("azp", "android").sign();
    service.sign_in(&token).await.signed_in();
    let both = service.issuer.token().claim("aud", json!(["app-web", "api"])).claim("azp", "android").sign();
    service.sign_in(&both).await.signed_in();
    let ours = service.issuer.token().claim("aud", json!(["app-web", "app-ios"])).sign();
    service.sign_in(&ours).await.signed_in();
}

#[tokio::test]
async fn a_tenant_template_is_bound_to_the_verified_tid() {
    let base = Service::start().await;
    let url = base.issuer.url.clone();
    let more = format!(
        "[[providers]]\ntenant = \"default\"\nname = \"entra\"\nissuer = \"{url}/{{tenantid}}/v2.0\"\n\
         allowed_tenant_ids = [\"t-1\"]\nclient_ids = [\"app-web\"]\njwks_uri = \"{url}/jwks\"\n"
    );
    let service = base.restart(Setup { more_config: more, ..Setup::default() }).await;
    let send = async |iss: &str, tid: Option<&str>| {
        let mut token = service.issuer.token().claim("iss", format!("{url}/{iss}/v2.0"));
        if let Some(tid) = tid {
            token = token.claim("tid", tid);
        }
        service.post("/auth/id-token/signin", json!({"id_token": token.sign(), "provider": "entra"})).await
    };
    send("t-1", Some("t-1")).await.signed_in();
    send("t-2", Some("t-2")).await.expect(401, "id_token_tenant_not_allowed");
    send("t-2", Some("t-1")).await.expect(401, "id_token_issuer_mismatch");
    send("t-1", Some("t-2")).await.expect(401, "id_token_issuer_mismatch");
    send("t-1", None).await.expect(401, "id_token_claim_invalid");
}
