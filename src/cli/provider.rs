//! `countersign provider test` and `countersign provider audit`.

use std::sync::Arc;

use serde_json::json;

use super::paint::{Lines, Mark, Paint, chain};
use super::token::unknown;
use super::{FINDINGS, FINE, Failure, Place, UNREACHABLE, USAGE, runtime};
use crate::admin::directory::DirectoryRules;
use crate::app::offline;
use crate::clock::{Clock, SystemClock, UnixTime};
use crate::config::{LiveDirectory, Settings};
use crate::ids::TenantId;
use crate::oidc::{Inspection, KeyFetchError, KeysFound, inspect};
use crate::signin::audit::{Verdict, audit};
use crate::signin::ports::Directory;
use crate::signin::provider::Provider;

#[derive(clap::Subcommand)]
pub(super) enum ProviderCommand {
    /// Ask the provider for its discovery document and keys, and compare clocks.
    #[command(
        after_help = "Exit codes: 0 fine, 1 findings, 2 wrong usage or configuration, 3 provider out of reach.\n\n\
        Example:\n  countersign provider test google"
    )]
    Test(Named),
    /// Attack the configuration of the provider with forged tokens, in this process, writing nothing.
    #[command(
        after_help = "Nobody but the provider has its private key: where an attack needs a valid signature, a\n\
        throw-away key stands in for the provider's, inside the audit alone. Users are made up; policies, mapping\n\
        and every rule of the provider are the real ones.\n\n\
        Exit codes: 0 all attacks fail, 1 one succeeds, 2 wrong usage or configuration.\n\n\
        Example:\n  countersign provider audit google"
    )]
    Audit(Named),
}

#[derive(clap::Args)]
pub(super) struct Named {
    /// The provider's name.
    name: String,
    #[command(flatten)]
    place: Place,
    /// Its tenant.
    #[arg(long, value_name = "ID", default_value = TenantId::DEFAULT)]
    tenant: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Named {
    async fn find(&self) -> Result<(Settings, Arc<Provider>), Failure> {
        let settings = self.place.load()?;
        let directory = offline::directory(&settings).await?;
        let provider = enabled_provider(&directory, &self.tenant, &self.name)?;
        Ok((settings, provider))
    }
}

/// A provider that signs users in, whether the file or an administrator made it.
pub(super) fn enabled_provider(
    directory: &LiveDirectory,
    tenant: &str,
    name: &str,
) -> Result<Arc<Provider>, Failure> {
    let tenants = directory.tenant_entries();
    let Some(entry) = tenants.iter().find(|t| t.tenant.id.as_str() == tenant) else {
        return Err(unknown("tenant", tenant, tenants.iter().map(|t| t.tenant.id.as_str())));
    };
    let providers = directory.providers(&entry.tenant.id);
    match providers.iter().find(|p| *p.name == *name) {
        Some(provider) => Ok(Arc::clone(provider)),
        None => Err(unknown("enabled provider", name, providers.iter().map(|p| &*p.name))),
    }
}

impl ProviderCommand {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let runtime = runtime()?;
        match self {
            Self::Test(named) => runtime.block_on(test(named)),
            Self::Audit(named) => runtime.block_on(run_audit(named)),
        }
    }
}

async fn test(named: Named) -> Result<u8, Failure> {
    let (settings, provider) = named.find().await?;
    let fetcher = offline::fetcher(&settings).map_err(|error| Failure::new(USAGE, chain(&error)))?;
    let inspection = inspect(&fetcher, &provider).await;
    let lines = describe(&provider, &inspection, SystemClock.now());
    if named.json {
        println!("{:#}", json!({"provider": *provider.name, "tenant": named.tenant, "checks": lines.to_json()}));
    } else {
        let paint = Paint::of_stdout();
        print!("{}\n{}", paint.strong(&format!("Provider {}", provider.name)), lines.to_text(&paint));
    }
    Ok(match lines.count(Mark::Fail) {
        0 => FINE,
        _ if is_out_of_reach(&inspection) => UNREACHABLE,
        _ => FINDINGS,
    })
}

fn is_out_of_reach(inspection: &Inspection) -> bool {
    let unreachable = |error: &KeyFetchError| matches!(error, KeyFetchError::Discovery(_) | KeyFetchError::Keys(_));
    let by_discovery = inspection.discovery.as_ref().and_then(|(_, r)| r.as_ref().err()).is_some_and(unreachable);
    by_discovery || inspection.keys.as_ref().and_then(|r| r.as_ref().err()).is_some_and(unreachable)
}

/// One line for each thing that was looked at.
pub(super) fn describe(provider: &Provider, inspection: &Inspection, now: UnixTime) -> Lines {
    let mut lines = Lines::default();
    let mut date = None;
    match &inspection.discovery {
        None => lines.idle("discovery", "not asked: jwks_uri is configured"),
        Some((url, Ok(document))) => {
            lines.ok("discovery", url);
            lines.ok("issuer", format!("{}, as configured", provider.issuer.shown()));
            date = document.date;
            let offered = |name: &str| document.algorithms.iter().any(|a| a == name);
            let pinned: Vec<&str> = provider.algorithms.iter().map(|a| a.name()).collect();
            if document.algorithms.is_empty() || pinned.iter().any(|a| offered(a)) {
                lines.ok("algorithms", format!("pinned {}", pinned.join(", ")));
            } else {
                let found = format!("the provider signs with {}", document.algorithms.join(", "));
                lines.fail(
                    "algorithms",
                    found,
                    &format!("algorithms = [\"{}\"] fits none; pin one of them", pinned.join("\", \"")),
                );
            }
        }
        Some((_, Err(error @ KeyFetchError::Document(_)))) => {
            lines.fail("issuer", chain(error), "write `issuer` exactly as the discovery document has it");
        }
        Some((url, Err(error))) => {
            let mend = "check the issuer and that this machine reaches it; or set jwks_uri for a provider without discovery";
            lines.fail("discovery", format!("{url}: {}", chain(error)), mend);
        }
    }
    match &inspection.keys {
        None => lines.idle("keys", "not asked: no address of them is known"),
        Some(Err(error)) => {
            lines.fail("keys", chain(error), "check the address of the keys, and that it gives a JWK set")
        }
        Some(Ok(keys)) => {
            describe_keys(keys, &mut lines);
            date = keys.date.or(date);
        }
    }
    describe_clock(provider, date, now, &mut lines);
    if provider.test_mode {
        lines.warn(
            "test_mode",
            "refusals list every check to whoever sends a token",
            "turn test_mode off for production",
        );
    }
    lines
}

fn describe_keys(keys: &KeysFound, lines: &mut Lines) {
    let shown: Vec<String> = keys
        .usable
        .iter()
        .map(|(kid, kind)| format!("{kind} ({})", kid.as_deref().map_or_else(|| "no kid".to_owned(), short)))
        .collect();
    if keys.usable.is_empty() {
        lines.fail("keys", format!("{}: none is usable", keys.uri), "the provider must publish a signature key");
    } else {
        lines.ok("keys", format!("{}: {}", keys.uri, shown.join(", ")));
    }
    for (position, why) in &keys.left_out {
        lines.warn(
            &format!("key {position}"),
            format!("left out: {why}"),
            "fine, unless tokens are signed with it",
        );
    }
    let nameless = keys.usable.iter().filter(|(kid, _)| kid.is_none()).count();
    if nameless > 0 && keys.usable.len() > 1 {
        lines.warn(
            "key ids",
            format!("{nameless} keys have no kid"),
            "tokens without a kid are refused unless one key fits",
        );
    }
    let mut kids: Vec<&str> = keys.usable.iter().filter_map(|(kid, _)| kid.as_deref()).collect();
    kids.sort_unstable();
    if let Some(twice) = kids.windows(2).find(|pair| pair[0] == pair[1]) {
        lines.warn(
            "key ids",
            format!("{} names two keys", short(twice[0])),
            "the provider should give each key its own kid",
        );
    }
    for algorithm in &keys.unserved {
        lines.warn("algorithms", format!("no key fits {algorithm}"), "unpin it in `algorithms`");
    }
    let says = keys.max_age_s.map_or_else(|| "says nothing".to_owned(), |s| format!("says {s} s"));
    lines.ok("cache", format!("the endpoint {says}; kept for {} s and renewed in the background", keys.kept_s));
}

fn describe_clock(provider: &Provider, date: Option<UnixTime>, now: UnixTime, lines: &mut Lines) {
    let Some(date) = date else {
        lines.idle("clock", "the provider tells no time");
        return;
    };
    let difference_s = now.as_secs() - date.as_secs();
    let leeway_s = i64::try_from(provider.clock_leeway.as_secs()).unwrap_or(i64::MAX);
    let found = format!("{difference_s} s ahead of the provider's (to a second or two), leeway {leeway_s} s");
    let mend = "let NTP set this machine's clock";
    match difference_s.abs() {
        d if d > leeway_s => lines.fail("clock", found, mend),
        d if d > 5 => lines.warn("clock", found, mend),
        _ => lines.ok("clock", found),
    }
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

async fn run_audit(named: Named) -> Result<u8, Failure> {
    let (settings, provider) = named.find().await?;
    let pipeline = offline::audited(&settings, &provider, !named.place.dev).await?;
    let report = audit(pipeline, &provider).await;
    let mut lines = Lines::default();
    for case in &report {
        match &case.verdict {
            Verdict::Withstood { by } => lines.ok(case.name, *by),
            Verdict::NotApplicable { why } => lines.idle(case.name, *why),
            Verdict::Succeeded { seen, mend } => lines.fail(case.name, seen, mend),
        }
    }
    // The control is not an attack.
    let control = usize::from(report.first().is_some_and(|c| matches!(c.verdict, Verdict::Withstood { .. })));
    let (withstood, succeeded) = (lines.count(Mark::Ok) - control, lines.count(Mark::Fail));
    let note = "A throw-away key stood in for the provider's; its rules, mapping and policies were the real ones.";
    if named.json {
        let value = json!({
            "provider": *provider.name,
            "tenant": named.tenant,
            "note": note,
            "withstood": withstood,
            "succeeded": succeeded,
            "attacks": lines.to_json(),
        });
        println!("{value:#}");
    } else {
        let paint = Paint::of_stdout();
        let head = format!("Provider {}: {withstood} attacks withstood, {succeeded} succeeded", provider.name);
        print!("{}\n{}\n\n{}", paint.strong(&head), paint.faint(note), lines.to_text(&paint));
    }
    Ok(if succeeded == 0 { FINE } else { FINDINGS })
}
