//! `policy.toml` and `reasons.toml`. A tenant's settings can be stricter than the shipped ones in kind,
//! never laxer: medium risk asks for a factor at least, high risk for a strong one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rhai::ImmutableString;
use serde::Deserialize;

use super::LoadError;
use super::builder::is_code;
use crate::ids::TenantId;
use crate::people::passwords::{ExpiredPassword, PasswordPolicy};
use crate::signin::assessment::{POLICY_ERROR, SCORE_LIMIT};
use crate::signin::likelihood::{COUNTED_SIGN_INS, LikelihoodMode, LikelihoodRule};
use crate::signin::rules::{LevelAction, OnError, PolicySettings, Unenrolled};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    contract: i64,
    #[serde(flatten)]
    all: FlatTable,
}

/// `flatten` and `deny_unknown_fields` do not go together, so the keys stand here once more.
#[derive(Deserialize, Default, Clone)]
struct FlatTable {
    first_sign_in: Option<FirstSignIn>,
    unenrolled: Option<UnenrolledWord>,
    privileged_groups: Option<Vec<String>>,
    trusted_devices: Option<bool>,
    thresholds: Option<Thresholds>,
    actions: Option<Actions>,
    failure: Option<Failure>,
    password: Option<Password>,
    likelihood: Option<LikelihoodTable>,
    gate: Option<Gate>,
    #[serde(default)]
    tenants: BTreeMap<String, Table>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields)]
struct Table {
    first_sign_in: Option<FirstSignIn>,
    unenrolled: Option<UnenrolledWord>,
    privileged_groups: Option<Vec<String>>,
    trusted_devices: Option<bool>,
    thresholds: Option<Thresholds>,
    actions: Option<Actions>,
    failure: Option<Failure>,
    password: Option<Password>,
    likelihood: Option<LikelihoodTable>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum FirstSignIn {
    Low,
    Medium,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum UnenrolledWord {
    KnownChannel,
    UpstreamStepUp,
    Deny,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Thresholds {
    medium: i64,
    high: i64,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Actions {
    medium: Option<MediumAction>,
    high: Option<HighAction>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum MediumAction {
    Mfa,
    StrongMfa,
    Deny,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum HighAction {
    StrongMfa,
    Deny,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Failure {
    on_error: Option<OnErrorWord>,
    breaker: Option<BreakerTable>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct BreakerTable {
    errors: u64,
    window_s: u64,
    action: BreakerAction,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum BreakerAction {
    Rollback,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Gate {
    reason_coverage: u8,
}

/// When a fresh activation is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Breaker {
    /// So many faults
    pub errors: u64,
    /// within this time.
    pub window: Duration,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum OnErrorWord {
    DefaultThenMfa,
    Mfa,
    Deny,
}

/// What is left out is as shipped; a tenant's table replaces the shared one as a whole.
#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Password {
    min_length: Option<u32>,
    max_age_days: Option<u32>,
    warn_days: Option<u32>,
    grace_days: Option<u32>,
    history: Option<u32>,
    expired: Option<ExpiredWord>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum ExpiredWord {
    Warn,
    Challenge,
    Deny,
}

impl Password {
    fn policy(self) -> Result<PasswordPolicy, String> {
        let shipped = PasswordPolicy::default();
        let policy = PasswordPolicy {
            min_length: self.min_length.unwrap_or(shipped.min_length),
            max_age_days: self.max_age_days.or(shipped.max_age_days),
            warn_days: self.warn_days.unwrap_or(shipped.warn_days),
            grace_days: self.grace_days.unwrap_or(shipped.grace_days),
            history: self.history.unwrap_or(shipped.history),
            expired: match self.expired {
                None | Some(ExpiredWord::Warn) => ExpiredPassword::Warn,
                Some(ExpiredWord::Challenge) => ExpiredPassword::Challenge,
                Some(ExpiredWord::Deny) => ExpiredPassword::Deny,
            },
        };
        let bounds = [
            ("min_length", policy.min_length, 8, 64),
            ("max_age_days", policy.max_age_days.unwrap_or(1), 1, 3650),
            ("warn_days", policy.warn_days, 0, 365),
            ("grace_days", policy.grace_days, 0, 365),
            ("history", policy.history, 0, 24),
        ];
        match bounds.into_iter().find(|(_, value, least, most)| !(least..=most).contains(&value)) {
            Some((name, value, least, most)) => Err(format!("{name} is {least} to {most}, not {value}")),
            None => Ok(policy),
        }
    }
}

/// What is left out is as shipped; a tenant's table replaces the shared one as a whole.
#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct LikelihoodTable {
    mode: Option<LikelihoodWord>,
    min_sign_ins: Option<u64>,
    min_history: Option<u32>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum LikelihoodWord {
    Off,
    Auto,
    On,
}

impl LikelihoodTable {
    fn rule(self) -> Result<LikelihoodRule, String> {
        let shipped = LikelihoodRule::default();
        let rule = LikelihoodRule {
            mode: match self.mode {
                None | Some(LikelihoodWord::Auto) => LikelihoodMode::Auto,
                Some(LikelihoodWord::Off) => LikelihoodMode::Off,
                Some(LikelihoodWord::On) => LikelihoodMode::On,
            },
            min_sign_ins: self.min_sign_ins.unwrap_or(shipped.min_sign_ins),
            min_history: self.min_history.unwrap_or(shipped.min_history),
        };
        if !(100..=COUNTED_SIGN_INS as u64).contains(&rule.min_sign_ins) {
            return Err(format!("min_sign_ins is 100 to {COUNTED_SIGN_INS}, not {}", rule.min_sign_ins));
        }
        if !(1..=50).contains(&rule.min_history) {
            return Err(format!("min_history is 1 to 50, not {}", rule.min_history));
        }
        Ok(rule)
    }
}

/// The settings of one tenant, for core and scripts.
#[derive(Clone)]
pub(super) struct TenantSettings {
    pub core: Arc<PolicySettings>,
    pub first_sign_in: ImmutableString,
}

/// The settings of all tenants.
#[derive(Clone)]
pub(super) struct AllSettings {
    /// Reasons that the cases must give before a bundle becomes active, in percent.
    pub reason_coverage: u8,
    pub breaker: Breaker,
    shared: TenantSettings,
    tenants: HashMap<String, TenantSettings>,
}

impl AllSettings {
    /// Reads `policy.toml`.
    pub fn parse(text: &str) -> Result<Self, LoadError> {
        let name = "policy.toml";
        check_keys(text)?;
        let file: File = toml::from_str(text).map_err(|e| toml_error(name, text, &e))?;
        if file.contract != 1 {
            let message = format!("contract {} is not known; this build reads contract = 1", file.contract);
            return Err(LoadError::new(name, line_of(text, "contract"), 1, message));
        }
        let flat = file.all;
        let shared = Table {
            first_sign_in: flat.first_sign_in,
            unenrolled: flat.unenrolled,
            privileged_groups: flat.privileged_groups,
            thresholds: flat.thresholds,
            actions: flat.actions,
            failure: flat.failure,
            trusted_devices: flat.trusted_devices,
            password: flat.password,
            likelihood: flat.likelihood,
        };
        let reason_coverage = flat.gate.map_or(DEFAULT_COVERAGE, |gate| gate.reason_coverage);
        if reason_coverage > 100 {
            return Err(LoadError::new(name, line_of(text, "reason_coverage"), 1, "reason_coverage is 0 to 100"));
        }
        let breaker = breaker(shared.failure.and_then(|f| f.breaker))
            .map_err(|message| LoadError::new(name, line_of(text, "breaker"), 1, message))?;
        let bad = |message: String| LoadError::new(name, line_of(text, "thresholds"), 1, message);
        let mut tenants = HashMap::new();
        for (id, own) in flat.tenants {
            TenantId::parse(&id).map_err(|e| LoadError::new(name, line_of(text, &id), 1, e.to_string()))?;
            tenants.insert(id, settings(&over(&shared, own)).map_err(bad)?);
        }
        Ok(Self { reason_coverage, breaker, shared: settings(&shared).map_err(bad)?, tenants })
    }

    /// Those of a tenant.
    pub fn of(&self, tenant: &TenantId) -> &TenantSettings {
        self.tenants.get(tenant.as_str()).unwrap_or(&self.shared)
    }
}

/// Reasons that the cases must give, in percent, when policy.toml does not say.
const DEFAULT_COVERAGE: u8 = 60;

fn breaker(table: Option<BreakerTable>) -> Result<Breaker, String> {
    let Some(BreakerTable { errors, window_s, action: BreakerAction::Rollback }) = table else {
        return Ok(Breaker { errors: 20, window: Duration::from_secs(60) });
    };
    if errors == 0 || !(1..=600).contains(&window_s) {
        return Err("breaker: errors is at least 1, window_s is 1 to 600".to_owned());
    }
    Ok(Breaker { errors, window: Duration::from_secs(window_s) })
}

/// What the tenant leaves out is as for all.
fn over(shared: &Table, own: Table) -> Table {
    Table {
        first_sign_in: own.first_sign_in.or(shared.first_sign_in),
        unenrolled: own.unenrolled.or(shared.unenrolled),
        privileged_groups: own.privileged_groups.or_else(|| shared.privileged_groups.clone()),
        thresholds: own.thresholds.or(shared.thresholds),
        actions: own.actions.or(shared.actions),
        failure: own.failure.or(shared.failure),
        trusted_devices: own.trusted_devices.or(shared.trusted_devices),
        password: own.password.or(shared.password),
        likelihood: own.likelihood.or(shared.likelihood),
    }
}

fn settings(table: &Table) -> Result<TenantSettings, String> {
    let shipped = PolicySettings::default();
    let (medium_from, high_from) =
        table.thresholds.map_or((shipped.medium_from, shipped.high_from), |t| (t.medium, t.high));
    if !(1 <= medium_from && medium_from <= high_from && high_from <= 100) {
        return Err(format!(
            "thresholds are 1 <= medium <= high <= 100, not medium = {medium_from}, high = {high_from}"
        ));
    }
    let medium = table.actions.and_then(|a| a.medium);
    let high = table.actions.and_then(|a| a.high);
    let core = PolicySettings {
        medium_from,
        high_from,
        medium_action: match medium {
            None | Some(MediumAction::Mfa) => LevelAction::Mfa,
            Some(MediumAction::StrongMfa) => LevelAction::StrongMfa,
            Some(MediumAction::Deny) => LevelAction::Deny,
        },
        high_action: match high {
            None | Some(HighAction::StrongMfa) => LevelAction::StrongMfa,
            Some(HighAction::Deny) => LevelAction::Deny,
        },
        on_error: match table.failure.and_then(|f| f.on_error) {
            None | Some(OnErrorWord::DefaultThenMfa) => OnError::DefaultThenMfa,
            Some(OnErrorWord::Mfa) => OnError::Mfa,
            Some(OnErrorWord::Deny) => OnError::Deny,
        },
        unenrolled: match table.unenrolled {
            None | Some(UnenrolledWord::KnownChannel) => Unenrolled::KnownChannel,
            Some(UnenrolledWord::UpstreamStepUp) => Unenrolled::UpstreamStepUp,
            Some(UnenrolledWord::Deny) => Unenrolled::Deny,
        },
        privileged_groups: table.privileged_groups.clone().unwrap_or_default(),
        trusted_devices: table.trusted_devices.unwrap_or(shipped.trusted_devices),
        password: table.password.map_or(Ok(shipped.password), Password::policy)?,
        likelihood: table.likelihood.map_or(Ok(shipped.likelihood), LikelihoodTable::rule)?,
    };
    let first_sign_in = match table.first_sign_in {
        None | Some(FirstSignIn::Low) => "low",
        Some(FirstSignIn::Medium) => "medium",
    };
    Ok(TenantSettings { core: Arc::new(core), first_sign_in: first_sign_in.into() })
}

/// The keys at the top of `policy.toml`.
pub(super) const KNOWN: [&str; 12] = [
    "contract",
    "first_sign_in",
    "unenrolled",
    "privileged_groups",
    "thresholds",
    "actions",
    "failure",
    "trusted_devices",
    "password",
    "likelihood",
    "gate",
    "tenants",
];

/// Unknown keys at the top, which `flatten` would pass over.
fn check_keys(text: &str) -> Result<(), LoadError> {
    let table: toml::Table = text.parse().map_err(|e| toml_error("policy.toml", text, &e))?;
    let Some(unknown) = table.keys().find(|key| !KNOWN.contains(&key.as_str())) else { return Ok(()) };
    let score = |known: &&str| strsim::jaro_winkler(unknown, known);
    let near = KNOWN.iter().max_by(|a, b| score(a).total_cmp(&score(b))).copied().unwrap_or_default();
    let message = format!("unknown key \"{unknown}\"; nearest is \"{near}\"");
    Err(LoadError::new("policy.toml", line_of(text, unknown), 1, message))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    #[expect(dead_code, reason = "read so that a reason without a title is refused")]
    title: String,
    #[serde(default)]
    #[expect(dead_code, reason = "shown by the console and to users, neither of which is built yet")]
    help: String,
}

/// Reasons that the server gives itself.
pub(super) const RESERVED_REASONS: [&str; 2] = [POLICY_ERROR, SCORE_LIMIT];

/// The codes of `reasons.toml`. Those that the core gives itself are no script's to give.
pub(super) fn parse_reasons(text: &str) -> Result<HashSet<String>, LoadError> {
    let name = "reasons.toml";
    let reasons: BTreeMap<String, Reason> = toml::from_str(text).map_err(|e| toml_error(name, text, &e))?;
    let mut codes = HashSet::new();
    for code in reasons.into_keys() {
        if !is_code(&code) {
            let message = format!("a reason is 1 to 48 characters of a-z, 0-9 and _, not \"{code}\"");
            return Err(LoadError::new(name, line_of(text, &code), 1, message));
        }
        if RESERVED_REASONS.contains(&code.as_str()) {
            return Err(LoadError::new(
                name,
                line_of(text, &code),
                1,
                format!("\"{code}\" is given by the server itself"),
            ));
        }
        codes.insert(code);
    }
    Ok(codes)
}

pub(super) fn toml_error(name: &str, text: &str, error: &toml::de::Error) -> LoadError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    LoadError::new(name, line, column, error.message().trim())
}

fn line_of(text: &str, key: &str) -> usize {
    text.lines().position(|line| line.trim_start().trim_start_matches('[').starts_with(key)).map_or(0, |n| n + 1)
}
