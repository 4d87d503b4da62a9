//! `approvers` (who may decide for me), `permit` (what others ask me), `permission-log` (what was decided).

use std::collections::VecDeque;
use std::time::Duration;

use clap::{Args, Subcommand};
use claudemesh_protocol::crypto::keys::safety_number;
use claudemesh_protocol::features::members::MemberView;
use claudemesh_protocol::id::PublicKey;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::answer::{self, GiveError, Waiting};
use super::audit;
use super::rules::{MAX_APPROVERS, MAX_EXPIRES, MIN_EXPIRES, MeshRules, Rules};
use super::wire::Behavior;
use crate::config::MeshEntry;
use crate::context::Context;
use crate::context::connect::{self, Purpose};
use crate::error::{CliError, ExitCode, sentence};
use crate::features::enrolment;
use crate::features::messaging::cli::pull_all;
use crate::inbox::Mailbox;
use crate::output::{Style, clean, clean_lines};
use crate::values::parse_duration;
use crate::verb::{Effect, Ran, Shape, Verb, done};

/// Records of the log that are listed, the newest.
const MAX_LISTED: usize = 1_000;

/// Show or choose who may answer your sessions' permission requests. Until you name someone, no one can.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh approvers\n  claudemesh approvers add 1a2b3c4d5e6f7a8b\n  \
                        claudemesh approvers --quorum 2 --expires 5m\n  claudemesh approvers remove 1a2b3c4d5e6f7a8b\n\n\
                        Then `claudemesh install --permission-relay`. See docs/permissions.md for who can do what.")]
pub struct ApproversArgs {
    /// What to do; without it the approvers are listed.
    #[command(subcommand)]
    pub action: Option<ApproversAction>,
    /// How many approvals a call needs, in the mesh given by --mesh.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub quorum: Option<u32>,
    /// How long a request is open, 10s to 9m.
    #[arg(long, value_name = "TIME", value_parser = parse_expires)]
    pub expires: Option<Duration>,
}

impl Verb for ApproversArgs {
    fn effect(&self) -> Effect {
        if self.action.is_none() && self.quorum.is_none() && self.expires.is_none() {
            Effect::Reads
        } else {
            Effect::Changes
        }
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn shapes() -> Vec<Shape> {
        vec![
            Shape::list::<MeshApprovers>(),
            Shape::one::<MeshApprovers>().of("--quorum"),
            Shape::one::<MeshApprovers>().of("--expires"),
            Shape::one::<MeshApprovers>().of("add"),
            Shape::one::<MeshApprovers>().of("remove"),
        ]
    }

    fn run(self, cx: &Context) -> Ran {
        approvers(cx, &self).map(done)
    }
}

/// What `approvers` does.
#[derive(Subcommand, Clone, Debug)]
pub enum ApproversAction {
    /// Let a member answer the permission requests of your sessions.
    #[command(
        after_help = "Examples:\n  claudemesh approvers add 1a2b3c4d5e6f7a8b\n  claudemesh approvers add Ann --mesh team\n\n\
                            Compare the safety number with them by another way than the mesh."
    )]
    Add {
        /// Member key, at least its first 8 digits, or a name that only one member has.
        member: String,
    },
    /// Take the right away again.
    #[command(after_help = "Example:\n  claudemesh approvers remove 1a2b3c4d5e6f7a8b")]
    Remove {
        /// Member key, or at least its first 8 digits.
        key: String,
    },
}

/// List permission requests from other people's sessions, and allow or deny them.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh permit\n  claudemesh permit qwert allow\n  \
                        claudemesh permit qwert deny --reason \"not on a Friday\"\n\n\
                        What a member of the mesh may do is `claudemesh permissions`.")]
pub struct PermitArgs {
    /// The request's five letters; without them the open requests are listed.
    #[arg(requires = "behavior")]
    pub id: Option<String>,
    /// Your decision.
    #[arg(value_enum)]
    pub behavior: Option<Behavior>,
    /// Told to the asking session.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// At least the first 8 digits of the asking session's key, when two requests have one id.
    #[arg(long, value_name = "KEY")]
    pub from: Option<String>,
}

impl Verb for PermitArgs {
    fn effect(&self) -> Effect {
        if self.behavior.is_none() { Effect::Reads } else { Effect::Changes }
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<OpenRequest>(), Shape::one::<Decided>().of("ID allow|deny")]
    }

    fn run(self, cx: &Context) -> Ran {
        permit(cx, &self).map(done)
    }
}

/// Show the log of permission requests and answers, or check that no one has changed it.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh permission-log\n  claudemesh permission-log --verify --json\n\n\
                        What a member of the mesh may do is `claudemesh permissions`, and its changes are in `claudemesh audit list`.")]
pub struct PermissionLogArgs {
    /// Check every record: order, links, signatures. Exit 1 when something is wrong.
    #[arg(long)]
    pub verify: bool,
}

impl Verb for PermissionLogArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        vec![]
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<LogRecord>(), Shape::one::<LogCheck>().of("--verify")]
    }

    fn run(self, cx: &Context) -> Ran {
        permission_log(cx, &self).map(Into::into)
    }
}

fn parse_expires(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if (MIN_EXPIRES..=MAX_EXPIRES).contains(&time) { Ok(time) } else { Err("expected 10s to 9m".into()) }
}

/// Who decides for the sessions of one mesh, for scripts.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct MeshApprovers {
    mesh: String,
    on: bool,
    quorum: u32,
    expires_seconds: u64,
    approvers: Vec<Approver>,
}

/// One of them.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Approver {
    pubkey: PublicKey,
    /// `null` when the broker does not list the member.
    name: Option<String>,
    safety_number: Option<String>,
}

/// A request that waits for a decision, for scripts.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct OpenRequest {
    id: String,
    mesh: String,
    from: String,
    from_pubkey: String,
    from_member: String,
    tool: String,
    preview: String,
    digest: String,
    expires_at: String,
    quorum: u32,
    of: u32,
}

/// A decision that was sent, for scripts.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Decided {
    ok: bool,
    id: String,
    behavior: Behavior,
    mesh: String,
    to: String,
    message_id: String,
    online: Option<u32>,
}

/// A record of the log, for scripts: what happened, and its data.
#[derive(JsonSchema)]
#[schemars(extend("additionalProperties" = true))]
#[expect(dead_code, reason = "only its schema is used: records are printed as they stand in the log")]
struct LogRecord {
    at: String,
    event: String,
    mesh: String,
    data: Value,
}

/// What a check of the log found, for scripts.
#[derive(Serialize, JsonSchema)]
struct LogCheck {
    ok: bool,
    records: u64,
    faults: Vec<FaultRow>,
}

/// Something that is wrong in the log.
#[derive(Serialize, JsonSchema)]
struct FaultRow {
    file: String,
    line: u64,
    what: String,
}

/// Runs `approvers`.
///
/// # Errors
/// Exit 5 for an unknown member, 7 inside a session, 3 for a name that several have or a key of one's own, 10 when the file cannot be used.
fn approvers(cx: &Context, args: &ApproversArgs) -> Result<(), CliError> {
    let changes = args.action.is_some() || args.quorum.is_some() || args.expires.is_some();
    if !changes {
        return list_approvers(cx);
    }
    needs_a_person(cx, "Name approvers in a terminal of your own.")?;
    let entry = cx.mesh_entry()?;
    // Asked before the lock is taken: a broker may take its time.
    let added = match &args.action {
        Some(ApproversAction::Add { member }) => Some(find_member(&entry, member)?),
        _ => None,
    };
    let _lock = cx.store.lock()?;
    let mut rules = Rules::load(&cx.store)?;
    let mesh = rules.meshes.entry(entry.mesh_id.clone()).or_default();
    if let Some(member) = &added {
        if mesh.approvers.contains(&member.pubkey) {
            return Err(CliError::new(
                ExitCode::AlreadyExists,
                "already_exists",
                "That member is an approver already.",
            )
            .hint("`claudemesh approvers` lists the approvers."));
        }
        if mesh.approvers.len() >= MAX_APPROVERS {
            return Err(CliError::invalid_args(format!("At most {MAX_APPROVERS} approvers.")));
        }
        mesh.approvers.push(member.pubkey);
    }
    if let Some(ApproversAction::Remove { key }) = &args.action {
        let key = key.trim().to_ascii_lowercase();
        let fits = |known: &PublicKey| key.len() >= 8 && known.to_hex().starts_with(&key);
        if mesh.approvers.iter().filter(|known| fits(known)).count() != 1 {
            return Err(CliError::not_found("No approver, or not exactly one, has that key.")
                .hint("`claudemesh approvers` lists them with their whole keys."));
        }
        mesh.approvers.retain(|known| !fits(known));
    }
    if let Some(quorum) = args.quorum {
        mesh.quorum = quorum;
    }
    if let Some(expires) = args.expires {
        mesh.expires_s = expires.as_secs();
    }
    let mesh = mesh.clone();
    if mesh == MeshRules::default() {
        rules.meshes.remove(&entry.mesh_id);
    }
    rules.save(&cx.store)?;
    drop(_lock);
    // Names are for people only; without the broker the keys are shown alone.
    let names = enrolment::members(&entry).ok().or_else(|| added.map(|member| vec![member]));
    let value = mesh_json(&entry, &mesh, names.as_deref().unwrap_or_default());
    cx.out.answer(&value, |out| {
        // A rule that lets no one decide is no success, although it is what was asked for.
        let sign = if mesh.can_decide() { out.tick() } else { "!".into() };
        let mut text = format!("{sign} saved\n{}", mesh_text(&entry, &mesh, names.as_deref()));
        text += "Running sessions follow at their next question; sessions started with channels must be restarted.\n";
        text
    })
}

fn list_approvers(cx: &Context) -> Result<(), CliError> {
    let rules = Rules::load(&cx.store)?;
    let (mut list, mut text) = (vec![], String::new());
    for entry in cx.mesh_entries()? {
        let Some(mesh) = rules.meshes.get(&entry.mesh_id) else { continue };
        // Names are for people only; without the broker the keys are shown alone.
        let names = enrolment::members(&entry).ok();
        list.push(mesh_json(&entry, mesh, names.as_deref().unwrap_or_default()));
        text += &mesh_text(&entry, mesh, names.as_deref());
    }
    let nobody = list.is_empty();
    cx.out.answer(&list, |out| match nobody {
        true if out.is_quiet() => String::new(),
        true => "no one may decide for your sessions; name an approver with `claudemesh approvers add <key>`\n".into(),
        false => text,
    })
}

fn own_key(entry: &MeshEntry) -> Option<PublicKey> {
    PublicKey::parse(&entry.pubkey)
}

fn mesh_json(entry: &MeshEntry, mesh: &MeshRules, names: &[MemberView]) -> MeshApprovers {
    let approver = |key: &PublicKey| Approver {
        pubkey: *key,
        name: names.iter().find(|member| member.pubkey == *key).map(|member| member.display_name.clone()),
        safety_number: own_key(entry).map(|own| safety_number(&own, key)),
    };
    MeshApprovers {
        mesh: entry.slug.clone(),
        on: mesh.can_decide(),
        quorum: mesh.quorum,
        expires_seconds: mesh.expires().as_secs(),
        approvers: mesh.approvers.iter().map(approver).collect(),
    }
}

fn mesh_text(entry: &MeshEntry, mesh: &MeshRules, names: Option<&[MemberView]>) -> String {
    let state = if mesh.can_decide() {
        format!("{} of {} must allow, within {} s", mesh.quorum, mesh.approvers.len(), mesh.expires().as_secs())
    } else {
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        format!(
            "off: {} approval{} are needed, but only {} approver{} named",
            mesh.quorum,
            plural(mesh.quorum as usize),
            mesh.approvers.len(),
            if mesh.approvers.len() == 1 { " is" } else { "s are" }
        )
    };
    let mut text = format!("{}: {state}\n", clean(&entry.slug));
    for key in &mesh.approvers {
        let name = names.map(|names| {
            let found = names.iter().find(|member| member.pubkey == *key);
            found.map_or("(not a member any more)", |member| member.display_name.as_str())
        });
        let number = own_key(entry).map(|own| safety_number(&own, key)).unwrap_or_default();
        text += &format!(
            "  {key}  {}\n    safety number {number}\n",
            clean(name.unwrap_or("(the broker cannot be asked for the name)"))
        );
    }
    text
}

/// The member that a key, the beginning of one, or a name means.
fn find_member(entry: &MeshEntry, wanted: &str) -> Result<MemberView, CliError> {
    let wanted = wanted.trim();
    let prefix = wanted.to_ascii_lowercase();
    let is_prefix = (8..=64).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
    let members = enrolment::members(entry)?;
    let fits = |member: &&MemberView| {
        (is_prefix && member.pubkey.to_hex().starts_with(&prefix)) || member.display_name == wanted
    };
    let mut found: Vec<MemberView> = members.iter().filter(fits).cloned().collect();
    if found.len() > 1 {
        let keys: Vec<String> = found.iter().map(|member| member.pubkey.to_hex()).collect();
        return Err(
            CliError::invalid_args("Several members fit.").hint(format!("Use a whole key: {}.", keys.join(", ")))
        );
    }
    let Some(member) = found.pop() else {
        return Err(CliError::not_found(format!("No member of {} fits '{}'.", clean(&entry.slug), clean(wanted)))
            .hint("`claudemesh peers --all` lists them with their keys."));
    };
    if member.pubkey.to_hex() == entry.pubkey {
        return Err(CliError::invalid_args("That is you: what runs as you could allow itself.")
            .hint("Your own sessions ask you in their own dialog."));
    }
    Ok(member)
}

/// Refuses in the shell of a session: a text that talks a model into it must get neither an approval nor an approver.
/// Anyone who may run anything can take the variables away; this stops what was not meant.
/// Refuses in the shell of a session: a text must not talk a model into a decision of its user.
///
/// # Errors
/// Exit 7.
pub(in crate::features) fn needs_a_person(cx: &Context, hint: &str) -> Result<(), CliError> {
    if !cx.env.flag("CLAUDECODE") && !cx.env.is_set("CLAUDE_CODE_SESSION_ID") {
        return Ok(());
    }
    let message = "Permissions are a person's to give, and this shell belongs to a Claude Code session.";
    Err(CliError::new(ExitCode::PermissionDenied, "needs_a_person", message).hint(hint))
}

/// A request with its mesh.
struct Found {
    entry: MeshEntry,
    mailbox: Mailbox,
    waiting: Waiting,
}

/// Runs `permit`.
///
/// # Errors
/// Exit 5 when no such request is open, 3 when an id is not unique, 6 when it was answered, 7 inside a session, 10 when
/// the answer cannot be written down; of the connection.
fn permit(cx: &Context, args: &PermitArgs) -> Result<(), CliError> {
    let (Some(id), Some(behavior)) = (&args.id, args.behavior) else {
        let found = connect::block_on(collect(cx))?;
        let list: Vec<OpenRequest> = found.iter().map(found_json).collect();
        return cx.out.answer(&list, |out| {
            if found.is_empty() {
                return if out.is_quiet() {
                    String::new()
                } else {
                    "no session is waiting for your permission\n".into()
                };
            }
            found.iter().map(|one| found_text(one, out)).collect()
        });
    };
    needs_a_person(cx, "Run it in a terminal of your own, or confirm the tool answer_permission.")?;
    let id = id.trim().to_ascii_lowercase();
    let (one, ack) = connect::block_on(async {
        let found = collect(cx).await?;
        let fits = |one: &Found| {
            let key = &one.waiting.message.sender_pubkey;
            one.waiting.request.id == id
                && args
                    .from
                    .as_deref()
                    .is_none_or(|from| from.len() >= 8 && key.starts_with(&from.to_ascii_lowercase()))
        };
        let mut found: Vec<Found> = found.into_iter().filter(fits).collect();
        if found.len() > 1 {
            let keys: Vec<&str> = found.iter().map(|one| one.waiting.message.sender_pubkey.as_str()).collect();
            return Err(CliError::new(
                ExitCode::InvalidArgs,
                "ambiguous_request",
                "Several sessions ask under that id.",
            )
            .hint(format!("Look at `claudemesh permit` and add --from with one of: {}.", keys.join(", "))));
        }
        let one = found.pop().ok_or_else(|| {
            CliError::not_found(format!("No request {} is open.", clean(&id)))
                .hint("`claudemesh permit` lists the open ones; they expire within minutes.")
        })?;
        let connection = connect::connect(cx, &one.entry, Purpose::Ask).await?;
        let given =
            answer::give(&connection, &one.mailbox, &cx.store, &one.waiting, behavior, args.reason.as_deref()).await;
        connection.close().await;
        Ok((one, given?))
    })?;
    let value = Decided {
        ok: true,
        id,
        behavior,
        mesh: one.entry.slug.clone(),
        to: one.waiting.message.from_name(),
        message_id: ack.message_id.clone(),
        online: ack.online,
    };
    cx.out.answer(&value, |out| {
        let away = if ack.online == Some(0) { "; the session is away, so it will hardly count" } else { "" };
        let name = one.waiting.message.from_name();
        format!("{} {} sent to {}{away}\n", out.tick(), behavior.as_str(), clean(&name))
    })
}

impl From<GiveError> for CliError {
    fn from(error: GiveError) -> Self {
        let message = match &error {
            GiveError::AlreadyAnswered(at) => format!("This request was answered at {}.", crate::clock::shown(at)),
            error => sentence(error.to_string().trim_start_matches("already_answered: ")),
        };
        match error {
            GiveError::AlreadyAnswered(_) | GiveError::UnderWay => {
                Self::new(ExitCode::AlreadyExists, "already_answered", message)
            }
            GiveError::NoPeer => Self::invalid_args(message),
            GiveError::Audit(_) => Self::io(message).hint("What cannot be written down is not answered."),
            GiveError::Inbox(error) => error.into(),
            GiveError::Connection(error) => error.into(),
        }
    }
}

/// The open requests of all meshes, after taking in what waits at the brokers.
async fn collect(cx: &Context) -> Result<Vec<Found>, CliError> {
    let mut all = vec![];
    for entry in cx.mesh_entries()? {
        let mailbox = Mailbox::open(cx.store.dir(), &entry.mesh_id).await?;
        let fetched = async {
            let connection = connect::connect(cx, &entry, Purpose::Receive(mailbox.clone())).await?;
            let pulled = pull_all(&connection).await;
            connection.close().await;
            pulled
        };
        if let Err(error) = fetched.await {
            cx.out.warn(&format!("{}: {}", clean(&entry.slug), clean(&error.message)));
        }
        let (mesh, now) = (entry.mesh_id.to_string(), crate::clock::now_ms());
        let list = mailbox.run(move |inbox| answer::waiting(inbox, &mesh, now)).await?;
        let found = |waiting| Found { entry: entry.clone(), mailbox: mailbox.clone(), waiting };
        all.extend(list.into_iter().map(found));
    }
    Ok(all)
}

fn found_json(one: &Found) -> OpenRequest {
    let Waiting { message, request } = &one.waiting;
    OpenRequest {
        id: request.id.clone(),
        mesh: one.entry.slug.clone(),
        from: message.from_name(),
        from_pubkey: message.sender_pubkey.clone(),
        from_member: message.sender_member.clone(),
        tool: request.tool.clone(),
        preview: request.preview.clone(),
        digest: request.digest.clone(),
        expires_at: claudemesh_protocol::time::iso(request.expires_at_ms),
        quorum: request.quorum,
        of: request.of,
    }
}

fn found_text(one: &Found, out: &crate::output::Output) -> String {
    let Waiting { message, request } = &one.waiting;
    let (name, key) = (message.from_name(), message.sender_pubkey.chars().take(16).collect::<String>());
    let head = format!("{}  {} in {}: {}", request.id, clean(&name), clean(&one.entry.slug), clean(&request.tool));
    let preview = if out.is_for_model() {
        out.block(&request.preview)
    } else {
        clean_lines(&request.preview).lines().map(|line| format!("  > {line}\n")).collect()
    };
    format!(
        "{}\n  session {}, until {}\n{preview}",
        out.paint(Style::Bold, &head),
        clean(&key),
        crate::clock::shown(&claudemesh_protocol::time::iso(request.expires_at_ms))
    )
}

/// Runs `permission-log`. The exit code is 1 when `--verify` finds something.
///
/// # Errors
/// Exit 10 when the log cannot be read.
fn permission_log(cx: &Context, args: &PermissionLogArgs) -> Result<ExitCode, CliError> {
    let own: Vec<PublicKey> = cx.store.load()?.meshes.iter().filter_map(own_key).collect();
    let (mut count, mut records) = (0_u64, VecDeque::new());
    let each = |record: &Value| {
        count += 1;
        if records.len() == MAX_LISTED {
            records.pop_front();
        }
        records.push_back(record.clone());
    };
    let faults = audit::walk(&cx.store, &own, each).map_err(|error| CliError::io(sentence(&error.to_string())))?;
    if !args.verify {
        let text: String = records.iter().map(record_text).collect();
        cx.out.answer(&Value::Array(records.into()), |_| match text.is_empty() {
            true => "Nothing was asked or decided on this machine.\n".to_owned(),
            false => text,
        })?;
        return Ok(ExitCode::Success);
    }
    let fault =
        |fault: &audit::Fault| FaultRow { file: fault.file.clone(), line: fault.line, what: fault.what.clone() };
    let value = LogCheck { ok: faults.is_empty(), records: count, faults: faults.iter().map(fault).collect() };
    cx.out.answer(&value, |out| {
        if faults.is_empty() {
            return format!("{} {} records, unbroken\n", out.tick(), count);
        }
        faults.iter().map(|fault| format!("✗ {} line {}: {}\n", fault.file, fault.line, fault.what)).collect()
    })?;
    Ok(if faults.is_empty() { ExitCode::Success } else { ExitCode::Cancelled })
}

fn record_text(record: &Value) -> String {
    let word = |value: &Value| clean(value.as_str().unwrap_or_default()).into_owned();
    let data = &record["data"];
    let at = crate::clock::shown(record["at"].as_str().unwrap_or_default());
    let mut text = format!("{at}  {:<9} {:<5}", word(&record["event"]), word(&data["request"]));
    for name in ["tool", "preview", "behavior", "name", "why", "reason"] {
        let value = word(&data[name]);
        match name {
            _ if value.is_empty() => {}
            // What was asked, on one line.
            "preview" => text += &format!("  {}", crate::output::one_line(&value)),
            _ => text += &format!("  {name} {value}"),
        }
    }
    if let Some(member) = data["member"].as_str().or_else(|| data["by"].as_str()) {
        text += &format!("  key {}", clean(&member.chars().take(16).collect::<String>()));
    }
    text + "\n"
}
