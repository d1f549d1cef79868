//! How often somebody does something, counted in memory with a bound: so many at once, and one more after every
//! pause. A count is one moment, so that nothing has to be swept.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::clock::UnixTime;

/// Where a client is: an IPv4 address, or the /64 of an IPv6 address, within which a client chooses freely.
/// `None` where the connection has no address.
pub type Network = Option<IpAddr>;

/// The network of an address. An IPv4 address that is mapped into IPv6 is that IPv4 address.
#[must_use]
pub fn network(address: Option<IpAddr>) -> Network {
    address.map(|address| match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    })
}

/// So many at once, and one more after every pause.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// How many at once; at least one.
    pub most: u32,
    /// What one of them costs, in whole milliseconds.
    pub pause: Duration,
}

impl Allowance {
    /// When all is forgiven, at the latest: a clock that was set back holds nobody off for longer.
    fn last(&self, now: UnixTime) -> UnixTime {
        now.plus(self.pause * self.most)
    }
}

/// When all that was counted of each is forgiven: every one moves that on by a pause.
#[derive(Debug)]
pub struct Counted<K> {
    most_counted: usize,
    forgiven: HashMap<K, UnixTime>,
}

impl<K: Eq + Hash> Counted<K> {
    /// Nobody yet. At most so many are counted; beyond, those of whom least is counted are forgotten.
    #[must_use]
    pub fn new(most_counted: usize) -> Self {
        Self { most_counted, forgiven: HashMap::new() }
    }

    /// How long somebody has to wait; `None` when there is nothing to wait for.
    #[must_use]
    pub fn wait(&self, who: &K, allowance: &Allowance, now: UnixTime) -> Option<Duration> {
        let forgiven = (*self.forgiven.get(who)?).min(allowance.last(now));
        let wait = forgiven.since(now.plus(allowance.pause * allowance.most.saturating_sub(1)));
        (!wait.is_zero()).then_some(wait)
    }

    /// Counts so many at once of somebody.
    pub fn add(&mut self, who: K, times: u32, allowance: &Allowance, now: UnixTime) {
        if self.forgiven.len() >= self.most_counted && !self.forgiven.contains_key(&who) {
            self.make_room(now);
        }
        let forgiven = self.forgiven.entry(who).or_insert(now);
        *forgiven = (*forgiven).max(now).plus(allowance.pause * times).min(allowance.last(now));
    }

    /// How many are counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.forgiven.len()
    }

    /// Whether nobody is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.forgiven.is_empty()
    }

    /// Forgets whoever has nothing left to be forgiven, and the lesser half of the rest when they are most: one walk
    /// makes room for many, and a flood of newcomers frees nobody who is held off.
    fn make_room(&mut self, now: UnixTime) {
        self.forgiven.retain(|_, forgiven| *forgiven > now);
        if self.forgiven.len() <= self.most_counted / 4 * 3 {
            return;
        }
        let mut moments: Vec<UnixTime> = self.forgiven.values().copied().collect();
        let middle = moments.len() / 2;
        let (_, median, _) = moments.select_nth_unstable(middle);
        let median = *median;
        let mut surplus = middle;
        // Those at the median itself may be all of them: as many go as make half.
        self.forgiven.retain(|_, forgiven| {
            let goes = surplus > 0 && *forgiven <= median;
            surplus -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: Allowance = Allowance { most: 3, pause: Duration::from_secs(10) };

    fn at(s: i64) -> UnixTime {
        UnixTime::from_secs(s)
    }

    #[test]
    fn what_counts_for_several_uses_the_allowance_up_sooner() {
        let mut counted = Counted::new(8);
        counted.add("a", 1, &THREE, at(100));
        assert_eq!(counted.wait(&"a", &THREE, at(100)), None);
        counted.add("a", 2, &THREE, at(100));
        assert_eq!(counted.wait(&"a", &THREE, at(100)), Some(Duration::from_secs(10)));
        assert_eq!(counted.wait(&"a", &THREE, at(109)), Some(Duration::from_secs(1)));
        assert_eq!(counted.wait(&"a", &THREE, at(110)), None);
        counted.add("a", u32::MAX / 10_000, &THREE, at(110));
        assert_eq!(counted.wait(&"a", &THREE, at(110)), Some(THREE.pause), "never longer than from full on");
    }

    #[test]
    fn room_is_made_by_forgetting_those_with_least_and_never_whoever_is_held_off() {
        let mut counted = Counted::new(10);
        counted.add(u32::MAX, 3, &THREE, at(100));
        for n in 0..1000 {
            counted.add(n, 1, &THREE, at(100));
            assert!(counted.len() <= 10);
        }
        assert_eq!(counted.wait(&u32::MAX, &THREE, at(100)), Some(THREE.pause));
        assert!(counted.len() > 5);
        counted.add(7, 1, &THREE, at(1000));
        counted.add(8, 1, &THREE, at(1000));
        assert!(!counted.is_empty());
    }

    #[test]
    fn a_network_is_an_ipv4_address_or_a_64th_of_ipv6() {
        let of = |text: &str| network(Some(text.parse().unwrap()));
        assert_eq!(of("2001:DB8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.2"), of("192.0.2.1"));
        assert_eq!(network(None), None);
    }
}
