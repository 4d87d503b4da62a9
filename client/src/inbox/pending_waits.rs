//! Messages that a call of this process waits for: withheld from every route, and handed to the wait.
//!
//! What is awaited is known in memory only, so that a process that dies withholds nothing. Another process of the reader does
//! not know of it and may show an answer; it ends the wait all the same.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diesel::prelude::*;

use super::questions::{QUESTION, mark_shown, note_polled};
use super::row::{Kind, Message};
use super::schema::{deliveries, messages, question_readers};
use super::{Inbox, InboxError, MAX_LIST, Mail, Verdict};

/// Whose answer a wait is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Key the question went to: of a session or of a member.
    pub key: String,
    /// Key of the member behind it.
    pub member: String,
}

impl Asked {
    /// Whether a message may be the answer: the member that was asked wrote it, from that session, another or the shell.
    fn may_answer(&self, message: &Message) -> bool {
        message.sender_pubkey == self.key || message.sender_member == self.member
    }

    /// Whether a message ends the wait for the answer to this question.
    fn ends_wait(&self, message: &Message, question_id: &str) -> bool {
        if message.reply_to_id.as_deref() == Some(question_id) {
            return self.may_answer(message);
        }
        message.subtype.as_deref() == Some(QUESTION) && self.is_sender(message)
    }

    /// Whether a message comes from the very peer that was asked: that session, or any when the member was asked.
    fn is_sender(&self, message: &Message) -> bool {
        message.sender_pubkey == self.key || (self.key == self.member && message.sender_member == self.member)
    }
}

/// What this process waits for: messages that no route may show before the wait had a chance to take them. In memory, so
/// that a process that dies holds nothing back.
#[derive(Clone, Default)]
pub struct PendingWaits {
    list: Arc<Mutex<Vec<PendingWait>>>,
    next: Arc<AtomicU64>,
}

struct PendingWait {
    number: u64,
    /// Unknown until the broker has accepted the question; its answer may be here sooner.
    question_id: Option<String>,
    asked: Asked,
}

impl PendingWaits {
    /// A question is being sent: its peer's answers and questions are awaited.
    pub fn add(&self, asked: Asked) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().push(PendingWait { number, question_id: None, asked });
        number
    }

    /// The question has this id now.
    pub fn name(&self, number: u64, question_id: &str) {
        if let Some(one) = self.lock().iter_mut().find(|one| one.number == number) {
            one.question_id = Some(question_id.to_owned());
        }
    }

    /// Lets go.
    pub fn remove(&self, number: u64) {
        self.lock().retain(|one| one.number != number);
    }

    /// Whether a message belongs to a wait.
    fn include(&self, message: &Message) -> bool {
        if message.kind != Kind::Direct.as_str() {
            return false;
        }
        self.lock().iter().any(|one| match &one.question_id {
            Some(id) => one.asked.ends_wait(message, id),
            None => one.asked.may_answer(message) && message.subtype.is_some(),
        })
    }

    /// Whether there is any.
    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PendingWait>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a wait was woken by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The answer.
    Answer(Message),
    /// A question of the very peer that was asked.
    CounterQuestion(Message),
}

impl Taken {
    /// The message itself.
    pub fn message(&self) -> &Message {
        match self {
            Self::Answer(message) | Self::CounterQuestion(message) => message,
        }
    }
}

impl Mail<'_> {
    /// As [`Mail::claim`], for direct messages of these subtypes only.
    ///
    /// # Errors
    /// [`InboxError::Sql`]; nothing is marked then.
    pub fn claim_unshown_of(
        &mut self,
        subtypes: &[&str],
        route: &str,
        limit: i64,
        now_ms: i64,
    ) -> Result<Vec<Message>, InboxError> {
        let reader = self.reader;
        let awaited = self.awaited(reader)?;
        let taken = self.db.immediate_transaction(|db| {
            let taken: Vec<Message> = deliveries::table
                .inner_join(messages::table)
                .filter(deliveries::reader.eq(reader))
                .filter(deliveries::shown_at_ms.is_null())
                .filter(deliveries::seq.ne_all(awaited))
                .filter(deliveries::inbound.eq(Verdict::Accept.as_str()))
                .filter(messages::kind.eq(Kind::Direct.as_str()))
                .filter(messages::subtype.is_not_null().and(messages::subtype.assume_not_null().eq_any(subtypes)))
                .order(messages::seq)
                .limit(limit.clamp(1, MAX_LIST))
                .select(Message::as_select())
                .load(db)?;
            let seqs: Vec<i64> = taken.iter().map(|message| message.seq).collect();
            mark_shown(db, reader, &seqs, route, now_ms)?;
            QueryResult::Ok(taken)
        })?;
        Ok(taken)
    }
}

impl Inbox {
    /// Takes what ends a wait of `reader` for the answer to `question_id`: the answer, also when another route has shown it
    /// meanwhile; else a question, not shown yet, from the peer that was asked, which waits for us as we wait for it. `ruled`:
    /// only what the rule for incoming messages has let through; a shell has no such rule.
    ///
    /// # Errors
    /// [`InboxError::Sql`]; nothing is marked then.
    pub fn take_for_wait(
        &mut self,
        reader: &str,
        question_id: &str,
        asked: &Asked,
        ruled: bool,
        route: &str,
        now_ms: i64,
    ) -> Result<Option<Taken>, InboxError> {
        let is_answer =
            messages::reply_to_id.is_not_null().and(messages::reply_to_id.assume_not_null().eq(question_id));
        let is_question = messages::subtype
            .is_not_null()
            .and(messages::subtype.assume_not_null().eq(QUESTION))
            .and(deliveries::shown_at_ms.is_null());
        let taken = self.db.immediate_transaction(|db| {
            let rows: Vec<(Message, Option<String>)> = deliveries::table
                .inner_join(messages::table)
                .filter(deliveries::reader.eq(reader))
                .filter(messages::kind.eq(Kind::Direct.as_str()))
                .filter(messages::body.is_not_null())
                .filter(is_answer.or(is_question))
                .order(messages::seq)
                .limit(MAX_LIST)
                .select((Message::as_select(), deliveries::inbound))
                .load(db)?;
            let let_through = |verdict: &Option<String>| match verdict.as_deref() {
                None => !ruled,
                Some(verdict) => verdict == Verdict::Accept.as_str(),
            };
            let mut found: Vec<Message> = rows
                .into_iter()
                .filter(|(message, verdict)| let_through(verdict) && asked.ends_wait(message, question_id))
                .map(|(message, _)| message)
                .collect();
            let answer = found.iter().position(|message| message.reply_to_id.as_deref() == Some(question_id));
            let taken = match answer {
                Some(at) => Taken::Answer(found.swap_remove(at)),
                None if found.is_empty() => return Ok(None),
                None => Taken::CounterQuestion(found.swap_remove(0)),
            };
            let seq = taken.message().seq;
            mark_shown(db, reader, &[seq], route, now_ms)?;
            if let Taken::CounterQuestion(_) = &taken {
                note_polled(db, reader, seq, now_ms)?;
            }
            QueryResult::Ok(Some(taken))
        })?;
        Ok(taken)
    }

    /// What this process waits for.
    pub fn pending_waits(&self) -> PendingWaits {
        self.pending_waits.clone()
    }

    /// Deliveries of `reader`, not shown, that calls of this process wait for.
    pub(super) fn awaited(&mut self, reader: &str) -> QueryResult<Vec<i64>> {
        if self.pending_waits.is_empty() {
            return Ok(vec![]);
        }
        let list: Vec<Message> = deliveries::table
            .inner_join(messages::table)
            .filter(deliveries::reader.eq(reader))
            .filter(deliveries::shown_at_ms.is_null())
            .filter(messages::kind.eq(Kind::Direct.as_str()))
            .filter(messages::reply_to_id.is_not_null().or(messages::subtype.is_not_null()))
            .order(messages::seq)
            .limit(MAX_LIST)
            .select(Message::as_select())
            .load(&mut self.db)?;
        Ok(list.iter().filter(|message| self.pending_waits.include(message)).map(|message| message.seq).collect())
    }

    /// Undoes [`Inbox::take_for_wait`]: the one that waited has gone, so another route must show the message.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn give_back(&mut self, reader: &str, seq: i64) -> Result<(), InboxError> {
        self.unclaim(reader, &[seq])?;
        diesel::update(question_readers::table)
            .filter(question_readers::reader.eq(reader))
            .filter(question_readers::seq.eq(seq))
            .set(question_readers::polled_at_ms.eq(None::<i64>))
            .execute(&mut self.db)?;
        Ok(())
    }
}
