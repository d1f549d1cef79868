//! What a preset fills in. Keys that stand in the file win.

/// Defaults of one well-known provider.
pub(super) struct Preset {
    pub name: &'static str,
    /// Empty: every installation has its own, so the file must name it.
    pub issuers: &'static [&'static str],
    pub algorithms: &'static [&'static str],
}

/// Apple's issuer moved to another host; tokens of both are accepted.
pub(super) const PRESETS: &[Preset] = &[
    Preset { name: "google", issuers: &["https://accounts.google.com"], algorithms: &["RS256"] },
    Preset {
        name: "apple",
        issuers: &["https://appleid.apple.com", "https://account.apple.com"],
        algorithms: &["RS256"],
    },
    Preset {
        name: "microsoft",
        issuers: &["https://login.microsoftonline.com/{tenantid}/v2.0"],
        algorithms: &["RS256"],
    },
    Preset { name: "gitlab", issuers: &["https://gitlab.com"], algorithms: &["RS256"] },
    Preset { name: "okta", issuers: &[], algorithms: &["RS256"] },
    Preset { name: "auth0", issuers: &[], algorithms: &["RS256"] },
    Preset { name: "keycloak", issuers: &[], algorithms: &["RS256"] },
];

pub(super) fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|p| p.name == name)
}

pub(super) fn names() -> Vec<&'static str> {
    PRESETS.iter().map(|p| p.name).collect()
}
