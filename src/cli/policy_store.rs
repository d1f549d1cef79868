//! The commands on policies that work on a server's store.

use std::io::IsTerminal;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{ConfigFile, FINDINGS, FINE, Failure, UNREACHABLE, USAGE, runtime};
use crate::admin::audit::Author;
use crate::app::open_policies;
use crate::clock::UnixTime;
use crate::ids::{EventId, TenantId};
use crate::policy::bundle::Bundle;
use crate::policy::diff::unified;
use crate::policy::service::{PolicyError, PolicyService};
use crate::policy::{Activation, Scope};
use crate::scripts::bundle::read_folder;
use crate::scripts::record::case_of;
use crate::secret::SystemEntropy;

impl From<PolicyError> for Failure {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::Store(error) => {
                let cause = error.0.to_string();
                Self::new(UNREACHABLE, format!("{error}: {cause}"))
            }
            PolicyError::Gate(findings) => {
                let lines: String = findings.0.iter().map(|finding| format!("\n  {finding}")).collect();
                Self::new(FINDINGS, format!("the bundle does not pass, and nothing was activated:{lines}"))
            }
            error @ (PolicyError::UnknownDecision(_)
            | PolicyError::NothingBefore(_)
            | PolicyError::Signature(_)) => Self::new(FINDINGS, error.to_string()),
            error => Self::new(USAGE, error.to_string()),
        }
    }
}

/// Opens the store, does something, and closes it.
fn with<T>(
    config: &ConfigFile,
    work: impl AsyncFnOnce(&PolicyService) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let settings = config.load()?;
    runtime()?.block_on(async {
        let (store, service, _master_key) = open_policies(&settings).await?;
        let done = work(&service).await;
        store.close().await;
        done
    })
}

pub(super) fn tenant(text: &str) -> Result<TenantId, String> {
    TenantId::parse(text).map_err(|error| error.to_string())
}

pub(super) fn event(text: &str) -> Result<EventId, String> {
    EventId::from_str(text).map_err(|error| error.to_string())
}

fn author(service: &PolicyService, scope: &Scope) -> Author {
    Author::command_line(scope.tenant().cloned(), service.clock.now(), &SystemEntropy)
}

/// A kept bundle by its name, or a folder.
async fn bundle(service: &PolicyService, text: &str) -> Result<Arc<Bundle>, Failure> {
    if text.starts_with("pol_") && !Path::new(text).exists() {
        return Ok(service.bundle(text, &Scope::All).await?.0);
    }
    let folder = read_folder(Path::new(text));
    Ok(Arc::new(folder.map_err(|error| Failure::new(USAGE, error.to_string()))?))
}

/// The same, and kept if it was not.
async fn kept(
    service: &PolicyService,
    text: &str,
    signature: Option<&str>,
    owner: Scope,
    note: &str,
) -> Result<String, Failure> {
    let bundle = bundle(service, text).await?;
    let is_kept = text.starts_with("pol_") && !Path::new(text).exists();
    if is_kept && signature.is_none() {
        return Ok(bundle.id());
    }
    let decode = |text: &str| {
        let decoded = BASE64.decode(text.trim().as_bytes());
        decoded.map_err(|_| Failure::new(USAGE, "--signature is 64 bytes in base64, as `policy sign` prints it"))
    };
    let signature = signature.map(decode).transpose()?;
    let bundle = Arc::unwrap_or_clone(bundle);
    let author = author(service, &owner);
    Ok(service.keep(bundle, signature, owner, note, author).await?.id)
}

/// A recorded sign-in as a case.
pub(super) fn print_case(config: &ConfigFile, id: EventId) -> Result<u8, Failure> {
    let explanation = with(config, async |service| Ok(service.explain(id, &Scope::All).await?))?;
    print!("{}", case_of(&explanation.decision));
    Ok(FINE)
}

#[derive(clap::Args)]
pub(super) struct Explain {
    /// The sign-in: `evt_…`.
    #[arg(value_parser = event)]
    id: EventId,
    /// Only a sign-in of this tenant; absent: of any.
    #[arg(long, value_name = "ID", value_parser = tenant)]
    tenant: Option<TenantId>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Explain {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let scope = Scope::of(self.tenant);
        let explanation = with(&self.config, async |service| Ok(service.explain(self.id, &scope).await?))?;
        if self.json {
            println!("{:#}", explanation.to_json());
        } else {
            print!("{}", explanation.to_text());
        }
        Ok(FINE)
    }
}

#[derive(clap::Args)]
pub(super) struct Replay {
    /// The tenant whose sign-ins are looked at.
    #[arg(long, value_name = "ID", value_parser = tenant, default_value = "default")]
    tenant: TenantId,
    /// A policies folder, or a kept bundle `pol_…`.
    #[arg(long, value_name = "DIR|ID", default_value = "policies")]
    candidate: String,
    /// How far back: a number and h or d.
    #[arg(long, default_value = "7d", value_parser = span)]
    since: Duration,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and h or d, such as 7d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let hours: u64 = number.parse().map_err(|_| wrong())?;
    match unit {
        "h" => Ok(Duration::from_secs(hours.saturating_mul(3600))),
        "d" => Ok(Duration::from_secs(hours.saturating_mul(86_400))),
        _ => Err(wrong()),
    }
}

impl Replay {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} sign-ins, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let report = with(&self.config, async |service| {
            let candidate = bundle(service, &self.candidate).await?;
            let since = service.clock.now().minus(self.since);
            let progress = |done, total| {
                bar.set_length(total);
                bar.set_position(done);
            };
            let author = author(service, &Scope::Tenant(self.tenant.clone()));
            Ok(service.replay(&self.tenant, &candidate, since, None, &progress, author).await?)
        })?;
        bar.finish_and_clear();
        if self.json {
            println!("{:#}", report.to_json());
        } else {
            print!("{report}");
        }
        Ok(if report.faults[1] == 0 { FINE } else { FINDINGS })
    }
}

#[derive(clap::Args)]
pub(super) struct Diff {
    /// A policies folder, or a kept bundle `pol_…`.
    old: String,
    /// Another one.
    new: String,
    #[command(flatten)]
    config: ConfigFile,
}

impl Diff {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let text = with(&self.config, async |service| {
            Ok(unified(&*bundle(service, &self.old).await?, &*bundle(service, &self.new).await?))
        })?;
        print!("{text}");
        Ok(if text.is_empty() { FINE } else { FINDINGS })
    }
}

#[derive(clap::Args)]
pub(super) struct Shadow {
    /// The tenant.
    #[arg(long, value_name = "ID", value_parser = tenant, default_value = "default")]
    tenant: TenantId,
    /// A policies folder or a kept bundle; at most two.
    #[arg(long, value_name = "DIR|ID")]
    candidate: Vec<String>,
    /// The candidate's signature, as `policy sign` prints it.
    #[arg(long, value_name = "BASE64", requires = "candidate")]
    signature: Option<String>,
    /// Take all candidates of the tenant away.
    #[arg(long, conflicts_with = "candidate")]
    clear: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Shadow {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let scope = Scope::Tenant(self.tenant.clone());
        let (shadows, now) = with(&self.config, async |service| {
            if self.clear || !self.candidate.is_empty() {
                let mut ids = Vec::new();
                for candidate in &self.candidate {
                    let signature = self.signature.as_deref();
                    ids.push(kept(service, candidate, signature, scope.clone(), "candidate").await?);
                }
                service.shadow(&self.tenant, ids, author(service, &scope)).await?;
            }
            let status = service.status(&scope).await?;
            Ok((status.shadows, status.at))
        })?;
        if self.json {
            let list: Vec<Value> = shadows.iter().map(|s| shadow_json(s, now)).collect();
            println!("{:#}", Value::Array(list));
        } else if shadows.is_empty() {
            println!("no candidate runs beside the active policies of tenant {}", self.tenant);
        }
        for shadow in shadows.iter().filter(|_| !self.json) {
            let c = &shadow.counts;
            println!(
                "{} since {}: {} sign-ins, {} decided otherwise, {} script errors, {} µs each",
                shadow.bundle,
                shadow.since.to_rfc3339(),
                c.evaluated,
                c.differed,
                c.faults,
                c.micros / c.evaluated.max(1)
            );
            warn_overdue(shadow, now);
        }
        Ok(FINE)
    }
}

fn warn_overdue(shadow: &crate::policy::Shadow, now: UnixTime) {
    if let Some(days) = shadow.overdue_days(now) {
        let (bundle, tenant) = (&shadow.bundle, &shadow.tenant);
        println!("warning: {bundle} has been a candidate of {tenant} for {days} days; activate it or take it away");
    }
}

fn shadow_json(shadow: &crate::policy::Shadow, now: UnixTime) -> Value {
    json!({
        "tenant": shadow.tenant.as_str(), "bundle": shadow.bundle, "since": shadow.since.to_rfc3339(),
        "evaluated": shadow.counts.evaluated, "differed": shadow.counts.differed, "script_errors": shadow.counts.faults,
        "overdue_days": shadow.overdue_days(now),
    })
}

fn activation_json(a: &Activation) -> Value {
    json!({
        "seq": a.seq, "tenant": a.scope.tenant().map(TenantId::as_str), "bundle": a.bundle, "previous": a.previous,
        "actor": a.actor, "note": a.note, "at": a.at.to_rfc3339(), "goes_back": a.goes_back,
    })
}

fn told(bundle: Option<&String>) -> &str {
    bundle.map_or("the policies folder", String::as_str)
}

#[derive(clap::Args)]
pub(super) struct Activate {
    /// A policies folder, or a kept bundle `pol_…`.
    bundle: String,
    /// For this tenant; absent: for all tenants without one of their own.
    #[arg(long, value_name = "ID", value_parser = tenant)]
    tenant: Option<TenantId>,
    /// Its signature, as `policy sign` prints it.
    #[arg(long, value_name = "BASE64")]
    signature: Option<String>,
    /// Why.
    #[arg(long, default_value = "")]
    note: String,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Activate {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let scope = Scope::of(self.tenant);
        let activation = with(&self.config, async |service| {
            let signature = self.signature.as_deref();
            let id = kept(service, &self.bundle, signature, scope.clone(), &self.note).await?;
            Ok(service.activate(&id, scope.clone(), &self.note, author(service, &scope)).await?)
        })?;
        tell(&activation, self.json);
        Ok(FINE)
    }
}

fn tell(a: &Activation, json: bool) {
    if json {
        println!("{:#}", activation_json(a));
    } else {
        let (now, before) = (told(a.bundle.as_ref()), told(a.previous.as_ref()));
        println!(
            "{now} is active for {} (before: {before}); servers follow together, as soon as all of them are ready",
            a.scope
        );
    }
}

#[derive(clap::Args)]
pub(super) struct Rollback {
    /// For this tenant; absent: for all tenants without one of their own.
    #[arg(long, value_name = "ID", value_parser = tenant)]
    tenant: Option<TenantId>,
    /// A bundle that was active once; absent: the one before.
    #[arg(long, value_name = "ID")]
    to: Option<String>,
    /// Why.
    #[arg(long, default_value = "")]
    note: String,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Rollback {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let scope = Scope::of(self.tenant);
        let activation = with(&self.config, async |service| {
            let author = author(service, &scope);
            Ok(service.roll_back(scope, self.to.as_deref(), &self.note, author).await?)
        })?;
        tell(&activation, self.json);
        Ok(FINE)
    }
}

#[derive(clap::Args)]
pub(super) struct Status {
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Status {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let (status, versions) = with(&self.config, async |service| {
            Ok((service.status(&Scope::All).await?, service.versions(&Scope::All).await?))
        })?;
        let newest = status.in_force.iter().map(|a| a.seq).max().unwrap_or(0);
        let behind = |node: &crate::policy::NodeState| node.seq < newest || node.error.is_some();
        if self.json {
            let nodes = status.nodes.iter().map(
                |n| json!({"node": n.node, "seq": n.seq, "ready": n.ready, "error": n.error, "seen_at": n.seen_at.to_rfc3339()}),
            );
            let versions = versions.iter().map(|(info, state)| {
                json!({"bundle": info.id, "state": state.as_str(), "tenant": info.owner.tenant().map(TenantId::as_str),
                       "signed": info.signature.is_some(),
                       "created_at": info.created_at.to_rfc3339(), "created_by": info.created_by, "note": info.note})
            });
            println!(
                "{:#}",
                json!({
                    "folder": status.folder,
                    "active": status.in_force.iter().map(activation_json).collect::<Vec<_>>(),
                    "nodes": nodes.collect::<Vec<_>>(),
                    "switch": status.switch.as_ref().map(|s| json!({
                        "seq": s.seq, "at": s.at.to_rfc3339(), "node": s.node, "laggards": s.laggards,
                    })),
                    "shadows": status.shadows.iter().map(|s| shadow_json(s, status.at)).collect::<Vec<_>>(),
                    "versions": versions.collect::<Vec<_>>(),
                })
            );
        } else {
            println!("folder: {}", status.folder.as_deref().unwrap_or("cannot be read"));
            for a in &status.in_force {
                let note = if a.note.is_empty() { String::new() } else { format!(": {}", a.note) };
                let (bundle, at) = (told(a.bundle.as_ref()), a.at.to_rfc3339());
                println!("{:>5}  {bundle} is active for {}, by {} at {at}{note}", a.seq, a.scope, a.actor);
            }
            if status.in_force.is_empty() {
                println!("nothing was activated: the folder is what every tenant has");
            }
            for node in &status.nodes {
                let state = match (&node.error, node.seq < newest) {
                    (Some(error), _) => format!("error: {error}"),
                    (None, true) if node.ready >= newest => format!("ready for {newest}, waits for the others"),
                    (None, true) => "behind".to_owned(),
                    (None, false) => "ready".to_owned(),
                };
                println!("{}  at {}, {state}", node.node, node.seq);
            }
            for late in status.switch.iter().flat_map(|switch| &switch.laggards) {
                println!("{} was not ready for the last switch, and was not waited for", late.node);
            }
            status.shadows.iter().for_each(|shadow| warn_overdue(shadow, status.at));
            for (info, state) in &versions {
                println!("{}  {:<8} {}", info.id, state.as_str(), info.created_at.to_rfc3339());
            }
        }
        Ok(if status.nodes.iter().any(behind) { FINDINGS } else { FINE })
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Verdict {
    Good,
    Bad,
}

#[derive(clap::Args)]
pub(super) struct LabelCommand {
    /// The sign-in: `evt_…`.
    #[arg(value_parser = event)]
    id: EventId,
    /// bad: it was not its user's; good: it was.
    verdict: Verdict,
    #[command(flatten)]
    config: ConfigFile,
}

impl LabelCommand {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let disputed = matches!(self.verdict, Verdict::Bad);
        with(&self.config, async |service| {
            Ok(service.label(self.id, &Scope::All, disputed, author(service, &Scope::All)).await?)
        })?;
        Ok(FINE)
    }
}
