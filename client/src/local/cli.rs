//! `up` and `down`: arguments. What they do is in `serve` and `background`, or `without` in a build that has no broker.

use std::path::PathBuf;

use clap::Args;
use claudemesh_protocol::id::MeshId;
use schemars::JsonSchema;
use serde::Serialize;

use super::store::HolderNote;
use crate::context::Context;
#[cfg(feature = "local-broker")]
use crate::output::clean;
use crate::verb::{Effect, Ran, Shape, Verb};

/// Start a mesh on this machine: broker, mesh and an invite, nothing else needed.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh up\n  claudemesh up -d\n  claudemesh up --demo\n  \
                        claudemesh up --listen 0.0.0.0:7900   let other machines join\n  claudemesh up --mesh kitchen\n\n\
                        The mesh is called `local`, or what --mesh says. `claudemesh down` ends what -d started;\n\
                        `claudemesh service install` starts it with your login.")]
pub struct UpArgs {
    /// Address to listen on, such as 0.0.0.0:7900, :7900 or localhost. Other machines can join only when it is not a loopback
    /// address.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Show the mesh at work: two scripted peers exchange an encrypted direct message, a group message and a reply. It
    /// uses a temporary folder, ends by itself and removes that folder.
    #[arg(long, conflicts_with_all = ["data_dir", "detach"])]
    pub demo: bool,
    /// Run in the background once the mesh is up; `claudemesh down` stops it.
    #[arg(long, short)]
    pub detach: bool,
    /// Where the broker keeps its data [default: `broker` in the config folder]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Your name in a mesh that is new. One that is there keeps yours; `claudemesh rename member` changes it.
    #[arg(long)]
    pub name: Option<String>,
}

/// A mesh that is up, for scripts.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Up {
    pub(super) ok: bool,
    /// Where the broker listens.
    pub(super) listening: String,
    pub(super) mesh: String,
    pub(super) mesh_id: MeshId,
    /// Name of your member in it.
    pub(super) name: String,
    pub(super) broker_url: String,
    /// A link to join with.
    pub(super) invite: String,
    pub(super) invite_expires_at: String,
    pub(super) pid: u32,
    /// Whether this process serves; else it stands by for the holder.
    pub(super) serving: bool,
    pub(super) holder: Option<HolderNote>,
}

/// The line of the answer that says who one is, and what gives a member that is there another name.
#[cfg(feature = "local-broker")]
pub(super) fn you_are(name: &str, asked: Option<&str>, mesh: &str) -> String {
    let shown = clean(name);
    match asked.filter(|asked| *asked != name) {
        Some(asked) => format!(
            "  you are    {shown}; --name is for a mesh that is new, so the name stays\n             \
             (`claudemesh rename member \"{}\" --mesh {}` changes it)\n",
            clean(asked),
            clean(mesh)
        ),
        None => format!("  you are    {shown}\n"),
    }
}

impl Verb for UpArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Up>()]
    }

    fn run(self, cx: &Context) -> Ran {
        super::up(cx, &self).map(Into::into)
    }
}

/// End the `claudemesh up` of this machine. Waiting messages stay on disk.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Example:\n  claudemesh down\n\nSessions that still use the mesh go on serving it for each other."
)]
pub struct DownArgs {
    /// Where the broker keeps its data [default: `broker` in the config folder]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl Verb for DownArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        super::background::fields_of_down()
    }

    fn shapes() -> Vec<Shape> {
        super::background::shapes_of_down()
    }

    fn run(self, cx: &Context) -> Ran {
        super::background::down(cx, self.data_dir.as_deref()).map(Into::into)
    }
}
