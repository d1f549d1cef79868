//! The other side of `cs_host`, `cs_sink` and `cs_call`: what a plugin calls. With `instance`, the only
//! place of the server with `unsafe`.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::mem::size_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use countersign_plugin_sdk::abi::{
    CS_ABI_MINOR, CS_HOST_ENV, CS_HOST_HTTP, CS_HOST_KV, CS_INTERNAL, CS_INVALID, CS_OK, CsCall, CsHost, CsHostEnv,
    CsHostHttp, CsHostKv, CsSink, CsStatus, CsStr, CsTake,
};

use super::services::{HostServices, INPUT_LIMIT_BYTES, LOG_LIMIT_BYTES, Service, pack_kv_set, printable};

/// The most that `put` takes.
const SINK_LIMIT_BYTES: usize = 1 << 20;
const LOG_LINES_PER_CALL: u32 = 32;
/// The time of a request outside of a call.
const WITHOUT_CALL: Duration = Duration::from_secs(10);
const RANDOM_LIMIT_BYTES: usize = 1 << 16;

/// What `put` was given.
#[derive(Default)]
pub(super) struct Sink {
    pub(super) bytes: Vec<u8>,
    pub(super) overflowed: bool,
}

impl Sink {
    /// `{"message": "…"}`, or whatever text was put, made fit for a log line.
    pub(super) fn message(&self) -> String {
        let told = serde_json::from_slice::<serde_json::Value>(&self.bytes).ok();
        let told = told.as_ref().and_then(|v| v.get("message")).and_then(|m| m.as_str());
        let line = printable(told.map_or(self.bytes.as_slice(), str::as_bytes), 512);
        if line.is_empty() { "it gave no message".to_owned() } else { line }
    }
}

/// A call that runs on this thread.
struct Running {
    number: usize,
    deadline: Instant,
    log_lines: u32,
    sink: Sink,
}

thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// Runs `work` as a call, and gives what was put.
///
/// `cs_call` and `cs_sink` are both the number of the call and no address. So one that is used after the call
/// returned, or on another thread, is known and refused, and writes nothing anywhere.
pub(super) fn within<T>(deadline: Instant, work: impl FnOnce(*const CsCall, *mut CsSink) -> T) -> (T, Sink) {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let outer = RUNNING.replace(Some(Running { number, deadline, log_lines: 0, sink: Sink::default() }));
    let done = work(ptr::without_provenance(number), ptr::without_provenance_mut(number));
    let sink = RUNNING.replace(outer).map(|running| running.sink).unwrap_or_default();
    (done, sink)
}

/// The call with this number, if it is the one that runs on this thread.
fn running<T>(number: usize, with: impl FnOnce(&mut Running) -> T) -> Option<T> {
    let find = |cell: &RefCell<Option<Running>>| {
        let mut cell = cell.try_borrow_mut().ok()?;
        cell.as_mut().filter(|running| running.number == number).map(with)
    };
    // A thread that ends may have lost it already.
    RUNNING.try_with(find).ok().flatten()
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
            ctx: ptr::null_mut(),
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

/// When a request must be done; `None` for a call that does not run here.
fn deadline_of(call: *const CsCall) -> Option<Instant> {
    if call.is_null() {
        return Some(Instant::now() + WITHOUT_CALL);
    }
    running(call.addr(), |call| call.deadline)
}

/// `cs_host.put`.
unsafe extern "C" fn put(sink: *mut CsSink, json: CsStr) -> CsStatus {
    // SAFETY: the plugin vouches for pointer and length of what it gives; one that is too long is not read.
    let json = if json.len > SINK_LIMIT_BYTES { None } else { Some(unsafe { borrow(json) }) };
    let written = running(sink.addr(), |call| match json {
        Some(Some(json)) => {
            call.sink.bytes = json.to_vec();
            CS_OK
        }
        Some(None) => CS_INVALID,
        None => {
            call.sink = Sink { bytes: Vec::new(), overflowed: true };
            CS_INVALID
        }
    });
    written.unwrap_or(CS_INVALID)
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
        return ptr::null();
    }
    // SAFETY: the plugin vouches for a text that ends with NUL; `ctx` is ours.
    let (Some(side), id) = (unsafe { (side(ctx), CStr::from_ptr(id)) }) else { return ptr::null() };
    match id.to_bytes_with_nul() {
        CS_HOST_HTTP if side.services.offers(Service::Fetch) => (&raw const HTTP).cast(),
        CS_HOST_KV if side.services.offers(Service::KvGet) => (&raw const KV).cast(),
        CS_HOST_ENV => (&raw const ENV).cast(),
        _ => ptr::null(),
    }
}

/// `cs_host.remaining_ms`; without a call that runs here there is no time.
unsafe extern "C" fn remaining_ms(call: *const CsCall) -> i64 {
    let left = running(call.addr(), |call| call.deadline.saturating_duration_since(Instant::now()));
    i64::try_from(left.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// `cs_host.log`.
unsafe extern "C" fn log(ctx: *mut c_void, call: *const CsCall, level: u32, msg: CsStr, fields_json: CsStr) {
    // SAFETY: `ctx` is the leaked `HostSide`; null is ignored.
    let Some(side) = (unsafe { side(ctx) }) else { return };
    let count = |call: &mut Running| {
        call.log_lines = call.log_lines.saturating_add(1);
        call.log_lines <= LOG_LINES_PER_CALL
    };
    if !call.is_null() && !running(call.addr(), count).unwrap_or(false) {
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
    // SAFETY: the plugin vouches for pointer and length; `ctx` is ours.
    let (Some(side), Some(input)) = (unsafe { (side(ctx), borrow(input)) }) else { return CS_INVALID };
    let (Some(take), Some(deadline)) = (take, deadline_of(call)) else { return CS_INVALID };
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
    // SAFETY: the plugin vouches for pointers and lengths; `ctx` is ours.
    let (Some(side), Some(key), Some(value)) = (unsafe { (side(ctx), borrow(key), borrow(value)) }) else {
        return CS_INVALID;
    };
    let Some(deadline) = deadline_of(call) else { return CS_INVALID };
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

#[expect(clippy::cast_possible_truncation, reason = "the tables of the header have a few dozen bytes")]
const fn size_of_u32<T>() -> u32 {
    size_of::<T>() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_create_is_read_from_json_or_taken_as_it_is() {
        let told = |bytes: &[u8]| Sink { bytes: bytes.to_vec(), overflowed: false }.message();
        assert_eq!(told(br#"{"message": "no key"}"#), "no key");
        assert_eq!(told(b"plain\ntext"), "plain text");
        assert_eq!(told(b""), "it gave no message");
    }
}
