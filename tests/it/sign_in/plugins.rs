//! Plugins on the sign-in path: what they add is seen by scripts, what they break stops nobody else.

use std::path::Path;

use tempfile::TempDir;

use crate::plugin_abi::{c_office_hours, rust_plugin};
use crate::support::service::{Service, Setup};

fn locked(dir: &Path, file: &Path, lines: &str) -> std::path::PathBuf {
    let lock = dir.join("plugins.lock");
    let entry = countersign::plugin_host::lock::lock_entry(file).unwrap();
    std::fs::write(&lock, format!("{entry}{lines}\n")).unwrap();
    lock
}

async fn with_plugin(file: &Path, lines: &str, files: &[(&str, &str)], provider: &str) -> (TempDir, Service) {
    let dir = TempDir::new().unwrap();
    let mut setup = Setup::with_policies(dir.path(), files);
    setup.plugins_lock = Some(locked(dir.path(), file, lines));
    setup.provider = provider.to_owned();
    let service = Service::start_with(setup).await;
    (dir, service)
}

#[tokio::test]
async fn a_signal_of_a_c_plugin_reaches_the_rules() {
    let rules = r#"fn assess(s, risk) {
        let hours = s.signals.plugin["com.example.office-hours"];
        if hours != () && hours.outside == false { risk.add(11, "new_network"); }
    }"#;
    let file = c_office_hours();
    let (_dir, service) = with_plugin(&file, "config = { from_hour = 8, to_hour = 18 }", &[("risk/_default.rhai", rules)], "").await;
    // The clock of the tests stands at noon on a Monday.
    let answer = service.sign_in(&service.issuer.token().sign()).await;
    assert_eq!(answer.signed_in()["risk_assessment"]["score"], 11);
}

#[tokio::test]
async fn a_plugin_that_panics_hangs_or_babbles_is_an_unknown_fact_and_no_more() {
    let rules = r#"fn assess(s, risk) {
        if s.signals.plugin["com.example.misbehaving"] == () { risk.add(9, "new_network"); }
    }"#;
    for mode in ["panic", "garbage", "huge", "bad_utf8", "hang"] {
        let file = rust_plugin("misbehaving");
        let lines = format!("deadline_ms = 50\nconfig = {{ mode = \"{mode}\", hang_ms = 2000 }}");
        let (_dir, service) = with_plugin(&file, &lines, &[("risk/_default.rhai", rules)], "").await;
        let answer = service.sign_in(&service.issuer.token().sign()).await;
        assert_eq!(answer.signed_in()["risk_assessment"]["score"], 9, "{mode}");
    }
}

#[tokio::test]
async fn enrichment_lands_beside_the_claims_and_its_absence_follows_the_providers_rule() {
    let mapping = r#"fn map(s, out) { let x = s.claims.path("x.com.example.misbehaving.department"); if x != () { out.attribute("department", x); } }"#;
    let files = [("mapping/acme.rhai", mapping)];
    let file = rust_plugin("misbehaving");
    let lines = |mode: &str| format!("bind = [\"acme\"]\ndeadline_ms = 50\nconfig = {{ mode = \"{mode}\" }}");
    let (_dir, service) = with_plugin(&file, &lines("ok"), &files, "").await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
    let (_dir, service) = with_plugin(&file, &lines("reject"), &files, "").await;
    service.sign_in(&service.issuer.token().sign()).await.expect(403, "identity_rejected");
    let (_dir, service) = with_plugin(&file, &lines("unavailable"), &files, "").await;
    service.sign_in(&service.issuer.token().sign()).await.expect(503, "provider_unavailable");
    let (_dir, service) = with_plugin(&file, &lines("unavailable"), &files, "enrich_failure = \"continue\"").await;
    service.sign_in(&service.issuer.token().sign()).await.signed_in();
}
