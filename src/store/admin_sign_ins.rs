//! Records of sign-ins as administrators read them.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqlitePool};

use super::rows::{AssessmentRow, ContextRow, bytes, end_number, from_json, level_number, tenant};
use super::{Store, failed, unreadable};
use crate::admin::page::{Page, Paged};
use crate::admin::users::{EXPORTED_SIGN_INS, EndCount, SignInFilter, SignInLog};
use crate::clock::UnixTime;
use crate::ids::{EventId, SessionId, TenantId, UserId};
use crate::signin::history::PastEnd;
use crate::signin::ports::StoreError;
use crate::signin::record::SignInRecord;

const RECORD: &str = "SELECT s.user_id, s.id, s.at, s.tenant, s.provider, s.\"end\", s.code, s.device, s.agent, s.prefix, \
    s.country, s.asn, s.latitude, s.longitude, s.accuracy, s.assessment, s.session_id FROM sign_ins s WHERE ";
const NOBODY: [u8; 16] = [0; 16];

#[async_trait]
impl SignInLog for Store {
    async fn list_sign_ins(&self, filter: &SignInFilter, page: &Page) -> Result<Paged<SignInRecord>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(RECORD);
        match filter.user {
            // The plus keeps SQLite from the index of the tenant: the table is clustered by user.
            Some(user) => {
                query.push("s.user_id = ").push_bind(user.as_bytes().to_vec());
                query.push(" AND +s.tenant = ").push_bind(filter.tenant.as_str().to_owned());
            }
            None => {
                query.push("s.tenant = ").push_bind(filter.tenant.as_str().to_owned());
            }
        }
        if let Some(after) = page.after() {
            query.push(" AND s.id < ").push_bind(after.to_vec());
        }
        if let Some(from) = filter.from {
            query.push(" AND s.id >= ").push_bind(first_id(from));
        }
        if let Some(until) = filter.until {
            query.push(" AND s.id < ").push_bind(first_id(until));
        }
        if let Some(provider) = &filter.provider {
            query.push(" AND s.provider = ").push_bind(provider.clone());
        }
        if let Some(end) = filter.end {
            query.push(" AND s.\"end\" = ").push_bind(i64::try_from(end_number(end)).unwrap_or(-1));
        }
        if let Some(level) = filter.level {
            query.push(" AND s.level = ").push_bind(i64::from(level_number(level)));
        }
        query.push(" ORDER BY s.id DESC LIMIT ").push_bind(page.rows_to_read());
        let rows = query.build().fetch_all(&self.pool).await.map_err(failed)?;
        let records: Vec<SignInRecord> = rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)?;
        Ok(page.cut(records, |record| record.id.as_bytes().to_vec()))
    }

    async fn find_sign_in(&self, tenant: &TenantId, id: EventId) -> Result<Option<SignInRecord>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(RECORD);
        query.push("s.tenant = ").push_bind(tenant.as_str().to_owned());
        query.push(" AND s.id = ").push_bind(id.as_bytes().to_vec());
        let row = query.build().fetch_optional(&self.pool).await.map_err(failed)?;
        row.as_ref().map(read).transpose().map_err(failed)
    }

    async fn count_ends(
        &self,
        tenant: &TenantId,
        provider: &str,
        from: UnixTime,
    ) -> Result<Vec<EndCount>, StoreError> {
        let rows = sqlx::query(
            "SELECT s.\"end\", s.code, count(*) FROM sign_ins s WHERE s.tenant = ?1 AND s.id >= ?2 \
             AND s.provider = ?3 GROUP BY s.\"end\", s.code ORDER BY s.\"end\", s.code",
        )
        .bind(tenant.as_str())
        .bind(first_id(from))
        .bind(provider)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let read = |row: &SqliteRow| -> Result<EndCount, sqlx::Error> {
            let count: i64 = row.try_get(2)?;
            Ok(EndCount {
                end: end(row.try_get(0)?)?,
                code: row.try_get(1)?,
                count: u64::try_from(count).unwrap_or(0),
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
    }
}

/// All records of a user, newest first.
pub(super) async fn of_user(
    pool: &SqlitePool,
    tenant: &TenantId,
    user: UserId,
) -> Result<Vec<SignInRecord>, sqlx::Error> {
    let mut query = QueryBuilder::<Sqlite>::new(RECORD);
    query.push("s.user_id = ").push_bind(user.as_bytes().to_vec());
    query.push(" AND +s.tenant = ").push_bind(tenant.as_str().to_owned());
    query.push(" ORDER BY s.id DESC LIMIT ").push_bind(i64::from(EXPORTED_SIGN_INS));
    query.build().fetch_all(pool).await?.iter().map(read).collect()
}

/// The least identifier of a moment: 48 bits of milliseconds, then zeros.
fn first_id(at: UnixTime) -> Vec<u8> {
    let mut id = NOBODY;
    let ms = u64::try_from(at.as_millis()).unwrap_or(0);
    id[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
    id.to_vec()
}

fn end(stored: i64) -> Result<PastEnd, sqlx::Error> {
    let end = usize::try_from(stored).ok().and_then(|number| PastEnd::ALL.get(number));
    end.copied().ok_or_else(|| unreadable("the end of a sign-in"))
}

fn read(row: &SqliteRow) -> Result<SignInRecord, sqlx::Error> {
    let user: [u8; 16] = bytes(row.try_get(0)?)?;
    let assessment: Option<&str> = row.try_get(15)?;
    let session: Option<&[u8]> = row.try_get(16)?;
    let context = ContextRow::of_columns(row, 7)?;
    Ok(SignInRecord {
        id: EventId::from_bytes(bytes(row.try_get(1)?)?),
        at: UnixTime::from_millis(row.try_get(2)?),
        tenant: tenant(row.try_get(3)?)?,
        provider: row.try_get::<&str, _>(4)?.into(),
        user: (user != NOBODY).then(|| UserId::from_bytes(user)),
        end: end(row.try_get(5)?)?,
        code: row.try_get::<Option<&str>, _>(6)?.map(Arc::from),
        context: context.into(),
        assessment: assessment.map(from_json::<AssessmentRow>).transpose()?.map(Into::into),
        session: session.map(|s| bytes(s).map(SessionId::from_bytes)).transpose()?,
    })
}
