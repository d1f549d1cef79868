//! The commands for plugins, the examples in other languages, and the README's way from nothing to a loaded
//! plugin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use countersign::plugin_host::{PluginHost, Services};
use countersign::signin::ports::SignalSource;
use serde_json::{Value, json};

use crate::support::plugins::{Bench, IP_LIST, MISBEHAVING, facts, rust_plugin, target_dir};
use crate::support::service::{Service, Setup};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_countersign"))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn check(file: &Path, config: &str) -> (Option<i32>, String) {
    let output = program().args(["plugin", "check", "--config", config]).arg(file).output().unwrap();
    (output.status.code(), text(&output))
}

#[test]
fn check_passes_what_behaves_and_reports_what_it_tried() {
    let (code, report) = check(&rust_plugin(IP_LIST), "{\"lists\": {\"lab\": [\"192.0.2.7\"]}}");
    assert_eq!(code, Some(0), "{report}");
    for part in [
        "handshake",
        "signal.signals: an ordinary input gives CS_OK",
        "signal.signals.out.json",
        "200 brackets",
        "KiB more",
        "0 findings",
    ] {
        assert!(report.contains(part), "{part} in {report}");
    }
    let bench = Bench::new();
    let (code, report) = check(&bench.office_hours().file, "{}");
    assert_eq!(code, Some(0), "{report}");
}

#[test]
fn check_finds_what_does_not() {
    let bench = Bench::new();
    let wrong = bench.install_bytes(b"text", "no.so").file;
    for (file, config, part) in [
        (rust_plugin(MISBEHAVING), json!({"signals": "huge"}), "more than 1 MiB"),
        (rust_plugin(MISBEHAVING), json!({"signals": "garbage"}), "no JSON object"),
        (rust_plugin(MISBEHAVING), json!({"signals": "abort"}), "gives no answer"),
        (rust_plugin(MISBEHAVING), json!({"signals": "hang", "hang_ms": 60_000}), "gives no answer: timeout"),
        (rust_plugin(MISBEHAVING), json!({"signals": "leak"}), "it leaks"),
        (
            rust_plugin(MISBEHAVING),
            json!({"keys": {"jwks": {"keys": [7]}, "ttl_s": 60}}),
            "provider.locate_keys.out.json at /jwks/keys/0: is integer, and should be \"object\"",
        ),
        (rust_plugin(MISBEHAVING), json!({"create": "reject"}), "asked to refuse"),
        (bench.fixture(&["-DMAJOR=2"]).file, json!({}), "needs ABI 2"),
        (wrong, json!({}), "not a loadable library"),
    ] {
        let (code, report) = check(&file, &config.to_string());
        assert_eq!(code, Some(1), "{config}: {report}");
        assert!(report.contains("FINDING") && report.contains(part), "{config}: {report}");
    }
    assert_eq!(check(Path::new("absent.so"), "{}").0, Some(2));
    assert_eq!(check(&rust_plugin(IP_LIST), "[]").0, Some(2));
}

#[test]
fn files_that_attack_the_commands_are_findings_and_messages() {
    let bench = Bench::new();
    let mut foreign = fs::read(bench.hostile(&[]).file).unwrap();
    // e_machine of an ELF header: RISC-V.
    foreign[18] = 0xf3;
    let foreign = bench.install_bytes(&foreign, "foreign.so").file;
    let (code, report) = check(&foreign, "{}");
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("not a loadable library"), "{report}");

    let leaving = bench.hostile(&["-DEARLY=leave"]).file;
    let (code, report) = check(&leaving, "{}");
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("ended while it started: exit status: 0"), "{report}");
    let locked = program().args(["plugin", "lock"]).arg(&leaving).output().unwrap();
    assert_eq!(locked.status.code(), Some(2), "{}", text(&locked));
    assert!(locked.stdout.is_empty() && text(&locked).contains("ended while it started"), "{}", text(&locked));

    // The answer has a member whose name would clear the screen.
    let entry = bench.hostile(&[
        "-DACT=fixed",
        "-DHOOK=\"provider.locate_keys\"",
        "-DANSWER=\"{\\\"pem\\\":{\\\"\\\\u001b[2J\\\":7}}\"",
    ]);
    let (code, report) = check(&entry.file, "{}");
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("/pem/ [2J") && !report.contains('\u{1b}'), "{report:?}");

    let (_, report) = check(&bench.hostile(&["-DHOOK=\"signal.signal\""]).file, "{}");
    assert!(report.contains("the hook \"signal.signal\", which is none"), "{report}");

    let pipe = bench.path("lib/pipe.so");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for file in [Path::new("/dev/zero"), &pipe, &bench.path("lib")] {
        for command in ["check", "lock", "bench"] {
            let output = program().args(["plugin", command]).arg(file).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{command} {file:?}: {}", text(&output));
            assert!(text(&output).contains("must be a regular file"), "{command} {file:?}: {}", text(&output));
        }
    }
}

#[test]
fn locks_that_editors_and_people_write_are_read_or_named() {
    let bench = Bench::new();
    let entry = bench.install_bytes(b"no library", "lib.so");
    let lock = bench.path("other.lock");
    let list = |text: &str| {
        fs::write(&lock, text).unwrap();
        let output = program().args(["plugin", "list", "--lock"]).arg(&lock).output().unwrap();
        (output.status.code(), self::text(&output))
    };
    let with = |id: &str, sha256: &str, file: &str| {
        format!(
            "[[plugin]]\nid = \"{id}\"\nversion = \"1\"\nsha256 = \"{sha256}\"\nfile = \"{file}\"\nhooks = [\"signal.signals\"]\n"
        )
    };
    let plain = with("a", &entry.sha256, "lib/lib.so");
    for fine in
        [format!("\u{feff}{plain}"), plain.replace('\n', "\r\n"), with("a", &entry.sha256, "lib/../lib/lib.so")]
    {
        let (code, told) = list(&fine);
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("as locked"), "{told}");
    }
    for (wrong, part) in [
        (with("a", &entry.sha256.to_uppercase(), "lib/lib.so"), "sha256 is not 64 lower-case hex digits"),
        (with("../a", &entry.sha256, "lib/lib.so"), "id \"../a\" is not"),
        (with("a\\u001b[2J", &entry.sha256, "lib/lib.so"), "is not 1 to 64"),
        (format!("{plain}{plain}"), "stands here twice"),
        ("\0".to_owned(), "other.lock:1"),
    ] {
        let (code, told) = list(&wrong);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains(part) && !told.contains('\u{1b}'), "{told:?}");
    }
    for file in ["", "lib", "/dev/zero", "lib/absent.so"] {
        let (code, told) = list(&with("a", &entry.sha256, file));
        assert_eq!(code, Some(1), "{file}: {told}");
    }
    let many: String = (0..10_000).map(|n| with(&format!("p{n}"), &entry.sha256, "lib/lib.so")).collect();
    let begun = std::time::Instant::now();
    assert_eq!(list(&many).0, Some(0));
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn list_tells_whether_the_files_are_the_locked_ones() {
    let bench = Bench::new();
    let entry = bench.office_hours();
    let bench = bench.lock(&entry);
    let lock = bench.write();
    let list = |more: &[&str]| program().args(["plugin", "list", "--lock"]).arg(&lock).args(more).output().unwrap();
    let fine = list(&[]);
    assert_eq!(fine.status.code(), Some(0));
    assert!(text(&fine).contains("countersign.office_hours 1.0.0  in_process  signal.signals"), "{}", text(&fine));
    fs::write(&entry.file, "another").unwrap();
    let changed = list(&["--json"]);
    assert_eq!(changed.status.code(), Some(1));
    let rows: Value = serde_json::from_slice(&changed.stdout).unwrap();
    assert!(rows["plugins"][0]["trouble"].as_str().unwrap().contains("the lock says"), "{rows}");
    assert_eq!(program().args(["plugin", "list", "--lock", "absent"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn bench_measures_both_isolations() {
    let bench = Bench::new();
    let file = bench.office_hours().file;
    for wrong in ["0", "-1", "10000001", "18446744073709551615"] {
        let output = program().args(["plugin", "bench", "--calls", wrong]).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong}: {}", text(&output));
    }
    let output = program().args(["plugin", "bench", "--calls", "50", "--json"]).arg(file).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows["measured"].as_array().unwrap().len(), 2);
    assert!(rows["measured"][0]["times"]["p50_us"].as_f64().unwrap() > 0.0, "{rows}");
}

#[test]
fn new_refuses_names_that_are_none_and_folders_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let new = |name: &str| {
        program().args(["plugin", "new", "--language", "c", name]).current_dir(dir.path()).output().unwrap()
    };
    fs::write(dir.path().join("file"), "").unwrap();
    const SDK: &str = "countersign-plugin-sdk";
    for name in ["", "A", "../x", "a/b", "1a", "a b", "a\"b", "a'b", "a\nb", "ä", ".", "--help-me", "file", SDK] {
        assert_eq!(new(name).status.code(), Some(2), "{name}");
    }
    assert_eq!(new("dusk").status.code(), Some(0));
    assert_eq!(new("dusk").status.code(), Some(2));
    let mut other = program();
    other.args(["plugin", "new", "night", "--language", "c", "--kind", "mfa"]);
    let other = other.current_dir(dir.path()).output().unwrap();
    assert!(other.status.code() == Some(2) && text(&other).contains("a signal only"), "{}", text(&other));
    assert!(!dir.path().join("night").exists());
}

#[test]
fn what_new_makes_builds_and_passes_whatever_its_name() {
    let dir = tempfile::tempdir().unwrap();
    for (name, switches, build, library) in [
        ("time-int-name", ["--language", "c"], "sh time-int-name/build.sh", "time-int-name/libtime-int-name.so"),
        ("of-keys", ["--kind", "provider"], CARGO, "of-keys/target/debug/libof_keys.so"),
        ("of-codes", ["--kind", "mfa"], CARGO, "of-codes/target/debug/libof_codes.so"),
    ] {
        let made = program().args(["plugin", "new", name]).args(switches).current_dir(dir.path()).output().unwrap();
        assert!(made.status.success(), "{}", text(&made));
        let built = Command::new("sh")
            .args(["-euc", &build.replace("NAME", name)])
            .current_dir(dir.path())
            .env("CARGO_BUILD_BUILD_DIR", target_dir().join("readme"))
            .env("CARGO_NET_OFFLINE", "true")
            .env_remove("CARGO_TARGET_DIR")
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", text(&built));
        let checked = program().args(["plugin", "check", library]).current_dir(dir.path()).output().unwrap();
        assert!(checked.status.success(), "{}", text(&checked));
    }
}

const CARGO: &str = "cd NAME && cargo test && cargo build";

/// The shell blocks of a section of the README.
fn commands(section: &str) -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/README.md")).unwrap();
    let from = readme.find(&format!("## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let section = readme[from + 3..].split("\n## ").next().unwrap().to_owned();
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn the_readme_goes_from_nothing_to_loaded_plugins_in_rust_and_c() {
    let dir = tempfile::tempdir().unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_countersign")).parent().unwrap().to_owned();
    let script = format!("{}\n{}", commands("Ten minutes in Rust"), commands("Ten minutes in C"));
    assert!(script.contains("plugin new") && script.contains("plugin lock"), "{script}");
    let path = std::env::var("PATH").unwrap();
    let run = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &format!("umask 022\n{script}")])
        .current_dir(dir.path())
        .env("PATH", format!("{}:{path}", bin.display()))
        // What was built for an earlier run of this test is used again.
        .env("CARGO_BUILD_BUILD_DIR", target_dir().join("readme"))
        .env("CARGO_NET_OFFLINE", "true")
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", text(&run));
    let host = PluginHost::load(&dir.path().join("plugins.lock"), &dir.path().join("store"), Services::default());
    let all = host.unwrap().signals(&facts("192.0.2.7")).await;
    assert_eq!(all["com.example.night"], Some(json!({ "night": true })));
    assert_eq!(all["com.example.dusk"], Some(json!({ "night": true })));
}

fn build(compiler: &str, switches: &[&str], source: &Path, output: &Path) {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/sdk/include");
    let built = Command::new(compiler)
        .args(switches)
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
        .arg(include)
        .arg(source)
        .arg("-o")
        .arg(output)
        .output()
        .unwrap_or_else(|e| panic!("this test needs the compiler {compiler}: {e}"));
    assert!(built.status.success(), "{}", text(&built));
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins").join(name)
}

#[tokio::test]
async fn the_example_in_cpp_answers_and_contains_its_exceptions() {
    let bench = Bench::new();
    let built = bench.path("built.so");
    build("c++", &["-std=c++17"], &example("disposable_email_cpp/disposable_email.cpp"), &built);
    let entry = bench.install(&built, "cpp.so").id("countersign.disposable_email").with("deadline_ms = 10000");
    let entry = entry.with("grants = { claims = [\"email\"] }\nconfig = { domains = \"example.com example.net\" }");
    let bench = bench.lock(&entry);
    let host = bench.must_load();
    let all = host.signals(&facts("192.0.2.7")).await;
    assert_eq!(all["countersign.disposable_email"], Some(json!({ "disposable": true })));
    let other = Bench::new();
    let entry = other.install(&built, "cpp.so").id("countersign.disposable_email");
    assert!(other.lock(&entry).refusal().contains("domains is missing"));
}

#[tokio::test]
async fn the_example_in_go_answers_from_a_process_of_its_own() {
    if Command::new("go").arg("version").output().is_err() {
        eprintln!("not run: the example in Go needs go 1.21 or later and a C compiler");
        return;
    }
    let bench = Bench::new();
    let built = bench.path("built.so");
    let go = Command::new("go")
        .args(["build", "-buildmode=c-shared", "-o"])
        .arg(&built)
        .arg(".")
        .current_dir(example("weekend_go"))
        .env("GOFLAGS", "-mod=mod")
        .env("GOTOOLCHAIN", "local")
        .output()
        .unwrap();
    assert!(go.status.success(), "{}", text(&go));
    let entry = bench.install(&built, "go.so").id("countersign.weekend");
    let bench = bench.lock(&entry.with("isolation = \"process\"\ndeadline_ms = 10000"));
    let host = bench.must_load();
    let all = host.signals(&facts("192.0.2.7")).await;
    assert_eq!(all["countersign.weekend"], Some(json!({ "weekend": false, "weekday": "Tuesday" })));
}

#[tokio::test]
async fn administrators_see_the_plugins_of_the_node() {
    let bench = Bench::new();
    let entry = bench.office_hours();
    let bench = bench.lock(&entry);
    let setup = Setup { plugins_lock: Some(bench.write()), ..Setup::default() };
    let service = Service::start_with(setup).await;
    let key = service.admin_key(crate::admin::Role::Viewer, None).await;
    let listed = service.get_with("/admin/plugins", &key).await;
    assert_eq!(listed.status, 200, "{}", listed.text);
    let shown = &listed.body["items"][0];
    assert_eq!((&shown["id"], &shown["sha256"]), (&json!("countersign.office_hours"), &json!(entry.sha256)));
    assert_eq!((&shown["isolation"], shown.get("trouble")), (&json!("in_process"), None));
    let own = service.admin_key(crate::admin::Role::Admin, Some("default")).await;
    service.get_with("/admin/plugins", &own).await.expect(403, "admin_scope_insufficient");
    service.get_with("/admin/plugins", "nobody").await.expect(401, "invalid_admin_key");
}
