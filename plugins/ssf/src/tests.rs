use countersign_plugin_sdk::abi::{CS_DECLINED, CS_INVALID};
use countersign_plugin_sdk::testkit::{FakeHost, TestPlugin};

use super::*;

const NOW_S: i64 = 1_767_225_600;
const COMPROMISE: &str = "https://schemas.openid.net/secevent/risc/event-type/credential-compromise";
const COMPLIANCE: &str = "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change";

fn plugin(config: Value) -> TestPlugin<Ssf> {
    FakeHost::new().create(config).unwrap()
}

fn told(subject: &str, at: i64, kind: &str, details: Value) -> Value {
    json!({
        "kind": "security_event", "id": "jti-1", "time_unix_s": at, "tenant": "default", "provider": "acme",
        "issuer": "https://issuer.example", "deadline_ms": 250,
        "events": [{ "type": kind, "subject": subject, "details": details }]
    })
}

fn sign_in(subject: &str, at: i64) -> Value {
    json!({
        "tenant": "default", "client_id": "app", "provider": { "id": "acme", "issuer": "https://issuer.example" },
        "request": { "time_unix_s": at }, "claims": { "sub": subject }, "deadline_ms": 250
    })
}

#[test]
fn an_event_is_a_fact_for_its_subject_alone_and_for_its_time() {
    let plugin = plugin(json!({ "events": { "credential_compromise": 3600 } }));
    assert_eq!(plugin.observe(&told("s-1", NOW_S - 60, COMPROMISE, json!({}))).unwrap(), json!({}));
    let facts = plugin.signals(&sign_in("s-1", NOW_S)).unwrap();
    let expected =
        json!({ "recent": ["credential_compromise"], "age_s": { "credential_compromise": 60 }, "value": {} });
    assert_eq!(facts, expected);
    let nothing = json!({ "recent": [], "age_s": {}, "value": {} });
    assert_eq!(plugin.signals(&sign_in("s-2", NOW_S)).unwrap(), nothing);
    assert_eq!(plugin.signals(&sign_in("s-1", NOW_S + 3540)).unwrap(), nothing);
    let mut elsewhere = sign_in("s-1", NOW_S);
    elsewhere["tenant"] = json!("other");
    assert_eq!(plugin.signals(&elsewhere).unwrap(), nothing);
}

#[test]
fn a_state_that_recovers_is_no_fact_and_an_older_event_changes_nothing() {
    let plugin = plugin(json!({}));
    let at = |s: i64, status: &str| {
        plugin.observe(&told("s-1", NOW_S + s, COMPLIANCE, json!({ "current_status": status }))).unwrap();
        plugin.signals(&sign_in("s-1", NOW_S + 100)).unwrap()
    };
    let broken = at(-50, "not-compliant");
    assert_eq!(broken["recent"], json!(["device_compliance_change"]));
    assert_eq!(broken["value"], json!({ "device_compliance_change": "not-compliant" }));
    assert_eq!(at(-60, "compliant")["recent"], json!(["device_compliance_change"]));
    assert_eq!(at(-50, "compliant")["recent"], json!(["device_compliance_change"]), "the worse of one second");
    assert_eq!(at(-40, "compliant")["recent"], json!([]));
    assert_eq!(at(-50, "not-compliant")["recent"], json!([]), "a token that comes again");
}

#[test]
fn what_is_not_remembered_not_known_or_of_nobody_is_settled_and_no_fact() {
    let plugin = plugin(json!({ "events": { "credential_compromise": 0 } }));
    for event in [
        told("s-1", NOW_S, COMPROMISE, json!({})),
        told("s-1", NOW_S, "https://example.com/event", json!({})),
        told("s-1", NOW_S - 8 * 86_400, COMPLIANCE, json!({})),
    ] {
        plugin.observe(&event).unwrap();
    }
    let mut nobody = told("s-1", NOW_S, COMPLIANCE, json!({}));
    nobody["events"][0]["subject"] = Value::Null;
    plugin.observe(&nobody).unwrap();
    assert_eq!(plugin.signals(&sign_in("s-1", NOW_S)).unwrap()["recent"], json!([]));
    let ended = json!({
        "id": "evt_1", "time_unix_s": 0, "tenant": "default", "provider": "acme", "outcome": "signed_in",
        "reasons": [], "attempt": 1, "deadline_ms": 250
    });
    assert_eq!(plugin.observe(&ended).unwrap_err().status, CS_DECLINED);
}

#[test]
fn a_sign_in_without_a_subject_is_not_taken_for_one_without_events() {
    let mut input = sign_in("s-1", NOW_S);
    input["claims"] = json!({});
    assert_eq!(plugin(json!({})).signals(&input).unwrap_err().status, CS_INVALID);
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    for (config, part) in [
        (json!({ "events": { "credential-compromise": 1 } }), "credential-compromise is no event"),
        (json!({ "remember_s": 2_592_001 }), "2592000 s at most"),
        (json!({ "remember_s": 0 }), "nothing is remembered"),
        (json!({ "remember": 1 }), "unknown field"),
    ] {
        let error = FakeHost::new().create::<Ssf>(config).err().unwrap();
        assert!(error.contains(part), "{error}");
    }
}
