//! How unusual the surroundings of a sign-in are for this user, against how common they are among all
//! sign-ins of the tenant. Pure: counts and history in, a number with its parts out.
//!
//! The ratio of both is that of Freeman, Jain, Dürmuth, Biggio and Giacinto, "Who Are You? A Statistical
//! Approach to Measuring User Authenticity" (NDSS 2016), without its terms for attackers and for how often
//! the user signs in. The user's share backs off to the tenant's, so that a value which the user never had
//! weighs the more, the longer the history is that it contradicts. What a request does not tell is a value
//! of its own: leaving a device identifier out is not the same as having the usual one.

use std::collections::HashMap;
use std::time::Duration;

use super::history::{ContextPrint, HISTORY_DAYS, History, PastEnd, PastSignIn};
use super::rules::Level;
use crate::clock::UnixTime;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// The address range.
    IpPrefix,
    /// The network.
    Asn,
    /// The country.
    Country,
    /// The device identifier.
    Device,
    /// Browser and operating system families.
    Agent,
}

impl Feature {
    /// Every feature, in the order of stored shares: a new one is added at the end.
    pub const ALL: [Self; 5] = [Self::IpPrefix, Self::Asn, Self::Country, Self::Device, Self::Agent];

    /// Its word in traces.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IpPrefix => "ip_prefix",
            Self::Asn => "asn",
            Self::Country => "country",
            Self::Device => "device",
            Self::Agent => "agent",
        }
    }

    /// Place and device weigh 1 each, divided among their features.
    #[must_use]
    pub const fn weight(self) -> f64 {
        match self {
            Self::IpPrefix => 0.45,
            Self::Asn => 0.40,
            Self::Country => 0.15,
            Self::Device | Self::Agent => 0.50,
        }
    }
}

/// How strongly the user's share backs off to the tenant's, in sign-ins.
pub const BACK_OFF: f64 = 2.0;
/// The most that the signal adds to a score.
pub const MOST_POINTS: i64 = 40;
/// Sign-ins of a tenant that are counted: the newest ones.
pub const COUNTED_SIGN_INS: usize = 40_000;

const HALF_LIFE: Duration = Duration::from_secs(90 * 86_400);

/// The value of each feature, in the order of [`Feature::ALL`]; `None` when the request did not tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings(pub [Option<u64>; 5]);

impl Surroundings {
    /// A country as a number; the words of ISO 3166-1 have two letters.
    #[must_use]
    pub fn country(word: &str) -> u64 {
        word.bytes().take(8).fold(0, |number, byte| number << 8 | u64::from(byte))
    }
}

impl From<&ContextPrint> for Surroundings {
    fn from(print: &ContextPrint) -> Self {
        Self([
            print.prefix.map(u64::from_be_bytes),
            print.asn.map(i64::cast_unsigned),
            print.country.as_deref().map(Self::country),
            print.device.map(u64::from_be_bytes),
            print.agent.map(u64::from_be_bytes),
        ])
    }
}

/// How often each value stands in a tenant's completed sign-ins.
#[derive(Debug, Clone, Default)]
pub struct Commonness {
    sign_ins: u64,
    counts: [HashMap<Option<u64>, u32>; 5],
}

impl Commonness {
    /// Of sign-ins, one by one.
    pub fn of(sign_ins: impl IntoIterator<Item = Surroundings>) -> Self {
        let mut all = Self::default();
        for Surroundings(values) in sign_ins {
            for (feature, value) in Feature::ALL.into_iter().zip(values) {
                all.add(feature, value, 1);
            }
        }
        all
    }

    /// Adds sign-ins that have one value of a feature. Every sign-in has one of each.
    pub fn add(&mut self, feature: Feature, value: Option<u64>, times: u32) {
        let entry = self.counts[feature as usize].entry(value).or_default();
        *entry = entry.saturating_add(times);
        if feature == Feature::ALL[0] {
            self.sign_ins += u64::from(times);
        }
    }

    /// Completed sign-ins.
    #[must_use]
    pub fn sign_ins(&self) -> u64 {
        self.sign_ins
    }

    /// Distinct values, over all features.
    #[must_use]
    pub fn counters(&self) -> usize {
        self.counts.iter().map(HashMap::len).sum()
    }

    /// More than 0 and less than 1, whatever was counted: one unseen value is always thought possible.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn share(&self, feature: Feature, value: Option<u64>) -> f64 {
        let values = &self.counts[feature as usize];
        let count = f64::from(values.get(&value).copied().unwrap_or(0));
        (count + 1.0) / (self.sign_ins as f64 + values.len() as f64 + 1.0)
    }
}

/// When the signal speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LikelihoodRule {
    /// Off, on, or on from so many sign-ins of the tenant on.
    pub mode: LikelihoodMode,
    /// Completed sign-ins of the tenant, for [`LikelihoodMode::Auto`].
    pub min_sign_ins: u64,
    /// The weight of the user's own history; see [`learned`].
    pub min_history: u32,
}

/// See [`LikelihoodRule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LikelihoodMode {
    /// Never.
    Off,
    /// As soon as the tenant has enough sign-ins.
    Auto,
    /// However few sign-ins the tenant has.
    On,
}

impl Default for LikelihoodRule {
    fn default() -> Self {
        Self { mode: LikelihoodMode::Auto, min_sign_ins: 500, min_history: 3 }
    }
}

/// The signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Likelihood {
    /// The logarithm of the ratio, in thousandths: the sum of the shares. Above 0: more usual for anybody
    /// than for this user.
    pub milli: i64,
    /// What the shipped rules add to the score, 0 to [`MOST_POINTS`].
    pub points: i64,
    /// Completed sign-ins of the user that it was compared with.
    pub sign_ins: u32,
    /// The share of each feature, in the order of [`Feature::ALL`].
    pub shares: Vec<Share>,
}

/// What one feature adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The feature.
    pub feature: Feature,
    /// Its part of the logarithm, weighted, in thousandths.
    pub milli: i64,
    /// How many of the user's sign-ins had the same value.
    pub seen: u32,
}

impl Likelihood {
    /// One with this logarithm and no parts.
    #[must_use]
    pub fn of_milli(milli: i64) -> Self {
        Self { milli, points: points(milli), sign_ins: 0, shares: Vec::new() }
    }

    /// The logarithm.
    #[must_use]
    pub fn value(&self) -> f64 {
        thousandths(self.milli)
    }
}

impl Share {
    /// Its part of the logarithm.
    #[must_use]
    pub fn value(&self) -> f64 {
        thousandths(self.milli)
    }
}

#[expect(clippy::cast_precision_loss, reason = "shares are below a hundred thousand thousandths")]
fn thousandths(milli: i64) -> f64 {
    milli as f64 / 1000.0
}

/// `8 (L + 0.5)`, rounded to the nearest, within 0 and [`MOST_POINTS`]. What fits the user only as well as anybody
/// (`L = 0`) speaks for nobody in particular and gets 4: a user's own sign-ins are usually far below -0.5.
fn points(milli: i64) -> i64 {
    (8 * (milli + 500) + 500).div_euclid(1000).clamp(0, MOST_POINTS)
}

/// What an earlier sign-in teaches: 1 after a second factor, a half when it went through at a low level, else
/// a quarter, halved every 90 days. Nothing when it was not completed or is older than 180 days.
#[must_use]
pub fn learned(past: &PastSignIn, now: UnixTime) -> f64 {
    let age = now.since(past.at);
    if past.at > now || age > Duration::from_secs(HISTORY_DAYS * 86_400) {
        return 0.0;
    }
    let fresh = match (past.end, past.level) {
        (PastEnd::MfaPassed, _) => 1.0,
        (PastEnd::SignedIn, Some(Level::Low)) => 0.5,
        (PastEnd::SignedIn, _) => 0.25,
        (PastEnd::Challenged | PastEnd::MfaFailed | PastEnd::Denied | PastEnd::Refused, _) => return 0.0,
    };
    fresh * (-age.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
}

/// Compares a sign-in with the user's history and the tenant's sign-ins. `None`: the rule says no, or there
/// is too little to compare with.
#[must_use]
pub fn likelihood(
    history: &History,
    context: &ContextPrint,
    all: &Commonness,
    rule: &LikelihoodRule,
    now: UnixTime,
) -> Option<Likelihood> {
    match rule.mode {
        LikelihoodMode::Off => return None,
        LikelihoodMode::Auto if all.sign_ins < rule.min_sign_ins => return None,
        LikelihoodMode::Auto | LikelihoodMode::On => {}
    }
    let here = Surroundings::from(context).0;
    let (mut total, mut same, mut seen, mut sign_ins) = (0.0, [0.0; 5], [0; 5], 0);
    for past in &history.entries {
        let weight = learned(past, now);
        if weight == 0.0 {
            continue;
        }
        total += weight;
        sign_ins += 1;
        for (feature, value) in Surroundings::from(&past.context).0.into_iter().enumerate() {
            if value == here[feature] {
                same[feature] += weight;
                seen[feature] += 1;
            }
        }
    }
    if total < f64::from(rule.min_history) {
        return None;
    }
    let shares = Feature::ALL.map(|feature| {
        let n = feature as usize;
        let common = all.share(feature, here[n]);
        let own = (same[n] + BACK_OFF * common) / (total + BACK_OFF);
        #[expect(clippy::cast_possible_truncation, reason = "a logarithm of shares is below a hundred")]
        let milli = (1000.0 * feature.weight() * (common / own).ln()).round() as i64;
        Share { feature, milli, seen: seen[n] }
    });
    let milli = shares.iter().map(|share| share.milli).sum();
    Some(Likelihood { milli, points: points(milli), sign_ins, shares: shares.to_vec() })
}

#[cfg(test)]
#[path = "likelihood_tests.rs"]
mod tests;
