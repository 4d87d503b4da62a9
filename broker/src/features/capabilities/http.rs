//! Who may do what, for the shell and for scripts: the same requests as over a socket, by the same handlers.

use actix_web::HttpResponse;
use claudemesh_protocol::features::capabilities::{EditPermissions, GetPermissions, SetPermissions};

use crate::http::State;
use crate::http::caller::Caller;
use crate::refusal::Refusal;

type Answer = Result<HttpResponse, Refusal>;

crate::routes! {
    get "/cli/mesh/{slug}/permissions" => get, members;
    post "/cli/mesh/{slug}/permissions" => edit, needs CanManagePermissions;
}

/// None of these routes is for API keys.
pub const OPERATIONS: &[crate::http::openapi::Operation] = &[];

async fn get(state: State, caller: Caller) -> Answer {
    let request = GetPermissions { member: None };
    Ok(HttpResponse::Ok().json(state.directory.request(&caller.mesh.id, caller.principal(), request).await?))
}

async fn edit(state: State, caller: Caller) -> Answer {
    let asked: EditPermissions = caller.json()?;
    let request = SetPermissions {
        member: asked.member_id.map(|member| member.to_string()),
        default: asked.default,
        permissions: asked.permissions,
    };
    Ok(HttpResponse::Ok().json(state.directory.request(&caller.mesh.id, caller.principal(), request).await?))
}
