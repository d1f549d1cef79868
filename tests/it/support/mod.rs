//! What tests share: a real server on loopback with a real database file, a real issuer over HTTP, and a
//! clock that stands still until it is told to move.

pub mod issuer;
pub mod plugins;
pub mod service;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use countersign::clock::{Clock, UnixTime};

/// 2026-06-01T12:00:00Z: a Monday at noon.
pub const START_S: i64 = 1_780_315_200;

/// A clock that moves by hand.
#[derive(Clone)]
pub struct FixedClock(Arc<AtomicI64>);

impl FixedClock {
    /// Stands at [`START_S`].
    pub fn new() -> Self {
        Self(Arc::new(AtomicI64::new(START_S * 1000)))
    }

    /// Moves on.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Whole seconds.
    pub fn now_s(&self) -> i64 {
        self.0.load(Ordering::SeqCst) / 1000
    }
}

impl Clock for FixedClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}
