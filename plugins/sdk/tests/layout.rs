//! The header and its Rust twin agree on the size and the offset of every member, and the header
//! compiles without a warning as C11 and as C++17.

use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::Command;

use countersign_plugin_sdk::abi::*;

/// `C type = Rust type: members`, once for both sides.
macro_rules! layout {
    ($($c:literal = $rust:ident: $($member:ident),*;)*) => {
        /// Prints one line for each struct and each member.
        const C_STATEMENTS: &[&str] = &[$(
            concat!("printf(\"", $c, " %zu\\n\", sizeof(", $c, "));"),
            $(concat!("printf(\"", $c, ".", stringify!($member), " %zu\\n\", offsetof(", $c, ", ", stringify!($member), "));"),)*
        )*];

        fn rust_layout() -> String {
            let mut out = String::new();
            $(
                writeln!(out, "{} {}", $c, size_of::<$rust>()).unwrap();
                $(writeln!(out, "{}.{} {}", $c, stringify!($member), offset_of!($rust, $member)).unwrap();)*
            )*
            out
        }
    };
}

layout! {
    "cs_str" = CsStr: ptr, len;
    "cs_host" = CsHost: size, abi_minor, ctx, put, get_extension, remaining_ms, log;
    "cs_plugin" = CsPlugin: size, abi_major, abi_minor, flags, id, version, vendor, create, destroy, get_extension;
    "cs_ext_provider" = CsExtProvider: size, locate_keys, verify, enrich;
    "cs_ext_signal" = CsExtSignal: size, signals;
    "cs_ext_mfa" = CsExtMfa: size, begin, verify;
    "cs_ext_event" = CsExtEvent: size, observe;
    "cs_ext_meta" = CsExtMeta: size, manifest_json, selftest;
    "cs_host_http" = CsHostHttp: size, fetch;
    "cs_host_kv" = CsHostKv: size, get, set;
    "cs_host_env" = CsHostEnv: size, secret, now_unix_ms, random, count;
}

/// `C name = Rust constant`, for numbers.
macro_rules! numbers {
    ($($name:ident),* $(,)?) => {
        const C_NUMBERS: &[&str] = &[$(concat!("printf(\"", stringify!($name), " %ld\\n\", (long)", stringify!($name), ");")),*];

        fn rust_numbers() -> String {
            let mut out = String::new();
            $(writeln!(out, "{} {}", stringify!($name), i64::from($name)).unwrap();)*
            out
        }
    };
}

numbers! {
    CS_ABI_MAJOR, CS_ABI_MINOR,
    CS_OK, CS_DECLINED, CS_REJECT, CS_UNAVAILABLE, CS_TIMEOUT, CS_INVALID, CS_INTERNAL, CS_CANCELLED,
    CS_LOG_ERROR, CS_LOG_WARN, CS_LOG_INFO, CS_LOG_DEBUG, CS_LOG_TRACE,
    CS_FLAG_THREAD_SAFE, CS_FLAG_BLOCKING,
}

/// `C name = Rust constant`, for texts that end with NUL in Rust.
macro_rules! texts {
    ($($name:ident),* $(,)?) => {
        const C_TEXTS: &[&str] = &[$(concat!("printf(\"", stringify!($name), " %s\\n\", ", stringify!($name), ");")),*];

        fn rust_texts() -> String {
            let mut out = String::new();
            $(writeln!(out, "{} {}", stringify!($name), std::ffi::CStr::from_bytes_with_nul($name).unwrap().to_str().unwrap()).unwrap();)*
            out
        }
    };
}

texts! {
    CS_EXT_PROVIDER, CS_EXT_SIGNAL, CS_EXT_MFA, CS_EXT_EVENT, CS_EXT_META, CS_HOST_HTTP, CS_HOST_KV, CS_HOST_ENV,
}

fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

fn compile(compiler: &str, arguments: &[&str], source: &Path, output: &Path) {
    let done = Command::new(compiler)
        .args(arguments)
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
        .arg(include())
        .arg(source)
        .arg("-o")
        .arg(output)
        .output()
        .unwrap_or_else(|e| panic!("this test needs the compiler {compiler}: {e}"));
    assert!(done.status.success(), "{compiler}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn c_and_rust_agree_on_every_member_number_and_name() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layout-c");
    std::fs::create_dir_all(&dir).unwrap();
    let statements = [C_STATEMENTS, C_NUMBERS, C_TEXTS].concat().join("\n  ");
    let program = format!(
        "#include <stdio.h>\n#include \"countersign_plugin.h\"\nint main(void) {{\n  {statements}\n  return 0;\n}}\n"
    );
    let (source, binary) = (dir.join("layout.c"), dir.join("layout"));
    std::fs::write(&source, program).unwrap();
    compile("cc", &["-std=c11"], &source, &binary);
    let run = Command::new(&binary).output().unwrap();
    assert!(run.status.success());
    let printed = String::from_utf8(run.stdout).unwrap();
    assert_eq!(printed, [rust_layout(), rust_numbers(), rust_texts()].concat());
}

#[test]
fn the_twin_knows_every_struct_and_every_constant_of_the_header() {
    let header = std::fs::read_to_string(include().join("countersign_plugin.h")).unwrap();
    let known = [rust_layout(), rust_numbers(), rust_texts()].concat();
    let known: Vec<&str> = known.lines().filter_map(|l| l.split_once(' ').map(|(name, _)| name)).collect();
    let words = header.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let missing: Vec<&str> = words
        .filter(|w| w.starts_with("CS_") || w.starts_with("cs_ext_") || w.starts_with("cs_host"))
        .filter(|w| !["CS_EXPORT", "CS_EXT_META"].contains(w) && !known.contains(w))
        .collect();
    assert!(missing.is_empty(), "not compared: {missing:?}");
}

#[test]
fn the_header_compiles_as_cpp17() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layout-cpp");
    std::fs::create_dir_all(&dir).unwrap();
    let (source, object) = (dir.join("header.cpp"), dir.join("header.o"));
    std::fs::write(&source, "#include \"countersign_plugin.h\"\nstatic_assert(sizeof(cs_status) == 4, \"\");\n")
        .unwrap();
    compile("c++", &["-std=c++17", "-c"], &source, &object);
}
