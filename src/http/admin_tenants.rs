//! Tenants.

use std::sync::Arc;
use std::time::Duration;

use poem::Request;
use poem_openapi::param::{Path, Query};
use poem_openapi::{Enum, Object, OpenApi};

use super::admin::{AdminAuth, admin_refusals, page};
use super::body::Body;
use super::dto::MessageResponse;
use super::problem::Problem;
use super::reply::Reply;
use super::text::Text;
use super::{State, Tag};
use crate::admin::access::{Permit, Resource, Scope, Verb};
use crate::admin::directory::{DirectoryError, ManagedBy, TenantEntry, Write, WrittenTenant};
use crate::codes::ErrorCode as E;
use crate::ids::TenantId;

pub(super) struct AdminTenantsApi(pub Arc<State>);

admin_refusals!(ListTenantsRefusals, InvalidCursor);
admin_refusals!(GetTenantRefusals);
admin_refusals!(CreateTenantRefusals, InvalidSettings, AlreadyExists, BodyTooLarge, UnsupportedMediaType);
admin_refusals!(UpdateTenantRefusals, InvalidSettings, ManagedByConfig, BodyTooLarge, UnsupportedMediaType);
admin_refusals!(DeleteTenantRefusals, ManagedByConfig, TenantNotEmpty);

/// Who says what something is.
#[derive(Debug, Clone, Copy, Enum)]
#[oai(rename = "dto.ManagedBy", rename_all = "lowercase")]
pub enum ManagedByWord {
    /// The configuration file: read-only here.
    Config,
    /// This API.
    Api,
}

impl From<ManagedBy> for ManagedByWord {
    fn from(managed_by: ManagedBy) -> Self {
        match managed_by {
            ManagedBy::Config => Self::Config,
            ManagedBy::Api => Self::Api,
        }
    }
}

/// A tenant.
#[derive(Debug, Object)]
#[oai(rename = "dto.Tenant", skip_serializing_if_is_none)]
pub struct TenantInfo {
    /// Its name.
    pub id: String,
    /// Hosts that select it.
    pub hosts: Vec<String>,
    /// A session that is not refreshed for so long ends; a whole number and s, m, h or d. Absent: no limit.
    pub session_idle: Option<String>,
    /// A session ends after so long, whatever is refreshed. Absent: no limit.
    pub session_ttl: Option<String>,
    /// A user has at most so many sessions. Absent: no limit.
    pub max_sessions: Option<u32>,
    /// Who manages it.
    pub managed_by: ManagedByWord,
    /// When it was made, RFC 3339 in UTC; for those of this API.
    pub created_at: Option<String>,
    /// When it was last changed.
    pub updated_at: Option<String>,
}

impl From<TenantEntry> for TenantInfo {
    fn from(entry: TenantEntry) -> Self {
        Self {
            id: entry.tenant.id.to_string(),
            hosts: entry.tenant.hosts.clone(),
            session_idle: entry.tenant.sessions.idle.map(duration_text),
            session_ttl: entry.tenant.sessions.absolute.map(duration_text),
            max_sessions: entry.tenant.sessions.per_user,
            managed_by: entry.managed_by.into(),
            created_at: entry.times.map(|t| t.created_at.to_rfc3339()),
            updated_at: entry.times.map(|t| t.updated_at.to_rfc3339()),
        }
    }
}

/// Tenants by name.
#[derive(Debug, Object)]
#[oai(rename = "dto.TenantPage", skip_serializing_if_is_none)]
pub struct TenantPage {
    /// The tenants.
    pub items: Vec<TenantInfo>,
    /// Pass it as `cursor` for the next page. Absent: these were the last.
    pub next_cursor: Option<String>,
}

/// A new tenant.
#[derive(Object)]
#[oai(rename = "dto.CreateTenantRequest", skip_serializing_if_is_none)]
pub struct CreateTenantRequest {
    /// Its name: 1 to 64 of `a-z 0-9 _ -`. Never changes.
    pub id: Text,
    /// Hosts that select it. A host is one tenant's.
    pub hosts: Option<Vec<Text>>,
    /// A session that is not refreshed for so long ends: a whole number and s, m, h or d, from 1m to 400d.
    /// Absent: no limit.
    pub session_idle: Option<Text>,
    /// A session ends after so long, whatever is refreshed: from 1m to 400d. Absent: no limit.
    pub session_ttl: Option<Text>,
    /// A user has at most so many sessions, 1 to 1000: a further one ends the oldest. Absent: no limit.
    pub max_sessions: Option<i64>,
}

/// What a tenant becomes.
#[derive(Object)]
#[oai(rename = "dto.UpdateTenantRequest", skip_serializing_if_is_none)]
pub struct UpdateTenantRequest {
    /// Hosts that select it.
    pub hosts: Vec<Text>,
    /// As in `dto.CreateTenantRequest`. Absent: no limit any more.
    pub session_idle: Option<Text>,
    /// As in `dto.CreateTenantRequest`. Absent: no limit any more.
    pub session_ttl: Option<Text>,
    /// As in `dto.CreateTenantRequest`. Absent: no limit any more.
    pub max_sessions: Option<i64>,
}

pub(super) fn refused(state: &State, error: &DirectoryError) -> Problem {
    let problem = state.refused(error.code(), error);
    if matches!(error, DirectoryError::Busy) { problem.retry_after(1) } else { problem }
}

impl AdminTenantsApi {
    /// Leave for a tenant that the address names: a key of another one learns nothing of it.
    async fn of(&self, request: &Request, auth: &AdminAuth, id: &str) -> Result<TenantId, Problem> {
        let state = &self.0;
        let caller = state.caller(request, auth).await?;
        let unknown = || Problem::new(E::UnknownTenant, "no tenant has this name");
        let id = match caller.scope() {
            Scope::Tenant(own) if own.as_str() == id => own.clone(),
            Scope::Tenant(_) => {
                return Err(Problem::new(E::AdminScopeInsufficient, "this admin key is for another tenant"));
            }
            Scope::All => TenantId::parse(id).map_err(|_| unknown())?,
        };
        state.in_named_tenant(&caller, &id, Verb::Read, Resource::Tenants)?;
        Ok(id)
    }

    /// Tenants themselves are the server's: a key of one tenant changes none.
    async fn change(&self, request: &Request, auth: &AdminAuth, verb: Verb) -> Result<Permit, Problem> {
        self.0.on_server(request, auth, verb, Resource::Tenants).await
    }
}

fn texts(hosts: Vec<Text>) -> Vec<String> {
    hosts.into_iter().map(|t| t.0).collect()
}

impl From<CreateTenantRequest> for WrittenTenant {
    fn from(request: CreateTenantRequest) -> Self {
        let CreateTenantRequest { id: _, hosts, session_idle, session_ttl, max_sessions } = request;
        let hosts = hosts.unwrap_or_default();
        UpdateTenantRequest { hosts, session_idle, session_ttl, max_sessions }.into()
    }
}

impl From<UpdateTenantRequest> for WrittenTenant {
    fn from(request: UpdateTenantRequest) -> Self {
        Self {
            hosts: texts(request.hosts),
            session_idle: request.session_idle.map(|t| t.0),
            session_ttl: request.session_ttl.map(|t| t.0),
            max_sessions: request.max_sessions,
        }
    }
}

/// As it is written in the file, in the greatest unit that it fills.
fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
    let (unit, word) = units.into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit)).unwrap_or((1, 's'));
    format!("{}{word}", seconds / unit)
}

fn known(id: &str) -> Result<TenantId, Problem> {
    TenantId::parse(id).map_err(|_| Problem::new(E::UnknownTenant, "no tenant has this name"))
}

#[OpenApi]
impl AdminTenantsApi {
    /// Tenants
    ///
    /// Those of the configuration file and of this API, by name. A key of one tenant sees its own.
    #[oai(path = "/admin/tenants", method = "get", tag = "Tag::Administration", operation_id = "listTenants")]
    async fn list(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Rows, 1 to 200; 50 when absent.
        limit: Query<Option<u32>>,
        /// The last page's `next_cursor`.
        cursor: Query<Option<String>>,
    ) -> Reply<TenantPage, ListTenantsRefusals> {
        let answer = async {
            let state = &self.0;
            let caller = state.caller(request, &auth).await?;
            let page = page("tenants", limit.0, cursor.0)?;
            let seen = |entry: &TenantEntry| match caller.scope() {
                Scope::All => true,
                Scope::Tenant(own) => entry.tenant.id == *own,
            };
            if let Scope::Tenant(own) = caller.scope() {
                state.in_named_tenant(&caller, own, Verb::Read, Resource::Tenants)?;
            } else {
                state.on_server(request, &auth, Verb::Read, Resource::Tenants).await?;
            }
            let after = page.after().map(<[u8]>::to_vec).unwrap_or_default();
            let rows = state.admin.directory.tenants().into_iter().filter(seen);
            let rows = rows.filter(|entry| entry.tenant.id.as_str().as_bytes() > &after[..]).collect();
            let listed = page.cut(rows, |entry: &TenantEntry| entry.tenant.id.as_str().as_bytes().to_vec());
            let listed = listed.map(Into::into);
            Ok(TenantPage { items: listed.items, next_cursor: listed.next_cursor })
        };
        answer.await.into()
    }

    /// A tenant
    #[oai(
        path = "/admin/tenants/:tenant_id",
        method = "get",
        tag = "Tag::Administration",
        operation_id = "getTenant"
    )]
    async fn get(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its name.
        tenant_id: Path<String>,
    ) -> Reply<TenantInfo, GetTenantRefusals> {
        let answer = async {
            let id = self.of(request, &auth, &tenant_id.0).await?;
            let found = self.0.admin.directory.tenant(&id);
            found.map(Into::into).map_err(|error| refused(&self.0, &error))
        };
        answer.await.into()
    }

    /// Make a tenant
    ///
    /// It is served on every node within a second. Needs a key of all tenants with the role `admin`.
    #[oai(path = "/admin/tenants", method = "post", tag = "Tag::Administration", operation_id = "createTenant")]
    async fn create(
        &self,
        request: &Request,
        auth: AdminAuth,
        body: Body<CreateTenantRequest>,
    ) -> Reply<TenantInfo, CreateTenantRefusals> {
        let answer = async {
            let state = &self.0;
            let permit = self.change(request, &auth, Verb::Change).await?;
            let id = TenantId::parse(&body.0.id.0);
            let id = id.map_err(|error| Problem::new(E::InvalidSettings, format!("id: {error}")))?;
            let (new, author) = (body.0.into(), state.author(&permit));
            let made = state.admin.directory.put_tenant(&id, &new, Write::Create, &author).await;
            made.map(Into::into).map_err(|error| refused(state, &error))
        };
        answer.await.into()
    }

    /// Give a tenant other hosts and limits
    ///
    /// The whole of it: what is absent limits no longer. A session keeps the lifetimes that it began with; the
    /// number is looked at when the user's next session begins.
    #[oai(
        path = "/admin/tenants/:tenant_id",
        method = "put",
        tag = "Tag::Administration",
        operation_id = "updateTenant"
    )]
    async fn update(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its name.
        tenant_id: Path<String>,
        body: Body<UpdateTenantRequest>,
    ) -> Reply<TenantInfo, UpdateTenantRefusals> {
        let answer = async {
            let state = &self.0;
            let permit = self.change(request, &auth, Verb::Change).await?;
            let (id, new, author) = (known(&tenant_id.0)?, body.0.into(), state.author(&permit));
            let put = state.admin.directory.put_tenant(&id, &new, Write::Replace, &author).await;
            put.map(Into::into).map_err(|error| refused(state, &error))
        };
        answer.await.into()
    }

    /// Remove a tenant
    ///
    /// One of this API that has no users, providers or clients. Its audit records stay.
    #[oai(
        path = "/admin/tenants/:tenant_id",
        method = "delete",
        tag = "Tag::Administration",
        operation_id = "deleteTenant"
    )]
    async fn delete(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its name.
        tenant_id: Path<String>,
    ) -> Reply<MessageResponse, DeleteTenantRefusals> {
        let answer = async {
            let state = &self.0;
            let permit = self.change(request, &auth, Verb::Erase).await?;
            let id = known(&tenant_id.0)?;
            let deleted = state.admin.directory.delete_tenant(&id, &state.author(&permit)).await;
            deleted.map_err(|error| refused(state, &error))?;
            Ok(MessageResponse::new("the tenant is removed", state.clock.now()))
        };
        answer.await.into()
    }
}
