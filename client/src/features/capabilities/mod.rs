//! Who may do what in a mesh: reading and changing capabilities.

use claudemesh_protocol::features::capabilities::{GetPermissions, PermissionsResult, SetPermissions};

use crate::connection::{Connection, ConnectionError};

pub mod cli;

impl Connection {
    /// What members may do: one, or all that the caller may see.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `ambiguous_target`, or of the transport.
    pub async fn permissions(&self, member: Option<&str>) -> Result<PermissionsResult, ConnectionError> {
        self.request(GetPermissions { member: member.map(str::to_owned) }).await
    }

    /// Changes what one member may do, or what plain members start with. Answers what it is then.
    ///
    /// # Errors
    /// As [`Connection::permissions`].
    pub async fn set_permissions(&self, change: SetPermissions) -> Result<PermissionsResult, ConnectionError> {
        self.request(change).await
    }
}
