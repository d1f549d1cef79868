//! The sign-in operations.

use std::sync::Arc;

use poem::Request;
use poem_openapi::OpenApi;
use poem_openapi::param::Header;

use super::body::{Body, OptionalBody};
use super::dto;
use super::problem::Problem;
use super::reply::{Refusals, Reply};
use super::text::Text;
use super::{MaybeBearer, State, Tag, client};
use crate::codes::ErrorCode as E;
use crate::ids::RequestId;
use crate::mfa::MfaMethod;
use crate::mfa::delivery::{SendError, SendRequest};
use crate::mfa::verify::{Answer, ChallengeError};
use crate::secret::sha256;
use crate::session::refresh::Asker;
use crate::signin::error::SignInError;
use crate::signin::nonce::NONCE_TTL;
use crate::signin::pipeline::Outcome;
use crate::signin::ports::KeyError;
use crate::signin::request::{SignInRequest, TokenBinding};

/// The longest texts that a request may bring, in bytes.
pub(super) const SHORT_TEXT: usize = 256;
pub(super) const LONG_TEXT: usize = 8 * 1024;

pub(super) struct SignInApi(pub Arc<State>);

pub(super) struct SignInRefusals;
impl Refusals for SignInRefusals {
    const CODES: &'static [E] = &[
        E::MalformedRequest,
        E::MissingIdToken,
        E::MalformedIdToken,
        E::AmbiguousProvider,
        E::InvalidDpopProof,
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
        E::IdTokenRejected,
        E::NoProviderFits,
        E::UnknownKey,
        E::KeyIdMissing,
        E::KeyUnfit,
        E::KeyAmbiguous,
        E::SignInDenied,
        E::UserNotProvisioned,
        E::AccountDisabled,
        E::AccountLocked,
        E::AccountPending,
        E::IdentityRejected,
        E::MappingFailed,
        E::ProviderDisabled,
        E::UnknownTenant,
        E::UnknownProvider,
        E::AccountExists,
        E::SignInConflict,
        E::BodyTooLarge,
        E::UnsupportedMediaType,
        E::TooManyRequests,
        E::ProviderUnavailable,
        E::StoreUnavailable,
        E::RequestTimeout,
    ];
}

pub(super) struct NonceRefusals;
impl Refusals for NonceRefusals {
    const CODES: &'static [E] = &[E::UnknownTenant, E::TooManyRequests, E::RequestTimeout];
}

pub(super) struct ChallengeRefusals;
impl Refusals for ChallengeRefusals {
    const CODES: &'static [E] = &[
        E::MalformedRequest,
        E::InvalidMfaCode,
        E::MfaPending,
        E::ChallengeExpired,
        E::ChallengeUsed,
        E::InvalidChallenge,
        E::MfaMethodNotAllowed,
        E::IdentityTaken,
        E::ProviderDisabled,
        E::UnknownTenant,
        E::BodyTooLarge,
        E::UnsupportedMediaType,
        E::TooManyRequests,
        E::MfaLocked,
        E::ChannelUnavailable,
        E::StoreUnavailable,
        E::RequestTimeout,
    ];
}

pub(super) struct SendRefusals;
impl Refusals for SendRefusals {
    const CODES: &'static [E] = &[
        E::MalformedRequest,
        E::ChallengeExpired,
        E::ChallengeUsed,
        E::InvalidChallenge,
        E::MfaMethodNotAllowed,
        E::ProviderDisabled,
        E::UnknownTenant,
        E::BodyTooLarge,
        E::UnsupportedMediaType,
        E::TooManyRequests,
        E::MfaLocked,
        E::TooManyMessages,
        E::ChannelUnavailable,
        E::StoreUnavailable,
        E::RequestTimeout,
    ];
}

pub(super) struct RefreshRefusals;
impl Refusals for RefreshRefusals {
    const CODES: &'static [E] = &[
        E::MalformedRequest,
        E::RefreshTokenReused,
        E::InvalidRefreshToken,
        E::InvalidDpopProof,
        E::ProviderDisabled,
        E::UnknownTenant,
        E::BodyTooLarge,
        E::UnsupportedMediaType,
        E::TooManyRequests,
        E::StoreUnavailable,
        E::RequestTimeout,
    ];
}

pub(super) struct LogoutRefusals;
impl Refusals for LogoutRefusals {
    const CODES: &'static [E] = &[
        E::MalformedRequest,
        E::MissingAccessToken,
        E::InvalidAccessToken,
        E::AccessTokenExpired,
        E::SessionEnded,
        E::DpopProofRequired,
        E::AccountDisabled,
        E::AccountLocked,
        E::AccountPending,
        E::ProviderDisabled,
        E::UnknownTenant,
        E::BodyTooLarge,
        E::UnsupportedMediaType,
        E::StoreUnavailable,
        E::RequestTimeout,
    ];
}

#[OpenApi]
impl SignInApi {
    /// Sign in with an ID token
    ///
    /// Verifies the ID token, maps its claims to a local user, assesses the risk of this very sign-in, and
    /// answers with local tokens (`requires_mfa` false), or with a challenge (`requires_mfa` true) that
    /// `POST /auth/mfa/verify-challenge` takes. A challenge is an answer, not an error. With a proof in the
    /// header `DPoP` (RFC 9449) the tokens are bound to its key.
    #[oai(path = "/auth/id-token/signin", method = "post", tag = "Tag::SignIn", operation_id = "signInWithIdToken")]
    async fn sign_in(
        &self,
        request: &Request,
        /// A DPoP proof (RFC 9449 section 4) for this request.
        #[oai(name = "DPoP")]
        _proof: Header<Option<String>>,
        body: Body<dto::SignInRequest>,
    ) -> Reply<dto::LoginResponse, SignInRefusals> {
        self.run_sign_in(request, body.0).await.into()
    }

    /// Get a nonce for one sign-in
    ///
    /// For providers with `nonce = "server_issued"`. Single use. Pass it to the provider, and raw in
    /// `nonce` of the sign-in: a captured ID token is worth nothing without it, and nothing after it.
    #[oai(path = "/auth/id-token/nonce", method = "post", tag = "Tag::SignIn", operation_id = "issueNonce")]
    async fn issue_nonce(&self, request: &Request) -> Reply<dto::NonceResponse, NonceRefusals> {
        let state = &self.0;
        let answer = state.admit(request).map(|tenant| dto::NonceResponse {
            nonce: state.pipeline.nonces.issue(&tenant.id, state.clock.now(), &*state.entropy),
            expires_in: NONCE_TTL.as_secs(),
        });
        answer.into()
    }

    /// Have a code sent for a challenge
    ///
    /// For the methods `email`, `sms`, `push` and those of a plugin's own name, when they stand in the challenge's `required_mfa_methods`: a code
    /// goes to the address that the user had verified before, or a device of the user's is asked to confirm, if the
    /// user has one there (else `mfa_method_not_allowed`). A new code takes the place of an earlier one.
    /// At most three messages for a challenge, 20 s apart, and ten to one user within 15 minutes.
    #[oai(path = "/auth/mfa/challenge", method = "post", tag = "Tag::Mfa", operation_id = "sendMfaCode")]
    async fn send_code(
        &self,
        request: &Request,
        body: Body<dto::SendCodeRequest>,
    ) -> Reply<dto::SendCodeResponse, SendRefusals> {
        self.run_send(request, body.0).await.into()
    }

    /// Answer an MFA challenge
    ///
    /// A right answer gives what the sign-in would have given. A wrong one is 400 `invalid_mfa_code`: no
    /// session is lost by it. Of a push `code` is empty; while the user has not answered on the device it is 400
    /// `mfa_pending`, which does not count as a wrong code: ask again after `Retry-After`. The device's service is asked
    /// for a challenge at most once a second. After five wrong codes the challenge is dead; after ten of one user within
    /// 15 minutes, over all challenges, every answer is 429 `mfa_locked` for 15 minutes.
    #[oai(
        path = "/auth/mfa/verify-challenge",
        method = "post",
        tag = "Tag::Mfa",
        operation_id = "verifyMfaChallenge"
    )]
    async fn verify_challenge(
        &self,
        request: &Request,
        body: Body<dto::VerifyChallengeRequest>,
    ) -> Reply<dto::LoginResponse, ChallengeRefusals> {
        self.run_verify(request, body.0).await.into()
    }

    /// Exchange a refresh token
    ///
    /// Gives a new pair; the old refresh token is spent. A repeat within the grace (10 s by default) gets
    /// the same successor. A later repeat ends the session: the token is in two hands. Tokens of registered
    /// clients are exchanged at `POST /oauth/token` only.
    #[oai(path = "/auth/refresh", method = "post", tag = "Tag::Session", operation_id = "refresh")]
    async fn refresh(
        &self,
        request: &Request,
        /// A DPoP proof (RFC 9449 section 4) for this request, when the session is bound to a key.
        #[oai(name = "DPoP")]
        _proof: Header<Option<String>>,
        body: Body<dto::RefreshRequest>,
    ) -> Reply<dto::LoginResponse, RefreshRefusals> {
        let answer = async {
            let tenant = self.0.admit(request)?;
            let asker = Asker { client: None, jkt: self.0.dpop_key(request).await? };
            let refreshed = self.0.sessions.refresh(tenant.id.clone(), &body.0.refresh_token.0, asker).await;
            let (living, tokens) = refreshed.map_err(|error| self.0.refused(error.code(), &error))?;
            let answer = dto::LoginResponse::signed_in(tokens, &living.user, living.session.grant.level);
            Ok(answer.with_password(self.0.password_of(&living.user)))
        };
        answer.await.into()
    }

    /// End a session
    ///
    /// The session of the refresh token in the body, else the one of the bearer token. A refresh token that
    /// opens nothing is fine: it is gone.
    #[oai(path = "/auth/logout", method = "post", tag = "Tag::Session", operation_id = "logout")]
    async fn log_out(
        &self,
        request: &Request,
        auth: MaybeBearer,
        body: OptionalBody<dto::LogoutRequest>,
    ) -> Reply<dto::MessageResponse, LogoutRefusals> {
        let answer = async {
            let state = &self.0;
            let tenant = state.tenant(request)?;
            match body.0.and_then(|b| b.refresh_token) {
                Some(token) => state.sessions.log_out_by_refresh(&tenant.id, &token.0).await,
                None => {
                    let bearer = match &auth {
                        MaybeBearer::Bearer(bearer) => Some(bearer),
                        MaybeBearer::Anonymous => None,
                    };
                    let living = state.signed_in(request, bearer).await?;
                    state.sessions.log_out(&living).await
                }
            }
            .map_err(|error| state.refused(E::StoreUnavailable, &error))?;
            Ok(dto::MessageResponse::new("the session has ended", state.clock.now()))
        };
        answer.await.into()
    }
}

impl State {
    /// The sign-in path for a request of any endpoint.
    pub(super) async fn sign_in(
        &self,
        request: &Request,
        body: dto::SignInRequest,
        binding: TokenBinding,
    ) -> Result<Outcome, Problem> {
        let sign_in = SignInRequest { binding, ..sign_in_request(self, request, body)? };
        // In a task of its own: a client that hangs up half way does not leave half a sign-in.
        let pipeline = Arc::clone(&self.pipeline);
        let walked = tokio::spawn(async move { pipeline.sign_in_explained(sign_in).await }).await;
        let outcome = walked.map_err(|_| Problem::new(E::InternalError, "the sign-in could not be finished"))?;
        outcome.map_err(|refusal| {
            self.note_refusal(request, &refusal.error);
            let checks: Box<[dto::TokenCheck]> = refusal.checks.into_iter().map(Into::into).collect();
            Problem { checks: (!checks.is_empty()).then_some(checks), ..problem(&refusal.error) }
        })
    }
}

impl SignInApi {
    async fn run_sign_in(
        &self,
        request: &Request,
        body: dto::SignInRequest,
    ) -> Result<dto::LoginResponse, Problem> {
        // An unknown tenant is the path's own refusal, with its record.
        match self.0.admit(request) {
            Err(problem) if problem.code != E::UnknownTenant => return Err(problem),
            _ => {}
        }
        let jkt = self.0.dpop_key(request).await?;
        let binding = TokenBinding { jkt, ..TokenBinding::default() };
        let outcome = self.0.sign_in(request, body, binding).await?;
        let password = match &outcome {
            Outcome::SignedIn { user, .. } => self.0.password_of(user),
            Outcome::Challenged { .. } => None,
        };
        Ok(dto::LoginResponse::from(outcome).with_password(password))
    }

    async fn run_send(
        &self,
        request: &Request,
        body: dto::SendCodeRequest,
    ) -> Result<dto::SendCodeResponse, Problem> {
        let state = &self.0;
        let tenant = state.admit(request)?;
        let method = find_method(&body.mfa_method.0)?;
        let device_id = present(body.device_id);
        let wish = SendRequest {
            tenant: tenant.id.clone(),
            challenge_token: &body.challenge_token.0,
            method,
            device_id: device_id.as_deref(),
        };
        match state.codes.send(wish).await {
            Ok(sent) => Ok(dto::SendCodeResponse {
                mfa_method: sent.method.to_string(),
                destination: sent.destination_hint,
                expires_in: sent.expires_in.as_secs(),
            }),
            Err(error) => {
                let problem = state.refused(error.code(), &error);
                Err(match error {
                    SendError::TooMany { retry_after_s }
                    | SendError::Challenge(ChallengeError::Locked { retry_after_s }) => {
                        problem.retry_after(retry_after_s)
                    }
                    _ => problem,
                })
            }
        }
    }

    async fn run_verify(
        &self,
        request: &Request,
        body: dto::VerifyChallengeRequest,
    ) -> Result<dto::LoginResponse, Problem> {
        let state = &self.0;
        let tenant = state.admit(request)?;
        let method = find_method(&body.mfa_method.0)?;
        let device_id = present(body.device_id);
        let verified = state
            .challenges
            .answer(Answer {
                tenant: tenant.id.clone(),
                challenge_token: &body.challenge_token.0,
                method,
                code: &body.code.0,
                device_id: device_id.as_deref(),
            })
            .await;
        match verified {
            Ok(answered) => {
                let assessment = &answered.assessment;
                let answer = dto::LoginResponse::assessed(answered.tokens, &answered.user, assessment, true);
                Ok(answer.with_password(state.password_of(&answered.user)))
            }
            Err(error) => {
                let problem = state.refused(error.code(), &error);
                Err(match error {
                    ChallengeError::Locked { retry_after_s } | ChallengeError::Pending { retry_after_s } => {
                        problem.retry_after(retry_after_s)
                    }
                    _ => problem,
                })
            }
        }
    }
}

/// A text that is no secret of ours fits no device.
fn device_secret_hash(text: String) -> Option<[u8; 32]> {
    data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).ok().map(|secret| sha256(&secret))
}

/// What came in, within its limits.
pub(super) fn sign_in_request(
    state: &State,
    request: &Request,
    body: dto::SignInRequest,
) -> Result<SignInRequest, Problem> {
    let mut client = client::context(request, &state.trusted_proxies);
    client.device_id = bounded(body.device_id, SHORT_TEXT, "device_id")?.map(Into::into);
    if let Some(assume) = &state.assume {
        let assumed = assume(request).map_err(|e| Problem::new(E::MalformedRequest, e))?;
        client.ip = assumed.ip.or(client.ip);
        client.assumed_location = assumed.location;
    }
    Ok(SignInRequest {
        id: request.data::<RequestId>().copied().unwrap_or_else(|| RequestId::from_bytes([0; 16])),
        tenant_header: client::tenant_header(request),
        host: client::host(request),
        provider: present(body.provider),
        id_token: body.id_token.unwrap_or_default().0,
        nonce: bounded(body.nonce, SHORT_TEXT, "nonce")?,
        access_token: bounded(body.access_token, LONG_TEXT, "access_token")?,
        device_secret_hash: bounded(body.device_secret, SHORT_TEXT, "device_secret")?.and_then(device_secret_hash),
        name_hint: bounded(body.profile.and_then(|p| p.name), SHORT_TEXT, "profile.name")?,
        client,
        binding: TokenBinding::default(),
    })
}

fn find_method(word: &str) -> Result<MfaMethod, Problem> {
    MfaMethod::find(word).ok_or_else(|| {
        Problem::new(E::MfaMethodNotAllowed, format!("mfa_method is one of {}", MfaMethod::expected()))
    })
}

/// An empty text counts as absent: generated clients send those.
pub(super) fn present(text: Option<Text>) -> Option<String> {
    text.map(|t| t.0).filter(|t| !t.is_empty())
}

pub(super) fn bounded(text: Option<Text>, most: usize, field: &str) -> Result<Option<String>, Problem> {
    let text = present(text);
    match &text {
        Some(t) if t.len() > most => {
            Err(Problem::new(E::MalformedRequest, format!("{field} is longer than {most} bytes")))
        }
        Some(t) if t.chars().any(char::is_control) => {
            Err(Problem::new(E::MalformedRequest, format!("{field} holds a control character")))
        }
        _ => Ok(text),
    }
}

pub(super) fn problem(error: &SignInError) -> Problem {
    let problem = Problem::new(error.code(), error.to_string());
    match error {
        SignInError::Key(KeyError::Unavailable { retry_after_s, .. }) => problem.retry_after(*retry_after_s),
        SignInError::LinkOffered(link) => Problem { link_token: Some(Box::new(link.clone())), ..problem },
        _ => problem,
    }
}
