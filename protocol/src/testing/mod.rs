//! Samples of every message, and the reference pages made from them (feature `testing`).
//!
//! The samples feed the wire snapshots, the fuzz seeds and `docs/wire.md`; a test fails when a tag has none. All values
//! are fixed, so whatever is made from them can be compared text by text.

pub mod docs;
mod http;

pub use http::samples as http_samples;

use crate::call::{Confirmation, Done, Sessions};
use crate::error::{Bound, ErrorCode, ErrorFrame};
use crate::features::groups::Group;
use crate::features::messaging::Candidate;
use crate::features::presence::WriteTarget;
use crate::id::PublicKey;
use crate::message::{self, ClientMessage, ServerMessage};

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

/// Two groups, one with a role.
pub(crate) fn groups() -> Vec<Group> {
    vec![Group { name: "frontend".into(), role: Some("lead".into()) }, Group { name: "all/eu".into(), role: None }]
}

/// A write for this connection.
pub(crate) fn here() -> WriteTarget {
    WriteTarget::default()
}

/// A write for another session of the member.
pub(crate) fn there() -> WriteTarget {
    WriteTarget { target_session: Some("5f0c9f0e-3c53-4ad5-9b0a-0a3ad0f4b1c2".into()) }
}

/// What a target may mean.
pub(crate) fn candidate(name: &str, online: bool) -> Candidate {
    Candidate {
        kind: if online { "session" } else { "member" }.into(),
        pubkey: if online { session_key() } else { member_key() },
        member_pubkey: member_key(),
        name: name.into(),
        online,
        cwd: online.then(|| "/home/alice/shop".into()),
        member_name: online.then(|| "Alice".into()),
        hostname: online.then(|| "laptop".into()),
        last_seen_at: (!online).then(|| AT.into()),
    }
}

fn named<M>(samples: Vec<(&'static str, M)>, tag: impl Fn(&M) -> &'static str) -> Vec<(String, M)> {
    let name = |variant: &str, message: &M| {
        if variant.is_empty() { tag(message).to_owned() } else { format!("{}/{variant}", tag(message)) }
    };
    samples.into_iter().map(|(variant, message)| (name(variant, &message), message)).collect()
}

/// One or more messages per tag a client may send; names are `<tag>` or `<tag>/<variant>`.
pub fn client_samples() -> Vec<(String, ClientMessage)> {
    named(message::samples::requests(), ClientMessage::tag)
}

/// One or more messages per tag the broker may send; names are `<tag>` or `<tag>/<variant>`.
pub fn server_samples() -> Vec<(String, ServerMessage)> {
    let mut all = message::samples::responses();
    all.push(("", Confirmation::from(Done::default()).into()));
    all.push(("full", Confirmation::from(Done::of(&Sessions { sessions: 2 })).into()));
    all.extend(errors().into_iter().map(|(variant, frame)| (variant, frame.into())));
    named(all, ServerMessage::tag)
}

/// Sample and JSON pointer of every field that is written as `null` when it has no value.
pub fn nulls() -> Vec<(&'static str, &'static str)> {
    message::samples::nulls()
}

fn errors() -> Vec<(&'static str, ErrorFrame)> {
    let bare = ErrorFrame::new(ErrorCode::InvalidArgs, "`set_status`: expected `idle`, `working` or `dnd`");
    let full = ErrorFrame {
        id: Some("42".into()),
        retry_after_ms: Some(1_500),
        candidates: vec![candidate("alice", true)],
        ..ErrorFrame::new(ErrorCode::AmbiguousTarget, "`al` may mean several recipients")
    };
    let conflict = ErrorFrame {
        current: Some(serde_json::json!({"value": "green", "version": 4})),
        ..ErrorFrame::new(ErrorCode::Conflict, "`build` has version 4, expected 3")
    };
    let bound = Bound { name: "state.keys_per_mesh".into(), limit: 10_000, used: 10_000 };
    let limit = ErrorFrame {
        bound: Some(bound),
        ..ErrorFrame::new(ErrorCode::Limit, "the mesh has 10000 of 10000 state keys")
    };
    vec![("", bare), ("full", full), ("conflict", conflict), ("limit", limit)]
}
