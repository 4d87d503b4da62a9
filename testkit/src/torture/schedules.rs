//! Schedules.
//!
//! The promise: a confirmed entry is there once after a kill; each time of it gives exactly one message, whose ID and idempotency key are
//! the same however often it comes, and none comes before its time; an entry that was moved comes at its new time only, one that was
//! cancelled never; of one that recurs no minute is left out, by the clock of the broker and by that of the mesh.

mod log;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use claudemesh_protocol::features::messaging::Push;
use claudemesh_protocol::features::schedules::{ScheduledEntry, ScheduledList};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use serde_json::json;

use self::log::Log;
use super::asked::Team;
use super::audit::{Audited, Mark};
use super::cast::{Asking, Board, Cast, Quiet};
use super::{Ground, SETTLE, Subject};
use crate::clock::now_ms;
use crate::identity::Session;
use crate::wire::{Out, Peer, is};

const SCHEDULERS: usize = 2;
/// One is there under load, one is away.
const RECIPIENTS: usize = 2;
/// Requests of one scheduler that wait for their answer.
const WINDOW: usize = 3;
/// Requests of one scheduler in a round.
const REQUESTS: u32 = 16;
/// Time for what was sent to be noted as sent.
const NOTED: Duration = SETTLE;

/// One connection of a recipient: it acknowledges what comes.
struct Reader {
    recipient: usize,
    log: Rc<RefCell<Log>>,
    board: Rc<Board>,
}

impl Reader {
    fn read(&self, text: &[u8], out: &mut Out) -> Result<(), String> {
        if is(text, "error") {
            return Err(format!("it was refused: {}", String::from_utf8_lossy(text)));
        }
        if !is(text, "push") {
            return Ok(());
        }
        let push: Push = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if push.event.is_some() {
            return Ok(());
        }
        self.log.borrow_mut().arrived(self.recipient, &push, now_ms())?;
        let ack = json!({"type": "client_ack", "brokerMessageId": push.message_id});
        out.text(&[ack.to_string().as_bytes()]);
        Ok(())
    }
}

impl Peer for Reader {
    fn frame(&mut self, text: &[u8], out: &mut Out) {
        if let Err(fault) = self.read(text, out) {
            return self.board.fail(format!("schedules, recipient {}: {fault}", self.recipient));
        }
        self.board.change();
    }
}

/// The subject.
pub(super) struct Schedules {
    team: Team<Log>,
    recipients: Vec<Session>,
    board: Rc<Board>,
    asking: Session,
}

impl Schedules {
    pub(super) fn new(ground: &Ground) -> Result<Self> {
        let recipients = ground.sessions("reminded", RECIPIENTS)?;
        let log = Log::new(SCHEDULERS, recipients.iter().map(Session::pubkey).collect());
        let team = Team::new(ground, "scheduler", SCHEDULERS, log)?;
        let (board, asking) = (ground.board.clone(), ground.mesh.creator.session("schedule-asking"));
        Ok(Self { team, recipients, board, asking })
    }

    fn add_reader(&self, cast: &mut Cast, recipient: usize) {
        let (log, board) = (self.team.book.clone(), self.board.clone());
        cast.connect(self.recipients[recipient].hello(json!({})), Reader { recipient, log, board });
    }

    async fn at_rest(&mut self, quiet: &Quiet) -> Result<()> {
        let mut asking = quiet.connect(&self.asking.hello(json!({}))).await?;
        // A message is there before its entry is noted as sent.
        let noted = async {
            loop {
                let rows = everything(&mut asking).await?;
                if rows.iter().all(|row| !log::is_on_its_way(row)) {
                    return Ok::<_, anyhow::Error>(rows);
                }
            }
        };
        let rows = match tokio::time::timeout(NOTED, noted).await {
            Ok(rows) => rows?,
            Err(_) => everything(&mut asking).await?,
        };
        self.team.book.borrow_mut().judge(&rows).map_err(anyhow::Error::msg)
    }
}

/// All entries of everyone, those that are over included.
async fn everything(asking: &mut Asking) -> Result<Vec<ScheduledEntry>> {
    let (mut rows, mut cursor) = (Vec::<ScheduledEntry>::new(), None::<String>);
    loop {
        let frame = json!({"type": "list_scheduled", "everyone": true, "ended": true, "cursor": cursor});
        let page: ScheduledList = serde_json::from_value(asking.call(frame, "scheduled_list").await?)?;
        rows.extend(page.messages);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(rows);
        }
        ensure!(rows.len() < 1_000_000, "the list has no end");
    }
}

impl Subject for Schedules {
    fn name(&self) -> &'static str {
        "schedules"
    }

    fn load(&mut self, cast: &mut Cast) {
        self.team.add(cast, REQUESTS, WINDOW);
        self.add_reader(cast, 0);
    }

    fn settle(&mut self, cast: &mut Cast) {
        let requests = self.team.book.borrow_mut().look_again();
        self.team.add(cast, requests + 1, 1);
        (0..RECIPIENTS).for_each(|recipient| self.add_reader(cast, recipient));
    }

    fn settled(&self) -> bool {
        self.team.book.borrow().settled()
    }

    fn missing(&self) -> String {
        self.team.book.borrow().missing()
    }

    fn check<'a>(&'a mut self, quiet: &'a Quiet) -> LocalBoxFuture<'a, Result<()>> {
        self.at_rest(quiet).boxed_local()
    }

    fn audited(&self) -> &'static [Audited] {
        &[
            Audited { event: "schedule_created", fields: &["scheduleId", "at"] },
            Audited { event: "schedule_edited", fields: &["scheduleId", "at"] },
            Audited { event: "schedule_cancelled", fields: &["scheduleId", "at"] },
        ]
    }

    fn confirmed(&mut self) -> Vec<Mark> {
        self.team.book.borrow_mut().take_confirmed()
    }

    fn changes(&self) -> Option<u64> {
        Some(self.team.book.borrow().changes())
    }

    fn summary(&self) -> String {
        self.team.book.borrow().summary()
    }
}
