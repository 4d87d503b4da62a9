//! `claudemesh ask` in the shell of a session: the session's server asks and waits, the shell prints the answer.
//!
//! The question comes from the session itself, and what ends the wait is taken out of its inbox before any route shows it. An
//! answer that the shell did not print (killed, hung up) goes back and reaches the model like any message.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::Stage;
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::line::LineConnection;
use super::protocol::{Question, Reply};
use crate::features::messaging::exchange;
use crate::features::questions::ask::{self, Ask, AskContext, AskError, MAX_WAIT, Outcome, PROGRESS_EVERY, WaitBudget};
use crate::features::questions::{settle, wait};
use crate::inbox::Message;
use crate::session::{JoinedMesh, Session};

/// Asks for the shell; answers whether the line goes on.
pub(super) async fn ask_line(session: &Arc<Session>, line: &mut LineConnection, question: Question) -> bool {
    let Some(bound) = session.meshes().into_iter().find(|bound| bound.tag.id == question.mesh_id) else {
        return line.refuse(ErrorCode::NotFound, "this session is not in that mesh").await;
    };
    if let Err(error) = session.connected(&bound).await {
        return line.refuse(ErrorCode::Unavailable, error).await;
    }
    if !line.send(&Reply::Taken).await {
        return false;
    }
    let Some(ended) = waited(session, line, &bound, question).await else { return false };
    let outcome = match ended {
        Ok(outcome) => outcome,
        Err(AskError::Rejected(rejected)) => return line.send(&Reply::Rejected(rejected)).await,
        Err(AskError::Connection(error)) => {
            let code = error.code().unwrap_or(ErrorCode::Unavailable);
            return line.refuse(code, error.to_string()).await;
        }
    };
    session.counters.messages_out.fetch_add(1, Ordering::Relaxed);
    let message = outcome.message().cloned();
    let printed = line.send(&Reply::Outcome(Box::new(outcome))).await && line.printed().await;
    if let Some(message) = message {
        if printed {
            shown(session, &bound, &message).await;
        } else {
            give_back(&bound, message.seq).await;
        }
    }
    printed
}

/// The end of the wait; `None` when the shell has gone, which leaves the answer to the session.
async fn waited(
    session: &Arc<Session>,
    line: &mut LineConnection,
    bound: &JoinedMesh,
    question: Question,
) -> Option<Result<Outcome, AskError>> {
    let wait = Duration::from_millis(question.wait_ms).clamp(Duration::from_secs(1), MAX_WAIT);
    let ask = Ask {
        trace: exchange::trace_for(&bound.mailbox, std::slice::from_ref(&question.to)).await,
        to: question.to,
        text: question.text,
        wait_offline: question.wait_offline,
        budget: WaitBudget { wait, cut_short: false },
    };
    let settling = || settle(session, bound).boxed();
    let context =
        AskContext { connection: &bound.connection, mailbox: &bound.mailbox, waits: &bound.waits, settle: &settling };
    let (told, mut asked) = mpsc::channel(1);
    let progress = move |elapsed: Duration| {
        if elapsed < PROGRESS_EVERY {
            // Full: it is told already.
            let _ = told.try_send(());
        }
        std::future::ready(()).boxed()
    };
    let (gone, ended) = (CancellationToken::new(), session.stopped());
    let unwanted = {
        let gone = gone.clone();
        async move {
            tokio::select! {
                () = gone.cancelled() => {}
                () = ended.cancelled() => {}
            }
        }
    };
    let asking = ask::ask(&context, &ask, &progress, unwanted.boxed());
    let hanging_up = line.reader.receive();
    tokio::pin!(asking, hanging_up);
    let mut there = true;
    loop {
        tokio::select! {
            biased;
            // Whatever it says now, it does not wait for an answer any more.
            _ = &mut hanging_up, if there => {
                there = false;
                gone.cancel();
            }
            ended = &mut asking => match ended {
                Ok(outcome) if !there => {
                    if let Some(message) = outcome.message() {
                        give_back(bound, message.seq).await;
                    }
                    return None;
                }
                ended => return there.then_some(ended),
            },
            Some(()) = asked.recv() => {
                line.writer.send(&Reply::Asked).await;
            }
        }
    }
}

/// The shell printed it, and anyone who runs the shell reads what it prints.
async fn shown(session: &Session, bound: &JoinedMesh, message: &Message) {
    session.counters.messages_in.fetch_add(1, Ordering::Relaxed);
    let (seq, now) = (message.seq, crate::clock::now_ms());
    if let Err(error) = bound.mailbox.run(move |inbox| inbox.mark_seen(&[seq], now)).await {
        tracing::warn!(mesh.slug = bound.tag.slug, %error, "a message that was shown cannot be marked");
    }
    bound.connection.acknowledge(vec![message.message_id.clone()], Stage::Seen, wait::ROUTE);
}

async fn give_back(bound: &JoinedMesh, seq: i64) {
    let reader = bound.reader();
    if let Err(error) = bound.mailbox.run(move |inbox| inbox.give_back(&reader, seq)).await {
        tracing::error!(mesh.slug = bound.tag.slug, %error, "an answer was taken and cannot be given back; `claudemesh inbox --all` has it");
    }
    bound.connection.nudge();
}
