//! What a provider tells at each sign-in, and what is stored of it.

use serde_json::json;
use tempfile::TempDir;

use super::{claims, mail, sign_in};
use crate::support::service::{Service, Setup};

#[tokio::test]
async fn always_once_and_never_hold_for_each_attribute_and_nothing_is_cleared_by_what_is_left_out() {
    let lines = "remap_once = [\"username\", \"email\"]\nremap_never = [\"phone\"]";
    let service = Service::start_with(Setup::provider(lines)).await;
    let token = |name: &str, mail_address: &str| {
        let token = service.issuer.token().claim("preferred_username", name).claim("phone_number", "+46700000000");
        mail(token, mail_address, true)
    };
    let (_, body) = sign_in(&service, token("ada", "ada@example.com")).await;
    assert_eq!(body["user"]["username"], "ada");
    assert!(body["user"].get("phone").is_none());
    let (_, body) = sign_in(&service, token("eve", "eve@example.com")).await;
    assert_eq!((&body["user"]["username"], &body["user"]["email"]), (&json!("ada"), &json!("ada@example.com")));
    let (_, body) = sign_in(&service, service.issuer.token()).await;
    assert_eq!(body["user"]["username"], "ada");
    let service = service.restart(Setup::default()).await;
    let (_, body) = sign_in(&service, service.issuer.token().claim("preferred_username", "countess")).await;
    assert_eq!(
        (&body["user"]["username"], &body["user"]["email"]),
        (&json!("countess"), &json!("ada@example.com"))
    );
}

/// CVE-2023-0105: a verified mark survived a change of the address.
#[tokio::test]
async fn cve_2023_0105_a_changed_address_is_verified_only_when_the_provider_says_so_of_the_new_one() {
    let dir = TempDir::new().unwrap();
    let rule = "fn assess(s, risk) { if s.user.email_verified { risk.add(7, \"new_device\"); } }";
    let service = Service::start_with(Setup::with_policies(dir.path(), &[("risk/_default.rhai", rule)])).await;
    let score = async |address: &str, verified: bool| {
        let (_, body) = sign_in(&service, mail(service.issuer.token(), address, verified)).await;
        body["risk_assessment"]["score"].clone()
    };
    assert_eq!(score("ada@example.com", true).await, 7);
    assert_eq!(score("victim@example.com", false).await, 0);
    assert_eq!(score("ada@example.com", true).await, 7);
}

const MAPPING: &str = r#"
fn map(s, out) {
    for g in s.claims.list("groups") { out.group(g); }
    for r in s.claims.list("roles") { out.role(r); }
}"#;

/// CVE-2026-40172: a generic update granted the superuser group.
#[tokio::test]
async fn cve_2026_40172_a_mapping_grants_groups_and_roles_within_the_allow_list_only() {
    let dir = TempDir::new().unwrap();
    let mut setup = Setup::with_policies(dir.path(), &[("mapping/acme.rhai", MAPPING)]);
    setup.provider = "allowed_groups = [\"staff\"]\nallowed_roles = [\"reader\", \"writer\"]".to_owned();
    let service = Service::start_with(setup).await;
    let token = |groups: &[&str], roles: &[&str]| {
        service.issuer.token().claim("groups", json!(groups)).claim("roles", json!(roles))
    };
    let (access, body) = sign_in(&service, token(&["staff", "superusers"], &["writer", "root", "reader"])).await;
    let me = service.get_with("/auth/me", &access).await.body;
    assert_eq!((&me["groups"], &me["roles"]), (&json!(["staff"]), &json!(["reader", "writer"])));
    let seen = claims(&body["access_token"]);
    assert_eq!((&seen["groups"], &seen["roles"]), (&json!(["staff"]), &json!(["reader", "writer"])));
    sign_in(&service, token(&[], &["reader"])).await;
    let refreshed = service.post("/auth/refresh", json!({"refresh_token": body["refresh_token"]})).await;
    let seen = claims(&refreshed.signed_in()["access_token"]);
    assert_eq!((seen.get("groups"), &seen["roles"]), (None, &json!(["reader"])), "what went upstream goes here");
}

#[tokio::test]
async fn default_roles_are_everybodys_at_each_sign_in_as_the_configuration_says_then() {
    let dir = TempDir::new().unwrap();
    let setup = |roles: &str| {
        let mut setup = Setup::with_policies(dir.path(), &[("mapping/acme.rhai", MAPPING)]);
        setup.provider = format!("allowed_roles = [\"reader\"]\n{roles}");
        setup
    };
    let service = Service::start_with(setup("default_roles = [\"member\", \"beta\"]")).await;
    let token = |service: &Service, roles: &[&str]| {
        service.issuer.token().claim("groups", json!([])).claim("roles", json!(roles))
    };
    let (_, body) = sign_in(&service, token(&service, &["reader", "root"])).await;
    assert_eq!(claims(&body["access_token"])["roles"], json!(["beta", "member", "reader"]));
    let (_, body) = sign_in(&service, token(&service, &[])).await;
    assert_eq!(claims(&body["access_token"])["roles"], json!(["beta", "member"]));
    let service = service.restart(setup("")).await;
    let (_, body) = sign_in(&service, token(&service, &["member"])).await;
    assert_eq!(claims(&body["access_token"]).get("roles"), None, "a default grants the mapping nothing");
}

#[tokio::test]
async fn users_are_created_of_the_named_domains_only_and_whoever_is_there_comes_in() {
    let service = Service::start().await;
    let of = |service: &Service, subject: &str| service.issuer.token().subject(subject);
    sign_in(&service, mail(of(&service, "before"), "eve@elsewhere.example", true)).await;
    let lines = "provisioning_domains = [\"Example.com\", \"example.org\"]";
    let service = service.restart(Setup::provider(lines)).await;
    sign_in(&service, mail(of(&service, "before"), "eve@elsewhere.example", true)).await;
    sign_in(&service, mail(of(&service, "one"), "ada@EXAMPLE.com", true)).await;
    sign_in(&service, mail(of(&service, "two"), "ada@example.org", true)).await;
    for token in [
        mail(of(&service, "three"), "ada@elsewhere.example", true),
        mail(of(&service, "four"), "ada@sub.example.com", true),
        mail(of(&service, "five"), "ada@badexample.com", true),
        mail(of(&service, "six"), "eve@example.com", false),
        of(&service, "seven"),
    ] {
        service.sign_in(&token.sign()).await.expect(403, "user_not_provisioned");
    }
}
