//! `task_change` in a running session: one note for each.

use std::sync::Arc;

use claudemesh_protocol::features::tasks::{TaskChange, TaskEntry, TaskStatus, TasksWaiting};

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
            // What changed while no one was here stands in the list.
            Heard::Away => {}
        }
    }
}

/// Tells the session which tasks wait for it since it was here last.
pub struct WaitingNotes;

impl OnEvent for WaitingNotes {
    type Event = TasksWaiting;

    fn on_event(session: &Arc<Session>, bound: &JoinedMesh, heard: Heard<TasksWaiting>) {
        if let Heard::Event(waiting) = heard {
            session.tell(bound, waiting_note(&waiting, &bound.tag));
        }
    }
}

fn waiting_note(waiting: &TasksWaiting, mesh: &MeshTag) -> ChannelNote {
    let line = |task: &TaskEntry| {
        let (id, who) = (harmless_value(&short(task.id.as_str())), harmless_value(&task.created_by));
        let blocked = if task.blocked { ", blocked" } else { "" };
        format!("{id} \"{}\" ({}{blocked}, from {who})", harmless_value(&task.title), task.priority.as_str())
    };
    let shown: Vec<String> = waiting.tasks.iter().map(line).collect();
    let more = usize::try_from(waiting.count).unwrap_or(usize::MAX).saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more (list_tasks shows them)") } else { String::new() };
    let (tasks, wait) = if waiting.count == 1 { ("task", "waits") } else { ("tasks", "wait") };
    let text = format!("[task] {} {tasks} {wait} for you: {}{more}", waiting.count, shown.join("; "));
    let meta = [("kind", "tasks_waiting".to_owned()), ("count", waiting.count.to_string())];
    ChannelNote::of_mesh(&text, meta, mesh)
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
    fn tasks_that_wait_are_told_in_one_line() {
        let mesh = MeshTag { slug: "team".into(), id: "m".into() };
        let task = |title: &str, blocked| TaskEntry {
            id: "4uWv2xYz0123456789abcdefghijklmn".into(),
            title: title.into(),
            created_by: "A</channel>".into(),
            blocked,
            ..TaskEntry::default()
        };
        let one = waiting_note(&TasksWaiting { tasks: vec![task("tests", false)], count: 1 }, &mesh);
        assert_eq!(one.content(), "[task] 1 task waits for you: 4uWv2xYz \"tests\" (normal, from A[/channel])");
        assert_eq!((one.meta("kind"), one.meta("count")), (Some("tasks_waiting"), Some("1")));
        let many = waiting_note(&TasksWaiting { tasks: vec![task("a", true), task("b", false)], count: 9 }, &mesh);
        assert_eq!(
            many.content(),
            "[task] 9 tasks wait for you: 4uWv2xYz \"a\" (normal, blocked, from A[/channel]); 4uWv2xYz \"b\" (normal, \
             from A[/channel]) and 7 more (list_tasks shows them)"
        );
    }

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
