//! How many sessions that are away a mesh remembers: enough for every session of a week, and not as many as someone makes up.

use std::collections::HashMap;

use claudemesh_protocol::features::presence::Stats;
use claudemesh_protocol::id::{MemberId, PublicKey};
use claudemesh_protocol::limits;

use super::context::Core;
use super::outcome::{Apply, Lane, Outcome, Work};
use super::peers::Roster;
use crate::db::sessions::{self as store, LastSeen, SessionRecord, SessionsPart};
use crate::hash::FastMap;
use crate::journal::Batch;

/// Sessions of one member that are remembered while they are away; the one that was seen last stays longest.
const MAX_PER_MEMBER: usize = 1_000;
/// Sessions of a mesh that are remembered before they are looked through for the first time.
const MANY: usize = 4_096;

impl Roster {
    /// Whether so many sessions are remembered that it pays to look through them: twice what the last look left.
    pub fn knows_many(&self) -> bool {
        self.known.len() >= MANY.max(self.known_left.saturating_mul(2))
    }

    /// Forgets sessions that are away: those not seen since then, and of each member those beyond its share. Returns their keys.
    pub fn forget(&mut self, since_ms: i64) -> Vec<PublicKey> {
        let mut away: Vec<(i64, PublicKey, MemberId)> = self
            .known
            .iter()
            .filter(|(key, _)| self.with_key(key).is_empty())
            .map(|(key, known)| (known.last_seen_ms, *key, known.member.clone()))
            .collect();
        away.sort_unstable_by(|one, other| other.cmp(one));
        let mut kept: FastMap<MemberId, usize> = FastMap::default();
        let mut forgotten = Vec::new();
        for (seen_ms, key, member) in away {
            let count = kept.entry(member).or_default();
            *count += 1;
            if seen_ms < since_ms || *count > MAX_PER_MEMBER {
                self.known.remove(&key);
                forgotten.push(key);
            }
        }
        self.known_left = self.known.len();
        forgotten
    }
}

/// Forgets sessions in memory and storage.
pub fn forget(core: &mut Core) {
    let week = limits::millis(limits::QUEUE_TTL);
    let keys = core.roster.forget(core.clock.believed_ms().saturating_sub(week));
    if keys.is_empty() {
        return;
    }
    let storage = core.storage();
    let future = async move {
        store::forget(&storage, &keys).await?;
        let apply: Apply = Box::new(|_, _| Ok(Outcome::Silent));
        Ok(apply)
    };
    core.work.push(Work::new(Lane::of_mesh("forget"), Box::pin(future)));
}

/// Adds the sessions whose record changed to a batch of the journal.
pub(super) fn collect(core: &mut Core, batch: &mut Batch) {
    let part = batch.part::<SessionsPart>();
    let mut seen: HashMap<MemberId, i64> = std::mem::take(&mut core.seen);
    for key in std::mem::take(&mut core.dirty) {
        if let Some(record) = session_record(core, &key) {
            let last = seen.entry(record.member_id.clone()).or_default();
            *last = (*last).max(record.last_seen_at_ms);
            part.sessions.push(record);
        }
    }
    part.last_seen = seen.into_iter().map(|(member_id, at_ms)| LastSeen { member_id, at_ms }).collect();
}

fn session_record(core: &Core, key: &PublicKey) -> Option<SessionRecord> {
    let known = core.roster.known.get(key)?;
    let peer = core.roster.with_key(key).first().and_then(|at| core.roster.get(*at));
    Some(SessionRecord {
        mesh_id: core.id.clone(),
        session_key: *key,
        member_id: known.member.clone(),
        session_id: peer.map_or(&known.session_id, |peer| &peer.session_id).clone(),
        display_name: peer.map_or(&known.name, |peer| &peer.name).clone(),
        cwd: peer.map_or(&known.cwd, |peer| &peer.cwd).clone(),
        hostname: peer.map_or(&known.hostname, |peer| &peer.hostname).clone(),
        groups: peer.map_or(&known.groups, |peer| &peer.groups).clone(),
        profile: peer.map_or(&known.profile, |peer| &peer.profile).clone(),
        visible: peer.map_or(known.visible, |peer| peer.visible),
        summary: peer.map_or(&known.summary, |peer| &peer.summary).clone(),
        status: peer.map(|peer| peer.status).unwrap_or_default(),
        stats: Stats::default(),
        first_seen_at_ms: core.clock.now_ms(),
        last_seen_at_ms: peer.map_or(known.last_seen_ms, |peer| peer.last_seen_ms),
        proven: known.proven,
        renamed_from: peer.map_or(&known.renamed_from, |peer| &peer.renamed_from).clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::testing::TestMesh;

    fn number(at: u32) -> PublicKey {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&at.to_be_bytes());
        PublicKey::from_bytes(bytes)
    }

    /// A member says hello with ten thousand keys, and others have a few.
    #[actix_rt::test]
    async fn sessions_without_end_are_remembered_up_to_a_share_of_their_member() {
        let mut mesh = TestMesh::new().await;
        let (bob, mallory) = (mesh.member("bob", 2).await, mesh.member("mallory", 3).await);
        let (at, _) = mesh.peer(&bob, "bob", Some(12));
        let now = mesh.core.clock.now_ms();
        let mut known = crate::mesh::attach::known_of(mesh.core.roster.get(at).unwrap());
        known.last_seen_ms = now;
        for age in 0..10 {
            known.last_seen_ms = now - age * 86_400_000;
            mesh.core.roster.known.insert(number(900_000 + age as u32), known.clone());
        }
        known.member = mallory.clone();
        let mut most = 0;
        for made in 0..10_000 {
            known.last_seen_ms = now + i64::from(made);
            mesh.core.roster.known.insert(number(made), known.clone());
            if mesh.core.roster.knows_many() {
                forget(&mut mesh.core);
            }
            most = most.max(mesh.core.roster.known.len());
        }
        assert!(most <= MANY, "{most}");
        forget(&mut mesh.core);
        let known = &mesh.core.roster.known;
        assert_eq!(known.values().filter(|known| known.member == mallory).count(), MAX_PER_MEMBER);
        assert!(known.contains_key(&number(9_999)) && !known.contains_key(&number(0)), "the newest stay");
        let of_bob = known.values().filter(|known| known.member == bob).count();
        assert_eq!(of_bob, 9, "the one that is here, and those of seven days and now");
        assert!(!mesh.core.work.is_empty(), "storage forgets them, too");
    }
}
