//! How often admin keys may fail: counted by the key together with the client's network, and by the network
//! over all keys. A key that somebody else gets wrong elsewhere goes on opening here.
//!
//! Texts that are no keys at all are not counted: they guess nothing and never reach the store.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::UnixTime;
use crate::ids::AdminKeyId;
use crate::rates::{Allowance, Counted, Network, network};

/// Of one key from one network.
const OF_KEY: Allowance = Allowance { most: 5, pause: Duration::from_secs(60) };
/// From one network. Ample beside the former: a service that goes on with a revoked key shuts out no neighbour.
const OF_NETWORK: Allowance = Allowance { most: 30, pause: Duration::from_secs(10) };
/// How many are counted at most.
const MAX_COUNTED: usize = 4096;

/// Failures of admin keys of the recent past, on this node.
#[derive(Debug, Default)]
pub struct FailedKeys(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    of_keys: Counted<(AdminKeyId, Network)>,
    of_networks: Counted<Network>,
}

impl Default for Counts {
    fn default() -> Self {
        Self { of_keys: Counted::new(MAX_COUNTED), of_networks: Counted::new(MAX_COUNTED) }
    }
}

impl FailedKeys {
    /// How long to wait before a key is looked at again; `None` when it is looked at now.
    #[must_use]
    pub fn wait(&self, key: AdminKeyId, address: Option<IpAddr>, now: UnixTime) -> Option<Duration> {
        let network = network(address);
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_key = counts.of_keys.wait(&(key, network), &OF_KEY, now);
        of_key.max(counts.of_networks.wait(&network, &OF_NETWORK, now))
    }

    /// Counts a failure.
    pub fn add(&self, key: AdminKeyId, address: Option<IpAddr>, now: UnixTime) {
        let network = network(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.of_keys.add((key, network), 1, &OF_KEY, now);
        counts.of_networks.add(network, 1, &OF_NETWORK, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SystemEntropy;

    fn key() -> AdminKeyId {
        AdminKeyId::generate(UnixTime::from_secs(1), &SystemEntropy)
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn failures_are_forgiven_one_by_one() {
        let (failed, key, now) = (FailedKeys::default(), key(), UnixTime::from_secs(1_000));
        let here = ip("192.0.2.1");
        for _ in 0..5 {
            assert_eq!(failed.wait(key, here, now), None);
            failed.add(key, here, now);
        }
        assert_eq!(failed.wait(key, here, now), Some(OF_KEY.pause));
        let later = now.plus(OF_KEY.pause);
        assert_eq!(failed.wait(key, here, later), None);
        failed.add(key, here, later);
        assert_eq!(failed.wait(key, here, later), Some(OF_KEY.pause));
        assert_eq!(failed.wait(key, here, UnixTime::from_secs(1)), Some(OF_KEY.pause), "a clock that was set back");
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one_and_others_apart() {
        let (failed, now) = (FailedKeys::default(), UnixTime::from_secs(1_000));
        for n in 0..30 {
            failed.add(key(), ip(&format!("2001:db8:0:1::{n:x}")), now);
        }
        assert_eq!(failed.wait(key(), ip("2001:db8:0:1:ffff::1"), now), Some(OF_NETWORK.pause));
        assert_eq!(failed.wait(key(), ip("2001:db8:0:2::1"), now), None);
        assert_eq!(failed.wait(key(), None, now), None);
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_memory_and_frees_nobody_who_is_held_off() {
        let (failed, key, now) = (FailedKeys::default(), key(), UnixTime::from_secs(1_000));
        let here = ip("192.0.2.1");
        for _ in 0..5 {
            failed.add(key, here, now);
        }
        for n in 0..u32::try_from(MAX_COUNTED).unwrap() + 500 {
            failed.add(key, Some(IpAddr::V4((0x0a00_0000 + n).into())), now);
        }
        let counts = failed.0.lock().unwrap();
        assert!(counts.of_keys.len() <= MAX_COUNTED && counts.of_networks.len() <= MAX_COUNTED);
        drop(counts);
        assert_eq!(failed.wait(key, here, now), Some(OF_KEY.pause));
    }
}
