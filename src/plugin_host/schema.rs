//! The published schemas of what operations answer (`plugins/schemas`), and whether an answer fits.
//!
//! The keywords of JSON Schema 2020-12 that these schemas use, and no other one: a test holds the schemas to that. A
//! library for all of it would bring more code into the server than the rest of this room has.

use serde_json::Value;

use super::hook::Hook;

const fn text_of(hook: Hook) -> &'static str {
    match hook {
        Hook::LocateKeys => include_str!("../../plugins/schemas/provider.locate_keys.out.json"),
        Hook::Verify => include_str!("../../plugins/schemas/provider.verify.out.json"),
        Hook::Enrich => include_str!("../../plugins/schemas/provider.enrich.out.json"),
        Hook::Signals => include_str!("../../plugins/schemas/signal.signals.out.json"),
        Hook::MfaBegin => include_str!("../../plugins/schemas/mfa.begin.out.json"),
        Hook::MfaVerify => include_str!("../../plugins/schemas/mfa.verify.out.json"),
        Hook::Observe => include_str!("../../plugins/schemas/event.observe.out.json"),
    }
}

/// Where an answer does not fit the schema of its operation: JSON pointers (RFC 6901), each with what is wrong there.
pub(super) fn answer_faults(hook: Hook, answer: &Value) -> Vec<String> {
    match serde_json::from_str(text_of(hook)) {
        Ok(schema) => faults(&schema, answer),
        Err(error) => vec![format!("the schema of {} cannot be read: {error}", hook.name())],
    }
}

/// Where a value does not fit a schema. What was there is not repeated: it may be a secret.
pub(super) fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    look(schema, value, "", &mut found);
    found
}

fn look(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().into_iter().flatten() {
        let wrong = match keyword.as_str() {
            "type" => wrong_type(rule, value),
            "enum" => (!contains(rule, value)).then(|| format!("is none of {rule}")),
            "required" => missing(rule, value),
            "anyOf" => {
                let mut choices = rule.as_array().into_iter().flatten();
                let fits = choices.any(|choice| faults(choice, value).is_empty());
                (!fits).then(|| "fits none of the forms that it may have".to_owned())
            }
            "minimum" => value
                .as_f64()
                .filter(|n| rule.as_f64().is_some_and(|r| *n < r))
                .map(|_| format!("is less than {rule}")),
            "maximum" => value
                .as_f64()
                .filter(|n| rule.as_f64().is_some_and(|r| *n > r))
                .map(|_| format!("is more than {rule}")),
            "maxLength" => {
                let length = value.as_str().map(|text| text.chars().count() as u64);
                length
                    .filter(|n| rule.as_u64().is_some_and(|r| *n > r))
                    .map(|_| format!("has more than {rule} characters"))
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    look(rule, item, &format!("{at}/{n}"), found);
                }
                None
            }
            "properties" => {
                for (name, rule) in rule.as_object().into_iter().flatten() {
                    if let Some(member) = value.get(name) {
                        look(rule, member, &below(at, name), found);
                    }
                }
                None
            }
            "additionalProperties" => {
                let named = |name: &str| schema["properties"].get(name).is_some();
                for (name, member) in value.as_object().into_iter().flatten().filter(|(name, _)| !named(name)) {
                    look(rule, member, &below(at, name), found);
                }
                None
            }
            _ => None,
        };
        let shown = if at.is_empty() { "the answer" } else { at };
        found.extend(wrong.map(|wrong| format!("{shown}: {wrong}")));
    }
}

/// A JSON pointer to a member.
fn below(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn contains(list: &Value, value: &Value) -> bool {
    list.as_array().is_some_and(|list| list.contains(value))
}

fn wrong_type(rule: &Value, value: &Value) -> Option<String> {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is = |wanted: &Value| wanted == kind || (wanted == "number" && kind == "integer");
    let fits = rule.as_array().map_or_else(|| is(rule), |any| any.iter().any(is));
    (!fits).then(|| format!("is {kind}, and should be {rule}"))
}

fn missing(rule: &Value, value: &Value) -> Option<String> {
    let members = value.as_object()?;
    let mut needed = rule.as_array().into_iter().flatten().filter_map(Value::as_str);
    let absent = needed.find(|name| !members.contains_key(*name))?;
    Some(format!("lacks the member \"{absent}\""))
}

/// Keywords of a schema that [`faults`] passes over although they demand something.
#[cfg(test)]
pub(super) fn unknown_keywords(schema: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for (keyword, rule) in schema.as_object().into_iter().flatten() {
        match keyword.as_str() {
            "$schema" | "title" | "description" | "type" | "enum" | "required" | "minimum" | "maximum"
            | "maxLength" => {}
            "anyOf" => unknown.extend(rule.as_array().into_iter().flatten().flat_map(unknown_keywords)),
            "items" | "additionalProperties" => unknown.extend(unknown_keywords(rule)),
            "properties" => {
                unknown.extend(rule.as_object().into_iter().flatten().flat_map(|(_, one)| unknown_keywords(one)))
            }
            other => unknown.push(other.to_owned()),
        }
    }
    unknown
}
