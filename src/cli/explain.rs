//! `countersign policy explain`.

use std::str::FromStr;

use super::{ConfigFile, FINE, FINDINGS, Failure, UNREACHABLE, USAGE, runtime};
use crate::app::open_records;
use crate::ids::{EventId, TenantId};
use crate::policy::explain::Explanation;

#[derive(clap::Args)]
pub(super) struct Explain {
    /// The sign-in: `evt_…`, as records and answers of the administration show it.
    id: String,
    /// Only a sign-in of this tenant; absent: of any.
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Explain {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let id = EventId::from_str(&self.id).map_err(|error| Failure::new(USAGE, error.to_string()))?;
        let tenant = self.tenant.as_deref().map(TenantId::parse).transpose();
        let tenant = tenant.map_err(|error| Failure::new(USAGE, error.to_string()))?;
        let settings = self.config.load()?;
        let found = runtime()?.block_on(async {
            let (store, records) = open_records(&settings).await?;
            let found = store.find_decision(&records, tenant.as_ref(), id).await;
            store.close().await;
            found.map_err(|error| {
                let cause = error.0.to_string();
                Failure::new(UNREACHABLE, format!("{error}: {cause}"))
            })
        })?;
        let Some(decision) = found else {
            eprintln!("countersign: no decision is kept under {id}");
            return Ok(FINDINGS);
        };
        let explanation = Explanation { decision, shadow: Vec::new() };
        if self.json {
            println!("{:#}", explanation.to_json());
        } else {
            print!("{}", explanation.to_text());
        }
        Ok(FINE)
    }
}
