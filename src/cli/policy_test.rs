//! `countersign policy test` and `policy new`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{FINDINGS, FINE, Failure, USAGE, policy_store};
use crate::ids::{EventId, TenantId};
use crate::policy::check::FileLines;
use crate::scripts::bundle::read_folder;
use crate::scripts::cases::{CaseReport, run_cases};

#[derive(clap::Args)]
pub(super) struct Test {
    /// The policies folder.
    #[arg(long, value_name = "DIR", default_value = "policies")]
    dir: PathBuf,
    /// Tell how many of the reasons in reasons.toml some case gives, and which lines of the scripts no case runs.
    #[arg(long)]
    coverage: bool,
    /// Print the results and both coverages as JSON.
    #[arg(long)]
    json: bool,
    /// Fail when the cases give less than so many percent of the reasons.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    min: Option<u8>,
    /// Write the results in the form of JUnit as well.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Run again whenever a file changes.
    #[arg(long)]
    watch: bool,
    /// Run nothing; print a recorded sign-in as a case, for risk/<tenant>.test.toml.
    #[arg(long, value_name = "ID", value_parser = policy_store::event, conflicts_with_all = ["watch", "junit", "json"])]
    record: Option<EventId>,
    #[command(flatten)]
    config: super::ConfigFile,
}

impl Test {
    pub(super) fn run(self) -> Result<u8, Failure> {
        if let Some(id) = self.record {
            return policy_store::print_case(&self.config, id);
        }
        if !self.watch {
            return self.once();
        }
        let mut last = None;
        loop {
            let id = read_folder(&self.dir).map(|bundle| bundle.id()).map_err(|error| error.to_string());
            if last.as_ref() != Some(&id) {
                match self.once() {
                    Ok(_) => {}
                    Err(failure) => eprintln!("countersign: {}", failure.text),
                }
                last = Some(id);
            }
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
    }

    fn once(&self) -> Result<u8, Failure> {
        let report = run_cases(&self.dir).map_err(|error| Failure::new(USAGE, error.to_string()))?;
        let coverage = report.reason_coverage();
        if self.json {
            println!("{:#}", told(&report));
        } else {
            print!("{report}");
            if self.coverage {
                print!("{}", lines_told(&report.lines));
            }
            if self.coverage || self.min.is_some() {
                println!("{coverage} % of the reasons are given by some case");
            }
        }
        if let Some(file) = &self.junit {
            std::fs::write(file, junit(&report))
                .map_err(|error| Failure::new(USAGE, format!("{}: {error}", file.display())))?;
        }
        let enough = self.min.is_none_or(|min| coverage >= min);
        Ok(if report.passed() && enough { FINE } else { FINDINGS })
    }
}

fn told(report: &CaseReport) -> Value {
    let cases = report.cases.iter().map(|case| {
        json!({"file": case.file, "name": case.name, "passed": case.differences.is_empty(),
               "differences": case.differences})
    });
    json!({
        "passed": report.passed(),
        "cases": cases.collect::<Vec<_>>(),
        "reasons": {"percent": report.reason_coverage(), "never_given": report.never_given},
        "lines": FileLines::to_json(&report.lines),
    })
}

fn lines_told(all: &[FileLines]) -> String {
    let mut text = String::new();
    for file in all {
        let _ = write!(text, "{:>4} %  {}", FileLines::percent(std::slice::from_ref(file)), file.file);
        let never = file.never_told();
        let _ = if never.is_empty() { writeln!(text) } else { writeln!(text, ": no case runs line {never}") };
    }
    let _ = writeln!(text, "{} % of the lines are run by some case", FileLines::percent(all));
    text
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// The form that build servers read: a suite for each file.
fn junit(report: &CaseReport) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    let mut files: Vec<&str> = report.cases.iter().map(|case| case.file.as_str()).collect();
    files.dedup();
    for file in files {
        let cases: Vec<_> = report.cases.iter().filter(|case| case.file == file).collect();
        let failed = cases.iter().filter(|case| !case.differences.is_empty()).count();
        let file = escaped(file);
        let _ = writeln!(text, "<testsuite name=\"{file}\" tests=\"{}\" failures=\"{failed}\">", cases.len());
        for case in cases {
            let name = escaped(&case.name);
            if case.differences.is_empty() {
                let _ = writeln!(text, "<testcase classname=\"{file}\" name=\"{name}\"/>");
            } else {
                let why = escaped(&case.differences.join("; "));
                let _ = writeln!(
                    text,
                    "<testcase classname=\"{file}\" name=\"{name}\"><failure message=\"{why}\"/></testcase>"
                );
            }
        }
        text.push_str("</testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

const SCRIPT: &str = r#"// What a sign-in must prove, for tenant TENANT: what is shipped, and what is added here.

import "risk/_default" as base;

fn assess(s, risk) {
    base::assess(s, risk);
    if s.request.network_kind == "anonymizer" {
        risk.require_mfa("anonymizer_network");
    }
}
"#;

const CASES: &str = r#"[[case]]
name = "an ordinary sign-in scores nothing"
expect = { level = "low", action = "allow", score = 0 }

[[case]]
name = "an anonymiser needs a second factor"
set = { "request.network_kind" = "anonymizer" }
expect = { action = "mfa", reasons = ["anonymizer_network"] }
"#;

#[derive(clap::Args)]
pub(super) struct New {
    /// The tenant.
    #[arg(value_parser = policy_store::tenant)]
    tenant: TenantId,
    /// The policies folder.
    #[arg(long, value_name = "DIR", default_value = "policies")]
    dir: PathBuf,
}

impl New {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let risk = self.dir.join("risk");
        let script = risk.join(format!("{}.rhai", self.tenant));
        let cases = risk.join(format!("{}.test.toml", self.tenant));
        for (path, text) in [(script, SCRIPT.replace("TENANT", self.tenant.as_str())), (cases, CASES.to_owned())] {
            write_new(&path, &text).map_err(|error| Failure::new(USAGE, format!("{}: {error}", path.display())))?;
            println!("{}", path.display());
        }
        Ok(FINE)
    }
}

/// Nothing that is there is ever overwritten.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    std::fs::OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}
