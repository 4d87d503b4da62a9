//! Groups: a session is in one for its time, a member for good. Routing uses both through the roster.

use std::collections::BTreeMap;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::groups::{
    Group, GroupChanged, GroupMember, GroupRow, GroupsList, JoinGroup, LeaveGroup, ListGroups, Request,
};
use claudemesh_protocol::features::info::MeshInfoResult;
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::limits;
use claudemesh_protocol::name::Address;
use claudemesh_protocol::target::group_name;

use crate::audit::By;
use crate::db::member_groups as store;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::events::MeshEvent;
use crate::mesh::outcome::{Lane, Outcome};
use crate::mesh::own_sessions::sessions_of;
use crate::mesh::peers::{Member, Peer};
use crate::quota::Quota;
use crate::refusal::Refusal;

#[cfg(test)]
mod tests;

/// Groups that one member is in itself: as many as a session may be in, since its sessions are in them, too.
static PER_MEMBER: Quota = Quota::new(
    "groups.per_member",
    limits::MAX_GROUPS as u64,
    "Groups that one member may be in itself, with all its sessions.",
)
.at_most(limits::MAX_GROUPS as u64);
/// Joining and leaving is written to storage and to the audit log.
static CHANGES_PER_MINUTE: Quota =
    Quota::new("groups.changes_per_minute", 60, "How often a minute one member may join and leave groups itself.");

/// The feature.
pub struct Groups;

impl Feature for Groups {
    const NAME: &'static str = "groups";
    const QUOTAS: &'static [&'static Quota] = &[&PER_MEMBER, &CHANGES_PER_MINUTE];
    type Request = Request;
    type Memory = ();

    fn handle((): &mut (), cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::JoinGroup(join) if join.as_member => Self::answer::<JoinGroup>(join_as_member(cx, &join)),
            Request::JoinGroup(join) => Self::answer::<JoinGroup>(join_group(cx, &join)),
            Request::LeaveGroup(leave) if leave.as_member => Self::answer::<LeaveGroup>(leave_as_member(cx, &leave)),
            Request::LeaveGroup(leave) => Self::answer::<LeaveGroup>(leave_group(cx, &leave)),
            Request::ListGroups(_) => Self::answer::<ListGroups>(list(cx)),
        }
    }

    fn on_event((): &mut (), cx: &mut MeshContext<'_>, event: &MeshEvent) {
        // Storage forgets them with the member; a ban may be lifted, and then they are there again.
        if let MeshEvent::MemberGone { member } = event
            && cx.roster().member(member).is_some_and(|member| member.removed_at_ms.is_some())
        {
            cx.member_groups_mut().remove(member);
        }
    }

    fn describe((): &(), cx: &MeshContext<'_>, info: &mut MeshInfoResult) {
        if let Ok(own) = cx.asker() {
            let used = cx.roster().groups_of(&own.member).len();
            info.limits.push(cx.limits().quotas.bound(&PER_MEMBER, used as u64));
        }
    }
}

fn join_group(cx: &mut MeshContext<'_>, join: &JoinGroup) -> Result<Outcome<GroupChanged>, Refusal> {
    let confirmed = cx.wants_confirmation();
    let name = checked(&join.name)?;
    let role = role_of(join, confirmed)?;
    let peers = sessions_of(cx, &join.target)?;
    for at in &peers {
        let full = cx.roster().get(*at).is_some_and(|peer| {
            peer.groups.len() >= limits::MAX_GROUPS && !peer.groups.iter().any(|group| group.name == name)
        });
        if full {
            let message = format!("a session can be in {} groups at most", limits::MAX_GROUPS);
            return Err(Refusal::new(ErrorCode::Limit, message));
        }
        cx.change_peer(*at, |peer| match peer.groups.iter_mut().find(|group| group.name == name) {
            // A client that asks for a confirmation leaves the role as it is by naming none, and clears it by an empty one.
            Some(_) if join.role.is_none() && confirmed => {}
            Some(group) => group.role.clone_from(&role),
            None => peer.groups.push(Group { name: name.clone(), role: role.clone() }),
        });
    }
    Ok(changed(peers.len()))
}

fn join_as_member(cx: &mut MeshContext<'_>, join: &JoinGroup) -> Result<Outcome<GroupChanged>, Refusal> {
    let name = checked(&join.name)?;
    let member = of_member(cx, join.target.target_session.as_deref())?;
    let known = cx.roster().groups_of(&member);
    let before = known.iter().find(|group| group.name == name);
    let role = match (&join.role, before) {
        (None, Some(before)) => before.role.clone(),
        _ => role_of(join, true)?,
    };
    let group = Group { name, role };
    if before == Some(&group) {
        return Ok(Outcome::Answer(GroupChanged { sessions: 0, member: true }));
    }
    if before.is_none() {
        cx.within(&PER_MEMBER, known.len(), 1)?;
    }
    cx.count_write(&CHANGES_PER_MINUTE, Some(&member))?;
    let (storage, by) = (cx.storage(), By::member(&member, cx.now_ms()));
    let slow = async move {
        store::put(&storage, &member, &group, &by).await?;
        Ok::<_, Refusal>((member, group))
    };
    Ok(Groups::work_in(lane(), slow, |(), cx, (member, group)| {
        let groups = cx.member_groups_mut().entry(member).or_default();
        groups.retain(|known| known.name != group.name);
        groups.push(group);
        groups.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(Outcome::Answer(GroupChanged { sessions: 0, member: true }))
    }))
}

fn leave_group(cx: &mut MeshContext<'_>, leave: &LeaveGroup) -> Result<Outcome<GroupChanged>, Refusal> {
    let name = checked(&leave.name)?;
    let mut peers = sessions_of(cx, &leave.target)?;
    // Those that are in it: the confirmation counts what has changed.
    peers.retain(|at| {
        let peer = cx.roster().get(*at);
        peer.is_some_and(|peer| peer.groups.iter().any(|group| group.name == name))
    });
    for at in &peers {
        cx.change_peer(*at, |peer| peer.groups.retain(|group| group.name != name));
    }
    Ok(changed(peers.len()))
}

fn leave_as_member(cx: &mut MeshContext<'_>, leave: &LeaveGroup) -> Result<Outcome<GroupChanged>, Refusal> {
    let name = checked(&leave.name)?;
    let member = of_member(cx, leave.target.target_session.as_deref())?;
    if !cx.roster().groups_of(&member).iter().any(|group| group.name == name) {
        return Ok(changed(0));
    }
    cx.count_write(&CHANGES_PER_MINUTE, Some(&member))?;
    let (storage, by) = (cx.storage(), By::member(&member, cx.now_ms()));
    let slow = async move {
        store::remove(&storage, &member, &name, &by).await?;
        Ok::<_, Refusal>((member, name))
    };
    Ok(Groups::work_in(lane(), slow, |(), cx, (member, name)| {
        if let Some(groups) = cx.member_groups_mut().get_mut(&member) {
            groups.retain(|group| group.name != name);
        }
        Ok(Outcome::Answer(GroupChanged { sessions: 0, member: true }))
    }))
}

fn list(cx: &MeshContext<'_>) -> Result<Outcome<GroupsList>, Refusal> {
    let own = cx.member()?.id.clone();
    let roster = cx.roster();
    let mut groups: BTreeMap<String, Vec<GroupMember>> = BTreeMap::new();
    let mut members: Vec<&Member> = roster.members().filter(|member| member.revoked_at_ms.is_none()).collect();
    members.sort_unstable_by(|one, other| (&one.display_name, &one.id).cmp(&(&other.display_name, &other.id)));
    for member in members {
        let sessions = roster.of_member(&member.id).iter().filter_map(|at| roster.get(*at));
        let online = sessions.filter(|peer| peer.visible || member.id == own).any(Peer::online);
        for group in roster.groups_of(&member.id) {
            groups.entry(group.name.clone()).or_default().push(GroupMember {
                kind: "member".into(),
                name: member.display_name.clone(),
                member_name: member.display_name.clone(),
                pubkey: member.pubkey,
                member_pubkey: member.pubkey,
                role: group.role.clone(),
                online,
                waits: true,
            });
        }
    }
    // A session that is gone for a moment is left out: what is said must not depend on how long ago it went.
    let seen = |peer: &&Peer| peer.online() && !peer.ephemeral && (peer.visible || peer.member == own);
    let mut sessions: Vec<(String, &Peer)> = roster.iter().filter(seen).map(|peer| (address(cx, peer), peer)).collect();
    sessions.sort_unstable_by(|(one, peer), (other, second)| (one, peer.handle).cmp(&(other, second.handle)));
    for (name, peer) in sessions {
        for group in &peer.groups {
            groups.entry(group.name.clone()).or_default().push(GroupMember {
                kind: "session".into(),
                name: name.clone(),
                member_name: member_name(cx, peer),
                pubkey: peer.key(),
                member_pubkey: peer.member_key,
                role: group.role.clone(),
                online: true,
                waits: false,
            });
        }
    }
    let groups = groups.into_iter().map(|(name, members)| GroupRow { name, members }).collect();
    Ok(Outcome::Answer(GroupsList { groups }))
}

fn member_name(cx: &MeshContext<'_>, peer: &Peer) -> String {
    cx.roster().member(&peer.member).map(|member| member.display_name.clone()).unwrap_or_default()
}

fn address(cx: &MeshContext<'_>, peer: &Peer) -> String {
    Address { member: &member_name(cx, peer), session: &peer.name }.to_string()
}

/// The caller's member. It joins and leaves for all its sessions, so none can be named.
fn of_member(cx: &MeshContext<'_>, session: Option<&str>) -> Result<MemberId, Refusal> {
    if session.is_some() {
        let message = "`asMember` is about the member with all its sessions: expected no `targetSession`";
        return Err(Refusal::new(ErrorCode::InvalidArgs, message));
    }
    Ok(cx.member()?.id.clone())
}

/// The writes of members' groups are taken over in the order in which they are stored.
fn lane() -> Lane {
    Lane::of::<Groups>("members")
}

fn changed(sessions: usize) -> Outcome<GroupChanged> {
    Outcome::Answer(GroupChanged { sessions: u32::try_from(sessions).unwrap_or(u32::MAX), member: false })
}

/// As what it joins; with `clears` an empty text is none.
fn role_of(join: &JoinGroup, clears: bool) -> Result<Option<String>, Refusal> {
    if join.role.as_ref().is_some_and(|role| role.chars().count() > limits::MAX_NAME_CHARS) {
        return Err(Refusal::new(ErrorCode::InvalidArgs, "`role`: expected at most 64 characters"));
    }
    Ok(join.role.clone().filter(|role| !clears || !role.trim().is_empty()))
}

fn checked(name: &str) -> Result<String, Refusal> {
    group_name(name).map_err(|error| Refusal::new(ErrorCode::InvalidName, error.to_string()))
}
