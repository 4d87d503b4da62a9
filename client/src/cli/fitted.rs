//! Help for the width of a terminal. clap wraps what options and arguments say; our own list of commands and what stands behind
//! the options would break within words.

use clap::{Command, CommandFactory};

use super::Cli;
use crate::wrap::wrapped;

/// Wider lines are hard to read.
const MOST_COLUMNS: usize = 100;
/// Where the remark of an example stands when it has a line of its own.
const REMARK: &str = "      ";

/// The command tree, with texts for a terminal of so many columns.
pub(super) fn command(columns: usize) -> Command {
    let columns = columns.min(MOST_COLUMNS);
    fit(super::with_list(Cli::command(), columns), columns).term_width(columns)
}

fn fit(mut command: Command, columns: usize) -> Command {
    if let Some(text) = command.get_after_help().map(ToString::to_string) {
        command = command.after_help(fitted(&text, columns));
    }
    command.mut_subcommands(|verb| fit(verb, columns))
}

/// A text behind the options. Its paragraphs and examples are written for 95 columns.
fn fitted(text: &str, columns: usize) -> String {
    if text.lines().all(|line| line.chars().count() <= columns) {
        return text.to_owned();
    }
    let (mut out, mut paragraph) = (String::new(), String::new());
    for line in text.lines() {
        if line.starts_with(' ') || line.is_empty() {
            end(&mut paragraph, columns, &mut out);
            out += &example(line, columns);
            out.push('\n');
            continue;
        }
        if !paragraph.is_empty() {
            paragraph.push(' ');
        }
        paragraph += line;
        if line.ends_with(['.', ':']) {
            end(&mut paragraph, columns, &mut out);
        }
    }
    end(&mut paragraph, columns, &mut out);
    out.trim_end().to_owned()
}

fn end(paragraph: &mut String, columns: usize, out: &mut String) {
    if !paragraph.is_empty() {
        *out += &wrapped(&std::mem::take(paragraph), columns, "");
        out.push('\n');
    }
}

/// A command line with its remark behind it, which goes below when both do not fit. The command line itself is not broken: it is
/// there to be copied.
fn example(line: &str, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    let start = line.len() - line.trim_start().len();
    match line[start..].split_once("  ") {
        Some((command, remark)) => {
            let remark = wrapped(&format!("{REMARK}{}", remark.trim()), columns, REMARK);
            format!("{}{command}\n{remark}", &line[..start])
        }
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_help_breaks_a_word_at_sixty_columns() {
        fn check(command: &mut Command, path: &str) {
            let help = command.render_long_help().to_string();
            for line in help.lines().filter(|line| line.chars().count() > 60) {
                let copied = line.contains("claudemesh ") || line.starts_with("Usage:") || line.starts_with("       ");
                assert!(copied || !line.trim().contains(' '), "{path}: {line}");
            }
            for verb in command.get_subcommands_mut() {
                let path = format!("{path} {}", verb.get_name());
                check(verb, &path);
            }
        }
        let mut tree = super::command(60);
        tree.build();
        check(&mut tree, "claudemesh");
    }

    #[test]
    fn examples_stay_whole_and_their_remarks_go_below() {
        let text = "Examples:\n  claudemesh up --listen :7900      with a link for other machines and people\n\n\
                    A paragraph that was written\nin two lines.\nAnother one: it ends here.";
        assert_eq!(
            fitted(text, 40),
            "Examples:\n  claudemesh up --listen :7900\n      with a link for other machines and\n      people\n\n\
             A paragraph that was written in two\nlines.\nAnother one: it ends here."
        );
        assert_eq!(fitted("Short\ntext", 40), "Short\ntext");
    }

    #[test]
    fn the_list_of_commands_hangs_behind_their_names() {
        let help = super::command(60).render_help().to_string();
        let rows: Vec<&str> = help.lines().skip_while(|line| !line.starts_with("  top ")).take(2).collect();
        assert!(rows[0].chars().count() <= 60 && rows[1].starts_with("                  "), "{rows:?}");
    }
}
