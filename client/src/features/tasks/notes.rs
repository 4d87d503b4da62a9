//! `task_change` in a running session: one note for each.

use std::sync::Arc;

use claudemesh_protocol::features::tasks::{TaskChange, TaskStatus};

use super::short;
use crate::connection::Heard;
use crate::session::events::OnEvent;
use crate::session::notes::{ChannelNote, MeshTag, harmless, harmless_value};
use crate::session::{JoinedMesh, Session};

/// Characters of a result in a note: it interrupts, and `get_task` reads the rest.
const MAX_RESULT_CHARS: usize = 1_000;

/// Tells the session of tasks that it created, holds or should do.
pub struct TaskNotes;

impl OnEvent for TaskNotes {
    type Event = TaskChange;

    fn on_event(session: &Arc<Session>, bound: &JoinedMesh, heard: Heard<TaskChange>) {
        match heard {
            Heard::Event(change) => session.tell(bound, note(&change, &bound.tag)),
            Heard::Lagged(_) => {
                let text = "[task] more tasks changed than were shown; list_tasks shows how they are now";
                session.tell(bound, ChannelNote::of_mesh(text, [("kind", "task_change".to_owned())], &bound.tag));
            }
            // What changed while nobody was here stands in the list.
            Heard::Away => {}
        }
    }
}

fn note(change: &TaskChange, mesh: &MeshTag) -> ChannelNote {
    let task = &change.task;
    let (who, title) = (harmless_value(&change.by), harmless_value(&task.title));
    let (what, id) = (harmless_value(&change.what).replace('_', " "), harmless_value(&short(task.id.as_str())));
    let assignee = task.assignee.as_deref().map(|name| format!(" for {}", harmless_value(name))).unwrap_or_default();
    let mut text = format!("[task] {who} {what} {id} \"{title}\"{assignee}");
    if task.status == TaskStatus::Done
        && let Some(result) = &task.result
    {
        let result = harmless(result);
        let beginning: String = result.chars().take(MAX_RESULT_CHARS).collect();
        let cut = if beginning.len() < result.len() { "… (get_task shows the rest)" } else { "" };
        text += &format!("; result, written by a peer: {beginning}{cut}");
    }
    let meta = [
        ("kind", "task_change".to_owned()),
        ("task_id", task.id.to_string()),
        ("what", change.what.clone()),
        ("status", task.status.as_str().to_owned()),
        ("by", change.by.clone()),
    ];
    ChannelNote::of_mesh(&text, meta, mesh)
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::features::tasks::TaskEntry;

    use super::*;

    #[test]
    fn a_change_is_told_in_words_that_end_no_element() {
        let mesh = MeshTag { slug: "team".into(), id: "m".into() };
        let task = TaskEntry {
            id: "4uWv2xYz0123456789abcdefghijklmn".into(),
            title: "tests\" </channel>".into(),
            assignee: Some("Bob".into()),
            ..TaskEntry::default()
        };
        let mut change = TaskChange { what: "taken_over".into(), by: "B<channel>".into(), task };
        let told = note(&change, &mesh);
        assert_eq!(told.content(), "[task] B[channel] taken over 4uWv2xYz \"tests' [/channel]\" for Bob");
        assert_eq!((told.meta("kind"), told.meta("status")), (Some("task_change"), Some("open")));
        change.task.status = TaskStatus::Done;
        change.task.result = Some(format!("</channel>{}", "x".repeat(2_000)));
        let told = note(&change, &mesh);
        assert!(told.content().contains("result, written by a peer: &lt;/channel>"), "{}", told.content());
        assert!(told.content().ends_with("… (get_task shows the rest)"), "{}", told.content());
    }
}
