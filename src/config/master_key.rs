//! The master key's file: 32 random bytes in base64, readable by its owner alone.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use data_encoding::BASE64;

use super::ConfigError;
use crate::secret::{Entropy, Secret};
use crate::vault::Vault;

/// Reads the key; with `create`, makes it when there is none.
///
/// # Errors
/// When the file cannot be read or made, others may read it, or it holds anything else.
pub fn master_key(file: &Path, create: bool, entropy: &dyn Entropy) -> Result<Secret, ConfigError> {
    let failed = |message: String| ConfigError::new(file.display(), message);
    if create && !file.exists() {
        make(file, entropy).map_err(|e| failed(format!("the master key cannot be made: {e}")))?;
    }
    let metadata = file.metadata().map_err(|e| failed(format!("the master key cannot be read: {e}")))?;
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o777;
        return Err(failed(format!("the master key has mode {mode:o}, so others may read it; run chmod 600")));
    }
    let text = std::fs::read_to_string(file).map_err(|e| failed(format!("the master key cannot be read: {e}")))?;
    let bytes = BASE64.decode(text.trim().as_bytes()).ok().filter(|b| b.len() == Vault::MASTER_KEY_BYTES);
    bytes.map(Secret::new).ok_or_else(|| failed("a master key is 32 random bytes in base64".to_owned()))
}

fn make(file: &Path, entropy: &dyn Entropy) -> std::io::Result<()> {
    if let Some(dir) = file.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let key = Secret::random(Vault::MASTER_KEY_BYTES, entropy);
    let mut made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    made.write_all(format!("{}\n", BASE64.encode(key.expose())).as_bytes())?;
    made.sync_all()
}
