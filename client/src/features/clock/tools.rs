//! `mesh_clock`, `mesh_set_clock`, `mesh_pause_clock`, `mesh_resume_clock`.

use claudemesh_protocol::call::Call;
use claudemesh_protocol::features::clock::{ClockStatus, GetClock, PauseClock, ResumeClock, SetClock, Speed};
use rmcp::handler::server::wrapper::Parameters;
use rmcp::schemars::{self, JsonSchema};
use rmcp::{tool, tool_router};
use serde::{Deserialize, Serialize};

use super::described;
use crate::connection::Connection;
use crate::mcp::server::MeshServer;
use crate::mcp::tool::{Json, MeshArg};
use crate::session::ToolError;

/// Parameters of `mesh_set_clock`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct NewClock {
    /// How many times faster than real time, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    speed: f64,
    /// ISO time that the clock is set to [default: it goes on; a new clock starts at the present time].
    #[serde(default)]
    sim_time: Option<String>,
    #[serde(flatten)]
    mesh: MeshArg,
}

/// The clock of one mesh.
#[derive(Serialize, JsonSchema)]
struct MeshClock {
    /// The mesh.
    mesh_slug: String,
    #[serde(flatten)]
    clock: ClockStatus,
}

#[tool_router(router = clock_tools, vis = "pub(crate)")]
impl MeshServer {
    #[tool(
        description = "Show the simulated clock of the mesh: speed, tick (a tick is a simulated minute), simulated time, paused or not. Use it when the team works in simulated time.",
        annotations(read_only_hint = true)
    )]
    async fn mesh_clock(&self, Parameters(mesh): Parameters<MeshArg>) -> Result<Json<MeshClock>, ToolError> {
        self.clock_of(&mesh, GetClock {}).await
    }

    #[tool(
        description = "Start the simulated clock of the mesh or change its speed (1 to 100 times real time) or its time. Every session is told of each tick.",
        annotations(destructive_hint = false)
    )]
    async fn mesh_set_clock(&self, Parameters(args): Parameters<NewClock>) -> Result<Json<MeshClock>, ToolError> {
        if !(1.0..=100.0).contains(&args.speed) {
            return Err("speed: expected a number from 1 to 100".into());
        }
        let set = SetClock { speed: Some(Speed::of(args.speed)), sim_time: args.sim_time };
        self.clock_of(&args.mesh, set).await
    }

    #[tool(
        description = "Pause the simulated clock of the mesh for everyone.",
        annotations(destructive_hint = false, idempotent_hint = true)
    )]
    async fn mesh_pause_clock(&self, Parameters(mesh): Parameters<MeshArg>) -> Result<Json<MeshClock>, ToolError> {
        self.clock_of(&mesh, PauseClock {}).await
    }

    #[tool(
        description = "Let the paused simulated clock of the mesh go on.",
        annotations(destructive_hint = false, idempotent_hint = true)
    )]
    async fn mesh_resume_clock(&self, Parameters(mesh): Parameters<MeshArg>) -> Result<Json<MeshClock>, ToolError> {
        self.clock_of(&mesh, ResumeClock {}).await
    }
}

impl MeshServer {
    async fn clock_of<C: Call<Answer = ClockStatus>>(
        &self,
        mesh: &MeshArg,
        request: C,
    ) -> Result<Json<MeshClock>, ToolError> {
        let ask = |connection: Connection| async move { connection.request(request).await };
        let (bound, clock) = self.in_one_mesh(mesh.slug(), ask).await?;
        let text = format!("{} ({})", described(&clock), bound.tag.slug);
        Ok(Json(text, MeshClock { mesh_slug: bound.tag.slug, clock }))
    }
}
