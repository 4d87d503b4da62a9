//! `audit`: `list`, `verify`, `export`, `heads`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use claudemesh_protocol::crypto::audit::{Entry, GENESIS};
use claudemesh_protocol::features::audit::{AuditEntry, AuditQuery, AuditRow};
use claudemesh_protocol::id::{MemberId, MeshId};
use claudemesh_protocol::time::iso;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::payload::payload_words;
use crate::config::audit_heads::{self, Glance, HeadFault, extends, glance, kept};
use crate::connection::Connection;
use crate::context::Context;
use crate::context::connect::{ask, warn_of_log};
use crate::error::{CliError, ExitCode, sentence};
use crate::output::{Style, clean};
use crate::verb::shape::{InMesh, in_mesh};
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields, verbs};

verbs! {
    /// Read the audit log of the mesh, and check that no one has changed it.
    #[command(after_help = "Examples:\n  claudemesh audit list\n  claudemesh audit verify --json\n\ndocs/audit.md says what it proves.")]
    pub struct AuditArgs: enum AuditVerb {
        List => ListArgs,
        Verify => VerifyArgs,
        Export => ExportArgs,
        Heads => HeadsArgs,
    }
}

/// List entries, newest first: all of them for the owner and admins, for other members what they did themselves.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh audit list --limit 20\n  claudemesh audit list --event member_banned\n  \
                        claudemesh audit list --before 120"
)]
pub struct ListArgs {
    /// How many, 1 to 200.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: u32,
    /// Only one kind of event.
    #[arg(long, value_name = "EVENT")]
    pub event: Option<String>,
    /// Only entries before this one.
    #[arg(long, value_name = "ID")]
    pub before: Option<i64>,
}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        in_mesh::<AuditRow>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<AuditRow>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        list(cx, self).map(done)
    }
}

/// Follow the whole log, and compare it with the head that was seen last. Exit code 1 when something does not fit.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh audit verify\n  claudemesh audit verify --json")]
pub struct VerifyArgs {}

impl Verb for VerifyArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        in_mesh::<Verdict>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Verdict>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        verify(cx).map(Into::into)
    }
}

/// Write all entries as JSON lines, oldest first, and check each hash on the way. For the owner and admins.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh audit export > audit.jsonl\n  claudemesh audit export --out audit.jsonl --json"
)]
pub struct ExportArgs {
    /// File to write to instead of the terminal.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

impl Verb for ExportArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::lines::<AuditEntry>(), Shape::one::<InMesh<Exported>>().of("--out")]
    }

    fn run(self, cx: &Context) -> Ran {
        export(cx, &self).map(Into::into)
    }
}

/// Show the signed end of the log and the head that was seen last. Exit code 1 when it does not extend that.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh audit heads --json")]
pub struct HeadsArgs {}

impl Verb for HeadsArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Heads>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Heads>()]
    }

    fn run(self, cx: &Context) -> Ran {
        heads(cx).map(Into::into)
    }
}

/// What `verify` found.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    /// The chain is whole and extends the head that was seen last.
    valid: bool,
    entries: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_at: Option<i64>,
    /// Why it does not extend the head that was seen last.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

/// What `heads` shows.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Heads {
    mesh: String,
    key: String,
    seq: i64,
    hash: String,
    at: String,
    /// Place of the head that was seen before.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_seq: Option<i64>,
    /// It extends what was seen before.
    extends: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

/// What `export` did.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Exported {
    valid: bool,
    entries: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_at: Option<i64>,
    saved_to: String,
}

/// Runs `audit list`.
///
/// # Errors
/// Of the connection.
fn list(cx: &Context, args: ListArgs) -> Result<(), CliError> {
    let entry = cx.mesh_entry()?;
    let query = AuditQuery { limit: Some(args.limit), offset: None, event_type: args.event, before: args.before };
    let reads = !cx.out.is_json();
    let (found, names) = ask(cx, &entry, |connection| async move {
        let found = connection.audit_entries(query).await?;
        // An older broker lists no members; ids stay ids then.
        let members = if reads { connection.list_members().await.unwrap_or_default() } else { vec![] };
        let names: BTreeMap<String, String> =
            members.into_iter().map(|member| (member.member_id.to_string(), member.name)).collect();
        Ok((found, names))
    })?;
    cx.out.answer(&InMesh::all(&entry.slug, &found.entries), |out| {
        if found.entries.is_empty() {
            return "No entries that you may see.\n".into();
        }
        let line = |row: &AuditRow| {
            let (when, event) = (crate::clock::shown(&row.created_at), clean(&row.event_type).into_owned());
            let actor = row.actor.as_deref().map_or("-".into(), |name| clean(name).into_owned());
            let payload = clean(&payload_words(&row.payload, &names)).into_owned();
            format!("{:>6}  {when}  {}  {actor}  {payload}\n", row.id, out.paint(Style::Bold, &event))
        };
        found.entries.iter().map(line).collect()
    })
}

/// What [`look`] found: the head, what does not fit, and whether the user was warned of that when the connection was opened.
type Looked = (Heads, Option<HeadFault>, bool);

/// Looks at the head and keeps it when it extends the one before.
async fn look(cx: &Context, connection: &Connection, mesh: &MeshId) -> Result<Looked, CliError> {
    let seen = cx.store.seen_head(mesh)?;
    let welcome = connection.hello_ack().ok().and_then(|ack| audit_heads::told(&ack));
    let warned = !connection.is_session()
        && welcome.is_some_and(|told| matches!(glance(mesh, seen.as_ref(), &told), Glance::Fault(_)));
    let told = connection.audit_heads(seen.as_ref().map(|seen| seen.seq)).await?;
    let fault = extends(mesh, seen.as_ref(), &told).err();
    if fault.is_none() {
        cx.store.keep_head(kept(mesh, &told))?;
    }
    let heads = Heads {
        mesh: String::new(),
        key: told.key.to_hex(),
        seq: told.head.seq,
        hash: told.head.hash,
        at: iso(told.head.at),
        seen_seq: seen.map(|seen| seen.seq),
        extends: fault.is_none(),
        fault: fault.as_ref().map(ToString::to_string),
    };
    Ok((heads, fault, warned))
}

fn exit(fine: bool) -> ExitCode {
    if fine { ExitCode::Success } else { ExitCode::Cancelled }
}

/// Runs `audit verify`.
///
/// # Errors
/// Of the connection; exit 10 when the last head cannot be read or kept.
fn verify(cx: &Context) -> Result<ExitCode, CliError> {
    let entry = cx.mesh_entry()?;
    let mesh = entry.mesh_id.clone();
    let (found, fault, warned) = ask(cx, &entry, |connection| async move {
        let (_, fault, warned) = look(cx, &connection, &mesh).await?;
        Ok((connection.audit_verify().await?, fault, warned))
    })?;
    if let Some(fault) = fault.as_ref().filter(|_| !warned) {
        warn_of_log(cx, &entry, fault);
    }
    let value = Verdict {
        valid: found.valid && fault.is_none(),
        entries: found.entries,
        broken_at: found.broken_at,
        fault: fault.as_ref().map(ToString::to_string),
    };
    cx.out.answer(&InMesh::new(&entry.slug, &value), |out| match (&value.broken_at, &value.fault) {
        (Some(at), _) => format!("{} entry {at} is missing or was changed\n", out.paint(Style::Red, "✗")),
        (None, Some(fault)) => format!("{} {fault}\n", out.paint(Style::Red, "✗")),
        (None, None) => format!("{} {} entries, unbroken\n", out.tick(), value.entries),
    })?;
    Ok(exit(value.valid))
}

/// Runs `audit heads`.
///
/// # Errors
/// As [`verify`].
fn heads(cx: &Context) -> Result<ExitCode, CliError> {
    let entry = cx.mesh_entry()?;
    let mesh = entry.mesh_id.clone();
    let (heads, fault, warned) = ask(cx, &entry, |connection| async move { look(cx, &connection, &mesh).await })?;
    if let Some(fault) = fault.as_ref().filter(|_| !warned) {
        warn_of_log(cx, &entry, fault);
    }
    let value = Heads { mesh: entry.slug.clone(), ..heads };
    cx.out.answer(&value, |out| {
        let mut text = format!("Entry {} {}\n  signed {} by {}\n", value.seq, value.hash, value.at, value.key);
        text += &match (&value.fault, value.seen_seq) {
            (Some(fault), _) => format!("  {} {fault}\n", out.paint(Style::Red, "✗")),
            (None, Some(seen)) => format!("  {} extends entry {seen}, which was seen before\n", out.tick()),
            (None, None) => "  the first head that is seen from here; kept for later\n".into(),
        };
        text
    })?;
    Ok(exit(fault.is_none()))
}

/// Where the lines go.
enum Sink {
    File(BufWriter<File>, PathBuf),
    Terminal,
}

/// Follows the chain of an export.
struct Follow {
    mesh: String,
    hash: String,
    entries: i64,
    broken_at: Option<i64>,
}

impl Follow {
    fn new(mesh: &MeshId) -> Self {
        Self { mesh: mesh.to_string(), hash: GENESIS.to_owned(), entries: 0, broken_at: None }
    }

    fn step(&mut self, entry: &AuditEntry) {
        let fields = Entry {
            mesh: &self.mesh,
            event: &entry.event_type,
            actor: entry.actor.as_ref().map(MemberId::as_str),
            payload: &entry.payload,
            at_ms: entry.created_at_ms,
        };
        if self.broken_at.is_some() {
            return;
        }
        if entry.seq != self.entries + 1 || entry.prev_hash != self.hash || fields.hash(&self.hash) != entry.hash {
            self.broken_at = Some(self.entries + 1);
            return;
        }
        self.entries = entry.seq;
        self.hash.clone_from(&entry.hash);
    }
}

/// Runs `audit export`.
///
/// # Errors
/// Exit 7 without the right, 10 when the file cannot be written, or of the connection.
fn export(cx: &Context, args: &ExportArgs) -> Result<ExitCode, CliError> {
    let entry = cx.mesh_entry()?;
    let failed =
        |path: &PathBuf, error| CliError::io(sentence(&format!("{} cannot be written: {error}", path.display())));
    let mut sink = match &args.out {
        Some(path) => {
            let file = File::create(path).map_err(|error| failed(path, error))?;
            Sink::File(BufWriter::new(file), path.clone())
        }
        None => Sink::Terminal,
    };
    let mut follow = Follow::new(&entry.mesh_id.clone());
    ask(cx, &entry, |connection| {
        let (sink, follow) = (&mut sink, &mut follow);
        async move {
            let mut after = 0;
            loop {
                let page = connection.audit_export(after).await?;
                let mut text = String::new();
                for entry in &page.entries {
                    follow.step(entry);
                    let line = serde_json::to_string(entry).map_err(|error| CliError::internal(error.to_string()))?;
                    text += &(line + "\n");
                }
                let more = match sink {
                    Sink::File(file, path) => {
                        file.write_all(text.as_bytes()).map_err(|error| failed(path, error))?;
                        true
                    }
                    Sink::Terminal => cx.out.print(&text)?,
                };
                match page.next.filter(|_| more) {
                    Some(next) => after = next,
                    None => return Ok(()),
                }
            }
        }
    })?;
    let valid = follow.broken_at.is_none();
    match sink {
        Sink::File(mut file, path) => {
            file.flush().map_err(|error| failed(&path, error))?;
            let saved_to = path.display().to_string();
            let value = Exported { valid, entries: follow.entries, broken_at: follow.broken_at, saved_to };
            cx.out.answer(&InMesh::new(&entry.slug, &value), |out| match value.broken_at {
                None => format!("{} {} entries in {}\n", out.tick(), value.entries, value.saved_to),
                Some(at) => format!("{} entry {at} is missing or was changed\n", out.paint(Style::Red, "✗")),
            })?;
        }
        Sink::Terminal => {
            if let Some(at) = follow.broken_at {
                cx.out.warn(&format!("Entry {at} is missing or was changed."));
            }
        }
    }
    Ok(exit(valid))
}
