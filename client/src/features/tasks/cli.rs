//! `task create`, `list`, `show`, `next`, `claim`, `unclaim`, `complete`, `reopen`, `update`, `assign`, `delete`.

use clap::{Args, ValueEnum};
use claudemesh_protocol::features::tasks::{
    CreateTask, DueAt, GetTask, ListTasks, NextTask, TaskEntry, TaskPriority, TaskStatus, TaskStep,
};
use claudemesh_protocol::id::TaskId;
use claudemesh_protocol::time::parse_iso;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::short;
use crate::context::Context;
use crate::context::connect::in_mesh;
use crate::error::CliError;
use crate::output::word;
use crate::values::parse_duration;
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields, verbs};

mod change;
mod show;

use change::{AssignArgs, ClaimArgs, CompleteArgs, DeleteArgs, ReopenArgs, UnclaimArgs, UpdateArgs};
use show::{line, whole};

/// Rows of a list where a model reads it: hosts cut what a command prints.
const MODEL_ROWS: usize = 100;

verbs! {
    /// Share work: tasks that one peer creates and another one claims and completes.
    #[command(
        after_help = "Examples:\n  claudemesh task create \"write the tests\" --priority high\n  \
                            claudemesh task next --claim\n  claudemesh task complete 4uWv2xYz \"all green\""
    )]
    pub struct TaskArgs: enum TaskAction {
        Create => CreateArgs,
        List => ListArgs,
        Show => ShowArgs,
        Next => NextArgs,
        Claim => ClaimArgs,
        Unclaim => UnclaimArgs,
        Complete => CompleteArgs,
        Reopen => ReopenArgs,
        Update => UpdateArgs,
        Assign => AssignArgs,
        Delete => DeleteArgs,
    }
}

/// How urgent a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Urgency {
    /// When nothing else is to be done.
    Low,
    /// The usual.
    Normal,
    /// Before others.
    High,
    /// First.
    Urgent,
}

impl From<Urgency> for TaskPriority {
    fn from(urgency: Urgency) -> Self {
        match urgency {
            Urgency::Low => Self::Low,
            Urgency::Normal => Self::Normal,
            Urgency::High => Self::High,
            Urgency::Urgent => Self::Urgent,
        }
    }
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Progress {
    /// No one works on it.
    Open,
    /// A session works on it.
    Claimed,
    /// Finished.
    #[value(alias = "completed")]
    Done,
}

impl From<Progress> for TaskStatus {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Open => Self::Open,
            Progress::Claimed => Self::Claimed,
            Progress::Done => Self::Done,
        }
    }
}

/// A time from now (`2h`) or at a moment (`2026-04-08T09:53:03Z`).
fn parse_due(text: &str) -> Result<DueAt, String> {
    if let Some(at) = parse_iso(text) {
        return Ok(DueAt(at));
    }
    let from_now = parse_duration(text).map_err(|_| "expected a time such as 2h, 3d or 2026-04-08T09:53:03Z")?;
    let from_now = i64::try_from(from_now.as_millis()).unwrap_or(i64::MAX);
    Ok(DueAt(crate::clock::now_ms().saturating_add(from_now)))
}

/// Create a task.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh task create \"write the tests\"\n  \
                        claudemesh task create \"release\" --assignee Bob --priority urgent --depends-on 4uWv2xYz --due 2h")]
pub struct CreateArgs {
    /// What is to be done.
    title: String,
    /// What has to be known.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Who should do it: a name, @group or key. Others may claim it, too.
    #[arg(long, value_name = "WHO")]
    assignee: Option<String>,
    /// How urgent it is [default: normal].
    #[arg(long, value_enum)]
    priority: Option<Urgency>,
    /// Tags, separated with commas.
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    tags: Vec<String>,
    /// Tasks that must be done first: ids, or at least the first 8 characters of each, separated with commas.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    depends_on: Vec<String>,
    /// When it should be done: 2h or 3d from now, or a time such as 2026-04-08T09:53:03Z. Lists mark it as overdue after that.
    #[arg(long, value_name = "TIME", value_parser = parse_due)]
    due: Option<DueAt>,
}

/// A task that was created, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Created {
    id: String,
    title: String,
}

impl Verb for CreateArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Created>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Created>>()]
    }

    /// Exit 5 when a dependency does not exist.
    fn run(self, cx: &Context) -> Ran {
        let new = CreateTask {
            title: self.title.clone(),
            description: self.description,
            assignee: self.assignee,
            priority: self.priority.map(Into::into),
            tags: (!self.tags.is_empty()).then_some(self.tags),
            depends_on: ids(&self.depends_on),
            due_at: self.due,
        };
        let assignee = new.assignee.clone();
        let (mesh, made) = in_mesh(cx, |connection| async move { connection.request(new).await })?;
        change::warn_of_unknown(cx, assignee.as_deref());
        let created = Created { id: made.id.to_string(), title: self.title };
        cx.out
            .answer(&InMesh::new(&mesh, &created), |out| {
                format!("{} created {}: {}\n", out.tick(), word(&short(&created.id), out), word(&created.title, out))
            })
            .map(done)
    }
}

/// List tasks, newest first.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh task list --status open\n  claudemesh task list --ready --json=id,title"
)]
pub struct ListArgs {
    /// Only tasks with this status; completed is the same as done.
    #[arg(long, value_enum)]
    status: Option<Progress>,
    /// Only tasks of this assignee.
    #[arg(long, value_name = "WHO")]
    assignee: Option<String>,
    /// Only tasks with this tag.
    #[arg(long)]
    tag: Option<String>,
    /// Only tasks that can be taken now, the one to take first on top.
    #[arg(long, conflicts_with = "status")]
    ready: bool,
    /// At most this many [default: all; 100 in a session].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<TaskEntry>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<TaskEntry>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let usual = if cx.out.is_for_model() && !cx.out.is_json() { MODEL_ROWS } else { usize::MAX };
        let most = self.limit.map_or(usual, |limit| limit as usize);
        let filter = ListTasks {
            status: self.status.map(Into::into),
            assignee: self.assignee,
            tag: self.tag,
            ready: self.ready,
            ..ListTasks::default()
        };
        let (mesh, listed) = in_mesh(cx, |connection| async move { connection.list_tasks(&filter, most).await })?;
        cx.out
            .answer(&InMesh::all(&mesh, &listed.tasks), |out| {
                if listed.tasks.is_empty() {
                    return "no such tasks\n".into();
                }
                let mut text: String = listed.tasks.iter().map(|task| line(task, out)).collect();
                if listed.next.is_some() {
                    text += "(there are more; --limit shows them)\n";
                }
                text
            })
            .map(done)
    }
}

/// Show a task, its result and who did what to it.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh task show 4uWv2xYz\n  claudemesh task show 4uWv2xYz --json=status,result"
)]
pub struct ShowArgs {
    /// Its id, or at least its first 8 characters.
    id: String,
}

/// A task with its history, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Shown {
    #[serde(flatten)]
    task: TaskEntry,
    history: Vec<TaskStep>,
}

impl Verb for ShowArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::joined([shape::in_mesh::<TaskEntry>(), vec!["history"]])
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Shown>>()]
    }

    /// Exit 5 when there is no such task.
    fn run(self, cx: &Context) -> Ran {
        let get = GetTask { task_id: self.id.into() };
        let (mesh, found) = in_mesh(cx, |connection| async move { connection.request(get).await })?;
        let task = found.task.ok_or_else(|| CliError::not_found("There is no such task."))?;
        let shown = Shown { task, history: found.history };
        cx.out.answer(&InMesh::new(&mesh, &shown), |out| whole(&shown.task, &shown.history, out)).map(done)
    }
}

/// Show the task to take next: open, not blocked, the most urgent, of these the oldest; those for you before those without an assignee.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh task next\n  claudemesh task next --claim --json")]
pub struct NextArgs {
    /// Claim it in the same step: of many who ask, each gets another task.
    #[arg(long)]
    claim: bool,
}

impl Verb for NextArgs {
    fn effect(&self) -> Effect {
        if self.claim { Effect::Changes } else { Effect::Reads }
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<TaskEntry>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<TaskEntry>>()]
    }

    /// Exit 5 when no task is ready.
    fn run(self, cx: &Context) -> Ran {
        let next = NextTask { claim: self.claim };
        let (mesh, found) = in_mesh(cx, |connection| async move { connection.request(next).await })?;
        let task = found.task.ok_or_else(|| CliError::not_found("No task is ready."))?;
        cx.out.answer(&InMesh::new(&mesh, &task), |out| whole(&task, &[], out)).map(done)
    }
}

fn ids(texts: &[String]) -> Vec<TaskId> {
    texts.iter().map(|text| text.as_str().into()).collect()
}
