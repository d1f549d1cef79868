//! `countersign policy`.

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
    /// Tell why a sign-in was decided as it was.
    #[command(after_help = "Example:\n  countersign policy explain evt_06f3e2… --config countersign.toml")]
    Explain(super::explain::Explain),
}

impl Policy {
    pub(super) fn run(self) -> Result<u8, Failure> {
        match self {
            Self::Test { dir } => {
                let report = run_cases(&dir).map_err(|error| Failure::new(USAGE, error.to_string()))?;
                print!("{report}");
                Ok(if report.passed() { FINE } else { FINDINGS })
            }
            Self::Explain(explain) => explain.run(),
        }
    }
}
