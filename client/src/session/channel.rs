//! What is written into the session unasked: messages, events, one welcome per mesh.
//!
//! Nothing before `notifications/initialized`: the host loses it. One task per mesh, one note after the other, so the order
//! of arrival is the order in the session. A message is claimed before it is written and given back when the write fails.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use claudemesh_protocol::features::messaging::Stage;
use claudemesh_protocol::name::Address;
use rmcp::model::{CustomNotification, ServerNotification};
use rmcp::service::{Peer, RoleServer};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::frame::{self, HOOK_BUDGET_CHARS, WHOLE_CHARS};
use super::notes::{self, ChannelNote, Welcome};
use super::routes::inbox_socket::InboxSocket;
use super::routes::{self, CHANNEL, DeliveryRoute, MONITOR, REWAKE, SOCKET, UnconfirmedDelivery, WakeTarget, hooks};
use super::{JoinedMesh, Session};
use crate::config::MessageMode;
use crate::connection::{Closed, State, Stored};
use crate::features::templates;
use crate::inbox::{InboxError, Message, Pick};

/// Messages claimed at a time.
const BATCH: i64 = 16;
/// When more messages than this wait, only urgent ones are written out and the rest is told as a number.
const BACKLOG: i64 = 40;
/// Messages of one sender that are written out in a minute; the rest waits and is told as a number.
const SENDER_PER_MINUTE: usize = 30;
/// Time between two notes about what waits.
const DIGEST_EVERY: Duration = Duration::from_secs(60);
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

    /// The client, once it has said so.
    pub fn host(&self) -> Option<Peer<RoleServer>> {
        self.peer.borrow().clone()
    }

    async fn opened(&self) -> Option<Peer<RoleServer>> {
        let mut peer = self.peer.subscribe();
        peer.wait_for(Option::is_some).await.ok().and_then(|peer| peer.clone())
    }
}

/// Shows what arrives in one mesh until the session ends.
pub(super) async fn run(session: Arc<Session>, bound: JoinedMesh, told: mpsc::Receiver<ChannelNote>) {
    let stop = session.stopped();
    let writer = tokio::select! {
        () = stop.cancelled() => return,
        writer = begin(&session, &bound) => writer,
    };
    if let Some((writer, stored)) = writer {
        show(writer, stored, told, &stop).await;
    }
}

/// Waits for the client and greets it.
async fn begin<'a>(
    session: &'a Arc<Session>,
    bound: &'a JoinedMesh,
) -> Option<(ChannelWriter<'a>, broadcast::Receiver<Stored>)> {
    let stored = bound.connection.mail_events()?;
    let peer = session.gate.opened().await?;
    let (reader, now) = (bound.reader(), crate::clock::now_ms());
    let adopting = bound.mailbox.run(move |inbox| inbox.adopt(&reader, now)).await;
    if let Err(error) = adopting {
        tracing::error!(mesh.slug = bound.tag.slug, %error, "the inbox cannot be read");
    }
    let mode = session.mode();
    let welcomed = mode == MessageMode::Off;
    let mut writer = ChannelWriter {
        session,
        bound,
        peer,
        mode,
        noticed: 0,
        welcomed,
        loud: Loud::default(),
        digested: None,
        held: 0,
    };
    if !writer.welcomed && bound.connection.ready(WELCOME_PATIENCE).await.is_ok() {
        writer.welcome().await;
    }
    Some((writer, stored))
}

/// The session may end while it waits for something to show, not between showing and noting that it was shown.
async fn show(
    mut writer: ChannelWriter<'_>,
    mut stored: broadcast::Receiver<Stored>,
    mut told: mpsc::Receiver<ChannelNote>,
    stop: &CancellationToken,
) {
    let (session, bound) = (writer.session, writer.bound);
    let mut state = bound.connection.watch();
    let mut changes = session.routes.watch();
    // Senders over their rate and turns that nothing is heard of are looked at again without an event.
    let mut tick = tokio::time::interval(Duration::from_secs(10));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        while let Ok(note) = told.try_recv() {
            writer.write(&note).await;
        }
        let missed = bound.notes.lost();
        if missed > 0 {
            tracing::warn!(mesh.slug = bound.tag.slug, missed, "notes were not shown: too many at once");
        }
        writer.tell_held().await;
        if let Err(error) = writer.messages().await {
            tracing::error!(mesh.slug = bound.tag.slug, %error, "messages cannot be shown now");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            // How many came does not matter: the inbox says what waits.
            heard = stored.recv() => if matches!(heard, Err(broadcast::error::RecvError::Closed)) { return },
            Some(note) = told.recv() => {
                writer.write(&note).await;
            }
            changed = changes.changed() => if changed.is_err() { return },
            _ = tick.tick() => {
                if let Err(error) = routes::recover::claims(session, bound).await {
                    tracing::error!(mesh.slug = bound.tag.slug, %error, "what an ended process took stays unshown");
                }
            }
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
                match bound.connection.state() {
                    // Given up for another key of the session.
                    State::Closed(Closed::ByUs) => return,
                    State::Ready(_) if !writer.welcomed => writer.welcome().await,
                    _ => {}
                }
            }
        }
    }
}

struct ChannelWriter<'a> {
    session: &'a Arc<Session>,
    bound: &'a JoinedMesh,
    peer: Peer<RoleServer>,
    mode: MessageMode,
    /// Local number of the newest message that a notice told of, in mode `inbox`.
    noticed: i64,
    welcomed: bool,
    loud: Loud,
    digested: Option<Instant>,
    /// How many held messages were told of.
    held: i64,
}

/// Who wrote how much in the last minute.
#[derive(Default)]
struct Loud {
    heard: HashMap<String, VecDeque<Instant>>,
}

impl Loud {
    fn heard(&mut self, sender: &str) {
        self.heard.entry(sender.to_owned()).or_default().push_back(Instant::now());
    }

    /// Senders over the limit; forgets what is older than a minute.
    fn muted(&mut self) -> Vec<String> {
        self.heard.retain(|_, times| {
            while times.front().is_some_and(|at| at.elapsed() >= Duration::from_secs(60)) {
                times.pop_front();
            }
            !times.is_empty()
        });
        let over = self.heard.iter().filter(|(_, times)| times.len() >= SENDER_PER_MINUTE);
        over.map(|(sender, _)| sender.clone()).collect()
    }

    /// How many messages may be shown together so that no sender comes over the limit, no matter which of them wrote them.
    fn room(&self) -> usize {
        let most = self.heard.values().map(VecDeque::len).filter(|count| *count < SENDER_PER_MINUTE).max();
        SENDER_PER_MINUTE - most.unwrap_or(0)
    }
}

impl ChannelWriter<'_> {
    /// Writes a note; `false` when the host is gone.
    async fn write(&self, note: &ChannelNote) -> bool {
        let note = CustomNotification::new(notes::METHOD, Some(note.params()));
        self.peer.send_notification(ServerNotification::CustomNotification(note)).await.is_ok()
    }

    /// Says that messages are held for the user's word.
    async fn tell_held(&mut self) {
        let reader = self.bound.reader();
        let held = self.bound.mailbox.run(move |inbox| inbox.count_held(&reader)).await.unwrap_or(0);
        if held > self.held && self.mode != MessageMode::Off && self.session.routes.channel_is_open() {
            self.write(&notes::held(held, &self.bound.tag)).await;
        }
        self.held = held;
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
        let groups = peers.iter().flat_map(|peer| peer.groups.iter().map(|group| group.name.clone()));
        let names = peers.iter().map(|peer| peer.display_name.clone());
        self.session.store().remember_names(&connection.identity().mesh_id, names, groups);
        let others =
            peers.into_iter().filter(|peer| peer.pubkey != own && peer.online).map(|peer| peer.address()).collect();
        let unread = self.session.waiting(self.bound).await;
        let name = match connection.hello_ack() {
            Ok(ack) => {
                let member = ack.member_name.as_deref().unwrap_or_default();
                Address { member, session: &ack.member_display_name }.to_string()
            }
            Err(_) => self.session.name(),
        };
        let hint = templates::hint_of(connection).await;
        let welcome = Welcome { name: &name, pubkey: own.to_hex(), peers: others, unread, hint };
        self.write(&notes::welcome(&welcome, &self.bound.tag)).await;
    }

    async fn messages(&mut self) -> Result<(), InboxError> {
        // Whatever the mode and the route: answers to permission requests and to questions are no note.
        drop(self.session.admit(self.bound).await?);
        match self.mode {
            MessageMode::Push => self.push().await,
            MessageMode::Inbox => self.notice().await,
            // What the member itself told to come at its time is let through.
            MessageMode::Off => {
                while self.session.routes.channel_is_open() && self.write_notes().await? {}
                Ok(())
            }
        }
    }

    async fn push(&mut self) -> Result<(), InboxError> {
        loop {
            let goes_on = match self.session.routes.next_route() {
                DeliveryRoute::Channel => self.write_notes().await?,
                DeliveryRoute::Rewake(target) => {
                    let used = self.give(&target, REWAKE).await?;
                    if used {
                        self.session.routes.woken();
                    } else {
                        self.session.routes.give_back(target);
                    }
                    used
                }
                DeliveryRoute::Monitor(target) => self.give(&target, MONITOR).await?,
                DeliveryRoute::Socket(socket) => self.post(&socket).await?,
                DeliveryRoute::Later => false,
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Frames what waits and gives it to a hook or a monitor; `false` when there is nothing or it was not printed.
    async fn give(&mut self, target: &WakeTarget, route: &'static str) -> Result<bool, InboxError> {
        let claimed = hooks::claim(self.session, self.bound, route, HOOK_BUDGET_CHARS, hooks::all()).await?;
        let Some((text, handed)) = claimed else { return Ok(false) };
        let printed = routes::wake_with(target, text).await;
        let answer = hooks::Answer { handed: vec![handed], ..hooks::Answer::default() };
        if printed {
            answer.printed(self.session).await;
        } else {
            answer.lost(self.session).await;
        }
        Ok(printed)
    }

    /// Posts what our own member wrote to the session's inbox socket, one message at a time.
    async fn post(&mut self, socket: &InboxSocket) -> Result<bool, InboxError> {
        let own = self.bound.connection.identity().member.public().to_hex();
        let pick = Pick { limit: 1, only_from: Some(own), ..Pick::default() };
        let claimed = hooks::claim(self.session, self.bound, SOCKET, HOOK_BUDGET_CHARS, pick).await?;
        let Some((text, handed)) = claimed else { return Ok(false) };
        let posted = match handed.message_ids.first() {
            Some(id) => socket.post(id, &text).await,
            None => false,
        };
        let answer = hooks::Answer { handed: vec![handed], ..hooks::Answer::default() };
        if posted {
            answer.printed(self.session).await;
        } else {
            answer.lost(self.session).await;
        }
        Ok(posted)
    }

    /// Writes what waits as notes; `false` when nothing more can be written now.
    async fn write_notes(&mut self) -> Result<bool, InboxError> {
        let pulling = self.bound.pull_lock.lock().await;
        let admitted = self.session.admit(self.bound).await?;
        let now = crate::clock::now_ms();
        let muted = self.loud.muted();
        let limit = BATCH.min(i64::try_from(self.loud.room()).unwrap_or(BATCH));
        let (dir, tag) = (self.session.config_dir().to_path_buf(), self.bound.tag.clone());
        let is_off = self.mode == MessageMode::Off;
        let own = is_off.then(|| self.bound.connection.identity().member.public().to_hex());
        let taken = admitted.run(move |mail| {
            let waiting = mail.count_unshown()?;
            let urgent_only = is_off || waiting > BACKLOG;
            let pick = Pick { limit, urgent_only, only_from: own, reminders_only: is_off, muted };
            let claimed = mail.claim(CHANNEL, &pick, now)?;
            let notes: Vec<(Message, ChannelNote)> = claimed
                .into_iter()
                .map(|message| {
                    let body = frame::body(&dir, &tag.id, &message, WHOLE_CHARS);
                    let note = notes::message(&message, &body, &tag);
                    (message, note)
                })
                .collect();
            let left = if notes.is_empty() { mail.count_unshown()? } else { 0 };
            Ok((notes, left))
        });
        let (taken, left) = taken.await?;
        drop(pulling);
        if taken.is_empty() {
            if left > 0 && !is_off {
                self.digest(left).await;
            }
            return Ok(false);
        }
        let mut written = 0;
        for (message, note) in &taken {
            if !self.write(note).await {
                break;
            }
            self.loud.heard(&message.sender_pubkey);
            written += 1;
        }
        self.session.count_in(written);
        let (shown, rest) = taken.split_at(written);
        self.bound.connection.acknowledge(
            shown.iter().map(|(message, _)| message.message_id.clone()).collect(),
            Stage::Handed,
            CHANNEL,
        );
        let seqs = |list: &[(Message, ChannelNote)]| list.iter().map(|(message, _)| message.seq).collect::<Vec<i64>>();
        for (message, _) in shown {
            self.session.routes.handed(UnconfirmedDelivery {
                bound: self.bound.clone(),
                message_ids: vec![message.message_id.clone()],
                seqs: vec![message.seq],
                route: CHANNEL,
                at: Instant::now(),
                misses: 0,
                batch_of_prompt: None,
            });
        }
        let (shown, rest) = (seqs(shown), seqs(rest));
        // When the host closed its end the session is over, and another process of it will show the rest.
        let host_is_there = rest.is_empty();
        let reader = self.bound.reader();
        let noted = self.bound.mailbox.run(move |inbox| {
            inbox.set_stage(&reader, &shown, Stage::Handed)?;
            if rest.is_empty() { Ok(()) } else { inbox.unclaim(&reader, &rest) }
        });
        noted.await?;
        Ok(host_is_there)
    }

    /// Says how much waits, once in a while.
    async fn digest(&mut self, waiting: i64) {
        if self.digested.is_some_and(|at| at.elapsed() < DIGEST_EVERY) {
            return;
        }
        self.digested = Some(Instant::now());
        self.write(&notes::digest(waiting, &self.bound.tag)).await;
    }

    async fn notice(&mut self) -> Result<(), InboxError> {
        let admitted = self.session.admit(self.bound).await?;
        let (newest, waiting) = admitted.run(|mail| Ok((mail.newest_unshown()?, mail.count_unshown()?))).await?;
        if !self.session.routes.channel_is_open() {
            return Ok(());
        }
        if let Some(message) = newest.filter(|message| message.seq > self.noticed)
            && self.write(&notes::notice(&message, waiting, &self.bound.tag)).await
        {
            self.noticed = message.seq;
        }
        Ok(())
    }
}
