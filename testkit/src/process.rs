//! The real broker binary as a child: started, killed, restarted on the same data.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::child::die_with_us;

/// A running `claudemesh-broker`; killed on drop.
pub struct BrokerProcess {
    child: Child,
    binary: PathBuf,
    args: Vec<String>,
    data_dir: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
}

impl BrokerProcess {
    /// Starts the broker on a free loopback port, with `--limits off`, and waits for its ready line.
    ///
    /// # Errors
    /// It cannot be started, or ends before it is ready.
    pub fn start(binary: &Path, data_dir: &Path, args: &[&str]) -> Result<Self> {
        // A restart must come back at the same address, so the port is chosen here.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let child = spawn(binary, data_dir, address, &args)?;
        Ok(Self { child, binary: binary.into(), args, data_dir: data_dir.into(), address })
    }

    /// `http://host:port`
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `ws://host:port/ws`
    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing the broker")?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again on the same data and address.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.child = spawn(&self.binary, &self.data_dir, self.address, &self.args)?;
        Ok(())
    }

    /// SIGTERM, and waits for the exit status.
    ///
    /// # Errors
    /// The kernel refuses.
    #[expect(unsafe_code, reason = "kill(2) has no safe form in std; the pid is that of our own unreaped child")]
    pub fn terminate(&mut self) -> Result<std::process::ExitStatus> {
        let pid = i32::try_from(self.child.id())?;
        if unsafe { libc::kill(pid, libc::SIGTERM) } != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(self.child.wait()?)
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// The process is gone.
    pub fn rss(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// Processor seconds used so far, in all threads.
    ///
    /// # Errors
    /// The process is gone.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds_of(self.child.id())
    }
}

/// Processor seconds that a process has used so far, in all threads.
///
/// # Errors
/// The process is gone.
pub fn cpu_seconds_of(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(')').context("no command in /proc stat")?.1;
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|part| part.parse::<u64>().ok()).sum();
    // Linux counts a hundred a second for every program.
    Ok(ticks as f64 / 100.0)
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn(binary: &Path, data_dir: &Path, address: SocketAddr, args: &Vec<String>) -> Result<Child> {
    let mut command = Command::new(binary);
    command.arg("serve").args(["--listen", &address.to_string(), "--limits", "off", "--data-dir"]).arg(data_dir);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    let log = std::fs::OpenOptions::new().create(true).append(true).open(data_dir.join("broker.log"))?;
    command.stderr(log);
    die_with_us(&mut command, libc::SIGKILL);
    let mut child = command.spawn().with_context(|| format!("starting {}", binary.display()))?;
    let stdout = child.stdout.take().context("stdout was piped")?;
    let mut lines = BufReader::new(stdout).lines();
    loop {
        match lines.next() {
            Some(Ok(line)) if line.contains("listening on ws://") => break,
            Some(Ok(_)) => {}
            _ => {
                let status = child.wait()?;
                let log = std::fs::read_to_string(data_dir.join("broker.log")).unwrap_or_default();
                let tail: String = log.lines().rev().take(10).collect::<Vec<_>>().join("\n");
                bail!("the broker ended before it was ready ({status}); end of its log, last line first:\n{tail}");
            }
        }
    }
    // The rest is read so that the broker never blocks on a full pipe.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Ok(child)
}

/// Raises the limit of open files to what the system allows; children inherit it.
///
/// # Errors
/// The kernel refuses.
#[expect(unsafe_code, reason = "getrlimit and setrlimit have no safe form in std; the struct is ours and initialised")]
pub fn raise_file_limit() -> Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
    }
    Ok(limit.rlim_cur)
}
