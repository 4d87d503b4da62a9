//! One look at the whole mesh.

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Bound;
use crate::features::clock::ClockStatus;
use crate::features::groups::Group;
use crate::id::MeshId;

/// `mesh_info`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeshInfo {}

/// Tasks by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TaskCounts {
    /// Not taken.
    pub open: u32,
    /// Being worked on.
    pub claimed: u32,
    /// Finished.
    pub done: u32,
}

/// `mesh_info_result`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct MeshInfoResult {
    /// Row id of the mesh.
    pub mesh: MeshId,
    /// Slug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// Peers in the roster that the caller may see.
    pub peers: u32,
    /// Group names with `@`, sorted.
    pub groups: Vec<String>,
    /// Names of shared keys: the first 500.
    pub state_keys: Vec<String>,
    /// Shared keys. Brokers of before do not say it.
    #[serde(default)]
    pub state_count: u32,
    /// Memories.
    pub memory_count: u32,
    /// Contexts, those of sessions that are gone included.
    #[serde(default)]
    pub context_count: u32,
    /// Skills.
    #[serde(default)]
    pub skill_count: u32,
    /// Entries of the caller's own vault.
    #[serde(default)]
    pub vault_count: u32,
    /// MCP servers that sessions run, those that are offline included.
    #[serde(default)]
    pub mcp_server_count: u32,
    /// Files.
    pub file_count: u32,
    /// Tasks.
    pub tasks: TaskCounts,
    /// Names of streams: the first 500.
    pub streams: Vec<String>,
    /// Streams. Brokers of before do not say it.
    #[serde(default)]
    pub stream_count: u32,
    /// SQL tables.
    pub tables: Vec<String>,
    /// Vector collections.
    pub collections: Vec<String>,
    /// The simulated clock, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockStatus>,
    /// Schedule entries that wait for their time or are paused.
    #[serde(default)]
    pub schedules: u32,
    /// Topics the caller may see.
    #[serde(default)]
    pub topics: Vec<String>,
    /// Bounds of what the mesh and the caller keep, with what is used of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Bound>,
    /// Members, banned ones left out.
    #[serde(default)]
    pub members: u32,
    /// The caller's name.
    pub your_name: String,
    /// The caller's groups. Brokers of before wrote names with `@`.
    #[serde(deserialize_with = "groups_or_names")]
    pub your_groups: Vec<Group>,
}

fn groups_or_names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Group>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Group(Group),
        Name(String),
    }
    let group = |either| match either {
        Either::Group(group) => group,
        Either::Name(name) => Group { name: name.trim_start_matches('@').to_owned(), role: None },
    };
    Ok(Vec::<Either>::deserialize(from)?.into_iter().map(group).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_the_caller_are_read_as_objects_and_as_names() {
        let read = |groups: &str| {
            let text = format!(
                r#"{{"mesh":"m","peers":1,"groups":[],"stateKeys":[],"memoryCount":0,"fileCount":0,"tasks":{{"open":0,"claimed":0,"done":0}},"streams":[],"tables":[],"collections":[],"yourName":"n","yourGroups":{groups}}}"#
            );
            serde_json::from_str::<MeshInfoResult>(&text).map(|info| info.your_groups).unwrap()
        };
        let group = |name: &str, role: Option<&str>| Group { name: name.into(), role: role.map(Into::into) };
        assert_eq!(
            read(r#"[{"name":"dev"},{"name":"g","role":"lead"}]"#),
            [group("dev", None), group("g", Some("lead"))]
        );
        assert_eq!(read(r#"["@dev","a/b"]"#), [group("dev", None), group("a/b", None)]);
    }
}

crate::wire_feature! {
    requests {
        /// One look at the whole mesh.
        MeshInfo = "mesh_info" => answers MeshInfoResult, needs nothing, repeatable;
    }
    answers {
        MeshInfoResult = "mesh_info_result",
    }
    events {}
}

#[cfg(feature = "testing")]
pub(crate) mod samples;
