//! Topics: channels with history. Membership is kept in the mesh's topic book; writing goes through `send #topic`.

pub mod schema;
pub mod store;

use std::collections::HashMap;

use claudemesh_protocol::call::Nothing;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::features::topics::{
    Request, TopicCreate, TopicCreated, TopicEntry, TopicHistory, TopicHistoryResponse, TopicJoin, TopicLeave,
    TopicList, TopicListResponse, TopicMarkRead, TopicMember, TopicMembers, TopicMembersResponse, TopicMessage,
    TopicRef,
};
use claudemesh_protocol::id::{MemberId, TopicId};
use claudemesh_protocol::limits;
use claudemesh_protocol::time::iso;

use crate::db::DbError;
use crate::db::MeshDb;
use crate::features::messaging::store::types::StoredMessage;
// Messages of topics are messages: their history is read where they are kept.
use crate::features::messaging::store as messages;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::{Lane, Outcome};
use crate::mesh::topics::{TopicState, readable};
use crate::quota::Quota;
use crate::refusal::Refusal;

/// The whole list is one answer.
const PER_MESH: Quota = Quota::new("topics.per_mesh", 1_000, "Topics of a mesh.");
/// No one can take topics away again, so no one is to use up the mesh's.
const PER_MEMBER: Quota = Quota::new("topics.per_member", 500, "Topics of a mesh that one member has made.");
/// A person makes one now and then; a script that makes them in a loop does it by mistake.
const MADE_PER_MINUTE: Quota = Quota::new("topics.made_per_minute", 60, "Topics that one member makes in a minute.");
/// History messages of one answer.
const HISTORY: std::ops::RangeInclusive<u32> = 1..=200;
const HISTORY_DEFAULT: u32 = 50;

/// Topics as storage has them, until they are in the mesh's book.
#[derive(Default)]
pub struct TopicsMemory {
    loaded: Vec<TopicState>,
}

/// The feature.
pub struct Topics;

impl Feature for Topics {
    const NAME: &'static str = "topics";
    const QUOTAS: &'static [&'static Quota] = &[&PER_MESH, &PER_MEMBER, &MADE_PER_MINUTE];
    type Request = Request;
    type Memory = TopicsMemory;

    async fn load(storage: &MeshDb) -> Result<TopicsMemory, DbError> {
        let topics = store::load_all(storage).await?;
        let mut subscribers: HashMap<TopicId, Vec<MemberId>> = HashMap::new();
        for subscription in store::load_subscriptions(storage).await? {
            subscribers.entry(subscription.topic_id).or_default().push(subscription.member_id);
        }
        let state = |topic: store::Topic| TopicState {
            subscribers: subscribers.remove(&topic.id).unwrap_or_default(),
            id: topic.id,
            name: topic.name,
            description: topic.description,
            visibility: topic.visibility,
            created_by: topic.created_by,
            created_at_ms: topic.created_at_ms,
        };
        Ok(TopicsMemory { loaded: topics.into_iter().map(state).collect() })
    }

    fn started(memory: &mut TopicsMemory, cx: &mut MeshContext<'_>) {
        for topic in std::mem::take(&mut memory.loaded) {
            cx.topics_mut().put(topic);
        }
    }

    fn handle(_: &mut TopicsMemory, cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::TopicCreate(request) => Self::answer::<TopicCreate>(create(cx, request)),
            Request::TopicList(_) => Self::answer::<TopicList>(list(cx)),
            Request::TopicJoin(request) => Self::answer::<TopicJoin>(join(cx, request)),
            Request::TopicLeave(request) => Self::answer::<TopicLeave>(leave(cx, &request)),
            Request::TopicMembers(request) => Self::answer::<TopicMembers>(members(cx, request)),
            Request::TopicHistory(request) => Self::answer::<TopicHistory>(history(cx, request)),
            Request::TopicMarkRead(request) => Self::answer::<TopicMarkRead>(mark_read(cx, &request)),
        }
    }

    fn describe(_: &TopicsMemory, cx: &MeshContext<'_>, info: &mut MeshInfoResult) {
        if let Ok(own) = cx.asker() {
            let seen = cx.topics().iter().filter(|topic| topic.visible_to(&own.member));
            info.topics = seen.map(|topic| topic.name.clone()).collect();
            let quotas = &cx.limits().quotas;
            info.limits.push(quotas.bound(&PER_MESH, cx.topics().iter().count() as u64));
            info.limits.push(quotas.bound(&PER_MEMBER, made_by(cx, &own.member) as u64));
        }
    }
}

/// The caller's member, and the topic that it named.
fn named(cx: &MeshContext<'_>, topic: &str) -> Result<(MemberId, TopicId), Refusal> {
    let own = cx.asker()?.member.clone();
    let topic = readable(cx.topics(), &own, topic)?.id.clone();
    Ok((own, topic))
}

/// How many topics a member has made.
fn made_by(cx: &MeshContext<'_>, member: &MemberId) -> usize {
    cx.topics().iter().filter(|topic| topic.created_by == *member).count()
}

fn list(cx: &MeshContext<'_>) -> Result<Outcome<TopicListResponse>, Refusal> {
    let own = &cx.asker()?.member;
    let topics = cx.topics().iter().filter(|topic| topic.visible_to(own)).map(entry).collect();
    Ok(Outcome::Answer(TopicListResponse { topics }))
}

fn join(cx: &MeshContext<'_>, request: TopicJoin) -> Result<Outcome<Nothing>, Refusal> {
    let role = request.role;
    if role.as_ref().is_some_and(|role| role.is_empty() || role.chars().count() > limits::MAX_NAME_CHARS) {
        return Err(Refusal::new(ErrorCode::InvalidArgs, "`role`: expected 1 to 64 characters"));
    }
    let (own, topic) = named(cx, &request.topic)?;
    let (storage, now, lane) = (cx.storage(), cx.now_ms(), topic.clone());
    let slow = async move {
        let read_up_to = messages::max_seq(&storage).await?;
        store::join(&storage, &topic, &own, role.as_deref(), read_up_to, now).await?;
        Ok::<_, DbError>((topic, own))
    };
    Ok(Topics::work(lane, slow, |_, cx, (topic, own)| {
        if let Some(topic) = cx.topics_mut().get_mut(&topic)
            && !topic.subscribers.contains(&own)
        {
            topic.subscribers.push(own);
        }
        Ok(Outcome::Answer(Nothing {}))
    }))
}

fn leave(cx: &MeshContext<'_>, request: &TopicLeave) -> Result<Outcome<Nothing>, Refusal> {
    let (own, topic) = named(cx, &request.topic)?;
    let (storage, lane) = (cx.storage(), topic.clone());
    let slow = async move {
        store::leave(&storage, &topic, &own).await?;
        Ok::<_, DbError>((topic, own))
    };
    Ok(Topics::work(lane, slow, |_, cx, (topic, own)| {
        if let Some(topic) = cx.topics_mut().get_mut(&topic) {
            topic.subscribers.retain(|member| *member != own);
        }
        Ok(Outcome::Answer(Nothing {}))
    }))
}

fn members(cx: &MeshContext<'_>, request: TopicMembers) -> Result<Outcome<TopicMembersResponse>, Refusal> {
    let (_, topic) = named(cx, &request.topic)?;
    let (storage, lane) = (cx.storage(), topic.clone());
    let slow = async move { store::members(&storage, &topic).await };
    Ok(Topics::work(lane, slow, |_, cx, rows| {
        let member = |row: store::Subscription| {
            let member = cx.roster().member(&row.member_id)?;
            Some(TopicMember {
                pubkey: member.pubkey.to_hex(),
                display_name: member.display_name.clone(),
                member_id: row.member_id,
                role: row.role,
                joined_at: iso(row.joined_at_ms),
                last_read_at: row.last_read_at_ms.map(iso),
            })
        };
        let members = rows.into_iter().filter_map(member).collect();
        Ok(Outcome::Answer(TopicMembersResponse { topic: request.topic, members }))
    }))
}

fn mark_read(cx: &MeshContext<'_>, request: &TopicMarkRead) -> Result<Outcome<Nothing>, Refusal> {
    let (own, topic) = named(cx, &request.topic)?;
    let (storage, now, lane) = (cx.storage(), cx.now_ms(), topic.clone());
    let slow = async move {
        let upto = messages::max_seq(&storage).await?;
        store::mark_read(&storage, &topic, &own, upto, now).await
    };
    Ok(Topics::work(lane, slow, |_, _, _| Ok(Outcome::Answer(Nothing {}))))
}

fn entry(topic: &TopicState) -> TopicEntry {
    TopicEntry {
        id: topic.id.clone(),
        name: topic.name.clone(),
        description: topic.description.clone(),
        visibility: topic.visibility,
        member_count: u32::try_from(topic.subscribers.len()).unwrap_or(u32::MAX),
        created_at: iso(topic.created_at_ms),
    }
}

fn create(cx: &mut MeshContext<'_>, create: TopicCreate) -> Result<Outcome<TopicCreated>, Refusal> {
    let name = create.name.trim().trim_start_matches('#').to_owned();
    let fine = name.chars().all(|symbol| symbol.is_alphanumeric() || "-_./".contains(symbol));
    if name.is_empty() || !fine || name.chars().count() > limits::MAX_GROUP_CHARS {
        let message = "expected a topic name of letters, digits, `-`, `_`, `.` and `/`, at most 64 characters";
        return Err(Refusal::new(ErrorCode::InvalidName, message));
    }
    if create.description.as_ref().is_some_and(|text| text.chars().count() > limits::MAX_TEXT_CHARS) {
        return Err(Refusal::new(ErrorCode::InvalidArgs, "`description`: expected at most 1024 characters"));
    }
    let known = cx.topics().find(&name).map(|topic| topic.id.clone());
    let own = cx.asker()?.member.clone();
    if known.is_none() {
        cx.within(&PER_MESH, cx.topics().iter().count(), 1)?;
        cx.within(&PER_MEMBER, made_by(cx, &own), 1)?;
        cx.count_write(&MADE_PER_MINUTE, Some(&own))?;
    }
    if known.is_some() {
        // The name of a topic that the caller may not see is taken, and that is all it learns.
        readable(cx.topics(), &own, &name).map_err(|_| Refusal::new(ErrorCode::AlreadyExists, "that name is taken"))?;
    }
    let now = cx.now_ms();
    let topic = store::Topic {
        id: known.clone().unwrap_or_else(|| TopicId::random(&mut rand::thread_rng())),
        mesh_id: cx.mesh_id().clone(),
        name,
        description: create.description,
        visibility: create.visibility.unwrap_or_default(),
        created_by: own.clone(),
        created_at_ms: now,
    };
    let state = TopicState {
        id: topic.id.clone(),
        name: topic.name.clone(),
        description: topic.description.clone(),
        visibility: topic.visibility,
        created_by: own.clone(),
        created_at_ms: now,
        subscribers: vec![own],
    };
    if known.is_none() {
        // Known from now on, so that the next frame of the same socket may name it; its lane stores it before that frame's work.
        cx.topics_mut().put(state.clone());
    }
    let (storage, lane) = (cx.storage(), topic.id.clone());
    let id = topic.id.clone();
    let slow = async move { store::create(&storage, &topic).await };
    Ok(Topics::work_or_failure(Lane::of::<Topics>(lane), slow, move |_, cx, stored| {
        let (topic, created) = stored.inspect_err(|_| {
            if known.is_none() {
                cx.topics_mut().remove(&id);
            }
        })?;
        // The one that made it first may have failed after this one had seen it.
        if created && cx.topics_mut().get_mut(&topic.id).is_none() {
            cx.topics_mut().put(state);
        }
        let topic = TopicRef { id: topic.id, name: topic.name, visibility: topic.visibility };
        Ok(Outcome::Answer(TopicCreated { topic, created }))
    }))
}

fn history(cx: &MeshContext<'_>, query: TopicHistory) -> Result<Outcome<TopicHistoryResponse>, Refusal> {
    let (_, topic) = named(cx, &query.topic)?;
    let limit = query.limit.unwrap_or(HISTORY_DEFAULT).clamp(*HISTORY.start(), *HISTORY.end());
    let (storage, lane, before_id) = (cx.storage(), topic.clone(), query.before_id);
    let slow = async move {
        let before = match &before_id {
            Some(id) => {
                let found = messages::message_by_id_prefix(&storage, id, 1).await?;
                let found = found.into_iter().find(|message| message.topic_id.as_ref() == Some(&topic));
                let missing = || Refusal::new(ErrorCode::NotFound, "`beforeId`: no such message in this topic");
                Some(found.ok_or_else(missing)?.seq)
            }
            None => None,
        };
        Ok::<_, Refusal>(messages::topic_history(&storage, &topic, before, limit).await?)
    };
    Ok(Topics::work(lane, slow, |_, _, rows| {
        let message = |row: StoredMessage| TopicMessage {
            id: row.id.to_string(),
            sender_pubkey: row.sender_key.to_hex(),
            sender_member_id: row.sender_member_id,
            sender_name: row.sender_name,
            nonce: row.nonce,
            ciphertext: row.ciphertext,
            body_version: row.body_version,
            reply_to_id: row.reply_to_id,
            created_at: iso(row.created_at_ms),
        };
        let messages = rows.into_iter().map(message).collect();
        Ok(Outcome::Answer(TopicHistoryResponse { topic: query.topic, messages }))
    }))
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::features::topics::Visibility;
    use claudemesh_protocol::message::{Failure, ServerMessage};

    use super::*;
    use crate::mesh::testing::TestMesh;

    #[actix_rt::test]
    async fn one_member_does_not_use_up_the_topics_of_a_mesh() {
        let mut mesh = TestMesh::new().await;
        let (alice, mallory) = (mesh.member("alice", 1).await, mesh.member("mallory", 2).await);
        let (one, _) = mesh.peer(&alice, "alice", Some(11));
        let (other, _) = mesh.peer(&mallory, "mallory", Some(12));
        let mut create = async |at, name: String| {
            let request = TopicCreate { name, description: None, visibility: Some(Visibility::Private) };
            let answer = mesh.ask(at, Request::TopicCreate(request)).await;
            match answer {
                ServerMessage::Failure(Failure::Error(error)) => Err(error.code),
                _ => Ok(()),
            }
        };
        let mut made = 0;
        for number in 0..PER_MEMBER.default + 10 {
            made += usize::from(create(other, format!("t{number}")).await.is_ok());
        }
        assert_eq!(made, 500);
        assert_eq!(create(other, "one-more".into()).await, Err("limit".into()));
        assert_eq!(create(other, "t0".into()).await, Ok(()), "one that exists is no new one");
        assert_eq!(create(one, "plans".into()).await, Ok(()));
        let answer = mesh.ask(other, claudemesh_protocol::features::info::MeshInfo {}).await;
        let info: MeshInfoResult = serde_json::from_str(&answer.write(None)).unwrap();
        let own = info.limits.iter().filter(|bound| bound.name.starts_with("topics."));
        let told: Vec<_> = own.map(|one| (one.name.as_str(), one.limit, one.used)).collect();
        assert_eq!(told, [("topics.per_mesh", 1_000, 501), ("topics.per_member", 500, 500)]);
    }

    #[actix_rt::test]
    async fn a_fault_of_storage_names_an_incident_and_not_its_cause() {
        let mut mesh = TestMesh::new().await;
        let alice = mesh.member("alice", 1).await;
        let (at, _) = mesh.peer(&alice, "alice", Some(11));
        let create = TopicCreate { name: "plans".into(), description: None, visibility: None };
        mesh.ask(at, Request::TopicCreate(create)).await;
        rename(&mesh.core.db).await.unwrap();
        let answer = mesh.ask(at, Request::TopicMembers(TopicMembers { topic: "plans".into() })).await;
        let ServerMessage::Failure(Failure::Error(error)) = answer else { panic!("{answer:?}") };
        assert_eq!((error.code.as_str(), error.id.as_deref()), ("internal", Some("i")));
        let incident = error.message.split("(incident ").nth(1).and_then(|rest| rest.strip_suffix(')'));
        assert!(incident.is_some_and(|text| uuid::Uuid::parse_str(text).is_ok()), "{}", error.message);
        assert!(!error.message.contains("topic_members"), "{}", error.message);
    }

    async fn rename(db: &crate::db::Db) -> Result<(), DbError> {
        let rename = diesel::sql_query("ALTER TABLE topic_members RENAME TO hidden");
        crate::with_conn!(db, |conn| diesel_async::RunQueryDsl::execute(rename, conn).await?);
        Ok(())
    }
}
