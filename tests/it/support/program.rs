//! The built program, as an operator runs it: a configuration in a file, a process of its own, signals, and its
//! standard error in a file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::clock::TestClock;
use super::issuer::TestIssuer;
use super::service::{Answer, JsonBody, Setup, ask, configuration};

/// Much longer than anything takes, on a machine as slow as it gets.
const PATIENCE: Duration = Duration::from_secs(60);

/// Something in the environment of the server that is nobody else's business.
pub const CANARY: &str = "canary-in-the-environment";

/// A file that whoever starts the server leaves open for it.
pub const HANDED_OVER: &str = "handed-over";

/// A server with one provider, `acme`, that a test issuer stands behind; its clock is the machine's.
pub struct Program {
    server: Child,
    pub issuer: TestIssuer,
    dir: TempDir,
    base: String,
    client: reqwest::Client,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        if std::thread::panicking() {
            let log = self.log();
            log.lines()
                .filter(|line| !line.contains("\"message\":\"sign-in\""))
                .for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Program {
    pub async fn start(setup: Setup) -> Self {
        Self::begin(setup).await.ready().await
    }

    /// Starts it and does not wait until it listens.
    pub async fn begin(setup: Setup) -> Self {
        let dir = TempDir::new().unwrap();
        let issuer = TestIssuer::start(TestClock::real()).await;
        let config = dir.path().join("countersign.toml");
        std::fs::write(&config, configuration(dir.path(), &issuer, &setup)).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let handed_over = dir.path().join(HANDED_OVER);
        std::fs::write(&handed_over, "of no use to a plugin").unwrap();
        // The shell becomes the server.
        let server = Command::new("sh")
            .args(["-c", "exec 9< \"$0\" && exec \"$@\""])
            .arg(&handed_over)
            .args([env!("CARGO_BIN_EXE_countersign"), "serve", "--log-json", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .env("DATABASE_PASSWORD", CANARY)
            .envs(setup.trusted.map(|file| ("SSL_CERT_FILE", file)))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { server, issuer, dir, base: String::new(), client }
    }

    /// Waits until it listens.
    pub async fn ready(mut self) -> Self {
        let since = Instant::now();
        while self.base.is_empty() {
            assert!(self.server.try_wait().unwrap().is_none(), "it has ended");
            assert!(since.elapsed() < PATIENCE, "it does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
            if let Some(line) = self.logged("listening").first() {
                self.base = format!("http://{}", line["address"].as_str().unwrap());
            }
        }
        self
    }

    /// What the server wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The lines with this message.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        let lines = self.log();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub fn http(&self) -> &reqwest::Client {
        &self.client
    }

    /// Sends any request, and checks the answer against the document.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        ask(&self.client, request, false).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.client.post(self.url(path)).json(&body)).await
    }

    pub async fn get_with(&self, path: &str, bearer: &str) -> Answer {
        self.send(self.client.get(self.url(path)).bearer_auth(bearer)).await
    }

    pub async fn sign_in(&self, id_token: &str) -> Answer {
        self.sign_in_by("acme", id_token).await
    }

    pub async fn sign_in_by(&self, provider: &str, id_token: &str) -> Answer {
        self.post("/auth/id-token/signin", json!({"id_token": id_token, "provider": provider})).await
    }

    /// A new key of the administration API, for all tenants.
    pub fn admin_key(&self) -> String {
        let made = Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(["admin-key", "create", "--json", "--role", "viewer", "--all-tenants", "--config"])
            .arg(self.config())
            .output()
            .unwrap();
        let told: Value = serde_json::from_slice(&made.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&made.stderr)));
        told["key"].as_str().unwrap_or_else(|| panic!("{told}")).to_owned()
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("countersign.toml")
    }

    /// What `/admin/plugins` tells of the only plugin.
    pub async fn plugin(&self, admin_key: &str) -> Value {
        let listed = self.get_with("/admin/plugins", admin_key).await;
        assert_eq!(listed.status, 200, "{}", listed.text);
        listed.body["items"][0].clone()
    }

    /// The sum of a metric, over its labels; `None` when it was never set.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.client.get(self.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let values = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
        });
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).reduce(|a, b| a + b)
    }

    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    /// Has the lock file read now.
    pub fn hang_up(&self) {
        signal(self.pid(), Signal::SIGHUP);
    }

    /// Waits until the server has ended; gives its status.
    pub async fn ended(mut self) -> ExitStatus {
        let mut status = None;
        until("it ends", async || {
            status = self.server.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.expect("it has ended")
    }

    /// The children of the server, with those that wait to be reaped.
    pub fn children(&self) -> Vec<u32> {
        self.children_with_state().into_iter().map(|(pid, _)| pid).collect()
    }

    fn children_with_state(&self) -> Vec<(u32, String)> {
        let server = self.pid().to_string();
        let child = |entry: std::fs::DirEntry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let mut fields = stat.rsplit(')').next()?.split_whitespace();
            let (state, parent) = (fields.next()?, fields.next()?);
            (parent == server).then(|| (pid, state.to_owned()))
        };
        std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter_map(child).collect()
    }

    /// The living process of the only plugin.
    pub fn plugin_pid(&self) -> Option<u32> {
        self.children_with_state().into_iter().find(|(_, state)| state != "Z").map(|(pid, _)| pid)
    }

    /// Waits for another process of the plugin than this one, that calls reach: its start is logged.
    pub async fn until_another_than(&self, pid: u32, restarts: usize) -> u32 {
        until("the plugin runs again", async || self.logged("a plugin's process runs again").len() >= restarts)
            .await;
        let now = self.plugin_pid().expect("it runs");
        assert_ne!(now, pid);
        now
    }

    /// What the server holds open besides connections to clients, by what it is.
    pub fn descriptors(&self) -> Vec<String> {
        let unix = unix_sockets(self.pid());
        let mut held = descriptors(self.pid()).unwrap();
        held.retain(|link| !link.starts_with("socket:") || unix.contains(link));
        held
    }

    /// The names of its threads.
    pub fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().filter_map(Result::ok);
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect()
    }
}

/// Kills, stops or tells.
pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Stops a process, and waits until none of its threads goes on: they do for a moment.
pub async fn freeze(pid: u32) {
    signal(pid, Signal::SIGSTOP);
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    };
    until("it has stopped", async || is_stopped()).await;
}

/// What the descriptors of a process lead to.
///
/// # Errors
/// When this user may not see them.
pub fn descriptors(pid: u32) -> std::io::Result<Vec<String>> {
    let all = std::fs::read_dir(format!("/proc/{pid}/fd"))?.filter_map(Result::ok);
    // One may be closed meanwhile.
    Ok(all.filter_map(|fd| std::fs::read_link(fd.path()).ok()).map(|to| to.display().to_string()).collect())
}

/// The Unix sockets of the network that a process is in, as its descriptors name them.
fn unix_sockets(pid: u32) -> BTreeSet<String> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap();
    let inodes = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(6));
    inodes.map(|inode| format!("socket:[{inode}]")).collect()
}

/// Asks until it is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !is_so().await {
        assert!(since.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
