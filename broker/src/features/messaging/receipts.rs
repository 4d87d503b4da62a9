//! `client_ack` and `message_status`: the receipt ladder, climbed only by proof.

use std::time::Duration;

use claudemesh_protocol::call::Nothing;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{
    ClientAck, MessageStatus, MessageStatusResult, RecipientReceipt, Stage,
};
use claudemesh_protocol::id::{MemberId, MessageId, PublicKey};
use claudemesh_protocol::limits;
use claudemesh_protocol::time::iso;
use smallvec::SmallVec;

use super::Messaging;
use super::journaling;
use super::recent_messages::{Entry, Receipt};
use super::state::MessagingMemory;
use super::store;
use super::store::types::{StageUpdate, StoredDelivery, StoredMessage};
use crate::db::DbError;
use crate::mesh::context::MeshContext;
use crate::mesh::dispatch::Feature;
use crate::mesh::outcome::{Lane, Outcome, Work, boxed};
use crate::mesh::peers::{PeerHandle, Role, Roster};
use crate::refusal::Refusal;

/// Recipients listed in one answer.
const MAX_LISTED: usize = 1_000;
/// Acknowledgements of one recipient that may be looked up in storage at the same time. Those beyond are about messages long
/// gone from memory, or about none at all, and are left out.
const MAX_LOOKUPS: u32 = 8;
/// Longest look into storage.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(10);

/// Handles `client_ack`: only what was pushed to this very session can be acknowledged by it.
pub(super) fn client_ack(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    ack: ClientAck,
) -> Result<Outcome<Nothing>, Refusal> {
    let ClientAck { client_message_id, broker_message_id, message_ids, stage, route } = ack;
    if message_ids.len() > limits::MAX_ACK_IDS {
        let message = format!("`messageIds`: expected at most {} ids", limits::MAX_ACK_IDS);
        return Err(Refusal::new(ErrorCode::InvalidArgs, message));
    }
    let route: Option<Box<str>> = route.map(|route| route.chars().take(limits::MAX_NAME_CHARS).collect());
    let peer = cx.peer()?;
    let at = peer.handle;
    if peer.ephemeral {
        return Ok(cx.confirmed(Nothing {}));
    }
    // A client that acknowledges is one that can be redelivered to, whatever its hello said.
    if !peer.acks {
        cx.change_peer(at, |peer| peer.acks = true);
    }
    let stage = stage.unwrap_or(Stage::Received).max(Stage::Received);
    let named = broker_message_id.is_none().then_some(client_message_id).flatten();
    let named = named.and_then(|id| cx.roster().outbox(at).and_then(|outbox| outbox.id_of_client_message(&id)));
    let named = broker_message_id.as_deref().or(named.as_ref().map(MessageId::as_str));
    let mut unknown = Vec::new();
    for id in named.into_iter().chain(message_ids.iter().map(String::as_str)) {
        if !acknowledge(memory, cx, at, id, stage, route.as_deref()) {
            unknown.push(id.to_owned());
        }
    }
    if !unknown.is_empty()
        && let Some((key, member)) = cx.roster().get(at).map(|peer| (peer.key(), peer.member.clone()))
    {
        look_up(memory, cx, unknown, (key, member), stage, route);
    }
    journaling::refill(memory, cx, at);
    Ok(cx.confirmed(Nothing {}))
}

/// One acknowledgement; `false` when only storage may know the message.
fn acknowledge(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    at: PeerHandle,
    id: &str,
    stage: Stage,
    route: Option<&str>,
) -> bool {
    let Some(peer) = cx.sending(at) else { return true };
    let (key, member) = (peer.key(), peer.member.clone());
    if let Some(entry) = peer.outbox.acknowledge(id) {
        journaling::end(memory, cx, at, id, &entry);
    }
    stage <= Stage::Received || climb_later(memory, cx, id, (&key, &member), stage, route)
}

/// A step above `received`, also long after the push: noted in memory and for storage. `false` when memory does not know the
/// message. Where a session was no recipient itself, it took over what was for its member.
fn climb_later(
    memory: &mut MessagingMemory,
    cx: &MeshContext<'_>,
    id: &str,
    (key, member): (&PublicKey, &MemberId),
    stage: Stage,
    route: Option<&str>,
) -> bool {
    let now = cx.now_ms();
    let Some(receipt) = memory.recent.receipt(id) else { return false };
    let (seq, stored) = (receipt.seq, receipt.stored);
    let own = receipt.entries.iter().any(|entry| entry.key == *key);
    let meant = receipt.entries.iter().filter(|entry| if own { entry.key == *key } else { entry.member == *member });
    let meant: SmallVec<[PublicKey; 1]> = meant.map(|entry| entry.key).collect();
    for key in meant {
        let climbed = climb(memory, seq, &key, None, stage, route, now);
        if let (Some(key), true) = (climbed, stored) {
            let (mesh_id, route) = (cx.mesh_id().clone(), route.map(str::to_owned));
            memory.stages.push(StageUpdate { mesh_id, seq, recipient_key: key, stage, at_ms: now, route });
        }
    }
    true
}

/// Steps on messages that only storage may know: one look for all of them, and what is there already is not written again.
fn look_up(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    mut ids: Vec<String>,
    (key, member): (PublicKey, MemberId),
    stage: Stage,
    route: Option<Box<str>>,
) {
    ids.retain(|id| id.len() <= limits::MAX_ID_CHARS);
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return;
    }
    let running = memory.lookups.entry(key).or_default();
    if *running >= MAX_LOOKUPS {
        return;
    }
    *running += 1;
    let (storage, now) = (cx.storage(), cx.now_ms());
    let future = boxed::<Messaging, _, _>(async move {
        let look = store::below_stage(&storage, &ids, (&key, &member), stage);
        let found = tokio::time::timeout(LOOKUP_DEADLINE, look).await;
        Ok(move |memory: &mut MessagingMemory, _: &mut MeshContext<'_>| {
            if let Some(running) = memory.lookups.get_mut(&key) {
                *running -= 1;
                if *running == 0 {
                    memory.lookups.remove(&key);
                }
            }
            let found = found.map_err(|_| Refusal::new(ErrorCode::Timeout, "storage took too long"))??;
            memory.stages.extend(found.into_iter().map(|(seq, recipient_key)| StageUpdate {
                mesh_id: storage.mesh().clone(),
                seq,
                recipient_key,
                stage,
                at_ms: now,
                route: route.as_deref().map(str::to_owned),
            }));
            Ok(Outcome::Silent)
        })
    });
    cx.spawn(Work::new(Lane::of::<Messaging>(format_args!("receipt {key}")), future));
}

/// Raises a receipt in memory, never lowers it. Answers the recipient key whose entry climbed.
pub(super) fn climb(
    memory: &mut MessagingMemory,
    seq: i64,
    key: &PublicKey,
    slot: Option<usize>,
    stage: Stage,
    route: Option<&str>,
    now: i64,
) -> Option<PublicKey> {
    let entries = &mut memory.recent.receipt_at(seq)?.entries;
    let at = slot
        .filter(|slot| entries.get(*slot).is_some_and(|entry| entry.key == *key))
        .or_else(|| entries.iter().position(|entry| entry.key == *key))?;
    let entry: &mut Entry = entries.get_mut(at)?;
    if stage <= entry.stage {
        return None;
    }
    entry.stage = stage;
    entry.at_ms = now;
    if route.is_some() {
        entry.route = route.map(Into::into);
    }
    Some(entry.key)
}

/// A reply refers to a message: anyone who got it and answers has answered.
pub(super) fn answered(memory: &mut MessagingMemory, cx: &mut MeshContext<'_>, id: &str, by: PublicKey) {
    let Ok(peer) = cx.asker() else { return };
    let member = peer.member.clone();
    // The reply may come from another session of the member, or from its shell.
    let key = memory.recent.receipt(id).and_then(|receipt| {
        let own = receipt.entries.iter().find(|entry| entry.key == by);
        own.or_else(|| receipt.entries.iter().find(|entry| entry.member == member)).map(|entry| entry.key)
    });
    if !climb_later(memory, cx, id, (&key.unwrap_or(by), &member), Stage::Answered, None) {
        look_up(memory, cx, vec![id.to_owned()], (by, member), Stage::Answered, None);
    }
}

/// Handles `message_status`: for the sender, the recipients and admins.
pub(super) fn message_status(
    memory: &mut MessagingMemory,
    cx: &mut MeshContext<'_>,
    query: &MessageStatus,
) -> Result<Outcome<MessageStatusResult>, Refusal> {
    let id = query.message_id.trim();
    if !(8..=32).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Refusal::new(ErrorCode::InvalidArgument, "expected a message id of 8 to 32 letters and digits"));
    }
    let (own_key, member, role) = {
        let peer = cx.asker()?;
        (peer.key(), peer.member.clone(), cx.member()?.role)
    };
    let mut found: Vec<String> = if id.len() == 32 {
        memory.recent.receipt(id).map(|_| id.to_owned()).into_iter().collect()
    } else {
        memory.recent.with_prefix(id).take(3).map(str::to_owned).collect()
    };
    if id.len() == 32 && found.len() == 1 {
        let id = found.remove(0);
        if let Some(receipt) =
            memory.recent.receipt(id.as_str()).filter(|receipt| may_see(receipt, &own_key, &member, role))
        {
            return Ok(Outcome::Answer(from_memory(cx.roster(), &id, receipt)));
        }
        return Err(not_found());
    }
    let (storage, id) = (cx.storage(), id.to_owned());
    let lane = format!("status {id}");
    let slow = async move {
        let rows = store::message_by_id_prefix(&storage, &id, 3).await?;
        let mut stored: Vec<(StoredMessage, Vec<StoredDelivery>)> = Vec::new();
        for row in rows {
            let deliveries = store::deliveries_of(&storage, row.seq).await?;
            stored.push((row, deliveries));
        }
        Ok::<_, DbError>(stored)
    };
    Ok(Messaging::work(lane, slow, move |memory, cx, stored| {
        let mut answers: Vec<(String, MessageStatusResult)> = Vec::new();
        for id in found {
            if let Some(receipt) =
                memory.recent.receipt(id.as_str()).filter(|one| may_see(one, &own_key, &member, role))
            {
                let answer = from_memory(cx.roster(), &id, receipt);
                answers.push((id, answer));
            }
        }
        for (message, deliveries) in stored {
            let id = message.id.to_string();
            let mine = message.sender_member_id == member
                || role >= Role::Admin
                || deliveries.iter().any(|one| one.recipient_key == own_key || one.member_id == member);
            if mine && !answers.iter().any(|(known, _)| *known == id) {
                answers.push((id, from_storage(cx.roster(), &message, &deliveries)));
            }
        }
        match answers.len() {
            0 => Err(not_found()),
            1 => Ok(Outcome::Answer(answers.remove(0).1)),
            _ => Err(Refusal::new(ErrorCode::AmbiguousPrefix, "several messages begin like that; give more of the id")),
        }
    }))
}

fn not_found() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "no such message, or it is not yours")
}

fn may_see(receipt: &Receipt, key: &PublicKey, member: &MemberId, role: Role) -> bool {
    receipt.sender == *member
        || role >= Role::Admin
        || receipt.entries.iter().any(|entry| entry.key == *key || entry.member == *member)
}

fn from_memory(roster: &Roster, id: &str, receipt: &Receipt) -> MessageStatusResult {
    let recipients: Vec<RecipientReceipt> = receipt
        .entries
        .iter()
        .take(MAX_LISTED)
        .map(|entry| {
            line(
                roster,
                &entry.key,
                &entry.member,
                Some(entry.stage),
                Some(entry.at_ms),
                entry.route.as_deref().map(str::to_owned),
            )
        })
        .collect();
    let last = receipt.entries.iter().map(|entry| entry.at_ms).max();
    let lowest = receipt.entries.iter().map(|entry| Some(entry.stage)).min().flatten();
    result(id, &receipt.target_spec, recipients, lowest, last)
}

fn from_storage(roster: &Roster, message: &StoredMessage, deliveries: &[StoredDelivery]) -> MessageStatusResult {
    let recipients: Vec<RecipientReceipt> = deliveries
        .iter()
        .take(MAX_LISTED)
        .map(|one| line(roster, &one.recipient_key, &one.member_id, one.stage, one.stage_at_ms, one.route.clone()))
        .collect();
    let last = deliveries.iter().filter_map(|one| one.stage_at_ms).max();
    let lowest = deliveries.iter().map(|one| one.stage).min().flatten();
    result(message.id.as_str(), &message.target_spec, recipients, lowest, last)
}

fn line(
    roster: &Roster,
    key: &PublicKey,
    member: &MemberId,
    stage: Option<Stage>,
    at_ms: Option<i64>,
    route: Option<String>,
) -> RecipientReceipt {
    let peer = roster.with_key(key).iter().filter_map(|at| roster.get(*at)).max_by_key(|peer| peer.online());
    let known = roster.known.get(key);
    let name = peer
        .map(|peer| peer.name.clone())
        .or_else(|| known.map(|known| known.name.clone()))
        .or_else(|| roster.member(member).map(|member| member.display_name.clone()));
    let status = match stage {
        Some(stage) if stage >= Stage::Received => "delivered",
        _ if peer.is_some_and(|peer| peer.online()) => "held",
        _ => "disconnected",
    };
    let place = known.filter(|known| known.visible && roster.member_by_key(key).is_none());
    RecipientReceipt {
        name: name.unwrap_or_else(|| "unknown".into()),
        member_name: roster.member(member).map(|member| member.display_name.clone()),
        hostname: place.and_then(|known| known.hostname.clone()),
        cwd: place.map(|known| known.cwd.clone()).filter(|cwd| !cwd.is_empty()),
        pubkey: key.to_hex(),
        status: status.into(),
        stage,
        stage_at: at_ms.map(iso),
        route,
    }
}

fn result(
    id: &str,
    target: &str,
    recipients: Vec<RecipientReceipt>,
    lowest: Option<Stage>,
    last_ms: Option<i64>,
) -> MessageStatusResult {
    let delivered = lowest.is_some_and(|stage| stage >= Stage::Received);
    MessageStatusResult {
        message_id: id.into(),
        target_spec: target.into(),
        delivered,
        delivered_at: last_ms.filter(|_| delivered).map(iso),
        stage: lowest,
        recipients,
    }
}
