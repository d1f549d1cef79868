//! The formula against a second one, computed from the raw list of sign-ins.

use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 86_400;

fn now() -> UnixTime {
    UnixTime::from_secs(NOW)
}

fn print(values: [Option<u8>; 5]) -> ContextPrint {
    let [prefix, asn, country, device, agent] = values;
    ContextPrint {
        prefix: prefix.map(|v| [v; 8]),
        asn: asn.map(i64::from),
        country: country.map(|v| format!("{}{}", char::from(b'A' + v), char::from(b'A' + v)).into()),
        device: device.map(|v| [v; 8]),
        agent: agent.map(|v| [v; 8]),
        point: None,
    }
}

fn past(age_s: i64, end: PastEnd, level: Option<Level>, values: [Option<u8>; 5]) -> PastSignIn {
    let at = UnixTime::from_secs(NOW - age_s);
    PastSignIn { at, end, context: print(values), provider: "p".into(), level }
}

/// One sign-in of the list: whose, how old, how it ended, what was seen.
type Raw = (u8, i64, usize, Option<u8>, [Option<u8>; 5]);

fn raw() -> impl Strategy<Value = Raw> {
    let value = || proptest::option::weighted(0.85, 0u8..6);
    (
        0u8..5,
        0i64..200 * DAY,
        0usize..6,
        proptest::option::of(0u8..3),
        [value(), value(), value(), value(), value()],
    )
}

fn level(number: u8) -> Level {
    [Level::Low, Level::Medium, Level::High][usize::from(number)]
}

/// The formula as it stands in the documentation, over the list, with no map and no running sum.
fn direct(list: &[Raw], here: [Option<u8>; 5], k: f64) -> Option<f64> {
    let completed = |r: &&Raw| r.2 <= 1 && r.1 <= 180 * DAY;
    let own = |r: &&Raw| completed(r) && r.0 == 0;
    let weight = |r: &Raw| {
        let fresh = if r.2 == 1 {
            1.0
        } else if r.3 == Some(0) {
            0.5
        } else {
            0.25
        };
        fresh / 2f64.powf(r.1 as f64 / (90.0 * DAY as f64))
    };
    let n_u: f64 = list.iter().filter(own).map(weight).sum();
    if n_u < 3.0 {
        return None;
    }
    let n = list.iter().filter(completed).count() as f64;
    let weights = [0.45, 0.40, 0.15, 0.5, 0.5];
    let mut sum = 0.0;
    for (f, w) in weights.into_iter().enumerate() {
        let mut values: Vec<Option<u8>> = list.iter().filter(completed).map(|r| r.4[f]).collect();
        let c_g = values.iter().filter(|v| **v == here[f]).count() as f64;
        values.sort_unstable();
        values.dedup();
        let p_g = (c_g + 1.0) / (n + values.len() as f64 + 1.0);
        let c_u: f64 = list.iter().filter(own).filter(|r| r.4[f] == here[f]).map(weight).sum();
        sum += w * (p_g.ln() - ((c_u + k * p_g) / (n_u + k)).ln());
    }
    Some(sum)
}

const ON: LikelihoodRule = LikelihoodRule { mode: LikelihoodMode::On, min_sign_ins: 500, min_history: 3 };

fn counted(list: &[Raw]) -> Commonness {
    let completed = list.iter().filter(|r| r.2 <= 1 && r.1 <= 180 * DAY);
    Commonness::of(completed.map(|r| Surroundings::from(&print(r.4))))
}

fn history(list: &[Raw]) -> History {
    let own = list.iter().filter(|r| r.0 == 0);
    let entries = own.map(|r| past(r.1, PastEnd::ALL[r.2], r.3.map(level), r.4)).collect();
    History { entries, first: None }
}

proptest! {
    #[test]
    fn the_signal_is_what_a_direct_calculation_from_the_list_gives(
        list in proptest::collection::vec(raw(), 0..120),
        here in [0u8..8, 0u8..8, 0u8..8, 0u8..8, 0u8..8],
        told in [any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()],
    ) {
        let here: [Option<u8>; 5] = std::array::from_fn(|n| told[n].then_some(here[n]));
        let got = likelihood(&history(&list), &print(here), &counted(&list), &ON, now());
        match direct(&list, here, 2.0) {
            None => prop_assert_eq!(got, None),
            Some(expected) => {
                let got = got.unwrap();
                prop_assert!((got.value() - expected).abs() <= 0.003, "{got:?} is not {expected}");
                let points = (8.0 * (got.value() + 0.5)).clamp(0.0, 40.0);
                prop_assert!((points - got.points as f64).abs() <= 0.5 + 1e-9);
            }
        }
    }

    #[test]
    fn the_signal_is_finite_and_within_its_bounds_whatever_was_counted(
        list in proptest::collection::vec(raw(), 0..60),
        counts in proptest::collection::vec((0usize..5, proptest::option::of(0u64..9), any::<u32>()), 0..40),
        here in [0u8..8, 0u8..8, 0u8..8, 0u8..8, 0u8..8],
    ) {
        // Counts that fit no list at all: a store that was written to by something else.
        let mut all = Commonness::default();
        for (feature, value, times) in counts {
            all.add(Feature::ALL[feature], value, times);
        }
        let history = history(&list);
        if let Some(told) = likelihood(&history, &print(here.map(Some)), &all, &ON, now()) {
            prop_assert!((0..=MOST_POINTS).contains(&told.points));
            prop_assert_eq!(told.milli, told.shares.iter().map(|s| s.milli).sum::<i64>());
            prop_assert!(told.milli.abs() < 100_000, "{told:?}");
            for share in &told.shares {
                // What was never seen adds at most ln((n + k) / k) of a history of weight n.
                let most = share.feature.weight() * ((list.len() as f64 + 2.0) / 2.0).ln();
                prop_assert!(share.value() <= most + 0.001, "{share:?} above {most}");
                prop_assert!(share.seen <= told.sign_ins);
            }
        }
    }
}

const HOME: [Option<u8>; 5] = [Some(1), Some(1), Some(1), Some(1), Some(1)];
const AWAY: [Option<u8>; 5] = [Some(2), Some(2), Some(2), Some(2), Some(2)];

/// A tenant where half are at home and half away, and the history of one who was always at home.
fn tenant(sign_ins: usize) -> Commonness {
    let place = |n| Surroundings::from(&print(if n % 2 == 0 { HOME } else { AWAY }));
    Commonness::of((0..sign_ins).map(place))
}

fn homely(times: i64) -> History {
    let entries = (0..times).map(|n| past(n * DAY / 4, PastEnd::MfaPassed, Some(Level::Low), HOME)).collect();
    History { entries, first: None }
}

#[test]
fn doubt_grows_with_the_history_that_it_contradicts() {
    let of = |times: i64, here| likelihood(&homely(times), &print(here), &tenant(1000), &ON, now());
    assert_eq!(of(2, AWAY), None, "two sign-ins are no history");
    let milli = |times| of(times, AWAY).unwrap().milli;
    let (few, some, many) = (milli(4), milli(15), milli(100));
    assert!(0 < few && few < some && some < many, "{few} {some} {many}");
    assert_eq!(of(100, AWAY).unwrap().points, MOST_POINTS);
    for times in [4, 15, 100] {
        assert_eq!(of(times, HOME).unwrap().points, 0);
    }
}

#[test]
fn a_value_that_is_not_told_is_not_the_usual_one() {
    let silent = [Some(1), Some(1), Some(1), None, Some(1)];
    let of = |here| likelihood(&homely(50), &print(here), &tenant(1000), &ON, now()).unwrap();
    let device = |l: &Likelihood| l.shares[Feature::Device as usize];
    assert!(device(&of(silent)).milli > 0);
    assert_eq!(device(&of(silent)).seen, 0);
    assert!(device(&of(HOME)).milli < 0);
}

#[test]
fn only_completed_sign_ins_teach() {
    let all = tenant(1000);
    let mut history = homely(20);
    for (n, end) in PastEnd::ALL.into_iter().enumerate().skip(2) {
        history.entries.push(past(n as i64, end, Some(Level::Low), AWAY));
    }
    let told = likelihood(&history, &print(AWAY), &all, &ON, now()).unwrap();
    assert!(told.sign_ins == 20 && told.shares.iter().all(|s| s.seen == 0), "{told:?}");

    history.entries.insert(0, past(60, PastEnd::MfaPassed, Some(Level::Low), AWAY));
    let learned = likelihood(&history, &print(AWAY), &all, &ON, now()).unwrap();
    assert!(learned.milli < told.milli);
}

#[test]
fn the_signal_waits_for_the_tenant_unless_it_is_on() {
    let with = |mode, sign_ins| {
        let rule = LikelihoodRule { mode, ..LikelihoodRule::default() };
        likelihood(&homely(20), &print(AWAY), &tenant(sign_ins), &rule, now()).is_some()
    };
    assert!(!with(LikelihoodMode::Auto, 499) && with(LikelihoodMode::Auto, 500));
    assert!(with(LikelihoodMode::On, 0));
    assert!(!with(LikelihoodMode::Off, 10_000));
}
