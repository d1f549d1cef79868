//! Test files beside scripts: `risk/acme.test.toml` for `risk/acme.rhai`. One runner serves `cargo test`
//! and `countersign policy test`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value as Json, json};
use toml::{Table, Value};

use super::bundle::read_folder;
use super::load::{Script, Snapshot};
use super::settings::toml_error;
use super::{LoadError, case_facts, coverage, run_map, run_script, run_token};
use crate::ids::TenantId;
use crate::mfa::MfaMethod;
use crate::policy::bundle::Bundle;
use crate::policy::check::FileLines;
use crate::session::TokenShape;
use crate::signin::assessment::{Assessment, combine};
use crate::signin::decision::demanded_action;
use crate::signin::facts::Facts;
use crate::signin::identity::{MappingInput, MappingOutput, UserKind};
use crate::signin::rules::{Audiences, TokenInput};

/// How long all cases of a bundle may run.
const BUDGET: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    set: Table,
    claims: Option<Table>,
    factor: Option<String>,
    #[serde(default)]
    audiences: Vec<String>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    level: Option<String>,
    action: Option<String>,
    score: Option<Score>,
    reasons: Option<Vec<String>>,
    not_reasons: Option<Vec<String>>,
    out: Option<Table>,
    reject: Option<String>,
    token: Option<Table>,
    audience: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Score {
    Exact(i64),
    Range { min: i64, max: i64 },
}

/// How one case ended.
#[derive(Debug)]
pub struct CaseResult {
    /// The test file.
    pub file: String,
    /// The case.
    pub name: String,
    /// What differs; empty when it passed.
    pub differences: Vec<String>,
}

/// How all cases ended.
#[derive(Debug, Default)]
pub struct CaseReport {
    /// Every case.
    pub cases: Vec<CaseResult>,
    /// Reasons of reasons.toml that no case made any script give.
    pub never_given: Vec<String>,
    /// Risk scripts of which some case ends in anything but a denial.
    pub admitting: BTreeSet<String>,
    /// How many reasons there are.
    pub reasons: usize,
    /// The lines of every script.
    pub lines: Vec<FileLines>,
}

impl CaseReport {
    /// Reasons that some case makes a script give, in percent of all in reasons.toml.
    #[must_use]
    pub fn reason_coverage(&self) -> u8 {
        let given = self.reasons - self.never_given.len();
        u8::try_from((given * 100).checked_div(self.reasons).unwrap_or(100)).unwrap_or(100)
    }

    /// Whether all cases passed, and there was one at least.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.cases.is_empty() && self.cases.iter().all(|case| case.differences.is_empty())
    }
}

impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in self.cases.iter().filter(|c| !c.differences.is_empty()) {
            writeln!(f, "FAILED {}: {}", case.file, case.name)?;
            for difference in &case.differences {
                writeln!(f, "       {difference}")?;
            }
        }
        if !self.never_given.is_empty() {
            writeln!(f, "no case gives: {}", self.never_given.join(", "))?;
        }
        let failed = self.cases.iter().filter(|c| !c.differences.is_empty()).count();
        writeln!(f, "{} passed, {failed} failed", self.cases.len() - failed)
    }
}

/// Runs every test file of a policies folder.
///
/// # Errors
/// When the policies do not load, or a test file cannot be read.
pub fn run_cases(dir: &Path) -> Result<CaseReport, LoadError> {
    run_bundle_cases(&read_folder(dir)?)
}

/// Runs every test file of a bundle.
///
/// # Errors
/// When the policies do not load, or a test file cannot be read.
pub fn run_bundle_cases(bundle: &Bundle) -> Result<CaseReport, LoadError> {
    let snapshot = Snapshot::build(bundle)?;
    let watched = coverage::told(&snapshot);
    let ends = Instant::now() + BUDGET;
    let mut report = CaseReport::default();
    let mut given = BTreeSet::new();
    for folder in ["mapping", "risk"] {
        let scripts: Vec<String> = bundle.of(folder).map(|(stem, ..)| stem.to_owned()).collect();
        for stem in scripts {
            let name = format!("{folder}/{stem}.test.toml");
            let Some(text) = bundle.text(&name) else { continue };
            let file: File = toml::from_str(text).map_err(|e| toml_error(&name, text, &e))?;
            for case in file.case {
                if Instant::now() > ends {
                    let message =
                        format!("all cases together may run for {} s, and were not done", BUDGET.as_secs());
                    return Err(LoadError::new(&name, 0, 0, message));
                }
                // Judged by the engine of sign-ins, and run once more where lines are counted.
                let differences = match folder {
                    "mapping" => {
                        let _ = run_mapping_case(&watched, &stem, &case);
                        run_mapping_case(&snapshot, &stem, &case)
                    }
                    _ => {
                        let _ = run_risk_case(&watched, &stem, &case, &mut BTreeSet::new(), &mut BTreeSet::new());
                        run_risk_case(&snapshot, &stem, &case, &mut given, &mut report.admitting)
                    }
                };
                let differences = differences.unwrap_or_else(|problem| vec![problem]);
                report.cases.push(CaseResult { file: name.clone(), name: case.name, differences });
            }
        }
    }
    report.never_given = snapshot.reasons.iter().filter(|code| !given.contains(*code)).cloned().collect();
    report.never_given.sort();
    report.reasons = snapshot.reasons.len();
    report.lines = coverage::lines(&snapshot, bundle)?;
    Ok(report)
}

fn run_risk_case(
    snapshot: &Snapshot,
    stem: &str,
    case: &Case,
    given: &mut BTreeSet<String>,
    admitting: &mut BTreeSet<String>,
) -> Result<Vec<String>, String> {
    let tenant = if stem == "_default" { TenantId::DEFAULT } else { stem };
    let tenant = TenantId::parse(tenant).map_err(|e| e.to_string())?;
    let mut facts = case_facts::ordinary(&tenant);
    for (path, value) in &case.set {
        case_facts::set(&mut facts, path, value)?;
    }
    // The script beside the cases, whatever script the tenant has.
    let script = snapshot.risk.get(stem).ok_or("the script is absent")?;
    let facts = Arc::new(facts);
    let run = run_script(snapshot, script, Arc::clone(&facts));
    if let Some(fault) = &run.fault {
        return Err(fault.to_string());
    }
    let assessment = combine(run);
    if demanded_action(&assessment) != "deny" {
        admitting.insert(script.file.to_string());
    }
    given.extend(assessment.reasons.iter().map(|(code, _)| code.to_string()));
    let mut differences = compare_assessment(&assessment, &case.expect);
    if case.expect.token.is_some() || case.expect.audience.is_some() {
        differences.extend(compare_tokens(snapshot, script, &facts, &assessment, case)?);
    }
    Ok(differences)
}

/// What `fn token` makes of the tokens of this sign-in, as if it got some.
fn compare_tokens(
    snapshot: &Snapshot,
    script: &Script,
    facts: &Arc<Facts>,
    assessment: &Assessment,
    case: &Case,
) -> Result<Vec<String>, String> {
    let unknown = |word: &String| format!("factor: \"{word}\" is no method");
    let factor = case.factor.as_ref().map(|word| MfaMethod::find(word).ok_or_else(|| unknown(word))).transpose()?;
    let input = TokenInput {
        level: assessment.level,
        score: assessment.score,
        reasons: assessment.reasons.iter().map(|(code, _)| Arc::clone(code)).collect(),
        factor,
        audiences: Audiences::These(case.audiences.iter().map(|a| a.as_str().into()).collect()),
    };
    let shape = match script.shapes_tokens {
        true => run_token(snapshot, script, facts, input).map_err(|fault| fault.to_string())?.shape,
        false => TokenShape::default(),
    };
    let mut differences = Vec::new();
    if let Some(wanted) = &case.expect.token {
        let (wanted, found) = (json_of(&Value::Table(wanted.clone())), Json::Object(shape.claims));
        if wanted != found {
            differences.push(format!("token: expected {wanted}, found {found}"));
        }
    }
    if case.expect.audience.as_deref().is_some_and(|wanted| shape.audience.as_deref() != Some(wanted)) {
        let (wanted, found) = (&case.expect.audience, &shape.audience);
        differences.push(format!("audience: expected {wanted:?}, found {found:?}"));
    }
    Ok(differences)
}

fn compare_assessment(assessment: &Assessment, expect: &Expect) -> Vec<String> {
    let mut differences = Vec::new();
    let mut differs = |what: &str, wanted: &dyn fmt::Display, found: &dyn fmt::Display| {
        differences.push(format!("{what}: expected {wanted}, found {found}"));
    };
    let level = assessment.level.as_str();
    if let Some(wanted) = expect.level.as_ref().filter(|l| *l != level) {
        differs("level", wanted, &level);
    }
    let action = demanded_action(assessment);
    if let Some(wanted) = expect.action.as_ref().filter(|a| *a != action) {
        differs("action", wanted, &action);
    }
    let score = assessment.score;
    match expect.score {
        Some(Score::Exact(wanted)) if wanted != score => differs("score", &wanted, &score),
        Some(Score::Range { min, max }) if !(min..=max).contains(&score) => {
            differs("score", &format!("{min} to {max}"), &score);
        }
        _ => {}
    }
    let found: Vec<&str> = assessment.reasons.iter().map(|(code, _)| &**code).collect();
    let shown = format!("[{}]", found.join(", "));
    for wanted in expect.reasons.iter().flatten().filter(|w| !found.contains(&w.as_str())) {
        differs("reasons", wanted, &shown);
    }
    for unwanted in expect.not_reasons.iter().flatten().filter(|w| found.contains(&w.as_str())) {
        differs("reasons", &format!("no {unwanted}"), &shown);
    }
    differences
}

fn run_mapping_case(snapshot: &Snapshot, stem: &str, case: &Case) -> Result<Vec<String>, String> {
    let tenant = TenantId::parse(TenantId::DEFAULT).map_err(|e| e.to_string())?;
    let mut facts = case_facts::ordinary(&tenant);
    for (path, value) in &case.set {
        case_facts::set(&mut facts, path, value)?;
    }
    let claims = case.claims.as_ref().ok_or("a mapping case has claims = { … }")?;
    let input = MappingInput {
        tenant,
        provider: facts.provider,
        claims: case_facts::claims(claims)?,
        upstream: facts.upstream,
        request: facts.request,
    };
    let output = run_map(snapshot, &[stem.to_owned()], Arc::new(input)).map_err(|fault| fault.to_string())?;
    let mut differences = Vec::new();
    if output.reject != case.expect.reject {
        let (wanted, found) = (&case.expect.reject, &output.reject);
        differences.push(format!("reject: expected {wanted:?}, found {found:?}"));
    }
    if let Some(wanted) = &case.expect.out {
        let found = told(&output);
        for (key, value) in wanted {
            let value = json_of(value);
            if found[key] != value {
                differences.push(format!("out.{key}: expected {value}, found {}", found[key]));
            }
        }
        let members = found.as_object().into_iter().flatten();
        for (key, value) in members.filter(|(key, value)| !value.is_null() && !wanted.contains_key(*key)) {
            differences.push(format!("out.{key}: expected nothing, found {value}"));
        }
    }
    Ok(differences)
}

fn json_of(value: &Value) -> Json {
    serde_json::to_value(value).unwrap_or_default()
}

/// What a mapping told, as cases write it; `null` is what it did not tell.
fn told(output: &MappingOutput) -> Json {
    let verified = |pair: &Option<(String, bool)>| pair.as_ref().map(|(_, verified)| *verified);
    let value = |pair: &Option<(String, bool)>| pair.as_ref().map(|(value, _)| value.clone());
    let some = |empty: bool, value: Json| if empty { Json::Null } else { value };
    json!({
        "kind": some(output.kind == UserKind::Person, json!(output.kind.as_str())),
        "subject": output.subject,
        "email": value(&output.email),
        "email_verified": verified(&output.email),
        "name": output.name,
        "username": output.username,
        "phone": value(&output.phone),
        "phone_verified": verified(&output.phone),
        "locale": output.locale,
        "attributes": some(output.attributes.is_empty(), json!(output.attributes)),
        "groups": some(output.groups.is_empty(), json!(output.groups)),
    })
}
