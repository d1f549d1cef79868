//! What administration needs of the store.

use async_trait::async_trait;

use super::audit::{AuditFilter, AuditRecord, Author, Change};
use super::keys::{AdminKey, StoredAdminKey};
use super::page::{Page, Paged};
use crate::clock::UnixTime;
use crate::ids::{AdminKeyId, TenantId};
use crate::signin::ports::StoreError;

/// Admin keys in the store.
#[async_trait]
pub trait AdminKeys: Send + Sync {
    /// A key, revoked and expired ones too.
    async fn find(&self, id: AdminKeyId) -> Result<Option<StoredAdminKey>, StoreError>;
    /// Notes that a key was used.
    async fn touch(&self, id: AdminKeyId, now: UnixTime) -> Result<(), StoreError>;
    /// Keeps a new key.
    async fn add(&self, key: StoredAdminKey, author: Author) -> Result<(), StoreError>;
    /// Keys of one tenant, or all of them; newest first.
    async fn list(&self, tenant: Option<&TenantId>, page: &Page) -> Result<Paged<AdminKey>, StoreError>;
    /// Revokes a key, of one tenant or of any. `false` when there is none that is not revoked.
    async fn revoke(&self, tenant: Option<&TenantId>, id: AdminKeyId, author: Author) -> Result<bool, StoreError>;
}

/// The audit log. It is written by the changes themselves, and beside them by trials, which change nothing.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Writes what was tried.
    async fn record(&self, author: Author, tried: Change) -> Result<(), StoreError>;
    /// Records, newest first.
    async fn list(&self, filter: &AuditFilter, page: &Page) -> Result<Paged<AuditRecord>, StoreError>;
}
