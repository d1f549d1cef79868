//! Plugins on the sign-in path: what they add is seen by scripts, what they break stops nobody else.

use tempfile::TempDir;

use crate::support::plugins::{Bench, Entry};
use crate::support::service::{Service, Setup};

const RISK: &str = "risk/_default.rhai";

struct Running {
    service: Service,
    _dirs: (TempDir, Bench),
}

async fn with_plugin(bench: Bench, entry: Entry, files: &[(&str, &str)], provider: &str) -> Running {
    let bench = bench.lock(&entry);
    let dir = TempDir::new().unwrap();
    let mut setup = Setup::with_policies(dir.path(), files);
    setup.plugins_lock = Some(bench.write());
    setup.provider = provider.to_owned();
    Running { service: Service::start_with(setup).await, _dirs: (dir, bench) }
}

#[tokio::test]
async fn a_signal_of_a_c_plugin_reaches_the_rules() {
    let rules = r#"fn assess(s, risk) {
        let office = s.signals.plugin["countersign.office_hours"];
        if office != () && office.office_hours { risk.add(11, "new_network"); }
    }"#;
    let bench = Bench::new();
    let entry = bench.office_hours().with("config = { from_hour = 8, to_hour = 18 }");
    let running = with_plugin(bench, entry, &[(RISK, rules)], "").await;
    // The clock of the tests stands at noon on a Monday.
    let answer = running.service.sign_in(&running.service.issuer.token().sign()).await;
    assert_eq!(answer.signed_in()["risk_assessment"]["score"], 11);
}

#[tokio::test]
async fn a_plugin_that_panics_hangs_or_babbles_is_an_unknown_fact_and_no_more() {
    let rules = r#"fn assess(s, risk) {
        if s.signals.plugin["countersign.misbehaving"] == () { risk.add(9, "new_network"); }
    }"#;
    for mode in ["panic", "garbage", "huge", "wrong_utf8", "hang"] {
        let bench = Bench::new();
        let entry = bench.misbehaving(&format!("signals = \"{mode}\", hang_ms = 2000")).with("deadline_ms = 50");
        let running = with_plugin(bench, entry, &[(RISK, rules)], "").await;
        let answer = running.service.sign_in(&running.service.issuer.token().sign()).await;
        assert_eq!(answer.signed_in()["risk_assessment"]["score"], 9, "{mode}");
    }
}

#[tokio::test]
async fn enrichment_stands_beside_the_claims_and_its_absence_follows_the_providers_rule() {
    let rules = r#"fn assess(s, risk) {
        if s.claims.path("x.countersign.misbehaving") != () { risk.add(5, "new_network"); }
        if s.claims.str("sub") != "subject-1" { risk.deny("new_network"); }
    }"#;
    let run = async |mode: &str, provider: &str| {
        let bench = Bench::new();
        let entry = bench.misbehaving(&format!("enrich = \"{mode}\""));
        let entry = entry.hooks(&["provider.enrich"]).with("bind = [\"acme\"]\ngrants = { claims = [\"sub\"] }");
        let running = with_plugin(bench, entry, &[(RISK, rules)], provider).await;
        running.service.sign_in(&running.service.issuer.token().sign()).await
    };
    assert_eq!(run("ok", "").await.signed_in()["risk_assessment"]["score"], 5);
    run("reject", "").await.expect(403, "identity_rejected");
    run("unavailable", "").await.expect(503, "provider_unavailable");
    let continued = run("unavailable", "enrich_failure = \"continue\"").await;
    assert_eq!(continued.signed_in()["risk_assessment"]["score"], 0);
}
