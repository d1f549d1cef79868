//! Hands codes to an HTTPS gateway, which delivers them.
//!
//! `config = { url = "https://gateway.example.com/messages" }`, and in the lock `grants = { http = ["gateway.example.com"] }`
//! and `method`: `"sms"`, `"email"`, or a name of your own such as `"example.voice"`. The server makes the code, holds the limits
//! and compares; with a trait `MfaVerifier` beside `Mfa` the gateway would judge.

use countersign_plugin_sdk::serde_json::{Value, json};
use countersign_plugin_sdk::{
    Call, Config, Host, HttpRequest, Mfa, MfaBegin, Outcome, Plugin, PluginError, export,
};

const GATEWAY_URL: &str = "https://gateway.example.com/messages";

struct Gateway {
    url: String,
}

impl Plugin for Gateway {
    fn create(_host: &Host, config: Config) -> Result<Self, PluginError> {
        let url = match config.get("url") {
            None => GATEWAY_URL,
            Some(url) => url.as_str().ok_or_else(|| PluginError::new("config: url is not a text"))?,
        };
        Ok(Self { url: url.to_owned() })
    }
}

impl Mfa for Gateway {
    fn begin(&self, call: &Call<'_>, request: MfaBegin) -> Outcome {
        let Some(code) = request.code else {
            return Outcome::Invalid("codes come from the server here: strike the hook mfa.verify".to_owned());
        };
        if request.destination.is_empty() {
            return Outcome::Declined;
        }
        let message = json!({ "to": request.destination, "text": format!("{code} is your code.") });
        let message = HttpRequest::post_json(&self.url, &message).header("idempotency-key", &request.delivery_id);
        match call.fetch(&message) {
            Ok(answer) if (200..=299).contains(&answer.status) => {
                let body: Value = answer.json().unwrap_or_default();
                Outcome::json(body["id"].as_str().map_or_else(|| json!({}), |id| json!({ "reference": id })))
            }
            // Not to this user: another method is to be tried.
            Ok(answer) if answer.status == 422 => Outcome::Declined,
            Ok(answer) => Outcome::Unavailable(format!("the gateway answered with status {}", answer.status)),
            Err(error) => Outcome::Unavailable(error.message().to_owned()),
        }
    }
}

export!(
    Gateway: [mfa],
    id = "com.example.@NAME@",
    vendor = "Example",
    requests = { http = ["gateway.example.com"] }
);

#[cfg(test)]
mod tests {
    use countersign_plugin_sdk::abi::{CS_DECLINED, CS_UNAVAILABLE};
    use countersign_plugin_sdk::testkit::FakeHost;

    use super::*;

    fn order() -> Value {
        json!({
            "tenant": "default", "user": { "id": "usr_1", "locale": "en" }, "method": "sms", "destination": "+46701234567",
            "delivery_id": "d-1", "code": "123456", "expires_in_s": 300, "deadline_ms": 250
        })
    }

    #[test]
    fn a_code_is_handed_over() {
        let host = FakeHost::new().answers("POST", GATEWAY_URL, 200, r#"{"id": "m-1"}"#);
        let plugin = host.create::<Gateway>(json!({})).unwrap();
        assert_eq!(plugin.begin(&order()).unwrap(), json!({ "reference": "m-1" }));
        let sent = host.requests().remove(0);
        assert!(sent.body.unwrap_or_default().contains("123456 is your code."));
    }

    #[test]
    fn refusals_and_failures_are_told_apart() {
        for (status, told) in [(422, CS_DECLINED), (500, CS_UNAVAILABLE)] {
            let host = FakeHost::new().answers("POST", GATEWAY_URL, status, "");
            let refused = host.create::<Gateway>(json!({})).unwrap().begin(&order()).err().unwrap();
            assert_eq!(refused.status, told);
        }
    }
}
