//! The store on SQLite, behind the ports of the core.
//!
//! One writer task owns the only connection that writes. It takes all commands that wait, applies them
//! in one transaction, and answers them after the commit: an answer that left is durable
//! (`synchronous = FULL`). The look-up of the sign-in path is batched in the same way by a reader task
//! with a connection of its own; reads never wait for the writer. Deliberately absent: deferred
//! transactions, a statement for each sign-in, an update of `users` by a sign-in that changes nothing.

mod admin_keys;
mod admin_sign_ins;
mod admin_users;
mod audit;
mod backup_codes;
mod batch;
mod challenges;
pub mod commonness;
pub mod decisions;
mod deliveries;
mod devices;
mod directory;
mod erase;
mod export;
mod factors;
mod frozen;
mod invitations;
mod keys;
mod links;
mod maintenance;
mod open;
mod passwords;
pub mod policies;
mod read_only;
mod reader;
mod reseal;
mod rows;
mod sessions;
#[cfg(test)]
mod tests;
mod upstream;
mod users;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use sqlx::{SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot};

pub use open::{MigrationReport, OpenError, StoreOptions};
pub use read_only::Peek;

use crate::clock::UnixTime;
use crate::ids::{TenantId, UserId};
use crate::signin::ports::{CommitResult, NewLinkOffer, Outcomes, ReplayGuard, SignInCommit, StoreError, Users};
use crate::signin::record::{SignInRecord, SubjectChanged};
use crate::signin::user::{IdentityKey, Invited, KnownUser, UserStatus};
use reader::Lookup;
use writer::{Command, Task, Write};

/// How long a caller waits for a place in the queue of the writer or reader.
const QUEUE_TIME: std::time::Duration = std::time::Duration::from_secs(5);

/// The store. Implements every port that the core has for it.
pub struct Store {
    writes: mpsc::Sender<Command>,
    lookups: mpsc::Sender<Lookup>,
    pool: SqlitePool,
    tasks: std::sync::Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the store is closing or its task has ended")]
    Gone,
    #[error("the store's queue was full for 5 s")]
    Full,
    #[error("a stored row cannot be read: {0}")]
    Row(&'static str),
    #[error("the transaction was not committed: {0}")]
    Batch(String),
}

fn trouble(trouble: Trouble) -> StoreError {
    StoreError(Box::new(trouble))
}

fn failed(error: sqlx::Error) -> StoreError {
    StoreError(Box::new(error))
}

/// A row that does not read as what we wrote.
fn unreadable(what: &'static str) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(Trouble::Row(what)))
}

impl Store {
    /// Opens the store, brings its schema up to date and starts its tasks. The file is made when it is
    /// absent, readable by its owner alone.
    ///
    /// # Errors
    /// When the address is of another kind, or the file cannot be opened or migrated.
    pub async fn open(options: &StoreOptions) -> Result<Arc<Self>, OpenError> {
        let opened = open::open(options).await?;
        let (writes, commands) = mpsc::channel(1024);
        let (lookups, wanted) = mpsc::channel(1024);
        let tasks = vec![
            tokio::spawn(writer::run(opened.options, opened.writer, commands)),
            tokio::spawn(reader::run(opened.reader, wanted)),
        ];
        Ok(Arc::new(Self { writes, lookups, pool: opened.pool, tasks: tasks.into() }))
    }

    /// Brings the schema up to date and does nothing else.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn migrate(options: &StoreOptions) -> Result<MigrationReport, OpenError> {
        let opened = open::open(options).await?;
        opened.pool.close().await;
        Ok(opened.report)
    }

    /// Whether writer and reader answer.
    ///
    /// # Errors
    /// When one of them does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.write(|_| Box::pin(async { Ok(()) })).await?;
        sqlx::query("SELECT 1").execute(&self.pool).await.map_err(failed).map(|_| ())
    }

    /// Lets waiting writes finish, then closes. Further calls fail.
    pub async fn close(&self) {
        let _ = self.writes.send(Command::Close).await;
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let mut tasks = tasks.into_iter();
        if let Some(writer) = tasks.next() {
            let _ = writer.await;
        }
        tasks.for_each(|task| task.abort());
        self.pool.close().await;
    }

    /// Sets whether a user may sign in.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn set_user_status(&self, user: UserId, status: UserStatus) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE users SET status = ?2 WHERE id = ?1")
                    .bind(user.as_bytes().to_vec())
                    .bind(status.as_str())
                    .execute(connection)
                    .await
                    .map(|_| ())
            })
        })
        .await
    }

    /// The codes of refusals and events that are recorded of a user, oldest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn recorded_codes(&self, user: UserId) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar("SELECT code FROM sign_ins WHERE user_id = ?1 AND code IS NOT NULL ORDER BY id")
            .bind(user.as_bytes().to_vec())
            .fetch_all(&self.pool)
            .await
            .map_err(failed)
    }

    async fn send(&self, command: Command) -> Result<(), StoreError> {
        match tokio::time::timeout(QUEUE_TIME, self.writes.send(command)).await {
            Ok(sent) => sent.map_err(|_| trouble(Trouble::Gone)),
            Err(_) => Err(trouble(Trouble::Full)),
        }
    }

    /// Runs a write inside the next transaction, under a savepoint of its own; answers after the commit.
    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task: Box<dyn Task> = Box::new(Write { work, reply });
        self.send(Command::Task(task)).await?;
        answer.await.map_err(|_| trouble(Trouble::Gone))?
    }

    async fn look_up(&self, wanted: reader::Wanted, now: UnixTime) -> Result<Option<KnownUser>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let lookup = Lookup { wanted, now, reply };
        match tokio::time::timeout(QUEUE_TIME, self.lookups.send(lookup)).await {
            Ok(sent) => sent.map_err(|_| trouble(Trouble::Gone))?,
            Err(_) => return Err(trouble(Trouble::Full)),
        }
        answer.await.map_err(|_| trouble(Trouble::Gone))?
    }
}

#[async_trait]
impl ReplayGuard for Store {
    async fn remember(&self, key: [u8; 32], until: UnixTime, now: UnixTime) -> Result<bool, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Remember { key, until, now, reply }).await?;
        answer.await.map_err(|_| trouble(Trouble::Gone))?
    }
}

#[async_trait]
impl Outcomes for Store {
    async fn commit(&self, commit: SignInCommit) -> Result<CommitResult, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Commit { commit: Box::new(commit), reply }).await?;
        answer.await.map_err(|_| trouble(Trouble::Gone))?
    }

    async fn offer_link(&self, offer: NewLinkOffer) -> Result<(), StoreError> {
        self.write(move |connection| Box::pin(links::insert_offer(connection, offer))).await
    }

    async fn note_changed_subject(&self, noted: SubjectChanged) -> Result<(), StoreError> {
        self.write(move |connection| Box::pin(audit::note_changed_subject(connection, noted))).await
    }

    fn record_refusal(&self, record: SignInRecord) {
        if self.writes.try_send(Command::Record(Box::new(record))).is_err() {
            metrics::counter!("countersign_store_records_dropped_total").increment(1);
        }
    }
}

#[async_trait]
impl Users for Store {
    async fn find_by_identity(&self, key: &IdentityKey, now: UnixTime) -> Result<Option<KnownUser>, StoreError> {
        self.look_up(reader::Wanted::Identity(key.clone()), now).await
    }

    async fn find_by_verified_email(
        &self,
        tenant: &TenantId,
        address: &str,
        now: UnixTime,
    ) -> Result<Option<KnownUser>, StoreError> {
        match self.find_verified_holder(tenant, address).await? {
            Some(user) => self.look_up(reader::Wanted::User(user), now).await,
            None => Ok(None),
        }
    }

    async fn find_verified_holder(&self, tenant: &TenantId, address: &str) -> Result<Option<UserId>, StoreError> {
        users::find_verified_holder(&self.pool, tenant, address).await.map_err(failed)
    }

    async fn find_invitation(
        &self,
        key: &IdentityKey,
        verified_email: Option<&str>,
        now: UnixTime,
    ) -> Result<Option<Invited>, StoreError> {
        invitations::find(&self.pool, key, verified_email, now).await.map_err(failed)
    }

    async fn has_other_subject(&self, user: UserId, key: &IdentityKey) -> Result<bool, StoreError> {
        users::has_other_subject(&self.pool, user, key).await.map_err(failed)
    }
}
