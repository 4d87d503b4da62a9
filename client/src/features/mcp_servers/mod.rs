//! MCP servers of the mesh: calling those of others, and running our own for them.
//!
//! `call.rs` calls a tool and reads its result, however large. `hosting/` runs servers of this machine for the mesh: in a session, or
//! in `claudemesh serve`. `kept.rs` is the list of what is to be run, and `asked.rs` holds the calls that a session answers by itself.

use claudemesh_protocol::features::mcp_servers::{McpList, McpSchema, McpServer, ToolDef};

use crate::connection::{Connection, ConnectionError};

pub mod asked;
pub mod call;
pub mod cli;
pub mod hosting;
pub mod kept;
pub mod notes;
pub mod serve;
pub mod tools;

impl Connection {
    /// All servers of the mesh, by name.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn mcp_servers(&self) -> Result<Vec<McpServer>, ConnectionError> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.request(McpList { cursor }).await?;
            all.extend(page.servers);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }

    /// The tools of a server, or one of them, with their schemas.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn mcp_schema(&self, server: &str, tool: Option<&str>) -> Result<Vec<ToolDef>, ConnectionError> {
        let query = McpSchema { server_name: server.to_owned(), tool_name: tool.map(str::to_owned) };
        Ok(self.request(query).await?.tools)
    }
}
