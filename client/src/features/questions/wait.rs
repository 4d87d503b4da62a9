//! Who waits for which answer in this process, and how what ends a wait reaches it.
//!
//! The inbox is the truth: a wait ends with a message that [`settle`] took out of it. From before the question is sent the
//! inbox holds what may end the wait back from every route, for an answer can be here sooner than the word of the broker
//! that names the question. When the waiter has gone meanwhile, the message is given back and arrives like any other.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::connection::Connection;
use crate::inbox::pending_waits::{Asked, Taken};
use crate::inbox::{InboxError, Mailbox};

/// The route of messages that ended a wait, in receipts and in the inbox.
pub const ROUTE: &str = "ask";

/// The waits of one mesh in this process.
#[derive(Clone, Default)]
pub struct Waits {
    list: Arc<Mutex<Vec<Waiter>>>,
    /// One settles at a time: a second one would find the answer that the first has just taken.
    settling: Arc<tokio::sync::Mutex<()>>,
}

struct Waiter {
    number: u64,
    question_id: String,
    asked: Asked,
    wake: oneshot::Sender<Taken>,
}

/// One wait, from before its question is sent. Dropping it ends the wait, not the question.
pub struct Wait {
    waits: Waits,
    number: u64,
    asked: Asked,
    mailbox: Mailbox,
    connection: Connection,
    woken: Option<oneshot::Receiver<Taken>>,
}

impl Waits {
    /// Says that a question is about to be sent.
    pub fn announce(&self, asked: Asked, mailbox: &Mailbox, connection: &Connection) -> Wait {
        let number = mailbox.pending_waits().add(asked.clone());
        Wait {
            waits: self.clone(),
            number,
            asked,
            mailbox: mailbox.clone(),
            connection: connection.clone(),
            woken: None,
        }
    }

    /// Whether no one waits.
    pub fn is_empty(&self) -> bool {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn snapshot(&self) -> Vec<(u64, String, Asked)> {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().map(|one| (one.number, one.question_id.clone(), one.asked.clone())).collect()
    }

    fn remove(&self, number: u64) -> Option<Waiter> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let at = list.iter().position(|one| one.number == number)?;
        Some(list.swap_remove(at))
    }
}

impl Wait {
    /// The question was accepted under this id.
    pub fn sent(&mut self, question_id: &str) {
        let (wake, woken) = oneshot::channel();
        self.woken = Some(woken);
        self.mailbox.pending_waits().name(self.number, question_id);
        let waiter =
            Waiter { number: self.number, question_id: question_id.to_owned(), asked: self.asked.clone(), wake };
        self.waits.list.lock().unwrap_or_else(PoisonError::into_inner).push(waiter);
        // What was held because its meaning was not known yet.
        self.connection.nudge();
    }

    /// What ended it. Pends until [`settle`] hands something over.
    pub async fn woken(&mut self) -> Option<Taken> {
        match &mut self.woken {
            Some(woken) => woken.await.ok(),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.waits.remove(self.number);
        self.mailbox.pending_waits().remove(self.number);
        // Handed over in the moment in which the wait ended: another route has to show it.
        let left = self.woken.as_mut().and_then(|woken| {
            woken.close();
            woken.try_recv().ok()
        });
        match (left, tokio::runtime::Handle::try_current()) {
            (Some(taken), Ok(runtime)) => {
                let (mailbox, connection) = (self.mailbox.clone(), self.connection.clone());
                runtime.spawn(async move {
                    let (reader, seq) = (connection.identity().reader(), taken.message().seq);
                    if let Err(error) = mailbox.run(move |inbox| inbox.give_back(&reader, seq)).await {
                        tracing::error!(%error, "an answer was taken and cannot be given back; `claudemesh inbox` has it");
                    }
                    connection.nudge();
                });
            }
            _ => self.connection.nudge(),
        }
    }
}

/// Takes what ends a wait of this process out of the inbox and hands it over; costs nothing while no one waits. `ruled`: the rule for incoming messages was applied
/// to what may be taken.
///
/// # Errors
/// [`InboxError`]; what was not taken is found by the next call.
pub async fn settle(waits: &Waits, mailbox: &Mailbox, reader: &str, ruled: bool) -> Result<(), InboxError> {
    let _settling = waits.settling.lock().await;
    for (number, question_id, asked) in waits.snapshot() {
        let (of, now) = (reader.to_owned(), crate::clock::now_ms());
        let taken = mailbox.run(move |inbox| inbox.take_for_wait(&of, &question_id, &asked, ruled, ROUTE, now)).await?;
        let Some(taken) = taken else { continue };
        let undelivered = match waits.remove(number) {
            Some(waiter) => waiter.wake.send(taken).err(),
            None => Some(taken),
        };
        if let Some(taken) = undelivered {
            let (of, seq) = (reader.to_owned(), taken.message().seq);
            mailbox.run(move |inbox| inbox.give_back(&of, seq)).await?;
        }
    }
    Ok(())
}
