//! Ended sign-ins on their way to `event.observe`: a queue for each plugin, emptied by a task of its own.
//! At least once while the process lives; after a failure again, with growing pauses, for 24 h.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::hook::Hook;
use super::plugin::{Answer, Plugin};
use super::view::{EventKind, millis};
use crate::signin::history::PastEnd;
use crate::signin::record::SignInRecord;

/// Events that wait for one plugin; beyond them the oldest go.
const QUEUE_LIMIT: usize = 10_000;
const LIFE: Duration = Duration::from_secs(86_400);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a task outlives its host at most.
const IDLE: Duration = Duration::from_secs(1);

/// The queues, by plugin: a reloaded plugin goes on with that of its predecessor.
pub(super) struct Events {
    queues: Mutex<HashMap<String, Arc<Queue>>>,
    plugins: Weak<ArcSwap<Vec<Arc<Plugin>>>>,
}

struct Queue {
    waiting: Mutex<VecDeque<Event>>,
    more: Notify,
}

struct Event {
    body: Arc<Value>,
    since: Instant,
    attempts: u32,
}

impl Events {
    pub(super) fn new(plugins: &Arc<ArcSwap<Vec<Arc<Plugin>>>>) -> Self {
        Self { queues: Mutex::default(), plugins: Arc::downgrade(plugins) }
    }

    /// Puts the event into the queue of every plugin that observes. Never waits.
    pub(super) fn push(&self, plugins: &[Arc<Plugin>], record: &SignInRecord) {
        let mut body = None;
        for plugin in plugins.iter().filter(|p| p.hears(EventKind::SignIn)) {
            let body = body.get_or_insert_with(|| Arc::new(event(record)));
            let event = Event { body: Arc::clone(body), since: Instant::now(), attempts: 0 };
            let Some(queue) = self.queue(plugin.id()) else {
                dropped(plugin.id(), "no_runtime");
                continue;
            };
            let mut waiting = queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= QUEUE_LIMIT {
                waiting.pop_front();
                dropped(plugin.id(), "full");
            }
            waiting.push_back(event);
            drop(waiting);
            queue.more.notify_one();
        }
    }

    fn queue(&self, plugin: &str) -> Option<Arc<Queue>> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(plugin) {
            return Some(Arc::clone(queue));
        }
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let queue = Arc::new(Queue { waiting: Mutex::default(), more: Notify::new() });
        runtime.spawn(deliver(plugin.to_owned(), Arc::downgrade(&queue), self.plugins.clone()));
        queues.insert(plugin.to_owned(), Arc::clone(&queue));
        Some(queue)
    }
}

fn dropped(plugin: &str, why: &'static str) {
    metrics::counter!("countersign_plugin_events_dropped_total", "plugin" => plugin.to_owned(), "why" => why)
        .increment(1);
}

/// Empties one queue until the host is gone.
async fn deliver(id: String, held: Weak<Queue>, plugins: Weak<ArcSwap<Vec<Arc<Plugin>>>>) {
    let mut pause = FIRST_PAUSE;
    while let Some(queue) = held.upgrade() {
        let next = queue.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(mut event) = next else {
            let _ = tokio::time::timeout(IDLE, queue.more.notified()).await;
            continue;
        };
        if event.since.elapsed() >= LIFE {
            dropped(&id, "too_old");
            continue;
        }
        event.attempts += 1;
        if attempt(&id, &event, &plugins).await {
            pause = FIRST_PAUSE;
            continue;
        }
        queue.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_front(event);
        drop(queue);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether the event is settled. A plugin that was taken out of the lock may come back.
async fn attempt(id: &str, event: &Event, plugins: &Weak<ArcSwap<Vec<Arc<Plugin>>>>) -> bool {
    let Some(plugins) = plugins.upgrade() else { return false };
    let plugin = plugins.load().iter().find(|p| p.id() == id && p.hears(EventKind::SignIn)).map(Arc::clone);
    let Some(plugin) = plugin else { return false };
    let mut body = Value::clone(&event.body);
    body["attempt"] = event.attempts.into();
    body["deadline_ms"] = millis(plugin.deadline()).into();
    let answer = plugin.ask(Hook::Observe, body.to_string().into_bytes()).await;
    matches!(answer, Answer::Object(_) | Answer::Declined)
}

const fn outcome(end: PastEnd) -> &'static str {
    match end {
        PastEnd::SignedIn => "signed_in",
        PastEnd::MfaPassed => "mfa_passed",
        PastEnd::Challenged => "challenged",
        PastEnd::MfaFailed => "mfa_failed",
        PastEnd::Denied => "denied",
        PastEnd::Refused => "refused",
    }
}

fn event(record: &SignInRecord) -> Value {
    let assessment = record.assessment.as_ref();
    let reasons = assessment.map(|a| {
        a.reasons.iter().map(|(code, points)| json!({ "code": &**code, "points": points })).collect::<Vec<_>>()
    });
    json!({
        "kind": EventKind::SignIn.name(),
        "id": record.id.to_string(),
        "time_unix_s": record.at.as_secs(),
        "tenant": record.tenant.as_str(),
        "provider": &*record.provider,
        "user": record.user.map(|u| u.to_string()),
        "outcome": outcome(record.end),
        "code": record.code.as_deref(),
        "score": assessment.map(|a| a.score),
        "level": assessment.map(|a| a.level.as_str()),
        "reasons": reasons.unwrap_or_default(),
    })
}
