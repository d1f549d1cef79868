//! `countersign policy test`.

use std::path::PathBuf;

use super::{FINDINGS, FINE, Failure, USAGE};
use crate::scripts::cases::run_cases;

#[derive(clap::Subcommand)]
pub(super) enum Policy {
    /// Run the test files beside the scripts.
    #[command(after_help = "Example:\n  countersign policy test --dir policies")]
    Test {
        /// The policies folder.
        #[arg(long, value_name = "DIR", default_value = "policies")]
        dir: PathBuf,
    },
}

impl Policy {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let Self::Test { dir } = self;
        let report = run_cases(&dir).map_err(|error| Failure::new(USAGE, error.to_string()))?;
        print!("{report}");
        Ok(if report.passed() { FINE } else { FINDINGS })
    }
}
