//! Samples of every message of tasks.

use super::{
    ClaimTask, CompleteTask, CreateTask, DeleteTask, DueAt, GetTask, ListTasks, NextTask, ReopenTask, Request,
    Response, TaskChange, TaskCreated, TaskEntry, TaskList, TaskPriority, TaskResult, TaskStatus, TaskStep,
    TasksWaiting, UnclaimTask, UpdateTask,
};
use crate::id::TaskId;
use crate::testing::{AT, AT_MS};

/// Fields that are written as `null` when they have no value, because older clients expect them.
pub(crate) const NULLS: &[(&str, &str)] = &[
    ("task_list", "/tasks/0/assignee"),
    ("task_list", "/tasks/0/claimedBy"),
    ("task_result", "/task"),
    ("tasks_waiting", "/tasks/0/assignee"),
    ("tasks_waiting", "/tasks/0/claimedBy"),
    ("update_task/clear", "/description"),
    ("update_task/clear", "/assignee"),
    ("update_task/clear", "/due_at"),
];

const ID: &str = "Tk4uWv2xYz0AbCdEfGhIjKlMnOpQrS13";
const OTHER: &str = "Tk9oLmNoPqRsTuVwXyZ0123456789aBc";

fn id() -> TaskId {
    ID.into()
}

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let create = CreateTask {
        title: "write the tests".into(),
        description: Some("both databases".into()),
        assignee: Some("Bob".into()),
        priority: Some(TaskPriority::High),
        tags: Some(vec!["tests".into()]),
        depends_on: vec![OTHER.into()],
        due_at: Some(DueAt(AT_MS)),
    };
    let update = UpdateTask {
        task_id: id(),
        title: Some("write more tests".into()),
        description: Some(Some("three databases".into())),
        assignee: Some(Some("@frontend".into())),
        priority: Some(TaskPriority::Urgent),
        tags: Some(vec![]),
        depends_on: Some(vec![OTHER.into()]),
        due_at: Some(Some(DueAt(AT_MS))),
        expected_version: Some(3),
    };
    let clear = UpdateTask {
        task_id: id(),
        description: Some(None),
        assignee: Some(None),
        due_at: Some(None),
        ..UpdateTask::default()
    };
    let list = ListTasks {
        status: Some(TaskStatus::Done),
        assignee: Some("Bob".into()),
        tag: Some("tests".into()),
        ready: true,
        limit: Some(20),
        cursor: Some("41".into()),
    };
    vec![
        ("", CreateTask { title: "write the tests".into(), ..CreateTask::default() }.into()),
        ("full", create.into()),
        ("", GetTask { task_id: id() }.into()),
        ("", ClaimTask { task_id: id() }.into()),
        ("", UnclaimTask { task_id: id() }.into()),
        ("", CompleteTask { task_id: id(), result: None }.into()),
        ("full", CompleteTask { task_id: id(), result: Some("all green".into()) }.into()),
        ("", ReopenTask { task_id: id() }.into()),
        ("", UpdateTask { task_id: id(), ..UpdateTask::default() }.into()),
        ("full", update.into()),
        ("clear", clear.into()),
        ("", DeleteTask { task_id: id() }.into()),
        ("", ListTasks::default().into()),
        ("full", list.into()),
        ("", NextTask::default().into()),
        ("full", NextTask { claim: true }.into()),
    ]
}

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let open = TaskEntry {
        id: id(),
        title: "write the tests".into(),
        created_by: "Alice".into(),
        created_at: AT.into(),
        version: 1,
        ..TaskEntry::default()
    };
    let full = TaskEntry {
        description: Some("both databases".into()),
        assignee: Some("Bob".into()),
        claimed_by: Some("Bob".into()),
        status: TaskStatus::Done,
        priority: TaskPriority::High,
        tags: vec!["tests".into()],
        result: Some("all green".into()),
        depends_on: vec![OTHER.into()],
        blocked: true,
        due_at: Some(AT.into()),
        stale: true,
        claimed_at: Some(AT.into()),
        completed_at: Some(AT.into()),
        version: 4,
        ..open.clone()
    };
    let step = |what: &str, detail: Option<&str>| TaskStep {
        at: AT.into(),
        by: "Alice".into(),
        what: what.into(),
        detail: detail.map(Into::into),
    };
    let history = vec![step("created", None), step("updated", Some("title, priority"))];
    vec![
        ("", TaskCreated { id: id() }.into()),
        ("", TaskResult::default().into()),
        ("full", TaskResult { task: Some(full.clone()), history }.into()),
        ("", TaskList { tasks: vec![open.clone()], next: None }.into()),
        ("full", TaskList { tasks: vec![full.clone()], next: Some("41".into()) }.into()),
        ("", TaskChange { what: "completed".into(), by: "Bob".into(), task: full }.into()),
        ("", TasksWaiting { tasks: vec![open], count: 7 }.into()),
    ]
}
