//! Members, their settings and grants. The signer must be a live member of that very mesh (or hold the owner's key); ids in
//! headers or bodies prove nothing.

use std::collections::HashMap;

use actix_web::{HttpResponse, web};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::members::{
    GrantsView, MemberList, MemberPatched, MemberView, PatchMember, PatchSettings, UpdateGrants,
};
use claudemesh_protocol::id::{MemberId, MeshId, PublicKey};
use claudemesh_protocol::time::iso;

use super::auth::Signed;
use super::enrolment::{live, to_the_end};
use super::{AppState, State};
use crate::audit::By;
use crate::db::members::{self as store, Member, MemberPatch, Role};
use crate::db::meshes::{self, MeshRecord};
use crate::features::enrolment::rules;
use crate::refusal::Refusal;

type Answer = Result<HttpResponse, Refusal>;

/// Routes of this module.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .route("/mesh/{id}/members", web::get().to(list))
        .route("/mesh/{id}/member/{member}", web::patch().to(patch))
        .route("/mesh/{id}/settings", web::patch().to(settings))
        .route("/mesh/{id}/grants", web::get().to(grants))
        .route("/mesh/{id}/grants", web::post().to(update_grants));
}

/// Who asks: a live member, or the holder of the owner's key, who need not be a member.
pub(super) struct Caller {
    pub(super) mesh: MeshRecord,
    pub(super) role: Role,
    pub(super) member: Option<Member>,
}

impl Caller {
    async fn of(state: &AppState, mesh: &MeshId, signed: &Signed) -> Result<Self, Refusal> {
        Self::in_mesh(state, live(state, mesh).await?, signed).await
    }

    pub(super) async fn in_mesh(state: &AppState, mesh: MeshRecord, signed: &Signed) -> Result<Self, Refusal> {
        let member = store::by_key(&state.storage(&mesh.id), &signed.key).await?;
        let owner_key = mesh.owner_pubkey == signed.key;
        let role = match &member {
            _ if owner_key => Role::Owner,
            Some(member) if member.revoked_at_ms.is_some() => return Err(ErrorCode::Revoked.into()),
            Some(member) => member.role,
            None => return Err(ErrorCode::Unauthorized.into()),
        };
        state.auth.accept(signed)?;
        Ok(Self { mesh, role, member })
    }

    /// For the audit log; the holder of the owner's key need not be a member.
    pub(super) fn by(&self, at_ms: i64) -> By {
        By { member: self.member.as_ref().map(|member| member.id.clone()), at_ms }
    }

    fn require(&self, role: Role) -> Result<(), Refusal> {
        if self.role >= role {
            return Ok(());
        }
        Err(Refusal::new(ErrorCode::Forbidden, format!("expected the role `{}` or above", role.as_str())))
    }
}

async fn list(state: State, path: web::Path<String>, signed: Signed) -> Answer {
    let caller = Caller::of(&state, &path.into_inner().into(), &signed).await?;
    let sessions = sessions(&state, &caller.mesh.id).await;
    let members = store::load_all(&state.storage(&caller.mesh.id)).await?;
    let members = members.into_iter().filter(|member| member.revoked_at_ms.is_none());
    let members = members.map(|member| view(member, &sessions)).collect();
    Ok(HttpResponse::Ok().json(MemberList { ok: true, members }))
}

async fn patch(state: State, path: web::Path<(String, String)>, signed: Signed) -> Answer {
    let (mesh, target) = path.into_inner();
    let caller = Caller::of(&state, &mesh.into(), &signed).await?;
    let asked: PatchMember = signed.json()?;
    let unknown = || Refusal::new(ErrorCode::NotFound, "no such member in this mesh");
    let target = store::load(&state.storage(&caller.mesh.id), &MemberId::from(target)).await?;
    let target = target.filter(|member| member.revoked_at_ms.is_none()).ok_or_else(unknown)?;
    allow_patch(&caller, &target, &asked)?;
    let (patch, changes) = checked(&asked, &target)?;
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

/// Owners edit everything but their own role; admins edit anyone below them and each other, but no roles; members edit
/// of themselves what the mesh's policy allows.
fn allow_patch(caller: &Caller, target: &Member, asked: &PatchMember) -> Result<(), Refusal> {
    let forbid = |message: &str| Err(Refusal::new(ErrorCode::Forbidden, message));
    if asked.permission.is_some() {
        caller.require(Role::Owner)?;
        if target.role == Role::Owner {
            return forbid("the owner's role cannot be changed");
        }
    }
    let own = caller.member.as_ref().is_some_and(|member| member.id == target.id);
    if caller.role == Role::Owner || (caller.role == Role::Admin && (own || target.role <= Role::Admin)) {
        return Ok(());
    }
    if !own {
        return forbid("expected the member itself, an admin or the owner");
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
        |name: &str| if name == target.display_name { rules::display_name(name) } else { rules::member_name(name) };
    let patch = MemberPatch {
        display_name: asked.display_name.as_deref().map(name).transpose()?,
        role_tag: asked.role_tag.as_deref().map(rules::role_tag).transpose()?,
        default_groups: asked.groups.as_deref().map(rules::groups).transpose()?,
        message_mode: asked.message_mode.as_deref().map(rules::message_mode).transpose()?,
        role: asked.permission.as_deref().map(rules::invited_role).transpose()?,
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

async fn settings(state: State, path: web::Path<String>, signed: Signed) -> Answer {
    let caller = Caller::of(&state, &path.into_inner().into(), &signed).await?;
    caller.require(Role::Admin)?;
    let asked: PatchSettings = signed.json()?;
    to_the_end(async move {
        let by = caller.by(state.clock.now_ms());
        if !meshes::set_policy(&state.storage(&caller.mesh.id), &asked.self_editable, &by).await? {
            return Err(ErrorCode::MeshNotFound.into());
        }
        state.directory.reload_members(&caller.mesh.id).await;
        Ok(HttpResponse::Ok().json(serde_json::json!({ "ok": true })))
    })
    .await
}

async fn grants(state: State, path: web::Path<String>, signed: Signed) -> Answer {
    let caller = Caller::of(&state, &path.into_inner().into(), &signed).await?;
    let member = caller.member.ok_or(ErrorCode::Unauthorized)?;
    Ok(HttpResponse::Ok().json(GrantsView { ok: true, grants: member.grants }))
}

async fn update_grants(state: State, path: web::Path<String>, signed: Signed) -> Answer {
    let caller = Caller::of(&state, &path.into_inner().into(), &signed).await?;
    let member = caller.member.ok_or(ErrorCode::Unauthorized)?;
    let mut asked: UpdateGrants = signed.json()?;
    for list in asked.grants.values_mut().flatten() {
        list.sort_unstable();
        list.dedup();
    }
    to_the_end(async move {
        let by = By::member(&member.id, state.clock.now_ms());
        let grants = store::update_grants(&state.storage(&caller.mesh.id), &member.id, &asked.grants, &by).await?;
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
