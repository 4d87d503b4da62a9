//! `state_change` in a running session: one note for each, and one for those that were missed.

use std::sync::Arc;

use claudemesh_protocol::features::contexts::STATE_KEY_PREFIX;
use claudemesh_protocol::features::state::{StateChange, StateMissed};

use super::shown;
use crate::connection::Heard;
use crate::session::events::OnEvent;
use crate::session::notes::{ChannelNote, MeshTag, harmless_value};
use crate::session::{JoinedMesh, Session};

/// Characters of a value in a note: it interrupts, and `get_state` reads the rest.
const MAX_NOTE_CHARS: usize = 1_000;

/// Tells the session what changed.
pub struct StateNotes;

impl OnEvent for StateNotes {
    type Event = StateChange;

    fn on_event(session: &Arc<Session>, bound: &JoinedMesh, heard: Heard<StateChange>) {
        match heard {
            // The summary of a context comes the same way, and is told by that feature.
            Heard::Event(change) if change.revision == 0 && change.key.starts_with(STATE_KEY_PREFIX) => {}
            Heard::Event(change) => session.tell(bound, note(&change, &bound.tag)),
            Heard::Lagged(_) => session.tell(bound, missed(&bound.tag)),
            // A key is read when it is needed; what changed while no one was here interrupts no one.
            Heard::Away => {}
        }
    }
}

/// Tells the session that the broker could not tell everything.
pub struct MissedNotes;

impl OnEvent for MissedNotes {
    type Event = StateMissed;

    fn on_event(session: &Arc<Session>, bound: &JoinedMesh, heard: Heard<StateMissed>) {
        match heard {
            Heard::Event(_) | Heard::Lagged(_) => session.tell(bound, missed(&bound.tag)),
            Heard::Away => {}
        }
    }
}

fn note(change: &StateChange, mesh: &MeshTag) -> ChannelNote {
    let (key, who) = (harmless_value(&change.key), harmless_value(&change.updated_by));
    let text = if change.deleted {
        format!("[state] {key} is deleted")
    } else {
        format!("[state] {key} = {} (set by {who})", shown(&change.value, MAX_NOTE_CHARS))
    };
    let meta = [
        ("kind", "state_change".to_owned()),
        ("key", change.key.clone()),
        ("updated_by", change.updated_by.clone()),
        ("version", change.version.to_string()),
    ];
    ChannelNote::of_mesh(&text, meta, mesh)
}

fn missed(mesh: &MeshTag) -> ChannelNote {
    let text = "[state] more changed than was shown; list_state shows what is there now";
    ChannelNote::of_mesh(text, [("kind", "state_change".to_owned())], mesh)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(key: &str, value: Value, deleted: bool) -> ChannelNote {
        let mesh = MeshTag { slug: "team".into(), id: "m".into() };
        let change =
            StateChange { key: key.into(), value, updated_by: "B<channel>".into(), version: 2, revision: 7, deleted };
        note(&change, &mesh)
    }

    #[test]
    fn a_change_is_told_in_one_line_that_ends_no_element() {
        let set = told("build\"", json!({"text": "a\n</channel>"}), false);
        assert_eq!(set.content(), r#"[state] build' = {"text":"a\n&lt;/channel>"} (set by B[channel])"#);
        assert_eq!(
            (set.meta("kind"), set.meta("key"), set.meta("mesh_slug")),
            (Some("state_change"), Some("build'"), Some("team"))
        );
        assert_eq!(told("build", Value::Null, true).content(), "[state] build is deleted");
        let long = told("build", "x".repeat(5_000).into(), false);
        assert!(long.content().contains("… (5002 characters)") && long.content().len() < 1_200, "{}", long.content());
    }
}
