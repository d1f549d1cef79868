//! kill -9 under load: what was answered is durable, and nothing works twice.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::clock::TestClock;
use crate::support::issuer::TestIssuer;
use crate::support::service::JsonBody;

/// A server in a process of its own.
pub struct Process(pub Child);

impl Process {
    pub async fn start(config: &Path, listen: &str, client: &reqwest::Client) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command
            .args(["serve", "--listen", listen, "--config"])
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Self(command.spawn().unwrap());
        for _ in 0..1000 {
            if client.get(format!("http://{listen}/health/ready")).send().await.is_ok_and(|r| r.status() == 200) {
                return process;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the server did not get ready");
    }
}

/// SIGKILL: no handler runs, nothing is flushed.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What one client was told before the end.
#[derive(Default)]
struct Acknowledged {
    id_tokens: Vec<String>,
    spent: Vec<String>,
    /// Exchanged, and no answer came: it may have been spent or not.
    unanswered: Option<String>,
    refresh: Option<String>,
    access: Option<String>,
}

pub async fn post(client: &reqwest::Client, url: &str, body: &Value) -> Option<(u16, Value)> {
    let response = client.post(url).json(body).send().await.ok()?;
    let status = response.status().as_u16();
    let text = response.text().await.ok()?;
    Some((status, serde_json::from_str(&text).ok()?))
}

/// Signs in and refreshes until the server is gone.
async fn drive(client: reqwest::Client, base: String, tokens: Vec<String>) -> Acknowledged {
    let mut told = Acknowledged::default();
    for token in tokens {
        let sign_in = json!({"id_token": token, "provider": "acme"});
        let Some((status, body)) = post(&client, &format!("{base}/auth/id-token/signin"), &sign_in).await else {
            return told;
        };
        assert_eq!(status, 200, "{body}");
        told.id_tokens.push(token);
        told.refresh = body["refresh_token"].as_str().map(str::to_owned);
        told.access = body["access_token"].as_str().map(str::to_owned);
        for _ in 0..3 {
            let held = told.refresh.take().unwrap();
            let exchange = json!({"refresh_token": held});
            // Until the answer, it is not known whether the exchange is durable.
            told.unanswered = Some(held.clone());
            let Some((status, body)) = post(&client, &format!("{base}/auth/refresh"), &exchange).await else {
                return told;
            };
            assert_eq!(status, 200, "{body}");
            told.unanswered = None;
            told.spent.push(held);
            told.refresh = body["refresh_token"].as_str().map(str::to_owned);
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_answered_is_lost_and_nothing_works_twice() {
    let dir = TempDir::new().unwrap();
    let issuer = TestIssuer::start(TestClock::real()).await;
    let config = dir.path().join("countersign.toml");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let text = format!(
        "[server]\npublic_url = \"http://127.0.0.1:8080\"\nallow_insecure_issuers = true\n\
         [limits]\nsign_ins_per_minute = 0\n\
         [store]\nurl = \"sqlite://{}\"\n[secrets]\nmaster_key_file = {:?}\n[policies]\ndir = {policies:?}\n\
         [tokens]\nrefresh_grace = \"0s\"\n[[tenants]]\nid = \"default\"\n\
         [[providers]]\ntenant = \"default\"\nname = \"acme\"\nissuer = {:?}\nclient_ids = [\"app-web\"]\n",
        path("countersign.db"),
        path("master.key"),
        issuer.url,
    );
    std::fs::write(&config, text).unwrap();
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let base = format!("http://{listen}");
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
    for round in 0..3 {
        let server = Process::start(&config, &listen, &client).await;
        let drivers: Vec<_> = (0..16)
            .map(|n| {
                let tokens =
                    (0..200).map(|_| issuer.token().subject(&format!("user-{round}-{n}")).sign()).collect();
                tokio::spawn(drive(client.clone(), base.clone(), tokens))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(700 + 150 * round)).await;
        drop(server);
        let mut told = Vec::new();
        for driver in drivers {
            told.push(driver.await.unwrap());
        }
        let answered: usize = told.iter().map(|t| t.id_tokens.len()).sum();
        assert!(answered > 16, "only {answered} sign-ins were answered before the end");
        let server = Process::start(&config, &listen, &client).await;
        check(&client, &base, &told).await;
        drop(server);
    }
}

async fn check(client: &reqwest::Client, base: &str, told: &[Acknowledged]) {
    let client = Arc::new(client.clone());
    for one in told {
        let Some(last) = one.id_tokens.last() else { continue };
        let again = json!({"id_token": last, "provider": "acme"});
        let (_, body) = post(&client, &format!("{base}/auth/id-token/signin"), &again).await.unwrap();
        assert_eq!(body["error"], "id_token_replayed", "{body}");
        if let Some(refresh) = &one.refresh {
            let access = one.access.as_ref().unwrap();
            let me = client.get(format!("{base}/auth/me")).bearer_auth(access).send().await.unwrap();
            assert_eq!(me.status().as_u16(), 200, "an acknowledged session is lost");
            let (status, body) =
                post(&client, &format!("{base}/auth/refresh"), &json!({"refresh_token": refresh})).await.unwrap();
            assert_eq!(status, 200, "an acknowledged refresh token is lost: {body}");
        }
        if let Some(unanswered) = &one.unanswered {
            let mut worked = 0;
            for _ in 0..2 {
                let exchange = json!({"refresh_token": unanswered});
                let (status, _) = post(&client, &format!("{base}/auth/refresh"), &exchange).await.unwrap();
                worked += usize::from(status == 200);
            }
            assert!(worked <= 1, "a refresh token works twice");
        }
        for spent in one.spent.iter().rev().take(2) {
            let (status, body) =
                post(&client, &format!("{base}/auth/refresh"), &json!({"refresh_token": spent})).await.unwrap();
            assert_eq!(status, 400, "a spent refresh token works again: {body}");
        }
    }
}
