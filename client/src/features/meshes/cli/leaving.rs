//! `leave` and `mesh rejoin`: out of a mesh on this machine, and back.

use clap::Args;
use claudemesh_protocol::features::meshes::Rejoin;
use claudemesh_protocol::id::{MemberId, MeshId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::told_slug;
use crate::config::left::LeftMesh;
use crate::config::owners::OwnerEntry;
use crate::config::{ConfigStore, MeshEntry};
use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::features::enrolment::cli::default_name;
use crate::features::enrolment::{Named, chosen_name};
use crate::features::meshes::Routes;
use crate::local;
use crate::output::clean;
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields};

/// Leave a mesh on this machine. `claudemesh mesh rejoin` comes back.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh leave team\n  claudemesh leave team --purge   also forget its keys and messages\n\n\
                        The others still see you as a member, until an admin removes you."
)]
pub struct LeaveArgs {
    /// Mesh to leave; the only one needs no name.
    pub slug: Option<String>,
    /// Also delete the member key, the inbox and the session keys of this mesh from this machine.
    #[arg(long)]
    pub purge: bool,
    /// Do it without a question.
    #[arg(long, short)]
    pub yes: bool,
}

impl Verb for LeaveArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Left>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Left>()]
    }

    fn run(self, cx: &Context) -> Ran {
        leave(cx, &self).map(done)
    }
}

/// Come back into a mesh that was left, or into one whose owner key is on this machine.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh mesh rejoin team\n  claudemesh mesh rejoin team --name Ann\n\n\
                        The earlier member key is used when it is still here. Otherwise the owner's key makes a new member, who is\n\
                        the owner from then on.")]
pub struct RejoinArgs {
    /// Short name that the mesh had here, or its id.
    #[arg(value_name = "MESH")]
    pub slug: Option<String>,
    /// Your name in the mesh, when a new member is made.
    #[arg(long)]
    pub name: Option<String>,
    /// Do it without a question.
    #[arg(long, short)]
    pub yes: bool,
}

impl Verb for RejoinArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Back>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Back>()]
    }

    fn run(self, cx: &Context) -> Ran {
        rejoin(cx, &self).map(done)
    }
}

/// What `leave` did; `left` meshes stay joined.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Left {
    ok: bool,
    mesh: String,
    slug: String,
    mesh_id: MeshId,
    left: usize,
    /// `mesh rejoin` can bring it back from what is on this machine.
    can_rejoin: bool,
}

/// What `mesh rejoin` did.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Back {
    ok: bool,
    mesh: String,
    slug: String,
    mesh_id: MeshId,
    member_id: MemberId,
    /// With the member key of before.
    same_key: bool,
    /// The broker said that this member may come in; `false` when it could not be asked.
    checked: bool,
    /// Members that were `owner` until now.
    former: Vec<MemberId>,
    /// What a new member is called; the member of before has its name.
    #[serde(skip)]
    name: Option<String>,
    /// The name that was asked for.
    #[serde(skip)]
    asked: Option<String>,
}

/// Runs `leave`.
///
/// # Errors
/// Exit 5 when it is not joined, 1 when the question is not answered with yes, 10 when the config is damaged.
fn leave(cx: &Context, args: &LeaveArgs) -> Result<(), CliError> {
    let config = cx.store.load()?;
    let asked = match config.meshes.as_slice() {
        [only] if args.slug.is_none() && cx.mesh.is_none() => only.slug.clone(),
        _ => told_slug(cx, args.slug.as_deref())?,
    };
    let entry = config.choose_joined(&asked)?.clone();
    let owner = cx.store.owner(&entry.mesh_id)?.is_some();
    let slug = clean(&entry.slug).into_owned();
    let what = match (owner, args.purge) {
        (true, false) => Some(format!(
            "You own {slug}. The mesh and its members stay, and your owner key stays in owners.json. You cannot invite or read \
             there until `claudemesh mesh rejoin {slug}`. To end the mesh: `claudemesh mesh delete {slug}`."
        )),
        (true, true) => Some(format!(
            "You own {slug}. Your member key and your inbox are deleted: what is still waiting for you can never be read. The mesh \
             and your owner key stay; `claudemesh mesh rejoin {slug}` makes you a new member."
        )),
        (false, true) => Some(format!(
            "Your member key of {slug} and your inbox are deleted: what is still waiting for you can never be read, and you need a \
             new invite to come back."
        )),
        (false, false) => None,
    };
    if let Some(what) = what {
        cx.confirm(args.yes, &what, &format!("Leave {slug}?"))?;
    }
    let left = cx.store.leave_mesh(&entry.slug)?;
    // Another process was faster.
    let (entry, left) =
        left.map_or_else(|| cx.store.load()?.choose_joined(&asked).cloned().map(|entry| (entry, 0)), Ok)?;
    // A link that is kept lets others in; the way back needs none.
    let _ = std::fs::remove_file(cx.store.invite_path(&entry.slug));
    if args.purge {
        purge(&cx.store, &entry)?;
    }
    let can_rejoin = owner || !args.purge;
    let answer = Left {
        ok: true,
        mesh: entry.slug.clone(),
        slug: entry.slug.clone(),
        mesh_id: entry.mesh_id.clone(),
        left,
        can_rejoin,
    };
    cx.out.answer(&answer, |out| {
        let mut text = format!("{} left {slug}; {left} joined\n", out.tick());
        if can_rejoin {
            text += &format!("  back: claudemesh mesh rejoin {slug}\n");
        }
        text + "  the others still see you as a member, until an admin removes you\n"
    })
}

/// Removes the keys and the messages of a mesh that was left.
fn purge(store: &ConfigStore, entry: &MeshEntry) -> Result<(), CliError> {
    store.forget_left(&entry.mesh_id)?;
    let sessions = store.session_keys_dir(&entry.mesh_id);
    let failed = |path: &std::path::Path, error: std::io::Error| {
        CliError::io(format!("{} cannot be removed: {error}.", path.display()))
    };
    let gone = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    gone(std::fs::remove_dir_all(&sessions)).map_err(|error| failed(&sessions, error))?;
    for path in crate::inbox::files_of(store.dir(), &entry.mesh_id) {
        gone(std::fs::remove_file(&path)).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

/// Runs `mesh rejoin`.
///
/// # Errors
/// Exit 5 when nothing of the mesh is here, 7 when the member is banned, 1 when a question is not answered with yes, 4 for the
/// network where the broker has to agree.
fn rejoin(cx: &Context, args: &RejoinArgs) -> Result<(), CliError> {
    let name = args.name.as_deref().map(chosen_name).transpose()?;
    let asked = match (&args.slug, &cx.mesh) {
        (None, None) => {
            return Err(
                CliError::invalid_args("The mesh is missing.").hint("`claudemesh list` shows those that were left.")
            );
        }
        _ => told_slug(cx, args.slug.as_deref())?,
    };
    let config = cx.store.load()?;
    if let Some(entry) = config.meshes.iter().find(|entry| is_meant(&asked, &entry.slug, &entry.mesh_id)) {
        let message = format!("{} is joined already.", clean(&entry.slug));
        return Err(
            CliError::new(ExitCode::AlreadyExists, "already_exists", message).hint("`claudemesh list` shows it.")
        );
    }
    // The newest first: a slug may have been used again.
    let left =
        cx.store.left_meshes()?.into_iter().rev().find(|left| is_meant(&asked, &left.mesh.slug, &left.mesh.mesh_id));
    let owners = cx.store.owners()?;
    let owner = match &left {
        Some(left) => owners.into_iter().find(|owner| owner.mesh_id == left.mesh.mesh_id),
        None => owners.into_iter().rev().find(|owner| is_meant(&asked, &owner.slug, &owner.mesh_id)),
    };
    if let Some(LeftMesh { mesh, .. }) = left {
        match with_old_key(cx, mesh, owner.is_some())? {
            Some(back) => return told(cx, &back),
            None => cx.out.remark("The mesh no longer knows the earlier member."),
        }
    }
    let Some(owner) = owner else {
        let message = format!("Nothing of a mesh called '{}' is on this machine.", clean(&asked));
        return Err(CliError::new(ExitCode::NotFound, "unknown_mesh", message)
            .hint("Ask its owner for an invite link, then `claudemesh join <link>`."));
    };
    let back = as_owner(cx, args, &owner, name)?;
    told(cx, &back)
}

fn is_meant(wanted: &str, slug: &str, id: &MeshId) -> bool {
    wanted == slug || wanted == id.as_str()
}

/// Puts a mesh that was left back. `None` when the mesh does not know its key any more and the owner's key can do better.
fn with_old_key(cx: &Context, mesh: MeshEntry, has_owner: bool) -> Result<Option<Back>, CliError> {
    let mesh = local::ensure_served(cx, mesh)?;
    let checked = match Routes::of_member(&mesh)?.show() {
        Ok(_) => true,
        // It comes back when the broker does.
        Err(error) if error.exit == ExitCode::Network => false,
        Err(error) if error.code == "unauthorized" && has_owner => return Ok(None),
        Err(error) if error.code == "mesh_archived" => true,
        Err(error) => return Err(error),
    };
    let entry = put_back(cx, mesh)?;
    let (slug, mesh_id, member_id) = (entry.slug, entry.mesh_id, entry.member_id);
    Ok(Some(Back {
        ok: true,
        mesh: slug.clone(),
        slug,
        mesh_id,
        member_id,
        same_key: true,
        checked,
        former: vec![],
        name: None,
        asked: None,
    }))
}

fn put_back(cx: &Context, mesh: MeshEntry) -> Result<MeshEntry, CliError> {
    let id = mesh.mesh_id.clone();
    let entry = cx.store.update(|config| {
        config.put_mesh(mesh);
        let kept = config.by_id(&id).cloned();
        kept.ok_or_else(|| CliError::internal("The mesh is not in the config."))
    })?;
    cx.store.forget_left(&id)?;
    Ok(entry)
}

/// Becomes a member again with the owner's key.
fn as_owner(cx: &Context, args: &RejoinArgs, owner: &OwnerEntry, name: Option<String>) -> Result<Back, CliError> {
    let slug = clean(&owner.slug).into_owned();
    let broker_url = local::address_of(cx, &owner.broker_url)?;
    let what = format!(
        "Your owner key makes a new member of {slug}. Messages that wait for the member you were stay sealed for its key. That \
         member becomes a plain member, so that you can ban it if its key is in other hands."
    );
    cx.confirm(args.yes, &what, &format!("Rejoin {slug} as a new member?"))?;
    // On the disk before anything is asked: to the broker a second attempt is the same person.
    let keys = cx.store.draft(&format!("rejoin mesh {}", owner.mesh_id))?;
    let display_name = name.unwrap_or_else(|| default_name(cx));
    let asked = Rejoin { member_pubkey: keys.member.public(), display_name };
    let back = Routes::of_owner(owner, &broker_url)?.rejoin(&asked)?;
    let mut mesh = MeshEntry {
        mesh_id: back.mesh_id,
        member_id: back.member_id.clone(),
        slug: back.slug,
        name: back.name,
        pubkey: keys.member.public().to_hex(),
        secret_key: (&keys.member).into(),
        broker_url,
        joined_at: crate::clock::now_iso(),
        root_key: None,
        invite_version: None,
        extra: serde_json::Map::new(),
    };
    local::mark_if_own(cx, &mut mesh);
    let entry = put_back(cx, mesh)?;
    if let Err(error) = cx.store.settle_draft(&keys.member.public()) {
        tracing::warn!(%error, "the draft of the keys stays");
    }
    Ok(Back {
        ok: true,
        mesh: entry.slug.clone(),
        slug: entry.slug,
        mesh_id: entry.mesh_id,
        member_id: back.member_id,
        same_key: false,
        checked: true,
        former: back.former,
        name: Some(back.display_name),
        asked: args.name.clone(),
    })
}

fn told(cx: &Context, back: &Back) -> Result<(), CliError> {
    cx.out.answer(back, |out| {
        let slug = clean(&back.slug);
        let how = if back.same_key { "with the member key of before" } else { "as a new member, the owner" };
        let mut text = format!("{} back in {slug}, {how}\n", out.tick());
        if !back.checked {
            text += "  the broker cannot be reached at the moment; the mesh is there again when it can\n";
        }
        if let Some(name) = &back.name {
            text += &format!("  name: {}\n", clean(name));
            let named = Named { asked: back.asked.as_deref(), name, mesh: &back.slug, already_member: false };
            if let Some(note) = named.note(&cx.store) {
                text += &format!("  note: {note}\n");
            }
        }
        for member in &back.former {
            text += &format!("  member {} was the owner and is a plain member now\n", clean(member.as_str()));
        }
        text
    })
}
