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

    use crate::mesh::testing::TestMesh;

    #[actix_rt::test]
    async fn a_feature_is_woken_when_its_time_has_come() {
        let mut mesh = TestMesh::new().await;
        mesh.advance(Duration::ZERO);
        mesh.settle().await;
        assert!(mesh.core.work.is_empty());
        mesh.advance(Duration::from_secs(3_599));
        assert!(mesh.core.work.iter().all(|work| work.lane.feature != "messaging"), "messages expire by the hour");
        mesh.settle().await;
        mesh.advance(Duration::from_secs(1));
        assert_eq!(mesh.core.work.len(), 1);
        assert!(mesh.core.timers.next_mono_ms().is_some_and(|next| next > mesh.core.clock.mono_ms()));
    }
}
