//! The client against a server that misbehaves.

use std::error::Error;
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderValue, LOCATION};
use serde_json::json;
use url::Url;

use super::client::next_url;
use super::test_server::{self as server, Answer, TestServer};
use super::{FetchError, FetchSettings, Fetched, Fetcher};

fn insecure(timeout: Duration) -> Fetcher {
    let settings = FetchSettings { allow_insecure_issuers: true, timeout, ..FetchSettings::default() };
    Fetcher::new(settings).expect("a client")
}

fn strict() -> Fetcher {
    Fetcher::new(FetchSettings::default()).expect("a client")
}

async fn get(answer: Answer) -> Result<Fetched, FetchError> {
    let server = TestServer::start().await;
    server.set("/x", answer);
    insecure(Duration::from_secs(5)).get_json(&server.url("/x")).await
}

fn whole_chain(error: &dyn Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(" {inner}"));
        cause = inner.source();
    }
    text
}

#[tokio::test]
async fn a_json_object_is_read_whatever_its_type_is_called() {
    let fetched =
        get(server::with_headers("Content-Type: text/plain\r\nCache-Control: max-age=77\r\n", r#"{"a":1}"#));
    let fetched = fetched.await.expect("an object");
    assert_eq!(fetched.object, *json!({"a": 1}).as_object().expect("an object"));
    assert_eq!(fetched.body, br#"{"a":1}"#);
    assert_eq!(fetched.max_age, Some(Duration::from_secs(77)));
}

#[tokio::test]
async fn anything_but_a_json_object_is_refused_and_not_repeated() {
    for body in ["<html>hunter2</html>", "[1]", "\"hunter2\"", "", "{\"a\":1,\"a\":2}", "{} hunter2"] {
        let error = get(server::with_headers("Content-Type: text/html\r\n", body)).await.expect_err(body);
        assert!(matches!(error, FetchError::NotJson { .. }), "{body}: {error:?}");
        assert!(error.to_string().contains("text/html"), "{error}");
        assert!(!whole_chain(&error).contains("hunter2"), "{error:?}");
    }
}

#[tokio::test]
async fn every_status_but_200_is_refused() {
    for code in [201, 204, 206, 400, 401, 404, 429, 500, 503] {
        let result = get(server::status(code)).await;
        assert!(matches!(result, Err(FetchError::Status(c)) if c == code), "{code}: {result:?}");
    }
}

#[tokio::test]
async fn a_truncated_answer_is_refused() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"keys\":[]}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{\"keys\":[]}\r\n",
    ] {
        let result = get(Answer::Raw(bytes.into())).await;
        assert!(matches!(result, Err(FetchError::Broken(_))), "{result:?}");
    }
    for bytes in ["HTTP/1.1 200 OK\r\nContent-Le", "", "220 mail.example ESMTP\r\n"] {
        let result = get(Answer::Raw(bytes.into())).await;
        assert!(matches!(result, Err(FetchError::Connect(_))), "{result:?}");
    }
}

#[tokio::test]
async fn a_large_answer_is_refused_by_its_announcement() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n";
    let result = get(Answer::Endless(head.into(), vec![b' '; 4096])).await;
    assert!(matches!(result, Err(FetchError::TooLarge)), "{result:?}");
}

#[tokio::test]
async fn an_endless_answer_is_refused_while_it_comes() {
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let result = get(Answer::Endless(head.into(), chunk.into())).await;
    assert!(matches!(result, Err(FetchError::TooLarge)), "{result:?}");
    let result = get(Answer::Endless("HTTP/1.1 200 OK\r\n\r\n".into(), vec![b' '; 4096])).await;
    assert!(matches!(result, Err(FetchError::TooLarge)), "{result:?}");
}

#[tokio::test]
async fn a_compressed_answer_is_refused_unread() {
    for coding in ["gzip", "br", "deflate", "zstd", "identity, gzip"] {
        let answer = server::with_headers(&format!("Content-Encoding: {coding}\r\n"), "{}");
        assert!(matches!(get(answer).await, Err(FetchError::Encoded)), "{coding}");
    }
    assert!(get(server::with_headers("Content-Encoding: identity\r\n", "{}")).await.is_ok());
}

#[tokio::test]
async fn a_late_and_a_trickling_answer_end_with_the_time_limit() {
    let server = TestServer::start().await;
    server.set("/silent", Answer::Silence);
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    server.set("/gate", Answer::Gated(gate, Vec::new()));
    let fetcher = insecure(Duration::from_millis(150));
    for path in ["/silent", "/gate"] {
        let began = Instant::now();
        let result = fetcher.get_json(&server.url(path)).await;
        assert!(matches!(result, Err(FetchError::Timeout { .. })), "{path}: {result:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{path}");
    }
}

#[tokio::test]
async fn two_redirects_are_followed_and_a_third_is_not() {
    let server = TestServer::start().await;
    server.set("/1", server::redirect("/2"));
    server.set("/2", server::redirect(&server.url("/3")));
    server.set("/3", server::json(&json!({"a": 1})));
    server.set("/0", server::redirect("/1"));
    server.set("/loop", server::redirect("/loop"));
    let fetcher = insecure(Duration::from_secs(5));
    assert!(fetcher.get_json(&server.url("/1")).await.is_ok());
    assert!(matches!(fetcher.get_json(&server.url("/0")).await, Err(FetchError::TooManyRedirects)));
    assert!(matches!(fetcher.get_json(&server.url("/loop")).await, Err(FetchError::TooManyRedirects)));
    assert_eq!(server.hits("/loop"), 3);
}

#[tokio::test]
async fn a_redirect_to_the_inside_is_refused() {
    let server = TestServer::start().await;
    let fetcher = insecure(Duration::from_secs(5));
    for to in [
        "http://169.254.169.254/latest/meta-data/",
        "https://169.254.169.254/",
        "https://10.0.0.1/keys",
        "https://[::ffff:127.0.0.1]/",
        "https://[fd00:ec2::254]/",
        "http://8.8.8.8/",
        "https://2852039166/",
        "https://0xa9fea9fe/",
        "https://user:hunter2@8.8.8.8/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "https://",
    ] {
        server.set("/x", server::redirect(to));
        let error = fetcher.get_json(&server.url("/x")).await.expect_err(to);
        assert!(matches!(error, FetchError::Redirect(_)), "{to}: {error:?}");
        assert!(!whole_chain(&error).contains("hunter2"), "{error:?}");
    }
    server.set("/x", Answer::Raw("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".into()));
    assert!(matches!(fetcher.get_json(&server.url("/x")).await, Err(FetchError::Redirect(_))));
}

#[tokio::test]
async fn by_default_no_url_reaches_this_machine_or_its_network() {
    let server = TestServer::start().await;
    server.set("/x", server::json(&json!({})));
    let port = server.port();
    let fetcher = strict();
    for host in ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "0x7f.1", "127.1", "[::ffff:7f00:1]"] {
        let error = fetcher.get_json(&format!("https://{host}:{port}/x?secret=hunter2")).await.expect_err(host);
        assert!(matches!(error, FetchError::Address(_)), "{host}: {error:?}");
        assert!(!whole_chain(&error).contains("hunter2"), "{error:?}");
        let error = fetcher.get_json(&format!("http://{host}:{port}/x")).await.expect_err(host);
        assert!(matches!(error, FetchError::Insecure), "{host}: {error:?}");
    }
    assert_eq!(server.hits("/x"), 0);
}

#[tokio::test]
async fn without_tls_only_loopback_is_reached_even_when_a_network_is_granted() {
    let settings = FetchSettings {
        allow_insecure_issuers: true,
        granted_networks: vec!["0.0.0.0/0".parse().expect("a network")],
        ..FetchSettings::default()
    };
    let fetcher = Fetcher::new(settings).expect("a client");
    for url in ["http://10.0.0.1/", "http://8.8.8.8/", "http://[2606:4700::1111]/"] {
        assert!(matches!(fetcher.get_json(url).await, Err(FetchError::Address(_))), "{url}");
    }
    let server = TestServer::start().await;
    server.set("/x", server::json(&json!({})));
    assert!(fetcher.get_json(&format!("http://localhost:{}/x", server.port())).await.is_ok());
}

#[tokio::test]
async fn a_url_that_is_no_plain_web_address_is_refused() {
    let fetcher = insecure(Duration::from_secs(5));
    let long = format!("https://a.example/{}", "x".repeat(3000));
    for url in [
        "",
        "x",
        "/x",
        "ftp://a.example/",
        "file:///etc/passwd",
        "data:,{}",
        "https://",
        "https://u@a.example/",
        "https://:p@a.example/",
        &long,
    ] {
        assert!(matches!(fetcher.get_json(url).await, Err(FetchError::Url(_))), "{url}");
    }
}

#[tokio::test]
async fn a_closed_port_and_a_server_without_tls_give_an_error_without_the_url() {
    let server = TestServer::start().await;
    let fetcher = insecure(Duration::from_secs(5));
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let closed = listener.local_addr().expect("bound").port();
    drop(listener);
    for url in [
        format!("http://127.0.0.1:{closed}/x?secret=hunter2"),
        format!("https://127.0.0.1:{}/x?secret=hunter2", server.port()),
    ] {
        let error = fetcher.get_json(&url).await.expect_err("no connection");
        assert!(matches!(error, FetchError::Connect(_)), "{error:?}");
        assert!(!whole_chain(&error).contains("hunter2"), "{error:?}");
    }
}

#[test]
fn a_redirect_never_leaves_tls() {
    let from = Url::parse("https://a.example/x").expect("a URL");
    let to = |location: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_static(location));
        next_url(&from, &headers)
    };
    for location in ["http://a.example/y", "http://127.0.0.1/y", "HTTP://localhost"] {
        assert!(matches!(to(location), Err(FetchError::Insecure)), "{location}");
    }
    for (location, url) in
        [("/y", "https://a.example/y"), ("//b.example", "https://b.example/"), ("?q#f", "https://a.example/x?q")]
    {
        assert_eq!(to(location).expect("allowed").as_str(), url);
    }
}

#[tokio::test]
async fn a_granted_network_is_connected_to_and_still_needs_tls() {
    let server = TestServer::start().await;
    server.set("/x", server::json(&json!({})));
    let granted_networks = vec!["127.0.0.0/8".parse().expect("a network")];
    let fetcher = Fetcher::new(FetchSettings { granted_networks, ..FetchSettings::default() }).expect("a client");
    let result = fetcher.get_json(&format!("https://127.0.0.1:{}/x", server.port())).await;
    assert!(matches!(result, Err(FetchError::Connect(_))), "the server speaks no TLS: {result:?}");
    let result = fetcher.get_json(&server.url("/x")).await;
    assert!(matches!(result, Err(FetchError::Insecure)), "{result:?}");
}
