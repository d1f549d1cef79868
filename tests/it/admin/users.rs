//! Users: found, changed, exported, erased.

use std::time::Duration;

use countersign::ids::UserId;
use countersign::signin::user::UserStatus;
use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::Role;
use crate::mfa;
use crate::support::service::{Answer, Service};

async fn sign_in_as(service: &Service, subject: &str, claims: &[(&str, Value)]) -> Answer {
    let mut token = service.issuer.token().subject(subject);
    for (name, value) in claims {
        token = token.claim(name, value.clone());
    }
    service.sign_in(&token.sign()).await
}

async fn user_of(service: &Service, subject: &str) -> String {
    sign_in_as(service, subject, &[]).await.signed_in()["user_id"].as_str().unwrap().to_owned()
}

/// All tables of the store as text, blobs in hex.
async fn dump(service: &Service) -> Vec<(String, String)> {
    let file = service.dir.path().join("db/countersign.db");
    let mut store = SqliteConnectOptions::new().filename(file).read_only(true).connect().await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
        .fetch_all(&mut store)
        .await
        .unwrap();
    let mut dumped = Vec::new();
    for table in tables {
        let columns: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?1)")
            .bind(&table)
            .fetch_all(&mut store)
            .await
            .unwrap();
        let quoted: Vec<String> = columns.iter().map(|c| format!("quote(\"{c}\")")).collect();
        let all =
            format!("SELECT coalesce(group_concat({}, char(10)), '') FROM \"{table}\"", quoted.join(" || ' ' || "));
        let text: String = sqlx::query_scalar(sqlx::AssertSqlSafe(all)).fetch_one(&mut store).await.unwrap();
        dumped.push((table, text));
    }
    assert!(dumped.len() > 10, "these are not all tables");
    dumped
}

fn ids(answer: &Answer) -> Vec<&str> {
    answer.body["items"].as_array().unwrap().iter().map(|u| u["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn users_are_found_by_the_beginning_of_address_name_and_identifier() {
    let service = Service::start().await;
    let viewer = service.admin_key(Role::Viewer, Some("default")).await;
    let mut users = Vec::new();
    for (subject, email, name) in
        [("1", "Ada@Example.com", "ada"), ("2", "bob@example.com", "Ada2"), ("3", "c@x.se", "c")]
    {
        let claims =
            [("email", json!(email)), ("email_verified", json!(true)), ("preferred_username", json!(name))];
        let answer = sign_in_as(&service, subject, &claims).await;
        users.push(answer.signed_in()["user_id"].as_str().unwrap().to_owned());
        service.clock.advance(Duration::from_secs(1));
    }
    let find = async |q: &str| service.get_with(&format!("/admin/users?q={q}"), &viewer).await;
    let all = service.get_with("/admin/users", &viewer).await;
    assert_eq!(ids(&all), [&*users[2], &*users[1], &*users[0]]);
    assert_eq!(all.body["items"][2]["email"], "Ada@Example.com");
    assert_eq!(ids(&find("ADA@").await), [&*users[0]]);
    assert_eq!(ids(&find("bob%40example.com").await), [&*users[1]]);
    assert_eq!(ids(&find(&users[2]).await), [&*users[2]]);
    assert_eq!(ids(&find(&users[0][..8]).await).len(), 3);
    let named = find("ada").await;
    assert_eq!(ids(&named).len(), if named.body["items"][0]["username"].is_string() { 2 } else { 1 });
    for nobody in ["nobody", "usr_U", "%25", "_", "'", "%00"] {
        assert_eq!(ids(&find(nobody).await), [""; 0], "{nobody}");
    }
    let wrong = service.get_with("/admin/users?status=great", &viewer).await;
    wrong.expect(400, "malformed_request");
    let first = service.get_with("/admin/users?limit=2", &viewer).await;
    let cursor = first.body["next_cursor"].as_str().unwrap();
    let rest = service.get_with(&format!("/admin/users?limit=2&cursor={cursor}"), &viewer).await;
    assert_eq!((ids(&first).len(), ids(&rest)), (2, vec![&*users[0]]));
    assert!(rest.body.get("next_cursor").is_none());
    service.get_with(&format!("/admin/sessions?cursor={cursor}"), &viewer).await.expect(400, "invalid_cursor");
}

#[tokio::test]
async fn each_status_has_its_answer_on_every_path() {
    let (_dir, service, secret) = mfa::enrolled().await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    for (status, error) in [("disabled", "account_disabled"), ("locked", "account_locked")] {
        let challenge = mfa::challenge(&service).await;
        let tokens = mfa::verify(&service, &challenge, &mfa::code(&service, &secret, 0)).await;
        let tokens = tokens.signed_in().clone();
        service.clock.advance(Duration::from_secs(60));
        let challenge = mfa::challenge(&service).await;
        let path = format!("/admin/users/{}/status", tokens["user_id"].as_str().unwrap());
        let set = service.put_with(&path, &editor, json!({"status": status, "end_sessions": false})).await;
        assert_eq!(set.body["status"], status, "{}", set.text);
        service.sign_in(&service.issuer.token().sign()).await.expect(403, error);
        let access = tokens["access_token"].as_str().unwrap();
        service.get_with("/auth/me", access).await.expect(403, error);
        let code = mfa::code(&service, &secret, 0);
        mfa::verify(&service, &challenge, &code).await.expect(400, "invalid_challenge");
        let refresh = json!({"refresh_token": tokens["refresh_token"]});
        service.post("/auth/refresh", refresh.clone()).await.expect(400, "invalid_refresh_token");
        service.put_with(&path, &editor, json!({"status": "active"})).await;
        service.post("/auth/refresh", refresh).await.expect(400, "invalid_refresh_token");
        service.get_with("/auth/me", access).await.expect(401, "session_ended");
        service.clock.advance(Duration::from_secs(60));
    }
}

#[tokio::test]
async fn disabling_a_user_ends_its_sessions_and_locking_does_not() {
    let service = Service::start().await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    for (status, left) in [("locked", 200), ("disabled", 401)] {
        let tokens = sign_in_as(&service, "s", &[]).await;
        let tokens = tokens.signed_in();
        let path = format!("/admin/users/{}/status", tokens["user_id"].as_str().unwrap());
        service.put_with(&path, &editor, json!({"status": status})).await;
        service.put_with(&path, &editor, json!({"status": "active"})).await;
        let me = service.get_with("/auth/me", tokens["access_token"].as_str().unwrap()).await;
        assert_eq!(me.status, left, "{status}: {}", me.text);
    }
    let wrong = json!({"status": "deleted"});
    let user = user_of(&service, "s").await;
    let path = format!("/admin/users/{user}/status");
    service.put_with(&path, &editor, wrong).await.expect(400, "malformed_request");
}

#[tokio::test]
async fn sessions_are_listed_and_ended_one_by_one_or_all() {
    let service = Service::start().await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(sign_in_as(&service, "s", &[]).await.signed_in().clone());
        service.clock.advance(Duration::from_secs(1));
    }
    let user = tokens[0]["user_id"].as_str().unwrap();
    let listed = service.get_with(&format!("/admin/users/{user}/sessions"), &editor).await;
    let sessions = listed.body["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 3, "{}", listed.text);
    assert_eq!(sessions[0]["provider"], "acme");
    let newest = sessions[0]["id"].as_str().unwrap();
    assert_eq!(service.delete_with(&format!("/admin/sessions/{newest}"), &editor).await.status, 200);
    let again = service.delete_with(&format!("/admin/sessions/{newest}"), &editor).await;
    again.expect(404, "unknown_session");
    let me = async |n: usize| service.get_with("/auth/me", tokens[n]["access_token"].as_str().unwrap()).await;
    me(2).await.expect(401, "session_ended");
    assert_eq!(me(1).await.status, 200);
    let page = service.get_with(&format!("/admin/sessions?user={user}"), &editor).await;
    assert_eq!(ids(&page).len(), 2);
    let ended = service.delete_with(&format!("/admin/users/{user}/sessions"), &editor).await;
    assert_eq!(ended.body["message"], "2 sessions have ended", "{}", ended.text);
    me(0).await.expect(401, "session_ended");
    assert_eq!(ids(&service.get_with("/admin/sessions", &editor).await), [""; 0]);
}

#[tokio::test]
async fn a_reset_of_mfa_removes_factors_and_lifts_the_lock() {
    let (_dir, service, _) = mfa::enrolled().await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    let user = answer.challenged()["user_id"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        let challenge = mfa::challenge(&service).await;
        for _ in 0..5 {
            mfa::verify(&service, &challenge, "000000").await;
        }
    }
    let locked = mfa::challenge(&service).await;
    mfa::verify(&service, &locked, "000000").await.expect(429, "mfa_locked");
    let factors = service.get_with(&format!("/admin/users/{user}/mfa"), &editor).await;
    assert_eq!(factors.body["factors"].as_array().unwrap().len(), 1);
    let reset = service.delete_with(&format!("/admin/users/{user}/mfa"), &editor).await;
    assert_eq!(reset.body["message"], "1 factors are removed", "{}", reset.text);
    mfa::verify(&service, &locked, "000000").await.expect(400, "invalid_mfa_code");
    let factors = service.get_with(&format!("/admin/users/{user}/mfa"), &editor).await;
    assert_eq!(factors.body["factors"], json!([]));
}

#[tokio::test]
async fn sign_ins_are_listed_filtered_counted_and_shown() {
    let service = Service::start().await;
    let viewer = service.admin_key(Role::Viewer, Some("default")).await;
    let first = user_of(&service, "1").await;
    service.clock.advance(Duration::from_secs(3600));
    let second = user_of(&service, "2").await;
    let used = service.issuer.token().subject("1").sign();
    service.sign_in(&used).await.signed_in();
    service.store.set_user_status(second.parse().unwrap(), UserStatus::Disabled).await.unwrap();
    sign_in_as(&service, "2", &[]).await.expect(403, "account_disabled");
    let list = async |query: &str| service.get_with(&format!("/admin/sign-ins{query}"), &viewer).await;
    assert_eq!(ids(&list("").await).len(), 4);
    assert_eq!(ids(&list(&format!("?user={first}")).await).len(), 2);
    assert_eq!(ids(&list("?outcome=signed_in").await).len(), 3);
    assert_eq!(ids(&list("?provider=nobody").await).len(), 0);
    assert_eq!(ids(&list("?risk_level=high").await).len(), 0);
    assert_eq!(ids(&list("?until=2026-06-01T12:30:00Z").await).len(), 1);
    assert_eq!(ids(&list("?from=2026-06-01T12:30:00Z").await).len(), 3);
    let refused = list("?outcome=refused").await;
    assert_eq!(refused.body["items"][0]["error"], "account_disabled", "{}", refused.text);
    list("?outcome=great").await.expect(400, "malformed_request");
    list("?user=x").await.expect(400, "malformed_request");
    let id = ids(&refused)[0];
    let shown = service.get_with(&format!("/admin/sign-ins/{id}"), &viewer).await;
    assert_eq!(shown.body["user_id"], json!(second));
    service.get_with("/admin/sign-ins/evt_x", &viewer).await.expect(404, "unknown_sign_in");
    let stats = service.get_with("/admin/providers/acme/stats?hours=2", &viewer).await;
    assert_eq!(stats.body["total"], 4, "{}", stats.text);
    let counted = json!({"outcome": "refused", "error": "account_disabled", "count": 1});
    assert!(stats.body["outcomes"].as_array().unwrap().contains(&counted));
    service.get_with("/admin/providers/acme/stats?hours=0", &viewer).await.expect(400, "malformed_request");
}

#[tokio::test]
async fn an_erased_user_leaves_an_identifier_and_nothing_else() {
    let (_dir, service, secret) = mfa::enrolled().await;
    let admin = service.admin_key(Role::Admin, Some("default")).await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    let claims =
        [("email", json!("ada@example.com")), ("email_verified", json!(true)), ("name", json!("Ada Lovelace"))];
    let challenge = sign_in_as(&service, "subject-1", &claims).await;
    let user = challenge.challenged()["user_id"].as_str().unwrap().to_owned();
    let token = &challenge.body["challenge_token"];
    let tokens = mfa::verify(&service, token, &mfa::code(&service, &secret, 0)).await;
    let access = tokens.signed_in()["access_token"].as_str().unwrap().to_owned();
    service.clock.advance(Duration::from_secs(60));
    let open = mfa::challenge(&service).await;
    mfa::verify(&service, &open, "000000").await.expect(400, "invalid_mfa_code");

    let path = format!("/admin/users/{user}");
    let export = service.post_with(&format!("{path}/export"), &editor, json!({})).await;
    assert_eq!(export.body["user"]["email"], "ada@example.com", "{}", export.text);
    assert_eq!(export.body["identities"][0]["subject"], "subject-1");
    assert!(export.body["sign_ins"].as_array().unwrap().len() >= 3);
    assert_eq!(export.body["factors"].as_array().unwrap().len(), 1);
    let records = &export.body["records"];
    assert!(records["mfa_attempts"][0]["at"].is_string(), "{}", export.text);
    assert_eq!(records["challenges"][0]["methods"], "totp", "{}", export.text);
    assert!(records["refresh_tokens"][0]["expires_at"].is_string(), "{}", export.text);
    assert!(!export.text.contains("hash") && !export.text.contains("sealed"), "{}", export.text);

    service.delete_with(&path, &editor).await.expect(403, "admin_role_insufficient");
    assert_eq!(service.delete_with(&path, &admin).await.status, 200);
    service.delete_with(&path, &admin).await.expect(404, "unknown_user");
    let status = json!({"status": "active"});
    service.put_with(&format!("{path}/status"), &admin, status).await.expect(404, "unknown_user");
    let left = service.get_with(&path, &admin).await;
    assert_eq!((&left.body["status"], left.body.get("email")), (&json!("deleted"), None), "{}", left.text);
    assert_eq!(ids(&service.get_with("/admin/users", &admin).await), [""; 0]);
    assert_eq!(ids(&service.get_with("/admin/users?status=deleted", &admin).await), [&*user]);

    // The store's file as a whole: no word of the user is in any table.
    let bytes = user.parse::<UserId>().unwrap();
    let hex = data_encoding::HEXUPPER.encode(bytes.as_bytes());
    for (table, text) in dump(&service).await {
        for word in ["ada@example.com", "Ada Lovelace", "subject-1"] {
            assert!(!text.contains(word), "{word} is still in {table}");
        }
        assert!(table == "users" || !text.contains(&hex), "{table} still has rows of the user");
        assert!(table == "audit" || !text.contains(&user), "{table} still names the user");
    }
    let log = service.get_with(&format!("/admin/audit?target={user}"), &admin).await;
    assert_eq!(log.body["items"].as_array().unwrap().len(), 2);
    for word in ["ada@example.com", "Ada Lovelace", "subject-1"] {
        assert!(!log.text.contains(word), "{word}");
    }

    service.get_with("/auth/me", &access).await.expect(401, "session_ended");
    let refresh = json!({"refresh_token": tokens.body["refresh_token"]});
    service.post("/auth/refresh", refresh).await.expect(400, "invalid_refresh_token");
    mfa::verify(&service, &open, &mfa::code(&service, &secret, 0)).await.expect(400, "invalid_challenge");
    let again = sign_in_as(&service, "subject-1", &[]).await;
    assert_ne!(again.signed_in()["user_id"], json!(user));
}
