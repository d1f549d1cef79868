//! Keys of a provider without discovery, and a claim of its users.
//!
//! `config = { keys_url = "https://keys.example.com/jwks.json" }`, and in the lock `bind = ["NAME OF THE PROVIDER"]` and
//! `grants = { http = ["keys.example.com"], claims = ["email", "email_verified"] }`. Mappings read the claim as
//! `x["com.example.@NAME@"].email_domain`.

use countersign_plugin_sdk::serde_json::{Value, json};
use countersign_plugin_sdk::{
    Call, Config, EnrichInput, Host, HttpRequest, KeyLocator, KeyRequest, Keys, Outcome, Plugin, PluginError,
    Provider, export,
};

const KEYS_URL: &str = "https://keys.example.com/jwks.json";
/// How long keys are good that say nothing of it.
const KEYS_TTL_S: u64 = 3_600;

struct Directory {
    keys_url: String,
}

impl Plugin for Directory {
    fn create(_host: &Host, config: Config) -> Result<Self, PluginError> {
        let keys_url = match config.get("keys_url") {
            None => KEYS_URL,
            Some(url) => url.as_str().ok_or_else(|| PluginError::new("config: keys_url is not a text"))?,
        };
        Ok(Self { keys_url: keys_url.to_owned() })
    }
}

impl KeyLocator for Directory {
    /// The server checks the signature itself, and keeps the keys for `ttl_s`.
    fn locate_keys(&self, call: &Call<'_>, _request: KeyRequest) -> Outcome {
        let answer = match call.fetch(&HttpRequest::get(&self.keys_url)) {
            Ok(answer) => answer,
            Err(error) => return Outcome::Unavailable(error.message().to_owned()),
        };
        match answer.json::<Value>() {
            Ok(jwks) => {
                let ttl_s = answer.max_age_s().unwrap_or(KEYS_TTL_S);
                Outcome::json(Keys { jwks: Some(jwks), ttl_s, ..Keys::default() })
            }
            Err(error) => Outcome::Unavailable(error.message().to_owned()),
        }
    }
}

impl Provider for Directory {
    fn enrich(&self, _call: &Call<'_>, input: EnrichInput) -> Outcome {
        let email = input.claims.get("email").and_then(Value::as_str);
        let is_verified = input.claims.get("email_verified") == Some(&Value::Bool(true));
        match email.and_then(|email| email.rsplit_once('@')).filter(|_| is_verified) {
            Some((_, domain)) => Outcome::json(json!({ "email_domain": domain.to_lowercase() })),
            None => Outcome::Declined,
        }
    }
}

export!(
    Directory: [keys, provider],
    id = "com.example.@NAME@",
    vendor = "Example",
    requests = { http = ["keys.example.com"], claims = ["email", "email_verified"] }
);

#[cfg(test)]
mod tests {
    use countersign_plugin_sdk::testkit::FakeHost;

    use super::*;

    fn provider() -> Value {
        json!({ "id": "example", "issuer": "https://id.example.com" })
    }

    #[test]
    fn keys_come_from_their_place() {
        let request = json!({ "tenant": "default", "provider": provider(), "kid": "k-1", "alg": "RS256", "deadline_ms": 250 });
        let host = FakeHost::new().answers("GET", KEYS_URL, 200, r#"{"keys": []}"#);
        let plugin = host.create::<Directory>(json!({})).unwrap();
        assert_eq!(plugin.locate_keys(&request).unwrap()["jwks"], json!({ "keys": [] }));
        let host = FakeHost::new().answers("GET", KEYS_URL, 200, "<html>");
        assert!(host.create::<Directory>(json!({})).unwrap().locate_keys(&request).is_err());
    }

    #[test]
    fn the_domain_of_a_verified_address_is_added() {
        let plugin = FakeHost::new().create::<Directory>(json!({})).unwrap();
        let with = |claims: Value| {
            plugin.enrich(&json!({ "tenant": "default", "provider": provider(), "claims": claims, "deadline_ms": 250 }))
        };
        let verified = with(json!({ "email": "ada@Example.com", "email_verified": true })).unwrap();
        assert_eq!(verified, json!({ "email_domain": "example.com" }));
        assert!(with(json!({ "email": "ada@example.com", "email_verified": false })).is_err());
    }
}
