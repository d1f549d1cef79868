//! Backup codes: a set is a factor, and its codes hang from it.

use serde_json::json;
use sqlx::{Row, SqliteConnection};

use super::audit;
use super::rows::bytes;
use crate::admin::audit::{Author, Change};
use crate::clock::UnixTime;
use crate::ids::{FactorId, UserId};
use crate::mfa::MfaMethod;
use crate::mfa::backup::CodeHash;
use crate::mfa::ports::StoredFactor;

const METHOD: &str = MfaMethod::BackupCode.word();

/// `false`: the user has no other confirmed factor.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    user: UserId,
    set: StoredFactor,
    hashes: Vec<CodeHash>,
    author: Author,
) -> Result<bool, sqlx::Error> {
    let other = sqlx::query("SELECT 1 FROM factors WHERE user_id = ?1 AND confirmed = 1 AND method <> ?2 LIMIT 1")
        .bind(user.as_bytes().to_vec())
        .bind(METHOD)
        .fetch_optional(&mut *connection)
        .await?;
    if other.is_none() {
        return Ok(false);
    }
    let before = remove(connection, user).await?;
    sqlx::query(
        "INSERT INTO factors (user_id, id, method, sealed_secret, enrolled_at, confirmed, attempts) \
         VALUES (?1, ?2, ?3, ?4, ?5, 1, 0)",
    )
    .bind(user.as_bytes().to_vec())
    .bind(set.factor.id.as_bytes().to_vec())
    .bind(METHOD)
    .bind(set.sealed_secret)
    .bind(set.factor.enrolled_at.as_millis())
    .execute(&mut *connection)
    .await?;
    for hash in &hashes {
        sqlx::query("INSERT INTO backup_codes (user_id, factor, hash) VALUES (?1, ?2, ?3)")
            .bind(user.as_bytes().to_vec())
            .bind(set.factor.id.as_bytes().to_vec())
            .bind(hash.to_vec())
            .execute(&mut *connection)
            .await?;
    }
    // What went out of force has its own member: ten codes for ten others would be no difference.
    let after = json!({"left": hashes.len(), "made": hashes.len(), "replaced": before});
    let before = json!({"left": before});
    let change = Change::between("user.backup_codes", user.to_string(), &before, &after);
    audit::record(connection, &author, &change).await?;
    Ok(true)
}

/// Removes the set of a user, and gives how many codes it had.
pub(super) async fn remove(connection: &mut SqliteConnection, user: UserId) -> Result<u64, sqlx::Error> {
    sqlx::query("DELETE FROM factors WHERE user_id = ?1 AND method = ?2")
        .bind(user.as_bytes().to_vec())
        .bind(METHOD)
        .execute(&mut *connection)
        .await?;
    let codes = sqlx::query("DELETE FROM backup_codes WHERE user_id = ?1")
        .bind(user.as_bytes().to_vec())
        .execute(connection)
        .await?;
    Ok(codes.rows_affected())
}

/// What is left of the codes of a user.
pub(super) async fn left(connection: &mut SqliteConnection, user: UserId) -> Result<Vec<CodeHash>, sqlx::Error> {
    let rows = sqlx::query("SELECT hash FROM backup_codes WHERE user_id = ?1")
        .bind(user.as_bytes().to_vec())
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| bytes(row.try_get(0)?)).collect()
}

/// Takes a code away, and with the last one the set. `false`: it was gone.
pub(super) async fn spend(
    connection: &mut SqliteConnection,
    user: UserId,
    factor: FactorId,
    hash: &CodeHash,
    at: UnixTime,
) -> Result<bool, sqlx::Error> {
    let spent = sqlx::query("DELETE FROM backup_codes WHERE user_id = ?1 AND factor = ?2 AND hash = ?3")
        .bind(user.as_bytes().to_vec())
        .bind(factor.as_bytes().to_vec())
        .bind(hash.to_vec())
        .execute(&mut *connection)
        .await?;
    if spent.rows_affected() != 1 {
        return Ok(false);
    }
    sqlx::query("UPDATE factors SET last_used_at = ?3 WHERE user_id = ?1 AND id = ?2")
        .bind(user.as_bytes().to_vec())
        .bind(factor.as_bytes().to_vec())
        .bind(at.as_millis())
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "DELETE FROM factors WHERE user_id = ?1 AND id = ?2 \
         AND NOT EXISTS (SELECT 1 FROM backup_codes WHERE user_id = ?1)",
    )
    .bind(user.as_bytes().to_vec())
    .bind(factor.as_bytes().to_vec())
    .execute(connection)
    .await
    .map(|_| true)
}
