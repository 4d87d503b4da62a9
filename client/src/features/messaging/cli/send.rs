//! `send`: to peers, groups, topics and everyone; what the broker cannot take now is queued on this machine.

use std::io::Read;
use std::path::Path;

use claudemesh_protocol::features::messaging::{Candidate, Priority, RecipientState, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::args::{self, SendArgs};
use crate::config::MeshEntry;
use crate::context::Context;
use crate::context::connect;
use crate::error::{CliError, ExitCode, TOO_LARGE};
use crate::features::files::{self, attach, progress};
use crate::features::messaging::MAX_TEXT_BYTES;
use crate::features::messaging::outbox::Outbox;
use crate::features::messaging::queueing::{self, QUEUED_WORDS};
use crate::features::messaging::{Draft, Outcome, ack_words, described, exchange, instead_of_ended};
use crate::inbox::Mailbox;
use crate::inbox::listed::short_id;
use crate::output::{Output, Style, clean};
use crate::verb::shape::Failed;

/// `status` of a message that waits on this machine.
const QUEUED_HERE: &str = "queued_here";

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
/// Exit 3 for bad arguments, 10 for an unreadable file; with one recipient what the broker says; 4 with --no-queue when it
/// cannot be reached.
pub(super) fn send(cx: &Context, args: &SendArgs) -> Result<ExitCode, CliError> {
    let (recipients, text) = what(args)?;
    let entry = super::mesh_that_knows(cx, &recipients)?;
    let body = with_files(cx, &entry, args, &recipients, &text)?;
    let mut first = Draft::new(body, args.priority.into());
    let batch = uuid::Uuid::new_v4().to_string();
    first.batch = Some(batch.clone());
    let (mesh, outbox) = (&entry.mesh_id, Outbox::of(cx.store.dir(), &entry.mesh_id));
    let (mut draft, earlier, to) = (first.clone(), outbox.clone(), &recipients);
    let sent = connect::ask(cx, &entry, |connection| async move {
        // What was queued before comes first.
        earlier.deliver(&connection).await?;
        let Some(reply_to) = &args.reply_to else {
            return Ok((connection.send_to(to, &draft, args.to_self).await, draft));
        };
        // Without the inbox the message is sent all the same; the id is taken as it was given then.
        let Ok(mailbox) = Mailbox::open(cx.store.dir(), mesh).await else {
            draft.reply_to = Some(reply_to.clone());
            return Ok((connection.send_to(to, &draft, args.to_self).await, draft));
        };
        let answered = exchange::refer(&mailbox, &mut draft, Some(reply_to), to).await;
        let outcomes = connection.send_to(to, &draft, args.to_self).await;
        exchange::note_answered(&mailbox, answered.as_ref(), &outcomes).await;
        Ok((outcomes, draft))
    });
    let (outcomes, draft) = match sent {
        Ok(sent) => sent,
        Err(error) if error.exit == ExitCode::Network && !args.no_queue => {
            first.reply_to.clone_from(&args.reply_to);
            queueing::check(&first.text, &recipients)?;
            let parcel = queueing::parcel_of_all(&first, &batch, &recipients, args.to_self);
            outbox.keep(&parcel)?;
            let rows = recipients.iter().map(|target| Row::Queued(target.clone(), parcel.id.clone())).collect();
            return answer(cx, &entry, rows);
        }
        Err(error) => return Err(error),
    };
    let rows = queue_what_is_open(args, &draft, &batch, outcomes, &outbox)?;
    answer(cx, &entry, rows)
}

/// The body with the files that go with it. What does not fit into the message is shared first.
fn with_files(
    cx: &Context,
    entry: &MeshEntry,
    args: &SendArgs,
    recipients: &[String],
    text: &str,
) -> Result<String, CliError> {
    let parts = attach::Parts::of(text, &args.attach, recipients, MAX_TEXT_BYTES)?;
    if parts.to_share.is_empty() {
        return Ok(parts.body(&[]));
    }
    let bar = progress::of(&cx.out, "attaching");
    let shared = files::cli::transfer(cx, entry, |connection| async move {
        let shared = parts.share(&connection, cx.store.dir(), recipients, &bar).await?;
        Ok(parts.body(&shared))
    });
    shared.map_err(attach::cannot_queue)
}

/// Puts aside what was on its way when the broker went.
fn queue_what_is_open(
    args: &SendArgs,
    draft: &Draft,
    batch: &str,
    outcomes: Vec<Outcome>,
    outbox: &Outbox,
) -> Result<Vec<Row>, CliError> {
    let parcel = if args.no_queue { None } else { queueing::parcel_of_open(draft, batch, &outcomes, args.to_self) };
    let Some(parcel) = parcel else {
        return Ok(outcomes.into_iter().map(Row::Asked).collect());
    };
    outbox.keep(&parcel)?;
    let row = |outcome: Outcome| match queueing::is_open(&outcome) {
        true => Row::Queued(outcome.target, parcel.id.clone()),
        false => Row::Asked(outcome),
    };
    Ok(outcomes.into_iter().map(row).collect())
}

/// Recipients and text.
fn what(args: &SendArgs) -> Result<(Vec<String>, String), CliError> {
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
        (Some(text), None) if text == "-" => read_text(Path::new("-"))?,
        (Some(text), _) => text,
        (None, Some(path)) => read_text(path)?,
        (None, None) => return Err(CliError::invalid_args("The message is missing.")),
    };
    Ok((recipients, text))
}

/// What became of one target.
#[expect(clippy::large_enum_variant, reason = "one for each recipient of a command, and soon taken apart")]
enum Row {
    /// The broker was asked.
    Asked(Outcome),
    /// Target, and the id of the queued command.
    Queued(String, String),
}

fn answer(cx: &Context, entry: &MeshEntry, rows: Vec<Row>) -> Result<ExitCode, CliError> {
    let failure = rows.iter().find_map(|row| match row {
        Row::Asked(outcome) => outcome.result.as_ref().err().cloned(),
        Row::Queued(..) => None,
    });
    match (rows.as_slice(), failure.map(CliError::from)) {
        ([Row::Asked(only)], Some(error)) => Err(super::where_else(cx, entry, &only.target, error)),
        ([_], Some(error)) => Err(error),
        ([only], None) => {
            cx.out.answer(&row_json(only, &entry.slug), |out| row_line(only, out))?;
            Ok(ExitCode::Success)
        }
        (all, failure) => {
            let list = Value::Array(all.iter().map(|row| row_json(row, &entry.slug)).collect());
            cx.out.answer(&list, |out| all.iter().map(|row| row_line(row, out)).collect())?;
            for hint in hints(cx, entry, all) {
                cx.out.remark(&hint);
            }
            Ok(failure.map_or(ExitCode::Success, |error| error.exit))
        }
    }
}

/// What to do about those who got nothing, each advice once.
fn hints(cx: &Context, entry: &MeshEntry, rows: &[Row]) -> Vec<String> {
    let mut hints: Vec<String> = vec![];
    for row in rows {
        let Row::Asked(Outcome { target, result: Err(error), .. }) = row else { continue };
        let error = super::where_else(cx, entry, target, CliError::from(error.clone()));
        if let Some(hint) = error.advice().filter(|hint| !hints.iter().any(|known| known == hint)) {
            hints.push(hint.to_owned());
        }
    }
    hints
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
fn read_text(path: &Path) -> Result<String, CliError> {
    // A longer text than a message can have is attached.
    let most = attach::MAX_LONG_TEXT_BYTES as u64;
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
pub(super) struct Sent {
    ok: bool,
    mesh: String,
    /// The broker's ID; of a message that is queued here, its ID in the outbox.
    message_id: String,
    target: String,
    name: Option<String>,
    /// What one writes to reach it: `member/session`, or the member's name.
    address: Option<String>,
    /// `broker`, or `outbox` when it is queued on this machine.
    via: &'static str,
    duplicate: bool,
    /// How far it got; `queued_here` when it waits on this machine for the broker.
    status: &'static str,
    recipient_online: Option<bool>,
    online: Option<u32>,
    waiting: Option<u32>,
    recipients: Vec<RecipientState>,
    /// The one recipient is a session that has ended: only if it is resumed it gets the message.
    session_ended: bool,
    /// With `sessionEnded`: the name that reaches its member.
    reach_with: Option<String>,
}

/// One target of several.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used: a failure has the form of every other")]
pub(super) enum SentOrNot {
    Sent(Sent),
    Failed(Failed),
}

fn row_json(row: &Row, mesh: &str) -> Value {
    let mut sent = Sent {
        ok: true,
        mesh: mesh.to_owned(),
        message_id: String::new(),
        target: String::new(),
        name: None,
        address: None,
        via: "outbox",
        duplicate: false,
        status: QUEUED_HERE,
        recipient_online: None,
        online: None,
        waiting: None,
        recipients: vec![],
        session_ended: false,
        reach_with: None,
    };
    match row {
        Row::Queued(target, id) => (sent.message_id, sent.target) = (id.clone(), target.clone()),
        Row::Asked(outcome) => match &outcome.result {
            Ok(ack) => {
                sent.message_id.clone_from(&ack.message_id);
                sent.target.clone_from(&outcome.target);
                sent.name = outcome.resolved.as_ref().map(|found| found.name.clone());
                sent.address = outcome.resolved.as_ref().map(Candidate::address);
                sent.via = "broker";
                sent.duplicate = ack.duplicate;
                sent.status = ack.stage.map_or("queued", Stage::as_str);
                sent.recipient_online = ack.online.map(|online| online > 0);
                (sent.online, sent.waiting) = (ack.online, ack.waiting);
                sent.recipients.clone_from(&ack.recipients);
                if let [only] = ack.recipients.as_slice() {
                    sent.session_ended = only.ended;
                    sent.reach_with = instead_of_ended(only).map(str::to_owned);
                }
            }
            Err(error) => {
                let mut value = CliError::from(error.clone()).to_json();
                value["mesh"] = mesh.into();
                value["target"] = outcome.target.clone().into();
                return value;
            }
        },
    }
    serde_json::to_value(sent).unwrap_or_default()
}

fn row_line(row: &Row, out: &Output) -> String {
    let outcome = match row {
        Row::Asked(outcome) => outcome,
        Row::Queued(target, id) => {
            let mark = out.paint(Style::Yellow, "…");
            return format!("{mark} {} → {} ({QUEUED_WORDS})\n", clean(target), short_id(id));
        }
    };
    let name = outcome.resolved.as_ref().map_or_else(|| outcome.target.clone(), Candidate::address);
    match &outcome.result {
        Ok(ack) => {
            let id = short_id(&ack.message_id);
            format!("{} {} → {} ({})\n", out.tick(), clean(&name), clean(&id), ack_words(ack))
        }
        Err(error) => {
            let error = CliError::from(error.clone());
            let mark = out.paint(Style::Red, "✗");
            let mut text = format!("{mark} {}: {}\n", clean(&outcome.target), clean(&error.message));
            for candidate in error.candidates() {
                text += &format!("    {}\n", clean(&described(&candidate)));
            }
            text
        }
    }
}
