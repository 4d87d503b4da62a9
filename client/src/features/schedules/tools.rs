//! `schedule_reminder`, `list_scheduled`, `cancel_scheduled`.

use std::time::Duration;

use claudemesh_protocol::features::schedules::{ListScheduled, Misfire, ScheduleClock, ScheduledAck, ScheduledEntry};
use claudemesh_protocol::target::TargetField;
use claudemesh_protocol::time::iso;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::schemars::{self, JsonSchema};
use rmcp::{tool, tool_router};
use serde::{Deserialize, Serialize};

use super::when::When;
use super::{Order, short, target_words};
use crate::clock::shown;
use crate::connection::Connection;
use crate::mcp::server::MeshServer;
use crate::mcp::tool::{Json, MeshArg, OneLine, OneMeshArg};
use crate::session::ToolError;
use crate::session::notes::harmless_value;

/// Entries of one mesh that `list_scheduled` shows.
const MAX_LISTED: usize = 100;
/// Characters of a text that a line shows.
const LISTED_CHARS: usize = 60;
/// As `--in` of the shell: 366 days.
const LONGEST_SECONDS: f64 = 366.0 * 86_400.0;

/// Parameters of `schedule_reminder`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct NewReminder {
    /// The text.
    message: String,
    /// When, in Unix milliseconds. One of deliver_at, in_seconds and cron.
    #[serde(default)]
    deliver_at: Option<i64>,
    /// So many seconds from now.
    #[serde(default)]
    in_seconds: Option<f64>,
    /// Again and again: five fields (minute, hour, day of month, month, day of week), or @daily and the like.
    #[serde(default)]
    cron: Option<String>,
    /// The recipient: a name, @group, #topic, * or key [default: yourself].
    #[serde(default)]
    to: Option<String>,
    /// Time zone of cron, for example Europe/Berlin [default: this machine's].
    #[serde(default)]
    tz: Option<String>,
    /// What happens to times that pass while the broker is stopped [default: fire_once].
    #[serde(default)]
    misfire: Option<Misfire>,
    /// mesh: the simulated clock of the mesh counts [default: wall].
    #[serde(default)]
    clock: Option<ScheduleClock>,
    #[serde(flatten)]
    mesh: OneMeshArg,
}

/// Parameters of `cancel_scheduled`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct OneEntry {
    /// Its id, or at least its first 8 characters.
    id: String,
    #[serde(flatten)]
    mesh: OneMeshArg,
}

/// What was scheduled.
#[derive(Serialize, JsonSchema)]
struct Reminder {
    /// The mesh.
    mesh_slug: String,
    /// The recipients.
    to: String,
    #[serde(flatten)]
    entry: ScheduledAck,
}

/// What is scheduled.
#[derive(Serialize, JsonSchema)]
struct Found {
    /// By mesh, in the order of the times.
    messages: Vec<Row>,
    /// Meshes with more entries than are shown.
    more: Vec<String>,
    /// Meshes that could not be asked, and why.
    trouble: Vec<String>,
}

/// An entry of one mesh.
#[derive(Serialize, JsonSchema)]
struct Row {
    /// The mesh.
    mesh_slug: String,
    #[serde(flatten)]
    entry: OneLine<ScheduledEntry>,
}

impl NewReminder {
    fn when(&self) -> Result<When, ToolError> {
        match (self.deliver_at, self.in_seconds, &self.cron) {
            (Some(at_ms), None, None) => Ok(When::At(at_ms)),
            (None, Some(seconds), None) if (0.0..=LONGEST_SECONDS).contains(&seconds) => {
                Ok(When::In(Duration::from_secs_f64(seconds)))
            }
            (None, Some(_), None) => Err("in_seconds: expected a number from 0 to 31622400".into()),
            (None, None, Some(cron)) => Ok(When::Cron(cron.clone())),
            _ => Err("expected one of deliver_at, in_seconds and cron".into()),
        }
    }
}

#[tool_router(router = schedule_tools, vis = "pub(crate)")]
impl MeshServer {
    #[tool(
        description = "Send a message of the mesh later, once or again and again: a reminder to yourself, or a text to a peer, @group, #topic or everyone. It comes also when you are gone by then.",
        annotations(destructive_hint = false)
    )]
    async fn schedule_reminder(&self, Parameters(args): Parameters<NewReminder>) -> Result<Json<Reminder>, ToolError> {
        let order = Order {
            when: args.when()?,
            to: args.to,
            text: args.message,
            tz: args.tz,
            misfire: args.misfire,
            clock: args.clock,
        };
        let schedule = |connection: Connection| async move { connection.schedule(order).await };
        let (bound, made) = self.in_one_mesh(args.mesh.slug(), schedule).await?;
        let (ack, slug) = (made.ack, bound.tag.slug);
        let when = match &ack.cron {
            Some(cron) => format!("{}, next {}", harmless_value(cron), at(ack.deliver_at)),
            None => at(ack.deliver_at),
        };
        let to = harmless_value(&made.to);
        let text = format!("Scheduled {} → {to} at {when} ({slug})", short(&ack.scheduled_id));
        Ok(Json(text, Reminder { mesh_slug: slug, to, entry: ack }))
    }

    #[tool(
        description = "List the messages that you have scheduled in the mesh, with their next times.",
        annotations(read_only_hint = true)
    )]
    async fn list_scheduled(&self, Parameters(mesh): Parameters<MeshArg>) -> Result<Json<Found>, ToolError> {
        let ask = |connection: Connection| async move {
            connection.scheduled(ListScheduled::default(), MAX_LISTED + 1).await
        };
        let mut found = Found { messages: vec![], more: vec![], trouble: vec![] };
        let mut lines = Vec::new();
        for (bound, answer) in self.ask_each_mesh(mesh.slug(), ask).await? {
            let (slug, own) = (bound.tag.slug, bound.connection.identity().member.public());
            let mut entries = match answer {
                Ok(entries) => entries,
                Err(error) => {
                    lines.push(format!("({slug}: {error})"));
                    found.trouble.push(format!("{slug}: {error}"));
                    continue;
                }
            };
            if entries.len() > MAX_LISTED {
                entries.truncate(MAX_LISTED);
                found.more.push(slug.clone());
            }
            for mut entry in entries {
                let cut: String = entry.message.chars().take(LISTED_CHARS).collect();
                let to = harmless_value(&target_words(&entry, &own));
                let cron = entry.cron.as_deref().map(|cron| format!(" ({})", harmless_value(cron))).unwrap_or_default();
                let text = harmless_value(&cut);
                lines.push(format!("[{}] → {to} at {}{cron}: {text} ({slug})", short(&entry.id), at(entry.deliver_at)));
                // The schemas of tools know no alternatives: a list of one is a list, too.
                entry.to = TargetField::Many(entry.to.parts().to_vec());
                found.messages.push(Row { mesh_slug: slug.clone(), entry: OneLine(entry) });
            }
        }
        if lines.is_empty() {
            lines.push("Nothing is scheduled.".into());
        }
        Ok(Json(lines.join("\n"), found))
    }

    #[tool(
        description = "Take back a message that you have scheduled in the mesh.",
        annotations(destructive_hint = true, idempotent_hint = true)
    )]
    async fn cancel_scheduled(&self, Parameters(args): Parameters<OneEntry>) -> Result<String, ToolError> {
        let id = args.id;
        let cancel = |connection: Connection| async move { connection.cancel_scheduled(&id).await };
        let (bound, id) = self.in_one_mesh(args.mesh.slug(), cancel).await?;
        Ok(format!("Cancelled {} ({})", short(&id), bound.tag.slug))
    }
}

fn at(ms: i64) -> String {
    shown(&iso(ms)).into_owned()
}
