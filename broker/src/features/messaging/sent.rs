//! How many messages each member sent, for the audit log: one entry per member and minute, not one per message.

use claudemesh_protocol::call::Nothing;
use claudemesh_protocol::id::MemberId;
use futures_util::future::join_all;
use serde_json::json;

use super::Messaging;
use super::state::MessagingMemory;
use crate::audit::{self, By};
use crate::hash::FastMap;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::{Lane, Outcome};
use crate::refusal::Refusal;

/// One entry covers this time.
const PERIOD_MS: i64 = 60_000;

/// Messages since the last entries.
#[derive(Debug, Default)]
pub struct Sent {
    counts: FastMap<MemberId, u64>,
    /// Monotonic and wall time of the first one.
    since: (i64, i64),
}

impl Sent {
    /// One more message of a member.
    pub fn count(&mut self, member: &MemberId, moment: impl FnOnce() -> (i64, i64)) {
        if let Some(count) = self.counts.get_mut(member) {
            *count += 1;
            return;
        }
        if self.counts.is_empty() {
            self.since = moment();
        }
        self.counts.insert(member.clone(), 1);
    }
}

/// Writes the entries when the time is over, and at once when no one is here or the mesh stops.
pub(super) fn tick(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, stops: bool) {
    let sent = &mut memory.sent;
    let (since_mono_ms, since_ms) = sent.since;
    let due = stops || cx.roster().is_empty() || cx.mono_ms() - since_mono_ms >= PERIOD_MS;
    if sent.counts.is_empty() || !due {
        return;
    }
    let counts: Vec<(MemberId, u64)> = std::mem::take(&mut sent.counts).into_iter().collect();
    let (storage, now) = (cx.storage(), cx.now_ms());
    let slow = async move {
        let entries = counts.iter().map(|(member, count)| {
            let entry = By::member(member, now).entry("messages_sent", json!({"count": count, "since": since_ms}));
            audit::append(&storage, entry)
        });
        let done = join_all(entries).await;
        let failed = counts.into_iter().zip(done).filter_map(|(count, done)| Some((count, done.err()?)));
        Ok::<_, Refusal>(failed.collect::<Vec<_>>())
    };
    let work = Messaging::work_or_failure(Lane::of::<Messaging>("sent"), slow, move |memory, cx, failed| {
        // What may have been written is not written again: a count too low by a minute is better than one too high.
        let failed = failed.inspect_err(|error| {
            tracing::warn!(mesh.id = %cx.mesh_id(), %error, "the counts of a minute may be missing in the audit log");
        });
        for ((member, count), error) in failed.unwrap_or_default() {
            tracing::warn!(mesh.id = %cx.mesh_id(), %error, "a count of messages goes into the next entry");
            memory.sent.since = (cx.mono_ms(), since_ms);
            *memory.sent.counts.entry(member).or_default() += count;
        }
        Ok(Outcome::<Nothing>::Silent)
    });
    if let Outcome::Work(work) = work {
        cx.spawn(work);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use claudemesh_protocol::features::messaging::Priority;

    use crate::audit::{Filter, query};
    use crate::mesh::testing::TestMesh;

    #[actix_rt::test]
    async fn messages_are_counted_once_a_minute_for_each_member() {
        let mut mesh = TestMesh::new().await;
        let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
        let (one, _) = mesh.peer(&alice, "alice", Some(11));
        let (other, _) = mesh.peer(&bob, "bob", Some(12));
        let counted = async |mesh: &TestMesh| {
            let filter = Filter { event: Some("messages_sent".into()), ..Filter::default() };
            let found = query(&mesh.core.storage(), &filter, 9).await.unwrap();
            let mut rows: Vec<_> = found.into_iter().map(|row| (row.actor_member_id, row.payload)).collect();
            rows.sort();
            rows
        };
        for _ in 0..3 {
            mesh.send(one, "bob", Priority::Next, "aGk=").ok().unwrap();
        }
        mesh.send(other, "alice", Priority::Next, "aGk=").ok().unwrap();
        mesh.advance(Duration::from_millis(59_999));
        mesh.tick();
        mesh.settle().await;
        assert!(counted(&mesh).await.is_empty(), "not one each");
        mesh.advance(Duration::from_millis(1));
        mesh.tick();
        mesh.settle().await;
        let payload = |count: u64| format!(r#"{{"count":{count},"since":1700000000000}}"#);
        assert_eq!(counted(&mesh).await, [(Some(alice), payload(3)), (Some(bob), payload(1))]);
        mesh.advance(Duration::from_secs(600));
        mesh.tick();
        mesh.settle().await;
        assert_eq!(counted(&mesh).await.len(), 2, "nothing was sent since then");
    }
}
