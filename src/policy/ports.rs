//! What the life of policies needs of the world.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::bundle::Bundle;
use super::check::{CaseSummary, CheckReport};
use super::explain::{ShadowOutcome, StoredDecision};
use super::switch::Switch;
use super::{Activation, BundleInfo, Label, NodeState, OwnSignIn, Scope, Shadow, ShadowCounts, ShadowDifference};
use crate::admin::audit::Author;
use crate::clock::UnixTime;
use crate::ids::{EventId, TenantId, UserId};
use crate::signin::facts::Facts;
use crate::signin::ports::StoreError;
use crate::signin::rules::RuleRun;

/// An activation to be added.
#[derive(Debug, Clone)]
pub struct NewActivation {
    /// For whom.
    pub scope: Scope,
    /// The bundle; `None`: none of its own.
    pub bundle: Option<String>,
    /// Why.
    pub note: String,
    /// Whether it goes back ([`Activation::goes_back`]).
    pub goes_back: bool,
    /// Who, when, by which request.
    pub author: Author,
    /// Only if this still is the scope's newest activation; 0: if there is none. `None`: in any case.
    pub after: Option<i64>,
}

/// Bundles, activations, shadows and labels.
#[async_trait]
pub trait PolicyStore: Send + Sync {
    /// Keeps a bundle. `false`: another one has this name, and nothing was kept. The same one again is
    /// fine, and keeps its first owner; a signature that comes with it is kept.
    async fn put_bundle(&self, bundle: Arc<Bundle>, info: BundleInfo, author: Author) -> Result<bool, StoreError>;
    /// A bundle whose content still is what its name says.
    async fn find_bundle(&self, id: &str) -> Result<Option<(Bundle, BundleInfo)>, StoreError>;
    /// Bundles, newest first, of an owner or of all.
    async fn bundles(&self, owner: Option<&TenantId>, limit: i64) -> Result<Vec<BundleInfo>, StoreError>;
    /// Notes that a bundle passed the gates.
    async fn mark_checked(&self, id: &str, at: UnixTime) -> Result<(), StoreError>;
    /// Adds an activation; the row before it becomes its `previous`. `None`: another one came first
    /// ([`NewActivation::after`]), and nothing was added.
    async fn activate(&self, new: NewActivation) -> Result<Option<Activation>, StoreError>;
    /// Activations of a scope or of all, newest first.
    async fn activations(&self, scope: Option<&Scope>, limit: i64) -> Result<Vec<Activation>, StoreError>;
    /// The last activation of every scope, whether nodes have come that far or not.
    async fn in_force(&self) -> Result<Vec<Activation>, StoreError> {
        self.in_force_at(i64::MAX).await
    }
    /// The last activation of every scope up to this one.
    async fn in_force_at(&self, seq: i64) -> Result<Vec<Activation>, StoreError>;
    /// The number of the last activation, and of the last one that came into force; 0: none.
    async fn marks(&self) -> Result<(i64, i64), StoreError>;
    /// Activations up to one come into force, unless they have. Never goes back.
    async fn switch(&self, switch: Switch) -> Result<(), StoreError>;
    /// The last switch.
    async fn last_switch(&self) -> Result<Option<Switch>, StoreError>;
    /// Says how far this node has come, and forgets nodes that have been silent for a minute.
    async fn acknowledge(&self, state: NodeState) -> Result<(), StoreError>;
    /// Forgets a node that ends: nobody needs to wait for it.
    async fn leave(&self, node: &str) -> Result<(), StoreError>;
    /// Nodes that live.
    async fn nodes(&self) -> Result<Vec<NodeState>, StoreError>;
    /// Replaces the candidates of a tenant.
    async fn set_shadows(&self, tenant: &TenantId, bundles: Vec<String>, author: Author) -> Result<(), StoreError>;
    /// Candidates with their counts, of a tenant or of all.
    async fn shadows(&self, tenant: Option<&TenantId>) -> Result<Vec<Shadow>, StoreError>;
    /// Adds to the counts, and keeps differences.
    async fn add_shadow(
        &self,
        counts: Vec<(TenantId, String, ShadowCounts)>,
        differences: Vec<ShadowDifference>,
    ) -> Result<(), StoreError>;
    /// What candidates would have decided of one sign-in.
    async fn shadow_outcomes(&self, sign_in: EventId) -> Result<Vec<ShadowOutcome>, StoreError>;
    /// The newest sign-ins of a user.
    async fn sign_ins_of(&self, user: UserId, limit: i64) -> Result<Vec<OwnSignIn>, StoreError>;
    /// Keeps a label, in place of the same person's earlier one.
    async fn put_label(&self, label: Label, author: Author) -> Result<(), StoreError>;
    /// Labels of a tenant.
    async fn labels(&self, tenant: &TenantId) -> Result<Vec<Label>, StoreError>;
}

/// Records that are opened where there is time for it.
pub struct DecisionPage {
    /// The last one; the next page begins after it.
    pub last: Option<EventId>,
    /// Opens all of them. Costs processor time.
    pub open: Box<dyn FnOnce() -> Result<Vec<StoredDecision>, StoreError> + Send>,
}

/// Decision records.
#[async_trait]
pub trait Decisions: Send + Sync {
    /// How many there are from a moment on.
    async fn count(&self, tenant: &TenantId, since: UnixTime) -> Result<u64, StoreError>;
    /// Some of them in order, from a moment on or after one of them.
    async fn page(
        &self,
        tenant: &TenantId,
        since: UnixTime,
        after: Option<EventId>,
    ) -> Result<DecisionPage, StoreError>;
    /// One, of this tenant or, for an operator, of any.
    async fn find(&self, tenant: Option<&TenantId>, id: EventId) -> Result<Option<StoredDecision>, StoreError>;
}

/// A bundle that is ready to run.
pub trait PreparedBundle: Send + Sync {
    /// Runs `assess`.
    fn assess(&self, facts: Arc<Facts>) -> RuleRun;
}

/// Runs bundles that are not active, in the sandbox of the active ones.
pub trait PolicyLab: Send + Sync {
    /// Compiles.
    ///
    /// # Errors
    /// The first fault, with file, line and column.
    fn prepare(&self, bundle: &Bundle) -> Result<Arc<dyn PreparedBundle>, String>;
    /// An ordinary sign-in of a tenant, with some facts set by the paths that scripts read them by.
    ///
    /// # Errors
    /// A path that is no fact, or a value that it cannot have.
    fn facts(&self, tenant: &TenantId, set: &Map<String, Value>) -> Result<Facts, String>;
    /// Runs every entry over generated facts. Costs processor time.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    fn check(&self, bundle: &Bundle) -> Result<CheckReport, String>;
    /// Runs the cases beside the scripts.
    ///
    /// # Errors
    /// As [`Self::prepare`], or a test file that cannot be read.
    fn cases(&self, bundle: &Bundle) -> Result<CaseSummary, String>;
}
