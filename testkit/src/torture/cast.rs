//! The connections of one part of a round, what they tell the run, and asking a broker at rest.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use claudemesh_protocol::features::audit::AuditHeadsResult;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::identity::merged;
use crate::wire::{END, Peer, Socket, is};

/// What the connections tell the run.
#[derive(Default)]
pub(super) struct Board {
    fault: RefCell<Option<String>>,
    changed: watch::Sender<u64>,
    /// Ends of the audit log that the broker showed in welcomes.
    pub(super) heads: RefCell<Vec<AuditHeadsResult>>,
}

impl Board {
    /// A promise was broken. The first one counts.
    pub(super) fn fail(&self, fault: impl Into<String>) {
        self.fault.borrow_mut().get_or_insert(fault.into());
        self.change();
    }

    /// Something happened that others may wait for.
    pub(super) fn change(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Waits until it is so, or a promise was broken.
    pub(super) async fn until(&self, done: impl Fn() -> bool) {
        let mut changed = self.changed.subscribe();
        while !done() && self.fault.borrow().is_none() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// The first broken promise.
    pub(super) fn check(&self) -> Result<()> {
        match self.fault.borrow().as_ref() {
            Some(fault) => bail!("{fault}"),
            None => Ok(()),
        }
    }
}

#[derive(Default)]
struct Ready {
    wanted: Cell<usize>,
    count: Cell<usize>,
    changed: Notify,
}

/// Connections under way.
pub(super) struct Cast {
    address: SocketAddr,
    board: Rc<Board>,
    tasks: JoinSet<Result<()>>,
    phases: watch::Sender<u32>,
    ready: Rc<Ready>,
}

/// Where one of them stands.
pub(super) struct Stage {
    address: SocketAddr,
    board: Rc<Board>,
    ready: Rc<Ready>,
    /// 1 once all are ready, [`END`] at the end.
    pub(super) phases: watch::Receiver<u32>,
}

impl Stage {
    /// Connects and says hello; answers the welcome, too.
    pub(super) async fn join(&self, hello: &Value) -> Result<(Socket, Value)> {
        let mut socket = Socket::connect(self.address).await?;
        // The first pushes come right behind the welcome, so a reader has to read from there on.
        let welcome: Value = serde_json::from_slice(&socket.hello(&hello.to_string()).await?)?;
        if let Ok(head) = serde_json::from_value(welcome["features"]["audit"].clone()) {
            self.board.heads.borrow_mut().push(head);
        }
        Ok((socket, welcome))
    }

    /// Says that it may begin; to be called once.
    pub(super) fn ready(&self) {
        self.ready.count.set(self.ready.count.get() + 1);
        self.ready.changed.notify_one();
    }

    /// Waits until all are ready.
    pub(super) async fn begun(&mut self) -> Result<()> {
        Ok(self.phases.wait_for(|phase| *phase >= 1).await.map(drop)?)
    }
}

impl Cast {
    /// No one yet.
    pub(super) fn new(address: SocketAddr, board: &Rc<Board>) -> Self {
        let (tasks, phases) = (JoinSet::new(), watch::Sender::new(0));
        Self { address, board: board.clone(), tasks, phases, ready: Rc::default() }
    }

    /// Adds whatever ends with the part: an error before that, or before the kill, fails the run.
    pub(super) fn add<F: Future<Output = Result<()>> + 'static>(&mut self, act: impl FnOnce(Stage) -> F) {
        let (address, board, ready) = (self.address, self.board.clone(), self.ready.clone());
        ready.wanted.set(ready.wanted.get() + 1);
        let stage = Stage { address, board, ready, phases: self.phases.subscribe() };
        self.tasks.spawn_local(act(stage));
    }

    /// Adds a connection that is served until the end.
    pub(super) fn connect<P: Peer + 'static>(&mut self, hello: Value, mut peer: P) {
        self.add(|stage| async move {
            let (mut socket, _) = stage.join(&hello).await?;
            stage.ready();
            socket.drive(&mut peer, None, stage.phases).await
        });
    }

    /// Waits until all have said that they may begin.
    pub(super) async fn all_ready(&mut self) -> Result<()> {
        while self.ready.count.get() < self.ready.wanted.get() {
            tokio::select! {
                () = self.ready.changed.notified() => {}
                Some(ended) = self.tasks.join_next() => early(ended)?,
            }
        }
        Ok(())
    }

    /// Lets all begin.
    pub(super) fn begin(&self) {
        self.phases.send_replace(1);
    }

    /// Serves the connections for that long.
    pub(super) async fn go_on_for(&mut self, time: Duration) -> Result<()> {
        let end = tokio::time::sleep(time);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                Some(ended) = self.tasks.join_next() => early(ended)?,
            }
        }
    }

    /// Serves the connections until it is so, or a promise was broken.
    pub(super) async fn until(&mut self, done: impl Fn() -> bool) -> Result<()> {
        let board = self.board.clone();
        let until = board.until(done);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return Ok(()),
                Some(ended) = self.tasks.join_next() => early(ended)?,
            }
        }
    }

    /// Reads what the kernel still holds of the dead broker's last words: a confirmation in there is a promise.
    pub(super) async fn drained(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ends all.
    pub(super) async fn end(mut self) -> Result<()> {
        self.phases.send_replace(END);
        while let Some(ended) = self.tasks.join_next().await {
            early(ended)?;
        }
        Ok(())
    }
}

fn early(ended: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    ended.context("a peer's task panicked")?.context("a peer failed while the broker was there")
}

/// The broker at rest.
pub(super) struct Quiet {
    pub(super) address: SocketAddr,
}

impl Quiet {
    /// A connection that only asks. To drop it is enough: the broker takes a second to answer a goodbye, and the session may come back.
    pub(super) async fn connect(&self, hello: &Value) -> Result<Asking> {
        let mut socket = Socket::connect(self.address).await?;
        let welcome = serde_json::from_slice(&socket.hello(&hello.to_string()).await?)?;
        Ok(Asking { welcome, socket, requests: 0 })
    }
}

/// Asks one thing after the other.
pub(super) struct Asking {
    /// `hello_ack`
    pub(super) welcome: Value,
    socket: Socket,
    requests: u32,
}

impl Asking {
    /// Asks, and reads the answer of that type.
    pub(super) async fn call(&mut self, frame: Value, answer: &str) -> Result<Value> {
        self.requests += 1;
        let (kind, id) = (frame["type"].clone(), format!("q{}", self.requests));
        let mark = format!("\"_reqId\":\"{id}\"");
        let frame = merged(frame, json!({ "_reqId": id })).to_string();
        let wanted = |text: &[u8]| memchr::memmem::find(text, mark.as_bytes()).is_some();
        let found = self.socket.call(frame.as_bytes(), wanted).await?;
        if !is(&found, answer) {
            bail!("{kind} was answered with {}", String::from_utf8_lossy(&found));
        }
        Ok(serde_json::from_slice(&found)?)
    }

    /// Says goodbye.
    pub(super) async fn leave(self) -> Result<()> {
        self.socket.leave().await
    }
}
