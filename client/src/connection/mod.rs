//! The connection to the broker of one mesh.
//!
//! [`Connection`] is a cheap handle; one task behind it owns the socket, says hello, answers requests by their id, and
//! reconnects. Incoming messages go through the inbox: stored first, acknowledged then, shown by those that listen.
//! Typed requests are in `crate::features::<feature>`, as `impl Connection`.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use claudemesh_protocol::call::{Call, ServerBody};
use claudemesh_protocol::features::groups::{self, Group, JoinGroup};
use claudemesh_protocol::features::messaging::{self, ClientAck, Stage};
use claudemesh_protocol::features::presence::WriteTarget;
use claudemesh_protocol::message::{ClientMessage, ServerMessage};
use claudemesh_protocol::session::HelloAck;
use tokio::sync::{broadcast, mpsc, oneshot};

#[cfg(unix)]
mod attached;
mod backoff;
mod driver;
mod error;
mod events;
mod identity;
mod mail;
mod open;
mod pending;
pub mod skew;
pub(crate) mod socket;
#[cfg(test)]
pub(crate) mod tests;

pub use driver::State;
pub use error::{Closed, ConnectionError, WireError};
pub(crate) use events::Tagged;
pub use events::{Events, Heard};
pub use identity::Identity;
pub use mail::Stored;

use crate::inbox::sent::SentBook;
use crate::inbox::{InboxError, Mailbox};
use driver::{Driver, Outgoing, Shared};
use mail::{Mail, MailItem};

/// Requests that may wait for the socket.
const MAX_OUTGOING: usize = 100;
/// By this time after a takeover on this machine all sessions are back: they try again every tenth of a second.
const TAKEOVER_SETTLES: Duration = Duration::from_millis(500);
/// Usual limit of a request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a broker of the older kind: it answers at once or never.
const OLDER_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit of a send: it may wait for the disk of the broker.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a session's request waits for the successor of a holder that died. The next one is there within a fraction of a
/// second; on a machine that has no time for it, waiting is better than an error that the model has to understand.
pub(crate) const TAKEOVER_WAIT: Duration = Duration::from_secs(15);

/// A handle to the connection of one identity to its mesh. When the last handle is dropped the socket is closed.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Outgoing>,
    acks: mpsc::UnboundedSender<ClientAck>,
    mail: Option<Mail>,
    attached: bool,
    sent: Option<SentBook>,
}

impl Connection {
    /// Starts a connection that lives until it is closed and reconnects by itself. Returns at once.
    ///
    /// With a mailbox it receives messages (announce `client_ack` in the description), without one it only asks.
    pub fn start(identity: Identity, mailbox: Option<Mailbox>) -> Self {
        Self::spawn(identity, mailbox, false)
    }

    /// Opens a one-shot connection and waits until the broker accepts the hello. It is not opened again.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub async fn once(identity: Identity, mailbox: Option<Mailbox>) -> Result<Self, ConnectionError> {
        let connection = Self::spawn(identity, mailbox, true);
        connection.ready(Duration::from_secs(20)).await?;
        Ok(connection)
    }

    fn spawn(identity: Identity, mailbox: Option<Mailbox>, once: bool) -> Self {
        let shared = Arc::new(Shared::new(identity, None));
        let (outgoing, frames) = mpsc::channel(MAX_OUTGOING);
        let (acks, ack_items) = mpsc::unbounded_channel();
        let mail = mailbox.map(|mailbox| Mail::start(Arc::clone(&shared), mailbox, acks.clone(), outgoing.downgrade()));
        let driver =
            Driver { shared: Arc::clone(&shared), outgoing: frames, acks: ack_items, mail: mail.clone(), once };
        tokio::spawn(driver.run());
        Self { shared, outgoing, acks, mail, attached: false, sent: None }
    }

    /// Notes there what it sends.
    #[must_use]
    pub fn keeping(mut self, book: SentBook) -> Self {
        self.sent = Some(book);
        self
    }

    /// Where it notes what it sends.
    pub(crate) fn sent_book(&self) -> Option<&SentBook> {
        self.sent.as_ref()
    }

    /// Who is connected.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// Whether this is a session's own connection, used from another process of the session.
    pub fn is_session(&self) -> bool {
        self.attached
    }

    /// How it is right now.
    pub fn state(&self) -> State {
        self.shared.state.borrow().clone()
    }

    /// Follows the state.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// The broker's answer to the hello.
    ///
    /// # Errors
    /// [`ConnectionError::NotConnected`] while there is no socket, [`ConnectionError::Closed`] when there will be none.
    pub fn hello_ack(&self) -> Result<Arc<HelloAck>, ConnectionError> {
        match &*self.shared.state.borrow() {
            State::Ready(ack) => Ok(Arc::clone(ack)),
            State::Connecting(None) => Err(ConnectionError::NotConnected("the first attempt is under way".into())),
            State::Connecting(Some(error)) => Err(ConnectionError::NotConnected(error.to_string())),
            State::Closed(closed) => Err(ConnectionError::Closed(closed.clone())),
        }
    }

    /// Waits until the broker accepts the hello.
    ///
    /// # Errors
    /// [`ConnectionError::Closed`] when it never will; after `patience` what the last attempt said.
    pub async fn ready(&self, patience: Duration) -> Result<Arc<HelloAck>, ConnectionError> {
        let mut state = self.watch();
        let decided = state.wait_for(|state| !matches!(state, State::Connecting(_)));
        // Late or not, the state itself says how it stands.
        let _ = tokio::time::timeout(patience, decided).await;
        self.hello_ack()
    }

    /// Waits until the first attempt has ended in whatever way, at most `patience`.
    pub async fn first_attempt(&self, patience: Duration) {
        let mut state = self.watch();
        let ended = state.wait_for(|state| !matches!(state, State::Connecting(None)));
        let _ = tokio::time::timeout(patience, ended).await;
    }

    /// Whether the broker announced a capability. `false` while not connected.
    pub fn broker_can(&self, capability: &str) -> bool {
        self.hello_ack().is_ok_and(|ack| ack.capabilities.iter().any(|word| word == capability))
    }

    /// Whether the broker is of the kind that tells no capabilities. It does not answer what it does not know, so nothing of
    /// ours is asked of it.
    pub fn is_older_broker(&self) -> bool {
        self.shared.is_older_broker()
    }

    /// Hears of mail from now on. `None` without a mailbox.
    pub fn mail_events(&self) -> Option<broadcast::Receiver<Stored>> {
        self.mail.as_ref().map(|mail| mail.stored.subscribe())
    }

    /// Hears of the broker's events of one type from now on. Of `push` these are the broker's own words only (who joined, what
    /// waits): messages go through the inbox.
    pub fn events<E: ServerBody>(&self) -> Events<E> {
        Events::new(self.events_of(E::TAG))
    }

    /// As [`Connection::events`], for the part that passes them on.
    pub(crate) fn events_of(&self, tag: &'static str) -> Tagged {
        self.shared.events.listen(tag)
    }

    /// Waits until every push that has arrived is in the inbox.
    pub async fn mail_stored(&self) {
        let Some(mail) = &self.mail else { return };
        let (done, stored) = oneshot::channel();
        if mail.queue.send(MailItem::Barrier(done)).await.is_ok() {
            let _ = stored.await;
        }
    }

    /// Lets anyone who listens look into the inbox: something in it can be shown again.
    pub fn nudge(&self) {
        if let Some(mail) = &self.mail {
            // No one listening is fine.
            let _ = mail.stored.send(Stored(0));
        }
    }

    /// Tells the broker how far messages came in this session. Sent with the next frames; lost with the socket, which
    /// only makes the receipt more modest than the truth.
    pub fn acknowledge(&self, message_ids: Vec<String>, stage: Stage, route: &str) {
        if message_ids.is_empty() {
            return;
        }
        let (stage, route) = (Some(stage), Some(route.to_owned()));
        let _ = self.acks.send(ClientAck { message_ids, stage, route, ..ClientAck::default() });
    }

    /// Sends a request and waits for its answer, matched by id.
    ///
    /// # Errors
    /// [`ConnectionError`]; [`ConnectionError::is_open`] says whether the request may have been carried out.
    pub(crate) async fn call(
        &self,
        message: impl Into<ClientMessage>,
        limit: Duration,
    ) -> Result<ServerMessage, ConnectionError> {
        self.hello_ack()?;
        let id = self.shared.next_id();
        let mut message = message.into();
        // `send` is matched by its own id; a broker that knows both answers with both.
        if let ClientMessage::Messaging(messaging::Request::Send(send)) = &mut message {
            send.id = Some(id.clone());
        }
        // A caller that waits wants to know that a silent request is done, too.
        let frame = if message.row().silent { message.write_confirmed(&id) } else { message.write(Some(&id)) };
        let ticket = self.shared.pending.add(id.clone());
        self.outgoing.try_send(Outgoing { id: Some(id), frame }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ConnectionError::QueueFull,
            mpsc::error::TrySendError::Closed(_) => ConnectionError::Closed(Closed::ByUs),
        })?;
        match tokio::time::timeout(limit, ticket.answer()).await {
            Ok(answer) => answer,
            Err(_) => Err(ConnectionError::Timeout(limit)),
        }
    }

    /// Notes what a message of the session changes in its groups.
    pub(crate) fn note_groups(&self, message: &ClientMessage) {
        let mut groups = self.shared.groups.lock().unwrap_or_else(PoisonError::into_inner);
        match message {
            ClientMessage::Groups(groups::Request::JoinGroup(join)) => {
                groups.retain(|group| group.name != join.name);
                groups.push(Group { name: join.name.clone(), role: join.role.clone() });
            }
            ClientMessage::Groups(groups::Request::LeaveGroup(leave)) => {
                groups.retain(|group| group.name != leave.name)
            }
            _ => {}
        }
    }

    /// Puts the session back into its groups after an older broker, which does not keep them, has restarted.
    ///
    /// # Errors
    /// Of the transport.
    pub(crate) async fn join_groups_again(&self) -> Result<(), ConnectionError> {
        let groups = self.shared.groups.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for Group { name, role } in groups {
            self.write(JoinGroup { name, role, as_member: false, target: WriteTarget::default() }).await?;
        }
        Ok(())
    }

    /// Right after a takeover on this machine: waits until the other sessions have come over, too. Who asks for everyone would
    /// miss them otherwise; returns at once in every other case.
    pub(crate) async fn others_are_back(&self) {
        let back_at = *self.shared.back_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = back_at.filter(|_| self.identity().local.is_some()) {
            tokio::time::sleep_until(at + TAKEOVER_SETTLES).await;
        }
    }

    /// Sends a request that changes nothing. On this machine's own mesh it is asked again when the holder dies before the
    /// answer: another process takes over within a moment, and callers need not know.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub(crate) async fn ask(
        &self,
        message: impl Into<ClientMessage>,
        limit: Duration,
    ) -> Result<ServerMessage, ConnectionError> {
        let message = message.into();
        if self.identity().local.is_none() {
            return self.call(message, limit).await;
        }
        let deadline = tokio::time::Instant::now() + limit.max(TAKEOVER_WAIT);
        loop {
            let answer = self.call(message.clone(), limit).await;
            let between = matches!(answer, Err(ConnectionError::Lost(_) | ConnectionError::NotConnected(_)));
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if !between || left.is_zero() || self.ready(left).await.is_err() {
                return answer;
            }
        }
    }

    /// Sends a request and waits for the answer that its table names. A repeatable one is asked again after a takeover on this
    /// machine.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn request<C: Call>(&self, request: C) -> Result<C::Answer, ConnectionError> {
        self.request_within(request, REQUEST_TIMEOUT).await
    }

    /// As [`Connection::request`], with another limit.
    ///
    /// # Errors
    /// As [`Connection::request`].
    pub async fn request_within<C: Call>(&self, request: C, limit: Duration) -> Result<C::Answer, ConnectionError> {
        let older = self.is_older_broker();
        let limit = if older { limit.min(OLDER_TIMEOUT) } else { limit };
        let answer = if C::REPEATABLE { self.ask(request, limit).await } else { self.call(request, limit).await };
        let answer = answer.map_err(|error| match error {
            ConnectionError::Timeout(_) if older => ConnectionError::NotKnown(C::TAG),
            error => error,
        })?;
        C::Answer::from_message(answer).map_err(|other| unexpected(C::Answer::TAG, &other))
    }

    /// Sends a silent request. Answers its confirmation; `None` when the broker cannot confirm.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn write<C: Call>(&self, request: C) -> Result<Option<C::Answer>, ConnectionError> {
        self.hello_ack()?;
        if !self.broker_can("confirm") {
            self.tell(request)?;
            return Ok(None);
        }
        self.request(request).await.map(Some)
    }

    /// Sends a frame that has no answer.
    ///
    /// # Errors
    /// [`ConnectionError::NotConnected`], [`ConnectionError::QueueFull`]
    pub(crate) fn tell(&self, message: impl Into<ClientMessage>) -> Result<(), ConnectionError> {
        self.hello_ack()?;
        let frame = message.into().write(None);
        self.outgoing.try_send(Outgoing { id: None, frame }).map_err(|_| ConnectionError::QueueFull)
    }

    /// Sends what waits and closes the socket in good order; returns when it is closed.
    pub async fn close(&self) {
        self.mail_stored().await;
        self.shared.stop.cancel();
        let mut state = self.watch();
        let _ = state.wait_for(|state| matches!(state, State::Closed(_))).await;
    }
}

/// The inbox of an identity's mesh below the config folder, for a connection that receives.
///
/// # Errors
/// [`InboxError`]
pub async fn open_mailbox(config_dir: &Path, identity: &Identity) -> Result<Mailbox, InboxError> {
    Mailbox::open(config_dir, &identity.mesh_id).await
}

/// The error for an answer of another kind than asked for.
pub(crate) fn unexpected(expected: &'static str, got: &ServerMessage) -> ConnectionError {
    ConnectionError::Unexpected { expected, got: got.tag().to_owned() }
}
