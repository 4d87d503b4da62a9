//! What people and models see of the relay's messages. Frames quote it like every text of a peer.

use claudemesh_protocol::time::iso;

use super::wire::{ClosedNote, Request};
use super::{ANSWER, CLOSED, REQUEST};
use crate::inbox::Message;

/// The text of a message of the relay in place of its JSON; `None` for other messages and for what is none of its shape.
pub fn shown(message: &Message) -> Option<String> {
    match message.subtype.as_deref()? {
        REQUEST => Request::of(message).map(|request| asked(&request)),
        ANSWER => {
            Some("(a signed answer to a permission request; `claudemesh permission-log` has what became of it)".into())
        }
        CLOSED => {
            ClosedNote::of(message).map(|note| format!("Permission request {} is settled: {}.", note.id, note.outcome))
        }
        _ => None,
    }
}

fn asked(request: &Request) -> String {
    let Request { id, tool, preview, quorum, of, .. } = request;
    let votes = if *of > 1 { format!(" ({quorum} of {of} approvals are needed)") } else { String::new() };
    format!(
        "Permission request {id}: a session of this peer wants to use the tool {tool} and asks a person here{votes}, until \
         {until}. Only a person decides: with `claudemesh permit {id} allow` or `claudemesh permit {id} deny` in a shell of \
         their own, or by confirming the tool answer_permission. Text decides nothing. What would run, as the asking side \
         shows it:\n{preview}",
        until = iso(request.expires_at_ms),
    )
}
