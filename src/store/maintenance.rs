//! What the writer removes between sign-ins, a little at a time: spent replays, wiped successors, old
//! challenges and attempts, sessions that are over, history beyond its use. "Now" is the time that the last command brought, so
//! that a clock that stands still in a test does not lose what still counts.

use std::time::Duration;

use sqlx::SqliteConnection;

use super::challenges;
use super::writer::Command;
use crate::mfa::LOCK_WINDOW;
use crate::people::passwords::PASSWORD_WINDOW;
use crate::signin::history::HISTORY_DAYS;

/// Rows of one kind that go in one round.
const CHUNK: i64 = 2000;
/// How long a sealed successor may stay: longer than any grace that configuration allows.
const SEALED: Duration = Duration::from_secs(120);

#[derive(Default)]
pub(super) struct Keeper {
    now_ms: i64,
    dirty: bool,
}

impl Keeper {
    /// Takes note of a command's time.
    pub fn saw(&mut self, command: &Command) {
        self.dirty = true;
        let at = match command {
            Command::Remember { now, .. } => *now,
            Command::Commit { commit, .. } => commit.record.at,
            Command::Record(record) => record.at,
            Command::Task(_) | Command::Close => return,
        };
        self.now_ms = self.now_ms.max(at.as_millis());
    }

    /// One round. Does nothing when nothing was written since the last one.
    pub async fn run(&mut self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        if !std::mem::take(&mut self.dirty) || self.now_ms == 0 {
            return Ok(());
        }
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        let removed = self.remove(connection).await;
        let end = if removed.is_ok() { "COMMIT" } else { "ROLLBACK" };
        sqlx::query(end).execute(&mut *connection).await?;
        removed
    }

    async fn remove(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let before = |by: Duration| self.now_ms.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
        let history = Duration::from_secs((HISTORY_DAYS + 20) * 86_400);
        for (statement, limit) in [
            (
                "DELETE FROM replays WHERE id IN \
                 (SELECT id FROM (SELECT id, expires_at FROM replays ORDER BY id LIMIT ?2) WHERE expires_at <= ?1)",
                self.now_ms,
            ),
            (
                "UPDATE refresh_tokens SET sealed = NULL WHERE id IN \
                 (SELECT id FROM refresh_tokens WHERE sealed IS NOT NULL AND used_at < ?1 LIMIT ?2)",
                before(SEALED),
            ),
            (
                "DELETE FROM challenges WHERE id IN \
                 (SELECT id FROM (SELECT id, expires_at FROM challenges ORDER BY id LIMIT ?2) WHERE expires_at < ?1)",
                before(challenges::KEPT),
            ),
            (
                "DELETE FROM link_offers WHERE id IN \
                 (SELECT id FROM (SELECT id, expires_at FROM link_offers ORDER BY id LIMIT ?2) WHERE expires_at < ?1)",
                self.now_ms,
            ),
            (
                "DELETE FROM challenge_links WHERE challenge IN (SELECT challenge FROM \
                 (SELECT challenge, expires_at FROM challenge_links ORDER BY challenge LIMIT ?2) WHERE expires_at < ?1)",
                before(challenges::KEPT),
            ),
            (
                "DELETE FROM password_attempts WHERE id IN \
                 (SELECT id FROM (SELECT id, at FROM password_attempts ORDER BY id LIMIT ?2) WHERE at < ?1)",
                before(PASSWORD_WINDOW),
            ),
            (
                "DELETE FROM mfa_attempts WHERE id IN \
                 (SELECT id FROM (SELECT id, at FROM mfa_attempts ORDER BY id LIMIT ?2) WHERE at < ?1)",
                before(LOCK_WINDOW),
            ),
            (
                "DELETE FROM mfa_deliveries WHERE (challenge, method) IN \
                 (SELECT challenge, method FROM mfa_deliveries WHERE sent_at < ?1 ORDER BY sent_at LIMIT ?2)",
                before(LOCK_WINDOW),
            ),
            (
                "DELETE FROM plugin_values WHERE (plugin, key) IN \
                 (SELECT plugin, key FROM plugin_values WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
                self.now_ms,
            ),
            (
                "DELETE FROM decisions WHERE seq IN \
                 (SELECT seq FROM (SELECT seq, expires_at FROM decisions ORDER BY seq LIMIT ?2) WHERE expires_at <= ?1)",
                self.now_ms,
            ),
            ("DELETE FROM mfa_locks WHERE until <= ?1 AND ?2 > 0", self.now_ms),
            (
                "DELETE FROM refresh_tokens WHERE id IN \
                 (SELECT id FROM (SELECT id, expires_at FROM refresh_tokens ORDER BY id LIMIT ?2) WHERE expires_at < ?1)",
                before(Duration::from_secs(86_400)),
            ),
            (
                "DELETE FROM sessions WHERE id IN \
                 (SELECT id FROM (SELECT id, idle_at FROM sessions ORDER BY id LIMIT ?2) WHERE idle_at < ?1)",
                before(Duration::from_secs(86_400)),
            ),
            (
                "DELETE FROM sign_ins WHERE user_id = zeroblob(16) AND id IN \
                 (SELECT id FROM sign_ins WHERE user_id = zeroblob(16) AND at < ?1 ORDER BY id LIMIT ?2)",
                before(history),
            ),
        ] {
            sqlx::query(statement).bind(limit).bind(CHUNK).execute(&mut *connection).await?;
        }
        Ok(())
    }
}
