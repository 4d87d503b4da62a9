//! Samples of every message, and the reference pages made from them (feature `testing`).
//!
//! The samples feed the wire snapshots, the fuzz seeds and `docs/wire.md`; a test fails when a tag has none. All values
//! are fixed, so whatever is made from them can be compared text by text.

mod client;
pub mod docs;
mod http;
mod server;

pub use client::samples as client_samples;
pub use http::samples as http_samples;
pub use server::samples as server_samples;

use crate::features::groups::Group;
use crate::id::PublicKey;

/// Row id of a mesh.
pub const MESH: &str = "kq3J7vY0sD2mWn8RbXcZ5pTgHfLa1uEo";
/// Row id of a member.
pub const MEMBER: &str = "Zx81QmNvB4cRt6YuIoPaSdFgHjKlWeT0";
/// Id of a message.
pub const MESSAGE: &str = "p0OiUyT7rEwQ1aSdFgHjKlMnBvCxZ234";
/// An ISO time.
pub const AT: &str = "2026-04-08T09:53:03.000Z";
/// The same in Unix milliseconds.
pub const AT_MS: i64 = 1_775_641_983_000;

/// A member key.
pub fn member_key() -> PublicKey {
    PublicKey::from_bytes([0xa1; 32])
}

/// A session key.
pub fn session_key() -> PublicKey {
    PublicKey::from_bytes([0xb2; 32])
}

/// The key of a mesh owner.
pub fn owner_key() -> PublicKey {
    PublicKey::from_bytes([0xc3; 32])
}

/// 128 hex digits in the place of a signature. It does not verify.
pub fn signature() -> String {
    "5e".repeat(64)
}

fn groups() -> Vec<Group> {
    vec![Group { name: "frontend".into(), role: Some("lead".into()) }, Group { name: "all/eu".into(), role: None }]
}
