//! A holder that lives and does not answer: stopped, or hanging.
//!
//! It keeps the lock of the store, so no one can take over, and two writers must never be on one store. So it is made to let go:
//! a stopped process is continued, a few times; one that has answered nothing for [`PATIENCE`] all the same is ended with
//! SIGKILL, and the system gives the lock to one of those who wait for it. What was acknowledged is on the disk in any case.
//! Only a `claudemesh` process of this user that is seen to hold the lock at this moment is ever ended, by a handle that cannot
//! come to mean another process.
//!
//! Called by anyone who finds that the holder does not answer; no one looks while it does.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::store::{HolderNote, Store};
use crate::paths::{self, Env};

/// How long a holder may answer nothing before it is ended. A machine that is short of memory may keep a sound process from
/// answering for some seconds; a session that loses its server loses its tools.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to answer one question.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// Questions that must stay without an answer, whatever the clock says.
const MIN_PROBES: u32 = 3;
/// How often one stopped holder is continued before it counts as one that hangs: someone stops it again each time.
const MAX_WAKES: u32 = 2;
/// Looks further apart than this belong to different silences.
const MAX_GAP: Duration = Duration::from_secs(60);

/// How long one holder has been silent, as far as this process has seen.
struct Silence {
    pid: u32,
    start_time: u64,
    since: Instant,
    last: Instant,
    probes: u32,
    wakes: u32,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Wait,
    Continue,
    End,
}

impl Silence {
    fn of(note: &HolderNote, now: Instant) -> Self {
        Self { pid: note.pid, start_time: note.start_time, since: now, last: now, probes: 0, wakes: 0 }
    }

    /// It was asked and has not answered.
    fn unanswered(&mut self, note: &HolderNote, stopped: bool, now: Instant, patience: Option<Duration>) -> Step {
        let same = (self.pid, self.start_time) == (note.pid, note.start_time);
        if !same || now.saturating_duration_since(self.last) > MAX_GAP {
            *self = Self::of(note, now);
        }
        self.last = now;
        self.probes += 1;
        if stopped && self.wakes < MAX_WAKES {
            self.wakes += 1;
            return Step::Continue;
        }
        let silent = now.saturating_duration_since(self.since);
        let over = patience.is_some_and(|patience| silent >= patience) && self.probes >= MIN_PROBES;
        if over { Step::End } else { Step::Wait }
    }
}

static SILENCES: Mutex<Option<HashMap<PathBuf, Silence>>> = Mutex::new(None);

/// Looks after a holder that did not answer. Blocks for a few seconds at most.
pub fn look(store: &Store) {
    let Some(note) = store.holder().filter(|note| note.pid != std::process::id()) else { return forget(store) };
    if answers(store, &note) {
        return forget(store);
    }
    let now = Instant::now();
    let step = {
        let mut silences = SILENCES.lock().unwrap_or_else(PoisonError::into_inner);
        let silences = silences.get_or_insert_default();
        let silence = silences.entry(store.dir().to_path_buf()).or_insert_with(|| Silence::of(&note, now));
        silence.unanswered(&note, is_stopped(note.pid), now, patience())
    };
    match step {
        Step::Wait => {}
        Step::Continue => proceed(&note),
        Step::End => end(store, &note),
    }
}

/// The holder has answered: a silence after this is a new one.
pub fn answered(store: &Store) {
    forget(store);
}

fn forget(store: &Store) {
    if let Some(silences) = &mut *SILENCES.lock().unwrap_or_else(PoisonError::into_inner) {
        silences.remove(store.dir());
    }
}

/// `CLAUDEMESH_HOLDER_PATIENCE` in seconds; 0 means that no holder is ended.
fn patience() -> Option<Duration> {
    static CHOSEN: OnceLock<Option<Duration>> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let env = Env::of_process();
        let seconds = env.text(paths::HOLDER_PATIENCE).and_then(|text| text.trim().parse::<u64>().ok());
        match seconds {
            None => Some(PATIENCE),
            Some(0) => None,
            Some(seconds) => Some(Duration::from_secs(seconds)),
        }
    })
}

/// Whether the holder answers a question in time, on its socket or else on its loopback address.
pub fn answers(store: &Store, note: &HolderNote) -> bool {
    #[cfg(unix)]
    if let Some(path) = store.socket()
        && path.exists()
    {
        match connect(&path) {
            Ok(stream) => {
                let patience = Some(ANSWER_PATIENCE);
                let set = stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(patience));
                return set.and_then(|()| ask(stream)).is_ok();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            // No one listens there, or someone has put another thing into its place: that says nothing of the process.
            Err(_) => {}
        }
    }
    let _ = store;
    let Some(address) = note.address() else { return false };
    let asked = std::net::TcpStream::connect_timeout(&address, ANSWER_PATIENCE).and_then(|stream| {
        stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        stream.set_write_timeout(Some(ANSWER_PATIENCE))?;
        ask(stream)
    });
    asked.is_ok()
}

fn ask(mut stream: impl Read + Write) -> io::Result<()> {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    if &head == b"HTTP/" { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Connects without waiting: anyone who hangs takes no one off its queue, and a full queue would hold us, too.
///
/// # Errors
/// `WouldBlock` when the queue is full; else what the system says.
#[cfg(unix)]
pub fn connect(path: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    #[cfg(target_os = "linux")]
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    #[cfg(not(target_os = "linux"))]
    let flags = SocketFlags::empty();
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    #[cfg(not(target_os = "linux"))]
    rustix::io::ioctl_fionbio(&socket, true)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = std::os::unix::net::UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// State `T` in the process table.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

/// Lets a stopped holder go on (Ctrl-Z, `kill -STOP`).
fn proceed(note: &HolderNote) {
    #[cfg(target_os = "linux")]
    if let Some(pid) = i32::try_from(note.pid).ok().and_then(rustix::process::Pid::from_raw) {
        tracing::warn!(pid = note.pid, "the process that serves the local mesh is stopped; continuing it");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::CONT);
    }
    let _ = note;
}

/// Ends the holder, if it is what we think it is.
fn end(store: &Store, note: &HolderNote) {
    #[cfg(all(target_os = "linux", feature = "local-broker"))]
    match end_holder(store, note) {
        Ok(()) => tracing::warn!(
            pid = note.pid,
            "the process that serves the local mesh hangs and was ended; another one takes over"
        ),
        Err(why) => {
            tracing::error!(pid = note.pid, why, "the process that serves the local mesh hangs and cannot be ended")
        }
    }
    let _ = (store, note);
}

#[cfg(all(target_os = "linux", feature = "local-broker"))]
fn end_holder(store: &Store, note: &HolderNote) -> Result<(), String> {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let pid = i32::try_from(note.pid).ok().and_then(Pid::from_raw).ok_or("that is not a process id")?;
    // From here on the handle means this process and no later one of the same number; what it is, is checked after.
    let handle = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| error.to_string())?;
    is_holder(store, note)?;
    pidfd_send_signal(&handle, Signal::KILL).map_err(|error| error.to_string())
}

/// Whether the process that the note names is a `claudemesh` of this user and holds the lock right now.
#[cfg(target_os = "linux")]
fn is_holder(store: &Store, note: &HolderNote) -> Result<(), &'static str> {
    use std::os::unix::fs::MetadataExt;
    let proc = PathBuf::from(format!("/proc/{}", note.pid));
    let owner = std::fs::metadata(&proc).map_err(|_| "it is gone")?.uid();
    if owner != rustix::process::getuid().as_raw() {
        return Err("it belongs to another user");
    }
    if note.start_time == 0 || crate::config::session_dir::start_time(note.pid) != Some(note.start_time) {
        return Err("it is another process than the one that noted itself");
    }
    let program = program_of(&proc).ok_or("its program cannot be told")?;
    if program != env!("CARGO_PKG_NAME") && Some(program) != program_of(Path::new("/proc/self")) {
        return Err("it is not a claudemesh program");
    }
    let inode = std::fs::metadata(store.lock_path()).map_err(|_| "the lock cannot be looked at")?.ino();
    let locks = std::fs::read_to_string("/proc/locks").map_err(|_| "the system does not tell who holds the lock")?;
    if holds(&locks, note.pid, inode) { Ok(()) } else { Err("it does not hold the lock") }
}

/// Name of the program that a process runs; an update may have replaced the file under it.
#[cfg(target_os = "linux")]
fn program_of(proc: &Path) -> Option<String> {
    let program = std::fs::read_link(proc.join("exe")).ok()?;
    let name = program.file_name()?.to_str()?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name).to_owned())
}

/// Whether a line of `/proc/locks` says so: `1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`. Those who wait have `->`.
#[cfg(target_os = "linux")]
fn holds(locks: &str, pid: u32, inode: u64) -> bool {
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", holder, place, ..] = words.as_slice() else { return false };
        let of = place.rsplit(':').next().and_then(|number| number.parse().ok());
        holder.parse() == Ok(pid) && of == Some(inode)
    })
}

#[cfg(test)]
mod tests {
    use super::super::store::HolderKind;
    use super::*;

    fn note(pid: u32) -> HolderNote {
        HolderNote {
            pid,
            start_time: 1,
            kind: HolderKind::Session,
            url: "ws://127.0.0.1:1/ws".into(),
            outside_url: None,
            lost_outside_url: None,
            listen: None,
            since: String::new(),
        }
    }

    #[test]
    fn only_a_long_unbroken_silence_ends_a_holder() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let patience = Some(Duration::from_secs(20));
        let mut silence = Silence::of(&note(7), start);
        let mut step =
            |pid: u32, stopped: bool, seconds: u64| silence.unanswered(&note(pid), stopped, at(seconds), patience);
        // Stopped: continued, but not for ever.
        assert_eq!([0, 10].map(|seconds| step(7, true, seconds)), [Step::Continue; 2]);
        assert_eq!((step(7, true, 15), step(7, true, 19), step(7, true, 20)), (Step::Wait, Step::Wait, Step::End));
        // Another process, and a silence long after the last one, begin anew.
        assert_eq!((step(8, false, 21), step(8, false, 30), step(8, false, 40)), (Step::Wait, Step::Wait, Step::Wait));
        assert_eq!(step(8, false, 41), Step::End);
        assert_eq!((step(8, false, 102), step(8, false, 110)), (Step::Wait, Step::Wait));
        // Too few questions, and no one to be ended.
        let mut silence = Silence::of(&note(7), start);
        assert_eq!(silence.unanswered(&note(7), false, at(14), Some(Duration::from_secs(1))), Step::Wait);
        assert_eq!(silence.unanswered(&note(7), false, at(20), None), Step::Wait);
        assert_eq!(silence.unanswered(&note(7), false, at(30), None), Step::Wait);
    }

    #[test]
    fn the_table_of_locks_is_read() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:99 0 EOF\n2: FLOCK  ADVISORY  WRITE 12 fe:00:99 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 13 fe:00:99 0 EOF\n3: FLOCK  ADVISORY  READ 14 fe:00:99 0 EOF\n";
        assert!(holds(locks, 12, 99));
        assert!(![11, 13, 14].iter().any(|pid| holds(locks, *pid, 99)) && !holds(locks, 12, 98));
    }

    #[test]
    fn whoever_is_not_the_holder_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        std::fs::write(store.lock_path(), "").unwrap();
        let me = std::process::id();
        let started = crate::config::session_dir::start_time(me).unwrap();
        assert!(is_holder(&store, &HolderNote { start_time: started + 1, ..note(me) }).is_err());
        assert_eq!(
            is_holder(&store, &HolderNote { start_time: started, ..note(me) }),
            Err("it does not hold the lock")
        );
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let started = crate::config::session_dir::start_time(other.id()).unwrap();
        let theirs = HolderNote { start_time: started, ..note(other.id()) };
        assert_eq!(is_holder(&store, &theirs), Err("it is not a claudemesh program"));
        #[cfg(feature = "local-broker")]
        assert!(end_holder(&store, &theirs).is_err());
        assert_eq!(other.try_wait().unwrap(), None, "it lives");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_full_queue_holds_nobody() {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let mut taken = vec![];
        let refused = (0..8).find_map(|_| match connect(&path) {
            Ok(stream) => {
                taken.push(stream);
                None
            }
            Err(error) => Some(error.kind()),
        });
        assert_eq!(refused, Some(io::ErrorKind::WouldBlock));
    }
}
