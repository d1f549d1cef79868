//! The OpenAPI document: what poem-openapi generates, made exact.
//!
//! It emits OpenAPI 3.0.0, a key of 3.1, a parameter in the media type and an `allOf` that generators trip
//! over, header names in capitals, and no examples of answers. All of that is mended here.

use poem::http::HeaderValue;
use poem_openapi::types::ToJSON;
use serde_json::{Map, Value, json};

use super::dto::{LoginResponse, PasswordWarning, RiskAssessmentInfo, RiskLevel, UserInfo};
use super::oauth_examples;
use super::problem::row;
use super::{admin_examples, people_examples};
use crate::codes::ErrorCode;

/// The title of the document.
pub const TITLE: &str = "Countersign";

/// The text at its head.
pub const DESCRIPTION: &str = "An application hands Countersign an ID token that some OpenID provider issued. \
Countersign verifies it, maps its claims to a local user, assesses the risk of this very sign-in, and answers \
with local tokens, with an MFA challenge, or with a refusal that says why.\n\n\
Every refusal has the form `dto.Error`: `code` and `error` are stable, `message` is for people. Every answer \
carries `X-Request-Id`. Bodies are of at most 64 KiB (one with a policy bundle 1 MiB), `application/json` but for the OAuth endpoints, which take \
forms, and security events, which are tokens; a member named twice is refused, one that is not known is passed over. Every operation answers 400 \
`malformed_request` to a `Host` header that is absent, empty or there twice, and to `Forwarded` and `X-Forwarded-For` that tell of different clients. Times are RFC 3339 in UTC; durations are integers in seconds.";

/// The tags as the documentation page lists them: a client's way first.
const TAGS: [&str; 7] = ["Sign-in", "MFA", "Session", "OAuth", "Me", "Administration", "Operations"];
/// Members that hold a time; and whatever ends in `_at`.
const TIMES: [&str; 2] = ["at", "timestamp"];
const OAUTH_ERROR: &str = "#/components/schemas/dto.OAuthError";
const TENANT_HEADER: &str = "X-Tenant-ID";
const ADMIN_TENANT: &str = "The tenant. Absent: the admin key's own; for a key of all tenants the one of the host, else \
`default`. Another than the key's own: 403 `admin_scope_insufficient`.";

pub(super) const EXAMPLE_TIME: &str = "2026-01-15T10:30:00Z";
pub(super) const USER: &str = "usr_034xz6kz0yfp8g3v5t1c9qk7re";
pub(super) const CHALLENGE: &str = "chg_034xz6kz12qw9h4m6s2d8rj5tb.c2VjcmV0LWhhbGYtb2YtdGhlLWNoYWxsZW5nZS10b2s";
pub(super) const REFRESH: &str = "rft_034xz6kz1mzr7k5n3x8f4hq2vd.c2VjcmV0LWhhbGYtb2YtdGhlLXJlZnJlc2gtdG9rZW4";
pub(super) const JWT: &str =
    "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiJ1c3JfMDM0eHo2a3oweWZwOGczdjV0MWM5cWs3cmUifQ.c2lnbmF0dXJl";

/// The document of a generated one.
#[must_use]
pub fn document(generated: &str) -> Value {
    let mut document: Value = serde_json::from_str(generated).unwrap_or_default();
    if let Some(root) = document.as_object_mut() {
        root.remove("webhooks");
        root.insert("openapi".to_owned(), "3.0.3".into());
        root.insert("servers".to_owned(), json!([{"url": "/"}]));
    }
    if let Some(tags) = document.get_mut("tags").and_then(Value::as_array_mut) {
        let place = |tag: &Value| TAGS.iter().position(|name| tag["name"] == *name);
        tags.sort_by_key(|tag| place(tag).unwrap_or(TAGS.len()));
    }
    mend(&mut document);
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for (path, operations) in paths.into_iter().flatten() {
        for operation in operations_mut(operations) {
            complete(operation);
            if path.starts_with("/admin/") {
                describe_admin_tenant(operation);
            }
        }
    }
    document
}

fn operations_mut(path: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    path.as_object_mut().into_iter().flat_map(|p| p.values_mut()).filter_map(Value::as_object_mut)
}

/// Mends what the generator writes in every object of the document.
fn mend(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Object(content)) = map.get_mut("content") {
                rename_keys(content, |name| name.split(';').next().unwrap_or(name).trim().to_owned());
            }
            if let Some(Value::Object(headers)) = map.get_mut("headers") {
                rename_keys(headers, header_name);
            }
            if map.get("in").is_some_and(|place| place == "header")
                && let Some(Value::String(name)) = map.get_mut("name")
            {
                *name = header_name(name);
            }
            // The description stands beside `allOf` already; a member without a type is none to generators.
            if let Some(Value::Array(parts)) = map.get_mut("allOf") {
                parts.retain(|part| part.get("$ref").is_some());
            }
            if let Some(Value::Object(properties)) = map.get_mut("properties") {
                for (_, schema) in properties.iter_mut().filter(|(name, _)| is_time(name)) {
                    schema["format"] = "date-time".into();
                }
            }
            map.values_mut().for_each(mend);
        }
        Value::Array(items) => items.iter_mut().for_each(mend),
        _ => {}
    }
}

fn is_time(name: &str) -> bool {
    TIMES.contains(&name) || name.ends_with("_at")
}

fn rename_keys(map: &mut Map<String, Value>, rename: impl Fn(&str) -> String) {
    *map = std::mem::take(map).into_iter().map(|(name, value)| (rename(&name), value)).collect();
}

/// `X-REQUEST-ID` → `X-Request-Id`, and the tenant's as it is published.
fn header_name(name: &str) -> String {
    if name.eq_ignore_ascii_case(TENANT_HEADER) {
        return TENANT_HEADER.to_owned();
    }
    if name.eq_ignore_ascii_case("DPoP") {
        return "DPoP".to_owned();
    }
    let capital = |word: &str| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        format!("{}{}", first.to_ascii_uppercase(), rest.to_ascii_lowercase())
    };
    name.split('-').map(capital).collect::<Vec<_>>().join("-")
}

/// The tenant of an administrator's request is found in another way.
fn describe_admin_tenant(operation: &mut Map<String, Value>) {
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten().filter(|p| p["name"] == TENANT_HEADER) {
        parameter["description"] = ADMIN_TENANT.into();
    }
}

/// Adds examples of request and answers, and says of an open operation that it is one.
fn complete(operation: &mut Map<String, Value>) {
    operation.entry("security").or_insert_with(|| json!([]));
    let id = operation.get("operationId").and_then(Value::as_str).unwrap_or_default().to_owned();
    let content = operation.get_mut("requestBody").and_then(|b| b.get_mut("content")?.as_object_mut());
    for (content_type, media) in content.into_iter().flatten() {
        let example = match content_type.as_str() {
            super::body::JSON if id == "pushSecurityEvent" => Some(oauth_examples::apple_notice()),
            _ => request_example(&id),
        };
        if let Some(example) = example {
            media["example"] = example;
        }
    }
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for (status, response) in responses {
        let description = response.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(media) = response.pointer_mut("/content/application~1json") else { continue };
        let oauth = media.pointer("/schema/$ref").is_some_and(|schema| schema == OAUTH_ERROR);
        let mut examples =
            if status == "200" { success_examples(&id) } else { refusal_examples(&description, oauth) };
        if id == "signInWithIdToken" && status == "401" {
            examples.insert("in_test_mode".to_owned(), test_mode_example());
        }
        if !examples.is_empty() {
            media["examples"] = Value::Object(examples);
        }
    }
}

/// One example for each code that the description lists.
fn refusal_examples(description: &str, oauth: bool) -> Map<String, Value> {
    let listed = ErrorCode::ALL.iter().filter(|c| description.contains(&format!("- `{}` ", c.as_str())));
    listed
        .map(|code| {
            let row = row(*code);
            let mut value = json!({
                "code": row.number,
                "error": code.as_str(),
                "message": message_example(*code),
                "timestamp": EXAMPLE_TIME,
                "request_id": "req_034xz6kz2ab3c4d5e6f7g8h9jk",
            });
            if oauth {
                oauth_examples::complete(&mut value, *code);
            }
            (code.as_str().to_owned(), json!({"summary": row.meaning, "value": value}))
        })
        .collect()
}

/// The refusal of a provider with `test_mode`.
fn test_mode_example() -> Value {
    let check = |check: &str, status: &str, expected: &str, seen: &str| json!({"check": check, "status": status, "expected": expected, "seen": seen});
    let text = message_example(ErrorCode::IdTokenExpired);
    let mut expired = check("exp", "failed", "not passed, 60 s leeway", "312 s ago");
    expired["error"] = ErrorCode::IdTokenExpired.as_str().into();
    expired["message"] = text.into();
    let value = json!({
        "code": row(ErrorCode::IdTokenExpired).number,
        "error": ErrorCode::IdTokenExpired.as_str(),
        "message": text,
        "timestamp": EXAMPLE_TIME,
        "request_id": "req_034xz6kz2ab3c4d5e6f7g8h9jk",
        "checks": [
            check("signature", "passed", "valid for the provider's key", "RS256, kid 2026-01"),
            check("iss", "passed", "https://accounts.google.com", "https://accounts.google.com"),
            expired,
            check("replay", "skipped", "", "not looked at: an earlier check failed"),
        ],
    });
    json!({"summary": "A provider with `test_mode` lists all checks (shortened here)", "value": value})
}

fn message_example(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::IdTokenExpired => "the ID token expired 312 s ago",
        ErrorCode::IdTokenAudienceMismatch => "audience com.example.ios is not one of this provider's 2 client ids",
        ErrorCode::SignInDenied => "the sign-in is denied by policy (anonymizer_network)",
        ErrorCode::MfaLocked => "too many wrong codes; try again in 840 s",
        other => row(other).meaning,
    }
}

fn request_example(operation: &str) -> Option<Value> {
    Some(match operation {
        "signInWithIdToken" => json!({"id_token": JWT, "provider": "google", "device_id": "1f0c6a52-ios"}),
        "verifyMfaChallenge" => {
            json!({"challenge_token": CHALLENGE, "code": "492039", "mfa_method": "totp", "device_id": "1f0c6a52-ios"})
        }
        "sendMfaCode" => {
            json!({"challenge_token": CHALLENGE, "mfa_method": "email", "device_id": "1f0c6a52-ios"})
        }
        "refresh" | "logout" => json!({"refresh_token": REFRESH}),
        "confirmTotpEnrolment" => json!({"factor_id": "fac_034xz6kz3cd5e6f7g8h9jkmnpq", "code": "492039"}),
        other => {
            return people_examples::request(other)
                .or_else(|| oauth_examples::request(other))
                .or_else(|| admin_examples::request(other));
        }
    })
}

fn success_examples(operation: &str) -> Map<String, Value> {
    let one =
        |name: &str, summary: &str, value: Value| (name.to_owned(), json!({"summary": summary, "value": value}));
    let signed_in = |summary: &str| one("signed_in", summary, login_signed_in().to_json().unwrap_or_default());
    let message = |text: &str| json!({"code": 0, "message": text, "timestamp": EXAMPLE_TIME});
    let examples = match operation {
        "signInWithIdToken" => vec![
            signed_in("Signed in: local tokens"),
            one(
                "with_challenge",
                "A second factor is needed first",
                login_challenged().to_json().unwrap_or_default(),
            ),
        ],
        "verifyMfaChallenge" | "refresh" => vec![signed_in("Local tokens")],
        "sendMfaCode" => vec![one(
            "sent",
            "The code is on its way",
            json!({"mfa_method": "email", "destination": "a…@example.com", "expires_in": 290}),
        )],
        "issueNonce" => vec![one("nonce", "A nonce", json!({"nonce": "AAABm8…", "expires_in": 600}))],
        "logout" => vec![one("ended", "The session has ended", message("the session has ended"))],
        "confirmTotpEnrolment" => {
            vec![one("enrolled", "The factor is enrolled", message("the factor is enrolled"))]
        }
        "getMe" => {
            let mut value = message("success");
            value["data"] = user().to_json().unwrap_or_default();
            value["groups"] = json!(["staff"]);
            vec![one("user", "The signed-in user", value)]
        }
        "listMyFactors" => {
            let factor = json!({
                "id": "fac_034xz6kz3cd5e6f7g8h9jkmnpq",
                "mfa_method": "totp",
                "enrolled_at": EXAMPLE_TIME,
                "last_used_at": EXAMPLE_TIME,
            });
            vec![one("factors", "One authenticator app", json!({"factors": [factor]}))]
        }
        "renewBackupCodes" => {
            let code = |start: u32| format!("{start:04}-9w3k-7m2q");
            let codes: Vec<String> = (1200..1210).map(code).collect();
            vec![one("codes", "Ten codes, shown this once", json!({"codes": codes}))]
        }
        "beginTotpEnrolment" => {
            let value = json!({
                "factor_id": "fac_034xz6kz3cd5e6f7g8h9jkmnpq",
                "secret": "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP",
                "otpauth_uri": "otpauth://totp/Countersign:ada?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Countersign",
            });
            vec![one("secret", "A secret that waits for its first code", value)]
        }
        "healthLive" | "healthReady" => vec![one("ok", "Fine", json!({"status": "ok"}))],
        "getJwks" => {
            let key = json!({
                "kty": "OKP",
                "crv": "Ed25519",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                "kid": "key_034xz6kz4de6f7g8h9jkmnpqrs",
                "use": "sig",
                "alg": "EdDSA",
            });
            vec![one("keys", "One Ed25519 key", json!({"keys": [key]}))]
        }
        "listMySessions" => {
            let session = json!({
                "id": "ses_034xz6kz5ef7g8h9jkmnpqrstv",
                "current": true,
                "created_at": EXAMPLE_TIME,
                "refreshed_at": EXAMPLE_TIME,
                "idle_at": "2026-02-14T10:30:00Z",
                "provider": "google",
                "client_id": "1234-web.apps.googleusercontent.com",
                "amr": ["pwd"],
                "country": "SE",
            });
            vec![one("sessions", "One session", json!({"sessions": [session]}))]
        }
        "endMySession" => vec![one("ended", "The session has ended", message("the session has ended"))],
        "endMySessions" => vec![one("ended", "They have ended", message("3 sessions have ended"))],
        "backchannelLogout" => vec![one("ended", "What came from it has ended", message("1 sessions have ended"))],
        "revokeToken" => {
            vec![one("gone", "It is gone", message("the token opens nothing any more"))]
        }
        other => {
            let more = people_examples::success(other).or_else(|| admin_examples::success(other));
            let more = oauth_examples::success(other).into_iter().chain(more);
            more.map(|(n, s, v)| one(n, s, v)).collect()
        }
    };
    examples.into_iter().collect()
}

fn user() -> UserInfo {
    UserInfo {
        created_at: Some(EXAMPLE_TIME.to_owned()),
        email: Some("ada@example.com".to_owned()),
        id: Some(USER.to_owned()),
        must_change_password: Some(false),
        password_expires_in: Some(12),
        password_warning: Some(PasswordWarning::Expiring),
        phone: Some("+46700000000".to_owned()),
        status: Some("active".to_owned()),
        username: Some("ada".to_owned()),
    }
}

fn login_signed_in() -> LoginResponse {
    LoginResponse {
        access_token: Some(JWT.to_owned()),
        expires_in: Some(1800),
        refresh_token: Some(REFRESH.to_owned()),
        requires_mfa: Some(false),
        risk_assessment: Some(RiskAssessmentInfo {
            level: Some(RiskLevel::Low),
            recommended_mfa_methods: Some(Vec::new()),
            require_mfa: Some(false),
            score: Some(0),
        }),
        risk_level: Some(RiskLevel::Low),
        token_type: Some("Bearer".to_owned()),
        user: Some(user()),
        user_id: Some(USER.to_owned()),
        ..LoginResponse::default()
    }
}

fn login_challenged() -> LoginResponse {
    LoginResponse {
        challenge_token: Some(CHALLENGE.to_owned()),
        expires_in: Some(300),
        mfa_check_reason: Some("new_device".to_owned()),
        required_mfa_methods: Some(vec!["totp".to_owned()]),
        requires_mfa: Some(true),
        risk_assessment: Some(RiskAssessmentInfo {
            level: Some(RiskLevel::Medium),
            recommended_mfa_methods: Some(vec!["totp".to_owned()]),
            require_mfa: Some(true),
            score: Some(45),
        }),
        risk_level: Some(RiskLevel::Medium),
        user_id: Some(USER.to_owned()),
        ..LoginResponse::default()
    }
}

/// The methods of each address, for the header `Allow` (RFC 9110 section 15.5.6).
#[derive(Debug)]
pub struct AllowedMethods(Vec<(String, HeaderValue)>);

impl AllowedMethods {
    /// As the document has them.
    #[must_use]
    pub fn of_document(document: &Value) -> Self {
        let paths = document.get("paths").and_then(Value::as_object);
        let allowed = paths.into_iter().flatten().filter_map(|(path, operations)| {
            let mut methods: Vec<String> = operations.as_object()?.keys().map(|m| m.to_ascii_uppercase()).collect();
            methods.sort();
            Some((path.clone(), HeaderValue::from_str(&methods.join(", ")).ok()?))
        });
        Self(allowed.collect())
    }

    /// Those of one address; `GET` for what the document does not know.
    #[must_use]
    pub fn of(&self, path: &str) -> HeaderValue {
        let found = self.0.iter().find(|(template, _)| fits(template, path));
        found.map_or(HeaderValue::from_static("GET"), |(_, methods)| methods.clone())
    }
}

/// Whether an address is one of a path template such as `/admin/users/{user_id}`.
#[must_use]
pub fn fits(template: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(wanted), Some(given)) if wanted == given || (wanted.starts_with('{') && !given.is_empty()) => {}
            _ => return false,
        }
    }
}

/// The document as it is committed.
#[must_use]
pub fn to_json(document: &Value) -> String {
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

/// The same in YAML.
#[must_use]
pub fn to_yaml(document: &Value) -> String {
    serde_yaml::to_string(document).unwrap_or_default()
}
