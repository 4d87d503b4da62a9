//! Starting, ending and reaping of processes.
//!
//! The runner is the first process of its container, so also the children of services that lost their parent are its own. All
//! are reaped here, in one place: a process that was started here tells its end to who started it, any other one is only buried.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::stage::{self, Order};
use crate::users::User;

/// The variable that marks processes of a service where it has no user of its own.
pub(crate) const MARK: &str = "CLAUDEMESH_SERVICE";
/// How often the processes of a service are looked for until none is left.
const KILL_ROUNDS: usize = 200;
const KILL_PAUSE: Duration = Duration::from_millis(10);

static CHILDREN: Mutex<Option<HashMap<i32, oneshot::Sender<Exit>>>> = Mutex::new(None);

/// How a process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

impl Exit {
    fn of(status: WaitStatus) -> Self {
        Self { code: status.exit_status(), signal: status.terminating_signal() }
    }

    pub(crate) fn success(self) -> bool {
        self.code == Some(0)
    }

    /// For people.
    pub(crate) fn text(self) -> String {
        match (self.code, self.signal) {
            (Some(code), _) => format!("it ended with code {code}"),
            (None, Some(signal)) => format!("it was ended by signal {signal}"),
            (None, None) => "it ended".into(),
        }
    }
}

/// Makes this process the one that inherits orphans, and one that no service can look into.
pub(crate) fn become_parent() -> io::Result<()> {
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own))?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    Ok(())
}

/// Buries processes for as long as it runs.
pub(crate) async fn reap() -> io::Result<()> {
    let mut ended = signal(SignalKind::child())?;
    loop {
        reap_all();
        // A signal may stand for many.
        ended.recv().await;
    }
}

fn reap_all() {
    let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if status.stopped() || status.continued() {
            continue;
        }
        let waiting = children.as_mut().and_then(|children| children.remove(&pid.as_raw_nonzero().get()));
        if let Some(waiting) = waiting {
            let _ = waiting.send(Exit::of(status));
        }
    }
}

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) stdin: pipe::Sender,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
    pub(crate) exit: oneshot::Receiver<Exit>,
}

fn stage_command(stage: &str, user: Option<User>) -> io::Result<Command> {
    // The program itself, also when its file was replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg(stage).env_clear().process_group(0);
    if let Some(User(uid)) = user {
        // The standard library gives up all other groups when root becomes someone else.
        command.uid(uid).gid(uid);
    }
    Ok(command)
}

fn spawn(mut command: Command) -> io::Result<Process> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (tell, exit) = oneshot::channel();
    // Held until the process is known, so that it cannot be buried as a stranger.
    let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut child = command.spawn()?;
    children.get_or_insert_default().insert(i32::try_from(child.id()).unwrap_or(-1), tell);
    drop(children);
    let missing = || io::Error::other("the process has no pipe");
    let stdin = OwnedFd::from(child.stdin.take().ok_or_else(missing)?);
    let stdout = OwnedFd::from(child.stdout.take().ok_or_else(missing)?);
    let stderr = OwnedFd::from(child.stderr.take().ok_or_else(missing)?);
    Ok(Process {
        pid: child.id(),
        stdin: pipe::Sender::from_owned_fd(stdin)?,
        stdout: pipe::Receiver::from_owned_fd(stdout)?,
        stderr: pipe::Receiver::from_owned_fd(stderr)?,
        exit,
    })
}

/// Starts a program as a user.
///
/// # Errors
/// What the system says; that the program itself is not there shows as exit code [`stage::CANNOT_START`].
pub(crate) async fn start(order: &Order, user: Option<User>) -> io::Result<Process> {
    let mut command = stage_command(stage::EXEC, user)?;
    // Until it has become its program it has the mark of its service, too.
    command.envs(order.env.iter().filter(|(name, _)| name == MARK).map(|(name, value)| (name, value)));
    let mut process = spawn(command)?;
    let bytes = zeroize::Zeroizing::new(stage::order_bytes(order));
    // A process that ends before it has read tells more by its exit.
    let _ = process.stdin.write_all(&bytes).await;
    Ok(process)
}

/// Starts the unpacking of a bundle, which is then written to its standard input.
pub(crate) fn start_unpack(target: &std::path::Path, user: Option<User>) -> io::Result<Process> {
    let mut command = stage_command(stage::UNPACK, user)?;
    command.arg(target);
    spawn(command)
}

/// Ends every process of a service: of its user, or those with its mark. Answers whether none is left.
pub(crate) async fn kill_service(mark: &str, user: Option<User>) -> bool {
    for _ in 0..KILL_ROUNDS {
        reap_all();
        let left = processes_of(mark, user);
        if left.is_empty() {
            return true;
        }
        if user.is_some()
            && let Ok(killer) = stage_command(stage::KILL_ALL, user).and_then(spawn)
        {
            let _ = killer.exit.await;
        }
        signal_all(left, Signal::KILL);
        tokio::time::sleep(KILL_PAUSE).await;
    }
    false
}

/// Asks every process of a service to end.
pub(crate) fn ask_to_end(mark: &str, user: Option<User>) {
    signal_all(processes_of(mark, user), Signal::TERM);
}

fn signal_all(pids: Vec<u32>, signal: Signal) {
    for pid in pids.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Processes of a service that are no zombies.
pub(crate) fn processes_of(mark: &str, user: Option<User>) -> Vec<u32> {
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id();
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != own && is_of(*pid, mark, user)).collect()
}

fn is_of(pid: u32, mark: &str, user: Option<User>) -> bool {
    use std::os::unix::fs::MetadataExt;
    let path = std::path::PathBuf::from(format!("/proc/{pid}"));
    let alive = || {
        // The state is behind the name, which may itself have parentheses in it.
        let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with(['Z', 'X'])) && !stat.is_empty()
    };
    match user {
        Some(User(uid)) => real_uid(&path).or_else(|| Some(path.metadata().ok()?.uid())) == Some(uid) && alive(),
        None => {
            let mark = format!("{MARK}={mark}");
            let environment = std::fs::read(path.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) && alive()
        }
    }
}

/// The folder of a process that must not be looked into belongs to root, so its owner is not asked.
fn real_uid(path: &std::path::Path) -> Option<u32> {
    let status = std::fs::read_to_string(path.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())
}
