//! A plugin in a process of its own dies under a real server: its provider is out of reach until it has started
//! again, and sign-ins through other providers do not notice.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::crash::{Process, post};
use crate::support::clock::TestClock;
use crate::support::issuer::TestIssuer;
use crate::support::plugins::Bench;
use crate::support::service::Setup;

const PATIENCE: Duration = Duration::from_secs(60);

/// A server with the providers `acme`, whose tokens the plugin verifies, and `beta`, whose it does not.
struct World {
    server: Process,
    base: String,
    issuer: TestIssuer,
    client: reqwest::Client,
    _bench: Bench,
    _dir: TempDir,
}

impl World {
    async fn start(mode: &str) -> Self {
        let bench = Bench::new();
        let entry = bench.misbehaving(&format!("verify = \"{mode}\"")).hooks(&["provider.verify"]);
        let entry = entry.with("bind = [\"acme\"]\nisolation = \"process\"\ndeadline_ms = 5000");
        let bench = bench.lock(&entry);
        let dir = TempDir::new().unwrap();
        let issuer = TestIssuer::start(TestClock::real()).await;
        let path = |name: &str| dir.path().join(name).display().to_string();
        // Neither runs so long that the clock is looked at: sign-ins fail by the plugin or not at all.
        let rules = ("risk/_default.rhai", "fn assess(s, risk) {}");
        let mapping = ("mapping/default.rhai", "fn map(s, out) { out.locale(s.claims.str(\"locale\")); }");
        let policies = Setup::with_policies(dir.path(), &[rules, mapping]).policies;
        let provider = |name: &str, client: &str| {
            format!(
                "[[providers]]\ntenant = \"default\"\nname = {name:?}\nissuer = {:?}\nclient_ids = [{client:?}]\n",
                issuer.url
            )
        };
        let text = format!(
            "[server]\npublic_url = \"http://127.0.0.1:8080\"\nallow_insecure_issuers = true\n\
             [limits]\nsign_ins_per_minute = 0\n\
             [store]\nurl = \"sqlite://{}\"\n[secrets]\nmaster_key_file = {:?}\n[policies]\ndir = {policies:?}\n\
             [plugins]\nlock = {:?}\n[[tenants]]\nid = \"default\"\n{}{}",
            path("countersign.db"),
            path("master.key"),
            bench.write(),
            provider("acme", "app-acme"),
            provider("beta", "app-beta"),
        );
        let config = dir.path().join("countersign.toml");
        std::fs::write(&config, text).unwrap();
        let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        let server = Process::start(&config, &listen, &client).await;
        Self { server, base: format!("http://{listen}"), issuer, client, _bench: bench, _dir: dir }
    }

    async fn sign_in(&self, provider: &str, token: &str) -> (u16, Value) {
        let body = json!({"id_token": token, "provider": provider});
        post(&self.client, &format!("{}/auth/id-token/signin", self.base), &body).await.expect("the server answers")
    }

    /// The plugin takes claims for a token.
    async fn through_plugin(&self, serial: usize) -> (u16, Value) {
        let now = TestClock::real().now_s();
        let claims = json!({
            "iss": self.issuer.url, "aud": "app-acme", "sub": "s", "iat": now, "exp": now + 300,
            "jti": format!("t-{serial}"),
        });
        self.sign_in("acme", &claims.to_string()).await
    }

    async fn through_another(&self) -> (u16, Value) {
        let token = self.issuer.token().claim("aud", "app-beta").sign();
        self.sign_in("beta", &token).await
    }

    /// The living process of the plugin.
    fn plugin_pid(&self) -> Option<u32> {
        let server = self.server.0.id().to_string();
        std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let mut fields = stat.rsplit(')').next()?.split_whitespace();
            let (state, parent) = (fields.next()?, fields.next()?);
            (parent == server && state != "Z").then_some(pid)
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_dies_at_every_call_is_503_for_its_provider_alone() {
    let world = World::start("abort").await;
    let mut pid = world.plugin_pid().expect("a process of the plugin");
    let begun = Instant::now();
    let mut deaths = 0;
    // A call that comes while the process starts is refused without reaching it.
    for serial in 0.. {
        let others = join_all((0..8).map(|_| world.through_another()));
        let ((status, body), others) = join(world.through_plugin(serial), others).await;
        assert_eq!((status, &body["error"]), (503, &json!("provider_unavailable")), "{body}");
        for (status, body) in others {
            assert_eq!(status, 200, "{body}");
        }
        if let Some(now) = world.plugin_pid().filter(|now| *now != pid) {
            (pid, deaths) = (now, deaths + 1);
        }
        if deaths == 3 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "after {deaths} deaths the plugin was not started again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_was_killed_is_started_again_and_its_provider_works_again() {
    let world = World::start("ok").await;
    let (status, body) = world.through_plugin(0).await;
    assert_eq!(status, 200, "{body}");
    let pid = world.plugin_pid().expect("a process of the plugin");
    assert!(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    let begun = Instant::now();
    for serial in 1.. {
        let (status, body) = world.through_another().await;
        assert_eq!(status, 200, "{body}");
        let (status, body) = world.through_plugin(serial).await;
        if status == 200 && world.plugin_pid().is_some_and(|now| now != pid) {
            break;
        }
        assert!(status == 503 || status == 200, "{status} {body}");
        assert!(begun.elapsed() < PATIENCE, "the provider stayed out of reach: {body}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_ends_with_a_server_that_was_killed() {
    let mut world = World::start("ok").await;
    let pid = world.plugin_pid().expect("a process of the plugin");
    world.server.0.kill().unwrap();
    world.server.0.wait().unwrap();
    let begun = Instant::now();
    let lives = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with('Z'))
    };
    while lives() {
        assert!(begun.elapsed() < PATIENCE, "it outlives its server");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
