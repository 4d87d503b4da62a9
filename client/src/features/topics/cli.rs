//! `topic create`, `list`, `join`, `leave`, `members`, `set-member`, `remove-member`, `history`, `read`, `tail`, `post`.

use clap::{Args, ValueEnum};
use claudemesh_protocol::call::Call;
use claudemesh_protocol::features::topics::{
    TopicCreate, TopicJoin, TopicLeave, TopicList, TopicMarkRead, TopicMember, TopicMembers, TopicRef, Visibility,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hashed;
use crate::clock::shown;
use crate::config::MeshEntry;
use crate::connection::{Connection, ConnectionError};
use crate::context::Context;
use crate::context::connect::ask;
use crate::context::several::each;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Style, clean, word};
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields, verbs};

pub mod history;
pub mod mine;
pub mod roles;
pub mod tail;

use history::{HistoryArgs, PostArgs};
use roles::{RemoveMemberArgs, SetMemberArgs};
use tail::TailArgs;

verbs! {
    /// Create, join, read and write topics: channels that keep their messages.
    #[command(
        after_help = "Examples:\n  claudemesh topic create plans --description \"what comes next\"\n  \
                            claudemesh topic post plans \"freeze at 5\"\n  claudemesh topic history plans --limit 20"
    )]
    pub struct TopicArgs: enum TopicAction {
        Create => CreateArgs,
        List => ListArgs,
        Join => JoinArgs,
        Leave => LeaveArgs,
        Members => MembersArgs,
        SetMember => SetMemberArgs,
        RemoveMember => RemoveMemberArgs,
        History => HistoryArgs,
        Read => ReadArgs,
        Tail => TailArgs,
        Post => PostArgs,
    }
}

/// Who may see a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Who {
    /// Every member may list, join and read it.
    #[default]
    Public,
    /// Members who belong to it.
    Private,
    /// As private, for two.
    Dm,
}

impl From<Who> for Visibility {
    fn from(who: Who) -> Self {
        match who {
            Who::Public => Self::Public,
            Who::Private => Self::Private,
            Who::Dm => Self::Dm,
        }
    }
}

/// Create a topic; you belong to it then. One that exists stays as it is.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh topic create plans\n  claudemesh topic create review --visibility private"
)]
pub struct CreateArgs {
    /// Name, with or without `#`: letters, digits, `-`, `_`, `.` and `/`.
    name: String,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Who may see it.
    #[arg(long, value_enum, default_value_t)]
    visibility: Who,
}

/// A topic that was asked for, for scripts.
#[derive(Serialize, JsonSchema)]
struct Created {
    #[serde(flatten)]
    topic: TopicRef,
    #[serde(flatten)]
    created: IsNew,
}

/// Whether the topic was made now.
#[derive(Serialize, Deserialize, JsonSchema)]
struct IsNew {
    created: bool,
}

impl Verb for CreateArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::joined([vec!["mesh"], json_fields::of::<TopicRef>(), json_fields::of::<IsNew>()])
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Created>>()]
    }

    /// Exit 3 for a malformed name, 6 when a topic that you may not see has it.
    fn run(self, cx: &Context) -> Ran {
        let visibility = Some(self.visibility.into());
        let new = TopicCreate { name: self.name, description: self.description, visibility };
        let (entry, made) = in_mesh(cx, |connection| async move { connection.request(new).await })?;
        let created = Created { topic: made.topic, created: IsNew { created: made.created } };
        cx.out
            .answer(&InMesh::new(&entry.slug, &created), |out| {
                let words = if made.created { "created" } else { "there is already" };
                format!("{} {words} {}\n", out.tick(), clean(&hashed(&created.topic.name)))
            })
            .map(done)
    }
}

/// List the topics that you may see.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh topic list\n  claudemesh topic list --json=name,memberCount")]
pub struct ListArgs {}

/// One topic of one mesh, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Row {
    mesh: String,
    id: String,
    name: String,
    description: Option<String>,
    visibility: Visibility,
    member_count: u32,
    created_at: String,
    /// `null` when you do not follow it.
    role: Option<String>,
    /// `null` when you do not follow it.
    unread: Option<u32>,
    /// `null` for the usual 30.
    retention_days: Option<u32>,
}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Row>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<Row>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let (meshes, exit) = each(cx, |entry| {
            let listed = ask(cx, entry, |connection| async move { Ok(connection.request(TopicList {}).await?) })?;
            let row = |topic: claudemesh_protocol::features::topics::TopicEntry| Row {
                mesh: entry.slug.clone(),
                id: topic.id.to_string(),
                name: topic.name,
                description: topic.description,
                visibility: topic.visibility,
                member_count: topic.member_count,
                created_at: topic.created_at,
                role: topic.role,
                unread: topic.unread,
                retention_days: topic.retention_days,
            };
            Ok(listed.topics.into_iter().map(row).collect::<Vec<Row>>())
        })?;
        let rows: Vec<&Row> = meshes.iter().flat_map(|(_, rows)| rows).collect();
        cx.out.answer(&rows, |out| meshes.iter().map(|(entry, rows)| topics_text(&entry.slug, rows, out)).collect())?;
        Ok(exit.into())
    }
}

/// Subscribe to a topic: what is written there reaches you from now on.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh topic join plans\n  claudemesh topic join plans --as reviewer")]
pub struct JoinArgs {
    /// Topic, with or without `#`, or its id.
    topic: String,
    /// As what: observer, or any other word. A lead makes other leads [default: what you are there, else member].
    #[arg(long = "as", value_name = "WORD", alias = "role")]
    role: Option<String>,
}

/// A topic that was joined, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Joined {
    topic: String,
    role: Option<String>,
    joined: bool,
}

impl Verb for JoinArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Joined>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Joined>>()]
    }

    /// Exit 5 for a topic that you may not see.
    fn run(self, cx: &Context) -> Ran {
        let slug = write(cx, TopicJoin { topic: self.topic.clone(), role: self.role.clone() })?;
        let text = |out: &Output| format!("{} joined {}\n", out.tick(), clean(&hashed(&self.topic)));
        let joined = Joined { topic: self.topic.clone(), role: self.role.clone(), joined: true };
        cx.out.answer(&InMesh::new(&slug, joined), text).map(done)
    }
}

/// End your subscription to a topic.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh topic leave plans")]
pub struct LeaveArgs {
    /// Topic, with or without `#`, or its id.
    topic: String,
}

/// A topic that was left, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Left {
    topic: String,
    left: bool,
}

impl Verb for LeaveArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Left>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Left>>()]
    }

    /// Exit 5 for a topic that you may not see.
    fn run(self, cx: &Context) -> Ran {
        let slug = write(cx, TopicLeave { topic: self.topic.clone() })?;
        let text = |out: &Output| format!("{} left {}\n", out.tick(), clean(&hashed(&self.topic)));
        let left = Left { topic: self.topic.clone(), left: true };
        cx.out.answer(&InMesh::new(&slug, left), text).map(done)
    }
}

/// Mark a topic as read up to now.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh topic read plans")]
pub struct ReadArgs {
    /// Topic, with or without `#`, or its id.
    topic: String,
}

/// A topic that was read, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct MarkedRead {
    topic: String,
    read: bool,
}

impl Verb for ReadArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<MarkedRead>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<MarkedRead>>()]
    }

    /// Exit 5 for a topic that you may not see.
    fn run(self, cx: &Context) -> Ran {
        let slug = write(cx, TopicMarkRead { topic: self.topic.clone() })?;
        let text = |out: &Output| format!("{} read {} up to now\n", out.tick(), clean(&hashed(&self.topic)));
        let read = MarkedRead { topic: self.topic.clone(), read: true };
        cx.out.answer(&InMesh::new(&slug, read), text).map(done)
    }
}

/// List who subscribes to a topic, and how far each has read.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh topic members plans")]
pub struct MembersArgs {
    /// Topic, with or without `#`, or its id.
    topic: String,
}

impl Verb for MembersArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<TopicMember>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<TopicMember>>()]
    }

    /// Exit 5 for a topic that you may not see.
    fn run(self, cx: &Context) -> Ran {
        let query = TopicMembers { topic: self.topic };
        let (entry, found) = in_mesh(cx, |connection| async move { connection.request(query).await })?;
        cx.out
            .answer(&InMesh::all(&entry.slug, &found.members), |out| {
                let line = |member: &TopicMember| {
                    let (name, role) = (word(&member.display_name, out), word(&member.role, out));
                    let read = member.last_read_at.as_deref();
                    let read = read.map_or("nothing read".into(), |at| format!("read {}", shown(at)));
                    format!("{} ({role})  joined {}, {read}\n", out.paint(Style::Cyan, &name), shown(&member.joined_at))
                };
                found.members.iter().map(line).collect()
            })
            .map(done)
    }
}

/// Asks in the one mesh that the call is about.
fn in_mesh<T, F: Future<Output = Result<T, ConnectionError>>>(
    cx: &Context,
    work: impl FnOnce(Connection) -> F,
) -> Result<(MeshEntry, T), CliError> {
    let entry = cx.mesh_entry()?;
    let answer = ask(cx, &entry, |connection| async { Ok(work(connection).await?) });
    let answer = answer.map_err(|error| match error.exit {
        ExitCode::NotFound if error.code == "topic_not_found" => {
            error.hint("`claudemesh topic list` shows the topics.")
        }
        _ => error,
    })?;
    Ok((entry, answer))
}

/// Sends a request without an answer of its own; answers the mesh.
fn write<C: Call>(cx: &Context, request: C) -> Result<String, CliError> {
    in_mesh(cx, |connection| async move { connection.write(request).await }).map(|(entry, _)| entry.slug)
}

fn topics_text(slug: &str, rows: &[Row], out: &Output) -> String {
    let mut text = format!("{}\n", out.paint(Style::Bold, &format!("{} ({})", clean(slug), rows.len())));
    if rows.is_empty() {
        text += "  there is no topic; `claudemesh topic create <name>` makes one\n";
    }
    for row in rows {
        let about = row.description.as_deref().map(|text| format!("  {}", word(text, out))).unwrap_or_default();
        let plural = if row.member_count == 1 { "" } else { "s" };
        let name = out.paint(Style::Cyan, &word(&hashed(&row.name), out)).into_owned();
        text += &format!("  {name}  {}, {} member{plural}{about}\n", row.visibility.as_str(), row.member_count);
    }
    text
}
