//! The shipped plugins in processes of their own, under the built program: what they are for works the same, and
//! their deaths are noticed by whoever needs them alone.

mod events;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::plugins::{Bench, Entry};
use crate::support::program::{Program, signal};
use crate::support::service::Setup;

/// In the lock file.
const APART: &str = "isolation = \"process\"";

/// A bench and the program on it, with this entry alone.
async fn start(bench: Bench, entry: &Entry, mut setup: Setup) -> (Program, Bench) {
    let bench = bench.lock(entry);
    setup.plugins_lock = Some(bench.write());
    (Program::start(setup).await, bench)
}

/// Kills the process of the plugin as its `nth` death; gives the next one, which calls reach, and how long that took.
async fn die(program: &Program, nth: usize) -> (u32, Duration) {
    let (pid, since) = (program.plugin_pid().expect("it runs"), Instant::now());
    signal(pid, Signal::SIGKILL);
    (program.until_another_than(pid, nth).await, since.elapsed())
}
