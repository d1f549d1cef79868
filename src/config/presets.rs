//! What is known of well-known providers. A preset only fills in what the provider's table leaves out;
//! `policies/PROVIDERS.md` tells what each provider's tokens look like.

/// What a preset fills in.
#[derive(Debug)]
pub(super) struct Preset {
    pub(super) name: &'static str,
    /// Its issuers; none: everybody has an own one, so it must be given.
    pub(super) issuers: &'static [&'static str],
    /// How everybody's own issuer is written.
    pub(super) issuer_form: &'static str,
    /// Where its keys are, when that is the same for everybody.
    pub(super) jwks_uri: Option<&'static str>,
    pub(super) algorithms: &'static [&'static str],
    pub(super) nonce: &'static str,
    pub(super) replay: &'static str,
    pub(super) max_token_age: &'static str,
    pub(super) email_trust: &'static str,
    pub(super) linking: &'static str,
    pub(super) notices: &'static str,
}

const fn public(name: &'static str, issuers: &'static [&'static str]) -> Preset {
    Preset {
        name,
        issuers,
        issuer_form: "",
        jwks_uri: None,
        algorithms: &["RS256"],
        nonce: "optional",
        replay: "single_use",
        max_token_age: "10m",
        email_trust: "claim",
        linking: "never",
        notices: "none",
    }
}

const fn own(name: &'static str, issuer_form: &'static str) -> Preset {
    Preset { issuer_form, ..public(name, &[]) }
}

/// All presets.
pub(super) static PRESETS: &[Preset] = &[
    public("google", &["https://accounts.google.com"]),
    // Apple's tokens carry either issuer.
    Preset { notices: "apple", ..public("apple", &["https://appleid.apple.com", "https://account.apple.com"]) },
    // An Entra directory's administrator can write any e-mail address into `email`: it proves nothing.
    Preset { email_trust: "never", ..public("microsoft", &["https://login.microsoftonline.com/{tenantid}/v2.0"]) },
    public("gitlab", &["https://gitlab.com"]),
    // Tokens of web channels are signed with the channel secret (HS256), and refused.
    Preset { algorithms: &["ES256"], email_trust: "never", ..public("line", &["https://access.line.me"]) },
    // Workloads, not people: no address to believe.
    Preset { email_trust: "never", ..public("github-actions", &["https://token.actions.githubusercontent.com"]) },
    own("okta", "https://YOUR-ORG.okta.com or https://YOUR-ORG.okta.com/oauth2/default"),
    // The slash at the end belongs to it.
    own("auth0", "https://YOUR-TENANT.auth0.com/"),
    own("keycloak", "https://HOST/realms/YOUR-REALM"),
    own("cognito", "https://cognito-idp.REGION.amazonaws.com/YOUR-POOL-ID"),
    Preset {
        jwks_uri: Some("https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com"),
        ..own("firebase", "https://securetoken.google.com/YOUR-PROJECT-ID")
    },
    // A pod reads one token from its volume until it is renewed, after four fifths of an hour by default; so it
    // comes again, and is old.
    Preset {
        email_trust: "never",
        replay: "allow",
        max_token_age: "1h",
        ..own("kubernetes", "https://kubernetes.default.svc.cluster.local, or what your cluster writes into `iss`")
    },
];

/// The preset of a name.
pub(super) fn find(name: &str) -> Result<&'static Preset, String> {
    PRESETS.iter().find(|p| p.name == name).ok_or_else(|| {
        let known = PRESETS.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
        format!("unknown preset \"{name}\"; known are {known}")
    })
}
