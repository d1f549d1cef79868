//! Policies: kept, checked, tried, compared, activated and taken back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use poem::Request;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};
use poem_openapi::types::Any;
use serde_json::{Value, json};

use super::admin::{AdminAuth, admin_refusals};
use super::admin_policy_dto::{
    ActivateRequest, ActivationDto, ActivationsDto, BundleDto, BundlesDto, DraftRequest, ReplayRequest, ReportDto,
    RollbackRequest, ShadowRequest, SimulateRequest, StatusDto,
};
use super::body::{Body, LateBody};
use super::dto::MessageResponse;
use super::problem::Problem;
use super::reply::Reply;
use super::text::Text;
use super::{State, Tag};
use crate::admin::access::{Permit, Resource, Verb};
use crate::codes::ErrorCode as E;
use crate::policy::bundle::BUNDLE_BYTES;
use crate::policy::check::FileLines;
use crate::policy::diff::unified;
use crate::policy::service::PolicyError;
use crate::policy::{BundleInfo, BundleState, Scope};

/// The greatest body that brings a bundle: twice what the files may have, since line ends and quotes are escaped.
const DRAFT_LIMIT_BYTES: usize = 2 * BUNDLE_BYTES;
/// What a replay may take, well below what a request may.
const REPLAY_TIME: Duration = Duration::from_secs(20);

pub(super) struct AdminPoliciesApi(pub Arc<State>);

admin_refusals!(PoliciesRefusals);
admin_refusals!(OneRefusals, UnknownPolicy, PolicyUnusable);
admin_refusals!(DraftRefusals, PolicyUnusable, PolicySignatureRefused, BodyTooLarge, UnsupportedMediaType);
admin_refusals!(
    ShadowRefusals,
    UnknownPolicy,
    PolicyUnusable,
    PolicySignatureRefused,
    BodyTooLarge,
    UnsupportedMediaType
);
admin_refusals!(TryRefusals, UnknownPolicy, PolicyUnusable, BodyTooLarge, UnsupportedMediaType);
admin_refusals!(
    ActivateRefusals,
    UnknownPolicy,
    PolicyUnusable,
    PolicySignatureRefused,
    PolicyNotPassed,
    PolicyNothingBefore,
    BodyTooLarge,
    UnsupportedMediaType
);

impl State {
    /// Leave for policies of the request's tenant or, with `everywhere`, of all of them.
    async fn on_policies(
        &self,
        request: &Request,
        auth: &AdminAuth,
        verb: Verb,
        everywhere: Option<bool>,
    ) -> Result<(Permit, Scope), Problem> {
        if everywhere == Some(true) {
            return Ok((self.on_server(request, auth, verb, Resource::Policies).await?, Scope::All));
        }
        let leave = self.in_tenant(request, auth, verb, Resource::Policies).await?;
        Ok((leave.permit, Scope::Tenant(leave.tenant)))
    }

    /// Runs a trial in a task of its own: whoever hangs up does not leave one without its record.
    async fn to_the_end<T: Send + 'static>(
        &self,
        trial: impl Future<Output = Result<T, PolicyError>> + Send + 'static,
    ) -> Result<T, Problem> {
        let ran = tokio::spawn(trial).await;
        let ran = ran.map_err(|_| Problem::new(E::InternalError, "the trial could not be finished"))?;
        ran.map_err(|error| self.policy_refused(&error))
    }

    pub(super) fn policy_refused(&self, error: &PolicyError) -> Problem {
        let code = match error {
            PolicyError::Bundle(_) | PolicyError::Unusable(_) | PolicyError::NameTaken(_) => E::PolicyUnusable,
            PolicyError::TooManyCandidates => E::MalformedRequest,
            PolicyError::Signature(_) => E::PolicySignatureRefused,
            PolicyError::Gate(_) => E::PolicyNotPassed,
            PolicyError::UnknownBundle(_) => E::UnknownPolicy,
            PolicyError::UnknownDecision(_) => E::UnknownDecision,
            PolicyError::NothingBefore(_) => E::PolicyNothingBefore,
            PolicyError::Store(_) => E::StoreUnavailable,
        };
        self.refused(code, error)
    }
}

fn signature(text: &str) -> Result<Vec<u8>, Problem> {
    let decoded = BASE64.decode(text.trim().as_bytes());
    decoded.map_err(|_| Problem::new(E::PolicySignatureRefused, "signature is 64 bytes in base64"))
}

fn note(note: Option<Text>) -> Result<String, Problem> {
    let note = note.map(|text| text.0).unwrap_or_default();
    if note.len() > 500 || note.chars().any(char::is_control) {
        return Err(Problem::new(E::MalformedRequest, "note is at most 500 bytes without control characters"));
    }
    Ok(note)
}

#[OpenApi]
impl AdminPoliciesApi {
    /// Kept bundles
    ///
    /// Those that the tenant can have, newest first, with their states.
    #[oai(path = "/admin/policies", method = "get", tag = "Tag::Administration", operation_id = "listPolicies")]
    async fn list(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// `true`: of all tenants, for a key of all tenants.
        everywhere: Query<Option<bool>>,
    ) -> Reply<BundlesDto, PoliciesRefusals> {
        let answer = async {
            let (_, scope) = self.0.on_policies(request, &auth, Verb::Read, everywhere.0).await?;
            let versions = self.0.policies.versions(&scope).await.map_err(|e| self.0.policy_refused(&e))?;
            let item = |(info, state): (BundleInfo, BundleState)| BundleDto {
                state: Some(state.into()),
                ..BundleDto::from(info)
            };
            Ok(BundlesDto { items: versions.into_iter().map(item).collect() })
        };
        answer.await.into()
    }

    /// Keep a draft
    ///
    /// A bundle never changes; the same files again give the same id. They must compile. Nothing becomes
    /// active. Where the configuration asks for signatures, the draft needs one. The body has at most 1 MiB, of which the
    /// files take at most 512 KiB; it is read once the admin key is accepted.
    #[oai(path = "/admin/policies", method = "post", tag = "Tag::Administration", operation_id = "draftPolicy")]
    async fn draft(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// `true`: for all tenants, with a key of all tenants.
        everywhere: Query<Option<bool>>,
        body: LateBody<DraftRequest>,
    ) -> Reply<BundleDto, DraftRefusals> {
        let answer = async {
            let (permit, scope) = self.0.on_policies(request, &auth, Verb::Change, everywhere.0).await?;
            let draft = body.read(DRAFT_LIMIT_BYTES, request).await?;
            let files: BTreeMap<String, Arc<str>> =
                draft.files.into_iter().map(|(name, text)| (name, text.0.into())).collect();
            let note = note(draft.note)?;
            let signature = draft.signature.map(|text| signature(&text.0)).transpose()?;
            let kept = self.0.policies.draft(files, signature, scope, &note, self.0.author(&permit)).await;
            Ok(kept.map_err(|e| self.0.policy_refused(&e))?.into())
        };
        answer.await.into()
    }

    /// What is active
    ///
    /// For all tenants and for this one, how far each server has come, and what candidates did.
    #[oai(
        path = "/admin/policies/status",
        method = "get",
        tag = "Tag::Administration",
        operation_id = "policyStatus"
    )]
    async fn status(&self, request: &Request, auth: AdminAuth) -> Reply<StatusDto, PoliciesRefusals> {
        let answer = async {
            let (_, scope) = self.0.on_policies(request, &auth, Verb::Read, None).await?;
            let status = self.0.policies.status(&scope).await.map_err(|e| self.0.policy_refused(&e))?;
            Ok(status.into())
        };
        answer.await.into()
    }

    /// Activations
    ///
    /// Newest first. Going back is an activation too.
    #[oai(
        path = "/admin/policies/activations",
        method = "get",
        tag = "Tag::Administration",
        operation_id = "listPolicyActivations"
    )]
    async fn activations(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// `true`: of all tenants, for a key of all tenants.
        everywhere: Query<Option<bool>>,
    ) -> Reply<ActivationsDto, PoliciesRefusals> {
        let answer = async {
            let (_, scope) = self.0.on_policies(request, &auth, Verb::Read, everywhere.0).await?;
            let all = self.0.policies.activations(&scope).await.map_err(|e| self.0.policy_refused(&e))?;
            Ok(ActivationsDto { items: all.into_iter().map(Into::into).collect() })
        };
        answer.await.into()
    }

    /// Check a bundle
    ///
    /// Runs every script over some hundred generated sign-ins: every word of every fact, every "not known".
    #[oai(
        path = "/admin/policies/:policy_id/check",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "checkPolicy"
    )]
    async fn check(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// The bundle, `pol_…`.
        policy_id: Path<String>,
    ) -> Reply<ReportDto, OneRefusals> {
        let answer = async {
            let (permit, scope) = self.0.on_policies(request, &auth, Verb::Try, None).await?;
            let (state, author) = (Arc::clone(&self.0), self.0.author(&permit));
            let report = async move { state.policies.check(&policy_id.0, &scope, author).await };
            let report = self.0.to_the_end(report).await?;
            let passed = report.passed();
            Ok(ReportDto { passed, report: Any(serde_json::to_value(report).unwrap_or_default()) })
        };
        answer.await.into()
    }

    /// Run a bundle's cases
    ///
    /// The test files beside the scripts, with the share of the reasons that they give.
    #[oai(
        path = "/admin/policies/:policy_id/test",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "testPolicy"
    )]
    async fn test(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// The bundle, `pol_…`.
        policy_id: Path<String>,
    ) -> Reply<ReportDto, OneRefusals> {
        let answer = async {
            let (permit, scope) = self.0.on_policies(request, &auth, Verb::Try, None).await?;
            let (state, author) = (Arc::clone(&self.0), self.0.author(&permit));
            let cases = async move { state.policies.test(&policy_id.0, &scope, author).await };
            let cases = self.0.to_the_end(cases).await?;
            let passed = cases.failed.is_empty() && cases.cases > 0;
            let report = json!({
                "cases": cases.cases, "failed": cases.failed, "reason_coverage_percent": cases.reason_coverage,
                "wanted_coverage_percent": cases.wanted_coverage, "lines": FileLines::to_json(&cases.lines),
            });
            Ok(ReportDto { passed, report: Any(report) })
        };
        answer.await.into()
    }

    /// Try a bundle on a sign-in that did not happen
    ///
    /// Starts from an ordinary sign-in; only differences are given. The report is an explanation.
    #[oai(
        path = "/admin/policies/:policy_id/simulate",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "simulatePolicy"
    )]
    async fn simulate(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// The bundle, `pol_…`.
        policy_id: Path<String>,
        body: Body<SimulateRequest>,
    ) -> Reply<ReportDto, TryRefusals> {
        let answer = async {
            let leave = self.0.in_tenant(request, &auth, Verb::Try, Resource::Policies).await?;
            let Value::Object(set) = body.0.set.0 else {
                return Err(Problem::new(E::MalformedRequest, "set is an object: fact by path"));
            };
            let (state, author) = (Arc::clone(&self.0), self.0.author(&leave.permit));
            let tried = async move { state.policies.simulate(&policy_id.0, &leave.tenant, set, author).await };
            let explanation = self.0.to_the_end(tried).await?;
            let passed = explanation.decision.trace.failure.is_none();
            Ok(ReportDto { passed, report: Any(explanation.to_json()) })
        };
        answer.await.into()
    }

    /// Run a bundle over recorded sign-ins
    ///
    /// What it would have decided otherwise than the active one: rates before and after, who would newly be
    /// asked and how often, causes, disputed sign-ins. Facts are as they were; histories are not simulated
    /// anew. It ends after 20 s, with the oldest sign-ins looked at; `complete` in the report says so. The
    /// command `policy replay` has no such limit.
    #[oai(
        path = "/admin/policies/:policy_id/replay",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "replayPolicy"
    )]
    async fn replay(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// The bundle, `pol_…`.
        policy_id: Path<String>,
        body: Body<ReplayRequest>,
    ) -> Reply<ReportDto, TryRefusals> {
        let answer = async {
            let leave = self.0.in_tenant(request, &auth, Verb::Try, Resource::Policies).await?;
            let (state, author) = (Arc::clone(&self.0), self.0.author(&leave.permit));
            let since = self.0.clock.now().minus(Duration::from_secs(body.0.since_s));
            let report = async move {
                let scope = Scope::Tenant(leave.tenant.clone());
                let (candidate, _) = state.policies.bundle(&policy_id.0, &scope).await?;
                let limit = Some(REPLAY_TIME);
                state.policies.replay(&leave.tenant, &candidate, since, limit, &|_, _| {}, author).await
            };
            let report = self.0.to_the_end(report).await?;
            Ok(ReportDto { passed: report.faults[1] == 0, report: Any(report.to_json()) })
        };
        answer.await.into()
    }

    /// What differs between two bundles
    ///
    /// In the unified form, file by file.
    #[oai(
        path = "/admin/policies/:policy_id/diff",
        method = "get",
        tag = "Tag::Administration",
        operation_id = "diffPolicy"
    )]
    async fn diff(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// The newer bundle, `pol_…`.
        policy_id: Path<String>,
        /// The older one. Absent: the one that decides for the tenant now.
        from: Query<Option<String>>,
    ) -> Reply<ReportDto, OneRefusals> {
        let answer = async {
            let leave = self.0.in_tenant(request, &auth, Verb::Read, Resource::Policies).await?;
            let scope = Scope::Tenant(leave.tenant.clone());
            let refused = |e| self.0.policy_refused(&e);
            let (new, _) = self.0.policies.bundle(&policy_id.0, &scope).await.map_err(refused)?;
            let old = match from.0.filter(|id| !id.is_empty()) {
                Some(id) => self.0.policies.bundle(&id, &scope).await.map_err(refused)?.0,
                None => self.0.policies.deciding(&leave.tenant).await.map_err(refused)?,
            };
            let text = unified(&old, &new);
            Ok(ReportDto { passed: text.is_empty(), report: Any(json!({"from": old.id(), "diff": text})) })
        };
        answer.await.into()
    }

    /// Make a bundle active
    ///
    /// Once it passes the check, its cases and the coverage of reasons. Servers follow within 2 s.
    #[oai(
        path = "/admin/policies/:policy_id/activate",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "activatePolicy"
    )]
    async fn activate(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// The bundle, `pol_…`.
        policy_id: Path<String>,
        /// `true`: for all tenants without one of their own, with a key of all tenants.
        everywhere: Query<Option<bool>>,
        body: Body<ActivateRequest>,
    ) -> Reply<ActivationDto, ActivateRefusals> {
        let answer = async {
            let (permit, scope) = self.0.on_policies(request, &auth, Verb::Change, everywhere.0).await?;
            let note = note(body.0.note)?;
            let done = self.0.policies.activate(&policy_id.0, scope, &note, self.0.author(&permit)).await;
            Ok(done.map_err(|e| self.0.policy_refused(&e))?.into())
        };
        answer.await.into()
    }

    /// Go back
    ///
    /// To the bundle before, or to one that was active once. No gate stands before it.
    #[oai(
        path = "/admin/policies/rollback",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "rollBackPolicy"
    )]
    async fn roll_back(
        &self,
        request: &Request,
        auth: AdminAuth,
        /// `true`: for all tenants without one of their own, with a key of all tenants.
        everywhere: Query<Option<bool>>,
        body: Body<RollbackRequest>,
    ) -> Reply<ActivationDto, ActivateRefusals> {
        let answer = async {
            let (permit, scope) = self.0.on_policies(request, &auth, Verb::Change, everywhere.0).await?;
            let note = note(body.0.note)?;
            let to = body.0.bundle.map(|text| text.0).filter(|id| !id.is_empty());
            let author = self.0.author(&permit);
            let done = self.0.policies.roll_back(scope, to.as_deref(), &note, author).await;
            Ok(done.map_err(|e| self.0.policy_refused(&e))?.into())
        };
        answer.await.into()
    }

    /// Set the candidates of the tenant
    ///
    /// They run beside the active bundle after the answer; what they would have decided is counted and never
    /// seen by users.
    #[oai(
        path = "/admin/policies/shadow",
        method = "post",
        tag = "Tag::Administration",
        operation_id = "shadowPolicies"
    )]
    async fn shadow(
        &self,
        request: &Request,
        auth: AdminAuth,
        body: Body<ShadowRequest>,
    ) -> Reply<MessageResponse, ShadowRefusals> {
        let answer = async {
            let leave = self.0.in_tenant(request, &auth, Verb::Change, Resource::Policies).await?;
            let bundles = body.0.bundles.into_iter().map(|id| id.0).collect();
            let set = self.0.policies.shadow(&leave.tenant, bundles, self.0.author(&leave.permit)).await;
            set.map_err(|e| self.0.policy_refused(&e))?;
            Ok(MessageResponse::new("the candidates are set", self.0.clock.now()))
        };
        answer.await.into()
    }
}
