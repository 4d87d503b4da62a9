//! In which mesh a recipient is, when several are joined and none is named.

use claudemesh_protocol::error::ErrorCode;

use crate::config::MeshEntry;
use crate::context::Context;
use crate::context::connect;
use crate::context::several::line;
use crate::error::{CliError, ExitCode};
use crate::output::clean;

/// Other meshes that are asked whether they know a recipient. Each costs a connection.
const MOST_OTHERS: usize = 8;

/// The mesh to write in: the one that every command would take, else the only one where all of the recipients are known.
///
/// # Errors
/// `which_mesh` (3) when several know them; otherwise as [`Context::mesh_entry`].
pub fn mesh_that_knows(cx: &Context, recipients: &[String]) -> Result<MeshEntry, CliError> {
    let undecided = match cx.mesh_entry() {
        Err(error) if error.code == "which_mesh" => error,
        other => return other,
    };
    let everywhere = |target: &String| target.starts_with(['@', '#', '*']);
    if recipients.iter().all(everywhere) {
        return Err(undecided);
    }
    let (mut known, mut lost) = (vec![], vec![]);
    for entry in cx.mesh_entries()? {
        let found = connect::ask(cx, &entry, |connection| async move {
            for target in recipients.iter().filter(|target| !everywhere(target)) {
                match connection.resolve_target(target).await {
                    Ok(_) => {}
                    // Several of that name: it is known, and sending tells which ones.
                    Err(error) if error.code() == Some(ErrorCode::AmbiguousTarget) => {}
                    Err(error) => return Err(CliError::from(error)),
                }
            }
            Ok(())
        });
        match found {
            Ok(()) => known.push(entry),
            // It might be known there: no one is written to by guess.
            Err(error) if error.exit == ExitCode::Network => {
                cx.out.warn(&line(&entry.slug, &error));
                lost.push(entry.slug);
            }
            Err(_) => {}
        }
    }
    if !lost.is_empty() && known.len() < 2 {
        let who = clean(&recipients.join(", ")).into_owned();
        let slugs: Vec<&str> = known.iter().map(|entry| entry.slug.as_str()).collect();
        let (places, at) = (slugs.join(", "), lost.join(", "));
        let message = match slugs.is_empty() {
            true => format!("None of the meshes that can be reached knows {who}; {at} may."),
            false => format!("{places} knows {who}, and {at} cannot be asked, so it is not clear who is meant."),
        };
        let choice = if slugs.is_empty() { &at } else { &places };
        return Err(CliError::new(ExitCode::InvalidArgs, "which_mesh", message)
            .hint(format!("Choose one with --mesh <slug>: {choice}."))
            .field("joined", slugs)
            .field("unreachable", lost));
    }
    match known.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(CliError::new(
            ExitCode::NotFound,
            ErrorCode::UnknownTarget.as_str(),
            format!("None of your meshes knows {}.", clean(&recipients.join(", "))),
        )),
        several => {
            let slugs: Vec<&str> = several.iter().map(|entry| entry.slug.as_str()).collect();
            let message = format!("{} is known in several meshes.", clean(&recipients.join(", ")));
            Err(CliError::new(ExitCode::InvalidArgs, "which_mesh", message)
                .hint(format!("Choose one with --mesh <slug>: {}.", slugs.join(", ")))
                .field("joined", slugs))
        }
    }
}

/// Says in which mesh an unknown recipient was looked for, and which of the others knows it, when several meshes are joined.
pub fn where_else(cx: &Context, searched: &MeshEntry, target: &str, error: CliError) -> CliError {
    if error.code != ErrorCode::UnknownTarget.as_str() || target.starts_with(['@', '#', '*']) {
        return error;
    }
    let Ok(config) = cx.store.load() else { return error };
    let others = config.meshes.iter().filter(|entry| entry.mesh_id != searched.mesh_id);
    let others: Vec<&MeshEntry> = others.take(MOST_OTHERS).collect();
    if others.is_empty() {
        return error;
    }
    let knows = |entry: &&&MeshEntry| {
        let found = connect::ask(cx, entry, |connection| async move { Ok(connection.resolve_target(target).await?) });
        found.is_ok()
    };
    let known: Vec<String> = others.iter().filter(knows).map(|entry| clean(&entry.slug).into_owned()).collect();
    let looked = format!("Only {} was searched", clean(&searched.slug));
    let target = clean(target);
    let hint = match known.as_slice() {
        [] => format!("{looked}. `claudemesh peers --all` lists the members and sessions of all meshes."),
        [only] => format!("{looked}; {only} knows {target}: add --mesh {only}."),
        several => format!("{looked}; {target} is known in {}: choose one with --mesh.", several.join(", ")),
    };
    error.hint(hint).field("searched", searched.slug.clone()).field("knownIn", known)
}
