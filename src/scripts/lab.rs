//! Bundles that are not active: checked, tried and compared in the sandbox of the active ones.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::cases::run_bundle_cases;
use super::corpus::{Sample, samples};
use super::engine::cost;
use super::load::{Script, Snapshot};
use super::{case_facts, run_assess, run_map, run_script, run_token};
use crate::ids::TenantId;
use crate::mfa::MfaMethod;
use crate::policy::bundle::Bundle;
use crate::policy::check::{CaseSummary, CheckFault, CheckReport, ScriptCheck};
use crate::policy::ports::{PolicyLab, PreparedBundle};
use crate::signin::facts::Facts;
use crate::signin::identity::MappingInput;
use crate::signin::rules::{Audiences, Effect, Level, PolicyFault, RuleRun, TokenInput};

/// How long a bundle may be checked.
const BUDGET: Duration = Duration::from_secs(20);

/// The sandbox.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lab;

struct Prepared(Snapshot);

impl PreparedBundle for Prepared {
    fn assess(&self, facts: Arc<Facts>) -> RuleRun {
        run_assess(&self.0, facts)
    }
}

impl PolicyLab for Lab {
    fn prepare(&self, bundle: &Bundle) -> Result<Arc<dyn PreparedBundle>, String> {
        Ok(Arc::new(Prepared(Snapshot::build(bundle).map_err(|error| error.to_string())?)))
    }

    fn facts(&self, tenant: &TenantId, set: &Map<String, Value>) -> Result<Facts, String> {
        let mut facts = case_facts::ordinary(tenant);
        for (path, value) in set.iter().filter(|(path, _)| *path != "tenant.id") {
            let value = toml::Value::try_from(value)
                .map_err(|_| format!("\"{path}\" cannot be null; write \"unknown\""))?;
            case_facts::set(&mut facts, path, &value)?;
        }
        Ok(facts)
    }

    fn check(&self, bundle: &Bundle) -> Result<CheckReport, String> {
        let snapshot = Snapshot::build(bundle).map_err(|error| error.to_string())?;
        let ends = Instant::now() + BUDGET;
        let mut scripts = Vec::new();
        for (stem, name, text) in bundle.of("risk") {
            let script = snapshot.risk.get(stem).ok_or("a script is lost")?;
            scripts.push(check_risk(&snapshot, script, stem, name, text, ends));
        }
        for (stem, name, _) in bundle.of("mapping") {
            scripts.push(check_mapping(&snapshot, stem, name, ends));
        }
        Ok(CheckReport { bundle: bundle.id(), scripts })
    }

    fn cases(&self, bundle: &Bundle) -> Result<CaseSummary, String> {
        let snapshot = Snapshot::build(bundle).map_err(|error| error.to_string())?;
        let report = run_bundle_cases(bundle).map_err(|error| error.to_string())?;
        let failed = report.cases.iter().filter_map(|case| {
            let first = case.differences.first()?;
            Some(format!("{}: {}: {first}", case.file, case.name))
        });
        Ok(CaseSummary {
            cases: report.cases.len(),
            failed: failed.collect(),
            admitting: report.admitting.iter().cloned().collect(),
            reason_coverage: report.reason_coverage(),
            wanted_coverage: snapshot.settings.reason_coverage,
            lines: report.lines,
        })
    }
}

fn tenant_of(stem: &str) -> Option<TenantId> {
    TenantId::parse(if stem == "_default" { TenantId::DEFAULT } else { stem }).ok()
}

fn check_risk(
    snapshot: &Snapshot,
    script: &Script,
    stem: &str,
    name: &str,
    text: &str,
    ends: Instant,
) -> ScriptCheck {
    let mut check = ScriptCheck { file: name.to_owned(), denies_everything: true, ..ScriptCheck::default() };
    let Some(tenant) = tenant_of(stem) else { return check };
    let mut given = BTreeSet::new();
    let mut always: Option<BTreeSet<String>> = None;
    if is_over(ends, &mut check) {
        return check;
    }
    for sample in samples(&tenant) {
        if is_over(ends, &mut check) {
            break;
        }
        let run = run_script(snapshot, script, Arc::clone(&sample.facts));
        check.ran += 1;
        check.most_operations = check.most_operations.max(run.cost.operations);
        check.longest_us = check.longest_us.max(run.cost.micros);
        if let Some(fault) = run.fault {
            note_fault(&mut check.faults, fault, &sample);
            continue;
        }
        if script.shapes_tokens {
            let (level, score, reasons) = (Level::Low, 0, Vec::new());
            // Every method in turn, and none.
            let factor = MfaMethod::ALL.get(check.ran % (MfaMethod::ALL.len() + 1)).copied();
            let input = TokenInput { level, score, reasons, factor, audiences: Audiences::Untold };
            if let Err(fault) = run_token(snapshot, script, &sample.facts, input) {
                note_fault(&mut check.faults, fault, &sample);
            }
        }
        check.denies_everything &= run.output.steps.iter().any(|step| step.effect == Effect::Deny);
        let codes: BTreeSet<String> = run.output.steps.iter().map(|step| step.code.to_string()).collect();
        given.extend(codes.iter().cloned());
        always = Some(match always {
            None => codes,
            Some(held) => held.intersection(&codes).cloned().collect(),
        });
    }
    check.denies_everything &= check.ran > check.faults.iter().map(|f| f.times).sum();
    check.always = always.unwrap_or_default().into_iter().collect();
    let written = |code: &&String| text.contains(&format!("\"{code}\""));
    check.never = snapshot.reasons.iter().filter(written).filter(|code| !given.contains(*code)).cloned().collect();
    check.never.sort();
    check.faults.sort_by_key(|fault| std::cmp::Reverse(fault.times));
    check
}

fn check_mapping(snapshot: &Snapshot, stem: &str, name: &str, ends: Instant) -> ScriptCheck {
    let mut check = ScriptCheck { file: name.to_owned(), ..ScriptCheck::default() };
    let Ok(tenant) = TenantId::parse(TenantId::DEFAULT) else { return check };
    if is_over(ends, &mut check) {
        return check;
    }
    for sample in samples(&tenant) {
        if is_over(ends, &mut check) {
            break;
        }
        let facts = &sample.facts;
        let input = MappingInput {
            tenant: tenant.clone(),
            provider: facts.provider.clone(),
            claims: Arc::clone(&facts.claims),
            upstream: facts.upstream.clone(),
            request: facts.request.clone(),
        };
        let started = Instant::now();
        let ran = run_map(snapshot, &[stem.to_owned()], Arc::new(input));
        check.ran += 1;
        check.most_operations = check.most_operations.max(cost().operations);
        check.longest_us = check.longest_us.max(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
        if let Err(fault) = ran {
            note_fault(&mut check.faults, fault, &sample);
        }
    }
    check
}

/// A script that was not checked to the end did not pass.
fn is_over(ends: Instant, check: &mut ScriptCheck) -> bool {
    if Instant::now() < ends {
        return false;
    }
    check.faults.push(CheckFault {
        file: check.file.clone(),
        line: 0,
        column: 0,
        message: format!(
            "all scripts together are checked for at most {} s, and this one was not done",
            BUDGET.as_secs()
        ),
        times: 0,
        example: "any sign-in".to_owned(),
    });
    true
}

fn note_fault(faults: &mut Vec<CheckFault>, fault: PolicyFault, sample: &Sample) {
    let same = |known: &&mut CheckFault| {
        (known.line, known.column, &known.message) == (fault.line, fault.column, &fault.message)
    };
    if let Some(known) = faults.iter_mut().find(same) {
        known.times += 1;
        return;
    }
    let PolicyFault { file, line, column, message } = fault;
    faults.push(CheckFault { file, line, column, message, times: 1, example: sample.told() });
}
