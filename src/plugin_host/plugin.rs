//! One plugin at work: who may call, how long, and what the answer is worth.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use countersign_plugin_sdk::abi::{
    CS_CANCELLED, CS_DECLINED, CS_INTERNAL, CS_OK, CS_REJECT, CS_TIMEOUT, CS_UNAVAILABLE,
};
use data_encoding::HEXLOWER;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use super::PluginInfo;
use super::hook::Hook;
use super::in_flight::{GRACE, InFlight};
use super::instance::{Instance, RawReply};
use super::load::Traits;
use super::lock::{Bind, Entry};
use super::lock_mfa::Offer;
use super::marker::{Label, Marker};
use super::pool::Pool;
use super::process::Process;
use super::view::EventKind;
use crate::signin::json;
use crate::signin::provider::Provider;

/// So many calls that did not return make the plugin unavailable until they do.
const STUCK_LIMIT: usize = 3;
const DEFAULT_IN_FLIGHT: usize = 8;
const DEFAULT_IN_FLIGHT_BLOCKING: usize = 32;
/// A loaded plugin.
pub(super) struct Plugin {
    info: PluginInfo,
    pub(super) entry: Entry,
    pub(super) runner: Runner,
    permits: Arc<Semaphore>,
    max_in_flight: usize,
    queued: AtomicUsize,
    in_flight: Arc<InFlight>,
}

/// Where the calls go.
pub(super) enum Runner {
    /// Into this process.
    Here { instance: Arc<Instance>, pool: Pool, marker: Arc<Marker>, label: Arc<Label> },
    /// To a process of the plugin's own.
    Apart(Arc<Process>),
    /// Nowhere: it is kept out for this reason.
    Nowhere(String),
}

/// What a plugin answered.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Object(Map<String, Value>),
    Declined,
    Rejected(String),
    Failed(Failure),
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It says that something is out of reach.
    Unavailable,
    /// Too many calls wait already.
    Busy,
    /// Too many earlier calls have not returned.
    Stuck,
    /// It was not done in time.
    Timeout,
    /// What it gave is not usable.
    Invalid,
    /// A fault of its own, a contained panic among them.
    Internal,
    /// It is kept out.
    Quarantined,
}

impl Failure {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
            Self::Stuck => "stuck",
            Self::Timeout => "timeout",
            Self::Invalid => "invalid",
            Self::Internal => "internal",
            Self::Quarantined => "quarantined",
        }
    }
}

impl Plugin {
    pub(super) fn new(entry: Entry, runner: Runner, traits: Traits) -> Self {
        let default = if traits.may_block { DEFAULT_IN_FLIGHT_BLOCKING } else { DEFAULT_IN_FLIGHT };
        // A permit is held until the call returns, so one permit is what serialises.
        let max_in_flight = if traits.is_thread_safe { entry.max_in_flight.unwrap_or(default) } else { 1 };
        let info = PluginInfo {
            id: entry.id.clone(),
            version: entry.version.clone(),
            vendor: traits.vendor,
            sha256: HEXLOWER.encode(&entry.sha256),
            hooks: entry.hooks.iter().map(|h| h.name().to_owned()).collect(),
            mfa_method: entry.mfa.as_ref().map(Offer::method),
            isolation: entry.isolation.name().to_owned(),
            ..PluginInfo::default()
        };
        Self {
            info,
            entry,
            runner,
            permits: Arc::new(Semaphore::new(max_in_flight)),
            max_in_flight,
            queued: AtomicUsize::new(0),
            in_flight: Arc::default(),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.entry.id
    }

    pub(super) fn info(&self) -> PluginInfo {
        let mut info = self.info.clone();
        info.in_flight = self.max_in_flight.saturating_sub(self.permits.available_permits());
        info.stuck = self.in_flight.stuck(Instant::now());
        match &self.runner {
            Runner::Here { .. } => {}
            Runner::Apart(process) => {
                info.pid = process.pid();
                info.process_deaths = process.deaths();
                if info.pid.is_none() {
                    info.trouble = Some("its process ended and is being started again".to_owned());
                }
            }
            Runner::Nowhere(why) => info.trouble = Some(why.clone()),
        }
        if info.stuck >= self.stuck_limit() {
            info.trouble = Some(format!("{} calls did not return", info.stuck));
        }
        info
    }

    pub(super) fn has(&self, hook: Hook) -> bool {
        self.entry.hooks.contains(&hook)
    }

    /// Whether it observes, and gets to hear of these.
    pub(super) fn hears(&self, kind: EventKind) -> bool {
        self.has(Hook::Observe) && self.entry.grants.events.contains(&kind)
    }

    pub(super) fn deadline(&self) -> Duration {
        self.entry.deadline
    }

    pub(super) fn is_kept_out(&self) -> bool {
        matches!(self.runner, Runner::Nowhere(_))
    }

    /// Whether replacing it leaves a mapping behind.
    pub(super) fn is_mapped(&self) -> bool {
        matches!(self.runner, Runner::Here { .. })
    }

    /// Whether calls are inside of it.
    pub(super) fn is_busy(&self) -> bool {
        self.permits.available_permits() < self.max_in_flight
    }

    pub(super) fn is_bound_to(&self, to: &Provider) -> bool {
        self.entry.bind.iter().any(|bind| match bind {
            Bind::Every => true,
            Bind::Named { tenant, provider } => {
                **provider == *to.name && tenant.as_ref().is_none_or(|t| t == to.tenant.as_str())
            }
        })
    }

    fn stuck_limit(&self) -> usize {
        STUCK_LIMIT.min(self.max_in_flight)
    }

    /// Asks, waits at most for the deadline and its grace, counts, and logs a failure.
    pub(super) async fn ask(&self, hook: Hook, input: Vec<u8>) -> Answer {
        let begun = Instant::now();
        let answer = match self.run(hook, input, begun).await {
            Ok(reply) => judge(&reply, hook.answer_limit_bytes()),
            Err(failure) => Answer::Failed(failure),
        };
        let outcome = match &answer {
            Answer::Object(_) => "ok",
            Answer::Declined => "declined",
            Answer::Rejected(_) => "rejected",
            Answer::Failed(failure) => failure.as_str(),
        };
        let elapsed = begun.elapsed();
        let id = self.entry.id.clone();
        metrics::counter!("countersign_plugin_calls_total", "plugin" => id.clone(), "op" => hook.name(), "outcome" => outcome)
            .increment(1);
        metrics::histogram!("countersign_plugin_call_seconds", "plugin" => id.clone(), "op" => hook.name())
            .record(elapsed.as_secs_f64());
        metrics::gauge!("countersign_plugin_stuck_calls", "plugin" => id)
            .set(u32::try_from(self.in_flight.stuck(Instant::now())).unwrap_or(u32::MAX));
        if let Answer::Failed(_) = answer {
            let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(plugin.id = %self.entry.id, op = hook.name(), outcome, elapsed_ms, "plugin gave no answer");
        }
        answer
    }

    /// Calls, and waits at most for the deadline and its grace.
    pub(super) async fn run(&self, hook: Hook, input: Vec<u8>, begun: Instant) -> Result<RawReply, Failure> {
        let deadline = begun + self.entry.deadline;
        let hard = deadline + GRACE;
        if self.in_flight.stuck(begun) >= self.stuck_limit() {
            // A process can be ended, and begins anew; a native call in this one cannot.
            if let Runner::Apart(process) = &self.runner {
                process.kill();
            }
            return Err(Failure::Stuck);
        }
        if self.is_kept_out() {
            return Err(Failure::Quarantined);
        }
        let permit = self.permit(deadline).await?;
        let told = match &self.runner {
            Runner::Here { instance, pool, marker, label } => {
                let (entered, told) = self.in_flight.enter(hard);
                let (instance, marker, label) = (Arc::clone(instance), Arc::clone(marker), Arc::clone(label));
                pool.submit(Box::new(move || {
                    // The permit goes last, when the call has really returned.
                    let _permit = permit;
                    if Instant::now() >= deadline {
                        return;
                    }
                    let inside = marker.enter(&label, Some(hook));
                    let reply = instance.call(hook, &input, deadline);
                    drop(inside);
                    if let Some(reply) = reply {
                        entered.finish(reply);
                    }
                }));
                told
            }
            Runner::Apart(process) => {
                let (entered, told) = self.in_flight.enter(hard);
                let sent = process.call(hook, &input, deadline, permit, entered);
                sent.map_err(|_| Failure::Unavailable)?;
                told
            }
            Runner::Nowhere(_) => return Err(Failure::Quarantined),
        };
        match told.await {
            Ok(reply) => Ok(reply),
            Err(_) if Instant::now() < deadline => Err(Failure::Unavailable),
            Err(_) => Err(Failure::Timeout),
        }
    }

    async fn permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, Failure> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let Some(_place) = Place::take(&self.queued, self.entry.max_queued) else { return Err(Failure::Busy) };
        match timeout_at(deadline.into(), Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Failure::Unavailable),
            Err(_) => Err(Failure::Timeout),
        }
    }
}

/// A place in the queue.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(queued: &'a AtomicUsize, max: usize) -> Option<Self> {
        let place = Self(queued);
        if queued.fetch_add(1, Ordering::Relaxed) < max { Some(place) } else { None }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn judge(reply: &RawReply, limit: usize) -> Answer {
    let failed = Answer::Failed;
    match reply.status {
        // A refusal stands, whatever became of its code.
        CS_REJECT => Answer::Rejected(reject_code(&reply.output)),
        _ if reply.overflowed => failed(Failure::Invalid),
        CS_OK => read_object(&reply.output, limit).map_or(failed(Failure::Invalid), Answer::Object),
        CS_DECLINED => Answer::Declined,
        CS_UNAVAILABLE | CS_CANCELLED => failed(Failure::Unavailable),
        CS_TIMEOUT => failed(Failure::Timeout),
        CS_INTERNAL => failed(Failure::Internal),
        _ => failed(Failure::Invalid),
    }
}

fn read_object(output: &[u8], limit: usize) -> Option<Map<String, Value>> {
    if output.len() > limit || std::str::from_utf8(output).is_err() {
        return None;
    }
    json::parse_object(output).ok()
}

/// The code of a refusal; one that is none becomes `rejected`: the refusal stands either way.
fn reject_code(output: &[u8]) -> String {
    let told = read_object(output, 1024);
    let code = told.as_ref().and_then(|o| o.get("code")).and_then(Value::as_str).unwrap_or_default();
    let fine = (1..=48).contains(&code.len())
        && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if fine { code.to_owned() } else { "rejected".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER_LIMIT_BYTES: usize = 1000;

    fn judge(reply: &RawReply) -> Answer {
        super::judge(reply, ANSWER_LIMIT_BYTES)
    }

    fn reply(status: i32, output: &[u8]) -> RawReply {
        RawReply { status, output: output.to_vec(), overflowed: false }
    }

    #[test]
    fn only_a_small_object_in_utf8_is_an_answer() {
        assert_eq!(judge(&reply(0, b"{}")), Answer::Object(Map::new()));
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(ANSWER_LIMIT_BYTES));
        for output in [&b""[..], b"[]", b"{", b"{\"a\":1,\"a\":2}", b"{\"a\":\"\xff\"}", large.as_bytes()] {
            assert_eq!(judge(&reply(0, output)), Answer::Failed(Failure::Invalid));
        }
        let overflowed = RawReply { overflowed: true, ..reply(0, b"{}") };
        assert_eq!(judge(&overflowed), Answer::Failed(Failure::Invalid));
    }

    #[test]
    fn a_refusal_stands_whatever_its_code() {
        for (output, code) in [
            (&b"{\"code\":\"on_a_list\"}"[..], "on_a_list"),
            (b"{\"code\":\"Not A Code\"}", "rejected"),
            (b"{\"code\":\"\"}", "rejected"),
            (b"{\"code\":7}", "rejected"),
            (b"garbage", "rejected"),
            (b"", "rejected"),
        ] {
            assert_eq!(judge(&reply(2, output)), Answer::Rejected(code.to_owned()));
        }
        let overflowed = RawReply { overflowed: true, ..reply(2, b"") };
        assert_eq!(judge(&overflowed), Answer::Rejected("rejected".to_owned()));
    }

    #[test]
    fn a_status_that_is_none_is_a_failure_and_never_an_answer() {
        for status in [-1, 5, 8, i32::MAX, i32::MIN] {
            assert_eq!(judge(&reply(status, b"{}")), Answer::Failed(Failure::Invalid));
        }
    }

    #[test]
    fn places_in_the_queue_are_counted_and_given_back() {
        let queued = AtomicUsize::new(0);
        let (first, second) = (Place::take(&queued, 2), Place::take(&queued, 2));
        assert!(first.is_some() && second.is_some() && Place::take(&queued, 2).is_none());
        drop(first);
        assert!(Place::take(&queued, 2).is_some());
    }
}
