//! The approver's end: which questions wait for a person of this member, and that person's signed answer.

use std::collections::HashSet;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{Ack, Priority};
use serde_json::json;

use super::ANSWER;
use super::audit::{AuditError, Event};
use super::pending_requests::record;
use super::wire::{Answer, Behavior, ClosedNote, MAX_REASON_CHARS, Request};
use crate::config::ConfigStore;
use crate::connection::{Connection, ConnectionError};
use crate::features::messaging::Draft;
use crate::features::messaging::exchange;
use crate::inbox::answers::AnswerClaim;
use crate::inbox::{Inbox, InboxError, Mailbox, Message};

/// Requests that came longer ago are over whatever they say.
const LOOK_BACK_MS: i64 = 3_600_000;

/// A question that waits for a person.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The message it came in.
    pub message: Message,
    /// What is asked.
    pub request: Request,
}

/// Why an answer was not given.
#[derive(Debug, thiserror::Error)]
pub enum GiveError {
    /// This member has answered.
    #[error("already_answered: this request was answered at {0}")]
    AlreadyAnswered(String),
    /// Another process of this member is at it.
    #[error("already_answered: another session or shell of yours is answering it right now")]
    UnderWay,
    /// The asking session cannot be addressed.
    #[error("the request does not come from a session of a member")]
    NoPeer,
    /// It cannot be written down, so it is not given.
    #[error("{0}")]
    Audit(#[from] AuditError),
    /// The inbox.
    #[error("{0}")]
    Inbox(#[from] InboxError),
    /// The connection or the broker.
    #[error("{0}")]
    Connection(#[from] ConnectionError),
}

/// The questions that are open, oldest first. Of several with one id from one session the newest counts.
///
/// # Errors
/// [`InboxError`]
pub fn waiting(inbox: &mut Inbox, mesh: &str, now_ms: i64) -> Result<Vec<Waiting>, InboxError> {
    let (mut list, mut settled) = (vec![], HashSet::new());
    for message in inbox.permission_requests(now_ms.saturating_sub(LOOK_BACK_MS))? {
        if let Some(note) = ClosedNote::of(&message) {
            settled.insert((message.sender_pubkey, note.id));
            continue;
        }
        let Some(request) = Request::of(&message) else { continue };
        let known = !settled.insert((message.sender_pubkey.clone(), request.id.clone()));
        if !known && request.mesh_id.as_str() == mesh && !request.is_over(&message, now_ms) {
            list.push(Waiting { message, request });
        }
    }
    list.reverse();
    Ok(list)
}

/// Signs the answer of a person and sends it to the asking session. Once for each request.
///
/// # Errors
/// [`GiveError`]; unless the outcome is open, it can be tried again.
pub async fn give(
    connection: &Connection,
    mailbox: &Mailbox,
    store: &ConfigStore,
    waiting: &Waiting,
    behavior: Behavior,
    reason: Option<&str>,
) -> Result<Ack, GiveError> {
    let Waiting { message, request } = waiting;
    let key = &connection.identity().member;
    let (seq, now) = (message.seq, crate::clock::now_ms());
    let client_message_id = match mailbox.run(move |inbox| inbox.begin_answer(seq, now)).await? {
        AnswerClaim::Granted(id) => id,
        AnswerClaim::Answered(at_ms) => {
            return Err(GiveError::AlreadyAnswered(claudemesh_protocol::time::iso(at_ms)));
        }
        AnswerClaim::UnderWay => return Err(GiveError::UnderWay),
    };
    let reason: Option<String> = reason.map(|reason| reason.chars().take(MAX_REASON_CHARS).collect());
    let answer = Answer::sign(request, behavior, reason.as_deref(), key, now);
    let sent = send(connection, store, waiting, &answer, client_message_id).await;
    let open = matches!(&sent, Err(GiveError::Connection(error)) if error.is_open());
    let earlier = matches!(&sent, Err(GiveError::Connection(error)) if error.code() == Some(ErrorCode::AlreadyExists));
    let done = sent.is_ok() || earlier;
    let noted = mailbox
        .run(move |inbox| {
            if !done {
                return inbox.give_up_answer(seq, open);
            }
            inbox.finish_answer(seq, false, now)?;
            inbox.mark_seen(&[seq], now).map(drop)
        })
        .await;
    if let Err(error) = noted {
        // The lease of the claim ends by itself.
        tracing::warn!(%error, "what became of the answer could not be noted");
    }
    if earlier {
        return Err(GiveError::AlreadyAnswered("an earlier time".into()));
    }
    sent
}

async fn send(
    connection: &Connection,
    store: &ConfigStore,
    waiting: &Waiting,
    answer: &Answer,
    client_message_id: String,
) -> Result<Ack, GiveError> {
    let Waiting { message, request } = waiting;
    let identity = connection.identity();
    let data = json!({
        "request": request.id, "session": request.session, "sender": message.sender_member, "tool": request.tool,
        "digest": request.digest, "behavior": answer.behavior, "signedAtMs": answer.signed_at_ms,
        "signature": answer.signature, "reason": answer.reason,
    });
    record(store, &identity.member, identity.mesh_id.as_str(), Event::Gave, data).await?;
    let text = serde_json::to_string(answer).map_err(|_| GiveError::NoPeer)?;
    let draft = Draft {
        subtype: Some(ANSWER),
        reply_to: Some(message.message_id.clone()),
        trace: exchange::next_hop(message),
        client_message_id: Some(client_message_id),
        ..Draft::new(text, Priority::Now)
    };
    Ok(connection.send_direct(&request.session, &draft).await?)
}
