//! What a risk script may ask for, and the tenant's settings that the core applies to it.
//!
//! There is no way to write "allow": every effect raises the demand, or adds named points.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::fact_paths::Because;
use super::likelihood::LikelihoodRule;
use crate::mfa::{MfaMethod, Strength};
use crate::people::passwords::PasswordPolicy;
use crate::session::TokenShape;

/// The published risk vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing speaks against the sign-in.
    Low,
    /// Something does.
    Medium,
    /// Much does.
    High,
}

impl Level {
    /// The word of the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// The level of a word.
    #[must_use]
    pub fn find(word: &str) -> Option<Self> {
        [Self::Low, Self::Medium, Self::High].into_iter().find(|l| l.as_str() == word)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that a rule asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Points, −100 to 100.
    Add(i64),
    /// The level is at least this.
    AtLeast(Level),
    /// A second factor, of these methods if any are named.
    RequireMfa(Option<Vec<MfaMethod>>),
    /// A second factor at least this strong.
    RequireStrength(Strength),
    /// A fresh sign-in at the provider, not older than this many seconds.
    UpstreamStepUp {
        /// Seconds.
        max_age_s: i64,
    },
    /// No sign-in.
    Deny,
    /// A person should look at it.
    Review,
    /// The user should be told.
    NotifyUser,
    /// The session ends after this time.
    CapSession(Duration),
    /// The refresh token ends after this time.
    CapRefresh(Duration),
    /// No refresh token.
    NoRefresh,
}

impl Effect {
    /// The name of the call, and its argument as it is told to people.
    #[must_use]
    pub fn told(&self) -> (&'static str, Option<String>) {
        match self {
            Self::Add(points) => ("add", Some(points.to_string())),
            Self::AtLeast(level) => ("at_least", Some(level.to_string())),
            Self::RequireMfa(None) => ("require_mfa", None),
            Self::RequireMfa(Some(methods)) => {
                let words: Vec<&str> = methods.iter().map(|m| m.as_str()).collect();
                ("require_mfa", Some(words.join(", ")))
            }
            Self::RequireStrength(strength) => ("require_strength", Some(strength.as_str().to_owned())),
            Self::UpstreamStepUp { max_age_s } => ("upstream_step_up", Some(format!("{max_age_s} s"))),
            Self::Deny => ("deny", None),
            Self::Review => ("review", None),
            Self::NotifyUser => ("notify_user", None),
            Self::CapSession(cap) => ("cap_session", Some(format!("{} s", cap.as_secs()))),
            Self::CapRefresh(cap) => ("cap_refresh", Some(format!("{} s", cap.as_secs()))),
            Self::NoRefresh => ("no_refresh", None),
        }
    }
}

/// An effect with its reason and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The reason: `[a-z0-9_]{1,48}`.
    pub code: Arc<str>,
    /// What was asked for.
    pub effect: Effect,
    /// The line in the script.
    pub line: Option<usize>,
    /// What the script gave beside it.
    pub detail: Option<Map<String, Value>>,
    /// Facts that were read since the step before.
    pub because: Because,
}

/// All that one run of `assess` asked for, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuleOutput {
    /// Effects with reasons.
    pub steps: Vec<Step>,
    /// Labels for reports.
    pub tags: Vec<Arc<str>>,
    /// Notes for the trace; at most 20.
    pub notes: Vec<String>,
}

/// Why a script gave no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct PolicyFault {
    /// The script, relative to the policies folder.
    pub file: String,
    /// Its line; 0 when not known.
    pub line: usize,
    /// Its column in characters; 0 when not known.
    pub column: usize,
    /// What went wrong.
    pub message: String,
}

/// One evaluation of the tenant's risk rules.
#[derive(Debug, Clone)]
pub struct RuleRun {
    /// The identity of the policy files that ran: `pol_` and the first 16 hex digits of their SHA-256.
    pub policy: Arc<str>,
    /// The script that ran.
    pub file: Arc<str>,
    /// The tenant's settings.
    pub settings: Arc<PolicySettings>,
    /// What was asked for. After a fault: what the shipped default asked for, or nothing when it
    /// failed as well or is not wanted.
    pub output: RuleOutput,
    /// The fault of the tenant's script, or of the shipped default when that is what ran.
    pub fault: Option<PolicyFault>,
    /// What it took.
    pub cost: RunCost,
}

/// What a script that shapes tokens sees of the decision.
#[derive(Debug, Clone)]
pub struct TokenInput {
    /// The level.
    pub level: Level,
    /// 0 to 100.
    pub score: i64,
    /// The reasons.
    pub reasons: Vec<Arc<str>>,
    /// The local second factor that is passed before there are tokens.
    pub factor: Option<MfaMethod>,
    /// The audiences that it may narrow tokens to.
    pub audiences: Audiences,
}

/// The audiences that a script may narrow access tokens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audiences {
    /// These, which the sign-in could have had anyway.
    These(Vec<Arc<str>>),
    /// Nobody signs in: a script is tried, and its clients are not known.
    Untold,
}

/// What a script made of the tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShapedTokens {
    /// Claims and audience.
    pub shape: TokenShape,
    /// Whether it asked for the factor. If not, every factor gives this.
    pub asked_for_factor: bool,
}

/// What a run of a script took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunCost {
    /// Operations of the engine.
    pub operations: u64,
    /// Microseconds.
    pub micros: u64,
    /// Bit n: the run read the fact `PATHS[n]`, whether something came of it or not.
    pub read: u128,
}

/// What the action of a level may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LevelAction {
    /// Tokens.
    Allow,
    /// A second factor.
    Mfa,
    /// A second factor of strength `strong`, else denial.
    StrongMfa,
    /// Denial.
    Deny,
}

/// What a fault in the tenant's script means. There is no value that lets the sign-in through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The shipped default decides, and a second factor is asked for on top.
    DefaultThenMfa,
    /// A second factor.
    Mfa,
    /// Denial.
    Deny,
}

/// What a user without a usable factor gets when one is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unenrolled {
    /// A code to an address verified before this sign-in, else denial.
    KnownChannel,
    /// A fresh sign-in at the provider.
    UpstreamStepUp,
    /// Denial.
    Deny,
}

/// The tenant's settings of `policy.toml` that the core applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySettings {
    /// Scores from here on are medium.
    pub medium_from: i64,
    /// Scores from here on are high.
    pub high_from: i64,
    /// What medium means.
    pub medium_action: LevelAction,
    /// What high means.
    pub high_action: LevelAction,
    /// What a fault means.
    pub on_error: OnError,
    /// What a missing factor means.
    pub unenrolled: Unenrolled,
    /// Groups whose members are privileged.
    pub privileged_groups: Vec<String>,
    /// Whether a trusted device stands for the second factor at medium risk.
    pub trusted_devices: bool,
    /// What is asked of local passwords.
    pub password: PasswordPolicy,
    /// When the likelihood signal speaks.
    pub likelihood: LikelihoodRule,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            medium_from: 30,
            high_from: 60,
            medium_action: LevelAction::Mfa,
            high_action: LevelAction::StrongMfa,
            on_error: OnError::DefaultThenMfa,
            unenrolled: Unenrolled::KnownChannel,
            privileged_groups: Vec::new(),
            trusted_devices: false,
            password: PasswordPolicy::default(),
            likelihood: LikelihoodRule::default(),
        }
    }
}
