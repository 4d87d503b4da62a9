//! Tasks: work that one peer describes and another one takes.

use claudemesh_protocol::features::tasks::{ListTasks, TaskEntry, TaskStatus};
use claudemesh_protocol::time::parse_iso;

use crate::clock::now_ms;
use crate::connection::{Connection, ConnectionError};

pub mod cli;
pub mod notes;
pub mod tools;

/// A list of tasks, or the beginning of one.
#[derive(Debug, Default)]
pub struct Listed {
    /// In the order of the list.
    pub tasks: Vec<TaskEntry>,
    /// There is more: ask again with this as `cursor`.
    pub next: Option<String>,
}

impl Connection {
    /// Tasks with these properties, from `cursor` on. Stops once `most` rows were read.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn list_tasks(&self, filter: &ListTasks, most: usize) -> Result<Listed, ConnectionError> {
        let mut listed = Listed { tasks: vec![], next: filter.cursor.clone() };
        loop {
            let left = u32::try_from(most.saturating_sub(listed.tasks.len())).unwrap_or(u32::MAX);
            let page = ListTasks { cursor: listed.next, limit: Some(left), ..filter.clone() };
            let page = self.request(page).await?;
            listed.tasks.extend(page.tasks);
            listed.next = page.next;
            if listed.next.is_none() || listed.tasks.len() >= most {
                return Ok(listed);
            }
        }
    }
}

/// It is not done, and its time is over.
fn is_overdue(task: &TaskEntry) -> bool {
    let due = task.due_at.as_deref().and_then(parse_iso);
    task.status != TaskStatus::Done && due.is_some_and(|due| due < now_ms())
}

/// The beginning of an id, as lists show it.
fn short(id: &str) -> String {
    id.chars().take(8).collect()
}
