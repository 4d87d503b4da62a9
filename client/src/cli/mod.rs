//! The command line: the tree of verbs, what they share, and which function runs each.

use clap::{CommandFactory, Parser};

use crate::context::GlobalArgs;

pub mod complete;
mod fitted;
pub mod json_schema;
pub mod no_verb;
mod parse;
pub mod shell_files;
pub mod skill;
mod subjects;
mod verbs;

pub use parse::{parse, printed, words_of_verb};
pub use verbs::AnyVerb;

/// Lets Claude Code sessions work as one team: encrypted messages between sessions on one machine or many.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "claudemesh",
    version,
    disable_help_subcommand = true,
    after_help = "Examples:\n  claudemesh install                            tell Claude Code about it, once per machine\n  \
                  claudemesh launch --name Ann                  start Claude Code in a mesh, then again as Bob\n  \
                  claudemesh up                                 start a mesh on this machine, with an invite link\n  \
                  claudemesh join http://host:7900/i/K7QX2MPA   join a mesh with an invite link\n  \
                  claudemesh send Bob \"tests are green\"         write to a peer\n\n\
                  `claudemesh help COMMAND` explains a command. Pages such as docs/meshes.md are\n\
                  in the source code, and in share/doc/claudemesh of the packages.\n\n\
                  Exit codes: 0 ok, 1 cancelled, or a check found a fault, 2 refused key, 3 bad arguments, 4 network,\n\
                  5 not found, 6 exists, or changed meanwhile, 7 not allowed, declined, or a limit, 8 internal,\n\
                  9 no Claude Code, 10 files."
)]
pub struct Cli {
    /// Flags of every verb.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The verb.
    #[command(subcommand)]
    pub verb: Option<AnyVerb>,
}

/// The command tree, for parsing, completions and manual pages. The help of the program lists its commands by subject.
pub fn command() -> clap::Command {
    with_list(Cli::command(), usize::MAX)
}

fn with_list(command: clap::Command, columns: usize) -> clap::Command {
    let list = subjects::list(&command, columns);
    let start = |text: &str| crate::wrap::wrapped(text, columns, "  ");
    let (new, others) = (
        start("New here: `claudemesh install`, then `claudemesh launch`."),
        start("With other people: `claudemesh join LINK`, or `claudemesh up --listen :7900`."),
    );
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n\
         {new}\n{others}\n\n{list}\nOptions:\n{{options}}{{after-help}}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::{Effect, Verb};

    #[test]
    fn the_tree_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn help_lists_every_command_once_under_a_subject() {
        let help = command().render_help().to_string();
        for verb in command().get_subcommands() {
            let row =
                |line: &&str| line.trim_start().split(' ').next() == Some(verb.get_name()) && line.starts_with("  ");
            assert_eq!(help.lines().filter(row).count(), 1, "{}: {help}", verb.get_name());
        }
        for (subject, names) in subjects::SUBJECTS {
            assert!(help.contains(&format!("{subject}:\n")), "{subject}");
            for name in *names {
                assert!(command().find_subcommand(name).is_some(), "{subject}: no command {name}");
            }
        }
    }

    #[test]
    fn an_option_never_eats_the_next_word() {
        fn check(command: &clap::Command, path: &str) {
            for argument in command.get_arguments().filter(|argument| !argument.is_positional()) {
                let values = argument.get_num_args().unwrap_or_default();
                // `--resume [id]` is Claude Code's own, and `launch` takes no words that it could eat.
                let own = format!("{path} --{}", argument.get_id()) != "claudemesh launch --resume";
                let optional = argument.get_action().takes_values() && values.min_values() == 0 && own;
                assert!(!optional || argument.is_require_equals_set(), "{path} --{}", argument.get_id());
                assert!(values.max_values() <= 1, "{path} --{} takes several words", argument.get_id());
            }
            for verb in command.get_subcommands() {
                check(verb, &format!("{path} {}", verb.get_name()));
            }
        }
        let mut tree = command();
        tree.build();
        check(&tree, "claudemesh");
        let cli = Cli::try_parse_from(["claudemesh", "send", "--self", "Bob", "--json", "hello"]).unwrap();
        let Some(AnyVerb::Send(args)) = cli.verb else { panic!("send") };
        assert_eq!((args.to_self, args.words), (true, vec!["Bob".to_owned(), "hello".to_owned()]));
    }

    #[test]
    fn every_verb_and_argument_is_explained() {
        fn check(command: &clap::Command, path: &str) {
            for argument in command.get_arguments() {
                let known = matches!(argument.get_id().as_str(), "help" | "version");
                assert!(known || argument.get_help().is_some(), "{path} {}", argument.get_id());
            }
            for verb in command.get_subcommands() {
                let path = format!("{path} {}", verb.get_name());
                assert!(verb.get_about().is_some(), "{path} has no help");
                assert!(verb.get_after_help().is_some(), "{path} has no example");
                check(verb, &path);
            }
        }
        check(&command(), "claudemesh");
    }

    /// The examples in the help of a command and of those below it.
    fn examples(command: &clap::Command, out: &mut Vec<String>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter(|line| line.starts_with("  ")) {
            let Some(at) = line.find("claudemesh ") else { continue };
            // What follows is a remark, another program or a file.
            let ends = ["  ", " | ", " > ", " >> ", " < "].iter().filter_map(|end| line[at..].find(end));
            out.push(line[at..].split_at(ends.min().unwrap_or(line.len() - at)).0.to_owned());
        }
        for verb in command.get_subcommands() {
            examples(verb, out);
        }
    }

    /// The words of a line of the shell.
    fn words(line: &str) -> Vec<std::ffi::OsString> {
        let (mut words, mut word, mut quote) = (vec![], String::new(), None);
        for c in line.chars() {
            match (c, quote) {
                (c, Some(open)) if c == open => quote = None,
                (c, Some(_)) => word.push(c),
                ('"' | '\'', None) => quote = Some(c),
                (' ', None) => words.push(std::mem::take(&mut word).into()),
                (c, None) => word.push(c),
            }
        }
        words.push(word.into());
        words
    }

    /// Their answers differ from call to call, or they print something that is not JSON.
    const FIELDS_IN_THE_ANSWER: [&str; 12] = [
        "up",
        "create",
        "invite",
        "join",
        "inbound",
        "approvers",
        "permit",
        "install",
        "uninstall",
        "doctor",
        "man",
        "mcp",
    ];

    #[test]
    fn every_example_is_a_command_line_and_what_changes_something_checks_its_fields_first() {
        let mut lines = vec![];
        examples(&command(), &mut lines);
        assert!(lines.len() > 80, "{}", lines.len());
        for line in &lines {
            let argv = crate::launch::argv::separate(words(line));
            let cli = Cli::try_parse_from(argv).unwrap_or_else(|error| panic!("{line}: {error}"));
            let Some(verb) = cli.verb else { panic!("{line}: no verb") };
            let word = line.split(' ').nth(1).unwrap();
            let silent = ["launch", "hook"].contains(&word)
                || FIELDS_IN_THE_ANSWER.contains(&word)
                || line.starts_with("claudemesh sql shell");
            assert!(verb.effect() == Effect::Reads || !verb.fields().is_empty() || silent, "{line} checks no fields");
        }
    }

    /// They print no JSON: they run other programs, are dialogues or print files of other kinds.
    const NO_JSON: [&str; 8] =
        ["launch", "hook", "status-line", "mcp", "completions", "man", "json-schema", "sql shell"];

    #[test]
    fn every_verb_that_prints_json_has_a_schema() {
        fn leaves(command: &clap::Command, path: &str, out: &mut Vec<String>) {
            for verb in command.get_subcommands() {
                let path = format!("{path} {}", verb.get_name()).trim().to_owned();
                if verb.has_subcommands() { leaves(verb, &path, out) } else { out.push(path) }
            }
        }
        let mut verbs = vec![];
        leaves(&command(), "", &mut verbs);
        let calls: Vec<String> = json_schema::all().into_iter().map(|shape| shape.call).collect();
        let without: Vec<&String> =
            verbs.iter().filter(|verb| !calls.contains(verb) && !NO_JSON.contains(&verb.as_str())).collect();
        assert!(without.is_empty(), "no `Verb::shapes` for {without:?}");
        let mut once = calls.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), calls.len(), "a call has two schemas");
    }

    #[test]
    fn what_only_looks_is_told_from_what_changes_something() {
        for (line, effect) in [
            ("claudemesh group list", Effect::Reads),
            ("claudemesh group join @qa", Effect::Changes),
            ("claudemesh status", Effect::Reads),
            ("claudemesh status set dnd", Effect::Changes),
            ("claudemesh inbox", Effect::Changes),
            ("claudemesh inbox --peek", Effect::Reads),
            ("claudemesh invite --list", Effect::Reads),
            ("claudemesh permission-log --verify", Effect::Reads),
            ("claudemesh permit", Effect::Reads),
        ] {
            let verb = Cli::try_parse_from(words(line)).unwrap().verb.unwrap();
            assert_eq!(verb.effect(), effect, "{line}");
        }
    }
}
