//! The words of help, errors, documents and printed sentences: plain English, one list of words that do not come back.

use std::path::{Path, PathBuf};

/// A word or phrase, and what to write instead.
const AVOID: &[(&str, &str)] = &[
    ("mend", "fix"),
    ("mends", "fixes"),
    ("mended", "fixed"),
    ("shall", "should, must, or the plain verb"),
    ("somebody", "someone"),
    ("nobody", "no one"),
    ("everybody", "everyone"),
    ("anybody", "anyone"),
    ("whom", "who, or a sentence with another subject"),
    ("whoever", "anyone who, or the person who"),
    ("verb", "command"),
    ("verbs", "commands"),
    ("what waits", "waiting messages"),
    ("what is held", "held messages"),
    ("what comes in", "incoming messages"),
    ("of before", "earlier, or older"),
    ("when there is none", "if there is none, or the case by its name"),
    ("as you like", "at your option, or any"),
    ("8 and more digits", "at least 8 digits"),
    ("8 and more characters", "at least 8 characters"),
    ("is no address", "is not a valid address"),
    ("is no key", "is not a key"),
    ("is no UUID", "is not a UUID"),
    ("is no unit", "is not a unit"),
    ("is no message id", "is not a message id"),
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where a text has a word of the list, as words and in any case.
fn faults(place: &str, text: &str) -> Vec<String> {
    let mut found = vec![];
    for (number, line) in text.lines().enumerate() {
        let spaced: String = line
            .to_lowercase()
            .chars()
            .map(|symbol| if symbol.is_alphanumeric() || symbol == '_' { symbol } else { ' ' })
            .collect();
        let spaced = format!(" {} ", spaced.split_whitespace().collect::<Vec<_>>().join(" "));
        for (word, better) in AVOID {
            if spaced.contains(&format!(" {} ", word.to_lowercase())) {
                found.push(format!("{place}:{}: `{word}` → {better}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

/// A document without its code.
fn prose(text: &str) -> String {
    let mut out = String::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            // Every second piece between backticks is code.
            out.extend(line.split('`').step_by(2));
        }
        out.push('\n');
    }
    out
}

/// The sentences among the string literals of a source file: those with a blank in them, line by line.
fn sentences(source: &str) -> String {
    let mut out = String::new();
    let mut rest = source.split("#[cfg(test)]").next().unwrap_or_default();
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let (before, tail) = rest.split_at(at);
        out.extend(before.chars().filter(|symbol| *symbol == '\n'));
        if tail.starts_with("//") {
            rest = tail.find('\n').map_or("", |end| &tail[end..]);
        } else if tail.starts_with("'\"'") || tail.starts_with("'\\\"'") {
            rest = &tail[if tail.starts_with("'\\") { 4 } else { 3 }..];
        } else if let Some(text) = tail.strip_prefix('"') {
            let mut escaped = false;
            let end = text.char_indices().find(|(_, symbol)| {
                let ends = *symbol == '"' && !escaped;
                escaped = *symbol == '\\' && !escaped;
                ends
            });
            let (literal, after) = text.split_at(end.map_or(text.len(), |(end, _)| end));
            if literal.trim().contains(' ') {
                out.push_str(&without_names(literal));
            } else {
                out.extend(literal.chars().filter(|symbol| *symbol == '\n'));
            }
            rest = after.get(1..).unwrap_or_default();
        } else {
            rest = &tail[1..];
        }
    }
    out
}

/// A literal without the names in its placeholders, which no one reads.
fn without_names(literal: &str) -> String {
    let mut out = String::new();
    let mut rest = literal;
    while let Some((before, tail)) = rest.split_once('{') {
        let end = tail.find(|symbol: char| !symbol.is_alphanumeric() && symbol != '_').unwrap_or(tail.len());
        out.push_str(before);
        out.push('{');
        rest = &tail[end..];
    }
    out + rest
}

fn files(dir: &Path, end: &str, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            files(&path, end, out);
        } else if name.ends_with(end) && !name.contains("tests") && !name.contains("testing") {
            out.push(path);
        }
    }
}

#[test]
fn help_and_documents_use_plain_words() {
    fn walk(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        let help = command.clone().render_long_help().to_string();
        found.extend(faults(&format!("help of {path}"), &help));
        for verb in command.get_subcommands() {
            walk(verb, &format!("{path} {}", verb.get_name()), found);
        }
    }
    let mut found = vec![];
    walk(&claudemesh::cli::command(), "claudemesh", &mut found);
    let mut documents = vec![];
    files(&workspace().join("docs"), ".md", &mut documents);
    documents.extend(
        [
            "README.md",
            "ARCHITECTURE.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "deploy/plugin/README.md",
            "deploy/plugin/skills/claudemesh/SKILL.md",
        ]
        .map(|file| workspace().join(file)),
    );
    assert!(documents.len() > 15, "{}", documents.len());
    for path in documents {
        let text = std::fs::read_to_string(&path).unwrap();
        found.extend(faults(&path.display().to_string(), &prose(&text)));
    }
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
}

#[test]
fn printed_sentences_use_plain_words() {
    let mut sources = vec![];
    for folder in ["client/src", "broker/src", "protocol/src"] {
        files(&workspace().join(folder), ".rs", &mut sources);
    }
    assert!(sources.len() > 300, "{}", sources.len());
    let mut found = vec![];
    for path in sources {
        let text = std::fs::read_to_string(&path).unwrap();
        found.extend(faults(&path.display().to_string(), &sentences(&text)));
    }
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
}

/// What a model reads of a tool and its parameters stands in doc comments.
#[test]
fn descriptions_of_tools_use_plain_words() {
    let mut sources = vec![];
    files(&workspace().join("client/src/features"), "tools.rs", &mut sources);
    assert!(sources.len() > 10, "{}", sources.len());
    let mut found = vec![];
    for path in sources {
        let text = std::fs::read_to_string(&path).unwrap();
        let docs: String = text
            .lines()
            .map(|line| line.trim_start().strip_prefix("///").unwrap_or_default().to_owned() + "\n")
            .collect();
        found.extend(faults(&path.display().to_string(), &prose(&docs)));
    }
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
}

#[test]
fn the_checker_finds_what_it_should_and_leaves_code_alone() {
    assert_eq!(faults("x", "This is what Whoever reads.").len(), 1);
    assert!(faults("x", "whoever_is_next, recommend, no one").is_empty());
    assert_eq!(prose("a `whoever` b\n```\nnobody\n```\nc"), "a  b\n\n\n\nc\n");
    let source = "let a = \"nobody\"; // nobody at all\nfail(\"nobody is here\"); '\"' \"x y\"";
    assert_eq!(sentences(source), "\nnobody is herex y");
    assert_eq!(faults("x", &sentences(source)).len(), 1);
    let source = "format!(\"{verb} and {of:?} {{verb}} is `{}`\")";
    assert_eq!(sentences(source), "{} and {:?} {{}} is `{}`");
}
