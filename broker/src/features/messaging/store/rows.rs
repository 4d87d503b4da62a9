//! Rows of `messages` and `deliveries` and their domain types.

use diesel::prelude::*;

use super::super::schema::{deliveries, messages};
#[cfg(feature = "postgres")]
use super::types::StageUpdate;
use super::types::{NewDelivery, NewMessage, RecipientKind, StoredDelivery, StoredMessage};
use crate::db::{DbError, convert};

#[derive(Insertable)]
#[diesel(table_name = messages, treat_none_as_default_value = false)]
pub(super) struct NewMessageRow<'a> {
    mesh_id: &'a str,
    seq: i64,
    id: &'a str,
    sender_member_id: &'a str,
    sender_key: String,
    sender_member_key: String,
    sender_name: &'a str,
    target_spec: &'a str,
    priority: i32,
    nonce: &'a str,
    ciphertext: &'a str,
    created_at_ms: i64,
    expires_at_ms: i64,
    client_message_id: Option<&'a str>,
    request_fingerprint: Option<&'a str>,
    reply_to_id: Option<&'a str>,
    subtype: Option<&'a str>,
    topic_id: Option<&'a str>,
    topic_name: Option<&'a str>,
    body_version: i32,
    trace_id: Option<&'a str>,
    trace_hop: i32,
}

impl<'a> From<&'a NewMessage> for NewMessageRow<'a> {
    fn from(message: &'a NewMessage) -> Self {
        Self {
            mesh_id: message.mesh_id.as_str(),
            seq: message.seq,
            id: message.id.as_str(),
            sender_member_id: message.sender_member_id.as_str(),
            sender_key: message.sender_key.to_hex(),
            sender_member_key: message.sender_member_key.to_hex(),
            sender_name: &message.sender_name,
            target_spec: &message.target_spec,
            priority: convert::priority_number(message.priority),
            nonce: &message.nonce,
            ciphertext: &message.ciphertext,
            created_at_ms: message.created_at_ms,
            expires_at_ms: message.expires_at_ms,
            client_message_id: message.client_message_id.as_deref(),
            request_fingerprint: message.request_fingerprint.as_deref(),
            reply_to_id: message.reply_to_id.as_deref(),
            subtype: message.subtype.as_deref(),
            topic_id: message.topic_id.as_ref().map(|id| id.as_str()),
            topic_name: message.topic_name.as_deref(),
            body_version: message.body_version,
            trace_id: message.trace_id.as_deref(),
            trace_hop: i32::try_from(message.trace_hop).unwrap_or(i32::MAX),
        }
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = messages)]
pub(super) struct MessageRow {
    mesh_id: String,
    seq: i64,
    id: String,
    sender_member_id: String,
    sender_key: String,
    sender_member_key: String,
    sender_name: String,
    target_spec: String,
    priority: i32,
    nonce: String,
    ciphertext: String,
    created_at_ms: i64,
    expires_at_ms: i64,
    client_message_id: Option<String>,
    request_fingerprint: Option<String>,
    reply_to_id: Option<String>,
    subtype: Option<String>,
    topic_id: Option<String>,
    topic_name: Option<String>,
    body_version: i32,
    trace_id: Option<String>,
    trace_hop: i32,
}

impl TryFrom<MessageRow> for StoredMessage {
    type Error = DbError;

    fn try_from(row: MessageRow) -> Result<Self, DbError> {
        Ok(Self {
            mesh_id: row.mesh_id.into(),
            seq: row.seq,
            id: row.id.into(),
            sender_member_id: row.sender_member_id.into(),
            sender_key: convert::key("messages.sender_key", &row.sender_key)?,
            sender_member_key: convert::key("messages.sender_member_key", &row.sender_member_key)?,
            sender_name: row.sender_name,
            target_spec: row.target_spec.into(),
            priority: convert::priority("messages.priority", row.priority)?,
            nonce: row.nonce,
            ciphertext: row.ciphertext,
            created_at_ms: row.created_at_ms,
            expires_at_ms: row.expires_at_ms,
            client_message_id: row.client_message_id.map(Into::into),
            request_fingerprint: row.request_fingerprint.map(Into::into),
            reply_to_id: row.reply_to_id,
            subtype: row.subtype,
            topic_id: row.topic_id.map(Into::into),
            topic_name: row.topic_name,
            body_version: row.body_version,
            trace_id: row.trace_id,
            trace_hop: u32::try_from(row.trace_hop).map_err(|_| DbError::corrupt("messages.trace_hop"))?,
        })
    }
}

pub(super) fn messages_of(rows: Vec<MessageRow>) -> Result<Vec<StoredMessage>, DbError> {
    rows.into_iter().map(TryInto::try_into).collect()
}

pub(super) const KIND_SESSION: i32 = 0;
pub(super) const KIND_MEMBER: i32 = 1;

pub(super) fn kind_of(number: i32) -> Result<RecipientKind, DbError> {
    match number {
        KIND_SESSION => Ok(RecipientKind::Session),
        KIND_MEMBER => Ok(RecipientKind::Member),
        _ => Err(DbError::corrupt("deliveries.recipient_kind")),
    }
}

#[derive(Insertable)]
#[diesel(table_name = deliveries, treat_none_as_default_value = false)]
pub(super) struct NewDeliveryRow<'a> {
    mesh_id: &'a str,
    seq: i64,
    recipient_key: String,
    recipient_kind: i32,
    member_id: &'a str,
    priority: i32,
    size_bytes: i32,
    stage: i32,
}

impl<'a> From<&'a NewDelivery> for NewDeliveryRow<'a> {
    fn from(delivery: &'a NewDelivery) -> Self {
        Self {
            mesh_id: delivery.mesh_id.as_str(),
            seq: delivery.seq,
            recipient_key: delivery.recipient_key.to_hex(),
            recipient_kind: match delivery.kind {
                RecipientKind::Session => KIND_SESSION,
                RecipientKind::Member => KIND_MEMBER,
            },
            member_id: delivery.member_id.as_str(),
            priority: convert::priority_number(delivery.priority),
            size_bytes: i32::try_from(delivery.size_bytes).unwrap_or(i32::MAX),
            stage: 0,
        }
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = deliveries)]
pub(super) struct DeliveryRow {
    seq: i64,
    recipient_key: String,
    recipient_kind: i32,
    member_id: String,
    priority: i32,
    size_bytes: i32,
    stage: i32,
    stage_at_ms: Option<i64>,
    route: Option<String>,
}

impl TryFrom<DeliveryRow> for StoredDelivery {
    type Error = DbError;

    fn try_from(row: DeliveryRow) -> Result<Self, DbError> {
        Ok(Self {
            seq: row.seq,
            recipient_key: convert::key("deliveries.recipient_key", &row.recipient_key)?,
            kind: kind_of(row.recipient_kind)?,
            member_id: row.member_id.into(),
            priority: convert::priority("deliveries.priority", row.priority)?,
            size_bytes: u32::try_from(row.size_bytes).map_err(|_| DbError::corrupt("deliveries.size_bytes"))?,
            stage: convert::stage("deliveries.stage", row.stage)?,
            stage_at_ms: row.stage_at_ms,
            route: row.route,
        })
    }
}

/// Several receipts of one delivery become the highest, because one statement may touch a row once only.
#[cfg(feature = "postgres")]
pub(super) fn highest_stages(updates: &[StageUpdate]) -> Vec<StageUpdate> {
    use std::collections::HashMap;
    let mut highest: HashMap<(&str, i64, [u8; 32]), StageUpdate> = HashMap::with_capacity(updates.len());
    for update in updates {
        let key = (update.mesh_id.as_str(), update.seq, *update.recipient_key.as_bytes());
        let slot = highest.entry(key).or_insert_with(|| update.clone());
        if update.stage > slot.stage {
            let earlier = slot.route.take();
            *slot = update.clone();
            slot.route = slot.route.take().or(earlier);
        }
    }
    highest.into_values().collect()
}
