//! Topics: channels with history. Membership is kept in the mesh's topic book; writing goes through `send #topic`.

pub mod store;

use claudemesh_protocol::call::{Nothing, ServerBody};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::topics::{
    Request, Response, TopicCreate, TopicCreated, TopicEntry, TopicHistory, TopicHistoryResponse, TopicListResponse,
    TopicMember, TopicMembersResponse, TopicMessage, TopicRef,
};
use claudemesh_protocol::id::TopicId;
use claudemesh_protocol::limits;
use claudemesh_protocol::message::ServerMessage;
use claudemesh_protocol::time::iso;

use crate::journal::store as journal;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::{Feature, Features};
use crate::mesh::outcome::{Lane, Outcome, Reject};
use crate::mesh::topics::{TopicState, readable};

/// Topics per mesh.
const MAX_TOPICS: usize = 1_000;
/// Of them by one member: nobody can take topics away again, so nobody is to use up the mesh's.
const MAX_TOPICS_PER_MEMBER: usize = MAX_TOPICS / 2;
/// History messages of one answer.
const HISTORY: std::ops::RangeInclusive<u32> = 1..=200;
const HISTORY_DEFAULT: u32 = 50;

/// The feature.
pub struct Topics;

impl Feature for Topics {
    const NAME: &'static str = "topics";
    type Request = Request;
    type Memory = ();

    fn memory(features: &mut Features) -> &mut () {
        &mut features.topics
    }

    fn handle((): &mut (), cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Reject> {
        match request {
            Request::TopicCreate(create) => create_topic(cx, create),
            Request::TopicList(_) => {
                let own = cx.peer()?.member.clone();
                let topics = cx.core.topics.iter().filter(|topic| topic.visible_to(&own)).map(entry).collect();
                Ok(answer(TopicListResponse { topics }))
            }
            Request::TopicJoin(join) => {
                let role = join.role;
                if role.as_ref().is_some_and(|role| role.is_empty() || role.chars().count() > limits::MAX_NAME_CHARS) {
                    return Err(Reject::new(ErrorCode::InvalidArgs, "`role`: expected 1 to 64 characters"));
                }
                let own = cx.peer()?.member.clone();
                let topic = readable(&cx.core.topics, &own, &join.topic)?.id.clone();
                let (db, mesh, now) = (cx.core.db.clone(), cx.core.id.clone(), cx.now_ms());
                let confirmation = confirmation(cx);
                Ok(Outcome::work::<Self, _, _>(Lane("topic", topic.to_string()), async move {
                    let read_up_to = journal::max_seq(&db, &mesh).await?;
                    store::join(&db, &topic, &own, role.as_deref(), read_up_to, now).await?;
                    Ok(move |(): &mut (), cx: &mut MeshContext<'_>| {
                        if let Some(topic) = cx.core.topics.get_mut(&topic)
                            && !topic.subscribers.contains(&own)
                        {
                            topic.subscribers.push(own);
                        }
                        Ok(confirmation)
                    })
                }))
            }
            Request::TopicLeave(leave) => {
                let own = cx.peer()?.member.clone();
                let topic = readable(&cx.core.topics, &own, &leave.topic)?.id.clone();
                let (db, confirmation) = (cx.core.db.clone(), confirmation(cx));
                Ok(Outcome::work::<Self, _, _>(Lane("topic", topic.to_string()), async move {
                    store::leave(&db, &topic, &own).await?;
                    Ok(move |(): &mut (), cx: &mut MeshContext<'_>| {
                        if let Some(topic) = cx.core.topics.get_mut(&topic) {
                            topic.subscribers.retain(|member| *member != own);
                        }
                        Ok(confirmation)
                    })
                }))
            }
            Request::TopicMembers(query) => {
                let own = cx.peer()?.member.clone();
                let id = readable(&cx.core.topics, &own, &query.topic)?.id.clone();
                let db = cx.core.db.clone();
                Ok(Outcome::work::<Self, _, _>(Lane("topic", id.to_string()), async move {
                    let rows = store::members(&db, &id).await?;
                    Ok(move |(): &mut (), cx: &mut MeshContext<'_>| {
                        let member = |row: store::Subscription| {
                            let member = cx.core.roster.member(&row.member_id)?;
                            Some(TopicMember {
                                member_id: row.member_id,
                                pubkey: member.pubkey.to_hex(),
                                display_name: member.display_name.clone(),
                                role: row.role,
                                joined_at: iso(row.joined_at_ms),
                                last_read_at: row.last_read_at_ms.map(iso),
                            })
                        };
                        let members = rows.into_iter().filter_map(member).collect();
                        Ok(answer(TopicMembersResponse { topic: query.topic, members }))
                    })
                }))
            }
            Request::TopicHistory(query) => history(cx, query),
            Request::TopicMarkRead(mark) => {
                let own = cx.peer()?.member.clone();
                let topic = readable(&cx.core.topics, &own, &mark.topic)?.id.clone();
                let (db, mesh, now) = (cx.core.db.clone(), cx.core.id.clone(), cx.now_ms());
                let confirmation = confirmation(cx);
                Ok(Outcome::work::<Self, _, _>(Lane("topic", topic.to_string()), async move {
                    let upto = journal::max_seq(&db, &mesh).await?;
                    store::mark_read(&db, &topic, &own, upto, now).await?;
                    Ok(move |(): &mut (), _: &mut MeshContext<'_>| Ok(confirmation))
                }))
            }
        }
    }
}

/// What a request without an answer of its own answers.
fn confirmation(cx: &MeshContext<'_>) -> Outcome {
    if cx.wants_confirmation() { Outcome::answer(Nothing {}.into_message()) } else { Outcome::Silent }
}

fn answer(response: impl Into<Response>) -> Outcome {
    Outcome::answer(ServerMessage::from(response.into()))
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

fn create_topic(cx: &mut MeshContext<'_>, create: TopicCreate) -> Result<Outcome, Reject> {
    let name = create.name.trim().trim_start_matches('#').to_owned();
    let fine = name.chars().all(|symbol| symbol.is_alphanumeric() || "-_./".contains(symbol));
    if name.is_empty() || !fine || name.chars().count() > limits::MAX_GROUP_CHARS {
        let message = "expected a topic name of letters, digits, `-`, `_`, `.` and `/`, at most 64 characters";
        return Err(Reject::new(ErrorCode::InvalidName, message));
    }
    if create.description.as_ref().is_some_and(|text| text.chars().count() > limits::MAX_TEXT_CHARS) {
        return Err(Reject::new(ErrorCode::InvalidArgs, "`description`: expected at most 1024 characters"));
    }
    let known = cx.core.topics.find(&name).map(|topic| topic.id.clone());
    if known.is_none() && cx.core.topics.iter().count() >= MAX_TOPICS {
        return Err(Reject::new(ErrorCode::Limit, format!("a mesh can have {MAX_TOPICS} topics at most")));
    }
    let own = cx.peer()?.member.clone();
    let made = || cx.core.topics.iter().filter(|topic| topic.created_by == own).count();
    if known.is_none() && made() >= MAX_TOPICS_PER_MEMBER {
        let message = format!("a member can make {MAX_TOPICS_PER_MEMBER} topics at most");
        return Err(Reject::new(ErrorCode::Limit, message));
    }
    if known.is_some() {
        // The name of a topic that the caller may not see is taken, and that is all it learns.
        readable(&cx.core.topics, &own, &name)
            .map_err(|_| Reject::new(ErrorCode::AlreadyExists, "that name is taken"))?;
    }
    let now = cx.now_ms();
    let topic = store::Topic {
        id: known.clone().unwrap_or_else(|| TopicId::random(&mut rand::thread_rng())),
        mesh_id: cx.core.id.clone(),
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
        cx.core.topics.put(state.clone());
    }
    let db = cx.core.db.clone();
    Ok(Outcome::work::<Topics, _, _>(Lane("topic", topic.id.to_string()), async move {
        let stored = store::create(&db, &topic).await;
        Ok(move |(): &mut (), cx: &mut MeshContext<'_>| {
            let (topic, created) = stored.inspect_err(|_| {
                if known.is_none() {
                    cx.core.topics.remove(&topic.id);
                }
            })?;
            // The one who made it first may have failed after this one had seen it.
            if created && cx.core.topics.get_mut(&topic.id).is_none() {
                cx.core.topics.put(state);
            }
            let topic = TopicRef { id: topic.id, name: topic.name, visibility: topic.visibility };
            Ok(answer(TopicCreated { topic, created }))
        })
    }))
}

fn history(cx: &mut MeshContext<'_>, query: TopicHistory) -> Result<Outcome, Reject> {
    let own = cx.peer()?.member.clone();
    let topic = readable(&cx.core.topics, &own, &query.topic)?.id.clone();
    let limit = query.limit.unwrap_or(HISTORY_DEFAULT).clamp(*HISTORY.start(), *HISTORY.end());
    let (db, mesh) = (cx.core.db.clone(), cx.core.id.clone());
    Ok(Outcome::work::<Topics, _, _>(Lane("topic", topic.to_string()), async move {
        let before = match &query.before_id {
            Some(id) => {
                let found = journal::message_by_id_prefix(&db, &mesh, id, 1).await?;
                let found = found.into_iter().find(|message| message.topic_id.as_ref() == Some(&topic));
                let missing = || Reject::new(ErrorCode::NotFound, "`beforeId`: no such message in this topic");
                Some(found.ok_or_else(missing)?.seq)
            }
            None => None,
        };
        let rows = journal::topic_history(&db, &mesh, &topic, before, limit).await?;
        Ok(move |(): &mut (), _: &mut MeshContext<'_>| {
            let message = |row: crate::journal::types::StoredMessage| TopicMessage {
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
            Ok(answer(TopicHistoryResponse { topic: query.topic, messages }))
        })
    }))
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::features::topics::Visibility;

    use super::*;
    use crate::mesh::testing::TestMesh;

    #[actix_rt::test]
    async fn one_member_does_not_use_up_the_topics_of_a_mesh() {
        let mut mesh = TestMesh::new().await;
        let (alice, mallory) = (mesh.member("alice", 1).await, mesh.member("mallory", 2).await);
        let (one, _) = mesh.peer(&alice, "alice", Some(11));
        let (other, _) = mesh.peer(&mallory, "mallory", Some(12));
        let create = |mesh: &mut TestMesh, at, name: String| {
            let request = TopicCreate { name, description: None, visibility: Some(Visibility::Private) };
            mesh.step(Some(at), |features, cx| Topics::handle(&mut features.topics, cx, Request::TopicCreate(request)))
                .map(drop)
                .map_err(|reject| reject.code)
        };
        let made = (0..MAX_TOPICS).filter(|number| create(&mut mesh, other, format!("t{number}")).is_ok()).count();
        assert_eq!(made, MAX_TOPICS_PER_MEMBER);
        assert_eq!(create(&mut mesh, other, "one-more".into()), Err(ErrorCode::Limit));
        assert_eq!(create(&mut mesh, other, "t0".into()), Ok(()), "one that exists is no new one");
        assert_eq!(create(&mut mesh, one, "plans".into()), Ok(()));
    }
}
