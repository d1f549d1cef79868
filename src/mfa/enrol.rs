//! Enrolment of a TOTP factor by a signed-in user: a secret first, then a code that proves the app has
//! it. And backup codes beside it.
//!
//! A user who has a factor enrols a further one only from a session that passed one; a user who has
//! none only from a session of low risk; and the session is fresh. Else a stolen token could bring its own factor.

use std::sync::Arc;

use super::ports::{Factors, StoredFactor};
use super::verify::TOTP_PURPOSE;
use super::{Factor, MfaMethod, backup, totp};
use crate::admin::audit::{Actor, Author};
use crate::clock::Clock;
use crate::codes::ErrorCode;
use crate::ids::{EventId, FactorId, RequestId};
use crate::people::is_fresh;
use crate::secret::{Entropy, Secret};
use crate::session::ports::SessionUser;
use crate::signin::ports::StoreError;
use crate::signin::rules::Level;
use crate::vault::Vault;

/// Why a factor is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// This session may not enrol one.
    #[error("this session may not enrol a factor: sign in at low risk, or with a factor that you have")]
    NotAllowed,
    /// Backup codes stand beside another factor.
    #[error("backup codes need another factor, and a session that passed one")]
    NeedsFactor,
    /// The session is not fresh.
    #[error("this needs a session that began within the last 10 minutes; refreshing it makes it no younger")]
    NotFresh,
    /// There is no unconfirmed factor with this identifier.
    #[error("there is no factor with this id that waits for confirmation")]
    Unknown,
    /// The code is wrong or too old.
    #[error("the code is wrong or too old")]
    WrongCode,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EnrolError {
    /// The stable word of the contract.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotAllowed | Self::NeedsFactor => ErrorCode::EnrolmentNotAllowed,
            Self::NotFresh => ErrorCode::FreshSessionNeeded,
            Self::Unknown => ErrorCode::UnknownFactor,
            Self::WrongCode => ErrorCode::InvalidMfaCode,
            Self::Store(_) => ErrorCode::StoreUnavailable,
        }
    }
}

/// A factor that waits for its first code. The secret is shown once.
#[derive(Debug)]
pub struct PendingTotp {
    /// The factor.
    pub id: FactorId,
    /// The secret.
    pub secret: Secret,
    /// What an authenticator app reads.
    pub otpauth_uri: String,
}

/// Enrols factors.
pub struct Enrolment {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The store.
    pub factors: Arc<dyn Factors>,
    /// Seals secrets.
    pub vault: Vault,
    /// What authenticator apps show beside the code.
    pub issuer_name: String,
}

impl Enrolment {
    /// Makes a secret and keeps it until it is confirmed.
    ///
    /// # Errors
    /// When the session may not enrol or is not fresh, or the store does not answer.
    pub async fn begin_totp(&self, who: &SessionUser) -> Result<PendingTotp, EnrolError> {
        let has_factor = !self.factors.factors(who.user.id).await?.is_empty();
        let session = &who.session;
        let allowed = if has_factor { session.grant.passed_mfa() } else { session.grant.level == Level::Low };
        if !allowed {
            return Err(EnrolError::NotAllowed);
        }
        let now = self.clock.now();
        if !is_fresh(session, now) {
            return Err(EnrolError::NotFresh);
        }
        let id = FactorId::generate(now, &*self.entropy);
        let secret = totp::generate_secret(&*self.entropy);
        let profile = &who.user.profile;
        let account = profile.username.as_ref().or(profile.email.as_ref()).cloned();
        let account = account.unwrap_or_else(|| who.user.id.to_string());
        let otpauth_uri =
            totp::provisioning_uri(&secret, &self.issuer_name, &account).ok_or(EnrolError::NotAllowed)?;
        let factor = Factor { id, method: MfaMethod::Totp, enrolled_at: now, last_used_at: None };
        let sealed_secret = self.vault.seal(TOTP_PURPOSE, id.as_bytes(), &secret);
        self.factors.put_pending(who.user.id, StoredFactor { factor, sealed_secret, last_step: None }).await?;
        Ok(PendingTotp { id, secret, otpauth_uri })
    }

    /// Confirms a factor with a code of it. The code is spent.
    ///
    /// # Errors
    /// When the factor or the code is wrong, or the store does not answer.
    pub async fn confirm_totp(&self, who: &SessionUser, id: FactorId, code: &str) -> Result<(), EnrolError> {
        let now = self.clock.now();
        let stored = self.factors.begin_confirmation(who.user.id, id, now).await?.ok_or(EnrolError::Unknown)?;
        let secret = self
            .vault
            .open(TOTP_PURPOSE, id.as_bytes(), &stored.sealed_secret)
            .map_err(|e| StoreError(Box::new(e)))?;
        let step = totp::matching_step(&secret, code, now, stored.last_step).ok_or(EnrolError::WrongCode)?;
        if self.factors.confirm(who.user.id, id, step, now).await? { Ok(()) } else { Err(EnrolError::Unknown) }
    }

    /// Makes ten backup codes in the place of earlier ones. They are shown once. The session must be fresh: whoever
    /// finds an old access token must not make codes of its own.
    ///
    /// # Errors
    /// When the session did not pass a factor or is not fresh, the user has no other one, or the store does not answer.
    pub async fn renew_backup_codes(
        &self,
        who: &SessionUser,
        request: RequestId,
    ) -> Result<Vec<Secret>, EnrolError> {
        if !who.session.grant.passed_mfa() {
            return Err(EnrolError::NeedsFactor);
        }
        let now = self.clock.now();
        if !is_fresh(&who.session, now) {
            return Err(EnrolError::NotFresh);
        }
        let id = FactorId::generate(now, &*self.entropy);
        let key = backup::generate_key(&*self.entropy);
        let codes = backup::generate(&*self.entropy);
        let shown = codes.iter().filter_map(|code| std::str::from_utf8(code.expose()).ok());
        let hashes = shown.filter_map(|code| backup::hash(&key, code)).collect();
        let factor = Factor { id, method: MfaMethod::BackupCode, enrolled_at: now, last_used_at: None };
        let sealed_secret = self.vault.seal(TOTP_PURPOSE, id.as_bytes(), &key);
        let set = StoredFactor { factor, sealed_secret, last_step: None };
        let author = Author {
            event: EventId::generate(now, &*self.entropy),
            at: now,
            actor: Actor::User(who.user.id),
            tenant: Some(who.user.tenant.clone()),
            request: Some(request),
        };
        if self.factors.put_backup_codes(who.user.id, set, hashes, author).await? {
            Ok(codes)
        } else {
            Err(EnrolError::NeedsFactor)
        }
    }
}
