//! Safe Rust for Countersign's native plugin contract (`include/countersign_plugin.h`).
//!
//! A plugin is a type that implements [`Plugin`] and one or more of [`KeyLocator`], [`Verifier`],
//! [`Provider`], [`Signal`], [`Mfa`], [`MfaVerifier`] and [`Observer`], and one [`export!`]. The crate is a `cdylib`; nothing of Rust crosses the border, so the plugin and the host
//! need not share a compiler or a version of any crate.
//!
//! ```
//! use countersign_plugin_sdk::{Call, Config, Host, Outcome, Plugin, PluginError, Signal, SignalInput};
//! use serde_json::json;
//!
//! struct Night {
//!     from_hour: i64,
//! }
//!
//! impl Plugin for Night {
//!     fn create(_host: &Host, config: Config) -> Result<Self, PluginError> {
//!         let from_hour = config.get("from_hour").and_then(|v| v.as_i64()).unwrap_or(22);
//!         Ok(Self { from_hour })
//!     }
//! }
//!
//! impl Signal for Night {
//!     fn signals(&self, _call: &Call<'_>, input: SignalInput) -> Outcome {
//!         let hour = input.request.time_unix_s.rem_euclid(86_400) / 3_600;
//!         Outcome::json(json!({ "night": hour >= self.from_hour }))
//!     }
//! }
//!
//! countersign_plugin_sdk::export!(Night: [signal], id = "com.example.night", vendor = "Example");
//! # fn main() {}
//! ```
//!
//! Every operation is wrapped: a panic becomes the status `CS_INTERNAL`. That needs `panic = "unwind"`,
//! the default; `export!` does not compile with `panic = "abort"`:
//!
//! - a panic hook of the plugin's own copy of std keeps panics quiet and without a backtrace (each
//!   plugin would bring its own symboliser, tens of megabytes for a panic), and sends the place to the
//!   host's log;
//! - a crash that is no panic (a bad pointer, a stack overflow) ends the host all the same.
//!
//! [`testkit`] drives a plugin across the real border, with a host that answers from a recording.

pub mod abi;
mod export;
mod host;
mod http;
mod input;
mod outcome;
#[doc(hidden)]
pub mod raw;
pub mod testkit;

pub use host::{Call, Host, Level};
pub use http::{HttpRequest, HttpResponse};
pub use input::{
    EnrichInput, Event, KeyRequest, Location, MfaBegin, MfaVerify, ProviderRef, Reason, Request, SecurityEvent,
    SignalInput, ToldEvent, UserRef, VerifyRequest,
};
pub use outcome::{Keys, Outcome, PluginError, Verified};
pub use serde_json;

/// A JSON object.
pub type Object = serde_json::Map<String, serde_json::Value>;
/// What stands under `config` in the lock file.
pub type Config = Object;

/// What every plugin is. Calls come from several threads at once, hence `Send` and `Sync`.
pub trait Plugin: Send + Sync + Sized + 'static {
    /// Makes the instance, once, when the host starts. Threads that it starts must be joined in `drop`.
    ///
    /// # Errors
    /// When the configuration is not usable. The host then refuses to start and shows the message.
    fn create(host: &Host, config: Config) -> Result<Self, PluginError>;
}

/// Adds risk signals: hook `signal.signals`.
pub trait Signal: Plugin {
    /// The signals of one sign-in; scripts read them as `s.signals.plugin["<id>"]`.
    fn signals(&self, call: &Call<'_>, input: SignalInput) -> Outcome;
}

/// Finds a provider's keys where discovery cannot: hook `provider.locate_keys`.
pub trait KeyLocator: Plugin {
    /// Keys that may verify a token with this header, as [`Keys`]. The host checks their type and size,
    /// keeps them for `ttl_s`, and checks the signature itself.
    fn locate_keys(&self, call: &Call<'_>, request: KeyRequest) -> Outcome;
}

/// Verifies tokens of a format that the host cannot read: hook `provider.verify`.
pub trait Verifier: Plugin {
    /// The claims of a token whose signature this plugin has checked, as [`Verified`]; `Reject` when it is
    /// not genuine, `Declined` when it is of another format. The host checks issuer, audience, times and
    /// nonce of the claims itself, and refuses a token that it saw before.
    fn verify(&self, call: &Call<'_>, request: VerifyRequest) -> Outcome;
}

/// Takes part where a provider's token was verified.
pub trait Provider: Plugin {
    /// Further claims for a verified identity, which the host keeps under `x.<id>`: hook `provider.enrich`.
    fn enrich(&self, call: &Call<'_>, input: EnrichInput) -> Outcome;
}

/// Delivers codes: hook `mfa.begin`.
pub trait Mfa: Plugin {
    /// Sends the code. The answer may hold a `reference` of at most 256 characters, which `mfa.verify`
    /// gets. The host limits attempts and messages, and compares the code itself unless the plugin has
    /// [`MfaVerifier`] too.
    fn begin(&self, call: &Call<'_>, request: MfaBegin) -> Outcome;
}

/// Judges codes that the plugin's own service made: hook `mfa.verify`.
pub trait MfaVerifier: Mfa {
    /// `Ok` for a right code or a confirmed push, `Reject` for a wrong or refused one, `Declined` for a push that the user
    /// has not answered yet; anything else is neither and not counted as right.
    fn verify(&self, call: &Call<'_>, request: MfaVerify) -> Outcome;
}

/// Is told how sign-ins ended: hook `event.observe`.
pub trait Observer: Plugin {
    /// Takes an event. `Ok` and `Declined` settle it; after anything else the host tries again, with
    /// growing pauses, for 24 h. So it may come twice: `id` tells.
    fn observe(&self, call: &Call<'_>, event: Event) -> Outcome;

    /// Takes what a provider told of an account: with the grant `events = ["security_event"]` only. `Ok` and `Declined`
    /// settle it; after anything else whoever sent it is asked to send it again, so it may come twice.
    fn security_event(&self, _call: &Call<'_>, _event: SecurityEvent) -> Outcome {
        Outcome::Declined
    }
}

/// The examples of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
