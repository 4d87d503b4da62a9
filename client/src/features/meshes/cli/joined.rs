//! `list` and `use`: the joined meshes on this machine, no broker needed.

use claudemesh_protocol::id::{MemberId, MeshId};

use crate::context::Context;
use crate::error::CliError;
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

/// Choose the mesh that commands are about when they need one and none is named.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh use team\n  claudemesh use          show it\n  claudemesh use --none   have none\n\n\
                        --mesh and CLAUDEMESH_MESH come before it. Commands about people and messages, such as `inbox` and `peers`, \
                        still read every mesh; those about what a mesh keeps, such as `state`, `task` and `info`, read this one and \
                        say so."
)]
pub struct UseArgs {
    /// Short name of a joined mesh.
    pub slug: Option<String>,
    /// Have no default.
    #[arg(long, conflicts_with = "slug")]
    pub none: bool,
}

impl Verb for UseArgs {
    fn effect(&self) -> Effect {
        if self.slug.is_some() || self.none { Effect::Changes } else { Effect::Reads }
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Default>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Default>()]
    }

    fn run(self, cx: &Context) -> Ran {
        choose_default(cx, &self).map(done)
    }
}

/// What `use` answers.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Default {
    ok: bool,
    mesh: Option<String>,
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
    /// Commands that need one mesh use it.
    default: bool,
    /// Its broker last said that it is archived: no one can send or read there.
    archived: bool,
    lost_outside_url: Option<String>,
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
            default: config.default_entry().is_some_and(|default| default.mesh_id == mesh.mesh_id),
            archived: mesh.is_archived(),
            lost_outside_url: local::store::lost_outside(mesh).map(|(url, _)| url),
        })
        .collect();
    let left = cx.store.left_meshes()?;
    let back = left.iter().filter(|left| config.by_id(&left.mesh.mesh_id).is_none());
    let back: String = back
        .map(|left| {
            let slug = clean(&left.mesh.slug);
            format!(
                "left {slug} on {}; `claudemesh mesh rejoin {slug}` comes back\n",
                crate::clock::shown(&left.left_at)
            )
        })
        .collect();
    cx.out.answer(&meshes, |out| {
        if config.meshes.is_empty() {
            return format!("No mesh is joined. Sessions on this machine find each other without one.\n{back}For other people: claudemesh join <link>, or claudemesh up\n");
        }
        let mut text = String::new();
        for mesh in &config.meshes {
            let title = if mesh.name.is_empty() || mesh.name == mesh.slug {
                clean(&mesh.slug).into_owned()
            } else {
                format!("{} ({})", clean(&mesh.slug), clean(&mesh.name))
            };
            let owner = if is_owner(&mesh.mesh_id) { "  owner" } else { "" };
            let default = config.default_entry().is_some_and(|default| default.mesh_id == mesh.mesh_id);
            let default = if default { "  default" } else { "" };
            let archived = if mesh.is_archived() { out.paint(Style::Yellow, "  archived") } else { "".into() };
            let (title, owner) = (out.paint(Style::Bold, &title), out.paint(Style::Green, owner));
            text += &format!("{title}{owner}{default}{archived}\n");
            text +=
                &format!("  mesh    {}\n  member  {}", clean(mesh.mesh_id.as_str()), clean(mesh.member_id.as_str()));
            text += &format!("  key {}\n", clean(mesh.pubkey.get(..16).unwrap_or(&mesh.pubkey)));
            text += &format!("  broker  {}\n", clean(&mesh.broker_url));
            if let Some((url, fix)) = local::store::lost_outside(mesh) {
                text += &format!(
                    "  warning other machines can no longer reach it at {}; run `{}`\n",
                    clean(&url),
                    clean(&fix)
                );
            }
            if !mesh.joined_at.is_empty() {
                text += &format!("  joined  {}\n", crate::clock::shown(&mesh.joined_at));
            }
        }
        text + &back + &format!("{}\n", out.paint(Style::Dim, &cx.store.config_path().to_string_lossy()))
    })
}

/// Shows or changes the default mesh.
///
/// # Errors
/// Exit 5 when it is not joined, 10 when the config cannot be written.
fn choose_default(cx: &Context, args: &UseArgs) -> Result<(), CliError> {
    let mesh = if args.slug.is_some() || args.none {
        cx.store.update(|config| {
            config.default_mesh = match &args.slug {
                Some(slug) => Some(config.choose(Some(slug))?.slug.clone()),
                None => None,
            };
            Ok::<_, CliError>(config.default_mesh.clone())
        })?
    } else {
        cx.store.load()?.default_entry().map(|mesh| mesh.slug.clone())
    };
    cx.out.answer(&Default { ok: true, mesh: mesh.clone() }, |out| match &mesh {
        Some(slug) => format!("{} commands that need one mesh use {}\n", out.tick(), clean(slug)),
        None => "There is no default mesh. Choose one with `claudemesh use <mesh>`.\n".into(),
    })
}
