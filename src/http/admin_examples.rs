//! Examples of administration for the document, by operation id.

use serde_json::{Value, json};

use super::spec::EXAMPLE_TIME;

const ADMIN_KEY: &str = "csk_034xz6kz5xe7f8g9h0jkmnpqrs";
const USER: &str = "usr_034xz6kz0yfp8g3v5t1c9qk7re";

/// The body of a request.
pub(super) fn request(operation: &str) -> Option<Value> {
    Some(match operation {
        "createAdminKey" => json!({"role": "editor", "note": "support desk", "expires_in": 7_776_000}),
        other => return super::policy_examples::request(other),
    })
}

/// Success: name, summary, value.
pub(super) fn success(operation: &str) -> Option<(&'static str, &'static str, Value)> {
    Some(match operation {
        "listAudit" => {
            let record = json!({
                "id": "evt_034xz6kz6yf8g9h0jkmnpqrstv",
                "at": EXAMPLE_TIME,
                "tenant": "default",
                "actor": ADMIN_KEY,
                "action": "user.status",
                "target": USER,
                "difference": {"status": {"before": "active", "after": "disabled"}},
                "request_id": "req_034xz6kz2ab3c4d5e6f7g8h9jk",
            });
            ("records", "One change", json!({"items": [record]}))
        }
        "listAdminKeys" => ("keys", "One key", json!({"items": [admin_key()]})),
        "createAdminKey" => {
            let key = format!("{ADMIN_KEY}.c2VjcmV0LWhhbGYtb2YtdGhlLWFkbWluLWtleS0tLS0");
            ("key", "The key, shown this once", json!({"key": key, "info": admin_key()}))
        }
        "listPlugins" => {
            let plugin = json!({
                "id": "countersign.ip_list", "version": "0.1.0", "vendor": "Countersign", "sha256": "0".repeat(64),
                "hooks": ["signal.signals"], "isolation": "process", "process_deaths": 0, "in_flight": 1, "stuck": 0
            });
            ("plugins", "One plugin", json!({"items": [plugin]}))
        }
        "revokeAdminKey" => message("the admin key is revoked"),
        other => return super::policy_examples::success(other),
    })
}

fn admin_key() -> Value {
    json!({
        "id": ADMIN_KEY,
        "role": "editor",
        "tenant": "default",
        "note": "support desk",
        "created_at": EXAMPLE_TIME,
        "expires_at": "2026-04-15T10:30:00Z",
    })
}

pub(super) fn message(text: &str) -> (&'static str, &'static str, Value) {
    ("done", "Done", json!({"code": 0, "message": text, "timestamp": EXAMPLE_TIME}))
}
