//! The policy host: tenants' mapping and risk scripts in rhai, compiled at load, swapped whole.
//!
//! A script sees frozen facts and does nothing else. A script that fails, runs too long or gives nonsense
//! is a fault, and a fault never leads to less than the shipped default asks for.

mod active;
mod builder;
pub mod bundle;
mod calls;
mod case_facts;
pub mod cases;
mod claims;
mod corpus;
mod coverage;
pub mod definitions;
mod engine;
#[cfg(test)]
mod explain_tests;
mod facts;
pub mod follow;
mod kept;
pub mod lab;
mod lists;
mod load;
mod mapping;
mod meters;
mod once;
pub mod record;
mod schemas;
mod settings;
pub mod shadow;
#[cfg(test)]
mod tests;
mod token;
pub mod watch;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rhai::{Dynamic, ImmutableString, Scope};

use crate::ids::TenantId;
use crate::signin::facts::Facts;
use crate::signin::identity::{MappingInput, MappingOutput};
use crate::signin::ports::{ClaimMapper, RiskRules};
use crate::signin::provider::Provider;
use crate::signin::rules::{
    OnError, PolicyFault, PolicySettings, RuleOutput, RuleRun, RunCost, ShapedTokens, TokenInput,
};
use active::Active;
use builder::Risk;
use engine::{Surroundings, guarded};
use facts::{MapFacts, RiskFacts, Seen};
use load::{SHIPPED, SHIPPED_NAME, Script, Snapshot};
use mapping::Out;
use meters::{Entry, Meters};
use token::Token;

/// Why policies were not loaded: file, line, column, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct LoadError(PolicyFault);

impl LoadError {
    fn new(file: &str, line: usize, column: usize, message: impl Into<String>) -> Self {
        Self(PolicyFault { file: file.to_owned(), line, column, message: message.into() })
    }
}

impl From<PolicyFault> for LoadError {
    fn from(fault: PolicyFault) -> Self {
        Self(fault)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.line {
            0 => write!(f, "{}: {}", self.0.file, self.0.message),
            _ => self.0.fmt(f),
        }
    }
}

/// What a reload did.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// The policies in force.
    pub policy: Arc<str>,
    /// Whether they are others than before.
    pub changed: bool,
}

/// Runs scripts. Shared by all sign-ins; a run takes no lock that another one waits for.
///
/// A tenant's own active bundle comes first, then the one that is active for all, then the folder.
pub struct PolicyHost {
    dir: PathBuf,
    folder: ArcSwap<Snapshot>,
    active: ArcSwap<Active>,
    /// `None`: runs are nobody's sign-ins.
    meters: Option<Meters>,
}

impl PolicyHost {
    /// Reads and compiles the whole folder.
    ///
    /// # Errors
    /// The first file that cannot be used, with line and column.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        let snapshot = Snapshot::build(&bundle::read_folder(dir)?)?;
        Ok(Self {
            dir: dir.to_owned(),
            folder: ArcSwap::from_pointee(snapshot),
            active: ArcSwap::default(),
            meters: Some(Meters::default()),
        })
    }

    /// The same without counting what runs: for trials beside the sign-ins.
    #[must_use]
    pub fn uncounted(self) -> Self {
        Self { meters: None, ..self }
    }

    /// Reads the folder again.
    ///
    /// # Errors
    /// As [`Self::load`]; the old policies stay in force.
    pub fn reload(&self) -> Result<Reloaded, LoadError> {
        let bundle = bundle::read_folder(&self.dir)?;
        let held = self.policy_id();
        if bundle.id() == *held {
            return Ok(Reloaded { policy: held, changed: false });
        }
        let snapshot = Arc::new(Snapshot::build(&bundle)?);
        let policy = Arc::clone(&snapshot.id);
        self.folder.store(snapshot);
        Ok(Reloaded { policy, changed: true })
    }

    /// The identity of the folder's policies: `pol_` and 16 hex digits of the SHA-256 over all files.
    #[must_use]
    pub fn policy_id(&self) -> Arc<str> {
        Arc::clone(&self.folder.load().id)
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn note(&self, tenant: &TenantId, entry: Entry, cost: RunCost, failed: bool) {
        if let Some(meters) = &self.meters {
            meters.note(tenant, entry, cost, failed);
        }
    }

    fn snapshot(&self, tenant: &TenantId) -> Result<Arc<Snapshot>, LoadError> {
        match self.active.load().of(tenant) {
            Some(slot) => slot.get(),
            None => Ok(self.folder.load_full()),
        }
    }
}

impl ClaimMapper for PolicyHost {
    fn map(&self, provider: &Provider, input: Arc<MappingInput>) -> Result<MappingOutput, PolicyFault> {
        let snapshot = self.snapshot(&input.tenant).map_err(|error| error.0)?;
        let mapped = run_map(&snapshot, &provider.mapping, input);
        self.note(&provider.tenant, Entry::Map, engine::cost(), mapped.is_err());
        mapped
    }
}

impl RiskRules for PolicyHost {
    fn assess(&self, facts: Arc<Facts>) -> RuleRun {
        match self.snapshot(&facts.tenant) {
            Ok(snapshot) => {
                let run = run_assess(&snapshot, Arc::clone(&facts));
                self.note(&facts.tenant, Entry::Assess, run.cost, run.fault.is_some());
                if run.fault.is_some() {
                    self.active.load().note_fault(&facts.tenant);
                }
                run
            }
            Err(error) => without_policies(error.0, &facts),
        }
    }

    fn shape_tokens(&self, facts: &Arc<Facts>, input: TokenInput) -> Result<ShapedTokens, PolicyFault> {
        let snapshot = self.snapshot(&facts.tenant).map_err(|error| error.0)?;
        let own = snapshot.risk.get(facts.tenant.as_str()).or_else(|| snapshot.risk.get("_default"));
        let Some(script) = own.filter(|script| script.shapes_tokens) else { return Ok(ShapedTokens::default()) };
        let ran = run_token(&snapshot, script, facts, input);
        self.note(&facts.tenant, Entry::Token, engine::cost(), ran.is_err());
        if ran.is_err() {
            self.active.load().note_fault(&facts.tenant);
        }
        ran
    }

    fn settings(&self, tenant: &TenantId) -> Arc<PolicySettings> {
        let snapshot = self.snapshot(tenant).unwrap_or_else(|_| self.folder.load_full());
        Arc::clone(&snapshot.settings.of(tenant).core)
    }
}

/// The first of these mappings that exists, else the default one.
fn run_map(snapshot: &Snapshot, names: &[String], input: Arc<MappingInput>) -> Result<MappingOutput, PolicyFault> {
    let named = names.iter().find_map(|name| snapshot.mapping.get(name));
    let Some(script) = named.or_else(|| snapshot.mapping.get("default")) else {
        let message = "is needed and absent".to_owned();
        return Err(PolicyFault { file: "mapping/default.rhai".to_owned(), line: 0, column: 0, message });
    };
    let out = Out::default();
    call(&snapshot.surroundings, script, Entry::Map, (MapFacts(input), out.clone()))?;
    Ok(out.take())
}

fn run_assess(snapshot: &Snapshot, facts: Arc<Facts>) -> RuleRun {
    let own = snapshot.risk.get(facts.tenant.as_str()).or_else(|| snapshot.risk.get("_default"));
    run_script(snapshot, own.map_or(&SHIPPED.script, |script| script), facts)
}

fn run_script(snapshot: &Snapshot, script: &Script, facts: Arc<Facts>) -> RuleRun {
    let settings = snapshot.settings.of(&facts.tenant);
    let first_sign_in = &settings.first_sign_in;
    let (ran, cost) = assess_with(&snapshot.surroundings, script, &snapshot.reasons, &facts, first_sign_in);
    let (output, fault) = match ran {
        Ok(output) => (output, None),
        Err(fault) => (after_fault(settings.core.on_error, &facts, first_sign_in), Some(fault)),
    };
    RuleRun {
        policy: Arc::clone(&snapshot.id),
        file: Arc::clone(&script.file),
        settings: Arc::clone(&settings.core),
        output,
        fault,
        cost,
    }
}

fn run_token(
    snapshot: &Snapshot,
    script: &Script,
    facts: &Arc<Facts>,
    input: TokenInput,
) -> Result<ShapedTokens, PolicyFault> {
    let first_sign_in = snapshot.settings.of(&facts.tenant).first_sign_in.clone();
    let seen = Seen::new(Arc::clone(facts), first_sign_in);
    let token = Token::of(input);
    let arguments = (RiskFacts(seen), token.decided(), token.clone());
    call(&snapshot.surroundings, script, Entry::Token, arguments)?;
    Ok(token.take())
}

/// An active bundle that does not compile. The gates let none through, so this is a broken store.
fn without_policies(fault: PolicyFault, facts: &Arc<Facts>) -> RuleRun {
    let settings = PolicySettings::default();
    RuleRun {
        policy: "pol_unusable".into(),
        file: SHIPPED_NAME.into(),
        output: after_fault(settings.on_error, facts, &"medium".into()),
        settings: Arc::new(settings),
        fault: Some(fault),
        cost: RunCost::default(),
    }
}

/// What stands in for a failed script: the shipped default, if the tenant wants it; the core adds the
/// second factor or the denial.
fn after_fault(on_error: OnError, facts: &Arc<Facts>, first_sign_in: &ImmutableString) -> RuleOutput {
    if on_error != OnError::DefaultThenMfa {
        return RuleOutput::default();
    }
    let (ran, _) = assess_with(&SHIPPED.surroundings, &SHIPPED.script, &SHIPPED.reasons, facts, first_sign_in);
    ran.unwrap_or_else(|fault| {
        tracing::error!(error = %fault, "the shipped default failed as well: {SHIPPED_NAME}");
        RuleOutput::default()
    })
}

fn assess_with(
    surroundings: &Arc<Surroundings>,
    script: &Script,
    reasons: &Arc<HashSet<String>>,
    facts: &Arc<Facts>,
    first_sign_in: &ImmutableString,
) -> (Result<RuleOutput, PolicyFault>, RunCost) {
    let seen = Seen::new(Arc::clone(facts), first_sign_in.clone());
    let risk = Risk::new(Arc::clone(reasons), Arc::clone(&seen));
    let called = call(surroundings, script, Entry::Assess, (RiskFacts(Arc::clone(&seen)), risk.clone()));
    let cost = RunCost { read: seen.ever(), ..engine::cost() };
    (called.map(|()| risk.take()), cost)
}

/// Calls an entry with a scope of its own. The script's constants and imports are evaluated first.
fn call(
    surroundings: &Arc<Surroundings>,
    script: &Script,
    entry: Entry,
    arguments: impl rhai::FuncArgs,
) -> Result<(), PolicyFault> {
    guarded(&script.file, surroundings, || {
        surroundings.engine.call_fn::<Dynamic>(&mut Scope::new(), &script.ast, entry.name(), arguments).map(|_| ())
    })
}
