//! What a member may be allowed to do: one closed list, used by the tables of requests, by roles and by API keys.

use serde::{Deserialize, Serialize};

macro_rules! capabilities {
    ($($name:ident = $text:literal, $doc:literal;)*) => {
        /// A capability. Written on the wire as its camel-case name, for example `canWriteState`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(rename_all = "camelCase")]
        pub enum Capability { $(#[doc = $doc] $name,)* }

        impl Capability {
            /// Every capability, in table order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The text on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// One sentence for people.
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$name => $doc,)* }
            }

            /// The capability of a wire text.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

capabilities! {
    CanInvite = "canInvite", "Make invites and revoke them.";
    CanModerate = "canModerate", "Close connections of others, ban members and lift bans; change and delete tasks, streams, memories, skills and registered MCP servers of others; update, rescope and end hosted MCP servers of others; cancel and pause schedules of others.";
    CanManageMembers = "canManageMembers", "Edit the names and profiles of other members, and remove members. Only the owner gives roles.";
    CanManagePermissions = "canManagePermissions", "Give capabilities to others and take them away.";
    CanManageMesh = "canManageMesh", "Rename the mesh and change its settings.";
    CanDeleteMesh = "canDeleteMesh", "Archive, restore or delete the mesh.";
    CanSend = "canSend", "Send messages and create topics.";
    CanReadShared = "canReadShared", "Read state, memory, contexts, tasks, streams, skills and files; ask for files of a folder that a peer shares.";
    CanWriteState = "canWriteState", "Write state, memory, contexts, tasks, streams and skills; share files.";
    CanSchedule = "canSchedule", "Schedule messages.";
    CanUseTools = "canUseTools", "List and call tools of MCP servers of the mesh, and hear of them.";
    CanDeployMcp = "canDeployMcp", "Deploy MCP servers that the mesh hosts, and register those that a session runs.";
    CanManageFiles = "canManageFiles", "Delete files of others, see all files in the list, and change who may read them.";
    CanManageVault = "canManageVault", "List the names in the vaults of others and delete entries; never read a value.";
    CanManageWatches = "canManageWatches", "Change and delete URL watches of others.";
    CanManageWebhooks = "canManageWebhooks", "Change and delete webhooks of others.";
    CanManageKeys = "canManageKeys", "Make API keys for others and revoke them.";
    CanRunSql = "canRunSql", "Read and write the SQL database of the mesh.";
    CanRunGraph = "canRunGraph", "Read and write the graph of the mesh.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_has_one_spelling() {
        for &capability in Capability::ALL {
            assert_eq!(Capability::parse(capability.as_str()), Some(capability));
            let json = serde_json::to_value(capability).unwrap();
            assert_eq!(json, capability.as_str());
            assert_eq!(serde_json::from_value::<Capability>(json).unwrap(), capability);
        }
        assert_eq!(Capability::parse("CanSend"), None);
    }
}
