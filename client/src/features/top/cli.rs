//! `claudemesh top`: arguments, the loop that keeps the screen up to date, and the keys.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use claudemesh_protocol::features::messaging::Push;
use futures_util::future::join_all;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::view::{Choices, draw};
use super::{Board, Counts, Waiting};
use crate::config::MeshEntry;
use crate::connection::{Connection, Events, Heard, State};
use crate::context::Context;
use crate::context::connect::{self, Purpose};
use crate::context::several::Troubles;
use crate::error::{CliError, ExitCode};
use crate::features::messaging::cli::follow::stop_signal;
use crate::features::messaging::cli::pull_all;
use crate::features::messaging::outbox::Outbox;
use crate::inbox::listed::{Sort, short_id};
use crate::inbox::{Mailbox, Tally};
use crate::output::columns;
use crate::verb::{Effect, Ran, Shape, Verb, json_fields};

/// Between two looks at what no one announces: statuses and counters.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between two looks because something happened: a thousand peers that arrive together are one look.
const LOOK_AT_MOST: Duration = Duration::from_millis(250);
/// Messages and questions that are listed below the table.
const LISTED: usize = 6;
/// Lines that a page key moves.
const PAGE: usize = 10;
/// Lines of a screen that is printed once.
const ONCE_LINES: u16 = 40;

/// Watch peers, status, waiting messages and questions on one screen that stays up to date.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Examples:\n  claudemesh top\n  claudemesh top --once\n  claudemesh top --json\n\n\
                        Keys: q quit, s order, a show who is away, arrows scroll, Tab next mesh, r refresh.\n\
                        It takes in waiting messages and leaves them unread. --json prints the counts once.")]
pub struct TopArgs {
    /// Print one screen and end.
    #[arg(long)]
    pub once: bool,
}

impl Verb for TopArgs {
    fn effect(&self) -> Effect {
        Effect::Reads
    }

    fn fields(&self) -> Vec<&'static str> {
        json_fields::of::<Counts>()
    }

    fn shapes() -> Vec<Shape> {
        vec![Shape::list::<Counts>()]
    }

    /// Exit 3 without a terminal, unless one screen is asked for; 4 when no mesh can be reached at the start, and for one screen
    /// that lacks a mesh.
    fn run(self, cx: &Context) -> Ran {
        let once = self.once || cx.out.is_json();
        if !once && !std::io::stdout().is_terminal() {
            return Err(CliError::invalid_args("A live screen needs a terminal.")
                .hint("`claudemesh top --once` prints one screen, `claudemesh watch` one line for each event."));
        }
        connect::block_on(async {
            let entries = cx.mesh_entries()?;
            let mut troubles = Troubles::of(entries.len());
            let opened = join_all(entries.into_iter().map(|entry| Pane::open(cx, entry))).await;
            let mut panes = vec![];
            for (entry, opened) in opened {
                let (pane, trouble) = match opened {
                    Ok((pane, trouble)) => (Some(pane), trouble),
                    Err(error) => (None, Some(error)),
                };
                let reached = troubles.sift(&entry, trouble.map_or(Ok(()), Err))?.is_some();
                // The live screen goes on trying.
                panes.extend(pane.filter(|_| reached || !once));
            }
            let exit = troubles.tell(cx)?;
            let ended = if once { print_once(cx, &mut panes).await } else { live(cx, &mut panes).await };
            for pane in &panes {
                pane.connection.close().await;
            }
            ended.map(|()| if once { exit } else { ExitCode::Success }.into())
        })
    }
}

/// One mesh and what keeps its board up to date.
struct Pane<'a> {
    cx: &'a Context,
    entry: MeshEntry,
    mailbox: Mailbox,
    connection: Connection,
    outbox: Outbox,
    board: Board,
    /// What waited at the broker was taken in over the connection of now.
    pulled: bool,
}

impl<'a> Pane<'a> {
    /// Also what is wrong when the mesh is not reached yet.
    async fn open(cx: &'a Context, entry: MeshEntry) -> (MeshEntry, Result<(Self, Option<CliError>), CliError>) {
        let opened = async {
            let mailbox = Mailbox::open(cx.store.dir(), &entry.mesh_id).await?;
            let (connection, trouble) = connect::begin(cx, &entry, Purpose::Follow(mailbox.clone())).await?;
            let (outbox, board) = (Outbox::of(cx.store.dir(), &entry.mesh_id), Board::new(&entry.slug));
            let mut pane = Self { cx, entry: entry.clone(), mailbox, connection, outbox, board, pulled: false };
            if trouble.is_none() {
                pane.pull().await?;
            }
            Ok::<_, CliError>((pane, trouble))
        };
        let opened = opened.await;
        (entry, opened)
    }

    /// Takes in what waits at the broker, once for each connection.
    async fn pull(&mut self) -> Result<(), CliError> {
        pull_all(&self.connection).await?;
        self.pulled = true;
        Ok(())
    }

    /// Asks the broker and the inbox. A broker that is away leaves the last numbers, and a word about it.
    async fn look(&mut self) -> Result<(), CliError> {
        // A request would wait for a broker that is away, and the other meshes with it.
        let there = self.connection.hello_ack().map(drop);
        self.pulled &= there.is_ok();
        if there.is_ok()
            && !self.pulled
            && let Err(error) = self.pull().await
        {
            tracing::debug!(%error, "waiting messages could not be read");
        }
        let listed = match there {
            Ok(()) => self.connection.list_peers().await,
            Err(error) => Err(error),
        };
        match listed {
            Ok(list) => {
                let this = if self.connection.is_session() { "" } else { &self.connection.identity().session_id };
                self.board.peers(&list, &self.entry.pubkey, this, Instant::now());
            }
            Err(error) => self.board.trouble = Some(error.to_string()),
        }
        let (now, texts) = (crate::clock::now_ms(), !self.cx.out.is_for_model());
        let (tally, waiting): (Tally, Vec<Waiting>) = self
            .mailbox
            .run(move |inbox| {
                let tally = inbox.tally(now)?;
                let none = !texts || tally.questions == 0 && tally.held == 0;
                Ok((tally, if none { vec![] } else { waiting(inbox, now)? }))
            })
            .await?;
        self.board.tally(tally, self.outbox.parcels().len());
        self.board.waiting = waiting;
        Ok(())
    }
}

/// Open questions and held messages, for a person.
fn waiting(inbox: &mut crate::inbox::Inbox, now: i64) -> Result<Vec<Waiting>, crate::inbox::InboxError> {
    let line = |what, message: &crate::inbox::Message| Waiting {
        what,
        id: short_id(&message.message_id),
        from: message.from_name(),
        text: message.text(),
    };
    let mut person = inbox.person();
    let mut all: Vec<Waiting> =
        person.questions(false, now)?.iter().take(LISTED).map(|one| line("question", &one.message)).collect();
    let room = LISTED.saturating_sub(all.len());
    if room > 0 {
        let held = person.news(1, now)?.into_iter().filter(|one| one.held && one.sort != Sort::Question);
        all.extend(held.take(room).map(|one| line("held", &one.message)));
    }
    Ok(all)
}

async fn print_once(cx: &Context, panes: &mut [Pane<'_>]) -> Result<(), CliError> {
    for pane in panes.iter_mut() {
        pane.look().await?;
    }
    let counts: Vec<&Counts> = panes.iter().map(|pane| &pane.board.counts).collect();
    let boards: Vec<Board> = panes.iter().map(|pane| pane.board.clone()).collect();
    cx.out.answer(&counts, |_| (0..boards.len()).map(|mesh| page(&boards, mesh, columns(&cx.env))).collect())
}

/// One mesh as text.
fn page(boards: &[Board], mesh: usize, width: u16) -> String {
    let choices = Choices { mesh, ..Choices::default() };
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, ONCE_LINES));
    let Ok(_) = terminal.draw(|frame| draw(frame, boards, &choices));
    let buffer = terminal.backend().buffer();
    let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    // The last line is about keys.
    let lines: Vec<String> = (0..ONCE_LINES - 1).map(line).filter(|line| !line.is_empty()).collect();
    lines.join("\n") + "\n"
}

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Quit,
    Redraw,
    Look,
    Nothing,
}

impl Choices {
    fn key(&mut self, key: KeyEvent, meshes: usize, rows: usize) -> Wish {
        let last = rows.saturating_sub(1);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Wish::Quit,
            KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit,
            KeyCode::Char('r') => return Wish::Look,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('a') => (self.away, self.scroll) = (!self.away, 0),
            KeyCode::Char('m') | KeyCode::Tab => (self.mesh, self.scroll) = ((self.mesh + 1) % meshes.max(1), 0),
            KeyCode::Down | KeyCode::Char('j') => self.scroll = (self.scroll + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll = (self.scroll + PAGE).min(last),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(PAGE),
            KeyCode::Home => self.scroll = 0,
            KeyCode::End => self.scroll = last,
            _ => return Wish::Nothing,
        }
        Wish::Redraw
    }
}

/// Puts the terminal back, whatever the way out.
struct Screen(ratatui::DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

async fn live(cx: &Context, panes: &mut [Pane<'_>]) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::io(format!("The terminal cannot be used: {error}."));
    let (sender, mut happened) = mpsc::channel::<()>(1);
    for pane in panes.iter() {
        tell_of(&pane.connection, &sender);
    }
    for pane in panes.iter_mut() {
        pane.look().await?;
    }
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let mut screen = Screen(ratatui::try_init().map_err(failed)?);
    let mut keys = keys();
    let mut choices = Choices { colour: cx.env.text("NO_COLOR").is_none(), ..Choices::default() };
    let mut tick = tokio::time::interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looked = Instant::now();
    loop {
        let boards: Vec<Board> = panes.iter().map(|pane| pane.board.clone()).collect();
        screen.0.draw(|frame| draw(frame, &boards, &choices)).map_err(failed)?;
        let rows = boards.get(choices.mesh).map_or(0, |board| board.sorted(choices.order, choices.away).len());
        let wish = tokio::select! {
            stopped = &mut stop => return stopped,
            key = keys.recv() => match key {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => choices.key(key, boards.len(), rows),
                Some(Event::Resize(..)) => Wish::Redraw,
                Some(_) => Wish::Nothing,
                // The terminal is gone.
                None => return Ok(()),
            },
            _ = tick.tick() => Wish::Look,
            Some(()) = happened.recv() => Wish::Look,
        };
        match wish {
            Wish::Quit => return Ok(()),
            Wish::Redraw | Wish::Nothing => continue,
            Wish::Look => {}
        }
        tokio::time::sleep_until(looked + LOOK_AT_MOST).await;
        // What happened until now is in this look.
        while happened.try_recv().is_ok() {}
        for pane in panes.iter_mut() {
            pane.look().await?;
        }
        looked = Instant::now();
    }
}

/// Wakes the screen when something happens in a mesh. Ends with the connection.
fn tell_of(connection: &Connection, sender: &mpsc::Sender<()>) {
    let (mut stored, mut state) = (connection.mail_events(), connection.watch());
    let (mut pushes, sender): (Events<Push>, _) = (connection.events(), sender.clone());
    tokio::spawn(async move {
        loop {
            let open = tokio::select! {
                heard = pushes.next() => match heard {
                    Some(Heard::Event(_) | Heard::Lagged(_) | Heard::Away) => true,
                    None => false,
                },
                came = async {
                    match &mut stored {
                        Some(stored) => !matches!(stored.recv().await, Err(tokio::sync::broadcast::error::RecvError::Closed)),
                        None => std::future::pending().await,
                    }
                } => came,
                changed = state.changed() => changed.is_ok() && !matches!(&*state.borrow(), State::Closed(_)),
            };
            // Full: the screen is told already.
            let _ = sender.try_send(());
            if !open {
                return;
            }
        }
    });
}

/// Keys and changes of size. The thread ends with the process, or with the terminal.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, keys) = mpsc::channel(64);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_what_the_last_line_says() {
        let mut choices = Choices::default();
        let mut press = |code: KeyCode| {
            let wish = choices.key(KeyEvent::new(code, KeyModifiers::NONE), 2, 3);
            (wish, choices.clone())
        };
        assert_eq!(press(KeyCode::Char('q')).0, Wish::Quit);
        assert_eq!(press(KeyCode::Char('r')).0, Wish::Look);
        assert_eq!(press(KeyCode::Char('x')).0, Wish::Nothing);
        assert_eq!(press(KeyCode::Char('s')).1.order.as_str(), "status");
        assert!(press(KeyCode::Char('a')).1.away);
        assert_eq!(press(KeyCode::PageDown).1.scroll, 2, "not below the last row");
        assert_eq!(press(KeyCode::Up).1.scroll, 1);
        assert_eq!((press(KeyCode::Tab).1.mesh, press(KeyCode::Tab).1.mesh), (1, 0));
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(Choices::default().key(ctrl_c, 1, 0), Wish::Quit);
    }
}
