//! Round trips through the bare relay: the ceiling of this machine and this client.

use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::fleet::Fleet;
use crate::wire::{Out, Peer};

/// The relay as a process of its own, as the broker is one.
pub struct RelayProcess {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl RelayProcess {
    /// Starts this program again as the relay.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("relay").stdin(Stdio::null()).stdout(Stdio::piped());
        crate::process::die_with_us(&mut command);
        let mut child = command.spawn().context("starting the relay")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout was piped")?).read_line(&mut line)?;
        let address = line.trim().parse().with_context(|| format!("the relay said `{}`", line.trim()))?;
        Ok(Self { child, address })
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

struct Echo {
    count: Rc<Cell<u64>>,
    window: u32,
    frame: Rc<Vec<u8>>,
}

impl Peer for Echo {
    fn frame(&mut self, _text: &[u8], out: &mut Out) {
        self.count.set(self.count.get() + 1);
        out.text(&[&self.frame]);
    }

    fn phase(&mut self, _phase: u32, out: &mut Out) {
        for _ in 0..self.window {
            out.text(&[&self.frame]);
        }
    }
}

/// What a `send` of 300 bytes is on the wire: sealed, in base64, with its address and ids.
pub const FRAME: usize = 670;

/// Round trips per second of 100 connections with 32 frames of [`FRAME`] bytes in flight each.
///
/// # Errors
/// The relay failed.
pub async fn round_trips(address: SocketAddr, time: Duration) -> Result<f64> {
    let (count, frame) = (Rc::new(Cell::new(0)), Rc::new(vec![b'x'; FRAME]));
    let mut fleet = Fleet::new(address, 64);
    for _ in 0..100 {
        fleet.add(None, Echo { count: count.clone(), window: 32, frame: frame.clone() }, None);
    }
    fleet.ready().await?;
    fleet.phase(1);
    fleet.for_a_while(Duration::from_millis(500)).await?;
    let (before, start) = (count.get(), Instant::now());
    fleet.for_a_while(time).await?;
    let rate = (count.get() - before) as f64 / start.elapsed().as_secs_f64();
    fleet.end().await?;
    Ok(rate)
}
