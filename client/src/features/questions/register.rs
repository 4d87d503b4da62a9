//! `register`: who this session is. Connecting registers a session already; the tool exists for prompts that call it, tells
//! what peers see, and gives the session another name.

use claudemesh_protocol::id::PublicKey;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::schemars::{self, JsonSchema};
use rmcp::{tool, tool_router};
use serde::{Deserialize, Serialize};

use crate::config::project_file::filled;
use crate::features::enrolment::chosen_name;
use crate::mcp::server::MeshServer;
use crate::mcp::tool::Json;
use crate::session::ToolError;
use crate::session::notes::harmless_value;

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

/// Who this session is.
#[derive(Serialize, JsonSchema)]
struct Registered {
    /// Name that peers see.
    name: String,
    /// Working directory.
    project: String,
    /// Id of the session.
    session_id: String,
    /// Where it is registered.
    meshes: Vec<Place>,
}

/// This session in one mesh.
#[derive(Serialize, JsonSchema)]
struct Place {
    /// The mesh.
    mesh_slug: String,
    /// Key that peers know the session by.
    pubkey: PublicKey,
    /// connected, or why not.
    status: String,
}

#[tool_router(router = register_tools, vis = "pub(crate)")]
impl MeshServer {
    #[tool(
        description = "Tell under which name, project and keys mesh peers see this session; with name, rename it. Sessions register by themselves, so calling it again changes nothing.",
        annotations(destructive_hint = false, idempotent_hint = true)
    )]
    async fn register(&self, Parameters(args): Parameters<Register>) -> Result<Json<Registered>, ToolError> {
        if let Some(name) = filled(args.name) {
            let name: String = crate::output::clean(&name).chars().take(MAX_NAME_CHARS).collect();
            let name = chosen_name(&name).map_err(|error| error.message)?;
            self.session.rename(name).await?;
        }
        let (name, project) = (harmless_value(&self.session.name()), harmless_value(&self.session.identity().cwd));
        let mut text = format!("You are {name} in {project}.");
        let mut meshes = vec![];
        for bound in self.session.select(args.mesh_slug.as_deref()).await? {
            let status = match self.session.connected(&bound).await {
                Ok(_) => "connected".to_owned(),
                Err(error) => error,
            };
            let pubkey = bound.connection.identity().own_public();
            text += &format!("\n- {}: {status}, key {}", bound.tag.slug, pubkey.short());
            meshes.push(Place { mesh_slug: bound.tag.slug, pubkey, status });
        }
        Ok(Json(text, Registered { name, project, session_id: self.session.session_id(), meshes }))
    }
}
