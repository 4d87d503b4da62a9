//! What is written into the session unasked: messages, events, one welcome per mesh.
//!
//! Nothing before `notifications/initialized`: the host loses it. One task per mesh, one note after the other, so the order
//! of arrival is the order in the session. A message is claimed before it is written and given back when the write fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use claudemesh_protocol::features::messaging::Stage;
use rmcp::model::{CustomNotification, ServerNotification};
use rmcp::service::{Peer, RoleServer};
use tokio::sync::{broadcast, watch};

use super::hub::{Bound, Hub};
use super::notes::{self, ChannelNote, Welcome};
use crate::config::MessageMode;
use crate::connection::MailEvent;
use crate::features::questions;
use crate::inbox::InboxError;

/// The route's name in receipts and in the inbox.
pub const ROUTE: &str = "channel";
/// The route of `check_messages`.
pub const PULL: &str = "pull";
/// Messages claimed at a time.
const BATCH: i64 = 16;
/// How long the welcome waits for the first connection before it gives up being the first note.
const WELCOME_PATIENCE: Duration = Duration::from_secs(3);

/// Closed until the host says `notifications/initialized`.
#[derive(Clone)]
pub struct Gate {
    peer: Arc<watch::Sender<Option<Peer<RoleServer>>>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { peer: Arc::new(watch::Sender::new(None)) }
    }
}

impl Gate {
    /// Opens it for this client.
    pub fn open(&self, peer: Peer<RoleServer>) {
        self.peer.send_replace(Some(peer));
    }

    async fn opened(&self) -> Option<Peer<RoleServer>> {
        let mut peer = self.peer.subscribe();
        peer.wait_for(Option::is_some).await.ok().and_then(|peer| peer.clone())
    }
}

/// Shows what arrives in one mesh until the session ends.
pub(super) async fn run(hub: Arc<Hub>, bound: Bound) {
    let stop = hub.stopped();
    tokio::select! {
        () = stop.cancelled() => {}
        () = show(&hub, &bound) => {}
    }
}

async fn show(hub: &Hub, bound: &Bound) {
    let Some(mut events) = bound.connection.mail_events() else { return };
    let Some(peer) = hub.gate.opened().await else { return };
    let (reader, now) = (bound.reader(), crate::clock::now_ms());
    let adopting = bound.mailbox.run(move |inbox| inbox.adopt(&reader, now)).await;
    if let Err(error) = adopting {
        tracing::error!(mesh.slug = bound.tag.slug, %error, "the inbox cannot be read");
    }
    let mode = hub.mode();
    let mut shower = Shower { hub, bound, peer, mode, noticed: 0, welcomed: mode == MessageMode::Off };
    if !shower.welcomed && bound.connection.ready(WELCOME_PATIENCE).await.is_ok() {
        shower.welcome().await;
    }
    let mut state = bound.connection.watch();
    loop {
        if let Err(error) = shower.messages().await {
            tracing::error!(mesh.slug = bound.tag.slug, %error, "messages cannot be shown now");
        }
        tokio::select! {
            event = events.recv() => match event {
                Ok(MailEvent::Stored(_)) => {}
                Ok(MailEvent::System(event)) if mode != MessageMode::Off => {
                    if let Some(note) = notes::system(&event, &bound.tag) {
                        shower.write(&note).await;
                    }
                }
                Ok(MailEvent::System(_)) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(mesh.slug = bound.tag.slug, missed, "events were not shown: too many at once");
                }
                Err(broadcast::error::RecvError::Closed) => return,
            },
            changed = state.changed(), if !shower.welcomed => {
                if changed.is_err() {
                    return;
                }
                if bound.connection.hello_ack().is_ok() {
                    shower.welcome().await;
                }
            }
        }
    }
}

struct Shower<'a> {
    hub: &'a Hub,
    bound: &'a Bound,
    peer: Peer<RoleServer>,
    mode: MessageMode,
    /// Local number of the newest message that a notice told of, in mode `inbox`.
    noticed: i64,
    welcomed: bool,
}

impl Shower<'_> {
    /// Writes a note; `false` when the host is gone.
    async fn write(&self, note: &ChannelNote) -> bool {
        let note = CustomNotification::new(notes::METHOD, Some(note.params()));
        self.peer.send_notification(ServerNotification::CustomNotification(note)).await.is_ok()
    }

    async fn welcome(&mut self) {
        self.welcomed = true;
        let connection = &self.bound.connection;
        let own = connection.identity().own_public();
        let peers = match connection.list_peers().await {
            Ok(peers) => peers,
            Err(error) => {
                tracing::warn!(mesh.slug = self.bound.tag.slug, %error, "no peer list for the welcome");
                vec![]
            }
        };
        let others =
            peers.into_iter().filter(|peer| peer.pubkey != own && peer.online).map(|peer| peer.display_name).collect();
        let reader = self.bound.reader();
        let unread = self.bound.mailbox.run(move |inbox| inbox.count_unshown(&reader)).await.unwrap_or(0);
        let name = match connection.hello_ack() {
            Ok(ack) => ack.member_display_name.clone(),
            Err(_) => self.hub.identity().name.clone(),
        };
        let welcome = Welcome { name: &name, pubkey: own.to_hex(), peers: others, unread };
        self.write(&notes::welcome(&welcome, &self.bound.tag)).await;
    }

    async fn messages(&mut self) -> Result<(), InboxError> {
        questions::settle(self.hub, self.bound).await;
        match self.mode {
            MessageMode::Push => self.push().await,
            MessageMode::Inbox => self.notice().await,
            MessageMode::Off => Ok(()),
        }
    }

    async fn push(&mut self) -> Result<(), InboxError> {
        loop {
            let taking = self.bound.taking.lock().await;
            let (reader, now) = (self.bound.reader(), crate::clock::now_ms());
            let claimed = self.bound.mailbox.run(move |inbox| inbox.claim_unshown(&reader, ROUTE, BATCH, now)).await?;
            drop(taking);
            if claimed.is_empty() {
                return Ok(());
            }
            let mut written = Vec::new();
            for message in &claimed {
                if !self.write(&notes::message(message, &self.bound.tag)).await {
                    break;
                }
                written.push(message);
            }
            let ids: Vec<String> = written.iter().map(|message| message.message_id.clone()).collect();
            let seqs: Vec<i64> = written.iter().map(|message| message.seq).collect();
            let rest: Vec<i64> = claimed[written.len()..].iter().map(|message| message.seq).collect();
            self.hub.counters.messages_in.fetch_add(ids.len() as u64, Ordering::Relaxed);
            self.bound.connection.acknowledge(ids, Stage::Handed, ROUTE);
            let (reader, lost) = (self.bound.reader(), !rest.is_empty());
            self.bound
                .mailbox
                .run(move |inbox| {
                    inbox.set_stage(&reader, &seqs, Stage::Handed)?;
                    if rest.is_empty() { Ok(()) } else { inbox.unclaim(&reader, &rest) }
                })
                .await?;
            if lost {
                // The host closed its end; the session is over and another process of it will show them.
                return Ok(());
            }
        }
    }

    async fn notice(&mut self) -> Result<(), InboxError> {
        let reader = self.bound.reader();
        let (newest, waiting) = self
            .bound
            .mailbox
            .run(move |inbox| Ok((inbox.newest_unshown(&reader)?, inbox.count_unshown(&reader)?)))
            .await?;
        if let Some(message) = newest.filter(|message| message.seq > self.noticed)
            && self.write(&notes::notice(&message, waiting, &self.bound.tag)).await
        {
            self.noticed = message.seq;
        }
        Ok(())
    }
}
