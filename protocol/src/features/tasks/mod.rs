//! Tasks: work that one peer describes and another one takes, with a result.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::TaskId;
use crate::time::{iso, parse_iso};

pub mod limits;

/// How urgent a task is. `ready` and `next_task` go by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TaskPriority {
    /// When nothing else is to be done.
    Low,
    /// The usual.
    #[default]
    Normal,
    /// Before others.
    High,
    /// First.
    Urgent,
}

impl TaskPriority {
    /// All, from the least urgent on.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Urgent];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }
}

/// How far a task is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// No one works on it.
    #[default]
    Open,
    /// A session works on it.
    Claimed,
    /// Finished. `completed` is read as the same.
    #[serde(alias = "completed")]
    Done,
}

impl TaskStatus {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Claimed => "claimed",
            Self::Done => "done",
        }
    }
}

/// A time that a task is due at: Unix milliseconds or an ISO text in a request, an ISO text when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueAt(pub i64);

impl Serialize for DueAt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&iso(self.0))
    }
}

impl<'de> Deserialize<'de> for DueAt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Ms(i64),
            Text(String),
        }
        let expected = || serde::de::Error::custom("expected Unix milliseconds or a time such as 2026-04-08T09:53:03Z");
        match Either::deserialize(deserializer).map_err(|_| expected())? {
            // What `iso` can write: the years 0 to 9999.
            Either::Ms(ms) if (-62_167_219_200_000..=253_402_300_799_999).contains(&ms) => Ok(Self(ms)),
            Either::Ms(_) => Err(expected()),
            Either::Text(text) => parse_iso(&text).map(Self).ok_or_else(expected),
        }
    }
}

/// A field that may be absent (leave it), `null` (clear it) or a value.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// `create_task`
///
/// Shape: `{"type":"create_task","title":"write tests"}`.
/// Errors: `task_not_found` for a dependency, `limit` with `bound`, `rate_limited`, `forbidden`, `invalid_args`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CreateTask {
    /// At most [`limits::MAX_TITLE_CHARS`].
    pub title: String,
    /// At most [`limits::MAX_DESCRIPTION_CHARS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Name of a peer, `@group`, or a key; advice, not a lock. At most [`limits::MAX_ASSIGNEE_CHARS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignee: Option<String>,
    /// `normal` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<TaskPriority>,
    /// At most [`limits::MAX_TAGS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Ids of tasks that must be done first; at most [`limits::MAX_DEPENDENCIES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<TaskId>,
    /// When it should be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<DueAt>,
}

impl Default for TaskId {
    /// The id that no task has.
    fn default() -> Self {
        "".into()
    }
}

macro_rules! about_one_task {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// The task: its id, or at least its first 8 characters.
            pub task_id: TaskId,
        }
    )*};
}

about_one_task! {
    /// `get_task`: one task with its history. Errors: `task_not_found`.
    GetTask;
    /// `claim_task`: one of many claimers wins. A claim whose session is gone for 15 minutes may be taken over.
    ///
    /// Errors: `task_not_found`, `task_not_claimable` with `current` (its row), `rate_limited`, `forbidden`.
    ClaimTask;
    /// `unclaim_task`: gives it back. Errors: `task_not_found`, `conflict` when it is not claimed, `forbidden`.
    UnclaimTask;
    /// `reopen_task`: a task that is done is open again; its result goes into the history.
    ///
    /// Errors: `task_not_found`, `conflict` when it is not done, `forbidden`.
    ReopenTask;
    /// `delete_task`. Errors: `task_not_found`, `conflict` while others wait for it, `forbidden`.
    DeleteTask;
}

/// `complete_task`: it is done. It need not be claimed.
///
/// Errors: `task_not_found`; `conflict` with `current` when it is blocked, or done with another result; `forbidden` when another
/// member holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CompleteTask {
    /// The task: its id, or at least its first 8 characters.
    pub task_id: TaskId,
    /// At most [`limits::MAX_RESULT_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
}

/// `update_task`: changes what is given.
///
/// Errors: `task_not_found`, `conflict` (another version, or a circle of dependencies), `limit`, `forbidden`, `invalid_args`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateTask {
    /// The task: its id, or at least its first 8 characters.
    #[serde(rename = "taskId")]
    pub task_id: TaskId,
    /// Another title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Another description; `null`: none.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub description: Option<Option<String>>,
    /// Another assignee; `null`: none.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub assignee: Option<Option<String>>,
    /// Another priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<TaskPriority>,
    /// These tags and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// These dependencies and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depends_on: Option<Vec<TaskId>>,
    /// Another time; `null`: none.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Option<DueAt>>,
    /// Change it only if it has this version now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
}

/// `list_tasks`: newest first, a page at a time; with `ready` what can be taken now, in the order in which to take it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListTasks {
    /// Only these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
    /// Only of this assignee, written as it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignee: Option<String>,
    /// Only with this tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Open and not blocked: the most urgent first, of these the oldest. Without `status`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ready: bool,
    /// 1 to [`limits::MAX_PAGE`]; as many when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before, asked for with the same filters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `next_task`: the first of the ready tasks, those for the asker before those without an assignee; never one for someone else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NextTask {
    /// Claim it in the same step.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub claim: bool,
}

/// `task_created`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskCreated {
    /// Its id.
    pub id: TaskId,
}

/// A task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TaskEntry {
    /// Its id.
    pub id: TaskId,
    /// What is to be done.
    pub title: String,
    /// What has to be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whose it should be.
    pub assignee: Option<String>,
    /// Name of the session that claimed it; once it is done, of the one that completed it.
    pub claimed_by: Option<String>,
    /// How far it is.
    pub status: TaskStatus,
    /// How urgent it is.
    pub priority: TaskPriority,
    /// Name of the session that created it.
    pub created_by: String,
    /// Tags.
    pub tags: Vec<String>,
    /// ISO time.
    pub created_at: String,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Tasks that must be done first.
    #[serde(default)]
    pub depends_on: Vec<TaskId>,
    /// Some of these are not done.
    #[serde(default)]
    pub blocked: bool,
    /// ISO time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<String>,
    /// The session that claimed it is gone for so long that others may take it over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
    /// ISO time of the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<String>,
    /// ISO time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
    /// Grows by one with each change of the task.
    #[serde(default)]
    pub version: u64,
}

/// An entry of the history of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TaskStep {
    /// ISO time.
    pub at: String,
    /// Name of the session.
    pub by: String,
    /// `created`, `claimed`, `taken_over`, `unclaimed`, `completed`, `reopened`, `updated`.
    pub what: String,
    /// Which fields were changed, whose claim was taken over, or the result that was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// `task_list`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskList {
    /// Rows.
    pub tasks: Vec<TaskEntry>,
    /// There is more: ask again with this as `cursor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `task_result`: one task, or none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The task; `null` when no task is ready.
    pub task: Option<TaskEntry>,
    /// With `get_task`: who did what, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<TaskStep>,
}

/// Confirms a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskChanged {
    /// Its whole id.
    pub task_id: TaskId,
    /// The task as it is now; absent when it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskEntry>,
}

/// `task_change`: a task was changed by someone else. Sent to the sessions of its creator, its assignee and its holder, not to
/// clients that say nothing of themselves in their hello.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskChange {
    /// As in the history, or `deleted`.
    pub what: String,
    /// Name of the session that changed it.
    pub by: String,
    /// The task as it is now; of a deleted one as it was.
    pub task: TaskEntry,
}

/// `tasks_waiting`: open tasks that are meant for this session by its name, its member, its key or a group. Told once when it
/// arrives, if there are any; to one that was here before only those that changed meanwhile. Not sent to clients that say nothing of
/// themselves in their hello, nor to verbs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TasksWaiting {
    /// The first [`limits::MAX_WAITING`] without their descriptions: the most urgent first, of these the oldest.
    pub tasks: Vec<TaskEntry>,
    /// How many there are.
    pub count: u32,
}

crate::done_body!(TaskChanged);

crate::wire_feature! {
    requests {
        /// Creates a task.
        CreateTask = "create_task" => answers TaskCreated, needs CanWriteState, once;
        /// One task with its history.
        GetTask = "get_task" => answers TaskResult, needs CanReadShared, repeatable;
        /// Claims an open task, or one whose claim is stale: of many who try, one. Without `confirm` it is answered by `task_list`.
        ClaimTask = "claim_task" => silent TaskChanged, needs CanWriteState, once;
        /// Gives a claimed task back. Without `confirm` it is answered by `task_list`.
        UnclaimTask = "unclaim_task" => silent TaskChanged, needs CanWriteState, once;
        /// Marks a task as done, with its result. Without `confirm` it is answered by `task_list`.
        CompleteTask = "complete_task" => silent TaskChanged, needs CanWriteState, once;
        /// Opens a task that is done again. Without `confirm` it is answered by `task_list`.
        ReopenTask = "reopen_task" => silent TaskChanged, needs CanWriteState, once;
        /// Changes title, description, assignee, priority, tags, dependencies or the time. Without `confirm` it is answered by `task_list`.
        UpdateTask = "update_task" => silent TaskChanged, needs CanWriteState, once;
        /// Deletes a task. Without `confirm` it is answered by `task_list`.
        DeleteTask = "delete_task" => silent TaskChanged, needs CanWriteState, once;
        /// Tasks, newest first, in pages; or those that can be taken now.
        ListTasks = "list_tasks" => answers TaskList, needs CanReadShared, repeatable;
        /// The task to take next; with `claim` it is claimed in the same step.
        NextTask = "next_task" => answers TaskResult, needs CanWriteState, once;
    }
    answers {
        TaskCreated = "task_created",
        TaskResult = "task_result",
        TaskList = "task_list",
    }
    events {
        TaskChange = "task_change",
        TasksWaiting = "tasks_waiting",
    }
}

#[cfg(feature = "testing")]
pub(crate) mod samples;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_due_time_is_read_as_a_number_and_as_a_text() {
        let read = |value| serde_json::from_value::<DueAt>(value);
        assert_eq!(read(json!(1_775_641_983_000_i64)).unwrap(), DueAt(1_775_641_983_000));
        assert_eq!(read(json!("2026-04-08T09:53:03Z")).unwrap(), DueAt(1_775_641_983_000));
        for bad in [json!("tomorrow"), json!(1.5), json!(null), json!(i64::MAX), json!("2026-04-08")] {
            let error = read(bad.clone()).unwrap_err().to_string();
            assert!(error.contains("expected Unix milliseconds"), "{bad}: {error}");
        }
    }

    #[test]
    fn completed_is_another_word_for_done_and_null_clears() {
        let list: ListTasks = serde_json::from_value(json!({"status": "completed"})).unwrap();
        assert_eq!(list.status, Some(TaskStatus::Done));
        let update: UpdateTask = serde_json::from_value(json!({"taskId": "t", "assignee": null})).unwrap();
        assert_eq!((update.assignee, update.description), (Some(None), None));
    }
}
