//! One transaction's work. What most sign-ins need goes through one statement for each table, whatever
//! the number of sign-ins: a JSON list goes in, and SQLite takes it apart (`jsonb_each`).

use std::collections::HashSet;

use data_encoding::HEXLOWER;
use sqlx::{Row, SqliteConnection};
use tokio::sync::oneshot;

use super::decisions::{self, DecisionRow};
use super::rows::{ContextRow, GrantRow, record_row};
use super::writer::{Command, Deliver, Task, after_commit, under_savepoint};
use super::{challenges, links, sessions, users};
use crate::ids::UserId;
use crate::signin::ports::{CommitResult, NewOutcome, SignInCommit, StoreError};
use crate::signin::record::SignInRecord;
use crate::signin::user::PlannedChange;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

#[derive(Default)]
pub(super) struct Batch {
    remember: Vec<([u8; 32], i64, i64, Reply<bool>)>,
    fast: Vec<(Box<SignInCommit>, Reply<CommitResult>)>,
    slow: Vec<(Box<SignInCommit>, Reply<CommitResult>)>,
    records: Vec<SignInRecord>,
    tasks: Vec<Box<dyn Task>>,
}

impl Batch {
    pub fn add(&mut self, command: Command) {
        match command {
            Command::Remember { key, until, now, reply } => {
                self.remember.push((key, until.as_millis(), now.as_millis(), reply));
            }
            Command::Commit { commit, reply } => {
                let returning = matches!(commit.change, PlannedChange::None);
                let plain = !matches!(commit.outcome, NewOutcome::Challenge(_));
                if returning && plain {
                    self.fast.push((commit, reply));
                } else {
                    self.slow.push((commit, reply));
                }
            }
            Command::Record(record) => self.records.push(*record),
            Command::Task(task) => self.tasks.push(task),
            Command::Close => {}
        }
    }

    /// What is left is not applied: whom to tell.
    pub fn abandon(self) -> Vec<Deliver> {
        let lost = || Err(sqlx::Error::WorkerCrashed);
        let remember = self.remember.into_iter().map(|(.., reply)| after_commit(reply, lost()));
        let commits = self
            .fast
            .into_iter()
            .chain(self.slow)
            .map(|(_, reply)| after_commit(reply, Err(sqlx::Error::WorkerCrashed)));
        let tasks = self.tasks.into_iter().map(|task| task.abandon());
        remember.chain(commits).chain(tasks).collect()
    }

    /// Applies everything. On an error nobody may be told of success.
    pub async fn apply(mut self, connection: &mut SqliteConnection) -> (Vec<Deliver>, Result<(), sqlx::Error>) {
        let mut deliver = Vec::new();
        let result = self.apply_all(connection, &mut deliver).await;
        // After an error: those that were not reached.
        deliver.extend(self.abandon());
        (deliver, result)
    }

    async fn apply_all(
        &mut self,
        connection: &mut SqliteConnection,
        deliver: &mut Vec<Deliver>,
    ) -> Result<(), sqlx::Error> {
        remember(connection, &mut self.remember, deliver).await?;
        let mut records = of_present(connection, std::mem::take(&mut self.records)).await?;
        let limits: Vec<_> = self.fast.iter().filter_map(|(commit, _)| session_limit(&commit.outcome)).collect();
        let newest = self.fast.iter().map(|(commit, _)| commit.record.at).max().unwrap_or_default();
        let mut frozen = Vec::new();
        commit_fast(connection, &mut self.fast, &mut records, &mut frozen, deliver).await?;
        for (commit, reply) in self.slow.drain(..) {
            let result = under_savepoint(connection, move |c| Box::pin(commit_slow(c, commit))).await;
            deliver.push(after_commit(reply, result));
        }
        insert_records(connection, &records).await?;
        sessions::keep_within(connection, &limits, newest).await?;
        decisions::insert(connection, &frozen).await?;
        for task in self.tasks.drain(..) {
            deliver.push(task.run(connection).await);
        }
        Ok(())
    }
}

pub(super) fn json(rows: &impl serde::Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(rows).map_err(|e| sqlx::Error::Encode(Box::new(e)))
}

/// The first to bring a key gets `true`; a key whose time has passed counts as new.
async fn remember(
    connection: &mut SqliteConnection,
    wanted: &mut Vec<([u8; 32], i64, i64, Reply<bool>)>,
    deliver: &mut Vec<Deliver>,
) -> Result<(), sqlx::Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    let rows: Vec<(String, i64, i64)> =
        wanted.iter().map(|(k, until, now, _)| (HEXLOWER.encode(k), *until, *now)).collect();
    let rows_json = json(&rows)?;
    let row = sqlx::query(
        "SELECT group_concat(lower(hex(r.key))) FROM jsonb_each(?1) j \
         JOIN replays r ON r.key = unhex(j.value ->> 0) WHERE r.expires_at > (j.value ->> 2)",
    )
    .bind(&rows_json)
    .fetch_one(&mut *connection)
    .await?;
    let held: Option<String> = row.try_get(0)?;
    let mut seen: HashSet<String> = held.iter().flat_map(|list| list.split(',')).map(str::to_owned).collect();
    sqlx::query(
        "INSERT INTO replays (key, expires_at) SELECT unhex(value ->> 0), value ->> 1 FROM jsonb_each(?1) WHERE true \
         ON CONFLICT (key) DO UPDATE SET expires_at = max(expires_at, excluded.expires_at)",
    )
    .bind(&rows_json)
    .execute(&mut *connection)
    .await?;
    for ((.., reply), (key, ..)) in wanted.drain(..).zip(rows) {
        deliver.push(after_commit(reply, Ok(seen.insert(key))));
    }
    Ok(())
}

/// Returning users whose profile stays: three statements for all of them, after one that asks which of
/// them are still active and have their identity.
async fn commit_fast(
    connection: &mut SqliteConnection,
    commits: &mut Vec<(Box<SignInCommit>, Reply<CommitResult>)>,
    records: &mut Vec<SignInRecord>,
    frozen: &mut Vec<DecisionRow>,
    deliver: &mut Vec<Deliver>,
) -> Result<(), sqlx::Error> {
    if commits.is_empty() {
        return Ok(());
    }
    let hex = |commit: &SignInCommit| commit.record.user.map(|u| HEXLOWER.encode(u.as_bytes())).unwrap_or_default();
    let users: Vec<_> = commits
        .iter()
        .map(|(c, _)| match &c.came_by {
            Some(by) => (hex(c), Some(by.tenant.as_str()), &*by.provider, &*by.issuer, &*by.subject),
            None => (hex(c), None, "", "", ""),
        })
        .collect();
    let row = sqlx::query(
        "SELECT group_concat(j.key) FROM jsonb_each(?1) j \
         JOIN users u ON u.id = unhex(j.value ->> 0) AND u.status = 'active' \
         WHERE j.value ->> 1 IS NULL OR EXISTS (SELECT 1 FROM identities i WHERE i.tenant = j.value ->> 1 \
         AND i.provider = j.value ->> 2 AND i.issuer = j.value ->> 3 AND i.subject = j.value ->> 4 AND i.user_id = u.id)",
    )
    .bind(json(&users)?)
    .fetch_one(&mut *connection)
    .await?;
    let good: Option<String> = row.try_get(0)?;
    let good: HashSet<usize> =
        good.iter().flat_map(|list| list.split(',')).filter_map(|n| n.parse().ok()).collect();
    let (mut sessions, mut refreshes) = (Vec::new(), Vec::new());
    for (place, (commit, reply)) in commits.drain(..).enumerate() {
        let user = hex(&commit);
        if !good.contains(&place) {
            deliver.push(after_commit(reply, Ok(CommitResult::Conflict)));
            continue;
        }
        if let NewOutcome::Session(session) = &commit.outcome {
            let id = HEXLOWER.encode(session.id.as_bytes());
            if let Some(refresh) = &session.refresh {
                let (token, hash) = (HEXLOWER.encode(refresh.id.as_bytes()), HEXLOWER.encode(&refresh.secret_hash));
                refreshes.push((token, id.clone(), hash, refresh.expires_at.as_millis()));
            }
            sessions.push((
                id,
                user,
                GrantRow::from(&session.grant).to_json()?,
                session.created_at.as_millis(),
                session.ends_at.map(|t| t.as_millis()),
                session.device.map(|d| HEXLOWER.encode(&d)),
                session.idle_at.as_millis(),
                session.grant.upstream_sid.map(|sid| HEXLOWER.encode(&sid)),
            ));
        }
        let (tenant, id) = (&commit.record.tenant, commit.record.id);
        frozen.extend(commit.sealed.map(|sealed| DecisionRow { tenant: tenant.clone(), id, sealed }));
        records.push(commit.record);
        deliver.push(after_commit(reply, Ok(CommitResult::Done)));
    }
    if !sessions.is_empty() {
        sqlx::query(
            "INSERT INTO sessions (id, user_id, \"grant\", created_at, ends_at, device, idle_at, upstream_sid) \
             SELECT unhex(value ->> 0), unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4, unhex(value ->> 5), \
             value ->> 6, unhex(value ->> 7) FROM jsonb_each(?1)",
        )
        .bind(json(&sessions)?)
        .execute(&mut *connection)
        .await?;
    }
    if !refreshes.is_empty() {
        sqlx::query(
            "INSERT INTO refresh_tokens (id, session_id, secret_hash, expires_at) \
             SELECT unhex(value ->> 0), unhex(value ->> 1), unhex(value ->> 2), value ->> 3 FROM jsonb_each(?1)",
        )
        .bind(json(&refreshes)?)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

pub(super) async fn insert_records(
    connection: &mut SqliteConnection,
    records: &[SignInRecord],
) -> Result<(), sqlx::Error> {
    if records.is_empty() {
        return Ok(());
    }
    let rows = records.iter().map(record_row).collect::<Result<Vec<_>, _>>()?;
    sqlx::query(
        "INSERT INTO sign_ins (user_id, id, at, tenant, provider, \"end\", code, device, agent, prefix, country, asn, \
         latitude, longitude, accuracy, score, level, assessment, session_id) \
         SELECT unhex(value ->> '$[0][0]'), unhex(value ->> '$[0][1]'), value ->> '$[0][2]', \
         value ->> '$[1][0]', value ->> '$[1][1]', value ->> '$[1][2]', value ->> '$[1][3]', \
         value ->> '$[2][0]', value ->> '$[2][1]', value ->> '$[2][2]', value ->> '$[2][3]', value ->> '$[2][4]', \
         value ->> '$[2][5]', value ->> '$[2][6]', value ->> '$[2][7]', \
         value ->> '$[3][0]', value ->> '$[3][1]', value ->> '$[3][2]', unhex(value ->> '$[4]') FROM jsonb_each(?1)",
    )
    .bind(json(&rows)?)
    .execute(connection)
    .await
    .map(|_| ())
}

/// Records that were made outside of a transaction: those of users who were erased meanwhile are dropped.
pub(super) async fn insert_late_records(
    connection: &mut SqliteConnection,
    records: Vec<SignInRecord>,
) -> Result<(), sqlx::Error> {
    let records = of_present(connection, records).await?;
    insert_records(connection, &records).await
}

async fn of_present(
    connection: &mut SqliteConnection,
    mut records: Vec<SignInRecord>,
) -> Result<Vec<SignInRecord>, sqlx::Error> {
    let users: HashSet<UserId> = records.iter().filter_map(|record| record.user).collect();
    if !users.is_empty() {
        let users: Vec<String> = users.iter().map(|user| HEXLOWER.encode(user.as_bytes())).collect();
        let row = sqlx::query(
            "SELECT group_concat(lower(hex(id))) FROM users \
             WHERE id IN (SELECT unhex(value) FROM jsonb_each(?1)) AND status = 'deleted'",
        )
        .bind(json(&users)?)
        .fetch_one(connection)
        .await?;
        if let Some(erased) = row.try_get::<Option<String>, _>(0)? {
            records.retain(|r| r.user.is_none_or(|user| !erased.contains(&HEXLOWER.encode(user.as_bytes()))));
        }
    }
    Ok(records)
}

/// A sign-in that changes a user or ends in a challenge: single statements, all or nothing.
async fn commit_slow(
    connection: &mut SqliteConnection,
    commit: Box<SignInCommit>,
) -> Result<CommitResult, sqlx::Error> {
    let SignInCommit { change, came_by, outcome, record, sealed } = *commit;
    if let Some(identity) = &came_by
        && links::owner(&mut *connection, identity).await? != record.user
    {
        return undo(connection).await;
    }
    // What changes nothing of the user looks here; the other changes look themselves.
    if let (PlannedChange::None, Some(user)) = (&change, record.user)
        && !users::is_active(&mut *connection, user).await?
    {
        return undo(connection).await;
    }
    let changed = users::apply(connection, &change, record.at).await;
    match changed {
        Ok(true) => {}
        Ok(false) => return undo(connection).await,
        Err(error) if is_unique_violation(&error) => return undo(connection).await,
        Err(error) => return Err(error),
    }
    match &outcome {
        NewOutcome::Session(session) => sessions::insert(connection, session).await?,
        NewOutcome::Challenge(challenge) => challenges::insert(connection, challenge).await?,
        NewOutcome::Denial => {}
    }
    insert_records(&mut *connection, std::slice::from_ref(&record)).await?;
    if let Some(limit) = session_limit(&outcome) {
        sessions::keep_within(connection, &[limit], record.at).await?;
    }
    if let Some(sealed) = sealed {
        decisions::insert(connection, &[DecisionRow { tenant: record.tenant, id: record.id, sealed }]).await?;
    }
    Ok(CommitResult::Done)
}

/// How many sessions the user of a new one may have.
fn session_limit(outcome: &NewOutcome) -> Option<(UserId, u32)> {
    match outcome {
        NewOutcome::Session(session) => session.grant.caps.sessions.map(|most| (session.grant.user, most)),
        NewOutcome::Challenge(_) | NewOutcome::Denial => None,
    }
}

/// Takes back what this command wrote, and keeps its savepoint for the caller to release.
async fn undo(connection: &mut SqliteConnection) -> Result<CommitResult, sqlx::Error> {
    sqlx::query("ROLLBACK TO one").execute(connection).await?;
    Ok(CommitResult::Conflict)
}

fn is_unique_violation(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(e) if e.is_unique_violation())
}

impl ContextRow {
    pub(super) fn to_json(&self) -> Result<String, sqlx::Error> {
        json(self)
    }
}
