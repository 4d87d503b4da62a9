//! Who one is, the members of a mesh, other names, roles, removal.

use claudemesh_protocol::features::members::{
    ListMembers, MemberChanged, MemberRow, RemoveMember, RenameMember, RenameSession, Renamed, SetMemberRole,
    TransferMesh, Whoami, WhoamiResult,
};

use super::presence::write_target;
use crate::connection::{Connection, ConnectionError};

pub mod cli;

impl Connection {
    /// The member, and the session if this is one.
    ///
    /// # Errors
    /// `unknown_message_type` of an older broker, or of the transport.
    pub async fn whoami(&self) -> Result<WhoamiResult, ConnectionError> {
        self.request(Whoami {}).await
    }

    /// The members, in joining order.
    ///
    /// # Errors
    /// As [`Connection::whoami`].
    pub async fn list_members(&self) -> Result<Vec<MemberRow>, ConnectionError> {
        Ok(self.request(ListMembers {}).await?.members)
    }

    /// Gives the own member, or another one, another name.
    ///
    /// # Errors
    /// `invalid_name`, `forbidden`, `not_found`, `rate_limited`; as [`Connection::whoami`].
    pub async fn rename_member(&self, name: &str, member: Option<&str>) -> Result<Renamed, ConnectionError> {
        self.request(RenameMember { name: name.to_owned(), member: member.map(str::to_owned) }).await
    }

    /// Gives a session of the own member another name.
    ///
    /// # Errors
    /// As [`Connection::rename_member`].
    pub async fn rename_session(&self, name: &str, session: Option<&str>) -> Result<Renamed, ConnectionError> {
        self.request(RenameSession { name: name.to_owned(), target: write_target(session) }).await
    }

    /// Makes a member an admin, or an admin a member.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `invalid`; as [`Connection::whoami`].
    pub async fn set_member_role(&self, member: &str, role: &str) -> Result<MemberChanged, ConnectionError> {
        self.request(SetMemberRole { member: member.to_owned(), role: role.to_owned() }).await
    }

    /// Ends a membership.
    ///
    /// # Errors
    /// As [`Connection::set_member_role`].
    pub async fn remove_member(&self, member: &str) -> Result<MemberChanged, ConnectionError> {
        self.request(RemoveMember { member: member.to_owned() }).await
    }

    /// Makes another member the owner.
    ///
    /// # Errors
    /// As [`Connection::set_member_role`].
    pub async fn transfer_mesh(&self, member: &str) -> Result<MemberChanged, ConnectionError> {
        self.request(TransferMesh { member: member.to_owned() }).await
    }
}
