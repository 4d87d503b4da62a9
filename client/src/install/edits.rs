//! What install and uninstall change, as functions from text to text. No files here.

use serde_json::{Value, json};

use super::json_edit::{Document, EditError};

/// Key of our entry in `mcpServers`. Channels are opted in by this name, so it must stay.
pub const SERVER: &str = "claudemesh";
/// The rule that lets Claude call all our tools.
pub const PERMISSION: &str = "mcp__claudemesh__*";

/// What became of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
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
    /// It belongs to someone else and was left alone.
    Foreign,
}

/// The MCP server entry for a program: of all joined meshes, or of one.
pub fn server_entry(program: &str, mesh: Option<&str>) -> Value {
    json!({"type": "stdio", "command": program, "args": server_args(mesh)})
}

/// Arguments that start our MCP server.
pub fn server_args(mesh: Option<&str>) -> Vec<&str> {
    mesh.map_or_else(|| vec!["mcp"], |slug| vec!["mcp", "--mesh", slug])
}

/// Key of the entry for one mesh. Claude Code takes letters, digits, hyphen and underscore only.
pub fn server_name(mesh: Option<&str>) -> String {
    let Some(slug) = mesh else { return SERVER.to_owned() };
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' };
    format!("{SERVER}-{}", slug.chars().map(plain).collect::<String>())
}

/// The rule that lets Claude call all tools of a server.
pub fn permission_rule(server: &str) -> String {
    format!("mcp__{server}__*")
}

/// Adds our MCP server, for all meshes or for one. An entry of ours that already starts this program with `mcp` stays as
/// it is, and one that starts a moved program gets the new path: further arguments and variables are kept. An entry that
/// starts another program, or serves another mesh, is replaced only with `force`.
///
/// # Errors
/// [`EditError`]
pub fn add_server(doc: &mut Document, program: &str, mesh: Option<&str>, force: bool) -> Result<Change, EditError> {
    doc.receipt.programs.insert(program.to_owned());
    let name = server_name(mesh);
    let Some(old) = doc.find(&["mcpServers", &name]) else {
        doc.set(&["mcpServers"], &name, &server_entry(program, mesh))?;
        return Ok(Change::Added);
    };
    let entry = doc.value(&old);
    let ours = is_our_server(doc, &entry);
    let serves = entry["args"][0] == "mcp" && mesh.is_none_or(|slug| entry["args"] == json!(["mcp", "--mesh", slug]));
    if ours && serves && entry["command"] == program {
        return Ok(Change::Unchanged);
    }
    // Under the plain name older versions of ours may stand with other arguments.
    if !force && !(ours && (serves || mesh.is_none())) {
        return Ok(Change::Foreign);
    }
    match doc.find(&["mcpServers", &name, "command"]) {
        Some(command) if ours && serves => doc.replace(&command, &program.into()),
        _ => doc.set(&["mcpServers"], &name, &server_entry(program, mesh))?,
    }
    Ok(Change::Updated)
}

/// Lets every entry of ours that serves one mesh start this program. Answers whether one had started another.
pub fn move_mesh_servers(doc: &mut Document, program: &str) -> bool {
    let mut moved = false;
    for (name, _) in mesh_servers(doc) {
        if let Some(command) = doc.find(&["mcpServers", &name, "command"])
            && doc.value(&command) != program
        {
            doc.replace(&command, &program.into());
            moved = true;
        }
    }
    moved
}

/// Entries of ours that serve one mesh: name and slug.
pub fn mesh_servers(doc: &Document) -> Vec<(String, String)> {
    let Some(servers) = doc.find(&["mcpServers"]) else { return vec![] };
    let one = |member: super::json_scan::Member| {
        let entry = doc.value(&member.value);
        let named = member.key.starts_with("claudemesh-") || member.key.starts_with("claudemesh:");
        let slug = entry["args"][2].as_str().filter(|_| entry["args"][0] == "mcp" && entry["args"][1] == "--mesh");
        (named && is_our_server(doc, &entry)).then_some((member.key, slug?.to_owned()))
    };
    doc.members(&servers).into_iter().filter_map(one).collect()
}

/// Removes every MCP server entry that is called `claudemesh`, `claudemesh-<slug>`, `claudemesh:<slug>` or
/// `mesh:<service>` and starts our program; answers their names. `Foreign` when one has our name but starts something else.
pub fn remove_servers(doc: &mut Document) -> (Change, Vec<String>) {
    let mut removed = vec![];
    let named = |key: &str| {
        key == SERVER || ["claudemesh-", "claudemesh:", "mesh:"].iter().any(|prefix| key.starts_with(prefix))
    };
    while let Some(servers) = doc.find(&["mcpServers"]) {
        let members = doc.members(&servers);
        let ours =
            |member: &&super::json_scan::Member| named(&member.key) && is_our_server(doc, &doc.value(&member.value));
        let Some(key) = members.iter().rev().find(ours).map(|member| member.key.clone()) else {
            let foreign = removed.is_empty() && members.iter().any(|member| member.key == SERVER);
            return (if foreign { Change::Foreign } else { gone(&removed) }, removed);
        };
        doc.remove_key(&["mcpServers"], &key);
        removed.push(key);
    }
    (gone(&removed), removed)
}

fn gone(removed: &[String]) -> Change {
    if removed.is_empty() { Change::Absent } else { Change::Removed }
}

/// Allows all tools of a server of ours.
///
/// # Errors
/// [`EditError`]
pub fn add_permission(doc: &mut Document, server: &str) -> Result<Change, EditError> {
    let (path, rule) = (["permissions", "allow"], permission_rule(server));
    let known = doc.find(&path).is_some_and(|list| doc.items(&list).iter().any(|item| doc.value(item) == *rule));
    if known {
        return Ok(Change::Unchanged);
    }
    doc.receipt.rules.insert(rule.clone());
    doc.push(&path, &rule.into())?;
    Ok(Change::Added)
}

/// Removes our tools, and those of the given servers, from `permissions.allow` and from `allowedTools`, where older
/// versions put them. Answers how many.
pub fn remove_permissions(doc: &mut Document, servers: &[String]) -> usize {
    let mut rules = std::mem::take(&mut doc.receipt.rules);
    rules.extend(servers.iter().map(|server| permission_rule(server)));
    let mut removed = 0;
    for path in [&["permissions", "allow"][..], &["allowedTools"]] {
        while let Some(list) = doc.find(path) {
            let ours = |item| {
                let rule = doc.value(item);
                rule.as_str().is_some_and(|rule| rule.starts_with("mcp__claudemesh__") || rules.contains(rule))
            };
            let Some(index) = doc.items(&list).iter().rposition(ours) else { break };
            doc.remove_item(path, index);
            removed += 1;
        }
    }
    removed
}

/// Whether an MCP entry starts our program: the file name of its command decides, or that we wrote this very command.
pub fn is_our_server(doc: &Document, entry: &Value) -> bool {
    entry["command"].as_str().is_some_and(|command| is_our_program(doc, command))
}

pub(super) fn is_our_program(doc: &Document, command: &str) -> bool {
    let name = command.rsplit(['/', '\\']).next().unwrap_or(command);
    matches!(name, "claudemesh" | "claudemesh.exe") || doc.receipt.programs.contains(command)
}

/// Words of a shell line without any shell magic; `None` when there is some.
pub(super) fn split_words(line: &str) -> Option<Vec<String>> {
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
