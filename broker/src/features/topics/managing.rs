//! Making topics, changing and listing them.

use std::collections::HashMap;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::topics::limits::{DM_MEMBERS, RETENTION_DAYS};
use claudemesh_protocol::features::topics::{
    TopicCreate, TopicCreated, TopicEntry, TopicListResponse, TopicRef, TopicUpdate, TopicUpdated, Visibility,
};
use claudemesh_protocol::id::{MemberId, TopicId};
use claudemesh_protocol::limits;
use claudemesh_protocol::time::iso;

use super::limits::{CHANGES_PER_MINUTE, MADE_PER_MINUTE, PER_MEMBER, PER_MESH};
use super::{Topics, store};
use crate::audit::By;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::{Lane, Outcome};
use crate::mesh::topics::{DAY_MS, TopicRole, TopicState, readable};
use crate::refusal::{Refusal, invalid};

/// A topic as the book has it.
pub(super) fn state_of(topic: store::Topic, members: Vec<store::Subscription>) -> TopicState {
    let roles: HashMap<MemberId, String> =
        members.iter().map(|member| (member.member_id.clone(), member.role.clone())).collect();
    TopicState {
        id: topic.id,
        name: topic.name,
        description: topic.description,
        visibility: topic.visibility,
        created_by: topic.created_by,
        created_at_ms: topic.created_at_ms,
        retention_ms: topic.retention_ms,
        subscribers: members.into_iter().map(|member| member.member_id).collect(),
        roles,
    }
}

/// How many topics a member has made.
pub(super) fn made_by(cx: &MeshContext<'_>, member: &MemberId) -> usize {
    cx.topics().iter().filter(|topic| topic.created_by == *member).count()
}

/// Whether the caller leads a topic that it may see: as a lead of it, or by a capability.
pub(super) fn leads(cx: &MeshContext<'_>, topic: &TopicState) -> Result<bool, Refusal> {
    Ok(topic.role(&cx.asker()?.member) == TopicRole::Lead || cx.may(Capability::CanModerate)?)
}

/// The topic that the caller named, which it leads.
///
/// # Errors
/// `forbidden` when it does not lead it, `topic_not_found`.
pub(super) fn led<'a>(cx: &'a MeshContext<'_>, topic: &str) -> Result<&'a TopicState, Refusal> {
    let found = cx.topic(topic)?;
    if leads(cx, found)? {
        return Ok(found);
    }
    let message = "only a lead of the topic, or a member with canModerate, may do this";
    Err(Refusal::new(ErrorCode::Forbidden, message))
}

/// The topics that the caller may see, with what it has not read there.
pub(super) fn list(cx: &MeshContext<'_>) -> Result<Outcome<TopicListResponse>, Refusal> {
    let own = cx.asker()?.member.clone();
    let (storage, now) = (cx.storage(), cx.now_ms());
    let slow = async move { Ok::<_, crate::db::DbError>((store::unread(&storage, &own, now).await?, own)) };
    Ok(Topics::work_in(cx.own_lane::<Topics>(), slow, |_, cx, (unread, own)| {
        let unread: HashMap<TopicId, i64> = unread.into_iter().collect();
        let topics = cx.visible_topics()?.into_iter().map(|topic| entry(topic, &own, &unread)).collect();
        Ok(Outcome::Answer(TopicListResponse { topics }))
    }))
}

fn entry(topic: &TopicState, own: &MemberId, unread: &HashMap<TopicId, i64>) -> TopicEntry {
    let count = || u32::try_from(unread.get(&topic.id).copied().unwrap_or(0)).unwrap_or(u32::MAX);
    TopicEntry {
        id: topic.id.clone(),
        name: topic.name.clone(),
        description: topic.description.clone(),
        visibility: topic.visibility,
        member_count: u32::try_from(topic.subscribers.len()).unwrap_or(u32::MAX),
        created_at: iso(topic.created_at_ms),
        role: topic.word(own).map(str::to_owned),
        unread: topic.word(own).map(|_| count()),
        retention_days: topic.retention_ms.map(days),
    }
}

fn days(ms: i64) -> u32 {
    u32::try_from(ms / DAY_MS).unwrap_or(u32::MAX)
}

fn check_description(text: Option<&str>) -> Result<(), Refusal> {
    match text {
        Some(text) if text.chars().count() > limits::MAX_TEXT_CHARS => {
            Err(invalid("`description`: expected at most 1024 characters"))
        }
        _ => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let fine = name.chars().all(|symbol| symbol.is_alphanumeric() || "-_./".contains(symbol));
    if name.is_empty() || !fine || name.chars().count() > limits::MAX_GROUP_CHARS {
        let message = "expected a topic name of letters, digits, `-`, `_`, `.` and `/`, at most 64 characters";
        return Err(Refusal::new(ErrorCode::InvalidName, message));
    }
    Ok(())
}

pub(super) fn create(cx: &mut MeshContext<'_>, create: TopicCreate) -> Result<Outcome<TopicCreated>, Refusal> {
    let name = create.name.trim().trim_start_matches('#').to_owned();
    check_name(&name)?;
    check_description(create.description.as_deref())?;
    let known = cx.topics().find(&name).map(|topic| topic.id.clone());
    let own = cx.asker()?.member.clone();
    if known.is_some() {
        // The name of a topic that the caller may not see is taken, and that is all it learns.
        readable(cx.topics(), &own, &name).map_err(|_| Refusal::new(ErrorCode::AlreadyExists, "that name is taken"))?;
    } else {
        cx.within(&PER_MESH, cx.topics().iter().count(), 1)?;
        cx.within(&PER_MEMBER, made_by(cx, &own), 1)?;
        cx.count_write(&MADE_PER_MINUTE, Some(&own))?;
    }
    let topic = store::Topic {
        id: known.clone().unwrap_or_else(|| TopicId::random(&mut rand::thread_rng())),
        mesh_id: cx.mesh_id().clone(),
        name,
        description: create.description,
        visibility: create.visibility.unwrap_or_default(),
        created_by: own.clone(),
        created_at_ms: cx.now_ms(),
        retention_ms: None,
    };
    let mut state = state_of(topic.clone(), vec![]);
    state.put_member(own, "lead");
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

/// The retention that a request asks for; `None` when it says nothing of it.
fn retention(asked: Option<u32>) -> Result<Option<Option<i64>>, Refusal> {
    match asked {
        None => Ok(None),
        Some(0) => Ok(Some(None)),
        Some(days) if RETENTION_DAYS.contains(&days) => Ok(Some(Some(i64::from(days) * DAY_MS))),
        Some(_) => Err(invalid("`retention_days`: expected 1 to 365, or 0 for the usual 30")),
    }
}

pub(super) fn update(cx: &mut MeshContext<'_>, request: TopicUpdate) -> Result<Outcome<TopicUpdated>, Refusal> {
    check_description(request.description.as_deref())?;
    let (retention, own) = (retention(request.retention_days)?, cx.asker()?.member.clone());
    let before = led(cx, &request.topic)?;
    let visibility = request.visibility.unwrap_or(before.visibility);
    if visibility == Visibility::Dm && before.subscribers.len() > DM_MEMBERS {
        return Err(Refusal::new(ErrorCode::Invalid, "a dm topic has two members, and this one has more"));
    }
    let topic = store::Topic {
        id: before.id.clone(),
        mesh_id: cx.mesh_id().clone(),
        name: before.name.clone(),
        description: match request.description {
            Some(text) => Some(text).filter(|text| !text.is_empty()),
            None => before.description.clone(),
        },
        visibility,
        created_by: before.created_by.clone(),
        created_at_ms: before.created_at_ms,
        retention_ms: retention.unwrap_or(before.retention_ms),
    };
    cx.count_write(&CHANGES_PER_MINUTE, Some(&own))?;
    let (storage, lane, by) = (cx.storage(), topic.id.clone(), By::member(&own, cx.now_ms()));
    let slow = async move { store::update(&storage, &topic, &by).await };
    Ok(Topics::work(lane, slow, |_, cx, stored| {
        let stored = stored.ok_or_else(|| Refusal::new(ErrorCode::TopicNotFound, "no such topic"))?;
        if let Some(topic) = cx.topics_mut().get_mut(&stored.id) {
            topic.description.clone_from(&stored.description);
            topic.visibility = stored.visibility;
            topic.retention_ms = stored.retention_ms;
        }
        let topic = TopicRef { id: stored.id, name: stored.name, visibility: stored.visibility };
        let retention_days = stored.retention_ms.map(days);
        Ok(Outcome::Answer(TopicUpdated { topic, description: stored.description, retention_days }))
    }))
}
