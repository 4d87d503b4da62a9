//! `topic create`, `list`, `join`, `leave`, `members`, `history`, `read`, `post`.

use clap::{Args, ValueEnum};
use claudemesh_protocol::call::Call;
use claudemesh_protocol::features::topics::{
    TopicCreate, TopicJoin, TopicLeave, TopicList, TopicMarkRead, TopicMember, TopicMembers, TopicRef, Visibility,
};
use claudemesh_protocol::id::MemberId;
use serde::{Deserialize, Serialize};

use super::{Entry, MAX_HISTORY, hashed, newest_that_fit};
use crate::clock::shown;
use crate::config::MeshEntry;
use crate::connection::{Connection, ConnectionError};
use crate::context::Context;
use crate::context::connect::ask;
use crate::error::{CliError, ExitCode};
use crate::features::messaging::cli::args::SendArgs;
use crate::mcp::notes::harmless_value;
use crate::output::{Output, Style, clean};
use crate::verb::{Effect, Ran, Verb, done, json_fields, verbs};

/// Characters of a history where a model reads it: hosts cut what a command prints at 30,000.
const MODEL_CHARS: usize = 20_000;

verbs! {
    /// Create, join, read and write topics: channels that keep what was written.
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
        History => HistoryArgs,
        Read => ReadArgs,
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
#[derive(Serialize)]
struct Created {
    #[serde(flatten)]
    topic: TopicRef,
    #[serde(flatten)]
    created: IsNew,
}

/// Whether the topic was made now.
#[derive(Serialize, Deserialize)]
struct IsNew {
    created: bool,
}

impl Verb for CreateArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::joined([json_fields::of::<TopicRef>(), json_fields::of::<IsNew>()])
    }

    /// Exit 3 for a malformed name, 6 when a topic that you may not see has it.
    fn run(self, cx: &Context) -> Ran {
        let visibility = Some(self.visibility.into());
        let new = TopicCreate { name: self.name, description: self.description, visibility };
        let (_, made) = in_mesh(cx, |connection| async move { connection.request(new).await })?;
        let created = Created { topic: made.topic, created: IsNew { created: made.created } };
        cx.out
            .answer(&created, |out| {
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
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    mesh: String,
    id: String,
    name: String,
    description: Option<String>,
    visibility: Visibility,
    member_count: u32,
    created_at: String,
}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Row>()
    }

    fn run(self, cx: &Context) -> Ran {
        let mut meshes: Vec<(String, Vec<Row>)> = Vec::new();
        for entry in cx.mesh_entries()? {
            let listed = ask(cx, &entry, |connection| async move { Ok(connection.request(TopicList {}).await?) })?;
            let row = |topic: claudemesh_protocol::features::topics::TopicEntry| Row {
                mesh: entry.slug.clone(),
                id: topic.id.to_string(),
                name: topic.name,
                description: topic.description,
                visibility: topic.visibility,
                member_count: topic.member_count,
                created_at: topic.created_at,
            };
            meshes.push((entry.slug.clone(), listed.topics.into_iter().map(row).collect()));
        }
        let rows: Vec<&Row> = meshes.iter().flat_map(|(_, rows)| rows).collect();
        cx.out.answer(&rows, |out| meshes.iter().map(|(slug, rows)| topics_text(slug, rows, out)).collect()).map(done)
    }
}

/// Subscribe to a topic: what is written there reaches you from now on.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh topic join plans\n  claudemesh topic join plans --role lead")]
pub struct JoinArgs {
    /// Topic, with or without `#`, or its id.
    topic: String,
    /// Your role in it [default: the one you have there, else member].
    #[arg(long)]
    role: Option<String>,
}

/// A topic that was joined, for scripts.
#[derive(Serialize, Deserialize)]
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
        json_fields::of::<Joined>()
    }

    /// Exit 5 for a topic that you may not see.
    fn run(self, cx: &Context) -> Ran {
        write(cx, TopicJoin { topic: self.topic.clone(), role: self.role.clone() })?;
        let text = |out: &Output| format!("{} joined {}\n", out.tick(), clean(&hashed(&self.topic)));
        cx.out.answer(&Joined { topic: self.topic.clone(), role: self.role.clone(), joined: true }, text).map(done)
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
#[derive(Serialize, Deserialize)]
struct Left {
    topic: String,
    left: bool,
}

impl Verb for LeaveArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Left>()
    }

    /// Exit 5 for a topic that you may not see.
    fn run(self, cx: &Context) -> Ran {
        write(cx, TopicLeave { topic: self.topic.clone() })?;
        let text = |out: &Output| format!("{} left {}\n", out.tick(), clean(&hashed(&self.topic)));
        cx.out.answer(&Left { topic: self.topic.clone(), left: true }, text).map(done)
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
#[derive(Serialize, Deserialize)]
struct MarkedRead {
    topic: String,
    read: bool,
}

impl Verb for ReadArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<MarkedRead>()
    }

    /// Exit 5 for a topic that you may not see.
    fn run(self, cx: &Context) -> Ran {
        write(cx, TopicMarkRead { topic: self.topic.clone() })?;
        let text = |out: &Output| format!("{} read {} up to now\n", out.tick(), clean(&hashed(&self.topic)));
        cx.out.answer(&MarkedRead { topic: self.topic.clone(), read: true }, text).map(done)
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
        json_fields::of::<TopicMember>()
    }

    /// Exit 5 for a topic that you may not see.
    fn run(self, cx: &Context) -> Ran {
        let query = TopicMembers { topic: self.topic };
        let (_, found) = in_mesh(cx, |connection| async move { connection.request(query).await })?;
        cx.out
            .answer(&found.members, |out| {
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

/// Show what was written in a topic, newest last.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh topic history plans\n  claudemesh topic history plans --limit 10 --before 8fK2mQ7d"
)]
pub struct HistoryArgs {
    /// Topic, with or without `#`, or its id.
    topic: String,
    /// At most this many, the newest.
    #[arg(long, value_name = "N", default_value_t = super::USUAL_HISTORY, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_HISTORY)))]
    limit: u32,
    /// Only what was written before this message: its id, or 8 and more characters of it.
    #[arg(long, value_name = "ID")]
    before: Option<String>,
}

/// A message of a topic, for scripts; fields as in `inbox --json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageRow {
    message_id: String,
    sender_name: String,
    sender_pubkey: String,
    sender_member_id: MemberId,
    created_at: String,
    reply_to_id: Option<String>,
    /// `null` when it cannot be opened.
    plaintext: Option<String>,
}

impl Verb for HistoryArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<MessageRow>()
    }

    /// Exit 5 for a topic that you may not see, and for a message that is not in it.
    fn run(self, cx: &Context) -> Ran {
        let (topic, limit, before) = (self.topic.as_str(), self.limit, self.before.as_deref());
        let history = |connection: Connection| async move { connection.topic_history(topic, limit, before).await };
        let (_, entries) = in_mesh(cx, history)?;
        let rows: Vec<MessageRow> = entries.iter().map(message_row).collect();
        cx.out.answer(&rows, |out| history_text(topic, entries, out)).map(done)
    }
}

/// Write into a topic: the same as `send '#topic'`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh topic post plans \"freeze at 5\"\n  git log -5 | claudemesh topic post plans -"
)]
pub struct PostArgs {
    /// Topic, with or without `#`.
    topic: String,
    /// The text; `-` is standard input.
    message: String,
    /// Id of the message this answers.
    #[arg(long, value_name = "ID")]
    reply_to: Option<String>,
}

impl PostArgs {
    fn send(self) -> SendArgs {
        let (to, words) = (vec![hashed(&self.topic)], vec![self.message]);
        SendArgs { to, words, reply_to: self.reply_to, ..SendArgs::default() }
    }
}

impl Verb for PostArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        SendArgs::default().fields()
    }

    fn run(self, cx: &Context) -> Ran {
        self.send().run(cx)
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

/// Sends a request without an answer of its own.
fn write<C: Call>(cx: &Context, request: C) -> Result<(), CliError> {
    in_mesh(cx, |connection| async move { connection.write(request).await }).map(drop)
}

/// What a peer wrote, within a line.
fn word(text: &str, out: &Output) -> String {
    if out.is_for_model() { harmless_value(text) } else { clean(text).into_owned() }
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

fn message_row(entry: &Entry) -> MessageRow {
    let message = &entry.message;
    MessageRow {
        message_id: message.id.clone(),
        sender_name: message.sender_name.clone(),
        sender_pubkey: message.sender_pubkey.clone(),
        sender_member_id: message.sender_member_id.clone(),
        created_at: message.created_at.clone(),
        reply_to_id: message.reply_to_id.clone(),
        plaintext: entry.text.clone(),
    }
}

fn history_text(topic: &str, entries: Vec<Entry>, out: &Output) -> String {
    if entries.is_empty() {
        return format!("{}: no messages\n", word(&hashed(topic), out));
    }
    let count = entries.len();
    let entries = if out.is_for_model() { newest_that_fit(entries, MODEL_CHARS) } else { entries };
    let mut text = out.preamble();
    if let Some(oldest) = entries.first().filter(|_| entries.len() < count) {
        let id = word(&oldest.message.id, out);
        text += &format!("({} older ones did not fit; --before {id} reads them)\n", count - entries.len());
    }
    for entry in &entries {
        text += &entry_text(entry, out);
    }
    text
}

fn entry_text(entry: &Entry, out: &Output) -> String {
    let message = &entry.message;
    let short = |id: &str| id.chars().take(8).collect::<String>();
    let answers = message.reply_to_id.as_deref().map(|id| format!(" · answers {}", short(id))).unwrap_or_default();
    let details = format!("{} · {}{answers}", shown(&message.created_at), short(&message.id));
    let name = out.paint(Style::Cyan, &word(&message.sender_name, out)).into_owned();
    // A person can scroll; a model is shown the beginning.
    let body = match (&entry.text, out.is_for_model()) {
        (Some(text), false) => text.clone(),
        _ => entry.shown().0,
    };
    format!("{name}  {}\n{}", out.paint(Style::Dim, &word(&details, out)), out.block(&body))
}
