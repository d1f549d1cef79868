//! Providers.

use std::sync::Arc;

use poem::Request;
use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};

use super::admin::{AdminAuth, admin_refusals, page};
use super::admin_tenants::{ManagedByWord, refused};
use super::body::Body;
use super::dto::MessageResponse;
use super::problem::Problem;
use super::provider_settings::ProviderSettings;
use super::reply::Reply;
use super::text::Text;
use super::{State, Tag};
use crate::admin::access::{Resource, Verb};
use crate::admin::directory::{ProviderEntry, Write};
use crate::admin::probe::{ProbeError, audited, propose};
use crate::codes::ErrorCode as E;
use crate::signin::audit::{Case, Verdict};
use crate::signin::ports::StoreError;

pub(super) struct AdminProvidersApi(pub Arc<State>);

admin_refusals!(ListProvidersRefusals, InvalidCursor);
admin_refusals!(GetProviderRefusals, UnknownProvider);
admin_refusals!(CreateProviderRefusals, InvalidSettings, AlreadyExists, BodyTooLarge, UnsupportedMediaType);
admin_refusals!(
    UpdateProviderRefusals,
    UnknownProvider,
    InvalidSettings,
    ManagedByConfig,
    BodyTooLarge,
    UnsupportedMediaType
);
admin_refusals!(DeleteProviderRefusals, UnknownProvider, ManagedByConfig);
admin_refusals!(EnableProviderRefusals, UnknownProvider, InvalidSettings, ManagedByConfig);
admin_refusals!(AuditProviderRefusals, UnknownProvider, InvalidSettings);
admin_refusals!(ImportRefusals, InvalidSettings, ProviderUnavailable, BodyTooLarge, UnsupportedMediaType);

/// The last part of an address that a provider's name would hide.
const RESERVED_NAME: &str = "import-discovery";

/// A provider.
#[derive(Debug, Object)]
#[oai(rename = "dto.Provider", skip_serializing_if_is_none)]
pub struct ProviderInfo {
    /// Its tenant.
    pub tenant: String,
    /// Its name in the tenant.
    pub name: String,
    /// Who manages it.
    pub managed_by: ManagedByWord,
    /// Whether sign-ins and sessions through it are let in now.
    pub enabled: bool,
    /// For those of the file: whether an administrator switched off what the file enables.
    pub switched_off: bool,
    /// The settings as they were written.
    pub settings: ProviderSettings,
    /// Why this server cannot use it. Empty: it can.
    pub problems: Vec<String>,
    /// When it was made, RFC 3339 in UTC; for those of this API.
    pub created_at: Option<String>,
    /// When it was last changed.
    pub updated_at: Option<String>,
}

impl From<ProviderEntry> for ProviderInfo {
    fn from(entry: ProviderEntry) -> Self {
        Self {
            tenant: entry.tenant.to_string(),
            name: entry.name.to_string(),
            managed_by: entry.managed_by.into(),
            enabled: entry.enabled,
            switched_off: entry.switched_off,
            settings: ProviderSettings(entry.settings),
            problems: entry.problems,
            created_at: entry.times.map(|t| t.created_at.to_rfc3339()),
            updated_at: entry.times.map(|t| t.updated_at.to_rfc3339()),
        }
    }
}

/// Providers by name.
#[derive(Debug, Object)]
#[oai(rename = "dto.ProviderPage", skip_serializing_if_is_none)]
pub struct ProviderPage {
    /// The providers.
    pub items: Vec<ProviderInfo>,
    /// Pass it as `cursor` for the next page. Absent: these were the last.
    pub next_cursor: Option<String>,
}

/// A new provider.
#[derive(Object)]
#[oai(rename = "dto.CreateProviderRequest")]
pub struct CreateProviderRequest {
    /// Its name: 1 to 64 of `a-z 0-9 _ -`. Never changes: it is part of every identity.
    pub name: Text,
    /// Its settings.
    pub settings: ProviderSettings,
}

/// Where a provider describes itself.
#[derive(Object)]
#[oai(rename = "dto.ImportDiscoveryRequest")]
pub struct ImportDiscoveryRequest {
    /// The issuer, exactly as in its tokens.
    pub issuer: Text,
}

/// A provider that could be made of a discovery document.
#[derive(Debug, Object)]
#[oai(rename = "dto.ProviderProposal")]
pub struct ProviderProposal {
    /// A name made of the issuer's host.
    pub name: String,
    /// Settings to look over, disabled: pass them to `POST /admin/providers`.
    pub settings: ProviderSettings,
    /// What is left to do or to think about.
    pub notes: Vec<String>,
}

/// How a provider answers.
#[derive(Debug, Object)]
#[oai(rename = "dto.ProviderTest", skip_serializing_if_is_none)]
pub struct ProviderTest {
    /// Whether its keys could be had.
    pub ok: bool,
    /// How many of them are usable with its algorithms.
    pub usable_keys: Option<u64>,
    /// Why not.
    pub problem: Option<String>,
}

/// How a configuration stood up to forged tokens.
#[derive(Debug, Object)]
#[oai(rename = "dto.ProviderAudit", skip_serializing_if_is_none)]
pub struct ProviderAuditReport {
    /// Whether a genuine token passed and no attack succeeded.
    pub passed: bool,
    /// Why a genuine token would be refused, so that nothing follows from the rest. Absent: it passed.
    pub control_problem: Option<String>,
    /// Attacks that were refused or had no effect.
    pub withstood: u64,
    /// Attacks that went through.
    pub succeeded: u64,
    /// Every attack, in a fixed order.
    pub attacks: Vec<ProviderAttack>,
}

/// One attack and how it ended.
#[derive(Debug, Object)]
#[oai(rename = "dto.ProviderAttack", skip_serializing_if_is_none)]
pub struct ProviderAttack {
    /// What was tried.
    pub name: String,
    /// `withstood`, `not_applicable` or `succeeded`.
    pub outcome: String,
    /// The code of the refusal, why there was nothing to attack, or what it came to.
    pub seen: String,
    /// What stops it, when it succeeded.
    pub mend: Option<String>,
}

impl ProviderAuditReport {
    /// The first case is the control.
    fn of(cases: &[Case]) -> Self {
        let control_problem = match cases.first().map(|case| &case.verdict) {
            Some(Verdict::Withstood { .. }) => None,
            Some(Verdict::Succeeded { seen, mend }) => Some(format!("{seen}; {mend}")),
            Some(Verdict::NotApplicable { why }) => Some((*why).to_owned()),
            None => Some("there was no control".to_owned()),
        };
        let attacks: Vec<ProviderAttack> = cases.iter().skip(1).map(ProviderAttack::of).collect();
        let count = |outcome: &str| attacks.iter().filter(|attack| attack.outcome == outcome).count() as u64;
        let (withstood, succeeded) = (count("withstood"), count("succeeded"));
        Self { passed: control_problem.is_none() && succeeded == 0, control_problem, withstood, succeeded, attacks }
    }
}

impl ProviderAttack {
    fn of(case: &Case) -> Self {
        let (outcome, seen, mend) = match &case.verdict {
            Verdict::Withstood { by } => ("withstood", (*by).to_owned(), None),
            Verdict::NotApplicable { why } => ("not_applicable", (*why).to_owned(), None),
            Verdict::Succeeded { seen, mend } => ("succeeded", seen.clone(), Some(mend.clone())),
        };
        Self { name: case.name.to_owned(), outcome: outcome.to_owned(), seen, mend }
    }
}

#[OpenApi]
impl AdminProvidersApi {
    /// Providers of the tenant
    ///
    /// Those of the configuration file and of this API, by name.
    #[oai(path = "/admin/providers", method = "get", tag = "Tag::Administration", operation_id = "listProviders")]
    async fn list(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Rows, 1 to 200; 50 when absent.
        limit: Query<Option<u32>>,
        /// The last page's `next_cursor`.
        cursor: Query<Option<String>>,
    ) -> Reply<ProviderPage, ListProvidersRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Read, Resource::Providers).await?;
            let page = page("providers", limit.0, cursor.0)?;
            let after = page.after().map(<[u8]>::to_vec).unwrap_or_default();
            let rows = state.admin.directory.providers(&leave.tenant).into_iter();
            let rows = rows.filter(|entry| entry.name.as_bytes() > &after[..]).collect();
            let listed = page.cut(rows, |entry: &ProviderEntry| entry.name.as_bytes().to_vec()).map(Into::into);
            Ok(ProviderPage { items: listed.items, next_cursor: listed.next_cursor })
        };
        answer.await.into()
    }

    /// A provider
    #[oai(
        path = "/admin/providers/:name",
        method = "get",
        tag = "Tag::Administration",
        operation_id = "getProvider"
    )]
    async fn get(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its name.
        name: Path<String>,
    ) -> Reply<ProviderInfo, GetProviderRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Read, Resource::Providers).await?;
            let found = state.admin.directory.provider(&leave.tenant, &name.0);
            found.map(Into::into).map_err(|error| refused(state, &error))
        };
        answer.await.into()
    }

    /// Make a provider
    ///
    /// Its settings are those of a table of the configuration file and pass the same rules. It is served on
    /// every node within a second.
    #[oai(path = "/admin/providers", method = "post", tag = "Tag::Administration", operation_id = "createProvider")]
    async fn create(
        &self,
        request: &Request,
        auth: AdminAuth,
        body: Body<CreateProviderRequest>,
    ) -> Reply<ProviderInfo, CreateProviderRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Change, Resource::Providers).await?;
            let CreateProviderRequest { name, settings } = body.0;
            if name.0 == RESERVED_NAME {
                return Err(Problem::new(E::InvalidSettings, "this name is an address of its own; take another"));
            }
            let author = state.author(&leave.permit);
            let directory = &state.admin.directory;
            let made = directory.put_provider(&leave.tenant, &name.0, &settings.0, Write::Create, &author).await;
            made.map(Into::into).map_err(|error| refused(state, &error))
        };
        answer.await.into()
    }

    /// Replace a provider's settings
    ///
    /// All of them: what is absent goes back to its default.
    #[oai(
        path = "/admin/providers/:name",
        method = "put",
        tag = "Tag::Administration",
        operation_id = "updateProvider"
    )]
    async fn update(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its name.
        name: Path<String>,
        body: Body<ProviderSettings>,
    ) -> Reply<ProviderInfo, UpdateProviderRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Change, Resource::Providers).await?;
            let author = state.author(&leave.permit);
            let directory = &state.admin.directory;
            let put = directory.put_provider(&leave.tenant, &name.0, &body.0.0, Write::Replace, &author).await;
            put.map(Into::into).map_err(|error| refused(state, &error))
        };
        answer.await.into()
    }

    /// Remove a provider
    ///
    /// One of this API. Its sessions and challenges are refused from then on; the identities stay with their
    /// users, and count again if a provider of this name and issuer is made.
    #[oai(
        path = "/admin/providers/:name",
        method = "delete",
        tag = "Tag::Administration",
        operation_id = "deleteProvider"
    )]
    async fn delete(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its name.
        name: Path<String>,
    ) -> Reply<MessageResponse, DeleteProviderRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Change, Resource::Providers).await?;
            let author = state.author(&leave.permit);
            let deleted = state.admin.directory.delete_provider(&leave.tenant, &name.0, &author).await;
            deleted.map_err(|error| refused(state, &error))?;
            Ok(MessageResponse::new("the provider is removed", state.clock.now()))
        };
        answer.await.into()
    }

    /// Enable a provider
    ///
    /// Takes back a `disable`. One that the configuration file disables stays so.
    #[oai(
        path = "/admin/providers/:name/enable",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "enableProvider"
    )]
    async fn enable(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its name.
        name: Path<String>,
    ) -> Reply<ProviderInfo, EnableProviderRefusals> {
        self.switch(request, &auth, &name.0, true).await.into()
    }

    /// Disable a provider at once
    ///
    /// Also one of the configuration file. Within a second, on every node, its sign-ins, refreshes, challenges
    /// and access tokens are refused with `provider_disabled`. No session is ended: they go on when it is
    /// enabled again.
    #[oai(
        path = "/admin/providers/:name/disable",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "disableProvider"
    )]
    async fn disable(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its name.
        name: Path<String>,
    ) -> Reply<ProviderInfo, GetProviderRefusals> {
        self.switch(request, &auth, &name.0, false).await.into()
    }

    /// Try a provider
    ///
    /// Asks for its discovery document and keys, if they are not held already. Nothing is changed.
    #[oai(
        path = "/admin/providers/:name/test",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "testProvider"
    )]
    async fn test(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its name.
        name: Path<String>,
    ) -> Reply<ProviderTest, GetProviderRefusals> {
        let answer = async {
            let state = &self.0;
            let leave = state.in_tenant(request, &auth, Verb::Try, Resource::Providers).await?;
            let found = state.admin.directory.provider(&leave.tenant, &name.0);
            let entry = found.map_err(|error| refused(state, &error))?;
            let Some(provider) = entry.provider else {
                return Ok(ProviderTest { ok: false, usable_keys: None, problem: Some(entry.problems.join("; ")) });
            };
            Ok(match state.admin.probe.count_keys(&provider).await {
                Ok(keys) => ProviderTest { ok: keys > 0, usable_keys: Some(keys as u64), problem: None },
                Err(error) => ProviderTest { ok: false, usable_keys: None, problem: Some(error.to_string()) },
            })
        };
        answer.await.into()
    }

    /// Attack a provider's configuration
    ///
    /// Some seventy forged tokens walk the path of a sign-in, on this server and without a request to elsewhere. Nobody but
    /// the provider has its private key: where an attack needs a valid signature, a throw-away key stands in for it,
    /// inside the audit alone. Users are made up, plugins are left out; the provider's rules, its mapping and the
    /// policies in force are the real ones. Nothing is changed but for the record that it was done.
    #[oai(
        path = "/admin/providers/:name/audit",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "auditProvider"
    )]
    async fn audit(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its name.
        name: Path<String>,
    ) -> Reply<ProviderAuditReport, AuditProviderRefusals> {
        let answer = async {
            let state = Arc::clone(&self.0);
            let leave = state.in_tenant(request, &auth, Verb::Try, Resource::Providers).await?;
            let found = state.admin.directory.provider(&leave.tenant, &name.0);
            let entry = found.map_err(|error| refused(&state, &error))?;
            let Some(provider) = entry.provider else {
                return Err(Problem::new(E::InvalidSettings, entry.problems.join("; ")));
            };
            let author = state.author(&leave.permit);
            // In a task of its own: whoever hangs up does not leave an audit without its record.
            let ran = tokio::spawn(async move {
                let cases = state.admin.audits.audit(provider).await?;
                state.admin.audit.record(author, audited(&name.0, &cases)).await?;
                Ok(cases)
            });
            let ran = ran.await.map_err(|_| Problem::new(E::InternalError, "the audit could not be finished"))?;
            let cases = ran.map_err(|error: StoreError| self.0.refused(E::StoreUnavailable, &error))?;
            Ok(ProviderAuditReport::of(&cases))
        };
        answer.await.into()
    }

    /// Propose a provider from a discovery document
    ///
    /// Fetches `/.well-known/openid-configuration` of the issuer, within the limits of all outbound fetches,
    /// and checks that it is the issuer's own. Nothing is changed.
    #[oai(
        path = "/admin/providers/import-discovery",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "importDiscovery"
    )]
    async fn import(
        &self,
        request: &Request,
        auth: AdminAuth,
        body: Body<ImportDiscoveryRequest>,
    ) -> Reply<ProviderProposal, ImportRefusals> {
        let answer = async {
            let state = &self.0;
            state.in_tenant(request, &auth, Verb::Try, Resource::Providers).await?;
            let issuer = body.0.issuer.0;
            let problem = |error: ProbeError| Problem::new(error.code(), error.to_string());
            let document = state.admin.probe.discovery(&issuer).await.map_err(problem)?;
            let proposal = propose(&issuer, &document).map_err(problem)?;
            let settings = ProviderSettings(proposal.settings);
            Ok(ProviderProposal { name: proposal.name, settings, notes: proposal.notes })
        };
        answer.await.into()
    }
}

impl AdminProvidersApi {
    async fn switch(
        &self,
        request: &Request,
        auth: &AdminAuth,
        name: &str,
        on: bool,
    ) -> Result<ProviderInfo, Problem> {
        let state = &self.0;
        let leave = state.in_tenant(request, auth, Verb::Change, Resource::Providers).await?;
        let author = state.author(&leave.permit);
        let switched = state.admin.directory.switch_provider(&leave.tenant, name, on, &author).await;
        switched.map(Into::into).map_err(|error| refused(state, &error))
    }
}
