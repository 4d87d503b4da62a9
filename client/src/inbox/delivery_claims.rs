//! Claims that no one will settle: the process that took a message ended before it could say whether it was shown.

use claudemesh_protocol::features::messaging::Stage;
use diesel::prelude::*;

use super::schema::{deliveries, messages};
use super::{Inbox, InboxError, MAX_LIST, Message};

/// A claim is settled within seconds: the process that prints has two for it.
const SETTLED_WITHIN_MS: i64 = 5_000;

impl Inbox {
    /// Deliveries of `reader` that one of `routes` claimed a while ago, and of which no one has said since that they were
    /// handed over or seen. Oldest first; nothing is changed.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn stale_claims(&mut self, reader: &str, routes: &[&str], now_ms: i64) -> Result<Vec<Message>, InboxError> {
        // A clock that was set back must not make a claim stand for ever.
        let under_way = deliveries::shown_at_ms
            .assume_not_null()
            .between(now_ms.saturating_sub(SETTLED_WITHIN_MS), now_ms.saturating_add(SETTLED_WITHIN_MS));
        let list = deliveries::table
            .inner_join(messages::table)
            .filter(deliveries::reader.eq(reader))
            .filter(deliveries::shown_at_ms.is_not_null())
            .filter(deliveries::stage.eq(Stage::Received.as_str()))
            .filter(deliveries::route.eq_any(routes))
            .filter(messages::seen_at_ms.is_null())
            .filter(diesel::dsl::not(under_way))
            .order(messages::seq)
            .limit(MAX_LIST)
            .select(Message::as_select())
            .load(&mut self.db)?;
        Ok(list)
    }

    /// Lets the rule for incoming messages look again at what `reader` was not shown yet: the session has changed.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn reconsider(&mut self, reader: &str) -> Result<usize, InboxError> {
        let accepted = super::Verdict::Accept.as_str();
        let rows = deliveries::table
            .filter(deliveries::reader.eq(reader))
            .filter(deliveries::shown_at_ms.is_null())
            .filter(deliveries::inbound.eq(accepted));
        Ok(diesel::update(rows).set(deliveries::inbound.eq(None::<String>)).execute(&mut self.db)?)
    }
}
