//! The program as its users run it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_countersign"))
}

#[test]
fn help_and_wrong_usage_end_as_the_contract_says() {
    for command in [
        &["--help"][..],
        &["serve", "--help"],
        &["migrate", "--help"],
        &["openapi", "--help"],
        &["policy", "test", "--help"],
        &["plugin", "new", "--help"],
        &["plugin", "check", "--help"],
        &["plugin", "lock", "--help"],
        &["plugin", "list", "--help"],
        &["plugin", "bench", "--help"],
    ] {
        let output = program().args(command).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        if command.len() > 1 {
            assert!(String::from_utf8_lossy(&output.stdout).contains("Example:"), "{command:?} has no example");
        }
    }
    for command in [&["serve", "--nonsense"][..], &["nonsense"], &[]] {
        assert_eq!(program().args(command).output().unwrap().status.code(), Some(2), "{command:?}");
    }
}

#[test]
fn a_missing_or_wrong_configuration_is_named_with_its_line() {
    let dir = TempDir::new().unwrap();
    let run = |text: Option<&str>| {
        let file = dir.path().join("countersign.toml");
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let output = program().arg("serve").arg("--config").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run(None).contains("countersign.toml"));
    let text = run(Some("[server]\nlisten = \"127.0.0.1:0\"\nlissten = 1\n"));
    assert!(text.contains("countersign.toml:3") && text.contains("listen"), "{text}");
}

#[test]
fn development_refuses_an_address_that_others_reach() {
    let dir = TempDir::new().unwrap();
    let output =
        program().args(["serve", "--dev", "--listen", "0.0.0.0:0"]).current_dir(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("this machine"));
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a new user does: start it, paste the lines that it shows, edit the policy, sign in again.
#[test]
fn the_lines_that_development_shows_work_when_pasted() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("needs curl: the pasted lines are not run here");
        return;
    }
    let dir = TempDir::new().unwrap();
    crate::support::service::copy_dir(
        &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("policies"),
        &dir.path().join("policies"),
    );
    let mut child = program()
        .args(["serve", "--dev", "--listen", "127.0.0.1:0"])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let _running = Running(child);
    let mut lines = Vec::new();
    for line in stdout.lines() {
        let line = line.unwrap();
        let last = line.contains("/auth/logout");
        lines.push(line);
        if last {
            break;
        }
    }
    let pasted: Vec<&String> = lines
        .iter()
        .filter(|l| ["curl ", "CHALLENGE=", "TOKENS=", "ACCESS="].iter().any(|s| l.starts_with(s)))
        .collect();
    assert_eq!(pasted.len(), 7, "{lines:#?}");
    let script: String = pasted.iter().map(|l| format!("{l} 2>&1; echo; echo =====\n")).collect();
    let output = Command::new("sh").arg("-c").arg(&script).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &*String::from_utf8_lossy(&output.stderr);
    for wanted in [
        "\"requires_mfa\":false",
        "\"risk_level\":\"low\"",
        "\"requires_mfa\":true",
        "\"mfa_check_reason\":\"new_device\"",
        "\"risk_level\":\"medium\"",
        "\"username\":\"ada\"",
        "the session has ended",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in\n{text}");
    }
    assert!(!text.contains("\"error\""), "{text}");

    // Save a rule: the next sign-in uses it. Break it: the error is shown, and the rule goes on working.
    let sign_in = || {
        let output = Command::new("sh").arg("-c").arg(pasted[0]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let rule = dir.path().join("policies/risk/_default.rhai");
    let mut wait_for = |what: &str| {
        log.by_ref()
            .map_while(Result::ok)
            .find(|line| line.contains(what))
            .unwrap_or_else(|| panic!("no log line with {what}"))
    };
    std::fs::write(&rule, "fn assess(s, risk) {\n    risk.add(17, \"new_network\");\n}\n").unwrap();
    wait_for("policies reloaded");
    assert!(sign_in().contains("\"score\":17"));
    std::fs::write(&rule, "fn assess(s, risk) {\n    risk.add(17, ;\n}\n").unwrap();
    let shown = wait_for("_default.rhai:2:");
    assert!(shown.contains("_default.rhai:2:"), "{shown}");
    assert!(sign_in().contains("\"score\":17"));
}
