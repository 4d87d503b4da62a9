//! `mesh rename|archive|restore|delete`.

use clap::Args;
use claudemesh_protocol::features::meshes::PatchMesh;
use claudemesh_protocol::id::MeshId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{named, told_slug};
use crate::config::MeshEntry;
use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::features::enrolment::check_slug;
use crate::features::meshes::Routes;
use crate::output::clean;
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields};

/// Give a mesh another short name, or another name that people see.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh mesh rename kitchen bakery\n  claudemesh mesh rename kitchen --display-name \"The kitchen\"\n  \
                        claudemesh mesh rename team work --local   only on this machine\n\n\
                        Everyone else keeps the short name that the mesh has on their machine. New members get the new one."
)]
pub struct RenameArgs {
    /// Its short name today; with --mesh only the new one is given.
    pub slug: Option<String>,
    /// New short name: lower-case letters, digits and hyphens, 2 to 32 characters.
    pub new: Option<String>,
    /// New name of the mesh shown to people.
    #[arg(long = "display-name", alias = "title", value_name = "TEXT", conflicts_with = "local")]
    pub title: Option<String>,
    /// Rename it on this machine only; anyone can.
    #[arg(long)]
    pub local: bool,
}

impl Verb for RenameArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Done>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Done>()]
    }

    fn run(self, cx: &Context) -> Ran {
        rename(cx, &self).map(done)
    }
}

/// Stop a mesh for everyone without losing anything. Needs `canDeleteMesh`, which the owner has.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Example:\n  claudemesh mesh archive kitchen\n\n`claudemesh mesh restore kitchen` brings it back."
)]
pub struct ArchiveArgs {
    /// Short name of the mesh; it can be given with --mesh, too.
    pub slug: Option<String>,
    /// Do it without a question.
    #[arg(long, short)]
    pub yes: bool,
}

impl Verb for ArchiveArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Done>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Done>()]
    }

    fn run(self, cx: &Context) -> Ran {
        archive(cx, &self).map(done)
    }
}

/// Bring an archived mesh back. Needs `canDeleteMesh`, which the owner has.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh mesh restore kitchen")]
pub struct RestoreArgs {
    /// Short name of the mesh; it can be given with --mesh, too.
    pub slug: Option<String>,
}

impl Verb for RestoreArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Done>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Done>()]
    }

    fn run(self, cx: &Context) -> Ran {
        restore(cx, &self).map(done)
    }
}

/// Delete a mesh for everyone, for good. Needs `canDeleteMesh`, which the owner has.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh mesh export kitchen --out kitchen.json\n  claudemesh mesh delete kitchen\n\n\
                        `claudemesh mesh archive` stops a mesh and keeps everything."
)]
pub struct DeleteArgs {
    /// Short name of the mesh; it can be given with --mesh, too.
    pub slug: Option<String>,
    /// Do it without a question.
    #[arg(long, short)]
    pub yes: bool,
}

impl Verb for DeleteArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Done>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Done>()]
    }

    fn run(self, cx: &Context) -> Ran {
        delete(cx, &self).map(done)
    }
}

/// What became of a mesh.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Done {
    ok: bool,
    /// Short name on this machine.
    mesh: String,
    /// The same.
    slug: String,
    name: String,
    mesh_id: MeshId,
    /// `live`, `archived` or `deleted`.
    state: &'static str,
}

impl Done {
    fn of(entry: &MeshEntry, state: &'static str) -> Self {
        let (slug, name, mesh_id) = (entry.slug.clone(), entry.name.clone(), entry.mesh_id.clone());
        Self { ok: true, mesh: slug.clone(), slug, name, mesh_id, state }
    }
}

/// Who may, in place of the capability's name.
fn for_the_owner(error: CliError, what: &str) -> CliError {
    match error.exit {
        ExitCode::PermissionDenied => error.hint(what),
        _ => error,
    }
}

/// Runs `mesh rename`.
///
/// # Errors
/// Exit 3 for a bad name, 6 when it is taken here or on the broker, 7 without the capability, 4 for the network.
fn rename(cx: &Context, args: &RenameArgs) -> Result<(), CliError> {
    let (before, new) = match (&args.slug, &args.new, &cx.mesh) {
        // The mesh was named before.
        (Some(new), None, Some(mesh)) if args.title.is_none() => (mesh.clone(), Some(new.clone())),
        (slug, new, _) => (told_slug(cx, slug.as_deref())?, new.clone()),
    };
    if new.is_none() && args.title.is_none() {
        return Err(CliError::invalid_args("The new name is missing.")
            .hint(format!("claudemesh mesh rename {} <new>", clean(&before))));
    }
    if let Some(new) = &new {
        check_slug(new)?;
        if *new != before && cx.store.load()?.by_slug(new).is_some() {
            let message = format!("Another mesh on this machine is called '{new}'.");
            return Err(CliError::new(ExitCode::AlreadyExists, "already_exists", message).hint("Choose another name."));
        }
    }
    let entry = if args.local { cx.store.load()?.choose(Some(&before))?.clone() } else { named(cx, &before)? };
    let mut name = args.local.then(|| entry.name.clone());
    if !args.local {
        // A mesh that is called like its slug stays so.
        let title = args.title.clone().or_else(|| new.clone().filter(|_| entry.name == entry.slug));
        let to = PatchMesh { slug: new.clone(), name: title };
        let renamed = Routes::of(&cx.store, &entry)?.rename(&to).map_err(|error| {
            for_the_owner(
                error,
                "Only the owner and those with canManageMesh can. With --local it is renamed on this machine only.",
            )
        })?;
        name = Some(renamed.name);
    }
    let entry = keep_name(cx, &entry, new.as_deref(), name)?;
    cx.out.answer(&Done::of(&entry, "live"), |out| {
        let title = if entry.name == entry.slug { String::new() } else { format!(" ({})", clean(&entry.name)) };
        format!("{} {} is called {}{title} now\n", out.tick(), clean(&before), clean(&entry.slug))
    })
}

/// Takes over the new names into the config and what is called after them.
fn keep_name(cx: &Context, entry: &MeshEntry, slug: Option<&str>, name: Option<String>) -> Result<MeshEntry, CliError> {
    let kept = cx.store.update(|config| {
        let was_default = config.default_entry().is_some_and(|default| default.mesh_id == entry.mesh_id);
        let known = config.meshes.iter_mut().find(|known| known.mesh_id == entry.mesh_id);
        let known = known.ok_or_else(|| CliError::internal("The mesh is not in the config any more."))?;
        if let Some(slug) = slug {
            slug.clone_into(&mut known.slug);
        }
        if let Some(name) = name {
            known.name = name;
        }
        let kept = known.clone();
        if was_default {
            config.default_mesh = Some(kept.slug.clone());
        }
        Ok::<_, CliError>(kept)
    })?;
    let (before, after) = (cx.store.invite_path(&entry.slug), cx.store.invite_path(&kept.slug));
    if before != after && before.exists() {
        // It is only the link of before: without it nothing is lost.
        let _ = std::fs::rename(before, after);
    }
    if let Some(mut owner) = cx.store.owner(&kept.mesh_id)? {
        owner.slug.clone_from(&kept.slug);
        cx.store.put_owner(owner)?;
    }
    Ok(kept)
}

/// Runs `mesh archive`.
///
/// # Errors
/// Exit 1 when the question is not answered with yes, 7 for who may not, 4 for the network.
fn archive(cx: &Context, args: &ArchiveArgs) -> Result<(), CliError> {
    let entry = named(cx, &told_slug(cx, args.slug.as_deref())?)?;
    let slug = clean(&entry.slug).into_owned();
    let what = format!(
        "Archiving {slug} closes every connection; no one can send or read there until `claudemesh mesh restore {slug}`. \
         Members, messages and settings stay."
    );
    cx.confirm(args.yes, &what, &format!("Archive {slug}?"))?;
    Routes::of(&cx.store, &entry)?
        .archive()
        .map_err(|error| for_the_owner(error, "Only the owner and those with canDeleteMesh can archive a mesh."))?;
    cx.store.set_archived(&entry.mesh_id, true)?;
    cx.out.answer(&Done::of(&entry, "archived"), |out| {
        format!("{} archived {slug}; `claudemesh mesh restore {slug}` brings it back\n", out.tick())
    })
}

/// Runs `mesh restore`.
///
/// # Errors
/// Exit 3 when it is not archived, 7 for who may not, 4 for the network.
fn restore(cx: &Context, args: &RestoreArgs) -> Result<(), CliError> {
    let entry = named(cx, &told_slug(cx, args.slug.as_deref())?)?;
    Routes::of(&cx.store, &entry)?
        .restore()
        .map_err(|error| for_the_owner(error, "Only the owner and those with canDeleteMesh can bring it back."))?;
    cx.store.set_archived(&entry.mesh_id, false)?;
    cx.out.answer(&Done::of(&entry, "live"), |out| {
        format!("{} {} is back; its sessions connect again by themselves\n", out.tick(), clean(&entry.slug))
    })
}

/// Runs `mesh delete`. A mesh that is deleted already is only taken out of the config.
///
/// # Errors
/// Exit 1 when the question is not answered with yes, 7 for who may not, 4 for the network.
fn delete(cx: &Context, args: &DeleteArgs) -> Result<(), CliError> {
    let entry = named(cx, &told_slug(cx, args.slug.as_deref())?)?;
    let slug = clean(&entry.slug).into_owned();
    let routes = Routes::of(&cx.store, &entry)?;
    let gone = match routes.show() {
        Err(error) if error.code == "mesh_deleted" => true,
        Err(error) => return Err(error),
        Ok(view) => {
            let what = format!(
                "Deleting {slug} ends it for {} member{}: messages, topics, state, invites and memberships are erased and cannot \
                 be brought back. The broker keeps the audit log. The name is free for others.\n\
                 `claudemesh mesh archive {slug}` only stops it; `claudemesh mesh export {slug}` keeps a copy.",
                view.members,
                if view.members == 1 { "" } else { "s" },
            );
            cx.confirm(args.yes, &what, &format!("Delete {slug} for good?"))?;
            false
        }
    };
    if !gone {
        routes
            .delete()
            .map_err(|error| for_the_owner(error, "Only the owner and those with canDeleteMesh can delete a mesh."))?;
    }
    cx.store.leave_mesh(&entry.slug)?;
    cx.store.forget_left(&entry.mesh_id)?;
    cx.store.remove_owner(&entry.mesh_id)?;
    let _ = std::fs::remove_file(cx.store.invite_path(&entry.slug));
    cx.out.answer(&Done::of(&entry, "deleted"), |out| {
        let inbox = "what you received is still in your inbox on this machine";
        format!("{} deleted {slug}; {inbox}\n", out.tick())
    })
}
