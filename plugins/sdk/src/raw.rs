//! The border: every function that the host calls. `export!`
//! names these; a plugin's author sees only [`Host`] and [`Call`].

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::abi::{
    CS_DECLINED, CS_INTERNAL, CS_INVALID, CS_OK, CS_REJECT, CS_TIMEOUT, CS_UNAVAILABLE, CsCall, CsHost, CsSink,
    CsStatus, CsStr,
};
use crate::host::{bytes, text};
use crate::{
    Call, Config, Event, Host, KeyLocator, Level, Mfa, MfaVerifier, Observer, Outcome, Plugin, Provider,
    SecurityEvent, Signal, Verifier,
};

struct Instance<P> {
    plugin: P,
    host: Host,
}

/// # Safety
/// `sink` must be a live sink of this host.
unsafe fn put(host: Host, sink: *mut CsSink, answer: &[u8]) -> CsStatus {
    match host.table().and_then(|t| t.put) {
        // SAFETY: the caller vouches for the sink; the bytes live across the call.
        Some(put) => unsafe { put(sink, text(answer)) },
        None => CS_INTERNAL,
    }
}

thread_local! {
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Replaces the panic hook of this library's own std: nothing is printed, no backtrace is taken.
pub fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let place = info.location().map(|l| format!("{}:{}", l.file(), l.line()));
            let _ = PLACE.try_with(|p| p.try_borrow_mut().map(|mut p| *p = place));
        }));
    });
}

/// Runs `work`; a panic gives `None` and a log line that tells the place, not the message.
fn contained<T>(host: Host, call: *const CsCall, work: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => Some(value),
        Err(payload) => {
            forget(payload);
            let place = PLACE.try_with(|p| p.try_borrow_mut().ok().and_then(|mut p| p.take())).ok().flatten();
            let message = format!("the plugin panicked at {}", place.as_deref().unwrap_or("an unknown place"));
            host.log_in(call, Level::Error, &message, &Value::Null);
            None
        }
    }
}

/// A panic's payload could panic again when it is dropped; a few leaked bytes are the lesser evil.
fn forget(payload: Box<dyn Any + Send>) {
    std::mem::forget(payload);
}

/// `cs_plugin.create`.
///
/// # Safety
/// As the header says: `host` is static, `config` readable for the call, `this` writable, `err` a live sink.
pub unsafe extern "C" fn create<P: Plugin>(
    host: *const CsHost,
    config: CsStr,
    this: *mut *mut c_void,
    err: *mut CsSink,
) -> CsStatus {
    // SAFETY: the header promises a host table that lives as long as the process.
    let host = Host::new(unsafe { host.as_ref() });
    if this.is_null() {
        return CS_INVALID;
    }
    let made = contained(host, std::ptr::null(), || {
        // SAFETY: the configuration is readable for this call.
        let config: Config = serde_json::from_slice(unsafe { bytes(config) })
            .map_err(|e| crate::PluginError::new(format!("config is not a JSON object: {e}")))?;
        P::create(&host, config)
    });
    let error = match made {
        Some(Ok(plugin)) => {
            let instance = Box::into_raw(Box::new(Instance { plugin, host }));
            // SAFETY: `this` is not null, and the header promises that it is writable.
            unsafe { this.write(instance.cast()) };
            return CS_OK;
        }
        Some(Err(error)) => (CS_INVALID, json!({ "message": error.message() })),
        None => (CS_INTERNAL, json!({ "message": "create panicked" })),
    };
    // SAFETY: `err` is a live sink.
    unsafe { put(host, err, error.1.to_string().as_bytes()) };
    error.0
}

/// `cs_plugin.destroy`.
///
/// # Safety
/// `this` came from [`create`] for the same type, no call is running, and it is not used again.
pub unsafe extern "C" fn destroy<P: Plugin>(this: *mut c_void) {
    if this.is_null() {
        return;
    }
    // SAFETY: the pointer came from `Box::into_raw` in `create` and is given back once.
    let instance = unsafe { Box::from_raw(this.cast::<Instance<P>>()) };
    let host = instance.host;
    contained(host, std::ptr::null(), || drop(instance));
}

/// # Safety
/// As the header says of `cs_op`; `this` came from [`create`] for `P`.
unsafe fn operate<P: Plugin, I: DeserializeOwned>(
    this: *mut c_void,
    call: *const CsCall,
    input: CsStr,
    output: *mut CsSink,
    run: impl FnOnce(&P, &Call<'_>, I) -> Outcome,
) -> CsStatus {
    // SAFETY: `this` came from `create`, and lives until `destroy`, which waits for calls.
    let Some(instance) = (unsafe { this.cast::<Instance<P>>().as_ref() }) else { return CS_INTERNAL };
    let host = instance.host;
    let handle = Call::new(call, host);
    let outcome = contained(host, call, || {
        // SAFETY: the input is readable for this call.
        match serde_json::from_slice::<I>(unsafe { bytes(input) }) {
            Ok(input) => run(&instance.plugin, &handle, input),
            // The text of the error could quote the input.
            Err(error) => Outcome::Invalid(format!("the input does not fit: {:?}", error.classify())),
        }
    });
    let (status, answer) = match outcome {
        None => return CS_INTERNAL,
        Some(Outcome::Ok(object)) => (CS_OK, Value::Object(object).to_string().into_bytes()),
        Some(Outcome::Bytes(answer)) => (CS_OK, answer),
        Some(Outcome::Reject(code)) => (CS_REJECT, json!({ "code": code }).to_string().into_bytes()),
        Some(Outcome::Declined) => return CS_DECLINED,
        Some(Outcome::Timeout) => return CS_TIMEOUT,
        Some(Outcome::Unavailable(why)) => {
            handle.log(Level::Warn, &why);
            return CS_UNAVAILABLE;
        }
        Some(Outcome::Invalid(why)) => {
            handle.log(Level::Warn, &why);
            return CS_INVALID;
        }
    };
    // SAFETY: `output` is a live sink of this call.
    let written = unsafe { put(host, output, &answer) };
    // A refusal stands without its code.
    if written == CS_OK || status == CS_REJECT { status } else { written }
}

/// One function of the header for one method of a trait.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $trait:ident::$method:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As the header says of `cs_op`; `this` came from [`create`] for `P`.
        pub unsafe extern "C" fn $name<P: $trait>(
            this: *mut c_void,
            call: *const CsCall,
            input: CsStr,
            output: *mut CsSink,
        ) -> CsStatus {
            // SAFETY: the same promises.
            unsafe { operate(this, call, input, output, <P as $trait>::$method) }
        }
    )*};
}

operations! {
    /// `cs_ext_provider.locate_keys`.
    locate_keys = KeyLocator::locate_keys;
    /// `cs_ext_provider.verify`.
    verify = Verifier::verify;
    /// `cs_ext_provider.enrich`.
    enrich = Provider::enrich;
    /// `cs_ext_signal.signals`.
    signals = Signal::signals;
    /// `cs_ext_mfa.begin`.
    mfa_begin = Mfa::begin;
    /// `cs_ext_mfa.verify`.
    mfa_verify = MfaVerifier::verify;
}

/// What `event.observe` tells of, by `kind`; without one, how a sign-in ended.
enum Observed {
    Ended(Event),
    Told(SecurityEvent),
}

impl<'de> Deserialize<'de> for Observed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = Value::deserialize(deserializer)?;
        let read = match members["kind"].as_str() {
            Some("security_event") => serde_json::from_value(members).map(Self::Told),
            _ => serde_json::from_value(members).map(Self::Ended),
        };
        read.map_err(serde::de::Error::custom)
    }
}

/// `cs_ext_event.observe`.
///
/// # Safety
/// As the header says of `cs_op`; `this` came from [`create`] for `P`.
pub unsafe extern "C" fn observe<P: Observer>(
    this: *mut c_void,
    call: *const CsCall,
    input: CsStr,
    output: *mut CsSink,
) -> CsStatus {
    let run = |plugin: &P, call: &Call<'_>, observed: Observed| match observed {
        Observed::Ended(event) => plugin.observe(call, event),
        Observed::Told(event) => plugin.security_event(call, event),
    };
    // SAFETY: the same promises.
    unsafe { operate(this, call, input, output, run) }
}

/// `cs_ext_meta.selftest`: panics on purpose; the wrapper must turn that into `CS_INTERNAL`.
///
/// # Safety
/// None of the arguments is used.
pub unsafe extern "C" fn selftest(
    _this: *mut c_void,
    _call: *const CsCall,
    _input: CsStr,
    _output: *mut CsSink,
) -> CsStatus {
    match catch_unwind(|| panic!("the self-test panics on purpose")) {
        Ok(()) => CS_OK,
        Err(payload) => {
            forget(payload);
            CS_INTERNAL
        }
    }
}

/// The id that the host asks for, with its NUL; empty for null.
///
/// # Safety
/// `id` is null or a text that ends with NUL and lives across the call.
#[must_use]
pub unsafe fn extension_id<'a>(id: *const c_char) -> &'a [u8] {
    if id.is_null() {
        return &[];
    }
    // SAFETY: the caller vouches for it.
    unsafe { CStr::from_ptr(id) }.to_bytes_with_nul()
}
