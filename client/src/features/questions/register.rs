//! `register`: who this session is. Connecting registers a session already; the tool exists for prompts that call it, tells
//! what peers see, and gives the session another name.

use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::CallToolResult;
use rmcp::schemars::{self, JsonSchema};
use rmcp::{tool, tool_router};
use serde::Deserialize;
use serde_json::json;

use crate::config::project_file::filled;
use crate::features::enrolment::chosen_name;
use crate::mcp::hub::ToolError;
use crate::mcp::notes::harmless_value;
use crate::mcp::server::{Answer, MeshServer};

/// Longest display name that is sent.
const MAX_NAME_CHARS: usize = 64;

/// Parameters of `register`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct Register {
    /// Another name for this session, in all meshes [default: keep the name].
    #[serde(default)]
    name: Option<String>,
    /// Tell only about this mesh.
    #[serde(default)]
    mesh_slug: Option<String>,
}

#[tool_router(router = register_tools, vis = "pub(crate)")]
impl MeshServer {
    #[tool(
        name = "register",
        description = "Tell under which name, project and keys mesh peers see this session; with name, rename it. Sessions register by themselves, so calling it again changes nothing.",
        annotations(destructive_hint = false, idempotent_hint = true)
    )]
    async fn register_tool(&self, Parameters(args): Parameters<Register>) -> CallToolResult {
        let result = self.register(args).await;
        Self::finish("register", result)
    }
}

impl MeshServer {
    async fn register(&self, args: Register) -> Result<Answer, ToolError> {
        if let Some(name) = filled(args.name) {
            let name: String = crate::output::clean(&name).chars().take(MAX_NAME_CHARS).collect();
            let name = chosen_name(&name).map_err(|error| error.message)?;
            self.hub.rename(name).await?;
        }
        let (name, project) = (harmless_value(&self.hub.name()), harmless_value(&self.hub.identity().cwd));
        let mut text = format!("You are {name} in {project}.");
        let mut meshes = vec![];
        for bound in self.hub.select(args.mesh_slug.as_deref()).await? {
            let state = match self.hub.connected(&bound).await {
                Ok(_) => "connected".to_owned(),
                Err(error) => error,
            };
            let key = bound.connection.identity().own_public();
            text += &format!("\n- {}: {state}, key {}", bound.tag.slug, key.short());
            meshes.push(json!({"mesh_slug": bound.tag.slug, "pubkey": key, "status": state}));
        }
        let session_id = self.hub.session_id();
        Ok(Answer::data(text, json!({"name": name, "project": project, "session_id": session_id, "meshes": meshes})))
    }
}
