//! Deliveries and the rule for what comes in: which were not looked at, which are held, and their release.

use diesel::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{deliveries, messages};
use super::{Inbox, InboxError, MAX_LIST, Message};

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is shown.
    Accept,
    /// It waits for the user's release.
    Hold,
    /// It is put away unseen.
    Refuse,
}

impl Verdict {
    /// The word in files and in the inbox.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Hold => "hold",
            Self::Refuse => "refuse",
        }
    }
}

/// Route of a delivery that was refused.
const REFUSED: &str = "refused";

impl Inbox {
    /// Deliveries of `reader` that no rule was applied to, oldest first.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn undecided(&mut self, reader: &str) -> Result<Vec<Message>, InboxError> {
        let list = deliveries::table
            .inner_join(messages::table)
            .filter(deliveries::reader.eq(reader))
            .filter(deliveries::shown_at_ms.is_null())
            .filter(deliveries::inbound.is_null())
            .order(messages::seq)
            .limit(MAX_LIST)
            .select(Message::as_select())
            .load(&mut self.db)?;
        Ok(list)
    }

    /// Notes what the rule says. What is refused counts as shown, to no one.
    ///
    /// # Errors
    /// [`InboxError::Sql`]; nothing is noted then.
    pub fn decide(&mut self, reader: &str, decided: &[(i64, Verdict)], now_ms: i64) -> Result<(), InboxError> {
        self.db.immediate_transaction(|db| {
            for verdict in [Verdict::Accept, Verdict::Hold, Verdict::Refuse] {
                let seqs: Vec<i64> = decided.iter().filter(|(_, made)| *made == verdict).map(|(seq, _)| *seq).collect();
                if seqs.is_empty() {
                    continue;
                }
                let rows = deliveries::table.filter(deliveries::reader.eq(reader)).filter(deliveries::seq.eq_any(seqs));
                if verdict == Verdict::Refuse {
                    let shown = (deliveries::shown_at_ms.eq(now_ms), deliveries::route.eq(REFUSED));
                    diesel::update(rows)
                        .set((deliveries::inbound.eq(verdict.as_str()), shown.0, shown.1))
                        .execute(db)?;
                } else {
                    diesel::update(rows).set(deliveries::inbound.eq(verdict.as_str())).execute(db)?;
                }
            }
            QueryResult::Ok(())
        })?;
        Ok(())
    }

    /// Held deliveries with their readers, oldest first.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn held(&mut self) -> Result<Vec<(String, Message)>, InboxError> {
        let list = deliveries::table
            .inner_join(messages::table)
            .filter(deliveries::shown_at_ms.is_null())
            .filter(deliveries::inbound.eq(Verdict::Hold.as_str()))
            .order(messages::seq)
            .limit(MAX_LIST)
            .select((deliveries::reader, Message::as_select()))
            .load(&mut self.db)?;
        Ok(list)
    }

    /// What is held from `reader` and came after a local number, oldest first: the newest `limit`.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn held_after(&mut self, reader: &str, after: i64, limit: i64) -> Result<Vec<Message>, InboxError> {
        let mut list: Vec<Message> = deliveries::table
            .inner_join(messages::table)
            .filter(deliveries::reader.eq(reader))
            .filter(deliveries::seq.gt(after))
            .filter(deliveries::shown_at_ms.is_null())
            .filter(deliveries::inbound.eq(Verdict::Hold.as_str()))
            .order(messages::seq.desc())
            .limit(limit.clamp(1, MAX_LIST))
            .select(Message::as_select())
            .load(&mut self.db)?;
        list.reverse();
        Ok(list)
    }

    /// How many deliveries of `reader` are held.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn count_held(&mut self, reader: &str) -> Result<i64, InboxError> {
        let count = deliveries::table
            .filter(deliveries::reader.eq(reader))
            .filter(deliveries::shown_at_ms.is_null())
            .filter(deliveries::inbound.eq(Verdict::Hold.as_str()))
            .count()
            .get_result(&mut self.db)?;
        Ok(count)
    }

    /// Lets held messages through, or puts them away; answers how many deliveries changed.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn settle_held(&mut self, seqs: &[i64], verdict: Verdict, now_ms: i64) -> Result<usize, InboxError> {
        let rows = deliveries::table
            .filter(deliveries::seq.eq_any(seqs))
            .filter(deliveries::shown_at_ms.is_null())
            .filter(deliveries::inbound.eq(Verdict::Hold.as_str()));
        let count = if verdict == Verdict::Refuse {
            diesel::update(rows)
                .set((
                    deliveries::inbound.eq(verdict.as_str()),
                    deliveries::shown_at_ms.eq(now_ms),
                    deliveries::route.eq(REFUSED),
                ))
                .execute(&mut self.db)?
        } else {
            diesel::update(rows).set(deliveries::inbound.eq(verdict.as_str())).execute(&mut self.db)?
        };
        Ok(count)
    }
}
