//! What a new message has to do with earlier ones: the exchange it continues and the question it answers.
//!
//! A message in an exchange keeps its trace id and adds a hop, so that two agents cannot answer each other for ever. This
//! only reads and notes; it sends nothing.

use claudemesh_protocol::features::messaging::Trace;

use super::{Draft, Outcome};
use crate::inbox::questions::{QUESTION, REPLY};
use crate::inbox::{Mailbox, Message};

/// A message to the same peer within this time continues the exchange.
const EXCHANGE_MS: i64 = 10 * 60 * 1_000;

/// A new exchange.
pub fn new_trace() -> Trace {
    Trace { id: uuid::Uuid::new_v4().to_string(), hop: 0 }
}

/// The next step in the exchange of a message.
pub fn next_hop(message: &Message) -> Trace {
    match &message.trace_id {
        Some(id) => Trace { id: id.clone(), hop: u32::try_from(message.trace_hop).unwrap_or(0).saturating_add(1) },
        None => new_trace(),
    }
}

/// The exchange that a message to these targets continues: that of the last message from there, else a new one.
pub async fn trace_for(mailbox: &Mailbox, targets: &[String]) -> Trace {
    let targets = targets.to_vec();
    let since = crate::clock::now_ms() - EXCHANGE_MS;
    let last = mailbox.run(move |inbox| {
        let mut newest: Option<Message> = None;
        for target in &targets {
            let last = inbox.last_exchange(target, since)?;
            newest = newest.into_iter().chain(last).max_by_key(|message| message.seq);
        }
        Ok(newest)
    });
    // An inbox that cannot be read is reported where messages are shown; a new exchange is the modest choice.
    last.await.ok().flatten().map_or_else(new_trace, |message| next_hop(&message))
}

/// Puts a draft into its exchange: full id of the message that it answers, trace, and the subtype of an answer when that
/// message was a question. Answers the message when it is here.
pub async fn refer(
    mailbox: &Mailbox,
    draft: &mut Draft,
    reply_to: Option<&str>,
    targets: &[String],
) -> Option<Message> {
    let Some(id) = reply_to.map(str::trim).filter(|id| !id.is_empty()) else {
        draft.trace = trace_for(mailbox, targets).await;
        return None;
    };
    let wanted = id.to_owned();
    let found = mailbox.run(move |inbox| inbox.find(&wanted)).await.ok().flatten();
    match &found {
        Some(message) => {
            draft.trace = next_hop(message);
            draft.reply_to = Some(message.message_id.clone());
            if message.subtype.as_deref() == Some(QUESTION) {
                draft.subtype = Some(REPLY);
            }
        }
        None => {
            draft.trace = trace_for(mailbox, targets).await;
            draft.reply_to = Some(id.to_owned());
        }
    }
    found
}

/// Notes that a question was answered by an ordinary message, when that reached the asker.
pub async fn note_answered(mailbox: &Mailbox, question: Option<&Message>, outcomes: &[Outcome]) {
    let Some(question) = question.filter(|message| message.subtype.as_deref() == Some(QUESTION)) else { return };
    let reached = outcomes.iter().filter(|outcome| outcome.result.is_ok()).any(|outcome| {
        let key = outcome.resolved.as_ref().map_or_else(|| outcome.target.clone(), |found| found.pubkey.to_hex());
        let member = outcome.resolved.as_ref().map(|found| found.member_pubkey.to_hex());
        key == question.sender_pubkey
            || key == question.sender_member
            || member.is_some_and(|key| key == question.sender_member)
    });
    if !reached {
        return;
    }
    let (seq, now) = (question.seq, crate::clock::now_ms());
    if let Err(error) = mailbox.run(move |inbox| inbox.note_answered(seq, now)).await {
        tracing::warn!(%error, "the answer was sent but the question stays open here");
    }
}
