//! One ordinary input for each operation: for checks, benches and the benches of the host.

use serde_json::{Value, json};

use super::hook::Hook;

/// An input as the host makes it, with everything granted.
pub(super) fn input(hook: Hook) -> Value {
    let provider = json!({ "id": "google", "issuer": "https://issuer.example" });
    let user = json!({ "id": "usr_034xz6kz0yfp8g3v5t1c9qk7re", "locale": "en" });
    let claims = json!({
        "iss": "https://issuer.example", "sub": "110169484474386276334", "aud": "app",
        "email": "ada@example.com", "email_verified": true
    });
    match hook {
        Hook::LocateKeys => {
            json!({ "tenant": "default", "provider": provider, "kid": "key-1", "alg": "RS256", "deadline_ms": 250 })
        }
        Hook::Verify => json!({
            "tenant": "default", "provider": provider, "client_ids": ["app"], "token": "e30.e30.c2ln",
            "time_unix_s": 1_767_225_600, "deadline_ms": 250
        }),
        Hook::Enrich => {
            json!({ "tenant": "default", "provider": provider, "claims": claims, "deadline_ms": 250 })
        }
        Hook::Signals => json!({
            "tenant": "default", "client_id": "app", "provider": provider, "claims": claims, "deadline_ms": 250,
            "request": {
                "time_unix_s": 1_767_225_600, "ip": "192.0.2.7", "ip_prefix": "192.0.2.0/24",
                "user_agent": "Mozilla/5.0", "device_id": "d-1"
            }
        }),
        Hook::MfaBegin => json!({
            "tenant": "default", "user": user, "method": "email", "destination": "ada@example.com",
            "delivery_id": "c2FtcGxl", "code": "000000", "expires_in_s": 300, "deadline_ms": 250
        }),
        Hook::MfaVerify => json!({
            "tenant": "default", "user": user, "method": "email", "delivery_id": "c2FtcGxl",
            "reference": null, "code": "000000", "deadline_ms": 250
        }),
        Hook::Observe => json!({
            "kind": "sign_in", "id": "evt_034xz6kz6yf8g9h0jkmnpqrstv", "time_unix_s": 1_767_225_600, "tenant": "default",
            "provider": "google", "user": "usr_034xz6kz0yfp8g3v5t1c9qk7re", "outcome": "signed_in", "code": null,
            "score": 10, "level": "low", "reasons": [{ "code": "new_device", "points": 10 }], "attempt": 1,
            "deadline_ms": 250
        }),
    }
}

/// The other input of `event.observe`.
pub(super) fn security_event() -> Value {
    let kind = "https://schemas.openid.net/secevent/risc/event-type/credential-compromise";
    json!({
        "kind": "security_event", "id": "24c63fb56e5a2d77a6b512616ca9fa24", "time_unix_s": 1_767_225_600,
        "tenant": "default", "provider": "google", "issuer": "https://issuer.example",
        "events": [{ "type": kind, "subject": "110169484474386276334", "details": { "credential_type": "password" } }],
        "deadline_ms": 250
    })
}
