//! Identities of the signed-in user.

use std::str::FromStr;
use std::sync::Arc;

use poem::Request;
use poem_openapi::param::Path;
use poem_openapi::{Object, OpenApi};

use super::body::Body;
use super::dto::{self, MessageResponse};
use super::problem::Problem;
use super::reply::{Refusals, Reply};
use super::sign_in::{self, present};
use super::text::Text;
use super::{BearerAuth, State, Tag};
use crate::clock::UnixTime;
use crate::codes::ErrorCode as E;
use crate::ids::IdentityId;
use crate::people::identities::{IdentityError, LinkedIdentity};

pub(super) struct IdentitiesApi(pub Arc<State>);

/// A way in that belongs to the user.
#[derive(Debug, Object)]
#[oai(rename = "dto.Identity")]
pub struct IdentityInfo {
    /// The identifier, `idn_…`.
    pub id: String,
    /// The provider's name.
    pub provider: String,
    /// `iss` of its ID tokens.
    pub issuer: String,
    /// `sub` of its ID tokens.
    pub subject: String,
    /// Since when it is the user's, RFC 3339 in UTC.
    pub linked_at: String,
}

impl From<&LinkedIdentity> for IdentityInfo {
    fn from(identity: &LinkedIdentity) -> Self {
        Self {
            id: identity.id().to_string(),
            provider: identity.key.provider.to_string(),
            issuer: identity.key.issuer.to_string(),
            subject: identity.key.subject.to_string(),
            linked_at: UnixTime::to_rfc3339(identity.linked_at),
        }
    }
}

/// The ways in of the signed-in user.
#[derive(Debug, Object)]
#[oai(rename = "dto.IdentitiesResponse")]
pub struct IdentitiesResponse {
    /// Oldest first.
    pub identities: Vec<IdentityInfo>,
}

/// The proof of an identity: `link_token`, or `id_token` with what a sign-in takes beside it.
#[derive(Object)]
#[oai(rename = "dto.LinkIdentityRequest", skip_serializing_if_is_none)]
pub struct LinkIdentityRequest {
    /// A new ID token of the provider.
    pub id_token: Option<Text>,
    /// The provider's name in the tenant. Absent: found by the token's `iss` and `aud`.
    pub provider: Option<Text>,
    /// As at sign-in.
    pub nonce: Option<Text>,
    /// As at sign-in.
    pub access_token: Option<Text>,
    /// As it stood in the 409 `account_exists` of a sign-in with this identity.
    pub link_token: Option<Text>,
}

pub(super) struct LinkRefusals;
impl Refusals for LinkRefusals {
    const CODES: &'static [E] = &[
        E::MalformedRequest,
        E::InvalidLinkToken,
        E::MissingIdToken,
        E::MalformedIdToken,
        E::AmbiguousProvider,
        E::MissingAccessToken,
        E::InvalidAccessToken,
        E::AccessTokenExpired,
        E::SessionEnded,
        E::IdTokenExpired,
        E::IdTokenSignatureInvalid,
        E::IdTokenAlgorithmNotAllowed,
        E::IdTokenHeaderRefused,
        E::IdTokenTypeRefused,
        E::IdTokenEncrypted,
        E::IdTokenClaimInvalid,
        E::IdTokenIssuerMismatch,
        E::IdTokenTenantNotAllowed,
        E::IdTokenAudienceMismatch,
        E::IdTokenAzpMismatch,
        E::IdTokenNotYetValid,
        E::IdTokenTooOld,
        E::IdTokenNonceMismatch,
        E::IdTokenAtHashMismatch,
        E::IdTokenReplayed,
        E::NoProviderFits,
        E::UnknownKey,
        E::KeyIdMissing,
        E::KeyUnfit,
        E::AccountDisabled,
        E::AccountLocked,
        E::AccountPending,
        E::FreshSessionNeeded,
        E::IdentityRejected,
        E::MappingFailed,
        E::ProviderDisabled,
        E::UnknownTenant,
        E::UnknownProvider,
        E::IdentityTaken,
        E::BodyTooLarge,
        E::UnsupportedMediaType,
        E::TooManyRequests,
        E::ProviderUnavailable,
        E::StoreUnavailable,
        E::RequestTimeout,
    ];
}

super::me::bearer_refusals!(UnlinkRefusals, FreshSessionNeeded, UnknownIdentity, LastIdentity);

#[OpenApi]
impl IdentitiesApi {
    /// The user's identities
    ///
    /// The accounts at providers that this user signs in with.
    #[oai(path = "/auth/me/identities", method = "get", tag = "Tag::Me", operation_id = "listMyIdentities")]
    async fn list(&self, request: &Request, auth: BearerAuth) -> Reply<IdentitiesResponse, super::me::MeRefusals> {
        let answer = async {
            let living = self.0.signed_in(request, Some(&auth)).await?;
            let found = self.0.identities.list(&living).await;
            let found = found.map_err(|error| self.0.refused(E::StoreUnavailable, &error))?;
            Ok(IdentitiesResponse { identities: found.iter().map(Into::into).collect() })
        };
        answer.await.into()
    }

    /// Link an identity
    ///
    /// Needs a session that began within the last 10 minutes, and a proof of the new identity: an ID token
    /// of its provider, which is checked and spent as at a sign-in; or the `link_token` that a sign-in with
    /// it was refused with (409 `account_exists`, at a provider with `linking = "confirm"`).
    ///
    /// The whole way with a link token: 1. the sign-in with the new identity answers 409 with `link_token`;
    /// 2. the application tells the user that an account with this address exists, and signs them in to it
    /// as before; 3. it hands in the link token with that session. The link token names one identity and one
    /// account: it links no other identity, to no other account, once, within 10 minutes. When the new
    /// provider verified the address and the account has a strong factor, the sign-in answers with a
    /// challenge instead (`mfa_check_reason` `link_confirmation`), and the right code links.
    #[oai(path = "/auth/me/identities", method = "post", tag = "Tag::Me", operation_id = "linkMyIdentity")]
    async fn link(
        &self,
        request: &Request,
        auth: BearerAuth,
        body: Body<LinkIdentityRequest>,
    ) -> Reply<IdentityInfo, LinkRefusals> {
        self.run_link(request, &auth, body.0).await.into()
    }

    /// Unlink an identity
    ///
    /// Needs a session that began within the last 10 minutes. Other sessions that came through the same
    /// provider end. The last identity that the user can sign in with stays (409 `last_identity`).
    #[oai(
        path = "/auth/me/identities/:identity_id",
        method = "delete",
        tag = "Tag::Me",
        operation_id = "unlinkMyIdentity"
    )]
    async fn unlink(
        &self,
        request: &Request,
        auth: BearerAuth,
        /// The identity, `idn_…`.
        identity_id: Path<String>,
    ) -> Reply<MessageResponse, UnlinkRefusals> {
        let answer = async {
            let living = self.0.signed_in(request, Some(&auth)).await?;
            let id = IdentityId::from_str(&identity_id.0)
                .map_err(|error| Problem::new(E::UnknownIdentity, error.to_string()))?;
            let unlinked = self.0.identities.unlink(&living, id).await;
            unlinked.map_err(|error| self.0.refused(error.code(), &error))?;
            Ok(MessageResponse::new("the identity is unlinked", self.0.clock.now()))
        };
        answer.await.into()
    }
}

impl IdentitiesApi {
    async fn run_link(
        &self,
        request: &Request,
        auth: &BearerAuth,
        body: LinkIdentityRequest,
    ) -> Result<IdentityInfo, Problem> {
        let state = &self.0;
        state.admit(request)?;
        let living = state.signed_in(request, Some(auth)).await?;
        let refused = |error: IdentityError| state.refused(error.code(), &error);
        state.identities.check_fresh(&living).map_err(refused)?;
        let linked = match (present(body.link_token), body.id_token) {
            (Some(_), Some(_)) => {
                return Err(Problem::new(E::MalformedRequest, "name link_token or id_token, not both"));
            }
            (Some(link_token), None) => state.identities.redeem(&living, &link_token).await,
            (None, id_token) => {
                let (provider, nonce, access_token) = (body.provider, body.nonce, body.access_token);
                let proof =
                    dto::SignInRequest { id_token, provider, nonce, access_token, ..dto::SignInRequest::default() };
                let proof = sign_in::sign_in_request(state, request, proof)?;
                let pipeline = Arc::clone(&state.pipeline);
                let proved = tokio::spawn(async move { pipeline.prove_identity(&proof).await }).await;
                let proved =
                    proved.map_err(|_| Problem::new(E::InternalError, "the token could not be checked"))?;
                let proved = proved.map_err(|error| {
                    state.note_refusal(request, &error);
                    sign_in::problem(&error)
                })?;
                state.identities.link(&living, &proved).await
            }
        };
        linked.map(|identity| (&identity).into()).map_err(refused)
    }
}
