//! Who is there, and what we tell about ourselves.

use claudemesh_protocol::features::messaging;
use claudemesh_protocol::features::presence::{
    ListPeers, Peer, PeerStatus, Profile, Request, Response, SetProfile, SetStats, SetStatus, SetSummary, SetVisible,
    Stats, WriteTarget,
};
use claudemesh_protocol::message::{ClientMessage, ServerMessage};

use crate::connection::{Connection, ConnectionError, REQUEST_TIMEOUT, unexpected};

pub mod cli;
pub mod tools;

/// Which sessions a write changes: this connection (`None`), one session, or all of the member (`*`).
pub fn write_target(session: Option<&str>) -> WriteTarget {
    WriteTarget { target_session: session.map(str::to_owned), confirm: true }
}

impl Connection {
    /// The peers, oldest connection first, this one included.
    ///
    /// # Errors
    /// Of the transport.
    pub async fn list_peers(&self) -> Result<Vec<Peer>, ConnectionError> {
        self.others_are_back().await;
        match self.ask(Request::from(ListPeers {}), REQUEST_TIMEOUT).await? {
            ServerMessage::Presence(Response::PeersList(list)) => Ok(list.peers),
            other => Err(unexpected("peers_list", &other)),
        }
    }

    /// Sets the status. Answers how many sessions changed; `None` when the broker does not say.
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn set_status(&self, status: PeerStatus, session: Option<&str>) -> Result<Option<u32>, ConnectionError> {
        self.presence_write(Request::from(SetStatus { status, target: write_target(session) })).await
    }

    /// Sets the summary; empty clears it. Answers as [`Connection::set_status`].
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn set_summary(&self, summary: &str, session: Option<&str>) -> Result<Option<u32>, ConnectionError> {
        let body = SetSummary { summary: summary.to_owned(), target: write_target(session) };
        self.presence_write(Request::from(body)).await
    }

    /// Shows or hides the session. Answers as [`Connection::set_status`].
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn set_visible(&self, visible: bool, session: Option<&str>) -> Result<Option<u32>, ConnectionError> {
        self.presence_write(Request::from(SetVisible { visible, target: write_target(session) })).await
    }

    /// Changes the given fields of the profile. Answers as [`Connection::set_status`].
    ///
    /// # Errors
    /// What the broker says, or of the transport.
    pub async fn set_profile(&self, profile: Profile, session: Option<&str>) -> Result<Option<u32>, ConnectionError> {
        self.presence_write(Request::from(SetProfile { profile, target: write_target(session) })).await
    }

    /// Reports counters. No answer.
    ///
    /// # Errors
    /// [`ConnectionError::NotConnected`]
    pub fn report_stats(&self, stats: Stats) -> Result<(), ConnectionError> {
        self.tell(Request::from(SetStats { stats: Some(stats) }))
    }

    /// A write of presence or groups: confirmed by brokers that can, told to the others.
    pub(crate) async fn presence_write(
        &self,
        message: impl Into<ClientMessage>,
    ) -> Result<Option<u32>, ConnectionError> {
        self.hello_ack()?;
        if !self.broker_can("target_session") {
            self.tell(message)?;
            return Ok(None);
        }
        match self.ask(message, REQUEST_TIMEOUT).await? {
            ServerMessage::Presence(Response::PresenceAck(ack)) => Ok(Some(ack.sessions)),
            // What these requests answered before they could name a session.
            ServerMessage::Messaging(messaging::Response::Ack(_)) => Ok(None),
            other => Err(unexpected("presence_ack", &other)),
        }
    }
}
