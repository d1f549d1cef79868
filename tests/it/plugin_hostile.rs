//! Plugins that attack their host, in its process as far as it can defend itself, and in one of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use countersign::plugin_host::{KvUnavailable, PluginHost, PluginKv, Services};
use countersign::signin::ports::{Enricher, SignalSource};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::plugins::{Bench, Entry, facts, provider};
use crate::support::service::{Service, Setup};

const ID: &str = "test.fixture";
const PATIENCE: Duration = Duration::from_secs(60);

async fn signal(host: &PluginHost) -> Option<Value> {
    host.signals(&facts("192.0.2.7")).await.remove(ID).expect("it was asked")
}

fn apart(bench: &Bench, switches: &[&str], deadline_ms: u32) -> Entry {
    bench.hostile(switches).with(&format!("isolation = \"process\"\ndeadline_ms = {deadline_ms}"))
}

async fn until(what: &str, reached: impl AsyncFn() -> bool) {
    let since = Instant::now();
    while !reached().await {
        assert!(since.elapsed() < PATIENCE, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Neither gone nor waiting to be reaped.
fn is_alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
}

#[tokio::test]
async fn what_is_no_frame_ends_the_process_and_its_calls_at_once() {
    for act in ["garbage", "giant", "hang_up"] {
        let bench = Bench::new();
        let entry = apart(&bench, &[&format!("-DACT={act}")], 30_000);
        let bench = bench.lock(&entry);
        let host = bench.must_load();
        let pid = host.describe()[0].pid;
        let begun = Instant::now();
        assert_eq!(signal(&host).await, None, "{act}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{act}: the call waited for its deadline");
        until("it runs again", async || {
            let now = host.describe()[0].pid;
            now.is_some() && now != pid
        })
        .await;
    }
}

#[tokio::test]
async fn answers_that_nobody_asked_for_are_passed_over() {
    let bench = Bench::new();
    let entry = apart(&bench, &["-DACT=false_replies"], 10_000);
    let bench = bench.lock(&entry);
    let host = bench.must_load();
    for _ in 0..3 {
        assert_eq!(signal(&host).await, Some(json!({ "done": true })));
    }
    assert_eq!(host.describe()[0].process_deaths, 0);
}

#[tokio::test]
async fn a_library_that_reads_standard_input_takes_nothing_of_the_server() {
    let bench = Bench::new();
    let entry = apart(&bench, &["-DACT=read_stdin"], 10_000);
    let bench = bench.lock(&entry);
    let host = bench.must_load();
    for _ in 0..3 {
        assert_eq!(signal(&host).await, Some(json!({ "read": 0 })));
    }
}

#[tokio::test]
async fn a_process_that_leaves_another_behind_starts_again_and_takes_it_along() {
    let bench = Bench::new();
    let entry = apart(&bench, &["-DACT=fork_then_die"], 300);
    let bench = bench.lock(&entry);
    let host = bench.must_load();
    let (pid, left) = (host.describe()[0].pid, signal(&host).await.expect("the first call answers"));
    assert_eq!(signal(&host).await, None, "it died in the second");
    until("it runs again", async || {
        signal(&host).await;
        let now = host.describe()[0].pid;
        now.is_some() && now != pid
    })
    .await;
    until("what it left behind is gone", async || !is_alive(left["pid"].as_u64().unwrap())).await;
}

#[tokio::test]
async fn a_process_makes_few_others() {
    let may_leave = std::process::Command::new("unshare").args(["-Un", "true"]).status();
    if !may_leave.is_ok_and(|s| s.success()) {
        return;
    }
    let bench = Bench::new();
    let entry = apart(&bench, &["-DACT=fork_often"], 20_000);
    let bench = bench.lock(&entry);
    let host = bench.must_load();
    // The superuser has no limit of processes.
    if nix::unistd::geteuid().is_root() {
        return;
    }
    let made = signal(&host).await.unwrap()["made"].as_u64().unwrap();
    assert!(made < 400, "it made {made}");
}

#[tokio::test]
async fn a_process_that_stands_still_is_ended_and_starts_again() {
    let bench = Bench::new();
    let entry = apart(&bench, &["-DACT=stop"], 200);
    let bench = bench.lock(&entry);
    let host = bench.must_load();
    let pid = host.describe()[0].pid;
    until("it was ended and runs again", async || {
        let begun = Instant::now();
        assert_eq!(signal(&host).await, None);
        assert!(begun.elapsed() < Duration::from_secs(10), "a sign-in waited for a process that stands still");
        let now = host.describe()[0].pid;
        now.is_some() && now != pid
    })
    .await;
}

#[test]
fn a_process_that_hangs_up_or_dawdles_while_it_starts_does_not_hold_the_server() {
    for (early, part) in [("hang_up", "ended while it started"), ("drip", "did not start within 10 s")] {
        let bench = Bench::new();
        let entry = apart(&bench, &[&format!("-DEARLY={early}")], 1_000);
        let begun = Instant::now();
        let refusal = bench.lock(&entry).refusal();
        assert!(refusal.contains(part), "{early}: {refusal}");
        assert!(begun.elapsed() < Duration::from_secs(40), "{early}");
    }
}

#[tokio::test]
async fn a_process_gets_a_configuration_that_is_larger_than_a_socket_holds() {
    let bench = Bench::new();
    let entry =
        apart(&bench, &["-DANY_CONFIG"], 10_000).with(&format!("config = {{ pad = \"{}\" }}", "x".repeat(3 << 20)));
    assert_eq!(signal(&bench.lock(&entry).must_load()).await, Some(json!({})));
}

/// Starts the plugin with a store of the test's.
fn with_store(bench: &Bench, kv: Arc<dyn PluginKv>) -> PluginHost {
    let services = Services { kv: Some(kv), ..bench.services() };
    PluginHost::load(&bench.write(), &bench.path("store"), services).unwrap()
}

/// A store that gives nothing while it is shut.
#[derive(Default)]
struct Slow {
    asked: AtomicUsize,
    is_shut: AtomicBool,
}

impl PluginKv for Slow {
    fn get(&self, _plugin: &str, _key: &[u8], _limit: Duration) -> Result<Option<Vec<u8>>, KvUnavailable> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        while self.is_shut.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(None)
    }

    fn set(
        &self,
        _: &str,
        _: &[u8],
        _: Option<(&[u8], Duration)>,
        _: u64,
        _: Duration,
    ) -> Result<bool, KvUnavailable> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(true)
    }
}

#[tokio::test]
async fn requests_without_end_do_not_heap_up_in_the_server() {
    let bench = Bench::new();
    let entry = apart(&bench, &["-DACT=flood"], 20_000).with("grants = { kv_kib = 1 }");
    let bench = bench.lock(&entry);
    let slow = Arc::new(Slow { is_shut: AtomicBool::new(true), ..Slow::default() });
    let kv: Arc<dyn PluginKv> = Arc::<Slow>::clone(&slow);
    let host = with_store(&bench, kv);
    assert_eq!(signal(&host).await, Some(json!({ "done": true })), "the process is not ended for it");
    slow.is_shut.store(false, Ordering::SeqCst);
    until("what waited is worked off", async || {
        let asked = slow.asked.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        asked == slow.asked.load(Ordering::SeqCst)
    })
    .await;
    let asked = slow.asked.load(Ordering::SeqCst);
    assert!((8..1_000).contains(&asked), "{asked} of 5000 requests waited in the server");
}

#[tokio::test]
async fn what_belonged_to_a_call_is_dead_when_it_has_returned_and_for_other_threads() {
    for isolation in ["in_process", "process"] {
        let bench = Bench::new();
        let entry =
            bench.hostile(&["-DACT=late"]).with("deadline_ms = 20000").with("grants = { secrets = [\"s\"] }");
        bench.secret("s", "secret");
        let host = bench.lock(&entry.with(&format!("isolation = \"{isolation}\""))).must_load();
        let first = json!({ "put": -1, "left": -1, "secret": -1, "other_put": 5, "has_time": true });
        assert_eq!(signal(&host).await, Some(first), "{isolation}");
        for _ in 0..3 {
            let later = json!({ "put": 5, "left": 0, "secret": 5, "other_put": 5, "has_time": true });
            assert_eq!(signal(&host).await, Some(later), "{isolation}");
        }
    }
}

#[tokio::test]
async fn a_thread_that_outlives_its_plugin_may_use_the_host_and_harms_nobody() {
    let bench = Bench::new();
    let file = bench.path("lived");
    let entry = bench.hostile(&["-DLIVE_ON", &format!("-DLIVED_FILE=\"{}\"", file.display())]);
    let bench = bench.lock(&entry.with("deadline_ms = 10000"));
    let host = bench.must_load();
    assert_eq!(signal(&host).await, Some(json!({})));
    drop(host);
    until("its thread came to its end", async || file.exists()).await;
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_refused() {
    for isolation in ["in_process", "process"] {
        let bench = Bench::new();
        let entry = bench.hostile(&["-DACT=nonsense"]).with("deadline_ms = 10000");
        let host = bench.lock(&entry.with(&format!("isolation = \"{isolation}\""))).must_load();
        assert_eq!(signal(&host).await, Some(json!({ "second": true })), "{isolation}");
    }
}

#[tokio::test]
async fn bytes_that_are_nearly_json_are_no_answer() {
    let deep = format!("{{\\\"a\\\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for bytes in [
        "",
        "{\\\"a\\\":1e999}",
        "{\\\"a\\\":NaN}",
        "{\\\"a\\\":-Infinity}",
        "{\\\"a\\\":\\\"\\0\\\"}",
        "{\\\"a\\\":1}\\0",
        "{\\\"a\\\":1}{}",
        "{\\\"a\\\":1,\\\"\\\\u0061\\\":2}",
        "\\357\\273\\277{}",
        deep.as_str(),
    ] {
        let bench = Bench::new();
        let entry = bench.hostile(&["-DACT=fixed", "-Wno-overlength-strings", &format!("-DANSWER=\"{bytes}\"")]);
        let host = bench.lock(&entry.with("deadline_ms = 10000")).must_load();
        assert_eq!(signal(&host).await, None, "{}", bytes.get(..40).unwrap_or(bytes));
    }
    let odd = "{\\\"big\\\":18446744073709551615,\\\"nul\\\":\\\"\\\\u0000\\\",\\\"\\\\u001b[2J\\\":1e308}";
    let bench = Bench::new();
    let entry = bench.hostile(&["-DACT=fixed", &format!("-DANSWER=\"{odd}\"")]).with("deadline_ms = 10000");
    let bench = bench.lock(&entry);
    let policies = TempDir::new().unwrap();
    let rules = r#"fn assess(s, risk) {
        let told = s.signals.plugin["test.fixture"];
        if told.big > 1.0 && told.nul.len() == 1 { risk.add(7, "new_network"); }
    }"#;
    let mut setup = Setup::with_policies(policies.path(), &[("risk/_default.rhai", rules)]);
    setup.plugins_lock = Some(bench.write());
    let service = Service::start_with(setup).await;
    let signed_in = service.sign_in(&service.issuer.token().sign()).await;
    assert_eq!(signed_in.signed_in()["risk_assessment"]["score"], 7, "odd but JSON");
}

#[tokio::test]
async fn labels_of_a_plugin_do_not_spoil_the_page_of_the_metrics() {
    let bench = Bench::new();
    let entry = bench.hostile(&["-DACT=label"]).with("deadline_ms = 10000");
    let bench = bench.lock(&entry);
    let policies = TempDir::new().unwrap();
    let mut setup = Setup::with_policies(policies.path(), &[]);
    setup.plugins_lock = Some(bench.write());
    let service = Service::start_with(setup).await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let page = service.send(service.http().get(service.url("/metrics"))).await.text;
    let line = page.lines().find(|l| l.contains("metric=\"hostile\"")).expect("it is counted");
    assert!(line.contains("fine=\"f\"") && !line.contains("__name__") && !line.contains("_a="), "{line}");
}

#[tokio::test]
async fn a_process_outlives_the_thread_that_asked_for_it() {
    let mut bench = Bench::new();
    let entry = apart(&bench, &[], 10_000);
    bench.relock(&entry);
    let host = Arc::new(bench.must_load());
    let other = apart(&bench, &["-DFLAGS=1"], 9_000);
    bench.relock(&other);
    let reloading = Arc::clone(&host);
    std::thread::spawn(move || reloading.reload().unwrap().unwrap()).join().unwrap();
    let pid = host.describe()[0].pid.expect("it runs");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(is_alive(pid.into()) && host.describe()[0].pid == Some(pid));
    assert_eq!(signal(&host).await, Some(json!({})));
}

#[tokio::test]
async fn nothing_is_kept_for_a_call_that_is_past_its_deadline() {
    for isolation in ["in_process", "process"] {
        let bench = Bench::new();
        let entry = bench.hostile(&["-DACT=keep_late"]).with("deadline_ms = 300\ngrants = { kv_kib = 1 }");
        let bench = bench.lock(&entry.with(&format!("isolation = \"{isolation}\"")));
        let store = Arc::new(Slow::default());
        let kv: Arc<dyn PluginKv> = Arc::<Slow>::clone(&store);
        let host = with_store(&bench, kv);
        let (begun, mut seen) = (Instant::now(), None);
        while seen.is_none() && begun.elapsed() < PATIENCE {
            // It answers within the grace, on a machine that is not too busy.
            seen = signal(&host).await;
        }
        assert_eq!(seen, Some(json!({ "status": 4 })), "{isolation}");
        assert_eq!(store.asked.load(Ordering::SeqCst), 0, "{isolation}");
    }
}

#[tokio::test]
async fn all_calls_inside_fail_at_once_when_the_process_dies() {
    let bench = Bench::new();
    let entry = bench.misbehaving("signals = \"hang\", hang_ms = 60000").id("countersign.misbehaving");
    let entry = entry.with("isolation = \"process\"\ndeadline_ms = 30000\nmax_in_flight = 64");
    let bench = bench.lock(&entry);
    let host = bench.must_load();
    let pid = host.describe()[0].pid.unwrap();
    let facts = facts("192.0.2.7");
    let calls = futures_util::future::join_all((0..64).map(|_| host.signals(&facts)));
    let death = async {
        until("all are inside", async || host.describe()[0].in_flight == 64).await;
        assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    };
    let begun = Instant::now();
    let (answers, ()) = futures_util::future::join(calls, death).await;
    assert!(answers.iter().all(|a| a["countersign.misbehaving"].is_none()));
    assert!(begun.elapsed() < Duration::from_secs(25), "they waited for their deadline");
    until("nothing is inside any more", async || host.describe()[0].in_flight == 0).await;
}

#[tokio::test]
async fn who_does_not_wait_any_more_has_no_place_in_the_queue() {
    let bench = Bench::new();
    let entry = bench.misbehaving("signals = \"hang\", hang_ms = 1500");
    let bench = bench.lock(&entry.with("deadline_ms = 20000\nmax_in_flight = 1\nmax_queued = 2"));
    let host = Arc::new(bench.must_load());
    let ask = || {
        let host = Arc::clone(&host);
        tokio::spawn(
            async move { host.signals(&facts("192.0.2.7")).await.remove("countersign.misbehaving").flatten() },
        )
    };
    let begun = Instant::now();
    let first = ask();
    until("it is inside", async || host.describe()[0].in_flight == 1).await;
    let gone = [ask(), ask()];
    tokio::time::sleep(Duration::from_millis(200)).await;
    for caller in gone {
        caller.abort();
        assert!(caller.await.is_err());
    }
    let last = ask();
    assert!(first.await.unwrap().is_some() && last.await.unwrap().is_some());
    assert!(begun.elapsed() < Duration::from_secs(20), "four calls of 1.5 s and more would have run one by one");
}

#[tokio::test]
async fn who_opens_connections_itself_gets_no_process_without_a_network() {
    let switches = ["-DREQUESTS=\"\\\"network\\\":true\""];
    let bench = Bench::new();
    let entry = apart(&bench, &switches, 10_000);
    let refusal = bench.lock(&entry).refusal();
    assert!(refusal.contains("has no network; write isolation = \"in_process\""), "{refusal}");
    let bench = Bench::new();
    let entry = bench.hostile(&switches).with("deadline_ms = 10000");
    let host = bench.lock(&entry).must_load();
    assert_eq!(signal(&host).await, Some(json!({})));
}

#[tokio::test]
async fn a_refusal_stands_without_its_code() {
    let bench = Bench::new();
    let entry = bench.misbehaving("enrich = \"reject_hugely\"").hooks(&["provider.enrich"]);
    let entry = entry.with("bind = [\"google\"]\ngrants = { claims = [] }\ndeadline_ms = 10000");
    let host = bench.lock(&entry).must_load();
    let enrichment = host.enrich(&provider("google"), &facts("192.0.2.7").claims).await;
    assert_eq!(enrichment.rejected, Some(("countersign.misbehaving".to_owned(), "rejected".to_owned())));
}
