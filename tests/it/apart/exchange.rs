//! Plugins exchanged under sign-ins, by SIGHUP and by the file alone, in both isolations: nobody notices, and nothing
//! is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::plugins::{Bench, Entry};
use crate::support::program::{Program, until};
use crate::support::service::Setup;

const ID: &str = "countersign.office_hours";
const RELOADS: u32 = 50;
/// So many of them wait for the server to look at the file.
const UNTOLD: u32 = 5;
const WORKERS: usize = 4;

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

async fn exchanged_under_load(isolation: &str, mappings: Option<f64>) {
    let rules = r#"fn assess(s, risk) {
        if s.signals.plugin["countersign.office_hours"] == () { risk.deny("new_network"); }
    }"#;
    let mut bench = Bench::new();
    let built = std::fs::read(&bench.office_hours().file).unwrap();
    // A few bytes after the end make another file of it, which does the same.
    let entry = |bench: &Bench, n: u32| -> Entry {
        let bytes = [&built[..], &n.to_le_bytes()].concat();
        let entry = bench.install_bytes(&bytes, "office.so").id(ID);
        entry.with(&format!("isolation = \"{isolation}\"\ndeadline_ms = 30000\nmax_queued = 4096"))
    };
    let first = entry(&bench, 0);
    let policies = TempDir::new().unwrap();
    let setup = Setup::with_policies(policies.path(), &[("risk/_default.rhai", rules)]);
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
        let next = entry(&bench, n);
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
