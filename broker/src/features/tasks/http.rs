//! Tasks over HTTP, for programs with an API key.

use actix_web::{HttpRequest, HttpResponse, web};
use claudemesh_protocol::features::tasks::{
    CompleteTask, CreateTask, GetTask, ListTasks, TaskEntry, TaskPriority, TaskStatus,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::api::{ApiCaller, query};
use crate::http::openapi::Operation;
use crate::refusal::Refusal;

type Answer = Result<HttpResponse, Refusal>;

crate::routes! {
    get "/api/v1/tasks" => list, key Read;
    post "/api/v1/tasks" => create, key StateWrite;
    post "/api/v1/tasks/{task}/complete" => complete, key StateWrite;
}

/// What the OpenAPI document says of these routes.
pub const OPERATIONS: &[Operation] = &[
    Operation::new("GET", "/api/v1/tasks", "Tasks")
        .asks("status", "`open`, `claimed` or `done`.")
        .asks("assignee", "Only of this assignee.")
        .asks("tag", "Only with this tag.")
        .asks("limit", "How many at most.")
        .asks("cursor", "`next` of the page before.")
        .gives::<Page>(),
    Operation::new("POST", "/api/v1/tasks", "Create a task").takes::<New>().gives::<Created>(),
    Operation::new("POST", "/api/v1/tasks/{task}/complete", "Finish a task").takes::<Done>().gives::<TaskEntry>(),
];

/// A part of the list.
#[derive(Serialize, JsonSchema)]
struct Page {
    /// Tasks.
    tasks: Vec<TaskEntry>,
    /// There is more: `cursor` of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A task to create.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct New {
    /// What is to be done.
    title: String,
    /// More about it.
    description: Option<String>,
    /// Name of a peer, `@group`, or a key.
    assignee: Option<String>,
    /// `normal` when absent.
    priority: Option<TaskPriority>,
    /// Words to find it by.
    tags: Option<Vec<String>>,
}

/// A task that was created.
#[derive(Serialize, JsonSchema)]
struct Created {
    /// Its id.
    id: String,
}

/// How a task ended.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Done {
    /// What came of it.
    result: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    status: Option<TaskStatus>,
    assignee: Option<String>,
    tag: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

async fn list(request: HttpRequest, caller: ApiCaller) -> Answer {
    let Which { status, assignee, tag, limit, cursor } = query(&request)?;
    let found = caller.ask(ListTasks { status, assignee, tag, limit, cursor, ready: false }).await?;
    Ok(caller.ok(Page { tasks: found.tasks, next: found.next }))
}

async fn create(caller: ApiCaller) -> Answer {
    let New { title, description, assignee, priority, tags } = caller.json()?;
    let task = CreateTask { title, description, assignee, priority, tags, ..CreateTask::default() };
    Ok(caller.ok(Created { id: caller.ask(task).await?.id.to_string() }))
}

async fn complete(path: web::Path<String>, caller: ApiCaller) -> Answer {
    let Done { result } = caller.json()?;
    let task_id = path.as_str().into();
    caller.ask(CompleteTask { task_id, result }).await?;
    let task = caller.ask(GetTask { task_id: path.as_str().into() }).await?.task;
    Ok(caller.ok(task))
}
