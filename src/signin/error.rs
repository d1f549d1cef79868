//! Every way in which a sign-in can be refused. Numbers and HTTP statuses stand in `http::problem`.

use super::decision::Denial;
use super::identity::MappingError;
use super::ports::{ForeignError, KeyError, StoreError};
use super::replay::ReplayError;
use super::token::TokenShapeError;
use super::user::ResolveError;
use super::verify::VerifyError;
use crate::codes::ErrorCode;
use crate::session::ports::KeyRingError;

/// `lnk_….secret`, for the client alone.
#[derive(Clone)]
pub struct OfferedLink(pub String);

impl std::fmt::Debug for OfferedLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// Why a sign-in gave no tokens and no challenge.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The request has no ID token.
    #[error("the request has no \"id_token\"")]
    MissingToken,
    /// Nobody is served under this name.
    #[error("no tenant is served here under this name")]
    UnknownTenant,
    /// The named provider is not one of the tenant's enabled ones.
    #[error("no provider with this name is enabled")]
    UnknownProvider,
    /// The named provider, or the only one that accepts issuer and audience, is disabled.
    #[error("this provider is disabled")]
    ProviderDisabled,
    /// No provider is named, and none accepts issuer and audience.
    #[error("no enabled provider accepts the ID token's issuer and audience; name one in \"provider\"")]
    NoProviderFits,
    /// No provider is named, and several accept issuer and audience.
    #[error("{fitting} providers accept the ID token's issuer and audience; name one in \"provider\"")]
    AmbiguousProvider {
        /// How many.
        fitting: usize,
    },
    /// The token's shape.
    #[error(transparent)]
    Shape(#[from] TokenShapeError),
    /// The key for it.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The token itself.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A verifier of the provider's own.
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    /// Used before.
    #[error("the ID token was used before; this provider's tokens are good for one sign-in")]
    Replayed,
    /// An `enrich` plugin is out of reach, and the provider's rule is to refuse then.
    #[error("the provider's enrichment cannot be had now")]
    EnrichUnavailable,
    /// An `enrich` plugin refused the identity.
    #[error("the provider's enrichment refuses this identity: {code}")]
    EnrichRejected {
        /// The plugin's reason.
        code: String,
    },
    /// The mapping.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// The user.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The address is another account's, which may link this identity with the token.
    #[error(
        "another account has this e-mail address; sign in to it as before, then link this identity with the link_token"
    )]
    LinkOffered(OfferedLink),
    /// Another sign-in changed the same user at the same moment, twice.
    #[error("another sign-in of this identity is being written; try again")]
    Conflict,
    /// The decision.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No key could sign.
    #[error(transparent)]
    Keys(#[from] KeyRingError),
}

impl From<ReplayError> for SignInError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Replayed => Self::Replayed,
            ReplayError::Store(e) => Self::Store(e),
        }
    }
}

impl SignInError {
    /// The stable word of the contract.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::MissingToken => ErrorCode::MissingIdToken,
            Self::UnknownTenant => ErrorCode::UnknownTenant,
            Self::UnknownProvider => ErrorCode::UnknownProvider,
            Self::ProviderDisabled => ErrorCode::ProviderDisabled,
            Self::NoProviderFits => ErrorCode::NoProviderFits,
            Self::AmbiguousProvider { .. } => ErrorCode::AmbiguousProvider,
            Self::Shape(e) => match e {
                TokenShapeError::Algorithm => ErrorCode::IdTokenAlgorithmNotAllowed,
                TokenShapeError::RefusedHeader { .. } => ErrorCode::IdTokenHeaderRefused,
                TokenShapeError::Type => ErrorCode::IdTokenTypeRefused,
                TokenShapeError::Encrypted => ErrorCode::IdTokenEncrypted,
                TokenShapeError::TooLong
                | TokenShapeError::Parts { .. }
                | TokenShapeError::Encoding { .. }
                | TokenShapeError::Json { .. }
                | TokenShapeError::KeyId => ErrorCode::MalformedIdToken,
            },
            Self::Key(e) => match e {
                KeyError::UnknownKey => ErrorCode::UnknownKey,
                KeyError::NoKeyId { .. } => ErrorCode::KeyIdMissing,
                KeyError::Unfit { .. } => ErrorCode::KeyUnfit,
                KeyError::Ambiguous { .. } => ErrorCode::KeyAmbiguous,
                KeyError::Unavailable { .. } => ErrorCode::ProviderUnavailable,
            },
            Self::Verify(e) => match e {
                VerifyError::AlgorithmNotAllowed { .. } => ErrorCode::IdTokenAlgorithmNotAllowed,
                VerifyError::BadSignature => ErrorCode::IdTokenSignatureInvalid,
                VerifyError::Claim { .. } => ErrorCode::IdTokenClaimInvalid,
                VerifyError::Issuer { .. } | VerifyError::IssuerOfKey { .. } => ErrorCode::IdTokenIssuerMismatch,
                VerifyError::UpstreamTenant { .. } => ErrorCode::IdTokenTenantNotAllowed,
                VerifyError::Audience { .. } => ErrorCode::IdTokenAudienceMismatch,
                VerifyError::AuthorizedParty { .. } => ErrorCode::IdTokenAzpMismatch,
                VerifyError::Expired { .. } => ErrorCode::IdTokenExpired,
                VerifyError::NotYetValid { .. } => ErrorCode::IdTokenNotYetValid,
                VerifyError::TooOld { .. } => ErrorCode::IdTokenTooOld,
                VerifyError::Nonce(_) => ErrorCode::IdTokenNonceMismatch,
                VerifyError::AccessTokenHash(_) => ErrorCode::IdTokenAtHashMismatch,
            },
            Self::Foreign(ForeignError::Rejected { .. }) => ErrorCode::IdTokenRejected,
            Self::Foreign(ForeignError::Unavailable) => ErrorCode::ProviderUnavailable,
            Self::Replayed => ErrorCode::IdTokenReplayed,
            Self::EnrichUnavailable => ErrorCode::ProviderUnavailable,
            Self::EnrichRejected { .. } | Self::Mapping(MappingError::Rejected { .. }) => {
                ErrorCode::IdentityRejected
            }
            Self::Mapping(_) => ErrorCode::MappingFailed,
            Self::Resolve(e) => match e {
                ResolveError::NotProvisioned | ResolveError::OutsideDomains | ResolveError::NotInvited => {
                    ErrorCode::UserNotProvisioned
                }
                ResolveError::AccountExists { .. } => ErrorCode::AccountExists,
                ResolveError::Pending(_) => ErrorCode::AccountPending,
                ResolveError::Disabled(_) => ErrorCode::AccountDisabled,
                ResolveError::Locked(_) => ErrorCode::AccountLocked,
                ResolveError::Store(_) => ErrorCode::StoreUnavailable,
            },
            Self::LinkOffered(_) => ErrorCode::AccountExists,
            Self::Conflict => ErrorCode::SignInConflict,
            Self::Denied(_) => ErrorCode::SignInDenied,
            Self::Store(_) | Self::Keys(_) => ErrorCode::StoreUnavailable,
        }
    }

    /// Writes what the client must not see to the log, once.
    pub fn log_cause(&self) {
        let cause: Option<&dyn std::error::Error> = match self {
            Self::Key(KeyError::Unavailable { source, .. }) => Some(&**source),
            Self::Store(e) | Self::Resolve(ResolveError::Store(e)) => Some(e),
            Self::Keys(e) => Some(e),
            Self::Mapping(MappingError::Fault(fault)) => Some(fault),
            _ => None,
        };
        let Some(cause) = cause else { return };
        let mut text = cause.to_string();
        let mut next = cause.source();
        while let Some(deeper) = next {
            text.push_str(": ");
            text.push_str(&deeper.to_string());
            next = deeper.source();
        }
        tracing::error!(code = self.code().as_str(), error = text, "a sign-in was refused for a cause inside");
    }
}
