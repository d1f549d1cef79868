//! Hands codes to an HTTPS endpoint of the tenant, which delivers them: signed as Standard Webhooks 1.0
//! describes, and with one identifier for all attempts at one message.
//!
//! ```toml
//! hooks = ["mfa.begin"]
//! method = "sms"
//! deadline_ms = 10000                       # all attempts together
//! grants = { http = ["hooks.example.com"], secrets = ["mfa_webhook"] }
//! config = { endpoints = { "*" = { url = "https://hooks.example.com/codes", secrets = ["mfa_webhook"] } } }
//! ```
//!
//! For a push it needs both hooks, `["mfa.begin", "mfa.verify"]`, and `method = "push"`; see below. With a name of your own,
//! such as `method = "acme.voice"`, it hands over codes with the first hook alone, and asks as for a push with both.
//!
//! `endpoints` is by tenant, `"*"` for all others; a tenant without one is declined. A secret is the text
//! `whsec_` and 24 to 64 bytes in base64; with two, each request carries two signatures, so that the receiver can
//! change over. The endpoint gets a `POST`:
//!
//! ```json
//! {"type": "mfa.code", "timestamp": "2026-01-01T00:00:00Z", "data": {"tenant": "default", "user_id": "usr_…",
//!  "locale": "sv", "method": "sms", "destination": "+46…", "code": "123456", "expires_in_s": 300}}
//! ```
//!
//! | it answers | means |
//! |---|---|
//! | 2xx | on its way; `reference` of a JSON body is kept |
//! | 410, 422 | not to this user: the method is not allowed |
//! | 408, 409, 425, 429, 5xx, nothing | tried again while there is time, at most three times |
//! | anything else | the channel is out of reach |
//!
//! A push has `"type": "mfa.push"`, and neither destination nor code: the endpoint knows the devices of the user, and answers
//! 422 when there is none. Each time that the application asks what came of it, the endpoint gets
//!
//! ```json
//! {"type": "mfa.push_status", "timestamp": "…", "data": {"tenant": "default", "user_id": "usr_…", "method": "push",
//!  "delivery_id": "…", "reference": "…", "code": ""}}
//! ```
//!
//! and answers with 200 and `{"status": "approved"}`, `"denied"` or `"pending"`. `delivery_id` is the `webhook-id` of the push, `reference` what
//! it was answered with, and `code` what the user typed, for those that show a number.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use aws_lc_rs::hmac;
use countersign_plugin_sdk::serde_json::{self, Value, json};
use countersign_plugin_sdk::{
    Call, Config, Host, HttpRequest, HttpResponse, Level, Mfa, MfaBegin, MfaVerifier, MfaVerify, Outcome, Plugin,
    PluginError, export,
};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use jiff::Timestamp;
use serde::Deserialize;

const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Less is not worth an attempt: a connection and its TLS take as long.
const LEAST_TIME_MS: i64 = 100;
/// Standard Webhooks 1.0, "Signature scheme".
const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const REFERENCE_LIMIT_BYTES: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    endpoints: BTreeMap<String, EndpointSettings>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointSettings {
    url: String,
    secrets: Vec<String>,
}

struct Endpoint {
    url: String,
    keys: Vec<hmac::Key>,
}

struct Webhook {
    endpoints: BTreeMap<String, Endpoint>,
}

impl Plugin for Webhook {
    fn create(host: &Host, config: Config) -> Result<Self, PluginError> {
        let settings: Settings =
            serde_json::from_value(Value::Object(config)).map_err(|e| PluginError::new(format!("config: {e}")))?;
        let mut endpoints = BTreeMap::new();
        for (tenant, EndpointSettings { url, secrets }) in settings.endpoints {
            if !(1..=2).contains(&secrets.len()) {
                let what = format!("config.endpoints.{tenant}.secrets: name one secret, or two while it changes");
                return Err(PluginError::new(what));
            }
            let keys = secrets.iter().map(|name| read_key(name, &host.secret(name)?)).collect::<Result<_, _>>()?;
            endpoints.insert(tenant, Endpoint { url, keys });
        }
        if endpoints.is_empty() {
            return Err(PluginError::new("config.endpoints: name a tenant, or \"*\" for all"));
        }
        Ok(Self { endpoints })
    }
}

fn read_key(name: &str, secret: &[u8]) -> Result<hmac::Key, PluginError> {
    let encoded = std::str::from_utf8(secret).ok().and_then(|text| text.strip_prefix(SECRET_PREFIX));
    let key = encoded.and_then(|text| BASE64.decode(text.as_bytes()).ok());
    let key = key.filter(|key| SECRET_BYTES.contains(&key.len())).ok_or_else(|| {
        PluginError::new(format!("secret {name} is not whsec_ and the base64 of 24 to 64 random bytes"))
    })?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &key))
}

impl Endpoint {
    /// `webhook-signature`: one `v1,` for each secret, over identifier, time and body.
    fn sign(&self, id: &str, time_unix_s: i64, body: &str) -> String {
        let signed = format!("{id}.{time_unix_s}.{body}");
        let signatures = self.keys.iter().map(|key| {
            let tag = hmac::sign(key, signed.as_bytes());
            format!("v1,{}", BASE64.encode(tag.as_ref()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }

    fn request(&self, id: &str, time_unix_s: i64, body: &Value) -> HttpRequest {
        let request = HttpRequest::post_json(&self.url, body);
        let signature = self.sign(id, time_unix_s, request.body.as_deref().unwrap_or_default());
        request
            .header("webhook-id", id)
            .header("webhook-timestamp", time_unix_s.to_string())
            .header("webhook-signature", signature)
            .header("idempotency-key", id)
    }
}

/// What an answer means.
enum Told {
    Sent(Option<String>),
    Refused(u16),
    Later { status: u16, after: Option<Duration> },
    Broken(u16),
}

fn read_answer(answer: &HttpResponse) -> Told {
    match answer.status {
        200..=299 => {
            let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            let reference = body["reference"].as_str().filter(|r| r.len() <= REFERENCE_LIMIT_BYTES);
            Told::Sent(reference.map(str::to_owned))
        }
        status @ (410 | 422) => Told::Refused(status),
        status @ (408 | 409 | 425 | 429 | 500..=599) => {
            let after = answer.headers.get("retry-after").and_then(|s| s.trim().parse().ok());
            Told::Later { status, after: after.map(Duration::from_secs) }
        }
        status => Told::Broken(status),
    }
}

impl Webhook {
    fn endpoint(&self, tenant: &str) -> Option<&Endpoint> {
        self.endpoints.get(tenant).or_else(|| self.endpoints.get("*"))
    }

    /// Asks the endpoint once what came of a push: the application asks again.
    fn status(endpoint: &Endpoint, call: &Call<'_>, request: &MfaVerify) -> Result<Outcome, PluginError> {
        let now = call.host().now_unix_ms()?.div_euclid(1_000);
        let mut id = [0; 16];
        call.host().random(&mut id)?;
        let body = json!({
            "type": "mfa.push_status",
            "timestamp": rfc3339(now),
            "data": {
                "tenant": request.tenant,
                "user_id": request.user.id,
                "method": request.method,
                "delivery_id": request.delivery_id,
                "reference": request.reference,
                "code": request.code,
            }
        });
        let answer = call.fetch(&endpoint.request(&BASE64URL_NOPAD.encode(&id), now, &body))?;
        if !(200..=299).contains(&answer.status) {
            return Err(PluginError::new(format!("the endpoint answered with status {}", answer.status)));
        }
        let told: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        match told["status"].as_str() {
            Some("approved") => Ok(Outcome::json(json!({}))),
            Some("denied") => Ok(Outcome::Reject("denied".to_owned())),
            Some("pending") => Ok(Outcome::Declined),
            _ => Err(PluginError::new("the endpoint told no status of a push")),
        }
    }
}

/// Methods of which there may be no code: a push, and those of a name of their own.
fn is_question(method: &str) -> bool {
    method == "push" || method.contains('.')
}

fn rfc3339(unix_s: i64) -> String {
    Timestamp::from_second(unix_s).map(|t| t.to_string()).unwrap_or_default()
}

impl MfaVerifier for Webhook {
    fn verify(&self, call: &Call<'_>, request: MfaVerify) -> Outcome {
        if !is_question(&request.method) {
            return Outcome::Invalid("codes are not judged here; strike the hook mfa.verify".to_owned());
        }
        // Whoever has no endpoint any more has nobody who could confirm.
        let Some(endpoint) = self.endpoint(&request.tenant) else { return Outcome::Reject("denied".to_owned()) };
        let told = Self::status(endpoint, call, &request);
        told.unwrap_or_else(|error| Outcome::Unavailable(error.message().to_owned()))
    }
}

impl Mfa for Webhook {
    fn begin(&self, call: &Call<'_>, request: MfaBegin) -> Outcome {
        let Some(endpoint) = self.endpoint(&request.tenant) else { return Outcome::Declined };
        let is_push = request.code.is_none();
        if is_push && !is_question(&request.method) {
            return Outcome::Invalid("e-mail and text messages need a code: strike the hook mfa.verify".to_owned());
        }
        let now_s = || call.host().now_unix_ms().map(|ms| ms.div_euclid(1_000));
        let begun = match now_s() {
            Ok(now) => now,
            Err(error) => return Outcome::Unavailable(error.message().to_owned()),
        };
        // The same for each attempt, so that one identifier never stands for two bodies.
        let mut body = json!({
            "type": if is_push { "mfa.push" } else { "mfa.code" },
            "timestamp": rfc3339(begun),
            "data": {
                "tenant": request.tenant,
                "user_id": request.user.id,
                "locale": request.user.locale,
                "method": request.method,
                "expires_in_s": request.expires_in_s,
            }
        });
        if !request.destination.is_empty() {
            body["data"]["destination"] = request.destination.into();
        }
        if let Some(code) = request.code {
            body["data"]["code"] = code.into();
        }
        let mut pause = FIRST_PAUSE;
        let mut why = String::new();
        for attempt in 1..=ATTEMPTS {
            if call.remaining_ms() < LEAST_TIME_MS {
                return Outcome::Timeout;
            }
            let asked = call.fetch(&endpoint.request(&request.delivery_id, now_s().unwrap_or(begun), &body));
            let mut wait = pause;
            match asked.as_ref().map(read_answer) {
                Ok(Told::Sent(reference)) => {
                    return Outcome::json(reference.map_or_else(|| json!({}), |r| json!({ "reference": r })));
                }
                Ok(Told::Refused(status)) => return Outcome::Reject(format!("status_{status}")),
                Ok(Told::Broken(status)) => {
                    return Outcome::Unavailable(format!("the endpoint answered with status {status}"));
                }
                Ok(Told::Later { status, after }) => {
                    why = format!("the endpoint answered with status {status}");
                    wait = after.unwrap_or(pause).max(pause);
                }
                Err(error) => error.message().clone_into(&mut why),
            }
            let left = call.remaining_ms().saturating_sub(LEAST_TIME_MS);
            if attempt == ATTEMPTS || i64::try_from(wait.as_millis()).unwrap_or(i64::MAX) > left {
                break;
            }
            call.log(Level::Info, "a code is handed over once more");
            thread::sleep(wait);
            pause *= 2;
        }
        Outcome::Unavailable(why)
    }
}

export!(
    Webhook: [mfa, mfa_verifier],
    id = "countersign.mfa_webhook",
    vendor = "Countersign",
    requests = { http = ["hooks.example.com"], secrets = ["mfa_webhook"] }
);

#[cfg(test)]
mod tests;
