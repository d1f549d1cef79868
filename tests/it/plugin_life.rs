//! Plugins in a server that goes on: exchanged under sign-ins, exchanged by SIGHUP, and the store and the network that
//! they are granted.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::clock::TestClock;
use crate::support::issuer::TestIssuer;
use crate::support::plugins::{Bench, Entry};
use crate::support::service::{Service, Setup};

const RISK: &str = "risk/_default.rhai";

fn setup(policies: &TempDir, rules: &str, bench: &Bench) -> Setup {
    let mut setup = Setup::with_policies(policies.path(), &[(RISK, rules)]);
    setup.plugins_lock = Some(bench.write());
    setup
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reloads_under_sign_ins_lose_none() {
    let rules = r#"fn assess(s, risk) {
        if s.signals.plugin["countersign.office_hours"] == () { risk.deny("new_network"); }
    }"#;
    let mut bench = Bench::new();
    let built = std::fs::read(&bench.office_hours().file).unwrap();
    // A few bytes after the end make another file of it, which does the same.
    let entry = |bench: &Bench, n: u32| {
        let bytes = [&built[..], &n.to_le_bytes()].concat();
        let entry = bench.install_bytes(&bytes, "office.so").id("countersign.office_hours");
        entry.with("deadline_ms = 30000\nmax_queued = 4096")
    };
    let first = entry(&bench, 0);
    bench.relock(&first);
    let policies = TempDir::new().unwrap();
    let service = Arc::new(Service::start_with(setup(&policies, rules, &bench)).await);
    let (stop, signed_in) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = (0..4).map(|worker| {
        let (service, stop, signed_in) = (Arc::clone(&service), Arc::clone(&stop), Arc::clone(&signed_in));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let token = service.issuer.token().subject(&format!("s-{worker}")).sign();
                service.sign_in(&token).await.signed_in();
                signed_in.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let load: Vec<_> = load.collect();
    for n in 1..=1000 {
        let next = entry(&bench, n);
        bench.relock(&next);
        let plugins = Arc::clone(service.plugins());
        tokio::task::spawn_blocking(move || plugins.reload()).await.unwrap().unwrap();
        // By this call or by the watch of the server, whoever came first.
        assert_eq!(service.plugins().describe()[0].sha256, next.sha256);
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    assert!(signed_in.load(Ordering::Relaxed) > 100, "there was load");
}

/// A server in a process of its own, ended with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn score(client: &reqwest::Client, base: &str, issuer: &TestIssuer) -> Value {
    let body = json!({ "id_token": issuer.token().sign(), "provider": "acme" }).to_string();
    let request = client.post(format!("{base}/auth/id-token/signin")).header("content-type", "application/json");
    let answer = request.body(body).send().await.expect("the server lives");
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    body["risk_assessment"]["score"].clone()
}

#[tokio::test]
async fn sighup_exchanges_a_plugin_and_ends_nothing() {
    let rules = r#"fn assess(s, risk) {
        if s.signals.plugin["countersign.misbehaving"] == () { risk.add(9, "new_network"); }
    }"#;
    let mut bench = Bench::new();
    let entry =
        |bench: &Bench, mode: &str| bench.misbehaving(&format!("signals = \"{mode}\"")).with("deadline_ms = 10000");
    let first = entry(&bench, "ok");
    bench.relock(&first);
    let (dir, issuer) = (TempDir::new().unwrap(), TestIssuer::start(TestClock::real()).await);
    let setup = setup(&dir, rules, &bench);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let config = dir.path().join("countersign.toml");
    let text = format!(
        "[server]\npublic_url = \"http://127.0.0.1:8080\"\nallow_insecure_issuers = true\n\
         [limits]\nsign_ins_per_minute = 0\n\
         [store]\nurl = \"sqlite://{}\"\n[secrets]\nmaster_key_file = {:?}\n[policies]\ndir = {:?}\n\
         [plugins]\nlock = {:?}\n[[tenants]]\nid = \"default\"\n\
         [[providers]]\ntenant = \"default\"\nname = \"acme\"\nissuer = {:?}\nclient_ids = [\"app-web\"]\n",
        path("countersign.db"),
        path("master.key"),
        setup.policies,
        setup.plugins_lock.unwrap(),
        issuer.url,
    );
    std::fs::write(&config, text).unwrap();
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (base, client) = (format!("http://{listen}"), reqwest::Client::builder().no_proxy().build().unwrap());
    let server = start(&config, &listen);
    let ready = format!("{base}/health/ready");
    until("the server is ready", async || client.get(&ready).send().await.is_ok_and(|r| r.status() == 200)).await;
    assert_eq!(score(&client, &base, &issuer).await, 0);
    let second = entry(&bench, "panic");
    bench.relock(&second);
    let pid = Pid::from_raw(i32::try_from(server.0.id()).unwrap());
    kill(pid, Signal::SIGHUP).unwrap();
    until("the other plugin answers", async || score(&client, &base, &issuer).await == 9).await;
    kill(pid, Signal::SIGHUP).unwrap();
    assert_eq!(score(&client, &base, &issuer).await, 9, "nothing changed, nothing happens");
}

fn start(config: &Path, listen: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(["serve", "--listen", listen, "--config"]).arg(config).stdout(Stdio::null()).stderr(Stdio::null());
    Process(command.spawn().unwrap())
}

async fn until(what: &str, reached: impl AsyncFn() -> bool) {
    let since = Instant::now();
    while !reached().await {
        assert!(since.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn asking(bench: &Bench, ask: &str, grants: &str) -> Entry {
    let entry = bench.misbehaving(&format!("signals = \"ask\", ask = {ask}"));
    entry.with(&format!("deadline_ms = 10000\ngrants = {{ {grants} }}"))
}

async fn score_of(service: &Service) -> Value {
    service.sign_in(&service.issuer.token().sign()).await.signed_in()["risk_assessment"]["score"].clone()
}

#[tokio::test]
async fn what_a_plugin_keeps_outlives_the_server_is_seen_by_other_nodes_and_ends_in_time() {
    let rules = r#"fn assess(s, risk) {
        let told = s.signals.plugin["countersign.misbehaving"];
        if told != () && told.before == "kept" { risk.add(5, "new_network"); }
    }"#;
    let (mut bench, policies) = (Bench::new(), TempDir::new().unwrap());
    let entry = asking(&bench, "{ kv = \"kept\" }", "kv_kib = 1");
    bench.relock(&entry);
    let service = Service::start_with(setup(&policies, rules, &bench)).await;
    assert_eq!(score_of(&service).await, 0);
    assert_eq!(score_of(&service).await, 5);
    let service = service.restart(setup(&policies, rules, &bench)).await;
    assert_eq!(score_of(&service).await, 5, "after a restart");
    let other = service.second_node(setup(&policies, rules, &bench)).await;
    assert_eq!(score_of(&other).await, 5, "from another node");
    service.clock.advance(Duration::from_secs(61));
    assert_eq!(score_of(&service).await, 0, "kept for 60 s");
}

#[tokio::test]
async fn a_request_leaves_for_a_special_network_only_when_that_is_granted() {
    let rules = r#"fn assess(s, risk) {
        let told = s.signals.plugin["countersign.misbehaving"];
        if told != () && told.error.contains("not granted") { risk.add(3, "new_network"); }
        if told != () && told.error.contains("cannot be had") { risk.add(5, "new_network"); }
    }"#;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // It leads to this machine and is no loopback address, which these servers may reach.
    let url = format!("https://0.0.0.0:{}/", listener.local_addr().unwrap().port());
    let reached = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reached);
    tokio::spawn(async move {
        // Hung up at once: what is asked is whether anybody comes.
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let ask = format!("{{ fetch = {{ method = \"GET\", url = \"{url}\" }} }}");
    for (networks, expected) in
        [("", 3), (", networks = [\"10.0.0.0/8\"]", 3), (", networks = [\"0.0.0.0/32\"]", 5)]
    {
        let (mut bench, policies) = (Bench::new(), TempDir::new().unwrap());
        let entry = asking(&bench, &ask, &format!("http = [\"0.0.0.0\"]{networks}"));
        bench.relock(&entry);
        let service = Service::start_with(setup(&policies, rules, &bench)).await;
        assert_eq!(score_of(&service).await, expected, "{networks}");
        assert_eq!(reached.load(Ordering::SeqCst) > 0, expected == 5, "{networks}");
    }
}
