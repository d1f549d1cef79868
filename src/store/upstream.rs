//! What a provider told of an account, carried out.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::links::{owner, take_away};
use super::{audit, sessions};
use crate::admin::audit::{Author, Change};
use crate::clock::UnixTime;
use crate::ids::UserId;
use crate::secret::sha256;
use crate::session::ports::{CarriedOut, UpstreamEnd};
use crate::signin::security_events::{Effect, ToldEvents};
use crate::signin::user::IdentityKey;

const ACTION: &str = "identity.security_event";
/// A type is a URI that the provider chose; longer ones are cut.
const SHOWN_TYPE_CHARS: usize = 160;

/// In one transaction; the record is written the first time only, else whoever has a token could fill the log.
pub(super) async fn carry_out(
    connection: &mut SqliteConnection,
    told: ToldEvents,
    enabled: Vec<Arc<str>>,
    author: Author,
) -> Result<CarriedOut, sqlx::Error> {
    let now = author.at;
    let digest = digest(&told);
    let is_first = remember(connection, digest, told.refused_from, now).await?;
    let mut subjects: BTreeMap<&Arc<str>, Effect> = BTreeMap::new();
    for event in &told.events {
        let Some(subject) = &event.subject else { continue };
        let effect = subjects.entry(subject).or_insert(event.effect);
        *effect = event.effect.max(*effect);
    }
    let (mut ended, mut users, mut identity) = (0, Vec::new(), None);
    let mut named = Vec::with_capacity(subjects.len());
    for issuer in &told.issuer_names {
        for (subject, effect) in &subjects {
            named.push((issuer, Arc::clone(subject), *effect));
        }
    }
    for (issuer, subject, effect) in named {
        let key = IdentityKey {
            tenant: told.tenant.clone(),
            provider: Arc::clone(&told.provider),
            issuer: Arc::clone(issuer),
            subject: Arc::clone(&subject),
        };
        let Some(user) = owner(connection, &key).await? else { continue };
        if !users.contains(&user) {
            users.push(user);
        }
        if effect == Effect::Noted {
            continue;
        }
        let end = UpstreamEnd {
            tenant: key.tenant.clone(),
            provider: Arc::clone(&key.provider),
            issuer: Arc::clone(&key.issuer),
            subject: Some(subject),
            session: None,
            begun_until: Some(told.begun_until),
        };
        ended += sessions::end_upstream(connection, &end, now).await?;
        if effect == Effect::IdentityGone && is_first {
            let taken = take_away(connection, user, &key, &enabled).await?;
            identity = Some(if taken { "taken_away" } else { "kept_as_the_last_one" });
        }
    }
    if is_first {
        let types: Vec<String> = told.events.iter().map(|e| shown(&e.kind)).collect();
        let mut after = json!({
            "provider": &*told.provider,
            "issuer": &*told.issuer,
            "types": types,
            "token": data_encoding::HEXLOWER.encode(&digest),
            "sessions_ended": ended,
        });
        if let Some(identity) = identity {
            after["identity"] = identity.into();
        }
        let target = target(&users, &told.provider);
        audit::record(connection, &author, &Change::between(ACTION, target, &Value::Null, &after)).await?;
    }
    Ok(CarriedOut { sessions: ended, is_first })
}

/// The user, when exactly one is meant; else the provider.
fn target(users: &[UserId], provider: &str) -> String {
    match users {
        [user] => user.to_string(),
        _ => provider.to_owned(),
    }
}

/// What a token is remembered by.
fn digest(told: &ToldEvents) -> [u8; 32] {
    let mut input = Vec::with_capacity(256);
    for part in ["security event", told.tenant.as_str(), &*told.provider, &*told.issuer, told.jti.as_str()] {
        input.extend_from_slice(&(part.len() as u64).to_be_bytes());
        input.extend_from_slice(part.as_bytes());
    }
    sha256(&input)
}

fn shown(kind: &str) -> String {
    kind.chars().filter(|c| c.is_ascii_graphic()).take(SHOWN_TYPE_CHARS).collect()
}

/// As the replay guard does, within this transaction.
async fn remember(
    connection: &mut SqliteConnection,
    key: [u8; 32],
    until: UnixTime,
    now: UnixTime,
) -> Result<bool, sqlx::Error> {
    let known: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM replays WHERE key = ?1 AND expires_at > ?2)")
            .bind(key.to_vec())
            .bind(now.as_millis())
            .fetch_one(&mut *connection)
            .await?;
    sqlx::query(
        "INSERT INTO replays (key, expires_at) VALUES (?1, ?2) \
         ON CONFLICT (key) DO UPDATE SET expires_at = max(expires_at, excluded.expires_at)",
    )
    .bind(key.to_vec())
    .bind(until.as_millis())
    .execute(connection)
    .await?;
    Ok(!known)
}
