//! How well the likelihood signal tells attackers from users, on sign-ins that a generator with a fixed seed
//! makes. It says how the signal behaves under the assumptions below, not how accurate it is for real people.
//!
//!     cargo bench --bench rba            # 2 000 users, 180 days
//!     USERS=500 SEED=7 cargo bench --bench rba
//!
//! Users: one or two networks of their own country (a home with a changing address range, some a carrier), one to three
//! devices, browsers by market share, sign-ins every 1 to 30 days; now and then a journey, a new device,
//! a device identifier that was cleared. Attackers know a victim's credentials, as in Freeman et al.: *naive*
//! comes from anywhere with anything; *VPN in the country* has an address in the victim's country and a popular
//! browser; *targeted* has an address of the victim's network and the victim's browser, but not the device.

use std::time::Duration;

use countersign::clock::UnixTime;
use countersign::signin::history::{ContextPrint, History, PastEnd, PastSignIn};
use countersign::signin::likelihood::{
    Commonness, Likelihood, LikelihoodMode, LikelihoodRule, Surroundings, likelihood,
};
use countersign::signin::rules::Level;

/// SplitMix64 (Steele, Lea, Flood 2014): the same sign-ins on every machine.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * ((self.bits() >> 11) as f64) / (1u64 << 53) as f64
    }

    fn chance(&mut self, p: f64) -> bool {
        self.between(0.0, 1.0) < p
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

const NOW: i64 = 1_800_000_000;
const COUNTRIES: [(&str, u32); 8] =
    [("SE", 40), ("NO", 15), ("DE", 15), ("FI", 10), ("US", 8), ("BR", 5), ("IN", 4), ("VN", 3)];
const NETWORKS: u64 = 12;
const AGENTS: [u32; 12] = [30, 22, 14, 9, 7, 5, 4, 3, 2, 2, 1, 1];

/// An index by weight.
fn pick(random: &mut Random, weights: impl Iterator<Item = u32> + Clone) -> u64 {
    let mut left = u32::try_from(random.below(weights.clone().sum::<u32>().into())).unwrap();
    for (n, weight) in weights.enumerate() {
        if left < weight {
            return n as u64;
        }
        left -= weight;
    }
    0
}

fn country(random: &mut Random) -> u64 {
    pick(random, COUNTRIES.iter().map(|c| c.1))
}

/// Larger networks are likelier.
fn network(random: &mut Random, country: u64) -> u64 {
    country * 100 + pick(random, (1..=NETWORKS).map(|n| (60 / n) as u32))
}

fn prefix(random: &mut Random, network: u64) -> u64 {
    network * 1000 + random.below(400)
}

fn agent(random: &mut Random) -> u64 {
    pick(random, AGENTS.into_iter())
}

#[derive(Clone, Copy)]
struct Place {
    country: u64,
    network: u64,
    prefix: u64,
}

#[derive(Clone, Copy)]
struct Device {
    id: Option<u64>,
    agent: u64,
}

fn print(place: Place, device: Device) -> ContextPrint {
    ContextPrint {
        prefix: Some(place.prefix.to_be_bytes()),
        asn: i64::try_from(place.network).ok(),
        country: Some(COUNTRIES[usize::try_from(place.country).unwrap()].0.into()),
        device: device.id.map(u64::to_be_bytes),
        agent: Some(device.agent.to_be_bytes()),
        point: None,
    }
}

struct Person {
    places: Vec<Place>,
    devices: Vec<Device>,
    every_days: f64,
}

impl Person {
    fn new(random: &mut Random) -> Self {
        let home = country(random);
        let place = |random: &mut Random| {
            let network = network(random, home);
            Place { country: home, network, prefix: prefix(random, network) }
        };
        let places = (0..1 + random.below(2)).map(|_| place(random)).collect();
        let told = random.chance(0.8);
        let devices = (0..1 + random.below(3))
            .map(|_| Device { id: told.then(|| random.bits()), agent: agent(random) })
            .collect();
        Self { places, devices, every_days: random.between(1.0, 30.0) }
    }

    fn sign_in(&mut self, random: &mut Random) -> (Place, Device) {
        let n = if random.chance(0.75) { 0 } else { random.below(self.places.len() as u64) as usize };
        if random.chance(0.12) {
            self.places[n].prefix = prefix(random, self.places[n].network);
        }
        let mut place = self.places[n];
        if random.chance(0.02) {
            let country = country(random);
            let network = network(random, country);
            place = Place { country, network, prefix: prefix(random, network) };
        } else if random.chance(0.04) {
            let network = network(random, place.country);
            place = Place { country: place.country, network, prefix: prefix(random, network) };
        }
        let n = if random.chance(0.7) { 0 } else { random.below(self.devices.len() as u64) as usize };
        if random.chance(0.01) {
            self.devices[n].agent = agent(random);
        }
        if random.chance(0.01) {
            self.devices[n].id = self.devices[n].id.map(|_| random.bits());
        }
        (place, self.devices[n])
    }
}

fn attack(kind: usize, victim: &Person, random: &mut Random) -> ContextPrint {
    let (home, device) = (victim.places[0], victim.devices[0]);
    let made_up = device.id.map(|_| random.bits());
    let (place, agent) = match kind {
        0 => {
            // Anywhere: every country alike.
            let country = random.below(COUNTRIES.len() as u64);
            let network = network(random, country);
            (Place { country, network, prefix: prefix(random, network) }, agent(random))
        }
        1 => {
            let network = network(random, home.country);
            (Place { country: home.country, network, prefix: prefix(random, network) }, agent(random))
        }
        _ => (Place { prefix: prefix(random, home.network), ..home }, device.agent),
    };
    print(place, Device { id: made_up, agent })
}

/// The chance that an attack scores higher than a user, ties counting half.
fn auc(users: &[i64], attacks: &[i64]) -> f64 {
    let sum: usize =
        attacks.iter().map(|a| users.partition_point(|u| u < a) + users.partition_point(|u| u <= a)).sum();
    sum as f64 / (2.0 * users.len() as f64 * attacks.len() as f64)
}

/// The share of attacks above the score that at most this share of users is above.
fn caught(users: &[i64], attacks: &[i64], false_alarms: f64) -> f64 {
    let allowed = (users.len() as f64 * false_alarms) as usize;
    let threshold = users[users.len() - 1 - allowed];
    attacks.iter().filter(|a| **a > threshold).count() as f64 / attacks.len() as f64
}

fn main() {
    let (count, seed) = (setting("USERS", 2000), setting("SEED", 1));
    let mut random = Random(seed);
    let mut people: Vec<Person> = (0..count).map(|_| Person::new(&mut random)).collect();
    let mut histories = Vec::new();
    for person in &mut people {
        let (mut age, mut entries) = (180.0, Vec::new());
        loop {
            age -= person.every_days * random.between(0.2, 1.8);
            if age <= 0.0 {
                break;
            }
            let (place, device) = person.sign_in(&mut random);
            let at = UnixTime::from_secs(NOW).minus(Duration::from_secs_f64(age * 86_400.0));
            let end = if random.chance(0.1) { PastEnd::MfaPassed } else { PastEnd::SignedIn };
            let (provider, level) = ("p".into(), Some(Level::Low));
            entries.insert(0, PastSignIn { at, end, context: print(place, device), provider, level });
        }
        entries.truncate(200);
        histories.push(History { entries, first: None });
    }
    let all = histories.iter().flat_map(|h| &h.entries).map(|e| Surroundings::from(&e.context));
    let all = Commonness::of(all);
    let rule = LikelihoodRule { mode: LikelihoodMode::Auto, ..LikelihoodRule::default() };
    let now = UnixTime::from_secs(NOW);
    let (mut genuine, mut attacks) = (Vec::new(), [const { Vec::new() }; 3]);
    let mut by_history: [(u64, u64); 3] = [(0, 0); 3];
    for (person, history) in people.iter_mut().zip(&histories) {
        for _ in 0..5 {
            let (place, device) = person.sign_in(&mut random);
            let told = likelihood(history, &print(place, device), &all, &rule, now);
            let Some(told) = told else { continue };
            let group = match told.sign_ins {
                0..15 => 0,
                15..60 => 1,
                _ => 2,
            };
            by_history[group].0 += 1;
            by_history[group].1 += u64::from(told.points >= 15);
            genuine.push(told.milli);
        }
        for (kind, scores) in attacks.iter_mut().enumerate() {
            let context = attack(kind, person, &mut random);
            scores.extend(likelihood(history, &context, &all, &rule, now).map(|l| l.milli));
        }
    }
    genuine.sort_unstable();
    println!("{count} users, seed {seed}: {} sign-ins counted, {} scored", all.sign_ins(), genuine.len());
    println!("attacker              AUC     caught at 0.1 %  1 %     2 %     5 %     10 % of users asked");
    for (name, scores) in ["naive", "VPN in the country", "targeted"].into_iter().zip(&attacks) {
        let at = |share| format!("{:5.1} %", 100.0 * caught(&genuine, scores, share));
        let row = [0.001, 0.01, 0.02, 0.05, 0.1].map(at).join(" ");
        println!("{name:<20} {:.4}           {row}", auc(&genuine, scores));
    }
    let points = |scores: &[i64], from: i64| {
        100.0 * scores.iter().filter(|m| Likelihood::of_milli(**m).points >= from).count() as f64
            / scores.len() as f64
    };
    println!("points of at least    users    naive    VPN      targeted");
    for from in [1, 10, 20, 30, 40] {
        let row = [&genuine, &attacks[0], &attacks[1], &attacks[2]].map(|s| format!("{:5.1} %", points(s, from)));
        println!("{from:>18}    {}", row.join("  "));
    }
    for (name, (total, asked)) in ["below 15", "15 to 59", "60 and more"].into_iter().zip(by_history) {
        let share = 100.0 * asked as f64 / total.max(1) as f64;
        println!("users with {name} earlier sign-ins: {total} scored, 15 points or more in {share:.1} %");
    }
}
