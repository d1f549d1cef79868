//! The macro that exports a plugin.

/// Exports `countersign_plugin_entry` for a type.
///
/// `export!(Type: [signal, provider], id = "com.example.name", vendor = "Example", requests = { facts =
/// ["request.ip"], claims = ["sub"], http = ["api.example.com"], secrets = ["api_key"], kv_kib = 64 })`. The
/// list names the traits that the type implements:
///
/// | word | trait | hook |
/// |---|---|---|
/// | `keys` | [`KeyLocator`](crate::KeyLocator) | `provider.locate_keys` |
/// | `verifier` | [`Verifier`](crate::Verifier) | `provider.verify` |
/// | `provider` | [`Provider`](crate::Provider) | `provider.enrich` |
/// | `signal` | [`Signal`](crate::Signal) | `signal.signals` |
/// | `mfa` | [`Mfa`](crate::Mfa) | `mfa.begin` |
/// | `mfa_verifier` | [`MfaVerifier`](crate::MfaVerifier) | `mfa.verify` |
/// | `event` | [`Observer`](crate::Observer) | `event.observe` |
///
/// `requests`, and each member of it, may be left out; it is what `plugin lock` writes as `grants`. A plugin
/// that requests `http` is marked as one that waits for I/O, and so is one with `network = true`, which says that it opens
/// connections itself: it is refused with `isolation = "process"`, where there is no network. The version is the crate's. Once per crate.
#[macro_export]
macro_rules! export {
    (@list) => { "" };
    (@list $first:expr $(, $rest:expr)*) => { concat!("\"", $first, "\"" $(, ",\"", $rest, "\"")*) };
    (@hook signal) => { "signal.signals" };
    (@hook provider) => { "provider.enrich" };
    (@hook keys) => { "provider.locate_keys" };
    (@hook verifier) => { "provider.verify" };
    (@hook mfa) => { "mfa.begin" };
    (@hook mfa_verifier) => { "mfa.verify" };
    (@hook event) => { "event.observe" };
    (@key facts) => { "facts" };
    (@key claims) => { "claims" };
    (@key events) => { "events" };
    (@key http) => { "http" };
    (@key secrets) => { "secrets" };
    (@key kv_kib) => { "kv_kib" };
    (@key network) => { "network" };
    (@value [$($item:literal),* $(,)?]) => { concat!("[", $crate::export!(@list $($item),*), "]") };
    (@value $number:literal) => { stringify!($number) };
    (@requests) => { "" };
    (@requests $key:ident = $value:tt $(, $keys:ident = $values:tt)*) => {
        concat!(
            "\"", $crate::export!(@key $key), "\":", $crate::export!(@value $value)
            $(, ",\"", $crate::export!(@key $keys), "\":", $crate::export!(@value $values))*
        )
    };
    (@flag http) => { $crate::abi::CS_FLAG_BLOCKING };
    (@flag network) => { $crate::abi::CS_FLAG_BLOCKING };
    (@flag $other:ident) => { 0 };
    // One operation of a table, when the list names its trait.
    (@op signal signal $plugin:ty) => { ::core::option::Option::Some($crate::raw::signals::<$plugin>) };
    (@op provider provider $plugin:ty) => { ::core::option::Option::Some($crate::raw::enrich::<$plugin>) };
    (@op keys keys $plugin:ty) => { ::core::option::Option::Some($crate::raw::locate_keys::<$plugin>) };
    (@op verifier verifier $plugin:ty) => { ::core::option::Option::Some($crate::raw::verify::<$plugin>) };
    (@op mfa mfa $plugin:ty) => { ::core::option::Option::Some($crate::raw::mfa_begin::<$plugin>) };
    (@op mfa_verifier mfa_verifier $plugin:ty) => { ::core::option::Option::Some($crate::raw::mfa_verify::<$plugin>) };
    (@op event event $plugin:ty) => { ::core::option::Option::Some($crate::raw::observe::<$plugin>) };
    (@op $wanted:ident $other:ident $plugin:ty) => { ::core::option::Option::None };
    (@pick $wanted:ident [$($trait:ident),*] $plugin:ty) => {{
        let mut op: ::core::option::Option<$crate::abi::CsOp> = ::core::option::Option::None;
        $(
            let named: ::core::option::Option<$crate::abi::CsOp> = $crate::export!(@op $wanted $trait $plugin);
            if named.is_some() {
                op = named;
            }
        )*
        op
    }};
    ($plugin:ty: [$($trait:ident),+ $(,)?], id = $id:literal, vendor = $vendor:literal $(,)?) => {
        $crate::export!($plugin: [$($trait),+], id = $id, vendor = $vendor, requests = {});
    };
    (
        $plugin:ty: [$($trait:ident),+ $(,)?], id = $id:literal, vendor = $vendor:literal,
        requests = { $($key:ident = $value:tt),* $(,)? } $(,)?
    ) => {
        #[cfg(panic = "abort")]
        compile_error!(
            "a Countersign plugin must be built with panic = \"unwind\": with \"abort\" a panic would end the host"
        );

        const _: () = {
            use ::core::ffi::{c_char, c_void};
            use $crate::abi;

            static META: abi::CsExtMeta = abi::CsExtMeta {
                size: ::core::mem::size_of::<abi::CsExtMeta>() as u32,
                manifest_json: concat!(
                    "{\"hooks\":[",
                    $crate::export!(@list $($crate::export!(@hook $trait)),+),
                    "],\"requests\":{",
                    $crate::export!(@requests $($key = $value),*),
                    "}}\0"
                )
                .as_ptr()
                .cast(),
                selftest: ::core::option::Option::Some($crate::raw::selftest),
            };

            const LOCATE_KEYS: ::core::option::Option<abi::CsOp> = $crate::export!(@pick keys [$($trait),+] $plugin);
            const VERIFY: ::core::option::Option<abi::CsOp> = $crate::export!(@pick verifier [$($trait),+] $plugin);
            const ENRICH: ::core::option::Option<abi::CsOp> = $crate::export!(@pick provider [$($trait),+] $plugin);
            const SIGNALS: ::core::option::Option<abi::CsOp> = $crate::export!(@pick signal [$($trait),+] $plugin);
            const BEGIN: ::core::option::Option<abi::CsOp> = $crate::export!(@pick mfa [$($trait),+] $plugin);
            const VERIFY_CODE: ::core::option::Option<abi::CsOp> =
                $crate::export!(@pick mfa_verifier [$($trait),+] $plugin);
            const OBSERVE: ::core::option::Option<abi::CsOp> = $crate::export!(@pick event [$($trait),+] $plugin);

            static PROVIDER: abi::CsExtProvider = abi::CsExtProvider {
                size: ::core::mem::size_of::<abi::CsExtProvider>() as u32,
                locate_keys: LOCATE_KEYS,
                verify: VERIFY,
                enrich: ENRICH,
            };
            static SIGNAL: abi::CsExtSignal =
                abi::CsExtSignal { size: ::core::mem::size_of::<abi::CsExtSignal>() as u32, signals: SIGNALS };
            static MFA: abi::CsExtMfa = abi::CsExtMfa {
                size: ::core::mem::size_of::<abi::CsExtMfa>() as u32,
                begin: BEGIN,
                verify: VERIFY_CODE,
            };
            static EVENT: abi::CsExtEvent =
                abi::CsExtEvent { size: ::core::mem::size_of::<abi::CsExtEvent>() as u32, observe: OBSERVE };

            unsafe extern "C" fn get_extension(_this: *mut c_void, id: *const c_char) -> *const c_void {
                // SAFETY: the header demands a text that ends with NUL.
                let id = unsafe { $crate::raw::extension_id(id) };
                if id == abi::CS_EXT_META {
                    return (&raw const META).cast();
                }
                if id == abi::CS_EXT_PROVIDER && (LOCATE_KEYS.is_some() || VERIFY.is_some() || ENRICH.is_some()) {
                    return (&raw const PROVIDER).cast();
                }
                if id == abi::CS_EXT_SIGNAL && SIGNALS.is_some() {
                    return (&raw const SIGNAL).cast();
                }
                if id == abi::CS_EXT_MFA && (BEGIN.is_some() || VERIFY_CODE.is_some()) {
                    return (&raw const MFA).cast();
                }
                if id == abi::CS_EXT_EVENT && OBSERVE.is_some() {
                    return (&raw const EVENT).cast();
                }
                ::core::ptr::null()
            }

            static PLUGIN: abi::CsPlugin = abi::CsPlugin {
                size: ::core::mem::size_of::<abi::CsPlugin>() as u32,
                abi_major: abi::CS_ABI_MAJOR,
                abi_minor: abi::CS_ABI_MINOR,
                flags: abi::CS_FLAG_THREAD_SAFE $(| $crate::export!(@flag $key))*,
                id: concat!($id, "\0").as_ptr().cast(),
                version: concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast(),
                vendor: concat!($vendor, "\0").as_ptr().cast(),
                create: ::core::option::Option::Some($crate::raw::create::<$plugin>),
                destroy: ::core::option::Option::Some($crate::raw::destroy::<$plugin>),
                get_extension: ::core::option::Option::Some(get_extension),
            };

            #[unsafe(no_mangle)]
            extern "C" fn countersign_plugin_entry(host_major: u32, _host_minor: u32) -> *const abi::CsPlugin {
                if host_major != abi::CS_ABI_MAJOR {
                    // The host reads the major version in the table and tells the user both numbers.
                    return &raw const PLUGIN;
                }
                $crate::raw::keep_panics_quiet();
                &raw const PLUGIN
            }
        };
    };
}
