//! Decisions: why, and what people say of them.

use std::str::FromStr;
use std::sync::Arc;

use poem::Request;
use poem_openapi::param::Path;
use poem_openapi::types::Any;
use poem_openapi::{Enum, Object, OpenApi};
use serde_json::Value;

use super::admin::{AdminAuth, admin_refusals};
use super::body::Body;
use super::dto::MessageResponse;
use super::problem::Problem;
use super::reply::{Refusals, Reply};
use super::{BearerAuth, State, Tag};
use crate::admin::access::{Resource, Verb};
use crate::admin::audit::{Actor, Author};
use crate::codes::ErrorCode as E;
use crate::ids::EventId;
use crate::policy::Scope;
use crate::signin::history::PastEnd;

pub(super) struct AdminDecisionsApi(pub Arc<State>);

admin_refusals!(ExplainRefusals, UnknownDecision);
admin_refusals!(LabelRefusals, UnknownDecision, BodyTooLarge, UnsupportedMediaType);

/// An explanation.
#[derive(Debug, Object)]
#[oai(rename = "dto.Explanation")]
pub struct ExplanationDto {
    /// The same in sentences.
    pub text: String,
    /// `id`, `bundle`, `file`, `score`, `level`, `action`, `steps` (reasons with points that add up to the score,
    /// each with the line and the facts that led to it), `core`, `likelihood` (`value`, `points`, and the `shares` of
    /// each feature that add up to the value; `null` without that signal), `shadow`, `failure`.
    pub explanation: Any<Value>,
}

/// A person's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename = "dto.Verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// It was the user.
    Good,
    /// It was not.
    Bad,
}

/// A label.
#[derive(Object)]
#[oai(rename = "dto.LabelRequest")]
pub struct LabelRequest {
    /// Good or bad.
    pub verdict: Verdict,
}

fn event(text: &str) -> Result<EventId, Problem> {
    EventId::from_str(text)
        .map_err(|_| Problem::new(E::UnknownDecision, "no decision is kept under this identifier"))
}

#[OpenApi]
impl AdminDecisionsApi {
    /// Why a sign-in was decided as it was
    ///
    /// With the facts that were read for each reason. Addresses, agents and device identifiers are not kept.
    #[oai(
        path = "/admin/sign-ins/:sign_in_id/explain",
        method = "get",
        tag = "Tag::Administration",
        operation_id = "explainSignIn"
    )]
    async fn explain(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// The sign-in, `evt_…`.
        sign_in_id: Path<String>,
    ) -> Reply<ExplanationDto, ExplainRefusals> {
        let answer = async {
            let leave = self.0.in_tenant(request, &auth, Verb::Read, Resource::SignIns).await?;
            let explained = self.0.policies.explain(event(&sign_in_id.0)?, &Scope::Tenant(leave.tenant)).await;
            let explained = explained.map_err(|e| self.0.policy_refused(&e))?;
            Ok(ExplanationDto { text: explained.to_text(), explanation: Any(explained.to_json()) })
        };
        answer.await.into()
    }

    /// Label a sign-in
    ///
    /// A replay tells of candidates what they would have done with disputed sign-ins. Nothing is learned from it
    /// silently.
    #[oai(
        path = "/admin/sign-ins/:sign_in_id/label",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "labelSignIn"
    )]
    async fn label(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// The sign-in, `evt_…`.
        sign_in_id: Path<String>,
        body: Body<LabelRequest>,
    ) -> Reply<MessageResponse, LabelRefusals> {
        let answer = async {
            let leave = self.0.in_tenant(request, &auth, Verb::Change, Resource::SignIns).await?;
            let (id, bad) = (event(&sign_in_id.0)?, body.0.verdict == Verdict::Bad);
            let author = self.0.author(&leave.permit);
            let labelled = self.0.policies.label(id, &Scope::Tenant(leave.tenant), bad, author).await;
            labelled.map_err(|e| self.0.policy_refused(&e))?;
            Ok(MessageResponse::new("the sign-in is labelled", self.0.clock.now()))
        };
        answer.await.into()
    }
}

pub(super) struct MySignInsApi(pub Arc<State>);

macro_rules! my_refusals {
    ($name:ident $(, $more:ident)*) => {
        pub(super) struct $name;
        impl Refusals for $name {
            const CODES: &'static [E] = &[
                E::MissingAccessToken,
                E::InvalidAccessToken,
                E::AccessTokenExpired,
                E::SessionEnded,
                E::AccountDisabled,
                E::AccountLocked,
                E::UnknownTenant,
                E::StoreUnavailable,
                E::RequestTimeout,
                $(E::$more,)*
            ];
        }
    };
}

my_refusals!(MySignInsRefusals);
my_refusals!(DisputeRefusals, UnknownDecision, MalformedRequest, BodyTooLarge, UnsupportedMediaType);

/// How a sign-in ended.
#[derive(Debug, Clone, Copy, Enum)]
#[oai(rename = "dto.SignInEnd", rename_all = "snake_case")]
pub enum EndWord {
    /// Without a second factor.
    SignedIn,
    /// After a second factor.
    MfaPassed,
    /// A second factor was asked for.
    Challenged,
    /// A wrong code.
    MfaFailed,
    /// Denied by the rules.
    Denied,
    /// Refused for another cause.
    Refused,
}

impl From<PastEnd> for EndWord {
    fn from(end: PastEnd) -> Self {
        match end {
            PastEnd::SignedIn => Self::SignedIn,
            PastEnd::MfaPassed => Self::MfaPassed,
            PastEnd::Challenged => Self::Challenged,
            PastEnd::MfaFailed => Self::MfaFailed,
            PastEnd::Denied => Self::Denied,
            PastEnd::Refused => Self::Refused,
        }
    }
}

/// One of the user's sign-ins.
#[derive(Debug, Object)]
#[oai(rename = "dto.MySignIn", skip_serializing_if_is_none)]
pub struct MySignIn {
    /// `evt_…`.
    pub id: String,
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// With which provider.
    pub provider: String,
    /// How it ended.
    pub end: EndWord,
    /// The country, ISO 3166-1 alpha-2, when it is known.
    pub country: Option<String>,
}

/// The user's sign-ins, newest first.
#[derive(Debug, Object)]
#[oai(rename = "dto.MySignIns")]
pub struct MySignIns {
    /// At most 50.
    pub items: Vec<MySignIn>,
}

#[OpenApi]
impl MySignInsApi {
    /// The user's sign-ins
    ///
    /// The last 50, failed ones too.
    #[oai(path = "/auth/me/sign-ins", method = "get", tag = "Tag::Me", operation_id = "listMySignIns")]
    async fn list(&self, request: &Request, auth: BearerAuth) -> Reply<MySignIns, MySignInsRefusals> {
        let answer = async {
            let living = self.0.signed_in(request, Some(&auth)).await?;
            let found = self.0.policies.store.sign_ins_of(living.user.id, 50).await;
            let found = found.map_err(|error| self.0.refused(E::StoreUnavailable, &error))?;
            let item = |past: crate::policy::OwnSignIn| MySignIn {
                id: past.id.to_string(),
                at: past.at.to_rfc3339(),
                provider: past.provider,
                end: past.end.into(),
                country: past.country,
            };
            Ok(MySignIns { items: found.into_iter().map(item).collect() })
        };
        answer.await.into()
    }

    /// Say whether a sign-in was yours
    ///
    /// "This was not me" is kept for the administrators, and counts when they compare policies. It does not end
    /// sessions by itself.
    #[oai(
        path = "/auth/me/sign-ins/:sign_in_id/label",
        method = "post",
        tag = "Tag::Me",
        operation_id = "labelMySignIn"
    )]
    async fn label(
        &self,
        request: &Request,
        auth: BearerAuth,
        /// The sign-in, `evt_…`.
        sign_in_id: Path<String>,
        body: Body<LabelRequest>,
    ) -> Reply<MessageResponse, DisputeRefusals> {
        let answer = async {
            let living = self.0.signed_in(request, Some(&auth)).await?;
            let now = self.0.clock.now();
            let tenant = living.user.tenant.clone();
            let author = Author {
                event: EventId::generate(now, &*self.0.entropy),
                at: now,
                actor: Actor::User(living.user.id),
                tenant: Some(tenant.clone()),
                request: None,
            };
            let (id, bad) = (event(&sign_in_id.0)?, body.0.verdict == Verdict::Bad);
            let labelled = self.0.policies.label(id, &Scope::Tenant(tenant), bad, author).await;
            labelled.map_err(|e| self.0.policy_refused(&e))?;
            Ok(MessageResponse::new("thank you, it is kept", now))
        };
        answer.await.into()
    }
}
