//! `inbox --follow` and `watch`: messages as they come, and what happens in the mesh, until Ctrl-C or until no one reads any more.

use std::time::Duration;

use clap::Args;
use claudemesh_protocol::features::messaging::Push;
use claudemesh_protocol::features::state::StateChange;
use futures_util::FutureExt;
use futures_util::future::{join_all, select_all};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;

use super::inbox::{FRAME_CHARS, note_read, take_turn};
use super::pull_all;
use super::text::listed_text;
use crate::config::MeshEntry;
use crate::connection::{Connection, Events, Heard, State, Stored};
use crate::context::Context;
use crate::context::connect::{self, Purpose};
use crate::context::several::{Troubles, of_mesh};
use crate::error::{CliError, ExitCode};
use crate::features::messaging::system::told;
use crate::inbox::{Admitted, Listed, ListedObject, Mailbox, Pick};
use crate::output::{Style, clean};
use crate::session::frame;
use crate::session::notes::harmless_value;
use crate::session::routes::SHELL;
use crate::verb::{Effect, Ran, Shape, Verb, json_fields};

/// Messages of one look.
const BATCH: i64 = 100;
/// Between two looks for what the member's sessions took in: they write into the same inbox, and nothing tells us.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Print messages and what happens in the mesh as it comes, until Ctrl-C. Messages stay unread.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Examples:\n  claudemesh watch\n  claudemesh watch --json | jq 'select(.what == \"message\")'\n\n\
                        With --json one object per line. It connects again by itself when the connection is lost.\n\
                        `claudemesh inbox --follow` prints messages only, and marks them as read."
)]
pub struct WatchArgs {}

impl Verb for WatchArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Seen>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::lines::<Line>()]
    }

    /// Exit 4 when no mesh can be reached at the start.
    fn run(self, cx: &Context) -> Ran {
        run(cx, cx.mesh_entries()?, Mode::Watch).map(Into::into)
    }
}

/// A line of `watch`.
#[derive(Serialize, JsonSchema)]
struct Line {
    mesh: String,
    /// `message`, or the name of an event: `peer_joined`, `peer_left`, `state_change` …
    what: String,
    /// ISO time.
    at: String,
    /// The message.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<ListedObject>,
    /// What the broker says of an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

/// The names of the fields of [`Line`].
#[derive(Deserialize)]
#[expect(dead_code, reason = "only the names are read")]
struct Seen {
    mesh: String,
    what: String,
    at: String,
    message: Option<Value>,
    data: Option<Value>,
}

/// Runs `inbox --follow`.
///
/// # Errors
/// Exit 4 when no mesh can be reached at the start, 10 when the inbox or the output cannot be used.
pub(super) fn inbox(cx: &Context, entries: Vec<MeshEntry>) -> Result<ExitCode, CliError> {
    run(cx, entries, Mode::Read)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Messages, marked as read.
    Read,
    /// Messages and events; nothing is marked.
    Watch,
}

fn run(cx: &Context, entries: Vec<MeshEntry>, mode: Mode) -> Result<ExitCode, CliError> {
    connect::block_on(async {
        let several = entries.len() > 1;
        let mut troubles = Troubles::of(entries.len());
        let opened = join_all(entries.into_iter().map(|entry| Feed::open(cx, entry, mode, several))).await;
        let mut feeds = Vec::new();
        for (entry, opened) in opened {
            let (feed, trouble) = match opened {
                Ok((feed, trouble)) => (Some(feed), trouble),
                Err(error) => (None, Some(error)),
            };
            troubles.sift(&entry, trouble.map_or(Ok(()), Err))?;
            feeds.extend(feed);
        }
        troubles.tell(cx)?;
        let stop = stop_signal()?;
        cx.out.remark(if mode == Mode::Read {
            "Waiting for messages; Ctrl-C ends it."
        } else {
            "Watching; Ctrl-C ends it."
        });
        let connections: Vec<Connection> = feeds.iter().map(|feed| feed.connection.clone()).collect();
        let followed = follow_all(cx, feeds);
        let ended = tokio::select! {
            ended = followed => ended,
            stopped = stop => stopped,
        };
        for connection in connections {
            connection.close().await;
        }
        ended.map(|()| ExitCode::Success)
    })
}

/// Ends when no one reads any more, or when the last of the meshes is closed for good.
async fn follow_all<'a>(cx: &'a Context, feeds: Vec<Feed<'a>>) -> Result<(), CliError> {
    let followed = |feed: Feed<'a>| {
        let entry = feed.entry.clone();
        async move { (entry, feed.follow().await) }.boxed_local()
    };
    let mut open: Vec<_> = feeds.into_iter().map(followed).collect();
    loop {
        let ((entry, ended), _, rest) = select_all(open).await;
        if rest.is_empty() || ended.is_ok() {
            return ended;
        }
        // Its own trouble alone: the others are watched further.
        let mut trouble = Troubles::of(rest.len() + 1);
        trouble.sift(&entry, ended.map_err(|error| of_mesh(error, &entry)))?;
        trouble.tell(cx)?;
        open = rest;
    }
}

/// Returns when the user or the system wants this process to end.
///
/// # Errors
/// Exit 10 when signals cannot be heard of.
pub(crate) fn stop_signal() -> Result<impl Future<Output = Result<(), CliError>>, CliError> {
    let failed = |error: std::io::Error| CliError::io(format!("Ctrl-C is not heard of: {error}."));
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Listened to from here on, not from the first poll: a signal between the two would end the process.
        let mut ended = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(failed)?;
        Ok(async move {
            tokio::select! {
                _ = interrupted.recv() => {}
                _ = ended.recv() => {}
            }
            Ok(())
        })
    }
    #[cfg(not(unix))]
    Ok(async move { tokio::signal::ctrl_c().await.map_err(failed) })
}

/// One mesh that is followed.
struct Feed<'a> {
    cx: &'a Context,
    entry: MeshEntry,
    mode: Mode,
    /// Several meshes: each line names its mesh.
    several: bool,
    mailbox: Mailbox,
    connection: Connection,
    /// Reader of the session whose shell this is.
    session: Option<String>,
    /// Everything up to here was looked at.
    seq: i64,
    /// Held messages that were printed: they stay held, and are printed once.
    held: Vec<i64>,
    open: bool,
}

impl<'a> Feed<'a> {
    /// Also what is wrong when the mesh is not reached yet; the only one is waited for.
    async fn open(
        cx: &'a Context,
        entry: MeshEntry,
        mode: Mode,
        several: bool,
    ) -> (MeshEntry, Result<(Self, Option<CliError>), CliError>) {
        let opened = async {
            let mailbox = Mailbox::open(cx.store.dir(), &entry.mesh_id).await?;
            let purpose = Purpose::Follow(mailbox.clone());
            let (connection, trouble) = match several {
                true => connect::begin(cx, &entry, purpose).await?,
                false => (connect::connect(cx, &entry, purpose).await?, None),
            };
            let session = connection.is_session().then(|| connection.identity().reader());
            let seq = mailbox.run(|inbox| inbox.last_seq()).await?;
            let entry = entry.clone();
            let feed = Self { cx, entry, mode, several, mailbox, connection, session, seq, held: vec![], open: true };
            Ok::<_, CliError>((feed, trouble))
        };
        let opened = opened.await;
        (entry, opened)
    }

    async fn follow(mut self) -> Result<(), CliError> {
        let mut stored = self.connection.mail_events();
        let (mut pushes, mut changes) = (self.connection.events::<Push>(), self.connection.events::<StateChange>());
        let mut state = self.connection.watch();
        let mut tick = tokio::time::interval(LOOK_AGAIN);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reached = false;
        while self.open {
            let ready = matches!(&*state.borrow_and_update(), State::Ready(_));
            if ready && !reached {
                // After each new connection: what waits at the broker, low priority included.
                let pulled = pull_all(&self.connection).await;
                if let Err(error) = pulled {
                    tracing::debug!(%error, "waiting messages could not be read");
                }
            }
            reached = ready;
            self.look().await?;
            if !self.open {
                break;
            }
            tokio::select! {
                came = next_stored(&mut stored) => if !came { break },
                heard = next_event(&mut pushes, self.mode) => match heard {
                    Some(push) => self.event(&push)?,
                    None => break,
                },
                heard = next_event(&mut changes, self.mode) => match heard {
                    Some(change) => self.changed(&change)?,
                    None => break,
                },
                changed = state.changed() => if changed.is_err() { break },
                _ = tick.tick() => {}
            }
            if matches!(&*state.borrow(), State::Closed(_)) {
                break;
            }
        }
        // The connection says why it ended; a reader that went away is no failure.
        if self.open { self.connection.hello_ack().map(drop).map_err(CliError::from) } else { Ok(()) }
    }

    /// Prints what is new in the inbox.
    async fn look(&mut self) -> Result<(), CliError> {
        let (now, after) = (crate::clock::now_ms(), self.seq);
        let last = self.mailbox.run(|inbox| inbox.last_seq()).await?;
        if self.mode == Mode::Watch && last <= after {
            return Ok(());
        }
        let mut turn = None;
        let list: Vec<Listed> = match (&self.session, self.mode) {
            (Some(reader), mode) => {
                let admitted = Admitted::new(&self.mailbox, reader.clone());
                // The session's server admits what came before it answers.
                self.connection.inbox_pull(None).await?;
                let list = admitted.run(move |mail| {
                    let list = match mode {
                        Mode::Read => mail.claim(SHELL, &Pick { limit: BATCH, ..Pick::default() }, now)?,
                        Mode::Watch => {
                            mail.of_reader(false, BATCH)?.into_iter().filter(|one| one.seq > after).collect()
                        }
                    };
                    mail.listed(list, now)
                });
                list.await?
            }
            (None, Mode::Read) => {
                turn = take_turn(crate::inbox::turn_path(self.cx.store.dir(), &self.entry.mesh_id)).await;
                let list = self.mailbox.run(move |inbox| inbox.person().news(BATCH, now)).await?;
                list.into_iter().filter(|one| !one.held || !self.held.contains(&one.message.seq)).collect()
            }
            (None, Mode::Watch) => self.mailbox.run(move |inbox| inbox.person().after(after, now)).await?,
        };
        self.seq = last;
        self.held.extend(list.iter().filter(|one| one.held).map(|one| one.message.seq));
        if list.is_empty() {
            return Ok(());
        }
        let text = self.text(&list)?;
        self.print(&text)?;
        if self.open && self.mode == Mode::Read {
            note_read(&self.mailbox, Some(&self.connection), self.session.as_deref(), &list).await?;
        }
        drop(turn);
        Ok(())
    }

    fn text(&self, list: &[Listed]) -> Result<String, CliError> {
        if self.cx.out.is_json() {
            let line = |one: &Listed| match self.mode {
                Mode::Read => self.cx.out.render_line(&one.object(&self.entry.slug), |_| String::new()),
                Mode::Watch => {
                    let line = Line {
                        mesh: self.entry.slug.clone(),
                        what: "message".into(),
                        at: one.message.created_at.clone(),
                        message: Some(one.object(&self.entry.slug)),
                        data: None,
                    };
                    self.cx.out.render_line(&line, |_| String::new())
                }
            };
            return list.iter().map(line).collect();
        }
        if self.cx.out.is_for_model() {
            let messages: Vec<_> = list.iter().map(|one| one.message.clone()).collect();
            let (slug, mesh) = (&self.entry.slug, self.entry.mesh_id.to_string());
            return Ok(frame::render(&messages, slug, &mesh, self.cx.store.dir(), FRAME_CHARS, 0).text);
        }
        let place = if self.several { format!("{}: ", clean(&self.entry.slug)) } else { String::new() };
        Ok(list.iter().map(|one| place.clone() + &listed_text(one, &self.cx.out)).collect())
    }

    /// Prints an event of the broker.
    fn event(&mut self, push: &Push) -> Result<(), CliError> {
        let Some(event) = push.event.as_deref().filter(|event| !event.is_empty()) else { return Ok(()) };
        let words = told(event, push.event_data.as_ref().unwrap_or(&Value::Null));
        self.line(event, &push.created_at, push.event_data.clone(), &words)
    }

    fn changed(&mut self, change: &StateChange) -> Result<(), CliError> {
        let key = harmless_value(&change.key);
        let words = match change.deleted {
            true => format!("{key} deleted by {}", harmless_value(&change.updated_by)),
            false => format!(
                "{key} = {} by {}",
                harmless_value(&change.value.to_string()),
                harmless_value(&change.updated_by)
            ),
        };
        let data = serde_json::to_value(change).ok();
        self.line("state_change", &crate::clock::now_iso(), data, &words)
    }

    fn line(&mut self, what: &str, at: &str, data: Option<Value>, words: &str) -> Result<(), CliError> {
        let line =
            Line { mesh: self.entry.slug.clone(), what: what.to_owned(), at: at.to_owned(), message: None, data };
        let text = self.cx.out.render_line(&line, |out| {
            let place = if self.several { format!("{}: ", clean(&self.entry.slug)) } else { String::new() };
            format!(
                "{}{}\n",
                place,
                out.paint(Style::Dim, &format!("· {} · {}", crate::clock::shown(at), clean(words)))
            )
        })?;
        self.print(&text)
    }

    fn print(&mut self, text: &str) -> Result<(), CliError> {
        self.open = self.cx.out.print(text)?;
        Ok(())
    }
}

/// `true` when mail came, or may have come; `false` when none can come any more. Inside a session its server takes the mail in.
async fn next_stored(stored: &mut Option<tokio::sync::broadcast::Receiver<Stored>>) -> bool {
    match stored {
        None => std::future::pending().await,
        Some(stored) => !matches!(stored.recv().await, Err(RecvError::Closed)),
    }
}

/// The next event that is to be shown; `None` when none can come any more.
async fn next_event<E: claudemesh_protocol::call::ServerBody>(events: &mut Events<E>, mode: Mode) -> Option<E> {
    if mode == Mode::Read {
        return std::future::pending().await;
    }
    loop {
        match events.next().await? {
            Heard::Event(event) => return Some(event),
            // The next look at the inbox loses nothing; of events the newest are enough.
            Heard::Lagged(_) | Heard::Away => {}
        }
    }
}
