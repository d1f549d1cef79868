//! A question to a device of the user's, by `mfa-webhook` with both hooks.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign::mfa::delivery::POLL_PAUSE;
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{APART, killed_inside, start};
use crate::sign_in::mfa_webhook::{KEY, Receiver, is_signed, webhook};
use crate::sign_in::plugin_ports::DEMAND;
use crate::support::plugins::{Bench, Entry};
use crate::support::program::{Program, signal, until};
use crate::support::service::{Answer, Setup};

struct World {
    program: Program,
    receiver: Receiver,
    url: String,
    bench: Bench,
    _policies: TempDir,
}

fn entry(bench: &Bench, url: &str) -> Entry {
    webhook(bench, url, "push", &["mfa.begin", "mfa.verify"]).with(APART)
}

impl World {
    async fn start() -> Self {
        let receiver = Receiver::default();
        let bench = Bench::new();
        bench.secret("mfa_webhook", &format!("whsec_{}", data_encoding::BASE64.encode(KEY)));
        let url = receiver.clone().start().await;
        let entry = entry(&bench, &url);
        let policies = TempDir::new().unwrap();
        let setup = Setup::with_policies(policies.path(), &[("risk/_default.rhai", DEMAND)]);
        let (program, bench) = start(bench, &entry, setup).await;
        Self { program, receiver, url, bench, _policies: policies }
    }

    /// A challenge of a user who had signed in before.
    async fn challenge(&self, subject: &str) -> Value {
        let token = || self.program.issuer.token().subject(subject).sign();
        let first = self.program.sign_in(&token()).await;
        let challenged =
            if first.body["requires_mfa"] == true { first } else { self.program.sign_in(&token()).await };
        assert_eq!(challenged.challenged()["required_mfa_methods"], json!(["push"]));
        challenged.body["challenge_token"].clone()
    }

    async fn send(&self, challenge: &Value) -> Answer {
        let body = json!({"challenge_token": challenge, "mfa_method": "push"});
        self.program.post("/auth/mfa/challenge", body).await
    }

    async fn confirm(&self, challenge: &Value) -> Answer {
        let body = json!({"challenge_token": challenge, "mfa_method": "push", "code": ""});
        self.program.post("/auth/mfa/verify-challenge", body).await
    }

    /// What the user's device says next.
    fn says(&self, status: &str) {
        self.receiver.answers.lock().unwrap().push_back(json!({"status": status}).to_string());
    }
}

/// The channel is asked once a second whether the user has answered.
async fn until_asked_again() {
    tokio::time::sleep(POLL_PAUSE + Duration::from_millis(50)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_confirmed_although_its_process_was_killed_in_between() {
    let world = World::start().await;
    let challenge = world.challenge("one").await;
    world.receiver.answers.lock().unwrap().push_back(json!({"reference": "p-1"}).to_string());
    let sent = world.send(&challenge).await;
    assert_eq!((sent.status, &sent.body["mfa_method"]), (200, &json!("push")), "{}", sent.text);
    for _ in 0..2 {
        world.says("pending");
        world.confirm(&challenge).await.expect(400, "mfa_pending");
        until_asked_again().await;
    }
    let pid = world.program.plugin_pid().expect("it runs");
    killed_inside(&world.program, world.confirm(&challenge)).await.expect(503, "channel_unavailable");
    world.program.until_another_than(pid, 1).await;
    until_asked_again().await;
    world.says("pending");
    world.confirm(&challenge).await.expect(400, "mfa_pending");
    until_asked_again().await;
    world.says("denied");
    world.confirm(&challenge).await.expect(400, "invalid_mfa_code");
    until_asked_again().await;
    world.says("approved");
    world.confirm(&challenge).await.signed_in();
    world.confirm(&challenge).await.expect(400, "challenge_used");
    let received = world.receiver.received();
    assert!(received.iter().all(is_signed) && received.iter().all(|r| r.idempotency_key == r.id));
    let body = |n: usize| serde_json::from_str::<Value>(&received[n].body).unwrap();
    assert_eq!((received.len(), &body(0)["type"], body(0)["data"].get("code")), (6, &json!("mfa.push"), None));
    for asked in (1..6).map(body) {
        assert_eq!((&asked["type"], &asked["data"]["reference"]), (&json!("mfa.push_status"), &json!("p-1")));
        assert_eq!(asked["data"]["delivery_id"], received[0].id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_pushes_are_the_attempts_of_a_challenge_and_one_that_nobody_could_judge_is_none() {
    let world = World::start().await;
    let challenge = world.challenge("one").await;
    assert_eq!(world.send(&challenge).await.status, 200);
    let pid = world.program.plugin_pid().expect("it runs");
    killed_inside(&world.program, world.confirm(&challenge)).await.expect(503, "channel_unavailable");
    world.program.until_another_than(pid, 1).await;
    for _ in 0..5 {
        until_asked_again().await;
        world.says("denied");
        world.confirm(&challenge).await.expect(400, "invalid_mfa_code");
    }
    world.says("approved");
    world.confirm(&challenge).await.expect(400, "challenge_expired");
    assert_eq!(world.receiver.received().len(), 6, "nobody is asked about an ended challenge");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_while_the_endpoint_answers_is_a_channel_out_of_reach() {
    let world = World::start().await;
    let challenge = world.challenge("one").await;
    let pid = world.program.plugin_pid().expect("it runs");
    world.receiver.holds.store(true, Ordering::SeqCst);
    let kill = async {
        until("the push has left", async || !world.receiver.received().is_empty()).await;
        signal(pid, Signal::SIGKILL);
    };
    let (answer, ()) = tokio::join!(world.send(&challenge), kill);
    answer.expect(503, "channel_unavailable");
    world.receiver.holds.store(false, Ordering::SeqCst);
    world.program.until_another_than(pid, 1).await;
    // It was counted, and the next message of the challenge has to wait; another challenge has its own.
    world.send(&challenge).await.expect(429, "too_many_messages");
    let another = world.challenge("one").await;
    assert_eq!(world.send(&another).await.status, 200);
    world.says("approved");
    world.confirm(&another).await.signed_in();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_takes_its_time_is_asked_for_everybody_at_once() {
    const USERS: usize = 24;
    let world = World::start().await;
    let challenges = join_all((0..USERS).map(|n| {
        let world = &world;
        async move { world.challenge(&format!("user-{n}")).await }
    }))
    .await;
    world.receiver.holds.store(true, Ordering::SeqCst);
    let release = async {
        until("all have left", async || world.receiver.received().len() >= USERS).await;
        world.receiver.holds.store(false, Ordering::SeqCst);
    };
    let (answers, ()) = tokio::join!(join_all(challenges.iter().map(|c| world.send(c))), release);
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(world.receiver.received().len(), USERS, "none had to be tried again");
}

/// A terminal sends what ends a program to its whole group, systemd to every process of a unit.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_ends_the_server_leaves_the_process_to_what_still_runs() {
    for ending in [Signal::SIGTERM, Signal::SIGINT] {
        let world = World::start().await;
        let challenge = world.challenge("one").await;
        let pid = world.program.plugin_pid().expect("it runs");
        world.receiver.holds.store(true, Ordering::SeqCst);
        let end = async {
            until("the push has left", async || !world.receiver.received().is_empty()).await;
            signal(pid, ending);
            signal(world.program.pid(), ending);
            let told = "stopping: running requests may finish";
            until("the server stops", async || !world.program.logged(told).is_empty()).await;
            world.receiver.holds.store(false, Ordering::SeqCst);
        };
        let (sent, ()) = tokio::join!(world.send(&challenge), end);
        assert_eq!(sent.status, 200, "{ending} {}", sent.text);
        assert!(world.program.ended().await.success());
        until("the process is gone", async || !Path::new(&format!("/proc/{pid}/stat")).exists()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_exchanged_answers_what_it_was_asked_and_ends() {
    let mut world = World::start().await;
    let challenge = world.challenge("one").await;
    let pid = world.program.plugin_pid().expect("it runs");
    let next = entry(&world.bench, &world.url).with("max_queued = 65");
    world.receiver.holds.store(true, Ordering::SeqCst);
    let bench = &mut world.bench;
    let (program, receiver) = (&world.program, &world.receiver);
    let exchange = async {
        until("the push has left", async || !receiver.received().is_empty()).await;
        bench.relock(&next);
        program.hang_up();
        until("it is exchanged", async || !program.logged("plugins exchanged").is_empty()).await;
        assert_eq!(program.children().len(), 2);
        receiver.holds.store(false, Ordering::SeqCst);
    };
    let body = json!({"challenge_token": challenge, "mfa_method": "push"});
    let (sent, ()) = tokio::join!(program.post("/auth/mfa/challenge", body), exchange);
    assert_eq!(sent.status, 200, "{}", sent.text);
    world.says("approved");
    world.confirm(&challenge).await.signed_in();
    until("the old one is gone", async || world.program.children().len() == 1).await;
    assert_ne!(world.program.plugin_pid(), Some(pid));
    assert_eq!(world.program.metric("countersign_plugin_process_deaths_total").await, None);
}
