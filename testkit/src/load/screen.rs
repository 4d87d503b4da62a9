//! A pseudo-terminal for a program that draws, and what drawing costs it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::process::cpu_seconds_of;

/// How long the first screen may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program on a terminal of 120 columns and 40 rows. It ends with this.
pub struct Screen {
    master: File,
    child: Child,
    drawn: mpsc::Receiver<Vec<u8>>,
}

impl Screen {
    /// Starts it.
    ///
    /// # Errors
    /// There is no pseudo-terminal, or the program cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let (master, slave) = terminal()?;
        command.env("TERM", "xterm").stdin(Stdio::from(slave.try_clone()?)).stdout(Stdio::from(slave));
        let child = command.stderr(Stdio::null()).spawn().context("starting the program")?;
        // What the command holds of the terminal ends here, so that reading ends with the program.
        drop(command);
        let (mut reader, (sender, drawn)) = (master.try_clone()?, mpsc::channel());
        std::thread::spawn(move || {
            let mut chunk = [0; 65_536];
            while let Ok(count @ 1..) = reader.read(&mut chunk) {
                if sender.send(chunk[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { master, child, drawn })
    }

    /// Waits until the text was drawn.
    ///
    /// # Errors
    /// It never is.
    pub fn shows(&self, text: &str) -> Result<()> {
        let (deadline, mut seen) = (Instant::now() + PATIENCE, String::new());
        while !seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let chunk = self.drawn.recv_timeout(left).with_context(|| format!("{text:?} is never drawn: {seen:?}"))?;
            seen += &String::from_utf8_lossy(&chunk);
        }
        Ok(())
    }

    /// Processor seconds of the program so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds_of(self.child.id())
    }

    /// Types a key that ends the program, and waits for its end.
    ///
    /// # Errors
    /// It fails.
    pub fn end(mut self, key: &str) -> Result<()> {
        self.master.write_all(key.as_bytes())?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the program ended with {status}");
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[expect(unsafe_code, reason = "openpty(3) has no safe form in std; both descriptors are new and ours alone")]
fn terminal() -> Result<(File, File)> {
    let mut size = libc::winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut master, mut slave) = (-1, -1);
    unsafe {
        let (no_name, no_modes) = (std::ptr::null_mut(), std::ptr::null_mut());
        if libc::openpty(&raw mut master, &raw mut slave, no_name, no_modes, &raw mut size) != 0 {
            return Err(std::io::Error::last_os_error()).context("opening a pseudo-terminal");
        }
        Ok((File::from_raw_fd(master), File::from_raw_fd(slave)))
    }
}
