//! What is known of well-known providers. A preset only fills in what the provider's table leaves out.

/// What a preset fills in.
#[derive(Debug)]
pub(super) struct Preset {
    pub(super) name: &'static str,
    /// Its issuers; none: everybody has an own one, so it must be given.
    pub(super) issuers: &'static [&'static str],
    pub(super) algorithms: &'static [&'static str],
    pub(super) nonce: &'static str,
    pub(super) replay: &'static str,
    pub(super) email_trust: &'static str,
}

const fn preset(name: &'static str, issuers: &'static [&'static str]) -> Preset {
    let algorithms = &["RS256"];
    Preset { name, issuers, algorithms, nonce: "optional", replay: "single_use", email_trust: "claim" }
}

/// All presets.
pub(super) static PRESETS: &[Preset] = &[
    preset("google", &["https://accounts.google.com"]),
    // Apple's tokens carry either issuer.
    preset("apple", &["https://appleid.apple.com", "https://account.apple.com"]),
    // An Entra directory's administrator can write any e-mail address into `email`: it proves nothing.
    Preset { email_trust: "never", ..preset("microsoft", &["https://login.microsoftonline.com/{tenantid}/v2.0"]) },
    preset("gitlab", &["https://gitlab.com"]),
    // Workloads, not people: no address to believe.
    Preset { email_trust: "never", ..preset("github-actions", &["https://token.actions.githubusercontent.com"]) },
    preset("okta", &[]),
    preset("auth0", &[]),
    preset("keycloak", &[]),
];

/// The preset of a name.
pub(super) fn find(name: &str) -> Result<&'static Preset, String> {
    PRESETS.iter().find(|p| p.name == name).ok_or_else(|| {
        let known = PRESETS.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
        format!("unknown preset \"{name}\"; known are {known}")
    })
}
