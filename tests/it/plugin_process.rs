//! Plugins in a process of their own, services of the host, quarantine, and reloading while calls run.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use countersign::plugin_host::PluginHost;
use countersign::signin::ports::SignalSource;
use serde_json::{Value, json};

use crate::support::plugins::{Bench, Entry, IP_LIST, facts};

const ID: &str = "countersign.misbehaving";

async fn signal(host: &PluginHost, id: &str) -> Option<Value> {
    host.signals(&facts("192.0.2.7")).await.remove(id).unwrap_or_else(|| panic!("{id} was not asked"))
}

fn apart(bench: &Bench, config: &str) -> Entry {
    bench.misbehaving(config).with("isolation = \"process\"\ndeadline_ms = 10000")
}

async fn until_it_answers(host: &PluginHost, id: &str) -> Value {
    let patience = Instant::now();
    loop {
        if let Some(answer) = signal(host, id).await {
            return answer;
        }
        assert!(patience.elapsed() < Duration::from_secs(60), "it never came back: {:?}", host.describe());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_plugin_answers_from_a_process_of_its_own_and_ends_with_the_host() {
    let bench = Bench::new();
    let rust = bench.rust(IP_LIST, "countersign.ip_list").with("grants = { facts = [\"request.ip\"] }");
    let rust = rust.with("config = { lists = { office = [\"192.0.2.0/24\"] } }");
    let c = bench.office_hours();
    let apart = "isolation = \"process\"\ndeadline_ms = 10000";
    let host = bench.lock(&rust.with(apart)).lock(&c.with(apart)).must_load();
    assert_eq!(signal(&host, "countersign.ip_list").await, Some(json!({ "listed": ["office"] })));
    assert_eq!(signal(&host, "countersign.office_hours").await.unwrap()["weekday"], 2);
    let shown = host.describe();
    assert_eq!((shown[0].isolation.as_str(), shown[0].vendor.as_str()), ("process", "Countersign"));
    let pids: Vec<u32> = shown.iter().map(|p| p.pid.unwrap()).collect();
    assert!(pids.iter().all(|pid| *pid != std::process::id()) && pids[0] != pids[1]);
    drop(host);
    let patience = Instant::now();
    while pids.iter().any(|pid| is_alive(*pid)) {
        assert!(patience.elapsed() < Duration::from_secs(30), "a process outlives its host");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Neither gone nor waiting to be reaped.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
}

#[tokio::test]
async fn bad_answers_from_a_process_are_no_answers_either() {
    for mode in ["panic", "garbage", "array", "large", "huge", "wrong_utf8", "silent", "unavailable", "decline"] {
        let bench = Bench::new();
        let entry = apart(&bench, &format!("signals = \"{mode}\""));
        let bench = bench.lock(&entry);
        let host = bench.must_load();
        for _ in 0..2 {
            assert_eq!(signal(&host, ID).await, None, "{mode}");
        }
        assert_eq!(host.describe()[0].process_deaths, 0, "{mode}");
    }
}

#[tokio::test]
async fn a_process_that_dies_is_missed_by_its_own_calls_alone_and_starts_again() {
    let bench = Bench::new();
    let dying = apart(&bench, "signals = \"abort\"");
    let list = bench.rust(IP_LIST, "countersign.ip_list").with("deadline_ms = 10000");
    let list = list.with("config = { lists = { lab = [\"192.0.2.7\"] } }\ngrants = { facts = [\"request.ip\"] }");
    let bench = bench.lock(&dying).lock(&list);
    let host = bench.must_load();
    for round in 0..3 {
        let all = host.signals(&facts("192.0.2.7")).await;
        assert_eq!(all[ID], None);
        assert_eq!(all["countersign.ip_list"], Some(json!({ "listed": ["lab"] })), "the other does not notice");
        let patience = Instant::now();
        while host.describe()[0].process_deaths <= round || host.describe()[0].pid.is_none() {
            assert!(patience.elapsed() < Duration::from_secs(60), "it was not started again");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_process_that_was_killed_answers_again() {
    let bench = Bench::new();
    let entry = apart(&bench, "signals = \"ok\"");
    let bench = bench.lock(&entry);
    let host = bench.must_load();
    assert!(signal(&host, ID).await.is_some());
    let pid = host.describe()[0].pid.unwrap();
    let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
    let patience = Instant::now();
    while host.describe()[0].pid == Some(pid) {
        assert!(patience.elapsed() < Duration::from_secs(30), "its death was not seen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until_it_answers(&host, ID).await;
}

/// Linux ends a process that asked for it with the thread that started it, and not with the server's last one.
#[tokio::test]
async fn a_process_outlives_the_thread_that_had_it_loaded() {
    let bench = Bench::new();
    let entry = apart(&bench, "signals = \"ok\"");
    let bench = bench.lock(&entry);
    let (host, bench) = std::thread::spawn(move || (bench.must_load(), bench)).join().unwrap();
    let pid = host.describe()[0].pid.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(signal(&host, ID).await.is_some() && is_alive(pid), "{:?}", host.describe());
    drop(bench);
}

#[tokio::test]
async fn a_process_that_hangs_is_ended_when_three_calls_are_stuck() {
    let bench = Bench::new();
    let entry = bench.misbehaving("signals = \"hang\", hang_ms = 120000");
    let bench = bench.lock(&entry.with("isolation = \"process\"\ndeadline_ms = 100"));
    let host = bench.must_load();
    let pid = host.describe()[0].pid.unwrap();
    let three = futures_util::future::join3(signal(&host, ID), signal(&host, ID), signal(&host, ID)).await;
    assert_eq!(three, (None, None, None));
    let patience = Instant::now();
    while is_alive(pid) {
        assert_eq!(signal(&host, ID).await, None);
        assert!(patience.elapsed() < Duration::from_secs(60), "the hanging process was not ended");
    }
}

#[tokio::test]
async fn a_process_has_no_network_of_its_own_and_no_more_memory_than_granted() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = format!("signals = \"network\", port = {port}");
    let here = Bench::new();
    let entry = here.misbehaving(&config).with("deadline_ms = 10000");
    let host = here.lock(&entry).must_load();
    assert_eq!(signal(&host, ID).await, Some(json!({ "reached": true })), "in this process it reaches the port");
    let bench = Bench::new();
    let entry = apart(&bench, &config);
    let reached = signal(&bench.lock(&entry).must_load(), ID).await;
    let may_leave = std::process::Command::new("unshare").args(["-Un", "true"]).status();
    if may_leave.is_ok_and(|s| s.success()) {
        assert_eq!(reached, Some(json!({ "reached": false })));
    }
    let bench = Bench::new();
    let entry = apart(&bench, "signals = \"gluttony\"").with("memory_mib = 64");
    let host = bench.lock(&entry).must_load();
    assert_eq!(signal(&host, ID).await, None, "a gigabyte is more than 64 MiB");
}

#[test]
fn a_plugin_that_refuses_or_hangs_or_is_none_is_refused_from_its_process_too() {
    for (config, part) in [("create = \"panic\"", "create panicked"), ("create = \"reject\"", "asked to refuse")] {
        let bench = Bench::new();
        let entry = apart(&bench, config);
        assert!(bench.lock(&entry).refusal().contains(part));
    }
    let bench = Bench::new();
    let entry = bench.fixture(&["-DMAJOR=2"]).with("isolation = \"process\"");
    assert!(bench.lock(&entry).refusal().contains("needs ABI 2"));
    let bench = Bench::new();
    let entry = bench.fixture(&["-DID=\"test.other\""]).with("isolation = \"process\"");
    assert!(bench.lock(&entry).refusal().contains("the lock says \"test.fixture\""));
}

#[tokio::test]
async fn services_are_given_by_grant_alike_in_both_isolations() {
    for isolation in ["in_process", "process"] {
        let ask = async |ask: &str, grants: &str| {
            let bench = Bench::new();
            bench.secret("api_key", "s3cret");
            let entry = bench.misbehaving(&format!("signals = \"ask\", ask = {ask}"));
            let entry =
                entry.with(&format!("isolation = \"{isolation}\"\ndeadline_ms = 10000\ngrants = {{ {grants} }}"));
            let bench = bench.lock(&entry);
            signal(&bench.must_load(), ID).await.unwrap()
        };
        let granted = ask("{ secret = \"api_key\" }", "secrets = [\"api_key\"]").await;
        assert_eq!(granted, json!({ "secret": "s3cret" }), "{isolation}");
        let absent = ask("{ secret = \"other\" }", "secrets = [\"other\"]").await;
        assert!(absent["error"].as_str().unwrap().contains("not there"), "{absent}");
        let refused = ask("{ secret = \"api_key\" }", "").await;
        assert!(refused["error"].as_str().unwrap().contains("not granted"), "{refused}");
        for what in ["{ kv = \"v\" }", "{ fetch = { method = \"GET\", url = \"https://api.example.com/\" } }"] {
            let refused = ask(what, "").await;
            assert!(refused["error"].as_str().unwrap().contains("does not offer"), "{refused}");
        }
        let env = ask("\"env\"", "").await;
        assert!(env["now"].as_i64().unwrap() > 1_700_000_000_000 && env["random"] != json!(vec![0; 16]), "{env}");
    }
}

#[tokio::test]
async fn a_secret_that_others_can_read_is_not_given() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    bench.secret("api_key", "s3cret");
    fs::set_permissions(bench.path("secrets/api_key"), fs::Permissions::from_mode(0o644)).unwrap();
    let entry = bench.misbehaving("signals = \"ask\", ask = { secret = \"api_key\" }");
    let bench = bench.lock(&entry.with("grants = { secrets = [\"api_key\"] }\ndeadline_ms = 10000"));
    let host = bench.must_load();
    let told = signal(&host, ID).await.unwrap();
    assert!(told["error"].as_str().unwrap().contains("cannot be had"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reloads_under_load_lose_no_answer() {
    let mut bench = Bench::new();
    let built = fs::read(&bench.office_hours().file).unwrap();
    // A few bytes after the end make another file of it, which does the same.
    let entry = |bench: &Bench, n: u32| {
        let bytes = [&built[..], &n.to_le_bytes()].concat();
        let entry = bench.install_bytes(&bytes, "office.so").id("countersign.office_hours");
        entry.with("deadline_ms = 30000\nmax_queued = 4096")
    };
    let first = entry(&bench, 0);
    bench.relock(&first);
    let host = Arc::new(bench.must_load());
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = (0..4).map(|_| {
        let (host, stop, asked) = (Arc::clone(&host), Arc::clone(&stop), Arc::clone(&asked));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                assert!(signal(&host, "countersign.office_hours").await.is_some(), "an answer was lost");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let load: Vec<_> = load.collect();
    for n in 1..=1000 {
        let next = entry(&bench, n);
        bench.relock(&next);
        let reloading = Arc::clone(&host);
        let reloaded = tokio::task::spawn_blocking(move || reloading.reload()).await.unwrap().unwrap().unwrap();
        assert_eq!((reloaded.started.len(), reloaded.retired.len()), (1, 1));
        // No heap of copies: what is mapped lives on without its name.
        fs::remove_file(bench.path("store").join(format!("{}.so", next.sha256))).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    assert!(asked.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn a_reload_keeps_what_is_the_same_and_refuses_what_is_wrong() {
    let mut bench = Bench::new();
    let one = bench.misbehaving("signals = \"ok\"").with("isolation = \"process\"\ndeadline_ms = 10000");
    bench.relock(&one);
    let host = bench.must_load();
    let pid = host.describe()[0].pid;
    assert_eq!(host.reload().unwrap(), None, "nothing changed");
    let lock = bench.path("plugins.lock");
    let text = fs::read_to_string(&lock).unwrap();
    fs::write(&lock, format!("# a remark\n{text}")).unwrap();
    let reloaded = host.reload().unwrap().unwrap();
    assert_eq!((reloaded.kept, reloaded.started.len(), reloaded.retired.len()), (1, 0, 0));
    assert_eq!(host.describe()[0].pid, pid, "the same process goes on");
    for wrong in [text.replace("hooks", "hokks"), text.replace(&one.sha256, &"0".repeat(64))] {
        fs::write(&lock, wrong).unwrap();
        assert!(host.reload().is_err());
        assert!(signal(&host, ID).await.is_some(), "the old one goes on");
    }
    fs::write(&lock, "").unwrap();
    assert_eq!(host.reload().unwrap().unwrap().retired, [ID]);
    assert!(host.describe().is_empty() && SignalSource::is_empty(&host));
}

#[test]
fn a_plugin_that_took_the_server_along_twice_is_kept_out_and_named() {
    let bench = Bench::new();
    let entry = bench.misbehaving("signals = \"abort\"").with("deadline_ms = 10000");
    let bench = bench.lock(&entry);
    bench.write();
    for _ in 0..2 {
        // The test's own binary is the server that dies.
        let died = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "plugin_process::the_server_that_dies", "--nocapture"])
            .env("COUNTERSIGN_TEST_BENCH", bench.path(""))
            .output()
            .unwrap();
        assert!(!died.status.success(), "{}", String::from_utf8_lossy(&died.stderr));
    }
    let host = bench.must_load();
    let shown = host.describe().remove(0);
    assert!(shown.trouble.as_deref().unwrap_or_default().contains("inside of its signal.signals"), "{shown:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(signal(&host, ID)), None, "it is out of reach and not asked");
}

/// Half of the test above: it is started by it, in a process of its own, and dies.
#[test]
fn the_server_that_dies() {
    let Some(bench) = std::env::var_os("COUNTERSIGN_TEST_BENCH") else { return };
    let bench = std::path::PathBuf::from(bench);
    let services = countersign::plugin_host::Services::default();
    let host = PluginHost::load(&bench.join("plugins.lock"), &bench.join("store"), services).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(signal(&host, ID));
}
