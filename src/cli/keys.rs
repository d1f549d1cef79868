//! `countersign keys list|rotate|rotate-master`.

use std::sync::Arc;

use super::{ConfigFile, FINE, Failure, UNREACHABLE, runtime};
use crate::admin::audit::Author;
use crate::app::keys;
use crate::clock::{Clock, SystemClock};
use crate::config::Settings;
use crate::secret::{Entropy, SystemEntropy};
use crate::session::rotation::{KeyInfo, KeyKeeper, Rotate};

#[derive(clap::Subcommand)]
pub(super) enum Keys {
    /// Show the keys that sign local tokens.
    #[command(after_help = "Example:\n  countersign keys list --config countersign.toml --json")]
    List(List),
    /// Replace the key that signs. Running servers follow within seconds.
    #[command(after_help = "Example:\n  countersign keys rotate --config countersign.toml")]
    Rotate(RotateKeys),
    /// Replace the master key: everything that is sealed at rest is sealed anew. Stop the servers first.
    #[command(after_help = "Example:\n  countersign keys rotate-master --config countersign.toml")]
    RotateMaster(RotateMaster),
}

#[derive(clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct RotateKeys {
    #[command(flatten)]
    config: ConfigFile,
    /// Sign with the next key at once, instead of ten minutes after it is published.
    #[arg(long)]
    now: bool,
    /// A key has leaked: sign with a new one at once, and refuse from now on whatever the others signed.
    #[arg(long, conflicts_with = "now")]
    compromised: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct RotateMaster {
    #[command(flatten)]
    config: ConfigFile,
}

impl Keys {
    pub(super) fn run(self) -> Result<u8, Failure> {
        match self {
            Self::List(list) => {
                let settings = list.config.load()?;
                let keys = with_keeper(&settings, async |keeper| keeper.list().await)?;
                print(&keys, list.json);
            }
            Self::Rotate(rotate) => {
                let settings = rotate.config.load()?;
                let how = match (rotate.compromised, rotate.now) {
                    (true, _) => Rotate::Compromised,
                    (_, true) => Rotate::Now,
                    _ => Rotate::Soon,
                };
                let key = with_keeper(&settings, async |keeper| {
                    let author = Author::command_line(None, keeper.clock.now(), &*keeper.entropy);
                    keeper.rotate(how, &author).await
                })?;
                print(&[key], rotate.json);
            }
            Self::RotateMaster(rotate) => {
                let settings = rotate.config.load()?;
                let changed = runtime()?.block_on(keys::change_master_key(&settings, &SystemEntropy));
                let sealed = changed?;
                println!("the master key is changed; {sealed} values were sealed anew");
                println!(
                    "copies of {} from before open only copies of the store from before",
                    settings.master_key_file.display()
                );
            }
        }
        Ok(FINE)
    }
}

fn with_keeper<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&KeyKeeper) -> Result<T, crate::session::ports::KeyRingError>,
) -> Result<T, Failure> {
    runtime()?.block_on(async {
        let opened = keys::open(settings, false, &SystemEntropy).await?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let keeper = keys::keeper(settings, &opened.store, &opened.vault, &clock, &entropy).await?;
        let result = work(&keeper).await;
        opened.store.close().await;
        result.map_err(|error| Failure::new(UNREACHABLE, format!("signing keys: {}", error.0)))
    })
}

fn print(keys: &[KeyInfo], as_json: bool) {
    for key in keys {
        let (id, state, algorithm) = (key.id, key.state.as_str(), &key.algorithm);
        let (created_at, active_from) = (key.created_at.to_rfc3339(), key.active_from.to_rfc3339());
        if as_json {
            let line = serde_json::json!({
                "id": id.to_string(),
                "state": state,
                "algorithm": algorithm,
                "created_at": created_at,
                "active_from": active_from,
            });
            println!("{line}");
        } else {
            println!("{id}  {state:8}  {algorithm:5}  signs from {active_from}");
        }
    }
}
