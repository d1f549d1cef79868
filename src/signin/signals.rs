//! Step 8: all that is known of this sign-in, frozen into [`Facts`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::agent;
use super::facts::{
    ChannelFacts, FactorFacts, Facts, HistoryFacts, LinkMethod, Location, ProviderFacts, RequestFacts,
    UpstreamFacts, UserFacts,
};
use super::history::ContextPrint;
use super::likelihood::{Likelihood, LikelihoodMode, likelihood};
use super::ports::{GeoLookup, SignalSource, TenantCounts};
use super::provider::identity_issuer;
use super::replay::FreshToken;
use super::request::ClientContext;
use super::rules::PolicySettings;
use super::user::ResolvedUser;
use crate::clock::UnixTime;
use crate::mfa::delivery::CodeChannels;

/// A resolved user with frozen facts. Only [`gather`] can build one.
#[derive(Debug)]
pub struct Signals {
    resolved: ResolvedUser,
    facts: Arc<Facts>,
    context: ContextPrint,
}

impl Signals {
    /// The facts.
    #[must_use]
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    pub(super) fn into_parts(self) -> (ResolvedUser, Arc<Facts>, ContextPrint) {
        (self.resolved, self.facts, self.context)
    }
}

/// What a request tells, with what its address tells.
#[must_use]
pub fn request_facts(client: &ClientContext, geo: &dyn GeoLookup, now: UnixTime) -> RequestFacts {
    let agent = client.user_agent.as_deref().map(agent::parse).unwrap_or_default();
    let location = match (&client.assumed_location, client.ip) {
        (Some(assumed), _) => assumed.clone(),
        (None, Some(ip)) => geo.locate(ip, now),
        (None, None) => Location::default(),
    };
    RequestFacts {
        ip: client.ip,
        location,
        user_agent: client.user_agent.clone(),
        browser: agent.browser,
        os: agent.os,
        device_kind: agent.kind,
        device_id: client.device_id.clone(),
        language: client.language.clone(),
        time: now,
    }
}

/// What the verified claims tell of the sign-in at the provider.
#[must_use]
pub fn upstream_facts(token: &FreshToken, enrich_missing: Vec<String>) -> UpstreamFacts {
    let claims = token.claims();
    let amr: Vec<String> = match claims.get("amr") {
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).take(16).map(str::to_owned).collect(),
        Some(Value::String(one)) => vec![one.clone()],
        _ => Vec::new(),
    };
    let now = token.verified_at();
    let age = |at: UnixTime| (now.as_secs() - at.as_secs()).max(0);
    UpstreamFacts {
        trusted_mfa: amr.iter().any(|m| token.provider().trust_amr.contains(m)),
        amr,
        acr: claims.get("acr").and_then(Value::as_str).map(str::to_owned),
        auth_time_age_s: token.auth_time().map(age),
        token_age_s: age(token.issued_at()),
        enrich_missing,
    }
}

/// What is asked while facts are gathered.
pub struct SignalWorld<'a> {
    /// Plugins that add signals.
    pub plugins: &'a dyn SignalSource,
    /// What is common in the tenant.
    pub counts: &'a dyn TenantCounts,
    /// Channels that send codes.
    pub channels: &'a dyn CodeChannels,
}

/// Freezes the facts, then asks signal plugins side by side. `context` is the print of the request.
pub async fn gather(
    resolved: ResolvedUser,
    claims: Arc<Map<String, Value>>,
    request: RequestFacts,
    upstream: UpstreamFacts,
    context: ContextPrint,
    settings: &PolicySettings,
    world: SignalWorld<'_>,
) -> Signals {
    let token = resolved.identity().token();
    let provider = token.provider();
    let now = token.verified_at();
    let known = resolved.known();
    let days = |at: UnixTime| i64::try_from(now.since(at).as_secs() / 86_400).unwrap_or(i64::MAX);
    let groups = known.user.profile.groups.clone();
    let user = UserFacts {
        id: known.user.id,
        is_new: matches!(resolved.link_method(), LinkMethod::Provisioned | LinkMethod::Invited),
        age_days: days(known.user.created_at),
        status: known.user.status.as_str(),
        kind: known.user.profile.kind,
        email_verified: known.user.profile.email_verified,
        privileged: groups.iter().any(|g| settings.privileged_groups.contains(g)),
        groups,
        password: known.user.password,
        mfa_methods: known
            .factors
            .iter()
            .map(|f| FactorFacts {
                method: f.method,
                strength: f.method.strength(),
                enrolled_age_days: days(f.enrolled_at),
                last_used_age_days: f.last_used_at.map(days),
            })
            .collect(),
        channels: match resolved.link_method() {
            LinkMethod::Provisioned => Vec::new(),
            _ => {
                let usable = world.channels.usable(&provider.tenant, &known.user.profile);
                usable.iter().map(|c| ChannelFacts { method: c.method, strength: c.strength }).collect()
            }
        },
        link_method: resolved.link_method(),
    };
    let mut facts = Facts {
        tenant: provider.tenant.clone(),
        client_id: Arc::clone(token.client_id()),
        provider: ProviderFacts { id: Arc::clone(&provider.name), issuer: identity_issuer(token.issuer()) },
        upstream,
        claims,
        history: HistoryFacts {
            trusted_device: resolved.is_on_trusted_device(),
            likelihood: likelihood_of(&resolved, &context, settings, world.counts),
            ..known.history.facts(&context, now)
        },
        request,
        user,
        plugin_signals: BTreeMap::new(),
    };
    if world.plugins.is_empty() {
        return Signals { resolved, facts: Arc::new(facts), context };
    }
    let frozen = Arc::new(facts.clone());
    facts.plugin_signals = world.plugins.signals(&frozen).await;
    Signals { resolved, facts: Arc::new(facts), context }
}

/// Nothing is looked up when the tenant has the signal off.
fn likelihood_of(
    resolved: &ResolvedUser,
    context: &ContextPrint,
    settings: &PolicySettings,
    counts: &dyn TenantCounts,
) -> Option<Likelihood> {
    let rule = &settings.likelihood;
    if rule.mode == LikelihoodMode::Off {
        return None;
    }
    let (known, token) = (resolved.known(), resolved.identity().token());
    let all = counts.find(&known.user.tenant)?;
    likelihood(&known.history, context, &all, rule, token.verified_at())
}
