//! `countersign plugin lock`.

use std::path::PathBuf;

use super::{FINE, Failure, USAGE};
use crate::plugin_host::lock::lock_entry;

#[derive(clap::Subcommand)]
pub(super) enum Plugin {
    /// Print the plugins.lock entry of a plugin file: review it, then paste it.
    #[command(after_help = "Example:\n  countersign plugin lock ./libip_list.so >> plugins.lock")]
    Lock {
        /// The plugin's file.
        file: PathBuf,
    },
}

impl Plugin {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let Self::Lock { file } = self;
        let entry = lock_entry(&file).map_err(|error| Failure::new(USAGE, error.to_string()))?;
        print!("{entry}");
        Ok(FINE)
    }
}
