//! Time in tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use countersign::clock::{Clock, SystemClock, UnixTime};

/// 2026-06-01T12:00:00Z: a Monday at noon.
pub const START_S: i64 = 1_780_315_200;

/// A clock that moves by hand, or the machine's.
#[derive(Clone)]
pub struct TestClock(Option<Arc<AtomicI64>>);

impl TestClock {
    /// Stands at [`START_S`].
    pub fn fixed() -> Self {
        Self(Some(Arc::new(AtomicI64::new(START_S * 1000))))
    }

    /// The machine's.
    pub fn real() -> Self {
        Self(None)
    }

    /// Moves on.
    pub fn advance(&self, by: std::time::Duration) {
        let held = self.0.as_ref().expect("only a fixed clock is moved");
        held.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Moves back, as one that is set right does, or that of another server.
    pub fn set_back(&self, by: std::time::Duration) {
        let held = self.0.as_ref().expect("only a fixed clock is moved");
        held.fetch_sub(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Whole seconds.
    pub fn now_s(&self) -> i64 {
        self.now().as_secs()
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        match &self.0 {
            Some(held) => UnixTime::from_millis(held.load(Ordering::SeqCst)),
            None => SystemClock.now(),
        }
    }
}
