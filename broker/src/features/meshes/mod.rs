//! The meshes themselves: one row each, and what its members may edit of themselves.

pub mod schema;
pub mod store;
