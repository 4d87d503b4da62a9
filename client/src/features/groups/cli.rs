//! `group join`, `group leave`, `group list`.

use clap::Args;
use claudemesh_protocol::features::groups::{GroupChanged, GroupMember};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Who;
use crate::connection::{Connection, ConnectionError};
use crate::context::Context;
use crate::context::connect::{ask, own_session};
use crate::context::several::{Troubles, each};
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Style, clean};
use crate::verb::{Effect, Ran, Shape, Verb, json_fields, verbs};

verbs! {
    /// Join, leave or list groups.
    #[command(
        after_help = "Examples:\n  claudemesh group join @frontend --as lead\n  claudemesh group leave @frontend\n  \
                            claudemesh group list"
    )]
    pub struct GroupArgs: enum GroupAction {
        Join => JoinArgs,
        Leave => LeaveArgs,
        List => ListArgs,
    }
}

/// Who joins or leaves a group.
#[derive(Args, Clone, Debug, Default)]
pub struct WhoArg {
    /// You as a member: for good, with all your sessions, and messages wait while you are away [default outside of a session]
    #[arg(long, conflicts_with = "session")]
    member: bool,
    /// One session, for as long as it lasts [default: the one this runs in]; `*` means all of yours.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
}

impl WhoArg {
    /// The member, unless a session is named or this runs in one.
    fn who(&self, cx: &Context) -> Who {
        match self.session.clone().or_else(|| own_session(cx)) {
            Some(session) if !self.member => Who::Session(Some(session)),
            _ => Who::Member,
        }
    }
}

/// Join a group, or change as what you are in it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh group join @frontend\n  claudemesh group join @qa/load --as lead\n  \
                  claudemesh group join @frontend --session '*'")]
pub struct JoinArgs {
    /// Group, with or without `@`: letters, digits, `-`, `_`, `.`; `/` makes levels.
    group: String,
    /// As what: lead, observer, or any other word [default: what you are there]; an empty one clears it.
    #[arg(long = "as", value_name = "WORD", alias = "role")]
    part: Option<String>,
    /// Who joins.
    #[command(flatten)]
    who: WhoArg,
}

/// What joining or leaving changed, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Changed {
    group: String,
    /// As what it was joined; `null` when nothing was said, and after leaving.
    r#as: Option<String>,
    /// The member itself was changed, for good.
    member: bool,
    /// Sessions that were changed.
    sessions: u32,
    /// It was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<bool>,
}

impl Verb for JoinArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Changed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Changed>()]
    }

    /// Exit 3 for a malformed name, 5 when there is no such session.
    fn run(self, cx: &Context) -> Ran {
        let (name, who) = (self.group.trim().trim_start_matches('@'), self.who.who(cx));
        let join = |connection: Connection| {
            let (part, who) = (self.part.clone(), who.clone());
            async move {
                let who = supported(&connection, who)?;
                connection.join_group(name, part.as_deref(), &who).await
            }
        };
        let (changed, exit) = change(cx, join)?;
        print(cx, name, self.part.clone(), changed, "joined")?;
        Ok(exit.into())
    }
}

/// Leave a group.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh group leave @frontend\n  claudemesh group leave @frontend --session '*'"
)]
pub struct LeaveArgs {
    /// Group, with or without `@`.
    group: String,
    /// Who leaves.
    #[command(flatten)]
    who: WhoArg,
}

impl Verb for LeaveArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Changed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Changed>()]
    }

    /// Exit 5 when the member, or the session, is not in the group.
    fn run(self, cx: &Context) -> Ran {
        let (name, who) = (self.group.trim().trim_start_matches('@'), self.who.who(cx));
        let leave = |connection: Connection| {
            let who = who.clone();
            async move {
                let who = supported(&connection, who)?;
                connection.leave_group(name, &who).await
            }
        };
        let (changed, exit) = change(cx, leave)?;
        if changed == GroupChanged::default() {
            let (name, whose) =
                (clean(name), if who == Who::Member { "You are" } else { "No such session of yours is" });
            let other = if who == Who::Member { "--session '*'" } else { "--member" };
            let message = format!("{whose} not in @{name}, so there was nothing to leave.");
            return Err(CliError::new(ExitCode::NotFound, "not_in_group", message)
                .hint(format!("`claudemesh group list` shows who is in it, and whether as a member or with a session; see `{other}`."))
                .field("group", name));
        }
        print(cx, name, None, changed, "left")?;
        Ok(exit.into())
    }
}

/// A broker of before has sessions in groups only.
fn supported(connection: &Connection, who: Who) -> Result<Who, ConnectionError> {
    let known = who != Who::Member || connection.knows_members()?;
    Ok(if known { who } else { Who::Session(Some("*".into())) })
}

/// Changes groups in every mesh the call is about. Answers all that changed, and the exit code of meshes that did not answer.
fn change<F>(cx: &Context, request: impl Fn(Connection) -> F) -> Result<(GroupChanged, ExitCode), CliError>
where
    F: Future<Output = Result<Option<GroupChanged>, ConnectionError>>,
{
    let (mut all, mut silent, mut missing, mut present) = (GroupChanged::default(), None, None, false);
    let entries = cx.mesh_entries()?;
    let mut troubles = Troubles::of(entries.len());
    for entry in entries {
        let written = ask(cx, &entry, |connection| async {
            let of_session = connection.is_session();
            Ok((request(connection).await?, of_session))
        });
        match written {
            Ok((Some(one), _)) => {
                present = true;
                all.sessions += one.sessions;
                all.member |= one.member;
            }
            // An older broker confirms nothing. The session's own connection has changed the session all the same.
            Ok((None, true)) => (present, all.sessions) = (true, all.sessions + 1),
            Ok((None, false)) => silent = Some(entry.slug.clone()),
            // The session may be in another of the meshes.
            Err(error) if error.exit == ExitCode::NotFound => missing = Some(error),
            Err(error) => {
                troubles.sift::<()>(&entry, Err(error))?;
            }
        }
    }
    let exit = troubles.tell(cx)?;
    match (missing, silent) {
        (_, Some(slug)) if all == GroupChanged::default() => {
            let slug = clean(&slug);
            let message = format!(
                "The broker of {slug} is of an older kind: a shell cannot change a session there, so nothing has changed."
            );
            Err(CliError::new(ExitCode::Network, "not_supported", message)
                .hint("Run the command in the shell of the session, or let the session do it with its own tool."))
        }
        (Some(error), None) if !present => {
            Err(error.hint("Start a session with `claudemesh launch`, or join as a member: `--member`."))
        }
        _ => Ok((all, exit)),
    }
}

fn print(cx: &Context, name: &str, part: Option<String>, changed: GroupChanged, word: &str) -> Result<(), CliError> {
    let GroupChanged { sessions, member } = changed;
    let left = (word == "left").then_some(true);
    let value = Changed { group: name.to_owned(), r#as: part, member, sessions, left };
    cx.out.answer(&value, |out| {
        let part = value.r#as.as_deref().filter(|part| !part.is_empty());
        let part = part.map(|part| format!(", with the label {}", clean(part))).unwrap_or_default();
        let how = match (member, sessions) {
            (true, _) if word == "joined" => {
                format!(" as a member{part}: messages reach all your sessions, and wait while you are away")
            }
            (true, _) => " as a member".to_owned(),
            (false, 1) => format!(" with 1 session{part}, for as long as it lasts"),
            (false, count) => format!(" with {count} sessions{part}, for as long as they last"),
        };
        let how =
            if word == "joined" || member { how } else { format!(" with {sessions} session{}", plural(sessions)) };
        format!("{} {word} @{}{how}\n", out.tick(), clean(name))
    })
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// List the groups of the mesh with the members and sessions in them, and as what.
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

/// Who is in a group.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Member {
    /// `member`: for good. `session`: for its time.
    kind: String,
    /// What one writes to reach it.
    name: String,
    r#as: Option<String>,
    pubkey: String,
    online: bool,
    /// Messages wait for it while it is away.
    waits: bool,
}

impl From<GroupMember> for Member {
    fn from(member: GroupMember) -> Self {
        let GroupMember { kind, name, role, pubkey, online, waits, .. } = member;
        Self { kind, name, r#as: role, pubkey: pubkey.to_hex(), online, waits }
    }
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

    /// The groups of each mesh by name; in each the members before the sessions.
    fn run(self, cx: &Context) -> Ran {
        let (meshes, exit) = each(cx, |entry| {
            let groups = ask(cx, entry, |connection| async move { Ok(connection.list_groups().await?) })?;
            let row = |group: claudemesh_protocol::features::groups::GroupRow| Row {
                mesh: entry.slug.clone(),
                group: group.name,
                members: group.members.into_iter().map(Member::from).collect(),
            };
            Ok(groups.into_iter().map(row).collect::<Vec<Row>>())
        })?;
        let rows: Vec<&Row> = meshes.iter().flat_map(|(_, rows)| rows).collect();
        cx.out.answer(&rows, |out| meshes.iter().map(|(entry, rows)| groups_text(&entry.slug, rows, out)).collect())?;
        Ok(exit.into())
    }
}

fn groups_text(slug: &str, rows: &[Row], out: &Output) -> String {
    let mut text = format!("{}\n", out.paint(Style::Bold, &format!("{} ({})", clean(slug), rows.len())));
    if rows.is_empty() {
        text += "  no one is in a group; `claudemesh group join @<name>` makes one\n";
    }
    for row in rows {
        text += &format!("  {}\n", out.paint(Style::Cyan, &format!("@{}", clean(&row.group))));
        for member in &row.members {
            let part = member.r#as.as_ref().map(|part| format!(" as {}", clean(part))).unwrap_or_default();
            let kind = if member.kind == "member" { "member, for good" } else { "session, for its time" };
            let away = if member.online { "" } else { "; not connected now" };
            let kind = format!("({kind}{away})");
            text += &format!("    {}{part} {}\n", clean(&member.name), out.paint(Style::Dim, &kind));
        }
    }
    text
}
