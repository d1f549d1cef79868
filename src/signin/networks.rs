//! How often one network may ask for what leads to a session: sign-ins, nonces, exchanges, refreshes, answers to
//! challenges, links. Counted for each tenant apart, on this node and in memory, before a key is fetched, a script
//! runs or the store is asked.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;

use super::error::SignInError;
use crate::clock::UnixTime;
use crate::codes::ErrorCode;
use crate::ids::TenantId;
use crate::rates::{Allowance, Counted, Network, network};

/// How many networks are counted at most, over all tenants.
const MAX_COUNTED: usize = 16_384;
/// What a token costs beyond an ordinary request when nobody whom the provider knows signed it.
const FORGED: u32 = 9;

/// How often.
#[derive(Debug, Clone, Default)]
pub struct NetworkLimit {
    /// Requests that one network has in a minute, and at once: 1 to 60 000. `None`: there is no limit.
    pub per_minute: Option<u32>,
    /// Networks that are not limited.
    pub exempt: Vec<IpNet>,
}

/// Who asked how often of late.
#[derive(Debug)]
pub struct Networks {
    allowance: Option<Allowance>,
    exempt: Vec<IpNet>,
    counted: Mutex<Counted<(TenantId, Network)>>,
}

impl Networks {
    /// Nobody asked yet.
    #[must_use]
    pub fn new(limit: NetworkLimit) -> Self {
        let of = |per_minute: u32| {
            let most = per_minute.clamp(1, 60_000);
            Allowance { most, pause: Duration::from_millis(u64::from(60_000 / most)) }
        };
        let counted = Mutex::new(Counted::new(MAX_COUNTED));
        Self { allowance: limit.per_minute.map(of), exempt: limit.exempt, counted }
    }

    /// Counts one request. A refused one is not counted, so that whoever waits as long as told is let in.
    ///
    /// # Errors
    /// How long to wait.
    pub fn admit(&self, tenant: &TenantId, address: Option<IpAddr>, now: UnixTime) -> Result<(), Duration> {
        let Some(allowance) = self.allowance_of(address) else { return Ok(()) };
        let who = (tenant.clone(), network(address));
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        match counted.wait(&who, allowance, now) {
            Some(wait) => Err(wait),
            None => {
                counted.add(who, 1, allowance, now);
                Ok(())
            }
        }
    }

    /// Counts a refusal more when it is one that no honest client brings about: ten such tokens cost what a
    /// hundred requests do.
    pub fn add_refusal(&self, tenant: &TenantId, address: Option<IpAddr>, refusal: &SignInError, now: UnixTime) {
        let is_forged = matches!(refusal.code(), ErrorCode::IdTokenSignatureInvalid | ErrorCode::UnknownKey);
        let Some(allowance) = self.allowance_of(address).filter(|_| is_forged) else { return };
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.add((tenant.clone(), network(address)), FORGED, allowance, now);
    }

    fn allowance_of(&self, address: Option<IpAddr>) -> Option<&Allowance> {
        let is_exempt = address.is_some_and(|ip| self.exempt.iter().any(|net| net.contains(&ip.to_canonical())));
        self.allowance.as_ref().filter(|_| !is_exempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: &str) -> TenantId {
        TenantId::parse(id).unwrap()
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn networks(per_minute: u32, exempt: &[&str]) -> Networks {
        let exempt = exempt.iter().map(|net| net.parse().unwrap()).collect();
        Networks::new(NetworkLimit { per_minute: Some(per_minute), exempt })
    }

    #[test]
    fn a_minutes_worth_at_once_then_one_after_every_pause() {
        let (networks, now, a) = (networks(60, &[]), UnixTime::from_secs(1_000), tenant("a"));
        for _ in 0..60 {
            assert_eq!(networks.admit(&a, ip("192.0.2.1"), now), Ok(()));
        }
        assert_eq!(networks.admit(&a, ip("192.0.2.1"), now), Err(Duration::from_secs(1)));
        assert_eq!(networks.admit(&a, ip("::ffff:192.0.2.1"), now), Err(Duration::from_secs(1)));
        assert_eq!(networks.admit(&a, ip("192.0.2.2"), now), Ok(()));
        assert_eq!(networks.admit(&tenant("b"), ip("192.0.2.1"), now), Ok(()), "each tenant has its own count");
        let later = now.plus(Duration::from_secs(1));
        assert_eq!(networks.admit(&a, ip("192.0.2.1"), later), Ok(()));
        assert_eq!(networks.admit(&a, ip("192.0.2.1"), later), Err(Duration::from_secs(1)));
    }

    #[test]
    fn no_limit_and_exempt_networks_are_never_held_off() {
        let (now, a) = (UnixTime::from_secs(1_000), tenant("a"));
        let without = Networks::new(NetworkLimit::default());
        let exempt = networks(1, &["10.0.0.0/8"]);
        for _ in 0..1000 {
            assert_eq!(without.admit(&a, ip("192.0.2.1"), now), Ok(()));
            assert_eq!(exempt.admit(&a, ip("::ffff:10.1.2.3"), now), Ok(()));
        }
        assert_eq!(exempt.admit(&a, ip("192.0.2.1"), now), Ok(()));
        assert!(exempt.admit(&a, ip("192.0.2.1"), now).is_err());
    }
}
