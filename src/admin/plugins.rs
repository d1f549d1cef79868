//! Plugins, as administrators see them.

/// A loaded plugin now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginState {
    /// Its identifier.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Who made it, as it says itself.
    pub vendor: String,
    /// SHA-256 of its file, in lower-case hex.
    pub sha256: String,
    /// What it is asked for.
    pub hooks: Vec<String>,
    /// What it delivers, when it has the hooks `mfa.*`: a word of `required_mfa_methods`.
    pub mfa_method: Option<String>,
    /// `in_process` or `process`.
    pub isolation: String,
    /// Deaths of its own process since that last ran for a minute.
    pub process_deaths: u32,
    /// Calls that run now.
    pub in_flight: usize,
    /// Calls that should have returned.
    pub stuck: usize,
    /// Why it is not asked now.
    pub trouble: Option<String>,
}

/// The plugins of this node.
pub trait Plugins: Send + Sync {
    /// All of them, in the order of the lock file.
    fn list(&self) -> Vec<PluginState>;
}
