//! Joining and leaving groups.

use claudemesh_protocol::error::{ErrorCode, ErrorFrame};
use claudemesh_protocol::features::groups::{JoinGroup, LeaveGroup};
use claudemesh_protocol::target::group_name;

use super::presence::write_target;
use crate::connection::{Connection, ConnectionError};

pub mod cli;
pub mod tools;

impl Connection {
    /// Adds the session to a group or changes its role. Answers how many sessions changed, when the broker says.
    ///
    /// # Errors
    /// `invalid_args` for a malformed name; what the broker says; of the transport.
    pub async fn join_group(
        &self,
        name: &str,
        role: Option<&str>,
        session: Option<&str>,
    ) -> Result<Option<u32>, ConnectionError> {
        let body = JoinGroup { name: checked(name)?, role: role.map(str::to_owned), target: write_target(session) };
        if session.is_none() {
            self.note_groups(&body.clone().into());
        }
        Ok(self.write(body).await?.map(|done| done.sessions))
    }

    /// Removes the session from a group. Answers as [`Connection::join_group`].
    ///
    /// # Errors
    /// As [`Connection::join_group`].
    pub async fn leave_group(&self, name: &str, session: Option<&str>) -> Result<Option<u32>, ConnectionError> {
        let body = LeaveGroup { name: checked(name)?, target: write_target(session) };
        if session.is_none() {
            self.note_groups(&body.clone().into());
        }
        Ok(self.write(body).await?.map(|done| done.sessions))
    }
}

fn checked(name: &str) -> Result<String, ConnectionError> {
    group_name(name).map_err(|error| ErrorFrame::new(ErrorCode::InvalidArgs, error.to_string()).into())
}
