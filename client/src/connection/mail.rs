//! Incoming pushes: opened in arrival order by one task per mesh, stored, and only then acknowledged.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use claudemesh_protocol::features::messaging::{ClientAck, Push};
use claudemesh_protocol::features::presence;
use claudemesh_protocol::message::ClientMessage;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::driver::{Outgoing, Shared};
use super::open;
use crate::inbox::{Mailbox, NewMessage};

/// Pushes between the socket and the inbox: the broker's window of unacknowledged pushes and some events. When it is
/// full the socket is not read, which the broker notices.
pub(super) const MAIL_QUEUE: usize = 512;
/// Pushes stored in one transaction.
const MAX_BATCH: usize = 64;
/// Words that a slow listener may miss; messages are not lost, they are in the inbox.
const STORED_QUEUE: usize = 1_024;
/// Wait before the inbox is tried again (full disk).
const RETRY: Duration = Duration::from_secs(2);

/// How long messages wait for the names of their senders.
const NAMES_TIMEOUT: Duration = Duration::from_secs(2);

/// What the mail task is given.
pub(super) enum MailItem {
    /// A push.
    Push(Box<Push>),
    /// Answered when everything before it is stored.
    Barrier(oneshot::Sender<()>),
}

/// So many messages that were new to this reader are in the inbox now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored(pub usize);

/// Where incoming mail goes.
#[derive(Clone)]
pub(super) struct Mail {
    pub(super) queue: mpsc::Sender<MailItem>,
    pub(super) stored: broadcast::Sender<Stored>,
}

impl Mail {
    /// Starts the mail task. It ends when the connection and all its handles are gone.
    pub(super) fn start(
        shared: Arc<Shared>,
        mailbox: Mailbox,
        acks: mpsc::UnboundedSender<ClientAck>,
        asking: mpsc::WeakSender<Outgoing>,
    ) -> Self {
        let (queue, items) = mpsc::channel(MAIL_QUEUE);
        let (stored, _) = broadcast::channel(STORED_QUEUE);
        tokio::spawn(run(shared, mailbox, acks, asking, items, stored.clone()));
        Self { queue, stored }
    }
}

async fn run(
    shared: Arc<Shared>,
    mailbox: Mailbox,
    acks: mpsc::UnboundedSender<ClientAck>,
    asking: mpsc::WeakSender<Outgoing>,
    mut items: mpsc::Receiver<MailItem>,
    stored: broadcast::Sender<Stored>,
) {
    let reader: Arc<str> = shared.identity.reader().into();
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while items.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let now = crate::clock::now_ms();
        let mut pushes = Vec::new();
        let mut barriers = Vec::new();
        for item in batch.drain(..) {
            match item {
                // It takes the way of the messages, so that it is told at about the time of those that came with it.
                MailItem::Push(push) if open::is_system(&push) => shared.events.publish((*push).into()),
                MailItem::Push(push) => pushes.push(open::open(&push, &shared.identity, now)),
                MailItem::Barrier(done) => barriers.push(done),
            }
        }
        if !pushes.is_empty() {
            add_names(&shared, &asking, &mut pushes).await;
            let ids: Vec<String> = pushes.iter().map(|push| push.message_id.clone()).collect();
            let pushes = Arc::new(pushes);
            let fresh = loop {
                let (pushes, reader) = (Arc::clone(&pushes), Arc::clone(&reader));
                match mailbox.run(move |inbox| inbox.store(&reader, &pushes)).await {
                    Ok(fresh) => break fresh,
                    Err(crate::inbox::InboxError::Closed) => return,
                    Err(error) => {
                        // Not stored, so not acknowledged: the broker keeps them.
                        tracing::error!(mesh.slug = shared.identity.slug, %error, "messages cannot be stored, trying again");
                        tokio::select! {
                            () = tokio::time::sleep(RETRY) => {}
                            () = shared.stop.cancelled() => return,
                        }
                    }
                }
            };
            // The connection may be gone; it is acknowledged after the redelivery then.
            let _ = acks.send(ClientAck { message_ids: ids, ..ClientAck::default() });
            let count = fresh.iter().filter(|new| **new).count();
            if count > 0 {
                let _ = stored.send(Stored(count));
            }
        }
        for done in barriers {
            let _ = done.send(());
        }
    }
}

/// Older brokers send keys without names; who has them is in the list of peers.
async fn add_names(shared: &Shared, asking: &mpsc::WeakSender<Outgoing>, pushes: &mut [NewMessage]) {
    if !shared.is_older_broker() {
        return;
    }
    let known = |key: &str| shared.names.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
    let unknown = |push: &NewMessage| push.sender_name.is_none() && known(&push.sender_pubkey).is_none();
    if pushes.iter().any(unknown)
        && let Some(asking) = asking.upgrade()
    {
        let id = shared.next_id();
        let ticket = shared.pending.add(id.clone());
        let frame = ClientMessage::from(presence::Request::from(presence::ListPeers {})).write(Some(&id));
        if asking.try_send(Outgoing { id: Some(id), frame }).is_ok() {
            // The names are noted where the answer is read. Without one the key has to do.
            let _ = tokio::time::timeout(NAMES_TIMEOUT, ticket.answer()).await;
        }
    }
    for push in pushes.iter_mut().filter(|push| push.sender_name.is_none()) {
        let Some(known) = known(&push.sender_pubkey) else { continue };
        if push.sender_member == push.sender_pubkey {
            push.sender_member = known.member.to_hex();
        }
        push.sender_name = Some(known.name);
    }
}
