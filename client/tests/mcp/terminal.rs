//! A pseudo-terminal: what is drawn, and keys.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use claudemesh_testkit::host::PATIENCE;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

pub(crate) struct Terminal {
    master: File,
    slave: File,
    chunks: mpsc::Receiver<Vec<u8>>,
    /// What was drawn since the last key.
    pub(crate) seen: String,
}

impl Terminal {
    pub(crate) fn new(columns: u16) -> Result<Self> {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, vec![])?.into_string()?;
        let slave = File::options().read(true).write(true).open(name)?;
        tcsetwinsize(&slave, Winsize { ws_row: 30, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
        let master: File = master.into();
        let (sender, chunks) = mpsc::channel();
        let mut reader = master.try_clone()?;
        std::thread::spawn(move || {
            let mut chunk = [0; 65_536];
            while let Ok(count @ 1..) = reader.read(&mut chunk) {
                if sender.send(chunk[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { master, slave, chunks, seen: String::new() })
    }

    pub(crate) fn stdio(&self) -> Result<Stdio> {
        Ok(self.slave.try_clone()?.into())
    }

    /// Reads until the text was drawn.
    pub(crate) fn wait_for(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.seen.contains(text) {
            let chunk = self.chunks.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let chunk = chunk.with_context(|| format!("{text:?} never came: {:?}", self.seen))?;
            self.seen.push_str(&String::from_utf8_lossy(&chunk));
        }
        Ok(())
    }

    /// Reads for so long, and answers how many bytes were drawn meanwhile.
    pub(crate) fn drawn_within(&mut self, time: Duration) -> usize {
        let (end, mut drawn) = (Instant::now() + time, 0);
        while let Ok(chunk) = self.chunks.recv_timeout(end.saturating_duration_since(Instant::now())) {
            drawn += chunk.len();
        }
        drawn
    }

    pub(crate) fn press(&mut self, keys: &str) -> Result<()> {
        self.seen.clear();
        Ok(self.master.write_all(keys.as_bytes())?)
    }

    pub(crate) fn is_cooked(&self) -> Result<bool> {
        Ok(tcgetattr(&self.slave)?.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO))
    }
}
