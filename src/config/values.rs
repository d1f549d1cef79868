//! Texts turned into values, or into a sentence that says what is wrong and what would be right.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use url::{Host, Url};

use super::keys::nearest;
use crate::signin::provider::{IssuerRule, SignatureAlgorithm};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The least and the greatest duration that a key takes, as they are written.
pub(super) struct Bounds {
    pub(super) least: &'static str,
    pub(super) most: &'static str,
}

/// A whole number and one of `s`, `m`, `h`, `d`, within bounds.
pub(super) fn duration(name: &str, text: &str, bounds: &Bounds) -> Result<Duration, String> {
    let Some(found) = plain_duration(text) else {
        return Err(format!(
            "{name} = \"{text}\" is not a duration; write a whole number and s, m, h or d: \"30m\""
        ));
    };
    let fits = plain_duration(bounds.least) <= Some(found) && Some(found) <= plain_duration(bounds.most);
    if fits {
        return Ok(found);
    }
    Err(format!("{name} = \"{text}\" is out of bounds; it must be from {} to {}", bounds.least, bounds.most))
}

fn plain_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_s = match unit {
        "s" => 1,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        _ => return None,
    };
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(unit_s).map(Duration::from_secs)
}

/// One of a few words. `refused` holds words of the contract that this build does not do.
pub(super) fn choice<T: Copy>(name: &str, text: &str, known: &[(&str, T)], refused: &[&str]) -> Result<T, String> {
    if let Some((_, value)) = known.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let words = known.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
    if refused.contains(&text) {
        return Err(format!("{name} = \"{text}\" is not supported by this build yet; use {words}"));
    }
    let near = nearest(text, known.iter().map(|(word, _)| *word)).unwrap_or_default();
    Err(format!("{name} = \"{text}\" is not known; use {words}; nearest is \"{near}\""))
}

/// An address and port to listen on.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("listen = \"{text}\" is not an address with a port; write one such as \"127.0.0.1:8080\"")
    })
}

/// Whether a URL points to this machine by its very text; names are not looked up.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

fn plain_url(name: &str, text: &str) -> Result<Url, String> {
    if text.trim() != text || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("{name} = \"{}\" has white space in it; take it out", text.escape_debug()));
    }
    let url = Url::parse(text).map_err(|e| format!("{name} = \"{text}\" is not a URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("{name} = \"{text}\" is not a web address; write https://…"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{name} holds a user name or password; take it out"));
    }
    Ok(url)
}

/// `iss` of local tokens. `https`, or `http` on loopback; nothing behind the path.
pub(super) fn public_url(text: &str) -> Result<String, String> {
    let url = plain_url("public_url", text)?;
    if url.query().is_some() || url.fragment().is_some() || text.ends_with('/') {
        return Err(format!(
            "public_url = \"{text}\" must end without /, query or fragment: it is the `iss` of tokens"
        ));
    }
    if url.scheme() != "https" && !is_loopback(&url) {
        return Err(format!("public_url = \"{text}\" must be https; http is for loopback addresses only"));
    }
    Ok(text.to_owned())
}

/// Empty, or `/a/b`.
pub(super) fn base_path(text: &str) -> Result<String, String> {
    let segment = |s: &str| {
        !s.is_empty()
            && s != "."
            && s != ".."
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~'))
    };
    let fine = text.is_empty() || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment));
    if fine {
        Ok(text.to_owned())
    } else {
        Err(format!("base_path = \"{text}\" must be \"\" or begin with / and end without it: \"/identity/api/v1\""))
    }
}

/// A network whose forwarding headers are believed.
pub(super) fn trusted_proxy(text: &str) -> Result<IpNet, String> {
    network("trusted_proxies", text, "would believe everybody; name the proxies' networks")
}

/// A network that outbound fetches may reach although it is not public.
pub(super) fn granted_network(text: &str) -> Result<IpNet, String> {
    network("granted", text, "would reach everything inside; name the networks of your providers")
}

/// A network that is not limited.
pub(super) fn exempt_network(text: &str) -> Result<IpNet, String> {
    network("exempt", text, "would limit nobody; write sign_ins_per_minute = 0")
}

fn network(key: &str, text: &str, all: &str) -> Result<IpNet, String> {
    let network: IpNet = text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(ip) => format!("{key}: \"{text}\" is an address, not a network; write \"{}\"", IpNet::from(ip)),
        Err(_) => format!("{key}: \"{text}\" is not a network; write one such as \"10.0.0.0/8\""),
    })?;
    if network.prefix_len() == 0 {
        return Err(format!("{key}: \"{text}\" {all}"));
    }
    if network.trunc() != network {
        return Err(format!("{key}: \"{text}\" names a host inside a network; write \"{}\"", network.trunc()));
    }
    Ok(network)
}

/// A browser origin, as browsers send it (RFC 6454 section 6.2).
pub(super) fn cors_origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Err("cors_origins: \"*\" would let every web page in; name each origin".into());
    }
    let url = plain_url("cors_origins", text)?;
    let origin = url.origin().ascii_serialization();
    if origin == text {
        Ok(origin)
    } else {
        Err(format!("cors_origins: \"{text}\" is not what browsers send; write \"{origin}\""))
    }
}

/// The store's address. It may hold a password, so it is never shown.
pub(super) fn store_url(text: &str) -> Result<String, String> {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Err(
            "url in [store] names PostgreSQL, which is not supported by this build yet; use \"sqlite://FILE\""
                .into(),
        );
    }
    match text.strip_prefix("sqlite://") {
        Some("" | ":memory:") => Err("url in [store] names no file; write \"sqlite://data/countersign.db\"".into()),
        Some(path) if path.contains(['?', '#', '%']) => {
            Err("url in [store] has ?, # or % in it; write the plain path of a file after sqlite://".into())
        }
        Some(_) => Ok(text.to_owned()),
        None => Err("url in [store] is of an unknown kind; write \"sqlite://data/countersign.db\"".into()),
    }
}

/// A host name or address without scheme, port or path; in lower case.
pub(super) fn host(text: &str) -> Result<String, String> {
    let fine = text.parse::<IpAddr>().is_ok()
        || (!text.is_empty()
            && text.split('.').all(|label| !label.is_empty())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')));
    if fine {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!(
            "hosts: \"{text}\" is not a host name; write it without scheme, port and path: \"id.example.com\""
        ))
    }
}

/// A name that may become part of a file name and a path: providers, mappings.
pub(super) fn name(key: &str, text: &str) -> Result<String, String> {
    let fine = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    if fine {
        Ok(text.to_owned())
    } else {
        Err(format!("{key} = \"{text}\" must be 1 to 64 characters of a-z, 0-9, _ and -"))
    }
}

/// A signature algorithm that providers may use.
pub(super) fn algorithm(text: &str) -> Result<SignatureAlgorithm, String> {
    if let Some(found) = SignatureAlgorithm::find(text) {
        return Ok(found);
    }
    let known = SignatureAlgorithm::ALL.map(SignatureAlgorithm::name).join(", ");
    match text {
        "HS256" | "HS384" | "HS512" => Err(format!(
            "algorithms: \"{text}\" is symmetric: whoever checks such a token could forge one; use one of {known}"
        )),
        "none" => Err(format!("algorithms: \"none\" means unsigned tokens; use one of {known}")),
        _ => Err(format!("algorithms: \"{text}\" is not known; use one of {known}")),
    }
}

/// Rules for addresses that this server asks: providers' issuers and key sets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upstream {
    /// `allow_insecure_issuers`.
    pub(super) allow_insecure: bool,
}

const TEMPLATE: &str = "{tenantid}";

impl Upstream {
    fn url(self, name: &str, shown: &str, text: &str) -> Result<Url, String> {
        let url = plain_url(name, text)?;
        match (url.scheme(), is_loopback(&url), self.allow_insecure) {
            ("https", ..) | (_, true, true) => Ok(url),
            (_, true, false) => Err(format!(
                "{name} = \"{shown}\" must be https; for a loopback provider in development set allow_insecure_issuers = true in [server]"
            )),
            (_, false, _) => Err(format!(
                "{name} = \"{shown}\" must be https; http is for loopback addresses only, and with allow_insecure_issuers"
            )),
        }
    }

    /// An address of a key set.
    pub(super) fn jwks_uri(self, text: &str) -> Result<String, String> {
        self.url("jwks_uri", text, text).map(|_| text.to_owned())
    }

    /// An issuer without a template (OpenID Connect Discovery 1.0 section 3: no query, no fragment).
    fn issuer(self, shown: &str, text: &str) -> Result<(), String> {
        let url = self.url("issuer", shown, text)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("issuer = \"{shown}\" has a query or a fragment; issuers have none"));
        }
        Ok(())
    }

    /// The issuers of a provider. They are compared byte by byte, so nothing is normalised here.
    pub(super) fn issuers(self, issuers: &[String], allowed_tenant_ids: &[String]) -> Result<IssuerRule, String> {
        if let [template] = issuers
            && let Some((prefix, suffix)) = template.split_once(TEMPLATE)
        {
            return self.template(template, prefix, suffix, allowed_tenant_ids);
        }
        if let Some(other) = issuers.iter().find(|i| i.contains(TEMPLATE)) {
            return Err(format!("issuer = \"{other}\" with {TEMPLATE} must stand alone"));
        }
        for issuer in issuers {
            self.issuer(issuer, issuer)?;
        }
        Ok(IssuerRule::Exact(issuers.to_vec()))
    }

    fn template(self, shown: &str, prefix: &str, suffix: &str, allowed: &[String]) -> Result<IssuerRule, String> {
        if suffix.contains(TEMPLATE) {
            return Err(format!("issuer = \"{shown}\" has {TEMPLATE} twice; once is enough"));
        }
        self.issuer(shown, &format!("{prefix}tenantid{suffix}"))?;
        if allowed.is_empty() {
            return Err(format!(
                "issuer = \"{shown}\" needs allowed_tenant_ids: without it every tenant of the provider could sign in"
            ));
        }
        Ok(IssuerRule::PerTenant {
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
            allowed_tenant_ids: allowed.to_vec(),
        })
    }
}

/// Checks the upstream tenants that fill a template; without a template they would do nothing.
pub(super) fn check_tenant_ids(ids: &[String], issuers: &[String]) -> Result<(), String> {
    if !ids.is_empty() && !issuers.iter().any(|i| i.contains(TEMPLATE)) {
        return Err(format!("allowed_tenant_ids does nothing without {TEMPLATE} in issuer; take it out"));
    }
    let plain = |id: &&String| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match ids.iter().find(|id| !plain(id)) {
        Some(odd) => Err(format!("allowed_tenant_ids: \"{odd}\" is no tenant id; write its letters, digits and -")),
        None => Ok(()),
    }
}
