//! The shapes of the operations on policies.

use std::collections::HashMap;

use poem_openapi::types::Any;
use poem_openapi::{Enum, Object};
use serde_json::Value;

use super::text::Text;
use crate::policy::service::Status;
use crate::policy::{Activation, BundleInfo, BundleState};

/// How far a bundle has come.
#[derive(Debug, Clone, Copy, Enum)]
#[oai(rename = "dto.PolicyState", rename_all = "lowercase")]
pub enum StateWord {
    /// Kept, nothing else.
    Draft,
    /// Passed the gates.
    Checked,
    /// Runs beside the active one for somebody.
    Shadow,
    /// Active for somebody.
    Active,
    /// Was active.
    Retired,
}

impl From<BundleState> for StateWord {
    fn from(state: BundleState) -> Self {
        match state {
            BundleState::Draft => Self::Draft,
            BundleState::Checked => Self::Checked,
            BundleState::Shadow => Self::Shadow,
            BundleState::Active => Self::Active,
            BundleState::Retired => Self::Retired,
        }
    }
}

/// A kept bundle.
#[derive(Debug, Object)]
#[oai(rename = "dto.PolicyBundle", skip_serializing_if_is_none)]
pub struct BundleDto {
    /// `pol_` and 16 hex digits of the SHA-256 over all files.
    pub id: String,
    /// The tenant that can have it. Absent: every tenant.
    pub tenant: Option<String>,
    /// How far it has come. Absent where it is not looked up.
    pub state: Option<StateWord>,
    /// When it was kept, RFC 3339 in UTC.
    pub created_at: String,
    /// Who kept it.
    pub created_by: String,
    /// Why.
    pub note: String,
    /// It came with a signature by a key that counted then.
    pub signed: bool,
}

impl From<BundleInfo> for BundleDto {
    fn from(info: BundleInfo) -> Self {
        Self {
            id: info.id,
            tenant: info.owner.tenant().map(ToString::to_string),
            state: None,
            created_at: info.created_at.to_rfc3339(),
            created_by: info.created_by,
            note: info.note,
            signed: info.signature.is_some(),
        }
    }
}

/// Kept bundles, newest first.
#[derive(Debug, Object)]
#[oai(rename = "dto.PolicyBundles")]
pub struct BundlesDto {
    /// The bundles, at most 200.
    pub items: Vec<BundleDto>,
}

/// Files to keep.
#[derive(Object)]
#[oai(rename = "dto.PolicyDraftRequest")]
pub struct DraftRequest {
    /// Text by name: `policy.toml`, `reasons.toml`, `risk/_default.rhai`, `mapping/default.rhai`, …
    pub files: HashMap<String, Text>,
    /// Why.
    pub note: Option<Text>,
    /// Ed25519 over the bundle, in base64, as `countersign policy sign` prints it.
    pub signature: Option<Text>,
}

/// One activation.
#[derive(Debug, Object)]
#[oai(rename = "dto.PolicyActivation", skip_serializing_if_is_none)]
pub struct ActivationDto {
    /// Its number.
    pub seq: i64,
    /// The tenant. Absent: every tenant without one of its own.
    pub tenant: Option<String>,
    /// The bundle. Absent: none of its own any more.
    pub bundle: Option<String>,
    /// The one before.
    pub previous: Option<String>,
    /// Who.
    pub actor: String,
    /// Why.
    pub note: String,
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// It went back to a bundle that was active before.
    pub goes_back: bool,
}

impl From<Activation> for ActivationDto {
    fn from(a: Activation) -> Self {
        Self {
            seq: a.seq,
            tenant: a.scope.tenant().map(ToString::to_string),
            bundle: a.bundle,
            previous: a.previous,
            actor: a.actor,
            note: a.note,
            at: a.at.to_rfc3339(),
            goes_back: a.goes_back,
        }
    }
}

/// Activations, newest first.
#[derive(Debug, Object)]
#[oai(rename = "dto.PolicyActivations")]
pub struct ActivationsDto {
    /// The activations, at most 200.
    pub items: Vec<ActivationDto>,
}

/// What a server says of the activations.
#[derive(Debug, Object)]
#[oai(rename = "dto.PolicyNode", skip_serializing_if_is_none)]
pub struct NodeDto {
    /// The process.
    pub node: String,
    /// The last activation that it follows.
    pub seq: i64,
    /// The last one that it is ready for: fetched, verified, compiled and tried.
    pub ready: i64,
    /// Why it does not follow the newest one.
    pub error: Option<String>,
    /// When it said so.
    pub seen_at: String,
}

/// A candidate that runs beside the active bundle.
#[derive(Debug, Object)]
#[oai(rename = "dto.PolicyShadow", skip_serializing_if_is_none)]
pub struct ShadowDto {
    /// The candidate.
    pub bundle: String,
    /// Since when.
    pub since: String,
    /// Sign-ins that it saw.
    pub evaluated: u64,
    /// Those that it would have decided otherwise.
    pub differed: u64,
    /// Its script errors.
    pub script_errors: u64,
    /// Days for which it has run, when they are more than 30: activate it or take it away.
    pub overdue_days: Option<u64>,
}

/// The last time that servers changed to new activations together.
#[derive(Debug, Object)]
#[oai(rename = "dto.PolicySwitch")]
pub struct SwitchDto {
    /// Up to this activation. Later ones come into force when every server is ready for them, or after 10 s.
    pub seq: i64,
    /// When.
    pub at: String,
    /// Servers that were not ready, and were not waited for any longer.
    pub laggards: Vec<String>,
}

/// What is active.
#[derive(Debug, Object)]
#[oai(rename = "dto.PolicyStatus", skip_serializing_if_is_none)]
pub struct StatusDto {
    /// The last activation for all, and the tenant's own.
    pub active: Vec<ActivationDto>,
    /// The policies folder, which counts where nothing was activated.
    pub folder: Option<String>,
    /// The servers.
    pub nodes: Vec<NodeDto>,
    /// What has come into force. Absent: nothing was activated.
    pub switch: Option<SwitchDto>,
    /// The tenant's candidates.
    pub shadows: Vec<ShadowDto>,
}

impl From<Status> for StatusDto {
    fn from(status: Status) -> Self {
        let nodes = status.nodes.into_iter().map(|n| NodeDto {
            node: n.node,
            seq: n.seq,
            ready: n.ready,
            error: n.error,
            seen_at: n.seen_at.to_rfc3339(),
        });
        let at = status.at;
        let shadows = status.shadows.into_iter().map(|s| ShadowDto {
            overdue_days: s.overdue_days(at),
            bundle: s.bundle,
            since: s.since.to_rfc3339(),
            evaluated: s.counts.evaluated,
            differed: s.counts.differed,
            script_errors: s.counts.faults,
        });
        Self {
            active: status.in_force.into_iter().map(Into::into).collect(),
            folder: status.folder,
            nodes: nodes.collect(),
            switch: status.switch.map(|s| SwitchDto {
                seq: s.seq,
                at: s.at.to_rfc3339(),
                laggards: s.laggards.into_iter().map(|laggard| laggard.node).collect(),
            }),
            shadows: shadows.collect(),
        }
    }
}

/// A report for programs; `policies/README.md` shows the same for people.
#[derive(Debug, Object)]
#[oai(rename = "dto.PolicyReport")]
pub struct ReportDto {
    /// Whether nothing was found.
    pub passed: bool,
    /// The report.
    pub report: Any<Value>,
}

/// Facts of a sign-in that did not happen.
#[derive(Object)]
#[oai(rename = "dto.PolicySimulateRequest")]
pub struct SimulateRequest {
    /// What differs from an ordinary sign-in, by the path that scripts read it by. `"unknown"`: not known.
    pub set: Any<Value>,
}

/// Which sign-ins.
#[derive(Object)]
#[oai(rename = "dto.PolicyReplayRequest")]
pub struct ReplayRequest {
    /// How far back, in seconds.
    pub since_s: u64,
}

/// Why it is activated.
#[derive(Object)]
#[oai(rename = "dto.PolicyActivateRequest")]
pub struct ActivateRequest {
    /// Why.
    pub note: Option<Text>,
}

/// Where to go back to.
#[derive(Object)]
#[oai(rename = "dto.PolicyRollbackRequest")]
pub struct RollbackRequest {
    /// A bundle that was active once. Absent: the one before.
    pub bundle: Option<Text>,
    /// Why.
    pub note: Option<Text>,
}

/// The candidates.
#[derive(Object)]
#[oai(rename = "dto.PolicyShadowRequest")]
pub struct ShadowRequest {
    /// At most two; none takes all away.
    pub bundles: Vec<Text>,
}
