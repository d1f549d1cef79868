//! Answering a challenge: the sign-in path enters again at step 11.

use std::str::FromStr;
use std::sync::Arc;

use super::delivery::{CODE_PURPOSE, CodeChannels, Delivery, Judged, POLL_PAUSE, Question};
use super::ports::{
    AttemptRequest, AttemptStart, Challenges, Completion, CompletionResult, Deliveries, OpenAttempt, Passed,
    PollStart,
};
use super::{MfaMethod, backup, totp};
use crate::clock::{Clock, UnixTime};
use crate::codes::ErrorCode;
use crate::ids::{ChallengeId, EventId, TenantId};
use crate::secret::{Entropy, same, sha256};
use crate::session::issue::{Holder, IssuedTokens, TokenIssuer};
use crate::session::ports::KeyRingError;
use crate::signin::history::{PastEnd, Pseudonyms};
use crate::signin::ports::{Directory, Observer, StoreError};
use crate::signin::record::{AssessmentRecord, SignInRecord};
use crate::signin::user::User;
use crate::vault::Vault;

/// The purpose that secrets of factors are sealed for, those of TOTP and the keys of backup codes; the context is
/// the factor's identifier.
pub const TOTP_PURPOSE: &str = "totp secret";

/// Why an answer is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ChallengeError {
    /// No such challenge for this tenant and device.
    #[error("the challenge token is not known, or belongs to another device")]
    Unknown,
    /// It has expired, or died of wrong codes.
    #[error("the challenge has expired or had too many wrong codes; sign in again")]
    Expired,
    /// It was answered.
    #[error("the challenge was answered before")]
    Used,
    /// The method is not one of the challenge's.
    #[error("this challenge cannot be answered by {method}; it takes {allowed}")]
    Method {
        /// What was asked for.
        method: String,
        /// What is possible.
        allowed: String,
    },
    /// The code is wrong, too old, or was used before.
    #[error("the code is wrong, too old, or was used before")]
    WrongCode,
    /// The user has not answered on the device yet, or the channel was asked a moment ago; no code is counted.
    #[error("the user has not confirmed yet; ask again in {retry_after_s} s")]
    Pending {
        /// Seconds until the channel is asked again.
        retry_after_s: u64,
    },
    /// Somebody else has the identity that the answer would have linked.
    #[error("this identity has been linked to another account in the meantime")]
    IdentityTaken,
    /// The user's MFA is locked.
    #[error("too many wrong codes; try again in {retry_after_s} s")]
    Locked {
        /// Seconds until the lock ends.
        retry_after_s: u64,
    },
    /// The provider that it came through is disabled; the attempt is not counted.
    #[error("the provider of this sign-in is disabled")]
    ProviderDisabled,
    /// Who judges the code is out of reach. An attempt with a code stays counted.
    #[error("the code cannot be checked now")]
    Channel,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No key could sign.
    #[error(transparent)]
    Keys(#[from] KeyRingError),
}

impl ChallengeError {
    /// The stable word of the contract.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unknown => ErrorCode::InvalidChallenge,
            Self::Expired => ErrorCode::ChallengeExpired,
            Self::Used => ErrorCode::ChallengeUsed,
            Self::Method { .. } => ErrorCode::MfaMethodNotAllowed,
            Self::WrongCode => ErrorCode::InvalidMfaCode,
            Self::Pending { .. } => ErrorCode::MfaPending,
            Self::IdentityTaken => ErrorCode::IdentityTaken,
            Self::ProviderDisabled => ErrorCode::ProviderDisabled,
            Self::Locked { .. } => ErrorCode::MfaLocked,
            Self::Channel => ErrorCode::ChannelUnavailable,
            Self::Store(_) | Self::Keys(_) => ErrorCode::StoreUnavailable,
        }
    }
}

/// An answer to a challenge. Not printable: it holds a secret and a code.
pub struct Answer<'a> {
    /// The tenant of the request.
    pub tenant: TenantId,
    /// `chg_….secret`, as the client holds it.
    pub challenge_token: &'a str,
    /// The method.
    pub method: MfaMethod,
    /// The code.
    pub code: &'a str,
    /// The device identifier that the application sent at sign-in.
    pub device_id: Option<&'a str>,
}

/// What a right answer gives.
#[derive(Debug)]
pub struct Answered {
    /// Tokens.
    pub tokens: IssuedTokens,
    /// The user.
    pub user: User,
    /// The assessment that asked for the factor.
    pub assessment: AssessmentRecord,
}

/// Judges answers to challenges.
pub struct ChallengeVerifier {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Which providers are enabled, and which clients there are.
    pub directory: Arc<dyn Directory>,
    /// The store.
    pub challenges: Arc<dyn Challenges>,
    /// Messages with codes.
    pub deliveries: Arc<dyn Deliveries>,
    /// Channels that judge codes.
    pub channels: Arc<dyn CodeChannels>,
    /// Who is told how it ended.
    pub observer: Arc<dyn Observer>,
    /// Makes tokens.
    pub issuer: Arc<TokenIssuer>,
    /// Opens TOTP secrets.
    pub vault: Vault,
    /// Hashes device identifiers.
    pub pseudonyms: Pseudonyms,
}

impl ChallengeVerifier {
    /// Takes a right answer once, and gives tokens for it.
    ///
    /// # Errors
    /// See [`ChallengeError`]. A wrong code stays counted against challenge and user.
    pub async fn answer(&self, answer: Answer<'_>) -> Result<Answered, ChallengeError> {
        let now = self.clock.now();
        let (challenge, secret_hash) = parse(answer.challenge_token).ok_or(ChallengeError::Unknown)?;
        let device = answer.device_id.map(|d| self.pseudonyms.of(answer.tenant.as_str(), "device", d));
        let method = answer.method;
        let in_force = self.directory.in_force(&answer.tenant);
        let tenant = answer.tenant;
        let request = AttemptRequest { tenant, challenge, secret_hash, device, method, in_force, now };
        // Whoever gives no code guesses none: asking whether the user has answered is not counted as an attempt.
        let polled = match method {
            MfaMethod::Push | MfaMethod::Own(_) if answer.code.trim().is_empty() => {
                self.poll(request.clone()).await?
            }
            _ => None,
        };
        let is_poll = polled.is_some();
        let attempt = match polled {
            Some(attempt) => attempt,
            None => opened(self.challenges.begin_attempt(request.clone()).await?)?,
        };
        if !attempt.challenge.methods.contains(&method) {
            let allowed: Vec<&str> = attempt.challenge.methods.iter().map(|m| m.as_str()).collect();
            let (method, allowed) = (method.to_string(), allowed.join(", "));
            return Err(ChallengeError::Method { method, allowed });
        }
        let passed = match method {
            MfaMethod::Push | MfaMethod::Email | MfaMethod::Sms | MfaMethod::Own(_) => {
                self.sent_code(&attempt, method, answer.code, is_poll).await?
            }
            MfaMethod::BackupCode => self.passing_backup_code(&attempt, answer.code),
            _ => self.passing_factor(&attempt, answer.code, now),
        };
        if is_poll {
            // What the user says on the device counts like a code, and what ended the challenge while it was asked for
            // comes first.
            opened(self.challenges.begin_attempt(request).await?)?;
        }
        let Some(passed) = passed else {
            let record = self.record(&attempt, PastEnd::MfaFailed, now);
            if !self.observer.is_idle() {
                self.observer.observe(record.clone());
            }
            self.challenges.record_wrong_code(record).await?;
            return Err(ChallengeError::WrongCode);
        };
        let OpenAttempt { challenge, user, .. } = &attempt;
        let mut grant = challenge.grant.clone();
        grant.add_factor(method);
        let holder = Holder::from(&user.profile);
        let (session, tokens) = self.issuer.issue(grant, holder, challenge.context.device, now, &*self.entropy)?;
        let mut record = self.record(&attempt, PastEnd::MfaPassed, now);
        record.session = Some(session.id);
        let observed = (!self.observer.is_idle()).then(|| record.clone());
        let (challenge, user, link) = (challenge.id, user.id, challenge.link.clone());
        let completion = Completion { challenge, user, passed, link, session, record };
        match self.challenges.complete(completion).await? {
            CompletionResult::Done => {}
            CompletionResult::ChallengeUsed => return Err(ChallengeError::Used),
            CompletionResult::ChallengeEnded => return Err(ChallengeError::Expired),
            CompletionResult::CodeUsed => return Err(ChallengeError::WrongCode),
            CompletionResult::IdentityTaken => return Err(ChallengeError::IdentityTaken),
        }
        if let Some(record) = observed {
            self.observer.observe(record);
        }
        Ok(Answered { tokens, user: attempt.user, assessment: attempt.challenge.assessment })
    }

    /// The challenge of a push whose channel may be asked now. `None`: there is no such message.
    async fn poll(&self, request: AttemptRequest) -> Result<Option<OpenAttempt>, ChallengeError> {
        match self.deliveries.begin_poll(request).await? {
            PollStart::Open(attempt) => Ok(Some(*attempt)),
            PollStart::NoMessage => Ok(None),
            PollStart::Wait { retry_after_s } => Err(ChallengeError::Pending { retry_after_s }),
            PollStart::Refused(refused) => opened(refused).map(Some),
        }
    }

    fn passing_factor(&self, attempt: &OpenAttempt, code: &str, now: UnixTime) -> Option<Passed> {
        attempt.factors.iter().find_map(|stored| {
            let id = stored.factor.id;
            let secret = self.vault.open(TOTP_PURPOSE, id.as_bytes(), &stored.sealed_secret);
            let secret = secret.inspect_err(|e| tracing::error!(factor.id = %id, "a TOTP secret is unusable: {e}"));
            let step = totp::matching_step(&secret.ok()?, code, now, stored.last_step)?;
            Some(Passed::Factor { factor: id, step })
        })
    }

    fn passing_backup_code(&self, attempt: &OpenAttempt, code: &str) -> Option<Passed> {
        let stored = attempt.factors.first()?;
        let id = stored.factor.id;
        let key = self.vault.open(TOTP_PURPOSE, id.as_bytes(), &stored.sealed_secret);
        let key = key.inspect_err(|e| tracing::error!(factor.id = %id, "the key of backup codes is unusable: {e}"));
        let hash = backup::hash(&key.ok()?, code)?;
        let known = attempt.backup_codes.iter().fold(false, |found, left| found | same(left, &hash));
        known.then_some(Passed::BackupCode { factor: id, hash })
    }

    async fn sent_code(
        &self,
        attempt: &OpenAttempt,
        method: MfaMethod,
        code: &str,
        is_poll: bool,
    ) -> Result<Option<Passed>, ChallengeError> {
        let challenge = attempt.challenge.id;
        let channel = self.channels.find(&attempt.challenge.tenant, method);
        if channel.is_some_and(|channel| !attempt.challenge.lets(&channel)) {
            let (method, allowed) = (method.to_string(), "another method".to_owned());
            return Err(ChallengeError::Method { method, allowed });
        }
        let found = self.deliveries.find_delivery(challenge, method).await?;
        let Some(Delivery { delivery_id, sealed_code, reference }) = found else { return Ok(None) };
        let code = code.trim();
        let right = match sealed_code {
            Some(sealed) => {
                let sent = self.vault.open(CODE_PURPOSE, challenge.as_bytes(), &sealed);
                let sent = sent.map_err(|error| StoreError(Box::new(error)))?;
                same(sent.expose(), code.as_bytes())
            }
            None if code.chars().count() > 64 => false,
            None => {
                let (tenant, user) = (&attempt.challenge.tenant, &attempt.user);
                let (delivery_id, reference) = (delivery_id.as_str(), reference.as_deref());
                let question = Question { tenant, user, method, delivery_id, reference, code };
                let judged = self.channels.judge(&question).await.map_err(|_| ChallengeError::Channel)?;
                if judged == Judged::Pending && is_poll {
                    return Err(ChallengeError::Pending { retry_after_s: POLL_PAUSE.as_secs() });
                }
                judged == Judged::Right
            }
        };
        Ok(right.then_some(Passed::SentCode))
    }

    fn record(&self, attempt: &OpenAttempt, end: PastEnd, now: UnixTime) -> SignInRecord {
        let challenge = &attempt.challenge;
        SignInRecord {
            id: EventId::generate(now, &*self.entropy),
            at: now,
            tenant: challenge.tenant.clone(),
            provider: Arc::clone(&challenge.grant.provider),
            user: Some(attempt.user.id),
            end,
            code: None,
            context: challenge.context.clone(),
            assessment: Some(challenge.assessment.clone()),
            session: None,
        }
    }
}

/// The attempt that may be judged, else why none may.
fn opened(start: AttemptStart) -> Result<OpenAttempt, ChallengeError> {
    match start {
        AttemptStart::Open(attempt) => Ok(*attempt),
        AttemptStart::Unknown => Err(ChallengeError::Unknown),
        AttemptStart::ProviderDisabled => Err(ChallengeError::ProviderDisabled),
        AttemptStart::Expired => Err(ChallengeError::Expired),
        AttemptStart::Used => Err(ChallengeError::Used),
        AttemptStart::Locked { retry_after_s } => Err(ChallengeError::Locked { retry_after_s }),
    }
}

pub(super) fn parse(challenge_token: &str) -> Option<(ChallengeId, [u8; 32])> {
    let (id, secret) = challenge_token.split_once('.')?;
    let secret = data_encoding::BASE64URL_NOPAD.decode(secret.as_bytes()).ok()?;
    Some((ChallengeId::from_str(id).ok()?, sha256(&secret)))
}
