//! Bundles, activations, shadows and labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::batch::json as json_list;
use super::decisions::DecisionRecords;
use super::rows::{bytes, from_json, tenant as tenant_of};
use super::{Store, audit, failed, unreadable};
use crate::admin::audit::{Author, Change};
use crate::clock::UnixTime;
use crate::ids::{EventId, TenantId, UserId};
use crate::mfa::CHALLENGE_TTL;
use crate::policy::bundle::Bundle;
use crate::policy::explain::{ShadowOutcome, StoredDecision};
use crate::policy::ports::{DecisionPage, Decisions, NewActivation, PolicyStore};
use crate::policy::switch::Switch;
use crate::policy::{
    Activation, BundleInfo, Label, NodeState, OwnSignIn, Scope, Shadow, ShadowCounts, ShadowDifference,
};
use crate::secret::same;
use crate::signin::history::PastEnd;
use crate::signin::ports::StoreError;

/// Records of one page of a replay.
const PAGE: i64 = 1000;
/// Nodes that were silent for so long are forgotten.
const SILENT_MS: i64 = 60_000;
/// Differences of shadows that are kept, over all tenants.
const DIFFERENCES: i64 = 100_000;

fn scope_text(scope: &Scope) -> &str {
    scope.tenant().map_or("", TenantId::as_str)
}

fn scope_of(text: &str) -> Result<Scope, sqlx::Error> {
    if text.is_empty() { Ok(Scope::All) } else { tenant_of(text).map(Scope::Tenant) }
}

fn time(row: &SqliteRow, column: &str) -> Result<UnixTime, sqlx::Error> {
    row.try_get(column).map(UnixTime::from_millis)
}

fn activation(row: &SqliteRow) -> Result<Activation, sqlx::Error> {
    Ok(Activation {
        seq: row.try_get("seq")?,
        scope: scope_of(row.try_get("scope")?)?,
        bundle: row.try_get("bundle")?,
        previous: row.try_get("previous")?,
        actor: row.try_get("actor")?,
        note: row.try_get("note")?,
        at: time(row, "at")?,
        goes_back: row.try_get("goes_back")?,
    })
}

fn info(row: &SqliteRow) -> Result<BundleInfo, sqlx::Error> {
    Ok(BundleInfo {
        id: row.try_get("id")?,
        owner: scope_of(row.try_get("owner")?)?,
        created_at: time(row, "created_at")?,
        created_by: row.try_get("created_by")?,
        note: row.try_get("note")?,
        checked_at: row.try_get::<Option<i64>, _>("checked_at")?.map(UnixTime::from_millis),
        signature: row.try_get("signature")?,
    })
}

fn bundle(row: &SqliteRow) -> Result<(Bundle, BundleInfo), sqlx::Error> {
    let files: BTreeMap<String, Arc<str>> = from_json(row.try_get("files")?)?;
    let changed = || unreadable("a bundle: its content is not what its name says");
    let bundle = Bundle::new(files).map_err(|_| changed())?;
    let info = info(row)?;
    let sha256: Vec<u8> = row.try_get("sha256")?;
    if bundle.id() != info.id || !same(bundle.sha256(), &sha256) {
        return Err(changed());
    }
    Ok((bundle, info))
}

fn all<T>(rows: &[SqliteRow], read: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>) -> Result<Vec<T>, StoreError> {
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

/// Marks a sign-in, and the one that came of it when its challenge was passed: that one has the surroundings and the
/// assessment of the first, within the life of a challenge.
async fn dispute(c: &mut SqliteConnection, label: &Label) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE sign_ins SET disputed = EXISTS (SELECT 1 FROM sign_in_labels \
             WHERE tenant = ?1 AND sign_in = ?2 AND disputed = 1) \
         WHERE user_id = ?3 AND (id = ?2 OR id IN ( \
             SELECT p.id FROM sign_ins c JOIN sign_ins p ON p.user_id = c.user_id \
                 AND p.at BETWEEN c.at AND c.at + ?4 AND p.provider = c.provider AND p.device IS c.device \
                 AND p.agent IS c.agent AND p.prefix IS c.prefix AND p.assessment IS c.assessment \
             WHERE c.user_id = ?3 AND c.id = ?2 AND c.\"end\" = ?5 AND p.\"end\" = ?6))",
    )
    .bind(label.tenant.as_str())
    .bind(label.sign_in.as_bytes().to_vec())
    .bind(label.user.as_bytes().to_vec())
    .bind(count(CHALLENGE_TTL.as_secs()) * 1000)
    .bind(PastEnd::Challenged as i64)
    .bind(PastEnd::MfaPassed as i64)
    .execute(c)
    .await
    .map(|_| ())
}

fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[async_trait]
impl PolicyStore for Store {
    async fn put_bundle(&self, bundle: Arc<Bundle>, info: BundleInfo, author: Author) -> Result<bool, StoreError> {
        self.write(move |c| {
            Box::pin(async move {
                let added = sqlx::query(
                    "INSERT INTO policy_bundles (id, sha256, files, owner, created_at, created_by, note, signature) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO UPDATE SET signature = ?8 \
                     WHERE ?8 IS NOT NULL AND signature IS NOT ?8 AND sha256 = ?2",
                )
                .bind(&info.id)
                .bind(bundle.sha256().to_vec())
                .bind(json_list(bundle.files())?)
                .bind(scope_text(&info.owner))
                .bind(info.created_at.as_millis())
                .bind(&info.created_by)
                .bind(&info.note)
                .bind(&info.signature)
                .execute(&mut *c)
                .await?;
                if added.rows_affected() == 1 {
                    let after = json!({"note": info.note, "files": bundle.files().len(), "signed": info.signature.is_some()});
                    let change = Change::between("policy.draft", info.id.clone(), &Value::Null, &after);
                    audit::record(&mut *c, &author, &change).await?;
                }
                let row = sqlx::query("SELECT sha256 FROM policy_bundles WHERE id = ?1").bind(&info.id);
                let held: Vec<u8> = row.fetch_one(&mut *c).await?.try_get(0)?;
                Ok(same(&held, bundle.sha256()))
            })
        })
        .await
    }

    async fn find_bundle(&self, id: &str) -> Result<Option<(Bundle, BundleInfo)>, StoreError> {
        let query = sqlx::query("SELECT * FROM policy_bundles WHERE id = ?1").bind(id);
        let row = query.fetch_optional(&self.pool).await.map_err(failed)?;
        row.as_ref().map(bundle).transpose().map_err(failed)
    }

    async fn bundles(&self, owner: Option<&TenantId>, limit: i64) -> Result<Vec<BundleInfo>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, owner, created_at, created_by, note, checked_at, signature FROM policy_bundles \
             WHERE ?1 IS NULL OR owner IN ('', ?1) ORDER BY created_at DESC, id LIMIT ?2",
        )
        .bind(owner.map(TenantId::as_str))
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        all(&rows, info)
    }

    async fn mark_checked(&self, id: &str, at: UnixTime) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.write(move |c| {
            Box::pin(async move {
                let sql = "UPDATE policy_bundles SET checked_at = coalesce(checked_at, ?2) WHERE id = ?1";
                sqlx::query(sql).bind(id).bind(at.as_millis()).execute(c).await.map(|_| ())
            })
        })
        .await
    }

    async fn activate(&self, new: NewActivation) -> Result<Option<Activation>, StoreError> {
        self.write(move |c| {
            Box::pin(async move {
                let row = sqlx::query(
                    "INSERT INTO policy_activations (scope, bundle, previous, actor, note, at, goes_back) SELECT ?1, ?2, \
                     (SELECT bundle FROM policy_activations WHERE scope = ?1 ORDER BY seq DESC LIMIT 1), ?3, ?4, ?5, ?6 \
                     WHERE ?7 IS NULL \
                        OR ?7 = coalesce((SELECT max(seq) FROM policy_activations WHERE scope = ?1), 0) RETURNING *",
                )
                .bind(scope_text(&new.scope))
                .bind(&new.bundle)
                .bind(new.author.actor.to_string())
                .bind(&new.note)
                .bind(new.author.at.as_millis())
                .bind(new.goes_back)
                .bind(new.after)
                .fetch_optional(&mut *c)
                .await?;
                let Some(row) = row else { return Ok(None) };
                let made = activation(&row)?;
                let (before, after) = (json!({"bundle": made.previous}), json!({"bundle": made.bundle}));
                let change = Change::between("policy.activate", made.scope.to_string(), &before, &after);
                audit::record(c, &new.author, &change).await?;
                Ok(Some(made))
            })
        })
        .await
    }

    async fn activations(&self, scope: Option<&Scope>, limit: i64) -> Result<Vec<Activation>, StoreError> {
        let sql = "SELECT * FROM policy_activations WHERE ?1 IS NULL OR scope = ?1 ORDER BY seq DESC LIMIT ?2";
        let query = sqlx::query(sql).bind(scope.map(scope_text)).bind(limit);
        all(&query.fetch_all(&self.pool).await.map_err(failed)?, activation)
    }

    async fn in_force_at(&self, seq: i64) -> Result<Vec<Activation>, StoreError> {
        let sql = "SELECT * FROM policy_activations WHERE seq IN \
                   (SELECT max(seq) FROM policy_activations WHERE seq <= ?1 GROUP BY scope) ORDER BY scope";
        all(&sqlx::query(sql).bind(seq).fetch_all(&self.pool).await.map_err(failed)?, activation)
    }

    async fn marks(&self) -> Result<(i64, i64), StoreError> {
        let sql = "SELECT coalesce((SELECT max(seq) FROM policy_activations), 0), \
                   coalesce((SELECT max(seq) FROM policy_switches), 0)";
        sqlx::query_as(sql).fetch_one(&self.pool).await.map_err(failed)
    }

    async fn switch(&self, switch: Switch) -> Result<(), StoreError> {
        self.write(move |c| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO policy_switches (seq, at, node, laggards) SELECT ?1, ?2, ?3, ?4 \
                     WHERE NOT EXISTS (SELECT 1 FROM policy_switches WHERE seq >= ?1)",
                )
                .bind(switch.seq)
                .bind(switch.at.as_millis())
                .bind(&switch.node)
                .bind(json_list(&switch.laggards)?)
                .execute(c)
                .await
                .map(|_| ())
            })
        })
        .await
    }

    async fn last_switch(&self) -> Result<Option<Switch>, StoreError> {
        let query = sqlx::query("SELECT * FROM policy_switches ORDER BY seq DESC LIMIT 1");
        let row = query.fetch_optional(&self.pool).await.map_err(failed)?;
        let read = |row: &SqliteRow| {
            Ok(Switch {
                seq: row.try_get("seq")?,
                at: time(row, "at")?,
                node: row.try_get("node")?,
                laggards: from_json(row.try_get("laggards")?)?,
            })
        };
        row.as_ref().map(read).transpose().map_err(failed)
    }

    async fn acknowledge(&self, state: NodeState) -> Result<(), StoreError> {
        self.write(move |c| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO policy_nodes (node, seq, error, seen_at, ready) VALUES (?1, ?2, ?3, ?4, ?5) \
                     ON CONFLICT (node) DO UPDATE SET seq = ?2, error = ?3, seen_at = ?4, ready = ?5",
                )
                .bind(&state.node)
                .bind(state.seq)
                .bind(&state.error)
                .bind(state.seen_at.as_millis())
                .bind(state.ready)
                .execute(&mut *c)
                .await?;
                let silent = state.seen_at.as_millis() - SILENT_MS;
                sqlx::query("DELETE FROM policy_nodes WHERE seen_at < ?1").bind(silent).execute(c).await.map(|_| ())
            })
        })
        .await
    }

    async fn leave(&self, node: &str) -> Result<(), StoreError> {
        let node = node.to_owned();
        self.write(move |c| {
            Box::pin(async move {
                sqlx::query("DELETE FROM policy_nodes WHERE node = ?1").bind(node).execute(c).await.map(|_| ())
            })
        })
        .await
    }

    async fn nodes(&self) -> Result<Vec<NodeState>, StoreError> {
        let rows = sqlx::query("SELECT * FROM policy_nodes ORDER BY node").fetch_all(&self.pool).await;
        all(&rows.map_err(failed)?, |row| {
            Ok(NodeState {
                node: row.try_get("node")?,
                seq: row.try_get("seq")?,
                ready: row.try_get("ready")?,
                error: row.try_get("error")?,
                seen_at: time(row, "seen_at")?,
            })
        })
    }

    async fn set_shadows(&self, tenant: &TenantId, bundles: Vec<String>, author: Author) -> Result<(), StoreError> {
        let tenant = tenant.as_str().to_owned();
        self.write(move |c| {
            Box::pin(async move {
                let wanted = json_list(&bundles)?;
                sqlx::query(
                    "DELETE FROM policy_shadows WHERE tenant = ?1 AND bundle NOT IN (SELECT value FROM json_each(?2))",
                )
                .bind(&tenant)
                .bind(&wanted)
                .execute(&mut *c)
                .await?;
                sqlx::query(
                    "INSERT INTO policy_shadows (tenant, bundle, since) \
                     SELECT ?1, value, ?3 FROM json_each(?2) WHERE true ON CONFLICT DO NOTHING",
                )
                .bind(&tenant)
                .bind(&wanted)
                .bind(author.at.as_millis())
                .execute(&mut *c)
                .await?;
                let after = json!({"candidates": bundles});
                audit::record(c, &author, &Change::between("policy.shadow", tenant, &Value::Null, &after)).await
            })
        })
        .await
    }

    async fn shadows(&self, tenant: Option<&TenantId>) -> Result<Vec<Shadow>, StoreError> {
        let sql = "SELECT * FROM policy_shadows WHERE ?1 IS NULL OR tenant = ?1 ORDER BY tenant, since, bundle";
        let rows = sqlx::query(sql).bind(tenant.map(TenantId::as_str)).fetch_all(&self.pool).await;
        all(&rows.map_err(failed)?, |row| {
            let n = |column: &str| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
            Ok(Shadow {
                tenant: tenant_of(row.try_get("tenant")?)?,
                bundle: row.try_get("bundle")?,
                since: time(row, "since")?,
                counts: ShadowCounts {
                    evaluated: n("evaluated")?,
                    differed: n("differed")?,
                    faults: n("faults")?,
                    micros: n("micros")?,
                },
            })
        })
    }

    async fn add_shadow(
        &self,
        counts: Vec<(TenantId, String, ShadowCounts)>,
        differences: Vec<ShadowDifference>,
    ) -> Result<(), StoreError> {
        self.write(move |c| {
            Box::pin(async move {
                for (tenant, bundle, n) in counts {
                    sqlx::query(
                        "UPDATE policy_shadows SET evaluated = evaluated + ?3, differed = differed + ?4, \
                         faults = faults + ?5, micros = micros + ?6 WHERE tenant = ?1 AND bundle = ?2",
                    )
                    .bind(tenant.as_str())
                    .bind(bundle)
                    .bind(count(n.evaluated))
                    .bind(count(n.differed))
                    .bind(count(n.faults))
                    .bind(count(n.micros))
                    .execute(&mut *c)
                    .await?;
                }
                let rows: Vec<_> = differences
                    .iter()
                    .map(|d| {
                        let sign_in = data_encoding::HEXLOWER.encode(d.sign_in.as_bytes());
                        (sign_in, &d.bundle, d.tenant.as_str(), d.decided, d.candidate)
                    })
                    .collect();
                sqlx::query(
                    "INSERT INTO policy_shadow_differences (sign_in, bundle, tenant, decided, candidate) \
                     SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4 \
                     FROM json_each(?1) WHERE true ON CONFLICT DO NOTHING",
                )
                .bind(json_list(&rows)?)
                .execute(&mut *c)
                .await?;
                sqlx::query(
                    "DELETE FROM policy_shadow_differences WHERE sign_in < (SELECT sign_in FROM \
                     policy_shadow_differences ORDER BY sign_in DESC LIMIT 1 OFFSET ?1)",
                )
                .bind(DIFFERENCES)
                .execute(c)
                .await
                .map(|_| ())
            })
        })
        .await
    }

    async fn shadow_outcomes(&self, sign_in: EventId) -> Result<Vec<ShadowOutcome>, StoreError> {
        let query = sqlx::query("SELECT bundle, candidate FROM policy_shadow_differences WHERE sign_in = ?1");
        let rows = query.bind(sign_in.as_bytes().to_vec()).fetch_all(&self.pool).await.map_err(failed)?;
        all(&rows, |row| Ok(ShadowOutcome { bundle: row.try_get(0)?, action: row.try_get(1)? }))
    }

    async fn sign_ins_of(&self, user: UserId, limit: i64) -> Result<Vec<OwnSignIn>, StoreError> {
        let sql =
            "SELECT id, at, provider, \"end\", country FROM sign_ins WHERE user_id = ?1 ORDER BY id DESC LIMIT ?2";
        let query = sqlx::query(sql).bind(user.as_bytes().to_vec()).bind(limit);
        all(&query.fetch_all(&self.pool).await.map_err(failed)?, |row| {
            let end = usize::try_from(row.try_get::<i64, _>("end")?).ok();
            Ok(OwnSignIn {
                id: EventId::from_bytes(bytes(row.try_get("id")?)?),
                at: time(row, "at")?,
                provider: row.try_get("provider")?,
                end: end.and_then(|n| PastEnd::ALL.get(n)).copied().ok_or_else(|| unreadable("an end"))?,
                country: row.try_get("country")?,
            })
        })
    }

    async fn put_label(&self, label: Label, author: Author) -> Result<(), StoreError> {
        self.write(move |c| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO sign_in_labels (tenant, sign_in, by_user, user_id, disputed, actor, at) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (tenant, sign_in, by_user) \
                     DO UPDATE SET disputed = ?5, actor = ?6, at = ?7",
                )
                .bind(label.tenant.as_str())
                .bind(label.sign_in.as_bytes().to_vec())
                .bind(label.by_user)
                .bind(label.user.as_bytes().to_vec())
                .bind(label.disputed)
                .bind(&label.actor)
                .bind(label.at.as_millis())
                .execute(&mut *c)
                .await?;
                dispute(&mut *c, &label).await?;
                let after = json!({"disputed": label.disputed});
                let change = Change::between("sign_in.label", label.sign_in.to_string(), &Value::Null, &after);
                audit::record(c, &author, &change).await
            })
        })
        .await
    }

    async fn labels(&self, tenant: &TenantId) -> Result<Vec<Label>, StoreError> {
        let query = sqlx::query("SELECT * FROM sign_in_labels WHERE tenant = ?1").bind(tenant.as_str());
        all(&query.fetch_all(&self.pool).await.map_err(failed)?, |row| {
            Ok(Label {
                tenant: tenant_of(row.try_get("tenant")?)?,
                sign_in: EventId::from_bytes(bytes(row.try_get("sign_in")?)?),
                user: UserId::from_bytes(bytes(row.try_get("user_id")?)?),
                disputed: row.try_get("disputed")?,
                by_user: row.try_get("by_user")?,
                actor: row.try_get("actor")?,
                at: time(row, "at")?,
            })
        })
    }
}

/// Decision records, opened.
pub struct OpenedDecisions {
    /// The rows.
    pub store: Arc<Store>,
    /// The keys.
    pub records: Arc<DecisionRecords>,
}

#[async_trait]
impl Decisions for OpenedDecisions {
    async fn count(&self, tenant: &TenantId, since: UnixTime) -> Result<u64, StoreError> {
        self.store.count_decisions(tenant, since).await
    }

    async fn page(
        &self,
        tenant: &TenantId,
        since: UnixTime,
        after: Option<EventId>,
    ) -> Result<DecisionPage, StoreError> {
        let page = self.store.sealed_decisions(tenant, since, after, PAGE).await?;
        let records = Arc::clone(&self.records);
        Ok(DecisionPage { last: page.last(), open: Box::new(move || page.open(&records)) })
    }

    async fn find(&self, tenant: Option<&TenantId>, id: EventId) -> Result<Option<StoredDecision>, StoreError> {
        self.store.find_decision(&self.records, tenant, id).await
    }
}
