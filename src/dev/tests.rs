use std::sync::Arc;
use std::time::Duration;

use poem::http::{Method, StatusCode, header};
use poem::{Endpoint, Request, Response};
use serde_json::{Map, Value, json};

use super::*;
use crate::clock::{Clock, UnixTime};
use crate::ids::TenantId;
use crate::signin::facts::{GeoQuality, Location, NetworkKind, Point};
use crate::signin::key::KeySet;
use crate::signin::provider::{
    EmailTrust, EnrichFailure, IssuerRule, Linking, NoncePolicy, Provider, Provisioning, ReplayPolicy,
    SignatureAlgorithm,
};
use crate::signin::token::UnverifiedToken;
use crate::signin::verify::{Expected, VerifiedToken, VerifyError, verify};

const ISSUER: &str = "http://127.0.0.1:8080/dev/issuer";
const NOW: UnixTime = UnixTime::from_secs(1_768_473_000);

struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> UnixTime {
        NOW
    }
}

fn issuer() -> Arc<DevIssuer> {
    Arc::new(DevIssuer::new(ISSUER.to_owned(), Arc::new(StoppedClock)).expect("an issuer"))
}

fn claims(sub: &str) -> DevClaims {
    DevClaims { sub: sub.to_owned(), ..DevClaims::default() }
}

fn provider() -> Provider {
    Provider {
        tenant: TenantId::parse("default").expect("a tenant"),
        name: "dev".into(),
        generation: 0,
        issuer: IssuerRule::Exact(vec![ISSUER.to_owned()]),
        client_ids: vec![DEFAULT_AUDIENCE.to_owned()],
        authorized_parties: Vec::new(),
        algorithms: vec![SignatureAlgorithm::Rs256],
        nonce: NoncePolicy::Optional,
        replay: ReplayPolicy::SingleUse,
        max_token_age: Duration::from_secs(600),
        clock_leeway: Duration::ZERO,
        email_trust: EmailTrust::Claim,
        linking: Linking::Never,
        provisioning: Provisioning::Create,
        provisioning_domains: Vec::new(),
        trust_amr: Vec::new(),
        mapping: Vec::new(),
        allowed_groups: Vec::new(),
        allowed_roles: Vec::new(),
        default_roles: Vec::new(),
        remap: crate::signin::provider::RemapRules::default(),
        enrich_failure: EnrichFailure::Deny,
        jwks_uri: None,
        notices: crate::signin::provider::Notices::None,
        test_mode: false,
    }
}

/// The way a real sign-in takes the token: keys from the published set, then the core's own checks.
fn verified(issuer: &DevIssuer, token: &str) -> Result<VerifiedToken, VerifyError> {
    let (keys, skipped) = KeySet::parse(issuer.jwks().to_string().as_bytes()).expect("a key set");
    assert!(skipped.is_empty(), "{skipped:?}");
    let token = UnverifiedToken::parse(token).expect("the shape of an ID token");
    let key = keys.choose(token.unverified_kid(), token.algorithm()).expect("the key");
    assert!(token.unverified_kid().is_some());
    verify(token, &key, Arc::new(provider()), &Expected::default(), NOW)
}

#[test]
fn a_minted_token_passes_the_cores_checks() {
    let issuer = issuer();
    let claims = DevClaims {
        sub: "alice".into(),
        email: Some("alice@example.com".into()),
        name: Some("Alice".into()),
        extra: json!({"groups": ["staff"]}).as_object().expect("an object").clone(),
    };
    let token = verified(&issuer, &issuer.mint(claims).expect("a token")).expect("verified");
    assert_eq!((&**token.subject(), &**token.client_id(), &**token.issuer()), ("alice", "dev-client", ISSUER));
    assert_eq!(token.expires_at(), NOW.plus(Duration::from_secs(600)));
    assert_eq!(token.claims()["email_verified"], json!(true));
    assert_eq!(token.claims()["groups"], json!(["staff"]));
}

#[test]
fn two_tokens_of_one_user_are_not_the_same() {
    let issuer = issuer();
    let jti = || {
        verified(&issuer, &issuer.mint(claims("a")).expect("a token")).expect("verified").jti().map(str::to_owned)
    };
    let (one, two) = (jti(), jti());
    assert!(one.is_some() && one != two);
}

#[test]
fn extra_claims_replace_and_remove_others_so_that_refusals_can_be_tried() {
    let issuer = issuer();
    let refusal = |extra: Value| {
        let extra = extra.as_object().expect("an object").clone();
        let token = issuer.mint(DevClaims { extra, ..claims("a") }).expect("a token");
        verified(&issuer, &token).expect_err("refused")
    };
    assert!(matches!(refusal(json!({"exp": 1})), VerifyError::Expired { .. }));
    assert!(matches!(refusal(json!({"aud": "other"})), VerifyError::Audience { .. }));
    assert!(matches!(refusal(json!({"iss": "https://other.example"})), VerifyError::Issuer { .. }));
    assert!(matches!(refusal(json!({"exp": null})), VerifyError::Claim { claim: "exp", .. }));
}

#[test]
fn a_token_of_another_start_is_not_believed() {
    let (old, new) = (issuer(), issuer());
    let (keys, _) = KeySet::parse(new.jwks().to_string().as_bytes()).expect("a key set");
    let token = UnverifiedToken::parse(&old.mint(claims("a")).expect("a token")).expect("a shape");
    assert!(keys.choose(token.unverified_kid(), token.algorithm()).is_err());
    let only = keys.choose(None, SignatureAlgorithm::Rs256).expect("the only key");
    let result = verify(token, &only, Arc::new(provider()), &Expected::default(), NOW);
    assert!(matches!(result, Err(VerifyError::BadSignature)));
}

#[test]
fn a_token_without_a_subject_is_refused() {
    let issuer = issuer();
    for sub in ["", &"x".repeat(256)] {
        assert!(matches!(issuer.mint(claims(sub)), Err(DevError::Claims(_))));
    }
}

#[test]
fn an_issuer_that_others_could_reach_is_refused() {
    for url in [
        "https://127.0.0.1/x",
        "http://0.0.0.0:8080/x",
        "http://10.0.0.1/x",
        "http://example.com/x",
        "127.0.0.1",
        "",
    ] {
        let result = DevIssuer::new(url.to_owned(), Arc::new(StoppedClock));
        assert_eq!(result.err(), Some(DevError::NotLoopback), "{url}");
    }
    for url in ["http://localhost:8080/dev/issuer", "http://[::1]:8080/dev/issuer", "http://127.0.0.2/"] {
        assert!(DevIssuer::new(url.to_owned(), Arc::new(StoppedClock)).is_ok(), "{url}");
    }
}

async fn call(
    issuer: &Arc<DevIssuer>,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response {
    let mut request = Request::builder().method(method).uri_str(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Arc::clone(issuer).routes().get_response(request.body(body.to_owned())).await
}

const HERE: (&str, &str) = ("Host", "127.0.0.1:8080");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("Content-Type", "application/json; charset=utf-8");

async fn minted(issuer: &Arc<DevIssuer>, kind: (&str, &str), body: &str) -> Map<String, Value> {
    let response = call(issuer, Method::POST, "/token", &[HERE, kind], body).await;
    assert_eq!(response.status(), StatusCode::OK, "{body}");
    assert_eq!(response.header(header::CACHE_CONTROL), Some("no-store"));
    let token = response.into_body().into_string().await.expect("text");
    Map::clone(verified(issuer, &token).expect("verified").claims())
}

#[tokio::test]
async fn the_discovery_document_leads_to_the_key() {
    let issuer = issuer();
    let document = call(&issuer, Method::GET, "/issuer/.well-known/openid-configuration", &[HERE], "").await;
    let document: Value =
        serde_json::from_slice(&document.into_body().into_vec().await.expect("a body")).expect("JSON");
    assert_eq!(document["issuer"], ISSUER);
    assert_eq!(document["jwks_uri"], format!("{ISSUER}/jwks.json"));
    let keys = call(&issuer, Method::GET, "/issuer/jwks.json", &[HERE], "").await;
    let keys = keys.into_body().into_string().await.expect("text");
    assert_eq!(keys, issuer.jwks().to_string());
    assert!(!keys.contains("\"d\""), "a private key is published");
}

#[tokio::test]
async fn a_form_and_a_json_object_make_tokens() {
    let issuer = issuer();
    let body =
        "sub=alice&email=a%40example.com&email_verified=false&groups=x&groups=y&zip=01234&auth_time=1768472000";
    let found = minted(&issuer, FORM, body).await;
    assert_eq!(found["sub"], "alice");
    assert_eq!(found["email"], "a@example.com");
    assert_eq!(found["email_verified"], false);
    assert_eq!(found["groups"], json!(["x", "y"]));
    assert_eq!(found["zip"], "01234");
    assert_eq!(found["auth_time"], 1_768_472_000);
    let found = minted(&issuer, JSON, r#"{"sub":"bob","level":3,"groups":[]}"#).await;
    assert_eq!((&found["sub"], &found["level"], &found["groups"]), (&json!("bob"), &json!(3), &json!([])));
    assert!(!found.contains_key("email"));
}

#[tokio::test]
async fn a_request_that_makes_no_token_says_why() {
    let issuer = issuer();
    let large = format!("sub=a&x={}", "y".repeat(20_000));
    for (kind, body, status) in [
        (FORM, "", StatusCode::BAD_REQUEST),
        (FORM, "email=a%40example.com", StatusCode::BAD_REQUEST),
        (FORM, "sub=a&sub=b", StatusCode::BAD_REQUEST),
        (JSON, "[]", StatusCode::BAD_REQUEST),
        (JSON, "{\"sub\":1}", StatusCode::BAD_REQUEST),
        (JSON, "{\"sub\":\"a\",\"sub\":\"b\"}", StatusCode::BAD_REQUEST),
        (("Content-Type", "text/plain"), "sub=a", StatusCode::BAD_REQUEST),
        (FORM, &large, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let response = call(&issuer, Method::POST, "/token", &[HERE, kind], body).await;
        assert_eq!(response.status(), status, "{body:.40}");
        assert!(!response.into_body().into_string().await.expect("text").is_empty());
    }
    let response = call(&issuer, Method::GET, "/token", &[HERE], "").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_foreign_host_or_page_gets_nothing() {
    let issuer = issuer();
    let ask = |headers: Vec<(&'static str, &'static str)>| {
        let issuer = Arc::clone(&issuer);
        async move { call(&issuer, Method::POST, "/token", &headers, "sub=a").await.status() }
    };
    for headers in [
        vec![FORM],
        vec![FORM, ("Host", "rebound.example:8080")],
        vec![FORM, ("Host", "127.0.0.1.example")],
        vec![FORM, ("Host", "")],
        vec![FORM, HERE, ("Origin", "https://evil.example")],
        vec![FORM, HERE, ("Origin", "null")],
    ] {
        assert_eq!(ask(headers.clone()).await, StatusCode::FORBIDDEN, "{headers:?}");
    }
    for headers in [
        vec![FORM, HERE],
        vec![FORM, ("Host", "localhost:8080"), ("Origin", "http://localhost:5173")],
        vec![FORM, ("Host", "[::1]:8080")],
    ] {
        assert_eq!(ask(headers.clone()).await, StatusCode::OK, "{headers:?}");
    }
}

fn assumed(headers: &[(&str, &str)]) -> Result<Option<Location>, String> {
    assumed_location(|name| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
}

#[test]
fn headers_pretend_a_place() {
    assert!(assumed(&[]).expect("fine").is_none());
    assert!(assumed(&[(ASSUMED_IP_HEADER, "192.0.2.7")]).expect("fine").is_none());
    let all = [
        (ASSUMED_COUNTRY_HEADER, "de"),
        (ASSUMED_LOCATION_HEADER, " 52.52, -13.4 "),
        (ASSUMED_NETWORK_HEADER, "hosting"),
    ];
    let place = assumed(&all).expect("fine").expect("a place");
    assert_eq!(place.country.as_deref(), Some("DE"));
    assert_eq!(place.point, Some(Point { latitude: 52.52, longitude: -13.4, accuracy_km: 10.0 }));
    assert_eq!((place.network_kind, place.quality), (NetworkKind::Hosting, GeoQuality::Ok));
    let quality = |headers: &[(&str, &str)]| assumed(headers).expect("fine").expect("a place").quality;
    assert_eq!(quality(&[(ASSUMED_COUNTRY_HEADER, "BR")]), GeoQuality::Coarse);
    assert_eq!(quality(&[(ASSUMED_NETWORK_HEADER, "private")]), GeoQuality::Private);
    assert_eq!(quality(&[(ASSUMED_NETWORK_HEADER, "mobile")]), GeoQuality::Missing);
}

#[test]
fn a_header_that_cannot_be_read_is_an_error_that_names_it() {
    for (header, value) in [
        (ASSUMED_COUNTRY_HEADER, "Germany"),
        (ASSUMED_COUNTRY_HEADER, "D1"),
        (ASSUMED_COUNTRY_HEADER, ""),
        (ASSUMED_LOCATION_HEADER, "52.5"),
        (ASSUMED_LOCATION_HEADER, "91,0"),
        (ASSUMED_LOCATION_HEADER, "0,181"),
        (ASSUMED_LOCATION_HEADER, "NaN,0"),
        (ASSUMED_LOCATION_HEADER, "inf,0"),
        (ASSUMED_LOCATION_HEADER, "1,2,3"),
        (ASSUMED_NETWORK_HEADER, "vpn"),
        (ASSUMED_NETWORK_HEADER, "Hosting"),
    ] {
        let error = assumed(&[(header, value)]).expect_err(value);
        assert!(error.contains(header) && error.contains("such as") | error.contains("one of"), "{error}");
    }
    let ip = |text: &str| assumed_ip(|name| (name == ASSUMED_IP_HEADER).then(|| text.to_owned()));
    assert_eq!(ip("192.0.2.7"), Ok("192.0.2.7".parse().ok()));
    assert_eq!(ip("2001:db8::1"), Ok("2001:db8::1".parse().ok()));
    assert!(ip("192.0.2").is_err() && ip("localhost").is_err());
    assert_eq!(assumed_ip(|_| None), Ok(None));
}
