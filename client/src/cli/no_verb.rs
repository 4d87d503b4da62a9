//! `claudemesh` without a verb: version and the next step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::CliError;
use crate::output::{Style, clean};
use crate::verb::Shape;

/// Where a user stands.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// The config cannot be read.
    BrokenConfig(String),
    /// Claude Code does not know us.
    NoInstall,
    /// Installed, nothing joined.
    NoMeshes,
    /// Ready to launch.
    Ready(Vec<String>),
}

impl State {
    /// Looks at the config and at Claude Code's files.
    pub fn of(cx: &Context) -> Self {
        let config = match cx.store.load() {
            Ok(config) => config,
            Err(error) => return Self::BrokenConfig(error.to_string()),
        };
        let installed = crate::install::installed(&cx.env);
        if installed.server.is_none() && !installed.has_server() {
            Self::NoInstall
        } else if config.meshes.is_empty() {
            Self::NoMeshes
        } else {
            Self::Ready(config.meshes.into_iter().map(|mesh| mesh.slug).collect())
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::BrokenConfig(_) => "broken-config",
            Self::NoInstall => "no-install",
            Self::NoMeshes => "no-meshes",
            Self::Ready(_) => "ready",
        }
    }

    fn next(&self) -> &'static str {
        match self {
            Self::BrokenConfig(_) => "claudemesh doctor",
            Self::NoInstall => "claudemesh install",
            Self::NoMeshes => "claudemesh join <link>",
            Self::Ready(_) => "claudemesh launch",
        }
    }
}

/// The next step, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct NextStep {
    version: &'static str,
    state: &'static str,
    next: &'static str,
    meshes: Vec<String>,
}

/// What is printed without a verb.
pub fn shape() -> Shape {
    Shape::one::<NextStep>()
}

/// The fields that `--json=FIELDS` can name without a verb.
pub fn fields() -> Vec<&'static str> {
    crate::verb::json_fields::of::<NextStep>()
}

/// Prints the version and the next step.
///
/// # Errors
/// Exit 10 when stdout cannot be written.
pub fn run(cx: &Context) -> Result<(), CliError> {
    let state = State::of(cx);
    let meshes = if let State::Ready(slugs) = &state { slugs.clone() } else { vec![] };
    let answer = NextStep { version: env!("CARGO_PKG_VERSION"), state: state.word(), next: state.next(), meshes };
    cx.out.answer(&answer, |out| {
        let mut text = format!("claudemesh {}\n", env!("CARGO_PKG_VERSION"));
        match &state {
            State::BrokenConfig(reason) => text += &format!("{}\n", out.paint(Style::Red, &clean(reason))),
            State::NoInstall => text += "Claude Code does not know claudemesh yet.\n",
            State::NoMeshes => text += "No mesh is joined. To start one on this machine: claudemesh up\n",
            State::Ready(slugs) => text += &format!("Joined: {}\n", clean(&slugs.join(", "))),
        }
        text + &format!("Next: {}   (all commands: claudemesh help)\n", out.paint(Style::Bold, state.next()))
    })
}
