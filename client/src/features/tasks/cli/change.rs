//! `task claim`, `unclaim`, `complete`, `reopen`, `update`, `assign`, `delete`.

use clap::Args;
use claudemesh_protocol::call::Call;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::tasks::{
    ClaimTask, CompleteTask, DeleteTask, ReopenTask, TaskChanged, UnclaimTask, UpdateTask,
};
use claudemesh_protocol::id::TaskId;
use claudemesh_protocol::name::folded;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::short;
use super::{Urgency, ids, in_mesh, parse_due};
use crate::connection::ConnectionError;
use crate::context::Context;
use crate::error::CliError;
use crate::output::{Output, clean, word};
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// Claim a task: it is yours until you complete it or give it back.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh task claim 4uWv2xYz")]
pub struct ClaimArgs {
    /// Its id, or at least its first 8 characters.
    id: String,
}

/// A task that was claimed, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Claimed {
    id: String,
    claimed: bool,
}

impl Verb for ClaimArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Claimed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Claimed>>()]
    }

    /// Exit 5 when there is no such task, 6 when another session has it, it is done or blocked.
    fn run(self, cx: &Context) -> Ran {
        let (mesh, id) = change(cx, &self.id, |task_id| ClaimTask { task_id })?;
        cx.out
            .answer(&InMesh::new(&mesh, Claimed { id: id.clone(), claimed: true }), |out| told("claimed", &id, out))
            .map(done)
    }
}

/// Give a claimed task back.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh task unclaim 4uWv2xYz")]
pub struct UnclaimArgs {
    /// Its id, or at least its first 8 characters.
    id: String,
}

/// A task that was given back, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Unclaimed {
    id: String,
    unclaimed: bool,
}

impl Verb for UnclaimArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Unclaimed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Unclaimed>>()]
    }

    /// Exit 5 when there is no such task, 6 when it is not claimed, 2 when another member's session has it.
    fn run(self, cx: &Context) -> Ran {
        let (mesh, id) = change(cx, &self.id, |task_id| UnclaimTask { task_id })?;
        cx.out
            .answer(&InMesh::new(&mesh, Unclaimed { id: id.clone(), unclaimed: true }), |out| {
                told("gave back", &id, out)
            })
            .map(done)
    }
}

/// Mark a task as done, with what came of it.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh task complete 4uWv2xYz\n  claudemesh task complete 4uWv2xYz \"all green\""
)]
pub struct CompleteArgs {
    /// Its id, or at least its first 8 characters.
    id: String,
    /// What came of it.
    result: Option<String>,
}

/// A task that was completed, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Completed {
    id: String,
    completed: bool,
    result: Option<String>,
}

impl Verb for CompleteArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Completed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Completed>>()]
    }

    /// Exit 5 when there is no such task, 6 when it is blocked or done with another result, 2 when another member's session
    /// has it.
    fn run(self, cx: &Context) -> Ran {
        let result = self.result.clone();
        let (mesh, id) = change(cx, &self.id, |task_id| CompleteTask { task_id, result })?;
        let completed = Completed { id: id.clone(), completed: true, result: self.result };
        cx.out.answer(&InMesh::new(&mesh, &completed), |out| told("completed", &id, out)).map(done)
    }
}

/// Open a task again that is done. Its result stays in the history.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh task reopen 4uWv2xYz")]
pub struct ReopenArgs {
    /// Its id, or at least its first 8 characters.
    id: String,
}

/// A task that was opened again, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Reopened {
    id: String,
    reopened: bool,
}

impl Verb for ReopenArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Reopened>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Reopened>>()]
    }

    /// Exit 5 when there is no such task, 6 when it is not done.
    fn run(self, cx: &Context) -> Ran {
        let (mesh, id) = change(cx, &self.id, |task_id| ReopenTask { task_id })?;
        cx.out
            .answer(&InMesh::new(&mesh, Reopened { id: id.clone(), reopened: true }), |out| told("reopened", &id, out))
            .map(done)
    }
}

/// Change a task. An empty text removes the description, assignee or time.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh task update 4uWv2xYz --priority urgent --due 2h\n  \
                        claudemesh task update 4uWv2xYz --depends-on 9oLmNoPq,7hIjKlMn")]
pub struct UpdateArgs {
    /// Its id, or at least its first 8 characters.
    id: String,
    /// Another title.
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Another description.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Another assignee.
    #[arg(long, value_name = "WHO")]
    assignee: Option<String>,
    /// Another priority.
    #[arg(long, value_enum)]
    priority: Option<Urgency>,
    /// These tags and no others, separated with commas; empty: none.
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    tags: Option<Vec<String>>,
    /// These dependencies and no others, separated with commas; empty: none.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    depends_on: Option<Vec<String>>,
    /// Another time: 2h or 3d from now, or a time such as 2026-04-08T09:53:03Z; empty: none.
    #[arg(long, value_name = "TIME")]
    due: Option<String>,
    /// Only if the task has this version now.
    #[arg(long, value_name = "N")]
    if_version: Option<u64>,
}

/// A task that was changed, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Updated {
    id: String,
    updated: bool,
}

impl Verb for UpdateArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Updated>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Updated>>()]
    }

    /// Exit 5 when there is no such task or dependency, 6 when it has another version or would wait for itself.
    fn run(self, cx: &Context) -> Ran {
        let or_none = |text: String| Some(text).filter(|text| !text.is_empty());
        let due = |text: String| or_none(text).map(|text| parse_due(&text)).transpose();
        let due_at = self.due.map(due).transpose().map_err(|why| CliError::invalid_args(format!("--due: {why}.")))?;
        let full = |list: Vec<String>| list.into_iter().filter(|one| !one.is_empty()).collect::<Vec<_>>();
        let update = UpdateTask {
            task_id: TaskId::default(),
            title: self.title,
            description: self.description.map(or_none),
            assignee: self.assignee.map(or_none),
            priority: self.priority.map(Into::into),
            tags: self.tags.map(full),
            depends_on: self.depends_on.map(|list| ids(&full(list))),
            due_at,
            expected_version: self.if_version,
        };
        let assignee = update.assignee.clone().flatten();
        let (mesh, id) = change(cx, &self.id, |task_id| UpdateTask { task_id, ..update })?;
        warn_of_unknown(cx, assignee.as_deref());
        cx.out
            .answer(&InMesh::new(&mesh, Updated { id: id.clone(), updated: true }), |out| told("changed", &id, out))
            .map(done)
    }
}

/// Say who should do a task; sessions of the assignee are told, a person at a shell sees it in `task list --assignee`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh task assign 4uWv2xYz Bob\n  claudemesh task assign 4uWv2xYz @frontend\n  \
                        claudemesh task assign 4uWv2xYz \"\""
)]
pub struct AssignArgs {
    /// Its id, or at least its first 8 characters.
    id: String,
    /// A name, @group or key; empty: no one.
    who: String,
}

/// A task and whose it should be, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Assigned {
    id: String,
    assignee: Option<String>,
}

impl Verb for AssignArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Assigned>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Assigned>>()]
    }

    /// Exit 5 when there is no such task.
    fn run(self, cx: &Context) -> Ran {
        let assignee = Some(self.who).filter(|who| !who.is_empty());
        let to = assignee.clone();
        let (mesh, id) =
            change(cx, &self.id, |task_id| UpdateTask { task_id, assignee: Some(to), ..UpdateTask::default() })?;
        warn_of_unknown(cx, assignee.as_deref());
        cx.out
            .answer(&InMesh::new(&mesh, Assigned { id: id.clone(), assignee: assignee.clone() }), |out| {
                let who = assignee.as_deref().map_or_else(|| "nobody".to_owned(), |who| word(who, out));
                format!("{} {} is for {who}\n", out.tick(), word(&short(&id), out))
            })
            .map(done)
    }
}

/// Delete a task with its history.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh task delete 4uWv2xYz")]
pub struct DeleteArgs {
    /// Its id, or at least its first 8 characters.
    id: String,
}

/// A task that was deleted, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Deleted {
    id: String,
    deleted: bool,
}

impl Verb for DeleteArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Deleted>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Deleted>>()]
    }

    /// Exit 5 when there is no such task, 6 while others wait for it, 2 when another member created it.
    fn run(self, cx: &Context) -> Ran {
        let (mesh, id) = change(cx, &self.id, |task_id| DeleteTask { task_id })?;
        cx.out
            .answer(&InMesh::new(&mesh, Deleted { id: id.clone(), deleted: true }), |out| told("deleted", &id, out))
            .map(done)
    }
}

/// What stands in the way of a change, in words: the broker sends how the task is now.
fn explained(error: CliError, id: &str) -> CliError {
    let now = error.fields.get("current").cloned().unwrap_or_default();
    let done_already = error.code == ErrorCode::Conflict.as_str() && error.message.contains("done already");
    if error.code != ErrorCode::TaskNotClaimable.as_str() && !done_already {
        return error;
    }
    let by = now["claimedBy"].as_str().map(|name| format!(" by {}", clean(name))).unwrap_or_default();
    let id = clean(id);
    let (message, hint) = match now["status"].as_str() {
        Some("done") => (
            format!("The task is done already{by}."),
            format!("`claudemesh task show {id}` shows the result, `claudemesh task reopen {id}` opens it again."),
        ),
        Some("claimed") => {
            (format!("The task is claimed{by}."), "`claudemesh task next` shows one that is free.".to_owned())
        }
        Some("open") if now["blocked"] == true => (
            "The task waits for others that are not done.".to_owned(),
            format!("`claudemesh task show {id}` shows which; `claudemesh task next` shows one that is ready."),
        ),
        _ => return error.hint("`claudemesh task list` shows the tasks."),
    };
    CliError { message, ..error }.hint(hint)
}

/// Says that no one has the name of an assignee: the task waits for someone of that name, or the name is mistyped.
pub(super) fn warn_of_unknown(cx: &Context, assignee: Option<&str>) {
    let Some(name) = assignee.filter(|name| !name.is_empty() && !name.starts_with('@')) else { return };
    let wanted = folded(name);
    let known = in_mesh(cx, |connection| async move {
        let members = connection.list_members().await?;
        let peers = connection.list_peers().await?;
        let keys = members.iter().map(|row| row.pubkey.to_hex()).chain(peers.iter().map(|peer| peer.pubkey.to_hex()));
        let names =
            members.iter().map(|row| folded(&row.name)).chain(peers.iter().map(|peer| folded(&peer.display_name)));
        Ok::<_, ConnectionError>(names.chain(keys).any(|known| known == wanted))
    });
    // An older broker knows no list of members; then nothing is said.
    if let Ok((_, false)) = known {
        cx.out.warn(&format!(
            "no one here is called {}: the task is shown to anyone who takes that name. `claudemesh members` lists the names.",
            clean(name)
        ));
    }
}

fn told(what: &str, id: &str, out: &Output) -> String {
    format!("{} {what} {}\n", out.tick(), word(&short(id), out))
}

/// Changes a task; answers its whole id.
fn change<C: Call<Answer = TaskChanged>>(
    cx: &Context,
    id: &str,
    request: impl FnOnce(TaskId) -> C,
) -> Result<(String, String), CliError> {
    let request = request(id.into());
    let changed = in_mesh(cx, |connection| async move { connection.write(request).await });
    let (mesh, changed) = changed.map_err(|error| explained(error, id))?;
    Ok((mesh, changed.map_or_else(|| id.to_owned(), |changed| changed.task_id.to_string())))
}
