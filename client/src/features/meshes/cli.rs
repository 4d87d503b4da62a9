//! `list` and `leave`: the joined meshes on this machine, no broker needed.

use claudemesh_protocol::id::{MemberId, MeshId};

use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::local;
use crate::output::{Style, clean};
use crate::verb::json_fields;
use crate::verb::{Effect, Ran, Shape, Verb, done};
use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// List the meshes joined on this machine.
#[derive(Args, Clone, Debug, Default)]
#[command(visible_alias = "ls", after_help = "Examples:\n  claudemesh list\n  claudemesh list --json=slug,brokerUrl")]
pub struct ListArgs {}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Joined>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<Joined>()]
    }

    fn run(self, cx: &Context) -> Ran {
        list(cx).map(done)
    }
}

/// Forget a mesh on this machine.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh leave team")]
pub struct LeaveArgs {
    /// Mesh to leave.
    pub slug: String,
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

/// One joined mesh.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Joined {
    mesh: String,
    slug: String,
    name: String,
    mesh_id: MeshId,
    member_id: MemberId,
    pubkey: String,
    broker_url: String,
    joined_at: String,
    owner: bool,
    lost_outside_url: Option<String>,
}

/// What `leave` did; `left` meshes stay joined.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Left {
    ok: bool,
    mesh: String,
    slug: String,
    left: usize,
}

/// Prints the joined meshes.
///
/// # Errors
/// Exit 10 when the config is damaged.
fn list(cx: &Context) -> Result<(), CliError> {
    let config = cx.store.load()?;
    let owned = cx.store.owners()?;
    let is_owner = |id: &MeshId| owned.iter().any(|entry| entry.mesh_id == *id);
    let meshes: Vec<Joined> = config
        .meshes
        .iter()
        .map(|mesh| Joined {
            mesh: mesh.slug.clone(),
            slug: mesh.slug.clone(),
            name: mesh.name.clone(),
            mesh_id: mesh.mesh_id.clone(),
            member_id: mesh.member_id.clone(),
            pubkey: mesh.pubkey.clone(),
            broker_url: mesh.broker_url.clone(),
            joined_at: mesh.joined_at.clone(),
            owner: is_owner(&mesh.mesh_id),
            lost_outside_url: local::store::lost_outside(mesh).map(|(url, _)| url.to_owned()),
        })
        .collect();
    cx.out.answer(&meshes, |out| {
        if config.meshes.is_empty() {
            return "No mesh is joined. Sessions on this machine find each other without one.\nFor other people: claudemesh join <link>, or claudemesh up\n".into();
        }
        let mut text = String::new();
        for mesh in &config.meshes {
            let title = if mesh.name.is_empty() || mesh.name == mesh.slug {
                clean(&mesh.slug).into_owned()
            } else {
                format!("{} ({})", clean(&mesh.name), clean(&mesh.slug))
            };
            let owner = if is_owner(&mesh.mesh_id) { "  owner" } else { "" };
            text += &format!("{}{}\n", out.paint(Style::Bold, &title), out.paint(Style::Green, owner));
            text +=
                &format!("  mesh    {}\n  member  {}", clean(mesh.mesh_id.as_str()), clean(mesh.member_id.as_str()));
            text += &format!("  key {}\n", clean(mesh.pubkey.get(..16).unwrap_or(&mesh.pubkey)));
            text += &format!("  broker  {}\n", clean(&mesh.broker_url));
            if let Some((url, fix)) = local::store::lost_outside(mesh) {
                text += &format!(
                    "  note    other machines can no longer reach it at {}; run `{}`\n",
                    clean(url),
                    clean(&fix)
                );
            }
            if !mesh.joined_at.is_empty() {
                text += &format!("  joined  {}\n", crate::clock::shown(&mesh.joined_at));
            }
        }
        text + &format!("{}\n", out.paint(Style::Dim, &cx.store.config_path().to_string_lossy()))
    })
}

/// Forgets a mesh on this machine. The member stays in the mesh until an admin bans it.
///
/// # Errors
/// Exit 5 when it is not joined, 10 when the config is damaged.
fn leave(cx: &Context, args: &LeaveArgs) -> Result<(), CliError> {
    let left = cx.store.update(|config| {
        let Some(at) = config.meshes.iter().position(|mesh| mesh.slug == args.slug) else {
            let joined = if config.meshes.is_empty() { "none".into() } else { config.slugs().join(", ") };
            let message = format!("No joined mesh is called '{}'.", clean(&args.slug));
            return Err(CliError::new(ExitCode::NotFound, "unknown_mesh", message).hint(format!("Joined: {joined}.")));
        };
        config.meshes.remove(at);
        Ok(config.meshes.len())
    })?;
    let value = Left { ok: true, mesh: args.slug.clone(), slug: args.slug.clone(), left };
    cx.out.answer(&value, |out| format!("{} left {}; {left} joined\n", out.tick(), clean(&args.slug)))
}
