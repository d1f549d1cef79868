//! The policy host: tenants' mapping and risk scripts in rhai, compiled at load, swapped whole.
//!
//! A script sees frozen facts and does nothing else. A script that fails, runs too long or gives nonsense
//! is a fault, and a fault never leads to less than the shipped default asks for.

mod builder;
mod bundle;
mod case_facts;
pub mod cases;
mod claims;
mod engine;
mod facts;
mod lists;
mod load;
mod mapping;
mod settings;
#[cfg(test)]
mod tests;
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
use crate::signin::rules::{OnError, PolicyFault, PolicySettings, RuleOutput, RuleRun};
use builder::Risk;
use bundle::Bundle;
use engine::guarded;
use facts::{MapFacts, RiskFacts};
use load::{SHIPPED_NAME, Script, Snapshot};
use mapping::Out;

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
pub struct PolicyHost {
    dir: PathBuf,
    current: ArcSwap<Snapshot>,
}

impl PolicyHost {
    /// Reads and compiles the whole folder.
    ///
    /// # Errors
    /// The first file that cannot be used, with line and column.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        let snapshot = Snapshot::build(&Bundle::read(dir)?)?;
        Ok(Self { dir: dir.to_owned(), current: ArcSwap::from_pointee(snapshot) })
    }

    /// Reads the folder again.
    ///
    /// # Errors
    /// As [`Self::load`]; the old policies stay in force.
    pub fn reload(&self) -> Result<Reloaded, LoadError> {
        let bundle = Bundle::read(&self.dir)?;
        let held = self.policy_id();
        if bundle.id() == *held {
            return Ok(Reloaded { policy: held, changed: false });
        }
        let snapshot = Arc::new(Snapshot::build(&bundle)?);
        let policy = Arc::clone(&snapshot.id);
        self.current.store(snapshot);
        Ok(Reloaded { policy, changed: true })
    }

    /// The identity of the policies in force: `pol_` and 16 hex digits of the SHA-256 over all files.
    #[must_use]
    pub fn policy_id(&self) -> Arc<str> {
        Arc::clone(&self.current.load().id)
    }

    /// The watched folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl ClaimMapper for PolicyHost {
    fn map(&self, provider: &Provider, input: Arc<MappingInput>) -> Result<MappingOutput, PolicyFault> {
        let snapshot = self.current.load_full();
        run_map(&snapshot, &provider.mapping, input)
    }
}

impl RiskRules for PolicyHost {
    fn assess(&self, facts: Arc<Facts>) -> RuleRun {
        let snapshot = self.current.load_full();
        run_assess(&snapshot, facts)
    }

    fn settings(&self, tenant: &TenantId) -> Arc<PolicySettings> {
        Arc::clone(&self.current.load().settings.of(tenant).core)
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
    call(snapshot, script, "map", (MapFacts(input), out.clone()))?;
    Ok(out.take())
}

fn run_assess(snapshot: &Snapshot, facts: Arc<Facts>) -> RuleRun {
    let own = snapshot.risk.get(facts.tenant.as_str()).or_else(|| snapshot.risk.get("_default"));
    run_script(snapshot, own.unwrap_or(&snapshot.shipped), facts)
}

fn run_script(snapshot: &Snapshot, script: &Script, facts: Arc<Facts>) -> RuleRun {
    let settings = snapshot.settings.of(&facts.tenant);
    let first_sign_in = &settings.first_sign_in;
    let ran = assess_with(snapshot, script, &snapshot.reasons, &facts, first_sign_in);
    let (output, fault) = match ran {
        Ok(output) => (output, None),
        Err(fault) => (after_fault(snapshot, settings.core.on_error, &facts, first_sign_in), Some(fault)),
    };
    RuleRun {
        policy: Arc::clone(&snapshot.id),
        file: Arc::clone(&script.file),
        settings: Arc::clone(&settings.core),
        output,
        fault,
    }
}

/// What stands in for a failed script: the shipped default, if the tenant wants it; the core adds the
/// second factor or the denial.
fn after_fault(
    snapshot: &Snapshot,
    on_error: OnError,
    facts: &Arc<Facts>,
    first_sign_in: &ImmutableString,
) -> RuleOutput {
    if on_error != OnError::DefaultThenMfa {
        return RuleOutput::default();
    }
    let ran = assess_with(snapshot, &snapshot.shipped, &snapshot.shipped_reasons, facts, first_sign_in);
    ran.unwrap_or_else(|fault| {
        tracing::error!(error = %fault, "the shipped default failed as well: {SHIPPED_NAME}");
        RuleOutput::default()
    })
}

fn assess_with(
    snapshot: &Snapshot,
    script: &Script,
    reasons: &Arc<HashSet<String>>,
    facts: &Arc<Facts>,
    first_sign_in: &ImmutableString,
) -> Result<RuleOutput, PolicyFault> {
    let risk = Risk::new(Arc::clone(reasons));
    let s = RiskFacts { facts: Arc::clone(facts), first_sign_in: first_sign_in.clone() };
    call(snapshot, script, "assess", (s, risk.clone()))?;
    Ok(risk.take())
}

/// Calls an entry with a scope of its own. The script's constants and imports are evaluated first.
fn call(
    snapshot: &Snapshot,
    script: &Script,
    entry: &str,
    arguments: impl rhai::FuncArgs,
) -> Result<(), PolicyFault> {
    guarded(&script.file, || {
        snapshot.engine.call_fn::<Dynamic>(&mut Scope::new(), &script.ast, entry, arguments).map(|_| ())
    })
}
