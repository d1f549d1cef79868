//! What earlier sign-ins tell of this one. Pure: entries in, facts out.
//!
//! A place or network is *known* when a sign-in from it passed MFA, when it was used on two different
//! days, or when the account's first sign-in came from it; so one lucky guess does not make an
//! attacker's place a known one.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::facts::{DeviceMatch, GeoQuality, HistoryFacts, LastSignIn, NetworkKind, Point, RequestFacts, Travel};
use super::rules::Level;
use crate::clock::UnixTime;
use crate::secret::Secret;

/// How far back entries count.
pub const HISTORY_DAYS: u64 = 180;
/// The most entries that are read for one user, newest first.
pub const HISTORY_ENTRIES: usize = 200;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A keyed hash: two equal values are seen to be equal, and nothing else can be told from it.
pub type Pseudonym = [u8; 8];

/// Makes pseudonyms with a key of the server, so that a stolen store does not tell addresses or devices.
#[derive(Debug, Clone)]
pub struct Pseudonyms(Arc<Secret>);

impl Pseudonyms {
    /// With this key.
    #[must_use]
    pub fn new(key: Secret) -> Self {
        Self(Arc::new(key))
    }

    /// The pseudonym of a value of one kind, in one tenant.
    #[must_use]
    pub fn of(&self, tenant: &str, kind: &str, value: &str) -> Pseudonym {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, self.0.expose());
        let mut context = aws_lc_rs::hmac::Context::with_key(&key);
        for part in [tenant, kind, value] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let tag = context.sign();
        let mut out = [0; 8];
        out.copy_from_slice(&tag.as_ref()[..8]);
        out
    }
}

/// Where and with what a sign-in was made, as it is stored: no address, no agent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContextPrint {
    /// The device identifier that the application sent.
    pub device: Option<Pseudonym>,
    /// Browser and operating system families.
    pub agent: Option<Pseudonym>,
    /// The address range.
    pub prefix: Option<Pseudonym>,
    /// ISO 3166-1 alpha-2.
    pub country: Option<Arc<str>>,
    /// Autonomous system number.
    pub asn: Option<i64>,
    /// Coordinates, when they are good enough to measure travel.
    pub point: Option<Point>,
}

impl ContextPrint {
    /// The print of a request.
    #[must_use]
    pub fn of(request: &RequestFacts, tenant: &str, pseudonyms: &Pseudonyms) -> Self {
        let agent = request.browser.as_deref().zip(request.os.as_deref()).map(|(b, o)| format!("{b}/{o}"));
        let kind = request.location.network_kind;
        let measurable = request.location.quality == GeoQuality::Ok
            && !matches!(kind, NetworkKind::Anonymizer | NetworkKind::Mobile | NetworkKind::Private);
        Self {
            device: request.device_id.as_deref().map(|d| pseudonyms.of(tenant, "device", d)),
            agent: agent.map(|a| pseudonyms.of(tenant, "agent", &a)),
            prefix: request.ip_prefix().map(|p| pseudonyms.of(tenant, "prefix", &p)),
            country: request.location.country.clone(),
            asn: request.location.asn,
            point: request.location.point.filter(|_| measurable),
        }
    }
}

/// How an earlier sign-in ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PastEnd {
    /// Tokens without a local second factor.
    SignedIn,
    /// Tokens after a second factor.
    MfaPassed,
    /// A challenge; how it ended is an entry of its own.
    Challenged,
    /// A wrong code.
    MfaFailed,
    /// A denial by the rules.
    Denied,
    /// A refusal for another cause.
    Refused,
}

impl PastEnd {
    /// Every end, in the order of their stored numbers.
    pub const ALL: [Self; 6] =
        [Self::SignedIn, Self::MfaPassed, Self::Challenged, Self::MfaFailed, Self::Denied, Self::Refused];

    const fn succeeded(self) -> bool {
        matches!(self, Self::SignedIn | Self::MfaPassed)
    }

    const fn failed(self) -> bool {
        matches!(self, Self::MfaFailed | Self::Denied | Self::Refused)
    }
}

/// One earlier sign-in.
#[derive(Debug, Clone)]
pub struct PastSignIn {
    /// When.
    pub at: UnixTime,
    /// How it ended.
    pub end: PastEnd,
    /// Where and with what.
    pub context: ContextPrint,
    /// With which provider.
    pub provider: Arc<str>,
    /// Its level.
    pub level: Option<Level>,
}

/// Earlier sign-ins of one user, newest first, at most [`HISTORY_ENTRIES`].
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The entries.
    pub entries: Vec<PastSignIn>,
    /// The account's first successful sign-in, when it is older than the entries.
    pub first: Option<ContextPrint>,
}

impl History {
    /// Compares a sign-in at `now` with the entries of the last 180 days.
    #[must_use]
    pub fn facts(&self, context: &ContextPrint, now: UnixTime) -> HistoryFacts {
        let oldest = now.minus(DAY * u32::try_from(HISTORY_DAYS).unwrap_or(u32::MAX));
        let recent: Vec<&PastSignIn> = self.entries.iter().filter(|e| e.at >= oldest && e.at <= now).collect();
        let good: Vec<&PastSignIn> = recent.iter().copied().filter(|e| e.end.succeeded()).collect();
        let within = |wanted: fn(PastEnd) -> bool, span: Duration| {
            let from = now.minus(span);
            count(recent.iter().filter(|e| wanted(e.end) && e.at > from).count())
        };
        let last = good.first().copied();
        let device = self.device(&good, context);
        let (km_from_last, hours_since_last, implied_speed_kmh, travel) = travel(last, context, device, now);
        HistoryFacts {
            sign_ins_total: count(good.len()),
            sign_ins_30d: within(PastEnd::succeeded, DAY * 30),
            failed_attempts_1h: within(PastEnd::failed, HOUR),
            failed_attempts_24h: within(PastEnd::failed, DAY),
            denied_30d: within(|e| e == PastEnd::Denied, DAY * 30),
            mfa_failed_24h: within(|e| e == PastEnd::MfaFailed, DAY),
            device,
            trusted_device: false,
            known_country: self.known(&good, context, |c| c.country.as_ref()),
            known_asn: self.known(&good, context, |c| c.asn.as_ref()),
            known_prefix: self.known(&good, context, |c| c.prefix.as_ref()),
            km_from_last,
            hours_since_last,
            implied_speed_kmh,
            travel,
            last_sign_in: last.map(|entry| LastSignIn {
                time: entry.at,
                country: entry.context.country.clone(),
                asn: entry.context.asn,
                provider_id: Arc::clone(&entry.provider),
                factors: if entry.end == PastEnd::MfaPassed { vec!["mfa".to_owned()] } else { Vec::new() },
                level: entry.level.unwrap_or(Level::Low).as_str().into(),
            }),
            likelihood: None,
        }
    }

    fn device(&self, good: &[&PastSignIn], context: &ContextPrint) -> DeviceMatch {
        if context.device.is_none() && context.agent.is_none() {
            return DeviceMatch::Unknown;
        }
        let seen: Vec<&ContextPrint> = good.iter().map(|e| &e.context).chain(&self.first).collect();
        if seen.is_empty() {
            return DeviceMatch::First;
        }
        let same_device = |c: &ContextPrint| context.device.is_some() && c.device == context.device;
        let same_agent = |c: &ContextPrint| context.agent.is_some() && c.agent == context.agent;
        if seen.iter().any(|c| same_device(c) && c.agent == context.agent) {
            DeviceMatch::Match
        } else if seen.iter().any(|c| same_device(c) || same_agent(c)) {
            DeviceMatch::Partial
        } else {
            DeviceMatch::New
        }
    }

    /// `None` when this sign-in does not tell the value, or no earlier one did: no data is not news.
    fn known<T: PartialEq>(
        &self,
        good: &[&PastSignIn],
        context: &ContextPrint,
        pick: impl Fn(&ContextPrint) -> Option<&T>,
    ) -> Option<bool> {
        let here = pick(context)?;
        let first = self.first.as_ref().or_else(|| good.last().map(|e| &e.context));
        let first_here = first.and_then(&pick) == Some(here);
        if first_here {
            return Some(true);
        }
        let told = good.iter().any(|e| pick(&e.context).is_some()) || first.and_then(&pick).is_some();
        if !told {
            return None;
        }
        let matching = || good.iter().filter(|e| pick(&e.context) == Some(here));
        let days: HashSet<i64> = matching().map(|e| e.at.day()).collect();
        Some(days.len() >= 2 || matching().any(|e| e.end == PastEnd::MfaPassed))
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Great-circle distance in kilometres on a sphere of 6371 km.
fn distance_km(a: Point, b: Point) -> f64 {
    let (lat_a, lat_b) = (a.latitude.to_radians(), b.latitude.to_radians());
    let half_lat = (lat_b - lat_a) / 2.0;
    let half_lon = (b.longitude - a.longitude).to_radians() / 2.0;
    let h = half_lat.sin().powi(2) + lat_a.cos() * lat_b.cos() * half_lon.sin().powi(2);
    2.0 * 6371.0 * h.clamp(0.0, 1.0).sqrt().asin()
}

/// Speed over 900 km/h and more than 300 km is impossible; over 600 km/h and 300 km it is fast. Both
/// accuracies are taken off the distance first. A device that matches says more than a database of
/// addresses (VPN), so travel is not known then.
fn travel(
    last: Option<&PastSignIn>,
    context: &ContextPrint,
    device: DeviceMatch,
    now: UnixTime,
) -> (Option<f64>, Option<f64>, Option<f64>, Travel) {
    let Some(last) = last else { return (None, None, None, Travel::Unknown) };
    let hours = (now.since(last.at).as_secs_f64() / 3600.0).max(0.1);
    let (Some(there), Some(here)) = (last.context.point, context.point) else {
        return (None, Some(hours), None, Travel::Unknown);
    };
    let km = (distance_km(there, here) - there.accuracy_km - here.accuracy_km).max(0.0);
    let speed = km / hours;
    let verdict = if device == DeviceMatch::Match {
        Travel::Unknown
    } else if km < 1.0 {
        Travel::None
    } else if km <= 300.0 || speed <= 600.0 {
        Travel::Plausible
    } else if speed <= 900.0 {
        Travel::Fast
    } else {
        Travel::Impossible
    };
    (Some(km), Some(hours), Some(speed), verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(country: &str, agent: u8) -> ContextPrint {
        ContextPrint { country: Some(country.into()), agent: Some([agent; 8]), ..ContextPrint::default() }
    }

    fn past(hours_ago: i64, end: PastEnd, context: ContextPrint) -> PastSignIn {
        PastSignIn {
            at: UnixTime::from_secs(NOW - hours_ago * 3600),
            end,
            context,
            provider: "p".into(),
            level: None,
        }
    }

    const NOW: i64 = 1_800_000_000;

    fn facts(entries: Vec<PastSignIn>, context: &ContextPrint) -> HistoryFacts {
        History { entries, first: None }.facts(context, UnixTime::from_secs(NOW))
    }

    #[test]
    fn logto_8409_a_first_sign_in_has_no_news() {
        let f = facts(Vec::new(), &at("SE", 1));
        assert_eq!((f.device, f.known_country, f.travel), (DeviceMatch::First, None, Travel::Unknown));
        assert_eq!(f.hours_since_last, None);
    }

    #[test]
    fn a_country_is_known_by_the_first_sign_in_two_days_or_mfa() {
        let first = past(1000, PastEnd::SignedIn, at("SE", 1));
        assert_eq!(facts(vec![first.clone()], &at("SE", 1)).known_country, Some(true));
        assert_eq!(facts(vec![first.clone()], &at("BR", 1)).known_country, Some(false));
        let once = past(2, PastEnd::SignedIn, at("BR", 1));
        assert_eq!(facts(vec![once.clone(), first.clone()], &at("BR", 1)).known_country, Some(false));
        let twice = past(30, PastEnd::SignedIn, at("BR", 1));
        assert_eq!(facts(vec![once, twice, first.clone()], &at("BR", 1)).known_country, Some(true));
        let proved = past(2, PastEnd::MfaPassed, at("BR", 1));
        assert_eq!(facts(vec![proved, first.clone()], &at("BR", 1)).known_country, Some(true));
        let denied = past(2, PastEnd::Denied, at("BR", 1));
        assert_eq!(facts(vec![denied, first], &at("BR", 1)).known_country, Some(false));
    }

    #[test]
    fn a_history_without_places_does_not_make_this_one_new() {
        let silent = past(30, PastEnd::SignedIn, ContextPrint { agent: Some([1; 8]), ..ContextPrint::default() });
        assert_eq!(facts(vec![silent], &at("SE", 1)).known_country, None);
    }

    #[test]
    fn a_device_matches_by_identifier_and_agent_together() {
        let with = |device: Option<u8>, agent: Option<u8>| ContextPrint {
            device: device.map(|d| [d; 8]),
            agent: agent.map(|a| [a; 8]),
            ..ContextPrint::default()
        };
        let seen = || vec![past(5, PastEnd::SignedIn, with(Some(1), Some(2)))];
        for (context, expected) in [
            (with(Some(1), Some(2)), DeviceMatch::Match),
            (with(Some(1), Some(3)), DeviceMatch::Partial),
            (with(Some(9), Some(2)), DeviceMatch::Partial),
            (with(None, Some(2)), DeviceMatch::Partial),
            (with(Some(9), Some(9)), DeviceMatch::New),
            (with(None, None), DeviceMatch::Unknown),
        ] {
            assert_eq!(facts(seen(), &context).device, expected);
        }
    }

    #[test]
    fn fusionauth_3014_granit_2709_travel_needs_two_good_points_and_another_device() {
        let point = |latitude, longitude| Some(Point { latitude, longitude, accuracy_km: 10.0 });
        let stockholm = ContextPrint { point: point(59.33, 18.07), agent: Some([1; 8]), ..ContextPrint::default() };
        let sao_paulo =
            ContextPrint { point: point(-23.55, -46.63), agent: Some([2; 8]), ..ContextPrint::default() };
        let f = facts(vec![past(2, PastEnd::SignedIn, stockholm.clone())], &sao_paulo);
        assert_eq!(f.travel, Travel::Impossible);
        assert!((f.km_from_last.unwrap() - 10_907.0).abs() < 60.0, "{:?}", f.km_from_last);
        let slow = facts(vec![past(48, PastEnd::SignedIn, stockholm.clone())], &sao_paulo);
        assert_eq!(slow.travel, Travel::Plausible);
        let blind = facts(vec![past(2, PastEnd::SignedIn, at("SE", 1))], &sao_paulo);
        assert_eq!((blind.travel, blind.km_from_last), (Travel::Unknown, None));
        let here = facts(vec![past(2, PastEnd::SignedIn, stockholm.clone())], &stockholm);
        assert_eq!(here.travel, Travel::None);
    }

    #[test]
    fn failures_and_denials_are_counted_in_their_windows() {
        let entries = vec![
            past(0, PastEnd::MfaFailed, at("SE", 1)),
            past(2, PastEnd::Refused, at("SE", 1)),
            past(200, PastEnd::Denied, at("SE", 1)),
            past(300, PastEnd::SignedIn, at("SE", 1)),
            past(24 * 181, PastEnd::SignedIn, at("SE", 1)),
        ];
        let f = facts(entries, &at("SE", 1));
        assert_eq!((f.failed_attempts_1h, f.failed_attempts_24h, f.denied_30d, f.mfa_failed_24h), (1, 2, 1, 1));
        assert_eq!((f.sign_ins_total, f.sign_ins_30d), (1, 1));
    }
}
