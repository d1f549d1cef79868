//! Plugins.

use std::sync::Arc;

use poem::Request;
use poem_openapi::{Object, OpenApi};

use super::admin::{AdminAuth, admin_refusals};
use super::reply::Reply;
use super::{State, Tag};
use crate::admin::access::{Resource, Verb};
use crate::admin::plugins::PluginState;

pub(super) struct AdminPluginsApi(pub Arc<State>);

admin_refusals!(PluginRefusals);

/// A loaded plugin.
#[derive(Debug, Object)]
#[oai(rename = "dto.PluginInfo", skip_serializing_if_is_none)]
pub struct PluginInfo {
    /// Its identifier.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Who made it, as it says itself.
    pub vendor: String,
    /// SHA-256 of its file, in lower-case hex.
    pub sha256: String,
    /// What it is asked for.
    pub hooks: Vec<String>,
    /// What it delivers, when it has the hooks `mfa.*`: a word of `required_mfa_methods`.
    pub mfa_method: Option<String>,
    /// `in_process` or `process`.
    pub isolation: String,
    /// Deaths of its own process since that last ran for a minute.
    pub process_deaths: u32,
    /// Calls that run now.
    pub in_flight: u64,
    /// Calls that should have returned.
    pub stuck: u64,
    /// Why it is not asked now: kept out after crashes, calls that do not return, being started again.
    /// Absent: it is asked.
    pub trouble: Option<String>,
}

/// The plugins of the node that answers.
#[derive(Debug, Object)]
#[oai(rename = "dto.PluginList")]
pub struct PluginList {
    /// In the order of the lock file.
    pub items: Vec<PluginInfo>,
}

impl From<PluginState> for PluginInfo {
    fn from(state: PluginState) -> Self {
        Self {
            id: state.id,
            version: state.version,
            vendor: state.vendor,
            sha256: state.sha256,
            hooks: state.hooks,
            mfa_method: state.mfa_method,
            isolation: state.isolation,
            process_deaths: state.process_deaths,
            in_flight: state.in_flight as u64,
            stuck: state.stuck as u64,
            trouble: state.trouble,
        }
    }
}

#[OpenApi]
impl AdminPluginsApi {
    /// The loaded plugins
    ///
    /// Of the node that answers, with what keeps one from being asked. They come from `plugins.lock` alone and are
    /// exchanged by changing it; there is no way to load one through this API. For a key of all tenants.
    #[oai(path = "/admin/plugins", method = "get", tag = "Tag::Administration", operation_id = "listPlugins")]
    async fn list(&self, request: &Request, auth: AdminAuth) -> Reply<PluginList, PluginRefusals> {
        let answer = async {
            let state = &self.0;
            state.on_server(request, &auth, Verb::Read, Resource::Plugins).await?;
            Ok(PluginList { items: state.admin.plugins.list().into_iter().map(Into::into).collect() })
        };
        answer.await.into()
    }
}
