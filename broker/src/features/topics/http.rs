//! Topics over HTTP, for programs with an API key.

use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::features::messaging::{Priority, Send};
use claudemesh_protocol::features::topics::{
    NotificationList, NotificationListResult, NotificationRead, NotificationReadResult, TopicEntry, TopicHistory,
    TopicList, TopicMarkRead, TopicMember, TopicMembers, TopicMessage,
};
use claudemesh_protocol::id::TopicId;
use claudemesh_protocol::time::{iso, parse_iso};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{store, streaming};
use crate::http::State;
use crate::http::api::{ApiCaller, query};
use crate::http::openapi::Operation;
use crate::mesh::context::{Caller, MeshContext};
use crate::mesh::principal::Waiting;
use crate::refusal::{Refusal, invalid};

pub(super) type Answer = Result<HttpResponse, Refusal>;

crate::routes! {
    post "/api/v1/messages" => post, key Send;
    get "/api/v1/topics" => list, key Read;
    get "/api/v1/topics/{topic}/messages" => history, key Read;
    get "/api/v1/topics/{topic}/members" => members, key Read;
    get "/api/v1/topics/{topic}/stream" => streaming::stream, key Read;
    patch "/api/v1/topics/{topic}/read" => mark_read, key Read;
    get "/api/v1/notifications" => notifications, key Read;
    post "/api/v1/notifications/read" => notifications_read, key Read;
}

/// What the OpenAPI document says of these routes.
pub const OPERATIONS: &[Operation] = &[
    Operation::new("POST", "/api/v1/messages", "Write a message to a topic")
        .with_header("Idempotency-Key", "A request that is repeated with the same key is the same message.")
        .takes::<NewMessage>()
        .gives::<Posted>(),
    Operation::new("GET", "/api/v1/topics", "Topics that the key reaches, by name").gives::<Topics>(),
    Operation::new("GET", "/api/v1/topics/{topic}/messages", "Messages of a topic, newest first")
        .asks("limit", "1 to 200, default 50.")
        .asks("before", "Only messages before this one: `next` of the page before.")
        .asks("repliesTo", "Only what answers this message.")
        .gives::<Messages>(),
    Operation::new("GET", "/api/v1/topics/{topic}/members", "Who follows a topic").gives::<Members>(),
    Operation::new("GET", "/api/v1/topics/{topic}/stream", "Messages of a topic as server-sent events")
        .with_header("Last-Event-ID", "What came after this message comes first.")
        .asks("after", "As Last-Event-ID, for clients that cannot set a header.")
        .gives_events(),
    Operation::new("PATCH", "/api/v1/topics/{topic}/read", "Move the read mark of the key's member to now")
        .gives::<MarkedRead>(),
    Operation::new("GET", "/api/v1/notifications", "Mentions of the key's member, newest first")
        .asks("since", "Only those after this ISO time.")
        .asks("unread", "`1`: only those that are not read.")
        .asks("limit", "1 to 50, default 50.")
        .asks("before", "Only those before this one, by its id.")
        .gives::<NotificationListResult>(),
    Operation::new("POST", "/api/v1/notifications/read", "Mark mentions as read")
        .takes::<Marks>()
        .gives::<NotificationReadResult>(),
];

/// A message to write.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewMessage {
    /// Name or id of the topic.
    topic: String,
    /// The text; or `ciphertext`.
    text: Option<String>,
    /// Base64, as the wire has it; or `text`.
    ciphertext: Option<String>,
    /// Base64, with `ciphertext`.
    nonce: Option<String>,
    /// `now`, `next` (default) or `low`.
    priority: Option<String>,
    /// 1 (default) or 2, with `ciphertext`.
    body_version: Option<i32>,
    /// Names that are mentioned; when absent those with `@` in the text.
    #[serde(default)]
    mentions: Vec<String>,
    /// Message of the topic that this one answers.
    reply_to_id: Option<String>,
}

/// A message that was written.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Posted {
    /// Its id.
    message_id: String,
    /// The same: its id in the history.
    history_id: String,
    /// The same: its id in the queues of its recipients.
    queue_id: String,
    /// Name of the topic.
    topic: String,
    /// Id of the topic.
    topic_id: String,
    /// How many members it mentions.
    notifications: u32,
    /// 1: the broker can read it; 2: it cannot.
    body_version: i32,
    /// The message that it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to_id: Option<String>,
    /// It was written before, by a request with the same `Idempotency-Key`.
    duplicate: bool,
}

/// Topics.
#[derive(Serialize, JsonSchema)]
struct Topics {
    /// By name.
    topics: Vec<TopicEntry>,
}

/// A part of a history.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Messages {
    /// Name of the topic.
    topic: String,
    /// Its id.
    topic_id: String,
    /// Newest first.
    messages: Vec<TopicMessage>,
    /// There may be more: `before` of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Who follows a topic.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Members {
    /// Name of the topic.
    topic: String,
    /// Its id.
    topic_id: String,
    /// In joining order.
    members: Vec<TopicMember>,
}

/// A read mark that was moved.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct MarkedRead {
    /// Name of the topic.
    topic: String,
    /// Its id.
    topic_id: String,
    /// ISO time.
    read_at: String,
}

/// Which mentions are read: those of `ids`, or all.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Marks {
    /// At most 200.
    #[serde(default)]
    ids: Vec<String>,
    /// All of them.
    #[serde(default)]
    all: bool,
}

/// The topic of a path or a body, as the mesh knows it.
pub(super) async fn topic_of(state: &State, caller: &ApiCaller, text: &str) -> Result<(TopicId, String), Refusal> {
    let (from, text) = (caller.principal(), text.to_owned());
    let found = state.directory.with(&caller.mesh, move |core, _| {
        let (waiting, _) = Waiting::new(from.clone());
        let cx = MeshContext::new(core, Some(Caller::waiting(from, waiting, "topic")));
        cx.topic(&text).map(|topic| (topic.id.clone(), topic.name.clone()))
    });
    found.await?
}

fn body_of(message: &NewMessage) -> Result<(String, String), Refusal> {
    match (&message.text, &message.ciphertext) {
        (Some(text), None) if message.nonce.is_none() && message.body_version.unwrap_or(1) == 1 => {
            if text.is_empty() {
                Err(invalid("`text`: expected a text"))
            } else {
                Ok((STANDARD.encode(text), String::new()))
            }
        }
        (None, Some(ciphertext)) => {
            let nonce = message.nonce.clone().unwrap_or_default();
            if STANDARD.decode(ciphertext).is_err() || STANDARD.decode(&nonce).is_err() {
                return Err(invalid("`ciphertext`, `nonce`: expected base64"));
            }
            Ok((ciphertext.clone(), nonce))
        }
        _ => Err(invalid("expected either `text`, or `ciphertext` with `nonce` and `bodyVersion`")),
    }
}

async fn post(state: State, request: HttpRequest, caller: ApiCaller) -> Answer {
    let message: NewMessage = caller.json()?;
    let (ciphertext, nonce) = body_of(&message)?;
    let body_version = message.body_version.unwrap_or(1);
    if !(1..=2).contains(&body_version) {
        return Err(invalid("`bodyVersion`: expected 1 or 2"));
    }
    let priority = match message.priority.as_deref() {
        None | Some("next") => Priority::Next,
        Some("now") => Priority::Now,
        Some("low") => Priority::Low,
        Some(_) => return Err(invalid("`priority`: expected `now`, `next` or `low`")),
    };
    let (topic_id, topic) = topic_of(&state, &caller, &message.topic).await?;
    let again = match request.headers().get("idempotency-key") {
        Some(header) => {
            let text = header.to_str().ok().filter(|text| (1..=64).contains(&text.len()));
            Some(text.ok_or_else(|| invalid("`Idempotency-Key`: expected 1 to 64 ASCII characters"))?.to_owned())
        }
        None => None,
    };
    let send = Send {
        target_spec: format!("#{topic_id}").as_str().into(),
        priority,
        nonce,
        ciphertext,
        mentions: message.mentions,
        reply_to_id: message.reply_to_id.clone(),
        body_version: Some(body_version),
        request_fingerprint: again.as_ref().map(|_| hex::encode(Sha256::digest(caller.bytes()))),
        // Of this key: another one of the same member may use the same word.
        client_message_id: again.map(|again| format!("{}:{again}", caller.key)),
        ..Send::default()
    };
    let ack = caller.ask(send).await?;
    if !ack.queued {
        let code = ack.code.as_deref().and_then(ErrorCode::parse).unwrap_or(ErrorCode::Internal);
        let text = ack.error.unwrap_or_default();
        let words = text.strip_prefix(code.as_str()).map_or(text.as_str(), |rest| rest.trim_start_matches(": "));
        return Err(Refusal { retry_after_ms: ack.retry_after_ms, ..Refusal::new(code, words) });
    }
    let mentioned = store::notified_by(&state.storage(&caller.mesh), &ack.message_id).await?;
    Ok(caller.ok(Posted {
        history_id: ack.message_id.clone(),
        queue_id: ack.message_id.clone(),
        message_id: ack.message_id,
        topic,
        topic_id: topic_id.to_string(),
        notifications: u32::try_from(mentioned).unwrap_or(u32::MAX),
        body_version,
        reply_to_id: message.reply_to_id,
        duplicate: ack.duplicate,
    }))
}

async fn list(caller: ApiCaller) -> Answer {
    let listed = caller.ask(TopicList {}).await?;
    Ok(caller.ok(Topics { topics: listed.topics }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PartOfHistory {
    limit: Option<u32>,
    before: Option<String>,
    replies_to: Option<String>,
}

async fn history(state: State, request: HttpRequest, path: web::Path<String>, caller: ApiCaller) -> Answer {
    let part: PartOfHistory = query(&request)?;
    let limit = part.limit.unwrap_or(50);
    if !(1..=200).contains(&limit) {
        return Err(invalid("`limit`: expected 1 to 200"));
    }
    let (topic_id, topic) = topic_of(&state, &caller, &path).await?;
    let ask = TopicHistory {
        topic: topic_id.to_string(),
        limit: Some(limit),
        before_id: part.before,
        replies_to_id: part.replies_to,
        pinned: false,
    };
    let messages = caller.ask(ask).await?.messages;
    let next = messages.last().filter(|_| messages.len() == limit as usize).map(|message| message.id.clone());
    Ok(caller.ok(Messages { topic, topic_id: topic_id.to_string(), messages, next }))
}

async fn members(state: State, path: web::Path<String>, caller: ApiCaller) -> Answer {
    let (topic_id, topic) = topic_of(&state, &caller, &path).await?;
    let found = caller.ask(TopicMembers { topic: topic_id.to_string() }).await?;
    Ok(caller.ok(Members { topic, topic_id: topic_id.to_string(), members: found.members }))
}

async fn mark_read(state: State, path: web::Path<String>, caller: ApiCaller) -> Answer {
    let (topic_id, topic) = topic_of(&state, &caller, &path).await?;
    let read_at = iso(state.clock.now_ms());
    caller.ask(TopicMarkRead { topic: topic_id.to_string() }).await?;
    Ok(caller.ok(MarkedRead { topic, topic_id: topic_id.to_string(), read_at }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichNotifications {
    since: Option<String>,
    unread: Option<u8>,
    limit: Option<u32>,
    before: Option<String>,
}

async fn notifications(request: HttpRequest, caller: ApiCaller) -> Answer {
    let which: WhichNotifications = query(&request)?;
    let since_ms = match which.since.as_deref() {
        Some(text) => Some(parse_iso(text).ok_or_else(|| invalid("`since`: expected an ISO time"))?),
        None => None,
    };
    if !(1..=50).contains(&which.limit.unwrap_or(50)) {
        return Err(invalid("`limit`: expected 1 to 50"));
    }
    let unread = which.unread.is_some_and(|one| one != 0);
    let list = NotificationList { unread, since_ms, limit: which.limit, before_id: which.before };
    Ok(caller.ok(caller.ask(list).await?))
}

async fn notifications_read(caller: ApiCaller) -> Answer {
    let marks: Marks = caller.json()?;
    Ok(caller.ok(caller.ask(NotificationRead { ids: marks.ids, all: marks.all }).await?))
}
