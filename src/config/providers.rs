//! `[[providers]]`: a table with its preset becomes a [`Provider`].

use std::sync::Arc;

use super::layers::{Table, Written};
use super::presets::{self, Preset};
use super::problem::Findings;
use super::values::{self, Bounds, Upstream};
use crate::ids::TenantId;
use crate::signin::provider::{
    Attribute, EmailTrust, EnrichFailure, IssuerRule, Linking, NoncePolicy, Notices, Provider, Provisioning,
    RemapRules, ReplayPolicy, SignatureAlgorithm, Tenant,
};

/// One provider as it was read.
pub(super) struct Read {
    pub(super) provider: Provider,
    pub(super) enabled: bool,
    /// Where its name stands.
    pub(super) at: String,
}

/// One table of `[[providers]]`; `None` when something was found.
pub(super) fn read(
    table: &Table<'_>,
    tenants: &[Arc<Tenant>],
    upstream: Upstream,
    findings: &mut Findings,
) -> Option<Read> {
    let reader = Reader { table, preset: preset(table, findings)? };
    let enabled = table.flag("enabled");
    let tenant = reader.tenant(tenants, findings);
    let name = reader.name(findings);
    let issuer = reader.issuer(upstream, findings);
    let client_ids = reader.client_ids(enabled, findings);
    let algorithms = reader.algorithms(findings);
    let nonce = reader.choice("nonce", NONCE, &[], findings);
    let replay = reader.choice("replay", REPLAY, &[], findings);
    let max_token_age = reader.duration("max_token_age", &Bounds { least: "1s", most: "24h" }, findings);
    let clock_leeway = reader.duration("clock_leeway", &Bounds { least: "0s", most: "300s" }, findings);
    let email_trust = reader.email_trust(findings);
    let linking = reader.choice("linking", LINKING, &[], findings);
    let provisioning = reader.choice("provisioning", PROVISIONING, &[], findings);
    let mapping = reader.mapping(findings);
    let remap = reader.remap(findings);
    let provisioning_domains = reader.provisioning_domains(email_trust.as_ref(), findings);
    let Grants { allowed_groups, allowed_roles, default_roles } = reader.grants(findings)?;
    let enrich_failure = reader.choice("enrich_failure", ENRICH_FAILURE, &[], findings);
    let notices = reader.choice("notices", NOTICES, &[], findings);
    let jwks_uri = reader.text("jwks_uri").map(|w| findings.take(&w.at, upstream.jwks_uri(&w.value)));
    let (name, at) = name?;
    let provider = Provider {
        tenant: tenant?,
        mapping: mapping?.map_or_else(|| reader.mappings(&[&name]), |own| reader.mappings(&[&own])),
        name: name.into(),
        generation: 0,
        issuer: issuer?,
        client_ids: client_ids?,
        authorized_parties: reader.words("authorized_parties", findings)?,
        algorithms: algorithms?,
        nonce: nonce?,
        replay: replay?,
        max_token_age: max_token_age?,
        clock_leeway: clock_leeway?,
        email_trust: email_trust?,
        linking: linking?,
        provisioning: provisioning?,
        provisioning_domains: provisioning_domains?,
        trust_amr: reader.words("trust_amr", findings)?,
        remap: remap?,
        allowed_groups,
        allowed_roles,
        default_roles,
        enrich_failure: enrich_failure?,
        jwks_uri: match jwks_uri {
            Some(given) => Some(given?),
            None => None,
        },
        notices: notices?,
        test_mode: table.flag("test_mode"),
    };
    Some(Read { provider, enabled, at })
}

/// What one provider may grant.
struct Grants {
    allowed_groups: Vec<String>,
    allowed_roles: Vec<String>,
    default_roles: Vec<String>,
}

/// The most bytes of all groups and roles that one provider may grant.
const MAX_GRANT_BYTES: usize = 4096;

const NONCE: &[(&str, NoncePolicy)] = &[
    ("optional", NoncePolicy::Optional),
    ("required", NoncePolicy::Required),
    ("server_issued", NoncePolicy::ServerIssued),
    ("forbidden", NoncePolicy::Forbidden),
];
const REPLAY: &[(&str, ReplayPolicy)] = &[("single_use", ReplayPolicy::SingleUse), ("allow", ReplayPolicy::Allow)];
const LINKING: &[(&str, Linking)] =
    &[("never", Linking::Never), ("verified_email", Linking::VerifiedEmail), ("confirm", Linking::Confirm)];
const PROVISIONING: &[(&str, Provisioning)] =
    &[("create", Provisioning::Create), ("invite", Provisioning::Invite), ("refuse", Provisioning::Refuse)];
const ENRICH_FAILURE: &[(&str, EnrichFailure)] =
    &[("deny", EnrichFailure::Deny), ("continue", EnrichFailure::Continue)];
const NOTICES: &[(&str, Notices)] = &[("none", Notices::None), ("apple", Notices::Apple)];

fn preset(table: &Table<'_>, findings: &mut Findings) -> Option<Option<&'static Preset>> {
    match table.text("preset") {
        Some(w) => findings.take(&w.at, presets::find(&w.value)).map(Some),
        None => Some(None),
    }
}

struct Reader<'a> {
    table: &'a Table<'a>,
    preset: Option<&'static Preset>,
}

impl Reader<'_> {
    fn tenant(&self, tenants: &[Arc<Tenant>], findings: &mut Findings) -> Option<TenantId> {
        let w = self.table.text("tenant")?;
        let found = tenants.iter().find(|t| t.id.as_str() == w.value).map(|t| t.id.clone());
        if found.is_none() {
            let known = tenants.iter().map(|t| t.id.as_str()).collect::<Vec<_>>().join(", ");
            findings.add(&w.at, format!("provider of an unknown tenant \"{}\"; known are: {known}", w.value));
        }
        found
    }

    fn name(&self, findings: &mut Findings) -> Option<(String, String)> {
        let Some(w) = self.table.text("name") else {
            findings.add(&self.table.at, "name is missing in [[providers]]; write one such as name = \"google\"");
            return None;
        };
        findings.take(&w.at, values::name("name", &w.value)).map(|name| (name, w.at))
    }

    fn issuer(&self, upstream: Upstream, findings: &mut Findings) -> Option<IssuerRule> {
        let written = self.table.list("issuer");
        let preset = self.preset.map_or(&[][..], |p| p.issuers);
        let issuers = if written.given { written.value } else { preset.iter().map(|i| (*i).to_owned()).collect() };
        if issuers.is_empty() {
            let message = match self.preset {
                Some(p) => format!(
                    "issuer is missing: with preset \"{}\" everybody has an own one; write {}",
                    p.name, p.issuer_form
                ),
                None => "issuer is missing in [[providers]]; write it exactly as in the provider's tokens, or name a preset".into(),
            };
            findings.add(&written.at, message);
            return None;
        }
        let allowed = self.table.list("allowed_tenant_ids");
        findings.take(&allowed.at, values::check_tenant_ids(&allowed.value, &issuers))?;
        findings.take(&written.at, upstream.issuers(&issuers, &allowed.value))
    }

    fn client_ids(&self, enabled: bool, findings: &mut Findings) -> Option<Vec<String>> {
        let ids = self.words("client_ids", findings)?;
        if enabled && ids.is_empty() {
            let at = self.table.list("client_ids").at;
            findings.add(&at, "client_ids is empty: the provider cannot be enabled; list your client ids at the provider, or set enabled = false");
            return None;
        }
        Some(ids)
    }

    fn algorithms(&self, findings: &mut Findings) -> Option<Vec<SignatureAlgorithm>> {
        let written = self.table.list("algorithms");
        let names = match self.preset {
            Some(p) if !written.given => p.algorithms.iter().map(|a| (*a).to_owned()).collect(),
            _ => written.value,
        };
        if names.is_empty() {
            findings
                .add(&written.at, "algorithms is empty: no token could be verified; write for example [\"RS256\"]");
        }
        let mut algorithms = Vec::with_capacity(names.len());
        for name in &names {
            let found = findings.take(&written.at, values::algorithm(name))?;
            if !algorithms.contains(&found) {
                algorithms.push(found);
            }
        }
        (!algorithms.is_empty()).then_some(algorithms)
    }

    /// A text that was given, or else is the preset's or the table of keys' own.
    fn text(&self, name: &str) -> Option<Written<String>> {
        let written = self.table.text(name);
        let preset = self.preset.and_then(|p| match name {
            "nonce" => Some(p.nonce),
            "replay" => Some(p.replay),
            "max_token_age" => Some(p.max_token_age),
            "email_trust" => Some(p.email_trust),
            "linking" => Some(p.linking),
            "jwks_uri" => p.jwks_uri,
            "notices" => Some(p.notices),
            _ => None,
        });
        match (preset, written) {
            (_, Some(written)) if written.given => Some(written),
            (Some(value), _) => Some(Written { value: value.to_owned(), at: self.table.at.clone(), given: false }),
            (None, written) => written,
        }
    }

    fn choice<T: Copy>(
        &self,
        name: &str,
        known: &[(&str, T)],
        refused: &[&str],
        findings: &mut Findings,
    ) -> Option<T> {
        let w = self.text(name)?;
        findings.take(&w.at, values::choice(name, &w.value, known, refused))
    }

    fn duration(&self, name: &str, bounds: &Bounds, findings: &mut Findings) -> Option<std::time::Duration> {
        let w = self.text(name)?;
        findings.take(&w.at, values::duration(name, &w.value, bounds))
    }

    fn email_trust(&self, findings: &mut Findings) -> Option<EmailTrust> {
        if !self.table.is_list("email_trust") {
            let w = self.text("email_trust")?;
            let known = [("never", false), ("claim", true)];
            let trusted = findings.take(&w.at, values::choice("email_trust", &w.value, &known, &[]))?;
            return Some(if trusted { EmailTrust::Claim } else { EmailTrust::Never });
        }
        let w = self.table.list("email_trust");
        if w.value.is_empty() {
            findings.add(&w.at, "email_trust is an empty list; write \"never\" when no address is to be believed");
            return None;
        }
        self.domains("email_trust", &w, findings).map(EmailTrust::Domains)
    }

    /// The mapping that was named, checked.
    fn mapping(&self, findings: &mut Findings) -> Option<Option<String>> {
        match self.table.text("mapping") {
            Some(w) => findings.take(&w.at, values::name("mapping", &w.value)).map(Some),
            None => Some(None),
        }
    }

    /// The scripts to try: the named one, else the provider's; then the preset's; then the default.
    fn mappings(&self, first: &[&str]) -> Vec<String> {
        let mut names: Vec<String> = Vec::with_capacity(3);
        for name in first.iter().copied().chain(self.preset.map(|p| p.name)).chain(["default"]) {
            if !names.iter().any(|n| n == name) {
                names.push(name.to_owned());
            }
        }
        names
    }

    fn remap(&self, findings: &mut Findings) -> Option<RemapRules> {
        let mut read = |name| {
            let w = self.table.list(name);
            let found: Option<Vec<Attribute>> = w
                .value
                .iter()
                .map(|word| findings.take(&w.at, values::choice(name, word, &Attribute::ALL, &[])))
                .collect();
            found.map(|found| (found, w.at))
        };
        let ((once, at), (never, _)) = (read("remap_once")?, read("remap_never")?);
        if let Some((word, _)) = Attribute::ALL.iter().find(|(_, a)| once.contains(a) && never.contains(a)) {
            findings.add(&at, format!("\"{word}\" stands in remap_once and in remap_never; take it out of one"));
            return None;
        }
        Some(RemapRules { once, never })
    }

    /// The domains of whom users are made. Each must be one that an address can be believed in, else it lets nobody in.
    fn provisioning_domains(&self, trust: Option<&EmailTrust>, findings: &mut Findings) -> Option<Vec<String>> {
        let w = self.table.list("provisioning_domains");
        if !w.value.is_empty() && self.text("provisioning").is_some_and(|p| p.value != "create") {
            let message = "provisioning_domains does nothing unless provisioning is \"create\"; take it out";
            findings.add(&w.at, message);
        }
        let domains = self.domains("provisioning_domains", &w, findings)?;
        let unfit = match trust {
            Some(EmailTrust::Never) if !domains.is_empty() => Some(
                "provisioning_domains lets nobody in with email_trust = \"never\": no address is believed, and only a \
                 verified one counts; take provisioning_domains out, or write email_trust = \"claim\" or its domains"
                    .to_owned(),
            ),
            Some(EmailTrust::Domains(trusted)) => domains.iter().find(|d| !trusted.contains(d)).map(|domain| {
                format!(
                    "provisioning_domains names \"{domain}\", where email_trust believes no address, so nobody of it \
                     gets in; add it to email_trust, or take it out of provisioning_domains"
                )
            }),
            _ => None,
        };
        if let Some(message) = unfit {
            findings.advise(&w.at, message);
        }
        Some(domains)
    }

    fn domains(&self, name: &str, w: &Written<Vec<String>>, findings: &mut Findings) -> Option<Vec<String>> {
        let mut domains = Vec::with_capacity(w.value.len());
        for domain in &w.value {
            let fine = domain.contains('.') && values::host(domain).is_ok();
            let wrong = || format!("{name}: \"{domain}\" is not a domain; write one such as \"example.com\"");
            domains.push(findings.take(&w.at, fine.then(|| domain.to_ascii_lowercase()).ok_or_else(wrong))?);
        }
        Some(domains)
    }

    /// What may be granted. It goes into every access token, which a proxy must carry in a header.
    fn grants(&self, findings: &mut Findings) -> Option<Grants> {
        let allowed_groups = self.words("allowed_groups", findings)?;
        let allowed_roles = self.words("allowed_roles", findings)?;
        let default_roles = self.words("default_roles", findings)?;
        let all = allowed_groups.iter().chain(&allowed_roles).chain(&default_roles);
        let bytes: usize = all.map(String::len).sum();
        if bytes > MAX_GRANT_BYTES {
            let at = self.table.list("allowed_groups").at;
            findings.add(
                &at,
                format!(
                    "allowed_groups, allowed_roles and default_roles have {bytes} bytes; access tokens carry at most {MAX_GRANT_BYTES}"
                ),
            );
            return None;
        }
        Some(Grants { allowed_groups, allowed_roles, default_roles })
    }

    /// A list whose texts are neither empty nor padded.
    fn words(&self, name: &str, findings: &mut Findings) -> Option<Vec<String>> {
        let w = self.table.list(name);
        if let Some(odd) = w.value.iter().find(|v| v.is_empty() || v.trim() != v.as_str()) {
            findings.add(&w.at, format!("{name} holds \"{odd}\", which is empty or has white space around it"));
            return None;
        }
        Some(w.value)
    }
}
