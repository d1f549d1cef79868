//! Why a sign-in was decided as it was: kept with its frozen facts, told as JSON and as sentences.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::clock::UnixTime;
use crate::ids::{EventId, TenantId};
use crate::signin::assessment::Assessment;
use crate::signin::decision::Decision;
use crate::signin::fact_paths::value_of;
use crate::signin::facts::Facts;

/// One decision with all that led to it.
#[derive(Debug, Clone)]
pub struct StoredDecision {
    /// The sign-in.
    pub id: EventId,
    /// The tenant.
    pub tenant: TenantId,
    /// The facts, frozen. Addresses and agents are stand-ins that only compare.
    pub facts: Facts,
    /// What came of them.
    pub trace: Trace,
}

impl StoredDecision {
    /// When it was decided.
    #[must_use]
    pub fn at(&self) -> UnixTime {
        self.facts.request.time
    }
}

/// What a run of the rules asked for, and what the core made of it. Its JSON is the stored form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The bundle.
    pub bundle: Arc<str>,
    /// The script.
    pub file: Arc<str>,
    /// 0 to 100.
    pub score: i64,
    /// `low`, `medium` or `high`.
    pub level: String,
    /// `allow`, `mfa` or `deny`.
    pub action: String,
    /// Why it was denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial: Option<String>,
    /// Methods of the challenge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Reasons with their points; they add up to the score.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<(Arc<str>, i64)>,
    /// The calls, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<TraceStep>,
    /// Labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Arc<str>>,
    /// Notes of the script.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Operations of the engine.
    pub ops: u64,
    /// Microseconds of the run.
    pub us: u64,
    /// Scores from here on were medium.
    pub medium_from: i64,
    /// Scores from here on were high.
    pub high_from: i64,
    /// The script's failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// One call of a script.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceStep {
    /// The reason.
    pub code: Arc<str>,
    /// The call: `add`, `require_mfa`, …
    pub effect: String,
    /// Its argument, as people read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument: Option<String>,
    /// The line in the script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What the script gave beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Map<String, Value>>,
    /// Facts that were read since the call before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
}

impl Trace {
    /// The trace of an assessment and of what the core decided on it.
    #[must_use]
    pub fn of(assessment: &Assessment, decision: &Decision) -> Self {
        let steps = assessment.output.steps.iter().map(|step| {
            let (effect, argument) = step.effect.told();
            TraceStep {
                code: Arc::clone(&step.code),
                effect: effect.to_owned(),
                argument,
                line: step.line,
                detail: step.detail.clone(),
                because: step.because.paths().map(str::to_owned).collect(),
            }
        });
        let (denial, methods) = match decision {
            Decision::Deny(denial) => (Some(denial.to_string()), Vec::new()),
            Decision::Challenge { methods, .. } => (None, methods.iter().map(ToString::to_string).collect()),
            Decision::Issue { .. } => (None, Vec::new()),
        };
        Self {
            bundle: Arc::clone(&assessment.policy),
            file: Arc::clone(&assessment.file),
            score: assessment.score,
            level: assessment.level.to_string(),
            action: decision.action().to_owned(),
            denial,
            methods,
            reasons: assessment.reasons.clone(),
            steps: steps.collect(),
            tags: assessment.output.tags.clone(),
            notes: assessment.output.notes.clone(),
            ops: assessment.cost.operations,
            us: assessment.cost.micros,
            medium_from: assessment.settings.medium_from,
            high_from: assessment.settings.high_from,
            failure: assessment.fault.as_ref().map(ToString::to_string),
        }
    }

    /// The call that a reason's points come from: the one that gave just these, else the first.
    fn step_of(&self, code: &str, points: i64) -> Option<&TraceStep> {
        let of = || self.steps.iter().filter(|step| *step.code == *code);
        let points = points.to_string();
        of().find(|step| step.effect == "add" && step.argument.as_ref() == Some(&points)).or_else(|| of().next())
    }
}

/// What another bundle would have decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowOutcome {
    /// The candidate.
    pub bundle: String,
    /// `allow`, `mfa` or `deny`.
    pub action: String,
}

/// A decision, explained.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The decision.
    pub decision: StoredDecision,
    /// Candidates that would have decided otherwise.
    pub shadow: Vec<ShadowOutcome>,
}

/// One reason of an explanation.
#[derive(Debug, Clone, PartialEq)]
pub struct ExplainedReason<'a> {
    /// The reason.
    pub code: &'a str,
    /// Its share of the score.
    pub points: i64,
    /// The line in the script; absent when the core gave the reason.
    pub line: Option<usize>,
    /// The calls with this reason, such as `add 25`.
    pub calls: Vec<String>,
    /// The facts that led to it.
    pub because: Vec<(&'a str, Value)>,
    /// What the script gave beside it.
    pub detail: Option<&'a Map<String, Value>>,
}

impl Explanation {
    /// Every reason once. The points add up to the score.
    #[must_use]
    pub fn reasons(&self) -> Vec<ExplainedReason<'_>> {
        let trace = &self.decision.trace;
        trace
            .reasons
            .iter()
            .map(|(code, points)| {
                let step = trace.step_of(code, *points);
                let calls = trace.steps.iter().filter(|s| s.code == *code).map(|s| match &s.argument {
                    Some(argument) => format!("{} {argument}", s.effect),
                    None => s.effect.clone(),
                });
                ExplainedReason {
                    code,
                    points: *points,
                    line: step.and_then(|s| s.line),
                    calls: calls.collect(),
                    because: step.map_or(Vec::new(), |s| {
                        s.because.iter().map(|path| (path.as_str(), value_of(&self.decision.facts, path))).collect()
                    }),
                    detail: step.and_then(|s| s.detail.as_ref()),
                }
            })
            .collect()
    }

    /// The likelihood signal with the share of each feature; `null` when there was none.
    fn likelihood_json(&self) -> Value {
        let Some(told) = &self.decision.facts.history.likelihood else { return Value::Null };
        let shares =
            told.shares.iter().map(|s| json!({"feature": s.feature.as_str(), "share": s.value(), "seen": s.seen}));
        json!({
            "value": told.value(),
            "points": told.points,
            "sign_ins": told.sign_ins,
            "shares": shares.collect::<Vec<_>>(),
        })
    }

    /// The same as a sentence.
    fn likelihood_text(&self) -> Option<String> {
        let told = self.decision.facts.history.likelihood.as_ref()?;
        let shares = told.shares.iter().map(|share| {
            let (feature, value) = (share.feature.as_str(), share.value());
            match share.seen {
                0 => format!("{feature} never seen {value:+.2}"),
                seen => format!("{feature} seen {seen} times {value:+.2}"),
            }
        });
        Some(format!(
            "likelihood {:+.2} ({} points), against {} earlier sign-ins: {}",
            told.value(),
            told.points,
            told.sign_ins,
            shares.collect::<Vec<_>>().join(", ")
        ))
    }

    /// What the core did with the score.
    #[must_use]
    pub fn core(&self) -> Vec<String> {
        let trace = &self.decision.trace;
        let mut lines = vec![match trace.level.as_str() {
            "high" => format!("threshold high >= {}", trace.high_from),
            "medium" => format!("threshold medium >= {}", trace.medium_from),
            _ => format!("below the threshold of medium, {}", trace.medium_from),
        }];
        if !trace.methods.is_empty() {
            lines.push(format!("a second factor is asked for: {}", trace.methods.join(", ")));
        }
        if self.decision.facts.upstream.trusted_mfa {
            lines.push("the provider's own second factor is trusted up to medium".to_owned());
        }
        lines.extend(trace.denial.clone());
        lines
    }

    /// The form of the contract.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let decision = &self.decision;
        let trace = &decision.trace;
        let steps: Vec<Value> = self
            .reasons()
            .into_iter()
            .map(|reason| {
                let mut step = Map::new();
                step.insert("code".to_owned(), reason.code.into());
                step.insert("points".to_owned(), reason.points.into());
                step.insert("line".to_owned(), json!(reason.line));
                step.insert("calls".to_owned(), json!(reason.calls));
                let because = reason.because.into_iter().map(|(path, value)| (path.to_owned(), value));
                step.insert("because".to_owned(), Value::Object(because.collect()));
                if let Some(detail) = reason.detail {
                    step.insert("detail".to_owned(), Value::Object(detail.clone()));
                }
                step.retain(|_, value| !value.is_null());
                Value::Object(step)
            })
            .collect();
        let shadow: Vec<Value> =
            self.shadow.iter().map(|s| json!({"bundle": s.bundle, "action": s.action})).collect();
        json!({
            "id": decision.id.to_string(),
            "tenant": decision.tenant.as_str(),
            "at": decision.at().to_rfc3339(),
            "user_id": decision.facts.user.id.to_string(),
            "provider": &*decision.facts.provider.id,
            "bundle": &*trace.bundle,
            "file": &*trace.file,
            "contract": 1,
            "score": trace.score,
            "level": trace.level,
            "action": trace.action,
            "ops": trace.ops,
            "us": trace.us,
            "steps": steps,
            "core": self.core(),
            "likelihood": self.likelihood_json(),
            "tags": trace.tags,
            "notes": trace.notes,
            "shadow": shadow,
            "failure": trace.failure,
        })
    }

    /// The same for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let decision = &self.decision;
        let trace = &decision.trace;
        let mut text = String::new();
        let action = match trace.action.as_str() {
            "allow" => "let in",
            "mfa" => "asked for a second factor",
            _ => "denied",
        };
        let _ = writeln!(
            text,
            "{} at {}: {} of tenant {} was {action}; score {}, level {}.",
            decision.id,
            decision.at().to_rfc3339(),
            decision.facts.user.id,
            decision.tenant,
            trace.score,
            trace.level
        );
        let _ =
            writeln!(text, "Bundle {}, {}, {} operations, {} µs.", trace.bundle, trace.file, trace.ops, trace.us);
        for reason in self.reasons() {
            let place = reason.line.map_or(String::new(), |line| format!(" (line {line})"));
            let calls = match reason.calls.as_slice() {
                [] => "given by the server".to_owned(),
                calls => calls.join(", "),
            };
            let _ = write!(text, "  {:+4}  {}{place}: {calls}", reason.points, reason.code);
            let because: Vec<String> = reason.because.iter().map(|(path, value)| told(path, value)).collect();
            if !because.is_empty() {
                let _ = write!(text, "; because {}", because.join(" and "));
            }
            text.push('\n');
        }
        if trace.reasons.is_empty() {
            text.push_str("  No rule asked for anything.\n");
        }
        for line in self.core() {
            let _ = writeln!(text, "  {line}");
        }
        if let Some(line) = self.likelihood_text() {
            let _ = writeln!(text, "  {line}");
        }
        for note in &trace.notes {
            let _ = writeln!(text, "  note: {note}");
        }
        for shadow in &self.shadow {
            let _ = writeln!(text, "  {} would have decided: {}", shadow.bundle, shadow.action);
        }
        if let Some(failure) = &trace.failure {
            let _ = writeln!(text, "  The script failed, and the failure policy applied: {failure}");
        }
        text
    }
}

fn told(path: &str, value: &Value) -> String {
    match value {
        Value::Null => format!("{path} is not known"),
        Value::String(text) => format!("{path} is {text}"),
        other => format!("{path} is {other}"),
    }
}
