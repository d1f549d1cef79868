//! How long sessions live, how many there are, and what their user can do about them.

use std::time::Duration;

use countersign::admin::access::Role;
use serde_json::{Value, json};

use crate::support::service::{Answer, Service, Setup};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

async fn sign_in(service: &Service) -> Value {
    service.sign_in(&service.issuer.token().sign()).await.signed_in().clone()
}

async fn refresh(service: &Service, body: &Value) -> Answer {
    service.post("/auth/refresh", json!({"refresh_token": body["refresh_token"]})).await
}

async fn me(service: &Service, body: &Value) -> Answer {
    service.get_with("/auth/me", text(&body["access_token"])).await
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

async fn sessions(service: &Service, body: &Value) -> Vec<Value> {
    let answer = service.get_with("/auth/me/sessions", text(&body["access_token"])).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.body["sessions"].as_array().unwrap().clone()
}

async fn delete(service: &Service, path: &str, body: &Value) -> Answer {
    service.send(service.http().delete(service.url(path)).bearer_auth(text(&body["access_token"]))).await
}

#[tokio::test]
async fn a_session_that_is_not_refreshed_ends_and_one_that_is_goes_on() {
    let service = Service::start_with(Setup::tenant("session_idle = \"2h\"")).await;
    let (idle, mut busy) = (sign_in(&service).await, sign_in(&service).await);
    for _ in 0..3 {
        service.clock.advance(HOUR);
        busy = refresh(&service, &busy).await.signed_in().clone();
    }
    refresh(&service, &idle).await.expect(400, "invalid_refresh_token");
    assert_eq!(sessions(&service, &busy).await.len(), 1);
}

#[tokio::test]
async fn a_session_ends_with_its_absolute_lifetime_and_so_do_its_tokens() {
    let service = Service::start_with(Setup::tenant("session_ttl = \"2h\"")).await;
    let mut body = sign_in(&service).await;
    service.clock.advance(HOUR);
    body = refresh(&service, &body).await.signed_in().clone();
    service.clock.advance(HOUR - Duration::from_secs(60));
    body = refresh(&service, &body).await.signed_in().clone();
    assert_eq!(body["expires_in"], 60, "an access token does not outlive its session");
    service.clock.advance(Duration::from_secs(60));
    refresh(&service, &body).await.expect(400, "invalid_refresh_token");
    me(&service, &body).await.expect(401, "access_token_expired");
}

#[tokio::test]
async fn the_caps_of_a_policy_hold_at_every_refresh_and_the_smaller_limit_wins() {
    let dir = tempfile::tempdir().unwrap();
    let rule =
        "fn assess(s, risk) { risk.cap_refresh(7200, \"new_device\"); risk.cap_session(36000, \"new_device\"); }";
    let mut setup = Setup::with_policies(dir.path(), &[("risk/_default.rhai", rule)]);
    setup.tenant = "session_idle = \"1d\"\nsession_ttl = \"5h\"".to_owned();
    let service = Service::start_with(setup).await;
    let mut body = sign_in(&service).await;
    for _ in 0..2 {
        service.clock.advance(2 * HOUR - Duration::from_secs(1));
        body = refresh(&service, &body).await.signed_in().clone();
    }
    service.clock.advance(HOUR + Duration::from_secs(2));
    refresh(&service, &body).await.expect(400, "invalid_refresh_token");
    let body = sign_in(&service).await;
    service.clock.advance(2 * HOUR);
    refresh(&service, &body).await.expect(400, "invalid_refresh_token");
}

#[tokio::test]
async fn a_session_too_many_ends_the_oldest_of_this_user_and_of_no_other() {
    let service = Service::start_with(Setup::tenant("max_sessions = 2")).await;
    let other = service.sign_in(&service.issuer.token().subject("somebody-else").sign()).await.body;
    let mut all = Vec::new();
    for _ in 0..4 {
        service.clock.advance(Duration::from_secs(1));
        all.push(sign_in(&service).await);
    }
    for (body, lives) in all.iter().zip([false, false, true, true]) {
        let answer = me(&service, body).await;
        if lives {
            assert_eq!(answer.status, 200);
        } else {
            answer.expect(401, "session_ended");
            refresh(&service, body).await.expect(400, "invalid_refresh_token");
        }
    }
    assert_eq!(me(&service, &other).await.status, 200);
    assert_eq!(sessions(&service, &all[3]).await.len(), 2);
    // Many at once: whatever their order in the batch, two are left.
    service.clock.advance(Duration::from_secs(1));
    let tokens: Vec<String> = (0..20).map(|_| service.issuer.token().sign()).collect();
    let answers = futures_util::future::join_all(tokens.iter().map(|token| service.sign_in(token))).await;
    let mut living = Vec::new();
    for answer in &answers {
        if me(&service, answer.signed_in()).await.status == 200 {
            living.push(answer.body.clone());
        }
    }
    assert_eq!(living.len(), 2);
    assert_eq!(sessions(&service, &living[0]).await.len(), 2);
}

#[tokio::test]
async fn a_user_lists_the_sessions_and_ends_one_or_all() {
    let service = Service::start().await;
    let (one, two, three) = (sign_in(&service).await, sign_in(&service).await, sign_in(&service).await);
    let other = service.sign_in(&service.issuer.token().subject("somebody-else").sign()).await.body;
    let listed = sessions(&service, &two).await;
    assert_eq!(listed.len(), 3);
    assert_eq!(listed.iter().filter(|s| s["current"] == true).count(), 1);
    assert_eq!(listed[0]["provider"], "acme");
    let current = listed.iter().find(|s| s["current"] == true).unwrap();

    let foreign = sessions(&service, &other).await;
    for id in [text(&foreign[0]["id"]), "ses_x", "usr_1", "ses_00000000000000000000000000"] {
        delete(&service, &format!("/auth/me/sessions/{id}"), &two).await.expect(404, "unknown_session");
    }
    assert_eq!(me(&service, &other).await.status, 200);

    let path = format!("/auth/me/sessions/{}", text(&current["id"]));
    assert_eq!(delete(&service, &path, &one).await.status, 200);
    me(&service, &two).await.expect(401, "session_ended");
    delete(&service, &path, &one).await.expect(404, "unknown_session");

    let fresh = sign_in(&service).await;
    assert_eq!(delete(&service, "/auth/me/sessions?keep_current=true", &fresh).await.status, 200);
    for body in [&one, &three] {
        me(&service, body).await.expect(401, "session_ended");
        refresh(&service, body).await.expect(400, "invalid_refresh_token");
    }
    assert_eq!(sessions(&service, &fresh).await.len(), 1);
    assert_eq!(delete(&service, "/auth/me/sessions", &fresh).await.status, 200);
    me(&service, &fresh).await.expect(401, "session_ended");
    assert_eq!(me(&service, &other).await.status, 200);
    delete(&service, "/auth/me/sessions?keep_current=perhaps", &other).await.expect(400, "malformed_request");
}

#[tokio::test]
async fn a_reuse_leaves_a_record_that_the_next_sign_in_sees() {
    let service = Service::start().await;
    let first = sign_in(&service).await;
    refresh(&service, &first).await.signed_in();
    service.clock.advance(DAY);
    refresh(&service, &first).await.expect(400, "refresh_token_reused");
    let user = text(&first["user_id"]).parse().unwrap();
    let codes = service.store.recorded_codes(user).await.unwrap();
    assert_eq!(codes, ["refresh_token_reused"]);
}

#[tokio::test]
async fn a_session_past_its_idle_limit_is_listed_nowhere_and_cannot_be_ended_again() {
    let service = Service::start_with(Setup::tenant("session_idle = \"2h\"")).await;
    let admin = service.admin_key(Role::Admin, Some("default")).await;
    let body = sign_in(&service).await;
    let of_user = format!("/admin/users/{}/sessions", body["user_id"].as_str().unwrap());
    let count = async |path: &str, member: &str| {
        let listed = service.get_with(path, &admin).await;
        listed.body[member].as_array().unwrap_or_else(|| panic!("{}", listed.text)).len()
    };
    let listed = service.get_with("/admin/sessions", &admin).await;
    let id = listed.body["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!((count("/admin/sessions", "items").await, count(&of_user, "sessions").await), (1, 1));
    service.clock.advance(Duration::from_secs(2 * 3600 + 1));
    assert_eq!((count("/admin/sessions", "items").await, count(&of_user, "sessions").await), (0, 0));
    let ended = service.delete_with(&format!("/admin/sessions/{id}"), &admin).await;
    ended.expect(404, "unknown_session");
}
