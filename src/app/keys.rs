//! The master key, the store that it opens, and the keys that sign local tokens.

use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use crate::clock::Clock;
use crate::config::{MasterKeyFile, Settings, master_key};
use crate::secret::Entropy;
use crate::session::keys::KeyRing;
use crate::session::ports::KeyRingError;
use crate::session::rotation::KeyKeeper;
use crate::store::{Store, StoreOptions};
use crate::vault::Vault;

/// Names of keys that were derived from the first master key and are kept when it changes.
pub(super) const PSEUDONYMS: &str = "pseudonyms";
pub(super) const NONCES: &str = "nonces";
pub(super) const DEVELOPMENT_TOTP: &str = "development totp";
const DERIVED: &[&str] = &[PSEUDONYMS, NONCES, DEVELOPMENT_TOTP];

/// How often a node looks for keys of other nodes, and whether it is time for the next one.
const LOOK: Duration = Duration::from_secs(1);

/// The store with the key that opens it.
pub struct Opened {
    /// The store.
    pub store: Arc<Store>,
    /// Opens what it keeps sealed.
    pub vault: Vault,
    /// Keeps the master key from being changed meanwhile.
    pub master_key: MasterKeyFile,
}

/// Opens the store with its master key, and finishes a change of the key that was broken off. With `create`,
/// makes the master key when there is none.
///
/// # Errors
/// When key or store cannot be had, or do not belong together.
pub async fn open(settings: &Settings, create: bool, entropy: &dyn Entropy) -> Result<Opened, StartError> {
    master_key(&settings.master_key_file, create, entropy)?;
    open_held(settings, MasterKeyFile::hold(&settings.master_key_file, false)?, entropy).await
}

async fn open_held(settings: &Settings, held: MasterKeyFile, entropy: &dyn Entropy) -> Result<Opened, StartError> {
    // Read after it is held: it may have been changed in between.
    let mut vault = Vault::new(master_key(&settings.master_key_file, false, entropy)?);
    let store = Store::open(&StoreOptions { url: settings.store_url.clone() }).await?;
    if let Some(next) = held.next()? {
        let next = Vault::new(next);
        if store.opens_with(&vault).await? {
            held.drop_next()?;
        } else if store.opens_with(&next).await? {
            held.promote()?;
            vault = next;
        }
    }
    Ok(Opened { store, vault, master_key: held })
}

/// Makes a new master key, seals everything under it, and puts it in the place of the old one. No server may
/// run on the store. Gives how many values were sealed anew. After a crash at any moment, the next start finds
/// either key in force, with all values under it.
///
/// # Errors
/// As [`open`]; then the old key is in force.
pub async fn change_master_key(settings: &Settings, entropy: &dyn Entropy) -> Result<u64, StartError> {
    let held = MasterKeyFile::hold(&settings.master_key_file, true)?;
    let Opened { store, vault, master_key } = open_held(settings, held, entropy).await?;
    let next = Vault::new(master_key.make_next(entropy)?);
    let sealed = store.reseal(vault, next, DERIVED).await?;
    master_key.promote()?;
    store.close().await;
    Ok(sealed)
}

/// The signing keys, looked after as configured.
///
/// # Errors
/// When they cannot be read or opened.
pub async fn keeper(
    settings: &Settings,
    store: &Arc<Store>,
    vault: &Vault,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> Result<Arc<KeyKeeper>, StartError> {
    let failed = |e: KeyRingError| StartError::Keys { source: e.0 };
    let algorithm = settings.signing_algorithm;
    let ring = KeyRing::load(&**store, vault, algorithm, clock.now(), &**entropy).await.map_err(failed)?;
    let keeper = KeyKeeper {
        clock: Arc::clone(clock),
        entropy: Arc::clone(entropy),
        store: Arc::<Store>::clone(store),
        vault: vault.clone(),
        ring: Arc::new(ring),
        algorithm,
        every: settings.rotate_signing_key_every,
    };
    keeper.follow_configuration().await.map_err(failed)?;
    Ok(Arc::new(keeper))
}

/// Looks after the keys until it is dropped.
pub(super) async fn look_always(keeper: Arc<KeyKeeper>) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = keeper.look().await {
            tracing::error!(error = %error.0, "the signing keys could not be looked after");
        }
    }
}
