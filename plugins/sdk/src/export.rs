//! The macro that exports a plugin.

/// Exports `countersign_plugin_entry` for a type.
///
/// `export!(Type: [signal, provider], id = "com.example.name", vendor = "Example", requests = { facts =
/// ["request.ip"], claims = ["sub"] })`. The list names the traits that the type implements; `requests`
/// may be left out and is what `plugin lock` writes as `grants`. The version is the crate's. Once per crate.
#[macro_export]
macro_rules! export {
    (@list) => { "" };
    (@list $first:expr $(, $rest:expr)*) => { concat!("\"", $first, "\"" $(, ",\"", $rest, "\"")*) };
    (@hook signal) => { "signal.signals" };
    (@hook provider) => { "provider.enrich" };
    (@table signal, $plugin:ty, $wanted:ident) => {
        static SIGNAL: abi::CsExtSignal = abi::CsExtSignal {
            size: ::core::mem::size_of::<abi::CsExtSignal>() as u32,
            signals: ::core::option::Option::Some($crate::raw::signals::<$plugin>),
        };
        if $wanted == abi::CS_EXT_SIGNAL {
            return (&raw const SIGNAL).cast();
        }
    };
    (@table provider, $plugin:ty, $wanted:ident) => {
        static PROVIDER: abi::CsExtProvider = abi::CsExtProvider {
            size: ::core::mem::size_of::<abi::CsExtProvider>() as u32,
            locate_keys: ::core::option::Option::None,
            verify: ::core::option::Option::None,
            enrich: ::core::option::Option::Some($crate::raw::enrich::<$plugin>),
        };
        if $wanted == abi::CS_EXT_PROVIDER {
            return (&raw const PROVIDER).cast();
        }
    };
    ($plugin:ty: [$($trait:ident),+ $(,)?], id = $id:literal, vendor = $vendor:literal $(,)?) => {
        $crate::export!($plugin: [$($trait),+], id = $id, vendor = $vendor, requests = { facts = [], claims = [] });
    };
    (
        $plugin:ty: [$($trait:ident),+ $(,)?], id = $id:literal, vendor = $vendor:literal,
        requests = { facts = [$($fact:literal),* $(,)?], claims = [$($claim:literal),* $(,)?] $(,)? } $(,)?
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
                    "],\"requests\":{\"facts\":[",
                    $crate::export!(@list $($fact),*),
                    "],\"claims\":[",
                    $crate::export!(@list $($claim),*),
                    "]}}\0"
                )
                .as_ptr()
                .cast(),
                selftest: ::core::option::Option::Some($crate::raw::selftest),
            };

            unsafe extern "C" fn get_extension(_this: *mut c_void, id: *const c_char) -> *const c_void {
                // SAFETY: the header demands a text that ends with NUL.
                let id = unsafe { $crate::raw::extension_id(id) };
                if id == abi::CS_EXT_META {
                    return (&raw const META).cast();
                }
                $($crate::export!(@table $trait, $plugin, id);)+
                ::core::ptr::null()
            }

            static PLUGIN: abi::CsPlugin = abi::CsPlugin {
                size: ::core::mem::size_of::<abi::CsPlugin>() as u32,
                abi_major: abi::CS_ABI_MAJOR,
                abi_minor: abi::CS_ABI_MINOR,
                flags: abi::CS_FLAG_THREAD_SAFE,
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
