//! Several servers on one store: they change to new policies together, and sign-ins are decided by bundles that
//! somebody signed where that is asked for.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use countersign::admin::access::Role;
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Row};
use tempfile::TempDir;

use crate::support::service::{Answer, Service, Setup, copy_dir};

/// Much longer than servers may take to follow, on a machine as slow as it gets.
const SOON: Duration = Duration::from_secs(90);

fn shipped() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/policies"))
}

/// A folder whose rules for tenant `default` give this score to everybody.
fn scoring(points: i64) -> TempDir {
    let dir = TempDir::new().unwrap();
    copy_dir(shipped(), dir.path());
    std::fs::remove_dir_all(dir.path().join("examples")).unwrap();
    let script = format!(
        "fn assess(s, risk) {{ if s.history.sign_ins_total >= 0 {{ risk.add({points}, \"new_network\"); }} }}"
    );
    std::fs::write(dir.path().join("risk/default.rhai"), script).unwrap();
    let case = format!("[[case]]\nname = \"always\"\nexpect = {{ score = {points} }}\n");
    std::fs::write(dir.path().join("risk/default.test.toml"), case).unwrap();
    dir
}

fn countersign(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_countersign")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &*String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
fn fine(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A command on the store of a server.
fn policy(service: &Service, arguments: &[&str]) -> Output {
    let config = service.dir.path().join("countersign.toml");
    countersign(&[&["policy"], arguments, &["--config", config.to_str().unwrap()]].concat())
}

/// A draft through the API, as a folder holds it.
async fn draft(service: &Service, key: &str, dir: &Path, signature: Option<&str>) -> Answer {
    let bundle = countersign::scripts::bundle::read_folder(dir).unwrap();
    let mut body = json!({"files": bundle.files(), "note": "a test"});
    if let Some(signature) = signature {
        body["signature"] = signature.into();
    }
    service.post_with("/admin/policies", key, body).await
}

async fn activated(service: &Service, key: &str, dir: &Path) -> Value {
    let kept = draft(service, key, dir, None).await;
    assert_eq!(kept.status, 200, "{}", kept.text);
    activate(service, key, kept.body["id"].as_str().unwrap()).await.body
}

async fn activate(service: &Service, key: &str, id: &str) -> Answer {
    service.post_with(&format!("/admin/policies/{id}/activate"), key, json!({})).await
}

async fn score(service: &Service) -> i64 {
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    answer.body["risk_assessment"]["score"].as_i64().unwrap_or_else(|| panic!("{}", answer.text))
}

async fn status(service: &Service, key: &str) -> Value {
    let answer = service.get_with("/admin/policies/status", key).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.body
}

/// Asks until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !is_so().await {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn nodes(status: &Value) -> &Vec<Value> {
    status["nodes"].as_array().unwrap()
}

/// Another hand on the store.
async fn sql(service: &Service, statement: &'static str) -> i64 {
    let file = service.dir.path().join("db/countersign.db");
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    sqlx::query(statement).fetch_one(&mut connection).await.unwrap().get(0)
}

#[tokio::test]
async fn three_servers_change_together_and_a_server_that_ends_is_not_waited_for() {
    let one = Service::start().await;
    let (two, three) = (one.second_node(Setup::default()).await, one.second_node(Setup::default()).await);
    let key = one.admin_key(Role::Editor, Some("default")).await;
    assert_eq!(score(&one).await, 0);
    let seq = activated(&one, &key, scoring(7).path()).await["seq"].as_i64().unwrap();
    for service in [&one, &two, &three] {
        until("all decide by it", async || score(service).await == 7).await;
    }
    until("all say so", async || {
        let status = status(&two, &key).await;
        nodes(&status).len() == 3 && nodes(&status).iter().all(|node| node["seq"] == seq && node["ready"] == seq)
    })
    .await;
    let told = status(&one, &key).await;
    assert_eq!((&told["switch"]["seq"], &told["switch"]["laggards"]), (&seq.into(), &json!([])));

    let ended = three.stop().await;
    assert_eq!(nodes(&status(&one, &key).await).len(), 2, "it said good-bye");
    activated(&two, &key, scoring(9).path()).await;
    for service in [&one, &two] {
        until("both decide by it", async || score(service).await == 9).await;
    }
    assert_eq!(status(&one, &key).await["switch"]["laggards"], json!([]));
    // What is in force is what a server begins with.
    let again = ended.start_again(Setup::default()).await;
    assert_eq!(score(&again).await, 9);
}

#[tokio::test]
async fn a_server_that_is_not_ready_is_waited_for_ten_seconds_and_then_named() {
    let service = Service::start().await;
    let key = service.admin_key(Role::Editor, Some("default")).await;
    assert_eq!(score(&service).await, 0);
    sql(
        &service,
        "INSERT INTO policy_nodes (node, seq, ready, seen_at) SELECT 'nod_slow', 0, 0, max(seen_at) FROM policy_nodes \
         RETURNING seq",
    )
    .await;
    let seq = activated(&service, &key, scoring(7).path()).await["seq"].as_i64().unwrap();
    until("this one is ready", async || {
        nodes(&status(&service, &key).await).iter().any(|node| node["ready"] == seq)
    })
    .await;
    let told = status(&service, &key).await;
    assert!(told.get("switch").is_none() && nodes(&told).iter().all(|node| node["seq"] == 0), "{told:#}");
    assert_eq!(score(&service).await, 0, "the others are waited for");
    let shown = policy(&service, &["status"]);
    assert!(text(&shown).contains("waits for the others"), "{}", text(&shown));
    // A server that starts now begins with what is in force, not with what is about to be.
    let other = service.second_node(Setup::default()).await;
    assert_eq!(score(&other).await, 0);

    service.clock.advance(Duration::from_secs(11));
    for one in [&service, &other] {
        until("it is not waited for any longer", async || score(one).await == 7).await;
    }
    let told = status(&service, &key).await;
    assert_eq!((&told["switch"]["seq"], &told["switch"]["laggards"]), (&seq.into(), &json!(["nod_slow"])));
    let shown = policy(&service, &["status"]);
    assert!(text(&shown).contains("nod_slow was not ready"), "{}", text(&shown));
    // A server that has been silent for half a minute is dead, and nobody waits for it again.
    service.clock.advance(Duration::from_secs(31));
    activated(&service, &key, scoring(8).path()).await;
    until("at once", async || score(&service).await == 8).await;
}

/// A folder for keys, and a new key with its public half.
fn new_key() -> (TempDir, String, String) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("key.pem").to_str().unwrap().to_owned();
    let public = fine(&countersign(&["policy", "sign", "--new-key", &file]));
    (dir, file, public)
}

fn signature(dir: &Path, key: &str) -> String {
    fine(&countersign(&["policy", "sign", dir.to_str().unwrap(), "--key", key]))
}

fn requiring(public: &str, tenants: &str) -> Setup {
    let policies_config = format!("signing_keys = [\"{public}\"]\nrequire_signature = [{tenants}]\n");
    Setup { policies_config, ..Setup::default() }
}

#[tokio::test]
async fn where_signatures_are_asked_for_only_a_signed_bundle_is_kept_and_activated() {
    let (_place, file, public) = new_key();
    let (_other_place, other_file, other_public) = new_key();
    assert_ne!(public, other_public);
    assert_eq!(fine(&countersign(&["policy", "sign", "--key", &file, "--public-key"])), public);
    assert_eq!(
        countersign(&["policy", "sign", "--new-key", &file]).status.code(),
        Some(2),
        "nothing is overwritten"
    );

    let service = Service::start_with(requiring(&public, "\"default\"")).await;
    let key = service.admin_key(Role::Editor, Some("default")).await;
    let (seven, eight) = (scoring(7), scoring(8));
    let good = signature(seven.path(), &file);
    let flipped =
        if let Some(rest) = good.strip_prefix('A') { format!("B{rest}") } else { format!("A{}", &good[1..]) };
    for wrong in [
        None,
        Some(signature(seven.path(), &other_file)),
        Some(signature(eight.path(), &file)),
        Some(flipped),
        Some("nonsense".to_owned()),
        Some(String::new()),
    ] {
        let refused = draft(&service, &key, seven.path(), wrong.as_deref()).await;
        refused.expect(400, "policy_signature_refused");
    }
    let unsigned = policy(&service, &["activate", seven.path().to_str().unwrap(), "--tenant", "default"]);
    assert_eq!(unsigned.status.code(), Some(1), "{}", text(&unsigned));
    assert!(text(&unsigned).contains("is not signed"), "{}", text(&unsigned));
    // What is active for all is active for this tenant.
    let for_all = policy(&service, &["activate", seven.path().to_str().unwrap()]);
    assert_eq!(for_all.status.code(), Some(1), "{}", text(&for_all));

    let kept = draft(&service, &key, seven.path(), Some(&good)).await;
    assert_eq!((kept.status, &kept.body["signed"]), (200, &true.into()), "{}", kept.text);
    let id = kept.body["id"].as_str().unwrap();
    assert_eq!(activate(&service, &key, id).await.status, 200);
    until("it decides", async || score(&service).await == 7).await;
    let signed = signature(eight.path(), &file);
    let arguments = ["activate", eight.path().to_str().unwrap(), "--tenant", "default", "--signature", &signed];
    fine(&policy(&service, &arguments));
    until("it decides", async || score(&service).await == 8).await;

    // Somebody who writes to the store puts something else there.
    sql(&service, "UPDATE policy_bundles SET signature = zeroblob(64) RETURNING 1").await;
    let back = service.post_with("/admin/policies/rollback", &key, json!({})).await;
    back.expect(400, "policy_signature_refused");
    let service = service.restart(requiring(&public, "\"*\"")).await;
    assert_eq!(score(&service).await, 0, "the operator's own folder decides");
    let shown = policy(&service, &["status"]);
    assert!(text(&shown).contains("error:") && text(&shown).contains("signature"), "{}", text(&shown));
}

#[tokio::test]
async fn what_keeps_failing_is_taken_back_to_the_nearest_bundle_that_may_be_active() {
    let (_place, file, public) = new_key();
    let service = Service::start_with(requiring(&public, "\"default\"")).await;
    let key = service.admin_key(Role::Editor, Some("default")).await;
    let failing = scoring(9);
    // What the generated facts do not have: this very issuer.
    let script = "fn assess(s, risk) { if s.provider.id == \"acme\" && s.claims.has(\"aud\") { throw \"boom\"; } \
                  risk.add(9, \"new_network\"); }";
    std::fs::write(failing.path().join("risk/default.rhai"), script).unwrap();
    let settings = std::fs::read_to_string(failing.path().join("policy.toml")).unwrap();
    std::fs::write(failing.path().join("policy.toml"), settings.replace("errors = 20", "errors = 3")).unwrap();
    let mut ids = Vec::new();
    for dir in [scoring(7), scoring(8), failing] {
        let kept = draft(&service, &key, dir.path(), Some(&signature(dir.path(), &file))).await;
        ids.push(kept.body["id"].as_str().unwrap_or_else(|| panic!("{}", kept.text)).to_owned());
        assert_eq!(activate(&service, &key, &ids[ids.len() - 1]).await.status, 200);
    }
    // The signature of the one that is second from the top.
    sql(
        &service,
        "UPDATE policy_bundles SET signature = NULL WHERE id = \
         (SELECT bundle FROM policy_activations ORDER BY seq DESC LIMIT 1 OFFSET 1) RETURNING 1",
    )
    .await;
    let mut told = Value::Null;
    until("taken back", async || {
        service.sign_in(&service.issuer.token().sign()).await;
        told = status(&service, &key).await;
        told["active"][0]["actor"] == "system"
    })
    .await;
    let back = &told["active"][0];
    assert_eq!((&back["bundle"], &back["goes_back"]), (&json!(ids[0]), &json!(true)), "{told:#}");
    let note = back["note"].as_str().unwrap();
    assert!(note.contains(&format!("; passed over {}", ids[1])), "{note}");
    let log = service.get_with("/admin/audit?action=policy.activate&limit=1", &key).await;
    let difference = json!({"bundle": {"before": ids[2], "after": ids[0]}});
    assert_eq!(
        (&log.body["items"][0]["actor"], &log.body["items"][0]["difference"]),
        (&json!("system"), &difference)
    );
    // Failures count against a user, so that each try is another one's.
    let mut number = 0;
    until("it decides", async || {
        number += 1;
        let token = service.issuer.token().subject(&format!("person-{number}")).sign();
        service.sign_in(&token).await.body["risk_assessment"]["score"] == 7
    })
    .await;
}

#[tokio::test]
async fn a_server_that_cannot_use_a_bundle_keeps_the_old_one_and_the_others_go_on() {
    let (_place, file, public) = new_key();
    let one = Service::start().await;
    let strict = one.second_node(requiring(&public, "\"*\"")).await;
    let key = one.admin_key(Role::Editor, Some("default")).await;
    let seven = scoring(7);
    assert_eq!((score(&one).await, score(&strict).await), (0, 0));
    let id = activated(&one, &key, seven.path()).await["bundle"].as_str().unwrap().to_owned();
    let candidate = strict.post_with("/admin/policies/shadow", &key, json!({"bundles": [id]})).await;
    candidate.expect(400, "policy_signature_refused");
    until("one of them says why not", async || {
        nodes(&status(&one, &key).await)
            .iter()
            .any(|node| node["error"].as_str().is_some_and(|error| error.contains("is not signed")))
    })
    .await;
    assert_eq!((score(&one).await, score(&strict).await), (0, 0));
    one.clock.advance(Duration::from_secs(11));
    until("the other goes on", async || score(&one).await == 7).await;
    assert_eq!(score(&strict).await, 0);
    let told = status(&one, &key).await;
    assert_eq!(told["switch"]["laggards"].as_array().unwrap().len(), 1, "{told:#}");
    // The signature comes later, with the very same bundle.
    let kept = draft(&strict, &key, seven.path(), Some(&signature(seven.path(), &file))).await;
    assert_eq!((kept.status, &kept.body["signed"]), (200, &true.into()), "{}", kept.text);
    until("it follows", async || score(&strict).await == 7).await;
}

#[tokio::test]
async fn a_bundle_that_no_server_can_use_holds_up_the_others_for_twenty_seconds_at_most() {
    let one = Service::start().await;
    let two = one.second_node(Setup::default()).await;
    let key = one.admin_key(Role::Editor, Some("default")).await;
    assert_eq!((score(&one).await, score(&two).await), (0, 0));
    sql(
        &one,
        "INSERT INTO policy_activations (scope, bundle, actor, note, at) \
         VALUES ('', 'pol_0000000000000000', 'system', '', 0) RETURNING seq",
    )
    .await;
    let seq = activated(&one, &key, scoring(7).path()).await["seq"].as_i64().unwrap();
    until("both say why not", async || {
        let told = status(&one, &key).await;
        let stuck =
            |node: &Value| node["error"].as_str().is_some_and(|error| error.contains("is not in the store"));
        nodes(&told).len() == 2 && nodes(&told).iter().all(stuck)
    })
    .await;
    one.clock.advance(Duration::from_secs(11));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!((score(&one).await, score(&two).await), (0, 0), "somebody may still be able to");
    one.clock.advance(Duration::from_secs(10));
    for service in [&one, &two] {
        until("the tenant's own comes into force", async || score(service).await == 7).await;
    }
    let told = status(&one, &key).await;
    assert_eq!(told["switch"]["seq"], seq);
    assert!(nodes(&told).iter().all(|node| node["error"].is_string()), "what cannot be used is told: {told:#}");
}

#[tokio::test]
async fn a_bundle_of_another_tenant_is_not_told_to_whoever_keeps_the_very_same() {
    let service = Service::start().await;
    let mine = service.admin_key(Role::Editor, Some("default")).await;
    let other = service.admin_key(Role::Editor, Some("other")).await;
    let dir = scoring(7);
    for _ in 0..2 {
        assert_eq!(draft(&service, &mine, dir.path(), None).await.status, 200);
    }
    let refused = draft(&service, &other, dir.path(), None).await;
    refused.expect(400, "policy_unusable");
    assert!(!["a test", "csk_", "default"].iter().any(|word| refused.text.contains(word)), "{}", refused.text);
}
