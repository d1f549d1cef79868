//! The writer: the only task that writes, all waiting commands in one transaction.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::{Trouble, batch, failed, maintenance, trouble};
use crate::clock::UnixTime;
use crate::signin::ports::{CommitResult, SignInCommit, StoreError};
use crate::signin::record::SignInRecord;

/// The most commands in one transaction.
const BATCH: usize = 256;
/// How often leftovers are looked for.
const MAINTENANCE: Duration = Duration::from_secs(5);

pub(super) enum Command {
    Remember { key: [u8; 32], until: UnixTime, now: UnixTime, reply: oneshot::Sender<Result<bool, StoreError>> },
    Commit { commit: Box<SignInCommit>, reply: oneshot::Sender<Result<CommitResult, StoreError>> },
    Record(Box<SignInRecord>),
    Task(Box<dyn Task>),
    Close,
}

/// What to tell a waiting caller, once it is known whether the transaction was committed.
pub(super) type Deliver = Box<dyn FnOnce(Result<(), &str>) + Send>;

/// A rare write, with its statements and its waiting caller.
pub(super) trait Task: Send {
    fn run(self: Box<Self>, connection: &mut SqliteConnection) -> BoxFuture<'_, Deliver>;

    /// It does not run: whom to tell.
    fn abandon(self: Box<Self>) -> Deliver;
}

pub(super) struct Write<T, F> {
    pub work: F,
    pub reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Task for Write<T, F>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static,
{
    fn run(self: Box<Self>, connection: &mut SqliteConnection) -> BoxFuture<'_, Deliver> {
        Box::pin(async move {
            let result = under_savepoint(connection, self.work).await;
            after_commit(self.reply, result)
        })
    }

    fn abandon(self: Box<Self>) -> Deliver {
        after_commit(self.reply, Err(sqlx::Error::WorkerCrashed))
    }
}

/// Runs statements so that an error among them undoes them all, and nothing else of the transaction.
pub(super) async fn under_savepoint<T, F>(connection: &mut SqliteConnection, work: F) -> Result<T, sqlx::Error>
where
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send,
{
    sqlx::query("SAVEPOINT one").execute(&mut *connection).await?;
    let result = work(&mut *connection).await;
    if result.is_err() {
        sqlx::query("ROLLBACK TO one").execute(&mut *connection).await?;
    }
    sqlx::query("RELEASE one").execute(&mut *connection).await?;
    result
}

/// The result goes out after the commit; if there is none, the trouble does.
pub(super) fn after_commit<T: Send + 'static>(
    reply: oneshot::Sender<Result<T, StoreError>>,
    result: Result<T, sqlx::Error>,
) -> Deliver {
    Box::new(move |committed| {
        let told = match committed {
            Ok(()) => result.map_err(failed),
            Err(why) => Err(trouble(Trouble::Batch(why.to_owned()))),
        };
        // A caller that went away does not want to know.
        let _ = reply.send(told);
    })
}

/// Runs until the store is closed.
pub(super) async fn run(
    options: SqliteConnectOptions,
    connection: SqliteConnection,
    mut commands: mpsc::Receiver<Command>,
) {
    let mut connection = Some(connection);
    let mut waiting = Vec::with_capacity(BATCH);
    let mut keeper = maintenance::Keeper::default();
    let mut tick = tokio::time::interval(MAINTENANCE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let received = tokio::select! {
            received = commands.recv_many(&mut waiting, BATCH) => received,
            _ = tick.tick() => {
                if let Some(open) = &mut connection
                    && let Err(error) = keeper.run(open).await
                {
                    tracing::warn!(error = %error, "leftovers in the store could not be removed");
                }
                continue;
            }
        };
        if received == 0 {
            break;
        }
        let closing = waiting.iter().any(|c| matches!(c, Command::Close));
        if connection.is_none() {
            connection = reconnect(&options).await;
        }
        if !apply(&mut connection, &mut waiting, &mut keeper).await {
            connection = None;
        }
        if closing {
            break;
        }
    }
    if let Some(mut open) = connection {
        let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut open).await;
        let _ = open.close().await;
    }
}

async fn reconnect(options: &SqliteConnectOptions) -> Option<SqliteConnection> {
    match options.connect().await {
        Ok(connection) => {
            tracing::warn!("the store was opened again after a failure");
            Some(connection)
        }
        Err(error) => {
            tracing::error!(error = %error, "the store cannot be opened");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Applies all waiting commands and answers them. `false` when the connection is of no use any more.
async fn apply(
    connection: &mut Option<SqliteConnection>,
    waiting: &mut Vec<Command>,
    keeper: &mut maintenance::Keeper,
) -> bool {
    let started = Instant::now();
    let size = waiting.len();
    let mut work = batch::Batch::default();
    for command in waiting.drain(..) {
        keeper.saw(&command);
        work.add(command);
    }
    let (deliver, committed) = match connection {
        Some(open) => transaction(open, work).await,
        None => (work.abandon(), Err("the store cannot be opened".to_owned())),
    };
    if let Err(why) = &committed {
        tracing::error!(error = why, commands = size, "a transaction was not committed");
    }
    let told = committed.as_ref().copied().map_err(String::as_str);
    deliver.into_iter().for_each(|d| d(told));
    metrics::histogram!("countersign_store_batch_size").record(size as f64);
    metrics::histogram!("countersign_store_commit_seconds").record(started.elapsed().as_secs_f64());
    committed.is_ok()
}

async fn transaction(connection: &mut SqliteConnection, work: batch::Batch) -> (Vec<Deliver>, Result<(), String>) {
    if let Err(error) = sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await {
        return (work.abandon(), Err(error.to_string()));
    }
    let (deliver, applied) = work.apply(&mut *connection).await;
    let ended = match applied {
        Ok(()) => sqlx::query("COMMIT").execute(&mut *connection).await.map(|_| ()),
        Err(error) => Err(error),
    };
    if ended.is_err() {
        let _ = sqlx::query("ROLLBACK").execute(&mut *connection).await;
    }
    (deliver, ended.map_err(|e| e.to_string()))
}
