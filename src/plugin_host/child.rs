//! The process of one plugin: reads frames from standard input, which is a socket of the server, loads the
//! library, and answers.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_plugin_sdk::abi::{CS_TIMEOUT, CS_UNAVAILABLE, CsStatus};

use super::confine;
use super::error::HandshakeFault;
use super::hook::Hook;
use super::instance::{self, Instance, Opened};
use super::load::check_identity;
use super::pool::Pool;
use super::services::{HostServices, Service};
use super::wire::{self, Frame, Kind, Start, Started};
use crate::clock::{Clock, SystemClock};
use crate::secret::{Entropy, SystemEntropy};

/// Runs until the server hangs up. Standard input must be a socket that the server speaks over.
///
/// # Errors
/// When standard input is none, or the server says something else than it should.
pub fn run() -> io::Result<()> {
    confine::close_inherited();
    confine::outlive_signals()?;
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // A library that reads standard input must not take what the server says.
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    let Some(Frame { kind: Kind::Start, body, .. }) = wire::read(&mut socket)? else {
        return Err(io::Error::other("this command is for the server alone: it starts plugins with it"));
    };
    let start: Start = serde_json::from_slice(&body)?;
    let out = Arc::new(Mutex::new(socket.try_clone()?));
    let has_no_network = confine::confine(start.memory_bytes)?;
    let remote = Arc::new(Remote {
        out: Arc::clone(&out),
        waiting: Mutex::default(),
        next: AtomicU64::new(1),
        offers_fetch: start.offers_fetch,
        offers_kv: start.offers_kv,
    });
    // While the plugin starts, it may already ask for secrets: so the reader runs first.
    let (calls, instance) = (Pool::new("calls", start.threads), Arc::new(Mutex::new(None::<Arc<Instance>>)));
    let reader = {
        let (remote, instance, out) = (Arc::clone(&remote), Arc::clone(&instance), Arc::clone(&out));
        std::thread::Builder::new().name("reader".to_owned()).spawn(move || {
            while let Ok(Some(frame)) = wire::read(&mut socket) {
                match frame.kind {
                    Kind::Call => call(&calls, &instance, &out, frame),
                    Kind::Served => remote.served(frame.number, &frame.body),
                    Kind::Stop => break,
                    _ => {}
                }
            }
            instance.lock().unwrap_or_else(PoisonError::into_inner).take();
        })?
    };
    let describe = |opened: &Opened| -> Result<Started, HandshakeFault> {
        Ok(Started {
            manifest: opened.manifest()?,
            is_thread_safe: opened.is_thread_safe(),
            may_block: opened.may_block(),
            id: opened.id.clone(),
            version: opened.version.clone(),
            vendor: opened.vendor.clone(),
            has_no_network,
        })
    };
    if start.describe_only {
        return match instance::open(Path::new(&start.copy)).and_then(|opened| describe(&opened)) {
            Ok(started) => {
                wire::write(&out, Kind::Started, 0, &[&serde_json::to_vec(&started)?])?;
                // An end before it is told to would look like a death.
                let _ = reader.join();
                Ok(())
            }
            Err(fault) => wire::write(&out, Kind::Refused, 0, &[fault.to_string().as_bytes()]),
        };
    }
    let hooks: Vec<Hook> = start.hooks.iter().filter_map(|name| Hook::find(name)).collect();
    let made = instance::open(Path::new(&start.copy)).and_then(|opened| {
        if let Some((id, version)) = &start.identity {
            check_identity(&opened, id, version)?;
        }
        opened.selftest()?;
        let (instance, ending) = opened.create(&start.config_json, &hooks, remote)?;
        Ok((describe(&opened)?, instance, ending))
    });
    match made {
        Ok((started, made, ending)) => {
            *instance.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(made));
            wire::write(&out, Kind::Started, 0, &[&serde_json::to_vec(&started)?])?;
            ending.wait();
            // Answers of the last calls leave before the process does.
            let _ = reader.join();
        }
        Err(fault) => wire::write(&out, Kind::Refused, 0, &[fault.to_string().as_bytes()])?,
    }
    Ok(())
}

fn call(calls: &Pool, instance: &Mutex<Option<Arc<Instance>>>, out: &Arc<Mutex<UnixStream>>, frame: Frame) {
    let instance = instance.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(instance) = instance else { return };
    let out = Arc::clone(out);
    calls.submit(Box::new(move || {
        let Some((hook, rest)) = frame.body.split_first() else { return };
        let Some(hook) = Hook::ALL.get(usize::from(*hook)).copied() else { return };
        let Some((left_ms, input)) = wire::split_u32(rest) else { return };
        let deadline = Instant::now() + Duration::from_millis(left_ms.into());
        let Some(reply) = instance.call(hook, input, deadline) else { return };
        drop(instance);
        let head = [&reply.status.to_le_bytes()[..], &[u8::from(reply.overflowed)]].concat();
        let _ = wire::write(&out, Kind::Reply, frame.number, &[&head, &reply.output]);
    }));
}

/// Status and value.
type Served = (CsStatus, Vec<u8>);

/// The services of the server, over the wire.
struct Remote {
    out: Arc<Mutex<UnixStream>>,
    waiting: Mutex<HashMap<u64, SyncSender<Served>>>,
    next: AtomicU64,
    offers_fetch: bool,
    offers_kv: bool,
}

impl Remote {
    fn served(&self, number: u64, body: &[u8]) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        if let (Some(tell), Some((status, value))) = (waiting, body.split_first_chunk::<4>()) {
            let _ = tell.send((i32::from_le_bytes(*status), value.to_vec()));
        }
    }

    fn forget(&self, number: u64) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }
}

impl HostServices for Remote {
    fn offers(&self, service: Service) -> bool {
        match service {
            Service::Fetch => self.offers_fetch,
            Service::KvGet | Service::KvSet => self.offers_kv,
            Service::Secret => true,
        }
    }

    fn ask(&self, service: Service, input: &[u8], deadline: Instant) -> (CsStatus, Vec<u8>) {
        let left = deadline.saturating_duration_since(Instant::now());
        let left_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = sync_channel(1);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, tell);
        let head = [&[service as u8][..], &left_ms.to_le_bytes()].concat();
        if wire::write(&self.out, Kind::Service, number, &[&head, input]).is_err() {
            self.forget(number);
            return (CS_UNAVAILABLE, Vec::new());
        }
        // The server keeps the limit; the second is for the way.
        let answer = told.recv_timeout(left + Duration::from_secs(1));
        self.forget(number);
        answer.unwrap_or((CS_TIMEOUT, Vec::new()))
    }

    fn now_unix_ms(&self) -> i64 {
        SystemClock.now().as_millis()
    }

    fn random(&self, buffer: &mut [u8]) {
        SystemEntropy.fill(buffer);
    }

    fn count(&self, metric: &str, value: f64, labels_json: &str) {
        let body = serde_json::json!([metric, value, labels_json]).to_string();
        let _ = wire::write(&self.out, Kind::Count, 0, &[body.as_bytes()]);
    }

    fn log(&self, level: u32, message: &str, fields: &str) {
        let body = serde_json::json!([message, fields]).to_string();
        let _ = wire::write(&self.out, Kind::Log, 0, &[&level.to_le_bytes(), body.as_bytes()]);
    }
}
