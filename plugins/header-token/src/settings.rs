//! `config` of the lock entry: which proxy, and which one of it.

use countersign_plugin_sdk::PluginError;
use serde::Deserialize;

/// One proxy. `keys_url` takes the place of the public address of keys, for partitions and mirrors.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Settings {
    CloudflareAccess { team: Option<String>, keys_url: Option<String> },
    GoogleIap { keys_url: Option<String> },
    AwsAlb { region: Option<String>, signer: String, keys_url: Option<String> },
    AwsVerifiedAccess { region: Option<String>, signer: String, keys_url: Option<String> },
}

/// What differs between the two services of AWS.
pub(crate) struct Aws<'a> {
    pub(crate) algorithm: &'static str,
    pub(crate) signer: &'a str,
    /// Whether the header names the client; else the signer is whom the token is for.
    pub(crate) client_in_header: bool,
    pub(crate) keys_url: String,
}

impl Settings {
    /// # Errors
    /// When something is missing or does not fit.
    pub(crate) fn check(&self) -> Result<(), PluginError> {
        let (place, name, keys_url) = match self {
            Self::CloudflareAccess { team, keys_url } => (Some(team), "team", keys_url),
            Self::GoogleIap { keys_url } => (None, "", keys_url),
            Self::AwsAlb { region, keys_url, .. } | Self::AwsVerifiedAccess { region, keys_url, .. } => {
                (Some(region), "region", keys_url)
            }
        };
        if let (Some(place), None) = (place, keys_url) {
            let place = place.as_deref().unwrap_or_default();
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if place.is_empty() || place.len() > 63 || !place.bytes().all(fits) {
                return Err(PluginError::new(format!("config: {name} must be one label of a host name")));
            }
        }
        if let Self::AwsAlb { signer, .. } | Self::AwsVerifiedAccess { signer, .. } = self
            && !signer.starts_with("arn:")
        {
            return Err(PluginError::new("config: signer must be the ARN of the load balancer or instance"));
        }
        Ok(())
    }

    /// Where the JWK Set is; `None` for AWS.
    pub(crate) fn key_set_url(&self) -> Option<String> {
        match self {
            Self::CloudflareAccess { keys_url: Some(url), .. } | Self::GoogleIap { keys_url: Some(url) } => {
                Some(url.clone())
            }
            Self::CloudflareAccess { team, keys_url: None } => {
                let team = team.as_deref().unwrap_or_default();
                Some(format!("https://{team}.cloudflareaccess.com/cdn-cgi/access/certs"))
            }
            Self::GoogleIap { keys_url: None } => {
                Some("https://www.gstatic.com/iap/verify/public_key-jwk".to_owned())
            }
            Self::AwsAlb { .. } | Self::AwsVerifiedAccess { .. } => None,
        }
    }

    /// The service of AWS; `None` for the others.
    pub(crate) fn aws(&self) -> Option<Aws<'_>> {
        let (region, signer, keys_url, client_in_header) = match self {
            Self::AwsAlb { region, signer, keys_url } => (region, signer, keys_url, true),
            Self::AwsVerifiedAccess { region, signer, keys_url } => (region, signer, keys_url, false),
            Self::CloudflareAccess { .. } | Self::GoogleIap { .. } => return None,
        };
        let region = region.as_deref().unwrap_or_default();
        let (algorithm, public) = match client_in_header {
            true => ("ES256", format!("https://public-keys.auth.elb.{region}.amazonaws.com")),
            false => ("ES384", format!("https://public-keys.prod.verified-access.{region}.amazonaws.com")),
        };
        let keys_url = keys_url.as_deref().map_or(public, |url| url.trim_end_matches('/').to_owned());
        Some(Aws { algorithm, signer, client_in_header, keys_url })
    }
}
