//! Administration of invitations and of subjects that a provider changed.

use std::time::Duration;

use countersign::admin::access::Role;
use serde_json::{Value, json};

use super::{mail, sign_in};
use crate::support::service::{Service, Setup};

async fn inviting() -> (Service, String) {
    let service = Service::start_with(Setup::provider("provisioning = \"invite\"")).await;
    let key = service.admin_key(Role::Editor, Some("default")).await;
    (service, key)
}

#[tokio::test]
async fn an_administrator_invites_lists_and_takes_back() {
    let (service, key) = inviting().await;
    let body = json!({"email": "Ada@example.com", "note": "first"});
    let made = service.post_with("/admin/invitations", &key, body.clone()).await;
    assert_eq!((made.status, &made.body["state"]), (200, &json!("open")), "{}", made.text);
    service.post_with("/admin/invitations", &key, body).await.expect(409, "already_invited");
    service.clock.advance(Duration::from_secs(1));
    let by_subject = json!({"provider": "acme", "subject": "eve", "expires_in": 60});
    let second = service.post_with("/admin/invitations", &key, by_subject).await;
    assert_eq!(second.body["issuer"], service.issuer.url.as_str(), "{}", second.text);
    let page = service.get_with("/admin/invitations?limit=1", &key).await;
    assert_eq!(page.body["items"][0]["id"], second.body["id"]);
    let cursor = page.body["next_cursor"].as_str().unwrap();
    let page = service.get_with(&format!("/admin/invitations?limit=1&cursor={cursor}"), &key).await;
    assert_eq!((&page.body["items"][0]["id"], page.body.get("next_cursor")), (&made.body["id"], None));
    let (_, body) = sign_in(&service, mail(service.issuer.token().subject("ada"), "ada@example.com", true)).await;
    assert_eq!(body["user_id"], made.body["user_id"]);
    let path = |answer: &Value| format!("/admin/invitations/{}", answer["id"].as_str().unwrap());
    service.delete_with(&path(&made.body), &key).await.expect(404, "unknown_invitation");
    assert_eq!(service.delete_with(&path(&second.body), &key).await.status, 200);
    service.sign_in(&service.issuer.token().subject("eve").sign()).await.expect(403, "user_not_provisioned");
    let page = service.get_with("/admin/invitations", &key).await;
    assert_eq!(page.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(page.body["items"][0]["state"], "accepted");
    let log = service.get_with("/admin/audit?action=invitation.", &key).await;
    assert_eq!(log.body["items"].as_array().unwrap().len(), 3, "{}", log.text);
    assert!(!log.text.to_lowercase().contains("ada@example.com"), "the log outlives the person");
}

#[tokio::test]
async fn an_invitation_says_whom_and_stays_in_its_tenant() {
    let (service, key) = inviting().await;
    for wrong in [
        json!({}),
        json!({"email": "no address"}),
        json!({"email": "ada@example.com", "subject": "ada"}),
        json!({"subject": "ada"}),
        json!({"provider": "acme", "subject": ""}),
        json!({"provider": "acme", "subject": "ada", "issuer": "https://elsewhere.example"}),
        json!({"email": "ada@example.com", "expires_in": 59}),
        json!({"email": "ada@example.com", "expires_in": u64::MAX}),
        json!({"email": "ada@example.com", "note": "x".repeat(257)}),
    ] {
        service.post_with("/admin/invitations", &key, wrong).await.expect(400, "malformed_request");
    }
    let nobody = json!({"email": "ada@example.com", "provider": "nobody"});
    service.post_with("/admin/invitations", &key, nobody).await.expect(404, "unknown_provider");
    let viewer = service.admin_key(Role::Viewer, Some("default")).await;
    let ada = json!({"email": "ada@example.com"});
    service.post_with("/admin/invitations", &viewer, ada.clone()).await.expect(403, "admin_role_insufficient");
    let foreign = service.admin_key(Role::Admin, Some("other")).await;
    let theirs = service.post_with("/admin/invitations", &foreign, ada).await;
    let path = format!("/admin/invitations/{}", theirs.body["id"].as_str().unwrap());
    service.delete_with(&path, &key).await.expect(404, "unknown_invitation");
    assert_eq!(service.get_with("/admin/invitations", &key).await.body["items"], json!([]));
    let token = mail(service.issuer.token(), "ada@example.com", true);
    service.sign_in(&token.sign()).await.expect(403, "user_not_provisioned");
}

/// Apple's `transfer_sub`: the same person comes with another subject after a move of teams.
#[tokio::test]
async fn supabase_2162_transfer_sub_an_identity_gets_its_new_subject_and_the_old_one_is_nobodys() {
    let service = Service::start().await;
    let key = service.admin_key(Role::Editor, Some("default")).await;
    let (_, body) = sign_in(&service, service.issuer.token().subject("old")).await;
    sign_in(&service, service.issuer.token().subject("taken")).await;
    let user = body["user_id"].as_str().unwrap();
    let path = format!("/admin/users/{user}/identities/migrate");
    let migrate = |old: &str, new: &str| json!({"provider": "acme", "old_subject": old, "new_subject": new});
    service.post_with(&path, &key, migrate("nobody", "new")).await.expect(404, "unknown_identity");
    service.post_with(&path, &key, migrate("taken", "new")).await.expect(404, "unknown_identity");
    service.post_with(&path, &key, migrate("old", "taken")).await.expect(409, "identity_taken");
    service.post_with(&path, &key, migrate("old", "")).await.expect(400, "malformed_request");
    let nobody = "/admin/users/usr_x/identities/migrate";
    service.post_with(nobody, &key, migrate("old", "new")).await.expect(404, "unknown_user");
    let foreign = service.admin_key(Role::Admin, Some("other")).await;
    service.post_with(&path, &foreign, migrate("old", "new")).await.expect(404, "unknown_identity");
    let done = service.post_with(&path, &key, migrate("old", "new")).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let (_, moved) = sign_in(&service, service.issuer.token().subject("new")).await;
    assert_eq!(moved["user_id"], user);
    let (_, stranger) = sign_in(&service, service.issuer.token().subject("old")).await;
    assert_ne!(stranger["user_id"], user);
}
