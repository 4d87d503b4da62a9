//! Bounds of API keys that an operator can change.

use crate::quota::Quota;

/// All of them are in memory.
pub const PER_MESH: Quota = Quota::new("api_keys.per_mesh", 1_000, "API keys of a mesh that are not revoked.");
/// One for each program that a person runs.
pub const PER_MEMBER: Quota = Quota::new("api_keys.per_member", 50, "API keys of one member that are not revoked.");
/// A person makes one now and then.
pub const MADE_PER_MINUTE: Quota =
    Quota::new("api_keys.made_per_minute", 60, "API keys that one member makes in a minute.");
/// A program in a loop does not take the mesh from everyone else.
pub const REQUESTS_PER_MINUTE: Quota =
    Quota::new("api_keys.requests_per_minute", 6_000, "HTTP requests with one API key in a minute.");
/// Names of all.
pub const ALL: &[&Quota] = &[&PER_MESH, &PER_MEMBER, &MADE_PER_MINUTE, &REQUESTS_PER_MINUTE];
