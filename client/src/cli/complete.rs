//! What the shell offers where a name or an id is expected: from local files, within a few milliseconds.
//!
//! `claudemesh __complete KIND` prints one candidate a line; the scripts of `completions` call it.

use std::collections::BTreeSet;

use crate::config::ConfigStore;
use crate::inbox::Inbox;
use crate::output::clean;

/// The word that asks for candidates.
pub const WORD: &str = "__complete";
/// Ids that are offered of each mesh.
const MAX_IDS: i64 = 20;

/// What may stand at a place of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Meshes,
    Peers,
    Groups,
    Messages,
    Questions,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Meshes, Self::Peers, Self::Groups, Self::Messages, Self::Questions];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Meshes => "meshes",
            Self::Peers => "peers",
            Self::Groups => "groups",
            Self::Messages => "messages",
            Self::Questions => "questions",
        }
    }
}

/// Commands whose first words are names or ids, with what they are. `--mesh` takes a mesh everywhere.
pub(super) const FIRST_WORDS: &[(&[&str], Kind)] = &[
    (&["send"], Kind::Peers),
    (&["ask"], Kind::Peers),
    (&["kick"], Kind::Peers),
    (&["disconnect"], Kind::Peers),
    (&["ban"], Kind::Peers),
    (&["permissions"], Kind::Peers),
    (&["group", "join"], Kind::Groups),
    (&["group", "leave"], Kind::Groups),
    (&["leave"], Kind::Meshes),
    (&["launch"], Kind::Meshes),
    (&["reply"], Kind::Questions),
    (&["msg-status"], Kind::Messages),
    (&["history"], Kind::Peers),
];

/// The candidates of a kind, one a line.
pub fn lines(store: &ConfigStore, kind: &str) -> String {
    let Some(kind) = Kind::ALL.into_iter().find(|known| known.as_str() == kind) else { return String::new() };
    candidates(store, kind).into_iter().map(|word| word + "\n").collect()
}

fn candidates(store: &ConfigStore, kind: Kind) -> BTreeSet<String> {
    let meshes = store.load().map(|config| config.meshes).unwrap_or_default();
    let mut words = BTreeSet::new();
    let names = store.known_names();
    let now = crate::clock::now_ms();
    for mesh in &meshes {
        let known = names.get(mesh.mesh_id.as_str()).cloned().unwrap_or_default();
        let inbox = || Inbox::open(store.dir(), &mesh.mesh_id).ok();
        match kind {
            Kind::Meshes => words.extend([mesh.slug.clone()]),
            Kind::Groups => words.extend(known.groups.iter().map(|group| format!("@{group}"))),
            Kind::Peers => {
                words.extend(known.peers);
                words.extend(known.groups.iter().map(|group| format!("@{group}")));
            }
            Kind::Messages => {
                let list =
                    inbox().and_then(|mut inbox| inbox.person().everything(MAX_IDS, now).ok()).unwrap_or_default();
                words.extend(list.into_iter().map(|one| one.message.message_id));
            }
            Kind::Questions => {
                let list = inbox().and_then(|mut inbox| inbox.person().questions(false, now).ok()).unwrap_or_default();
                words.extend(list.into_iter().map(|question| question.message.message_id));
            }
        }
    }
    // A name with a blank or a quote would fall apart in the shell.
    words.retain(|word| {
        let plain = |symbol: char| symbol.is_alphanumeric() || "@._/-".contains(symbol);
        !word.is_empty() && clean(word) == word.as_str() && word.chars().all(plain)
    });
    words
}

/// The script of clap, with the names and ids that it does not know.
pub(super) fn dynamic(shell: super::shell_files::Shell, script: String) -> String {
    use super::shell_files::Shell;
    match shell {
        Shell::Bash => bash(&script),
        Shell::Zsh => zsh(script),
        Shell::Fish => fish(script),
        Shell::Elvish | Shell::Powershell => script,
    }
}

fn call(kind: Kind) -> String {
    format!("$(claudemesh {WORD} {} 2>/dev/null)", kind.as_str())
}

fn bash(script: &str) -> String {
    let mut text = String::with_capacity(script.len() + 4_096);
    let (mut of_mesh, mut kind) = (false, None);
    for line in script.lines() {
        let trimmed = line.trim();
        if let Some(case) = trimmed.strip_prefix("claudemesh__").and_then(|rest| rest.strip_suffix(')')) {
            let words: Vec<&str> =
                case.trim_start_matches("subcmd__").split("__").filter(|word| *word != "subcmd").collect();
            kind = FIRST_WORDS.iter().find(|(path, _)| path.join(" ") == words.join(" ")).map(|(_, kind)| *kind);
        }
        if trimmed == "--mesh)" {
            of_mesh = true;
        } else if trimmed.ends_with(')') && !trimmed.contains("compgen") {
            of_mesh = false;
        }
        if of_mesh && trimmed.contains("compgen -f") {
            text += &line
                .replace("compgen -f \"${cur}\"", &format!("compgen -W \"{}\" -- \"${{cur}}\"", call(Kind::Meshes)));
        } else if let (Some(found), Some(end)) =
            (kind, line.strip_suffix('"').filter(|_| trimmed.starts_with("opts=\"")))
        {
            text += &format!("{end} {}\"", call(found));
            kind = None;
        } else {
            text += line;
        }
        text.push('\n');
    }
    text
}

fn zsh(script: String) -> String {
    let mut text = script;
    text = text
        .replace(":MESH:_default", ":MESH:_claudemesh_meshes")
        .replace(":SLUG:_default", ":SLUG:_claudemesh_meshes");
    let mut functions = String::new();
    for kind in Kind::ALL {
        functions += &format!(
            "(( $+functions[_claudemesh_{0}] )) ||\n_claudemesh_{0}() {{\n    local -a words\n    words=(${{(f)\"{1}\"}})\n    \
             _describe -t {0} '{0}' words\n}}\n\n",
            kind.as_str(),
            call(kind)
        );
    }
    for (path, kind) in FIRST_WORDS {
        text = zsh_words(&text, path, *kind);
    }
    match text.find("if [ \"$funcstack[1]\" = ") {
        Some(at) => format!("{}{functions}{}", &text[..at], &text[at..]),
        None => text + &functions,
    }
}

/// Replaces how the first free word of one command is completed: it follows `(send)` of that command.
fn zsh_words(text: &str, path: &[&str], kind: Kind) -> String {
    let mut from = 0;
    for word in path {
        let Some(at) = text[from..].find(&format!("\n({word})\n")) else { return text.to_owned() };
        from += at + word.len() + 3;
    }
    let end = text[from..].find("\n;;").map_or(text.len(), |end| from + end);
    let block = &text[from..end];
    let free = |line: &&str| line.starts_with("'::") || line.starts_with("':") || line.starts_with("'*::");
    let Some(line) = block.lines().find(free) else { return text.to_owned() };
    let replaced = line.replace(":_default'", &format!(":_claudemesh_{}'", kind.as_str()));
    format!("{}{}{}", &text[..from], block.replacen(line, &replaced, 1), &text[end..])
}

fn fish(script: String) -> String {
    let mut text = script;
    text += &format!(
        "complete -c claudemesh -l mesh -x -a \"({})\"\n",
        call(Kind::Meshes).trim_start_matches("$(").trim_end_matches(')')
    );
    for (path, kind) in FIRST_WORDS {
        let seen: Vec<String> = path.iter().map(|word| format!("__fish_seen_subcommand_from {word}")).collect();
        let asks = call(*kind);
        let asks = asks.trim_start_matches("$(").trim_end_matches(')');
        text += &format!("complete -c claudemesh -n \"{}\" -f -a \"({asks})\"\n", seen.join("; and "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_the_table_exists() {
        for (path, _) in FIRST_WORDS {
            let mut at = super::super::command();
            for word in *path {
                at = at.find_subcommand(word).unwrap_or_else(|| panic!("{path:?}")).clone();
            }
        }
    }

    #[test]
    fn only_words_that_a_shell_takes_as_one_are_offered() {
        let dir = tempfile::tempdir().unwrap();
        let store = ConfigStore::at(dir.path());
        assert_eq!(lines(&store, "meshes") + &lines(&store, "bogus"), "", "no config yet");
    }
}
