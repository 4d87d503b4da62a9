//! Arguments of `doctor`.

use clap::Args;

use crate::context::Context;
use crate::verb::{Effect, Ran, Shape, Verb};

/// Check the installation and every joined mesh. A failure comes with the command that fixes it, where there is one.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh doctor\n  claudemesh doctor --no-loopback --json")]
pub struct DoctorArgs {
    /// Leave out the test messages that doctor sends to itself over every route.
    #[arg(long)]
    pub no_loopback: bool,
}

impl Verb for DoctorArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn shapes() -> Vec<Shape> {
        vec![super::shape()]
    }

    fn run(self, cx: &Context) -> Ran {
        super::run(cx, &self).map(Into::into)
    }
}
