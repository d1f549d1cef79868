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
use super::view::{ClaimGrant, FactGrant, Grants, security_event_input, signals_input, tests::facts};
use crate::clock::UnixTime;
use crate::ids::TenantId;
use crate::signin::security_events::{Effect, ToldEvent, ToldEvents};

fn schema(hook: Hook, way: &str) -> Value {
    let file = format!("{}/plugins/schemas/{}.{way}.json", env!("CARGO_MANIFEST_DIR"), hook.name());
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// Where a value does not fit. The keywords of JSON Schema 2020-12 that these schemas use; any other one fails.
fn faults(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let members = value.as_object();
    let properties = schema.get("properties").and_then(Value::as_object);
    for (keyword, rule) in schema.as_object().unwrap() {
        let fits = match keyword.as_str() {
            "$schema" | "title" | "description" => true,
            "type" => {
                let is = |t: &Value| t == kind || t == "number" && kind == "integer";
                rule.as_array().map_or_else(|| is(rule), |types| types.iter().any(is))
            }
            "enum" => rule.as_array().unwrap().contains(value),
            "required" => {
                members.is_none_or(|m| rule.as_array().unwrap().iter().all(|n| m.contains_key(n.as_str().unwrap())))
            }
            "anyOf" => rule.as_array().unwrap().iter().any(|one| faults(one, value, at).is_empty()),
            "minimum" => value.as_f64().is_none_or(|n| n >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|n| n <= rule.as_f64().unwrap()),
            "maxLength" => value.as_str().is_none_or(|s| s.chars().count() as u64 <= rule.as_u64().unwrap()),
            "items" => {
                for one in value.as_array().into_iter().flatten() {
                    found.extend(faults(rule, one, &format!("{at}[]")));
                }
                true
            }
            "properties" => {
                for (name, rule) in rule.as_object().unwrap() {
                    let member = members.and_then(|m| m.get(name));
                    found.extend(member.into_iter().flat_map(|v| faults(rule, v, &format!("{at}.{name}"))));
                }
                true
            }
            "additionalProperties" => {
                let named = |name: &str| properties.is_some_and(|p| p.contains_key(name));
                for (name, one) in members.into_iter().flatten().filter(|(name, _)| !named(name)) {
                    found.extend(faults(rule, one, &format!("{at}.{name}")));
                }
                true
            }
            other => panic!("a keyword that this test does not know: {other}"),
        };
        if !fits {
            found.push(format!("{at}: {keyword} {rule} does not fit {value}"));
        }
    }
    found
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
        assert_eq!(faults(&schema, &input, hook.name()), Vec::<String>::new());
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
        assert_eq!(faults(&schema, &input, "event"), Vec::<String>::new());
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
        assert_eq!(faults(&schema, &sent, "signals"), Vec::<String>::new());
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
            let demanded = !faults(&schema, &less, hook.name()).is_empty();
            assert!(demanded || read(hook, less).is_ok(), "{} without {name}", hook.name());
            let mut wrong = input.clone();
            wrong[name] = json!([[]]);
            assert!(!faults(&schema, &wrong, hook.name()).is_empty(), "{} with another {name}", hook.name());
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
        assert_eq!(faults(&schema(hook, "out"), &answer, hook.name()), Vec::<String>::new());
    }
    for (hook, answer) in [
        (Hook::LocateKeys, json!({ "ttl_s": 60 })),
        (Hook::LocateKeys, json!({ "jwks": { "keys": {} } })),
        (Hook::LocateKeys, json!({ "pem": { "k-1": 1 } })),
        (Hook::Verify, json!({ "alg": "HS256" })),
        (Hook::MfaBegin, json!({ "reference": "r".repeat(257) })),
    ] {
        assert!(!faults(&schema(hook, "out"), &answer, hook.name()).is_empty(), "{answer}");
    }
    for hook in Hook::ALL {
        for answer in [json!(null), json!([]), json!("text")] {
            assert!(!faults(&schema(hook, "out"), &answer, hook.name()).is_empty(), "{} {answer}", hook.name());
        }
    }
}
