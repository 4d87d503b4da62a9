//! One look at the whole mesh.

use serde::{Deserialize, Serialize};

use crate::id::MeshId;

/// `mesh_info`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeshInfo {}

/// Tasks by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Shared keys.
    pub state_keys: Vec<String>,
    /// Memories.
    pub memory_count: u32,
    /// Files.
    pub file_count: u32,
    /// Tasks.
    pub tasks: TaskCounts,
    /// Streams.
    pub streams: Vec<String>,
    /// SQL tables.
    pub tables: Vec<String>,
    /// Vector collections.
    pub collections: Vec<String>,
    /// Topics the caller may see.
    #[serde(default)]
    pub topics: Vec<String>,
    /// Members, banned ones left out.
    #[serde(default)]
    pub members: u32,
    /// The caller's name.
    pub your_name: String,
    /// The caller's groups with `@`. Some brokers send objects with `name` instead.
    #[serde(deserialize_with = "group_names")]
    pub your_groups: Vec<String>,
}

fn group_names<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Object { name: String },
    }

    let list = Vec::<Form>::deserialize(deserializer)?;
    let name = |form| match form {
        Form::Text(name) | Form::Object { name } if name.starts_with('@') => name,
        Form::Text(name) | Form::Object { name } => format!("@{name}"),
    };
    Ok(list.into_iter().map(name).collect())
}

crate::wire_enum! {
    /// What clients ask.
    pub enum Request {
        MeshInfo = "mesh_info",
    }
}

crate::wire_enum! {
    /// Answers.
    pub enum Response {
        MeshInfoResult = "mesh_info_result",
    }
}
