//! A tiny HTTP server on loopback whose answers are written by hand, so that broken ones can be given.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What a path answers.
#[derive(Clone)]
pub(super) enum Answer {
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// These bytes again and again until the client leaves.
    Endless(Vec<u8>, Vec<u8>),
    /// Nothing until the gate opens, then the bytes.
    Gated(Arc<Notify>, Vec<u8>),
    /// Nothing, ever.
    Silence,
}

pub(super) fn with_headers(headers: &str, body: &str) -> Answer {
    let length = body.len();
    Answer::Raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{headers}\r\n{body}").into_bytes())
}

pub(super) fn json(value: &Value) -> Answer {
    with_headers("Content-Type: application/json\r\n", &value.to_string())
}

pub(super) fn status(code: u16) -> Answer {
    Answer::Raw(format!("HTTP/1.1 {code} X\r\nContent-Length: 2\r\n\r\n{{}}").into_bytes())
}

pub(super) fn redirect(to: &str) -> Answer {
    Answer::Raw(format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes())
}

type Route = (String, Answer, Arc<AtomicUsize>);

/// The server; it ends with the test's runtime.
pub(super) struct TestServer {
    port: u16,
    routes: Arc<Mutex<Vec<Route>>>,
}

impl TestServer {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let routes = Arc::new(Mutex::new(Vec::<Route>::new()));
        let shared = Arc::clone(&routes);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { port, routes }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Sets what a path answers from now on; its count goes on.
    pub(super) fn set(&self, path: &str, answer: Answer) {
        let mut routes = self.routes.lock().expect("no test panics with it");
        match routes.iter_mut().find(|(p, ..)| p == path) {
            Some(route) => route.1 = answer,
            None => routes.push((path.to_owned(), answer, Arc::default())),
        }
    }

    /// How often the path was asked for.
    pub(super) fn hits(&self, path: &str) -> usize {
        let routes = self.routes.lock().expect("no test panics with it");
        routes.iter().find(|(p, ..)| p == path).map_or(0, |(.., n)| n.load(Ordering::SeqCst))
    }
}

async fn serve(mut stream: TcpStream, routes: Arc<Mutex<Vec<Route>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            // Not the beginning of GET: a TLS handshake.
            Ok(byte) if head.is_empty() && byte != b'G' => return,
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let found = {
        let routes = routes.lock().expect("no test panics with it");
        routes.iter().find(|(p, ..)| *p == path).map(|(_, answer, hits)| {
            hits.fetch_add(1, Ordering::SeqCst);
            answer.clone()
        })
    };
    match found.unwrap_or_else(|| status(404)) {
        Answer::Raw(bytes) => drop(stream.write_all(&bytes).await),
        Answer::Endless(first, then) => {
            let mut going = stream.write_all(&first).await.is_ok();
            while going {
                going = stream.write_all(&then).await.is_ok();
            }
        }
        Answer::Gated(gate, bytes) => {
            gate.notified().await;
            drop(stream.write_all(&bytes).await);
        }
        Answer::Silence => std::future::pending().await,
    }
}
