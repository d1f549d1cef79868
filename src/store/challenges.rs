//! MFA challenges. An attempt is counted in the transaction that lets the code be looked at.

use std::time::Duration;

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use sqlx::{Row, SqliteConnection};

use super::batch::{insert_late_records, insert_records};
use super::factors::read_stored;
use super::frozen::{channel_word, find_channel};
use super::rows::{AssessmentRow, ContextRow, GrantRow, bytes, from_json, tenant};
use super::sessions::{self, read_user};
use super::users::insert_identity;
use super::{Store, backup_codes, links};
use crate::clock::UnixTime;
use crate::ids::{ChallengeId, FactorId, UserId};
use crate::mfa::ports::{
    AttemptRequest, AttemptStart, Challenges, Completion, CompletionResult, OpenAttempt, Passed, StoredFactor,
};
use crate::mfa::{CHALLENGE_ATTEMPTS, LOCK_WINDOW, MfaMethod, NewChallenge, USER_ATTEMPTS};
use crate::secret::same;
use crate::signin::facts::ChannelFacts;
use crate::signin::history::Pseudonym;
use crate::signin::ports::StoreError;
use crate::signin::record::SignInRecord;
use crate::signin::user::{User, UserStatus};

#[async_trait]
impl Challenges for Store {
    async fn begin_attempt(&self, request: AttemptRequest) -> Result<AttemptStart, StoreError> {
        self.write(move |connection| Box::pin(begin(connection, request))).await
    }

    async fn complete(&self, completion: Completion) -> Result<CompletionResult, StoreError> {
        self.write(move |connection| Box::pin(complete(connection, completion))).await
    }

    async fn record_wrong_code(&self, record: SignInRecord) -> Result<(), StoreError> {
        self.write(move |connection| Box::pin(async move { insert_late_records(connection, vec![record]).await }))
            .await
    }
}

pub(super) async fn insert(connection: &mut SqliteConnection, challenge: &NewChallenge) -> Result<(), sqlx::Error> {
    let word = |method: &MfaMethod| {
        let own = challenge.own.iter().find(|own| own.method == *method);
        own.map_or_else(|| method.to_string(), channel_word)
    };
    let methods: Vec<String> = challenge.methods.iter().map(word).collect();
    let assessment = serde_json::to_string(&AssessmentRow::from(&challenge.assessment));
    sqlx::query(
        "INSERT INTO challenges (id, secret_hash, tenant, user_id, device, methods, \"grant\", context, assessment, \
         created_at, expires_at, attempts) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0)",
    )
    .bind(challenge.id.as_bytes().to_vec())
    .bind(challenge.secret_hash.to_vec())
    .bind(challenge.tenant.as_str())
    .bind(challenge.user.as_bytes().to_vec())
    .bind(challenge.context.device.map(|d| d.to_vec()))
    .bind(methods.join(" "))
    .bind(GrantRow::from(&challenge.grant).to_json()?)
    .bind(ContextRow::from(&challenge.context).to_json()?)
    .bind(assessment.map_err(|e| sqlx::Error::Encode(Box::new(e)))?)
    .bind(challenge.created_at.as_millis())
    .bind(challenge.expires_at.as_millis())
    .execute(&mut *connection)
    .await?;
    match &challenge.link {
        Some(identity) => links::insert_for_challenge(connection, challenge, identity).await,
        None => Ok(()),
    }
}

async fn begin(connection: &mut SqliteConnection, request: AttemptRequest) -> Result<AttemptStart, sqlx::Error> {
    let (challenge, user) = match find_open(connection, &request).await? {
        Ok(open) => open,
        Err(refused) => return Ok(refused),
    };
    count(connection, request.challenge, user.id, request.now).await?;
    let factors = factors_of(connection, user.id, request.method).await?;
    let backup_codes = match request.method {
        MfaMethod::BackupCode => backup_codes::left(connection, user.id).await?,
        _ => Vec::new(),
    };
    Ok(AttemptStart::Open(Box::new(OpenAttempt { challenge, user, factors, backup_codes })))
}

/// The challenge and its user, when it may be answered now; else why not.
pub(super) async fn find_open(
    connection: &mut SqliteConnection,
    request: &AttemptRequest,
) -> Result<Result<(NewChallenge, User), AttemptStart>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT c.secret_hash, c.tenant, c.device, c.methods, c.\"grant\", c.context, c.assessment, c.created_at, \
         c.expires_at, c.attempts, c.used_at, u.id, u.tenant, u.status, u.profile, u.created_at, \
         (SELECT json_array(p.changed_at, p.must_change) FROM passwords p WHERE p.user_id = u.id), \
         (SELECT json_array(l.provider, l.issuer, l.subject) FROM challenge_links l WHERE l.challenge = c.id) \
         FROM challenges c JOIN users u ON u.id = c.user_id WHERE c.id = ?1",
    )
    .bind(request.challenge.as_bytes().to_vec())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(Err(AttemptStart::Unknown)) };
    let device: Option<Pseudonym> = row.try_get::<Option<Vec<u8>>, _>(2)?.map(|d| bytes(&d)).transpose()?;
    let user = read_user(&row, 11)?;
    let known = same(row.try_get(0)?, &request.secret_hash)
        && row.try_get::<&str, _>(1)? == request.tenant.as_str()
        && device == request.device
        && user.status == UserStatus::Active;
    if !known {
        return Ok(Err(AttemptStart::Unknown));
    }
    if row.try_get::<Option<i64>, _>(10)?.is_some() {
        return Ok(Err(AttemptStart::Used));
    }
    let (expires_at, now) = (UnixTime::from_millis(row.try_get(8)?), request.now);
    if expires_at <= now || row.try_get::<u32, _>(9)? >= CHALLENGE_ATTEMPTS {
        return Ok(Err(AttemptStart::Expired));
    }
    if let Some(until) = locked_until(connection, user.id).await?.filter(|until| *until > now) {
        return Ok(Err(AttemptStart::Locked { retry_after_s: until.since(now).as_secs().max(1) }));
    }
    let grant = GrantRow::read(row.try_get(4)?)?;
    if !request.in_force.lets_provider_in(&grant) {
        return Ok(Err(AttemptStart::ProviderDisabled));
    }
    if !request.in_force.lets_client_in(&grant) {
        return Ok(Err(AttemptStart::Expired));
    }
    let assessment: AssessmentRow = from_json(row.try_get(6)?)?;
    let context: ContextRow = from_json(row.try_get(5)?)?;
    let channels: Vec<ChannelFacts> = row.try_get::<&str, _>(3)?.split(' ').filter_map(find_channel).collect();
    let challenge = NewChallenge {
        id: request.challenge,
        secret_hash: request.secret_hash,
        tenant: tenant(row.try_get(1)?)?,
        user: user.id,
        created_at: UnixTime::from_millis(row.try_get(7)?),
        expires_at,
        methods: channels.iter().map(|channel| channel.method).collect(),
        own: channels.into_iter().filter(|channel| matches!(channel.method, MfaMethod::Own(_))).collect(),
        grant,
        context: context.into(),
        assessment: assessment.into(),
        link: links::read_of_challenge(&request.tenant, row.try_get(17)?)?,
    };
    Ok(Ok((challenge, user)))
}

/// Ends the open challenges of a user, through one provider or all, those that began until then or all: whoever ends
/// the sessions means these too.
pub(super) async fn end_open(
    connection: &mut SqliteConnection,
    user: UserId,
    provider: Option<&str>,
    begun_until: Option<UnixTime>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE challenges SET expires_at = created_at WHERE user_id = ?1 AND used_at IS NULL \
         AND (?2 IS NULL OR \"grant\" ->> 'provider' = ?2) AND (?3 IS NULL OR created_at <= ?3)",
    )
    .bind(user.as_bytes().to_vec())
    .bind(provider)
    .bind(begun_until.map(UnixTime::as_millis))
    .execute(connection)
    .await
    .map(|_| ())
}

/// Ends the open challenges that came from one session of a provider, of this user if one is named.
pub(super) async fn end_upstream(
    connection: &mut SqliteConnection,
    session: &[u8; 32],
    user: Option<UserId>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE challenges SET expires_at = created_at WHERE used_at IS NULL AND \"grant\" ->> 'upstream_sid' = ?1 \
         AND (?2 IS NULL OR user_id = ?2)",
    )
    .bind(HEXLOWER.encode(session))
    .bind(user.map(|user| user.as_bytes().to_vec()))
    .execute(connection)
    .await
    .map(|_| ())
}

async fn locked_until(connection: &mut SqliteConnection, user: UserId) -> Result<Option<UnixTime>, sqlx::Error> {
    let row = sqlx::query("SELECT until FROM mfa_locks WHERE user_id = ?1")
        .bind(user.as_bytes().to_vec())
        .fetch_optional(connection)
        .await?;
    row.map(|r| r.try_get(0).map(UnixTime::from_millis)).transpose()
}

/// Counts one attempt as wrong; the one that fills the window locks the user.
async fn count(
    connection: &mut SqliteConnection,
    challenge: ChallengeId,
    user: UserId,
    now: UnixTime,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE challenges SET attempts = attempts + 1 WHERE id = ?1")
        .bind(challenge.as_bytes().to_vec())
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO mfa_attempts (user_id, challenge, at) VALUES (?1, ?2, ?3)")
        .bind(user.as_bytes().to_vec())
        .bind(challenge.as_bytes().to_vec())
        .bind(now.as_millis())
        .execute(&mut *connection)
        .await?;
    if recent_attempts(connection, user, now).await? >= i64::from(USER_ATTEMPTS) {
        sqlx::query(
            "INSERT INTO mfa_locks (user_id, until) VALUES (?1, ?2) \
             ON CONFLICT (user_id) DO UPDATE SET until = excluded.until",
        )
        .bind(user.as_bytes().to_vec())
        .bind(now.plus(LOCK_WINDOW).as_millis())
        .execute(connection)
        .await?;
    }
    Ok(())
}

async fn recent_attempts(
    connection: &mut SqliteConnection,
    user: UserId,
    now: UnixTime,
) -> Result<i64, sqlx::Error> {
    let row = sqlx::query("SELECT count(*) FROM mfa_attempts WHERE user_id = ?1 AND at > ?2")
        .bind(user.as_bytes().to_vec())
        .bind(now.minus(LOCK_WINDOW).as_millis())
        .fetch_one(connection)
        .await?;
    row.try_get(0)
}

async fn factors_of(
    connection: &mut SqliteConnection,
    user: UserId,
    method: MfaMethod,
) -> Result<Vec<StoredFactor>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id, method, sealed_secret, enrolled_at, last_used_at, last_step FROM factors \
         WHERE user_id = ?1 AND method = ?2 AND confirmed = 1",
    )
    .bind(user.as_bytes().to_vec())
    .bind(method.as_str())
    .fetch_all(connection)
    .await?;
    rows.iter().map(read_stored).collect()
}

async fn complete(
    connection: &mut SqliteConnection,
    completion: Completion,
) -> Result<CompletionResult, sqlx::Error> {
    let Completion { challenge, user, passed, link, session, record } = completion;
    let owner = match &link {
        Some(identity) => links::owner(&mut *connection, identity).await?,
        None => None,
    };
    if owner.is_some_and(|owner| owner != user) {
        return Ok(CompletionResult::IdentityTaken);
    }
    // The code was judged outside of this transaction: what ended the challenge meanwhile counts.
    let used = sqlx::query(
        "UPDATE challenges SET used_at = ?2 WHERE id = ?1 AND used_at IS NULL AND expires_at > ?2 \
         AND EXISTS (SELECT 1 FROM users u WHERE u.id = user_id AND u.status = 'active')",
    )
    .bind(challenge.as_bytes().to_vec())
    .bind(record.at.as_millis())
    .execute(&mut *connection)
    .await?;
    if used.rows_affected() != 1 {
        let ended = sqlx::query("SELECT 1 FROM challenges WHERE id = ?1 AND used_at IS NOT NULL")
            .bind(challenge.as_bytes().to_vec())
            .fetch_optional(connection)
            .await?
            .is_none();
        return Ok(if ended { CompletionResult::ChallengeEnded } else { CompletionResult::ChallengeUsed });
    }
    let spent = match passed {
        Passed::Factor { factor, step } => spend_step(connection, user, factor, step, record.at).await?,
        Passed::BackupCode { factor, hash } => {
            backup_codes::spend(connection, user, factor, &hash, record.at).await?
        }
        Passed::SentCode => true,
    };
    if !spent {
        sqlx::query("UPDATE challenges SET used_at = NULL WHERE id = ?1")
            .bind(challenge.as_bytes().to_vec())
            .execute(connection)
            .await?;
        return Ok(CompletionResult::CodeUsed);
    }
    take_back(&mut *connection, challenge, user, record.at).await?;
    if let (Some(identity), None) = (&link, owner) {
        insert_identity(&mut *connection, identity, user, record.at).await?;
    }
    sessions::insert(&mut *connection, &session).await?;
    insert_records(&mut *connection, std::slice::from_ref(&record)).await?;
    if let Some(most) = session.grant.caps.sessions {
        sessions::keep_within(connection, &[(user, most)], record.at).await?;
    }
    Ok(CompletionResult::Done)
}

/// `false`: this step or a later one was spent before.
async fn spend_step(
    connection: &mut SqliteConnection,
    user: UserId,
    factor: FactorId,
    step: i64,
    at: UnixTime,
) -> Result<bool, sqlx::Error> {
    let spent = sqlx::query(
        "UPDATE factors SET last_step = ?3, last_used_at = ?4 \
         WHERE user_id = ?1 AND id = ?2 AND confirmed = 1 AND (last_step IS NULL OR last_step < ?3)",
    )
    .bind(user.as_bytes().to_vec())
    .bind(factor.as_bytes().to_vec())
    .bind(step)
    .bind(at.as_millis())
    .execute(connection)
    .await?;
    Ok(spent.rows_affected() == 1)
}

/// The attempt was not a wrong one: it no longer counts, and a lock that only it filled goes with it.
async fn take_back(
    connection: &mut SqliteConnection,
    challenge: ChallengeId,
    user: UserId,
    now: UnixTime,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM mfa_attempts WHERE id = (SELECT max(id) FROM mfa_attempts WHERE user_id = ?1 AND challenge = ?2)")
        .bind(user.as_bytes().to_vec())
        .bind(challenge.as_bytes().to_vec())
        .execute(&mut *connection)
        .await?;
    if recent_attempts(connection, user, now).await? < i64::from(USER_ATTEMPTS) {
        sqlx::query("DELETE FROM mfa_locks WHERE user_id = ?1")
            .bind(user.as_bytes().to_vec())
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Challenges are kept for a day after their end, so that a late answer is told why.
pub(super) const KEPT: Duration = Duration::from_secs(86_400);
