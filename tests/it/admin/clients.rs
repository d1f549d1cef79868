//! OAuth clients of the API: what they may do, how their secrets follow each other, what ends with them.

use std::time::Duration;

use serde_json::{Value, json};

use super::Role;
use crate::mfa;
use crate::oauth::form;
use crate::support::service::{Answer, Service, Setup};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

struct Desk {
    service: Service,
    editor: String,
}

impl Desk {
    async fn open() -> Self {
        Self::with(Setup::default()).await
    }

    async fn with(setup: Setup) -> Self {
        let service = Service::start_with(setup).await;
        let editor = service.admin_key(Role::Editor, Some("default")).await;
        Self { service, editor }
    }

    async fn create(&self, client_id: &str, settings: Value) -> Answer {
        let body = json!({"client_id": client_id, "settings": settings});
        self.service.post_with("/admin/clients", &self.editor, body).await
    }

    /// A client that was made, and its secret.
    async fn made(&self, client_id: &str, settings: Value) -> String {
        let made = self.create(client_id, settings).await;
        assert_eq!((made.status, &made.body["client"]["managed_by"]), (200, &json!("api")), "{}", made.text);
        made.body["client_secret"].as_str().unwrap_or_default().to_owned()
    }

    async fn exchange(&self, client_id: &str, secret: &str) -> Answer {
        let token = self.service.issuer.token().sign();
        let grant = [("grant_type", EXCHANGE), ("subject_token", &token), ("subject_token_type", ID_TOKEN)];
        self.token(client_id, secret, &grant).await
    }

    /// As client `shop`, tokens for this audience.
    async fn exchange_for(&self, audience: &str, secret: &str) -> Answer {
        let token = self.service.issuer.token().sign();
        let grant = [("grant_type", EXCHANGE), ("subject_token", &token), ("subject_token_type", ID_TOKEN)];
        self.token("shop", secret, &[&grant[..], &[("audience", audience)]].concat()).await
    }

    async fn refresh(&self, client_id: &str, secret: &str, refresh: &str) -> Answer {
        self.token(client_id, secret, &[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await
    }

    async fn token(&self, client_id: &str, secret: &str, grant: &[(&str, &str)]) -> Answer {
        form(&self.service, "/oauth/token", &[&as_client(client_id, secret), grant].concat()).await
    }

    async fn introspect(&self, client_id: &str, secret: &str, token: &str) -> Answer {
        form(&self.service, "/oauth/introspect", &[&as_client(client_id, secret)[..], &[("token", token)]].concat())
            .await
    }

    async fn delete(&self, client_id: &str) {
        let deleted = self.service.delete_with(&format!("/admin/clients/{client_id}"), &self.editor).await;
        assert_eq!(deleted.status, 200, "{}", deleted.text);
    }
}

/// The credentials of a client; a public one has no secret.
fn as_client<'a>(client_id: &'a str, secret: &'a str) -> Vec<(&'a str, &'a str)> {
    let secret = (!secret.is_empty()).then_some(("client_secret", secret));
    std::iter::once(("client_id", client_id)).chain(secret).collect()
}

fn text<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.body[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", answer.text))
}

#[tokio::test]
async fn a_client_made_here_uses_the_oauth_endpoints_at_once_and_is_gone_when_removed() {
    let desk = Desk::open().await;
    desk.exchange("shop", "x").await.expect(401, "invalid_client");
    let secret = desk.made("shop", json!({"providers": ["acme"]})).await;
    assert_eq!(secret.len(), 43, "256 bits in base64url");
    desk.exchange("shop", "x").await.expect(401, "invalid_client");
    let tokens = desk.exchange("shop", &secret).await;
    assert_eq!(tokens.status, 200, "{}", tokens.text);
    let (access, refresh) = (text(&tokens, "access_token"), text(&tokens, "refresh_token"));
    assert_eq!(desk.introspect("shop", &secret, access).await.body["active"], true);
    desk.create("shop", json!({"providers": ["acme"]})).await.expect(409, "already_exists");

    // What a change takes away is gone, and the sessions stay.
    desk.service.clock.advance(Duration::from_millis(5));
    let put = json!({"providers": ["acme"], "grants": ["refresh_token"]});
    let changed = desk.service.put_with("/admin/clients/shop", &desk.editor, put).await;
    assert_eq!((changed.status, &changed.body["secrets"]), (200, &json!(1)), "{}", changed.text);
    desk.exchange("shop", &secret).await.expect(400, "unauthorized_client");
    let refreshed = desk.refresh("shop", &secret, refresh).await;
    assert_eq!(refreshed.status, 200, "{}", refreshed.text);
    let kind = json!({"kind": "native", "providers": ["acme"]});
    desk.service.put_with("/admin/clients/shop", &desk.editor, kind).await.expect(400, "invalid_settings");

    let watcher = desk.made("watch", json!({"kind": "machine", "grants": []})).await;
    desk.service.clock.advance(Duration::from_millis(5));
    desk.delete("shop").await;
    desk.service.get_with("/admin/clients/shop", &desk.editor).await.expect(404, "unknown_client");
    desk.service.delete_with("/admin/clients/shop", &desk.editor).await.expect(404, "unknown_client");
    let (access, refresh) = (text(&refreshed, "access_token"), text(&refreshed, "refresh_token"));
    desk.refresh("shop", &secret, refresh).await.expect(401, "invalid_client");
    desk.service.get_with("/auth/me", access).await.expect(401, "session_ended");
    assert_eq!(desk.introspect("watch", &watcher, access).await.body, json!({"active": false}));

    let log = desk.service.get_with("/admin/audit?action=client.&target=shop", &desk.editor).await;
    let items = log.body["items"].as_array().unwrap();
    let actions: Vec<&str> = items.iter().map(|r| r["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["client.delete", "client.update", "client.create"]);
    let grants = json!({"before": null, "after": ["refresh_token"]});
    assert_eq!(items[1]["difference"], json!({"grants": grants}));
    assert!(!log.text.contains(&secret), "no secret in the log");
}

#[tokio::test]
async fn an_audience_that_was_taken_away_is_served_at_no_refresh() {
    let desk = Desk::open().await;
    let settings = |audiences: &[&str]| json!({"providers": ["acme"], "audiences": audiences});
    let (old, new) = ("https://old.example", "https://new.example");
    let secret = desk.made("shop", settings(&[old, new])).await;
    let watcher = desk.made("watch", json!({"kind": "machine", "grants": []})).await;
    let put = |audiences: &'static [&'static str]| {
        let settings = settings(audiences);
        desk.service.clock.advance(Duration::from_millis(5));
        desk.service.put_with("/admin/clients/shop", &desk.editor, settings)
    };
    let (for_old, for_new) = (desk.exchange_for(old, &secret).await, desk.exchange_for(new, &secret).await);
    let (access, refresh) = (text(&for_old, "access_token"), text(&for_old, "refresh_token"));
    assert_eq!(desk.introspect("watch", &watcher, access).await.body["active"], true);

    assert_eq!(put(&["https://new.example"]).await.status, 200);
    let refused = desk.refresh("shop", &secret, refresh).await;
    assert_eq!(refused.expect(400, "invalid_grant").body["reason"], "invalid_refresh_token");
    assert!(refused.text.contains("audience"), "{}", refused.text);
    assert_eq!(desk.introspect("watch", &watcher, access).await.body, json!({"active": false}));
    assert_eq!(desk.introspect("shop", &secret, refresh).await.body, json!({"active": false}));
    let other = desk.refresh("shop", &secret, text(&for_new, "refresh_token")).await;
    assert_eq!(other.status, 200, "{}", other.text);

    // Nothing was spent: a mistaken change costs nobody a session.
    assert_eq!(put(&["https://old.example", "https://new.example"]).await.status, 200);
    let again = desk.refresh("shop", &secret, refresh).await;
    assert_eq!(again.status, 200, "{}", again.text);

    // Nor through a provider that is not the client's any more.
    let settings = |grants: &[&str], providers: &[&str]| json!({"providers": providers, "audiences": [old, new], "grants": grants});
    let (access, refresh) = (text(&again, "access_token"), text(&again, "refresh_token"));
    assert_eq!(desk.introspect("watch", &watcher, access).await.body["active"], true);
    for (grants, providers, status) in
        [(&["refresh_token"][..], &[][..], 400), (&["refresh_token", "token-exchange"], &["acme"], 200)]
    {
        desk.service.clock.advance(Duration::from_millis(5));
        let put = desk.service.put_with("/admin/clients/shop", &desk.editor, settings(grants, providers)).await;
        assert_eq!(put.status, 200, "{}", put.text);
        assert_eq!(desk.introspect("watch", &watcher, access).await.body["active"], status == 200);
        let answer = desk.refresh("shop", &secret, refresh).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
}

#[tokio::test]
async fn a_client_made_again_inherits_nothing() {
    let desk = Desk::open().await;
    let old = desk.made("app", json!({"kind": "native", "providers": ["acme"]})).await;
    assert_eq!(old, "", "it cannot keep one");
    let tokens = desk.exchange("app", "").await;
    let (access, refresh) = (text(&tokens, "access_token"), text(&tokens, "refresh_token"));
    desk.delete("app").await;
    desk.service.get_with("/auth/me", access).await.expect(401, "session_ended");
    // In the same millisecond: what counts is not the clock.
    desk.made("app", json!({"kind": "native", "providers": ["acme"]})).await;
    let refused = desk.refresh("app", "", refresh).await;
    assert_eq!(refused.expect(400, "invalid_grant").body["reason"], "invalid_refresh_token");
    desk.service.get_with("/auth/me", access).await.expect(401, "session_ended");
    let fresh = desk.exchange("app", "").await;
    assert_eq!(desk.service.get_with("/auth/me", text(&fresh, "access_token")).await.status, 200);
    let revoked = form(&desk.service, "/oauth/revoke", &[("client_id", "app"), ("token", access)]).await;
    revoked.expect(400, "unauthorized_client");
}

#[tokio::test]
async fn a_challenge_of_a_removed_client_takes_no_answer() {
    let (_dir, service, secret) = mfa::enrolled().await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    let desk = Desk { service, editor };
    desk.made("app", json!({"kind": "native", "providers": ["acme"]})).await;
    let challenged = desk.exchange("app", "").await;
    let token = challenged.expect(403, "mfa_required").body["challenge_token"].as_str().unwrap().to_owned();
    let body = json!({"challenge_token": token, "code": mfa::code(&desk.service, &secret, 0)});
    desk.delete("app").await;
    desk.made("app", json!({"kind": "native", "providers": ["acme"]})).await;
    desk.service.post("/auth/mfa/verify-challenge", body).await.expect(400, "challenge_expired");
}

#[tokio::test]
async fn a_challenge_for_an_audience_that_was_taken_away_takes_no_answer() {
    let (_dir, service, factor) = mfa::enrolled().await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    let desk = Desk { service, editor };
    let secret = desk.made("shop", json!({"providers": ["acme"], "audiences": ["https://old.example"]})).await;
    let challenged = desk.exchange_for("https://old.example", &secret).await;
    let token = challenged.expect(403, "mfa_required").body["challenge_token"].clone();
    desk.service.clock.advance(Duration::from_millis(5));
    let changed = desk.service.put_with("/admin/clients/shop", &desk.editor, json!({"providers": ["acme"]})).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    let code = mfa::code(&desk.service, &factor, 0);
    mfa::verify(&desk.service, &token, &code).await.expect(400, "challenge_expired");
}

#[tokio::test]
async fn one_secret_follows_another_and_each_ends_when_it_is_told() {
    let desk = Desk::open().await;
    let first = desk.made("shop", json!({"providers": ["acme"]})).await;
    let renew = async |keep: bool| {
        let body = json!({"keep_previous": keep});
        let made = desk.service.post_with("/admin/clients/shop/secret", &desk.editor, body).await;
        assert_eq!(made.body["client"]["secrets"], 1 + u32::from(keep), "{}", made.text);
        text(&made, "client_secret").to_owned()
    };
    let good = async |secret: &str| desk.introspect("shop", secret, "x").await.status == 200;
    let second = renew(true).await;
    assert!(good(&first).await && good(&second).await);
    let third = renew(true).await;
    assert!(!good(&first).await && good(&second).await && good(&third).await, "never three");
    let ended = desk.service.delete_with("/admin/clients/shop/secret/previous", &desk.editor).await;
    assert_eq!(ended.body["secrets"], 1, "{}", ended.text);
    assert!(!good(&second).await && good(&third).await);
    let fourth = renew(false).await;
    assert!(!good(&third).await && good(&fourth).await);

    desk.made("app", json!({"kind": "spa", "providers": ["acme"]})).await;
    let body = json!({"keep_previous": false});
    let refused = desk.service.post_with("/admin/clients/app/secret", &desk.editor, body).await;
    refused.expect(400, "invalid_settings");
}

#[tokio::test]
async fn settings_pass_the_rules_of_the_file_and_clients_of_the_file_are_read_only() {
    let desk = Desk::with(crate::oauth::setup()).await;
    for (client_id, settings) in [
        ("B b", json!({"providers": ["acme"]})),
        ("", json!({"providers": ["acme"]})),
        ("b", json!({})),
        ("b", json!({"kind": "desktop", "providers": ["acme"]})),
        ("b", json!({"providers": ["No Body"]})),
        ("b", json!({"providers": ["acme"], "grants": ["password"]})),
        ("b", json!({"providers": ["acme"], "audiences": [" padded"]})),
        ("b", json!({"providers": ["acme"], "secret_hash": "0".repeat(64)})),
        ("b", json!({"providers": ["acme"], "tenant": "other"})),
        ("b", json!({"providers": ["acme"], "provider": ["acme"]})),
        ("b", json!({"providers": {"a": 1}})),
    ] {
        desk.create(client_id, settings).await.expect(400, "invalid_settings");
    }
    desk.create("b", json!([])).await.expect(400, "malformed_request");

    let put = json!({"providers": ["acme"]});
    desk.create("shop", put.clone()).await.expect(409, "already_exists");
    desk.service.put_with("/admin/clients/shop", &desk.editor, put).await.expect(409, "managed_by_config");
    desk.service.delete_with("/admin/clients/shop", &desk.editor).await.expect(409, "managed_by_config");
    let body = json!({"keep_previous": false});
    let renewed = desk.service.post_with("/admin/clients/shop/secret", &desk.editor, body).await;
    renewed.expect(409, "managed_by_config");
    desk.made("pocket", json!({"kind": "native", "providers": ["acme"]})).await;
    let body = json!({"keep_previous": false});
    let renewed = desk.service.post_with("/admin/clients/pocket/secret", &desk.editor, body).await;
    let message = &renewed.expect(400, "invalid_settings").body["message"];
    assert_eq!(message, "a client of kind spa or native cannot keep a secret, and has none");
    assert_eq!(desk.service.delete_with("/admin/clients/pocket", &desk.editor).await.status, 200);

    let listed = desk.service.get_with("/admin/clients?limit=3", &desk.editor).await;
    let ids = |answer: &Answer| -> Vec<String> {
        let items = answer.body["items"].as_array().unwrap();
        items.iter().map(|client| client["client_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&listed), ["api", "app", "lone"]);
    let next = format!("/admin/clients?cursor={}", text(&listed, "next_cursor"));
    let next = desk.service.get_with(&next, &desk.editor).await;
    assert_eq!(ids(&next), ["shop"]);
    let shop = &next.body["items"][0];
    assert_eq!((&shop["managed_by"], &shop["secrets"]), (&json!("config"), &json!(1)));
    assert_eq!(shop["settings"]["audiences"], json!(["https://api.example"]));
    assert!(shop["settings"].get("secret_hash").is_none());
}

#[tokio::test]
async fn changes_that_are_made_at_once_are_all_made() {
    let desk = Desk::open().await;
    let ids: Vec<String> = (0..20).map(|n| format!("client-{n}")).collect();
    let making = ids.iter().map(|id| desk.create(id, json!({"kind": "spa", "providers": ["acme"]})));
    for made in futures_util::future::join_all(making).await {
        assert_eq!(made.status, 200, "{}", made.text);
    }
    let listed = desk.service.get_with("/admin/clients", &desk.editor).await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), ids.len());
}

#[tokio::test]
async fn other_nodes_know_and_refuse_a_client_within_a_second() {
    let desk = Desk::open().await;
    let second = Desk { service: desk.service.second_node(Setup::default()).await, editor: desk.editor.clone() };
    let secret = desk.made("shop", json!({"providers": ["acme"]})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tokens = second.exchange("shop", &secret).await;
    assert_eq!(tokens.status, 200, "{}", tokens.text);
    desk.delete("shop").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    second.refresh("shop", &secret, text(&tokens, "refresh_token")).await.expect(401, "invalid_client");
    second.service.get_with("/auth/me", text(&tokens, "access_token")).await.expect(401, "session_ended");
}

#[tokio::test]
async fn a_client_outlives_a_restart_and_a_tenant_with_one_is_not_empty() {
    let desk = Desk::open().await;
    let secret = desk.made("shop", json!({"providers": ["acme"]})).await;
    let root = desk.service.admin_key(Role::Admin, None).await;
    let made = desk.service.post_with("/admin/tenants", &root, json!({"id": "third"})).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let client = json!({"client_id": "shop", "settings": {"providers": ["acme"]}});
    let there = desk.service.admin_key(Role::Editor, Some("third")).await;
    assert_eq!(desk.service.post_with("/admin/clients", &there, client).await.status, 200);
    desk.service.delete_with("/admin/tenants/third", &root).await.expect(409, "tenant_not_empty");
    assert_eq!(desk.service.delete_with("/admin/clients/shop", &there).await.status, 200);
    assert_eq!(desk.service.delete_with("/admin/tenants/third", &root).await.status, 200);
    let desk = Desk { service: desk.service.restart(Setup::default()).await, editor: desk.editor };
    assert_eq!(desk.exchange("shop", &secret).await.status, 200);
}
