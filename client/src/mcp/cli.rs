//! Arguments of `mcp`.

use clap::Args;

use crate::config::MessageMode;
use crate::context::Context;
use crate::verb::{Audience, Effect, Ran, Verb};

/// Run the MCP server on standard input and output. Started by Claude Code.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh mcp\n  claudemesh mcp --mesh team\n  claudemesh mcp --surface lean")]
pub struct McpArgs {
    /// How messages reach the session.
    #[arg(long, value_enum)]
    pub message_mode: Option<MessageMode>,
    /// Which tools are offered [default: $CLAUDEMESH_MCP_SURFACE or full]
    #[arg(long, value_enum)]
    pub surface: Option<crate::mcp::surface::Surface>,
    /// Folder that peers may ask for; you are asked for each of them [default: $CLAUDEMESH_SHARE_DIR or none]
    #[arg(long, value_name = "DIR")]
    pub share_dir: Option<std::path::PathBuf>,
}

impl Verb for McpArgs {
    const AUDIENCE: Audience = Audience::PeopleOnly;

    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn run(self, cx: &Context) -> Ran {
        super::run(cx, &self).map(Into::into)
    }
}
