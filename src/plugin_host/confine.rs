//! What a plugin's own process gives up before the library is loaded.

use std::io;

use nix::sys::resource::{Resource, setrlimit};

/// Files, sockets and pipes that it may hold.
const FILES: u64 = 256;
/// Threads and processes that it may have, its own among them.
#[cfg(target_os = "linux")]
const TASKS: u64 = 256;

/// Limits this process for good: further memory for data, no core file, few descriptors, nothing written to disk,
/// no new privileges, and no network and few processes where the system lets it give that up. Must be called while
/// the process has one thread. Tells whether the network is gone.
///
/// Not given up: what else the server's user can do, such as reading files, sending signals, and connecting to
/// sockets that have a name in the file system. Run the server as a user of its own.
///
/// # Errors
/// When a limit cannot be set.
pub(super) fn confine(memory_bytes: u64) -> io::Result<bool> {
    let has_no_network = leave_network();
    for (resource, limit) in [
        (Resource::RLIMIT_DATA, held_bytes().saturating_add(memory_bytes)),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NOFILE, FILES),
    ] {
        setrlimit(resource, limit, limit)?;
    }
    Ok(has_no_network)
}

/// What this process holds for data already: its allocator sets aside much more than it uses.
fn held_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    let kib = held.and_then(|h| h.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

#[cfg(target_os = "linux")]
fn leave_network() -> bool {
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::prctl;
    // When the server dies without a word, so does this process.
    let _ = prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    let _ = prctl::set_dumpable(false);
    let has_own_users = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).is_ok();
    if has_own_users {
        // Among the users of the system the limit would count what else the server's user runs.
        let _ = setrlimit(Resource::RLIMIT_NPROC, TASKS, TASKS);
    }
    let gone = has_own_users || unshare(CloneFlags::CLONE_NEWNET).is_ok();
    let _ = prctl::set_no_new_privs();
    gone
}

#[cfg(not(target_os = "linux"))]
fn leave_network() -> bool {
    false
}
