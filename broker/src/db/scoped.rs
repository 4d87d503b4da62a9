//! One mesh's part of storage.

use claudemesh_protocol::id::MeshId;

use super::Db;

/// Storage as a feature of one mesh sees it. Store functions take this rather than [`Db`] and fill and filter the mesh's column
/// from [`MeshDb::mesh`], so that an id of another mesh finds nothing. Functions over all meshes take [`Db`].
#[derive(Clone)]
pub struct MeshDb {
    db: Db,
    mesh: MeshId,
}

impl MeshDb {
    /// The part of `db` that belongs to `mesh`.
    pub fn new(db: Db, mesh: MeshId) -> Self {
        Self { db, mesh }
    }

    /// For queries, which name [`MeshDb::mesh`].
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Whose part it is.
    pub fn mesh(&self) -> &MeshId {
        &self.mesh
    }
}
