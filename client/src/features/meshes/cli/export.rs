//! `mesh export`: a copy of what the caller may read of a mesh.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use claudemesh_protocol::features::capabilities::GetPermissions;
use claudemesh_protocol::features::info::MeshInfo;
use claudemesh_protocol::features::topics::{TopicList, TopicMembers};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::named_or_usual;
use crate::config::MeshEntry;
use crate::connection::{Connection, ConnectionError};
use crate::context::Context;
use crate::context::connect::ask;
use crate::error::{CliError, ExitCode, sentence};
use crate::features::enrolment::{self, Inviter};
use crate::features::meshes::Routes;
use crate::features::topics::MAX_HISTORY;
use crate::output::{Style, clean};
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields};

mod kept;

/// Messages of one topic in an export.
const MAX_TOPIC_MESSAGES: usize = 100_000;
/// Keys of shared state in an export.
const MAX_STATE_KEYS: usize = 1_000_000;

/// Write a copy of a mesh as JSON: members, settings, topics with their history, all that the mesh keeps, audit log.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh mesh export kitchen --out kitchen.json\n  claudemesh mesh export --out - | jq .members\n\n\
                        It has what you may read; `leftOut` names the rest. Direct messages are not in it: they are sealed. docs/meshes.md lists the parts."
)]
pub struct ExportArgs {
    /// Short name of the mesh [default: the one that every command would take]
    pub slug: Option<String>,
    /// File to write to, which only you can read; `-` is the terminal.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

impl Verb for ExportArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Exported>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Exported>()]
    }

    fn run(self, cx: &Context) -> Ran {
        export(cx, &self).map(done)
    }
}

/// Where the copy is.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Exported {
    ok: bool,
    mesh: String,
    file: String,
    bytes: usize,
    /// Parts that the caller may not read.
    left_out: usize,
    /// Rows of each list in the file, by its name.
    rows: BTreeMap<String, usize>,
}

/// The parts of an export, and why some are missing.
struct Parts {
    found: Map<String, Value>,
    left_out: Vec<Value>,
}

impl Parts {
    /// A part that could be read, or the reason. Only what the mesh refuses, or a broker of before does not know, is left out; a broken
    /// connection is a failure.
    fn put(&mut self, name: &str, part: Result<Value, CliError>) -> Result<(), CliError> {
        match part {
            Ok(value) => drop(self.found.insert(name.into(), value)),
            Err(error) if error.exit == ExitCode::Network && error.code != "not_supported" => return Err(error),
            Err(error) => self.left_out.push(json!({"part": name, "error": error.code, "message": error.message})),
        }
        Ok(())
    }
}

fn value(part: impl serde::Serialize) -> Result<Value, CliError> {
    serde_json::to_value(part).map_err(|error| CliError::internal(format!("A part cannot be written: {error}.")))
}

/// Runs `mesh export`.
///
/// # Errors
/// Exit 10 when the file cannot be written, 4 for the network.
fn export(cx: &Context, args: &ExportArgs) -> Result<(), CliError> {
    let entry = named_or_usual(cx, args.slug.as_deref())?;
    let routes = Routes::of(&cx.store, &entry)?;
    let mut parts = Parts { found: Map::new(), left_out: vec![] };
    parts.put("mesh", routes.show().and_then(value))?;
    parts.put("settings", routes.settings().and_then(value))?;
    parts.put("members", enrolment::members(&entry).and_then(value))?;
    if let Some(owner) = cx.store.owner(&entry.mesh_id)? {
        // Without the codes: the copy must not let anyone in.
        let listed = Inviter::owner(&owner).and_then(|inviter| enrolment::list_invites(&inviter, &entry));
        let invites = listed.map(|invites| {
            let plain = invites.into_iter().map(|invite| {
                json!({"inviteId": invite.invite_id, "role": invite.role, "maxUses": invite.max_uses,
                    "usedCount": invite.used_count, "expiresAt": invite.expires_at, "revokedAt": invite.revoked_at})
            });
            Value::Array(plain.collect())
        });
        parts.put("invites", invites)?;
    }
    let parts = ask(cx, &entry, |connection| async move {
        over_the_connection(&connection, &mut parts).await?;
        Ok(parts)
    })?;
    let mut whole = Map::new();
    whole.insert("schemaVersion".into(), "1.0".into());
    whole.insert("exportedAt".into(), crate::clock::now_iso().into());
    whole.extend(parts.found);
    whole.insert("leftOut".into(), Value::Array(parts.left_out.clone()));
    write(cx, args, &entry, &Value::Object(whole), parts.left_out.len())
}

async fn over_the_connection(connection: &Connection, parts: &mut Parts) -> Result<(), CliError> {
    let info = connection.request(MeshInfo {}).await;
    parts.put("info", info.map_err(CliError::from).and_then(value))?;
    let permissions = connection.request(GetPermissions { member: None }).await;
    parts.put("permissions", permissions.map_err(CliError::from).and_then(value))?;
    let state = connection.list_state(None, None, MAX_STATE_KEYS).await;
    parts.put("state", state.map_err(CliError::from).and_then(|listed| value(listed.entries)))?;
    kept::read(connection, parts).await?;
    parts.put("topics", topics(connection).await.map_err(CliError::from).map(Value::Array))?;
    parts.put("audit", audit(connection).await.map_err(CliError::from).map(Value::Array))
}

/// Topics with their subscribers and their history, oldest first.
async fn topics(connection: &Connection) -> Result<Vec<Value>, ConnectionError> {
    let mut all = vec![];
    for topic in connection.request(TopicList {}).await?.topics {
        let members = connection.request(TopicMembers { topic: topic.id.to_string() }).await?.members;
        let mut pages = vec![];
        let mut before: Option<String> = None;
        loop {
            let page = connection.topic_history(topic.id.as_str(), MAX_HISTORY, before.as_deref()).await?;
            let full = page.len() == MAX_HISTORY as usize;
            before = page.first().map(|first| first.message.id.to_string());
            pages.push(page);
            if !full || pages.len() * MAX_HISTORY as usize >= MAX_TOPIC_MESSAGES {
                break;
            }
        }
        let messages = pages.into_iter().rev().flatten().map(|entry| {
            json!({"id": entry.message.id, "senderName": entry.message.sender_name,
                "senderPubkey": entry.message.sender_pubkey, "createdAt": entry.message.created_at, "text": entry.text})
        });
        all.push(json!({"topic": topic, "members": members, "messages": messages.collect::<Vec<_>>()}));
    }
    Ok(all)
}

/// Every entry of the audit log, oldest first.
async fn audit(connection: &Connection) -> Result<Vec<Value>, ConnectionError> {
    let (mut all, mut after) = (vec![], 0);
    loop {
        let page = connection.audit_export(after).await?;
        all.extend(page.entries.iter().map(|entry| serde_json::to_value(entry).unwrap_or_default()));
        match page.next {
            Some(next) => after = next,
            None => return Ok(all),
        }
    }
}

fn write(cx: &Context, args: &ExportArgs, entry: &MeshEntry, whole: &Value, missing: usize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(whole)
        .map_err(|error| CliError::internal(format!("The copy cannot be written: {error}.")))?;
    let path = &args.out;
    if path.as_os_str() == "-" {
        return cx.out.write(&format!("{text}\n"));
    }
    crate::files::write_private(path, text.as_bytes())
        .map_err(|error| CliError::io(sentence(&format!("{} cannot be written: {error}", path.display()))))?;
    let (mesh, file) = (entry.slug.clone(), path.display().to_string());
    let lists = whole.as_object().into_iter().flatten().filter(|(name, _)| *name != "leftOut");
    let rows = lists.filter_map(|(name, part)| Some((name.clone(), part.as_array()?.len())));
    let answer = Exported { ok: true, mesh, file, bytes: text.len(), left_out: missing, rows: rows.collect() };
    cx.out.answer(&answer, |out| {
        let note = match missing {
            0 => String::new(),
            count => format!("  {count} part(s) you may not read are left out; `leftOut` in the file says which\n"),
        };
        let counts: Vec<String> = answer.rows.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let counts = out.paint(Style::Dim, &counts.join(", ")).into_owned();
        format!("{} {} is in {}\n  {counts}\n{note}", out.tick(), clean(&entry.slug), path.display())
    })
}
