//! The cache against a provider that rotates, fails and comes back, with a clock that the test moves.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use tokio::sync::Notify;

use super::test_server::{self as server, Answer};
use super::test_world::{DISCOVERY, World, key_set};
use crate::ids::TenantId;
use crate::signin::ports::{KeyError, KeySource};
use crate::signin::provider::{Provider, SignatureAlgorithm};

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;

fn is_unknown(result: Result<(), KeyError>) -> bool {
    matches!(result, Err(KeyError::UnknownKey))
}

fn retry_after(result: Result<(), KeyError>) -> Option<u64> {
    match result {
        Err(KeyError::Unavailable { retry_after_s, .. }) => Some(retry_after_s),
        _ => None,
    }
}

#[tokio::test]
async fn a_held_key_is_found_without_another_fetch() {
    let world = World::new().await;
    for _ in 0..50 {
        assert!(world.find("k1").await.is_ok());
    }
    assert_eq!((world.fetches(), world.server.hits(DISCOVERY)), (1, 1));
}

#[tokio::test]
async fn a_hundred_first_requests_at_once_make_one_fetch() {
    let world = Arc::new(World::new().await);
    let gate = Arc::new(Notify::new());
    let Answer::Raw(bytes) = server::json(&key_set(&["k1"])) else { unreachable!("json answers are raw") };
    world.server.set("/keys", Answer::Gated(Arc::clone(&gate), bytes));
    let all: Vec<_> = (0..100)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.find("k1").await })
        })
        .collect();
    world.until_fetches(1).await;
    gate.notify_one();
    for one in all {
        assert!(one.await.expect("no panic").is_ok());
    }
    assert_eq!((world.fetches(), world.server.hits(DISCOVERY)), (1, 1));
}

#[tokio::test]
async fn a_fetch_goes_on_when_the_request_that_began_it_leaves() {
    let world = Arc::new(World::new().await);
    let gate = Arc::new(Notify::new());
    let Answer::Raw(bytes) = server::json(&key_set(&["k1"])) else { unreachable!("json answers are raw") };
    world.server.set("/keys", Answer::Gated(Arc::clone(&gate), bytes));
    let first = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.find("k1").await }
    });
    world.until_fetches(1).await;
    first.abort();
    gate.notify_one();
    assert!(world.find("k1").await.is_ok());
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn a_rotated_key_is_found_long_before_the_set_is_due() {
    let world = World::new().await;
    assert!(world.find("k1").await.is_ok());
    world.publish(&["k1", "k2"]);
    world.clock.advance(11);
    assert!(world.find("k2").await.is_ok());
    assert!(world.find("k1").await.is_ok());
    assert_eq!((world.fetches(), world.server.hits(DISCOVERY)), (2, 1));
}

#[tokio::test]
async fn ten_thousand_invented_key_ids_make_a_handful_of_fetches() {
    let world = World::new().await;
    for n in 0..10_000 {
        assert!(is_unknown(world.find(&format!("invented-{n}")).await));
        if n % 1000 == 999 {
            world.clock.advance(6);
        }
    }
    // A minute has passed: the first fetch, and at most one for each ten seconds.
    assert!((2..=7).contains(&world.fetches()), "{} fetches", world.fetches());
    assert!(world.find("k1").await.is_ok());
}

#[tokio::test]
async fn a_token_without_a_key_id_takes_the_only_key_that_fits() {
    let world = World::new().await;
    let find = || world.cache.find_key(&world.provider, None, SignatureAlgorithm::EdDsa);
    assert!(find().await.is_ok());
    world.publish(&["k1", "k2"]);
    world.clock.advance(HOUR);
    assert!(matches!(find().await, Err(KeyError::NoKeyId { fitting: 2 })));
    let other = world.cache.find_key(&world.provider, Some("k1"), SignatureAlgorithm::Rs256).await;
    assert!(matches!(other, Err(KeyError::Unfit { algorithm: SignatureAlgorithm::Rs256 })));
}

#[tokio::test]
async fn a_set_that_is_due_is_renewed_in_the_background() {
    let world = World::new().await;
    assert!(world.find("k1").await.is_ok());
    world.server.set("/keys", Answer::Silence);
    world.clock.advance(50 * MINUTE);
    // The endpoint is silent, and nobody waits for it.
    for _ in 0..20 {
        assert!(world.find("k1").await.is_ok());
    }
    world.until_fetches(2).await;
    assert!(world.find("k1").await.is_ok());
    assert_eq!(world.fetches(), 2);
}

#[tokio::test]
async fn a_background_renewal_brings_the_new_keys() {
    let world = World::new().await;
    assert!(world.find("k1").await.is_ok());
    world.publish(&["k2"]);
    world.clock.advance(50 * MINUTE);
    assert!(world.find("k1").await.is_ok(), "the held set answers while the new one is fetched");
    world.until_known("k2").await;
    assert!(is_unknown(world.find("k1").await), "a withdrawn key is gone");
}

#[tokio::test]
async fn a_set_that_nobody_asked_for_in_time_is_not_served_when_the_endpoint_answers() {
    let world = World::new().await;
    assert!(world.find("k1").await.is_ok());
    world.publish(&["k2"]);
    world.clock.advance(2 * HOUR);
    assert!(is_unknown(world.find("k1").await));
    assert!(world.find("k2").await.is_ok());
}

#[tokio::test]
async fn the_endpoints_max_age_is_followed_within_limits() {
    let world = World::new().await;
    let answer = |headers: &str| server::with_headers(headers, &key_set(&["k1"]).to_string());
    world.server.set("/keys", answer("Cache-Control: max-age=0\r\n"));
    assert!(world.find("k1").await.is_ok());
    world.clock.advance(3 * MINUTE);
    assert!(world.find("k1").await.is_ok());
    assert_eq!(world.fetches(), 1);
    world.server.set("/keys", answer("Cache-Control: public, max-age=43200\r\n"));
    world.clock.advance(3 * MINUTE);
    assert!(world.find("k1").await.is_ok());
    world.clock.advance(9 * HOUR);
    assert!(world.find("k1").await.is_ok());
    assert_eq!(world.fetches(), 2);
}

#[tokio::test]
async fn the_old_set_is_served_for_a_day_while_the_endpoint_fails() {
    let world = World::new().await;
    assert!(world.find("k1").await.is_ok());
    world.fail();
    for _ in 0..24 {
        world.clock.advance(HOUR);
        assert!(world.find("k1").await.is_ok());
    }
    assert!(retry_after(world.find("k9").await).is_some(), "whether k9 is unknown cannot be told");
    world.clock.advance(HOUR + 1);
    assert!(retry_after(world.find("k1").await).is_some(), "25 hours are too long");
    world.publish(&["k1"]);
    world.clock.advance(61);
    assert!(world.find("k1").await.is_ok());
}

#[tokio::test]
async fn without_any_set_a_failing_endpoint_is_left_alone_for_growing_pauses() {
    let world = World::new().await;
    world.fail();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let before = world.fetches();
        let pause = retry_after(world.find("k1").await).expect("unavailable");
        for _ in 0..100 {
            assert_eq!(retry_after(world.find("k1").await), Some(pause));
        }
        assert_eq!(world.fetches(), before + 1, "one fetch for 101 requests");
        pauses.push(pause);
        world.clock.advance(pause);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    world.publish(&["k1"]);
    assert!(world.find("k1").await.is_ok());
}

#[tokio::test]
async fn a_thousand_waiting_sign_ins_share_one_failure() {
    let world = Arc::new(World::new().await);
    let gate = Arc::new(Notify::new());
    world
        .server
        .set("/keys", Answer::Gated(Arc::clone(&gate), b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n".into()));
    let all: Vec<_> = (0..1000)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.find("k1").await })
        })
        .collect();
    world.until_fetches(1).await;
    gate.notify_one();
    for one in all {
        assert_eq!(retry_after(one.await.expect("no panic")), Some(1));
    }
    assert_eq!(world.fetches(), 1);
}

#[tokio::test]
async fn the_error_tells_the_log_why_and_holds_no_url() {
    let world = World::new().await;
    world.fail();
    let Err(KeyError::Unavailable { source, .. }) = world.find("k1").await else {
        unreachable!("the endpoint fails")
    };
    let cause = source.source().expect("a cause").to_string();
    assert_eq!(source.to_string(), "the key set could not be fetched");
    assert!(cause.contains("status 500"), "{cause}");
    assert!(!format!("{source:?}").contains("127.0.0.1"), "{source:?}");
}

#[tokio::test]
async fn a_document_of_another_issuer_gives_no_keys() {
    let world = World::new().await;
    let foreign = json!({"issuer": "https://other.example", "jwks_uri": world.server.url("/keys")});
    world.server.set(DISCOVERY, server::json(&foreign));
    assert!(retry_after(world.find("k1").await).is_some());
    assert_eq!(world.fetches(), 0);
}

#[tokio::test]
async fn keys_on_an_inner_address_are_not_fetched() {
    let world = World::new().await;
    for inner in
        ["http://169.254.169.254/keys", "https://10.0.0.1/keys", "file:///etc/passwd", "http://8.8.8.8/keys"]
    {
        let issuer = world.server.url("");
        world.server.set(DISCOVERY, server::json(&json!({"issuer": issuer, "jwks_uri": inner})));
        assert!(retry_after(world.find("k1").await).is_some(), "{inner}");
        world.clock.advance(61);
    }
}

#[tokio::test]
async fn after_a_failure_the_keys_are_looked_for_where_the_document_says_now() {
    let world = World::new().await;
    assert!(world.find("k1").await.is_ok());
    world.fail();
    let moved = json!({"issuer": world.server.url(""), "jwks_uri": world.server.url("/moved")});
    world.server.set(DISCOVERY, server::json(&moved));
    world.server.set("/moved", server::json(&key_set(&["k2"])));
    world.clock.advance(11);
    assert!(retry_after(world.find("k2").await).is_some());
    world.clock.advance(2);
    assert!(world.find("k2").await.is_ok());
}

#[tokio::test]
async fn a_configured_key_set_needs_no_discovery() {
    let world = World::new().await;
    let mut provider = Provider::clone(&world.provider);
    provider.jwks_uri = Some(world.server.url("/keys"));
    assert!(world.cache.find_key(&provider, Some("k1"), SignatureAlgorithm::EdDsa).await.is_ok());
    assert_eq!(world.server.hits(DISCOVERY), 0);
}

#[tokio::test]
async fn a_changed_issuer_another_tenant_or_another_name_starts_anew() {
    let world = World::new().await;
    assert!(world.find("k1").await.is_ok());
    world.fail();
    let mut changed = Provider::clone(&world.provider);
    changed.jwks_uri = Some(world.server.url("/keys"));
    let mut of_another_tenant = Provider::clone(&world.provider);
    of_another_tenant.tenant = TenantId::parse("other").expect("a tenant");
    let mut renamed = Provider::clone(&world.provider);
    renamed.name = "q".into();
    for other in [changed, of_another_tenant, renamed] {
        let result = world.cache.find_key(&other, Some("k1"), SignatureAlgorithm::EdDsa).await;
        assert!(matches!(result, Err(KeyError::Unavailable { .. })), "{other:?}");
    }
    assert!(world.find("k1").await.is_ok(), "the first one is still held");
}

#[tokio::test]
async fn one_bad_key_in_a_set_does_not_spoil_the_others() {
    let world = World::new().await;
    let mut set = key_set(&["k1"]);
    let keys = set["keys"].as_array_mut().expect("a list");
    keys.insert(0, json!({"kty": "OKP", "crv": "Ed25519", "kid": "short", "x": "AAAA"}));
    keys.push(json!("nonsense"));
    keys.push(json!({"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric"}));
    world.server.set("/keys", server::json(&set));
    assert!(world.find("k1").await.is_ok());
    for kid in ["short", "symmetric"] {
        assert!(is_unknown(world.find(kid).await));
    }
}

#[tokio::test]
async fn a_provider_that_withdraws_all_keys_is_believed() {
    let world = World::new().await;
    assert!(world.find("k1").await.is_ok());
    world.publish(&[]);
    world.clock.advance(2 * HOUR);
    assert!(is_unknown(world.find("k1").await));
}

#[tokio::test]
async fn what_is_no_key_set_does_not_replace_the_held_one() {
    let world = World::new().await;
    assert!(world.find("k1").await.is_ok());
    for answer in [json!({}), json!({"keys": {}}), json!({"keys": vec![json!({}); 200]})] {
        world.server.set("/keys", server::json(&answer));
        world.clock.advance(HOUR);
        assert!(world.find("k1").await.is_ok(), "{answer}");
    }
    assert!(world.fetches() >= 2);
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_freeze_the_cache() {
    let world = World::new().await;
    world.fail();
    assert!(retry_after(world.find("k1").await).is_some());
    world.clock.0.fetch_sub(86_400_000, Ordering::SeqCst);
    world.publish(&["k1"]);
    assert!(world.find("k1").await.is_ok());
    world.clock.0.fetch_sub(86_400_000, Ordering::SeqCst);
    world.publish(&["k2"]);
    assert!(world.find("k2").await.is_ok());
}

#[tokio::test]
async fn keys_can_be_fetched_before_the_first_sign_in() {
    let world = World::new().await;
    world.publish(&["k1", "k2"]);
    assert!(matches!(world.cache.prefetch(&world.provider).await, Ok(2)));
    assert!(matches!(world.cache.prefetch(&world.provider).await, Ok(2)));
    assert!(world.find("k2").await.is_ok());
    assert_eq!(world.fetches(), 1);
    let other = World::new().await;
    other.fail();
    assert_eq!(retry_after(other.cache.prefetch(&other.provider).await.map(drop)), Some(1));
}
