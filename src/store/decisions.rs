//! Decision records: frozen facts and their trace, sealed for each tenant.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::{Row, SqliteConnection, SqlitePool};

use super::batch::json;
use super::frozen::{FrozenDecision, FrozenFacts};
use super::rows::bytes;
use super::{Store, failed, unreadable};
use crate::clock::UnixTime;
use crate::ids::{EventId, TenantId};
use crate::policy::explain::{StoredDecision, Trace};
use crate::signin::assessment::AssessedSignIn;
use crate::signin::decision::Decision;
use crate::signin::history::{ContextPrint, Pseudonyms};
use crate::signin::ports::{DecisionLog, SealedDecision, StoreError};
use crate::vault::{Sealer, Vault};

/// Seals and opens decision records. Every tenant has a key of its own.
pub struct DecisionRecords {
    vault: Vault,
    pseudonyms: Pseudonyms,
    keep: Duration,
    sealers: RwLock<HashMap<TenantId, Arc<Sealer>>>,
}

impl DecisionRecords {
    /// With the server's keys. `keep`: how long records stay; zero keeps none.
    #[must_use]
    pub fn new(vault: Vault, pseudonyms: Pseudonyms, keep: Duration) -> Self {
        Self { vault, pseudonyms, keep, sealers: RwLock::default() }
    }

    fn sealer(&self, tenant: &TenantId) -> Arc<Sealer> {
        if let Some(sealer) = self.sealers.read().unwrap_or_else(PoisonError::into_inner).get(tenant) {
            return Arc::clone(sealer);
        }
        let sealer = Arc::new(sealer_of(&self.vault, tenant.as_str()));
        let mut all = self.sealers.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(tenant.clone()).or_insert(sealer))
    }

    fn open(&self, tenant: &TenantId, id: EventId, sealed: &[u8]) -> Result<StoredDecision, sqlx::Error> {
        let mut body = sealed.to_vec();
        let plain = self.sealer(tenant).open(id.as_bytes(), &mut body);
        let plain = plain.map_err(|_| unreadable("a decision record: it does not open with this master key"))?;
        let frozen: FrozenDecision = serde_json::from_slice(plain).map_err(|_| unreadable("a decision record"))?;
        let facts = frozen.facts.thaw(tenant.clone()).ok_or_else(|| unreadable("a decision record"))?;
        Ok(StoredDecision { id, tenant: tenant.clone(), facts, trace: frozen.trace })
    }
}

/// What seals the records of a tenant; the context is the record's identifier.
pub(super) fn sealer_of(vault: &Vault, tenant: &str) -> Sealer {
    vault.sealer(&format!("decision records of {tenant}"))
}

impl DecisionLog for DecisionRecords {
    fn freeze(&self, id: EventId, assessed: &AssessedSignIn, decision: &Decision) -> Option<SealedDecision> {
        if self.keep.is_zero() {
            return None;
        }
        let facts = assessed.facts();
        let frozen = FrozenDecision {
            facts: FrozenFacts::of(facts, assessed.context(), &self.pseudonyms),
            trace: Trace::of(assessed.assessment(), decision),
        };
        let plain = serde_json::to_vec(&frozen).ok()?;
        let bytes = self.sealer(&facts.tenant).seal(id.as_bytes(), plain);
        Some(SealedDecision { bytes, expires_at: facts.request.time.plus(self.keep) })
    }
}

/// A decision record to be written.
pub(super) struct DecisionRow {
    pub tenant: TenantId,
    pub id: EventId,
    pub sealed: SealedDecision,
}

/// One statement for all: the bodies go in as one blob, and each row takes its part.
pub(super) async fn insert(connection: &mut SqliteConnection, rows: &[DecisionRow]) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut bodies = Vec::with_capacity(rows.iter().map(|row| row.sealed.bytes.len()).sum());
    let mut list = Vec::with_capacity(rows.len());
    for row in rows {
        let id = data_encoding::HEXLOWER.encode(row.id.as_bytes());
        let from = bodies.len() + 1;
        bodies.extend_from_slice(&row.sealed.bytes);
        list.push((row.tenant.as_str(), id, row.sealed.expires_at.as_millis(), from, row.sealed.bytes.len()));
    }
    sqlx::query(
        "INSERT INTO decisions (tenant, id, expires_at, sealed) \
         SELECT value ->> 0, unhex(value ->> 1), value ->> 2, substr(?2, value ->> 3, value ->> 4) FROM jsonb_each(?1)",
    )
    .bind(json(&list)?)
    .bind(bodies)
    .execute(connection)
    .await
    .map(|_| ())
}

/// The first identifier of a moment.
fn first_id(at: UnixTime) -> [u8; 16] {
    let mut id = [0; 16];
    let ms = u64::try_from(at.as_millis()).unwrap_or(0).to_be_bytes();
    id[..6].copy_from_slice(&ms[2..]);
    id
}

/// A part of a tenant's records, as sealed rows.
async fn page(
    pool: &SqlitePool,
    tenant: &TenantId,
    after: [u8; 16],
    limit: i64,
) -> Result<Vec<(EventId, Vec<u8>)>, sqlx::Error> {
    let rows = sqlx::query("SELECT id, sealed FROM decisions WHERE tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3")
        .bind(tenant.as_str())
        .bind(after.to_vec())
        .bind(limit)
        .fetch_all(pool)
        .await?;
    rows.iter().map(|row| Ok((EventId::from_bytes(bytes(row.try_get(0)?)?), row.try_get(1)?))).collect()
}

/// Sealed records, to be opened where there is time for it.
pub struct SealedPage {
    tenant: TenantId,
    rows: Vec<(EventId, Vec<u8>)>,
}

impl SealedPage {
    /// The last identifier: where the next page begins.
    #[must_use]
    pub fn last(&self) -> Option<EventId> {
        self.rows.last().map(|(id, _)| *id)
    }

    /// Opens all of them.
    ///
    /// # Errors
    /// When one does not open.
    pub fn open(&self, records: &DecisionRecords) -> Result<Vec<StoredDecision>, StoreError> {
        self.rows
            .iter()
            .map(|(id, sealed)| records.open(&self.tenant, *id, sealed))
            .collect::<Result<_, _>>()
            .map_err(failed)
    }
}

impl Store {
    /// Sealed decision records of a tenant from a moment on, or after an identifier.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn sealed_decisions(
        &self,
        tenant: &TenantId,
        since: UnixTime,
        after: Option<EventId>,
        limit: i64,
    ) -> Result<SealedPage, StoreError> {
        let from = after.map_or_else(|| first_id(since), |id| *id.as_bytes());
        let rows = page(&self.pool, tenant, from, limit).await.map_err(failed)?;
        Ok(SealedPage { tenant: tenant.clone(), rows })
    }

    /// Writes decision records as they are, for measuring: sign-ins write theirs with their own commit.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn import_decisions(
        &self,
        records: &DecisionRecords,
        decisions: Vec<StoredDecision>,
    ) -> Result<(), StoreError> {
        let mut rows = Vec::with_capacity(decisions.len());
        for decision in decisions {
            let (tenant, id, at) = (decision.tenant.clone(), decision.id, decision.at());
            let context = ContextPrint::of(&decision.facts.request, tenant.as_str(), &records.pseudonyms);
            let facts = FrozenFacts::of(&decision.facts, &context, &records.pseudonyms);
            let frozen = FrozenDecision { facts, trace: decision.trace };
            let plain = serde_json::to_vec(&frozen).map_err(|e| StoreError(Box::new(e)))?;
            let bytes = records.sealer(&tenant).seal(id.as_bytes(), plain);
            rows.push(DecisionRow {
                tenant,
                id,
                sealed: SealedDecision { bytes, expires_at: at.plus(records.keep) },
            });
        }
        self.write(move |c| Box::pin(async move { insert(c, &rows).await })).await
    }

    /// How many decision records a tenant has from a moment on.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn count_decisions(&self, tenant: &TenantId, since: UnixTime) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT count(*) FROM decisions WHERE tenant = ?1 AND id > ?2")
            .bind(tenant.as_str())
            .bind(first_id(since).to_vec())
            .fetch_one(&self.pool)
            .await
            .map_err(failed)?;
        row.try_get::<i64, _>(0).map(|n| n.unsigned_abs()).map_err(failed)
    }

    /// One decision, of this tenant or, for an operator, of any.
    ///
    /// # Errors
    /// When the store does not answer, or the record does not open.
    pub async fn find_decision(
        &self,
        records: &DecisionRecords,
        tenant: Option<&TenantId>,
        id: EventId,
    ) -> Result<Option<StoredDecision>, StoreError> {
        let row =
            sqlx::query("SELECT tenant, sealed FROM decisions WHERE id = ?1 AND tenant = coalesce(?2, tenant)")
                .bind(id.as_bytes().to_vec())
                .bind(tenant.map(TenantId::as_str))
                .fetch_optional(&self.pool)
                .await
                .map_err(failed)?;
        let Some(row) = row else { return Ok(None) };
        let tenant = super::rows::tenant(row.try_get(0).map_err(failed)?).map_err(failed)?;
        let sealed: Vec<u8> = row.try_get(1).map_err(failed)?;
        records.open(&tenant, id, &sealed).map(Some).map_err(failed)
    }
}
