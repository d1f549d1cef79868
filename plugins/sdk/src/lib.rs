//! Safe Rust for Countersign's native plugin contract (`include/countersign_plugin.h`).
//!
//! A plugin is a type that implements [`Plugin`] and one or both of [`Signal`] and [`Provider`], and one
//! [`export!`]. The crate is a `cdylib`; nothing of Rust crosses the border, so the plugin and the host
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
//! Deliberately absent for now: `locate_keys`, `verify`, MFA and events, which the host does not call yet.

pub mod abi;
mod export;
mod input;
mod outcome;
#[doc(hidden)]
pub mod raw;

pub use input::{EnrichInput, Location, ProviderRef, Request, SignalInput};
pub use outcome::{Outcome, PluginError};
pub use raw::{Call, Host, Level};
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

/// Takes part where a provider's token was verified.
pub trait Provider: Plugin {
    /// Further claims for a verified identity, which the host keeps under `x.<id>`: hook `provider.enrich`.
    fn enrich(&self, call: &Call<'_>, input: EnrichInput) -> Outcome;
}

/// The examples of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
