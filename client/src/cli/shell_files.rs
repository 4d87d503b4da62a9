//! Completions and manual pages, made from the command tree.

use clap_complete::Shell as CompleteShell;

use crate::context::Context;
use crate::error::CliError;
use crate::verb::{Audience, Effect, Ran, Verb, done};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// Print completions for a shell.
#[derive(Args, Clone, Debug)]
#[command(
    visible_alias = "completion",
    after_help = "Examples:\n  claudemesh completions bash > ~/.local/share/bash-completion/completions/claudemesh\n  \
                        claudemesh completions zsh > ~/.zfunc/_claudemesh\n  claudemesh completions fish | source"
)]
pub struct CompletionsArgs {
    /// Shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

impl Verb for CompletionsArgs {
    const AUDIENCE: Audience = Audience::PeopleOnly;

    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn run(self, cx: &Context) -> Ran {
        completions(cx, &self).map(done)
    }
}

/// Shells with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash
    Bash,
    /// Elvish
    Elvish,
    /// Fish
    Fish,
    /// PowerShell
    Powershell,
    /// Zsh
    Zsh,
}

/// Print manual pages, or write one per command into a folder.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh man | man -l -\n  claudemesh man --dir ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Write `claudemesh.1`, `claudemesh-send.1` … into this folder instead.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

impl Verb for ManArgs {
    const AUDIENCE: Audience = Audience::PeopleOnly;

    fn effect(&self) -> Effect {
        if self.dir.is_none() { Effect::Reads } else { Effect::Changes }
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn run(self, cx: &Context) -> Ran {
        man(cx, &self).map(done)
    }
}

/// Prints the completion script of a shell.
///
/// # Errors
/// Exit 10 when stdout cannot be written.
fn completions(cx: &Context, args: &CompletionsArgs) -> Result<(), CliError> {
    let shell = match args.shell {
        Shell::Bash => CompleteShell::Bash,
        Shell::Elvish => CompleteShell::Elvish,
        Shell::Fish => CompleteShell::Fish,
        Shell::Powershell => CompleteShell::PowerShell,
        Shell::Zsh => CompleteShell::Zsh,
    };
    let mut script = vec![];
    clap_complete::generate(shell, &mut super::command(), "claudemesh", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if matches!(args.shell, Shell::Zsh) {
        // A shell that has not loaded its completion system has no such command.
        script = script.replace("    compdef _claudemesh", "    (( ! $+functions[compdef] )) || compdef _claudemesh");
    }
    cx.out.write(&super::complete::dynamic(args.shell, script))
}

/// Prints the main manual page, or writes all of them into a folder.
///
/// # Errors
/// Exit 10 when a file cannot be written.
fn man(cx: &Context, args: &ManArgs) -> Result<(), CliError> {
    let mut command = super::command();
    command.build();
    match &args.dir {
        None => cx.out.write(&page(command)?),
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|error| write_error(dir, &error))?;
            let mut count = 0;
            write_pages(dir, command, "claudemesh", &mut count)?;
            cx.out.note(&format!("{count} pages written to {}", dir.display()))
        }
    }
}

fn write_pages(dir: &Path, command: clap::Command, name: &str, count: &mut usize) -> Result<(), CliError> {
    for verb in command.get_subcommands() {
        write_pages(dir, verb.clone(), &format!("{name}-{}", verb.get_name()), count)?;
    }
    let path = dir.join(format!("{name}.1"));
    // clap wants names that live as long as the program; there are some thirty, once per run.
    let text = page(command.name(name.to_owned()).display_name(name.to_owned()))?;
    std::fs::write(&path, text).map_err(|error| write_error(&path, &error))?;
    *count += 1;
    Ok(())
}

fn page(command: clap::Command) -> Result<String, CliError> {
    let mut text = vec![];
    clap_mangen::Man::new(command)
        .render(&mut text)
        .map_err(|error| CliError::internal(format!("The manual page cannot be made: {error}.")))?;
    // The text after the options is examples, in every command.
    Ok(String::from_utf8_lossy(&text).replace(".SH EXTRA\n", ".SH EXAMPLES\n"))
}

fn write_error(path: &Path, error: &std::io::Error) -> CliError {
    CliError::io(format!("{} cannot be written: {error}.", path.display()))
}
