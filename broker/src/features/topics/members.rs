//! Who follows a topic, and with what role.

use claudemesh_protocol::call::Nothing;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::topics::limits::DM_MEMBERS;
use claudemesh_protocol::features::topics::{
    TopicJoin, TopicLeave, TopicMember, TopicMemberSet, TopicMembers, TopicMembersResponse, TopicRemoveMember,
    TopicSetMember, Visibility,
};
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::limits;
use claudemesh_protocol::time::iso;

use super::limits::CHANGES_PER_MINUTE;
use super::managing::{leads, led};
use super::{Topics, named, store};
use crate::audit::By;
use crate::db::DbError;
use crate::features::messaging::store as messages;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::Outcome;
use crate::mesh::peers::Member;
use crate::mesh::resolve::resolve_name;
use crate::mesh::topics::TopicRole;
use crate::refusal::{Refusal, invalid};

fn check_role(role: &str) -> Result<(), Refusal> {
    if role.is_empty() || role.chars().count() > limits::MAX_NAME_CHARS {
        return Err(invalid("`role`: expected 1 to 64 characters"));
    }
    Ok(())
}

/// The live member that is meant: by its id, or as everywhere else.
fn member(cx: &MeshContext<'_>, text: &str) -> Result<Member, Refusal> {
    let unknown = || Refusal::new(ErrorCode::NotFound, "no such member in this mesh");
    if let Some(member) = cx.roster().live_member(&MemberId::from(text)) {
        return Ok(member.clone());
    }
    match resolve_name(cx.roster(), text, None) {
        Ok(found) => {
            let id = found.member(cx.roster());
            id.and_then(|id| cx.roster().live_member(id)).cloned().ok_or_else(unknown)
        }
        Err(refusal) if refusal.code == ErrorCode::UnknownTarget => Err(unknown()),
        Err(refusal) => Err(refusal),
    }
}

pub(super) fn join(cx: &MeshContext<'_>, request: TopicJoin) -> Result<Outcome<Nothing>, Refusal> {
    let role = request.role;
    if let Some(role) = &role {
        check_role(role)?;
    }
    let (own, topic) = named(cx, &request.topic)?;
    let found = cx.topic(&request.topic)?;
    let is = found.word(&own).map(TopicRole::of);
    // No one gives itself rights, and an observer stays one until a lead says otherwise.
    let gains = match (role.as_deref().map(TopicRole::of), is) {
        (Some(TopicRole::Lead), is) => is != Some(TopicRole::Lead),
        (Some(TopicRole::Member), is) => is == Some(TopicRole::Observer),
        (Some(TopicRole::Observer) | None, _) => false,
    };
    if gains && !leads(cx, found)? {
        return Err(Refusal::new(ErrorCode::Forbidden, "a lead of the topic gives this role, with topic_set_member"));
    }
    let (storage, now, lane) = (cx.storage(), cx.now_ms(), topic.clone());
    let slow = async move {
        let read_up_to = messages::max_seq(&storage).await?;
        store::join(&storage, &topic, &own, role.as_deref(), read_up_to, now).await?;
        Ok::<_, DbError>((topic, own, role))
    };
    Ok(Topics::work(lane, slow, |_, cx, (topic, own, role)| {
        if let Some(topic) = cx.topics_mut().get_mut(&topic) {
            let word = role.or_else(|| topic.word(&own).map(str::to_owned));
            topic.put_member(own, word.as_deref().unwrap_or("member"));
        }
        Ok(Outcome::Answer(Nothing {}))
    }))
}

pub(super) fn leave(cx: &MeshContext<'_>, request: &TopicLeave) -> Result<Outcome<Nothing>, Refusal> {
    let (own, topic) = named(cx, &request.topic)?;
    let (storage, lane) = (cx.storage(), topic.clone());
    let slow = async move {
        store::leave(&storage, &topic, &own).await?;
        Ok::<_, DbError>((topic, own))
    };
    Ok(Topics::work(lane, slow, |_, cx, (topic, own)| {
        if let Some(topic) = cx.topics_mut().get_mut(&topic) {
            topic.remove_member(&own);
        }
        Ok(Outcome::Answer(Nothing {}))
    }))
}

pub(super) fn list(cx: &MeshContext<'_>, request: TopicMembers) -> Result<Outcome<TopicMembersResponse>, Refusal> {
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

pub(super) fn set(cx: &mut MeshContext<'_>, request: TopicSetMember) -> Result<Outcome<TopicMemberSet>, Refusal> {
    check_role(&request.role)?;
    let found = led(cx, &request.topic)?;
    let (topic, target) = (found.id.clone(), member(cx, &request.member)?.id);
    if found.visibility == Visibility::Dm && found.word(&target).is_none() && found.subscribers.len() >= DM_MEMBERS {
        return Err(Refusal::new(ErrorCode::Invalid, "a dm topic has two members"));
    }
    let own = cx.asker()?.member.clone();
    cx.count_write(&CHANGES_PER_MINUTE, Some(&own))?;
    let (storage, lane, by) = (cx.storage(), topic.clone(), By::member(&own, cx.now_ms()));
    let role = request.role.clone();
    let slow = async move {
        let read_up_to = messages::max_seq(&storage).await?;
        store::set_member(&storage, &topic, &target, &role, read_up_to, &by).await?;
        Ok::<_, DbError>((topic, target))
    };
    Ok(Topics::work(lane, slow, |_, cx, (topic, member_id)| {
        if let Some(topic) = cx.topics_mut().get_mut(&topic) {
            topic.put_member(member_id.clone(), &request.role);
        }
        Ok(Outcome::Answer(TopicMemberSet { topic: request.topic, member_id, role: Some(request.role) }))
    }))
}

pub(super) fn remove(cx: &mut MeshContext<'_>, request: TopicRemoveMember) -> Result<Outcome<TopicMemberSet>, Refusal> {
    let topic = led(cx, &request.topic)?.id.clone();
    let target = member(cx, &request.member)?.id;
    let own = cx.asker()?.member.clone();
    cx.count_write(&CHANGES_PER_MINUTE, Some(&own))?;
    let (storage, lane, by) = (cx.storage(), topic.clone(), By::member(&own, cx.now_ms()));
    let slow = async move {
        store::remove_member(&storage, &topic, &target, &by).await?;
        Ok::<_, DbError>((topic, target))
    };
    Ok(Topics::work(lane, slow, |_, cx, (topic, member_id)| {
        if let Some(topic) = cx.topics_mut().get_mut(&topic) {
            topic.remove_member(&member_id);
        }
        Ok(Outcome::Answer(TopicMemberSet { topic: request.topic, member_id, role: None }))
    }))
}
