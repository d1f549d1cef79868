//! Policies through the administration API: the same gates, roles and tenants as everywhere.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Role;
use crate::support::service::{Answer, JsonBody, Service};

/// The shipped files with these over them, as a draft takes them.
pub fn files(over: &[(&str, &str)]) -> Value {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/policies"));
    let mut files = Map::new();
    for name in ["policy.toml", "reasons.toml"] {
        files.insert(name.to_owned(), std::fs::read_to_string(root.join(name)).unwrap().into());
    }
    for folder in ["mapping", "risk", "lib", "lists"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap().flatten() {
            let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            files.insert(name, std::fs::read_to_string(entry.path()).unwrap().into());
        }
    }
    for (name, text) in over {
        files.insert((*name).to_owned(), (*text).into());
    }
    json!({"files": files, "note": "a test"})
}

pub fn scoring(points: i64) -> Value {
    let script = format!(
        "fn assess(s, risk) {{ if s.history.sign_ins_total >= 0 {{ risk.add({points}, \"new_network\"); }} }}"
    );
    let case = format!("[[case]]\nname = \"always\"\nexpect = {{ score = {points} }}\n");
    files(&[("risk/default.rhai", &script), ("risk/default.test.toml", &case)])
}

#[track_caller]
pub fn fine(answer: Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.body
}

#[tokio::test]
async fn a_draft_is_tried_compared_activated_and_taken_back() {
    let service = Service::start().await;
    let key = service.admin_key(Role::Editor, Some("default")).await;
    service.sign_in_from(&service.issuer.token().sign(), "one/1", "device-1").await.signed_in();
    let draft = fine(service.post_with("/admin/policies", &key, scoring(35)).await);
    let id = draft["id"].as_str().unwrap();
    assert_eq!(
        fine(service.post_with("/admin/policies", &key, scoring(35)).await)["id"],
        *id,
        "content is the name"
    );
    let to = |what: &str| format!("/admin/policies/{id}/{what}");
    for what in ["check", "test"] {
        let report = fine(service.post_with(&to(what), &key, json!({})).await);
        assert_eq!(report["passed"], true, "{what}: {report}");
    }
    let simulated = fine(service.post_with(&to("simulate"), &key, json!({"set": {"history.device": "new"}})).await);
    assert_eq!((&simulated["report"]["score"], &simulated["report"]["action"]), (&35.into(), &"mfa".into()));
    let nonsense = json!({"set": {"history.devise": "new"}});
    service.post_with(&to("simulate"), &key, nonsense).await.expect(400, "policy_unusable");
    let replayed = fine(service.post_with(&to("replay"), &key, json!({"since_s": 86_400})).await);
    assert_eq!(replayed["report"]["sign_ins"], 1);
    assert_eq!((&replayed["report"]["recorded"], &replayed["report"]["complete"]), (&1.into(), &true.into()));
    assert_eq!(replayed["report"]["after"]["allow"], 0);
    let differs = fine(service.get_with(&to("diff"), &key).await);
    assert!(differs["report"]["diff"].as_str().unwrap().contains("risk/default.rhai"));
    fine(service.post_with("/admin/policies/shadow", &key, json!({"bundles": [id]})).await);
    let many = json!({"bundles": [id, id, id]});
    service.post_with("/admin/policies/shadow", &key, many).await.expect(400, "malformed_request");
    let active = fine(service.post_with(&to("activate"), &key, json!({"note": "on"})).await);
    assert_eq!((&active["tenant"], &active["bundle"]), (&"default".into(), &draft["id"]));
    let listed = fine(service.get_with("/admin/policies", &key).await);
    assert_eq!(listed["items"][0]["state"], "active");
    let status = fine(service.get_with("/admin/policies/status", &key).await);
    assert_eq!(status["active"][0]["bundle"], draft["id"]);
    let back = fine(service.post_with("/admin/policies/rollback", &key, json!({})).await);
    assert!(back["bundle"].is_null());
    assert_eq!(
        fine(service.get_with("/admin/policies/activations", &key).await)["items"].as_array().unwrap().len(),
        2
    );
    let audit = fine(
        service
            .get_with("/admin/audit?action=policy.", &service.admin_key(Role::Admin, Some("default")).await)
            .await,
    );
    let actions: Vec<&str> =
        audit["items"].as_array().unwrap().iter().map(|r| r["action"].as_str().unwrap()).collect();
    for wanted in ["policy.draft", "policy.shadow", "policy.activate"] {
        assert!(actions.contains(&wanted), "{actions:?}");
    }
}

#[tokio::test]
async fn what_is_not_good_enough_is_refused_with_its_place() {
    let service = Service::start().await;
    let key = service.admin_key(Role::Editor, Some("default")).await;
    let broken = files(&[("risk/default.rhai", "fn assess(s, risk) {\n risk.add(1, ; }")]);
    let answer = service.post_with("/admin/policies", &key, broken).await;
    answer.expect(400, "policy_unusable");
    assert!(answer.text.contains("risk/default.rhai:2:"), "{}", answer.text);
    for name in ["../x.rhai", "risk/../../x.rhai", "risk/x.so", "x"] {
        service.post_with("/admin/policies", &key, files(&[(name, "")])).await.expect(400, "policy_unusable");
    }
    let denying = files(&[("risk/default.rhai", "fn assess(s, risk) { risk.deny(\"new_device\"); }")]);
    let id = fine(service.post_with("/admin/policies", &key, denying).await)["id"].as_str().unwrap().to_owned();
    let refused = service.post_with(&format!("/admin/policies/{id}/activate"), &key, json!({})).await;
    refused.expect(409, "policy_not_passed");
    service.post_with("/admin/policies/rollback", &key, json!({})).await.expect(409, "policy_nothing_before");
    service.post_with("/admin/policies/pol_0/check", &key, json!({})).await.expect(404, "unknown_policy");
}

#[tokio::test]
async fn a_viewer_only_looks_and_no_tenant_reaches_anothers_policies_or_decisions() {
    let service = Service::start().await;
    let (editor, viewer) = (
        service.admin_key(Role::Editor, Some("default")).await,
        service.admin_key(Role::Viewer, Some("default")).await,
    );
    let other = service.admin_key(Role::Admin, Some("other")).await;
    let id =
        fine(service.post_with("/admin/policies", &editor, scoring(7)).await)["id"].as_str().unwrap().to_owned();
    for what in ["check", "test", "simulate", "replay", "activate"] {
        let path = format!("/admin/policies/{id}/{what}");
        let body = json!({"set": {}, "since_s": 1});
        service.post_with(&path, &viewer, body.clone()).await.expect(403, "admin_role_insufficient");
        service.post_with(&path, &other, body).await.expect(404, "unknown_policy");
    }
    service.get_with(&format!("/admin/policies/{id}/diff"), &other).await.expect(404, "unknown_policy");
    service
        .post_with("/admin/policies/shadow", &other, json!({"bundles": [id]}))
        .await
        .expect(404, "unknown_policy");
    assert!(fine(service.get_with("/admin/policies", &other).await)["items"].as_array().unwrap().is_empty());
    let everywhere = "/admin/policies?everywhere=true";
    service.post_with(everywhere, &editor, scoring(8)).await.expect(403, "admin_scope_insufficient");

    let access = service.sign_in(&service.issuer.token().sign()).await;
    let access = access.signed_in()["access_token"].as_str().unwrap().to_owned();
    let mine = fine(service.get_with("/auth/me/sign-ins", &access).await);
    let sign_in = mine["items"][0]["id"].as_str().unwrap().to_owned();
    let explained = fine(service.get_with(&format!("/admin/sign-ins/{sign_in}/explain"), &viewer).await);
    assert_eq!(explained["explanation"]["id"], *sign_in);
    let path = format!("/admin/sign-ins/{sign_in}");
    service.get_with(&format!("{path}/explain"), &other).await.expect(404, "unknown_decision");
    service.get_with("/admin/sign-ins/nonsense/explain", &viewer).await.expect(404, "unknown_decision");
    let bad = json!({"verdict": "bad"});
    service.post_with(&format!("{path}/label"), &viewer, bad.clone()).await.expect(403, "admin_role_insufficient");
    service.post_with(&format!("{path}/label"), &other, bad.clone()).await.expect(404, "unknown_decision");
    fine(service.post_with(&format!("{path}/label"), &editor, bad.clone()).await);
    // The user's own word, and nobody else's.
    fine(service.post_with(&format!("/auth/me/sign-ins/{sign_in}/label"), &access, bad.clone()).await);
    let stranger = service.sign_in(&service.issuer.token().subject("stranger").sign()).await;
    let stranger = stranger.signed_in()["access_token"].as_str().unwrap().to_owned();
    let theirs = format!("/auth/me/sign-ins/{sign_in}/label");
    service.post_with(&theirs, &stranger, bad.clone()).await.expect(404, "unknown_decision");
    assert_eq!(fine(service.get_with("/auth/me/sign-ins", &stranger).await)["items"].as_array().unwrap().len(), 1);
    let bare = service.http().post(service.url(&theirs)).json(&bad);
    service.send(bare).await.expect(401, "missing_access_token");
}
