//! Why plugins could not be loaded: what was found, where, and the mend.

use std::io;
use std::path::PathBuf;

use countersign_plugin_sdk::abi::{CS_ABI_MAJOR, CS_ABI_MINOR, CsStatus};

/// Why the host does not start with these plugins. For the operator: texts name paths.
#[derive(Debug, thiserror::Error)]
pub enum PluginLoadError {
    /// The lock file says something unusable.
    #[error("{}:{line}: {what}", lock.display())]
    Lock {
        /// The lock file.
        lock: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what would be right.
        what: String,
    },
    /// A file or directory cannot be read or written.
    #[error("{}: {what}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Others could change the file, or it is not a plain file.
    #[error("{}: {what}", path.display())]
    Unsafe {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong and the mend.
        what: &'static str,
    },
    /// The file is not the one that the lock names. Nothing of it was run.
    #[error(
        "plugin {id}: {} has sha256 {found}, but the lock says {locked}; nothing of it was run. \
         If you trust this file, write its new entry with `countersign plugin lock FILE`", file.display()
    )]
    WrongHash {
        /// The plugin.
        id: String,
        /// Its file.
        file: PathBuf,
        /// The hash in the lock.
        locked: String,
        /// The hash of the file.
        found: String,
    },
    /// The library was opened and refused.
    #[error("plugin {id} ({}, sha256 {sha256}): {fault}", file.display())]
    Refused {
        /// The plugin; a question mark when only the file is known.
        id: String,
        /// Its file, not the copy.
        file: PathBuf,
        /// The hash of the file.
        sha256: String,
        /// Why; its text stands in that of this error.
        fault: Box<HandshakeFault>,
    },
}

/// Why an opened library is not a plugin for this host.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeFault {
    /// The loader does not take it.
    #[error("it is not a loadable library: {0}")]
    NotLoadable(String),
    /// The entry symbol is absent.
    #[error("it exports no function countersign_plugin_entry; is it a Countersign plugin?")]
    NoEntry,
    /// The entry gave null or a pointer that cannot be one.
    #[error("its entry function gave no table to host ABI {CS_ABI_MAJOR}.{CS_ABI_MINOR}")]
    NoTable,
    /// Another major version.
    #[error(
        "it needs ABI {needed}, this host offers {CS_ABI_MAJOR}.{CS_ABI_MINOR}; \
         rebuild it with countersign_plugin.h or the SDK of ABI {CS_ABI_MAJOR}"
    )]
    AbiMajor {
        /// What it was built for.
        needed: u32,
    },
    /// A struct that is too short to be read.
    #[error("its {table} says {size} bytes and needs at least {least}; set size to sizeof({table}) and rebuild it")]
    ShortTable {
        /// Which struct.
        table: &'static str,
        /// What it says.
        size: u32,
        /// What is needed.
        least: usize,
    },
    /// A pointer that must not be null.
    #[error("its {0} is NULL")]
    NullPointer(&'static str),
    /// A text that is too long, not UTF-8 or of another form.
    #[error("its {what} is not {expected}")]
    BadText {
        /// Which text.
        what: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Not the plugin that the lock names.
    #[error("it says that its {what} is \"{found}\", but the lock says \"{locked}\"")]
    NotTheLocked {
        /// `id` or `version`.
        what: &'static str,
        /// What it says.
        found: String,
        /// What the lock says.
        locked: String,
    },
    /// The lock names a hook that it does not have.
    #[error("it does not implement the hook {hook} that the lock names; strike the hook or update the plugin")]
    NoHook {
        /// The hook.
        hook: &'static str,
    },
    /// It needs what its own process does not have.
    #[error(
        "it opens connections itself, and a process of its own has no network; write isolation = \"in_process\""
    )]
    NeedsNetwork,
    /// `create` gave an error.
    #[error("create refused with status {status}: {message}")]
    CreateRefused {
        /// The status.
        status: CsStatus,
        /// What it says itself.
        message: String,
    },
    /// Its self-test did not fail as it must.
    #[error(
        "its self-test gave status {status}; it must contain a fault of its own and give 6 (CS_INTERNAL): \
         build it with panic = \"unwind\""
    )]
    SelfTest {
        /// The status.
        status: CsStatus,
    },
    /// It ended while it started, in a process of its own.
    #[error("its process ended while it started: {0}")]
    Ended(String),
    /// A fault that its own process found.
    #[error("{0}")]
    InProcess(String),
    /// It hangs.
    #[error("it did not start within {0} s")]
    TooSlow(u64),
    /// No thread could be had.
    #[error("no thread could be started for it: {0}")]
    NoThread(io::Error),
}

/// The text of an error with those of its causes, for a loader that keeps the reason one level down.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
