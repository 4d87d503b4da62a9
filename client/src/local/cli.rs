//! `up`: arguments. What it does is in `serve`, or `without` in a build that has no broker.

use std::path::PathBuf;

use clap::Args;

use crate::context::Context;
use crate::verb::{Effect, Ran, Verb};

/// Start a mesh on this machine: broker, mesh `local` and an invite, nothing else needed.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh up\n  claudemesh up --demo\n  claudemesh up --listen 0.0.0.0:7900   \
                        let other machines join")]
pub struct UpArgs {
    /// Address to listen on. Other machines can join only when it is not a loopback address.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Show the mesh at work: two scripted peers exchange an encrypted direct message, a group message and a reply.
    #[arg(long)]
    pub demo: bool,
    /// Where the broker keeps its data [default: `broker` in the config folder]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Your name in the mesh.
    #[arg(long)]
    pub name: Option<String>,
}

impl Verb for UpArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn run(self, cx: &Context) -> Ran {
        super::up(cx, &self).map(Into::into)
    }
}
