//! What an API key is, who is in its mesh, and the document of all routes for keys.

use actix_web::HttpResponse;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::time::iso;
use schemars::JsonSchema;
use serde::Serialize;

use crate::http::State;
use crate::http::api::ApiCaller;
use crate::http::openapi::{self, Operation};
use crate::refusal::Refusal;

type Answer = Result<HttpResponse, Refusal>;

crate::routes! {
    get "/api/v1/openapi.json" => document, open;
    get "/api/v1/members" => members, key Read;
}

/// What the OpenAPI document says of these routes.
pub const OPERATIONS: &[Operation] = &[
    Operation::new("GET", "/api/v1/openapi.json", "This document"),
    Operation::new("GET", "/api/v1/members", "Members of the mesh").gives::<Members>(),
];

/// Members of a mesh.
#[derive(Serialize, JsonSchema)]
struct Members {
    /// By name.
    members: Vec<Row>,
}

/// One member.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// Id.
    member_id: String,
    /// Key.
    pubkey: String,
    /// Name.
    display_name: String,
    /// `owner`, `admin`, `member`.
    role: String,
    /// ISO time.
    joined_at: String,
    /// Whether a session of it is connected.
    online: bool,
    /// Of the session that came last; `null` when none is connected.
    status: Option<String>,
    /// Of the same session.
    summary: Option<String>,
}

async fn document() -> Answer {
    Ok(HttpResponse::Ok().json(openapi::document()))
}

async fn members(state: State, caller: ApiCaller) -> Answer {
    let key = std::sync::Arc::clone(&caller.key);
    let rows = state.directory.with(&caller.mesh, move |core, _| {
        if core.keys.live(&key, core.clock.now_ms())?.scopes.is_some() {
            return Err(Refusal::new(ErrorCode::ApiKeyTopicOutOfScope, "the API key is confined to topics"));
        }
        let row = |member: &crate::mesh::peers::Member| {
            let sessions = core.roster.of_member(&member.id).iter().filter_map(|at| core.roster.get(*at));
            let shown = sessions.filter(|peer| peer.online() && peer.visible && !peer.ephemeral);
            let last = shown.max_by_key(|peer| peer.connected_at_ms);
            Row {
                member_id: member.id.to_string(),
                pubkey: member.pubkey.to_hex(),
                display_name: member.display_name.clone(),
                role: member.role.as_str().to_owned(),
                joined_at: iso(member.joined_at_ms),
                online: last.is_some(),
                status: last.map(|peer| peer.status.as_str().to_owned()),
                summary: last.and_then(|peer| peer.summary.clone()),
            }
        };
        let live = core.roster.members().filter(|member| member.revoked_at_ms.is_none());
        let mut rows: Vec<Row> = live.map(row).collect();
        rows.sort_by(|one, other| (&one.display_name, &one.member_id).cmp(&(&other.display_name, &other.member_id)));
        Ok(rows)
    });
    Ok(caller.ok(Members { members: rows.await?? }))
}
