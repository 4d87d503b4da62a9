//! Memory.
//!
//! The promise: a confirmed memory is recalled exactly once after a kill, also when it was stored again because the answer was lost; a
//! forgotten one is never recalled.

mod log;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use claudemesh_protocol::features::memory::{Memory as Row, MemoryResults};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use serde_json::json;

use self::log::Log;
use super::asked::{Book, Team};
use super::audit::{Audited, Mark};
use super::cast::{Asking, Cast, Quiet};
use super::{Ground, Subject};
use crate::identity::Session;

const AUTHORS: usize = 2;
/// Requests of one author that wait for their answer.
const WINDOW: usize = 4;
/// Requests of one author in a round.
const REQUESTS: u32 = 14;

/// The subject.
pub(super) struct Memory {
    team: Team<Log>,
    asking: Session,
}

impl Memory {
    pub(super) fn new(ground: &Ground) -> Result<Self> {
        let team = Team::new(ground, "author", AUTHORS, Log::new(AUTHORS))?;
        Ok(Self { team, asking: ground.mesh.creator.session("memory-asking") })
    }

    async fn at_rest(&mut self, quiet: &Quiet) -> Result<()> {
        let mut asking = quiet.connect(&self.asking.hello(json!({}))).await?;
        let listed = everything(&mut asking).await?;
        self.team.book.borrow_mut().judge(&listed).map_err(anyhow::Error::msg)?;
        let changed = self.team.book.borrow_mut().take_changed();
        for (mark, lives) in changed {
            let frame = json!({"type": "recall", "query": mark});
            let found: MemoryResults = serde_json::from_value(asking.call(frame, "memory_results").await?)?;
            log::recalled(&mark, lives, &found).map_err(anyhow::Error::msg)?;
        }
        let info = asking.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
        let counted = info["memoryCount"].as_u64().context("a count of memories")?;
        ensure!(counted == listed.len() as u64, "{counted} memories are counted, {} listed", listed.len());
        Ok(())
    }
}

/// All memories by id.
async fn everything(asking: &mut Asking) -> Result<BTreeMap<String, Row>> {
    let (mut rows, mut cursor) = (BTreeMap::new(), None::<String>);
    loop {
        let frame = json!({"type": "list_memories", "limit": 100, "cursor": cursor});
        let page: MemoryResults = serde_json::from_value(asking.call(frame, "memory_results").await?)?;
        for row in page.memories {
            let id = row.id.clone();
            ensure!(rows.insert(id.clone(), row).is_none(), "{id} is in the list twice");
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(rows);
        }
    }
}

impl Subject for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn load(&mut self, cast: &mut Cast) {
        self.team.add(cast, REQUESTS, WINDOW);
    }

    fn settle(&mut self, cast: &mut Cast) {
        self.team.add_again(cast);
    }

    fn settled(&self) -> bool {
        let log = self.team.book.borrow();
        log.asked.open() == 0 && log.to_repeat() == 0
    }

    fn missing(&self) -> String {
        format!("{} requests without an answer", self.team.book.borrow().asked.open())
    }

    fn check<'a>(&'a mut self, quiet: &'a Quiet) -> LocalBoxFuture<'a, Result<()>> {
        self.at_rest(quiet).boxed_local()
    }

    fn audited(&self) -> &'static [Audited] {
        &[
            Audited { event: "memory_stored", fields: &["memory"] },
            Audited { event: "memory_forgotten", fields: &["memory"] },
        ]
    }

    fn confirmed(&mut self) -> Vec<Mark> {
        self.team.book.borrow_mut().take_confirmed()
    }

    fn changes(&self) -> Option<u64> {
        Some(self.team.book.borrow().changes())
    }

    fn summary(&self) -> String {
        let log = self.team.book.borrow();
        let (lives, forgotten) = log.counts();
        format!("{}; {lives} memories recalled once each, {forgotten} forgotten and never", log.asked.summary())
    }
}
