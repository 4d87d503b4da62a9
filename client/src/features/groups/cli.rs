//! `group join`, `group leave`, `group list`.

use std::collections::BTreeMap;

use clap::Args;
use claudemesh_protocol::features::presence::Peer;
use claudemesh_protocol::id::PublicKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::context::connect::{ask, target_session};
use crate::error::CliError;
use crate::features::presence::cli::args::SessionArg;
use crate::features::presence::cli::{Written, write, written};
use crate::output::{Output, Style, clean};
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields, verbs};

verbs! {
    /// Join, leave or list groups.
    #[command(
        after_help = "Examples:\n  claudemesh group join @frontend --role lead\n  claudemesh group leave @frontend\n  \
                            claudemesh group list"
    )]
    pub struct GroupArgs: enum GroupAction {
        Join => JoinArgs,
        Leave => LeaveArgs,
        List => ListArgs,
    }
}

/// Join a group, or change your role in it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh group join @frontend\n  claudemesh group join @qa/load --role lead")]
pub struct JoinArgs {
    /// Group, with or without `@`; `/` makes levels.
    group: String,
    /// Your role in it [default: the one you have there]; an empty one clears it.
    #[arg(long)]
    role: Option<String>,
    /// Which session.
    #[command(flatten)]
    session: SessionArg,
}

/// The group that was joined, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Joined {
    group: String,
    role: Option<String>,
}

impl Verb for JoinArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        written::<Joined>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Written<Joined>>()]
    }

    /// Exit 3 for a malformed name, 5 when no session of the member is connected.
    fn run(self, cx: &Context) -> Ran {
        let session = target_session(cx, self.session.session.as_deref());
        let name = self.group.trim_start_matches('@');
        let joined = Joined { group: name.to_owned(), role: self.role.clone() };
        write(cx, joined, &format!("joined @{}", clean(name)), |connection| {
            let (name, role, session) = (name.to_owned(), self.role.clone(), session.clone());
            async move { connection.join_group(&name, role.as_deref(), Some(&session)).await }
        })
        .map(done)
    }
}

/// Leave a group.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh group leave @frontend")]
pub struct LeaveArgs {
    /// Group, with or without `@`.
    group: String,
    /// Which session.
    #[command(flatten)]
    session: SessionArg,
}

/// The group that was left, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Left {
    group: String,
    left: bool,
}

impl Verb for LeaveArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        written::<Left>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Written<Left>>()]
    }

    /// Exit 5 when no session of the member is in the group.
    fn run(self, cx: &Context) -> Ran {
        let session = target_session(cx, self.session.session.as_deref());
        let name = self.group.trim_start_matches('@');
        let left = Left { group: name.to_owned(), left: true };
        let left = write(cx, left, &format!("left @{}", clean(name)), |connection| {
            let (name, session) = (name.to_owned(), session.clone());
            async move { connection.leave_group(&name, Some(&session)).await }
        });
        left.map(done).map_err(|error| match error.code.as_str() {
            "unchanged" => {
                let message = format!("No session of yours is in @{}, so there was nothing to leave.", clean(name));
                CliError::new(error.exit, "not_in_group", message)
                    .hint("`claudemesh group list` shows who is in which group.")
                    .field("group", name)
            }
            _ => error,
        })
    }
}

/// List the groups of the mesh with the sessions in them and their roles.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh group list\n  claudemesh group list --json")]
pub struct ListArgs {}

/// One group of one mesh, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Row {
    mesh: String,
    group: String,
    members: Vec<Member>,
}

/// One session in a group.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Member {
    name: String,
    role: Option<String>,
    pubkey: PublicKey,
    online: bool,
}

impl Verb for ListArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Row>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<Row>()]
    }

    /// The groups of each mesh, by name, with the sessions in them in the order in which they came.
    fn run(self, cx: &Context) -> Ran {
        let mut meshes = Vec::new();
        for entry in cx.mesh_entries()? {
            let peers = ask(cx, &entry, |connection| async move { Ok(connection.list_peers().await?) })?;
            crate::features::presence::cli::remember_names(cx, &entry, &peers);
            meshes.push((entry.slug.clone(), groups_of(&entry.slug, peers)));
        }
        let rows: Vec<&Row> = meshes.iter().flat_map(|(_, rows)| rows).collect();
        cx.out.answer(&rows, |out| meshes.iter().map(|(slug, rows)| groups_text(slug, rows, out)).collect()).map(done)
    }
}

fn groups_of(slug: &str, peers: Vec<Peer>) -> Vec<Row> {
    let mut groups: BTreeMap<String, Vec<Member>> = BTreeMap::new();
    for peer in peers {
        for group in peer.groups {
            let (name, pubkey, online) = (peer.display_name.clone(), peer.pubkey, peer.online);
            groups.entry(group.name).or_default().push(Member { name, role: group.role, pubkey, online });
        }
    }
    groups.into_iter().map(|(group, members)| Row { mesh: slug.to_owned(), group, members }).collect()
}

fn groups_text(slug: &str, rows: &[Row], out: &Output) -> String {
    let mut text = format!("{}\n", out.paint(Style::Bold, &format!("{} ({})", clean(slug), rows.len())));
    if rows.is_empty() {
        text += "  no session is in a group; `claudemesh group join @<name>` makes one\n";
    }
    for row in rows {
        let member = |member: &Member| {
            let mut words = clean(&member.name).into_owned();
            words.extend(member.role.as_ref().map(|role| format!(" ({})", clean(role))));
            words += if member.online { "" } else { " [away]" };
            words
        };
        let members: Vec<String> = row.members.iter().map(member).collect();
        text += &format!("  {}  {}\n", out.paint(Style::Cyan, &format!("@{}", clean(&row.group))), members.join(", "));
    }
    text
}
