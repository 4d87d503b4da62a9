//! Answering a question, once, so that the asker gets it: the asking session, else any session of its member. Saying that
//! there will be no answer goes the same way.

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{Ack, Candidate, Priority};
use claudemesh_protocol::id::PublicKey;
use claudemesh_protocol::target::TargetField;

use crate::connection::{Connection, ConnectionError};
use crate::error::{CliError, ExitCode, sentence};
use crate::features::messaging::{Draft, exchange};
use crate::inbox::answers::AnswerClaim;
use crate::inbox::questions::{DECLINE, QUESTION, REPLY};
use crate::inbox::{InboxError, Mailbox, Message};

/// What an asker reads when the asked side gives no reason.
const NO_REASON: &str = "(no reason given)";
/// What an asker reads when a session stopped over its question.
const STOPPED: &str =
    "The session has stopped without an answer, although it was reminded. One may still come later, as a message.";

/// What the asker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// The answer.
    Answer(&'a str),
    /// There will be none, for this reason if any.
    Decline(&'a str),
}

/// Why an answer was not sent.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// A second answer.
    #[error("already_answered: the question was answered at {0}; write with send_message if there is more to say")]
    AlreadyAnswered(String),
    /// Another process of this member is sending its answer at this moment.
    #[error("already_answered: another session of yours is answering it right now")]
    UnderWay,
    /// Other messages want no answer, so there is nothing to decline.
    #[error("only a question can be declined, and that message is none")]
    NoQuestion,
    /// A message of the broker or of a webhook.
    #[error("no one can be answered: the message does not come from a peer")]
    NoPeer,
    /// The connection or the broker.
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    /// The inbox.
    #[error("{0}")]
    Inbox(#[from] InboxError),
}

impl From<ReplyError> for CliError {
    fn from(error: ReplyError) -> Self {
        let message = match &error {
            // What is left to do is in the hint, in the words of the shell.
            ReplyError::AlreadyAnswered(at) => format!("The question was answered at {}.", crate::clock::shown(at)),
            error => sentence(error.to_string().trim_start_matches("already_answered: ")),
        };
        match error {
            ReplyError::AlreadyAnswered(_) | ReplyError::UnderWay => {
                Self::new(ExitCode::AlreadyExists, ErrorCode::AlreadyAnswered.as_str(), message)
                    .hint("`claudemesh send` writes to the peer what is left to say.")
            }
            ReplyError::NoPeer | ReplyError::NoQuestion => Self::invalid_args(message),
            ReplyError::Connection(error) => error.into(),
            ReplyError::Inbox(error) => error.into(),
        }
    }
}

/// Sends the answer to a message of the inbox. A question is answered or declined once over all sessions and shells of this member on
/// this machine; other messages may be answered any number of times.
///
/// # Errors
/// [`ReplyError`]; unless the outcome is open, the question can be answered again then.
pub async fn reply(
    connection: &Connection,
    mailbox: &Mailbox,
    message: &Message,
    word: Word<'_>,
) -> Result<Ack, ReplyError> {
    let (asker, member) = asker(message).ok_or(ReplyError::NoPeer)?;
    let mut draft = draft(message, word);
    if message.subtype.as_deref() != Some(QUESTION) {
        return match word {
            Word::Answer(_) => Ok(deliver(connection, asker, member, &draft).await?),
            Word::Decline(_) => Err(ReplyError::NoQuestion),
        };
    }
    let (seq, now) = (message.seq, crate::clock::now_ms());
    match mailbox.run(move |inbox| inbox.begin_answer(seq, now)).await? {
        AnswerClaim::Granted(key) => draft.client_message_id = Some(key),
        AnswerClaim::Answered(at_ms) => {
            return Err(ReplyError::AlreadyAnswered(claudemesh_protocol::time::iso(at_ms)));
        }
        AnswerClaim::UnderWay => return Err(ReplyError::UnderWay),
    }
    let sent = deliver(connection, asker, member, &draft).await;
    // The broker has another answer under this key: one that was sent before a crash.
    let earlier = matches!(&sent, Err(error) if error.code() == Some(ErrorCode::AlreadyExists));
    let (done, open) = (sent.is_ok() || earlier, matches!(&sent, Err(error) if error.is_open()));
    let (declined, now) = (matches!(word, Word::Decline(_)), crate::clock::now_ms());
    let noted = mailbox
        .run(move |inbox| if done { inbox.finish_answer(seq, declined, now) } else { inbox.give_up_answer(seq, open) })
        .await;
    if let Err(error) = noted {
        // The lease of the claim ends by itself.
        tracing::warn!(%error, "what became of the answer could not be noted");
    }
    if earlier {
        return Err(ReplyError::AlreadyAnswered("an earlier time".into()));
    }
    Ok(sent?)
}

/// Tells the asker that a session stopped over its question. The question stays as it is: anyone who returns may answer it.
///
/// # Errors
/// [`ReplyError`]; the asker then waits until its time is over.
pub async fn tell_stopped(connection: &Connection, message: &Message) -> Result<Ack, ReplyError> {
    let (asker, member) = asker(message).ok_or(ReplyError::NoPeer)?;
    Ok(deliver(connection, asker, member, &draft(message, Word::Decline(STOPPED))).await?)
}

/// Who asked, for the list of what was sent.
fn asker_of(message: &Message) -> Option<Candidate> {
    let (pubkey, member) = asker(message)?;
    Some(Candidate {
        kind: "session".into(),
        pubkey,
        member_pubkey: member.unwrap_or(pubkey),
        name: message.sender_name.clone().unwrap_or_else(|| message.from_name()),
        online: false,
        cwd: None,
        member_name: message.sender_member_name.clone(),
        hostname: None,
        last_seen_at: None,
    })
}

/// Key to answer to, and the member behind it.
fn asker(message: &Message) -> Option<(PublicKey, Option<PublicKey>)> {
    let member = PublicKey::parse(&message.sender_member);
    PublicKey::parse(&message.sender_pubkey).or(member).map(|asker| (asker, member))
}

fn draft(message: &Message, word: Word<'_>) -> Draft {
    let (subtype, text) = match word {
        Word::Answer(text) => (REPLY, text),
        Word::Decline(reason) if reason.trim().is_empty() => (DECLINE, NO_REASON),
        Word::Decline(reason) => (DECLINE, reason),
    };
    Draft {
        reply_to: Some(message.message_id.clone()),
        subtype: Some(subtype),
        trace: exchange::next_hop(message),
        to: asker_of(message),
        ..Draft::new(text, Priority::Now)
    }
}

/// To the session that asked while it is there. Else to it and to its member, sealed for the member, whose sessions can all
/// open it: a session that returns gets it, and so does one that was started instead.
async fn deliver(
    connection: &Connection,
    asker: PublicKey,
    member: Option<PublicKey>,
    draft: &Draft,
) -> Result<Ack, ConnectionError> {
    let Some(member) = member.filter(|member| *member != asker) else {
        return connection.send_direct(&asker, draft).await;
    };
    match connection.resolve_target(&asker.to_hex()).await {
        Ok(session) if !session.online => {
            let both = TargetField::Many(vec![asker.to_hex(), member.to_hex()]);
            connection.send_sealed(both, &member, draft).await
        }
        Err(error) if error.code() == Some(ErrorCode::UnknownTarget) => connection.send_direct(&member, draft).await,
        // There, or a broker that cannot say.
        _ => connection.send_direct(&asker, draft).await,
    }
}
