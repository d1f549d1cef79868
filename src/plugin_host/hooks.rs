//! The ports of the core, from the hooks of plugins. Plugins are asked side by side.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use super::PluginHost;
use super::hook::Hook;
use super::lock_mfa::Offer;
use super::plugin::{Answer, Plugin};
use super::view::{EventKind, enrich_input, millis, security_event_input, signals_input, verify_input};
use crate::clock::UnixTime;
use crate::ids::TenantId;
use crate::mfa::MfaMethod;
use crate::mfa::delivery::{Channel, ChannelError, CodeChannels, Judged, Order, Question};
use crate::signin::facts::Facts;
use crate::signin::ports::{
    Enricher, Enrichment, ForeignClaims, ForeignError, Observer, SignalSource, TokenVerifier,
};
use crate::signin::provider::Provider;
use crate::signin::record::SignInRecord;
use crate::signin::security_events::ToldEvents;
use crate::signin::user::User;

#[async_trait]
impl Enricher for PluginHost {
    async fn enrich(&self, provider: &Provider, claims: &Arc<Map<String, Value>>) -> Enrichment {
        let plugins = self.plugins();
        let bound = plugins.iter().filter(|p| p.has(Hook::Enrich) && p.is_bound_to(provider));
        let asked = bound.map(|plugin| async move {
            let input = enrich_input(provider, claims, &plugin.entry.grants, plugin.deadline());
            (plugin.id().to_owned(), plugin.ask(Hook::Enrich, input).await)
        });
        let mut enrichment = Enrichment::default();
        for (id, answer) in join_all(asked).await {
            match answer {
                Answer::Object(added) => {
                    enrichment.added.insert(id, added);
                }
                Answer::Declined => {}
                // The first in the order of the lock file gives the reason.
                Answer::Rejected(code) => {
                    enrichment.rejected.get_or_insert((id, code));
                }
                Answer::Failed(_) => enrichment.missing.push(id),
            }
        }
        enrichment
    }
}

#[async_trait]
impl SignalSource for PluginHost {
    fn is_empty(&self) -> bool {
        !self.plugins().iter().any(|p| p.has(Hook::Signals))
    }

    async fn signals(&self, facts: &Arc<Facts>) -> BTreeMap<String, Option<Value>> {
        let plugins = self.plugins();
        let asked = plugins.iter().filter(|p| p.has(Hook::Signals)).map(|plugin| async move {
            let input = signals_input(facts, &plugin.entry.grants, plugin.deadline());
            let signals = match plugin.ask(Hook::Signals, input).await {
                Answer::Object(object) => Some(Value::Object(object)),
                // A signal cannot deny: that is for the rules, which see that the fact is not known.
                Answer::Declined | Answer::Rejected(_) | Answer::Failed(_) => None,
            };
            (plugin.id().to_owned(), signals)
        });
        join_all(asked).await.into_iter().collect()
    }
}

#[async_trait]
impl TokenVerifier for PluginHost {
    fn verifies(&self, provider: &Provider) -> bool {
        self.plugins().iter().any(|p| p.has(Hook::Verify) && p.is_bound_to(provider))
    }

    /// Asks one after the other, in the order of the lock file, until one does not decline.
    async fn verify(
        &self,
        provider: &Provider,
        unverified: &str,
        now: UnixTime,
    ) -> Result<ForeignClaims, ForeignError> {
        for plugin in self.plugins().iter().filter(|p| p.has(Hook::Verify) && p.is_bound_to(provider)) {
            let input = verify_input(provider, unverified, now, plugin.deadline());
            match plugin.ask(Hook::Verify, input).await {
                Answer::Object(mut answer) => {
                    let alg = answer.get("alg").and_then(Value::as_str).unwrap_or_default().to_owned();
                    let Some(Value::Object(claims)) = answer.remove("claims") else {
                        tracing::error!(plugin.id = plugin.id(), "a verifier gave no object \"claims\"");
                        return Err(ForeignError::Unavailable);
                    };
                    return Ok(ForeignClaims { alg, claims });
                }
                Answer::Declined => {}
                Answer::Rejected(code) => return Err(ForeignError::Rejected { code }),
                Answer::Failed(_) => return Err(ForeignError::Unavailable),
            }
        }
        Err(ForeignError::Rejected { code: "unknown_format".to_owned() })
    }
}

#[async_trait]
impl Observer for PluginHost {
    fn is_idle(&self) -> bool {
        !self.plugins().iter().any(|p| p.hears(EventKind::SignIn))
    }

    fn observe(&self, record: SignInRecord) {
        self.events.push(&self.plugins(), &record);
    }

    /// Asked at once and not from the queue, which ends with the process: whoever sent the event keeps it until it
    /// is taken.
    async fn hear(&self, told: &ToldEvents) -> bool {
        let plugins = self.plugins();
        let asked = plugins.iter().filter(|p| p.hears(EventKind::SecurityEvent)).map(|plugin| async move {
            let answer = plugin.ask(Hook::Observe, security_event_input(told, plugin.deadline())).await;
            matches!(answer, Answer::Object(_) | Answer::Declined)
        });
        join_all(asked).await.into_iter().all(|taken| taken)
    }
}

fn user_of(user: &User) -> Value {
    json!({ "id": user.id.to_string(), "locale": user.profile.locale })
}

impl PluginHost {
    /// The first in the order of the lock file.
    fn channel(&self, tenant: &TenantId, method: MfaMethod) -> Option<Arc<Plugin>> {
        let plugins = self.plugins();
        let offers = |offer: &Offer| offer.channel.method == method && offer.is_for(tenant);
        plugins.iter().find(|p| p.entry.mfa.as_ref().is_some_and(offers)).map(Arc::clone)
    }
}

#[async_trait]
impl CodeChannels for PluginHost {
    fn offered(&self, tenant: &TenantId) -> Vec<Channel> {
        let plugins = self.plugins();
        let offers = plugins.iter().filter_map(|p| p.entry.mfa.as_ref()).filter(|offer| offer.is_for(tenant));
        let mut channels: Vec<Channel> = Vec::new();
        for offer in offers {
            if channels.iter().all(|channel| channel.method != offer.channel.method) {
                channels.push(offer.channel);
            }
        }
        channels.sort_by_key(|channel| (Reverse(channel.strength), channel.method));
        channels
    }

    async fn send(&self, order: &Order<'_>) -> Result<Option<String>, ChannelError> {
        let plugin = self.channel(order.tenant, order.method).ok_or(ChannelError::Declined)?;
        let mut input = json!({
            "tenant": order.tenant.as_str(),
            "user": user_of(order.user),
            "method": order.method.as_str(),
            "delivery_id": order.delivery_id,
            "expires_in_s": order.expires_in.as_secs(),
            "deadline_ms": millis(plugin.deadline()),
        });
        if !order.destination.is_empty() {
            input["destination"] = order.destination.into();
        }
        if let Some(code) = order.code {
            input["code"] = code.into();
        }
        match plugin.ask(Hook::MfaBegin, input.to_string().into_bytes()).await {
            Answer::Object(answer) => {
                let reference = answer.get("reference").and_then(Value::as_str);
                Ok(reference.filter(|r| r.len() <= 256).map(str::to_owned))
            }
            Answer::Declined | Answer::Rejected(_) => Err(ChannelError::Declined),
            Answer::Failed(_) => Err(ChannelError::Unavailable),
        }
    }

    async fn judge(&self, question: &Question<'_>) -> Result<Judged, ChannelError> {
        let plugin = self.channel(question.tenant, question.method).filter(|p| p.has(Hook::MfaVerify));
        let plugin = plugin.ok_or(ChannelError::Unavailable)?;
        let input = json!({
            "tenant": question.tenant.as_str(),
            "user": user_of(question.user),
            "method": question.method.as_str(),
            "delivery_id": question.delivery_id,
            "reference": question.reference,
            "code": question.code,
            "deadline_ms": millis(plugin.deadline()),
        });
        match plugin.ask(Hook::MfaVerify, input.to_string().into_bytes()).await {
            Answer::Object(_) => Ok(Judged::Right),
            // "Cannot say" is no proof.
            Answer::Declined => Ok(Judged::Pending),
            Answer::Rejected(_) => Ok(Judged::Wrong),
            Answer::Failed(_) => Err(ChannelError::Unavailable),
        }
    }
}
