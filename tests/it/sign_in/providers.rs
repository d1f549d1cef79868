//! Tokens of the documented shape of each provider with a preset: one that signs in, and its typical refusal.

use std::sync::Arc;
use std::time::Duration;

use countersign::clock::UnixTime;
use countersign::ids::TenantId;
use countersign::signin::identity::{Profile, UserKind};
use countersign::signin::ports::Users;
use countersign::signin::user::IdentityKey;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::issuer::{TestIssuer, TestKey, TokenBuilder, shared_rsa};
use crate::support::service::{Answer, Service, Setup};

const POD: &str = "system:serviceaccount:shop:checkout";
const JOB: &str = "repo:octo@65/app@7:environment:prod";

/// A server whose only provider beside `acme` has this preset, and the test issuer as its issuer.
async fn service_with(preset: &str, lines: &str) -> Service {
    service_with_policies(preset, lines, &[]).await
}

/// The same with files over the shipped policies. `ISSUER` in the lines is the test issuer.
async fn service_with_policies(preset: &str, lines: &str, files: &[(&str, &str)]) -> Service {
    let service = Service::start().await;
    let issuer = if lines.contains("issuer =") { "" } else { "issuer = \"ISSUER\"\n" };
    let table = format!(
        "[[providers]]\ntenant = \"default\"\nname = \"{preset}\"\npreset = \"{preset}\"\n{issuer}{lines}\n"
    );
    let dir = TempDir::new_in(service.dir.path()).unwrap().keep();
    let setup = Setup::with_policies(&dir, files);
    let more_config = table.replace("ISSUER", &service.issuer.url);
    service.restart(Setup { more_config, ..setup }).await
}

async fn sign_in(service: &Service, provider: &str, token: &TokenBuilder) -> Answer {
    service.post("/auth/id-token/signin", json!({"id_token": token.sign(), "provider": provider})).await
}

fn with(token: TokenBuilder, claims: &Value) -> TokenBuilder {
    claims.as_object().unwrap().iter().fold(token, |token, (name, value)| token.claim(name, value.clone()))
}

/// What the store holds of the user with this subject.
async fn stored(service: &Service, provider: &str, issuer: &str, subject: &str) -> Profile {
    let key = IdentityKey {
        tenant: TenantId::parse("default").unwrap(),
        provider: provider.into(),
        issuer: issuer.into(),
        subject: subject.into(),
    };
    let now = UnixTime::from_secs(service.clock.now_s());
    service.store.find_by_identity(&key, now).await.unwrap().expect("a user").user.profile
}

#[tokio::test]
async fn google_signs_in_a_workspace_account_through_any_of_the_applications_clients() {
    let service = service_with("google", "client_ids = [\"web.apps\", \"android.apps\"]").await;
    let account = json!({
        "azp": "android.apps", "aud": "web.apps", "sub": "110169484474386276334", "hd": "corp.example",
        "email": "ada@corp.example", "email_verified": true, "name": "Ada L", "given_name": "Ada",
        "picture": "https://lh3.example/x", "locale": "en",
    });
    let token = with(service.issuer.token().without("jti"), &account);
    let answer = sign_in(&service, "google", &token).await;
    assert_eq!(answer.signed_in()["user"]["email"], "ada@corp.example");
    let profile = stored(&service, "google", &service.issuer.url, "110169484474386276334").await;
    assert_eq!(profile.attributes["organisation"], "corp.example");
    assert_eq!(profile.kind, UserKind::Person);
}

#[tokio::test]
async fn google_service_accounts_of_other_projects_may_name_any_audience_and_are_refused_by_azp() {
    let service = service_with("google", "client_ids = [\"web.apps\"]").await;
    let robot = json!({
        "aud": "web.apps", "azp": "108", "sub": "108", "email": "x@elsewhere.iam.gserviceaccount.com", "email_verified": true,
    });
    sign_in(&service, "google", &with(service.issuer.token(), &robot)).await.expect(401, "id_token_azp_mismatch");
}

#[tokio::test]
async fn supabase_2050_apple_tokens_carry_either_issuer_and_no_third() {
    let lines =
        "issuer = [\"ISSUER\", \"ISSUER/account\"]\nclient_ids = [\"com.example.ios\", \"com.example.web\"]";
    let service = service_with("apple", lines).await;
    let url = service.issuer.url.clone();
    let token = |issuer: &str| service.issuer.token().claim("iss", issuer).claim("aud", "com.example.ios");
    sign_in(&service, "apple", &token(&url)).await.signed_in();
    sign_in(&service, "apple", &token(&format!("{url}/account"))).await.signed_in();
    sign_in(&service, "apple", &token(&format!("{url}/other"))).await.expect(401, "id_token_issuer_mismatch");
    sign_in(&service, "apple", &token(&url).claim("aud", "com.example.other"))
        .await
        .expect(401, "id_token_audience_mismatch");
}

#[tokio::test]
async fn hanko_2054_pocketbase_6657_apple_tells_verified_by_texts_and_the_text_false_verifies_nothing() {
    let lines = "issuer = \"ISSUER/apple\"\njwks_uri = \"ISSUER/jwks\"\nclient_ids = [\"ios\"]\nlinking = \"verified_email\"";
    let service = service_with("apple", lines).await;
    let issuer = format!("{}/apple", service.issuer.url);
    let ada = service.issuer.token().claim("email", "ada@example.com").claim("email_verified", true);
    let ada = service.sign_in(&ada.sign()).await.signed_in()["user_id"].clone();
    let token = |verified: Value| {
        service
            .issuer
            .token()
            .subject("000123.abc.0456")
            .claim("iss", issuer.as_str())
            .claim("aud", "ios")
            .claim("email", "ada@example.com")
            .claim("email_verified", verified)
    };
    for unverified in [json!("false"), json!(false), json!("yes"), json!(0), json!(null)] {
        let answer = sign_in(&service, "apple", &token(unverified.clone())).await;
        assert_eq!((answer.status, answer.error()), (409, "account_exists"), "{unverified}");
    }
    assert_eq!(sign_in(&service, "apple", &token(json!("true"))).await.signed_in()["user_id"], ada);
}

#[tokio::test]
async fn apple_gives_a_relay_address_and_the_application_gives_the_name_once() {
    let service = service_with("apple", "client_ids = [\"ios\"]").await;
    let person = json!({
        "aud": "ios", "sub": "000123.abc.0456", "email": "x7@privaterelay.appleid.com", "email_verified": "true",
        "is_private_email": "true", "nonce_supported": true, "real_user_status": 2, "auth_time": service.clock.now_s(),
    });
    let token = with(service.issuer.token().without("jti"), &person);
    let body = |token: &TokenBuilder, name: &str| json!({"id_token": token.sign(), "provider": "apple", "profile": {"name": name}});
    service.post("/auth/id-token/signin", body(&token, "Ada L")).await.signed_in();
    let later = token.claim("at", 2).without("email");
    service.post("/auth/id-token/signin", body(&later, "Mallory")).await.signed_in();
    let profile = stored(&service, "apple", &service.issuer.url, "000123.abc.0456").await;
    assert_eq!(profile.name.as_deref(), Some("Ada L"), "the first hint stays");
    assert_eq!(profile.attributes["name_source"], "client");
    assert_eq!(profile.attributes["private_relay"], true);
    assert_eq!(profile.email.as_deref(), Some("x7@privaterelay.appleid.com"));
}

fn entra(service: &Service, tid: &str, iss_tid: &str) -> TokenBuilder {
    let claims = json!({
        "iss": format!("{}/{iss_tid}/v2.0", service.issuer.url), "aud": "6cb0", "tid": tid, "oid": "00000000-0001",
        "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ", "preferred_username": "ada@corp.example", "name": "Ada L",
        "ver": "2.0", "nbf": service.clock.now_s(), "uti": "u", "rh": "0.",
    });
    with(service.issuer.token().without("jti"), &claims)
}

const ENTRA: &str = "issuer = \"ISSUER/{tenantid}/v2.0\"\njwks_uri = \"ISSUER/jwks\"\nallowed_tenant_ids = [\"t-ours\"]\nclient_ids = [\"6cb0\"]";

#[tokio::test]
async fn microsoft_binds_the_issuer_to_an_allowed_tenant() {
    let service = service_with("microsoft", ENTRA).await;
    sign_in(&service, "microsoft", &entra(&service, "t-ours", "t-ours")).await.signed_in();
    for (tid, iss_tid, error) in [
        ("t-foreign", "t-foreign", "id_token_tenant_not_allowed"),
        ("t-ours", "t-foreign", "id_token_issuer_mismatch"),
        ("t-foreign", "t-ours", "id_token_issuer_mismatch"),
        ("{tenantid}", "{tenantid}", "id_token_tenant_not_allowed"),
        ("common", "common", "id_token_tenant_not_allowed"),
    ] {
        sign_in(&service, "microsoft", &entra(&service, tid, iss_tid)).await.expect(401, error);
    }
    let absent = entra(&service, "t-ours", "t-ours").without("tid");
    sign_in(&service, "microsoft", &absent).await.expect(401, "id_token_claim_invalid");
}

#[tokio::test]
async fn a_key_that_microsoft_publishes_for_one_issuer_verifies_no_token_of_another() {
    let key = Arc::new(TestKey::new_p256());
    let lines = format!("{}\nalgorithms = [\"ES256\"]", ENTRA.replace("\"t-ours\"", "\"t-ours\", \"t-too\""));
    let service = service_with("microsoft", &lines).await;
    let jwks = |kid_and_issuer: &[(&str, Value)]| -> Vec<Value> {
        let jwk = |(kid, issuer): &(&str, Value)| {
            let mut jwk = key.jwk(kid);
            jwk["issuer"] = issuer.clone();
            jwk
        };
        kid_and_issuer.iter().map(jwk).collect()
    };
    let issuer = |tid: &str| json!(format!("{}/{tid}/v2.0", service.issuer.url));
    service.issuer.served.lock().unwrap().extra_jwks = jwks(&[
        ("any", issuer("{tenantid}")),
        ("ours", issuer("t-ours")),
        ("elsewhere", json!("https://login.example/{tenantid}/v2.0")),
        ("literal", issuer("{tid}")),
        ("list", json!([issuer("t-ours")])),
    ]);
    for (kid, tid, refusal) in [
        ("any", "t-ours", None),
        ("any", "t-too", None),
        ("ours", "t-ours", None),
        ("ours", "t-too", Some("id_token_issuer_mismatch")),
        ("elsewhere", "t-ours", Some("id_token_issuer_mismatch")),
        ("literal", "t-ours", Some("id_token_issuer_mismatch")),
        ("list", "t-ours", Some("unknown_key")),
    ] {
        let token = entra(&service, tid, tid).claim("uti", kid).key("ES256", kid, &key);
        let answer = sign_in(&service, "microsoft", &token).await;
        assert_eq!(answer.error(), refusal.unwrap_or_default(), "{kid} {tid}: {}", answer.text);
        assert_eq!(answer.status, if refusal.is_some() { 401 } else { 200 });
    }
    // Whose key it is says nothing before the signature is valid.
    let forged = entra(&service, "t-too", "t-too").key("ES256", "ours", &Arc::new(TestKey::new_p256()));
    sign_in(&service, "microsoft", &forged).await.expect(401, "id_token_signature_invalid");
}

#[tokio::test]
async fn microsoft_addresses_are_verified_by_xms_edov_and_only_where_they_are_trusted() {
    for (trust, claim, linked) in [
        ("", Some(json!(true)), false),
        ("email_trust = \"claim\"", None, false),
        ("email_trust = \"claim\"", Some(json!("0")), false),
        ("email_trust = \"claim\"", Some(json!(false)), false),
        ("email_trust = \"claim\"", Some(json!("1")), true),
        ("email_trust = \"claim\"", Some(json!(true)), true),
        ("email_trust = [\"other.example\"]", Some(json!(true)), false),
    ] {
        let service = service_with("microsoft", &format!("{ENTRA}\nlinking = \"verified_email\"\n{trust}")).await;
        let victim = service.issuer.token().claim("email", "ada@corp.example").claim("email_verified", true);
        let victim = service.sign_in(&victim.sign()).await.signed_in()["user_id"].clone();
        let mut token =
            entra(&service, "t-ours", "t-ours").claim("email", "ada@corp.example").claim("email_verified", true);
        if let Some(edov) = claim.clone() {
            token = token.claim("xms_edov", edov);
        }
        let answer = sign_in(&service, "microsoft", &token).await;
        if linked {
            assert_eq!(answer.signed_in()["user_id"], victim, "{trust} {claim:?}");
        } else {
            answer.expect(409, "account_exists");
        }
    }
}

#[tokio::test]
async fn microsoft_with_one_tenant_has_an_exact_issuer_and_access_tokens_are_refused() {
    let lines = "issuer = \"ISSUER/t-ours/v2.0\"\njwks_uri = \"ISSUER/jwks\"\nclient_ids = [\"6cb0\"]\nallowed_groups = [\"Approver\"]";
    let service = service_with("microsoft", lines).await;
    let token = entra(&service, "t-ours", "t-ours").claim("roles", json!(["Approver", "Owner"]));
    sign_in(&service, "microsoft", &token).await.signed_in();
    let issuer = format!("{}/t-ours/v2.0", service.issuer.url);
    let profile = stored(&service, "microsoft", &issuer, "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ").await;
    assert_eq!(profile.groups, ["Approver"], "a group that is not allowed is not granted");
    assert_eq!(profile.attributes["object_id"], "00000000-0001");
    sign_in(&service, "microsoft", &entra(&service, "t-other", "t-other"))
        .await
        .expect(401, "id_token_issuer_mismatch");
    let access = entra(&service, "t-ours", "t-ours").claim("scp", "access_as_user").claim("azpacr", "1");
    sign_in(&service, "microsoft", &access).await.expect(403, "identity_rejected");
}

#[tokio::test]
async fn gitlab_signs_in_a_user_and_refuses_the_job_of_a_pipeline() {
    let service = service_with("gitlab", "client_ids = [\"0a1b\"]\nallowed_groups = [\"staff/platform\"]").await;
    let user = json!({
        "aud": "0a1b", "sub": "1234", "auth_time": service.clock.now_s() - 50, "name": "Ada L", "nickname": "ada",
        "preferred_username": "ada", "email": "ada@example.com", "email_verified": true,
        "groups_direct": ["staff", "staff/platform"],
    });
    let answer = sign_in(&service, "gitlab", &with(service.issuer.token(), &user)).await;
    assert_eq!(answer.signed_in()["user"]["username"], "ada");
    assert_eq!(stored(&service, "gitlab", &service.issuer.url, "1234").await.groups, ["staff/platform"]);
    let job = json!({
        "aud": "0a1b", "sub": "project_path:mallory/p:ref_type:branch:ref:main", "project_path": "mallory/p",
        "job_id": "302", "user_login": "mallory", "user_email": "ada@example.com",
    });
    sign_in(&service, "gitlab", &with(service.issuer.token(), &job)).await.expect(403, "identity_rejected");
}

#[tokio::test]
async fn okta_signs_in_and_its_access_tokens_are_refused_by_audience() {
    let service =
        service_with("okta", "client_ids = [\"0oa1\"]\nallowed_groups = [\"staff\"]\ntrust_amr = [\"mfa\"]").await;
    let user = json!({
        "aud": "0oa1", "sub": "00u1a2b3", "ver": 1, "idp": "00o1", "amr": ["pwd", "mfa"], "auth_time": service.clock.now_s(),
        "name": "Ada L", "email": "ada@corp.example", "email_verified": true, "preferred_username": "ada@corp.example",
        "groups": ["Everyone", "staff"],
    });
    let token = with(service.issuer.token(), &user).without_header("typ");
    sign_in(&service, "okta", &token).await.signed_in();
    assert_eq!(stored(&service, "okta", &service.issuer.url, "00u1a2b3").await.groups, ["staff"]);
    let access =
        service.issuer.token().claim("aud", "api://default").claim("cid", "0oa1").claim("scp", json!(["openid"]));
    sign_in(&service, "okta", &access).await.expect(401, "id_token_audience_mismatch");
}

#[tokio::test]
async fn auth0_issuers_end_with_a_slash_and_no_other_form_is_taken() {
    let service = service_with("auth0", "issuer = \"ISSUER/\"\nclient_ids = [\"Lh2\"]").await;
    let with_slash = format!("{}/", service.issuer.url);
    service.issuer.served.lock().unwrap().document_issuer = Some(with_slash.clone());
    let user = json!({
        "iss": with_slash, "aud": "Lh2", "sub": "auth0|64f0", "nickname": "ada", "name": "Ada L",
        "email": "ada@example.com", "email_verified": true, "updated_at": "2026-01-15T10:30:00.000Z", "sid": "s",
    });
    let token = with(service.issuer.token(), &user);
    assert_eq!(sign_in(&service, "auth0", &token).await.signed_in()["user"]["username"], "ada");
    let other_form = token.claim("iss", service.issuer.url.as_str()).claim("jti", "another");
    sign_in(&service, "auth0", &other_form).await.expect(401, "id_token_issuer_mismatch");
    let api = service
        .issuer
        .token()
        .claim("iss", with_slash.as_str())
        .claim("aud", json!(["https://api.example", "https://x.auth0.example/userinfo"]));
    sign_in(&service, "auth0", &api.claim("azp", "Lh2")).await.expect(401, "id_token_audience_mismatch");
}

#[tokio::test]
async fn keycloak_tokens_are_told_apart_by_their_payload() {
    let service = service_with("keycloak", "client_ids = [\"web\"]\nallowed_groups = [\"/staff\"]").await;
    let user = json!({
        "aud": "web", "azp": "web", "typ": "ID", "sub": "f1c4", "acr": "1", "sid": "s", "auth_time": service.clock.now_s(),
        "email": "ada@example.com", "email_verified": true, "preferred_username": "ada", "groups": ["/staff", "/other"],
    });
    let token = with(service.issuer.token(), &user);
    sign_in(&service, "keycloak", &token).await.signed_in();
    assert_eq!(stored(&service, "keycloak", &service.issuer.url, "f1c4").await.groups, ["/staff"]);
    for kind in ["Bearer", "Refresh", "Offline", "Logout"] {
        let other = token.clone().claim("typ", kind).claim("jti", kind);
        sign_in(&service, "keycloak", &other).await.expect(403, "identity_rejected");
    }
}

#[tokio::test]
async fn cognito_id_tokens_sign_in_and_its_access_tokens_do_not() {
    let service = service_with("cognito", "client_ids = [\"7abc\"]\nallowed_groups = [\"staff\"]").await;
    let user = json!({
        "aud": "7abc", "sub": "aaaa-bbbb", "token_use": "id", "cognito:username": "ada", "cognito:groups": ["staff", "admins"],
        "email": "ada@example.com", "email_verified": true, "auth_time": service.clock.now_s(), "event_id": "e", "origin_jti": "o",
    });
    let token = with(service.issuer.token(), &user).without_header("typ");
    assert_eq!(sign_in(&service, "cognito", &token).await.signed_in()["user"]["username"], "ada");
    assert_eq!(stored(&service, "cognito", &service.issuer.url, "aaaa-bbbb").await.groups, ["staff"]);
    let access = json!({"sub": "aaaa-bbbb", "token_use": "access", "client_id": "7abc", "username": "ada", "scope": "openid"});
    let access = with(service.issuer.token(), &access);
    sign_in(&service, "cognito", &access.clone().without("aud")).await.expect(401, "id_token_claim_invalid");
    sign_in(&service, "cognito", &access.claim("aud", "7abc")).await.expect(403, "identity_rejected");
}

#[tokio::test]
async fn line_tokens_of_native_and_liff_apps_sign_in_and_those_of_web_channels_cannot_be_checked() {
    let service = service_with("line", "client_ids = [\"1234567890\"]").await;
    let key = Arc::new(TestKey::new_p256());
    service.issuer.rotate_to(vec![("line-1", Arc::clone(&key)), ("rsa-1", shared_rsa())]);
    let user = json!({
        "aud": "1234567890", "sub": "U1234567890abcdef1234567890abcdef", "nonce": "0987654asdf", "amr": ["linesso"],
        "name": "Taro Line", "picture": "https://profile.example/x", "email": "taro@example.com",
    });
    let token = with(service.issuer.token().without("jti"), &user);
    let body = |token: String, nonce: &str| json!({"id_token": token, "provider": "line", "nonce": nonce});
    let native = token.clone().key("ES256", "line-1", &key);
    let wrong = service.post("/auth/id-token/signin", body(native.sign(), "another")).await;
    wrong.expect(401, "id_token_nonce_mismatch");
    service.post("/auth/id-token/signin", body(native.sign(), "0987654asdf")).await.signed_in();
    let profile = stored(&service, "line", &service.issuer.url, "U1234567890abcdef1234567890abcdef").await;
    assert!(!profile.email_verified, "no claim of LINE says that");
    let web = token.clone().header("alg", "HS256").without_header("kid");
    sign_in(&service, "line", &web).await.expect(401, "id_token_algorithm_not_allowed");
    sign_in(&service, "line", &token).await.expect(401, "id_token_algorithm_not_allowed");
}

#[tokio::test]
async fn firebase_has_an_issuer_and_an_audience_for_each_project() {
    let lines = "issuer = \"ISSUER/my-project\"\njwks_uri = \"ISSUER/jwks\"\nclient_ids = [\"my-project\"]";
    let service = service_with("firebase", lines).await;
    let issuer = format!("{}/my-project", service.issuer.url);
    let user = |way: &str| {
        json!({
            "iss": issuer, "aud": "my-project", "sub": "uid-1", "user_id": "uid-1", "auth_time": service.clock.now_s() - 9,
            "phone_number": "+46701234567",
            "firebase": {"identities": {"phone": ["+46701234567"]}, "sign_in_provider": way},
        })
    };
    let token = |way: &str| with(service.issuer.token().without("jti"), &user(way));
    assert_eq!(sign_in(&service, "firebase", &token("phone")).await.signed_in()["user"]["phone"], "+46701234567");
    assert!(stored(&service, "firebase", &issuer, "uid-1").await.phone_verified);
    sign_in(&service, "firebase", &token("anonymous")).await.expect(403, "identity_rejected");
    let foreign = token("phone").claim("iss", format!("{}/their-project", service.issuer.url));
    sign_in(&service, "firebase", &foreign).await.expect(401, "id_token_issuer_mismatch");
    let foreign = token("phone").claim("aud", "their-project");
    sign_in(&service, "firebase", &foreign).await.expect(401, "id_token_audience_mismatch");
    let ahead = token("phone").claim("auth_time", service.clock.now_s() + 600);
    sign_in(&service, "firebase", &ahead).await.expect(401, "id_token_not_yet_valid");
}

fn job(service: &Service) -> TokenBuilder {
    let claims = json!({
        "aud": "https://id.example.com", "sub": JOB, "repository": "octo/app", "repository_id": "7",
        "repository_owner": "octo", "repository_owner_id": "65", "repository_visibility": "private", "environment": "prod",
        "ref": "refs/heads/main", "ref_type": "branch", "sha": "example-sha", "workflow": "deploy", "actor": "ada",
        "actor_id": "12", "event_name": "push", "run_id": "1", "run_number": "10", "run_attempt": "2",
        "runner_environment": "github-hosted", "job_workflow_ref": "octo/app/.github/workflows/deploy.yml@refs/heads/main",
        "nbf": service.clock.now_s() - 300,
    });
    with(service.issuer.token(), &claims)
}

const OWNERS: (&str, &str) = ("lists/github_owners.txt", "65 # octo\n");
const GITHUB: &str = "client_ids = [\"https://id.example.com\"]";

#[tokio::test]
async fn github_actions_jobs_of_listed_owners_are_service_users() {
    let service = service_with_policies("github-actions", GITHUB, &[OWNERS]).await;
    let token = job(&service);
    let answer = sign_in(&service, "github-actions", &token).await;
    assert!(answer.signed_in()["user"].get("email").is_none());
    sign_in(&service, "github-actions", &token).await.expect(401, "id_token_replayed");
    let profile = stored(&service, "github-actions", &service.issuer.url, JOB).await;
    assert_eq!((profile.kind, profile.name.as_deref()), (UserKind::Service, Some("octo/app")));
    assert_eq!(profile.attributes["repository_owner_id"], "65");
}

#[tokio::test]
async fn github_actions_tokens_for_another_audience_or_of_another_owner_are_refused() {
    let service = service_with_policies("github-actions", GITHUB, &[OWNERS]).await;
    let default_audience = job(&service).claim("aud", "https://github.com/octo");
    sign_in(&service, "github-actions", &default_audience).await.expect(401, "id_token_audience_mismatch");
    // Anybody's workflow may ask for this audience.
    let stranger =
        job(&service).claim("repository_owner_id", "66").claim("sub", "repo:mallory@66/x@8:ref:refs/heads/main");
    sign_in(&service, "github-actions", &stranger).await.expect(403, "identity_rejected");
    let renamed = job(&service).claim("repository_owner_id", "66").claim("repository_owner", "octo");
    sign_in(&service, "github-actions", &renamed).await.expect(403, "identity_rejected");
    let shipped = service_with("github-actions", GITHUB).await;
    sign_in(&shipped, "github-actions", &job(&shipped)).await.expect(403, "identity_rejected");
}

const KUBERNETES: &str = "client_ids = [\"https://id.example.com\"]";

/// A projected token: no `typ`, a list of audiences, a nested claim, and valid for a year.
fn pod(service: &Service) -> TokenBuilder {
    let now = service.clock.now_s();
    let claims = json!({
        "aud": ["https://id.example.com"], "sub": POD, "nbf": now, "exp": now + 31_536_000, "jti": "e51f1fbc-4733",
        "kubernetes.io": {
            "namespace": "shop", "node": {"name": "n1", "uid": "u0"}, "pod": {"name": "checkout-5d", "uid": "u1"},
            "serviceaccount": {"name": "checkout", "uid": "u2"}, "warnafter": now + 3607,
        },
    });
    with(service.issuer.token(), &claims).without_header("typ")
}

#[tokio::test]
async fn kubernetes_pods_sign_in_again_with_the_token_of_their_volume_for_an_hour() {
    let service = service_with("kubernetes", KUBERNETES).await;
    let token = pod(&service);
    let first = sign_in(&service, "kubernetes", &token).await.signed_in()["user_id"].clone();
    service.clock.advance(Duration::from_secs(50 * 60));
    assert_eq!(sign_in(&service, "kubernetes", &token).await.signed_in()["user_id"], first);
    let profile = stored(&service, "kubernetes", &service.issuer.url, POD).await;
    assert_eq!(profile.kind, UserKind::Service);
    assert_eq!(
        (&profile.attributes["namespace"], &profile.attributes["service_account"]),
        (&json!("shop"), &json!("checkout"))
    );
    service.clock.advance(Duration::from_secs(12 * 60));
    sign_in(&service, "kubernetes", &token).await.expect(401, "id_token_too_old");
}

#[tokio::test]
async fn kubernetes_tokens_for_the_api_server_or_of_no_account_are_refused() {
    let service = service_with("kubernetes", KUBERNETES).await;
    let api_server = pod(&service).claim("aud", json!(["https://kubernetes.default.svc.cluster.local"]));
    sign_in(&service, "kubernetes", &api_server).await.expect(401, "id_token_audience_mismatch");
    let both = pod(&service).claim("aud", json!(["https://id.example.com", "https://kubernetes.default.svc"]));
    sign_in(&service, "kubernetes", &both).await.expect(401, "id_token_azp_mismatch");
    sign_in(&service, "kubernetes", &pod(&service).without("kubernetes.io")).await.expect(403, "identity_rejected");
    let legacy = pod(&service).claim("iss", "kubernetes/serviceaccount").without("aud").without("exp");
    sign_in(&service, "kubernetes", &legacy).await.expect(401, "id_token_issuer_mismatch");
}

#[tokio::test]
async fn a_demand_for_mfa_denies_a_service_user_and_says_why() {
    let rule = "fn assess(s, risk) { if s.user.kind == \"service\" { risk.require_mfa(\"privileged_user\"); } }";
    let service = service_with_policies("kubernetes", KUBERNETES, &[("risk/default.rhai", rule)]).await;
    let answer = sign_in(&service, "kubernetes", &pod(&service)).await;
    answer.expect(403, "sign_in_denied");
    let message = answer.body["message"].as_str().unwrap();
    assert!(message.contains("service user") && message.contains("privileged_user"), "{message}");
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
}

#[tokio::test]
async fn a_rule_may_exempt_service_users_from_what_it_asks_of_people() {
    let rule = "fn assess(s, risk) { if s.user.kind == \"person\" { risk.require_mfa(\"privileged_user\"); } }";
    let service = service_with_policies("kubernetes", KUBERNETES, &[("risk/default.rhai", rule)]).await;
    sign_in(&service, "kubernetes", &pod(&service)).await.signed_in();
    service.sign_in(&service.issuer.token().sign()).await.expect(403, "sign_in_denied");
}

#[tokio::test]
async fn an_address_in_a_workloads_token_is_never_verified_and_links_nothing() {
    let mapping = "fn map(s, out) { out.service(); out.email(s.claims.str(\"email\"), true); }";
    let lines = format!("{KUBERNETES}\nemail_trust = \"claim\"\nlinking = \"verified_email\"");
    let service = service_with_policies("kubernetes", &lines, &[("mapping/kubernetes.rhai", mapping)]).await;
    let ada = service.issuer.token().claim("email", "ada@example.com").claim("email_verified", true);
    service.sign_in(&ada.sign()).await.signed_in();
    let token = pod(&service).claim("email", "ada@example.com").claim("email_verified", true);
    sign_in(&service, "kubernetes", &token).await.expect(409, "account_exists");
    let token = pod(&service).claim("email", "robot@example.com").claim("email_verified", true);
    sign_in(&service, "kubernetes", &token).await.signed_in();
    assert!(!stored(&service, "kubernetes", &service.issuer.url, POD).await.email_verified);
}

#[tokio::test]
async fn what_kind_of_user_it_is_is_no_claim_of_the_access_token() {
    let service = service_with("kubernetes", KUBERNETES).await;
    let answer = sign_in(&service, "kubernetes", &pod(&service)).await;
    let token = answer.signed_in()["access_token"].as_str().unwrap();
    let payload = data_encoding::BASE64URL_NOPAD.decode(token.split('.').nth(1).unwrap().as_bytes()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(claims["client_id"], "https://id.example.com");
    assert!(claims.get("kind").is_none() && !claims.to_string().contains("service"), "{claims}");
    assert_ne!(claims["client_id"], TestIssuer::CLIENT);
}
