//! The steps of a sign-in, one by one.

use std::path::Path;
use std::sync::Arc;

use countersign::clock::{Clock, SystemClock, UnixTime};
use countersign::ids::{EventId, TenantId, UserId};
use countersign::scripts::PolicyHost;
use countersign::secret::{Entropy, Secret, SystemEntropy};
use countersign::session::issue::{Holder, TokenIssuer, TokenSettings};
use countersign::session::keys::{KeyRing, SigningAlgorithm};
use countersign::session::{Caps, Grant};
use countersign::signin::facts::{
    DeviceMatch, Facts, HistoryFacts, LinkMethod, ProviderFacts, RequestFacts, UpstreamFacts, UserFacts,
};
use countersign::signin::history::{ContextPrint, PastEnd};
use countersign::signin::identity::{MappingInput, Profile};
use countersign::signin::key::KeySet;
use countersign::signin::ports::{ClaimMapper, NewOutcome, Outcomes, ReplayGuard, RiskRules, SignInCommit, Users};
use countersign::signin::provider::{
    EmailTrust, EnrichFailure, IssuerRule, Linking, NoncePolicy, Provider, Provisioning, ReplayPolicy,
    SignatureAlgorithm,
};
use countersign::signin::record::SignInRecord;
use countersign::signin::rules::Level;
use countersign::signin::token::UnverifiedToken;
use countersign::signin::user::{IdentityKey, PlannedChange, User, UserStatus};
use countersign::signin::verify::{Expected, verify};
use countersign::store::{Store, StoreOptions};
use countersign::vault::Vault;
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};

#[path = "../tests/it/support/clock.rs"]
#[expect(dead_code, reason = "shared with the tests, which use all of it")]
mod clock;
#[path = "../tests/it/support/issuer.rs"]
#[expect(dead_code, reason = "shared with the tests, which use all of it")]
mod issuer;

use clock::TestClock;
use issuer::{TestIssuer, TestKey};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

fn tenant() -> TenantId {
    TenantId::parse("default").unwrap()
}

fn provider(issuer: &str) -> Arc<Provider> {
    Arc::new(Provider {
        tenant: tenant(),
        name: "acme".into(),
        generation: 0,
        issuer: IssuerRule::Exact(vec![issuer.to_owned()]),
        client_ids: vec![TestIssuer::CLIENT.to_owned()],
        authorized_parties: Vec::new(),
        algorithms: SignatureAlgorithm::ALL.to_vec(),
        nonce: NoncePolicy::Optional,
        replay: ReplayPolicy::SingleUse,
        max_token_age: std::time::Duration::from_secs(86_400),
        clock_leeway: std::time::Duration::from_secs(60),
        email_trust: EmailTrust::Claim,
        linking: Linking::Never,
        provisioning: Provisioning::Create,
        provisioning_domains: Vec::new(),
        trust_amr: Vec::new(),
        mapping: vec!["default".to_owned()],
        allowed_groups: Vec::new(),
        allowed_roles: Vec::new(),
        default_roles: Vec::new(),
        remap: countersign::signin::provider::RemapRules::default(),
        enrich_failure: EnrichFailure::Deny,
        jwks_uri: None,
        notices: countersign::signin::provider::Notices::None,
        test_mode: false,
    })
}

fn bench_verify(c: &mut Criterion) {
    let runtime = runtime();
    let clock = TestClock::fixed();
    let issuer = runtime.block_on(TestIssuer::start(clock.clone()));
    let provider = provider(&issuer.url);
    let keys = [
        ("RS256", issuer::shared_rsa()),
        ("PS256", issuer::shared_rsa()),
        ("ES256", Arc::new(TestKey::new_p256())),
        ("EdDSA", Arc::new(TestKey::new_ed25519())),
    ];
    for (algorithm, key) in keys {
        let set = KeySet::parse(json!({"keys": [key.jwk("k")]}).to_string().as_bytes()).unwrap().0;
        let token = issuer.token().key(algorithm, "k", &key).claim("groups", json!(["a", "b", "c", "d", "e"]));
        let token = token.claim("email", "ada@example.com").claim("name", "Ada L").sign();
        let chosen = set.choose(Some("k"), SignatureAlgorithm::find(algorithm).unwrap()).unwrap();
        c.bench_function(&format!("verify {algorithm}"), |b| {
            b.iter(|| {
                let parsed = UnverifiedToken::parse(&token).unwrap();
                verify(parsed, &chosen, Arc::clone(&provider), &Expected::default(), clock.now()).unwrap()
            });
        });
    }
}

fn facts() -> Facts {
    let claims = json!({
        "iss": "https://idp.example", "sub": "1", "email": "ada@example.com", "email_verified": true,
        "name": "Ada L", "preferred_username": "ada", "locale": "sv-SE",
    });
    let Value::Object(claims) = claims else { unreachable!() };
    Facts {
        tenant: tenant(),
        client_id: "app".into(),
        provider: ProviderFacts { id: "acme".into(), issuer: "https://idp.example".into() },
        upstream: UpstreamFacts { amr: vec!["pwd".to_owned()], ..UpstreamFacts::default() },
        claims: Arc::new(claims),
        request: RequestFacts { time: SystemClock.now(), ..RequestFacts::default() },
        user: UserFacts {
            id: UserId::from_bytes([1; 16]),
            is_new: false,
            age_days: 10,
            status: "active",
            kind: countersign::signin::identity::UserKind::Person,
            email_verified: true,
            groups: Vec::new(),
            privileged: false,
            password: None,
            channels: Vec::new(),
            mfa_methods: Vec::new(),
            link_method: LinkMethod::Existing,
        },
        history: HistoryFacts {
            sign_ins_total: 5,
            device: DeviceMatch::New,
            known_country: Some(false),
            hours_since_last: Some(10.0),
            ..HistoryFacts::default()
        },
        plugin_signals: std::collections::BTreeMap::new(),
    }
}

fn bench_scripts(c: &mut Criterion) {
    let host = PolicyHost::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")).unwrap();
    let facts = Arc::new(facts());
    let provider = provider("https://idp.example");
    let input = Arc::new(MappingInput {
        tenant: tenant(),
        provider: facts.provider.clone(),
        claims: Arc::clone(&facts.claims),
        upstream: facts.upstream.clone(),
        request: facts.request.clone(),
    });
    assert!(host.map(&provider, Arc::clone(&input)).unwrap().email.is_some());
    assert!(host.assess(Arc::clone(&facts)).fault.is_none());
    c.bench_function("map", |b| b.iter(|| host.map(&provider, Arc::clone(&input)).unwrap()));
    c.bench_function("assess", |b| b.iter(|| host.assess(Arc::clone(&facts))));
    // Each of two threads does all iterations: without a lock between them, and with two processors, this is the time
    // of one.
    c.bench_function("assess, on two threads at once", |b| {
        b.iter_custom(|iterations| {
            let started = std::time::Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        for _ in 0..iterations {
                            std::hint::black_box(host.assess(Arc::clone(&facts)));
                        }
                    });
                }
            });
            started.elapsed()
        });
    });
}

fn grant(user: UserId) -> Grant {
    Grant {
        tenant: tenant(),
        user,
        provider: "acme".into(),
        provider_generation: 0,
        client_id: "app".into(),
        auth_time: SystemClock.now(),
        amr: vec!["pwd".to_owned()],
        acr: None,
        level: Level::Low,
        caps: Caps::default(),
        local_mfa: false,
        client: None,
        client_generation: 0,
        audience: None,
        jkt: None,
        upstream_sid: None,
        claims: Default::default(),
        shape_by_factor: Default::default(),
    }
}

async fn token_issuer(store: &Arc<Store>, algorithm: SigningAlgorithm) -> TokenIssuer {
    let vault = Vault::new(Secret::new(vec![1; 32]));
    let ring = KeyRing::load(&**store, &vault, algorithm, SystemClock.now(), &SystemEntropy).await.unwrap();
    let settings = TokenSettings {
        issuer: "https://id.example.com".to_owned(),
        access_ttl: std::time::Duration::from_secs(1800),
        refresh_ttl: std::time::Duration::from_secs(86_400),
        refresh_grace: std::time::Duration::from_secs(10),
    };
    TokenIssuer { settings, ring: Arc::new(ring) }
}

async fn open(dir: &tempfile::TempDir) -> Arc<Store> {
    Store::open(&StoreOptions { url: format!("sqlite://{}", dir.path().join("s.db").display()) }).await.unwrap()
}

fn bench_sign(c: &mut Criterion) {
    let runtime = runtime();
    let dir = tempfile::tempdir().unwrap();
    for algorithm in [SigningAlgorithm::EdDsa, SigningAlgorithm::Es256, SigningAlgorithm::Rs256] {
        let issuer = runtime.block_on(async { token_issuer(&open(&dir).await, algorithm).await });
        let grant = grant(UserId::from_bytes([1; 16]));
        c.bench_function(&format!("sign {}", algorithm.name()), |b| {
            b.iter(|| {
                issuer
                    .issue(
                        grant.clone(),
                        Holder { groups: &[], roles: &[] },
                        None,
                        SystemClock.now(),
                        &SystemEntropy,
                    )
                    .unwrap()
            });
        });
    }
}

fn record(user: UserId, now: UnixTime) -> SignInRecord {
    SignInRecord {
        id: EventId::generate(now, &SystemEntropy),
        at: now,
        tenant: tenant(),
        provider: "acme".into(),
        user: Some(user),
        end: PastEnd::SignedIn,
        code: None,
        context: ContextPrint::default(),
        assessment: None,
        session: None,
    }
}

/// What one returning sign-in asks of the store: spend the token, look the user up, commit.
fn bench_store(c: &mut Criterion) {
    let runtime = runtime();
    let dir = tempfile::tempdir().unwrap();
    let store = runtime.block_on(open(&dir));
    let issuer = runtime.block_on(token_issuer(&store, SigningAlgorithm::EdDsa));
    let now = SystemClock.now();
    let id = UserId::generate(now, &SystemEntropy);
    let identity = IdentityKey {
        tenant: tenant(),
        provider: "acme".into(),
        issuer: "https://idp.example".into(),
        subject: "1".into(),
    };
    let user = User {
        id,
        tenant: tenant(),
        status: UserStatus::Active,
        profile: profile(),
        created_at: now,
        password: None,
    };
    let change = PlannedChange::Create { user: Box::new(user), identity: identity.clone() };
    let made =
        SignInCommit { change, came_by: None, outcome: NewOutcome::Denial, record: record(id, now), sealed: None };
    runtime.block_on(store.commit(made)).unwrap();
    for callers in [1_usize, 64] {
        c.bench_function(&format!("store, {callers} sign-ins at once"), |b| {
            b.to_async(&runtime).iter(|| {
                let one = || async {
                    let now = SystemClock.now();
                    let mut key = [0; 32];
                    SystemEntropy.fill(&mut key);
                    let until = now.plus(std::time::Duration::from_secs(600));
                    assert!(store.remember(key, until, now).await.unwrap());
                    store.find_by_identity(&identity, now).await.unwrap().unwrap();
                    let (session, _) = issuer
                        .issue(grant(id), Holder { groups: &[], roles: &[] }, None, now, &SystemEntropy)
                        .unwrap();
                    let outcome = NewOutcome::Session(session);
                    store
                        .commit(SignInCommit {
                            came_by: Some(identity.clone()),
                            change: PlannedChange::None,
                            outcome,
                            record: record(id, now),
                            sealed: None,
                        })
                        .await
                        .unwrap()
                };
                futures_util::future::join_all((0..callers).map(|_| one()))
            });
        });
    }
}

fn profile() -> Profile {
    Profile {
        kind: countersign::signin::identity::UserKind::Person,
        email: None,
        email_verified: false,
        name: None,
        username: None,
        phone: None,
        phone_verified: false,
        locale: None,
        attributes: std::collections::BTreeMap::new(),
        groups: Vec::new(),
        roles: Vec::new(),
    }
}

criterion_group!(benches, bench_verify, bench_scripts, bench_sign, bench_store);
criterion_main!(benches);
