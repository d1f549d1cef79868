//! The `repr(C)` twin of `include/countersign_plugin.h`, without logic. `tests/layout.rs` compares the
//! two, member by member.

use std::ffi::{c_char, c_void};
use std::marker::{PhantomData, PhantomPinned};

/// Must match exactly.
pub const CS_ABI_MAJOR: u32 = 1;
/// Additive only.
pub const CS_ABI_MINOR: u32 = 0;

/// How an operation ended.
pub type CsStatus = i32;
/// The output holds the answer.
pub const CS_OK: CsStatus = 0;
/// "Not mine": the host goes on without this plugin.
pub const CS_DECLINED: CsStatus = 1;
/// Verified bad: deny, never retried.
pub const CS_REJECT: CsStatus = 2;
/// Transient: the host applies the failure policy.
pub const CS_UNAVAILABLE: CsStatus = 3;
/// Transient, for want of time.
pub const CS_TIMEOUT: CsStatus = 4;
/// The input, or what `put` was given, is not usable.
pub const CS_INVALID: CsStatus = 5;
/// A fault of the plugin, a contained panic among them.
pub const CS_INTERNAL: CsStatus = 6;
/// The call was cancelled.
pub const CS_CANCELLED: CsStatus = 7;

/// Someone should act.
pub const CS_LOG_ERROR: u32 = 1;
/// Something is odd.
pub const CS_LOG_WARN: u32 = 2;
/// Worth a line.
pub const CS_LOG_INFO: u32 = 3;
/// For the plugin's author.
pub const CS_LOG_DEBUG: u32 = 4;
/// For the plugin's author, in detail.
pub const CS_LOG_TRACE: u32 = 5;

/// Bytes, borrowed for the call only. `ptr` may be null when `len` is 0.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CsStr {
    /// First byte.
    pub ptr: *const u8,
    /// Number of bytes.
    pub len: usize,
}

/// Host-owned output. Opaque.
#[repr(C)]
pub struct CsSink {
    _opaque: [u8; 0],
    _marker: PhantomData<(*mut u8, PhantomPinned)>,
}

/// One call. Opaque.
#[repr(C)]
pub struct CsCall {
    _opaque: [u8; 0],
    _marker: PhantomData<(*mut u8, PhantomPinned)>,
}

/// `cs_take`.
pub type CsTake = unsafe extern "C" fn(user: *mut c_void, value: CsStr);
/// `cs_host.put`.
pub type CsPut = unsafe extern "C" fn(sink: *mut CsSink, json: CsStr) -> CsStatus;
/// `cs_host.remaining_ms`.
pub type CsRemainingMs = unsafe extern "C" fn(call: *const CsCall) -> i64;
/// `cs_host.log`.
pub type CsLog =
    unsafe extern "C" fn(ctx: *mut c_void, call: *const CsCall, level: u32, msg: CsStr, fields_json: CsStr);
/// `get_extension` of both sides: `cs_host.ctx` or the instance, then the id.
pub type CsGetExtension = unsafe extern "C" fn(this: *mut c_void, id: *const c_char) -> *const c_void;
/// `cs_plugin.create`.
pub type CsCreate = unsafe extern "C" fn(
    host: *const CsHost,
    config_json: CsStr,
    this: *mut *mut c_void,
    err: *mut CsSink,
) -> CsStatus;
/// `cs_plugin.destroy`.
pub type CsDestroy = unsafe extern "C" fn(this: *mut c_void);
/// `cs_op`.
pub type CsOp =
    unsafe extern "C" fn(this: *mut c_void, call: *const CsCall, in_json: CsStr, out_json: *mut CsSink) -> CsStatus;
/// `countersign_plugin_entry`.
pub type CsEntry = unsafe extern "C" fn(host_major: u32, host_minor: u32) -> *const CsPlugin;

/// The name of the one exported function.
pub const CS_ENTRY: &[u8] = b"countersign_plugin_entry\0";

/// What the host offers.
#[repr(C)]
pub struct CsHost {
    /// `sizeof` on the host's side.
    pub size: u32,
    /// The host's minor version.
    pub abi_minor: u32,
    /// First argument of the functions that take one.
    pub ctx: *mut c_void,
    /// Writes the output.
    pub put: Option<CsPut>,
    /// Asks for a host extension.
    pub get_extension: Option<CsGetExtension>,
    /// Milliseconds left.
    pub remaining_ms: Option<CsRemainingMs>,
    /// Writes a log line.
    pub log: Option<CsLog>,
}

/// The host serialises the calls of an instance without this flag.
pub const CS_FLAG_THREAD_SAFE: u32 = 1;
/// May wait for I/O.
pub const CS_FLAG_BLOCKING: u32 = 2;

/// What a plugin is.
#[repr(C)]
pub struct CsPlugin {
    /// `sizeof` on the plugin's side.
    pub size: u32,
    /// The major version that the plugin was built for.
    pub abi_major: u32,
    /// The minor version that the plugin was built for.
    pub abi_minor: u32,
    /// `CS_FLAG_…`.
    pub flags: u32,
    /// Identifier.
    pub id: *const c_char,
    /// The plugin's own version.
    pub version: *const c_char,
    /// Who made it.
    pub vendor: *const c_char,
    /// Makes an instance.
    pub create: Option<CsCreate>,
    /// Ends an instance.
    pub destroy: Option<CsDestroy>,
    /// Asks for an extension.
    pub get_extension: Option<CsGetExtension>,
}

// SAFETY: the header demands that the table and its strings are static and never written to.
unsafe impl Sync for CsPlugin {}

/// The id of [`CsExtProvider`].
pub const CS_EXT_PROVIDER: &[u8] = b"countersign.provider/1\0";
/// Operations of a provider.
#[repr(C)]
pub struct CsExtProvider {
    /// `sizeof`.
    pub size: u32,
    /// Finds keys.
    pub locate_keys: Option<CsOp>,
    /// Verifies a token.
    pub verify: Option<CsOp>,
    /// Adds claims.
    pub enrich: Option<CsOp>,
}

/// The id of [`CsExtSignal`].
pub const CS_EXT_SIGNAL: &[u8] = b"countersign.signal/1\0";
/// Operations of a source of risk signals.
#[repr(C)]
pub struct CsExtSignal {
    /// `sizeof`.
    pub size: u32,
    /// Gives signals.
    pub signals: Option<CsOp>,
}

/// The id of [`CsExtMfa`].
pub const CS_EXT_MFA: &[u8] = b"countersign.mfa/1\0";
/// Operations of an MFA method.
#[repr(C)]
pub struct CsExtMfa {
    /// `sizeof`.
    pub size: u32,
    /// Begins a challenge.
    pub begin: Option<CsOp>,
    /// Verifies an answer.
    pub verify: Option<CsOp>,
}

/// The id of [`CsExtEvent`].
pub const CS_EXT_EVENT: &[u8] = b"countersign.event/1\0";
/// Operations of an observer.
#[repr(C)]
pub struct CsExtEvent {
    /// `sizeof`.
    pub size: u32,
    /// Takes a final decision.
    pub observe: Option<CsOp>,
}

/// The id of [`CsExtMeta`].
pub const CS_EXT_META: &[u8] = b"countersign.meta/1\0";
/// The plugin about itself, without an instance.
#[repr(C)]
pub struct CsExtMeta {
    /// `sizeof`.
    pub size: u32,
    /// `{"hooks": […], "requests": {"facts": […], "claims": […]}}`, static.
    pub manifest_json: *const c_char,
    /// Fails inside on purpose.
    pub selftest: Option<CsOp>,
}

// SAFETY: the header demands that the table and its text are static and never written to.
unsafe impl Sync for CsExtMeta {}

/// The id of [`CsHostHttp`].
pub const CS_HOST_HTTP: &[u8] = b"countersign.host.http/1\0";
/// `cs_host_http.fetch`.
pub type CsFetch = unsafe extern "C" fn(
    ctx: *mut c_void,
    call: *const CsCall,
    request_json: CsStr,
    take: Option<CsTake>,
    user: *mut c_void,
) -> CsStatus;
/// HTTP through the host.
#[repr(C)]
pub struct CsHostHttp {
    /// `sizeof`.
    pub size: u32,
    /// One request.
    pub fetch: Option<CsFetch>,
}

/// The id of [`CsHostKv`].
pub const CS_HOST_KV: &[u8] = b"countersign.host.kv/1\0";
/// `cs_host_kv.get` and `cs_host_env.secret`: a name in, a value out.
pub type CsLookUp = unsafe extern "C" fn(
    ctx: *mut c_void,
    call: *const CsCall,
    key: CsStr,
    take: Option<CsTake>,
    user: *mut c_void,
) -> CsStatus;
/// `cs_host_kv.set`.
pub type CsKvSet =
    unsafe extern "C" fn(ctx: *mut c_void, call: *const CsCall, key: CsStr, value: CsStr, ttl_s: u32) -> CsStatus;
/// A small store for the plugin.
#[repr(C)]
pub struct CsHostKv {
    /// `sizeof`.
    pub size: u32,
    /// Reads.
    pub get: Option<CsLookUp>,
    /// Writes.
    pub set: Option<CsKvSet>,
}

/// The id of [`CsHostEnv`].
pub const CS_HOST_ENV: &[u8] = b"countersign.host.env/1\0";
/// `cs_host_env.now_unix_ms`.
pub type CsNow = unsafe extern "C" fn(ctx: *mut c_void, call: *const CsCall) -> i64;
/// `cs_host_env.random`.
pub type CsRandom = unsafe extern "C" fn(ctx: *mut c_void, buf: *mut u8, len: usize) -> CsStatus;
/// `cs_host_env.count`.
pub type CsCount =
    unsafe extern "C" fn(ctx: *mut c_void, call: *const CsCall, metric: CsStr, value: f64, labels_json: CsStr);
/// Secrets, time, randomness and metrics of the host.
#[repr(C)]
pub struct CsHostEnv {
    /// `sizeof`.
    pub size: u32,
    /// A granted secret.
    pub secret: Option<CsLookUp>,
    /// The time.
    pub now_unix_ms: Option<CsNow>,
    /// Random bytes.
    pub random: Option<CsRandom>,
    /// Counts something.
    pub count: Option<CsCount>,
}
