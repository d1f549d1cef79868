//! Admin keys, the audit log, paging.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::Role;
use crate::support::service::{Service, Setup};

#[tokio::test]
async fn an_operation_without_a_living_admin_key_is_refused() {
    let service = Service::start().await;
    let bare = service.http().get(service.url("/admin/audit"));
    service.send(bare).await.expect(401, "missing_admin_key");
    let basic = service.http().get(service.url("/admin/audit")).basic_auth("a", Some("b"));
    service.send(basic).await.expect(401, "missing_admin_key");
    let key = service.admin_key(Role::Admin, None).await;
    let (id, secret) = key.split_once('.').unwrap();
    let access = service.sign_in(&service.issuer.token().sign()).await;
    let access = access.signed_in()["access_token"].as_str().unwrap();
    let other = service.admin_key(Role::Admin, None).await;
    let mixed = format!("{}.{secret}", other.split_once('.').unwrap().0);
    for wrong in ["x", id, &format!("{id}."), &format!("{id}.AAAA"), &format!("{key}A"), &mixed, access] {
        service.get_with("/admin/audit", wrong).await.expect(401, "invalid_admin_key");
    }
    assert_eq!(service.get_with("/admin/audit", &key).await.status, 200);
    service.get_with("/auth/me", &key).await.expect(401, "invalid_access_token");
}

#[tokio::test]
async fn a_key_ends_when_it_expires_or_is_revoked() {
    let service = Service::start().await;
    let root = service.admin_key(Role::Admin, None).await;
    let body = json!({"role": "viewer", "note": "short", "expires_in": 60});
    let short = service.post_with("/admin/admin-keys", &root, body).await;
    let short = short.body["key"].as_str().unwrap().to_owned();
    assert_eq!(service.get_with("/admin/audit", &short).await.status, 200);
    service.clock.advance(Duration::from_secs(60));
    service.get_with("/admin/audit", &short).await.expect(401, "invalid_admin_key");

    let made = service.post_with("/admin/admin-keys", &root, json!({"role": "viewer", "note": "x"})).await;
    let (key, id) = (made.body["key"].as_str().unwrap(), made.body["info"]["id"].as_str().unwrap());
    assert_eq!(made.body["info"]["tenant"], "default");
    assert_eq!(service.delete_with(&format!("/admin/admin-keys/{id}"), &root).await.status, 200);
    service.get_with("/admin/audit", key).await.expect(401, "invalid_admin_key");
    let again = service.delete_with(&format!("/admin/admin-keys/{id}"), &root).await;
    again.expect(404, "unknown_admin_key");
    service.delete_with("/admin/admin-keys/nonsense", &root).await.expect(404, "unknown_admin_key");
}

/// A client at another address of loopback.
fn client_at(address: [u8; 4]) -> reqwest::Client {
    reqwest::Client::builder().local_address(std::net::IpAddr::from(address)).build().unwrap()
}

async fn status_at(client: &reqwest::Client, service: &Service, key: &str) -> u16 {
    client.get(service.url("/admin/audit")).bearer_auth(key).send().await.unwrap().status().as_u16()
}

/// A key with the secret of another one.
fn mixed(key: &str, other: &str) -> String {
    format!("{}.{}", key.split_once('.').unwrap().0, other.split_once('.').unwrap().1)
}

#[tokio::test]
async fn a_key_that_fails_again_and_again_is_held_off_at_that_address_and_nowhere_else() {
    let service = Service::start().await;
    let (key, other) = (service.admin_key(Role::Viewer, None).await, service.admin_key(Role::Viewer, None).await);
    let wrong = mixed(&key, &other);
    for _ in 0..5 {
        service.get_with("/admin/audit", &wrong).await.expect(401, "invalid_admin_key");
    }
    for held_off in [&wrong, &key] {
        let answer = service.get_with("/admin/audit", held_off).await;
        assert_eq!(answer.expect(429, "too_many_admin_keys").headers["retry-after"], "60");
    }
    assert_eq!(service.get_with("/admin/audit", &other).await.status, 200, "another key of the same address");
    assert_eq!(status_at(&client_at([127, 0, 0, 2]), &service, &key).await, 200, "the key at another address");

    service.clock.advance(Duration::from_secs(59));
    let answer = service.get_with("/admin/audit", &key).await;
    assert_eq!(answer.expect(429, "too_many_admin_keys").headers["retry-after"], "1");
    service.clock.advance(Duration::from_secs(1));
    for _ in 0..10 {
        assert_eq!(service.get_with("/admin/audit", &key).await.status, 200, "what opens is not counted");
    }
    service.get_with("/admin/audit", &wrong).await.expect(401, "invalid_admin_key");
    service.get_with("/admin/audit", &key).await.expect(429, "too_many_admin_keys");

    // Other tests of this process count as well.
    let metrics = service.send(service.http().get(service.url("/metrics"))).await.text;
    for (counter, least) in
        [("countersign_admin_key_failures_total", 6), ("countersign_admin_keys_held_off_total", 4)]
    {
        let value = metrics.lines().find_map(|line| line.strip_prefix(counter)?.trim().parse::<u64>().ok());
        assert!(value >= Some(least), "{counter}: {value:?}");
    }
    assert!(!metrics.contains("csk_"), "no metric names a key");
}

#[tokio::test]
async fn an_address_that_tries_many_keys_is_held_off_whatever_the_key_and_headers_move_it_nowhere() {
    let service = Service::start().await;
    let key = service.admin_key(Role::Viewer, None).await;
    let guesser = client_at([127, 0, 0, 3]);
    let mut other = key.clone();
    for n in 0..30 {
        if n % 5 == 0 {
            other = service.admin_key(Role::Viewer, None).await;
        }
        assert_eq!(status_at(&guesser, &service, &mixed(&other, &key)).await, 401, "{n}");
    }
    assert_eq!(status_at(&guesser, &service, &key).await, 429);
    let disguised =
        guesser.get(service.url("/admin/audit")).bearer_auth(&key).header("x-forwarded-for", "192.0.2.7");
    assert_eq!(disguised.send().await.unwrap().status().as_u16(), 429);
    assert_eq!(service.get_with("/admin/audit", &key).await.status, 200);
    service.clock.advance(Duration::from_secs(10));
    assert_eq!(status_at(&guesser, &service, &key).await, 200);
}

#[tokio::test]
async fn texts_that_are_no_keys_hold_nobody_off() {
    let service = Service::start().await;
    let key = service.admin_key(Role::Viewer, None).await;
    let id = key.split_once('.').unwrap().0;
    for _ in 0..40 {
        service.get_with("/admin/audit", &format!("{id}.AAAA")).await.expect(401, "invalid_admin_key");
    }
    assert_eq!(service.get_with("/admin/audit", &key).await.status, 200);
}

#[tokio::test]
async fn roles_and_scopes_hold_and_a_key_makes_none_beyond_itself() {
    let service = Service::start().await;
    let admin = service.admin_key(Role::Admin, Some("default")).await;
    for role in [Role::Viewer, Role::Editor] {
        let key = service.admin_key(role, Some("default")).await;
        let made = service.post_with("/admin/admin-keys", &key, json!({"role": "viewer", "note": ""})).await;
        made.expect(403, "admin_role_insufficient");
        service.get_with("/admin/admin-keys", &key).await.expect(403, "admin_role_insufficient");
    }
    let everywhere = json!({"role": "viewer", "note": "", "all_tenants": true});
    service.post_with("/admin/admin-keys", &admin, everywhere).await.expect(403, "admin_scope_insufficient");
    for tenant in ["other", "no-such-tenant"] {
        let request = service.http().get(service.url("/admin/audit")).bearer_auth(&admin);
        let answer = service.send(request.header("x-tenant-id", tenant)).await;
        answer.expect(403, "admin_scope_insufficient");
    }
    let answer = service.get_with("/admin/audit?everywhere=true", &admin).await;
    answer.expect(403, "admin_scope_insufficient");
    let root = service.admin_key(Role::Viewer, None).await;
    let request = service.http().get(service.url("/admin/audit")).bearer_auth(&root);
    service.send(request.header("x-tenant-id", "no-such-tenant")).await.expect(404, "unknown_tenant");

    let foreign = service.admin_key(Role::Admin, Some("other")).await;
    let id = foreign.split_once('.').unwrap().0;
    let answer = service.delete_with(&format!("/admin/admin-keys/{id}"), &admin).await;
    answer.expect(404, "unknown_admin_key");
}

#[tokio::test]
async fn every_change_leaves_who_what_and_the_difference() {
    let service = Service::start().await;
    let root = service.admin_key(Role::Admin, None).await;
    let root_id = root.split_once('.').unwrap().0;
    let made = service.post_with("/admin/admin-keys", &root, json!({"role": "editor", "note": "desk"})).await;
    let id = made.body["info"]["id"].as_str().unwrap();
    service.clock.advance(Duration::from_secs(1));
    let revoked = service.delete_with(&format!("/admin/admin-keys/{id}"), &root).await;
    let log = service.get_with(&format!("/admin/audit?target={id}"), &root).await;
    let items = log.body["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{}", log.text);
    assert_eq!(items[0]["action"], "admin_key.revoke");
    assert_eq!(items[0]["request_id"].as_str().unwrap(), revoked.headers["x-request-id"].to_str().unwrap());
    assert_eq!(items[1]["action"], "admin_key.create");
    assert_eq!(items[1]["actor"], root_id);
    assert_eq!(items[1]["tenant"], "default");
    assert_eq!(items[1]["difference"]["role"], json!({"before": null, "after": "editor"}));
    let secret = made.body["key"].as_str().unwrap().split_once('.').unwrap().1;
    assert!(!log.text.contains(secret));
    let none = service.get_with("/admin/audit?action=user.", &root).await;
    assert_eq!(none.body["items"], json!([]));
    let some = service.get_with("/admin/audit?action=admin_key.", &root).await;
    assert_eq!(some.body["items"].as_array().unwrap().len(), 2, "{}", some.text);
    let later = service.get_with("/admin/audit?from=2999-01-01T00:00:00Z", &root).await;
    assert_eq!(later.body["items"], json!([]));
    for wrong in ["from=yesterday", "actor=somebody", "limit=0", "limit=201", "limit=x"] {
        service.get_with(&format!("/admin/audit?{wrong}"), &root).await.expect(400, "malformed_request");
    }
    service.get_with("/admin/audit?cursor=nonsense", &root).await.expect(400, "invalid_cursor");
}

#[tokio::test]
async fn pages_show_every_row_once_while_new_ones_come() {
    let service = Service::start().await;
    let root = service.admin_key(Role::Admin, None).await;
    let make = async |note: &str| {
        service.post_with("/admin/admin-keys", &root, json!({"role": "viewer", "note": note})).await
    };
    for n in 0..5 {
        make(&n.to_string()).await;
        service.clock.advance(Duration::from_secs(1));
    }
    let mut seen = Vec::new();
    let mut path = "/admin/admin-keys?limit=2".to_owned();
    loop {
        let page = service.get_with(&path, &root).await;
        seen.extend(page.body["items"].as_array().unwrap().iter().map(|k| k["note"].as_str().unwrap().to_owned()));
        make("late").await;
        match page.body.get("next_cursor").and_then(Value::as_str) {
            Some(cursor) => path = format!("/admin/admin-keys?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, ["4", "3", "2", "1", "0"]);
}

#[tokio::test]
async fn the_command_line_makes_lists_and_revokes_keys_beside_a_running_server() {
    let service = Service::start_with(Setup::default()).await;
    let config = service.dir.path().join("countersign.toml");
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .arg("admin-key")
            .args(args)
            .arg("--config")
            .arg(&config)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, key, _) = run(&["create", "--role", "viewer", "--tenant", "default", "--note", "desk"]);
    assert_eq!(code, 0);
    let key = key.trim();
    assert_eq!(service.get_with("/admin/audit", key).await.status, 200);
    let (code, listed, _) = run(&["list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((code, &listed[0]["note"], &listed[0]["tenant"]), (0, &json!("desk"), &json!("default")));
    let (code, text, _) = run(&["revoke", key.split_once('.').unwrap().0]);
    assert_eq!(code, 0, "{text}");
    service.get_with("/admin/audit", key).await.expect(401, "invalid_admin_key");
    assert_eq!(run(&["revoke", key]).0, 1);
    assert_eq!(run(&["revoke", "nonsense"]).0, 2);
    assert_eq!(run(&["create", "--role", "king", "--all-tenants"]).0, 2);
    assert_eq!(run(&["create", "--role", "viewer"]).0, 2);
    assert_eq!(run(&["create", "--role", "viewer", "--tenant", "No Such"]).0, 2);
}
