//! `countersign migrate`.

use super::{ConfigFile, FINE, Failure, runtime};
use crate::store::{Store, StoreOptions};

#[derive(clap::Args)]
pub(super) struct Migrate {
    #[command(flatten)]
    config: ConfigFile,
}

impl Migrate {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let settings = self.config.load()?;
        let options = StoreOptions { url: settings.store_url };
        let report = runtime()?.block_on(Store::migrate(&options))?;
        println!("{report}");
        Ok(FINE)
    }
}
