//! Handles over what the host gives: [`Host`] for the life of the process, [`Call`] for one call.

use std::ffi::c_void;
use std::marker::PhantomData;

use serde_json::{Value, json};

use crate::abi::{
    CS_DECLINED, CS_HOST_ENV, CS_HOST_HTTP, CS_HOST_KV, CS_LOG_DEBUG, CS_LOG_ERROR, CS_LOG_INFO, CS_LOG_TRACE,
    CS_LOG_WARN, CS_OK, CS_REJECT, CS_TIMEOUT, CsCall, CsHost, CsHostEnv, CsHostHttp, CsHostKv, CsStatus, CsStr,
};
use crate::http::{HttpRequest, HttpResponse};
use crate::outcome::PluginError;

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Someone should act.
    Error,
    /// Something is odd.
    Warn,
    /// Worth a line.
    Info,
    /// For the plugin's author.
    Debug,
    /// For the plugin's author, in detail.
    Trace,
}

/// The host, for the life of the process.
///
/// Time, secrets, requests and the key-value store exist when the lock file grants them; without a call
/// (in `create`, on threads of your own) a request has 10 s.
#[derive(Clone, Copy)]
pub struct Host {
    table: Option<&'static CsHost>,
}

// SAFETY: the header lets the functions of `cs_host` be called from any thread, and the table is never written to.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl Host {
    /// A host that is not there, for unit tests of plugins: logs go nowhere, nothing is offered. For one
    /// that answers see [`testkit`](crate::testkit).
    #[must_use]
    pub const fn detached() -> Self {
        Self { table: None }
    }

    pub(crate) const fn new(table: Option<&'static CsHost>) -> Self {
        Self { table }
    }

    pub(crate) const fn table(&self) -> Option<&'static CsHost> {
        self.table
    }

    /// Writes a line to the host's log. No secrets, tokens or personal data.
    pub fn log(&self, level: Level, message: &str) {
        self.log_in(std::ptr::null(), level, message, &Value::Null);
    }

    /// The same with fields: an object.
    pub fn log_with(&self, level: Level, message: &str, fields: &Value) {
        self.log_in(std::ptr::null(), level, message, fields);
    }

    pub(crate) fn log_in(&self, call: *const CsCall, level: Level, message: &str, fields: &Value) {
        let Some(table) = self.table else { return };
        let Some(log) = table.log else { return };
        let fields = if fields.is_object() { fields.to_string() } else { String::new() };
        let level = match level {
            Level::Error => CS_LOG_ERROR,
            Level::Warn => CS_LOG_WARN,
            Level::Info => CS_LOG_INFO,
            Level::Debug => CS_LOG_DEBUG,
            Level::Trace => CS_LOG_TRACE,
        };
        // SAFETY: the table is the host's; `call` is null or the running call; the texts live across the call.
        unsafe { log(table.ctx, call, level, text(message.as_bytes()), text(fields.as_bytes())) };
    }

    /// The whole secret, which the lock file must grant by name.
    ///
    /// # Errors
    /// When it is not granted or not there.
    pub fn secret(&self, name: &str) -> Result<Vec<u8>, PluginError> {
        self.secret_in(std::ptr::null(), name)
    }

    /// One request.
    ///
    /// # Errors
    /// When the host is not granted, or no answer came in time. A status of 500 is an answer.
    pub fn fetch(&self, request: &HttpRequest) -> Result<HttpResponse, PluginError> {
        self.fetch_in(std::ptr::null(), request)
    }

    /// The time, in milliseconds since 1970.
    ///
    /// # Errors
    /// When there is no host.
    pub fn now_unix_ms(&self) -> Result<i64, PluginError> {
        let env = self.env()?;
        let now = env.now_unix_ms.ok_or_else(|| not_offered("time"))?;
        // SAFETY: the table is the host's; a null call is allowed.
        Ok(unsafe { now(self.ctx(), std::ptr::null()) })
    }

    /// Random bytes of the host's cryptographic generator.
    ///
    /// # Errors
    /// When there is no host.
    pub fn random(&self, buffer: &mut [u8]) -> Result<(), PluginError> {
        let random = self.env()?.random.ok_or_else(|| not_offered("randomness"))?;
        // SAFETY: pointer and length are those of the buffer, which lives across the call.
        let status = unsafe { random(self.ctx(), buffer.as_mut_ptr(), buffer.len()) };
        check(status, "random bytes")
    }

    /// Adds to the counter `countersign_plugin_custom_total{plugin, metric, …}`. Never fails.
    pub fn count(&self, metric: &str, value: f64, labels: &Value) {
        let Ok(env) = self.env() else { return };
        let Some(count) = env.count else { return };
        let labels = if labels.is_object() { labels.to_string() } else { String::new() };
        // SAFETY: the texts live across the call.
        unsafe { count(self.ctx(), std::ptr::null(), text(metric.as_bytes()), value, text(labels.as_bytes())) };
    }

    /// A value of the plugin's own store; `None` when it is absent or has expired.
    ///
    /// # Errors
    /// When the lock file grants no store, or it is out of reach.
    pub fn kv_get(&self, key: &str) -> Result<Option<Vec<u8>>, PluginError> {
        self.kv_get_in(std::ptr::null(), key)
    }

    /// Keeps a value for `ttl_s` seconds; an empty one removes the key.
    ///
    /// # Errors
    /// When the lock file grants no store or not enough, or it is out of reach.
    pub fn kv_set(&self, key: &str, value: &[u8], ttl_s: u32) -> Result<(), PluginError> {
        self.kv_set_in(std::ptr::null(), key, value, ttl_s)
    }

    fn secret_in(&self, call: *const CsCall, name: &str) -> Result<Vec<u8>, PluginError> {
        let secret = self.env()?.secret.ok_or_else(|| not_offered("secrets"))?;
        let mut value = Vec::new();
        // SAFETY: `name` and `value` live across the call; `keep` is given the vector that it expects.
        let status =
            unsafe { secret(self.ctx(), call, text(name.as_bytes()), Some(keep), (&raw mut value).cast()) };
        check(status, &format!("secret {name}"))?;
        Ok(value)
    }

    fn fetch_in(&self, call: *const CsCall, request: &HttpRequest) -> Result<HttpResponse, PluginError> {
        // SAFETY: the header gives this id this table, static.
        let http = unsafe { self.extension(CS_HOST_HTTP).cast::<CsHostHttp>().as_ref() };
        let fetch = http.and_then(|t| t.fetch).ok_or_else(|| not_offered("requests"))?;
        let request = serde_json::to_string(request).map_err(|e| PluginError::new(format!("the request: {e}")))?;
        let mut answer = Vec::new();
        // SAFETY: as in `secret_in`.
        let status =
            unsafe { fetch(self.ctx(), call, text(request.as_bytes()), Some(keep), (&raw mut answer).cast()) };
        check(status, "the request")?;
        serde_json::from_slice(&answer).map_err(|e| PluginError::new(format!("the answer to a request: {e}")))
    }

    fn kv_get_in(&self, call: *const CsCall, key: &str) -> Result<Option<Vec<u8>>, PluginError> {
        let get = self.kv()?.get.ok_or_else(|| not_offered("the store"))?;
        let mut value = Vec::new();
        // SAFETY: as in `secret_in`.
        let status = unsafe { get(self.ctx(), call, text(key.as_bytes()), Some(keep), (&raw mut value).cast()) };
        if status == CS_DECLINED {
            return Ok(None);
        }
        check(status, "the store").map(|()| Some(value))
    }

    fn kv_set_in(&self, call: *const CsCall, key: &str, value: &[u8], ttl_s: u32) -> Result<(), PluginError> {
        let set = self.kv()?.set.ok_or_else(|| not_offered("the store"))?;
        // SAFETY: both texts live across the call.
        check(unsafe { set(self.ctx(), call, text(key.as_bytes()), text(value), ttl_s) }, "the store")
    }

    fn kv(&self) -> Result<&'static CsHostKv, PluginError> {
        // SAFETY: the header gives this id this table, static.
        unsafe { self.extension(CS_HOST_KV).cast::<CsHostKv>().as_ref() }.ok_or_else(|| not_offered("the store"))
    }

    fn env(&self) -> Result<&'static CsHostEnv, PluginError> {
        // SAFETY: the header gives this id this table, static.
        unsafe { self.extension(CS_HOST_ENV).cast::<CsHostEnv>().as_ref() }.ok_or_else(|| not_offered("env"))
    }

    fn ctx(&self) -> *mut c_void {
        self.table.map_or(std::ptr::null_mut(), |t| t.ctx)
    }

    fn extension(&self, id: &'static [u8]) -> *const c_void {
        let Some(table) = self.table else { return std::ptr::null() };
        let Some(get_extension) = table.get_extension else { return std::ptr::null() };
        // SAFETY: every id of `abi` ends with NUL.
        unsafe { get_extension(table.ctx, id.as_ptr().cast()) }
    }
}

fn not_offered(what: &str) -> PluginError {
    PluginError::new(format!("the host does not offer {what}; does plugins.lock grant it?"))
}

fn check(status: CsStatus, what: &str) -> Result<(), PluginError> {
    let why = match status {
        CS_OK => return Ok(()),
        CS_DECLINED => "is not there",
        CS_REJECT => "is not granted by plugins.lock",
        CS_TIMEOUT => "took too long",
        _ => "cannot be had now",
    };
    Err(PluginError::new(format!("{what} {why}")))
}

/// `cs_take` into a vector.
unsafe extern "C" fn keep(user: *mut c_void, value: CsStr) {
    // SAFETY: `user` is the vector that the callers above pass, and nobody else has it now.
    let Some(into) = (unsafe { user.cast::<Vec<u8>>().as_mut() }) else { return };
    // SAFETY: the header promises that the value is readable for the call.
    into.extend_from_slice(unsafe { bytes(value) });
}

/// The running call.
pub struct Call<'a> {
    raw: *const CsCall,
    host: Host,
    assumed_ms: i64,
    _call: PhantomData<&'a CsCall>,
}

impl Call<'_> {
    /// A call that no host made, for unit tests of plugins.
    #[must_use]
    pub const fn detached(remaining_ms: i64) -> Self {
        Self { raw: std::ptr::null(), host: Host::detached(), assumed_ms: remaining_ms, _call: PhantomData }
    }

    pub(crate) const fn new(raw: *const CsCall, host: Host) -> Self {
        Self { raw, host, assumed_ms: 0, _call: PhantomData }
    }

    /// The host.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Milliseconds left; 0 or less: stop now. The host goes on without the plugin soon after.
    #[must_use]
    pub fn remaining_ms(&self) -> i64 {
        match self.host.table.and_then(|t| t.remaining_ms) {
            // SAFETY: `raw` is the running call, which outlives this handle.
            Some(remaining_ms) => unsafe { remaining_ms(self.raw) },
            None => self.assumed_ms,
        }
    }

    /// Writes a line to the host's log, at most 32 in one call. No secrets, tokens or personal data.
    pub fn log(&self, level: Level, message: &str) {
        self.host.log_in(self.raw, level, message, &json!(null));
    }

    /// As [`Host::secret`].
    ///
    /// # Errors
    /// The same.
    pub fn secret(&self, name: &str) -> Result<Vec<u8>, PluginError> {
        self.host.secret_in(self.raw, name)
    }

    /// As [`Host::fetch`], within what is left of the call.
    ///
    /// # Errors
    /// The same.
    pub fn fetch(&self, request: &HttpRequest) -> Result<HttpResponse, PluginError> {
        self.host.fetch_in(self.raw, request)
    }

    /// As [`Host::kv_get`].
    ///
    /// # Errors
    /// The same.
    pub fn kv_get(&self, key: &str) -> Result<Option<Vec<u8>>, PluginError> {
        self.host.kv_get_in(self.raw, key)
    }

    /// As [`Host::kv_set`].
    ///
    /// # Errors
    /// The same.
    pub fn kv_set(&self, key: &str, value: &[u8], ttl_s: u32) -> Result<(), PluginError> {
        self.host.kv_set_in(self.raw, key, value, ttl_s)
    }
}

pub(crate) fn text(bytes: &[u8]) -> CsStr {
    CsStr { ptr: bytes.as_ptr(), len: bytes.len() }
}

/// # Safety
/// `input` must name `len` readable bytes that live at least as long as the result is used.
pub(crate) unsafe fn bytes<'a>(input: CsStr) -> &'a [u8] {
    if input.ptr.is_null() || input.len == 0 {
        return &[];
    }
    // SAFETY: the caller vouches for pointer, length and lifetime.
    unsafe { std::slice::from_raw_parts(input.ptr, input.len) }
}
