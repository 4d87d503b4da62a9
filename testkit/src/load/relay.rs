//! Round trips through the bare relay: the ceiling of this machine and this client.

use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

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
        crate::child::die_with_us(&mut command, libc::SIGKILL);
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

/// Sends its frame again when it has come back: one round trip at a time.
struct Caller {
    count: Rc<Cell<u64>>,
    padding: Rc<Vec<u8>>,
}

impl Peer for Caller {
    fn frame(&mut self, _text: &[u8], out: &mut Out) {
        self.count.set(self.count.get() + 1);
        out.text(&[b"back", &self.padding]);
    }

    fn phase(&mut self, _phase: u32, out: &mut Out) {
        out.text(&[b"back", &self.padding]);
    }
}

/// Answers each frame with one to a random connection: the number of frames under way stays what it was.
struct Passer {
    count: Rc<Cell<u64>>,
    random: SmallRng,
    padding: Rc<Vec<u8>>,
}

impl Passer {
    fn pass(&mut self, out: &mut Out) {
        let target = format!("{:04x}", self.random.gen_range(0..CONNECTIONS));
        out.text(&[target.as_bytes(), &self.padding]);
    }
}

impl Peer for Passer {
    fn frame(&mut self, _text: &[u8], out: &mut Out) {
        self.count.set(self.count.get() + 1);
        self.pass(out);
    }

    fn phase(&mut self, _phase: u32, out: &mut Out) {
        for _ in 0..WINDOW {
            self.pass(out);
        }
    }
}

const CONNECTIONS: u16 = 100;
const WINDOW: u32 = 32;
/// What a `send` of 300 bytes is on the wire: sealed, in base64, with its address and ids.
pub const FRAME: usize = 670;

/// Round trips per second client - actor - the same client, with 100 connections that each wait for their frame of
/// [`FRAME`] bytes before they send it again.
///
/// # Errors
/// The relay failed.
pub async fn round_trips(address: SocketAddr, time: Duration) -> Result<f64> {
    measure(address, time, |_, count, padding| Caller { count, padding }).await
}

/// Frames per second that travel client - actor - other client, with 100 connections and 32 frames of [`FRAME`] bytes
/// under way for each.
///
/// # Errors
/// The relay failed.
pub async fn passed_on(address: SocketAddr, time: Duration) -> Result<f64> {
    measure(address, time, |index, count, padding| {
        let random = SmallRng::seed_from_u64(u64::from(index));
        Passer { count, random, padding }
    })
    .await
}

async fn measure<P: Peer + 'static>(
    address: SocketAddr,
    time: Duration,
    peer: impl Fn(u16, Rc<Cell<u64>>, Rc<Vec<u8>>) -> P,
) -> Result<f64> {
    let (count, padding) = (Rc::new(Cell::new(0)), Rc::new(vec![b'x'; FRAME - 4]));
    let mut fleet = Fleet::new(address, 64);
    for index in 0..CONNECTIONS {
        fleet.add(None, peer(index, count.clone(), padding.clone()), None);
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
