//! Panics, hangs and talks nonsense on demand, so that the host can be tested against it. Not for use.
//!
//! ```toml
//! config = { signals = "panic", enrich = "hang", hang_ms = 30000, create = "ok" }
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use countersign_plugin_sdk::serde_json::{self, Value, json};
use countersign_plugin_sdk::{
    Call, Config, EnrichInput, Host, Level, Outcome, Plugin, PluginError, Provider, Signal, SignalInput, export,
};
use serde::Deserialize;

/// What an operation does.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Answers with what it was given.
    #[default]
    Ok,
    /// Panics.
    Panic,
    /// Sleeps for `hang_ms`, whatever the deadline.
    Hang,
    /// Sleeps for `hang_ms` in its first three calls, then answers.
    HangThrice,
    /// Sleeps until the deadline, then says so.
    Patient,
    /// Answers with something that is not JSON.
    Garbage,
    /// Answers with JSON that is not an object.
    Array,
    /// Answers with an object nested 100 deep.
    Deep,
    /// Answers with 100 KiB of JSON.
    Large,
    /// Answers with 2 MiB of JSON.
    Huge,
    /// Answers with bytes that are not UTF-8.
    WrongUtf8,
    /// Answers nothing and says that all is well.
    Silent,
    /// Refuses the identity.
    Reject,
    /// Refuses it with a code that is none.
    RejectBadly,
    /// Has nothing to say.
    Decline,
    /// Says that something is out of reach.
    Unavailable,
    /// Writes 1000 log lines, then answers.
    Chatter,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Misbehaving {
    create: Mode,
    signals: Mode,
    enrich: Mode,
    hang_ms: u64,
    #[serde(skip)]
    calls: AtomicU32,
}

impl Misbehaving {
    fn act(&self, mode: Mode, call: &Call<'_>, answer: Value) -> Outcome {
        let padded = |len: usize| Outcome::Bytes(format!("{{\"pad\":\"{}\"}}", "x".repeat(len)).into_bytes());
        match mode {
            Mode::Ok => Outcome::json(answer),
            Mode::Panic => panic!("asked to panic"),
            Mode::Hang => {
                std::thread::sleep(Duration::from_millis(self.hang_ms));
                Outcome::json(answer)
            }
            Mode::HangThrice => {
                if self.calls.fetch_add(1, Ordering::Relaxed) < 3 {
                    std::thread::sleep(Duration::from_millis(self.hang_ms));
                }
                Outcome::json(answer)
            }
            Mode::Patient => {
                while call.remaining_ms() > 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Outcome::Timeout
            }
            Mode::Garbage => Outcome::Bytes(b"{ this is not JSON".to_vec()),
            Mode::Array => Outcome::Bytes(b"[1, 2]".to_vec()),
            Mode::Deep => Outcome::Bytes(format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100)).into_bytes()),
            Mode::Large => padded(100 << 10),
            Mode::Huge => padded(2 << 20),
            Mode::WrongUtf8 => Outcome::Bytes(b"{\"a\":\"\xff\xfe\"}".to_vec()),
            Mode::Silent => Outcome::Bytes(Vec::new()),
            Mode::Reject => Outcome::Reject("sanctioned".to_owned()),
            Mode::RejectBadly => Outcome::Reject("<b>No & never</b>".to_owned()),
            Mode::Decline => Outcome::Declined,
            Mode::Unavailable => Outcome::Unavailable("asked to be out of reach".to_owned()),
            Mode::Chatter => {
                for _ in 0..1000 {
                    call.log(Level::Info, "a line\nthat would forge another");
                }
                Outcome::json(answer)
            }
        }
    }
}

impl Plugin for Misbehaving {
    fn create(host: &Host, config: Config) -> Result<Self, PluginError> {
        let plugin: Self =
            serde_json::from_value(Value::Object(config)).map_err(|e| PluginError::new(format!("config: {e}")))?;
        host.log_with(Level::Debug, "made", &json!({ "create": format!("{:?}", plugin.create) }));
        match plugin.create {
            Mode::Panic => panic!("asked to panic"),
            Mode::Hang => std::thread::sleep(Duration::from_millis(plugin.hang_ms)),
            Mode::Reject => return Err(PluginError::new("asked to refuse")),
            _ => {}
        }
        Ok(plugin)
    }
}

impl Signal for Misbehaving {
    fn signals(&self, call: &Call<'_>, input: SignalInput) -> Outcome {
        let claims: Vec<&String> = input.claims.keys().collect();
        self.act(self.signals, call, json!({ "claims": claims, "request": { "ip": input.request.ip } }))
    }
}

impl Provider for Misbehaving {
    fn enrich(&self, call: &Call<'_>, input: EnrichInput) -> Outcome {
        self.act(self.enrich, call, json!({ "claims": input.claims, "provider": input.provider.id }))
    }
}

export!(
    Misbehaving: [signal, provider],
    id = "countersign.misbehaving",
    vendor = "Countersign",
    requests = { facts = ["request.ip"], claims = ["sub", "email"] }
);
