//! Refresh-token rotation with reuse detection (RFC 9700 section 4.14.2).
//!
//! A repeat inside the grace gets the successor that the first call got, so that two tabs or a lost
//! answer do not end a session. A repeat after it means that the token is in two hands: the session ends.

use std::str::FromStr;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;

use super::Caps;
use super::issue::{Holder, IssuedTokens, TokenIssuer, refresh_token};
use super::ports::{KeyRingError, ListedSession, Rotation, RotationResult, SessionUser, Sessions, UpstreamEnd};
use crate::clock::{Clock, UnixTime};
use crate::codes::ErrorCode;
use crate::ids::{EventId, RefreshId, SessionId, TenantId, UserId};
use crate::secret::{Entropy, sha256};
use crate::signin::ports::{Directory, StoreError};
use crate::vault::Vault;

/// What the secrets of successors are sealed for; the context is the successor's identifier.
pub const SUCCESSOR_PURPOSE: &str = "refresh successor";

/// Who asks for a refresh.
#[derive(Debug, Clone, Default)]
pub struct Asker {
    /// The registered client, authenticated.
    pub client: Option<Arc<str>>,
    /// The thumbprint of the key that the request proved to hold.
    pub jkt: Option<Arc<str>>,
}

/// Why a refresh token is not exchanged.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// Not known, ended, or of another tenant.
    #[error("the refresh token is not valid, has expired, or its session has ended")]
    Invalid,
    /// It was exchanged before; the session is ended.
    #[error("the refresh token was used before; its session has been ended, sign in again")]
    Reused,
    /// Its access tokens are for an audience that is not its client's now; nothing is spent.
    #[error("the client may not ask for the audience of this session any more; sign in again for another one")]
    AudienceTaken,
    /// The session is bound to a key, and the request does not prove to hold it.
    #[error("the session is bound to a key: the header DPoP must hold a proof by it")]
    KeyNotProved,
    /// The user may not sign in.
    #[error("the account of this session may not sign in; the session has been ended")]
    UserInactive,
    /// The provider that it came through is disabled; nothing is spent.
    #[error("the provider of this session is disabled")]
    ProviderDisabled,
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No key could sign.
    #[error(transparent)]
    Keys(#[from] KeyRingError),
}

impl RefreshError {
    /// The stable word of the contract.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid | Self::AudienceTaken | Self::UserInactive => ErrorCode::InvalidRefreshToken,
            Self::ProviderDisabled => ErrorCode::ProviderDisabled,
            Self::Reused => ErrorCode::RefreshTokenReused,
            Self::KeyNotProved => ErrorCode::InvalidDpopProof,
            Self::Store(_) | Self::Keys(_) => ErrorCode::StoreUnavailable,
        }
    }
}

/// Exchanges refresh tokens and ends sessions.
pub struct SessionService {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Which providers are enabled, and which clients there are.
    pub directory: Arc<dyn Directory>,
    /// The store.
    pub sessions: Arc<dyn Sessions>,
    /// Makes tokens.
    pub issuer: Arc<TokenIssuer>,
    /// Seals successors.
    pub vault: Vault,
}

impl SessionService {
    /// Exchanges a refresh token for a new pair.
    ///
    /// # Errors
    /// See [`RefreshError`].
    pub async fn refresh(
        &self,
        tenant: TenantId,
        token: &str,
        asker: Asker,
    ) -> Result<(SessionUser, IssuedTokens), RefreshError> {
        let (id, secret_hash) = parse(token).ok_or(RefreshError::Invalid)?;
        let now = self.clock.now();
        // The session's own caps are not known yet: the store keeps the smaller end.
        let (successor, secret) = self.issuer.new_refresh(Caps::default(), None, now, &*self.entropy);
        let successor_id = successor.id;
        let sealed_successor = self.vault.seal(SUCCESSOR_PURPOSE, successor_id.as_bytes(), &secret);
        let rotation = Rotation {
            in_force: self.directory.in_force(&tenant),
            tenant,
            id,
            secret_hash,
            successor,
            sealed_successor,
            grace: self.issuer.settings.refresh_grace,
            access_ttl: self.issuer.settings.access_ttl,
            client: asker.client,
            jkt: asker.jkt,
            event: EventId::generate(now, &*self.entropy),
            now,
        };
        let (living, refresh_token) = match self.sessions.rotate(rotation).await? {
            RotationResult::Rotated(living) => (*living, refresh_token(successor_id, &secret)),
            RotationResult::Repeated { session, successor, sealed_successor } => {
                let secret = self
                    .vault
                    .open(SUCCESSOR_PURPOSE, successor.as_bytes(), &sealed_successor)
                    .map_err(|e| StoreError(Box::new(e)))?;
                (*session, refresh_token(successor, &secret))
            }
            RotationResult::Reused { session, user } => {
                metrics::counter!("countersign_refresh_reuse_total").increment(1);
                tracing::warn!(session.id = %session, user.id = %user, "refresh token reused; session ended");
                return Err(RefreshError::Reused);
            }
            RotationResult::Invalid => return Err(RefreshError::Invalid),
            RotationResult::AudienceTaken => return Err(RefreshError::AudienceTaken),
            RotationResult::KeyNotProved => return Err(RefreshError::KeyNotProved),
            RotationResult::ProviderDisabled => return Err(RefreshError::ProviderDisabled),
            RotationResult::UserInactive => return Err(RefreshError::UserInactive),
        };
        let session = &living.session;
        let holder = Holder::from(&living.user.profile);
        let (access_token, expires_in) =
            self.issuer.access_token(&session.grant, holder, session.id, session.ends_at, now, &*self.entropy)?;
        let bound = session.grant.jkt.is_some();
        let tokens = IssuedTokens { access_token, refresh_token: Some(refresh_token), expires_in, bound };
        Ok((living, tokens))
    }

    /// Ends the session of a refresh token. Unknown tokens are fine: the caller wants it gone.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn log_out_by_refresh(&self, tenant: &TenantId, token: &str) -> Result<(), StoreError> {
        if let Some((id, secret_hash)) = parse(token) {
            self.sessions.end_session_of(tenant, id, secret_hash, self.clock.now()).await?;
        }
        Ok(())
    }

    /// Ends a session.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn log_out(&self, living: &SessionUser) -> Result<(), StoreError> {
        self.sessions.end_session(living.session.id, self.clock.now()).await.map(|_| ())
    }

    /// The living session of a refresh token that may still be exchanged, and when the token ends.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn find_by_refresh(
        &self,
        tenant: &TenantId,
        token: &str,
    ) -> Result<Option<(SessionUser, UnixTime)>, StoreError> {
        let Some((id, secret_hash)) = parse(token) else { return Ok(None) };
        self.sessions.find_by_refresh(tenant, id, secret_hash, self.clock.now()).await
    }

    /// The living sessions of a user, newest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self, user: UserId) -> Result<Vec<ListedSession>, StoreError> {
        self.sessions.list_sessions(user, self.clock.now()).await
    }

    /// Ends one session of a user. `false` when it is not one, or had ended.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn end_one(&self, user: UserId, id: SessionId) -> Result<bool, StoreError> {
        self.sessions.end_session_of_user(user, id, self.clock.now()).await
    }

    /// Ends all sessions of a user but one, and gives how many.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn end_all(&self, user: UserId, but: Option<SessionId>) -> Result<u64, StoreError> {
        self.sessions.end_sessions_of_user(user, but, self.clock.now()).await
    }

    /// Ends the sessions that a provider's logout names, and gives how many.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn end_upstream(&self, ended: UpstreamEnd) -> Result<u64, StoreError> {
        self.sessions.end_upstream_sessions(ended, self.clock.now()).await
    }
}

fn parse(token: &str) -> Option<(RefreshId, [u8; 32])> {
    let (id, secret) = token.split_once('.')?;
    let secret = BASE64URL_NOPAD.decode(secret.as_bytes()).ok()?;
    Some((RefreshId::from_str(id).ok()?, sha256(&secret)))
}
