//! Checks an access token that this server issued (RFC 9068 section 4), and that its session lives.

use std::str::FromStr;
use std::sync::Arc;

use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;

use super::issue::TokenIssuer;
use super::ports::{SessionUser, Sessions};
use crate::clock::Clock;
use crate::codes::ErrorCode;
use crate::ids::{SessionId, TenantId, UserId};
use crate::signin::ports::{Directory, StoreError};
use crate::signin::user::UserStatus;

/// Why a bearer token is refused.
#[derive(Debug, thiserror::Error)]
pub enum BearerError {
    /// There is none.
    #[error("this needs an access token in the header \"Authorization: Bearer …\"")]
    Missing,
    /// It is not an access token of this server and tenant.
    #[error("the access token is not valid here")]
    Invalid,
    /// It has expired.
    #[error("the access token has expired")]
    Expired,
    /// Its session has ended.
    #[error("the session of this access token has ended")]
    SessionEnded,
    /// The user is disabled.
    #[error("this account is disabled")]
    Disabled,
    /// The user is locked.
    #[error("this account is locked")]
    Locked,
    /// The user waits for its invitation.
    #[error("this account waits for its invitation to be accepted")]
    Pending,
    /// The provider that it came through is disabled.
    #[error("the provider of this session is disabled")]
    ProviderDisabled,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BearerError {
    /// The stable word of the contract.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Missing => ErrorCode::MissingAccessToken,
            Self::Invalid => ErrorCode::InvalidAccessToken,
            Self::Expired => ErrorCode::AccessTokenExpired,
            Self::SessionEnded => ErrorCode::SessionEnded,
            Self::Disabled => ErrorCode::AccountDisabled,
            Self::Locked => ErrorCode::AccountLocked,
            Self::Pending => ErrorCode::AccountPending,
            Self::ProviderDisabled => ErrorCode::ProviderDisabled,
            Self::Store(_) => ErrorCode::StoreUnavailable,
        }
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    sid: String,
    tenant_id: String,
    exp: i64,
}

/// Checks bearer tokens.
pub struct BearerCheck {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Keys and the issuer's name.
    pub issuer: Arc<TokenIssuer>,
    /// Which providers are enabled.
    pub directory: Arc<dyn Directory>,
    /// The store.
    pub sessions: Arc<dyn Sessions>,
}

impl BearerCheck {
    /// The living session and active user of an access token of this tenant.
    ///
    /// # Errors
    /// See [`BearerError`].
    pub async fn check(&self, tenant: &TenantId, token: &str) -> Result<SessionUser, BearerError> {
        let now = self.clock.now();
        let (session, user) = self.read(tenant, token, now)?;
        let living = self.sessions.find_session(session, now).await?.ok_or(BearerError::SessionEnded)?;
        if living.user.id != user || living.user.tenant != *tenant {
            return Err(BearerError::Invalid);
        }
        let enabled = self.directory.enabled_names(tenant);
        match living.user.status {
            UserStatus::Active if !enabled.contains(&living.session.grant.provider) => {
                Err(BearerError::ProviderDisabled)
            }
            UserStatus::Active => Ok(living),
            UserStatus::Deleted => Err(BearerError::SessionEnded),
            UserStatus::Disabled => Err(BearerError::Disabled),
            UserStatus::Locked => Err(BearerError::Locked),
            UserStatus::Pending => Err(BearerError::Pending),
        }
    }

    /// Signature, type, issuer, audience, tenant and time. `exp` has no leeway: the clock is ours.
    fn read(
        &self,
        tenant: &TenantId,
        token: &str,
        now: crate::clock::UnixTime,
    ) -> Result<(SessionId, UserId), BearerError> {
        if token.len() > crate::signin::token::MAX_TOKEN_BYTES {
            return Err(BearerError::Invalid);
        }
        let header = decode_header(token).map_err(|_| BearerError::Invalid)?;
        if header.typ.as_deref() != Some("at+jwt") {
            return Err(BearerError::Invalid);
        }
        let ring = &self.issuer.ring;
        let key = header.kid.as_deref().and_then(|kid| ring.find(kid)).ok_or(BearerError::Invalid)?;
        let mut validation = Validation::new(key.algorithm());
        validation.set_issuer(&[&self.issuer.settings.issuer]);
        validation.set_audience(&[&self.issuer.settings.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_exp = false; // by the passed clock, below
        let claims = decode::<Claims>(token, key.public(), &validation).map_err(|_| BearerError::Invalid)?.claims;
        if claims.tenant_id != tenant.as_str() {
            return Err(BearerError::Invalid);
        }
        if now.as_secs() >= claims.exp {
            return Err(BearerError::Expired);
        }
        let session = SessionId::from_str(&claims.sid).map_err(|_| BearerError::Invalid)?;
        let user = UserId::from_str(&claims.sub).map_err(|_| BearerError::Invalid)?;
        Ok((session, user))
    }
}
