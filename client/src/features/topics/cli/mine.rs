//! `notification list`, `notification read` and `me topics`: what concerns oneself in the topics of every mesh.

use std::time::Duration;

use clap::Args;
use claudemesh_protocol::crypto::envelope;
use claudemesh_protocol::features::topics::{Notification, NotificationList, NotificationRead, TopicList};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hashed;
use crate::clock::shown;
use crate::context::Context;
use crate::context::connect::{ask, in_mesh};
use crate::context::several::each;
use crate::output::{Output, Style, word};
use crate::values::parse_duration;
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields, verbs};

verbs! {
    /// See where you are mentioned in topics.
    #[command(after_help = "Examples:\n  claudemesh notification list\n  claudemesh notification read")]
    pub struct NotificationArgs: enum NotificationAction {
        List => NotificationsArgs,
        Read => MarkArgs,
    }
}

verbs! {
    /// See what concerns you in every mesh.
    #[command(after_help = "Example:\n  claudemesh me topics --unread")]
    pub struct MeArgs: enum MeAction {
        Topics => MyTopicsArgs,
    }
}

/// List the messages of topics that mention you, newest first.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh notification list\n  claudemesh notification list --all --since 2d --json"
)]
pub struct NotificationsArgs {
    /// Also those that you have read.
    #[arg(long)]
    all: bool,
    /// Only of the last time, for example 2h or 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    since: Option<Duration>,
}

/// One mention, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Mention {
    message_id: String,
    topic: String,
    sender_name: String,
    sender_pubkey: String,
    /// `null` when it cannot be opened, or was deleted.
    plaintext: Option<String>,
    created_at: String,
    read_at: Option<String>,
}

impl From<Notification> for Mention {
    fn from(one: Notification) -> Self {
        let text = Some(one.ciphertext).filter(|body| !body.is_empty());
        Self {
            message_id: one.id,
            topic: one.topic_name,
            sender_name: one.sender_name,
            sender_pubkey: one.sender_pubkey,
            plaintext: text.and_then(|body| envelope::decode_public(&body).ok()),
            created_at: one.created_at,
            read_at: one.read_at,
        }
    }
}

impl Verb for NotificationsArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Mention>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<Mention>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let since_ms = self
            .since
            .map(|since| crate::clock::now_ms().saturating_sub(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)));
        let (meshes, exit) = each(cx, |entry| {
            let list = NotificationList { unread: !self.all, since_ms, ..NotificationList::default() };
            let found = ask(cx, entry, |connection| async move { Ok(connection.request(list).await?) })?;
            Ok(found.notifications.into_iter().map(Mention::from).collect::<Vec<Mention>>())
        })?;
        let rows: Vec<InMesh<&Mention>> =
            meshes.iter().flat_map(|(entry, rows)| InMesh::all(&entry.slug, rows)).collect();
        cx.out.answer(&rows, |out| {
            if rows.is_empty() {
                return "no mentions\n".into();
            }
            meshes.iter().flat_map(|(_, rows)| rows).fold(out.preamble(), |text, row| text + &mention_text(row, out))
        })?;
        Ok(exit.into())
    }
}

fn mention_text(row: &Mention, out: &Output) -> String {
    let (name, topic) = (word(&row.sender_name, out), word(&hashed(&row.topic), out));
    let id: String = row.message_id.chars().take(8).collect();
    let details = format!("{topic} · {} · {}", shown(&row.created_at), word(&id, out));
    let body = row.plaintext.as_deref().unwrap_or("(a text that this client cannot open)");
    format!("{}  {}\n{}", out.paint(Style::Cyan, &name), out.paint(Style::Dim, &details), out.block(body))
}

/// Mark mentions as read: all of a mesh, or those of some messages.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh notification read\n  claudemesh notification read 312b1423c0ffee")]
pub struct MarkArgs {
    /// Ids of messages, whole [default: all].
    #[arg(value_name = "ID")]
    ids: Vec<String>,
}

/// What was marked, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Marked {
    marked: u32,
}

impl Verb for MarkArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Marked>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Marked>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let mark = NotificationRead { all: self.ids.is_empty(), ids: self.ids };
        let (mesh, found) = in_mesh(cx, |connection| async move { connection.request(mark).await })?;
        let marked = Marked { marked: found.marked };
        cx.out
            .answer(&InMesh::new(&mesh, &marked), |out| format!("{} marked {} as read\n", out.tick(), marked.marked))
            .map(done)
    }
}

/// List the topics that you follow, with what you have not read.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh me topics\n  claudemesh me topics --unread --json=topic,unread")]
pub struct MyTopicsArgs {
    /// Only those with messages that you have not read.
    #[arg(long)]
    unread: bool,
}

/// A topic that is followed, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Followed {
    mesh: String,
    topic: String,
    role: String,
    unread: u32,
}

impl Verb for MyTopicsArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Followed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<Followed>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let (meshes, exit) = each(cx, |entry| {
            let listed = ask(cx, entry, |connection| async move { Ok(connection.request(TopicList {}).await?) })?;
            let row = |topic: claudemesh_protocol::features::topics::TopicEntry| {
                let unread = topic.unread.unwrap_or(0);
                let role = topic.role.filter(|_| !self.unread || unread > 0)?;
                Some(Followed { mesh: entry.slug.clone(), topic: topic.name, role, unread })
            };
            Ok(listed.topics.into_iter().filter_map(row).collect::<Vec<Followed>>())
        })?;
        let rows: Vec<&Followed> = meshes.iter().flat_map(|(_, rows)| rows).collect();
        cx.out.answer(&rows, |out| {
            if rows.is_empty() {
                return "no topics\n".into();
            }
            let line = |row: &&Followed| {
                let (name, role) = (word(&hashed(&row.topic), out), word(&row.role, out));
                let name = out.paint(Style::Cyan, &name).into_owned();
                format!("{name}  {} unread, {role} ({})\n", row.unread, word(&row.mesh, out))
            };
            rows.iter().map(line).collect()
        })?;
        Ok(exit.into())
    }
}
