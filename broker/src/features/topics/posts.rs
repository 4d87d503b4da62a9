//! Edits, deletions, reactions and pins, told to every subscriber that is connected.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::members::Grant;
use claudemesh_protocol::features::topics::limits::MAX_EMOJI_CHARS;
use claudemesh_protocol::features::topics::{
    MessageChange, TopicDeleteMessage, TopicEdit, TopicMessage, TopicMessageChanged, TopicMessageResult, TopicPin,
    TopicReact,
};
use claudemesh_protocol::id::{MemberId, TopicId};
use claudemesh_protocol::limits;
use claudemesh_protocol::message::ServerMessage;

use super::limits::CHANGES_PER_MINUTE;
use super::managing::leads;
use super::reading::{decorated, kept, message};
use super::store::{self, Act, Change, Refused};
use super::{Topics, named};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::Outcome;
use crate::mesh::peers::{Peer, PeerHandle, allows};
use crate::mesh::topics::TopicRole;
use crate::refusal::{Refusal, invalid};

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotFound => Self::new(ErrorCode::NotFound, "no such message in this topic"),
            Refused::NotAuthor => {
                Self::new(ErrorCode::Forbidden, "its author may edit a message, its author or a lead delete it")
            }
            Refused::Deleted => Self::new(ErrorCode::Invalid, "this message was deleted"),
            Refused::Emoji => Self::new(ErrorCode::Limit, "a message shows at most 20 different reactions"),
            Refused::Limit(bound) => bound.into(),
        }
    }
}

pub(super) fn edit(cx: &mut MeshContext<'_>, request: TopicEdit) -> Result<Outcome<TopicMessageResult>, Refusal> {
    if request.ciphertext.is_empty() {
        return Err(invalid("`ciphertext`: expected a body; topic_delete_message takes it away"));
    }
    if request.ciphertext.len() + request.nonce.len() > limits::MAX_MESSAGE_CHARS {
        let message = format!("payload too large: at most {} characters", limits::MAX_MESSAGE_CHARS);
        return Err(Refusal::new(ErrorCode::PayloadTooLarge, message));
    }
    let body_version = request.body_version.unwrap_or(1);
    let act = Act::Edit { nonce: request.nonce, ciphertext: request.ciphertext, body_version };
    change(cx, &request.topic, request.message_id, act, MessageChange::Edited)
}

pub(super) fn delete(
    cx: &mut MeshContext<'_>,
    request: &TopicDeleteMessage,
) -> Result<Outcome<TopicMessageResult>, Refusal> {
    change(cx, &request.topic, request.message_id.clone(), Act::Delete, MessageChange::Deleted)
}

pub(super) fn react(cx: &mut MeshContext<'_>, request: TopicReact) -> Result<Outcome<TopicMessageResult>, Refusal> {
    let (emoji, remove) = (request.emoji, request.remove);
    let fine = emoji.chars().all(|symbol| !symbol.is_control() && !symbol.is_whitespace());
    if emoji.is_empty() || !fine || emoji.chars().count() > MAX_EMOJI_CHARS {
        return Err(invalid("`emoji`: expected 1 to 16 characters without spaces"));
    }
    change(cx, &request.topic, request.message_id, Act::React { emoji, remove }, MessageChange::Reacted)
}

pub(super) fn pin(cx: &mut MeshContext<'_>, request: &TopicPin) -> Result<Outcome<TopicMessageResult>, Refusal> {
    super::managing::led(cx, &request.topic)?;
    let what = if request.remove { MessageChange::Unpinned } else { MessageChange::Pinned };
    change(cx, &request.topic, request.message_id.clone(), Act::Pin { remove: request.remove }, what)
}

fn change(
    cx: &mut MeshContext<'_>,
    topic: &str,
    id: String,
    act: Act,
    what: MessageChange,
) -> Result<Outcome<TopicMessageResult>, Refusal> {
    if id.is_empty() || id.len() > limits::MAX_ID_CHARS {
        return Err(invalid("`messageId`: expected 1 to 128 characters"));
    }
    let (member, topic_id) = named(cx, topic)?;
    let part = kept(cx, topic, 1)?;
    let found = cx.topic(topic)?;
    let leads = leads(cx, found)?;
    // What it wrote before it became an observer, it may take back.
    if found.role(&member) == TopicRole::Observer && !matches!(act, Act::Delete) {
        return Err(Refusal::new(ErrorCode::Forbidden, "observers of a topic read it and do not write there"));
    }
    cx.count_write(&CHANGES_PER_MINUTE, Some(&member))?;
    let (storage, now_ms, quotas) = (cx.storage(), cx.now_ms(), cx.limits().quotas.clone());
    let (lane, by) = (topic_id.clone(), Actor::of(cx.asker()?));
    let slow = async move {
        let row = message(&storage, &part, "messageId", &id).await?;
        let asked = Change { topic: topic_id.clone(), seq: row.seq, act, member, leads, now_ms, quotas };
        let changed = store::change(&storage, asked).await?;
        let row = message(&storage, &part, "messageId", row.id.as_str()).await?;
        let shown = decorated(&storage, vec![row]).await?.pop();
        let shown = shown.ok_or_else(|| Refusal::from(Refused::NotFound))?;
        Ok::<_, Refusal>((topic_id, changed, shown))
    };
    Ok(Topics::work(lane, slow, move |_, cx, (topic, changed, message)| {
        if changed {
            tell(cx, &topic, what, &by, &message);
        }
        Ok(Outcome::Answer(TopicMessageResult { message }))
    }))
}

/// Who changed a message, as grants know it.
struct Actor {
    at: PeerHandle,
    member: MemberId,
    member_key: claudemesh_protocol::id::PublicKey,
    key: claudemesh_protocol::id::PublicKey,
}

impl Actor {
    fn of(peer: &Peer) -> Self {
        Self { at: peer.handle, member: peer.member.clone(), member_key: peer.member_key, key: peer.key() }
    }
}

/// Tells the subscribers that are connected, except who did it and who takes nothing from it. What has no room is left out: the
/// history has it.
fn tell(cx: &mut MeshContext<'_>, topic: &TopicId, change: MessageChange, by: &Actor, message: &TopicMessage) {
    let Some(found) = cx.topics_mut().get_mut(topic).map(|found| found.clone()) else { return };
    let event = TopicMessageChanged {
        topic: found.name.clone(),
        topic_id: topic.clone(),
        change,
        by: by.member.clone(),
        message: message.clone(),
    };
    let frame = bytestring::ByteString::from(ServerMessage::from(event).write(None));
    let takes = |peer: &Peer| {
        let member = cx.roster().member(&peer.member);
        peer.online()
            && !peer.older
            && peer.handle != by.at
            && member.is_some_and(|member| allows(member, &by.member_key, &by.key, Grant::Broadcast))
    };
    let readers = found.subscribers.iter().flat_map(|member| cx.roster().of_member(member).iter().copied());
    let readers: Vec<PeerHandle> = readers.filter(|at| cx.roster().get(*at).is_some_and(takes)).collect();
    for at in readers {
        cx.tell_one(at, frame.clone());
    }
}
