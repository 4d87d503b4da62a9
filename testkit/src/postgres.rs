//! A private PostgreSQL for the tests: own folder, own port, gone at the end. One file for this crate and for `xtask`, which does
//! not depend on it.

use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::child::{die_with_us, is_root, signal};

/// A running server; stopped and deleted on drop.
pub struct Postgres {
    bin: PathBuf,
    server: Child,
    folder: tempfile::TempDir,
    user: Option<(u32, u32)>,
    port: u16,
    settings: Vec<String>,
    small_disk: Option<String>,
}

impl Postgres {
    /// Makes a cluster without fsync (it holds nothing worth keeping) and waits until it accepts connections.
    ///
    /// # Errors
    /// initdb or the server failed; the server's log is in the message.
    pub fn start(bin: &Path) -> Result<Self> {
        let fast = ["fsync=off", "full_page_writes=off", "synchronous_commit=off", "shared_buffers=64MB"];
        Self::start_with(bin, &fast)
    }

    /// The same with these settings instead.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(bin: &Path, settings: &[&str]) -> Result<Self> {
        Self::make(bin, settings, None)
    }

    /// A server that sees a disk of that size (as `mount` writes it) at `small` in its folder; no one else sees it. Needs root.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with_small_disk(bin: &Path, size: &str) -> Result<Self> {
        Self::make(bin, &[], Some(size.into()))
    }

    /// Gives that disk another size.
    ///
    /// # Errors
    /// The system refuses.
    pub fn resize_small_disk(&self, size: &str) -> Result<()> {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &self.server.id().to_string(), "mount", "-o", &format!("remount,size={size}")]);
        let done = command.arg(self.folder.path().join("small")).status().context("starting nsenter")?;
        if !done.success() {
            bail!("the small disk was not resized: {done}");
        }
        Ok(())
    }

    fn make(bin: &Path, settings: &[&str], small_disk: Option<String>) -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("claudemesh-pg-").tempdir().context("making a folder for PostgreSQL")?;
        // The server refuses to run as root; Debian's package has made the user it wants.
        let user = if is_root() { Some(user_ids("postgres")?) } else { None };
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).context("giving the folder to user postgres")?;
        }
        let data = folder.path().join("data");
        let made = as_user(Command::new(bin.join("initdb")), user)
            .current_dir(folder.path())
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .output()
            .context("starting initdb")?;
        if !made.status.success() {
            bail!("initdb: {}\n{}", made.status, String::from_utf8_lossy(&made.stderr));
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        if small_disk.is_some() {
            fs::create_dir(folder.path().join("small"))?;
        }
        let server = serve(bin, folder.path(), user, port, &settings, small_disk.as_deref())?;
        Ok(Self { bin: bin.into(), server, folder, user, port, settings, small_disk })
    }

    /// Ends it as a crash of the machine would, all processes of it at once.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        // The others end when the first one is gone; a new server waits for that.
        self.server.kill().context("killing postgres")?;
        self.server.wait()?;
        Ok(())
    }

    /// Starts it again after [`Self::kill`], on the same data and port.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> Result<()> {
        // What the killed one left; a server that still has a process refuses to start, for a moment.
        let mut attempt = 0;
        loop {
            let small_disk = self.small_disk.as_deref();
            match serve(&self.bin, self.folder.path(), self.user, self.port, &self.settings, small_disk) {
                Ok(server) => {
                    self.server = server;
                    return Ok(());
                }
                Err(error) if attempt == 20 => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    /// Folder of the server's own files, which its user may read: for keys and tablespaces.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Gives a file to the server's user, for it alone.
    ///
    /// # Errors
    /// The system refuses.
    pub fn give(&self, path: &Path) -> Result<()> {
        if let Some((uid, gid)) = self.user {
            chown(path, Some(uid), Some(gid))?;
        }
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// For `CLAUDEMESH_TEST_POSTGRES`.
    pub fn url(&self) -> String {
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

fn serve(
    bin: &Path,
    folder: &Path,
    user: Option<(u32, u32)>,
    port: u16,
    settings: &[String],
    small_disk: Option<&str>,
) -> Result<Child> {
    let program = bin.join("postgres");
    let mut command = match (small_disk, user) {
        (None, _) => as_user(Command::new(program), user),
        (Some(size), Some((uid, gid))) => {
            // Mounted as root where only the server sees it; gone with the server.
            let mount = format!("mount -t tmpfs -o size={size},mode=0700,uid={uid},gid={gid} none small");
            let drop = format!("setpriv --reuid {uid} --regid {gid} --clear-groups --pdeathsig QUIT");
            let mut command = Command::new("unshare");
            command.args(["-m", "--", "sh", "-c", &format!("{mount} && exec {drop} -- \"$@\""), "sh"]).arg(program);
            command
        }
        (Some(_), None) => bail!("only root can mount a small disk"),
    };
    command.current_dir(folder).arg("-D").arg(folder.join("data"));
    for setting in [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".into(),
        format!("unix_socket_directories={}", folder.display()),
        "max_connections=300".into(),
    ]
    .iter()
    .chain(settings)
    {
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
    let log_file = folder.join("server.log");
    std::thread::spawn(move || follow(BufReader::new(log), &log_file, &ready));
    if is_ready.recv_timeout(Duration::from_secs(60)).is_err() {
        let log = fs::read_to_string(folder.join("server.log")).unwrap_or_default();
        let status = server.try_wait().ok().flatten();
        signal(server.id(), libc::SIGQUIT);
        server.wait().ok();
        bail!("PostgreSQL did not become ready (exit status {status:?}):\n{log}");
    }
    Ok(server)
}

/// Whether [`Postgres::start_with_small_disk`] can work here.
pub fn may_mount() -> bool {
    is_root()
}

/// The newest PostgreSQL whose server programs are here.
pub fn programs() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").is_file())
        .collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let elsewhere = || std::env::split_paths(&path).find(|bin| bin.join("initdb").is_file());
    versions.pop().map(|(_, bin)| bin).or_else(elsewhere)
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
