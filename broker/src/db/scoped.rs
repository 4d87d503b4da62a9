//! Storage of one mesh: what features get instead of the whole database.

use claudemesh_protocol::id::MeshId;

use super::Db;

/// The database, narrowed to one mesh.
#[derive(Clone)]
pub struct MeshDb {
    pub(crate) db: Db,
    pub(crate) mesh: MeshId,
}

impl MeshDb {
    /// The storage of a mesh.
    pub fn new(db: Db, mesh: MeshId) -> Self {
        Self { db, mesh }
    }

    /// The pool that it shares with all meshes.
    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    /// The mesh that every statement names.
    pub(crate) fn mesh(&self) -> &MeshId {
        &self.mesh
    }
}
