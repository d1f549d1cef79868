//! Devices of a user. A device is known by the identifier that the application sent with a sign-in from
//! it; the store has only a keyed hash of that.
//!
//! A user may trust a device for thirty days, in a fresh session that passed a second factor and was begun on
//! this very device. The device then holds a secret, of which the store has a hash, and shows it at the next
//! sign-ins. Where the tenant's policy says so (`trusted_devices`), that stands for the second factor that a medium
//! level asks for, and for nothing else: not for a high level, not for a factor that a rule asks for by name or
//! strength, not when a rule failed.

use std::sync::Arc;
use std::time::Duration;

use super::is_fresh;
use super::ports::Devices;
use crate::clock::{Clock, UnixTime};
use crate::codes::ErrorCode;
use crate::ids::{DeviceId, UserId};
use crate::secret::{Entropy, Secret, same, sha256};
use crate::session::ports::SessionUser;
use crate::signin::history::{Pseudonym, Pseudonyms};
use crate::signin::ports::{RiskRules, StoreError};

/// How long a device is trusted.
pub const TRUST_TTL: Duration = Duration::from_secs(30 * 86_400);

/// A trusted device as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedDevice {
    /// Which.
    pub device: Pseudonym,
    /// SHA-256 of the secret that it holds.
    pub secret_hash: [u8; 32],
    /// Since when.
    pub created_at: UnixTime,
    /// Until when.
    pub expires_at: UnixTime,
}

/// What a sign-in shows of its device.
#[derive(Debug, Clone, Copy)]
pub struct DeviceProof {
    /// Which.
    pub device: Pseudonym,
    /// SHA-256 of the secret that the client sent.
    pub secret_hash: [u8; 32],
}

impl DeviceProof {
    /// Whether one of the user's trusted devices is this one, by identifier and secret.
    #[must_use]
    pub fn is_among(&self, trusted: &[TrustedDevice], now: UnixTime) -> bool {
        let fits = |t: &TrustedDevice| {
            t.device == self.device && now < t.expires_at && same(&t.secret_hash, &self.secret_hash)
        };
        trusted.iter().any(fits)
    }
}

/// A device as the store knows it.
#[derive(Debug, Clone)]
pub struct StoredDevice {
    /// Which.
    pub device: Pseudonym,
    /// Its first and its last successful sign-in within the history.
    pub seen: Option<(UnixTime, UnixTime)>,
    /// Where its last one came from.
    pub country: Option<Arc<str>>,
    /// Until when it is trusted.
    pub trusted_until: Option<UnixTime>,
    /// Whether the asking session was begun on it.
    pub is_current: bool,
}

impl StoredDevice {
    /// Its identifier for this user.
    #[must_use]
    pub fn id(&self, user: UserId) -> DeviceId {
        let mut text = user.as_bytes().to_vec();
        text.extend_from_slice(&self.device);
        let mut id = [0; 16];
        id.copy_from_slice(&sha256(&text)[..16]);
        DeviceId::from_bytes(id)
    }
}

/// Why a device stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No such device of this user.
    #[error("you have no device with this id")]
    Unknown,
    /// The session may not trust it.
    #[error("{0}")]
    NotAllowed(&'static str),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DeviceError {
    /// The stable word of the contract.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Unknown => ErrorCode::UnknownDevice,
            Self::NotAllowed(_) => ErrorCode::DeviceTrustNotAllowed,
            Self::Store(_) => ErrorCode::StoreUnavailable,
        }
    }
}

/// A new trust: the secret is for the device alone, shown this once.
#[derive(Debug)]
pub struct NewTrust {
    /// The secret.
    pub secret: Secret,
    /// Until when.
    pub expires_at: UnixTime,
}

/// Lists, trusts and forgets devices of signed-in users.
pub struct DeviceService {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The store.
    pub devices: Arc<dyn Devices>,
    /// Hashes device identifiers.
    pub pseudonyms: Pseudonyms,
    /// The tenants' settings.
    pub rules: Arc<dyn RiskRules>,
}

impl DeviceService {
    /// The user's devices, latest first. A trust that has ended is none.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self, who: &SessionUser) -> Result<Vec<StoredDevice>, StoreError> {
        let now = self.clock.now();
        let mut devices = self.devices.devices(who.user.id, who.session.id).await?;
        for device in &mut devices {
            device.trusted_until = device.trusted_until.filter(|until| now < *until);
        }
        devices.retain(|d| d.seen.is_some() || d.trusted_until.is_some());
        Ok(devices)
    }

    /// Trusts the device of this session.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub async fn trust(&self, who: &SessionUser, device_id: &str) -> Result<NewTrust, DeviceError> {
        let now = self.clock.now();
        let tenant = &who.user.tenant;
        if !self.rules.settings(tenant).trusted_devices {
            return Err(DeviceError::NotAllowed("the policy here trusts no devices"));
        }
        if !who.session.grant.passed_mfa() || !is_fresh(&who.session, now) {
            let text = "a device is trusted within 10 minutes after a sign-in on it that passed a second factor";
            return Err(DeviceError::NotAllowed(text));
        }
        let device = self.pseudonyms.of(tenant.as_str(), "device", device_id);
        let secret = Secret::random(32, &*self.entropy);
        let expires_at = now.plus(TRUST_TTL);
        let trust = TrustedDevice { device, secret_hash: secret.hash(), created_at: now, expires_at };
        if !self.devices.trust(who.user.id, who.session.id, trust).await? {
            return Err(DeviceError::NotAllowed("this session was begun on another device"));
        }
        tracing::info!(user.id = %who.user.id, "a device was trusted");
        Ok(NewTrust { secret, expires_at })
    }

    /// Ends the trust in a device.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub async fn end_trust(&self, who: &SessionUser, id: DeviceId) -> Result<(), DeviceError> {
        let device = self.find(who, id).await?;
        if self.devices.end_trust(who.user.id, device).await? { Ok(()) } else { Err(DeviceError::Unknown) }
    }

    /// Forgets a device: it is a new one at its next sign-in, and its other sessions end.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub async fn forget(&self, who: &SessionUser, id: DeviceId) -> Result<(), DeviceError> {
        let device = self.find(who, id).await?;
        self.devices.forget(who.user.id, device, who.session.id, self.clock.now()).await?;
        tracing::info!(user.id = %who.user.id, "a device was forgotten");
        Ok(())
    }

    async fn find(&self, who: &SessionUser, id: DeviceId) -> Result<Pseudonym, DeviceError> {
        let devices = self.devices.devices(who.user.id, who.session.id).await?;
        devices.iter().find(|d| d.id(who.user.id) == id).map(|d| d.device).ok_or(DeviceError::Unknown)
    }
}
