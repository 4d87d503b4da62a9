//! What install and uninstall change, as functions from text to text. No files here.

use serde_json::{Value, json};

use super::json_edit::{Document, EditError};
use super::json_scan::Kind;

/// Key of our entry in `mcpServers`. Channels are opted in by this name, so it must stay.
pub const SERVER: &str = "claudemesh";
/// The rule that lets Claude call all our tools.
pub const PERMISSION: &str = "mcp__claudemesh__*";
/// Hook events and the word our hook command takes for each.
pub const HOOKS: [(&str, &str); 4] = [
    ("SessionStart", "session-start"),
    ("UserPromptSubmit", "prompt"),
    ("Stop", "stop"),
    ("SessionEnd", "session-end"),
];

/// What became of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was not there.
    Added,
    /// It was there in another form.
    Updated,
    /// It was there as wanted.
    Unchanged,
    /// It was there and is gone.
    Removed,
    /// It was not there.
    Absent,
    /// It belongs to somebody else and was left alone.
    Foreign,
}

/// The `mcpServers.claudemesh` entry for a program.
pub fn server_entry(program: &str) -> Value {
    json!({"type": "stdio", "command": program, "args": ["mcp"]})
}

/// Adds our MCP server. An entry of ours that already starts this program with `mcp` stays as it is, further arguments
/// and variables included; one that starts another program is replaced only with `force`.
///
/// # Errors
/// [`EditError`]
pub fn add_server(doc: &mut Document, program: &str, force: bool) -> Result<Change, EditError> {
    doc.receipt.programs.insert(program.to_owned());
    let path = ["mcpServers"];
    let Some(old) = doc.find(&["mcpServers", SERVER]) else {
        doc.set(&path, SERVER, &server_entry(program))?;
        return Ok(Change::Added);
    };
    let entry = doc.value(&old);
    if entry["command"] == program && entry["args"][0] == "mcp" {
        return Ok(Change::Unchanged);
    }
    if !is_our_server(doc, &entry) && !force {
        return Ok(Change::Foreign);
    }
    doc.set(&path, SERVER, &server_entry(program))?;
    Ok(Change::Updated)
}

/// Removes every MCP server entry that is called `claudemesh`, `claudemesh:<slug>` or `mesh:<service>` and starts our
/// program. `Foreign` when one has our name but starts something else.
pub fn remove_servers(doc: &mut Document) -> Change {
    let mut change = Change::Absent;
    loop {
        let Some(servers) = doc.find(&["mcpServers"]) else { return change };
        let members = doc.members(&servers);
        let named = |key: &str| key == SERVER || key.starts_with("claudemesh:") || key.starts_with("mesh:");
        let ours =
            members.iter().rev().find(|member| named(&member.key) && is_our_server(doc, &doc.value(&member.value)));
        match ours {
            Some(member) => {
                let key = member.key.clone();
                doc.remove_key(&["mcpServers"], &key);
                change = Change::Removed;
            }
            None => {
                let foreign = members.iter().any(|member| member.key == SERVER);
                return if foreign && change == Change::Absent { Change::Foreign } else { change };
            }
        }
    }
}

/// Allows our tools.
///
/// # Errors
/// [`EditError`]
pub fn add_permission(doc: &mut Document) -> Result<Change, EditError> {
    let path = ["permissions", "allow"];
    let known = doc.find(&path).is_some_and(|list| doc.items(&list).iter().any(|item| doc.value(item) == PERMISSION));
    if known {
        return Ok(Change::Unchanged);
    }
    doc.push(&path, &PERMISSION.into())?;
    Ok(Change::Added)
}

/// Removes our tools from `permissions.allow` and from `allowedTools`, where older versions put them. Answers how many.
pub fn remove_permissions(doc: &mut Document) -> usize {
    let mut removed = 0;
    for path in [&["permissions", "allow"][..], &["allowedTools"]] {
        while let Some(list) = doc.find(path) {
            let ours = |item| doc.value(item).as_str().is_some_and(|rule| rule.starts_with("mcp__claudemesh__"));
            let Some(index) = doc.items(&list).iter().rposition(ours) else { break };
            doc.remove_item(path, index);
            removed += 1;
        }
    }
    removed
}

/// Adds a command hook per event of [`HOOKS`]. An older or moved command of ours is brought up to date in its place.
///
/// # Errors
/// [`EditError`]
pub fn add_hooks(doc: &mut Document, program: &str) -> Result<Change, EditError> {
    doc.receipt.programs.insert(program.to_owned());
    let mut change = Change::Unchanged;
    for (event, word) in HOOKS {
        let command = format!("{} hook {word}", quote(program));
        match our_hook(doc, event) {
            Some((_, _, span)) if doc.value(&span) == command.as_str() => {}
            Some((_, _, span)) => {
                doc.replace(&span, &command.into());
                if change == Change::Unchanged {
                    change = Change::Updated;
                }
            }
            None => {
                let entry = json!({"hooks": [{"type": "command", "command": command}]});
                doc.push(&["hooks", event], &entry)?;
                change = Change::Added;
            }
        }
    }
    Ok(change)
}

/// Removes our command hooks from all events; a matcher group goes when nothing else is in it. Answers how many.
pub fn remove_hooks(doc: &mut Document) -> usize {
    let mut removed = 0;
    let Some(hooks) = doc.find(&["hooks"]) else { return 0 };
    let events: Vec<String> = doc.members(&hooks).into_iter().map(|member| member.key).collect();
    for event in events {
        while let Some((group, index, _)) = our_hook(doc, &event) {
            let path = ["hooks", event.as_str()];
            let Some(groups) = doc.find(&path) else { break };
            let Some(list) = handlers_of(doc, &doc.items(&groups)[group]) else { break };
            if doc.items(&list).len() == 1 {
                doc.remove_item(&path, group);
            } else {
                doc.remove_item_at(&list, index);
            }
            removed += 1;
        }
    }
    removed
}

/// Which of our hooks are there: `(event, command)`.
pub fn installed_hooks(doc: &Document) -> Vec<(String, String)> {
    let found = HOOKS.iter().filter_map(|(event, _)| {
        let (_, _, span) = our_hook(doc, event)?;
        Some(((*event).to_owned(), doc.value(&span).as_str().unwrap_or_default().to_owned()))
    });
    found.collect()
}

/// Group index, index in the group and command string of the first hook of ours under an event.
fn our_hook(doc: &Document, event: &str) -> Option<(usize, usize, super::json_scan::Span)> {
    let groups = doc.find(&["hooks", event])?;
    for (group_index, group) in doc.items(&groups).iter().enumerate() {
        let Some(list) = handlers_of(doc, group) else { continue };
        for (index, handler) in doc.items(&list).iter().enumerate() {
            let members = doc.members(handler);
            let Some(command) = members.iter().rev().find(|member| member.key == "command") else { continue };
            if doc.value(&command.value).as_str().is_some_and(|command| is_our_hook_command(doc, command)) {
                return Some((group_index, index, command.value.clone()));
            }
        }
    }
    None
}

fn handlers_of(doc: &Document, group: &super::json_scan::Span) -> Option<super::json_scan::Span> {
    let member = doc.members(group).into_iter().rev().find(|member| member.key == "hooks")?;
    (super::json_scan::kind(doc.text(), &member.value) == Kind::Array).then_some(member.value)
}

/// Whether an MCP entry starts our program: the file name of its command decides, or that we wrote this very command.
pub fn is_our_server(doc: &Document, entry: &Value) -> bool {
    entry["command"].as_str().is_some_and(|command| is_our_program(doc, command))
}

fn is_our_program(doc: &Document, command: &str) -> bool {
    let name = command.rsplit(['/', '\\']).next().unwrap_or(command);
    matches!(name, "claudemesh" | "claudemesh.exe") || doc.receipt.programs.contains(command)
}

/// Whether a hook command is exactly a call of ours: `<path>claudemesh hook <word>`. A longer line that only mentions us
/// belongs to the user.
fn is_our_hook_command(doc: &Document, command: &str) -> bool {
    let words = split_words(command);
    match words.as_deref() {
        Some([program, hook, _word]) => is_our_program(doc, program) && hook == "hook",
        _ => false,
    }
}

/// Words of a shell line without any shell magic; `None` when there is some.
fn split_words(line: &str) -> Option<Vec<String>> {
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        end if end == c => break,
                        '$' | '`' | '\\' if c == '"' => return None,
                        inner => word.push(inner),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            '$' | '`' | ';' | '|' | '&' | '<' | '>' | '(' | ')' | '\n' | '#' | '*' | '?' => return None,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// A path as one word of a POSIX shell line.
pub fn quote(program: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+' | ':' | '@' | ',');
    if !program.is_empty() && program.chars().all(plain) {
        program.to_owned()
    } else {
        format!("'{}'", program.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
#[path = "edits_tests.rs"]
mod tests;
