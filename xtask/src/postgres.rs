//! A private PostgreSQL for the tests: own folder, own port, gone at the end.

use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell::run_quiet;

/// A running server; stopped and deleted on drop.
pub(crate) struct Postgres {
    server: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Postgres {
    /// Makes a cluster without fsync (it holds nothing worth keeping) and waits until it accepts connections.
    ///
    /// # Errors
    /// initdb or the server failed; the server's log is in the message.
    pub(crate) fn start(bin: &Path) -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("claudemesh-pg-").tempdir().context("making a folder for PostgreSQL")?;
        // The server refuses to run as root; Debian's package has made the user it wants.
        let user = if is_root() { Some(user_ids("postgres")?) } else { None };
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).context("giving the folder to user postgres")?;
        }
        let data = folder.path().join("data");
        run_quiet(
            as_user(Command::new(bin.join("initdb")), user)
                .current_dir(folder.path())
                .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"])
                .arg(&data),
        )?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = as_user(Command::new(bin.join("postgres")), user);
        command.current_dir(folder.path()).arg("-D").arg(&data);
        for setting in [
            format!("port={port}"),
            "listen_addresses=127.0.0.1".into(),
            format!("unix_socket_directories={}", folder.path().display()),
            "fsync=off".into(),
            "full_page_writes=off".into(),
            "synchronous_commit=off".into(),
            "max_connections=300".into(),
            "shared_buffers=64MB".into(),
        ] {
            command.arg("-c").arg(setting);
        }
        die_with_us(&mut command, libc::SIGQUIT);
        let mut server = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting postgres")?;
        let log = server.stderr.take().context("stderr was piped")?;
        let (ready, is_ready) = mpsc::channel();
        let log_file = folder.path().join("server.log");
        std::thread::spawn(move || follow(BufReader::new(log), &log_file, &ready));
        let mut this = Self { server, folder, port };
        if is_ready.recv_timeout(Duration::from_secs(60)).is_err() {
            let log = fs::read_to_string(this.folder.path().join("server.log")).unwrap_or_default();
            let status = this.server.try_wait().ok().flatten();
            bail!("PostgreSQL did not become ready (exit status {status:?}):\n{log}");
        }
        Ok(this)
    }

    /// For `CLAUDEMESH_TEST_POSTGRES`.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT: immediate shutdown; the folder goes anyway.
        signal(self.server.id(), libc::SIGQUIT);
        self.server.wait().ok();
    }
}

fn follow(log: impl BufRead, file: &PathBuf, ready: &mpsc::Sender<()>) {
    let mut text = String::new();
    for line in log.lines().map_while(Result::ok) {
        text.push_str(&line);
        text.push('\n');
        if text.len() < 1 << 20 {
            fs::write(file, &text).ok();
        }
        if line.contains("ready to accept connections") {
            ready.send(()).ok();
        }
    }
}

fn as_user(mut command: Command, user: Option<(u32, u32)>) -> Command {
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// Asks the kernel to send the child a signal when we die, however that happens.
#[expect(
    unsafe_code,
    reason = "pre_exec and prctl have no safe form; prctl is async-signal-safe and touches no memory"
)]
pub(crate) fn die_with_us(command: &mut Command, signal: i32) {
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
}

#[expect(unsafe_code, reason = "kill(2) has no safe form in std; the pid is that of our own unreaped child")]
pub(crate) fn signal(pid: u32, signal: i32) {
    if let Ok(pid) = i32::try_from(pid) {
        unsafe {
            libc::kill(pid, signal);
        }
    }
}

/// Whether we run as root.
#[expect(unsafe_code, reason = "geteuid(2) has no safe form in std and cannot fail")]
pub(crate) fn is_root() -> bool {
    unsafe { libc::geteuid() == 0 }
}

#[expect(
    unsafe_code,
    reason = "getpwnam has no safe form in std; called from one thread, the result is copied at once"
)]
fn user_ids(name: &str) -> Result<(u32, u32)> {
    let text = CString::new(name).context("a user name without NUL")?;
    unsafe {
        let entry = libc::getpwnam(text.as_ptr());
        if entry.is_null() {
            bail!("there is no user `{name}` to run PostgreSQL as");
        }
        Ok(((*entry).pw_uid, (*entry).pw_gid))
    }
}
