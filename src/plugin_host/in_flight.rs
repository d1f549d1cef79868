//! The calls that are inside of a plugin, and how long each is waited for.
//!
//! One task looks after the hard limits of all calls of a plugin, and ends when none came for a while. A timer for
//! each call would be the earliest one each time, and so wake a thread of the runtime, which costs as much as the call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::instance::RawReply;

/// How long after its deadline a call is still waited for. Since no call begins after its deadline, whoever looks
/// as often as this misses no limit.
pub(super) const GRACE: Duration = Duration::from_millis(250);

/// The running calls of one plugin.
#[derive(Default)]
pub(super) struct InFlight(Mutex<Calls>);

#[derive(Default)]
struct Calls {
    running: Vec<Running>,
    /// So many began.
    begun: u64,
    is_watched: bool,
}

struct Running {
    number: u64,
    hard: Instant,
    /// Gone when nobody waits any more.
    tell: Option<oneshot::Sender<RawReply>>,
}

impl InFlight {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call goes inside. The receiver gives the reply; an error when the call ends without one, or does not end
    /// until its hard limit. Call it within a runtime.
    pub(super) fn enter(self: &Arc<Self>, hard: Instant) -> (Entered, oneshot::Receiver<RawReply>) {
        let (tell, told) = oneshot::channel();
        let mut calls = self.calls();
        let number = calls.begun;
        calls.begun += 1;
        calls.running.push(Running { number, hard, tell: Some(tell) });
        let is_watched = std::mem::replace(&mut calls.is_watched, true);
        drop(calls);
        if !is_watched {
            tokio::spawn(Watch { over: Arc::clone(self), has_ended: false }.run());
        }
        (Entered { within: Arc::clone(self), number }, told)
    }

    /// How many of them should have returned.
    pub(super) fn stuck(&self, now: Instant) -> usize {
        self.calls().running.iter().filter(|call| call.hard <= now).count()
    }

    fn take(&self, number: u64) -> Option<Running> {
        let mut calls = self.calls();
        let at = calls.running.iter().position(|call| call.number == number)?;
        Some(calls.running.swap_remove(at))
    }
}

/// A call is inside, until this goes.
pub(super) struct Entered {
    within: Arc<InFlight>,
    number: u64,
}

impl Entered {
    /// It returned with a reply, which goes to whoever still waits.
    pub(super) fn finish(self, reply: RawReply) {
        if let Some(tell) = self.within.take(self.number).and_then(|call| call.tell) {
            let _ = tell.send(reply);
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.within.take(self.number);
    }
}

/// Tells those that wait for a call that its time is over.
struct Watch {
    over: Arc<InFlight>,
    has_ended: bool,
}

impl Watch {
    async fn run(mut self) {
        let mut seen = u64::MAX;
        loop {
            let now = Instant::now();
            let mut over = Vec::new();
            let mut next = now + GRACE;
            {
                let mut calls = self.over.calls();
                let mut waits = false;
                for call in &mut calls.running {
                    if call.hard <= now {
                        over.extend(call.tell.take());
                    } else {
                        waits |= call.tell.is_some();
                        next = next.min(call.hard);
                    }
                }
                if !waits && over.is_empty() && calls.begun == seen {
                    calls.is_watched = false;
                    self.has_ended = true;
                    return;
                }
                seen = calls.begun;
            }
            drop(over);
            tokio::time::sleep_until(next.into()).await;
        }
    }
}

impl Drop for Watch {
    /// The runtime may end before the calls do; the next one has its own watch.
    fn drop(&mut self) {
        if !self.has_ended {
            self.over.calls().is_watched = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> RawReply {
        RawReply { status: 0, output: Vec::new(), overflowed: false }
    }

    #[tokio::test]
    async fn a_call_is_stuck_from_its_hard_limit_until_it_returns() {
        let in_flight = Arc::new(InFlight::default());
        let now = Instant::now();
        let (late, _) = in_flight.enter(now);
        let (later, _) = in_flight.enter(now + Duration::from_secs(60));
        assert_eq!(in_flight.stuck(now), 1);
        late.finish(reply());
        assert_eq!(in_flight.stuck(now), 0);
        assert_eq!(in_flight.stuck(now + Duration::from_secs(60)), 1);
        drop(later);
        assert_eq!(in_flight.stuck(now + Duration::from_secs(61)), 0);
    }

    #[tokio::test]
    async fn who_waits_is_told_at_the_hard_limit_and_not_before() {
        let in_flight = Arc::new(InFlight::default());
        let begun = Instant::now();
        let limits = [700, 300, 500].map(|ms| begun + Duration::from_millis(ms));
        let calls = limits.map(|hard| in_flight.enter(hard));
        for (call, told) in calls {
            let hard = limits[usize::try_from(call.number).unwrap()];
            assert!(told.await.is_err(), "nobody answered");
            assert!(Instant::now() >= hard, "told too early");
            call.finish(reply());
        }
        let (call, told) = in_flight.enter(Instant::now() + Duration::from_secs(9));
        call.finish(reply());
        assert!(told.await.is_ok_and(|reply| reply.status == 0));
        assert_eq!(in_flight.stuck(Instant::now() + Duration::from_secs(9)), 0);
    }

    #[tokio::test]
    async fn the_watch_ends_when_no_call_comes_and_begins_again_with_one() {
        let in_flight = Arc::new(InFlight::default());
        for _ in 0..2 {
            drop(in_flight.enter(Instant::now() + Duration::from_secs(60)));
            assert!(in_flight.calls().is_watched);
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if !in_flight.calls().is_watched {
                    break;
                }
            }
            assert!(!in_flight.calls().is_watched, "nothing runs, and it goes on");
        }
    }
}
