//! Followers: connections and HTTP streams that are told the messages of a topic as they are stored, in the order of the mesh, each
//! once. Nothing waits for them: one that does not keep up is ended, and may come back with the message that it saw last.

use std::collections::HashMap;
use std::sync::Arc;

use bytestring::ByteString;
use claudemesh_protocol::features::topics::limits::MAX_RECOVERED;
use claudemesh_protocol::features::topics::{TopicFollow, TopicFollowing, TopicMessage, TopicPosted};
use claudemesh_protocol::id::{MemberId, TopicId};
use claudemesh_protocol::message::ServerMessage;
use tokio::sync::mpsc;

use super::limits::{FOLLOWERS_PER_MEMBER, FOLLOWERS_PER_MESH};
use super::reading::{decorated, kept, message, shown};
use super::store::Decorations;
use super::{Topics, TopicsMemory, named};
use crate::db::MeshDb;
use crate::features::messaging::store::types::StoredMessage;
use crate::features::messaging::store::{self as messages, TopicPart};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::Outcome;
use crate::mesh::peers::{PeerHandle, allows};
use crate::refusal::Refusal;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::members::Grant;

/// Messages that may wait for an HTTP stream before it counts as one that does not keep up.
pub(super) const WAITING: usize = 256;

/// A stored message, made once for all who follow.
#[derive(Debug)]
pub(super) struct Posted {
    /// Place in the order of the mesh.
    pub(super) seq: i64,
    /// Id of the message.
    pub(super) id: String,
    /// The message as a history has it.
    pub(super) json: String,
}

/// Where the messages go.
enum Sink {
    Socket { at: PeerHandle, socket_no: u64 },
    Stream { queue: mpsc::Sender<Arc<Posted>>, key: Option<String> },
}

struct Follower {
    member: MemberId,
    sink: Sink,
}

/// Who follows which topic.
#[derive(Default)]
pub(super) struct Followers(HashMap<TopicId, Vec<Follower>>);

/// A message that was stored as followers get it.
fn posted(row: &StoredMessage) -> TopicMessage {
    shown(row.clone(), &Decorations::default())
}

impl Followers {
    fn check(&mut self, cx: &MeshContext<'_>, member: &MemberId) -> Result<(), Refusal> {
        self.forget_gone(cx);
        let all = || self.0.values().flatten();
        cx.within(&FOLLOWERS_PER_MESH, all().count(), 1)?;
        cx.within(&FOLLOWERS_PER_MEMBER, all().filter(|one| one.member == *member).count(), 1)
    }

    fn forget_gone(&mut self, cx: &MeshContext<'_>) {
        let here = |one: &Follower| match &one.sink {
            Sink::Socket { at, socket_no } => cx.roster().get(*at).is_some_and(|peer| peer.socket_no == *socket_no),
            Sink::Stream { queue, .. } => !queue.is_closed(),
        };
        self.0.retain(|_, list| {
            list.retain(here);
            !list.is_empty()
        });
    }

    /// An HTTP stream follows a topic; the receiver ends when it may not, or does not keep up.
    ///
    /// # Errors
    /// `limit`.
    pub(super) fn stream(
        &mut self,
        cx: &MeshContext<'_>,
        member: &MemberId,
        topic: &TopicId,
        key: Option<String>,
    ) -> Result<mpsc::Receiver<Arc<Posted>>, Refusal> {
        self.check(cx, member)?;
        let (queue, messages) = mpsc::channel(WAITING);
        let follower = Follower { member: member.clone(), sink: Sink::Stream { queue, key } };
        self.0.entry(topic.clone()).or_default().push(follower);
        Ok(messages)
    }

    fn socket(&mut self, cx: &MeshContext<'_>, topic: &TopicId) -> Result<(), Refusal> {
        let (at, socket_no, member) = {
            let peer = cx.peer()?;
            (peer.handle, peer.socket_no, peer.member.clone())
        };
        let same = |one: &Follower| matches!(one.sink, Sink::Socket { at: known, .. } if known == at);
        if let Some(list) = self.0.get_mut(topic) {
            list.retain(|one| !same(one));
        }
        self.check(cx, &member)?;
        let follower = Follower { member, sink: Sink::Socket { at, socket_no } };
        self.0.entry(topic.clone()).or_default().push(follower);
        Ok(())
    }

    /// Tells a message to all who follow its topic and still may.
    pub(super) fn tell(&mut self, cx: &mut MeshContext<'_>, row: &StoredMessage) {
        let Some(list) = row.topic_id.as_ref().and_then(|id| self.0.get_mut(id)) else { return };
        let Some(topic) = row.topic_id.as_ref().and_then(|id| cx.topics_mut().get_mut(id)).cloned() else { return };
        let message = posted(row);
        let json = serde_json::to_string(&message).unwrap_or_default();
        let for_streams = Arc::new(Posted { seq: row.seq, id: message.id.clone(), json });
        let event = TopicPosted { topic: topic.name.clone(), topic_id: topic.id.clone(), message };
        let for_sockets = ByteString::from(ServerMessage::from(event).write(None));
        list.retain(|one| {
            let Some(member) = cx.roster().live_member(&one.member).filter(|member| topic.visible_to(&member.id))
            else {
                return false;
            };
            // Who takes nothing from a sender takes it in no other way either; its own words come back to it.
            let own = member.id == row.sender_member_id;
            if !own && !allows(member, &row.sender_member_key, &row.sender_key, Grant::Broadcast) {
                return true;
            }
            match &one.sink {
                Sink::Stream { queue, .. } => queue.try_send(Arc::clone(&for_streams)).is_ok(),
                Sink::Socket { at, socket_no } => {
                    let here = cx.roster().get(*at).is_some_and(|peer| peer.socket_no == *socket_no);
                    here && cx.tell_one(*at, for_sockets.clone())
                }
            }
        });
    }

    /// Whether an HTTP stream is open.
    pub(super) fn has_streams(&self) -> bool {
        let open = |one: &Follower| matches!(&one.sink, Sink::Stream { queue, .. } if !queue.is_closed());
        self.0.values().flatten().any(open)
    }

    /// Ends the streams of a key.
    pub(super) fn end_key(&mut self, id: &str) {
        let of_key = |one: &Follower| matches!(&one.sink, Sink::Stream { key: Some(key), .. } if key == id);
        self.0.values_mut().for_each(|list| list.retain(|one| !of_key(one)));
    }

    /// Ends what a member follows.
    pub(super) fn end_member(&mut self, member: &MemberId) {
        self.0.values_mut().for_each(|list| list.retain(|one| one.member != *member));
    }

    /// Ends what a connection follows.
    pub(super) fn end_socket(&mut self, gone: PeerHandle) {
        let same = |one: &Follower| matches!(one.sink, Sink::Socket { at, .. } if at == gone);
        self.0.values_mut().for_each(|list| list.retain(|one| !same(one)));
    }
}

/// What came after a message that a follower saw last, oldest first; `None` when that is unknown, or too much.
///
/// # Errors
/// Storage.
pub(super) async fn missed(db: &MeshDb, part: &TopicPart, after: &str) -> Result<Option<Vec<StoredMessage>>, Refusal> {
    let last = match message(db, part, "afterId", after).await {
        Ok(last) => last,
        Err(refusal) if refusal.code == ErrorCode::NotFound => return Ok(None),
        Err(refusal) => return Err(refusal),
    };
    let limit = MAX_RECOVERED + 1;
    let rows = messages::topic_after(db, &TopicPart { after_seq: last.seq, limit, ..part.clone() }).await?;
    Ok(Some(rows).filter(|rows| rows.len() <= MAX_RECOVERED as usize))
}

pub(super) fn follow(
    memory: &mut TopicsMemory,
    cx: &mut MeshContext<'_>,
    request: TopicFollow,
) -> Result<Outcome<TopicFollowing>, Refusal> {
    let (_, topic_id) = named(cx, &request.topic)?;
    let part = kept(cx, &request.topic, 1)?;
    // From now on: what is stored while the answer is read comes twice rather than never, and the client knows it by its id.
    memory.followers.socket(cx, &topic_id)?;
    let (storage, lane) = (cx.storage(), cx.own_lane::<Topics>());
    let slow = async move {
        let rows = match &request.after_id {
            Some(id) => missed(&storage, &part, id).await?,
            None => Some(vec![]),
        };
        let recovered = rows.is_some();
        let messages = decorated(&storage, rows.unwrap_or_default()).await?;
        Ok::<_, Refusal>(TopicFollowing { topic: request.topic, topic_id, recovered, messages })
    };
    Ok(Topics::work_in(lane, slow, |_, _, answer| Ok(Outcome::Answer(answer))))
}
