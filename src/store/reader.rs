//! The look-up of the sign-in path, batched: one statement gives user, factors and history of all
//! sign-ins that wait.

use std::collections::HashMap;

use data_encoding::{HEXLOWER, HEXUPPER};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::rows::{PastRow, ProfileRow, bytes, from_json, tenant};
use super::sessions::read_password;
use super::{Trouble, trouble, unreadable};
use crate::clock::UnixTime;
use crate::ids::{FactorId, UserId};
use crate::mfa::{Factor, MfaMethod};
use crate::people::devices::TrustedDevice;
use crate::signin::history::{HISTORY_DAYS, HISTORY_ENTRIES, History, PastEnd};
use crate::signin::ports::StoreError;
use crate::signin::user::{IdentityKey, KnownUser, User, UserStatus};

/// The most look-ups in one statement.
const BATCH: usize = 128;

pub(super) enum Wanted {
    Identity(IdentityKey),
    User(UserId),
}

pub(super) struct Lookup {
    pub wanted: Wanted,
    pub now: UnixTime,
    pub reply: oneshot::Sender<Result<Option<KnownUser>, StoreError>>,
}

/// Runs until the store is dropped or closed.
pub(super) async fn run(mut connection: SqliteConnection, mut lookups: mpsc::Receiver<Lookup>) {
    let mut waiting = Vec::with_capacity(BATCH);
    while lookups.recv_many(&mut waiting, BATCH).await > 0 {
        match find(&mut connection, &waiting).await {
            Ok(mut found) => {
                for (position, lookup) in waiting.drain(..).enumerate() {
                    let _ = lookup.reply.send(Ok(found.remove(&position)));
                }
            }
            Err(error) => {
                tracing::error!(error = %error, "users could not be read");
                for lookup in waiting.drain(..) {
                    let _ = lookup.reply.send(Err(trouble(Trouble::Batch(error.to_string()))));
                }
            }
        }
    }
}

/// A disputed sign-in is read as one that was challenged and never completed: it teaches nothing, and is no failure.
const _: () = assert!(matches!(PastEnd::ALL[2], PastEnd::Challenged));

/// A limit that is bound makes SQLite prepare the statement anew at every call, so it stands in the text.
const _: () = assert!(HISTORY_ENTRIES == 200);

/// By position in the batch. A row that cannot be read is nobody's: it fails the whole batch, since it
/// means that the file is not what we wrote.
async fn find(
    connection: &mut SqliteConnection,
    waiting: &[Lookup],
) -> Result<HashMap<usize, KnownUser>, sqlx::Error> {
    let wanted: Vec<_> = waiting
        .iter()
        .map(|lookup| match &lookup.wanted {
            Wanted::Identity(key) => {
                (key.tenant.as_str(), &*key.provider, &*key.issuer, &*key.subject, String::new())
            }
            Wanted::User(id) => ("", "", "", "", HEXLOWER.encode(id.as_bytes())),
        })
        .collect();
    let wanted = serde_json::to_string(&wanted).map_err(|e| sqlx::Error::Encode(Box::new(e)))?;
    let newest = waiting.iter().map(|l| l.now).max().unwrap_or_default();
    let oldest = newest.minus(std::time::Duration::from_secs(HISTORY_DAYS * 86_400)).as_millis();
    let rows = sqlx::query(
        "WITH wanted AS (
             SELECT j.key AS position, i.user_id FROM jsonb_each(?1) j JOIN identities i
             ON i.tenant = j.value ->> 0 AND i.provider = j.value ->> 1
                AND i.issuer = j.value ->> 2 AND i.subject = j.value ->> 3
             WHERE j.value ->> 4 = ''
             UNION ALL
             SELECT j.key, unhex(j.value ->> 4) FROM jsonb_each(?1) j WHERE j.value ->> 4 <> ''
         )
         SELECT w.position, u.id, u.tenant, u.status, u.profile, u.created_at,
             (SELECT json_group_array(json_array(hex(f.id), f.method, f.enrolled_at, f.last_used_at))
              FROM factors f WHERE f.user_id = u.id AND f.confirmed = 1),
             (SELECT json_group_array(json_array(at, iif(disputed, 2, \"end\"), provider, level, device, agent, prefix, country, asn,
                                                 latitude, longitude, accuracy))
              FROM (SELECT * FROM sign_ins s WHERE s.user_id = u.id AND s.at >= ?2 ORDER BY s.id DESC LIMIT 200)),
             (SELECT json_array(at, \"end\", provider, level, device, agent, prefix, country, asn,
                                latitude, longitude, accuracy)
              FROM sign_ins s WHERE s.user_id = u.id AND s.\"end\" <= 1 AND s.disputed = 0 ORDER BY s.id LIMIT 1),
             (SELECT json_array(p.changed_at, p.must_change) FROM passwords p WHERE p.user_id = u.id),
             (SELECT json_group_array(json_array(hex(t.device), hex(t.secret_hash), t.created_at, t.expires_at))
              FROM trusted_devices t WHERE t.user_id = u.id)
         FROM wanted w JOIN users u ON u.id = w.user_id",
    )
    .bind(wanted)
    .bind(oldest)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &SqliteRow) -> Result<(usize, KnownUser), sqlx::Error> {
    let position: i64 = row.try_get(0)?;
    let profile: ProfileRow = from_json(row.try_get(4)?)?;
    let user = User {
        id: UserId::from_bytes(bytes(row.try_get(1)?)?),
        tenant: tenant(row.try_get(2)?)?,
        status: UserStatus::find(row.try_get(3)?).ok_or_else(|| unreadable("a user status"))?,
        profile: profile.into(),
        created_at: UnixTime::from_millis(row.try_get(5)?),
        password: read_password(row.try_get(9)?)?,
    };
    let factors: Vec<(String, String, i64, Option<i64>)> = from_json(row.try_get(6)?)?;
    let factors = factors.into_iter().map(read_factor).collect::<Result<_, _>>()?;
    let entries: Vec<PastRow> = from_json(row.try_get(7)?)?;
    let first: Option<&str> = row.try_get(8)?;
    let first: Option<PastRow> = first.map(from_json).transpose()?;
    let history = History {
        entries: entries.into_iter().filter_map(PastRow::read).collect(),
        first: first.and_then(PastRow::read).map(|entry| entry.context),
    };
    let position = usize::try_from(position).map_err(|_| unreadable("a position"))?;
    let trusted: Vec<(String, String, i64, i64)> = from_json(row.try_get(10)?)?;
    let trusted_devices = trusted.into_iter().map(read_trusted).collect::<Result<_, _>>()?;
    Ok((position, KnownUser { user, factors, history, trusted_devices }))
}

fn read_trusted(
    (device, secret_hash, created_at, expires_at): (String, String, i64, i64),
) -> Result<TrustedDevice, sqlx::Error> {
    let read = |hex: String| HEXUPPER.decode(hex.as_bytes()).map_err(|_| unreadable("a trusted device"));
    Ok(TrustedDevice {
        device: bytes(&read(device)?)?,
        secret_hash: bytes(&read(secret_hash)?)?,
        created_at: UnixTime::from_millis(created_at),
        expires_at: UnixTime::from_millis(expires_at),
    })
}

fn read_factor(
    (id, method, enrolled_at, last_used_at): (String, String, i64, Option<i64>),
) -> Result<Factor, sqlx::Error> {
    let id = HEXUPPER.decode(id.as_bytes()).map_err(|_| unreadable("a factor id"))?;
    Ok(Factor {
        id: FactorId::from_bytes(bytes(&id)?),
        method: MfaMethod::find(&method).ok_or_else(|| unreadable("an MFA method"))?,
        enrolled_at: UnixTime::from_millis(enrolled_at),
        last_used_at: last_used_at.map(UnixTime::from_millis),
    })
}
