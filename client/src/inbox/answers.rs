//! Who answers a question: one process of this member, under an idempotency key that outlives it.

use diesel::prelude::*;

use super::schema::answers;
use super::{Inbox, InboxError};

/// An answer that was begun this long ago and never finished belongs to a process that died.
const ANSWER_LEASE_MS: i64 = 30_000;

/// What became of the wish to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerClaim {
    /// Send it, under this idempotency key.
    Granted(String),
    /// Someone answered at this time (Unix ms).
    Answered(i64),
    /// Another process is answering right now.
    UnderWay,
}

impl Inbox {
    /// Claims the right to answer a question. Of several that want to, one is granted it.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn begin_answer(&mut self, seq: i64, now_ms: i64) -> Result<AnswerClaim, InboxError> {
        let claim = self.db.immediate_transaction(|db| {
            let known = answers::table
                .filter(answers::seq.eq(seq))
                .select((answers::client_message_id, answers::begun_at_ms, answers::answered_at_ms))
                .first::<(String, i64, Option<i64>)>(db)
                .optional()?;
            match known {
                Some((_, _, Some(at))) => Ok(AnswerClaim::Answered(at)),
                // A clock that was set back must not lock the question for ever.
                Some((_, begun, None)) if (begun..begun.saturating_add(ANSWER_LEASE_MS)).contains(&now_ms) => {
                    Ok(AnswerClaim::UnderWay)
                }
                Some((key, _, None)) => {
                    let row = answers::table.filter(answers::seq.eq(seq));
                    diesel::update(row).set(answers::begun_at_ms.eq(now_ms)).execute(db)?;
                    Ok(AnswerClaim::Granted(key))
                }
                None => {
                    let key = uuid::Uuid::new_v4().to_string();
                    let row =
                        (answers::seq.eq(seq), answers::client_message_id.eq(&key), answers::begun_at_ms.eq(now_ms));
                    diesel::insert_into(answers::table).values(row).execute(db)?;
                    QueryResult::Ok(AnswerClaim::Granted(key))
                }
            }
        })?;
        Ok(claim)
    }

    /// The answer was accepted. `declined`: it says that there will be none.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn finish_answer(&mut self, seq: i64, declined: bool, now_ms: i64) -> Result<(), InboxError> {
        let row = answers::table.filter(answers::seq.eq(seq));
        diesel::update(row)
            .set((answers::answered_at_ms.eq(now_ms), answers::declined.eq(declined)))
            .execute(&mut self.db)?;
        Ok(())
    }

    /// The answer was not accepted. `open`: the broker may have it all the same, so the next attempt keeps the key.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn give_up_answer(&mut self, seq: i64, open: bool) -> Result<(), InboxError> {
        let row = answers::table.filter(answers::seq.eq(seq)).filter(answers::answered_at_ms.is_null());
        if open {
            diesel::update(row).set(answers::begun_at_ms.eq(i64::MIN)).execute(&mut self.db)?;
        } else {
            diesel::delete(row).execute(&mut self.db)?;
        }
        Ok(())
    }

    /// A message answered this one by another way than a claimed answer (an ordinary message that refers to it).
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn note_answered(&mut self, seq: i64, now_ms: i64) -> Result<(), InboxError> {
        self.db.immediate_transaction(|db| {
            let row = (
                answers::seq.eq(seq),
                answers::client_message_id.eq(""),
                answers::begun_at_ms.eq(now_ms),
                answers::answered_at_ms.eq(now_ms),
            );
            diesel::insert_or_ignore_into(answers::table).values(row).execute(db)
        })?;
        Ok(())
    }
}
