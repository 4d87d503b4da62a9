//! `kick`, `disconnect`, `ban`, `unban`, `bans`.

use claudemesh_protocol::features::moderation::Selection;
use serde_json::Value;

use crate::context::Context;
use crate::context::connect::ask;
use crate::error::{CliError, ExitCode};
use crate::output::{Style, clean};
use crate::values::parse_duration;
use crate::verb::shape::{InMesh, in_mesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};
use clap::Args;
use claudemesh_protocol::features::moderation::BanEntry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Whose connections.
#[derive(Args, Clone, Debug, Default)]
#[group(required = true, multiple = false)]
pub struct SelectionArgs {
    /// Name, key, or at least the first 8 digits of a key.
    pub peer: Option<String>,
    /// Everyone who has been silent for at least this long: a number and `s`, `m`, `h` or `d`.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub stale: Option<Duration>,
    /// Everyone but you.
    #[arg(long)]
    pub all: bool,
}

/// Close a peer's connections; it stays away until it is started again. For admins.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh kick Bob\n  claudemesh kick --stale 30m")]
pub struct KickArgs {
    /// Whose.
    #[command(flatten)]
    pub which: SelectionArgs,
}

impl Verb for KickArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        in_mesh::<Kicked>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Kicked>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        kick(cx, &self.which).map(done)
    }
}

/// Close a peer's connections; its client reconnects automatically. For admins.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh disconnect Bob\n  claudemesh disconnect --all")]
pub struct DisconnectArgs {
    /// Whose.
    #[command(flatten)]
    pub which: SelectionArgs,
}

impl Verb for DisconnectArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        in_mesh::<Disconnected>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Disconnected>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        disconnect(cx, &self.which).map(done)
    }
}

/// Ban a member for good. For admins.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh ban Bob --reason \"left the company\"")]
pub struct BanArgs {
    /// Name, key, or at least the first 8 digits of a key.
    pub peer: String,
    /// Why; it stands in the audit log, where the owner and admins read it (`claudemesh audit list`).
    #[arg(long)]
    pub reason: Option<String>,
}

impl Verb for BanArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        in_mesh::<Banned>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Banned>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        ban(cx, &self).map(done)
    }
}

/// Lift a ban. For admins.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh unban Bob")]
pub struct UnbanArgs {
    /// Exact name, key, or at least the first 8 digits of the key of a banned member.
    pub peer: String,
}

impl Verb for UnbanArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        in_mesh::<Unbanned>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Unbanned>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        unban(cx, &self).map(done)
    }
}

/// List banned members. For admins.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh bans")]
pub struct BansArgs {}

impl Verb for BansArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        in_mesh::<BanEntry>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<InMesh<BanEntry>>()]
    }

    fn run(self, cx: &Context) -> Ran {
        bans(cx).map(done)
    }
}

/// Who `kick` closed.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Kicked {
    affected: Vec<String>,
    kicked: Vec<String>,
    skipped_control_plane: Vec<String>,
}

/// Who `disconnect` closed.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Disconnected {
    affected: Vec<String>,
}

/// Who is banned now.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Banned {
    banned: String,
}

/// Who is not banned any more.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Unbanned {
    unbanned: String,
}

impl From<&SelectionArgs> for Selection {
    fn from(args: &SelectionArgs) -> Self {
        Self {
            target: args.peer.clone(),
            stale: args.stale.map(|silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
            all: args.all.then_some(true),
        }
    }
}

/// Who was named and has no connection to be closed: nothing was done, and the exit code says so.
fn nobody_of(args: &SelectionArgs) -> CliError {
    let who = args.peer.as_deref().map_or_else(|| "The peer".into(), clean);
    CliError::new(
        ExitCode::NotFound,
        "not_connected",
        format!("{who} is not connected, so there was nothing to close."),
    )
    .hint("`claudemesh peers` lists who is there; `claudemesh ban` keeps a member away for good.")
    .field("affected", Value::Array(vec![]))
}

fn names(list: &[String]) -> String {
    if list.is_empty() {
        return "nobody".into();
    }
    list.iter().map(|name| clean(name).into_owned()).collect::<Vec<_>>().join(", ")
}

/// Runs `kick`.
///
/// # Errors
/// Exit 7 without the right, 5 for an unknown peer and for one that is away, or of the connection.
fn kick(cx: &Context, args: &SelectionArgs) -> Result<(), CliError> {
    let entry = cx.mesh_entry()?;
    let selection = Selection::from(args);
    let ack = ask(cx, &entry, |connection| async move { Ok(connection.kick_peers(selection).await?) })?;
    let skipped = ack.skipped_control_plane.unwrap_or_default();
    if args.peer.is_some() && ack.kicked.is_empty() && skipped.is_empty() {
        return Err(nobody_of(args));
    }
    let value = Kicked { affected: ack.affected, kicked: ack.kicked, skipped_control_plane: skipped };
    cx.out.answer(&InMesh::new(&entry.slug, &value), |out| {
        let mut text = format!("{} kicked {}\n", out.tick(), names(&value.kicked));
        if !value.skipped_control_plane.is_empty() {
            text += &format!(
                "  left alone (no session): {}; use `claudemesh disconnect`\n",
                names(&value.skipped_control_plane)
            );
        }
        text
    })
}

/// Runs `disconnect`.
///
/// # Errors
/// As [`kick`].
fn disconnect(cx: &Context, args: &SelectionArgs) -> Result<(), CliError> {
    let entry = cx.mesh_entry()?;
    let selection = Selection::from(args);
    let affected = ask(cx, &entry, |connection| async move { Ok(connection.disconnect_peers(selection).await?) })?;
    if args.peer.is_some() && affected.is_empty() {
        return Err(nobody_of(args));
    }
    let value = Disconnected { affected };
    cx.out.answer(&InMesh::new(&entry.slug, &value), |out| {
        format!("{} disconnected {}\n", out.tick(), names(&value.affected))
    })
}

/// Runs `ban`.
///
/// # Errors
/// As [`kick`].
fn ban(cx: &Context, args: &BanArgs) -> Result<(), CliError> {
    let entry = cx.mesh_entry()?;
    let banned =
        ask(
            cx,
            &entry,
            |connection| async move { Ok(connection.ban_member(&args.peer, args.reason.as_deref()).await?) },
        )?;
    let value = Banned { banned };
    cx.out.answer(&InMesh::new(&entry.slug, &value), |out| format!("{} banned {}\n", out.tick(), clean(&value.banned)))
}

/// Runs `unban`.
///
/// # Errors
/// As [`kick`].
fn unban(cx: &Context, args: &UnbanArgs) -> Result<(), CliError> {
    let entry = cx.mesh_entry()?;
    let name = ask(cx, &entry, |connection| async move { Ok(connection.unban_member(&args.peer).await?) })?;
    let value = Unbanned { unbanned: name };
    cx.out.answer(&InMesh::new(&entry.slug, &value), |out| {
        format!("{} unbanned {}\n", out.tick(), clean(&value.unbanned))
    })
}

/// Runs `bans`.
///
/// # Errors
/// As [`kick`].
fn bans(cx: &Context) -> Result<(), CliError> {
    let entry = cx.mesh_entry()?;
    let bans = ask(cx, &entry, |connection| async move { Ok(connection.list_bans().await?) })?;
    cx.out.answer(&InMesh::all(&entry.slug, &bans), |out| {
        if bans.is_empty() {
            return "No one is banned.\n".into();
        }
        let line = |ban: &BanEntry| {
            let name = clean(&ban.name).into_owned();
            let when = crate::clock::shown(&ban.revoked_at);
            format!("{} {} since {when}\n", out.paint(Style::Bold, &name), ban.pubkey.short())
        };
        bans.iter().map(line).collect()
    })
}
