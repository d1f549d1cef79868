//! An issuer whose answers are written byte by byte, so that it can be broken in every way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::issuer::{TokenBuilder, shared_rsa};
use super::service::{Service, Setup};

pub const DISCOVERY: &str = "/.well-known/openid-configuration";
pub const KEYS: &str = "/keys";

/// What a path answers.
#[derive(Clone)]
pub enum Wire {
    /// These bytes, then the end of the connection.
    Bytes(Vec<u8>),
    /// The first bytes, then the others again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// Nothing before the gate shows `true`, then the bytes.
    Gated(watch::Receiver<bool>, Vec<u8>),
    /// Nothing, ever.
    Silence,
}

impl Wire {
    pub fn answer(status: u16, headers: &str, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        Self::Bytes([head.as_bytes(), body].concat())
    }

    pub fn json(body: &serde_json::Value) -> Self {
        Self::answer(200, "Content-Type: application/json\r\n", body.to_string().as_bytes())
    }

    pub fn redirect(to: &str) -> Self {
        Self::answer(302, &format!("Location: {to}\r\n"), b"")
    }
}

type Routes = Arc<Mutex<HashMap<String, Wire>>>;

/// A running one. Dropped, it is out of reach: its port refuses connections.
pub struct WireIssuer {
    pub url: String,
    routes: Routes,
    pub key_fetches: Arc<AtomicUsize>,
    running: tokio::task::JoinHandle<()>,
}

impl Drop for WireIssuer {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl WireIssuer {
    /// With discovery and the shared RSA key as `rsa-1`.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (routes, key_fetches) = (Routes::default(), Arc::new(AtomicUsize::new(0)));
        let (shared, counted) = (Arc::clone(&routes), Arc::clone(&key_fetches));
        let running = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared), Arc::clone(&counted)));
            }
        });
        let issuer = Self { url, routes, key_fetches, running };
        issuer.set(DISCOVERY, Wire::json(&json!({"issuer": issuer.url, "jwks_uri": issuer.path(KEYS)})));
        issuer.set(KEYS, Self::good_keys());
        issuer
    }

    /// The key set that it begins with.
    pub fn good_keys() -> Wire {
        Wire::json(&json!({"keys": [shared_rsa().jwk("rsa-1")]}))
    }

    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub fn set(&self, path: &str, answer: Wire) {
        self.routes.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// As provider `wire` beside `acme`.
    pub fn setup(&self) -> Setup {
        let more_config = format!(
            "[[providers]]\ntenant = \"default\"\nname = \"wire\"\nissuer = {:?}\nclient_ids = [\"app-web\"]\n",
            self.url
        );
        Setup { more_config, ..Setup::default() }
    }

    /// A token that would be accepted.
    pub fn token(&self, service: &Service) -> TokenBuilder {
        service.issuer.token().claim("iss", self.url.as_str())
    }

    pub fn fetches(&self) -> usize {
        self.key_fetches.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, routes: Routes, key_fetches: Arc<AtomicUsize>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    if path == KEYS {
        key_fetches.fetch_add(1, Ordering::SeqCst);
    }
    let found = routes.lock().unwrap().get(path).cloned();
    match found.unwrap_or_else(|| Wire::answer(404, "", b"")) {
        Wire::Bytes(bytes) => drop(stream.write_all(&bytes).await),
        Wire::Endless(first, then) => {
            let mut going = stream.write_all(&first).await.is_ok();
            while going {
                going = stream.write_all(&then).await.is_ok();
            }
        }
        Wire::Gated(mut gate, bytes) => {
            if gate.wait_for(|open| *open).await.is_ok() {
                drop(stream.write_all(&bytes).await);
            }
        }
        Wire::Silence => std::future::pending().await,
    }
}
