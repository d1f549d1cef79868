//! What is common among a tenant's sign-ins, read now and then beside the sign-in path.

use sqlx::{Row, SqlitePool};

use super::{Store, failed, unreadable};
use crate::clock::UnixTime;
use crate::ids::TenantId;
use crate::signin::history::HISTORY_DAYS;
use crate::signin::likelihood::{COUNTED_SIGN_INS, Commonness, Feature, Surroundings};
use crate::signin::ports::StoreError;

/// Where a tenant's sign-ins and disputes end. The same mark twice: nothing new to count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommonnessMark(Option<Vec<u8>>, Option<i64>);

/// A limit that is bound is read once for each row, so it stands in the text.
const _: () = assert!(COUNTED_SIGN_INS == 40_000);

impl Store {
    /// Where a tenant's sign-ins and disputes end.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn commonness_mark(&self, tenant: &TenantId) -> Result<CommonnessMark, StoreError> {
        let row = sqlx::query(
            "SELECT (SELECT max(id) FROM sign_ins WHERE tenant = ?1),
                    (SELECT max(at) FROM sign_in_labels WHERE tenant = ?1)",
        )
        .bind(tenant.as_str())
        .fetch_one(&self.pool)
        .await
        .map_err(failed)?;
        let read = || Ok(CommonnessMark(row.try_get(0)?, row.try_get(1)?));
        read().map_err(failed)
    }

    /// Counts the newest completed sign-ins of a tenant that nobody disputes, at most 180 days back. Takes
    /// some 100 ms of a reading connection for a tenant that has them all.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn commonness(&self, tenant: &TenantId, now: UnixTime) -> Result<Commonness, StoreError> {
        let oldest = now.minus(std::time::Duration::from_secs(HISTORY_DAYS * 86_400));
        count(&self.pool, tenant, oldest).await.map_err(failed)
    }
}

/// The first identifier of a moment: identifiers are time-ordered.
fn first_id(at: UnixTime) -> Vec<u8> {
    let mut id = vec![0; 16];
    id[..6].copy_from_slice(&u64::try_from(at.as_millis()).unwrap_or(0).to_be_bytes()[2..]);
    id
}

async fn count(pool: &SqlitePool, tenant: &TenantId, oldest: UnixTime) -> Result<Commonness, sqlx::Error> {
    let rows = sqlx::query(
        "WITH recent AS MATERIALIZED (
             SELECT prefix, asn, country, device, agent FROM sign_ins
             WHERE tenant = ?1 AND id >= ?2 AND \"end\" <= 1 AND disputed = 0
             ORDER BY id DESC LIMIT 40000
         )
         SELECT 0, prefix, NULL, count(*) FROM recent GROUP BY prefix
         UNION ALL SELECT 1, asn, NULL, count(*) FROM recent GROUP BY asn
         UNION ALL SELECT 2, NULL, country, count(*) FROM recent GROUP BY country
         UNION ALL SELECT 3, device, NULL, count(*) FROM recent GROUP BY device
         UNION ALL SELECT 4, agent, NULL, count(*) FROM recent GROUP BY agent",
    )
    .bind(tenant.as_str())
    .bind(first_id(oldest))
    .fetch_all(pool)
    .await?;
    let mut all = Commonness::default();
    for row in &rows {
        let feature = usize::try_from(row.try_get::<i64, _>(0)?).ok().and_then(|n| Feature::ALL.get(n).copied());
        let number = row.try_get::<Option<i64>, _>(1)?.map(i64::cast_unsigned);
        let word = row.try_get::<Option<&str>, _>(2)?.map(Surroundings::country);
        let times = u32::try_from(row.try_get::<i64, _>(3)?).unwrap_or(u32::MAX);
        all.add(feature.ok_or_else(|| unreadable("a feature"))?, number.or(word), times);
    }
    Ok(all)
}
