//! Messages of the permission relay: answers are taken out for the relay, never shown; requests are listed for people.

use claudemesh_protocol::features::messaging::Stage;
use diesel::prelude::*;

use super::row::Kind;
use super::schema::{deliveries, messages};
use super::{Inbox, InboxError, MAX_LIST, Message};

/// Subtype of a message that asks an approver.
pub const REQUEST: &str = "permission_request";
/// Subtype of a message with an approver's signed answer.
pub const ANSWER: &str = "permission_answer";
/// Subtype of a message that tells approvers that a question is settled.
pub const CLOSED: &str = "permission_closed";
/// Route under which the inbox notes what was taken out for this.
pub const ROUTE: &str = "permission";

/// Taken at a time.
const BATCH: i64 = 64;

impl Inbox {
    /// Takes answers and notes of settled requests that no route has shown, and marks them shown and seen: of several
    /// processes that ask at once, each message goes to exactly one. The rule for incoming messages does not matter here,
    /// because nothing of them reaches a session as text.
    ///
    /// # Errors
    /// [`InboxError::Sql`]; nothing is taken then.
    pub fn take_permission_words(&mut self, reader: &str, now_ms: i64) -> Result<Vec<Message>, InboxError> {
        let waiting = |reader: &str| {
            deliveries::table
                .inner_join(messages::table)
                .filter(deliveries::reader.eq(reader.to_owned()))
                .filter(deliveries::shown_at_ms.is_null())
                .filter(messages::subtype.is_not_null())
                .filter(messages::subtype.assume_not_null().eq_any([ANSWER, CLOSED]))
                .order(deliveries::seq)
                .limit(BATCH)
                .select(deliveries::seq)
        };
        // Every route asks first; nearly always there is nothing, and a look needs no write lock.
        if waiting(reader).first::<i64>(&mut self.db).optional()?.is_none() {
            return Ok(vec![]);
        }
        let taken = self.db.immediate_transaction(|db| {
            let next: Vec<i64> = waiting(reader).load(db)?;
            diesel::update(deliveries::table)
                .filter(deliveries::reader.eq(reader))
                .filter(deliveries::seq.eq_any(&next))
                .set((
                    deliveries::shown_at_ms.eq(now_ms),
                    deliveries::route.eq(ROUTE),
                    deliveries::stage.eq(Stage::Handed.as_str()),
                ))
                .execute(db)?;
            diesel::update(messages::table)
                .filter(messages::seq.eq_any(&next))
                .filter(messages::seen_at_ms.is_null())
                .set(messages::seen_at_ms.eq(now_ms))
                .execute(db)?;
            messages::table
                .filter(messages::seq.eq_any(next))
                .order(messages::seq)
                .select(Message::as_select())
                .load(db)
        })?;
        Ok(taken)
    }

    /// Requests and notes of settled ones that came after a time, newest first.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn permission_requests(&mut self, after_ms: i64) -> Result<Vec<Message>, InboxError> {
        let list = messages::table
            .filter(messages::received_at_ms.gt(after_ms))
            .filter(messages::kind.eq(Kind::Direct.as_str()))
            .filter(messages::subtype.is_not_null())
            .filter(messages::subtype.assume_not_null().eq_any([REQUEST, CLOSED]))
            .order(messages::seq.desc())
            .limit(MAX_LIST)
            .select(Message::as_select())
            .load(&mut self.db)?;
        Ok(list)
    }
}
