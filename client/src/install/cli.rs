//! Arguments of `install` and `uninstall`.

use std::path::PathBuf;

use clap::Args;

use super::answer::{Installation, Manual, Plugin, Removal};
use super::{install, uninstall};
use crate::context::Context;
use crate::verb::{Audience, Effect, Ran, Shape, Verb, done};

/// Tell Claude Code about claudemesh: the MCP server, a rule that allows its tools, and hooks.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh install\n  claudemesh install --no-hooks\n  claudemesh install --mesh team \
                        --mesh home   one MCP server per mesh\n  claudemesh install --print\n  \
                        claudemesh install --plugin-dir ./claudemesh-plugin\n\n\
                        Edits ~/.claude.json and ~/.claude/settings.json (or the same in $CLAUDE_CONFIG_DIR), keeps a copy\n\
                        in ~/.claude/backups, and changes nothing but its own keys. `claudemesh uninstall` undoes it."
)]
pub struct InstallArgs {
    /// Add one MCP server `claudemesh-<slug>` for this mesh, instead of one for all. May be repeated.
    #[arg(long = "mesh", id = "mesh", value_name = "SLUG")]
    pub meshes: Vec<String>,
    /// Leave the hooks out; messages then cannot wait for a pause, and nothing wakes an idle session.
    #[arg(long)]
    pub no_hooks: bool,
    /// Show the mesh in Claude Code's status line; an existing line is kept, and ours is shown below it.
    #[arg(long)]
    pub status_line: bool,
    /// Add the hook that lets a named member of the mesh answer permission requests.
    #[arg(long, conflicts_with = "no_hooks")]
    pub permission_relay: bool,
    /// Change nothing; print the commands and the JSON of the manual way.
    #[arg(long)]
    pub print: bool,
    /// Change nothing; write the Claude Code plug-in into this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "print")]
    pub plugin_dir: Option<PathBuf>,
    /// Replace an MCP server 'claudemesh' that starts another program.
    #[arg(long)]
    pub force: bool,
}

impl Verb for InstallArgs {
    const AUDIENCE: Audience = Audience::PeopleOnly;

    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn shapes() -> Vec<Shape> {
        vec![
            Shape::one::<Installation>(),
            Shape::one::<Manual>().of("--print"),
            Shape::one::<Plugin>().of("--plugin-dir"),
        ]
    }

    fn run(self, cx: &Context) -> Ran {
        install(&cx.env, &cx.store, &cx.out, &self).map(done)
    }
}

/// Remove what `install` added, and nothing else.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  claudemesh uninstall\n\nKeys and joined meshes stay; see `claudemesh leave`.")]
pub struct UninstallArgs {}

impl Verb for UninstallArgs {
    const AUDIENCE: Audience = Audience::PeopleOnly;

    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Removal>()]
    }

    fn run(self, cx: &Context) -> Ran {
        uninstall(&cx.env, cx.store.dir(), &cx.out).map(done)
    }
}
