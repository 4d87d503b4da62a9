//! One step of a mesh on plain data: what the actor and the tests run.

use super::context::{Caller, Core, FlushWanted, MeshContext};
use super::dispatch::Features;
use super::known_sessions;
use crate::journal::Batch;

/// Runs something on the features, then tells them the events that it caused.
pub(super) fn step<T>(
    core: &mut Core,
    features: &mut Features,
    caller: Option<Caller>,
    run: impl FnOnce(&mut Features, &mut MeshContext<'_>) -> T,
) -> T {
    let mut cx = MeshContext::new(core, caller);
    let result = run(features, &mut cx);
    cx.without_caller();
    while let Some(event) = cx.core.events.pop_front() {
        features.on_event(&mut cx, &event);
    }
    result
}

/// Takes what is to be written: the records that changed, then what each feature has.
pub(super) fn collect(core: &mut Core, features: &mut Features, wanted: FlushWanted) -> Batch {
    let mut batch = Batch::default();
    known_sessions::collect(core, &mut batch);
    features.collect(&mut MeshContext::new(core, None), wanted, &mut batch);
    batch
}

/// Whether nothing of this mesh waits for storage.
pub(super) fn is_settled(core: &mut Core, features: &Features) -> bool {
    core.dirty.is_empty() && features.is_settled(&MeshContext::new(core, None))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use claudemesh_protocol::capability::Capability;

    use crate::mesh::context::EVENT_FRAMES_PER_SECOND;
    use crate::mesh::peers::{Moment, Peer};
    use crate::mesh::testing::TestMesh;
    use crate::mesh::tick::tell_left_out;

    const ANYONE: Option<Capability> = None;

    #[actix_rt::test]
    async fn all_events_of_a_second_share_one_budget_of_frames() {
        let mut mesh = TestMesh::new().await;
        let alice = mesh.member("alice", 1).await;
        let (_, frames) = mesh.peer(&alice, "alice", Some(11));
        let left = mesh.step(None, |_, cx| {
            for number in 0..EVENT_FRAMES_PER_SECOND + 10 {
                let event = cx.system_event("changed", json!({ "number": number }));
                if cx.tell(&event, ANYONE, |_| true).is_none() && number % 2 == 0 {
                    cx.leave_out("many_changed");
                }
            }
            cx.core.left_out.clone()
        });
        mesh.settle_frames().await;
        let pushed = TestMesh::take(&frames, "push").len() as u64;
        assert!((1..=EVENT_FRAMES_PER_SECOND).contains(&pushed), "{pushed}");
        assert_eq!(mesh.core.event_budget, 0);
        assert_eq!(left, [("many_changed", 5)].into(), "those that may be lost are not told of");
    }

    #[actix_rt::test]
    async fn a_mesh_of_more_peers_than_frames_is_told_too_and_by_turns() {
        let mut mesh = TestMesh::new().await;
        let (alice, bob) = (mesh.member("alice", 1).await, mesh.member("bob", 2).await);
        let (_, frames) = mesh.peer(&alice, "alice", Some(11));
        let owner = mesh.core.roster.member(&bob).unwrap().clone();
        for _ in 0..EVENT_FRAMES_PER_SECOND {
            let at = mesh.core.roster.next_ref();
            mesh.core.roster.insert(Peer::new(at, &owner, None, Moment::default()));
        }
        let event = mesh.step(None, |_, cx| cx.system_event("changed", json!({})));
        let tell = |mesh: &mut TestMesh| mesh.step(None, |_, cx| cx.tell(&event, ANYONE, |_| true).is_some());
        mesh.core.event_budget = EVENT_FRAMES_PER_SECOND;
        assert!(tell(&mut mesh), "one event of a second goes to everyone");
        // From now on one event waits in each second, and one is left out.
        for _ in 0..4 {
            assert!(!tell(&mut mesh));
            assert!(!tell(&mut mesh));
            mesh.step(None, |_, cx| cx.leave_out("roster_changed"));
            mesh.core.event_budget = EVENT_FRAMES_PER_SECOND;
            tell_left_out(&mut mesh.core);
            tell(&mut mesh);
        }
        mesh.settle_frames().await;
        let told: Vec<_> = TestMesh::take(&frames, "push").iter().map(|push| push["event"].clone()).collect();
        assert_eq!(told, ["changed", "changed", "roster_changed", "changed", "roster_changed"]);
    }

    #[actix_rt::test]
    async fn a_feature_is_woken_when_its_time_has_come() {
        let mut mesh = TestMesh::new().await;
        mesh.advance(Duration::ZERO);
        mesh.settle().await;
        assert!(mesh.core.work.is_empty());
        mesh.advance(Duration::from_secs(3_599));
        assert!(mesh.core.work.is_empty(), "messages expire by the hour");
        mesh.advance(Duration::from_secs(1));
        assert_eq!(mesh.core.work.len(), 1);
        assert!(mesh.core.timers.next_mono_ms().is_some_and(|next| next > mesh.core.clock.mono_ms()));
    }
}
