//! Arguments of `status-line`. `main` runs the usual call without them, because it must be quick.

use clap::Args;

use crate::context::Context;
use crate::verb::{Audience, Effect, Ran, Verb, done};

/// Print a row about the mesh for Claude Code's status line. Set up by `install --status-line`.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Reads local files only, takes a few milliseconds and always exits 0. The numbers come from the session's\n\
                        MCP server and are at most a minute old; older ones say so.\n\nExamples:\n  claudemesh status-line\n  \
                        claudemesh status-line --wrap '~/.claude/my-line.sh'"
)]
pub struct StatusLineArgs {
    /// Run this shell line first, on the same input, and print its rows above ours.
    #[arg(long, value_name = "LINE")]
    pub wrap: Option<std::ffi::OsString>,
}

impl Verb for StatusLineArgs {
    const AUDIENCE: Audience = Audience::PeopleOnly;

    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn run(self, cx: &Context) -> Ran {
        super::run(&cx.env, &cx.store, self.wrap);
        Ok(done(()))
    }
}
