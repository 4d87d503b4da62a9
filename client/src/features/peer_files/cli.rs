//! `folder`: who this user lets read, what peers ask, and reading a folder of a peer.

use clap::Args;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::PublicKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::remembered::{Permit, Remembered};
use super::report::{AllowedRow, Order, QuestionRow, Report, Scope};
use crate::context::Context;
use crate::error::{CliError, ExitCode, sentence};
use crate::features::permissions::audit::{self, Event};
use crate::features::permissions::cli::needs_a_person;
use crate::ipc::client::Line;
use crate::ipc::protocol::{Reply, Request};
use crate::output::{Output, Style, clean, counted};
use crate::verb::{Effect, Ran, Shape, Verb, done, verbs};

pub mod reading;

use reading::{ListArgs, ReadArgs};

/// What a person is told who orders something in the shell of a session.
const IN_A_TERMINAL: &str = "Run it in a terminal of your own.";
/// How long a session's server may take: it writes to its disk.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Show the folders that your sessions share, what peers ask for, and who may read.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  claudemesh launch --share-dir docs\n  claudemesh folder\n  claudemesh folder allow abcde\n  \
                        claudemesh folder read Ann/api notes.md\n\n\
                        No folder is shared without --share-dir, and no peer reads it before you have allowed it."
)]
pub struct FolderArgs {
    /// What to do; without it the shared folders are shown.
    #[command(subcommand)]
    action: Option<FolderAction>,
}

verbs! {
    /// What to do with folders.
    pub enum FolderAction {
        Show => ShowArgs,
        Allow => AllowArgs,
        Deny => DenyArgs,
        Revoke => RevokeArgs,
        List => ListArgs,
        Read => ReadArgs,
    }
}

impl Verb for FolderArgs {
    fn effect(&self) -> Effect {
        self.action.as_ref().map_or(Effect::Reads, Verb::effect)
    }

    fn fields(&self) -> Vec<&'static str> {
        match &self.action {
            Some(action) => action.fields(),
            None => crate::verb::json_fields::of::<Overview>(),
        }
    }

    fn shapes() -> Vec<Shape> {
        [vec![Shape::one::<Overview>()], FolderAction::shapes()].concat()
    }

    fn run(self, cx: &Context) -> Ran {
        match self.action {
            Some(action) => action.run(cx),
            None => show(cx),
        }
    }
}

/// Show the folders that your sessions share, what peers ask for, and who may read.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh folder show\n  claudemesh folder show --json=sessions")]
pub struct ShowArgs {}

/// How it stands with all sessions of this user.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Overview {
    /// Sessions that run.
    sessions: Vec<Report>,
    /// Who may read for good, whether a session shares that folder now or not.
    remembered: Vec<RememberedRow>,
}

/// Someone who may read a folder for good.
#[derive(Serialize, Deserialize, JsonSchema)]
struct RememberedRow {
    folder: String,
    mesh: String,
    name: String,
    member: String,
    since: String,
}

impl From<Permit> for RememberedRow {
    fn from(permit: Permit) -> Self {
        Self {
            folder: permit.folder.display().to_string(),
            mesh: permit.slug,
            name: permit.name,
            member: permit.member.to_hex(),
            since: permit.since,
        }
    }
}

impl Verb for ShowArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        crate::verb::json_fields::of::<Overview>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Overview>()]
    }

    fn run(self, cx: &Context) -> Ran {
        show(cx)
    }
}

/// Let a peer read what it asked for.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh folder allow abcde\n  claudemesh folder allow abcde --session\n  \
                        claudemesh folder allow abcde --always\n\nWithout a flag it is this one file or list, for a minute.")]
pub struct AllowArgs {
    /// The question's five letters, see `claudemesh folder`.
    id: String,
    /// The whole folder, for the session that asks, until your session ends.
    #[arg(long, conflicts_with = "always")]
    session: bool,
    /// The whole folder, for all sessions of that member, until you revoke it.
    #[arg(long)]
    always: bool,
}

/// Do not let a peer read what it asked for. It is not asked about again for ten minutes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  claudemesh folder deny abcde")]
pub struct DenyArgs {
    /// The question's five letters, see `claudemesh folder`.
    id: String,
}

/// Take back what a member was allowed, in all sessions and for good.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  claudemesh folder revoke 1a2b3c4d5e6f\n  claudemesh folder revoke Ann")]
pub struct RevokeArgs {
    /// At least 8 digits of the member's key, or its name as `claudemesh folder` shows it.
    member: String,
}

/// A question that was decided, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Decided {
    ok: bool,
    id: String,
    decision: String,
    /// Name of the session that was asked.
    session: String,
}

/// Consents that were taken back, for scripts.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Revoked {
    ok: bool,
    members: Vec<String>,
    revoked: usize,
}

impl Verb for AllowArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        crate::verb::json_fields::of::<Decided>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Decided>()]
    }

    /// Exit 5 when no such question is open, 7 inside a session, 3 for a consent that cannot be given.
    fn run(self, cx: &Context) -> Ran {
        let scope = match (self.session, self.always) {
            (true, _) => Scope::Session,
            (_, true) => Scope::Always,
            _ => Scope::Once,
        };
        decide(cx, &self.id, |id| Order::Allow { id, scope }, scope.as_str())
    }
}

impl Verb for DenyArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        crate::verb::json_fields::of::<Decided>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Decided>()]
    }

    /// Exit 5 when no such question is open, 7 inside a session.
    fn run(self, cx: &Context) -> Ran {
        decide(cx, &self.id, |id| Order::Deny { id }, "denied")
    }
}

impl Verb for RevokeArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        crate::verb::json_fields::of::<Revoked>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Revoked>()]
    }

    /// Exit 5 when nothing was allowed to such a member, 7 inside a session, 10 when it cannot be written.
    fn run(self, cx: &Context) -> Ran {
        revoke(cx, &self.member)
    }
}

/// Gives an order to the server of one session.
fn order(server: &crate::ipc::registry::Record, order: &Order) -> Result<Report, (String, String)> {
    let broken = |error: std::io::Error| ("unavailable".to_owned(), error.to_string());
    let mut line = Line::open(server, Some(PATIENCE)).map_err(broken)?;
    match line.ask(&Request::Folder(order.clone())).map_err(broken)? {
        Reply::Folder(report) => Ok(*report),
        Reply::Error { code, message } => Err((code, message)),
        other => Err(("unexpected".into(), format!("{other:?}"))),
    }
}

/// Shows how it stands in all sessions.
fn show(cx: &Context) -> Ran {
    let mut overview = Overview::default();
    for server in cx.store.servers() {
        match order(&server, &Order::Show) {
            Ok(report) => overview.sessions.push(report),
            // It ends, or is of another version.
            Err((_, why)) => {
                cx.out.warn(&format!("The session {} was not asked: {}.", clean(&server.name), clean(&why)))
            }
        }
    }
    overview.remembered = Remembered::load(&cx.store)?.allowed.into_iter().map(RememberedRow::from).collect();
    cx.out.answer(&overview, |out| overview_text(&overview, out)).map(done)
}

fn overview_text(overview: &Overview, out: &Output) -> String {
    let mut text = String::new();
    for report in &overview.sessions {
        let folder = match (&report.folder, &report.trouble) {
            (Some(folder), _) => clean(folder).into_owned(),
            (None, Some(trouble)) => format!("no folder: {}", clean(trouble)),
            (None, None) => "no folder".into(),
        };
        text += &format!("{}  {folder}\n", out.paint(Style::Bold, &clean(&report.session)));
        text.extend(report.questions.iter().map(|one| question_text(one, out)));
        text.extend(report.allowed.iter().map(|one| allowed_text(one, out)));
        if let Some(last) = report.reads.first() {
            let rest = counted(report.reads.len(), "read");
            text += &format!("  {rest}, last {} by {} at {}\n", clean(&last.path), clean(&last.name), clean(&last.at));
        }
    }
    let shared = |row: &&RememberedRow| {
        !overview.sessions.iter().any(|report| report.folder.as_deref() == Some(row.folder.as_str()))
    };
    for row in overview.remembered.iter().filter(shared) {
        text += &format!(
            "{} may always read {} in {}, which no session shares now\n",
            clean(&row.name),
            clean(&row.folder),
            clean(&row.mesh)
        );
    }
    if text.is_empty() && !out.is_quiet() {
        text = "no session of yours runs; `claudemesh launch --share-dir <dir>` shares a folder\n".into();
    }
    text
}

fn short(key: &str) -> String {
    clean(key).chars().take(12).collect()
}

fn question_text(one: &QuestionRow, out: &Output) -> String {
    let who = format!("{} ({}) in {}", clean(&one.name), short(&one.member), clean(&one.mesh));
    let proof = if one.verified { "" } else { "; an older client: the broker says who it is, and can read the answer" };
    let (id, path) = (out.paint(Style::Bold, &one.id), clean(&one.path));
    format!(
        "  {id}  {who} asks to {} {path}{proof}\n         claudemesh folder allow {}\n",
        clean(&one.what),
        clean(&one.id)
    )
}

fn allowed_text(one: &AllowedRow, _: &Output) -> String {
    let what = match (one.scope.as_str(), &one.path) {
        ("once", Some(path)) => format!("{} for a minute", clean(path)),
        ("always", _) => "until you revoke it".into(),
        _ => "until this session ends".into(),
    };
    format!("  {} ({}) in {} may read {what}\n", clean(&one.name), short(&one.member), clean(&one.mesh))
}

fn decide(cx: &Context, id: &str, make: impl Fn(String) -> Order, decision: &str) -> Ran {
    needs_a_person(cx, IN_A_TERMINAL)?;
    let id = id.trim().to_ascii_lowercase();
    let mut trouble = None;
    for server in cx.store.servers() {
        match order(&server, &make(id.clone())) {
            Ok(report) => {
                let decided =
                    Decided { ok: true, id: id.clone(), decision: decision.to_owned(), session: report.session };
                return cx
                    .out
                    .answer(&decided, |out| {
                        let word = if decision == "denied" { "denied" } else { "allowed" };
                        format!("{} {word} in {}\n", out.tick(), clean(&decided.session))
                    })
                    .map(done);
            }
            Err((code, _)) if code == ErrorCode::NotFound.as_str() => {}
            Err(error) => trouble = Some(error),
        }
    }
    Err(match trouble {
        Some((code, message)) => {
            let exit = ErrorCode::parse(&code).map_or(ExitCode::Cancelled, ExitCode::of);
            CliError::new(exit, code, sentence(&message))
        }
        None => CliError::not_found(format!("No question {} is open.", clean(&id)))
            .hint("`claudemesh folder` lists the open ones; they end after ten minutes."),
    })
}

/// The members that a key, its beginning or a name means, among those who may read.
fn meant(cx: &Context, wanted: &str) -> Result<Vec<(PublicKey, String)>, CliError> {
    let prefix = wanted.trim().to_ascii_lowercase();
    let is_prefix = (8..=64).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut known: Vec<(PublicKey, String)> =
        Remembered::load(&cx.store)?.allowed.into_iter().map(|permit| (permit.member, permit.name)).collect();
    for server in cx.store.servers() {
        let report = order(&server, &Order::Show).unwrap_or_default();
        known.extend(report.allowed.into_iter().filter_map(|row| Some((PublicKey::parse(&row.member)?, row.name))));
    }
    let member_name = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    known.retain(|(key, name)| {
        (is_prefix && key.to_hex().starts_with(&prefix)) || name == wanted.trim() || member_name(name) == wanted.trim()
    });
    known.sort();
    known.dedup_by_key(|(key, _)| *key);
    Ok(known)
}

fn revoke(cx: &Context, wanted: &str) -> Ran {
    needs_a_person(cx, IN_A_TERMINAL)?;
    let members = meant(cx, wanted)?;
    if members.is_empty() {
        return Err(CliError::not_found(format!("Nothing is allowed to '{}'.", clean(wanted)))
            .hint("`claudemesh folder` lists who may read."));
    }
    if members.len() > 1 {
        let keys: Vec<String> = members.iter().map(|(key, _)| key.to_hex()).collect();
        return Err(
            CliError::invalid_args("Several members fit.").hint(format!("Use a whole key: {}.", keys.join(", ")))
        );
    }
    let mut revoked = 0;
    for (member, _) in &members {
        let gone: Vec<Permit> = Remembered::change(&cx.store, |remembered| {
            let (gone, rest) =
                std::mem::take(&mut remembered.allowed).into_iter().partition(|one| one.member == *member);
            remembered.allowed = rest;
            gone
        })?;
        revoked += gone.len();
        note(cx, &gone)?;
        for server in cx.store.servers() {
            let before = order(&server, &Order::Show).map(|report| of_session(&report, member)).unwrap_or_default();
            match order(&server, &Order::Revoke { member: *member }) {
                Ok(_) => revoked += before,
                Err((_, why)) => {
                    cx.out.warn(&format!("The session {} was not told: {}.", clean(&server.name), clean(&why)));
                }
            }
        }
    }
    let names = members.iter().map(|(_, name)| name.clone()).collect();
    let value = Revoked { ok: true, members: names, revoked };
    cx.out.answer(&value, |out| format!("{} {} revoked\n", out.tick(), counted(value.revoked, "consent"))).map(done)
}

/// Consents of a member that live with a session.
fn of_session(report: &Report, member: &PublicKey) -> usize {
    let key = member.to_hex();
    report.allowed.iter().filter(|one| one.member == key && one.scope != Scope::Always.as_str()).count()
}

/// Writes into the log of decisions what was taken back for good.
fn note(cx: &Context, gone: &[Permit]) -> Result<(), CliError> {
    let entries = cx.store.load()?.meshes;
    for permit in gone {
        // A mesh that was left has no key to sign with.
        let Some(entry) = entries.iter().find(|entry| entry.mesh_id == permit.mesh) else { continue };
        let key = entry.secret_key.key().map_err(|error| CliError::io(sentence(&error.to_string())))?;
        let data = json!({"member": permit.member, "name": permit.name, "folder": permit.folder});
        audit::append(&cx.store, &key, permit.mesh.as_str(), Event::FolderRevoked, data)
            .map_err(|error| CliError::io(sentence(&error.to_string())))?;
    }
    Ok(())
}
