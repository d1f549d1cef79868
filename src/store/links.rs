//! Identities of signed-in users, and the proofs that wait to link one.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use sqlx::{Row, SqliteConnection};

use super::rows::{bytes, from_json};
use super::users::{insert_identity, is_active};
use super::{Store, audit, challenges, failed};
use crate::admin::audit::{Author, Change};
use crate::clock::UnixTime;
use crate::ids::{SessionId, TenantId, UserId};
use crate::mfa::NewChallenge;
use crate::people::identities::{LinkedIdentity, identity_id};
use crate::people::ports::{Identities, LinkResult, MigrationResult, Redemption, UnlinkResult};
use crate::secret::same;
use crate::signin::ports::{NewLinkOffer, StoreError};
use crate::signin::user::IdentityKey;

#[async_trait]
impl Identities for Store {
    async fn identities(&self, user: UserId) -> Result<Vec<LinkedIdentity>, StoreError> {
        let rows = sqlx::query(
            "SELECT tenant, provider, issuer, subject, created_at FROM identities WHERE user_id = ?1 \
             ORDER BY created_at, provider, issuer, subject",
        )
        .bind(user.as_bytes().to_vec())
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            let key = IdentityKey {
                tenant: super::rows::tenant(row.try_get(0)?)?,
                provider: row.try_get::<&str, _>(1)?.into(),
                issuer: row.try_get::<&str, _>(2)?.into(),
                subject: row.try_get::<&str, _>(3)?.into(),
            };
            Ok(LinkedIdentity { key, linked_at: UnixTime::from_millis(row.try_get(4)?) })
        };
        rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(failed)
    }

    async fn link(&self, user: UserId, identity: IdentityKey, now: UnixTime) -> Result<LinkResult, StoreError> {
        self.write(move |connection| Box::pin(link(connection, user, identity, now))).await
    }

    async fn redeem(&self, redemption: Redemption) -> Result<LinkResult, StoreError> {
        self.write(move |connection| Box::pin(redeem(connection, redemption))).await
    }

    async fn unlink(
        &self,
        user: UserId,
        identity: IdentityKey,
        enabled: Vec<Arc<str>>,
        keep: SessionId,
        now: UnixTime,
    ) -> Result<UnlinkResult, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                if owner(connection, &identity).await? != Some(user) {
                    return Ok(UnlinkResult::Unknown);
                }
                if !take_away(connection, user, &identity, &enabled).await? {
                    return Ok(UnlinkResult::Last);
                }
                sqlx::query(
                    "UPDATE sessions SET ended_at = ?4 WHERE user_id = ?1 AND id <> ?3 AND ended_at IS NULL \
                     AND json_extract(\"grant\", '$.provider') = ?2",
                )
                .bind(user.as_bytes().to_vec())
                .bind(&*identity.provider)
                .bind(keep.as_bytes().to_vec())
                .bind(now.as_millis())
                .execute(&mut *connection)
                .await?;
                challenges::end_open(connection, user, Some(&*identity.provider), None).await?;
                Ok(UnlinkResult::Unlinked)
            })
        })
        .await
    }

    async fn migrate(
        &self,
        user: UserId,
        old: IdentityKey,
        new: IdentityKey,
        author: Author,
    ) -> Result<MigrationResult, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                if owner(connection, &old).await? != Some(user) {
                    return Ok(MigrationResult::Unknown);
                }
                if owner(connection, &new).await?.is_some() {
                    return Ok(MigrationResult::Taken);
                }
                sqlx::query(
                    "UPDATE identities SET issuer = ?5, subject = ?6 \
                     WHERE tenant = ?1 AND provider = ?2 AND issuer = ?3 AND subject = ?4",
                )
                .bind(old.tenant.as_str())
                .bind(&*old.provider)
                .bind(&*old.issuer)
                .bind(&*old.subject)
                .bind(&*new.issuer)
                .bind(&*new.subject)
                .execute(&mut *connection)
                .await?;
                // The identifiers tell which, and nothing of the person once the identity is gone.
                let shown = |key: &IdentityKey| json!({"provider": &*key.provider, "identity": identity_id(key).to_string()});
                let change = Change::between("user.identity_migrate", user.to_string(), &shown(&old), &shown(&new));
                audit::record(connection, &author, &change).await?;
                Ok(MigrationResult::Migrated)
            })
        })
        .await
    }
}

/// Takes an identity from its user; `false`, and nothing was changed, when the user has no other one of the enabled
/// providers.
pub(super) async fn take_away(
    connection: &mut SqliteConnection,
    user: UserId,
    identity: &IdentityKey,
    enabled: &[Arc<str>],
) -> Result<bool, sqlx::Error> {
    let left = sqlx::query(
        "SELECT count(*) FROM identities WHERE user_id = ?1 \
         AND NOT (provider = ?2 AND issuer = ?3 AND subject = ?4) \
         AND provider IN (SELECT value FROM json_each(?5))",
    )
    .bind(user.as_bytes().to_vec())
    .bind(&*identity.provider)
    .bind(&*identity.issuer)
    .bind(&*identity.subject)
    .bind(serde_json::to_string(enabled).map_err(|e| sqlx::Error::Encode(Box::new(e)))?)
    .fetch_one(&mut *connection)
    .await?;
    if left.try_get::<i64, _>(0)? == 0 {
        return Ok(false);
    }
    sqlx::query("DELETE FROM identities WHERE tenant = ?1 AND provider = ?2 AND issuer = ?3 AND subject = ?4")
        .bind(identity.tenant.as_str())
        .bind(&*identity.provider)
        .bind(&*identity.issuer)
        .bind(&*identity.subject)
        .execute(connection)
        .await?;
    Ok(true)
}

pub(super) async fn owner(
    connection: &mut SqliteConnection,
    identity: &IdentityKey,
) -> Result<Option<UserId>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT user_id FROM identities WHERE tenant = ?1 AND provider = ?2 AND issuer = ?3 AND subject = ?4",
    )
    .bind(identity.tenant.as_str())
    .bind(&*identity.provider)
    .bind(&*identity.issuer)
    .bind(&*identity.subject)
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok(UserId::from_bytes(bytes(row.try_get(0)?)?))).transpose()
}

async fn link(
    connection: &mut SqliteConnection,
    user: UserId,
    identity: IdentityKey,
    now: UnixTime,
) -> Result<LinkResult, sqlx::Error> {
    if !is_active(&mut *connection, user).await? {
        return Ok(LinkResult::UserInactive);
    }
    match owner(connection, &identity).await? {
        Some(owner) if owner == user => {}
        Some(_) => return Ok(LinkResult::Taken),
        None => insert_identity(connection, &identity, user, now).await?,
    }
    Ok(LinkResult::Linked(identity))
}

async fn redeem(connection: &mut SqliteConnection, redemption: Redemption) -> Result<LinkResult, sqlx::Error> {
    let Redemption { tenant, offer, secret_hash, user, now } = redemption;
    let row = sqlx::query(
        "SELECT secret_hash, user_id, provider, issuer, subject FROM link_offers \
         WHERE id = ?1 AND tenant = ?2 AND expires_at > ?3",
    )
    .bind(offer.as_bytes().to_vec())
    .bind(tenant.as_str())
    .bind(now.as_millis())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(LinkResult::NoOffer) };
    let fits = same(row.try_get(0)?, &secret_hash) && same(row.try_get(1)?, user.as_bytes());
    if !fits {
        return Ok(LinkResult::NoOffer);
    }
    let identity = IdentityKey {
        tenant,
        provider: row.try_get::<&str, _>(2)?.into(),
        issuer: row.try_get::<&str, _>(3)?.into(),
        subject: row.try_get::<&str, _>(4)?.into(),
    };
    sqlx::query("DELETE FROM link_offers WHERE id = ?1")
        .bind(offer.as_bytes().to_vec())
        .execute(&mut *connection)
        .await?;
    link(connection, user, identity, now).await
}

pub(super) async fn insert_offer(
    connection: &mut SqliteConnection,
    offer: NewLinkOffer,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO link_offers (id, secret_hash, tenant, provider, issuer, subject, user_id, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(offer.id.as_bytes().to_vec())
    .bind(offer.secret_hash.to_vec())
    .bind(offer.identity.tenant.as_str())
    .bind(&*offer.identity.provider)
    .bind(&*offer.identity.issuer)
    .bind(&*offer.identity.subject)
    .bind(offer.user.as_bytes().to_vec())
    .bind(offer.expires_at.as_millis())
    .execute(connection)
    .await
    .map(|_| ())
}

pub(super) async fn insert_for_challenge(
    connection: &mut SqliteConnection,
    challenge: &NewChallenge,
    identity: &IdentityKey,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO challenge_links (challenge, provider, issuer, subject, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )
    .bind(challenge.id.as_bytes().to_vec())
    .bind(&*identity.provider)
    .bind(&*identity.issuer)
    .bind(&*identity.subject)
    .bind(challenge.expires_at.as_millis())
    .execute(connection)
    .await
    .map(|_| ())
}

/// `[provider, issuer, subject]`.
pub(super) fn read_of_challenge(
    tenant: &TenantId,
    stored: Option<&str>,
) -> Result<Option<Box<IdentityKey>>, sqlx::Error> {
    let Some(stored) = stored else { return Ok(None) };
    let (provider, issuer, subject): (Arc<str>, Arc<str>, Arc<str>) = from_json(stored)?;
    Ok(Some(Box::new(IdentityKey { tenant: tenant.clone(), provider, issuer, subject })))
}
