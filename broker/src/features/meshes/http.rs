//! A mesh after it was made: what it is, its name and settings, its end, and how its owner comes back.
//!
//! The signer is a live member with the capability that is needed, or holds the owner's key.

use actix_web::{HttpResponse, web};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::meshes::{
    MeshDeleted, MeshSettings, MeshView, PatchMesh, PatchSettings, Rejoin, Rejoined,
};
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::time::iso;

use crate::db::DbError;
use crate::db::members::{self, Member, Role};
use crate::db::meshes::{self, MeshRecord};
use crate::db::rights::{self, Subject};
use crate::http::auth::Signed;
use crate::http::caller::{Caller, live};
use crate::http::{AppState, State, fields, to_the_end};
use crate::mesh::own_limits;
use crate::refusal::Refusal;
use crate::session::CloseReason;

type Answer = Result<HttpResponse, Refusal>;

crate::routes! {
    get "/mesh/{id}" => show, members;
    patch "/mesh/{id}" => rename, needs CanManageMesh;
    delete "/mesh/{id}" => delete, needs CanDeleteMesh;
    post "/mesh/{id}/archive" => archive, needs CanDeleteMesh;
    post "/mesh/{id}/restore" => restore, needs CanDeleteMesh;
    post "/mesh/{id}/rejoin" => rejoin, open;
    get "/mesh/{id}/settings" => settings, members;
    patch "/mesh/{id}/settings" => change_settings, needs CanManageMesh;
}

/// None of these routes is for API keys.
pub const OPERATIONS: &[crate::http::openapi::Operation] = &[];

async fn view(state: &AppState, mesh: MeshRecord, role: Role) -> Result<MeshView, Refusal> {
    let all = members::load_all(&state.storage(&mesh.id)).await?;
    let live = all.iter().filter(|member| member.revoked_at_ms.is_none()).count();
    Ok(MeshView {
        ok: true,
        mesh_id: mesh.id,
        slug: mesh.slug,
        name: mesh.name,
        created_at: iso(mesh.created_at_ms),
        archived_at: mesh.archived_at_ms.map(iso),
        role: role.as_str().into(),
        members: u32::try_from(live).unwrap_or(u32::MAX),
    })
}

async fn show(state: State, caller: Caller) -> Answer {
    Ok(HttpResponse::Ok().json(view(&state, caller.mesh, caller.member.role).await?))
}

async fn rename(state: State, caller: Caller) -> Answer {
    let asked: PatchMesh = caller.json()?;
    let to = PatchMesh {
        slug: asked.slug.as_deref().map(fields::slug).transpose()?,
        name: asked.name.as_deref().map(fields::display_name).transpose()?,
    };
    if to == PatchMesh::default() {
        return Err(Refusal::new(ErrorCode::InvalidArgs, "expected `slug`, `name` or both"));
    }
    to_the_end(async move {
        let by = caller.by(state.clock.now_ms());
        let renamed = meshes::rename(&state.storage(&caller.mesh.id), &to, &by).await;
        let renamed = renamed.map_err(|error| match (&error, &to.slug) {
            (DbError::Conflict(_), Some(slug)) => {
                let message = format!("the slug `{slug}` is taken on this broker; choose another");
                Refusal::new(ErrorCode::AlreadyExists, message)
            }
            _ => error.into(),
        })?;
        let mesh = renamed.ok_or(ErrorCode::MeshArchived)?;
        state.directory.reload_members(&mesh.id).await;
        tracing::info!(mesh.id = %mesh.id, "mesh renamed");
        Ok(HttpResponse::Ok().json(view(&state, mesh, caller.member.role).await?))
    })
    .await
}

async fn archive(state: State, caller: Caller) -> Answer {
    to_the_end(async move {
        let (by, id) = (caller.by(state.clock.now_ms()), caller.mesh.id.clone());
        if !meshes::archive(&state.storage(&id), &by).await? {
            return Err(ErrorCode::MeshArchived.into());
        }
        state.directory.end(&id, CloseReason::Archived).await;
        tracing::info!(mesh.id = %id, "mesh archived");
        let mesh = MeshRecord { archived_at_ms: Some(by.at_ms), ..caller.mesh };
        Ok(HttpResponse::Ok().json(view(&state, mesh, caller.member.role).await?))
    })
    .await
}

async fn restore(state: State, caller: Caller) -> Answer {
    to_the_end(async move {
        let (by, id) = (caller.by(state.clock.now_ms()), caller.mesh.id.clone());
        if !meshes::restore(&state.storage(&id), &by).await? {
            return Err(Refusal::new(ErrorCode::Invalid, "the mesh is not archived"));
        }
        tracing::info!(mesh.id = %id, "mesh restored");
        let mesh = MeshRecord { archived_at_ms: None, ..caller.mesh };
        Ok(HttpResponse::Ok().json(view(&state, mesh, caller.member.role).await?))
    })
    .await
}

/// The answer comes when the mesh is marked and no one is connected to it any more; its rows are erased behind that.
async fn delete(state: State, caller: Caller) -> Answer {
    to_the_end(async move {
        let (by, id) = (caller.by(state.clock.now_ms()), caller.mesh.id.clone());
        if !meshes::delete(&state.storage(&id), &by).await? {
            return Err(ErrorCode::MeshDeleted.into());
        }
        state.directory.end(&id, CloseReason::Deleted).await;
        tracing::info!(mesh.id = %id, "mesh deleted");
        // The upkeep removes what belonged to it.
        state.erase.notify_one();
        Ok(HttpResponse::Ok().json(MeshDeleted { ok: true, deleted: caller.mesh.slug }))
    })
    .await
}

async fn rejoin(state: State, path: web::Path<String>, signed: Signed) -> Answer {
    let mesh = live(&state, &path.into_inner().into()).await?;
    if mesh.owner_pubkey != signed.key {
        return Err(Refusal::new(ErrorCode::Forbidden, "expected the request to be signed by the mesh's owner key"));
    }
    let asked: Rejoin = signed.json()?;
    let known = members::by_key(&state.storage(&mesh.id), &asked.member_pubkey).await?;
    // A member of before keeps its name, whatever it is.
    let name = match &known {
        Some(member) => member.display_name.clone(),
        None => fields::member_name(&asked.display_name)?,
    };
    state.auth.accept(&signed)?;
    to_the_end(async move {
        let id = MemberId::random(&mut rand::rngs::OsRng);
        let member = Member::new(id, &mesh.id, asked.member_pubkey, &name, Role::Owner, state.clock.now_ms());
        let back = members::rejoin(&state.storage(&mesh.id), &member).await?;
        state.directory.reload_members(&mesh.id).await;
        tracing::info!(mesh.id = %mesh.id, member.id = %back.member.id, "owner rejoined");
        Ok(HttpResponse::Ok().json(Rejoined {
            ok: true,
            mesh_id: mesh.id,
            slug: mesh.slug,
            name: mesh.name,
            member_id: back.member.id,
            display_name: back.member.display_name,
            already_member: back.already_member,
            former: back.former,
        }))
    })
    .await
}

async fn settings_of(state: &AppState, mesh: &MeshRecord) -> Result<MeshSettings, Refusal> {
    let rights = rights::load(&state.storage(&mesh.id)).await?;
    Ok(MeshSettings {
        ok: true,
        self_editable: mesh.self_editable,
        defaults: rights.of(&Subject::Start),
        limits: own_limits::list(&state.config.effective_limits(), &mesh.limits),
    })
}

async fn settings(state: State, caller: Caller) -> Answer {
    Ok(HttpResponse::Ok().json(settings_of(&state, &caller.mesh).await?))
}

async fn change_settings(state: State, caller: Caller) -> Answer {
    let asked: PatchSettings = caller.json()?;
    if asked == PatchSettings::default() {
        return Err(Refusal::new(ErrorCode::InvalidArgs, "expected `selfEditable`, `limits` or both"));
    }
    own_limits::check(&state.config.effective_limits(), &asked.limits)?;
    to_the_end(async move {
        let by = caller.by(state.clock.now_ms());
        let changed = meshes::change_settings(&state.storage(&caller.mesh.id), &asked, &by).await?;
        let mesh = changed.ok_or(ErrorCode::MeshArchived)?;
        state.directory.reload_members(&mesh.id).await;
        Ok(HttpResponse::Ok().json(settings_of(&state, &mesh).await?))
    })
    .await
}
