//! `risk`: what a rule may ask for. Every call is checked; a wrong one is an error, never passed over.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rhai::{Array, Dynamic, EvalAltResult, NativeCallContext, Position};
use serde_json::{Map, Value};

use super::calls::Calls;
use super::engine::refuse;
use super::facts::Seen;
use crate::mfa::{MfaMethod, Strength};
use crate::signin::rules::{Effect, Level, RuleOutput, Step};

/// The most effects of one run.
const STEPS: usize = 64;
/// The most notes and tags of one run.
const NOTES: usize = 20;
/// The longest note, in bytes.
const NOTE_BYTES: usize = 256;
/// Ten years: a longer cap is a mistake.
const LONGEST_S: i64 = 315_360_000;

/// The builder of one run. The lock is never contended: it only lets the script's copy and ours be one.
#[derive(Clone)]
pub(super) struct Risk {
    output: Arc<Mutex<RuleOutput>>,
    reasons: Arc<HashSet<String>>,
    seen: Arc<Seen>,
}

type Done = Result<(), Box<EvalAltResult>>;

/// Whether a text can be a reason.
pub(super) fn is_code(text: &str) -> bool {
    (1..=48).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

impl Risk {
    pub fn new(reasons: Arc<HashSet<String>>, seen: Arc<Seen>) -> Self {
        Self { output: Arc::default(), reasons, seen }
    }

    /// What the run asked for.
    pub fn take(&self) -> RuleOutput {
        std::mem::take(&mut *self.output())
    }

    fn output(&self) -> MutexGuard<'_, RuleOutput> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, at: Position, code: &str, effect: Effect, detail: Option<Map<String, Value>>) -> Done {
        if !is_code(code) {
            return refuse(at, "a reason is 1 to 48 characters of a-z, 0-9 and _");
        }
        if !self.reasons.contains(code) {
            return refuse(at, format!("the reason \"{code}\" does not stand in reasons.toml"));
        }
        let mut output = self.output();
        if output.steps.len() >= STEPS {
            return refuse(at, format!("a run may ask for at most {STEPS} things"));
        }
        output.steps.push(Step { code: code.into(), effect, line: at.line(), detail, because: self.seen.take() });
        Ok(())
    }
}

fn seconds(at: Position, seconds: i64) -> Result<Duration, Box<EvalAltResult>> {
    if !(1..=LONGEST_S).contains(&seconds) {
        return refuse(at, format!("seconds are 1 to {LONGEST_S}"));
    }
    Ok(Duration::from_secs(seconds.unsigned_abs()))
}

fn points(at: Position, points: i64) -> Result<Effect, Box<EvalAltResult>> {
    if (-100..=100).contains(&points) { Ok(Effect::Add(points)) } else { refuse(at, "points are -100 to 100") }
}

/// Only plain values are kept of a detail.
fn detail(at: Position, map: &rhai::Map) -> Result<Map<String, Value>, Box<EvalAltResult>> {
    if map.len() > 8 {
        return refuse(at, "a detail has at most 8 members");
    }
    let mut kept = Map::new();
    for (key, value) in map {
        let value = match value {
            v if v.is_unit() => Value::Null,
            v if v.is_bool() => v.as_bool().unwrap_or_default().into(),
            v if v.is_int() => v.as_int().unwrap_or_default().into(),
            v if v.is_float() => v.as_float().unwrap_or_default().into(),
            v if v.is_string() => {
                v.clone().into_string().unwrap_or_default().chars().take(64).collect::<String>().into()
            }
            _ => return refuse(at, "a detail holds numbers, texts, true, false and ()"),
        };
        kept.insert(key.to_string(), value);
    }
    Ok(kept)
}

fn methods(at: Position, list: Array) -> Result<Vec<MfaMethod>, Box<EvalAltResult>> {
    let found: Option<Vec<MfaMethod>> =
        list.into_iter().map(|word: Dynamic| MfaMethod::find(&word.into_immutable_string().ok()?)).collect();
    match found {
        Some(found) if !found.is_empty() => Ok(found),
        _ => refuse(at, format!("methods are a list of {}", MfaMethod::expected())),
    }
}

pub(super) fn register(calls: &mut Calls<'_>) {
    calls
        .of::<Risk>("risk")
        .call(
            "risk.add(points: int, code: String)",
            "Adds -100 to 100 points. Several hits of one code count once, the largest.",
            |c: NativeCallContext, r: &mut Risk, p: i64, code: &str| -> Done {
                let at = c.call_position();
                r.push(at, code, points(at, p)?, None)
            },
        )
        .call(
            "risk.add(points: int, code: String, detail: Map)",
            "The same, with up to 8 plain values for the trace.",
            |c: NativeCallContext, r: &mut Risk, p: i64, code: &str, d: rhai::Map| -> Done {
                let at = c.call_position();
                r.push(at, code, points(at, p)?, Some(detail(at, &d)?))
            },
        )
        .call(
            "risk.at_least(level: String, code: String)",
            "The level is not under this one: low, medium or high.",
            |c: NativeCallContext, r: &mut Risk, level: &str, code: &str| -> Done {
                match Level::find(level) {
                    Some(level) => r.push(c.call_position(), code, Effect::AtLeast(level), None),
                    None => refuse(c.call_position(), "a level is low, medium or high"),
                }
            },
        )
        .call(
            "risk.require_mfa(code: String)",
            "A second factor is asked for.",
            |c: NativeCallContext, r: &mut Risk, code: &str| -> Done {
                r.push(c.call_position(), code, Effect::RequireMfa(None), None)
            },
        )
        .call(
            "risk.require_mfa(code: String, methods: Array)",
            "A second factor of one of these methods is asked for.",
            |c: NativeCallContext, r: &mut Risk, code: &str, list: Array| -> Done {
                let at = c.call_position();
                r.push(at, code, Effect::RequireMfa(Some(methods(at, list)?)), None)
            },
        )
        .call(
            "risk.require_strength(strength: String, code: String)",
            "A factor of this strength is asked for: strong or phishing_resistant.",
            |c: NativeCallContext, r: &mut Risk, word: &str, code: &str| -> Done {
                match Strength::find(word) {
                    Some(Strength::Weak) | None => {
                        refuse(c.call_position(), "a strength is strong or phishing_resistant")
                    }
                    Some(strength) => r.push(c.call_position(), code, Effect::RequireStrength(strength), None),
                }
            },
        )
        .call(
            "risk.upstream_step_up(code: String, max_age_s: int)",
            "The provider must have asked the user within so many seconds.",
            |c: NativeCallContext, r: &mut Risk, code: &str, max_age_s: i64| -> Done {
                let at = c.call_position();
                if !(0..=LONGEST_S).contains(&max_age_s) {
                    return refuse(at, format!("max_age_s is 0 to {LONGEST_S}"));
                }
                r.push(at, code, Effect::UpstreamStepUp { max_age_s }, None)
            },
        )
        .call(
            "risk.deny(code: String)",
            "The sign-in is refused.",
            |c: NativeCallContext, r: &mut Risk, code: &str| -> Done {
                r.push(c.call_position(), code, Effect::Deny, None)
            },
        )
        .call(
            "risk.review(code: String)",
            "The sign-in is marked for a look by a person.",
            |c: NativeCallContext, r: &mut Risk, code: &str| -> Done {
                r.push(c.call_position(), code, Effect::Review, None)
            },
        )
        .call(
            "risk.notify_user(code: String)",
            "The user is told of the sign-in.",
            |c: NativeCallContext, r: &mut Risk, code: &str| -> Done {
                r.push(c.call_position(), code, Effect::NotifyUser, None)
            },
        )
        .call(
            "risk.cap_session(seconds: int, code: String)",
            "The session ends after so many seconds at the latest.",
            |c: NativeCallContext, r: &mut Risk, s: i64, code: &str| -> Done {
                let at = c.call_position();
                r.push(at, code, Effect::CapSession(seconds(at, s)?), None)
            },
        )
        .call(
            "risk.cap_refresh(seconds: int, code: String)",
            "Refresh tokens end after so many seconds at the latest.",
            |c: NativeCallContext, r: &mut Risk, s: i64, code: &str| -> Done {
                let at = c.call_position();
                r.push(at, code, Effect::CapRefresh(seconds(at, s)?), None)
            },
        )
        .call(
            "risk.no_refresh(code: String)",
            "There is no refresh token.",
            |c: NativeCallContext, r: &mut Risk, code: &str| -> Done {
                r.push(c.call_position(), code, Effect::NoRefresh, None)
            },
        )
        .call(
            "risk.tag(name: String)",
            "Marks the record; a name is like a reason. At most 20.",
            |c: NativeCallContext, r: &mut Risk, name: &str| -> Done {
                let mut output = r.output();
                if !is_code(name) || output.tags.len() >= NOTES {
                    return refuse(
                        c.call_position(),
                        format!("a tag is like a reason, and there are at most {NOTES}"),
                    );
                }
                output.tags.push(name.into());
                Ok(())
            },
        )
        .call(
            "risk.note(text: String)",
            "Stands in the trace alone. At most 20 of 256 bytes.",
            |c: NativeCallContext, r: &mut Risk, text: &str| -> Done {
                let mut output = r.output();
                if text.len() > NOTE_BYTES || output.notes.len() >= NOTES {
                    let most = format!("a note has at most {NOTE_BYTES} bytes, and there are at most {NOTES}");
                    return refuse(c.call_position(), most);
                }
                output.notes.push(text.to_owned());
                Ok(())
            },
        );
}
