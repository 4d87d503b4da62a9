//! Many connections in one thread, each with its own task.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Interval;

use crate::wire::{END, Peer, Socket};

/// Connections that are being served. Phases are announced to all of them.
pub struct Fleet {
    address: SocketAddr,
    phases: watch::Sender<u32>,
    tasks: JoinSet<Result<()>>,
    connecting: Rc<Semaphore>,
    ready: Rc<RefCell<usize>>,
    changed: Rc<tokio::sync::Notify>,
    wanted: usize,
}

impl Fleet {
    /// No connections yet; at most `at_once` handshakes run at a time.
    pub fn new(address: SocketAddr, at_once: usize) -> Self {
        Self {
            address,
            phases: watch::Sender::new(0),
            tasks: JoinSet::new(),
            connecting: Rc::new(Semaphore::new(at_once)),
            ready: Rc::default(),
            changed: Rc::default(),
            wanted: 0,
        }
    }

    /// Connects, says hello when one is given, then serves the connection until [`Self::end`].
    pub fn add<P: Peer + 'static>(&mut self, hello: Option<String>, mut peer: P, timer: Option<Interval>) {
        let (address, phases) = (self.address, self.phases.subscribe());
        let (connecting, ready, changed) = (self.connecting.clone(), self.ready.clone(), self.changed.clone());
        self.wanted += 1;
        self.tasks.spawn_local(async move {
            let mut socket = {
                let _permit = connecting.acquire().await?;
                let mut socket = Socket::connect(address).await?;
                if let Some(hello) = hello {
                    socket.hello(&hello).await?;
                }
                socket
            };
            *ready.borrow_mut() += 1;
            changed.notify_one();
            socket.drive(&mut peer, timer, phases).await
        });
    }

    /// Waits until all are connected and have their `hello_ack`.
    ///
    /// # Errors
    /// One of them failed.
    pub async fn ready(&mut self) -> Result<()> {
        while *self.ready.borrow() < self.wanted {
            tokio::select! {
                () = self.changed.notified() => {}
                Some(ended) = self.tasks.join_next() => fail(ended)?,
            }
        }
        Ok(())
    }

    /// Announces a phase.
    pub fn phase(&self, phase: u32) {
        self.phases.send_replace(phase);
    }

    /// Waits for an event of the run, or for the first connection that fails.
    ///
    /// # Errors
    /// A connection failed, or a minute and a half went by.
    pub async fn until(&mut self, event: &tokio::sync::Notify) -> Result<()> {
        tokio::select! {
            () = event.notified() => Ok(()),
            Some(ended) = self.tasks.join_next() => fail(ended),
            () = tokio::time::sleep(std::time::Duration::from_secs(90)) => bail!("the run did not finish in 90 seconds"),
        }
    }

    /// Serves the connections for that long.
    ///
    /// # Errors
    /// A connection failed.
    pub async fn for_a_while(&mut self, time: std::time::Duration) -> Result<()> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            Some(ended) = self.tasks.join_next() => fail(ended),
        }
    }

    /// Closes every connection.
    ///
    /// # Errors
    /// One of them had failed.
    pub async fn end(mut self) -> Result<()> {
        self.phase(END);
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a connection's task panicked")??;
        }
        Ok(())
    }
}

fn fail(ended: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    ended.context("a connection's task panicked")?.context("a connection failed")?;
    bail!("a connection ended before the run did")
}
