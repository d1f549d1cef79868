//! A plugin in a process of its own: started, spoken to over a socket, ended and started again.
//!
//! Its death is the death of nothing else: calls that run fail at once, later ones fail until it runs
//! again, after a pause that grows from 100 ms to 30 s while it keeps dying.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::error::HandshakeFault as Fault;
use super::hook::Hook;
use super::in_flight::Entered;
use super::instance::RawReply;
use super::pool::Pool;
use super::services::{Granted, HostServices, Service};
use super::wire::{self, Frame, Kind, Start, Started};

/// How long a write to a process may take that does not read: then it is ended.
const WRITE_LIMIT: Duration = Duration::from_millis(50);
/// How long an ended instance has to destroy itself.
const STOP_LIMIT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After so long the earlier deaths are forgotten.
const HEALTHY: Duration = Duration::from_secs(60);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How to start the process.
pub(super) struct Spec {
    pub(super) program: PathBuf,
    pub(super) plugin: String,
    pub(super) start: Start,
    pub(super) start_limit: Duration,
}

/// The process, over its lives.
pub(super) struct Process {
    spec: Spec,
    services: Arc<Granted>,
    link: Mutex<Option<Arc<Link>>>,
    deaths: AtomicU32,
    closed: AtomicBool,
}

/// A call that waits for its answer. Its permit and its place among the running calls go with it.
struct Waiting {
    entered: Entered,
    _permit: OwnedSemaphorePermit,
}

/// One life of the process.
struct Link {
    writer: Mutex<UnixStream>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
    child: Mutex<Child>,
    since: Instant,
}

impl Link {
    fn kill(&self) {
        let _ = locked(&self.child).kill();
    }
}

/// The call could not be sent, or the process died before it answered.
pub(super) struct Gone;

impl Process {
    /// Starts the thread that looks after the process, and the process from there: it ends with the thread that
    /// started it (`PR_SET_PDEATHSIG` of prctl(2)), and the caller's may be one of a pool. Blocks.
    ///
    /// # Errors
    /// When the process cannot be started, or the plugin refuses.
    pub(super) fn start(spec: Spec, services: Arc<Granted>) -> Result<(Arc<Self>, Started), Fault> {
        let name = format!("plugin {}", spec.plugin);
        let process = Arc::new(Self {
            spec,
            services,
            link: Mutex::default(),
            deaths: AtomicU32::new(0),
            closed: AtomicBool::new(false),
        });
        let (tell, told) = sync_channel(1);
        let (begun, weak) = (Arc::clone(&process), Arc::downgrade(&process));
        let life = move || match spawn(&begun.spec, &begun.services) {
            Ok((link, reader, started)) => {
                *locked(&begun.link) = Some(Arc::clone(&link));
                drop(begun);
                let _ = tell.send(Ok(started));
                look_after(&weak, link, reader);
            }
            Err(fault) => drop(tell.send(Err(fault))),
        };
        std::thread::Builder::new().name(name).spawn(life).map_err(Fault::NoThread)?;
        let started = told.recv().map_err(|_| Fault::Ended("its thread ended".to_owned()))??;
        if !started.has_no_network {
            tracing::warn!(
                plugin.id = %process.spec.plugin,
                "this system does not let a plugin's process give up the network; its requests are not confined"
            );
        }
        Ok((process, started))
    }

    /// Sends a call. It ends without a reply when the process dies.
    pub(super) fn call(
        &self,
        hook: Hook,
        input: &[u8],
        deadline: Instant,
        permit: OwnedSemaphorePermit,
        entered: Entered,
    ) -> Result<(), Gone> {
        let link = locked(&self.link).clone().ok_or(Gone)?;
        let number = link.next.fetch_add(1, Ordering::Relaxed);
        locked(&link.waiting).insert(number, Waiting { entered, _permit: permit });
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let left_ms = u32::try_from(left).unwrap_or(u32::MAX);
        let head = [&[hook as u8][..], &left_ms.to_le_bytes()].concat();
        if wire::write(&link.writer, Kind::Call, number, &[&head, input]).is_err() {
            // Half a frame may have left: nothing can follow it.
            locked(&link.waiting).remove(&number);
            link.kill();
            return Err(Gone);
        }
        Ok(())
    }

    /// Ends this life of the process: its calls do not return.
    pub(super) fn kill(&self) {
        if let Some(link) = locked(&self.link).as_ref() {
            link.kill();
        }
    }

    /// Its process, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        locked(&self.link).as_ref().map(|link| locked(&link.child).id())
    }

    /// How often it died since it last ran for a minute.
    pub(super) fn deaths(&self) -> u32 {
        self.deaths.load(Ordering::Relaxed)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        let Some(link) = locked(&self.link).take() else { return };
        let _ = wire::write(&link.writer, Kind::Stop, 0, &[]);
        let end = move || {
            std::thread::sleep(STOP_LIMIT);
            link.kill();
        };
        let _ = std::thread::Builder::new().name("plugin end".to_owned()).spawn(end);
    }
}

fn spawn(spec: &Spec, services: &Arc<Granted>) -> Result<(Arc<Link>, UnixStream, Started), Fault> {
    let failed = |error: io::Error| Fault::Ended(error.to_string());
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    ours.set_write_timeout(Some(WRITE_LIMIT)).map_err(failed)?;
    let child = Command::new(&spec.program)
        .arg("plugin-host")
        .env_clear()
        .current_dir(Path::new("/"))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let mut reader = ours.try_clone().map_err(failed)?;
    let link = Arc::new(Link {
        writer: Mutex::new(ours),
        waiting: Mutex::default(),
        next: AtomicU64::new(1),
        child: Mutex::new(child),
        since: Instant::now(),
    });
    let started = handshake(spec, services, &link, &mut reader).inspect_err(|_| {
        link.kill();
        let _ = locked(&link.child).wait();
    })?;
    reader.set_read_timeout(None).map_err(failed)?;
    Ok((link, reader, started))
}

fn handshake(
    spec: &Spec,
    services: &Arc<Granted>,
    link: &Arc<Link>,
    reader: &mut UnixStream,
) -> Result<Started, Fault> {
    let failed = |error: io::Error| Fault::Ended(error.to_string());
    let start = serde_json::to_vec(&spec.start).map_err(|e| Fault::Ended(e.to_string()))?;
    wire::write(&link.writer, Kind::Start, 0, &[&start]).map_err(failed)?;
    let until = Instant::now() + spec.start_limit;
    let workers = workers(spec);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::TooSlow(spec.start_limit.as_secs()));
        }
        reader.set_read_timeout(Some(left)).map_err(failed)?;
        let frame = match wire::read(reader) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(Fault::Ended(how_it_ended(link))),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
            Err(error) => return Err(failed(error)),
        };
        match frame.kind {
            Kind::Started => return serde_json::from_slice(&frame.body).map_err(|e| Fault::Ended(e.to_string())),
            Kind::Refused => return Err(Fault::InProcess(String::from_utf8_lossy(&frame.body).into_owned())),
            _ => serve(services, link, &workers, frame),
        }
    }
}

fn how_it_ended(link: &Link) -> String {
    locked(&link.child).wait().map_or_else(|e| e.to_string(), |status| status.to_string())
}

/// For what a process asks: as many as calls, for each may wait for one answer.
fn workers(spec: &Spec) -> Pool {
    Pool::new(&spec.plugin, spec.start.threads)
}

/// What a process asks of the server, in any of its ages.
fn serve(services: &Arc<Granted>, link: &Arc<Link>, workers: &Pool, frame: Frame) {
    match frame.kind {
        Kind::Service => {
            let (services, link) = (Arc::clone(services), Arc::clone(link));
            let received = Instant::now();
            workers.submit(Box::new(move || {
                let Some((service, rest)) = frame.body.split_first() else { return };
                let Some(service) = Service::find(*service) else { return };
                let Some((left_ms, input)) = wire::split_u32(rest) else { return };
                let deadline = received + Duration::from_millis(left_ms.min(30_000).into());
                let (status, value) = services.ask(service, input, deadline);
                if wire::write(&link.writer, Kind::Served, frame.number, &[&status.to_le_bytes(), &value]).is_err()
                {
                    link.kill();
                }
            }));
        }
        Kind::Log => {
            let Some((level, body)) = wire::split_u32(&frame.body) else { return };
            if let Ok((message, fields)) = serde_json::from_slice::<(String, String)>(body) {
                services.log(level, &message, &fields);
            }
        }
        Kind::Count => {
            if let Ok((metric, value, labels)) = serde_json::from_slice::<(String, f64, String)>(&frame.body) {
                services.count(&metric, value, &labels);
            }
        }
        _ => {}
    }
}

fn look_after(process: &Weak<Process>, mut link: Arc<Link>, mut reader: UnixStream) {
    loop {
        if let Some(alive) = process.upgrade() {
            let (services, workers) = (Arc::clone(&alive.services), workers(&alive.spec));
            drop(alive);
            follow(&services, &link, &mut reader, &workers);
        }
        link.kill();
        let ended = how_it_ended(&link);
        // Whoever waits learns of it: the calls go.
        locked(&link.waiting).clear();
        match restart(process, &link, &ended) {
            Some(next) => (link, reader) = next,
            None => return,
        }
    }
}

fn follow(services: &Arc<Granted>, link: &Arc<Link>, reader: &mut UnixStream, workers: &Pool) {
    while let Ok(Some(frame)) = wire::read(reader) {
        if frame.kind != Kind::Reply {
            serve(services, link, workers, frame);
            continue;
        }
        let Some(waiting) = locked(&link.waiting).remove(&frame.number) else { continue };
        let mut output = frame.body;
        let Some(status) = output.first_chunk::<4>().map(|s| i32::from_le_bytes(*s)) else { continue };
        let Some(overflowed) = output.get(4).map(|o| *o != 0) else { continue };
        output.drain(..5);
        let Waiting { entered, _permit } = waiting;
        drop(_permit);
        entered.finish(RawReply { status, output, overflowed });
    }
}

/// Starts it again until that works; `None` when nobody needs it any more.
fn restart(process: &Weak<Process>, died: &Link, ended: &str) -> Option<(Arc<Link>, UnixStream)> {
    if let Some(alive) = process.upgrade() {
        locked(&alive.link).take();
        if died.since.elapsed() >= HEALTHY {
            alive.deaths.store(0, Ordering::Relaxed);
        }
        let id = alive.spec.plugin.clone();
        metrics::counter!("countersign_plugin_process_deaths_total", "plugin" => id.clone()).increment(1);
        tracing::error!(plugin.id = %id, ended, "a plugin's process ended; it is started again");
    }
    loop {
        let deaths = process.upgrade()?.deaths.fetch_add(1, Ordering::Relaxed);
        let pause = FIRST_PAUSE.saturating_mul(1 << deaths.min(10)).min(LONGEST_PAUSE);
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if process.upgrade()?.closed.load(Ordering::Relaxed) {
                return None;
            }
            std::thread::sleep(pause.min(Duration::from_millis(50)));
        }
        let alive = process.upgrade()?;
        match spawn(&alive.spec, &alive.services) {
            Ok((link, reader, _)) => {
                *locked(&alive.link) = Some(Arc::clone(&link));
                tracing::info!(plugin.id = %alive.spec.plugin, "a plugin's process runs again");
                return Some((link, reader));
            }
            Err(fault) => {
                tracing::error!(plugin.id = %alive.spec.plugin, error = %fault, "a plugin's process does not start");
            }
        }
    }
}
