//! Compares the store with the rows: removes objects that no row names, and marks files whose objects are missing.
//!
//! Objects without a row come from a broker that was killed between storing bytes and their row, or between removing rows and their
//! bytes, and from meshes that were deleted. Rows without objects come from outside: a disk that was restored, a bucket that
//! someone emptied.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::store;
use crate::blobs::{BlobError, Blobs};
use crate::db::{Db, DbError};

/// Objects that are removed together.
const CHUNK: usize = 1_000;

impl From<DbError> for BlobError {
    fn from(error: DbError) -> Self {
        Self::Rows(error.to_string())
    }
}

/// Sweeps all meshes; returns how many objects and files were put in order.
pub(super) async fn run(db: &Db, blobs: &Blobs) -> Result<usize, BlobError> {
    let mut meshes: BTreeSet<String> = blobs.prefixes().await?.into_iter().collect();
    meshes.extend(store::meshes(db).await?);
    let mut total = 0;
    for mesh in meshes {
        total += sweep(db, blobs, &mesh).await?;
    }
    Ok(total)
}

async fn sweep(db: &Db, blobs: &Blobs, mesh: &str) -> Result<usize, BlobError> {
    // In this order: an object that is stored meanwhile is not in the list, and one in the list is being written or has its row.
    let stored: BTreeMap<String, u64> = blobs.list(mesh).await?.into_iter().collect();
    let writing = blobs.being_written();
    let rows = store::objects_of(db, mesh).await?;
    let left: Vec<String> = orphans(&stored, &writing, &rows);
    for chunk in left.chunks(CHUNK) {
        blobs.remove(chunk.to_vec()).await?;
    }
    if !left.is_empty() {
        tracing::info!(mesh.id = mesh, count = left.len(), "bytes without a file removed");
    }
    let lost = missing(blobs, &stored, &rows).await?;
    if !lost.is_empty() {
        let count = store::set_lost(db, mesh, &lost).await?;
        tracing::error!(mesh.id = mesh, count, "the store has lost bytes of files; the files are removed");
    }
    Ok(left.len() + lost.len())
}

fn orphans(stored: &BTreeMap<String, u64>, writing: &HashSet<String>, rows: &BTreeMap<String, String>) -> Vec<String> {
    stored.keys().filter(|name| !writing.contains(*name) && !rows.contains_key(*name)).cloned().collect()
}

/// Files of which an object is missing. The list may be older than a row, so each one is looked at again.
async fn missing(
    blobs: &Blobs,
    stored: &BTreeMap<String, u64>,
    rows: &BTreeMap<String, String>,
) -> Result<Vec<String>, BlobError> {
    let mut lost = BTreeSet::new();
    for (object, file) in rows.iter().filter(|(object, _)| !stored.contains_key(*object)) {
        if !lost.contains(file) && !blobs.exists(object).await? {
            lost.insert(file.clone());
        }
    }
    Ok(lost.into_iter().collect())
}
