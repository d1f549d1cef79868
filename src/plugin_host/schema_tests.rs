//! The published schemas (`plugins/schemas`) against what the host sends and what the SDK reads and writes.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_plugin_sdk::serde_json::from_value;
use countersign_plugin_sdk::{
    EnrichInput, Event, KeyRequest, Keys, MfaBegin, MfaVerify, SecurityEvent, SignalInput, Verified, VerifyRequest,
};
use serde_json::{Map, Value, json};

use super::hook::Hook;
use super::sample;
use super::schema::{answer_faults, unknown_keywords};
use super::view::{ClaimGrant, FactGrant, Grants, security_event_input, signals_input, tests::facts};
use crate::clock::UnixTime;
use crate::ids::TenantId;
use crate::signin::security_events::{Effect, ToldEvent, ToldEvents};

fn schema(hook: Hook, way: &str) -> Value {
    let file = format!("{}/plugins/schemas/{}.{way}.json", env!("CARGO_MANIFEST_DIR"), hook.name());
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// As [`super::schema::faults`], of schemas that have no keyword which is passed over.
fn faults(schema: &Value, value: &Value) -> Vec<String> {
    assert_eq!(unknown_keywords(schema), Vec::<String>::new());
    super::schema::faults(schema, value)
}

/// Members that the schema says nothing about.
fn unknown_members(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let members = value.as_object().into_iter().flatten();
    members
        .flat_map(|(name, value)| match properties.get(name) {
            Some(schema) => unknown_members(schema, value, &format!("{at}.{name}")),
            None => vec![format!("{at}.{name}")],
        })
        .collect()
}

fn read(hook: Hook, input: Value) -> Result<(), serde_json::Error> {
    match hook {
        Hook::LocateKeys => from_value::<KeyRequest>(input).map(drop),
        Hook::Verify => from_value::<VerifyRequest>(input).map(drop),
        Hook::Enrich => from_value::<EnrichInput>(input).map(drop),
        Hook::Signals => from_value::<SignalInput>(input).map(drop),
        Hook::MfaBegin => from_value::<MfaBegin>(input).map(drop),
        Hook::MfaVerify => from_value::<MfaVerify>(input).map(drop),
        Hook::Observe => from_value::<Event>(input).map(drop),
    }
}

#[test]
fn what_is_sent_fits_its_schema_and_the_sdk() {
    for hook in Hook::ALL {
        let (schema, input) = (schema(hook, "in"), sample::input(hook));
        assert_eq!(faults(&schema, &input), Vec::<String>::new());
        assert_eq!(unknown_members(&schema, &input, hook.name()), Vec::<String>::new());
        read(hook, input).unwrap();
    }
}

#[test]
fn a_security_event_fits_its_schema_and_the_sdk() {
    let told = ToldEvents {
        tenant: TenantId::parse("default").unwrap(),
        provider: "google".into(),
        issuer: "https://issuer.example".into(),
        issuer_names: vec!["https://issuer.example".into()],
        jti: "j-1".to_owned(),
        issued_at: UnixTime::from_secs(1_767_225_600),
        begun_until: UnixTime::from_secs(1_767_225_660),
        refused_from: UnixTime::from_secs(1_767_312_060),
        events: [None, Some("s-1".into())]
            .map(|subject| ToldEvent {
                kind: "https://example.com/event".to_owned(),
                subject,
                details: Map::new(),
                effect: Effect::Noted,
            })
            .into(),
    };
    let sent: Value = serde_json::from_slice(&security_event_input(&told, Duration::from_millis(250))).unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/schemas/event.observe.security_event.in.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for input in [sent, sample::security_event()] {
        assert_eq!(faults(&schema, &input), Vec::<String>::new());
        assert_eq!(unknown_members(&schema, &input, "event"), Vec::<String>::new());
        from_value::<SecurityEvent>(input).unwrap();
    }
}

#[test]
fn every_fact_that_can_be_granted_stands_in_the_schema() {
    let schema = schema(Hook::Signals, "in");
    for granted in [FactGrant::ALL.to_vec(), Vec::new()] {
        let claims = ClaimGrant::Named(BTreeSet::new());
        let grants = Grants { facts: granted.into_iter().collect(), claims, events: BTreeSet::new() };
        let sent = signals_input(&facts(), &grants, Duration::from_millis(250));
        let sent: Value = serde_json::from_slice(&sent).unwrap();
        assert_eq!(faults(&schema, &sent), Vec::<String>::new());
        assert_eq!(unknown_members(&schema, &sent, "signals"), Vec::<String>::new());
        read(Hook::Signals, sent).unwrap();
    }
}

#[test]
fn what_the_sdk_cannot_do_without_the_schema_demands() {
    for hook in Hook::ALL {
        let (schema, input) = (schema(hook, "in"), sample::input(hook));
        for name in input.as_object().unwrap().keys() {
            let mut less = input.clone();
            less.as_object_mut().unwrap().remove(name);
            let demanded = !faults(&schema, &less).is_empty();
            assert!(demanded || read(hook, less).is_ok(), "{} without {name}", hook.name());
            let mut wrong = input.clone();
            wrong[name] = json!([[]]);
            assert!(!faults(&schema, &wrong).is_empty(), "{} with another {name}", hook.name());
        }
    }
}

#[test]
fn what_the_sdk_answers_fits_and_other_answers_do_not() {
    let pem = [("k-1".to_owned(), "-----BEGIN CERTIFICATE-----".to_owned())].into();
    let claims: Map<String, Value> = [("sub".to_owned(), json!("s-1"))].into_iter().collect();
    for (hook, answer) in [
        (Hook::LocateKeys, json!(Keys { jwks: Some(json!({ "keys": [] })), ttl_s: 60, ..Keys::default() })),
        (Hook::LocateKeys, json!(Keys { pem, ttl_s: 60, jwks: None })),
        (Hook::Verify, json!(Verified { alg: "HS256".to_owned(), claims })),
        (Hook::Enrich, json!({ "anything": 1 })),
        (Hook::Signals, json!({ "anything": [true] })),
        (Hook::MfaBegin, json!({})),
        (Hook::MfaBegin, json!({ "reference": "r-1" })),
        (Hook::MfaVerify, json!({})),
        (Hook::Observe, json!({})),
    ] {
        assert_eq!(faults(&schema(hook, "out"), &answer), Vec::<String>::new());
    }
    for (hook, answer) in [
        (Hook::LocateKeys, json!({ "ttl_s": 60 })),
        (Hook::LocateKeys, json!({ "jwks": { "keys": {} } })),
        (Hook::LocateKeys, json!({ "pem": { "k-1": 1 } })),
        (Hook::Verify, json!({ "alg": "HS256" })),
        (Hook::MfaBegin, json!({ "reference": "r".repeat(257) })),
    ] {
        assert!(!faults(&schema(hook, "out"), &answer).is_empty(), "{answer}");
    }
    for hook in Hook::ALL {
        for answer in [json!(null), json!([]), json!("text")] {
            assert!(!faults(&schema(hook, "out"), &answer).is_empty(), "{} {answer}", hook.name());
        }
    }
}

#[test]
fn what_a_server_is_built_with_is_what_is_published() {
    for hook in Hook::ALL {
        let published = schema(hook, "out");
        for answer in
            [json!({}), json!({ "jwks": 1 }), json!({ "alg": 1, "claims": [] }), json!({ "reference": [] })]
        {
            assert_eq!(answer_faults(hook, &answer), faults(&published, &answer), "{}", hook.name());
        }
    }
}

#[test]
fn a_fault_is_told_by_json_pointer_and_without_what_was_answered() {
    let answer = json!({ "jwks": { "keys": [{ "kty": "RSA" }, 7] }, "pem": { "a/b~c": 1 } });
    let faults = answer_faults(Hook::LocateKeys, &answer);
    let pointers: Vec<&str> = faults.iter().map(|f| f.split(": ").next().unwrap()).collect();
    assert_eq!(pointers, ["/jwks/keys/1", "/pem/a~1b~0c"], "{faults:?}");
    let faults = answer_faults(Hook::MfaBegin, &json!({ "reference": "secret".repeat(50) }));
    assert_eq!(faults, ["/reference: has more than 256 characters"]);
}
