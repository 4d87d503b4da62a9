//! `kick`, `disconnect`, `ban`, `unban`, `bans`.

use claudemesh_protocol::features::moderation::Selection;
use serde_json::{Value, json};

use crate::cli::args::{BanArgs, SelectionArgs, UnbanArgs};
use crate::context::Context;
use crate::context::connect::ask;
use crate::error::{CliError, ExitCode};
use crate::output::{Style, clean};

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
pub fn kick(cx: &Context, args: &SelectionArgs) -> Result<(), CliError> {
    let entry = cx.mesh_entry()?;
    let selection = Selection::from(args);
    let ack = ask(cx, &entry, |connection| async move { Ok(connection.kick_peers(selection).await?) })?;
    let skipped = ack.skipped_control_plane.unwrap_or_default();
    if args.peer.is_some() && ack.kicked.is_empty() && skipped.is_empty() {
        return Err(nobody_of(args));
    }
    let value = json!({"affected": ack.affected, "kicked": ack.kicked, "skipped_control_plane": skipped});
    cx.out.answer(&value, |out| {
        let mut text = format!("{} kicked {}\n", out.tick(), names(&ack.kicked));
        if !skipped.is_empty() {
            text += &format!("  left alone (no session): {}; use `claudemesh disconnect`\n", names(&skipped));
        }
        text
    })
}

/// Runs `disconnect`.
///
/// # Errors
/// As [`kick`].
pub fn disconnect(cx: &Context, args: &SelectionArgs) -> Result<(), CliError> {
    let entry = cx.mesh_entry()?;
    let selection = Selection::from(args);
    let affected = ask(cx, &entry, |connection| async move { Ok(connection.disconnect_peers(selection).await?) })?;
    if args.peer.is_some() && affected.is_empty() {
        return Err(nobody_of(args));
    }
    cx.out.answer(&json!({"affected": affected}), |out| format!("{} disconnected {}\n", out.tick(), names(&affected)))
}

/// Runs `ban`.
///
/// # Errors
/// As [`kick`].
pub fn ban(cx: &Context, args: &BanArgs) -> Result<(), CliError> {
    let entry = cx.mesh_entry()?;
    let banned =
        ask(
            cx,
            &entry,
            |connection| async move { Ok(connection.ban_member(&args.peer, args.reason.as_deref()).await?) },
        )?;
    cx.out.answer(&json!({"banned": banned}), |out| format!("{} banned {}\n", out.tick(), clean(&banned)))
}

/// Runs `unban`.
///
/// # Errors
/// As [`kick`].
pub fn unban(cx: &Context, args: &UnbanArgs) -> Result<(), CliError> {
    let entry = cx.mesh_entry()?;
    let name = ask(cx, &entry, |connection| async move { Ok(connection.unban_member(&args.peer).await?) })?;
    cx.out.answer(&json!({"unbanned": name}), |out| format!("{} unbanned {}\n", out.tick(), clean(&name)))
}

/// Runs `bans`.
///
/// # Errors
/// As [`kick`].
pub fn bans(cx: &Context) -> Result<(), CliError> {
    let entry = cx.mesh_entry()?;
    let bans = ask(cx, &entry, |connection| async move { Ok(connection.list_bans().await?) })?;
    let list =
        bans.iter().map(|ban| json!({"name": ban.name, "pubkey": ban.pubkey, "revokedAt": ban.revoked_at})).collect();
    cx.out.answer(&Value::Array(list), |out| {
        if bans.is_empty() {
            return "Nobody is banned.\n".into();
        }
        let line = |ban: &claudemesh_protocol::features::moderation::BanEntry| {
            let name = clean(&ban.name).into_owned();
            let when = crate::clock::shown(&ban.revoked_at);
            format!("{} {} since {when}\n", out.paint(Style::Bold, &name), ban.pubkey.short())
        };
        bans.iter().map(line).collect()
    })
}
