//! The ports of the core, from the hooks of plugins. Plugins are asked side by side.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::{Map, Value};

use super::PluginHost;
use super::plugin::Answer;
use super::view::{enrich_input, signals_input};
use crate::signin::facts::Facts;
use crate::signin::ports::{Enricher, Enrichment, SignalSource};
use crate::signin::provider::Provider;

/// A hook that the host asks plugins for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Enrich,
    Signals,
}

impl Hook {
    pub(super) const ALL: [Self; 2] = [Self::Enrich, Self::Signals];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Enrich => "provider.enrich",
            Self::Signals => "signal.signals",
        }
    }
}

#[async_trait]
impl Enricher for PluginHost {
    async fn enrich(&self, provider: &Provider, claims: &Arc<Map<String, Value>>) -> Enrichment {
        let bound = self.plugins.iter().filter(|p| p.has(Hook::Enrich) && p.is_bound_to(provider));
        let asked = bound.map(|plugin| async move {
            let input = enrich_input(provider, claims, &plugin.grants, plugin.deadline);
            (plugin.info().id.clone(), plugin.ask(Hook::Enrich, input).await)
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
        !self.plugins.iter().any(|p| p.has(Hook::Signals))
    }

    async fn signals(&self, facts: &Arc<Facts>) -> BTreeMap<String, Option<Value>> {
        let asked = self.plugins.iter().filter(|p| p.has(Hook::Signals)).map(|plugin| async move {
            let input = signals_input(facts, &plugin.grants, plugin.deadline);
            let signals = match plugin.ask(Hook::Signals, input).await {
                Answer::Object(object) => Some(Value::Object(object)),
                // A signal cannot deny: that is for the rules, which see that the fact is not known.
                Answer::Declined | Answer::Rejected(_) | Answer::Failed(_) => None,
            };
            (plugin.info().id.clone(), signals)
        });
        join_all(asked).await.into_iter().collect()
    }
}
