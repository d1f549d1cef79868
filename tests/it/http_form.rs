//! Every answer has the form of the contract, the library's own rejections included.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::service::{Answer, JsonBody, Service, Setup};

const SIGN_IN: &str = "/auth/id-token/signin";

async fn post_raw(service: &Service, content_type: Option<&str>, body: impl Into<reqwest::Body>) -> Answer {
    let mut request = service.http().post(service.url(SIGN_IN)).body(body);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    service.send(request).await
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_malformed_requests() {
    let service = Service::start().await;
    let bodies = [
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "{} {}",
        "{\"id_token\": 5}",
        "{\"id_token\": {\"a\": 1}}",
        "{\"id_token\":\"a\",\"id_token\":\"b\"}",
        "{\"profile\":{\"name\":\"a\",\"name\":\"b\"}}",
        "{\"profile\": \"x\"}",
        "\u{feff}{}",
        "{\"nonce\":\"a\\u0000b\"}",
    ];
    for body in bodies {
        let answer = post_raw(&service, Some("application/json"), body).await;
        assert_eq!((answer.status, answer.error()), (400, "malformed_request"), "{body}: {}", answer.text);
    }
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(20_000), "]".repeat(20_000));
    post_raw(&service, Some("application/json"), deep).await.expect(400, "malformed_request");
    let binary = post_raw(&service, Some("application/json"), vec![0xff, 0xfe, 0x00]).await;
    binary.expect(400, "malformed_request");
    let long = json!({"id_token": "x", "device_id": "d".repeat(300)});
    service.post(SIGN_IN, long).await.expect(400, "malformed_request");
}

#[tokio::test]
async fn a_value_of_another_type_is_told_of_without_the_value() {
    let service = Service::start().await;
    for (value, kind) in [
        (json!(["s3cret, found \"s3cret\"."]), "found a list. (occurred"),
        (json!({"s3cret": 1}), "found an object. (occurred"),
        (json!(true), "found a boolean. (occurred"),
        (json!(12), "found a number. (occurred"),
    ] {
        let answer = service.post(SIGN_IN, json!({"id_token": value})).await;
        answer.expect(400, "malformed_request");
        assert!(answer.text.contains(kind) && !answer.text.contains("s3cret"), "{}", answer.text);
    }
}

#[tokio::test]
async fn bodies_of_another_type_are_unsupported() {
    let service = Service::start().await;
    for content_type in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonx"), Some("")]
    {
        post_raw(&service, content_type, "{}").await.expect(415, "unsupported_media_type");
    }
    post_raw(&service, Some("Application/JSON; charset=utf-8"), "{}").await.expect(400, "missing_id_token");
}

#[tokio::test]
async fn bodies_over_64_kib_are_too_large_announced_or_not() {
    let service = Service::start().await;
    post_raw(&service, Some("application/json"), vec![b' '; 64 * 1024 + 1]).await.expect(413, "body_too_large");
    let chunk = || Ok::<_, std::io::Error>(hyper::body::Frame::data(hyper::body::Bytes::from(vec![b' '; 1024])));
    let chunks = http_body_util::StreamBody::new(futures_util::stream::iter((0..100).map(move |_| chunk())));
    let body = reqwest::Body::wrap(chunks);
    post_raw(&service, Some("application/json"), body).await.expect(413, "body_too_large");
}

#[tokio::test]
async fn unknown_addresses_and_methods_have_the_form_too() {
    let service = Service::start().await;
    for path in ["/nothing", "/auth", "/auth/me/", "/%00", "/auth/id-token/signin/x", "/docs/x"] {
        service.send(service.http().get(service.url(path))).await.expect(404, "not_found");
    }
    let wrong = service.send(service.http().get(service.url(SIGN_IN))).await;
    wrong.expect(405, "method_not_allowed");
    assert_eq!(wrong.headers["allow"], "POST");
    let wrong = service.send(service.http().delete(service.url("/auth/me"))).await;
    assert_eq!(wrong.expect(405, "method_not_allowed").headers["allow"], "GET");
}

#[tokio::test]
async fn the_api_is_served_under_the_base_path_as_well() {
    let setup = Setup { base_path: "/identity/api/v1".to_owned(), ..Setup::default() };
    let service = Service::start_with(setup).await;
    for path in ["/health/live", "/identity/api/v1/health/live"] {
        assert_eq!(service.send(service.http().get(service.url(path))).await.status, 200, "{path}");
    }
    let answer = service.post("/identity/api/v1/auth/id-token/signin", json!({})).await;
    answer.expect(400, "missing_id_token");
    service.send(service.http().get(service.url("/identity/api/v1x/health/live"))).await.expect(404, "not_found");
}

#[tokio::test]
async fn health_metrics_and_documents_are_served() {
    let service = Service::start().await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let get = async |path: &str| service.send(service.http().get(service.url(path))).await;
    assert_eq!(get("/health/live").await.body, json!({"status": "ok"}));
    assert_eq!(get("/health/ready").await.body, json!({"status": "ok"}));
    let metrics = get("/metrics").await;
    assert!(metrics.text.contains("countersign_sign_ins_total{"), "{}", metrics.text);
    assert_eq!(get("/openapi.json").await.body, countersign::http::openapi_document());
    assert!(get("/openapi.yaml").await.text.contains("dto.LoginResponse"));
    let docs = get("/docs").await;
    assert!(docs.headers["content-security-policy"].to_str().unwrap().contains("script-src 'self'"));
    assert!(!docs.text.contains("http://") && !docs.text.contains("https://"));
    assert!(get("/docs/swagger-ui.js").await.text.len() > 100_000);
    assert!(get("/docs/swagger-ui.css").await.text.len() > 10_000);
    assert!(get("/docs/start.js").await.text.contains("openapi.json"));
}

#[tokio::test]
async fn broken_http_and_slow_clients_do_not_hold_the_server() {
    let service = Service::start().await;
    let address = service.url("").replace("http://", "");
    for bytes in [
        "GET\r\n\r\n",
        "\0\0\0\0",
        "POST /auth/id-token/signin HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer))
            .await
            .expect("it is closed")
            .unwrap();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
    let mut half = tokio::net::TcpStream::connect(&address).await.unwrap();
    half.write_all(b"POST /auth/id-token/signin HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        .await
        .unwrap();
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
}

#[tokio::test]
async fn forwarded_hosts_choose_no_tenant() {
    let service = Service::start().await;
    let request = service.http().post(service.url(SIGN_IN)).header("x-forwarded-host", "other.example");
    let request = request.header("forwarded", "host=other.example");
    let answer =
        service.send(request.json(&json!({"id_token": service.issuer.token().sign(), "provider": "acme"}))).await;
    answer.signed_in();
}
