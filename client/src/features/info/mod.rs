//! One look at a whole mesh.

use claudemesh_protocol::features::clock::ClockStatus;
use claudemesh_protocol::features::info::{MeshInfo, MeshInfoResult, TaskCounts};
use schemars::JsonSchema;
use serde::Serialize;

use crate::clock::shown;
use crate::connection::{Connection, ConnectionError};

pub mod cli;
mod screen;
pub mod tools;

impl Connection {
    /// Counts and names of the mesh.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn mesh_info(&self) -> Result<MeshInfoResult, ConnectionError> {
        let mut info = self.request(MeshInfo {}).await?;
        // Brokers of before tell names and no counts.
        let names = |names: &[String]| u32::try_from(names.len()).unwrap_or(u32::MAX);
        info.state_count = info.state_count.max(names(&info.state_keys));
        info.stream_count = info.stream_count.max(names(&info.streams));
        Ok(info)
    }
}

/// What a mesh keeps, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Shared keys.
    pub state_count: u32,
    /// Memories.
    pub memory_count: u32,
    /// Contexts, those of sessions that are gone included.
    pub context_count: u32,
    /// Tasks by state.
    pub tasks: TaskCounts,
    /// Streams.
    pub stream_count: u32,
    /// Skills.
    pub skill_count: u32,
    /// Schedule entries that wait for their time or are paused.
    pub schedules: u32,
}

impl From<&MeshInfoResult> for Kept {
    fn from(info: &MeshInfoResult) -> Self {
        Self {
            state_count: info.state_count,
            memory_count: info.memory_count,
            context_count: info.context_count,
            tasks: info.tasks,
            stream_count: info.stream_count,
            skill_count: info.skill_count,
            schedules: info.schedules,
        }
    }
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let many = |count: u32, one: &str, more: &str| format!("{count} {}", if count == 1 { one } else { more });
        let parts = [
            many(self.state_count, "shared key", "shared keys"),
            many(self.memory_count, "memory", "memories"),
            many(self.context_count, "context", "contexts"),
            task_words(&self.tasks),
            many(self.stream_count, "stream", "streams"),
            many(self.skill_count, "skill", "skills"),
            format!("{} scheduled", self.schedules),
        ];
        f.write_str(&parts.join(", "))
    }
}

/// `3 tasks open, 1 claimed, 12 done`
pub fn task_words(tasks: &TaskCounts) -> String {
    format!("{} tasks open, {} claimed, {} done", tasks.open, tasks.claimed, tasks.done)
}

/// `×10, tick 7, 2026-04-08 11:53`; `none` without a clock.
pub fn clock_words(clock: Option<&ClockStatus>) -> String {
    let Some((clock, speed)) = clock.and_then(|clock| Some((clock, clock.speed?))) else { return "none".into() };
    let stands = match (clock.paused, clock.auto_paused) {
        (true, true) => ", waits for peers",
        (true, false) => ", paused",
        (false, _) => "",
    };
    format!("×{speed}, tick {}, {}{stands}", clock.tick, shown(&clock.sim_time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mesh_keeps_is_said_in_words() {
        let kept = Kept { state_count: 1, context_count: 2, skill_count: 1, schedules: 3, ..Kept::default() };
        assert_eq!(
            kept.to_string(),
            "1 shared key, 0 memories, 2 contexts, 0 tasks open, 0 claimed, 0 done, 0 streams, 1 skill, 3 scheduled"
        );
    }
}
