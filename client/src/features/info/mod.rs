//! One look at a whole mesh.

use claudemesh_protocol::features::info::{MeshInfo, MeshInfoResult};

use crate::connection::{Connection, ConnectionError};

pub mod cli;
pub mod tools;

impl Connection {
    /// Counts and names of the mesh.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn mesh_info(&self) -> Result<MeshInfoResult, ConnectionError> {
        self.request(MeshInfo {}).await
    }
}
