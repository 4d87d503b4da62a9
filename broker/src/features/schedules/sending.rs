//! The messages of one entry: sent in the name of its member, and what came of them.

use claudemesh_protocol::capability::Capability;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{Ack, Priority, Response};
use claudemesh_protocol::id::MemberId;
use claudemesh_protocol::message::ServerMessage;
use tokio::sync::oneshot;

use super::plan::Plan;
use super::store::{Row, Sent};
use crate::mesh::context::MeshContext;
use crate::mesh::letter::{Author, Letter};
use crate::mesh::principal::{Answer, Principal, ReplyTo, Waiting, Way};
use crate::refusal::Refusal;

/// What came of the messages of one entry.
pub(super) enum Came {
    /// So many were sent; the last one that was not, and why.
    Sent(i64, Option<String>),
    /// Nothing of it is known to be stored.
    Open,
    /// Its member has sent as much as it may; more passes after so many milliseconds. What was sent of it is not sent again.
    Held(i64),
}

/// What came of a page.
#[derive(Default)]
pub(super) struct Page {
    pub open: usize,
    pub held: Vec<(String, i64)>,
    pub acks: Vec<(MemberId, Ack)>,
    pub next_ms: Option<i64>,
}

/// Where the answers to messages will be.
pub(super) type Waits = Vec<oneshot::Receiver<Answer>>;

/// Sends the messages of an entry in the name of its member, who needs no connection for it, but the right to do so.
pub(super) fn send(cx: &mut MeshContext<'_>, row: &Row, times: &[i64]) -> Result<Waits, Refusal> {
    let id = MemberId::from(row.member_id.as_str());
    let member = cx.roster().live_member(&id);
    let member = member.ok_or_else(|| Refusal::new(ErrorCode::Revoked, "its member is not in this mesh any more"))?;
    for needed in [Capability::CanSchedule, Capability::CanSend] {
        if !cx.rights().allows(&id, member.role, needed) {
            return Err(Refusal::lacks(needed));
        }
    }
    let mut waits = Vec::with_capacity(times.len());
    for time in times {
        let (waiting, answer) = Waiting::new(Principal::Member(id.clone()));
        let reply = ReplyTo { way: Way::Waiting(waiting), req_id: None, id: None, confirm: false };
        cx.deliver(Letter {
            from: Author::Member(id.clone()),
            to: row.targets(),
            priority: Priority::Now,
            subtype: row.subtype.clone(),
            nonce: row.nonce.clone(),
            body: row.body.clone(),
            reply_to_id: None,
            key: Some(format!("schedule:{}:{time}", row.id)),
            reply: Some(reply),
        });
        waits.push(answer);
    }
    Ok(waits)
}

pub(super) fn words(refusal: &Refusal) -> String {
    format!("{}: {}", refusal.code.as_str(), refusal.message)
}

/// What came of the messages of one entry, once it is known of all.
pub(super) async fn came(waits: Waits, row: &Row, acks: &mut Vec<(MemberId, Ack)>) -> Came {
    let (mut fired, mut error, mut open, mut held) = (0, None, false, None);
    for wait in waits {
        match wait.await {
            Ok(Ok(ServerMessage::Messaging(Response::Ack(ack)))) => {
                let code = ack.code.as_deref().and_then(ErrorCode::parse);
                match (ack.queued, code) {
                    (true, _) => fired += 1,
                    (false, Some(code)) if code.retryable() => open = true,
                    (false, _) => error.clone_from(&ack.error),
                }
                acks.push((row.member_id.as_str().into(), ack));
            }
            Ok(Err(refusal)) if matches!(refusal.code, ErrorCode::RateLimited | ErrorCode::PairLimit) => {
                held = held.max(Some(refusal.retry_after_ms.unwrap_or(0)));
            }
            Ok(Err(refusal)) if refusal.code.retryable() => open = true,
            Ok(Err(refusal)) => error = Some(words(&refusal)),
            // The mesh ended before it gave an answer.
            Ok(Ok(_)) | Err(_) => open = true,
        }
    }
    match held {
        _ if open => Came::Open,
        Some(wait_ms) => Came::Held(i64::try_from(wait_ms).unwrap_or(i64::MAX)),
        None => Came::Sent(fired, error),
    }
}

/// An entry with its next time. That one may have come while the messages were stored; then it is due at once.
pub(super) fn gone_on(row: Row, plan: &Plan, (fired, error): (i64, Option<String>), wall_ms: i64) -> Sent {
    let from_ms = row.due_ms.map_or(plan.until_ms, |due_ms| due_ms.max(plan.until_ms));
    let (next_ms, error) = match row.cron() {
        Ok(cron) => (cron.and_then(|cron| cron.next(from_ms)), error),
        Err(bad) => (None, Some(format!("{}: {bad}", ErrorCode::InvalidCron.as_str()))),
    };
    Sent { row, fired, missed: plan.missed, error, next_ms, now_ms: wall_ms }
}

/// Clients of before get an ack that they did not ask for, as if their connection had sent the message.
pub(super) fn tell_older(cx: &MeshContext<'_>, member: &MemberId, ack: &Ack) {
    let older = |at: &&_| cx.roster().get(**at).is_some_and(|peer| peer.older && peer.online());
    for at in cx.roster().of_member(member).iter().filter(older) {
        let ack = Ack { id: uuid::Uuid::new_v4().to_string(), ..ack.clone() };
        cx.push(*at, &ServerMessage::from(Response::from(ack)));
    }
}
