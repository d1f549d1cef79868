//! Codes by e-mail, by `mfa-webhook`, and what its process holds: the secrets that it asked for, and nothing of the
//! server's.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{APART, start};
use crate::sign_in::mfa_webhook::{KEY, Receiver, is_signed, webhook};
use crate::sign_in::plugin_ports::DEMAND;
use crate::support::plugins::Bench;
use crate::support::program::{CANARY, HANDED_OVER, Program, descriptors, signal};
use crate::support::service::{Answer, Setup};

const ADDRESS: &str = "ada@example.com";

async fn sign_in(program: &Program) -> Answer {
    let token = program.issuer.token().claim("email", ADDRESS).claim("email_verified", true);
    program.sign_in(&token.sign()).await
}

async fn verify(program: &Program, challenge: &Value, code: &str) -> Answer {
    let body = json!({"challenge_token": challenge, "mfa_method": "email", "code": code});
    program.post("/auth/mfa/verify-challenge", body).await
}

fn file(pid: u32, name: &str) -> std::io::Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/{name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_leaves_by_a_process_that_holds_nothing_of_the_server_and_has_no_network() {
    let receiver = Receiver::default();
    let bench = Bench::new();
    let secret = format!("whsec_{}", data_encoding::BASE64.encode(KEY));
    bench.secret("mfa_webhook", &secret);
    let url = receiver.clone().start().await;
    let entry = webhook(&bench, &url, "email", &["mfa.begin"]).with(APART);
    let policies = TempDir::new().unwrap();
    let setup = Setup::with_policies(policies.path(), &[("risk/_default.rhai", DEMAND)]);
    let (program, _bench) = start(bench, &entry, setup).await;
    sign_in(&program).await.signed_in();
    let challenged = sign_in(&program).await;
    assert_eq!(challenged.challenged()["required_mfa_methods"], json!(["email"]));
    let challenge = &challenged.body["challenge_token"];

    receiver.statuses.lock().unwrap().extend([503, 409]);
    let sent =
        program.post("/auth/mfa/challenge", json!({"challenge_token": challenge, "mfa_method": "email"})).await;
    assert_eq!((sent.status, &sent.body["destination"]), (200, &json!("a…@example.com")), "{}", sent.text);
    let received = receiver.received();
    assert_eq!(received.len(), 3, "tried until it was taken");
    assert!(received.iter().all(is_signed));
    assert!(received.iter().all(|r| r.id == received[0].id && r.idempotency_key == r.id));
    let body: Value = serde_json::from_str(&received[0].body).unwrap();
    assert_eq!(body["data"]["destination"], ADDRESS);
    let code = body["data"]["code"].as_str().unwrap();

    let pid = program.plugin_pid().expect("it runs");
    holds_nothing(&program, pid);
    has_no_network(&program, pid);
    // The code is the server's own: it needs no plugin any more.
    signal(pid, Signal::SIGKILL);
    verify(&program, challenge, if code == "123456" { "654321" } else { "123456" })
        .await
        .expect(400, "invalid_mfa_code");
    verify(&program, challenge, code).await.signed_in();
    program.until_another_than(pid, 1).await;
    for (what, text) in [("code", code), ("address", ADDRESS), ("secret", &secret), ("environment", CANARY)] {
        assert!(!program.log().contains(text), "the log holds the {what}");
    }
}

/// Neither environment nor arguments nor descriptors of the server came along.
fn holds_nothing(program: &Program, pid: u32) {
    assert!(file(program.pid(), "environ").unwrap().contains(CANARY), "the server has it");
    match file(pid, "environ") {
        Ok(environment) => assert_eq!(environment, ""),
        // It is not dumpable: only root may look.
        Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied),
    }
    assert!(file(pid, "cmdline").unwrap().ends_with("\0plugin-host\0"));
    let held = match descriptors(pid) {
        Ok(held) => held,
        Err(error) => return assert_eq!(error.kind(), ErrorKind::PermissionDenied),
    };
    let distinct: BTreeSet<&str> = held.iter().map(String::as_str).collect();
    let sockets = distinct.iter().filter(|to| to.starts_with("socket:")).count();
    assert_eq!(sockets, 1, "the one that the server speaks over: {held:?}");
    assert_eq!(distinct.iter().filter(|to| !to.starts_with("socket:")).collect::<Vec<_>>(), [&"/dev/null"]);
    let server = descriptors(program.pid()).unwrap();
    assert!(server.iter().any(|to| to.ends_with(HANDED_OVER)), "{server:?}");
    assert!(server.iter().all(|to| to == "/dev/null" || !distinct.contains(to.as_str())), "{held:?}");
}

/// Not even loopback is up, where the system allows that.
fn has_no_network(program: &Program, pid: u32) {
    let may_leave = std::process::Command::new("unshare").args(["-Un", "true"]).status();
    let warned = program.log().contains("its requests are not confined");
    assert_eq!(warned, !may_leave.is_ok_and(|s| s.success()), "a system that does not allow it is told of");
    if warned {
        return;
    }
    let devices = file(pid, "net/dev").unwrap();
    let devices: Vec<&str> =
        devices.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
    assert_eq!(devices, ["lo"]);
    assert_eq!(file(pid, "net/route").unwrap().lines().skip(1).count(), 0, "no route leads anywhere");
}
