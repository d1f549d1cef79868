//! Invitations and their pending users.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};

use super::rows::bytes;
use super::sessions::read_user;
use super::users::{email_key, insert_user, profile_json};
use super::{Store, audit, failed, unreadable};
use crate::admin::audit::{Author, Change};
use crate::admin::page::{Page, Paged};
use crate::clock::UnixTime;
use crate::ids::{InvitationId, TenantId, UserId};
use crate::people::invitations::{Invitation, Invitee, NewInvitation};
use crate::people::ports::{Invitations, InviteResult};
use crate::signin::ports::StoreError;
use crate::signin::user::{IdentityKey, Invited, User, UserStatus};

#[async_trait]
impl Invitations for Store {
    async fn invite(&self, invitation: NewInvitation, author: Author) -> Result<InviteResult, StoreError> {
        self.write(move |connection| Box::pin(invite(connection, invitation, author))).await
    }

    async fn invitations(&self, tenant: &TenantId, page: &Page) -> Result<Paged<Invitation>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, user_id, provider, issuer, subject, email_key, note, created_at, expires_at, accepted_at \
             FROM invitations WHERE tenant = ?1 AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3",
        )
        .bind(tenant.as_str())
        .bind(page.after().map(<[u8]>::to_vec))
        .bind(page.rows_to_read())
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let found: Vec<Invitation> = rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)?;
        Ok(page.cut(found, |invitation| invitation.id.as_bytes().to_vec()))
    }

    async fn revoke_invitation(
        &self,
        tenant: &TenantId,
        id: InvitationId,
        author: Author,
    ) -> Result<bool, StoreError> {
        let tenant = tenant.clone();
        self.write(move |connection| {
            Box::pin(async move {
                let row = sqlx::query(
                    "DELETE FROM invitations WHERE id = ?1 AND tenant = ?2 AND accepted_at IS NULL RETURNING user_id",
                )
                .bind(id.as_bytes().to_vec())
                .bind(tenant.as_str())
                .fetch_optional(&mut *connection)
                .await?;
                let Some(row) = row else { return Ok(false) };
                let user: Vec<u8> = row.try_get(0)?;
                let before = json!({"user": UserId::from_bytes(bytes(&user)?).to_string()});
                remove_pending(&mut *connection, user).await?;
                let change = Change::between("invitation.revoke", id.to_string(), &before, &Value::Null);
                audit::record(connection, &author, &change).await?;
                Ok(true)
            })
        })
        .await
    }
}

async fn remove_pending(connection: &mut SqliteConnection, user: Vec<u8>) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM users WHERE id = ?1 AND status = 'pending'")
        .bind(user)
        .execute(connection)
        .await
        .map(|_| ())
}

fn read(row: &SqliteRow) -> Result<Invitation, sqlx::Error> {
    let text = |at: usize| row.try_get::<Option<&str>, _>(at).map(|t| t.map(Arc::<str>::from));
    let invitee = match (text(2)?, text(3)?, text(4)?, text(5)?) {
        (provider, None, None, Some(address)) => Invitee::Email { address: address.to_string(), provider },
        (Some(provider), Some(issuer), Some(subject), None) => Invitee::Identity { provider, issuer, subject },
        _ => return Err(unreadable("an invitation")),
    };
    Ok(Invitation {
        id: InvitationId::from_bytes(bytes(row.try_get(0)?)?),
        user: UserId::from_bytes(bytes(row.try_get(1)?)?),
        invitee,
        note: row.try_get(6)?,
        created_at: UnixTime::from_millis(row.try_get(7)?),
        expires_at: UnixTime::from_millis(row.try_get(8)?),
        accepted_at: row.try_get::<Option<i64>, _>(9)?.map(UnixTime::from_millis),
    })
}

async fn invite(
    connection: &mut SqliteConnection,
    new: NewInvitation,
    author: Author,
) -> Result<InviteResult, sqlx::Error> {
    let NewInvitation { tenant, invitation, profile } = new;
    let (provider, issuer, subject, email) = match &invitation.invitee {
        Invitee::Email { address, provider } => (provider.as_deref(), None, None, email_key(Some(address))),
        Invitee::Identity { provider, issuer, subject } => {
            (Some(&**provider), Some(&**issuer), Some(&**subject), None)
        }
    };
    let taken = sqlx::query(
        "SELECT 1 FROM users WHERE tenant = ?1 AND email_key = ?2 AND email_verified = 1 \
         UNION ALL SELECT 1 FROM identities WHERE tenant = ?1 AND provider = ?3 AND issuer = ?4 AND subject = ?5",
    )
    .bind(tenant.as_str())
    .bind(&email)
    .bind(provider)
    .bind(issuer)
    .bind(subject)
    .fetch_optional(&mut *connection)
    .await?;
    if taken.is_some() {
        return Ok(InviteResult::AccountExists);
    }
    let same = sqlx::query(
        "SELECT id, user_id, expires_at FROM invitations WHERE tenant = ?1 AND accepted_at IS NULL \
         AND (email_key = ?2 OR (provider = ?3 AND issuer = ?4 AND subject = ?5))",
    )
    .bind(tenant.as_str())
    .bind(&email)
    .bind(provider)
    .bind(issuer)
    .bind(subject)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(row) = same {
        if row.try_get::<i64, _>(2)? > invitation.created_at.as_millis() {
            return Ok(InviteResult::AlreadyInvited);
        }
        let old: Vec<u8> = row.try_get(0)?;
        sqlx::query("DELETE FROM invitations WHERE id = ?1").bind(old).execute(&mut *connection).await?;
        remove_pending(connection, row.try_get(1)?).await?;
    }
    sqlx::query(
        "INSERT INTO invitations (id, tenant, user_id, provider, issuer, subject, email_key, note, created_at, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )
    .bind(invitation.id.as_bytes().to_vec())
    .bind(tenant.as_str())
    .bind(invitation.user.as_bytes().to_vec())
    .bind(provider)
    .bind(issuer)
    .bind(subject)
    .bind(&email)
    .bind(&invitation.note)
    .bind(invitation.created_at.as_millis())
    .bind(invitation.expires_at.as_millis())
    .execute(&mut *connection)
    .await?;
    let user = User {
        id: invitation.user,
        tenant,
        status: UserStatus::Pending,
        profile,
        password: None,
        created_at: invitation.created_at,
    };
    insert_user(&mut *connection, &user).await?;
    // The log outlives the person: it tells the user and the provider, and no address or subject.
    let after = json!({
        "user": user.id.to_string(),
        "provider": provider,
        "expires_at": invitation.expires_at.to_rfc3339(),
    });
    let change = Change::between("invitation.create", invitation.id.to_string(), &Value::Null, &after);
    audit::record(connection, &author, &change).await?;
    Ok(InviteResult::Invited)
}

/// One for exactly this identity goes before one for the address.
pub(super) async fn find(
    pool: &SqlitePool,
    key: &IdentityKey,
    verified_email: Option<&str>,
    now: UnixTime,
) -> Result<Option<Invited>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT i.id, u.id, u.tenant, u.status, u.profile, u.created_at, NULL \
         FROM invitations i JOIN users u ON u.id = i.user_id AND u.status = 'pending' \
         WHERE i.tenant = ?1 AND i.accepted_at IS NULL AND i.expires_at > ?6 \
         AND ((i.provider = ?2 AND i.issuer = ?3 AND i.subject = ?4) \
              OR (i.email_key = ?5 AND (i.provider IS NULL OR i.provider = ?2))) \
         ORDER BY i.subject IS NULL LIMIT 1",
    )
    .bind(key.tenant.as_str())
    .bind(&*key.provider)
    .bind(&*key.issuer)
    .bind(&*key.subject)
    .bind(verified_email.map(str::to_lowercase))
    .bind(now.as_millis())
    .fetch_optional(pool)
    .await?;
    row.map(|row| Ok(Invited { id: InvitationId::from_bytes(bytes(row.try_get(0)?)?), user: read_user(&row, 1)? }))
        .transpose()
}

/// Spends an invitation and lets its user in. `false` when it is spent, over or taken back.
pub(super) async fn accept(
    connection: &mut SqliteConnection,
    id: InvitationId,
    user: &User,
    now: UnixTime,
) -> Result<bool, sqlx::Error> {
    let accepted = sqlx::query(
        "UPDATE invitations SET accepted_at = ?3 \
         WHERE id = ?1 AND user_id = ?2 AND accepted_at IS NULL AND expires_at > ?3",
    )
    .bind(id.as_bytes().to_vec())
    .bind(user.id.as_bytes().to_vec())
    .bind(now.as_millis())
    .execute(&mut *connection)
    .await?;
    if accepted.rows_affected() != 1 {
        return Ok(false);
    }
    let activated = sqlx::query(
        "UPDATE users SET status = 'active', email_key = ?2, email_verified = ?3, profile = ?4 \
         WHERE id = ?1 AND status = 'pending'",
    )
    .bind(user.id.as_bytes().to_vec())
    .bind(email_key(user.profile.email.as_ref()))
    .bind(user.profile.email_verified)
    .bind(profile_json(&user.profile)?)
    .execute(connection)
    .await?;
    Ok(activated.rows_affected() == 1)
}
