//! Explanations of any policy on any facts.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::bundle::read_folder;
use super::corpus::samples;
use super::lab::Lab;
use crate::ids::{EventId, TenantId};
use crate::policy::bundle::Bundle;
use crate::policy::explain::{Explanation, StoredDecision, Trace};
use crate::policy::ports::{PolicyLab, PreparedBundle};
use crate::signin::assessment::combine;
use crate::signin::decision::decide_again;
use crate::signin::fact_paths::{CLAIMS, PATHS, PLUGIN_SIGNALS};
use crate::signin::facts::Facts;

static SHIPPED: LazyLock<Bundle> =
    LazyLock::new(|| read_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")).unwrap());
static FACTS: LazyLock<Vec<Arc<Facts>>> = LazyLock::new(|| {
    let tenant = TenantId::parse("acme").unwrap();
    samples(&tenant).into_iter().map(|sample| sample.facts).collect()
});

fn prepare(script: &str) -> Arc<dyn PreparedBundle> {
    let mut files = SHIPPED.files().clone();
    files.insert("risk/acme.rhai".to_owned(), script.into());
    Lab.prepare(&Bundle::new(files).unwrap()).unwrap()
}

fn explain(bundle: &dyn PreparedBundle, facts: &Arc<Facts>) -> Explanation {
    let assessment = combine(bundle.assess(Arc::clone(facts)));
    let trace = Trace::of(&assessment, &decide_again(&assessment, facts));
    let id = EventId::from_bytes([1; 16]);
    let decision = StoredDecision { id, tenant: facts.tenant.clone(), facts: Facts::clone(facts), trace };
    Explanation { decision, shadow: Vec::new() }
}

fn statement() -> impl Strategy<Value = String> {
    let condition = prop_oneof![
        Just("true"),
        Just("s.history.device == \"new\""),
        Just("s.history.known_country == false"),
        Just("s.request.network_kind == \"hosting\""),
        Just("s.history.failed_attempts_1h > 2"),
        Just("s.user.privileged"),
        Just("s.claims.bool(\"email_verified\") != true"),
        // Fails on what is not known: then the failure policy speaks.
        Just("s.request.asn > 5"),
    ];
    let code = prop_oneof![Just("new_device"), Just("new_country"), Just("new_network"), Just("dormant_account")];
    let effect = prop_oneof![
        (-100i64..=100).prop_map(|points| format!("add({points}, ")),
        prop_oneof![Just("low"), Just("medium"), Just("high")].prop_map(|level| format!("at_least(\"{level}\", ")),
        Just("require_mfa(".to_owned()),
        Just("deny(".to_owned()),
        Just("no_refresh(".to_owned()),
        Just("require_strength(\"strong\", ".to_owned()),
    ];
    (condition, effect, code)
        .prop_map(|(condition, effect, code)| format!("if {condition} {{ risk.{effect}\"{code}\"); }}\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_points_of_an_explanation_add_up_to_its_score(
        statements in prop::collection::vec(statement(), 0..10),
        which in any::<prop::sample::Index>(),
    ) {
        let bundle = prepare(&format!("fn assess(s, risk) {{\n{}}}", statements.concat()));
        for offset in 0..20 {
            let facts = &FACTS[(which.index(FACTS.len()) + offset * 19) % FACTS.len()];
            let explanation = explain(&*bundle, facts);
            let reasons = explanation.reasons();
            let trace = &explanation.decision.trace;
            prop_assert_eq!(reasons.iter().map(|r| r.points).sum::<i64>(), trace.score);
            prop_assert!((0..=100).contains(&trace.score));
            let told = explanation.to_json();
            let steps = told["steps"].as_array().unwrap();
            let shown: i64 = steps.iter().map(|step| step["points"].as_i64().unwrap()).sum();
            prop_assert_eq!(shown, trace.score);
            let mut codes: Vec<&str> = reasons.iter().map(|r| r.code).collect();
            codes.sort_unstable();
            codes.dedup();
            prop_assert_eq!(codes.len(), reasons.len());
            prop_assert!(!explanation.to_text().is_empty());
        }
    }
}

#[test]
fn every_fact_is_named_by_the_reason_that_was_given_after_reading_it() {
    for path in PATHS.iter().map(|p| p.name).filter(|p| ![CLAIMS, PLUGIN_SIGNALS, "contract"].contains(p)) {
        let bundle = prepare(&format!("fn assess(s, risk) {{ let x = s.{path}; risk.add(1, \"new_device\"); }}"));
        let explanation = explain(&*bundle, &FACTS[0]);
        assert_eq!(explanation.decision.trace.failure, None, "{path}");
        let because: Vec<&str> = explanation.reasons()[0].because.iter().map(|(path, _)| *path).collect();
        assert_eq!(because, [path]);
    }
}

#[test]
fn a_cause_belongs_to_the_step_after_it_and_to_no_other() {
    let bundle = prepare(
        "fn assess(s, risk) {\n  if s.claims.str(\"email\") != () { risk.add(2, \"new_device\"); }\n  \
         if s.history.travel == \"none\" { risk.add(3, \"new_country\"); }\n}",
    );
    let explanation = explain(&*bundle, &FACTS[0]);
    let reasons = explanation.reasons();
    let paths = |n: usize| reasons[n].because.iter().map(|(path, _)| *path).collect::<Vec<_>>();
    assert_eq!((paths(0), paths(1)), (vec!["claims.email"], vec!["history.travel"]));
    assert_eq!((reasons[0].line, reasons[1].line), (Some(2), Some(3)));
    assert_eq!(reasons[0].because[0].1, "ada@example.com");
}
