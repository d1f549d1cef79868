//! What users of other servers asked for or were hurt by, beyond the reading of one token: audiences, places,
//! scripts. Each through the front door.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::admin::Role;
use crate::mfa;
use crate::oauth;
use crate::support::issuer::TestIssuer;
use crate::support::service::{Answer, JsonBody, Service, Setup};

async fn through(service: &Service, provider: &str, token: &str) -> Answer {
    service.post("/auth/id-token/signin", json!({"id_token": token, "provider": provider})).await
}

fn message(answer: &Answer) -> &str {
    answer.body["message"].as_str().unwrap_or_default()
}

/// The bundle identifier, the service identifier and the two identifiers of Android are all one application.
#[tokio::test]
async fn supabase_swift_221_better_auth_1495_every_platform_signs_in_through_one_provider() {
    let first = Service::start().await;
    let more_config = format!(
        "[[providers]]\ntenant = \"default\"\nname = \"phones\"\nissuer = {:?}\n\
         client_ids = [\"web\", \"com.example.ios\", \"android\"]\n",
        first.issuer.url
    );
    let service = first.restart(Setup { more_config, ..Setup::default() }).await;
    let token = |aud: &str| service.issuer.token().claim("aud", aud);
    for aud in ["web", "com.example.ios", "android"] {
        through(&service, "phones", &token(aud).sign()).await.signed_in();
    }
    // Google's tokens of Android are for the web's identifier, asked for by Android's.
    through(&service, "phones", &token("web").claim("azp", "android").sign()).await.signed_in();
    let refused = through(&service, "phones", &token("com.example.watch").sign()).await;
    refused.expect(401, "id_token_audience_mismatch");
    assert!(message(&refused).contains("com.example.watch"), "{}", refused.text);
    assert!(message(&refused).contains("3 client ids"), "{}", refused.text);
}

/// Two providers know one address: the audience of the one is nothing to the other.
#[tokio::test]
async fn supabase_auth_1233_each_provider_has_its_own_audiences_whoever_shares_the_address() {
    let first = Service::start().await;
    let other = TestIssuer::start(first.clock.clone()).await;
    let more_config = format!(
        "[[providers]]\ntenant = \"default\"\nname = \"other\"\nissuer = {:?}\nclient_ids = [\"other-app\"]\n\
         linking = \"verified_email\"\nemail_trust = \"claim\"\n",
        other.url
    );
    let service = first.restart(Setup { more_config, ..Setup::default() }).await;
    let own = |issuer: &TestIssuer, aud: &str| {
        let token = issuer.token().claim("aud", aud).claim("email", "ada@example.com");
        token.claim("email_verified", true).sign()
    };
    let ada = service.sign_in(&own(&service.issuer, "app-web")).await.signed_in()["user_id"].clone();
    let linked = through(&service, "other", &own(&other, "other-app")).await;
    assert_eq!(linked.signed_in()["user_id"], ada);
    let refused = through(&service, "other", &own(&other, "app-web")).await;
    refused.expect(401, "id_token_audience_mismatch");
    let refused = service.sign_in(&own(&service.issuer, "other-app")).await;
    refused.expect(401, "id_token_audience_mismatch");
    assert_eq!(service.sign_in(&own(&service.issuer, "app-ios")).await.signed_in()["user_id"], ada);
}

#[tokio::test]
async fn assent_111_an_audience_may_be_a_list_when_the_authorized_party_says_who_asked() {
    let service = Service::start().await;
    let token = |aud: Value| service.issuer.token().claim("aud", aud);
    service.sign_in(&token(json!(["app-web"])).sign()).await.signed_in();
    let both = json!(["app-web", "https://api.example"]);
    service.sign_in(&token(both.clone()).claim("azp", "app-web").sign()).await.signed_in();
    service.sign_in(&token(both).claim("azp", "another").sign()).await.expect(401, "id_token_azp_mismatch");
    let without_ours = token(json!(["https://api.example"])).claim("azp", "app-web");
    service.sign_in(&without_ours.sign()).await.expect(401, "id_token_audience_mismatch");
}

/// As the server comes out of the box.
#[tokio::test]
async fn fal_116_lcobucci_jwt_191_seconds_of_skew_fail_no_sign_in() {
    let service = Service::start().await;
    let now = service.clock.now_s();
    for skew in [1, 5, 30, 60] {
        let ahead = service.issuer.token().claim("iat", now + skew).claim("nbf", now + skew);
        service.sign_in(&ahead.claim("auth_time", now + skew).sign()).await.signed_in();
    }
    for late in [1, 30, 59] {
        service.sign_in(&service.issuer.token().claim("exp", now - late).sign()).await.signed_in();
    }
    let far = service.issuer.token().claim("iat", now + 61);
    service.sign_in(&far.sign()).await.expect(401, "id_token_not_yet_valid");
    service.sign_in(&service.issuer.token().claim("exp", now - 60).sign()).await.expect(401, "id_token_expired");
}

/// A second node, a client's exchange, and sessions that came of one: all ways that a provider's word takes.
#[tokio::test]
async fn cve_2026_1486_a_disabled_provider_gives_nothing_at_the_exchange_and_the_sessions_of_one_stand_still() {
    let service = Service::start_with(oauth::setup()).await;
    let exchange = async || {
        let token = service.issuer.token().sign();
        let fields = [
            ("client_id", "app"),
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", token.as_str()),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token"),
            ("provider", "acme"),
        ];
        oauth::form(&service, "/oauth/token", &fields).await
    };
    let before = exchange().await;
    assert_eq!(before.status, 200, "{}", before.text);
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    let off = service.post_with("/admin/providers/acme/disable", &editor, json!({})).await;
    assert_eq!(off.status, 200, "{}", off.text);
    let refused = exchange().await;
    assert_eq!(refused.body["reason"], "provider_disabled", "{}", refused.text);
    assert!(refused.body["access_token"].is_null());
    let token = before.body["refresh_token"].as_str().unwrap();
    let fields = [("client_id", "app"), ("grant_type", "refresh_token"), ("refresh_token", token)];
    let refused = oauth::form(&service, "/oauth/token", &fields).await;
    assert_eq!(refused.body["reason"], "provider_disabled", "{}", refused.text);
    let access = before.body["access_token"].as_str().unwrap();
    service.get_with("/auth/me", access).await.expect(403, "provider_disabled");
}

/// Without databases of places nothing is known of any address, as within an office.
#[tokio::test]
async fn authentik_12214_a_place_that_is_not_known_locks_nobody_out_and_gives_no_reason() {
    let service = Service::start_with(Setup::limits("sign_ins_per_minute = 0")).await;
    let from = async |address: &str| {
        let body = json!({"id_token": service.issuer.token().sign(), "provider": "acme", "device_id": "one"});
        let request = service.http().post(service.url("/auth/id-token/signin")).header("x-forwarded-for", address);
        service.send(request.header("content-type", "application/json").body(body.to_string())).await
    };
    for address in ["192.168.1.20", "192.168.1.20", "10.0.0.1", "fd00::1", "203.0.113.9"] {
        service.clock.advance(Duration::from_secs(86_400));
        let answer = from(address).await;
        assert_eq!(answer.signed_in()["risk_level"], "low", "{address}: {}", answer.text);
    }
    let viewer = service.admin_key(Role::Viewer, Some("default")).await;
    let listed = service.get_with("/admin/sign-ins", &viewer).await;
    let items = listed.body["items"].as_array().unwrap();
    assert_eq!(items.len(), 5);
    for item in items {
        let reasons = item["reasons"].to_string();
        for word in ["country", "travel", "location"] {
            assert!(!reasons.contains(word), "{word} in {reasons}");
        }
    }
}

/// The shipped files with these over them.
pub fn shipped_with(over: &[(&str, &str)]) -> Value {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/policies"));
    let bundle = countersign::scripts::bundle::read_folder(root).unwrap();
    let files = bundle.files().iter().map(|(name, text)| (name.clone(), Value::from(text.as_ref())));
    let mut files: Map<String, Value> = files.collect();
    for (name, text) in over {
        files.insert((*name).to_owned(), (*text).into());
    }
    json!({"files": files})
}

async fn draft(service: &Service, editor: &str, files: Value) -> String {
    let kept = service.post_with("/admin/policies", editor, files).await;
    assert_eq!(kept.status, 200, "{}", kept.text);
    kept.body["id"].as_str().unwrap().to_owned()
}

async fn explained(service: &Service, viewer: &str, sign_in: &Value) -> Value {
    let path = format!("/admin/sign-ins/{}/explain", sign_in["id"].as_str().unwrap());
    service.get_with(&path, viewer).await.body["explanation"].clone()
}

#[tokio::test]
async fn cerbos_1889_each_decision_names_the_bundle_that_made_it_whatever_is_active_now() {
    let service = Service::start().await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let script = "fn assess(s, risk) { risk.add(7, \"new_device\"); }";
    let case = "[[case]]\nname = \"seven\"\nexpect = { score = 7 }\n";
    let over = [("risk/default.rhai", script), ("risk/default.test.toml", case)];
    let id = draft(&service, &editor, shipped_with(&over)).await;
    let active = service.post_with(&format!("/admin/policies/{id}/activate"), &editor, json!({})).await;
    assert_eq!(active.status, 200, "{}", active.text);
    // Servers follow within 2 s.
    let mut score = json!(null);
    for _ in 0..200 {
        service.clock.advance(Duration::from_secs(1));
        score =
            service.sign_in(&service.issuer.token().sign()).await.signed_in()["risk_assessment"]["score"].clone();
        if score == 7 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(score, 7);
    let listed = service.get_with("/admin/sign-ins?limit=200", &editor).await;
    let sign_ins = listed.body["items"].as_array().unwrap();
    let newest = explained(&service, &editor, &sign_ins[0]).await;
    assert_eq!((&newest["bundle"], &newest["file"]), (&json!(id), &json!("risk/default.rhai")), "{newest}");
    let oldest = explained(&service, &editor, sign_ins.last().unwrap()).await;
    assert_eq!(oldest["file"], "risk/_default.rhai");
    assert!(oldest["bundle"].as_str().unwrap().starts_with("pol_") && oldest["bundle"] != id, "{oldest}");
}

/// A trial has the limits, facts and outcome of the real run: the same files over a sign-in that happened.
#[tokio::test]
async fn authentik_9010_a_trial_behaves_as_the_real_run() {
    let service = Service::start().await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    for device in ["one", "two", "one"] {
        service.sign_in_from(&service.issuer.token().sign(), "agent/1", device).await.signed_in();
        service.clock.advance(Duration::from_secs(3600));
    }
    let same = draft(&service, &editor, shipped_with(&[])).await;
    let path = format!("/admin/policies/{same}/replay");
    let report = service.post_with(&path, &editor, json!({"since_s": 86_400})).await.body["report"].clone();
    assert_eq!(report["sign_ins"], 3, "{report}");
    assert_eq!(report["before"], report["after"]);
    assert_eq!((&report["causes"], &report["examples"]), (&json!([]), &json!([])), "{report}");
    // What runs too long in a sign-in does so in a trial.
    let endless = "fn assess(s, risk) { loop {} }";
    let id = draft(&service, &editor, shipped_with(&[("risk/default.rhai", endless)])).await;
    let path = format!("/admin/policies/{id}/simulate");
    let simulated = service.post_with(&path, &editor, json!({"set": {}})).await;
    assert_eq!(simulated.body["passed"], false, "{}", simulated.text);
    let is_limit = |text: &str| text.contains("20000 operations") || text.contains("longer than 5 ms");
    assert!(is_limit(&simulated.text), "{}", simulated.text);
}

/// Any claim, whatever its shape; the token itself is nowhere.
#[tokio::test]
async fn fusionauth_2494_a_mapping_reads_every_claim_of_the_id_token_and_never_the_token() {
    let dir = TempDir::new().unwrap();
    let mapping = r#"fn map(s, out) {
        let c = s.claims;
        out.attribute("plan", c.str("https://example.com/plan"));
        out.attribute("seats", c.int("seats"));
        out.attribute("beta", c.bool("beta"));
        out.attribute("teams", c.list("teams"));
        out.attribute("absent", c.str("no_such_claim"));
    }"#;
    let setup = Setup::with_policies(dir.path(), &[("mapping/acme.rhai", mapping)]);
    let service = Service::start_with(setup).await;
    let token = service.issuer.token().claim("https://example.com/plan", "gold").claim("seats", 7);
    let token = token.claim("beta", true).claim("teams", json!(["a", "b"])).sign();
    service.sign_in(&token).await.signed_in();
    let viewer = service.admin_key(Role::Viewer, Some("default")).await;
    let users = service.get_with("/admin/users", &viewer).await;
    let attributes = &users.body["items"][0]["attributes"];
    assert_eq!(
        *attributes,
        json!({"plan": "gold", "seats": 7, "beta": true, "teams": ["a", "b"]}),
        "{}",
        users.text
    );
    let definitions: String = countersign::scripts::definitions::rhai().into_values().collect();
    for word in ["id_token", "raw_token", "access_token"] {
        assert!(!definitions.contains(word), "scripts can read {word}");
    }
}

/// Over every operation of the document that takes a bearer.
#[tokio::test]
async fn ghsa_xg6x_h9c9_2m83_a_challenge_opens_no_operation_and_is_good_afterwards() {
    let (_dir, service, secret) = mfa::enrolled().await;
    let challenge = mfa::challenge(&service).await;
    let token = challenge.as_str().unwrap();
    let document = countersign::http::openapi_document();
    let mut tried = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let takes_bearer = operation["security"].as_array().is_some_and(|all| !all.is_empty());
            // These take a client's credentials, or a token in the body as well.
            if !takes_bearer || path.starts_with("/oauth/") || path == "/auth/logout" {
                continue;
            }
            let part = |part: &str| if part.starts_with('{') { "x".to_owned() } else { part.to_owned() };
            let address = path.split('/').map(part).collect::<Vec<_>>().join("/");
            let method = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let request = service.http().request(method.clone(), service.url(&address)).bearer_auth(token);
            let answer = service.send(if method == "GET" { request } else { request.json(&json!({})) }).await;
            // A body that is not what the operation takes may be told first; it opens nothing either.
            let fits = answer.status == 401 || answer.error() == "malformed_request";
            assert!(fits, "{method} {path}: {} {}", answer.status, answer.text);
            tried += 1;
        }
    }
    assert!(tried > 60, "{tried} operations");
    mfa::verify(&service, &challenge, &mfa::code(&service, &secret, 0)).await.signed_in();
}
