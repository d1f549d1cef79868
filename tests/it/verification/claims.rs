//! Random claim sets against a small oracle of OpenID Connect Core section 3.1.3.7.
//!
//! Every claim that is checked is drawn by itself: fine, absent, of the wrong type, out of range, somebody else's.
//! The oracle knows what it drew and never reads JSON. A token is accepted exactly when nothing is wrong with it,
//! and a refusal names something that is.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{SHA512, digest};
use countersign::clock::UnixTime;
use countersign::config;
use countersign::secret::sha256;
use countersign::signin::key::{KeySet, VerificationKey};
use countersign::signin::provider::{Provider, SignatureAlgorithm};
use countersign::signin::token::UnverifiedToken;
use countersign::signin::verify::{Expected, VerifyError, verify};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

use crate::support::clock::START_S;
use crate::support::issuer::TestKey;

const ISSUER: &str = "https://issuer.example";
const RAW_NONCE: &str = "n-0S6_WzA2Mj";
const ACCESS_TOKEN: &str = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
const LEEWAY_S: i64 = 60;
const MAX_AGE_S: i64 = 600;

/// What was drawn for one claim: its value, if it is there, and whether that is fine.
type Drawn = (Option<Value>, bool);

#[derive(Debug, Clone)]
struct Case {
    /// By claim; `at_hash` and `nonce` are judged with what the request brings.
    claims: Vec<(&'static str, Drawn)>,
    requested_nonce: bool,
    requested_access_token: bool,
    provider: usize,
    genuine: bool,
}

/// One of the good values three times out of four, else one of the bad.
fn mostly(good: Vec<Drawn>, bad: Vec<Option<Value>>) -> BoxedStrategy<Drawn> {
    let bad = bad.into_iter().map(|value| (value, false)).collect::<Vec<_>>();
    prop_oneof![12 => prop::sample::select(good), 1 => prop::sample::select(bad)].boxed()
}

fn fine(values: &[Value]) -> Vec<Drawn> {
    values.iter().map(|v| (Some(v.clone()), true)).collect()
}

/// A time: whole seconds around now, and everything that is no time.
fn time(from_s: i64, to_s: i64, is_fine: fn(i64) -> bool, needed: bool) -> BoxedStrategy<Drawn> {
    let absurd = vec![
        Some(json!((START_S + 100).to_string())),
        Some(json!(START_S as f64 + 0.5)),
        Some(json!(-1)),
        Some(json!(253_402_300_800_i64)),
        Some(json!(u64::MAX)),
        Some(Value::Null),
        Some(json!([START_S])),
        Some(json!(true)),
    ];
    let absurd: Vec<Drawn> = absurd.into_iter().map(|v| (v, false)).collect();
    let at = move |by: i64| (Some(json!(START_S + by)), is_fine(by));
    let edges: Vec<i64> =
        [-MAX_AGE_S - LEEWAY_S, -LEEWAY_S, 0, LEEWAY_S].into_iter().flat_map(|e| e - 1..=e + 1).collect();
    prop_oneof![
        16 => (from_s / 4..to_s / 4).prop_map(at),
        1 => (from_s..to_s).prop_map(at),
        1 => prop::sample::select(edges).prop_map(at),
        1 => Just((None, !needed)),
        1 => prop::sample::select(absurd),
    ]
    .boxed()
}

fn case() -> impl Strategy<Value = Case> {
    let hashed = sha256(RAW_NONCE.as_bytes());
    let at_hash = BASE64URL_NOPAD.encode(&digest(&SHA512, ACCESS_TOKEN.as_bytes()).as_ref()[..32]);
    let text_or_wrong = |long: usize| vec![Some(json!("")), Some(json!(7)), Some(json!("x".repeat(long)))];
    let claims = (
        mostly(
            fine(&[json!(ISSUER)]),
            vec![
                None,
                Some(json!("https://issuer.example/")),
                Some(json!("https://evil.example")),
                Some(json!([ISSUER])),
            ],
        ),
        audience_and_party(),
        mostly(
            fine(&[json!("1"), json!("x".repeat(255)), json!("a b|c")]),
            [text_or_wrong(256), vec![None, Some(json!("ü")), Some(json!("a\u{0}b")), Some(Value::Null)]].concat(),
        ),
        time(-200, 4000, |by| by > -LEEWAY_S, true),
        time(-900, 100, |by| (-(MAX_AGE_S + LEEWAY_S)..=LEEWAY_S).contains(&by), true),
        time(-4000, 100, |by| by <= LEEWAY_S, false),
        time(-4000, 100, |by| by <= LEEWAY_S, false),
        mostly([fine(&[json!("j")]), vec![(None, true)]].concat(), text_or_wrong(257)),
        prop::sample::select(vec![
            (None, false),
            (Some(json!(RAW_NONCE)), true),
            (Some(json!(HEXLOWER.encode(&hashed))), true),
            (Some(json!(BASE64URL_NOPAD.encode(&hashed))), true),
            (Some(json!("of-another-sign-in")), false),
            (Some(json!(7)), false),
        ]),
        mostly(
            fine(&[json!(at_hash)]),
            vec![None, Some(json!("AAAA")), Some(json!(format!("{at_hash}="))), Some(json!(1))],
        ),
    );
    let request = (any::<bool>(), any::<bool>(), 0..3_usize, prop::bool::weighted(0.97));
    (claims, request).prop_map(|(c, (requested_nonce, requested_access_token, provider, genuine))| Case {
        claims: vec![
            ("iss", c.0),
            ("aud", c.1.0),
            ("azp", c.1.1),
            ("sub", c.2),
            ("exp", c.3),
            ("iat", c.4),
            ("nbf", c.5),
            ("auth_time", c.6),
            ("jti", c.7),
            ("nonce", c.8),
            ("at_hash", c.9),
        ],
        requested_nonce,
        requested_access_token,
        provider,
        genuine,
    })
}

/// `aud` and `azp` are judged together (steps 3 to 5): one audience is ours; others need an `azp` that we know; an
/// `azp` is always one that we know.
fn audience_and_party() -> impl Strategy<Value = (Drawn, Drawn)> {
    let audience = prop::sample::select(vec![
        (json!("app-web"), true, false),
        (json!("app-ios"), true, false),
        (json!(["app-web"]), true, false),
        (json!(["app-ios", "app-web"]), true, false),
        (json!(["somebody", "app-web"]), true, true),
        (json!("app-web "), false, false),
        (json!("somebody"), false, false),
        (json!(["somebody"]), false, false),
        (json!([]), false, false),
        (json!(["app-web", 7]), false, false),
        (json!({"app-web": true}), false, false),
        (Value::Null, false, false),
    ]);
    let usual =
        prop::sample::select(vec![(json!("app-web"), true, false), (json!(["app-ios", "app-web"]), true, false)]);
    let party = prop_oneof![
        4 => Just(None),
        4 => prop::sample::select(vec![Some(json!("app-web")), Some(json!("app-android"))]),
        1 => prop::sample::select(vec![Some(json!("somebody")), Some(json!("")), Some(json!(["app-web"]))]),
    ];
    (prop_oneof![3 => usual, 2 => audience], party).prop_map(|((audience, ours, others), party)| {
        let known = party.as_ref().is_none_or(|p| p == "app-web" || p == "app-android");
        let vouched = !others || party.is_some();
        ((Some(audience), ours), (party, known && vouched))
    })
}

/// What is wrong, by claim; empty when the token must be accepted.
fn wrong(case: &Case) -> BTreeSet<&'static str> {
    let mut wrong = BTreeSet::new();
    if !case.genuine {
        wrong.insert("signature");
    }
    for (claim, (value, is_fine)) in &case.claims {
        let is_fine = match *claim {
            "nonce" => {
                let is_text = value.as_ref().is_none_or(Value::is_string);
                match (case.provider, case.requested_nonce) {
                    // optional, required, forbidden
                    (0, false) => is_text,
                    (0 | 1, true) => *is_fine,
                    (1, false) => false,
                    (_, asked) => !asked && value.is_none(),
                }
            }
            "at_hash" => !case.requested_access_token || *is_fine,
            _ => *is_fine,
        };
        if !is_fine {
            wrong.insert(*claim);
        }
    }
    wrong
}

/// The claim that a refusal is about.
fn blamed(error: &VerifyError) -> &'static str {
    match error {
        VerifyError::BadSignature => "signature",
        VerifyError::Claim { claim, .. } | VerifyError::NotYetValid { claim, .. } => claim,
        VerifyError::Issuer { .. } | VerifyError::IssuerOfKey { .. } => "iss",
        VerifyError::Audience { .. } => "aud",
        VerifyError::AuthorizedParty { .. } => "azp",
        VerifyError::Expired { .. } => "exp",
        VerifyError::TooOld { .. } => "iat",
        VerifyError::Nonce(_) => "nonce",
        VerifyError::AccessTokenHash(_) => "at_hash",
        other => panic!("nothing that was drawn gives {other:?}"),
    }
}

fn providers() -> Vec<Arc<Provider>> {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("countersign.toml");
    let mut text = "[server]\npublic_url = \"https://id.example\"\n[[tenants]]\nid = \"default\"\n".to_owned();
    for nonce in ["optional", "required", "forbidden"] {
        text.push_str(&format!(
            "[[providers]]\nname = \"{nonce}\"\nissuer = \"{ISSUER}\"\nclient_ids = [\"app-web\", \"app-ios\"]\n\
             authorized_parties = [\"app-android\"]\nalgorithms = [\"EdDSA\"]\nnonce = \"{nonce}\"\n\
             max_token_age = \"{MAX_AGE_S}s\"\nclock_leeway = \"{LEEWAY_S}s\"\n"
        ));
    }
    std::fs::write(&file, text).unwrap();
    config::load(&file, std::iter::empty()).unwrap().providers
}

fn signing_key() -> &'static (TestKey, Arc<VerificationKey>) {
    static KEY: OnceLock<(TestKey, Arc<VerificationKey>)> = OnceLock::new();
    KEY.get_or_init(|| {
        let key = TestKey::new_ed25519();
        let set = json!({"keys": [key.jwk("ed")]}).to_string();
        let public =
            KeySet::parse(set.as_bytes()).unwrap().0.choose(Some("ed"), SignatureAlgorithm::EdDsa).unwrap();
        (key, public)
    })
}

fn outcome(case: &Case, providers: &[Arc<Provider>]) -> Result<(), VerifyError> {
    let (key, public) = signing_key();
    let claims: Map<String, Value> =
        case.claims.iter().filter_map(|(name, (v, _))| Some(((*name).to_owned(), v.clone()?))).collect();
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let input = format!("{}.{}", encode(&json!({"alg": "EdDSA", "kid": "ed"})), encode(&Value::Object(claims)));
    let mut signature = key.sign("EdDSA", input.as_bytes());
    if !case.genuine {
        signature[17] ^= 1;
    }
    let token = UnverifiedToken::parse(&format!("{input}.{}", BASE64URL_NOPAD.encode(&signature))).unwrap();
    let expected = Expected {
        nonce: case.requested_nonce.then_some(RAW_NONCE),
        access_token: case.requested_access_token.then_some(ACCESS_TOKEN),
    };
    let provider = Arc::clone(&providers[case.provider]);
    verify(token, public, provider, &expected, UnixTime::from_secs(START_S)).map(drop)
}

#[test]
fn a_token_is_accepted_exactly_when_every_claim_is_as_openid_connect_core_wants_it() {
    let providers = providers();
    let (accepted, blames) = (Cell::new(0_u32), std::cell::RefCell::new(BTreeSet::new()));
    let config = Config { cases: 20_000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&case(), |case| {
        let wrong = wrong(&case);
        match outcome(&case, &providers) {
            Ok(()) => {
                prop_assert!(wrong.is_empty(), "accepted, although {wrong:?}");
                accepted.set(accepted.get() + 1);
            }
            Err(error) => {
                let blamed = blamed(&error);
                prop_assert!(wrong.contains(blamed), "refused for {blamed} ({error}); wrong is {wrong:?}");
                prop_assert!(case.genuine || blamed == "signature", "{blamed} was looked at before the signature");
                blames.borrow_mut().insert(blamed);
            }
        }
        Ok(())
    });
    result.unwrap();
    // The draw is worth something only if it takes every way out, and the good one often.
    assert!((2_000..18_000).contains(&accepted.get()), "{} of 20000 accepted", accepted.get());
    let all =
        ["at_hash", "aud", "auth_time", "azp", "exp", "iat", "iss", "jti", "nbf", "nonce", "signature", "sub"];
    assert_eq!(*blames.borrow(), BTreeSet::from(all));
}
