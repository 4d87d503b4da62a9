//! Questions in the inbox: which are open, who each was brought up with, and who answers.
//!
//! A question is a direct message with the subtype `question`. It is *pending* until it was shown to a reader, *delivered*
//! then, and ends as *answered*, *declined* (in so many words, or the session stopped over it twice) or *expired*. An answer belongs to the
//! question, whichever session or shell of this member gives it; everything else is per reader. Nothing here sends.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;

use super::row::{Kind, Message};
use super::schema::{answers, deliveries, messages, question_readers};
use super::sent::hidden;
use super::{InboxError, MAX_LIST, MEMBER_READER, Mail, Person, Verdict};

/// Subtype of a message that asks.
pub const QUESTION: &str = "question";
/// Subtype of a message that answers a question.
pub const REPLY: &str = "reply";
/// Subtype of a message that says, instead of an answer, that there will be none, and why.
pub const DECLINE: &str = "decline";
/// How long a question stays open after it arrived. The asker lets an undelivered one live as long.
pub const QUESTION_TTL_MS: i64 = 24 * 3_600 * 1_000;
/// How often one question may keep a session from stopping.
pub const MAX_STOP_BLOCKS: i32 = 2;
/// Where a question stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuestionState {
    /// Not shown to the reader yet.
    Pending,
    /// Shown, not answered.
    Delivered,
    /// Answered by some session or shell of this member.
    Answered,
    /// Refused with a word to the asker; or the session stopped without an answer although it was reminded twice, then it
    /// can still be answered.
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

/// What questions have to say about a session that wants to stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopping {
    /// Those that keep it from stopping, oldest first.
    pub blocking: Vec<Question>,
    /// Those that it has just given up, and that no other session of the member may still answer: their askers wait in vain.
    pub declined: Vec<Question>,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = question_readers, check_for_backend(diesel::sqlite::Sqlite))]
struct ReaderRow {
    seq: i64,
    polled_at_ms: Option<i64>,
    stop_blocks: i32,
    declined_at_ms: Option<i64>,
}

impl Mail<'_> {
    /// Questions that wait for an answer of the reader, oldest first. Nothing is marked.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn pending_questions(&mut self, limit: i64) -> Result<Vec<Question>, InboxError> {
        let reader = self.reader;
        let mut open = questions_of(&mut self.db, Some(reader), crate::clock::now_ms())?;
        open.retain(|question| question.state.is_open());
        open.truncate(usize::try_from(limit).unwrap_or(0));
        Ok(open)
    }

    /// The open questions that may keep the reader from stopping now, oldest first. Each call counts for every one of them,
    /// listed by the caller or not, so that a flood of questions cannot hold a session; after [`MAX_STOP_BLOCKS`] a
    /// question is declined instead. They count as shown by the route `stop`, for their text is in the reason.
    ///
    /// # Errors
    /// [`InboxError::Sql`]; nothing is marked then.
    pub fn block_for_questions(&mut self, now_ms: i64) -> Result<Stopping, InboxError> {
        let reader = self.reader;
        let stopping = self.db.immediate_transaction(|db| {
            let mut stopping = Stopping::default();
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
                match declines {
                    false => stopping.blocking.push(question),
                    true if !others_may_answer(db, question.message.seq)? => stopping.declined.push(question),
                    true => {}
                }
            }
            mark_shown(db, reader, &seqs(&stopping.blocking), "stop", now_ms)?;
            QueryResult::Ok(stopping)
        })?;
        Ok(stopping)
    }

    /// Open questions for the reader, each once: those that it was not given by an earlier call, or all again. They count as
    /// shown by `route` and stay open until they are answered. Also answers how many others are open.
    ///
    /// # Errors
    /// [`InboxError::Sql`]; nothing is marked then.
    pub fn poll_questions(
        &mut self,
        again: bool,
        limit: usize,
        route: &str,
        now_ms: i64,
    ) -> Result<(Vec<Question>, usize), InboxError> {
        let reader = self.reader;
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

    /// Questions of the reader, oldest first: the open ones, or all that are kept. Nothing is marked.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn questions(&mut self, all: bool, now_ms: i64) -> Result<Vec<Question>, InboxError> {
        let reader = self.reader;
        let mut list = questions_of(&mut self.db, Some(reader), now_ms)?;
        list.retain(|question| all || question.state.is_open());
        Ok(list)
    }
}

impl Person<'_> {
    /// Questions of the member, no matter which of its sessions got them, oldest first: the open ones, or all that are kept.
    ///
    /// # Errors
    /// [`InboxError::Sql`]
    pub fn questions(&mut self, all: bool, now_ms: i64) -> Result<Vec<Question>, InboxError> {
        let mut list = questions_of(&mut self.0.db, None, now_ms)?;
        list.retain(|question| all || question.state.is_open());
        Ok(list)
    }
}

/// Where the kept questions stand for the member, by local number.
pub(super) fn states(db: &mut SqliteConnection, now_ms: i64) -> QueryResult<HashMap<i64, QuestionState>> {
    let all = questions_of(db, None, now_ms)?;
    Ok(all.into_iter().map(|question| (question.message.seq, question.state)).collect())
}

/// Whether a session of the member has the question and has not given it up.
fn others_may_answer(db: &mut SqliteConnection, seq: i64) -> QueryResult<bool> {
    let gave_up = question_readers::table
        .filter(question_readers::seq.eq(deliveries::seq))
        .filter(question_readers::reader.eq(deliveries::reader))
        .filter(question_readers::declined_at_ms.is_not_null());
    let open = deliveries::table
        .filter(deliveries::seq.eq(seq))
        .filter(deliveries::reader.ne(MEMBER_READER))
        .filter(diesel::dsl::not(diesel::dsl::exists(gave_up)));
    diesel::select(diesel::dsl::exists(open)).get_result(db)
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
        None => {
            let hidden = hidden(db)?;
            let to_others =
                messages::recipient_pubkey.is_null().or(messages::recipient_pubkey.assume_not_null().ne_all(hidden));
            newest.filter(to_others).select(Message::as_select()).load(db)?
        }
        Some(reader) => newest
            .inner_join(deliveries::table)
            .filter(deliveries::reader.eq(reader))
            // What the rule for incoming messages holds, refuses or has not looked at asks nothing.
            .filter(deliveries::inbound.eq(Verdict::Accept.as_str()))
            .select(Message::as_select())
            .load(db)?,
    };
    list.reverse();
    if list.is_empty() {
        return Ok(vec![]);
    }
    let seqs: Vec<i64> = list.iter().map(|message| message.seq).collect();
    let answered: HashMap<i64, QuestionState> = answers::table
        .filter(answers::seq.eq_any(&seqs))
        .filter(answers::answered_at_ms.is_not_null())
        .select((answers::seq, answers::declined))
        .load::<(i64, bool)>(db)?
        .into_iter()
        .map(|(seq, declined)| (seq, if declined { QuestionState::Declined } else { QuestionState::Answered }))
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
        let state = if let Some(state) = answered.get(&message.seq) {
            *state
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

pub(super) fn note_polled(db: &mut SqliteConnection, reader: &str, seq: i64, now_ms: i64) -> QueryResult<()> {
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

pub(super) fn mark_shown(
    db: &mut SqliteConnection,
    reader: &str,
    seqs: &[i64],
    route: &str,
    now_ms: i64,
) -> QueryResult<()> {
    diesel::update(deliveries::table)
        .filter(deliveries::reader.eq(reader))
        .filter(deliveries::seq.eq_any(seqs))
        .filter(deliveries::shown_at_ms.is_null())
        .set((deliveries::shown_at_ms.eq(now_ms), deliveries::route.eq(route)))
        .execute(db)?;
    Ok(())
}
