//! Whoever means harm and knows HTTP: heads that two readers could read differently, claims of any shape in tokens
//! that are signed, and races.

use std::time::Duration;

use countersign::admin::access::Role;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::mfa;
use crate::support::service::{JsonBody, Service, Setup};

const SIGN_IN: &str = "/auth/id-token/signin";

/// Sends a head as it stands, with a JSON body; gives status and the word of the refusal.
async fn raw(service: &Service, head: &[u8], body: &Value) -> (u16, String) {
    let address = service.url("").replace("http://", "");
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let body = body.to_string();
    stream.write_all(head).await.unwrap();
    let rest = format!(
        "content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let status = answer[9..12].parse().unwrap();
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap_or_default();
    (status, body["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_head_that_two_readers_could_read_differently_chooses_no_tenant() {
    let service = Service::start().await;
    let body = || json!({"id_token": service.issuer.token().sign(), "provider": "acme"});
    let line = format!("POST {SIGN_IN} HTTP/1.1\r\n");
    for (lines, expected) in [
        (&b"Host: x\r\n"[..], (200, "")),
        (b"Host: x\r\nX-Tenant-ID: default\r\n", (200, "")),
        // A proxy's header behind the client's: neither wins.
        (b"Host: x\r\nX-Tenant-ID: default\r\nX-Tenant-ID: other\r\n", (404, "unknown_tenant")),
        (b"Host: x\r\nX-Tenant-ID: default\r\nX-Tenant-ID: default\r\n", (404, "unknown_tenant")),
        (b"Host: x\r\nX-Tenant-ID: default, other\r\n", (404, "unknown_tenant")),
        (b"Host: x\r\nX-Tenant-ID: \r\n", (404, "unknown_tenant")),
        (b"Host: x\r\nX-Tenant-ID: DEFAULT\r\n", (404, "unknown_tenant")),
        (b"Host: x\r\nX-Tenant-ID: \xff\xfe\r\n", (404, "unknown_tenant")),
        (b"Host: x\r\nHost: other.example\r\n", (400, "malformed_request")),
        (b"Host: x\r\nHost: x\r\n", (400, "malformed_request")),
        (b"Host: \xff\r\n", (400, "malformed_request")),
        // No host at all would be everybody's tenant.
        (b"", (400, "malformed_request")),
        (b"X-Tenant-ID: default\r\n", (400, "malformed_request")),
        (b"Host:\r\n", (400, "malformed_request")),
        (b"Host:  \t\r\n", (400, "malformed_request")),
        (b"Host: :8080\r\n", (400, "malformed_request")),
        (b"Host: other.example@x\r\n", (400, "malformed_request")),
        (b"Host: x/other.example\r\n", (400, "malformed_request")),
        (b"Host: x y\r\n", (400, "malformed_request")),
        (b"Host: [::1]:8080\r\n", (200, "")),
        // The tenant of the host has no such provider.
        (b"Host: other.example\r\n", (404, "unknown_provider")),
        (b"Host: OTHER.example.:80\r\n", (404, "unknown_provider")),
    ] {
        let (status, error) = raw(&service, &[line.as_bytes(), lines].concat(), &body()).await;
        assert_eq!((status, error.as_str()), expected, "{}", String::from_utf8_lossy(lines));
    }
    // RFC 9112 section 3.2.2: the host of the request line goes before the header.
    let absolute = format!("POST http://other.example{SIGN_IN} HTTP/1.1\r\nHost: x\r\n");
    assert_eq!(raw(&service, absolute.as_bytes(), &body()).await, (404, "unknown_provider".to_owned()));
    let absolute = format!("POST http://other.example{SIGN_IN} HTTP/1.1\r\n");
    assert_eq!(raw(&service, absolute.as_bytes(), &body()).await, (400, "malformed_request".to_owned()));
    // HTTP/1.0 knows no Host, so its absence is no fault there; an empty one is.
    let old = format!("POST {SIGN_IN} HTTP/1.0\r\n");
    assert_eq!(raw(&service, old.as_bytes(), &body()).await, (200, String::new()));
    let old = format!("POST {SIGN_IN} HTTP/1.0\r\nHost:\r\n");
    assert_eq!(raw(&service, old.as_bytes(), &body()).await, (400, "malformed_request".to_owned()));
}

#[tokio::test]
async fn a_compressed_body_is_told_so_and_not_opened() {
    let service = Service::start().await;
    let body = json!({"id_token": service.issuer.token().sign(), "provider": "acme"});
    for coding in ["gzip", "br", "deflate, gzip", "x", ""] {
        let request = service.http().post(service.url(SIGN_IN)).header("content-encoding", coding).json(&body);
        service.send(request).await.expect(415, "unsupported_media_type");
    }
    let request = service.http().post(service.url(SIGN_IN)).header("content-encoding", "Identity").json(&body);
    service.send(request).await.signed_in();
}

/// Signed by the provider, so that they get as far as scripts and store.
fn odd_values() -> Vec<Value> {
    let nested = (0..60).fold(json!(1), |inner, _| json!({ "a": inner }));
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(1e308),
        json!(""),
        json!(" "),
        json!("\u{0}"),
        json!("a\r\nb"),
        json!("\u{202e}\u{301}\u{feff}"),
        json!("x".repeat(5000)),
        json!("\u{1f600}".repeat(100)),
        json!("'; DROP TABLE users;--"),
        json!("{{7*7}}${7*7}<script>"),
        json!([]),
        json!(vec!["g"; 700]),
        json!({}),
        json!({"$gt": ""}),
        nested,
    ]
}

#[tokio::test]
async fn a_claim_of_any_shape_is_refused_or_read_and_what_came_of_it_can_be_shown() {
    let service = Service::start_with(Setup::provider("allowed_groups = [\"g\"]")).await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    let names = [
        "sub",
        "email",
        "email_verified",
        "name",
        "given_name",
        "preferred_username",
        "locale",
        "phone_number",
        "phone_number_verified",
        "groups",
        "roles",
        "amr",
        "acr",
        "sid",
        "auth_time",
        "azp",
        "at_hash",
        "nonce",
        "jti",
        "_claim_names",
        "hd",
        "tid",
        "x",
    ];
    let mut let_in = 0;
    for name in names {
        for value in odd_values() {
            let subject = format!("odd-{let_in}");
            let token = service.issuer.token().subject(&subject).claim(name, value.clone());
            // `send` asserts that nothing is a 500 and every refusal is one of the document.
            let answer = service.sign_in(&token.sign()).await;
            if answer.status == 200 {
                let_in += 1;
                let access = answer.body["access_token"].as_str().unwrap_or_else(|| panic!("{}", answer.text));
                let me = service.get_with("/auth/me", access).await;
                assert_eq!(me.status, 200, "{name} = {value}: {}", me.text);
            } else {
                assert!((400..500).contains(&answer.status), "{name} = {value}: {}", answer.text);
            }
        }
    }
    assert!(let_in > 100, "{let_in} let in");
    for list in ["/admin/users?limit=200", "/admin/sign-ins?limit=200", "/admin/sessions?limit=200"] {
        let shown = service.get_with(list, &editor).await;
        assert_eq!(shown.status, 200, "{list}: {}", shown.text);
    }
}

#[tokio::test]
async fn one_server_issued_nonce_lets_one_of_many_tokens_in_at_once() {
    let service = Service::start_with(Setup::provider("nonce = \"server_issued\"")).await;
    let nonce = service.post("/auth/id-token/nonce", json!({})).await.body["nonce"].as_str().unwrap().to_owned();
    let tries = (0..20).map(|n| {
        let token = service.issuer.token().subject(&format!("s-{n}")).claim("nonce", nonce.as_str());
        let body = json!({"id_token": token.sign(), "provider": "acme", "nonce": nonce});
        service.post(SIGN_IN, body)
    });
    let answers = join_all(tries).await;
    let signed_in = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(signed_in, 1);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        answer.expect(401, "id_token_nonce_mismatch");
    }
}

#[tokio::test]
async fn one_token_sent_fifty_times_at_once_signs_in_once() {
    let service = Service::start().await;
    for token in [service.issuer.token().sign(), service.issuer.token().without("jti").sign()] {
        let answers = join_all((0..50).map(|_| service.sign_in(&token))).await;
        let signed_in = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(signed_in, 1);
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            answer.expect(401, "id_token_replayed");
        }
    }
}

#[tokio::test]
async fn a_provider_that_is_disabled_in_the_middle_gives_no_token_afterwards() {
    let service = Service::start().await;
    let editor = service.admin_key(Role::Editor, Some("default")).await;
    let before: Vec<String> = (0..30).map(|n| service.issuer.token().subject(&format!("s-{n}")).sign()).collect();
    let running = join_all(before.iter().map(|token| service.sign_in(token)));
    let switched = service.post_with("/admin/providers/acme/disable", &editor, json!({}));
    let (answers, off) = tokio::join!(running, switched);
    assert_eq!(off.status, 200, "{}", off.text);
    for answer in &answers {
        assert!(answer.status == 200 || answer.error() == "provider_disabled", "{}", answer.text);
    }
    service.sign_in(&service.issuer.token().sign()).await.expect(403, "provider_disabled");
    // What was let in before the switch opens nothing after it.
    for answer in answers.iter().filter(|answer| answer.status == 200) {
        let access = answer.body["access_token"].as_str().unwrap();
        service.get_with("/auth/me", access).await.expect(403, "provider_disabled");
        let refresh = json!({"refresh_token": answer.body["refresh_token"]});
        service.post("/auth/refresh", refresh).await.expect(403, "provider_disabled");
    }
}

/// The digits of the right code in other clothes are not the code, and each of them counts as a try.
#[tokio::test]
async fn a_code_in_other_clothes_is_a_wrong_code_and_is_counted() {
    let (_dir, service, secret) = mfa::enrolled().await;
    let right = mfa::code(&service, &secret, 0);
    let in_script = |zero: char| -> String {
        let digit = |c: char| char::from_u32(u32::from(zero) + c.to_digit(10).unwrap()).unwrap();
        right.chars().map(digit).collect()
    };
    let clothes = [
        in_script('\u{660}'),
        in_script('\u{ff10}'),
        format!("+{right}"),
        format!("{right}\u{0}"),
        format!("0{right}"),
        right[..5].to_owned(),
        String::new(),
        "9".repeat(5000),
        "null".to_owned(),
        format!("{right},{right}"),
    ];
    let (mut wrong, mut challenge) = (0, mfa::challenge(&service).await);
    for (n, code) in clothes.iter().enumerate() {
        if n == 5 {
            challenge = mfa::challenge(&service).await;
        }
        let answer = mfa::verify(&service, &challenge, code).await;
        let fits = (400..500).contains(&answer.status) && answer.body["access_token"].is_null();
        assert!(fits, "{code:?}: {}", answer.text);
        wrong += usize::from(answer.error() == "invalid_mfa_code");
    }
    assert!(wrong >= 7, "{wrong} were counted");
    if wrong < 10 {
        let fresh = mfa::challenge(&service).await;
        for _ in wrong..10 {
            mfa::verify(&service, &fresh, "000000").await;
        }
    }
    let last = mfa::challenge(&service).await;
    mfa::verify(&service, &last, &right).await.expect(429, "mfa_locked");
}

#[tokio::test]
async fn a_refresh_token_in_other_clothes_opens_nothing_and_ends_nothing() {
    let service = Service::start().await;
    let signed_in = service.sign_in(&service.issuer.token().sign()).await.signed_in().clone();
    let token = signed_in["refresh_token"].as_str().unwrap();
    let (id, secret) = token.split_once('.').unwrap();
    for other in [
        format!("{token} "),
        format!(" {token}"),
        format!("{token}\u{0}"),
        format!("{token}="),
        format!("{token}."),
        format!("{}.{secret}", id.to_uppercase()),
        format!("{id}.{}", secret.to_lowercase()),
        format!("{id}."),
        format!(".{secret}"),
        id.to_owned(),
        secret.to_owned(),
        format!("{id}.{secret}{secret}"),
        token.replace("rft_", "ses_"),
        "\u{1f600}".repeat(50),
    ] {
        let answer = service.post("/auth/refresh", json!({"refresh_token": other})).await;
        assert!(answer.status == 400 && answer.body["access_token"].is_null(), "{other:?}: {}", answer.text);
        assert!(!answer.text.contains(secret), "{}", answer.text);
    }
    let refreshed = service.post("/auth/refresh", json!({"refresh_token": token})).await;
    refreshed.signed_in();
}
