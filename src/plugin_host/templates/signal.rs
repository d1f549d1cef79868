//! Whether a sign-in falls into the night (UTC).
//!
//! `config = { from_hour = 22 }` gives `{"night": true}`, which rules read as
//! `s.signals.plugin["com.example.@NAME@"].night`.

use countersign_plugin_sdk::serde_json::json;
use countersign_plugin_sdk::{Call, Config, Host, Outcome, Plugin, PluginError, Signal, SignalInput, export};

struct Night {
    from_hour: i64,
}

impl Plugin for Night {
    fn create(_host: &Host, config: Config) -> Result<Self, PluginError> {
        let from_hour = match config.get("from_hour") {
            None => 22,
            Some(hour) => hour.as_i64().ok_or_else(|| PluginError::new("config: from_hour is not a whole number"))?,
        };
        Ok(Self { from_hour })
    }
}

impl Signal for Night {
    fn signals(&self, _call: &Call<'_>, input: SignalInput) -> Outcome {
        let hour = input.request.time_unix_s.rem_euclid(86_400) / 3_600;
        Outcome::json(json!({ "night": hour >= self.from_hour }))
    }
}

export!(Night: [signal], id = "com.example.@NAME@", vendor = "Example");

#[cfg(test)]
mod tests {
    use countersign_plugin_sdk::testkit::FakeHost;

    use super::*;

    #[test]
    fn the_hour_tells() {
        let plugin = FakeHost::new().create::<Night>(json!({ "from_hour": 22 })).unwrap();
        for (time, night) in [(23 * 3_600, true), (3 * 3_600, false)] {
            let input = json!({
                "tenant": "default", "client_id": "app", "provider": { "id": "google" },
                "request": { "time_unix_s": time }, "deadline_ms": 250
            });
            assert_eq!(plugin.signals(&input).unwrap(), json!({ "night": night }));
        }
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let refused = FakeHost::new().create::<Night>(json!({ "from_hour": "ten" })).err().unwrap();
        assert!(refused.contains("from_hour"));
    }
}
