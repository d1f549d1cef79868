//! What a bundle does with facts that nobody has seen yet, and whether that is good enough to be active.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

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
    /// The lines of every script.
    pub lines: Vec<FileLines>,
}

/// Which lines of a script some case ran.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileLines {
    /// The script.
    pub file: String,
    /// Lines on which a statement begins.
    pub lines: usize,
    /// Those of them that no case ran, from 1.
    pub never: Vec<usize>,
}

impl FileLines {
    /// Lines that some case ran, in percent of all of these scripts; 100 when there are none.
    #[must_use]
    pub fn percent(all: &[Self]) -> u8 {
        let lines: usize = all.iter().map(|file| file.lines).sum();
        let ran = lines - all.iter().map(|file| file.never.len()).sum::<usize>();
        u8::try_from((ran * 100).checked_div(lines).unwrap_or(100)).unwrap_or(100)
    }

    /// The lines that no case ran, as `3, 7-9`.
    #[must_use]
    pub fn never_told(&self) -> String {
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for &line in &self.never {
            match spans.last_mut() {
                Some((_, last)) if *last + 1 == line => *last = line,
                _ => spans.push((line, line)),
            }
        }
        let told = spans.iter().map(|&(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        told.collect::<Vec<_>>().join(", ")
    }

    /// For programs.
    #[must_use]
    pub fn to_json(all: &[Self]) -> Value {
        let files = all.iter().map(|file| {
            json!({"file": file.file, "lines": file.lines, "never_run": file.never,
                   "percent": Self::percent(std::slice::from_ref(file))})
        });
        json!({"percent": Self::percent(all), "files": files.collect::<Vec<_>>()})
    }
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
