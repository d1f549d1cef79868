//! The life of policies: bundles and what is active, what was decided and why, and what another bundle
//! would have decided.
//!
//! Scripts are run behind [`ports::PolicyLab`], rows are kept behind [`ports::PolicyStore`]; here stand
//! the rules. Deliberately absent: a way to change a bundle, and a way to make one active that does not
//! pass the gates.

pub mod bundle;
pub mod check;
pub mod diff;
pub mod explain;
pub mod ports;
pub mod replay;
pub mod service;
pub mod signature;
pub mod switch;
mod trial;

use std::fmt;

use crate::clock::UnixTime;
use crate::ids::{EventId, TenantId, UserId};
use crate::signin::history::PastEnd;

/// For whom a bundle is active. A tenant's own comes before the one for all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Every tenant without one of its own.
    All,
    /// One tenant.
    Tenant(TenantId),
}

impl Scope {
    /// `None`: all.
    #[must_use]
    pub fn of(tenant: Option<TenantId>) -> Self {
        tenant.map_or(Self::All, Self::Tenant)
    }

    /// The tenant, when it is one.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::All => None,
            Self::Tenant(tenant) => Some(tenant),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all tenants"),
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
        }
    }
}

/// One activation. Rows are only added; the last one of a scope is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// Its number, over all scopes.
    pub seq: i64,
    /// For whom.
    pub scope: Scope,
    /// The bundle; `None`: the scope has none of its own any more.
    pub bundle: Option<String>,
    /// What was active before.
    pub previous: Option<String>,
    /// Who did it.
    pub actor: String,
    /// Why.
    pub note: String,
    /// When.
    pub at: UnixTime,
    /// It goes back to a bundle that was active before, and takes off what came after it.
    pub goes_back: bool,
}

/// Where going back leads from the newest of a scope's activations (newest first): to the bundle under
/// the one in force, the folder (`None`) being under all. A bundle that was taken back is not gone back
/// to, so that going back twice goes further back. `None`: there is nothing under it.
#[must_use]
pub fn before(activations: &[Activation]) -> Option<Option<String>> {
    below(activations).into_iter().next()
}

/// All that stands under the bundle in force, nearest first; see [`before`].
#[must_use]
pub fn below(activations: &[Activation]) -> Vec<Option<String>> {
    let mut standing = vec![None];
    for activation in activations.iter().rev() {
        let under = standing.len() - 1;
        match standing[..under].iter().rposition(|bundle| *bundle == activation.bundle) {
            Some(found) if activation.goes_back => standing.truncate(found + 1),
            _ => standing.push(activation.bundle.clone()),
        }
    }
    standing.pop();
    standing.reverse();
    standing
}

/// How far a bundle has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleState {
    /// Kept, nothing else.
    Draft,
    /// Passed the gates.
    Checked,
    /// Evaluated beside the active one for somebody.
    Shadow,
    /// Active for somebody.
    Active,
    /// Was active, and is not any more.
    Retired,
}

impl BundleState {
    /// The word of the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Checked => "checked",
            Self::Shadow => "shadow",
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }
}

/// A kept bundle without its files.
#[derive(Debug, Clone)]
pub struct BundleInfo {
    /// `pol_…`.
    pub id: String,
    /// Whose it is; only this tenant can have it, or with `All` every one.
    pub owner: Scope,
    /// When it was kept.
    pub created_at: UnixTime,
    /// By whom.
    pub created_by: String,
    /// Why.
    pub note: String,
    /// When it passed the gates.
    pub checked_at: Option<UnixTime>,
    /// Its signature; see [`signature`].
    pub signature: Option<Vec<u8>>,
}

/// What a server says of an activation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// The process: random, new at every start.
    pub node: String,
    /// The last activation that it follows.
    pub seq: i64,
    /// The last one that it could follow at once: fetched, verified, compiled, tried.
    pub ready: i64,
    /// Why it does not follow the newest one.
    pub error: Option<String>,
    /// When it said so.
    pub seen_at: UnixTime,
}

/// A person's word on a sign-in.
#[derive(Debug, Clone)]
pub struct Label {
    /// The tenant.
    pub tenant: TenantId,
    /// The sign-in.
    pub sign_in: EventId,
    /// Its user.
    pub user: UserId,
    /// "This was not me".
    pub disputed: bool,
    /// Whether the user says so, and not an administrator.
    pub by_user: bool,
    /// Who.
    pub actor: String,
    /// When.
    pub at: UnixTime,
}

/// A user's own sign-in, as the user sees it.
#[derive(Debug, Clone)]
pub struct OwnSignIn {
    /// The sign-in.
    pub id: EventId,
    /// When.
    pub at: UnixTime,
    /// With which provider.
    pub provider: String,
    /// How it ended.
    pub end: PastEnd,
    /// From which country.
    pub country: Option<String>,
}

/// What a shadowed candidate did beside the active bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShadowCounts {
    /// Sign-ins that it saw.
    pub evaluated: u64,
    /// Those that it would have decided otherwise.
    pub differed: u64,
    /// Its script errors.
    pub faults: u64,
    /// Microseconds of all its runs.
    pub micros: u64,
}

/// A candidate that runs for longer is one that somebody forgot, or dares not activate.
pub const SHADOW_DAYS: u64 = 30;

/// A candidate that runs beside the active bundle of a tenant.
#[derive(Debug, Clone)]
pub struct Shadow {
    /// The tenant.
    pub tenant: TenantId,
    /// The candidate.
    pub bundle: String,
    /// Since when.
    pub since: UnixTime,
    /// What it did.
    pub counts: ShadowCounts,
}

impl Shadow {
    /// Whole days for which it has run, when they are more than [`SHADOW_DAYS`].
    #[must_use]
    pub fn overdue_days(&self, now: UnixTime) -> Option<u64> {
        let days = now.since(self.since).as_secs() / 86_400;
        (days > SHADOW_DAYS).then_some(days)
    }
}

/// A sign-in that a shadowed candidate would have decided otherwise.
#[derive(Debug, Clone)]
pub struct ShadowDifference {
    /// The tenant.
    pub tenant: TenantId,
    /// The candidate.
    pub bundle: String,
    /// The sign-in.
    pub sign_in: EventId,
    /// What was decided.
    pub decided: &'static str,
    /// What the candidate would have decided.
    pub candidate: &'static str,
}
