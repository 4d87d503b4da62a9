//! `send`: check, route, push to everyone who is there, hand to the journal.

use std::borrow::Cow;
use std::sync::Arc;

use bytestring::ByteString;
use claudemesh_protocol::crypto::envelope;
use claudemesh_protocol::error::{ErrorClass, ErrorCode};
use claudemesh_protocol::features::messaging::{Ack, MAX_ACK_RECIPIENTS, Push, RecipientState, Send, Stage, Trace};
use claudemesh_protocol::id::{MemberId, MeshId, MessageId, PublicKey};
use claudemesh_protocol::limits;
use claudemesh_protocol::target::{Target, TargetField};
use claudemesh_protocol::time::iso;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use super::letters::NO_KEY;
use super::recent_messages::{Entry, Receipt};
use super::state::{Journaled, MessagingMemory, UnsettledMessage};
use super::store::types::NewMessage;
use super::{journaling, quota};
use crate::features::messaging::metrics::METRICS;
use crate::journal::BATCH_ROWS;
use crate::mesh::context::{FlushWanted, MeshContext};
use crate::mesh::events::MeshEvent;
use crate::mesh::outbox::{AllOwed, InFlight, Owed, passes};
use crate::mesh::outcome::{Outcome, ReplyTo};
use crate::mesh::peers::{Peer, PeerHandle, Roster, Sending};
use crate::mesh::resolve::{Recipient, RecipientKind, Route, Routed};
use crate::mesh::topics;
use crate::refusal::Refusal;

/// What a push has beside body and target, roughly.
const PUSH_BYTES: usize = 720;
/// What an ack has, roughly.
const ACK_BYTES: usize = 512;
/// Rows after which a batch is handed over although all of it is about to be acknowledged.
const MANY_EXPECTED_ROWS: usize = 16_384;

/// Handles `send`. Refusals that are about the message itself are `ack {queued:false}`, as clients expect them.
pub(super) fn send(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    send: Send,
) -> Result<Outcome<Ack>, Refusal> {
    let reply = cx.reply_to();
    match accept(memory, cx, send, reply) {
        Ok(Some(ack)) => Ok(Outcome::Answer(Ack { id: own_id(cx), ..ack })),
        Ok(None) => Ok(Outcome::Silent),
        Err(refusal) => {
            METRICS.rejected.with_label_values(&[refusal.code.as_str()]).inc();
            let older = cx.asker().is_ok_and(|peer| peer.older);
            Ok(Outcome::Answer(refused(own_id(cx), refusal, older)))
        }
    }
}

/// Clients correlate by `id`; the head's `id` is the same field, cut to its limit.
fn own_id(cx: &MeshContext<'_>) -> String {
    cx.caller().and_then(|caller| caller.id.as_deref()).unwrap_or_default().to_owned()
}

fn refused(id: String, refusal: Refusal, older: bool) -> Ack {
    // Older clients look at the text only: it starts with the code. They send again what no word of it calls final.
    let last = match refusal.code.class() {
        ErrorClass::NotFound if older => " (not_found)",
        ErrorClass::Auth if older => " (forbidden)",
        ErrorClass::BadRequest | ErrorClass::Conflict if older => " (invalid)",
        _ => "",
    };
    Ack {
        id,
        queued: false,
        error: Some(format!("{}: {}{last}", refusal.code.as_str(), refusal.message)),
        code: Some(refusal.code.as_str().into()),
        retry_after_ms: refusal.retry_after_ms,
        candidates: refusal.candidates,
        ..Ack::default()
    }
}

/// Clients of before send to a name that is not in their list (who is away, or hidden) without sealing the text for anyone. What is
/// direct must not be readable here, so that is refused; the recipient could not tell it from a forgery either.
fn check_sealed(send: &Send, targets: &[Target]) -> Result<(), Refusal> {
    let named = targets.iter().any(|target| matches!(target, Target::Name(_)));
    let readable = |text: String| {
        !text.is_empty() && !text.chars().any(|symbol| symbol.is_control() && !"\n\r\t".contains(symbol))
    };
    if named && envelope::decode_public(&send.ciphertext).is_ok_and(readable) {
        // Its program takes a text with `not_found` in it for final.
        let message = "a direct message to a name has to be sealed for its key, and that name is not in your list of peers \
                       (not_found): send it to the key";
        return Err(Refusal::new(ErrorCode::NotEncrypted, message));
    }
    Ok(())
}

fn check(send: &Send) -> Result<SmallVec<[Target; 1]>, Refusal> {
    let fail = |message: &str| Err(Refusal::new(ErrorCode::InvalidArgs, message));
    if send.ciphertext.len() + send.nonce.len() + send.target_spec.chars() > limits::MAX_MESSAGE_CHARS {
        let message = format!("payload too large: at most {} characters", limits::MAX_MESSAGE_CHARS);
        return Err(Refusal::new(ErrorCode::PayloadTooLarge, message));
    }
    for (name, value) in [
        ("client_message_id", send.client_message_id.as_deref()),
        ("request_fingerprint", send.request_fingerprint.as_deref()),
        ("replyToId", send.reply_to_id.as_deref()),
        ("subtype", send.subtype.as_deref()),
        ("trace.id", send.trace.as_ref().map(|trace| trace.id.as_str())),
    ] {
        if value.is_some_and(|value| value.is_empty() || value.len() > limits::MAX_ID_CHARS) {
            return fail(&format!("`{name}`: expected 1 to {} characters", limits::MAX_ID_CHARS));
        }
    }
    if matches!(send.subtype.as_deref(), Some("system" | "webhook" | "reminder")) {
        return fail("`subtype`: system, webhook and reminder are written by the broker only");
    }
    let parts = send.target_spec.parts();
    if parts.is_empty() || parts.len() > limits::MAX_TARGETS {
        return fail(&format!("`targetSpec`: expected 1 to {} targets", limits::MAX_TARGETS));
    }
    if send.exclude.len() > limits::MAX_TARGETS || send.mentions.len() > limits::MAX_MENTIONS {
        return fail("`exclude` or `mentions`: too many entries");
    }
    parts
        .iter()
        .map(|part| Target::parse(part).map_err(|error| Refusal::new(ErrorCode::InvalidArgs, error.to_string())))
        .collect()
}

fn accept(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    send: Send,
    reply: Option<ReplyTo>,
) -> Result<Option<Ack>, Refusal> {
    let targets = check(&send)?;
    if cx.asker()?.older {
        check_sealed(&send, &targets)?;
    }
    let id = message_id(cx.mesh_id(), &cx.asker()?.member, send.client_message_id.as_deref());
    if send.client_message_id.is_some()
        && let Some(ack) = retry(memory, &id, send.request_fingerprint.as_deref(), reply.as_ref())?
    {
        return Ok(ack);
    }
    if memory.is_full() {
        return Err(Refusal::wait(ErrorCode::Busy, "storage cannot keep up; try again", 1_000));
    }
    let (routed, topic) = route(cx, cx.asker()?, &send.exclude, &targets)?;
    quota::message(memory, cx, &cx.asker()?.member, &targets, &routed)?;
    if let Some(trace) = &send.trace {
        quota::trace(memory, cx, trace)?;
    }
    let answers = send.reply_to_id.clone();
    let message = build(memory, cx, cx.asker()?, id, send, topic);
    if let Some(answered) = answers {
        let by = cx.asker()?.key();
        super::receipts::answered(memory, cx, &answered, by);
        cx.emit(MeshEvent::Answered { message: answered, by });
    }
    admit(memory, cx, message, routed, reply);
    Ok(None)
}

/// A retry with a known idempotency key is answered with the first message. `id` is what follows from the key.
/// `Some(None)`: its ack is still to come.
pub(super) fn retry(
    memory: &mut MessagingMemory,
    id: &MessageId,
    fingerprint: Option<&str>,
    reply: Option<&ReplyTo>,
) -> Result<Option<Option<Ack>>, Refusal> {
    let Some(known) = memory.recent.known(id) else { return Ok(None) };
    if let (Some(first), Some(now)) = (known.fingerprint.as_deref(), fingerprint)
        && first != now
    {
        return Err(Refusal::new(
            ErrorCode::AlreadyExists,
            "this client_message_id was used for another message (invalid retry)",
        ));
    }
    let known = known.clone();
    if let (Some(open), Some(reply)) = (memory.open.get_mut(&known.seq), reply)
        && (open.remaining > 0 || open.durable)
    {
        open.ask_again(reply.clone());
        return Ok(Some(None));
    }
    let stage = memory.recent.receipt(id.as_str()).map_or(Stage::Stored, lowest_stage);
    Ok(Some(Some(Ack {
        message_id: id.to_string(),
        queued: true,
        duplicate: true,
        stage: Some(stage),
        ..Ack::default()
    })))
}

pub(super) type TopicRef = Option<(claudemesh_protocol::id::TopicId, String)>;

/// Where a message of this sender goes.
pub(super) fn route(
    cx: &MeshContext<'_>,
    sender: &Peer,
    exclude: &[PublicKey],
    targets: &[Target],
) -> Result<(SmallVec<[Routed; 1]>, TopicRef), Refusal> {
    let mut route = Route::new(cx.roster(), sender, exclude);
    let mut topic = None;
    for target in targets {
        let mut subscribers = Vec::new();
        if let Target::Topic(text) = target {
            let found = topics::readable(cx.topics(), &sender.member, text)?;
            topic = Some((found.id.clone(), found.name.clone()));
            subscribers.clone_from(&found.subscribers);
        }
        route.add(target, &subscribers)?;
    }
    if topic.is_none() && route.all_blocked() {
        return Err(Refusal::new(ErrorCode::BlockedByGrants, "no one of them takes such messages from this sender"));
    }
    if topic.is_none() && route.only_itself() {
        let message = "no connected peer for target: that is this session itself";
        return Err(Refusal::new(ErrorCode::UnknownTarget, message));
    }
    Ok((route.routed, topic))
}

/// The id of a new message. With an idempotency key it follows from the key: a push may reach its recipient although the broker
/// is killed before the message is stored, and the retry that the sender makes on the next broker must be the same message to
/// anyone who has it already, answers it, or acknowledges it.
#[expect(clippy::expect_used, reason = "the sizes are constants")]
pub(super) fn message_id(mesh: &MeshId, sender: &MemberId, client_id: Option<&str>) -> MessageId {
    let Some(client_id) = client_id else { return MessageId::random(&mut rand::thread_rng()) };
    let mut hash = Sha256::new();
    // Ids have no line breaks, so no two triples make one text.
    for part in ["message", "\n", mesh.as_str(), "\n", sender.as_str(), "\n", client_id] {
        hash.update(part);
    }
    let mut text = [0; 32];
    hex::encode_to_slice(&hash.finalize()[..16], &mut text).expect("32 digits hold 16 bytes");
    MessageId::from(std::str::from_utf8(&text).expect("hex digits are ASCII"))
}

/// The message, with the next place in the order of the mesh.
pub(super) fn build(
    memory: &mut MessagingMemory,
    cx: &MeshContext<'_>,
    sender: &Peer,
    id: MessageId,
    send: Send,
    topic: TopicRef,
) -> NewMessage {
    let now = cx.now_ms();
    let ttl = i64::try_from(limits::QUEUE_TTL.as_millis()).unwrap_or(i64::MAX);
    let ttl = send.expires_in_ms.and_then(|ms| i64::try_from(ms).ok()).map_or(ttl, |ms| ms.clamp(1, ttl));
    let seq = memory.next_seq;
    memory.next_seq += 1;
    NewMessage {
        mesh_id: cx.mesh_id().clone(),
        seq,
        id,
        sender_member_id: sender.member.clone(),
        sender_key: sender.key(),
        sender_member_key: sender.member_key,
        sender_name: sender.name.clone(),
        target_spec: match send.target_spec {
            TargetField::One(text) => text.into(),
            TargetField::Many(parts) => serde_json::to_string(&parts).unwrap_or_default().into(),
        },
        priority: send.priority,
        nonce: send.nonce,
        ciphertext: send.ciphertext,
        created_at_ms: now,
        expires_at_ms: now.saturating_add(ttl),
        client_message_id: send.client_message_id.map(Into::into),
        request_fingerprint: send.request_fingerprint.map(Into::into),
        reply_to_id: send.reply_to_id,
        subtype: send.subtype,
        topic_name: topic.as_ref().map(|(_, name)| name.clone()),
        topic_id: topic.map(|(id, _)| id),
        body_version: send.body_version.unwrap_or(1),
        trace_id: send.trace.as_ref().map(|trace| trace.id.clone()),
        trace_hop: send.trace.map_or(0, |trace| trace.hop),
    }
}

/// The frame that recipients get; encoded once, shared by all.
pub(super) fn push_frame(roster: &Roster, message: &NewMessage) -> ByteString {
    let (sender, member, created_at) =
        (message.sender_key.hex(), message.sender_member_key.hex(), iso(message.created_at_ms));
    // Of a message that no member wrote, what stands for the member is the sender.
    let by_member = message.sender_key != NO_KEY;
    let author = roster.member(&message.sender_member_id).filter(|_| by_member);
    // Under a member's key there may be many shells, each in another place.
    let of_session = by_member && message.sender_key != message.sender_member_key;
    let place = roster.known.get(&message.sender_key).filter(|known| of_session && known.visible);
    let push = Push {
        message_id: message.id.as_str(),
        mesh_id: message.mesh_id.as_str(),
        sender_pubkey: if by_member { sender.as_str() } else { message.sender_member_id.as_str() },
        sender_member_pubkey: by_member.then_some(member.as_str()),
        sender_member_id: by_member.then(|| message.sender_member_id.clone()),
        sender_name: Some(&message.sender_name),
        sender_member_name: author.map(|member| member.display_name.as_str()),
        sender_hostname: place.and_then(|known| known.hostname.as_deref()),
        sender_cwd: place.map(|known| known.cwd.as_str()).filter(|cwd| !cwd.is_empty()),
        target_spec: Some(&message.target_spec),
        topic: message.topic_name.as_deref(),
        reply_to_id: message.reply_to_id.as_deref(),
        priority: message.priority,
        nonce: &message.nonce,
        ciphertext: &message.ciphertext,
        created_at: &created_at,
        client_message_id: message.client_message_id.as_deref(),
        request_fingerprint: message.request_fingerprint.as_deref(),
        subtype: message.subtype.as_deref(),
        trace: message.trace_id.clone().map(|id| Trace { id, hop: message.trace_hop }),
        event: None,
        event_data: None,
    };
    push.write(PUSH_BYTES + message.ciphertext.len() + message.target_spec.len()).into()
}

/// Pushes a message to those who are here, and hands it to the journal.
pub(super) fn admit(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    message: NewMessage,
    routed: SmallVec<[Routed; 1]>,
    reply: Option<ReplyTo>,
) {
    let (seq, priority, id) = (message.seq, message.priority, message.id.clone());
    METRICS.routed.of(priority).inc();
    let frame = push_frame(cx.roster(), &message);
    let now = cx.now_ms();
    if message.sender_key != NO_KEY {
        memory.sent.count(&message.sender_member_id, || (cx.mono_ms(), now));
    }
    let mut recipients = SmallVec::with_capacity(routed.len());
    let mut remaining = 0;
    let durable = message.topic_id.is_some();
    let mut urgent = durable;
    for (slot, routed) in routed.into_iter().enumerate() {
        let recipient = routed.recipient;
        memory.count_waiting(&recipient, priority);
        let owed = Owed { key: recipient.key, copy: recipient.copy };
        let mut on_its_way = false;
        for at in &routed.peers {
            let pushed = offer(cx, *at, &message, &frame, Some(slot), owed);
            // Of a client that never acknowledges, nothing tells in time that it has the message.
            on_its_way |= pushed && cx.roster().get(*at).is_some_and(|peer| peer.acks);
        }
        urgent |= !on_its_way;
        remaining += 1;
        recipients.push(recipient);
    }
    let entries = recipients.iter().map(|recipient| entry_of(recipient, now)).collect();
    let receipt = Receipt {
        seq,
        sender: message.sender_member_id.clone(),
        target_spec: message.target_spec.clone(),
        entries,
        stored: false,
    };
    memory.recent.remember(id, message.request_fingerprint.clone(), receipt);
    let bytes = message.ciphertext.len() + message.nonce.len();
    let open = UnsettledMessage {
        message: Arc::new(message),
        recipients,
        remaining,
        frame_bytes: frame.len(),
        reply,
        retries: Vec::new(),
        journaled: Journaled::Pending,
        durable,
    };
    memory.open.insert(seq, open);
    memory.enqueue(seq, bytes, remaining + 1, urgent);
    if remaining == 0 && !durable {
        journaling::settle_received(memory, cx, seq);
        return;
    }
    cx.flush(match memory.pending_rows {
        rows if rows >= MANY_EXPECTED_ROWS => FlushWanted::Now,
        _ if !memory.urgent => FlushWanted::Expected,
        rows if rows >= BATCH_ROWS => FlushWanted::Now,
        _ => FlushWanted::Soon,
    });
}

fn entry_of(recipient: &Recipient, now: i64) -> Entry {
    Entry {
        key: recipient.key,
        member: recipient.member.clone(),
        stage: if recipient.received { Stage::Received } else { Stage::Stored },
        at_ms: now,
        route: None,
    }
}

/// Pushes a message to a peer if its status, window and backlog allow it; else leaves it to storage, and says `false`.
pub(super) fn offer(
    cx: &mut MeshContext<'_>,
    at: PeerHandle,
    message: &NewMessage,
    frame: &ByteString,
    slot: Option<usize>,
    owed: Owed,
) -> bool {
    let Some(mut peer) = cx.sending(at) else { return false };
    let priority = message.priority;
    let free = passes(peer.status, priority, peer.pulls)
        && !peer.outbox.cursor(priority).backlog()
        && peer.outbox.has_room(frame.len(), peer.acks);
    let pushed = free && hand_over(&mut peer, message, frame, slot, AllOwed::from_buf([owed]));
    if !pushed {
        peer.outbox.left_to_storage(priority, message.seq);
    }
    pushed
}

/// Hands a frame to a peer's socket and notes it in the window; `false` when the socket takes no more.
pub(super) fn hand_over(
    peer: &mut Sending<'_>,
    message: &NewMessage,
    frame: &ByteString,
    slot: Option<usize>,
    owed: AllOwed,
) -> bool {
    let Some(socket) = &peer.socket else { return false };
    let Some(mark) = socket.push_marked(frame.clone()) else { return false };
    METRICS.pushed.inc();
    let entry = InFlight {
        seq: message.seq,
        priority: message.priority,
        bytes: frame.len(),
        slot,
        client_message_id: message.client_message_id.clone(),
        owed,
        mark,
        left_mono_ms: None,
    };
    peer.outbox.pushed(message.id.clone(), entry);
    true
}

/// The ack of an accepted message: where it stands and how its recipients are.
fn ack_frame(
    memory: &MessagingMemory,
    roster: &Roster,
    open: &UnsettledMessage,
    reply: &ReplyTo,
    duplicate: bool,
) -> ByteString {
    let mut online = 0;
    for recipient in &open.recipients {
        if is_online(roster, recipient) {
            online += 1;
        }
    }
    let waiting = open.recipients.iter().filter(|recipient| !recipient.received).count();
    let recipients =
        open.recipients.iter().take(MAX_ACK_RECIPIENTS).map(|one| recipient_state(memory, roster, one)).collect();
    let ack = Ack {
        id: Cow::Borrowed(reply.id.as_deref().unwrap_or_default()),
        message_id: Cow::Borrowed(open.message.id.as_str()),
        queued: true,
        duplicate,
        stage: Some(if open.remaining == 0 && !open.recipients.is_empty() { Stage::Received } else { Stage::Stored }),
        online: Some(online),
        waiting: u32::try_from(waiting).ok(),
        recipients,
        ..Ack::default()
    };
    ack.write(ACK_BYTES, reply.req_id.as_deref()).into()
}

/// Gives its ack to everyone who sent a message: the first attempt, and the retries that came before it.
pub(super) fn answer_all(memory: &MessagingMemory, cx: &mut MeshContext<'_>, open: &UnsettledMessage, first: &ReplyTo) {
    for (number, reply) in std::iter::once(first).chain(&open.retries).enumerate() {
        let frame = ack_frame(memory, cx.roster(), open, reply, number > 0);
        cx.reply_text(reply, frame);
    }
}

fn is_online(roster: &Roster, recipient: &Recipient) -> bool {
    roster.with_key(&recipient.key).iter().any(|at| roster.get(*at).is_some_and(crate::mesh::peers::Peer::online))
}

fn recipient_state<'a>(
    memory: &MessagingMemory,
    roster: &'a Roster,
    recipient: &Recipient,
) -> RecipientState<Cow<'a, str>> {
    let peers = roster.with_key(&recipient.key);
    let peer = peers.iter().filter_map(|at| roster.get(*at)).max_by_key(|peer| (peer.online(), peer.connected_at_ms));
    let online = peer.is_some_and(crate::mesh::peers::Peer::online);
    let member = roster.member(&recipient.member);
    let known = roster.known.get(&recipient.key);
    let name = peer
        .map(|peer| &peer.name)
        .or_else(|| known.map(|known| &known.name))
        .or_else(|| member.map(|member| &member.display_name));
    let last_seen = peer
        .map(|peer| peer.last_seen_ms)
        .or_else(|| known.map(|known| known.last_seen_ms))
        .or_else(|| member.and_then(|member| member.last_seen_at_ms));
    RecipientState {
        name: name.map(|name| Cow::Borrowed(name.as_str())).unwrap_or_default(),
        member_name: member.map(|member| Cow::Borrowed(member.display_name.as_str())),
        pubkey: recipient.key,
        online,
        status: peer.filter(|_| online).map(|peer| peer.status),
        last_seen_at: last_seen.filter(|_| !online).map(|at| iso(at).into()),
        waiting: memory.waiting.get(&recipient.key).map_or(0, |counts| counts.iter().sum()),
        // Not even in its lease: only who comes back with its key gets it.
        ended: recipient.kind == RecipientKind::Session && peers.is_empty(),
    }
}

fn lowest_stage(receipt: &Receipt) -> Stage {
    receipt.entries.iter().map(|entry| entry.stage).min().unwrap_or(Stage::Stored)
}
