//! A plugin in a process of its own: started, spoken to over a socket, ended and started again.
//!
//! Its death is the death of nothing else: calls that run fail at once, later ones fail until it runs
//! again, after a pause that grows from 100 ms to 30 s while it keeps dying.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak, mpsc};
use std::time::{Duration, Instant};

use countersign_plugin_sdk::abi::{CS_INVALID, CS_UNAVAILABLE};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::OwnedSemaphorePermit;

use super::error::HandshakeFault as Fault;
use super::hook::Hook;
use super::in_flight::Entered;
use super::instance::RawReply;
use super::pool::Pool;
use super::services::{Granted, HostServices, INPUT_LIMIT_BYTES, LOG_LIMIT_BYTES, Service, printable};
use super::wire::{self, Frame, Kind, Start, Started};

/// How long a write to a process may take that does not read: then it is ended.
const WRITE_LIMIT: Duration = Duration::from_millis(50);
/// How long an ended instance has to destroy itself.
const STOP_LIMIT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After so long the earlier deaths are forgotten.
const HEALTHY: Duration = Duration::from_secs(60);
/// Those that it holds, each of 1 MiB at most. A plugin asks as often as calls are inside of it, so more than this
/// comes from one that asks without waiting.
const SERVICES_HELD: usize = 128;
const REFUSAL_LIMIT_BYTES: usize = 1024;

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
    writer: Mutex<Writer>,
    /// The same socket, to hang up while somebody writes.
    socket: UnixStream,
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
    /// Requests that are held.
    asked: AtomicUsize,
    child: Mutex<Living>,
    pid: u32,
    since: Instant,
}

struct Living {
    child: Child,
    /// Its number may belong to another process by now.
    is_reaped: bool,
}

impl Link {
    /// Ends the process and what it started, and hangs up: somebody else may hold the other end of the line.
    fn kill(&self) {
        // Held by whoever ends it: then it is done.
        let living = match self.child.try_lock() {
            Ok(living) => Some(living),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(mut living) = living.filter(|living| !living.is_reaped) {
            if let Ok(group) = i32::try_from(self.pid) {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            let _ = living.child.kill();
        }
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Ends it and tells how it ended: by itself before, or now.
    fn end(&self) -> String {
        self.kill();
        let mut living = locked(&self.child);
        living.is_reaped = true;
        living.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string())
    }
}

/// Writes to a process within a time. A limit for each write alone would let one that reads byte by byte hold its
/// server for ever.
struct Writer {
    socket: UnixStream,
    limit: Duration,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let until = Instant::now() + self.limit;
        while !bytes.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.socket.set_write_timeout(Some(left))?;
            match self.socket.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads from a process until a time.
struct ReadUntil<'a> {
    socket: &'a UnixStream,
    until: Instant,
}

impl Read for ReadUntil<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.socket.set_read_timeout(Some(left))?;
        self.socket.read(into)
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
        let (tell, told) = mpsc::channel();
        let name = format!("plugin {}", spec.plugin);
        // Made by the thread that stays with it: the system ends such a process with the thread that made it
        // (PR_SET_PDEATHSIG of prctl(2)), and whoever asks for a reload may be a thread that ends.
        let live = move || {
            let (link, reader, started) = match spawn(&spec, &services) {
                Ok(made) => made,
                Err(fault) => return drop(tell.send(Err(fault))),
            };
            if !started.has_no_network {
                tracing::warn!(
                    plugin.id = %spec.plugin,
                    "this system does not let a plugin's process give up the network; its requests are not confined"
                );
            }
            let process = Arc::new(Self {
                spec,
                services,
                link: Mutex::new(Some(Arc::clone(&link))),
                deaths: AtomicU32::new(0),
                closed: AtomicBool::new(false),
            });
            let weak = Arc::downgrade(&process);
            let _ = tell.send(Ok((process, started)));
            look_after(&weak, link, reader);
        };
        std::thread::Builder::new().name(name).spawn(live).map_err(Fault::NoThread)?;
        told.recv().unwrap_or_else(|_| Err(Fault::Ended("its thread ended".to_owned())))
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
        locked(&self.link).as_ref().map(|link| link.pid)
    }

    /// How often it died since it last ran for a minute.
    pub(super) fn deaths(&self) -> u32 {
        let is_healthy = locked(&self.link).as_ref().is_some_and(|link| link.since.elapsed() >= HEALTHY);
        if is_healthy { 0 } else { self.deaths.load(Ordering::Relaxed) }
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
    let (reader, writer) = (ours.try_clone().map_err(failed)?, ours.try_clone().map_err(failed)?);
    let child = Command::new(&spec.program)
        .arg("plugin-host")
        .env_clear()
        .current_dir(Path::new("/"))
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let link = Arc::new(Link {
        // It reads once it runs.
        writer: Mutex::new(Writer { socket: writer, limit: spec.start_limit }),
        socket: ours,
        waiting: Mutex::default(),
        next: AtomicU64::new(1),
        asked: AtomicUsize::new(0),
        pid: child.id(),
        child: Mutex::new(Living { child, is_reaped: false }),
        since: Instant::now(),
    });
    match handshake(spec, services, &link, &reader) {
        Ok(started) => {
            locked(&link.writer).limit = WRITE_LIMIT;
            reader.set_read_timeout(None).map_err(failed)?;
            Ok((link, reader, started))
        }
        Err(fault) => {
            let ended = link.end();
            Err(if let Fault::Ended(why) = fault {
                Fault::Ended(if why.is_empty() { ended } else { why })
            } else {
                fault
            })
        }
    }
}

/// The fault is an `Ended` without a text when it hung up.
fn handshake(
    spec: &Spec,
    services: &Arc<Granted>,
    link: &Arc<Link>,
    reader: &UnixStream,
) -> Result<Started, Fault> {
    let late = |error: &io::Error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    let failed = |error: io::Error| match late(&error) {
        true => Fault::TooSlow(spec.start_limit.as_secs()),
        false => Fault::Ended(error.to_string()),
    };
    let mut reader = ReadUntil { socket: reader, until: Instant::now() + spec.start_limit };
    let start = serde_json::to_vec(&spec.start).map_err(|e| Fault::Ended(e.to_string()))?;
    wire::write(&link.writer, Kind::Start, 0, &[&start]).map_err(failed)?;
    let workers = workers(spec);
    loop {
        let frame = match wire::read(&mut reader) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(Fault::Ended(String::new())),
            Err(error) => return Err(failed(error)),
        };
        match frame.kind {
            Kind::Started => return Started::read(&frame.body).map_err(|e| Fault::Ended(e.to_string())),
            Kind::Refused => return Err(Fault::InProcess(printable(&frame.body, REFUSAL_LIMIT_BYTES))),
            _ => serve(services, link, &workers, frame),
        }
    }
}

/// For what a process asks: as many as calls, for each may wait for one answer.
fn workers(spec: &Spec) -> Pool {
    Pool::new(&spec.plugin, spec.start.threads)
}

/// What a process asks of the server, in any of its ages. The other end may be anybody who got into it.
fn serve(services: &Arc<Granted>, link: &Arc<Link>, workers: &Pool, frame: Frame) {
    match frame.kind {
        Kind::Service => {
            let number = frame.number;
            let answer = move |link: &Link, status: i32, value: &[u8]| {
                if wire::write(&link.writer, Kind::Served, number, &[&status.to_le_bytes(), value]).is_err() {
                    link.kill();
                }
            };
            if frame.body.len() > INPUT_LIMIT_BYTES + 64 {
                return answer(link, CS_INVALID, &[]);
            }
            let Some(held) = Held::take(link) else { return answer(link, CS_UNAVAILABLE, &[]) };
            let services = Arc::clone(services);
            let received = Instant::now();
            workers.submit(Box::new(move || {
                if let Some((status, value)) = ask(&services, &frame.body, received) {
                    answer(&held.0, status, &value);
                }
            }));
        }
        Kind::Log => {
            let Some((level, body)) = wire::split_u32(&frame.body) else { return };
            if let Ok((message, fields)) = serde_json::from_slice::<(String, String)>(body) {
                let line = |text: &str| printable(text.as_bytes(), LOG_LIMIT_BYTES);
                services.log(level, &line(&message), &line(&fields));
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

/// A request that the server holds.
struct Held(Arc<Link>);

impl Held {
    fn take(link: &Arc<Link>) -> Option<Self> {
        let held = Self(Arc::clone(link));
        if link.asked.fetch_add(1, Ordering::Relaxed) < SERVICES_HELD { Some(held) } else { None }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.asked.fetch_sub(1, Ordering::Relaxed);
    }
}

fn ask(services: &Granted, body: &[u8], received: Instant) -> Option<(i32, Vec<u8>)> {
    let (service, rest) = body.split_first()?;
    let (left_ms, input) = wire::split_u32(rest)?;
    let deadline = received + Duration::from_millis(left_ms.min(30_000).into());
    Some(services.ask(Service::find(*service)?, input, deadline))
}

fn look_after(process: &Weak<Process>, mut link: Arc<Link>, mut reader: UnixStream) {
    loop {
        if let Some(alive) = process.upgrade() {
            let (services, workers) = (Arc::clone(&alive.services), workers(&alive.spec));
            drop(alive);
            follow(&services, &link, &mut reader, &workers);
        }
        let ended = link.end();
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
