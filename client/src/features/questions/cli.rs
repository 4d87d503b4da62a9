//! `ask`, `reply`, `inbox --questions`.

use std::time::Duration;

use claudemesh_protocol::features::messaging::Stage;
use futures_util::FutureExt;

use super::ask::{self, Ask, AskContext, AskError, Ended, Outcome, Rejected, WaitBudget};
use super::reply::{self, Word};
use super::wait::{self, Waits};
use crate::config::MeshEntry;
use crate::connection::Connection;
use crate::context::Context;
use crate::context::connect::{self, Purpose};
use crate::error::{CliError, ExitCode, sentence};
use crate::features::messaging::exchange::new_trace;
use crate::features::messaging::{ack_words, cli as messages};
use crate::inbox::listed::{Listed, Sort, short_id};
use crate::inbox::questions::{QUESTION, Question, QuestionState};
use crate::inbox::{Admitted, ListedObject, Mailbox, MessageObject};
use crate::ipc::{attach, protocol};
use crate::output::{Output, Style, clean, clean_lines};
use crate::values::parse_wait;
use crate::verb::{Effect, Ran, Shape, Verb, done, json_fields};
use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Ask a peer a question and wait for the answer.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh ask Bob \"which port does the test server use?\"\n  \
                        claudemesh ask Bob \"may I merge?\" --timeout 60 --json\n  \
                        claudemesh ask Bob \"what did the audit say?\" --wait-offline")]
pub struct AskArgs {
    /// The peer: its name, its key, or at least the first 8 digits of its key.
    pub to: String,
    /// The question.
    #[arg(required = true)]
    pub question: Vec<String>,
    /// How many seconds to wait for the answer, at most 600.
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0, value_parser = parse_wait)]
    pub timeout: f64,
    /// Ask although the peer is away: the question waits for it for a day.
    #[arg(long)]
    pub wait_offline: bool,
}

impl Verb for AskArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Asked>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Asked>()]
    }

    fn run(self, cx: &Context) -> Ran {
        ask(cx, &self).map(Into::into)
    }
}

/// Answer a question that a peer asked, or decline it.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh reply 312b1423 \"port 7900\"\n  \
                        claudemesh reply 312b1423 --decline \"ask Cid, who wrote it\"\n\n\
                        `claudemesh inbox --questions` lists the open questions with their ids.")]
pub struct ReplyArgs {
    /// Id of the question, or at least the first 8 characters of it.
    pub id: String,
    /// The answer; with --decline the reason, which may be left out.
    #[arg(required_unless_present = "decline")]
    pub text: Vec<String>,
    /// Tell the asker that there will be no answer, so that no one waits for it.
    #[arg(long)]
    pub decline: bool,
}

impl Verb for ReplyArgs {
    fn effect(&self) -> Effect {
        Effect::Changes
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Replied>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::one::<Replied>()]
    }

    fn run(self, cx: &Context) -> Ran {
        reply(cx, &self).map(done)
    }
}

/// What became of a question.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Asked {
    ok: bool,
    message_id: String,
    to: String,
    elapsed_ms: u64,
    mesh: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<MessageObject>,
    status: &'static str,
}

/// What became of an answer.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Replied {
    ok: bool,
    message_id: String,
    answer_id: String,
    declined: bool,
    to: String,
    mesh: String,
    status: Option<&'static str>,
    online: Option<u32>,
}

/// Runs `ask`: sends the question, waits, prints the answer.
///
/// # Errors
/// Exit 5 for an unknown or absent peer, 3 for an ambiguous name; of the connection. The exit code is 7 when the peer
/// declines, and 1 without an answer in time.
fn ask(cx: &Context, args: &AskArgs) -> Result<ExitCode, CliError> {
    let text = args.question.join(" ");
    if text.trim().is_empty() {
        return Err(CliError::invalid_args("The question is empty."));
    }
    let entry = crate::features::messaging::cli::mesh_that_knows(cx, std::slice::from_ref(&args.to))?;
    let question = protocol::Question {
        mesh_id: entry.mesh_id.to_string(),
        to: args.to.trim().to_owned(),
        text,
        wait_offline: args.wait_offline,
        wait_ms: Duration::from_secs_f64(args.timeout).as_millis().try_into().unwrap_or(u64::MAX),
    };
    let out = |who: &str| {
        cx.out.remark(&format!(
            "Asked {}; waiting up to {} s. After Ctrl-C the answer comes to {who}.",
            clean(&args.to),
            args.timeout.ceil()
        ));
    };
    // As the session this runs in; else with a key of its own.
    let asked = attach::ask(cx, &entry, &question, || out("the session")).map_err(failure)?;
    let Some(asked) = asked else { return ask_alone(cx, &entry, question, || out("`claudemesh inbox`")) };
    // Without the word that it was printed the answer goes on to the model.
    if cx.out.print(&outcome_output(cx, &asked.outcome, &entry)?)? {
        let exit = exit_of(&asked.outcome);
        asked.confirm();
        return Ok(exit);
    }
    Ok(exit_of(&asked.outcome))
}

fn exit_of(outcome: &Outcome) -> ExitCode {
    match &outcome.ended {
        Ended::Answered(_) => ExitCode::Success,
        // Refused by who was asked; no one has to wait or ask again.
        Ended::Declined(_) => ExitCode::PermissionDenied,
        Ended::Interrupted(_) | Ended::TimedOut | Ended::Pending | Ended::Cancelled => ExitCode::Cancelled,
    }
}

fn outcome_output(cx: &Context, outcome: &Outcome, entry: &MeshEntry) -> Result<String, CliError> {
    cx.out.render(&outcome_json(outcome, entry), |out| outcome_text(outcome, out))
}

/// Asks with a key of its own, so that the answer comes to this process and not to every session of the member. The answer
/// counts as seen once it is printed.
fn ask_alone(
    cx: &Context,
    entry: &MeshEntry,
    question: protocol::Question,
    out: impl Fn() + Sync,
) -> Result<ExitCode, CliError> {
    connect::block_on(async {
        let mailbox = Mailbox::open(cx.store.dir(), &entry.mesh_id).await?;
        let connection = connect::connect(cx, entry, Purpose::AskAndWait(mailbox.clone())).await?;
        let done = async {
            let outcome = ask_on(question, &connection, &mailbox, &out).await?;
            if cx.out.print(&outcome_output(cx, &outcome, entry)?)?
                && let Some(message) = outcome.message()
            {
                let (seq, now) = (message.seq, crate::clock::now_ms());
                mailbox.run(move |inbox| inbox.mark_seen(&[seq], now)).await?;
                connection.acknowledge(vec![message.message_id.clone()], Stage::Seen, wait::ROUTE);
            }
            Ok(exit_of(&outcome))
        };
        let done = done.await;
        connection.close().await;
        done
    })
}

async fn ask_on(
    question: protocol::Question,
    connection: &Connection,
    mailbox: &Mailbox,
    out: &(impl Fn() + Sync),
) -> Result<Outcome, CliError> {
    let waits = Waits::default();
    let settle = || {
        async {
            // The next event or sign of life tries again.
            let _ = wait::settle(&waits, mailbox, &connection.identity().reader(), false).await;
        }
        .boxed()
    };
    let context = AskContext { connection, mailbox, waits: &waits, settle: &settle };
    let ask = Ask {
        to: question.to,
        text: question.text,
        wait_offline: question.wait_offline,
        budget: WaitBudget { wait: Duration::from_millis(question.wait_ms), cut_short: false },
        trace: new_trace(),
    };
    let progress = |elapsed: Duration| {
        if elapsed < ask::PROGRESS_EVERY {
            out();
        }
        std::future::ready(()).boxed()
    };
    ask::ask(&context, &ask, &progress, std::future::pending().boxed()).await.map_err(failure)
}

fn failure(error: AskError) -> CliError {
    match error {
        AskError::Rejected(rejected) => refusal(rejected),
        AskError::Connection(error) => error.into(),
    }
}

fn refusal(rejected: Rejected) -> CliError {
    let exit = match rejected.reason.as_str() {
        "offline" => ExitCode::NotFound,
        "self" | "not_one_peer" => ExitCode::InvalidArgs,
        code => claudemesh_protocol::error::ErrorCode::parse(code).map_or(ExitCode::Cancelled, ExitCode::of),
    };
    let mut error = CliError::new(exit, rejected.reason.clone(), sentence(&rejected.message));
    if rejected.reason == "offline" {
        // The words are those of the tool, whose parameters have other names than our flags.
        error.message = "The peer is away and nothing was sent.".into();
        error = error.hint("--wait-offline leaves the question for the peer; `claudemesh peers` shows who is there.");
    }
    if !rejected.candidates.is_empty() {
        let list: Vec<String> = rejected.candidates.iter().map(|one| one.pubkey.to_hex()).collect();
        if rejected.reason == "ambiguous_target" {
            error = error.hint(format!("Use one of the keys {}.", list.join(", ")));
        }
        error = error.field("candidates", serde_json::to_value(&rejected.candidates).unwrap_or_default());
    }
    if let Some(wait_ms) = rejected.retry_after_ms {
        error = error.hint(format!("Try again in {} s.", wait_ms.div_ceil(1_000))).field("retry_after_ms", wait_ms);
    }
    error
}

fn outcome_json(outcome: &Outcome, entry: &MeshEntry) -> Asked {
    let mut asked = Asked {
        ok: matches!(outcome.ended, Ended::Answered(_)),
        message_id: outcome.message_id.clone(),
        to: outcome.peer.address(),
        elapsed_ms: u64::try_from(outcome.elapsed.as_millis()).unwrap_or(u64::MAX),
        mesh: entry.slug.clone(),
        ..Asked::default()
    };
    asked.status = match &outcome.ended {
        Ended::Answered(answer) => {
            asked.from = Some(answer.from_name());
            asked.answer = Some(answer.text());
            asked.answer_id = Some(answer.message_id.clone());
            "answered"
        }
        Ended::Declined(word) => {
            asked.from = Some(word.from_name());
            asked.reason = Some("declined");
            asked.message = Some(word.text());
            "rejected"
        }
        Ended::Interrupted(question) => {
            asked.question = Some(question.object(&entry.slug));
            "interrupted"
        }
        Ended::TimedOut | Ended::Pending => "timed_out",
        Ended::Cancelled => "cancelled",
    };
    asked
}

fn outcome_text(outcome: &Outcome, out: &Output) -> String {
    let peer = clean(&outcome.peer.address()).into_owned();
    match &outcome.ended {
        Ended::Answered(answer) if out.is_for_model() => {
            format!("{}{peer} answered:\n{}", out.preamble(), out.block(&answer.text()))
        }
        // Alone, so that a person's pipe gets the answer and nothing else.
        Ended::Answered(answer) => format!("{}\n", clean_lines(&answer.text())),
        Ended::Declined(word) => {
            let text = out.block(&word.text());
            format!("{}{} {peer} will not answer:\n{text}", out.preamble(), out.paint(Style::Yellow, "!"))
        }
        Ended::Interrupted(question) => format!(
            "{}{peer} asked you meanwhile, and may be waiting for you too:\n{}\nAnswer with `claudemesh reply {} <text>`; your \
             question stays open.\n",
            out.preamble(),
            out.block(&question.text()),
            clean(&question.message_id)
        ),
        Ended::TimedOut | Ended::Pending | Ended::Cancelled => format!(
            "{} {peer} has not answered yet. The question stays open for a day; its answer comes to `claudemesh inbox`.\n",
            out.paint(Style::Yellow, "!")
        ),
    }
}

/// Runs `reply`: answers a question (or any message of a peer) by its id.
///
/// # Errors
/// Exit 5 when no such message was received, 6 `already_answered`, or of the connection.
fn reply(cx: &Context, args: &ReplyArgs) -> Result<(), CliError> {
    let text = args.text.join(" ");
    let word = match args.decline {
        true => Word::Decline(&text),
        false if text.trim().is_empty() => {
            return Err(CliError::invalid_args("The answer is empty.")
                .hint("To tell the asker that there will be none: claudemesh reply <id> --decline [reason]"));
        }
        false => Word::Answer(&text),
    };
    let id = args.id.trim();
    if id.len() < 8 {
        return Err(CliError::invalid_args("Expected the id of the question, or at least its first 8 characters."));
    }
    let entries = cx.mesh_entries()?;
    connect::block_on(async {
        let mut trouble = None;
        // What is here first; only then what waits at the broker.
        for fetch in [false, true] {
            for entry in &entries {
                let mailbox = Mailbox::open(cx.store.dir(), &entry.mesh_id).await?;
                if fetch && let Err(error) = take_in(cx, entry, &mailbox).await {
                    trouble = Some(error);
                    continue;
                }
                let wanted = id.to_owned();
                let Some(question) = mailbox.run(move |inbox| inbox.find(&wanted)).await? else { continue };
                let connection = connect::connect(cx, entry, Purpose::Ask).await?;
                let sent = reply::reply(&connection, &mailbox, &question, word).await;
                connection.close().await;
                let ack = sent?;
                let value = Replied {
                    ok: true,
                    message_id: question.message_id.clone(),
                    answer_id: ack.message_id.clone(),
                    declined: args.decline,
                    to: question.from_name(),
                    mesh: entry.slug.clone(),
                    status: ack.stage.map(Stage::as_str),
                    online: ack.online,
                };
                let name = clean(&question.from_name()).into_owned();
                let did = match question.subtype.as_deref() {
                    _ if args.decline => "declined the question of",
                    Some(QUESTION) => "answered",
                    _ => "replied to",
                };
                return cx.out.answer(&value, |out| format!("{} {did} {name} ({})\n", out.tick(), ack_words(&ack)));
            }
        }
        let error = CliError::not_found(format!("No message {} was received.", clean(id)));
        Err(trouble.unwrap_or_else(|| error.hint("`claudemesh inbox --questions` lists the open questions.")))
    })
}

/// Takes what waits at the broker for this member into its inbox.
async fn take_in(cx: &Context, entry: &MeshEntry, mailbox: &Mailbox) -> Result<(), CliError> {
    let connection = connect::connect(cx, entry, Purpose::Receive(mailbox.clone())).await?;
    let pulled = messages::pull_all(&connection).await;
    connection.close().await;
    pulled
}

/// Runs `inbox --questions`: lists what waits for an answer; with `all` also what does not any more. Nothing is marked.
///
/// # Errors
/// Exit 10 when the inbox cannot be used; exit 4 when no broker can be reached and nothing is here. With the others' lists
/// the exit code is 4, too, when a mesh was not reached.
pub fn list(cx: &Context, all: bool) -> Result<ExitCode, CliError> {
    let entries = cx.mesh_entries()?;
    let mut lists: Vec<(String, Vec<Question>, Option<CliError>)> = Vec::new();
    connect::block_on(async {
        for entry in &entries {
            let mailbox = Mailbox::open(cx.store.dir(), &entry.mesh_id).await?;
            let trouble = take_in(cx, entry, &mailbox).await.err();
            let (reader, now) = (session_reader(cx, entry).await, crate::clock::now_ms());
            let list = match reader {
                // The session's server has admitted what the pull brought.
                Some(reader) => Admitted::new(&mailbox, reader).run(move |mail| mail.questions(all, now)).await?,
                None => mailbox.run(move |inbox| inbox.person().questions(all, now)).await?,
            };
            lists.push((entry.slug.clone(), list, trouble));
        }
        Ok(())
    })?;
    let lost = lists.iter().all(|(_, list, trouble)| list.is_empty() && trouble.is_some());
    for (slug, _, trouble) in &lists {
        match trouble {
            Some(error) if lost => return Err(error.clone()),
            Some(error) => cx.out.warn(&format!("{slug}: {}", clean(&error.message))),
            None => {}
        }
    }
    let rows = |(slug, list, _): &(String, Vec<Question>, _)| {
        list.iter().map(|one| listed(one).object(slug)).collect::<Vec<_>>()
    };
    let value: Vec<ListedObject> = lists.iter().flat_map(rows).collect();
    cx.out.answer(&value, |out| {
        lists.iter().map(|(slug, list, trouble)| questions_text(slug, list, trouble.is_none(), out)).collect()
    })?;
    Ok(crate::error::exit_of(lists.iter().filter_map(|(_, _, trouble)| trouble.as_ref())))
}

/// The reader whose questions are meant: that of the session this runs in, else the member's.
async fn session_reader(cx: &Context, entry: &MeshEntry) -> Option<String> {
    let connection = attach::attach(cx, entry).await?;
    let reader = connection.identity().reader();
    connection.close().await;
    Some(reader)
}

fn listed(question: &Question) -> Listed {
    let (message, state) = (question.message.clone(), Some(question.state));
    Listed { message, sort: Sort::Question, held: false, state, asked: None }
}

fn questions_text(slug: &str, list: &[Question], reached: bool, out: &Output) -> String {
    if list.is_empty() {
        return match reached {
            _ if out.is_quiet() => String::new(),
            true => format!("{}: no open questions\n", clean(slug)),
            false => format!("{}: not reached; no open question is here from before\n", clean(slug)),
        };
    }
    let plural = if list.len() == 1 { "" } else { "s" };
    let before = if reached { "" } else { " from before; not reached" };
    let header = format!("{}: {} question{plural}{before}", clean(slug), list.len());
    let mut text = format!("{}\n{}", out.paint(Style::Bold, &header), out.preamble());
    for question in list {
        let from = question.message.from_name();
        let id = short_id(&question.message.message_id);
        let details = format!("{} · {}", question.state.as_str(), clean(&id));
        text += &format!("{}  {}\n", out.paint(Style::Cyan, &clean(&from)), out.paint(Style::Dim, &details));
        text += &out.block(&question.message.text());
        if question.state != QuestionState::Answered {
            text += &format!("  {}\n", out.paint(Style::Bold, &format!("→ claudemesh reply {id} \"<answer>\"")));
        }
    }
    text
}
