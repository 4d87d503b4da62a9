//! Looking into the inbox: what is there, who it is for, and how it stands. Nothing is taken and nothing is marked.

use claudemesh_protocol::name::splits;
use diesel::prelude::*;

use super::schema::{deliveries, messages};
use super::{Inbox, InboxError, MAX_LIST, Mail, Message, Verdict};

impl Mail<'_> {
    /// How many deliveries were not shown.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn count_unshown(&mut self) -> Result<i64, InboxError> {
        let reader = self.reader;
        let awaited = self.awaited(reader)?;
        let count = deliveries::table
            .filter(deliveries::reader.eq(reader))
            .filter(deliveries::shown_at_ms.is_null())
            .filter(deliveries::inbound.eq(Verdict::Accept.as_str()))
            .filter(deliveries::seq.ne_all(awaited))
            .count()
            .get_result(&mut self.db)?;
        Ok(count)
    }

    /// The newest delivery that was not shown; it stays unshown.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn newest_unshown(&mut self) -> Result<Option<Message>, InboxError> {
        let reader = self.reader;
        let awaited = self.awaited(reader)?;
        let newest = deliveries::table
            .inner_join(messages::table)
            .filter(deliveries::reader.eq(reader))
            .filter(deliveries::shown_at_ms.is_null())
            .filter(deliveries::inbound.eq(Verdict::Accept.as_str()))
            .filter(deliveries::seq.ne_all(awaited))
            .order(messages::seq.desc())
            .select(Message::as_select())
            .first(&mut self.db)
            .optional()?;
        Ok(newest)
    }

    /// What the reader got, oldest first: the newest `limit` of all, or of those that no route has shown. Nothing is marked.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn of_reader(&mut self, unshown_only: bool, limit: i64) -> Result<Vec<Message>, InboxError> {
        let reader = self.reader;
        let mut query = deliveries::table
            .inner_join(messages::table)
            .filter(deliveries::reader.eq(reader))
            .filter(deliveries::inbound.eq(Verdict::Accept.as_str()))
            .order(messages::seq.desc())
            .select(Message::as_select())
            .into_boxed();
        if unshown_only {
            let awaited = self.awaited(reader)?;
            query = query.filter(deliveries::shown_at_ms.is_null()).filter(deliveries::seq.ne_all(awaited));
        }
        let mut list = query.limit(limit.clamp(1, MAX_LIST)).load(&mut self.db)?;
        list.reverse();
        Ok(list)
    }
}

impl Inbox {
    /// What `reader` was shown by `route` and no one has confirmed as seen, oldest first: a channel may drop what is
    /// written into it without a word.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn unconfirmed(&mut self, reader: &str, route: &str, limit: i64) -> Result<Vec<Message>, InboxError> {
        let mut list: Vec<Message> = deliveries::table
            .inner_join(messages::table)
            .filter(deliveries::reader.eq(reader))
            .filter(deliveries::shown_at_ms.is_not_null())
            .filter(deliveries::route.eq(route))
            .filter(messages::seen_at_ms.is_null())
            .order(messages::seq.desc())
            .limit(limit.clamp(1, MAX_LIST))
            .select(Message::as_select())
            .load(&mut self.db)?;
        list.reverse();
        Ok(list)
    }

    /// The message with this id, or the only one whose id starts with this prefix of at least 8 characters.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn find(&mut self, id: &str) -> Result<Option<Message>, InboxError> {
        let exact =
            messages::table.filter(messages::message_id.eq(id)).select(Message::as_select()).first(&mut self.db);
        if let Some(message) = exact.optional()? {
            return Ok(Some(message));
        }
        if id.len() < 8 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Ok(None);
        }
        let mut found: Vec<Message> = messages::table
            .filter(messages::message_id.like(format!("{id}%")))
            .limit(2)
            .select(Message::as_select())
            .load(&mut self.db)?;
        Ok(if found.len() == 1 { found.pop() } else { None })
    }

    /// The newest message since `since_ms` that a message to `target` would answer: from that key (session or member) or
    /// name (also as `member/session`), or to the same audience.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn last_exchange(&mut self, target: &str, since_ms: i64) -> Result<Option<Message>, InboxError> {
        let (member, session) = splits(target).next().unwrap_or(("", ""));
        let found = messages::table
            .filter(
                messages::sender_pubkey
                    .eq(target)
                    .or(messages::sender_member.eq(target))
                    .or(messages::sender_name.is_not_null().and(messages::sender_name.assume_not_null().eq(target)))
                    .or(messages::sender_member_name
                        .eq(member)
                        .and(messages::sender_name.eq(session))
                        .assume_not_null())
                    .or(messages::sender_member_name.eq(target).assume_not_null())
                    .or(messages::target_spec.is_not_null().and(messages::target_spec.assume_not_null().eq(target))),
            )
            .filter(messages::received_at_ms.ge(since_ms))
            .order(messages::seq.desc())
            .select(Message::as_select())
            .first(&mut self.db)
            .optional()?;
        Ok(found)
    }
}
