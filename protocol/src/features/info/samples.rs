//! Samples of every message of the overview.

use super::{MeshInfo, MeshInfoResult, Request, Response, TaskCounts};
use crate::error::Bound;
use crate::features::clock::{ClockStatus, Speed};
use crate::testing::{AT, MESH, groups};

/// Fields that are written as `null` when they have no value.
pub(crate) const NULLS: &[(&str, &str)] = &[];

/// Requests.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    vec![("", MeshInfo {}.into())]
}

/// Answers and events.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let result = MeshInfoResult {
        mesh: MESH.into(),
        slug: Some("kitchen".into()),
        peers: 2,
        groups: vec!["@frontend".into()],
        state_keys: vec!["build".into()],
        state_count: 1,
        memory_count: 2,
        skill_count: 4,
        context_count: 3,
        vault_count: 2,
        mcp_server_count: 5,
        file_count: 0,
        tasks: TaskCounts::default(),
        streams: vec!["builds".into()],
        stream_count: 1,
        tables: vec![],
        collections: vec![],
        clock: None,
        schedules: 2,
        topics: vec!["general".into()],
        limits: vec![Bound { name: "topics.per_mesh".into(), limit: 1_000, used: 1 }],
        members: 3,
        your_name: "Alice".into(),
        your_groups: groups(),
    };
    let clock = ClockStatus {
        speed: Some(Speed::of(10.0)),
        paused: false,
        tick: 7,
        sim_time: AT.into(),
        started_at: AT.into(),
        auto_paused: false,
    };
    let full = MeshInfoResult { clock: Some(clock), ..result.clone() };
    vec![("", result.into()), ("clock", full.into())]
}
