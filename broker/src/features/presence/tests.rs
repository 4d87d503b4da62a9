use claudemesh_protocol::features::presence::{Request, SetStats, Stats};

use super::Presence;
use crate::mesh::dispatch::Feature;
use crate::mesh::testing::TestMesh;

#[actix_rt::test]
async fn counters_without_bound_add_up_to_a_bounded_total() {
    let mut mesh = TestMesh::new().await;
    let bob = mesh.member("bob", 2).await;
    let (at, _) = mesh.peer(&bob, "bob", Some(12));
    let memory = &mut mesh.features.presence;
    for round in 0..40_000 {
        let claimed = if round % 2 == 0 { 1e300 } else { -1e300 };
        memory.set(at, &bob, Stats { tool_calls: Some(claimed), ..Stats::default() });
        memory.count(at, &mesh.core.id);
    }
    assert_eq!(memory.total(&bob).tool_calls, Some(9_007_199_254_740_992.0));
    let written: i64 = memory.gains.iter().map(|delta| delta.tool_calls).sum();
    assert_eq!(written, 1 << 53, "storage gets the same total");
}

#[actix_rt::test]
async fn every_record_that_ends_takes_its_counters_along() {
    let mut mesh = TestMesh::new().await;
    let bob = mesh.member("bob", 2).await;
    for ephemeral in [false, true] {
        let (at, _) = mesh.peer(&bob, "bob", Some(12));
        mesh.core.roster.get_mut(at).unwrap().ephemeral = ephemeral;
        mesh.step(Some(at), |features, cx| {
            let stats = Some(Stats { tool_calls: Some(2.0), ..Stats::default() });
            let set = SetStats { stats };
            Presence::handle(&mut features.presence, cx, Request::SetStats(set)).map(drop).unwrap();
        });
        assert_eq!(mesh.features.presence.counters.len(), 1);
        mesh.step(None, |_, cx| cx.end(at, true));
        assert!(mesh.features.presence.counters.is_empty(), "ephemeral: {ephemeral}");
    }
    assert_eq!(mesh.features.presence.total(&bob).tool_calls, Some(4.0), "and they count");
}
