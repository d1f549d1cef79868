//! A provider, a cache and a clock for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::test_server::{self as server, TestServer};
use super::{FetchSettings, Fetcher, KeyCache};
use crate::clock::{Clock, UnixTime};
use crate::ids::TenantId;
use crate::signin::ports::{KeyError, KeySource};
use crate::signin::provider::{
    EmailTrust, EnrichFailure, IssuerRule, Linking, NoncePolicy, Provider, Provisioning, ReplayPolicy,
    SignatureAlgorithm,
};

pub(super) const DISCOVERY: &str = "/.well-known/openid-configuration";
pub(super) struct HandClock(pub(super) AtomicI64);

impl HandClock {
    pub(super) fn advance(&self, seconds: u64) {
        self.0.fetch_add(i64::try_from(seconds * 1000).expect("a short time"), Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}

pub(super) struct World {
    pub(super) server: TestServer,
    pub(super) clock: Arc<HandClock>,
    pub(super) cache: Arc<KeyCache>,
    pub(super) provider: Arc<Provider>,
}

/// A client for servers on loopback.
pub(super) fn fetcher() -> Fetcher {
    let settings = FetchSettings {
        allow_insecure_issuers: true,
        timeout: Duration::from_secs(10),
        ..FetchSettings::default()
    };
    Fetcher::new(settings).expect("a client")
}

impl World {
    /// A provider with discovery and one key, `k1`.
    pub(super) async fn new() -> Self {
        let server = TestServer::start().await;
        let clock = Arc::new(HandClock(AtomicI64::new(1_700_000_000_000)));
        let cache = KeyCache::new(fetcher(), Arc::clone(&clock) as Arc<dyn Clock>);
        let issuer = server.url("");
        server.set(DISCOVERY, server::json(&json!({"issuer": issuer, "jwks_uri": server.url("/keys")})));
        let provider = Arc::new(provider(IssuerRule::Exact(vec![issuer])));
        let world = Self { server, clock, cache: Arc::new(cache), provider };
        world.publish(&["k1"]);
        world
    }

    pub(super) fn publish(&self, kids: &[&str]) {
        self.server.set("/keys", server::json(&key_set(kids)));
    }

    pub(super) fn fail(&self) {
        self.server.set("/keys", server::status(500));
    }

    pub(super) async fn find(&self, kid: &str) -> Result<(), KeyError> {
        self.cache.find_key(&self.provider, Some(kid), SignatureAlgorithm::EdDsa).await.map(drop)
    }

    pub(super) fn fetches(&self) -> usize {
        self.server.hits("/keys")
    }

    /// Lets tasks in the background go on until this many fetches have come.
    pub(super) async fn until_fetches(&self, count: usize) {
        tokio::time::timeout(Duration::from_secs(20), async {
            while self.fetches() < count {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the fetches come");
    }

    /// Lets tasks in the background go on until this key is known.
    pub(super) async fn until_known(&self, kid: &str) {
        tokio::time::timeout(Duration::from_secs(20), async {
            while self.find(kid).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the key comes");
    }
}

pub(super) fn provider(issuer: IssuerRule) -> Provider {
    Provider {
        tenant: TenantId::parse("default").expect("a tenant"),
        name: "p".into(),
        generation: 0,
        issuer,
        client_ids: vec!["app".into()],
        authorized_parties: Vec::new(),
        algorithms: vec![SignatureAlgorithm::EdDsa],
        nonce: NoncePolicy::Optional,
        replay: ReplayPolicy::SingleUse,
        max_token_age: Duration::from_secs(600),
        clock_leeway: Duration::from_secs(60),
        email_trust: EmailTrust::Never,
        linking: Linking::Never,
        provisioning: Provisioning::Create,
        provisioning_domains: Vec::new(),
        trust_amr: Vec::new(),
        mapping: Vec::new(),
        allowed_groups: Vec::new(),
        allowed_roles: Vec::new(),
        default_roles: Vec::new(),
        remap: crate::signin::provider::RemapRules::default(),
        enrich_failure: EnrichFailure::Deny,
        jwks_uri: None,
        notices: crate::signin::provider::Notices::None,
        test_mode: false,
    }
}

pub(super) fn key_set(kids: &[&str]) -> Value {
    let keys: Vec<Value> = kids
        .iter()
        .map(|kid| {
            let pair = Ed25519KeyPair::generate().expect("a key");
            json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": BASE64URL_NOPAD.encode(pair.public_key().as_ref())})
        })
        .collect();
    json!({ "keys": keys })
}
