//! A way to the broker that stops after a number of bytes: held until it is let go, or cut once.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use anyhow::{Context, Result};
use claudemesh_testkit::cli::CommandLine;

/// In which direction bytes are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

/// What happens at the mark.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtMark {
    /// Everything waits until [`Line::release`].
    Hold,
    /// All connections end, once; later ones pass.
    Cut,
}

struct State {
    direction: Direction,
    left: Option<u64>,
    at_mark: AtMark,
    held: bool,
    open: Vec<TcpStream>,
    reached: bool,
}

/// The way.
pub(crate) struct Line {
    port: u16,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Line {
    pub(crate) fn start(broker: SocketAddr, direction: Direction, mark: u64, at_mark: AtMark) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let state = State { direction, left: Some(mark), at_mark, held: false, open: vec![], reached: false };
        let state = Arc::new((Mutex::new(state), Condvar::new()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(broker) else { continue };
                for (from, to, direction) in [(&client, &server, Direction::Up), (&server, &client, Direction::Down)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || pass(from, to, direction, &shared));
                }
                shared.0.lock().unwrap().open.extend([client, server]);
            }
        });
        Ok(Self { port, state })
    }

    /// Lets this person reach the broker by this way only.
    pub(crate) fn lead(&self, person: &CommandLine) -> Result<()> {
        let path = person.config_dir().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        config["meshes"][0]["brokerUrl"] = format!("ws://127.0.0.1:{}/ws", self.port).into();
        std::fs::write(&path, serde_json::to_vec(&config)?).context("writing the config")
    }

    /// Whether the mark was reached.
    pub(crate) fn is_reached(&self) -> bool {
        self.state.0.lock().unwrap().reached
    }

    /// Lets everything pass from now on.
    pub(crate) fn release(&self) {
        let (state, changed) = &*self.state;
        let mut state = state.lock().unwrap();
        (state.held, state.left) = (false, None);
        changed.notify_all();
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, direction: Direction, shared: &(Mutex<State>, Condvar)) {
    let mut bytes = vec![0; 32 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let (state, changed) = shared;
        let mut state = state.lock().unwrap();
        if state.direction == direction
            && let Some(left) = state.left
        {
            state.left = Some(left.saturating_sub(count as u64));
            if state.left == Some(0) {
                (state.left, state.reached) = (None, true);
                match state.at_mark {
                    AtMark::Hold => state.held = true,
                    AtMark::Cut => {
                        for stream in state.open.drain(..) {
                            let _ = stream.shutdown(Shutdown::Both);
                        }
                    }
                }
            }
        }
        while state.held {
            state = changed.wait(state).unwrap();
        }
        drop(state);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
