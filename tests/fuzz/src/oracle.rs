//! What should be accepted, written a second time and by other means than the product's.

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};

/// An object of at most 32 levels below it in which no member is named twice, and nothing after it.
///
/// serde_json keeps the last of two members with one name; so a text in which more colons stand outside of
/// strings than the value has members names one twice.
pub fn strict_object(bytes: &[u8]) -> Option<Map<String, Value>> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    if colons(bytes) != members(&value) || depth(&value) > 32 {
        return None;
    }
    match value {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

fn colons(bytes: &[u8]) -> usize {
    let (mut count, mut inside, mut escaped) = (0, false, false);
    for &b in bytes {
        match (inside, escaped, b) {
            (true, true, _) => escaped = false,
            (true, false, b'\\') => escaped = true,
            (_, _, b'"') => inside = !inside,
            (false, _, b':') => count += 1,
            _ => {}
        }
    }
    count
}

fn members(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(members).sum(),
        Value::Object(map) => map.len() + map.values().map(members).sum::<usize>(),
        _ => 0,
    }
}

fn depth(value: &Value) -> usize {
    let below = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(map) => map.values().map(depth).max(),
        _ => None,
    };
    below.map_or(0, |d| d + 1)
}

/// The bytes of base64url without padding, if the text is the one way to write them.
pub fn base64url(text: &str) -> Option<Vec<u8>> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    (BASE64URL_NOPAD.encode(&bytes) == text).then_some(bytes)
}

/// A refusal as a client may see it: short, one line, and never the refused thing itself. Shorter inputs are
/// left out: a run finds our own words, sends them, and meets them in the refusal.
pub fn check_message(message: &str, input: &str) {
    assert!(message.chars().count() <= 400, "{} bytes of message", message.len());
    assert!(!message.chars().any(char::is_control), "a control character in {message:?}");
    assert!(input.len() < 160 || !message.contains(input), "the input stands in the message");
}
