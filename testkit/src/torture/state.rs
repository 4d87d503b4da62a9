//! Shared state.
//!
//! The promise: a confirmed write is there after a kill; versions of a key and revisions of the mesh grow by one with each write, none
//! is left out or given twice; of several who compare one wins; a reader that is connected is told of every write in the order of the
//! revisions; one that comes back learns the rest with `list_state since`.

mod log;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use claudemesh_protocol::features::contexts::STATE_KEY_PREFIX;
use claudemesh_protocol::features::state::{StateChange, StateEntry, StateList};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use self::log::{Act, Log};
use super::asked::{Book, Team};
use super::audit::{Audited, Mark};
use super::cast::{Asking, Board, Cast, Quiet};
use super::{Ground, Subject};
use crate::identity::{Session, merged};
use crate::wire::{Out, Peer, is};

const WRITERS: usize = 3;
/// One is there under load, one is away.
const READERS: usize = 2;
/// Writes of one writer that wait for their answer.
const WINDOW: usize = 4;
/// Writes of one writer in a round: every one is an entry in the audit log, which is followed after each round.
const WRITES: u32 = 40;
/// Several writers write each; the last one is also deleted.
const KEYS: [&str; 4] = ["deploy/blue", "deploy/green", "ünï \"quoted\"", "lock"];
/// Only ever written by comparing.
const COUNTER: &str = "counter";

type Shared = Rc<RefCell<Log>>;

impl Book for Log {
    const NAME: &'static str = "state";

    fn ask(&mut self, writer: usize, random: &mut StdRng) -> Option<(usize, Value)> {
        let key = KEYS[random.gen_range(0..KEYS.len())];
        let (key, act) = match random.gen_range(0..20) {
            0..=9 => (key, Act::Set),
            10..=17 => (COUNTER, Act::Compare { expected: self.version(COUNTER) }),
            _ => (KEYS[KEYS.len() - 1], Act::Delete),
        };
        let (number, mark) = self.begin(writer, key, act);
        let frame = match act {
            Act::Set => json!({"type": "set_state", "key": key, "value": mark}),
            Act::Compare { expected } => {
                let value = json!({"by": mark, "count": expected + 1});
                json!({"type": "set_state", "key": key, "value": value, "expected_version": expected})
            }
            Act::Delete => json!({"type": "delete_state", "key": key}),
        };
        Some((number, merged(frame, json!({"confirm": true}))))
    }

    fn answered(&mut self, writer: usize, number: usize, answer: &Value) -> Result<(), String> {
        if answer["type"] != "done" {
            return self.refused(writer, number, answer);
        }
        match (answer["version"].as_u64(), answer["revision"].as_u64()) {
            (Some(version), Some(revision)) => self.confirmed(writer, number, version, revision),
            _ => Err(format!("a confirmation without version and revision: {answer}")),
        }
    }

    fn cut_off(&mut self) {
        self.asked.cut_off();
    }
}

/// What a reader knows, made of what it was told and what it asked for.
#[derive(Clone, Debug, Default)]
struct View {
    /// All changes up to here are in `rows`.
    revision: u64,
    rows: BTreeMap<String, StateEntry>,
    /// The list of what changed before it came is here.
    caught_up: bool,
}

impl View {
    fn put(&mut self, row: StateEntry) {
        if self.rows.get(&row.key).is_none_or(|known| known.revision < row.revision) {
            self.rows.insert(row.key.clone(), row);
        }
    }
}

/// One reader's connection.
struct Watcher {
    reader: usize,
    /// Told up to here.
    told: u64,
    since: u64,
    view: Rc<RefCell<View>>,
    log: Shared,
    board: Rc<Board>,
}

fn ask_since(since: u64, cursor: Option<&str>) -> Value {
    json!({"type": "list_state", "_reqId": "since", "since": since, "limit": 2, "cursor": cursor})
}

impl Watcher {
    fn told(&mut self, change: StateChange) -> Result<(), String> {
        let StateChange { key, value, updated_by, version, revision, deleted } = change;
        // The summary of a context comes the same way, and is no key.
        if revision == 0 && key.starts_with(STATE_KEY_PREFIX) {
            return Ok(());
        }
        if revision != self.told + 1 {
            return Err(format!("it was told of revision {revision} after {}", self.told));
        }
        self.told = revision;
        let updated_at = String::new();
        let row = StateEntry { key, value, updated_by, updated_at, version, revision, deleted, expires_at: None };
        self.log.borrow_mut().see(&row)?;
        let mut view = self.view.borrow_mut();
        view.put(row);
        if view.caught_up {
            view.revision = view.revision.max(revision);
        }
        Ok(())
    }

    fn listed(&mut self, list: StateList, out: &mut Out) -> Result<(), String> {
        if list.incomplete {
            return Err(format!("the list since {} is incomplete", self.since));
        }
        let mut view = self.view.borrow_mut();
        for row in list.entries {
            self.log.borrow_mut().see(&row)?;
            view.put(row);
        }
        if let Some(next) = list.next {
            out.text(&[ask_since(self.since, Some(&next)).to_string().as_bytes()]);
        } else {
            view.caught_up = true;
            view.revision = view.revision.max(list.revision).max(self.told);
        }
        Ok(())
    }

    fn read(&mut self, text: &[u8], out: &mut Out) -> Result<(), String> {
        let wrong = |error: serde_json::Error| format!("{error}: {}", String::from_utf8_lossy(text));
        if is(text, "state_change") {
            self.told(serde_json::from_slice(text).map_err(wrong)?)
        } else if is(text, "state_list") {
            self.listed(serde_json::from_slice(text).map_err(wrong)?, out)
        } else if is(text, "state_missed") || is(text, "error") {
            Err(format!("it got {}", String::from_utf8_lossy(text)))
        } else {
            Ok(())
        }
    }
}

impl Peer for Watcher {
    fn frame(&mut self, text: &[u8], out: &mut Out) {
        if let Err(fault) = self.read(text, out) {
            return self.board.fail(format!("state, reader {}: {fault}", self.reader));
        }
        self.board.change();
    }
}

/// The subject.
pub(super) struct State {
    writers: Team<Log>,
    readers: Vec<Session>,
    views: Vec<Rc<RefCell<View>>>,
    log: Shared,
    board: Rc<Board>,
    asking: Session,
    revision: u64,
}

impl State {
    pub(super) fn new(ground: &Ground) -> Result<Self> {
        let writers = Team::new(ground, "state-writer", WRITERS, Log::new(WRITERS))?;
        let readers = ground.sessions("state-reader", READERS)?;
        Ok(Self {
            log: writers.book.clone(),
            writers,
            asking: readers[0].member.session("state-asking"),
            readers,
            views: (0..READERS).map(|_| Rc::default()).collect(),
            board: ground.board.clone(),
            revision: 0,
        })
    }

    fn add_reader(&self, cast: &mut Cast, reader: usize) {
        let (view, log, board) = (self.views[reader].clone(), self.log.clone(), self.board.clone());
        let hello = self.readers[reader].hello(json!({}));
        cast.add(|stage| async move {
            let (mut socket, welcome) = stage.join(&hello).await?;
            let told = welcome["features"]["state"]["revision"].as_u64().context("a welcome says the revision")?;
            let since = view.borrow().revision;
            ensure!(told >= since, "reader {reader} saw revision {since}, and the broker is at {told}");
            view.borrow_mut().caught_up = false;
            socket.out.text(&[ask_since(since, None).to_string().as_bytes()]);
            stage.ready();
            socket.drive(&mut Watcher { reader, told, since, view, log, board }, None, stage.phases).await
        });
    }
}

/// All keys, those that were deleted among them.
async fn everything(asking: &mut Asking) -> Result<(u64, BTreeMap<String, StateEntry>)> {
    let (mut rows, mut cursor) = (BTreeMap::new(), None);
    loop {
        let frame = json!({"type": "list_state", "since": 0, "cursor": cursor});
        let list: StateList = serde_json::from_value(asking.call(frame, "state_list").await?)?;
        ensure!(!list.incomplete, "the list of everything is incomplete");
        rows.extend(list.entries.into_iter().map(|row| (row.key.clone(), row)));
        cursor = list.next;
        if cursor.is_none() {
            return Ok((list.revision, rows));
        }
    }
}

impl State {
    async fn at_rest(&mut self, quiet: &Quiet) -> Result<()> {
        let mut asking = quiet.connect(&self.asking.hello(json!({}))).await?;
        let (revision, rows) = everything(&mut asking).await?;
        self.log.borrow_mut().judge(revision, &rows)?;
        for (reader, view) in self.views.iter().enumerate() {
            let view = view.borrow();
            ensure!(
                view.revision == revision,
                "reader {reader} knows revision {}, and it is {revision}",
                view.revision
            );
            for (key, row) in &rows {
                let known = view.rows.get(key).map(|known| (&known.value, known.version, known.deleted));
                ensure!(
                    known == Some((&row.value, row.version, row.deleted)),
                    "reader {reader} knows {known:?} of {key}, and it is {row:?}"
                );
            }
        }
        let list = asking.call(json!({"type": "list_state"}), "state_list").await?;
        let list: StateList = serde_json::from_value(list)?;
        let listed: Vec<_> = list.entries.iter().map(|row| (&row.key, &row.value, row.version)).collect();
        let live = rows.values().filter(|row| !row.deleted);
        let live: Vec<_> = live.map(|row| (&row.key, &row.value, row.version)).collect();
        ensure!(listed == live, "`list_state` shows {listed:?}, and with `since` it is {live:?}");
        self.revision = revision;
        Ok(())
    }
}

impl Subject for State {
    fn name(&self) -> &'static str {
        "state"
    }

    fn load(&mut self, cast: &mut Cast) {
        self.writers.add(cast, WRITES, WINDOW);
        self.add_reader(cast, 0);
    }

    fn settle(&mut self, cast: &mut Cast) {
        self.writers.add(cast, 2, 1);
        (0..READERS).for_each(|reader| self.add_reader(cast, reader));
    }

    fn settled(&self) -> bool {
        let log = self.log.borrow();
        let all = |view: &Rc<RefCell<View>>| view.borrow().caught_up && view.borrow().revision >= log.last_confirmed();
        log.asked.open() == 0 && self.views.iter().all(all)
    }

    fn missing(&self) -> String {
        let log = self.log.borrow();
        let views = self.views.iter().map(|view| view.borrow());
        let views: Vec<String> = views.map(|view| format!("{} (listed: {})", view.revision, view.caught_up)).collect();
        format!(
            "{} writes without an answer; readers know revisions {}, and {} is confirmed",
            log.asked.open(),
            views.join(" and "),
            log.last_confirmed()
        )
    }

    fn check<'a>(&'a mut self, quiet: &'a Quiet) -> LocalBoxFuture<'a, Result<()>> {
        self.at_rest(quiet).boxed_local()
    }

    fn audited(&self) -> &'static [Audited] {
        &[
            Audited { event: "state_set", fields: &["key", "version"] },
            Audited { event: "state_deleted", fields: &["key", "version"] },
        ]
    }

    fn confirmed(&mut self) -> Vec<Mark> {
        self.log.borrow_mut().take_confirmed()
    }

    fn changes(&self) -> Option<u64> {
        Some(self.revision)
    }

    fn summary(&self) -> String {
        self.log.borrow().summary(self.revision)
    }
}
