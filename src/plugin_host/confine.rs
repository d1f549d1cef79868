//! What a plugin's own process gives up before the library is loaded.

use std::io;
use std::os::fd::RawFd;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::close;

/// Files, sockets and pipes that it may hold.
const FILES: u64 = 256;
/// Threads and processes that it may have, its own among them.
#[cfg(target_os = "linux")]
const TASKS: u64 = 256;

/// Closes what whoever started the server left open for it, a socket or a file with a secret: that passes on to each
/// process that the server starts. Standard input, output and error stay. Must be called before this process opens
/// anything of its own.
pub(super) fn close_inherited() {
    let listed = std::fs::read_dir("/dev/fd").map(|open| {
        let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        numbers.collect::<Vec<RawFd>>()
    });
    // The one that listed them is closed by now, and a number that is not open does no harm.
    for number in listed.unwrap_or_else(|_| (0..1024).collect()).into_iter().filter(|number| *number > 2) {
        let _ = close(number);
    }
}

/// Leaves the signals that end a server to the server: a terminal sends them to its whole group and systemd to all
/// of a unit, while requests still run that need this process. The server ends it when they are done. Must be called
/// while the process has one thread: the others do as the one that started them.
///
/// # Errors
/// When the system refuses.
pub(super) fn outlive_signals() -> io::Result<()> {
    let ending: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    Ok(ending.thread_block()?)
}

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
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
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
