//! Arguments of `hook`. `main` runs the usual call without them, because hooks must be quick.

use clap::Args;

use crate::context::Context;
use crate::verb::{Audience, Effect, Ran, Verb};

/// Bring messages into a session and report its status. Called by Claude Code's hooks.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Reads the hook's JSON from standard input, prints what Claude Code should show to the model, and exits 0;\n\
                        `wait` exits 2 to wake the session. Set CLAUDEMESH_HOOK_DEBUG=1 to see on standard error what it does.\n\nExample:\n  \
                        echo '{\"session_id\":\"...\"}' | claudemesh hook idle"
)]
pub struct HookArgs {
    /// `session-start`, `prompt`, `post-tool`, `stop`, `session-end`, `permission`, `wait`, `monitor`; or a status: `idle`, `working`, `dnd`.
    pub event: Option<String>,
}

impl Verb for HookArgs {
    const AUDIENCE: Audience = Audience::PeopleOnly;

    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn run(self, cx: &Context) -> Ran {
        Ok(super::run(&cx.env, &cx.store, self.event.as_deref()).into())
    }
}
