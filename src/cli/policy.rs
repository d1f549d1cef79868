//! `countersign policy`.

use std::path::PathBuf;

use super::{FINDINGS, FINE, Failure, USAGE, policy_sign, policy_store, policy_test};
use crate::policy::ports::PolicyLab;
use crate::scripts::bundle::read_folder;
use crate::scripts::definitions;
use crate::scripts::lab::Lab;

#[derive(clap::Subcommand)]
pub(super) enum Policy {
    /// Run the test files beside the scripts.
    #[command(after_help = "Example:\n  countersign policy test --dir policies --min 80 --junit cases.xml")]
    Test(policy_test::Test),
    /// Write a risk script with cases for a tenant, to begin with.
    #[command(after_help = "Example:\n  countersign policy new acme --dir policies")]
    New(policy_test::New),
    /// Write what scripts can read and call, for the editor and the language server of rhai.
    #[command(after_help = "Example:\n  countersign policy defs --dir policies")]
    Defs {
        /// The policies folder; the files go to definitions/ in it.
        #[arg(long, value_name = "DIR", default_value = "policies")]
        dir: PathBuf,
    },
    /// Run every script over some hundred generated sign-ins: every word of every fact, every "not known".
    #[command(after_help = "Example:\n  countersign policy check --dir policies")]
    Check {
        /// The policies folder.
        #[arg(long, value_name = "DIR", default_value = "policies")]
        dir: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tell why a sign-in was decided as it was.
    #[command(after_help = "Example:\n  countersign policy explain evt_06f3e2… --config countersign.toml")]
    Explain(policy_store::Explain),
    /// Run a candidate over recorded sign-ins, and tell what it would have decided otherwise.
    #[command(after_help = "Example:\n  countersign policy replay --tenant acme --candidate ./policies --since 7d")]
    Replay(policy_store::Replay),
    /// Show what differs between two bundles or folders.
    #[command(after_help = "Example:\n  countersign policy diff pol_3f9a04b2c8d1e657 ./policies")]
    Diff(policy_store::Diff),
    /// Run candidates beside the active policies, unseen by users; without a candidate, show what they did.
    #[command(after_help = "Example:\n  countersign policy shadow --tenant acme --candidate ./policies")]
    Shadow(policy_store::Shadow),
    /// Make a folder or a kept bundle active, once it has passed the gates.
    #[command(
        after_help = "Example:\n  countersign policy activate ./policies --tenant acme --note \"hosting networks\""
    )]
    Activate(policy_store::Activate),
    /// Sign a folder, for tenants whose bundles must be signed.
    #[command(after_help = "Example:\n  countersign policy sign ./policies --key policy-signing.pem")]
    Sign(policy_sign::Sign),
    /// Go back to what was active before.
    #[command(after_help = "Example:\n  countersign policy rollback --tenant acme")]
    Rollback(policy_store::Rollback),
    /// Show what is active, and how far each server has come.
    #[command(after_help = "Example:\n  countersign policy status")]
    Status(policy_store::Status),
    /// Say of a recorded sign-in that it was not its user's, or that it was.
    #[command(after_help = "Example:\n  countersign policy label evt_06f3e2… bad")]
    Label(policy_store::LabelCommand),
}

impl Policy {
    pub(super) fn run(self) -> Result<u8, Failure> {
        match self {
            Self::Test(command) => command.run(),
            Self::New(command) => command.run(),
            Self::Defs { dir } => {
                let written = definitions::write(&dir.join("definitions"))
                    .map_err(|error| Failure::new(USAGE, format!("{}: {error}", dir.display())))?;
                for path in written {
                    println!("{}", path.display());
                }
                Ok(FINE)
            }
            Self::Check { dir, json } => {
                let bundle = read_folder(&dir).map_err(|error| Failure::new(USAGE, error.to_string()))?;
                let report = Lab.check(&bundle).map_err(|error| Failure::new(USAGE, error))?;
                if json {
                    println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
                } else {
                    print!("{report}");
                }
                Ok(if report.passed() { FINE } else { FINDINGS })
            }
            Self::Explain(command) => command.run(),
            Self::Replay(command) => command.run(),
            Self::Diff(command) => command.run(),
            Self::Shadow(command) => command.run(),
            Self::Activate(command) => command.run(),
            Self::Sign(command) => command.run(),
            Self::Rollback(command) => command.run(),
            Self::Status(command) => command.run(),
            Self::Label(command) => command.run(),
        }
    }
}
