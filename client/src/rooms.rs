//! Which room may use which of the rooms of this crate, read from its sources. ARCHITECTURE.md says why.

use std::path::Path;

/// What a room may use. A room that is not here may use any.
const MAY_USE: &[(&str, &[&str])] = &[
    ("files", &[]),
    ("config", &["clock", "error", "files", "output", "paths", "values"]),
    ("inbox", &["clock", "config", "error", "files"]),
    ("connection", &["clock", "config", "error", "inbox", "ipc", "local", "output", "proxy"]),
    ("context", &["clock", "config", "connection", "error", "files", "inbox", "ipc", "local", "output", "paths"]),
    ("verb", &["context", "error"]),
];

/// What no one below may use.
const ON_TOP: &[(&str, &[&str])] = &[
    ("features", &["cli", "doctor", "hook", "install", "launch"]),
    ("ipc", &["cli", "doctor", "install", "launch", "mcp"]),
    ("local", &["cli", "doctor", "hook", "install", "launch", "mcp"]),
    ("mcp", &["cli", "doctor", "install", "launch"]),
    ("session", &["cli", "doctor", "install", "launch", "mcp"]),
];

/// The one that is known: the text of a permission message is made by the feature that reads it.
const KNOWN: &[(&str, &str)] = &[("inbox/row.rs", "features")];

/// Every source file below `src`: its path there, and its text without comments and without what is for tests only.
pub(crate) fn sources() -> Vec<(String, String)> {
    fn add(root: &Path, dir: &Path, all: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                add(root, &path, all);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                let text = std::fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
                if !name.ends_with("tests.rs") {
                    all.push((name, lines.join("\n")));
                }
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    add(&root, &root, &mut all);
    all.sort();
    all
}

/// The rooms that a text names as `crate::room` or in `crate::{room, …}`.
fn used(text: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for rest in text.split("crate::").skip(1) {
        let names = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default(),
            None => rest.split(|symbol: char| !symbol.is_alphanumeric() && symbol != '_').next().unwrap_or_default(),
        };
        let first = |name: &str| name.trim().split("::").next().unwrap_or_default().to_owned();
        rooms.extend(names.split(',').map(first).filter(|name| !name.is_empty()));
    }
    rooms
}

#[test]
fn rooms_use_only_what_is_below_them() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let room = file.split(['/', '.']).next().unwrap_or_default();
        let may = MAY_USE.iter().find(|(name, _)| *name == room).map(|(_, may)| *may);
        let may_not = ON_TOP.iter().find(|(name, _)| *name == room).map_or(&[][..], |(_, not)| *not);
        for other in used(&text) {
            let fits = other == room
                || may.is_none_or(|may| may.contains(&other.as_str())) && !may_not.contains(&other.as_str())
                || KNOWN.contains(&(file.as_str(), other.as_str()));
            if !fits {
                wrong.push(format!("{file} uses {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_used_is_found() {
    let text = "use crate::inbox::Mailbox;\nuse crate::{local, paths};\ncrate::session::run();\nuse super::config;";
    assert_eq!(used(text), ["inbox", "local", "paths", "session"]);
    let files = sources();
    for (file, other) in KNOWN {
        let of_file = files.iter().filter(|(name, _)| name == file);
        assert!(
            of_file.flat_map(|(_, text)| used(text)).any(|room| room == *other),
            "{file} does not use {other} any more"
        );
    }
    let names: Vec<String> = files.into_iter().map(|(name, _)| name).collect();
    for room in MAY_USE.iter().chain(ON_TOP).map(|(room, _)| room) {
        let there = |name: &String| name.starts_with(&format!("{room}/")) || *name == format!("{room}.rs");
        assert!(names.iter().any(there), "no room {room}");
    }
}
