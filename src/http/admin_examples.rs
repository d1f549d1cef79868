//! Examples of administration for the document, by operation id.

use serde_json::{Value, json};

use super::spec::EXAMPLE_TIME;

const ADMIN_KEY: &str = "csk_034xz6kz5xe7f8g9h0jkmnpqrs";
const SESSION: &str = "ses_034xz6kz7zg9h0jkmnpqrstvwx";
const USER: &str = "usr_034xz6kz0yfp8g3v5t1c9qk7re";

/// The body of a request.
pub(super) fn request(operation: &str) -> Option<Value> {
    Some(match operation {
        "createAdminKey" => json!({"role": "editor", "note": "support desk", "expires_in": 7_776_000}),
        "rotateSigningKey" => json!({"how": "soon"}),
        "setUserStatus" => json!({"status": "disabled", "end_sessions": true}),
        "createTenant" => {
            json!({"id": "acme", "hosts": ["id.acme.example"], "session_idle": "7d", "max_sessions": 10})
        }
        "updateTenant" => json!({"hosts": ["id.acme.example", "login.acme.example"], "session_ttl": "90d"}),
        "createProvider" => json!({"name": "google", "settings": settings()}),
        "updateProvider" => settings(),
        "importDiscovery" => json!({"issuer": "https://login.example.com"}),
        "createClient" => json!({"client_id": "shop", "settings": client_settings()}),
        "updateClient" => client_settings(),
        "renewClientSecret" => json!({"keep_previous": true}),
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
        "listSigningKeys" => ("keys", "One key", json!({"items": [signing_key("active")]})),
        "rotateSigningKey" => ("next", "The key that will sign", signing_key("next")),
        "listUsers" => ("users", "One user", json!({"items": [user()]})),
        "getUser" | "setUserStatus" => ("user", "The user", user()),
        "listUserIdentities" => ("identities", "One identity", json!({"identities": [identity()]})),
        "listUserSessions" => ("sessions", "One session", json!({"sessions": [session()]})),
        "listSessions" => ("sessions", "One session", json!({"items": [session()]})),
        "listUserFactors" => ("factors", "One authenticator app", json!({"factors": [factor()]})),
        "endUserSessions" => message("2 sessions have ended"),
        "endSession" => message("the session has ended"),
        "resetUserMfa" => message("1 factors are removed"),
        "eraseUser" => message("the user is erased"),
        "exportUser" => {
            let value = json!({
                "user": user(),
                "identities": [identity()],
                "factors": [factor()],
                "sessions": [session()],
                "sign_ins": [sign_in()],
                "records": {"passwords": [{"changed_at": EXAMPLE_TIME, "must_change": false}]},
            });
            ("export", "Everything of one user", value)
        }
        "listSignIns" => ("sign_ins", "One sign-in", json!({"items": [sign_in()]})),
        "getSignIn" => ("sign_in", "The sign-in", sign_in()),
        "getProviderStats" => {
            let outcomes =
                [json!({"outcome": "signed_in", "count": 40}), json!({"outcome": "challenged", "count": 2})];
            let value = json!({"counted_from_at": EXAMPLE_TIME, "total": 42, "outcomes": outcomes});
            ("stats", "A day", value)
        }
        "listTenants" => ("tenants", "Two tenants", json!({"items": [tenant(), file_tenant()]})),
        "getTenant" | "createTenant" | "updateTenant" => ("tenant", "The tenant", tenant()),
        "deleteTenant" => message("the tenant is removed"),
        "listProviders" => ("providers", "One provider", json!({"items": [provider(true)]})),
        "getProvider" | "createProvider" | "updateProvider" | "enableProvider" => {
            ("provider", "The provider", provider(true))
        }
        "disableProvider" => ("disabled", "The provider, disabled", provider(false)),
        "deleteProvider" => message("the provider is removed"),
        "auditProvider" => (
            "withstood",
            "No attack went through",
            json!({"passed": true, "withstood": 2, "succeeded": 0, "attacks": [
                {"name": "aud of another application", "outcome": "withstood", "seen": "id_token_audience_mismatch"},
                {"name": "alg none", "outcome": "withstood", "seen": "id_token_algorithm_not_allowed"},
            ]}),
        ),
        "testProvider" => ("fine", "Its keys could be had", json!({"ok": true, "usable_keys": 2})),
        "importDiscovery" => {
            let settings = json!({
                "enabled": false,
                "issuer": "https://login.example.com",
                "client_ids": [],
                "algorithms": ["RS256"],
            });
            let notes = ["set client_ids to your application's client ids at the provider, then enable it"];
            let value = json!({"name": "login-example-com", "settings": settings, "notes": notes});
            ("proposal", "A provider to look over", value)
        }
        "listPlugins" => {
            let plugin = json!({
                "id": "countersign.ip_list", "version": "0.1.0", "vendor": "Countersign", "sha256": "0".repeat(64),
                "hooks": ["signal.signals"], "isolation": "process", "process_deaths": 0, "in_flight": 1, "stuck": 0
            });
            ("plugins", "One plugin", json!({"items": [plugin]}))
        }
        "revokeAdminKey" => message("the admin key is revoked"),
        "listClients" => ("clients", "One client", json!({"items": [client(1)]})),
        "getClient" | "updateClient" | "endPreviousClientSecret" => ("client", "The client", client(1)),
        "createClient" => ("client", "The client with its secret, shown this once", new_client(1)),
        "renewClientSecret" => ("client", "The client with its new secret, shown this once", new_client(2)),
        "deleteClient" => message("the client is removed"),
        other => return super::policy_examples::success(other),
    })
}

fn signing_key(state: &str) -> Value {
    json!({
        "id": "key_034xz6kz8xe7f8g9h0jkmnpqrs",
        "state": state,
        "algorithm": "EdDSA",
        "created_at": EXAMPLE_TIME,
        "active_from": EXAMPLE_TIME,
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

fn tenant() -> Value {
    json!({
        "id": "acme",
        "hosts": ["id.acme.example"],
        "session_idle": "7d",
        "max_sessions": 10,
        "managed_by": "api",
        "created_at": EXAMPLE_TIME,
        "updated_at": EXAMPLE_TIME,
    })
}

fn file_tenant() -> Value {
    json!({"id": "default", "hosts": [], "managed_by": "config"})
}

fn settings() -> Value {
    json!({
        "preset": "google",
        "client_ids": ["1234-web.apps.googleusercontent.com"],
        "nonce": "required",
        "email_trust": ["example.com"],
    })
}

fn provider(enabled: bool) -> Value {
    let mut settings = settings();
    settings["enabled"] = enabled.into();
    json!({
        "tenant": "acme",
        "name": "google",
        "managed_by": "api",
        "enabled": enabled,
        "switched_off": false,
        "settings": settings,
        "problems": [],
        "created_at": EXAMPLE_TIME,
        "updated_at": EXAMPLE_TIME,
    })
}

fn client_settings() -> Value {
    json!({"kind": "web", "providers": ["google"], "audiences": ["https://api.shop.example"]})
}

fn client(secrets: u32) -> Value {
    json!({
        "tenant": "acme",
        "client_id": "shop",
        "managed_by": "api",
        "settings": client_settings(),
        "secrets": secrets,
        "problems": [],
        "created_at": EXAMPLE_TIME,
        "updated_at": EXAMPLE_TIME,
    })
}

fn new_client(secrets: u32) -> Value {
    json!({"client": client(secrets), "client_secret": "c2VjcmV0LWhhbGYtb2YtdGhlLWFkbWluLWtleS0tLS0"})
}

fn user() -> Value {
    json!({
        "id": USER,
        "tenant": "default",
        "status": "active",
        "email": "ada@example.com",
        "email_verified": true,
        "username": "ada",
        "name": "Ada",
        "phone_verified": false,
        "groups": ["staff"],
        "attributes": {},
        "created_at": EXAMPLE_TIME,
    })
}

fn identity() -> Value {
    json!({
        "provider": "google",
        "issuer": "https://accounts.google.com",
        "subject": "110169484474386276334",
        "created_at": EXAMPLE_TIME,
    })
}

fn factor() -> Value {
    json!({"id": "fac_034xz6kz3cd5e6f7g8h9jkmnpq", "mfa_method": "totp", "enrolled_at": EXAMPLE_TIME})
}

fn session() -> Value {
    json!({
        "id": SESSION,
        "user_id": USER,
        "provider": "google",
        "client_id": "1234-web.apps.googleusercontent.com",
        "risk_level": "low",
        "amr": ["pwd"],
        "authenticated_at": EXAMPLE_TIME,
        "created_at": EXAMPLE_TIME,
    })
}

fn sign_in() -> Value {
    json!({
        "id": "evt_034xz6kz6yf8g9h0jkmnpqrstv",
        "at": EXAMPLE_TIME,
        "tenant": "default",
        "provider": "google",
        "user_id": USER,
        "outcome": "signed_in",
        "score": 15,
        "risk_level": "low",
        "reasons": [{"reason": "new_device", "points": 15}],
        "policy": "default",
        "country": "SE",
        "asn": 1257,
        "session_id": SESSION,
    })
}
