//! The life of policies from the outside: explained, checked, replayed, activated, taken back.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use countersign::ids::EventId;
use countersign::policy::ports::PolicyStore;
use serde_json::Value;
use sqlx::{ConnectOptions, Row};
use tempfile::TempDir;

use crate::mfa::enrol;
use crate::support::service::{Service, Setup, copy_dir};

/// Much longer than a server may take to follow, on a machine as slow as it gets.
const SOON: Duration = Duration::from_secs(60);

fn shipped() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/policies"))
}

/// The shipped policies with these files over them.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    copy_dir(shipped(), dir.path());
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn policy(service: &Service, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_countersign"))
        .arg("policy")
        .args(arguments)
        .arg("--config")
        .arg(service.dir.path().join("countersign.toml"))
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &*String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
fn fine(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&fine(output)).unwrap()
}

/// The identifiers of recorded sign-ins, oldest first, by a replay that denies all of them.
fn recorded(service: &Service) -> Vec<String> {
    let denying = folder(&[("risk/_default.rhai", r#"fn assess(s, risk) { risk.deny("new_device"); }"#)]);
    let report =
        policy(service, &["replay", "--json", "--since", "4000d", "--candidate", denying.path().to_str().unwrap()]);
    let mut ids: Vec<String> = json(&report)["examples"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|example| example["sign_ins"].as_array().unwrap().clone())
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

/// Another hand on the store: gives the first column of the first row.
async fn sql(service: &Service, statement: &'static str) -> Vec<u8> {
    let file = service.dir.path().join("db/countersign.db");
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    sqlx::query(statement).fetch_one(&mut connection).await.unwrap().get(0)
}

const DEFAULT: &str = "risk/_default.rhai";

#[tokio::test]
async fn authentik_25660_a_decision_is_explained_with_the_facts_that_caused_the_points() {
    let service = Service::start().await;
    service.sign_in_from(&service.issuer.token().sign(), "one/1", "device-1").await.signed_in();
    service.clock.advance(Duration::from_secs(1));
    service.sign_in_from(&service.issuer.token().sign(), "two/1", "device-2").await.signed_in();
    let ids = recorded(&service);
    assert_eq!(ids.len(), 2);
    let explained = json(&policy(&service, &["explain", &ids[1], "--json"]));
    assert_eq!(
        (&explained["score"], &explained["level"], &explained["action"]),
        (&25.into(), &"low".into(), &"allow".into())
    );
    let step = &explained["steps"][0];
    assert_eq!((&step["code"], &step["points"]), (&"new_device".into(), &25.into()));
    assert_eq!(step["because"]["history.device"], "new");
    assert!(step["line"].is_i64());
    let told = fine(&policy(&service, &["explain", &ids[1]]));
    assert!(told.contains("+25  new_device") && told.contains("history.device is new"), "{told}");
    let stored = std::fs::read(service.dir.path().join("db/countersign.db-wal")).unwrap();
    for secret in ["device-2", "127.0.0.1", "two/1"] {
        assert!(!stored.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret} is in the store");
    }
    let other = policy(&service, &["explain", &ids[1], "--tenant", "other"]);
    assert_eq!(other.status.code(), Some(1), "{}", text(&other));
    let unknown = policy(&service, &["explain", "evt_00000000000000000000000000"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", text(&unknown));
    assert_eq!(policy(&service, &["explain", "usr_1"]).status.code(), Some(2));
}

#[tokio::test]
async fn nothing_is_kept_when_the_configuration_says_so() {
    let setup = Setup { more_config: "[records]\nkeep = \"0d\"\n".to_owned(), ..Setup::default() };
    let service = Service::start_with(setup).await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    assert!(recorded(&service).is_empty());
}

#[tokio::test]
async fn records_are_removed_when_their_time_is_over() {
    let setup = Setup { more_config: "[records]\nkeep = \"1d\"\n".to_owned(), ..Setup::default() };
    let service = Service::start_with(setup).await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    assert_eq!(recorded(&service).len(), 1);
    service.clock.advance(Duration::from_secs(2 * 86_400));
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let until = Instant::now() + SOON;
    while recorded(&service).len() != 1 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(recorded(&service).len(), 1);
}

#[tokio::test]
async fn privacyidea_5435_a_replay_tells_who_would_be_asked_and_why_and_changes_nothing() {
    let service = Service::start().await;
    let _secret = enrol(&service).await;
    for n in 0..8 {
        service.clock.advance(Duration::from_secs(3600));
        service.sign_in_from(&service.issuer.token().sign(), "one/1", &format!("device-{n}")).await.signed_in();
    }
    let candidate = folder(&[(
        DEFAULT,
        "import \"lib/names\" as names;\nfn assess(s, risk) {\n  if s.history.device == \"new\" { risk.add(30, \"new_device\"); }\n  \
         if s.history.sign_ins_total > 2 { risk.require_mfa(\"privileged_user\"); }\n}\n",
    )]);
    let candidate = candidate.path().to_str().unwrap();
    let report = json(&policy(&service, &["replay", "--json", "--since", "4000d", "--candidate", candidate]));
    assert_eq!(report["sign_ins"], 9);
    assert_eq!(report["before"], serde_json::json!({"allow": 9, "mfa": 0, "deny": 0}));
    let after = &report["after"];
    assert_eq!(after["allow"].as_u64().unwrap() + after["mfa"].as_u64().unwrap(), 9, "{report:#}");
    assert!(report["newly_asked"]["sign_ins"].as_u64().unwrap() >= 6, "{report:#}");
    assert_eq!(report["newly_asked"]["users"], 1);
    assert!(report["causes"].as_array().unwrap().iter().any(|c| c["reason"] == "privileged_user"), "{report:#}");
    let example = report["examples"][0]["sign_ins"][0].as_str().unwrap();
    // What a person says of a sign-in stands in the next report.
    fine(&policy(&service, &["label", example, "bad"]));
    let report = json(&policy(&service, &["replay", "--json", "--since", "4000d", "--candidate", candidate]));
    assert_eq!(report["disputed_stopped"], serde_json::json!({"before": 0, "after": 1}), "{report:#}");
    assert!(report["newly_asked"]["of_users_who_disputed"].as_u64().unwrap() >= 6);
    let told = fine(&policy(&service, &["replay", "--since", "4000d", "--candidate", candidate]));
    assert!(told.contains("biggest causes:") && told.contains("MFA"), "{told}");
    // The same policies decide the same again, to the last sign-in.
    let same = json(&policy(
        &service,
        &["replay", "--json", "--since", "4000d", "--candidate", shipped().to_str().unwrap()],
    ));
    assert_eq!(same["before"], same["after"]);
    assert!(same["examples"].as_array().unwrap().is_empty());
    service.sign_in_from(&service.issuer.token().sign(), "one/1", "device-1").await.signed_in();
}

#[tokio::test]
async fn a_candidate_that_reads_what_is_not_kept_is_told() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let candidate = folder(&[(
        DEFAULT,
        "fn assess(s, risk) { if s.request.ip == \"10.0.0.1\" { risk.deny(\"new_device\"); } }",
    )]);
    let path = candidate.path().to_str().unwrap();
    let report = json(&policy(&service, &["replay", "--json", "--since", "4000d", "--candidate", path]));
    assert_eq!((&report["read_withheld_facts"], &report["sign_ins"]), (&1.into(), &1.into()));
}

/// Signs in until the score is that, or the time is over.
async fn follows(service: &Service, score: i64) -> bool {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        let answer = service.sign_in(&service.issuer.token().sign()).await;
        if answer.body["risk_assessment"]["score"] == score {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

fn scoring(points: i64) -> TempDir {
    folder(&[
        (
            "risk/default.rhai",
            &format!(
                "fn assess(s, risk) {{ if s.history.sign_ins_total >= 0 {{ risk.add({points}, \"new_network\"); }} }}"
            ),
        ),
        ("risk/default.test.toml", &format!("[[case]]\nname = \"always\"\nexpect = {{ score = {points} }}\n")),
    ])
}

#[tokio::test]
async fn an_activation_reaches_a_running_server_and_one_command_takes_it_back() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let (seven, nine) = (scoring(7), scoring(9));
    let active =
        json(&policy(&service, &["activate", seven.path().to_str().unwrap(), "--json", "--note", "a try"]));
    assert_eq!(active["previous"], Value::Null);
    assert!(follows(&service, 7).await);
    let seven_id = active["bundle"].as_str().unwrap().to_owned();
    fine(&policy(&service, &["activate", nine.path().to_str().unwrap(), "--tenant", "default"]));
    assert!(follows(&service, 9).await, "a tenant's own comes before the one for all");
    // Going back from the tenant's first activation: it has none of its own any more.
    let back = json(&policy(&service, &["rollback", "--tenant", "default", "--json"]));
    assert_eq!(back["bundle"], Value::Null);
    assert!(follows(&service, 7).await);
    fine(&policy(&service, &["rollback"]));
    assert!(follows(&service, 0).await, "before the first activation there was the folder");
    fine(&policy(&service, &["rollback", "--to", &seven_id]));
    assert!(follows(&service, 7).await);
    let never = policy(&service, &["rollback", "--to", "pol_0000000000000000"]);
    assert_eq!(never.status.code(), Some(2), "{}", text(&never));
    let status = json(&policy(&service, &["status", "--json"]));
    let node = &status["nodes"][0];
    assert_eq!((&node["seq"], &node["error"]), (&5.into(), &Value::Null), "{status:#}");
    let states: Vec<&str> =
        status["versions"].as_array().unwrap().iter().map(|v| v["state"].as_str().unwrap()).collect();
    assert_eq!(states.iter().filter(|s| **s == "active").count(), 1);
    assert_eq!(states.iter().filter(|s| **s == "retired").count(), 1);
    let differences = policy(&service, &["diff", &seven_id, nine.path().to_str().unwrap()]);
    assert_eq!(differences.status.code(), Some(1));
    assert!(text(&differences).contains("+fn assess(s, risk) { if s.history.sign_ins_total >= 0 { risk.add(9"));
    // Another server on the same store follows from its start.
    let service = service.restart(Setup::default()).await;
    assert!(follows(&service, 7).await);
}

/// What two servers and a day of changes leave behind: going back never meets what was taken back.
#[tokio::test]
async fn going_back_twice_goes_further_back() {
    let service = Service::start().await;
    let bundles: Vec<TempDir> = [1, 2, 3, 4].into_iter().map(scoring).collect();
    let activate = |folder: &TempDir| {
        let made = json(&policy(&service, &["activate", folder.path().to_str().unwrap(), "--json"]));
        made["bundle"].as_str().unwrap().to_owned()
    };
    let back = |to: Option<&str>| {
        let to: Vec<&str> = to.into_iter().flat_map(|id| ["--to", id]).collect();
        let went = json(&policy(&service, &[&["rollback", "--json"], &to[..]].concat()));
        assert_eq!(went["goes_back"], true);
        went["bundle"].as_str().map(str::to_owned)
    };
    let ids: Vec<String> = bundles.iter().map(activate).collect();
    assert_eq!(back(None).as_ref(), Some(&ids[2]));
    assert_eq!(back(None).as_ref(), Some(&ids[1]), "not forward to what was taken back");
    // A new activation stands on what is in force.
    assert_eq!(activate(&bundles[3]), ids[3]);
    assert_eq!(back(None).as_ref(), Some(&ids[1]));
    // Straight to one that stands below, and to one that was taken back.
    assert_eq!(back(Some(&ids[0])).as_ref(), Some(&ids[0]));
    assert_eq!(back(Some(&ids[2])).as_ref(), Some(&ids[2]));
    assert_eq!(back(None).as_ref(), Some(&ids[0]));
    assert_eq!(back(None), None, "the folder is under all");
    let nowhere = policy(&service, &["rollback"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere).contains("there is nothing to go back to"), "{}", text(&nowhere));
}

#[tokio::test]
async fn what_does_not_pass_the_gates_never_becomes_active() {
    let service = Service::start().await;
    let case = "[[case]]\nname = \"x\"\nexpect = { score = 0 }\n";
    for (files, wanted) in [
        (vec![(DEFAULT, "fn assess(s, risk) { risk.add(1, ; }")], "risk/_default.rhai:1:"),
        // A wrong name shows only when the branch runs: the generated facts reach it.
        (
            vec![
                (
                    "risk/acme.rhai",
                    "fn assess(s, risk) {\n  if s.history.travel == \"impossible\" { let x = s.history.known_devise; }\n}",
                ),
                ("risk/acme.test.toml", case),
            ],
            "risk/acme.rhai:2:",
        ),
        // What is not known is not false.
        (
            vec![(
                "risk/acme.rhai",
                "fn assess(s, risk) { if !s.history.known_country { risk.add(1, \"new_country\"); } }",
            )],
            "history.known_country",
        ),
        (vec![("risk/acme.rhai", "fn assess(s, risk) { risk.deny(\"new_device\"); }")], "denies every sign-in"),
        (vec![("risk/acme.rhai", "fn assess(s, risk) { if s.request.asn == 0 { loop {} } }")], "operations"),
        (
            vec![("risk/_default.test.toml", "[[case]]\nname = \"wrong\"\nexpect = { score = 99 }\n")],
            "a case fails",
        ),
        (vec![("risk/_default.test.toml", case)], "of the reasons"),
        (
            vec![("mapping/default.rhai", "fn map(s, out) { out.email(s.claims.raw(\"groups\"), true); }")],
            "mapping/default.rhai:1:",
        ),
    ] {
        let dir = folder(&files);
        let refused = policy(&service, &["activate", dir.path().to_str().unwrap()]);
        assert!(matches!(refused.status.code(), Some(1 | 2)), "{files:?}: {}", text(&refused));
        assert!(text(&refused).contains(wanted), "{wanted}: {}", text(&refused));
    }
    let status = json(&policy(&service, &["status", "--json"]));
    assert!(status["active"].as_array().unwrap().is_empty(), "{status:#}");
}

#[tokio::test]
async fn a_bundle_that_was_changed_in_the_store_is_not_used() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let seven = scoring(7);
    let active = json(&policy(&service, &["activate", seven.path().to_str().unwrap(), "--json"]));
    assert!(follows(&service, 7).await);
    let id = active["bundle"].as_str().unwrap();
    let before = service.store.find_bundle(id).await.unwrap().unwrap().0;
    assert_eq!(before.id(), id);
    sql(&service, "UPDATE policy_bundles SET files = replace(files, 'risk.add(7', 'risk.add(0') RETURNING sha256")
        .await;
    assert!(service.store.find_bundle(id).await.is_err());
    // The verified copy on disk is what a new server uses.
    let service = service.restart(Setup::default()).await;
    assert!(follows(&service, 7).await);
    std::fs::remove_dir_all(service.dir.path().join("keys/policy-bundles")).unwrap();
    let service = service.restart(Setup::default()).await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let status = policy(&service, &["status"]);
    assert!(text(&status).contains("error:"), "{}", text(&status));
}

#[tokio::test]
async fn opa_520_a_shadow_is_counted_and_explained_and_never_seen_by_the_user() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let denying = folder(&[(DEFAULT, r#"fn assess(s, risk) { risk.deny("new_device"); }"#)]);
    let path = denying.path().to_str().unwrap();
    fine(&policy(&service, &["shadow", "--candidate", path]));
    let until = Instant::now() + SOON;
    let shadow = loop {
        service.sign_in(&service.issuer.token().sign()).await.signed_in();
        let shadow = json(&policy(&service, &["shadow", "--json"]))[0].clone();
        if shadow["evaluated"].as_u64().unwrap() > 0 || Instant::now() > until {
            break shadow;
        }
    };
    assert_eq!(shadow["evaluated"], shadow["differed"]);
    assert!(shadow["evaluated"].as_u64().unwrap() > 0, "{shadow:#}");
    let differing = sql(&service, "SELECT sign_in FROM policy_shadow_differences LIMIT 1").await;
    let id = EventId::from_bytes(differing.try_into().unwrap()).to_string();
    let explained = json(&policy(&service, &["explain", &id, "--json"]));
    assert_eq!((&explained["action"], &explained["shadow"][0]["action"]), (&"allow".into(), &"deny".into()));
    let third = policy(
        &service,
        &["shadow", "--candidate", path, "--candidate", shipped().to_str().unwrap(), "--candidate", "pol_0"],
    );
    assert_eq!(third.status.code(), Some(2), "{}", text(&third));
    fine(&policy(&service, &["shadow", "--clear"]));
    assert!(json(&policy(&service, &["shadow", "--json"])).as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_fresh_activation_whose_scripts_keep_failing_is_taken_back() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    // What the generated facts do not have: this very issuer.
    let failing = folder(&[
        (
            "risk/default.rhai",
            "fn assess(s, risk) { if s.provider.id == \"acme\" && s.request.os == () && s.claims.has(\"aud\") { throw \"boom\"; } \
         risk.add(5, \"new_network\"); }",
        ),
        ("risk/default.test.toml", "[[case]]\nname = \"x\"\nexpect = { score = 5 }\n"),
        (
            "policy.toml",
            &std::fs::read_to_string(shipped().join("policy.toml")).unwrap().replace("errors = 20", "errors = 3"),
        ),
    ]);
    fine(&policy(&service, &["activate", failing.path().to_str().unwrap()]));
    let until = Instant::now() + SOON;
    loop {
        service.sign_in(&service.issuer.token().sign()).await;
        // While the server is behind, the exit code says so.
        let status = policy(&service, &["status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        if status["active"][0]["actor"] == "system" {
            assert_eq!(status["active"][0]["bundle"], Value::Null);
            break;
        }
        assert!(Instant::now() < until, "{status:#}");
    }
    // Failures count against a user, so that each try is another one's.
    for n in 0.. {
        let subject = format!("person-{n}");
        let answer = service.sign_in(&service.issuer.token().subject(&subject).sign()).await;
        if answer.body["risk_assessment"]["score"] == 0 {
            break;
        }
        assert!(Instant::now() < until, "{}", answer.text);
    }
}

#[test]
fn the_shipped_policies_pass_the_check() {
    let output = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["policy", "check", "--dir", shipped().to_str().unwrap()])
        .output()
        .unwrap();
    let told = fine(&output);
    assert!(told.contains("risk/_default.rhai: 4"), "{told}");
    assert!(!told.contains("ERROR"), "{told}");
}

#[tokio::test]
async fn a_recorded_sign_in_becomes_a_case_that_passes() {
    let service = Service::start().await;
    service.sign_in_from(&service.issuer.token().sign(), "one/1", "device-1").await.signed_in();
    service.clock.advance(Duration::from_secs(1));
    service.sign_in_from(&service.issuer.token().sign(), "two/1", "device-2").await.signed_in();
    let ids = recorded(&service);
    let case = fine(&policy(&service, &["test", "--record", &ids[1]]));
    let own = folder(&[
        ("risk/default.rhai", &std::fs::read_to_string(shipped().join(DEFAULT)).unwrap()),
        ("risk/default.test.toml", &case),
    ]);
    let dir = own.path().to_str().unwrap();
    let junit = own.path().join("cases.xml");
    let told = fine(&policy(
        &service,
        &["test", "--dir", dir, "--coverage", "--min", "60", "--junit", junit.to_str().unwrap()],
    ));
    assert!(told.contains("% of the reasons"), "{told}");
    let xml = std::fs::read_to_string(junit).unwrap();
    assert!(xml.contains(&format!("name=\"recorded {}\"/>", ids[1])), "{xml}");
    let demanding = policy(&service, &["test", "--dir", dir, "--min", "100"]);
    assert_eq!(demanding.status.code(), Some(1), "{}", text(&demanding));
}

#[test]
fn a_new_tenant_script_passes_its_cases_and_nothing_is_overwritten() {
    let dir = folder(&[]);
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_countersign"))
            .arg("policy")
            .args(arguments)
            .args(["--dir", dir.path().to_str().unwrap()])
            .output()
            .unwrap()
    };
    fine(&run(&["new", "acme"]));
    fine(&run(&["test"]));
    fine(&run(&["check"]));
    assert_eq!(run(&["new", "acme"]).status.code(), Some(2));
    assert_eq!(run(&["new", "No Tenant"]).status.code(), Some(2));
}

#[tokio::test]
async fn a_candidate_of_more_than_30_days_is_told_everywhere() {
    let service = Service::start().await;
    fine(&policy(&service, &["shadow", "--candidate", shipped().to_str().unwrap()]));
    let young = fine(&policy(&service, &["shadow"]));
    assert!(!young.contains("warning"), "{young}");
    let bundle = json(&policy(&service, &["shadow", "--json"]))[0]["bundle"].clone();
    fine(&policy(&service, &["shadow", "--clear"]));

    // Set at the server's time, which is long before the machine's.
    let key = service.admin_key(countersign::admin::access::Role::Admin, Some("default")).await;
    service.post_with("/admin/policies/shadow", &key, serde_json::json!({"bundles": [bundle]})).await;
    let overdue = async || {
        let status = service.get_with("/admin/policies/status", &key).await;
        status.body["shadows"][0].get("overdue_days").cloned()
    };
    service.clock.advance(Duration::from_secs(30 * 86_400));
    assert_eq!(overdue().await, None);
    service.clock.advance(Duration::from_secs(86_400));
    assert_eq!(overdue().await, Some(31.into()));

    let days = json(&policy(&service, &["shadow", "--json"]))[0]["overdue_days"].as_u64();
    if countersign::clock::Clock::now(&countersign::clock::SystemClock)
        > countersign::clock::Clock::now(&service.clock)
    {
        assert!(days.unwrap() > 30);
        let told = text(&policy(&service, &["status"]));
        assert!(told.contains("warning: pol_") && told.contains("activate it or take it away"), "{told}");
        let doctor = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .arg("doctor")
            .arg("--config")
            .arg(service.dir.path().join("countersign.toml"))
            .output()
            .unwrap();
        assert!(text(&doctor).contains("has been a candidate of default for"), "{}", text(&doctor));
    }
}

#[tokio::test]
async fn a_replay_whose_time_is_up_says_so() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let file = service.dir.path().join("countersign.toml");
    let settings = countersign::config::load(&file, std::iter::empty()).unwrap();
    let (store, policies, _key) = countersign::app::open_policies(&settings).await.unwrap();
    let tenant = countersign::ids::TenantId::parse("default").unwrap();
    let candidate = policies.deciding(&tenant).await.unwrap();
    let since = countersign::clock::UnixTime::from_secs(0);
    for (limit, looked_at) in [(None, 1), (Some(Duration::ZERO), 0)] {
        let (at, entropy) = (countersign::clock::Clock::now(&service.clock), countersign::secret::SystemEntropy);
        let author = countersign::admin::audit::Author::command_line(Some(tenant.clone()), at, &entropy);
        let report = policies.replay(&tenant, &candidate, since, limit, &|_, _| {}, author).await.unwrap();
        let told = report.to_json();
        assert_eq!((told["sign_ins"].as_u64(), told["recorded"].as_u64()), (Some(looked_at), Some(1)));
        assert_eq!(told["complete"], looked_at == 1);
        assert_eq!(report.to_string().contains("Time was up"), looked_at == 0);
    }
    store.close().await;
}
