//! What a bundle does with facts that nobody has seen yet, and whether that is good enough to be active.

use std::fmt;

use serde::Serialize;

/// A fault of a script on generated facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckFault {
    /// The script.
    pub file: String,
    /// Its line; 0 when not known.
    pub line: usize,
    /// Its column; 0 when not known.
    pub column: usize,
    /// What went wrong.
    pub message: String,
    /// How many sets of facts lead to it.
    pub times: usize,
    /// What the first of them set, as a case would.
    pub example: String,
}

/// What one script did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ScriptCheck {
    /// The script.
    pub file: String,
    /// Sets of facts that it ran on.
    pub ran: usize,
    /// Faults by place, the most frequent first.
    pub faults: Vec<CheckFault>,
    /// Reasons that stand in the script's text and were never given.
    pub never: Vec<String>,
    /// Reasons that were given every time.
    pub always: Vec<String>,
    /// Every set of facts was denied.
    pub denies_everything: bool,
    /// The most operations of one run.
    pub most_operations: u64,
    /// The longest run in microseconds.
    pub longest_us: u64,
}

/// What a whole bundle did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// `pol_…`.
    pub bundle: String,
    /// Every script.
    pub scripts: Vec<ScriptCheck>,
}

impl CheckReport {
    /// Whether nothing failed and nothing denies everything.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.scripts.iter().all(|script| script.faults.is_empty() && !script.denies_everything)
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.bundle)?;
        for script in &self.scripts {
            writeln!(
                f,
                "  {}: {} sets of facts, at most {} operations and {} µs",
                script.file, script.ran, script.most_operations, script.longest_us
            )?;
            for fault in &script.faults {
                let CheckFault { file, line, column, message, times, example } = fault;
                writeln!(f, "    ERROR {file}:{line}:{column}: {message}")?;
                writeln!(f, "          {times} times, first with {example}")?;
            }
            if script.denies_everything {
                writeln!(f, "    ERROR every sign-in is denied")?;
            }
            if !script.never.is_empty() {
                writeln!(f, "    never given: {}", script.never.join(", "))?;
            }
            if !script.always.is_empty() {
                writeln!(f, "    always given: {}", script.always.join(", "))?;
            }
        }
        Ok(())
    }
}

/// How the cases beside the scripts ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseSummary {
    /// Cases.
    pub cases: usize,
    /// Risk scripts of which some case ends in anything but a denial.
    pub admitting: Vec<String>,
    /// Those that failed, with their first difference.
    pub failed: Vec<String>,
    /// Reasons that some case gives, in percent of all in reasons.toml.
    pub reason_coverage: u8,
    /// What the bundle itself asks for, in percent.
    pub wanted_coverage: u8,
}

/// Why a bundle cannot become active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateFindings(pub Vec<String>);

impl GateFindings {
    /// Judges a check and the cases.
    #[must_use]
    pub fn of(check: &CheckReport, cases: &CaseSummary) -> Self {
        let mut findings = Vec::new();
        for script in &check.scripts {
            for fault in &script.faults {
                let CheckFault { file, line, column, message, .. } = fault;
                findings.push(format!("{file}:{line}:{column}: {message}; with {}", fault.example));
            }
            if script.denies_everything && !cases.admitting.contains(&script.file) {
                findings.push(format!("{}: denies every sign-in, and no case is let in", script.file));
            }
        }
        if cases.cases == 0 {
            findings.push("no script has a case beside it; write one in risk/<script>.test.toml".to_owned());
        }
        findings.extend(cases.failed.iter().map(|failed| format!("a case fails: {failed}")));
        if cases.reason_coverage < cases.wanted_coverage {
            findings.push(format!(
                "the cases give {} % of the reasons; policy.toml asks for {} %",
                cases.reason_coverage, cases.wanted_coverage
            ));
        }
        Self(findings)
    }
}

impl fmt::Display for GateFindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}
