//! The subjects under which help lists the commands.

use clap::Command;

use crate::wrap::wrapped;

/// Subject, and its commands in their order.
pub(super) const SUBJECTS: &[(&str, &[&str])] = &[
    ("Start", &["install", "launch", "doctor", "uninstall"]),
    ("Meshes", &["up", "down", "create", "join", "invite", "list", "use", "leave", "mesh", "info"]),
    (
        "Messages",
        &[
            "send",
            "inbox",
            "watch",
            "ask",
            "reply",
            "sent",
            "history",
            "export",
            "outbox",
            "msg-status",
            "inbound",
            "held",
            "notify",
        ],
    ),
    (
        "Peers and groups",
        &[
            "peers", "top", "whoami", "members", "rename", "group", "status", "summary", "profile", "visible", "stats",
            "ping",
        ],
    ),
    (
        "Shared",
        &[
            "state",
            "task",
            "stream",
            "remember",
            "recall",
            "forget",
            "memory",
            "context",
            "skill",
            "topic",
            "notification",
            "me",
            "clock",
            "remind",
            "schedule",
            "sql",
            "vault",
            "folder",
            "file",
        ],
    ),
    (
        "MCP servers of the mesh",
        &[
            "mcp-add",
            "mcp-remove",
            "mcp-list",
            "call",
            "mesh-mcp",
            "serve",
            "deploy",
            "update",
            "undeploy",
            "catalog",
            "scope",
        ],
    ),
    (
        "Who may do what: capabilities of members",
        &["permissions", "apikey", "kick", "disconnect", "ban", "unban", "bans", "audit"],
    ),
    ("Permission requests of Claude Code", &["approvers", "permit", "permission-log"]),
    ("This machine", &["config", "service", "logs"]),
    ("For shells and programs", &["mcp", "hook", "status-line", "completions", "man", "json-schema"]),
];

/// Where a command without a subject stands.
pub(super) const OTHERS: &str = "Other commands";

/// The commands of the program by subject, one line each.
pub(super) fn list(command: &Command, columns: usize) -> String {
    let width = command.get_subcommands().map(|verb| verb.get_name().len()).max().unwrap_or_default();
    let line = |verb: &Command| {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        // One line: the rest stands in the help of the command.
        let about = about.lines().next().unwrap_or_default().trim_end_matches('.');
        let line = format!("  {:<width$}  {about}", verb.get_name());
        wrapped(&line, columns, &" ".repeat(width + 4)) + "\n"
    };
    let mut text = String::new();
    for (subject, names) in SUBJECTS {
        text += &wrapped(&format!("{subject}:"), columns, "  ");
        text.push('\n');
        text.extend(names.iter().filter_map(|name| command.find_subcommand(name)).map(line));
        text.push('\n');
    }
    let listed = |verb: &&Command| SUBJECTS.iter().any(|(_, names)| names.contains(&verb.get_name()));
    let others: String = command.get_subcommands().filter(|verb| !listed(verb)).map(line).collect();
    if !others.is_empty() {
        text += &format!("{OTHERS}:\n{others}\n");
    }
    text.pop();
    text
}
