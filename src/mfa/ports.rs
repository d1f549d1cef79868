//! What MFA needs of the store.

use std::sync::Arc;

use async_trait::async_trait;

use super::backup::CodeHash;
use super::{Factor, MfaMethod, NewChallenge};
use crate::admin::audit::Author;
use crate::clock::UnixTime;
use crate::ids::{ChallengeId, FactorId, TenantId, UserId};
use crate::session::NewSession;
use crate::signin::ports::{InForce, StoreError};
use crate::signin::record::SignInRecord;
use crate::signin::user::{IdentityKey, User};

/// A factor with its secret as it is stored.
#[derive(Debug, Clone)]
pub struct StoredFactor {
    /// The factor.
    pub factor: Factor,
    /// The sealed secret.
    pub sealed_secret: Vec<u8>,
    /// The last TOTP step that was accepted; an older or equal one is refused.
    pub last_step: Option<i64>,
}

/// A challenge whose secret and device fit, with one attempt counted.
#[derive(Debug)]
pub struct OpenAttempt {
    /// The challenge.
    pub challenge: NewChallenge,
    /// Its user, active.
    pub user: User,
    /// The user's factors of the asked method.
    pub factors: Vec<StoredFactor>,
    /// What is left of the user's backup codes, when they are the asked method.
    pub backup_codes: Vec<CodeHash>,
}

/// What became of the attempt to answer.
#[derive(Debug)]
pub enum AttemptStart {
    /// The code may be looked at. The attempt is counted as wrong until [`Challenges::complete`].
    Open(Box<OpenAttempt>),
    /// There is no such challenge, its secret or device differs, or its user may not sign in.
    Unknown,
    /// It came through a provider that is not enabled now. The attempt is not counted.
    ProviderDisabled,
    /// It has expired, died of wrong codes, or belongs to a client that is gone.
    Expired,
    /// It was answered.
    Used,
    /// Too many wrong codes of this user.
    Locked {
        /// Seconds until the lock ends.
        retry_after_s: u64,
    },
}

/// A right answer, to be written all at once.
#[derive(Debug)]
pub struct Completion {
    /// The challenge, to be marked as used.
    pub challenge: ChallengeId,
    /// Its user.
    pub user: UserId,
    /// What passed.
    pub passed: Passed,
    /// The identity to link.
    pub link: Option<Box<IdentityKey>>,
    /// The session that comes of it.
    pub session: NewSession,
    /// The record.
    pub record: SignInRecord,
}

/// What passed, and what is to be spent for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// A factor.
    Factor {
        /// Which one.
        factor: FactorId,
        /// The TOTP step.
        step: i64,
    },
    /// A backup code, which is gone then.
    BackupCode {
        /// Its set.
        factor: FactorId,
        /// What the store has of it.
        hash: CodeHash,
    },
    /// A code that was sent for this challenge, or a confirmation on a device: it goes with the challenge.
    SentCode,
}

/// A message to be counted.
#[derive(Debug)]
pub struct NewDelivery {
    /// Its identifier.
    pub delivery_id: String,
    /// The code, when the server made it.
    pub sealed_code: Option<Vec<u8>>,
}

/// Whether a message may be sent.
#[derive(Debug)]
pub enum DeliveryStart {
    /// It may, and is counted.
    Open(Box<(NewChallenge, User)>),
    /// The challenge is not open; never [`AttemptStart::Open`].
    Refused(AttemptStart),
    /// The challenge takes other methods.
    NotAllowed {
        /// Which.
        allowed: Vec<MfaMethod>,
    },
    /// Too many messages, or too soon.
    TooMany {
        /// Seconds until another may be sent.
        retry_after_s: u64,
    },
}

/// Whether the channel of a push may be asked if the user has answered.
#[derive(Debug)]
pub enum PollStart {
    /// It may, which is noted; no attempt is counted.
    Open(Box<OpenAttempt>),
    /// It was asked a moment ago.
    Wait {
        /// Seconds until it may be asked again.
        retry_after_s: u64,
    },
    /// No message of a channel that judges is out, so an empty code is one like any other.
    NoMessage,
    /// The challenge is not open; never [`AttemptStart::Open`].
    Refused(AttemptStart),
}

/// Messages with codes.
#[async_trait]
pub trait Deliveries: Send + Sync {
    /// Checks the challenge as [`Challenges::begin_attempt`] does, and notes a look instead of an attempt:
    /// [`super::delivery::POLL_PAUSE`]. What has to wait writes nothing.
    async fn begin_poll(&self, request: AttemptRequest) -> Result<PollStart, StoreError>;
    /// Checks the challenge as [`Challenges::begin_attempt`] does, and counts a message instead of an
    /// attempt: [`super::delivery::MESSAGES_PER_CHALLENGE`], [`super::delivery::MESSAGES_PER_USER`].
    async fn begin_delivery(&self, request: AttemptRequest, new: NewDelivery) -> Result<DeliveryStart, StoreError>;
    /// Keeps what the channel calls the message, unless a newer one was sent.
    async fn set_reference(
        &self,
        challenge: ChallengeId,
        method: MfaMethod,
        delivery_id: &str,
        reference: &str,
    ) -> Result<(), StoreError>;
    /// The last message of a challenge by this method.
    async fn find_delivery(
        &self,
        challenge: ChallengeId,
        method: MfaMethod,
    ) -> Result<Option<super::delivery::Delivery>, StoreError>;
}

/// How a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompletionResult {
    /// It is durable, and the counted attempt is taken back.
    Done,
    /// Somebody answered the challenge first.
    ChallengeUsed,
    /// The challenge or its user was ended in the meantime.
    ChallengeEnded,
    /// The same code was used before; the attempt stays counted.
    CodeUsed,
    /// The identity was linked to another user in the meantime; nothing was written.
    IdentityTaken,
}

/// Challenges and factors in the store.
#[async_trait]
pub trait Challenges: Send + Sync {
    /// Counts an attempt and reads what is needed to judge it, in one transaction. Checks, in this
    /// order: challenge known and secret equal (in constant time), device equal, user active, provider enabled, client there, not
    /// used, not expired and fewer than [`super::CHALLENGE_ATTEMPTS`] attempts, user not locked
    /// (fewer than [`super::USER_ATTEMPTS`] attempts within [`super::LOCK_WINDOW`], over all
    /// challenges and methods; the lock lasts [`super::LOCK_WINDOW`] from the attempt that filled it).
    async fn begin_attempt(&self, request: AttemptRequest) -> Result<AttemptStart, StoreError>;
    /// Marks the challenge used, the TOTP step or backup code spent, and writes session and record: all or nothing.
    async fn complete(&self, completion: Completion) -> Result<CompletionResult, StoreError>;
    /// Writes the record of a wrong code.
    async fn record_wrong_code(&self, record: SignInRecord) -> Result<(), StoreError>;
}

/// Which challenge is being answered, and from where.
#[derive(Debug, Clone)]
pub struct AttemptRequest {
    /// The tenant of the request.
    pub tenant: TenantId,
    /// The challenge.
    pub challenge: ChallengeId,
    /// SHA-256 of the secret that the client sent.
    pub secret_hash: [u8; 32],
    /// The pseudonym of the device identifier that the client sent.
    pub device: Option<crate::signin::history::Pseudonym>,
    /// The method.
    pub method: MfaMethod,
    /// The tenant's enabled providers and its clients.
    pub in_force: Arc<InForce>,
    /// The moment.
    pub now: UnixTime,
}

/// Factors of a user.
#[async_trait]
pub trait Factors: Send + Sync {
    /// All confirmed factors of a user.
    async fn factors(&self, user: UserId) -> Result<Vec<Factor>, StoreError>;
    /// Keeps a factor that is not confirmed yet, in place of earlier unconfirmed ones.
    async fn put_pending(&self, user: UserId, factor: StoredFactor) -> Result<(), StoreError>;
    /// An unconfirmed factor. Counts an attempt: after five it is gone.
    async fn begin_confirmation(
        &self,
        user: UserId,
        factor: FactorId,
        now: UnixTime,
    ) -> Result<Option<StoredFactor>, StoreError>;
    /// Confirms it, and remembers the step of the code. `false` when it is gone or was confirmed.
    async fn confirm(&self, user: UserId, factor: FactorId, step: i64, now: UnixTime) -> Result<bool, StoreError>;
    /// Puts a set of backup codes in the place of an earlier one and writes the audit record, if the user has
    /// another confirmed factor. `false` when there is none.
    async fn put_backup_codes(
        &self,
        user: UserId,
        set: StoredFactor,
        hashes: Vec<CodeHash>,
        author: Author,
    ) -> Result<bool, StoreError>;
    /// How many backup codes are left.
    async fn backup_codes_left(&self, user: UserId) -> Result<u32, StoreError>;
}
