//! `[[providers]]`: what fits together, and what must never be.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::file::is_loopback;
use super::locate::Place;
use super::{ConfigError, duration, presets};
use crate::ids::TenantId;
use crate::signin::provider::{
    EmailTrust, EnrichFailure, IssuerRule, Linking, NoncePolicy, Provider, Provisioning, ReplayPolicy,
    SignatureAlgorithm, Tenant,
};

pub(super) const KEYS: &[&str] = &[
    "tenant",
    "name",
    "enabled",
    "preset",
    "issuer",
    "allowed_tenant_ids",
    "client_ids",
    "authorized_parties",
    "algorithms",
    "nonce",
    "replay",
    "max_token_age",
    "clock_leeway",
    "email_trust",
    "linking",
    "provisioning",
    "trust_amr",
    "mapping",
    "allowed_groups",
    "enrich_failure",
    "jwks_uri",
];

const MOST_LEEWAY: Duration = Duration::from_secs(300);

#[derive(Debug, Deserialize)]
pub(super) struct ProviderTable {
    #[serde(default = "default_tenant")]
    tenant: String,
    name: String,
    enabled: Option<bool>,
    preset: Option<String>,
    issuer: Option<String>,
    #[serde(default)]
    allowed_tenant_ids: Vec<String>,
    #[serde(default)]
    client_ids: Vec<String>,
    #[serde(default)]
    authorized_parties: Vec<String>,
    algorithms: Option<Vec<String>>,
    nonce: Option<String>,
    replay: Option<String>,
    max_token_age: Option<String>,
    clock_leeway: Option<String>,
    email_trust: Option<Trust>,
    linking: Option<String>,
    provisioning: Option<String>,
    #[serde(default)]
    trust_amr: Vec<String>,
    mapping: Option<String>,
    #[serde(default)]
    allowed_groups: Vec<String>,
    enrich_failure: Option<String>,
    jwks_uri: Option<String>,
}

fn default_tenant() -> String {
    TenantId::DEFAULT.to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Trust {
    Word(String),
    Domains(Vec<String>),
}

/// One table on its way to a provider.
struct Checker<'a> {
    table: &'a ProviderTable,
    index: usize,
    places: &'a Place,
}

impl Checker<'_> {
    fn bad(&self, key: &str, message: impl Into<String>) -> ConfigError {
        self.places.error("providers", self.index, key, message)
    }

    /// One of a few words.
    fn word<T: Copy>(&self, key: &str, given: Option<&str>, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let Some(given) = given else { return Ok(words[0].1) };
        words.iter().find(|(word, _)| *word == given).map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.bad(key, format!("{key} is one of {}, not \"{given}\"", known.join(", ")))
        })
    }

    fn duration(
        &self,
        key: &str,
        given: Option<&str>,
        default: &str,
        most: Duration,
    ) -> Result<Duration, ConfigError> {
        let text = given.unwrap_or(default);
        duration::parse(text).filter(|d| *d <= most).ok_or_else(|| {
            self.bad(
                key,
                format!("{key} is a duration such as 10m or 60s, at most {}s; not \"{text}\"", most.as_secs()),
            )
        })
    }

    fn issuer(&self, preset: Option<&presets::Preset>, insecure: bool) -> Result<IssuerRule, ConfigError> {
        let issuers: Vec<String> = match (&self.table.issuer, preset) {
            (Some(given), _) => vec![given.clone()],
            (None, Some(preset)) => preset.issuers.iter().map(|i| (*i).to_owned()).collect(),
            (None, None) => Vec::new(),
        };
        let Some(first) = issuers.first() else {
            return Err(self.bad("issuer", "an issuer is needed: the exact \"iss\" of this provider's tokens"));
        };
        for issuer in &issuers {
            self.url("issuer", &issuer.replace("{tenantid}", "t"), insecure)?;
        }
        let allowed = self.table.allowed_tenant_ids.clone();
        match first.split_once("{tenantid}") {
            Some(_) if allowed.is_empty() => {
                Err(self.bad("allowed_tenant_ids", "an issuer with {tenantid} needs allowed_tenant_ids"))
            }
            Some((_, suffix)) if suffix.contains("{tenantid}") => {
                Err(self.bad("issuer", "{tenantid} may stand once in an issuer"))
            }
            Some((prefix, suffix)) => Ok(IssuerRule::PerTenant {
                prefix: prefix.to_owned(),
                suffix: suffix.to_owned(),
                allowed_tenant_ids: allowed,
            }),
            None if !allowed.is_empty() => {
                Err(self.bad("allowed_tenant_ids", "allowed_tenant_ids needs an issuer with {tenantid}"))
            }
            None => Ok(IssuerRule::Exact(issuers)),
        }
    }

    fn url(&self, key: &str, text: &str, insecure: bool) -> Result<(), ConfigError> {
        let form = format!("{key} is an https address without query, fragment, user or spaces");
        let url = url::Url::parse(text).map_err(|_| self.bad(key, form.clone()))?;
        let odd = url.query().is_some()
            || url.fragment().is_some()
            || !url.username().is_empty()
            || url.password().is_some()
            || text.chars().any(char::is_whitespace);
        if odd || url.host().is_none() {
            return Err(self.bad(key, form));
        }
        match url.scheme() {
            "https" => Ok(()),
            "http" if insecure && is_loopback(&url) => Ok(()),
            "http" => Err(self.bad(
                key,
                format!("{key} is http://; that needs allow_insecure_issuers = true, and then a loopback address"),
            )),
            _ => Err(self.bad(key, form)),
        }
    }

    fn algorithms(&self, preset: Option<&presets::Preset>) -> Result<Vec<SignatureAlgorithm>, ConfigError> {
        let given: Vec<&str> = match (&self.table.algorithms, preset) {
            (Some(list), _) => list.iter().map(String::as_str).collect(),
            (None, Some(preset)) => preset.algorithms.to_vec(),
            (None, None) => vec!["RS256"],
        };
        if given.is_empty() {
            return Err(self.bad("algorithms", "at least one algorithm is needed"));
        }
        given
            .into_iter()
            .map(|name| {
                SignatureAlgorithm::find(name).ok_or_else(|| {
                    let known: Vec<&str> = SignatureAlgorithm::ALL.iter().map(|a| a.name()).collect();
                    let known = known.join(", ");
                    let message = if name.starts_with("HS") || name == "none" {
                        format!(
                            "\"{name}\" proves nothing to others; only asymmetric algorithms are accepted: {known}"
                        )
                    } else {
                        format!("unknown algorithm \"{name}\"; known are {known}")
                    };
                    self.bad("algorithms", message)
                })
            })
            .collect()
    }

    fn email_trust(&self) -> Result<EmailTrust, ConfigError> {
        match &self.table.email_trust {
            None => Ok(EmailTrust::Claim),
            Some(Trust::Word(word)) if word == "never" => Ok(EmailTrust::Never),
            Some(Trust::Word(word)) if word == "claim" => Ok(EmailTrust::Claim),
            Some(Trust::Word(word)) => {
                let message = format!("email_trust is never, claim or a list of domains, not \"{word}\"");
                Err(self.bad("email_trust", message))
            }
            Some(Trust::Domains(list)) => {
                Ok(EmailTrust::Domains(list.iter().map(|d| d.to_ascii_lowercase()).collect()))
            }
        }
    }

    /// Values that other builds know and this one does not must not be taken for something weaker.
    fn unsupported(&self, key: &str, given: Option<&str>, value: &str) -> Result<(), ConfigError> {
        if given == Some(value) {
            return Err(self.bad(key, format!("{key} = \"{value}\" is not supported by this build yet")));
        }
        Ok(())
    }

    fn check(&self, tenants: &[Arc<Tenant>], insecure: bool) -> Result<Provider, ConfigError> {
        let table = self.table;
        let tenant = tenants.iter().find(|t| t.id.as_str() == table.tenant);
        let tenant =
            tenant.ok_or_else(|| self.bad("tenant", format!("there is no tenant \"{}\"", table.tenant)))?;
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if table.name.is_empty() || table.name.len() > 64 || !table.name.chars().all(named) {
            return Err(self.bad("name", "a provider's name is 1 to 64 characters of a-z, 0-9, - and _"));
        }
        let preset = match &table.preset {
            None => None,
            Some(name) => Some(presets::find(name).ok_or_else(|| {
                self.bad("preset", format!("unknown preset \"{name}\"; known are {}", presets::names().join(", ")))
            })?),
        };
        if table.client_ids.is_empty() || table.client_ids.iter().any(String::is_empty) {
            let message =
                "client_ids is empty, so tokens of any application would do; the provider cannot be enabled";
            return Err(self.bad("client_ids", message));
        }
        self.unsupported("linking", table.linking.as_deref(), "confirm")?;
        self.unsupported("provisioning", table.provisioning.as_deref(), "invite")?;
        if let Some(uri) = &table.jwks_uri {
            self.url("jwks_uri", uri, insecure)?;
        }
        let mut mapping: Vec<String> = Vec::new();
        let own = table.mapping.clone().unwrap_or_else(|| table.name.clone());
        for name in [Some(own), preset.map(|p| p.name.to_owned()), Some("default".to_owned())].into_iter().flatten()
        {
            if !mapping.contains(&name) {
                mapping.push(name);
            }
        }
        let nonce = [
            ("optional", NoncePolicy::Optional),
            ("required", NoncePolicy::Required),
            ("server_issued", NoncePolicy::ServerIssued),
            ("forbidden", NoncePolicy::Forbidden),
        ];
        let day = Duration::from_secs(86_400);
        Ok(Provider {
            tenant: tenant.id.clone(),
            name: table.name.as_str().into(),
            issuer: self.issuer(preset, insecure)?,
            client_ids: table.client_ids.clone(),
            authorized_parties: table.authorized_parties.clone(),
            algorithms: self.algorithms(preset)?,
            nonce: self.word("nonce", table.nonce.as_deref(), &nonce)?,
            replay: self.word(
                "replay",
                table.replay.as_deref(),
                &[("single_use", ReplayPolicy::SingleUse), ("allow", ReplayPolicy::Allow)],
            )?,
            max_token_age: self.duration("max_token_age", table.max_token_age.as_deref(), "10m", day)?,
            clock_leeway: self.duration("clock_leeway", table.clock_leeway.as_deref(), "60s", MOST_LEEWAY)?,
            email_trust: self.email_trust()?,
            linking: self.word(
                "linking",
                table.linking.as_deref(),
                &[("never", Linking::Never), ("verified_email", Linking::VerifiedEmail)],
            )?,
            provisioning: self.word(
                "provisioning",
                table.provisioning.as_deref(),
                &[("create", Provisioning::Create), ("refuse", Provisioning::Refuse)],
            )?,
            trust_amr: table.trust_amr.clone(),
            mapping,
            allowed_groups: table.allowed_groups.clone(),
            enrich_failure: self.word(
                "enrich_failure",
                table.enrich_failure.as_deref(),
                &[("deny", EnrichFailure::Deny), ("continue", EnrichFailure::Continue)],
            )?,
            jwks_uri: table.jwks_uri.clone(),
        })
    }
}

/// The enabled providers. Disabled ones are checked as well: a mistake shows before it matters.
pub(super) fn check_all(
    tables: Vec<ProviderTable>,
    tenants: &[Arc<Tenant>],
    insecure: bool,
    places: &Place,
) -> Result<Vec<Arc<Provider>>, ConfigError> {
    let mut providers: Vec<(Arc<Provider>, bool)> = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let checker = Checker { table, index, places };
        let disabled = table.enabled == Some(false);
        if disabled && table.client_ids.is_empty() {
            continue;
        }
        let provider = checker.check(tenants, insecure)?;
        if providers.iter().any(|(p, _)| p.tenant == provider.tenant && p.name == provider.name) {
            let message = format!("tenant \"{}\" has a provider \"{}\" already", provider.tenant, provider.name);
            return Err(checker.bad("name", message));
        }
        providers.push((Arc::new(provider), disabled));
    }
    Ok(providers.into_iter().filter(|(_, disabled)| !disabled).map(|(provider, _)| provider).collect())
}
