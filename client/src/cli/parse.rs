//! From the words of a command line to a verb, and what is printed when there is none.

use std::ffi::OsString;

use clap::FromArgMatches;

use super::Cli;
use crate::error::{CliError, ExitCode};
use crate::output::{Format, Output};
use crate::paths::Env;

/// The exit code of a process whose whole work was to print: a full disk is told as by every verb.
pub fn printed(written: std::io::Result<()>) -> ExitCode {
    let written = written.and_then(|()| std::io::Write::flush(&mut std::io::stdout()));
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let failure = CliError::io(format!("Standard output cannot be written: {error}."));
            Output::new(&Env::of_process(), Format::Human, false).fail(&failure);
            failure.exit
        }
        _ => ExitCode::Success,
    }
}

/// Parses a command line (program name first).
///
/// Help and version are printed here and answered with `Err(ExitCode::Success)`; faults with exit 3, as JSON when
/// `--json` stands anywhere before `--`.
///
/// # Errors
/// The exit code of a process that has nothing more to do.
pub fn parse(argv: Vec<OsString>) -> Result<Cli, ExitCode> {
    use clap::error::ErrorKind;
    let wants_json = argv
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word.to_str().is_some_and(|word| word == "--json" || word.starts_with("--json=")));
    let argv = in_flags(argv);
    let words = words_of_verb(&argv);
    let see = format!("See `{words} --help`.");
    let argv_of_fault = argv.clone();
    let argv = crate::launch::argv::separate(argv);
    let parsed = super::command().try_get_matches_from(&argv);
    parsed.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => printed(fitted(error, &argv).print()),
        // A verb that wants another word after it: clap shows its help, whose first line would make no message.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !wants_json => {
            let _ = fitted(error, &argv).print();
            ExitCode::InvalidArgs
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let text = error.to_string();
            let usage = text.lines().find(|line| line.starts_with("Usage: ")).unwrap_or(&see);
            let failure = CliError::invalid_args(format!("`{words}` needs one more word.")).hint(usage);
            Output::new(&Env::of_process(), Format::Json(vec![]), false).fail(&failure);
            ExitCode::InvalidArgs
        }
        _ => {
            let text = error.to_string();
            let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").trim_end_matches(':');
            // The rest names missing arguments, similar words and the usage.
            let rest =
                text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("For more"));
            let (mut details, mut hint) = (vec![], None);
            for line in rest {
                match line.strip_prefix("tip: ") {
                    // What clap proposes does not help where an option wants a value, and that is the usual case.
                    Some(tip) if tip.contains("use '-- -") && !tip.contains("use '-- --") => {
                        let tip = "a value that begins with '-' is written with '=', as in --name=-x; what stands after -- is text";
                        hint = Some(crate::error::sentence(tip));
                    }
                    Some(tip) => hint = Some(crate::error::sentence(tip)),
                    None if line.starts_with("Usage: ") => {
                        hint.get_or_insert_with(|| line.to_owned());
                        break;
                    }
                    None => details.push(line),
                }
            }
            let message = match (details.as_slice(), message.strip_suffix(" were not provided")) {
                ([], _) => message.to_owned(),
                (details, Some(_)) => format!("Missing: {}", details.join(" ")),
                (details, None) => format!("{message} {}", details.join(" ")),
            };
            let failure = CliError::invalid_args(crate::error::sentence(&message));
            let choices = match error.kind() {
                ErrorKind::InvalidSubcommand if words != "claudemesh" => choices(&argv_of_fault),
                _ => None,
            };
            let hint = match (hint, choices) {
                // A usage line says `<COMMAND>` and not which there are.
                (Some(tip), Some(choices)) if !tip.starts_with("Usage: ") => format!("{tip} {choices}"),
                (_, Some(choices)) => choices,
                (hint, None) => hint.unwrap_or(see),
            };
            let failure = failure.hint(hint);
            let format = if wants_json { Format::Json(vec![]) } else { Format::Human };
            Output::new(&Env::of_process(), format, false).fail(&failure);
            ExitCode::InvalidArgs
        }
    })
}

/// The same help in lines that fit the terminal, where there is one.
fn fitted(error: clap::Error, argv: &[OsString]) -> clap::Error {
    match crate::output::known_columns(&Env::of_process()) {
        Some(columns) => super::fitted::command(usize::from(columns)).try_get_matches_from(argv).err().unwrap_or(error),
        None => error,
    }
}

/// `help`, `help send` and `version` as the flags that do the same.
fn in_flags(argv: Vec<OsString>) -> Vec<OsString> {
    let mut words = argv.into_iter();
    let program: Vec<OsString> = words.next().into_iter().collect();
    let rest: Vec<OsString> = words.collect();
    match rest.first().and_then(|word| word.to_str()) {
        Some("help") => [program, rest[1..].to_vec(), vec!["--help".into()]].concat(),
        Some("version") if rest.len() == 1 => [program, vec!["--version".into()]].concat(),
        _ => [program, rest].concat(),
    }
}

/// What may follow the words of a command that is one of a group, as in `claudemesh rename: member, session`.
fn choices(argv: &[OsString]) -> Option<String> {
    let mut tree = super::command();
    tree.build();
    let words = words_of_verb(argv);
    let group = words.split(' ').skip(1).try_fold(&tree, |at, word| at.find_subcommand(word))?;
    let names: Vec<&str> = group
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set())
        .map(clap::Command::get_name)
        .filter(|name| *name != "help")
        .collect();
    (!names.is_empty()).then(|| format!("`{words}` is followed by one of: {}.", names.join(", ")))
}

/// The words of the command that a command line means, as in `claudemesh group join`; what follows them is left out.
pub fn words_of_verb(argv: &[OsString]) -> String {
    let mut tree = super::command();
    tree.build();
    let (mut at, mut words) = (&tree, vec!["claudemesh".to_owned()]);
    for word in argv.iter().skip(1).take_while(|word| *word != "--") {
        let Some(verb) = word.to_str().and_then(|word| at.find_subcommand(word)) else { continue };
        words.push(verb.get_name().to_owned());
        at = verb;
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn help_and_version_are_words_as_well() {
        let rewritten = |line: &str| in_flags(words(line)) == words(line);
        assert_eq!(in_flags(words("c help")), words("c --help"));
        assert_eq!(in_flags(words("c help group join")), words("c group join --help"));
        assert_eq!(in_flags(words("c version")), words("c --version"));
        assert!(rewritten("c send help me") && rewritten("c version --json") && in_flags(vec![]).is_empty());
    }

    #[test]
    fn the_words_that_may_follow_are_listed() {
        let listed = |line: &str| choices(&words(line)).unwrap_or_default();
        assert_eq!(listed("c rename Bob"), "`claudemesh rename` is followed by one of: member, session.");
        for word in ["get", "set", "unset", "path"] {
            assert!(listed("c config list").contains(word), "{word}");
        }
        assert!(listed("c mesh nope").contains("rejoin") && listed("c skill show").contains("share"));
        assert_eq!(choices(&words("c send Bob hi")), None);
    }

    #[test]
    fn a_hint_leads_to_the_help_of_the_command() {
        assert_eq!(words_of_verb(&words("c group join @a --role x")), "claudemesh group join");
        assert_eq!(words_of_verb(&words("c --mesh team invite --uses 0")), "claudemesh invite");
        assert_eq!(words_of_verb(&words("c bogus")), "claudemesh");
        assert_eq!(words_of_verb(&words("c send -- group")), "claudemesh send");
    }
}
