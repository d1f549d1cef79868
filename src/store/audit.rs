//! The audit log. A change writes its record in its own transaction, through [`record`].

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::rows::{bytes, from_json, tenant};
use super::{Store, failed, unreadable};
use crate::admin::audit::{Actor, AuditFilter, AuditRecord, Author, Change};
use crate::admin::page::{Page, Paged};
use crate::admin::ports::AuditLog;
use crate::clock::UnixTime;
use crate::ids::EventId;
use crate::signin::ports::StoreError;
use crate::signin::record::SubjectChanged;

const DAY_MS: i64 = 86_400_000;

/// Writes the record of a change. Call it in the transaction of the change, after it.
pub(super) async fn record(
    connection: &mut SqliteConnection,
    author: &Author,
    change: &Change,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO audit (id, at, tenant, actor, action, target, difference, request) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(author.event.as_bytes().to_vec())
    .bind(author.at.as_millis())
    .bind(author.tenant.as_ref().map(|t| t.as_str().to_owned()))
    .bind(author.actor.to_string())
    .bind(change.action)
    .bind(change.target.as_str())
    .bind(change.difference.to_string())
    .bind(author.request.map(|r| r.to_string()))
    .execute(connection)
    .await
    .map(|_| ())
}

const SUBJECT_CHANGED: &str = "user.subject_changed";

/// Writes that a user's address came under another subject, unless the day before has told so of this provider:
/// whoever has the address could fill the log else.
pub(super) async fn note_changed_subject(
    connection: &mut SqliteConnection,
    noted: SubjectChanged,
) -> Result<(), sqlx::Error> {
    let target = noted.user.to_string();
    let told: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM audit WHERE target = ?1 AND tenant = ?2 AND action = ?3 AND at > ?4 \
         AND json_extract(difference, '$.provider.after') = ?5)",
    )
    .bind(target.as_str())
    .bind(noted.tenant.as_str())
    .bind(SUBJECT_CHANGED)
    .bind(noted.at.as_millis().saturating_sub(DAY_MS))
    .bind(&*noted.provider)
    .fetch_one(&mut *connection)
    .await?;
    if told {
        return Ok(());
    }
    let author = Author {
        event: noted.event,
        at: noted.at,
        actor: Actor::System,
        tenant: Some(noted.tenant),
        request: Some(noted.request),
    };
    let after = json!({"provider": &*noted.provider, "sign_in": noted.sign_in.to_string()});
    record(connection, &author, &Change::between(SUBJECT_CHANGED, target, &Value::Null, &after)).await
}

#[async_trait]
impl AuditLog for Store {
    async fn record(&self, author: Author, tried: Change) -> Result<(), StoreError> {
        self.write(move |c| Box::pin(async move { record(c, &author, &tried).await })).await
    }

    async fn list(&self, filter: &AuditFilter, page: &Page) -> Result<Paged<AuditRecord>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(
            "SELECT id, at, tenant, actor, action, target, difference, request FROM audit WHERE true",
        );
        if let Some(after) = page.after() {
            query.push(" AND seq < (SELECT seq FROM audit WHERE id = ").push_bind(after.to_vec()).push(")");
        }
        if let Some(tenant) = &filter.tenant {
            query.push(" AND tenant = ").push_bind(tenant.as_str().to_owned());
        }
        if let Some(actor) = &filter.actor {
            query.push(" AND actor = ").push_bind(actor.to_string());
        }
        if let Some(action) = &filter.action {
            if action.ends_with('.') {
                query.push(" AND substr(action, 1, ").push_bind(i64::try_from(action.len()).unwrap_or(0));
                query.push(") = ").push_bind(action.clone());
            } else {
                query.push(" AND action = ").push_bind(action.clone());
            }
        }
        if let Some(target) = &filter.target {
            query.push(" AND target = ").push_bind(target.clone());
        }
        if let Some(from) = filter.from {
            query.push(" AND at >= ").push_bind(from.as_millis());
        }
        if let Some(until) = filter.until {
            query.push(" AND at < ").push_bind(until.as_millis());
        }
        query.push(" ORDER BY seq DESC LIMIT ").push_bind(page.rows_to_read());
        let rows = query.build().fetch_all(&self.pool).await.map_err(failed)?;
        let records: Vec<AuditRecord> = rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)?;
        Ok(page.cut(records, |record| record.author.event.as_bytes().to_vec()))
    }
}

fn read(row: &SqliteRow) -> Result<AuditRecord, sqlx::Error> {
    let request: Option<&str> = row.try_get(7)?;
    let author = Author {
        event: EventId::from_bytes(bytes(row.try_get(0)?)?),
        at: UnixTime::from_millis(row.try_get(1)?),
        tenant: row.try_get::<Option<&str>, _>(2)?.map(tenant).transpose()?,
        actor: row.try_get::<&str, _>(3)?.parse().map_err(|_| unreadable("an actor"))?,
        request: request.map(|r| r.parse().map_err(|_| unreadable("a request id"))).transpose()?,
    };
    Ok(AuditRecord {
        author,
        action: row.try_get(4)?,
        target: row.try_get(5)?,
        difference: from_json(row.try_get(6)?)?,
    })
}
