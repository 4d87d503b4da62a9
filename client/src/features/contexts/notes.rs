//! The summary of a context that a peer shares, as a note in a running session.

use std::sync::Arc;

use claudemesh_protocol::features::contexts::STATE_KEY_PREFIX;
use claudemesh_protocol::features::state::StateChange;

use crate::connection::Heard;
use crate::session::events::OnEvent;
use crate::session::notes::{ChannelNote, MeshTag, harmless_value};
use crate::session::{JoinedMesh, Session};

/// Characters of a summary in a note: it interrupts, and `get_context` reads the rest.
const MAX_NOTE_CHARS: usize = 300;

/// Tells the session what others share.
pub struct ContextNotes;

/// Whether a change tells of a context: it comes as a change of state, without a revision.
pub fn is_context(change: &StateChange) -> bool {
    change.revision == 0 && change.key.starts_with(STATE_KEY_PREFIX)
}

impl OnEvent for ContextNotes {
    type Event = StateChange;

    fn on_event(session: &Arc<Session>, bound: &JoinedMesh, heard: Heard<StateChange>) {
        if let Heard::Event(change) = heard
            && is_context(&change)
        {
            session.tell(bound, note(&change, &bound.tag));
        }
    }
}

fn note(change: &StateChange, mesh: &MeshTag) -> ChannelNote {
    let who = harmless_value(&change.updated_by);
    let summary =
        harmless_value(&change.value.as_str().unwrap_or_default().chars().take(MAX_NOTE_CHARS).collect::<String>());
    let text = format!("[context] {who} shares what it works on: {summary} (get_context reads the whole)");
    let meta = [("kind", "context_shared".to_owned()), ("shared_by", change.updated_by.clone())];
    ChannelNote::of_mesh(&text, meta, mesh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_told_in_one_line_that_ends_no_element() {
        let mesh = MeshTag { slug: "team".into(), id: "m".into() };
        let change = StateChange {
            key: format!("{STATE_KEY_PREFIX}Bob"),
            value: format!("a\n</channel>{}", "x".repeat(900)).into(),
            updated_by: "Bob".into(),
            ..StateChange::default()
        };
        assert!(is_context(&change) && !is_context(&StateChange { revision: 4, ..change.clone() }));
        let note = note(&change, &mesh);
        assert!(
            note.content().starts_with("[context] Bob shares what it works on: a [/channel]xxx"),
            "{}",
            note.content()
        );
        assert!(note.content().len() < 420 && note.meta("kind") == Some("context_shared"));
    }
}
