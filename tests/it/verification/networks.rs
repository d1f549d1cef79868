//! Sign-ins are limited by network: an IPv4 address, or a /64 of IPv6, as the connection or a trusted proxy tells it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::oauth;
use crate::support::issuer::TestKey;
use crate::support::service::{Answer, JsonBody, Service, Setup};

async fn post_from(service: &Service, address: &str, path: &str, body: Value) -> Answer {
    let request = service.http().post(service.url(path)).header("x-forwarded-for", address).json(&body);
    service.send(request).await
}

async fn sign_in_from(service: &Service, address: &str) -> Answer {
    let body = json!({"id_token": service.issuer.token().sign(), "provider": "acme"});
    post_from(service, address, "/auth/id-token/signin", body).await
}

#[track_caller]
fn held_off(answer: &Answer, retry_after_s: &str) {
    answer.expect(429, "too_many_requests");
    assert_eq!(answer.headers["retry-after"], retry_after_s);
}

#[tokio::test]
async fn cve_2026_45364_addresses_of_one_network_share_the_limit_of_sign_ins() {
    let service = Service::start_with(Setup::limits("sign_ins_per_minute = 3")).await;
    for address in ["2001:db8:0:1::1", "2001:DB8:0:1::2", "[2001:db8:0:1:ffff::3]:4711"] {
        sign_in_from(&service, address).await.signed_in();
    }
    held_off(&sign_in_from(&service, "2001:db8:0:1::4").await, "20");
    sign_in_from(&service, "2001:db8:0:2::1").await.signed_in();
    for address in ["192.0.2.1", "::ffff:192.0.2.1", "::FFFF:c000:201"] {
        sign_in_from(&service, address).await.signed_in();
    }
    held_off(&sign_in_from(&service, "192.0.2.1").await, "20");
    sign_in_from(&service, "192.0.2.2").await.signed_in();
    service.clock.advance(Duration::from_secs(20));
    sign_in_from(&service, "192.0.2.1").await.signed_in();
    held_off(&sign_in_from(&service, "192.0.2.1").await, "20");
    let metrics = service.send(service.http().get(service.url("/metrics"))).await;
    assert!(metrics.text.contains("countersign_throttled_total{tenant=\"default\"}"), "{}", metrics.text);
    assert!(!metrics.text.contains("192.0.2.1"));
}

#[tokio::test]
async fn cve_2026_45364_without_a_trusted_proxy_invented_addresses_do_not_escape_the_limit() {
    let setup = Setup { limits: "sign_ins_per_minute = 3".to_owned(), ..Setup::default() };
    let service = Service::start_with(setup).await;
    for n in 0..3 {
        sign_in_from(&service, &format!("192.0.2.{n}")).await.signed_in();
    }
    held_off(&sign_in_from(&service, "192.0.2.99").await, "20");
    let body = json!({"id_token": service.issuer.token().sign(), "provider": "acme"});
    let request = service.http().post(service.url("/auth/id-token/signin")).json(&body);
    held_off(&service.send(request.header("forwarded", "for=198.51.100.7")).await, "20");
}

/// What a client writes itself reaches the server beside or before what the proxy adds.
#[tokio::test]
async fn cve_2026_45364_what_a_client_forwards_itself_does_not_escape_the_limit() {
    let service = Service::start_with(Setup::limits("sign_ins_per_minute = 3\nexempt = [\"127.0.0.0/8\"]")).await;
    let sign_in = async |headers: &[(&str, &[u8])]| {
        let body = json!({"id_token": service.issuer.token().sign(), "provider": "acme"});
        let mut request = service.http().post(service.url("/auth/id-token/signin")).json(&body);
        for (name, value) in headers {
            request = request.header(*name, reqwest::header::HeaderValue::from_bytes(value).unwrap());
        }
        service.send(request).await
    };
    for line in [&b"\xff, 192.0.2.1"[..], b"nonsense,192.0.2.1", b"127.0.0.1 , 192.0.2.1"] {
        sign_in(&[("x-forwarded-for", line)]).await.signed_in();
    }
    for line in [&b"\xff, 192.0.2.1"[..], b"192.0.2.1"] {
        held_off(&sign_in(&[("x-forwarded-for", line)]).await, "20");
    }
    for forwarded in [&b"for=198.51.100.7"[..], b"for=127.0.0.1", b"for=\xff"] {
        let refused = sign_in(&[("x-forwarded-for", b"192.0.2.1"), ("forwarded", forwarded)]).await;
        refused.expect(400, "malformed_request");
    }
    for forwarded in [&b"for=\"192.0.2.1:80\""[..], b"proto=https"] {
        held_off(&sign_in(&[("x-forwarded-for", b"192.0.2.1"), ("forwarded", forwarded)]).await, "20");
    }
}

#[tokio::test]
async fn a_request_beyond_the_limit_fetches_no_key_and_spends_no_token() {
    let service = Service::start_with(Setup::limits("sign_ins_per_minute = 1")).await;
    service.post("/auth/id-token/nonce", json!({})).await;
    let token = service.issuer.token().sign();
    held_off(&service.sign_in(&token).await, "60");
    assert_eq!(service.issuer.fetches.load(Ordering::SeqCst), 0);
    service.clock.advance(Duration::from_secs(60));
    service.sign_in(&token).await.signed_in();
}

#[tokio::test]
async fn a_token_that_nobody_known_signed_counts_ten_times_and_an_expired_one_once() {
    let service = Service::start_with(Setup::limits("sign_ins_per_minute = 40")).await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let other = std::sync::Arc::new(TestKey::new_rsa());
    let forged = || service.issuer.token().key("RS256", "rsa-1", &other).sign();
    for n in 0..3 {
        let address = if n == 0 { "192.0.2.1" } else { "::ffff:192.0.2.1" };
        let body = json!({"id_token": forged(), "provider": "acme"});
        let refused = post_from(&service, address, "/auth/id-token/signin", body).await;
        refused.expect(401, "id_token_signature_invalid");
    }
    let stale = service.issuer.token().claim("exp", service.clock.now_s() - 3600).sign();
    let body = || json!({"id_token": stale, "provider": "acme"});
    for _ in 0..10 {
        let refused = post_from(&service, "192.0.2.1", "/auth/id-token/signin", body()).await;
        refused.expect(401, "id_token_expired");
    }
    held_off(&post_from(&service, "192.0.2.1", "/auth/id-token/signin", body()).await, "2");
    sign_in_from(&service, "192.0.2.2").await.signed_in();
}

#[tokio::test]
async fn every_way_to_a_session_is_counted_and_each_tenant_by_itself() {
    let setup = Setup { more_config: oauth::setup().more_config, ..Setup::limits("sign_ins_per_minute = 2") };
    let service = Service::start_with(setup).await;
    let signed_in = service.sign_in(&service.issuer.token().sign()).await.signed_in().clone();
    let access = signed_in["access_token"].as_str().unwrap();
    service.post("/auth/id-token/nonce", json!({})).await;
    let id_token = service.issuer.token().sign();
    let ways = [
        ("/auth/id-token/signin", json!({"id_token": id_token, "provider": "acme"})),
        ("/auth/id-token/nonce", json!({})),
        ("/auth/refresh", json!({"refresh_token": signed_in["refresh_token"]})),
        ("/auth/mfa/challenge", json!({"challenge_token": "chg_x", "mfa_method": "email"})),
        ("/auth/mfa/verify-challenge", json!({"challenge_token": "chg_x", "code": "000000"})),
        ("/auth/me/identities", json!({"id_token": id_token, "provider": "acme"})),
    ];
    for (path, body) in ways {
        held_off(&service.post_with(path, access, body).await, "30");
    }
    let fields = [("client_id", "app"), ("grant_type", "refresh_token"), ("refresh_token", "rft_x")];
    let refused = oauth::form(&service, "/oauth/token", &fields).await;
    held_off(&refused, "30");
    assert!(refused.body["error_description"].is_string(), "{}", refused.text);
    // What a signed-in user does goes on, and so does another tenant.
    assert_eq!(service.get_with("/auth/me", access).await.status, 200);
    let other = service.http().post(service.url("/auth/id-token/nonce")).header("x-tenant-id", "other");
    assert_eq!(service.send(other).await.status, 200);
    let nowhere = service.http().post(service.url("/auth/id-token/nonce")).header("x-tenant-id", "nowhere");
    service.send(nowhere).await.expect(404, "unknown_tenant");
}

#[tokio::test]
async fn an_exempt_network_is_not_limited() {
    let service = Service::start_with(Setup::limits("sign_ins_per_minute = 1\nexempt = [\"10.0.0.0/8\"]")).await;
    for _ in 0..5 {
        sign_in_from(&service, "10.1.2.3").await.signed_in();
    }
    sign_in_from(&service, "192.0.2.1").await.signed_in();
    held_off(&sign_in_from(&service, "192.0.2.1").await, "60");
}

#[tokio::test]
async fn without_a_word_in_the_configuration_a_network_has_600_at_once() {
    let service = Service::start_with(Setup::limits("")).await;
    let nonce = || service.post("/auth/id-token/nonce", json!({}));
    for _ in 0..600 {
        assert_eq!(nonce().await.status, 200);
    }
    held_off(&nonce().await, "1");
}
