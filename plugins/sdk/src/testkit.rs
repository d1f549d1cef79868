//! A host for tests of plugins: it answers requests from a recording, holds secrets and a store in memory,
//! and its clock stands still. The plugin is driven through the same functions that a real host calls.
//!
//! ```
//! # use countersign_plugin_sdk::{testkit::FakeHost, *};
//! # use serde_json::json;
//! # struct Reputation;
//! # impl Plugin for Reputation {
//! #     fn create(_: &Host, _: Config) -> Result<Self, PluginError> { Ok(Self) }
//! # }
//! impl Signal for Reputation {
//!     fn signals(&self, call: &Call<'_>, _input: SignalInput) -> Outcome {
//!         let score = call.fetch(&HttpRequest::get("https://api.example/score")).and_then(|a| a.json());
//!         score.map(|score: i64| json!({ "score": score })).into()
//!     }
//! }
//!
//! let host = FakeHost::new().answers("GET", "https://api.example/score", 200, "7");
//! let plugin = host.create::<Reputation>(json!({})).unwrap();
//! let input = json!({
//!     "tenant": "default", "client_id": "app", "provider": { "id": "google" },
//!     "request": { "time_unix_s": 0 }, "deadline_ms": 250
//! });
//! assert_eq!(plugin.signals(&input).unwrap()["score"], 7);
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::Value;

use crate::abi::{
    CS_ABI_MINOR, CS_DECLINED, CS_HOST_ENV, CS_HOST_HTTP, CS_HOST_KV, CS_INVALID, CS_OK, CS_REJECT, CS_UNAVAILABLE,
    CsCall, CsHost, CsHostEnv, CsHostHttp, CsHostKv, CsOp, CsSink, CsStatus, CsStr, CsTake,
};
use crate::host::{bytes, text};
use crate::http::{HttpRequest, HttpResponse};
use crate::{KeyLocator, Mfa, MfaVerifier, Observer, Plugin, Provider, Signal, Verifier, raw};

/// One recorded exchange. A recording is a JSON list of them.
#[derive(Debug, Clone, Deserialize)]
pub struct Exchange {
    /// The request: method and URL must be equal; a body, when the recording has one, too.
    pub request: HttpRequest,
    /// The answer; absent: the endpoint is out of reach.
    #[serde(default)]
    pub response: Option<HttpResponse>,
}

#[derive(Default)]
struct State {
    exchanges: VecDeque<Exchange>,
    requests: Vec<HttpRequest>,
    secrets: BTreeMap<String, Vec<u8>>,
    kv: BTreeMap<Vec<u8>, Vec<u8>>,
    now_unix_ms: i64,
    remaining_ms: i64,
    random: u8,
    logs: Vec<String>,
    counts: BTreeMap<String, f64>,
}

struct Inner {
    state: Mutex<State>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A host that answers from memory. Its table lives as long as the process, as the header promises.
#[derive(Clone)]
pub struct FakeHost {
    inner: Arc<Inner>,
    table: &'static CsHost,
}

// SAFETY: the table is never written to, and what `ctx` leads to is behind a lock.
unsafe impl Send for FakeHost {}
// SAFETY: as above.
unsafe impl Sync for FakeHost {}

impl Default for FakeHost {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeHost {
    /// With no secret, no recording, 10 s for each call, at 2026-01-01T00:00:00Z.
    #[must_use]
    pub fn new() -> Self {
        let state = State { now_unix_ms: 1_767_225_600_000, remaining_ms: 10_000, ..State::default() };
        let inner = Arc::new(Inner { state: Mutex::new(state) });
        let table = Box::leak(Box::new(CsHost {
            size: size_of::<CsHost>() as u32,
            abi_minor: CS_ABI_MINOR,
            ctx: Arc::into_raw(Arc::clone(&inner)).cast_mut().cast(),
            put: Some(put),
            get_extension: Some(get_extension),
            remaining_ms: Some(remaining_ms),
            log: Some(log),
        }));
        Self { inner, table }
    }

    /// With a secret.
    #[must_use]
    pub fn secret(self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.inner.state().secrets.insert(name.to_owned(), value.into());
        self
    }

    /// With one more recorded answer.
    #[must_use]
    pub fn answers(self, method: &str, url: &str, status: u16, body: &str) -> Self {
        let mut request = HttpRequest::get(url);
        method.clone_into(&mut request.method);
        let response = Some(HttpResponse { status, headers: BTreeMap::new(), body: body.to_owned() });
        self.inner.state().exchanges.push_back(Exchange { request, response });
        self
    }

    /// With a recording: a JSON list of [`Exchange`]s.
    ///
    /// # Panics
    /// When the text is none.
    #[must_use]
    pub fn recording(self, json: &str) -> Self {
        let exchanges: Vec<Exchange> = serde_json::from_str(json).expect("a recording is a list of exchanges");
        self.inner.state().exchanges.extend(exchanges);
        self
    }

    /// With this time.
    #[must_use]
    pub fn at_unix_ms(self, now: i64) -> Self {
        self.inner.state().now_unix_ms = now;
        self
    }

    /// With so much time left in each call.
    #[must_use]
    pub fn remaining_ms(self, left: i64) -> Self {
        self.inner.state().remaining_ms = left;
        self
    }

    /// The requests that were made, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<HttpRequest> {
        self.inner.state().requests.clone()
    }

    /// The lines that were logged.
    #[must_use]
    pub fn logs(&self) -> Vec<String> {
        self.inner.state().logs.clone()
    }

    /// What was counted under this metric.
    #[must_use]
    pub fn counted(&self, metric: &str) -> f64 {
        self.inner.state().counts.get(metric).copied().unwrap_or_default()
    }

    /// Makes an instance as a host does.
    ///
    /// # Errors
    /// The message of a `create` that refused or panicked.
    pub fn create<P: Plugin>(&self, config: Value) -> Result<TestPlugin<P>, String> {
        let mut this = std::ptr::null_mut();
        let mut sink = Sink::default();
        let config = config.to_string();
        // SAFETY: the table is static; all pointers live across the call.
        let status = unsafe {
            raw::create::<P>(self.table, text(config.as_bytes()), &raw mut this, (&raw mut sink).cast::<CsSink>())
        };
        if status == CS_OK {
            return Ok(TestPlugin { this, host: self.clone(), _plugin: PhantomData });
        }
        let told: Value = serde_json::from_slice(&sink.0).unwrap_or_default();
        Err(told["message"].as_str().unwrap_or("no message").to_owned())
    }
}

/// A plugin that was made by a [`FakeHost`].
pub struct TestPlugin<P: Plugin> {
    this: *mut c_void,
    host: FakeHost,
    _plugin: PhantomData<P>,
}

/// Why an operation gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// `CS_…` of [`abi`](crate::abi).
    pub status: CsStatus,
    /// The code of a refusal.
    pub code: Option<String>,
}

impl<P: Plugin> TestPlugin<P> {
    fn run(&self, op: CsOp, input: &Value) -> Result<Value, Refused> {
        let input = input.to_string();
        let mut sink = Sink::default();
        let call: i64 = self.host.inner.state().remaining_ms;
        // SAFETY: `this` came from `create` and is destroyed in `drop`; the rest lives across the call.
        let status = unsafe {
            op(
                self.this,
                (&raw const call).cast::<CsCall>(),
                text(input.as_bytes()),
                (&raw mut sink).cast::<CsSink>(),
            )
        };
        let answer: Value = serde_json::from_slice(&sink.0).unwrap_or_default();
        if status == CS_OK {
            return Ok(answer);
        }
        Err(Refused { status, code: answer["code"].as_str().map(str::to_owned) })
    }
}

macro_rules! operations {
    ($($trait:ident: $name:ident = $function:ident;)*) => {$(
        impl<P: $trait> TestPlugin<P> {
            /// Asks, with the input as JSON.
            ///
            /// # Errors
            /// Any status but `CS_OK`.
            pub fn $name(&self, input: &Value) -> Result<Value, Refused> {
                self.run(raw::$function::<P>, input)
            }
        }
    )*};
}

operations! {
    KeyLocator: locate_keys = locate_keys;
    Verifier: verify = verify;
    Provider: enrich = enrich;
    Signal: signals = signals;
    Mfa: begin = mfa_begin;
    MfaVerifier: verify_code = mfa_verify;
    Observer: observe = observe;
}

impl<P: Plugin> Drop for TestPlugin<P> {
    fn drop(&mut self) {
        // SAFETY: `this` came from `create`, is not used again, and no call runs: they borrow `self`.
        unsafe { raw::destroy::<P>(self.this) };
    }
}

#[derive(Default)]
struct Sink(Vec<u8>);

/// # Safety
/// `ctx` is that of a [`FakeHost`]'s table, which holds a count of the `Arc` for ever.
unsafe fn inner<'a>(ctx: *mut c_void) -> Option<&'a Inner> {
    // SAFETY: the caller vouches for it.
    unsafe { ctx.cast::<Inner>().as_ref() }
}

unsafe extern "C" fn put(sink: *mut CsSink, json: CsStr) -> CsStatus {
    // SAFETY: sinks are made above, for the running call.
    let Some(sink) = (unsafe { sink.cast::<Sink>().as_mut() }) else { return CS_INVALID };
    // SAFETY: the plugin vouches for the bytes.
    sink.0 = unsafe { bytes(json) }.to_vec();
    CS_OK
}

unsafe extern "C" fn remaining_ms(call: *const CsCall) -> i64 {
    // SAFETY: calls are made above: the number of milliseconds, alive for the call; null is none.
    unsafe { call.cast::<i64>().as_ref() }.copied().unwrap_or_default()
}

unsafe extern "C" fn log(ctx: *mut c_void, _call: *const CsCall, _level: u32, message: CsStr, _fields: CsStr) {
    // SAFETY: `ctx` is the table's; the plugin vouches for the text.
    let (Some(inner), message) = (unsafe { (inner(ctx), bytes(message)) }) else { return };
    inner.state().logs.push(String::from_utf8_lossy(message).into_owned());
}

unsafe extern "C" fn get_extension(_ctx: *mut c_void, id: *const c_char) -> *const c_void {
    static HTTP: CsHostHttp = CsHostHttp { size: size_of::<CsHostHttp>() as u32, fetch: Some(fetch) };
    static KV: CsHostKv = CsHostKv { size: size_of::<CsHostKv>() as u32, get: Some(kv_get), set: Some(kv_set) };
    static ENV: CsHostEnv = CsHostEnv {
        size: size_of::<CsHostEnv>() as u32,
        secret: Some(secret),
        now_unix_ms: Some(now),
        random: Some(random),
        count: Some(count),
    };
    // SAFETY: ids end with NUL.
    let id = unsafe { CStr::from_ptr(id) };
    match id.to_bytes_with_nul() {
        CS_HOST_HTTP => (&raw const HTTP).cast(),
        CS_HOST_KV => (&raw const KV).cast(),
        CS_HOST_ENV => (&raw const ENV).cast(),
        _ => std::ptr::null(),
    }
}

/// # Safety
/// `user` is what the plugin gave with `take`.
unsafe fn give(take: Option<CsTake>, user: *mut c_void, value: &[u8]) -> CsStatus {
    let Some(take) = take else { return CS_INVALID };
    // SAFETY: the caller vouches for it; the value lives across the call.
    unsafe { take(user, text(value)) };
    CS_OK
}

unsafe extern "C" fn fetch(
    ctx: *mut c_void,
    _call: *const CsCall,
    request: CsStr,
    take: Option<CsTake>,
    user: *mut c_void,
) -> CsStatus {
    // SAFETY: `ctx` is the table's; the plugin vouches for the text.
    let (Some(inner), request) = (unsafe { (inner(ctx), bytes(request)) }) else { return CS_INVALID };
    let Ok(request) = serde_json::from_slice::<HttpRequest>(request) else { return CS_INVALID };
    let mut state = inner.state();
    state.requests.push(request.clone());
    let fits = |e: &Exchange| {
        e.request.method == request.method
            && e.request.url == request.url
            && (e.request.body.is_none() || e.request.body == request.body)
    };
    let Some(at) = state.exchanges.iter().position(fits) else {
        state.logs.push(format!("not recorded: {} {}", request.method, request.url));
        return CS_REJECT;
    };
    let Some(Exchange { response: Some(response), .. }) = state.exchanges.remove(at) else { return CS_UNAVAILABLE };
    drop(state);
    let answer = serde_json::to_vec(&response).unwrap_or_default();
    // SAFETY: as the plugin gave them.
    unsafe { give(take, user, &answer) }
}

unsafe extern "C" fn kv_get(
    ctx: *mut c_void,
    _call: *const CsCall,
    key: CsStr,
    take: Option<CsTake>,
    user: *mut c_void,
) -> CsStatus {
    // SAFETY: as in `fetch`.
    let (Some(inner), key) = (unsafe { (inner(ctx), bytes(key)) }) else { return CS_INVALID };
    let Some(value) = inner.state().kv.get(key).cloned() else { return CS_DECLINED };
    // SAFETY: as the plugin gave them.
    unsafe { give(take, user, &value) }
}

unsafe extern "C" fn kv_set(
    ctx: *mut c_void,
    _call: *const CsCall,
    key: CsStr,
    value: CsStr,
    _ttl_s: u32,
) -> CsStatus {
    // SAFETY: as in `fetch`.
    let (Some(inner), key, value) = (unsafe { (inner(ctx), bytes(key), bytes(value)) }) else { return CS_INVALID };
    if value.is_empty() {
        inner.state().kv.remove(key);
    } else {
        inner.state().kv.insert(key.to_vec(), value.to_vec());
    }
    CS_OK
}

unsafe extern "C" fn secret(
    ctx: *mut c_void,
    _call: *const CsCall,
    name: CsStr,
    take: Option<CsTake>,
    user: *mut c_void,
) -> CsStatus {
    // SAFETY: as in `fetch`.
    let (Some(inner), name) = (unsafe { (inner(ctx), bytes(name)) }) else { return CS_INVALID };
    let name = String::from_utf8_lossy(name);
    let Some(value) = inner.state().secrets.get(&*name).cloned() else { return CS_REJECT };
    // SAFETY: as the plugin gave them.
    unsafe { give(take, user, &value) }
}

unsafe extern "C" fn now(ctx: *mut c_void, _call: *const CsCall) -> i64 {
    // SAFETY: `ctx` is the table's.
    unsafe { inner(ctx) }.map_or(0, |inner| inner.state().now_unix_ms)
}

/// Not random: 1, 2, 3, …, so that a test can tell what comes.
unsafe extern "C" fn random(ctx: *mut c_void, buffer: *mut u8, len: usize) -> CsStatus {
    // SAFETY: `ctx` is the table's.
    let Some(inner) = (unsafe { inner(ctx) }) else { return CS_INVALID };
    let mut state = inner.state();
    for at in 0..len {
        state.random = state.random.wrapping_add(1);
        // SAFETY: the plugin vouches for `len` writable bytes.
        unsafe { buffer.add(at).write(state.random) };
    }
    CS_OK
}

unsafe extern "C" fn count(ctx: *mut c_void, _call: *const CsCall, metric: CsStr, value: f64, _labels: CsStr) {
    // SAFETY: as in `log`.
    let (Some(inner), metric) = (unsafe { (inner(ctx), bytes(metric)) }) else { return };
    *inner.state().counts.entry(String::from_utf8_lossy(metric).into_owned()).or_default() += value;
}
