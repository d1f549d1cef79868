//! Exchanging plugins at the worst moment: files half there, locks half written, plugins that hang or refuse, calls
//! inside, and servers that end.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign::plugin_host::{PluginHost, watch};
use countersign::signin::ports::SignalSource;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::crash::{Process, post};
use crate::support::clock::TestClock;
use crate::support::issuer::TestIssuer;
use crate::support::plugins::{Bench, Entry, facts};

const ID: &str = "test.fixture";
const PATIENCE: Duration = Duration::from_secs(60);

async fn signal(host: &PluginHost, id: &str) -> Option<Value> {
    host.signals(&facts("192.0.2.7")).await.remove(id).expect("it was asked")
}

async fn until(what: &str, reached: impl AsyncFn() -> bool) {
    let since = Instant::now();
    while !reached().await {
        assert!(since.elapsed() < PATIENCE, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn note(file: &Path) -> String {
    format!("-DNOTE_FILE=\"{}\"", file.display())
}

fn notes(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |seen| seen.len())
}

fn text_of(entries: &[&Entry]) -> String {
    let one = |e: &&Entry| {
        let Entry { id, version, file, sha256, hooks, rest } = e;
        let file = file.display();
        format!(
            "[[plugin]]\nid = \"{id}\"\nversion = \"{version}\"\nsha256 = \"{sha256}\"\nfile = \"{file}\"\n\
             hooks = {hooks}\n{rest}\n"
        )
    };
    entries.iter().map(one).collect()
}

/// A host with one plugin that answers, under watch.
fn watched() -> (Bench, Entry, Arc<PluginHost>) {
    let mut bench = Bench::new();
    let first = bench.office_hours().with("deadline_ms = 10000");
    bench.relock(&first);
    let host = Arc::new(bench.must_load());
    (bench, first, host)
}

fn rename_into(lock: &Path, text: &str) {
    let next = lock.with_extension("next");
    fs::write(&next, text).unwrap();
    fs::rename(next, lock).unwrap();
}

#[tokio::test]
async fn a_plugin_that_refuses_is_started_once_for_a_lock_and_not_every_second() {
    let (bench, first, host) = watched();
    let _watch = watch(&host).unwrap();
    let (lock, file) = (bench.path("plugins.lock"), bench.path("started"));
    let refusing = bench.hostile(&["-DREFUSE", "-DEARLY=note", &note(&file)]);
    rename_into(&lock, &text_of(&[&first, &refusing]));
    until("it was tried", async || notes(&file) > 0).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(notes(&file), 1, "started again although nothing changed");
    assert!(signal(&host, "countersign.office_hours").await.is_some(), "the old one goes on");
    assert_eq!(host.describe().len(), 1);
    assert!(host.reload().is_err(), "who asks for it gets it tried");
    let fine = bench.hostile(&["-DACT=nothing"]).with("deadline_ms = 10000");
    rename_into(&lock, &text_of(&[&first, &fine]));
    until("the mended lock is used", async || host.describe().len() == 2).await;
}

#[tokio::test]
async fn nothing_runs_while_a_file_of_the_lock_is_not_the_locked_one_and_it_is_used_once_it_is() {
    let (bench, first, host) = watched();
    let _watch = watch(&host).unwrap();
    let (lock, file) = (bench.path("plugins.lock"), bench.path("started"));
    let new = bench.hostile(&["-DEARLY=note", &note(&file)]);
    let built = fs::read(&new.file).unwrap();
    let early = bench.install_bytes(&built, "early.so").with("deadline_ms = 10000");
    let mut late = bench.rust(crate::support::plugins::IP_LIST, "countersign.ip_list").with("deadline_ms = 10000");
    late = late.with("config = { lists = { lab = [\"192.0.2.7\"] } }");
    let whole = fs::read(&late.file).unwrap();
    late.file = bench.path("lib/late.so");
    // Half of it is there.
    fs::write(&late.file, &whole[..whole.len() / 2]).unwrap();
    fs::set_permissions(&late.file, Permissions::from_mode(0o755)).unwrap();
    rename_into(&lock, &text_of(&[&first, &early, &late]));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((notes(&file), host.describe().len()), (0, 1), "the first ran before the second was looked at");
    fs::write(&late.file, &whole).unwrap();
    until("all are there", async || host.describe().len() == 3).await;
    assert_eq!(notes(&file), 1);
}

#[tokio::test]
async fn a_lock_that_is_written_in_place_takes_no_plugin_out_meanwhile() {
    let (bench, first, host) = watched();
    let _watch = watch(&host).unwrap();
    let lock = bench.path("plugins.lock");
    for round in 0..4 {
        // An editor that empties the file first, and takes its time.
        fs::write(&lock, "").unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(700) {
            assert_eq!(host.describe().len(), 1, "round {round}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fs::write(&lock, text_of(&[&first])).unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    fs::write(&lock, "").unwrap();
    until("what stays empty is meant", async || host.describe().is_empty()).await;
}

#[tokio::test]
async fn reloads_at_once_start_a_plugin_once_and_the_old_one_answers_meanwhile() {
    let (bench, first, host) = watched();
    let slow = bench.misbehaving("create = \"hang\", hang_ms = 3000").with("deadline_ms = 10000");
    let changed = bench.office_hours().with("deadline_ms = 9000");
    assert_eq!(first.sha256, changed.sha256);
    rename_into(&bench.path("plugins.lock"), &text_of(&[&changed, &slow]));
    let reloads: Vec<_> = (0..4)
        .map(|_| {
            let host = Arc::clone(&host);
            std::thread::spawn(move || host.reload().unwrap())
        })
        .collect();
    let mut answered = 0;
    while reloads.iter().any(|r| !r.is_finished()) {
        assert!(signal(&host, "countersign.office_hours").await.is_some(), "the old one or the new one answers");
        answered += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(answered > 10, "there was a time between");
    let done: Vec<_> = reloads.into_iter().filter_map(|r| r.join().unwrap()).collect();
    assert_eq!(done.len(), 1, "{done:?}");
    assert_eq!((done[0].started.len(), done[0].retired.len()), (2, 1));
}

#[tokio::test]
async fn a_plugin_that_hangs_while_it_starts_changes_nothing_and_is_destroyed_when_it_comes() {
    let (bench, first, host) = watched();
    let slow = bench.misbehaving("create = \"hang\", hang_ms = 12000");
    rename_into(&bench.path("plugins.lock"), &text_of(&[&first, &slow]));
    let reloading = Arc::clone(&host);
    let refused = tokio::task::spawn_blocking(move || reloading.reload()).await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("did not start within 10 s"), "{refused}");
    assert_eq!(host.describe().len(), 1);
    assert!(signal(&host, "countersign.office_hours").await.is_some());
}

#[tokio::test]
async fn a_new_configuration_that_is_refused_does_not_reach_the_running_plugin() {
    let mut bench = Bench::new();
    let entry = |bench: &Bench, pad: usize| {
        let entry = bench.hostile(&["-DACT=tell_config"]).with("deadline_ms = 10000");
        entry.with(&format!("config = {{ pad = \"{}\" }}", "x".repeat(pad)))
    };
    let (first, refused, next) = (entry(&bench, 1), entry(&bench, 2000), entry(&bench, 3));
    assert_eq!(first.sha256, refused.sha256, "the same library");
    bench.relock(&first);
    let host = bench.must_load();
    let told = signal(&host, ID).await;
    bench.relock(&refused);
    assert!(host.reload().is_err());
    assert_eq!(signal(&host, ID).await, told);
    bench.relock(&next);
    assert!(host.reload().is_ok());
    assert_ne!(signal(&host, ID).await, told);
}

#[tokio::test]
async fn an_exchanged_plugin_is_destroyed_after_its_last_call_and_not_before() {
    let mut bench = Bench::new();
    let file = bench.path("destroyed");
    let slow = bench.hostile(&["-DACT=slow", "-DNOTE_END", &note(&file)]).with("deadline_ms = 50");
    bench.relock(&slow);
    let host = bench.must_load();
    // Nobody waits for it any more when it is exchanged; it is still inside, and would end this test if destroyed.
    assert_eq!(signal(&host, ID).await, None);
    let next = bench.office_hours();
    bench.relock(&next);
    assert_eq!(host.reload().unwrap().unwrap().retired, [ID]);
    assert_eq!(notes(&file), 0, "a call is inside");
    until("it is destroyed", async || notes(&file) == 1).await;
}

#[test]
fn a_copy_with_another_content_is_written_anew() {
    let bench = Bench::new();
    let entry = bench.office_hours().with("isolation = \"process\"");
    let bench = bench.lock(&entry);
    drop(bench.must_load());
    let copy = bench.path("store").join(format!("{}.so", entry.sha256));
    fs::remove_file(&copy).unwrap();
    fs::write(&copy, "another").unwrap();
    drop(bench.must_load());
    assert_eq!(fs::read(&copy).unwrap(), fs::read(&entry.file).unwrap());
    let victim = bench.path("victim");
    fs::write(&victim, "kept").unwrap();
    fs::remove_file(&copy).unwrap();
    symlink(&victim, &copy).unwrap();
    drop(bench.must_load());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");
    assert!(!fs::symlink_metadata(&copy).unwrap().is_symlink());
    fs::remove_file(&copy).unwrap();
    fs::create_dir(&copy).unwrap();
    assert!(bench.refusal().contains("the private copy of a plugin cannot be written"));
}

/// Starts `serve` with these plugins, and gives the place of its data and of its log.
async fn serve(bench: &Bench, dir: &Path, issuer: &str, client: &reqwest::Client) -> (Process, String) {
    let path = |name: &str| dir.join(name).display().to_string();
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let text = format!(
        "[server]\npublic_url = \"http://127.0.0.1:8080\"\nallow_insecure_issuers = true\n\
         [limits]\nsign_ins_per_minute = 0\n\
         [store]\nurl = \"sqlite://{}\"\n[secrets]\nmaster_key_file = {:?}\n[policies]\ndir = {policies:?}\n\
         [plugins]\nlock = {:?}\n[[tenants]]\nid = \"default\"\n\
         [[providers]]\ntenant = \"default\"\nname = \"acme\"\nissuer = {issuer:?}\nclient_ids = [\"app-web\"]\n",
        path("countersign.db"),
        path("master.key"),
        bench.path("plugins.lock"),
    );
    let config = dir.join("countersign.toml");
    fs::write(&config, text).unwrap();
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(["serve", "--listen", &listen, "--config"]).arg(&config).stdout(Stdio::null());
    command.stderr(fs::File::create(dir.join("log")).unwrap());
    let process = Process(command.spawn().unwrap());
    until("the server is ready", async || {
        let ready = client.get(format!("http://{listen}/health/ready")).send().await;
        ready.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    (process, format!("http://{listen}/auth/id-token/signin"))
}

#[tokio::test]
async fn a_server_that_is_stopped_blames_no_plugin_and_its_log_is_not_flooded() {
    let mut bench = Bench::new();
    let hanging = bench.misbehaving("signals = \"hang\", hang_ms = 60000").with("deadline_ms = 50");
    let loud = bench.hostile(&["-DACT=log_often"]).with("deadline_ms = 20000");
    bench.relock(&hanging);
    rename_into(&bench.path("plugins.lock"), &text_of(&[&hanging, &loud]));
    let (dir, issuer) = (TempDir::new().unwrap(), TestIssuer::start(TestClock::real()).await);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for round in 0..3 {
        let (mut server, url) = serve(&bench, dir.path(), &issuer.url, &client).await;
        let log = || fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(!log().contains("kept out"), "round {round}: {}", log());
        let begun = Instant::now();
        let token = issuer.token().claim("jti", format!("t-{round}")).sign();
        let (status, body) = post(&client, &url, &json!({ "id_token": token, "provider": "acme" })).await.unwrap();
        assert_eq!(status, 200, "{body}");
        let (seconds, lines) = (begun.elapsed().as_secs(), log().matches("flood").count() as u64);
        assert!((1..=(seconds + 3) * 200).contains(&lines), "{lines} lines in {seconds} s");
        // One call hangs in the first plugin now.
        kill(Pid::from_raw(i32::try_from(server.0.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(server.0.wait().unwrap().success());
    }
}
