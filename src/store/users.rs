//! Users and identities.

use sqlx::{Row, SqliteConnection, SqliteExecutor, SqlitePool};

use super::invitations;
use super::rows::{ProfileRow, bytes};
use crate::clock::UnixTime;
use crate::ids::{TenantId, UserId};
use crate::signin::identity::Profile;
use crate::signin::user::{IdentityKey, PlannedChange, User};

pub(super) fn email_key(address: Option<&String>) -> Option<String> {
    address.map(|a| a.to_lowercase())
}

pub(super) async fn find_verified_holder(
    pool: &SqlitePool,
    tenant: &TenantId,
    address: &str,
) -> Result<Option<UserId>, sqlx::Error> {
    let row = sqlx::query("SELECT id FROM users WHERE tenant = ?1 AND email_key = ?2 AND email_verified = 1")
        .bind(tenant.as_str())
        .bind(address.to_lowercase())
        .fetch_optional(pool)
        .await?;
    row.map(|row| Ok(UserId::from_bytes(bytes(row.try_get(0)?)?))).transpose()
}

/// Whether the user has an identity of the key's provider or issuer whose subject is another.
pub(super) async fn has_other_subject(
    pool: &SqlitePool,
    user: UserId,
    key: &IdentityKey,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM identities WHERE user_id = ?1 AND tenant = ?2
             AND (provider = ?3 OR issuer = ?4) AND subject <> ?5)",
    )
    .bind(&user.as_bytes()[..])
    .bind(key.tenant.as_str())
    .bind(&*key.provider)
    .bind(&*key.issuer)
    .bind(&*key.subject)
    .fetch_one(pool)
    .await
}

/// Writes the planned change. `false` when the user may not sign in any more.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    change: &PlannedChange,
    now: UnixTime,
) -> Result<bool, sqlx::Error> {
    match change {
        PlannedChange::None => Ok(true),
        PlannedChange::Update { user, profile } => update(connection, *user, profile).await,
        PlannedChange::Link { user, identity } => {
            insert_identity(&mut *connection, identity, *user, now).await?;
            is_active(connection, *user).await
        }
        PlannedChange::Accept { invitation, user, identity } => {
            let accepted = invitations::accept(&mut *connection, *invitation, user, now).await?;
            insert_identity(connection, identity, user.id, now).await?;
            Ok(accepted)
        }
        PlannedChange::Create { user, identity } => {
            insert_user(&mut *connection, user).await?;
            insert_identity(connection, identity, user.id, now).await?;
            Ok(true)
        }
    }
}

pub(super) async fn is_active(connection: &mut SqliteConnection, user: UserId) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT 1 FROM users WHERE id = ?1 AND status = 'active'")
        .bind(user.as_bytes().to_vec())
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

pub(super) fn profile_json(profile: &Profile) -> Result<String, sqlx::Error> {
    serde_json::to_string(&ProfileRow::from(profile)).map_err(|e| sqlx::Error::Encode(Box::new(e)))
}

/// The profile of an erased user.
pub(super) fn empty_profile() -> Result<String, sqlx::Error> {
    profile_json(&Profile::default())
}

async fn update(connection: &mut SqliteConnection, user: UserId, profile: &Profile) -> Result<bool, sqlx::Error> {
    let updated = sqlx::query(
        "UPDATE users SET email_key = ?2, email_verified = ?3, profile = ?4 WHERE id = ?1 AND status = 'active'",
    )
    .bind(user.as_bytes().to_vec())
    .bind(email_key(profile.email.as_ref()))
    .bind(profile.email_verified)
    .bind(profile_json(profile)?)
    .execute(connection)
    .await?;
    Ok(updated.rows_affected() == 1)
}

pub(super) async fn insert_user(connection: impl SqliteExecutor<'_>, user: &User) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO users (id, tenant, status, email_key, email_verified, profile, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .bind(user.id.as_bytes().to_vec())
    .bind(user.tenant.as_str())
    .bind(user.status.as_str())
    .bind(email_key(user.profile.email.as_ref()))
    .bind(user.profile.email_verified)
    .bind(profile_json(&user.profile)?)
    .bind(user.created_at.as_millis())
    .execute(connection)
    .await
    .map(|_| ())
}

pub(super) async fn insert_identity(
    connection: impl SqliteExecutor<'_>,
    identity: &IdentityKey,
    user: UserId,
    now: UnixTime,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO identities (tenant, provider, issuer, subject, user_id, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(identity.tenant.as_str())
    .bind(&*identity.provider)
    .bind(&*identity.issuer)
    .bind(&*identity.subject)
    .bind(user.as_bytes().to_vec())
    .bind(now.as_millis())
    .execute(connection)
    .await
    .map(|_| ())
}
