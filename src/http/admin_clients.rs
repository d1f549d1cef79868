//! OAuth clients.

use std::sync::Arc;

use poem::Request;
use poem_openapi::param::{Path, Query};
use poem_openapi::{Object, OpenApi};

use super::admin::{AdminAuth, InTenant, admin_refusals, page};
use super::admin_tenants::{ManagedByWord, refused};
use super::body::Body;
use super::dto::MessageResponse;
use super::problem::Problem;
use super::provider_settings::ClientSettings;
use super::reply::Reply;
use super::text::Text;
use super::{State, Tag};
use crate::admin::access::{Resource, Verb};
use crate::admin::clients::ClientEntry;
use crate::secret::Secret;

pub(super) struct AdminClientsApi(pub Arc<State>);

admin_refusals!(ListClientsRefusals, InvalidCursor);
admin_refusals!(GetClientRefusals, UnknownClient);
admin_refusals!(CreateClientRefusals, InvalidSettings, AlreadyExists, BodyTooLarge, UnsupportedMediaType);
admin_refusals!(
    ChangeClientRefusals,
    UnknownClient,
    InvalidSettings,
    ManagedByConfig,
    BodyTooLarge,
    UnsupportedMediaType
);
admin_refusals!(DeleteClientRefusals, UnknownClient, ManagedByConfig);

/// An application that may use the OAuth endpoints.
#[derive(Debug, Object)]
#[oai(rename = "dto.Client", skip_serializing_if_is_none)]
pub struct ClientInfo {
    /// Its tenant.
    pub tenant: String,
    /// Its `client_id` in the tenant.
    pub client_id: String,
    /// Who manages it.
    pub managed_by: ManagedByWord,
    /// The settings as they were written; all of them for one of the file.
    pub settings: ClientSettings,
    /// How many secrets are good now: 2 while one follows the other, 0 for kind `spa` and `native`.
    pub secrets: u32,
    /// Why this server cannot use it. Empty: it can.
    pub problems: Vec<String>,
    /// When it was made, RFC 3339 in UTC; for those of this API.
    pub created_at: Option<String>,
    /// When it was last changed.
    pub updated_at: Option<String>,
}

impl From<ClientEntry> for ClientInfo {
    fn from(entry: ClientEntry) -> Self {
        Self {
            tenant: entry.tenant.to_string(),
            client_id: entry.id.to_string(),
            managed_by: entry.managed_by.into(),
            settings: ClientSettings(entry.settings),
            secrets: u32::try_from(entry.secret_hashes.len()).unwrap_or(u32::MAX),
            problems: entry.problems,
            created_at: entry.times.map(|t| t.created_at.to_rfc3339()),
            updated_at: entry.times.map(|t| t.updated_at.to_rfc3339()),
        }
    }
}

/// Clients by `client_id`.
#[derive(Debug, Object)]
#[oai(rename = "dto.ClientPage", skip_serializing_if_is_none)]
pub struct ClientPage {
    /// The clients.
    pub items: Vec<ClientInfo>,
    /// Pass it as `cursor` for the next page. Absent: these were the last.
    pub next_cursor: Option<String>,
}

/// A new client.
#[derive(Object)]
#[oai(rename = "dto.CreateClientRequest")]
pub struct CreateClientRequest {
    /// Its `client_id`: 1 to 64 of `a-z 0-9 _ -`. Never changes.
    pub client_id: Text,
    /// Its settings.
    pub settings: ClientSettings,
}

/// A client whose secret was made now. The secret is shown this once.
#[derive(Object)]
#[oai(rename = "dto.NewClient", skip_serializing_if_is_none)]
pub struct NewClientInfo {
    /// What it is.
    pub client: ClientInfo,
    /// 256 random bits in base64url. Absent for kind `spa` and `native`, which have none.
    pub client_secret: Option<String>,
}

impl NewClientInfo {
    fn new(entry: ClientEntry, secret: Option<&Secret>) -> Self {
        let shown = |secret: &Secret| String::from_utf8_lossy(secret.expose()).into_owned();
        Self { client: entry.into(), client_secret: secret.map(shown) }
    }
}

/// How one secret follows another.
#[derive(Object)]
#[oai(rename = "dto.RenewClientSecretRequest")]
pub struct RenewClientSecretRequest {
    /// `true`: the newest secret so far stays good beside the new one, until
    /// `DELETE /admin/clients/{client_id}/secret/previous` or the next new one. `false`: it ends at once.
    pub keep_previous: bool,
}

#[OpenApi]
impl AdminClientsApi {
    /// OAuth clients of the tenant
    ///
    /// Those of the configuration file and of this API, by `client_id`. No secret is among them.
    #[oai(path = "/admin/clients", method = "get", tag = "Tag::Administration", operation_id = "listClients")]
    async fn list(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Rows, 1 to 200; 50 when absent.
        limit: Query<Option<u32>>,
        /// The last page's `next_cursor`.
        cursor: Query<Option<String>>,
    ) -> Reply<ClientPage, ListClientsRefusals> {
        let answer = async {
            let leave = self.0.in_tenant(request, &auth, Verb::Read, Resource::Clients).await?;
            let page = page("clients", limit.0, cursor.0)?;
            let after = page.after().map(<[u8]>::to_vec).unwrap_or_default();
            let rows = self.0.admin.directory.clients(&leave.tenant).into_iter();
            let rows = rows.filter(|entry| entry.id.as_bytes() > &after[..]).collect();
            let listed = page.cut(rows, |entry: &ClientEntry| entry.id.as_bytes().to_vec()).map(Into::into);
            Ok(ClientPage { items: listed.items, next_cursor: listed.next_cursor })
        };
        answer.await.into()
    }

    /// An OAuth client
    #[oai(
        path = "/admin/clients/:client_id",
        method = "get",
        tag = "Tag::Administration",
        operation_id = "getClient"
    )]
    async fn get(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its `client_id`.
        client_id: Path<String>,
    ) -> Reply<ClientInfo, GetClientRefusals> {
        let answer = async {
            let leave = self.0.in_tenant(request, &auth, Verb::Read, Resource::Clients).await?;
            let found = self.0.admin.directory.client(&leave.tenant, &client_id.0);
            found.map(Into::into).map_err(|error| refused(&self.0, &error))
        };
        answer.await.into()
    }

    /// Register an OAuth client
    ///
    /// Its settings are those of a table of the configuration file and pass the same rules. One of kind `web` or
    /// `machine` gets a secret, which is shown this once: the store has a hash of it. It is served on every node
    /// within a second.
    #[oai(path = "/admin/clients", method = "post", tag = "Tag::Administration", operation_id = "createClient")]
    async fn create(
        &self,
        request: &Request,
        auth: AdminAuth,
        body: Body<CreateClientRequest>,
    ) -> Reply<NewClientInfo, CreateClientRefusals> {
        let answer = async {
            let state = &self.0;
            let InTenant { permit, tenant } = self.change(request, &auth).await?;
            let CreateClientRequest { client_id, settings } = body.0;
            let (author, directory) = (state.author(&permit), &state.admin.directory);
            let made = directory.create_client(&tenant, &client_id.0, &settings.0, &*state.entropy, &author).await;
            let (entry, secret) = made.map_err(|error| refused(state, &error))?;
            Ok(NewClientInfo::new(entry, secret.as_ref()))
        };
        answer.await.into()
    }

    /// Replace an OAuth client's settings
    ///
    /// All of them but the kind, which stays: what is absent goes back to its default. Secrets and sessions stay.
    #[oai(
        path = "/admin/clients/:client_id",
        method = "put",
        tag = "Tag::Administration",
        operation_id = "updateClient"
    )]
    async fn update(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its `client_id`.
        client_id: Path<String>,
        body: Body<ClientSettings>,
    ) -> Reply<ClientInfo, ChangeClientRefusals> {
        let answer = async {
            let state = &self.0;
            let InTenant { permit, tenant } = self.change(request, &auth).await?;
            let (author, directory) = (state.author(&permit), &state.admin.directory);
            let changed = directory.update_client(&tenant, &client_id.0, &body.0.0, &author).await;
            changed.map(Into::into).map_err(|error| refused(state, &error))
        };
        answer.await.into()
    }

    /// Make a new secret of an OAuth client
    ///
    /// It is shown this once.
    #[oai(
        path = "/admin/clients/:client_id/secret",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "renewClientSecret"
    )]
    async fn renew(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its `client_id`.
        client_id: Path<String>,
        body: Body<RenewClientSecretRequest>,
    ) -> Reply<NewClientInfo, ChangeClientRefusals> {
        let answer = async {
            let state = &self.0;
            let InTenant { permit, tenant } = self.change(request, &auth).await?;
            let (author, directory, keep) = (state.author(&permit), &state.admin.directory, body.0.keep_previous);
            let made = directory.renew_client_secret(&tenant, &client_id.0, keep, &*state.entropy, &author).await;
            let (entry, secret) = made.map_err(|error| refused(state, &error))?;
            Ok(NewClientInfo::new(entry, Some(&secret)))
        };
        answer.await.into()
    }

    /// End an OAuth client's previous secret
    ///
    /// The newest stays. Without a previous one nothing changes.
    #[oai(
        path = "/admin/clients/:client_id/secret/previous",
        method = "delete",
        tag = "Tag::Administration",
        operation_id = "endPreviousClientSecret"
    )]
    async fn end_previous(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its `client_id`.
        client_id: Path<String>,
    ) -> Reply<ClientInfo, ChangeClientRefusals> {
        let answer = async {
            let state = &self.0;
            let InTenant { permit, tenant } = self.change(request, &auth).await?;
            let (author, directory) = (state.author(&permit), &state.admin.directory);
            let ended = directory.end_previous_client_secret(&tenant, &client_id.0, &author).await;
            ended.map(Into::into).map_err(|error| refused(state, &error))
        };
        answer.await.into()
    }

    /// Remove an OAuth client
    ///
    /// One of this API. It is refused at once, with all that it got: refresh tokens, access tokens and open
    /// challenges. One that is made under its `client_id` later inherits nothing of that.
    #[oai(
        path = "/admin/clients/:client_id",
        method = "delete",
        tag = "Tag::Administration",
        operation_id = "deleteClient"
    )]
    async fn delete(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// Its `client_id`.
        client_id: Path<String>,
    ) -> Reply<MessageResponse, DeleteClientRefusals> {
        let answer = async {
            let state = &self.0;
            let InTenant { permit, tenant } = self.change(request, &auth).await?;
            let (author, directory) = (state.author(&permit), &state.admin.directory);
            let deleted = directory.delete_client(&tenant, &client_id.0, &author).await;
            deleted.map_err(|error| refused(state, &error))?;
            Ok(MessageResponse::new("the client is removed", state.clock.now()))
        };
        answer.await.into()
    }
}

impl AdminClientsApi {
    async fn change(&self, request: &Request, auth: &AdminAuth) -> Result<InTenant, Problem> {
        self.0.in_tenant(request, auth, Verb::Change, Resource::Clients).await
    }
}
