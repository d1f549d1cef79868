//! Watches the policies folder and loads it again when something in it changes.
//!
//! Editors replace files rather than write into them, so the folder is watched and not the files; a save
//! is several events, so they are gathered for a moment.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::PolicyHost;

/// Events closer than this are one change.
const SETTLE: Duration = Duration::from_millis(100);
/// How often the folder is read all the same: some file systems tell nothing. Reading is cheap, and
/// nothing is compiled while the identity is the same.
const POLL: Duration = Duration::from_secs(2);

/// Watching ends when it is dropped.
pub struct WatchGuard {
    _watcher: Option<RecommendedWatcher>,
    _stop: Sender<()>,
}

/// Starts to watch.
///
/// # Errors
/// When no thread can be started.
pub fn watch(host: Arc<PolicyHost>) -> std::io::Result<WatchGuard> {
    let (changed, changes) = channel();
    let stop = changed.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|e| !e.kind.is_access()) {
            let _ = changed.send(());
        }
    });
    let watcher = watcher
        .and_then(|mut watcher| watcher.watch(host.dir(), RecursiveMode::Recursive).map(|()| watcher))
        .inspect_err(
            |error| tracing::warn!(error = %error, "the policies folder is read every 2 s instead of watched"),
        )
        .ok();
    let weak = Arc::downgrade(&host);
    std::thread::Builder::new().name("policies".to_owned()).spawn(move || follow(&weak, &changes))?;
    Ok(WatchGuard { _watcher: watcher, _stop: stop })
}

fn follow(host: &std::sync::Weak<PolicyHost>, changes: &Receiver<()>) {
    let mut told = None;
    loop {
        match changes.recv_timeout(POLL) {
            Ok(()) => while changes.recv_timeout(SETTLE).is_ok() {},
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(host) = host.upgrade() else { return };
        match host.reload() {
            Ok(reloaded) if reloaded.changed => {
                tracing::info!(policy.id = %reloaded.policy, "policies reloaded");
                told = None;
            }
            Ok(_) => told = None,
            Err(error) => {
                let text = error.to_string();
                if told.as_ref() != Some(&text) {
                    tracing::error!(error = text, "policies not reloaded; the old ones stay in force");
                }
                told = Some(text);
            }
        }
    }
}
