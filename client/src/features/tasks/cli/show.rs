//! Tasks in words.

use claudemesh_protocol::features::tasks::{TaskEntry, TaskPriority, TaskStatus, TaskStep};

use super::super::{is_overdue, short};
use crate::clock::shown as time;
use crate::output::{Output, Style, word};

/// `[4uWv2xYz] write the tests  claimed by Bob · high · for @frontend · Ann, 12:03`
pub(super) fn line(task: &TaskEntry, out: &Output) -> String {
    let mut facts = vec![status(task, out)];
    if task.priority != TaskPriority::Normal {
        facts.push(task.priority.as_str().into());
    }
    facts.extend(task.assignee.as_deref().map(|name| format!("for {}", word(name, out))));
    if !task.tags.is_empty() {
        facts.push(word(&format!("#{}", task.tags.join(" #")), out));
    }
    let due = if is_overdue(task) { "overdue since" } else { "due" };
    facts.extend(task.due_at.as_deref().map(|at| format!("{due} {}", time(at))));
    facts.push(format!("{}, {}", word(&task.created_by, out), time(&task.created_at)));
    let id = word(&short(task.id.as_str()), out);
    format!(
        "[{}] {}  {}\n",
        out.paint(Style::Cyan, &id),
        word(&task.title, out),
        out.paint(Style::Dim, &facts.join(" · "))
    )
}

fn status(task: &TaskEntry, out: &Output) -> String {
    let who = task.claimed_by.as_deref().map(|name| format!(" by {}", word(name, out))).unwrap_or_default();
    match task.status {
        TaskStatus::Open if task.blocked => "blocked".into(),
        TaskStatus::Open => "open".into(),
        TaskStatus::Claimed if task.stale => format!("claimed{who}, who is gone"),
        TaskStatus::Claimed => format!("claimed{who}"),
        TaskStatus::Done => format!("done{who}"),
    }
}

/// A task with all that is known of it.
pub(super) fn whole(task: &TaskEntry, history: &[TaskStep], out: &Output) -> String {
    let mut text = line(task, out);
    text += &format!("  id {}\n", word(task.id.as_str(), out));
    if !task.depends_on.is_empty() {
        let ids: Vec<String> = task.depends_on.iter().map(|id| word(&short(id.as_str()), out)).collect();
        text += &format!("  waits for {}\n", ids.join(", "));
    }
    let blocks = [("", &task.description), ("  result:\n", &task.result)];
    if blocks.iter().any(|(_, block)| block.is_some()) {
        text += &out.preamble();
    }
    for (head, block) in blocks {
        if let Some(block) = block {
            text += &format!("{head}{}", out.block(block));
        }
    }
    for step in history {
        let detail = step.detail.as_deref().map(|detail| format!(": {}", word(detail, out))).unwrap_or_default();
        let step = format!("  {}  {} {}{detail}", time(&step.at), word(&step.by, out), step_word(&step.what, out));
        text += &format!("{}\n", out.paint(Style::Dim, &step));
    }
    text
}

fn step_word(what: &str, out: &Output) -> String {
    word(&what.replace('_', " "), out)
}
