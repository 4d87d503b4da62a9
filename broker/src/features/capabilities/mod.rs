//! Capabilities: what single members may do, and what plain members start with. Every request is checked against them before
//! its feature sees it, so a change takes effect with the next frame of every open connection.

pub mod http;
#[cfg(test)]
pub(crate) mod model;
#[cfg(test)]
mod tests;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::capabilities::{
    GetPermissions, MemberPermissions, PermissionsResult, Request, SetPermissions,
};
use claudemesh_protocol::id::MemberId;

use crate::audit::By;
use crate::db::members::Member;
use crate::db::rights::{self, Rights, Subject};
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::load::members_lane;
use crate::mesh::outcome::Outcome;
use crate::mesh::resolve::{Resolved, resolve_name};
use crate::refusal::Refusal;

/// The feature.
pub struct Capabilities;

impl Feature for Capabilities {
    const NAME: &'static str = "capabilities";
    type Request = Request;
    type Memory = ();

    fn handle((): &mut (), cx: &mut MeshContext<'_>, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::GetPermissions(request) => Self::answer::<GetPermissions>(get(cx, &request)),
            Request::SetPermissions(request) => Self::answer::<SetPermissions>(set(cx, request)),
        }
    }
}

/// The answer about some members.
fn result<'a>(slug: &str, rights: &Rights, members: impl Iterator<Item = &'a Member>) -> PermissionsResult {
    let mut members: Vec<&Member> = members.collect();
    members.sort_by(|one, other| (one.joined_at_ms, &one.id).cmp(&(other.joined_at_ms, &other.id)));
    let row = |member: &Member| MemberPermissions {
        member_id: member.id.clone(),
        pubkey: member.pubkey,
        display_name: member.display_name.clone(),
        role: member.role.as_str().into(),
        is_owner: member.role == crate::db::members::Role::Owner,
        permissions: rights.all(&member.id, member.role),
        overrides: rights.of(&Subject::Member(member.id.clone())),
    };
    PermissionsResult {
        mesh: slug.to_owned(),
        defaults: rights.of(&Subject::Start),
        members: members.into_iter().map(row).collect(),
    }
}

/// The member that is meant: by its id, or as everywhere else.
fn named(cx: &MeshContext<'_>, text: &str) -> Result<MemberId, Refusal> {
    let unknown = || Refusal::new(ErrorCode::NotFound, "no such member in this mesh");
    let by_id = cx.roster().member(&MemberId::from(text)).filter(|member| member.revoked_at_ms.is_none());
    if let Some(member) = by_id {
        return Ok(member.id.clone());
    }
    match resolve_name(cx.roster(), text, None) {
        Ok(Resolved::Member(id, _)) => Ok(id),
        Ok(Resolved::Session(key)) => {
            let live = cx.roster().with_key(&key).first().and_then(|at| cx.roster().get(*at));
            let known = || cx.roster().known.get(&key).map(|known| known.member.clone());
            live.map(|peer| peer.member.clone()).or_else(known).ok_or_else(unknown)
        }
        Err(refusal) if refusal.code == ErrorCode::UnknownTarget => Err(unknown()),
        Err(refusal) => Err(refusal),
    }
}

fn get(cx: &MeshContext<'_>, request: &GetPermissions) -> Result<Outcome<PermissionsResult>, Refusal> {
    let own = cx.member()?.id.clone();
    let sees_all = cx.may(Capability::CanManagePermissions)?;
    let only = match &request.member {
        Some(name) => {
            let id = named(cx, name)?;
            cx.require_own(&id, Capability::CanManagePermissions)?;
            Some(id)
        }
        None => (!sees_all).then_some(own),
    };
    let members = cx
        .roster()
        .members()
        .filter(|member| member.revoked_at_ms.is_none() && only.as_ref().is_none_or(|only| *only == member.id));
    Ok(Outcome::Answer(result(cx.slug(), cx.rights(), members)))
}

fn set(cx: &mut MeshContext<'_>, request: SetPermissions) -> Result<Outcome<PermissionsResult>, Refusal> {
    let subject = match (&request.member, request.default) {
        (Some(name), false) => Subject::Member(named(cx, name)?),
        (None, true) => Subject::Start,
        _ => return Err(Refusal::new(ErrorCode::InvalidArgs, "expected either `member` or `default`")),
    };
    let (storage, by) = (cx.storage(), By::member(&cx.member()?.id, cx.now_ms()));
    let changes = request.permissions;
    let slow = async move {
        let overrides = rights::edit(&storage, &subject, &changes, &by).await?;
        Ok::<_, Refusal>((subject, overrides))
    };
    // The lane of bans and of reading members: what was read before is not taken over after.
    Ok(Capabilities::work_in(members_lane(), slow, |(), cx, (subject, overrides)| {
        cx.change_rights(&subject, overrides);
        let member = match &subject {
            Subject::Member(id) => cx.roster().member(id),
            Subject::Start => None,
        };
        Ok(Outcome::Answer(result(cx.slug(), cx.rights(), member.into_iter())))
    }))
}
