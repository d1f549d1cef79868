//! The shipped plugins in processes of their own, under the built program: what they are for works the same, and
//! their deaths are noticed by whoever needs them alone.

mod codes;
mod events;
mod exchange;
mod providers;
mod push;
mod secured;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::plugins::{Bench, Entry};
use crate::support::program::{Program, freeze, signal};
use crate::support::service::{Answer, Setup};

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

/// A process that hears of the request and gets no further, until it is killed: what the request is answered with then.
async fn killed_inside(program: &Program, request: impl Future<Output = Answer>) -> Answer {
    let pid = program.plugin_pid().expect("it runs");
    freeze(pid).await;
    let since = Instant::now();
    let kill = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        signal(pid, Signal::SIGKILL);
    };
    let (answer, ()) = tokio::join!(request, kill);
    assert!(since.elapsed() < Duration::from_secs(9), "it waited for the deadline although nobody would answer");
    answer
}
