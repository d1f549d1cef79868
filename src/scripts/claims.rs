//! `s.claims`: verified claims, converted when they are read.

use std::sync::Arc;

use rhai::{Dynamic, EvalAltResult, NativeCallContext, Position};
use serde_json::{Map, Value};

use super::calls::Calls;
use super::engine::{TEXT_BYTES, refuse};
use super::facts::Seen;

/// The claims of one token.
#[derive(Clone)]
pub(super) struct Claims {
    claims: Arc<Map<String, Value>>,
    seen: Option<Arc<Seen>>,
}

impl Claims {
    /// These claims, and who notes what is read of them.
    pub fn of(claims: &Arc<Map<String, Value>>, seen: Option<&Arc<Seen>>) -> Self {
        Self { claims: Arc::clone(claims), seen: seen.cloned() }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.note(name);
        self.claims.get(name)
    }

    fn note(&self, name: &str) {
        if let Some(seen) = &self.seen {
            seen.note_named("claims", name);
        }
    }
}

type Answer = Result<Dynamic, Box<EvalAltResult>>;

/// A JSON value as scripts hold it. `null` is `()`; a number beyond 64 bits is a float.
pub(super) fn to_dynamic(value: &Value, position: Position) -> Answer {
    Ok(match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(b) => (*b).into(),
        Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => i.into(),
            (None, Some(f)) => f.into(),
            (None, None) => Dynamic::UNIT,
        },
        Value::String(text) if text.len() > TEXT_BYTES => {
            return refuse(position, format!("the claim is longer than {TEXT_BYTES} bytes"));
        }
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => {
            let items: Result<rhai::Array, _> = items.iter().map(|i| to_dynamic(i, position)).collect();
            items?.into()
        }
        Value::Object(members) => {
            let mut map = rhai::Map::new();
            for (key, member) in members {
                map.insert(key.as_str().into(), to_dynamic(member, position)?);
            }
            map.into()
        }
    })
}

/// True for `true`, `"true"`, `1` and `"1"`; false for their opposites; some providers send texts.
fn to_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::String(text) => match text.as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        Value::Number(n) => match n.as_i64() {
            Some(1) => Some(true),
            Some(0) => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// `a.b`: at each level the longest key that fits wins, since a key may hold dots itself.
fn find_path<'a>(object: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = object.get(path) {
        return Some(value);
    }
    path.rmatch_indices('.').find_map(|(at, _)| {
        let inner = object.get(&path[..at])?.as_object()?;
        find_path(inner, &path[at + 1..])
    })
}

pub(super) fn register(calls: &mut Calls<'_>) {
    calls
        .of::<Claims>("claims")
        .call(
            "claims.has(name: String) -> bool",
            "Whether the claim is there.",
            |claims: &mut Claims, name: &str| claims.get(name).is_some(),
        )
        .call(
            "claims.str(name: String) -> ?",
            "The claim as a text, or ().",
            |context: NativeCallContext, claims: &mut Claims, name: &str| -> Answer {
                match claims.get(name) {
                    Some(text @ Value::String(_)) => to_dynamic(text, context.call_position()),
                    _ => Ok(Dynamic::UNIT),
                }
            },
        )
        .call(
            "claims.bool(name: String) -> ?",
            "The claim as true or false, also from \"true\", \"1\" and 1, or ().",
            |claims: &mut Claims, name: &str| -> Dynamic {
                claims.get(name).and_then(to_bool).map_or(Dynamic::UNIT, Into::into)
            },
        )
        .call(
            "claims.int(name: String) -> ?",
            "The claim as a whole number, or ().",
            |claims: &mut Claims, name: &str| -> Dynamic {
                claims.get(name).and_then(Value::as_i64).map_or(Dynamic::UNIT, Into::into)
            },
        )
        .call(
            "claims.list(name: String) -> ?",
            "The claim as a list, also from one text, or ().",
            |context: NativeCallContext, claims: &mut Claims, name: &str| -> Answer {
                match claims.get(name) {
                    Some(list @ Value::Array(_)) => to_dynamic(list, context.call_position()),
                    Some(one @ Value::String(_)) => {
                        Ok(Dynamic::from_array(vec![to_dynamic(one, context.call_position())?]))
                    }
                    _ => Ok(Dynamic::UNIT),
                }
            },
        )
        .call(
            "claims.raw(name: String) -> ?",
            "The claim as it is, or ().",
            |context: NativeCallContext, claims: &mut Claims, name: &str| -> Answer {
                claims.get(name).map_or(Ok(Dynamic::UNIT), |value| to_dynamic(value, context.call_position()))
            },
        )
        .call(
            "claims.path(path: String) -> ?",
            "A claim inside of claims, as in \"a.b\", or ().",
            |context: NativeCallContext, claims: &mut Claims, path: &str| -> Answer {
                claims.note(path);
                find_path(&claims.claims, path)
                    .map_or(Ok(Dynamic::UNIT), |value| to_dynamic(value, context.call_position()))
            },
        );
}
