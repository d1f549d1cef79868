//! The load test: a real server process, a real issuer over HTTP, RS256 tokens of returning users minted
//! beforehand, 64 connections, SQLite with full durability. Prints what the server used for each sign-in.
//!
//!     cargo bench --bench load                 # 10 000 sign-ins of 2 000 users
//!     SIGN_INS=50000 USERS=5000 cargo bench --bench load

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;

#[path = "../tests/it/support/clock.rs"]
#[expect(dead_code, reason = "shared with the tests, which use all of it")]
mod clock;
#[path = "../tests/it/support/issuer.rs"]
#[expect(dead_code, reason = "shared with the tests, which use all of it")]
mod issuer;

use clock::TestClock;
use issuer::TestIssuer;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// CPU time of a process in microseconds, user and system together (proc(5)).
fn cpu_us(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks * 10_000
}

/// Resident memory in KiB.
fn resident_kib(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn start(config: &Path, listen: &str) -> (Server, Duration) {
    let started = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["serve", "--listen", listen, "--config"])
        .arg(config)
        .env("RUST_LOG", "info")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server(child);
    while std::net::TcpStream::connect(listen).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
    (server, started.elapsed())
}

/// Sends bodies over one connection until there are none left; gives the latencies.
async fn drive(
    listen: String,
    bodies: Arc<Vec<String>>,
    next: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
) -> Vec<Duration> {
    let stream = TcpStream::connect(&listen).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut latencies = Vec::new();
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let Some(body) = bodies.get(n) else { return latencies };
        let request = Request::post("/auth/id-token/signin")
            .header("host", &listen)
            .header("content-type", "application/json")
            .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0")
            .body(Full::new(Bytes::from(body.clone())))
            .unwrap();
        let started = Instant::now();
        let response = sender.send_request(request).await.unwrap();
        let good = response.status() == 200;
        let text = response.into_body().collect().await.unwrap().to_bytes();
        latencies.push(started.elapsed());
        let signed_in = good && text.windows(14).any(|w| w == b"\"access_token\"");
        if !signed_in && failed.fetch_add(1, Ordering::Relaxed) == 0 {
            eprintln!("not signed in: {}", String::from_utf8_lossy(&text));
        }
    }
}

async fn run(listen: &str, bodies: Vec<String>, connections: usize) -> (Duration, Vec<Duration>, usize) {
    let (bodies, next, failed) = (Arc::new(bodies), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let started = Instant::now();
    let drivers: Vec<_> = (0..connections)
        .map(|_| {
            tokio::spawn(drive(listen.to_owned(), Arc::clone(&bodies), Arc::clone(&next), Arc::clone(&failed)))
        })
        .collect();
    let mut latencies = Vec::new();
    for driver in drivers {
        latencies.extend(driver.await.unwrap());
    }
    latencies.sort();
    (started.elapsed(), latencies, failed.load(Ordering::Relaxed))
}

fn bodies(issuer: &TestIssuer, count: usize, users: usize) -> Vec<String> {
    let groups = json!(["staff", "engineering", "stockholm", "payroll", "a", "b", "c", "d"]);
    (0..count)
        .map(|n| {
            let user = n % users;
            let token = issuer
                .token()
                .subject(&format!("user-{user}"))
                .claim("email", format!("user-{user}@example.com"))
                .claim("email_verified", true)
                .claim("name", "A User With A Name")
                .claim("given_name", "A User")
                .claim("family_name", "With A Name")
                .claim("locale", "sv-SE")
                .claim("groups", groups.clone())
                .claim("amr", json!(["pwd"]))
                .sign();
            json!({"id_token": token, "provider": "acme", "device_id": format!("device-{user}")}).to_string()
        })
        .collect()
}

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(load());
}

async fn load() {
    let (sign_ins, users, connections) =
        (setting("SIGN_INS", 10_000), setting("USERS", 2_000), setting("CONNECTIONS", 64));
    let dir = TempDir::new().unwrap();
    let issuer = TestIssuer::start(TestClock::real()).await;
    let config = dir.path().join("countersign.toml");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let policies: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    // All sign-ins come from one network here, so the limit by network is off.
    let text = format!(
        "[server]\npublic_url = \"http://127.0.0.1:8080\"\nallow_insecure_issuers = true\n\
         [limits]\nsign_ins_per_minute = 0\n\
         [store]\nurl = \"sqlite://{}\"\n[secrets]\nmaster_key_file = {:?}\n[policies]\ndir = {policies:?}\n\
         [[tenants]]\nid = \"default\"\n[[providers]]\nname = \"acme\"\nissuer = {:?}\nclient_ids = [\"app-web\"]\n",
        path("countersign.db"),
        path("master.key"),
        issuer.url,
    );
    std::fs::write(&config, text).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listen = free.to_string();

    println!("minting {} tokens", sign_ins + users);
    let (first, returning) = (bodies(&issuer, users, users), bodies(&issuer, sign_ins, users));
    let (server, _) = start(&config, &listen);
    let (took, _, failed) = run(&listen, first, connections).await;
    println!("first sign-ins: {users} in {:.2} s, {failed} failed", took.as_secs_f64());

    let pid = server.0.id();
    let before = cpu_us(pid);
    let (took, latencies, failed) = run(&listen, returning, connections).await;
    let used = cpu_us(pid) - before;
    let per_second = sign_ins as f64 / took.as_secs_f64();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!("returning users: {sign_ins} sign-ins over {connections} connections, {failed} failed");
    println!("  server CPU per sign-in   {:.0} µs", used as f64 / sign_ins as f64);
    println!("  sign-ins per second      {per_second:.0}");
    println!("  latency p50 p99 max      {:.1} {:.1} {:.1} ms", at(0.5), at(0.99), at(1.0));
    println!("  resident memory now      {:.1} MB", resident_kib(pid, "VmRSS") as f64 / 1024.0);
    println!("  resident memory highest  {:.1} MB", resident_kib(pid, "VmHWM") as f64 / 1024.0);
    drop(server);

    let (warm, listening) = start(&config, &listen);
    let token = bodies(&issuer, 1, 1);
    let started = Instant::now();
    let (_, _, failed) = run(&listen, token, 1).await;
    println!(
        "start with a warm database: listening after {:.0} ms, first sign-in {:.0} ms later, {failed} failed",
        listening.as_secs_f64() * 1000.0,
        started.elapsed().as_secs_f64() * 1000.0
    );
    drop(warm);
    assert_eq!(failed, 0);
}
