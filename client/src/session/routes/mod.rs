//! The ways into a session, and which of them is open right now.
//!
//! A channel note is written whether or not the host shows it, so nothing is taken for shown until it is proved: the host's
//! own transcript holds the message, or a hook has handed it over and a later hook fired. A channel that swallows is found
//! out within two turns, what it swallowed is given to another route, and it is not used again.
//!
//! Order of preference: while the session works, the context of its next hook, because that interrupts the turn; else the
//! channel; else the waiting hook, whose end wakes the session; else a monitor's line; else, for what our own member wrote,
//! the session's inbox socket. Without any of them tool results say that something waits, and `check_messages` reads it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::JoinedMesh;
use crate::ipc::Hook;
use inbox_socket::InboxSocket;

pub mod hooks;
pub mod host;
pub mod inbox_socket;
pub mod permission_mode;
pub mod proof;
pub mod recover;
mod transcript;

/// Name of the route in receipts and in the inbox.
pub const CHANNEL: &str = "channel";
/// The context of a hook.
pub const HOOK: &str = "hook";
/// The reason of the stop hook.
pub const STOP: &str = "stop";
/// The hook that waits in the background and wakes the session.
pub const REWAKE: &str = "rewake";
/// A line of the plug-in's monitor.
pub const MONITOR: &str = "monitor";
/// The session's own inbox socket.
pub const SOCKET: &str = "inbox-socket";
/// `check_messages`.
pub const PULL: &str = "pull";
/// A verb in the shell of the session.
pub const SHELL: &str = "cli";
/// What a tool's answer says besides, where nothing else brings messages: it shows that they wait, not what they are.
pub const NOTICE: &str = "notice";
/// A question, which the stop hook puts before the session until it is answered.
pub const QUESTION: &str = "question";

/// A turn that no hook was heard of for this long is not taken for one: a user's interrupt fires no hook.
const TURN_SILENCE: Duration = Duration::from_secs(60);
/// Texts that are kept until something confirms them.
const MAX_UNCONFIRMED: usize = 1_000;
/// How long a process that prints may take to say that it has.
pub const PRINT_PATIENCE: Duration = Duration::from_secs(2);

/// How the channel stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The host will not show notes, and why.
    Off(String),
    /// Nothing speaks against it; nothing proves it.
    Unproven,
    /// A note was seen in the session.
    Proven,
    /// Notes were written and did not arrive.
    Dead(String),
}

impl Channel {
    /// Whether notes should be written.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Unproven | Self::Proven)
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Off(_) => "off",
            Self::Unproven => "unproven",
            Self::Proven => "proven",
            Self::Dead(_) => "dead",
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Off(reason) | Self::Dead(reason) => Some(reason),
            Self::Unproven | Self::Proven => None,
        }
    }
}

/// Text for the session and where to say that it was printed.
#[derive(Debug)]
pub struct WakeText {
    /// As the model will read it.
    pub text: String,
    /// Told once it is printed; dropped when it is not.
    pub printed: oneshot::Sender<()>,
}

/// Anyone who can show a text to the session: a waiting hook (once) or a monitor.
pub type WakeTarget = mpsc::Sender<WakeText>;

/// The way to take for messages that have come.
#[derive(Debug)]
pub enum DeliveryRoute {
    /// Write notes.
    Channel,
    /// Give them to the waiting hook; it can take one text_to_wake.
    Rewake(WakeTarget),
    /// Give them to the monitor.
    Monitor(WakeTarget),
    /// Post what our own member wrote to the session's inbox socket.
    Socket(Arc<InboxSocket>),
    /// A hook or a tool will fetch them.
    Later,
}

/// Messages that a route has handed over and nothing has confirmed yet.
#[derive(Clone)]
pub struct UnconfirmedDelivery {
    /// Their mesh.
    pub bound: JoinedMesh,
    /// Their ids.
    pub message_ids: Vec<String>,
    /// Their numbers in the inbox.
    pub seqs: Vec<i64>,
    /// By which route.
    pub route: &'static str,
    /// When.
    pub at: Instant,
    /// How often they were looked for in vain in a session at rest.
    pub misses: u8,
    /// Set when they came with the answer of a tool call, to how many prompts the session had had: the next calls may be of
    /// the same batch, which the model wrote before it read this.
    pub batch_of_prompt: Option<u64>,
}

/// Senders of messages on their way that are remembered.
const MAX_SENDERS: usize = 64;
/// Senders that one line for the user names.
const MAX_NAMED: usize = 5;

/// How the routes stand, for the doctor and for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// `off`, `unproven`, `proven`, `dead`.
    pub channel: String,
    /// Why the channel is off or dead.
    pub channel_reason: Option<String>,
    /// Seconds since the last hook; `None` when none has fired.
    pub last_hook_s: Option<u64>,
    /// A hook waits to wake the session.
    pub waiting: bool,
    /// A monitor follows.
    pub monitor: bool,
    /// `open`, or why the session's inbox socket is not used.
    pub inbox_socket: String,
    /// The session is in a turn.
    pub busy: bool,
    /// Messages that wait for a route or a pull.
    pub unshown: i64,
    /// Messages handed over and not confirmed.
    pub unconfirmed: usize,
    /// Claude's session id as last told.
    pub session_id: Option<String>,
    /// `permission_mode` as last told.
    pub permission_mode: Option<String>,
    /// Name and version of the host.
    pub host: Option<String>,
    /// What the session is called in its meshes; absent from a server of an older release.
    pub name: Option<String>,
}

struct State {
    channel: Channel,
    last_hook: Option<Instant>,
    busy: bool,
    waiter: Option<WakeTarget>,
    /// A waiting hook was there at least once: the session can be woken between turns.
    wakes: bool,
    monitor: Option<WakeTarget>,
    /// The session's inbox socket, or why it is not used.
    socket: Result<Arc<InboxSocket>, String>,
    transcript: Option<PathBuf>,
    session_id: Option<String>,
    permission_mode: Option<String>,
    host: Option<String>,
    handed: Vec<UnconfirmedDelivery>,
    /// How many prompts the session has had.
    prompts: u64,
    /// Messages given as the reason not to stop, in a row.
    stop_blocks: u32,
    /// Senders of messages that are on their way into the session: message id, and who in words.
    senders: Vec<(String, String)>,
    /// Senders of messages that woke the session or went on with its turn, for its user.
    woken_by: Vec<String>,
}

/// The routes of one session.
pub struct Routes {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Routes {
    /// Nothing is known yet.
    pub fn new(session_id: Option<String>) -> Self {
        let state = State {
            channel: Channel::Unproven,
            last_hook: None,
            busy: false,
            waiter: None,
            wakes: false,
            monitor: None,
            socket: Err("the host has not greeted yet".into()),
            transcript: None,
            session_id,
            permission_mode: None,
            host: None,
            handed: vec![],
            prompts: 0,
            stop_blocks: 0,
            senders: vec![],
            woken_by: vec![],
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who watch that something changed.
    pub fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Hears of changes that may open a route.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The best way right now. A waiting hook is taken out: give it back with [`Routes::give_back`] when it is not used.
    pub fn next_route(&self) -> DeliveryRoute {
        let mut state = self.state();
        if state.in_turn() {
            return DeliveryRoute::Later;
        }
        if state.channel.is_open() {
            return DeliveryRoute::Channel;
        }
        if let Some(waiter) = state.waiter.take().filter(|waiter| !waiter.is_closed()) {
            return DeliveryRoute::Rewake(waiter);
        }
        if let Some(monitor) = state.monitor.clone().filter(|monitor| !monitor.is_closed()) {
            return DeliveryRoute::Monitor(monitor);
        }
        match &state.socket {
            Ok(socket) => DeliveryRoute::Socket(Arc::clone(socket)),
            Err(_) => DeliveryRoute::Later,
        }
    }

    /// Whether something will bring messages into the session without its asking.
    pub fn can_push(&self) -> bool {
        let state = self.state();
        state.channel.is_open() || state.last_hook.is_some() || state.monitor.is_some()
    }

    /// Whether notes may be written.
    pub fn channel_is_open(&self) -> bool {
        self.state().channel.is_open()
    }

    /// Puts an unused waiting hook back, unless a newer one came.
    pub fn give_back(&self, waiter: WakeTarget) {
        let mut state = self.state();
        if state.waiter.is_none() && !waiter.is_closed() {
            state.waiter = Some(waiter);
        }
    }

    /// A hook waits now; the one before it is sent away by dropping its sender.
    pub fn waiter_came(&self, waiter: WakeTarget) {
        let mut state = self.state();
        state.waiter = Some(waiter);
        state.wakes = true;
        drop(state);
        self.touch();
    }

    /// A monitor follows now.
    pub fn monitor_came(&self, monitor: WakeTarget) {
        self.state().monitor = Some(monitor);
        self.touch();
    }

    /// The session was woken: it is in a turn although no hook has said so.
    pub fn woken(&self) {
        let mut state = self.state();
        state.busy = true;
        state.last_hook = Some(Instant::now());
    }

    /// Where the host's transcript will be; what a hook says counts more.
    pub fn expect_transcript(&self, path: PathBuf) {
        self.state().transcript.get_or_insert(path);
    }

    /// What the host is, told by its greeting.
    pub fn greeted(&self, host: String, channel: Channel, socket: Result<InboxSocket, String>) {
        let mut state = self.state();
        state.host = Some(host);
        state.channel = channel;
        state.socket = socket.map(Arc::new);
        drop(state);
        self.touch();
    }

    /// Notes what a hook tells about the session. Answers the id the session had before, when it has another now.
    pub fn hook(&self, hook: &Hook, busy: Option<bool>) -> Option<(Option<String>, String)> {
        let mut state = self.state();
        state.last_hook = Some(Instant::now());
        if let Some(path) = &hook.transcript_path {
            state.transcript = Some(PathBuf::from(path));
        }
        if hook.permission_mode.is_some() {
            state.permission_mode.clone_from(&hook.permission_mode);
        }
        if let Some(busy) = busy {
            state.busy = busy;
        }
        let changed = match &hook.session_id {
            Some(id) if state.session_id.as_ref() != Some(id) => {
                let before = state.session_id.replace(id.clone());
                Some((before, id.clone()))
            }
            _ => None,
        };
        drop(state);
        self.touch();
        changed
    }

    /// The host's transcript as last told.
    pub fn transcript(&self) -> Option<PathBuf> {
        self.state().transcript.clone()
    }

    /// The mode that the host was started in; what a hook says counts more.
    pub fn expect_permission_mode(&self, mode: &str) {
        self.state().permission_mode.get_or_insert_with(|| mode.to_owned());
    }

    /// Claude's session id as last told.
    pub fn session_id(&self) -> Option<String> {
        self.state().session_id.clone()
    }

    /// `permission_mode` as last told.
    pub fn permission_mode(&self) -> Option<String> {
        self.state().permission_mode.clone()
    }

    /// Who sent a message that is on its way: told to the user of the session once it was handed over.
    pub(super) fn sender(&self, message_id: String, who: String) {
        let mut state = self.state();
        if state.senders.len() >= MAX_SENDERS {
            state.senders.remove(0);
        }
        state.senders.push((message_id, who));
    }

    /// A line for the user of the session: who wrote what came into this turn. Each is told once.
    pub fn notice(&self) -> Option<String> {
        let who = std::mem::take(&mut self.state().woken_by);
        (!who.is_empty()).then(|| format!("claudemesh: this turn has messages from {}", who.join(", ")))
    }

    /// Notes that messages were handed over by a route.
    pub fn handed(&self, handed: UnconfirmedDelivery) {
        if handed.message_ids.is_empty() {
            return;
        }
        let mut state = self.state();
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.senders).into_iter().partition(|(id, _)| handed.message_ids.contains(id));
        state.senders = later;
        for (_, who) in now {
            if state.woken_by.len() < MAX_NAMED && !state.woken_by.contains(&who) {
                state.woken_by.push(who);
            }
        }
        // Where nothing ever confirms anything, the oldest are given up: they stay `handed`.
        if state.handed.len() >= MAX_UNCONFIRMED {
            state.handed.remove(0);
        }
        state.handed.push(handed);
    }

    /// A prompt came.
    pub fn prompted(&self) {
        self.state().prompts += 1;
    }

    /// How many prompts the session has had.
    pub fn prompts(&self) -> u64 {
        self.state().prompts
    }

    /// Whether the host has run a hook of ours.
    pub fn has_hooks(&self) -> bool {
        self.state().last_hook.is_some()
    }

    /// Shows a line over one route, to see whether it comes through.
    ///
    /// # Errors
    /// Why that route is closed now.
    pub async fn probe(&self, route: &str) -> Result<(), String> {
        const TEXT: &str =
            "claudemesh doctor: this line is a test of the way into the session; nothing needs to be done.";
        let target = match route {
            REWAKE => self.state().waiter.take().ok_or("no hook waits to wake the session")?,
            MONITOR => self.state().monitor.clone().ok_or("no monitor follows the session")?,
            other => return Err(format!("'{}' cannot be tested this way", crate::output::clean(other))),
        };
        if wake_with(&target, TEXT.into()).await { Ok(()) } else { Err("no one printed the line".into()) }
    }

    /// How the routes stand; `unshown` is the caller's to know.
    pub fn report(&self, unshown: i64) -> Report {
        let state = self.state();
        Report {
            channel: state.channel.word().into(),
            channel_reason: state.channel.reason().map(str::to_owned),
            last_hook_s: state.last_hook.map(|at| at.elapsed().as_secs()),
            waiting: state.waiter.as_ref().is_some_and(|waiter| !waiter.is_closed()),
            monitor: state.monitor.as_ref().is_some_and(|monitor| !monitor.is_closed()),
            inbox_socket: state.socket.as_ref().map_or_else(Clone::clone, |_| "open".into()),
            busy: state.in_turn(),
            unshown,
            unconfirmed: state.handed.iter().map(|handed| handed.message_ids.len()).sum(),
            session_id: state.session_id.clone(),
            permission_mode: state.permission_mode.clone(),
            host: state.host.clone(),
            name: None,
        }
    }
}

impl State {
    /// The session works and its hooks say so.
    fn in_turn(&self) -> bool {
        self.busy && self.last_hook.is_some_and(|at| at.elapsed() < TURN_SILENCE)
    }
}

/// Gives a text to a process that prints; `true` once it is printed.
pub async fn wake_with(target: &WakeTarget, text: String) -> bool {
    let (printed, done) = oneshot::channel();
    if target.send(WakeText { text, printed }).await.is_err() {
        return false;
    }
    matches!(tokio::time::timeout(PRINT_PATIENCE, done).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(id: &str) -> Hook {
        Hook { session_id: Some(id.into()), ..Hook::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_way_follows_what_is_open() {
        let routes = Routes::new(Some("a".into()));
        assert!(matches!(routes.next_route(), DeliveryRoute::Channel));
        // In a turn the next hook interrupts; a turn that nothing is heard of is over.
        assert_eq!(routes.hook(&hook("a"), Some(true)), None);
        assert!(matches!(routes.next_route(), DeliveryRoute::Later));
        tokio::time::advance(TURN_SILENCE).await;
        assert!(matches!(routes.next_route(), DeliveryRoute::Channel));
        routes.greeted("claude-code 1".into(), Channel::Off("no flag".into()), Err("none".into()));
        assert!(matches!(routes.next_route(), DeliveryRoute::Later));
        let (waiter, _keep) = mpsc::channel(1);
        routes.waiter_came(waiter);
        let DeliveryRoute::Rewake(waiter) = routes.next_route() else { panic!("a hook waits") };
        assert!(matches!(routes.next_route(), DeliveryRoute::Later), "it can be used once");
        routes.give_back(waiter);
        assert!(matches!(routes.next_route(), DeliveryRoute::Rewake(_)));
        let (monitor, _keep) = mpsc::channel(1);
        routes.monitor_came(monitor);
        assert!(matches!(routes.next_route(), DeliveryRoute::Monitor(_)));
    }

    #[tokio::test]
    async fn a_waiter_that_is_gone_is_no_way() {
        let routes = Routes::new(None);
        routes.greeted("x".into(), Channel::Off("other host".into()), Err("none".into()));
        let (waiter, gone) = mpsc::channel(1);
        drop(gone);
        routes.waiter_came(waiter);
        assert!(matches!(routes.next_route(), DeliveryRoute::Later));
        assert!(!routes.report(0).waiting);
    }

    #[tokio::test]
    async fn a_change_of_session_is_told_once() {
        let routes = Routes::new(Some("a".into()));
        assert_eq!(routes.hook(&hook("b"), None), Some((Some("a".into()), "b".into())));
        assert_eq!(routes.hook(&hook("b"), None), None);
    }
}
