//! The border to native code: the handshake, and the calls into a plugin. Every `unsafe` of the server
//! stands in this file and in `host_side`; the promises that their comments lean on are those of
//! `plugins/sdk/include/countersign_plugin.h`.
//!
//! What comes from the other side is checked before it is used as far as it can be: null, alignment,
//! sizes, lengths, text. A pointer that lies beyond that is a crash; nothing can help against it.

use std::ffi::{c_char, c_void};
use std::fs::File;
use std::io;
use std::mem::{ManuallyDrop, align_of, offset_of, size_of};
use std::num::NonZeroUsize;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use countersign_plugin_sdk::abi::{
    CS_ABI_MAJOR, CS_ABI_MINOR, CS_ENTRY, CS_EXT_META, CS_FLAG_BLOCKING, CS_FLAG_THREAD_SAFE, CS_INTERNAL, CS_OK,
    CsEntry, CsExtMeta, CsGetExtension, CsOp, CsPlugin, CsStatus,
};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::error::{HandshakeFault as Fault, with_causes};
use super::hook::Hook;
use super::host_side::{HostSide, Sink, text_of, within};
use super::services::HostServices;

pub(super) const TEXT_LIMIT_BYTES: usize = 128;
pub(super) const MANIFEST_LIMIT_BYTES: usize = 16 << 10;
const SELFTEST_LIMIT: Duration = Duration::from_secs(5);

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

    fn meta(&self, member: usize) -> Result<Option<*const CsExtMeta>, Fault> {
        // SAFETY: the header lets this id be asked for before `create`, with a null instance; the id ends with NUL.
        let meta = unsafe { (self.get_extension)(std::ptr::null_mut(), CS_EXT_META.as_ptr().cast()) };
        let meta = meta.cast::<CsExtMeta>();
        if meta.is_null() {
            return Ok(None);
        }
        check_extension(meta.cast(), "cs_ext_meta", member + size_of::<*const c_void>())?;
        Ok(Some(meta))
    }

    /// The manifest, which a plugin may leave out.
    pub(super) fn manifest(&self) -> Result<Option<String>, Fault> {
        let Some(meta) = self.meta(offset_of!(CsExtMeta, manifest_json))? else { return Ok(None) };
        // SAFETY: not null, aligned, long enough for this member, static.
        let manifest = unsafe { (&raw const (*meta).manifest_json).read() };
        if manifest.is_null() {
            return Ok(None);
        }
        read_text(manifest, "manifest", MANIFEST_LIMIT_BYTES).map(Some)
    }

    /// Has the plugin fail inside on purpose; one without a self-test passes.
    pub(super) fn selftest(&self) -> Result<(), Fault> {
        let Some(meta) = self.meta(offset_of!(CsExtMeta, selftest))? else { return Ok(()) };
        // SAFETY: not null, aligned, long enough for this member, static.
        let Some(selftest) = (unsafe { (&raw const (*meta).selftest).read() }) else { return Ok(()) };
        let (status, _) = within(Instant::now() + SELFTEST_LIMIT, |call, sink| {
            // SAFETY: the header gives a null instance here; the text lives across the call, and call and sink are
            // no addresses.
            unsafe { selftest(std::ptr::null_mut(), call, text_of(b"{}"), sink) }
        });
        if status == CS_INTERNAL { Ok(()) } else { Err(Fault::SelfTest { status }) }
    }

    /// Makes the instance. The second value ends it, on this thread, once the first is gone.
    pub(super) fn create(
        &self,
        config_json: &str,
        hooks: &[Hook],
        services: Arc<dyn HostServices>,
    ) -> Result<(Instance, Ending), Fault> {
        let create = self.table.create.ok_or(Fault::NullPointer("create"))?;
        let host = HostSide::leak(services);
        let mut this = std::ptr::null_mut();
        let config = text_of(config_json.as_bytes());
        let (status, err) = within(Instant::now(), |_, err| {
            // SAFETY: `host` is static; the text and `this` live across the call, and `err` is no address.
            unsafe { create(&raw const host.table, config, &raw mut this, err) }
        });
        if status != CS_OK {
            return Err(Fault::CreateRefused { status, message: err.message() });
        }
        let (alive, gone) = mpsc::channel();
        let ending = Ending { this, destroy: self.table.destroy, gone };
        let mut instance = Instance { this, ops: [None; Hook::COUNT], _alive: alive };
        for hook in hooks {
            match self.find_op(this, *hook) {
                Ok(op) => instance.ops[*hook as usize] = Some(op),
                Err(fault) => {
                    drop(instance);
                    ending.wait();
                    return Err(fault);
                }
            }
        }
        Ok((instance, ending))
    }

    fn find_op(&self, this: *mut c_void, hook: Hook) -> Result<CsOp, Fault> {
        let place = hook.place();
        // SAFETY: `this` came from `create`; the id ends with NUL.
        let table = unsafe { (self.get_extension)(this, place.extension.as_ptr().cast()) };
        let absent = Fault::NoHook { hook: hook.name() };
        if table.is_null() {
            return Err(absent);
        }
        check_extension(table, place.table, place.offset + size_of::<Option<CsOp>>())?;
        // SAFETY: not null, aligned, long enough for this member, which is an operation by the header; static.
        unsafe { table.byte_add(place.offset).cast::<Option<CsOp>>().read() }.ok_or(absent)
    }
}

/// An instance that can be called, from any thread.
pub(super) struct Instance {
    this: *mut c_void,
    ops: [Option<CsOp>; Hook::COUNT],
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
        let op = self.ops[hook as usize]?;
        let (status, Sink { bytes, overflowed }) = within(deadline, |call, sink| {
            // SAFETY: `this` came from `create` and is not destroyed while `self` lives; `input` lives across the
            // call, and the header forbids keeping it; call and sink are no addresses.
            unsafe { op(self.this, call, text_of(input), sink) }
        });
        Some(RawReply { status, output: bytes, overflowed })
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

/// The first pages of a file, shared with the system: what is written here is in the file even when the process dies
/// in the very next instruction.
pub(super) struct SharedPages {
    start: NonNull<c_void>,
    len: NonZeroUsize,
}

// SAFETY: the pages belong to nobody else of this process, and are only written to, by `write`.
unsafe impl Send for SharedPages {}
// SAFETY: as above; two writes to one place at once would be for the caller to prevent, and mix two texts at worst.
unsafe impl Sync for SharedPages {}

impl SharedPages {
    /// The file must have `len` bytes, and keep them: pages without a file behind them are the end of the process.
    pub(super) fn map(file: &File, len: usize) -> io::Result<Self> {
        let len = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: a new mapping at an address of the system's choice touches no memory that is in use.
        let start = unsafe { mmap(None, len, protection, flags, file, 0) }?;
        Ok(Self { start, len })
    }

    /// Writes a text, its first byte last; what does not fit is left out.
    pub(super) fn write(&self, at: usize, text: &[u8]) {
        let Some((first, rest)) = text.split_first() else { return };
        if at.checked_add(text.len()).is_none_or(|end| end > self.len.get()) {
            return;
        }
        // SAFETY: the checked range lies within the mapping, which lives as long as `self`.
        let place = unsafe { self.start.cast::<u8>().add(at) };
        // SAFETY: the same range; `rest` is memory of ours and no part of the mapping.
        unsafe { rest.as_ptr().copy_to_nonoverlapping(place.add(1).as_ptr(), rest.len()) };
        // SAFETY: the same range. A byte is always aligned; other threads of this process have no reference to it.
        unsafe { AtomicU8::from_ptr(place.as_ptr()) }.store(*first, Ordering::Release);
    }
}

impl Drop for SharedPages {
    fn drop(&mut self) {
        // SAFETY: mapped in `map`, and nothing leads into it any more.
        let _ = unsafe { munmap(self.start, self.len.get()) };
    }
}

fn check_size(table: &'static str, size: u32, least: usize) -> Result<(), Fault> {
    if usize::try_from(size).is_ok_and(|s| s >= least) {
        Ok(())
    } else {
        Err(Fault::ShortTable { table, size, least })
    }
}

/// Checks alignment and `size`, the first member of every extension table, of a pointer that is not null.
fn check_extension(pointer: *const c_void, name: &'static str, least: usize) -> Result<(), Fault> {
    if !pointer.addr().is_multiple_of(align_of::<*const c_void>()) {
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
