//! Examples of what belongs to a person, for the document, by operation id.

use serde_json::{Value, json};

use super::spec::{EXAMPLE_TIME, JWT, USER};

/// The body of a request.
pub(super) fn request(operation: &str) -> Option<Value> {
    Some(match operation {
        "linkMyIdentity" => json!({"id_token": JWT, "provider": "apple"}),
        "changeMyPassword" => {
            json!({"old_password": "correct horse battery", "new_password": "staple of another kind"})
        }
        "trustMyDevice" => json!({"device_id": "1f0c6a52-ios"}),
        "createInvitation" => json!({"email": "ada@example.com", "note": "asked for by her team"}),
        "setUserPassword" => json!({"password": "a first password", "must_change": true}),
        "migrateUserIdentity" => {
            json!({"provider": "apple", "old_subject": "001234.5f6e", "new_subject": "001999.77aa"})
        }
        _ => return None,
    })
}

/// Success: name, summary, value.
pub(super) fn success(operation: &str) -> Option<(&'static str, &'static str, Value)> {
    Some(match operation {
        "listMyIdentities" => ("identities", "One identity", json!({"identities": [identity()]})),
        "linkMyIdentity" => ("linked", "The linked identity", identity()),
        "unlinkMyIdentity" => message("the identity is unlinked"),
        "changeMyPassword" => message("the password is changed"),
        "listMyDevices" => {
            let device = json!({
                "id": "dev_034xz6kz5yf7g8h9jkmnpqrstv",
                "first_seen_at": EXAMPLE_TIME,
                "last_seen_at": EXAMPLE_TIME,
                "country": "SE",
                "current": true,
            });
            ("devices", "One device", json!({"devices": [device]}))
        }
        "trustMyDevice" => {
            let trust = json!({
                "device_secret": "c2VjcmV0LW9mLXRoZS10cnVzdGVkLWRldmljZS0tLS0",
                "expires_at": "2026-02-14T10:30:00Z",
            });
            ("trusted", "The device is trusted", trust)
        }
        "endMyDeviceTrust" => message("the device is no longer trusted"),
        "forgetMyDevice" => message("the device is forgotten"),
        "listInvitations" => ("invitations", "One invitation", json!({"items": [invitation()]})),
        "createInvitation" => ("invitation", "The open invitation", invitation()),
        "revokeInvitation" => message("the invitation is taken back"),
        "setUserPassword" => message("the password is set"),
        "removeUserPassword" => message("the password is removed"),
        "migrateUserIdentity" => message("the identity has its new subject"),
        _ => return None,
    })
}

fn identity() -> Value {
    json!({
        "id": "idn_034xz6kz5ef7g8h9jkmnpqrstv",
        "provider": "apple",
        "issuer": "https://appleid.apple.com",
        "subject": "001234.5f6e7d8c9b0a",
        "linked_at": EXAMPLE_TIME,
    })
}

fn invitation() -> Value {
    json!({
        "id": "inv_034xz6kz6ef7g8h9jkmnpqrstv",
        "user_id": USER,
        "state": "open",
        "email": "ada@example.com",
        "note": "asked for by her team",
        "created_at": EXAMPLE_TIME,
        "expires_at": "2026-01-29T10:30:00Z",
    })
}

fn message(text: &str) -> (&'static str, &'static str, Value) {
    ("done", "Done", json!({"code": 0, "message": text, "timestamp": EXAMPLE_TIME}))
}
