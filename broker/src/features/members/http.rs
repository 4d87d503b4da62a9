//! Members, their settings and grants. The signer must be a live member of that very mesh (or hold the owner's key); ids in
//! headers or bodies prove nothing.

use std::collections::HashMap;

use actix_web::{HttpResponse, web};
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::members::{
    GrantsView, MemberList, MemberPatched, MemberView, PatchMember, UpdateGrants,
};
use claudemesh_protocol::id::{MemberId, MeshId, PublicKey};
use claudemesh_protocol::time::iso;

use super::RENAMES_PER_MINUTE;
use crate::db::members::{self as store, Member, MemberPatch, Role};
use crate::http::caller::Caller;
use crate::http::{AppState, State, fields, to_the_end};
use crate::refusal::Refusal;

type Answer = Result<HttpResponse, Refusal>;

crate::routes! {
    get "/mesh/{id}/members" => list, members;
    patch "/mesh/{id}/member/{member}" => patch, others CanManageMembers;
    get "/mesh/{id}/grants" => grants, members;
    post "/mesh/{id}/grants" => update_grants, members;
}

/// None of these routes is for API keys.
pub const OPERATIONS: &[crate::http::openapi::Operation] = &[];

async fn list(state: State, caller: Caller) -> Answer {
    let sessions = sessions(&state, &caller.mesh.id).await;
    let members = store::load_all(&state.storage(&caller.mesh.id)).await?;
    let members = members.into_iter().filter(|member| member.revoked_at_ms.is_none());
    let members = members.map(|member| view(member, &sessions)).collect();
    Ok(HttpResponse::Ok().json(MemberList { ok: true, members }))
}

async fn patch(state: State, path: web::Path<(String, String)>, caller: Caller) -> Answer {
    let (_, target) = path.into_inner();
    let asked: PatchMember = caller.json()?;
    let unknown = || Refusal::new(ErrorCode::NotFound, "no such member in this mesh");
    let target = store::load(&state.storage(&caller.mesh.id), &MemberId::from(target)).await?;
    let target = target.filter(|member| member.revoked_at_ms.is_none()).ok_or_else(unknown)?;
    allow_patch(&caller, &target, &asked)?;
    let (patch, changes) = checked(&asked, &target)?;
    if patch.display_name.as_ref().is_some_and(|name| *name != target.display_name) {
        count_renaming(&state, &caller).await?;
    }
    to_the_end(async move {
        let storage = state.storage(&caller.mesh.id);
        let by = caller.by(state.clock.now_ms());
        let edited = store::update(&storage, &target.id, &patch, &by).await?.ok_or_else(unknown)?;
        state.directory.reload_members(&caller.mesh.id).await;
        let sessions = sessions(&state, &caller.mesh.id).await;
        Ok(HttpResponse::Ok().json(MemberPatched { ok: true, member: view(edited, &sessions), changes }))
    })
    .await
}

/// Counts with those that are asked for over frames: one bound for both ways.
async fn count_renaming(state: &AppState, caller: &Caller) -> Result<(), Refusal> {
    let own = caller.member.id.clone();
    let counted = state.directory.with(&caller.mesh.id, move |core, _| {
        core.rates.count(&core.limits.quotas, &RENAMES_PER_MINUTE, Some(&own), core.clock.mono_ms())
    });
    counted.await?
}

/// Only the owner gives roles. Members with `canManageMembers` edit others up to their own role, and every field of themselves;
/// without it members edit of themselves what the mesh's policy allows.
fn allow_patch(caller: &Caller, target: &Member, asked: &PatchMember) -> Result<(), Refusal> {
    let forbid = |message: &str| Err(Refusal::new(ErrorCode::Forbidden, message));
    let own = &caller.member;
    if asked.permission.is_some() {
        if own.role != Role::Owner {
            return forbid("only the owner gives roles");
        }
        if target.role == Role::Owner {
            return forbid("the owner's role cannot be changed");
        }
    }
    caller.require_own(&target.id, Capability::CanManageMembers)?;
    if target.role > own.role {
        return forbid("your role does not allow to edit this member");
    }
    if caller.require(Capability::CanManageMembers).is_ok() {
        return Ok(());
    }
    let policy = caller.mesh.self_editable;
    let fields = [
        ("displayName", asked.display_name.is_some(), policy.display_name),
        ("roleTag", asked.role_tag.is_some(), policy.role_tag),
        ("groups", asked.groups.is_some(), policy.groups),
        ("messageMode", asked.message_mode.is_some(), policy.message_mode),
    ];
    match fields.iter().find(|(_, given, allowed)| *given && !allowed) {
        Some((field, ..)) => forbid(&format!("the mesh lets only admins change `{field}`")),
        None => Ok(()),
    }
}

/// The store's form of a patch, and the answer's, both after trimming.
fn checked(asked: &PatchMember, target: &Member) -> Result<(MemberPatch, PatchMember), Refusal> {
    // The name of before stays allowed, whatever it is.
    let name =
        |name: &str| if name == target.display_name { fields::display_name(name) } else { fields::member_name(name) };
    let patch = MemberPatch {
        display_name: asked.display_name.as_deref().map(name).transpose()?,
        role_tag: asked.role_tag.as_deref().map(fields::role_tag).transpose()?,
        default_groups: asked.groups.as_deref().map(fields::groups).transpose()?,
        message_mode: asked.message_mode.as_deref().map(fields::message_mode).transpose()?,
        role: asked.permission.as_deref().map(fields::invited_role).transpose()?,
    };
    if patch == MemberPatch::default() {
        let message = "expected at least one of displayName, roleTag, groups, messageMode, permission";
        return Err(Refusal::new(ErrorCode::InvalidArgs, message));
    }
    let changes = PatchMember {
        display_name: patch.display_name.clone(),
        role_tag: patch.role_tag.clone().map(Option::unwrap_or_default),
        groups: patch.default_groups.clone(),
        message_mode: patch.message_mode.clone(),
        permission: patch.role.map(|role| role.as_str().into()),
    };
    Ok((patch, changes))
}

async fn grants(caller: Caller) -> Answer {
    Ok(HttpResponse::Ok().json(GrantsView { ok: true, grants: caller.member.grants }))
}

async fn update_grants(state: State, caller: Caller) -> Answer {
    let mut asked: UpdateGrants = caller.json()?;
    for list in asked.grants.values_mut().flatten() {
        list.sort_unstable();
        list.dedup();
    }
    to_the_end(async move {
        let (storage, by) = (state.storage(&caller.mesh.id), caller.by(state.clock.now_ms()));
        let grants = store::update_grants(&storage, &caller.member.id, &asked.grants, &by).await?;
        let grants = grants.ok_or(ErrorCode::Revoked)?;
        state.directory.reload_members(&caller.mesh.id).await;
        Ok(HttpResponse::Ok().json(GrantsView { ok: true, grants }))
    })
    .await
}

/// Open connections per member key.
async fn sessions(state: &AppState, mesh: &MeshId) -> HashMap<PublicKey, u32> {
    let mut counts = HashMap::new();
    for peer in state.directory.roster(mesh).await {
        if peer.online {
            *counts.entry(peer.member_key).or_insert(0) += 1;
        }
    }
    counts
}

fn view(member: Member, sessions: &HashMap<PublicKey, u32>) -> MemberView {
    let session_count = sessions.get(&member.pubkey).copied().unwrap_or(0);
    MemberView {
        id: member.id,
        pubkey: member.pubkey,
        display_name: member.display_name,
        role_tag: member.role_tag,
        groups: member.default_groups,
        message_mode: member.message_mode,
        permission: member.role.as_str().into(),
        joined_at: iso(member.joined_at_ms),
        last_seen_at: member.last_seen_at_ms.map(iso),
        online: session_count > 0,
        session_count,
    }
}
