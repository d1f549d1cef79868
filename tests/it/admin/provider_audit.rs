//! Audits of providers over the API: the same attacks as `countersign provider audit`, by those who may try.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::Role;
use crate::support::issuer::TestIssuer;
use crate::support::service::{Service, Setup};
use crate::verification::users::shipped_with;

fn names<'a>(report: &'a Value, outcome: &str) -> Vec<&'a str> {
    let attacks = report["attacks"].as_array().unwrap_or_else(|| panic!("no attacks in {report}"));
    let fitting = attacks.iter().filter(|attack| attack["outcome"] == outcome);
    fitting.map(|attack| attack["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_audit_withstands_by_default_asks_nobody_and_leaves_its_record_alone() {
    let service = Service::start().await;
    let (editor, viewer) = (
        service.admin_key(Role::Editor, Some("default")).await,
        service.admin_key(Role::Viewer, Some("default")).await,
    );
    let path = "/admin/providers/acme/audit";
    service.post_with(path, &viewer, json!({})).await.expect(403, "admin_role_insufficient");
    service.post_with("/admin/providers/nobody/audit", &editor, json!({})).await.expect(404, "unknown_provider");
    let answer = service.post_with(path, &editor, json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let report = &answer.body;
    assert_eq!((&report["passed"], &report["succeeded"]), (&json!(true), &json!(0)), "{}", answer.text);
    assert!(report.get("control_problem").is_none());
    let withstood = names(report, "withstood");
    assert_eq!(report["withstood"], json!(withstood.len()));
    assert!(withstood.len() >= 55 && withstood.contains(&"alg none, no signature"), "{withstood:?}");
    assert_eq!(service.issuer.fetches.load(Ordering::SeqCst), 0);

    let log = service.get_with("/admin/audit", &viewer).await;
    let [record] = log.body["items"].as_array().unwrap().as_slice() else { panic!("{}", log.text) };
    assert_eq!((&record["action"], &record["target"]), (&json!("provider.audit"), &json!("acme")));
    assert_eq!(record["actor"], editor.split_once('.').unwrap().0);
    assert_eq!(record["difference"]["withstood"]["after"], report["withstood"]);
    let sign_ins = service.get_with("/admin/sign-ins", &viewer).await;
    assert_eq!(sign_ins.body["items"], json!([]));
    let users = service.get_with("/admin/users", &viewer).await;
    assert_eq!(users.body["items"], json!([]));
}

#[tokio::test]
async fn an_audit_finds_what_is_weak_with_the_policies_in_force_also_of_one_that_is_not_enabled_yet() {
    let service = Service::start_with(Setup::default()).await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    let settings = json!({
        "issuer": service.issuer.url, "client_ids": [TestIssuer::CLIENT], "enabled": false, "replay": "allow",
        "clock_leeway": "300s", "linking": "verified_email",
    });
    let made = service.post_with("/admin/providers", &editor, json!({"name": "weak", "settings": settings})).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let audit = || service.post_with("/admin/providers/weak/audit", &editor, json!({}));
    let report = audit().await.body;
    assert_eq!(report["passed"], false, "{report}");
    let all = [
        "expired three minutes ago",
        "the same token twice",
        "another user's address of a foreign domain, verified by the provider",
    ];
    assert_eq!(names(&report, "succeeded"), all);
    let attacks = report["attacks"].as_array().unwrap();
    let twice = attacks.iter().find(|attack| attack["name"] == "the same token twice").unwrap();
    assert!(twice["mend"].as_str().unwrap().contains("replay = \"single_use\""), "{twice}");

    // Rules that are activated in the store are the ones that are attacked: these deny everybody.
    let case = "[[case]]\nname = \"closed\"\nclaims = { sub = \"1\" }\nexpect = { reject = \"closed\" }\n";
    let closed = "fn map(s, out) { out.reject(\"closed\"); }";
    let files = shipped_with(&[("mapping/default.rhai", closed), ("mapping/default.test.toml", case)]);
    let draft = service.post_with("/admin/policies", &editor, files).await;
    assert_eq!(draft.status, 200, "{}", draft.text);
    let id = draft.body["id"].as_str().unwrap();
    let active = service.post_with(&format!("/admin/policies/{id}/activate"), &editor, json!({})).await;
    assert_eq!(active.status, 200, "{}", active.text);
    let closed = audit().await.body;
    let taken_over = "another user's address of a foreign domain, verified by the provider";
    assert!(names(&closed, "withstood").contains(&taken_over), "{closed}");
}

#[tokio::test]
async fn audits_at_once_each_have_a_report_and_a_record() {
    let service = Service::start().await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    let audit = || service.post_with("/admin/providers/acme/audit", &editor, json!({}));
    let (one, two, three) = tokio::join!(audit(), audit(), audit());
    for answer in [one, two, three] {
        assert_eq!(answer.body["passed"], true, "{}", answer.text);
    }
    let log = service.get_with("/admin/audit?action=provider.audit", &editor).await;
    assert_eq!(log.body["items"].as_array().unwrap().len(), 3);
}
