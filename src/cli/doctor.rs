//! `countersign doctor`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use super::paint::{Line, Lines, Mark, Paint, chain};
use super::provider::describe;
use super::{FINDINGS, FINE, Failure, Place, UNREACHABLE, USAGE, runtime};
use crate::admin::directory::DirectoryRules;
use crate::app::offline;
use crate::clock::{Clock, SystemClock};
use crate::config::{LiveDirectory, Settings, master_key};
use crate::geo::GeoDatabases;
use crate::oidc::inspect;
use crate::policy::ports::PolicyStore;
use crate::scripts::PolicyHost;
use crate::scripts::cases::run_cases;
use crate::secret::SystemEntropy;
use crate::session::keys::KeyRing;
use crate::store::{OpenError, Store, StoreOptions};
use crate::vault::Vault;

#[derive(clap::Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    place: Place,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was found so far, and the exit code that it comes to.
struct Findings {
    lines: Lines,
    code: u8,
}

impl Findings {
    fn fail(&mut self, code: u8, what: &str, found: impl Into<String>, mend: &str) {
        self.lines.fail(what, found, mend);
        // Wrong configuration before a store out of reach before findings: the first to mend.
        let rank = |code: u8| [FINE, FINDINGS, UNREACHABLE, USAGE].iter().position(|c| *c == code);
        if rank(code) > rank(self.code) {
            self.code = code;
        }
    }
}

impl Doctor {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let findings = runtime()?.block_on(self.examine());
        let (failed, warned) = (findings.lines.count(Mark::Fail), findings.lines.count(Mark::Warn));
        if self.json {
            let value = json!({"failed": failed, "warned": warned, "checks": findings.lines.to_json()});
            println!("{value:#}");
        } else {
            let paint = Paint::of_stdout();
            let head = match (failed, warned) {
                (0, 0) => "All is well.".to_owned(),
                (0, _) => format!("{warned} to look at."),
                _ => format!("{failed} to mend, {warned} to look at."),
            };
            print!("{}\n{}", paint.strong(&head), findings.lines.to_text(&paint));
        }
        Ok(findings.code)
    }

    async fn examine(&self) -> Findings {
        let mut findings = Findings { lines: Lines::default(), code: FINE };
        let settings = match self.place.load() {
            Ok(settings) => settings,
            Err(failure) => {
                findings.fail(USAGE, "configuration", failure.text, "countersign.example.toml documents every key");
                return findings;
            }
        };
        let (tenants, providers) = (settings.tenants.len(), settings.providers.len());
        findings.lines.ok("configuration", format!("{tenants} tenants, {providers} enabled providers"));
        let vault = examine_master_key(&settings, &mut findings);
        let directory = examine_store(&settings, vault.as_ref(), &mut findings).await;
        examine_policies(&settings, &mut findings);
        examine_files(&settings, &mut findings);
        examine_permissions(&settings, &mut findings);
        examine_providers(&settings, &directory, &mut findings).await;
        findings
    }
}

fn examine_master_key(settings: &Settings, findings: &mut Findings) -> Option<Vault> {
    match master_key(&settings.master_key_file, false, &SystemEntropy) {
        Ok(key) => {
            findings.lines.ok("master key", settings.master_key_file.display().to_string());
            Some(Vault::new(key))
        }
        Err(error) => {
            let mend =
                "the first start of the server makes one; a store that exists needs the key it was made with";
            findings.fail(USAGE, "master key", error.to_string(), mend);
            None
        }
    }
}

/// Gives tenants and providers as the server would have them; those of the file when the store cannot tell.
async fn examine_store(settings: &Settings, vault: Option<&Vault>, findings: &mut Findings) -> LiveDirectory {
    let store = match Store::open_read_only(&StoreOptions { url: settings.store_url.clone() }).await {
        Ok(store) => store,
        Err(error) => {
            let mend = match error {
                OpenError::Ahead { .. } => "run the newer build, or restore a backup from before it",
                _ => "countersign migrate makes it and brings it up to date",
            };
            findings.fail(UNREACHABLE, "store", error.to_string(), mend);
            return settings.directory();
        }
    };
    findings.lines.ok("store", "opens, and its schema is this build's");
    if let Some(vault) = vault {
        match KeyRing::inspect(&*store, vault).await {
            Ok(0) => findings.lines.idle("signing keys", "none yet; the first start makes one"),
            Ok(keys) => findings.lines.ok("signing keys", format!("{keys}, all open with the master key")),
            Err(error) => {
                let mend = "set master_key_file to the one that this store was made with";
                findings.fail(USAGE, "signing keys", error.0.to_string(), mend);
            }
        }
    }
    match PolicyStore::shadows(&*store, None).await {
        Ok(shadows) => {
            let now = SystemClock.now();
            for (shadow, days) in shadows.iter().filter_map(|s| Some((s, s.overdue_days(now)?))) {
                let told = format!("{} has been a candidate of {} for {days} days", shadow.bundle, shadow.tenant);
                findings.lines.warn("shadow policies", told, "activate it, or countersign policy shadow --clear");
            }
        }
        Err(error) => findings.fail(UNREACHABLE, "shadow policies", chain(&error), "see the store above"),
    }
    let directory = match offline::directory_with(settings, &store).await {
        Ok(directory) => directory,
        Err(error) => {
            let mend = "restore the store from a backup; providers of the administration API are not looked at";
            findings.fail(UNREACHABLE, "store", chain(&error), mend);
            settings.directory()
        }
    };
    store.close().await;
    directory
}

fn examine_policies(settings: &Settings, findings: &mut Findings) {
    let dir = &settings.policies_dir;
    match PolicyHost::load(dir) {
        Ok(host) => findings.lines.ok("policies", format!("{} compiles", host.policy_id())),
        Err(error) => {
            findings.fail(USAGE, "policies", error.to_string(), "mend the line; the server does not start with it");
            return;
        }
    }
    match run_cases(dir) {
        Ok(report) if report.passed() => {
            findings.lines.ok("policy cases", format!("{} pass", report.cases.len()));
        }
        Ok(report) if report.cases.is_empty() => {
            let mend = "write cases beside the scripts: policies/README.md";
            findings.lines.warn("policy cases", "there are none", mend);
        }
        Ok(report) => {
            let failed = report.cases.iter().filter(|c| !c.differences.is_empty()).count();
            let mend = "countersign policy test shows which, and what differs";
            findings.fail(FINDINGS, "policy cases", format!("{failed} of {} fail", report.cases.len()), mend);
        }
        Err(error) => findings.fail(FINDINGS, "policy cases", error.to_string(), "mend the test file"),
    }
}

fn examine_files(settings: &Settings, findings: &mut Findings) {
    match offline::load_plugins(settings, None) {
        Ok(_) if settings.plugins_lock.is_none() => findings.lines.idle("plugins", "none are configured"),
        Ok((host, _copies)) => {
            let shown: Vec<String> = host
                .describe()
                .into_iter()
                .map(|p| format!("{} {} ({})", p.id, p.version, p.sha256.get(..12).unwrap_or_default()))
                .collect();
            let shown = if shown.is_empty() { "the list is empty".to_owned() } else { shown.join(", ") };
            findings.lines.ok("plugins", shown);
        }
        Err(error) => {
            let mend = "review the file, then `countersign plugin lock FILE` gives its entry";
            findings.fail(USAGE, "plugins", chain(&error), mend);
        }
    }
    match GeoDatabases::open(settings.geoip_city.as_deref(), settings.geoip_asn.as_deref()) {
        Ok(_) if settings.geoip_city.is_none() && settings.geoip_asn.is_none() => {
            findings.lines.idle("geoip", "no database is configured: places are unknown to the rules");
        }
        Ok(_) => findings.lines.ok("geoip", "the databases open"),
        Err(error) => {
            findings.fail(USAGE, "geoip", chain(&error), "fetch the database again, or leave the key out")
        }
    }
}

/// The master key refuses to be read when it is open to others, so it is not looked at again.
fn examine_permissions(settings: &Settings, findings: &mut Findings) {
    let mode = |path: &Path| std::fs::metadata(path).ok().map(|m| m.permissions().mode() & 0o777);
    let store = settings.store_url.strip_prefix("sqlite://").map(Path::new);
    let mut open = Vec::new();
    if let Some(store) = store
        && mode(store).is_some_and(|m| m & 0o077 != 0)
    {
        open.push(format!("chmod 600 {}", store.display()));
    }
    let writable = [Some(&settings.policies_dir), settings.plugins_lock.as_ref()];
    for path in writable.into_iter().flatten().filter(|p| mode(p).is_some_and(|m| m & 0o022 != 0)) {
        open.push(format!("chmod go-w {}", path.display()));
    }
    if open.is_empty() {
        findings.lines.ok("permissions", "store, policies and plugin list are closed to others");
    } else {
        findings.lines.warn(
            "permissions",
            "others can read the store or write what the server runs",
            &open.join("; "),
        );
    }
}

async fn examine_providers(settings: &Settings, directory: &LiveDirectory, findings: &mut Findings) {
    let tenants = directory.tenant_entries();
    let entries: Vec<_> = tenants.iter().flat_map(|t| directory.provider_entries(&t.tenant.id)).collect();
    for broken in entries.iter().filter(|entry| !entry.problems.is_empty()) {
        let what = format!("{}/{}", broken.tenant, broken.name);
        let mend = "PUT /admin/providers/{name} with settings that fit, or delete it";
        findings.fail(FINDINGS, &what, broken.problems.join("; "), mend);
    }
    if !entries.iter().any(|entry| entry.enabled) {
        findings.lines.warn("providers", "none is enabled: nobody can sign in", "add [[providers]], or enable one");
        return;
    }
    let fetcher = match offline::fetcher(settings) {
        Ok(fetcher) => fetcher,
        Err(error) => {
            findings.fail(FINDINGS, "providers", chain(&error), "install the system's CA certificates");
            return;
        }
    };
    for provider in entries.iter().filter(|entry| entry.enabled).filter_map(|entry| entry.provider.as_ref()) {
        let inspection = inspect(&fetcher, provider).await;
        for line in describe(provider, &inspection, SystemClock.now()).0 {
            let what = format!("{}/{} {}", provider.tenant, provider.name, line.what);
            match line.mark {
                Mark::Fail => findings.fail(FINDINGS, &what, line.found, line.mend.as_deref().unwrap_or_default()),
                _ => findings.lines.0.push(Line { what, ..line }),
            }
        }
    }
}
