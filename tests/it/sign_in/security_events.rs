//! What a provider tells of an account becomes a fact of the next sign-in, by the plugin `ssf`.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mfa::enrol;
use crate::oauth::security_events::{event, push, recorded, taken};
use crate::support::plugins::{Bench, SSF};
use crate::support::service::{Answer, Service, Setup};

const COMPROMISE: &str = "https://schemas.openid.net/secevent/risc/event-type/credential-compromise";
const COMPLIANCE: &str = "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change";
const RULES: &str = r#"
fn assess(s, risk) {
    if s.signals.credential_compromise == () { risk.require_mfa("security_events_unknown"); return; }
    let told = s.signals.plugin["countersign.ssf"].recent;
    if s.signals.credential_compromise { risk.require_mfa("credential_compromise"); }
    if told.contains("device_compliance_change") { risk.require_mfa("new_device"); }
}
"#;

struct Running {
    service: Service,
    _bench: Bench,
    _policies: TempDir,
}

async fn start(rules: Option<&str>, grants: &str) -> Running {
    let bench = Bench::new();
    let entry = bench.rust(SSF, "countersign.ssf").hooks(&["signal.signals", "event.observe"]);
    let entry = entry.with(&format!("deadline_ms = 5000\ngrants = {{ {grants} }}"));
    let entry = entry.with("config = { events = { credential_compromise = 3600 } }");
    let bench = bench.lock(&entry);
    let policies = TempDir::new().unwrap();
    let files: Vec<(&str, &str)> = rules.into_iter().map(|rules| ("risk/_default.rhai", rules)).collect();
    let mut setup = Setup::with_policies(policies.path(), &files);
    setup.plugins_lock = Some(bench.write());
    Running { service: Service::start_with(setup).await, _bench: bench, _policies: policies }
}

const GRANTS: &str = "events = [\"security_event\"], claims = [\"sub\"], kv_kib = 64";

async fn sign_in(service: &Service) -> Answer {
    service.sign_in(&service.issuer.token().sign()).await
}

fn reason(answer: &Answer) -> &Value {
    &answer.challenged()["mfa_check_reason"]
}

#[tokio::test]
async fn a_compromised_credential_asks_the_next_sign_ins_for_a_factor_for_the_configured_time() {
    let Running { service, _bench, _policies } = start(Some(RULES), GRANTS).await;
    enrol(&service).await;
    sign_in(&service).await.signed_in();
    taken(&service, &event(&service, COMPROMISE).sign()).await;
    service.clock.advance(Duration::from_secs(120));
    assert_eq!(reason(&sign_in(&service).await), "credential_compromise");
    service.sign_in(&service.issuer.token().subject("subject-2").sign()).await.signed_in();
    service.clock.advance(Duration::from_secs(3600));
    sign_in(&service).await.signed_in();
}

#[tokio::test]
async fn a_device_that_complies_again_takes_the_demand_back() {
    let Running { service, _bench, _policies } = start(Some(RULES), GRANTS).await;
    enrol(&service).await;
    for (status, challenged) in [("not-compliant", true), ("compliant", false)] {
        service.clock.advance(Duration::from_secs(60));
        let events = json!({COMPLIANCE: {"current_status": status}});
        taken(&service, &event(&service, COMPLIANCE).claim("events", events).sign()).await;
        let answer = sign_in(&service).await;
        if challenged {
            assert_eq!(reason(&answer), "new_device");
        } else {
            answer.signed_in();
        }
    }
    assert_eq!(recorded(&service).await.len(), 2);
}

#[tokio::test]
async fn the_shipped_rules_take_a_compromised_credential_for_a_high_risk() {
    let Running { service, _bench, _policies } = start(None, GRANTS).await;
    enrol(&service).await;
    taken(&service, &event(&service, COMPROMISE).sign()).await;
    let answer = sign_in(&service).await;
    assert_eq!(
        (&answer.challenged()["risk_level"], reason(&answer)),
        (&json!("high"), &json!("credential_compromise"))
    );
}

#[tokio::test]
async fn an_event_that_the_plugin_cannot_keep_is_to_come_again_and_its_sessions_have_ended() {
    let no_store = "events = [\"security_event\"], claims = [\"sub\"]";
    let Running { service, _bench, _policies } = start(Some(RULES), no_store).await;
    let unknown = sign_in(&service).await;
    assert!(unknown.expect(403, "sign_in_denied").text.contains("security_events_unknown"), "{}", unknown.text);
    let token = event(&service, COMPROMISE).sign();
    for _ in 0..2 {
        let answer = push(&service, &token).await;
        answer.expect(503, "provider_unavailable");
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(recorded(&service).await.len(), 1);
}

#[tokio::test]
async fn without_the_grant_the_plugin_hears_nothing() {
    let Running { service, _bench, _policies } = start(Some(RULES), "claims = [\"sub\"], kv_kib = 64").await;
    enrol(&service).await;
    taken(&service, &event(&service, COMPROMISE).sign()).await;
    sign_in(&service).await.signed_in();
}
