//! Second factors: methods, challenges and enrolment.
//!
//! A challenge is counted before a code is looked at, so that many guesses at once cannot pass the
//! limit together.

pub mod backup;
pub mod delivery;
pub mod enrol;
pub mod ports;
pub mod totp;
pub mod verify;

use std::fmt;

use crate::clock::UnixTime;
use crate::ids::{ChallengeId, FactorId, TenantId, UserId};
use crate::session::Grant;
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

/// A way to prove oneself a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MfaMethod {
    /// A passkey or security key.
    Webauthn,
    /// A code of an authenticator app (RFC 6238).
    Totp,
    /// A confirmation on a known device.
    Push,
    /// One of the codes that are good once; see [`backup`].
    BackupCode,
    /// A code by e-mail.
    Email,
    /// A code by text message.
    Sms,
}

impl MfaMethod {
    /// All methods, best first.
    pub const ALL: [Self; 6] = [Self::Webauthn, Self::Totp, Self::Push, Self::Email, Self::Sms, Self::BackupCode];

    /// Those that this server can ask for, best first; the last resort last.
    pub const SUPPORTED: [Self; 2] = [Self::Totp, Self::BackupCode];

    /// The word of the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Webauthn => "webauthn",
            Self::Totp => "totp",
            Self::Push => "push",
            Self::BackupCode => "backup_code",
            Self::Email => "email",
            Self::Sms => "sms",
        }
    }

    /// The method of a word.
    #[must_use]
    pub fn find(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.as_str() == word)
    }

    /// How much it proves.
    #[must_use]
    pub const fn strength(self) -> Strength {
        match self {
            Self::Webauthn => Strength::PhishingResistant,
            Self::Totp | Self::Push => Strength::Strong,
            Self::BackupCode | Self::Email | Self::Sms => Strength::Weak,
        }
    }

    /// Its authentication method reference (RFC 8176 section 2).
    #[must_use]
    pub const fn amr(self) -> &'static str {
        match self {
            Self::Webauthn => "hwk",
            Self::Totp | Self::Email | Self::BackupCode => "otp",
            Self::Push => "swk",
            Self::Sms => "sms",
        }
    }
}

impl fmt::Display for MfaMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much a factor proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    /// A code on a channel that others may read.
    Weak,
    /// A secret that only the user's device holds.
    Strong,
    /// Bound to the origin that asks.
    PhishingResistant,
}

impl Strength {
    /// The word that rules use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Weak => "weak",
            Self::Strong => "strong",
            Self::PhishingResistant => "phishing_resistant",
        }
    }

    /// The strength of a word.
    #[must_use]
    pub fn find(word: &str) -> Option<Self> {
        [Self::Weak, Self::Strong, Self::PhishingResistant].into_iter().find(|s| s.as_str() == word)
    }
}

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
    /// What the user gets for the answer.
    pub grant: Grant,
    /// Where and with what the sign-in was made; the device must be the same for the answer.
    pub context: ContextPrint,
    /// The assessment that asked for it.
    pub assessment: AssessmentRecord,
    /// The identity that a right answer links to the user.
    pub link: Option<Box<IdentityKey>>,
}
