//! Closing connections and banning members.

use claudemesh_protocol::features::moderation::{
    Ban, BanEntry, Disconnect, Kick, KickAck, ListBans, Request, Response, Selection, Unban,
};
use claudemesh_protocol::message::ServerMessage;

use crate::connection::{Connection, ConnectionError, REQUEST_TIMEOUT, unexpected};

pub mod cli;

impl Connection {
    /// Closes connections; the clients come back by themselves. Answers names.
    ///
    /// # Errors
    /// `forbidden`, `peer_not_found`, `ambiguous_target`, or of the transport.
    pub async fn disconnect_peers(&self, selection: Selection) -> Result<Vec<String>, ConnectionError> {
        match self.call(Request::from(Disconnect { selection }), REQUEST_TIMEOUT).await? {
            ServerMessage::Moderation(Response::DisconnectAck(ack)) => Ok(ack.affected),
            other => Err(unexpected("disconnect_ack", &other)),
        }
    }

    /// Closes connections; the clients stay away until they are started again.
    ///
    /// # Errors
    /// As [`Connection::disconnect_peers`].
    pub async fn kick_peers(&self, selection: Selection) -> Result<KickAck, ConnectionError> {
        match self.call(Request::from(Kick { selection }), REQUEST_TIMEOUT).await? {
            ServerMessage::Moderation(Response::KickAck(ack)) => Ok(ack),
            other => Err(unexpected("kick_ack", &other)),
        }
    }

    /// Bans a member. Answers its name.
    ///
    /// # Errors
    /// As [`Connection::disconnect_peers`].
    pub async fn ban_member(&self, target: &str, reason: Option<&str>) -> Result<String, ConnectionError> {
        let body = Ban { target: target.to_owned(), reason: reason.map(str::to_owned) };
        match self.call(Request::from(body), REQUEST_TIMEOUT).await? {
            ServerMessage::Moderation(Response::BanAck(ack)) => Ok(ack.banned),
            other => Err(unexpected("ban_ack", &other)),
        }
    }

    /// Lifts a ban. Answers the member's name.
    ///
    /// # Errors
    /// As [`Connection::disconnect_peers`].
    pub async fn unban_member(&self, target: &str) -> Result<String, ConnectionError> {
        match self.call(Request::from(Unban { target: target.to_owned() }), REQUEST_TIMEOUT).await? {
            ServerMessage::Moderation(Response::UnbanAck(ack)) => Ok(ack.unbanned),
            other => Err(unexpected("unban_ack", &other)),
        }
    }

    /// The bans, oldest first.
    ///
    /// # Errors
    /// `forbidden`, or of the transport.
    pub async fn list_bans(&self) -> Result<Vec<BanEntry>, ConnectionError> {
        match self.call(Request::from(ListBans {}), REQUEST_TIMEOUT).await? {
            ServerMessage::Moderation(Response::ListBansResult(list)) => Ok(list.bans),
            other => Err(unexpected("list_bans_result", &other)),
        }
    }
}
