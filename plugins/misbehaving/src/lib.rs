//! Panics, hangs and talks nonsense on demand, so that the host can be tested against it. Not for use.
//!
//! ```toml
//! config = { signals = "panic", enrich = "hang", hang_ms = 30000, create = "ok" }
//! ```
//!
//! `outbox` names a file to which every input of `mfa.*` and `event.observe` is appended; `keys` is what
//! `provider.locate_keys` answers; `ask` is what the mode `ask` asks the host for.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use countersign_plugin_sdk::serde_json::{self, Value, json};
use countersign_plugin_sdk::{
    Call, Config, EnrichInput, Event, Host, HttpRequest, KeyLocator, KeyRequest, Level, Mfa, MfaBegin, MfaVerifier,
    MfaVerify, Object, Observer, Outcome, Plugin, PluginError, Provider, Signal, SignalInput, Verifier,
    VerifyRequest, export,
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
    /// Refuses it with a code that the host does not take.
    RejectHugely,
    /// Has nothing to say.
    Decline,
    /// Says that something is out of reach.
    Unavailable,
    /// Writes 1000 log lines, then answers.
    Chatter,
    /// Ends the process.
    Abort,
    /// Is out of reach in its first three calls, then answers.
    FailThrice,
    /// Keeps 64 KiB of every call.
    Leak,
    /// Takes a gigabyte and touches it.
    Gluttony,
    /// Tells whether it reaches a loopback port by itself.
    Network,
    /// Asks the host for what `ask` says, and tells what came.
    Ask,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Misbehaving {
    create: Mode,
    signals: Mode,
    enrich: Mode,
    locate_keys: Mode,
    verify: Mode,
    mfa: Mode,
    observe: Mode,
    hang_ms: u64,
    keys: Object,
    outbox: Option<PathBuf>,
    ask: Option<Ask>,
    port: u16,
    #[serde(skip)]
    calls: AtomicU32,
}

/// One service of the host.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    Fetch(HttpRequest),
    Secret(String),
    Kv(String),
    Env,
}

impl Misbehaving {
    fn ask(&self, call: &Call<'_>) -> Result<Value, PluginError> {
        match &self.ask {
            None => Ok(json!({})),
            Some(Ask::Fetch(request)) => call.fetch(request).map(|answer| json!({ "answer": answer })),
            Some(Ask::Secret(name)) => {
                let secret = call.secret(name)?;
                Ok(json!({ "secret": String::from_utf8_lossy(&secret) }))
            }
            Some(Ask::Kv(value)) => {
                let before = call.kv_get("key")?.map(|v| String::from_utf8_lossy(&v).into_owned());
                call.kv_set("key", value.as_bytes(), 60)?;
                Ok(json!({ "before": before }))
            }
            Some(Ask::Env) => {
                let mut random = [0; 16];
                call.host().random(&mut random)?;
                call.host().count("asked", 1.0, &json!({ "kind": "env" }));
                Ok(json!({ "now": call.host().now_unix_ms()?, "random": random }))
            }
        }
    }

    fn put_out(&self, input: Value) {
        let Some(outbox) = &self.outbox else { return };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(outbox);
        let _ = file.and_then(|mut f| writeln!(f, "{input}"));
    }

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
            Mode::RejectHugely => Outcome::Reject("x".repeat(2 << 20)),
            Mode::Decline => Outcome::Declined,
            Mode::Unavailable => Outcome::Unavailable("asked to be out of reach".to_owned()),
            Mode::Abort => std::process::abort(),
            Mode::FailThrice => {
                if self.calls.fetch_add(1, Ordering::Relaxed) < 3 {
                    return Outcome::Unavailable("asked to be out of reach at first".to_owned());
                }
                Outcome::json(answer)
            }
            Mode::Leak => {
                std::mem::forget(vec![1u8; 64 << 10]);
                Outcome::json(answer)
            }
            Mode::Gluttony => {
                let taken = vec![1u8; 1 << 30];
                Outcome::json(json!({ "taken": taken.iter().map(|b| u64::from(*b)).sum::<u64>() }))
            }
            Mode::Network => {
                let reached = std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok();
                Outcome::json(json!({ "reached": reached }))
            }
            Mode::Ask => match self.ask(call) {
                Ok(told) => Outcome::json(told),
                Err(error) => Outcome::json(json!({ "error": error.message() })),
            },
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

impl KeyLocator for Misbehaving {
    fn locate_keys(&self, call: &Call<'_>, request: KeyRequest) -> Outcome {
        self.put_out(json!({ "kid": request.kid, "alg": request.alg }));
        self.act(self.locate_keys, call, Value::Object(self.keys.clone()))
    }
}

impl Verifier for Misbehaving {
    /// Believes any JSON object that stands in the token: made to see that the host checks the claims.
    fn verify(&self, call: &Call<'_>, request: VerifyRequest) -> Outcome {
        match serde_json::from_str::<Object>(&request.token) {
            Ok(claims) => self.act(self.verify, call, json!({ "alg": "HS256", "claims": claims })),
            Err(_) => Outcome::Declined,
        }
    }
}

impl Mfa for Misbehaving {
    fn begin(&self, call: &Call<'_>, request: MfaBegin) -> Outcome {
        self.put_out(json!({
            "method": request.method, "destination": request.destination, "code": request.code,
            "delivery_id": request.delivery_id, "locale": request.user.locale, "user": request.user.id
        }));
        self.act(self.mfa, call, json!({ "reference": "ref-1" }))
    }
}

impl MfaVerifier for Misbehaving {
    /// Takes `good` alone.
    fn verify(&self, call: &Call<'_>, request: MfaVerify) -> Outcome {
        if request.code != "good" || request.reference.as_deref() != Some("ref-1") {
            return Outcome::Reject("wrong".to_owned());
        }
        self.act(self.mfa, call, json!({}))
    }
}

impl Observer for Misbehaving {
    fn observe(&self, call: &Call<'_>, event: Event) -> Outcome {
        let outcome = self.act(self.observe, call, json!({}));
        let settled = matches!(outcome, Outcome::Ok(_));
        self.put_out(json!({
            "id": event.id, "outcome": event.outcome, "code": event.code, "user": event.user, "score": event.score,
            "attempt": event.attempt, "settled": settled
        }));
        outcome
    }
}

export!(
    Misbehaving: [signal, provider, keys, verifier, mfa, mfa_verifier, event],
    id = "countersign.misbehaving",
    vendor = "Countersign",
    requests = { facts = ["request.ip"], claims = ["sub", "email"], http = ["api.example.com"], kv_kib = 4 }
);
