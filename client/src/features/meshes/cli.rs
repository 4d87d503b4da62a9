//! `mesh`, and the short forms `list`, `leave`, `use`.

use crate::config::MeshEntry;
use crate::context::Context;
use crate::error::CliError;
use crate::local;
use crate::output::clean;
use crate::verb::verbs;

mod export;
mod joined;
mod leaving;
mod life;
mod settings;

pub use export::ExportArgs;
pub use joined::{ListArgs, UseArgs};
pub use leaving::{LeaveArgs, RejoinArgs};
pub use life::{ArchiveArgs, DeleteArgs, RenameArgs, RestoreArgs};
pub use settings::SettingsArgs;

verbs! {
    /// List, rename, archive, delete, export and leave meshes, and change what they allow.
    #[command(after_help = "Examples:\n  claudemesh mesh list\n  claudemesh mesh rename kitchen bakery\n  claudemesh mesh settings kitchen\n\ndocs/meshes.md says for each command what it keeps, and how to undo it.")]
    pub struct MeshArgs: enum MeshVerb {
        List => ListArgs,
        Settings => SettingsArgs,
        Rename => RenameArgs,
        Export => ExportArgs,
        Archive => ArchiveArgs,
        Restore => RestoreArgs,
        Delete => DeleteArgs,
        Leave => LeaveArgs,
        Rejoin => RejoinArgs,
    }
}

/// Which mesh a command that changes much is about: the one that is named, in its place or with `--mesh`. A default is not enough.
///
/// # Errors
/// Exit 3 when none is named, or two.
fn told_slug(cx: &Context, slug: Option<&str>) -> Result<String, CliError> {
    match (slug, cx.mesh.as_deref()) {
        (Some(slug), Some(other)) if slug != other => {
            Err(CliError::invalid_args(format!("Two meshes are named: {} and {}.", clean(slug), clean(other))))
        }
        (Some(slug), _) | (None, Some(slug)) => Ok(slug.to_owned()),
        (None, None) => {
            let config = cx.store.load()?;
            let hint = match config.slugs().as_slice() {
                [] => "No mesh is joined.".to_owned(),
                slugs => format!("Name one of those joined: {}.", slugs.join(", ")),
            };
            Err(CliError::invalid_args("The mesh is missing.").hint(hint))
        }
    }
}

/// The joined mesh of this slug, with its broker running when it is one of this machine.
fn named(cx: &Context, slug: &str) -> Result<MeshEntry, CliError> {
    let config = cx.store.load()?;
    local::ensure_served(cx, config.choose(Some(slug))?.clone())
}

/// The mesh of this slug, else the one that every command would take.
fn named_or_usual(cx: &Context, slug: Option<&str>) -> Result<MeshEntry, CliError> {
    match slug {
        Some(slug) => named(cx, slug),
        None => cx.mesh_entry(),
    }
}
