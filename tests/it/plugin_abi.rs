//! The plugin host against real libraries: those of this repository, and C ones that are broken on purpose.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use countersign::plugin_host::{PluginHost, Services, lock_entry};
use countersign::signin::ports::{Enricher, Enrichment, SignalSource};
use serde_json::{Value, json};

use crate::support::plugins::{Bench, IP_LIST, MISBEHAVING, facts, provider, rust_plugin, target_dir};

const OFFICE: &str = "config = { lists = { office = [\"192.0.2.0/24\"] } }";
const SIGNAL_MODES: [&str; 11] = [
    "panic",
    "garbage",
    "array",
    "deep",
    "large",
    "huge",
    "wrong_utf8",
    "silent",
    "unavailable",
    "patient",
    "decline",
];

async fn signal(host: &PluginHost, id: &str) -> Option<Value> {
    let mut all = host.signals(&facts("192.0.2.7")).await;
    all.remove(id).unwrap_or_else(|| panic!("{id} was not asked"))
}

async fn enrich(host: &PluginHost, name: &str) -> Enrichment {
    host.enrich(&provider(name), &facts("192.0.2.7").claims).await
}

fn enriching(bench: &Bench, mode: &str, claims: &str) -> crate::support::plugins::Entry {
    bench
        .misbehaving(&format!("enrich = \"{mode}\", hang_ms = 30000"))
        .hooks(&["provider.enrich"])
        .with("bind = [\"google\"]")
        .with(&format!("grants = {{ claims = {claims} }}"))
        .with(if mode == "patient" { "deadline_ms = 300" } else { "deadline_ms = 10000" })
}

#[tokio::test]
async fn a_rust_and_a_c_plugin_answer_side_by_side() {
    let bench = Bench::new();
    let list =
        bench.rust(IP_LIST, "countersign.ip_list").with(OFFICE).with("grants = { facts = [\"request.ip\"] }");
    let hours = bench.office_hours().with("config = { first_day = 2, last_day = 2, from_hour = 22, to_hour = 23 }");
    let (list, hours) = (list.with("deadline_ms = 5000"), hours.with("deadline_ms = 5000"));
    let host = bench.lock(&list).lock(&hours).must_load();
    assert!(!host.is_empty());
    let all = host.signals(&facts("192.0.2.7")).await;
    assert_eq!(all["countersign.ip_list"], Some(json!({ "listed": ["office"] })));
    let tuesday = json!({ "office_hours": true, "weekday": 2, "hour": 22 });
    assert_eq!(all["countersign.office_hours"], Some(tuesday));
    let shown = host.describe();
    assert_eq!(shown.len(), 2);
    assert_eq!((shown[0].id.as_str(), shown[0].sha256.as_str()), ("countersign.ip_list", list.sha256.as_str()));
    assert_eq!((shown[1].vendor.as_str(), shown[1].hooks[0].as_str()), ("Countersign", "signal.signals"));
}

#[tokio::test]
async fn without_plugins_nothing_is_asked() {
    for host in [PluginHost::none(), Bench::new().must_load()] {
        assert!(SignalSource::is_empty(&host));
        assert!(host.describe().is_empty());
        assert!(host.signals(&facts("192.0.2.7")).await.is_empty());
        let enrichment = enrich(&host, "google").await;
        assert!(enrichment.added.is_empty() && enrichment.missing.is_empty() && enrichment.rejected.is_none());
    }
}

#[tokio::test]
async fn what_is_not_granted_is_not_shown() {
    let bench = Bench::new();
    let list = bench.rust(IP_LIST, "countersign.ip_list").with(OFFICE).with("deadline_ms = 5000");
    let host = bench.lock(&list).must_load();
    assert_eq!(signal(&host, "countersign.ip_list").await, None, "without the address it has nothing to say");
    for (claims, seen) in [
        ("[]", json!({})),
        ("[\"sub\"]", json!({ "sub": "s-1" })),
        ("[\"*\"]", json!({ "iss": "https://issuer.example", "sub": "s-1", "email": "a@example.com" })),
        ("[\"nonce\"]", json!({ "nonce": "n" })),
    ] {
        let bench = Bench::new();
        let entry = enriching(&bench, "ok", claims);
        let enrichment = enrich(&bench.lock(&entry).must_load(), "google").await;
        assert_eq!(enrichment.added["countersign.misbehaving"]["claims"], seen, "{claims}");
    }
}

#[tokio::test]
async fn bad_answers_of_signals_are_unknown_facts_and_the_host_lives() {
    for mode in SIGNAL_MODES {
        let bench = Bench::new();
        let deadline = if mode == "patient" { "deadline_ms = 300" } else { "deadline_ms = 10000" };
        let entry = bench.misbehaving(&format!("signals = \"{mode}\"")).with(deadline);
        let host = bench.lock(&entry).must_load();
        for _ in 0..2 {
            assert_eq!(signal(&host, "countersign.misbehaving").await, None, "{mode}");
        }
    }
}

#[tokio::test]
async fn bad_answers_of_enrich_name_the_plugin_as_missing() {
    for mode in SIGNAL_MODES {
        let bench = Bench::new();
        let entry = enriching(&bench, mode, "[]").with("max_in_flight = 2");
        let enrichment = enrich(&bench.lock(&entry).must_load(), "google").await;
        assert!(enrichment.added.is_empty() && enrichment.rejected.is_none(), "{mode}");
        let missing: &[&str] = if mode == "decline" { &[] } else { &["countersign.misbehaving"] };
        assert_eq!(enrichment.missing, missing, "{mode}");
    }
}

#[tokio::test]
async fn a_refusal_by_enrich_carries_a_code_that_is_one() {
    for (mode, code) in [("reject", "sanctioned"), ("reject_badly", "rejected")] {
        let bench = Bench::new();
        let entry = enriching(&bench, mode, "[]");
        let enrichment = enrich(&bench.lock(&entry).must_load(), "google").await;
        let expected = ("countersign.misbehaving".to_owned(), code.to_owned());
        assert_eq!(enrichment.rejected, Some(expected));
        assert!(enrichment.missing.is_empty());
    }
}

#[tokio::test]
async fn a_signal_cannot_refuse() {
    let bench = Bench::new();
    let entry = bench.misbehaving("signals = \"reject\"").with("deadline_ms = 5000");
    assert_eq!(signal(&bench.lock(&entry).must_load(), "countersign.misbehaving").await, None);
}

#[tokio::test]
async fn enrich_is_asked_only_for_the_providers_it_is_bound_to() {
    for (bind, asked) in
        [("google", true), ("default/google", true), ("*", true), ("acme/google", false), ("okta", false)]
    {
        let bench = Bench::new();
        let entry = bench
            .misbehaving("enrich = \"ok\"")
            .hooks(&["provider.enrich"])
            .with(&format!("bind = [\"{bind}\"]\ngrants = {{ claims = [] }}\ndeadline_ms = 5000"));
        let enrichment = enrich(&bench.lock(&entry).must_load(), "google").await;
        assert_eq!(!enrichment.added.is_empty(), asked, "{bind}");
        assert!(enrichment.missing.is_empty());
    }
}

#[tokio::test]
async fn a_hanging_plugin_does_not_hold_the_sign_in() {
    let bench = Bench::new();
    let entry = bench.misbehaving("signals = \"hang\", hang_ms = 30000").with("deadline_ms = 50");
    let list = bench.rust(IP_LIST, "countersign.ip_list").with(OFFICE).with("deadline_ms = 5000");
    let list = list.with("grants = { facts = [\"request.ip\"] }");
    let host = bench.lock(&entry).lock(&list).must_load();
    let begun = Instant::now();
    let all = host.signals(&facts("192.0.2.7")).await;
    assert_eq!(all["countersign.misbehaving"], None);
    assert_eq!(all["countersign.ip_list"], Some(json!({ "listed": ["office"] })), "the other one is not harmed");
    assert!(begun.elapsed() < Duration::from_secs(15), "it sleeps for 30 s");
}

#[tokio::test]
async fn three_stuck_calls_make_a_plugin_unavailable_until_they_return() {
    let bench = Bench::new();
    let entry = bench.misbehaving("signals = \"hang_thrice\", hang_ms = 6000").with("deadline_ms = 1000");
    let host = bench.lock(&entry).must_load();
    let id = "countersign.misbehaving";
    let three = futures_util::future::join3(signal(&host, id), signal(&host, id), signal(&host, id)).await;
    assert_eq!(three, (None, None, None));
    assert_eq!(signal(&host, id).await, None, "the fourth call would answer, but is not let in");
    let patience = Instant::now();
    while signal(&host, id).await.is_none() {
        assert!(patience.elapsed() < Duration::from_secs(60), "it never came back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn calls_beyond_the_queue_are_refused_at_once() {
    let bench = Bench::new();
    let entry = bench
        .misbehaving("signals = \"hang\", hang_ms = 200")
        .with("deadline_ms = 20000\nmax_in_flight = 1\nmax_queued = 1");
    let host = bench.lock(&entry).must_load();
    let id = "countersign.misbehaving";
    let (first, second, third) =
        futures_util::future::join3(signal(&host, id), signal(&host, id), signal(&host, id)).await;
    assert!(first.is_some() && second.is_some() && third.is_none());
}

#[tokio::test]
async fn log_lines_of_a_plugin_harm_nobody() {
    let bench = Bench::new();
    let entry = bench.misbehaving("signals = \"chatter\"").with("deadline_ms = 5000");
    assert!(signal(&bench.lock(&entry).must_load(), "countersign.misbehaving").await.is_some());
}

#[tokio::test]
async fn calls_of_a_plugin_that_is_not_thread_safe_never_overlap() {
    let bench = Bench::new();
    let entry = bench.fixture(&["-DFLAGS=0u"]).with("deadline_ms = 20000\nmax_in_flight = 8");
    let host = bench.lock(&entry).must_load();
    let calls = (0..12).map(|_| signal(&host, "test.fixture"));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer, Some(json!({ "overlaps": 0 })));
    }
}

#[tokio::test]
async fn odd_pointers_and_statuses_of_a_call_are_no_answer() {
    for switch in ["-DNULL_ANSWER", "-DNULL_SINK", "-DSTATUS=99", "-DSTATUS=-1", "-DSTATUS=CS_INVALID"] {
        let bench = Bench::new();
        let entry = bench.fixture(&[switch]).with("deadline_ms = 5000");
        assert_eq!(signal(&bench.lock(&entry).must_load(), "test.fixture").await, None, "{switch}");
    }
}

#[tokio::test]
async fn rust_52138_abi_stable_39_libloading_5_the_instance_is_destroyed_after_the_host_is_gone() {
    let bench = Bench::new();
    let file = bench.path("destroyed");
    let entry = bench.fixture(&[&format!("-DDESTROY_FILE=\"{}\"", file.display())]).with("deadline_ms = 5000");
    let bench = bench.lock(&entry);
    let host = bench.must_load();
    assert!(signal(&host, "test.fixture").await.is_some());
    assert!(!file.exists());
    drop(host);
    let patience = Instant::now();
    while !file.exists() {
        assert!(patience.elapsed() < Duration::from_secs(20), "destroy was not called");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_file_with_another_hash_is_refused_before_any_of_its_code_runs() {
    let bench = Bench::new();
    let file = bench.path("constructed");
    let mut entry = bench.fixture(&[&format!("-DCONSTRUCTOR_FILE=\"{}\"", file.display())]);
    let right = std::mem::replace(&mut entry.sha256, "0".repeat(64));
    let bench = bench.lock(&entry);
    let refusal = bench.refusal();
    assert!(refusal.contains(&right) && refusal.contains("nothing of it was run"), "{refusal}");
    assert!(!file.exists(), "the constructor ran");
    let copies = fs::read_dir(bench.path("store")).unwrap();
    let copies = copies.filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "so"));
    assert_eq!(copies.count(), 0, "no copy is kept");
    // The proof that the constructor would have told: with the right hash it does.
    entry.sha256 = right;
    let other = Bench::new().lock(&entry);
    other.must_load();
    assert!(file.exists());
}

#[test]
fn files_and_directories_that_others_can_write_are_refused() {
    let bench = Bench::new();
    let entry = bench.fixture(&[]);
    let bench = bench.lock(&entry);
    for mode in [0o777, 0o775, 0o757] {
        fs::set_permissions(&entry.file, Permissions::from_mode(mode)).unwrap();
        assert!(bench.refusal().contains("chmod go-w"));
    }
    fs::set_permissions(&entry.file, Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(bench.path("lib"), Permissions::from_mode(0o777)).unwrap();
    assert!(bench.refusal().contains("plugin directory"));
    fs::set_permissions(bench.path("lib"), Permissions::from_mode(0o755)).unwrap();
    bench.must_load();
    fs::set_permissions(bench.path("store"), Permissions::from_mode(0o750)).unwrap();
    assert!(bench.refusal().contains("mode 0700"));
    fs::set_permissions(bench.path("store"), Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(bench.path("plugins.lock"), Permissions::from_mode(0o666)).unwrap();
    let refusal = PluginHost::load(&bench.path("plugins.lock"), &bench.path("store"), Services::default())
        .err()
        .unwrap()
        .to_string();
    assert!(refusal.contains("plugin lock must be a file"), "{refusal}");
    fs::set_permissions(bench.path(""), Permissions::from_mode(0o777)).unwrap();
    assert!(bench.refusal().contains("directory of the plugin lock"));
}

#[test]
fn links_directories_and_absent_files_are_refused() {
    let bench = Bench::new();
    let mut entry = bench.fixture(&[]);
    let real = entry.file.clone();
    let link = bench.path("lib").join("link.so");
    symlink(&real, &link).unwrap();
    for (file, part) in [
        (link, "symbolic link"),
        (bench.path("lib"), "regular file"),
        (bench.path("lib").join("absent.so"), "cannot be found"),
    ] {
        entry.file = file;
        let other = Bench::new().lock(&entry);
        let refusal = other.refusal();
        assert!(refusal.contains(part) && refusal.contains(&entry.file.display().to_string()), "{refusal}");
    }
    // A pipe would keep the server until somebody writes to it.
    let pipe = bench.path("pipe");
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().unwrap().success());
    let piped = PluginHost::load(&pipe, &bench.path("store"), Services::default()).err().unwrap().to_string();
    assert!(piped.contains("plugin lock must be a file"), "{piped}");
    entry.file = real;
    let bench = bench.lock(&entry);
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), bench.path("store")).unwrap();
    assert!(bench.refusal().contains("not a link"));
}

#[test]
fn a_library_that_breaks_the_handshake_is_refused_with_a_message_that_helps() {
    for (switch, parts) in [
        ("-DMAJOR=2", &["needs ABI 2", "offers 1.0", "rebuild"][..]),
        ("-DSIZE=16", &["cs_plugin says 16 bytes"]),
        ("-DCREATE=NULL", &["create is NULL"]),
        ("-DDESTROY=NULL", &["destroy is NULL"]),
        ("-DGET_EXTENSION=NULL", &["get_extension is NULL"]),
        ("-DNULL_TABLE", &["no table"]),
        ("-DNO_ENTRY", &["countersign_plugin_entry"]),
        ("-DID=NULL", &["id is NULL"]),
        ("-DID=\"\"", &["its id is not UTF-8"]),
        ("-DID=\"a\\nb\"", &["control characters"]),
        ("-DID=\"\\xff\"", &["its id is not UTF-8"]),
        ("-DID=\"test.other\"", &["\"test.other\"", "the lock says \"test.fixture\""]),
        ("-DNO_EXTENSION", &["does not implement the hook signal.signals"]),
        ("-DOP=NULL", &["does not implement the hook signal.signals"]),
        ("-DEXT_SIZE=8", &["cs_ext_signal says 8 bytes and needs at least 16"]),
        ("-DREFUSE_SILENTLY", &["status 77", "no message"]),
    ] {
        let bench = Bench::new();
        let entry = bench.fixture(&[switch]);
        let refusal = bench.lock(&entry).refusal();
        for part in parts.iter().copied().chain([entry.sha256.as_str(), "c.so", "plugin test.fixture"]) {
            assert!(refusal.contains(part), "{switch}: {refusal}");
        }
    }
}

#[test]
fn another_version_than_the_locked_one_is_refused() {
    let bench = Bench::new();
    let entry = bench.fixture(&[]).version("1.0.1");
    let refusal = bench.lock(&entry).refusal();
    assert!(refusal.contains("its version is \"1.0.0\", but the lock says \"1.0.1\""), "{refusal}");
}

#[test]
fn a_file_that_is_no_library_is_refused() {
    for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF garbage"] {
        let bench = Bench::new();
        let entry = bench.install_bytes(bytes, "no.so");
        let refusal = bench.lock(&entry).refusal();
        assert!(refusal.contains("not a loadable library"), "{refusal}");
    }
}

#[test]
fn a_panic_and_a_refusal_in_create_are_messages() {
    for (config, part) in [
        ("create = \"panic\"", "create panicked"),
        ("create = \"reject\"", "asked to refuse"),
        ("unknown = 1", "unknown field"),
    ] {
        let bench = Bench::new();
        let entry = bench.misbehaving(config);
        let refusal = bench.lock(&entry).refusal();
        assert!(refusal.contains(part), "{refusal}");
    }
    let bench = Bench::new();
    let entry = bench.office_hours().with("config = { from_hour = 20, to_hour = 8 }");
    assert!(bench.lock(&entry).refusal().contains("to_hour is 1 to 24 and after it"));
}

#[test]
fn a_plugin_that_hangs_in_create_does_not_hold_the_start_for_ever() {
    let bench = Bench::new();
    let entry = bench.misbehaving("create = \"hang\", hang_ms = 60000");
    assert!(bench.lock(&entry).refusal().contains("did not start within 10 s"));
}

#[tokio::test]
async fn one_plugin_runs_twice_from_two_copies_with_their_own_state() {
    let bench = Bench::new();
    let grant = "grants = { facts = [\"request.ip\"] }\ndeadline_ms = 5000";
    let first = bench.rust(IP_LIST, "countersign.ip_list").with(OFFICE).with(grant);
    // A byte after the end changes the hash and nothing else.
    let mut bytes = fs::read(rust_plugin(IP_LIST)).unwrap();
    bytes.push(0);
    let other = Bench::new();
    let second = other.install_bytes(&bytes, "again.so").id("countersign.ip_list").version(&first.version);
    let second = second.with("config = { lists = { lab = [\"192.0.2.7\"] } }").with(grant);
    let (first, second) = (bench.lock(&first).must_load(), other.lock(&second).must_load());
    assert_ne!(first.describe()[0].sha256, second.describe()[0].sha256);
    for _ in 0..2 {
        assert_eq!(signal(&first, "countersign.ip_list").await, Some(json!({ "listed": ["office"] })));
        assert_eq!(signal(&second, "countersign.ip_list").await, Some(json!({ "listed": ["lab"] })));
    }
}

#[tokio::test]
async fn the_file_may_be_exchanged_while_its_copy_runs() {
    let bench = Bench::new();
    let entry = bench.fixture(&[]).with("deadline_ms = 5000");
    let bench = bench.lock(&entry);
    let host = bench.must_load();
    fs::write(&entry.file, b"overwritten in place").unwrap();
    assert!(signal(&host, "test.fixture").await.is_some());
    let copies: Vec<_> = fs::read_dir(bench.path("store"))
        .unwrap()
        .map(|f| f.unwrap())
        .filter(|f| f.path().extension().is_some_and(|e| e == "so"))
        .collect();
    assert_eq!(copies.len(), 1);
    assert_eq!(copies[0].file_name().to_str(), Some(format!("{}.so", entry.sha256).as_str()));
    assert_eq!(copies[0].metadata().unwrap().permissions().mode() & 0o777, 0o500);
}

#[test]
fn the_entry_that_is_written_for_a_plugin_loads_it() {
    let bench = Bench::new();
    let list = bench.rust(IP_LIST, "countersign.ip_list");
    let text = lock_entry(&list.file, bench.services()).unwrap();
    assert!(text.contains("facts = [\"request.ip\"]"), "{text}");
    let bench = bench.lock_text(&text.replace("config = {}", OFFICE));
    assert_eq!(bench.must_load().describe()[0].sha256, list.sha256);

    let hours = Bench::new();
    let text = lock_entry(&hours.office_hours().file, hours.services()).unwrap();
    assert_eq!(hours.lock_text(&text).must_load().describe()[0].id, "countersign.office_hours");

    let both = Bench::new();
    let text = lock_entry(&both.rust(MISBEHAVING, "").file, both.services()).unwrap();
    assert!(text.contains("hooks = [\"signal.signals\", \"provider.enrich\", "), "{text}");
    assert!(both.lock_text(&text).refusal().contains("needs bind"), "the operator must name the providers");
}

#[test]
fn no_entry_is_written_for_what_is_no_plugin() {
    let bench = Bench::new();
    let wrong = bench.install_bytes(b"text", "no.so");
    assert!(lock_entry(&wrong.file, bench.services()).unwrap_err().to_string().contains("not a loadable library"));
    let old = bench.fixture(&["-DMAJOR=7"]);
    assert!(lock_entry(&old.file, bench.services()).unwrap_err().to_string().contains("needs ABI 7"));
    assert!(lock_entry(Path::new("absent.so"), bench.services()).is_err());
}

#[test]
fn a_plugin_does_not_compile_where_a_panic_would_end_the_host() {
    let bench = Bench::new();
    rust_plugin(IP_LIST);
    let source = bench.path("plugin.rs");
    let text = "use countersign_plugin_sdk::*;
        struct P;
        impl Plugin for P { fn create(_: &Host, _: Config) -> Result<Self, PluginError> { Ok(P) } }
        impl Signal for P { fn signals(&self, _: &Call<'_>, _: SignalInput) -> Outcome { Outcome::Declined } }
        export!(P: [signal], id = \"test.p\", vendor = \"Test\");";
    fs::write(&source, text).unwrap();
    let debug = target_dir().join("debug");
    let compile = |panic: &str| {
        let sdk = format!("countersign_plugin_sdk={}", debug.join("libcountersign_plugin_sdk.rlib").display());
        Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args(["--edition", "2024", "--crate-type", "cdylib", "--emit", "metadata", "--extern", &sdk])
            .args(["-C", &format!("panic={panic}"), "-L"])
            .arg(format!("dependency={}", debug.join("deps").display()))
            .env("CARGO_PKG_VERSION", "0.1.0")
            .arg("--out-dir")
            .arg(bench.path("lib"))
            .arg(&source)
            .output()
            .unwrap()
    };
    let abort = compile("abort");
    let said = String::from_utf8_lossy(&abort.stderr).into_owned();
    assert!(!abort.status.success() && said.contains("must be built with panic = \"unwind\""), "{said}");
    let unwind = compile("unwind");
    assert!(unwind.status.success(), "{}", String::from_utf8_lossy(&unwind.stderr));
}
