//! Groups: joining, leaving, who is in them.

use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use claudemesh_protocol::features::groups::{GroupChanged, GroupMember, GroupRow, JoinGroup, LeaveGroup, ListGroups};
use claudemesh_protocol::target::group_name;
use claudemesh_protocol::version::CAP_MEMBERS;

use super::presence::write_target;
use crate::connection::{Connection, ConnectionError};

pub mod cli;
pub mod tools;

/// Who joins or leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The member: for good, with all its sessions, and messages wait while it is away.
    Member,
    /// A session of the member by its id, `*` for all, or the session of this connection: for its time.
    Session(Option<String>),
}

impl Who {
    fn target(&self) -> (bool, Option<&str>) {
        match self {
            Self::Member => (true, None),
            Self::Session(session) => (false, session.as_deref()),
        }
    }
}

impl Connection {
    /// Whether the broker knows members in groups. One of before keeps groups of sessions only.
    ///
    /// # Errors
    /// The connection has not been accepted.
    pub fn knows_members(&self) -> Result<bool, ConnectionError> {
        Ok(self.hello_ack()?.capabilities.iter().any(|word| word == CAP_MEMBERS))
    }

    /// Adds the member or a session to a group, or changes as what it is there. Answers what changed, when the broker says.
    ///
    /// # Errors
    /// `invalid_args` for a malformed name; what the broker says; of the transport.
    pub async fn join_group(
        &self,
        name: &str,
        role: Option<&str>,
        who: &Who,
    ) -> Result<Option<GroupChanged>, ConnectionError> {
        let (as_member, session) = who.target();
        let (name, role) = (checked(name)?, role.map(str::to_owned));
        let body = JoinGroup { name, role, as_member, target: write_target(session) };
        if *who == Who::Session(None) {
            self.note_groups(&body.clone().into());
        }
        self.write(body).await
    }

    /// Removes the member or a session from a group. Answers as [`Connection::join_group`].
    ///
    /// # Errors
    /// As [`Connection::join_group`].
    pub async fn leave_group(&self, name: &str, who: &Who) -> Result<Option<GroupChanged>, ConnectionError> {
        let (as_member, session) = who.target();
        let body = LeaveGroup { name: checked(name)?, as_member, target: write_target(session) };
        if *who == Who::Session(None) {
            self.note_groups(&body.clone().into());
        }
        self.write(body).await
    }

    /// The groups by name, with the members and sessions that are in them.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn list_groups(&self) -> Result<Vec<GroupRow>, ConnectionError> {
        if self.knows_members()? {
            self.others_are_back().await;
            return Ok(self.request(ListGroups {}).await?.groups);
        }
        let mut groups: std::collections::BTreeMap<String, Vec<GroupMember>> = Default::default();
        for peer in self.list_peers().await?.into_iter().filter(|peer| peer.online) {
            for group in &peer.groups {
                groups.entry(group.name.clone()).or_default().push(GroupMember {
                    kind: "session".into(),
                    name: peer.address(),
                    member_name: peer.member_name.clone().unwrap_or_default(),
                    pubkey: peer.pubkey,
                    member_pubkey: peer.member_pubkey,
                    role: group.role.clone(),
                    online: true,
                    waits: false,
                });
            }
        }
        Ok(groups.into_iter().map(|(name, members)| GroupRow { name, members }).collect())
    }
}

fn checked(name: &str) -> Result<String, ConnectionError> {
    group_name(name).map_err(|error| ErrorFrame::new(ErrorCode::InvalidArgs, error.to_string()).into())
}
