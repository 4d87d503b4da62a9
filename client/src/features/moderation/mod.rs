//! Closing connections and banning members.

use claudemesh_protocol::features::moderation::{Ban, BanEntry, Disconnect, Kick, KickAck, ListBans, Selection, Unban};

use crate::connection::{Connection, ConnectionError};

pub mod cli;

impl Connection {
    /// Closes connections; the clients come back by themselves. Answers names.
    ///
    /// # Errors
    /// `forbidden`, `peer_not_found`, `ambiguous_target`, or of the transport.
    pub async fn disconnect_peers(&self, selection: Selection) -> Result<Vec<String>, ConnectionError> {
        Ok(self.request(Disconnect { selection }).await?.affected)
    }

    /// Closes connections; the clients stay away until they are started again.
    ///
    /// # Errors
    /// As [`Connection::disconnect_peers`].
    pub async fn kick_peers(&self, selection: Selection) -> Result<KickAck, ConnectionError> {
        self.request(Kick { selection }).await
    }

    /// Bans a member. Answers its name.
    ///
    /// # Errors
    /// As [`Connection::disconnect_peers`].
    pub async fn ban_member(&self, target: &str, reason: Option<&str>) -> Result<String, ConnectionError> {
        let body = Ban { target: target.to_owned(), reason: reason.map(str::to_owned) };
        Ok(self.request(body).await?.banned)
    }

    /// Lifts a ban. Answers the member's name.
    ///
    /// # Errors
    /// As [`Connection::disconnect_peers`].
    pub async fn unban_member(&self, target: &str) -> Result<String, ConnectionError> {
        Ok(self.request(Unban { target: target.to_owned() }).await?.unbanned)
    }

    /// The bans, oldest first.
    ///
    /// # Errors
    /// `forbidden`, or of the transport.
    pub async fn list_bans(&self) -> Result<Vec<BanEntry>, ConnectionError> {
        Ok(self.request(ListBans {}).await?.bans)
    }
}
