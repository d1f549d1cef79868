//! The likelihood signal: how unusual the surroundings of a sign-in are for its user.

use std::time::Duration;

use countersign::admin::access::Role;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::service::{Answer, Service, Setup};

const SHIPPED: &str = include_str!("../../../policies/policy.toml");

async fn with_mode(mode: &str) -> (TempDir, Service) {
    let dir = TempDir::new().unwrap();
    let text = SHIPPED.replace("mode = \"auto\"", &format!("mode = \"{mode}\""));
    // Far up, so that a score is told whatever it is.
    let text = text.replace("medium = 30", "medium = 90").replace("high = 60", "high = 95");
    let service = Service::start_with(Setup::with_policies(dir.path(), &[("policy.toml", &text)])).await;
    (dir, service)
}

async fn from(service: &Service, sub: &str, device: &str) -> Answer {
    service.clock.advance(Duration::from_secs(3600));
    service.sign_in_from(&service.issuer.token().subject(sub).sign(), "app/1", device).await
}

/// Ten sign-ins of one user on one device, beside those of others on another device that all of them use.
async fn history(service: &Service) {
    for n in 0..10 {
        from(service, "ada", "ada's own").await.signed_in();
        from(service, &format!("other{n}"), "the kiosk").await.signed_in();
    }
    service.count().await;
}

fn score(answer: &Answer) -> i64 {
    answer.signed_in()["risk_assessment"]["score"].as_i64().unwrap()
}

async fn explained(service: &Service) -> (String, Value) {
    let key = service.admin_key(Role::Admin, None).await;
    let list = service.get_with("/admin/sign-ins?limit=1", &key).await;
    let id = list.body["items"][0]["id"].as_str().unwrap_or_else(|| panic!("{}", list.text)).to_owned();
    let told = service.get_with(&format!("/admin/sign-ins/{id}/explain"), &key).await;
    let text = told.body["text"].as_str().unwrap().to_owned();
    (text, told.body["explanation"].clone())
}

#[tokio::test]
async fn a_device_that_others_use_and_this_user_never_did_costs_points_and_is_explained() {
    let (_dir, service) = with_mode("on").await;
    history(&service).await;
    // Everybody is at this place with this browser, so that little speaks for her: the logarithm is above -0.5.
    assert_eq!(score(&from(&service, "ada", "ada's own").await), 1);
    let away = score(&from(&service, "ada", "the kiosk").await);
    let (text, told) = explained(&service).await;
    let likelihood = &told["likelihood"];
    let points = likelihood["points"].as_i64().unwrap();
    assert!(points > 0, "{told}");
    let by_signal = told["steps"].as_array().unwrap().iter().find(|s| s["code"] == "unusual_sign_in").unwrap();
    assert_eq!(by_signal["points"], points);
    assert_eq!(by_signal["because"]["signals.likelihood_points"], points);
    assert_eq!(away, 10 + points, "a device that is new beside an agent that is not, and the signal");

    let shares = likelihood["shares"].as_array().unwrap();
    let sum: f64 = shares.iter().map(|s| s["share"].as_f64().unwrap()).sum();
    assert!((sum - likelihood["value"].as_f64().unwrap()).abs() < 1e-9, "{likelihood}");
    let device = shares.iter().find(|s| s["feature"] == "device").unwrap();
    assert!(device["share"].as_f64().unwrap() > 0.3 && device["seen"] == 0, "{likelihood}");
    assert!(text.contains("device never seen +"), "{text}");
}

#[tokio::test]
async fn a_tenant_with_few_sign_ins_or_with_the_signal_off_has_none() {
    for mode in ["auto", "off"] {
        let (_dir, service) = with_mode(mode).await;
        history(&service).await;
        from(&service, "ada", "the kiosk").await.signed_in();
        let (text, told) = explained(&service).await;
        assert_eq!(told["likelihood"], Value::Null, "{mode}");
        assert!(!text.contains("likelihood"), "{mode}: {text}");
    }
}

#[tokio::test]
async fn a_user_without_a_history_has_no_signal() {
    let (_dir, service) = with_mode("on").await;
    history(&service).await;
    from(&service, "newcomer", "the kiosk").await.signed_in();
    assert_eq!(explained(&service).await.1["likelihood"], Value::Null);
}

#[tokio::test]
async fn settings_of_the_signal_that_make_no_sense_are_refused_with_their_bounds() {
    for (from, to, told) in [
        ("mode = \"auto\"", "mode = \"always\"", "unknown variant"),
        ("min_sign_ins = 500", "min_sign_ins = 1", "min_sign_ins is 100 to 40000"),
        ("min_history = 3", "min_history = 0", "min_history is 1 to 50"),
        ("min_history = 3", "min_histori = 3", "unknown field"),
    ] {
        let dir = TempDir::new().unwrap();
        let setup = Setup::with_policies(dir.path(), &[("policy.toml", &SHIPPED.replace(from, to))]);
        let error = countersign::scripts::PolicyHost::load(&setup.policies).err().unwrap().to_string();
        assert!(error.contains(told), "{error}");
    }
}
