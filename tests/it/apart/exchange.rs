//! Plugins exchanged under sign-ins, by SIGHUP and by the file alone, in both isolations: nobody notices, and nothing
//! is left behind.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{APART, start};
use crate::support::plugins::{Bench, Entry};
use crate::support::program::{Program, freeze, signal, until};
use crate::support::service::Setup;

const ID: &str = "countersign.office_hours";
const RELOADS: u32 = 50;
/// So many of them wait for the server to look at the file.
const UNTOLD: u32 = 5;
const WORKERS: usize = 4;
/// Neither this nor the rules run so long that the clock is looked at: what is counted is lost by exchanges alone.
const MAPPING: (&str, &str) = ("mapping/default.rhai", "fn map(s, out) { out.locale(s.claims.str(\"locale\")); }");

/// What a server holds of its plugins.
#[derive(Debug)]
struct Held {
    descriptors: Vec<String>,
    threads: Vec<String>,
    children: usize,
}

fn held(program: &Program) -> Held {
    let mut descriptors = program.descriptors();
    // As many connections to the database as the load made.
    descriptors.retain(|to| !to.contains("/db/"));
    descriptors.sort_unstable();
    let mut threads = program.threads();
    threads.retain(|name| name.starts_with("plugin"));
    Held { descriptors, threads, children: program.children().len() }
}

/// Signs in until it is told to stop; counts the answers that are tokens, and keeps the others.
async fn sign_in(program: Arc<Program>, worker: usize, stop: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let (mut signed_in, mut others) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let answer = program.sign_in(&program.issuer.token().subject(&format!("s-{worker}")).sign()).await;
        if answer.status == 200 && answer.body["access_token"].is_string() {
            signed_in += 1;
        } else {
            others.push(answer.text);
        }
    }
    (signed_in, others)
}

/// The example in C: a few bytes after its end make another file of it, which does the same.
struct Versions(Vec<u8>);

impl Versions {
    fn new(bench: &Bench) -> Self {
        Self(std::fs::read(&bench.office_hours().file).unwrap())
    }

    fn entry(&self, bench: &Bench, n: u32, isolation: &str) -> Entry {
        let bytes = [&self.0[..], &n.to_le_bytes()].concat();
        let entry = bench.install_bytes(&bytes, "office.so").id(ID);
        entry.with(&format!("isolation = \"{isolation}\"\ndeadline_ms = 30000\nmax_queued = 4096"))
    }
}

async fn exchanged_under_load(isolation: &str, mappings: Option<f64>) {
    let rules = r#"fn assess(s, risk) {
        if s.signals.plugin["countersign.office_hours"] == () { risk.deny("new_network"); }
    }"#;
    let mut bench = Bench::new();
    let versions = Versions::new(&bench);
    let first = versions.entry(&bench, 0, isolation);
    let policies = TempDir::new().unwrap();
    let setup = Setup::with_policies(policies.path(), &[("risk/_default.rhai", rules), MAPPING]);
    bench.relock(&first);
    let setup = Setup { plugins_lock: Some(bench.path("plugins.lock")), ..setup };
    let program = Arc::new(Program::start(setup).await);
    let admin_key = program.admin_key();
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> =
        (0..WORKERS).map(|worker| tokio::spawn(sign_in(Arc::clone(&program), worker, Arc::clone(&stop)))).collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = held(&program);

    for n in 1..=RELOADS {
        let next = versions.entry(&bench, n, isolation);
        bench.relock(&next);
        if n % (RELOADS / UNTOLD) != 1 {
            program.hang_up();
        }
        until("it is exchanged", async || program.plugin(&admin_key).await["sha256"] == *next.sha256).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut signed_in = 0;
    for task in load {
        let (tokens, others) = task.await.unwrap();
        assert_eq!(others, Vec::<String>::new(), "none but tokens");
        assert!(tokens > 10, "there was load");
        signed_in += tokens;
    }
    assert_eq!(program.metric("countersign_sign_ins_total").await, Some(signed_in as f64));
    assert_eq!(program.metric("countersign_plugin_reloads_total").await, Some(f64::from(RELOADS)));
    assert_eq!(program.metric("countersign_plugin_retired_mappings").await, mappings);
    let since = Instant::now();
    loop {
        let now = held(&program);
        let is_more = now.children > before.children
            || now.descriptors.len() > before.descriptors.len()
            || now.threads.len() > before.threads.len();
        if !is_more {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "left behind: {now:#?}; before: {before:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Longer than the runtime keeps the threads that read the file when it was told to.
    tokio::time::sleep(Duration::from_secs(12)).await;
    program.sign_in(&program.issuer.token().sign()).await.signed_in();
    let deaths = program.metric("countersign_plugin_process_deaths_total").await;
    assert_eq!(deaths, None, "whoever is told to end did not die, and whoever came instead goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_exchanges_of_a_process_lose_no_sign_in_and_leave_nothing_behind() {
    exchanged_under_load("process", Some(0.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_exchanges_in_the_server_lose_no_sign_in_and_leave_their_mappings_alone() {
    exchanged_under_load("in_process", Some(f64::from(RELOADS))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_read_the_file_while_it_starts_goes_on_starting() {
    let bench = Bench::new();
    let entry = bench.office_hours();
    let bench = bench.lock(&entry);
    let program = Program::begin(Setup { plugins_lock: Some(bench.write()), ..Setup::default() }).await;
    until("it has loaded the plugin", async || !program.logged("plugin loaded").is_empty()).await;
    program.hang_up();
    let program = program.ready().await;
    program.sign_in(&program.issuer.token().sign()).await.signed_in();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_takes_its_processes_along_even_one_that_hangs() {
    for hangs in [false, true] {
        let bench = Bench::new();
        let entry = bench.office_hours().with(APART);
        let (program, _bench) = start(bench, &entry, Setup::default()).await;
        let (server, pid) = (program.pid(), program.plugin_pid().expect("it runs"));
        if hangs {
            freeze(pid).await;
        }
        signal(server, Signal::SIGKILL);
        assert!(!program.ended().await.success());
        until("the process is gone", async || !Path::new(&format!("/proc/{pid}/stat")).exists()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_and_deaths_at_once_leave_one_process_and_sign_ins_that_need_none_go_on() {
    let mut bench = Bench::new();
    let versions = Versions::new(&bench);
    let first = versions.entry(&bench, 0, "process");
    bench.relock(&first);
    let policies = TempDir::new().unwrap();
    let setup = Setup::with_policies(policies.path(), &[("risk/_default.rhai", "fn assess(s, risk) {}"), MAPPING]);
    let setup = Setup { plugins_lock: Some(bench.path("plugins.lock")), ..setup };
    let program = Arc::new(Program::start(setup).await);
    let admin_key = program.admin_key();
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(sign_in(Arc::clone(&program), 0, Arc::clone(&stop)));
    for n in 1..=20 {
        let next = versions.entry(&bench, n, "process");
        bench.relock(&next);
        program.hang_up();
        // Somewhere in its start, its life, or its end.
        tokio::time::sleep(Duration::from_millis(u64::from(n) * 13 % 70)).await;
        for child in program.children() {
            // It may have gone meanwhile.
            let _ = nix::sys::signal::kill(Pid::from_raw(i32::try_from(child).unwrap()), Signal::SIGKILL);
        }
    }
    let last = versions.entry(&bench, 21, "process");
    bench.relock(&last);
    program.hang_up();
    until("the last one runs alone", async || {
        let shown = program.plugin(&admin_key).await;
        shown["sha256"] == *last.sha256 && shown.get("trouble").is_none() && program.children().len() == 1
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let (signed_in, others) = load.await.unwrap();
    assert_eq!(others, Vec::<String>::new());
    assert!(signed_in > 10, "there was load");
}
