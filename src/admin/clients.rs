//! OAuth clients that administrators manage, beside those of the configuration file: stored, judged, followed
//! and changed as providers are; see [`super::directory`].

use std::sync::Arc;

use serde_json::{Map, Value};

use super::audit::Author;
use super::directory::{DirectoryChange, DirectoryError, DirectoryService, ManagedBy, Times};
use crate::ids::TenantId;
use crate::secret::{Entropy, Secret, sha256};
use crate::session::clients::{Client, ClientKind};

/// A client as it stands now.
#[derive(Debug, Clone)]
pub struct ClientEntry {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its `client_id`.
    pub id: Arc<str>,
    /// Who manages it.
    pub managed_by: ManagedBy,
    /// The settings in the words of `[[clients]]`, without `secret_hash`.
    pub settings: Map<String, Value>,
    /// SHA-256 of its secrets, the newest first: two while one follows the other, none for a public client.
    pub secret_hashes: Vec<[u8; 32]>,
    /// Checked; `None` when this node cannot use it, and `problems` tell why.
    pub client: Option<Arc<Client>>,
    /// Why it cannot be used.
    pub problems: Vec<String>,
    /// When it was made and last changed, if here.
    pub times: Option<Times>,
}

/// A client in the store.
#[derive(Debug, Clone)]
pub struct StoredClient {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its `client_id`.
    pub id: String,
    /// As it was written.
    pub settings: Map<String, Value>,
    /// SHA-256 of its secrets, the newest first.
    pub secret_hashes: Vec<[u8; 32]>,
    /// See [`Client::generation`].
    pub generation: i64,
    /// When.
    pub times: Times,
}

/// What is written of a client.
#[derive(Debug, Clone)]
pub struct WrittenClient {
    /// In the words of `[[clients]]`.
    pub settings: Map<String, Value>,
    /// SHA-256 of its secrets, the newest first.
    pub secret_hashes: Vec<[u8; 32]>,
    /// What it is called in the audit log.
    pub action: &'static str,
}

/// A secret, in the form that the client sends.
fn new_secret(entropy: &dyn Entropy) -> Secret {
    Secret::new(Secret::random(32, entropy).to_base64url().into_bytes())
}

impl DirectoryService {
    /// A tenant's clients, by `client_id`.
    #[must_use]
    pub fn clients(&self, tenant: &TenantId) -> Vec<ClientEntry> {
        self.rules.client_entries(tenant)
    }

    /// A client.
    ///
    /// # Errors
    /// When there is none.
    pub fn client(&self, tenant: &TenantId, id: &str) -> Result<ClientEntry, DirectoryError> {
        let mut all = self.rules.client_entries(tenant).into_iter();
        all.find(|entry| *entry.id == *id).ok_or(DirectoryError::UnknownClient)
    }

    /// One of this API.
    fn own_client(&self, tenant: &TenantId, id: &str) -> Result<ClientEntry, DirectoryError> {
        let entry = self.client(tenant, id)?;
        match entry.managed_by {
            ManagedBy::Api => Ok(entry),
            ManagedBy::Config => Err(DirectoryError::ManagedByConfig("the client")),
        }
    }

    /// Makes a client. A confidential one gets a secret, which is told this once.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn create_client(
        &self,
        tenant: &TenantId,
        id: &str,
        settings: &Map<String, Value>,
        entropy: &dyn Entropy,
        author: &Author,
    ) -> Result<(ClientEntry, Option<Secret>), DirectoryError> {
        let confidential = self.rules.client_kind(settings).is_some_and(ClientKind::is_confidential);
        let secret = confidential.then(|| new_secret(entropy));
        let entry = self.put_client(author, tenant, id, || match self.client(tenant, id) {
            Ok(_) => Err(DirectoryError::Exists("a client")),
            Err(_) => Ok(WrittenClient {
                settings: settings.clone(),
                secret_hashes: secret.iter().map(|secret| sha256(secret.expose())).collect(),
                action: "client.create",
            }),
        });
        entry.await.map(|entry| (entry, secret))
    }

    /// Gives a client other settings: all of them, but for its kind, which stays. Its secrets stay too.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn update_client(
        &self,
        tenant: &TenantId,
        id: &str,
        settings: &Map<String, Value>,
        author: &Author,
    ) -> Result<ClientEntry, DirectoryError> {
        self.put_client(author, tenant, id, || {
            let entry = self.own_client(tenant, id)?;
            if self.rules.client_kind(settings) != self.rules.client_kind(&entry.settings) {
                let text = "kind is another one; a client keeps its kind: remove it and make a new one";
                return Err(DirectoryError::Invalid(vec![text.to_owned()]));
            }
            let settings = settings.clone();
            Ok(WrittenClient { settings, secret_hashes: entry.secret_hashes, action: "client.update" })
        })
        .await
    }

    /// Makes a new secret of a confidential client, told this once. The one before it stays good beside it, or
    /// ends at once; older ones end.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn renew_client_secret(
        &self,
        tenant: &TenantId,
        id: &str,
        keep_previous: bool,
        entropy: &dyn Entropy,
        author: &Author,
    ) -> Result<(ClientEntry, Secret), DirectoryError> {
        let secret = new_secret(entropy);
        let hash = sha256(secret.expose());
        let entry = self.put_client(author, tenant, id, || {
            let entry = self.own_client(tenant, id)?;
            if self.rules.client_kind(&entry.settings).is_some_and(|kind| !kind.is_confidential()) {
                let text = "a client of kind spa or native cannot keep a secret, and has none";
                return Err(DirectoryError::Invalid(vec![text.to_owned()]));
            }
            let kept = entry.secret_hashes.into_iter().take(usize::from(keep_previous));
            let secret_hashes = std::iter::once(hash).chain(kept).collect();
            Ok(WrittenClient { settings: entry.settings, secret_hashes, action: "client.secret" })
        });
        entry.await.map(|entry| (entry, secret))
    }

    /// Ends all secrets of a client but the newest.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn end_previous_client_secret(
        &self,
        tenant: &TenantId,
        id: &str,
        author: &Author,
    ) -> Result<ClientEntry, DirectoryError> {
        self.put_client(author, tenant, id, || {
            let entry = self.own_client(tenant, id)?;
            let secret_hashes = entry.secret_hashes.into_iter().take(1).collect();
            Ok(WrittenClient { settings: entry.settings, secret_hashes, action: "client.secret_end" })
        })
        .await
    }

    /// Removes a client. Its tokens and challenges are refused from then on, also when one of its `client_id` is
    /// made again.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn delete_client(&self, tenant: &TenantId, id: &str, author: &Author) -> Result<(), DirectoryError> {
        self.change(author, || {
            self.own_client(tenant, id)?;
            Ok(DirectoryChange::DeleteClient { tenant: tenant.clone(), id: id.to_owned() })
        })
        .await
    }

    async fn put_client(
        &self,
        author: &Author,
        tenant: &TenantId,
        id: &str,
        judge: impl Fn() -> Result<WrittenClient, DirectoryError> + Send + Sync,
    ) -> Result<ClientEntry, DirectoryError> {
        self.change(author, || {
            let written = judge()?;
            let WrittenClient { settings, secret_hashes, .. } = &written;
            let checked = self.rules.check_client(tenant, id, settings, secret_hashes);
            checked.map_err(DirectoryError::Invalid)?;
            Ok(DirectoryChange::PutClient { tenant: tenant.clone(), id: id.to_owned(), written })
        })
        .await?;
        self.client(tenant, id)
    }
}

/// What the audit log holds of a client: never a secret or its hash.
#[must_use]
pub fn audited_client(settings: &Map<String, Value>, secrets: usize) -> Value {
    let mut audited = settings.clone();
    audited.insert("secrets".to_owned(), secrets.into());
    Value::Object(audited)
}
