//! Firebase Authentication with what the preset `firebase` leaves out: several projects behind one provider, the
//! published X.509 certificates as the source of keys, and conditions on how and when the user signed in.
//! README.md beside this crate says when the preset is enough.
//!
//! `provider.locate_keys` gives the certificates; the server checks signatures with them. `provider.enrich` adds
//! `x.firebase` and refuses what the configuration does not allow.

use countersign_plugin_sdk::serde_json::{self, Value, json};
use countersign_plugin_sdk::{
    Call, Config, EnrichInput, Host, HttpRequest, KeyLocator, KeyRequest, Keys, Outcome, Plugin, PluginError,
    Provider, export,
};
use serde::Deserialize;

const ISSUER: &str = "https://securetoken.google.com/";
const CERTIFICATES_URL: &str =
    "https://www.googleapis.com/robot/v1/metadata/x509/securetoken@system.gserviceaccount.com";
const CERTIFICATES_TTL_S: u64 = 3600;
/// A clock of Google may be ahead of ours by so much.
const LEEWAY_S: i64 = 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    projects: Vec<String>,
    /// `password`, `google.com`, `phone`, …; absent: all but `anonymous`.
    sign_in_providers: Option<Vec<String>>,
    /// Tenants of Identity Platform; absent: users of no tenant only.
    tenants: Option<Vec<String>>,
    /// How long ago the user may have signed in to Firebase; absent: any time.
    max_auth_age_s: Option<i64>,
    certificates_url: Option<String>,
}

struct Firebase {
    settings: Settings,
}

impl Plugin for Firebase {
    fn create(_host: &Host, config: Config) -> Result<Self, PluginError> {
        let settings: Settings =
            serde_json::from_value(Value::Object(config)).map_err(|e| PluginError::new(format!("config: {e}")))?;
        if settings.projects.is_empty() || settings.projects.iter().any(|p| p.is_empty() || p.contains('/')) {
            return Err(PluginError::new("config: projects must name ids of projects"));
        }
        if settings.max_auth_age_s.is_some_and(|age| age <= 0) {
            return Err(PluginError::new("config: max_auth_age_s must be more than 0"));
        }
        Ok(Self { settings })
    }
}

impl Firebase {
    fn project<'a>(&self, issuer: Option<&'a str>) -> Option<&'a str> {
        let project = issuer?.strip_prefix(ISSUER)?;
        self.settings.projects.iter().any(|p| p == project).then_some(project)
    }

    /// Why this sign-in to Firebase is not enough.
    fn objection(&self, method: &str, tenant: Option<&str>, auth_time_s: i64, now_s: i64) -> Option<&'static str> {
        let allowed = match &self.settings.sign_in_providers {
            Some(names) => names.iter().any(|n| n == method),
            None => method != "anonymous",
        };
        let at_home = match (&self.settings.tenants, tenant) {
            (None, None) => true,
            (Some(tenants), Some(tenant)) => tenants.iter().any(|t| t == tenant),
            _ => false,
        };
        let age_s = now_s.saturating_sub(auth_time_s);
        if !allowed {
            Some("sign_in_provider_not_allowed")
        } else if !at_home {
            Some("firebase_tenant_not_allowed")
        } else if age_s < -LEEWAY_S {
            Some("auth_time_in_future")
        } else if self.settings.max_auth_age_s.is_some_and(|max| age_s > max) {
            Some("auth_too_old")
        } else {
            None
        }
    }
}

impl KeyLocator for Firebase {
    fn locate_keys(&self, call: &Call<'_>, request: KeyRequest) -> Outcome {
        let Some(kid) = request.kid else { return Outcome::Declined };
        let url = self.settings.certificates_url.as_deref().unwrap_or(CERTIFICATES_URL);
        let answer = match call.fetch(&HttpRequest::get(url)) {
            Ok(answer) => answer,
            Err(error) => return Outcome::Unavailable(error.message().to_owned()),
        };
        let pem: std::collections::BTreeMap<String, String> = match answer.json() {
            Ok(pem) => pem,
            Err(error) => return Outcome::Unavailable(error.message().to_owned()),
        };
        if !pem.contains_key(&kid) {
            return Outcome::Declined;
        }
        Outcome::json(Keys { pem, ttl_s: answer.max_age_s().unwrap_or(CERTIFICATES_TTL_S), jwks: None })
    }
}

impl Provider for Firebase {
    fn enrich(&self, call: &Call<'_>, input: EnrichInput) -> Outcome {
        let Some(project) = self.project(input.provider.issuer.as_deref()) else {
            return Outcome::Reject("firebase_project_not_allowed".to_owned());
        };
        let text = |path: &str| input.claims.get("firebase").and_then(|f| f.get(path)).and_then(Value::as_str);
        let Some(method) = text("sign_in_provider") else {
            return Outcome::Reject("sign_in_provider_missing".to_owned());
        };
        let Some(auth_time) = input.claims.get("auth_time").and_then(Value::as_i64) else {
            return Outcome::Reject("auth_time_missing".to_owned());
        };
        let now_s = match call.host().now_unix_ms() {
            Ok(now_ms) => now_ms / 1000,
            Err(error) => return Outcome::Unavailable(error.message().to_owned()),
        };
        let tenant = text("tenant");
        if let Some(code) = self.objection(method, tenant, auth_time, now_s) {
            return Outcome::Reject(code.to_owned());
        }
        Outcome::json(json!({
            "project": project, "sign_in_provider": method, "tenant": tenant,
            "second_factor": text("sign_in_second_factor"),
            "auth_time": auth_time, "auth_age_s": now_s.saturating_sub(auth_time).max(0)
        }))
    }
}

export!(
    Firebase: [keys, provider],
    id = "firebase",
    vendor = "Countersign",
    requests = { claims = ["auth_time", "firebase"], http = ["www.googleapis.com"] }
);

#[cfg(test)]
mod tests;
