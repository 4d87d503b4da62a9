//! Topics: channels with history. Membership is kept in the mesh's topic book; writing goes through `send #topic`.

mod follow;
pub mod http;
mod limits;
mod managing;
mod members;
mod mentions;
mod posts;
mod reading;
pub mod schema;
pub mod store;
mod streaming;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::features::topics::{
    NotificationList, NotificationRead, Request, TopicCreate, TopicDeleteMessage, TopicEdit, TopicFollow, TopicHistory,
    TopicJoin, TopicLeave, TopicList, TopicMarkRead, TopicMembers, TopicPin, TopicReact, TopicRemoveMember,
    TopicSearch, TopicSetMember, TopicUpdate,
};
use claudemesh_protocol::id::{MemberId, TopicId};

use crate::db::{Db, DbError, MeshDb};
use crate::journal::Batch;
use crate::mesh::context::{FlushWanted, MeshContext};
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::Outcome;
use crate::mesh::topics::TopicState;
use crate::quota::Quota;
use crate::refusal::Refusal;
use follow::Followers;
use limits::{
    CHANGES_PER_MINUTE, FOLLOWERS_PER_MEMBER, FOLLOWERS_PER_MESH, MADE_PER_MINUTE, PER_MEMBER, PER_MESH,
    REACTIONS_PER_MESSAGE, SEARCHES_PER_MINUTE,
};
use mentions::Mentions;

/// What topics remember beside the mesh's book of them.
#[derive(Default)]
pub struct TopicsMemory {
    /// Topics as storage has them, until they are in the mesh's book.
    loaded: Vec<TopicState>,
    mentions: Mentions,
    followers: Followers,
}

/// The feature.
pub struct Topics;

impl Feature for Topics {
    const NAME: &'static str = "topics";
    const QUOTAS: &'static [&'static Quota] = &[
        &PER_MESH,
        &PER_MEMBER,
        &MADE_PER_MINUTE,
        &CHANGES_PER_MINUTE,
        &SEARCHES_PER_MINUTE,
        &REACTIONS_PER_MESSAGE,
        &FOLLOWERS_PER_MESH,
        &FOLLOWERS_PER_MEMBER,
    ];
    type Request = Request;
    type Memory = TopicsMemory;

    async fn load(storage: &MeshDb) -> Result<TopicsMemory, DbError> {
        let topics = store::load_all(storage).await?;
        let mut members: HashMap<TopicId, Vec<store::Subscription>> = HashMap::new();
        for subscription in store::load_subscriptions(storage).await? {
            members.entry(subscription.topic_id.clone()).or_default().push(subscription);
        }
        let state = |topic: store::Topic| {
            let own = members.remove(&topic.id).unwrap_or_default();
            managing::state_of(topic, own)
        };
        Ok(TopicsMemory { loaded: topics.into_iter().map(state).collect(), ..TopicsMemory::default() })
    }

    fn started(memory: &mut TopicsMemory, cx: &mut MeshContext<'_>) {
        for topic in std::mem::take(&mut memory.loaded) {
            cx.topics_mut().put(topic);
        }
    }

    fn handle(memory: &mut TopicsMemory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::TopicCreate(request) => Self::answer::<TopicCreate>(managing::create(cx, request)),
            Request::TopicUpdate(request) => Self::answer::<TopicUpdate>(managing::update(cx, request)),
            Request::TopicList(_) => Self::answer::<TopicList>(managing::list(cx)),
            Request::TopicJoin(request) => Self::answer::<TopicJoin>(members::join(cx, request)),
            Request::TopicLeave(request) => Self::answer::<TopicLeave>(members::leave(cx, &request)),
            Request::TopicMembers(request) => Self::answer::<TopicMembers>(members::list(cx, request)),
            Request::TopicSetMember(request) => Self::answer::<TopicSetMember>(members::set(cx, request)),
            Request::TopicRemoveMember(request) => Self::answer::<TopicRemoveMember>(members::remove(cx, request)),
            Request::TopicHistory(request) => Self::answer::<TopicHistory>(reading::history(cx, request)),
            Request::TopicSearch(request) => Self::answer::<TopicSearch>(reading::search(cx, &request)),
            Request::TopicMarkRead(request) => Self::answer::<TopicMarkRead>(reading::mark_read(cx, &request)),
            Request::TopicEdit(request) => Self::answer::<TopicEdit>(posts::edit(cx, request)),
            Request::TopicDeleteMessage(request) => Self::answer::<TopicDeleteMessage>(posts::delete(cx, &request)),
            Request::TopicReact(request) => Self::answer::<TopicReact>(posts::react(cx, request)),
            Request::TopicPin(request) => Self::answer::<TopicPin>(posts::pin(cx, &request)),
            Request::TopicFollow(request) => Self::answer::<TopicFollow>(follow::follow(memory, cx, request)),
            Request::NotificationList(request) => Self::answer::<NotificationList>(mentions::list(cx, request)),
            Request::NotificationRead(request) => Self::answer::<NotificationRead>(mentions::read(cx, request)),
        }
    }

    fn on_event(memory: &mut TopicsMemory, cx: &mut MeshContext<'_>, event: &MeshEvent) {
        match event {
            MeshEvent::TopicPosted { message, mentions } => memory.mentions.note(cx, message, mentions),
            MeshEvent::TopicStored { message } => memory.followers.tell(cx, message),
            MeshEvent::KeyEnded { id } => memory.followers.end_key(id),
            MeshEvent::MemberGone { member } => memory.followers.end_member(member),
            MeshEvent::Detached { peer } | MeshEvent::Ended { peer, .. } => memory.followers.end_socket(*peer),
            MeshEvent::Attached { .. }
            | MeshEvent::BecameIdle { .. }
            | MeshEvent::Answered { .. }
            | MeshEvent::Letter(_)
            | MeshEvent::SimulatedTime { .. }
            | MeshEvent::Stopping
            | MeshEvent::Host(_)
            | MeshEvent::Tick => {}
        }
    }

    fn collect(memory: &mut TopicsMemory, _: &mut MeshContext<'_>, _: FlushWanted, batch: &mut Batch) {
        memory.mentions.collect(batch);
    }

    fn committed(memory: &mut TopicsMemory, cx: &mut MeshContext<'_>, result: &Result<(), Refusal>) {
        memory.mentions.committed(cx, result.is_ok());
    }

    fn is_settled(memory: &TopicsMemory, _: &MeshContext<'_>) -> bool {
        memory.mentions.is_settled()
    }

    fn keeps_awake(memory: &TopicsMemory) -> bool {
        memory.followers.has_streams()
    }

    fn describe(_: &TopicsMemory, cx: &MeshContext<'_>, info: &mut MeshInfoResult) {
        if let Ok(own) = cx.asker() {
            let seen = cx.topics().iter().filter(|topic| topic.visible_to(&own.member));
            info.topics = seen.map(|topic| topic.name.clone()).collect();
            let quotas = &cx.limits().quotas;
            info.limits.push(quotas.bound(&PER_MESH, cx.topics().iter().count() as u64));
            info.limits.push(quotas.bound(&PER_MEMBER, managing::made_by(cx, &own.member) as u64));
        }
    }

    async fn upkeep(db: &Db, _: i64) -> Result<usize, DbError> {
        store::clean(db).await
    }
}

/// The caller's member, and the topic that it named.
fn named(cx: &MeshContext<'_>, topic: &str) -> Result<(MemberId, TopicId), Refusal> {
    Ok((cx.asker()?.member.clone(), cx.topic(topic)?.id.clone()))
}
