//! `outbox list`, `send`, `drop`: what waits on this machine for the broker.

use clap::Args;
use claudemesh_protocol::time::iso;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::beginning;
use crate::clock::shown;
use crate::context::Context;
use crate::context::connect;
use crate::context::several::line;
use crate::error::{CliError, ExitCode};
use crate::features::messaging::outbox::{Delivered, Outbox, Parcel};
use crate::inbox::listed::short_id;
use crate::output::{Output, Style, clean, counted};
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields, verbs};

verbs! {
    /// Show, send or drop messages that are queued on this machine because the broker could not be reached.
    #[command(
        after_help = "Examples:\n  claudemesh outbox list\n  claudemesh outbox send\n  claudemesh outbox drop 3fa09c11\n\n\
                            Queued messages are sent by the next command or session that reaches the broker."
    )]
    pub struct OutboxArgs: enum OutboxAction {
        List => ListArgs,
        Send => SendArgs,
        Drop => DropArgs,
    }
}

/// List queued messages, oldest first.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh outbox list\n  claudemesh outbox list --json=id,to,failed")]
pub struct ListArgs {}

/// Send queued messages now.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh outbox send")]
pub struct SendArgs {}

/// Drop queued messages; they are never sent.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh outbox drop 3fa09c11\n  claudemesh outbox drop --all")]
pub struct DropArgs {
    /// ID of the queued message, or at least 8 characters of it.
    #[arg(required_unless_present = "all")]
    id: Option<String>,
    /// All of them.
    #[arg(long, conflicts_with = "id")]
    all: bool,
}

/// A queued message, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Row {
    mesh: String,
    id: String,
    to: Vec<String>,
    priority: String,
    queued_at: String,
    plaintext: String,
    /// Why it will never arrive; `null` while it waits.
    failed: Option<String>,
}

/// What `outbox send` did in one mesh, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct SentRow {
    mesh: String,
    sent: usize,
    failed: usize,
    waiting: usize,
}

/// What `outbox drop` did, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Dropped {
    ok: bool,
    dropped: Vec<String>,
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
        let mut rows = vec![];
        for (mesh, outbox) in all(cx)? {
            rows.extend(outbox.parcels().iter().map(|parcel| row(&mesh, parcel)));
        }
        cx.out
            .answer(&rows, |out| {
                if rows.is_empty() {
                    return if out.is_quiet() { String::new() } else { "nothing is queued\n".into() };
                }
                rows.iter().map(|row| row_text(row, out)).collect()
            })
            .map(done)
    }
}

impl Verb for SendArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<SentRow>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<SentRow>()]
    }

    /// Exit 4 while something waits, 1 when something will never arrive.
    fn run(self, cx: &Context) -> Ran {
        let mut rows = vec![];
        for entry in cx.mesh_entries()? {
            let outbox = Outbox::of(cx.store.dir(), &entry.mesh_id);
            if outbox.is_empty() {
                continue;
            }
            let sent = connect::ask(cx, &entry, |connection| async move { outbox.deliver(&connection).await });
            let sent = match sent {
                Ok(sent) => sent,
                Err(error) if error.exit == ExitCode::Io => return Err(error),
                Err(error) => {
                    let waiting = Outbox::of(cx.store.dir(), &entry.mesh_id).parcels().len();
                    cx.out.warn(&line(&entry.slug, &error));
                    Delivered { waiting, ..Delivered::default() }
                }
            };
            rows.push(SentRow { mesh: entry.slug, sent: sent.sent, failed: sent.failed, waiting: sent.waiting });
        }
        cx.out.answer(&rows, |out| {
            if rows.is_empty() {
                return "nothing is queued\n".into();
            }
            rows.iter().map(|row| format!("{} {}: {}\n", out.tick(), clean(&row.mesh), words(row))).collect()
        })?;
        let exit = match rows.iter().fold((0, 0), |sum, row| (sum.0 + row.waiting, sum.1 + row.failed)) {
            (0, 0) => ExitCode::Success,
            (0, _) => ExitCode::Cancelled,
            _ => ExitCode::Network,
        };
        Ok(exit.into())
    }
}

fn words(row: &SentRow) -> String {
    let mut words = format!("{} sent", row.sent);
    if row.waiting > 0 {
        words += &format!(", {} still queued", row.waiting);
    }
    if row.failed > 0 {
        words += &format!(", {} cannot be delivered (claudemesh outbox list says why)", row.failed);
    }
    words
}

impl Verb for DropArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Dropped>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Dropped>()]
    }

    /// Exit 5 when nothing queued has that id.
    fn run(self, cx: &Context) -> Ran {
        let wanted = self.id.as_deref().map(str::trim).unwrap_or_default().to_ascii_lowercase();
        let fits = |parcel: &Parcel| self.all || (wanted.len() >= 8 && parcel.id.starts_with(&wanted));
        let mut dropped = vec![];
        for (_, outbox) in all(cx)? {
            dropped.extend(outbox.discard(fits)?);
        }
        if dropped.is_empty() && !self.all {
            return Err(
                CliError::not_found("No queued message has that ID.").hint("`claudemesh outbox list` shows them.")
            );
        }
        let value = Dropped { ok: true, dropped };
        cx.out
            .answer(&value, |out| format!("{} {} dropped\n", out.tick(), counted(value.dropped.len(), "message")))
            .map(done)
    }
}

/// The outboxes of the meshes that the call is about. No broker is asked.
pub(super) fn all(cx: &Context) -> Result<Vec<(String, Outbox)>, CliError> {
    let meant = cx.store.load()?.meshes;
    let wanted = meant.into_iter().filter(|entry| cx.mesh.as_ref().is_none_or(|slug| *slug == entry.slug));
    Ok(wanted.map(|entry| (entry.slug.clone(), Outbox::of(cx.store.dir(), &entry.mesh_id))).collect())
}

fn row(mesh: &str, parcel: &Parcel) -> Row {
    Row {
        mesh: mesh.to_owned(),
        id: parcel.id.clone(),
        to: parcel.targets().into_iter().map(str::to_owned).collect(),
        priority: parcel.priority.as_str().to_owned(),
        queued_at: iso(parcel.queued_at_ms),
        plaintext: crate::features::files::attach::shown(&parcel.text),
        failed: parcel.failure().map(str::to_owned),
    }
}

fn row_text(row: &Row, out: &Output) -> String {
    let state = match &row.failed {
        Some(why) => out.paint(Style::Red, &format!("cannot be delivered: {}", beginning(why, out))).into_owned(),
        None => "waits for the broker".to_owned(),
    };
    let to: Vec<String> = row.to.iter().map(|to| beginning(to, out)).collect();
    let details = format!("{} · {} · {}", shown(&row.queued_at), short_id(&row.id), clean(&row.mesh));
    let head = format!("to {}  {}  {state}\n", out.paint(Style::Cyan, &to.join(", ")), out.paint(Style::Dim, &details));
    head + &out.block(&row.plaintext)
}
