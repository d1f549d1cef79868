//! Generated facts: every word of every list, every "not known", edges of numbers, and mixtures. The
//! same ones at every run.

use std::sync::Arc;

use toml::{Table, Value};

use super::case_facts;
use crate::ids::TenantId;
use crate::signin::facts::Facts;

/// Mixtures beside the single changes.
const MIXTURES: u64 = 290;

/// What a fact is set to, by the path that scripts read it by.
const VALUES: &[(&str, &str)] = &[
    ("client.id", "['app-ios', '']"),
    ("provider.id", "['other']"),
    ("upstream.amr", "[[], ['mfa'], ['pwd', 'otp', 'mfa']]"),
    ("upstream.acr", "['unknown', 'urn:example:gold']"),
    ("upstream.auth_time_age_s", "['unknown', 0, 86400, 31536000]"),
    ("upstream.token_age_s", "[0, 86400]"),
    ("upstream.trusted_mfa", "[true]"),
    ("upstream.enrich_missing", "[['directory']]"),
    ("request.ip", "['unknown', '10.1.2.3', '2001:db8::7']"),
    ("request.country", "['unknown', 'BR', 'US']"),
    ("request.region", "['unknown', 'AB']"),
    ("request.city", "['unknown']"),
    ("request.asn", "['unknown', 0, 4294967295]"),
    ("request.asn_name", "['unknown']"),
    ("request.user_agent", "['unknown', '']"),
    ("request.browser", "['unknown', 'Chrome']"),
    ("request.os", "['unknown', 'iOS']"),
    ("request.device_kind", "['unknown', 'smartphone', 'tablet', 'crawler', 'misc']"),
    ("request.device_id", "['unknown']"),
    ("request.language", "['unknown', 'pt-BR']"),
    ("request.time_unix_s", "[0, 1893456000]"),
    ("request.local_hour", "['unknown', 0, 3, 23]"),
    ("request.network_kind", "['mobile', 'business', 'hosting', 'anonymizer', 'private', 'unknown']"),
    ("request.geo", "['missing', 'private', 'coarse']"),
    ("user.is_new", "[true]"),
    ("user.age_days", "[0, 10000]"),
    ("user.kind", "['service']"),
    ("user.email_verified", "[false]"),
    ("user.groups", "[['staff'], ['admin', 'staff']]"),
    ("user.privileged", "[true]"),
    ("user.link_method", "['linked_by_verified_email', 'confirmed_by_factor', 'invited', 'provisioned']"),
    ("user.mfa_methods", "[[], ['webauthn'], ['email', 'totp', 'sms', 'backup_code']]"),
    ("history.sign_ins_total", "[0, 1, 200]"),
    ("history.sign_ins_30d", "[0, 200]"),
    ("history.failed_attempts_1h", "[1, 3, 200]"),
    ("history.failed_attempts_24h", "[5, 200]"),
    ("history.denied_30d", "[1, 200]"),
    ("history.mfa_failed_24h", "[1, 200]"),
    ("history.device", "['partial', 'new', 'first', 'unknown']"),
    ("history.trusted_device", "[true]"),
    ("history.known_country", "[false, 'unknown']"),
    ("history.known_asn", "[false, 'unknown']"),
    ("history.known_prefix", "[false, 'unknown']"),
    ("history.km_from_last", "['unknown', 500.5, 20000.0]"),
    ("history.hours_since_last", "['unknown', 0.1, 2500.0]"),
    ("history.implied_speed_kmh", "['unknown', 700.0, 200000.0]"),
    ("history.travel", "['plausible', 'fast', 'impossible', 'unknown']"),
    ("signals.likelihood", "[-6.0, 4.5]"),
    ("signals.likelihood_points", "[0, 12, 40]"),
    (
        "signals.plugin.countersign.ssf",
        "['unknown', { recent = [] }, { recent = ['credential_compromise', 'session_revoked'] }]",
    ),
    ("claims.email", "['']"),
    ("claims.email_verified", "[false, 'true']"),
    ("claims.groups", "[[], ['admin'], 'admin']"),
    ("claims.roles", "[['owner'], 'owner']"),
    ("claims.name", "['', 'Ada']"),
    ("claims.sub", "['']"),
];

/// Facts, and what was set of them.
pub(super) struct Sample {
    pub set: Table,
    pub facts: Arc<Facts>,
}

impl Sample {
    /// As a case would write it.
    pub fn told(&self) -> String {
        if self.set.is_empty() {
            return "an ordinary sign-in".to_owned();
        }
        let set: Vec<String> = self.set.iter().map(|(path, value)| format!("{path} = {value}")).collect();
        set.join(", ")
    }
}

/// All samples for a tenant.
pub(super) fn samples(tenant: &TenantId) -> Vec<Sample> {
    let values: Vec<(&str, Vec<Value>)> = VALUES.iter().map(|(path, list)| (*path, list_of(list))).collect();
    let mut sets = vec![Table::new()];
    for (path, list) in &values {
        sets.extend(list.iter().map(|value| Table::from_iter([((*path).to_owned(), value.clone())])));
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for n in 0..MIXTURES {
        let mut set = Table::new();
        for (path, list) in &values {
            // Few changes at first, then more of them.
            if next(&mut state) % MIXTURES <= 12 + n / 2 {
                let chosen = usize::try_from(next(&mut state)).unwrap_or(0) % list.len();
                set.insert((*path).to_owned(), list[chosen].clone());
            }
        }
        sets.push(set);
    }
    let claims = ["claims.email", "claims.email_verified", "claims.sub"];
    let mut samples: Vec<Sample> = sets.into_iter().filter_map(|set| sample(tenant, set)).collect();
    // A claim that is not there at all.
    for path in claims {
        let mut facts = case_facts::ordinary(tenant);
        let name = path.trim_start_matches("claims.");
        Arc::make_mut(&mut facts.claims).remove(name);
        let set = Table::from_iter([(path.to_owned(), "absent".into())]);
        samples.push(Sample { set, facts: Arc::new(facts) });
    }
    samples
}

fn sample(tenant: &TenantId, set: Table) -> Option<Sample> {
    let mut facts = case_facts::ordinary(tenant);
    for (path, value) in &set {
        case_facts::set(&mut facts, path, value).ok()?;
    }
    Some(Sample { set, facts: Arc::new(facts) })
}

fn list_of(text: &str) -> Vec<Value> {
    let table: Table = format!("x = {text}").parse().unwrap_or_default();
    table.get("x").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// A generator of Lehmer's kind on 64 bits (Steele and Vigna, "Computationally easy, spectrally good
/// multipliers"): the samples need to differ, and to be the same everywhere.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
    *state >> 33
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signin::fact_paths::PATHS;

    #[test]
    fn every_value_can_be_set_and_every_fact_that_can_change_does() {
        let tenant = TenantId::parse("acme").unwrap();
        for (path, list) in VALUES {
            let values = list_of(list);
            assert!(!values.is_empty(), "{path}");
            for value in values {
                case_facts::set(&mut case_facts::ordinary(&tenant), path, &value).unwrap();
            }
        }
        let samples = samples(&tenant);
        assert!(samples.len() >= 400, "{}", samples.len());
        let fixed = [
            "contract",
            "tenant.id",
            "tenant.first_sign_in",
            "claims",
            "provider.issuer",
            "user.id",
            "user.status",
            "user.has_password",
            "history.last_sign_in",
            "history.known_device",
            "request.ip_prefix",
        ];
        for path in PATHS.iter().map(|p| p.name).filter(|p| !fixed.contains(p) && !p.starts_with("signals.")) {
            assert!(VALUES.iter().any(|(known, _)| *known == path), "{path} is never changed");
        }
    }
}
