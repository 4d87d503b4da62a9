//! What this program does as a child, between the start of a process and what it is to become.
//!
//! A child begins as this program, already as the user of its service, and waits for a line on its standard input: program, arguments, environment,
//! bounds. So nothing of it stands in a command line, the parent can put the process where it belongs first, and no code of
//! ours runs between `fork` and `exec`.

use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};

use crate::install::bundle;

/// Becomes the program of an [`Order`].
pub(crate) const EXEC: &str = "stage-exec";
/// Unpacks a bundle from standard input into the folder that is the next argument.
pub(crate) const UNPACK: &str = "stage-unpack";
/// Ends all processes of its user.
pub(crate) const KILL_ALL: &str = "stage-kill-all";
/// Exit code of a child whose program could not be started.
pub(crate) const CANNOT_START: i32 = 127;
/// Bytes of an order: arguments and environment at their bounds, as JSON.
const MAX_ORDER_BYTES: usize = 128 << 20;

/// What a child is to become.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) dir: PathBuf,
    pub(crate) rlimits: Rlimits,
}

/// Bounds of a process; 0 is none.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Rlimits {
    pub(crate) data_bytes: u64,
    pub(crate) processes: u64,
    pub(crate) open_files: u64,
    pub(crate) file_bytes: u64,
}

impl Rlimits {
    fn apply(self) -> anyhow::Result<()> {
        let bound = |resource, most: u64| {
            let rlimit = Rlimit { current: Some(most), maximum: Some(most) };
            rustix::process::setrlimit(resource, rlimit).with_context(|| format!("{resource:?}"))
        };
        bound(Resource::Core, 0)?;
        for (resource, most) in [
            (Resource::Data, self.data_bytes),
            (Resource::Nproc, self.processes),
            (Resource::Nofile, self.open_files),
            (Resource::Fsize, self.file_bytes),
        ] {
            if most > 0 {
                bound(resource, most)?;
            }
        }
        Ok(())
    }
}

/// Reads a line, and not a byte more: what follows is for the program.
fn read_order() -> anyhow::Result<Order> {
    let mut stdin = std::fs::File::from(rustix::io::dup(rustix::stdio::stdin())?);
    let mut length = [0; 4];
    stdin.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    anyhow::ensure!(length <= MAX_ORDER_BYTES, "the order is too long");
    let mut text = vec![0; length];
    stdin.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// An order as bytes: its length, then JSON.
pub(crate) fn order_bytes(order: &Order) -> Vec<u8> {
    let text = serde_json::to_vec(order).unwrap_or_default();
    let mut bytes = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    bytes.extend_from_slice(&text);
    bytes
}

/// Becomes what standard input says.
pub(crate) fn exec() -> anyhow::Result<()> {
    // Where the runner is not the first process, what it started ends with it all the same.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let order = read_order()?;
    close_inherited();
    rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::thread::set_no_new_privs(true)?;
    order.rlimits.apply().context("bounds")?;
    let mut command = Command::new(&order.program);
    command.args(&order.args).env_clear().envs(order.env).current_dir(&order.dir);
    let error = command.exec();
    eprintln!("{}: {error}", order.program.display());
    std::process::exit(CANNOT_START);
}

/// Whatever was open besides the standard streams is closed by `exec`, also what the runner itself was given by who started it.
#[expect(unsafe_code, reason = "one system call without memory; no safe wrapper takes a range of descriptors")]
fn close_inherited() {
    // Nothing here uses a descriptor beyond 2 any more, and the flag only counts at `exec`.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if closed != 0 {
        eprintln!("descriptors: {}", std::io::Error::last_os_error());
    }
}

/// Unpacks a bundle.
pub(crate) fn unpack() -> anyhow::Result<()> {
    let target = std::env::args_os().nth(2).map(|path| PathBuf::from(std::ffi::OsString::from_vec(path.into_vec())));
    let target = target.context("expected a folder")?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(claudemesh_protocol::runner::limits::MAX_BUNDLE_BYTES + 1).read_to_end(&mut bytes)?;
    let unpacked = bundle::unpack(&bytes, &target)?;
    writeln!(std::io::stderr(), "unpacked {} files, {} bytes", unpacked.files, unpacked.bytes)?;
    Ok(())
}

/// Ends all processes that this user may end, itself last.
#[expect(unsafe_code, reason = "one system call without memory; safe wrappers cannot name all processes")]
pub(crate) fn kill_all() -> anyhow::Result<()> {
    anyhow::ensure!(!rustix::process::getuid().is_root(), "not as root");
    // The kernel leaves out the caller, and takes the others in one go: a process cannot escape by forking.
    unsafe { libc::kill(-1, libc::SIGKILL) };
    Ok(())
}
