//! `create`, `invite`, `join`.

use claudemesh_protocol::features::enrolment::{InvitePreset, InviteView};
use claudemesh_protocol::id::{MemberId, MeshId, PublicKey};
use claudemesh_protocol::time::parse_iso;
use schemars::JsonSchema;
use serde::Serialize;

use super::{DEFAULT_BROKER, InviteWish, Inviter, MeshWish, Named, check_slug, chosen_name, is_exposed};
use crate::clock::shown;
use crate::config::MeshEntry;
use crate::context::Context;
use crate::context::connect::{self, ask, hostname};
use crate::error::{CliError, ExitCode};
use crate::features::templates::{self, Template};
use crate::local::store::Store;
use crate::local::{self, is_local};
use crate::output::{Style, clean};
use crate::values::{Groups, parse_duration, parse_groups};
use crate::verb::shape::{InMesh, in_mesh};
use crate::verb::{Effect, Ran, Shape, Verb, done};
use clap::Args;
use std::time::Duration;

/// Make a new mesh on a broker. The owner's key stays on this machine.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh create team --broker ws://127.0.0.1:7900/ws --name Ann\n  \
                        claudemesh create team --broker wss://mesh.example.org/ws --operator-token \"$TOKEN\"\n  \
                        claudemesh create team --template dev-team\n  claudemesh create --list-templates")]
pub struct CreateArgs {
    /// Short name: lower-case letters, digits and hyphens, 2 to 32 characters.
    #[arg(required_unless_present = "list_templates")]
    pub slug: Option<String>,
    /// Make the groups, shared keys and hint of a template, too: its name, or a TOML file of your own.
    #[arg(long, value_name = "NAME", conflicts_with = "list_templates")]
    pub template: Option<String>,
    /// List the templates; nothing is made.
    #[arg(long)]
    pub list_templates: bool,
    /// Broker to make it on [default: the broker of `up`]
    #[arg(long, value_name = "URL", env = "CLAUDEMESH_BROKER_URL")]
    pub broker: Option<String>,
    /// Your name in the mesh.
    #[arg(long)]
    pub name: Option<String>,
    /// Name of the mesh shown to people [default: the slug]
    #[arg(long = "display-name", alias = "title", value_name = "TEXT")]
    pub title: Option<String>,
    /// Token of the broker's operator; needed unless the broker listens on this machine only.
    #[arg(long, value_name = "TOKEN", env = "CLAUDEMESH_OPERATOR_TOKEN", hide_env_values = true)]
    pub operator_token: Option<String>,
}

impl Verb for CreateArgs {
    fn effect(&self) -> Effect {
        if self.list_templates { Effect::Reads } else { Effect::Changes }
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Created>(), Shape::list::<Template>().of("--list-templates")]
    }

    fn run(self, cx: &Context) -> Ran {
        match &self.slug {
            Some(slug) if !self.list_templates => create(cx, &self, slug).map(done),
            _ => templates::listed(cx).map(done),
        }
    }
}

/// Make, list or revoke invite links. For the owner, and for members with `canInvite` (see `claudemesh permissions`).
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh invite\n  claudemesh invite --uses 5 --expires 24h --json\n  \
                        claudemesh invite --list\n  claudemesh invite --revoke K7QX2MPA")]
pub struct InviteArgs {
    /// Role of those who join: `member` or `admin`.
    #[arg(long, default_value = "member", value_parser = ["member", "admin"])]
    pub role: String,
    /// How many may join with the link, 1 to 10000.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub uses: u32,
    /// How long the link works: a number and `m`, `h` or `d`.
    #[arg(long, default_value = "7d", value_parser = parse_duration, value_name = "TIME")]
    pub expires: Duration,
    /// List the invites of the mesh.
    #[arg(long, conflicts_with = "revoke")]
    pub list: bool,
    /// Revoke an invite by its code or id.
    #[arg(long, value_name = "CODE")]
    pub revoke: Option<String>,
    /// Name that the new member gets.
    #[arg(long, value_name = "NAME")]
    pub for_name: Option<String>,
    /// Groups that the new member joins, with a word for what it is there: `frontend:lead,qa`.
    #[arg(long, value_name = "GROUP[:AS],…", value_parser = parse_groups)]
    pub groups: Option<Groups>,
}

impl Verb for InviteArgs {
    fn effect(&self) -> Effect {
        if self.list { Effect::Reads } else { Effect::Changes }
    }

    fn fields(&self) -> Vec<&'static str> {
        if self.list { in_mesh::<InviteView>() } else { vec![] }
    }

    fn shapes() -> Vec<Shape> {
        vec![
            Shape::one::<Invited>(),
            Shape::list::<InMesh<InviteView>>().of("--list"),
            Shape::one::<Revoked>().of("--revoke"),
        ]
    }

    fn run(self, cx: &Context) -> Ran {
        invite(cx, &self).map(done)
    }
}

/// Join a mesh with an invite link.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh join http://127.0.0.1:7900/i/K7QX2MPA --name Bob\n  \
                        claudemesh join ic://join/eyJ2Ijox...   (links of older versions work too)")]
pub struct JoinArgs {
    /// Invite link or code.
    pub link: String,
    /// Your name in the mesh (default: `<host>-<user>`)
    #[arg(long)]
    pub name: Option<String>,
    /// Local short name of the mesh [default: the mesh's own]
    #[arg(long, value_name = "SLUG")]
    pub slug: Option<String>,
}

impl Verb for JoinArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Joined>()]
    }

    fn run(self, cx: &Context) -> Ran {
        join(cx, &self).map(done)
    }
}

/// A mesh that was made, for scripts.
#[derive(Serialize, JsonSchema)]
struct Created {
    schema_version: &'static str,
    mesh: String,
    slug: String,
    id: MeshId,
    mesh_id: MeshId,
    member_id: MemberId,
    name: String,
    broker_url: String,
    /// What was made with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<Template>,
}

/// An invite that was made, for scripts.
#[derive(Serialize, JsonSchema)]
struct Invited {
    schema_version: &'static str,
    url: String,
    code: String,
    expires_at: String,
    /// Link for older clients; `null` when a member made the invite, because only the owner's key signs such links.
    v1_url: Option<String>,
    role: String,
    uses: u32,
    mesh: String,
    emailed: bool,
    copied: bool,
}

/// An invite that was revoked, for scripts.
#[derive(Serialize, JsonSchema)]
struct Revoked {
    ok: bool,
    mesh: String,
    code: String,
    revoked: bool,
}

/// A mesh that was joined, for scripts. Role and name are `null` when it was joined already and no one was asked.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Joined {
    ok: bool,
    mesh: String,
    slug: String,
    mesh_id: MeshId,
    member_id: MemberId,
    pubkey: String,
    broker_url: String,
    role: Option<String>,
    already_member: bool,
    name: Option<String>,
}

/// The variable with the usual broker.
const BROKER_URL: &str = "CLAUDEMESH_BROKER_URL";

/// Runs `create`.
///
/// # Errors
/// See [`super::create_mesh`].
fn create(cx: &Context, args: &CreateArgs, slug: &str) -> Result<(), CliError> {
    let name = args.name.as_deref().map(chosen_name).transpose()?;
    // Before anything is made.
    let template = args.template.as_deref().map(|wanted| templates::find(cx, wanted)).transpose()?;
    if cx.store.load()?.by_slug(slug).is_some() {
        let message = format!("A mesh called '{}' is joined already.", clean(slug));
        return Err(CliError::new(ExitCode::AlreadyExists, "already_exists", message)
            .hint("Choose another short name, or `claudemesh leave` that one first."));
    }
    let name = name.unwrap_or_else(|| default_name(cx));
    let broker_url = match &args.broker {
        Some(url) => url.clone(),
        None => local::own_broker(cx)?.unwrap_or_else(|| DEFAULT_BROKER.to_owned()),
    };
    let broker_url = broker_url.as_str();
    // Who owns the machine's own broker need not know that it has a token.
    let own_token = local::operator_token(cx, broker_url);
    let keys = cx.store.draft(&format!("create {broker_url} {slug}"))?;
    let made = super::create_mesh(&MeshWish {
        broker_url,
        slug,
        title: args.title.as_deref(),
        display_name: &name,
        operator_token: args.operator_token.as_deref().or(own_token.as_ref().map(|token| token.as_str())),
        keys: &keys,
    })?;
    let mut entry = made.entry;
    local::mark_if_own(cx, &mut entry);
    // The owner key first: a mesh without it can never invite anyone.
    cx.store.put_owner(made.owner)?;
    let slug = cx.store.update(|config| Ok::<_, crate::config::ConfigError>(config.put_mesh(entry)))?;
    settle(cx, &keys.member.public());
    warn_if_exposed(cx, broker_url);
    if let Some(template) = &template {
        templates::make(cx, &slug, template)?;
    }
    let value = Created {
        schema_version: "1.0",
        mesh: slug.clone(),
        slug: slug.clone(),
        id: made.created.mesh_id.clone(),
        mesh_id: made.created.mesh_id,
        member_id: made.created.member_id,
        name: name.clone(),
        broker_url: broker_url.to_owned(),
        template,
    };
    cx.out.answer(&value, |out| {
        let made = value.template.as_ref().map(|template| template.block(out)).unwrap_or_default();
        let named = Named { asked: args.name.as_deref(), name: &name, mesh: &slug, already_member: false };
        let note = named.note(&cx.store).map(|note| format!("  note: {note}\n")).unwrap_or_default();
        format!(
            "{} made {} on {} as {}\n{note}{made}  next: claudemesh invite --mesh {slug}\n",
            out.tick(),
            clean(&slug),
            clean(broker_url),
            clean(&name)
        )
    })
}

/// Runs `invite`, `invite --list` and `invite --revoke`.
///
/// # Errors
/// Exit 7 for a member that may not invite; otherwise what the broker says.
fn invite(cx: &Context, args: &InviteArgs) -> Result<(), CliError> {
    let for_name = args.for_name.as_deref().map(chosen_name).transpose()?;
    let entry = cx.mesh_entry()?;
    let inviter = inviter(cx, &entry)?;
    if args.list {
        let invites = super::list_invites(&inviter, &entry).map_err(|error| may_not(&entry, error))?;
        return cx.out.answer(&InMesh::all(&entry.slug, &invites), |out| {
            if invites.is_empty() {
                return "No invites.\n".into();
            }
            invites.iter().map(|invite| invite_line(invite, out)).collect()
        });
    }
    if let Some(wanted) = &args.revoke {
        let invite = super::revoke_invite(&inviter, &entry, wanted).map_err(|error| may_not(&entry, error))?;
        let value = Revoked { ok: true, mesh: entry.slug, code: invite.code.clone(), revoked: true };
        return cx.out.answer(&value, |out| format!("{} revoked {}\n", out.tick(), clean(&invite.code)));
    }
    let preset = (for_name.is_some() || args.groups.is_some()).then(|| InvitePreset {
        display_name: for_name,
        groups: args.groups.clone().unwrap_or_default().0,
        ..InvitePreset::default()
    });
    let wish = InviteWish { role: &args.role, uses: args.uses, lifetime: args.expires, preset };
    let made = super::create_invite(&inviter, &entry, &wish).map_err(|error| may_not(&entry, error))?;
    let value = Invited {
        schema_version: "1.0",
        url: made.view.url.clone(),
        code: made.view.code.clone(),
        expires_at: made.view.expires_at.clone(),
        v1_url: made.v1_url.clone(),
        role: made.view.role.clone(),
        uses: made.view.max_uses,
        mesh: entry.slug.clone(),
        emailed: false,
        copied: false,
    };
    cx.out.answer(&value, |out| {
        if out.is_quiet() {
            return format!("{}\n", clean(&made.view.url));
        }
        let uses = if made.view.max_uses == 1 { "one use".into() } else { format!("{} uses", made.view.max_uses) };
        format!(
            "{}\n  {uses}, until {}, role {}\n  they run: claudemesh join {} --name <name>\n",
            out.paint(Style::Bold, &clean(&made.view.url)),
            shown(&made.view.expires_at),
            clean(&made.view.role),
            clean(&made.view.url),
        )
    })?;
    if crate::http::is_loopback(&made.view.url) && is_local(&entry) {
        let running = Store::of_entry(&entry).is_some_and(|store| store.running_up().is_some());
        let first = if running { "`claudemesh down`, then " } else { "" };
        cx.out.warn(&format!(
            "this link works on this machine only. To let other machines join, run {first}`claudemesh up -d --listen 0.0.0.0` and \
             make another one."
        ));
    }
    if is_local(&entry) {
        local::tell_if_alone(cx, "the link works while `claudemesh up` or a session runs.");
    }
    Ok(())
}

fn invite_line(invite: &InviteView, out: &crate::output::Output) -> String {
    let state = invite_state(invite, crate::clock::now_ms());
    let code = clean(&invite.code).into_owned();
    format!(
        "{}  {}  {}/{} used  {state}\n",
        out.paint(Style::Bold, &code),
        clean(&invite.role),
        invite.used_count,
        invite.max_uses
    )
}

/// Whether an invite still lets anyone in, and until when, or why not.
fn invite_state(invite: &InviteView, now_ms: i64) -> String {
    let over = parse_iso(&invite.expires_at).is_some_and(|at| at <= now_ms);
    match &invite.revoked_at {
        Some(at) => format!("revoked {}", shown(at)),
        None if over => format!("expired {}", shown(&invite.expires_at)),
        None if invite.used_count >= invite.max_uses => "used up".to_owned(),
        None => format!("until {}", shown(&invite.expires_at)),
    }
}

/// The owner when its key is here, else the member of this machine: a broker decides whether that one may invite.
fn inviter(cx: &Context, entry: &MeshEntry) -> Result<Inviter, CliError> {
    if let Some(owner) = cx.store.owner(&entry.mesh_id)? {
        return Inviter::owner(&owner);
    }
    match ask(cx, entry, |connection| async move { Ok(connection.whoami().await?) }) {
        // A member that was made the owner later signs as the owner with its member key.
        Ok(who) => Inviter::member(entry, who.owner_pubkey),
        Err(error) if matches!(error.code.as_str(), "not_supported" | "unknown_type" | "unknown_message_type") => {
            let message = format!("On this broker only the owner of {} can invite.", clean(&entry.slug));
            Err(CliError::new(ExitCode::PermissionDenied, "forbidden", message).hint(ASK_THE_OWNER))
        }
        Err(error) => Err(error),
    }
}

/// What helps when the owner is someone else.
const ASK_THE_OWNER: &str = "Ask the owner for a link: `claudemesh members` shows who that is.";

/// The broker's refusal, with what the member can do about it.
fn may_not(entry: &MeshEntry, error: CliError) -> CliError {
    if error.exit != ExitCode::PermissionDenied || error.code != "forbidden" {
        return error;
    }
    if error.message.contains("canInvite") {
        let message = format!("You may not invite to {}: this needs the capability canInvite.", clean(&entry.slug));
        return CliError { message, ..error }.hint(
            "Ask the owner for a link, or for `claudemesh permissions <you> --allow canInvite`: `claudemesh members` shows who that is.",
        );
    }
    error.hint(ASK_THE_OWNER)
}

/// Runs `join`.
///
/// # Errors
/// See [`super::join`].
fn join(cx: &Context, args: &JoinArgs) -> Result<(), CliError> {
    args.name.as_deref().map(chosen_name).transpose()?;
    // `join team` of someone who is in `team` already: nothing to do, and not an error.
    if let Some(entry) = cx.store.load()?.by_slug(args.link.trim()) {
        let value = Joined {
            ok: true,
            mesh: entry.slug.clone(),
            slug: entry.slug.clone(),
            mesh_id: entry.mesh_id.clone(),
            member_id: entry.member_id.clone(),
            pubkey: entry.pubkey.clone(),
            broker_url: entry.broker_url.clone(),
            role: None,
            already_member: true,
            name: None,
        };
        return cx.out.answer(&value, |out| format!("{} {} is joined already\n", out.tick(), clean(&entry.slug)));
    }
    let joined = join_link(cx, &args.link, args.name.as_deref(), args.slug.as_deref())?;
    let entry = &joined.entry;
    // The invite may have a name for its guest, and a member of before keeps its own: the mesh says which it is.
    let name =
        connect::ask(cx, entry, |connection| async move { Ok(connection.hello_ack()?.member_display_name.clone()) });
    let name = match name {
        Ok(name) => name,
        // The invite was good and the mesh is kept, but this member will get in nowhere.
        Err(error) if matches!(error.exit, ExitCode::Auth | ExitCode::PermissionDenied) => {
            let message =
                format!("The invite was taken, but the broker refuses this member of {}: {error}", clean(&entry.slug));
            return Err(CliError { message, ..error }
                .hint(format!(
                    "Ask for a link of another kind, then `claudemesh leave {}` and join again.",
                    clean(&entry.slug)
                ))
                .field("slug", entry.slug.clone()));
        }
        Err(error) => {
            cx.out.warn(&format!("joined, but the mesh cannot be asked now: {error}"));
            joined.name
        }
    };
    let value = Joined {
        ok: true,
        mesh: entry.slug.clone(),
        slug: entry.slug.clone(),
        mesh_id: entry.mesh_id.clone(),
        member_id: entry.member_id.clone(),
        pubkey: entry.pubkey.clone(),
        broker_url: entry.broker_url.clone(),
        role: joined.role.clone(),
        already_member: joined.already_member,
        name: Some(name.clone()),
    };
    cx.out.answer(&value, |out| {
        let mut text = format!("{} joined {}", out.tick(), clean(&entry.slug));
        if joined.already_member {
            text += " (this key was a member before)";
        }
        let key: String = entry.pubkey.chars().take(16).collect();
        text += &format!("\n  name    {}\n  member  {}  key {key}\n", clean(&name), clean(entry.member_id.as_str()));
        let named = Named {
            asked: args.name.as_deref(),
            name: &name,
            mesh: &entry.slug,
            already_member: joined.already_member,
        };
        if let Some(note) = named.note(&cx.store) {
            text += &format!("  note    {note}\n");
        }
        text += &format!("  broker  {}\n", clean(&entry.broker_url));
        text + "  next: claudemesh peers, claudemesh send <to> <text>, claudemesh inbox, claudemesh launch\n"
    })
}

/// A mesh that is in the config now.
pub struct Kept {
    /// As stored, with its local slug.
    pub entry: MeshEntry,
    /// The name that was asked for.
    pub name: String,
    /// The key was a member before.
    pub already_member: bool,
    /// `member` or `admin`.
    pub role: Option<String>,
}

/// Joins a link and keeps the result: config entry, and the link beside it.
///
/// # Errors
/// See [`super::join`]; exit 10 when the config cannot be written.
pub fn join_link(cx: &Context, link: &str, name: Option<&str>, slug: Option<&str>) -> Result<Kept, CliError> {
    if let Some(slug) = slug {
        check_slug(slug)?;
    }
    let name = match name {
        Some(name) => chosen_name(name)?,
        None => default_name(cx),
    };
    // Read before the request: a damaged config must be found before an invite is used up.
    let config = cx.store.load()?;
    let used_link = |entry: &crate::config::MeshEntry| {
        let path = cx.store.invite_path(&entry.slug);
        let bytes = crate::files::read_limited(&path, 64 * 1024).ok().flatten()?;
        String::from_utf8(bytes).ok()
    };
    let fresh = |purpose: &str, mesh: Option<&MeshId>| Ok(cx.store.draft_of_member(purpose, mesh)?);
    let joined = super::join(&config, link, &name, cx.env.text(BROKER_URL), used_link, fresh)?;
    let mut entry = joined.entry;
    local::mark_if_own(cx, &mut entry);
    if let Some(slug) = slug {
        slug.clone_into(&mut entry.slug);
    }
    let mesh_id = entry.mesh_id.clone();
    let entry = cx.store.update(|config| {
        config.put_mesh(entry);
        let kept = config.by_id(&mesh_id).cloned();
        kept.ok_or_else(|| CliError::internal("The joined mesh is not in the config."))
    })?;
    if let Some(key) = PublicKey::parse(&entry.pubkey) {
        settle(cx, &key);
    }
    if let Err(error) = cx.store.save_invite(&entry.slug, link.trim()) {
        cx.out.warn(&format!("the link could not be kept: {error}"));
    }
    warn_if_exposed(cx, &entry.broker_url);
    Ok(Kept { entry, name, already_member: joined.already_member, role: joined.role })
}

/// The keys are in the config now. A draft that stays does no harm.
fn settle(cx: &Context, member: &PublicKey) {
    if let Err(error) = cx.store.settle_draft(member) {
        tracing::warn!(%error, "the draft of the keys stays");
    }
}

fn warn_if_exposed(cx: &Context, broker_url: &str) {
    if is_exposed(broker_url) {
        cx.out.warn(&format!(
            "{} is not encrypted on its way: others on the network can see who exchanges messages with each other, and read group messages. \
             Put the broker behind TLS (wss://).",
            clean(broker_url)
        ));
    }
}

/// `<host>-<user>`, the config's default name when it has one.
pub fn default_name(cx: &Context) -> String {
    let configured = cx.store.load().ok().and_then(|config| config.display_name);
    configured.and_then(|name| chosen_name(&name).ok()).unwrap_or_else(|| {
        let user = cx.env.text("USER").or_else(|| cx.env.text("LOGNAME")).unwrap_or("user");
        format!("{}-{user}", hostname().unwrap_or_else(|| "host".into()))
    })
}

#[cfg(test)]
mod tests {
    use claudemesh_protocol::time::iso;

    use super::*;

    #[test]
    fn an_invite_that_lets_no_one_in_says_why() {
        let now = 1_900_000_000_000;
        let state = |expires_ms, used_count, revoked_ms: Option<i64>| {
            let invite = InviteView {
                invite_id: "i".into(),
                code: "K7QX2MPA".into(),
                url: String::new(),
                role: "member".into(),
                max_uses: 2,
                used_count,
                expires_at: iso(expires_ms),
                revoked_at: revoked_ms.map(iso),
            };
            invite_state(&invite, now)
        };
        assert!(state(now + 1, 1, None).starts_with("until "));
        assert!(state(now, 1, None).starts_with("expired "));
        assert!(state(now - 1, 2, None).starts_with("expired "));
        assert_eq!(state(now + 1, 2, None), "used up");
        assert!(state(now - 1, 2, Some(now - 5)).starts_with("revoked "));
    }
}
