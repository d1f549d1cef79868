//! Security events by the plugin `ssf`: facts of the next sign-in, and nothing is lost when its process dies.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{APART, die, killed_inside, start};
use crate::oauth::security_events::REVOKED;
use crate::support::clock::TestClock;
use crate::support::issuer::TestIssuer;
use crate::support::plugins::{Bench, SSF};
use crate::support::program::{Program, signal};
use crate::support::service::{Answer, Setup};

const COMPROMISE: &str = "https://schemas.openid.net/secevent/risc/event-type/credential-compromise";
/// The rules ask the plugin about one provider alone.
const RULES: &str = r#"
fn assess(s, risk) {
    if s.provider.id != "acme" { return; }
    let told = s.signals.plugin["countersign.ssf"];
    if told == () { risk.require_mfa("security_events_unknown"); return; }
    if told.recent.contains("credential_compromise") { risk.require_mfa("credential_compromise"); }
}
"#;

struct World {
    program: Program,
    other: TestIssuer,
    _bench: Bench,
    _policies: TempDir,
}

impl World {
    async fn start() -> Self {
        let bench = Bench::new();
        let entry = bench.rust(SSF, "countersign.ssf").hooks(&["signal.signals", "event.observe"]).with(APART);
        let grants = "events = [\"security_event\"], claims = [\"sub\"], kv_kib = 64";
        let entry = entry.with(&format!("deadline_ms = 10000\ngrants = {{ {grants} }}"));
        let policies = TempDir::new().unwrap();
        let mut setup = Setup::with_policies(policies.path(), &[("risk/_default.rhai", RULES)]);
        // Behind it stands an issuer of its own.
        let other = TestIssuer::start(TestClock::real()).await;
        setup.more_config = format!(
            "[[providers]]\ntenant = \"default\"\nname = \"beta\"\nissuer = \"{}\"\nclient_ids = [\"{}\"]\n",
            other.url,
            TestIssuer::CLIENT
        );
        let (program, bench) = start(bench, &entry, setup).await;
        Self { other, program, _bench: bench, _policies: policies }
    }

    async fn sign_in(&self, subject: &str) -> Answer {
        self.program.sign_in(&self.program.issuer.token().subject(subject).sign()).await
    }

    async fn sign_in_by_another(&self) -> Answer {
        self.program.sign_in_by("beta", &self.other.token().sign()).await
    }

    /// A token of these events about a subject.
    fn event(&self, subject: &str, kinds: &[&str]) -> String {
        let issuer = &self.program.issuer;
        let events: Value = kinds.iter().map(|kind| ((*kind).to_owned(), json!({}))).collect();
        let token = issuer.token().header("typ", "secevent+jwt").without("sub").without("exp");
        let token = token.claim("sub_id", json!({"format": "iss_sub", "iss": issuer.url, "sub": subject}));
        token.claim("events", events).sign()
    }

    async fn push(&self, token: &str) -> Answer {
        let request = self.program.http().post(self.program.url("/auth/security-events"));
        self.program.send(request.header("content-type", "application/secevent+jwt").body(token.to_owned())).await
    }

    async fn lives(&self, body: &Value) -> bool {
        let answer = self.program.get_with("/auth/me", body["access_token"].as_str().unwrap()).await;
        if answer.status != 200 {
            answer.expect(401, "session_ended");
        }
        answer.status == 200
    }

    async fn recorded(&self, admin_key: &str) -> Vec<Value> {
        let path = "/admin/audit?tenant=default&action=identity.security_event";
        let found = self.program.get_with(path, admin_key).await;
        assert_eq!(found.status, 200, "{}", found.text);
        found.body["items"].as_array().unwrap().clone()
    }
}

#[track_caller]
fn refused_for(answer: &Answer, reason: &str) {
    assert!(answer.expect(403, "sign_in_denied").text.contains(reason), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_tells_ends_sessions_and_is_a_fact_of_the_next_sign_in() {
    let world = World::start().await;
    let body = world.sign_in("one").await.signed_in().clone();
    let other = world.sign_in("two").await.signed_in().clone();
    let token = world.event("one", &[REVOKED, COMPROMISE]);
    for _ in 0..2 {
        let taken = world.push(&token).await;
        assert_eq!((taken.status, taken.text.as_str()), (202, ""));
    }
    assert!(!world.lives(&body).await && world.lives(&other).await);
    refused_for(&world.sign_in("one").await, "credential_compromise");
    world.sign_in("two").await.signed_in();
    let records = world.recorded(&world.program.admin_key()).await;
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["target"], body["user_id"]);
    assert_eq!(records[0]["difference"]["sessions_ended"]["after"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_process_is_killed_comes_again_and_sign_ins_by_others_do_not_notice() {
    let world = World::start().await;
    let body = world.sign_in("one").await.signed_in().clone();
    world.sign_in_by_another().await.signed_in();
    let token = world.event("one", &[REVOKED, COMPROMISE]);
    let pid = world.program.plugin_pid().expect("it runs");
    let answer = killed_inside(&world.program, world.push(&token)).await;
    answer.expect(503, "provider_unavailable");
    assert!(answer.headers.contains_key("retry-after"));
    assert!(!world.lives(&body).await, "its sessions have ended all the same");
    world.sign_in_by_another().await.signed_in();
    let mut next = world.program.until_another_than(pid, 1).await;

    // Each further death is waited for longer, and each is the sender's and the provider's alone.
    for (nth, pause_ms) in [(2, 200), (3, 400), (4, 800)] {
        let since = Instant::now();
        signal(next, Signal::SIGKILL);
        while world.program.logged("a plugin's process ended; it is started again").len() < nth {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Within the pause nobody is there.
        let (sender, same, another) =
            tokio::join!(world.push(&token), world.sign_in("two"), world.sign_in_by_another());
        if since.elapsed() < Duration::from_millis(pause_ms) {
            sender.expect(503, "provider_unavailable");
            refused_for(&same, "security_events_unknown");
        }
        another.signed_in();
        next = world.program.until_another_than(next, nth).await;
        assert!(since.elapsed() >= Duration::from_millis(pause_ms));
    }

    let taken = world.push(&token).await;
    assert_eq!((taken.status, taken.text.as_str()), (202, ""));
    refused_for(&world.sign_in("one").await, "credential_compromise");
    world.sign_in("two").await.signed_in();
    // What was taken outlives its process.
    die(&world.program, 5).await;
    refused_for(&world.sign_in("one").await, "credential_compromise");
    let admin_key = world.program.admin_key();
    assert_eq!(world.recorded(&admin_key).await.len(), 1, "one token, one record");
    assert_eq!(world.program.plugin(&admin_key).await["process_deaths"], 5);
    assert_eq!(world.program.metric("countersign_plugin_process_deaths_total").await, Some(5.0));
}
