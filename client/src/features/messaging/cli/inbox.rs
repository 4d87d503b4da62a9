//! `inbox`: takes in what waits, prints what no one has seen, and marks it read once it is printed.

use std::path::PathBuf;
use std::time::Duration;

use claudemesh_protocol::features::messaging::Stage;
use tokio::time::Instant;

use super::args::InboxArgs;
use super::pull_all;
use super::text::{inbox_text, nothing_text};
use crate::config::MeshEntry;
use crate::connection::Connection;
use crate::context::Context;
use crate::context::connect::{self, Purpose};
use crate::error::{CliError, ExitCode, exit_of};
use crate::files::FileLock;
use crate::inbox::{Admitted, KEEP, Listed, ListedObject, Mailbox, Pick};
use crate::output::clean;
use crate::session::frame;
use crate::session::routes::SHELL;

/// How long a shell waits until another one has printed what it shows.
const TURN_PATIENCE: Duration = Duration::from_secs(3);
/// Characters of one mesh where a model reads them: hosts cut what a command prints at 30,000.
pub(super) const FRAME_CHARS: usize = 20_000;
/// Time between two looks of a session's shell that waits.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What one mesh gave.
pub(super) struct Fetched {
    pub(super) slug: String,
    mesh_id: String,
    pub(super) messages: Vec<Listed>,
    /// Held from the session whose shell this is; a person has them in the list.
    held: i64,
    pub(super) trouble: Option<CliError>,
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
    async fn settle(&self, messages: &[Listed], shown: usize) -> Result<(), CliError> {
        if self.looks {
            return Ok(());
        }
        let (shown, rest) = messages.split_at(shown.min(messages.len()));
        note_read(&self.mailbox, self.connection.as_ref(), self.session.as_deref(), shown).await?;
        if let Some(reader) = self.session.clone() {
            let rest: Vec<i64> = rest.iter().map(|one| one.message.seq).collect();
            self.mailbox.run(move |inbox| inbox.unclaim(&reader, &rest)).await?;
        }
        Ok(())
    }
}

/// Notes that messages were printed, and tells their senders. What is held stays unread: a list is no release.
pub(super) async fn note_read(
    mailbox: &Mailbox,
    connection: Option<&Connection>,
    session: Option<&str>,
    shown: &[Listed],
) -> Result<(), CliError> {
    let read: Vec<&Listed> = shown.iter().filter(|one| !one.held).collect();
    // In a session everything was claimed for it; at a person's shell what someone has seen was told before.
    let fresh = read.iter().filter(|one| session.is_some() || one.message.seen_at_ms.is_none());
    let ids: Vec<String> = fresh.map(|one| one.message.message_id.clone()).collect();
    let seqs: Vec<i64> = read.iter().map(|one| one.message.seq).collect();
    let (session, now) = (session.map(str::to_owned), crate::clock::now_ms());
    let noted = mailbox.run(move |inbox| {
        if let Some(reader) = &session {
            inbox.set_stage(reader, &seqs, Stage::Seen)?;
        }
        inbox.mark_seen(&seqs, now)
    });
    noted.await?;
    if let Some(connection) = connection {
        connection.acknowledge(ids, Stage::Seen, SHELL);
    }
    Ok(())
}

/// Runs `inbox`. The exit code is 4 when a mesh was not reached: what its broker keeps is not known then.
///
/// # Errors
/// Exit 10 when the inbox or the output cannot be used; exit 4 when no broker can be reached and nothing is in the inbox.
pub(super) fn inbox(cx: &Context, args: &InboxArgs) -> Result<ExitCode, CliError> {
    if args.questions {
        return crate::features::questions::cli::list(cx, args.all);
    }
    let entries = cx.mesh_entries()?;
    if args.follow {
        return super::follow::inbox(cx, entries);
    }
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
    // Messages and nothing else: what was not reached is on stderr and in the exit code.
    let rows = |one: &Fetched| one.messages.iter().map(|message| message.object(&one.slug)).collect::<Vec<_>>();
    let list: Vec<ListedObject> = fetched.iter().flat_map(rows).collect();
    let mut shown: Vec<usize> = fetched.iter().map(|one| one.messages.len()).collect();
    let text = cx.out.render(&list, |out| {
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

/// What a model reads: messages in the frame of every other route into a session. Notes in `shown` how many of each mesh
/// found room.
fn framed_text(cx: &Context, fetched: &[Fetched], args: &InboxArgs, shown: &mut [usize]) -> String {
    let mut text = String::new();
    for (one, shown) in fetched.iter().zip(shown) {
        if one.messages.is_empty() {
            text += &nothing_text(one, args, &cx.out);
        } else {
            let messages: Vec<_> = one.messages.iter().map(|listed| listed.message.clone()).collect();
            let framed = frame::render(&messages, &one.slug, &one.mesh_id, cx.store.dir(), FRAME_CHARS, 0);
            *shown = framed.shown;
            text += &framed.text;
        }
        if one.held > 0 {
            let held = crate::output::counted(usize::try_from(one.held).unwrap_or(0), "message");
            text += &format!("({held} held; the user decides with `claudemesh held`)\n");
        }
    }
    text
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
    of_session: Option<Vec<Listed>>,
}

impl TakenIn {
    /// What there is to print. The member's messages are only looked at here.
    async fn list(self, args: &InboxArgs) -> Result<Fetched, CliError> {
        let (slug, mesh_id) = (self.entry.slug, self.entry.mesh_id.to_string());
        let looks = args.peek || (args.all && self.of_session.is_some());
        let session = self.of_session.is_some().then_some(self.connection.as_ref()).flatten();
        let session = session.map(|connection| connection.identity().reader());
        let (mut turn, mut held) = (None, 0);
        let messages = match self.of_session {
            Some(messages) => {
                let reader = session.clone().unwrap_or_default();
                held = self.mailbox.run(move |inbox| inbox.count_held(&reader)).await?;
                messages
            }
            None => {
                if !looks {
                    turn = take_turn(self.turn).await;
                }
                member_mail(&self.mailbox, args).await?
            }
        };
        let reading = Reading { mailbox: self.mailbox, connection: self.connection, session, looks, _turn: turn };
        Ok(Fetched { slug, mesh_id, messages, held, trouble: self.trouble, reading })
    }
}

/// Our turn to print the member's unseen messages. Not in time: a message that is shown twice is better than one that is not
/// shown.
pub(super) async fn take_turn(path: PathBuf) -> Option<FileLock> {
    let taken = tokio::task::spawn_blocking(move || FileLock::take(&path, TURN_PATIENCE)).await;
    taken.ok().and_then(Result::ok)
}

async fn member_mail(mailbox: &Mailbox, args: &InboxArgs) -> Result<Vec<Listed>, CliError> {
    let (all, limit, now) = (args.all, i64::from(args.limit), crate::clock::now_ms());
    let list = mailbox
        .run(move |inbox| if all { inbox.person().everything(limit, now) } else { inbox.person().news(limit, now) });
    Ok(list.await?)
}

/// What waits for the session this runs in, or with --all what it ever got. What is read as news comes by no other route.
async fn claim_of_session(
    connection: &Connection,
    mailbox: &Mailbox,
    args: &InboxArgs,
) -> Result<Vec<Listed>, CliError> {
    let deadline = Instant::now() + Duration::from_secs_f64(args.wait);
    let pick = Pick { limit: i64::from(args.limit), ..Pick::default() };
    // The session's server answers a pull after it has admitted what came.
    let admitted = Admitted::new(mailbox, connection.identity().reader());
    pull_all(connection).await?;
    loop {
        let (pick, now) = (pick.clone(), crate::clock::now_ms());
        let (all, peek, limit) = (args.all, args.peek, i64::from(args.limit));
        let taken = admitted.run(move |mail| {
            // Looking takes nothing away from the other routes.
            let list = if all || peek { mail.of_reader(!all, limit)? } else { mail.claim(SHELL, &pick, now)? };
            mail.listed(list, now)
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

/// Takes in everything that waits at the broker; when there is nothing to show then, waits for the first message as long as it
/// was asked to. The broker says when there is no more, so nothing is waited for without being asked.
async fn drain(connection: &Connection, mailbox: &Mailbox, args: &InboxArgs) -> Result<(), CliError> {
    let deadline = Instant::now() + Duration::from_secs_f64(args.wait);
    let mut events = connection.mail_events();
    pull_all(connection).await?;
    if args.wait <= 0.0 {
        return Ok(());
    }
    while mailbox.run(|inbox| Ok(inbox.person().news(1, 0)?.is_empty())).await? {
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
