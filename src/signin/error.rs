//! Every way in which a sign-in can be refused. Numbers and HTTP statuses stand in `http::problem`.

use super::decision::Denial;
use super::identity::MappingError;
use super::ports::{KeyError, StoreError};
use super::replay::ReplayError;
use super::token::TokenShapeError;
use super::user::ResolveError;
use super::verify::VerifyError;
use crate::session::ports::KeyRingError;

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
    pub fn code(&self) -> &'static str {
        match self {
            Self::MissingToken => "missing_id_token",
            Self::UnknownTenant => "unknown_tenant",
            Self::UnknownProvider => "unknown_provider",
            Self::NoProviderFits => "no_provider_fits",
            Self::AmbiguousProvider { .. } => "ambiguous_provider",
            Self::Shape(e) => match e {
                TokenShapeError::Algorithm => "id_token_algorithm_not_allowed",
                TokenShapeError::RefusedHeader { .. } => "id_token_header_refused",
                TokenShapeError::Type => "id_token_type_refused",
                TokenShapeError::Encrypted => "id_token_encrypted",
                TokenShapeError::TooLong
                | TokenShapeError::Parts { .. }
                | TokenShapeError::Encoding { .. }
                | TokenShapeError::Json { .. }
                | TokenShapeError::KeyId => "malformed_id_token",
            },
            Self::Key(e) => match e {
                KeyError::UnknownKey => "unknown_key",
                KeyError::NoKeyId { .. } => "key_id_missing",
                KeyError::Unfit { .. } => "key_unfit",
                KeyError::Unavailable { .. } => "provider_unavailable",
            },
            Self::Verify(e) => match e {
                VerifyError::AlgorithmNotAllowed { .. } => "id_token_algorithm_not_allowed",
                VerifyError::BadSignature => "id_token_signature_invalid",
                VerifyError::Claim { .. } => "id_token_claim_invalid",
                VerifyError::Issuer { .. } => "id_token_issuer_mismatch",
                VerifyError::UpstreamTenant { .. } => "id_token_tenant_not_allowed",
                VerifyError::Audience { .. } => "id_token_audience_mismatch",
                VerifyError::AuthorizedParty { .. } => "id_token_azp_mismatch",
                VerifyError::Expired { .. } => "id_token_expired",
                VerifyError::NotYetValid { .. } => "id_token_not_yet_valid",
                VerifyError::TooOld { .. } => "id_token_too_old",
                VerifyError::Nonce(_) => "id_token_nonce_mismatch",
                VerifyError::AccessTokenHash(_) => "id_token_at_hash_mismatch",
            },
            Self::Replayed => "id_token_replayed",
            Self::EnrichUnavailable => "provider_unavailable",
            Self::EnrichRejected { .. } | Self::Mapping(MappingError::Rejected { .. }) => "identity_rejected",
            Self::Mapping(_) => "mapping_failed",
            Self::Resolve(e) => match e {
                ResolveError::NotProvisioned => "user_not_provisioned",
                ResolveError::AccountExists => "account_exists",
                ResolveError::Disabled(_) => "account_disabled",
                ResolveError::Locked(_) => "account_locked",
                ResolveError::Store(_) => "store_unavailable",
            },
            Self::Conflict => "sign_in_conflict",
            Self::Denied(_) => "sign_in_denied",
            Self::Store(_) | Self::Keys(_) => "store_unavailable",
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
        tracing::error!(code = self.code(), error = text, "a sign-in was refused for a cause inside");
    }
}
