//! `state_change` in a running session: one note for each, and one for those that were missed.

use std::sync::Arc;

use claudemesh_protocol::features::contexts::STATE_KEY_PREFIX;
use claudemesh_protocol::features::state::{StateChange, StateEntry, StateMissed};
use claudemesh_protocol::session::HelloAck;

use super::{greeted, shown};
use crate::connection::Heard;
use crate::session::events::{OnEvent, OnWelcome};
use crate::session::notes::{ChannelNote, MeshTag, harmless_value};
use crate::session::{JoinedMesh, Session};

/// Characters of a value in a note: it interrupts, and `get_state` reads the rest.
const MAX_NOTE_CHARS: usize = 1_000;
/// Changes of the time away that are read.
const MAX_READ: usize = 200;
/// Of these, how many are told, and characters of each value.
const MAX_MEANWHILE: usize = 10;
const MAX_MEANWHILE_CHARS: usize = 120;

/// Tells the session what changed.
pub struct StateNotes;

impl OnEvent for StateNotes {
    type Event = StateChange;

    fn on_event(session: &Arc<Session>, bound: &JoinedMesh, heard: Heard<StateChange>) {
        match heard {
            // The summary of a context comes the same way, and is told by that feature.
            Heard::Event(change) if change.revision == 0 && change.key.starts_with(STATE_KEY_PREFIX) => {}
            Heard::Event(change) => {
                bound.state_seen.told(change.revision);
                session.tell(bound, note(&change, &bound.tag));
            }
            Heard::Lagged(_) => session.tell(bound, missed(&bound.tag)),
            Heard::Away => catch_up(session, bound),
        }
    }
}

/// Notes where the session begins, so that it learns what changed while its connection was lost.
#[derive(Default)]
pub struct FirstWelcome;

impl OnWelcome for FirstWelcome {
    async fn on_welcome(&mut self, _: &Arc<Session>, bound: &JoinedMesh, ack: &HelloAck) {
        if let Some(revision) = greeted(ack) {
            bound.state_seen.begin(revision);
        }
    }
}

/// Tells the session what changed while it was away: one note, of a key that changed several times the last value.
fn catch_up(session: &Arc<Session>, bound: &JoinedMesh) {
    let Some(now) = bound.connection.hello_ack().ok().and_then(|ack| greeted(&ack)) else { return };
    let Some(before) = bound.state_seen.move_to(now) else { return };
    let (session, bound) = (Arc::clone(session), bound.clone());
    tokio::spawn(async move {
        match bound.connection.list_state(None, Some(before), MAX_READ).await {
            Ok(listed) => {
                let own = session.name();
                // What is newer comes as a note of its own, and what the session wrote itself is no news.
                let is_news = |entry: &StateEntry| entry.revision <= now && entry.updated_by != own;
                let news: Vec<StateEntry> = listed.entries.into_iter().filter(is_news).collect();
                if !news.is_empty() || listed.incomplete {
                    session.tell(&bound, meanwhile(&news, listed.more || listed.incomplete, &bound.tag));
                }
            }
            // Lost once more; the next time the newest values are in the list.
            Err(error) => tracing::warn!(%error, "what changed meanwhile could not be read"),
        }
    });
}

fn meanwhile(news: &[StateEntry], more: bool, mesh: &MeshTag) -> ChannelNote {
    let line = |entry: &StateEntry| {
        let key = harmless_value(&entry.key);
        if entry.deleted {
            return format!("{key} is deleted");
        }
        format!("{key} = {} (set by {})", shown(&entry.value, MAX_MEANWHILE_CHARS), harmless_value(&entry.updated_by))
    };
    // The newest come last.
    let first = news.len().saturating_sub(MAX_MEANWHILE);
    let lines: Vec<String> = news[first..].iter().map(line).collect();
    let rest = match (first, more) {
        (0, false) => String::new(),
        (0, true) => "; and others".into(),
        (count, false) => format!("; and {count} more"),
        (count, true) => format!("; and {count} more at least"),
    };
    let hint = if rest.is_empty() { "" } else { " (list_state shows what is there now)" };
    let text = format!("[state] changed while you were away: {}{rest}{hint}", lines.join("; "));
    ChannelNote::of_mesh(&text, [("kind", "state_change".to_owned()), ("count", news.len().to_string())], mesh)
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

    use super::super::Seen;
    use super::*;

    fn told(key: &str, value: Value, deleted: bool) -> ChannelNote {
        let mesh = MeshTag { slug: "team".into(), id: "m".into() };
        let change =
            StateChange { key: key.into(), value, updated_by: "B<channel>".into(), version: 2, revision: 7, deleted };
        note(&change, &mesh)
    }

    fn entry(key: &str, value: Value, deleted: bool) -> StateEntry {
        let (updated_by, updated_at) = ("B</channel>".into(), String::new());
        StateEntry {
            key: key.into(),
            value,
            updated_by,
            updated_at,
            version: 1,
            revision: 1,
            deleted,
            expires_at: None,
        }
    }

    #[test]
    fn what_changed_meanwhile_is_one_bounded_note() {
        let mesh = MeshTag { slug: "team".into(), id: "m".into() };
        let two = [entry("build", json!("</channel>"), false), entry("lock", Value::Null, true)];
        assert_eq!(
            meanwhile(&two, false, &mesh).content(),
            "[state] changed while you were away: build = \"&lt;/channel>\" (set by B[/channel]); lock is deleted"
        );
        let many: Vec<StateEntry> =
            (0..199).map(|number| entry(&format!("k{number}"), "x".repeat(9_000).into(), false)).collect();
        let note = meanwhile(&many, true, &mesh);
        assert!(note.content().contains("k198 = ") && !note.content().contains("k188 = "), "{}", note.content());
        assert!(note.content().ends_with("; and 189 more at least (list_state shows what is there now)"));
        assert!(note.content().len() < 2_500, "{}", note.content().len());
    }

    #[test]
    fn what_a_session_has_seen_only_grows_unless_storage_was_put_back() {
        let seen = Seen::default();
        seen.told(7);
        assert_eq!((seen.move_to(9), seen.revision()), (None, None), "it was never welcomed");
        seen.begin(4);
        seen.begin(9);
        seen.told(6);
        seen.told(5);
        assert_eq!(seen.move_to(6), None);
        assert_eq!((seen.move_to(9), seen.revision()), (Some(6), Some(9)));
        assert_eq!((seen.move_to(2), seen.revision()), (None, Some(2)));
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
