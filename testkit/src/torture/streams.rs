//! Streams.
//!
//! The promise: a confirmed entry is there after a kill, at the offset that the confirmation named; offsets grow by one, none is left
//! out or given twice; a reader gets every entry in order, or is told of the hole, and only what is no longer kept may be one; a
//! consumer goes on behind what it has acknowledged.

mod log;
mod reader;

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Result, ensure};
use claudemesh_protocol::features::streams::{StreamList, StreamPage};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};

use self::log::Log;
use self::reader::{Habit, Places, Reader};
use super::asked::Team;
use super::audit::{Audited, Mark};
use super::cast::{Asking, Board, Cast, Quiet};
use super::{Ground, Subject};
use crate::identity::Session;

const PUBLISHERS: usize = 2;
/// Entries of one publisher that wait for their answer.
const WINDOW: usize = 6;
/// Entries of one publisher in a round.
const ENTRIES: u32 = 60;
/// The streams, and how many entries each keeps: all of a run, or so few that slow readers miss some.
const STREAMS: [(&str, u64); 2] = [("torture/all", 1_000_000), ("torture/few", 40)];

/// Makes a stream as it is, no matter who is first.
fn create(stream: usize) -> Value {
    let (name, keep) = STREAMS[stream];
    json!({"type": "create_stream", "name": name, "keep_entries": keep})
}

/// The subject.
pub(super) struct Streams {
    team: Team<Log>,
    readers: Vec<(Session, Habit, Rc<RefCell<Places>>)>,
    board: Rc<Board>,
}

impl Streams {
    pub(super) fn new(ground: &Ground) -> Result<Self> {
        let habits = [Habit::Acknowledges, Habit::Follows, Habit::Late];
        let sessions = ground.sessions("stream-reader", habits.len())?;
        let readers = sessions.into_iter().zip(habits).map(|(session, habit)| (session, habit, Rc::default()));
        Ok(Self {
            readers: readers.collect(),
            team: Team::new(ground, "stream-writer", PUBLISHERS, Log::new(PUBLISHERS))?,
            board: ground.board.clone(),
        })
    }

    fn add_reader(&self, cast: &mut Cast, reader: usize) {
        let (session, habit, places) = &self.readers[reader];
        let peer = Reader::new(*habit, places, &self.team.book, &self.board);
        let hello = session.hello(json!({}));
        cast.add(|stage| async move {
            let (mut socket, _) = stage.join(&hello).await?;
            (0..STREAMS.len()).for_each(|stream| peer.begin(stream, &mut socket.out));
            stage.ready();
            let mut peer = peer;
            socket.drive(&mut peer, None, stage.phases).await
        });
    }

    async fn at_rest(&mut self, quiet: &Quiet) -> Result<()> {
        let session = &self.readers[0].0;
        let mut asking = quiet.connect(&session.member.session("stream-asking").hello(json!({}))).await?;
        let list: StreamList =
            serde_json::from_value(asking.call(json!({"type": "list_streams"}), "stream_list").await?)?;
        for (stream, (name, keep)) in STREAMS.into_iter().enumerate() {
            let Some(row) = list.streams.iter().find(|row| row.name == name) else {
                ensure!(self.team.book.borrow().end(stream) == 0, "{name} is gone");
                continue;
            };
            ensure!(row.entries == row.next - row.first && row.entries <= keep, "{name} is listed as {row:?}");
            self.read_on(&mut asking, stream, row.first).await?;
            self.team.book.borrow().judge(stream, row.first, row.next).map_err(anyhow::Error::msg)?;
        }
        Ok(())
    }

    /// Reads what was not read before.
    async fn read_on(&self, asking: &mut Asking, stream: usize, first: u64) -> Result<()> {
        let name = STREAMS[stream].0;
        loop {
            let from = self.team.book.borrow().read_up_to(stream);
            let frame = json!({"type": "read_stream", "stream": name, "from": from, "limit": 1_000});
            let page: StreamPage = serde_json::from_value(asking.call(frame, "stream_page").await?)?;
            let gap = page.gap.map(|gap| (gap.from, gap.to));
            let expected = (from < first).then(|| (from, first - 1));
            ensure!(gap == expected, "{name} read from {from} tells the hole {gap:?}, and it is {expected:?}");
            let mut log = self.team.book.borrow_mut();
            log.read(stream, from.max(first), &page).map_err(anyhow::Error::msg)?;
            if page.next >= page.end {
                return Ok(());
            }
        }
    }
}

impl Subject for Streams {
    fn name(&self) -> &'static str {
        "streams"
    }

    fn load(&mut self, cast: &mut Cast) {
        self.team.add(cast, ENTRIES, WINDOW);
        for reader in 0..self.readers.len() {
            if self.readers[reader].1 != Habit::Late {
                self.add_reader(cast, reader);
            }
        }
    }

    fn settle(&mut self, cast: &mut Cast) {
        self.team.add(cast, 2, 1);
        (0..self.readers.len()).for_each(|reader| self.add_reader(cast, reader));
    }

    fn settled(&self) -> bool {
        let log = self.team.book.borrow();
        let here = |places: &Rc<RefCell<Places>>| {
            (0..STREAMS.len()).all(|stream| places.borrow().has_read(stream, log.end(stream)))
        };
        log.asked.open() == 0 && self.readers.iter().all(|(_, _, places)| here(places))
    }

    fn missing(&self) -> String {
        let log = self.team.book.borrow();
        let places: Vec<String> = self.readers.iter().map(|(_, habit, at)| format!("{habit:?} {at:?}")).collect();
        let ends: Vec<u64> = (0..STREAMS.len()).map(|stream| log.end(stream)).collect();
        format!("{} entries without an answer; ends {ends:?}; readers {}", log.asked.open(), places.join(", "))
    }

    fn check<'a>(&'a mut self, quiet: &'a Quiet) -> LocalBoxFuture<'a, Result<()>> {
        self.at_rest(quiet).boxed_local()
    }

    fn audited(&self) -> &'static [Audited] {
        &[
            Audited { event: "stream_created", fields: &["name"] },
            Audited { event: "stream_deleted", fields: &["name"] },
        ]
    }

    fn confirmed(&mut self) -> Vec<Mark> {
        self.team.book.borrow_mut().take_confirmed()
    }

    fn changes(&self) -> Option<u64> {
        Some(STREAMS.len() as u64)
    }

    fn summary(&self) -> String {
        let log = self.team.book.borrow();
        let moved = self.readers.iter().map(|(_, _, places)| places.borrow().acknowledged()).max().unwrap_or_default();
        let (asked, gaps) = (log.asked.summary(), log.gaps());
        format!(
            "{asked}; {} entries in all, {gaps} holes told, a consumer went on up to {moved}",
            log.end(0) + log.end(1)
        )
    }
}
