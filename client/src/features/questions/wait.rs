//! Who waits for which answer in this process, and how what ends a wait reaches it.
//!
//! The inbox is the truth: a wait ends with a message that [`settle`] took out of it, so no other route shows that message
//! too. When the waiter has gone meanwhile, the message is given back and arrives like any other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, RwLock, oneshot};

use crate::inbox::questions::{Asked, Taken};
use crate::inbox::{InboxError, Mailbox};

/// The route of messages that ended a wait, in receipts and in the inbox.
pub const ROUTE: &str = "ask";

/// The waits of one mesh in this process.
#[derive(Clone, Default)]
pub struct Waits {
    list: Arc<Mutex<Vec<Waiter>>>,
    /// Held for reading from before a question is sent until its wait is known: an answer can arrive sooner than the
    /// word of the broker that names the question.
    sending: Arc<RwLock<()>>,
    next: Arc<AtomicU64>,
}

struct Waiter {
    number: u64,
    question_id: String,
    asked: Asked,
    wake: oneshot::Sender<Taken>,
}

/// Leave to send one question; see [`Waits::announce`].
pub struct Announced {
    waits: Waits,
    _sending: OwnedRwLockReadGuard<()>,
}

/// One wait. Dropping it ends the wait, not the question.
pub struct Wait {
    waits: Waits,
    number: u64,
    woken: oneshot::Receiver<Taken>,
}

impl Waits {
    /// Says that a question is about to be sent. Until it is [`Announced::sent`] or dropped, nothing is shown.
    pub async fn announce(&self) -> Announced {
        let sending = Arc::clone(&self.sending).read_owned().await;
        Announced { waits: self.clone(), _sending: sending }
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

impl Announced {
    /// The question was accepted under this id: waits for its answer.
    pub fn sent(self, question_id: &str, asked: Asked) -> Wait {
        let (wake, woken) = oneshot::channel();
        let number = self.waits.next.fetch_add(1, Ordering::Relaxed);
        let waiter = Waiter { number, question_id: question_id.to_owned(), asked, wake };
        self.waits.list.lock().unwrap_or_else(PoisonError::into_inner).push(waiter);
        Wait { waits: self.waits.clone(), number, woken }
    }
}

impl Wait {
    /// What ended it. Pends until [`settle`] hands something over.
    pub async fn woken(&mut self) -> Option<Taken> {
        (&mut self.woken).await.ok()
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.waits.remove(self.number);
    }
}

/// Takes what ends a wait of this process out of the inbox and hands it over. Called before messages are shown by any
/// route, and by the waits themselves; costs nothing while nobody waits.
///
/// # Errors
/// [`InboxError`]; what was not taken is found by the next call.
pub async fn settle(waits: &Waits, mailbox: &Mailbox, reader: &str) -> Result<(), InboxError> {
    // Not while a question is on its way: its answer may be here already.
    drop(waits.sending.write().await);
    for (number, question_id, asked) in waits.snapshot() {
        let (of, now) = (reader.to_owned(), crate::clock::now_ms());
        let taken = mailbox.run(move |inbox| inbox.take_for_wait(&of, &question_id, &asked, ROUTE, now)).await?;
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
