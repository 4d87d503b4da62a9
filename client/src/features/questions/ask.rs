//! Asking a peer and waiting for its answer. The same for the tool and the shell; what is shown is theirs.
//!
//! The question is an ordinary encrypted message of priority `now`. The wait ends with the answer, with a question of the
//! very peer that was asked (both would wait for each other for ever), with the time, or when no one wants it any more. It
//! never takes the question back: a late answer arrives like any message.

use std::time::Duration;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{Candidate, Priority, Trace};
use claudemesh_protocol::target::Target;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::wait::{self, Waits};
use crate::connection::{Connection, ConnectionError, State, Stored};
use crate::features::messaging::Draft;
use crate::inbox::pending_waits::{Asked, Taken};
use crate::inbox::questions::{DECLINE, QUESTION, QUESTION_TTL_MS};
use crate::inbox::{Mailbox, Message};

/// How long a caller waits that says nothing, when its host allows.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(300);
/// Longest wait.
pub const MAX_WAIT: Duration = Duration::from_secs(600);
/// How long a caller waits that says nothing, when no one knows what its host allows: most hosts allow a minute.
pub const CAUTIOUS_WAIT: Duration = Duration::from_secs(50);
/// The answer has to be back before the host gives up.
const HOST_MARGIN: Duration = Duration::from_secs(5);
/// Time between two signs of life.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitBudget {
    /// This long.
    pub wait: Duration,
    /// The caller would have waited longer; its host would not.
    pub cut_short: bool,
}

impl WaitBudget {
    /// From the wish of the caller and the limit of its host, when that is known.
    pub fn new(wished: Option<Duration>, host_limit: Option<Duration>) -> Self {
        let wanted = wished.unwrap_or(DEFAULT_WAIT).clamp(Duration::from_secs(1), MAX_WAIT);
        let most = match (host_limit, wished) {
            (Some(limit), _) => limit.saturating_sub(HOST_MARGIN).max(Duration::from_secs(1)),
            // Who names a time knows its host.
            (None, Some(_)) => MAX_WAIT,
            (None, None) => CAUTIOUS_WAIT,
        };
        Self { wait: wanted.min(most), cut_short: most < wanted }
    }
}

/// Where questions are asked from.
pub struct AskContext<'a> {
    /// Connection with an inbox.
    pub connection: &'a Connection,
    /// Its inbox.
    pub mailbox: &'a Mailbox,
    /// Waits on that inbox.
    pub waits: &'a Waits,
    /// Takes what has arrived for them.
    pub settle: Settle<'a>,
}

/// Hands what has arrived to the waits, see [`wait::settle`].
pub type Settle<'a> = &'a (dyn Fn() -> BoxFuture<'a, ()> + Sync);

/// A question.
pub struct Ask {
    /// One peer: name, key, or the beginning of one.
    pub to: String,
    /// The text.
    pub text: String,
    /// Ask although the peer is away.
    pub wait_offline: bool,
    /// How long to wait.
    pub budget: WaitBudget,
    /// The exchange it belongs to.
    pub trace: Trace,
}

impl Outcome {
    /// The message that ended the wait.
    pub fn message(&self) -> Option<&Message> {
        match &self.ended {
            Ended::Answered(message) | Ended::Declined(message) | Ended::Interrupted(message) => Some(message),
            Ended::TimedOut | Ended::Pending | Ended::Cancelled => None,
        }
    }
}

/// How it ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "how", content = "message", rename_all = "snake_case")]
pub enum Ended {
    /// With the answer.
    Answered(Message),
    /// The peer will not answer; the message is its reason.
    Declined(Message),
    /// The peer asked us first.
    Interrupted(Message),
    /// The caller's time is over.
    TimedOut,
    /// The host's time is over.
    Pending,
    /// No one wants the answer any more.
    Cancelled,
}

/// A question that was sent, and how the wait for its answer ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Id of the question.
    pub message_id: String,
    /// Who was asked.
    pub peer: Candidate,
    /// How the wait ended.
    pub ended: Ended,
    /// From sending to the end.
    pub elapsed: Duration,
}

/// Why a question was not sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rejected {
    /// Stable word: a code of the wire, `offline`, `self` or `not_one_peer`.
    pub reason: String,
    /// In words.
    pub message: String,
    /// Who the name may mean.
    pub candidates: Vec<Candidate>,
    /// When to try again.
    pub retry_after_ms: Option<u64>,
}

/// A question that got no further, or whose fate is unknown.
#[derive(Debug)]
pub enum AskError {
    /// Not sent; asking differently may help.
    Rejected(Rejected),
    /// The connection.
    Connection(ConnectionError),
}

impl From<ConnectionError> for AskError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Refused(frame) => Self::Rejected(Rejected {
                reason: frame.0.code,
                message: frame.0.message,
                candidates: frame.0.candidates,
                retry_after_ms: frame.0.retry_after_ms,
            }),
            other => Self::Connection(other),
        }
    }
}

fn rejected(reason: &str, message: String) -> AskError {
    AskError::Rejected(Rejected { reason: reason.into(), message, candidates: vec![], retry_after_ms: None })
}

/// Told when the question is out and every ten seconds then.
pub type Progress<'a> = &'a (dyn Fn(Duration) -> BoxFuture<'static, ()> + Sync);

/// Asks and waits, until `unwanted` is over.
///
/// # Errors
/// [`AskError`]: the question was not sent, or [`ConnectionError::is_open`].
pub async fn ask(
    context: &AskContext<'_>,
    ask: &Ask,
    progress: Progress<'_>,
    unwanted: BoxFuture<'_, ()>,
) -> Result<Outcome, AskError> {
    let peer = whom(context.connection, ask).await?;
    // Before the question is out: nothing that arrives from now on is missed.
    let events = context.connection.mail_events();
    let asked = Asked { key: peer.pubkey.to_hex(), member: peer.member_pubkey.to_hex() };
    let mut wait = context.waits.announce(asked, context.mailbox, context.connection);
    let draft = Draft {
        subtype: Some(QUESTION),
        trace: ask.trace.clone(),
        to: Some(peer.clone()),
        expires_in: Some(Duration::from_millis(QUESTION_TTL_MS.unsigned_abs())),
        ..Draft::new(ask.text.clone(), Priority::Now)
    };
    let started = Instant::now();
    let ack = context.connection.send_direct(&peer.pubkey, &draft).await?;
    wait.sent(&ack.message_id);
    let ended = wait_for(context, wait, events, ask.budget, progress, unwanted).await;
    Ok(Outcome { message_id: ack.message_id, peer, ended, elapsed: started.elapsed() })
}

/// The one peer that is meant, present unless waiting for it is wanted.
async fn whom(connection: &Connection, ask: &Ask) -> Result<Candidate, AskError> {
    let to = &ask.to;
    match Target::parse(to) {
        Ok(Target::Name(_) | Target::Key(_)) => {}
        Ok(_) => {
            let message = "a question goes to one peer; ask groups and topics with a message".to_owned();
            return Err(rejected("not_one_peer", message));
        }
        Err(error) => return Err(rejected(ErrorCode::InvalidArgs.as_str(), error.to_string())),
    }
    let peer = connection.resolve_target(to).await?;
    let (own, member) = (connection.identity().own_public(), connection.identity().member.public());
    if peer.pubkey == own || peer.pubkey == member {
        return Err(rejected("self", "that is you; other sessions of yours have keys of their own".into()));
    }
    if !peer.online && !ask.wait_offline {
        let message = "the peer is away and nothing was sent; with wait_offline the question waits for it for a day";
        return Err(AskError::Rejected(Rejected {
            reason: "offline".into(),
            message: message.into(),
            candidates: vec![peer],
            retry_after_ms: None,
        }));
    }
    Ok(peer)
}

async fn wait_for(
    context: &AskContext<'_>,
    mut wait: wait::Wait,
    mut events: Option<broadcast::Receiver<Stored>>,
    budget: WaitBudget,
    progress: Progress<'_>,
    mut unwanted: BoxFuture<'_, ()>,
) -> Ended {
    let started = Instant::now();
    let deadline = started + budget.wait;
    let mut tick = tokio::time::interval(PROGRESS_EVERY);
    let mut state = context.connection.watch();
    let mut late = false;
    loop {
        (context.settle)().await;
        tokio::select! {
            biased;
            taken = wait.woken() => return match taken {
                Some(Taken::Answer(message)) if message.subtype.as_deref() == Some(DECLINE) => Ended::Declined(message),
                Some(Taken::Answer(message)) => Ended::Answered(message),
                Some(Taken::CounterQuestion(message)) => Ended::Interrupted(message),
                None => Ended::Cancelled,
            },
            () = &mut unwanted => return Ended::Cancelled,
            // Given up for good, by the broker or for another key of the session.
            () = closed(&mut state) => return Ended::Cancelled,
            () = std::future::ready(()), if late => {
                return if budget.cut_short { Ended::Pending } else { Ended::TimedOut };
            }
            // Once more through the inbox, then it is over.
            () = tokio::time::sleep_until(deadline) => late = true,
            _ = tick.tick() => {
                // A host that is going takes no notifications any more.
                tokio::select! {
                    () = progress(started.elapsed()) => {}
                    () = &mut unwanted => return Ended::Cancelled,
                }
            }
            () = arrival(&mut events) => {}
        }
    }
}

async fn closed(state: &mut watch::Receiver<State>) {
    // An error says the same: no one keeps the connection any more.
    let _ = state.wait_for(|state| matches!(state, State::Closed(_))).await;
}

/// Something arrived, or it cannot be told any more; then only the clock is left.
async fn arrival(events: &mut Option<broadcast::Receiver<Stored>>) {
    if let Some(receiver) = events {
        match receiver.recv().await {
            Err(broadcast::error::RecvError::Closed) => *events = None,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
        }
    }
    std::future::pending().await
}

/// The limit that the host was given for tool calls, in its own variable.
pub fn host_limit(text: Option<&str>) -> Option<Duration> {
    text?.trim().parse::<u64>().ok().filter(|ms| *ms > 0).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_fits_the_host() {
        let secs = Duration::from_secs;
        let budget = |wished: Option<u64>, limit: Option<u64>| {
            let budget = WaitBudget::new(wished.map(secs), limit.map(secs));
            (budget.wait.as_secs(), budget.cut_short)
        };
        assert_eq!(budget(None, None), (50, true), "unknown host: cautious, and pending then");
        assert_eq!(budget(None, Some(330)), (300, false), "what launch sets");
        assert_eq!(budget(None, Some(60)), (55, true));
        assert_eq!(budget(Some(20), None), (20, false));
        assert_eq!(budget(Some(20), Some(60)), (20, false));
        assert_eq!(budget(Some(120), None), (120, false), "who names a time knows its host");
        assert_eq!(budget(Some(120), Some(60)), (55, true));
        assert_eq!(budget(Some(9_999), None), (600, false));
        assert_eq!(budget(Some(0), Some(1)), (1, false));
    }

    #[test]
    fn the_limit_of_the_host_is_a_number_of_milliseconds() {
        assert_eq!(host_limit(Some(" 330000 ")), Some(Duration::from_secs(330)));
        for bad in [None, Some(""), Some("0"), Some("-1"), Some("5m")] {
            assert_eq!(host_limit(bad), None, "{bad:?}");
        }
    }
}
