//! Threads for the calls of one plugin.
//!
//! Not tokio's blocking pool: that is shared with others, and a runtime waits at its end for every
//! blocking task, so one hung call would keep the server from stopping. These threads start when there
//! is work, end when there is none, and the process does not wait for them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const IDLE: Duration = Duration::from_secs(30);
const STACK_BYTES: usize = 2 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs on at most `max` threads.
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    max: usize,
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
    closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    pub(super) fn new(plugin: &str, max: usize) -> Self {
        let name = format!("plugin {plugin}");
        let (state, ready) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { name, max, state, ready }) }
    }

    /// Runs the job soon. It is dropped unrun when no thread can be had.
    pub(super) fn submit(&self, job: Job) {
        let mut state = self.shared.state();
        state.jobs.push_back(job);
        if state.jobs.len() <= state.idle || state.threads >= self.shared.max {
            drop(state);
            self.shared.ready.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.shared);
        let builder = std::thread::Builder::new().name(self.shared.name.clone()).stack_size(STACK_BYTES);
        if builder.spawn(move || work(&shared)).is_err() {
            let mut state = self.shared.state();
            state.threads -= 1;
            // Other threads will come to it; with none it would wait for ever.
            let lost = if state.threads == 0 { std::mem::take(&mut state.jobs) } else { VecDeque::new() };
            drop(state);
            drop(lost);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.ready.notify_all();
    }
}

fn work(shared: &Shared) {
    let mut state = shared.state();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            // What a job leaves behind is undone by its guards.
            let _ = catch_unwind(AssertUnwindSafe(job));
            state = shared.state();
            continue;
        }
        if state.closed {
            break;
        }
        state.idle += 1;
        let (woken, waited) = shared.ready.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
        state = woken;
        state.idle -= 1;
        if waited.timed_out() && state.jobs.is_empty() {
            break;
        }
    }
    state.threads -= 1;
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn jobs_beyond_the_threads_wait_and_run_and_a_panic_costs_none() {
        let pool = Pool::new("test", 2);
        let (tell, told) = mpsc::channel();
        for n in 0..20 {
            let tell = tell.clone();
            pool.submit(Box::new(move || {
                tell.send(n).unwrap();
                assert!(n % 3 != 0, "a job that panics");
            }));
        }
        let mut seen: Vec<i32> = (0..20).map(|_| told.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
        assert!(pool.shared.state().threads <= 2);
    }
}
