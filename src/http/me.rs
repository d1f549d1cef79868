//! Operations of the signed-in user.

use std::str::FromStr;
use std::sync::Arc;

use poem::Request;
use poem_openapi::OpenApi;

use super::body::Body;
use super::dto;
use super::problem::Problem;
use super::reply::Reply;
use super::{BearerAuth, State, Tag};
use crate::codes::ErrorCode as E;
use crate::ids::{FactorId, RequestId, UserId};
use crate::signin::ports::StoreError;

pub(super) struct MeApi(pub Arc<State>);

macro_rules! bearer_refusals {
    ($name:ident $(, $more:ident)*) => {
        pub(in crate::http) struct $name;
        impl $crate::http::reply::Refusals for $name {
            const CODES: &'static [$crate::codes::ErrorCode] = &[
                $crate::codes::ErrorCode::MissingAccessToken,
                $crate::codes::ErrorCode::InvalidAccessToken,
                $crate::codes::ErrorCode::AccessTokenExpired,
                $crate::codes::ErrorCode::SessionEnded,
                $crate::codes::ErrorCode::DpopProofRequired,
                $crate::codes::ErrorCode::AccountDisabled,
                $crate::codes::ErrorCode::AccountLocked,
                $crate::codes::ErrorCode::AccountPending,
                $crate::codes::ErrorCode::ProviderDisabled,
                $crate::codes::ErrorCode::UnknownTenant,
                $crate::codes::ErrorCode::StoreUnavailable,
                $crate::codes::ErrorCode::RequestTimeout,
                $($crate::codes::ErrorCode::$more,)*
            ];
        }
    };
}

pub(super) use bearer_refusals;

bearer_refusals!(MeRefusals);
bearer_refusals!(EnrolRefusals, EnrolmentNotAllowed, FreshSessionNeeded);
bearer_refusals!(
    ConfirmRefusals,
    MalformedRequest,
    UnknownFactor,
    InvalidMfaCode,
    BodyTooLarge,
    UnsupportedMediaType
);

#[OpenApi]
impl MeApi {
    /// The signed-in user
    ///
    /// As the store has it now, not as it was when the token was issued.
    #[oai(path = "/auth/me", method = "get", tag = "Tag::Me", operation_id = "getMe")]
    async fn me(&self, request: &Request, auth: BearerAuth) -> Reply<dto::UserInfoResponse, MeRefusals> {
        let answer = async {
            let living = self.0.signed_in(request, Some(&auth)).await?;
            Ok(dto::UserInfoResponse {
                code: 0,
                message: "success".to_owned(),
                timestamp: self.0.clock.now().to_rfc3339(),
                data: dto::UserInfo::from(&living.user).with_password(self.0.password_of(&living.user)),
                groups: Some(living.user.profile.groups).filter(|g| !g.is_empty()),
                roles: Some(living.user.profile.roles).filter(|r| !r.is_empty()),
            })
        };
        answer.await.into()
    }

    /// The user's MFA factors
    ///
    /// Confirmed ones only: an enrolment that waits for its first code is not listed.
    #[oai(path = "/auth/me/mfa", method = "get", tag = "Tag::Me", operation_id = "listMyFactors")]
    async fn factors(&self, request: &Request, auth: BearerAuth) -> Reply<dto::FactorsResponse, MeRefusals> {
        let answer = async {
            let living = self.0.signed_in(request, Some(&auth)).await?;
            self.0.factors_of(living.user.id).await
        };
        answer.await.into()
    }

    /// Begin to enrol an authenticator app
    ///
    /// The secret is shown once and does nothing until it is confirmed. A user without a factor needs a
    /// session of low risk; a user with one needs a session that passed it. The session must have begun within
    /// the last 10 minutes.
    #[oai(path = "/auth/me/mfa/totp", method = "post", tag = "Tag::Me", operation_id = "beginTotpEnrolment")]
    async fn begin_totp(&self, request: &Request, auth: BearerAuth) -> Reply<dto::TotpEnrolment, EnrolRefusals> {
        let answer = async {
            let living = self.0.signed_in(request, Some(&auth)).await?;
            let pending = self.0.enrolment.begin_totp(&living).await;
            let pending = pending.map_err(|error| self.0.refused(error.code(), &error))?;
            Ok(dto::TotpEnrolment {
                factor_id: pending.id.to_string(),
                secret: data_encoding::BASE32_NOPAD.encode(pending.secret.expose()),
                otpauth_uri: pending.otpauth_uri,
            })
        };
        answer.await.into()
    }

    /// Make backup codes
    ///
    /// Ten of them, in place of earlier ones, for when another factor is out of reach: `mfa_method` is
    /// `backup_code` then. Needs another factor, and a session that passed one and
    /// began within the last ten minutes. They count as weak, so a rule that
    /// asks for a strong factor does not take them.
    #[oai(path = "/auth/me/mfa/backup-codes", method = "post", tag = "Tag::Me", operation_id = "renewBackupCodes")]
    async fn renew_backup_codes(
        &self,
        request: &Request,
        auth: BearerAuth,
    ) -> Reply<dto::BackupCodes, EnrolRefusals> {
        let answer = async {
            let living = self.0.signed_in(request, Some(&auth)).await?;
            let id = request.data::<RequestId>().copied().unwrap_or_else(|| RequestId::from_bytes([0; 16]));
            let codes = self.0.enrolment.renew_backup_codes(&living, id).await;
            let codes = codes.map_err(|error| self.0.refused(error.code(), &error))?;
            let shown = codes.iter().map(|code| String::from_utf8_lossy(code.expose()).into_owned());
            Ok(dto::BackupCodes { codes: shown.collect() })
        };
        answer.await.into()
    }

    /// Confirm an authenticator app
    ///
    /// With a code that it shows. From then on challenges may ask for it. The code is spent.
    #[oai(
        path = "/auth/me/mfa/totp/confirm",
        method = "post",
        tag = "Tag::Me",
        operation_id = "confirmTotpEnrolment"
    )]
    async fn confirm_totp(
        &self,
        request: &Request,
        auth: BearerAuth,
        body: Body<dto::ConfirmTotpRequest>,
    ) -> Reply<dto::MessageResponse, ConfirmRefusals> {
        let answer = async {
            let living = self.0.signed_in(request, Some(&auth)).await?;
            let factor = FactorId::from_str(&body.0.factor_id.0)
                .map_err(|error| Problem::new(E::UnknownFactor, format!("factor_id: {error}")))?;
            let confirmed = self.0.enrolment.confirm_totp(&living, factor, &body.0.code.0).await;
            confirmed.map_err(|error| self.0.refused(error.code(), &error))?;
            Ok(dto::MessageResponse::new("the factor is enrolled", self.0.clock.now()))
        };
        answer.await.into()
    }
}

impl State {
    /// The confirmed factors of a user.
    pub(super) async fn factors_of(&self, user: UserId) -> Result<dto::FactorsResponse, Problem> {
        let store = &self.enrolment.factors;
        let found = async { Ok((store.factors(user).await?, store.backup_codes_left(user).await?)) };
        let (factors, left) = found.await.map_err(|error: StoreError| self.refused(E::StoreUnavailable, &error))?;
        Ok(dto::FactorsResponse { factors: dto::FactorInfo::listed(&factors, left) })
    }
}
