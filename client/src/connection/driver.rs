//! The task behind a connection: connects, says hello, moves frames, reconnects.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claudemesh_protocol::call::ServerBody;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::messaging::{self, ClientAck, Push};
use claudemesh_protocol::features::presence;
use claudemesh_protocol::frame::Head;
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::limits::{MAX_ACK_IDS, PING_INTERVAL, STALE_AFTER};
use claudemesh_protocol::message::{ClientMessage, Failure, ReadError, ServerMessage};
use claudemesh_protocol::session::{self, HelloAck};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::error::{CLOSE_BANNED, CLOSE_KICKED, REASON_REMOVED};
use super::events::Publisher;
use super::mail::{Mail, MailItem};
use super::open;
use super::pending::Pending;
use super::socket::{self, Socket};
use super::{Closed, ConnectionError, Identity};

/// Longest wait for the answer to a hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A socket that takes nothing for this long is dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for the mesh of this machine: its holder answers at once, or it is stopped.
const LOCAL_HELLO_TIMEOUT: Duration = Duration::from_secs(4);
/// Pings and patience on this machine: a holder that was stopped (Ctrl-Z) is noticed while people still look at the screen.
const LOCAL_PING: Duration = Duration::from_secs(3);
const LOCAL_STALE: Duration = Duration::from_secs(9);
/// How long a one-shot connection waits for the successor of a holder that died.
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for the broker's side of a close.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// How a connection is.
#[derive(Clone, Debug)]
pub enum State {
    /// No socket yet, or not any more; why the last attempt failed.
    Connecting(Option<ConnectionError>),
    /// The broker accepted the hello.
    Ready(Arc<HelloAck>),
    /// It will not connect again.
    Closed(Closed),
}

/// Names that are kept.
const MAX_NAMES: usize = 10_000;

/// Who has a key.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) member: PublicKey,
}

/// What the task and the handles share.
pub(super) struct Shared {
    pub(super) identity: Identity,
    pub(super) pending: Pending,
    pub(super) events: Publisher,
    pub(super) state: watch::Sender<State>,
    pub(super) stop: CancellationToken,
    /// Names by key, from the lists of peers of an older broker.
    pub(super) names: Mutex<HashMap<String, Known>>,
    /// The groups that the session is in, as far as this process put it there: an older broker forgets them when it restarts.
    pub(super) groups: Mutex<Vec<Group>>,
    /// When a socket that was lost came back.
    pub(super) back_at: Mutex<Option<Instant>>,
    next_id: AtomicU64,
}

impl Shared {
    /// `wanted`: told which types of events are listened to, where they have to be asked for.
    pub(super) fn new(identity: Identity, wanted: Option<mpsc::UnboundedSender<&'static str>>) -> Self {
        Self {
            groups: Mutex::new(identity.description.groups.clone().unwrap_or_default()),
            identity,
            pending: Pending::default(),
            events: Publisher::new(wanted),
            state: watch::Sender::new(State::Connecting(None)),
            stop: CancellationToken::new(),
            names: Mutex::default(),
            back_at: Mutex::default(),
            next_id: AtomicU64::new(1),
        }
    }

    /// Whether the broker is of the kind that tells no capabilities: it answers nothing that it does not know.
    pub(super) fn is_older_broker(&self) -> bool {
        matches!(&*self.state.borrow(), State::Ready(ack) if ack.capabilities.is_empty())
    }

    /// The peers of a list, for who knows a key and needs its name.
    fn note_names(&self, list: &[presence::Peer]) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() > MAX_NAMES {
            names.clear();
        }
        for peer in list {
            let known = Known { name: peer.display_name.clone(), member: peer.member_pubkey };
            names.insert(peer.pubkey.to_hex(), known);
        }
    }

    pub(super) fn next_id(&self) -> String {
        format!("r{}", self.next_id.fetch_add(1, Ordering::Relaxed))
    }
}

/// A frame to send; skipped when its caller gave up meanwhile.
pub(super) struct Outgoing {
    pub(super) id: Option<String>,
    pub(super) frame: String,
}

/// How one socket ended.
enum End {
    /// We were asked to stop.
    Stopped,
    /// The broker does not want us back.
    Terminal(Closed),
    /// Anything else; whether a hello had been accepted.
    Lost { error: ConnectionError, was_ready: bool },
}

pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) outgoing: mpsc::Receiver<Outgoing>,
    pub(super) acks: mpsc::UnboundedReceiver<ClientAck>,
    pub(super) mail: Option<Mail>,
    /// A one-shot connection is not opened again.
    pub(super) once: bool,
}

impl Driver {
    /// Runs until it is stopped, closed for good, or all handles are gone.
    pub(super) async fn run(mut self) {
        let local = self.shared.identity.local.clone();
        let mut backoff = Backoff::new(local.is_some());
        let started = Instant::now();
        // When the socket that worked was lost.
        let mut lost: Option<Instant> = None;
        let closed = loop {
            let end = self.attempt(lost).await;
            let error = match end {
                End::Stopped => break Closed::ByUs,
                End::Terminal(closed) => break closed,
                End::Lost { error, was_ready } => {
                    if was_ready {
                        backoff.reset();
                        lost = Some(Instant::now());
                    }
                    error
                }
            };
            if let Some(store) = local.clone() {
                let looked = tokio::task::spawn_blocking(move || crate::local::unresponsive_holder::look(&store));
                tokio::select! {
                    _ = looked => {}
                    () = self.shared.stop.cancelled() => break Closed::ByUs,
                }
            }
            let taken_over = local.is_some() && lost.is_none() && started.elapsed() < TAKEOVER_PATIENCE;
            if self.once && !(taken_over && matches!(error, ConnectionError::Unreachable { .. })) {
                break Closed::Failed(Box::new(error));
            }
            tracing::info!(mesh.slug = self.shared.identity.slug, %error, "no connection to the broker");
            self.shared.state.send_replace(State::Connecting(Some(error.clone())));
            self.drop_requests(&ConnectionError::Lost(error.to_string()));
            let wait = backoff.next(&mut rand::thread_rng());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shared.stop.cancelled() => break Closed::ByUs,
                late = self.outgoing.recv() => match late {
                    None => break Closed::ByUs,
                    // Queued in the moment in which the socket was lost.
                    Some(Outgoing { id, .. }) => if let Some(id) = id {
                        self.shared.pending.complete(&id, Err(ConnectionError::NotConnected(error.to_string())));
                    },
                },
            }
        };
        self.shared.state.send_replace(State::Closed(closed.clone()));
        self.shared.events.close();
        self.drop_requests(&ConnectionError::Closed(closed));
    }

    fn is_local(&self) -> bool {
        self.shared.identity.local.is_some()
    }

    fn drop_requests(&mut self, error: &ConnectionError) {
        while self.outgoing.try_recv().is_ok() {}
        self.shared.pending.fail_all(error);
    }

    async fn attempt(&mut self, lost: Option<Instant>) -> End {
        let identity = &self.shared.identity;
        let opened = async {
            match &identity.local {
                Some(store) => socket::open_local(store).await,
                None => socket::open(&identity.broker_url).await,
            }
        };
        let opened = tokio::select! {
            opened = opened => opened,
            () = self.shared.stop.cancelled() => return End::Stopped,
        };
        let socket = match opened {
            Ok(socket) => socket,
            Err(error) => return End::Lost { error, was_ready: false },
        };
        let (sink, stream) = socket.split();
        let mut link = Link { sink, stream, heard: Instant::now() };
        let hello_timeout = if self.is_local() { LOCAL_HELLO_TIMEOUT } else { HELLO_TIMEOUT };
        let greeted = tokio::select! {
            greeted = tokio::time::timeout(hello_timeout, self.greet(&mut link)) => greeted,
            () = self.shared.stop.cancelled() => return End::Stopped,
        };
        let ack = match greeted {
            Ok(Ok(ack)) => ack,
            Ok(Err(end)) => return end,
            Err(_) => return End::Lost { error: ConnectionError::Timeout(hello_timeout), was_ready: false },
        };
        if let Some(lost) = lost {
            let gap_ms = lost.elapsed().as_millis() as u64;
            tracing::info!(mesh.slug = self.shared.identity.slug, gap_ms, "connected again");
            *self.shared.back_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        if let Some(store) = &self.shared.identity.local {
            crate::local::unresponsive_holder::answered(store);
        }
        self.shared.state.send_replace(State::Ready(Arc::new(ack)));
        if lost.is_some() {
            self.shared.events.all_away();
        }
        self.serve(&mut link).await
    }

    /// Says hello: with the session key when there is one; to a broker that does not know this form, the older one.
    async fn greet(&self, link: &mut Link) -> Result<HelloAck, End> {
        let lost = |error: ConnectionError| End::Lost { error, was_ready: false };
        let now = crate::clock::now_ms();
        let modern = self.shared.identity.session_hello(now);
        let mut fallback = modern.is_some();
        let first = modern.unwrap_or_else(|| self.shared.identity.hello(now));
        link.send(Message::text(first)).await.map_err(lost)?;
        loop {
            let text = match link.next().await {
                Inbound::Text(text) => text,
                Inbound::Other => continue,
                Inbound::End(end) => return Err(end.into_end(false)),
            };
            let message = match self.read(&text) {
                Read::Event(event) => {
                    self.on_event(*event).await;
                    continue;
                }
                Read::Answer { message, .. } => *message,
                Read::Nothing => continue,
            };
            match message {
                ServerMessage::Session(session::Response::HelloAck(ack)) => return Ok(ack),
                ServerMessage::Failure(Failure::Error(frame)) => {
                    let known = frame.known_code();
                    if fallback && matches!(known, Some(ErrorCode::NoHello | ErrorCode::UnknownType)) {
                        fallback = false;
                        let hello = self.shared.identity.hello(crate::clock::now_ms());
                        link.send(Message::text(hello)).await.map_err(lost)?;
                        continue;
                    }
                    return Err(match known {
                        Some(ErrorCode::Revoked) => End::Terminal(Closed::Banned),
                        Some(ErrorCode::MemberRemoved) => End::Terminal(Closed::Removed),
                        _ => lost(frame.into()),
                    });
                }
                _ => {}
            }
        }
    }

    async fn serve(&mut self, link: &mut Link) -> End {
        let (every, patience) = if self.is_local() { (LOCAL_PING, LOCAL_STALE) } else { (PING_INTERVAL, STALE_AFTER) };
        let mut ping = tokio::time::interval_at(Instant::now() + every, every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let sent = tokio::select! {
                inbound = link.next() => match inbound {
                    Inbound::Text(text) => {
                        match self.read(&text) {
                            Read::Event(event) => self.on_event(*event).await,
                            Read::Answer { key, message } => self.complete(key.as_deref(), *message),
                            Read::Nothing => {}
                        }
                        Ok(())
                    }
                    Inbound::Other => Ok(()),
                    Inbound::End(end) => return end.into_end(true),
                },
                Some(ack) = self.acks.recv() => self.send_acks(link, ack).await,
                outgoing = self.outgoing.recv() => match outgoing {
                    Some(outgoing) => self.send_frames(link, outgoing).await,
                    None => return self.finish(link).await,
                },
                _ = ping.tick() => {
                    if link.heard.elapsed() >= patience {
                        Err(ConnectionError::Lost(format!("the broker was silent for {} s", patience.as_secs())))
                    } else {
                        link.send(Message::Ping(Vec::new().into())).await
                    }
                }
                () = self.shared.stop.cancelled() => return self.finish(link).await,
            };
            if let Err(error) = sent {
                return End::Lost { error, was_ready: true };
            }
        }
    }

    /// Sends what is left and closes in good order, so that no acknowledgement is lost with the socket.
    async fn finish(&mut self, link: &mut Link) -> End {
        let last = async {
            while let Ok(outgoing) = self.outgoing.try_recv() {
                link.feed(Message::text(outgoing.frame)).await?;
            }
            while let Ok(ack) = self.acks.try_recv() {
                self.feed_ack(link, ack).await?;
            }
            let goodbye = CloseFrame { code: 1000.into(), reason: "".into() };
            link.send(Message::Close(Some(goodbye))).await?;
            if self.mail.is_some() {
                while !matches!(link.next().await, Inbound::End(_)) {}
            }
            Ok::<(), ConnectionError>(())
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, last).await;
        End::Stopped
    }

    async fn send_frames(&mut self, link: &mut Link, first: Outgoing) -> Result<(), ConnectionError> {
        let mut next = Some(first);
        while let Some(outgoing) = next {
            if outgoing.id.as_deref().is_none_or(|id| self.shared.pending.wants(id)) {
                link.feed(Message::text(outgoing.frame)).await?;
            }
            next = self.outgoing.try_recv().ok();
        }
        link.flush().await
    }

    async fn send_acks(&mut self, link: &mut Link, first: ClientAck) -> Result<(), ConnectionError> {
        let mut current = first;
        while let Ok(next) = self.acks.try_recv() {
            let same = next.stage == current.stage && next.route == current.route;
            if same && current.message_ids.len() + next.message_ids.len() <= MAX_ACK_IDS {
                current.message_ids.extend(next.message_ids);
            } else {
                self.feed_ack(link, std::mem::replace(&mut current, next)).await?;
            }
        }
        self.feed_ack(link, current).await?;
        link.flush().await
    }

    /// Older brokers know no stages and no lists: they take one id in a frame, once.
    async fn feed_ack(&self, link: &mut Link, ack: ClientAck) -> Result<(), ConnectionError> {
        if !self.shared.is_older_broker() {
            return link.feed(Message::text(ack_frame(ack))).await;
        }
        if ack.stage.is_some_and(|stage| stage != messaging::Stage::Received) {
            return Ok(());
        }
        for id in ack.message_ids.into_iter().chain(ack.broker_message_id) {
            let one = ClientAck { broker_message_id: Some(id), ..ClientAck::default() };
            link.feed(Message::text(ack_frame(one))).await?;
        }
        Ok(())
    }

    async fn on_event(&self, event: ServerMessage) {
        match Push::from_message(event) {
            Ok(push) => self.deliver(push).await,
            Err(event) => self.shared.events.publish(*event),
        }
    }

    async fn deliver(&self, push: Push) {
        let Some(mail) = &self.mail else {
            // A connection without an inbox takes no mail; unacknowledged, it stays with the broker.
            if open::is_system(&push) {
                self.shared.events.publish(push.into());
            }
            return;
        };
        tokio::select! {
            _ = mail.queue.send(MailItem::Push(Box::new(push))) => {}
            () = self.shared.stop.cancelled() => {}
        }
    }

    fn complete(&self, key: Option<&str>, message: ServerMessage) {
        let Some(key) = key else {
            if let ServerMessage::Failure(Failure::Error(frame)) = message {
                let slug = &self.shared.identity.slug;
                tracing::warn!(mesh.slug = slug, code = frame.code, message = frame.message, "error of the broker");
            }
            return;
        };
        let answer = match message {
            ServerMessage::Failure(Failure::Error(frame)) => Err(frame.into()),
            message => Ok(message),
        };
        if !self.shared.pending.complete(key, answer) {
            tracing::debug!(mesh.slug = self.shared.identity.slug, req.id = key, "an answer that no one waits for");
        }
    }

    fn read(&self, text: &str) -> Read {
        let Ok(head) = Head::read(text) else { return Read::Nothing };
        let req_id = head.req_id.as_deref();
        match ServerMessage::read(&head, text) {
            Ok(message) if message.is_event() => Read::Event(Box::new(message)),
            Ok(message) => {
                if let ServerMessage::Presence(presence::Response::PeersList(list)) = &message
                    && self.shared.is_older_broker()
                {
                    self.shared.note_names(&list.peers);
                }
                let by_id = matches!(message, ServerMessage::Failure(_))
                    || matches!(message, ServerMessage::Messaging(messaging::Response::Ack(_)));
                let key = req_id.or(head.id.as_deref().filter(|_| by_id)).map(str::to_owned);
                Read::Answer { key, message: Box::new(message) }
            }
            Err(error) => {
                let tag = head.tag.as_deref().unwrap_or("?");
                tracing::debug!(mesh.slug = self.shared.identity.slug, msg.type = tag, %error, "frame not understood");
                if let Some(id) = req_id {
                    let got = match error {
                        ReadError::UnknownType(tag) => tag,
                        other => other.to_string(),
                    };
                    let error = ConnectionError::Unexpected { expected: "a known answer", got };
                    self.shared.pending.complete(id, Err(error));
                }
                Read::Nothing
            }
        }
    }
}

pub(super) fn ack_frame(ack: ClientAck) -> String {
    ClientMessage::from(messaging::Request::from(ack)).write(None)
}

enum Read {
    Event(Box<ServerMessage>),
    Answer { key: Option<String>, message: Box<ServerMessage> },
    Nothing,
}

enum Inbound {
    Text(tokio_tungstenite::tungstenite::Utf8Bytes),
    Other,
    End(LinkEnd),
}

/// How the socket said goodbye.
enum LinkEnd {
    Closed(Option<CloseFrame>),
    Failed(String),
}

impl LinkEnd {
    fn into_end(self, was_ready: bool) -> End {
        let reason = match self {
            Self::Closed(Some(frame)) => match u16::from(frame.code) {
                CLOSE_KICKED => return End::Terminal(Closed::Kicked),
                CLOSE_BANNED if frame.reason.as_str() == REASON_REMOVED => return End::Terminal(Closed::Removed),
                CLOSE_BANNED => return End::Terminal(Closed::Banned),
                code => format!("closed by the broker ({code} {})", frame.reason.as_str()),
            },
            Self::Closed(None) => "closed by the broker".into(),
            Self::Failed(reason) => reason,
        };
        End::Lost { error: ConnectionError::Lost(reason), was_ready }
    }
}

/// One open socket and when it was last heard.
struct Link {
    sink: SplitSink<Socket, Message>,
    stream: SplitStream<Socket>,
    heard: Instant,
}

impl Link {
    async fn next(&mut self) -> Inbound {
        let Some(message) = self.stream.next().await else { return Inbound::End(LinkEnd::Closed(None)) };
        self.heard = Instant::now();
        match message {
            Ok(Message::Text(text)) => Inbound::Text(text),
            Ok(Message::Close(frame)) => Inbound::End(LinkEnd::Closed(frame)),
            Ok(_) => Inbound::Other,
            Err(error) => Inbound::End(LinkEnd::Failed(error.to_string())),
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), ConnectionError> {
        timed(self.sink.send(message)).await
    }

    async fn feed(&mut self, message: Message) -> Result<(), ConnectionError> {
        timed(self.sink.feed(message)).await
    }

    async fn flush(&mut self) -> Result<(), ConnectionError> {
        timed(self.sink.flush()).await
    }
}

async fn timed(
    write: impl Future<Output = Result<(), tokio_tungstenite::tungstenite::Error>>,
) -> Result<(), ConnectionError> {
    match tokio::time::timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(ConnectionError::Lost(error.to_string())),
        Err(_) => Err(ConnectionError::Lost("the socket takes nothing any more".into())),
    }
}
