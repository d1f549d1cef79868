//! Tries a plugin before anybody trusts it: in a process of its own, without network, with inputs that a
//! server sends and with inputs that it never would.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_plugin_sdk::abi::{CS_CANCELLED, CS_OK};
use data_encoding::HEXLOWER;

use super::error::{HandshakeFault, PluginLoadError};
use super::hook::Hook;
use super::instance::RawReply;
use super::load::{self, Traits};
use super::lock::{Entry, Isolation};
use super::lock_grants::is_secret_name;
use super::manifest::Manifest;
use super::plugin::{Answer, Failure, Plugin, Runner, judge};
use super::process::{Process, Spec};
use super::sample;
use super::schema;
use super::services::{Granted, HostServices, Service, ServiceGrants, Services, printable};
use super::view::{ClaimGrant, Grants};
use super::wire::{Start, Started};

const START_LIMIT: Duration = Duration::from_secs(10);
/// Generous: what is looked for is a hang.
const CALL_LIMIT: Duration = Duration::from_secs(2);
const MEMORY_BYTES: u64 = 1 << 30;
const LINE_LIMIT_BYTES: usize = 2048;
/// Lines about the answer to one input.
const FAULTS_SHOWN: usize = 20;
/// Calls before memory is looked at first, and those of a round after it: ten thousand in all.
const WARM_UP: usize = 1_000;
const ROUNDS: usize = 3;
const ROUND_CALLS: usize = 3_000;
/// A plugin that waits in each call is not waited for longer.
const LEAK_LIMIT: Duration = Duration::from_secs(60);
/// What a round may keep. An allocator needs some room.
const GROWTH_BYTES: u64 = (4 << 20) / ROUNDS as u64;

/// What was tried, and how it went.
#[derive(Debug, Default)]
pub struct CheckReport {
    lines: Vec<(bool, String)>,
}

impl CheckReport {
    fn fine(&mut self, what: impl Into<String>) {
        self.add(true, &what.into());
    }

    fn finding(&mut self, what: impl Into<String>) {
        self.add(false, &what.into());
    }

    /// Names that a plugin gave stand in some of them, and the report goes to a terminal.
    fn add(&mut self, fine: bool, what: &str) {
        self.lines.push((fine, printable(what.as_bytes(), LINE_LIMIT_BYTES)));
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.lines.iter().all(|(fine, _)| *fine)
    }

    /// Each thing that was tried: whether it is fine, and what was seen.
    #[must_use]
    pub fn lines(&self) -> &[(bool, String)] {
        &self.lines
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fine, what) in &self.lines {
            writeln!(f, "{} {what}", if *fine { "ok     " } else { "FINDING" })?;
        }
        let findings = self.lines.iter().filter(|(fine, _)| !fine).count();
        writeln!(f, "{} tried, {findings} findings", self.lines.len())
    }
}

/// What a command is told.
pub struct Trial<'a> {
    /// The plugin's file.
    pub file: &'a Path,
    /// What `create` gets.
    pub config_json: &'a str,
    /// The services of the command: secrets, if any.
    pub services: Services,
}

/// A plugin that runs in a process for a command.
struct Tried {
    plugin: Plugin,
    process: Arc<Process>,
    started: Started,
    hooks: Vec<Hook>,
    unknown_hooks: Vec<String>,
    _store: tempfile::TempDir,
}

fn begin(
    trial: &Trial<'_>,
    copy: &Path,
    describe_only: bool,
    hooks: &[Hook],
    secrets: &[String],
) -> Result<(Arc<Process>, Started), HandshakeFault> {
    let secrets = secrets.iter().filter(|name| is_secret_name(name)).cloned().collect();
    let grants = ServiceGrants { secrets, ..ServiceGrants::default() };
    let plugin = trial.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let services = Arc::new(Granted::new(&plugin, grants, trial.services.clone()));
    let start = Start {
        copy: copy.to_string_lossy().into_owned(),
        identity: None,
        describe_only,
        config_json: trial.config_json.to_owned(),
        hooks: hooks.iter().map(|h| h.name().to_owned()).collect(),
        threads: 8,
        memory_bytes: MEMORY_BYTES,
        offers_fetch: services.offers(Service::Fetch),
        offers_kv: services.offers(Service::KvGet),
    };
    let program = trial.services.program.clone();
    Process::start(Spec { program, plugin, start, start_limit: START_LIMIT }, services)
}

/// What a plugin says of itself, in a process of its own and without an instance.
pub(super) struct Described {
    /// Absolute.
    pub(super) file: PathBuf,
    pub(super) sha256: [u8; 32],
    pub(super) started: Started,
    copy: PathBuf,
    store: tempfile::TempDir,
}

impl Described {
    fn refused(&self, fault: HandshakeFault) -> PluginLoadError {
        refused(&self.file, &self.sha256, fault)
    }
}

fn refused(file: &Path, sha256: &[u8; 32], fault: HandshakeFault) -> PluginLoadError {
    let (file, sha256) = (file.to_owned(), HEXLOWER.encode(sha256));
    PluginLoadError::Refused { id: "?".to_owned(), file, sha256, fault: Box::new(fault) }
}

pub(super) fn describe_file(trial: &Trial<'_>) -> Result<Described, PluginLoadError> {
    let file = std::path::absolute(trial.file).unwrap_or_else(|_| trial.file.to_owned());
    let (bytes, sha256) = load::read_checked(&file)?;
    let io = |source| PluginLoadError::Io { path: file.clone(), what: "no copy can be kept", source };
    let store = tempfile::tempdir().map_err(io)?;
    let copy = load::keep_copy(store.path(), &bytes, &sha256)?;
    let (_, started) = begin(trial, &copy, true, &[], &[]).map_err(|fault| refused(&file, &sha256, fault))?;
    Ok(Described { file, sha256, started, copy, store })
}

/// Starts the plugin with every hook of its manifest.
fn try_out(trial: &Trial<'_>) -> Result<Tried, PluginLoadError> {
    let described = describe_file(trial)?;
    let manifest = Manifest::parse(described.started.manifest.as_deref());
    let hooks: Vec<Hook> = manifest.hooks.iter().filter_map(|name| Hook::find(name)).collect();
    let begun = begin(trial, &described.copy, false, &hooks, &manifest.requests.secrets);
    let (process, started) = begun.map_err(|fault| described.refused(fault))?;
    let traits = Traits {
        vendor: started.vendor.clone(),
        is_thread_safe: started.is_thread_safe,
        may_block: started.may_block,
    };
    let entry = Entry {
        id: started.id.clone(),
        version: started.version.clone(),
        sha256: described.sha256,
        file: described.file,
        hooks: hooks.clone(),
        bind: Vec::new(),
        isolation: Isolation::Process { memory_bytes: MEMORY_BYTES },
        mfa: None,
        grants: Grants { facts: BTreeSet::new(), claims: ClaimGrant::All, events: BTreeSet::new() },
        services: ServiceGrants::default(),
        config_json: trial.config_json.to_owned(),
        deadline: CALL_LIMIT,
        max_in_flight: None,
        max_queued: 64,
    };
    let plugin = Plugin::new(entry, Runner::Apart(Arc::clone(&process)), traits);
    let unknown_hooks = manifest.hooks.into_iter().filter(|name| Hook::find(name).is_none()).collect();
    Ok(Tried { plugin, process, started, hooks, unknown_hooks, _store: described.store })
}

impl Tried {
    async fn call(&self, hook: Hook, input: &[u8]) -> Result<RawReply, Failure> {
        self.plugin.run(hook, input.to_vec(), Instant::now()).await
    }

    fn held_bytes(&self) -> u64 {
        let status = self.process.pid().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")));
        let status = status.and_then(Result::ok).unwrap_or_default();
        let held = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        held.and_then(|h| h.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) << 10
    }
}

/// Tries a plugin. The report tells what was tried and what was found.
///
/// # Errors
/// When the file cannot be read or copied; a plugin that does not start is a finding.
pub async fn check(trial: &Trial<'_>) -> Result<CheckReport, PluginLoadError> {
    let mut report = CheckReport::default();
    let tried = match try_out(trial) {
        Ok(tried) => tried,
        Err(PluginLoadError::Refused { fault, .. }) => {
            report.finding(format!("it does not start: {fault}"));
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let Started { id, version, vendor, .. } = &tried.started;
    report.fine(format!("{id} {version} by {vendor}: handshake, self-test and create"));
    if !super::lock::is_plugin_id(id) {
        report.finding(format!("its id \"{id}\" cannot stand in a lock: 1 to 64 of a-z 0-9 . _ -, a letter first"));
    }
    for hook in &tried.unknown_hooks {
        report.finding(format!("its manifest names the hook \"{hook}\", which is none"));
    }
    if tried.hooks.is_empty() {
        report.finding("its manifest names no hook, so nothing more can be tried; add cs_ext_meta");
    }
    for hook in tried.hooks.clone() {
        check_hook(&tried, hook, &mut report).await;
    }
    Ok(report)
}

async fn check_hook(tried: &Tried, hook: Hook, report: &mut CheckReport) {
    let name = hook.name();
    let begun = Instant::now();
    let sample = sample::input(hook);
    match tried.call(hook, sample.to_string().as_bytes()).await {
        Ok(reply) => match describe(&reply, hook) {
            Ok(what) => {
                report.fine(format!("{name}: an ordinary input gives {what} in {:.1?}", begun.elapsed()));
                check_schema(&reply, hook, report);
            }
            Err(what) => report.finding(format!("{name}: an ordinary input gives {what}")),
        },
        Err(failure) => {
            return report.finding(format!("{name}: an ordinary input gives no answer: {}", failure.as_str()));
        }
    }
    if hook == Hook::Observe {
        let told = sample::security_event().to_string();
        match tried.call(hook, told.as_bytes()).await.map(|reply| describe(&reply, hook)) {
            Ok(Ok(what)) => report.fine(format!("{name}: a security event gives {what}")),
            Ok(Err(what)) => report.finding(format!("{name}: a security event gives {what}")),
            Err(failure) => {
                report.finding(format!("{name}: a security event gives no answer: {}", failure.as_str()))
            }
        }
    }
    let mut wider = sample.clone();
    wider["a_member_of_a_later_version"] = serde_json::json!({ "x": [1, 2, 3] });
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let hostile: [(&str, Vec<u8>); 7] = [
        ("a member that it does not know", wider.to_string().into_bytes()),
        ("an empty object", b"{}".to_vec()),
        ("no object", b"[]".to_vec()),
        ("nothing", Vec::new()),
        ("no JSON", b"{\"tenant\": \xff\xfe".to_vec()),
        ("200 brackets", deep.into_bytes()),
        ("a text of 200 KiB", serde_json::json!({ "tenant": "x".repeat(200 << 10) }).to_string().into_bytes()),
    ];
    for (what, input) in hostile {
        let deaths = tried.plugin.info().process_deaths;
        let pid = tried.process.pid();
        match tried.call(hook, &input).await {
            Ok(reply) => match describe(&reply, hook) {
                Ok(status) => report.fine(format!("{name}: {what} gives {status}")),
                Err(wrong) => report.finding(format!("{name}: {what} gives {wrong}")),
            },
            Err(failure) => report.finding(format!("{name}: {what} gives no answer: {}", failure.as_str())),
        }
        if tried.process.pid() != pid || tried.plugin.info().process_deaths != deaths {
            report.finding(format!("{name}: {what} ends the process"));
            return;
        }
    }
    check_leak(tried, hook, sample.to_string().as_bytes(), report).await;
}

/// Whether an answer fits the published schema of its operation.
fn check_schema(reply: &RawReply, hook: Hook, report: &mut CheckReport) {
    let Answer::Object(answer) = judge(reply, hook.answer_limit_bytes()) else { return };
    let name = hook.name();
    let faults = schema::answer_faults(hook, &answer.into());
    if faults.is_empty() {
        report.fine(format!("{name}: the answer fits plugins/schemas/{name}.out.json"));
    }
    for fault in faults.iter().take(FAULTS_SHOWN) {
        report.finding(format!("{name}: the answer does not fit plugins/schemas/{name}.out.json at {fault}"));
    }
}

async fn check_leak(tried: &Tried, hook: Hook, input: &[u8], report: &mut CheckReport) {
    let name = hook.name();
    let mut made = 0;
    let until = Instant::now() + LEAK_LIMIT;
    if let Err(failure) = call_often(tried, hook, input, WARM_UP, &mut made, until).await {
        return report.finding(format!("{name}: call {made} gives no answer: {}", failure.as_str()));
    }
    let mut grown = [0; ROUNDS];
    for kept in &mut grown {
        let before = tried.held_bytes();
        if let Err(failure) = call_often(tried, hook, input, ROUND_CALLS, &mut made, until).await {
            return report.finding(format!("{name}: call {made} gives no answer: {}", failure.as_str()));
        }
        *kept = tried.held_bytes().saturating_sub(before);
    }
    if made < WARM_UP + ROUNDS * ROUND_CALLS {
        let limit = LEAK_LIMIT.as_secs();
        return report.fine(format!("{name}: {made} calls in {limit} s, too few to tell whether it leaks"));
    }
    // What leaks grows in every round; what an allocator takes once does not.
    let leaks = grown.iter().all(|bytes| *bytes > GROWTH_BYTES);
    let all: Vec<String> = grown.iter().map(|bytes| (bytes >> 10).to_string()).collect();
    let what = format!("{name}: {} KiB more after each {ROUND_CALLS} calls", all.join(", then "));
    if leaks { report.finding(format!("{what}: it leaks")) } else { report.fine(what) }
}

async fn call_often(
    tried: &Tried,
    hook: Hook,
    input: &[u8],
    times: usize,
    made: &mut usize,
    until: Instant,
) -> Result<(), Failure> {
    for _ in 0..times {
        if Instant::now() >= until {
            break;
        }
        tried.call(hook, input).await?;
        *made += 1;
    }
    Ok(())
}

/// The status in words; `Err` when the host could not use the reply.
fn describe(reply: &RawReply, hook: Hook) -> Result<String, String> {
    if reply.overflowed {
        return Err("more than 1 MiB".to_owned());
    }
    let (status, limit) = (reply.status, hook.answer_limit_bytes());
    match judge(reply, limit) {
        Answer::Failed(Failure::Invalid) if status == CS_OK => Err(format!(
            "CS_OK with {} bytes that are no JSON object of at most {limit} bytes in UTF-8",
            reply.output.len()
        )),
        _ if !(CS_OK..=CS_CANCELLED).contains(&status) => Err(format!("the status {status}, which is none")),
        Answer::Object(_) => Ok(format!("CS_OK with {} bytes", reply.output.len())),
        Answer::Declined => Ok("CS_DECLINED".to_owned()),
        Answer::Rejected(code) => Ok(format!("CS_REJECT ({code})")),
        Answer::Failed(failure) => Ok(failure.as_str().to_owned()),
    }
}

/// Times of calls, in microseconds.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Times {
    /// Half of the calls were faster.
    pub p50_us: f64,
    /// 99 of 100 calls were faster.
    pub p99_us: f64,
    /// All calls, one after the other.
    pub calls: usize,
}

/// A plugin at work for a command: through permits, pool and deadline as in the server.
pub struct Driven {
    plugin: Plugin,
    hooks: Vec<Hook>,
    _tried: Option<Tried>,
}

impl Driven {
    /// In a process of its own.
    ///
    /// # Errors
    /// When the plugin does not start.
    pub fn apart(trial: &Trial<'_>) -> Result<Self, PluginLoadError> {
        let mut tried = try_out(trial)?;
        let entry = tried.plugin.entry.clone();
        let traits = Traits { is_thread_safe: tried.started.is_thread_safe, ..Traits::default() };
        let runner = Runner::Apart(Arc::clone(&tried.process));
        let plugin = std::mem::replace(&mut tried.plugin, Plugin::new(entry, runner, traits));
        Ok(Self { plugin, hooks: tried.hooks.clone(), _tried: Some(tried) })
    }

    /// In this process: a crash is the command's. It is tried in a process of its own first.
    ///
    /// # Errors
    /// When the plugin does not start.
    pub fn here(trial: &Trial<'_>) -> Result<Self, PluginLoadError> {
        let tried = try_out(trial)?;
        let entry = Entry { isolation: Isolation::InProcess, ..tried.plugin.entry.clone() };
        let plugin = load::load_for_command(entry, &trial.services)?;
        Ok(Self { plugin, hooks: tried.hooks, _tried: None })
    }

    /// Calls a hook of the manifest, by name. Whatever comes is not looked at.
    pub async fn call(&self, hook: &str, input: Vec<u8>) {
        if let Some(hook) = Hook::find(hook).filter(|h| self.hooks.contains(h)) {
            let _ = self.plugin.run(hook, input, Instant::now()).await;
        }
    }

    /// Measures every hook of the manifest with an ordinary input.
    pub async fn measure(&self, calls: usize) -> Vec<(String, Times)> {
        let mut measured = Vec::new();
        for hook in &self.hooks {
            let input = sample::input(*hook).to_string().into_bytes();
            let mut times = Vec::with_capacity(calls);
            for _ in 0..calls {
                let begun = Instant::now();
                let _ = self.plugin.run(*hook, input.clone(), begun).await;
                times.push(begun.elapsed());
            }
            times.sort_unstable();
            let at =
                |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default().as_secs_f64() * 1e6;
            measured.push((hook.name().to_owned(), Times { p50_us: at(50), p99_us: at(99), calls }));
        }
        measured
    }
}

/// One operation of a plugin in this process, called straight: neither pool nor deadline.
pub struct Bare {
    instance: Arc<super::instance::Instance>,
    hook: Hook,
    _plugin: Plugin,
}

impl Bare {
    /// Loads the plugin into this process.
    ///
    /// # Errors
    /// When the plugin does not start or lacks the hook.
    pub fn load(trial: &Trial<'_>, hook: &str) -> Result<Self, PluginLoadError> {
        let plugin = Driven::here(trial)?.plugin;
        let (Some(hook), Runner::Here { instance, .. }) = (Hook::find(hook), &plugin.runner) else {
            let what = "the plugin has no such hook";
            return Err(PluginLoadError::Unsafe { path: trial.file.to_owned(), what });
        };
        Ok(Self { instance: Arc::clone(instance), hook, _plugin: plugin })
    }

    /// Calls, and gives the size of the answer.
    #[must_use]
    pub fn call(&self, input: &[u8]) -> usize {
        let reply = self.instance.call(self.hook, input, Instant::now() + CALL_LIMIT);
        reply.map_or(0, |reply| reply.output.len())
    }
}
