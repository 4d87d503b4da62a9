//! `whoami`, `members`, `rename`.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::groups::Group;
use claudemesh_protocol::features::members::{MemberRow, OwnSession, WhoamiResult};
use claudemesh_protocol::id::PublicKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::clock::shown;
use crate::config::MeshEntry;
use crate::connection::{Connection, ConnectionError};
use crate::context::Context;
use crate::context::confirm::yes_or_no;
use crate::context::connect::{ask, own_session};
use crate::context::several::each;
use crate::error::{CliError, ExitCode};
use crate::features::enrolment::chosen_name;
use crate::output::{Output, Style, clean};
use crate::verb::Shape;
use crate::verb::{Audience, Effect, Ran, Verb, done, json_fields, verbs};

/// Show who you are in each mesh: member, role, key, and the session that this runs in.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh whoami\n  claudemesh whoami --json=mesh,name,session")]
pub struct WhoamiArgs {}

/// Who one is in one mesh, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Who {
    mesh: String,
    /// Name of the member.
    name: String,
    member_id: String,
    pubkey: PublicKey,
    /// What it is in the mesh: `owner`, `admin` or `member`.
    role: String,
    /// Free text about what it does.
    title: Option<String>,
    /// Groups that the member itself is in.
    groups: Vec<Group>,
    /// The mesh belongs to it, so it makes invites.
    owns_mesh: bool,
    /// The session that this runs in; `null` in another shell.
    session: Option<OwnSession>,
    broker_url: String,
}

impl Verb for WhoamiArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Who>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<Who>()]
    }

    fn run(self, cx: &Context) -> Ran {
        let (found, exit) = each(cx, |entry| {
            let found = ask(cx, entry, |connection| async move { Ok(connection.whoami().await?) });
            Ok(who(entry, found.map_err(|error| older(error, "whoami"))?))
        })?;
        let rows: Vec<&Who> = found.iter().map(|(_, row)| row).collect();
        cx.out.answer(&rows, |out| rows.iter().map(|row| who_text(row, out)).collect())?;
        Ok(exit.into())
    }
}

fn who(entry: &MeshEntry, found: WhoamiResult) -> Who {
    Who {
        mesh: entry.slug.clone(),
        name: found.name,
        member_id: found.member_id.to_string(),
        pubkey: found.pubkey,
        owns_mesh: found.role == "owner",
        role: found.role,
        title: found.title,
        groups: found.groups,
        session: found.session,
        broker_url: entry.broker_url.clone(),
    }
}

fn who_text(who: &Who, out: &Output) -> String {
    let mut text = format!("{}: {}", clean(&who.mesh), out.paint(Style::Bold, &clean(&who.name)));
    text += &format!(" {}", clean(&who.role));
    text.extend(who.title.as_ref().map(|title| format!(" \"{}\"", clean(title))));
    text += &format!("{}\n", groups_text(&who.groups));
    match &who.session {
        Some(session) => {
            let host = session.hostname.as_deref().map(|host| format!("{host}:")).unwrap_or_default();
            let place = clean(&format!("{host}{}", session.cwd)).into_owned();
            let hidden = if session.visible { "" } else { " [hidden]" };
            let groups = groups_text(&session.groups);
            text += &format!("  this session: {}{hidden}{groups}  {place}\n", clean(&session.address));
        }
        None => text += "  no session: this is a shell, and others reach the member\n",
    }
    text + &format!("  key {}  {}\n", who.pubkey, clean(&who.broker_url))
}

/// ` [@dev as lead, @qa]`
fn groups_text(groups: &[Group]) -> String {
    let one = |group: &Group| match &group.role {
        Some(role) => format!("@{} as {}", clean(&group.name), clean(role)),
        None => format!("@{}", clean(&group.name)),
    };
    let all: Vec<String> = groups.iter().map(one).collect();
    if all.is_empty() { String::new() } else { format!(" [{}]", all.join(", ")) }
}

/// A broker of before does not know the request.
fn older(error: CliError, verb: &str) -> CliError {
    if error.code != ErrorCode::UnknownType.as_str() {
        return error;
    }
    let message = format!("The broker of this mesh is older than `claudemesh {verb}`.");
    CliError::new(ExitCode::Network, error.code, message).hint("Its operator can upgrade it.")
}

/// List the members of the mesh, change their roles, remove them, or make another one the owner.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh members\n  claudemesh members role Bob admin\n  claudemesh members remove Bob\n  \
                  claudemesh members transfer Bob --yes"
)]
pub struct MembersArgs {
    /// What to do; without it the members are listed.
    #[command(subcommand)]
    action: Option<MembersAction>,
}

verbs! {
    /// What `members` does.
    pub enum MembersAction {
        Role => RoleArgs,
        Remove => RemoveArgs,
        Transfer => TransferArgs,
    }
}

/// A member of one mesh, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct MeshMember {
    mesh: String,
    #[serde(flatten)]
    member: MemberRow,
}

impl Verb for MembersArgs {
    fn effect(&self) -> Effect {
        self.action.as_ref().map_or(Effect::Reads, Verb::effect)
    }

    fn fields(&self) -> Vec<&'static str> {
        match &self.action {
            Some(action) => action.fields(),
            None => json_fields::joined([vec!["mesh"], json_fields::of::<MemberRow>()]),
        }
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<MeshMember>()].into_iter().chain(MembersAction::shapes()).collect()
    }

    fn run(self, cx: &Context) -> Ran {
        match self.action {
            Some(action) => action.run(cx),
            None => list(cx).map(Into::into),
        }
    }
}

/// The members of each mesh, in joining order.
fn list(cx: &Context) -> Result<ExitCode, CliError> {
    let (meshes, exit) = each(cx, |entry| {
        let members = ask(cx, entry, |connection| async move { Ok(connection.list_members().await?) });
        let members = members.map_err(|error| older(error, "members"))?;
        let row = |member| MeshMember { mesh: entry.slug.clone(), member };
        Ok(members.into_iter().map(row).collect::<Vec<MeshMember>>())
    })?;
    let rows: Vec<&MeshMember> = meshes.iter().flat_map(|(_, rows)| rows).collect();
    cx.out.answer(&rows, |out| {
        let mut text = String::new();
        for (entry, members) in &meshes {
            let head = format!("{} ({})", clean(&entry.slug), members.len());
            text += &format!("{}\n", out.paint(Style::Bold, &head));
            text.extend(members.iter().map(|row| member_text(&row.member, &entry.pubkey, out)));
        }
        text
    })?;
    Ok(exit)
}

fn member_text(member: &MemberRow, own: &str, out: &Output) -> String {
    let (style, dot) = if member.online { (Style::Green, "●") } else { (Style::Dim, "○") };
    let mut text =
        format!("  {} {} {}", out.paint(style, dot), out.paint(Style::Bold, &clean(&member.name)), clean(&member.role));
    if member.pubkey.to_hex() == own {
        text.push_str(" (you)");
    }
    text.extend(member.title.as_ref().map(|title| format!(" \"{}\"", clean(title))));
    text += &groups_text(&member.groups);
    let list = |names: &[String]| names.iter().map(|name| clean(name).into_owned()).collect::<Vec<_>>().join(", ");
    if !member.looks_like.is_empty() {
        let note = format!(" (looks like {})", list(&member.looks_like));
        text += &out.paint(Style::Yellow, &note);
    }
    let key: String = member.pubkey.to_hex().chars().take(12).collect();
    let there = match (member.online, member.sessions, &member.last_seen_at) {
        (true, 1, _) => "1 session".to_owned(),
        (true, count, _) => format!("{count} sessions"),
        (false, _, Some(at)) => format!("last seen {}", shown(at)),
        (false, _, None) => "not seen yet".to_owned(),
    };
    let mut second = format!("{key}  {there}");
    if !member.former_names.is_empty() {
        second += &format!("  formerly {}", list(&member.former_names));
    }
    text + &format!("\n    {}\n", out.paint(Style::Dim, &second))
}

/// A role that the owner gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum GivenRole {
    /// Moderates, renames and removes members.
    Admin,
    /// Sends, receives and edits itself.
    Member,
}

/// Make a member an admin, or an admin a member. For the owner.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh members role Bob admin\n  claudemesh members role Bob member")]
pub struct RoleArgs {
    /// Name, key, or at least 8 digits of the key.
    member: String,
    /// `admin` or `member`.
    #[arg(value_enum)]
    role: GivenRole,
}

/// The member that was changed, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Changed {
    mesh: String,
    name: String,
    member_id: String,
    pubkey: PublicKey,
    /// The role it has now; `null` when it was removed.
    role: Option<String>,
}

impl Verb for RoleArgs {
    const AUDIENCE: Audience = Audience::PeopleOnly;

    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Changed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Changed>()]
    }

    /// Exit 7 for others than the owner, 5 for an unknown member.
    fn run(self, cx: &Context) -> Ran {
        let role = if self.role == GivenRole::Admin { "admin" } else { "member" };
        let set = |connection: Connection| async move { connection.set_member_role(&self.member, role).await };
        change(cx, set, |name| format!("{name} is {role} now")).map(done)
    }
}

/// Remove a member from the mesh. Its key may join again with an invite; `ban` keeps it out.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh members remove Bob")]
pub struct RemoveArgs {
    /// Name, key, or at least 8 digits of the key.
    member: String,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

impl Verb for RemoveArgs {
    const AUDIENCE: Audience = Audience::PeopleOnly;

    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Changed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Changed>()]
    }

    /// Exit 1 when the answer is no, 7 without the right, 5 for an unknown member.
    fn run(self, cx: &Context) -> Ran {
        agree(self.yes, &format!("Remove {} from the mesh?", clean(&self.member)))?;
        let remove = |connection: Connection| async move { connection.remove_member(&self.member).await };
        change(cx, remove, |name| format!("{name} is no member any more")).map(done)
    }
}

/// Make another member the owner of the mesh; you become an admin. Invites that you made end.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh members transfer Bob --yes")]
pub struct TransferArgs {
    /// Name, key, or at least 8 digits of the key.
    member: String,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

impl Verb for TransferArgs {
    const AUDIENCE: Audience = Audience::PeopleOnly;

    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Changed>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Changed>()]
    }

    /// Exit 1 when the answer is no, 7 for others than the owner, 5 for an unknown member.
    fn run(self, cx: &Context) -> Ran {
        let question = format!("Make {} the owner? Only they can give the mesh back.", clean(&self.member));
        agree(self.yes, &question)?;
        let entry = cx.mesh_entry()?;
        let transfer = |connection: Connection| async move { connection.transfer_mesh(&self.member).await };
        change(cx, transfer, |name| format!("{name} is the owner now, and you are an admin"))?;
        // Its word counts no more.
        cx.store.remove_owner(&entry.mesh_id)?;
        Ok(done(()))
    }
}

/// Asks for a yes where someone can give it.
fn agree(yes: bool, question: &str) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(CliError::invalid_args("No one can be asked here.").hint("`--yes` does it without a question."));
    }
    let answer = yes_or_no(question, false);
    if answer.unwrap_or(false) { Ok(()) } else { Err(CliError::cancelled("Nothing was changed.")) }
}

fn change<F>(
    cx: &Context,
    request: impl FnOnce(Connection) -> F,
    words: impl Fn(&str) -> String,
) -> Result<(), CliError>
where
    F: Future<Output = Result<claudemesh_protocol::features::members::MemberChanged, ConnectionError>>,
{
    let entry = cx.mesh_entry()?;
    let found = ask(cx, &entry, |connection| async { Ok(request(connection).await?) });
    let found = found.map_err(|error| older(error, "members"))?;
    let changed = Changed {
        mesh: entry.slug,
        name: found.name,
        member_id: found.member_id.to_string(),
        pubkey: found.pubkey,
        role: found.role,
    };
    cx.out.answer(&changed, |out| format!("{} {}\n", out.tick(), words(&clean(&changed.name))))
}

verbs! {
    /// Change the name of your member or of a session. The old name works for 24 more hours.
    #[command(
        after_help = "Examples:\n  claudemesh rename member Anne\n  claudemesh rename session api\n  \
                      claudemesh rename member Bobby --who Bob"
    )]
    pub struct RenameArgs: enum RenameAction {
        Member => RenameMemberArgs,
        Session => RenameSessionArgs,
    }
}

/// Give your member another name.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh rename member Anne\n  claudemesh rename member Bobby --who Bob")]
pub struct RenameMemberArgs {
    /// The new name: what others write to.
    name: String,
    /// Another member, by name or key. For admins.
    #[arg(long, value_name = "MEMBER")]
    who: Option<String>,
}

/// Give a session another name.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh rename session api\n  claudemesh rename session api --session 5f0c9f0e"
)]
pub struct RenameSessionArgs {
    /// The new name. Others write to it as `<member>/<name>`.
    name: String,
    /// Session to rename, by its id [default: the one this runs in, else your only one]
    #[arg(long, value_name = "ID")]
    session: Option<String>,
}

/// What was renamed, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct NewName {
    mesh: String,
    /// `member` or `session`.
    kind: String,
    name: String,
    former_name: String,
    /// What one writes to reach it now.
    address: String,
    pubkey: PublicKey,
    /// Other members whose names look like the new one.
    looks_like: Vec<String>,
}

impl Verb for RenameMemberArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<NewName>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<NewName>()]
    }

    /// In the one mesh that is meant. Exit 3 for a bad name, 7 without the right, 5 for an unknown member.
    fn run(self, cx: &Context) -> Ran {
        let name = chosen_name(&self.name)?;
        let rename = |connection: Connection| async move { connection.rename_member(&name, self.who.as_deref()).await };
        renamed(cx, &cx.mesh_entry()?, rename).map(done)
    }
}

impl Verb for RenameSessionArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<NewName>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<NewName>()]
    }

    /// In the one mesh that is meant. Exit 3 for a bad name or when several sessions may be meant, 5 when there is none.
    fn run(self, cx: &Context) -> Ran {
        let name = chosen_name(&self.name)?;
        let entry = cx.mesh_entry()?;
        let session = match self.session.or_else(|| own_session(cx)) {
            Some(session) => session,
            None => only_session(cx, &entry)?,
        };
        let rename = |connection: Connection| async move { connection.rename_session(&name, Some(&session)).await };
        renamed(cx, &entry, rename).map(done)
    }
}

/// The id of the only session that our member has in a mesh.
fn only_session(cx: &Context, entry: &MeshEntry) -> Result<String, CliError> {
    let peers = ask(cx, entry, |connection| async move { Ok(connection.list_peers().await?) })?;
    let own: Vec<_> = peers
        .iter()
        .filter(|peer| peer.online && peer.member_pubkey.to_hex() == entry.pubkey && peer.pubkey != peer.member_pubkey)
        .collect();
    match own.as_slice() {
        [only] => Ok(only.session_id.clone()),
        [] => Err(CliError::not_found("No session of yours is connected.")
            .hint("`claudemesh launch` starts one; `claudemesh rename member` renames you.")),
        several => {
            let ids = several.iter().map(|peer| format!("{} {}", clean(&peer.session_id), clean(&peer.address())));
            let ids: Vec<String> = ids.collect();
            Err(CliError::invalid_args("Several of your sessions are connected.")
                .hint(format!("Name one with --session: {}.", ids.join(", "))))
        }
    }
}

fn renamed<F>(cx: &Context, entry: &MeshEntry, request: impl FnOnce(Connection) -> F) -> Result<(), CliError>
where
    F: Future<Output = Result<claudemesh_protocol::features::members::Renamed, ConnectionError>>,
{
    let found = ask(cx, entry, |connection| async { Ok(request(connection).await?) });
    let found = found.map_err(|error| older(error, "rename"))?;
    let row = NewName {
        mesh: entry.slug.clone(),
        kind: found.kind,
        name: found.name,
        former_name: found.former_name,
        address: found.address,
        pubkey: found.pubkey,
        looks_like: found.looks_like,
    };
    if !row.looks_like.is_empty() {
        cx.out.warn(&format!("That looks like the name of another member: {}.", clean(&row.looks_like.join(", "))));
    }
    cx.out.answer(&row, |out| {
        let (before, now) = (clean(&row.former_name), clean(&row.address));
        format!("{} {before} is now called {now}; the old name works for 24 more hours\n", out.tick())
    })
}
