//! The other side of `cs_host`, `cs_sink` and `cs_call`: what a plugin calls. With `instance`, the only
//! place of the server with `unsafe`.

use std::ffi::{CStr, c_char, c_void};
use std::mem::size_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use countersign_plugin_sdk::abi::{
    CS_ABI_MINOR, CS_HOST_ENV, CS_HOST_HTTP, CS_HOST_KV, CS_INTERNAL, CS_INVALID, CS_OK, CsCall, CsHost, CsHostEnv,
    CsHostHttp, CsHostKv, CsSink, CsStatus, CsStr, CsTake,
};

use super::services::{HostServices, Service, pack_kv_set};

/// The most that `put` takes.
const SINK_LIMIT_BYTES: usize = 1 << 20;
/// The most that a service takes.
const INPUT_LIMIT_BYTES: usize = 1 << 20;
const LOG_LIMIT_BYTES: usize = 2048;
const LOG_LINES_PER_CALL: u32 = 32;
/// The time of a request outside of a call.
const WITHOUT_CALL: Duration = Duration::from_secs(10);
const RANDOM_LIMIT_BYTES: usize = 1 << 16;

/// The other side of `cs_sink`.
#[derive(Default)]
pub(super) struct Sink {
    pub(super) bytes: Vec<u8>,
    pub(super) overflowed: bool,
}

impl Sink {
    pub(super) fn as_raw(&mut self) -> *mut CsSink {
        (&raw mut *self).cast()
    }

    /// `{"message": "…"}`, or whatever text was put, made fit for a log line.
    pub(super) fn message(&self) -> String {
        let told = serde_json::from_slice::<serde_json::Value>(&self.bytes).ok();
        let told = told.as_ref().and_then(|v| v.get("message")).and_then(|m| m.as_str());
        let line = printable(told.map_or(self.bytes.as_slice(), str::as_bytes), 512);
        if line.is_empty() { "it gave no message".to_owned() } else { line }
    }
}

/// The other side of `cs_call`.
pub(super) struct CallSide {
    deadline: Instant,
    log_lines: AtomicU32,
}

impl CallSide {
    pub(super) const fn new(deadline: Instant) -> Self {
        Self { deadline, log_lines: AtomicU32::new(0) }
    }

    pub(super) fn as_raw(&self) -> *const CsCall {
        (&raw const *self).cast()
    }
}

/// The other side of `cs_host.ctx`.
pub(super) struct HostSide {
    pub(super) table: CsHost,
    services: Arc<dyn HostServices>,
}

impl HostSide {
    /// The header promises the table for the life of the process.
    pub(super) fn leak(services: Arc<dyn HostServices>) -> &'static Self {
        let table = CsHost {
            size: size_of_u32::<CsHost>(),
            abi_minor: CS_ABI_MINOR,
            ctx: std::ptr::null_mut(),
            put: Some(put),
            get_extension: Some(get_extension),
            remaining_ms: Some(remaining_ms),
            log: Some(log),
        };
        let side = Box::into_raw(Box::new(Self { table, services }));
        // SAFETY: fresh from the box, so valid and unshared; leaked, so static; not written to afterwards.
        unsafe {
            (*side).table.ctx = side.cast();
            &*side
        }
    }
}

/// # Safety
/// `ctx` is null or the leaked [`HostSide`].
unsafe fn side<'a>(ctx: *mut c_void) -> Option<&'a HostSide> {
    // SAFETY: the caller vouches for it.
    unsafe { ctx.cast::<HostSide>().as_ref() }
}

/// # Safety
/// `call` is null or was made by [`CallSide::as_raw`] for a call that has not returned.
unsafe fn deadline_of(call: *const CsCall) -> Instant {
    // SAFETY: the caller vouches for it.
    let call = unsafe { call.cast::<CallSide>().as_ref() };
    call.map_or_else(|| Instant::now() + WITHOUT_CALL, |c| c.deadline)
}

/// `cs_host.put`.
unsafe extern "C" fn put(sink: *mut CsSink, json: CsStr) -> CsStatus {
    // SAFETY: a sink is only ever made by `Sink::as_raw`, for the running call; null is refused.
    let Some(sink) = (unsafe { sink.cast::<Sink>().as_mut() }) else { return CS_INVALID };
    if json.len > SINK_LIMIT_BYTES {
        sink.overflowed = true;
        sink.bytes = Vec::new();
        return CS_INVALID;
    }
    // SAFETY: the plugin vouches for pointer and length of what it gives.
    let Some(json) = (unsafe { borrow(json) }) else { return CS_INVALID };
    sink.bytes = json.to_vec();
    CS_OK
}

/// `cs_host.get_extension`.
unsafe extern "C" fn get_extension(ctx: *mut c_void, id: *const c_char) -> *const c_void {
    static HTTP: CsHostHttp = CsHostHttp { size: size_of_u32::<CsHostHttp>(), fetch: Some(fetch) };
    static KV: CsHostKv = CsHostKv { size: size_of_u32::<CsHostKv>(), get: Some(kv_get), set: Some(kv_set) };
    static ENV: CsHostEnv = CsHostEnv {
        size: size_of_u32::<CsHostEnv>(),
        secret: Some(secret),
        now_unix_ms: Some(now_unix_ms),
        random: Some(random),
        count: Some(count),
    };
    if id.is_null() {
        return std::ptr::null();
    }
    // SAFETY: the plugin vouches for a text that ends with NUL; `ctx` is ours.
    let (Some(side), id) = (unsafe { (side(ctx), CStr::from_ptr(id)) }) else { return std::ptr::null() };
    match id.to_bytes_with_nul() {
        CS_HOST_HTTP if side.services.offers(Service::Fetch) => (&raw const HTTP).cast(),
        CS_HOST_KV if side.services.offers(Service::KvGet) => (&raw const KV).cast(),
        CS_HOST_ENV => (&raw const ENV).cast(),
        _ => std::ptr::null(),
    }
}

/// `cs_host.remaining_ms`; without a call there is no time.
unsafe extern "C" fn remaining_ms(call: *const CsCall) -> i64 {
    // SAFETY: a call is only ever made by `CallSide::as_raw`, and not used after it returned.
    let Some(call) = (unsafe { call.cast::<CallSide>().as_ref() }) else { return 0 };
    let left = call.deadline.saturating_duration_since(Instant::now());
    i64::try_from(left.as_millis()).unwrap_or(i64::MAX)
}

/// `cs_host.log`.
unsafe extern "C" fn log(ctx: *mut c_void, call: *const CsCall, level: u32, msg: CsStr, fields_json: CsStr) {
    // SAFETY: `ctx` is the leaked `HostSide`; null is ignored.
    let Some(side) = (unsafe { side(ctx) }) else { return };
    // SAFETY: as in `remaining_ms`.
    if let Some(call) = unsafe { call.cast::<CallSide>().as_ref() }
        && call.log_lines.fetch_add(1, Ordering::Relaxed) >= LOG_LINES_PER_CALL
    {
        return;
    }
    // SAFETY: the plugin vouches for pointer and length of both texts.
    let (Some(msg), Some(fields)) = (unsafe { (borrow(msg), borrow(fields_json)) }) else { return };
    let (message, fields) = (printable(msg, LOG_LIMIT_BYTES), printable(fields, LOG_LIMIT_BYTES));
    // A panic must not cross into C; a subscriber of the log is not ours to vouch for.
    let _ = catch_unwind(AssertUnwindSafe(|| side.services.log(level, &message, &fields)));
}

/// Asks a service and hands its answer over.
///
/// # Safety
/// As the header says of host extensions.
unsafe fn serve(
    service: Service,
    ctx: *mut c_void,
    call: *const CsCall,
    input: CsStr,
    take: Option<CsTake>,
    user: *mut c_void,
) -> CsStatus {
    // SAFETY: the plugin vouches for pointer and length; `ctx` and `call` are ours.
    let (Some(side), Some(input), deadline) = (unsafe { (side(ctx), borrow(input), deadline_of(call)) }) else {
        return CS_INVALID;
    };
    let Some(take) = take else { return CS_INVALID };
    if input.len() > INPUT_LIMIT_BYTES {
        return CS_INVALID;
    }
    let answer = catch_unwind(AssertUnwindSafe(|| side.services.ask(service, input, deadline)));
    let Ok((status, value)) = answer else { return CS_INTERNAL };
    if status == CS_OK {
        // SAFETY: `take` and `user` are the plugin's; the value lives across the call.
        unsafe { take(user, text_of(&value)) };
    }
    status
}

/// `cs_host_http.fetch`.
unsafe extern "C" fn fetch(
    ctx: *mut c_void,
    call: *const CsCall,
    request: CsStr,
    take: Option<CsTake>,
    user: *mut c_void,
) -> CsStatus {
    // SAFETY: the same promises.
    unsafe { serve(Service::Fetch, ctx, call, request, take, user) }
}

/// `cs_host_kv.get`.
unsafe extern "C" fn kv_get(
    ctx: *mut c_void,
    call: *const CsCall,
    key: CsStr,
    take: Option<CsTake>,
    user: *mut c_void,
) -> CsStatus {
    // SAFETY: the same promises.
    unsafe { serve(Service::KvGet, ctx, call, key, take, user) }
}

/// `cs_host_env.secret`.
unsafe extern "C" fn secret(
    ctx: *mut c_void,
    call: *const CsCall,
    name: CsStr,
    take: Option<CsTake>,
    user: *mut c_void,
) -> CsStatus {
    // SAFETY: the same promises.
    unsafe { serve(Service::Secret, ctx, call, name, take, user) }
}

/// `cs_host_kv.set`.
unsafe extern "C" fn kv_set(
    ctx: *mut c_void,
    call: *const CsCall,
    key: CsStr,
    value: CsStr,
    ttl_s: u32,
) -> CsStatus {
    // SAFETY: the plugin vouches for pointers and lengths; `ctx` and `call` are ours.
    let (Some(side), Some(key), Some(value), deadline) =
        (unsafe { (side(ctx), borrow(key), borrow(value), deadline_of(call)) })
    else {
        return CS_INVALID;
    };
    if key.len() + value.len() > INPUT_LIMIT_BYTES {
        return CS_INVALID;
    }
    let Some(input) = pack_kv_set(key, value, ttl_s) else { return CS_INVALID };
    let asked = catch_unwind(AssertUnwindSafe(|| side.services.ask(Service::KvSet, &input, deadline).0));
    asked.unwrap_or(CS_INTERNAL)
}

/// `cs_host_env.now_unix_ms`.
unsafe extern "C" fn now_unix_ms(ctx: *mut c_void, _call: *const CsCall) -> i64 {
    // SAFETY: `ctx` is the leaked `HostSide`.
    let Some(side) = (unsafe { side(ctx) }) else { return 0 };
    catch_unwind(AssertUnwindSafe(|| side.services.now_unix_ms())).unwrap_or(0)
}

/// `cs_host_env.random`.
unsafe extern "C" fn random(ctx: *mut c_void, buffer: *mut u8, len: usize) -> CsStatus {
    // SAFETY: `ctx` is the leaked `HostSide`.
    let Some(side) = (unsafe { side(ctx) }) else { return CS_INVALID };
    if len == 0 {
        return CS_OK;
    }
    if buffer.is_null() || len > RANDOM_LIMIT_BYTES {
        return CS_INVALID;
    }
    let mut bytes = vec![0; len];
    if catch_unwind(AssertUnwindSafe(|| side.services.random(&mut bytes))).is_err() {
        return CS_INTERNAL;
    }
    // SAFETY: the plugin vouches for `len` writable bytes, which may be uninitialised.
    unsafe { buffer.copy_from_nonoverlapping(bytes.as_ptr(), len) };
    CS_OK
}

/// `cs_host_env.count`.
unsafe extern "C" fn count(ctx: *mut c_void, _call: *const CsCall, metric: CsStr, value: f64, labels_json: CsStr) {
    // SAFETY: the plugin vouches for pointers and lengths; `ctx` is ours.
    let (Some(side), Some(metric), Some(labels)) = (unsafe { (side(ctx), borrow(metric), borrow(labels_json)) })
    else {
        return;
    };
    let (metric, labels) = (printable(metric, 64), printable(labels, LOG_LIMIT_BYTES));
    let _ = catch_unwind(AssertUnwindSafe(|| side.services.count(&metric, value, &labels)));
}

/// # Safety
/// When the pointer is not null, it must name `len` readable bytes that live as long as the result is used.
unsafe fn borrow<'a>(text: CsStr) -> Option<&'a [u8]> {
    if text.len == 0 {
        return Some(&[]);
    }
    if text.ptr.is_null() || isize::try_from(text.len).is_err() {
        return None;
    }
    // SAFETY: the caller vouches for it.
    Some(unsafe { std::slice::from_raw_parts(text.ptr, text.len) })
}

pub(super) const fn text_of(bytes: &[u8]) -> CsStr {
    CsStr { ptr: bytes.as_ptr(), len: bytes.len() }
}

/// At most `limit` bytes, without control characters: a plugin cannot forge log lines.
fn printable(bytes: &[u8], limit: usize) -> String {
    let cut = String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]);
    cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "the tables of the header have a few dozen bytes")]
const fn size_of_u32<T>() -> u32 {
    size_of::<T>() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_cannot_forge_log_lines_or_flood_them() {
        assert_eq!(printable(b"a\nlevel=error\x1b[31m \xff", 64), "a level=error [31m \u{fffd}");
        assert_eq!(printable(&[b'x'; 5000], LOG_LIMIT_BYTES).len(), LOG_LIMIT_BYTES);
    }

    #[test]
    fn a_message_of_create_is_read_from_json_or_taken_as_it_is() {
        let told = |bytes: &[u8]| Sink { bytes: bytes.to_vec(), overflowed: false }.message();
        assert_eq!(told(br#"{"message": "no key"}"#), "no key");
        assert_eq!(told(b"plain\ntext"), "plain text");
        assert_eq!(told(b""), "it gave no message");
    }
}
