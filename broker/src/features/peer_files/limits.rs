//! How much may be asked of peers' folders.

use crate::quota::Quota;

/// Sixty files of a mebibyte: more is a copy, which is what shared files are for.
pub const REQUESTS_PER_MINUTE: Quota = Quota::new(
    "peer_files.requests_per_minute",
    240,
    "Requests for parts of peers' folders that one member makes in a minute.",
);
/// Their answers have to fit into the queue of the connection.
pub const OPEN_PER_PEER: Quota = Quota::new(
    "peer_files.open_per_peer",
    5,
    "Requests for peers' folders of one connection that are not answered yet; at most 5.",
)
.at_most(5);
/// A person may have to decide about each.
pub const OPEN_PER_FOLDER: Quota =
    Quota::new("peer_files.open_per_folder", 32, "Requests for the folder of one session that are not answered yet.");
/// They are walked when an answer comes.
pub const OPEN_PER_MESH: Quota =
    Quota::new("peer_files.open_per_mesh", 1_000, "Requests for peers' folders of a mesh that are not answered yet.");
