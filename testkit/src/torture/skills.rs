//! Skills.
//!
//! The promise: a confirmed version of a skill is there once after a kill, under the number that the confirmation named and with its
//! text; numbers grow by one and none is left out; a text that was shared again because the answer was lost makes no second version; a
//! skill that was removed is gone with all its versions; a search finds a skill by its newest words only.

mod log;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use claudemesh_protocol::features::skills::{Skill, SkillData, SkillEntry, SkillList};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use serde_json::json;

use self::log::Log;
use super::asked::{Book, Team};
use super::audit::{Audited, Mark};
use super::cast::{Asking, Cast, Quiet};
use super::{Ground, Subject};
use crate::identity::Session;

const SHARERS: usize = 2;
/// Requests of one sharer that wait for their answer.
const WINDOW: usize = 3;
/// Requests of one sharer in a round: a member may change 60 skills in a minute.
const REQUESTS: u32 = 14;

/// The subject.
pub(super) struct Skills {
    team: Team<Log>,
    asking: Session,
}

impl Skills {
    pub(super) fn new(ground: &Ground) -> Result<Self> {
        let team = Team::new(ground, "skill-sharer", SHARERS, Log::new(SHARERS))?;
        Ok(Self { team, asking: ground.mesh.creator.session("skill-asking") })
    }

    async fn at_rest(&mut self, quiet: &Quiet) -> Result<()> {
        let mut asking = quiet.connect(&self.asking.hello(json!({}))).await?;
        let listed = everything(&mut asking, &json!({})).await?;
        self.team.book.borrow().judge(&listed).map_err(anyhow::Error::msg)?;
        let changed = self.team.book.borrow_mut().take_changed();
        for name in changed {
            let newest = skill(&mut asking, &name, None).await?;
            self.team.book.borrow().shown(&name, None, newest.as_ref()).map_err(anyhow::Error::msg)?;
            let kept = newest.map(|skill| skill.versions).unwrap_or_default();
            for version in kept.iter().skip(1).map(|kept| kept.version) {
                let former = skill(&mut asking, &name, Some(version)).await?;
                self.team.book.borrow().shown(&name, Some(version), former.as_ref()).map_err(anyhow::Error::msg)?;
            }
            let wanted = self.team.book.borrow().searches(&name);
            for (mark, there) in wanted {
                let found = everything(&mut asking, &json!({"query": mark})).await?;
                let (found, expected): (Vec<&String>, _) =
                    (found.keys().collect(), if there { vec![&name] } else { vec![] });
                ensure!(found == expected, "a search for {mark} finds {found:?}, and it should be {expected:?}");
            }
        }
        let info = asking.call(json!({"type": "mesh_info"}), "mesh_info_result").await?;
        let counted = info["skillCount"].as_u64().context("a count of skills")?;
        ensure!(counted == listed.len() as u64, "{counted} skills are counted, {} listed", listed.len());
        Ok(())
    }
}

/// All skills that fit, by name.
async fn everything(asking: &mut Asking, only: &serde_json::Value) -> Result<BTreeMap<String, SkillEntry>> {
    let (mut rows, mut cursor) = (BTreeMap::new(), None::<String>);
    loop {
        let frame = json!({"type": "list_skills", "limit": 4, "cursor": cursor, "query": only["query"]});
        let page: SkillList = serde_json::from_value(asking.call(frame, "skill_list").await?)?;
        for row in page.skills {
            let name = row.name.clone();
            ensure!(rows.insert(name.clone(), row).is_none(), "{name} is in the list twice");
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(rows);
        }
    }
}

async fn skill(asking: &mut Asking, name: &str, version: Option<u32>) -> Result<Option<Skill>> {
    let frame = json!({"type": "get_skill", "name": name, "version": version});
    let data: SkillData = serde_json::from_value(asking.call(frame, "skill_data").await?)?;
    Ok(data.skill)
}

impl Subject for Skills {
    fn name(&self) -> &'static str {
        "skills"
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
            Audited { event: "skill_shared", fields: &["name", "version", "size"] },
            // Names and numbers come again when a skill is shared anew, its id does not.
            Audited { event: "skill_removed", fields: &["skill"] },
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
        let (versions, removed) = log.counts();
        format!(
            "{}; {versions} versions once each under their numbers, {removed} skills removed for good",
            log.asked.summary()
        )
    }
}
