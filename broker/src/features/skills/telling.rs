//! Telling everyone who may read skills that one was shared or removed. Clients read the list again, so it is enough that
//! everyone hears after the last change; how often does not matter.

use std::collections::BTreeSet;

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::features::skills::{REMOVED, SHARED, SkillsChanged};

use crate::mesh::context::MeshContext;
use crate::mesh::peers::{Peer, PeerHandle};

/// Who has still to be told.
#[derive(Default)]
pub struct Telling {
    /// A change found no room in the budget of events.
    untold: bool,
    /// Their queues were full.
    behind: BTreeSet<PeerHandle>,
}

/// What is told of a skill that was shared.
pub(super) fn shared(name: &str, version: u32, by: &str) -> SkillsChanged {
    SkillsChanged { version: Some(version), ..change(name, SHARED, by) }
}

/// What is told of a skill that was removed.
pub(super) fn removed(name: &str, by: &str) -> SkillsChanged {
    change(name, REMOVED, by)
}

fn change(name: &str, action: &str, by: &str) -> SkillsChanged {
    SkillsChanged { name: Some(name.into()), action: Some(action.into()), version: None, by: Some(by.into()) }
}

/// Sessions that know the event; a verb at the shell keeps no list.
fn listens(peer: &Peer) -> bool {
    !peer.ephemeral && !peer.older
}

impl Telling {
    /// Tells a change. Its author is told as well: the list of its own session changes, too.
    pub(super) fn tell(&mut self, cx: &mut MeshContext<'_>, change: SkillsChanged) {
        match cx.tell(&change.into(), Capability::CanReadShared, listens) {
            Some(missed) => self.behind.extend(missed),
            None => self.untold = true,
        }
    }

    /// Tells in one event what could not be told before.
    pub(super) fn tell_late(&mut self, cx: &mut MeshContext<'_>) {
        if std::mem::take(&mut self.untold) {
            // Those who were behind are among them.
            self.behind.clear();
            self.tell(cx, SkillsChanged::default());
        }
        if self.behind.is_empty() {
            return;
        }
        let event = SkillsChanged::default().into();
        self.behind.retain(|at| {
            let there = cx.roster().get(*at).is_some_and(Peer::online);
            // Who comes back reads the list anyway.
            there && !cx.push(*at, &event)
        });
    }
}
