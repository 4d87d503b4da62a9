//! `topic history` and `topic post`: what was written in a topic, and writing there.

use clap::Args;
use claudemesh_protocol::features::topics::Reaction;
use claudemesh_protocol::id::MemberId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{in_mesh, word};
use crate::clock::shown;
use crate::connection::Connection;
use crate::context::Context;
use crate::features::messaging::cli::args::SendArgs;
use crate::features::topics::{Entry, MAX_HISTORY, USUAL_HISTORY, hashed, newest_that_fit};
use crate::output::{Output, Style};
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// Characters of a history where a model reads it: hosts cut what a command prints at 30,000.
const MODEL_CHARS: usize = 20_000;

/// Show what was written in a topic, newest last.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh topic history plans\n  claudemesh topic history plans --limit 10 --before 312b1423"
)]
pub struct HistoryArgs {
    /// Topic, with or without `#`, or its id.
    topic: String,
    /// At most this many, the newest.
    #[arg(long, value_name = "N", default_value_t = USUAL_HISTORY, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_HISTORY)))]
    limit: u32,
    /// Only what was written before this message: its id, or at least the first 8 characters of it.
    #[arg(long, value_name = "ID")]
    before: Option<String>,
}

/// A message of a topic, for scripts; fields as in `inbox --json`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessageRow {
    message_id: String,
    sender_name: String,
    sender_pubkey: String,
    sender_member_id: MemberId,
    created_at: String,
    reply_to_id: Option<String>,
    /// `null` when it cannot be opened, or was deleted.
    plaintext: Option<String>,
    edited_at: Option<String>,
    deleted_at: Option<String>,
    pinned_at: Option<String>,
    reactions: Vec<Reaction>,
    replies: u32,
}

impl Verb for HistoryArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<MessageRow>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<MessageRow>>()]
    }

    /// Exit 5 for a topic that you may not see, and for a message that is not in it.
    fn run(self, cx: &Context) -> Ran {
        let (topic, limit, before) = (self.topic.as_str(), self.limit, self.before.as_deref());
        let history = |connection: Connection| async move { connection.topic_history(topic, limit, before).await };
        let (entry, entries) = in_mesh(cx, history)?;
        let rows = InMesh::all(&entry.slug, entries.iter().map(message_row));
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

    fn shapes() -> Vec<Shape> {
        SendArgs::shapes().into_iter().take(1).collect()
    }

    fn run(self, cx: &Context) -> Ran {
        self.send().run(cx)
    }
}

pub(super) fn message_row(entry: &Entry) -> MessageRow {
    let message = &entry.message;
    MessageRow {
        message_id: message.id.clone(),
        sender_name: message.sender_name.clone(),
        sender_pubkey: message.sender_pubkey.clone(),
        sender_member_id: message.sender_member_id.clone(),
        created_at: message.created_at.clone(),
        reply_to_id: message.reply_to_id.clone(),
        plaintext: entry.text.clone(),
        edited_at: message.edited_at.clone(),
        deleted_at: message.deleted_at.clone(),
        pinned_at: message.pinned_at.clone(),
        reactions: message.reactions.clone(),
        replies: message.replies,
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

pub(super) fn entry_text(entry: &Entry, out: &Output) -> String {
    let message = &entry.message;
    let short = |id: &str| id.chars().take(8).collect::<String>();
    let answers = message.reply_to_id.as_deref().map(|id| format!(" · answers {}", short(id))).unwrap_or_default();
    let edited = if message.edited_at.is_some() { " · edited" } else { "" };
    let pinned = if message.pinned_at.is_some() { " · pinned" } else { "" };
    let reactions: String = message.reactions.iter().map(|one| format!(" · {} {}", one.emoji, one.count)).collect();
    let (at, id) = (shown(&message.created_at), short(&message.id));
    let details = format!("{at} · {id}{answers}{edited}{pinned}{reactions}");
    let name = out.paint(Style::Cyan, &word(&message.sender_name, out)).into_owned();
    // A person can scroll; a model is shown the beginning.
    let body = match (&entry.text, out.is_for_model()) {
        (Some(text), false) => text.clone(),
        _ => entry.shown().0,
    };
    format!("{name}  {}\n{}", out.paint(Style::Dim, &word(&details, out)), out.block(&body))
}
