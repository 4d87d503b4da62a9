//! `skill install`: shows a skill, asks, and writes it.

use clap::Args;
use claudemesh_protocol::features::skills::{SignatureState, Skill};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{read, told};
use crate::context::Context;
use crate::error::{CliError, ExitCode};
use crate::features::skills::install::{Plan, There, commands, folder_name, rendered};
use crate::output::clean;
use crate::paths::{self, ClaudeFiles};
use crate::verb::shape::{self, InMesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// Write a skill where Claude Code finds it, after showing it: ~/.claude/skills/<name>/SKILL.md.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh skill install deploy\n  claudemesh skill install deploy --project --as team-deploy --yes\n\n\
                        The tools that a skill allows itself are left out, and a text that would run commands while it is\n\
                        loaded is refused, unless you say otherwise. One whose signature does not fit is not installed."
)]
pub struct InstallArgs {
    /// Its name in the mesh.
    name: String,
    /// A former version [default: the newest].
    #[arg(long = "version", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    wanted_version: Option<u32>,
    /// Its name on this machine [default: the same].
    #[arg(long = "as", value_name = "NAME")]
    name_here: Option<String>,
    /// Into .claude/skills of this project, for this project only.
    #[arg(long)]
    project: bool,
    /// Let it allow itself the tools that its author names.
    #[arg(long)]
    allow_tools: bool,
    /// Take it although it runs commands whenever it is loaded.
    #[arg(long)]
    allow_commands: bool,
    /// Replace another text that is there.
    #[arg(long)]
    replace: bool,
    /// Do not ask before it is written. A text that is there is replaced only with --replace.
    #[arg(long, short = 'y')]
    yes: bool,
}

/// A skill that was installed, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Installed {
    name: String,
    version: u32,
    author: String,
    /// Whether the text is what its author signed.
    signature_state: SignatureState,
    path: String,
    /// `false`: the same text was there.
    written: bool,
    /// Another text was there.
    replaced: bool,
}

impl InstallArgs {
    fn plan(&self, cx: &Context, skill: &Skill, slug: &str) -> Result<Plan, CliError> {
        let name = folder_name(self.name_here.as_deref().unwrap_or(&skill.name))?.to_owned();
        let text = rendered(skill, &name, slug, self.allow_tools);
        let runs = commands(&text);
        if !runs.is_empty() && !self.allow_commands {
            let message = format!("This skill runs commands whenever it is loaded: {}", runs.join("; "));
            return Err(CliError::new(ExitCode::PermissionDenied, "runs_commands", message)
                .hint("Read it with `claudemesh skill get`; --allow-commands installs it all the same."));
        }
        if self.project {
            let project = paths::project_dir(&cx.env);
            return Ok(Plan { name, skills: project.join(".claude").join("skills"), within: Some(project), text });
        }
        Ok(Plan { name, skills: ClaudeFiles::locate(&cx.env).dir.join("skills"), within: None, text })
    }
}

impl Verb for InstallArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        shape::in_mesh::<Installed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<InMesh<Installed>>()]
    }

    /// Exit 2 when the signature does not fit, 5 when there is no such skill, 7 when it may not be written so.
    fn run(self, cx: &Context) -> Ran {
        let entry = cx.mesh_entry()?;
        let (skill, signature_state) = read(cx, &entry, &self.name, self.wanted_version)?;
        if signature_state == SignatureState::Forged {
            let message = format!("'{}' is not what its author signed; it is not installed.", clean(&skill.name));
            return Err(CliError::new(ExitCode::Auth, "bad_signature", message)
                .hint("Ask its author, and the people who run the broker."));
        }
        let plan = self.plan(cx, &skill, &entry.slug)?;
        let (path, there) = (plan.file(), plan.look()?);
        if there != There::Same {
            cx.out.remark(&told(&skill, signature_state, &cx.out));
            let proof = if signature_state == SignatureState::Verified { "" } else { ", which no one signed" };
            let author = clean(&skill.author);
            let what =
                format!("A skill of {author}{proof} becomes instructions for your sessions: {}.", path.display());
            cx.confirm(self.yes, &what, "Install it?")?;
        }
        if there == There::Other {
            let what = format!("{} is there with another text.", path.display());
            cx.confirm(self.replace, &what, "Replace it?").map_err(|error| match error.code.as_str() {
                "confirmation_needed" => CliError::new(ExitCode::AlreadyExists, "already_exists", error.message)
                    .hint("Nothing was changed. Add --replace, or give it another name with --as NAME."),
                _ => error,
            })?;
        }
        if there != There::Same {
            plan.write()?;
        }
        let installed = Installed {
            name: plan.name.clone(),
            version: skill.version,
            author: skill.author.clone(),
            signature_state,
            path: path.to_string_lossy().into_owned(),
            written: there != There::Same,
            replaced: there == There::Other,
        };
        cx.out
            .answer(&InMesh::new(&entry.slug, &installed), |out| {
                let what = if installed.written { "installed" } else { "already installed, unchanged:" };
                let path = clean(&installed.path);
                format!("{} {what} {}, version {}: {path}\n", out.tick(), clean(&installed.name), installed.version)
            })
            .map(done)
    }
}
