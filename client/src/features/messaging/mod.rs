//! Sending, receipts, pulling, resolving names, echo.

use std::time::Duration;

use claudemesh_protocol::crypto::envelope;
use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use claudemesh_protocol::features::messaging::{
    Ack, Candidate, Echo, EchoResult, InboxPull, InboxPullResult, MessageStatus, MessageStatusResult, Priority,
    RecipientReceipt, RecipientState, Request, ResolveTarget, Response, Send, Trace,
};
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::limits;
use claudemesh_protocol::message::ServerMessage;
use claudemesh_protocol::name::folded;
use claudemesh_protocol::target::{Target, TargetField};
use tokio::time::Instant;

use crate::connection::{Connection, ConnectionError, REQUEST_TIMEOUT, SEND_TIMEOUT, TAKEOVER_WAIT, unexpected};
use crate::features::files::attach::shown;
use crate::inbox::questions::{DECLINE, QUESTION, REPLY};
use crate::inbox::sent::NewSent;
use crate::session::notes::harmless_value;

pub mod cli;
pub mod exchange;
mod handed_over;
pub mod outbox;
pub mod queueing;
pub mod system;
pub mod tools;

/// A text on its way.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The text.
    pub text: String,
    /// Urgency.
    pub priority: Priority,
    /// Id of the message it answers.
    pub reply_to: Option<String>,
    /// `question` or `reply` for the recipient's client; ordinary messages have none.
    pub subtype: Option<&'static str>,
    /// Exchange it belongs to.
    pub trace: Trace,
    /// Idempotency key; a fresh one when `None`.
    pub client_message_id: Option<String>,
    /// What the idempotency keys of all messages of a command follow from: each is the same message however often it is tried.
    pub batch: Option<String>,
    /// Who the one recipient is, for the list of what was sent.
    pub to: Option<Candidate>,
    /// Shortens the time for which the broker keeps it undelivered.
    pub expires_in: Option<Duration>,
}

impl Draft {
    /// A first message of a new exchange.
    pub fn new(text: impl Into<String>, priority: Priority) -> Self {
        Self {
            text: text.into(),
            priority,
            reply_to: None,
            subtype: None,
            trace: exchange::new_trace(),
            client_message_id: None,
            batch: None,
            to: None,
            expires_in: None,
        }
    }
}

/// What became of one target of a send.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The target as it was asked for.
    pub target: String,
    /// Who is meant, for names, prefixes and keys that the broker resolved.
    pub resolved: Option<Candidate>,
    /// The broker's word, or why there is none.
    pub result: Result<Ack, ConnectionError>,
}

/// A target that was resolved: one key, or an audience.
#[expect(clippy::large_enum_variant, reason = "one for each recipient of a command, and soon taken apart")]
enum Meaning {
    Direct { key: PublicKey, resolved: Option<Candidate> },
    Audience(String),
}

impl Connection {
    /// Who a name, key or prefix means.
    ///
    /// # Errors
    /// `unknown_target`, `ambiguous_target` with candidates, or a [`ConnectionError`] of the transport.
    pub async fn resolve_target(&self, target: &str) -> Result<Candidate, ConnectionError> {
        if self.is_older_broker() {
            return self.resolve_here(target).await;
        }
        let request = Request::from(ResolveTarget { target: target.to_owned() });
        let mut answer = self.ask(request.clone(), REQUEST_TIMEOUT).await;
        if matches!(&answer, Err(error) if error.code() == Some(ErrorCode::UnknownTarget))
            && self.identity().local.is_some()
        {
            self.others_are_back().await;
            answer = self.ask(request, REQUEST_TIMEOUT).await;
        }
        match answer? {
            ServerMessage::Messaging(Response::ResolveTargetResult(result)) => Ok(result.resolved),
            other => Err(unexpected("resolve_target_result", &other)),
        }
    }

    /// The same out of the list of peers: older brokers resolve nothing.
    async fn resolve_here(&self, target: &str) -> Result<Candidate, ConnectionError> {
        let own = self.identity().own_public();
        let wanted = folded(target);
        let is_prefix = wanted.len() >= 8 && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut found: Vec<Candidate> = Vec::new();
        let peers = self.list_peers().await?;
        let by_name = peers.iter().filter(|peer| folded(&peer.display_name) == wanted);
        let by_key = peers.iter().filter(|peer| is_prefix && peer.pubkey.to_hex().starts_with(&wanted));
        for peer in by_name.chain(by_key) {
            // A session that connects again is listed twice for a while.
            if peer.pubkey != own && !found.iter().any(|known| known.pubkey == peer.pubkey) {
                found.push(Candidate {
                    kind: "session".into(),
                    pubkey: peer.pubkey,
                    member_pubkey: peer.member_pubkey,
                    name: peer.display_name.clone(),
                    online: peer.online,
                    cwd: Some(peer.cwd.clone()).filter(|cwd| !cwd.is_empty()),
                    member_name: peer.member_name.clone(),
                    hostname: peer.hostname.clone(),
                    last_seen_at: peer.last_seen_at.clone().filter(|_| !peer.online),
                });
            }
        }
        if let [_] = found.as_slice()
            && let Some(only) = found.pop()
        {
            return Ok(only);
        }
        let shown = crate::output::clean(target).into_owned();
        let mut frame = match found.len() {
            0 => ErrorFrame::new(ErrorCode::UnknownTarget, format!("no one here is called `{shown}`")),
            count => {
                let message = format!("`{shown}` may mean {count} recipients; use a key");
                ErrorFrame::new(ErrorCode::AmbiguousTarget, message)
            }
        };
        frame.candidates = found;
        Err(frame.into())
    }

    /// Sends one text to several targets. Each recipient gets it once: equal keys are sent to once, audiences go as one
    /// union, and who got it directly is left out of them. Answers in the order of `targets`.
    ///
    /// With `allow_self` unset, a target that means this member is refused: the text would only come back.
    pub async fn send_to(&self, targets: &[String], draft: &Draft, allow_self: bool) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = vec![None; targets.len()];
        let mut direct: Vec<(PublicKey, Vec<usize>, Option<Candidate>)> = Vec::new();
        let mut audiences: Vec<(String, Vec<usize>)> = Vec::new();
        for (at, target) in targets.iter().enumerate() {
            match self.meaning(target, allow_self).await {
                Err(error) => {
                    outcomes[at] = Some(Outcome { target: target.clone(), resolved: None, result: Err(error) });
                }
                Ok(Meaning::Direct { key, resolved }) => match direct.iter_mut().find(|(known, ..)| *known == key) {
                    Some((_, places, _)) => places.push(at),
                    None => direct.push((key, vec![at], resolved)),
                },
                Ok(Meaning::Audience(name)) => match audiences.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, places)) => places.push(at),
                    None => audiences.push((name, vec![at])),
                },
            }
        }
        let mut reached = Vec::new();
        for (key, places, resolved) in direct {
            let result = self.send_direct(&key, &Draft { to: resolved.clone(), ..draft.clone() }).await;
            if result.is_ok() {
                reached.push(key);
            }
            for at in places {
                let (target, resolved) = (targets[at].clone(), resolved.clone());
                outcomes[at] = Some(Outcome { target, resolved, result: result.clone() });
            }
        }
        let mut place = |at: usize, result: Result<Ack, ConnectionError>| {
            outcomes[at] = Some(Outcome { target: targets[at].clone(), resolved: None, result });
        };
        while !audiences.is_empty() {
            let names: Vec<String> = audiences.iter().map(|(name, _)| name.clone()).collect();
            let result = self.send_audience(&names, &reached, draft).await;
            // One audience without anyone must not keep the text from the others; the broker names it.
            let empty = match &result {
                Err(error) if names.len() > 1 && error.code() == Some(ErrorCode::UnknownTarget) => {
                    let message = error.to_string();
                    names.iter().position(|name| message.split([' ', '`', '\'', '.']).any(|word| word == name))
                }
                _ => None,
            };
            let done = match empty {
                Some(at) => vec![audiences.remove(at)],
                None => std::mem::take(&mut audiences),
            };
            for at in done.into_iter().flat_map(|(_, places)| places) {
                place(at, result.clone());
            }
        }
        outcomes.into_iter().flatten().collect()
    }

    async fn meaning(&self, target: &str, allow_self: bool) -> Result<Meaning, ConnectionError> {
        let parsed = Target::parse(target)
            .map_err(|error| ErrorFrame::new(ErrorCode::InvalidArgs, format!("'{target}': {error}")))?;
        let (own, member) = (self.identity().own_public(), self.identity().member.public());
        let (key, owner, resolved) = match parsed {
            Target::Everyone => return Ok(Meaning::Audience("*".into())),
            Target::Group(name) => return Ok(Meaning::Audience(format!("@{name}"))),
            Target::Topic(name) => return Ok(Meaning::Audience(format!("#{name}"))),
            Target::Key(key) => (key, None, None),
            Target::Name(name) => {
                let found = self.resolve_target(&name).await?;
                (found.pubkey, Some(found.member_pubkey), Some(found))
            }
        };
        // Sessions on one machine are one member: there a shell that writes to one of them does not write to itself.
        let one_member = self.identity().local.is_some();
        let ours = key == own || key == member || (own == member && owner == Some(member) && !one_member);
        if ours && !allow_self {
            let message = format!("'{target}' is you; other sessions of yours have keys of their own");
            return Err(ErrorFrame::new(ErrorCode::Invalid, message).into());
        }
        Ok(Meaning::Direct { key, resolved })
    }

    /// The one recipient that a target means, and who that is when the broker was asked.
    ///
    /// # Errors
    /// As [`Connection::resolve_target`]; `invalid` for an audience, and for this member unless `allow_self` is set.
    pub(crate) async fn recipient(
        &self,
        target: &str,
        allow_self: bool,
    ) -> Result<(PublicKey, Option<Candidate>), ConnectionError> {
        match self.meaning(target, allow_self).await? {
            Meaning::Direct { key, resolved } => Ok((key, resolved)),
            Meaning::Audience(name) => {
                let message = format!("`{name}` is not one recipient");
                Err(ErrorFrame::new(ErrorCode::Invalid, message).into())
            }
        }
    }

    /// Notes a message that the broker accepted. What cannot be noted is sent all the same.
    async fn note_sent(&self, target: &TargetField, sealed_for: Option<&PublicKey>, draft: &Draft, ack: &Ack) {
        // The words of the permission relay are no one's messages.
        let is_mail = matches!(draft.subtype, None | Some(QUESTION | REPLY | DECLINE));
        let Some(book) = self.sent_book().filter(|_| is_mail) else { return };
        let only = match ack.recipients.as_slice() {
            [only] if sealed_for.is_some() => Some(only),
            _ => None,
        };
        let row = NewSent {
            message_id: ack.message_id.clone(),
            target: target.parts().join(","),
            to_name: draft.to.as_ref().map(|to| to.name.clone()).or_else(|| only.map(|only| only.name.clone())),
            to_pubkey: sealed_for.map(PublicKey::to_hex),
            to_member: draft.to.as_ref().map(|to| to.member_pubkey.to_hex()),
            from_pubkey: self.identity().own_public().to_hex(),
            priority: draft.priority.as_str().to_owned(),
            subtype: draft.subtype.map(str::to_owned),
            reply_to_id: draft.reply_to.clone(),
            // Files stay where they are.
            body: shown(&draft.text),
            sent_at_ms: crate::clock::now_ms(),
        };
        if let Err(error) = book.note(row).await {
            tracing::warn!(%error, "what was sent could not be noted");
        }
    }

    /// Seals a text to one key and sends it.
    ///
    /// # Errors
    /// What the broker says (`queued:false` is an error), or that the outcome is open.
    pub async fn send_direct(&self, to: &PublicKey, draft: &Draft) -> Result<Ack, ConnectionError> {
        self.send_sealed(TargetField::One(to.to_hex()), to, draft).await
    }

    /// Seals a text to one key and sends it to keys whose holders can all open it: a member and its sessions.
    ///
    /// # Errors
    /// As [`Connection::send_direct`].
    pub async fn send_sealed(
        &self,
        to: TargetField,
        sealed_for: &PublicKey,
        draft: &Draft,
    ) -> Result<Ack, ConnectionError> {
        check_length(&draft.text)?;
        let body = envelope::seal_direct(&draft.text, sealed_for, self.identity().own_key(), &mut rand::rngs::OsRng)?;
        let ack = self.send_frame(self.frame(to.clone(), body, "direct", draft)).await?;
        self.note_sent(&to, Some(sealed_for), draft, &ack).await;
        Ok(ack)
    }

    /// Sends a text that its audience can read: the union of groups, topics or everyone, each recipient once.
    ///
    /// # Errors
    /// As [`Connection::send_direct`].
    pub async fn send_audience(
        &self,
        audiences: &[String],
        exclude: &[PublicKey],
        draft: &Draft,
    ) -> Result<Ack, ConnectionError> {
        check_length(&draft.text)?;
        self.others_are_back().await;
        let body = envelope::encode_public(&draft.text, &mut rand::rngs::OsRng);
        let target = match audiences {
            [one] => TargetField::One(one.clone()),
            many => TargetField::Many(many.to_vec()),
        };
        let mut send = self.frame(target.clone(), body, "audience", draft);
        send.exclude = exclude.to_vec();
        let ack = self.send_frame(send).await?;
        self.note_sent(&target, None, draft, &ack).await;
        Ok(ack)
    }

    fn frame(&self, target: TargetField, body: envelope::Envelope, kind: &str, draft: &Draft) -> Send {
        let reference = target.parts().join(",");
        let reply_to = draft.reply_to.as_deref().unwrap_or_default();
        let fingerprint =
            envelope::request_fingerprint(kind, &reference, reply_to, draft.priority.as_str(), &draft.text);
        let of_batch = draft.batch.as_ref().map(|batch| format!("{batch}-{}", &fingerprint[..16]));
        let client_message_id = draft.client_message_id.clone().or(of_batch);
        Send {
            target_spec: target,
            priority: draft.priority,
            nonce: body.nonce,
            ciphertext: body.ciphertext,
            client_message_id: Some(client_message_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string())),
            request_fingerprint: Some(fingerprint),
            reply_to_id: draft.reply_to.clone(),
            subtype: draft.subtype.map(str::to_owned),
            trace: Some(draft.trace.clone()),
            expires_in_ms: draft.expires_in.and_then(|time| u64::try_from(time.as_millis()).ok()),
            ..Send::default()
        }
    }

    /// Sends a frame that carries its idempotency key. When the socket is lost before the answer, it is sent again on the
    /// next one under the same key, so it is one message however often it travels.
    async fn send_frame(&self, send: Send) -> Result<Ack, ConnectionError> {
        let patience = if self.identity().local.is_some() { TAKEOVER_WAIT } else { SEND_TIMEOUT };
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).min(SEND_TIMEOUT);
            let error = match self.call(Request::from(send.clone()), left).await {
                Ok(ServerMessage::Messaging(Response::Ack(ack))) => return accepted(ack),
                Ok(other) => return Err(unexpected("ack", &other)),
                Err(error) => error,
            };
            // Between two holders of this machine's own mesh there is no socket for a moment, and nothing was sent.
            let between = matches!(error, ConnectionError::NotConnected(_)) && self.identity().local.is_some();
            if !between && !matches!(error, ConnectionError::Lost(_)) {
                return Err(error);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.ready(left).await.is_err() {
                return Err(error);
            }
        }
    }

    /// What became of a message.
    ///
    /// # Errors
    /// `invalid_argument`, `not_found`, `ambiguous_prefix`, or of the transport.
    pub async fn message_status(&self, id: &str) -> Result<MessageStatusResult, ConnectionError> {
        let request = Request::from(MessageStatus { message_id: id.to_owned() });
        match self.ask(request, REQUEST_TIMEOUT).await? {
            ServerMessage::Messaging(Response::MessageStatusResult(result)) => Ok(result),
            other => Err(unexpected("message_status_result", &other)),
        }
    }

    /// Asks for what waits although its priority or our status holds it; returns when it is in the inbox.
    ///
    /// # Errors
    /// Of the transport. A broker without this request is no error: it holds nothing back for long.
    pub async fn inbox_pull(&self, limit: Option<u32>) -> Result<InboxPullResult, ConnectionError> {
        if self.is_older_broker() {
            // It pushes what waits after the hello by itself, before it answers the next request.
            self.list_peers().await?;
            self.mail_stored().await;
            return Ok(InboxPullResult { pushed: 0, remaining: 0 });
        }
        let answer = match self.ask(Request::from(InboxPull { limit }), REQUEST_TIMEOUT).await {
            Ok(ServerMessage::Messaging(Response::InboxPullResult(result))) => result,
            Ok(other) => return Err(unexpected("inbox_pull_result", &other)),
            Err(error) if error.code() == Some(ErrorCode::UnknownType) => InboxPullResult { pushed: 0, remaining: 0 },
            Err(error) => return Err(error),
        };
        self.mail_stored().await;
        Ok(answer)
    }

    /// To the broker and back; answers its word and the time it took.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn echo(&self) -> Result<(EchoResult, Duration), ConnectionError> {
        let started = Instant::now();
        if self.is_older_broker() {
            // Any answer tells the way.
            let peers = self.list_peers().await?;
            let own = self.identity().own_public();
            let status = peers.iter().find(|peer| peer.pubkey == own).map(|peer| peer.status).unwrap_or_default();
            let result = EchoResult {
                payload: None,
                // It does not tell its clock.
                broker_time: String::new(),
                mesh: self.identity().mesh_id.clone(),
                status,
                waiting: self.hello_ack()?.waiting.unwrap_or_default(),
            };
            return Ok((result, started.elapsed()));
        }
        match self.call(Request::from(Echo::default()), REQUEST_TIMEOUT).await? {
            ServerMessage::Messaging(Response::EchoResult(result)) => Ok((result, started.elapsed())),
            other => Err(unexpected("echo_result", &other)),
        }
    }
}

/// A candidate in one line: how to write to it, its key, where it runs, whether it is there.
pub fn described(candidate: &Candidate) -> String {
    let key: String = candidate.pubkey.to_hex().chars().take(16).collect();
    let place = match (candidate.hostname.as_deref(), candidate.cwd.as_deref().filter(|cwd| !cwd.is_empty())) {
        (Some(host), Some(folder)) => Some(format!("{host}:{folder}")),
        (host, folder) => host.or(folder).map(str::to_owned),
    };
    let seen = match (&candidate.last_seen_at, candidate.online) {
        (_, true) => "connected".to_owned(),
        (Some(at), false) => format!("last seen {}", crate::clock::shown(at)),
        (None, false) => "not seen yet".to_owned(),
    };
    let kind = if candidate.kind == "member" { "member".to_owned() } else { place.unwrap_or_else(|| "session".into()) };
    format!("{}  {key}  {kind}  {seen}", candidate.address())
}

/// Where a recipient's session runs.
pub(crate) fn place(recipient: &RecipientReceipt) -> Option<String> {
    match (recipient.hostname.as_deref(), recipient.cwd.as_deref()) {
        (Some(host), Some(folder)) => Some(format!("{host}:{folder}")),
        (host, folder) => host.or(folder).map(str::to_owned),
    }
}

/// A positive word of the broker, or the error in a negative one.
fn accepted(ack: Ack) -> Result<Ack, ConnectionError> {
    if ack.queued {
        return Ok(ack);
    }
    let mut message = ack.error.clone().unwrap_or_else(|| "the broker did not accept the message".into());
    // Older brokers begin the text with the code and send no field for it.
    let code = ack.code.clone().unwrap_or_else(|| {
        let word: String = message.chars().take_while(|symbol| symbol.is_ascii_lowercase() || *symbol == '_').collect();
        match message.as_str() {
            text if text.starts_with("no connected peer") => ErrorCode::UnknownTarget.as_str().into(),
            text if text.starts_with("payload too large") => ErrorCode::PayloadTooLarge.as_str().into(),
            text if text.starts_with("blocked") => ErrorCode::BlockedByGrants.as_str().into(),
            text if text.starts_with("rate_limit") => ErrorCode::RateLimited.as_str().into(),
            _ if ErrorCode::parse(&word).is_some() => word,
            _ => ErrorCode::Invalid.as_str().into(),
        }
    });
    if let Some(rest) = message.strip_prefix(&format!("{code}: ")) {
        message = rest.to_owned();
    }
    let mut frame = ErrorFrame::new(ErrorCode::Invalid, message);
    frame.code = code;
    frame.retry_after_ms = ack.retry_after_ms;
    frame.candidates = ack.candidates;
    Err(frame.into())
}

/// Longest text of one message, 1 MiB in UTF-8.
pub(crate) const MAX_TEXT_BYTES: usize = 1 << 20;
// In base64, with 16 bytes of tag and some room for nonce and target, it fits into what a broker takes.
const _: () = assert!(MAX_TEXT_BYTES <= limits::MAX_MESSAGE_CHARS / 4 * 3 - 1_024);

fn check_length(text: &str) -> Result<(), ConnectionError> {
    if text.len() <= MAX_TEXT_BYTES {
        return Ok(());
    }
    let message = format!("the message has {} bytes; at most 1 MiB ({MAX_TEXT_BYTES} bytes) can be sent", text.len());
    Err(ErrorFrame::new(ErrorCode::PayloadTooLarge, message).into())
}

/// How an accepted message stands, in words that claim no more than is proved.
pub fn ack_words(ack: &Ack) -> String {
    let mut words = ack.stage.map_or("queued", claudemesh_protocol::features::messaging::Stage::as_str).to_owned();
    if ack.duplicate {
        words.push_str(", sent before");
    }
    // A person at a shell is connected for the moment of a command only: that it is not now does not mean that it is away.
    match (ack.online, ack.waiting) {
        (Some(online), Some(0)) => words.push_str(&format!(", {online} online")),
        (Some(0), Some(1)) => words.push_str(", waits for the recipient, who is not connected now"),
        (Some(0), Some(waiting)) => words.push_str(&format!(", waits for {waiting}, who are not connected now")),
        // One that is connected may be waited for as well: it is not to be disturbed.
        (Some(online), Some(waiting)) => words.push_str(&format!(", {online} online, waits for {waiting}")),
        _ => {}
    }
    if let [only] = ack.recipients.as_slice() {
        match only.status {
            _ if only.ended => words.push_str(&format!("; {}", ended_words(only))),
            Some(status) if only.online => words.push_str(&format!(" ({})", status.as_str())),
            _ => {}
        }
    }
    words
}

/// The name that reaches the member of a session that has ended.
pub(crate) fn instead_of_ended(recipient: &RecipientState) -> Option<&str> {
    recipient.member_name.as_deref().filter(|_| recipient.ended)
}

/// What becomes of a message to a session that has ended, and what helps.
fn ended_words(recipient: &RecipientState) -> String {
    let gets = "this session has ended and gets the message only if it is resumed";
    match instead_of_ended(recipient) {
        Some(member) => format!("{gets}; `{}` reaches the member", harmless_value(member)),
        None => gets.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_ack_is_an_error_with_the_brokers_code() {
        let refused = |error: &str, code: Option<&str>| {
            let ack = Ack { error: Some(error.into()), code: code.map(Into::into), ..Ack::default() };
            accepted(ack).unwrap_err().code()
        };
        assert_eq!(refused("unknown_target: no one", None), Some(ErrorCode::UnknownTarget));
        assert_eq!(refused("no connected peer for target x", None), Some(ErrorCode::UnknownTarget));
        assert_eq!(refused("rate_limit: slow down", None), Some(ErrorCode::RateLimited));
        assert_eq!(refused("whatever", Some("pair_limit")), Some(ErrorCode::PairLimit));
        assert_eq!(refused("whatever", None), Some(ErrorCode::Invalid));
        assert!(accepted(Ack { queued: true, ..Ack::default() }).is_ok());
    }

    #[test]
    fn a_receipt_says_who_is_waited_for_and_not_that_a_shell_is_away() {
        let words = |online, waiting| {
            ack_words(&Ack { queued: true, online: Some(online), waiting: Some(waiting), ..Ack::default() })
        };
        assert_eq!(words(2, 0), "queued, 2 online");
        assert_eq!(words(0, 1), "queued, waits for the recipient, who is not connected now");
        assert_eq!(words(0, 3), "queued, waits for 3, who are not connected now");
        assert_eq!(words(1, 2), "queued, 1 online, waits for 2");
    }

    #[test]
    fn too_long_a_text_is_refused_before_it_is_sealed() {
        assert!(check_length(&"x".repeat(1 << 20)).is_ok());
        let refused = check_length(&"x".repeat((1 << 20) + 1)).unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::PayloadTooLarge));
        assert_eq!(refused.to_string(), "the message has 1048577 bytes; at most 1 MiB (1048576 bytes) can be sent");
    }
}
