//! Tells our flags of `launch` from those for `claude`, so that both can be mixed freely.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// Rewrites `claudemesh launch [ours and theirs]` to `claudemesh launch [ours] -- [theirs]`. Other verbs stay as they are.
///
/// A flag that no argument of ours has, and the words after it up to the next flag of ours, are theirs; so is everything
/// after `--`.
pub fn separate(argv: Vec<OsString>) -> Vec<OsString> {
    let mut command = crate::cli::command();
    command.build();
    let Some(verb_at) = verb_position(&command, &argv) else { return argv };
    let Some(launch) = command.find_subcommand(&argv[verb_at]).filter(|verb| verb.get_name() == "launch") else {
        return argv;
    };
    let mut ours: Vec<OsString> = argv[..=verb_at].to_vec();
    let mut theirs: Vec<OsString> = vec![];
    let mut words = argv.into_iter().skip(verb_at + 1).peekable();
    let mut in_theirs = false;
    while let Some(word) = words.next() {
        if word == "--" {
            theirs.extend(words);
            break;
        }
        let text = word.to_string_lossy();
        if !text.starts_with('-') || text == "-" {
            if in_theirs {
                theirs.push(word)
            } else {
                ours.push(word)
            }
            continue;
        }
        match known(launch, &text) {
            None => {
                in_theirs = true;
                theirs.push(word);
            }
            Some(argument) => {
                in_theirs = false;
                let inline = text.contains('=');
                ours.push(word);
                if !inline && wants_value(argument, words.peek()) {
                    ours.extend(words.next());
                }
            }
        }
    }
    if !theirs.is_empty() {
        ours.push("--".into());
        ours.extend(theirs);
    }
    ours
}

/// Position of the verb: the first word that is no flag and no value of one.
fn verb_position(command: &Command, argv: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(word) = argv.get(at) {
        let text = word.to_str()?;
        if !text.starts_with('-') {
            return Some(at);
        }
        let argument = known(command, text)?;
        at += if !text.contains('=') && wants_value(argument, argv.get(at + 1)) { 2 } else { 1 };
    }
    None
}

/// The argument of ours that a flag names. Several short flags in one word (`-yq`) are ours when each is.
fn known<'a>(command: &'a Command, flag: &str) -> Option<&'a Arg> {
    let name = flag.split('=').next().unwrap_or(flag);
    if let Some(long) = name.strip_prefix("--") {
        let names = |argument: &Arg| argument.get_all_aliases().unwrap_or_default().contains(&long);
        return command.get_arguments().find(|argument| argument.get_long() == Some(long) || names(argument));
    }
    let by_short = |short: char| command.get_arguments().find(move |argument| argument.get_short() == Some(short));
    let shorts: Vec<&Arg> = name.chars().skip(1).map(by_short).collect::<Option<_>>()?;
    shorts.last().copied()
}

fn wants_value(argument: &Arg, next: Option<&OsString>) -> bool {
    if !matches!(argument.get_action(), ArgAction::Set | ArgAction::Append) || argument.is_require_equals_set() {
        return false;
    }
    // An optional value is taken when the next word can be one.
    let optional = argument.get_num_args().is_some_and(|range| range.min_values() == 0);
    !optional || next.is_some_and(|next| !next.to_string_lossy().starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let argv = line.split(' ').map(OsString::from).collect();
        let got: Vec<String> = separate(argv).into_iter().map(|word| word.into_string().unwrap()).collect();
        assert_eq!(got.join(" "), expected);
    }

    #[test]
    fn ours_and_theirs_are_told_apart() {
        check("c launch --name Ann --model opus", "c launch --name Ann -- --model opus");
        check("c launch --model opus --name Ann -y", "c launch --name Ann -y -- --model opus");
        check("c launch team --verbose --groups a:b,c word", "c launch team --groups a:b,c word -- --verbose");
        check("c launch --model=opus --name=Ann", "c launch --name=Ann -- --model=opus");
        check("c launch -p hello -y", "c launch -y -- -p hello");
        check("c launch --resume abc --add-dir /a /b", "c launch --resume abc -- --add-dir /a /b");
        check("c launch --resume --model opus", "c launch --resume -- --model opus");
        check("c launch -y -- --name x -p hi", "c launch -y -- --name x -p hi");
        check("c --mesh team --quiet launch --mcp-debug", "c --mesh team --quiet launch -- --mcp-debug");
        check("c connect --foo", "c connect -- --foo");
        check("c launch --json --foo", "c launch --json -- --foo");
    }

    #[test]
    fn other_verbs_stay_as_they_are() {
        check("c send a b --foo", "c send a b --foo");
        check("c --mesh launch peers --foo", "c --mesh launch peers --foo");
        check("c --unknown launch --foo", "c --unknown launch --foo");
        check("c", "c");
    }

    proptest::proptest! {
        #[test]
        fn no_word_is_lost_or_made_up(words in proptest::collection::vec("-{0,2}[a-z]{0,8}(=[a-z]{0,3})?|--name|--resume|-y|--", 0..12)) {
            let mut argv: Vec<OsString> = vec!["c".into(), "launch".into()];
            argv.extend(words.iter().map(OsString::from));
            let mut before: Vec<OsString> = argv.iter().filter(|word| *word != "--").cloned().collect();
            let mut after: Vec<OsString> = separate(argv).into_iter().filter(|word| *word != "--").collect();
            before.sort();
            after.sort();
            proptest::prop_assert_eq!(before, after);
        }
    }
}
