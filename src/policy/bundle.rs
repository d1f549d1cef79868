//! A bundle: the files of one version of the policies. It never changes; its name is its content.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::HEXLOWER;

use crate::secret::sha256;

/// The greatest file.
pub const FILE_BYTES: usize = 64 * 1024;
/// All files together.
pub const BUNDLE_BYTES: usize = 512 * 1024;
/// The most files.
pub const FILES: usize = 1024;
/// The most helpers in `lib/`: each may import all others, in any order.
pub const HELPERS: usize = 64;

/// Folders, and the endings of the files that count in them. The first one makes the file's stem.
const FOLDERS: [(&str, &[&str]); 5] = [
    ("mapping", &[".rhai", ".test.toml"]),
    ("risk", &[".rhai", ".test.toml"]),
    ("lib", &[".rhai"]),
    ("lists", &[".txt"]),
    ("cases", &[".json"]),
];

/// Why files make no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {message}")]
pub struct BundleError {
    /// Which.
    pub file: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

fn wrong<T>(file: &str, message: impl Into<String>) -> Result<T, BundleError> {
    Err(BundleError { file: file.to_owned(), message: message.into() })
}

/// The files by their path below the folder, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    files: BTreeMap<String, Arc<str>>,
    sha256: [u8; 32],
}

/// The folders that a bundle has.
pub fn folders() -> impl Iterator<Item = &'static str> {
    FOLDERS.iter().map(|(folder, _)| *folder)
}

/// Whether a file of a folder counts.
#[must_use]
pub fn counts(folder: &str, file: &str) -> bool {
    FOLDERS.iter().any(|(name, endings)| *name == folder && endings.iter().any(|e| file.ends_with(e)))
}

impl Bundle {
    /// Checks names and sizes. Every bundle has `policy.toml` and `reasons.toml`.
    ///
    /// # Errors
    /// The first file that does not fit.
    pub fn new(files: BTreeMap<String, Arc<str>>) -> Result<Self, BundleError> {
        for (name, text) in &files {
            if !matches!(name.as_str(), "policy.toml" | "reasons.toml") {
                check_name(name)?;
            }
            if text.len() > FILE_BYTES {
                return wrong(name, format!("has {} bytes; at most {FILE_BYTES} are read", text.len()));
            }
        }
        if files.len() > FILES {
            return wrong("policies", format!("there are {} files; at most {FILES} are read", files.len()));
        }
        let helpers = files.keys().filter(|name| name.starts_with("lib/")).count();
        if helpers > HELPERS {
            return wrong("lib", format!("there are {helpers} helpers; at most {HELPERS} are read"));
        }
        for needed in ["policy.toml", "reasons.toml"] {
            if !files.contains_key(needed) {
                return wrong(needed, "is needed and absent");
            }
        }
        let total: usize = files.values().map(|text| text.len()).sum();
        if total > BUNDLE_BYTES {
            let message = format!("all files together have {total} bytes; at most {BUNDLE_BYTES} are read");
            return wrong("policies", message);
        }
        let mut all = Vec::with_capacity(total + files.len() * 64);
        for part in files.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]) {
            all.extend_from_slice(&(part.len() as u64).to_be_bytes());
            all.extend_from_slice(part);
        }
        Ok(Self { files, sha256: sha256(&all) })
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<String, Arc<str>> {
        &self.files
    }

    /// SHA-256 over names and contents, each with its length before it.
    #[must_use]
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// `pol_` and 16 hex digits of the SHA-256. Whoever keeps bundles refuses a second one of the same
    /// name, so that 64 bits are enough.
    #[must_use]
    pub fn id(&self) -> String {
        format!("pol_{}", &HEXLOWER.encode(&self.sha256)[..16])
    }

    /// The text of a file.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&Arc<str>> {
        self.files.get(name)
    }

    /// The scripts or lists of one folder: stem, name, text.
    pub fn of(&self, folder: &str) -> impl Iterator<Item = (&str, &str, &Arc<str>)> {
        let ending = FOLDERS.iter().find(|(name, _)| *name == folder).map_or("", |(_, endings)| endings[0]);
        let prefix = format!("{folder}/");
        self.files.iter().filter_map(move |(name, text)| {
            let stem = name.strip_prefix(&prefix)?.strip_suffix(ending)?;
            Some((stem, name.as_str(), text))
        })
    }
}

/// Only such a name can be written to a disk, below a folder, and nowhere else.
fn check_name(name: &str) -> Result<(), BundleError> {
    let Some((folder, file)) = name.split_once('/') else {
        return wrong(name, "is no file of a bundle");
    };
    let endings = FOLDERS.iter().find(|(known, _)| *known == folder).map(|(_, endings)| *endings);
    let Some(stem) = endings.and_then(|endings| endings.iter().find_map(|e| file.strip_suffix(e))) else {
        return wrong(name, "is no file of a bundle");
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if stem.is_empty() || stem.len() > 64 || !stem.chars().all(plain) {
        return wrong(name, "a file's name is letters, digits, _ and -");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(more: &[(&str, &str)]) -> Result<Bundle, BundleError> {
        let base = [("policy.toml", "contract = 1"), ("reasons.toml", "")];
        Bundle::new(base.iter().chain(more).map(|(name, text)| ((*name).to_owned(), (*text).into())).collect())
    }

    #[test]
    fn the_name_is_the_content() {
        let one = bundle(&[("risk/_default.rhai", "a")]).unwrap();
        assert_eq!(one.id(), bundle(&[("risk/_default.rhai", "a")]).unwrap().id());
        assert_ne!(one.id(), bundle(&[("risk/_default.rhai", "b")]).unwrap().id());
        assert_ne!(one.id(), bundle(&[("risk/_defaul.rhai", "ta")]).unwrap().id());
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in [
            "risk/../x.rhai",
            "../policy.toml",
            "/etc/passwd",
            "risk/.rhai",
            "risk/a/b.rhai",
            "risk/x.so",
            "x.rhai",
            "other/x.rhai",
            "risk/x .rhai",
            "risk/\0.rhai",
            "",
        ] {
            assert!(bundle(&[(name, "")]).is_err(), "{name}");
        }
    }

    #[test]
    fn too_much_is_refused() {
        let large = "x".repeat(FILE_BYTES + 1);
        assert!(bundle(&[("risk/x.rhai", &large)]).is_err());
        let much = "x".repeat(FILE_BYTES);
        let named = |folder: &str, ending: &str, count: usize, text: &str| {
            let names: Vec<String> = (0..count).map(|n| format!("{folder}/x{n}.{ending}")).collect();
            let many: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), text)).collect();
            bundle(&many).map(|_| ()).map_err(|error| error.to_string())
        };
        assert!(named("lib", "rhai", 9, &much).unwrap_err().contains("at most 524288"));
        assert!(named("lib", "rhai", HELPERS, "").is_ok());
        assert!(named("lib", "rhai", HELPERS + 1, "").unwrap_err().contains("helpers"));
        assert!(named("lists", "txt", FILES - 2, "").is_ok());
        assert!(named("lists", "txt", FILES - 1, "").unwrap_err().contains("files"));
    }

    #[test]
    fn test_files_are_no_scripts() {
        let one = bundle(&[("risk/acme.rhai", "a"), ("risk/acme.test.toml", "b")]).unwrap();
        assert_eq!(one.of("risk").map(|(stem, ..)| stem).collect::<Vec<_>>(), ["acme"]);
    }
}
