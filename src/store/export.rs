//! What the tables without a view of their own keep of a user, for an export. Every table with a column
//! `user_id` stands in [`KEPT`] or in [`ELSEWHERE`]; a test holds both against the schema.
//!
//! Left out on purpose: hashes and sealed values (what proves something is not told), and the identifiers of
//! open offers and challenges, which are half of a token.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqlitePool};

use super::unreadable;
use crate::clock::UnixTime;
use crate::ids::UserId;

/// How a column is told.
#[derive(Clone, Copy)]
enum Told {
    Text,
    Number,
    YesNo,
    Time,
}
use Told::{Number, Text, Time, YesNo};

/// Tables and the columns that are told of their rows.
const KEPT: &[(&str, &[(&str, Told)])] = &[
    (
        "challenges",
        &[("methods", Text), ("created_at", Time), ("expires_at", Time), ("attempts", Number), ("used_at", Time)],
    ),
    (
        "invitations",
        &[
            ("provider", Text),
            ("issuer", Text),
            ("subject", Text),
            ("email_key", Text),
            ("note", Text),
            ("created_at", Time),
            ("expires_at", Time),
            ("accepted_at", Time),
        ],
    ),
    ("link_offers", &[("provider", Text), ("issuer", Text), ("subject", Text), ("expires_at", Time)]),
    ("mfa_attempts", &[("at", Time)]),
    ("mfa_deliveries", &[("method", Text), ("messages", Number), ("sent_at", Time)]),
    ("mfa_locks", &[("until", Time)]),
    ("password_attempts", &[("at", Time)]),
    ("passwords", &[("changed_at", Time), ("must_change", YesNo)]),
    ("sign_in_labels", &[("disputed", YesNo), ("by_user", YesNo), ("at", Time)]),
    ("trusted_devices", &[("created_at", Time), ("expires_at", Time)]),
];

/// Tables without a `user_id` whose rows belong to rows that have one, the other table, and what is told: as
/// [`super::erase::HANGING`] has them. Not `decisions`: their facts are sealed copies of the user and the sign-in,
/// and stand in for addresses and agents; an administrator reads one by explaining the sign-in.
const KEPT_HANGING: &[Hanging] = &[
    ("refresh_tokens", "session_id", "sessions", &[("expires_at", Time), ("used_at", Time)]),
    (
        "challenge_links",
        "challenge",
        "challenges",
        &[("provider", Text), ("issuer", Text), ("subject", Text), ("expires_at", Time)],
    ),
    (
        "policy_shadow_differences",
        "sign_in",
        "sign_ins",
        &[("bundle", Text), ("decided", Text), ("candidate", Text)],
    ),
];

type Hanging = (&'static str, &'static str, &'static str, &'static [(&'static str, Told)]);

/// Tables that an export tells in members of their own.
#[cfg(test)]
const ELSEWHERE: &[&str] = &["backup_codes", "factors", "identities", "sessions", "sign_ins"];

/// The rows of a user by table; a table that holds none is absent.
pub(super) async fn kept_of(pool: &SqlitePool, user: UserId) -> Result<BTreeMap<String, Vec<Value>>, sqlx::Error> {
    let mut kept = BTreeMap::new();
    let own = KEPT.iter().map(|(table, columns)| (*table, "user_id = ?1".to_owned(), *columns));
    let hanging = KEPT_HANGING.iter().map(|(table, column, of, columns)| {
        (*table, format!("\"{column}\" IN (SELECT id FROM \"{of}\" WHERE user_id = ?1)"), *columns)
    });
    for (table, condition, columns) in own.chain(hanging) {
        let names: Vec<String> = columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        // The names are those above, never from outside.
        let statement = format!("SELECT {} FROM \"{table}\" WHERE {condition}", names.join(", "));
        let query = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(user.as_bytes().to_vec());
        let rows = query.fetch_all(pool).await?;
        if !rows.is_empty() {
            let told = rows.iter().map(|row| tell(row, columns)).collect::<Result<_, _>>()?;
            kept.insert(table.to_owned(), told);
        }
    }
    Ok(kept)
}

fn tell(row: &SqliteRow, columns: &[(&str, Told)]) -> Result<Value, sqlx::Error> {
    let mut object = Map::new();
    for (position, (name, told)) in columns.iter().enumerate() {
        let value = match told {
            Text => row.try_get::<Option<String>, _>(position)?.map(Value::from),
            Number => row.try_get::<Option<i64>, _>(position)?.map(Value::from),
            YesNo => row.try_get::<Option<i64>, _>(position)?.map(|n| Value::from(n != 0)),
            Time => {
                row.try_get::<Option<i64>, _>(position)?.map(|ms| UnixTime::from_millis(ms).to_rfc3339().into())
            }
        };
        if let Some(value) = value {
            object.insert((*name).to_owned(), value);
        }
    }
    if object.is_empty() { Err(unreadable("a row without anything to tell")) } else { Ok(Value::Object(object)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::erase::{HANGING, tables_with};
    use crate::store::{Store, StoreOptions};

    #[tokio::test]
    async fn whatever_names_a_user_is_exported() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { url: format!("sqlite://{}", dir.path().join("s.db").display()) };
        let store = Store::open(&options).await.unwrap();
        let mut connection = store.pool.acquire().await.unwrap();
        let mut told: Vec<&str> = KEPT.iter().map(|(table, _)| *table).chain(ELSEWHERE.iter().copied()).collect();
        told.sort_unstable();
        assert_eq!(tables_with(&mut connection, "user_id").await.unwrap(), told);
        let told = KEPT_HANGING.iter().map(|(table, column, of, _)| (*table, *column, *of));
        let mut told: Vec<_> = told.chain([("decisions", "id", "sign_ins")]).collect();
        let mut erased = HANGING.to_vec();
        told.sort_unstable();
        erased.sort_unstable();
        assert_eq!(told, erased);
    }
}
