//! One look at a whole mesh.

use claudemesh_protocol::features::info::{MeshInfo, MeshInfoResult, Request, Response};
use claudemesh_protocol::message::ServerMessage;

use crate::connection::{Connection, ConnectionError, REQUEST_TIMEOUT, unexpected};

pub mod cli;
pub mod tools;

impl Connection {
    /// Counts and names of the mesh.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn mesh_info(&self) -> Result<MeshInfoResult, ConnectionError> {
        match self.ask(Request::from(MeshInfo {}), REQUEST_TIMEOUT).await? {
            ServerMessage::Info(Response::MeshInfoResult(info)) => Ok(info),
            other => Err(unexpected("mesh_info_result", &other)),
        }
    }
}
