//! Messages of a topic as server-sent events: what the client missed first, then each message as it is stored. Driven by the mesh; nothing
//! is polled. A reader that is slow holds back what is read for it, and one that falls too far behind is ended: it comes back with the
//! message that it saw last.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use claudemesh_protocol::error::ErrorCode;
use claudemesh_protocol::id::MeshId;
use claudemesh_protocol::time::iso;
use futures_util::Stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::follow::Posted;
use super::http::Answer;
use super::reading::{decorated, message};
use crate::db::MeshDb;
use crate::features::messaging::store::{self as messages, TopicPart};
use crate::http::State;
use crate::http::api::{ApiCaller, query};
use crate::mesh::context::{Caller, MeshContext};
use crate::mesh::principal::Waiting;
use crate::refusal::Refusal;

/// From one sign of life to the next.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Messages that are read at once for a client that comes back.
const PAGE: u32 = 50;
/// A key that ends later than this is looked at by its next request.
const FAR: Duration = Duration::from_secs(30 * 86_400);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    after: Option<String>,
}

/// What the mesh gave for the stream.
struct Followed {
    part: TopicPart,
    name: String,
    messages: mpsc::Receiver<Arc<Posted>>,
}

pub(super) async fn stream(state: State, request: HttpRequest, path: web::Path<String>, caller: ApiCaller) -> Answer {
    let place: Place = query(&request)?;
    let header = request.headers().get("last-event-id").and_then(|header| header.to_str().ok());
    let after = header.map(str::to_owned).or(place.after);
    // Before anything is read: what is stored from now on comes through the queue.
    let followed = follow(&state, &caller, path.into_inner()).await?;
    let storage = state.storage(&caller.mesh);
    let last = match &after {
        Some(id) => match message(&storage, &followed.part, "Last-Event-ID", id).await {
            Ok(found) => Some(found.seq),
            Err(refusal) if refusal.code == ErrorCode::NotFound => None,
            Err(refusal) => return Err(refusal),
        },
        None => None,
    };
    let now = state.clock.now_ms();
    let ready = json!({
        "topic": followed.name,
        "topicId": followed.part.topics.first(),
        "connectedAt": iso(now),
        "recovered": after.is_none() || last.is_some(),
    });
    let left = caller.expires_at_ms.map(|end| Duration::from_millis(u64::try_from(end - now).unwrap_or(0)));
    let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let events = Events {
        waiting: VecDeque::from([event(None, "ready", &ready.to_string())]),
        // Nothing is to be read for who does not come back.
        behind: last.is_some(),
        part: TopicPart { after_seq: last.unwrap_or(-1), limit: PAGE, ..followed.part },
        storage: MeshDb::clone(&storage),
        messages: followed.messages,
        heartbeat,
        ends: Box::pin(tokio::time::sleep(left.unwrap_or(FAR).min(FAR))),
        mesh: caller.mesh.clone(),
        key: Arc::clone(&caller.key),
        state,
        over: false,
    };
    let mut response = caller.with_rate(HttpResponse::Ok());
    response.insert_header((CONTENT_TYPE, "text/event-stream"));
    response.insert_header((CACHE_CONTROL, "no-store"));
    // Proxies that collect what they pass on would hold events back.
    response.insert_header(("x-accel-buffering", "no"));
    Ok(response.streaming(events.into_stream()))
}

async fn follow(state: &State, caller: &ApiCaller, topic: String) -> Result<Followed, Refusal> {
    let (from, key) = (caller.principal(), caller.key.to_string());
    let followed = state.directory.with(&caller.mesh, move |core, features| {
        let (waiting, _) = Waiting::new(from.clone());
        let cx = MeshContext::new(core, Some(Caller::waiting(from, waiting, "topic_follow")));
        let (member, now) = (cx.asker()?.member.clone(), cx.now_ms());
        let found = cx.topic(&topic)?;
        let (id, name, since_ms) = (found.id.clone(), found.name.clone(), found.kept_since_ms(now));
        let messages = features.topics.followers.stream(&cx, &member, &id, Some(key))?;
        Ok(Followed { part: TopicPart { since_ms, ..TopicPart::newest(id, PAGE) }, name, messages })
    });
    followed.await?
}

/// `id`, `event` and `data` of one event. The data is JSON in one line.
fn event(id: Option<&str>, kind: &str, data: &str) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: {kind}\ndata: {data}\n\n").into()
}

/// One open stream.
struct Events {
    /// Events that are ready to be written.
    waiting: VecDeque<Bytes>,
    /// There may be stored messages after `part.after_seq` that do not come through the queue.
    behind: bool,
    /// What is read next; its `after_seq` is the place of the last message that was written.
    part: TopicPart,
    storage: MeshDb,
    messages: mpsc::Receiver<Arc<Posted>>,
    heartbeat: Interval,
    ends: std::pin::Pin<Box<tokio::time::Sleep>>,
    mesh: MeshId,
    key: Arc<str>,
    state: State,
    over: bool,
}

impl Events {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        futures_util::stream::unfold(self, |mut events| async move { Some((Ok(events.next().await?), events)) })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            if self.behind {
                self.catch_up().await;
                continue;
            }
            tokio::select! {
                posted = self.messages.recv() => match posted {
                    // It was read from storage already.
                    Some(posted) if posted.seq <= self.part.after_seq => {}
                    Some(posted) => {
                        self.part.after_seq = posted.seq;
                        return Some(event(Some(&posted.id), "message", &posted.json));
                    }
                    None => {
                        let why = self.why().await;
                        return Some(self.end(why));
                    }
                },
                _ = self.heartbeat.tick() => {
                    return Some(event(None, "heartbeat", &self.state.clock.now_ms().to_string()));
                }
                () = &mut self.ends => {
                    return Some(self.end(ErrorCode::ApiKeyInvalid));
                }
            }
        }
    }

    /// Reads the next messages that the client missed.
    async fn catch_up(&mut self) {
        let page = async {
            let rows = messages::topic_after(&self.storage, &self.part).await?;
            let places: Vec<i64> = rows.iter().map(|row| row.seq).collect();
            let whole = rows.len() == PAGE as usize;
            Ok::<_, crate::db::DbError>((decorated(&self.storage, rows).await?, places, whole))
        };
        match page.await {
            Ok((messages, places, whole)) => {
                for (message, place) in messages.iter().zip(places) {
                    let data = serde_json::to_string(message).unwrap_or_default();
                    self.waiting.push_back(event(Some(&message.id), "message", &data));
                    self.part.after_seq = place;
                }
                self.behind = whole;
            }
            Err(error) => {
                let refusal = Refusal::from(error);
                refusal.log(Some(&self.mesh), "stream");
                let end = self.end(refusal.code);
                self.waiting.push_back(end);
            }
        }
    }

    /// Why the mesh let go of the stream.
    async fn why(&self) -> ErrorCode {
        let (key, now) = (Arc::clone(&self.key), self.state.clock.now_ms());
        let lives = self.state.directory.with(&self.mesh, move |core, _| core.keys.live(&key, now).is_ok()).await;
        match lives {
            Ok(true) => ErrorCode::Busy,
            Ok(false) => ErrorCode::ApiKeyInvalid,
            Err(refusal) => refusal.code,
        }
    }

    fn end(&mut self, why: ErrorCode) -> Bytes {
        self.over = true;
        event(None, "error", &json!({"error": why.as_str()}).to_string())
    }
}
