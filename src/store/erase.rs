//! Erasing a user: every table that names one loses its rows, so that a new table is covered by having a
//! column `user_id`. What hangs from such rows goes first.

use sqlx::{Row, SqliteConnection};

use crate::ids::UserId;

/// Tables without a `user_id` whose rows belong to rows that have one: table, column, the other table.
pub(super) const HANGING: &[(&str, &str, &str)] = &[
    ("refresh_tokens", "session_id", "sessions"),
    ("challenge_links", "challenge", "challenges"),
    ("decisions", "id", "sign_ins"),
    ("policy_shadow_differences", "sign_in", "sign_ins"),
];

/// Removes everything of a user but an empty row of `users`.
pub(super) async fn erase(connection: &mut SqliteConnection, user: UserId) -> Result<(), sqlx::Error> {
    let tables = tables_with(connection, "user_id").await?;
    for (table, column, of) in HANGING {
        if exists(connection, table).await? {
            run(
                connection,
                format!("DELETE FROM {table} WHERE {column} IN (SELECT id FROM {of} WHERE user_id = ?1)"),
                user,
            )
            .await?;
        }
    }
    for table in tables {
        run(connection, format!("DELETE FROM \"{table}\" WHERE user_id = ?1"), user).await?;
    }
    let emptied =
        "UPDATE users SET status = 'deleted', email_key = NULL, email_verified = 0, profile = ?2 WHERE id = ?1";
    sqlx::query(emptied)
        .bind(user.as_bytes().to_vec())
        .bind(super::users::empty_profile()?)
        .execute(connection)
        .await
        .map(|_| ())
}

/// The names come from our own schema, never from outside.
async fn run(connection: &mut SqliteConnection, statement: String, user: UserId) -> Result<(), sqlx::Error> {
    let statement = sqlx::AssertSqlSafe(statement);
    sqlx::query(statement).bind(user.as_bytes().to_vec()).execute(connection).await.map(|_| ())
}

/// Our tables that have a column of this name.
pub(super) async fn tables_with(
    connection: &mut SqliteConnection,
    column: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c \
         WHERE m.type = 'table' AND c.name = ?1 ORDER BY m.name",
    )
    .bind(column)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

async fn exists(connection: &mut SqliteConnection, table: &str) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1")
        .bind(table)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}
