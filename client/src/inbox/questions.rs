//! Questions in the inbox: which are open, which were brought up with whom, and who answers.
//!
//! A question is a direct message with the subtype `question`. It is *pending* until it was shown to a reader, *delivered*
//! then, and ends as *answered*, *declined* (the session stopped twice over it) or *expired*. An answer belongs to the
//! question, whichever session or shell of this member gives it; everything else is per reader. Nothing here sends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claudemesh_protocol::features::messaging::Stage;
use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;

use super::row::{Kind, Message};
use super::schema::{answers, deliveries, messages, question_readers};
use super::{Inbox, InboxError, MAX_LIST};
use crate::inbound::Verdict;

/// Subtype of a message that asks.
pub const QUESTION: &str = "question";
/// Subtype of a message that answers a question.
pub const REPLY: &str = "reply";
/// How long a question stays open after it arrived. The asker lets an undelivered one live as long.
pub const QUESTION_TTL_MS: i64 = 24 * 3_600 * 1_000;
/// How often one question may keep a session from stopping.
pub const MAX_STOP_BLOCKS: i32 = 2;
/// An answer that was begun this long ago and never finished belongs to a process that died.
const ANSWER_LEASE_MS: i64 = 30_000;

/// Where a question stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuestionState {
    /// Not shown to the reader yet.
    Pending,
    /// Shown, not answered.
    Delivered,
    /// Answered by some session or shell of this member.
    Answered,
    /// The session stopped without an answer although it was reminded twice. It can still be answered.
    Declined,
    /// Too old to be brought up. It can still be answered.
    Expired,
}

impl QuestionState {
    /// The word in lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Answered => "answered",
            Self::Declined => "declined",
            Self::Expired => "expired",
        }
    }

    /// Whether it waits for an answer and may be brought up.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Delivered)
    }
}

/// A question that this member was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The message.
    pub message: Message,
    /// Where it stands, for the reader that the list was made for.
    pub state: QuestionState,
    /// How often it kept that reader from stopping.
    pub stop_blocks: i32,
    /// Whether that reader was given its text on request.
    pub polled: bool,
}

/// What became of the wish to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerClaim {
    /// Send it, under this idempotency key.
    Granted(String),
    /// Somebody answered at this time (Unix ms).
    Answered(i64),
    /// Another process is answering right now.
    UnderWay,
}

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
pub struct Awaits {
    list: Arc<Mutex<Vec<Await>>>,
    next: Arc<AtomicU64>,
}

struct Await {
    number: u64,
    /// Unknown until the broker has accepted the question; its answer may be here sooner.
    question_id: Option<String>,
    asked: Asked,
}

impl Awaits {
    /// A question is being sent: its peer's answers and questions are awaited.
    pub fn add(&self, asked: Asked) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().push(Await { number, question_id: None, asked });
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
    fn awaits(&self, message: &Message) -> bool {
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

    fn lock(&self) -> MutexGuard<'_, Vec<Await>> {
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

#[derive(Queryable, Selectable)]
#[diesel(table_name = question_readers, check_for_backend(diesel::sqlite::Sqlite))]
struct ReaderRow {
    seq: i64,
    polled_at_ms: Option<i64>,
    stop_blocks: i32,
    declined_at_ms: Option<i64>,
}

impl Inbox {
    /// Questions that wait for an answer of `reader`, oldest first. Nothing is marked.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn pending_questions(&mut self, reader: &str, limit: i64) -> Result<Vec<Question>, InboxError> {
        let mut open = questions_of(&mut self.db, Some(reader), crate::clock::now_ms())?;
        open.retain(|question| question.state.is_open());
        open.truncate(usize::try_from(limit).unwrap_or(0));
        Ok(open)
    }

    /// The open questions that may keep `reader` from stopping now, oldest first. Each call counts for every one of them,
    /// listed by the caller or not, so that a flood of questions cannot hold a session; after [`MAX_STOP_BLOCKS`] a
    /// question is declined instead. They count as shown by the route `stop`, for their text is in the reason.
    ///
    /// # Errors
    /// [`InboxError::Sql`]; nothing is marked then.
    pub fn block_for_questions(&mut self, reader: &str, now_ms: i64) -> Result<Vec<Question>, InboxError> {
        let blocking = self.db.immediate_transaction(|db| {
            let mut blocking = Vec::new();
            for mut question in questions_of(db, Some(reader), now_ms)? {
                if !question.state.is_open() {
                    continue;
                }
                let declines = question.stop_blocks >= MAX_STOP_BLOCKS;
                question.stop_blocks += i32::from(!declines);
                let row = (
                    question_readers::reader.eq(reader),
                    question_readers::seq.eq(question.message.seq),
                    question_readers::stop_blocks.eq(question.stop_blocks),
                    question_readers::declined_at_ms.eq(declines.then_some(now_ms)),
                );
                let changed = (
                    question_readers::stop_blocks.eq(question.stop_blocks),
                    question_readers::declined_at_ms.eq(declines.then_some(now_ms)),
                );
                diesel::insert_into(question_readers::table)
                    .values(row)
                    .on_conflict((question_readers::reader, question_readers::seq))
                    .do_update()
                    .set(changed)
                    .execute(db)?;
                if !declines {
                    blocking.push(question);
                }
            }
            mark_shown(db, reader, &seqs(&blocking), "stop", now_ms)?;
            QueryResult::Ok(blocking)
        })?;
        Ok(blocking)
    }

    /// Open questions for `reader`, each once: those that it was not given by an earlier call, or all again. They count as
    /// shown by `route` and stay open until they are answered. Also answers how many others are open.
    ///
    /// # Errors
    /// [`InboxError::Sql`]; nothing is marked then.
    pub fn poll_questions(
        &mut self,
        reader: &str,
        again: bool,
        limit: usize,
        route: &str,
        now_ms: i64,
    ) -> Result<(Vec<Question>, usize), InboxError> {
        let taken = self.db.immediate_transaction(|db| {
            let mut open = questions_of(db, Some(reader), now_ms)?;
            open.retain(|question| question.state.is_open());
            let all = open.len();
            open.retain(|question| again || !question.polled);
            open.truncate(limit);
            for question in &open {
                note_polled(db, reader, question.message.seq, now_ms)?;
            }
            mark_shown(db, reader, &seqs(&open), route, now_ms)?;
            let others = all - open.len();
            QueryResult::Ok((open, others))
        })?;
        Ok(taken)
    }

    /// Questions of the member whoever of its sessions got them, oldest first: the open ones, or all that are kept.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn questions(&mut self, all: bool, now_ms: i64) -> Result<Vec<Question>, InboxError> {
        let mut list = questions_of(&mut self.db, None, now_ms)?;
        list.retain(|question| all || question.state.is_open());
        Ok(list)
    }

    /// As [`Inbox::claim_unshown`], for direct messages of one subtype only.
    ///
    /// # Errors
    /// [`InboxError::Sql`]; nothing is marked then.
    pub fn claim_unshown_of(
        &mut self,
        reader: &str,
        subtype: &str,
        route: &str,
        limit: i64,
        now_ms: i64,
    ) -> Result<Vec<Message>, InboxError> {
        let awaited = self.awaited(reader)?;
        let taken = self.db.immediate_transaction(|db| {
            let taken: Vec<Message> = deliveries::table
                .inner_join(messages::table)
                .filter(deliveries::reader.eq(reader))
                .filter(deliveries::shown_at_ms.is_null())
                .filter(deliveries::seq.ne_all(awaited))
                .filter(deliveries::inbound.eq(Verdict::Accept.as_str()))
                .filter(messages::kind.eq(Kind::Direct.as_str()))
                .filter(messages::subtype.is_not_null().and(messages::subtype.assume_not_null().eq(subtype)))
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

    /// The answer was accepted.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn finish_answer(&mut self, seq: i64, now_ms: i64) -> Result<(), InboxError> {
        let row = answers::table.filter(answers::seq.eq(seq));
        diesel::update(row).set(answers::answered_at_ms.eq(now_ms)).execute(&mut self.db)?;
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
    pub fn awaits(&self) -> Awaits {
        self.awaits.clone()
    }

    /// Deliveries of `reader`, not shown, that calls of this process wait for.
    pub(super) fn awaited(&mut self, reader: &str) -> QueryResult<Vec<i64>> {
        if self.awaits.is_empty() {
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
        Ok(list.iter().filter(|message| self.awaits.awaits(message)).map(|message| message.seq).collect())
    }

    /// Undoes [`Inbox::take_for_wait`]: whoever waited has gone, so another route must show the message.
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

fn seqs(questions: &[Question]) -> Vec<i64> {
    questions.iter().map(|question| question.message.seq).collect()
}

/// The kept questions, oldest first, as they stand for one reader or for the member.
fn questions_of(db: &mut SqliteConnection, reader: Option<&str>, now_ms: i64) -> QueryResult<Vec<Question>> {
    let newest = messages::table
        .filter(messages::subtype.is_not_null().and(messages::subtype.assume_not_null().eq(QUESTION)))
        .filter(messages::kind.eq(Kind::Direct.as_str()))
        .filter(messages::body.is_not_null())
        .order(messages::seq.desc())
        .limit(MAX_LIST);
    let mut list: Vec<Message> = match reader {
        None => newest.select(Message::as_select()).load(db)?,
        Some(reader) => newest
            .inner_join(deliveries::table)
            .filter(deliveries::reader.eq(reader))
            // What the rule for incoming messages holds or refuses asks nothing.
            .filter(
                deliveries::inbound.is_null().or(deliveries::inbound.assume_not_null().eq(Verdict::Accept.as_str())),
            )
            .select(Message::as_select())
            .load(db)?,
    };
    list.reverse();
    if list.is_empty() {
        return Ok(vec![]);
    }
    let seqs: Vec<i64> = list.iter().map(|message| message.seq).collect();
    let answered: HashMap<i64, Option<i64>> = answers::table
        .filter(answers::seq.eq_any(&seqs))
        .select((answers::seq, answers::answered_at_ms))
        .load::<(i64, Option<i64>)>(db)?
        .into_iter()
        .collect();
    let mut known = question_readers::table.filter(question_readers::seq.eq_any(&seqs)).into_boxed();
    let mut shown = deliveries::table
        .filter(deliveries::seq.eq_any(&seqs))
        .filter(deliveries::shown_at_ms.is_not_null())
        .select(deliveries::seq)
        .into_boxed();
    if let Some(reader) = reader {
        known = known.filter(question_readers::reader.eq(reader.to_owned()));
        shown = shown.filter(deliveries::reader.eq(reader.to_owned()));
    }
    let shown: Vec<i64> = shown.load(db)?;
    let mut of_readers: HashMap<i64, ReaderRow> = HashMap::new();
    for row in known.select(ReaderRow::as_select()).load(db)? {
        // For the member: declined as soon as one of its sessions declined.
        if row.declined_at_ms.is_some() || !of_readers.contains_key(&row.seq) {
            of_readers.insert(row.seq, row);
        }
    }
    let question = |message: Message| {
        let row = of_readers.get(&message.seq);
        let state = if answered.get(&message.seq).is_some_and(Option::is_some) {
            QuestionState::Answered
        } else if row.is_some_and(|row| row.declined_at_ms.is_some()) {
            QuestionState::Declined
        } else if now_ms.saturating_sub(message.received_at_ms) >= QUESTION_TTL_MS {
            QuestionState::Expired
        } else if shown.contains(&message.seq) || message.seen_at_ms.is_some() {
            QuestionState::Delivered
        } else {
            QuestionState::Pending
        };
        let polled = row.is_some_and(|row| row.polled_at_ms.is_some());
        Question { state, stop_blocks: row.map_or(0, |row| row.stop_blocks), polled, message }
    };
    Ok(list.into_iter().map(question).collect())
}

fn note_polled(db: &mut SqliteConnection, reader: &str, seq: i64, now_ms: i64) -> QueryResult<()> {
    let row = (
        question_readers::reader.eq(reader),
        question_readers::seq.eq(seq),
        question_readers::stop_blocks.eq(0),
        question_readers::polled_at_ms.eq(now_ms),
    );
    diesel::insert_into(question_readers::table)
        .values(row)
        .on_conflict((question_readers::reader, question_readers::seq))
        .do_update()
        .set(question_readers::polled_at_ms.eq(now_ms))
        .execute(db)?;
    Ok(())
}

fn mark_shown(db: &mut SqliteConnection, reader: &str, seqs: &[i64], route: &str, now_ms: i64) -> QueryResult<()> {
    diesel::update(deliveries::table)
        .filter(deliveries::reader.eq(reader))
        .filter(deliveries::seq.eq_any(seqs))
        .filter(deliveries::shown_at_ms.is_null())
        .set((
            deliveries::shown_at_ms.eq(now_ms),
            deliveries::route.eq(route),
            deliveries::stage.eq(Stage::Handed.as_str()),
        ))
        .execute(db)?;
    Ok(())
}
