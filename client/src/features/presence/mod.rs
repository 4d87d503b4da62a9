//! Who is there, and what we tell about ourselves.

use claudemesh_protocol::features::presence::{
    ListPeers, Peer, PeerStatus, Profile, SetProfile, SetStats, SetStatus, SetSummary, SetVisible, Stats, WriteTarget,
};

use crate::connection::{Connection, ConnectionError};

pub mod cli;
pub mod tools;

/// Which sessions a write changes: this connection (`None`), one session, or all of the member (`*`).
pub fn write_target(session: Option<&str>) -> WriteTarget {
    WriteTarget { target_session: session.map(str::to_owned) }
}

impl Connection {
    /// The peers, oldest connection first, this one included.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn list_peers(&self) -> Result<Vec<Peer>, ConnectionError> {
        self.others_are_back().await;
        Ok(self.request(ListPeers {}).await?.peers)
    }

    /// Sets the status. Answers how many sessions changed; `None` when the broker does not say.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn set_status(&self, status: PeerStatus, session: Option<&str>) -> Result<Option<u32>, ConnectionError> {
        Ok(self.write(SetStatus { status, target: write_target(session) }).await?.map(|done| done.sessions))
    }

    /// Sets the summary; empty clears it. Answers as [`Connection::set_status`].
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn set_summary(&self, summary: &str, session: Option<&str>) -> Result<Option<u32>, ConnectionError> {
        let body = SetSummary { summary: summary.to_owned(), target: write_target(session) };
        Ok(self.write(body).await?.map(|done| done.sessions))
    }

    /// Shows or hides the session. Answers as [`Connection::set_status`].
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn set_visible(&self, visible: bool, session: Option<&str>) -> Result<Option<u32>, ConnectionError> {
        Ok(self.write(SetVisible { visible, target: write_target(session) }).await?.map(|done| done.sessions))
    }

    /// Changes the given fields of the profile. Answers as [`Connection::set_status`].
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn set_profile(&self, profile: Profile, session: Option<&str>) -> Result<Option<u32>, ConnectionError> {
        Ok(self.write(SetProfile { profile, target: write_target(session) }).await?.map(|done| done.sessions))
    }

    /// Reports counters. No answer.
    ///
    /// # Errors
    /// [`ConnectionError::NotConnected`]
    pub fn report_stats(&self, stats: Stats) -> Result<(), ConnectionError> {
        self.tell(SetStats { stats: Some(stats) })
    }
}
