//! What people do with policies, whichever way they come: the same gates for a command and for a call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::bundle::{Bundle, BundleError};
use super::check::{CaseSummary, CheckReport, GateFindings};
use super::explain::{Explanation, StoredDecision, Trace};
use super::ports::{Decisions, NewActivation, PolicyLab, PolicyStore};
use super::replay::{Comparison, Disputes, ReplayReport};
use super::signature::{SignatureError, Signers};
use super::switch::Switch;
use super::{Activation, BundleInfo, BundleState, Label, NodeState, Scope, Shadow, before};
use crate::admin::audit::{Actor, Author};
use crate::admin::ports::AuditLog;
use crate::clock::{Clock, UnixTime};
use crate::ids::{EventId, TenantId};
use crate::signin::assessment::combine;
use crate::signin::decision::decide_again;
use crate::signin::ports::StoreError;

/// The most candidates of one tenant.
const CANDIDATES: usize = 2;
/// Pages of a replay that are worked on at once.
const WORKERS: usize = 2;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The files make no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A script does not compile, or a file cannot be read.
    #[error("{0}")]
    Unusable(String),
    /// The bundle does not pass the gates.
    #[error("the bundle does not pass: {0}")]
    Gate(GateFindings),
    /// No such bundle, or another tenant's.
    #[error("there is no bundle \"{0}\" here")]
    UnknownBundle(String),
    /// No such decision, or another tenant's.
    #[error("no decision is kept under {0}")]
    UnknownDecision(EventId),
    /// Nothing to go back to.
    #[error("no bundle is active for {0}: there is nothing to go back to")]
    NothingBefore(Scope),
    /// Too many candidates.
    #[error("at most {CANDIDATES} candidates run beside the active policies of a tenant")]
    TooManyCandidates,
    /// Another bundle has this name.
    #[error("another bundle, or another tenant's, is kept under the name {0}; change a line of it")]
    NameTaken(String),
    /// The signature of a bundle is missing or wrong.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The bundle in force that the others are compared with, when no bundle was activated.
pub type Fallback = Arc<dyn Fn() -> Result<Bundle, String> + Send + Sync>;

/// Everything that can be done with policies.
pub struct PolicyService {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Rows.
    pub store: Arc<dyn PolicyStore>,
    /// Where trials are written down.
    pub audit: Arc<dyn AuditLog>,
    /// Decision records.
    pub decisions: Arc<dyn Decisions>,
    /// Runs scripts.
    pub lab: Arc<dyn PolicyLab>,
    /// The folder that is in force where nothing was activated.
    pub folder: Fallback,
    /// Whose signatures count, and for whom one is needed.
    pub signers: Arc<Signers>,
}

/// What is active, and what the nodes say of it.
#[derive(Debug, Clone)]
pub struct Status {
    /// The last activation of each scope that has one.
    pub in_force: Vec<Activation>,
    /// The nodes.
    pub nodes: Vec<NodeState>,
    /// The last time that something came into force.
    pub switch: Option<Switch>,
    /// Candidates.
    pub shadows: Vec<Shadow>,
    /// The identity of the folder, which is in force where nothing was activated.
    pub folder: Option<String>,
    /// When this was asked.
    pub at: UnixTime,
}

fn is_visible(owner: &Scope, scope: &Scope) -> bool {
    match (scope, owner) {
        (Scope::All, _) | (_, Scope::All) => true,
        (scope, owner) => scope == owner,
    }
}

impl PolicyService {
    /// Keeps files as a draft.
    ///
    /// # Errors
    /// When they make no bundle, do not compile, or the store does not answer.
    pub async fn draft(
        &self,
        files: BTreeMap<String, Arc<str>>,
        signature: Option<Vec<u8>>,
        owner: Scope,
        note: &str,
        author: Author,
    ) -> Result<BundleInfo, PolicyError> {
        self.keep(Bundle::new(files)?, signature, owner, note, author).await
    }

    /// Keeps a bundle as a draft. The same one again, with a signature, gives it that signature.
    ///
    /// # Errors
    /// As [`Self::draft`]; when another tenant has the very same; and when its owner needs a signature that is
    /// missing, or one that is told is wrong.
    pub async fn keep(
        &self,
        bundle: Bundle,
        signature: Option<Vec<u8>>,
        owner: Scope,
        note: &str,
        author: Author,
    ) -> Result<BundleInfo, PolicyError> {
        match &signature {
            Some(signature) => self.signers.verify(&bundle, signature)?,
            None => self.signers.check(&owner, &bundle, None)?,
        }
        let bundle = Arc::new(bundle);
        self.in_lab(&bundle, |lab, bundle| lab.prepare(bundle).map(|_| ())).await?;
        let info = BundleInfo {
            id: bundle.id(),
            owner: owner.clone(),
            created_at: author.at,
            created_by: author.actor.to_string(),
            note: note.to_owned(),
            checked_at: None,
            signature,
        };
        let id = info.id.clone();
        if !self.store.put_bundle(bundle, info, author).await? {
            return Err(PolicyError::NameTaken(id));
        }
        let (_, kept) = self.store.find_bundle(&id).await?.ok_or_else(|| PolicyError::UnknownBundle(id.clone()))?;
        // It keeps its first owner, and another tenant has no business with that one's note.
        if is_visible(&kept.owner, &owner) { Ok(kept) } else { Err(PolicyError::NameTaken(id)) }
    }

    /// A bundle that a scope may see: its own, or one for all.
    ///
    /// # Errors
    /// When there is none.
    pub async fn bundle(&self, id: &str, scope: &Scope) -> Result<(Arc<Bundle>, BundleInfo), PolicyError> {
        let unknown = || PolicyError::UnknownBundle(id.to_owned());
        let (bundle, info) = self.store.find_bundle(id).await?.ok_or_else(unknown)?;
        if is_visible(&info.owner, scope) { Ok((Arc::new(bundle), info)) } else { Err(unknown()) }
    }

    /// Runs a bundle over generated facts.
    ///
    /// # Errors
    /// When there is none, or it does not compile.
    pub async fn check(&self, id: &str, scope: &Scope, author: Author) -> Result<CheckReport, PolicyError> {
        let (bundle, _) = self.bundle(id, scope).await?;
        let ran = self.in_lab(&bundle, |lab, bundle| lab.check(bundle)).await;
        self.note(id, author, ran).await
    }

    /// Runs the cases beside a bundle's scripts.
    ///
    /// # Errors
    /// When there is none, or it does not compile.
    pub async fn test(&self, id: &str, scope: &Scope, author: Author) -> Result<CaseSummary, PolicyError> {
        let (bundle, _) = self.bundle(id, scope).await?;
        let ran = self.in_lab(&bundle, |lab, bundle| lab.cases(bundle)).await;
        self.note(id, author, ran).await
    }

    /// Runs a bundle on an ordinary sign-in with some facts set, by the paths that scripts read them by.
    ///
    /// # Errors
    /// When there is no such bundle or fact.
    pub async fn simulate(
        &self,
        id: &str,
        tenant: &TenantId,
        set: Map<String, Value>,
        author: Author,
    ) -> Result<Explanation, PolicyError> {
        let (bundle, _) = self.bundle(id, &Scope::Tenant(tenant.clone())).await?;
        let ran = self.run_simulation(&bundle, tenant, set).await;
        self.note(id, author, ran).await
    }

    async fn run_simulation(
        &self,
        bundle: &Arc<Bundle>,
        tenant: &TenantId,
        set: Map<String, Value>,
    ) -> Result<Explanation, PolicyError> {
        let of = tenant.clone();
        let ran = self.in_lab(bundle, move |lab, bundle| {
            let facts = Arc::new(lab.facts(&of, &set)?);
            Ok((combine(lab.prepare(bundle)?.assess(Arc::clone(&facts))), facts))
        });
        let (assessment, facts) = ran.await?;
        let trace = Trace::of(&assessment, &decide_again(&assessment, &facts));
        let (id, tenant) = (EventId::from_bytes([0; 16]), tenant.clone());
        let decision = StoredDecision { id, tenant, facts: Arc::unwrap_or_clone(facts), trace };
        Ok(Explanation { decision, shadow: Vec::new() })
    }

    /// Runs everything that stands before an activation, and notes that the bundle passed.
    ///
    /// # Errors
    /// With all findings when it does not pass.
    pub async fn gate(&self, id: &str, scope: &Scope) -> Result<(), PolicyError> {
        let (bundle, _) = self.bundle(id, scope).await?;
        let both = |lab: &dyn PolicyLab, bundle: &Bundle| Ok((lab.check(bundle)?, lab.cases(bundle)?));
        let (check, cases) = self.in_lab(&bundle, both).await?;
        let findings = GateFindings::of(&check, &cases);
        if !findings.0.is_empty() {
            return Err(PolicyError::Gate(findings));
        }
        Ok(self.store.mark_checked(id, self.clock.now()).await?)
    }

    /// Makes a bundle active for a scope, once it has passed the gates.
    ///
    /// # Errors
    /// When it does not pass.
    pub async fn activate(
        &self,
        id: &str,
        scope: Scope,
        note: &str,
        author: Author,
    ) -> Result<Activation, PolicyError> {
        self.gate(id, &scope).await?;
        self.check_signature(&scope, Some(id)).await?;
        let (bundle, note) = (Some(id.to_owned()), note.to_owned());
        let new = NewActivation { scope, bundle, note, goes_back: false, author, after: None };
        let made = self.store.activate(new).await?;
        Ok(made.ok_or_else(|| StoreError("an activation without a condition was not added".into()))?)
    }

    /// Goes back to what was active before, or to a certain bundle that was active once. The folder is
    /// what was before the first activation. Going back twice goes further back ([`before`]). No gate: what worked must be reachable at once.
    ///
    /// # Errors
    /// When nothing was activated, or the bundle never was.
    pub async fn roll_back(
        &self,
        scope: Scope,
        to: Option<&str>,
        note: &str,
        author: Author,
    ) -> Result<Activation, PolicyError> {
        loop {
            let earlier = self.store.activations(Some(&scope), 1000).await?;
            let newest = earlier.first().map_or(0, |activation| activation.seq);
            let bundle = match to {
                None => before(&earlier).ok_or_else(|| PolicyError::NothingBefore(scope.clone()))?,
                Some(id) if earlier.iter().any(|a| a.bundle.as_deref() == Some(id)) => Some(id.to_owned()),
                Some(id) => return Err(PolicyError::UnknownBundle(id.to_owned())),
            };
            self.check_signature(&scope, bundle.as_deref()).await?;
            let (scope, note, author) = (scope.clone(), note.to_owned(), author.clone());
            let new = NewActivation { scope, bundle, note, goes_back: true, author, after: Some(newest) };
            // Somebody else was faster: where going back leads is another question now.
            if let Some(done) = self.store.activate(new).await? {
                return Ok(done);
            }
        }
    }

    /// As a server checks it before it runs a bundle.
    async fn check_signature(&self, scope: &Scope, bundle: Option<&str>) -> Result<(), PolicyError> {
        let Some(id) = bundle else { return Ok(()) };
        let found = self.store.find_bundle(id).await?;
        let (bundle, info) = found.ok_or_else(|| PolicyError::UnknownBundle(id.to_owned()))?;
        Ok(self.signers.check(scope, &bundle, info.signature.as_deref())?)
    }

    /// What is active where.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn status(&self, scope: &Scope) -> Result<Status, PolicyError> {
        let mut in_force = self.store.in_force().await?;
        if let Scope::Tenant(_) = scope {
            in_force.retain(|a| a.scope == Scope::All || a.scope == *scope);
        }
        Ok(Status {
            in_force,
            nodes: self.store.nodes().await?,
            switch: self.store.last_switch().await?,
            shadows: self.store.shadows(scope.tenant()).await?,
            folder: (self.folder)().ok().map(|bundle| bundle.id()),
            at: self.clock.now(),
        })
    }

    /// Kept bundles with their states, newest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn versions(&self, scope: &Scope) -> Result<Vec<(BundleInfo, BundleState)>, PolicyError> {
        let bundles = self.store.bundles(scope.tenant(), 200).await?;
        let (in_force, activations) = (self.store.in_force().await?, self.store.activations(None, 10_000).await?);
        let shadows = self.store.shadows(None).await?;
        let is = |all: &[Activation], id: &str| all.iter().any(|a| a.bundle.as_deref() == Some(id));
        let state = |info: &BundleInfo| match info {
            info if is(&in_force, &info.id) => BundleState::Active,
            info if shadows.iter().any(|s| s.bundle == info.id) => BundleState::Shadow,
            info if is(&activations, &info.id) => BundleState::Retired,
            info if info.checked_at.is_some() => BundleState::Checked,
            _ => BundleState::Draft,
        };
        Ok(bundles.into_iter().map(|info| (state(&info), info)).map(|(state, info)| (info, state)).collect())
    }

    /// The activations of a scope, newest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn activations(&self, scope: &Scope) -> Result<Vec<Activation>, PolicyError> {
        let only = scope.tenant().map(|_| scope);
        Ok(self.store.activations(only, 200).await?)
    }

    /// The bundle that decides for a tenant now.
    ///
    /// # Errors
    /// When the store does not answer, or the folder cannot be read.
    pub async fn deciding(&self, tenant: &TenantId) -> Result<Arc<Bundle>, PolicyError> {
        let in_force = self.store.in_force().await?;
        let own = Scope::Tenant(tenant.clone());
        let of = |scope: &Scope| in_force.iter().find(|a| a.scope == *scope).and_then(|a| a.bundle.clone());
        match of(&own).or_else(|| of(&Scope::All)) {
            Some(id) => Ok(self.bundle(&id, &Scope::All).await?.0),
            None => (self.folder)().map(Arc::new).map_err(PolicyError::Unusable),
        }
    }

    /// Sets the candidates that run beside a tenant's active bundle; none of them is ever seen by users.
    ///
    /// # Errors
    /// When there are too many, one does not exist, or one needs a signature.
    pub async fn shadow(&self, tenant: &TenantId, bundles: Vec<String>, author: Author) -> Result<(), PolicyError> {
        if bundles.len() > CANDIDATES {
            return Err(PolicyError::TooManyCandidates);
        }
        let scope = Scope::Tenant(tenant.clone());
        for id in &bundles {
            let (bundle, info) = self.bundle(id, &scope).await?;
            self.signers.check(&scope, &bundle, info.signature.as_deref())?;
        }
        Ok(self.store.set_shadows(tenant, bundles, author).await?)
    }

    /// Why a sign-in was decided as it was.
    ///
    /// # Errors
    /// When nothing is kept of it for this scope.
    pub async fn explain(&self, id: EventId, scope: &Scope) -> Result<Explanation, PolicyError> {
        let found = self.decisions.find(scope.tenant(), id).await?;
        let decision = found.ok_or(PolicyError::UnknownDecision(id))?;
        Ok(Explanation { decision, shadow: self.store.shadow_outcomes(id).await? })
    }

    /// Takes a person's word on a sign-in.
    ///
    /// # Errors
    /// When nothing is kept of it for this scope.
    pub async fn label(
        &self,
        id: EventId,
        scope: &Scope,
        disputed: bool,
        author: Author,
    ) -> Result<(), PolicyError> {
        let found = self.decisions.find(scope.tenant(), id).await?;
        let decision = found.ok_or(PolicyError::UnknownDecision(id))?;
        let label = Label {
            tenant: decision.tenant,
            sign_in: id,
            user: decision.facts.user.id,
            disputed,
            by_user: matches!(author.actor, Actor::User(_)),
            actor: author.actor.to_string(),
            at: author.at,
        };
        if let Actor::User(user) = author.actor
            && user != label.user
        {
            return Err(PolicyError::UnknownDecision(id));
        }
        Ok(self.store.put_label(label, author).await?)
    }

    /// Runs a candidate over a tenant's recorded sign-ins, beside the bundle that decides now.
    /// `progress` is told how many of how many are done. When `limit` is over, it ends early, with the oldest
    /// ones looked at, and the report says so.
    ///
    /// # Errors
    /// When one of both does not compile, or a record does not open.
    pub async fn replay(
        &self,
        tenant: &TenantId,
        candidate: &Bundle,
        since: UnixTime,
        limit: Option<Duration>,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
        author: Author,
    ) -> Result<ReplayReport, PolicyError> {
        let ran = self.run_replay(tenant, candidate, since, limit, progress).await;
        self.note(&candidate.id(), author, ran).await
    }

    async fn run_replay(
        &self,
        tenant: &TenantId,
        candidate: &Bundle,
        since: UnixTime,
        limit: Option<Duration>,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<ReplayReport, PolicyError> {
        let started = self.clock.now();
        let active = self.deciding(tenant).await?;
        let (active_id, candidate_id) = (active.id(), candidate.id());
        let active = self.lab.prepare(&active).map_err(PolicyError::Unusable)?;
        let candidate = self.lab.prepare(candidate).map_err(PolicyError::Unusable)?;
        let disputes = Arc::new(Disputes::of(&self.store.labels(tenant).await?));
        let total = self.decisions.count(tenant, since).await?;
        let mut all = Comparison::default();
        let (mut done, mut after, mut last_page) = (0, None, false);
        let mut working = tokio::task::JoinSet::new();
        loop {
            let in_time = limit.is_none_or(|limit| self.clock.now().since(started) < limit);
            while in_time && !last_page && working.len() < WORKERS {
                let page = self.decisions.page(tenant, since, after).await?;
                last_page = page.last.is_none();
                after = page.last.or(after);
                let (active, candidate) = (Arc::clone(&active), Arc::clone(&candidate));
                let disputes = Arc::clone(&disputes);
                working.spawn_blocking(move || -> Result<(u64, Comparison), StoreError> {
                    let mut part = Comparison::default();
                    let decisions = (page.open)()?;
                    decisions.iter().for_each(|d| part.add(d, &*active, &*candidate, &disputes));
                    Ok((decisions.len() as u64, part))
                });
            }
            let Some(worked) = working.join_next().await else { break };
            let (count, part) = worked.map_err(|e| PolicyError::Store(StoreError(Box::new(e))))??;
            all.join(part);
            done += count;
            progress(done, total);
        }
        Ok(all.report(&active_id, &candidate_id, if last_page { done } else { total }))
    }

    /// Runs scripts where they keep nobody waiting.
    async fn in_lab<T: Send + 'static>(
        &self,
        bundle: &Arc<Bundle>,
        work: impl FnOnce(&dyn PolicyLab, &Bundle) -> Result<T, String> + Send + 'static,
    ) -> Result<T, PolicyError> {
        let (lab, bundle) = (Arc::clone(&self.lab), Arc::clone(bundle));
        let ran = tokio::task::spawn_blocking(move || work(&*lab, &bundle)).await;
        ran.unwrap_or_else(|e| Err(e.to_string())).map_err(PolicyError::Unusable)
    }
}
