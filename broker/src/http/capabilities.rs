//! Who may do what, for the shell and for scripts: the same rules as over the socket.

use actix_web::{HttpResponse, web};
use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::capabilities::EditPermissions;

use super::auth::Signed;
use super::enrolment::to_the_end;
use super::members::Caller;
use super::{AppState, State};
use crate::audit::By;
use crate::db::members::{self, Member, Role};
use crate::db::meshes;
use crate::db::rights::{self, Subject};
use crate::features::capabilities::result;
use crate::refusal::Refusal;

type Answer = Result<HttpResponse, Refusal>;

/// Routes of this module.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .route("/cli/mesh/{slug}/permissions", web::get().to(get))
        .route("/cli/mesh/{slug}/permissions", web::post().to(edit));
}

/// Somebody who is no member learns nothing of a slug, not even whether there is such a mesh.
async fn caller(state: &AppState, slug: &str, signed: &Signed) -> Result<Caller, Refusal> {
    let mesh = meshes::by_slug(&state.db, slug).await?.filter(|mesh| mesh.archived_at_ms.is_none());
    Caller::in_mesh(state, mesh.ok_or(ErrorCode::Unauthorized)?, signed).await
}

async fn get(state: State, path: web::Path<String>, signed: Signed) -> Answer {
    let caller = caller(&state, &path.into_inner(), &signed).await?;
    let storage = state.storage(&caller.mesh.id);
    let rights = rights::load(&storage).await?;
    let sees_all = caller.role == Role::Owner
        || caller.member.as_ref().is_some_and(|own| rights.allows(&own.id, own.role, Capability::CanManagePermissions));
    let own = caller.member.as_ref().map(|member| &member.id);
    let all = members::load_all(&storage).await?;
    let seen = |member: &&Member| member.revoked_at_ms.is_none() && (sees_all || own == Some(&member.id));
    Ok(HttpResponse::Ok().json(result(&caller.mesh.slug, &rights, all.iter().filter(seen))))
}

async fn edit(state: State, path: web::Path<String>, signed: Signed) -> Answer {
    let caller = caller(&state, &path.into_inner(), &signed).await?;
    let asked: EditPermissions = signed.json()?;
    let subject = match (asked.member_id, asked.default) {
        (Some(member), false) => Subject::Member(member),
        (None, true) => Subject::Start,
        _ => return Err(Refusal::new(ErrorCode::InvalidArgs, "expected either `member_id` or `default`")),
    };
    to_the_end(async move {
        let storage = state.storage(&caller.mesh.id);
        // The holder of the owner's key is the owner, whatever member it is beside that.
        let by = match &caller.member {
            Some(member) if caller.role > member.role => By::nobody(state.clock.now_ms()),
            _ => caller.by(state.clock.now_ms()),
        };
        rights::edit(&storage, &subject, &asked.permissions, &by).await?;
        state.directory.reload_members(&caller.mesh.id).await;
        let rights = rights::load(&storage).await?;
        let member = match &subject {
            Subject::Member(id) => members::load(&storage, id).await?,
            Subject::Start => None,
        };
        Ok(HttpResponse::Ok().json(result(&caller.mesh.slug, &rights, member.iter())))
    })
    .await
}
