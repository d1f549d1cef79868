//! Tenants, providers and clients that administrators manage, beside those of the configuration file.
//!
//! The store holds what was written, the rules are those of the file, and a snapshot in memory is what
//! sign-ins see. Every node asks the store for its version a few times a second; whoever changes something
//! asks at once. A change is judged by the snapshot and written only if that is still the newest one, so
//! that no two nodes give one host to two tenants.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::audit::Author;
use super::clients::{ClientEntry, StoredClient, WrittenClient};
use crate::clock::UnixTime;
use crate::codes::ErrorCode;
use crate::ids::TenantId;
use crate::session::SessionLimits;
use crate::session::clients::{Client, ClientKind};
use crate::signin::ports::StoreError;
use crate::signin::provider::{Provider, Tenant};

/// How often a change is tried when others were faster. Each time one of those that run at once is through, so that
/// this many may.
const TRIES: usize = 32;

/// Who says what something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManagedBy {
    /// The configuration file: read-only here, but for the switch of a provider.
    Config,
    /// The administration API.
    Api,
}

/// A tenant as it stands now.
#[derive(Debug, Clone)]
pub struct TenantEntry {
    /// The tenant.
    pub tenant: Arc<Tenant>,
    /// Who manages it.
    pub managed_by: ManagedBy,
    /// When it was made and last changed, if here.
    pub times: Option<Times>,
}

/// A provider as it stands now.
#[derive(Debug, Clone)]
pub struct ProviderEntry {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its name in the tenant.
    pub name: Arc<str>,
    /// Who manages it.
    pub managed_by: ManagedBy,
    /// The settings as they were written, in the words of `[[providers]]`.
    pub settings: Map<String, Value>,
    /// Checked; `None` when this node cannot use it, and `problems` tell why.
    pub provider: Option<Arc<Provider>>,
    /// Whether sign-ins and sessions through it are let in.
    pub enabled: bool,
    /// Whether an administrator switched off what the file enables.
    pub switched_off: bool,
    /// Why it cannot be used.
    pub problems: Vec<String>,
    /// When it was made and last changed, if here.
    pub times: Option<Times>,
}

/// When something was made and last changed.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Made.
    pub created_at: UnixTime,
    /// Changed.
    pub updated_at: UnixTime,
}

/// A tenant in the store.
#[derive(Debug, Clone)]
pub struct StoredTenant {
    /// Its name.
    pub id: TenantId,
    /// What it is.
    pub terms: TenantTerms,
    /// When.
    pub times: Times,
}

/// What an administrator says of a tenant, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantTerms {
    /// Hosts that select it.
    pub hosts: Vec<String>,
    /// Limits of its users' sessions.
    pub sessions: SessionLimits,
}

/// The same as it is written, in the words of `[[tenants]]`.
#[derive(Debug, Clone, Default)]
pub struct WrittenTenant {
    /// Hosts.
    pub hosts: Vec<String>,
    /// A session that is not refreshed for so long ends: a duration such as `7d`.
    pub session_idle: Option<String>,
    /// A session ends after so long.
    pub session_ttl: Option<String>,
    /// A user has at most so many.
    pub max_sessions: Option<i64>,
}

/// A provider in the store.
#[derive(Debug, Clone)]
pub struct StoredProvider {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// As it was written.
    pub settings: Map<String, Value>,
    /// See [`Provider::generation`].
    pub generation: i64,
    /// When.
    pub times: Times,
}

/// Everything of this kind in the store, at one version.
#[derive(Debug, Clone, Default)]
pub struct StoredDirectory {
    /// Grows with every change.
    pub version: i64,
    /// Tenants.
    pub tenants: Vec<StoredTenant>,
    /// Providers.
    pub providers: Vec<StoredProvider>,
    /// Providers of the file that are switched off, by tenant and name.
    pub switched_off: Vec<(TenantId, String)>,
    /// Clients.
    pub clients: Vec<StoredClient>,
}

/// One change of the directory.
#[derive(Debug, Clone)]
pub enum DirectoryChange {
    /// A tenant is made or becomes another.
    PutTenant {
        /// Its name.
        id: TenantId,
        /// What it is.
        terms: TenantTerms,
    },
    /// A tenant of the API without users, providers and clients goes.
    DeleteTenant(TenantId),
    /// A provider is made or gets other settings.
    PutProvider {
        /// Its tenant.
        tenant: TenantId,
        /// Its name.
        name: String,
        /// As they are written.
        settings: Map<String, Value>,
    },
    /// A provider of the API goes.
    DeleteProvider {
        /// Its tenant.
        tenant: TenantId,
        /// Its name.
        name: String,
    },
    /// A provider of the file is switched off or on again.
    Switch {
        /// Its tenant.
        tenant: TenantId,
        /// Its name.
        name: String,
        /// Off.
        off: bool,
    },
    /// A client is made or becomes another.
    PutClient {
        /// Its tenant.
        tenant: TenantId,
        /// Its `client_id`.
        id: String,
        /// What it is.
        written: WrittenClient,
    },
    /// A client of the API goes.
    DeleteClient {
        /// Its tenant.
        tenant: TenantId,
        /// Its `client_id`.
        id: String,
    },
}

/// How a change ended in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is durable.
    Done,
    /// The store is at another version than the one that the change was judged by.
    Outdated,
    /// The tenant has users.
    HasUsers,
}

/// The directory in the store.
#[async_trait]
pub trait DirectoryStore: Send + Sync {
    /// The version: cheap, asked several times a second.
    async fn version(&self) -> Result<i64, StoreError>;
    /// Everything, at one version.
    async fn load(&self) -> Result<StoredDirectory, StoreError>;
    /// Writes a change, its audit record and the next version, if the store is at this version.
    async fn apply(&self, version: i64, change: DirectoryChange, author: Author) -> Result<Applied, StoreError>;
}

/// The rules of the configuration file, and the snapshot that sign-ins see.
pub trait DirectoryRules: Send + Sync {
    /// The version of the snapshot.
    fn version(&self) -> i64;
    /// Builds the snapshot of the file and this. What does not fit the rules is left out of sign-ins, and
    /// its entry says why.
    fn install(&self, stored: StoredDirectory);
    /// All tenants, by name.
    fn tenant_entries(&self) -> Vec<TenantEntry>;
    /// A tenant's providers, by name.
    fn provider_entries(&self, tenant: &TenantId) -> Vec<ProviderEntry>;
    /// Judges a tenant exactly as a table of the file, its hosts against those of all others.
    ///
    /// # Errors
    /// All that is wrong.
    fn check_tenant(&self, id: &TenantId, written: &WrittenTenant) -> Result<TenantTerms, Vec<String>>;
    /// Judges a provider's settings exactly as a table of the file.
    ///
    /// # Errors
    /// All that is wrong.
    fn check_provider(
        &self,
        tenant: &TenantId,
        name: &str,
        settings: &Map<String, Value>,
    ) -> Result<Provider, Vec<String>>;
    /// A tenant's clients, by `client_id`.
    fn client_entries(&self, tenant: &TenantId) -> Vec<ClientEntry>;
    /// The kind that a client's settings name, or the default one; `None` when they name none that there is.
    fn client_kind(&self, settings: &Map<String, Value>) -> Option<ClientKind>;
    /// Judges a client's settings exactly as a table of the file with these secrets.
    ///
    /// # Errors
    /// All that is wrong.
    fn check_client(
        &self,
        tenant: &TenantId,
        id: &str,
        settings: &Map<String, Value>,
        secret_hashes: &[[u8; 32]],
    ) -> Result<Client, Vec<String>>;
}

/// Why the directory does not change.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Against the rules.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    /// No such tenant.
    #[error("no tenant has this name")]
    UnknownTenant,
    /// No such provider.
    #[error("no provider of this tenant has this name")]
    UnknownProvider,
    /// No such client.
    #[error("no client of this tenant has this client_id")]
    UnknownClient,
    /// The file says what it is.
    #[error("{0} is managed by the configuration file; change it there")]
    ManagedByConfig(&'static str),
    /// There is one.
    #[error("{0} with this name is there already")]
    Exists(&'static str),
    /// It holds something.
    #[error("the tenant has {0}; remove them first")]
    NotEmpty(&'static str),
    /// Other changes were faster, again and again.
    #[error("other changes were being made at the same time; try again")]
    Busy,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DirectoryError {
    /// The stable word of the contract.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(_) => ErrorCode::InvalidSettings,
            Self::UnknownTenant => ErrorCode::UnknownTenant,
            Self::UnknownProvider => ErrorCode::UnknownProvider,
            Self::UnknownClient => ErrorCode::UnknownClient,
            Self::ManagedByConfig(_) => ErrorCode::ManagedByConfig,
            Self::Exists(_) => ErrorCode::AlreadyExists,
            Self::NotEmpty(_) => ErrorCode::TenantNotEmpty,
            Self::Busy | Self::Store(_) => ErrorCode::StoreUnavailable,
        }
    }
}

/// Whether a `PUT` may meet something that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// It must be new.
    Create,
    /// It must be there.
    Replace,
}

/// Reads and changes the directory.
pub struct DirectoryService {
    /// The store.
    pub store: Arc<dyn DirectoryStore>,
    /// The rules and the snapshot.
    pub rules: Arc<dyn DirectoryRules>,
}

impl DirectoryService {
    /// Brings the snapshot up to date with the store. `true` when it changed.
    ///
    /// # Errors
    /// When the store does not answer; the snapshot stays as it was.
    pub async fn refresh(&self) -> Result<bool, StoreError> {
        if self.store.version().await? == self.rules.version() {
            return Ok(false);
        }
        self.rules.install(self.store.load().await?);
        Ok(true)
    }

    /// All tenants, by name.
    #[must_use]
    pub fn tenants(&self) -> Vec<TenantEntry> {
        self.rules.tenant_entries()
    }

    /// A tenant.
    ///
    /// # Errors
    /// When there is none.
    pub fn tenant(&self, id: &TenantId) -> Result<TenantEntry, DirectoryError> {
        let mut all = self.rules.tenant_entries().into_iter();
        all.find(|entry| entry.tenant.id == *id).ok_or(DirectoryError::UnknownTenant)
    }

    /// A tenant's providers, by name.
    #[must_use]
    pub fn providers(&self, tenant: &TenantId) -> Vec<ProviderEntry> {
        self.rules.provider_entries(tenant)
    }

    /// A provider.
    ///
    /// # Errors
    /// When there is none.
    pub fn provider(&self, tenant: &TenantId, name: &str) -> Result<ProviderEntry, DirectoryError> {
        let mut all = self.rules.provider_entries(tenant).into_iter();
        all.find(|entry| *entry.name == *name).ok_or(DirectoryError::UnknownProvider)
    }

    /// Makes a tenant, or gives it other hosts and limits.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn put_tenant(
        &self,
        id: &TenantId,
        written: &WrittenTenant,
        write: Write,
        author: &Author,
    ) -> Result<TenantEntry, DirectoryError> {
        self.change(author, || {
            match (self.tenant(id), write) {
                (Ok(_), Write::Create) => return Err(DirectoryError::Exists("a tenant")),
                (Ok(TenantEntry { managed_by: ManagedBy::Config, .. }), Write::Replace) => {
                    return Err(DirectoryError::ManagedByConfig("the tenant"));
                }
                (Err(error), Write::Replace) => return Err(error),
                (Ok(_), Write::Replace) | (Err(_), Write::Create) => {}
            }
            let terms = self.rules.check_tenant(id, written).map_err(DirectoryError::Invalid)?;
            Ok(DirectoryChange::PutTenant { id: id.clone(), terms })
        })
        .await?;
        self.tenant(id)
    }

    /// Removes a tenant that has no users, providers or clients.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn delete_tenant(&self, id: &TenantId, author: &Author) -> Result<(), DirectoryError> {
        self.change(author, || {
            if self.tenant(id)?.managed_by == ManagedBy::Config {
                return Err(DirectoryError::ManagedByConfig("the tenant"));
            }
            if !self.providers(id).is_empty() {
                return Err(DirectoryError::NotEmpty("providers"));
            }
            if !self.clients(id).is_empty() {
                return Err(DirectoryError::NotEmpty("clients"));
            }
            Ok(DirectoryChange::DeleteTenant(id.clone()))
        })
        .await
    }

    /// Makes a provider, or gives it other settings.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn put_provider(
        &self,
        tenant: &TenantId,
        name: &str,
        settings: &Map<String, Value>,
        write: Write,
        author: &Author,
    ) -> Result<ProviderEntry, DirectoryError> {
        self.change(author, || {
            match (self.provider(tenant, name), write) {
                (Ok(_), Write::Create) => return Err(DirectoryError::Exists("a provider")),
                (Ok(ProviderEntry { managed_by: ManagedBy::Config, .. }), Write::Replace) => {
                    return Err(DirectoryError::ManagedByConfig("the provider"));
                }
                (Err(error), Write::Replace) => return Err(error),
                (Ok(_), Write::Replace) | (Err(_), Write::Create) => {}
            }
            self.rules.check_provider(tenant, name, settings).map_err(DirectoryError::Invalid)?;
            let (tenant, name, settings) = (tenant.clone(), name.to_owned(), settings.clone());
            Ok(DirectoryChange::PutProvider { tenant, name, settings })
        })
        .await?;
        self.provider(tenant, name)
    }

    /// Removes a provider. Its sessions are refused from then on; its identities stay with their users.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn delete_provider(
        &self,
        tenant: &TenantId,
        name: &str,
        author: &Author,
    ) -> Result<(), DirectoryError> {
        self.change(author, || {
            if self.provider(tenant, name)?.managed_by == ManagedBy::Config {
                return Err(DirectoryError::ManagedByConfig("the provider"));
            }
            Ok(DirectoryChange::DeleteProvider { tenant: tenant.clone(), name: name.to_owned() })
        })
        .await
    }

    /// Enables or disables a provider, whoever manages it. One that the file disables stays so.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn switch_provider(
        &self,
        tenant: &TenantId,
        name: &str,
        on: bool,
        author: &Author,
    ) -> Result<ProviderEntry, DirectoryError> {
        self.change(author, || {
            let entry = self.provider(tenant, name)?;
            let (tenant, name) = (tenant.clone(), name.to_owned());
            if entry.managed_by == ManagedBy::Config {
                let disabled_there = entry.settings.get("enabled") == Some(&Value::Bool(false));
                if on && disabled_there {
                    return Err(DirectoryError::ManagedByConfig("that the provider is disabled"));
                }
                return Ok(DirectoryChange::Switch { tenant, name, off: !on });
            }
            let mut settings = entry.settings;
            settings.insert("enabled".to_owned(), on.into());
            // One that breaks a rule can be disabled, and not enabled.
            if on {
                self.rules.check_provider(&tenant, &name, &settings).map_err(DirectoryError::Invalid)?;
            }
            Ok(DirectoryChange::PutProvider { tenant, name, settings })
        })
        .await?;
        self.provider(tenant, name)
    }

    /// Judges by the snapshot, writes if that is the newest, and looks again when it is not.
    pub(super) async fn change(
        &self,
        author: &Author,
        judge: impl Fn() -> Result<DirectoryChange, DirectoryError> + Send + Sync,
    ) -> Result<(), DirectoryError> {
        for _ in 0..TRIES {
            self.refresh().await?;
            let version = self.rules.version();
            let change = judge()?;
            match self.store.apply(version, change, author.clone()).await? {
                Applied::Done => {
                    self.refresh().await?;
                    return Ok(());
                }
                Applied::HasUsers => return Err(DirectoryError::NotEmpty("users")),
                Applied::Outdated => {}
            }
        }
        Err(DirectoryError::Busy)
    }
}

/// What the audit log holds of a tenant.
#[must_use]
pub fn audited_tenant(terms: &TenantTerms) -> Value {
    let TenantTerms { hosts, sessions: SessionLimits { idle, absolute, per_user } } = terms;
    let seconds = |limit: &Option<Duration>| limit.map(|duration| duration.as_secs());
    json!({
        "hosts": hosts,
        "session_idle_s": seconds(idle),
        "session_ttl_s": seconds(absolute),
        "max_sessions": per_user,
    })
}
