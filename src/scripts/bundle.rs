//! The policies folder as a bundle.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::LoadError;
use crate::policy::bundle::{Bundle, BundleError, FILE_BYTES, counts, folders};

impl From<BundleError> for LoadError {
    fn from(error: BundleError) -> Self {
        Self::new(&error.file, 0, 0, error.message)
    }
}

/// Reads all files that count.
///
/// # Errors
/// The first file that cannot be read or does not fit.
pub fn read_folder(dir: &Path) -> Result<Bundle, LoadError> {
    let mut files = BTreeMap::new();
    for name in ["policy.toml", "reasons.toml"] {
        let text = read(&dir.join(name))
            .map_err(|e| LoadError::new(name, 0, 0, format!("cannot be read in {}: {e}", dir.display())))?;
        files.insert(name.to_owned(), text);
    }
    for folder in folders() {
        let Ok(entries) = std::fs::read_dir(dir.join(folder)) else { continue };
        for entry in entries.flatten() {
            let file = entry.file_name();
            let Some(file) = file.to_str().filter(|f| counts(folder, f)) else { continue };
            let name = format!("{folder}/{file}");
            let text =
                read(&entry.path()).map_err(|e| LoadError::new(&name, 0, 0, format!("cannot be read: {e}")))?;
            files.insert(name, text);
        }
    }
    Ok(Bundle::new(files)?)
}

/// A file that is far too large is not read to its end.
fn read(path: &Path) -> std::io::Result<Arc<str>> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES as u64 + 1).read_to_string(&mut text)?;
    Ok(text.into())
}
