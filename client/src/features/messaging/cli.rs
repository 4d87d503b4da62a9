//! `send`, `inbox`, `msg-status`.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use claudemesh_protocol::features::messaging::{MessageStatusResult, Priority, RecipientState, Stage};
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use super::{Draft, Outcome, ack_words, exchange};
use crate::clock::shown;
use crate::config::MeshEntry;
use crate::connection::Connection;
use crate::context::Context;
use crate::context::connect::{self, Purpose};
use crate::error::{CliError, ExitCode, TOO_LARGE};
use crate::files::FileLock;
use crate::inbox::{Admitted, KEEP, Mailbox, Message, Pick};
use crate::output::{Output, Style, clean};
use crate::session::frame;
use crate::session::routes::SHELL;
use crate::verb::shape::{Failed, InMesh};

use self::args::{InboxArgs, MsgStatusArgs, SendArgs};

pub mod args;

/// How long a shell waits until another one has printed what it shows.
const TURN_PATIENCE: Duration = Duration::from_secs(3);
/// Characters of one mesh where a model reads them: hosts cut what a command prints at 30,000.
const FRAME_CHARS: usize = 20_000;
/// Time between two looks of a session's shell that waits.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Time between two pulls while the broker waits for acknowledgements.
const PULL_AGAIN: Duration = Duration::from_millis(10);
/// How long pulls may bring nothing although something remains: what has expired is counted until the broker drops it.
const PULL_PATIENCE: Duration = Duration::from_secs(2);

impl From<args::Priority> for Priority {
    fn from(priority: args::Priority) -> Self {
        match priority {
            args::Priority::Now => Self::Now,
            args::Priority::Next => Self::Next,
            args::Priority::Low => Self::Low,
        }
    }
}

/// Runs `send`. With several recipients each gets a line or an object; the exit code is that of the first failure.
///
/// # Errors
/// Exit 3 for bad arguments, 10 for an unreadable file; with one recipient what the broker says.
fn send(cx: &Context, args: &SendArgs) -> Result<ExitCode, CliError> {
    if let Some(word) = (args.words.len() == 1).then(|| option_like_text(std::env::args())).flatten() {
        let message = format!("'{}' was read as an option and its value.", clean(&word));
        return Err(CliError::invalid_args(message).hint(format!(
            "A text that begins with a dash comes after two: claudemesh send <to> -- {}",
            clean(&word)
        )));
    }
    let (recipients, text) = args.recipients_and_text()?;
    let text = match (text, &args.file) {
        // As everywhere else, one dash is the standard input.
        (Some(text), None) if text == "-" => read_text(std::path::Path::new("-"))?,
        (Some(text), _) => text,
        (None, Some(path)) => read_text(path)?,
        (None, None) => return Err(CliError::invalid_args("The message is missing.")),
    };
    let entry = cx.mesh_entry()?;
    let mut draft = Draft::new(text, args.priority.into());
    let mesh = &entry.mesh_id;
    let outcomes = connect::ask(cx, &entry, |connection| async move {
        let Some(reply_to) = &args.reply_to else {
            return Ok(connection.send_to(&recipients, &draft, args.to_self).await);
        };
        // Without the inbox the message is sent all the same; the id is taken as it was given then.
        let Ok(mailbox) = Mailbox::open(cx.store.dir(), mesh).await else {
            draft.reply_to = Some(reply_to.clone());
            return Ok(connection.send_to(&recipients, &draft, args.to_self).await);
        };
        let answered = exchange::refer(&mailbox, &mut draft, Some(reply_to), &recipients).await;
        let outcomes = connection.send_to(&recipients, &draft, args.to_self).await;
        exchange::note_answered(&mailbox, answered.as_ref(), &outcomes).await;
        Ok(outcomes)
    })?;
    let failure = outcomes.iter().find_map(|outcome| outcome.result.as_ref().err().cloned()).map(CliError::from);
    match (outcomes.as_slice(), failure) {
        ([_], Some(error)) => Err(error),
        ([only], None) => {
            cx.out.answer(&outcome_json(only, &entry.slug), |out| outcome_line(only, out))?;
            Ok(ExitCode::Success)
        }
        (all, failure) => {
            let list = Value::Array(all.iter().map(|outcome| outcome_json(outcome, &entry.slug)).collect());
            cx.out.answer(&list, |out| all.iter().map(|outcome| outcome_line(outcome, out)).collect())?;
            Ok(failure.map_or(ExitCode::Success, |error| error.exit))
        }
    }
}

/// The last word of a command line that may be meant as the text but was read as a short option with its value in one.
fn option_like_text(words: impl Iterator<Item = String>) -> Option<String> {
    let mut words: Vec<String> = words.collect();
    if words.iter().any(|word| word == "--") {
        return None;
    }
    words.pop().filter(|word| (word.starts_with("-t") || word.starts_with("-f")) && word.chars().count() > 2)
}

/// The text of a file or of standard input, without the line end that editors and `echo` add.
fn read_text(path: &std::path::Path) -> Result<String, CliError> {
    let most = limits::MAX_MESSAGE_CHARS as u64;
    let mut bytes = Vec::new();
    let source = path.display();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(most + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| CliError::io(format!("{source} cannot be read: {error}.")))?;
    if bytes.len() as u64 > most {
        return Err(CliError::new(
            ExitCode::InvalidArgs,
            "payload_too_large",
            format!("{source} is too long to be sent."),
        )
        .hint(TOO_LARGE));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| CliError::invalid_args(format!("{source} is not UTF-8 text; messages are text.")))?;
    let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() { Err(CliError::invalid_args(format!("{source} is empty."))) } else { Ok(text.to_owned()) }
}

/// What became of a message to one target.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Sent {
    ok: bool,
    mesh: String,
    message_id: String,
    target: String,
    name: Option<String>,
    via: &'static str,
    duplicate: bool,
    status: &'static str,
    recipient_online: Option<bool>,
    online: Option<u32>,
    waiting: Option<u32>,
    recipients: Vec<RecipientState>,
}

/// One target of several.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used: a failure has the form of every other")]
enum SentOrNot {
    Sent(Sent),
    Failed(Failed),
}

fn outcome_json(outcome: &Outcome, mesh: &str) -> Value {
    match &outcome.result {
        Ok(ack) => {
            let sent = Sent {
                ok: true,
                mesh: mesh.to_owned(),
                message_id: ack.message_id.clone(),
                target: outcome.target.clone(),
                name: outcome.resolved.as_ref().map(|found| found.name.clone()),
                via: "broker",
                duplicate: ack.duplicate,
                status: ack.stage.map_or("queued", Stage::as_str),
                recipient_online: ack.online.map(|online| online > 0),
                online: ack.online,
                waiting: ack.waiting,
                recipients: ack.recipients.clone(),
            };
            serde_json::to_value(sent).unwrap_or_default()
        }
        Err(error) => {
            let mut value = CliError::from(error.clone()).to_json();
            value["mesh"] = mesh.into();
            value["target"] = outcome.target.clone().into();
            value
        }
    }
}

fn outcome_line(outcome: &Outcome, out: &Output) -> String {
    let name = outcome.resolved.as_ref().map_or(outcome.target.as_str(), |found| found.name.as_str());
    match &outcome.result {
        Ok(ack) => {
            let id: String = ack.message_id.chars().take(8).collect();
            format!("{} {} → {} ({})\n", out.tick(), clean(name), clean(&id), ack_words(ack))
        }
        Err(error) => {
            let error = CliError::from(error.clone());
            format!("{} {}: {}\n", out.paint(Style::Red, "✗"), clean(&outcome.target), clean(&error.message))
        }
    }
}

/// Runs `msg-status`: the mesh of the message is looked for in all meshes that the call is about.
///
/// # Errors
/// Exit 3 `invalid_argument` or `ambiguous_prefix`, 5 `not_found`, or of the connection.
fn msg_status(cx: &Context, args: &MsgStatusArgs) -> Result<(), CliError> {
    let id = args.id.trim();
    if !(8..=64).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        let error = CliError::new(ExitCode::InvalidArgs, "invalid_argument", "That is no message id.");
        return Err(error
            .hint("Ids are printed by `claudemesh send`; 8 characters are enough.")
            .field("field", "id")
            .field("code", "bad_shape")
            .field("reason", "an id has 8 to 32 letters and digits")
            .field("expected", "^[A-Za-z0-9]{8,32}$"));
    }
    let mut last = None;
    for entry in cx.mesh_entries()? {
        match connect::ask(cx, &entry, |connection| async move { Ok(connection.message_status(id).await?) }) {
            Err(error) if error.exit == ExitCode::NotFound => last = Some(error),
            Err(error) => return Err(error),
            Ok(status) => {
                return cx.out.answer(&InMesh::new(&entry.slug, &status), |out| status_text(&status, out));
            }
        }
    }
    let error = last.unwrap_or_else(|| CliError::not_found("There is no such message."));
    Err(error.field("id", id).field("isPrefix", id.len() < 32))
}

fn status_text(status: &MessageStatusResult, out: &Output) -> String {
    let stage = status.stage.map_or(if status.delivered { "delivered" } else { "waiting" }, Stage::as_str);
    let mut text = format!("{} → {}: {stage}\n", clean(&status.message_id), target_text(status));
    for recipient in &status.recipients {
        let step = recipient.stage.map_or("", Stage::as_str);
        let route = recipient.route.as_deref().map(|route| format!(" by {}", clean(route))).unwrap_or_default();
        let at = recipient.stage_at.as_deref().map(|at| format!(", {}", shown(at))).unwrap_or_default();
        let key: String = recipient.pubkey.chars().take(12).collect();
        let dot = out.paint(if recipient.status == "delivered" { Style::Green } else { Style::Dim }, "●");
        text += &format!("  {dot} {} ({key}) {} {step}{route}{at}\n", clean(&recipient.name), clean(&recipient.status));
    }
    text
}

/// Whom a message was for, in the words that one would write: names for keys, and one name for the keys of one peer.
fn target_text(status: &MessageStatusResult) -> String {
    // Several targets come as a JSON array; an answer goes to a member and to its session, which are one peer.
    let parts =
        serde_json::from_str::<Vec<String>>(&status.target_spec).unwrap_or_else(|_| vec![status.target_spec.clone()]);
    let mut names: Vec<String> = vec![];
    for part in &parts {
        let name = match PublicKey::parse(part) {
            None => clean(part).into_owned(),
            Some(key) => {
                let known = status.recipients.iter().find(|one| one.pubkey == *part && !one.name.is_empty());
                match (known, status.recipients.as_slice()) {
                    (Some(one), _) => clean(&one.name).into_owned(),
                    // The member of the one session that got it.
                    (None, [only]) if !only.name.is_empty() => clean(&only.name).into_owned(),
                    (None, _) => key.short(),
                }
            }
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

/// What one mesh gave.
struct Fetched {
    slug: String,
    mesh_id: String,
    messages: Vec<Message>,
    trouble: Option<CliError>,
    reading: Reading,
}

/// What has to be noted once the messages are printed. Until then nothing says that they were read: when the output
/// fails, or this process ends before, they are shown again.
struct Reading {
    mailbox: Mailbox,
    connection: Option<Connection>,
    /// Name of the session's reader that the messages were claimed for; without one they are the member's.
    session: Option<String>,
    /// Only looked at: with --peek, and in a session with --all.
    looks: bool,
    /// Keeps other shells from printing the same messages meanwhile.
    _turn: Option<FileLock>,
}

impl Reading {
    /// The first `shown` of the messages are out: notes it, and then tells the senders. The others are given back.
    async fn settle(&self, messages: &[Message], shown: usize) -> Result<(), CliError> {
        if self.looks {
            return Ok(());
        }
        let (shown, rest) = messages.split_at(shown.min(messages.len()));
        let fresh = shown.iter().filter(|message| message.seen_at_ms.is_none());
        let ids: Vec<String> = match self.session {
            Some(_) => shown.iter().map(|message| message.message_id.clone()).collect(),
            None => fresh.map(|message| message.message_id.clone()).collect(),
        };
        let seqs = |list: &[Message]| list.iter().map(|message| message.seq).collect::<Vec<i64>>();
        let (shown, rest, session, now) = (seqs(shown), seqs(rest), self.session.clone(), crate::clock::now_ms());
        let noted = self.mailbox.run(move |inbox| {
            if let Some(reader) = &session {
                inbox.set_stage(reader, &shown, Stage::Seen)?;
                inbox.unclaim(reader, &rest)?;
            }
            inbox.mark_seen(&shown, now)
        });
        noted.await?;
        if let Some(connection) = &self.connection {
            connection.acknowledge(ids, Stage::Seen, SHELL);
        }
        Ok(())
    }
}

/// Runs `inbox`: takes in what waits, prints what nobody has seen, marks it seen. The exit code is 4 when a mesh was not
/// reached: what its broker keeps is not known then.
///
/// # Errors
/// Exit 10 when the inbox or the output cannot be used; exit 4 when no broker can be reached and nothing is in the inbox.
fn inbox(cx: &Context, args: &InboxArgs) -> Result<ExitCode, CliError> {
    if args.questions {
        return crate::features::questions::cli::list(cx, args.all);
    }
    let entries = cx.mesh_entries()?;
    connect::block_on(async {
        let taken = futures_util::future::join_all(entries.into_iter().map(|entry| take_in(cx, entry, args))).await;
        let mut fetched = Vec::new();
        // One after the other: two shells that wait for each other's turns would wait for ever.
        for taken in taken {
            fetched.push(taken?.list(args).await?);
        }
        let printed = show(cx, args, &fetched).await;
        let shown = match &printed {
            Ok(shown) => shown.clone(),
            Err(_) => vec![0; fetched.len()],
        };
        for (one, shown) in fetched.iter().zip(shown) {
            one.reading.settle(&one.messages, shown).await?;
            if let Some(connection) = &one.reading.connection {
                connection.close().await;
            }
            if one.reading.session.is_none() {
                let before = crate::clock::now_ms() - i64::try_from(KEEP.as_millis()).unwrap_or(i64::MAX);
                one.reading.mailbox.run(move |inbox| inbox.prune(before)).await?;
            }
        }
        printed?;
        Ok(exit_of(fetched.iter().filter_map(|one| one.trouble.as_ref())))
    })
}

/// Prints what was fetched. Answers how many messages of each mesh are out.
async fn show(cx: &Context, args: &InboxArgs, fetched: &[Fetched]) -> Result<Vec<usize>, CliError> {
    let nothing = fetched.iter().all(|one| one.messages.is_empty());
    for one in fetched {
        match &one.trouble {
            Some(error) if nothing && fetched.iter().all(|one| one.trouble.is_some()) => return Err(error.clone()),
            Some(error) => cx.out.warn(&format!("{}: {}", one.slug, clean(&error.message))),
            None => {}
        }
    }
    let rows = |one: &Fetched| one.messages.iter().map(|message| message.to_json(&one.slug)).collect::<Vec<_>>();
    // Messages and nothing else: what was not reached is on stderr and in the exit code.
    let list: Vec<Value> = fetched.iter().flat_map(rows).collect();
    let mut shown: Vec<usize> = fetched.iter().map(|one| one.messages.len()).collect();
    let text = cx.out.render(&Value::Array(list), |out| {
        if out.is_for_model() {
            return framed_text(cx, fetched, args, &mut shown);
        }
        inbox_text(fetched, args, out)
    })?;
    let out = cx.out.clone();
    // A pager may take its time; the connection has to go on meanwhile.
    let printed = tokio::task::spawn_blocking(move || out.print(&text)).await;
    let printed = printed.map_err(|error| CliError::internal(format!("A task ended early: {error}.")))??;
    Ok(if printed { shown } else { vec![0; fetched.len()] })
}

/// The exit code of a verb that reads from several meshes and could not ask some of them.
pub fn exit_of<'a>(troubles: impl Iterator<Item = &'a CliError>) -> ExitCode {
    troubles.fold(ExitCode::Success, |exit, error| match exit {
        // A mesh that was not reached may still have something; a refusal is final.
        ExitCode::Success => error.exit,
        _ if error.exit == ExitCode::Network => error.exit,
        exit => exit,
    })
}

/// A mesh whose broker was asked for what waits.
struct TakenIn {
    entry: MeshEntry,
    mailbox: Mailbox,
    connection: Option<Connection>,
    trouble: Option<CliError>,
    /// Where shells take turns.
    turn: PathBuf,
    /// What was claimed for the session this runs in; `None` outside of one.
    of_session: Option<Vec<Message>>,
}

impl TakenIn {
    /// What there is to print. The member's messages are only looked at here.
    async fn list(self, args: &InboxArgs) -> Result<Fetched, CliError> {
        let (slug, mesh_id) = (self.entry.slug, self.entry.mesh_id.to_string());
        let looks = args.peek || (args.all && self.of_session.is_some());
        let session = self.of_session.is_some().then_some(self.connection.as_ref()).flatten();
        let session = session.map(|connection| connection.identity().reader());
        let mut turn = None;
        let messages =
            match self.of_session {
                Some(messages) => messages,
                None => {
                    if !looks {
                        let path = self.turn;
                        let taken = tokio::task::spawn_blocking(move || FileLock::take(&path, TURN_PATIENCE)).await;
                        // Not our turn in time: a message that is shown twice is better than one that is not shown.
                        turn = taken.ok().and_then(Result::ok);
                    }
                    let (all, oldest, limit) = (args.all, !args.all && !args.peek, i64::from(args.limit));
                    self.mailbox
                        .run(move |inbox| {
                            if oldest { inbox.person().oldest_unseen(limit) } else { inbox.person().list(!all, limit) }
                        })
                        .await?
                }
            };
        let reading = Reading { mailbox: self.mailbox, connection: self.connection, session, looks, _turn: turn };
        Ok(Fetched { slug, mesh_id, messages, trouble: self.trouble, reading })
    }
}

/// What waits for the session this runs in, or with --all what it ever got. What is read as news comes by no other route.
async fn claim_of_session(
    connection: &Connection,
    mailbox: &Mailbox,
    args: &InboxArgs,
) -> Result<Vec<Message>, CliError> {
    let deadline = Instant::now() + Duration::from_secs_f64(args.wait);
    let pick = Pick { limit: i64::from(args.limit), ..Pick::default() };
    // The session's server answers a pull after it has admitted what came.
    let admitted = Admitted::new(mailbox, connection.identity().reader());
    pull_all(connection).await?;
    loop {
        let (pick, now) = (pick.clone(), crate::clock::now_ms());
        let (all, peek, limit) = (args.all, args.peek, i64::from(args.limit));
        let taken = admitted.run(move |mail| {
            if all || peek {
                // Looking takes nothing away from the other routes.
                return mail.of_reader(!all, limit);
            }
            mail.claim(SHELL, &pick, now)
        });
        let taken = taken.await?;
        if !taken.is_empty() || Instant::now() >= deadline {
            return Ok(taken);
        }
        // The session's server takes the mail in; the shell can only look again.
        tokio::time::sleep(LOOK_AGAIN.min(deadline.saturating_duration_since(Instant::now()))).await;
        connection.inbox_pull(None).await?;
    }
}

async fn take_in(cx: &Context, entry: MeshEntry, args: &InboxArgs) -> Result<TakenIn, CliError> {
    let mailbox = Mailbox::open(cx.store.dir(), &entry.mesh_id).await?;
    let turn = crate::inbox::turn_path(cx.store.dir(), &entry.mesh_id);
    // Inside a session its shell reads what the session got, never what its rule holds back or what is for others.
    if let Some(connection) = crate::ipc::attach::attach(cx, &entry).await {
        let (messages, trouble) = match claim_of_session(&connection, &mailbox, args).await {
            Ok(messages) => (messages, None),
            Err(error) => (vec![], Some(error)),
        };
        let (connection, of_session) = (Some(connection), Some(messages));
        return Ok(TakenIn { entry, mailbox, connection, trouble, turn, of_session });
    }
    let connected = connect::connect(cx, &entry, Purpose::Receive(mailbox.clone())).await;
    let (connection, trouble) = match connected {
        Ok(connection) => {
            let trouble = drain(&connection, &mailbox, args).await.err();
            (Some(connection), trouble)
        }
        Err(error) => (None, Some(error)),
    };
    // Another `inbox` of this member took over the connection; what it takes in is in the same store.
    let trouble = trouble.filter(|error| !error.message.contains("session_replaced"));
    Ok(TakenIn { entry, mailbox, connection, trouble, turn, of_session: None })
}

/// Takes in everything that waits at the broker.
///
/// A few large messages fill the broker's window, and then a pull brings nothing until our acknowledgements are there:
/// only the number that remains tells the end.
///
/// # Errors
/// Of the connection.
pub async fn pull_all(connection: &Connection) -> Result<(), CliError> {
    let (mut least, mut last_progress) = (u32::MAX, Instant::now());
    loop {
        let pulled = connection.inbox_pull(None).await?;
        if pulled.remaining == 0 {
            return Ok(());
        }
        if pulled.pushed > 0 || pulled.remaining < least {
            (least, last_progress) = (least.min(pulled.remaining), Instant::now());
        } else if last_progress.elapsed() >= PULL_PATIENCE {
            return Ok(());
        } else {
            tokio::time::sleep(PULL_AGAIN).await;
        }
    }
}

/// Takes in everything that waits at the broker; when there is nothing to show then, waits for the first message.
async fn drain(connection: &Connection, mailbox: &Mailbox, args: &InboxArgs) -> Result<(), CliError> {
    let deadline = Instant::now() + Duration::from_secs_f64(args.wait);
    let mut events = connection.mail_events();
    pull_all(connection).await?;
    while mailbox.run(|inbox| inbox.person().list(true, 1)).await?.is_empty() {
        let Some(events) = &mut events else { break };
        let mut state = connection.watch();
        tokio::select! {
            event = events.recv() => if event.is_err() { break },
            () = tokio::time::sleep_until(deadline) => break,
            _ = state.wait_for(|state| matches!(state, crate::connection::State::Closed(_))) => {
                connection.hello_ack()?;
                break;
            }
        }
        if events.try_recv().is_ok() {
            connection.mail_stored().await;
        }
    }
    Ok(())
}

/// What a model reads: messages in the frame of every other route into a session. Notes in `shown` how many of each mesh
/// found room.
fn framed_text(cx: &Context, fetched: &[Fetched], args: &InboxArgs, shown: &mut [usize]) -> String {
    let mut text = String::new();
    for (one, shown) in fetched.iter().zip(shown) {
        if one.messages.is_empty() {
            text += &nothing_text(one, args, &cx.out);
            continue;
        }
        let framed = frame::render(&one.messages, &one.slug, &one.mesh_id, cx.store.dir(), FRAME_CHARS, 0);
        *shown = framed.shown;
        text += &framed.text;
    }
    text
}

fn nothing_text(one: &Fetched, args: &InboxArgs, out: &Output) -> String {
    let kind = if args.all { "" } else { "new " };
    let slug = clean(&one.slug);
    match (one.trouble.is_none(), args.all) {
        _ if out.is_quiet() => String::new(),
        (true, _) => format!("{slug}: no {kind}messages\n"),
        (false, true) => format!("{slug}: not reached; nothing is here from before\n"),
        (false, false) => format!("{slug}: not reached; nothing new is here from before\n"),
    }
}

fn inbox_text(fetched: &[Fetched], args: &InboxArgs, out: &Output) -> String {
    let mut text = String::new();
    for one in fetched {
        let count = one.messages.len();
        let kind = if args.all { "" } else { "new " };
        let plural = if count == 1 { "" } else { "s" };
        let (slug, reached) = (clean(&one.slug), one.trouble.is_none());
        if count == 0 {
            text += &nothing_text(one, args, out);
            continue;
        }
        if !out.is_quiet() {
            let header = match reached {
                true => format!("{slug}: {count} {kind}message{plural}"),
                false => format!("{slug}: not reached; {count} {kind}message{plural} from before"),
            };
            text += &format!("{}\n", out.paint(Style::Bold, &header));
        }
        for message in &one.messages {
            text += &message_text(message, out);
        }
    }
    text
}

fn message_text(message: &Message, out: &Output) -> String {
    let at = shown(&message.created_at);
    let from = message.from_name();
    let id: String = message.message_id.chars().take(8).collect();
    let how = match (message.kind.as_str(), &message.target_spec) {
        ("broadcast" | "channel", Some(target)) => clean(target).into_owned(),
        (kind, _) => kind.to_owned(),
    };
    let urgency = if message.priority == "now" { out.paint(Style::Red, " now").into_owned() } else { String::new() };
    let details = format!("{how}{urgency} · {at} · {}", clean(&id));
    let head = format!("{}  {}\n", out.paint(Style::Cyan, &clean(&from)), out.paint(Style::Dim, &details));
    head + &out.block(&message.text())
}
