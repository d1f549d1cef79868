//! Admin keys, managed by admin keys.

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
use crate::admin::access::{Resource, Role, Scope, Verb};
use crate::admin::keys::{AdminKey, MAX_NOTE_BYTES, NewAdminKey};
use crate::clock::UnixTime;
use crate::codes::ErrorCode as E;

pub(super) struct AdminKeysApi(pub Arc<State>);

admin_refusals!(ListKeysRefusals, InvalidCursor);
admin_refusals!(CreateKeyRefusals, BodyTooLarge, UnsupportedMediaType);
admin_refusals!(RevokeKeyRefusals, UnknownAdminKey);

/// What an admin key may do.
#[derive(Debug, Clone, Copy, Enum)]
#[oai(rename = "dto.AdminRole", rename_all = "lowercase")]
pub enum RoleWord {
    /// Look.
    Viewer,
    /// Change what sign-ins meet.
    Editor,
    /// Everything.
    Admin,
}

impl From<Role> for RoleWord {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Editor => Self::Editor,
            Role::Admin => Self::Admin,
        }
    }
}

impl From<RoleWord> for Role {
    fn from(word: RoleWord) -> Self {
        match word {
            RoleWord::Viewer => Self::Viewer,
            RoleWord::Editor => Self::Editor,
            RoleWord::Admin => Self::Admin,
        }
    }
}

/// An admin key without its secret.
#[derive(Debug, Object)]
#[oai(rename = "dto.AdminKey", skip_serializing_if_is_none)]
pub struct AdminKeyInfo {
    /// The identifier, `csk_…`: the part of the key before the dot.
    pub id: String,
    /// What it may do.
    pub role: RoleWord,
    /// The tenant. Absent: all tenants and the server itself.
    pub tenant: Option<String>,
    /// What it is for.
    pub note: String,
    /// When it was made, RFC 3339 in UTC.
    pub created_at: String,
    /// When it ends by itself. Absent: never.
    pub expires_at: Option<String>,
    /// When it was revoked.
    pub revoked_at: Option<String>,
    /// When it was last used, to the hour.
    pub last_used_at: Option<String>,
}

impl From<AdminKey> for AdminKeyInfo {
    fn from(key: AdminKey) -> Self {
        Self {
            id: key.id.to_string(),
            role: key.role.into(),
            tenant: match key.scope {
                Scope::Tenant(tenant) => Some(tenant.to_string()),
                Scope::All => None,
            },
            note: key.note,
            created_at: key.created_at.to_rfc3339(),
            expires_at: key.expires_at.map(UnixTime::to_rfc3339),
            revoked_at: key.revoked_at.map(UnixTime::to_rfc3339),
            last_used_at: key.last_used_at.map(UnixTime::to_rfc3339),
        }
    }
}

/// Admin keys, newest first.
#[derive(Debug, Object)]
#[oai(rename = "dto.AdminKeyPage", skip_serializing_if_is_none)]
pub struct AdminKeyPage {
    /// The keys.
    pub items: Vec<AdminKeyInfo>,
    /// Pass it as `cursor` for the next page. Absent: these were the last.
    pub next_cursor: Option<String>,
}

/// What a new admin key shall be.
#[derive(Object)]
#[oai(rename = "dto.CreateAdminKeyRequest", skip_serializing_if_is_none)]
pub struct CreateAdminKeyRequest {
    /// What it may do.
    pub role: RoleWord,
    /// `true`: for all tenants and the server itself. Needs such a key. Else for the tenant of the request.
    pub all_tenants: Option<bool>,
    /// What it is for, at most 200 bytes.
    pub note: Text,
    /// How long it lives, in seconds. Absent: until it is revoked.
    pub expires_in: Option<u64>,
}

/// A new admin key. The key is shown this once.
#[derive(Object)]
#[oai(rename = "dto.NewAdminKey")]
pub struct NewAdminKeyInfo {
    /// For `Authorization: Bearer …`.
    pub key: String,
    /// What it is.
    pub info: AdminKeyInfo,
}

#[OpenApi]
impl AdminKeysApi {
    /// Admin keys
    ///
    /// Those of the tenant, revoked and expired ones too, newest first. No secret is among them.
    #[oai(path = "/admin/admin-keys", method = "get", tag = "Tag::Administration", operation_id = "listAdminKeys")]
    async fn list(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// `true`: of all tenants and of the server itself, for a key of all tenants.
        everywhere: Query<Option<bool>>,
        /// Rows, 1 to 200; 50 when absent.
        limit: Query<Option<u32>>,
        /// The last page's `next_cursor`.
        cursor: Query<Option<String>>,
    ) -> Reply<AdminKeyPage, ListKeysRefusals> {
        let answer = async {
            let state = &self.0;
            let tenant = if everywhere.0 == Some(true) {
                state.on_server(request, &auth, Verb::Read, Resource::AdminKeys).await?;
                None
            } else {
                Some(state.in_tenant(request, &auth, Verb::Read, Resource::AdminKeys).await?.tenant)
            };
            let page = page("admin_keys", limit.0, cursor.0)?;
            let listed = state.admin.keys.list(tenant.as_ref(), &page).await;
            let listed = listed.map_err(|error| state.refused(E::StoreUnavailable, &error))?.map(Into::into);
            Ok(AdminKeyPage { items: listed.items, next_cursor: listed.next_cursor })
        };
        answer.await.into()
    }

    /// Make an admin key
    ///
    /// It is shown this once; the store has a hash of it. It reaches no further than the key that makes it.
    #[oai(
        path = "/admin/admin-keys",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "createAdminKey"
    )]
    async fn create(
        &self,
        request: &Request,
        auth: AdminAuth,
        body: Body<CreateAdminKeyRequest>,
    ) -> Reply<NewAdminKeyInfo, CreateKeyRefusals> {
        let answer = async {
            let state = &self.0;
            let (permit, scope) = if body.0.all_tenants == Some(true) {
                (state.on_server(request, &auth, Verb::Change, Resource::AdminKeys).await?, Scope::All)
            } else {
                let leave = state.in_tenant(request, &auth, Verb::Change, Resource::AdminKeys).await?;
                (leave.permit, Scope::Tenant(leave.tenant))
            };
            let note = body.0.note.0;
            if note.len() > MAX_NOTE_BYTES || note.chars().any(char::is_control) {
                let text = format!("note must be at most {MAX_NOTE_BYTES} bytes without control characters");
                return Err(Problem::new(E::MalformedRequest, text));
            }
            let lifetime = match body.0.expires_in {
                Some(0) => return Err(Problem::new(E::MalformedRequest, "expires_in must be at least 1")),
                given => given.map(Duration::from_secs),
            };
            let new = NewAdminKey { role: body.0.role.into(), scope, note, lifetime };
            let made = state.admin.keys.create(new, state.author(&permit)).await;
            let (info, key) = made.map_err(|error| state.refused(E::StoreUnavailable, &error))?;
            Ok(NewAdminKeyInfo { key: String::from_utf8_lossy(key.expose()).into_owned(), info: info.into() })
        };
        answer.await.into()
    }

    /// Revoke an admin key
    ///
    /// From now on it opens nothing, on any node.
    #[oai(
        path = "/admin/admin-keys/:key_id",
        method = "delete",
        tag = "Tag::Administration",
        operation_id = "revokeAdminKey"
    )]
    async fn revoke(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// The key's identifier, `csk_…`.
        key_id: Path<String>,
        /// `true`: of any tenant or of the server itself, for a key of all tenants.
        everywhere: Query<Option<bool>>,
    ) -> Reply<MessageResponse, RevokeKeyRefusals> {
        let answer = async {
            let state = &self.0;
            let (permit, tenant) = if everywhere.0 == Some(true) {
                (state.on_server(request, &auth, Verb::Change, Resource::AdminKeys).await?, None)
            } else {
                let leave = state.in_tenant(request, &auth, Verb::Change, Resource::AdminKeys).await?;
                (leave.permit, Some(leave.tenant))
            };
            let unknown = || Problem::new(E::UnknownAdminKey, "no living admin key has this identifier");
            let id = key_id.0.parse().map_err(|_| unknown())?;
            let revoked = state.admin.keys.revoke(tenant.as_ref(), id, state.author(&permit)).await;
            if !revoked.map_err(|error| state.refused(E::StoreUnavailable, &error))? {
                return Err(unknown());
            }
            Ok(MessageResponse::new("the admin key is revoked", state.clock.now()))
        };
        answer.await.into()
    }
}
