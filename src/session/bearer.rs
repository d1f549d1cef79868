//! Checks an access token that this server issued (RFC 9068 section 4), that its sender holds the key that it
//! is bound to (RFC 9449 section 7), and that its session lives.

use std::str::FromStr;
use std::sync::Arc;

use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::dpop::{DpopCheck, DpopError, ProofOf};
use super::issue::TokenIssuer;
use super::ports::{SessionUser, Sessions};
use crate::clock::{Clock, UnixTime};
use crate::codes::ErrorCode;
use crate::ids::{SessionId, TenantId, UserId};
use crate::signin::ports::{Directory, StoreError};
use crate::signin::user::UserStatus;

/// Why an access token is refused.
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
    /// It is bound to a key, and the request does not prove to hold it.
    #[error("the access token is bound to a key: {0}")]
    KeyNotProved(String),
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
            Self::KeyNotProved(_) => ErrorCode::DpopProofRequired,
            Self::SessionEnded => ErrorCode::SessionEnded,
            Self::Disabled => ErrorCode::AccountDisabled,
            Self::Locked => ErrorCode::AccountLocked,
            Self::Pending => ErrorCode::AccountPending,
            Self::ProviderDisabled => ErrorCode::ProviderDisabled,
            Self::Store(_) => ErrorCode::StoreUnavailable,
        }
    }
}

impl From<DpopError> for BearerError {
    fn from(error: DpopError) -> Self {
        match error {
            DpopError::Proof(_) => Self::KeyNotProved(error.to_string()),
            DpopError::Store(e) => Self::Store(e),
        }
    }
}

/// An access token as a request brings it.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The token.
    pub token: &'a str,
    /// Whether the scheme was `DPoP`, not `Bearer`.
    pub as_bound: bool,
    /// The header `DPoP`.
    pub proof: Option<&'a str>,
    /// The request's method.
    pub method: &'a str,
    /// The request's path.
    pub path: &'a str,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    sid: String,
    tenant_id: String,
    exp: i64,
    cnf: Option<Confirmation>,
}

#[derive(Deserialize)]
struct Confirmation {
    jkt: String,
}

/// Checks access tokens.
pub struct BearerCheck {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Keys and the issuer's name.
    pub issuer: Arc<TokenIssuer>,
    /// Which providers are enabled, and which clients there are.
    pub directory: Arc<dyn Directory>,
    /// The store.
    pub sessions: Arc<dyn Sessions>,
    /// Proofs of keys.
    pub dpop: Arc<DpopCheck>,
}

impl BearerCheck {
    /// The living session and active user of an access token of this tenant that is meant for this server.
    ///
    /// # Errors
    /// See [`BearerError`].
    pub async fn check(&self, tenant: &TenantId, presented: Presented<'_>) -> Result<SessionUser, BearerError> {
        let now = self.clock.now();
        let claims: Claims = self.read(presented.token, true)?;
        check_claims(&claims, tenant, now)?;
        self.check_key(&claims, presented).await?;
        let living = self.living(&claims, tenant, now).await?;
        match living.user.status {
            UserStatus::Active => {
                let (in_force, grant) = (self.directory.in_force(tenant), &living.session.grant);
                if !in_force.lets_client_in(grant) {
                    return Err(BearerError::SessionEnded);
                }
                if in_force.lets_provider_in(grant) { Ok(living) } else { Err(BearerError::ProviderDisabled) }
            }
            UserStatus::Deleted => Err(BearerError::SessionEnded),
            UserStatus::Disabled => Err(BearerError::Disabled),
            UserStatus::Locked => Err(BearerError::Locked),
            UserStatus::Pending => Err(BearerError::Pending),
        }
    }

    /// Whether the provider that a session came through is there and enabled, and its client is there.
    #[must_use]
    pub fn lets_in(&self, living: &SessionUser) -> bool {
        let grant = &living.session.grant;
        let in_force = self.directory.in_force(&grant.tenant);
        in_force.lets_provider_in(grant) && in_force.lets_client_in(grant)
    }

    /// All claims of an access token of this tenant, whatever its audience, and its session, if both are good:
    /// for introspection.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn inspect(
        &self,
        tenant: &TenantId,
        token: &str,
    ) -> Result<Option<(Map<String, Value>, SessionUser)>, StoreError> {
        let now = self.clock.now();
        let Ok(all) = self.read::<Map<String, Value>>(token, false) else { return Ok(None) };
        let Ok(claims) = serde_json::from_value::<Claims>(Value::Object(all.clone())) else { return Ok(None) };
        if check_claims(&claims, tenant, now).is_err() {
            return Ok(None);
        }
        match self.living(&claims, tenant, now).await {
            Ok(living) if living.user.status == UserStatus::Active => Ok(Some((all, living))),
            Err(BearerError::Store(error)) => Err(error),
            _ => Ok(None),
        }
    }

    /// A bound token is refused without a proof of its key; one that is not bound is a bearer token only.
    async fn check_key(&self, claims: &Claims, presented: Presented<'_>) -> Result<(), BearerError> {
        let Presented { token, as_bound, proof, method, path } = presented;
        match (&claims.cnf, as_bound) {
            (None, false) => Ok(()),
            (None, true) => Err(BearerError::Invalid),
            (Some(_), false) => Err(BearerError::KeyNotProved("send it as \"Authorization: DPoP …\"".to_owned())),
            (Some(bound), true) => {
                let absent = || BearerError::KeyNotProved("the header DPoP is absent or there twice".to_owned());
                let proof = proof.ok_or_else(absent)?;
                let proved = self.dpop.check(proof, ProofOf { method, path, access_token: Some(token) }).await?;
                if *proved == *bound.jkt {
                    return Ok(());
                }
                Err(BearerError::KeyNotProved("the DPoP proof is by another key".to_owned()))
            }
        }
    }

    async fn living(&self, claims: &Claims, tenant: &TenantId, now: UnixTime) -> Result<SessionUser, BearerError> {
        let session = SessionId::from_str(&claims.sid).map_err(|_| BearerError::Invalid)?;
        let user = UserId::from_str(&claims.sub).map_err(|_| BearerError::Invalid)?;
        let living = self.sessions.find_session(session, now).await?.ok_or(BearerError::SessionEnded)?;
        if living.user.id != user || living.user.tenant != *tenant {
            return Err(BearerError::Invalid);
        }
        Ok(living)
    }

    /// Signature, type and issuer; and audience, when it has to be this server.
    fn read<T: DeserializeOwned>(&self, token: &str, for_this_server: bool) -> Result<T, BearerError> {
        if token.len() > crate::signin::token::MAX_TOKEN_BYTES {
            return Err(BearerError::Invalid);
        }
        let header = decode_header(token).map_err(|_| BearerError::Invalid)?;
        if header.typ.as_deref() != Some("at+jwt") {
            return Err(BearerError::Invalid);
        }
        let key = header.kid.as_deref().and_then(|kid| self.issuer.ring.find(kid)).ok_or(BearerError::Invalid)?;
        let mut validation = Validation::new(key.algorithm());
        validation.set_issuer(&[&self.issuer.settings.issuer]);
        validation.set_audience(&[&self.issuer.settings.issuer]);
        validation.validate_aud = for_this_server;
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_exp = false; // by the passed clock, in `check_claims`
        Ok(decode::<T>(token, key.public(), &validation).map_err(|_| BearerError::Invalid)?.claims)
    }
}

/// Tenant and time. `exp` has no leeway: the clock is ours.
fn check_claims(claims: &Claims, tenant: &TenantId, now: UnixTime) -> Result<(), BearerError> {
    if claims.tenant_id != tenant.as_str() {
        return Err(BearerError::Invalid);
    }
    if now.as_secs() >= claims.exp { Err(BearerError::Expired) } else { Ok(()) }
}
