//! The tools of every feature, one line each: the router that `#[tool_router]` makes in `features/<feature>/tools.rs`.

use std::sync::Arc;

use rmcp::handler::server::router::tool::ToolRouter;
use serde_json::json;

use super::params;
use super::server::MeshServer;

type Router = ToolRouter<MeshServer>;

const ROUTERS: &[fn() -> Router] = &[
    MeshServer::messaging_tools,
    MeshServer::question_tools,
    MeshServer::register_tools,
    MeshServer::permission_tools,
    MeshServer::presence_tools,
    MeshServer::group_tools,
    MeshServer::topic_tools,
    MeshServer::state_tools,
    MeshServer::task_tools,
    MeshServer::stream_tools,
    MeshServer::clock_tools,
    MeshServer::schedule_tools,
    MeshServer::memory_tools,
    MeshServer::context_tools,
    MeshServer::file_tools,
    MeshServer::skill_tools,
    MeshServer::sql_tools,
    MeshServer::vault_tools,
    MeshServer::peer_file_tools,
    MeshServer::mcp_server_tools,
    MeshServer::service_tools,
    MeshServer::info_tools,
];

/// All tools, with plain schemas.
pub(super) fn all() -> Router {
    let mut tools = Router::default();
    for router in ROUTERS {
        tools.merge(router());
    }
    for route in tools.map.values_mut() {
        let mut schema = (*route.attr.input_schema).clone();
        params::plain(&mut schema);
        route.attr.input_schema = Arc::new(schema);
        if let Some(schema) = route.attr.output_schema.as_mut().map(Arc::make_mut) {
            params::plain(schema);
            // The server adds it, see `MeshServer::call`.
            let notice = json!({"type": "string", "description": "What else waits for this session."});
            if let Some(properties) = schema.get_mut("properties").and_then(serde_json::Value::as_object_mut) {
                properties.insert("notice".into(), notice);
            }
        }
    }
    tools
}
