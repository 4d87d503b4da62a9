//! `group join`, `group leave`, `group list`.

use std::collections::BTreeMap;

use claudemesh_protocol::features::presence::Peer;
use serde_json::{Value, json};

use crate::cli::args::{GroupAction, GroupArgs};
use crate::context::Context;
use crate::context::connect::{ask, target_session};
use crate::error::CliError;
use crate::features::presence::cli::write;
use crate::output::{Output, Style, clean};

/// Runs `group`.
///
/// # Errors
/// Exit 3 for a malformed name, 5 when no session of the member is connected or none is in the group to be left, or of the
/// connection.
pub fn run(cx: &Context, args: &GroupArgs) -> Result<(), CliError> {
    match &args.action {
        GroupAction::Join { group, role, session } => {
            let session = target_session(cx, session.session.as_deref());
            let name = group.trim_start_matches('@');
            let value = json!({"group": name, "role": role});
            write(cx, value, &format!("joined @{}", clean(name)), |connection| {
                let (name, role, session) = (name.to_owned(), role.clone(), session.clone());
                async move { connection.join_group(&name, role.as_deref(), Some(&session)).await }
            })
        }
        GroupAction::Leave { group, session } => {
            let session = target_session(cx, session.session.as_deref());
            let name = group.trim_start_matches('@');
            let left =
                write(cx, json!({"group": name, "left": true}), &format!("left @{}", clean(name)), |connection| {
                    let (name, session) = (name.to_owned(), session.clone());
                    async move { connection.leave_group(&name, Some(&session)).await }
                });
            left.map_err(|error| match error.code.as_str() {
                "unchanged" => {
                    let message = format!("No session of yours is in @{}, so there was nothing to leave.", clean(name));
                    CliError::new(error.exit, "not_in_group", message)
                        .hint("`claudemesh group list` shows who is in which group.")
                        .field("group", name)
                }
                _ => error,
            })
        }
        GroupAction::List {} => list(cx),
    }
}

/// Prints the groups of each mesh, by name, with the sessions in them in the order in which they came.
fn list(cx: &Context) -> Result<(), CliError> {
    let mut meshes = Vec::new();
    for entry in cx.mesh_entries()? {
        let peers = ask(cx, &entry, |connection| async move { Ok(connection.list_peers().await?) })?;
        meshes.push((entry.slug.clone(), groups_of(&peers)));
    }
    let rows = meshes.iter().flat_map(|(slug, groups)| {
        groups.iter().map(move |(group, members)| json!({"mesh": slug, "group": group, "members": members}))
    });
    cx.out.answer(&rows.collect(), |out| meshes.iter().map(|(slug, groups)| groups_text(slug, groups, out)).collect())
}

fn groups_of(peers: &[Peer]) -> BTreeMap<String, Vec<Value>> {
    let mut groups: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for peer in peers {
        for group in &peer.groups {
            groups.entry(group.name.clone()).or_default().push(json!({
                "name": peer.display_name, "role": group.role, "pubkey": peer.pubkey, "online": peer.online,
            }));
        }
    }
    groups
}

fn groups_text(slug: &str, groups: &BTreeMap<String, Vec<Value>>, out: &Output) -> String {
    let mut text = format!("{}\n", out.paint(Style::Bold, &format!("{} ({})", clean(slug), groups.len())));
    if groups.is_empty() {
        text += "  no session is in a group; `claudemesh group join @<name>` makes one\n";
    }
    for (group, members) in groups {
        let member = |member: &Value| {
            let mut words = clean(member["name"].as_str().unwrap_or("?")).into_owned();
            words.extend(member["role"].as_str().map(|role| format!(" ({})", clean(role))));
            words += if member["online"] == false { " [away]" } else { "" };
            words
        };
        let members: Vec<String> = members.iter().map(member).collect();
        text += &format!("  {}  {}\n", out.paint(Style::Cyan, &format!("@{}", clean(group))), members.join(", "));
    }
    text
}
