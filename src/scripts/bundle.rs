//! The policies folder as one immutable bundle: which files count, how large they may be, and the
//! identity of them all.

use std::collections::BTreeMap;
use std::path::Path;

use data_encoding::HEXLOWER;

use super::LoadError;
use crate::secret::sha256;

const FILE_BYTES: usize = 64 * 1024;
const BUNDLE_BYTES: usize = 512 * 1024;
/// Folders of scripts and data, and the ending of their files.
const FOLDERS: [(&str, &str); 4] = [("mapping", "rhai"), ("risk", "rhai"), ("lib", "rhai"), ("lists", "txt")];

/// The files of a bundle by their path below the folder, in order.
pub(super) struct Bundle {
    pub files: BTreeMap<String, String>,
}

impl Bundle {
    /// Reads all files that count.
    pub fn read(dir: &Path) -> Result<Self, LoadError> {
        let mut files = BTreeMap::new();
        for name in ["policy.toml", "reasons.toml"] {
            let path = dir.join(name);
            let text = std::fs::read_to_string(&path)
                .map_err(|e| LoadError::new(name, 0, 0, format!("cannot be read in {}: {e}", dir.display())))?;
            files.insert(name.to_owned(), text);
        }
        for (folder, ending) in FOLDERS {
            let Ok(entries) = std::fs::read_dir(dir.join(folder)) else { continue };
            for entry in entries.flatten() {
                let path = entry.path();
                let Some(stem) = path.file_stem().and_then(|s| s.to_str()) else { continue };
                if path.extension().is_none_or(|e| e != ending) {
                    continue;
                }
                let name = format!("{folder}/{stem}.{ending}");
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                if !stem.chars().all(plain) {
                    return Err(LoadError::new(&name, 0, 0, "a file's name is letters, digits, _ and -"));
                }
                let text = std::fs::read_to_string(&path)
                    .map_err(|e| LoadError::new(&name, 0, 0, format!("cannot be read: {e}")))?;
                files.insert(name, text);
            }
        }
        if let Some((name, text)) = files.iter().find(|(_, text)| text.len() > FILE_BYTES) {
            let message = format!("has {} bytes; at most {FILE_BYTES} are read", text.len());
            return Err(LoadError::new(name, 0, 0, message));
        }
        let total: usize = files.values().map(String::len).sum();
        if total > BUNDLE_BYTES {
            let message = format!("all files together have {total} bytes; at most {BUNDLE_BYTES} are read");
            return Err(LoadError::new("policies", 0, 0, message));
        }
        Ok(Self { files })
    }

    /// `pol_` and 16 hex digits of the SHA-256 over names and contents.
    pub fn id(&self) -> String {
        let mut all = Vec::new();
        for part in self.files.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]) {
            all.extend_from_slice(&(part.len() as u64).to_be_bytes());
            all.extend_from_slice(part);
        }
        format!("pol_{}", &HEXLOWER.encode(&sha256(&all))[..16])
    }

    /// The files of one folder, by stem.
    pub fn of(&self, folder: &str) -> impl Iterator<Item = (&str, &str, &str)> {
        let prefix = format!("{folder}/");
        self.files.iter().filter_map(move |(name, text)| {
            let stem = name.strip_prefix(&prefix)?.rsplit_once('.')?.0;
            Some((stem, name.as_str(), text.as_str()))
        })
    }
}
