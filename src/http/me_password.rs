//! The local password of the signed-in user.

use std::sync::Arc;

use poem::Request;
use poem_openapi::{Object, OpenApi};

use super::body::Body;
use super::dto::MessageResponse;
use super::problem::Problem;
use super::reply::Reply;
use super::text::Text;
use super::{BearerAuth, State, Tag};
use crate::people::passwords::PasswordError;
use crate::secret::Secret;

pub(super) struct PasswordApi(pub Arc<State>);

super::me::bearer_refusals!(
    PasswordRefusals,
    MalformedRequest,
    InvalidPassword,
    PasswordUnacceptable,
    NoLocalPassword,
    PasswordLocked,
    PasswordCheckBusy,
    BodyTooLarge,
    UnsupportedMediaType
);

/// The old password and the new one.
#[derive(Object)]
#[oai(rename = "dto.ChangePasswordRequest")]
pub struct ChangePasswordRequest {
    /// The password so far.
    pub old_password: Text,
    /// At least as many characters as the tenant asks for, and at most 256 bytes.
    pub new_password: Text,
}

#[OpenApi]
impl PasswordApi {
    /// Change the own password
    ///
    /// Needs the old one; a user without a local password gets one from an administrator. The user's other
    /// sessions end. After ten wrong ones within 15 minutes none is looked at until the oldest is out of that time.
    #[oai(path = "/auth/me/password", method = "put", tag = "Tag::Me", operation_id = "changeMyPassword")]
    async fn change(
        &self,
        request: &Request,
        auth: BearerAuth,
        body: Body<ChangePasswordRequest>,
    ) -> Reply<MessageResponse, PasswordRefusals> {
        let answer = async {
            let state = &self.0;
            let living = state.signed_in(request, Some(&auth)).await?;
            let (old, new) = (secret(body.0.old_password), secret(body.0.new_password));
            let changed = state.passwords.change(&living, old, new).await;
            changed.map_err(|error| refused(state, &error))?;
            Ok(MessageResponse::new("the password is changed", state.clock.now()))
        };
        answer.await.into()
    }
}

pub(super) fn secret(text: Text) -> Secret {
    Secret::new(text.0.into_bytes())
}

pub(super) fn refused(state: &State, error: &PasswordError) -> Problem {
    let problem = state.refused(error.code(), error);
    match error {
        PasswordError::Locked { retry_after_s } => problem.retry_after(*retry_after_s),
        PasswordError::Busy => problem.retry_after(1),
        _ => problem,
    }
}
