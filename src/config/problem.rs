//! What is wrong with a configuration: where, what was found, what would be right.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `countersign.toml:41`, the name of an environment variable, or the file alone.
    pub place: String,
    /// What was found there, and the mend.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Why there are no settings. The text is meant for whoever starts the server, and holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read ({source}); name another with --config FILE", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// All that is wrong in file and environment; never empty.
    #[error("{}", lines(.0))]
    Invalid(Vec<Finding>),
    /// `--dev` would listen where it must not.
    #[error("--dev refuses to listen on {listen}: {reason}")]
    DevListen {
        /// The address asked for.
        listen: std::net::SocketAddr,
        /// Why not, and the mend.
        reason: &'static str,
    },
    /// `--dev` cannot keep its data here.
    #[error("{}: --dev cannot keep its data here: a database path must be UTF-8 without ?, # and %", root.display())]
    DevRoot {
        /// The directory.
        root: PathBuf,
    },
    /// The master key is not fit for use.
    #[error("{}: {problem}", file.display())]
    MasterKey {
        /// The key file.
        file: PathBuf,
        /// What is wrong, and the mend.
        problem: String,
    },
}

impl ConfigError {
    pub(super) fn master_key(file: &Path, problem: impl Into<String>) -> Self {
        Self::MasterKey { file: file.to_owned(), problem: problem.into() }
    }
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n")
}

/// Collects everything that is wrong, so that one start shows all of it.
#[derive(Debug, Default)]
pub(super) struct Findings {
    found: Vec<Finding>,
    of_kept: bool,
}

impl Findings {
    /// For settings that an earlier build may have taken: see [`Self::advise`].
    pub(super) fn of_kept() -> Self {
        Self { of_kept: true, ..Self::default() }
    }

    pub(super) fn add(&mut self, place: &str, message: impl Into<String>) {
        self.found.push(Finding { place: place.to_owned(), message: message.into() });
    }

    /// What does no harm and cannot be meant: it is refused when it is written, and stands when it was kept before
    /// it was refused. A provider that an upgrade puts out of force shuts out everybody who came through it.
    pub(super) fn advise(&mut self, place: &str, message: impl Into<String>) {
        if !self.of_kept {
            self.add(place, message);
        }
    }

    /// The value when it is fine; else the finding is noted.
    pub(super) fn take<T>(&mut self, place: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.add(place, message)).ok()
    }

    /// An error when anything was found.
    pub(super) fn check(&mut self) -> Result<(), ConfigError> {
        if self.found.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(std::mem::take(&mut self.found))) }
    }
}
