//! Second factors: methods, challenges and enrolment.
//!
//! A challenge is counted before a code is looked at, so that many guesses at once cannot pass the
//! limit together.

pub mod backup;
pub mod delivery;
pub mod enrol;
pub mod method;
pub mod ports;
pub mod totp;
pub mod verify;

pub use method::{MfaMethod, Strength};

use self::delivery::Channel;
use crate::clock::UnixTime;
use crate::ids::{ChallengeId, FactorId, TenantId, UserId};
use crate::session::Grant;
use crate::signin::facts::ChannelFacts;
use crate::signin::history::ContextPrint;
use crate::signin::record::AssessmentRecord;
use crate::signin::user::IdentityKey;

/// How long a challenge lives.
pub const CHALLENGE_TTL: std::time::Duration = std::time::Duration::from_secs(300);
/// Wrong codes after which a challenge dies.
pub const CHALLENGE_ATTEMPTS: u32 = 5;
/// Wrong codes of one user within [`LOCK_WINDOW`] after which the user's MFA is locked.
pub const USER_ATTEMPTS: u32 = 10;
/// The window of [`USER_ATTEMPTS`], and how long the lock lasts.
pub const LOCK_WINDOW: std::time::Duration = std::time::Duration::from_secs(900);

/// An enrolled factor, ready for use.
#[derive(Debug, Clone)]
pub struct Factor {
    /// Its identifier.
    pub id: FactorId,
    /// What it is.
    pub method: MfaMethod,
    /// When it was enrolled.
    pub enrolled_at: UnixTime,
    /// When it last passed.
    pub last_used_at: Option<UnixTime>,
}

/// A challenge to be written. The client holds `chg_….secret`; only the hash of the secret is stored.
#[derive(Debug, Clone)]
pub struct NewChallenge {
    /// Its identifier.
    pub id: ChallengeId,
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// The tenant it is good for.
    pub tenant: TenantId,
    /// The user it is good for.
    pub user: UserId,
    /// When the challenge was made.
    pub created_at: UnixTime,
    /// When it ends.
    pub expires_at: UnixTime,
    /// Methods that may answer it, best first.
    pub methods: Vec<MfaMethod>,
    /// How much those among them prove that are a plugin's own, by the lock of that moment.
    pub own: Vec<ChannelFacts>,
    /// What the user gets for the answer.
    pub grant: Grant,
    /// Where and with what the sign-in was made; the device must be the same for the answer.
    pub context: ContextPrint,
    /// The assessment that asked for it.
    pub assessment: AssessmentRecord,
    /// The identity that a right answer links to the user.
    pub link: Option<Box<IdentityKey>>,
}

impl NewChallenge {
    /// Whether a channel proves as much as the one that was chosen: the lock may have changed since.
    fn lets(&self, channel: &Channel) -> bool {
        self.own.iter().all(|own| own.method != channel.method || channel.strength >= own.strength)
    }
}
