//! Requests that wait for their answer, by request id. An answer without a known id completes nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use claudemesh_protocol::message::ServerMessage;
use tokio::sync::oneshot;

use super::ConnectionError;

type Answer = Result<ServerMessage, ConnectionError>;

#[derive(Default)]
pub(super) struct Pending {
    waiting: Mutex<HashMap<String, oneshot::Sender<Answer>>>,
}

impl Pending {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<Answer>>> {
        // Each critical section is one map operation, so a poisoned map is still whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a request; dropping the ticket (answer taken, timeout, caller gone) removes it.
    pub(super) fn add(&self, id: String) -> Ticket<'_> {
        let (sender, receiver) = oneshot::channel();
        self.map().insert(id.clone(), sender);
        Ticket { pending: self, id, receiver }
    }

    /// Whether someone still waits for this request: a frame whose caller gave up is not sent any more.
    pub(super) fn wants(&self, id: &str) -> bool {
        self.map().contains_key(id)
    }

    /// Hands an answer over; `false` when no one waits for this id.
    pub(super) fn complete(&self, id: &str, answer: Answer) -> bool {
        let sender = self.map().remove(id);
        sender.is_some_and(|sender| sender.send(answer).is_ok())
    }

    /// The socket is gone: everyone learns it.
    pub(super) fn fail_all(&self, error: &ConnectionError) {
        let all = std::mem::take(&mut *self.map());
        for sender in all.into_values() {
            let _ = sender.send(Err(error.clone()));
        }
    }
}

/// A registered request.
pub(super) struct Ticket<'a> {
    pending: &'a Pending,
    id: String,
    receiver: oneshot::Receiver<Answer>,
}

impl Ticket<'_> {
    /// Waits for the answer.
    pub(super) async fn answer(mut self) -> Answer {
        match (&mut self.receiver).await {
            Ok(answer) => answer,
            Err(_) => Err(ConnectionError::Lost("the connection ended".into())),
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.pending.map().remove(&self.id);
    }
}
