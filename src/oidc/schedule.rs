//! When a key set is due, how long it may be kept, and how long a failing endpoint is left alone.

use std::time::Duration;

use crate::clock::UnixTime;

/// Kept at least so long, whatever the endpoint says: a careless `max-age=0` must not mean a fetch a sign-in.
const MIN_TTL: Duration = Duration::from_secs(5 * 60);
/// Kept at most so long.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// Kept so long when the endpoint says nothing.
const DEFAULT_TTL: Duration = Duration::from_secs(3600);
/// How long an overdue set is served while its endpoint fails.
pub(super) const STALE_IF_ERROR: Duration = Duration::from_secs(24 * 3600);
/// The least time between two fetches that unknown key ids ask for: at most six a minute.
pub(super) const UNKNOWN_KEY_COOL_DOWN: Duration = Duration::from_secs(10);
/// The longest pause after failures.
pub(super) const MAX_BACK_OFF: Duration = Duration::from_secs(60);

/// How long a set lives whose endpoint allows this.
pub(super) fn time_to_live(max_age: Option<Duration>) -> Duration {
    max_age.unwrap_or(DEFAULT_TTL).clamp(MIN_TTL, MAX_TTL)
}

/// The pause after so many failures in a row: 1, 2, 4, … 60 s.
pub(super) fn back_off(failures: u32) -> Duration {
    Duration::from_secs(1u64 << failures.saturating_sub(1).min(6)).min(MAX_BACK_OFF)
}

/// What `Cache-Control` (RFC 9111 section 5.2.2) and `Age` leave of the answer's freshness; `None` when the
/// header says nothing. `no-store` and `no-cache` count as zero.
pub(super) fn freshness(cache_control: Option<&str>, age: Option<&str>) -> Option<Duration> {
    let mut max_age = None;
    for directive in cache_control?.split(',') {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let name = name.trim();
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        if name.eq_ignore_ascii_case("max-age") && max_age.is_none() {
            max_age = value.trim().trim_matches('"').parse::<u64>().ok();
        }
    }
    let age = age.and_then(|a| a.trim().parse::<u64>().ok()).unwrap_or(0);
    max_age.map(|s| Duration::from_secs(s.saturating_sub(age)))
}

/// The three times of a held set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime {
    fetched_at: UnixTime,
    ttl: Duration,
}

impl Lifetime {
    pub(super) fn new(fetched_at: UnixTime, max_age: Option<Duration>) -> Self {
        Self { fetched_at, ttl: time_to_live(max_age) }
    }

    pub(super) const fn fetched_at(self) -> UnixTime {
        self.fetched_at
    }

    pub(super) const fn ttl(self) -> Duration {
        self.ttl
    }

    /// It should be fetched anew in the background: the last fifth of its time has begun, or the clock was
    /// set back to before the fetch.
    pub(super) fn is_due(self, now: UnixTime) -> bool {
        now < self.fetched_at || now >= self.fetched_at.plus(self.ttl * 4 / 5)
    }

    /// Its time is over: it counts only while the endpoint fails.
    pub(super) fn is_overdue(self, now: UnixTime) -> bool {
        now >= self.fetched_at.plus(self.ttl)
    }

    /// It counts no more.
    pub(super) fn is_dead(self, now: UnixTime) -> bool {
        now >= self.fetched_at.plus(self.ttl + STALE_IF_ERROR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_control_is_read_and_nonsense_is_ignored() {
        let s = |n| Some(Duration::from_secs(n));
        for (header, age, expected) in [
            (None, None, None),
            (Some(""), None, None),
            (Some("public"), None, None),
            (Some("public, max-age=600"), None, s(600)),
            (Some("MAX-AGE = \"600\""), None, s(600)),
            (Some("max-age=600, max-age=7"), None, s(600)),
            (Some("max-age=600"), Some("100"), s(500)),
            (Some("max-age=600"), Some("1000"), s(0)),
            (Some("max-age=600"), Some("-1"), s(600)),
            (Some("max-age=-5"), None, None),
            (Some("max-age=99999999999999999999999"), None, None),
            (Some("max-age=600, no-cache"), None, s(0)),
            (Some("no-store"), None, s(0)),
            (Some("s-maxage=9"), None, None),
        ] {
            assert_eq!(freshness(header, age), expected, "{header:?} {age:?}");
        }
    }

    #[test]
    fn the_time_to_live_stays_between_five_minutes_and_a_day() {
        assert_eq!(time_to_live(None), DEFAULT_TTL);
        assert_eq!(time_to_live(Some(Duration::ZERO)), MIN_TTL);
        assert_eq!(time_to_live(Some(Duration::from_secs(600))), Duration::from_secs(600));
        assert_eq!(time_to_live(Some(Duration::from_secs(u64::MAX))), MAX_TTL);
    }

    #[test]
    fn the_pause_doubles_up_to_a_minute() {
        let pauses: Vec<u64> = [0, 1, 2, 3, 6, 7, 8, u32::MAX].map(|n| back_off(n).as_secs()).to_vec();
        assert_eq!(pauses, [1, 1, 2, 4, 32, 60, 60, 60]);
    }

    #[test]
    fn a_set_is_due_then_overdue_then_dead() {
        let life = Lifetime::new(UnixTime::from_secs(1000), Some(Duration::from_secs(1000)));
        let at = |s| {
            let now = UnixTime::from_secs(s);
            (life.is_due(now), life.is_overdue(now), life.is_dead(now))
        };
        assert_eq!(at(1000), (false, false, false));
        assert_eq!(at(1799), (false, false, false));
        assert_eq!(at(1800), (true, false, false));
        assert_eq!(at(2000), (true, true, false));
        assert_eq!(at(2000 + 86_399), (true, true, false));
        assert_eq!(at(2000 + 86_400), (true, true, true));
        assert_eq!(at(999), (true, false, false), "a clock that was set back asks for a new set");
    }
}
