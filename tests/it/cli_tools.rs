//! `token try`, `provider test`, `provider audit`, `doctor` and `dev-token`, as their users run them.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Row};
use tempfile::TempDir;

use crate::admin::Role;
use crate::support::service::{Service, Setup};

/// The moment at which the clock of the tests stands.
const NOW: &str = "2026-06-01T12:00:00Z";

struct Ran {
    code: i32,
    text: String,
    errors: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}{}", self.text, self.errors))
    }

    #[track_caller]
    fn ended(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{}{}", self.text, self.errors);
        self
    }
}

/// Runs the program without blocking the issuer that answers it.
async fn run(arguments: &[&str], input: &str, dir: &Path) -> Ran {
    let (arguments, input, dir) =
        (arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>(), input.to_owned(), dir.to_owned());
    tokio::task::spawn_blocking(move || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that reads no input closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            text: String::from_utf8(output.stdout).unwrap(),
            errors: String::from_utf8(output.stderr).unwrap(),
        }
    })
    .await
    .unwrap()
}

async fn try_token(service: &Service, token: &str, more: &[&str]) -> Ran {
    let mut arguments = vec!["token", "try", "-", "--at", NOW];
    arguments.extend(more);
    run(&arguments, token, service.dir.path()).await
}

/// Every row of every table, as text.
async fn contents(service: &Service) -> Vec<String> {
    let file = service.dir.path().join("db/countersign.db");
    let options = SqliteConnectOptions::new().filename(file).read_only(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let tables = sqlx::query("SELECT name FROM sqlite_master WHERE type = 'table'").fetch_all(&pool).await.unwrap();
    let mut all = Vec::new();
    for table in tables {
        let table: String = table.get(0);
        let columns = sqlx::query(AssertSqlSafe(format!("SELECT name FROM pragma_table_info('{table}')")));
        let columns = columns.fetch_all(&pool).await.unwrap();
        let columns: Vec<String> =
            columns.iter().map(|c| format!("quote(\"{}\")", c.get::<String, _>(0))).collect();
        let rows = format!("SELECT '{table} ' || {} AS r FROM \"{table}\" ORDER BY 1", columns.join(" || ',' || "));
        let rows = sqlx::query(AssertSqlSafe(rows)).fetch_all(&pool).await.unwrap();
        all.extend(rows.iter().map(|r| r.get::<String, _>(0)));
    }
    pool.close().await;
    all
}

fn failed(report: &Value, list: &str) -> Vec<String> {
    let lines = report[list].as_array().unwrap();
    let failed = lines.iter().filter(|l| l["status"] == "fail" || l["status"] == "failed");
    failed.map(|l| l["check"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kratos_391_token_try_walks_to_the_decision_and_writes_nothing() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().subject("sub-4711").sign()).await.signed_in();
    let token = service.issuer.token().subject("sub-4711").claim("email", "ada@example.com").sign();
    let before = contents(&service).await;
    assert!(before.iter().any(|row| row.starts_with("replays ")), "{before:?}");

    let tried = try_token(&service, &token, &["--json", "--device-id", "laptop", "--country", "SE"]).await;
    let report = tried.ended(0).json();
    assert_eq!(report["outcome"], "signed_in");
    assert_eq!(report["provider"], "acme");
    assert_eq!(report["user"]["link_method"], "existing");
    assert_eq!(report["facts"]["history.sign_ins_total"], 1);
    assert_eq!(report["facts"]["request.country"], "SE");
    assert_eq!(report["checks"].as_array().unwrap().len(), 21);
    assert!(failed(&report, "checks").is_empty());
    assert!(report["assessment"]["score"].is_i64());
    for secret in ["ada@example.com", "sub-4711", token.rsplit('.').next().unwrap()] {
        assert!(!tried.text.contains(secret), "{secret} in {}", tried.text);
    }
    // Somebody new: the user is planned and not made; and a refusal leaves no record either.
    let other = service.issuer.token().subject("new").sign();
    let report = try_token(&service, &other, &["--json"]).await.json();
    assert_eq!(report["user"]["link_method"], "provisioned");
    assert!(report["user"]["id"].is_null());
    let late = try_token(&service, &service.issuer.token().claim("aud", "x").sign(), &[]).await;
    late.ended(1);
    assert_eq!(contents(&service).await, before);

    // The token was not spent: it signs in, and only then it is.
    service.sign_in(&token).await.signed_in();
    let spent = try_token(&service, &token, &["--json"]).await;
    let report = spent.ended(1).json();
    assert_eq!(
        (report["outcome"].as_str(), report["refusal"]["error"].as_str()),
        (Some("refused"), Some("id_token_replayed"))
    );
    assert_eq!(failed(&report, "checks"), ["replay"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_try_tells_a_refusal_in_words_and_by_exit_code() {
    let service = Service::start().await;
    let wrong = service.issuer.token().claim("aud", "other-app").sign();
    let ran = try_token(&service, &wrong, &["--provider", "acme"]).await;
    ran.ended(1);
    for wanted in [
        "would be refused",
        "other-app",
        "id_token_audience_mismatch",
        "one of 2 client ids",
        "Nothing was written",
    ] {
        assert!(ran.text.contains(wanted), "{wanted} is not in\n{}", ran.text);
    }
    assert!(!ran.text.contains('\u{1b}'), "colour only on a terminal");
    assert!(!ran.text.contains(&wrong));
    // As of another moment the same token is too old.
    let good = service.issuer.token().sign();
    let later =
        run(&["token", "try", "-", "--at", "2026-06-02T12:00:00Z", "--json"], &good, service.dir.path()).await;
    assert_eq!(failed(&later.ended(1).json(), "checks"), ["exp", "age"]);
    // Forged: nothing of its claims counts as passed.
    let forged = try_token(&service, &service.issuer.token().with_signature(&[1; 256]), &["--json"]).await;
    let report = forged.ended(1).json();
    let issuer = report["checks"].as_array().unwrap().iter().find(|c| c["check"] == "iss").unwrap();
    assert_eq!(issuer["status"], "unproven");
    // Wrong usage.
    try_token(&service, &good, &["--provider", "nobody"]).await.ended(2);
    try_token(&service, &good, &["--tenant", "nobody"]).await.ended(2);
    try_token(&service, &good, &["--country", "Sweden"]).await.ended(2);
    run(&["token", "try", "-", "--at", "noon"], &good, service.dir.path()).await.ended(2);
    // Keys out of reach, then the store.
    service.issuer.served.lock().unwrap().fail = true;
    let ran = try_token(&service, &good, &["--json"]).await;
    assert_eq!(ran.ended(3).json()["refusal"]["error"], "provider_unavailable");
    let empty = TempDir::new().unwrap();
    let config = std::fs::read_to_string(service.dir.path().join("countersign.toml")).unwrap();
    let moved = config.replace("db/countersign.db", "db/absent.db");
    std::fs::write(empty.path().join("countersign.toml"), moved).unwrap();
    let ran = run(&["token", "try", "-"], &good, empty.path()).await;
    assert!(ran.ended(3).errors.contains("countersign migrate"), "{}", ran.errors);
    assert!(!service.dir.path().join("db/absent.db").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provider_test_finds_keys_and_a_foreign_discovery_document() {
    let service = Service::start().await;
    let test = async || run(&["provider", "test", "acme", "--json"], "", service.dir.path()).await;
    let ran = test().await;
    let report = ran.json();
    let line = |report: &Value, name: &str| -> Value {
        report["checks"].as_array().unwrap().iter().find(|c| c["check"] == name).cloned().unwrap_or_default()
    };
    ran.ended(0);
    assert_eq!(line(&report, "issuer")["status"], "ok");
    assert!(line(&report, "keys")["found"].as_str().unwrap().contains("RSA 2048 (rsa-1)"), "{report}");
    assert_eq!(line(&report, "cache")["status"], "ok");

    service.issuer.served.lock().unwrap().document_issuer = Some("https://evil.example".to_owned());
    let ran = test().await;
    assert_eq!(failed(&ran.ended(1).json(), "checks"), ["issuer"]);
    service.issuer.served.lock().unwrap().document_issuer = None;

    service.issuer.served.lock().unwrap().keys.clear();
    let ran = test().await;
    assert_eq!(failed(&ran.ended(1).json(), "checks"), ["keys"]);

    service.issuer.served.lock().unwrap().fail = true;
    let ran = test().await;
    assert_eq!(failed(&ran.ended(3).json(), "checks"), ["discovery"]);
    let ran = run(&["provider", "test", "nobody"], "", service.dir.path()).await;
    assert!(ran.ended(2).errors.contains("known: acme"), "{}", ran.errors);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provider_audit_withstands_every_attack_by_default_and_finds_a_weak_configuration() {
    let service = Service::start().await;
    let before = contents(&service).await;
    let audit = async |dir: &Path| run(&["provider", "audit", "acme", "--json"], "", dir).await;
    let report = audit(service.dir.path()).await.ended(0).json();
    assert_eq!(failed(&report, "attacks"), Vec::<String>::new());
    assert!(report["withstood"].as_u64().unwrap() >= 55, "{report}");
    assert!(report["note"].as_str().unwrap().contains("throw-away key"));
    assert_eq!(contents(&service).await, before);
    // It asks nobody: the provider is not needed.
    let asked = service.issuer.fetches.load(std::sync::atomic::Ordering::SeqCst);

    let weak = "replay = \"allow\"\nclock_leeway = \"300s\"\nmax_token_age = \"24h\"\nlinking = \"verified_email\"\n\
                email_trust = \"claim\"\nnonce = \"required\"";
    let service = service.restart(Setup::provider(weak)).await;
    let ran = audit(service.dir.path()).await;
    let report = ran.ended(1).json();
    assert_eq!(
        failed(&report, "attacks"),
        [
            "expired three minutes ago",
            "two hours old and not expired",
            "the same token twice",
            "another user's address of a foreign domain, verified by the provider",
        ]
    );
    let text = run(&["provider", "audit", "acme"], "", service.dir.path()).await;
    assert!(text.ended(1).text.contains("replay = \"single_use\""), "{}", text.text);
    assert_eq!(service.issuer.fetches.load(std::sync::atomic::Ordering::SeqCst), asked);

    // Server-issued nonces stop a replay even where tokens may be used again; a tenant template is attacked too.
    let safe = "linking = \"verified_email\"\nemail_trust = [\"example.com\"]\nnonce = \"server_issued\"\n\
                replay = \"allow\"";
    let entra = "[[providers]]\nname = \"entra\"\npreset = \"microsoft\"\nclient_ids = [\"web\"]\n\
                 allowed_tenant_ids = [\"11111111-1111-4111-8111-111111111111\"]\n";
    let service = service.restart(Setup { more_config: entra.to_owned(), ..Setup::provider(safe) }).await;
    audit(service.dir.path()).await.ended(0);
    let report = run(&["provider", "audit", "entra", "--json"], "", service.dir.path()).await.ended(0).json();
    let foreign = report["attacks"].as_array().unwrap().iter().find(|a| a["check"] == "a foreign tid").unwrap();
    assert_eq!(foreign["found"], "id_token_tenant_not_allowed");
}

/// Nothing is linked before the account's own factor answers, so there is no way in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provider_audit_does_not_take_a_link_that_needs_the_accounts_factor_for_a_takeover() {
    let lines = "linking = \"confirm\"\nemail_trust = \"claim\"";
    let service = Service::start_with(Setup::provider(lines)).await;
    let report = run(&["provider", "audit", "acme", "--json"], "", service.dir.path()).await.ended(0).json();
    let name = "another user's address of a foreign domain, verified by the provider";
    let attack = report["attacks"].as_array().unwrap().iter().find(|a| a["check"] == name).unwrap().clone();
    assert_eq!(attack["found"], "not linked without the account's own factor");
    let unverified = "another user's address, not verified";
    let attack = report["attacks"].as_array().unwrap().iter().find(|a| a["check"] == unverified).unwrap().clone();
    assert_eq!(attack["found"], "account_exists");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_know_the_providers_that_administrators_made_and_switched_off() {
    let service = Service::start().await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    let dir = service.dir.path().to_owned();
    let settings = json!({"issuer": service.issuer.url, "client_ids": ["app-beta"]});
    let token = service.issuer.token().claim("aud", "app-beta").sign();
    run(&["provider", "test", "beta"], "", &dir).await.ended(2);
    try_token(&service, &token, &["--provider", "beta"]).await.ended(2);

    let made = service.post_with("/admin/providers", &editor, json!({"name": "beta", "settings": settings})).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let before = contents(&service).await;
    let report = run(&["provider", "test", "beta", "--json"], "", &dir).await.ended(0).json();
    assert_eq!(report["provider"], "beta");
    let report = run(&["provider", "audit", "beta", "--json"], "", &dir).await.ended(0).json();
    assert_eq!(report["succeeded"], 0);
    for more in [&["--json", "--provider", "beta"][..], &["--json"]] {
        let report = try_token(&service, &token, more).await.ended(0).json();
        assert_eq!((&report["provider"], &report["outcome"]), (&json!("beta"), &json!("signed_in")));
    }
    let report = run(&["doctor", "--json"], "", &dir).await.ended(0).json();
    let checks: Vec<&str> =
        report["checks"].as_array().unwrap().iter().map(|c| c["check"].as_str().unwrap()).collect();
    assert!(checks.contains(&"default/beta keys") && checks.contains(&"default/acme keys"), "{checks:?}");
    assert_eq!(contents(&service).await, before, "a command wrote");

    // What an administrator switched off is off for the commands, also when the file made it.
    for name in ["acme", "beta"] {
        let off = service.post_with(&format!("/admin/providers/{name}/disable"), &editor, json!({})).await;
        assert_eq!(off.status, 200, "{}", off.text);
        run(&["provider", "test", name], "", &dir).await.ended(2);
    }
    let report = try_token(&service, &token, &["--json"]).await.ended(1).json();
    assert_eq!(report["refusal"]["error"], "provider_disabled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_a_newer_build_has_used_is_left_alone_and_named() {
    let service = Service::start().await;
    let dir = service.dir.path().to_owned();
    let options = SqliteConnectOptions::new().filename(dir.join("db/countersign.db"));
    let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (999999, 'later', 1, x'00', 1)",
    )
    .execute(&pool)
    .await
    .unwrap();
    pool.close().await;
    for command in [["migrate"].as_slice(), &["serve"], &["doctor"]] {
        let ran = run(command, "", &dir).await;
        let told = format!("{}{}", ran.ended(3).text, ran.errors);
        assert!(told.contains("a newer build has used it") && told.contains("999999"), "{command:?}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_names_what_is_ill_and_ends_with_its_code() {
    let service = Service::start().await;
    let before = contents(&service).await;
    let dir = service.dir.path().to_owned();
    let doctor = async || run(&["doctor", "--json"], "", &dir).await;
    let report = doctor().await.ended(0).json();
    assert_eq!(report["failed"], 0, "{report}");
    let names: Vec<&str> =
        report["checks"].as_array().unwrap().iter().map(|c| c["check"].as_str().unwrap()).collect();
    for wanted in [
        "configuration",
        "master key",
        "store",
        "signing keys",
        "policies",
        "policy cases",
        "permissions",
        "default/acme keys",
    ] {
        assert!(names.contains(&wanted), "{wanted} is not in {names:?}");
    }
    assert_eq!(contents(&service).await, before);
    let text = run(&["doctor"], "", &dir).await;
    assert!(text.ended(0).text.contains("signing keys"));

    // The provider out of reach is a finding.
    service.issuer.served.lock().unwrap().fail = true;
    assert_eq!(failed(&doctor().await.ended(1).json(), "checks"), ["default/acme discovery"]);
    service.issuer.served.lock().unwrap().fail = false;
    // Another master key does not open the signing keys.
    let key = dir.join("keys/master.key");
    let kept = std::fs::read(&key).unwrap();
    std::fs::write(&key, data_encoding::BASE64.encode(&[7; 32])).unwrap();
    assert_eq!(failed(&doctor().await.ended(2).json(), "checks"), ["signing keys"]);
    std::fs::write(&key, kept).unwrap();
    // No store, then a configuration that cannot be read.
    let config = std::fs::read_to_string(dir.join("countersign.toml")).unwrap();
    std::fs::write(dir.join("countersign.toml"), config.replace("db/countersign.db", "db/absent.db")).unwrap();
    assert_eq!(failed(&doctor().await.ended(3).json(), "checks"), ["store"]);
    // A list of domains that no address could ever be in.
    let shut = "[[providers]]\nname = \"shut\"\npreset = \"microsoft\"\nissuer = \"https://a.example\"\n\
                client_ids = [\"x\"]\nprovisioning_domains = [\"example.com\"]\n";
    std::fs::write(dir.join("countersign.toml"), format!("{config}\n{shut}")).unwrap();
    let report = doctor().await.ended(2).json();
    assert_eq!(failed(&report, "checks"), ["configuration"]);
    let told = report.to_string();
    assert!(told.contains("provisioning_domains lets nobody in") && told.contains("email_trust"), "{told}");
    let audit = run(&["provider", "audit", "shut"], "", &dir).await.ended(2).errors.clone();
    assert!(audit.contains("provisioning_domains lets nobody in"), "{audit}");
    std::fs::write(dir.join("countersign.toml"), config + "\nnonsense = 1\n").unwrap();
    assert_eq!(failed(&doctor().await.ended(2).json(), "checks"), ["configuration"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_token_refuses_other_machines_and_tells_when_nothing_runs() {
    let dir = TempDir::new().unwrap();
    let ask = async |server: &str| run(&["dev-token", "--sub", "ada", "--server", server], "", dir.path()).await;
    ask("http://192.0.2.1:8080").await.ended(2);
    ask("https://127.0.0.1:8080").await.ended(2);
    let ran = ask("http://127.0.0.1:1").await;
    assert!(ran.ended(3).errors.contains("serve --dev"), "{}", ran.errors);
    // A server without --dev has no issuer.
    let service = Service::start().await;
    let url = service.url("");
    let ran = run(&["dev-token", "--sub", "ada", "--server", &url], "", dir.path()).await;
    assert!(ran.ended(3).errors.contains("without --dev"), "{}", ran.errors);
    run(&["dev-token", "--sub", "ada", "--claim", "novalue"], "", dir.path()).await.ended(2);
}

struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_development_token_is_tried_without_being_spent_and_then_signs_in() {
    let dir = TempDir::new().unwrap();
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    crate::support::service::copy_dir(&policies, &dir.path().join("policies"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["serve", "--dev", "--listen", "127.0.0.1:0"])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let _running = Running(child);
    let shown = lines.find_map(|l| l.unwrap().split_once("listening on http://").map(|(_, rest)| rest.to_owned()));
    let address = shown.unwrap().split_whitespace().next().unwrap().to_owned();
    let url = format!("http://{address}");

    let ask = ["dev-token", "--sub", "ada", "--claim", "groups=[\"staff\"]", "--claim", "acr=2", "--server", &url];
    let token = run(&ask, "", dir.path()).await;
    let token = token.ended(0).text.trim();
    let tried = run(&["token", "try", "-", "--dev", "--listen", &address, "--json"], token, dir.path()).await;
    let report = tried.ended(0).json();
    assert_eq!((report["outcome"].as_str(), report["provider"].as_str()), (Some("signed_in"), Some("dev")));
    let body = format!("{{\"id_token\":\"{token}\"}}");
    let sign_in = async || {
        let request = reqwest::Client::builder().no_proxy().build().unwrap();
        let request =
            request.post(format!("{url}/auth/id-token/signin")).header("content-type", "application/json");
        let text = request.body(body.clone()).send().await.unwrap().text().await.unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    assert_eq!(sign_in().await["requires_mfa"], false);
    // The provider `dev` is in test mode: a refusal explains itself.
    let refused = sign_in().await;
    assert_eq!(refused["error"], "id_token_replayed");
    assert_eq!(failed(&refused, "checks"), ["replay"]);
    let refused = run(&["dev-token", "--sub", "", "--server", &url], "", dir.path()).await;
    assert!(refused.ended(2).errors.contains("sub"), "{}", refused.errors);
    run(&["doctor", "--dev", "--listen", &address], "", dir.path()).await.ended(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_try_shows_the_points_and_ends_with_1_when_the_rules_would_deny() {
    let policies = TempDir::new().unwrap();
    let rule = "fn assess(s, risk) {\n    risk.add(45, \"new_device\");\n}\n";
    let service = Service::start_with(Setup::with_policies(policies.path(), &[("risk/_default.rhai", rule)])).await;
    let token = service.issuer.token().sign();
    let report = try_token(&service, &token, &["--json"]).await.ended(1).json();
    assert_eq!(
        (report["outcome"].as_str(), report["refusal"]["error"].as_str()),
        (Some("denied"), Some("sign_in_denied"))
    );
    assert_eq!(
        (report["assessment"]["score"].as_i64(), report["assessment"]["level"].as_str()),
        (Some(45), Some("medium"))
    );
    assert_eq!(report["assessment"]["reasons"][0]["code"], "new_device");
    let text = try_token(&service, &token, &[]).await;
    assert!(text.ended(1).text.contains("+45  new_device"), "{}", text.text);
    // A script that fails asks for more, and its fault is shown.
    let broken = "fn assess(s, risk) {\n    risk.add(1, s.nothing);\n}\n";
    std::fs::write(policies.path().join("policies/risk/_default.rhai"), broken).unwrap();
    let report = try_token(&service, &token, &["--json"]).await.ended(1).json();
    assert!(report["assessment"]["fault"].as_str().unwrap().contains("_default.rhai:2"), "{report}");
    let doctor = run(&["doctor", "--json"], "", service.dir.path()).await;
    assert_eq!(failed(&doctor.ended(1).json(), "checks"), ["policy cases"]);
}
