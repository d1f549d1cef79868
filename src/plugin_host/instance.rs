//! The border to native code. Every `unsafe` of the server stands in this file; the promises that its
//! comments lean on are those of `plugins/sdk/include/countersign_plugin.h`.
//!
//! What comes from the other side is checked before it is used as far as it can be: null, alignment,
//! sizes, lengths, text. A pointer that lies beyond that is a crash; nothing can help against it.

use std::ffi::{c_char, c_void};
use std::mem::{ManuallyDrop, align_of, offset_of, size_of};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use countersign_plugin_sdk::abi::{
    CS_ABI_MAJOR, CS_ABI_MINOR, CS_ENTRY, CS_EXT_META, CS_EXT_PROVIDER, CS_EXT_SIGNAL, CS_FLAG_BLOCKING,
    CS_FLAG_THREAD_SAFE, CS_INVALID, CS_LOG_DEBUG, CS_LOG_ERROR, CS_LOG_INFO, CS_LOG_TRACE, CS_LOG_WARN, CS_OK,
    CsCall, CsEntry, CsExtMeta, CsExtProvider, CsExtSignal, CsGetExtension, CsHost, CsOp, CsPlugin, CsSink,
    CsStatus, CsStr,
};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::error::{HandshakeFault as Fault, with_causes};
use super::hooks::Hook;

/// The most that `put` takes.
const SINK_LIMIT_BYTES: usize = 1 << 20;
const LOG_LIMIT_BYTES: usize = 2048;
const LOG_LINES_PER_CALL: u32 = 32;
const TEXT_LIMIT_BYTES: usize = 128;
const MANIFEST_LIMIT_BYTES: usize = 16 << 10;

/// A library that passed the handshake up to its own words on who it is.
pub(super) struct Opened {
    table: &'static CsPlugin,
    get_extension: CsGetExtension,
    pub(super) id: String,
    pub(super) version: String,
    pub(super) vendor: String,
}

/// Maps the library and reads its table. Constructors of the library run. It stays mapped for ever.
pub(super) fn open(copy: &Path) -> Result<Opened, Fault> {
    // SAFETY: constructors run here; the caller checked the hash of this very file against the lock, or
    // is the operator's own command, so they are as trusted as the lock.
    let library = unsafe { Library::open(Some(copy), RTLD_NOW | RTLD_LOCAL) };
    // Never closed: see the module's page.
    let library = ManuallyDrop::new(library.map_err(|e| Fault::NotLoadable(with_causes(&e)))?);
    // SAFETY: the header gives the symbol this type. A library that uses the name for something else
    // cannot be told from a plugin; the lock vouches for it.
    let entry = unsafe { library.get::<CsEntry>(CS_ENTRY) }.map_err(|_| Fault::NoEntry)?;
    // SAFETY: as above.
    let table = unsafe { entry(CS_ABI_MAJOR, CS_ABI_MINOR) };
    if table.is_null() || !table.addr().is_multiple_of(align_of::<CsPlugin>()) {
        return Err(Fault::NoTable);
    }
    // SAFETY: not null, aligned; the first two members are the same in every major version.
    let (size, major) = unsafe { ((&raw const (*table).size).read(), (&raw const (*table).abi_major).read()) };
    if major != CS_ABI_MAJOR {
        return Err(Fault::AbiMajor { needed: major });
    }
    check_size("cs_plugin", size, size_of::<CsPlugin>())?;
    // SAFETY: the table says that it is long enough, and the header that it is static and never written to.
    let table = unsafe { &*table };
    let get_extension = table.get_extension.ok_or(Fault::NullPointer("get_extension"))?;
    table.create.ok_or(Fault::NullPointer("create"))?;
    table.destroy.ok_or(Fault::NullPointer("destroy"))?;
    Ok(Opened {
        get_extension,
        id: read_text(table.id, "id", TEXT_LIMIT_BYTES)?,
        version: read_text(table.version, "version", TEXT_LIMIT_BYTES)?,
        vendor: read_text(table.vendor, "vendor", TEXT_LIMIT_BYTES)?,
        table,
    })
}

impl Opened {
    /// Whether calls of one instance may run at the same time.
    pub(super) const fn is_thread_safe(&self) -> bool {
        self.table.flags & CS_FLAG_THREAD_SAFE != 0
    }

    /// Whether calls may wait for something.
    pub(super) const fn may_block(&self) -> bool {
        self.table.flags & CS_FLAG_BLOCKING != 0
    }

    /// The manifest, which a plugin may leave out.
    pub(super) fn manifest(&self) -> Result<Option<String>, Fault> {
        // SAFETY: the header lets this id be asked for before `create`, with a null instance; the id ends with NUL.
        let meta = unsafe { (self.get_extension)(std::ptr::null_mut(), CS_EXT_META.as_ptr().cast()) };
        let meta = meta.cast::<CsExtMeta>();
        if meta.is_null() {
            return Ok(None);
        }
        check_extension(meta, "cs_ext_meta", offset_of!(CsExtMeta, manifest_json) + size_of::<*const c_char>())?;
        // SAFETY: not null, aligned, long enough for this member, static.
        let manifest = unsafe { (&raw const (*meta).manifest_json).read() };
        if manifest.is_null() {
            return Ok(None);
        }
        read_text(manifest, "manifest", MANIFEST_LIMIT_BYTES).map(Some)
    }

    /// Makes the instance. The second value ends it, on this thread, once the first is gone.
    pub(super) fn create(&self, config_json: &str, hooks: &[Hook]) -> Result<(Instance, Ending), Fault> {
        let create = self.table.create.ok_or(Fault::NullPointer("create"))?;
        let host = HostSide::leak(&self.id);
        let mut this = std::ptr::null_mut();
        let mut err = Sink::default();
        // SAFETY: `host` is static; the texts, `this` and `err` live across the call.
        let status = unsafe { create(&raw const host.table, text(config_json), &raw mut this, err.as_raw()) };
        if status != CS_OK {
            return Err(Fault::CreateRefused { status, message: err.message() });
        }
        let (alive, gone) = mpsc::channel();
        let ending = Ending { this, destroy: self.table.destroy, gone };
        let mut instance = Instance { this, enrich: None, signals: None, _alive: alive };
        match self.find_ops(&mut instance, hooks) {
            Ok(()) => Ok((instance, ending)),
            Err(fault) => {
                drop(instance);
                ending.wait();
                Err(fault)
            }
        }
    }

    fn find_ops(&self, instance: &mut Instance, hooks: &[Hook]) -> Result<(), Fault> {
        for hook in hooks {
            match hook {
                Hook::Enrich => instance.enrich = Some(self.enrich_op(instance.this)?),
                Hook::Signals => instance.signals = Some(self.signals_op(instance.this)?),
            }
        }
        Ok(())
    }

    fn enrich_op(&self, this: *mut c_void) -> Result<CsOp, Fault> {
        // SAFETY: `this` came from `create`; the id ends with NUL.
        let table = unsafe { (self.get_extension)(this, CS_EXT_PROVIDER.as_ptr().cast()) }.cast::<CsExtProvider>();
        let absent = Fault::NoHook { hook: Hook::Enrich.name() };
        if table.is_null() {
            return Err(absent);
        }
        let least = offset_of!(CsExtProvider, enrich) + size_of::<Option<CsOp>>();
        check_extension(table, "cs_ext_provider", least)?;
        // SAFETY: not null, aligned, long enough for this member, static.
        unsafe { (&raw const (*table).enrich).read() }.ok_or(absent)
    }

    fn signals_op(&self, this: *mut c_void) -> Result<CsOp, Fault> {
        // SAFETY: `this` came from `create`; the id ends with NUL.
        let table = unsafe { (self.get_extension)(this, CS_EXT_SIGNAL.as_ptr().cast()) }.cast::<CsExtSignal>();
        let absent = Fault::NoHook { hook: Hook::Signals.name() };
        if table.is_null() {
            return Err(absent);
        }
        let least = offset_of!(CsExtSignal, signals) + size_of::<Option<CsOp>>();
        check_extension(table, "cs_ext_signal", least)?;
        // SAFETY: not null, aligned, long enough for this member, static.
        unsafe { (&raw const (*table).signals).read() }.ok_or(absent)
    }
}

/// An instance that can be called, from any thread.
pub(super) struct Instance {
    this: *mut c_void,
    enrich: Option<CsOp>,
    signals: Option<CsOp>,
    /// Dropped with the instance; wakes its [`Ending`].
    _alive: mpsc::Sender<()>,
}

// SAFETY: the header lets operations be called from any thread; that calls do not overlap when the plugin
// is not thread-safe is the business of the permits in `plugin`.
unsafe impl Send for Instance {}
// SAFETY: as above; nothing in here is written to.
unsafe impl Sync for Instance {}

/// What a call gave, unjudged.
pub(super) struct RawReply {
    pub(super) status: CsStatus,
    pub(super) output: Vec<u8>,
    /// `put` was given more than it takes.
    pub(super) overflowed: bool,
}

impl Instance {
    /// Calls and waits. `None`: the instance was not asked to have this hook.
    pub(super) fn call(&self, hook: Hook, input: &[u8], deadline: Instant) -> Option<RawReply> {
        let op = match hook {
            Hook::Enrich => self.enrich,
            Hook::Signals => self.signals,
        }?;
        let call = CallSide { deadline, log_lines: AtomicU32::new(0) };
        let mut sink = Sink::default();
        let input = CsStr { ptr: input.as_ptr(), len: input.len() };
        // SAFETY: `this` came from `create` and is not destroyed while `self` lives; `call`, `input` and
        // `sink` live across the call, and the header forbids keeping them.
        let status = unsafe { op(self.this, (&raw const call).cast(), input, sink.as_raw()) };
        Some(RawReply { status, output: sink.bytes, overflowed: sink.overflowed })
    }
}

/// Ends an instance on the thread that made it.
pub(super) struct Ending {
    this: *mut c_void,
    destroy: Option<unsafe extern "C" fn(*mut c_void)>,
    gone: mpsc::Receiver<()>,
}

impl Ending {
    /// Waits until the instance is dropped, with every call on it, then destroys it.
    pub(super) fn wait(self) {
        // Nobody sends; the other end is dropped with the instance.
        while self.gone.recv().is_ok() {}
        if let Some(destroy) = self.destroy {
            // SAFETY: `this` came from `create`; the instance is gone, so no call runs or can begin.
            unsafe { destroy(self.this) };
        }
    }
}

/// The other side of `cs_sink`.
#[derive(Default)]
struct Sink {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl Sink {
    fn as_raw(&mut self) -> *mut CsSink {
        (&raw mut *self).cast()
    }

    /// `{"message": "…"}`, or whatever text was put, made fit for a log line.
    fn message(&self) -> String {
        let told = serde_json::from_slice::<serde_json::Value>(&self.bytes).ok();
        let told = told.as_ref().and_then(|v| v.get("message")).and_then(|m| m.as_str());
        let line = printable(told.map_or(self.bytes.as_slice(), str::as_bytes), 512);
        if line.is_empty() { "it gave no message".to_owned() } else { line }
    }
}

/// The other side of `cs_call`.
struct CallSide {
    deadline: Instant,
    log_lines: AtomicU32,
}

/// The other side of `cs_host.ctx`.
struct HostSide {
    table: CsHost,
    plugin: String,
}

impl HostSide {
    /// The header promises the table for the life of the process.
    fn leak(plugin: &str) -> &'static Self {
        let table = CsHost {
            size: u32::try_from(size_of::<CsHost>()).unwrap_or(u32::MAX),
            abi_minor: CS_ABI_MINOR,
            ctx: std::ptr::null_mut(),
            put: Some(put),
            get_extension: Some(get_extension),
            remaining_ms: Some(remaining_ms),
            log: Some(log),
        };
        let side = Box::into_raw(Box::new(Self { table, plugin: plugin.to_owned() }));
        // SAFETY: fresh from the box, so valid and unshared; leaked, so static; not written to afterwards.
        unsafe {
            (*side).table.ctx = side.cast();
            &*side
        }
    }
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

/// `cs_host.get_extension`: this host offers none.
unsafe extern "C" fn get_extension(_ctx: *mut c_void, _id: *const c_char) -> *const c_void {
    std::ptr::null()
}

/// `cs_host.remaining_ms`; without a call there is no time.
unsafe extern "C" fn remaining_ms(call: *const CsCall) -> i64 {
    // SAFETY: a call is only ever made by `Instance::call`, and not used after it returned.
    let Some(call) = (unsafe { call.cast::<CallSide>().as_ref() }) else { return 0 };
    let left = call.deadline.saturating_duration_since(Instant::now());
    i64::try_from(left.as_millis()).unwrap_or(i64::MAX)
}

/// `cs_host.log`.
unsafe extern "C" fn log(ctx: *mut c_void, call: *const CsCall, level: u32, msg: CsStr, fields_json: CsStr) {
    // SAFETY: `ctx` is the leaked `HostSide`; null is ignored.
    let Some(host) = (unsafe { ctx.cast::<HostSide>().as_ref() }) else { return };
    // SAFETY: as in `remaining_ms`.
    if let Some(call) = unsafe { call.cast::<CallSide>().as_ref() }
        && call.log_lines.fetch_add(1, Ordering::Relaxed) >= LOG_LINES_PER_CALL
    {
        return;
    }
    // SAFETY: the plugin vouches for pointer and length of both texts.
    let (Some(msg), Some(fields)) = (unsafe { (borrow(msg), borrow(fields_json)) }) else { return };
    let (message, fields) = (printable(msg, LOG_LIMIT_BYTES), printable(fields, LOG_LIMIT_BYTES));
    let plugin = host.plugin.as_str();
    // A panic must not cross into C; a subscriber of the log is not ours to vouch for.
    let _ = catch_unwind(AssertUnwindSafe(|| match level {
        CS_LOG_ERROR => tracing::error!(plugin.id = plugin, message, fields, "plugin says"),
        CS_LOG_WARN => tracing::warn!(plugin.id = plugin, message, fields, "plugin says"),
        CS_LOG_INFO => tracing::info!(plugin.id = plugin, message, fields, "plugin says"),
        CS_LOG_DEBUG => tracing::debug!(plugin.id = plugin, message, fields, "plugin says"),
        CS_LOG_TRACE => tracing::trace!(plugin.id = plugin, message, fields, "plugin says"),
        _ => {}
    }));
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

fn text(text: &str) -> CsStr {
    CsStr { ptr: text.as_ptr(), len: text.len() }
}

/// At most `limit` bytes, without control characters: a plugin cannot forge log lines.
fn printable(bytes: &[u8], limit: usize) -> String {
    let cut = String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]);
    cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn check_size(table: &'static str, size: u32, least: usize) -> Result<(), Fault> {
    if usize::try_from(size).is_ok_and(|s| s >= least) {
        Ok(())
    } else {
        Err(Fault::ShortTable { table, size, least })
    }
}

/// Checks alignment and `size`, the first member of every extension table, of a pointer that is not null.
fn check_extension<T>(pointer: *const T, name: &'static str, least: usize) -> Result<(), Fault> {
    if !pointer.addr().is_multiple_of(align_of::<T>()) {
        return Err(Fault::ShortTable { table: name, size: 0, least });
    }
    // SAFETY: not null, aligned, and every extension table begins with its size.
    let size = unsafe { pointer.cast::<u32>().read() };
    check_size(name, size, least)
}

fn read_text(start: *const c_char, what: &'static str, limit: usize) -> Result<String, Fault> {
    if start.is_null() {
        return Err(Fault::NullPointer(what));
    }
    let mut bytes = Vec::new();
    for i in 0..limit {
        // SAFETY: the header demands a text that ends with NUL; nothing after the NUL is read.
        let byte = unsafe { start.cast::<u8>().add(i).read() };
        if byte == 0 {
            let expected = "UTF-8 without control characters";
            return match String::from_utf8(bytes) {
                Ok(text) if !text.is_empty() && !text.contains(char::is_control) => Ok(text),
                _ => Err(Fault::BadText { what, expected }),
            };
        }
        bytes.push(byte);
    }
    Err(Fault::BadText { what, expected: "short enough (128 bytes; a manifest: 16 KiB)" })
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
